//! The wait of a call for other members: until a majority has its records.
//!
//! Owns: what is waited for, and the ticket of a task that waits. Without replication it has no size,
//! and there is nothing to wait for. Must not know: the members, and why a call waits.

use std::task::Waker;
use std::time::{Duration, Instant};

use super::PartitionCore;
use super::lead::LedEpoch;
#[cfg(feature = "replication")]
use super::quorum::Quorum;
#[cfg(feature = "replication")]
use super::quorum_gate::{Awaited, Measure};
use crate::error::{Error, Result};
#[cfg(feature = "replication")]
use crate::sync::OnceLock;

#[derive(Debug, Default)]
pub(crate) struct Copies {
    #[cfg(feature = "replication")]
    awaited: Option<Awaited>,
    /// Until when it waits for a majority to sync, from the moment at which the others are asked for
    /// that: a delivery may be waited for long after its append.
    #[cfg(feature = "replication")]
    asked_until: OnceLock<Duration>,
    /// What a task waits with, once it was polled.
    #[cfg(feature = "replication")]
    ticket: Option<u64>,
}

impl Copies {
    /// The error of a call that has changed nothing, because it is not known that a majority has the
    /// records that it builds on. `waited` is the result of the wait for that.
    pub(crate) fn refused(core: &PartitionCore, waited: Result<()>) -> Error {
        match waited {
            Err(error) if !matches!(error, Error::Timeout | Error::LeadershipLost) => error,
            _ => core.log.lead().refused(),
        }
    }
}

#[cfg(feature = "replication")]
impl Copies {
    /// Of what was appended below `end` under a leadership; of nothing if that is none. The time that
    /// a call waits at most begins now.
    pub(crate) fn of(core: &PartitionCore, end: u64, led: LedEpoch) -> Self {
        Self::measured(core, end, led, Measure::Held)
    }

    /// As [`of`](Self::of), and a majority must have synced it. The others are asked for that when the
    /// wait [begins](Self::begin).
    pub(crate) fn synced(core: &PartitionCore, end: u64, led: LedEpoch) -> Self {
        let is_stricter = led.is_some() && !core.log.lead().counts_synced();
        Self::measured(core, end, led, if is_stricter { Measure::Synced } else { Measure::Held })
    }

    fn measured(core: &PartitionCore, end: u64, led: LedEpoch, measure: Measure) -> Self {
        let awaited = led.is_some().then(|| Quorum::of(core).awaited(end, led, measure)).flatten();
        Self { awaited, ..Self::default() }
    }

    /// Asks the others for what it waits for, if they would not do that by themselves. A wait does so
    /// itself, but perhaps after something else that takes long. `is_announced`: the caller announces it
    /// at once. It holds no lock.
    pub(crate) fn begin(&self, core: &PartitionCore, is_announced: bool) {
        if let Some(Awaited { end, epoch, measure: Measure::Synced, .. }) = self.begun(core) {
            Quorum::of(core).want_synced(epoch, end, is_announced);
        }
    }

    /// What it waits for, once the wait has begun.
    fn begun(&self, core: &PartitionCore) -> Option<Awaited> {
        let awaited = self.awaited?;
        if awaited.measure == Measure::Held {
            return Some(awaited);
        }
        let begin = || Quorum::of(core).deadline().unwrap_or(awaited.deadline);
        Some(Awaited { deadline: *self.asked_until.get_or_init(begin), ..awaited })
    }

    /// Of all that was appended to the partition since the leadership `since` began. Also returns from
    /// which leadership on the next call has to look. `is_strict`: a majority must have synced it.
    ///
    /// # Errors
    ///
    /// [`Error::LeadershipLost`](crate::Error::LeadershipLost) if one of them has ended before a
    /// majority was known to have everything.
    pub(crate) fn since(
        core: &PartitionCore,
        since: LedEpoch,
        is_strict: bool,
    ) -> (Result<Self>, LedEpoch) {
        if !since.is_some() {
            return (Ok(Self::default()), since);
        }
        let is_stricter = is_strict && !core.log.lead().counts_synced();
        let measure = if is_stricter { Measure::Synced } else { Measure::Held };
        let (awaited, next) = Quorum::of(core).since(since.number(), measure);
        let copies =
            awaited.map(|(led, end)| Self::measured(core, end, led, measure)).map_err(Into::into);
        (copies, LedEpoch::of(next))
    }

    /// Of all records below `end`, also of those of earlier leaderships, under the leadership of now;
    /// of nothing if a majority is known to have them, or this member does not lead. The time begins
    /// as of [`of`](Self::of).
    pub(crate) fn below(core: &PartitionCore, end: u64) -> Self {
        if end <= core.log.ends().watermark() {
            return Self::default();
        }
        let led = core.log.lead().leads().map_or_else(LedEpoch::default, LedEpoch::of);
        Self::of(core, end, led)
    }

    pub(crate) fn is_awaited(&self) -> bool {
        self.awaited.is_some()
    }

    /// Blocks until a majority has them.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`](crate::Error::Timeout),
    /// [`Error::LeadershipLost`](crate::Error::LeadershipLost) and those of a closed partition: the
    /// records may or may not be kept.
    pub(crate) fn wait(&self, core: &PartitionCore) -> Result<()> {
        self.begin(core, false);
        self.begun(core).map_or(Ok(()), |awaited| Ok(Quorum::of(core).wait(awaited)?))
    }

    /// The same, until a moment of real time, which is `timeout` after the call has begun; `None` if the
    /// result is not known then.
    pub(crate) fn wait_until(
        &self,
        core: &PartitionCore,
        until: Option<Instant>,
        timeout: Duration,
    ) -> Option<Result<()>> {
        let Some(awaited) = self.begun(core) else { return Some(Ok(())) };
        self.begin(core, false);
        let answer = Quorum::of(core).wait_until(awaited, until, timeout)?;
        Some(answer.map_err(Into::into))
    }

    /// The result if it is known; otherwise `waker` is woken when it is. [`forget`](Self::forget)
    /// ends the wait.
    pub(crate) fn poll(&mut self, core: &PartitionCore, waker: &Waker) -> Option<Result<()>> {
        self.begin(core, false);
        let Some(awaited) = self.begun(core) else { return Some(Ok(())) };
        let answer = Quorum::of(core).poll(&awaited, waker, &mut self.ticket)?;
        Some(answer.map_err(Into::into))
    }

    /// Ends the wait of a task that polled.
    pub(crate) fn forget(&mut self, core: &PartitionCore) {
        if let (Some(awaited), Some(ticket)) = (&self.awaited, self.ticket.take()) {
            Quorum::of(core).forget(awaited, ticket);
        }
    }
}

#[cfg(not(feature = "replication"))]
#[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "there are no other members")]
impl Copies {
    #[inline]
    pub(crate) fn of(_: &PartitionCore, _: u64, _: LedEpoch) -> Self {
        Self::default()
    }

    #[inline]
    pub(crate) fn synced(_: &PartitionCore, _: u64, _: LedEpoch) -> Self {
        Self::default()
    }

    #[inline]
    pub(crate) fn begin(&self, _: &PartitionCore, _: bool) {}

    pub(crate) fn since(_: &PartitionCore, since: LedEpoch, _: bool) -> (Result<Self>, LedEpoch) {
        (Ok(Self::default()), since)
    }

    #[inline]
    pub(crate) fn below(_: &PartitionCore, _: u64) -> Self {
        Self::default()
    }

    #[inline]
    pub(crate) fn is_awaited(&self) -> bool {
        false
    }

    #[inline]
    pub(crate) fn wait(&self, _: &PartitionCore) -> Result<()> {
        Ok(())
    }

    #[inline]
    pub(crate) fn wait_until(
        &self,
        _: &PartitionCore,
        _: Option<Instant>,
        _: Duration,
    ) -> Option<Result<()>> {
        Some(Ok(()))
    }

    #[inline]
    pub(crate) fn poll(&mut self, _: &PartitionCore, _: &Waker) -> Option<Result<()>> {
        Some(Ok(()))
    }

    #[inline]
    pub(crate) fn forget(&mut self, _: &PartitionCore) {}
}

//! A replicated partition: its high watermark, and the calls that wait for it.
//!
//! Uses the shared log and the gate, and owns nothing itself. Must not know: other members, and how
//! the watermark is computed.
//!
//! The watermark is raised by the owner of the replication, to an offset at which a batch ends. It
//! begins at the log start: after an opening, nothing is known of the other members.

use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::PartitionCore;
use super::lead::LedEpoch;
#[cfg(test)]
use super::leadership::Waits;
use super::quorum_gate::{Awaited, Measure, QuorumGate, Unconfirmed};
use super::shared::SharedLog;
use super::waiters::{Awaits, Fired};
use crate::clock::real_now;
#[cfg(feature = "testing")]
use crate::seams::{Drive, drive_until};

/// LIMIT: how late a call notices that a clock that is moved by hand has passed its deadline, if nobody
/// ticks; and how often a thread that waits wakes for nothing.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// LIMIT: how much later than its deadline a wait ends at the latest, in a test's cluster.
#[cfg(feature = "testing")]
const BEATS: Duration = Duration::from_secs(60);

#[derive(Clone, Copy)]
pub(crate) struct Quorum<'a> {
    log: &'a SharedLog,
    gate: &'a Arc<QuorumGate>,
}

impl<'a> Quorum<'a> {
    pub(crate) fn of(core: &'a PartitionCore) -> Self {
        Self { log: &core.log, gate: &core.quorum_gate }
    }

    /// Begins the replication of the partition: from now on nothing above the watermark is shown.
    /// To be called before the partition has readers.
    pub(crate) fn begin(self) {
        let state = self.log.state().lock_for_change();
        self.log.ends().begin_watermark();
        self.gate.raise(self.log.ends().watermark());
        drop(state);
    }

    /// Records that a majority has everything below `offset`. The watermark does not exceed the log
    /// end, and never falls. Returns it.
    pub(crate) fn advance(self, offset: u64) -> u64 {
        let mut state = self.log.state().lock_for_change();
        let is_news = self.log.ends().is_replicated() && state.raise_watermark(offset);
        state.uncommitted().settle(self.log.ends().watermark());
        let watermark = self.log.ends().watermark();
        let fired = if is_news {
            // Raised now, so that waits get this result even if the partition is closed meanwhile.
            self.gate.raise(watermark);
            state.waiters().fire(Awaits::Watermark)
        } else {
            Fired::default()
        };
        drop(state);
        if is_news {
            fired.notify();
            self.gate.answer_reached();
        }
        watermark
    }

    /// A majority has synced everything below `offset`, which is not above the watermark.
    pub(crate) fn advance_synced(self, offset: u64) {
        self.gate.raise_synced(offset);
        self.gate.answer_reached();
    }

    /// A call waits until a majority has synced everything below `end`. `is_announced`: the caller
    /// announces that. It holds no lock.
    pub(crate) fn want_synced(self, epoch: u32, end: u64, is_announced: bool) {
        if self.gate.want_synced(epoch, end) {
            self.log.lead().appended(is_announced);
        }
    }

    /// What is below is to be synced by a majority. (A call of an earlier leadership may have waited for
    /// records that were cut off since.)
    pub(crate) fn wanted(self) -> u64 {
        self.gate.wanted().min(self.log.ends().end())
    }

    /// What a call waits for that appended below `end` under a leadership, from now on; `None` if it
    /// waits for no majority.
    pub(crate) fn awaited(self, end: u64, led: LedEpoch, measure: Measure) -> Option<Awaited> {
        let deadline = self.deadline().filter(|_| led.is_some())?;
        Some(Awaited { end, epoch: led.number(), deadline, measure })
    }

    /// When a wait that begins now ends at the latest.
    pub(crate) fn deadline(self) -> Option<Duration> {
        let terms = self.log.lead().terms()?;
        Some(self.log.clock().monotonic().saturating_add(terms.ack_timeout))
    }

    /// Under which leadership a call waits, and up to which end, that wants a majority to have all that
    /// was appended since `since` began; under none if a majority has it. The second is from when on
    /// the next such call has to look.
    pub(crate) fn since(
        self,
        since: u32,
        measure: Measure,
    ) -> (Result<(LedEpoch, u64), Unconfirmed>, u32) {
        let leads = self.log.lead().leads();
        // In this order: what was appended under a leadership that has ended is in the log, or the
        // loss of it is noted.
        let end = self.log.ends().end();
        let epoch = match (self.gate.ended_since(since, measure), leads) {
            (Some(Err(lossy)), _) => {
                return (Err(Unconfirmed::LeadershipEnded), lossy.saturating_add(1));
            }
            (_, Some(epoch)) => epoch,
            (Some(Ok(())), None) => return (Ok((LedEpoch::default(), end)), since),
            // Its end will be noted.
            (None, None) => since,
        };
        (Ok((LedEpoch::of(epoch), end)), epoch)
    }

    /// Blocks until the watermark reaches the end of a call's records.
    ///
    /// # Errors
    ///
    /// The records may or may not be kept.
    pub(crate) fn wait(self, awaited: Awaited) -> Result<(), Unconfirmed> {
        #[cfg(feature = "testing")]
        if let Some(drive) = self.log.seams.drive() {
            self.log.status().check_process().map_err(Unconfirmed::Failed)?;
            // The gate notices a deadline a beat late.
            let until = awaited.deadline.checked_add(BEATS);
            let answer = self.wait_driven(&**drive, awaited, until);
            return answer.unwrap_or(Err(Unconfirmed::TimedOut));
        }
        self.wait_asleep(awaited, None).unwrap_or(Err(Unconfirmed::TimedOut))
    }

    /// The same in a test's cluster, of which no other thread lets the members work: until a moment
    /// of its clock.
    #[cfg(feature = "testing")]
    fn wait_driven(
        self,
        drive: &dyn Drive,
        awaited: Awaited,
        until: Option<Duration>,
    ) -> Option<Result<(), Unconfirmed>> {
        let mut ticket = None;
        let look = || self.gate.poll(&awaited, Waker::noop(), &mut ticket);
        let answer = drive_until(drive, until, look);
        if let Some(ticket) = ticket {
            self.gate.forget(&awaited, ticket);
        }
        answer
    }

    /// The same, until a moment of real time, which is `timeout` after the call has begun; `None` if the
    /// result is not known then.
    #[cfg_attr(not(feature = "testing"), expect(unused_variables, reason = "all time is real"))]
    pub(crate) fn wait_until(
        self,
        awaited: Awaited,
        until: Option<Instant>,
        timeout: Duration,
    ) -> Option<Result<(), Unconfirmed>> {
        #[cfg(feature = "testing")]
        if let Some(drive) = self.log.seams.drive() {
            if let Err(error) = self.log.status().check_process() {
                return Some(Err(Unconfirmed::Failed(error)));
            }
            return self.wait_driven(&**drive, awaited, drive.now().checked_add(timeout));
        }
        self.wait_asleep(awaited, until)
    }

    /// The caller looks at the broker's clock itself: without background threads nobody else may.
    fn wait_asleep(
        self,
        awaited: Awaited,
        until: Option<Instant>,
    ) -> Option<Result<(), Unconfirmed>> {
        if let Err(error) = self.log.status().check_process() {
            return Some(Err(Unconfirmed::Failed(error)));
        }
        loop {
            let remaining = awaited.deadline.saturating_sub(self.log.clock().monotonic());
            let next = real_now().checked_add(remaining.min(LOOK_EVERY));
            let is_last = until.is_some_and(|until| next.is_none_or(|next| until <= next));
            let next = if is_last { until } else { next };
            if let Some(answer) = self.gate.wait_until(awaited, next) {
                return Some(answer);
            }
            if awaited.deadline <= self.log.clock().monotonic() {
                return Some(Err(Unconfirmed::TimedOut));
            }
            if is_last {
                return None;
            }
        }
    }

    /// Waits as [`wait`](Self::wait) does, for a caller that holds a lock that a member takes when it has
    /// lost its leadership. In a test's cluster another thread lets the members work then: it waits for
    /// that lock once the caller has its answer.
    #[cfg(feature = "testing")]
    pub(crate) fn wait_locked(
        core: &Arc<PartitionCore>,
        awaited: Awaited,
    ) -> Result<(), Unconfirmed> {
        let Some(drive) = core.log.seams.drive() else { return Quorum::of(core).wait(awaited) };
        let (drive, partition) = (Arc::clone(drive), Arc::clone(core));
        let helper = std::thread::spawn(move || {
            let _ = Quorum::of(&partition).wait_driven(&*drive, awaited, None);
        });
        let asleep = Quorum::of(core).wait_asleep(awaited, None);
        let answer = asleep.unwrap_or(Err(Unconfirmed::TimedOut));
        if answer.is_ok() {
            // It leads, so the helper takes no such lock. What follows finds its step done.
            let _ = helper.join();
        }
        answer
    }

    /// The result if it is known; otherwise `waker` is woken when it is. See [`QuorumGate::poll`].
    pub(crate) fn poll(
        self,
        awaited: &Awaited,
        waker: &Waker,
        ticket: &mut Option<u64>,
    ) -> Option<Result<(), Unconfirmed>> {
        if let Err(error) = self.log.status().check_process() {
            return Some(Err(Unconfirmed::Failed(error)));
        }
        #[cfg(feature = "testing")]
        if self.log.seams.drive().is_some() {
            // A test with one task has nobody who could let the members work.
            return Some(self.wait(*awaited));
        }
        self.gate.poll(awaited, waker, ticket)
    }

    /// Ends the wait of a task that polled.
    pub(crate) fn forget(self, awaited: &Awaited, ticket: u64) {
        if self.log.status().is_in_own_process() {
            self.gate.forget(awaited, ticket);
        }
    }

    /// The leadership of `epoch` has ended: what a majority was not known to have is unknown from
    /// now on. If the broker's [`Leadership`](super::leadership::Leadership) was ended before, nothing
    /// of the epoch is appended any more on return.
    pub(crate) fn end_leadership(self, epoch: u32) {
        // An append asks under this lock whether it may. One that asked before has published.
        let mut state = self.log.lock();
        state.uncommitted().clear();
        let end = self.log.ends().end();
        drop(state);
        self.gate.end_leadership(epoch, end);
    }

    /// Ends the waits whose deadline has passed, on the broker's monotonic clock. Returns the next
    /// deadline.
    #[cfg(test)]
    pub(crate) fn expire(self, now: Duration) -> Option<Duration> {
        self.gate.expire(now)
    }
}

//! Records changes of the catalog: durably on this machine, and, in a replicated group, at a majority
//! of the members.
//!
//! Uses the internal logs, and owns nothing itself. Must not know: what the changes are.
//!
//! A leader applies a change when it is durable on its own machine, and tells a caller that it is made
//! when a majority has it. What becomes of a change whose leadership ends in between is decided by
//! what the log says later.

use super::catalog::CatalogChange;
use super::context::Context;
use super::internal_logs::InternalLogs;
use crate::error::Result;
use crate::format::TopicId;
#[cfg(feature = "replication")]
use crate::partition::quorum::Quorum;
#[cfg(feature = "replication")]
use crate::partition::quorum_gate::{Awaited, Measure};

/// A change that is durable on this machine, for [`CatalogWriter::settle`].
#[derive(Debug, Clone, Copy)]
#[must_use = "the call must not return before a majority has the change"]
pub(crate) struct Recorded {
    #[cfg(feature = "replication")]
    end: u64,
    /// That of the leadership; `None` without replication.
    #[cfg(feature = "replication")]
    epoch: Option<u32>,
}

#[derive(Clone, Copy)]
pub(super) struct CatalogWriter<'a> {
    context: &'a Context,
    logs: &'a InternalLogs,
}

impl<'a> CatalogWriter<'a> {
    pub(super) fn new(context: &'a Context, logs: &'a InternalLogs) -> Self {
        Self { context, logs }
    }

    /// Appends changes and applies them. They are durable on this machine on return.
    ///
    /// # Errors
    ///
    /// Those of the append and of its sync; in a replicated group
    /// [`Error::NotLeader`](crate::Error::NotLeader) and
    /// [`Error::NotEnoughReplicas`](crate::Error::NotEnoughReplicas).
    pub(super) fn record(self, changes: Vec<CatalogChange>) -> Result<Recorded> {
        self.recorded(|| self.logs.catalog().append_durably(changes))
    }

    /// The same, in one batch: after a crash all of the changes are there or none. The caller
    /// [tidies](crate::partition::state_log::StateLog::tidy) later.
    pub(super) fn record_whole(self, changes: Vec<CatalogChange>) -> Result<Recorded> {
        self.recorded(|| self.logs.catalog().append_whole(changes))
    }

    /// What others have recorded until now.
    pub(super) fn recorded_before(self) -> Result<Recorded> {
        self.recorded(|| Ok(()))
    }

    #[cfg(feature = "replication")]
    fn recorded(self, append: impl FnOnce() -> Result<()>) -> Result<Recorded> {
        // One look, before the append: if another leadership has begun by then, the wait ends without
        // result. Two looks could find the leadership ended in between, and wait for nobody.
        let leadership = self.context.leadership.as_ref();
        let epoch = leadership.map(|leadership| leadership.check()).transpose()?;
        append()?;
        Ok(Recorded { end: self.logs.catalog().partition().log_end(), epoch })
    }

    #[cfg(not(feature = "replication"))]
    #[expect(clippy::unused_self, reason = "there are no other members")]
    fn recorded(self, append: impl FnOnce() -> Result<()>) -> Result<Recorded> {
        append().map(|()| Recorded {})
    }

    /// Waits until a majority has the change. The caller holds no lock that the thread of the
    /// replication takes while this member leads; one that it takes otherwise is
    /// [another case](Self::settle_locked).
    ///
    /// # Errors
    ///
    /// The change may be kept or not.
    #[cfg(feature = "replication")]
    pub(super) fn settle(self, recorded: Recorded) -> Result<()> {
        let Some(awaited) = self.awaited(recorded) else { return Ok(()) };
        Ok(Quorum::of(self.logs.catalog().partition()).wait(awaited)?)
    }

    /// The same for a caller that changes topics, and keeps others from it meanwhile.
    ///
    /// # Errors
    ///
    /// The change may be kept or not.
    #[cfg(all(feature = "replication", feature = "testing"))]
    pub(super) fn settle_locked(self, recorded: Recorded) -> Result<()> {
        let Some(awaited) = self.awaited(recorded) else { return Ok(()) };
        Ok(Quorum::wait_locked(self.logs.catalog().partition(), awaited)?)
    }

    #[cfg(not(all(feature = "replication", feature = "testing")))]
    pub(super) fn settle_locked(self, recorded: Recorded) -> Result<()> {
        self.settle(recorded)
    }

    #[cfg(feature = "replication")]
    fn awaited(self, recorded: Recorded) -> Option<Awaited> {
        let Recorded { end, epoch } = recorded;
        let (epoch, leadership) = epoch.zip(self.context.leadership.as_ref())?;
        let now = self.context.clock.monotonic();
        let deadline = now.saturating_add(leadership.terms().ack_timeout);
        Some(Awaited { end, epoch, deadline, measure: Measure::Held })
    }

    #[cfg(not(feature = "replication"))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "there are no other members")]
    pub(super) fn settle(self, _: Recorded) -> Result<()> {
        Ok(())
    }

    /// Whether the record of a topic's stage is never truncated.
    pub(super) fn is_certain(self, topic: TopicId) -> bool {
        if !self.context.is_member() {
            return true;
        }
        let offset = self.logs.catalog().read(|catalog| catalog.topics.offset_of(&topic));
        offset.is_some_and(|at| at < self.logs.catalog().partition().log().ends().watermark())
    }
}

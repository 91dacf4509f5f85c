//! A replicated partition: its high watermark, and the calls that wait for it.
//!
//! Uses the shared log and the gate, and owns nothing itself. Must not know: other members, who
//! leads, and how the watermark is computed.
//!
//! The watermark is raised by the owner of the replication, to an offset at which a batch ends. It
//! begins at the log start: after an opening, nothing is known of the other members.

use std::task::Waker;
use std::time::Duration;

use super::PartitionCore;
use super::quorum_gate::{Awaited, QuorumGate, Unconfirmed};
use super::shared::SharedLog;
use super::waiters::{Awaits, Fired};

#[derive(Clone, Copy)]
pub(crate) struct Quorum<'a> {
    log: &'a SharedLog,
    gate: &'a QuorumGate,
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

    /// Blocks until the watermark reaches the end of a call's records.
    ///
    /// # Errors
    ///
    /// The records may or may not be kept.
    pub(crate) fn wait(self, awaited: Awaited) -> Result<(), Unconfirmed> {
        self.log.status().check_process().map_err(Unconfirmed::Failed)?;
        self.gate.wait(awaited)
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
        self.gate.poll(awaited, waker, ticket)
    }

    /// Ends the wait of a task that polled.
    pub(crate) fn forget(self, awaited: &Awaited, ticket: u64) {
        if self.log.status().is_in_own_process() {
            self.gate.forget(awaited, ticket);
        }
    }

    /// The leadership of `epoch` has ended: what a majority was not known to have is unknown from
    /// now on.
    pub(crate) fn end_leadership(self, epoch: u32) {
        self.gate.end_leadership(epoch);
    }

    /// Ends the waits whose deadline has passed, on the broker's monotonic clock. Returns the next
    /// deadline.
    pub(crate) fn expire(self, now: Duration) -> Option<Duration> {
        self.gate.expire(now)
    }
}

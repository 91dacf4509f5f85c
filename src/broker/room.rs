//! What is done at once when an append was refused for want of space, on the disk or in the budget.
//!
//! All of it would be done within a minute, by the settings of the topics; a refused append must
//! not wait for that. Must not know: who was refused, and whether the append is tried again.

use std::time::Duration;

use super::engine::Engine;
use crate::error::Result;

/// What decides whether another look can give back more than the last one: if none of it has
/// changed, an append that is tried in a loop does not keep the disk busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sight {
    appended: u64,
    returns: u64,
    /// On the broker's clock, in seconds: what has expired since is removed.
    time: u64,
}

impl Engine {
    /// Looks after an append that was refused, if there was one: what has expired is removed, and
    /// what is compacted is compacted, however little of it is dirty.
    pub(crate) fn relieve(&self) -> Result<()> {
        if !self.lanes.take_refusal() {
            return Ok(());
        }
        let sight = Sight {
            appended: self.appended(),
            returns: self.env.space.returns(),
            time: Duration::as_secs(&self.clock.monotonic()),
        };
        if self.relieved.lock().replace(sight) == Some(sight) {
            return Ok(());
        }
        let retained = self.enforce_retention();
        for partition in self.all_partitions() {
            partition.compact_for_room();
        }
        retained
    }
}

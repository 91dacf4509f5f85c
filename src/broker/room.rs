//! What is done at once when an append was refused for want of space, on the disk or in the budget,
//! and how an append waits for it.
//!
//! All that makes room would be done within a minute, by the settings of the topics; a refused
//! append must not wait for that.

use std::sync::Arc;
use std::time::Duration;

use super::engine::Engine;
use crate::clock::real_now;
use crate::error::{Error, Result};
use crate::partition::PartitionCore;
use crate::partition::room::{Wait, Want};

/// What decides whether another look can give back more than the last one: if none of it has
/// changed, an append that is tried in a loop does not keep the disk busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sight {
    appended: u64,
    returns: u64,
    /// On the broker's clock, in seconds: what has expired since is removed.
    time: u64,
}

/// LIMIT: how long an append that waits for a full disk sleeps at most. What somebody else removes
/// from the disk is not reported, nor is memory that a message held.
const LOOK_AT_DISK: Duration = Duration::from_secs(1);

impl Engine {
    /// Looks after an append that was refused, if there was one: what has expired is removed, and
    /// what is compacted is compacted, however little of it is dirty.
    pub(crate) fn relieve(&self) -> Result<()> {
        if !self.workers.take_refusal() {
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

    /// Waits for room, as [`WhenFull::Wait`](crate::WhenFull::Wait) says. Called after each attempt
    /// of an append that failed, with no lock held. False when the time is over and the last attempt
    /// is made, and for the internal logs: what is appended to those is waited for under locks.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`], and [`Error::UnknownTopic`] when the topic was deleted.
    pub(crate) fn wait_for_room(
        &self,
        core: &Arc<PartitionCore>,
        want: &mut Want,
        at_most: Duration,
    ) -> Result<bool> {
        if self.internal_partitions().iter().any(|own| Arc::ptr_eq(own, core)) {
            return Ok(false);
        }
        // Read before `check_open`: a broker closes its partitions after it is closed itself.
        let is_closed = core.is_closed();
        self.check_open()?;
        if is_closed {
            return Err(Error::UnknownTopic(core.origin.topic.to_string()));
        }
        let space = &self.env.space;
        let pause = match want.wait {
            Some(pause) if pause.is_over => return Ok(false),
            Some(pause) => {
                let look = real_now().checked_add(LOOK_AT_DISK).filter(|_| !want.is_budget);
                let until = [pause.until, look].into_iter().flatten().min();
                space.wait_for_return(pause.seen, until);
                Wait { is_over: pause.until.is_some_and(|until| real_now() >= until), ..pause }
            }
            None => Wait { seen: 0, until: real_now().checked_add(at_most), is_over: false },
        };
        // Read before the next attempt, so that no return is missed.
        want.wait = Some(Wait { seen: space.returns(), ..pause });
        Ok(true)
    }
}

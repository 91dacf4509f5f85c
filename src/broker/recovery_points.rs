//! Recovery points: up to which offset each partition is known to be whole and durable.
//!
//! Owns: when they were last written, and the right to write them. Must not know: what an opening
//! does with them.
//!
//! Invariant: no point is stored after a newer one, nor after the end of a clean run: [`Points`] is
//! held while they are written.

use std::sync::Arc;
use std::time::Duration;

use super::local::LocalChange;
use super::run_parts::RunParts;
use super::workers::CHECKPOINT_EVERY;
use crate::error::Result;
use crate::foreign;
use crate::partition::{PartitionCore, together};
use crate::sync::{LockLevel, Mutex, MutexGuard};
use crate::topic::TopicShared;

/// See the module's documentation.
pub(crate) struct RecoveryPoints {
    run: RunParts,
    /// When they were last written, on the clock of the run.
    last: Mutex<Duration>,
}

/// The right to write recovery points, of which there is one.
#[must_use]
pub(super) struct Points<'a> {
    last: MutexGuard<'a, Duration>,
}

impl RecoveryPoints {
    /// The first minute begins at once.
    pub(super) fn new(run: &RunParts) -> Self {
        Self {
            run: run.clone(),
            last: Mutex::at_level(LockLevel::RecoveryPoints, run.context().clock.monotonic()),
        }
    }

    pub(super) fn last_written(&self) -> Duration {
        *self.last.lock()
    }

    /// Whether they are to be written again.
    pub(super) fn are_due(&self, now: Duration) -> bool {
        now.saturating_sub(self.last_written()) >= CHECKPOINT_EVERY
    }

    /// Waits for the right to write them.
    pub(super) fn hold(&self) -> Points<'_> {
        Points { last: self.last.lock() }
    }

    /// Writes those of the partitions that changed since their last one.
    pub(super) fn write(&self) -> Result<()> {
        let _woken = foreign::hold_back();
        let mut points = self.hold();
        // The close of the run writes the last ones itself.
        self.run.gate().check_open()?;
        *points.last = self.run.context().clock.monotonic();
        let topics = self.run.live().all();
        let users = topics.iter().flat_map(|topic| &topic.partitions);
        // A partition that fails does not keep the others from it.
        let flushed = flush(users);
        // Checked last: a run that was closed meanwhile has closed partitions too.
        let flushed = flushed.and_then(|()| self.run.gate().check_open());
        self.store(&points, &topics).and(flushed)
    }

    /// Stores recovery points of the partitions that are durable.
    pub(super) fn store(&self, _: &Points<'_>, topics: &[Arc<TopicShared>]) -> Result<()> {
        let (mut changes, mut taken) = (Vec::new(), Vec::new());
        for topic in topics {
            // A deleted topic must leave no entry.
            for core in topic.partitions.iter().filter(|core| !core.is_closed()) {
                if let Some(point) = core.log().take_checkpoint() {
                    let (topic, partition) = (topic.id, core.origin.partition);
                    changes.push(LocalChange::TimedPoint { topic, partition, point });
                    taken.push(core);
                }
            }
        }
        changes.extend(self.run.logs().ends());
        if changes.is_empty() {
            return Ok(());
        }
        let stored = self.run.logs().local().append(changes);
        if stored.is_err() {
            for partition in taken {
                partition.log().give_back_checkpoint();
            }
        }
        stored.map(drop)
    }
}

/// Flushes partitions, but for those whose topic is deleted meanwhile. Tries all of them, and
/// returns the first failure.
pub(super) fn flush<'a>(
    partitions: impl IntoIterator<Item = &'a Arc<PartitionCore>>,
) -> Result<()> {
    let partitions: Vec<_> = partitions.into_iter().collect();
    let waits: Vec<_> = partitions.iter().map(|core| (&***core, core.log_end())).collect();
    let answers = partitions.iter().zip(together::wait_durable(&waits));
    let is_open = |(core, _): &(&&Arc<PartitionCore>, _)| !core.is_closed();
    let flushed = answers.filter(is_open).map(|(_, flushed)| flushed);
    flushed.fold(Ok(()), Result::and)
}

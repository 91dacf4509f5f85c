//! The worker for space and syncs: what appenders and waiters need soon.
//!
//! It makes blocks ahead of the writer, requests syncs of intervals and of
//! callers that wait without blocking ([`syncs`](super::syncs) makes them), and evicts group
//! members that have stopped polling. Must not know: the engine.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::RecvTimeoutError;

use super::queues::{Job, WorkerQueues};
use super::rounds::{AtWork, Pace, TRY_AGAIN, run_rounds};
use super::syncs::For;
use crate::clock::Clock;
use crate::partition::{PartitionCore, Work};
use crate::sync::Ordering;
use crate::trace::Outbox;

/// Runs the worker until it is stopped. `evict_overdue` evicts overdue members, and returns how
/// long until the next can be overdue; `start_helper` starts a thread that calls
/// [`Workers::help`](super::Workers::help).
pub(crate) fn run_space_worker(
    queues: &WorkerQueues,
    clock: &dyn Clock,
    trace: &Outbox,
    evict_overdue: impl Fn() -> Option<Duration>,
    start_helper: impl Fn() -> io::Result<JoinHandle<()>>,
) {
    let sync = |partition| queues.shared.syncs.ask((partition, For::Waiters), &start_helper);
    let mut intervals = Intervals::default();
    let mut at_work = AtWork::default();
    // At once: static members of the last run are waited for from the opening on.
    let mut next_check = Some(Duration::ZERO);
    let mut pace = Pace::default();
    run_rounds(&queues.shared, "space", trace, || {
        let now = clock.monotonic();
        let again = at_work.ask_again(now);
        if next_check.is_some_and(|next_check| now >= next_check) {
            // Should looking panic, the next look is after a while.
            next_check = Some(now.saturating_add(TRY_AGAIN));
            next_check = evict_overdue().map(|wait| now.saturating_add(wait));
        }
        let due = intervals.sync_due(now, &sync);
        let next = [due, next_check.map(|it| it.saturating_sub(now)), again];
        let job = match next.into_iter().flatten().min() {
            Some(wait) => queues.space.recv_timeout(pace.wait(wait, now)),
            None => queues.space.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match job {
            Ok(Job::Do(partition, Work::SyncLater)) => {
                partition.requests().begin(Work::SyncLater);
                intervals.add(partition, clock.monotonic(), &sync);
            }
            Ok(Job::Do(partition, Work::Sync)) => {
                partition.requests().begin(Work::Sync);
                sync(partition);
            }
            Ok(Job::Do(partition, work)) => {
                at_work.run(&partition, work, || partition.do_work(work));
            }
            // The next round checks.
            Ok(Job::Watch) => {
                queues.shared.moves.space.swap(false, Ordering::AcqRel);
                next_check = Some(Duration::ZERO);
            }
            Ok(Job::Relieve) | Err(RecvTimeoutError::Timeout) => {}
            Ok(Job::Stop) | Err(RecvTimeoutError::Disconnected) => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    });
}

/// Partitions whose interval runs, each at most once: thousands, where every topic has one.
#[derive(Default)]
pub(super) struct Intervals {
    /// By its address, with when it is to be looked at.
    partitions: HashMap<usize, (Arc<PartitionCore>, Duration)>,
    /// When each of them is to be checked, by its address. A partition that was synced meanwhile is
    /// due later, or not at all. An entry that an earlier one has replaced stays until its time,
    /// and is then skipped.
    due: BinaryHeap<Reverse<(Duration, usize)>>,
}

impl Intervals {
    /// Checks a partition, also one that is queued: a producer's own interval may end long before
    /// the one that the partition is queued for. A partition that is due is passed to `sync`.
    pub(super) fn add(
        &mut self,
        partition: Arc<PartitionCore>,
        now: Duration,
        sync: &dyn Fn(Arc<PartitionCore>),
    ) {
        let Some(due) = partition.log().sync_due() else { return };
        if due <= now {
            return sync(partition);
        }
        let address = Arc::as_ptr(&partition).addr();
        let known = self.partitions.get(&address).map(|(_, due)| *due);
        if known.is_none_or(|known| due < known) {
            self.partitions.insert(address, (partition, due));
            self.due.push(Reverse((due, address)));
        }
    }

    /// Syncs partitions that are due, and returns how long until the next one is.
    pub(super) fn sync_due(
        &mut self,
        now: Duration,
        sync: &dyn Fn(Arc<PartitionCore>),
    ) -> Option<Duration> {
        while let Some(&Reverse((due, address))) = self.due.peek() {
            if due > now {
                return Some(due.saturating_sub(now));
            }
            self.due.pop();
            if self.partitions.get(&address).is_none_or(|(_, current)| *current != due) {
                continue;
            }
            if let Some((partition, _)) = self.partitions.remove(&address) {
                self.add(partition, now, sync);
            }
        }
        None
    }

    /// How many partitions are queued, and with how many entries.
    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.partitions.len(), self.due.len())
    }
}

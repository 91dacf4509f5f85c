//! The worker for long work that no caller waits for.
//!
//! It makes next segments, writes footers of sealed segments, for whose syncs it asks the helpers
//! ([`syncs`](super::syncs)), and does retention, recovery points, and compactions, whose steps alternate
//! with the other work. Must not know: the engine, except through [`Housekeeping`].

use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::RecvTimeoutError;

use super::queues::{Job, WorkerQueues};
use super::rounds::{AtWork, Pace, run_rounds};
use super::syncs::For;
use crate::clock::Clock;
use crate::partition::compactor::{Occasion, pause_after};
use crate::partition::{PartitionCore, Work};
use crate::sync::Ordering;
use crate::trace::Outbox;

/// LIMIT: how often recovery points are written for partitions that changed. After a crash the
/// batches since the last one are scanned, that is a minute of appends at most. Each point costs a
/// sync of an internal log, which is little once a minute.
pub(crate) const CHECKPOINT_EVERY: Duration = Duration::from_secs(60);

/// What the bulk worker asks of the engine.
pub(crate) trait Housekeeping {
    /// What is done every minute.
    fn run_housekeeping(&self);

    /// A partition's sealed segments were finished: there may be more than its limit of bytes.
    fn finished(&self, partition: &Arc<PartitionCore>);

    /// An append was refused for want of space.
    fn relieve(&self);

    /// A number that changes whenever records are appended to any partition.
    fn appended(&self) -> u64;
}

/// Runs the worker until it is stopped. The first minute began at `opened`, however late the thread
/// begins. `start_helper` starts a thread that calls [`Workers::help`](super::Workers::help).
pub(crate) fn run_bulk_worker(
    queues: &WorkerQueues,
    clock: &dyn Clock,
    opened: Duration,
    trace: &Outbox,
    engine: &impl Housekeeping,
    start_helper: impl Fn() -> io::Result<JoinHandle<()>>,
) {
    let mut due = opened.saturating_add(CHECKPOINT_EVERY);
    let mut compactions = Compactions::default();
    let mut pace = Pace::default();
    let mut at_work = AtWork::default();
    run_rounds(&queues.shared, "bulk", trace, || {
        let now = clock.monotonic();
        let again = at_work.ask_again(now).map(|wait| now.saturating_add(wait));
        if now >= due {
            due = now.saturating_add(CHECKPOINT_EVERY);
            engine.run_housekeeping();
        }
        let others = [compactions.next_step(), again];
        let next = others.into_iter().flatten().fold(due, Duration::min);
        match queues.bulk.recv_timeout(pace.wait(next.saturating_sub(now), now)) {
            Ok(Job::Do(partition, Work::Compact)) => compactions.add(partition, now),
            Ok(Job::Do(partition, Work::Finish)) => {
                let job = || partition.finish_durable();
                let finished = at_work.run(&partition, Work::Finish, job);
                if finished.has_written || !finished.wants_sync {
                    engine.finished(&partition);
                }
                // By a helper: here a sync that hangs would hold up all partitions.
                if finished.wants_sync {
                    queues.shared.syncs.ask((partition, For::Footers), &start_helper);
                }
            }
            Ok(Job::Do(partition, Work::Next)) => {
                at_work.run(&partition, Work::Next, || partition.do_work(Work::Next));
            }
            Ok(Job::Do(partition, work)) => {
                at_work.run(&partition, work, || partition.do_work(work));
                engine.finished(&partition);
            }
            Ok(Job::Watch) => {
                queues.shared.moves.bulk.swap(false, Ordering::AcqRel);
            }
            Ok(Job::Relieve) => {
                engine.relieve();
                // An append that is refused repeatedly asks again at once: the queue would never be
                // empty, and the compaction that is to make room would never take a step.
                compactions.step(clock, engine, &mut at_work);
            }
            Err(RecvTimeoutError::Timeout) => compactions.step(clock, engine, &mut at_work),
            Ok(Job::Stop) | Err(RecvTimeoutError::Disconnected) => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    });
}

/// The compactions under way, each partition at most once. One is at work, so that the memory for
/// keys is needed once; it takes a step whenever nothing else is to be done, and pauses while
/// records are appended.
#[derive(Default)]
pub(super) struct Compactions {
    queue: VecDeque<Arc<PartitionCore>>,
    /// When the first of the queue may take its next step.
    at: Duration,
    appended: u64,
}

impl Compactions {
    pub(super) fn add(&mut self, partition: Arc<PartitionCore>, now: Duration) {
        if self.queue.is_empty() {
            self.at = now;
        }
        if !self.queue.iter().any(|known| Arc::ptr_eq(known, &partition)) {
            self.queue.push_back(partition);
        }
    }

    pub(super) fn next_step(&self) -> Option<Duration> {
        self.queue.front().map(|_| self.at)
    }

    pub(super) fn step(
        &mut self,
        clock: &dyn Clock,
        engine: &impl Housekeeping,
        at_work: &mut AtWork,
    ) {
        let begun = clock.monotonic();
        // Taken out for the step: one that panics does not hold up those after it.
        if begun < self.at {
            return;
        }
        let Some(partition) = self.queue.pop_front() else { return };
        // What failed has been counted, and is tried again later.
        let stepped = at_work.run(&partition, Work::Compact, || partition.compactor().step());
        if matches!(stepped, Ok(true)) {
            self.queue.push_front(partition);
        } else {
            partition.requests().begin(Work::Compact);
            partition.compactor().request(Occasion::Ended);
        }
        let now = clock.monotonic();
        let appended = engine.appended();
        let was_busy = std::mem::replace(&mut self.appended, appended) != appended;
        self.at = now.saturating_add(pause_after(now.saturating_sub(begun), was_busy));
    }

    #[cfg(test)]
    pub(super) fn queue(&self) -> &VecDeque<Arc<PartitionCore>> {
        &self.queue
    }
}

//! The rounds of a worker: how it waits, and what happens after a panic.
//!
//! Must not know: the work of a round.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use super::queues::Shared;
use crate::foreign;
use crate::partition::{PartitionCore, Work};
use crate::trace::Outbox;

/// LIMIT: how long a worker waits after a panic: if every round panics, this costs 100 rounds a
/// second, and other work is not delayed noticeably.
const AFTER_PANIC: Duration = Duration::from_millis(10);

/// LIMIT: how long a worker waits at least while the clock stands still, as a manual clock does: a
/// deadline that seems due at once would otherwise make it spin. A move of the clock wakes it.
pub(super) const STANDS_STILL: Duration = Duration::from_millis(50);

/// LIMIT: when work that panicked is tried again, unless it is requested before: soon enough for
/// the callers that wait for it, and no burden to the others if it panics each time.
pub(super) const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Runs the rounds of a worker until it is stopped. A round calls foreign code, such as the clock.
/// A panic there ends the round and not the worker, on which all partitions depend. A partition in
/// which the panic left something half done is poisoned by its own guards.
pub(super) fn run_rounds(
    shared: &Shared,
    thread: &'static str,
    trace: &Outbox,
    mut round: impl FnMut() -> ControlFlow<()>,
) {
    while shared.is_running() {
        match foreign::call(&mut round) {
            Some(ControlFlow::Continue(())) => {}
            Some(ControlFlow::Break(())) => return,
            None => {
                shared.note_panic(thread, trace);
                // A clock that always panics must not keep a processor busy.
                std::thread::park_timeout(AFTER_PANIC);
            }
        }
    }
}

/// How a worker waits in real time for a moment of the clock.
#[derive(Default)]
pub(super) struct Pace {
    last: Option<Duration>,
}

impl Pace {
    /// How long to wait at `now` where something is due after `wait`. A clock that stands still
    /// shortly before that moment must not keep a processor busy; it reports when it is moved.
    pub(super) fn wait(&mut self, wait: Duration, now: Duration) -> Duration {
        let stands_still = self.last.replace(now) == Some(now);
        if stands_still && !wait.is_zero() { wait.max(STANDS_STILL) } else { wait }
    }
}

/// What a worker is at, so that it is asked for again after a panic: a caller that waits for it has
/// asked once and does not ask again.
#[derive(Default)]
pub(super) struct AtWork {
    job: Option<(Arc<PartitionCore>, Work)>,
    /// Jobs that panicked, and when all of them are asked for again.
    panicked: Vec<(Arc<PartitionCore>, Work)>,
    due: Option<Duration>,
}

impl AtWork {
    pub(super) fn run<R>(
        &mut self,
        partition: &Arc<PartitionCore>,
        work: Work,
        job: impl FnOnce() -> R,
    ) -> R {
        self.job = Some((Arc::clone(partition), work));
        let done = job();
        self.job = None;
        done
    }

    /// Requests work that panicked again, when it is due. Returns how long until then.
    pub(super) fn ask_again(&mut self, now: Duration) -> Option<Duration> {
        if let Some(job) = self.job.take() {
            self.panicked.push(job);
            self.due.get_or_insert(now.saturating_add(TRY_AGAIN));
        }
        if self.due.is_some_and(|due| now >= due) {
            self.due = None;
            for (partition, work) in std::mem::take(&mut self.panicked) {
                partition.requests().begin(work);
                partition.requests().request(work);
            }
        }
        self.due.map(|due| due.saturating_sub(now))
    }
}

//! Runs many jobs on all processors.

use std::thread;

use crate::error::Result;
use crate::sync::{AtomicUsize, Ordering};

/// Runs `work` over `jobs` on as many threads as the machine has, in the order of the jobs.
pub(super) fn in_parallel<J: Copy + Sync, R: Send>(
    jobs: &[J],
    work: impl Fn(J) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    // LIMIT: below this many partitions a thread costs more than it saves.
    const JOBS_PER_THREAD: usize = 4;
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.min(jobs.len() / JOBS_PER_THREAD);
    if threads < 2 {
        return jobs.iter().map(|job| work(*job)).collect();
    }
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        while let Some((index, job)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            jobs.get(index).map(|job| (index, *job))
        } {
            done.push((index, work(job)));
        }
        done
    };
    let mut results: Vec<(usize, Result<R>)> = thread::scope(|scope| {
        // One is this thread itself, which does all of it where no other can be had.
        let spawn = |_| thread::Builder::new().spawn_scoped(scope, worker).ok();
        let workers: Vec<_> = (1..threads).map_while(spawn).collect();
        let own = worker();
        let join = |worker: thread::ScopedJoinHandle<'_, _>| match worker.join() {
            Ok(results) => results,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        workers.into_iter().flat_map(join).chain(own).collect()
    });
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

//! Makes several partitions durable in one call, in parallel: a disk does many syncs in about the
//! time of one.

use std::sync::OnceLock;
use std::thread;

use super::PartitionCore;
use crate::error::{Error, Result};
use crate::foreign;
use crate::sync::{AtomicUsize, LockLevel, Mutex, Ordering};

/// LIMIT: as many syncs of one call at a time. Each takes a thread for as long as it lasts, and
/// what a disk does at once is not much more.
const SIDE_BY_SIDE: usize = 8;

/// For each partition, waits until everything below its target is durable. All are tried, and
/// answered in the order of the input. Without background threads one after the other: a
/// broker without threads gets none here.
pub(crate) fn wait_durable(waits: &[(&PartitionCore, u64)]) -> Vec<Result<()>> {
    let has_threads = waits.first().is_some_and(|(core, _)| core.requests().are_served());
    wait_durable_with(waits, has_threads)
}

/// The same, where the caller knows whether there may be threads.
pub(crate) fn wait_durable_with(
    waits: &[(&PartitionCore, u64)],
    has_threads: bool,
) -> Vec<Result<()>> {
    let is_pending = |(core, target): &&(&PartitionCore, u64)| core.durable_end() < *target;
    let pending = waits.iter().filter(is_pending).count();
    let helpers = if has_threads { pending.min(SIDE_BY_SIDE).saturating_sub(1) } else { 0 };
    let next = AtomicUsize::new(0);
    let answers: Vec<OnceLock<Result<()>>> = waits.iter().map(|_| OnceLock::new()).collect();
    let work = || {
        // ORDERING: Relaxed: each number is given out once, and what is done with it is read after
        // the threads have ended.
        let mine = || next.fetch_add(1, Ordering::Relaxed);
        while let Some(((core, target), answer)) = at(waits, &answers, mine()) {
            let _ = answer.set(core.wait_durable(*target));
        }
    };
    // If the caller defers wakers, so do the helpers: what the caller holds, it holds until they
    // have ended.
    let holds_back = foreign::holds_back();
    let left = Mutex::at_level(LockLevel::Together, Vec::new());
    let help = || {
        let mine = holds_back.then(foreign::hold_back);
        work();
        left.lock().extend(mine.map(foreign::HoldBack::take).unwrap_or_default());
    };
    thread::scope(|scope| {
        for _ in 0..helpers {
            let helper = thread::Builder::new().name("logpond-sync".to_owned());
            if helper.spawn_scoped(scope, help).is_err() {
                // This thread does the work of the missing helper.
                break;
            }
        }
        work();
    });
    let left = std::mem::take(&mut *left.lock());
    left.into_iter().for_each(foreign::wake);
    answers.into_iter().map(|answer| answer.into_inner().unwrap_or(Err(Error::Closed))).collect()
}

fn at<'a, A, B>(left: &'a [A], right: &'a [B], index: usize) -> Option<(&'a A, &'a B)> {
    Some((left.get(index)?, right.get(index)?))
}

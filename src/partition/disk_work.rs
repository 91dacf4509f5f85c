//! Counts the work on a partition's files that no lock covers, so that its end can be awaited.
//!
//! After a broker was closed, another one may open its directory at once. After a topic was
//! deleted, the next topic of that name has files of the same names. So work that writes to files,
//! or uses paths, without holding the partition's lock is counted. The close and the deletion wait
//! for it, and none begins afterwards. (Compactions are waited for by their claim.)

use crate::sync::{Condvar, LockLevel, Mutex};

#[derive(Debug, Default)]
struct Count {
    running: u32,
    has_ended: bool,
}

#[derive(Debug)]
pub(super) struct DiskWork {
    count: Mutex<Count>,
    idle: Condvar,
}

/// One piece of work; it is over when this is dropped.
#[derive(Debug)]
pub(super) struct Running<'a>(&'a DiskWork);

impl DiskWork {
    pub(super) fn new() -> Self {
        Self { count: Mutex::at_level(LockLevel::DiskWork, Count::default()), idle: Condvar::new() }
    }

    /// `None` when the partition has given its files up.
    pub(super) fn begin(&self) -> Option<Running<'_>> {
        let mut count = self.count.lock();
        if count.has_ended {
            return None;
        }
        count.running += 1;
        Some(Running(self))
    }

    /// Whether the end would wait.
    #[cfg(test)]
    pub(super) fn is_running(&self) -> bool {
        self.count.lock().running > 0
    }

    /// Whether the end waits.
    #[cfg(test)]
    pub(super) fn is_awaited(&self) -> bool {
        let count = self.count.lock();
        count.has_ended && count.running > 0
    }

    /// Lets nothing begin any more, and waits for what runs.
    pub(super) fn end(&self) {
        let mut count = self.count.lock();
        count.has_ended = true;
        while count.running > 0 {
            count = self.idle.wait(count);
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut count = self.0.count.lock();
        count.running -= 1;
        if count.running == 0 {
            self.0.idle.notify_all();
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn the_end_waits_for_what_runs_and_nothing_begins_after_it() {
        let work = DiskWork::new();
        let running = work.begin().unwrap();
        let (ended, end) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                work.end();
                ended.send(()).unwrap();
            });
            while work.begin().is_some() {
                thread::yield_now();
            }
            assert!(end.try_recv().is_err(), "ended over work that runs");
            drop(running);
            end.recv().unwrap();
        });
        assert!(work.begin().is_none());
    }
}

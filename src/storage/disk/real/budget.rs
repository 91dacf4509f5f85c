//! The budget of descriptors: which files keep theirs, by the second-chance algorithm.
//!
//! Owns the queue of files with an open descriptor. Must not know the use of a descriptor. Its lock
//! is taken when a descriptor is opened or closed, never by a use of an open one, and no other lock
//! is taken under it.
//!
//! 1. Every file with a descriptor is in the queue once, or in the hands of one `make_room`.
//! 2. `open` counts the descriptors of all files that are alive.

use std::collections::VecDeque;
use std::sync::Weak;

use super::RealFile;
use crate::sync::{LockLevel, Mutex};

/// LIMIT: how many files are looked at to find a clean one. With thousands of dirty ones a longer
/// search costs more than it saves: the sync of one of them writes what had to be written anyway.
const LOOKED_AT: usize = 256;

#[derive(Debug)]
pub(super) struct Budget {
    limit: usize,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    files: VecDeque<Weak<RealFile>>,
    open: usize,
}

/// What became of a descriptor that was to be given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GivenUp {
    Closed,
    /// In use by another thread.
    Busy,
    /// It has to be synced first.
    Dirty,
}

impl Budget {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            queue: Mutex::at_level(LockLevel::Descriptors, Queue::default()),
        }
    }

    /// Closes descriptors until one more fits. If all are in use the budget is exceeded: half of
    /// the process's descriptors are left for such moments, and an append is not.
    pub(super) fn make_room(&self) {
        let mut dirty = None;
        let looks = {
            let queue = self.queue.lock();
            queue.files.len().saturating_mul(2).min(LOOKED_AT)
        };
        for _ in 0..looks {
            // The files are upgraded and dropped without the queue's lock: the last drop of a
            // file takes it.
            let Some(next) = self.next() else { break };
            let Some(file) = next.upgrade() else { continue };
            if file.take_used() {
                self.queue.lock().files.push_back(next);
                continue;
            }
            match file.give_up() {
                GivenUp::Closed => self.closed(),
                GivenUp::Dirty if dirty.is_none() => dirty = Some((file, next)),
                GivenUp::Dirty | GivenUp::Busy => self.queue.lock().files.push_back(next),
            }
        }
        let Some((file, entry)) = dirty else { return };
        if self.is_short() {
            file.sync_before_giving_up();
            if file.give_up() == GivenUp::Closed {
                self.closed();
                return;
            }
        }
        self.queue.lock().files.push_back(entry);
    }

    /// The next candidate, if one more descriptor would be too many.
    fn next(&self) -> Option<Weak<RealFile>> {
        let mut queue = self.queue.lock();
        if queue.open < self.limit { None } else { queue.files.pop_front() }
    }

    fn is_short(&self) -> bool {
        self.queue.lock().open >= self.limit
    }

    pub(super) fn opened(&self, file: Weak<RealFile>) {
        let mut queue = self.queue.lock();
        queue.open = queue.open.saturating_add(1);
        queue.files.push_back(file);
        // Files that were dropped leave their entries in the queue; sweeping at twice the size costs a
        // constant per opening.
        if queue.files.len() > queue.open.saturating_mul(2).saturating_add(64) {
            queue.files.retain(|file| file.strong_count() > 0);
        }
    }

    pub(super) fn closed(&self) {
        let mut queue = self.queue.lock();
        queue.open = queue.open.saturating_sub(1);
    }

    #[cfg(test)]
    pub(super) fn open(&self) -> usize {
        self.queue.lock().open
    }
}

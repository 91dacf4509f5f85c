//! Runs syncs of many partitions at the same time.
//!
//! The space worker decides which partition is synced and when, and each sync takes as long as the
//! disk takes. One after the other, those of 200 partitions on a disk of 5 ms took a second, and
//! one that hung delayed all others. So the worker gives each to a helper: a thread that is started
//! if no other is idle, and that ends when it has had nothing to do for a while.
//!
//! A partition has one helper at a time, which syncs once more if that was requested meanwhile: the
//! sync in flight may have begun before the record was published.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::real_now;
use crate::foreign;
use crate::partition::{PartitionCore, Work};
use crate::sync::{Condvar, LockLevel, Mutex};

/// LIMIT: how many syncs of the background are in flight: enough that a disk, and the journal of
/// its file system, can do many of them together; more would wait for each other there.
const HELPERS: usize = 16;

/// LIMIT: how many of these are for footers at most: no caller waits for them, and each may write
/// much, which delays the syncs that callers wait for.
const FOR_FOOTERS: usize = 4;

/// LIMIT: how long a helper thread waits for another sync before it ends: longer than the pauses of
/// a steady load, so that threads are not started for each sync, and short enough to free the
/// threads of a burst.
const IDLE: Duration = Duration::from_secs(1);

/// What a partition is to be synced for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum For {
    /// Callers that wait, or an interval that has ended: all that is published.
    Waiters,
    /// The footers of its sealed segments, which are asked for again then.
    Footers,
    Both,
}

impl For {
    pub(super) fn and(self, other: Self) -> Self {
        if self == other { self } else { Self::Both }
    }
}

/// A partition that is to be synced.
pub(crate) type Ask = (Arc<PartitionCore>, For);

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Arc<PartitionCore>>,
    /// As `waiting`, but only for footers. A partition in both is taken once.
    later: VecDeque<Arc<PartitionCore>>,
    /// What those wait for, by their addresses.
    waits: HashMap<usize, For>,
    /// How many syncs are in flight for footers alone.
    for_footers: usize,
    /// Partitions that a helper syncs now, each with the reason to sync it once more.
    at_work: HashMap<usize, Option<For>>,
    helpers: usize,
    idle: usize,
    threads: Vec<JoinHandle<()>>,
    is_stopped: bool,
}

/// The syncs that were asked for, and the helpers that are at it.
#[derive(Debug)]
pub(crate) struct Syncs {
    queue: Mutex<Queue>,
    asked: Condvar,
}

fn address_of(partition: &Arc<PartitionCore>) -> usize {
    Arc::as_ptr(partition).addr()
}

impl Syncs {
    pub(super) fn new() -> Self {
        Self {
            queue: Mutex::at_level(LockLevel::SyncQueue, Queue::default()),
            asked: Condvar::new(),
        }
    }

    /// Has a partition synced. `start` starts a thread that calls [`help`](Self::help); where none
    /// can be had, this thread does it.
    pub(super) fn ask(
        &self,
        (partition, reason): Ask,
        start: &dyn Fn() -> io::Result<JoinHandle<()>>,
    ) {
        let address = address_of(&partition);
        let mut queue = self.queue.lock();
        if queue.is_stopped {
            return;
        }
        if let Some(again) = queue.at_work.get_mut(&address) {
            *again = Some(again.map_or(reason, |known| known.and(reason)));
            return;
        }
        if !queue.add(partition, reason) {
            return;
        }
        if queue.idle >= queue.ready() {
            self.asked.notify_all();
            return;
        }
        if queue.helpers >= HELPERS {
            return;
        }
        queue.threads.retain(|thread| !thread.is_finished());
        queue.helpers += 1;
        drop(queue);
        if let Ok(thread) = start() {
            self.queue.lock().threads.push(thread);
            return;
        }
        let mut queue = self.queue.lock();
        queue.helpers -= 1;
        if queue.helpers > 0 {
            return;
        }
        drop(queue);
        while let Some(ask) = self.take_now() {
            self.sync(ask);
        }
    }

    /// Begins a requested sync of a partition, by a helper that is idle or at work on it. False, and
    /// nothing is done, if there is none. Waits for nothing.
    pub(super) fn ask_helper(&self, partition: &Arc<PartitionCore>) -> bool {
        let mut queue = self.queue.lock();
        if let Some(again) = queue.at_work.get_mut(&address_of(partition)) {
            // Under the lock, so before the helper: what is published later is requested again.
            partition.requests().begin(Work::Sync);
            *again = Some(again.map_or(For::Waiters, |known| known.and(For::Waiters)));
            return true;
        }
        if queue.is_stopped || queue.idle <= queue.ready() {
            return false;
        }
        partition.requests().begin(Work::Sync);
        queue.add(Arc::clone(partition), For::Waiters);
        drop(queue);
        self.asked.notify_all();
        true
    }

    /// What a helper does, until there is nothing to do or the workers are stopped.
    pub(crate) fn help(&self, on_panic: &dyn Fn()) {
        while let Some(ask) = self.next() {
            if self.sync(ask).is_none() {
                on_panic();
            }
        }
    }

    /// Waits for a partition to be synced.
    pub(super) fn next(&self) -> Option<Ask> {
        let give_up = real_now() + IDLE;
        let mut queue = self.queue.lock();
        loop {
            // None is left once the workers are stopped.
            if let Some(next) = queue.take_next() {
                return Some(next);
            }
            if queue.is_stopped || real_now() >= give_up {
                queue.helpers -= 1;
                return None;
            }
            queue.idle += 1;
            queue = self.asked.wait_until(queue, give_up).0;
            queue.idle -= 1;
        }
    }

    /// The next partition to be synced, if there is one. Does not wait.
    pub(super) fn take_now(&self) -> Option<Ask> {
        self.queue.lock().take_next()
    }

    /// Runs one sync. `None` if it panicked: its guards have poisoned the partition, and the
    /// waiters have their error.
    pub(super) fn sync(&self, (partition, reason): Ask) -> Option<()> {
        let done = foreign::call(|| {
            // A caller that needs the result finds the failure in the gate and in the next append.
            if reason != For::Footers {
                let _ = partition.flusher().flush_for_announcement();
            }
            if reason != For::Waiters && matches!(partition.footers().sync_sealed(), Ok(true)) {
                partition.requests().request(Work::Finish);
            }
            partition.log().trace().deliver();
        });
        let mut queue = self.queue.lock();
        queue.for_footers -= usize::from(reason == For::Footers);
        let again = queue.at_work.remove(&address_of(&partition)).flatten();
        if let Some(reason) = again.filter(|_| !queue.is_stopped) {
            queue.add(Arc::clone(&partition), reason);
            if partition.flusher().may_announce() {
                self.asked.notify_all();
            }
        }
        drop(queue);
        // Last, because it takes as long as the application's transport: others sync the partition meanwhile.
        done.and_then(|()| foreign::call(|| partition.flusher().announce()))
    }

    /// Ends the helpers after their current sync. Does not wait.
    pub(super) fn stop(&self) {
        let mut queue = self.queue.lock();
        queue.is_stopped = true;
        let waiting = (std::mem::take(&mut queue.waiting), std::mem::take(&mut queue.later));
        queue.waits.clear();
        drop(queue);
        drop(waiting);
        self.asked.notify_all();
    }

    /// The threads of helpers that may still run.
    pub(crate) fn take_threads(&self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut self.queue.lock().threads)
    }
}

impl Queue {
    /// Whether a helper is to be found for it.
    fn add(&mut self, partition: Arc<PartitionCore>, reason: For) -> bool {
        let address = address_of(&partition);
        let known = self.waits.get(&address).copied();
        let all = known.map_or(reason, |known| known.and(reason));
        self.waits.insert(address, all);
        match known {
            Some(known) if known != For::Footers || all == For::Footers => return false,
            _ if all == For::Footers => self.later.push_back(partition),
            _ => self.waiting.push_back(partition),
        }
        debug_assert_eq!(self.check(), Ok(()));
        true
    }

    /// The invariants:
    /// 1. Idle helpers are helpers, of which there are at most [`HELPERS`].
    /// 2. At most [`FOR_FOOTERS`] of the syncs in flight are for footers alone.
    /// 3. Each partition with a reason to wait is in a queue.
    fn check(&self) -> Result<(), &'static str> {
        if self.idle > self.helpers || self.helpers > HELPERS {
            return Err("more idle helpers than helpers, or too many");
        }
        if self.for_footers > FOR_FOOTERS.min(self.at_work.len()) {
            return Err("more syncs for footers than are allowed or in flight");
        }
        if self.waits.len() > self.waiting.len().saturating_add(self.later.len()) {
            return Err("a partition that waits is in no queue");
        }
        Ok(())
    }

    /// How many can be taken now.
    fn ready(&self) -> usize {
        let later = self.later.len().min(FOR_FOOTERS.saturating_sub(self.for_footers));
        self.waiting.len().saturating_add(later)
    }

    fn take_next(&mut self) -> Option<Ask> {
        loop {
            let next = match self.waiting.pop_front() {
                None if self.for_footers < FOR_FOOTERS => self.later.pop_front()?,
                next => next?,
            };
            let address = address_of(&next);
            // Taken already where a caller came to wait for it.
            let Some(reason) = self.waits.remove(&address) else { continue };
            self.for_footers += usize::from(reason == For::Footers);
            self.at_work.insert(address, None);
            debug_assert_eq!(self.check(), Ok(()));
            return Some((next, reason));
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    /// Each invariant, and a value that breaks it.
    #[test]
    fn a_queue_that_is_not_sound_is_found() {
        let whole = || Queue { helpers: 2, idle: 1, ..Queue::default() };
        assert_eq!(whole().check(), Ok(()));
        let broken = [
            Queue { idle: 3, ..whole() },
            Queue { helpers: HELPERS + 1, ..whole() },
            Queue { for_footers: 1, ..whole() },
            Queue { waits: HashMap::from([(1, For::Both)]), ..whole() },
        ];
        for queue in broken {
            assert!(queue.check().is_err(), "{queue:?}");
        }
    }
}

//! Syncs of many partitions in flight at once.
//!
//! The space-and-sync lane decides what is synced and when, and a sync takes as long as the disk
//! takes. One after the other, those of 200 partitions on a disk of 5 ms took a second, and one that
//! hung kept all others waiting. So the lane hands each to a helper: a thread that is started when
//! no other is idle, and that ends when it has had nothing to do for a while.
//!
//! A partition has one helper at a time, which syncs once more if that was asked for meanwhile: the
//! sync that runs may have begun before what is to be synced was published.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::real_now;
use crate::foreign;
use crate::partition::PartitionCore;
use crate::sync::{Condvar, Mutex};

/// LIMIT: how many syncs of the background are in flight: enough that a disk, and the journal of
/// its file system, can do many of them together; more would wait for each other there.
const HELPERS: usize = 16;

/// How long a helper waits for another sync before it ends.
const IDLE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Arc<PartitionCore>>,
    /// Those that wait, by their addresses.
    waits: HashSet<usize>,
    /// Those that a helper is at, and whether they are to be synced once more.
    at_work: HashMap<usize, bool>,
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
        Self { queue: Mutex::new(Queue::default()), asked: Condvar::new() }
    }

    /// Has all that is published in the partition made durable. `start` starts a thread that calls
    /// [`help`](Self::help); where none can be had, this thread does it.
    pub(super) fn ask(
        &self,
        partition: Arc<PartitionCore>,
        start: &dyn Fn() -> io::Result<JoinHandle<()>>,
    ) {
        let address = address_of(&partition);
        let mut queue = self.queue.lock();
        if queue.is_stopped {
            return;
        }
        if let Some(again) = queue.at_work.get_mut(&address) {
            *again = true;
            return;
        }
        if !queue.waits.insert(address) {
            return;
        }
        queue.waiting.push_back(partition);
        if queue.idle >= queue.waiting.len() {
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
        let left = std::iter::from_fn(|| queue.take_next()).collect::<Vec<_>>();
        drop(queue);
        for partition in left {
            self.sync(partition);
        }
    }

    /// What a helper does, until there is nothing to do or the lanes are stopped.
    pub(crate) fn help(&self, on_panic: &dyn Fn()) {
        while let Some(partition) = self.next() {
            if self.sync(partition).is_none() {
                on_panic();
            }
        }
    }

    /// Waits for a partition to be synced.
    pub(super) fn next(&self) -> Option<Arc<PartitionCore>> {
        let give_up = real_now() + IDLE;
        let mut queue = self.queue.lock();
        loop {
            // None is left once the lanes are stopped.
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

    /// One sync. `None` when it panicked: that has poisoned the partition by its own guards, and
    /// those who wait have their answer.
    pub(super) fn sync(&self, partition: Arc<PartitionCore>) -> Option<()> {
        let done = foreign::call(|| {
            // Whoever needs the result finds the failure in the gate and in the next append.
            let _ = partition.flush();
            partition.deliver_events();
        });
        let address = address_of(&partition);
        let mut queue = self.queue.lock();
        let again = queue.at_work.remove(&address).unwrap_or(false);
        if again && !queue.is_stopped && queue.waits.insert(address) {
            queue.waiting.push_back(partition);
        }
        done
    }

    /// Ends the helpers after their current sync. Does not wait.
    pub(super) fn stop(&self) {
        let mut queue = self.queue.lock();
        queue.is_stopped = true;
        let waiting = std::mem::take(&mut queue.waiting);
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
    fn take_next(&mut self) -> Option<Arc<PartitionCore>> {
        let next = self.waiting.pop_front()?;
        let address = address_of(&next);
        self.waits.remove(&address);
        self.at_work.insert(address, false);
        Some(next)
    }
}

//! Reads from the disk what readers need soon, so that they do not wait for it.
//!
//! Owns: the queue of ranges, and the thread that reads them in order. The thread is started when a
//! reader first needs something that is not in memory, and ends when it has had nothing to do for a
//! while. Must not know: who reads, and what is in the files.
//!
//! All of it may be left out at any time: a reader then waits for the disk itself.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Spawn;
use crate::clock::real_now;
use crate::log::read_ahead::Ahead;
use crate::sync::{Condvar, LockLevel, Mutex};

/// LIMIT: how many ranges wait: two are about what one reader needs at a time. With more readers than
/// the disk can serve, each of them waits for it anyway.
const WAITING_MOST: usize = 16;

/// LIMIT: how long the thread waits for another range before it ends: longer than a steady reader of
/// a slow disk needs for a step.
const IDLE: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Ahead>,
    /// Whether a thread takes what waits.
    is_served: bool,
    threads: Vec<JoinHandle<()>>,
    is_stopped: bool,
}

pub(super) struct Reads {
    queue: Mutex<Queue>,
    asked: Condvar,
    /// Starts the thread. Set once, where there are background threads.
    spawn: OnceLock<Arc<Spawn>>,
}

impl Reads {
    pub(super) fn new() -> Arc<Self> {
        let queue = Mutex::at_level(LockLevel::ReadQueue, Queue::default());
        Arc::new(Self { queue, asked: Condvar::new(), spawn: OnceLock::new() })
    }

    /// Sets how the thread is started. Called once.
    pub(super) fn begin(&self, spawn: &Arc<Spawn>) {
        let _ = self.spawn.set(Arc::clone(spawn));
    }

    /// Has a range read. Does not wait.
    pub(super) fn ask(self: &Arc<Self>, ahead: Ahead) {
        let mut queue = self.queue.lock();
        if queue.is_stopped || queue.waiting.len() >= WAITING_MOST {
            return;
        }
        queue.waiting.push_back(ahead);
        if queue.is_served {
            self.asked.notify_all();
            return;
        }
        queue.threads.retain(|thread| !thread.is_finished());
        match self.start() {
            Ok(thread) => {
                queue.is_served = true;
                queue.threads.push(thread);
            }
            // Without a thread the readers wait for the disk themselves.
            Err(_) => queue.waiting.clear(),
        }
    }

    fn start(self: &Arc<Self>) -> io::Result<JoinHandle<()>> {
        let spawn = self.spawn.get().ok_or(io::ErrorKind::Unsupported)?;
        let reads = Arc::clone(self);
        spawn("logpond-read", Box::new(move || while reads.serve_one() {}))
    }

    /// Waits for a range and reads it. False where none came for a while, or none is to come.
    fn serve_one(&self) -> bool {
        let give_up = real_now() + IDLE;
        let mut queue = self.queue.lock();
        let ahead = loop {
            if let Some(ahead) = queue.waiting.pop_front() {
                break ahead;
            }
            if queue.is_stopped || real_now() >= give_up {
                queue.is_served = false;
                return false;
            }
            queue = self.asked.wait_until(queue, give_up).0;
        };
        drop(queue);
        ahead.run();
        true
    }

    /// Ends the thread after its current range. Does not wait.
    pub(super) fn stop(&self) {
        let mut queue = self.queue.lock();
        queue.is_stopped = true;
        let waiting = std::mem::take(&mut queue.waiting);
        drop(queue);
        // Maps are unmapped without the lock.
        drop(waiting);
        self.asked.notify_all();
    }

    /// The threads that may still run.
    pub(super) fn take_threads(&self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut self.queue.lock().threads)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::broker::workers::spawn_thread;
    use crate::storage::region::Region;
    use crate::sync::{AtomicUsize, Ordering};

    /// A range of a region that is given up when it was read.
    fn some() -> (std::sync::Weak<Region>, Ahead) {
        let region = Region::from_bytes(b"bytes").unwrap();
        (Arc::downgrade(&region), Ahead::of_any(&region, 0..5))
    }

    #[test]
    fn one_thread_reads_what_is_asked_for_and_ends_when_it_is_stopped() {
        let started = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&started);
        let spawn: Arc<Spawn> = Arc::new(move |name, run| {
            count.fetch_add(1, Ordering::Relaxed);
            spawn_thread(name, run)
        });
        let reads = Reads::new();
        reads.begin(&spawn);
        for _ in 0..50 {
            let (region, ahead) = some();
            reads.ask(ahead);
            while region.strong_count() > 0 {
                std::thread::yield_now();
            }
        }
        assert_eq!(started.load(Ordering::Relaxed), 1);
        reads.stop();
        for thread in reads.take_threads() {
            thread.join().unwrap();
        }
        let (region, ahead) = some();
        reads.ask(ahead);
        assert_eq!(region.strong_count(), 0, "after the end nothing is kept");
    }

    /// What nobody takes must not keep maps of files.
    #[test]
    fn without_a_thread_nothing_is_kept() {
        let reads = Reads::new();
        let (region, ahead) = some();
        reads.ask(ahead);
        assert_eq!(region.strong_count(), 0);
    }
}

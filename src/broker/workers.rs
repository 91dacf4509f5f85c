//! Background work: two threads, the workers, that never wait for each other.
//!
//! [`space`] does what appenders and waiters need soon, [`bulk`] what takes long. [`syncs`] and
//! [`reads`] have more threads while there is work for them. Without background threads, requests stay noted in their partitions until `tick` serves them.
//!
//! Owns: the queues, the threads and their shutdown. Must not know: the engine, except for the
//! calls that it is given. A thread that uses the engine keeps it, and with it the lock of the
//! directory, until its current step has ended.

use std::io;
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

use crossbeam::channel::{Sender, unbounded};

pub(crate) use self::bulk::{CHECKPOINT_EVERY, Housekeeping, run_bulk_worker};
pub(crate) use self::queues::WorkerQueues;
use self::queues::{Job, Shared};
use self::reads::Reads;
pub(crate) use self::space::run_space_worker;
use crate::clock::Clock;
use crate::error::Result;
use crate::log::read_ahead::Ahead;
use crate::partition::background::Want;
use crate::partition::{Background, PartitionCore, Work};
use crate::sync::{AtomicBool, LockLevel, Mutex, Ordering};
use crate::trace::Outbox;

mod bulk;
mod queues;
mod reads;
mod rounds;
mod space;
mod syncs;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;

/// How a named thread of the broker is started.
pub(crate) type Spawn =
    dyn Fn(&'static str, Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> + Send + Sync;

/// A thread of the operating system.
pub(crate) fn spawn_thread(
    name: &'static str,
    run: Box<dyn FnOnce() + Send>,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.into()).spawn(run)
}

/// The sending side, shared by all partitions.
pub(crate) struct Workers {
    space: Sender<Job>,
    bulk: Sender<Job>,
    shared: Arc<Shared>,
    /// Whether the run is over, also without background threads.
    ///
    /// ORDERING: set once with Release by [`stop`](Self::stop); read with Acquire by partitions.
    has_ended: AtomicBool,
    /// Whether an append was refused since [`take_refusal`](Self::take_refusal).
    ///
    /// ORDERING: set and taken with `AcqRel`: the thread that takes it sees why the append was
    /// refused.
    is_full: AtomicBool,
    /// Makes space for an append that found none. Set once, after the engine is composed.
    room: OnceLock<MakeRoom>,
    /// Reads the files of a partition again, in a read-only broker.
    read_again: OnceLock<ReadAgain>,
    /// Called by the clock after a move. It has only a weak handle of this.
    on_move: OnceLock<Arc<dyn Fn() + Send + Sync>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    reads: Arc<Reads>,
}

/// Makes room for a partition: see [`Background::make_room`].
type MakeRoom = Box<dyn Fn(&Arc<PartitionCore>, &mut Want) -> Result<bool> + Send + Sync>;

/// Looks at a partition's files anew: see [`Background::read_again`].
type ReadAgain = Box<dyn Fn(&PartitionCore) -> bool + Send + Sync>;

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workers")
            .field("is_running", &self.shared.is_running())
            .finish_non_exhaustive()
    }
}

impl Workers {
    pub(crate) fn new(is_running: bool) -> (Arc<Self>, WorkerQueues) {
        let (space, space_queue) = unbounded();
        let (bulk, bulk_queue) = unbounded();
        let shared = Arc::new(Shared::new(is_running));
        let queues =
            WorkerQueues { space: space_queue, bulk: bulk_queue, shared: Arc::clone(&shared) };
        let workers = Self {
            space,
            bulk,
            shared,
            has_ended: AtomicBool::new(false),
            is_full: AtomicBool::new(false),
            room: OnceLock::new(),
            read_again: OnceLock::new(),
            on_move: OnceLock::new(),
            threads: Mutex::at_level(LockLevel::Threads, Vec::new()),
            reads: Reads::new(),
        };
        (Arc::new(workers), queues)
    }

    /// Keeps a thread that runs one of the workers, to be joined at shutdown.
    pub(crate) fn keep_thread(&self, thread: JoinHandle<()>) {
        self.threads.lock().push(thread);
    }

    /// Serves readers of what is not in memory, by a thread that is started when it is needed.
    /// Called once.
    pub(crate) fn serve_readers(&self, spawn: &Arc<Spawn>) {
        self.reads.begin(spawn);
    }

    /// Wakes the workers whenever the clock is moved. Called once.
    pub(crate) fn follow(self: &Arc<Self>, clock: &dyn Clock) {
        let workers = Arc::downgrade(self);
        let on_move: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
            if let Some(workers) = workers.upgrade() {
                workers.clock_moved();
            }
        });
        clock.on_move(Arc::downgrade(&on_move));
        let _ = self.on_move.set(on_move);
    }

    /// Called by the thread that moves the clock, which may be a worker: takes no lock, and a queue
    /// without a limit never blocks.
    fn clock_moved(&self) {
        if self.is_running() {
            let workers =
                [(&self.shared.moves.space, &self.space), (&self.shared.moves.bulk, &self.bulk)];
            for (noted, worker) in workers {
                if !noted.swap(true, Ordering::AcqRel) {
                    let _ = worker.send(Job::Watch);
                }
            }
        }
    }

    /// Sets who makes space when the byte budget is used up. Called once.
    pub(crate) fn set_room(
        &self,
        room: impl Fn(&Arc<PartitionCore>, &mut Want) -> Result<bool> + Send + Sync + 'static,
    ) {
        let _ = self.room.set(Box::new(room));
    }

    /// Sets who reads the files again. Called once.
    pub(crate) fn set_read_again(
        &self,
        read: impl Fn(&PartitionCore) -> bool + Send + Sync + 'static,
    ) {
        let _ = self.read_again.set(Box::new(read));
    }

    /// Makes the worker compute again when the next member of a group may be overdue.
    pub(crate) fn watch_members(&self) {
        if self.is_running() {
            let _ = self.space.send(Job::Watch);
        }
    }

    /// Runs a helper, which is started for syncs: see [`syncs`].
    pub(crate) fn help(&self, trace: &Outbox) {
        self.shared.syncs.help(&|| self.shared.note_panic("sync", trace));
    }

    /// How many rounds of a worker have ended in a panic.
    pub(crate) fn panics(&self) -> u64 {
        self.shared.panics()
    }

    /// Whether an append was refused since the last call.
    pub(crate) fn take_refusal(&self) -> bool {
        self.is_full.swap(false, Ordering::AcqRel)
    }

    /// Ends both workers after their current step. Does not wait.
    pub(crate) fn stop(&self) {
        self.has_ended.store(true, Ordering::Release);
        self.shared.stop();
        self.reads.stop();
        let _ = self.space.send(Job::Stop);
        let _ = self.bulk.send(Job::Stop);
    }

    /// Stops the workers and waits for them and their helpers. A caller in one of these threads (a
    /// subscriber of events may be) does not wait for its own thread, which ends later.
    pub(crate) fn stop_and_join(&self) {
        self.stop();
        join_others(std::mem::take(&mut *self.threads.lock()));
        // The helpers are joined after the worker that starts them.
        join_others(self.shared.syncs.take_threads());
        join_others(self.reads.take_threads());
    }
}

fn join_others(threads: Vec<JoinHandle<()>>) {
    let own = thread::current().id();
    for thread in threads.into_iter().filter(|thread| thread.thread().id() != own) {
        // The rounds of a thread catch each panic but one: that a lock was taken out of order.
        if let Err(panic) = thread.join() {
            #[cfg(all(debug_assertions, not(loom)))]
            if crate::sync::is_out_of_order(&*panic) && !thread::panicking() {
                std::panic::resume_unwind(panic);
            }
            drop(panic);
        }
    }
}

impl Background for Workers {
    fn request(&self, partition: &Arc<PartitionCore>, work: Work) {
        use Work::{CleanUp, Compact, Finish, Next};
        if !self.is_running() {
            return;
        }
        // Past the worker: that may be busy with space, and callers wait for this.
        if work == Work::Sync && self.shared.syncs.ask_helper(partition) {
            return;
        }
        let is_bulk = matches!(work, Finish | Compact | CleanUp | Next);
        let worker = if is_bulk { &self.bulk } else { &self.space };
        let _ = worker.send(Job::Do(Arc::clone(partition), work));
    }

    fn is_running(&self) -> bool {
        self.shared.is_running()
    }

    fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }

    fn make_room(&self, partition: &Arc<PartitionCore>, want: &mut Want) -> Result<bool> {
        // Queued once, however many appends are refused; without threads `tick` finds the flag.
        if !self.is_full.swap(true, Ordering::AcqRel) && self.is_running() {
            let _ = self.bulk.send(Job::Relieve);
        }
        self.room.get().map_or(Ok(false), |room| room(partition, want))
    }

    fn read_ahead(&self, ahead: Ahead) {
        self.reads.ask(ahead);
    }

    fn read_again(&self, partition: &PartitionCore) -> bool {
        self.read_again.get().is_some_and(|read| read(partition))
    }
}

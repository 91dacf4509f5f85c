//! Background work: two threads that never wait for each other.
//!
//! *Space and sync* serves what appenders and waiters need soon: blocks ahead of the writer, the
//! next segment, syncs of intervals and of those who wait without blocking, which helpers do
//! ([`syncs`]), the eviction of group members that have stopped polling. *Bulk* does what takes long
//! and nobody waits for: footers of sealed segments, for whose syncs it asks the same helpers,
//! retention, recovery points, and compactions, in steps between which the others have their turn. Without background threads,
//! requests stay noted in their partitions until `tick` serves them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::io;
use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use self::syncs::{For, Syncs};
use crate::clock::Clock;
use crate::error::Result;
use crate::foreign;
use crate::partition::compaction::pause_after;
use crate::partition::room::Want;
use crate::partition::{Background, PartitionCore, Work};
use crate::sync::{AtomicBool, AtomicU64, Ordering};
use crate::trace::{Outbox, note};

/// How often recovery points are written for partitions that changed.
pub(crate) const CHECKPOINT_EVERY: Duration = Duration::from_secs(60);

/// How long a worker rests after a panic.
const AFTER_PANIC: Duration = Duration::from_millis(10);

/// How long a worker waits at least where the clock has not moved since its last round.
const STANDS_STILL: Duration = Duration::from_millis(50);

/// When work that panicked is tried again, if nobody asks for it before: soon enough for those who
/// wait for it, and no burden to the others if it panics each time.
const TRY_AGAIN: Duration = Duration::from_secs(1);

enum Job {
    Do(Arc<PartitionCore>, Work),
    /// There is a new deadline in a group, which may come before all others, or the clock was moved.
    Watch,
    /// An append was refused for want of space.
    Relieve,
    Stop,
}

/// The sending side, shared by all partitions.
pub(crate) struct Workers {
    space: Sender<Job>,
    bulk: Sender<Job>,
    is_running: Arc<AtomicBool>,
    /// Whether they were stopped, or would have been without background threads.
    has_ended: AtomicBool,
    panics: Arc<AtomicU64>,
    syncs: Arc<Syncs>,
    /// Whether an append was refused since somebody last looked after that.
    is_full: AtomicBool,
    /// Where the oldest records are to make room, or appends are to wait for it; the engine, once
    /// it is there.
    room: OnceLock<MakeRoom>,
    /// How a broker that only looks looks again.
    look: OnceLock<LookAgain>,
    /// Called by the clock after a move. It has only a weak handle of this.
    on_move: OnceLock<Arc<dyn Fn() + Send + Sync>>,
    moves: Arc<Moves>,
}

/// Whether a worker has yet to look at a clock that was moved. One note is enough for any number of
/// moves, which may come faster than a worker has rounds.
#[derive(Default)]
struct Moves {
    /// ORDERING: `AcqRel` at both ends: a worker that takes the note back sees the time of the move
    /// that left it, and a move that finds it there is seen by the worker that takes it.
    space: AtomicBool,
    bulk: AtomicBool,
}

/// Makes room for a partition: see [`Background::make_room`].
type MakeRoom = Box<dyn Fn(&Arc<PartitionCore>, &mut Want) -> Result<bool> + Send + Sync>;

/// Looks at a partition's files anew: see [`Background::look_again`].
type LookAgain = Box<dyn Fn(&PartitionCore) -> bool + Send + Sync>;

/// The receiving sides, for the threads.
pub(crate) struct WorkerQueues {
    space: Receiver<Job>,
    bulk: Receiver<Job>,
    is_running: Arc<AtomicBool>,
    panics: Arc<AtomicU64>,
    syncs: Arc<Syncs>,
    moves: Arc<Moves>,
}

impl WorkerQueues {
    /// What is queued when the workers are stopped is not begun any more.
    fn is_running(&self) -> bool {
        self.is_running.load(Ordering::Acquire)
    }
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Do(partition, work) => write!(f, "{work:?} for {}", partition.origin),
            Self::Watch => f.write_str("Watch"),
            Self::Relieve => f.write_str("Relieve"),
            Self::Stop => f.write_str("Stop"),
        }
    }
}

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workers").field("is_running", &self.is_running).finish_non_exhaustive()
    }
}

impl Workers {
    pub(crate) fn new(is_running: bool) -> (Arc<Self>, WorkerQueues) {
        let (space, space_queue) = unbounded();
        let (bulk, bulk_queue) = unbounded();
        let is_running = Arc::new(AtomicBool::new(is_running));
        let (moves, panics) = (Arc::new(Moves::default()), Arc::new(AtomicU64::new(0)));
        let syncs = Arc::new(Syncs::new());
        let queues = WorkerQueues {
            space: space_queue,
            bulk: bulk_queue,
            is_running: Arc::clone(&is_running),
            panics: Arc::clone(&panics),
            syncs: Arc::clone(&syncs),
            moves: Arc::clone(&moves),
        };
        let is_full = AtomicBool::new(false);
        let (room, look, on_move) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        let has_ended = AtomicBool::new(false);
        let workers = Self {
            space,
            bulk,
            is_running,
            has_ended,
            panics,
            syncs,
            is_full,
            room,
            look,
            on_move,
            moves,
        };
        (Arc::new(workers), queues)
    }

    /// Has the workers look again whenever the clock is moved. Once.
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

    /// Called by whoever moves the clock, perhaps from within a worker: takes no lock, and a queue
    /// without a limit never blocks.
    fn clock_moved(&self) {
        if self.is_running() {
            let workers = [(&self.moves.space, &self.space), (&self.moves.bulk, &self.bulk)];
            for (noted, worker) in workers {
                if !noted.swap(true, Ordering::AcqRel) {
                    let _ = worker.send(Job::Watch);
                }
            }
        }
    }

    /// Says who makes room when the byte budget is used up. Once.
    pub(crate) fn set_room(
        &self,
        room: impl Fn(&Arc<PartitionCore>, &mut Want) -> Result<bool> + Send + Sync + 'static,
    ) {
        let _ = self.room.set(Box::new(room));
    }

    /// Says who looks at the files again. Once.
    pub(crate) fn set_look(&self, look: impl Fn(&PartitionCore) -> bool + Send + Sync + 'static) {
        let _ = self.look.set(Box::new(look));
    }

    /// Makes the worker look again when the next member of a group may be overdue.
    pub(crate) fn watch_members(&self) {
        if self.is_running() {
            let _ = self.space.send(Job::Watch);
        }
    }

    /// What a helper of the space-and-sync worker does: see [`Syncs::help`].
    pub(crate) fn help(&self, trace: &Outbox) {
        self.syncs.help(&|| note_panic(&self.panics, "sync", trace));
    }

    /// The threads of helpers that may still run.
    pub(crate) fn take_helpers(&self) -> Vec<JoinHandle<()>> {
        self.syncs.take_threads()
    }

    /// How many rounds of a worker have ended in a panic.
    pub(crate) fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// Whether an append was refused since this was asked last.
    pub(crate) fn take_refusal(&self) -> bool {
        self.is_full.swap(false, Ordering::AcqRel)
    }

    /// Ends both workers after their current step. Does not wait.
    pub(crate) fn stop(&self) {
        self.has_ended.store(true, Ordering::Release);
        self.is_running.store(false, Ordering::Release);
        self.syncs.stop();
        let _ = self.space.send(Job::Stop);
        let _ = self.bulk.send(Job::Stop);
    }
}

impl Background for Workers {
    fn request(&self, partition: &Arc<PartitionCore>, work: Work) {
        if !self.is_running() {
            return;
        }
        let is_bulk = matches!(work, Work::Finish | Work::Compact | Work::CleanUp);
        let worker = if is_bulk { &self.bulk } else { &self.space };
        let _ = worker.send(Job::Do(Arc::clone(partition), work));
    }

    fn is_running(&self) -> bool {
        self.is_running.load(Ordering::Acquire)
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

    fn look_again(&self, partition: &PartitionCore) -> bool {
        self.look.get().is_some_and(|look| look(partition))
    }
}

/// The space-and-sync worker, until it is stopped. `evict_overdue` says how long nobody else can be;
/// `start_helper` starts a thread that calls [`Workers::help`].
pub(crate) fn run_space_worker(
    queues: &WorkerQueues,
    clock: &dyn Clock,
    trace: &Outbox,
    evict_overdue: impl Fn() -> Option<Duration>,
    start_helper: impl Fn() -> io::Result<JoinHandle<()>>,
) {
    let sync = |partition| queues.syncs.ask((partition, For::Waiters), &start_helper);
    let mut intervals = Intervals::default();
    let mut at_work = AtWork::default();
    // At once: static members of the last run are waited for from the opening on.
    let mut look_at = Some(Duration::ZERO);
    let mut pace = Pace::default();
    run_rounds(queues, "space", trace, || {
        let now = clock.monotonic();
        let again = at_work.ask_again(now);
        if look_at.is_some_and(|look_at| now >= look_at) {
            // Should looking panic, the next look is after a while.
            look_at = Some(now.saturating_add(TRY_AGAIN));
            look_at = evict_overdue().map(|wait| now.saturating_add(wait));
        }
        let due = intervals.sync_due(now, &sync);
        let next = [due, look_at.map(|it| it.saturating_sub(now)), again];
        let job = match next.into_iter().flatten().min() {
            Some(wait) => queues.space.recv_timeout(pace.wait(wait, now)),
            None => queues.space.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match job {
            Ok(Job::Do(partition, Work::SyncLater)) => {
                partition.take_up(Work::SyncLater);
                intervals.add(partition, clock.monotonic(), &sync);
            }
            Ok(Job::Do(partition, Work::Sync)) => {
                partition.take_up(Work::Sync);
                sync(partition);
            }
            Ok(Job::Do(partition, work)) => {
                at_work.run(&partition, work, || partition.do_work(work));
            }
            // The next round looks.
            Ok(Job::Watch) => {
                queues.moves.space.swap(false, Ordering::AcqRel);
                look_at = Some(Duration::ZERO);
            }
            Ok(Job::Relieve) | Err(RecvTimeoutError::Timeout) => {}
            Ok(Job::Stop) | Err(RecvTimeoutError::Disconnected) => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    });
}

/// Runs the rounds of a worker until it is stopped. A round calls foreign code (the clock, for one); a
/// panic there ends the round and not the worker, on which all partitions depend. What the panic left
/// half done in a partition has poisoned that one by its own guards.
fn run_rounds(
    queues: &WorkerQueues,
    thread: &'static str,
    trace: &Outbox,
    mut round: impl FnMut() -> ControlFlow<()>,
) {
    while queues.is_running() {
        match foreign::call(&mut round) {
            Some(ControlFlow::Continue(())) => {}
            Some(ControlFlow::Break(())) => return,
            None => {
                note_panic(&queues.panics, thread, trace);
                // A clock that always panics must not keep a processor busy.
                std::thread::park_timeout(AFTER_PANIC);
            }
        }
    }
}

fn note_panic(panics: &AtomicU64, thread: &'static str, trace: &Outbox) {
    panics.fetch_add(1, Ordering::Relaxed);
    note!(trace, Panicked { thread });
    trace.deliver();
}

/// How a worker waits in real time for a moment of the clock.
#[derive(Default)]
struct Pace {
    last: Option<Duration>,
}

impl Pace {
    /// How long to wait at `now` where something is due after `wait`. A clock that stands still
    /// shortly before that moment must not keep a processor busy; it reports when it is moved.
    fn wait(&mut self, wait: Duration, now: Duration) -> Duration {
        let stands_still = self.last.replace(now) == Some(now);
        if stands_still && !wait.is_zero() { wait.max(STANDS_STILL) } else { wait }
    }
}

/// What a worker is at, so that it is asked for again after a panic: whoever waits for it has asked
/// once and does not ask again.
#[derive(Default)]
struct AtWork {
    job: Option<(Arc<PartitionCore>, Work)>,
    /// Jobs that panicked, and when all of them are asked for again.
    panicked: Vec<(Arc<PartitionCore>, Work)>,
    due: Option<Duration>,
}

impl AtWork {
    fn run<R>(&mut self, partition: &Arc<PartitionCore>, work: Work, job: impl FnOnce() -> R) -> R {
        self.job = Some((Arc::clone(partition), work));
        let done = job();
        self.job = None;
        done
    }

    /// Asks again for what panicked, when it is time. Returns how long until then.
    fn ask_again(&mut self, now: Duration) -> Option<Duration> {
        if let Some(job) = self.job.take() {
            self.panicked.push(job);
            self.due.get_or_insert(now.saturating_add(TRY_AGAIN));
        }
        if self.due.is_some_and(|due| now >= due) {
            self.due = None;
            for (partition, work) in std::mem::take(&mut self.panicked) {
                partition.take_up(work);
                partition.request(work);
            }
        }
        self.due.map(|due| due.saturating_sub(now))
    }
}

/// Partitions whose interval runs, each at most once: thousands, where every topic has one.
#[derive(Default)]
struct Intervals {
    /// By its address, with when it is to be looked at.
    partitions: HashMap<usize, (Arc<PartitionCore>, Duration)>,
    /// When each of them is to be looked at, by its address. One that was synced meanwhile is due
    /// later than that, or not at all. An entry that an earlier one has replaced stays until its
    /// time, and is then passed over.
    due: BinaryHeap<Reverse<(Duration, usize)>>,
}

impl Intervals {
    /// Looks at a partition, also at one that is known: a producer's own interval may end long
    /// before the one that the partition is queued for. One that is due is given to `sync`.
    fn add(
        &mut self,
        partition: Arc<PartitionCore>,
        now: Duration,
        sync: &dyn Fn(Arc<PartitionCore>),
    ) {
        let Some(due) = partition.sync_due() else { return };
        if due <= now {
            return sync(partition);
        }
        let address = Arc::as_ptr(&partition).addr();
        let known = self.partitions.get(&address).map(|(_, due)| *due);
        if known.is_none_or(|known| due < known) {
            self.partitions.insert(address, (partition, due));
            self.due.push(Reverse((due, address)));
        }
    }

    /// Has synced what is due, and returns how long until the next is.
    fn sync_due(&mut self, now: Duration, sync: &dyn Fn(Arc<PartitionCore>)) -> Option<Duration> {
        while let Some(&Reverse((due, address))) = self.due.peek() {
            if due > now {
                return Some(due.saturating_sub(now));
            }
            self.due.pop();
            if self.partitions.get(&address).is_none_or(|(_, current)| *current != due) {
                continue;
            }
            if let Some((partition, _)) = self.partitions.remove(&address) {
                self.add(partition, now, sync);
            }
        }
        None
    }
}

/// What the bulk worker asks of the engine.
pub(crate) trait Housekeeping {
    /// What is done every minute.
    fn run_housekeeping(&self);

    /// A partition's sealed segments were finished: there may be more than it keeps.
    fn finished(&self, partition: &Arc<PartitionCore>);

    /// An append was refused for want of space.
    fn relieve(&self);

    /// A number that changes whenever records are appended to any partition.
    fn appended(&self) -> u64;
}

/// The bulk worker, until it is stopped. The first minute has run since `opened`, however late the
/// thread begins. `start_helper` is as for the other worker.
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
    run_rounds(queues, "bulk", trace, || {
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
                // Not here: one that hangs would hold up all partitions.
                if finished.wants_sync {
                    queues.syncs.ask((partition, For::Footers), &start_helper);
                }
            }
            Ok(Job::Do(partition, work)) => {
                at_work.run(&partition, work, || partition.do_work(work));
                engine.finished(&partition);
            }
            Ok(Job::Watch) => {
                queues.moves.bulk.swap(false, Ordering::AcqRel);
            }
            Ok(Job::Relieve) => {
                engine.relieve();
                // An append that is refused again and again asks again at once: the queue would
                // never be empty, and the compaction that is to make room never take a step.
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
struct Compactions {
    queue: VecDeque<Arc<PartitionCore>>,
    /// When the first of the queue may take its next step.
    at: Duration,
    appended: u64,
}

impl Compactions {
    fn add(&mut self, partition: Arc<PartitionCore>, now: Duration) {
        if self.queue.is_empty() {
            self.at = now;
        }
        if !self.queue.iter().any(|known| Arc::ptr_eq(known, &partition)) {
            self.queue.push_back(partition);
        }
    }

    fn next_step(&self) -> Option<Duration> {
        self.queue.front().map(|_| self.at)
    }

    fn step(&mut self, clock: &dyn Clock, engine: &impl Housekeeping, at_work: &mut AtWork) {
        let begun = clock.monotonic();
        // Taken out for the step: one that panics does not hold up those behind it.
        if begun < self.at {
            return;
        }
        let Some(partition) = self.queue.pop_front() else { return };
        // What failed has been counted, and is tried again later.
        let stepped = at_work.run(&partition, Work::Compact, || partition.compact_step());
        if matches!(stepped, Ok(true)) {
            self.queue.push_front(partition);
        } else {
            partition.take_up(Work::Compact);
            partition.compact_again_if_due();
        }
        let now = clock.monotonic();
        let appended = engine.appended();
        let was_busy = std::mem::replace(&mut self.appended, appended) != appended;
        self.at = now.saturating_add(pause_after(now.saturating_sub(begun), was_busy));
    }
}

pub(crate) mod syncs;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;

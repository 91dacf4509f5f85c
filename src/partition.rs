//! One partition: a lock around its [`Log`], and everything that waits for it.
//!
//! Owns: the append critical section, the ends that readers poll, group commit, waiting readers,
//! poisoning after a failed sync. Must not know: topics, brokers, groups, replication (it offers
//! what replication needs: append, truncate, advance).
//!
//! Invariants:
//! 1. `log_start <= durable_end <= log_end`; each is published with Release after what it speaks
//!    of has happened.
//! 2. User code never runs under the partition's lock; nor does any sync, allocation ahead or
//!    wake-up of a thread.
//! 3. After a failed sync, or a panic under the lock ([`guard`]), nothing is appended and no sync is believed until the log is reopened.
//! 4. Named producers are admitted under the lock, with the epoch in force at that moment.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::utils::CachePadded;

use self::commit::SyncGate;
use self::compaction::CompactionState;
use self::disk_work::DiskWork;
use self::guard::{StateGuard, StateLock};
use self::lineage::Lineage;
use self::metrics::{Counts, ReadCounts};
use self::room::Want;
use self::waiters::{Awaits, Fired, WaitList};
use crate::clock::{Moment, RunClock};
use crate::config::{Durability, Visibility};
use crate::error::{Corruption, Error, Result};
use crate::format::EncodedBatch;
use crate::log::segment::{Segment, SegmentList};
use crate::log::{Checkpoint, Log, Outcome, ProducerRequest};
use crate::record::TopicPartition;
use crate::storage::process::Process;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, LockRank, Mutex, Ordering};
use crate::trace::Outbox;

pub(crate) mod commit;
pub(crate) mod compaction;
mod disk_work;
mod durable;
pub(crate) mod encode;
pub(crate) mod finish;
mod guard;
pub(crate) mod lineage;
pub(crate) mod metrics;
#[cfg(all(test, loom))]
mod models;
mod read;
mod retention;
pub(crate) mod room;
pub(crate) mod state_log;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
pub(crate) mod together;
pub(crate) mod waiters;

/// Work that a partition wants done behind its back. Bits, so that each kind is asked for once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Space ahead of the writer, or the next segment.
    Space = 1,
    /// A sync, for those who wait without blocking or because the interval's bytes are full.
    Sync = 2,
    /// A sync, when the interval's time is over.
    SyncLater = 4,
    /// Footers of sealed segments.
    Finish = 8,
    /// Compaction.
    Compact = 16,
    /// The clean-up of an internal log, which the engine does.
    CleanUp = 32,
}

/// How long a named producer's numbers are remembered without use.
pub(crate) const PRODUCER_EXPIRY: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Who does that work: the broker's workers, or nobody until the next `tick`.
pub(crate) trait Background: Send + Sync + fmt::Debug {
    fn request(&self, partition: &Arc<PartitionCore>, work: Work);

    /// Whether requests are served without a `tick`.
    fn is_running(&self) -> bool;

    /// Whether the broker is closed.
    fn has_ended(&self) -> bool {
        false
    }

    /// An append found no space: asks for whatever gives some back, and does what the broker's
    /// settings say. Whether the append is to be tried again.
    ///
    /// # Errors
    ///
    /// `Closed` and `UnknownTopic`, for an append that waits for room.
    fn make_room(&self, partition: &Arc<PartitionCore>, want: &mut Want) -> Result<bool>;

    /// A read has failed: looks at the files anew where a broker in another process writes to them.
    /// Whether the read is to be tried again.
    fn look_again(&self, _partition: &PartitionCore) -> bool {
        false
    }
}

/// LIMIT: how often the files are looked at anew before what is wrong with them is believed although
/// each look finds something else: that takes a removal in each.
pub(crate) const LOOKS: usize = 16;

/// A named producer's request, and the check that it has not been superseded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fence<'a> {
    pub(crate) request: ProducerRequest,
    pub(crate) name: &'a str,
    /// The epoch in force; raised by a newer holder before it reads any last sequence.
    pub(crate) current: &'a AtomicU32,
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct AppendOptions<'a> {
    /// Compare-and-append: what the log end must be.
    pub(crate) expected: Option<u64>,
    pub(crate) producer: Option<Fence<'a>>,
    /// The durability in force, where it is not the partition's: the producer's own.
    pub(crate) level: Option<Durability>,
    /// What the wall clock shows, in milliseconds; 0 where nobody asks for the age of records.
    pub(crate) wall: u64,
}

struct State {
    log: Log,
    waiters: WaitList,
    failure: Option<Error>,
    closed: bool,
    unsynced_bytes: u64,
    /// When the oldest append at an interval level must be synced, on the broker's clock.
    sync_due: Option<Duration>,
    /// Whether the log changed since its last recovery point.
    changed: bool,
    counts: Counts,
}

pub(crate) struct PartitionCore {
    pub(crate) origin: Arc<TopicPartition>,
    pub(crate) durability: Durability,
    clock: RunClock,
    background: Arc<dyn Background>,
    /// Why nothing can be read or appended in this run, if so: what the opening has found.
    damage: Option<Corruption>,
    segments: Arc<SegmentList>,
    lineage: Lineage,
    process: Arc<Process>,
    state: StateLock,
    gate: SyncGate,
    compaction: CompactionState,
    disk_work: DiskWork,
    /// ORDERING: stored with Release under `state` after the batch was published; loaded with
    /// Acquire by readers, who then find the batch. Padded: readers poll it while appenders write
    /// the lock beside it.
    log_end: CachePadded<AtomicU64>,
    log_start: AtomicU64,
    /// Padded: readers write it, and no appender's line.
    reads: CachePadded<ReadCounts>,
    pub(crate) trace: Outbox,
    closed: AtomicBool,
    /// Whether it was closed because its topic was deleted. ORDERING: Relaxed, stored before
    /// `closed`, which publishes it.
    is_deleted: AtomicBool,
    requested: AtomicU32,
    /// The wall clock when the log was last told the time. ORDERING: Relaxed, written under
    /// `state` after the log was told: whoever finds its own reading here enters later.
    wall_seen: AtomicU64,
    /// Segments that left the log and whose files could not be removed.
    leftovers: Mutex<Vec<Arc<Segment>>>,
}

impl PartitionCore {
    pub(crate) fn new(
        log: Log,
        lineage: Lineage,
        origin: Arc<TopicPartition>,
        durability: Durability,
        clock: RunClock,
        background: Arc<dyn Background>,
    ) -> Arc<Self> {
        Self::with_damage(log, lineage, origin, durability, clock, background, None)
    }

    /// With `damage`, a partition that is unavailable in this run: whoever reads, appends or moves
    /// in it gets that.
    pub(crate) fn with_damage(
        mut log: Log,
        lineage: Lineage,
        origin: Arc<TopicPartition>,
        durability: Durability,
        clock: RunClock,
        background: Arc<dyn Background>,
        damage: Option<Corruption>,
    ) -> Arc<Self> {
        log.tell_time(clock.moment());
        Arc::new(Self {
            trace: log.env().trace.clone(),
            reads: CachePadded::new(ReadCounts::new()),
            origin,
            durability,
            lineage,
            process: Arc::clone(&log.env().process),
            clock,
            background,
            damage,
            segments: Arc::clone(log.segments()),
            gate: SyncGate::new(log.durable_end()),
            compaction: CompactionState::new(),
            disk_work: DiskWork::new(),
            log_end: CachePadded::new(AtomicU64::new(log.log_end())),
            log_start: AtomicU64::new(log.log_start()),
            closed: AtomicBool::new(false),
            is_deleted: AtomicBool::new(false),
            requested: AtomicU32::new(0),
            wall_seen: AtomicU64::new(0),
            leftovers: Mutex::ranked(LockRank::Leftovers, Vec::new()),
            state: StateLock::new(State {
                changed: true,
                counts: Counts::since(log.log_end()),
                log,
                waiters: WaitList::default(),
                failure: None,
                closed: false,
                unsynced_bytes: 0,
                sync_due: None,
            }),
        })
    }

    pub(crate) fn clock(&self) -> &RunClock {
        &self.clock
    }

    /// Refuses a partition of which nothing can be used in this run.
    #[inline]
    pub(crate) fn check_available(&self) -> Result<()> {
        match &self.damage {
            None => Ok(()),
            Some(damage) => Err(damage.clone().into()),
        }
    }

    #[inline]
    pub(crate) fn is_available(&self) -> bool {
        self.damage.is_none()
    }

    // ---- ends --------------------------------------------------------------------------------

    #[inline]
    pub(crate) fn log_end(&self) -> u64 {
        self.log_end.load(Ordering::Acquire)
    }

    pub(crate) fn log_start(&self) -> u64 {
        self.log_start.load(Ordering::Acquire)
    }

    pub(crate) fn durable_end(&self) -> u64 {
        self.gate.durable_end()
    }

    /// The end of what may be read.
    #[inline]
    pub(crate) fn visible_end(&self, visibility: Visibility) -> u64 {
        // A poisoned partition shows what is known to be on the disk, and nothing else.
        if visibility == Visibility::Durable || self.state.is_poisoned() {
            return self.durable_end();
        }
        self.log_end()
    }

    pub(crate) fn segment_count(&self) -> usize {
        self.segments.count()
    }

    /// Leader epoch and incarnation: what a committed offset refers to.
    pub(crate) fn lineage(&self) -> (u32, u64) {
        let state = self.state.lock();
        {
            let epochs = state.log.epochs();
            (epochs.leader_epoch, epochs.incarnation)
        }
    }

    /// Whether a recovery has cut off what lay below `offset` since a consumer committed it under
    /// `incarnation`: the offset to which the log was cut.
    pub(crate) fn cut_below(&self, offset: u64, incarnation: u64) -> Option<u64> {
        self.lineage.cut_below(offset, incarnation)
    }

    pub(crate) fn last_sequence(&self, producer: u64) -> Option<u64> {
        self.state.lock().log.producer(producer).map(|state| state.last_sequence)
    }

    // ---- append ------------------------------------------------------------------------------

    /// Appends and publishes a batch. Does not wait for any durability.
    pub(crate) fn append(
        self: &Arc<Self>,
        batch: &mut EncodedBatch<'_>,
        options: &AppendOptions<'_>,
    ) -> Result<Outcome> {
        match self.try_append(batch, options) {
            Err(error @ Error::StorageFull { .. }) => self.append_when_full(error, batch, options),
            appended => appended,
        }
    }

    fn try_append(
        self: &Arc<Self>,
        batch: &mut EncodedBatch<'_>,
        options: &AppendOptions<'_>,
    ) -> Result<Outcome> {
        // The clock is the application's code: it is asked before the lock is taken.
        // Time passed if the wall clock, which the caller has read, moved: most appends of a quick
        // producer find it where it was, and the second clock is not asked.
        let is_later = self.wall_seen.load(Ordering::Relaxed) != options.wall;
        let now = (is_later || options.producer.is_some()).then(|| self.clock.millis());
        let level = options.level.unwrap_or(self.durability);
        let monotonic = match level {
            Durability::Interval { .. } => Some(self.clock.monotonic()),
            Durability::Os | Durability::Sync => None,
        };
        let mut state = self.writable_state()?;
        if let Some(now) = now {
            state.log.tell_time(Moment { wall: options.wall, run: now });
            self.wall_seen.store(options.wall, Ordering::Relaxed);
        }
        let producer = options.producer.as_ref().map(check_fence).transpose()?;
        if let Some(expected) = options.expected
            && expected != state.log.log_end()
        {
            return Err(Error::WrongOffset { expected, actual: state.log.log_end() });
        }
        let outcome = state.log.append(batch, producer)?;
        match (outcome, &options.producer) {
            (Outcome::Appended { next_offset, .. }, _) => {
                let bytes =
                    u64::from(batch.size(producer.is_some_and(ProducerRequest::is_stamped)));
                state.counts.note_append(bytes);
                let interval = Self::note_unsynced(&mut state, bytes, level, monotonic);
                self.published(state, next_offset, interval);
                Ok(outcome)
            }
            (Outcome::Fenced { current }, Some(fence)) => Err(fenced(fence, current)),
            (outcome, _) => Ok(outcome),
        }
    }

    /// The end of the append critical section: publishes the log end, wakes, asks for work.
    #[inline]
    fn published(self: &Arc<Self>, mut state: StateGuard<'_>, end: u64, interval: Option<Work>) {
        self.log_end.store(end, Ordering::Release);
        let fired = if state.waiters.any_armed() {
            state.waiters.fire(Awaits::Published)
        } else {
            Fired::default()
        };
        let wants_sync = state.waiters.any_awaits_durable();
        state.changed = true;
        let wants_space = state.log.appender().wants_space();
        let wants_finish = state.log.backlog().has_unfinished();
        drop(state);
        fired.notify();
        if wants_space {
            self.request(Work::Space);
        }
        if wants_sync {
            self.request(Work::Sync);
        }
        if let Some(work) = interval {
            self.request(work);
        }
        if wants_finish {
            self.request(Work::Finish);
        }
    }

    /// Keeps the books of interval syncs; other levels have none.
    #[inline]
    fn note_unsynced(
        state: &mut State,
        bytes: u64,
        level: Durability,
        now: Option<Duration>,
    ) -> Option<Work> {
        let (Durability::Interval { every, bytes: limit }, Some(now)) = (level, now) else {
            return None;
        };
        state.unsynced_bytes = state.unsynced_bytes.saturating_add(bytes);
        if state.unsynced_bytes >= limit {
            return Some(Work::Sync);
        }
        let due = now.saturating_add(every);
        let is_first = state.sync_due.is_none_or(|known| due < known);
        is_first.then(|| {
            state.sync_due = Some(due);
            Work::SyncLater
        })
    }

    /// Refuses a forked child, before any lock: whoever held one when it was forked is not there to
    /// release it.
    #[inline]
    pub(crate) fn check_process(&self) -> Result<()> {
        self.process.check()
    }

    fn writable_state(&self) -> Result<StateGuard<'_>> {
        self.check_process()?;
        let state = self.state.lock();
        if state.closed {
            return Err(self.ended());
        }
        self.check_available()?;
        if let Some(failure) = &state.failure {
            return Err(Error::Poisoned {
                partition: TopicPartition::clone(&self.origin),
                source: Box::new(failure.clone()),
            });
        }
        Ok(state)
    }

    // ---- background work ---------------------------------------------------------------------

    /// Asks for background work, once until it is taken up.
    pub(crate) fn request(self: &Arc<Self>, work: Work) {
        let bit = work as u32;
        // Space and footers are wanted again by the next append, so for them a stale look costs
        // nothing, and the append path gets a load in place of a locked operation.
        let recurs = matches!(work, Work::Space | Work::Finish);
        if recurs && self.requested.load(Ordering::Relaxed) & bit != 0 {
            return;
        }
        // ORDERING: AcqRel on both sides: whoever finds the bit set relies on the other side to
        // clear it later, and then to see what was published before this.
        if self.requested.fetch_or(bit, Ordering::AcqRel) & bit == 0 {
            self.background.request(self, work);
        }
    }

    /// Whoever begins requested work says so first, so that it can be asked for again.
    pub(crate) fn take_up(&self, work: Work) {
        self.requested.fetch_and(!(work as u32), Ordering::AcqRel);
    }

    /// Does what was asked for.
    pub(crate) fn do_work(self: &Arc<Self>, work: Work) {
        self.take_up(work);
        match work {
            Work::Space => self.make_space(),
            // Whoever waits for the result finds it in the gate; so does the next append.
            Work::Sync => drop(self.flush()),
            // Taken up: the interval is counted by the worker, and what keeps a state cleans it up.
            Work::SyncLater | Work::CleanUp => {}
            // In steps, so that a broker that is going away is not waited for.
            Work::Finish => {
                while !self.is_closed() && matches!(self.finish_one_segment(), Ok(true)) {}
                self.compact_if_due();
            }
            Work::Compact => self.compact_all(),
        }
        self.trace.deliver();
    }

    /// Does all that was asked for and not taken up; for `tick`.
    pub(crate) fn do_requested(self: &Arc<Self>) {
        for work in [Work::Space, Work::Sync, Work::SyncLater, Work::Finish, Work::Compact] {
            // Asked for each anew: footers may call for a compaction.
            if self.requested.load(Ordering::Relaxed) & work as u32 != 0 {
                self.do_work(work);
            }
        }
    }

    /// Space ahead of the writer and the next segment. A failure is not reported: the append that
    /// needs the space will find it.
    fn make_space(&self) {
        // Until the writer is no longer near the end: one step may be behind it when it is done.
        loop {
            let growth = self.state.lock().log.appender().growth_wish();
            let Some(growth) = growth else { break };
            let Some(_running) = self.disk_work.begin() else { return };
            let Ok(end) = growth.run() else { break };
            self.state.lock().log.appender_mut().finish_growth(&growth, end);
        }
        let Some(_running) = self.disk_work.begin() else { return };
        let task = {
            let mut state = self.state.lock();
            if state.closed || !state.log.appender().wants_next() {
                return;
            }
            state.log.factory_mut().begin_prepare()
        };
        if let Ok(prepared) = task.and_then(crate::log::tasks::PrepareTask::run) {
            let mut state = self.state.lock();
            // After a close the topic may be deleted, and its directory is to be removed.
            let late = if state.closed {
                Some(prepared)
            } else {
                state.log.appender_mut().finish_prepare(prepared)
            };
            if let Some(late) = late {
                late.discard(&*state.log.env().disk);
            }
        }
    }

    /// When an interval is over, if the partition is dirty.
    pub(crate) fn sync_due(&self) -> Option<Duration> {
        self.state.lock().sync_due
    }

    /// Has the events delivered that wait. Under no lock.
    pub(crate) fn deliver_events(&self) {
        self.trace.deliver();
    }

    /// Syncs if an interval is over at `now`. Returns when it will be, if dirty.
    pub(crate) fn sync_if_due(&self, now: Duration) -> Option<Duration> {
        let due = self.state.lock().sync_due?;
        if now < due {
            return Some(due);
        }
        // Whoever needs the result finds the failure in the gate and in the next append.
        let _ = self.flush();
        None
    }

    /// A recovery point, if the log changed since the last one and is durable.
    pub(crate) fn take_checkpoint(&self) -> Option<Checkpoint> {
        let now = self.clock.moment();
        let mut state = self.state.lock();
        // What a failure or damage left is for the next opening to look at.
        if !state.changed || state.failure.is_some() || !self.is_available() {
            return None;
        }
        state.log.tell_time(now);
        state.log.expire_producers(PRODUCER_EXPIRY);
        let point = state.log.checkpoint()?;
        state.changed = false;
        Some(point)
    }

    /// The recovery point that was taken last could not be stored, or is dated by a clock that was
    /// set since.
    pub(crate) fn give_back_checkpoint(&self) {
        self.state.lock().changed = true;
    }

    /// Whether the log changed since its last recovery point.
    pub(crate) fn has_changed(&self) -> bool {
        self.state.lock().changed
    }

    /// Takes no more appends: later ones get `Closed`, and the log ends where it ends now. What is
    /// waited for is still answered.
    pub(crate) fn end_appends(&self) {
        self.state.lock().closed = true;
    }

    /// Closes the partition in this broker: later and waiting calls get `Closed`.
    pub(crate) fn close(&self) {
        self.end(Error::Closed);
    }

    /// Ends the partition with its topic: later calls get `UnknownTopic`, and those that wait for
    /// the disk get `waiting`, as what they appended may come back where the deletion may.
    pub(crate) fn close_deleted(&self, waiting: Option<Error>) {
        self.is_deleted.store(true, Ordering::Relaxed);
        self.end(waiting.unwrap_or_else(|| self.unknown_topic()));
    }

    fn end(&self, waiting: Error) {
        let mut state = self.state.lock();
        state.closed = true;
        self.closed.store(true, Ordering::Release);
        let fired = state.waiters.fire_all();
        drop(state);
        fired.notify();
        self.gate.fail(waiting);
        self.end_compaction();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// What a call gets once the partition is closed. A topic that was deleted is no end of the
    /// broker: whoever serves many topics goes on.
    #[cold]
    pub(crate) fn ended(&self) -> Error {
        if self.is_deleted.load(Ordering::Relaxed) && !self.background.has_ended() {
            return self.unknown_topic();
        }
        Error::Closed
    }

    fn unknown_topic(&self) -> Error {
        Error::UnknownTopic(self.origin.topic.as_ref().to_owned())
    }

    /// Waits, once the partition is closed, until no thread writes to its files any more.
    pub(crate) fn await_work(&self) {
        self.await_compaction();
        self.disk_work.end();
    }

    /// Whether [`await_work`](Self::await_work) would wait, and whether it does.
    #[cfg(test)]
    pub(crate) fn work_under_way(&self) -> (bool, bool) {
        let would_wait = self.disk_work.is_running() || self.compaction.is_claimed();
        (would_wait, self.disk_work.is_awaited())
    }

    /// Puts what a broker in another process has made of the files in the place of what was known of
    /// them. What can be read ends where it did.
    pub(crate) fn take_over(&self, found: Log) {
        self.with_log(|log| log.take_over(found));
        self.gate.raise(self.with_log(|log| log.durable_end()));
    }

    /// Runs `change` on the log under the partition's lock, then publishes its ends.
    pub(crate) fn with_log<R>(&self, change: impl FnOnce(&mut Log) -> R) -> R {
        let mut state = self.state.lock();
        let result = change(&mut state.log);
        self.log_start.store(state.log.log_start(), Ordering::Release);
        self.log_end.store(state.log.log_end(), Ordering::Release);
        result
    }
}

fn check_fence<'a>(fence: &'a Fence<'_>) -> Result<&'a ProducerRequest> {
    // ORDERING: a new holder raises the epoch (Release) before it takes this partition's lock to
    // read the last sequence; so whoever appends after that read sees the new epoch here.
    let current = fence.current.load(Ordering::Acquire);
    if current == fence.request.epoch { Ok(&fence.request) } else { Err(fenced(fence, current)) }
}

fn fenced(fence: &Fence<'_>, current: u32) -> Error {
    Error::Fenced { id: fence.name.to_owned(), epoch: fence.request.epoch, current }
}

impl fmt::Debug for PartitionCore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partition")
            .field("partition", &self.origin)
            .field("log_start", &self.log_start())
            .field("durable_end", &self.durable_end())
            .field("log_end", &self.log_end())
            .finish_non_exhaustive()
    }
}

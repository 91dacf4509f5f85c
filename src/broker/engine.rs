//! The engine behind all handles of one broker: its topics, its internal logs, its workers.
//!
//! Owns: the table of topics, the catalog, the local state, the coordinator of groups, the workers
//! and the directory lock. Must not know: producers and consumers, which are clients of what is
//! here.
//!
//! Invariants:
//! 1. A topic is in the table exactly while it is live in the catalog.
//! 2. `admin` is held over every creation, change and deletion of a topic, over what these look
//!    at ([`numbers`](super::numbers)), and over nothing else; no lookup takes it.
//! 3. Nothing is written before the directory lock is held, nor after it is given up.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::catalog::{CatalogChange, CatalogState, ProducerEntry};
use super::expiry::ClockSet;
use super::internal_logs::{META, OFFSETS};
use super::local::{LocalChange, LocalState};
use super::report::RecoveryReport;
use super::room::Sight;
use super::workers::{Housekeeping, Workers};
use crate::clock::RunClock;
use crate::config::{Cleanup, Durability, RecoveryPolicy, TopicConfig, WhenFull};
use crate::error::{Error, Result};
use crate::foreign;
use crate::format::{TopicId, validate_label};
use crate::group::coordinator::Coordinator;
use crate::log::LogEnv;
use crate::log::create::Writer;
use crate::partition::state_log::StateLog;
use crate::partition::waiters::NotifierList;
use crate::partition::{Background, PartitionCore, together};
use crate::storage::lock::DirLock;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Mutex, MutexGuard, Ordering, RwLock};
use crate::topic::TopicShared;
use crate::trace::note;

/// The settings of a broker that outlive its opening.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "facts that do not depend on one another")]
pub(crate) struct Settings {
    pub(crate) dir: PathBuf,
    pub(crate) in_memory: bool,
    /// Whether the internal logs keep spare segments for a full disk.
    pub(crate) has_reserve: bool,
    /// Whether there is a directory that other brokers must be kept out of.
    pub(crate) has_lock: bool,
    pub(crate) durability: Durability,
    pub(crate) topic_defaults: TopicConfig,
    pub(crate) read_only: bool,
    pub(crate) recovery: RecoveryPolicy,
    pub(crate) when_full: WhenFull,
    /// How long a group is kept without use; `None` where its topics decide.
    pub(crate) group_expiry: Option<Duration>,
}

/// What has expired since the opening, for the metrics.
#[derive(Debug, Default)]
pub(crate) struct Expired {
    pub(crate) groups: AtomicU64,
    pub(crate) producers: AtomicU64,
}

/// A named producer that is in use: the epoch in force, shared by all its holders.
#[derive(Debug)]
pub(crate) struct NamedProducer {
    pub(crate) name: Arc<str>,
    pub(crate) id: u64,
    /// ORDERING: raised with Release by a new holder once the new epoch is durable; read with
    /// Acquire under a partition's lock by whoever appends (see `partition::check_fence`).
    pub(crate) epoch: AtomicU32,
    /// The topics for which it is recorded that it gives numbers to records with a key, and how
    /// many such appends are under way.
    pub(super) by_key: RwLock<HashMap<TopicId, Arc<AtomicU32>>>,
}

pub(crate) struct Engine {
    pub(crate) settings: Settings,
    pub(crate) env: Arc<LogEnv>,
    pub(crate) clock: RunClock,
    pub(crate) workers: Arc<Workers>,
    pub(crate) topics: RwLock<HashMap<Arc<str>, Arc<TopicShared>>>,
    pub(crate) admin: Mutex<()>,
    pub(crate) catalog: StateLog<CatalogState>,
    pub(crate) local: StateLog<LocalState>,
    pub(crate) coordinator: Arc<Coordinator>,
    pub(crate) consumers: NotifierList,
    pub(crate) producers: Mutex<HashMap<Arc<str>, Arc<NamedProducer>>>,
    pub(crate) recovery: RecoveryReport,
    pub(crate) lock: Mutex<Option<DirLock>>,
    pub(crate) threads: Mutex<Vec<JoinHandle<()>>>,
    pub(crate) closed: AtomicBool,
    /// When recovery points were last written. Held over the writing, so that none is ever stored
    /// after a newer one, nor after the end of a clean run.
    ///
    /// LOCK ORDER: after `admin`.
    pub(crate) points: Mutex<Duration>,
    /// Held while the oldest records make room for new ones, so that no two callers drop for the
    /// same want.
    ///
    /// LOCK ORDER: after `admin`, and before any lock of a partition.
    pub(crate) dropping: Mutex<()>,
    /// What there was to see when a refused append was last looked after.
    pub(crate) relieved: Mutex<Option<Sight>>,
    pub(crate) expired: Expired,
    /// Whether what was used in this run is dated by the clock as it is now.
    pub(crate) clock_set: Mutex<ClockSet>,
}

impl Engine {
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(Error::Closed) } else { self.check_process() }
    }

    /// Refuses a forked child, before any lock is taken.
    pub(crate) fn check_process(&self) -> Result<()> {
        self.env.process.check()
    }

    /// Refuses to write what was opened for inspection.
    pub(crate) fn check_writable(&self) -> Result<()> {
        if !self.settings.read_only {
            return Ok(());
        }
        Err(Error::ReadOnly { path: self.settings.dir.clone() })
    }

    #[inline]
    pub(crate) fn topic(&self, name: &str) -> Result<Arc<TopicShared>> {
        if let Some(topic) = self.topics.read().get(name) {
            return Ok(Arc::clone(topic));
        }
        self.check_open()?;
        Err(Error::UnknownTopic(name.to_owned()))
    }

    pub(crate) fn all_topics(&self) -> Vec<Arc<TopicShared>> {
        let mut topics: Vec<_> = self.topics.read().values().cloned().collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        topics
    }

    /// Every partition, the engine's own included.
    pub(crate) fn all_partitions(&self) -> Vec<Arc<PartitionCore>> {
        let topics = self.all_topics();
        let users = topics.iter().flat_map(|topic| &topic.partitions).map(Arc::clone);
        users.chain(self.internal_partitions()).collect()
    }

    /// The partitions of the internal logs.
    pub(crate) fn internal_partitions(&self) -> [Arc<PartitionCore>; 3] {
        let offsets = self.coordinator.offsets_partition();
        [offsets, self.catalog.partition(), self.local.partition()].map(Arc::clone)
    }

    /// How the files of a topic are written.
    pub(crate) fn writer_for(&self, durability: Durability) -> Writer {
        writer_for(&self.settings, &self.env, durability)
    }

    /// A new holder of a producer id: raises its epoch durably, and with it fences the holder
    /// before.
    pub(crate) fn acquire_producer(&self, name: &str) -> Result<(Arc<NamedProducer>, u32)> {
        validate_label(name).map_err(|reason| Error::InvalidName {
            name: name.chars().take(300).collect(),
            reason,
        })?;
        self.check_open()?;
        self.check_writable()?;
        // One holder at a time takes over, so epochs rise in the order in which they are stored.
        let mut producers = self.producers.lock();
        let known = self.catalog.read(|catalog| catalog.producers.get(name).copied());
        let entry = if let Some(known) = known {
            ProducerEntry { epoch: known.epoch.saturating_add(1), ..known }
        } else {
            let id = self.catalog.read(CatalogState::next_producer_id);
            let used_up = || Error::config("id", "the numbers of producers are used up");
            ProducerEntry { id: id.ok_or_else(used_up)?, epoch: 0 }
        };
        if known.is_some_and(|known| known.epoch == entry.epoch) {
            return Err(Error::config("id", "the producer's epochs are used up"));
        }
        self.catalog.append_durably(vec![CatalogChange::Producer(name.into(), entry)])?;
        let producer = producers.entry(name.into()).or_insert_with(|| {
            let epoch = AtomicU32::new(entry.epoch);
            let by_key = RwLock::new(HashMap::new());
            Arc::new(NamedProducer { name: name.into(), id: entry.id, epoch, by_key })
        });
        producer.epoch.store(entry.epoch, Ordering::Release);
        Ok((Arc::clone(producer), entry.epoch))
    }

    /// All that was appended before the call is on stable storage. Tries every partition, and
    /// returns the first failure.
    pub(crate) fn flush(&self) -> Result<()> {
        self.check_open()?;
        if self.settings.read_only {
            return Ok(());
        }
        self.flush_all(&self.all_partitions())
    }

    /// Flushes partitions, but for those whose topic is deleted meanwhile.
    fn flush_all<'a>(
        &self,
        partitions: impl IntoIterator<Item = &'a Arc<PartitionCore>>,
    ) -> Result<()> {
        let partitions: Vec<_> = partitions.into_iter().collect();
        let waits: Vec<_> = partitions.iter().map(|core| (&***core, core.log_end())).collect();
        let answers = partitions.iter().zip(together::wait_durable(&waits));
        let is_open = |(core, _): &(&&Arc<PartitionCore>, _)| !core.is_closed();
        let flushed = answers.filter(is_open).map(|(_, flushed)| flushed);
        let flushed = flushed.fold(Ok(()), Result::and);
        // Asked last: a broker that was closed meanwhile has partitions that are closed too.
        flushed.and_then(|()| self.check_open())
    }

    /// Takes note of work behind everybody's back that failed.
    fn note_failure(
        &self,
        work: &'static str,
        partition: Option<&Arc<PartitionCore>>,
        done: Result<()>,
    ) {
        if let Err(error) = done {
            let partition = partition.map(|core| Arc::clone(&core.origin));
            note!(self.env.trace, Failed { work, partition, error });
        }
    }

    /// One round of the work that the workers do otherwise.
    pub(crate) fn tick(&self) -> Result<()> {
        self.check_open()?;
        self.coordinator.evict_overdue();
        if self.settings.read_only {
            return Ok(());
        }
        // What fails in it fails again below, and is returned there.
        let _ = Self::relieve(self);
        let now = self.clock.monotonic();
        for partition in self.all_partitions() {
            partition.do_requested();
            partition.sync_if_due(now);
            partition.compact_if_due();
            partition.do_requested();
        }
        for partition in self.internal_partitions() {
            let cleaned = self.clean_up(&partition, || true);
            self.note_failure("cleaning up", Some(&partition), cleaned);
        }
        let is_due = now.saturating_sub(*self.points.lock()) >= super::workers::CHECKPOINT_EVERY;
        let kept = if is_due { self.run_housekeeping() } else { self.enforce_retention() };
        self.env.trace.deliver();
        kept
    }

    /// Makes the spares of the internal logs again that a full disk has used.
    pub(super) fn recover_reserves(&self) {
        self.coordinator.offsets.recover_reserve();
        self.catalog.recover_reserve();
        self.local.recover_reserve();
        self.keep_compaction_spare();
    }

    /// Keeps a file for compactions on a full disk, if there is a topic that is compacted. What
    /// cannot be made now is tried again every minute.
    pub(super) fn keep_compaction_spare(&self) {
        let Some(spare) = &self.env.spare else { return };
        let is_compacted = |topic: &Arc<TopicShared>| topic.config.cleanup != Cleanup::Delete;
        if self.all_topics().iter().any(is_compacted) {
            let _ = spare.fill(&*self.env.disk);
        }
    }

    /// Cleans up the log, if it is one of the engine's own.
    fn clean_up(&self, partition: &Arc<PartitionCore>, goes_on: impl Fn() -> bool) -> Result<()> {
        let offsets = &self.coordinator.offsets;
        if Arc::ptr_eq(partition, offsets.partition()) {
            return offsets.clean_up(goes_on);
        }
        if Arc::ptr_eq(partition, self.catalog.partition()) {
            return self.catalog.clean_up(goes_on);
        }
        if Arc::ptr_eq(partition, self.local.partition()) {
            return self.local.clean_up(goes_on);
        }
        Ok(())
    }

    /// A number that changes whenever records are appended to any topic: asked for between the
    /// steps of a compaction, so that appends need not count.
    pub(crate) fn appended(&self) -> u64 {
        let topics = self.topics.read();
        let partitions = topics.values().flat_map(|topic| &topic.partitions);
        partitions.fold(0, |sum, partition| sum.wrapping_add(partition.log_end()))
    }

    /// Recovery points for the partitions that changed since their last one.
    pub(super) fn write_points(&self, mut last: MutexGuard<'_, Duration>) -> Result<()> {
        // Whoever closes the engine writes the last ones.
        self.check_open()?;
        *last = self.clock.monotonic();
        let topics = self.all_topics();
        let users = topics.iter().flat_map(|topic| &topic.partitions);
        // One that fails keeps the others from nothing.
        let flushed = self.flush_all(users);
        self.store_points(&topics).and(flushed)
    }

    /// Stores the recovery points of what is durable. `points` is held.
    fn store_points(&self, topics: &[Arc<TopicShared>]) -> Result<()> {
        let (mut changes, mut taken) = (Vec::new(), Vec::new());
        for topic in topics {
            // A topic that was deleted is to leave nothing behind.
            for core in topic.partitions.iter().filter(|core| !core.is_closed()) {
                if let Some(point) = core.take_checkpoint() {
                    let (topic, partition) = (topic.id, core.origin.partition);
                    changes.push(LocalChange::TimedPoint { topic, partition, point });
                    taken.push(core);
                }
            }
        }
        changes.extend(self.internal_ends());
        if changes.is_empty() {
            return Ok(());
        }
        let stored = self.local.append(changes);
        if stored.is_err() {
            for partition in taken {
                partition.give_back_checkpoint();
            }
        }
        stored.map(drop)
    }

    /// What is durable of the catalog and of the committed offsets, where that is more than was
    /// stored: without it, rot in their last records would pass for the work of a crash.
    fn internal_ends(&self) -> Vec<LocalChange> {
        let (offsets, catalog) = (self.coordinator.offsets_partition(), self.catalog.partition());
        let ends = [(OFFSETS.1, offsets.durable_end()), (META.1, catalog.durable_end())];
        self.local.read(|local| local.news_of(&ends))
    }

    /// The real end: flushes, finishes, says so durably, and frees the directory.
    pub(crate) fn close(&self) -> Result<()> {
        self.check_process()?;
        if self.closed.swap(true, Ordering::AcqRel) {
            return Err(Error::Closed);
        }
        // Appends that wait for room get `Closed`.
        self.env.space.wake();
        if let Some(lock) = &*self.lock.lock() {
            lock.announce_closing();
        }
        let has_threads = self.workers.is_running();
        self.end_threads();
        let result = if self.settings.read_only { Ok(()) } else { self.end_cleanly(has_threads) };
        self.end();
        note!(
            self.env.trace,
            Closed { dir: self.settings.dir.clone(), error: result.as_ref().err().cloned() }
        );
        self.env.trace.deliver();
        result
    }

    /// Stops the workers and waits for them, and for their helpers. What calls this in one of those
    /// threads, as a subscriber of events may, does not wait for itself: that thread ends later.
    pub(super) fn end_threads(&self) {
        self.workers.stop();
        let join = |threads: Vec<JoinHandle<()>>| {
            let own = thread::current().id();
            for thread in threads.into_iter().filter(|thread| thread.thread().id() != own) {
                // One that panicked has poisoned what it was working on; that shows later.
                let _ = thread.join();
            }
        };
        join(std::mem::take(&mut *self.threads.lock()));
        // After the worker that starts them.
        join(self.workers.take_helpers());
    }

    /// `has_threads`: whether the broker may have threads, of which its own have ended by now.
    fn end_cleanly(&self, has_threads: bool) -> Result<()> {
        let _woken = foreign::hold_back();
        // No topic is made or deleted, and no other recovery point stored, from here on.
        let (_admin, _points) = (self.admin.lock(), self.points.lock());
        let topics = self.all_topics();
        let users = || topics.iter().flat_map(|topic| &topic.partitions);
        // What is appended after the recovery point would be lost to a next open that trusts it.
        for partition in users() {
            partition.end_appends();
        }
        let waits: Vec<_> = users().map(|partition| (&**partition, partition.log_end())).collect();
        let flushed = together::wait_durable_with(&waits, has_threads);
        let flushed = flushed.into_iter().fold(Ok(()), Result::and);
        for partition in users() {
            // Footers make the next open quick; a missing one costs a scan, never data.
            while matches!(partition.finish_one_segment(), Ok(true)) {}
        }
        flushed?;
        self.note_last_use();
        self.coordinator.offsets_partition().flush()?;
        self.catalog.partition().flush()?;
        self.store_points(&topics)?;
        if users().any(|partition| partition.has_changed()) {
            // One of them has no recovery point: it is durable, but not known to be whole.
            return Ok(());
        }
        // DURABILITY: the last record, after everything that it vouches for was synced.
        self.local.append_last(LocalChange::Closed)
    }

    /// Ends the engine for all handles, without any flush; what was published stays.
    pub(crate) fn abandon(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(lock) = &*self.lock.lock() {
            lock.announce_closing();
        }
        self.workers.stop();
        self.end_handles();
        // The directory stays locked until the workers have finished their step: they hold the
        // engine, and the lock goes with it.
    }

    fn end(&self) {
        let partitions = self.all_partitions();
        self.end_handles();
        for partition in partitions {
            // Nothing is written after the directory was given up, not by another thread either.
            partition.await_work();
        }
        drop(self.lock.lock().take());
    }

    fn end_handles(&self) {
        for partition in self.all_partitions() {
            partition.close();
        }
        self.coordinator.close();
        // After `closed` was set: a consumer that is called looks at it, and so does one that has
        // not parked yet, whether it waits for a partition or, as a member or a reader may, for none.
        self.consumers.call_all();
        self.topics.write().clear();
    }
}

impl Housekeeping for Engine {
    fn run_housekeeping(&self) {
        // A recovery point that cannot be written now costs a longer scan after a crash.
        self.note_failure("housekeeping", None, Self::run_housekeeping(self));
        self.env.trace.deliver();
    }

    fn finished(&self, partition: &Arc<PartitionCore>) {
        // What cannot be removed now is tried again.
        self.note_failure("retention", Some(partition), self.retain_bytes(partition));
        let cleaned = self.clean_up(partition, || self.workers.is_running());
        self.note_failure("cleaning up", Some(partition), cleaned);
        self.env.trace.deliver();
    }

    fn relieve(&self) {
        self.note_failure("making room", None, Self::relieve(self));
        self.env.trace.deliver();
    }

    fn appended(&self) -> u64 {
        Self::appended(self)
    }
}

pub(crate) fn writer_for(settings: &Settings, env: &LogEnv, durability: Durability) -> Writer {
    if settings.in_memory {
        return Writer::Stores;
    }
    // Durable topics write by pwrite: it syncs fastest whatever the size of the page cache's
    // folios, while a mapped store into a large one makes the sync write all of it (measured, see
    // docs/performance.md).
    let stores = durability != Durability::Sync
        && !env.copy_reads
        && env.disk.supports_mapped_writes(&settings.dir);
    if stores { Writer::Stores } else { Writer::Pwrite }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("settings", &self.settings).finish_non_exhaustive()
    }
}

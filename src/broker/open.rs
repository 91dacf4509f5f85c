//! Opening a broker: lock, internal logs, interrupted work, partitions, workers; in this order.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::catalog::{Stage, TopicEntry};
use super::engine::{Engine, Expired, Settings};
use super::internal_logs::{INTERNAL_NAMES, InternalLogs, LOCAL, META};
use super::local::{LocalChange, LocalState};
use super::report::RecoveryReport;
use super::topics::{identity, sync_dir};
use super::workers::{WorkerQueues, Workers, run_bulk_worker, run_space_worker};
use crate::clock::RunClock;
use crate::config::{RecoveryPolicy, WhenFull};
use crate::error::{Corruption, CorruptionKind, Error, Result};
use crate::format::{TopicId, parse_segment_file_name, partition_dir_name};
use crate::group::coordinator::Coordinator;
use crate::group::offsets::OffsetsState;
use crate::log::open::{Known, PartitionRecovery};
use crate::log::unavailable::damage_of;
use crate::log::{Log, LogEnv};
use crate::partition::PartitionCore;
use crate::partition::lineage::Lineage;
use crate::partition::state_log::StateLog;
use crate::partition::waiters::NotifierList;
use crate::record::TopicPartition;
use crate::rules::Rule;
use crate::storage::disk::{Disk, EntryKind};
use crate::storage::lock::DirLock;
use crate::sync::{AtomicBool, AtomicUsize, Mutex, Ordering, RwLock};
use crate::topic::TopicShared;
use crate::trace::note;

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

/// What is needed to open a broker.
pub(crate) struct Opening {
    pub(crate) settings: Settings,
    pub(crate) env: Arc<LogEnv>,
    pub(crate) clock: RunClock,
    pub(crate) background: bool,
    /// How long to wait for another holder of the directory.
    pub(crate) lock_wait: Duration,
    pub(crate) spawn: Arc<Spawn>,
    pub(crate) reseed: Box<dyn Fn(u64) + Send + Sync>,
}

impl Opening {
    pub(crate) fn run(self) -> Result<Arc<Engine>> {
        if self.settings.read_only { self.inspect() } else { self.attempt() }
    }

    pub(super) fn attempt(&self) -> Result<Arc<Engine>> {
        let disk = &*self.env.disk;
        let dir = &self.settings.dir;
        let meta = dir.join(META.0).join(partition_dir_name(0));
        let is_new = || has_segments(disk, &meta).map(|has_segments| !has_segments);
        if is_new()? && !self.settings.read_only {
            make_dirs(disk, dir)?;
        }
        let lock =
            self.settings.has_lock.then(|| DirLock::acquire(dir, self.lock_wait)).transpose()?;
        disk.bind(dir).map_err(|source| Error::io("open", dir, source))?;
        let (workers, queues) = Workers::new(self.background);
        let mut partitions = Vec::new();
        // Asked again: until the lock was held, another broker may have been at it.
        let is_new = is_new()?;
        let InternalLogs { local, offsets, catalog, was_closed, same_boot } =
            self.internal_logs(is_new, &workers, &mut partitions)?;
        let clean_shutdown = was_closed || is_new;
        let report = RecoveryReport { clean_shutdown, partitions, unknown: Vec::new() };
        let coordinator = self.coordinator(offsets, &workers);
        let engine = Engine {
            env: Arc::clone(&self.env),
            clock: self.clock.clone(),
            workers,
            topics: RwLock::new(HashMap::new()),
            admin: Mutex::new(()),
            catalog,
            local,
            coordinator,
            consumers: NotifierList::new(),
            producers: Mutex::new(HashMap::new()),
            recovery: report,
            lock: Mutex::new(lock),
            threads: Mutex::new(Vec::new()),
            closed: AtomicBool::new(false),
            points: Mutex::new(self.clock.monotonic()),
            dropping: Mutex::new(()),
            relieved: Mutex::new(None),
            expired: Expired::default(),
            clock_set: Mutex::default(),
            settings: self.settings.clone(),
        };
        let engine = self.open_topics(engine, clean_shutdown, same_boot)?;
        let engine = Arc::new(engine);
        engine.keep_compaction_spare();
        make_room_if_full(&engine);
        if self.background {
            engine.workers.follow(self.clock.clock());
            start_workers(&engine, queues, &self.spawn)?;
        }
        Ok(engine)
    }

    /// The coordinator, whose deadlines the workers watch.
    fn coordinator(
        &self,
        offsets: StateLog<OffsetsState>,
        workers: &Arc<Workers>,
    ) -> Arc<Coordinator> {
        let (clock, workers) = (self.clock.shared(), Arc::clone(workers));
        let on_deadline = move || workers.watch_members();
        Coordinator::new(offsets, clock, self.settings.read_only, on_deadline)
    }

    fn open_topics(&self, mut engine: Engine, clean: bool, same_boot: bool) -> Result<Engine> {
        let live = self.live_topics(&engine)?;
        let now = self.clock.began_at();
        let last_run = LastRun {
            clean,
            same_boot,
            has_all_starts: has_all_starts(&engine.recovery.partitions),
            now,
        };
        let jobs: Vec<(&TopicEntry, u32)> = live
            .iter()
            .flat_map(|entry| (0..entry.config.partitions).map(move |number| (entry, number)))
            .collect();
        let open_one = |(entry, number)| self.open_partition(&engine, entry, number, last_run);
        let mut opened = in_parallel(&jobs, open_one)?.into_iter();
        let mut topics: Vec<Arc<TopicShared>> = Vec::with_capacity(live.len());
        let mut recoveries = Vec::with_capacity(jobs.len());
        let mut changes = Vec::new();
        for entry in &live {
            let durability = engine.durability_of(&entry.config);
            let of_topic = opened.by_ref().take(entry.config.partitions as usize);
            let (partitions, reports): (Vec<_>, Vec<_>) = of_topic.unzip();
            let is_damaged = reports.iter().any(|(found, _)| !found.corrupt.is_empty());
            if is_damaged && self.settings.read_only {
                // The broker that writes may have deleted it since the catalog was read.
                if !self.deleted(&engine.workers, &[entry.id])?.is_empty() {
                    continue;
                }
            }
            for (recovery, of_partition) in reports {
                recoveries.push(recovery);
                changes.extend(of_partition);
            }
            topics.push(engine.shared_topic(entry, durability, partitions));
        }
        if !self.settings.read_only {
            // DURABILITY: before a record can get an offset that a dropped one had; otherwise a
            // later run could not tell for which of the two a consumer committed it.
            changes.extend(forgotten_topics(&engine));
            engine.local.append_durably(changes)?;
        }
        engine.recovery.partitions.extend(recoveries);
        engine.recovery.unknown = unknown_entries(&engine)?;
        for topic in topics {
            engine.coordinator.topic_changed(&topic.name, topic.config.partitions);
            engine.topics.write().insert(Arc::clone(&topic.name), topic);
        }
        engine.coordinator.restore();
        tell_of_opening(&engine);
        Ok(engine)
    }

    /// Opens one partition, with what was found and what `__local` is to say of it.
    fn open_partition(
        &self,
        engine: &Engine,
        entry: &TopicEntry,
        number: u32,
        run: LastRun,
    ) -> Result<OpenedPartition> {
        let durability = engine.durability_of(&entry.config);
        let identity = identity(&self.settings, entry, number);
        let origin = Arc::clone(&identity.origin);
        let options = engine.options(&entry.config, durability);
        let key = (entry.id, number);
        let known = self.known(&engine.local, key, run);
        let opened = if self.settings.read_only {
            self.look_at(&engine.workers, (&identity, options), Some(known.clone()))
        } else {
            Log::open(&self.env, identity.clone(), options, &known)
        };
        let (mut log, recovery, damage) = match opened {
            Ok((log, recovery)) => (log, recovery, None),
            // One topic's damage is that topic's: the others are opened.
            Err(error) if known.policy != RecoveryPolicy::Strict => {
                let damage = damage_of(&identity, &error).ok_or(error)?;
                let (log, recovery) =
                    Log::unavailable(&self.env, identity, options, &known, &damage);
                (log, recovery, Some(damage))
            }
            Err(error) => return Err(error),
        };
        let start = start_found(key, &known, &log);
        let (lineage, change) = lineage_of(engine, key, &mut log);
        let changes = change.into_iter().chain(start).collect::<Vec<_>>();
        let core = engine.partition_core(log, lineage, origin, durability, damage);
        Ok((core, (recovery, changes)))
    }

    /// What is known of a partition before it is opened.
    pub(super) fn known(
        &self,
        local: &StateLog<LocalState>,
        key: (TopicId, u32),
        run: LastRun,
    ) -> Known {
        // A log start is recorded before anything is removed: without one, nothing was.
        let nothing_was_removed = run.has_all_starts.then_some(0);
        let (checkpoint, log_start) = local.read(|local| {
            let log_start = local.log_starts.get(&key).copied().or(nothing_was_removed);
            (local.points.get(&key).cloned(), log_start)
        });
        Known {
            checkpoint,
            clean: run.clean,
            same_boot: run.same_boot,
            policy: self.settings.recovery,
            read_only: self.settings.read_only,
            needs_all: false,
            log_start,
            proved: 0,
            now: run.now,
        }
    }

    /// The topics there are, once what a crash interrupted is finished: a creation or growth is
    /// undone, a deletion carried on, all by removing what bears the topic's id.
    fn live_topics(&self, engine: &Engine) -> Result<Vec<TopicEntry>> {
        let entries: Vec<(TopicEntry, Stage)> =
            engine.catalog.read(|catalog| catalog.topics.values().cloned().collect());
        let mut live = Vec::new();
        for (entry, stage) in entries {
            let (entry, stage) = engine.stage_by_files(entry, stage)?;
            match stage {
                Stage::Live => live.push(entry),
                Stage::Growing(_) if self.settings.read_only => live.push(entry),
                Stage::Growing(total) => {
                    match engine.undo_growth(&entry, total) {
                        Err(error) if error.is_fatal() => return Err(error),
                        _ => {}
                    }
                    live.push(entry);
                }
                Stage::Creating | Stage::Deleting if self.settings.read_only => {}
                Stage::Creating | Stage::Deleting => {
                    match engine.forget_topic(&entry.name, entry.id) {
                        Err(error) if error.is_fatal() => return Err(error),
                        // What cannot be removed is tried again every minute, and keeps nobody
                        // from the other topics.
                        _ => {}
                    }
                }
            }
        }
        Ok(live)
    }
}

type OpenedPartition = (Arc<PartitionCore>, (PartitionRecovery, Vec<LocalChange>));

/// What the opening of a partition has to know of the run before, and the time.
#[derive(Clone, Copy)]
pub(super) struct LastRun {
    pub(super) clean: bool,
    pub(super) same_boot: bool,
    pub(super) has_all_starts: bool,
    pub(super) now: u64,
}

/// Whether every log start that was ever recorded is known. Nothing proves where the record of this
/// machine ended: what was cut off there may be rot in what was durable.
pub(super) fn has_all_starts(found: &[PartitionRecovery]) -> bool {
    let is_cut = |found: &PartitionRecovery| *found.topic == *LOCAL.0 && found.cut_bytes > 0;
    !found.iter().any(is_cut)
}

/// The log start of a partition of which none is known, to be recorded: the next opening cannot see
/// that the record of it was lost.
fn start_found(
    (topic, partition): (TopicId, u32),
    known: &Known,
    log: &Log,
) -> Option<LocalChange> {
    let offset = log.log_start();
    (known.log_start.is_none() && offset > 0).then_some(LocalChange::LogStart {
        topic,
        partition,
        offset,
    })
}

/// Has the oldest records make room for new ones, or new ones wait for it, where that is wanted.
fn make_room_if_full(engine: &Arc<Engine>) {
    let weak = Arc::downgrade(engine);
    match engine.settings.when_full {
        WhenFull::Refuse => {}
        WhenFull::DropOldest => engine.workers.set_room(move |core, want| {
            Ok(weak.upgrade().is_some_and(|engine| engine.make_room(core, want)))
        }),
        WhenFull::Wait { at_most } => engine.workers.set_room(move |core, want| {
            weak.upgrade().map_or(Ok(false), |engine| engine.wait_for_room(core, want, at_most))
        }),
    }
}

/// Makes events of what the report says.
fn tell_of_opening(engine: &Engine) {
    let (trace, report) = (&engine.env.trace, &engine.recovery);
    for found in &report.partitions {
        let (end_offset, cut_bytes) = (found.end_offset, found.cut_bytes);
        if cut_bytes > 0 {
            let partition = (&*found.topic, found.partition).into();
            note!(trace, TailCut { partition, end_offset, cut_bytes });
        }
        for corruption in &found.corrupt {
            note!(trace, Corruption(corruption.clone()));
        }
    }
    note!(
        trace,
        Opened {
            dir: engine.settings.dir.clone(),
            clean_shutdown: report.clean_shutdown,
            partitions: report.partitions.len(),
        }
    );
    trace.deliver();
}

/// The incarnations of a log that was just opened, and what is to be recorded of them.
fn lineage_of(
    engine: &Engine,
    (topic, partition): (TopicId, u32),
    log: &mut Log,
) -> (Lineage, Option<LocalChange>) {
    let known = engine.local.read(|local| local.lineages.get(&(topic, partition)).cloned());
    let mut lineage = known.unwrap_or_default();
    if log.is_new_incarnation() {
        lineage.begin(log.incarnation(), log.log_end());
        let change = LocalChange::Lineage { topic, partition, lineage: lineage.clone() };
        return (lineage, Some(change));
    }
    if let Some(current) = lineage.current() {
        log.continue_incarnation(current);
    }
    (lineage, None)
}

/// What is known of topics that the catalog does not know: noted while one was deleted.
fn forgotten_topics(engine: &Engine) -> Vec<LocalChange> {
    let live: BTreeSet<TopicId> =
        engine.catalog.read(|catalog| catalog.topics.keys().copied().collect());
    let known = engine.local.read(LocalState::topics);
    known.difference(&live).map(|id| LocalChange::TopicGone(*id)).collect()
}

fn start_workers(engine: &Arc<Engine>, queues: WorkerQueues, spawn: &Arc<Spawn>) -> Result<()> {
    let queues = Arc::new(queues);
    let start_helper = {
        let (engine, spawn) = (Arc::clone(engine), Arc::clone(spawn));
        move || {
            let engine = Arc::clone(&engine);
            spawn("logpond-sync", Box::new(move || engine.workers.help(&engine.env.trace)))
        }
    };
    let space: Box<dyn FnOnce() + Send> = {
        let (engine, queues) = (Arc::clone(engine), Arc::clone(&queues));
        let start_helper = start_helper.clone();
        Box::new(move || {
            let evict_overdue = || engine.coordinator.evict_overdue();
            let (clock, trace) = (engine.clock.clock(), &engine.env.trace);
            run_space_worker(&queues, clock, trace, evict_overdue, start_helper);
        })
    };
    let bulk: Box<dyn FnOnce() + Send> = {
        let engine = Arc::clone(engine);
        let opened = *engine.points.lock();
        Box::new(move || {
            let (clock, trace) = (engine.clock.clock(), &engine.env.trace);
            run_bulk_worker(&queues, clock, opened, trace, &*engine, start_helper);
        })
    };
    for (name, run) in [("logpond-space", space), ("logpond-bulk", bulk)] {
        match spawn(name, run) {
            Ok(thread) => engine.threads.lock().push(thread),
            Err(source) => {
                // What runs has the engine, and with it the directory: it is over before the error
                // is returned, so that the next attempt finds the directory free.
                engine.end_threads();
                return Err(Error::io("start a thread for", &engine.settings.dir, source));
            }
        }
    }
    Ok(())
}

/// Runs `work` over `jobs` on as many threads as the machine has, in the order of the jobs.
fn in_parallel<J: Copy + Sync, R: Send>(
    jobs: &[J],
    work: impl Fn(J) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    // LIMIT: below this many partitions a thread costs more than it saves.
    const JOBS_PER_THREAD: usize = 4;
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.min(jobs.len() / JOBS_PER_THREAD);
    if threads < 2 {
        return jobs.iter().map(|job| work(*job)).collect();
    }
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        while let Some((index, job)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            jobs.get(index).map(|job| (index, *job))
        } {
            done.push((index, work(job)));
        }
        done
    };
    let mut results: Vec<(usize, Result<R>)> = thread::scope(|scope| {
        // One is this thread itself, which does all of it where no other can be had.
        let spawn = |_| thread::Builder::new().spawn_scoped(scope, worker).ok();
        let workers: Vec<_> = (1..threads).map_while(spawn).collect();
        let own = worker();
        let join = |worker: thread::ScopedJoinHandle<'_, _>| match worker.join() {
            Ok(results) => results,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        workers.into_iter().flat_map(join).chain(own).collect()
    });
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Creates a directory and its missing parents, from the top down, each durable in the one that
/// holds it. Those that were found too: whoever made them may have died before they were.
fn make_dirs(disk: &dyn Disk, dir: &Path) -> Result<()> {
    let above: Vec<&Path> = dir.ancestors().filter(|dir| !dir.as_os_str().is_empty()).collect();
    for dir in above.into_iter().rev() {
        let Some(parent) = dir.parent() else { continue };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        let is_made = make_dir(disk, dir)?;
        match Rule::DataDirName.keep(|| sync_dir(disk, parent)) {
            Err(Error::Io { source, .. }) if !is_made && is_not_ours(source.kind()) => {}
            settled => settled?,
        }
    }
    check_dir(disk, dir)
}

/// Whether an error says that a directory cannot have been made by us.
fn is_not_ours(error: ErrorKind) -> bool {
    matches!(error, ErrorKind::PermissionDenied | ErrorKind::InvalidInput | ErrorKind::Unsupported)
}

/// Creates a directory if nothing has its name. Whether it did.
pub(super) fn make_dir(disk: &dyn Disk, dir: &Path) -> Result<bool> {
    let found = disk.kind(dir).map_err(|source| Error::io("look at", dir, source))?;
    if found.is_some() {
        return Ok(false);
    }
    match disk.create_dir(dir) {
        Err(source) if source.kind() == ErrorKind::AlreadyExists => Ok(false),
        made => made.map(|()| true).map_err(|source| Error::io("create", dir, source)),
    }
}

fn check_dir(disk: &dyn Disk, dir: &Path) -> Result<()> {
    match disk.kind(dir).map_err(|source| Error::io("look at", dir, source))? {
        Some(EntryKind::Directory) => Ok(()),
        // A link to a directory is where the user wants the data; what it leads to is checked by
        // everything that is done in it.
        Some(EntryKind::Other) if disk.list(dir).is_ok() => Ok(()),
        _ => Err(Error::io("open", dir, ErrorKind::NotADirectory.into())),
    }
}

/// Whether a log was ever begun in a directory. One that cannot be read is not an empty one: a new
/// log in it would be the end of what is there.
pub(super) fn has_segments(disk: &dyn Disk, dir: &Path) -> Result<bool> {
    let is_segment = |name: &str| parse_segment_file_name(name).is_some();
    match disk.list(dir) {
        Ok(entries) => Ok(entries.iter().any(|entry| is_segment(&entry.name))),
        Err(source) if is_absent(source.kind()) => Ok(false),
        Err(source) => Err(Error::io("list", dir, source)),
    }
}

fn is_absent(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// The directory of an internal log is not there.
pub(super) fn missing(log: &str, dir: &Path) -> Corruption {
    Corruption {
        partition: Some(TopicPartition::from((log, 0))),
        file: dir.to_path_buf(),
        position: 0,
        offsets: None,
        kind: CorruptionKind::Missing,
    }
}

/// What lies in the directory and belongs to no topic. It is left alone.
fn unknown_entries(engine: &Engine) -> Result<Vec<PathBuf>> {
    let dir = &engine.settings.dir;
    let entries = engine.env.disk.list(dir).map_err(|source| Error::io("list", dir, source))?;
    Ok(engine.catalog.read(|catalog| {
        let topics = catalog.topics.values().map(|(entry, _)| &*entry.name);
        let known: HashSet<&str> = topics.chain(INTERNAL_NAMES).collect();
        let unknown = entries.into_iter().filter(|entry| !known.contains(&*entry.name));
        unknown.map(|entry| dir.join(entry.name)).collect()
    }))
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;

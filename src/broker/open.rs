//! Opens a broker: lock, internal logs, interrupted work, partitions, workers; in this order.
//!
//! Owns: that order, and how the parts of a run are composed. Must not know: handles.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::catalog::TopicEntry;
use super::context::{Context, Settings};
use super::directories::{has_segments, make_dirs};
use super::engine::Engine;
use super::gate::Gate;
use super::inspect::{Inspector, settled};
use super::internal_logs::{INTERNAL_NAMES, InternalLogs, LOCAL, META, OFFSETS};
use super::last_run::{LastRun, has_all_starts};
use super::local::{LocalChange, LocalState};
use super::log_opener::{FoundLogs, LogOpener};
use super::parallel::in_parallel;
use super::report::RecoveryReport;
use super::topic_factory::OpenedPartition;
use super::workers::{Spawn, WorkerQueues, Workers, run_bulk_worker, run_space_worker};
use crate::error::{Error, Result};
use crate::format::{TopicId, partition_dir_name};
use crate::group::coordinator::Coordinator;
use crate::group::offsets::OffsetsState;
use crate::log::open::open_log;
use crate::partition::PartitionCore;
use crate::partition::state_log::StateLog;
use crate::storage::lock::DirLock;
use crate::topic::TopicShared;

/// What is needed to open a broker.
pub(crate) struct Opening {
    pub(crate) context: Arc<Context>,
    pub(crate) background: bool,
    /// How long to wait for another holder of the directory.
    pub(crate) lock_wait: Duration,
    pub(crate) spawn: Arc<Spawn>,
    pub(crate) reseed: Box<dyn Fn(u64) + Send + Sync>,
}

/// An open engine, and the report of the opening.
pub(crate) type Opened = (Arc<Engine>, RecoveryReport);

impl Opening {
    pub(crate) fn run(self) -> Result<Opened> {
        if self.settings().read_only { self.inspect() } else { self.attempt() }
    }

    fn settings(&self) -> &Settings {
        &self.context.settings
    }

    /// Opens a read-only broker.
    fn inspect(self) -> Result<Opened> {
        let fault = |opened: &Result<_>| opened.as_ref().err().map(|error| format!("{error:?}"));
        let (engine, report) = settled(|_| self.attempt(), fault)?;
        let weak = Arc::downgrade(&engine);
        engine.workers().set_read_again(move |core| {
            // The internal logs are read in a pass, which is repeated as a whole: a pass within it
            // would wait for itself.
            if [LOCAL.0, OFFSETS.0, META.0].contains(&&*core.origin.topic) {
                return false;
            }
            let Some(engine) = Weak::upgrade(&weak) else { return false };
            let _one_at_a_time = engine.logs().looks().lock();
            read_again(&engine, core)
        });
        Ok((engine, report))
    }

    fn attempt(&self) -> Result<Opened> {
        let (disk, dir) = (&*self.context.env.disk, &self.settings().dir);
        let meta = dir.join(META.0).join(partition_dir_name(0));
        let is_new = || has_segments(disk, &meta).map(|has_segments| !has_segments);
        if is_new()? && !self.settings().read_only {
            make_dirs(disk, dir)?;
        }
        let has_lock = self.settings().has_lock;
        let lock = has_lock.then(|| DirLock::acquire(dir, self.lock_wait)).transpose()?;
        disk.bind(dir).map_err(|source| Error::io("open", dir, source))?;
        let (workers, queues) = Workers::new(self.background);
        let opener = LogOpener::new(&self.context, &workers);
        let mut partitions = Vec::new();
        // Read again: another broker may have changed the directory before the lock was held.
        let is_new = is_new()?;
        let FoundLogs { local, offsets, catalog, was_closed, same_boot } =
            opener.open_all(is_new, &*self.reseed, &mut partitions)?;
        let clean_shutdown = was_closed || is_new;
        let mut report = RecoveryReport { clean_shutdown, partitions, unknown: Vec::new() };
        let coordinator = self.coordinator(offsets, &workers);
        let logs = Arc::new(InternalLogs::new(local, catalog, coordinator));
        let gate = Arc::new(Gate::new(&self.context, lock));
        let engine = Engine::new(Arc::clone(&self.context), gate, workers, logs);
        self.open_topics(&engine, same_boot, &mut report)?;
        let engine = Arc::new(engine);
        engine.space().keep_compaction_spare();
        engine.space().serve_appends();
        if self.background {
            engine.workers().follow(self.context.clock.clock());
            start_workers(&engine, queues, &self.spawn)?;
        }
        Ok((engine, report))
    }

    /// The coordinator, whose deadlines the workers watch.
    fn coordinator(
        &self,
        offsets: StateLog<OffsetsState>,
        workers: &Arc<Workers>,
    ) -> Arc<Coordinator> {
        let (clock, workers) = (self.context.clock.shared(), Arc::clone(workers));
        let on_deadline = move || workers.watch_members();
        Coordinator::new(
            offsets,
            clock,
            self.settings().read_only,
            &self.context.lead(),
            on_deadline,
        )
    }

    fn open_topics(
        &self,
        engine: &Engine,
        same_boot: bool,
        report: &mut RecoveryReport,
    ) -> Result<()> {
        let (logs, factory) = (engine.logs(), engine.topics().factory());
        let entries = engine.topics().recover()?;
        let last_run = LastRun {
            clean: report.clean_shutdown,
            same_boot,
            has_all_starts: has_all_starts(&report.partitions),
            now: self.context.clock.began_at(),
        };
        let jobs: Vec<(&TopicEntry, u32)> = entries
            .iter()
            .flat_map(|entry| (0..entry.config.partitions).map(move |number| (entry, number)))
            .collect();
        let open_one = |(entry, number)| self.open_partition(engine, entry, number, last_run);
        let mut opened = in_parallel(&jobs, open_one)?.into_iter();
        let mut topics: Vec<Arc<TopicShared>> = Vec::with_capacity(entries.len());
        let mut changes = Vec::new();
        for entry in &entries {
            let of_topic = opened.by_ref().take(entry.config.partitions as usize);
            let (partitions, found): (Vec<_>, Vec<_>) = of_topic.unzip();
            let is_damaged = found.iter().any(|(found, _)| !found.corrupt.is_empty());
            if is_damaged && self.settings().read_only {
                // The writing broker may have deleted the topic since the catalog was read.
                if !inspector(engine).deleted(&[entry.id])?.is_empty() {
                    continue;
                }
            }
            for (recovery, of_partition) in found {
                report.partitions.push(recovery);
                changes.extend(of_partition);
            }
            topics.push(factory.shared_topic(entry, partitions));
        }
        if !self.settings().read_only {
            // DURABILITY: this is durable before a record can get an offset that a dropped record
            // had. Otherwise a later run could not distinguish which of the two a consumer has
            // committed.
            changes.extend(forgotten_topics(logs));
            logs.local().append_durably(changes)?;
        }
        report.unknown = unknown_entries(&self.context, logs)?;
        for topic in topics {
            logs.coordinator().topic_changed(&topic.name, topic.config.partitions);
            engine.live().insert(topic);
        }
        if !self.context.lead().is_member() {
            logs.coordinator().restore();
        }
        report.note(&self.context.env.trace, &self.settings().dir);
        Ok(())
    }

    /// Opens one partition. Returns it with its report and the entries to add to `__local`.
    fn open_partition(
        &self,
        engine: &Engine,
        entry: &TopicEntry,
        number: u32,
        last_run: LastRun,
    ) -> Result<OpenedPartition> {
        let (logs, factory) = (engine.logs(), engine.topics().factory());
        let stored = factory.stored_partition(logs, entry, number, last_run);
        let (identity, options, known) = (&stored.identity, stored.options, &stored.known);
        let opened = if self.settings().read_only {
            inspector(engine).open_log((identity, options), Some(known.clone()))
        } else {
            open_log(&self.context.env, identity.clone(), options, known)
        };
        factory.found_partition(logs, stored, opened)
    }
}

pub(super) fn inspector(engine: &Engine) -> Inspector {
    Inspector::new(engine.context(), LogOpener::new(engine.context(), engine.workers()))
}

/// Called when a read has failed: opens the partition's log again. Returns whether the read is to
/// be repeated.
fn read_again(engine: &Engine, core: &PartitionCore) -> bool {
    let inspector = inspector(engine);
    let (identity, options) =
        core.with_log(|log| (log.factory().identity().clone(), log.factory().options()));
    match inspector.open_log((&identity, options), None) {
        Ok((log, report)) if report.corrupt.is_empty() => {
            core.with_log(|known| known.take_over(log, false));
            true
        }
        looked => {
            let id = identity.topic_id;
            if inspector.deleted(&[id]).is_ok_and(|deleted| !deleted.is_empty()) {
                engine.topics().note_deletion_elsewhere(id, &core.origin.topic);
                return true;
            }
            // A log with damage that readers can pass is taken too.
            looked.map(|(log, _)| core.with_log(|known| known.take_over(log, false))).is_ok()
        }
    }
}

/// Entries for the removal of topics that the catalog does not have: recorded while one was
/// deleted.
fn forgotten_topics(logs: &InternalLogs) -> Vec<LocalChange> {
    if !logs.catalog().is_whole() {
        return Vec::new();
    }
    let mut live: BTreeSet<TopicId> =
        logs.catalog().read(|catalog| catalog.topics.keys().copied().collect());
    live.extend([META.1, OFFSETS.1]);
    let known = logs.local().read(LocalState::topics);
    known.difference(&live).map(|id| LocalChange::TopicGone(*id)).collect()
}

fn start_workers(engine: &Arc<Engine>, queues: WorkerQueues, spawn: &Arc<Spawn>) -> Result<()> {
    let queues = Arc::new(queues);
    engine.workers().serve_readers(spawn);
    let start_helper = {
        let (engine, spawn) = (Arc::clone(engine), Arc::clone(spawn));
        move || {
            let engine = Arc::clone(&engine);
            spawn(
                "logpond-sync",
                Box::new(move || engine.workers().help(&engine.context().env.trace)),
            )
        }
    };
    let space: Box<dyn FnOnce() + Send> = {
        let (engine, queues) = (Arc::clone(engine), Arc::clone(&queues));
        let start_helper = start_helper.clone();
        Box::new(move || {
            let evict_overdue = || engine.coordinator().evict_overdue();
            let (clock, trace) = (engine.clock().clock(), &engine.context().env.trace);
            run_space_worker(&queues, clock, trace, evict_overdue, start_helper);
        })
    };
    let bulk: Box<dyn FnOnce() + Send> = {
        let engine = Arc::clone(engine);
        let opened = engine.points().last_written();
        Box::new(move || {
            let (clock, trace) = (engine.clock().clock(), &engine.context().env.trace);
            run_bulk_worker(&queues, clock, opened, trace, &*engine, start_helper);
        })
    };
    for (name, run) in [("logpond-space", space), ("logpond-bulk", bulk)] {
        match spawn(name, run) {
            Ok(thread) => engine.workers().keep_thread(thread),
            Err(source) => {
                // A worker that runs has the engine, and with it the directory lock. It ends before
                // the error is returned, so that the next attempt finds the directory free.
                engine.workers().stop_and_join();
                return Err(Error::io(
                    "start a thread for",
                    &engine.context().settings.dir,
                    source,
                ));
            }
        }
    }
    Ok(())
}

/// The files in the directory that belong to no topic. They are not touched.
fn unknown_entries(context: &Context, logs: &InternalLogs) -> Result<Vec<PathBuf>> {
    let dir = &context.settings.dir;
    let entries = context.env.disk.list(dir).map_err(|source| Error::io("list", dir, source))?;
    Ok(logs.catalog().read(|catalog| {
        let topics = catalog.topics.values().map(|(entry, _)| &*entry.name);
        let known: HashSet<&str> = topics.chain(INTERNAL_NAMES).collect();
        let unknown = entries.into_iter().filter(|entry| !known.contains(&*entry.name));
        unknown.map(|entry| dir.join(entry.name)).collect()
    }))
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;

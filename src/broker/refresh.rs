//! A refresh of a read-only broker: what another broker has written since the last one.
//!
//! Owns: the order. `__local` first, because it says where logs begin; then the catalog and the
//! committed offsets; then the topics, and then the records of each partition. What the writer
//! changes in between is for the next refresh. A file that vanishes meanwhile, and a batch that is
//! not whole, are no damage ([`inspect`](super::inspect)).
//!
//! Must not know: what the files mean.
//!
//! The lock of the looks is held throughout. Application code is called after it is released.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::catalog::TopicEntry;
use super::engine::Engine;
use super::inspect::{Inspector, Looked};
use super::internal_logs::{LOCAL, META, OFFSETS};
use super::last_run::LastRun;
use super::local::LocalState;
use super::looks::Looks;
use super::open::inspector;
use super::parallel::in_parallel;
use super::report::Refreshed;
use super::topics::watched;
use crate::error::{Error, Result};
use crate::foreign;
use crate::format::TopicId;
use crate::log::unavailable::damage_of;
use crate::log::{LogIdentity, LogOptions};
use crate::partition::PartitionCore;
use crate::record::TopicPartition;
use crate::trace::note;

/// Brings a read-only broker up to date. Does nothing in one that writes. Returns what was found since
/// the last call that returned something.
///
/// # Errors
///
/// [`Error::Closed`]; those of the disk; damage of an internal log.
pub(super) fn refresh(engine: &Engine) -> Result<Refreshed> {
    refresh_unreported(engine)?;
    Ok(std::mem::take(engine.logs().looks().lock().unreported()))
}

/// The same for a caller who does not want to know: the next one is given what was found.
///
/// # Errors
///
/// As [`refresh`].
pub(super) fn refresh_unreported(engine: &Engine) -> Result<()> {
    engine.gate().check_open()?;
    if !engine.context().settings.read_only {
        return Ok(());
    }
    let _held = (foreign::hold_back(), engine.context().env.trace.deliver_at_end());
    let mut looks = engine.logs().looks().lock();
    let mut refreshed = Refreshed::default();
    let refresh = Refresh { engine, inspector: inspector(engine) };
    let result = refresh.run(&mut looks, &mut refreshed);
    if !refreshed.available.is_empty() || !refreshed.truncated.is_empty() {
        // A reader does not wait for a partition that is unavailable.
        engine.gate().consumers().call_all();
    }
    looks.unreported().add(refreshed);
    if let Err(closed) = engine.gate().check_open() {
        // Topics may have been found after the close had ended all.
        engine.end_handles();
        return Err(closed);
    }
    result
}

/// After an opening, which reads `__local` before the logs. If another broker has recovered logs in
/// between, some were opened with what it has appended since, and the first refresh would take that for
/// records that were cut. Nobody has read anything yet.
pub(super) fn settle_opening(engine: &Engine) {
    if !engine.context().settings.read_only {
        return;
    }
    let mut looks = engine.logs().looks().lock();
    let refresh = Refresh { engine, inspector: inspector(engine) };
    let before = refresh.incarnations();
    refresh.note_opened(&mut looks, &before);
    // What fails here, the first refresh returns.
    let local = refresh.inspector.catch_up(LOCAL, engine.logs().local(), &mut looks);
    if local.is_ok() && refresh.incarnations() != before {
        let _ = refresh.run(&mut looks, &mut Refreshed::default());
    }
}

struct Refresh<'a> {
    engine: &'a Engine,
    inspector: Inspector,
}

/// What became of a partition.
enum Outcome {
    Unchanged,
    Looked(Box<Looked>),
    Failed(Error),
}

type Job<'a> = (TopicId, &'a Arc<PartitionCore>);

/// A partition that a look has found damaged or cut, and to which offset it was cut.
type Failed<'a> = (Job<'a>, Outcome, Option<u64>);

/// Of each log that was ever recovered, the last incarnation.
type Incarnations = BTreeMap<(TopicId, u32), u64>;

impl Refresh<'_> {
    fn run(&self, looks: &mut Looks, refreshed: &mut Refreshed) -> Result<()> {
        let logs = self.engine.logs();
        self.note_opened(looks, &self.incarnations());
        self.inspector.catch_up(LOCAL, logs.local(), looks)?;
        let known_now = self.incarnations();
        self.inspector.catch_up(META, logs.catalog(), looks)?;
        self.inspector.catch_up(OFFSETS, self.engine.coordinator().offsets().log(), looks)?;
        let last_run = self.inspector.last_run(logs.local(), looks);
        let before = self.engine.live().all();
        let open = |entry: &TopicEntry, numbers| self.open(entry, numbers, last_run);
        watched::follow(self.engine.topics(), &open, refreshed)?;
        self.note_opened(looks, &known_now);
        let is_live = |id| self.engine.live().of_id(id).is_some();
        looks.retain(|id| is_live(id) || [LOCAL.1, META.1, OFFSETS.1].contains(&id));
        let known = before.iter().filter(|topic| is_live(topic.id));
        let jobs: Vec<Job<'_>> = known
            .flat_map(|topic| topic.partitions.iter().map(move |core| (topic.id, core)))
            .filter(|(_, core)| !core.is_closed())
            .collect();
        let outcomes = in_parallel(&jobs, |job| Ok(self.look(job, looks, last_run)))?;
        // What was read may be newer than what `__local` said before. Cuts are noted there before
        // the first append, so they are judged by what it said before and after.
        self.inspector.catch_up(LOCAL, logs.local(), looks)?;
        let known_later = self.incarnations();
        let mut failed = Vec::new();
        for (job, outcome) in jobs.into_iter().zip(outcomes) {
            let (id, core) = job;
            let key = (id, core.origin.partition);
            match outcome {
                Outcome::Unchanged => {
                    self.raise_start(job);
                    looks.note_taken(key, incarnation_of(&known_now, key));
                }
                // Recovered at this moment: the next refresh looks again.
                Outcome::Looked(_) if known_now.get(&key) != known_later.get(&key) => {}
                Outcome::Looked(looked) if !core.is_available() => {
                    self.report(&looked, refreshed); // of one that is back
                    self.reopen(job, (*looked, None, last_run), looks)?;
                    looks.note_taken(key, incarnation_of(&known_now, key));
                    refreshed.available.push(TopicPartition::clone(&core.origin));
                }
                Outcome::Looked(looked) => {
                    let cut = self.cut_of(job, &looked, looks.taken(key));
                    if cut.is_none() && looked.report.corrupt.is_empty() {
                        take(job, *looked, looks, refreshed);
                        looks.note_taken(key, incarnation_of(&known_now, key));
                    } else {
                        failed.push((job, Outcome::Looked(looked), cut));
                    }
                }
                Outcome::Failed(_) if !core.is_available() => {}
                failure @ Outcome::Failed(_) => failed.push((job, failure, None)),
            }
        }
        self.explain(failed, (last_run, &known_now), looks, refreshed)
    }

    /// Notes under which incarnations logs were opened whose ends no refresh has taken over yet.
    fn note_opened(&self, looks: &mut Looks, known: &Incarnations) {
        for topic in self.engine.live().all() {
            for core in &topic.partitions {
                let key = (topic.id, core.origin.partition);
                looks.note_opened(key, incarnation_of(known, key));
            }
        }
    }

    fn incarnations(&self) -> Incarnations {
        let of = |local: &LocalState| {
            let known = local.lineages.iter().filter_map(|(key, it)| Some((*key, it.current()?)));
            known.collect()
        };
        self.engine.logs().local().read(of)
    }

    /// To which offset a log was cut below what this broker has seen of it. A log end only rises
    /// otherwise. `seen`: the last incarnation when its end was seen.
    fn cut_of(&self, (id, core): Job<'_>, looked: &Looked, seen: u64) -> Option<u64> {
        let end = core.log_end();
        let key = (id, core.origin.partition);
        let noted =
            self.engine.logs().local().read(|local| local.lineages.get(&key)?.cut_below(end, seen));
        let lower = Some(looked.log.log_end()).filter(|now| *now < end);
        noted.into_iter().chain(lower).min()
    }

    /// Opens a partition again: it was unavailable, or was cut.
    fn reopen(
        &self,
        (id, core): Job<'_>,
        (looked, cut, last_run): (Looked, Option<u64>, LastRun),
        looks: &mut Looks,
    ) -> Result<()> {
        let engine = self.engine;
        let Some(topic) = engine.live().of_id(id) else { return Ok(()) };
        let number = core.origin.partition;
        let entry = TopicEntry { name: Arc::clone(&topic.name), id, config: topic.config.clone() };
        let factory = engine.topics().factory();
        let stored = factory.stored_partition(engine.logs(), &entry, number, last_run);
        let mut lineage = core.log().lineage().clone();
        if let Some(cut) = cut {
            lineage.begin((engine.context().env.random)(), cut);
        }
        let Looked { log, seen, .. } = looked;
        let core = factory.reopened_partition(&stored, lineage, log);
        watched::exchange(engine.topics(), &topic, core)?;
        looks.note((id, number), seen);
        Ok(())
    }

    /// Opens partitions that this broker has not seen before.
    fn open(
        &self,
        entry: &TopicEntry,
        numbers: Range<u32>,
        last_run: LastRun,
    ) -> Result<Option<Vec<Arc<PartitionCore>>>> {
        let (logs, factory) = (self.engine.logs(), self.engine.topics().factory());
        let (mut cores, mut is_damaged) = (Vec::new(), false);
        for number in numbers {
            let stored = factory.stored_partition(logs, entry, number, last_run);
            let log = (&stored.identity, stored.options);
            let looked = self.inspector.look_again(log, None, stored.known.clone());
            let Some(looked) = looked else { continue };
            let opened = looked.map(|it| (it.log, it.report));
            let (core, (report, _)) = factory.found_partition(logs, stored, opened)?;
            is_damaged |= !report.corrupt.is_empty();
            cores.push(core);
        }
        // The writing broker may have deleted the topic since the catalog was read.
        if is_damaged && !self.inspector.deleted(&[entry.id])?.is_empty() {
            return Ok(None);
        }
        Ok(Some(cores))
    }

    fn look(&self, (id, core): Job<'_>, looks: &Looks, last_run: LastRun) -> Outcome {
        let (identity, options) = of_log(core);
        let key = (id, core.origin.partition);
        let known =
            last_run.known(&self.engine.context().settings, self.engine.logs().local(), key);
        // An unavailable partition has nothing that was seen.
        let seen = looks.seen(key).filter(|_| core.is_available());
        match self.inspector.look_again((&identity, options), seen, known) {
            None => Outcome::Unchanged,
            Some(Ok(looked)) => Outcome::Looked(Box::new(looked)),
            Some(Err(error)) => Outcome::Failed(error),
        }
    }

    /// Records were deleted from a log, and none of its files.
    fn raise_start(&self, (id, core): Job<'_>) {
        let key = (id, core.origin.partition);
        let start = self.engine.logs().local().read(|it| it.log_starts.get(&key).copied());
        if let Some(start) = start.filter(|start| *start > core.log_start()) {
            core.with_log(|log| log.retire(start, 0));
        }
    }

    /// Reports the damage that a look has found.
    fn report(&self, looked: &Looked, refreshed: &mut Refreshed) {
        for damage in &looked.report.corrupt {
            note!(self.engine.context().env.trace, Corruption(damage.clone()));
        }
        refreshed.corrupt.extend(looked.report.corrupt.iter().cloned());
    }

    /// Damage, and a cut, are none if the topic is deleted by now.
    fn explain(
        &self,
        failed: Vec<Failed<'_>>,
        (last_run, known_now): (LastRun, &Incarnations),
        looks: &mut Looks,
        refreshed: &mut Refreshed,
    ) -> Result<()> {
        if failed.is_empty() {
            return Ok(());
        }
        let ids: Vec<TopicId> = failed.iter().map(|((id, _), ..)| *id).collect();
        let deleted = self.inspector.deleted(&ids)?;
        let mut result = Ok(());
        for (job, outcome, cut) in failed {
            let (id, core) = job;
            if deleted.contains(&id) {
                if !core.is_closed() {
                    self.engine.topics().note_deletion_elsewhere(id, &core.origin.topic);
                    refreshed.deleted.push(core.origin.topic.to_string());
                }
                continue;
            }
            match outcome {
                Outcome::Unchanged => {}
                Outcome::Looked(looked) => {
                    self.report(&looked, refreshed);
                    if cut.is_some() {
                        self.reopen(job, (*looked, cut, last_run), looks)?;
                        refreshed.truncated.push(TopicPartition::clone(&core.origin));
                    } else {
                        // Readers can pass it, and report it when they do.
                        take(job, *looked, looks, refreshed);
                    }
                    let key = (id, core.origin.partition);
                    looks.note_taken(key, incarnation_of(known_now, key));
                }
                Outcome::Failed(error) => match damage_of(&of_log(core).0, &error) {
                    Some(damage) => refreshed.corrupt.push(damage),
                    None => result = result.and(Err(error)),
                },
            }
        }
        result
    }
}

fn of_log(core: &PartitionCore) -> (LogIdentity, LogOptions) {
    core.with_log(|log| (log.factory().identity().clone(), log.factory().options()))
}

/// 0 for a log that was never recovered.
fn incarnation_of(known: &Incarnations, key: (TopicId, u32)) -> u64 {
    known.get(&key).copied().unwrap_or(0)
}

/// Takes over what a look at a partition has found.
fn take((id, core): Job<'_>, looked: Looked, looks: &mut Looks, refreshed: &mut Refreshed) {
    let before = core.log_end();
    core.reader().catch_up(looked.log);
    let appended = core.log_end().saturating_sub(before);
    refreshed.records = refreshed.records.saturating_add(appended);
    looks.note((id, core.origin.partition), looked.seen);
}

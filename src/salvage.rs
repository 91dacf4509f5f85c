//! Salvage: a copy of what is readable in a damaged directory.
//!
//! Owns: what of a directory goes into the copy, and the report of it. Must not know: how a
//! partition is read around damage and written (`log::salvage`), and how a broker takes over
//! topics (`broker::restore`). The source is only read; the copy is written by the engine itself,
//! as any broker's directory.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use self::state::State;
use self::survey::{Choice, Found, Holdings, choose, partitions_in};
use crate::broker::catalog::{CatalogChange, CatalogState, ProducerEntry, Stage, TopicEntry};
use crate::broker::engine::Engine;
use crate::broker::internal_logs::INTERNAL_NAMES;
use crate::broker::local::LocalChange;
use crate::broker::restore::{self, Restored};
use crate::broker::{Broker, BrokerBuilder};
use crate::config::{PARTITIONS_MAX, TopicConfig};
use crate::error::{Corruption, Error, Result};
use crate::format::{TopicId, partition_dir_name};
use crate::group::offsets::OffsetChange;
use crate::log::inventory::holds_records;
use crate::log::salvage::{Copied, DamagedLog, is_absent, owners};
use crate::log::{LogEnv, LogIdentity};
use crate::partition::state_log::LoggedState;
use crate::partition::state_log::entries::RecordedAt;
use crate::record::TopicPartition;
use crate::storage::disk::{Disk, EntryKind, RealDisk};
use crate::storage::lock::DirLock;

mod state;
mod survey;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;

/// What [`salvage`] has copied, and what it could not.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SalvageReport {
    /// The topics of the copy, by name.
    pub topics: Vec<SalvagedTopic>,
    /// How many groups have committed offsets in the copy.
    pub groups: usize,
    /// How many committed offsets there are: one per group and partition.
    pub commits: usize,
    /// The named producers of the copy. One whose name is lost has the name `salvaged-` and its
    /// number.
    pub producers: Vec<Arc<str>>,
    /// What is damaged of the internal logs: `__meta` has the topics, their settings and the
    /// names of producers, `__offsets` the committed offsets, `__local` where logs begin. Nothing
    /// can say what the damage has taken; the copy has what is left. A torn tail is listed too: it
    /// cannot be distinguished from corruption of the last durable batch.
    pub damage: Vec<Corruption>,
    /// What belongs to no topic, and is not in the copy; nor are topics and partitions that hold no
    /// record and whose creation was never completed.
    pub unknown: Vec<PathBuf>,
}

impl SalvageReport {
    /// Whether nothing is lost and nothing is damaged, as far as anything is left that tells: the
    /// copy is all that the source was. After a clean close that is everything that lies in front
    /// of the end of a log; after a crash, batches at the end that are gone without a trace, as if
    /// they had never been written, are not missed.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let of_topic = |topic: &SalvagedTopic| {
            let mut partitions = topic.partitions.iter();
            !topic.config_lost && partitions.all(|it| it.lost.is_empty() && it.damage.is_empty())
        };
        self.damage.is_empty() && self.topics.iter().all(of_topic)
    }
}

/// A topic that [`salvage`] has copied.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SalvagedTopic {
    /// Its name.
    pub name: Arc<str>,
    /// Its settings in the copy.
    pub config: TopicConfig,
    /// Whether its own settings were lost. It then has the defaults, and keeps its records for ever
    /// until its settings are altered; whether it was compacted is not known.
    pub config_lost: bool,
    /// Its partitions, in order.
    pub partitions: Vec<SalvagedPartition>,
}

/// A partition that [`salvage`] has copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SalvagedPartition {
    /// Its number.
    pub partition: u32,
    /// The offset at which the copy begins.
    pub log_start_offset: u64,
    /// The offset that the next record gets. Never one that the source has given to a record, as
    /// far as anything is left that tells.
    pub log_end_offset: u64,
    /// How many records the copy has. Some may lie below the log start offset: batches are copied
    /// whole.
    pub records: u64,
    /// How many batches they are in.
    pub batches: u64,
    /// The offsets that are lost, in order. Some of them may have been taken out by compaction
    /// before; what lay around them shows only that they are not there.
    pub lost: Vec<Range<u64>>,
    /// What is damaged in the source, and where. After a crash that may be a torn end: behind it
    /// lay what was being written, or what rot has made of the last batch.
    pub damage: Vec<Corruption>,
}

/// Copies what is readable of a damaged data directory into a new one, which then opens like any
/// other.
///
/// It works where [`Broker::open`] fails, because the internal logs are damaged or missing, and
/// where a broker opens and reading finds damage. What is whole in `from` is in `to`, at the same
/// offsets: keys, values, headers, timestamps, leader epochs, where named producers stand; topics
/// with their settings, committed offsets, static members, log starts. Consumers step over what is
/// lost as over what compaction has removed. Nothing is taken for data whose checksum does not
/// hold.
///
/// What is lost with what:
///
/// | damaged | lost |
/// |---|---|
/// | a batch | its records; all others of the file are kept |
/// | the header of a segment file | the file: the key of its checksums is in the header |
/// | a segment file that is missing | its records |
/// | `__meta` | settings, and the names of producers (see below). Topics are found by their directories |
/// | `__offsets` | commits that were not made again after the damage |
/// | `__local` | where logs begin: records that `delete_records` has removed come back if their file still exists, and a commit that a recovery had overtaken counts as valid |
///
/// Unlike an opening, a salvage cuts no tail: a whole batch is copied even if one before it is
/// damaged, whether or not a sync ever covered it. What an earlier opening has cut remains cut, if
/// the broker was closed since.
///
/// A topic or a partition whose creation was interrupted is copied, as at an opening, if it holds
/// records, and also if the record of its completion may be among the lost ones.
///
/// A producer whose name is lost has the name `salvaged-` and its number in the copy. Its sequence
/// numbers are kept under that name: a sender that continues as `salvaged-1` has its retries
/// recognised ([`Producer::last_sequence`](crate::Producer::last_sequence) shows whose numbers they
/// are). One that continues under its own name begins anew, and what it sends again is stored again.
/// A producer that was forgotten or has expired remains so.
///
/// A committed offset is copied as it is. If it lies beyond the end of the salvaged log, the group
/// gets [`Error::Truncated`] once, as after a recovery that had to cut. Retention applies to the copy
/// from its next opening.
///
/// `from` is not written to, not even its lock file, and may be read-only. Its lock is held
/// meanwhile. `to` must not exist, or be an empty directory, and must not lie in `from`.
///
/// ```
/// use logpond::{Broker, Record, TopicConfig};
/// # let root = tempfile::tempdir().unwrap();
/// # let (data, copy) = (root.path().join("data"), root.path().join("copy"));
///
/// let broker = Broker::open(&data)?;
/// broker.ensure_topic("emails", TopicConfig::new(1))?;
/// broker.producer().send(Record::to("emails").value("welcome!"))?;
/// broker.close()?;
/// # std::fs::remove_dir_all(data.join("__meta")).unwrap();
///
/// // The catalog is gone.
/// assert!(Broker::open(&data).is_err());
/// let report = logpond::salvage(&data, &copy)?;
/// for topic in &report.topics {
///     for partition in &topic.partitions {
///         println!("{}-{}: lost {:?}", topic.name, partition.partition, partition.lost);
///     }
/// }
/// let broker = Broker::open(&copy)?;
/// let emails = broker.topic("emails")?.partition(0)?.read(0, 1 << 20)?;
/// assert_eq!(emails.iter().next().unwrap().value(), Some(&b"welcome!"[..]));
/// # Ok::<(), logpond::Error>(())
/// ```
///
/// # Errors
///
/// Damage is not an error; it is in the report. Nothing is created in `to` after [`Error::Locked`] (a
/// broker has `from` open), [`Error::Config`] (`to` is not free) and [`Error::UnsupportedVersion`] (a
/// newer build wrote a file: salvage with that one). [`Error::Io`] if an existing file cannot be
/// read; [`Error::StorageFull`], [`Error::Io`] and [`Error::SyncFailed`] of writing the copy.
///
/// # Durability
///
/// On `Ok` the copy is durable. After an error, or if the process dies half way, `to` holds no topic:
/// its topics become live together, by the last record that is written, and a broker that opens it
/// earlier removes what is there. Delete it and salvage again. (Only if the sync of that last record
/// fails may the copy be complete all the same.)
///
/// # Blocking
///
/// For the disk: reads every byte of `from` about twice and writes what is whole, in memory for a
/// few megabytes and one partition's indexes.
pub fn salvage(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<SalvageReport> {
    let (from, to) = (from.as_ref(), to.as_ref());
    let disk = RealDisk::new();
    check_apart(&resolved(from)?, &resolved(to)?)?;
    check_free(&disk, to)?;
    let _lock = DirLock::acquire_read_only(from)?;
    Source { disk: Arc::new(disk), dir: from }.copy_to(Broker::builder().data_dir(to))
}

/// A path without links in it, as far as it exists.
fn resolved(path: &Path) -> Result<PathBuf> {
    let failed = |source| Error::io("look at", path, source);
    let path = std::path::absolute(path).map_err(failed)?;
    let existing = path.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    let Some((above, resolved)) = existing else { return Ok(path) };
    Ok(path.strip_prefix(above).map_or(resolved.clone(), |rest| resolved.join(rest)))
}

/// Nothing is made in the directory that is only to be read.
fn check_apart(from: &Path, to: &Path) -> Result<()> {
    if to.starts_with(from) {
        return Err(Error::config("to", "it lies in the directory that is to be salvaged"));
    }
    Ok(())
}

fn check_free(disk: &dyn Disk, to: &Path) -> Result<()> {
    let entries = match disk.list(to) {
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        listed => listed.map_err(|source| Error::io("list", to, source))?,
    };
    if entries.is_empty() { Ok(()) } else { Err(Error::config("to", "the directory is not empty")) }
}

/// A directory to be salvaged.
struct Source<'a> {
    disk: Arc<dyn Disk>,
    dir: &'a Path,
}

impl Source<'_> {
    /// Copies into the directory of the broker that is opened for it.
    fn copy_to(&self, target: BrokerBuilder) -> Result<SalvageReport> {
        let mut state = State::read(&*self.disk, self.dir)?;
        let (found, mut unknown) = self.survey()?;
        self.complete(&mut state.catalog, &found)?;
        let (choices, strange) = choose(&state.catalog, state.catalog_is_whole, &found);
        unknown.extend(strange.iter().map(|name| self.dir.join(name)));
        unknown.sort();
        let target = target.background(false).open()?;
        let engine: &Engine = target.run();
        let entries: Vec<TopicEntry> = choices.iter().map(|it| it.entry.clone()).collect();
        restore::begin(engine, &entries)?;
        let mut report = SalvageReport {
            topics: Vec::with_capacity(choices.len()),
            groups: 0,
            commits: 0,
            producers: Vec::new(),
            damage: state.damage.clone(),
            unknown,
        };
        let mut ids = BTreeMap::new();
        let mut starts = Vec::new();
        for Choice { entry, config_lost } in choices {
            let partitions = self.copy_topic(engine, &entry, &state, &mut ids)?;
            starts.extend(partitions.iter().map(|it| LocalChange::LogStart {
                topic: entry.id,
                partition: it.partition,
                offset: it.log_start_offset,
            }));
            let (name, config) = (entry.name, entry.config);
            report.topics.push(SalvagedTopic { name, config, config_lost, partitions });
        }
        let restored = restored(state, entries, starts, ids);
        report.producers = restored.producers.iter().map(|(name, _)| Arc::clone(name)).collect();
        let groups = restored.offsets.iter().filter_map(|change| match change {
            OffsetChange::Commit { group, .. } => Some(group),
            _ => None,
        });
        report.commits = groups.clone().count();
        report.groups = groups.collect::<BTreeSet<_>>().len();
        restore::finish(engine, restored)?;
        target.close()?;
        Ok(report)
    }

    /// Decides, as an opening does, which topics and growths were complete although the catalog has
    /// lost the record that said so.
    fn complete(&self, catalog: &mut CatalogState, found: &Found) -> Result<()> {
        let env = LogEnv::for_reading(Arc::clone(&self.disk));
        let topics: Vec<(TopicEntry, Stage)> = catalog.topics.values().cloned().collect();
        for (entry, stage) in topics {
            let (entry, decided) = entry.stage_by_files(stage, |entry, number| {
                let is_there =
                    partitions_in(found, entry).is_some_and(|held| held.contains_key(&number));
                Ok(is_there && holds_records(&env, &self.identity(entry, number))?)
            })?;
            if decided != stage {
                catalog.apply(CatalogChange::Topic(entry, decided), RecordedAt::default());
            }
        }
        Ok(())
    }

    fn identity(&self, entry: &TopicEntry, number: u32) -> LogIdentity {
        let dir = self.dir.join(&*entry.name).join(partition_dir_name(number));
        let origin = TopicPartition { topic: Arc::clone(&entry.name), partition: number };
        LogIdentity { origin: Arc::new(origin), topic_id: entry.id, dir }
    }

    /// Looks through the directory: what lies in it by the names of topics, and what else there is.
    fn survey(&self) -> Result<(Found, Vec<PathBuf>)> {
        let (mut found, mut unknown) = (Found::new(), Vec::new());
        let entries = self.disk.list(self.dir);
        for entry in entries.map_err(|source| Error::io("list", self.dir, source))? {
            if INTERNAL_NAMES.contains(&&*entry.name) {
                continue;
            }
            let path = self.dir.join(&entry.name);
            if entry.kind == EntryKind::Directory {
                found.insert(entry.name, self.holdings(&path)?);
            } else {
                unknown.push(path);
            }
        }
        Ok((found, unknown))
    }

    fn holdings(&self, dir: &Path) -> Result<Holdings> {
        let mut holdings = Holdings::new();
        let entries = match self.disk.list(dir) {
            Err(source) if is_absent(&source) => Vec::new(),
            listed => listed.map_err(|source| Error::io("list", dir, source))?,
        };
        for entry in entries.into_iter().filter(|entry| entry.kind == EntryKind::Directory) {
            let Some(number) = partition_of(&entry.name) else { continue };
            for (id, segments) in owners(&*self.disk, &dir.join(&entry.name), number)? {
                holdings.entry(id).or_default().insert(number, segments);
            }
        }
        Ok(holdings)
    }

    fn copy_topic(
        &self,
        engine: &Engine,
        entry: &TopicEntry,
        state: &State,
        ids: &mut BTreeMap<u64, u32>,
    ) -> Result<Vec<SalvagedPartition>> {
        let mut partitions = Vec::new();
        for number in 0..entry.config.partitions {
            let target = engine.context().identity(entry, number);
            let source = self.identity(entry, number);
            let damaged =
                DamagedLog::read(&*self.disk, &source, &state.recorded(entry.id, number))?;
            let Copied { batches, records, producers } =
                damaged.copy_to(&engine.context().env, &target)?;
            for (id, epoch) in producers {
                let known = ids.entry(id).or_insert(epoch);
                *known = epoch.max(*known);
            }
            partitions.push(SalvagedPartition {
                partition: number,
                log_start_offset: damaged.start_offset(),
                log_end_offset: damaged.end_offset(),
                records,
                batches,
                lost: damaged.lost().to_vec(),
                damage: damaged.damage,
            });
        }
        Ok(partitions)
    }
}

/// The partition whose directory has this name.
fn partition_of(name: &str) -> Option<u32> {
    let number = name.parse().ok().filter(|number| *number < PARTITIONS_MAX)?;
    (partition_dir_name(number) == name).then_some(number)
}

/// What the copy takes over beside records. `local` says where its logs begin; `ids` are the
/// producers that the logs know, with the highest epoch of each.
fn restored(
    state: State,
    topics: Vec<TopicEntry>,
    mut local: Vec<LocalChange>,
    mut ids: BTreeMap<u64, u32>,
) -> Restored {
    let partitions: BTreeMap<TopicId, u32> =
        topics.iter().map(|entry| (entry.id, entry.config.partitions)).collect();
    let is_there = |id: &TopicId, number: u32| partitions.get(id).is_some_and(|it| number < *it);
    // Recovery points speak of the source's files.
    local.extend(state.local.snapshot().into_iter().filter(|change| match change {
        LocalChange::Lineage { topic, partition, .. } => is_there(topic, *partition),
        _ => false,
    }));
    let offsets = state.offsets.snapshot().into_iter().filter(|change| match change {
        OffsetChange::Commit { topic, partition, .. } => is_there(topic, *partition),
        _ => true,
    });
    let is_copied = |(topic, _): &(TopicId, u64)| partitions.contains_key(topic);
    let by_key = state.catalog.all_by_key().filter(is_copied).collect();
    let ids_from = state.catalog.next_producer_id();
    // A producer must not be fenced by what the internal logs say of it.
    let mut producers: BTreeMap<Arc<str>, ProducerEntry> = state
        .catalog
        .producers
        .into_iter()
        .map(|(name, entry)| {
            let epoch = ids.remove(&entry.id).map_or(entry.epoch, |epoch| epoch.max(entry.epoch));
            (name, ProducerEntry { epoch, ..entry })
        })
        .collect();
    // Nor may a new one be given the id of one whose name is lost: its first records would pass for
    // repetitions. A catalog of which nothing is missing has forgotten it: that id has no name.
    let is_forgotten = |id: u64| state.catalog_is_whole && ids_from.is_none_or(|from| id < from);
    for (id, epoch) in ids.into_iter().filter(|(id, _)| !is_forgotten(*id)) {
        let mut name = format!("salvaged-{id}");
        while producers.contains_key(&*name) {
            name.push('-');
        }
        producers.insert(name.into(), ProducerEntry { id, epoch });
    }
    let (producers, offsets) = (producers.into_iter().collect(), offsets.collect());
    Restored { topics, producers, ids_from, by_key, local, offsets }
}

//! Salvage: copies the readable contents of a damaged directory.
//!
//! Owns: which parts of a directory are copied, and the report. Must not know: how a partition is
//! read around damage and written (`log::salvage`), and how a broker takes over topics
//! (`broker::restore`). The source is only read. The engine itself writes the copy, like any
//! broker's directory.

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

/// The result of [`salvage`]: what was copied, and what was lost.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SalvageReport {
    /// The topics of the copy, by name.
    pub topics: Vec<SalvagedTopic>,
    /// How many groups have committed offsets in the copy.
    pub groups: usize,
    /// How many committed offsets the copy has: one per group and partition.
    pub commits: usize,
    /// The producer ids of the copy. If an id is lost, its sequence numbers are kept under the id
    /// `salvaged-` and a number.
    pub producers: Vec<Arc<str>>,
    /// Damage in the internal logs of the source: `__meta` has the topics, their settings and the
    /// producer ids, `__offsets` the committed offsets, `__local` the first offset of each log. The
    /// copy has the readable entries; which ones were lost is not known. Incomplete records at the
    /// end of a log are listed too, because corruption of the last durable batch looks the same.
    pub damage: Vec<Corruption>,
    /// Files and directories that belong to no topic. They are not in the copy. (Topics and
    /// partitions without a record whose creation was not completed are not in the copy either.)
    pub unknown: Vec<PathBuf>,
}

impl SalvageReport {
    /// Returns whether no loss and no damage was detected. After a clean close of the source, every
    /// loss before the end of a log is detected. After a crash, the loss of the last batches of a
    /// log may go unnoticed, if nothing later shows that they were written.
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
    /// Whether its settings were lost. It then has the default ones, except that it keeps its
    /// records for ever until its settings are altered. It is not compacted, even if it was before.
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
    /// The offset that the next record gets: higher than each offset of the source that was found.
    pub log_end_offset: u64,
    /// How many records the copy has. Some may have offsets below the log start offset, because
    /// whole batches are copied.
    pub records: u64,
    /// How many batches they are in.
    pub batches: u64,
    /// The offsets that are lost, in order. Some of them may have been removed by compaction
    /// before; the records around them show only that they are missing.
    pub lost: Vec<Range<u64>>,
    /// The damage in the source, and its position. After a crash this includes incomplete records
    /// at the end of the log, because corruption of the last batch looks the same.
    pub damage: Vec<Corruption>,
}

/// Copies the readable contents of a damaged data directory into a new one, which a broker can
/// open.
///
/// Use it if [`Broker::open`] fails because the internal logs are damaged or missing, or if topics
/// are damaged. (The internal logs `__meta`, `__offsets` and `__local` are the logs in which a
/// broker stores its own state.) Everything in `from` that is undamaged is in `to`: records at the
/// same offsets, with keys, values, headers, timestamps and leader epochs; the sequence numbers of
/// producers; topics with their settings; committed offsets, static members and log start offsets.
/// Consumers step over lost records. A record whose checksum does not match is never copied.
///
/// | damaged | lost |
/// |---|---|
/// | a batch (the unit of append and checksum) | its records; all others of the file are kept |
/// | the header of a segment file | all records of the file, because the header is needed to check them |
/// | a segment file that is missing | its records |
/// | `__meta` | the settings of topics, and producer ids (see below). Topics are found by their directories |
/// | `__offsets` | commits that were not made again after the damage |
/// | `__local` | log start offsets: records that `delete_records` has removed are copied if their file still exists; and commits that were invalid, because a crash had cut the log below them, are copied as valid ones |
///
/// An opening cuts off incomplete records at the end of a log; a salvage does not: it copies every
/// undamaged batch, also after a damaged one, and whether or not it was ever synced. If an earlier
/// opening has cut off batches, and the broker was closed since, they are not copied.
///
/// If a crash interrupted the creation of a topic or a partition, it is copied if it has records,
/// or if the record of its completion may be among the lost ones.
///
/// If a producer id is lost, its sequence numbers are kept in the copy under the id `salvaged-` and
/// a number. A producer that uses the id `salvaged-1` continues with these numbers;
/// [`Producer::last_sequence`](crate::Producer::last_sequence) shows which producer's they are. A
/// producer that uses its old id has no numbers, and records that it sends again are stored again.
/// Producer ids that were forgotten or have expired are not copied.
///
/// Committed offsets are copied unchanged. If one is beyond the end of its log in the copy, the
/// group gets [`Error::Truncated`] once, as after a crash. Retention applies to the copy from its
/// next opening.
///
/// Nothing is written to `from`, not even to its lock file, so it may be read-only. It is locked
/// during the call. `to` must not exist, or be an empty directory, and must not be inside `from`.
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
/// // The list of topics was lost.
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
/// Damage is not an error; the report lists it. Nothing is created in `to` after [`Error::Locked`]
/// (a broker has `from` open), [`Error::Config`] (`to` exists and is not empty, or is inside
/// `from`) and [`Error::UnsupportedVersion`] (a newer build wrote a file: use the `salvage` of that
/// build). [`Error::Io`] if an existing file cannot be read; [`Error::StorageFull`], [`Error::Io`]
/// and [`Error::SyncFailed`] if the copy cannot be written.
///
/// # Durability
///
/// On `Ok` the copy is durable. After an error, or if the process dies during the call, `to` has no
/// topics: all of them are created by the last record that is written, and a broker that opens `to`
/// without it removes the files. Delete `to` and call `salvage` again. (If the sync of that last
/// record has failed, the copy may be complete.)
///
/// # Blocking
///
/// For the disk: reads every byte of `from` about twice, and writes the undamaged records. It needs
/// memory for a few megabytes and the indexes of one partition.
pub fn salvage(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<SalvageReport> {
    salvage_with(from, to, |_| {})
}

/// How far a salvage is, for the callback of [`salvage_with`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SalvageStep<'a> {
    /// The topic of the partition that is copied next.
    pub topic: &'a str,
    /// The number of that partition.
    pub partition: u32,
    /// How many partitions are copied.
    pub copied: usize,
    /// How many there are in all.
    pub total: usize,
}

/// Does what [`salvage`] does, and calls `on_step` before each partition, so that a program can show
/// how far it is.
///
/// # Errors
///
/// Those of [`salvage`].
///
/// # Durability
///
/// As [`salvage`].
///
/// # Blocking
///
/// As [`salvage`].
pub fn salvage_with(
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
    on_step: impl FnMut(SalvageStep<'_>),
) -> Result<SalvageReport> {
    let (from, to) = (from.as_ref(), to.as_ref());
    let disk = RealDisk::new();
    check_apart(&resolved(from)?, &resolved(to)?)?;
    check_free(&disk, to)?;
    let _lock = DirLock::acquire_read_only(from)?;
    Source { disk: Arc::new(disk), dir: from }.copy_to(Broker::builder().data_dir(to), on_step)
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
        return Err(Error::config(
            "to",
            "it is inside the directory that is to be salvaged; choose another",
        ));
    }
    Ok(())
}

fn check_free(disk: &dyn Disk, to: &Path) -> Result<()> {
    let entries = match disk.list(to) {
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        listed => listed.map_err(|source| Error::io("list", to, source))?,
    };
    if entries.is_empty() {
        Ok(())
    } else {
        Err(Error::config("to", "the directory is not empty; choose another, or empty it"))
    }
}

/// A directory to be salvaged.
struct Source<'a> {
    disk: Arc<dyn Disk>,
    dir: &'a Path,
}

impl Source<'_> {
    /// Copies into the directory of the broker that is opened for it.
    fn copy_to(
        &self,
        target: BrokerBuilder,
        mut on_step: impl FnMut(SalvageStep<'_>),
    ) -> Result<SalvageReport> {
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
        let total = entries.iter().map(|it| it.config.partitions as usize).sum();
        for Choice { entry, config_lost } in choices {
            let before = starts.len();
            let on_partition = |partition| {
                let copied = before.saturating_add(partition as usize);
                on_step(SalvageStep { topic: &entry.name, partition, copied, total });
            };
            let partitions = self.copy_topic(engine, (&entry, &state), &mut ids, on_partition)?;
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
    /// lost the entry for it.
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

    /// Lists the directory: the topics in it, by name, and the other entries.
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
        (entry, state): (&TopicEntry, &State),
        ids: &mut BTreeMap<u64, u32>,
        mut on_partition: impl FnMut(u32),
    ) -> Result<Vec<SalvagedPartition>> {
        let mut partitions = Vec::new();
        for number in 0..entry.config.partitions {
            on_partition(number);
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

/// The state that the copy takes over beside records. `local` has the log starts; `ids` are the
/// producers in the logs, with the highest epoch of each.
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
    // A producer must not be fenced by its entry in the internal logs.
    let mut producers: BTreeMap<Arc<str>, ProducerEntry> = state
        .catalog
        .producers
        .into_iter()
        .map(|(name, entry)| {
            let epoch = ids.remove(&entry.id).map_or(entry.epoch, |epoch| epoch.max(entry.epoch));
            (name, ProducerEntry { epoch, ..entry })
        })
        .collect();
    // Nor may a new producer get the id of one whose name is lost: its first records would be taken
    // for duplicates. If the catalog is complete, an id without a name was removed on purpose.
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

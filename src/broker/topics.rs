//! Creating and deleting topics, so that a crash at any step leaves one or the other.

use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::catalog::{CatalogChange, Stage, TopicEntry};
use super::engine::{Engine, Settings};
use super::local::LocalChange;
use crate::config::{Cleanup, Durability, TopicConfig};
use crate::error::{Corruption, Error, NameError, Result};
use crate::foreign;
use crate::format::{
    SegmentHeader, TopicId, parse_segment_file_name, parse_temporary_segment_file_name,
    partition_dir_name, validate_topic,
};
use crate::log::unavailable::damage_of;
use crate::log::{Log, LogIdentity, LogOptions, record_bytes_max};
use crate::partition::PartitionCore;
use crate::partition::compaction::CompactionSettings;
use crate::partition::encode::RecordRules;
use crate::partition::lineage::Lineage;
use crate::record::TopicPartition;
use crate::rules::Rule;
use crate::storage::disk::{Access, Disk, EntryKind};
use crate::topic::{Succession, TopicShared};

impl Engine {
    pub(crate) fn create_topic(&self, name: &str, config: TopicConfig) -> Result<Arc<TopicShared>> {
        check_name(name)?;
        let config = config.or_defaults(&self.settings.topic_defaults);
        config.validate(record_bytes_max(config.segment_bytes))?;
        self.check_process()?;
        let (_told, _woken) = (self.env.trace.deliver_at_end(), foreign::hold_back());
        let _admin = self.admin.lock();
        self.check_open()?;
        let dir = self.settings.dir.join(name);
        if self.settings.read_only {
            return Err(Error::ReadOnly { path: dir });
        }
        self.finish_interrupted(name)?;
        let taken = self.catalog.read(|catalog| catalog.named(name).map(|it| Arc::clone(&it.name)));
        match taken {
            Some(taken) if *taken == *name => return Err(Error::TopicExists(name.to_owned())),
            Some(_) => return Err(invalid(name, NameError::CaseCollision)),
            None => {}
        }
        let entry = TopicEntry { name: name.into(), id: self.new_topic_id(), config };
        let intent = CatalogChange::Topic(entry.clone(), Stage::Creating);
        self.catalog.append_durably(vec![intent])?;
        let made = self.make_topic(&entry).and_then(|shared| {
            let live = CatalogChange::Topic(entry.clone(), Stage::Live);
            // DURABILITY: all files are synced before the record that says they are there.
            self.catalog.append_durably(vec![live])?;
            Ok(shared)
        });
        match made {
            Ok(shared) => {
                self.topics.write().insert(Arc::clone(&shared.name), Arc::clone(&shared));
                self.coordinator.topic_changed(&shared.name, shared.config.partitions);
                self.keep_compaction_spare();
                Ok(shared)
            }
            Err(error) => {
                // Undone as far as it goes; what is left is undone at the next open.
                let _ = self.remove_topic(&entry);
                Err(error)
            }
        }
    }

    /// Deletes a topic whatever its stage.
    ///
    /// DURABILITY: the intent comes first. The record that made the topic live may have reached
    /// the disk although it failed, and must never be found without the files that it vouches
    /// for.
    fn remove_topic(&self, entry: &TopicEntry) -> Result<()> {
        let intent = CatalogChange::Topic(entry.clone(), Stage::Deleting);
        self.catalog.append_durably(vec![intent])?;
        self.forget_topic(&entry.name, entry.id)
    }

    /// Finishes what a failure has left of topics of this name, so that it is free.
    fn finish_interrupted(&self, name: &str) -> Result<()> {
        let unfinished = self.unfinished(|entry| entry.name.eq_ignore_ascii_case(name));
        unfinished.iter().try_for_each(|entry| self.forget_topic(&entry.name, entry.id))
    }

    fn new_topic_id(&self) -> TopicId {
        let mut id = [0; 16];
        let (high, low) = id.split_at_mut(8);
        high.copy_from_slice(&(self.env.random)().to_le_bytes());
        low.copy_from_slice(&(self.env.random)().to_le_bytes());
        TopicId(id)
    }

    /// The directories and first segments of a topic, all durable.
    fn make_topic(&self, entry: &TopicEntry) -> Result<Arc<TopicShared>> {
        let disk = &*self.env.disk;
        let dir = self.settings.dir.join(&*entry.name);
        // DURABILITY: from the top down, each directory's own name in the one that holds it; then
        // what is in it.
        make_dir(disk, &dir)?;
        Rule::TopicDirName.keep(|| sync_dir(disk, &self.settings.dir))?;
        let partitions = self.make_partitions(entry, 0..entry.config.partitions)?;
        Ok(self.shared_topic(entry, self.durability_of(&entry.config), partitions))
    }

    pub(crate) fn durability_of(&self, config: &TopicConfig) -> Durability {
        config.durability.unwrap_or(self.settings.durability)
    }

    /// The directories and first segments of some of a topic's partitions, all durable.
    pub(super) fn make_partitions(
        &self,
        entry: &TopicEntry,
        numbers: Range<u32>,
    ) -> Result<Vec<Arc<PartitionCore>>> {
        let disk = &*self.env.disk;
        self.make_room_for_partitions(numbers.len());
        for number in numbers.clone() {
            make_dir(disk, &identity(&self.settings, entry, number).dir)?;
        }
        let dir = self.settings.dir.join(&*entry.name);
        Rule::PartitionDirName.keep(|| sync_dir(disk, &dir))?;
        let durability = self.durability_of(&entry.config);
        let make = |number| {
            let identity = identity(&self.settings, entry, number);
            let origin = Arc::clone(&identity.origin);
            let log = Log::create(&self.env, identity, self.options(&entry.config, durability))?;
            Ok(self.partition_core(log, Lineage::default(), origin, durability, None))
        };
        numbers.map(make).collect()
    }

    pub(crate) fn options(&self, config: &TopicConfig, durability: Durability) -> LogOptions {
        let writer = self.writer_for(durability);
        LogOptions { segment_bytes: config.segment_bytes, writer, has_budget: true, features: 0 }
    }

    pub(crate) fn partition_core(
        &self,
        log: Log,
        lineage: Lineage,
        origin: Arc<TopicPartition>,
        durability: Durability,
        damage: Option<Corruption>,
    ) -> Arc<PartitionCore> {
        let background = Arc::clone(&self.workers);
        let clock = self.clock.clone();
        PartitionCore::with_damage(log, lineage, origin, durability, clock, background, damage)
    }

    pub(crate) fn shared_topic(
        &self,
        entry: &TopicEntry,
        durability: Durability,
        partitions: Vec<Arc<PartitionCore>>,
    ) -> Arc<TopicShared> {
        apply_compaction(&entry.config, &partitions);
        Arc::new(TopicShared {
            name: Arc::clone(&entry.name),
            id: entry.id,
            config: entry.config.clone(),
            durability,
            rules: record_rules(&entry.config),
            clock: self.clock.shared(),
            partitions,
            read_only: self.settings.read_only.then(|| self.settings.dir.clone()),
            succession: Succession::first(),
        })
    }

    pub(crate) fn delete_topic(&self, name: &str) -> Result<()> {
        self.check_process()?;
        let (_told, _woken) = (self.env.trace.deliver_at_end(), foreign::hold_back());
        let _admin = self.admin.lock();
        self.check_open()?;
        // Not from the table of topics: a deletion that failed can be tried again.
        let named = |(entry, _): &&(TopicEntry, Stage)| *entry.name == *name;
        let found = self.catalog.read(|catalog| catalog.topics.values().find(named).cloned());
        let (entry, stage) = found.ok_or_else(|| Error::UnknownTopic(name.to_owned()))?;
        if self.settings.read_only {
            return Err(Error::ReadOnly { path: self.settings.dir.join(name) });
        }
        if !stage.is_live() {
            return Err(Error::UnknownTopic(name.to_owned()));
        }
        let (gone, id) = (CatalogChange::Topic(entry.clone(), Stage::Deleting), entry.id);
        // The commit point: when it is durable the topic is gone, also after a crash.
        let marked = self.catalog.append_durably(vec![gone]);
        if marked.as_ref().is_err_and(Error::is_definite) {
            return marked;
        }
        // Gone, or perhaps gone: nothing may be acknowledged any more that the next open removes.
        let shared = self.topics.write().remove(name);
        self.coordinator.topic_changed(name, 0);
        for partition in shared.iter().flat_map(|shared| &shared.partitions) {
            partition.close_deleted(marked.as_ref().err().cloned());
            partition.await_work();
        }
        // Appends to it that wait for room find it gone.
        self.env.space.wake();
        marked?;
        // It is gone for good; what is left of it is removed now, or else later.
        let _ = self.forget_topic(name, id);
        for partition in shared.iter().flat_map(|shared| &shared.partitions) {
            partition.give_up_space();
        }
        Ok(())
    }

    /// Tries again what an earlier deletion or undone creation could not remove. Whoever makes or
    /// deletes a topic, perhaps a large one, is not waited for: there is a next time.
    pub(crate) fn finish_deletions(&self) {
        let Some(_admin) = self.admin.try_lock() else { return };
        if self.check_open().is_err() || self.settings.read_only {
            return;
        }
        for entry in self.unfinished(|_| true) {
            let _ = self.forget_topic(&entry.name, entry.id);
        }
        self.finish_growths();
    }

    /// The stage of a topic by its files, and a record of it where that is another.
    pub(super) fn stage_by_files(
        &self,
        entry: TopicEntry,
        stage: Stage,
    ) -> Result<(TopicEntry, Stage)> {
        let (entry, found) = entry.stage_by_files(stage, |entry, number| {
            let identity = identity(&self.settings, entry, number);
            match Log::holds_records(&self.env, &identity) {
                // What cannot be read may hold records: it is no reason to remove anything.
                Err(error) if damage_of(&identity, &error).is_some() => Ok(true),
                holds => holds,
            }
        })?;
        if found != stage && !self.settings.read_only {
            self.catalog.append_durably(vec![CatalogChange::Topic(entry.clone(), found)])?;
        }
        Ok((entry, found))
    }

    /// Topics that are not live: undone creations and deletions that something has interrupted.
    fn unfinished(&self, wanted: impl Fn(&TopicEntry) -> bool) -> Vec<TopicEntry> {
        let unfinished = |(entry, stage): &(TopicEntry, Stage)| {
            (!stage.is_live() && wanted(entry)).then(|| entry.clone())
        };
        self.catalog.read(|catalog| catalog.topics.values().filter_map(unfinished).collect())
    }

    /// Removes what is left of a topic that is being deleted, or whose creation was interrupted.
    pub(crate) fn forget_topic(&self, name: &str, id: TopicId) -> Result<()> {
        // DURABILITY: the intent, before the first file goes. It may be one whose sync has failed:
        // a power cut could then bring the topic back without its files.
        self.catalog.partition().flush()?;
        remove_topic_files(&*self.env.disk, &self.settings.dir.join(name), id)?;
        // DURABILITY: the catalog forgets last; before, whatever is left is found by its intent.
        self.coordinator.forget_topic(id)?;
        self.local.append_durably(vec![LocalChange::TopicGone(id)])?;
        self.catalog.append_durably(vec![CatalogChange::TopicGone(id)])
    }
}

/// What records of a topic with these settings must obey.
pub(super) fn record_rules(config: &TopicConfig) -> RecordRules {
    let held = record_bytes_max(config.segment_bytes);
    RecordRules {
        record_bytes_max: config.record_limit(held),
        timestamps: config.timestamps,
        needs_key: config.cleanup != Cleanup::Delete,
    }
}

/// Tells partitions whether and how they are compacted.
pub(super) fn apply_compaction(config: &TopicConfig, partitions: &[Arc<PartitionCore>]) {
    for partition in partitions {
        partition.set_compaction((config.cleanup != Cleanup::Delete).then_some(
            CompactionSettings {
                min_dirty_ratio: config.min_dirty_ratio,
                tombstone_retention: config.tombstone_retention,
                segment_bytes: config.segment_bytes,
            },
        ));
    }
}

pub(crate) fn identity(settings: &Settings, entry: &TopicEntry, number: u32) -> LogIdentity {
    let dir = settings.dir.join(&*entry.name).join(partition_dir_name(number));
    let origin = TopicPartition { topic: Arc::clone(&entry.name), partition: number };
    LogIdentity { origin: Arc::new(origin), topic_id: entry.id, dir }
}

fn check_name(name: &str) -> Result<()> {
    validate_topic(name).map_err(|reason| invalid(name, reason))
}

fn invalid(name: &str, reason: NameError) -> Error {
    // A hostile name is not repeated at full length.
    Error::InvalidName { name: name.chars().take(300).collect(), reason }
}

/// Creates a directory, or takes one that holds no segments: a topic that is gone may have left it
/// because of files that are not ours.
pub(super) fn make_dir(disk: &dyn Disk, dir: &Path) -> Result<()> {
    match disk.create_dir(dir) {
        Err(source) if source.kind() == ErrorKind::AlreadyExists => {
            if is_free(disk, dir).map_err(|source| Error::io("list", dir, source))? {
                return Ok(());
            }
            Err(Error::io("create", dir, source))
        }
        made => made.map_err(|source| Error::io("create", dir, source)),
    }
}

/// Whether a path is a directory without segments, in it or one level below.
fn is_free(disk: &dyn Disk, dir: &Path) -> std::io::Result<bool> {
    if disk.kind(dir)? != Some(EntryKind::Directory) {
        return Ok(false);
    }
    for entry in disk.list(dir)? {
        let is_segment = |name: &str| parse_segment_file_name(name).is_some();
        let below = match entry.kind {
            EntryKind::Directory => disk.list(&dir.join(&entry.name))?,
            _ => Vec::new(),
        };
        if is_segment(&entry.name) || below.iter().any(|entry| is_segment(&entry.name)) {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(crate) fn sync_dir(disk: &dyn Disk, dir: &Path) -> Result<()> {
    disk.sync_dir(dir).map_err(|source| Error::io("sync", dir, source))
}

/// Removes the segments of a topic and then its directories, as far as they are empty. Only files
/// that bear the topic's id, or a temporary name of ours, are removed: what somebody else put
/// there stays, and keeps its directory.
fn remove_topic_files(disk: &dyn Disk, dir: &Path, id: TopicId) -> Result<()> {
    let kind = disk.kind(dir).map_err(|source| Error::io("look at", dir, source))?;
    if kind == Some(EntryKind::Directory) {
        for entry in disk.list(dir).map_err(|source| Error::io("list", dir, source))? {
            if entry.kind == EntryKind::Directory {
                remove_partition_files(disk, &dir.join(&entry.name), id)?;
            }
        }
        Rule::DeletedPartitionNames.keep(|| sync_dir(disk, dir))?;
        remove_dir(disk, dir)?;
    }
    // DURABILITY: from the bottom up, so that nothing comes back under a name that is free again;
    // and also if the directory is gone: whoever removed it may have died before this.
    dir.parent().map_or(Ok(()), |parent| Rule::DeletedTopicName.keep(|| sync_dir(disk, parent)))
}

/// Removes the segments of one partition of a topic and then its directory, which may be gone.
pub(super) fn remove_partition_files(disk: &dyn Disk, dir: &Path, id: TopicId) -> Result<()> {
    let kind = disk.kind(dir).map_err(|source| Error::io("look at", dir, source))?;
    if kind != Some(EntryKind::Directory) {
        return Ok(());
    }
    remove_segments(disk, dir, id)?;
    Rule::DeletedSegmentNames.keep(|| sync_dir(disk, dir))?;
    remove_dir(disk, dir)
}

/// Removes a directory, unless somebody else keeps something in it.
fn remove_dir(disk: &dyn Disk, dir: &Path) -> Result<()> {
    match disk.remove_dir(dir) {
        Err(source) if source.kind() == ErrorKind::DirectoryNotEmpty => Ok(()),
        removed => removed.map_err(|source| Error::io("remove", dir, source)),
    }
}

fn remove_segments(disk: &dyn Disk, dir: &Path, id: TopicId) -> Result<()> {
    let entries = disk.list(dir).map_err(|source| Error::io("list", dir, source))?;
    for entry in entries.into_iter().filter(|entry| entry.kind == EntryKind::File) {
        let path: PathBuf = dir.join(&entry.name);
        let temporary = parse_temporary_segment_file_name(&entry.name).is_some();
        let ours = parse_segment_file_name(&entry.name).is_some() && bears_id(disk, &path, id)?;
        if temporary || ours {
            disk.remove_file(&path).map_err(|source| Error::io("remove", &path, source))?;
        }
    }
    Ok(())
}

/// Whether a file says that it belongs to a topic. One that could not be read now may well: it must
/// not be left behind for that, in the way of the next topic of its name.
fn bears_id(disk: &dyn Disk, path: &Path, id: TopicId) -> Result<bool> {
    let mut bytes = [0; SegmentHeader::SIZE];
    let read = disk.open(path, Access::Read).and_then(|file| file.read_at(&mut bytes, 0));
    read.map_err(|source| Error::io("read", path, source))?;
    Ok(SegmentHeader::decode(&bytes).is_ok_and(|header| header.topic_id == id))
}

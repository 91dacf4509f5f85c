//! Creating and deleting topics, so that a crash at any step leaves one or the other.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::catalog::{CatalogChange, Stage, TopicEntry};
use super::engine::{Engine, Settings};
use super::local::LocalChange;
use crate::config::{Durability, TopicConfig};
use crate::error::{Error, NameError, Result};
use crate::format::{
    SegmentHeader, TopicId, parse_segment_file_name, parse_temporary_segment_file_name,
    partition_dir_name, validate_topic,
};
use crate::log::{Log, LogIdentity, LogOptions, record_bytes_max};
use crate::partition::PartitionCore;
use crate::partition::encode::RecordRules;
use crate::partition::lineage::Lineage;
use crate::record::TopicPartition;
use crate::storage::disk::{Access, Disk, EntryKind};
use crate::topic::TopicShared;

impl Engine {
    pub(crate) fn create_topic(&self, name: &str, config: TopicConfig) -> Result<Arc<TopicShared>> {
        check_name(name)?;
        let config = config.or_defaults(&self.settings.topic_defaults);
        config.validate(record_bytes_max(config.segment_bytes))?;
        let _admin = self.admin.lock();
        self.check_open()?;
        let dir = self.settings.dir.join(name);
        if self.settings.read_only {
            return Err(Error::ReadOnly { path: dir });
        }
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
                Ok(shared)
            }
            Err(error) => {
                // Undone as far as it goes; what is left is undone at the next open.
                let undone = remove_topic_files(&*self.env.disk, &dir, entry.id);
                if undone.is_ok() {
                    let _ = self.catalog.append_durably(vec![CatalogChange::TopicGone(entry.id)]);
                }
                Err(error)
            }
        }
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
        make_dir(disk, &dir)?;
        let durability = entry.config.durability.unwrap_or(self.settings.durability);
        let mut partitions = Vec::with_capacity(entry.config.partitions as usize);
        for number in 0..entry.config.partitions {
            let identity = identity(&self.settings, entry, number);
            make_dir(disk, &identity.dir)?;
            let origin = Arc::clone(&identity.origin);
            let log = Log::create(&self.env, identity, self.options(&entry.config, durability))?;
            partitions.push(self.partition_core(log, Lineage::default(), origin, durability));
        }
        // DURABILITY: each directory's own name, which its parent holds.
        sync_dir(disk, &dir)?;
        sync_dir(disk, &self.settings.dir)?;
        Ok(self.shared_topic(entry, durability, partitions))
    }

    pub(crate) fn options(&self, config: &TopicConfig, durability: Durability) -> LogOptions {
        let writer = self.writer_for(durability);
        LogOptions { segment_bytes: config.segment_bytes, writer }
    }

    pub(crate) fn partition_core(
        &self,
        log: Log,
        lineage: Lineage,
        origin: Arc<TopicPartition>,
        durability: Durability,
    ) -> Arc<PartitionCore> {
        let background = Arc::clone(&self.lanes);
        let clock = Arc::clone(&self.clock);
        PartitionCore::new(log, lineage, origin, durability, clock, background)
    }

    pub(crate) fn shared_topic(
        &self,
        entry: &TopicEntry,
        durability: Durability,
        partitions: Vec<Arc<PartitionCore>>,
    ) -> Arc<TopicShared> {
        let held = record_bytes_max(entry.config.segment_bytes);
        Arc::new(TopicShared {
            name: Arc::clone(&entry.name),
            id: entry.id,
            config: entry.config.clone(),
            durability,
            rules: RecordRules {
                record_bytes_max: entry.config.record_limit(held),
                timestamps: entry.config.timestamps,
            },
            clock: Arc::clone(&self.clock),
            partitions,
        })
    }

    pub(crate) fn delete_topic(&self, name: &str) -> Result<()> {
        let _admin = self.admin.lock();
        let shared = self.topic(name)?;
        let dir = self.settings.dir.join(name);
        if self.settings.read_only {
            return Err(Error::ReadOnly { path: dir });
        }
        let config = shared.config.clone();
        let entry = TopicEntry { name: Arc::clone(&shared.name), id: shared.id, config };
        // The commit point: from here on the topic is gone, also after a crash.
        self.catalog.append_durably(vec![CatalogChange::Topic(entry, Stage::Deleting)])?;
        self.topics.write().remove(name);
        self.coordinator.topic_changed(name, 0);
        for partition in &shared.partitions {
            partition.close();
        }
        self.forget_topic(name, shared.id)
    }

    /// Removes what is left of a topic that is being deleted, or whose creation was interrupted.
    pub(crate) fn forget_topic(&self, name: &str, id: TopicId) -> Result<()> {
        remove_topic_files(&*self.env.disk, &self.settings.dir.join(name), id)?;
        self.coordinator.forget_topic(id)?;
        self.local.append(vec![LocalChange::TopicGone(id)])?;
        self.catalog.append_durably(vec![CatalogChange::TopicGone(id)])
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

fn make_dir(disk: &dyn Disk, dir: &Path) -> Result<()> {
    disk.create_dir(dir).map_err(|source| Error::io("create", dir, source))
}

pub(crate) fn sync_dir(disk: &dyn Disk, dir: &Path) -> Result<()> {
    disk.sync_dir(dir).map_err(|source| Error::io("sync", dir, source))
}

/// Removes the segments of a topic and then its directories, as far as they are empty. Only files
/// that bear the topic's id, or a temporary name of ours, are removed: what somebody else put
/// there stays, and keeps its directory.
fn remove_topic_files(disk: &dyn Disk, dir: &Path, id: TopicId) -> Result<()> {
    match disk.kind(dir).map_err(|source| Error::io("look at", dir, source))? {
        Some(EntryKind::Directory) => {}
        _ => return Ok(()),
    }
    for entry in disk.list(dir).map_err(|source| Error::io("list", dir, source))? {
        if entry.kind != EntryKind::Directory {
            continue;
        }
        let partition = dir.join(&entry.name);
        remove_segments(disk, &partition, id)?;
        let _ = disk.remove_dir(&partition);
    }
    let _ = disk.remove_dir(dir);
    dir.parent().map_or(Ok(()), |parent| sync_dir(disk, parent))
}

fn remove_segments(disk: &dyn Disk, dir: &Path, id: TopicId) -> Result<()> {
    let entries = disk.list(dir).map_err(|source| Error::io("list", dir, source))?;
    for entry in entries.into_iter().filter(|entry| entry.kind == EntryKind::File) {
        let path: PathBuf = dir.join(&entry.name);
        let temporary = parse_temporary_segment_file_name(&entry.name).is_some();
        let ours = parse_segment_file_name(&entry.name).is_some() && bears_id(disk, &path, id);
        if temporary || ours {
            disk.remove_file(&path).map_err(|source| Error::io("remove", &path, source))?;
        }
    }
    Ok(())
}

fn bears_id(disk: &dyn Disk, path: &Path, id: TopicId) -> bool {
    let mut bytes = [0; SegmentHeader::SIZE];
    let read = disk.open(path, Access::Read).and_then(|file| file.read_at(&mut bytes, 0));
    read.is_ok() && SegmentHeader::decode(&bytes).is_ok_and(|header| header.topic_id == id)
}

//! Creates topics and partitions, in memory and on the disk.
//!
//! Owns: nothing that changes. Must not know: the stages of a creation, which the catalog records,
//! and which topics are live.

use std::ops::Range;
use std::sync::Arc;

use super::catalog::TopicEntry;
use super::context::Context;
use super::directories::{make_or_adopt_dir, sync_dir};
use super::workers::Workers;
use crate::config::{Cleanup, Durability, TopicConfig};
use crate::error::{Corruption, Result};
use crate::format::TopicId;
use crate::log::{Log, LogOptions, record_bytes_max};
use crate::partition::PartitionCore;
use crate::partition::compactor::CompactionSettings;
use crate::partition::encode::RecordRules;
use crate::partition::lineage::Lineage;
use crate::rules::Rule;
use crate::topic::{Succession, TopicShared};

/// See the module's documentation.
pub(super) struct TopicFactory {
    context: Arc<Context>,
    /// Served by all partitions that are made.
    workers: Arc<Workers>,
}

impl TopicFactory {
    pub(super) fn new(context: &Arc<Context>, workers: &Arc<Workers>) -> Self {
        Self { context: Arc::clone(context), workers: Arc::clone(workers) }
    }

    pub(super) fn new_topic_id(&self) -> TopicId {
        let random = &self.context.env.random;
        let mut id = [0; 16];
        let (high, low) = id.split_at_mut(8);
        high.copy_from_slice(&random().to_le_bytes());
        low.copy_from_slice(&random().to_le_bytes());
        TopicId(id)
    }

    pub(super) fn options(&self, config: &TopicConfig, durability: Durability) -> LogOptions {
        let writer = self.context.writer_for(durability);
        LogOptions { segment_bytes: config.segment_bytes, writer, has_budget: true, features: 0 }
    }

    /// The directory of a topic, and the directories and first segments of its partitions, all
    /// durable.
    pub(super) fn make_topic(&self, entry: &TopicEntry) -> Result<Arc<TopicShared>> {
        let (disk, settings) = (&*self.context.env.disk, &self.context.settings);
        let dir = settings.dir.join(&*entry.name);
        // DURABILITY: from the top down: each directory's own name in its parent, then its
        // contents.
        make_or_adopt_dir(disk, &dir)?;
        Rule::TopicDirName.keep(|| sync_dir(disk, &settings.dir))?;
        let partitions = self.make_partitions(entry, 0..entry.config.partitions)?;
        Ok(self.shared_topic(entry, partitions))
    }

    /// The directories and first segments of some of a topic's partitions, all durable.
    pub(super) fn make_partitions(
        &self,
        entry: &TopicEntry,
        numbers: Range<u32>,
    ) -> Result<Vec<Arc<PartitionCore>>> {
        let (disk, settings) = (&*self.context.env.disk, &self.context.settings);
        for number in numbers.clone() {
            make_or_adopt_dir(disk, &self.context.identity(entry, number).dir)?;
        }
        let dir = settings.dir.join(&*entry.name);
        Rule::PartitionDirName.keep(|| sync_dir(disk, &dir))?;
        let durability = self.context.durability_of(&entry.config);
        let make = |number| {
            let identity = self.context.identity(entry, number);
            let options = self.options(&entry.config, durability);
            let log = Log::create(&self.context.env, identity, options)?;
            Ok(self.partition_core(log, Lineage::default(), durability, None))
        };
        numbers.map(make).collect()
    }

    pub(super) fn partition_core(
        &self,
        log: Log,
        lineage: Lineage,
        durability: Durability,
        damage: Option<Corruption>,
    ) -> Arc<PartitionCore> {
        let background = Arc::clone(&self.workers);
        let clock = self.context.clock.clone();
        PartitionCore::new(log, lineage, durability, clock, background, damage)
    }

    /// What the handles of a topic share.
    pub(super) fn shared_topic(
        &self,
        entry: &TopicEntry,
        partitions: Vec<Arc<PartitionCore>>,
    ) -> Arc<TopicShared> {
        let settings = &self.context.settings;
        apply_compaction(&entry.config, &partitions);
        Arc::new(TopicShared {
            name: Arc::clone(&entry.name),
            id: entry.id,
            config: entry.config.clone(),
            durability: self.context.durability_of(&entry.config),
            rules: record_rules(&entry.config),
            partitions,
            read_only: settings.read_only.then(|| settings.dir.clone()),
            succession: Succession::first(),
        })
    }
}

/// The same topic with other settings or more partitions. The caller puts it in force.
pub(super) fn successor(
    topic: &TopicShared,
    config: TopicConfig,
    partitions: Vec<Arc<PartitionCore>>,
) -> Arc<TopicShared> {
    apply_compaction(&config, &partitions);
    let rules = record_rules(&config);
    topic.with(config, rules, partitions)
}

/// What records of a topic with these settings must obey.
fn record_rules(config: &TopicConfig) -> RecordRules {
    let held = record_bytes_max(config.segment_bytes);
    RecordRules {
        record_bytes_max: config.record_limit(held),
        timestamps: config.timestamps,
        needs_key: config.cleanup != Cleanup::Delete,
    }
}

/// Gives partitions the settings of their compaction.
fn apply_compaction(config: &TopicConfig, partitions: &[Arc<PartitionCore>]) {
    for partition in partitions {
        partition.compactor().set((config.cleanup != Cleanup::Delete).then_some(
            CompactionSettings {
                min_dirty_ratio: config.min_dirty_ratio,
                tombstone_retention: config.tombstone_retention,
                segment_bytes: config.segment_bytes,
            },
        ));
    }
}

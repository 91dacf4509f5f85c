//! Creates topics and partitions, in memory and on the disk.
//!
//! Owns: nothing that changes. Must not know: the stages of a creation, which the catalog records,
//! and which topics are live.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::catalog::TopicEntry;
use super::context::Context;
use super::directories::{make_or_adopt_dir, sync_dir};
use super::internal_logs::InternalLogs;
use super::last_run::LastRun;
use super::local::LocalChange;
use super::workers::Workers;
use crate::config::{Cleanup, Durability, RecoveryPolicy, TopicConfig};
use crate::error::{Corruption, Result};
use crate::format::TopicId;
use crate::log::open::{Known, PartitionRecovery};
use crate::log::unavailable::{damage_of, unavailable_log};
use crate::log::{Log, LogIdentity, LogOptions, record_bytes_max};
use crate::partition::PartitionCore;
use crate::partition::compactor::CompactionSettings;
use crate::partition::encode::RecordRules;
use crate::partition::lineage::Lineage;
use crate::rules::Rule;
use crate::topic::{Succession, TopicShared};

/// An open partition, its report, and the entries to add to `__local`.
pub(super) type OpenedPartition = (Arc<PartitionCore>, (PartitionRecovery, Vec<LocalChange>));

/// A partition whose files exist, before it is opened: what an opening has to know of it.
pub(super) struct StoredPartition {
    key: (TopicId, u32),
    durability: Durability,
    pub(super) identity: LogIdentity,
    pub(super) options: LogOptions,
    pub(super) known: Known,
}

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
    pub(super) fn make_topic(
        &self,
        entry: &TopicEntry,
        begins: &BTreeMap<u32, u64>,
    ) -> Result<Arc<TopicShared>> {
        let (disk, settings) = (&*self.context.env.disk, &self.context.settings);
        let dir = settings.dir.join(&*entry.name);
        // DURABILITY: from the top down: each directory's own name in its parent, then its
        // contents.
        make_or_adopt_dir(disk, &dir)?;
        Rule::TopicDirName.keep(|| sync_dir(disk, &settings.dir))?;
        let partitions = self.make_partitions(entry, 0..entry.config.partitions, begins)?;
        Ok(self.shared_topic(entry, partitions))
    }

    /// The directories and first segments of some of a topic's partitions, all durable. `begins`
    /// are the offsets of the first records, where they are not 0.
    pub(super) fn make_partitions(
        &self,
        entry: &TopicEntry,
        numbers: Range<u32>,
        begins: &BTreeMap<u32, u64>,
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
            let begin = begins.get(&number).copied().unwrap_or(0);
            let log = Log::create(&self.context.env, identity, options, begin)?;
            Ok(self.partition_core(log, Lineage::default(), durability, None))
        };
        numbers.map(make).collect()
    }

    /// A partition that an earlier run had, or another broker has.
    pub(super) fn stored_partition(
        &self,
        logs: &InternalLogs,
        entry: &TopicEntry,
        number: u32,
        last_run: LastRun,
    ) -> StoredPartition {
        let (context, key) = (&self.context, (entry.id, number));
        let durability = context.durability_of(&entry.config);
        StoredPartition {
            key,
            durability,
            identity: context.identity(entry, number),
            options: self.options(&entry.config, durability),
            known: last_run.known(&context.settings, logs.local(), key),
        }
    }

    /// A partition as an opening of its log has found it, and what to add to `__local`.
    pub(super) fn found_partition(
        &self,
        logs: &InternalLogs,
        stored: StoredPartition,
        opened: Result<(Log, PartitionRecovery)>,
    ) -> Result<OpenedPartition> {
        let StoredPartition { key, durability, identity, options, known } = stored;
        let (mut log, recovery, damage) = match opened {
            Ok((log, recovery)) => (log, recovery, None),
            // Damage of one topic does not prevent the others from opening.
            Err(error) if known.policy != RecoveryPolicy::Strict => {
                let damage = damage_of(&identity, &error).ok_or(error)?;
                let env = &self.context.env;
                let (log, recovery) = unavailable_log(env, identity, options, &known, &damage);
                (log, recovery, Some(damage))
            }
            Err(error) => return Err(error),
        };
        let start = start_found(key, &known, &log);
        // A read-only broker recovers nothing, and does not see the recoveries of the other broker.
        let (lineage, change) = if self.context.settings.read_only {
            (Lineage::default(), None)
        } else {
            lineage_of(logs, key, &mut log)
        };
        let changes = change.into_iter().chain(start).collect::<Vec<_>>();
        let core = self.partition_core(log, lineage, durability, damage);
        Ok((core, (recovery, changes)))
    }

    /// A partition that a read-only broker opens again. `lineage` has the cuts that it has noticed.
    pub(super) fn reopened_partition(
        &self,
        stored: &StoredPartition,
        lineage: Lineage,
        log: Log,
    ) -> Arc<PartitionCore> {
        self.partition_core(log, lineage, stored.durability, None)
    }

    pub(super) fn partition_core(
        &self,
        log: Log,
        lineage: Lineage,
        durability: Durability,
        damage: Option<Corruption>,
    ) -> Arc<PartitionCore> {
        let background = Arc::clone(&self.workers);
        let (lead, clock) = (self.context.lead(), self.context.clock.clone());
        PartitionCore::new(log, lineage, durability, &lead, clock, background, damage)
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

/// The log start to record for a partition without a recorded one: the next opening could not
/// notice that the entry was lost.
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

/// The incarnations of a log that was just opened, and the entry to add for them.
fn lineage_of(
    logs: &InternalLogs,
    (topic, partition): (TopicId, u32),
    log: &mut Log,
) -> (Lineage, Option<LocalChange>) {
    let known = logs.local().read(|local| local.lineages.get(&(topic, partition)).cloned());
    let mut lineage = known.unwrap_or_default();
    if log.epochs().is_new_incarnation {
        lineage.begin(log.epochs().incarnation, log.log_end());
        let change = LocalChange::Lineage { topic, partition, lineage: lineage.clone() };
        return (lineage, Some(change));
    }
    if let Some(current) = lineage.current() {
        log.continue_incarnation(current);
    }
    (lineage, None)
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

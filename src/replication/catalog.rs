//! `EngineCatalog`: the logs of a group over a real broker: `__meta`, `__offsets` and the partitions of all
//! topics.
//!
//! Owns: which part of the engine is called for which log, and what a record of `__meta` needs before it
//! is stored. Must not know: roles, messages, and what the state machine makes of a change.
//!
//! `__meta` and `__offsets` have a state in memory, which follows their log: they are changed through
//! [`ReplicatedLog`]. What a follower receives of `__meta` is stored batch by batch, because a later
//! record may need that an earlier one is durable ([`FollowedTopics`]).

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::log_key::LogKey;
use super::logs::MetaChange;
use super::membership::{DirectoryId, GroupId, Membership};
use super::shell::Catalog;
use crate::broker::Broker;
use crate::broker::catalog::{
    CatalogChange, CatalogRecord, CreatedIn, MembersEntry, Stage, TopicEntry, records,
};
use crate::broker::internal_logs::{META, OFFSETS};
use crate::broker::replicated_logs::ReplicatedLog;
use crate::broker::topics::followed::{Ahead, FollowedTopics, Made};
use crate::config::Durability;
use crate::error::Result;
use crate::format::TopicId;
use crate::log::replica::received::Received;
use crate::log::replica::refusal::Failure;
use crate::partition::PartitionCore;
use crate::partition::quorum::Quorum;
use crate::partition::replica::Replica;
use crate::partition::state_log::replicated::lead_with;
use crate::record::NodeId;

/// LIMIT: how many partitions are made at a time, each with a few syncs: beats are answered in between,
/// also on a slow disk.
const MADE_AT_A_TIME: usize = if cfg!(test) { 16 } else { 4 };

pub(crate) struct EngineCatalog {
    broker: Broker,
    /// Partitions that were made for records that are not stored yet.
    prepared: RefCell<Made>,
}

impl EngineCatalog {
    pub(crate) fn new(broker: &Broker) -> Self {
        Self { broker: broker.clone(), prepared: RefCell::default() }
    }

    fn meta(&self) -> ReplicatedLog<'_> {
        ReplicatedLog::meta(self.broker.run().logs())
    }

    fn offsets(&self) -> ReplicatedLog<'_> {
        ReplicatedLog::offsets(self.broker.run().logs())
    }

    /// One of the two logs that have a state in memory.
    fn internal(&self, key: LogKey) -> Option<ReplicatedLog<'_>> {
        match key {
            LogKey::Meta => Some(self.meta()),
            LogKey::Offsets => Some(self.offsets()),
            LogKey::Partition { .. } => None,
        }
    }

    fn append_meta(&self, received: Received<'_>) -> Result<(), Failure> {
        let topics = FollowedTopics::of(self.broker.run().topics())?;
        let mut made = self.prepared.take();
        for batch in received.each() {
            let mut ids = BTreeSet::new();
            for (_, record) in records(batch.bytes) {
                let CatalogRecord::Change(change) = record else { continue };
                topics.prepare(&change, &mut made)?;
                ids.extend(topic_of(&change));
            }
            let was_whole = self.meta().state().is_whole();
            self.meta().state().append_received(&batch)?;
            if self.meta().state().is_whole() != was_whole {
                ids.clear();
                topics.reconcile_all(&mut made)?;
            }
            for id in ids {
                topics.reconcile(id, &mut made)?;
            }
        }
        *self.prepared.borrow_mut() = made;
        Ok(())
    }
}

impl Catalog for EngineCatalog {
    fn counts_synced(&self) -> bool {
        self.broker.run().context().settings.durability == Durability::Sync
    }

    fn partition(&self, key: LogKey) -> Option<(TopicId, Arc<PartitionCore>)> {
        match key {
            LogKey::Meta => Some((META.1, Arc::clone(self.meta().state().partition()))),
            LogKey::Offsets => Some((OFFSETS.1, Arc::clone(self.offsets().state().partition()))),
            LogKey::Partition { topic, partition } => {
                let topic = self.broker.run().live().of_id(TopicId(topic.to_le_bytes()))?;
                Some((topic.id, Arc::clone(topic.partition(partition).ok()?)))
            }
        }
    }

    fn settled_partition(&self, key: LogKey) -> Option<(TopicId, Arc<PartitionCore>)> {
        self.partition(key).or_else(|| {
            let _settled = FollowedTopics::of(self.broker.run().topics()).ok()?;
            self.partition(key)
        })
    }

    fn prepare(&self, received: &[Received<'_>]) -> Result<bool, Failure> {
        let topics = FollowedTopics::of(self.broker.run().topics())?;
        let (mut made, mut rest) = (self.prepared.borrow_mut(), MADE_AT_A_TIME);
        for (_, record) in received.iter().flat_map(|it| records(it.bytes)) {
            let CatalogRecord::Change(change) = record else { continue };
            match topics.prepare_ahead(&change, &mut made, &mut rest)? {
                Ahead::Made => {}
                Ahead::Missing => return Ok(false),
                Ahead::Later => break,
            }
        }
        Ok(true)
    }

    fn forget_prepared(&self) {
        self.prepared.take().give_up();
    }

    fn changes(&self, batches: &[u8]) -> Vec<(u64, MetaChange)> {
        let inherited = self.broker.run().context().settings.durability;
        changes(records(batches), inherited)
    }

    fn lacks_below(&self) -> u64 {
        if self.meta().state().is_whole() {
            return 0;
        }
        let starts = |starts: &crate::broker::local::LocalState| {
            starts.log_starts.get(&(META.1, 0)).copied()
        };
        self.broker.run().logs().local().read(starts).unwrap_or_default()
    }

    fn append_membership(&self, membership: &Membership) -> Result<()> {
        self.broker.run().logs().catalog().append_durably(vec![members(membership)])
    }

    fn begin_group(&self, membership: &Membership, epoch: u32) -> Result<(), Failure> {
        let begin = || {
            if let Some(leadership) = &self.broker.run().context().leadership {
                leadership.lead(epoch);
            }
        };
        lead_with(self.broker.run().logs().catalog(), epoch, members(membership), begin)
    }

    fn append(
        &self,
        key: LogKey,
        received: Received<'_>,
        sparse_below: u64,
    ) -> Result<(), Failure> {
        match key {
            LogKey::Meta => self.append_meta(received),
            LogKey::Offsets => self.offsets().state().append_received(&received).map(drop),
            LogKey::Partition { .. } => {
                let Some((_, core)) = self.partition(key) else { return Ok(()) };
                begin_within(&core, &received)?;
                Replica::of(&core).append(&received, sparse_below).map(drop)
            }
        }
    }

    fn truncate(&self, key: LogKey, to: u64) -> Result<u64, Failure> {
        if let Some(log) = self.internal(key) {
            let topics = FollowedTopics::of(self.broker.run().topics())?;
            let end = log.truncate(to, to)?;
            if key == LogKey::Meta {
                topics.reconcile_all(&mut Made::default())?;
            }
            return Ok(end);
        }
        // What a truncation of `__meta` removes has no partition any more.
        let Some((_, core)) = self.partition(key) else { return Ok(to) };
        Replica::of(&core).truncate(to, to)
    }

    fn begin_anew(&self, key: LogKey, start: u64) -> Result<(), Failure> {
        if let Some(log) = self.internal(key) {
            return log.begin_anew(start).map(drop);
        }
        let Some((_, core)) = self.partition(key) else { return Ok(()) };
        Replica::of(&core).begin_anew(start, None).map(drop)
    }

    fn raise_start(&self, key: LogKey, start: u64) -> Result<()> {
        match (key, self.partition(key)) {
            (LogKey::Partition { .. }, Some((topic, core))) => {
                self.broker.run().space().retention().raise_start(topic, &core, start)
            }
            _ => Ok(()),
        }
    }

    fn advance(&self, key: LogKey, offset: u64) {
        if let Some(log) = self.internal(key) {
            log.state().advance(offset);
        } else if let Some((_, core)) = self.partition(key) {
            Quorum::of(&core).advance(offset);
        }
    }

    fn advance_synced(&self, key: LogKey, offset: u64) {
        if let Some((_, core)) = self.partition(key) {
            Quorum::of(&core).advance_synced(offset);
        }
    }

    fn lead(&self, key: LogKey, epoch: u32) -> Result<(), Failure> {
        match (self.internal(key), self.settled_partition(key)) {
            (Some(log), _) => log.state().lead(epoch),
            (None, Some((_, core))) => Replica::of(&core).set_epoch(epoch),
            (None, None) => Ok(()),
        }
    }

    fn follow(&self) {
        self.meta().state().follow();
        self.offsets().state().follow();
    }
}

/// The record that says who the members are.
fn members(membership: &Membership) -> CatalogChange {
    let directories = membership.directories().map(|(node, directory)| (node.0, directory.0));
    let group = membership.group().0;
    CatalogChange::Members(MembersEntry { group, directories: directories.collect() })
}

/// The log start of the leader lies within a batch, with which the empty log begins.
fn begin_within(core: &PartitionCore, received: &Received<'_>) -> Result<(), Failure> {
    let (start, end) = (core.log_start(), core.log_end());
    if start == end && received.base_offset < start {
        Replica::of(core).begin_anew(start, Some(received))?;
    }
    Ok(())
}

/// The topic that a record of `__meta` says something of.
fn topic_of(change: &CatalogChange) -> Option<TopicId> {
    match change {
        CatalogChange::Topic(entry, _) | CatalogChange::GroupTopic(entry, ..) => Some(entry.id),
        CatalogChange::TopicGone(id) => Some(*id),
        _ => None,
    }
}

/// What records of `__meta` change for replication; `inherited` is the level of topics that have none
/// of their own. Pure.
fn changes(records: Vec<(u64, CatalogRecord)>, inherited: Durability) -> Vec<(u64, MetaChange)> {
    let each = records.into_iter().flat_map(|(offset, record)| {
        let found = match record {
            CatalogRecord::Trim(start) => vec![MetaChange::Trimmed(start)],
            CatalogRecord::Change(CatalogChange::Members(entry)) => {
                let of = |(node, directory)| (NodeId(node), DirectoryId(directory));
                let directories = entry.directories.into_iter().map(of);
                vec![MetaChange::Members(Membership::new(GroupId(entry.group), directories))]
            }
            CatalogRecord::Change(CatalogChange::Topic(entry, stage)) => {
                of_topic(&entry, stage, &[], inherited)
            }
            CatalogRecord::Change(CatalogChange::GroupTopic(entry, stage, created)) => {
                of_topic(&entry, stage, &created, inherited)
            }
            CatalogRecord::Change(_) => Vec::new(),
        };
        found.into_iter().map(move |change| (offset, change))
    });
    each.collect()
}

/// What a stage of a topic means for its logs.
fn of_topic(
    entry: &TopicEntry,
    stage: Stage,
    created: &[CreatedIn],
    inherited: Durability,
) -> Vec<MetaChange> {
    let topic = u128::from_le_bytes(entry.id.0);
    let counts_synced = entry.config.durability.unwrap_or(inherited) == Durability::Sync;
    let epochs =
        created.iter().flat_map(|of| std::iter::repeat_n(of.epoch, of.partitions as usize));
    let epochs = epochs.chain(std::iter::repeat(0));
    let logs = (0..entry.config.partitions).zip(epochs);
    let change = |(partition, epoch)| {
        let log = LogKey::Partition { topic, partition };
        let epoch = crate::record::LeaderEpoch(epoch);
        match stage {
            Stage::Live | Stage::Growing(_) => {
                Some(MetaChange::Created { log, counts_synced, epoch })
            }
            Stage::Deleting => Some(MetaChange::Deleted(log)),
            Stage::Creating => None,
        }
    };
    logs.filter_map(change).collect()
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::config::TopicConfig;
    use crate::record::LeaderEpoch;

    fn entry(partitions: u32, durability: Option<Durability>) -> TopicEntry {
        let config = TopicConfig { durability, ..TopicConfig::new(partitions) };
        TopicEntry { name: "t".into(), id: TopicId([1; 16]), config }
    }

    fn log(partition: u32) -> LogKey {
        LogKey::Partition { topic: u128::from_le_bytes([1; 16]), partition }
    }

    fn created(partition: u32, counts_synced: bool, epoch: u32) -> MetaChange {
        let epoch = LeaderEpoch(epoch);
        MetaChange::Created { log: log(partition), counts_synced, epoch }
    }

    /// A copy says the same as the record that it repeats, wherever it is in the log.
    #[test]
    fn a_record_of_a_topic_says_which_logs_there_are_and_since_when() {
        let say = |change| changes(vec![(7, CatalogRecord::Change(change))], Durability::Sync);
        let epochs =
            vec![CreatedIn { epoch: 0, partitions: 1 }, CreatedIn { epoch: 4, partitions: 2 }];
        let ours = |stage| CatalogChange::GroupTopic(entry(3, None), stage, epochs.clone());
        let all = [(7, created(0, true, 0)), (7, created(1, true, 4)), (7, created(2, true, 4))];
        assert_eq!(say(ours(Stage::Live)), all);
        assert_eq!(say(ours(Stage::Growing(9))), all);
        assert_eq!(say(ours(Stage::Creating)), []);
        let deleted = [0, 1, 2].map(|partition| (7, MetaChange::Deleted(log(partition))));
        assert_eq!(say(ours(Stage::Deleting)), deleted);
        let old = CatalogChange::Topic(entry(1, Some(Durability::Os)), Stage::Live);
        assert_eq!(say(old), [(7, created(0, false, 0))]);
        assert_eq!(say(CatalogChange::TopicGone(TopicId([1; 16]))), []);
    }

    #[test]
    fn memberships_and_trims_are_found_too() {
        let directories = vec![(1, 5), (2, 6)];
        let members = CatalogChange::Members(MembersEntry { group: 3, directories });
        let records = vec![(2, CatalogRecord::Change(members)), (3, CatalogRecord::Trim(1))];
        let of = [(NodeId(1), DirectoryId(5)), (NodeId(2), DirectoryId(6))];
        let members = MetaChange::Members(Membership::new(GroupId(3), of));
        let found = changes(records, Durability::Os);
        assert_eq!(found, [(2, members), (3, MetaChange::Trimmed(1))]);
    }
}

//! One snapshot of all that a broker counts.
//!
//! The order makes the parts agree: groups are looked at first, then each partition, and lag is
//! what lies between the two; so no group is ever seen ahead of a log.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;

use super::engine::Engine;
use crate::group::inspect::{self, GroupView};
use crate::group::progress::{self, GroupOffset, GroupStatus, TopicTable};
use crate::partition::PartitionCore;
use crate::partition::metrics::PartitionMetrics;
use crate::record::TopicPartition;

/// What a broker has counted since it was opened, and its present state: plain numbers, to be
/// matched on or serialised.
///
/// The numbers of one partition belong together, as [`PartitionMetrics`] says; two partitions may
/// be read moments apart. A group's lag is counted to the log end of this snapshot, from a commit
/// that was read before.
///
/// ```
/// # use logpond::{Broker, Record, TopicConfig};
/// # let broker = Broker::in_memory()?;
/// # broker.ensure_topic("orders", TopicConfig::new(1))?;
/// # broker.producer().send(Record::to("orders").value("2 apples"))?;
/// let metrics = broker.metrics();
/// assert_eq!(metrics.topics[0].partitions[0].appended.records, 1);
/// assert!(metrics.poisoned.is_empty());
/// # Ok::<(), logpond::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Metrics {
    /// Whether the broker lives on heap memory.
    pub is_in_memory: bool,
    /// What the files of all topics take of the byte budget, in bytes; counted without one, too.
    pub budget_used_bytes: u64,
    /// The budget, [`max_total_bytes`](crate::BrokerBuilder::max_total_bytes); `None` without.
    pub budget_limit_bytes: Option<u64>,
    /// Bytes of removed segments that messages or consumers still map, of deleted topics too.
    pub pinned_bytes: u64,
    /// Bytes of sealed segments that are mapped for reading. A map is given up within two minutes
    /// of its last use; a removed segment is counted for up to a minute.
    pub mapped_bytes: u64,
    /// Partitions in which a sync has failed, the engine's own included.
    pub poisoned: Vec<TopicPartition>,
    /// How often any group made a new plan of who owns what.
    pub rebalances: u64,
    /// Members of any group that were evicted because they had stopped polling.
    pub evictions: u64,
    /// Rounds of background work that ended in a panic. The threads continue, and what they were
    /// at is tried again.
    pub background_panics: u64,
    /// Groups that have expired: see [`group_expiry`](crate::BrokerBuilder::group_expiry).
    pub groups_expired: u64,
    /// Named producers that have expired: not held for 30 days.
    pub producers_expired: u64,
    /// The topics, by name.
    pub topics: Vec<TopicMetrics>,
    /// The internal logs: committed offsets, the catalog, what is true of this machine only.
    pub internal: Vec<TopicMetrics>,
    /// The groups that have members or have committed anything, by name.
    pub groups: Vec<GroupMetrics>,
}

/// The numbers of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TopicMetrics {
    /// The topic's name.
    pub name: Arc<str>,
    /// One entry per partition, in order.
    pub partitions: Vec<PartitionMetrics>,
}

/// The numbers of a group. Those of the coordinator are taken under the group's lock at one moment;
/// counts begin at zero when the broker is opened, or when the group had no members left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct GroupMetrics {
    /// The group's name.
    pub name: Arc<str>,
    /// What it is doing.
    pub state: GroupStatus,
    /// Consumers that are members.
    pub members: usize,
    /// Static members that are waited for.
    pub members_away: usize,
    /// Rebalances: it rises by one with each new plan of who owns what.
    pub generation: u64,
    /// How often a partition was given to a member.
    pub assignments: u64,
    /// Members that were evicted because they had stopped polling.
    pub evictions: u64,
    /// Offsets that the group has not committed and can still read, over all partitions.
    pub lag: u64,
    /// The same by partition: what is committed or assigned.
    pub offsets: Vec<GroupOffset>,
}

/// What was seen of the partitions, by identity.
type Seen = HashMap<*const PartitionCore, PartitionMetrics>;

pub(super) fn snapshot(engine: &Engine) -> Metrics {
    let (rebalances, evictions) = inspect::totals(engine.coordinator());
    let views = inspect::views(engine.coordinator());
    let mut pinned: HashMap<*const TopicPartition, u64> = HashMap::new();
    for (origin, bytes) in engine.context().env.pinned.by_partition() {
        *pinned.entry(Arc::as_ptr(&origin)).or_default() += bytes;
    }
    let pinned_of = |core: &PartitionCore| pinned.get(&Arc::as_ptr(&core.origin)).copied();
    let look = |core: &Arc<PartitionCore>| core.metrics(pinned_of(core).unwrap_or(0));

    let topics = engine.live().all();
    let cores = || topics.iter().flat_map(|topic| &topic.partitions);
    let mut seen: Seen = cores().map(|core| (Arc::as_ptr(core), look(core))).collect();
    let table = TopicTable::new(&topics);
    let groups = views.into_iter().map(|(name, view)| {
        let offsets =
            progress::offsets_of(&view, &table, |core| match seen.get(&Arc::as_ptr(core)) {
                Some(seen) => seen.log_start_offset..seen.readable_end(),
                None => 0..0,
            });
        group_metrics(name, &view, offsets)
    });
    let groups = groups.collect();
    let internal = engine.logs().partitions();
    let internal: Vec<_> = internal
        .iter()
        .map(|core| {
            let name = Arc::clone(&core.origin.topic);
            TopicMetrics { name, partitions: vec![look(core)] }
        })
        .collect();
    let topics: Vec<_> = topics
        .iter()
        .map(|topic| {
            let of_topic = topic.partitions.iter();
            let partitions = of_topic.filter_map(|core| seen.remove(&Arc::as_ptr(core)));
            TopicMetrics { name: Arc::clone(&topic.name), partitions: partitions.collect() }
        })
        .collect();
    let space = &engine.context().env.space;
    Metrics {
        is_in_memory: engine.context().settings.in_memory,
        budget_used_bytes: space.used(),
        budget_limit_bytes: Some(space.limit()).filter(|limit| *limit != u64::MAX),
        pinned_bytes: pinned.values().sum(),
        mapped_bytes: engine.context().env.maps.bytes(),
        poisoned: poisoned(topics.iter().chain(&internal)),
        rebalances,
        evictions,
        background_panics: engine.workers().panics(),
        groups_expired: engine.expiry().groups_expired(),
        producers_expired: engine.producers().expired(),
        topics,
        internal,
        groups,
    }
}

fn poisoned<'a>(topics: impl Iterator<Item = &'a TopicMetrics>) -> Vec<TopicPartition> {
    let of_topic = |topic: &'a TopicMetrics| {
        let poisoned = topic.partitions.iter().filter(|partition| partition.is_poisoned);
        poisoned
            .map(|it| TopicPartition { topic: Arc::clone(&topic.name), partition: it.partition })
    };
    topics.flat_map(of_topic).collect()
}

fn group_metrics(name: Arc<str>, view: &GroupView, offsets: Vec<GroupOffset>) -> GroupMetrics {
    let members = view.members.iter().filter(|member| member.is_live).count();
    GroupMetrics {
        name,
        state: progress::status_of(view),
        members,
        members_away: view.members.len().saturating_sub(members),
        generation: view.generation,
        assignments: view.assignments,
        evictions: view.evictions,
        lag: offsets.iter().fold(0, |sum, offset| sum.saturating_add(offset.lag)),
        offsets,
    }
}

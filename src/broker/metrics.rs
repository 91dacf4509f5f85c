//! One snapshot of everything that a broker counts.
//!
//! Groups are read first, then each partition, and lag is the difference. In this order no group
//! ever appears to be ahead of a log.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;

use super::engine::Engine;
#[cfg(feature = "replication")]
use super::replication_metrics::ReplicationMetrics;
use crate::group::inspect::{self, GroupView};
use crate::group::progress::{self, GroupOffset, GroupStatus, TopicTable};
use crate::partition::PartitionCore;
use crate::partition::metrics::PartitionMetrics;
use crate::record::TopicPartition;

/// A snapshot of all counters and gauges of a broker, returned by
/// [`Broker::metrics`](crate::Broker::metrics). Counters begin at zero when the broker is opened.
///
/// The values of one partition are of one moment, except as [`PartitionMetrics`] says; two
/// partitions may be read at slightly different moments. The lag of a group ends at the log end
/// offset of this snapshot, and begins at a commit that was read before.
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
    /// Whether the broker is in memory, without files.
    pub is_in_memory: bool,
    /// Allocated bytes of the files of all topics, as `budget_limit_bytes` counts them.
    pub budget_used_bytes: u64,
    /// The limit, [`max_total_bytes`](crate::BrokerBuilder::max_total_bytes); `None` without one.
    pub budget_limit_bytes: Option<u64>,
    /// Bytes of removed segments that use disk space because messages or consumers still map them,
    /// including those of deleted topics.
    pub pinned_bytes: u64,
    /// Bytes of full segments that are mapped for reading. A segment is unmapped within two minutes
    /// of its last use; a removed segment is counted for up to a minute.
    pub mapped_bytes: u64,
    /// Partitions that take no appends after a failed sync or a panic, including those of the
    /// internal logs.
    pub poisoned: Vec<TopicPartition>,
    /// Rebalances of all groups.
    pub rebalances: u64,
    /// Members of all groups that were evicted because they had stopped polling.
    pub evictions: u64,
    /// Rounds of background work that ended in a panic. The threads continue, and try the work
    /// again.
    pub background_panics: u64,
    /// Groups that have expired: see [`group_expiry`](crate::BrokerBuilder::group_expiry).
    pub groups_expired: u64,
    /// Producer ids that have expired: no producer had them for 30 days.
    pub producers_expired: u64,
    /// The topics, by name.
    pub topics: Vec<TopicMetrics>,
    /// The internal logs, in which the broker stores its own state: `__meta` (topics, producer
    /// ids), `__offsets` (commits) and `__local` (what is true of this machine only).
    pub internal: Vec<TopicMetrics>,
    /// The groups that have members or commits, by name.
    pub groups: Vec<GroupMetrics>,
    /// The broker as a member of a replicated group; `None` if it is none.
    #[cfg(feature = "replication")]
    pub replication: Option<ReplicationMetrics>,
}

/// The metrics of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TopicMetrics {
    /// The topic's name.
    pub name: Arc<str>,
    /// One entry per partition, in order.
    pub partitions: Vec<PartitionMetrics>,
}

/// The metrics of a group. Those about members are of one moment. Counters begin at zero when the
/// broker is opened, and again when the group has lost its last member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct GroupMetrics {
    /// The group's name.
    pub name: Arc<str>,
    /// Whether it has members, and whether a rebalance is running.
    pub state: GroupStatus,
    /// Open consumers that are members.
    pub members: usize,
    /// Static members whose consumers are not open, and whose partitions are kept for them.
    pub members_away: usize,
    /// The number of rebalances.
    pub generation: u64,
    /// How often a partition was given to a member.
    pub assignments: u64,
    /// Members that were evicted because they had stopped polling.
    pub evictions: u64,
    /// Offsets that the group has not committed and can still read, over all partitions.
    pub lag: u64,
    /// One entry per partition with a commit or an owner, and per partition of a topic that the
    /// group has ever subscribed to, by name or by pattern.
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
    let table = TopicTable::new(&topics, views.iter().map(|(_, view)| view));
    let groups = views.into_iter().map(|(name, view)| {
        let offsets =
            progress::offsets_of(&view, &table, |core| match seen.get(&Arc::as_ptr(core)) {
                Some(seen) => {
                    let end = seen.readable_end().min(core.log().ends().watermark());
                    seen.log_start_offset..end
                }
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
        #[cfg(feature = "replication")]
        replication: engine.attached().map(|attached| attached.metrics()),
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

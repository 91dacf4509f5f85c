//! Administration: creates, changes, deletes, describes and verifies topics, and manages groups.
//!
//! Owns: the [`Admin`] handle, and the contents of its reports. Must not know: files, threads; the
//! broker and the partitions do the work.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

pub use self::compaction::CompactionReport;
use crate::broker::{Broker, Run};
use crate::config::{TopicConfig, Visibility};
use crate::error::{Error, Result};
use crate::partition::metrics::CompactionStats;
use crate::topic::{Topic, TopicShared};

pub use self::groups::{GroupInfo, GroupMember, GroupOffset, GroupStatus};
pub use self::verify::VerifyReport;

mod compaction;
mod groups;
mod retention;
mod topics;
mod verify;

impl Broker {
    /// Returns a handle for administration: topics, groups, retention, compaction, verification.
    #[doc(alias = "AdminClient")]
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin { broker: self.clone() }
    }
}

/// Creates, changes, deletes, describes and verifies topics and groups; made by [`Broker::admin`].
/// Cheap to clone; keeps the broker open.
///
/// ```
/// # use logpond::{Broker, Record, StartAt, TopicConfig};
/// # let broker = Broker::in_memory()?;
/// let admin = broker.admin();
/// admin.create_topic("orders", TopicConfig::new(2))?;
/// admin.add_partitions("orders", 4)?;
/// assert_eq!(admin.describe_topic("orders")?.partitions.len(), 4);
///
/// broker.consumer("billing").subscribe(["orders"]).open()?.close()?;
/// let offsets = admin.reset_offsets("billing", "orders", StartAt::Earliest)?;
/// assert_eq!(offsets.len(), 4);
/// # Ok::<(), logpond::Error>(())
/// ```
#[doc(alias = "AdminClient")]
#[doc(alias = "KafkaAdminClient")]
#[derive(Clone)]
pub struct Admin {
    broker: Broker,
}

/// The description of a topic that [`Admin::describe_topic`] returns.
#[doc(alias = "TopicDescription")]
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TopicInfo {
    /// The topic's name.
    pub name: Arc<str>,
    /// Its settings.
    pub config: TopicConfig,
    /// One entry per partition, in order.
    pub partitions: Vec<PartitionInfo>,
}

/// The description of a partition, in a [`TopicInfo`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PartitionInfo {
    /// The partition's number.
    pub partition: u32,
    /// The first offset that can be read.
    pub log_start_offset: u64,
    /// The offset that the next record gets.
    pub log_end_offset: u64,
    /// All records below this offset are on stable storage.
    pub durable_end_offset: u64,
    /// Consumers see all records below this offset.
    pub high_watermark: u64,
    /// How many segment files it has.
    pub segments: usize,
    /// How far it is compacted; `None` if [`Cleanup`](crate::Cleanup) is `Delete`.
    pub compaction: Option<CompactionStats>,
}

impl Admin {
    fn run(&self) -> &Arc<Run> {
        self.broker.run()
    }

    /// Creates a topic.
    ///
    /// # Errors
    ///
    /// [`Error::TopicExists`](crate::Error::TopicExists);
    /// [`Error::InvalidName`](crate::Error::InvalidName); [`Error::Config`](crate::Error::Config)
    /// for a setting with an impossible value; [`Error::StorageFull`](crate::Error::StorageFull),
    /// [`Error::Io`](crate::Error::Io), [`Error::ReadOnly`](crate::Error::ReadOnly),
    /// [`Error::Closed`](crate::Error::Closed).
    ///
    /// On a replicated broker also [`Error::NotLeader`](crate::Error::NotLeader) and
    /// [`Error::NotEnoughReplicas`](crate::Error::NotEnoughReplicas), and, when it is not known whether
    /// a majority of the members keeps the change,
    /// [`Error::LeadershipLost`](crate::Error::LeadershipLost) and
    /// [`Error::Timeout`](crate::Error::Timeout).
    ///
    /// # Durability
    ///
    /// On return the topic exists after any crash. After a crash before that, either the whole
    /// topic exists or nothing of it.
    ///
    /// # Blocking
    ///
    /// For the disk: a few syncs per partition. On a replicated broker, for a majority of the members.
    #[doc(alias = "createTopics")]
    pub fn create_topic(&self, name: &str, config: TopicConfig) -> Result<Topic> {
        let run = self.run();
        run.leading().check()?;
        let shared = run.topics().create(name, config, &BTreeMap::new())?;
        Ok(Topic::new(shared, self.broker.lifeline()))
    }

    /// Creates a topic some of whose partitions begin at another offset than 0: the first record
    /// that is appended gets it. So a mirror gives each record the offset that it has in its
    /// source.
    ///
    /// ```
    /// # use logpond::{Broker, Record, TopicConfig};
    /// # let broker = Broker::in_memory()?;
    /// let mirror = broker.admin().create_topic_at("orders", TopicConfig::new(2), [(0, 1_000)])?;
    /// assert_eq!(mirror.partition(0)?.append(&Record::new().value("2 apples"))?, 1_000);
    /// assert_eq!(mirror.partition(1)?.append(&Record::new().value("1 pear"))?, 0);
    /// # Ok::<(), logpond::Error>(())
    /// ```
    ///
    /// The offsets below are as those of removed records: `StartAt::Earliest` is the chosen offset,
    /// and so is any start below it, of a seek or a reset. A consumer that resumes at a commit below
    /// it reports a [`Gap`](crate::Gap).
    ///
    /// # Errors
    ///
    /// Those of [`create_topic`](Self::create_topic);
    /// [`Error::UnknownPartition`](crate::Error::UnknownPartition) for a partition that the topic
    /// will not have; [`Error::Config`](crate::Error::Config) for a partition that is named twice,
    /// for an offset above the highest one that a record can have, and for any offset above 0 on a
    /// replicated broker: a follower that makes the partition does not know where it begins.
    ///
    /// # Durability
    ///
    /// On return the topic exists after any crash. After a crash before that, either the whole
    /// topic exists or nothing of it.
    ///
    /// # Blocking
    ///
    /// For the disk: a few syncs per partition. On a replicated broker, for a majority of the members.
    pub fn create_topic_at(
        &self,
        name: &str,
        config: TopicConfig,
        begin: impl IntoIterator<Item = (u32, u64)>,
    ) -> Result<Topic> {
        let run = self.run();
        run.leading().check()?;
        let mut begins = BTreeMap::new();
        for (partition, offset) in begin {
            if begins.insert(partition, offset).is_some() {
                let reason = format!("partition {partition} is named twice");
                return Err(Error::config("begin", reason));
            }
        }
        let shared = run.topics().create(name, config, &begins)?;
        Ok(Topic::new(shared, self.broker.lifeline()))
    }

    /// Deletes a topic, its records, and the committed offsets of groups for it. Messages that the
    /// program holds stay readable. Calls on other handles of the topic, also calls that are
    /// waiting, return [`Error::UnknownTopic`](crate::Error::UnknownTopic).
    ///
    /// # Errors
    ///
    /// [`Error::UnknownTopic`](crate::Error::UnknownTopic);
    /// [`Error::ReadOnly`](crate::Error::ReadOnly); [`Error::Closed`](crate::Error::Closed). After
    /// [`Error::Io`](crate::Error::Io) the topic is deleted, and the next opening removes the rest
    /// of its files.
    ///
    /// On a replicated broker also [`Error::NotLeader`](crate::Error::NotLeader) and
    /// [`Error::NotEnoughReplicas`](crate::Error::NotEnoughReplicas), and, when it is not known whether
    /// a majority of the members keeps the change,
    /// [`Error::LeadershipLost`](crate::Error::LeadershipLost) and
    /// [`Error::Timeout`](crate::Error::Timeout).
    ///
    /// # Durability
    ///
    /// On return the topic does not exist after any crash.
    ///
    /// # Blocking
    ///
    /// For the disk. On a replicated broker, for a majority of the members.
    #[doc(alias = "deleteTopics")]
    pub fn delete_topic(&self, name: &str) -> Result<()> {
        self.run().leading().check()?;
        self.run().topics().delete(name)
    }

    /// Returns the descriptions of all topics, sorted by name.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`](crate::Error::Closed).
    #[doc(alias = "listTopics")]
    pub fn topics(&self) -> Result<Vec<TopicInfo>> {
        self.run().gate().check_open()?;
        Ok(self.run().live().all().iter().map(|topic| describe(topic)).collect())
    }

    /// Returns the description of a topic.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownTopic`](crate::Error::UnknownTopic),
    /// [`Error::Closed`](crate::Error::Closed).
    #[doc(alias = "describeTopics")]
    pub fn describe_topic(&self, name: &str) -> Result<TopicInfo> {
        Ok(describe(&*self.run().topic(name)?))
    }
}

fn describe(topic: &TopicShared) -> TopicInfo {
    let partitions = topic.partitions.iter().map(|core| PartitionInfo {
        partition: core.origin.partition,
        log_start_offset: core.log_start(),
        log_end_offset: core.log_end(),
        durable_end_offset: core.durable_end(),
        high_watermark: core.visible_end(Visibility::Published),
        segments: core.log().segments().count(),
        compaction: core.compactor().stats(),
    });
    TopicInfo {
        name: Arc::clone(&topic.name),
        config: topic.config.clone(),
        partitions: partitions.collect(),
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("broker", &self.broker).finish()
    }
}

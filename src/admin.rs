//! Administration: creating, changing, deleting, describing and verifying topics; groups.
//!
//! Owns: the [`Admin`] handle, and what its reports say. Must not know: files, threads; the broker
//! and the partitions do the work.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

pub use self::compaction::CompactionReport;
use crate::broker::{Broker, Run};
use crate::config::{TopicConfig, Visibility};
use crate::error::Result;
use crate::partition::compaction::CompactionStats;
use crate::topic::{Topic, TopicShared};

pub use self::groups::{GroupInfo, GroupMember, GroupOffset, GroupStatus};
pub use self::verify::VerifyReport;

mod compaction;
mod groups;
mod retention;
mod topics;
mod verify;

impl Broker {
    /// For creating, deleting and describing topics.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin { broker: self.clone() }
    }
}

/// Administers the topics of a broker. Cheap to clone; keeps the broker open.
#[derive(Clone)]
pub struct Admin {
    broker: Broker,
}

/// A topic, described.
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

/// A partition, described.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PartitionInfo {
    /// The partition's number.
    pub partition: u32,
    /// The first offset that can be read.
    pub log_start_offset: u64,
    /// The offset that the next record gets.
    pub log_end_offset: u64,
    /// Everything below is on stable storage.
    pub durable_end_offset: u64,
    /// The end of what consumers may see.
    pub high_watermark: u64,
    /// How many segment files it has.
    pub segments: usize,
    /// How far it is compacted; `None` where [`Cleanup`](crate::Cleanup) is `Delete`.
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
    /// [`Error::TopicExists`](crate::Error::TopicExists); otherwise as [`Broker::ensure_topic`].
    ///
    /// # Durability
    ///
    /// On return the topic is there after any crash; after a crash before, all of it or nothing.
    ///
    /// # Blocking
    ///
    /// For the disk, a few syncs per partition.
    pub fn create_topic(&self, name: &str, config: TopicConfig) -> Result<Topic> {
        let shared = self.run().create_topic(name, config)?;
        Ok(Topic::new(shared, self.broker.lifeline()))
    }

    /// Deletes a topic, its records and what groups committed for it. Messages that are held stay
    /// readable; calls on other handles of the topic, also those that wait,
    /// get [`Error::UnknownTopic`](crate::Error::UnknownTopic).
    ///
    /// # Errors
    ///
    /// [`Error::UnknownTopic`](crate::Error::UnknownTopic). After
    /// [`Error::Io`](crate::Error::Io) the topic is gone, and the rest of its files are removed at
    /// the next open.
    ///
    /// # Durability
    ///
    /// On return the topic is gone after any crash.
    ///
    /// # Blocking
    ///
    /// For the disk.
    pub fn delete_topic(&self, name: &str) -> Result<()> {
        self.run().delete_topic(name)
    }

    /// All topics, by name.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`](crate::Error::Closed).
    pub fn topics(&self) -> Result<Vec<TopicInfo>> {
        self.run().check_open()?;
        Ok(self.run().all_topics().iter().map(|topic| describe(topic)).collect())
    }

    /// One topic.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownTopic`](crate::Error::UnknownTopic).
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
        segments: core.segment_count(),
        compaction: core.compaction_stats(),
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

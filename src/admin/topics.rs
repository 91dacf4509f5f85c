//! Administration of existing topics: their settings, partition count and deletion.

use super::Admin;
use crate::config::TopicConfig;
use crate::error::Result;

impl Admin {
    /// Changes the settings of a topic. `change` gets the present settings and returns the new
    /// ones. It is called under no lock. If another caller changes other settings at the same time,
    /// both changes are made.
    ///
    /// The new settings apply at once, to all handles of the topic. A new
    /// [`segment_bytes`](TopicConfig::segment_bytes) applies to the next segment, or the one after
    /// that if the next one is already prepared.
    ///
    /// ```
    /// # use logpond::{Broker, TopicConfig};
    /// # use std::time::Duration;
    /// # let broker = Broker::in_memory()?;
    /// # broker.ensure_topic("emails", TopicConfig::new(1))?;
    /// let day = Duration::from_secs(24 * 60 * 60);
    /// broker.admin().alter_topic("emails", |config| config.retention(day))?;
    /// assert_eq!(broker.topic("emails")?.config().retention, day);
    /// # Ok::<(), logpond::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Nothing is changed after any of these. [`Error::Config`](crate::Error::Config): a setting
    /// has an impossible value, or cannot be altered. These cannot: the number of partitions (use
    /// [`add_partitions`](Self::add_partitions)) and the durability.
    /// [`Error::UnknownTopic`](crate::Error::UnknownTopic), also if the topic is deleted meanwhile;
    /// [`Error::ReadOnly`](crate::Error::ReadOnly),
    /// [`Error::StorageFull`](crate::Error::StorageFull), [`Error::Closed`](crate::Error::Closed).
    ///
    /// On a replicated broker also [`Error::NotLeader`](crate::Error::NotLeader) and
    /// [`Error::NotEnoughReplicas`](crate::Error::NotEnoughReplicas), and, when it is not known whether
    /// a majority of the members keeps the change,
    /// [`Error::LeadershipLost`](crate::Error::LeadershipLost) and
    /// [`Error::Timeout`](crate::Error::Timeout).
    ///
    /// # Durability
    ///
    /// On return the settings survive any crash. After a crash before that, all of the change was
    /// made or none of it.
    ///
    /// # Blocking
    ///
    /// For a sync of the disk, and for other changes of topics. On a replicated broker, for a majority
    /// of the members.
    #[doc(alias = "alterConfigs")]
    #[doc(alias = "incrementalAlterConfigs")]
    pub fn alter_topic(
        &self,
        name: &str,
        change: impl FnOnce(TopicConfig) -> TopicConfig,
    ) -> Result<()> {
        self.run().leading().check()?;
        self.run().topics().alter(name, change)
    }

    /// Adds partitions to a topic, so that it has `total`. They are empty, and cannot be removed
    /// again. Producers use the new number at once, so the records of a key may be sent to another
    /// partition than its earlier ones. Groups read the new partitions too.
    ///
    /// # Errors
    ///
    /// The topic keeps its count after all of them. [`Error::Config`](crate::Error::Config): the
    /// topic has as many already, `total` is above 10,000, or a partition has sequence numbers of
    /// [`send_sequenced`](crate::Producer::send_sequenced) for records whose key chose the
    /// partition: with more partitions, a retry could be sent to another one and be stored again.
    /// The error names the producer ids. The numbers are kept until they were not used for 30 days,
    /// or until you call [`forget_producer`](Self::forget_producer).
    /// [`Error::UnknownTopic`](crate::Error::UnknownTopic),
    /// [`Error::StorageFull`](crate::Error::StorageFull), [`Error::Io`](crate::Error::Io),
    /// [`Error::ReadOnly`](crate::Error::ReadOnly), [`Error::Closed`](crate::Error::Closed).
    ///
    /// On a replicated broker also [`Error::NotLeader`](crate::Error::NotLeader) and
    /// [`Error::NotEnoughReplicas`](crate::Error::NotEnoughReplicas), and, when it is not known whether
    /// a majority of the members keeps the change,
    /// [`Error::LeadershipLost`](crate::Error::LeadershipLost) and
    /// [`Error::Timeout`](crate::Error::Timeout).
    ///
    /// # Durability
    ///
    /// On return the partitions exist after any crash. After a crash before that, all of them exist
    /// or none.
    ///
    /// # Blocking
    ///
    /// For the disk: a few syncs per new partition. On a replicated broker, for a majority of the
    /// members.
    #[doc(alias = "createPartitions")]
    pub fn add_partitions(&self, name: &str, total: u32) -> Result<()> {
        self.run().leading().check()?;
        self.run().add_partitions(name, total)
    }

    /// Deletes a producer id and its sequence numbers in all topics: a record that is sent again is
    /// then stored again. Producers that have the id get [`Error::Fenced`](crate::Error::Fenced)
    /// from now on.
    ///
    /// # Errors
    ///
    /// [`Error::Config`](crate::Error::Config) if there is no such producer id,
    /// [`Error::ReadOnly`](crate::Error::ReadOnly), [`Error::Closed`](crate::Error::Closed).
    ///
    /// On a replicated broker also [`Error::NotLeader`](crate::Error::NotLeader) and
    /// [`Error::NotEnoughReplicas`](crate::Error::NotEnoughReplicas), and, when it is not known whether
    /// a majority of the members keeps the change,
    /// [`Error::LeadershipLost`](crate::Error::LeadershipLost) and
    /// [`Error::Timeout`](crate::Error::Timeout).
    ///
    /// # Durability
    ///
    /// On return the id is deleted, also after a crash.
    ///
    /// # Blocking
    ///
    /// For a sync of the disk, and for changes of topics. On a replicated broker, for a majority of the
    /// members.
    pub fn forget_producer(&self, id: &str) -> Result<()> {
        self.run().leading().check()?;
        self.run().producers().forget(id)
    }
}

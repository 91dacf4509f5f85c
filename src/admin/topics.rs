//! Changing topics that are there.

use super::Admin;
use crate::config::TopicConfig;
use crate::error::Result;

impl Admin {
    /// Changes the settings of a topic: `change` is given those in force and returns those that
    /// are to be. It runs under no lock; settings that it leaves alone keep whatever somebody else
    /// changes them to meanwhile.
    ///
    /// In force at once, for all handles of the topic. [`segment_bytes`](TopicConfig::segment_bytes)
    /// holds from the next segment on; one that is ready already keeps its size.
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
    /// [`Error::Config`](crate::Error::Config) for a setting that cannot work, for another number
    /// of partitions (see [`add_partitions`](Self::add_partitions)), and for another durability,
    /// which is fixed when the topic is created; nothing is changed then.
    /// [`Error::UnknownTopic`](crate::Error::UnknownTopic), also when the topic is deleted
    /// meanwhile; [`Error::ReadOnly`](crate::Error::ReadOnly).
    ///
    /// # Durability
    ///
    /// On return the change is there after any crash; after a crash before, all of it or nothing.
    ///
    /// # Blocking
    ///
    /// For a sync of the disk, and for other changes of topics.
    pub fn alter_topic(
        &self,
        name: &str,
        change: impl FnOnce(TopicConfig) -> TopicConfig,
    ) -> Result<()> {
        self.run().alter_topic(name, change)
    }

    /// Gives a topic more partitions, `total` in all; there is no way back. Producers use the new
    /// count from then on, so a key may go to another partition than its earlier records; groups
    /// share the new partitions, which start empty.
    ///
    /// # Errors
    ///
    /// [`Error::Config`](crate::Error::Config) when the topic has as many already, `total` is above
    /// 10,000, or its partitions remember numbers of
    /// [`send_sequenced`](crate::Producer::send_sequenced) for records that named no partition: a
    /// retry would go elsewhere and be stored once more. The error names the ids of the producers;
    /// they are remembered for 30 days without use, or until they are
    /// [forgotten](Self::forget_producer). [`Error::UnknownTopic`](crate::Error::UnknownTopic),
    /// [`Error::StorageFull`](crate::Error::StorageFull), [`Error::Io`](crate::Error::Io),
    /// [`Error::ReadOnly`](crate::Error::ReadOnly). The topic keeps its count then.
    ///
    /// # Durability
    ///
    /// On return the partitions are there after any crash; after a crash before, all of them or
    /// none.
    ///
    /// # Blocking
    ///
    /// For the disk, a few syncs per new partition.
    pub fn add_partitions(&self, name: &str, total: u32) -> Result<()> {
        self.run().add_partitions(name, total)
    }

    /// Forgets a producer id and the sequence numbers that were sent under it, in all topics: a
    /// record that is sent again is stored again. Those that hold the id get
    /// [`Error::Fenced`](crate::Error::Fenced) from now on.
    ///
    /// # Errors
    ///
    /// [`Error::Config`](crate::Error::Config) when there is no producer of this id,
    /// [`Error::ReadOnly`](crate::Error::ReadOnly), [`Error::Closed`](crate::Error::Closed).
    ///
    /// # Durability
    ///
    /// On return the id is forgotten, also after a crash.
    ///
    /// # Blocking
    ///
    /// For a sync of the disk, and for changes of topics.
    pub fn forget_producer(&self, id: &str) -> Result<()> {
        self.run().forget_producer(id)
    }
}

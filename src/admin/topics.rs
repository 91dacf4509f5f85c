//! Changing topics that are there.

use super::Admin;
use crate::config::TopicConfig;
use crate::error::Result;

impl Admin {
    /// Changes the settings of a topic. `change` gets the settings in force and returns the new
    /// ones. It runs under no lock; a setting that it leaves alone keeps what another caller sets
    /// meanwhile.
    ///
    /// The change is in force at once, for all handles of the topic. A new
    /// [`segment_bytes`](TopicConfig::segment_bytes) counts from the next segment on, or the one
    /// after that if the next one is already prepared.
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
    /// Nothing is changed after [`Error::Config`](crate::Error::Config): a setting cannot work, or
    /// it is one that cannot be altered, which are the number of partitions (see
    /// [`add_partitions`](Self::add_partitions)) and the durability.
    /// [`Error::UnknownTopic`](crate::Error::UnknownTopic), also if the topic is deleted meanwhile;
    /// [`Error::ReadOnly`](crate::Error::ReadOnly),
    /// [`Error::StorageFull`](crate::Error::StorageFull), [`Error::Closed`](crate::Error::Closed).
    ///
    /// # Durability
    ///
    /// On return the change is there after any crash. A crash before that leaves all of it or
    /// nothing.
    ///
    /// # Blocking
    ///
    /// For a sync of the disk, and for other changes of topics.
    #[doc(alias = "alterConfigs")]
    #[doc(alias = "incrementalAlterConfigs")]
    pub fn alter_topic(
        &self,
        name: &str,
        change: impl FnOnce(TopicConfig) -> TopicConfig,
    ) -> Result<()> {
        self.run().topics().alter(name, change)
    }

    /// Gives a topic more partitions, `total` in all. They start empty, and there is no way back.
    /// Producers use the new count from then on, so the records of a key may go to another
    /// partition than its earlier ones. Groups share the new partitions.
    ///
    /// # Errors
    ///
    /// The topic keeps its count after all of them. [`Error::Config`](crate::Error::Config): the
    /// topic has as many already, `total` is above 10,000, or a partition remembers numbers of
    /// [`send_sequenced`](crate::Producer::send_sequenced) for records that named no partition, so
    /// that a retry would go elsewhere and be stored again. The error names the producer ids; they
    /// are remembered for 30 days without use, or until they are
    /// [forgotten](Self::forget_producer). [`Error::UnknownTopic`](crate::Error::UnknownTopic),
    /// [`Error::StorageFull`](crate::Error::StorageFull), [`Error::Io`](crate::Error::Io),
    /// [`Error::ReadOnly`](crate::Error::ReadOnly), [`Error::Closed`](crate::Error::Closed).
    ///
    /// # Durability
    ///
    /// On return the partitions exist after any crash. A crash before that leaves all of them or
    /// none.
    ///
    /// # Blocking
    ///
    /// For the disk: a few syncs per new partition.
    #[doc(alias = "createPartitions")]
    pub fn add_partitions(&self, name: &str, total: u32) -> Result<()> {
        self.run().add_partitions(name, total)
    }

    /// Forgets a producer id and its sequence numbers in all topics: a record that is sent again is
    /// stored again. Producers that hold the id get [`Error::Fenced`](crate::Error::Fenced) from
    /// now on.
    ///
    /// # Errors
    ///
    /// [`Error::Config`](crate::Error::Config) if there is no producer of this id,
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
        self.run().producers().forget(id)
    }
}

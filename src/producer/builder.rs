//! The settings of a producer before it is made.

use std::fmt;

use super::Producer;
use super::choice::Choice;
use crate::broker::Broker;
use crate::config::{Acks, Durability};
use crate::error::{Error, Result};
use crate::partitioner::Partitioner;

impl Broker {
    /// Returns a producer with the default settings: without an id, with the durability of each
    /// topic, and with [`DefaultPartitioner`](crate::DefaultPartitioner).
    #[must_use]
    pub fn producer(&self) -> Producer {
        Producer::new(self, None, Choice::by_default(), None, false)
    }

    /// Returns the settings of a producer, to give it a durability, an id or a partitioner. Finish
    /// with [`build`](ProducerBuilder::build).
    pub fn producer_builder(&self) -> ProducerBuilder {
        ProducerBuilder {
            broker: self.clone(),
            durability: None,
            id: None,
            choice: Choice::by_default(),
            acks: None,
        }
    }
}

/// Settings of a producer; made by [`Broker::producer_builder`].
///
/// ```
/// # use logpond::{Broker, Durability, Record, TopicConfig};
/// # let broker = Broker::in_memory()?;
/// # broker.ensure_topic("orders", TopicConfig::new(1))?;
/// let importer = broker.producer_builder().id("importer").durability(Durability::Os).build()?;
/// importer.send_sequenced(1, Record::to("orders").key("o-1").value("2 apples"))?;
/// assert_eq!(importer.last_sequence(("orders", 0)), Some(1));
/// # Ok::<(), logpond::Error>(())
/// ```
#[must_use]
pub struct ProducerBuilder {
    broker: Broker,
    durability: Option<Durability>,
    id: Option<String>,
    choice: Choice,
    acks: Option<Acks>,
}

impl ProducerBuilder {
    /// Sets which failures a record survives once a send of this producer has returned. Default:
    /// the topic's [`durability`](crate::TopicConfig::durability), or the broker's if it has none.
    /// In a replicated group, [`Sync`](Durability::Sync) at [`Acks::Quorum`](crate::Acks::Quorum)
    /// waits until a majority of the members has synced the records, also in a topic whose own level is
    /// lower.
    #[doc(alias = "acks")]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// Gives the producer an id, a name of 1 to 255 bytes. It has two effects, which last across
    /// restarts: [`send_sequenced`](Producer::send_sequenced) stores each number at most once, and
    /// older producers with the same id get [`Error::Fenced`] from [`build`](Self::build) on. An id
    /// that no producer has held for 30 days is forgotten.
    #[doc(alias = "enable.idempotence")]
    #[doc(alias = "transactional.id")]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Sets what chooses the partition of a record that names none. Default
    /// [`DefaultPartitioner`](crate::DefaultPartitioner): by the key, or round robin for records
    /// without a key, where it skips partitions that take no appends until the broker is opened
    /// again. If another partitioner chooses such a partition, the send fails.
    #[doc(alias = "partitioner.class")]
    pub fn partitioner(mut self, partitioner: impl Partitioner) -> Self {
        self.choice = Choice::by(partitioner);
        self
    }

    /// Sets which members of a replicated group must have a record before it is acknowledged. Default
    /// [`Acks::Quorum`] if the broker is replicated, and otherwise [`Acks::Leader`], the only level
    /// without replication.
    ///
    /// It decides when `send`, `send_batch`, `send_sequenced`, a [`Delivery`](crate::Delivery) and
    /// [`flush`](Producer::flush) return. If no majority answers, they return [`Error::Timeout`] after
    /// the acknowledgement timeout of the group (30 s unless it was set, on the broker's clock), and
    /// [`Error::LeadershipLost`] if another member leads before: the record may or may not be kept.
    pub fn acks(mut self, acks: Acks) -> Self {
        self.acks = Some(acks);
        self
    }

    /// Makes the producer.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for [`Acks::Quorum`] without replication and for an interval of zero;
    /// [`Error::InvalidName`] for the id. With an id, which is stored, also
    /// [`Error::StorageFull`], [`Error::SyncFailed`], [`Error::Io`], [`Error::ReadOnly`],
    /// [`Error::Closed`], and on a replicated broker [`Error::NotLeader`],
    /// [`Error::NotEnoughReplicas`], [`Error::LeadershipLost`] and [`Error::Timeout`].
    ///
    /// # Durability
    ///
    /// With an id: on return older producers with this id are refused, also after a restart.
    ///
    /// # Blocking
    ///
    /// With an id: for a sync of the disk, and on a replicated broker for a majority of the members.
    /// Otherwise never.
    pub fn build(self) -> Result<Producer> {
        let run = self.broker.run();
        if self.acks == Some(Acks::Quorum) && !run.context().lead().is_member() {
            return Err(Error::config("acks", "the broker has no replication; leave it out"));
        }
        if let Some(durability) = self.durability {
            durability.validate()?;
        }
        let acquire = |id: String| {
            run.leading().check()?;
            run.producers().acquire(&id)
        };
        let named = self.id.map(acquire).transpose();
        #[cfg(feature = "testing")]
        let named = named.inspect_err(|error| run.context().env.seams.refused(error));
        let named = named?;
        let is_leader_enough = self.acks == Some(Acks::Leader);
        Ok(Producer::new(&self.broker, self.durability, self.choice, named, is_leader_enough))
    }
}

impl fmt::Debug for ProducerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProducerBuilder")
            .field("durability", &self.durability)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

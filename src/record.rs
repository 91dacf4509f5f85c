//! The input of an append: [`Record`], and plain values that name topics, partitions and offsets.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// A partition of a topic, by name. Displays as `orders-0`.
///
/// ```
/// # use logpond::TopicPartition;
/// assert_eq!(TopicPartition::from(("orders", 0)).to_string(), "orders-0");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number, from 0.
    pub partition: u32,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

impl TopicPartition {
    /// Returns the name of this partition of a topic. Calls that take a partition also take a pair,
    /// `("orders", 0)`.
    #[must_use]
    pub fn new(topic: impl Into<Arc<str>>, partition: u32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl From<(Arc<str>, u32)> for TopicPartition {
    fn from((topic, partition): (Arc<str>, u32)) -> Self {
        Self { topic, partition }
    }
}

impl From<(&str, u32)> for TopicPartition {
    fn from((topic, partition): (&str, u32)) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl From<(String, u32)> for TopicPartition {
    fn from((topic, partition): (String, u32)) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl From<&TopicPartition> for TopicPartition {
    fn from(other: &TopicPartition) -> Self {
        other.clone()
    }
}

/// An offset for each of several partitions, for example of a commit: the NEXT offset to read.
#[doc(alias = "OffsetAndMetadata")]
pub type Offsets = BTreeMap<TopicPartition, u64>;

/// One replica of a replicated broker, by a number that the application gives it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<u64> for NodeId {
    fn from(id: u64) -> Self {
        Self(id)
    }
}

/// A number that rises each time that a partition gets another leader; a leader with a lower number
/// is refused. 0 without replication.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct LeaderEpoch(pub u32);

impl fmt::Display for LeaderEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<u32> for LeaderEpoch {
    fn from(epoch: u32) -> Self {
        Self(epoch)
    }
}

/// Where a record was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RecordMetadata {
    /// The partition that took the record.
    pub partition: u32,
    /// The offset that the record was given.
    pub offset: u64,
    /// The timestamp that was stored, at a resolution of milliseconds.
    pub timestamp: SystemTime,
}

/// A record to be sent: topic, key, value, headers and timestamp, all of them optional. It borrows
/// its parts; a send copies them once, into the log. So make the parts first, and the record in the
/// call that sends it:
///
/// ```
/// use logpond::Record;
///
/// # let broker = logpond::Broker::in_memory()?;
/// # broker.ensure_topic("emails", logpond::TopicConfig::new(1))?;
/// # let (producer, id) = (broker.producer(), 7);
/// let key = format!("user-{id}");
/// producer.send(Record::to("emails").key(&key).value("welcome!").header("lang", "en"))?;
/// # Ok::<(), logpond::Error>(())
/// ```
#[doc(alias = "ProducerRecord")]
#[derive(Clone, Default)]
pub struct Record<'a> {
    pub(crate) topic: Option<&'a str>,
    pub(crate) partition: Option<u32>,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: Vec<(&'a str, &'a [u8])>,
    pub(crate) timestamp: Option<SystemTime>,
}

impl<'a> Record<'a> {
    /// Returns a record for a topic, without a key and a value. If no [`value`](Self::value) is
    /// set, it is a tombstone: in a compacted topic it deletes its key.
    #[must_use]
    pub fn to(topic: &'a str) -> Self {
        Self { topic: Some(topic), ..Self::default() }
    }

    /// Returns a record that names no topic, for [`Partition::append`](crate::Partition::append).
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the topic to which a producer sends the record.
    ///
    /// ```
    /// # use logpond::{Broker, TopicConfig};
    /// use logpond::Record;
    ///
    /// # let broker = Broker::in_memory()?;
    /// # broker.ensure_topic("orders", TopicConfig::new(1))?;
    /// # broker.ensure_topic("archive", TopicConfig::new(1))?;
    /// # broker.producer().send(Record::to("orders").key("order-1").value("paid"))?;
    /// let producer = broker.producer();
    /// let mut reader = broker.reader().subscribe(["orders"]).open()?;
    /// for message in &reader.poll(std::time::Duration::ZERO)? {
    ///     producer.send(Record::from(&message).topic("archive"))?;
    /// }
    /// # Ok::<(), logpond::Error>(())
    /// ```
    #[must_use]
    pub fn topic(mut self, topic: &'a str) -> Self {
        self.topic = Some(topic);
        self
    }

    /// Sets the key. Records with the same key are sent to the same partition, and compaction keeps
    /// the latest of them. An empty key is not the same as no key.
    #[must_use]
    pub fn key(mut self, key: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        self.key = Some(key.as_ref());
        self
    }

    /// Sets the value. An empty value is not the same as no value.
    #[must_use]
    pub fn value(mut self, value: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        self.value = Some(value.as_ref());
        self
    }

    /// Removes the value: in a compacted topic such a record deletes its key.
    #[must_use]
    pub fn tombstone(mut self) -> Self {
        self.value = None;
        self
    }

    /// Adds a header. A record can have several headers with the same name; their order is kept.
    #[must_use]
    pub fn header(mut self, name: &'a str, value: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        self.headers.push((name, value.as_ref()));
        self
    }

    /// Sets the timestamp, which is stored in milliseconds. The default is the time of the append,
    /// by the broker's clock. A time before 1970 makes the append fail with
    /// [`Error::Config`](crate::Error::Config).
    #[must_use]
    pub fn timestamp(mut self, timestamp: SystemTime) -> Self {
        self.timestamp = Some(timestamp);
        self
    }

    /// Sets the partition. Without it, the producer's partitioner chooses one.
    #[must_use]
    pub fn partition(mut self, partition: u32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// What `max_record_bytes` counts: key, value, header names and header values.
    pub(crate) fn payload_bytes(&self) -> u64 {
        let headers: usize =
            self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        let bytes = self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len) + headers;
        bytes as u64
    }
}

impl fmt::Debug for Record<'_> {
    /// Sizes only: payloads do not belong in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("topic", &self.topic)
            .field("partition", &self.partition)
            .field("key_bytes", &self.key.map(<[u8]>::len))
            .field("value_bytes", &self.value.map(<[u8]>::len))
            .field("headers", &self.headers.len())
            .field("timestamp", &self.timestamp)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_partition_displays_as_name_dash_number() {
        assert_eq!(TopicPartition::from(("orders", 3)).to_string(), "orders-3");
    }

    #[test]
    fn debug_shows_sizes_not_payloads() {
        let text = format!("{:?}", Record::to("t").key("secret-key").value("secret"));
        assert!(!text.contains("secret"), "{text}");
    }

    #[test]
    fn payload_bytes_count_header_names_too() {
        let record = Record::new().key("kk").value("vvv").header("name", "value");
        assert_eq!(record.payload_bytes(), 2 + 3 + 4 + 5);
    }
}

//! A message that holds its region, and outlives the batch that it came in.
//!
//! Owns: a share of the region, and the positions of the message's parts in it. Must not know:
//! batches, and where the region came from.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use crate::clock::from_millis;
use crate::format::{HeaderFields, RecordView};
use crate::record::{Record, TopicPartition};
use crate::storage::region::Region;

/// A received record: topic, partition, offset, key, value, headers and timestamp. Owned, cheap to
/// clone, and free to be sent to other threads.
///
/// It shares the bytes of its segment file, without a copy. They stay readable after retention or a
/// deletion has removed the file, and use disk space until the last message of the segment is
/// dropped: [`detach`](Self::detach) a message that you keep for long.
///
/// ```
/// # use logpond::{Broker, Record, TopicConfig};
/// # let broker = Broker::in_memory()?;
/// # broker.ensure_topic("emails", TopicConfig::new(1))?;
/// # broker.producer().send(Record::to("emails").key("user-7").value("welcome!"))?;
/// # let mut inbox = broker.consumer("mailer").subscribe(["emails"]).open()?;
/// let message = inbox.recv()?;
/// assert_eq!((message.topic(), message.offset()), ("emails", 0));
/// assert_eq!(message.key(), Some(&b"user-7"[..]));
/// let kept = message.detach(); // a copy that keeps no segment
/// # let _ = kept;
/// # Ok::<(), logpond::Error>(())
/// ```
#[doc(alias = "ConsumerRecord")]
#[derive(Clone)]
pub struct Message {
    origin: Arc<TopicPartition>,
    region: Arc<Region>,
    key: Option<Part>,
    value: Option<Part>,
    headers: Part,
    header_count: usize,
    offset: u64,
    timestamp: u64,
    leader_epoch: u32,
}

impl Message {
    /// Of a record that lies in this region.
    pub(super) fn of(
        origin: &Arc<TopicPartition>,
        region: &Arc<Region>,
        record: &RecordView<'_>,
        leader_epoch: u32,
    ) -> Self {
        let base = region.bytes(0..0).unwrap_or_default();
        Self {
            origin: Arc::clone(origin),
            key: record.key.map(|part| Part::within(base, part)),
            value: record.value.map(|part| Part::within(base, part)),
            headers: Part::within(base, record.headers.as_bytes()),
            header_count: record.headers.len(),
            region: Arc::clone(region),
            offset: record.offset,
            timestamp: record.timestamp,
            leader_epoch,
        }
    }

    /// Where it is from. Each ownership of a member has a value of its own, which is how a commit
    /// tells the ownership under which a message was read.
    pub(crate) fn origin(&self) -> &Arc<TopicPartition> {
        &self.origin
    }

    /// Returns the topic's name.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.origin.topic
    }

    /// Returns the partition's number.
    #[must_use]
    pub fn partition(&self) -> u32 {
        self.origin.partition
    }

    /// Returns topic and partition.
    #[must_use]
    pub fn topic_partition(&self) -> TopicPartition {
        TopicPartition::clone(&self.origin)
    }

    /// Returns the message's offset.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns the offset to commit once this message is done: its own plus one.
    #[must_use]
    pub fn next_offset(&self) -> u64 {
        self.offset.saturating_add(1)
    }

    /// Returns the key. An empty key is not the same as no key.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.key.map(|part| part.of(&self.region))
    }

    /// Returns the value; `None` if the record has none, which in a compacted topic deletes its
    /// key.
    #[must_use]
    pub fn value(&self) -> Option<&[u8]> {
        self.value.map(|part| part.of(&self.region))
    }

    /// Returns the key as text, for example to print it: bytes that are no UTF-8 are replaced by
    /// `�`. `None` if the record has no key.
    #[must_use]
    pub fn key_text(&self) -> Option<Cow<'_, str>> {
        self.key().map(String::from_utf8_lossy)
    }

    /// Returns the value as text, for example to print it: bytes that are no UTF-8 are replaced by
    /// `�`. `None` if the record has no value.
    #[must_use]
    pub fn value_text(&self) -> Option<Cow<'_, str>> {
        self.value().map(String::from_utf8_lossy)
    }

    /// Returns the key as [`Bytes`] that share the bytes of the segment, without a copy.
    #[must_use]
    pub fn key_bytes(&self) -> Option<Bytes> {
        Some(self.bytes_of(self.key?))
    }

    /// Returns the value as [`Bytes`] that share the bytes of the segment, without a copy.
    #[must_use]
    pub fn value_bytes(&self) -> Option<Bytes> {
        Some(self.bytes_of(self.value?))
    }

    fn bytes_of(&self, part: Part) -> Bytes {
        if part.len == 0 {
            return Bytes::new();
        }
        Bytes::from_owner(Shared { region: Arc::clone(&self.region), part })
    }

    /// Returns the timestamp, in milliseconds.
    #[must_use]
    pub fn timestamp(&self) -> SystemTime {
        from_millis(self.timestamp)
    }

    /// Returns the headers, in the order in which they were added.
    #[must_use]
    pub fn headers(&self) -> Headers<'_> {
        Headers::new(HeaderFields::checked(self.headers.of(&self.region), self.header_count))
    }

    /// Returns the leader epoch under which the record was appended; 0 without replication.
    #[must_use]
    pub fn leader_epoch(&self) -> u32 {
        self.leader_epoch
    }

    /// Returns a copy of the message and its bytes, which does not keep the segment.
    #[must_use]
    pub fn detach(&self) -> Message {
        let key = self.key().unwrap_or_default();
        let value = self.value().unwrap_or_default();
        let headers = self.headers.of(&self.region);
        let bytes = [headers, key, value].concat();
        let Ok(region) = Region::from_bytes(&bytes) else {
            return self.clone();
        };
        let part_at = |start: usize, len: usize| Part {
            start: u32::try_from(start).unwrap_or(u32::MAX),
            len: u32::try_from(len).unwrap_or(0),
        };
        let key_start = headers.len();
        let value_start = key_start.saturating_add(key.len());
        Message {
            origin: Arc::clone(&self.origin),
            region,
            key: self.key.map(|part| part_at(key_start, part.len as usize)),
            value: self.value.map(|part| part_at(value_start, part.len as usize)),
            headers: part_at(0, headers.len()),
            ..*self
        }
    }
}

impl AsRef<Message> for Message {
    fn as_ref(&self) -> &Message {
        self
    }
}

impl fmt::Debug for Message {
    /// Offset and sizes only: payloads do not belong in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("from", &self.origin)
            .field("offset", &self.offset)
            .field("key_bytes", &self.key.map(|part| part.len))
            .field("value_bytes", &self.value.map(|part| part.len))
            .finish_non_exhaustive()
    }
}

/// Where a part of a message stands in its region. 32 bits are enough: a segment is at most 1 GiB.
#[derive(Debug, Clone, Copy)]
struct Part {
    start: u32,
    len: u32,
}

impl Part {
    /// The position of `part` relative to `base`, the region's first byte. Both are slices of the
    /// same region; a part from elsewhere would only ever be out of bounds, never unsound, since
    /// [`Part::of`] goes through the region's own check.
    fn within(base: &[u8], part: &[u8]) -> Self {
        let start = part.as_ptr().addr().wrapping_sub(base.as_ptr().addr());
        let start = u32::try_from(start).unwrap_or(u32::MAX);
        Self { start, len: u32::try_from(part.len()).unwrap_or(0) }
    }

    fn of(self, region: &Region) -> &[u8] {
        let start = self.start as usize;
        region.bytes(start..start.saturating_add(self.len as usize)).unwrap_or_default()
    }
}

/// A record with the message's key, value, headers and timestamp, to be forwarded. It names no
/// topic and partition: set the topic with [`Record::topic`].
impl<'a> From<&'a Message> for Record<'a> {
    fn from(message: &'a Message) -> Self {
        record_of(message.key(), message.value(), message.headers(), message.timestamp())
    }
}

pub(super) fn record_of<'a>(
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: Headers<'a>,
    timestamp: SystemTime,
) -> Record<'a> {
    let headers = headers.collect();
    Record { key, value, headers, timestamp: Some(timestamp), ..Record::default() }
}

/// What a [`Bytes`] made of a message's value owns.
struct Shared {
    region: Arc<Region>,
    part: Part,
}

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.part.of(&self.region)
    }
}

/// The headers of a message: names and values in their order, repeated names included.
///
/// ```
/// # use logpond::{Broker, Record, TopicConfig};
/// # let broker = Broker::in_memory()?;
/// # broker.ensure_topic("emails", TopicConfig::new(1))?;
/// # broker.producer().send(Record::to("emails").value("welcome!").header("lang", "en"))?;
/// # let mut inbox = broker.consumer("mailer").subscribe(["emails"]).open()?;
/// let message = inbox.recv()?;
/// assert_eq!(message.headers().get("lang"), Some(&b"en"[..]));
/// for (name, value) in message.headers() {
///     println!("{name}: {} bytes", value.len());
/// }
/// # Ok::<(), logpond::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Headers<'a> {
    fields: HeaderFields<'a>,
}

impl<'a> Headers<'a> {
    pub(super) fn new(fields: HeaderFields<'a>) -> Self {
        Self { fields }
    }

    /// Returns the value of the LAST header of this name, as Kafka does.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.clone().filter(|(other, _)| *other == name).last().map(|(_, value)| value)
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.fields.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.fields.size_hint()
    }
}

impl fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone().map(|(name, _)| name)).finish()
    }
}

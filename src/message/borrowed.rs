//! One message that borrows from its batch.
//!
//! Owns: nothing. Must not know: how messages are iterated.

use std::borrow::Cow;
use std::fmt;
use std::time::SystemTime;

use super::owned::{Headers, Message, record_of};
use super::range::CheckedRange;
use crate::clock::from_millis;
use crate::format::RecordView;
use crate::record::{Record, TopicPartition};

/// A received record that borrows from its [`Batch`](crate::Batch).
#[derive(Clone)]
pub struct MessageRef<'a> {
    range: &'a CheckedRange,
    record: RecordView<'a>,
    leader_epoch: u32,
}

impl<'a> MessageRef<'a> {
    #[inline]
    pub(super) fn new(range: &'a CheckedRange, record: RecordView<'a>, leader_epoch: u32) -> Self {
        Self { range, record, leader_epoch }
    }

    /// Returns the topic's name.
    #[must_use]
    pub fn topic(&self) -> &'a str {
        &self.range.origin.topic
    }

    /// Returns the partition's number.
    #[must_use]
    pub fn partition(&self) -> u32 {
        self.range.origin.partition
    }

    /// Returns topic and partition.
    #[must_use]
    pub fn topic_partition(&self) -> TopicPartition {
        TopicPartition::clone(&self.range.origin)
    }

    /// Returns the message's offset.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.record.offset
    }

    /// Returns the offset to commit once this message is done: its own plus one.
    #[must_use]
    pub fn next_offset(&self) -> u64 {
        self.record.offset.saturating_add(1)
    }

    /// Returns the key. An empty key is not the same as no key.
    #[must_use]
    pub fn key(&self) -> Option<&'a [u8]> {
        self.record.key
    }

    /// Returns the value; `None` if the record has none, which in a compacted topic deletes its
    /// key.
    #[must_use]
    pub fn value(&self) -> Option<&'a [u8]> {
        self.record.value
    }

    /// Returns the key as text, for example to print it: bytes that are no UTF-8 are replaced by
    /// `�`. `None` if the record has no key.
    #[must_use]
    pub fn key_text(&self) -> Option<Cow<'a, str>> {
        self.key().map(String::from_utf8_lossy)
    }

    /// Returns the value as text, for example to print it: bytes that are no UTF-8 are replaced by
    /// `�`. `None` if the record has no value.
    #[must_use]
    pub fn value_text(&self) -> Option<Cow<'a, str>> {
        self.value().map(String::from_utf8_lossy)
    }

    /// Returns the timestamp, in milliseconds.
    #[must_use]
    pub fn timestamp(&self) -> SystemTime {
        from_millis(self.record.timestamp)
    }

    /// Returns the headers, in the order in which they were added.
    #[must_use]
    pub fn headers(&self) -> Headers<'a> {
        Headers::new(self.record.headers.clone())
    }

    /// Returns the leader epoch under which the record was appended; 0 without replication.
    #[must_use]
    pub fn leader_epoch(&self) -> u32 {
        self.leader_epoch
    }

    /// Returns an owned message. It shares the bytes of the segment, which stay readable until it
    /// is dropped; nothing is copied.
    #[must_use]
    pub fn to_owned(&self) -> Message {
        Message::of(&self.range.origin, &self.range.region, &self.record, self.leader_epoch)
    }
}

impl fmt::Debug for MessageRef<'_> {
    /// Offset and sizes only: payloads do not belong in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageRef")
            .field("from", &self.range.origin)
            .field("offset", &self.record.offset)
            .field("key_bytes", &self.record.key.map(<[u8]>::len))
            .field("value_bytes", &self.record.value.map(<[u8]>::len))
            .finish_non_exhaustive()
    }
}

/// A record with the message's key, value, headers and timestamp, to be forwarded. It names no
/// topic and partition: set the topic with [`Record::topic`].
impl<'a> From<&MessageRef<'a>> for Record<'a> {
    fn from(message: &MessageRef<'a>) -> Self {
        record_of(message.key(), message.value(), message.headers(), message.timestamp())
    }
}

//! What comes out: [`Batch`], [`Message`] and [`MessageRef`], views over checked regions.
//!
//! A batch of messages is a list of [`Run`]s: stretches of a region whose batches were all checked
//! (structure and checksum) when they were fetched. Iterating cannot fail, allocates nothing and
//! touches no reference count; only a [`Message`], which outlives the batch, holds its region.
//!
//! Invariant: the bytes of a run lie below their region's published end and never change, so what
//! was checked once is still true when it is read (published bytes never change).

use std::fmt;
use std::iter::FusedIterator;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use crate::clock::from_millis;
use crate::format::{BatchView, HeaderFields, PausedRecords, RecordView, Records};
use crate::record::{Offsets, Record, TopicPartition};
use crate::storage::region::Region;

/// A stretch of consecutive, checked batches in one region.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) origin: Arc<TopicPartition>,
    pub(crate) region: Arc<Region>,
    /// Positions in the region: from the first batch's start to the last one's end.
    pub(crate) span: Range<usize>,
    /// The offsets that count; the first and last batch may hold more.
    pub(crate) offsets: Range<u64>,
    /// How many records of the span lie in `offsets`.
    pub(crate) records: usize,
}

impl Run {
    fn iter(&self) -> RunIter<'_> {
        RunIter {
            run: self,
            rest: self.region.bytes(self.span.clone()).unwrap_or_default(),
            records: Records::none(),
            leader_epoch: 0,
            left: self.records,
        }
    }

    /// The records at or above `offset`, and the bytes of the batches that hold them.
    pub(crate) fn size_from(&self, offset: u64) -> (usize, usize) {
        let wanted = self.offsets.start.max(offset)..self.offsets.end;
        let mut rest = self.region.bytes(self.span.clone()).unwrap_or_default();
        let (mut records, mut bytes) = (0_usize, 0_usize);
        while !wanted.is_empty() {
            let Some((size, _, batch)) = BatchView::records_of_checked(rest) else { break };
            let found = batch.filter(|record| wanted.contains(&record.offset)).count();
            records = records.saturating_add(found);
            bytes = bytes.saturating_add(if found > 0 { size } else { 0 });
            rest = rest.get(size..).unwrap_or_default();
        }
        (records, bytes)
    }
}

/// The messages of a [`Batch`], borrowed.
// Written out: a message passed on through the standard library's `flat_map` is copied once more,
// right after the stores that made it, which costs as much as decoding it.
#[derive(Clone)]
pub struct BatchIter<'a> {
    runs: std::slice::Iter<'a, Run>,
    current: Option<RunIter<'a>>,
}

impl<'a> BatchIter<'a> {
    fn new(runs: &'a [Run]) -> Self {
        let mut runs = runs.iter();
        let current = runs.next().map(Run::iter);
        Self { runs, current }
    }
}

impl<'a> Iterator for BatchIter<'a> {
    type Item = MessageRef<'a>;

    #[inline]
    fn next(&mut self) -> Option<MessageRef<'a>> {
        loop {
            let current = self.current.as_mut()?;
            if current.left > 0 {
                return current.next();
            }
            self.current = self.runs.next().map(Run::iter);
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let current = self.current.as_ref().map_or(0, |current| current.left);
        let left = self.runs.as_slice().iter().map(|run| run.records).sum::<usize>() + current;
        (left, Some(left))
    }
}

impl ExactSizeIterator for BatchIter<'_> {}
impl FusedIterator for BatchIter<'_> {}

impl fmt::Debug for BatchIter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchIter").field("left", &self.len()).finish_non_exhaustive()
    }
}

#[derive(Clone)]
struct RunIter<'a> {
    run: &'a Run,
    rest: &'a [u8],
    records: Records<'a>,
    leader_epoch: u32,
    left: usize,
}

impl<'a> Iterator for RunIter<'a> {
    type Item = MessageRef<'a>;

    #[inline]
    fn next(&mut self) -> Option<MessageRef<'a>> {
        if self.left == 0 {
            return None;
        }
        loop {
            if let Some(record) = self.records.next() {
                if record.offset < self.run.offsets.start {
                    continue;
                }
                self.left -= 1;
                return Some(MessageRef { run: self.run, record, leader_epoch: self.leader_epoch });
            }
            let (size, leader_epoch, records) = BatchView::records_of_checked(self.rest)?;
            self.rest = self.rest.get(size..)?;
            self.leader_epoch = leader_epoch;
            self.records = records;
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

/// The messages that [`Consumer::poll`](crate::Consumer::poll) or
/// [`Partition::read`](crate::Partition::read) returns, of one or more partitions; those of one
/// partition are in the order of their offsets. It is empty if there was nothing to read.
///
/// Iterate `&batch` for [`MessageRef`]s, without allocations and reference counts, or `batch` for
/// owned [`Message`]s.
///
/// ```
/// # use logpond::{Broker, Record, TopicConfig, TopicPartition};
/// # use std::time::Duration;
/// # let broker = Broker::in_memory()?;
/// # broker.ensure_topic("clicks", TopicConfig::new(1))?;
/// # for value in ["a", "b"] { broker.producer().send(Record::to("clicks").value(value))?; }
/// # let mut reader = broker.reader().subscribe(["clicks"]).open()?;
/// let batch = reader.poll(Duration::from_secs(1))?;
/// for message in &batch {
///     println!("{:?}", message.value());
/// }
/// for (partition, messages) in batch.by_partition() {
///     println!("{partition}: {} messages", messages.count());
/// }
/// assert_eq!(batch.next_offsets().get(&TopicPartition::from(("clicks", 0))), Some(&2));
/// let kept: Vec<logpond::Message> = batch.into_iter().collect();
/// assert_eq!(kept.len(), 2);
/// # Ok::<(), logpond::Error>(())
/// ```
#[doc(alias = "ConsumerRecords")]
#[derive(Clone, Default)]
pub struct Batch {
    runs: Vec<Run>,
    records: usize,
}

impl Batch {
    pub(crate) fn new(runs: Vec<Run>) -> Self {
        let records = runs.iter().map(|run| run.records).sum();
        Self { runs, records }
    }

    /// Returns how many messages there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records
    }

    /// Returns whether there are no messages.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Returns the messages, borrowed.
    #[must_use]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = MessageRef<'_>> {
        BatchIter::new(&self.runs)
    }

    /// Returns the next offset to read after this batch, for each partition with messages in it.
    /// Pass it to [`commit_offsets`](crate::Consumer::commit_offsets) once all messages are done.
    ///
    /// Where compaction has removed the records that followed, it is higher than the
    /// [`next_offset`](MessageRef::next_offset) of the last message.
    #[must_use]
    pub fn next_offsets(&self) -> Offsets {
        let mut next = Offsets::new();
        for run in &self.runs {
            // The runs of a partition come in the order of their offsets.
            next.insert(TopicPartition::clone(&run.origin), run.offsets.end);
        }
        next
    }

    /// Returns the messages of each partition, partition by partition.
    pub fn by_partition(
        &self,
    ) -> impl Iterator<Item = (TopicPartition, impl Iterator<Item = MessageRef<'_>>)> {
        self.runs
            .chunk_by(|a, b| a.origin == b.origin)
            .filter_map(|runs| Some((TopicPartition::clone(&runs.first()?.origin), runs)))
            .map(|(origin, runs)| (origin, BatchIter::new(runs)))
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("len", &self.records).finish_non_exhaustive()
    }
}

impl<'a> IntoIterator for &'a Batch {
    type Item = MessageRef<'a>;
    type IntoIter = BatchIter<'a>;

    fn into_iter(self) -> BatchIter<'a> {
        BatchIter::new(&self.runs)
    }
}

impl IntoIterator for Batch {
    type Item = Message;
    type IntoIter = IntoMessages;

    fn into_iter(self) -> IntoMessages {
        IntoMessages { runs: self.runs.into_iter(), current: None, left: self.records }
    }
}

/// The messages of a [`Batch`], owned.
pub struct IntoMessages {
    runs: std::vec::IntoIter<Run>,
    current: Option<RunCursor>,
    left: usize,
}

/// Where an owning iteration stands in a run. It owns the run, so it cannot hold a borrow of the
/// run's bytes as well; it keeps plain positions instead.
struct RunCursor {
    run: Run,
    /// The end of the batch that is being read, where the next one begins.
    position: usize,
    /// The records of that batch that are left.
    records: Option<PausedRecords>,
    leader_epoch: u32,
}

impl Iterator for IntoMessages {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.current.as_mut().and_then(RunCursor::next) {
                self.left = self.left.saturating_sub(1);
                return Some(message);
            }
            let run = self.runs.next()?;
            let position = run.span.start;
            self.current = Some(RunCursor { run, position, records: None, leader_epoch: 0 });
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for IntoMessages {}
impl FusedIterator for IntoMessages {}

impl fmt::Debug for IntoMessages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IntoMessages").field("left", &self.left).finish_non_exhaustive()
    }
}

impl RunCursor {
    #[inline]
    fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(paused) = &self.records {
                let run = &self.run;
                let mut records = paused.resume(run.region.bytes(run.span.start..self.position)?);
                while let Some(record) = records.next() {
                    if run.offsets.contains(&record.offset) {
                        self.records = Some(records.pause());
                        let leader_epoch = self.leader_epoch;
                        return Some(MessageRef { run, record, leader_epoch }.to_owned());
                    }
                }
            }
            let bytes = self.run.region.bytes(self.position..self.run.span.end)?;
            let (size, leader_epoch, records) = BatchView::records_of_checked(bytes)?;
            // The records end where the batch does, and `resume` counts from there.
            self.position = self.position.checked_add(size)?;
            self.leader_epoch = leader_epoch;
            self.records = Some(records.pause());
        }
    }
}

/// A received record that borrows from its [`Batch`].
#[derive(Clone)]
pub struct MessageRef<'a> {
    run: &'a Run,
    record: RecordView<'a>,
    leader_epoch: u32,
}

impl<'a> MessageRef<'a> {
    /// Returns the topic's name.
    #[must_use]
    pub fn topic(&self) -> &'a str {
        &self.run.origin.topic
    }

    /// Returns the partition's number.
    #[must_use]
    pub fn partition(&self) -> u32 {
        self.run.origin.partition
    }

    /// Returns topic and partition.
    #[must_use]
    pub fn topic_partition(&self) -> TopicPartition {
        TopicPartition::clone(&self.run.origin)
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

    /// Returns the timestamp, in milliseconds.
    #[must_use]
    pub fn timestamp(&self) -> SystemTime {
        from_millis(self.record.timestamp)
    }

    /// Returns the headers, in the order in which they were added.
    #[must_use]
    pub fn headers(&self) -> Headers<'a> {
        Headers { fields: self.record.headers.clone() }
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
        let base = self.run.region.bytes(0..0).unwrap_or_default();
        Message {
            origin: Arc::clone(&self.run.origin),
            key: self.record.key.map(|part| Part::within(base, part)),
            value: self.record.value.map(|part| Part::within(base, part)),
            headers: Part::within(base, self.record.headers.as_bytes()),
            header_count: self.record.headers.len(),
            region: Arc::clone(&self.run.region),
            offset: self.record.offset,
            timestamp: self.record.timestamp,
            leader_epoch: self.leader_epoch,
        }
    }
}

impl fmt::Debug for MessageRef<'_> {
    /// Offset and sizes only: payloads do not belong in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageRef")
            .field("from", &self.run.origin)
            .field("offset", &self.record.offset)
            .field("key_bytes", &self.record.key.map(<[u8]>::len))
            .field("value_bytes", &self.record.value.map(<[u8]>::len))
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
        Headers { fields: HeaderFields::checked(self.headers.of(&self.region), self.header_count) }
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

/// A record with the message's key, value, headers and timestamp, to be forwarded. It names no
/// topic and partition: set the topic with [`Record::topic`].
impl<'a> From<&MessageRef<'a>> for Record<'a> {
    fn from(message: &MessageRef<'a>) -> Self {
        record_of(message.key(), message.value(), message.headers(), message.timestamp())
    }
}

/// A record with the message's key, value, headers and timestamp, to be forwarded. It names no
/// topic and partition: set the topic with [`Record::topic`].
impl<'a> From<&'a Message> for Record<'a> {
    fn from(message: &'a Message) -> Self {
        record_of(message.key(), message.value(), message.headers(), message.timestamp())
    }
}

fn record_of<'a>(
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

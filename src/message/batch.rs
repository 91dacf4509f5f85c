//! The messages of one fetch, and the ways to iterate them.
//!
//! Owns: the order of the ranges, and where an iteration stands. Must not know: how a message finds
//! its parts. Iterating cannot fail, since the ranges were checked when they were fetched.

use std::fmt;
use std::iter::FusedIterator;

use super::borrowed::MessageRef;
use super::owned::Message;
use super::range::CheckedRange;
use crate::format::{BatchView, PausedRecords, Records};
use crate::record::{Offsets, TopicPartition};

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
    ranges: Vec<CheckedRange>,
    records: usize,
}

impl Batch {
    pub(crate) fn new(ranges: Vec<CheckedRange>) -> Self {
        let records = ranges.iter().map(|range| range.records).sum();
        Self { ranges, records }
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
        BatchIter::new(&self.ranges)
    }

    /// Returns the next offset to read after this batch, for each partition with messages in it.
    /// Pass it to [`commit_offsets`](crate::Consumer::commit_offsets) once all messages are done.
    ///
    /// Where compaction has removed the records that followed, it is higher than the
    /// [`next_offset`](MessageRef::next_offset) of the last message.
    #[must_use]
    pub fn next_offsets(&self) -> Offsets {
        let mut next = Offsets::new();
        for range in &self.ranges {
            // The ranges of a partition come in the order of their offsets.
            next.insert(TopicPartition::clone(&range.origin), range.offsets.end);
        }
        next
    }

    /// Returns the messages of each partition, partition by partition.
    pub fn by_partition(
        &self,
    ) -> impl Iterator<Item = (TopicPartition, impl Iterator<Item = MessageRef<'_>>)> {
        self.ranges
            .chunk_by(|a, b| a.origin == b.origin)
            .filter_map(|ranges| Some((TopicPartition::clone(&ranges.first()?.origin), ranges)))
            .map(|(origin, ranges)| (origin, BatchIter::new(ranges)))
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
        BatchIter::new(&self.ranges)
    }
}

impl IntoIterator for Batch {
    type Item = Message;
    type IntoIter = IntoMessages;

    fn into_iter(self) -> IntoMessages {
        IntoMessages { ranges: self.ranges.into_iter(), current: None, left: self.records }
    }
}

/// The messages of a [`Batch`], borrowed.
// Written out: a message passed on through the standard library's `flat_map` is copied once more,
// right after the stores that made it, which costs as much as decoding it.
#[derive(Clone)]
pub struct BatchIter<'a> {
    ranges: std::slice::Iter<'a, CheckedRange>,
    current: Option<RangeIter<'a>>,
}

impl<'a> BatchIter<'a> {
    fn new(ranges: &'a [CheckedRange]) -> Self {
        let mut ranges = ranges.iter();
        let current = ranges.next().map(RangeIter::over);
        Self { ranges, current }
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
            self.current = self.ranges.next().map(RangeIter::over);
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let current = self.current.as_ref().map_or(0, |current| current.left);
        let left =
            self.ranges.as_slice().iter().map(|range| range.records).sum::<usize>() + current;
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
struct RangeIter<'a> {
    range: &'a CheckedRange,
    rest: &'a [u8],
    records: Records<'a>,
    leader_epoch: u32,
    left: usize,
}

impl<'a> RangeIter<'a> {
    fn over(range: &'a CheckedRange) -> Self {
        let rest = range.region.bytes(range.span.clone()).unwrap_or_default();
        Self { range, rest, records: Records::none(), leader_epoch: 0, left: range.records }
    }
}

impl<'a> Iterator for RangeIter<'a> {
    type Item = MessageRef<'a>;

    #[inline]
    fn next(&mut self) -> Option<MessageRef<'a>> {
        if self.left == 0 {
            return None;
        }
        loop {
            if let Some(record) = self.records.next() {
                if record.offset < self.range.offsets.start {
                    continue;
                }
                self.left -= 1;
                return Some(MessageRef::new(self.range, record, self.leader_epoch));
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

/// The messages of a [`Batch`], owned.
pub struct IntoMessages {
    ranges: std::vec::IntoIter<CheckedRange>,
    current: Option<RangeCursor>,
    left: usize,
}

/// Where an owning iteration stands in a range. It owns the range, so it cannot hold a borrow of
/// the range's bytes as well; it keeps plain positions instead.
struct RangeCursor {
    range: CheckedRange,
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
            if let Some(message) = self.current.as_mut().and_then(RangeCursor::next) {
                self.left = self.left.saturating_sub(1);
                return Some(message);
            }
            let range = self.ranges.next()?;
            let position = range.span.start;
            self.current = Some(RangeCursor { range, position, records: None, leader_epoch: 0 });
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

impl RangeCursor {
    #[inline]
    fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(paused) = &self.records {
                let range = &self.range;
                let mut records =
                    paused.resume(range.region.bytes(range.span.start..self.position)?);
                while let Some(record) = records.next() {
                    if range.offsets.contains(&record.offset) {
                        self.records = Some(records.pause());
                        return Some(MessageRef::new(range, record, self.leader_epoch).to_owned());
                    }
                }
            }
            let bytes = self.range.region.bytes(self.position..self.range.span.end)?;
            let (size, leader_epoch, records) = BatchView::records_of_checked(bytes)?;
            // The records end where the batch does, and `resume` counts from there.
            self.position = self.position.checked_add(size)?;
            self.leader_epoch = leader_epoch;
            self.records = Some(records.pause());
        }
    }
}

//! Writes batches: records are encoded and checksummed before a lock is taken.
//!
//! Owns: one reusable buffer with room for the largest header in front of the records. `push`
//! encodes a record, `finish` pads and checksums the records, and `seal` writes the header in front
//! of them once the offset is known: a few dozen bytes, whatever the batch's size. The records of a
//! short batch are checksummed together with their header instead. Invariants:
//!
//! 1. The buffer begins with [`SIZE_MAX`] bytes of header room, followed by `records_size` bytes of
//!    records and at least [`ALIGNMENT`] others, for the padding. Its length is what was initialised, not what is
//!    in use: a record is written into a slice of it, not pushed byte by byte.
//! 2. A `push` that fails leaves the batch as it was.
//! 3. Nothing is allocated once the buffer has its size.
//!
//! Called by one producer at a time, before the partition's lock, except `seal`, which is called
//! under it.

use super::header::{
    ALIGNMENT, BatchHeader, FIXED_SIZE, PRODUCER_SIZE, ProducerStamp, SIZE_MAX, durable_distance,
    header_size,
};
use super::record::{HAS_HEADERS, HAS_KEY, HAS_OFFSET, HAS_TIMESTAMP, HAS_VALUE};
use super::seal::{Unsealed, write_header};
use crate::error::Error;
use crate::format::checksum::Checksum;
use crate::format::key::{ONE_PASS_MAX, SegmentKey};
use crate::format::varint;

/// LIMIT: positions are `u32`, and the largest batch must leave room in a 4 GiB segment for
/// everything else in it; 1 GiB is far more than a useful batch has.
pub(crate) const RECORDS_SIZE_MAX: u64 = 1 << 30;

/// A record, or its batch with it, exceeds the largest batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLarge {
    pub(crate) size: u64,
    pub(crate) limit: u64,
}

impl From<TooLarge> for Error {
    fn from(TooLarge { size, limit }: TooLarge) -> Self {
        Self::RecordTooLarge { size, limit }
    }
}

/// Builds batches, one after the other, in one buffer.
#[derive(Debug)]
pub(crate) struct BatchEncoder {
    buffer: Vec<u8>,
    records_size: usize,
    count: u32,
    /// The offset delta of the next record, unless it says otherwise.
    next_delta: u64,
    last_offset_delta: Option<u32>,
    base_timestamp: u64,
    max_timestamp: u64,
    delete_horizon: Option<u64>,
    /// What the last `finish` has found.
    finished: Finished,
}

/// What is known of a batch once it has all its records.
#[derive(Debug, Default)]
struct Finished {
    /// The checksum of the records area; `None` for a short one, see [`ONE_PASS_MAX`].
    records: Option<Checksum>,
    /// The records area with its padding, in bytes.
    padded_size: usize,
    /// The size of the batch without a producer's stamp.
    size: u32,
    last_offset_delta: u32,
    /// With which offsets the header in front of the records was written, if it was.
    expected: Option<Offsets>,
}

impl BatchEncoder {
    pub(crate) fn new() -> Self {
        Self {
            buffer: vec![0; SIZE_MAX + ALIGNMENT],
            records_size: 0,
            count: 0,
            next_delta: 0,
            last_offset_delta: None,
            base_timestamp: 0,
            max_timestamp: 0,
            delete_horizon: None,
            finished: Finished::default(),
        }
    }

    /// Begins a new batch and keeps the buffer.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.records_size = 0;
        self.count = 0;
        self.next_delta = 0;
        self.last_offset_delta = None;
        self.base_timestamp = 0;
        self.max_timestamp = 0;
        self.delete_horizon = None;
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Gives up a buffer that a large batch has grown beyond `limit` bytes, and the batch with it.
    #[inline]
    pub(crate) fn shrink_to(&mut self, limit: usize) {
        if self.buffer.len() > limit.max(SIZE_MAX + ALIGNMENT) {
            *self = Self::new();
        }
    }

    /// Adds a record at the next offset.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] if the batch cannot take it; the batch is as it was.
    #[inline]
    pub(crate) fn push<'h>(
        &mut self,
        timestamp: u64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl ExactSizeIterator<Item = (&'h str, &'h [u8])> + Clone,
    ) -> Result<(), TooLarge> {
        self.push_record(None, timestamp, key, value, headers)
    }

    /// Adds a record at a distance from the batch's base offset: compaction leaves gaps.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] if the batch cannot take it; the batch is as it was.
    ///
    /// # Panics
    ///
    /// If `offset_delta` is not above the last record's: such a batch could not be read.
    pub(crate) fn push_at<'h>(
        &mut self,
        offset_delta: u32,
        timestamp: u64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl ExactSizeIterator<Item = (&'h str, &'h [u8])> + Clone,
    ) -> Result<(), TooLarge> {
        let delta = u64::from(offset_delta);
        assert!(delta >= self.next_delta, "offsets of a batch must rise");
        self.push_record(
            (delta != self.next_delta).then_some(delta),
            timestamp,
            key,
            value,
            headers,
        )
    }

    #[inline]
    fn push_record<'h>(
        &mut self,
        gap_to: Option<u64>,
        timestamp: u64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl ExactSizeIterator<Item = (&'h str, &'h [u8])> + Clone,
    ) -> Result<(), TooLarge> {
        let first = self.count == 0;
        let base_timestamp = if first { timestamp } else { self.base_timestamp };
        let timestamp_delta = timestamp.wrapping_sub(base_timestamp).cast_signed();
        let timestamp_delta = (timestamp_delta != 0).then(|| varint::zigzag(timestamp_delta));
        let delta = gap_to.unwrap_or(self.next_delta);
        if delta > u64::from(u32::MAX) {
            return Err(TooLarge { size: delta, limit: u64::from(u32::MAX) });
        }
        let header_count = headers.len();

        let size = optional_varint_size(timestamp_delta)
            .saturating_add(optional_varint_size(gap_to))
            .saturating_add(optional_bytes_size(key))
            .saturating_add(optional_bytes_size(value))
            .saturating_add(if header_count == 0 { 0 } else { headers_size(headers.clone()) })
            .saturating_add(1)
            .saturating_add(self.records_size as u64);
        let Some(size) = usize::try_from(size).ok().filter(|_| size <= RECORDS_SIZE_MAX) else {
            return Err(TooLarge { size, limit: RECORDS_SIZE_MAX });
        };

        let (start, end) = (SIZE_MAX + self.records_size, SIZE_MAX + size);
        if self.buffer.len() < end + ALIGNMENT {
            self.grow(end + ALIGNMENT);
        }
        let mut out = self.buffer.get_mut(start..end).unwrap_or_default();
        out = put_byte(
            out,
            flag(key.is_some(), HAS_KEY)
                | flag(value.is_some(), HAS_VALUE)
                | flag(header_count != 0, HAS_HEADERS)
                | flag(timestamp_delta.is_some(), HAS_TIMESTAMP)
                | flag(gap_to.is_some(), HAS_OFFSET),
        );
        if let Some(number) = timestamp_delta {
            out = put_varint(out, number);
        }
        if let Some(number) = gap_to {
            out = put_varint(out, number);
        }
        if let Some(key) = key {
            out = put_bytes(out, key);
        }
        if let Some(value) = value {
            out = put_bytes(out, value);
        }
        if header_count != 0 {
            out = put_headers(out, headers);
        }
        // What was announced is what was written, so nothing of an earlier batch shows through.
        debug_assert!(out.is_empty());

        self.records_size = size;
        self.base_timestamp = base_timestamp;
        self.max_timestamp = if first { timestamp } else { self.max_timestamp.max(timestamp) };
        self.next_delta = delta + 1;
        self.count += 1;
        Ok(())
    }

    /// A batch of one record without headers: what [`clear`](Self::clear), [`push`](Self::push) and
    /// [`finish`](Self::finish) make of it, by fewer steps, because nothing is relative to an
    /// earlier record.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] if the record exceeds the largest batch.
    #[inline]
    pub(crate) fn lone(
        &mut self,
        timestamp: u64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<EncodedBatch<'_>, TooLarge> {
        let size = optional_bytes_size(key).saturating_add(optional_bytes_size(value));
        let size = size.saturating_add(1);
        let Some(records_size) = usize::try_from(size).ok().filter(|_| size <= RECORDS_SIZE_MAX)
        else {
            return Err(TooLarge { size, limit: RECORDS_SIZE_MAX });
        };
        let end = SIZE_MAX + records_size + ALIGNMENT;
        if self.buffer.len() < end {
            self.grow(end);
        }
        let mut out = self.buffer.get_mut(SIZE_MAX..end).unwrap_or_default();
        out = put_byte(out, flag(key.is_some(), HAS_KEY) | flag(value.is_some(), HAS_VALUE));
        if let Some(key) = key {
            out = put_bytes(out, key);
        }
        if let Some(value) = value {
            out = put_bytes(out, value);
        }
        debug_assert_eq!(out.len(), ALIGNMENT, "the record has the announced size");
        put_padding(out);

        self.records_size = records_size;
        self.count = 1;
        self.next_delta = 1;
        self.last_offset_delta = None;
        self.base_timestamp = timestamp;
        self.max_timestamp = timestamp;
        self.delete_horizon = None;
        self.set_finished(0, FIXED_SIZE);
        Ok(EncodedBatch { encoder: self })
    }

    /// Says that the batch reaches to this offset, although its last records were removed. Of no
    /// effect below the last record that is there.
    pub(crate) fn set_last_offset_delta(&mut self, delta: u32) {
        self.last_offset_delta = Some(delta);
    }

    /// Says when the batch's tombstones may be dropped.
    pub(crate) fn set_delete_horizon(&mut self, horizon: Option<u64>) {
        self.delete_horizon = horizon;
    }

    /// Gives a batch without records, which stands for offsets whose records were removed, its
    /// time.
    pub(crate) fn set_base_timestamp_if_empty(&mut self, timestamp: u64) {
        if self.count == 0 {
            self.base_timestamp = timestamp;
            self.max_timestamp = timestamp;
        }
    }

    /// Pads and checksums the records: the expensive part, before any lock. A batch may be
    /// finished again after further pushes.
    #[inline]
    pub(crate) fn finish(&mut self) -> EncodedBatch<'_> {
        let records_end = SIZE_MAX + self.records_size;
        let rest = self.buffer.get_mut(records_end..).unwrap_or_default();
        put_padding(rest);
        let last_record = u32::try_from(self.next_delta.saturating_sub(1)).unwrap_or(u32::MAX);
        let last_offset_delta = last_record.max(self.last_offset_delta.unwrap_or(0));
        let has_max_timestamp = self.max_timestamp != self.base_timestamp;
        let header = header_size(has_max_timestamp, false, self.delete_horizon.is_some());
        self.set_finished(last_offset_delta, header);
        EncodedBatch { encoder: self }
    }

    /// Notes what is known of the batch, whose padding is written, and checksums its records.
    #[inline]
    fn set_finished(&mut self, last_offset_delta: u32, header_size: usize) {
        let padded_size = self.records_size.next_multiple_of(ALIGNMENT);
        self.finished = Finished {
            records: if padded_size > ONE_PASS_MAX { self.checksum(padded_size) } else { None },
            padded_size,
            // `RECORDS_SIZE_MAX` keeps this far below.
            size: u32::try_from(header_size + padded_size).unwrap_or(u32::MAX),
            last_offset_delta,
            expected: None,
        };
    }

    /// The checksum of a records area of this size.
    fn checksum(&self, padded_size: usize) -> Option<Checksum> {
        self.buffer.get(SIZE_MAX..SIZE_MAX + padded_size).map(Checksum::of)
    }

    #[cold]
    fn grow(&mut self, needed: usize) {
        let doubled = self.buffer.len().saturating_mul(2);
        self.buffer.resize(needed.max(doubled), 0);
    }
}

impl Default for BatchEncoder {
    fn default() -> Self {
        Self::new()
    }
}

/// The fields of a batch that are known only under the partition's lock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placement<'k> {
    pub(crate) base_offset: u64,
    pub(crate) leader_epoch: u32,
    /// How far the log is known to be durable.
    pub(crate) durable_end: u64,
    /// The key of the segment.
    pub(crate) key: &'k SegmentKey,
    pub(crate) producer: Option<ProducerStamp>,
}

/// A batch that lacks only its offset and what the log adds; see [`Placement`]. One pointer: what
/// is handed from function to function through memory is read back before it has got there.
#[derive(Debug)]
pub(crate) struct EncodedBatch<'a> {
    encoder: &'a mut BatchEncoder,
}

/// What the header says of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Offsets {
    base_offset: u64,
    durable_end: u64,
    leader_epoch: u32,
}

impl EncodedBatch<'_> {
    /// Writes the header of a batch that is checksummed in one pass, as it will be if nothing
    /// changes in the log before [`seal`](Self::seal). Called before the lock is taken: a checksum
    /// waits for bytes that were stored right before, some 7 ns, and taking a lock waits for them
    /// anyway.
    #[inline]
    pub(crate) fn expect(&mut self, base_offset: u64, durable_end: u64) {
        // Without replication the leader epoch is 0.
        let offsets = Offsets { base_offset, durable_end, leader_epoch: 0 };
        let header = self.header(&offsets, None);
        if self.encoder.finished.records.is_none() && header.header_size() == FIXED_SIZE {
            write_header(&header, &mut self.encoder.buffer);
            self.encoder.finished.expected = Some(offsets);
        }
    }

    #[inline]
    fn header(&self, offsets: &Offsets, producer: Option<ProducerStamp>) -> BatchHeader {
        let Offsets { base_offset, durable_end, leader_epoch } = *offsets;
        BatchHeader {
            size: self.size(producer.is_some()),
            checksum: 0,
            durable_distance: durable_distance(base_offset, durable_end),
            base_offset,
            base_timestamp: self.encoder.base_timestamp,
            leader_epoch,
            last_offset_delta: self.encoder.finished.last_offset_delta,
            record_count: self.encoder.count,
            max_timestamp: self.encoder.max_timestamp,
            producer,
            delete_horizon: self.encoder.delete_horizon,
            opening: false,
        }
    }

    #[inline]
    pub(crate) fn record_count(&self) -> u32 {
        self.encoder.count
    }

    #[inline]
    pub(crate) fn last_offset_delta(&self) -> u32 {
        self.encoder.finished.last_offset_delta
    }

    #[inline]
    pub(crate) fn base_timestamp(&self) -> u64 {
        self.encoder.base_timestamp
    }

    #[inline]
    pub(crate) fn max_timestamp(&self) -> u64 {
        self.encoder.max_timestamp
    }

    /// The size of the sealed batch in bytes, header and padding included.
    #[inline]
    pub(crate) fn size(&self, with_producer: bool) -> u32 {
        self.encoder.finished.size.saturating_add(if with_producer { PRODUCER_SIZE } else { 0 })
    }

    /// Writes the header in front of the records and returns the batch. May be called again with
    /// another placement: a batch that does not fit goes to the next segment.
    #[inline]
    pub(crate) fn seal(&mut self, placement: &Placement<'_>) -> &[u8] {
        self.unsealed(placement).seal()
    }

    /// As [`seal`](Self::seal), but the checksum is not in the batch yet.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "one call per record, also where the feature `replication` adds a caller"
    )]
    pub(crate) fn unsealed(&mut self, placement: &Placement<'_>) -> Unsealed<'_> {
        let Placement { base_offset, leader_epoch, durable_end, key, producer } = *placement;
        let offsets = Offsets { base_offset, durable_end, leader_epoch };
        let finished = &mut self.encoder.finished;
        let end = SIZE_MAX + finished.padded_size;
        let header_size = if producer.is_none() && finished.expected == Some(offsets) {
            FIXED_SIZE
        } else {
            finished.expected = None;
            let header = self.header(&offsets, producer);
            write_header(&header, &mut self.encoder.buffer)
        };
        let buffer = self.encoder.buffer.get_mut(..end).unwrap_or_default();
        Unsealed::new(header_size, self.encoder.finished.records, key, buffer)
    }
}

#[inline]
const fn flag(present: bool, flag: u8) -> u8 {
    if present { flag } else { 0 }
}

#[inline]
fn optional_varint_size(value: Option<u64>) -> u64 {
    value.map_or(0, |value| varint::size(value) as u64)
}

#[inline]
fn bytes_size(bytes: &[u8]) -> u64 {
    let length = bytes.len() as u64;
    length.saturating_add(varint::size(length) as u64)
}

#[inline]
fn optional_bytes_size(bytes: Option<&[u8]>) -> u64 {
    bytes.map_or(0, bytes_size)
}

fn headers_size<'h>(headers: impl ExactSizeIterator<Item = (&'h str, &'h [u8])>) -> u64 {
    let count = varint::size(headers.len() as u64) as u64;
    headers.fold(count, |size, (name, value)| {
        size.saturating_add(bytes_size(name.as_bytes())).saturating_add(bytes_size(value))
    })
}

/// Each `put` writes at the front of `out`, which was made as long as all of them together, and
/// returns the rest.
#[inline]
fn put_byte(out: &mut [u8], byte: u8) -> &mut [u8] {
    match out.split_first_mut() {
        Some((field, rest)) => {
            *field = byte;
            rest
        }
        None => &mut [],
    }
}

/// As many bytes as the records area may need to be aligned.
#[inline]
fn put_padding(out: &mut [u8]) {
    if let Some(padding) = out.first_chunk_mut::<ALIGNMENT>() {
        *padding = [0; ALIGNMENT];
    }
}

#[inline]
fn put_varint(mut out: &mut [u8], mut value: u64) -> &mut [u8] {
    while value >= 0x80 {
        out = put_byte(out, varint::low_bits(value) | 0x80);
        value >>= 7;
    }
    put_byte(out, varint::low_bits(value))
}

#[inline]
fn put_bytes<'o>(out: &'o mut [u8], bytes: &[u8]) -> &'o mut [u8] {
    let out = put_varint(out, bytes.len() as u64);
    match out.split_at_mut_checked(bytes.len()) {
        Some((field, rest)) => {
            field.copy_from_slice(bytes);
            rest
        }
        None => &mut [],
    }
}

fn put_headers<'o, 'h>(
    out: &'o mut [u8],
    headers: impl ExactSizeIterator<Item = (&'h str, &'h [u8])>,
) -> &'o mut [u8] {
    let mut out = put_varint(out, headers.len() as u64);
    for (name, value) in headers {
        out = put_bytes(out, name.as_bytes());
        out = put_bytes(out, value);
    }
    out
}

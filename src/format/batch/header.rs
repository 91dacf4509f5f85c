//! The batch header: 44 bytes, then an extension whose fields the attributes announce.
//!
//! Owns: its layout and its structural checks. Knows nothing of records or checksums. Invariants of
//! every [`BatchHeader`] that `parse` returns:
//!
//! 1. `header_size ≤ size ≤` the bytes given, and `size` is a multiple of 4.
//! 2. `base_offset + last_offset_delta + 1` and the last sequence do not overflow.
//! 3. `record_count ≤ last_offset_delta + 1`, `base_timestamp ≤ max_timestamp` (stored only if
//!    greater), `durable_distance ≤ base_offset` unless it is [`NO_EVIDENCE`].
//! 4. An opening batch has no records, no extension, and consumes no offset.
//!
//! Pure; called from any thread.

use crate::error::CorruptionKind;
use crate::format::fields::{set_field, take, u32_field, u64_field};

const SIZE_AT: usize = 0;
pub(super) const CHECKSUM_AT: usize = SIZE_AT + 4;
pub(super) const DURABLE_DISTANCE_AT: usize = CHECKSUM_AT + 4;
const ATTRIBUTES_AT: usize = DURABLE_DISTANCE_AT + 4;
const BASE_OFFSET_AT: usize = ATTRIBUTES_AT + 4;
const BASE_TIMESTAMP_AT: usize = BASE_OFFSET_AT + 8;
const LEADER_EPOCH_AT: usize = BASE_TIMESTAMP_AT + 8;
const LAST_OFFSET_DELTA_AT: usize = LEADER_EPOCH_AT + 4;
const RECORD_COUNT_AT: usize = LAST_OFFSET_DELTA_AT + 4;

/// The part of the header that every batch has, in bytes.
pub(crate) const FIXED_SIZE: usize = RECORD_COUNT_AT + 4;

const MAX_TIMESTAMP_SIZE: usize = 8;
pub(super) const PRODUCER_SIZE: u32 = 8 + 4 + 8;
const UNCOMPRESSED_LENGTH_SIZE: usize = 4;
const DELETE_HORIZON_SIZE: usize = 8;

/// The header with every extension field, in bytes.
pub(crate) const SIZE_MAX: usize = FIXED_SIZE
    + MAX_TIMESTAMP_SIZE
    + PRODUCER_SIZE as usize
    + UNCOMPRESSED_LENGTH_SIZE
    + DELETE_HORIZON_SIZE;

/// The checksum covers the header's bytes from here on, unchanged.
pub(super) const COVERED_AT: usize = CHECKSUM_AT + 4;

/// Batches begin at multiples of this, and their sizes are multiples of it.
pub(crate) const ALIGNMENT: usize = 4;

const _: () = assert!(SIZE_AT == 0);
const _: () = assert!(CHECKSUM_AT == 4);
const _: () = assert!(DURABLE_DISTANCE_AT == 8);
const _: () = assert!(ATTRIBUTES_AT == 12);
const _: () = assert!(BASE_OFFSET_AT == 16);
const _: () = assert!(BASE_TIMESTAMP_AT == 24);
const _: () = assert!(LEADER_EPOCH_AT == 32);
const _: () = assert!(LAST_OFFSET_DELTA_AT == 36);
const _: () = assert!(RECORD_COUNT_AT == 40);
const _: () = assert!(FIXED_SIZE == 44);
const _: () = assert!(SIZE_MAX == 84);
const _: () = assert!(FIXED_SIZE.is_multiple_of(ALIGNMENT));
const _: () = assert!(SIZE_MAX.is_multiple_of(ALIGNMENT));

/// `(at, size, field)` of every field, for the test that reads the table in `docs/format.md`.
#[cfg(test)]
pub(in crate::format) const LAYOUT: &[(usize, usize, &str)] = &[
    (SIZE_AT, 4, "size"),
    (CHECKSUM_AT, 4, "checksum"),
    (DURABLE_DISTANCE_AT, 4, "durable_distance"),
    (ATTRIBUTES_AT, 4, "attributes"),
    (BASE_OFFSET_AT, 8, "base_offset"),
    (BASE_TIMESTAMP_AT, 8, "base_timestamp"),
    (LEADER_EPOCH_AT, 4, "leader_epoch"),
    (LAST_OFFSET_DELTA_AT, 4, "last_offset_delta"),
    (RECORD_COUNT_AT, 4, "record_count"),
];

/// `(bit, size, field)` of every extension field, for the same test.
#[cfg(test)]
pub(in crate::format) const EXTENSION: &[(usize, usize, &str)] = &[
    (HAS_MAX_TIMESTAMP.trailing_zeros() as usize, MAX_TIMESTAMP_SIZE, "max_timestamp"),
    (HAS_PRODUCER.trailing_zeros() as usize, PRODUCER_SIZE as usize, "producer"),
    (2, UNCOMPRESSED_LENGTH_SIZE, "uncompressed_length"),
    (HAS_DELETE_HORIZON.trailing_zeros() as usize, DELETE_HORIZON_SIZE, "delete_horizon"),
];

const HAS_MAX_TIMESTAMP: u32 = 1 << 0;
const HAS_PRODUCER: u32 = 1 << 1;
const HAS_DELETE_HORIZON: u32 = 1 << 3;
const CODEC_MASK: u32 = 0xf << 8;
const OPENING: u32 = 1 << 12;
const TRANSACTION: u32 = 1 << 13;

/// What this build reads. Bit 2 (uncompressed length) comes with a codec, and codecs are refused.
const KNOWN: u32 = HAS_MAX_TIMESTAMP | HAS_PRODUCER | HAS_DELETE_HORIZON | OPENING;

/// The durable distance that proves nothing: unknown, or too far to say.
pub(crate) const NO_EVIDENCE: u32 = u32::MAX;

/// Which named producer sent a batch, and where it stands in that producer's sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProducerStamp {
    pub(crate) id: u64,
    pub(crate) epoch: u32,
    /// The sequence number of the batch's last offset, less the number of offsets before it. (Numbers
    /// may have gaps; only the last of a batch is remembered.)
    pub(crate) base_sequence: u64,
}

/// What the attributes announce.
#[derive(Default)]
struct Extension {
    max_timestamp: u64,
    producer: Option<ProducerStamp>,
    delete_horizon: Option<u64>,
    opening: bool,
}

impl Extension {
    /// Allocates nothing, whatever the attributes say.
    #[cold]
    fn parse(attributes: u32, base_timestamp: u64, bytes: &[u8]) -> Result<Self, CorruptionKind> {
        if attributes & CODEC_MASK != 0 {
            return Err(CorruptionKind::Malformed("codec"));
        }
        if attributes & TRANSACTION != 0 {
            return Err(CorruptionKind::Malformed("transaction"));
        }
        let opening = attributes & OPENING != 0;
        if attributes & !KNOWN != 0 || (opening && attributes != OPENING) {
            return Err(CorruptionKind::Malformed("attributes"));
        }
        let mut rest = bytes.get(FIXED_SIZE..).unwrap_or_default();
        let mut extension = Self { max_timestamp: base_timestamp, opening, ..Self::default() };
        extension
            .parse_fields(attributes, &mut rest)
            .ok_or(CorruptionKind::Length("batch header"))?;
        // One meaning, one encoding: a maximum that the base already gives is not stored, so the
        // attributes and the header's size follow from the values.
        if attributes & HAS_MAX_TIMESTAMP != 0 && extension.max_timestamp == base_timestamp {
            return Err(CorruptionKind::Malformed("maximum timestamp"));
        }
        Ok(extension)
    }

    fn parse_fields(&mut self, attributes: u32, rest: &mut &[u8]) -> Option<()> {
        if attributes & HAS_MAX_TIMESTAMP != 0 {
            self.max_timestamp = u64::from_le_bytes(take(rest)?);
        }
        if attributes & HAS_PRODUCER != 0 {
            self.producer = Some(ProducerStamp {
                id: u64::from_le_bytes(take(rest)?),
                epoch: u32::from_le_bytes(take(rest)?),
                base_sequence: u64::from_le_bytes(take(rest)?),
            });
        }
        if attributes & HAS_DELETE_HORIZON != 0 {
            self.delete_horizon = Some(u64::from_le_bytes(take(rest)?));
        }
        Some(())
    }
}

/// A batch header, parsed or about to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct BatchHeader {
    /// The whole batch, header and padding included, in bytes.
    pub(crate) size: u32,
    pub(crate) checksum: u32,
    /// `base_offset` minus how far the log was durable at the append, or [`NO_EVIDENCE`].
    pub(crate) durable_distance: u32,
    pub(crate) base_offset: u64,
    pub(crate) base_timestamp: u64,
    pub(crate) leader_epoch: u32,
    pub(crate) last_offset_delta: u32,
    pub(crate) record_count: u32,
    pub(crate) max_timestamp: u64,
    pub(crate) producer: Option<ProducerStamp>,
    /// Tombstones in this batch may be dropped at this time.
    pub(crate) delete_horizon: Option<u64>,
    /// Whether this is a segment's opening batch.
    pub(crate) opening: bool,
}

impl BatchHeader {
    /// The size that the batch at the start of `bytes` claims to have, unchecked; `None` where
    /// there are not even bytes for that.
    #[inline]
    pub(crate) fn declared_size(bytes: &[u8]) -> Option<u32> {
        bytes.first_chunk().map(|size| u32::from_le_bytes(*size))
    }

    /// Parses the header of the batch at the start of `bytes`, which reach to the end of what may
    /// be read. `None` is the end of the log: a size of zero, or nothing left.
    #[inline]
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Self>, CorruptionKind> {
        let Some(size) = bytes.first_chunk::<4>() else {
            // Batches are aligned to 4, so 1 to 3 bytes cannot be left over.
            return if bytes.is_empty() { Ok(None) } else { Err(CorruptionKind::Length("batch")) };
        };
        if *size == [0; 4] {
            return Ok(None);
        }
        let Some(fixed) = bytes.first_chunk::<FIXED_SIZE>() else {
            return Err(CorruptionKind::Length("batch header"));
        };
        let header = Self::read(fixed, bytes)?;
        header.validate(bytes.len())?;
        Ok(Some(header))
    }

    /// Parses a header without extension; `None` for any other, and for one that is wrong.
    #[inline]
    pub(super) fn parse_plain(bytes: &[u8]) -> Option<Self> {
        let fixed = bytes.first_chunk::<FIXED_SIZE>()?;
        if u32_field::<ATTRIBUTES_AT, _>(fixed) != 0 {
            return None;
        }
        let header = Self::read(fixed, bytes).ok()?;
        header.validate(bytes.len()).is_ok().then_some(header)
    }

    /// Reads the fields without comparing them with one another.
    #[inline]
    fn read(fixed: &[u8; FIXED_SIZE], bytes: &[u8]) -> Result<Self, CorruptionKind> {
        let base_timestamp = u64_field::<BASE_TIMESTAMP_AT, _>(fixed);
        let attributes = u32_field::<ATTRIBUTES_AT, _>(fixed);
        // By value and out of line: the common header stays in registers.
        let extension = if attributes == 0 {
            Extension { max_timestamp: base_timestamp, ..Extension::default() }
        } else {
            Extension::parse(attributes, base_timestamp, bytes)?
        };
        Ok(Self {
            size: u32_field::<SIZE_AT, _>(fixed),
            checksum: u32_field::<CHECKSUM_AT, _>(fixed),
            durable_distance: u32_field::<DURABLE_DISTANCE_AT, _>(fixed),
            base_offset: u64_field::<BASE_OFFSET_AT, _>(fixed),
            base_timestamp,
            leader_epoch: u32_field::<LEADER_EPOCH_AT, _>(fixed),
            last_offset_delta: u32_field::<LAST_OFFSET_DELTA_AT, _>(fixed),
            record_count: u32_field::<RECORD_COUNT_AT, _>(fixed),
            max_timestamp: extension.max_timestamp,
            producer: extension.producer,
            delete_horizon: extension.delete_horizon,
            opening: extension.opening,
        })
    }

    /// The header of a batch that [`parse`](Self::parse) has passed before.
    #[inline]
    pub(super) fn parsed(bytes: &[u8]) -> Self {
        let fixed = bytes.first_chunk::<FIXED_SIZE>().unwrap_or(&[0; FIXED_SIZE]);
        Self::read(fixed, bytes).unwrap_or_default()
    }

    #[inline]
    fn validate(&self, available: usize) -> Result<(), CorruptionKind> {
        let size = self.size as usize;
        if size < self.header_size() || size > available {
            return Err(CorruptionKind::Length("batch"));
        }
        if !size.is_multiple_of(ALIGNMENT) {
            return Err(CorruptionKind::Malformed("batch size"));
        }
        let last_delta = u64::from(self.last_offset_delta);
        // One more than the last offset must exist: it is the next batch's base offset.
        if self.base_offset.checked_add(last_delta + 1).is_none() {
            return Err(CorruptionKind::Malformed("base offset"));
        }
        let distance = self.durable_distance;
        if distance != NO_EVIDENCE && u64::from(distance) > self.base_offset {
            return Err(CorruptionKind::Malformed("durable distance"));
        }
        if u64::from(self.record_count) > last_delta + 1
            || (self.opening && (self.record_count != 0 || last_delta != 0))
        {
            return Err(CorruptionKind::Malformed("record count"));
        }
        if self.max_timestamp < self.base_timestamp {
            return Err(CorruptionKind::Malformed("maximum timestamp"));
        }
        let last_sequence = |stamp: ProducerStamp| stamp.base_sequence.checked_add(last_delta);
        if self.producer.is_some_and(|stamp| last_sequence(stamp).is_none()) {
            return Err(CorruptionKind::Malformed("producer sequence"));
        }
        Ok(())
    }

    /// Writes the fixed part at the start of an array that has room for more.
    #[inline]
    pub(super) fn put_fixed<const L: usize>(&self, bytes: &mut [u8; L]) {
        set_field::<SIZE_AT, _, _>(bytes, self.size.to_le_bytes());
        set_field::<CHECKSUM_AT, _, _>(bytes, self.checksum.to_le_bytes());
        set_field::<DURABLE_DISTANCE_AT, _, _>(bytes, self.durable_distance.to_le_bytes());
        set_field::<ATTRIBUTES_AT, _, _>(bytes, self.attributes().to_le_bytes());
        set_field::<BASE_OFFSET_AT, _, _>(bytes, self.base_offset.to_le_bytes());
        set_field::<BASE_TIMESTAMP_AT, _, _>(bytes, self.base_timestamp.to_le_bytes());
        set_field::<LEADER_EPOCH_AT, _, _>(bytes, self.leader_epoch.to_le_bytes());
        set_field::<LAST_OFFSET_DELTA_AT, _, _>(bytes, self.last_offset_delta.to_le_bytes());
        set_field::<RECORD_COUNT_AT, _, _>(bytes, self.record_count.to_le_bytes());
    }

    /// Writes the extension after the fixed part.
    pub(super) fn put_extension(&self, bytes: &mut [u8; SIZE_MAX]) {
        let mut rest = bytes.get_mut(FIXED_SIZE..).unwrap_or_default();
        if self.has_max_timestamp() {
            rest = put(rest, self.max_timestamp.to_le_bytes());
        }
        if let Some(stamp) = self.producer {
            rest = put(rest, stamp.id.to_le_bytes());
            rest = put(rest, stamp.epoch.to_le_bytes());
            rest = put(rest, stamp.base_sequence.to_le_bytes());
        }
        if let Some(horizon) = self.delete_horizon {
            put(rest, horizon.to_le_bytes());
        }
    }

    /// The header with its extension, in bytes.
    #[inline]
    pub(crate) fn header_size(&self) -> usize {
        let (producer, horizon) = (self.producer.is_some(), self.delete_horizon.is_some());
        header_size(self.has_max_timestamp(), producer, horizon)
    }

    /// The attribute word: what is announced is what is there.
    #[inline]
    pub(crate) fn attributes(&self) -> u32 {
        let bit = |present: bool, bit: u32| if present { bit } else { 0 };
        bit(self.has_max_timestamp(), HAS_MAX_TIMESTAMP)
            | bit(self.producer.is_some(), HAS_PRODUCER)
            | bit(self.delete_horizon.is_some(), HAS_DELETE_HORIZON)
            | bit(self.opening, OPENING)
    }

    #[inline]
    fn has_max_timestamp(&self) -> bool {
        self.max_timestamp != self.base_timestamp
    }

    /// The offset after the batch's last; an opening batch has none of its own.
    #[inline]
    pub(crate) fn next_offset(&self) -> u64 {
        let consumed = if self.opening { 0 } else { u64::from(self.last_offset_delta) + 1 };
        // `validate` has seen that this does not overflow.
        self.base_offset.saturating_add(consumed)
    }

    /// How far the log was durable when this batch was appended, if the batch proves anything.
    #[inline]
    pub(crate) fn durable_mark(&self) -> Option<u64> {
        let distance = u64::from(self.durable_distance);
        (self.durable_distance != NO_EVIDENCE).then(|| self.base_offset.saturating_sub(distance))
    }

    /// Whether this is a segment's opening batch.
    #[inline]
    pub(crate) fn is_opening(&self) -> bool {
        self.opening
    }

    /// The sequence number of the batch's last offset, if a named producer sent it.
    #[inline]
    pub(crate) fn last_sequence(&self) -> Option<u64> {
        let last_delta = u64::from(self.last_offset_delta);
        self.producer.map(|stamp| stamp.base_sequence.saturating_add(last_delta))
    }
}

/// A header with these extension fields, in bytes.
#[inline]
pub(super) const fn header_size(max_timestamp: bool, producer: bool, horizon: bool) -> usize {
    const fn field(present: bool, size: usize) -> usize {
        if present { size } else { 0 }
    }
    FIXED_SIZE
        + field(max_timestamp, MAX_TIMESTAMP_SIZE)
        + field(producer, PRODUCER_SIZE as usize)
        + field(horizon, DELETE_HORIZON_SIZE)
}

/// The distance that says that the log was durable up to `durable_end` when the batch was appended
/// at `base_offset`. A log that was durable beyond it (a rewrite) proves everything before it.
#[inline]
pub(in crate::format) fn durable_distance(base_offset: u64, durable_end: u64) -> u32 {
    u32::try_from(base_offset.saturating_sub(durable_end)).unwrap_or(NO_EVIDENCE)
}

/// Writes at the front of `rest` and returns the remainder. [`SIZE_MAX`] has room for every field.
fn put<const N: usize>(rest: &mut [u8], value: [u8; N]) -> &mut [u8] {
    match rest.split_first_chunk_mut::<N>() {
        Some((field, tail)) => {
            *field = value;
            tail
        }
        None => &mut [],
    }
}

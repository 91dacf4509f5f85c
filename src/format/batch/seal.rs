//! Seals a batch: computes its checksum, and gives a finished batch to another segment.
//!
//! FORMAT: the checksum covers every byte of the batch except itself, and the segment's salt. A batch
//! with a short records area is checksummed in one pass, if the segment's key says so: the salt, then
//! the batch from behind its checksum to its end; the size is added by an exclusive or. Any other
//! batch is checksummed in parts: the records area with its padding, then the header from behind the
//! checksum to the end of the extension, then the size, then the salt. There the records come first,
//! so that a producer checksums them before it knows its offset. Pure; called from any thread.

use super::header::{
    BatchHeader, CHECKSUM_AT, COVERED_AT, DURABLE_DISTANCE_AT, FIXED_SIZE, SIZE_MAX,
    durable_distance,
};
use crate::error::CorruptionKind;
use crate::format::checksum::Checksum;
use crate::format::fields::{field, set_field};
use crate::format::key::SegmentKey;

const SUFFIX_SIZE: usize = 4 + 8;
const PLAIN_COVERED_SIZE: usize = FIXED_SIZE - COVERED_AT;

/// What the checksum of a batch without extension covers after its records, in bytes.
const TAIL_SIZE: usize = PLAIN_COVERED_SIZE + SUFFIX_SIZE;

/// The checksum of a batch, of which the first `header_size` bytes are header and extension.
#[inline]
pub(super) fn batch_checksum(batch: &[u8], header_size: usize, key: &SegmentKey) -> u32 {
    let records_size = batch.len().saturating_sub(header_size);
    match one_pass_checksum(batch, records_size, key) {
        Some(checksum) => checksum,
        None => two_pass_checksum(batch, header_size, key),
    }
}

fn two_pass_checksum(batch: &[u8], header_size: usize, key: &SegmentKey) -> u32 {
    let records = batch.get(header_size..).unwrap_or_default();
    parts_checksum(Checksum::of(records), batch, header_size, key)
}

/// The checksum of a batch without extension, which consists of `fixed` and `records`.
#[inline(always)]
#[expect(
    clippy::inline_always,
    reason = "one call per record, also where the feature `replication` adds a caller"
)]
pub(super) fn plain_checksum(
    batch: &[u8],
    fixed: &[u8; FIXED_SIZE],
    records: &[u8],
    key: &SegmentKey,
) -> u32 {
    match one_pass_checksum(batch, records.len(), key) {
        Some(checksum) => checksum,
        None => Checksum::of_both(records, &plain_tail(fixed, key.salt())).value(),
    }
}

/// The checksum of a batch with a records area of this size, if it is checksummed in one pass. The
/// size lies before the checksum, so it would take a second pass; no two sizes are the same here.
#[inline]
fn one_pass_checksum(batch: &[u8], records_size: usize, key: &SegmentKey) -> Option<u32> {
    let (size, covered) = (batch.first_chunk()?, batch.get(COVERED_AT..)?);
    let checksum = key.one_pass(records_size, covered)?;
    Some(checksum.value() ^ u32::from_le_bytes(*size))
}

/// The checksum of a batch whose records area has the checksum `records`, in parts. Its first
/// `header_size` bytes are header and extension.
fn parts_checksum(records: Checksum, batch: &[u8], header_size: usize, key: &SegmentKey) -> u32 {
    let header = batch.get(..header_size).unwrap_or_default();
    let Some(fixed) = header.first_chunk::<FIXED_SIZE>() else {
        return records.value();
    };
    if header.len() == FIXED_SIZE {
        return records.then(&plain_tail(fixed, key.salt())).value();
    }
    let mut suffix = [0; SUFFIX_SIZE];
    set_field::<0, _, _>(&mut suffix, field::<0, 4, _>(fixed));
    set_field::<4, _, _>(&mut suffix, key.salt().to_le_bytes());
    let covered = header.get(COVERED_AT..).unwrap_or_default();
    records.then(covered).then(&suffix).value()
}

/// What the checksum of a batch without extension covers after the records. One piece: a call
/// for each part of it costs several times as much.
#[inline]
fn plain_tail(fixed: &[u8; FIXED_SIZE], salt: u64) -> [u8; TAIL_SIZE] {
    let mut tail = [0; TAIL_SIZE];
    set_field::<0, _, _>(&mut tail, field::<COVERED_AT, PLAIN_COVERED_SIZE, _>(fixed));
    set_field::<PLAIN_COVERED_SIZE, _, _>(&mut tail, field::<0, 4, _>(fixed));
    set_field::<{ PLAIN_COVERED_SIZE + 4 }, _, _>(&mut tail, salt.to_le_bytes());
    tail
}

/// Writes the header, without its checksum, right before the records area, which begins at
/// [`SIZE_MAX`] in `buffer`. Returns the header's size.
#[inline]
pub(in crate::format) fn write_header(header: &BatchHeader, buffer: &mut [u8]) -> usize {
    let header_size = header.header_size();
    if header_size != FIXED_SIZE {
        write_long_header(header, header_size, buffer);
    } else if let Some(room) = buffer.first_chunk_mut::<SIZE_MAX>() {
        let mut fixed = [0; FIXED_SIZE];
        header.put_fixed(&mut fixed);
        set_field::<{ SIZE_MAX - FIXED_SIZE }, _, _>(room, fixed);
    }
    header_size
}

fn write_long_header(header: &BatchHeader, header_size: usize, buffer: &mut [u8]) {
    let mut image = [0; SIZE_MAX];
    header.put_fixed(&mut image);
    header.put_extension(&mut image);
    let room = buffer.get_mut(SIZE_MAX.saturating_sub(header_size)..SIZE_MAX);
    if let (Some(room), Some(used)) = (room, image.get(..header_size)) {
        room.copy_from_slice(used);
    }
}

/// A batch without its checksum, and the checksum.
///
/// A copy of the batch does not wait for the checksum, which takes as long as the copy. In a batch
/// that already has it, the copy waits until the checksum was computed and has left the processor's
/// store buffer.
#[derive(Debug)]
pub(crate) struct Unsealed<'b> {
    /// The checksum in it has any value.
    pub(crate) bytes: &'b mut [u8],
    pub(crate) checksum: [u8; 4],
}

impl<'b> Unsealed<'b> {
    /// Where the checksum lies in a batch.
    pub(crate) const CHECKSUM_AT: usize = CHECKSUM_AT;

    /// The batch at the end of `buffer`, whose records area begins at [`SIZE_MAX`] and whose header
    /// was written before it. `records` is the checksum of the records area, if it is known.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "one call per record, also where the feature `replication` adds a caller"
    )]
    pub(super) fn new(
        header_size: usize,
        records: Option<Checksum>,
        key: &SegmentKey,
        buffer: &'b mut [u8],
    ) -> Self {
        let start = SIZE_MAX.saturating_sub(header_size);
        let bytes = buffer.get_mut(start..).unwrap_or_default();
        let checksum = match records {
            Some(records) => parts_checksum(records, bytes, header_size, key),
            None => batch_checksum(bytes, header_size, key),
        };
        Self { bytes, checksum: checksum.to_le_bytes() }
    }

    /// A batch that has its checksum.
    #[cfg(feature = "replication")]
    pub(crate) fn whole(bytes: &'b mut [u8]) -> Self {
        let checksum = bytes.first_chunk::<FIXED_SIZE>().map(field::<CHECKSUM_AT, 4, _>);
        Self { checksum: checksum.unwrap_or_default(), bytes }
    }

    /// The batch with its checksum.
    #[inline]
    pub(crate) fn seal(self) -> &'b [u8] {
        if let Some(fixed) = self.bytes.first_chunk_mut::<FIXED_SIZE>() {
            set_field::<CHECKSUM_AT, _, _>(fixed, self.checksum);
        }
        self.bytes
    }
}

/// Completes a batch by its checksum; see [`Unsealed::new`].
pub(in crate::format) fn seal<'b>(
    header_size: usize,
    records: Option<Checksum>,
    key: &SegmentKey,
    buffer: &'b mut [u8],
) -> &'b [u8] {
    Unsealed::new(header_size, records, key, buffer).seal()
}

/// Gives a batch that [`check`](super::BatchView::check) has passed to the segment with this key:
/// writes its local part (checksum and durable distance) anew and leaves the portable part as it is.
///
/// # Errors
///
/// The header is wrong; an end mark is `Malformed`. The bytes are unchanged then.
pub(crate) fn reseal(
    batch: &mut [u8],
    durable_end: u64,
    key: &SegmentKey,
) -> Result<BatchHeader, CorruptionKind> {
    let malformed = CorruptionKind::Malformed("batch");
    let mut header = BatchHeader::parse(batch)?.ok_or_else(|| malformed.clone())?;
    let distance = durable_distance(header.base_offset, durable_end);
    let fixed = batch.first_chunk_mut::<FIXED_SIZE>().ok_or(malformed)?;
    set_field::<DURABLE_DISTANCE_AT, _, _>(fixed, distance.to_le_bytes());

    let whole = batch.get(..header.size as usize).unwrap_or_default();
    let checksum = batch_checksum(whole, header.header_size(), key);
    if let Some(fixed) = batch.first_chunk_mut::<FIXED_SIZE>() {
        set_field::<CHECKSUM_AT, _, _>(fixed, checksum.to_le_bytes());
    }
    header.durable_distance = distance;
    header.checksum = checksum;
    Ok(header)
}

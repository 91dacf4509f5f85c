//! Seals a batch: computes its checksum, and gives a finished batch to another segment.
//!
//! FORMAT: the checksum covers the records area with its padding, then the header from after the
//! checksum to the end of the extension, then the size, then the segment's salt: every byte of the
//! batch except the checksum itself. The records come first, so that a producer checksums them
//! before it knows its offset. Pure; called from any thread.

use super::header::{
    BatchHeader, CHECKSUM_AT, COVERED_AT, DURABLE_DISTANCE_AT, FIXED_SIZE, SIZE_MAX,
    durable_distance,
};
use crate::error::CorruptionKind;
use crate::format::checksum::Checksum;
use crate::format::fields::{field, set_field};

const SUFFIX_SIZE: usize = 4 + 8;
const PLAIN_COVERED_SIZE: usize = FIXED_SIZE - COVERED_AT;

/// What the checksum of a batch without extension covers after its records, in bytes.
pub(super) const TAIL_SIZE: usize = PLAIN_COVERED_SIZE + SUFFIX_SIZE;

/// The checksum of a batch whose records area has the checksum `records`, with `header` as its
/// header and extension.
#[inline]
pub(super) fn batch_checksum(records: Checksum, header: &[u8], salt: u64) -> u32 {
    let Some(fixed) = header.first_chunk::<FIXED_SIZE>() else {
        return records.value();
    };
    let size = field::<0, 4, _>(fixed);
    if header.len() == FIXED_SIZE {
        return records.then(&plain_tail(fixed, salt)).value();
    }
    let mut suffix = [0; SUFFIX_SIZE];
    set_field::<0, _, _>(&mut suffix, size);
    set_field::<4, _, _>(&mut suffix, salt.to_le_bytes());
    let covered = header.get(COVERED_AT..).unwrap_or_default();
    records.then(covered).then(&suffix).value()
}

/// LIMIT: records areas up to this are checksummed together with their header, in one call, which
/// saves some 20 ns per batch; beyond this size it saves nothing. When appending that happens under
/// the partition's lock and holds it some 10 ns longer.
pub(super) const SHORT_SIZE_MAX: usize = 256;

/// The checksum of a batch without extension whose records area is `records`.
#[inline]
pub(super) fn plain_checksum(records: &[u8], fixed: &[u8; FIXED_SIZE], salt: u64) -> u32 {
    Checksum::of_both(records, &plain_tail(fixed, salt)).value()
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

/// Completes the checksum and writes the header right before the records area, which begins at
/// [`SIZE_MAX`] in `buffer` and has the checksum `records`. Returns the batch.
#[inline]
pub(in crate::format) fn write_header(
    mut header: BatchHeader,
    records: Checksum,
    salt: u64,
    buffer: &mut [u8],
) -> &[u8] {
    let size = header.header_size();
    if size != FIXED_SIZE {
        return write_long_header(header, records, salt, buffer);
    }
    // The header and what follows it in the checksum, in one piece.
    let mut image = [0; FIXED_SIZE + SUFFIX_SIZE];
    header.put_fixed(&mut image);
    set_field::<FIXED_SIZE, _, _>(&mut image, header.size.to_le_bytes());
    set_field::<{ FIXED_SIZE + 4 }, _, _>(&mut image, salt.to_le_bytes());
    header.checksum = records.then(image.get(COVERED_AT..).unwrap_or_default()).value();
    set_field::<CHECKSUM_AT, _, _>(&mut image, header.checksum.to_le_bytes());
    if let Some(room) = buffer.first_chunk_mut::<SIZE_MAX>() {
        let fixed = field::<0, FIXED_SIZE, _>(&image);
        set_field::<{ SIZE_MAX - FIXED_SIZE }, _, _>(room, fixed);
    }
    buffer.get(SIZE_MAX - FIXED_SIZE..).unwrap_or_default()
}

/// Completes the checksum and writes a header without extension in front of a records area that
/// ends at `records_end` and was not checksummed yet. Returns the batch. What the checksum covers
/// besides is put behind the records for the moment, so that one call takes it all: it begins with
/// the records, and the stores after them have arrived by the time it gets there.
#[inline]
pub(super) fn write_short<'b>(
    header: &BatchHeader,
    salt: u64,
    buffer: &'b mut [u8],
    records_end: usize,
) -> &'b [u8] {
    let mut fixed = [0; FIXED_SIZE];
    header.put_fixed(&mut fixed);
    let rest = buffer.get_mut(records_end..).unwrap_or_default();
    if let Some(tail) = rest.first_chunk_mut::<TAIL_SIZE>() {
        *tail = plain_tail(&fixed, salt);
    }
    let covered = buffer.get(SIZE_MAX..records_end + TAIL_SIZE).unwrap_or_default();
    let checksum = Checksum::of(covered).value();
    set_field::<CHECKSUM_AT, _, _>(&mut fixed, checksum.to_le_bytes());
    if let Some(room) = buffer.first_chunk_mut::<SIZE_MAX>() {
        set_field::<{ SIZE_MAX - FIXED_SIZE }, _, _>(room, fixed);
    }
    buffer.get(SIZE_MAX - FIXED_SIZE..records_end).unwrap_or_default()
}

fn write_long_header(
    header: BatchHeader,
    records: Checksum,
    salt: u64,
    buffer: &mut [u8],
) -> &[u8] {
    let size = header.header_size();
    let mut image = [0; SIZE_MAX];
    header.put_fixed(&mut image);
    header.put_extension(&mut image);
    let used = image.get(..size).unwrap_or_default();
    let checksum = batch_checksum(records, used, salt);
    set_field::<CHECKSUM_AT, _, _>(&mut image, checksum.to_le_bytes());
    let start = SIZE_MAX.saturating_sub(size);
    if let (Some(room), Some(used)) = (buffer.get_mut(start..SIZE_MAX), image.get(..size)) {
        room.copy_from_slice(used);
    }
    buffer.get(start..).unwrap_or_default()
}

/// Gives a batch that [`check`](super::BatchView::check) has passed to another segment: writes its
/// local part (checksum and durable distance) anew and leaves the portable part as it is.
///
/// # Errors
///
/// The header is wrong; an end mark is `Malformed`. The bytes are unchanged then.
pub(crate) fn reseal(
    batch: &mut [u8],
    durable_end: u64,
    salt: u64,
) -> Result<BatchHeader, CorruptionKind> {
    let malformed = CorruptionKind::Malformed("batch");
    let mut header = BatchHeader::parse(batch)?.ok_or_else(|| malformed.clone())?;
    let distance = durable_distance(header.base_offset, durable_end);
    let fixed = batch.first_chunk_mut::<FIXED_SIZE>().ok_or(malformed)?;
    set_field::<DURABLE_DISTANCE_AT, _, _>(fixed, distance.to_le_bytes());

    let whole = batch.get(..header.size as usize).unwrap_or_default();
    let (head, records) = whole.split_at_checked(header.header_size()).unwrap_or_default();
    let checksum = batch_checksum(Checksum::of(records), head, salt);
    if let Some(fixed) = batch.first_chunk_mut::<FIXED_SIZE>() {
        set_field::<CHECKSUM_AT, _, _>(fixed, checksum.to_le_bytes());
    }
    header.durable_distance = distance;
    header.checksum = checksum;
    Ok(header)
}

//! Searches the bytes after damage in a segment for whole batches.
//!
//! These bytes are no chain of batches, so every 4-byte boundary is tried. Only a batch whose
//! checksum holds under the segment's random salt counts. A payload that imitates a batch cannot
//! contain the salt, so stored data is never taken for a batch.

use std::io;

use super::chunk::ChunkReader;
use crate::error::CorruptionKind;
use crate::format::{
    ALIGNMENT, BATCH_HEADER_SIZE_MAX, BATCH_HEADER_SIZE_MIN, BatchHeader, BatchView, SegmentKey,
};

/// A whole batch found after damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) position: u64,
    pub(crate) base_offset: u64,
}

/// The result of a search.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Searched {
    pub(super) found: Option<Found>,
    /// Position after the last searched word that is not zero; 0 if all are.
    pub(super) garbage_end: u64,
}

/// LIMIT: if a payload looks like a header at every boundary, the search would checksum megabytes
/// at each of them. It ends, without evidence, when it has checksummed this many times the searched
/// bytes. Real batches do not overlap, so they need one time; the rest is for chance candidates.
const EFFORT_FACTOR: u64 = 4;

/// The first whole batch at a boundary after `position`, at which no batch was found, that `wanted`
/// accepts. Opening batches do not count: they stand only at the start of a segment.
pub(super) fn next_whole_batch(
    reader: &mut ChunkReader<'_>,
    key: &SegmentKey,
    position: u64,
    wanted: impl Fn(&BatchHeader) -> bool,
) -> io::Result<Searched> {
    const WORD: u64 = ALIGNMENT as u64;
    let (start, end) = (position, reader.end());
    let mut effort = end.saturating_sub(start).saturating_mul(EFFORT_FACTOR);
    let mut position = start;
    let mut searched = Searched::default();
    while position < end {
        let bytes = reader.at(position, BATCH_HEADER_SIZE_MAX)?;
        if bytes.is_empty() {
            break; // shorter than its length said: somebody has truncated it
        }
        let zeros = leading_zeros(bytes);
        if position.saturating_add(zeros) >= end {
            break;
        }
        if zeros >= WORD {
            position = position.saturating_add(zeros - zeros % WORD);
            continue;
        }
        searched.garbage_end = position.saturating_add(WORD).min(end);
        if position > start
            && let Some(size) = plausible_size(bytes, end.saturating_sub(position))
        {
            if effort < size {
                break;
            }
            effort -= size;
            let bytes = reader.batch(position)?;
            if let Ok(Some(header)) = BatchHeader::parse(bytes)
                && !header.is_opening()
                && wanted(&header)
                && let Ok(Some(_)) = BatchView::check(bytes, key)
            {
                let found = Found { position, base_offset: header.base_offset };
                searched.found = Some(found);
                return Ok(searched);
            }
        }
        position = position.saturating_add(WORD);
    }
    Ok(searched)
}

/// The size of a possible batch, judged by its header alone, so that few boundaries cost more than
/// a few bytes.
fn plausible_size(bytes: &[u8], left: u64) -> Option<u64> {
    let size = u64::from(BatchHeader::declared_size(bytes)?);
    let plausible = match BatchHeader::parse(bytes) {
        // More bytes than are in the buffer yet could make it one.
        Ok(Some(_)) | Err(CorruptionKind::Length(_)) => true,
        Ok(None) | Err(_) => false,
    };
    (plausible && size >= BATCH_HEADER_SIZE_MIN as u64 && size <= left).then_some(size)
}

/// How many zero bytes the slice begins with, by whole blocks where it can: most of what is
/// searched is space that was allocated and never used.
fn leading_zeros(bytes: &[u8]) -> u64 {
    /// LIMIT: a cache line, which the compiler compares with a few vector instructions.
    const BLOCK: usize = 64;
    let blocks =
        bytes.chunks_exact(BLOCK).take_while(|block| **block == [0; BLOCK]).count() * BLOCK;
    let rest = bytes.get(blocks..).unwrap_or_default();
    (blocks + rest.iter().take_while(|byte| **byte == 0).count()) as u64
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::format::{BatchEncoder, ONE_PASS_CHECKSUMS};

    fn key(salt: u64) -> SegmentKey {
        SegmentKey::new(salt, ONE_PASS_CHECKSUMS)
    }

    /// A payload of one's own choice in which every word begins something that may be a batch of
    /// many kilobytes: checksumming each would take time that grows with the square of its length.
    #[test]
    fn row_e09_a_payload_that_looks_like_headers_everywhere_is_soon_given_up() {
        const SIZE: u32 = 32 << 10;
        let period: [u32; 4] = [SIZE, 0, 0, 0];
        let bytes: Vec<u8> =
            period.iter().cycle().take(16 << 10).flat_map(|word| word.to_le_bytes()).collect();
        let candidates = Cell::new(0);
        let wanted = |_: &BatchHeader| {
            candidates.set(candidates.get() + 1);
            true
        };
        let mut reader = ChunkReader::over(&bytes, 128);
        let searched = next_whole_batch(&mut reader, &key(7), 128, wanted).unwrap();
        assert_eq!(searched.found, None);
        assert!((1..=8).contains(&candidates.get()), "{} were looked at", candidates.get());
    }

    #[test]
    fn zeros_are_no_garbage_wherever_the_file_ends() {
        for length in 4_090..4_100 {
            let mut bytes = vec![0; length];
            let garbage_end = |bytes: &[u8]| {
                let mut reader = ChunkReader::over(bytes, 128);
                next_whole_batch(&mut reader, &key(7), 128, |_| true).unwrap().garbage_end
            };
            assert_eq!(garbage_end(&bytes), 0, "{length}");
            bytes[100] = 1;
            assert_eq!(garbage_end(&bytes), 128 + 104, "{length}");
        }
    }

    #[test]
    fn a_batch_of_this_salt_is_found_at_any_distance_and_one_of_another_is_not() {
        let mut encoder = BatchEncoder::new();
        encoder.push(1, None, Some(b"value"), std::iter::empty::<(&str, &[u8])>()).unwrap();
        let placement = crate::format::Placement {
            base_offset: 9,
            leader_epoch: 0,
            durable_end: 0,
            key: &key(7),
            producer: None,
        };
        let mut finished = encoder.finish();
        let batch = finished.seal(&placement);
        for distance in (4..400).step_by(4) {
            for filler in [0, 0xFF] {
                let mut bytes = vec![filler; distance];
                bytes.extend_from_slice(batch);
                bytes.extend_from_slice(&[0; 90]);
                let search = |salt| {
                    let mut reader = ChunkReader::over(&bytes, 128);
                    next_whole_batch(&mut reader, &key(salt), 128, |_| true).unwrap().found
                };
                let position = 128 + distance as u64;
                assert_eq!(search(7), Some(Found { position, base_offset: 9 }), "{distance}");
                assert_eq!(search(8), None, "{distance}");
            }
        }
    }
}

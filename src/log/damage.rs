//! What lies behind damage.
//!
//! A search for whole batches in bytes that do not chain: every 4-byte boundary is tried, and only
//! a batch whose checksum holds under the segment's random salt counts. A payload that imitates a
//! batch cannot know the salt, so nothing that a caller stored is ever taken for a batch.

use crate::format::{ALIGNMENT, BatchHeader, BatchView};

/// A whole batch found behind damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    /// From the start of the searched bytes to the batch.
    pub(crate) distance: usize,
    pub(crate) base_offset: u64,
}

/// The first whole batch in `bytes`, at a boundary after the first one, whose base offset is at
/// least `from`.
pub(crate) fn next_whole_batch(bytes: &[u8], salt: u64, from: u64) -> Option<Found> {
    let mut distance = ALIGNMENT;
    loop {
        let rest = bytes.get(distance..).filter(|rest| !rest.is_empty())?;
        match BatchHeader::parse(rest) {
            Ok(Some(header)) if header.base_offset >= from && !header.is_opening() => {
                if let Ok(Some(_)) = BatchView::check(rest, salt) {
                    return Some(Found { distance, base_offset: header.base_offset });
                }
            }
            _ => {}
        }
        distance = distance.checked_add(zeros(rest).max(ALIGNMENT))?;
    }
}

/// How many whole zeroed words the bytes begin with, in bytes: most of what is searched is space
/// that was allocated and never used.
fn zeros(bytes: &[u8]) -> usize {
    bytes.chunks_exact(ALIGNMENT).take_while(|word| *word == [0; ALIGNMENT]).count() * ALIGNMENT
}

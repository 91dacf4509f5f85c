//! Corrects the checksums in invented bytes, for fuzzing. If a checksum is wrong, nothing after it
//! is read, so a fuzzer would have to guess it to reach the code that reads the contents.
//!
//! Pure; compiled for tests and fuzzing only.

use super::batch::{BatchHeader, reseal};
use super::checksum::Checksum;
use super::footer::{self, Footer};
use super::key::SegmentKey;
use super::segment::SegmentHeader;

/// A batch under `key`, if its header says where it ends; its size.
pub(crate) fn batch(bytes: &mut [u8], key: &SegmentKey) -> Option<usize> {
    let header = BatchHeader::parse(bytes).ok().flatten()?;
    let size = header.size as usize;
    let whole = bytes.get_mut(..size)?;
    reseal(whole, header.durable_mark().unwrap_or(0), key).ok()?;
    Some(size)
}

/// All batches that follow one another from the start of `bytes`.
pub(crate) fn batches(mut bytes: &mut [u8], key: &SegmentKey) {
    while let Some(size) = batch(bytes, key) {
        let (_, rest) = bytes.split_at_mut(size);
        bytes = rest;
    }
}

/// The trailer of a footer that takes all of `bytes`.
pub(crate) fn footer(bytes: &mut [u8], salt: u64) {
    let Ok(length) = u32::try_from(bytes.len()) else { return };
    let Some((fields, trailer)) = bytes.split_last_chunk_mut::<{ Footer::TRAILER_SIZE }>() else {
        return;
    };
    *trailer = footer::trailer(fields, length, salt);
}

/// The checksum of a segment header at the start of `bytes`.
pub(crate) fn header(bytes: &mut [u8]) {
    let Some(header) = bytes.first_chunk_mut::<{ SegmentHeader::SIZE }>() else { return };
    if let Some((covered, checksum)) = header.split_last_chunk_mut::<4>() {
        *checksum = Checksum::of(covered).value().to_le_bytes();
    }
}

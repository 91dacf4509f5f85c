//! The on-disk format: every byte that this crate writes is laid out here.
//!
//! Owns: segment headers, batches, opening batches, footers, the sparse index, names of files, and
//! the one checksum. The layout is described in `docs/format.md`, whose tables a test compares
//! with the constants here. Must not know: files, locks, the clock, what a topic is configured to
//! do. Invariants:
//!
//! 1. Pure: values in, values out. Nothing here blocks or fails for a reason outside its input.
//! 2. Input is hostile until checked: no panic, no allocation by an unchecked length, every loop
//!    consumes input.
//! 3. What is written reads back; what is read and accepted has one meaning.

mod batch;
mod checksum;
mod fields;
#[cfg(any(fuzzing, test))]
pub(crate) mod fixup;
mod footer;
#[cfg(test)]
mod golden;
mod index;
mod key;
mod names;
mod opening;
mod producers;
mod segment;
mod varint;

pub(crate) use batch::{
    ALIGNMENT, BatchEncoder, BatchHeader, BatchView, EncodedBatch,
    FIXED_SIZE as BATCH_HEADER_SIZE_MIN, HeaderFields, PausedRecords, Placement, ProducerStamp,
    RecordView, Records, SIZE_MAX as BATCH_HEADER_SIZE_MAX, TooLarge, Unsealed, reseal,
};
#[cfg(feature = "replication")]
pub(crate) use checksum::Checksum;
pub(crate) use footer::{Footer, TimeRange};
pub(crate) use index::{IndexRow, SparseIndex};
pub(crate) use key::{ONE_PASS_CHECKSUMS, SegmentKey};
pub(crate) use names::{
    parse_segment_file_name, parse_temporary_segment_file_name, partition_dir_name,
    segment_file_name, spare_file_name, temporary_segment_file_name, validate_label,
    validate_topic,
};
pub(crate) use opening::Opening;
pub(crate) use producers::ProducerState;
pub(crate) use segment::{
    HAS_GAPS, HeaderError, KEEPS_SPACE, NUMBERED_CHANGES, Replacement, Rewrite, SegmentHeader,
    TopicId, VERSION,
};

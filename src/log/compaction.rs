//! Compaction: removes every record that is not the latest of its key.
//!
//! Owns: which sealed segments are rewritten, which of their records remain, and how the new files
//! replace the old ones. Must not know: threads, clocks, the caller.
//!
//! [`plan`], [`keys`] and [`sieve`] are pure. [`candidates`] lists the segments of a log,
//! [`inputs`] reads them, [`output`] writes one new file, and [`spare`] is the file for a full
//! disk. [`run`] uses all of them, in steps of bounded size, which the partition paces. See
//! `docs/compaction.md`.
//!
//! Invariants:
//! 1. The last segment of the list, active or not, is never rewritten, nor is one without a footer:
//!    every input is sealed and durable.
//! 2. A record is removed only if a later one of its key is in the log and durable, or if it is a
//!    tombstone whose delete horizon has passed and below which its key does not occur.
//! 3. New files replace old ones from the log start upwards. A tombstone gets its delete horizon in
//!    a file that is only named once the removal of all records that it deletes is durable.
//! 4. Offsets, order and timestamps of the remaining records do not change.

pub(crate) mod candidates;
mod inputs;
mod keys;
pub(super) mod output;
pub(crate) mod plan;
pub(crate) mod run;
mod sieve;
pub(crate) mod spare;

use std::ops::AddAssign;

/// LIMIT: memory for the keys of one pass, about a million keys of 20 bytes. More keys than fit
/// take more passes. One compaction runs at a time in the background of a broker.
pub(crate) const KEY_MEMORY_BYTES: usize = 64 << 20;

/// What a compaction did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passes: u64,
    pub(crate) segments_read: u64,
    pub(crate) segments_written: u64,
    pub(crate) records_kept: u64,
    /// Tombstones included.
    pub(crate) records_removed: u64,
    /// Tombstones that went because their time was over.
    pub(crate) tombstones_removed: u64,
    /// The data of the segments that were replaced, and of those that replaced them.
    pub(crate) bytes_before: u64,
    pub(crate) bytes_after: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passes = self.passes.saturating_add(other.passes);
        self.segments_read = self.segments_read.saturating_add(other.segments_read);
        self.segments_written = self.segments_written.saturating_add(other.segments_written);
        self.records_kept = self.records_kept.saturating_add(other.records_kept);
        self.records_removed = self.records_removed.saturating_add(other.records_removed);
        self.tombstones_removed = self.tombstones_removed.saturating_add(other.tombstones_removed);
        self.bytes_before = self.bytes_before.saturating_add(other.bytes_before);
        self.bytes_after = self.bytes_after.saturating_add(other.bytes_after);
    }
}

//! What the checksums of a segment's batches depend on beside the bytes of the batch: the segment's
//! salt, and which batches are checksummed in one pass.
//!
//! Owns: the choice between the two rules, and what is computed of a checksum before there is a
//! batch. Must not know: batches, footers, files. A batch is checked with the key of the segment
//! that it is in, and sealed with that of the segment that it is written to; a replica does both.
//! Pure; called from any thread.

use super::checksum::{Begun, Checksum};

/// Incompatible feature bit: short batches are checksummed in one pass, in the order of their bytes.
/// Builds without it would take every short batch for damage.
pub(crate) const ONE_PASS_CHECKSUMS: u64 = 2;

/// FORMAT: records areas up to this are checksummed in one pass with the header before them. One
/// pass saves a reader 10 ns of a short batch, 5 ns at 700 bytes, and nothing of a long one. When
/// appending, it is made under the partition's lock, because the header has the offset; so longer
/// records areas are checksummed before the lock is taken.
pub(super) const ONE_PASS_MAX: usize = 512;

/// The key of the checksums of a segment.
#[derive(Debug, Clone)]
pub(crate) struct SegmentKey {
    salt: u64,
    /// The checksum of the salt, with which one pass begins; `None` where no batch is checksummed
    /// in one, because an earlier build made the segment.
    one_pass: Option<Begun>,
}

impl SegmentKey {
    /// The key of a segment with this salt and these incompatible feature bits.
    pub(crate) fn new(salt: u64, incompatible: u64) -> Self {
        let has_one_pass = incompatible & ONE_PASS_CHECKSUMS != 0;
        Self { salt, one_pass: has_one_pass.then(|| Begun::with(&salt.to_le_bytes())) }
    }

    /// The salt: for footers, and for batches that are not checksummed in one pass.
    #[inline]
    pub(crate) fn salt(&self) -> u64 {
        self.salt
    }

    /// The checksum of the salt and then `covered`, if a batch with a records area of this size is
    /// checksummed in one pass.
    #[inline]
    pub(super) fn one_pass(&self, records_size: usize, covered: &[u8]) -> Option<Checksum> {
        let salt = self.one_pass.as_ref()?;
        (records_size <= ONE_PASS_MAX).then(|| salt.then(covered))
    }
}

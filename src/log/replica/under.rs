//! What must be known of a segment to check batches that were copied from it. Plain data, for a
//! frame.

use crate::error::CorruptionKind;
use crate::format::{NUMBERED_CHANGES, ONE_PASS_CHECKSUMS, SegmentKey};
use crate::log::segment::Segment;

/// The salt of a segment, and the incompatible feature bits of its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Under {
    pub(crate) salt: u64,
    pub(crate) features: u64,
}

impl Under {
    pub(super) fn of(segment: &Segment) -> Self {
        Self { salt: segment.key.salt(), features: segment.features }
    }

    /// The key of the checksums.
    ///
    /// # Errors
    ///
    /// There is a feature that this build does not know: the batches may have another form.
    pub(in crate::log) fn key(self) -> Result<SegmentKey, CorruptionKind> {
        if self.features & !(NUMBERED_CHANGES | ONE_PASS_CHECKSUMS) != 0 {
            return Err(CorruptionKind::Malformed("features"));
        }
        Ok(SegmentKey::new(self.salt, self.features))
    }
}

//! The high watermark of a replicated log: the offset below which a majority has the records.
//!
//! Owns: the number. Without replication there is none, and it has no size and costs nothing. Must
//! not know: the log, and who computes the watermark.
//!
//! Invariant: it never decreases once it has begun.

#[cfg(feature = "replication")]
use crate::sync::{AtomicU64, Ordering};

/// The watermark of a log that is not replicated: it limits nothing.
const NONE: u64 = u64::MAX;

#[derive(Debug)]
pub(super) struct Watermark {
    /// ORDERING: Release under the partition's lock, after the records below it were published;
    /// Acquire by readers. A reader that sees it finds these records.
    #[cfg(feature = "replication")]
    offset: AtomicU64,
}

impl Watermark {
    /// That of a log that is not replicated.
    pub(super) fn none() -> Self {
        Self {
            #[cfg(feature = "replication")]
            offset: AtomicU64::new(NONE),
        }
    }

    /// `u64::MAX` if the log is not replicated.
    #[inline]
    #[cfg_attr(not(feature = "replication"), expect(clippy::unused_self, reason = "a constant"))]
    pub(super) fn get(&self) -> u64 {
        #[cfg(feature = "replication")]
        return self.offset.load(Ordering::Acquire);
        #[cfg(not(feature = "replication"))]
        NONE
    }

    #[inline]
    pub(super) fn exists(&self) -> bool {
        self.get() != NONE
    }

    /// Begins at `offset`, or raises the watermark that there is.
    #[cfg(feature = "replication")]
    pub(super) fn raise(&self, offset: u64) {
        let before = if self.exists() { self.get() } else { 0 };
        self.offset.store(before.max(offset), Ordering::Release);
    }
}

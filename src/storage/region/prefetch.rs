//! Hints to the processor: cache lines that will be needed soon.
//!
//! Must not know what is there, nor whether it may be read: a hint touches no memory.
//!
//! - P1 **A prefetch has no effect on memory and cannot fault**, whatever address it is given; so
//!   the address is made without a claim that it lies inside anything.
#![allow(unsafe_code, reason = "the processor's prefetch instruction")]

use std::ops::Range;
use std::ptr::NonNull;

/// LIMIT: longer stores and batches keep the processor's own prefetching going.
pub(super) const PREFETCH_BYTES: usize = 512;

/// How far ahead of a reader that checks batch after batch: half a microsecond of its work.
pub(super) const PREFETCH_AHEAD: usize = 2048;

/// What a prefetch is for, as the processor's own hints have it.
pub(super) const FOR_READS: i32 = 3;
pub(super) const FOR_STORES: i32 = 7;

/// Asks for the cache lines of a range of the `capacity` bytes at `base`.
#[inline]
pub(super) fn prefetch<const HINT: i32>(
    base: Option<NonNull<u8>>,
    capacity: usize,
    range: Range<usize>,
) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_ET0, _MM_HINT_T0, _mm_prefetch};
        const _: () = assert!(FOR_READS == _MM_HINT_T0 && FOR_STORES == _MM_HINT_ET0);
        const LINE: usize = 64;
        let Some(base) = base else { return };
        let (mut at, end) = (range.start, range.end.min(capacity));
        while at < end {
            let line = base.as_ptr().wrapping_add(at).cast_const();
            // SAFETY: (P1) a prefetch reads and writes nothing, and cannot fault.
            unsafe { _mm_prefetch::<HINT>(line.cast()) };
            at = at.saturating_add(LINE);
        }
    }
    // Elsewhere it is not worth the unsafe code until somebody has measured it.
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (base, capacity, range, HINT);
}

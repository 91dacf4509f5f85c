//! A heap allocation, zeroed and aligned as a page is.
//!
//! Owns its memory. Must not know who shares it, nor what is published of it.
//!
//! - H1 **`[base, base + capacity)` lies in the allocation**, and lives as long as the block: the
//!   layout has room for the alignment besides, which `new` asserts.
//! - H2 **The allocation is freed once**, by `drop`, with the layout that it was made with: nobody
//!   else has the pair of both.
//! - H3 **Nobody shares what `fill` stores into**: it takes `&mut self`, and a block whose base was
//!   handed on is no longer to be had that way (a [`Region`](super::Region) owns it then).
#![allow(unsafe_code, reason = "a zeroed allocation without a copy, and stores into it")]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::io;
use std::ptr::NonNull;

use super::end_of;

/// An owned, zeroed allocation.
pub(super) struct HeapBlock {
    base: NonNull<u8>,
    capacity: usize,
    /// The allocation that `base` points into; `None` where it would be empty.
    allocation: Option<(NonNull<u8>, Layout)>,
}

impl HeapBlock {
    /// LIMIT: the strongest alignment that `alloc_zeroed` gives by `calloc` on every platform.
    /// For more, std allocates and clears by hand, which would touch each page of a segment that
    /// may never be used; a larger alignment is made by moving the base up instead.
    pub(super) const LAZY_ALIGN: usize = 8;

    pub(super) fn new(capacity: usize, align: usize) -> io::Result<Self> {
        let slack = align.saturating_sub(Self::LAZY_ALIGN);
        let too_large = || io::Error::from(io::ErrorKind::OutOfMemory);
        let size = capacity.checked_add(slack).ok_or_else(too_large)?;
        let layout = Layout::from_size_align(size, Self::LAZY_ALIGN).map_err(|_| too_large())?;
        if capacity == 0 {
            return Ok(Self { base: NonNull::dangling(), capacity, allocation: None });
        }
        debug_assert!(layout.size() > 0, "H1: an allocation is not empty");
        // SAFETY: (H1) the layout's size is not zero, since `capacity` is not.
        let start = unsafe { alloc_zeroed(layout) };
        let start = NonNull::new(start).ok_or_else(too_large)?;
        let moved = start.addr().get().wrapping_neg() % align.max(1);
        debug_assert!(moved <= slack, "H1: the aligned base has its capacity above it");
        // SAFETY: (H1) `start` is aligned to 8, so `moved <= align - 8 = slack` (0 where
        // `align <= 8`), and `moved + capacity` stays inside the allocation.
        let base = unsafe { start.add(moved) };
        Ok(Self { base, capacity, allocation: Some((start, layout)) })
    }

    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Copies bytes into memory that nobody shares yet.
    pub(super) fn fill(&mut self, position: usize, bytes: &[u8]) -> io::Result<()> {
        end_of(position, bytes, self.capacity)?;
        // SAFETY: (H1) `position <= capacity`, checked above.
        let target = unsafe { self.base.add(position) };
        // SAFETY: (H1) `[position, end)` lies inside the block, checked above. (H3) `&mut self` is
        // the only way to it, so the source cannot overlap it and no reader exists.
        unsafe { target.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(())
    }
}

impl Drop for HeapBlock {
    fn drop(&mut self) {
        if let Some((start, layout)) = self.allocation.take() {
            // SAFETY: (H2) `alloc_zeroed` returned `start` for this very layout, and `take` lets it
            // be given back once. Slices borrow from the `Region` that owns the block.
            unsafe { dealloc(start.as_ptr(), layout) };
        }
    }
}

// SAFETY: (H2) `base` and `allocation` point to memory that the block alone owns, like a
// `Box<[u8]>`.
unsafe impl Send for HeapBlock {}
// SAFETY: (H3) a shared `HeapBlock` offers its address only; what is done there is `Region`'s
// argument.
unsafe impl Sync for HeapBlock {}

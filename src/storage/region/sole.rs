//! The one right to store into a region.
//!
//! Owns that right, and the checks that the obligations M2, M3 and M4 (see [`region`](super)) ask of
//! a writer. Must not know where bytes come from, nor when they are shown. The log calls it, through
//! its `RegionWriter`, under the partition's lock.
//!
//! - W1 **Bytes are stored into memory that can be stored into, between the published end and the
//!   capacity**: `store` refuses any other range.
#![allow(unsafe_code, reason = "storing into memory that is shared")]

use std::io;
use std::sync::Arc;

use super::prefetch::{FOR_STORES, PREFETCH_BYTES, prefetch};
use super::shared::{Memory, Region};
use super::{end_of, invalid};

/// The one right to store into a region (M2): not `Clone`, and made from the `Memory` itself.
#[derive(Debug)]
pub(crate) struct Sole {
    region: Arc<Region>,
    /// Whether the memory can be stored into. Never changes.
    is_storable: bool,
}

impl Sole {
    /// # Errors
    ///
    /// `InvalidInput` for a view: its memory is another region's, may be shorter than its capacity,
    /// and has a writer already (M2).
    pub(crate) fn claim(memory: Memory, published: usize) -> io::Result<Self> {
        if memory.is_view() {
            return Err(invalid("a view of another region cannot be written to"));
        }
        let is_storable = memory.is_storable();
        let region = Region::sealed(memory, published)?;
        Ok(Self { region, is_storable })
    }

    pub(crate) fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// Stores bytes above what is published.
    #[inline]
    pub(crate) fn store(&mut self, position: usize, bytes: &[u8]) -> io::Result<()> {
        let target = self.target(position, bytes)?;
        // SAFETY: (W1) `[position, end)` lies inside the memory, which can be stored into: checked
        // by `target`. (M4) It lies above `published`, so no reader has a slice of it, and `bytes`
        // cannot overlap it. (M2) `&mut self` makes this the only store.
        unsafe { target.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(())
    }

    /// As [`store`](Self::store), and then stores `word` over the bytes from `at` on.
    #[inline]
    pub(crate) fn store_with(
        &mut self,
        position: usize,
        bytes: &[u8],
        at: usize,
        word: [u8; 4],
    ) -> io::Result<()> {
        if bytes.get(at..).is_none_or(|rest| rest.len() < word.len()) {
            return Err(invalid("a word beyond the bytes"));
        }
        let target = self.target(position, bytes)?;
        // SAFETY: (W1) (M4) (M2) as in `store`.
        unsafe { target.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        // SAFETY: (W1) `at + 4 <= bytes.len()`, checked above, so this lies inside the same range.
        let late = unsafe { target.add(at) };
        // SAFETY: (W1) `[late, late + 4)` lies inside the range of the store before; (M4) (M2) as
        // there.
        unsafe { late.copy_from_nonoverlapping(word.as_ptr(), word.len()) };
        Ok(())
    }

    /// Where bytes are stored that shall lie at `position`: the memory has room for all of them.
    #[inline]
    fn target(&self, position: usize, bytes: &[u8]) -> io::Result<*mut u8> {
        let region = &self.region;
        let base = region.base().filter(|_| self.is_storable);
        let base = base.ok_or_else(|| invalid("this memory cannot be stored into"))?;
        end_of(position, bytes, region.capacity())?;
        if position < region.published() {
            return Err(invalid("stored below the published end"));
        }
        // SAFETY: (W1) `position <= capacity`, checked above, (S1) which is what the memory has.
        Ok(unsafe { base.add(position) }.as_ptr())
    }

    /// Asks for the memory from `end` on, for what comes next, which is as long as what came last,
    /// most often. Its lines were cleared by the kernel on another processor, and to wait for them
    /// under the partition's lock would cost a lone append a tenth of its time; now they come while
    /// the caller encodes its next record.
    #[inline]
    pub(crate) fn store_soon(&self, end: usize, length: usize) {
        let next = end..end.saturating_add(length.min(PREFETCH_BYTES));
        prefetch::<FOR_STORES>(self.region.base(), self.region.capacity(), next);
    }

    /// Shows everything below `end` to readers.
    ///
    /// # Panics
    ///
    /// If `end` lies below what is published (M3) or beyond the memory (M4).
    #[inline]
    pub(crate) fn publish(&mut self, end: usize) {
        assert!(end >= self.region.published(), "published bytes stay published");
        assert!(end <= self.region.capacity(), "only memory is published");
        self.region.advance(end);
    }
}

//! Memory before it is shared, and the region that it becomes: what readers may touch.
//!
//! Owns the backing and the end of what is published, and with them the checks that the obligations
//! M1, M3, M4 and M5 (see [`region`](super)) ask of a reader. Must not know what the backing is,
//! nor who stores into it. Readers call it from any thread without a lock.
//!
//! - S1 **The memory has `capacity` bytes at `base`**, for as long as the region lives, which owns
//!   it: both were taken from the backing, and neither changes. A view of another region has only
//!   what that had published (`backed`), which is all that it will ever show: it has no writer, and
//!   `Sole::claim` refuses it.
#![allow(unsafe_code, reason = "slicing memory that is shared")]

use std::fmt;
#[cfg(target_os = "linux")]
use std::fs::File;
use std::io;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use super::backing::{Backing, Parent};
use super::invalid;
use super::prefetch::{FOR_READS, PREFETCH_AHEAD, PREFETCH_BYTES, prefetch};
use super::published::Published;
#[cfg(target_os = "linux")]
use crate::storage::platform::Access;

/// Is given the region that a memory became. A disk whose files live in regions keeps it.
pub(crate) trait Adopt: Send + Sync {
    fn adopt(&self, region: &Arc<Region>);
}

/// Memory for a file's bytes, before anybody reads or writes it. It belongs to one thread, and
/// becoming a [`Region`] consumes it (M2).
pub(crate) struct Memory {
    backing: Backing,
    owner: Option<Arc<dyn Adopt>>,
}

impl Memory {
    fn new(backing: Backing) -> Self {
        Self { backing, owner: None }
    }

    /// Maps a file, shared. `capacity` may lie beyond the file's end; see M1.
    #[cfg(target_os = "linux")]
    pub(crate) fn map(file: &File, capacity: usize, access: Access) -> io::Result<Self> {
        Ok(Self::new(Backing::map(file, capacity, access)?))
    }

    /// Zeroed heap memory, aligned to a page; the system provides its pages when they are used.
    pub(crate) fn heap(capacity: usize) -> io::Result<Self> {
        Ok(Self::new(Backing::heap(capacity)?))
    }

    /// No memory at all: the bytes are in the file only, and readers read them from there.
    pub(crate) fn absent(capacity: usize) -> Self {
        Self::new(Backing::absent(capacity))
    }

    /// What `region` has published until now, without a copy.
    pub(crate) fn view(region: &Arc<Region>, capacity: usize) -> Self {
        let backed = region.published().min(capacity);
        let parent = Arc::clone(region) as Arc<dyn Parent>;
        Self::new(Backing::view(parent, capacity, backed))
    }

    /// Names who is given the region that this becomes.
    pub(crate) fn owned_by(mut self, owner: Arc<dyn Adopt>) -> Self {
        self.owner = Some(owner);
        self
    }

    /// Copies bytes into heap memory that nobody shares yet.
    pub(crate) fn fill(&mut self, position: usize, bytes: &[u8]) -> io::Result<()> {
        self.backing.fill(position, bytes)
    }

    /// Whether bytes may be stored into it.
    pub(crate) fn is_storable(&self) -> bool {
        self.backing.is_storable()
    }

    /// Whether it is another region's memory.
    pub(super) fn is_view(&self) -> bool {
        self.backing.is_view()
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.backing.fmt(f)
    }
}

/// Bytes that are shared: readers slice what is published.
pub(crate) struct Region {
    /// Start of the memory; `None` where there is none. Never changes.
    base: Option<NonNull<u8>>,
    capacity: usize,
    /// Written by the one `Sole`, read by anybody.
    published: Published,
    /// Keeps what `base` points to.
    backing: Backing,
}

// SAFETY: (S1) `base` points into `backing`, which is Send by itself (an owned allocation, a map, or
// an `Arc` of another region); it has no tie to the thread that made it.
unsafe impl Send for Region {}
// SAFETY: (M4) through `&Region`, bytes are only read, and only below `published`, (M3) where
// nobody writes any more; the atomic carries the order between the two. `backing` is only dropped,
// and its pages advised.
unsafe impl Sync for Region {}

impl Region {
    fn new(memory: Memory, published: usize) -> io::Result<Arc<Self>> {
        // The region does not keep its owner, which keeps the region.
        let Memory { backing, owner } = memory;
        // M4 begins here: `backed` is never more than `capacity`, nor than the file's length.
        if published > backing.backed() {
            return Err(invalid("more published than there is"));
        }
        let region = Arc::new(Self {
            base: backing.base(),
            capacity: backing.capacity(),
            published: Published::new(published),
            backing,
        });
        region.check();
        if let Some(owner) = owner {
            owner.adopt(&region);
        }
        Ok(region)
    }

    /// Memory that nobody writes any more, unless a `Sole` was made of it.
    pub(crate) fn sealed(memory: Memory, published: usize) -> io::Result<Arc<Self>> {
        Self::new(memory, published)
    }

    /// A heap copy of `bytes`, wholly published.
    pub(crate) fn from_bytes(bytes: &[u8]) -> io::Result<Arc<Self>> {
        Self::new(Memory::new(Backing::copy_of(bytes)?), bytes.len())
    }

    /// The obligations that can be checked: S1 and M4.
    fn check(&self) {
        debug_assert!(self.base == self.backing.base(), "S1: the region's own memory");
        debug_assert!(self.capacity == self.backing.capacity(), "S1: as long as the memory");
        debug_assert!(self.published() <= self.capacity, "M4: no more published than there is");
    }

    #[inline]
    pub(super) fn base(&self) -> Option<NonNull<u8>> {
        self.base
    }

    /// Called by the sole writer, after the bytes below `end` were stored.
    #[inline]
    pub(super) fn advance(&self, end: usize) {
        self.published.advance(end);
    }

    #[inline]
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The end of what may be read.
    #[inline]
    pub(crate) fn published(&self) -> usize {
        self.published.end()
    }

    /// The bytes of a range; `None` unless all of it is published and in memory.
    #[inline]
    pub(crate) fn bytes(&self, range: Range<usize>) -> Option<&[u8]> {
        let base = self.base?;
        let length = range.end.checked_sub(range.start)?;
        if range.end > self.published() {
            return None;
        }
        debug_assert!(range.end <= self.capacity, "M4: what is published lies in the memory");
        // SAFETY: (M4) `start <= end <= published`, checked above, and `published <= capacity`.
        // (S1) The memory has `capacity` bytes, or what a view has published.
        let start = unsafe { base.add(range.start) };
        // SAFETY: `[start, end)` is published (M4): initialised (zeroed, then stored or read from a
        // file), never written again (M3, M5), mapped to existing file bytes (M1), and alive as
        // long as `self` (S1), from which the slice borrows. No memory is larger than
        // `isize::MAX`: `Layout` and memmap2 refuse it.
        Some(unsafe { std::slice::from_raw_parts(start.as_ptr(), length) })
    }

    /// Tells the processor that what is at `position` is read next. Before the published end is
    /// looked at: a reader that was just woken for a record waits for both at the same time then.
    #[inline]
    pub(crate) fn read_soon(&self, position: usize) {
        let soon = position..position.saturating_add(PREFETCH_BYTES / 2);
        prefetch::<FOR_READS>(self.base, self.capacity, soon);
    }

    /// Tells the processor that `len` bytes at `position` are being read, and the next ones will
    /// be.
    #[inline]
    pub(crate) fn read_ahead(&self, position: usize, len: usize) {
        let ahead = position.saturating_add(PREFETCH_AHEAD);
        let ahead = ahead..ahead.saturating_add(len.min(PREFETCH_BYTES));
        prefetch::<FOR_READS>(self.base, self.capacity, ahead);
    }

    /// Whether the byte at `position` can be read without the disk, as far as that is known.
    pub(crate) fn is_resident(&self, position: usize) -> bool {
        self.backing.is_resident(position)
    }

    /// Reads the pages of a range from the disk and puts them into the map. An optimisation: an
    /// error is found when the bytes are read. Blocks for the disk.
    pub(crate) fn read_in(&self, range: Range<usize>) {
        self.backing.read_in(range.start..range.end.min(self.published()));
    }

    /// Whether the bytes are a file's own pages.
    #[cfg(test)]
    pub(crate) fn is_mapped(&self) -> bool {
        self.backing.is_mapped()
    }

    /// Whether there is memory to slice.
    pub(crate) fn is_readable(&self) -> bool {
        self.base.is_some()
    }

    /// Makes the pages of a range ready to be stored into, so that a full or failing disk is an
    /// error here and not a signal at the first store. The range must have been allocated.
    ///
    /// A kernel before 5.14 cannot do it; there the allocation is the only promise.
    pub(crate) fn populate(&self, range: Range<usize>) -> io::Result<()> {
        if range.start > range.end || range.end > self.capacity {
            return Err(invalid("populated beyond the capacity"));
        }
        self.backing.populate(range)
    }

    /// Takes the published pages of a range out of a map that is stored into; a reader that needs
    /// them again gets them back from the page cache. Only pages that no store can need any more
    /// (M3).
    ///
    /// To be called before a sync of the file: to write a page that a map may store into, the
    /// kernel takes that right away page by page, and interrupts each time every processor that
    /// runs the process. Here that happens once for the range (docs/performance.md).
    pub(crate) fn drop_pages(&self, range: Range<usize>) -> io::Result<()> {
        self.backing.drop_pages(range.start..range.end.min(self.published()))
    }
}

impl Parent for Region {
    fn base(&self) -> Option<NonNull<u8>> {
        self.base
    }

    #[cfg(test)]
    fn is_mapped(&self) -> bool {
        self.backing.is_mapped()
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, {} published", self.backing, self.published())
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "M4")]
    fn a_region_that_shows_more_than_it_has_is_found() {
        let backing = Backing::heap(8).unwrap();
        let (base, capacity, published) = (backing.base(), backing.capacity(), Published::new(9));
        Region { base, capacity, published, backing }.check();
    }

    #[test]
    #[should_panic(expected = "S1")]
    fn a_region_longer_than_its_memory_is_found() {
        let backing = Backing::heap(8).unwrap();
        let (base, published) = (backing.base(), Published::new(0));
        Region { base, capacity: 9, published, backing }.check();
    }
}

//! Memory that one writer fills and many readers slice: the only unsafe code of the crate.
//!
//! Owns the map or heap block behind a file's bytes, and the position up to which they are
//! published. Must not know what the bytes mean, who waits for them, or how durable they are.
//!
//! A [`Memory`] is turned into a shared [`Region`], either sealed or through the one
//! [`RegionWriter`]. The log calls the writer under the partition's lock; readers call
//! [`Region::bytes`] from any thread without a lock.
//!
//! Obligations. Every `SAFETY:` below names those that it relies on. M2, M3 and M4 are checked
//! here; M1 and M5 cannot be, and the crate's documentation says so.
//!
//! - M1 **A mapped file does not shrink.** `DiskFile` has no call that shrinks a file. Somebody
//!   else's truncation raises SIGBUS at the next access.
//! - M2 **One writer.** A `Sole` is not `Clone`, and making one consumes the `Memory`. Two writers
//!   need two maps of one file; the log makes one for the lifetime of a file.
//! - M3 **Published bytes never change.** `Sole::store` refuses positions below `published`, and
//!   `published` never goes back. `DiskFile::write_at` and `release` bypass this check: nobody may
//!   call them for positions below the published end of a mapped file.
//! - M4 **Readers touch only `[0, published)`**, and `published <= capacity`, always.
//! - M5 **Nobody else writes**, as far as the directory lock can keep others out.
#![allow(
    unsafe_code,
    reason = "slicing and filling shared memory; the rest of the crate denies it"
)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
#[cfg(target_os = "linux")]
use std::fs::File;
use std::io;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

#[cfg(target_os = "linux")]
use memmap2::{Advice, MmapOptions, MmapRaw, UncheckedAdvice};

#[cfg(target_os = "linux")]
use super::disk::Access;
#[cfg(target_os = "linux")]
use super::platform;

use self::published::Published;
pub(crate) use self::writer::RegionWriter;

mod debug;
mod published;
mod writer;

/// LIMIT: what a page is at least, on every platform; the heap stands in for a map of pages.
const PAGE: usize = 4096;

/// Told of the region that a memory became. A disk whose files live in regions keeps it.
pub(crate) trait Adopt: Send + Sync {
    fn adopt(&self, region: &Arc<Region>);
}

/// Memory for a file's bytes, before anybody reads or writes it.
pub(crate) struct Memory {
    kind: Kind,
    capacity: usize,
    /// Up to where `published` may be set when the region is made: what is there to be read.
    backed: usize,
    owner: Option<Arc<dyn Adopt>>,
}

enum Kind {
    #[cfg(target_os = "linux")]
    Mapped {
        map: MmapRaw,
        access: Access,
    },
    Heap(HeapBlock),
    /// The published bytes of another region, which is kept alive.
    View(Arc<Region>),
    Absent,
}

impl Memory {
    fn new(kind: Kind, capacity: usize, backed: usize) -> Self {
        let owner = None;
        Self { kind, capacity, backed, owner }
    }

    /// Maps a file, shared. `capacity` may lie beyond the file's end; see M1.
    #[cfg(target_os = "linux")]
    pub(crate) fn map(file: &File, capacity: usize, access: Access) -> io::Result<Self> {
        if capacity == 0 {
            return Self::heap(0);
        }
        let backed =
            usize::try_from(platform::metadata(file)?.len()).unwrap_or(usize::MAX).min(capacity);
        let mut options = MmapOptions::new();
        options.len(capacity);
        let map = match access {
            Access::Read => options.map_raw_read_only(file)?,
            Access::ReadWrite => options.map_raw(file)?,
        };
        Ok(Self::new(Kind::Mapped { map, access }, capacity, backed))
    }

    /// Zeroed heap memory, aligned to a page; the system provides its pages when they are used.
    pub(crate) fn heap(capacity: usize) -> io::Result<Self> {
        let block = HeapBlock::new(capacity, PAGE)?;
        Ok(Self::new(Kind::Heap(block), capacity, capacity))
    }

    /// No memory at all: the bytes are in the file only, and readers read them from there.
    pub(crate) fn absent(capacity: usize) -> Self {
        Self::new(Kind::Absent, capacity, capacity)
    }

    /// What `region` has published until now, without a copy.
    pub(crate) fn view(region: &Arc<Region>, capacity: usize) -> Self {
        let backed = region.published().min(capacity);
        Self::new(Kind::View(Arc::clone(region)), capacity, backed)
    }

    /// Names who is told of the region that this becomes.
    pub(crate) fn owned_by(mut self, owner: Arc<dyn Adopt>) -> Self {
        self.owner = Some(owner);
        self
    }

    /// Copies bytes into heap memory that nobody shares yet.
    pub(crate) fn fill(&mut self, position: usize, bytes: &[u8]) -> io::Result<()> {
        let Kind::Heap(block) = &mut self.kind else {
            return Err(invalid("only heap memory can be filled"));
        };
        end_of(position, bytes, self.capacity)?;
        // SAFETY: `[position, end)` lies inside the block, checked above. `&mut self` is the only
        // way to the block (M2), so the source cannot overlap it and no reader exists.
        unsafe { copy_into(block.base, position, bytes) };
        Ok(())
    }

    fn base(&self) -> Option<NonNull<u8>> {
        match &self.kind {
            #[cfg(target_os = "linux")]
            Kind::Mapped { map, .. } => NonNull::new(map.as_mut_ptr()),
            Kind::Heap(block) => Some(block.base),
            Kind::View(parent) => parent.base,
            Kind::Absent => None,
        }
    }

    fn is_storable(&self) -> bool {
        match &self.kind {
            #[cfg(target_os = "linux")]
            Kind::Mapped { access, .. } => *access == Access::ReadWrite,
            Kind::Heap(_) => true,
            Kind::View(_) | Kind::Absent => false,
        }
    }
}

/// An owned, zeroed allocation.
struct HeapBlock {
    base: NonNull<u8>,
    /// The allocation that `base` points into; `None` where it would be empty.
    allocation: Option<(NonNull<u8>, Layout)>,
}

impl HeapBlock {
    /// LIMIT: the strongest alignment that `alloc_zeroed` gives by `calloc` on every platform.
    /// For more, std allocates and clears by hand, which would touch each page of a segment that
    /// may never be used; a larger alignment is made by moving the base up instead.
    const LAZY_ALIGN: usize = 8;

    fn new(capacity: usize, align: usize) -> io::Result<Self> {
        let slack = align.saturating_sub(Self::LAZY_ALIGN);
        let too_large = || io::Error::from(io::ErrorKind::OutOfMemory);
        let size = capacity.checked_add(slack).ok_or_else(too_large)?;
        let layout = Layout::from_size_align(size, Self::LAZY_ALIGN).map_err(|_| too_large())?;
        if capacity == 0 {
            return Ok(Self { base: NonNull::dangling(), allocation: None });
        }
        // SAFETY: the layout's size is not zero, since `capacity` is not.
        let start = unsafe { alloc_zeroed(layout) };
        let start = NonNull::new(start).ok_or_else(too_large)?;
        let moved = start.addr().get().wrapping_neg() % align.max(1);
        // SAFETY: `start` is aligned to 8, so `moved <= align - 8 = slack` (0 where `align <= 8`),
        // and `moved + capacity` stays inside the allocation.
        let base = unsafe { start.add(moved) };
        Ok(Self { base, allocation: Some((start, layout)) })
    }
}

impl Drop for HeapBlock {
    fn drop(&mut self) {
        if let Some((start, layout)) = self.allocation.take() {
            // SAFETY: `alloc_zeroed` returned `start` for this very layout, and `take` lets it be
            // given back once. Slices borrow from the `Region` that owns the block.
            unsafe { dealloc(start.as_ptr(), layout) };
        }
    }
}

// SAFETY: `base` and `allocation` point to memory that the block alone owns, like a `Box<[u8]>`.
unsafe impl Send for HeapBlock {}
// SAFETY: a shared `HeapBlock` offers nothing; what is done with `base` is `Region`'s argument.
unsafe impl Sync for HeapBlock {}

/// Bytes that are shared: readers slice what is published.
pub(crate) struct Region {
    /// Start of the memory; `None` where there is none. Never changes.
    base: Option<NonNull<u8>>,
    capacity: usize,
    /// Written by the one `RegionWriter`, read by anybody.
    published: Published,
    /// Keeps what `base` points to.
    memory: Memory,
}

// SAFETY: `base` points into `memory`, which is Send by itself (an owned allocation, a map, or an
// `Arc` of another region); it has no tie to the thread that made it.
unsafe impl Send for Region {}
// SAFETY: through `&Region`, bytes are only read, and only below `published` (M4), where nobody
// writes any more (M3); the atomic carries the order between the two. `memory` is only dropped.
unsafe impl Sync for Region {}

impl Region {
    fn new(mut memory: Memory, published: usize) -> io::Result<Arc<Self>> {
        // M4 begins here: `backed` is never more than `capacity`, nor than the file's length.
        if published > memory.backed {
            return Err(invalid("more published than there is"));
        }
        // Taken out, since an owner keeps the region: the two must not keep each other alive.
        let owner = memory.owner.take();
        let region = Arc::new(Self {
            base: memory.base(),
            capacity: memory.capacity,
            published: Published::new(published),
            memory,
        });
        if let Some(owner) = owner {
            owner.adopt(&region);
        }
        Ok(region)
    }

    /// Memory that nobody writes any more.
    pub(crate) fn sealed(memory: Memory, published: usize) -> io::Result<Arc<Self>> {
        Self::new(memory, published)
    }

    /// A heap copy of `bytes`, wholly published.
    pub(crate) fn from_bytes(bytes: &[u8]) -> io::Result<Arc<Self>> {
        let capacity = bytes.len();
        let block = HeapBlock::new(capacity, HeapBlock::LAZY_ALIGN)?;
        let mut memory = Memory::new(Kind::Heap(block), capacity, capacity);
        memory.fill(0, bytes)?;
        Self::new(memory, capacity)
    }

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
        // SAFETY: `start <= end <= published`, checked above, `published <= capacity` (M4), and
        // the memory has `capacity` bytes.
        let start = unsafe { base.add(range.start) };
        // SAFETY: `[start, end)` is published: initialised (zeroed, then stored or read from a
        // file), never written again (M3, M5), mapped to existing file bytes (M1), and alive as
        // long as `self`, from which the slice borrows. No memory is larger than `isize::MAX`:
        // `Layout` and memmap2 refuse it.
        Some(unsafe { std::slice::from_raw_parts(start.as_ptr(), length) })
    }

    /// Tells that what is at `position` is read next. Before the published end is looked at: a
    /// reader that has just heard of a record waits for both at the same time then.
    #[inline]
    pub(crate) fn read_soon(&self, position: usize) {
        prefetch::<FOR_READS>(self, position..position.saturating_add(PREFETCH_BYTES / 2));
    }

    /// Tells that `len` bytes at `position` are being read, and the next ones will be.
    #[inline]
    pub(crate) fn read_ahead(&self, position: usize, len: usize) {
        let ahead = position.saturating_add(PREFETCH_AHEAD);
        prefetch::<FOR_READS>(self, ahead..ahead.saturating_add(len.min(PREFETCH_BYTES)));
    }

    /// Whether the bytes are a file's own pages.
    #[cfg(test)]
    pub(crate) fn is_mapped(&self) -> bool {
        match &self.memory.kind {
            #[cfg(target_os = "linux")]
            Kind::Mapped { .. } => true,
            Kind::View(parent) => parent.is_mapped(),
            Kind::Heap(_) | Kind::Absent => false,
        }
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
        #[cfg(target_os = "linux")]
        if let Kind::Mapped { map, access } = &self.memory.kind
            && !range.is_empty()
        {
            if *access == Access::Read {
                return Err(invalid("populated a read-only map"));
            }
            return platform::populated(|| {
                map.advise_range(Advice::PopulateWrite, range.start, range.len())
            });
        }
        Ok(())
    }

    /// Takes the published pages of a range out of a map that is stored into; whoever reads them
    /// again gets them back from the page cache. Only pages that no store can need any more.
    ///
    /// To be called before a sync of the file: to write a page that a map may store into, the
    /// kernel takes that right away page by page, and interrupts each time every processor that
    /// runs the process. Here that happens once for the range (docs/performance.md).
    pub(crate) fn drop_pages(&self, range: Range<usize>) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if let Kind::Mapped { map, access: Access::ReadWrite } = &self.memory.kind {
            let whole =
                whole_pages(range.start..range.end.min(self.published()), platform::page_size());
            if !whole.is_empty() {
                // SAFETY: the map is a shared one of a file (`Memory::map`), and its pages were
                // stored before: what is taken out of it stays in the page cache, dirty or not,
                // and the next access finds the same bytes there (M1, M3).
                unsafe {
                    map.unchecked_advise_range(
                        UncheckedAdvice::DontNeed,
                        whole.start,
                        whole.len(),
                    )?;
                }
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _ = range;
        Ok(())
    }
}

/// A page that a child of `fork` finds empty. Looking at it costs a load, where asking for the
/// process's number would be a system call.
#[cfg(target_os = "linux")]
#[derive(Debug)]
pub(super) struct ForkMark {
    page: MmapRaw,
}

#[cfg(target_os = "linux")]
impl ForkMark {
    /// # Errors
    ///
    /// `InvalidInput` before Linux 4.14, which knows no such page.
    pub(super) fn new() -> io::Result<Self> {
        let mut page = MmapOptions::new().len(PAGE).map_anon()?;
        page.fill(1);
        let page = MmapRaw::from(page);
        // SAFETY: the range is that of the map, which lives. The advice changes nothing in this
        // process; a child finds zeros there, which are bytes like others.
        unsafe {
            let (start, length) = (page.as_mut_ptr().cast(), page.len());
            rustix::mm::madvise(start, length, rustix::mm::Advice::LinuxWipeOnFork)?;
        }
        Ok(Self { page })
    }

    /// Whether this is the process in which the mark was made.
    #[inline]
    pub(super) fn is_set(&self) -> bool {
        // SAFETY: the first byte of a map that lives as long as `self`, and that nobody stores
        // into: it was filled before it was shared. Volatile, since the kernel empties it.
        unsafe { self.page.as_ptr().read_volatile() != 0 }
    }
}

/// The one right to store into a region (M2): not `Clone`, and made from the `Memory` itself.
#[derive(Debug)]
struct Sole {
    region: Arc<Region>,
}

impl Sole {
    fn claim(memory: Memory, published: usize) -> io::Result<Self> {
        let region = Region::new(memory, published)?;
        Ok(Self { region })
    }

    /// Stores bytes above what is published.
    fn store(&mut self, position: usize, bytes: &[u8]) -> io::Result<()> {
        let region = &self.region;
        let base = region.base.filter(|_| region.memory.is_storable());
        let base = base.ok_or_else(|| invalid("this memory cannot be stored into"))?;
        end_of(position, bytes, region.capacity)?;
        if position < region.published() {
            return Err(invalid("stored below the published end"));
        }
        // SAFETY: `[position, end)` lies inside the memory, which can be stored into: checked
        // above. It lies above `published`, so no reader has a slice of it (M4) and `bytes` cannot
        // overlap it; `&mut self` makes this the only store (M2).
        unsafe { copy_into(base, position, bytes) };
        // What comes next is as long, most often. Its lines were cleared by the kernel on another
        // processor, and to wait for them under the partition's lock would cost a lone append a
        // tenth of its time; now they come while the caller encodes its next record.
        let end = position.saturating_add(bytes.len());
        prefetch::<FOR_STORES>(region, end..end.saturating_add(bytes.len().min(PREFETCH_BYTES)));
        Ok(())
    }

    fn publish(&mut self, end: usize) {
        assert!(end >= self.region.published(), "published bytes stay published");
        assert!(end <= self.region.capacity, "only memory is published");
        self.region.published.advance(end);
    }
}

/// LIMIT: longer stores and batches keep the processor's own prefetching going.
const PREFETCH_BYTES: usize = 512;

/// How far ahead of a reader that checks batch after batch: half a microsecond of its work.
const PREFETCH_AHEAD: usize = 2048;

/// What a prefetch is for, as the processor's own hints have it.
const FOR_READS: i32 = 3;
const FOR_STORES: i32 = 7;

/// Asks for cache lines that will be needed soon. A hint, without any effect on memory.
#[inline]
fn prefetch<const HINT: i32>(region: &Region, range: Range<usize>) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_ET0, _MM_HINT_T0, _mm_prefetch};
        const _: () = assert!(FOR_READS == _MM_HINT_T0 && FOR_STORES == _MM_HINT_ET0);
        const LINE: usize = 64;
        let Some(base) = region.base else { return };
        for at in (range.start..range.end.min(region.capacity)).step_by(LINE) {
            // SAFETY: `at < capacity`, and the memory has that many bytes.
            let line = unsafe { base.add(at) };
            // SAFETY: a prefetch reads and writes nothing, and cannot fault.
            unsafe { _mm_prefetch::<HINT>(line.as_ptr().cast_const().cast()) };
        }
    }
    // Elsewhere it is not worth the unsafe code until somebody has measured it.
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (region, range, HINT);
}

/// The pages that lie in a range as a whole: the machine's own pages, since one that was only
/// partly published is still stored into.
#[cfg(target_os = "linux")]
fn whole_pages(range: Range<usize>, page: usize) -> Range<usize> {
    let page = page.max(1);
    range.start.next_multiple_of(page)..range.end - range.end % page
}

/// Where `bytes` at `position` would end, if that is not beyond `limit`.
fn end_of(position: usize, bytes: &[u8], limit: usize) -> io::Result<usize> {
    let end = position.checked_add(bytes.len());
    end.filter(|end| *end <= limit).ok_or_else(|| invalid("beyond what may be written"))
}

/// # Safety
///
/// `position + bytes.len()` bytes at `base` must be writable memory that lives, and those from
/// `position` on must be shared with nobody and not overlap `bytes`.
unsafe fn copy_into(base: NonNull<u8>, position: usize, bytes: &[u8]) {
    // SAFETY: inside the memory at `base`, says the caller.
    let target = unsafe { base.add(position) }.as_ptr();
    // SAFETY: `target` has room for `bytes`, is not shared and does not overlap, says the caller.
    unsafe { target.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason)
}

#[cfg(test)]
mod tests;

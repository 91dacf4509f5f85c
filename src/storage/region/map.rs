//! Maps of the operating system: of a file, and of one page that belongs to no file.
//!
//! Owns the maps and what the kernel is advised about their pages. Must not know what is published
//! of them, nor what is stored there. The only file that names `memmap2`.
//!
//! - A1 **What is advised lies inside the map**: each advice clips its range to the map's length,
//!   or refuses it.
//! - A2 **A map of a file is a shared one**: its pages are those of the page cache, so a page that
//!   is taken out of the map loses nothing. [`FileMap::new`] makes no other.
//! - A3 **The kernel writes one byte for each page that it is asked about**, into a buffer that has
//!   as many.
#![allow(
    unsafe_code,
    reason = "advice to the kernel, and questions to it, about the pages of a map"
)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::ptr::NonNull;

use memmap2::{Advice, MmapOptions, MmapRaw, UncheckedAdvice};

use super::{PAGE, invalid};
use crate::storage::platform::{self, Access};

/// A file's bytes, shared with all who map it.
pub(super) struct FileMap {
    map: MmapRaw,
    access: Access,
}

impl FileMap {
    /// Maps a file. `capacity` is not zero, and may lie beyond the file's end.
    pub(super) fn new(file: &File, capacity: usize, access: Access) -> io::Result<Self> {
        let mut options = MmapOptions::new();
        options.len(capacity);
        let map = match access {
            Access::Read => options.map_raw_read_only(file)?,
            Access::ReadWrite => options.map_raw(file)?,
        };
        Ok(Self { map, access })
    }

    pub(super) fn base(&self) -> Option<NonNull<u8>> {
        NonNull::new(self.map.as_mut_ptr())
    }

    #[inline]
    pub(super) fn is_storable(&self) -> bool {
        self.access == Access::ReadWrite
    }

    /// Makes the pages of a range ready to be stored into; see `Region::populate`.
    pub(super) fn populate(&self, range: Range<usize>) -> io::Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        if !self.is_storable() {
            return Err(invalid("populated a read-only map"));
        }
        platform::populated(|| {
            self.map.advise_range(Advice::PopulateWrite, range.start, range.len())
        })
    }

    /// Takes the pages that lie in a range as a whole out of a map that is stored into; see
    /// `Region::drop_pages`. Their bytes must be stored and must not change any more.
    pub(super) fn drop_pages(&self, range: Range<usize>) -> io::Result<()> {
        let whole = whole_pages(range.start..range.end.min(self.map.len()), platform::page_size());
        if !self.is_storable() || whole.is_empty() {
            return Ok(());
        }
        debug_assert!(whole.end <= self.map.len(), "A1: advice for the map only");
        // SAFETY: (A1) the range was clipped to the map. (A2) What is taken out of the map stays in
        // the page cache, dirty or not, and the next access finds the same bytes there.
        unsafe {
            self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, whole.start, whole.len())
        }
    }

    /// Whether the page of this byte is in the page cache; true where that cannot be found out.
    pub(super) fn is_resident(&self, position: usize) -> bool {
        let page = position - position % platform::page_size().max(1);
        if page >= self.map.len() {
            return true;
        }
        let start = self.map.as_mut_ptr().wrapping_add(page);
        let mut state: u8 = 0;
        // SAFETY: (A1) the page begins inside the map, at a page boundary. (A3) One page is asked
        // for, so one byte is written, into `state`.
        let result = unsafe { libc::mincore(start.cast(), 1, &raw mut state) };
        result != 0 || state & 1 != 0
    }

    /// Reads the pages of a range and puts them into the map. An error is found when the bytes are
    /// read; a kernel that does not know the advice does nothing.
    pub(super) fn read_in(&self, range: Range<usize>) {
        let range = range.start..range.end.min(self.map.len());
        if !range.is_empty() {
            let _ = self.map.advise_range(Advice::PopulateRead, range.start, range.len());
        }
    }
}

/// One page of memory that no file has.
#[derive(Debug)]
pub(super) struct AnonymousPage(MmapRaw);

impl AnonymousPage {
    pub(super) fn filled_with(byte: u8) -> io::Result<Self> {
        let mut page = MmapOptions::new().len(PAGE).map_anon()?;
        page.fill(byte);
        Ok(Self(MmapRaw::from(page)))
    }

    pub(super) fn start(&self) -> *mut u8 {
        self.0.as_mut_ptr()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// The pages that lie in a range as a whole: the machine's own pages, since one that was only
/// partly published is still stored into.
pub(super) fn whole_pages(range: Range<usize>, page: usize) -> Range<usize> {
    let page = page.max(1);
    range.start.next_multiple_of(page)..range.end - range.end % page
}

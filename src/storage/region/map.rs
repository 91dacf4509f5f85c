//! Maps of the operating system: of a file, and of one page that belongs to no file.
//!
//! Owns the maps and what the kernel is advised about their pages. Must not know what is published
//! of them, nor what is stored there. The only file that names `memmap2`.
//!
//! - A1 **What is advised lies inside the map**: each advice clips its range to the map's length,
//!   or refuses it.
//! - A2 **A map of a file is a shared one**: its pages are those of the page cache, so a page that
//!   is taken out of the map loses nothing. [`FileMap::new`] makes no other.
#![allow(unsafe_code, reason = "advice to the kernel that takes pages out of a map")]

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

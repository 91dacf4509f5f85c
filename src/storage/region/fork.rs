//! The mark by which a process recognises that it is a forked child of the one that made the mark.
//!
//! Owns one page, which the kernel zeroes in a child. Must not know: the callers. Reading the page
//! costs a load, while getting the process id would cost a system call.
//!
//! - F1 **The page lives as long as the mark**, which owns its map.
//! - F2 **Nobody stores into the page**: it is filled before it is shared, and only this file has
//!   its address. What the kernel does to it in a child happens before the child runs.
#![allow(unsafe_code, reason = "advice to the kernel about a page, and a volatile load from it")]

use std::io;

use super::map::AnonymousPage;

/// A page that a child of `fork` finds empty.
#[derive(Debug)]
pub(in crate::storage) struct ForkMark {
    page: AnonymousPage,
}

impl ForkMark {
    /// # Errors
    ///
    /// `InvalidInput` before Linux 4.14, which knows no such page.
    pub(in crate::storage) fn new() -> io::Result<Self> {
        let page = AnonymousPage::filled_with(1)?;
        let (start, length) = (page.start().cast(), page.len());
        // SAFETY: (F1) the range is that of the map, which lives. (F2) The advice changes nothing
        // in this process; a child finds zeros there, which are bytes like others.
        unsafe { rustix::mm::madvise(start, length, rustix::mm::Advice::LinuxWipeOnFork)? };
        Ok(Self { page })
    }

    /// Whether this is the process in which the mark was made.
    #[inline]
    pub(in crate::storage) fn is_set(&self) -> bool {
        let first = self.page.start().cast_const();
        // SAFETY: (F1) the first byte of a map that lives as long as `self`. (F2) Nobody stores
        // there. Volatile, since the kernel empties it.
        unsafe { first.read_volatile() != 0 }
    }
}

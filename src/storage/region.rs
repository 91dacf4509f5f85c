//! Memory that one writer fills and many readers slice: the only unsafe code of the crate.
//!
//! Owns the map or heap block behind a file's bytes, and the position up to which they are
//! published. Must not know what the bytes mean, which file they belong to, who waits for them, or
//! how durable they are.
//!
//! A [`Memory`] becomes a shared [`Region`], either sealed or through the one [`Sole`] that may
//! store into it. The log calls the `Sole`, through its `RegionWriter`, under the partition's lock;
//! readers call [`Region::bytes`] from any thread without a lock.
//!
//! | file | owns |
//! |---|---|
//! | `backing.rs` | what backs a region; no unsafe code |
//! | `block.rs` | a heap allocation (H) |
//! | `map.rs` | maps, and the advice to the kernel about their pages (A) |
//! | `published.rs` | the position below which bytes are shown; no unsafe code |
//! | `shared.rs` | memory, and the region that it becomes: what readers may touch (M, S) |
//! | `sole.rs` | what the one writer may (M, W) |
//! | `prefetch.rs` | hints to the processor (P) |
//! | `fork.rs` | the mark that a forked child lacks (F) |
//! | `write_back.rs` | the system call that writes a part of a file back (D) |
//!
//! Unsafe code relies on numbered obligations, and each `SAFETY:` names those that it uses. The
//! obligations of one file stand in its header; these are those of the memory that is shared:
//!
//! - M1 **A mapped file does not become shorter than what is published of it**, here or in another
//!   process: `DiskFile::shorten` is called for a segment that this run has appended to and that
//!   takes no more appends, and leaves all that its region has published, and a page. Readers touch
//!   nothing beyond (M4), and the writer's stores have ended (`RegionWriter::end_stores`); a prefetch
//!   is a hint and never a fault. Another program that truncates a file raises SIGBUS at the next
//!   access. Cannot be checked here; the crate's documentation says so.
//! - M2 **One writer.** A [`Sole`] is not `Clone`, and making one consumes the `Memory`. Two
//!   writers need two maps of one file; the log makes one per run of a file.
//! - M3 **Published bytes never change.** [`Sole::store`] refuses positions below `published`, and
//!   `published` never goes back ([`Sole::publish`] asserts it). `DiskFile::write_at` and `release`
//!   bypass this check: neither may be called for positions below the published end of a mapped
//!   file, except to release zeros.
//! - M4 **Readers touch only `[0, published)`**, and `published <= capacity`, always: checked where
//!   a region is made, where the end moves, and at each slice.
//! - M5 **Nobody else writes**, as far as the directory lock can keep others out. Cannot be checked
//!   here either.

use std::io;

mod backing;
mod block;
#[cfg(target_os = "linux")]
mod fork;
#[cfg(target_os = "linux")]
mod map;
mod prefetch;
mod published;
mod shared;
mod sole;
#[cfg(target_os = "linux")]
mod write_back;

#[cfg(target_os = "linux")]
pub(super) use self::fork::ForkMark;
pub(crate) use self::shared::{Adopt, Memory, Region};
pub(crate) use self::sole::Sole;
#[cfg(target_os = "linux")]
pub(super) use self::write_back::{WriteBack, write_back};

/// LIMIT: what a page is at least, on every platform; the heap stands in for a map of pages.
const PAGE: usize = 4096;

/// Where `bytes` at `position` would end, if that is not beyond `limit`.
#[inline]
pub(super) fn end_of(position: usize, bytes: &[u8], limit: usize) -> io::Result<usize> {
    let end = position.checked_add(bytes.len());
    end.filter(|end| *end <= limit).ok_or_else(|| invalid("beyond what may be written"))
}

pub(super) fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason)
}

#[cfg(test)]
mod tests;

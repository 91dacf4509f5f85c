//! The interface to disks and files, as two traits.
//!
//! The engine reads and writes only through [`Disk`] and [`DiskFile`]. So the tests on the
//! simulated disk, and brokers in memory, run the same code as production. Must not know: segments,
//! batches or offsets.
//!
//! Durability is as POSIX gives it, and no better: bytes and the file's size are durable after
//! [`DiskFile::sync`], a name (created, renamed, removed) only after [`Disk::sync_dir`] of the
//! directory that holds it.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

pub(crate) use super::platform::{Access, EntryKind};
use super::region::Memory;

#[cfg(all(test, not(loom)))]
mod hooked;
mod memory;
mod names;
mod real;
#[cfg(any(test, feature = "testing"))]
mod simulated;

#[cfg(all(test, not(loom)))]
pub(crate) use hooked::{HookedDisk, Side};
pub(crate) use memory::MemoryDisk;
pub(crate) use real::RealDisk;
#[cfg(test)]
pub(crate) use simulated::{Fault, Metadata, Operation, Pages};
#[cfg(any(test, feature = "testing"))]
pub(crate) use simulated::{PowerCut, SimulatedDisk};

/// One entry of a directory. Names that are not UTF-8 cannot be ours and are left out by `list`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) kind: EntryKind,
}

/// A tree of directories and files.
pub(crate) trait Disk: Send + Sync + fmt::Debug {
    /// Names the directory that holds all that is made and removed from now on. When it has moved
    /// or another has taken its name, making and removing fail, rather than happen in another
    /// directory.
    fn bind(&self, dir: &Path) -> io::Result<()> {
        let _ = dir;
        Ok(())
    }

    /// Creates one directory (mode 0700). Its parent must exist.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Whether a path exists, and as what. Does not follow a link in the last component.
    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>>;

    /// The entries of a directory, sorted by name.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Renames a file, replacing nothing: an existing target is an error. The new name is durable
    /// once its directory is synced, and the old one is removed for good once its own is. Where
    /// these are two, a power cut before both are synced leaves either name, both or none, whatever
    /// a journal makes of it: so a caller that relies on the new name syncs its directory first.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Creates a file (mode 0600) that must not exist yet; readable and writable.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a regular file; anything else is an error, and is not waited for.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>>;

    /// What tells one boot of the machine from another: bytes that were written and not synced
    /// survive a process, but not a boot. `None` where it is not known.
    fn boot_id(&self) -> Option<String>;

    /// Whether stores into a shared map of a file in `dir` are safe after `allocate` and
    /// `populate`: false on copy-on-write, network and FUSE file systems, where a store can need
    /// space again and fail as a signal.
    fn supports_mapped_writes(&self, dir: &Path) -> bool;
}

/// An open file. Positions are bytes from its start.
pub(crate) trait DiskFile: Send + Sync + fmt::Debug {
    /// The file's length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has another name (a hard link), under which somebody else may take it for
    /// theirs.
    fn has_other_names(&self) -> io::Result<bool> {
        Ok(false)
    }

    /// Reads at most `buffer.len()` bytes; fewer only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;

    /// Writes all of `bytes`, growing the file where needed.
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()>;

    /// Gives `[current length, end)` real, zeroed blocks and makes the file at least `end` long.
    /// On failure the file may have grown, but holds nothing new.
    fn allocate(&self, end: u64) -> io::Result<()>;

    /// Gives the blocks of a range back; it reads as zeros from then on. The length stays. An
    /// optimisation: a disk that cannot do it does nothing.
    fn release(&self, range: Range<u64>) -> io::Result<()>;

    /// Makes the file at most `end` long and frees what it had beyond. Durable with the next sync.
    /// Memory of a map beyond `end` must not be touched any more: that would raise SIGBUS (M1).
    fn shorten(&self, end: u64) -> io::Result<()>;

    /// Makes everything written to the file before this call durable, its length included,
    /// stores through its map too.
    fn sync(&self) -> io::Result<()>;

    /// Has `[.., end)` written to the device, piece by piece, so that others who use the device wait
    /// for a piece at most; a [`sync`](Self::sync) that comes next has little to write. Makes nothing
    /// durable. An optimisation: a disk that cannot do it does nothing.
    fn write_back(&self, end: u64) -> io::Result<()> {
        let _ = end;
        Ok(())
    }

    /// The file's bytes as memory of `capacity` bytes, which may lie beyond its end: such bytes
    /// must not be touched before `allocate` has covered them.
    fn map(&self, capacity: usize, access: Access) -> io::Result<Memory>;

    /// Whether bytes that go through [`write_at`](Self::write_at) show in the file's map by
    /// themselves. Where not, the region's writer stores them too.
    fn map_shows_writes(&self) -> bool;

    /// Whether space that was written once with zeros syncs quicker than space that was only
    /// allocated.
    fn gains_from_prewriting(&self) -> bool {
        false
    }

    /// Says whether there are un-synced stores through the map, of which the file itself knows
    /// nothing. While true, the descriptor is given up last.
    fn set_dirty(&self, dirty: bool);

    /// Tells an open file the name that it has now.
    fn renamed(&self, to: &Path);
}

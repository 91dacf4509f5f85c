//! A disk that calls a hook, in which tests act in the middle of an operation, or panic.
//!
//! Must not know what the operations mean. The hook runs in the thread of the caller, without any
//! lock of the disk, right before and right after each operation of the disk below.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::{Access, Disk, DiskFile, Entry, EntryKind, Operation};
use crate::storage::region::Memory;

/// On which side of an operation the hook is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Before,
    /// Whether or not the operation succeeded.
    After,
}

type Hook = Arc<dyn Fn(Operation, Side) + Send + Sync>;

/// Another disk, and what is called around its operations. Clones are the same disk.
#[derive(Clone)]
pub(crate) struct HookedDisk {
    disk: Arc<dyn Disk>,
    hook: Hook,
}

impl HookedDisk {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        hook: impl Fn(Operation, Side) + Send + Sync + 'static,
    ) -> Self {
        Self { disk, hook: Arc::new(hook) }
    }

    fn file(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(HookedFile { file, hook: Arc::clone(&self.hook) })
    }
}

fn around<T>(hook: &Hook, operation: Operation, run: impl FnOnce() -> T) -> T {
    hook(operation, Side::Before);
    let done = run();
    hook(operation, Side::After);
    done
}

impl fmt::Debug for HookedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HookedDisk").field("disk", &self.disk).finish_non_exhaustive()
    }
}

impl Disk for HookedDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        around(&self.hook, Operation::CreateDir, || self.disk.create_dir(path))
    }

    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        self.disk.kind(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        around(&self.hook, Operation::Read, || self.disk.list(dir))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        around(&self.hook, Operation::SyncDir, || self.disk.sync_dir(dir))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        around(&self.hook, Operation::Rename, || self.disk.rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        around(&self.hook, Operation::Remove, || self.disk.remove_file(path))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        around(&self.hook, Operation::Remove, || self.disk.remove_dir(path))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let created = around(&self.hook, Operation::Create, || self.disk.create(path))?;
        Ok(self.file(created))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let opened = around(&self.hook, Operation::Open, || self.disk.open(path, access))?;
        Ok(self.file(opened))
    }

    fn boot_id(&self) -> Option<String> {
        self.disk.boot_id()
    }

    fn supports_mapped_writes(&self, dir: &Path) -> bool {
        self.disk.supports_mapped_writes(dir)
    }
}

struct HookedFile {
    file: Arc<dyn DiskFile>,
    hook: Hook,
}

impl fmt::Debug for HookedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HookedFile").field("file", &self.file).finish_non_exhaustive()
    }
}

impl DiskFile for HookedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn has_other_names(&self) -> io::Result<bool> {
        self.file.has_other_names()
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        around(&self.hook, Operation::Read, || self.file.read_at(buffer, position))
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        around(&self.hook, Operation::Write, || self.file.write_at(bytes, position))
    }

    fn allocate(&self, end: u64) -> io::Result<()> {
        around(&self.hook, Operation::Allocate, || self.file.allocate(end))
    }

    fn release(&self, range: Range<u64>) -> io::Result<()> {
        around(&self.hook, Operation::Release, || self.file.release(range))
    }

    fn shorten(&self, end: u64) -> io::Result<()> {
        around(&self.hook, Operation::Shorten, || self.file.shorten(end))
    }

    fn sync(&self) -> io::Result<()> {
        around(&self.hook, Operation::Sync, || self.file.sync())
    }

    fn map(&self, capacity: usize, access: Access) -> io::Result<Memory> {
        around(&self.hook, Operation::Map, || self.file.map(capacity, access))
    }

    fn map_shows_writes(&self) -> bool {
        self.file.map_shows_writes()
    }

    fn write_back(&self, end: u64) -> io::Result<()> {
        self.file.write_back(end)
    }

    fn gains_from_prewriting(&self) -> bool {
        self.file.gains_from_prewriting()
    }

    fn set_dirty(&self, dirty: bool) {
        self.file.set_dirty(dirty);
    }

    fn renamed(&self, to: &Path) {
        self.file.renamed(to);
    }
}

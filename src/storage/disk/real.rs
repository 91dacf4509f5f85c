//! The real disk: files and directories of the operating system.
//!
//! Owns descriptors: each file opens its own by path when it needs one, and may lose it to the
//! [budget](budget) in between. Must not know what is in the files. Called from any thread; a
//! file's own lock is held for bookkeeping only, never during I/O, and no lock is shared by two
//! files that have their descriptors.
//!
//! 1. A failed sync is final: that file's later syncs fail too, even if the kernel would report
//!    success.
//! 2. A descriptor in use is never closed: users hold a clone of its `Arc`, and only a descriptor
//!    without clones is closed.
//! 3. Bytes that `write_at` wrote or `set_dirty` announced are synced before the descriptor is
//!    closed, or the failure is kept (1).
//! 4. A reopened name is the same file as before, or an error.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};

use self::budget::{Budget, GivenUp};
use super::{Access, Disk, DiskFile, Entry, EntryKind};
use crate::storage::platform::{self, Identity};
use crate::storage::region::Memory;
#[cfg(target_os = "linux")]
use crate::storage::region::{WriteBack, write_back};
use crate::sync::{AtomicBool, LockLevel, Mutex, Ordering};

mod budget;

/// LIMIT: how much is written back at once. The queue of a device is served in order, and two syncs
/// that make a new segment wait in it six times; with a segment of 64 MiB in front of them the
/// producer had filled the next one first. Two such pieces are with the device at a time. With 1, 2
/// and 4 MiB in its queue the producer is equally fast, with 8 not always (docs/performance.md).
#[cfg(target_os = "linux")]
const WRITE_BACK_BYTES: usize = 1 << 20;

/// Files of the operating system.
#[derive(Debug)]
pub(crate) struct RealDisk {
    budget: Arc<Budget>,
    root: OnceLock<(PathBuf, Identity)>,
}

impl RealDisk {
    /// A disk that uses at most half of the descriptors that the process may have.
    pub(crate) fn new() -> Self {
        // LIMIT: the other half is the host application's. Below 32 a handful of partitions would
        // do nothing but open and close; without any limit, a million are as good as no budget.
        let allowed = platform::descriptor_limit().unwrap_or(1 << 20) / 2;
        Self::with_descriptors(usize::try_from(allowed).unwrap_or(usize::MAX).max(32))
    }

    /// A disk that keeps about `limit` descriptors open, of files that are not in use.
    pub(crate) fn with_descriptors(limit: usize) -> Self {
        Self { budget: Arc::new(Budget::new(limit)), root: OnceLock::new() }
    }

    /// Paths lead to the directory that was locked, or nowhere.
    fn check_root(&self) -> io::Result<()> {
        let Some((path, identity)) = self.root.get() else { return Ok(()) };
        // Not `NotFound`, which would pass for a file that is removed already.
        let moved = || io::Error::other("the data directory was moved or replaced");
        match platform::retried(|| std::fs::metadata(path)) {
            Ok(found) if platform::identity(&found) == *identity => Ok(()),
            Ok(_) => Err(moved()),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Err(moved()),
            Err(source) => Err(source),
        }
    }

    fn file(&self, path: &Path, access: Access, file: File) -> io::Result<Arc<dyn DiskFile>> {
        let identity = platform::identity(&platform::metadata(&file)?);
        let file = Arc::new_cyclic(|this| RealFile {
            this: Weak::clone(this),
            budget: Arc::clone(&self.budget),
            access,
            identity,
            used: AtomicBool::new(true),
            syncing: Mutex::at_level(LockLevel::FileSync, ()),
            state: Mutex::at_level(
                LockLevel::FileState,
                State {
                    path: path.to_path_buf(),
                    file: Some(Arc::new(file)),
                    written: Marks::default(),
                    stored: Marks::default(),
                    failed: None,
                },
            ),
        });
        self.budget.opened(Weak::clone(&file.this));
        Ok(file)
    }
}

impl Disk for RealDisk {
    fn bind(&self, dir: &Path) -> io::Result<()> {
        let identity = platform::identity(&platform::retried(|| std::fs::metadata(dir))?);
        let _ = self.root.set((dir.to_path_buf(), identity));
        Ok(())
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.check_root()?;
        platform::create_dir(path)
    }

    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        match platform::retried(|| std::fs::symlink_metadata(path)) {
            Ok(metadata) => Ok(Some(platform::kind(metadata.file_type()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = platform::retried(|| entries(dir))?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        platform::sync_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check_root()?;
        platform::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.check_root()?;
        platform::retried(|| std::fs::remove_file(path))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.check_root()?;
        platform::retried(|| std::fs::remove_dir(path))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.check_root()?;
        self.budget.make_room();
        self.file(path, Access::ReadWrite, platform::create(path)?)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        self.budget.make_room();
        self.file(path, access, platform::open(path, access)?)
    }

    fn boot_id(&self) -> Option<String> {
        platform::boot_id()
    }

    fn supports_mapped_writes(&self, dir: &Path) -> bool {
        platform::keeps_blocks_in_place(dir)
    }
}

fn entries(dir: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string() {
            entries.push(Entry { name, kind: platform::kind(entry.file_type()?) });
        }
    }
    Ok(entries)
}

/// A file that has its descriptor, or knows how to get it again.
#[derive(Debug)]
struct RealFile {
    this: Weak<RealFile>,
    budget: Arc<Budget>,
    access: Access,
    identity: Identity,
    /// Whether the file was used since the budget last looked at it.
    ///
    /// ORDERING: Relaxed: set by every use, taken by the thread that makes room; a hint that guards
    /// nothing. What it decides is looked at again under `state`.
    used: AtomicBool,
    /// Held during a sync: the kernel reports a write-back error to one caller per descriptor, so a
    /// second sync beside the first could return Ok for pages that the first has reported lost.
    syncing: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    path: PathBuf,
    file: Option<Arc<File>>,
    /// Changes through the descriptor.
    written: Marks,
    /// Changes through the map, as far as `set_dirty` announced them.
    stored: Marks,
    failed: Option<Failure>,
}

/// Counts changes, so that one made while a sync runs is not taken for synced.
#[derive(Debug, Default, Clone, Copy)]
struct Marks {
    made: u64,
    synced: u64,
}

impl Marks {
    fn make(&mut self) {
        self.made = self.made.wrapping_add(1);
    }

    fn is_dirty(self) -> bool {
        self.made != self.synced
    }
}

/// A failed sync, to be returned again and again.
#[derive(Debug, Clone, Copy)]
struct Failure {
    code: Option<i32>,
    kind: io::ErrorKind,
}

impl Failure {
    fn of(error: &io::Error) -> Self {
        Self { code: error.raw_os_error(), kind: error.kind() }
    }

    fn error(self) -> io::Error {
        self.code.map_or_else(|| self.kind.into(), io::Error::from_raw_os_error)
    }
}

impl RealFile {
    /// The descriptor, opened if need be.
    fn descriptor(&self) -> io::Result<Arc<File>> {
        self.with_descriptor(|_| ())
    }

    /// The descriptor, after `note` was done under the file's lock in the same critical section
    /// that takes the clone: what is noted keeps the descriptor from being given up as clean.
    fn with_descriptor(&self, note: impl Fn(&mut State)) -> io::Result<Arc<File>> {
        self.used.store(true, Ordering::Relaxed);
        {
            let mut state = self.state.lock();
            if let Some(file) = state.file.clone() {
                note(&mut state);
                return Ok(file);
            }
        }
        // Without this file's lock: making room takes the locks of other files.
        self.budget.make_room();
        let mut state = self.state.lock();
        if state.file.is_none() {
            let file = platform::open(&state.path, self.access)?;
            if platform::identity(&platform::metadata(&file)?) != self.identity {
                let reason = "another file has taken this name";
                return Err(io::Error::new(io::ErrorKind::NotFound, reason));
            }
            state.file = Some(Arc::new(file));
            self.budget.opened(Weak::clone(&self.this));
        }
        note(&mut state);
        state.file.clone().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Changes the file; the change counts from before it begins until after it has ended, so no
    /// sync in between can vouch for it.
    fn change(&self, change: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
        let file = self.with_descriptor(|state| state.written.make())?;
        let result = change(&file);
        let mut state = self.state.lock();
        state.written.make();
        // Dropped under the lock: until then the clone keeps the descriptor (2).
        drop(file);
        result
    }

    fn sync_through(&self, file: &File) -> io::Result<()> {
        let _one_at_a_time = self.syncing.lock();
        let (written, stored) = {
            let state = self.state.lock();
            if let Some(failure) = state.failed {
                return Err(failure.error());
            }
            (state.written.made, state.stored.made)
        };
        // DURABILITY: fdatasync includes the length, which is all of the metadata that reading the
        // data back needs. std repeats it on EINTR, which says nothing about the pages.
        let result = file.sync_data();
        let mut state = self.state.lock();
        match &result {
            Ok(()) => {
                state.written.synced = written;
                state.stored.synced = stored;
            }
            // The kernel may have marked the lost pages clean: the next sync would return Ok
            // although nothing was written. Nothing is believed after this.
            Err(error) => state.failed = Some(Failure::of(error)),
        }
        result
    }

    /// What it finds counts as the failure of a sync: the kernel does not report it again.
    #[cfg(target_os = "linux")]
    fn write_back_piece(&self, file: &File, piece: Range<u64>, call: WriteBack) -> io::Result<()> {
        let _one_at_a_time = self.syncing.lock();
        let failed = self.state.lock().failed;
        failed.map_or(Ok(()), |failure| Err(failure.error()))?;
        match write_back(file, piece, call) {
            Err(error) if error.kind() != io::ErrorKind::Unsupported => {
                self.state.lock().failed = Some(Failure::of(&error));
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// Closes the descriptor if it is neither used nor needed.
    ///
    /// Closing while the file is mapped is sound on Linux, even if `set_dirty` did not announce
    /// all stores: the map keeps the inode, and its pages, in memory. A write-back error that
    /// nobody has seen stays with the inode and is reported to the next descriptor that syncs, so
    /// a sync after reopening cannot miss one (`errseq_sample` in the kernel). Without a map the
    /// inode and the error with it could be evicted; hence (3).
    fn give_up(&self) -> GivenUp {
        let mut state = self.state.lock();
        let dirty = state.written.is_dirty() || state.stored.is_dirty();
        let Some(file) = state.file.take() else {
            return GivenUp::Busy;
        };
        match Arc::try_unwrap(file) {
            Err(file) => {
                state.file = Some(file);
                GivenUp::Busy
            }
            Ok(file) if dirty && state.failed.is_none() => {
                state.file = Some(Arc::new(file));
                GivenUp::Dirty
            }
            Ok(file) => {
                drop(state);
                drop(file);
                GivenUp::Closed
            }
        }
    }

    /// Syncs, so that the descriptor can be given up. The result is kept for the next `sync`.
    fn sync_before_giving_up(&self) {
        let file = self.state.lock().file.clone();
        if let Some(file) = file {
            let _kept = self.sync_through(&file);
        }
    }

    /// Whether the file was used since this was asked last.
    fn take_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }
}

impl Drop for RealFile {
    fn drop(&mut self) {
        if self.state.lock().file.take().is_some() {
            self.budget.closed();
        }
    }
}

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(platform::metadata(&*self.descriptor()?)?.len())
    }

    fn has_other_names(&self) -> io::Result<bool> {
        Ok(platform::names(&platform::metadata(&*self.descriptor()?)?) > 1)
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        platform::read_at(&*self.descriptor()?, buffer, position)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.change(|file| platform::write_at(file, bytes, position))
    }

    fn allocate(&self, end: u64) -> io::Result<()> {
        self.change(|file| platform::allocate(file, platform::metadata(file)?.len()..end))
    }

    fn release(&self, range: Range<u64>) -> io::Result<()> {
        self.change(|file| platform::release(file, range))
    }

    fn shorten(&self, end: u64) -> io::Result<()> {
        self.change(|file| {
            let is_longer = platform::metadata(file)?.len() > end;
            if is_longer { platform::retried(|| file.set_len(end)) } else { Ok(()) }
        })
    }

    fn sync(&self) -> io::Result<()> {
        let file = self.descriptor()?;
        self.sync_through(&file)
    }

    #[cfg(target_os = "linux")]
    fn write_back(&self, end: u64) -> io::Result<()> {
        let file = self.descriptor()?;
        let pieces = (0..end).step_by(WRITE_BACK_BYTES);
        let piece = |start: u64| start..start.saturating_add(WRITE_BACK_BYTES as u64).min(end);
        // Two pieces are with the device, so that it is never without work.
        let mut started = None;
        for start in pieces {
            self.write_back_piece(&file, piece(start), WriteBack::Start)?;
            if let Some(before) = started.replace(start) {
                self.write_back_piece(&file, piece(before), WriteBack::Wait)?;
            }
        }
        started.map_or(Ok(()), |last| self.write_back_piece(&file, piece(last), WriteBack::Wait))
    }

    #[cfg(target_os = "linux")]
    fn map(&self, capacity: usize, access: Access) -> io::Result<Memory> {
        Memory::map(&*self.descriptor()?, capacity, access)
    }

    /// Elsewhere readers read from the file.
    #[cfg(not(target_os = "linux"))]
    fn map(&self, capacity: usize, _access: Access) -> io::Result<Memory> {
        Ok(Memory::absent(capacity))
    }

    fn gains_from_prewriting(&self) -> bool {
        true
    }

    fn map_shows_writes(&self) -> bool {
        true
    }

    fn set_dirty(&self, dirty: bool) {
        let mut state = self.state.lock();
        if dirty {
            state.stored.make();
        } else {
            state.stored.synced = state.stored.made;
        }
    }

    fn renamed(&self, to: &Path) {
        self.state.lock().path = to.to_path_buf();
    }
}

#[cfg(test)]
mod tests;

//! A spare file for compactions on a full disk.
//!
//! Owns: the file, which is outside of every topic's directory, and its blocks. Must not know: when
//! a compaction needs it, and what is written into it.
//!
//! A compaction that finds no space writes into the spare file. When all of it is synced, the file
//! is renamed into the partition's directory, as a segment, which needs no space. Then the inputs
//! are removed, and a new spare file is made of their space. Blocks that readers may map are never
//! used again.
//!
//! Two directory syncs make the rename durable, in this order: first the partition's directory,
//! which is the commit point of every compaction, then the directory that the file has left. A
//! power cut before the second may leave either name, both or none. With none, the inputs are still
//! there, as after any compaction that was interrupted. With both, the file is a segment, and the
//! next opening removes the name here.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::storage::disk::{Access, Disk, DiskFile, EntryKind};
use crate::sync::{LockLevel, Mutex};

/// LIMIT: what the survivors of one or more segments may take to be compacted on a full disk. A
/// larger one would cost each directory with a compacted topic as much.
pub(crate) const SPARE_BYTES: u64 = 4 << 20;

const NAME: &str = "compaction-spare";

#[derive(Debug)]
pub(crate) struct CompactionSpare {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Missing,
    Ready,
    /// A compaction writes into it.
    Taken,
}

impl CompactionSpare {
    /// In this directory, which need not be there yet.
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            path: dir.join(NAME),
            state: Mutex::at_level(LockLevel::CompactionSpare, State::Missing),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Finds the file, or makes it, if it is missing.
    ///
    /// # Errors
    ///
    /// There is no space for it.
    pub(crate) fn fill(&self, disk: &dyn Disk) -> io::Result<()> {
        let mut state = self.state.lock();
        if *state == State::Missing {
            if !self.find(disk)? {
                self.make(disk)?;
            }
            *state = State::Ready;
        }
        Ok(())
    }

    fn find(&self, disk: &dyn Disk) -> io::Result<bool> {
        if disk.kind(&self.path)? != Some(EntryKind::File) {
            return Ok(false);
        }
        let file = disk.open(&self.path, Access::Read)?;
        if file.len()? == SPARE_BYTES && !file.has_other_names()? {
            return Ok(true);
        }
        // Less than a whole one, which a crash has left; or a segment has it.
        disk.remove_file(&self.path)?;
        Ok(false)
    }

    fn make(&self, disk: &dyn Disk) -> io::Result<()> {
        let file = disk.create(&self.path)?;
        let made = file.allocate(SPARE_BYTES).and_then(|()| file.sync());
        if made.is_err() {
            // Blocks of a failed allocation stay in the file until it is removed.
            let _ = disk.remove_file(&self.path);
            return made;
        }
        self.sync_dir(disk)
    }

    fn sync_dir(&self, disk: &dyn Disk) -> io::Result<()> {
        self.path.parent().map_or(Ok(()), |dir| disk.sync_dir(dir))
    }

    /// For a compaction that found no space.
    pub(super) fn take(&self, disk: &dyn Disk) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        if *state != State::Ready {
            return Err(ErrorKind::StorageFull.into());
        }
        let file = disk.open(&self.path, Access::ReadWrite)?;
        if file.len()? != SPARE_BYTES || file.has_other_names()? {
            *state = State::Missing;
            return Err(ErrorKind::StorageFull.into());
        }
        *state = State::Taken;
        Ok(file)
    }

    /// It was not used. What was written into it does not matter.
    pub(super) fn give_back(&self) {
        *self.state.lock() = State::Ready;
    }

    /// It has moved, and its new name is durable.
    pub(super) fn moved(&self, disk: &dyn Disk) {
        *self.state.lock() = State::Missing;
        // DURABILITY: so that a power cut does not bring the old name back; where this fails, the
        // next opening sees that the file has two names.
        let _ = self.sync_dir(disk);
    }
}

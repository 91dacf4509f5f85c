//! One open file of the simulated disk.
//!
//! Owns: under which path it was opened, for faults, and what the handle may do. Must not know: power
//! cuts; the disk decides what survives one.

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::faults::Operation;
use super::page::PAGE;
use super::{FileId, PowerIsOff, SimulatedDisk, State};
use crate::storage::disk::{Access, DiskFile};
use crate::storage::region::Memory;
use crate::sync::Mutex;

/// Whether an error is about taking a page at all, and not about the bytes in it.
fn is_refusal(error: &io::Error) -> bool {
    use ErrorKind::{FileTooLarge, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge | ReadOnlyFilesystem)
}

#[derive(Debug)]
pub(super) struct SimulatedFile {
    disk: SimulatedDisk,
    file: FileId,
    path: Mutex<PathBuf>,
    access: Access,
}

impl SimulatedFile {
    pub(super) fn new(disk: &SimulatedDisk, file: FileId, path: &Path, access: Access) -> Self {
        Self { disk: disk.clone(), file, path: Mutex::new(path.to_path_buf()), access }
    }

    fn run<T>(
        &self,
        operation: Operation,
        run: impl FnOnce(&mut State, io::Result<()>) -> io::Result<T>,
    ) -> io::Result<T> {
        if operation.is_change() && operation != Operation::Sync && self.access == Access::Read {
            return Err(ErrorKind::PermissionDenied.into());
        }
        let path = self.path.lock().clone();
        let mut state = self.disk.state.lock();
        if state.is_off() {
            return Err(io::Error::other(PowerIsOff));
        }
        let entered = state.enter(operation, &path);
        run(&mut state, entered)
    }
}

impl DiskFile for SimulatedFile {
    fn len(&self) -> io::Result<u64> {
        self.run(Operation::Read, |state, entered| {
            entered?;
            Ok(state.content(self.file)?.length)
        })
    }

    fn has_other_names(&self) -> io::Result<bool> {
        let state = self.disk.state.lock();
        Ok(state.names.files().filter(|(_, file)| **file == self.file).count() > 1)
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.run(Operation::Read, |state, entered| {
            entered?;
            let content = state.content(self.file)?;
            let left = content.length.saturating_sub(position);
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            content.read(buffer.get_mut(..count).unwrap_or_default(), position);
            Ok(count)
        })
    }

    /// A write that fails has written a part, as real ones do.
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.run(Operation::Write, |state, entered| {
            let whole = bytes.len() as u64;
            let end = position.checked_add(whole).ok_or(ErrorKind::FileTooLarge)?;
            let written = match &entered {
                Ok(()) if end <= state.content(self.file)?.length => whole,
                Ok(()) => state.room(self.file, end).saturating_sub(position).min(whole),
                Err(error) if is_refusal(error) => {
                    // What is refused is a page; those before it were written: never all.
                    let torn = position + state.random.next() % whole.max(1);
                    (torn - torn % PAGE as u64).saturating_sub(position)
                }
                Err(_) => state.random.next() % (whole + 1),
            };
            let part = bytes.get(..usize::try_from(written).unwrap_or_default());
            state.content(self.file)?.write(part.unwrap_or_default(), position);
            entered?;
            if written < whole { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
        })
    }

    /// An allocation that fails leaves what it got, as ext4 does.
    fn allocate(&self, end: u64) -> io::Result<()> {
        self.run(Operation::Allocate, |state, entered| {
            let length = state.content(self.file)?.length;
            let wanted = if entered.is_ok() { end } else { length.midpoint(end.max(length)) };
            let got = state.room(self.file, wanted);
            state.content(self.file)?.grow(got);
            entered?;
            if got.max(length) < end { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
        })
    }

    fn release(&self, range: Range<u64>) -> io::Result<()> {
        self.run(Operation::Release, |state, entered| {
            entered?;
            state.content(self.file)?.clear(range);
            Ok(())
        })
    }

    fn shorten(&self, end: u64) -> io::Result<()> {
        self.run(Operation::Shorten, |state, entered| {
            entered?;
            let content = state.content(self.file)?;
            if end < content.length {
                content.truncate(end);
            }
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.run(Operation::Sync, |state, entered| {
            let Err(error) = entered else {
                if !state.lies {
                    state.content(self.file)?.make_durable();
                }
                return Ok(());
            };
            state.lose_writes(self.file)?;
            Err(error)
        })
    }

    /// As the kernel does it: what fails is not reported to a later sync, for which the pages are
    /// clean.
    fn write_back(&self, _end: u64) -> io::Result<()> {
        self.run(Operation::WriteBack, |state, entered| {
            let Err(error) = entered else { return Ok(()) };
            state.lose_writes(self.file)?;
            Err(error)
        })
    }

    fn map(&self, capacity: usize, _access: Access) -> io::Result<Memory> {
        self.run(Operation::Map, |state, entered| {
            entered?;
            let mut memory = Memory::heap(capacity)?;
            for (start, page) in state.content(self.file)?.pages() {
                let Ok(start) = usize::try_from(start) else {
                    break;
                };
                let Some(room) = capacity.checked_sub(start) else {
                    break;
                };
                memory.fill(start, page.get(..room.min(PAGE)).unwrap_or_default())?;
            }
            Ok(memory)
        })
    }

    fn map_shows_writes(&self) -> bool {
        false
    }

    fn set_dirty(&self, _dirty: bool) {}

    fn renamed(&self, to: &Path) {
        *self.path.lock() = to.to_path_buf();
    }
}

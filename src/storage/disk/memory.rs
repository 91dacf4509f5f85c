//! A disk in the heap: the storage of a broker in memory.
//!
//! Owns the tree and each file's bytes. Must not know what they mean. A file's bytes are kept in
//! two parts: in the region that its memory became, up to where that is published, and in chunks
//! for what was written by `write_at` elsewhere (a header before the map, a footer after it).
//! Called from any thread; a file's lock is held for the copy.
//!
//! 1. Below the region's published end the region is the file, and it is not written there any more
//!    (M3).
//! 2. Chunks wholly below it are dropped, so that bytes are not kept twice for long.
//! 3. A second map does not copy what the first has published, it shows it.
//!
//! Syncs succeed and do nothing. What was stored but never published is lost with the writer.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::names::{Names, Node};
use super::{Access, Disk, DiskFile, Entry, EntryKind};
use crate::storage::region::{Adopt, Memory, Region};
use crate::sync::{LockLevel, Mutex};

/// LIMIT: headers and footers are small; a page wastes little and keeps the map of chunks short.
const CHUNK: usize = 4096;

/// Files and directories in the heap.
#[derive(Debug)]
pub(crate) struct MemoryDisk {
    names: Mutex<Names<Arc<Content>>>,
    space: Arc<Space>,
}

impl MemoryDisk {
    pub(crate) fn new() -> Self {
        Self::with_capacity_limit(u64::MAX)
    }

    /// A disk whose files are together at most `bytes` long; beyond it `StorageFull`. Space comes
    /// back when a file is removed and nobody has it open.
    pub(crate) fn with_capacity_limit(bytes: u64) -> Self {
        let space = Space { limit: bytes, used: Mutex::at_level(LockLevel::MemorySpace, 0) };
        Self {
            names: Mutex::at_level(LockLevel::MemoryNames, Names::default()),
            space: Arc::new(space),
        }
    }
}

impl Disk for MemoryDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.names.lock().insert(path, Node::Directory)
    }

    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        Ok(self.names.lock().kind(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        self.names.lock().list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.names.lock().directory(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.names.lock().rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        // Dropped after the lock: a file's end gives space back, and may free much memory.
        let removed = self.names.lock().remove_file(path)?;
        drop(removed);
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.names.lock().remove_dir(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let space = Arc::clone(&self.space);
        let content = Arc::new(Content {
            space,
            bytes: Mutex::at_level(LockLevel::MemoryBytes, Bytes::default()),
        });
        self.names.lock().insert(path, Node::File(Arc::clone(&content)))?;
        Ok(Arc::new(MemoryFile { content, access: Access::ReadWrite }))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let content = Arc::clone(self.names.lock().file(path)?);
        Ok(Arc::new(MemoryFile { content, access }))
    }

    /// Memory does not outlive a boot, nor a process.
    fn boot_id(&self) -> Option<String> {
        Some("memory".to_owned())
    }

    fn supports_mapped_writes(&self, _dir: &Path) -> bool {
        true
    }
}

#[derive(Debug)]
struct Space {
    limit: u64,
    used: Mutex<u64>,
}

impl Space {
    fn take(&self, bytes: u64) -> io::Result<()> {
        let mut used = self.used.lock();
        let after = used.checked_add(bytes).filter(|after| *after <= self.limit);
        *used = after.ok_or(ErrorKind::StorageFull)?;
        Ok(())
    }

    fn give_back(&self, bytes: u64) {
        let mut used = self.used.lock();
        *used = used.saturating_sub(bytes);
    }
}

/// A file, whatever its names and handles.
struct Content {
    space: Arc<Space>,
    bytes: Mutex<Bytes>,
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Content").field("length", &self.bytes.lock().length).finish_non_exhaustive()
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        self.space.give_back(self.bytes.lock().length);
    }
}

impl Adopt for Content {
    fn adopt(&self, region: &Arc<Region>) {
        let mut bytes = self.bytes.lock();
        // A region that shows less than the one before was made for a part of the file.
        if bytes.published() <= region.published() as u64 {
            bytes.region = Some(Arc::clone(region));
            bytes.drop_published_chunks();
        }
    }
}

#[derive(Default)]
struct Bytes {
    length: u64,
    chunks: BTreeMap<u64, Box<[u8]>>,
    region: Option<Arc<Region>>,
}

impl Bytes {
    fn published(&self) -> u64 {
        self.region.as_ref().map_or(0, |region| region.published() as u64)
    }

    /// Invariant 2. Amortised: each chunk is dropped once.
    fn drop_published_chunks(&mut self) {
        let published = self.published();
        while let Some(first) = self.chunks.first_entry() {
            if (first.key() + 1).saturating_mul(CHUNK as u64) > published {
                break;
            }
            first.remove();
        }
    }

    fn grow(&mut self, space: &Space, end: u64) -> io::Result<()> {
        if let Some(more) = end.checked_sub(self.length) {
            space.take(more)?;
            self.length = end;
        }
        Ok(())
    }

    /// Copies what is at `position`; `buffer` was cut to the file's length.
    fn read(&self, buffer: &mut [u8], position: u64) {
        buffer.fill(0);
        let end = position.saturating_add(buffer.len() as u64);
        for (number, chunk) in self.chunks.range(position / CHUNK as u64..) {
            let start = number * CHUNK as u64;
            if start >= end {
                break;
            }
            copy_overlap(buffer, position, chunk, start);
        }
        // Invariant 1: the region is laid over the chunks.
        let Some(region) = &self.region else { return };
        let shown = end.min(region.published() as u64);
        if let (Ok(from), Ok(to)) = (usize::try_from(position), usize::try_from(shown))
            && let Some(bytes) = region.bytes(from..to)
        {
            copy_overlap(buffer, position, bytes, position);
        }
    }

    fn write(&mut self, bytes: &[u8], position: u64) {
        let mut rest = bytes;
        let mut at = position;
        while !rest.is_empty() {
            let number = at / CHUNK as u64;
            let within = usize::try_from(at % CHUNK as u64).unwrap_or_default();
            let (now, later) = rest.split_at(rest.len().min(CHUNK - within));
            let chunk = self.chunks.entry(number).or_insert_with(|| vec![0; CHUNK].into());
            copy_overlap(chunk, number * CHUNK as u64, now, at);
            at = at.saturating_add(now.len() as u64);
            rest = later;
        }
    }

    fn clear(&mut self, range: Range<u64>) {
        for (number, chunk) in self.chunks.range_mut(range.start / CHUNK as u64..) {
            let start = number * CHUNK as u64;
            if start >= range.end {
                break;
            }
            let from = range.start.saturating_sub(start);
            let to = (range.end - start).min(CHUNK as u64);
            if let (Ok(from), Ok(to)) = (usize::try_from(from), usize::try_from(to)) {
                chunk.get_mut(from..to).unwrap_or_default().fill(0);
            }
        }
        self.chunks.retain(|number, _| {
            let start = number * CHUNK as u64;
            start < range.start || start + CHUNK as u64 > range.end
        });
    }
}

/// Copies the part of `source`, which lies at `source_at`, that `target`, at `target_at`, covers.
fn copy_overlap(target: &mut [u8], target_at: u64, source: &[u8], source_at: u64) {
    let (Ok(skip_target), Ok(skip_source)) = (
        usize::try_from(source_at.saturating_sub(target_at)),
        usize::try_from(target_at.saturating_sub(source_at)),
    ) else {
        return;
    };
    let target = target.get_mut(skip_target..).unwrap_or_default();
    let source = source.get(skip_source..).unwrap_or_default();
    let count = target.len().min(source.len());
    if let (Some(target), Some(source)) = (target.get_mut(..count), source.get(..count)) {
        target.copy_from_slice(source);
    }
}

#[derive(Debug)]
struct MemoryFile {
    content: Arc<Content>,
    access: Access,
}

impl MemoryFile {
    fn writable(&self) -> io::Result<()> {
        match self.access {
            Access::ReadWrite => Ok(()),
            Access::Read => Err(ErrorKind::PermissionDenied.into()),
        }
    }
}

impl DiskFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        let bytes = self.content.bytes.lock();
        Ok(bytes.length.max(bytes.published()))
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let bytes = self.content.bytes.lock();
        let left = bytes.length.max(bytes.published()).saturating_sub(position);
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        bytes.read(buffer.get_mut(..count).unwrap_or_default(), position);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.writable()?;
        let end = position.checked_add(bytes.len() as u64).ok_or(ErrorKind::FileTooLarge)?;
        let mut state = self.content.bytes.lock();
        if position < state.published() && !bytes.is_empty() {
            let reason = "written below the published end of the file's region";
            return Err(io::Error::new(ErrorKind::InvalidInput, reason));
        }
        state.drop_published_chunks();
        state.grow(&self.content.space, end)?;
        state.write(bytes, position);
        Ok(())
    }

    fn allocate(&self, end: u64) -> io::Result<()> {
        self.writable()?;
        self.content.bytes.lock().grow(&self.content.space, end)
    }

    fn release(&self, range: Range<u64>) -> io::Result<()> {
        self.writable()?;
        let mut bytes = self.content.bytes.lock();
        let start = range.start.max(bytes.published());
        if start < range.end {
            bytes.clear(start..range.end);
        }
        Ok(())
    }

    fn shorten(&self, end: u64) -> io::Result<()> {
        self.writable()?;
        let mut bytes = self.content.bytes.lock();
        if end < bytes.published() {
            let reason = "shortened below the published end of the file's region";
            return Err(io::Error::new(ErrorKind::InvalidInput, reason));
        }
        let length = bytes.length;
        if end < length {
            bytes.clear(end..length);
            bytes.length = end;
            self.content.space.give_back(length - end);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn map(&self, capacity: usize, access: Access) -> io::Result<Memory> {
        let bytes = self.content.bytes.lock();
        if let Some(region) = bytes.region.as_ref().filter(|_| access == Access::Read) {
            // Something written right behind the published end may belong to what the caller is
            // about to publish; a view could not show it.
            let mut next = [0; 16];
            bytes.read(&mut next, bytes.published());
            if next == [0; 16] {
                return Ok(Memory::view(region, capacity));
            }
        }
        // A writer gets memory of its own: the region may have one already (M2).
        let mut memory = Memory::heap(capacity)?;
        for (number, chunk) in &bytes.chunks {
            let Ok(start) = usize::try_from(number * CHUNK as u64) else {
                break;
            };
            let Some(room) = capacity.checked_sub(start) else {
                break;
            };
            memory.fill(start, chunk.get(..room.min(CHUNK)).unwrap_or_default())?;
        }
        if let Some(region) = &bytes.region
            && let Some(shown) = region.bytes(0..region.published().min(capacity))
        {
            memory.fill(0, shown)?;
        }
        Ok(memory.owned_by(Arc::clone(&self.content) as Arc<dyn Adopt>))
    }

    fn map_shows_writes(&self) -> bool {
        false
    }

    fn set_dirty(&self, _dirty: bool) {}

    fn renamed(&self, _to: &Path) {}
}

#[cfg(test)]
mod tests;

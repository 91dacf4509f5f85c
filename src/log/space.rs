//! The space of the active segment: how far its file can be written without the disk saying no.
//!
//! Two may make space at the same time: the background, ahead of the writer, and an append that
//! caught up with it. Both go through one [`Space`], whose lock is held while the disk works, so
//! that zeros are never written over what was appended meanwhile: space is made only behind
//! `ready`, and appends go only below it.
//!
//! The background may be late: the segment was rolled meanwhile, and the file ends with its footer,
//! or was removed. So a space has an end, after which no more is made.

use std::io;
use std::sync::Arc;

use super::PAGE_BYTES;
use super::budget::Claim;
use crate::storage::disk::DiskFile;
use crate::storage::region::Region;
use crate::storage::region_writer::RegionWriter;
use crate::sync::{AtomicBool, LockLevel, Mutex, Ordering};

/// LIMIT: the step in which a segment that is written through its map grows: far enough ahead that
/// the writer never waits for blocks at gigabytes per second, little enough to waste on one that
/// stays idle.
const STORES_STEP_BYTES: u64 = 2 << 20;

/// LIMIT: the same for `pwrite`, where each step is written once with zeros (about 0.1 ms): a sync
/// that comes behind it must not have much more to write than its own data.
const PWRITE_STEP_BYTES: u64 = 256 << 10;

/// LIMIT: the distance between the writer and the end of space at which more is asked for.
///
/// For stores it is what a burst can write before it has to make its own pages: with 1 MiB it was
/// the burst that waited, for most of its time (docs/performance.md).
const STORES_AHEAD_BYTES: usize = 8 << 20;
const PWRITE_AHEAD_BYTES: usize = 128 << 10;

/// Zeros are written a page at a time: ext4 makes one folio of each write, and a sync writes whole
/// folios (measured in docs/performance.md).
pub(super) static ZERO_PAGE: [u8; 4096] = [0; 4096];
const _: () = assert!(ZERO_PAGE.len() as u64 == PAGE_BYTES);

/// How bytes get into a segment's file, fixed for the segment's lifetime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writer {
    /// Stores into the shared map: no system call per append.
    Stores,
    /// `pwrite` into the file that readers map: what syncs fastest, and what a file system on
    /// which stores can fail needs.
    Pwrite,
}

#[derive(Debug)]
pub(super) struct Space {
    file: Arc<dyn DiskFile>,
    kind: Writer,
    claim: Arc<Claim>,
    /// The end of the space that may be written. Only ever rises.
    ready: Mutex<u64>,
    /// Whether the segment takes no more appends. ORDERING: set without the lock, for which the
    /// writer must not wait; a thread that then takes the lock ([`end`](Self::end)) knows that no
    /// step runs and that none begins.
    is_over: AtomicBool,
}

impl Space {
    pub(super) fn new(
        file: Arc<dyn DiskFile>,
        kind: Writer,
        claim: Arc<Claim>,
        ready: u64,
    ) -> Arc<Self> {
        let is_over = AtomicBool::new(false);
        let ready = Mutex::at_level(LockLevel::SegmentSpace, ready);
        Arc::new(Self { file, kind, claim, ready, is_over })
    }

    /// The segment takes no more appends: a step that has not begun makes nothing.
    pub(super) fn seal(&self) {
        self.is_over.store(true, Ordering::Release);
    }

    /// As [`seal`](Self::seal), and waits for the step that runs: the file is not changed here any
    /// more. Blocks for the disk.
    pub(super) fn end(&self) {
        self.seal();
        drop(self.ready.lock());
    }

    /// Where space should end so that `end` fits, from `ready` on: doubling at first, then in
    /// steps.
    pub(super) fn target(&self, ready: usize, end: usize, capacity: usize) -> u64 {
        let step = match self.kind {
            Writer::Stores => STORES_STEP_BYTES,
            Writer::Pwrite => PWRITE_STEP_BYTES,
        };
        let ready = ready as u64;
        let grown = ready.saturating_mul(2).min(ready.saturating_add(step));
        grown.max(page_ceil(end as u64)).min(capacity as u64)
    }

    /// How near to the end of space the writer may come before more is asked for. Little of a
    /// little segment: a thousand of them must stay cheap.
    #[inline]
    pub(super) fn ahead(&self, capacity: usize) -> usize {
        let ahead = match self.kind {
            Writer::Stores => STORES_AHEAD_BYTES,
            Writer::Pwrite => PWRITE_AHEAD_BYTES,
        };
        ahead.min(capacity / 8)
    }

    /// Whether the bytes go through the map.
    pub(super) fn is_stored_into(&self) -> bool {
        self.kind == Writer::Stores
    }

    /// The next step of space for a segment.
    pub(super) fn growth(self: &Arc<Self>, segment: u64, writer: &RegionWriter) -> Growth {
        let (writable, region) = (writer.writable(), Arc::clone(writer.region()));
        let target = self.target(writable, writable.saturating_add(1), region.capacity());
        Growth { segment, space: Arc::clone(self), region, target }
    }

    /// Makes space up to `target` and returns where it ends. On failure the file may be longer,
    /// and holds nothing new.
    pub(super) fn extend(&self, region: &Region, target: u64) -> io::Result<u64> {
        let mut ready = self.ready.lock();
        if *ready >= target || self.is_over.load(Ordering::Acquire) {
            return Ok(*ready);
        }
        // If the disk then says no, the file may have grown all the same; and the next attempt
        // claims no more.
        self.claim.grow_to(target)?;
        self.file.allocate(target)?;
        let end = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX).min(region.capacity());
        match self.kind {
            // Populated here, where a full or failing disk is an error; a plain store into the
            // page would find it as a signal.
            Writer::Stores => region.populate(end(*ready)..end(target))?,
            Writer::Pwrite if self.file.gains_from_prewriting() => self.prewrite(*ready, target)?,
            Writer::Pwrite => {}
        }
        *ready = target;
        Ok(target)
    }

    /// Writes zeros: the first sync of merely allocated blocks has to convert them, and takes
    /// half as long again.
    fn prewrite(&self, from: u64, target: u64) -> io::Result<()> {
        let mut position = from;
        while position < target {
            let step = PAGE_BYTES - position % PAGE_BYTES;
            let length = usize::try_from(step.min(target - position)).unwrap_or(0);
            self.file.write_at(ZERO_PAGE.get(..length).unwrap_or_default(), position)?;
            position = position.saturating_add(step);
        }
        Ok(())
    }
}

/// Space to be made ahead of the writer, without the partition's lock.
#[derive(Debug)]
pub(crate) struct Growth {
    pub(crate) segment: u64,
    space: Arc<Space>,
    region: Arc<Region>,
    target: u64,
}

impl Growth {
    /// Makes the space and returns where it ends. Blocks for the disk.
    pub(crate) fn run(&self) -> io::Result<u64> {
        self.space.extend(&self.region, self.target)
    }
}

pub(super) fn page_ceil(bytes: u64) -> u64 {
    bytes.next_multiple_of(PAGE_BYTES)
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::path::Path;
    use std::sync::mpsc;
    use std::thread;

    use super::*;
    use crate::log::budget::SpaceBudget;
    use crate::storage::disk::{Disk, MemoryDisk};

    /// What runs may still write zeros: who ends the space waits for it.
    #[test]
    fn the_end_waits_for_the_step_that_runs() {
        let file = MemoryDisk::new().create(Path::new("/file")).unwrap();
        let claim = Claim::of_file(&SpaceBudget::unlimited(), 0);
        let space = Space::new(file, Writer::Pwrite, claim, 0);
        let (ended, end) = mpsc::channel();
        thread::scope(|scope| {
            let step = space.ready.lock();
            scope.spawn(|| {
                space.end();
                ended.send(()).unwrap();
            });
            while !space.is_over.load(Ordering::Acquire) {
                thread::yield_now();
            }
            assert!(end.try_recv().is_err(), "ended over a step that runs");
            drop(step);
            end.recv().unwrap();
        });
    }
}

//! The space of the active segment: how far its file can be written without the disk saying no.
//!
//! Two may make space at the same time: the background, ahead of the writer, and an append that
//! caught up with it. Both go through one [`Space`]: a lock is held while the disk works, so that
//! zeros are never written over what was appended meanwhile: space is made only at and after `ready`,
//! and appends end below it. The writer reads `ready` without the lock, and the background reads the
//! published end without the partition's lock, so neither waits for the other while there is space.
//!
//! The background may be late: the segment was rolled meanwhile, and the file ends with its footer,
//! or was removed. So a space has an end, after which no more is made.

use std::io;
use std::sync::Arc;

use super::PAGE_BYTES;
use super::budget::Claim;
use crate::storage::disk::DiskFile;
use crate::storage::region::Region;
use crate::sync::{AtomicBool, AtomicU64, LockLevel, Mutex, Ordering};

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

/// LIMIT: what is made usable at once, and the unit in which zeros are written for stores: the file
/// systems that have large folios make one of each write, so a sync writes at most this much for a
/// record, and populating is one page fault for 64 pages. Twice as much gains nothing, and pages of
/// 2 MiB are the ones that a virtual machine has to get from its host (docs/performance.md).
pub(super) const FOLIO_BYTES: usize = 256 << 10;

/// LIMIT: what a new segment gets at first. Small, so that a thousand idle partitions cost
/// megabytes; it doubles as the segment fills.
pub(crate) const FIRST_ALLOCATION_BYTES: u64 = 64 << 10;

/// LIMIT: what a file keeps behind its data when it is shortened: room for the end mark, and for what
/// the next run appends first, also if the disk is full then. Tests have small segments.
const KEPT_BYTES: u64 = if cfg!(test) { PAGE_BYTES } else { FIRST_ALLOCATION_BYTES };

/// LIMIT: unused space for which a file is not shortened: a thousand partitions with little data must
/// not change a thousand files when they are closed.
const UNUSED_BYTES_MAX: u64 = if cfg!(test) { 0 } else { 256 << 10 };

static ZEROS: [u8; FOLIO_BYTES] = [0; FOLIO_BYTES];

/// Where appends go by `pwrite`, zeros are written a page at a time: a sync writes whole folios, and
/// each append has one (measured in docs/performance.md).
pub(super) static ZERO_PAGE: [u8; 4096] = [0; 4096];
const _: () =
    assert!(ZERO_PAGE.len() as u64 == PAGE_BYTES && FOLIO_BYTES.is_multiple_of(ZERO_PAGE.len()));

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
    /// How far the file has blocks. The lock is held while the disk works.
    allocated: Mutex<u64>,
    /// The end of the space that may be written. Only ever rises, until the space has ended.
    ///
    /// ORDERING: stored with Release by the thread that holds `allocated`, after the bytes below are
    /// allocated and populated; read with Acquire by the writer, which then stores into them.
    ready: AtomicU64,
    /// Whether the segment takes no more appends. ORDERING: set without the lock, for which the
    /// writer must not wait; a thread that then takes the lock ([`end`](Self::end)) knows that no
    /// step runs and that none begins.
    is_over: AtomicBool,
}

impl Space {
    /// Of a file of which `allocated` bytes have blocks, and `ready` can be written.
    pub(super) fn new(
        file: &Arc<dyn DiskFile>,
        kind: Writer,
        claim: &Arc<Claim>,
        allocated: u64,
        ready: u64,
    ) -> Arc<Self> {
        let (file, claim) = (Arc::clone(file), Arc::clone(claim));
        let is_over = AtomicBool::new(false);
        let allocated = Mutex::at_level(LockLevel::SegmentSpace, allocated);
        Arc::new(Self { file, kind, claim, allocated, ready: AtomicU64::new(ready), is_over })
    }

    /// The segment takes no more appends: a step that has not begun makes nothing.
    pub(super) fn seal(&self) {
        self.is_over.store(true, Ordering::Release);
    }

    /// As [`seal`](Self::seal), and waits for the step that runs: the file is not changed here any
    /// more. Blocks for the disk.
    pub(super) fn end(&self) {
        self.seal();
        drop(self.allocated.lock());
    }

    /// Whether no more space is made.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Ends the space, and gives back what the file has behind `data_end`, if it is worth it: the
    /// writer must store nothing there any more. Blocks for the disk.
    fn shorten(&self, data_end: u64) -> io::Result<()> {
        self.seal();
        let mut allocated = self.allocated.lock();
        let Some(kept) = shortened(data_end, *allocated) else { return Ok(()) };
        self.ready.fetch_min(kept, Ordering::AcqRel);
        *allocated = kept;
        self.file.shorten(kept)?;
        self.claim.shrink_to(kept);
        Ok(())
    }

    /// As if a step ran, until this is dropped.
    #[cfg(test)]
    pub(super) fn hold(&self) -> crate::sync::MutexGuard<'_, u64> {
        self.allocated.lock()
    }

    /// The end of the space that may be written.
    #[inline]
    pub(super) fn ready(&self) -> usize {
        usize::try_from(self.ready.load(Ordering::Acquire)).unwrap_or(usize::MAX)
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

    /// From which position on a writer has come near the end of the space there is. Only ever rises,
    /// as that end does.
    pub(super) fn near_from(&self, capacity: usize) -> usize {
        let ready = self.ready();
        if ready >= capacity {
            return usize::MAX;
        }
        let least = self.ahead(capacity).min(ready / 2);
        ready.saturating_sub(least).saturating_add(1)
    }

    /// Whether the bytes go through the map.
    pub(super) fn is_stored_into(&self) -> bool {
        self.kind == Writer::Stores
    }

    /// Makes space up to `end`, and a little more if the disk has it. On failure the file may be
    /// longer, and holds nothing new. Blocks for the disk.
    pub(super) fn extend_to(&self, region: &Region, end: u64) -> io::Result<()> {
        let capacity = region.capacity() as u64;
        if end > capacity {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut allocated = self.allocated.lock();
        while !self.is_over() && self.ready.load(Ordering::Acquire) < end {
            if *allocated < end {
                let target = self.target(*allocated, end, capacity);
                let least = page_ceil(end).min(capacity);
                match self.allocate(&mut allocated, target) {
                    // Less than the whole step may still be there for the taking.
                    Err(error) if error.kind() == io::ErrorKind::StorageFull && target > least => {
                        self.allocate(&mut allocated, least)?;
                    }
                    other => other?,
                }
            }
            self.make_ready(region, *allocated)?;
        }
        Ok(())
    }

    /// Makes the next [`FOLIO_BYTES`] of space, or less at the end of the file. Blocks for the disk.
    fn advance(&self, region: &Region) -> io::Result<()> {
        let mut allocated = self.allocated.lock();
        let (ready, capacity) = (self.ready.load(Ordering::Acquire), region.capacity() as u64);
        if self.is_over() || ready >= capacity {
            return Ok(());
        }
        if *allocated <= ready {
            let target = self.target(*allocated, ready.saturating_add(1), capacity);
            self.allocate(&mut allocated, target)?;
        }
        self.make_ready(region, *allocated)
    }

    /// Up to where the file gets blocks so that `end` fits: doubling at first, then in steps that end
    /// at multiples of a step.
    fn target(&self, allocated: u64, end: u64, capacity: u64) -> u64 {
        let step = match self.kind {
            Writer::Stores => STORES_STEP_BYTES,
            Writer::Pwrite => PWRITE_STEP_BYTES,
        };
        let grown = allocated.saturating_mul(2).min(allocated.saturating_add(step));
        let whole = if grown > step { grown - grown % step } else { grown };
        whole.max(page_ceil(end)).min(capacity)
    }

    fn allocate(&self, allocated: &mut u64, target: u64) -> io::Result<()> {
        // If the disk then says no, the file may have grown all the same; and the next attempt
        // claims no more.
        self.claim.grow_to(target)?;
        self.file.allocate(target)?;
        *allocated = target;
        Ok(())
    }

    /// Makes the next folio of what is allocated usable. Called with the lock held.
    fn make_ready(&self, region: &Region, allocated: u64) -> io::Result<()> {
        let ready = self.ready.load(Ordering::Acquire);
        let end = ready.saturating_add(1).next_multiple_of(ZEROS.len() as u64).min(allocated);
        let (stores, gains) = (self.is_stored_into(), self.file.gains_from_prewriting());
        if gains {
            let zeros: &[u8] = if stores { &ZEROS } else { &ZERO_PAGE };
            self.prewrite(zeros, ready, end)?;
        }
        if stores {
            // Populated here, where a full or failing disk is an error; a plain store into the
            // page would find it as a signal.
            let at = |bytes| usize::try_from(bytes).unwrap_or(usize::MAX).min(region.capacity());
            region.populate(at(ready)..at(end))?;
        }
        self.ready.store(end, Ordering::Release);
        Ok(())
    }

    /// Writes zeros, in pieces that end at multiples of the length of `zeros`. The first sync of
    /// blocks that are merely allocated has to convert them, and takes half as long again; and a
    /// write makes larger folios than a page fault does.
    fn prewrite(&self, zeros: &[u8], from: u64, end: u64) -> io::Result<()> {
        let unit = (zeros.len() as u64).max(1);
        let mut position = from;
        while position < end {
            let step = (unit - position % unit).min(end - position);
            let length = usize::try_from(step).unwrap_or(0);
            self.file.write_at(zeros.get(..length).unwrap_or_default(), position)?;
            position = position.saturating_add(step);
        }
        Ok(())
    }
}

/// Space behind the end of a file to be given back, without the partition's lock.
#[derive(Debug)]
#[must_use = "the file is shortened by `run`"]
pub(crate) struct Shortening {
    space: Arc<Space>,
    region: Arc<Region>,
}

impl Shortening {
    /// For a segment whose writer stores nothing behind its published end any more.
    pub(super) fn new(space: &Arc<Space>, region: &Arc<Region>) -> Self {
        Self { space: Arc::clone(space), region: Arc::clone(region) }
    }

    /// Shortens the file. Blocks for the disk.
    pub(crate) fn run(self) -> io::Result<()> {
        self.space.shorten(self.region.published() as u64)
    }
}

/// Space to be made ahead of the writer, without the partition's lock.
#[derive(Debug)]
pub(crate) struct Growth {
    space: Arc<Space>,
    region: Arc<Region>,
    /// How much there must be at least, however far the writer is.
    least: usize,
}

impl Growth {
    /// For a segment that has a writer, or will have one that begins with a burst of `least` bytes.
    pub(super) fn new(space: &Arc<Space>, region: &Arc<Region>, least: usize) -> Self {
        Self { space: Arc::clone(space), region: Arc::clone(region), least }
    }

    /// Whether it is for the segment that comes next.
    #[cfg(test)]
    pub(super) fn is_for_next(&self) -> bool {
        self.least > 0
    }

    /// Makes space until there is twice as much as is too little, so that it is not asked for again
    /// at once; and returns after at most as many steps, for others wait for space, too. Blocks for
    /// the disk.
    pub(crate) fn run(&self) -> io::Result<()> {
        let capacity = self.region.capacity();
        let ahead = self.space.ahead(capacity);
        let most = self.space.ready().saturating_add(ahead.saturating_mul(2));
        while self.is_wanted(ahead.saturating_mul(2)) && self.space.ready() < most {
            self.space.advance(&self.region)?;
        }
        Ok(())
    }

    /// Whether less than `ahead` is left for the writer, or than there must be.
    fn is_wanted(&self, ahead: usize) -> bool {
        let (ready, capacity) = (self.space.ready(), self.region.capacity());
        let left = ready.saturating_sub(self.region.published());
        let is_little = left < ahead.min(ready / 2) || ready < self.least;
        !self.space.is_over() && ready < capacity && is_little
    }
}

/// What a file of `length` bytes that takes no more appends, or none in this run, is shortened to, if
/// that is worth it: not to its data, which ends at `data_end`, since a file that ends there without
/// an end mark was shortened by another program.
pub(super) fn shortened(data_end: u64, length: u64) -> Option<u64> {
    let kept = page_ceil(data_end).saturating_add(KEPT_BYTES);
    (length > kept.saturating_add(UNUSED_BYTES_MAX)).then_some(kept)
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
    use crate::storage::region::Memory;

    fn region(capacity: usize, published: usize) -> Arc<Region> {
        Region::sealed(Memory::heap(capacity).unwrap(), published).unwrap()
    }

    fn space(kind: Writer, ready: u64) -> (Arc<dyn DiskFile>, Arc<Space>) {
        let file = MemoryDisk::new().create(Path::new("/file")).unwrap();
        file.allocate(ready).unwrap();
        let claim = Claim::of_file(&SpaceBudget::unlimited(), ready);
        (Arc::clone(&file), Space::new(&file, kind, &claim, ready, ready))
    }

    /// Blocks are allocated in steps, and become ready a folio at a time: a writer that catches up
    /// waits for one folio at most.
    #[test]
    fn space_grows_by_steps_and_becomes_ready_by_folios() {
        let region = region(16 << 20, 0);
        let (file, space) = space(Writer::Stores, 64 << 10);
        let mut seen = Vec::new();
        while space.ready() < 5 << 20 {
            space.advance(&region).unwrap();
            seen.push((space.ready() >> 10, file.len().unwrap() >> 10));
        }
        let first = [(128, 128), (256, 256), (512, 512), (768, 1024), (1024, 1024), (1280, 2048)];
        assert_eq!(seen[..6], first);
        let lengths: Vec<u64> = seen.iter().map(|(_, length)| *length).collect();
        assert!(lengths[9..].iter().all(|length| length % 2048 == 0), "{lengths:?}");
        // More than a step at once is made at once, and no further.
        space.extend_to(&region, (9 << 20) + 1).unwrap();
        assert_eq!(file.len().unwrap(), (9 << 20) + 4096);
        assert_eq!(space.ready(), (9 << 20) + 4096);
        assert!(space.extend_to(&region, (16 << 20) + 1).is_err(), "more than a segment can have");
    }

    /// Asked for as soon as there is too little, the background would make one folio for each
    /// request, and take the partition's lock each time.
    #[test]
    fn growth_makes_twice_as_much_as_is_too_little() {
        let position = 20 << 20;
        let region = region(64 << 20, position);
        let (_, space) = space(Writer::Stores, 24 << 20);
        assert!(position >= space.near_from(region.capacity()));
        let growth = Growth::new(&space, &region, 0);
        growth.run().unwrap();
        let made = space.ready();
        assert_eq!(made, position + 2 * STORES_AHEAD_BYTES);
        assert!(position + STORES_AHEAD_BYTES < space.near_from(region.capacity()));
        growth.run().unwrap();
        assert_eq!(space.ready(), made, "enough is left");
        space.seal();
        Growth::new(&space, &region, usize::MAX).run().unwrap();
        assert_eq!(space.ready(), made, "a sealed segment gets no more");
    }

    /// What runs may still write zeros: who ends the space waits for it.
    #[test]
    fn the_end_waits_for_the_step_that_runs() {
        let file = MemoryDisk::new().create(Path::new("/file")).unwrap();
        let claim = Claim::of_file(&SpaceBudget::unlimited(), 0);
        let space = Space::new(&file, Writer::Pwrite, &claim, 0, 0);
        let (ended, end) = mpsc::channel();
        thread::scope(|scope| {
            let step = space.allocated.lock();
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

//! The segment that takes appends: its writer, its growing file and its index so far.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::create::{Prepared, Writer, make_writable};
use super::segment::{Sealed, Segment};
use crate::error::{Error, Result};
use crate::format::{SparseIndex, TimeRange};
use crate::storage::disk::DiskFile;
use crate::storage::region::{Region, RegionWriter};

/// LIMIT: the step in which a large segment grows: far enough ahead that the writer never waits
/// for blocks at gigabytes per second, small enough to waste little on a segment that stays idle.
const GROWTH_STEP_BYTES: u64 = 2 << 20;

/// The distance between the writer and the end of usable space at which more is asked for.
const AHEAD_BYTES: usize = 1 << 20;

pub(crate) struct Active {
    pub(crate) segment: Arc<Segment>,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) kind: Writer,
    writer: RegionWriter,
    /// Where the next batch goes; equal to the region's published position.
    pub(crate) position: usize,
    allocated: u64,
    pub(crate) index: SparseIndex,
    /// Whether `index` covers the segment from its start; after a reopen it begins later.
    pub(crate) index_is_whole: bool,
    pub(crate) times: Option<TimeRange>,
    pub(crate) last_batch: usize,
    /// Whether bytes were published that no sync has been asked to cover.
    pub(crate) dirty: bool,
}

impl Active {
    /// Takes over a prepared segment, of which only the header is written, or a clean one.
    pub(crate) fn new(segment: Arc<Segment>, prepared: Prepared, position: usize) -> Self {
        let index = SparseIndex::new(segment.base_offset);
        Self {
            segment,
            file: prepared.file,
            kind: prepared.kind,
            writer: prepared.writer,
            position,
            allocated: prepared.allocated,
            index,
            index_is_whole: true,
            times: None,
            last_batch: 0,
            dirty: false,
        }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.writer.region().capacity()
    }

    pub(crate) fn region(&self) -> &Arc<Region> {
        self.writer.region()
    }

    /// Makes space for bytes up to `end`, which is within the capacity. On failure nothing is
    /// written and what is there stays as it was.
    pub(crate) fn reserve(&mut self, end: usize) -> Result<()> {
        if end <= self.writer.writable() {
            return Ok(());
        }
        let target = self.growth_target(end);
        let grown = grow(&*self.file, self.region(), target, self.writer.writable(), self.kind);
        let grown = match grown {
            // Less than the whole step may still be there for the taking.
            Err(error) if error.kind() == io::ErrorKind::StorageFull && target > end as u64 => {
                let least = page_ceil(end as u64).min(self.capacity() as u64);
                grow(&*self.file, self.region(), least, self.writer.writable(), self.kind)
                    .map(|()| least)
            }
            other => other.map(|()| target),
        };
        let path: &Path = &self.segment.path;
        let target = grown.map_err(|source| Error::io("grow", path, source))?;
        self.grown_to(target);
        Ok(())
    }

    /// Where the file should end so that `end` fits: doubling at first, then in steps.
    fn growth_target(&self, end: usize) -> u64 {
        let doubled = self.allocated.saturating_mul(2);
        let stepped = self.allocated.saturating_add(GROWTH_STEP_BYTES);
        doubled.min(stepped).max(page_ceil(end as u64)).min(self.capacity() as u64)
    }

    /// Whether the writer has come near the end of the space it has.
    #[inline]
    pub(crate) fn is_near_end(&self) -> bool {
        let writable = self.writer.writable();
        let left = writable.saturating_sub(self.position);
        left < AHEAD_BYTES.min(writable / 2) && writable < self.capacity()
    }

    /// More space, if the writer has come near the end of what it has.
    pub(crate) fn growth_wish(&self) -> Option<Growth> {
        let writable = self.writer.writable();
        self.is_near_end().then(|| Growth {
            segment: self.segment.number,
            file: Arc::clone(&self.file),
            region: Arc::clone(self.region()),
            from: writable,
            target: self.growth_target(writable.saturating_add(1)),
            kind: self.kind,
        })
    }

    pub(crate) fn grown_to(&mut self, target: u64) {
        self.allocated = self.allocated.max(target);
        let end = usize::try_from(target).unwrap_or(usize::MAX).min(self.capacity());
        if end > self.writer.writable() {
            self.writer.set_writable(end);
        }
    }

    /// Writes a finished batch behind the published end and publishes it.
    #[inline]
    pub(crate) fn append(&mut self, batch: &[u8]) -> Result<()> {
        let end = self.position.saturating_add(batch.len());
        if let Err(source) = self.writer.write(self.position, batch) {
            return Err(Error::io("write", &self.segment.path, source));
        }
        if !self.dirty {
            self.dirty = true;
            self.file.set_dirty(true);
        }
        self.last_batch = self.position;
        self.position = end;
        self.writer.publish(end);
        Ok(())
    }

    pub(crate) fn sealed(&self, next_offset: u64) -> Sealed {
        Sealed {
            data_end: u32::try_from(self.position).unwrap_or(u32::MAX),
            next_offset,
            times: self.times,
        }
    }
}

impl std::fmt::Debug for Active {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Active")
            .field("segment", &self.segment)
            .field("position", &self.position)
            .field("allocated", &self.allocated)
            .finish_non_exhaustive()
    }
}

/// Space to be made ahead of the writer, without the partition's lock.
#[derive(Debug)]
pub(crate) struct Growth {
    pub(crate) segment: u64,
    file: Arc<dyn DiskFile>,
    region: Arc<Region>,
    from: usize,
    pub(crate) target: u64,
    kind: Writer,
}

impl Growth {
    /// Allocates and populates. Blocks for the disk.
    pub(crate) fn run(&self) -> io::Result<()> {
        grow(&*self.file, &self.region, self.target, self.from, self.kind)
    }
}

fn grow(
    file: &dyn DiskFile,
    region: &Region,
    target: u64,
    from: usize,
    kind: Writer,
) -> io::Result<()> {
    file.allocate(target)?;
    let end = usize::try_from(target).unwrap_or(usize::MAX).min(region.capacity());
    if kind == Writer::Stores && from < end {
        // Populated here, where a full or failing disk is an error; a plain store into the page
        // would find it as a signal.
        region.populate(from..end)?;
    }
    Ok(())
}

fn page_ceil(bytes: u64) -> u64 {
    bytes.next_multiple_of(super::PAGE_BYTES)
}

/// A segment that was closed cleanly and takes appends again where it ended.
pub(crate) fn reopen(
    segment: Arc<Segment>,
    file: Arc<dyn DiskFile>,
    mut writer: RegionWriter,
    kind: Writer,
    position: usize,
) -> io::Result<Active> {
    let allocated = file.len()?;
    // Only a little is populated at once: opening a thousand partitions must stay cheap.
    let first = page_ceil(position as u64).saturating_add(super::create::FIRST_ALLOCATION_BYTES);
    make_writable(&mut writer, first.min(allocated), kind)?;
    let index = SparseIndex::new(segment.base_offset);
    Ok(Active {
        segment,
        file,
        kind,
        writer,
        position,
        allocated,
        index,
        index_is_whole: false,
        times: None,
        last_batch: 0,
        dirty: false,
    })
}

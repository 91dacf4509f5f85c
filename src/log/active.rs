//! The segment that takes appends: its writer, its growing file and its index so far.
//!
//! Owns: the one writer of the segment's file, and how far the file can be written without the disk
//! refusing. Must not know: which offset comes next, other segments, when a sync runs.
//!
//! Invariants; [`check`](Active::check) holds them:
//! 1. `synced_end <= position <= capacity`.
//! 2. `position` is what the region has published: readers see every batch, and nothing behind.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::create::{Prepared, Writer, make_writable};
use super::segment::{Sealed, Segment};
use super::space::{FOLIO_BYTES, Growth, Shortening, Space, page_ceil};
use super::tasks::SyncFile;
use crate::clock::Moment;
use crate::error::{Error, Result};
use crate::format::{SegmentHeader, SparseIndex, TimeRange, Unsealed};
use crate::storage::disk::DiskFile;
use crate::storage::region::Region;
use crate::storage::region_writer::RegionWriter;

/// LIMIT: the unit in which pages are made storable again after a sync: a folio, since the kernel
/// gives and takes the right to store for a whole one.
const RESTORED_BYTES: usize = FOLIO_BYTES;

/// What the batches of a segment hold, as far as it is kept in memory.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) index: SparseIndex,
    /// Whether `index` covers the segment from its start; after a reopen it may begin later.
    pub(crate) index_is_whole: bool,
    pub(crate) times: Option<TimeRange>,
    /// When the first record was appended.
    pub(crate) began: Option<Moment>,
    /// The position of the last batch.
    pub(crate) last_batch: usize,
}

impl Contents {
    /// Of a segment whose batches from `base_offset` on are not known, or which has none.
    pub(crate) fn new(base_offset: u64, index_is_whole: bool) -> Self {
        let index = SparseIndex::new(base_offset);
        Self { index, index_is_whole, times: None, began: None, last_batch: 0 }
    }
}

/// How a batch gets into the segment's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// As the segment's [`Writer`] says.
    AsUsual,
    /// By a write to the file, also if the segment is stored into: for a caller that syncs right
    /// after it. The sync then writes the batch's pages, and not a folio (docs/performance.md).
    ToFile,
}

/// After how many bytes a writer that is near an end looks again, at most.
const LOOK_AGAIN_BYTES: usize = 4 << 10;

/// What a segment takes note of for a batch of records.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchTimes {
    pub(crate) base_timestamp: u64,
    pub(crate) max_timestamp: u64,
    /// From when the age of its records counts.
    pub(crate) age: Moment,
    pub(crate) appended: Moment,
}

/// A segment that was sealed, and what its footer will say of it.
#[derive(Debug)]
pub(crate) struct SealedActive {
    pub(crate) file: SyncFile,
    pub(crate) is_synced: bool,
    pub(crate) contents: Contents,
}

pub(crate) struct Active {
    segment: Arc<Segment>,
    file: Arc<dyn DiskFile>,
    writer: RegionWriter,
    /// Where the next batch goes.
    position: usize,
    space: Arc<Space>,
    /// Up to here the pages can be stored into. A sync takes that right away from what it wrote.
    storable: usize,
    /// From this position on the writer looks whether it is near the end of its space or segment.
    look_from: usize,
    contents: Contents,
    /// Up to here a sync has returned.
    synced_end: usize,
    /// Whether the file was marked dirty since the last sync began.
    announced: bool,
}

impl Active {
    /// Takes over a prepared segment, of which only the header is written.
    pub(crate) fn begin(segment: Arc<Segment>, prepared: Prepared) -> Self {
        let contents = Contents::new(segment.base_offset, true);
        let Prepared { file, writer, space, .. } = prepared;
        Self::new(segment, file, writer, SegmentHeader::SIZE, space, contents)
    }

    /// Takes over a prepared segment whose first batches are written and synced: up to `position`,
    /// the last of them at `last_batch`.
    #[cfg(feature = "replication")]
    pub(crate) fn begun(
        segment: Arc<Segment>,
        prepared: Prepared,
        position: usize,
        last_batch: usize,
    ) -> Self {
        let contents = Contents { last_batch, ..Contents::new(segment.base_offset, true) };
        let Prepared { file, writer, space, .. } = prepared;
        Self::new(segment, file, writer, position, space, contents)
    }

    /// Takes over a segment of an earlier run, which takes appends again where it ended.
    pub(crate) fn resume(
        segment: Arc<Segment>,
        file: Arc<dyn DiskFile>,
        mut writer: RegionWriter,
        kind: Writer,
        position: usize,
        contents: Contents,
    ) -> io::Result<Self> {
        let allocated = file.len()?;
        // Only a little is populated at once: opening a thousand partitions must stay cheap.
        let first =
            page_ceil(position as u64).saturating_add(super::create::FIRST_ALLOCATION_BYTES);
        make_writable(&mut writer, first.min(allocated), kind)?;
        let ready = writer.writable() as u64;
        let space = Space::new(&file, kind, &segment.claim, allocated.max(ready), ready);
        Ok(Self::new(segment, file, writer, position, space, contents))
    }

    fn new(
        segment: Arc<Segment>,
        file: Arc<dyn DiskFile>,
        writer: RegionWriter,
        position: usize,
        space: Arc<Space>,
        contents: Contents,
    ) -> Self {
        segment.set_space(&space);
        Self {
            segment,
            file,
            writer,
            position,
            space,
            storable: usize::MAX,
            look_from: 0,
            contents,
            synced_end: position,
            announced: false,
        }
    }

    #[inline]
    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    #[inline]
    pub(crate) fn position(&self) -> usize {
        self.position
    }

    pub(crate) fn contents(&self) -> &Contents {
        &self.contents
    }

    #[inline]
    pub(crate) fn capacity(&self) -> usize {
        self.writer.region().capacity()
    }

    /// The index of what an opening has read of the segment.
    pub(crate) fn set_index(&mut self, index: SparseIndex, is_whole: bool) {
        (self.contents.index, self.contents.index_is_whole) = (index, is_whole);
    }

    /// No sync of this run has covered anything but the header.
    pub(crate) fn set_unsynced(&mut self) {
        self.synced_end = SegmentHeader::SIZE;
    }

    fn region(&self) -> &Arc<Region> {
        self.writer.region()
    }

    /// Makes space for bytes up to `end`, which is within the capacity. On failure nothing is
    /// written and what is there stays as it was.
    pub(crate) fn reserve(&mut self, end: usize, way: Way) -> Result<()> {
        if end <= self.writer.writable().min(self.storable) {
            return Ok(());
        }
        if end > self.writer.writable() {
            self.extend(end)?;
        }
        match way {
            Way::AsUsual => self.restore_stores(end),
            // Restored, the pages would be dirty: the sync would write the whole folio.
            Way::ToFile => Ok(()),
        }
    }

    /// Gets the right to store back that the last sync took, for what comes next: the same faults
    /// that the stores would have, in one call, and with an error where they would have a signal.
    #[cold]
    fn restore_stores(&mut self, end: usize) -> Result<()> {
        // A sync takes the right from all that the background has made, so also from what the writer
        // does not know to be writable yet.
        let until = end.next_multiple_of(RESTORED_BYTES).min(self.writer.writable());
        if self.space.is_stored_into() && self.storable < until {
            // What was written to the file since needs no right to store any more.
            let from = self.storable.max(self.position);
            let failed = |source| Error::io("populate", &self.segment.path, source);
            self.region().populate(from..until).map_err(failed)?;
            self.storable = until;
        }
        Ok(())
    }

    #[cold]
    fn extend(&mut self, end: usize) -> Result<()> {
        if self.space.is_over() {
            return Err(Error::Closed);
        }
        if end > self.space.ready() {
            let path: &Path = &self.segment.path;
            let failed = |source| Error::io("grow", path, source);
            self.space.extend_to(self.region(), end as u64).map_err(failed)?;
        }
        self.writer.set_writable(self.space.ready());
        Ok(())
    }

    /// Nothing is appended any more in this run: the space behind the end can be given back.
    pub(crate) fn end_space(&mut self) -> Shortening {
        self.space.seal();
        // Before the file is shorter: a store beyond its end would be a signal.
        self.writer.end_stores();
        Shortening::new(&self.space, self.region())
    }

    /// Whether the writer has come near the end of the space it has, or of the segment. Asked after
    /// each append, so most often it only compares two numbers. Near an end it looks again after a
    /// few appends: it asks for work that is needed much later, and has been asked for already.
    #[inline]
    pub(crate) fn is_near_either(&mut self) -> bool {
        self.position >= self.look_from && self.look_ahead()
    }

    #[cold]
    fn look_ahead(&mut self) -> bool {
        let capacity = self.capacity();
        let ahead = self.space.ahead(capacity);
        let roll_from = capacity.saturating_sub(ahead).saturating_add(1);
        let near_from = self.space.near_from(capacity).min(roll_from);
        let is_near = self.position >= near_from;
        let again = self.position.saturating_add((ahead / 16).min(LOOK_AGAIN_BYTES));
        self.look_from = if is_near { again } else { near_from };
        is_near
    }

    /// Whether the writer has come near the end of the space it has.
    pub(crate) fn is_near_end(&self) -> bool {
        self.position >= self.space.near_from(self.capacity())
    }

    /// More space, if the writer has come near the end of what it has.
    pub(crate) fn growth_needed(&self) -> Option<Growth> {
        self.is_near_end().then(|| Growth::new(&self.space, self.region(), 0))
    }

    /// Whether the next segment will be needed so soon that it should have space for a burst.
    #[inline]
    pub(crate) fn is_near_roll(&self) -> bool {
        self.capacity().saturating_sub(self.position) < self.space.ahead(self.capacity())
    }

    /// Appends a batch of records.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "one call per record, also where the feature `replication` adds a caller"
    )]
    pub(crate) fn append(
        &mut self,
        batch: Unsealed<'_>,
        base_offset: u64,
        times: &BatchTimes,
        way: Way,
    ) -> Result<()> {
        let at = u32::try_from(self.position).unwrap_or(u32::MAX);
        let length = batch.bytes.len();
        let size = u32::try_from(length).unwrap_or(u32::MAX);
        let written = match way {
            Way::AsUsual => {
                let (bytes, checksum) = (batch.bytes, batch.checksum);
                self.writer.write_with(self.position, bytes, Unsealed::CHECKSUM_AT, checksum)
            }
            Way::ToFile => self.writer.write_to_file(self.position, batch.seal()),
        };
        self.publish(length, written)?;
        let contents = &mut self.contents;
        contents.began.get_or_insert(times.appended);
        TimeRange::note(&mut contents.times, times.base_timestamp, times.max_timestamp, times.age);
        contents.index.note_batch(base_offset, at, size, times.max_timestamp);
        Ok(())
    }

    /// Appends the opening batch, for which space is made.
    pub(crate) fn append_opening(&mut self, batch: &[u8]) -> Result<()> {
        self.reserve(self.position.saturating_add(batch.len()), Way::AsUsual)?;
        let written = self.writer.write(self.position, batch);
        self.publish(batch.len(), written)
    }

    /// Publishes a batch of `length` bytes, if it was written behind the published end.
    #[inline]
    fn publish(&mut self, length: usize, written: io::Result<()>) -> Result<()> {
        let end = self.position.saturating_add(length);
        if let Err(source) = written {
            return Err(Error::io("write", &self.segment.path, source));
        }
        if !self.announced {
            self.announced = true;
            self.file.set_dirty(true);
        }
        self.contents.last_batch = self.position;
        self.position = end;
        self.writer.publish(end);
        debug_assert_eq!(self.check(), Ok(()));
        Ok(())
    }

    /// The file, for a sync of what is published now; `None` where a sync has covered all of it.
    pub(crate) fn begin_sync(&mut self) -> Option<SyncFile> {
        if self.is_synced() {
            return None;
        }
        // What is published from here on belongs to the next sync.
        self.announced = false;
        let (segment, file) = (Arc::clone(&self.segment), Arc::clone(&self.file));
        Some(SyncFile { segment, file, end: self.position })
    }

    /// Whether a sync has returned that covers all that is published.
    pub(crate) fn is_synced(&self) -> bool {
        self.synced_end >= self.position
    }

    /// Takes note of a sync that covered `[.., end)`.
    pub(crate) fn synced_to(&mut self, end: usize) {
        self.synced_end = self.synced_end.max(end);
        debug_assert_eq!(self.check(), Ok(()));
        if self.space.is_stored_into() {
            self.storable = self.position;
        }
        if self.announced {
            // The sync has made the file forget the stores that came while it ran.
            self.file.set_dirty(true);
        }
    }

    /// Marks the end of the segment: nothing is appended to it any more.
    pub(crate) fn seal(self, next_offset: u64) -> SealedActive {
        self.space.seal();
        let data_end = u32::try_from(self.position).unwrap_or(u32::MAX);
        self.segment.seal(Sealed { data_end, next_offset, times: self.contents.times });
        let is_synced = self.is_synced();
        let file = SyncFile { segment: self.segment, file: self.file, end: self.position };
        SealedActive { file, is_synced, contents: self.contents }
    }

    /// What is wrong, if anything: the invariants.
    fn check(&self) -> std::result::Result<(), &'static str> {
        if self.synced_end > self.position || self.position > self.capacity() {
            return Err("the synced end, the position and the capacity are out of order");
        }
        if self.region().published() != self.position {
            return Err("the position is not what readers see");
        }
        Ok(())
    }
}

impl std::fmt::Debug for Active {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Active")
            .field("segment", &self.segment)
            .field("position", &self.position)
            .field("space", &self.space)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;

//! Reads forward: a cursor is a position in a partition that moves over its segments.
//!
//! A cursor takes no lock that an appender takes. Each batch is checked (checksum and structure)
//! before it is returned, so iterating over the result of [`Cursor::fetch`] cannot fail.
//!
//! Invariants, at every return:
//! 1. `next_offset` is the offset of the next record to return; it never decreases.
//! 2. `position` is the start of the batch that holds it, or the end of the bytes that were read.
//! 3. No record below `next_offset` is returned twice, and none is skipped without a report.
//! 4. Bytes are read only from the cursor's segment, by a file name that is never used again. If
//!    compaction has replaced that segment, a cursor that has it mapped reads it to the end;
//!    otherwise the cursor finds its position anew, by offset.

use std::sync::Arc;

use super::chunk::{CHUNK_BYTES, ChunkReader};
use super::damage;
use super::locate::position_of_offset;
use super::read_ahead::{Ahead, ReadAhead};
use super::segment::{Sealed, Segment, SegmentList, Window};
use crate::error::{CorruptionKind, Error, Result};
use crate::format::{BatchHeader, BatchView, SegmentHeader, SegmentKey};
use crate::message::CheckedRange;
use crate::record::TopicPartition;
use crate::storage::disk::Access;
use crate::storage::region::Region;

/// How much one fetch may return. At least one record is returned whatever the byte limit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FetchLimits {
    pub(crate) records: usize,
    pub(crate) bytes: usize,
    /// Only offsets below this are visible.
    pub(crate) visible_end: u64,
}

pub(crate) struct Cursor {
    segment: Arc<Segment>,
    window: Window,
    position: usize,
    next_offset: u64,
    /// The start of the one batch that may hold records below `next_offset`: a reader may begin in
    /// its middle, or have read a part of it before. All other batches begin at `next_offset` or
    /// above.
    entry: usize,
    /// Up to here the bytes were checked by an earlier fetch that did not take all of a batch.
    checked_end: usize,
    ahead: ReadAhead,
}

/// What a fetch collects.
#[derive(Debug, Default)]
pub(crate) struct Fetched {
    pub(crate) ranges: Vec<CheckedRange>,
    pub(crate) records: usize,
    pub(crate) bytes: usize,
    /// A batch was not taken because it exceeds the byte limit.
    pub(crate) is_cut: bool,
    /// What the next fetches need from the disk.
    pub(crate) ahead: Vec<Ahead>,
}

impl Fetched {
    fn is_full(&self, limits: &FetchLimits) -> bool {
        self.records >= limits.records || (self.bytes >= limits.bytes && self.records > 0)
    }
}

impl Cursor {
    /// A cursor in `segment` at `position`, which is the start of a batch at or before the one that
    /// holds `offset`. Batches before `offset` are skipped by their headers alone.
    pub(crate) fn new(segment: Arc<Segment>, position: usize, offset: u64) -> Result<Self> {
        let window = segment.window(position)?;
        let (entry, checked_end, ahead) = (position, 0, ReadAhead::at(position));
        let mut cursor =
            Self { segment, window, position, next_offset: offset, entry, checked_end, ahead };
        cursor.pass_batches_before(offset)?;
        cursor.entry = cursor.position;
        cursor.ahead = ReadAhead::at(cursor.position);
        Ok(cursor)
    }

    pub(crate) fn next_offset(&self) -> u64 {
        self.next_offset
    }

    /// Adds what can be read now to `fetched`, up to the limits.
    ///
    /// # Errors
    ///
    /// [`Corrupt`](crate::Error::Corrupt) when the very next records are damaged or missing, and
    /// [`OffsetOutOfRange`](crate::Error::OffsetOutOfRange) when retention has removed them. If
    /// records were read before an error, they are returned, and the next fetch returns the error.
    pub(crate) fn fetch(
        &mut self,
        segments: &SegmentList,
        limits: &FetchLimits,
        fetched: &mut Fetched,
    ) -> Result<()> {
        let had = fetched.records;
        loop {
            if self.position >= self.ahead.due() && self.window.live {
                self.look_ahead(segments, fetched);
            }
            let moved = match self.fetch_window(limits, fetched) {
                Ok(Stop::Limit) => return Ok(()),
                Ok(Stop::WindowEnd) => self.advance_window(segments, limits),
                Err(kind) => self.pass_damage(kind, limits),
            };
            // An error in a segment that is no longer in the log, or after it, means only that
            // compaction has replaced the segment or retention has removed it.
            let moved = match moved {
                Err(_) if !segments.contains(&self.segment) => self.find_again(segments, limits),
                moved => moved,
            };
            match moved {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(_) if fetched.records > had => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Has what comes next read from the disk, unless it is in memory. A hint: a failure is found
    /// when the bytes are needed.
    #[cold]
    fn look_ahead(&mut self, segments: &SegmentList, fetched: &mut Fetched) {
        let region = &self.window.region;
        let (own, next) = self.ahead.look(self.position, region.published());
        fetched.ahead.extend(Ahead::of(region, own));
        let following = || segments.after(&self.segment)?.window(0).ok().filter(|it| it.live);
        if !next.is_empty()
            && let Some(window) = following()
        {
            fetched.ahead.extend(Ahead::of(&window.region, next));
        }
    }

    /// Reads to the end of the window, to where it is time to look ahead, or to a limit.
    fn fetch_window(
        &mut self,
        limits: &FetchLimits,
        fetched: &mut Fetched,
    ) -> Result<Stop, CorruptionKind> {
        let (region, base) = (Arc::clone(&self.window.region), self.window.base);
        region.read_soon(self.position.saturating_sub(base));
        let end = base.saturating_add(region.published());
        // What a truncation cut off was never visible; its offsets are in the next segment now.
        #[cfg(feature = "replication")]
        let end = self.segment.sealed().map_or(end, |sealed| end.min(sealed.data_end as usize));
        let stop_at = if self.window.live { end.min(self.ahead.due()) } else { end };
        let mut open = OpenRange::at(self.position, self.next_offset);
        let stop = loop {
            let bytes =
                self.take_plain_batches((&region, end, stop_at), limits, (fetched, &mut open));
            if self.next_offset >= limits.visible_end || fetched.is_full(limits) {
                break Ok(Stop::Limit);
            }
            if self.position >= stop_at {
                break Ok(Stop::WindowEnd);
            }
            let view = match self.view(bytes) {
                Ok(Some(view)) => view,
                // Zeros below the published end.
                Ok(None) => break Err(CorruptionKind::Length("a batch")),
                Err(CorruptionKind::Length(_)) if self.is_cut_by_chunk() => {
                    break Ok(Stop::WindowEnd);
                }
                Err(kind) => break Err(kind),
            };
            let header = view.header();
            let size = header.size as usize;
            region.read_ahead(self.position.saturating_sub(base), size);
            let (expected, found) = (self.next_offset, header.base_offset);
            if found < expected && (open.records > 0 || self.goes_back(&header)) {
                // If it were skipped, it would still be in the range, and the batch that should
                // have stood here would be lost without a report.
                break Err(CorruptionKind::OffsetOrder { expected, found });
            }
            if header.is_opening() {
                self.position = self.position.saturating_add(size);
                continue;
            }
            if let Err(kind) = self.check_order(&header) {
                break Err(kind);
            }
            let over = fetched.bytes.saturating_add(size) > limits.bytes && fetched.records > 0;
            fetched.is_cut |= over && header.base_offset < limits.visible_end;
            if over || header.base_offset >= limits.visible_end {
                break Ok(Stop::Limit);
            }
            let room = limits.records.saturating_sub(fetched.records);
            let taken = take_records(&view, &header, self.next_offset, room);
            open.records += taken.records;
            open.span_end = self.position.saturating_add(size);
            fetched.records += taken.records;
            fetched.bytes = fetched.bytes.saturating_add(size);
            self.next_offset = taken.next_offset;
            if taken.whole {
                self.position = open.span_end;
            } else {
                self.entry = self.position;
                self.checked_end = open.span_end;
                break Ok(Stop::Limit);
            }
        };
        fetched.ranges.extend(open.close(&self.segment.origin, region, base, self.next_offset));
        stop
    }

    /// Takes what nearly every batch is: one without extension, next in order, and wanted with all its
    /// records. Stops before any other, and returns the bytes from there on. A loop of its own, since
    /// one that can do everything needs twice as many instructions for each of these.
    #[inline]
    fn take_plain_batches<'r>(
        &mut self,
        (region, end, stop_at): (&'r Region, usize, usize),
        limits: &FetchLimits,
        (fetched, open): (&mut Fetched, &mut OpenRange),
    ) -> &'r [u8] {
        let (segment, base) = (&*self.segment, self.window.base);
        let offset_bound = segment.next_offset().unwrap_or(u64::MAX);
        let (mut position, mut next_offset) = (self.position, self.next_offset);
        let mut record_room = limits.records.saturating_sub(fetched.records);
        let mut byte_room = limits.bytes.saturating_sub(fetched.bytes);
        let (mut records, mut taken) = (0_usize, 0_usize);
        let readable = position.saturating_sub(base)..end.saturating_sub(base);
        let mut bytes = region.bytes(readable).unwrap_or_default();
        while position < stop_at {
            let is_wanted = |header: &BatchHeader| {
                header.base_offset >= next_offset.max(segment.base_offset)
                    && header.base_offset < limits.visible_end
                    && header.next_offset() <= offset_bound
                    && header.record_count as usize <= record_room
                    && header.size as usize <= byte_room
            };
            let Some(header) = BatchView::sound_plain(bytes, &segment.key, is_wanted) else {
                break;
            };
            let (size, count) = (header.size as usize, header.record_count as usize);
            region.read_ahead(position.saturating_sub(base), size);
            (position, next_offset) = (position.saturating_add(size), header.next_offset());
            (record_room, byte_room) =
                (record_room.saturating_sub(count), byte_room.saturating_sub(size));
            (records, taken) = (records.saturating_add(count), taken.saturating_add(size));
            bytes = bytes.get(size..).unwrap_or_default();
        }
        if taken > 0 {
            (self.position, self.next_offset, open.span_end) = (position, next_offset, position);
            open.records = open.records.saturating_add(records);
            fetched.records = fetched.records.saturating_add(records);
            fetched.bytes = fetched.bytes.saturating_add(taken);
        }
        bytes
    }

    /// The batch at the cursor, checked now or by an earlier fetch.
    #[inline]
    fn view<'a>(&self, bytes: &'a [u8]) -> Result<Option<BatchView<'a>>, CorruptionKind> {
        if self.position < self.checked_end {
            return Ok(BatchView::trusted(bytes));
        }
        BatchView::check(bytes, &self.segment.key)
    }

    /// Whether the batch at the cursor begins below `next_offset` although it must not.
    #[cold]
    fn goes_back(&self, header: &BatchHeader) -> bool {
        let may_begin_below =
            self.position == self.entry && header.next_offset() > self.next_offset;
        !may_begin_below && !header.is_opening()
    }

    /// Whether the batch at the cursor may be whole and only extend beyond the copied chunk, which
    /// may end anywhere.
    fn is_cut_by_chunk(&self) -> bool {
        let end = self.segment.end();
        let bytes = self.window.bytes(self.position, end);
        let size = BatchHeader::declared_size(bytes).map_or(0, |size| size as usize);
        let continues = size > bytes.len() && size <= end.saturating_sub(self.position);
        !self.window.live && (self.position > self.window.base || continues)
    }

    /// Offsets may have gaps (compaction) but never decrease, nor exceed their segment: they would
    /// be taken for those of the next one, or a reader would wait for records that never come.
    fn check_order(&self, header: &BatchHeader) -> Result<(), CorruptionKind> {
        let found = header.base_offset;
        if found < self.segment.base_offset {
            return Err(CorruptionKind::OffsetOrder { expected: self.segment.base_offset, found });
        }
        match self.segment.next_offset() {
            Some(expected) if header.next_offset() > expected => {
                Err(CorruptionKind::OffsetOrder { expected, found })
            }
            _ => Ok(()),
        }
    }

    /// Moves to the next chunk or the next segment. False at the end.
    fn advance_window(&mut self, segments: &SegmentList, limits: &FetchLimits) -> Result<bool> {
        // ORDERING: whether the segment is sealed is read before its end is read again: a sealed
        // segment's end is final, so nothing can be published between the two reads.
        let sealed = self.segment.sealed().copied();
        if let Some(sealed) = sealed.filter(|sealed| self.position >= sealed.data_end as usize) {
            return self.next_segment(segments, limits, &sealed);
        }
        if self.window.live {
            return Ok(self.position < self.window.region.published());
        }
        if self.position >= self.segment.end() {
            return Ok(false);
        }
        self.window = self.next_chunk()?;
        self.checked_end = 0;
        Ok(true)
    }

    fn next_segment(
        &mut self,
        segments: &SegmentList,
        limits: &FetchLimits,
        sealed: &Sealed,
    ) -> Result<bool> {
        if let Some(grown) = segments.grown(&self.segment) {
            self.segment = grown;
            self.window = self.next_chunk()?;
            self.checked_end = 0;
            return Ok(true);
        }
        let reached = self.next_offset.max(sealed.next_offset);
        let missing = |until: u64, kind: CorruptionKind| {
            let end = u64::from(sealed.data_end);
            self.segment.corruption(end, Some(reached..until), kind).into()
        };
        let Some(next) = segments.after(&self.segment) else {
            // The log ends here, unless durable records were lost and recovery continued after
            // them.
            let (found, durable) = (reached, limits.visible_end);
            let kind = CorruptionKind::ShortOfDurable { found, durable };
            return if reached < durable { Err(missing(durable, kind)) } else { Ok(false) };
        };
        if next.base_offset > reached {
            return Err(missing(next.base_offset, CorruptionKind::Missing));
        }
        self.window = match next.window(0) {
            Ok(window) => window,
            // It was replaced before its file could be opened.
            Err(_) if !segments.contains(&next) => {
                self.next_offset = reached;
                return self.find_again(segments, limits);
            }
            Err(error) => return Err(error),
        };
        self.segment = next;
        self.position = SegmentHeader::SIZE;
        self.entry = usize::MAX;
        self.checked_end = 0;
        self.next_offset = reached;
        self.ahead.begin_next();
        Ok(true)
    }

    /// Copies a chunk from the cursor on that holds at least one whole batch.
    fn next_chunk(&self) -> Result<Window> {
        let mut window = self.segment.window(self.position)?;
        let end = self.segment.end();
        let bytes = window.bytes(self.position, end);
        let size = BatchHeader::declared_size(bytes).map_or(0, |size| size as usize);
        let mut wanted = 1;
        if size > bytes.len() && size <= end.saturating_sub(self.position) {
            wanted = size;
            window = self.segment.copied_window(self.position, size)?;
        }
        if window.bytes(self.position, end).len() < wanted {
            // The file was shortened by another program.
            let kind = CorruptionKind::Length("the file");
            return Err(self.segment.corruption(self.position as u64, None, kind).into());
        }
        Ok(window)
    }

    /// Skips batches that end before `offset`, by their headers alone as long as these agree with
    /// one another. If they do not, a header may be damaged and point anywhere. Then each batch is
    /// checked, and the cursor stops before the first damaged one, so that [`fetch`](Self::fetch)
    /// reports what is lost.
    fn pass_batches_before(&mut self, offset: u64) -> Result<()> {
        let start = (self.window.clone(), self.position);
        if !self.pass_batches(offset, |bytes, _| BatchHeader::parse(bytes))? {
            (self.window, self.position) = start;
            self.pass_batches(offset, |bytes, key| {
                Ok(BatchView::check(bytes, key)?.map(|view| view.header()))
            })?;
        }
        Ok(())
    }

    /// Whether the batches follow one another without a gap to the one that holds `offset`, or to
    /// the end.
    fn pass_batches(
        &mut self,
        offset: u64,
        header_of: impl Fn(&[u8], &SegmentKey) -> Result<Option<BatchHeader>, CorruptionKind>,
    ) -> Result<bool> {
        let mut reached = None;
        let mut is_regular = true;
        loop {
            let end = self.segment.end();
            let bytes = self.window.bytes(self.position, end);
            let is_spent = bytes.is_empty();
            if let Ok(Some(header)) = header_of(bytes, &self.segment.key) {
                is_regular &= reached.is_none_or(|reached| reached == header.base_offset);
                if !header.is_opening() && header.next_offset() > offset {
                    return Ok(is_regular);
                }
                self.position = self.position.saturating_add(header.size as usize);
                reached = Some(header.next_offset());
            } else if self.position < end && (is_spent || self.is_cut_by_chunk()) {
                self.window = self.next_chunk()?;
            } else {
                // A damaged header could point exactly here. A sealed segment's end is known; in an
                // active one the batches are checked.
                let is_whole = reached.is_some() && reached == self.segment.next_offset();
                return Ok(is_regular && is_whole && self.position >= end);
            }
        }
    }

    /// Continues after damage that concerns no record from `next_offset` on. Otherwise reports the
    /// unreadable offsets: up to the next whole batch, or to the end.
    fn pass_damage(&mut self, kind: CorruptionKind, limits: &FetchLimits) -> Result<bool> {
        let end = self.segment.end();
        let found = self.whole_batch_after(end)?;
        let ends_at = self.segment.next_offset().unwrap_or(limits.visible_end);
        let until = found.map_or(ends_at, |found| found.base_offset);
        if until > self.next_offset {
            let offsets = Some(self.next_offset..until);
            return Err(self.segment.corruption(self.position as u64, offsets, kind).into());
        }
        let position = found.map(|found| usize::try_from(found.position).unwrap_or(end));
        self.position = position.unwrap_or(end);
        self.entry = self.position;
        self.checked_end = 0;
        if !self.window.live && self.position < end {
            self.window = self.next_chunk()?;
        }
        Ok(true)
    }

    /// The first whole batch after the cursor that reaches beyond `next_offset`.
    fn whole_batch_after(&self, end: usize) -> Result<Option<damage::Found>> {
        let position = self.position as u64;
        let next_offset = self.next_offset;
        let bound = self.segment.next_offset().unwrap_or(u64::MAX);
        let wanted = |header: &BatchHeader| {
            header.next_offset() > next_offset && header.next_offset() <= bound
        };
        let failed = |source| Error::io("read", &self.segment.path, source);
        let search = |mut reader: ChunkReader<'_>| {
            damage::next_whole_batch(&mut reader, &self.segment.key, position, wanted)
        };
        let searched = if self.window.live {
            search(ChunkReader::over(self.window.bytes(self.position, end), position))
        } else {
            let file = self.segment.open_file(Access::Read)?;
            ChunkReader::new(&*file, end as u64, CHUNK_BYTES).and_then(search)
        };
        Ok(searched.map_err(failed)?.found)
    }

    /// Finds `next_offset` again after the cursor's segment has left the log: replaced by
    /// compaction, or removed by retention, which may have gone past the cursor.
    fn find_again(&mut self, segments: &SegmentList, limits: &FetchLimits) -> Result<bool> {
        loop {
            let first = segments.first().map_or(0, |first| first.base_offset);
            if self.next_offset < first {
                let (origin, end) = (&self.segment.origin, limits.visible_end);
                return Err(Error::out_of_range(origin, self.next_offset, first, end));
            }
            let offset = self.next_offset;
            // Without the log's index: the segment was sealed, and so is its replacement.
            let Some(found) = position_of_offset(segments, offset, |_| None)? else {
                return Ok(false);
            };
            match Self::new(Arc::clone(&found.segment), found.position, offset) {
                Ok(cursor) => {
                    *self = cursor;
                    return Ok(true);
                }
                Err(_) if !segments.contains(&found.segment) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl std::fmt::Debug for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cursor")
            .field("segment", &self.segment.number)
            .field("position", &self.position)
            .field("next_offset", &self.next_offset)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    WindowEnd,
    Limit,
}

/// The range that a fetch is building.
struct OpenRange {
    span_start: usize,
    span_end: usize,
    first_offset: u64,
    records: usize,
}

impl OpenRange {
    fn at(position: usize, offset: u64) -> Self {
        Self { span_start: position, span_end: position, first_offset: offset, records: 0 }
    }

    /// What was built in the region, which begins at the position `base`; `None` without a record.
    fn close(
        &self,
        origin: &Arc<TopicPartition>,
        region: Arc<Region>,
        base: usize,
        next_offset: u64,
    ) -> Option<CheckedRange> {
        (self.records > 0).then(|| CheckedRange {
            origin: Arc::clone(origin),
            region,
            span: self.span_start.saturating_sub(base)..self.span_end.saturating_sub(base),
            offsets: self.first_offset..next_offset,
            records: self.records,
        })
    }
}

/// Which records of a batch are taken.
struct Taken {
    records: usize,
    next_offset: u64,
    whole: bool,
}

/// Takes the records of a checked batch from `from` on, at most `room`.
#[inline]
fn take_records(view: &BatchView<'_>, header: &BatchHeader, from: u64, room: usize) -> Taken {
    let count = header.record_count as usize;
    if from <= header.base_offset && count <= room {
        return Taken { records: count, next_offset: header.next_offset(), whole: true };
    }
    let mut taken = Taken { records: 0, next_offset: from, whole: true };
    for record in view.records().skip_while(|record| record.offset < from) {
        if taken.records == room {
            taken.whole = false;
            return taken;
        }
        taken.records += 1;
        taken.next_offset = record.offset.saturating_add(1);
    }
    taken.next_offset = header.next_offset();
    taken
}

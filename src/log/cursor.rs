//! Reading forward: a position in a partition that moves over its segments.
//!
//! A cursor takes no lock that an appender takes. Each batch is checked (checksum and structure)
//! before it is handed out, so iterating over what [`Cursor::fetch`] returns cannot fail.
//!
//! Invariants, at every return:
//! 1. `next_offset` is the offset of the next record to hand out; it never goes back.
//! 2. `position` is the start of the batch that holds it, or the end of what was read.
//! 3. No record below `next_offset` is handed out twice, and none is passed over silently.

use std::ops::Range;
use std::sync::Arc;

use super::damage;
use super::segment::{Segment, SegmentList, Window};
use crate::error::{Corruption, CorruptionKind, Result};
use crate::format::{BatchHeader, BatchView, SegmentHeader};
use crate::message::Run;

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
    /// Up to here the bytes were checked by an earlier fetch that could not take all of a batch.
    checked_end: usize,
}

/// What a fetch collects.
#[derive(Debug, Default)]
pub(crate) struct Fetched {
    pub(crate) runs: Vec<Run>,
    pub(crate) records: usize,
    pub(crate) bytes: usize,
}

impl Fetched {
    fn is_full(&self, limits: &FetchLimits) -> bool {
        self.records >= limits.records || self.bytes >= limits.bytes
    }
}

impl Cursor {
    /// A cursor in `segment` at `position`, which is the start of a batch at or before the one
    /// that holds `offset`. Batches before `offset` are passed over by their headers alone.
    pub(crate) fn new(segment: Arc<Segment>, position: usize, offset: u64) -> Result<Self> {
        let window = segment.window(position)?;
        let mut cursor = Self { segment, window, position, next_offset: offset, checked_end: 0 };
        cursor.pass_batches_before(offset)?;
        Ok(cursor)
    }

    pub(crate) fn next_offset(&self) -> u64 {
        self.next_offset
    }

    /// Adds what can be read now to `fetched`, up to the limits.
    ///
    /// # Errors
    ///
    /// [`Corrupt`](crate::Error::Corrupt) when the very next batch is damaged; damage behind
    /// batches that were read ends the fetch, and is the next one's error.
    pub(crate) fn fetch(
        &mut self,
        segments: &SegmentList,
        limits: &FetchLimits,
        fetched: &mut Fetched,
    ) -> Result<()> {
        let had = fetched.records;
        loop {
            let stop = match self.fetch_window(limits, fetched) {
                Ok(stop) => stop,
                // What precedes the damage is returned; the cursor stands before it.
                Err(_) if fetched.records > had => return Ok(()),
                Err(corruption) => return Err(corruption.into()),
            };
            if stop == Stop::Limit || !self.advance_window(segments)? {
                return Ok(());
            }
        }
    }

    /// Reads to the end of the window or to a limit.
    fn fetch_window(
        &mut self,
        limits: &FetchLimits,
        fetched: &mut Fetched,
    ) -> Result<Stop, Corruption> {
        let region = Arc::clone(&self.window.region);
        let base = self.window.base;
        let end = base.saturating_add(region.published());
        let mut run = OpenRun::at(self.position, self.next_offset);
        let stop = loop {
            if self.position >= end {
                break Ok(Stop::WindowEnd);
            }
            let bytes =
                region.bytes(self.position.saturating_sub(base)..end.saturating_sub(base)).unwrap_or_default();
            let view = match self.view(bytes) {
                Ok(Some(view)) => view,
                Ok(None) if self.window.live => break Err(CorruptionKind::Length("a batch")),
                Ok(None) => break Ok(Stop::WindowEnd),
                Err(kind) => break Err(kind),
            };
            let header = view.header();
            let size = header.size as usize;
            if header.is_opening() || header.next_offset() <= self.next_offset {
                self.position = self.position.saturating_add(size);
                continue;
            }
            if let Err(kind) = self.check_order(&header) {
                break Err(kind);
            }
            if header.base_offset >= limits.visible_end {
                break Ok(Stop::Limit);
            }
            let over = fetched.bytes.saturating_add(size) > limits.bytes && fetched.records > 0;
            if over || fetched.is_full(limits) {
                break Ok(Stop::Limit);
            }
            let room = limits.records.saturating_sub(fetched.records);
            let taken = take_records(&view, &header, self.next_offset, room);
            run.records += taken.records;
            run.span_end = self.position.saturating_add(size);
            fetched.records += taken.records;
            fetched.bytes = fetched.bytes.saturating_add(size);
            self.next_offset = taken.next_offset;
            if taken.whole {
                self.position = run.span_end;
            } else {
                self.checked_end = run.span_end;
                break Ok(Stop::Limit);
            }
        };
        if let Some((span, offsets)) = run.close(base, self.next_offset) {
            let origin = Arc::clone(&self.segment.origin);
            fetched.runs.push(Run { origin, region, span, offsets, records: run.records });
        }
        stop.map_err(|kind| self.describe_damage(kind))
    }

    /// The batch at the cursor, checked now or by an earlier fetch.
    #[inline]
    fn view<'a>(&self, bytes: &'a [u8]) -> Result<Option<BatchView<'a>>, CorruptionKind> {
        if self.position < self.checked_end {
            return Ok(BatchView::trusted(bytes));
        }
        BatchView::check(bytes, self.segment.salt)
    }

    /// Offsets may leave gaps (compaction) but never go back.
    fn check_order(&self, header: &BatchHeader) -> Result<(), CorruptionKind> {
        if header.base_offset < self.segment.base_offset {
            let expected = self.segment.base_offset;
            return Err(CorruptionKind::OffsetOrder { expected, found: header.base_offset });
        }
        Ok(())
    }

    /// Moves to where more can be read: the next chunk, or the next segment. False at the end.
    fn advance_window(&mut self, segments: &SegmentList) -> Result<bool> {
        // ORDERING: whether the segment is sealed is asked before its end is read again: a sealed
        // segment's end is final, so nothing can be published between the two questions.
        let sealed = self.segment.sealed().copied();
        if let Some(sealed) = sealed.filter(|sealed| self.position >= sealed.data_end as usize) {
            let Some(next) = segments.after(self.segment.number) else {
                return Ok(false);
            };
            self.window = next.window(0)?;
            self.segment = next;
            self.position = SegmentHeader::SIZE;
            self.checked_end = 0;
            self.next_offset = self.next_offset.max(sealed.next_offset);
            return Ok(true);
        }
        if self.window.live {
            return Ok(self.position < self.window.region.published());
        }
        if self.position >= self.segment.end() {
            return Ok(false);
        }
        self.window = self.next_chunk()?;
        Ok(true)
    }

    /// A copied chunk from the cursor on that holds at least one whole batch.
    fn next_chunk(&self) -> Result<Window> {
        let window = self.segment.window(self.position)?;
        let end = self.segment.end();
        let bytes = window.bytes(self.position, end);
        let size = BatchHeader::declared_size(bytes).map_or(0, |size| size as usize);
        if size <= bytes.len() || size > end.saturating_sub(self.position) {
            return Ok(window);
        }
        self.segment.copied_window(self.position, size)
    }

    fn pass_batches_before(&mut self, offset: u64) -> Result<()> {
        loop {
            let end = self.segment.end();
            let bytes = self.window.bytes(self.position, end);
            match BatchHeader::parse(bytes) {
                Ok(Some(header)) if header.is_opening() || header.next_offset() <= offset => {
                    self.position = self.position.saturating_add(header.size as usize);
                }
                // Damage is for `fetch` to report, with what it knows about it.
                Ok(Some(_)) => return Ok(()),
                Ok(None) | Err(_) => {
                    if self.window.live || self.position >= end {
                        return Ok(());
                    }
                    let window = self.next_chunk()?;
                    if window.base == self.window.base {
                        return Ok(());
                    }
                    self.window = window;
                }
            }
        }
    }

    /// Says which offsets the damage at the cursor makes unreadable: up to the next batch that is
    /// whole, or the segment's end.
    fn describe_damage(&self, kind: CorruptionKind) -> Corruption {
        let end = self.segment.end();
        let bytes = self.window.bytes(self.position, end);
        let resumes = damage::next_whole_batch(bytes, self.segment.salt, self.next_offset);
        let until = match (resumes, self.segment.next_offset()) {
            (Some(found), _) => found.base_offset,
            (None, Some(next)) => next,
            (None, None) => self.next_offset,
        };
        let offsets = (until > self.next_offset).then_some(self.next_offset..until);
        self.segment.corruption(self.position as u64, offsets, kind)
    }

    /// Goes on behind damage: to the next whole batch in the segment whose base offset is at least
    /// `offset`, or to the segment's end.
    pub(crate) fn skip_damage(&mut self, offset: u64) {
        let end = self.segment.end();
        let bytes = self.window.bytes(self.position, end);
        let found = damage::next_whole_batch(bytes, self.segment.salt, offset);
        self.position = found.map_or(end, |found| self.position.saturating_add(found.distance));
        self.next_offset = self.next_offset.max(offset);
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

/// The run that a fetch is building.
struct OpenRun {
    span_start: usize,
    span_end: usize,
    first_offset: u64,
    records: usize,
}

impl OpenRun {
    fn at(position: usize, offset: u64) -> Self {
        Self { span_start: position, span_end: position, first_offset: offset, records: 0 }
    }

    fn close(&self, base: usize, next_offset: u64) -> Option<(Range<usize>, Range<u64>)> {
        (self.records > 0).then(|| {
            let span = self.span_start.saturating_sub(base)..self.span_end.saturating_sub(base);
            (span, self.first_offset..next_offset)
        })
    }
}

/// How much of a batch is taken.
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

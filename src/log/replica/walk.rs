//! Reads the batches of one segment, in order, from a given position.
//!
//! Each batch is checked before its header is believed. What is published later is seen too. Must
//! not know: other segments, what the batches are used for.

use std::ops::Range;
use std::sync::Arc;

use crate::error::{CorruptionKind, Error, Result};
use crate::format::{BATCH_HEADER_SIZE_MIN, BatchHeader, BatchView};
use crate::log::chunk::{CHUNK_BYTES, ChunkReader};
use crate::log::damage::next_whole_batch;
use crate::log::segment::{Segment, Window};
use crate::storage::disk::Access;

pub(super) struct Walk {
    segment: Arc<Segment>,
    window: Window,
    position: usize,
}

/// What stands at a position.
pub(super) enum Step {
    /// A whole batch; an opening batch is passed over.
    Batch(BatchHeader),
    /// Nothing yet, or nothing any more.
    End,
    Damaged(CorruptionKind),
}

impl Walk {
    /// Begins at the start of a batch, or at the end.
    pub(super) fn at(segment: Arc<Segment>, position: usize) -> Result<Self> {
        let window = segment.window(position)?;
        Ok(Self { segment, window, position })
    }

    pub(super) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    pub(super) fn window(&self) -> &Window {
        &self.window
    }

    /// The batch at the position, which [`pass`](Self::pass) leaves behind.
    pub(super) fn step(&mut self) -> Result<Step> {
        loop {
            // Read once: the bytes below it are whole batches, what is published later is not
            // looked at before the next step.
            let end = self.segment.end();
            if self.position >= end {
                return Ok(Step::End);
            }
            self.show(end)?;
            let bytes = self.window.bytes(self.position, end);
            let header = match BatchView::check(bytes, &self.segment.key) {
                Ok(Some(view)) => view.header(),
                Ok(None) => return Ok(Step::Damaged(CorruptionKind::Length("a batch"))),
                Err(kind) => return Ok(Step::Damaged(kind)),
            };
            if !header.is_opening() {
                return Ok(Step::Batch(header));
            }
            self.pass(&header);
        }
    }

    /// Continues after this batch. Returns where it stands in the window's bytes.
    pub(super) fn pass(&mut self, header: &BatchHeader) -> Range<usize> {
        let start = self.position.saturating_sub(self.window.base);
        self.position = self.position.saturating_add(header.size as usize);
        start..start.saturating_add(header.size as usize)
    }

    /// Has the window show all of the batch at the position, if it ends below `end`.
    fn show(&mut self, end: usize) -> Result<()> {
        let shown = |window: &Window, position| window.bytes(position, end).len();
        let left = end.saturating_sub(self.position);
        let is_shown = |window: &Window, position| {
            let bytes = window.bytes(position, end);
            let size = BatchHeader::declared_size(bytes).map_or(0, |size| size as usize);
            bytes.len() >= left.min(BATCH_HEADER_SIZE_MIN) && (size <= bytes.len() || size > left)
        };
        if self.window.live || is_shown(&self.window, self.position) {
            return Ok(());
        }
        self.window = self.segment.window(self.position)?;
        if shown(&self.window, self.position) >= BATCH_HEADER_SIZE_MIN
            && !is_shown(&self.window, self.position)
        {
            // A batch that is larger than a chunk. Its size was compared with the segment.
            let bytes = self.window.bytes(self.position, end);
            let size = BatchHeader::declared_size(bytes).map_or(0, |size| size as usize);
            self.window = self.segment.copied_window(self.position, size)?;
        }
        Ok(())
    }

    /// Moves from damage to the next whole batch of the segment. False if there is none.
    pub(super) fn pass_damage(&mut self) -> Result<bool> {
        let end = self.segment.end();
        let bound = self.segment.next_offset().unwrap_or(u64::MAX);
        let failed = |source| Error::io("read", &self.segment.path, source);
        let file = self.segment.open_file(Access::Read)?;
        let mut reader = ChunkReader::new(&*file, end as u64, CHUNK_BYTES).map_err(failed)?;
        let wanted = |header: &BatchHeader| header.next_offset() <= bound;
        let (key, from) = (&self.segment.key, self.position as u64);
        let found = next_whole_batch(&mut reader, key, from, wanted).map_err(failed)?.found;
        self.position = found.map_or(end, |it| usize::try_from(it.position).unwrap_or(end));
        Ok(found.is_some())
    }

    /// The error for damage at the position; `from` is the first offset that may be lost.
    pub(super) fn damaged(&self, from: u64, kind: CorruptionKind) -> Error {
        let until = self.segment.next_offset().unwrap_or(from).max(from);
        self.segment.corruption(self.position as u64, Some(from..until), kind).into()
    }
}

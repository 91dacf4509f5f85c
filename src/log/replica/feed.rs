//! Reads whole batches for a follower: the bytes as they are stored, and the salt under which
//! their checksums hold.
//!
//! Each batch is checked before it is handed on. Must not know: who reads, what it may see, frames.
//! Reads the disk: called without the partition's lock.

use std::ops::Range;
use std::sync::Arc;

use super::under::Under;
use super::walk::{Step, Walk};
use crate::error::{CorruptionKind, Error, Result};
use crate::format::{BatchHeader, SegmentHeader};
use crate::log::locate::{SegmentPosition, position_of_offset};
use crate::log::segment::{Segment, SegmentList, Window};

/// How much is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FeedLimits {
    /// At most so many bytes; but one batch at least, however large it is.
    pub(crate) bytes: usize,
    /// Only batches that end at or below this offset.
    pub(crate) end: u64,
}

/// Batches that follow one another in one segment. They hold its map, if it has one.
pub(crate) struct Portion {
    /// What their checksums hold under.
    pub(crate) under: Under,
    /// From the first batch's base offset to the last one's end. There may be gaps between them.
    pub(crate) offsets: Range<u64>,
    window: Window,
    span: Range<usize>,
}

impl Portion {
    /// The first so many bytes of them, without a copy.
    #[cfg(feature = "replication")]
    pub(crate) fn into_bytes(mut self, len: usize) -> bytes::Bytes {
        self.span.end = self.span.end.min(self.span.start.saturating_add(len));
        bytes::Bytes::from_owner(self)
    }

    /// The batches, whole and checked.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.window.region.bytes(self.span.clone()).unwrap_or_default()
    }
}

impl AsRef<[u8]> for Portion {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

impl std::fmt::Debug for Portion {
    /// Payloads do not belong in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Portion").field("offsets", &self.offsets).finish_non_exhaustive()
    }
}

/// Reads the batches from the one that holds `offset` on, or from the first one above it.
/// `index_of` reads the log, as for [`position_of_offset`].
///
/// # Errors
///
/// [`Error::Corrupt`] if the next batch is damaged or missing, and errors of the disk. If something
/// was read before the damage, it is returned.
pub(crate) fn read(
    segments: &SegmentList,
    offset: u64,
    limits: FeedLimits,
    index_of: &dyn Fn(&Segment) -> Option<usize>,
) -> Result<Vec<Portion>> {
    loop {
        let mut collected = Collected { limits, portions: Vec::new(), bytes: 0, next: offset };
        if offset >= limits.end {
            return Ok(collected.portions);
        }
        let Some(found) = position_of_offset(segments, offset, index_of)? else {
            return Err(Error::Closed);
        };
        let read = read_from(segments, &found, &mut collected);
        match read {
            Err(error) if collected.portions.is_empty() => {
                // It was replaced or removed since it was looked up.
                if segments.contains(&found.segment) {
                    return Err(error);
                }
            }
            _ => return Ok(collected.portions),
        }
    }
}

fn read_from(
    segments: &SegmentList,
    found: &SegmentPosition,
    collected: &mut Collected,
) -> Result<()> {
    if found.segment.base_offset > collected.next {
        return Err(found.segment.missing_before(collected.next).into());
    }
    let mut walk = Walk::at(Arc::clone(&found.segment), found.position)?;
    while collected.take_from(&mut walk)? {
        let segment = Arc::clone(walk.segment());
        // ORDERING: whether it is sealed is read after all that is published was read. If it is, its
        // successor is in the list.
        let Some(reached) = segment.next_offset() else { return Ok(()) };
        let Some(next) = segments.after(&segment) else { return Ok(()) };
        collected.next = collected.next.max(reached);
        if next.base_offset > collected.next {
            let (end, missing) = (segment.end() as u64, collected.next..next.base_offset);
            return Err(segment.corruption(end, Some(missing), CorruptionKind::Missing).into());
        }
        walk = Walk::at(next, SegmentHeader::SIZE)?;
    }
    Ok(())
}

struct Collected {
    limits: FeedLimits,
    portions: Vec<Portion>,
    bytes: usize,
    next: u64,
}

impl Collected {
    /// Takes the batches of a segment. Returns whether the next segment may be read.
    fn take_from(&mut self, walk: &mut Walk) -> Result<bool> {
        let was_sealed = walk.segment().sealed().is_some();
        // Portions of two segments have two salts.
        let mut is_new = true;
        loop {
            let batch = match walk.step()? {
                Step::Batch(batch) => batch,
                // What is published between the look and the seal is read by the next call.
                Step::End => return Ok(was_sealed),
                Step::Damaged(kind) => return Err(walk.damaged(self.next, kind)),
            };
            let size = batch.size as usize;
            if batch.next_offset() <= self.next && self.portions.is_empty() {
                walk.pass(&batch);
                continue;
            }
            let is_first = self.portions.is_empty();
            if batch.next_offset() > self.limits.end
                || (!is_first && self.bytes.saturating_add(size) > self.limits.bytes)
            {
                return Ok(false);
            }
            if !is_first && batch.base_offset < self.next {
                let (expected, found) = (self.next, batch.base_offset);
                return Err(walk.damaged(expected, CorruptionKind::OffsetOrder { expected, found }));
            }
            self.add(walk, &batch, is_new);
            is_new = false;
        }
    }

    fn add(&mut self, walk: &mut Walk, batch: &BatchHeader, is_new: bool) {
        let span = walk.pass(batch);
        self.bytes = self.bytes.saturating_add(batch.size as usize);
        self.next = batch.next_offset();
        let window = walk.window();
        match self.portions.last_mut().filter(|_| !is_new) {
            Some(last)
                if Arc::ptr_eq(&last.window.region, &window.region)
                    && last.span.end == span.start =>
            {
                last.span.end = span.end;
                last.offsets.end = batch.next_offset();
            }
            _ => self.portions.push(Portion {
                under: Under::of(walk.segment()),
                offsets: batch.base_offset..batch.next_offset(),
                window: window.clone(),
                span,
            }),
        }
    }
}

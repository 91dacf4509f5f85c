//! The leader epochs of a log: in which one a batch was appended, and where each of them ends.
//!
//! Nothing is stored for this but the epoch in the header of each batch. Epochs never fall from
//! batch to batch, so where one ends is found by bisection: over the first batches of the
//! segments, then over the rows of a segment's index, and then batch by batch, at most 32 KiB. So
//! there is nothing that could contradict the batches after a crash, a truncation, retention or
//! compaction, which keeps the last batch of each epoch.
//!
//! Owns: nothing. Must not know: who asks. Reads the disk: called without the partition's lock.

use std::sync::Arc;

use super::walk::{Step, Walk};
use crate::error::{CorruptionKind, Error, Result};
use crate::format::{BatchHeader, SegmentHeader, SparseIndex};
use crate::log::segment::{Segment, SegmentList};

/// A leader epoch, and the offset after its last batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EpochEnd {
    pub(crate) epoch: u32,
    pub(crate) end_offset: u64,
}

impl EpochEnd {
    /// Of the batch at this position of a segment; `None` if that is the opening batch, and no
    /// other follows.
    ///
    /// # Errors
    ///
    /// As of [`History::end_of`].
    pub(crate) fn at(segment: Arc<Segment>, position: usize) -> Result<Option<Self>> {
        let from = segment.base_offset;
        let mut walk = Walk::at(segment, position.max(SegmentHeader::SIZE))?;
        match walk.step()? {
            Step::Batch(batch) => Ok(Some(Self::of(&batch))),
            Step::End => Ok(None),
            Step::Damaged(kind) => Err(walk.damaged(from, kind)),
        }
    }

    fn of(header: &BatchHeader) -> Self {
        Self { epoch: header.leader_epoch, end_offset: header.next_offset() }
    }
}

/// The history of a log at one moment. What is appended or truncated meanwhile may be in it or not.
pub(crate) struct History<'a> {
    segments: &'a SegmentList,
    /// What lies below it does not belong to the log any more, even if its files are still there.
    log_start: u64,
    /// The index of a segment that has none in its file.
    index_of: &'a dyn Fn(&Segment) -> Option<SparseIndex>,
}

impl<'a> History<'a> {
    pub(crate) fn new(
        segments: &'a SegmentList,
        log_start: u64,
        index_of: &'a dyn Fn(&Segment) -> Option<SparseIndex>,
    ) -> Self {
        Self { segments, log_start, index_of }
    }

    pub(super) fn segments(&self) -> &SegmentList {
        self.segments
    }

    /// The greatest epoch of the log that is not above `epoch`, and its end. `None` if the log has
    /// only batches of later ones, or none. `u32::MAX` asks for the last batch.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if damage hides where the epoch ends, and errors of the disk.
    pub(crate) fn end_of(&self, epoch: u32) -> Result<Option<EpochEnd>> {
        let last = self.last_of(&|batch| batch.leader_epoch <= epoch)?;
        Ok(last.filter(|last| self.has(last)).map(|last| EpochEnd::of(&last)))
    }

    /// The epoch of the last batch that begins below `offset`; `None` if there is none.
    ///
    /// # Errors
    ///
    /// As of [`end_of`](Self::end_of).
    pub(crate) fn epoch_before(&self, offset: u64) -> Result<Option<u32>> {
        let last = self.last_of(&|batch| batch.base_offset < offset)?;
        Ok(last.filter(|last| self.has(last)).map(|last| last.leader_epoch))
    }

    fn has(&self, batch: &BatchHeader) -> bool {
        batch.next_offset() > self.log_start
    }

    /// The last batch for which `holds`, which holds for a first part of the log and for none
    /// after it.
    pub(super) fn last_of(
        &self,
        holds: &dyn Fn(&BatchHeader) -> bool,
    ) -> Result<Option<BatchHeader>> {
        loop {
            let segments = self.segments.all();
            match self.last_in(&segments, holds) {
                // Compaction has replaced some of them meanwhile, or they were removed.
                Err(_) if !segments.iter().all(|it| self.segments.contains(it)) => {}
                found => return found,
            }
        }
    }

    fn last_in(
        &self,
        segments: &[Arc<Segment>],
        holds: &dyn Fn(&BatchHeader) -> bool,
    ) -> Result<Option<BatchHeader>> {
        let holds_from =
            |index: usize| Ok(first_from(segments, index)?.is_some_and(|it| holds(&it)));
        // Mostly it is in the last segment.
        let last = segments.len().saturating_sub(1);
        let after = if holds_from(last)? { segments.len() } else { bisect(last, holds_from)? };
        let (later, mut found) = (segments.get(after..).unwrap_or_default(), None);
        let mut reached = self.log_start;
        if let Some(segment) = after.checked_sub(1).and_then(|index| segments.get(index)) {
            found = self.last_in_segment(segment, holds)?;
            let Some((batch, next)) = found.as_ref().zip(later.first()) else { return Ok(found) };
            if segment.next_offset() != Some(batch.next_offset()) {
                return Ok(found);
            }
            reached = batch.next_offset().max(reached);
            if reached < next.base_offset {
                let missing = Some(reached..next.base_offset);
                let end = segment.end() as u64;
                return Err(segment.corruption(end, missing, CorruptionKind::Missing).into());
            }
        }
        check_head(later, reached)?;
        Ok(found)
    }

    fn last_in_segment(
        &self,
        segment: &Arc<Segment>,
        holds: &dyn Fn(&BatchHeader) -> bool,
    ) -> Result<Option<BatchHeader>> {
        let index = match (self.index_of)(segment) {
            Some(index) => Some(index),
            None => segment.read_footer()?.map(|footer| footer.index),
        };
        let rows = index.as_ref().map(SparseIndex::rows).unwrap_or_default();
        let position = |row: usize| rows.get(row).map_or(0, |row| row.position as usize);
        let row = bisect(rows.len(), |row| {
            let found = first_at(segment, position(row))?;
            Ok(found.is_some_and(|batch| holds(&batch)))
        })?;
        let start = row.checked_sub(1).map_or(SegmentHeader::SIZE, position);
        let mut walk = Walk::at(Arc::clone(segment), start)?;
        let (mut last, mut damage) = (None::<BatchHeader>, None::<Error>);
        loop {
            match walk.step()? {
                Step::Batch(batch) if holds(&batch) => {
                    walk.pass(&batch);
                    // What is damaged lies between two batches for which it holds.
                    (last, damage) = (Some(batch), None);
                }
                Step::Damaged(kind) => {
                    let from = last.map_or(segment.base_offset, |last| last.next_offset());
                    damage = Some(walk.damaged(from, kind));
                    walk.pass_damage()?;
                }
                Step::Batch(_) | Step::End => return damage.map_or(Ok(last), Err),
            }
        }
    }
}

/// How many of the first `count` have what none after them has.
fn bisect(count: usize, has: impl Fn(usize) -> Result<bool>) -> Result<usize> {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low.midpoint(high);
        if has(middle)? {
            low = middle.saturating_add(1);
        } else {
            high = middle;
        }
    }
    Ok(low)
}

/// Refuses damage before the first whole batch of these segments, if that begins above `reached`: what
/// is damaged may be a batch that was asked for.
fn check_head(segments: &[Arc<Segment>], reached: u64) -> Result<()> {
    let mut damage = None;
    let has_more = |segment: &Segment| segment.next_offset().is_none_or(|end| end > reached);
    for segment in segments.iter().filter(|segment| has_more(segment)) {
        let mut walk = Walk::at(Arc::clone(segment), SegmentHeader::SIZE)?;
        loop {
            match walk.step()? {
                Step::Batch(batch) => {
                    let hides = batch.base_offset > reached;
                    return damage.filter(|_| hides).map_or(Ok(()), Err);
                }
                Step::End => break,
                Step::Damaged(kind) => {
                    damage.get_or_insert(walk.damaged(reached, kind));
                    if !walk.pass_damage()? {
                        break;
                    }
                }
            }
        }
    }
    damage.map_or(Ok(()), Err)
}

/// The first whole batch in these segments, from this one on.
fn first_from(segments: &[Arc<Segment>], index: usize) -> Result<Option<BatchHeader>> {
    for segment in segments.iter().skip(index) {
        if let Some(batch) = first_at(segment, SegmentHeader::SIZE)? {
            return Ok(Some(batch));
        }
    }
    Ok(None)
}

/// The first whole batch of a segment from a position on.
fn first_at(segment: &Arc<Segment>, position: usize) -> Result<Option<BatchHeader>> {
    let mut walk = Walk::at(Arc::clone(segment), position)?;
    loop {
        match walk.step()? {
            Step::Batch(batch) => return Ok(Some(batch)),
            Step::End => return Ok(None),
            Step::Damaged(_) => {
                if !walk.pass_damage()? {
                    return Ok(None);
                }
            }
        }
    }
}

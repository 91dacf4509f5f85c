//! Plans the copy of a damaged partition, from the findings of recovery. Pure.
//!
//! [`plan`] gets the [`Facts`] of the segments and the [`Decision`] that [`judge`] made on them. It
//! says which stretches make up which new segment, and which offsets are lost. The rules:
//!
//! 1. Exactly the stretches that count are copied, in order; recovery says which count.
//! 2. New segments follow one another without a gap, so that a reader passes missing offsets as it
//!    passes those that compaction has removed. A hole belongs to the segment after it, one at the
//!    end to the last segment.
//! 3. Offsets of one segment differ by less than 2^32. A wider hole, which no log of this crate
//!    has, remains a gap between segments, which readers report.
//! 4. There is at least one segment: a log without any record has an end too.

use std::ops::Range;

use super::RecordedEnds;
use crate::log::OFFSET_MAX;
use crate::log::recovery::{Action, Decision, Facts, Lost, bounds, decide, without_leftovers};
use crate::log::scan::Stretch;

/// LIMIT: how far the offsets of a segment reach, by the width of the index and of a batch's last
/// offset.
const SPAN_MAX: u64 = u32::MAX as u64;

/// A new segment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Piece {
    /// Which of the old segments it holds; `None` if it only stands for offsets.
    pub(super) segment: Option<usize>,
    /// The positions of the batches there.
    pub(super) ranges: Vec<Range<u32>>,
    pub(super) base_offset: u64,
    pub(super) next_offset: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// The log start offset, as far as it is known; otherwise where the first segment begins.
    pub(super) start_offset: u64,
    pub(super) end_offset: u64,
    /// Never empty.
    pub(super) pieces: Vec<Piece>,
    /// In order, and apart from one another.
    pub(super) lost: Vec<Range<u64>>,
}

/// Decides as an opening does, but tears nothing off: what is whole counts, and what is missing
/// before it is missed. Only where a clean close says that the log ends it has decided before.
pub(super) fn judge(segments: &[Facts], lost: &[Lost], recorded: &RecordedEnds) -> Decision {
    let RecordedEnds { log_start, proved, is_end } = *recorded;
    if is_end {
        let mut decision = decide(segments, lost, proved, log_start);
        end_as_closed(&mut decision, proved);
        return decision;
    }
    let bounds = bounds(segments);
    let mut reached = proved;
    // What a rewrite has made void proves nothing.
    for index in without_leftovers(segments) {
        if let (Some(facts), Some(bound)) = (segments.get(index), bounds.get(index)) {
            let ends = facts.stretches.iter().map(|stretch| stretch.next_offset);
            reached = ends.filter(|end| end <= bound).fold(reached, u64::max);
        }
    }
    decide(segments, lost, reached, log_start)
}

/// What a file without its header may have held does not follow where a clean close says that
/// the log ends.
fn end_as_closed(decision: &mut Decision, closed_at: u64) {
    let kept = decision.actions.iter().filter_map(|action| match *action {
        Action::Keep { next_offset, .. } => Some(next_offset),
        Action::Leave | Action::Remove => None,
    });
    let end = kept.fold(closed_at, u64::max).min(decision.end_offset);
    decision.end_offset = end;
    for damage in &mut decision.damage {
        damage.offsets = damage.offsets.start.min(end)..damage.offsets.end.min(end);
    }
}

/// Plans. `start` is the log start offset, if it is known.
pub(super) fn plan(segments: &[Facts], decision: &Decision, start: Option<u64>) -> Plan {
    let lost = lost(decision);
    let counted = counted(segments, decision);
    let end_offset = decision.end_offset;
    let first_lost = lost.first().map(|lost| lost.start);
    let first_found = counted.first().map(|(_, stretch)| stretch.base_offset);
    let nothing = start.unwrap_or(end_offset).min(end_offset);
    let base_offset = match (first_found, first_lost) {
        (Some(found), Some(lost)) => found.min(lost),
        (Some(base), None) | (None, Some(base)) => base,
        (None, None) => nothing,
    }
    .min(end_offset);
    let mut pieces = Pieces { pieces: Vec::new(), reached: base_offset };
    for (segment, stretch) in counted {
        pieces.add(segment, &stretch);
    }
    pieces.end_at(end_offset);
    let pieces = pieces.pieces;
    let base_offset = pieces.first().map_or(base_offset, |first| first.base_offset);
    let start_offset = start.unwrap_or(base_offset).max(base_offset).min(end_offset);
    Plan { start_offset, end_offset, pieces, lost }
}

/// The stretches that recovery would have readers see, with their segments (its rules 3 to 5).
fn counted(segments: &[Facts], decision: &Decision) -> Vec<(usize, Stretch)> {
    let mut counted: Vec<(usize, Stretch)> = Vec::new();
    let mut reached = 0;
    let bounds = bounds(segments);
    let each = segments.iter().zip(&decision.actions).zip(bounds).enumerate();
    for (index, ((facts, action), bound)) in each {
        let Action::Keep { data_end, .. } = *action else { continue };
        let had = counted.len();
        // No log has offsets beyond the last one, whatever a forged batch says.
        let counts = |it: &&Stretch| it.end <= data_end && it.next_offset <= OFFSET_MAX;
        for stretch in facts.stretches.iter().filter(counts) {
            if stretch.base_offset >= bound && counted.len() > had {
                break;
            }
            if stretch.base_offset >= reached {
                reached = stretch.next_offset;
                counted.push((index, *stretch));
            }
        }
    }
    counted
}

fn lost(decision: &Decision) -> Vec<Range<u64>> {
    let mut gaps: Vec<Range<u64>> = decision
        .damage
        .iter()
        // A forged file may claim any.
        .map(|it| it.offsets.start.min(OFFSET_MAX)..it.offsets.end.min(OFFSET_MAX))
        .filter(|offsets| !offsets.is_empty())
        .collect();
    gaps.sort_by_key(|gap| gap.start);
    let mut lost: Vec<Range<u64>> = Vec::with_capacity(gaps.len());
    for gap in gaps {
        match lost.last_mut().filter(|before| gap.start <= before.end) {
            Some(before) => before.end = before.end.max(gap.end),
            None => lost.push(gap),
        }
    }
    lost
}

struct Pieces {
    pieces: Vec<Piece>,
    /// The offset at which the next piece begins.
    reached: u64,
}

impl Pieces {
    fn add(&mut self, segment: usize, stretch: &Stretch) {
        let range = stretch.start..stretch.end;
        if let Some(last) = self.pieces.last_mut()
            && last.segment == Some(segment)
            && stretch.next_offset.saturating_sub(last.base_offset) <= SPAN_MAX
        {
            last.ranges.push(range);
            last.next_offset = stretch.next_offset;
        } else {
            let is_near = stretch.next_offset.saturating_sub(self.reached) <= SPAN_MAX;
            let base_offset = if is_near { self.reached } else { stretch.base_offset };
            let (segment, ranges) = (Some(segment), vec![range]);
            self.pieces.push(Piece {
                segment,
                ranges,
                base_offset,
                next_offset: stretch.next_offset,
            });
        }
        self.reached = stretch.next_offset;
    }

    fn end_at(&mut self, end: u64) {
        match self.pieces.last_mut() {
            Some(last) if end.saturating_sub(last.base_offset) <= SPAN_MAX => {
                last.next_offset = last.next_offset.max(end);
            }
            _ => {
                let is_near = end.saturating_sub(self.reached) <= SPAN_MAX;
                let base_offset = if is_near { self.reached } else { end };
                self.pieces.push(Piece { base_offset, next_offset: end, ..Piece::default() });
            }
        }
    }
}

#[cfg(test)]
mod tests;

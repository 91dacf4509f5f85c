//! Finds the position of an offset or of a time in a log.
//!
//! An index only says where to begin the search; the batches decide.

use std::sync::Arc;

use super::Log;
use super::segment::{Segment, SegmentList};
use crate::error::Result;
use crate::format::{SegmentHeader, SparseIndex};

/// Where to begin reading: at the start of a batch at or before the one wanted.
#[derive(Debug, Clone)]
pub(crate) struct SegmentPosition {
    pub(crate) segment: Arc<Segment>,
    pub(crate) position: usize,
}

/// The index of a segment without a footer, which only the log has, and whether it covers the
/// segment from its start.
fn index_in_memory<'a>(log: &'a Log, segment: &Segment) -> Option<(&'a SparseIndex, bool)> {
    let active = log.appender().active().filter(|it| it.segment().number == segment.number);
    if let Some(active) = active {
        return Some((&active.contents().index, active.contents().index_is_whole));
    }
    let unfinished = log.backlog().without_footer(segment.number)?;
    Some((&unfinished.index, unfinished.index_is_whole))
}

/// The index of a segment whose index only the log has: the active one, or one that has no footer
/// yet.
pub(crate) fn index_of<'a>(log: &'a Log, segment: &Segment) -> Option<&'a SparseIndex> {
    index_in_memory(log, segment).map(|(index, _)| index)
}

/// The index of a segment whose index only the log has; an empty one if that index does not cover
/// the segment from its start: good enough to find an offset above it, not to say that no batch is
/// below.
pub(crate) fn whole_index_of(log: &Log, segment: &Segment) -> Option<SparseIndex> {
    let (index, is_whole) = index_in_memory(log, segment)?;
    Some(if is_whole { index.clone() } else { SparseIndex::new(segment.base_offset) })
}

/// The position of `offset`, without the log's lock where the segment's footer has the index.
/// `index_of` reads the log.
pub(crate) fn position_of_offset(
    segments: &SegmentList,
    offset: u64,
    index_of: impl Fn(&Segment) -> Option<usize>,
) -> Result<Option<SegmentPosition>> {
    loop {
        let Some(segment) = segments.holding(offset) else {
            return Ok(None);
        };
        let footer = match index_of(&segment) {
            Some(position) => return Ok(Some(SegmentPosition { segment, position })),
            None => segment.read_footer(),
        };
        match footer {
            Ok(footer) => {
                let position =
                    footer.map_or(SegmentHeader::SIZE, |footer| floor(&footer.index, offset));
                return Ok(Some(SegmentPosition { segment, position }));
            }
            // It was replaced or removed since it was looked up, and its file with it.
            Err(_) if !segments.contains(&segment) => {}
            Err(error) => return Err(error),
        }
    }
}

/// The position at which to begin looking for `offset`.
pub(crate) fn floor(index: &SparseIndex, offset: u64) -> usize {
    index.floor(offset) as usize
}

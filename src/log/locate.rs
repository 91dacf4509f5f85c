//! Finding the place of an offset or a moment in a log.
//!
//! Indexes only say where to begin looking; what is found is always decided by the batches.

use std::sync::Arc;

use super::Log;
use super::segment::{Segment, SegmentList};
use crate::error::Result;
use crate::format::{SegmentHeader, SparseIndex};

/// Where to begin reading: at the start of a batch at or before the one wanted.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) segment: Arc<Segment>,
    pub(crate) position: usize,
}

impl Log {
    /// The place of `offset` in a segment whose index only the log has: the active one, or one
    /// that has no footer yet.
    pub(crate) fn index_of(&self, segment: &Segment) -> Option<&SparseIndex> {
        if let Some(active) = &self.active
            && active.segment.number == segment.number
        {
            return Some(&active.index);
        }
        Some(&self.backlog.without_footer(segment.number)?.index)
    }

    /// As [`index_of`](Self::index_of), but empty where the index does not cover the segment from
    /// its start: good enough to find an offset above it, not to say that nothing lies below.
    pub(crate) fn whole_index_of(&self, segment: &Segment) -> Option<SparseIndex> {
        let index = self.index_of(segment)?;
        let active = self.active.as_ref().filter(|it| it.segment.number == segment.number);
        let unfinished = || self.backlog.without_footer(segment.number);
        let whole = match active {
            Some(active) => active.index_is_whole,
            None => unfinished().is_some_and(|it| it.index_is_whole),
        };
        Some(if whole { index.clone() } else { SparseIndex::new(segment.base_offset) })
    }
}

/// The place of `offset`, without the log's lock where the segment's footer has the index.
/// `index_of` asks the log.
pub(crate) fn place_of_offset(
    segments: &SegmentList,
    offset: u64,
    index_of: impl Fn(&Segment) -> Option<usize>,
) -> Result<Option<Place>> {
    loop {
        let Some(segment) = segments.holding(offset) else {
            return Ok(None);
        };
        let footer = match index_of(&segment) {
            Some(position) => return Ok(Some(Place { segment, position })),
            None => segment.read_footer(),
        };
        match footer {
            Ok(footer) => {
                let position =
                    footer.map_or(SegmentHeader::SIZE, |footer| floor(&footer.index, offset));
                return Ok(Some(Place { segment, position }));
            }
            // Replaced or removed since it was looked up, and its file with it.
            Err(_) if !segments.contains(&segment) => {}
            Err(error) => return Err(error),
        }
    }
}

/// The position at which to begin looking for `offset`.
pub(crate) fn floor(index: &SparseIndex, offset: u64) -> usize {
    index.floor(offset) as usize
}

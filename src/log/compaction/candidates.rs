//! The segments of a log that can be compacted now.
//!
//! Owns: a list of segments, as it was at one moment. Must not know: how they are compacted.

use std::sync::Arc;

use super::plan::{self, Input};
use crate::format::Footer;
use crate::log::Log;
use crate::log::segment::Segment;

/// The sealed segments that are durable and will not get a footer any more, from the log start on.
/// Never the last segment, which is active or after which the next one begins.
pub(crate) struct Candidates {
    segments: Vec<Arc<Segment>>,
    log_start: u64,
}

impl Candidates {
    /// Those that end at `limit` or below: what lies above the high watermark may still be
    /// truncated, so it is not compacted, and no record below is removed because of it.
    pub(crate) fn of(log: &Log, limit: u64) -> Self {
        let mut segments = log.segments().all();
        segments.pop();
        let backlog = log.backlog();
        segments.retain(|segment| {
            let is_below = segment.next_offset().is_some_and(|end| end <= limit);
            is_below && backlog.is_finished(segment)
        });
        Self { segments, log_start: log.log_start() }
    }

    pub(super) fn into_segments(self) -> Vec<Arc<Segment>> {
        self.segments
    }

    /// The end of what can be compacted now.
    pub(crate) fn end(&self) -> u64 {
        let last = self.segments.last().and_then(|last| last.next_offset());
        last.unwrap_or(self.log_start)
    }

    /// How much of these segments is not compacted.
    pub(crate) fn dirt(&self) -> plan::Dirt {
        plan::survey(self.segments.iter().map(|segment| input(segment)), self.log_start)
    }

    /// When a compaction is useful even without dirt: the first tombstone can be removed then.
    pub(crate) fn next_horizon(&self) -> u64 {
        let horizons = self.segments.iter().map(|segment| segment.next_horizon());
        horizons.min().unwrap_or(Footer::NO_HORIZON)
    }
}

/// A segment as the plan of a compaction sees it.
pub(super) fn input(segment: &Segment) -> Input {
    Input {
        base_offset: segment.base_offset,
        next_offset: segment.next_offset().unwrap_or(segment.base_offset),
        bytes: data_bytes(segment),
        is_clean: segment.is_clean,
    }
}

/// The size of a segment's batches.
pub(super) fn data_bytes(segment: &Segment) -> u64 {
    segment.sealed().map_or(0, |sealed| u64::from(sealed.data_end))
}

//! Recovery points: the state of a partition's log, stored so that an opening reads less.
//!
//! Owns: the stored form. Must not know: files, other logs. All data that a point describes was
//! synced before the point was written. If a point is lost or old, the opening scans more.

use serde::{Deserialize, Serialize};

use super::OFFSET_MAX;
use crate::error::CorruptionKind;
use crate::format::{ProducerState, TimeRange};

/// A recovery point. Kept in `__local`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    pub(crate) log_start: u64,
    pub(crate) end_offset: u64,
    /// The segment in which the log ended, and where.
    pub(crate) segment: u64,
    pub(crate) position: u32,
    pub(crate) last_batch: u32,
    pub(crate) times: Option<(u64, u64)>,
    pub(crate) producers: Vec<(u64, u32, u64, u64, u64)>,
    /// Wall-clock times: from when the age of the segment counts, and when its first record was
    /// appended.
    pub(crate) ages: Option<(u64, u64)>,
    /// Whether a version wrote it whose times were those of one run.
    #[serde(skip)]
    pub(crate) is_of_one_run: bool,
}

impl Checkpoint {
    /// The producers that it knows.
    pub(super) fn producer_states(&self) -> impl Iterator<Item = ProducerState> {
        self.producers.iter().map(from_tuple)
    }

    /// Checks the values of the point. They are still compared with the files.
    pub(crate) fn check(&self) -> Result<(), CorruptionKind> {
        if self.log_start > self.end_offset || self.end_offset > OFFSET_MAX {
            return Err(CorruptionKind::Malformed("a recovery point's offsets"));
        }
        if self.last_batch > self.position {
            return Err(CorruptionKind::Malformed("a recovery point's position"));
        }
        Ok(())
    }

    pub(crate) fn times(&self) -> Option<TimeRange> {
        let (first, max) = self.times?;
        // If the point has no times, the age counts from the timestamps.
        let aged_from = self.ages.map_or(max, |(aged_from, _)| aged_from);
        Some(if self.is_of_one_run {
            TimeRange::of_one_run(first, max, aged_from)
        } else {
            TimeRange { first, max, aged_from, since: aged_from }
        })
    }
}

/// The stored form of a log's producers.
pub(super) fn stored(producers: &[ProducerState]) -> Vec<(u64, u32, u64, u64, u64)> {
    producers.iter().map(to_tuple).collect()
}

fn to_tuple(state: &ProducerState) -> (u64, u32, u64, u64, u64) {
    (state.id, state.epoch, state.last_sequence, state.last_offset, state.last_timestamp)
}

fn from_tuple(
    &(id, epoch, last_sequence, last_offset, last_timestamp): &(u64, u32, u64, u64, u64),
) -> ProducerState {
    ProducerState { id, epoch, last_sequence, last_offset, last_timestamp }
}

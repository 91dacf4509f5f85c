//! The sparse index of one segment: where to start scanning for an offset or a time.
//!
//! Owns: one row per interval of at most [`INTERVAL_SIZE_MAX`] bytes of batches. Must not know:
//! what is stored at a position. An index saves reading; the batches decide. Invariants:
//!
//! 1. Offsets and positions rise strictly; maximum timestamps never fall.
//! 2. No batch before the position that `floor(o)` returns reaches to `o` or beyond, and none
//!    before the one that `first_at_or_after_time(t)` returns has a timestamp of `t` or later.
//!
//! Pure; owned by one segment, under its partition's lock while it grows.

use super::segment::SegmentHeader;

/// LIMIT: a seek reads at most this much in vain (a few µs), and 64 MiB need 2,048 rows.
pub(crate) const INTERVAL_SIZE_MAX: u32 = 32 * 1024;

/// One interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexRow {
    /// The base offset of the interval's first batch, relative to the segment's.
    pub(crate) offset_delta: u32,
    /// The position of the interval's first batch.
    pub(crate) position: u32,
    /// The greatest timestamp in the segment up to the end of this interval.
    pub(crate) max_timestamp: u64,
}

/// Where to start scanning a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SparseIndex {
    base_offset: u64,
    rows: Vec<IndexRow>,
}

impl SparseIndex {
    /// The index of a segment that has no batches yet.
    pub(crate) fn new(base_offset: u64) -> Self {
        Self { base_offset, rows: Vec::new() }
    }

    /// Takes rows as a footer has them, or gives `None` if they break invariant 1.
    pub(super) fn from_rows(base_offset: u64, rows: Vec<IndexRow>) -> Option<Self> {
        let ordered = rows.is_sorted_by(|left, right| {
            left.offset_delta < right.offset_delta
                && left.position < right.position
                && left.max_timestamp <= right.max_timestamp
        });
        ordered.then_some(Self { base_offset, rows })
    }

    /// Takes note of a batch with records, in the order of the log.
    #[inline]
    pub(crate) fn note_batch(
        &mut self,
        base_offset: u64,
        position: u32,
        size: u32,
        max_timestamp: u64,
    ) {
        let end = position.saturating_add(size);
        let mut running = max_timestamp;
        if let Some(last) = self.rows.last_mut() {
            running = running.max(last.max_timestamp);
            if end.saturating_sub(last.position) <= INTERVAL_SIZE_MAX {
                last.max_timestamp = running;
                return;
            }
        }
        self.begin_interval(base_offset, position, running);
    }

    /// A batch too far from the segment's base offset for 32 bits, or out of order, gets no row of
    /// its own: it is found by scanning on from the last row, which now covers it.
    fn begin_interval(&mut self, base_offset: u64, position: u32, max_timestamp: u64) {
        let delta = base_offset.checked_sub(self.base_offset);
        let row = delta.and_then(|delta| u32::try_from(delta).ok()).map(|offset_delta| IndexRow {
            offset_delta,
            position,
            max_timestamp,
        });
        match (row, self.rows.last_mut()) {
            (Some(row), None) => self.rows.push(row),
            (Some(row), Some(last))
                if row.offset_delta > last.offset_delta && position > last.position =>
            {
                self.rows.push(row);
            }
            (_, Some(last)) => last.max_timestamp = max_timestamp,
            (None, None) => {}
        }
    }

    /// The position to start scanning from for `offset`; the first batch, where nothing is known.
    #[inline]
    pub(crate) fn floor(&self, offset: u64) -> u32 {
        let delta = offset.saturating_sub(self.base_offset);
        let above = self.rows.partition_point(|row| u64::from(row.offset_delta) <= delta);
        let row = above.checked_sub(1).and_then(|at| self.rows.get(at));
        row.map_or(SegmentHeader::END_POSITION, |row| row.position)
    }

    /// The position to start scanning from for the first record at or after a time; `None` when no
    /// batch that was noted has one.
    #[inline]
    pub(crate) fn first_at_or_after_time(&self, timestamp: u64) -> Option<u32> {
        let at = self.rows.partition_point(|row| row.max_timestamp < timestamp);
        self.rows.get(at).map(|row| row.position)
    }

    /// The rows, in order.
    pub(crate) fn rows(&self) -> &[IndexRow] {
        &self.rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u32 = SegmentHeader::END_POSITION;

    /// 100 batches of 10 KiB, ten offsets each; every third is older than the one before.
    fn filled(base_offset: u64) -> (SparseIndex, Vec<(u64, u32, u64)>) {
        let mut index = SparseIndex::new(base_offset);
        let mut batches = Vec::new();
        for n in 0..100_u32 {
            let position = START + n * 10_240;
            let timestamp = u64::from(if n % 3 == 2 { n - 2 } else { n }) * 1000;
            let offset = base_offset + u64::from(n) * 10;
            index.note_batch(offset, position, 10_240, timestamp);
            batches.push((offset, position, timestamp));
        }
        (index, batches)
    }

    #[test]
    fn floor_never_passes_the_batch_and_never_lies_far_before_it() {
        let (index, batches) = filled(5000);
        for (offset, position, _) in &batches {
            for within in 0..10 {
                let floor = index.floor(offset + within);
                assert!(floor <= *position && position - floor < INTERVAL_SIZE_MAX);
            }
        }
        assert_eq!(index.floor(0), START);
        assert_eq!(index.floor(u64::MAX), index.rows().last().unwrap().position);
    }

    #[test]
    fn a_time_is_never_passed_even_when_timestamps_go_back() {
        let (index, batches) = filled(0);
        for wanted in (0..99_000).step_by(500) {
            let first = batches.iter().find(|batch| batch.2 >= wanted);
            let found = index.first_at_or_after_time(wanted);
            match first {
                Some((_, position, _)) => assert!(found.unwrap() <= *position, "{wanted}"),
                None => assert_eq!(found, None, "{wanted}"),
            }
        }
        assert_eq!(index.first_at_or_after_time(u64::MAX), None);
    }

    #[test]
    fn an_empty_index_sends_every_seek_to_the_first_batch() {
        let index = SparseIndex::new(7);
        assert_eq!([0, 7, u64::MAX].map(|offset| index.floor(offset)), [START; 3]);
        assert_eq!(index.first_at_or_after_time(0), None);
    }

    #[test]
    fn batches_too_far_for_a_row_are_found_from_the_row_before() {
        let mut index = SparseIndex::new(10);
        index.note_batch(10, 128, 40_000, 5);
        index.note_batch(10 + (1 << 33), 41_000, 40_000, 9);
        index.note_batch(3, 90_000, 40_000, 2);
        assert_eq!(index.rows().len(), 1);
        assert_eq!(index.floor(u64::MAX), 128);
        assert_eq!(index.first_at_or_after_time(9), Some(128));
        index.note_batch(u64::MAX, u32::MAX, u32::MAX, u64::MAX);
        assert_eq!(index.first_at_or_after_time(u64::MAX), Some(128));
    }

    #[test]
    fn extreme_offsets_and_positions_fit() {
        let mut index = SparseIndex::new(u64::MAX - 10);
        index.note_batch(u64::MAX - 10, 128, 40_000, 0);
        index.note_batch(u64::MAX - 1, u32::MAX - 3, 4, u64::MAX);
        assert_eq!(index.floor(u64::MAX), u32::MAX - 3);
        assert_eq!(index.floor(u64::MAX - 2), 128);
    }
}

//! The counts of a partition, and a snapshot of them.
//!
//! Appenders count in plain fields under the partition's lock, which they hold anyway. Readers
//! count in atomics on a cache line of their own, once per fetch. Counts begin at zero when the
//! broker is opened.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::log::retention::SegmentFacts;
use crate::log::segment::Segment;
use crate::log::tasks::SyncTask;
use crate::sync::{AtomicU64, Ordering};

/// How long an operation took, each time: a histogram with fixed buckets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LatencyHistogram {
    /// Times by duration in microseconds. Bucket 0 holds those below 1 µs, bucket `n` those in
    /// `[2^(n-1), 2^n)` µs, and the last one all from 2^23 µs (8.4 seconds) on.
    pub buckets: [u64; Self::BUCKETS],
    /// How many times there were: the sum of the buckets.
    pub count: u64,
    /// The sum of all times, in microseconds.
    pub sum_micros: u64,
    /// The longest time, in microseconds.
    pub max_micros: u64,
}

impl LatencyHistogram {
    /// How many buckets there are: the bounds double from 1 microsecond to 8.4 seconds, which the
    /// last one exceeds.
    pub const BUCKETS: usize = 25;

    /// The exclusive upper bound of a bucket in microseconds; `None` for the last, which has none.
    #[must_use]
    pub fn upper_bound_micros(bucket: usize) -> Option<u64> {
        let is_bounded = bucket < Self::BUCKETS - 1;
        is_bounded.then(|| 1 << bucket)
    }

    fn new() -> Self {
        Self { buckets: [0; Self::BUCKETS], count: 0, sum_micros: 0, max_micros: 0 }
    }

    fn note(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bits = (u64::BITS - micros.leading_zeros()) as usize;
        if let Some(bucket) = self.buckets.get_mut(bits.min(Self::BUCKETS - 1)) {
            *bucket += 1;
        }
        self.count += 1;
        self.sum_micros = self.sum_micros.saturating_add(micros);
        self.max_micros = self.max_micros.max(micros);
    }
}

/// What was appended to a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AppendMetrics {
    /// Batches: what one `send`, or one call with many records, adds to a partition.
    pub batches: u64,
    /// Records. The log end has moved by this number since the broker was opened.
    pub records: u64,
    /// Bytes of the batches as they are stored, headers and padding included.
    pub bytes: u64,
}

/// What consumers and [`Partition::read`](crate::Partition::read) fetched from a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FetchMetrics {
    /// Fetches that found records: at most one per partition and `poll`.
    pub fetches: u64,
    /// Records, once for each consumer that fetched them, and again after a `seek` back or after
    /// the consumer has lost the partition meanwhile. Records that were read ahead for
    /// [`recv`](crate::Consumer::recv) and are read again, as after `pause`, count once.
    pub records: u64,
    /// Bytes of their batches as they are stored. A batch that is fetched in parts counts each
    /// time.
    pub bytes: u64,
    /// How often records were removed before a consumer read them.
    pub gaps: u64,
    /// Offsets that consumers missed because their records were removed.
    pub gap_offsets: u64,
    /// How often a consumer skipped damage, with
    /// [`RecoveryPolicy::ReadAroundDamage`](crate::RecoveryPolicy::ReadAroundDamage).
    pub damage: u64,
    /// Offsets that consumers skipped as damaged.
    pub damage_offsets: u64,
}

/// What retention, `delete_records` and the byte budget removed from a partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RemovalMetrics {
    /// Segments that were removed.
    pub segments: u64,
    /// Bytes of batches in them.
    pub bytes: u64,
    /// Offsets by which the log start has moved. Without compaction, as many records.
    pub offsets: u64,
}

/// How far a partition is compacted, and what compaction did since the broker was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CompactionStats {
    /// Whether a compaction is running.
    pub is_running: bool,
    /// Below this offset no key occurs twice.
    pub compacted_up_to: u64,
    /// Bytes of full segments below that offset.
    pub clean_bytes: u64,
    /// Bytes of full segments above that offset, without the last segment, which takes the appends.
    pub dirty_bytes: u64,
    /// Compactions that were completed.
    pub compactions: u64,
    /// Compactions that failed; they are tried again after a minute.
    pub failures: u64,
    /// Passes over the log.
    pub passes: u64,
    /// Segments that were replaced.
    pub segments_read: u64,
    /// Segments that replaced them.
    pub segments_written: u64,
    /// Records that were removed, tombstones included.
    pub records_removed: u64,
    /// Tombstones that were removed when their time was over.
    pub tombstones_removed: u64,
    /// Bytes of the segments that were replaced.
    pub bytes_before: u64,
    /// Bytes of the segments that replaced them.
    pub bytes_after: u64,
}

/// The metrics of one partition. Counters begin at zero when the broker is opened.
///
/// All are of one moment, unless a field says otherwise. So `log_start_offset <= durable_end_offset
/// <= log_end_offset`, and the log end offset has risen by `appended.records` since the opening.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PartitionMetrics {
    /// The partition's number.
    pub partition: u32,
    /// The first offset that can be read.
    pub log_start_offset: u64,
    /// All records below this offset are on stable storage.
    pub durable_end_offset: u64,
    /// The offset of the next record.
    pub log_end_offset: u64,
    /// Whether it takes no appends until the broker is opened again, after a failed sync or a
    /// panic.
    pub is_poisoned: bool,
    /// Whether its directory or a file in it was missing or unreadable at the opening. Then nothing
    /// can be read or appended until the broker is opened again, and the offsets are the last ones
    /// that were recorded.
    pub is_unavailable: bool,
    /// Segment files of the log, including the one that takes the appends.
    pub segments: usize,
    /// Allocated bytes of its segments, of the next segment if it is prepared, and of removed ones
    /// that could not be unlinked yet. Read just before the rest, segment by segment.
    pub bytes_on_disk: u64,
    /// Bytes of removed segments that use disk space until the messages or consumers that map them
    /// are dropped. Read before the rest.
    pub pinned_bytes: u64,
    /// Appends.
    pub appended: AppendMetrics,
    /// Fetches. Read just before the rest, so that, without `seek`, one reader never shows more
    /// records than the log has.
    pub fetched: FetchMetrics,
    /// Durations of the syncs that succeeded, on the broker's clock.
    pub syncs: LatencyHistogram,
    /// Removed segments.
    pub removed: RemovalMetrics,
    /// Compaction; `None` if the topic is not compacted. Read just before the rest.
    pub compaction: Option<CompactionStats>,
}

impl PartitionMetrics {
    /// The end of what may be read: after a failed sync, only what is durable.
    pub(crate) fn readable_end(&self) -> u64 {
        if self.is_poisoned { self.durable_end_offset } else { self.log_end_offset }
    }
}

/// What is counted under the partition's lock.
#[derive(Debug)]
pub(super) struct Counts {
    end_at_open: u64,
    batches: u64,
    bytes: u64,
    removed: RemovalMetrics,
    syncs: LatencyHistogram,
}

impl Counts {
    pub(super) fn since(log_end: u64) -> Self {
        Self {
            end_at_open: log_end,
            batches: 0,
            bytes: 0,
            removed: RemovalMetrics::default(),
            syncs: LatencyHistogram::new(),
        }
    }

    #[inline]
    pub(super) fn note_append(&mut self, bytes: u64) {
        self.batches += 1;
        self.bytes = self.bytes.wrapping_add(bytes);
    }

    pub(super) fn appended(&self, log_end: u64) -> AppendMetrics {
        let records = log_end.saturating_sub(self.end_at_open);
        AppendMetrics { batches: self.batches, records, bytes: self.bytes }
    }

    pub(super) fn syncs(&self) -> &LatencyHistogram {
        &self.syncs
    }

    pub(super) fn removed(&self) -> RemovalMetrics {
        self.removed
    }

    /// Notes a sync that succeeded.
    pub(super) fn note_sync(&mut self, task: &SyncTask, took: Duration) {
        if !task.is_empty() {
            self.syncs.note(took);
        }
    }

    pub(super) fn note_removal(&mut self, passed: Range<u64>, gone: &[Arc<Segment>]) {
        self.removed.segments += gone.len() as u64;
        self.removed.offsets += passed.end.saturating_sub(passed.start);
        let facts = gone.iter().filter_map(|segment| SegmentFacts::of(segment));
        self.removed.bytes += facts.map(|facts| facts.bytes).sum::<u64>();
    }
}

/// What readers count.
///
/// ORDERING: added with Release by a reader, which has seen the log end that covers what it counts;
/// loaded with Acquire before the partition's lock is taken to read that end. With Relaxed the
/// load could come after, and a snapshot show more records fetched than appended.
#[derive(Debug)]
pub(super) struct ReadCounts {
    fetches: AtomicU64,
    records: AtomicU64,
    bytes: AtomicU64,
    gaps: AtomicU64,
    gap_offsets: AtomicU64,
    damage: AtomicU64,
    damage_offsets: AtomicU64,
}

impl ReadCounts {
    pub(super) fn new() -> Self {
        Self {
            fetches: AtomicU64::new(0),
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            gaps: AtomicU64::new(0),
            gap_offsets: AtomicU64::new(0),
            damage: AtomicU64::new(0),
            damage_offsets: AtomicU64::new(0),
        }
    }

    #[inline]
    pub(super) fn note_fetch(&self, records: usize, bytes: usize) {
        if records > 0 {
            self.fetches.fetch_add(1, Ordering::Release);
            self.records.fetch_add(records as u64, Ordering::Release);
            self.bytes.fetch_add(bytes as u64, Ordering::Release);
        }
    }

    pub(super) fn load(&self) -> FetchMetrics {
        let load = |count: &AtomicU64| count.load(Ordering::Acquire);
        FetchMetrics {
            fetches: load(&self.fetches),
            records: load(&self.records),
            bytes: load(&self.bytes),
            gaps: load(&self.gaps),
            gap_offsets: load(&self.gap_offsets),
            damage: load(&self.damage),
            damage_offsets: load(&self.damage_offsets),
        }
    }

    pub(super) fn note_gap(&self, offsets: u64) {
        self.gaps.fetch_add(1, Ordering::Release);
        self.gap_offsets.fetch_add(offsets, Ordering::Release);
    }

    pub(super) fn note_damage_passed(&self, offsets: u64) {
        self.damage.fetch_add(1, Ordering::Release);
        self.damage_offsets.fetch_add(offsets, Ordering::Release);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn a_latency_is_counted_in_the_bucket_whose_bounds_hold_it() {
        let mut histogram = LatencyHistogram::new();
        let micros = [0, 1, 2, 3, 4, 1_000, (1 << 23) - 1, 1 << 23, u64::from(u32::MAX)];
        for micros in micros {
            let before = histogram.clone();
            histogram.note(Duration::from_micros(micros));
            let grown = |index: &usize| histogram.buckets[*index] > before.buckets[*index];
            let bucket = (0..LatencyHistogram::BUCKETS).find(grown).unwrap();
            let below = bucket.checked_sub(1).and_then(LatencyHistogram::upper_bound_micros);
            assert!(below.is_none_or(|below| below <= micros), "{micros} in {bucket}");
            let above = LatencyHistogram::upper_bound_micros(bucket);
            assert!(above.is_none_or(|above| micros < above), "{micros} in {bucket}");
        }
        assert_eq!(histogram.count, micros.len() as u64);
        assert_eq!(histogram.buckets.iter().sum::<u64>(), histogram.count);
        assert_eq!(histogram.sum_micros, micros.iter().sum::<u64>());
        assert_eq!(histogram.max_micros, u64::from(u32::MAX));
    }
}

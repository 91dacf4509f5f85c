//! What a partition counts, and all its numbers at one moment.
//!
//! Appenders count in plain fields under the partition's lock, which they hold anyway; readers in
//! atomics on a line of their own, once per fetch. Counts begin at zero when the broker is opened.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::PartitionCore;
use super::compaction::CompactionStats;
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
    /// How many buckets there are.
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
    /// Bytes of their batches as they are stored. A batch that is fetched in parts counts each time.
    pub bytes: u64,
    /// How often records were removed before a consumer read them.
    pub gaps: u64,
    /// Offsets that consumers missed because of it.
    pub gap_offsets: u64,
    /// How often a consumer skipped damage, with
    /// [`RecoveryPolicy::ReadAroundDamage`](crate::RecoveryPolicy::ReadAroundDamage).
    pub damage: u64,
    /// Offsets that could not be read there.
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

/// The numbers of one partition. Counters begin at zero when the broker is opened.
///
/// All are read under the partition's lock at one moment, except where a field says otherwise. So
/// `log_start_offset <= durable_end_offset <= log_end_offset`, and `appended` is exactly what lies
/// between the log end at the opening and `log_end_offset`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PartitionMetrics {
    /// The partition's number.
    pub partition: u32,
    /// The first offset that can be read.
    pub log_start_offset: u64,
    /// Everything below is on stable storage.
    pub durable_end_offset: u64,
    /// The offset of the next record.
    pub log_end_offset: u64,
    /// Whether a sync has failed, so that nothing is appended until the broker is opened again.
    pub is_poisoned: bool,
    /// Whether its directory or a file in it is missing or cannot be read, so that nothing can be
    /// read or appended until the broker is opened again. The ends are then those that were
    /// recorded last.
    pub is_unavailable: bool,
    /// Segments of the log, the active one included.
    pub segments: usize,
    /// Bytes of the partition's files: its segments, the one prepared ahead, and removed ones that
    /// could not be unlinked yet. Read just before the rest, segment by segment.
    pub bytes_on_disk: u64,
    /// Bytes of removed segments that messages or consumers still map. The disk gets them back when
    /// these are dropped. Read before the rest.
    pub pinned_bytes: u64,
    /// What was appended.
    pub appended: AppendMetrics,
    /// What was fetched. Read just before the rest, so that one reader that only moves forward has
    /// never fetched more records than `log_end_offset` says.
    pub fetched: FetchMetrics,
    /// Syncs that had something to do and succeeded, on the broker's clock.
    pub syncs: LatencyHistogram,
    /// What was removed.
    pub removed: RemovalMetrics,
    /// What compaction did; `None` if the topic is not compacted. Read just before the rest.
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

    pub(super) fn note_sync(&mut self, task: &SyncTask, took: Duration, succeeded: bool) {
        if succeeded && !task.is_empty() {
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

    fn load(&self) -> FetchMetrics {
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
}

impl PartitionCore {
    /// Retention went past a reader that had so many offsets before it.
    #[cold]
    pub(crate) fn note_gap(&self, offsets: u64) {
        self.reads.gaps.fetch_add(1, Ordering::Release);
        self.reads.gap_offsets.fetch_add(offsets, Ordering::Release);
    }

    /// A reader went on behind damage that makes so many offsets unreadable.
    #[cold]
    pub(crate) fn note_damage_passed(&self, offsets: u64) {
        self.reads.damage.fetch_add(1, Ordering::Release);
        self.reads.damage_offsets.fetch_add(offsets, Ordering::Release);
    }

    /// All numbers. The lock is held for as long as a few dozen of them take to copy.
    pub(crate) fn metrics(&self, pinned_bytes: u64) -> PartitionMetrics {
        let fetched = self.reads.load();
        let compaction = self.compaction_stats();
        let files = self.segment_bytes().saturating_add(self.leftover_bytes());
        let state = self.state.lock();
        let (log, counts) = (&state.log, &state.counts);
        let prepared = log.appender().prepared().map_or(0, |next| next.claim.bytes());
        PartitionMetrics {
            partition: self.origin.partition,
            log_start_offset: log.log_start(),
            durable_end_offset: log.durable_end(),
            log_end_offset: log.log_end(),
            is_poisoned: state.failure.is_some(),
            is_unavailable: !self.is_available(),
            segments: self.segments.count(),
            bytes_on_disk: files.saturating_add(prepared),
            pinned_bytes,
            appended: AppendMetrics {
                batches: counts.batches,
                records: log.log_end().saturating_sub(counts.end_at_open),
                bytes: counts.bytes,
            },
            fetched,
            syncs: counts.syncs.clone(),
            removed: counts.removed,
            compaction,
        }
    }

    /// What the segments of the log take on the disk. They are looked at a few at a time: there
    /// may be tens of thousands, and the list is what rolls wait for.
    fn segment_bytes(&self) -> u64 {
        const STEP: usize = 64;
        let (mut bytes, mut reached) = (0_u64, None);
        loop {
            let some = self.segments.some_after(reached, STEP);
            let Some(last) = some.last() else { return bytes };
            reached = Some(last.ranks.1);
            bytes = some.iter().fold(bytes, |sum, it| sum.saturating_add(it.claim.bytes()));
        }
    }

    fn leftover_bytes(&self) -> u64 {
        self.leftovers.lock().iter().map(|segment| segment.claim.bytes()).sum()
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

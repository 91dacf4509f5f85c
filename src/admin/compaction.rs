//! Compaction on request.

use std::time::Duration;

use serde::Serialize;

use super::Admin;
use crate::broker::engine::Engine;
use crate::config::Cleanup;
use crate::error::{Error, Result};
use crate::log::compaction::Tally;

/// The result of [`Admin::compact_now`]: sums over all partitions of the topic.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct CompactionReport {
    /// How many partitions the topic has.
    pub partitions: u32,
    /// Passes over their logs: one per partition with full segments, and more if its keys do not
    /// fit into 64 MiB.
    pub passes: u64,
    /// Segments that were replaced.
    pub segments_read: u64,
    /// Segments that replaced them.
    pub segments_written: u64,
    /// Records of the replaced segments that were kept.
    pub records_kept: u64,
    /// Records that were removed, including tombstones.
    pub records_removed: u64,
    /// Tombstones that were removed because their time was over.
    pub tombstones_removed: u64,
    /// Bytes of the segments that were replaced.
    pub bytes_before: u64,
    /// Bytes of the segments that replaced them.
    pub bytes_after: u64,
    /// How long it took, on the broker's clock.
    pub duration: Duration,
}

impl CompactionReport {
    fn of(tally: Tally, partitions: u32, duration: Duration) -> Self {
        Self {
            partitions,
            passes: tally.passes,
            segments_read: tally.segments_read,
            segments_written: tally.segments_written,
            records_kept: tally.records_kept,
            records_removed: tally.records_removed,
            tombstones_removed: tally.tombstones_removed,
            bytes_before: tally.bytes_before,
            bytes_after: tally.bytes_after,
            duration,
        }
    }
}

impl Admin {
    /// Compacts a topic now, whatever its [`min_dirty_ratio`](crate::TopicConfig::min_dirty_ratio):
    /// the latest record of each key is kept, and tombstones whose time is over are removed.
    ///
    /// The last segment of each partition, which takes the appends, is not compacted. Its records
    /// are compacted after a new segment was begun, because it is full or older than
    /// [`segment_age`](crate::TopicConfig::segment_age).
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a topic with [`Cleanup::Delete`], [`Error::UnknownTopic`],
    /// [`Error::ReadOnly`], [`Error::Closed`]. After [`Error::Corrupt`], [`Error::StorageFull`] and
    /// [`Error::Io`] the partition concerned is unchanged or compacted in part, and no record is
    /// lost; the partitions before it are compacted. On a replicated broker [`Error::NotLeader`]: the
    /// followers compact by themselves.
    ///
    /// # Durability
    ///
    /// On return removed records stay removed after any crash, and the kept records of compacted
    /// segments are on stable storage. No crash during the call loses a record that should be kept.
    ///
    /// # Blocking
    ///
    /// Until it is done, which takes seconds per gigabyte. Readers and appenders continue. While
    /// records are appended, and the broker has its background threads, the call pauses between
    /// steps.
    pub fn compact_now(&self, name: &str) -> Result<CompactionReport> {
        let engine: &Engine = self.run();
        engine.leading().check()?;
        let topic = engine.topic(name)?;
        topic.check_writable()?;
        if topic.config.cleanup == Cleanup::Delete {
            let reason = format!("topic {name:?} is not compacted");
            return Err(Error::config("cleanup", reason));
        }
        let begun = engine.clock().monotonic();
        let mut appended = engine.live().appended();
        let mut is_busy = || {
            let now = engine.live().appended();
            std::mem::replace(&mut appended, now) != now
        };
        let mut tally = Tally::default();
        let mut partitions = 0;
        for partition in &topic.partitions {
            tally += partition.compactor().run_now(&mut is_busy)?;
            partitions += 1;
        }
        let duration = engine.clock().monotonic().saturating_sub(begun);
        Ok(CompactionReport::of(tally, partitions, duration))
    }
}

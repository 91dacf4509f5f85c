//! A snapshot of all metrics of a partition.
//!
//! A function over the shared log and the counts. Must not know: the caller.

use super::metrics::{CompactionStats, PartitionMetrics, ReadCounts};
use super::shared::SharedLog;

/// What the files of a partition take on the disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileBytes {
    /// Of segments that left the log and could not be unlinked.
    pub(super) leftover: u64,
    /// Of removed segments that messages or consumers still map.
    pub(super) pinned: u64,
}

/// All numbers of a partition. The lock is held for as long as a few dozen of them take to copy.
pub(super) fn take(
    log: &SharedLog,
    reads: &ReadCounts,
    compaction: Option<CompactionStats>,
    bytes: FileBytes,
) -> PartitionMetrics {
    let fetched = reads.load();
    let files = segment_bytes(log).saturating_add(bytes.leftover);
    let state = log.lock();
    let prepared = state.log().appender().prepared().iter().map(|next| next.claim.bytes()).sum();
    let counts = state.counts();
    PartitionMetrics {
        partition: log.origin().partition,
        log_start_offset: state.log().log_start(),
        durable_end_offset: state.log().durable_end(),
        log_end_offset: state.log().log_end(),
        is_poisoned: state.failure().is_some(),
        is_unavailable: !log.status().is_available(),
        segments: log.segments().count(),
        bytes_on_disk: files.saturating_add(prepared),
        pinned_bytes: bytes.pinned,
        appended: counts.appended(state.log().log_end()),
        fetched,
        syncs: counts.syncs().clone(),
        removed: counts.removed(),
        compaction,
    }
}

/// What the segments of the log take on the disk. They are read a few at a time: there may be tens
/// of thousands, and a roll waits for the lock of the list.
fn segment_bytes(log: &SharedLog) -> u64 {
    /// LIMIT: some microseconds under the lock of the list.
    const STEP: usize = 64;
    let (mut bytes, mut reached) = (0_u64, None);
    loop {
        let some = log.segments().some_after(reached, STEP);
        let Some(last) = some.last() else { return bytes };
        reached = Some(last.ranks.1);
        bytes = some.iter().fold(bytes, |sum, it| sum.saturating_add(it.claim.bytes()));
    }
}

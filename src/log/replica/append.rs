//! Appends batches that were received from a leader, byte for byte except for their local part:
//! checksum and durable distance.
//!
//! Must not know: where the batches come from. Called under the partition's lock.

use super::received::{Received, check_offset};
use super::refusal::Refusal;
use crate::config::SEGMENT_BYTES_MAX;
use crate::error::{Error, Result};
use crate::format::{BatchHeader, HAS_GAPS, ProducerState, SegmentHeader, Unsealed, reseal};
use crate::log::active::{Active, BatchTimes};
use crate::log::retention::age_of;
use crate::log::{Log, Way, opening_room};

/// What the caller knows of the log and of the batches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// The epoch of the log's last batch: see [`History::end_of`](super::history::History::end_of).
    pub(crate) last_epoch: Option<u32>,
    /// Below this offset the leader's log may be compacted, so that there may be gaps.
    pub(crate) sparse_below: u64,
}

/// The first one of batches, as far as the segment has to fit it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct First {
    pub(super) base_offset: u64,
    pub(super) bytes: u32,
    pub(super) has_gaps: bool,
}

impl First {
    pub(crate) fn of(received: &Received<'_>) -> Option<Self> {
        let header = BatchHeader::parse(received.bytes).ok().flatten()?;
        let (base_offset, bytes, has_gaps) = (header.base_offset, header.size, has_gaps(&header));
        Some(Self { base_offset, bytes, has_gaps })
    }
}

/// Whether records of the batch were removed.
fn has_gaps(header: &BatchHeader) -> bool {
    u64::from(header.record_count) != u64::from(header.last_offset_delta).saturating_add(1)
}

/// Whether the batches continue the log.
///
/// # Errors
///
/// Why they do not.
pub(crate) fn admit(log: &Log, received: &Received<'_>, terms: &Terms) -> Result<(), Refusal> {
    let end = log.ends.log_end();
    if !holds_start(log, received) {
        check_offset(end, received.base_offset)?;
    }
    let first_gap = (received.base_offset > end).then_some(received.base_offset);
    if let Some(found) = received.gap_end.max(first_gap).filter(|it| *it > terms.sparse_below) {
        return Err(Refusal::Offset { expected: end, found });
    }
    if let Some(before) = terms.last_epoch.filter(|before| received.first_epoch < *before) {
        return Err(Refusal::Epoch { before, found: received.first_epoch });
    }
    // The batches may add producers, which the opening batch of the next segment lists.
    let batches = received.bytes.len() / crate::format::BATCH_HEADER_SIZE_MIN;
    let producers = log.producers.states().len().saturating_add(batches);
    let beside = SegmentHeader::SIZE.saturating_add(opening_room(producers)) as u64;
    let (bytes, limit) = (u64::from(received.largest), SEGMENT_BYTES_MAX.saturating_sub(beside));
    if bytes > limit {
        return Err(Refusal::Size { bytes, limit });
    }
    Ok(())
}

/// Whether the first batch holds the start of a log that begins with it: the records below the start
/// were removed, but not their batch. It fits the segment as that is: another one would begin at the
/// log end, above the batch.
fn holds_start(log: &Log, received: &Received<'_>) -> bool {
    let start = log.ends.log_start();
    let first = BatchHeader::parse(received.bytes).ok().flatten();
    let Some((first, active)) = first.zip(log.appender.active()) else { return false };
    let segment = active.segment();
    let is_empty = segment.base_offset == received.base_offset
        && active.contents().last_batch <= SegmentHeader::SIZE;
    let fits = log.appender.has_room(first.size, first.next_offset())
        && (segment.has_gaps || !has_gaps(&first));
    start == log.ends.log_end()
        && received.base_offset < start
        && first.next_offset() > start
        && is_empty
        && fits
}

/// Appends and publishes batches that [`admit`] has admitted, in order.
///
/// # Errors
///
/// `StorageFull` and `Io`. The batches before the one that failed are appended; the log end says
/// which.
pub(crate) fn append(log: &mut Log, received: &Received<'_>) -> Result<()> {
    let mut rest = received.bytes;
    let mut buffer = Vec::new();
    while let Ok(Some(header)) = BatchHeader::parse(rest) {
        let Some((batch, after)) = rest.split_at_checked(header.size as usize) else { break };
        buffer.clear();
        buffer.extend_from_slice(batch);
        append_one(log, &header, &mut buffer)?;
        rest = after;
    }
    Ok(())
}

fn append_one(log: &mut Log, header: &BatchHeader, batch: &mut [u8]) -> Result<()> {
    let (now, next_offset) = (log.now, header.next_offset());
    let has_gap = header.base_offset > log.ends.log_end() || has_gaps(header);
    if has_gap && !log.appender.active().is_some_and(|active| active.segment().has_gaps) {
        begin_gaps(log, batch.len())?;
    } else if !log.appender.has_room(header.size, next_offset) {
        // Whatever this member's segments have room for: another setting may have been in force
        // when the leader appended it.
        log.roll_for(batch.len())?;
    }
    let durable_end = log.ends.durable_end();
    let active = log.appender.with_space(header.size, Way::AsUsual)?;
    let resealed = reseal(batch, durable_end, &active.segment().key);
    resealed.map_err(|kind| Error::Corrupt(active.segment().corruption(0, None, kind)))?;
    if header.record_count > 0 {
        let max_timestamp = header.max_timestamp;
        let times = BatchTimes {
            base_timestamp: header.base_timestamp,
            max_timestamp,
            age: age_of(max_timestamp, now),
            appended: now,
        };
        active.append(Unsealed::whole(batch), header.base_offset, &times, Way::AsUsual)?;
    } else {
        // It stands for offsets of which compaction has removed the records, and has no time.
        active.append_opening(batch)?;
    }
    note_horizon(active, header);
    log.ends.advance_end(next_offset);
    log.epochs.leader_epoch = log.epochs.leader_epoch.max(header.leader_epoch);
    if let (Some(producer), Some(last_sequence)) = (header.producer, header.last_sequence()) {
        let state = ProducerState {
            id: producer.id,
            epoch: producer.epoch,
            last_sequence,
            last_offset: next_offset.saturating_sub(1),
            last_timestamp: now.wall,
        };
        log.producers.note(state, now.run);
    }
    Ok(())
}

/// Begins a segment whose header says that it has gaps; otherwise they would be taken for damage.
#[cold]
fn begin_gaps(log: &mut Log, bytes: usize) -> Result<()> {
    if log.appender.prepared().front().is_some_and(|next| next.header.rewrite.is_some()) {
        // It records a cut of the log, so it must be used.
        log.roll_for(0)?;
    }
    for unused in log.appender.take_prepared() {
        unused.discard(&*log.factory.env().disk);
    }
    log.factory.set_compatible(HAS_GAPS);
    log.roll_for(bytes)
}

/// The leader may have compacted it: then its tombstones have a time of their own.
fn note_horizon(active: &Active, header: &BatchHeader) {
    let segment = active.segment();
    if let Some(horizon) = header.delete_horizon.filter(|it| *it < segment.next_horizon()) {
        segment.note_horizon(horizon);
    }
}

/// Sets the leader epoch that appends write from here on; `last` is that of the last batch.
///
/// # Errors
///
/// It is below one that the log has already.
pub(crate) fn set_epoch(log: &mut Log, epoch: u32, last: Option<u32>) -> Result<(), Refusal> {
    let before = log.epochs.leader_epoch.max(last.unwrap_or(0));
    if epoch < before {
        return Err(Refusal::Epoch { before, found: epoch });
    }
    log.epochs.leader_epoch = epoch;
    Ok(())
}

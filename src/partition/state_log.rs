//! Durable state as a log: every change is a record, and every segment begins with a snapshot.
//!
//! The engine's own facts (topics, committed offsets, recovery points) are kept this way, in the
//! same format, with the same writer and the same recovery as user data. A snapshot is one batch,
//! so it is there whole or not at all; once it is synced it replaces all earlier segments. Opening
//! therefore reads one segment, or two when a crash interrupted a snapshot.
//!
//! Bytes become state in three steps: the batch's checksum, the bounded decoding of a change, and
//! [`check`](LoggedState::check), which knows what the change may say. Only then is it applied, so
//! that what is done with a state (paths, loops over partitions) is done with sound values.
//!
//! Invariants:
//! 1. The state in memory is what replaying the log would give.
//! 2. No change is written that a replay would refuse.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::encode::{RecordRules, encode};
use super::{AppendOptions, PartitionCore};
use crate::codec::{Bincode, Codec};
use crate::config::{PARTITIONS_MAX, TimestampType, Visibility};
use crate::error::{Corruption, CorruptionKind, Error, Result};
use crate::format::SegmentHeader;
use crate::log::cursor::{Cursor, FetchLimits, Fetched};
use crate::log::segment::Segment;
use crate::log::{Log, Outcome};
use crate::message::Batch;
use crate::record::{Record, TopicPartition};
use crate::rules::Rule;
use crate::storage::disk::Disk;
use crate::sync::{Mutex, MutexGuard};

/// A state that is the sum of its changes.
pub(crate) trait LoggedState: Default {
    type Change: Serialize + DeserializeOwned;

    /// Whether a change can follow on this state, for all that a log may hold. Pure, and cheap: it
    /// runs for every record of an opening.
    ///
    /// # Errors
    ///
    /// What is wrong with the change. It refuses nothing that the engine can write: an opening that
    /// meets such a record is over.
    fn check(&self, change: &Self::Change) -> Result<(), CorruptionKind>;

    /// Applies a change that was checked.
    fn apply(&mut self, change: Self::Change);

    /// Changes that rebuild this state from the default one.
    fn snapshot(&self) -> Vec<Self::Change>;
}

/// The size of an internal segment, as long as its snapshot needs no more.
pub(crate) const STATE_SEGMENT_BYTES: u64 = 1 << 20;

/// LIMIT: a snapshot is written when this many bytes of changes follow the last one, or as many as
/// that one had: the log stays small, and snapshots cost at most as much as the changes.
const CHANGES_BYTES: u64 = 384 << 10;

/// LIMIT: how many changes go into one batch; a long list (a close with thousands of partitions)
/// becomes several.
const CHANGES_PER_BATCH: usize = 1_000;

/// LIMIT: how much of the log is read at a time when it is replayed: all of a segment that is not
/// larger than usual.
const REPLAY_BYTES: usize = 1 << 20;

/// The key of a snapshot's first record. Changes have none.
const SNAPSHOT_KEY: &[u8] = b"snapshot";

const RULES: RecordRules = RecordRules {
    record_bytes_max: u32::MAX,
    timestamps: TimestampType::CreateTime,
    needs_key: false,
};

struct Inner<S> {
    state: S,
    changes_bytes: u64,
    snapshot_bytes: u64,
}

pub(crate) struct StateLog<S> {
    partition: Arc<PartitionCore>,
    disk: Arc<dyn Disk>,
    inner: Mutex<Inner<S>>,
    /// Held while segments are removed, so that it is one after another. Whether what was removed
    /// last may come back after a power cut.
    removing: Mutex<bool>,
}

impl<S: LoggedState> StateLog<S> {
    /// Replays the log of an internal partition. Nothing is written. `has_snapshot` says that one
    /// was synced in it, `damage` is what was found when it was opened.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] when any of what counts cannot be read: the rest would pass for the whole,
    /// and with the next snapshot the files that are damaged would go.
    pub(crate) fn open(
        partition: Arc<PartitionCore>,
        disk: Arc<dyn Disk>,
        has_snapshot: bool,
        damage: &[Corruption],
    ) -> Result<Self> {
        let state = replay(&partition, has_snapshot, damage)?;
        let inner = Inner { state, changes_bytes: 0, snapshot_bytes: 0 };
        Ok(Self { partition, disk, inner: Mutex::new(inner), removing: Mutex::new(true) })
    }

    /// Begins this life of the log: finishes its opening, applies `changes` and writes the whole
    /// state as a snapshot, which is durable on return.
    pub(crate) fn start(&self, changes: Vec<S::Change>) -> Result<()> {
        self.partition.with_log(Log::finish_opening)?;
        let mut inner = self.inner.lock();
        for change in changes {
            apply_own(&mut inner.state, change);
        }
        self.write_snapshot(inner)
    }

    pub(crate) fn read<R>(&self, read: impl FnOnce(&S) -> R) -> R {
        read(&self.inner.lock().state)
    }

    pub(crate) fn partition(&self) -> &Arc<PartitionCore> {
        &self.partition
    }

    /// Appends changes and applies them. They are published on return; the offset that is returned
    /// is for [`PartitionCore::wait_durable`].
    ///
    /// # Errors
    ///
    /// Nothing of a batch that failed is applied.
    pub(crate) fn append(&self, changes: Vec<S::Change>) -> Result<u64> {
        let end = self.append_if(changes, |_| Ok(()))?;
        self.tidy();
        Ok(end)
    }

    /// As [`append`](Self::append), if the state allows it: no other change comes between the
    /// check and the append. Never waits for the disk longer than an append does: whoever holds a
    /// lock around this calls [`tidy`](Self::tidy) once it is released.
    pub(crate) fn append_if(
        &self,
        changes: Vec<S::Change>,
        check: impl FnOnce(&S) -> Result<()>,
    ) -> Result<u64> {
        self.partition.check_process()?;
        let mut inner = self.inner.lock();
        check(&inner.state)?;
        let mut changes = changes.into_iter().peekable();
        let mut end = self.partition.log_end();
        while changes.peek().is_some() {
            let batch: Vec<_> = changes.by_ref().take(CHANGES_PER_BATCH).collect();
            end = self.append_batch(&mut inner, batch)?;
        }
        Ok(end)
    }

    /// Writes a snapshot, if enough has changed since the last one.
    pub(crate) fn tidy(&self) {
        let inner = self.inner.lock();
        if inner.changes_bytes > CHANGES_BYTES.max(inner.snapshot_bytes) {
            // The changes are in the log either way; a disk that is full now is found by the
            // append that needs the space.
            let _ = self.write_snapshot(inner);
        }
    }

    /// As [`append`](Self::append), and durable on return.
    pub(crate) fn append_durably(&self, changes: Vec<S::Change>) -> Result<()> {
        let end = self.append(changes)?;
        Rule::StateSync.keep(|| self.partition.wait_durable(end))
    }

    fn append_batch(
        &self,
        inner: &mut MutexGuard<'_, Inner<S>>,
        changes: Vec<S::Change>,
    ) -> Result<u64> {
        let values = encode_changes(&changes)?;
        let records: Vec<_> = values.iter().map(|value| Record::new().value(value)).collect();
        let end = self.append_records(&records)?;
        inner.changes_bytes += values.iter().map(|value| value.len() as u64).sum::<u64>();
        for change in changes {
            apply_own(&mut inner.state, change);
        }
        Ok(end)
    }

    fn append_records(&self, records: &[Record<'_>]) -> Result<u64> {
        let options = AppendOptions::default();
        match encode(records, RULES, 0, |batch| self.partition.append(batch, &options))? {
            Outcome::Appended { next_offset, .. } => Ok(next_offset),
            _ => Err(Error::Closed),
        }
    }

    /// Begins a new segment with the whole state, syncs it, and lets go of all earlier ones. Who
    /// appends waits for the first of these alone.
    fn write_snapshot(&self, mut inner: MutexGuard<'_, Inner<S>>) -> Result<()> {
        let values = encode_changes(&inner.state.snapshot())?;
        let head = Record::new().key(SNAPSHOT_KEY);
        let records: Vec<_> = std::iter::once(head)
            .chain(values.iter().map(|value| Record::new().value(value)))
            .collect();
        let bytes: usize = values.iter().map(|value| value.len() + RECORD_ROOM).sum();
        let base = self.partition.log_end();
        self.partition.roll_for(bytes + SNAPSHOT_ROOM)?;
        let end = self.append_records(&records)?;
        inner.changes_bytes = 0;
        inner.snapshot_bytes = bytes as u64;
        drop(inner);
        // DURABILITY: the snapshot is durable before anything that it replaces is removed.
        Rule::SnapshotSync.keep(|| self.partition.wait_durable(end))?;
        // The removals act by path, under no lock of the partition: the close waits for them.
        // After it, the next opening finds the snapshot, and removes what is before it.
        let Some(_removing) = self.partition.disk_work.begin() else { return Ok(()) };
        let mut may_come_back = self.removing.lock();
        let removed = self.partition.with_log(|log| log.retire(base, usize::MAX));
        self.remove(&removed, &mut may_come_back);
        Ok(())
    }

    /// Removes segments, oldest first. What cannot be removed now is found, and removed, at a later
    /// snapshot or open.
    fn remove(&self, segments: &[Arc<Segment>], may_come_back: &mut bool) {
        for segment in segments {
            if *may_come_back
                && let Some(dir) = segment.path.parent()
                && Rule::SnapshotRemoval.keep(|| self.disk.sync_dir(dir)).is_err()
            {
                // DURABILITY: one is gone for good before the next goes; otherwise an older one
                // could come back alone, and what lies between would look lost.
                return;
            }
            *may_come_back = true;
            if self.disk.remove_file(&segment.path).is_err() {
                return;
            }
        }
    }
}

/// Applies a change that the engine itself has made, so that it is sound.
fn apply_own<S: LoggedState>(state: &mut S, change: S::Change) {
    debug_assert_eq!(state.check(&change), Ok(()), "a change that the next opening would refuse");
    state.apply(change);
}

/// Whether a topic can have a partition of this number.
pub(crate) fn check_partition(number: u32) -> Result<(), CorruptionKind> {
    if number < PARTITIONS_MAX {
        return Ok(());
    }
    Err(CorruptionKind::Malformed("a partition's number"))
}

/// Room for a record's own fields beside its value, and for a batch's header.
const RECORD_ROOM: usize = 16;
const SNAPSHOT_ROOM: usize = 256;

fn encode_changes<C: Serialize + DeserializeOwned>(changes: &[C]) -> Result<Vec<Vec<u8>>> {
    changes
        .iter()
        .map(|change| {
            let mut bytes = Vec::new();
            Bincode.encode(change, &mut bytes)?;
            Ok(bytes)
        })
        .collect()
}

/// The state at the end of the log: from the last whole snapshot, all changes after it.
fn replay<S: LoggedState>(
    partition: &Arc<PartitionCore>,
    has_snapshot: bool,
    damage: &[Corruption],
) -> Result<S> {
    let limits = FetchLimits {
        records: usize::MAX,
        bytes: REPLAY_BYTES,
        visible_end: partition.visible_end(Visibility::Published),
    };
    let mut state = S::default();
    let snapshot = last_snapshot(partition, &limits)?;
    let base = snapshot.as_ref().map_or(0, Cursor::next_offset);
    let counts = |damage: &&Corruption| {
        damage.offsets.as_ref().is_none_or(|offsets| offsets.end > offsets.start.max(base))
    };
    if let Some(damage) = damage.iter().find(counts) {
        return Err(damage.clone().into());
    }
    // DURABILITY: older segments go only once a snapshot is synced, so a log that ever had one has
    // one, and a torn write cannot take it away.
    let first = partition.segments.first();
    let mut cursor = match (snapshot, first) {
        (Some(cursor), _) => cursor,
        (None, Some(first)) if has_snapshot => {
            let kind = CorruptionKind::Malformed("the snapshot");
            return Err(first.corruption(SegmentHeader::SIZE as u64, None, kind).into());
        }
        (None, Some(first)) => beginning_of(&first)?,
        (None, None) => return Ok(state),
    };
    loop {
        let mut fetched = Fetched::default();
        partition.scan(&mut cursor, &limits, &mut fetched)?;
        if fetched.records == 0 {
            return Ok(state);
        }
        for message in Batch::new(fetched.runs).iter() {
            apply_record(&mut state, message.key(), message.value())
                .map_err(|kind| refused(&message.topic_partition(), message.offset(), kind))?;
        }
    }
}

/// Applies a record of such a log, once it is decoded and checked.
pub(crate) fn apply_record<S: LoggedState>(
    state: &mut S,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
) -> Result<(), CorruptionKind> {
    if key == Some(SNAPSHOT_KEY) {
        *state = S::default();
        return Ok(());
    }
    let change = Bincode.decode(value.unwrap_or_default());
    let change = change.map_err(|_| CorruptionKind::Malformed("an internal record"))?;
    state.check(&change)?;
    state.apply(change);
    Ok(())
}

/// A cursor at the last segment that begins with a whole snapshot.
fn last_snapshot(partition: &PartitionCore, limits: &FetchLimits) -> Result<Option<Cursor>> {
    let one = FetchLimits { records: 1, ..*limits };
    let segments = partition.segments.all();
    for segment in segments.iter().rev() {
        let mut fetched = Fetched::default();
        let mut cursor = beginning_of(segment)?;
        if cursor.fetch(&partition.segments, &one, &mut fetched).is_err() {
            continue;
        }
        let first = Batch::new(fetched.runs);
        if first.iter().any(|message| {
            message.key() == Some(SNAPSHOT_KEY) && message.offset() == segment.base_offset
        }) {
            return beginning_of(segment).map(Some);
        }
    }
    Ok(None)
}

fn beginning_of(segment: &Arc<Segment>) -> Result<Cursor> {
    Cursor::new(Arc::clone(segment), SegmentHeader::SIZE, segment.base_offset)
}

fn refused(partition: &TopicPartition, offset: u64, kind: CorruptionKind) -> Error {
    let corruption = Corruption {
        partition: Some(partition.clone()),
        file: partition.to_string().into(),
        position: 0,
        offsets: Some(offset..offset.saturating_add(1)),
        kind,
    };
    corruption.into()
}

impl<S> fmt::Debug for StateLog<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateLog").field("partition", &self.partition).finish_non_exhaustive()
    }
}

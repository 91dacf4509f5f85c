//! The writer of a state's log: the state in memory, and the appends of its changes.
//!
//! Owns: the replay, with the state, which it continues, and how many bytes the segments hold. It is
//! under a lock of the log, which is never held while a file is read or synced. Must not know:
//! clean-ups, and which changes are allowed.
//!
//! Invariants:
//! 1. The state in memory is what a replay of the log would give.
//! 2. No change is written that a replay would refuse.
//! 3. The numbers of changes rise by one, in the order of their records; no number is used twice.
//! 4. Nothing else appends to the log.
//! 5. In the log of a follower, nothing is written that its leader has not written.
//!
//! [`check`](Writer::check) holds the fourth. The first two are held by a look at each change
//! before it is applied.

use std::sync::Arc;

use super::LoggedState;
use super::draft::{BATCH_ROOM, Candidate, Drafts, Packed, RECORD_ROOM, record_bytes};
use super::entries::RecordedAt;
use super::replay::{Replay, Trim};
use super::stored::{Stored, encoded};
use crate::clock::from_millis;
use crate::config::{Durability, TimestampType};
use crate::error::{Error, Result};
#[cfg(feature = "replication")]
use crate::format::BatchView;
#[cfg(feature = "replication")]
use crate::log::replica::{
    received::Received,
    refusal::{Failure, Refusal},
};
use crate::log::{Log, batch_bytes_max};
use crate::partition::PartitionCore;
use crate::partition::append::{Accepted, AppendOptions, Stamp};
use crate::partition::encode::{Encoder, RecordRules};
#[cfg(feature = "replication")]
use crate::partition::replica::Replica;
use crate::record::{Record, TopicPartition};

/// LIMIT: the size of an internal segment, as long as no record needs more, and of a spare. The
/// live entries of one must fit another; three spares of each internal log must cost little.
pub(crate) const STATE_SEGMENT_BYTES: u64 = 256 << 10;

const RULES: RecordRules = RecordRules {
    record_bytes_max: u32::MAX,
    timestamps: TimestampType::CreateTime,
    needs_key: false,
};

/// A record: its key, its value and its time on the wall clock.
type Plain<'a> = (&'a [u8], &'a [u8], u64);

pub(super) struct Writer<S> {
    partition: Arc<PartitionCore>,
    /// Of all records that there are.
    replay: Replay<S>,
    /// Whether another member of the group writes the log.
    follows: bool,
    /// What the segments hold, about.
    bytes: u64,
    /// Where the log ends, by what was appended here.
    end: u64,
}

impl<S: LoggedState> Writer<S> {
    pub(super) fn new(partition: Arc<PartitionCore>, replay: Replay<S>) -> Self {
        let end = partition.log_end();
        let mut writer = Self { partition, replay, follows: false, bytes: 0, end };
        writer.continue_from_replay();
        writer
    }

    fn continue_from_replay(&mut self) {
        self.replay.next_number = self.replay.next_number.max(1);
        self.end = self.partition.log_end();
        self.measure();
        self.assert_valid();
    }

    pub(super) fn state(&self) -> &S {
        &self.replay.state
    }

    pub(super) fn replay(&self) -> &Replay<S> {
        &self.replay
    }

    pub(super) fn follows(&self) -> bool {
        self.follows
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Computes the size of the segments again.
    pub(super) fn measure(&mut self) {
        let segments = self.partition.log().segments().all();
        self.bytes = segments.iter().map(|segment| segment.end() as u64).sum();
    }

    /// Whether one of the changes adds to the state for good.
    pub(super) fn grows(&self, drafts: &Drafts<S::Change>) -> bool {
        drafts.changes().any(|change| self.replay.state.grows(change))
    }

    /// Appends the changes and applies them; none is left then. All of them are if it fails.
    /// `level` is that of the append, where it is not that of the log.
    ///
    /// # Errors
    ///
    /// Those of an append. Nothing is applied.
    pub(super) fn append(
        &mut self,
        drafts: &mut Drafts<S::Change>,
        level: Option<Durability>,
    ) -> Result<()> {
        // A later number would be refused by the next opening, and with it all that is there.
        let next_number = self.replay.next_number.checked_add(drafts.len() as u64);
        let next_number = next_number.ok_or_else(|| Error::OffsetExhausted {
            partition: TopicPartition::clone(&self.partition.origin),
        })?;
        let numbers = self.replay.next_number..next_number;
        let mut keys = Packed::with_room_for(drafts.len());
        for (number, (value, _)) in numbers.zip(drafts.values()) {
            keys.push_with(|key| Stored::Change { number, value }.write_key(key))?;
        }
        let records = keys.iter().zip(drafts.values());
        let records = records.map(|(key, (value, made))| (key, value, made.wall));
        let base = self.append_records(records, level)?;
        self.replay.next_number = next_number;
        for (((change, made, value), key), offset) in drafts.take_all().zip(keys.iter()).zip(base..)
        {
            let bytes = record_bytes(key, value);
            let at = RecordedAt { offset, bytes, time: made.run, is_copy: false };
            apply_own(&mut self.replay.state, change, at);
        }
        Ok(())
    }

    /// Appends those entries again that are live. They keep their numbers.
    ///
    /// # Errors
    ///
    /// Those of an append. Nothing is applied.
    pub(super) fn append_copies(
        &mut self,
        mut candidates: Vec<Candidate<S::Change>>,
        uses_reserve: bool,
    ) -> Result<()> {
        candidates.retain(|it| self.replay.state.is_live(&it.change, it.offset));
        let key = |it: &Candidate<S::Change>| {
            let (number, value) = (it.number, &*it.value);
            Stored::Copy { number, value }.key()
        };
        let keys = candidates.iter().map(key).collect::<Result<Vec<_>>>()?;
        let records = keys.iter().zip(&candidates);
        let records = records.map(|(key, it)| (&**key, &*it.value, it.time));
        let records = records.collect::<Vec<_>>();
        let base = self.append_anyway(&records, uses_reserve)?;
        for ((copied, key), offset) in candidates.into_iter().zip(&keys).zip(base..) {
            let bytes = record_bytes(key, &copied.value);
            // The entry knows when it was made.
            let at = RecordedAt { offset, bytes, time: 0, is_copy: true };
            self.replay.state.apply(copied.change, at);
        }
        Ok(())
    }

    /// Appends that the records below `start` are not needed any more.
    ///
    /// # Errors
    ///
    /// Those of an append.
    pub(super) fn append_trim(&mut self, start: u64, uses_reserve: bool) -> Result<()> {
        let key = Stored::Trim { start, next_number: self.replay.next_number }.key()?;
        let value = encoded(&start)?;
        let offset = self.append_anyway(&[(&*key, &*value, 0)], uses_reserve)?;
        self.replay.note_trim(Trim { start, offset });
        Ok(())
    }

    /// Appends records; in a segment that is made of a spare, where there is no other way.
    fn append_anyway(&mut self, records: &[Plain<'_>], uses_reserve: bool) -> Result<u64> {
        let refused = match self.append_records(records.iter().copied(), None) {
            Err(error) if uses_reserve => error,
            appended => return appended,
        };
        if !has_reserve_for(&self.partition, &refused) {
            return Err(refused);
        }
        let sizes = records.iter().map(|(key, value, _)| key.len() + value.len() + 32);
        let bytes = sizes.fold(4_096, usize::saturating_add);
        self.partition.with_log(|log| roll_into_reserve(log, bytes))?;
        self.append_records(records.iter().copied(), None)
    }

    /// Appends records as one batch, in a segment of their own if they need more than one has.
    /// Returns the offset of the first.
    fn append_records<'a>(
        &mut self,
        records: impl Iterator<Item = Plain<'a>>,
        level: Option<Durability>,
    ) -> Result<u64> {
        if self.follows {
            return Err(Error::NotLeader { leader: None });
        }
        self.assert_valid();
        let record =
            |(key, value, time)| Record::new().key(key).value(value).timestamp(from_millis(time));
        let records: Vec<_> = records.map(record).collect();
        if records.is_empty() {
            return Ok(self.partition.log_end());
        }
        let payload: u64 = records.iter().map(Record::payload_bytes).sum();
        let bytes = payload.saturating_add(BATCH_ROOM + (records.len() * RECORD_ROOM) as u64);
        let log = self.partition.log();
        if bytes > batch_bytes_max(STATE_SEGMENT_BYTES) {
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            log.lock_for_writing()?.roll_for(bytes)?;
        }
        let stamp = Stamp::undated(level.unwrap_or(self.partition.durability), log.clock());
        let options = AppendOptions { level: level.as_ref(), stamp, ..AppendOptions::default() };
        let mut encoder = Encoder::take();
        let mut batch = encoder.encode(&records, RULES, 0)?;
        match self.partition.append(&mut batch, &options)? {
            Accepted::Appended { base_offset, next_offset, .. } => {
                self.bytes = self.bytes.saturating_add(bytes);
                self.end = next_offset;
                self.assert_valid();
                Ok(base_offset)
            }
            Accepted::Duplicate { .. } => Err(Error::Closed),
        }
    }

    fn assert_valid(&self) {
        debug_assert_eq!(self.check(), Ok(()));
    }

    #[cfg(feature = "replication")]
    pub(super) fn set_follows(&mut self, follows: bool) {
        self.follows = follows;
    }

    /// Appends batches that the leader has written, and applies their records.
    ///
    /// # Errors
    ///
    /// They do not continue the log, or a record is not valid in the state; the error of the append.
    /// The state is to be read again then: it may have records that the log has not.
    #[cfg(feature = "replication")]
    pub(super) fn append_received(&mut self, received: &Received<'_>) -> Result<u64, Failure> {
        self.replay.now = self.partition.log().clock().moment().run;
        let (mut rest, mut position) = (received.bytes, 0);
        while let Some(view) = BatchView::trusted(rest) {
            for it in view.records() {
                let applied = self.replay.apply(it.offset, it.timestamp, it.key, it.value);
                applied.map_err(|kind| Refusal::Damaged { position, kind })?;
            }
            let size = view.bytes().len();
            position = position.saturating_add(size);
            rest = rest.get(size..).unwrap_or_default();
        }
        let end = Replica::of(&self.partition).append(received, 0)?;
        self.bytes = self.bytes.saturating_add(received.bytes.len() as u64);
        self.end = end;
        self.assert_valid();
        Ok(end)
    }

    /// Continues from another replay of the log, which has changed otherwise than by appends here.
    pub(super) fn put(&mut self, replay: Replay<S>) {
        self.replay = replay;
        self.continue_from_replay();
    }

    /// What is wrong, if anything: invariant 4.
    pub(super) fn check(&self) -> std::result::Result<(), &'static str> {
        if self.partition.log_end() != self.end {
            return Err("the log does not end where the writer has left it");
        }
        Ok(())
    }
}

/// Whether what failed for want of space can be done with the reserve of a log.
pub(super) fn has_reserve_for(partition: &PartitionCore, error: &Error) -> bool {
    matches!(error, Error::StorageFull { .. })
        && partition.with_log(|log| log.factory().reserve().is_some())
}

/// Begins a new segment with room for a batch of `bytes`, made of a spare where the disk is full.
///
/// # Errors
///
/// What the disk said, and [`Error::StorageFull`] where all spares are in use.
pub(super) fn roll_into_reserve(log: &mut Log, bytes: usize) -> Result<()> {
    log.factory_mut().set_reserve_open(true);
    let rolled = log.roll_for(bytes);
    log.factory_mut().set_reserve_open(false);
    rolled
}

/// Applies a change that the engine itself has made, so that it is sound.
fn apply_own<S: LoggedState>(state: &mut S, change: S::Change, at: RecordedAt) {
    debug_assert_eq!(state.check(&change), Ok(()), "a change that the next opening would refuse");
    state.apply(change, at);
}

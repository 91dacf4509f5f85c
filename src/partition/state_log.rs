//! Durable state as a log: every change is a record, and what is not in force is cleaned up.
//!
//! The state of the internal logs (topics, committed offsets, recovery points) is kept this way, in
//! the same format, with the same writer and the same recovery as user data. Opening replays the
//! log. It stays small because its oldest segment is removed again and again: the entries that are
//! in force by its records are appended once more at the end ([`cleaning`]). Nothing ever writes
//! all of a state at once, however large it is.
//!
//! Bytes become state in three steps: the batch's checksum, the bounded decoding of a change, and
//! [`check`](LoggedState::check), which knows what the change may say. Only then is it applied, so
//! that what is done with a state (paths, loops over partitions) is done with sound values.
//!
//! Invariants:
//! 1. The state in memory is what replaying the log would give, from its first segment on and from
//!    every later one that a trim names.
//! 2. No change is written that a replay would refuse.
//! 3. The numbers of changes rise by one, in the order of their records; no number is used twice.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use self::cleaning::Cleaning;
use self::entries::RecordedAt;
use self::replay::replay;
use self::stored::{Stored, encoded};
use super::PartitionCore;
use super::append::{AppendOptions, Stamp};
use super::encode::{Encoder, RecordRules};
use crate::clock::{Moment, from_millis};
use crate::config::{PARTITIONS_MAX, TimestampType};
use crate::error::{Corruption, CorruptionKind, Error, Result};
use crate::log::reserve::SPARES;
use crate::log::{Log, Outcome, batch_bytes_max};
use crate::record::{Record, TopicPartition};
use crate::rules::Rule;
use crate::storage::disk::Disk;
use crate::sync::{AtomicBool, LockRank, Mutex, MutexGuard};

mod cleaning;
pub(crate) mod entries;
mod replay;
mod reserve;
pub(super) mod stored;

pub(crate) use self::replay::{Evidence, Replay};

/// A state that is the sum of its changes.
///
/// A record says at most one entry, or removes entries. Cleaning up relies on three things:
/// - An entry that is recorded again, by a copy, is the same entry.
/// - A record is refused only because of what is there: where entries are missing whose copies come
///   later, `check` accepts what it accepted with them.
/// - A record that removes entries says nothing about those that come later.
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
    fn apply(&mut self, change: Self::Change, at: RecordedAt);

    /// Whether an entry is in force by this change, recorded at this offset.
    fn is_live(&self, change: &Self::Change, offset: u64) -> bool;

    /// What the records of all entries take of the log, about.
    fn live_bytes(&self) -> u64;

    /// Whether the change adds to the state for good: such changes are refused while the disk is
    /// full and the log lives on its reserve.
    fn grows(&self, change: &Self::Change) -> bool {
        let _ = change;
        false
    }

    /// Changes that rebuild this state from the default one.
    fn snapshot(&self) -> Vec<Self::Change>;
}

/// LIMIT: the size of an internal segment, as long as no record needs more, and of a spare. The live
/// entries of one must fit another; three spares of each internal log must cost little.
pub(crate) const STATE_SEGMENT_BYTES: u64 = 256 << 10;

/// LIMIT: how many changes go into one batch; a long list (a close with thousands of partitions)
/// becomes several.
const CHANGES_PER_BATCH: usize = 1_000;

/// LIMIT: nor more bytes than this, unless one change has more: several batches fit a segment, and
/// none holds up others for long.
const BATCH_BYTES: usize = 64 << 10;

const RULES: RecordRules = RecordRules {
    record_bytes_max: u32::MAX,
    timestamps: TimestampType::CreateTime,
    needs_key: false,
};

struct Inner<S> {
    state: S,
    /// The number of the next change.
    next_number: u64,
    /// What the segments hold, about.
    bytes: u64,
}

pub(crate) struct StateLog<S> {
    partition: Arc<PartitionCore>,
    disk: Arc<dyn Disk>,
    inner: Mutex<Inner<S>>,
    /// Held over each step of a clean-up, so that it is one after another.
    ///
    /// LOCK ORDER: before `inner`.
    cleaning: Mutex<Cleaning>,
    /// Whether a spare is in use and none can be made, so that nothing may grow.
    ///
    /// ORDERING: a hint, Relaxed; what it speaks of is looked at under the log's lock.
    is_tight: AtomicBool,
}

impl<S: LoggedState> StateLog<S> {
    /// Replays the log of an internal partition. Nothing is written. `damage` is what was found
    /// when it was opened.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] when any of what counts cannot be read: the rest would pass for the whole,
    /// and would be all that is left after the next clean-up.
    pub(crate) fn open(
        partition: Arc<PartitionCore>,
        disk: Arc<dyn Disk>,
        evidence: Evidence,
        damage: &[Corruption],
    ) -> Result<Self> {
        let Replay { state, next_number, start, .. } = replay(&partition, evidence, damage)?;
        let bytes = bytes_of(&partition);
        let inner = Inner { state, next_number: next_number.max(1), bytes };
        let cleaning = Mutex::ranked(LockRank::StateLogCleaning, Cleaning::new(start));
        let is_tight = AtomicBool::new(false);
        let inner = Mutex::ranked(LockRank::StateLog, inner);
        Ok(Self { partition, disk, inner, cleaning, is_tight })
    }

    /// Begins a run: finishes the opening of the log and appends `changes`. They are durable on
    /// return, and so is all that was found.
    pub(crate) fn start(&self, changes: Vec<S::Change>) -> Result<()> {
        self.partition.with_log(Log::finish_opening)?;
        self.begin_reserve();
        // A disk that takes no writes says so here, before a sync of what was found fails.
        let begin_segment = |log: &mut Log| match log.appender().active() {
            Some(_) => Ok(()),
            None => log.roll_for(0),
        };
        let begun =
            if changes.is_empty() { Ok(()) } else { self.partition.with_log(begin_segment) };
        let is_full = self.may_use_reserve(&begun);
        if !is_full {
            begun?;
        }
        // DURABILITY: what was found may be in the page cache alone. Before anything is done about
        // it (a deletion that is carried on, a segment that a trim frees) it is on the disk.
        Rule::FoundNames.keep(|| self.sync_names())?;
        Rule::FoundState.keep(|| self.partition.flush())?;
        if is_full {
            self.make_room(0)?;
        }
        if !changes.is_empty() {
            let end = self.append_if(changes, |_| Ok(()))?;
            Rule::StateSync.keep(|| self.partition.wait_durable(end))?;
        }
        self.begin_cleaning();
        Ok(())
    }

    fn sync_names(&self) -> Result<()> {
        self.partition.log().segments().first().map_or(Ok(()), |segment| segment.sync_dir())
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
        check: impl FnMut(&S) -> Result<()>,
    ) -> Result<u64> {
        self.partition.log().status().check_process()?;
        let now = self.partition.log().clock().moment();
        self.append_drafts(drafts_of(changes.into_iter().map(|change| (change, now)))?, check)
    }

    /// As [`append_if`](Self::append_if), for changes that are of other moments than now.
    pub(crate) fn append_dated(&self, changes: Vec<(S::Change, Moment)>) -> Result<u64> {
        self.partition.log().status().check_process()?;
        self.append_drafts(drafts_of(changes)?, |_| Ok(()))
    }

    fn append_drafts(
        &self,
        drafts: Vec<Draft<S::Change>>,
        check: impl FnMut(&S) -> Result<()>,
    ) -> Result<u64> {
        let mut drafts = drafts.into_iter().peekable();
        let mut batches = Vec::new();
        while drafts.peek().is_some() {
            let mut bytes = 0;
            let mut batch = Vec::new();
            while let Some(next) = drafts.next_if(|next| {
                bytes += next.value.len() + RECORD_ROOM;
                batch.is_empty() || (batch.len() < CHANGES_PER_BATCH && bytes <= BATCH_BYTES)
            }) {
                batch.push(next);
            }
            batches.push(batch);
        }
        self.append_batches(batches, check)
    }

    fn append_batches(
        &self,
        batches: Vec<Vec<Draft<S::Change>>>,
        mut check: impl FnMut(&S) -> Result<()>,
    ) -> Result<u64> {
        self.refuse_growth(&batches)?;
        let mut inner = self.inner.lock();
        check(&inner.state)?;
        for mut batch in batches {
            let Err(error) = self.append_batch(&mut inner, &mut batch) else { continue };
            let grows = batch.iter().any(|draft| inner.state.grows(&draft.change));
            if grows || !self.has_reserve_for(&error) {
                return Err(error);
            }
            inner = self.append_to_reserve(inner, (batch, error), &mut check)?;
        }
        Ok(self.partition.log_end())
    }

    /// Appends what found no space, in a segment that is made of a spare. The copies of live
    /// entries may leave no room there, where the oldest segments hold little else: then the next
    /// ones are cleaned up, all of them if need be.
    fn append_to_reserve<'a>(
        &'a self,
        mut inner: MutexGuard<'a, Inner<S>>,
        (mut batch, refused): (Vec<Draft<S::Change>>, Error),
        check: &mut impl FnMut(&S) -> Result<()>,
    ) -> Result<MutexGuard<'a, Inner<S>>> {
        for _ in 0..=self.partition.log().segments().count().saturating_add(SPARES) {
            drop(inner);
            let made = self.make_room(bytes_of_batch(&batch));
            inner = self.inner.lock();
            if made.is_err() {
                // Whatever keeps it from making room, the disk is full.
                break;
            }
            check(&inner.state)?;
            match self.append_batch(&mut inner, &mut batch) {
                Ok(()) => return Ok(inner),
                Err(error) if self.has_reserve_for(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Err(refused)
    }

    /// As [`append`](Self::append), and durable on return.
    pub(crate) fn append_durably(&self, changes: Vec<S::Change>) -> Result<()> {
        let end = self.append_if(changes, |_| Ok(()))?;
        Rule::StateSync.keep(|| self.partition.wait_durable(end))?;
        self.tidy();
        Ok(())
    }

    /// As [`append_durably`](Self::append_durably), in one batch: after a crash all of the changes
    /// are there, or none.
    pub(crate) fn append_whole(&self, changes: Vec<S::Change>) -> Result<()> {
        let now = self.partition.log().clock().moment();
        let drafts = drafts_of(changes.into_iter().map(|change| (change, now)))?;
        let end = self.append_batches(vec![drafts], |_| Ok(()))?;
        Rule::StateSync.keep(|| self.partition.wait_durable(end))
    }

    /// As [`append_durably`](Self::append_durably), and the last that is written in this run: no
    /// clean-up follows.
    pub(crate) fn append_last(&self, change: S::Change) -> Result<()> {
        let end = self.append_if(vec![change], |_| Ok(()))?;
        Rule::StateSync.keep(|| self.partition.wait_durable(end))
    }

    /// Appends the changes and applies them; none is left then. All of them are if it fails.
    fn append_batch(
        &self,
        inner: &mut MutexGuard<'_, Inner<S>>,
        drafts: &mut Vec<Draft<S::Change>>,
    ) -> Result<()> {
        // A later number would be refused by the next opening, and with it all that is there.
        let next_number = inner.next_number.checked_add(drafts.len() as u64);
        let next_number = next_number.ok_or_else(|| Error::OffsetExhausted {
            partition: TopicPartition::clone(&self.partition.origin),
        })?;
        let numbers = inner.next_number..next_number;
        let keys = numbers.zip(&*drafts).map(|(number, draft)| {
            let value = &draft.value;
            Stored::Change { number, value }.key()
        });
        let keys = keys.collect::<Result<Vec<_>>>()?;
        let records = keys.iter().zip(&*drafts);
        let records = records.map(|(key, draft)| (&**key, &*draft.value, draft.made.wall));
        let base = self.append_records(inner, records)?;
        inner.next_number = next_number;
        for ((draft, key), offset) in drafts.drain(..).zip(&keys).zip(base..) {
            let bytes = record_bytes(key, &draft.value);
            let at = RecordedAt { offset, bytes, time: draft.made.run, is_copy: false };
            apply_own(&mut inner.state, draft.change, at);
        }
        Ok(())
    }

    /// Appends records, each with its key, its value and its time on the wall clock, as one batch,
    /// in a segment of their own if they need more than one has. Returns the offset of the first.
    fn append_records<'a>(
        &self,
        inner: &mut MutexGuard<'_, Inner<S>>,
        records: impl Iterator<Item = (&'a [u8], &'a [u8], u64)>,
    ) -> Result<u64> {
        let record =
            |(key, value, time)| Record::new().key(key).value(value).timestamp(from_millis(time));
        let records: Vec<_> = records.map(record).collect();
        if records.is_empty() {
            return Ok(self.partition.log_end());
        }
        let payload: u64 = records.iter().map(Record::payload_bytes).sum();
        let bytes = payload.saturating_add(BATCH_ROOM + (records.len() * RECORD_ROOM) as u64);
        if bytes > batch_bytes_max(STATE_SEGMENT_BYTES) {
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            self.partition.log().lock_for_writing()?.roll_for(bytes)?;
        }
        let stamp = Stamp::undated(self.partition.durability, self.partition.log().clock());
        let options = AppendOptions { stamp, ..AppendOptions::default() };
        let mut encoder = Encoder::take();
        let mut batch = encoder.encode(&records, RULES, 0)?;
        match self.partition.append(&mut batch, &options)? {
            Outcome::Appended { base_offset, .. } => {
                inner.bytes = inner.bytes.saturating_add(bytes);
                Ok(base_offset)
            }
            _ => Err(Error::Closed),
        }
    }
}

/// A change that is to be appended.
struct Draft<C> {
    change: C,
    value: Vec<u8>,
    made: Moment,
}

fn drafts_of<C: Serialize + DeserializeOwned>(
    changes: impl IntoIterator<Item = (C, Moment)>,
) -> Result<Vec<Draft<C>>> {
    let draft = |(change, made)| Ok(Draft { value: encoded(&change)?, change, made });
    changes.into_iter().map(draft).collect()
}

/// Room for a record's own fields beside its key and value, and for a batch's header.
const RECORD_ROOM: usize = 16;
const BATCH_ROOM: u64 = 256;

/// What a batch takes of a segment at most.
fn bytes_of_batch<C>(batch: &[Draft<C>]) -> usize {
    let records = batch.iter().map(|draft| draft.value.len().saturating_add(2 * RECORD_ROOM));
    records.fold(BATCH_BYTES / 16, usize::saturating_add)
}

/// What a record takes of the log, about.
fn record_bytes(key: &[u8], value: &[u8]) -> u32 {
    let bytes = key.len().saturating_add(value.len()).saturating_add(RECORD_ROOM);
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// What the segments of a partition hold.
fn bytes_of(partition: &PartitionCore) -> u64 {
    partition.log().segments().all().iter().map(|segment| segment.end() as u64).sum()
}

/// Applies a change that the engine itself has made, so that it is sound.
fn apply_own<S: LoggedState>(state: &mut S, change: S::Change, at: RecordedAt) {
    debug_assert_eq!(state.check(&change), Ok(()), "a change that the next opening would refuse");
    state.apply(change, at);
}

/// Whether a topic can have a partition of this number.
pub(crate) fn check_partition(number: u32) -> Result<(), CorruptionKind> {
    if number < PARTITIONS_MAX {
        return Ok(());
    }
    Err(CorruptionKind::Malformed("a partition's number"))
}

impl<S> fmt::Debug for StateLog<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateLog").field("partition", &self.partition).finish_non_exhaustive()
    }
}

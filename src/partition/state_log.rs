//! Durable state as a log: every change is a record, and superseded records are removed.
//!
//! The internal logs store their state (topics, committed offsets, recovery points) this way, in
//! the same format, with the same writer and the same recovery as user data. An opening replays the
//! log.
//!
//! The log stays small because its oldest segment is removed again and again. Before that, the
//! entries of the state that the segment's records define are appended once more at the end
//! ([`cleaning`]). No step ever writes a whole state at once, however large it is.
//!
//! Bytes become state in three steps: the batch's checksum, the bounded decoding of a change, and
//! [`check`](LoggedState::check), which knows the valid values of a change. Only then is the change
//! applied. So code that uses a state (paths, loops over partitions) gets only valid values.
//!
//! Owns: the order of these steps, and the parts: the [`writer`], the [`cleaning`], the
//! [`reserve`]. Must not know: what a state is about, and where its log is stored.
//!
//! Invariant: the state in memory is what a replay of the log would give, from its first segment
//! on, and also from every later segment that a trim names.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use self::cleaning::{Cleaner, Cleaning, Dirt};
use self::draft::Drafts;
use self::entries::RecordedAt;
use self::replay::replay;
use self::reserve::{Reserve, Tightness};
use self::writer::{Writer, has_reserve_for};
use super::{PartitionCore, Work};
use crate::clock::Moment;
use crate::config::{Durability, PARTITIONS_MAX};
use crate::error::{Corruption, CorruptionKind, Error, Result};
use crate::log::Log;
use crate::log::reserve::SPARES;
use crate::rules::Rule;
use crate::storage::disk::Disk;
use crate::sync::{LockLevel, Mutex, MutexGuard};

mod cleaning;
mod draft;
pub(crate) mod entries;
mod replay;
#[cfg(feature = "replication")]
pub(crate) mod replicated;
mod reserve;
pub(crate) mod stored;
mod writer;

pub(crate) use self::replay::{Evidence, Replay};
pub(crate) use self::writer::STATE_SEGMENT_BYTES;

/// A state that is built from its changes.
///
/// A record defines at most one entry, or removes entries. Cleaning up depends on three properties:
/// - An entry that is recorded again, by a copy, is the same entry.
/// - A record is refused only because of existing entries: if entries are missing whose copies come
///   later, `check` accepts everything that it accepted with them.
/// - A record that removes entries does not affect later ones.
pub(crate) trait LoggedState: Default {
    type Change: Serialize + DeserializeOwned;

    /// Checks whether a change is valid in this state. The change may come from a damaged or
    /// hostile log. Pure, and cheap: it runs for every record of an opening.
    ///
    /// # Errors
    ///
    /// What is wrong with the change. It must accept everything that the engine writes: an opening
    /// fails at a refused record.
    fn check(&self, change: &Self::Change) -> Result<(), CorruptionKind>;

    /// Applies a change that was checked.
    fn apply(&mut self, change: Self::Change, at: RecordedAt);

    /// Whether the state has an entry that this change, recorded at this offset, defines.
    fn is_live(&self, change: &Self::Change, offset: u64) -> bool;

    /// The approximate size of the records of all entries.
    fn live_bytes(&self) -> u64;

    /// Whether the change makes the state grow for good: such changes are refused while the disk is
    /// full and the log uses its reserve.
    fn grows(&self, change: &Self::Change) -> bool {
        let _ = change;
        false
    }

    /// Changes that rebuild this state from the default one.
    fn snapshot(&self) -> Vec<Self::Change>;
}

/// The level of an append whose sync the caller waits for, whatever that of the log.
const SYNCED: Option<Durability> = Some(Durability::Sync);

pub(crate) struct StateLog<S> {
    partition: Arc<PartitionCore>,
    disk: Arc<dyn Disk>,
    writer: Mutex<Writer<S>>,
    /// Held over each step of a clean-up, outside of the lock of `writer`.
    cleaning: Mutex<Cleaning>,
    tightness: Tightness,
}

impl<S: LoggedState> StateLog<S> {
    /// Replays the log of an internal partition. Nothing is written. `damage` is what the opening
    /// of the partition found.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if any needed record cannot be read: the rest would be taken for the
    /// whole, and the next clean-up would keep only the rest.
    pub(crate) fn open(
        partition: Arc<PartitionCore>,
        disk: Arc<dyn Disk>,
        evidence: Evidence,
        damage: &[Corruption],
    ) -> Result<Self> {
        let replay = replay(&partition, evidence, damage)?;
        let start = replay.start();
        let writer = Writer::new(Arc::clone(&partition), replay);
        let writer = Mutex::at_level(LockLevel::StateLog, writer);
        let cleaning = Mutex::at_level(LockLevel::StateLogCleaning, Cleaning::new(start));
        Ok(Self { partition, disk, writer, cleaning, tightness: Tightness::new() })
    }

    fn cleaner(&self) -> Cleaner<'_, S> {
        Cleaner::new(&self.partition, &*self.disk, &self.writer)
    }

    fn reserve(&self) -> Reserve<'_, S> {
        let cleaner = self.cleaner();
        Reserve::new(&self.partition, &self.tightness, &self.writer, cleaner, &self.cleaning)
    }

    /// Begins a run: finishes the opening of the log and appends `changes`. On return they are
    /// durable, and so is everything that was found. `has_durable_names`: whether an earlier run
    /// has made the names of the log's files durable.
    pub(crate) fn start(&self, changes: Vec<S::Change>, has_durable_names: bool) -> Result<()> {
        self.partition.with_log(Log::finish_opening)?;
        self.reserve().begin();
        // A disk that refuses writes fails here, before a sync of what was found fails.
        let begun =
            if changes.is_empty() { Ok(()) } else { self.partition.with_log(begin_segment) };
        let is_full =
            begun.as_ref().err().is_some_and(|error| has_reserve_for(&self.partition, error));
        if !is_full {
            begun?;
        }
        // DURABILITY: what was found may be in the page cache alone. It is synced before anything
        // depends on it (a deletion that is completed, a segment that a trim frees).
        if !has_durable_names {
            Rule::FoundNames.keep(|| self.sync_names())?;
        }
        Rule::FoundState.keep(|| self.sync_found())?;
        if is_full {
            self.reserve().make_room(0)?;
        }
        if !changes.is_empty() {
            let end = self.append_for_sync(changes)?;
            Rule::StateSync.keep(|| self.partition.wait_durable(end))?;
        }
        self.cleaner().begin(&mut self.cleaning.lock());
        self.tidy();
        Ok(())
    }

    /// Syncs all segments but the active one, which has no record yet: the sync of the changes
    /// covers it. The changes are appended afterwards, so that they prove that what was found was on
    /// stable storage.
    fn sync_found(&self) -> Result<()> {
        let end = self.partition.with_log(|log| log.backlog().sealed_end());
        end.map_or(Ok(()), |end| self.partition.flusher().flush_sealed(end))
    }

    fn sync_names(&self) -> Result<()> {
        self.partition.log().segments().first().map_or(Ok(()), |segment| segment.sync_dir())
    }

    /// Puts the state in force that a later look at the files has found, to which another process
    /// appends. `damage` is what the look found.
    ///
    /// # Errors
    ///
    /// As of [`open`](Self::open); the state is as it was.
    pub(crate) fn catch_up(
        &self,
        found: Log,
        evidence: Evidence,
        damage: &[Corruption],
    ) -> Result<()> {
        self.partition.reader().catch_up(found);
        let replay = replay(&self.partition, evidence, damage)?;
        self.writer.lock().put(replay);
        Ok(())
    }

    /// The result of the writer's check.
    #[cfg(test)]
    pub(crate) fn check_writer(&self) -> std::result::Result<(), &'static str> {
        self.writer.lock().check()
    }

    pub(crate) fn read<R>(&self, read: impl FnOnce(&S) -> R) -> R {
        read(self.writer.lock().state())
    }

    /// Whether the state has all its entries: see [`Evidence::anew_at`].
    pub(crate) fn is_whole(&self) -> bool {
        self.writer.lock().replay().is_whole()
    }

    pub(crate) fn partition(&self) -> &Arc<PartitionCore> {
        &self.partition
    }

    /// Appends changes and applies them. They are published on return; the offset that is returned
    /// is for [`PartitionCore::wait_durable`].
    ///
    /// # Errors
    ///
    /// No change of a failed batch is applied.
    pub(crate) fn append(&self, changes: Vec<S::Change>) -> Result<u64> {
        let end = self.append_if(changes, |_| Ok(()))?;
        self.tidy();
        Ok(end)
    }

    /// Appends changes and applies them if `check` allows it: no other change comes between the
    /// check and the append. Waits for the disk no longer than an append does: a caller that holds
    /// a lock calls [`tidy`](Self::tidy) after it has released the lock.
    pub(crate) fn append_if(
        &self,
        changes: Vec<S::Change>,
        check: impl FnMut(&S) -> Result<()>,
    ) -> Result<u64> {
        self.partition.log().status().check_process()?;
        let batches = Drafts::batches_of(self.made_now(changes))?;
        self.append_batches(batches, None, check)
    }

    /// The log takes appends.
    ///
    /// # Errors
    ///
    /// Those of an append that writes nothing: the log is closed, unavailable or poisoned.
    pub(crate) fn check_writable(&self) -> Result<()> {
        self.partition.log().lock_for_writing().map(drop)
    }

    /// Appends changes, whose sync the caller waits for.
    fn append_for_sync(&self, changes: Vec<S::Change>) -> Result<u64> {
        self.partition.log().status().check_process()?;
        let batches = Drafts::batches_of(self.made_now(changes))?;
        self.append_batches(batches, SYNCED, |_| Ok(()))
    }

    fn made_now(&self, changes: Vec<S::Change>) -> impl Iterator<Item = (S::Change, Moment)> {
        let now = self.partition.log().clock().moment();
        changes.into_iter().map(move |change| (change, now))
    }

    /// Appends changes with other times than now, and applies them.
    pub(crate) fn append_dated(&self, changes: Vec<(S::Change, Moment)>) -> Result<u64> {
        self.partition.log().status().check_process()?;
        self.append_batches(Drafts::batches_of(changes)?, None, |_| Ok(()))
    }

    fn append_batches(
        &self,
        batches: Vec<Drafts<S::Change>>,
        level: Option<Durability>,
        mut check: impl FnMut(&S) -> Result<()>,
    ) -> Result<u64> {
        self.refuse_growth(&batches)?;
        let mut writer = self.writer.lock();
        check(writer.state())?;
        for mut batch in batches {
            let Err(error) = writer.append(&mut batch, level) else { continue };
            if writer.grows(&batch) || !has_reserve_for(&self.partition, &error) {
                return Err(error);
            }
            writer = self.append_to_reserve(writer, (batch, error), &mut check)?;
        }
        Ok(self.partition.log_end())
    }

    /// Refuses changes that add to the state while a spare is missing.
    fn refuse_growth(&self, batches: &[Drafts<S::Change>]) -> Result<()> {
        if !self.tightness.is_tight() {
            return Ok(());
        }
        let writer = self.writer.lock();
        let grows = batches.iter().any(|batch| writer.grows(batch));
        drop(writer);
        if grows { self.reserve().fill() } else { Ok(()) }
    }

    /// Appends batches that found no space, in a segment that is made of a spare. If the oldest
    /// segments hold mostly live entries, their copies may leave no room there. Then the next
    /// segments are cleaned up, if necessary all.
    fn append_to_reserve<'a>(
        &'a self,
        mut writer: MutexGuard<'a, Writer<S>>,
        (mut batch, refused): (Drafts<S::Change>, Error),
        check: &mut impl FnMut(&S) -> Result<()>,
    ) -> Result<MutexGuard<'a, Writer<S>>> {
        for _ in 0..=self.partition.log().segments().count().saturating_add(SPARES) {
            drop(writer);
            let made = self.reserve().make_room(batch.size());
            writer = self.writer.lock();
            if made.is_err() {
                // Whatever the reason for which no room was made, the disk is full.
                break;
            }
            check(writer.state())?;
            match writer.append(&mut batch, None) {
                Ok(()) => return Ok(writer),
                Err(error) if has_reserve_for(&self.partition, &error) => {}
                Err(error) => return Err(error),
            }
        }
        Err(refused)
    }

    /// Appends changes and applies them. They are durable on return.
    pub(crate) fn append_durably(&self, changes: Vec<S::Change>) -> Result<()> {
        let end = self.append_for_sync(changes)?;
        Rule::StateSync.keep(|| self.partition.wait_durable(end))?;
        self.tidy();
        Ok(())
    }

    /// Appends changes in one batch and applies them. They are durable on return; after a crash
    /// before that, all of them are there or none.
    pub(crate) fn append_whole(&self, changes: Vec<S::Change>) -> Result<()> {
        let drafts = Drafts::of(self.made_now(changes))?;
        let end = self.append_batches(vec![drafts], SYNCED, |_| Ok(()))?;
        Rule::StateSync.keep(|| self.partition.wait_durable(end))
    }

    /// Appends the last change of this run and applies it. It is durable on return; no clean-up
    /// follows.
    pub(crate) fn append_last(&self, change: S::Change) -> Result<()> {
        let end = self.append_for_sync(vec![change])?;
        Rule::StateSync.keep(|| self.partition.wait_durable(end))
    }

    // ---- cleaning up ---------------------------------------------------------------------------

    /// Cleans up if that is due: requests it of the background, or takes one step if there are no
    /// background threads.
    pub(crate) fn tidy(&self) {
        let dirt = self.cleaner().dirt();
        if dirt == Dirt::Little {
            return;
        }
        if dirt == Dirt::Much && self.partition.requests().are_served() {
            self.partition.requests().request(Work::CleanUp);
            return;
        }
        // The changes are in the log in any case; a full disk is found by the append that needs the
        // space.
        if let Some(mut cleaning) = self.cleaning.try_lock() {
            let _ = self.cleaner().step(&mut cleaning);
        }
    }

    /// Cleans up the present segments, in steps, while `continues` returns true.
    ///
    /// # Errors
    ///
    /// The error of the disk. The log is unchanged, except that it may have some copies twice.
    pub(crate) fn clean_up(&self, continues: impl Fn() -> bool) -> Result<()> {
        let (end, cleaner) = (self.partition.log_end(), self.cleaner());
        while continues() {
            let mut cleaning = self.cleaning.lock();
            // Records that are appended meanwhile are for the next clean-up.
            let is_done = cleaning.start() >= end;
            if is_done || !cleaner.step(&mut cleaning)? {
                return cleaner.remove_leftovers(&mut cleaning);
            }
        }
        Ok(())
    }

    /// Makes spares again, if some were missing.
    pub(crate) fn recover_reserve(&self) {
        if self.tightness.is_tight() {
            let _ = self.reserve().fill();
        }
    }
}

/// Begins an active segment, if there is none.
fn begin_segment(log: &mut Log) -> Result<()> {
    if log.appender().active().is_some() { Ok(()) } else { log.roll_for(0) }
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

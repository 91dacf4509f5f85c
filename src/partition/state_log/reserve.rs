//! A full disk: the log lives on its reserve.
//!
//! A change that finds no space, and adds nothing to the state for good, goes into a segment that is
//! made of a spare. Before it does, the live entries of older segments are appended there too, and
//! those segments become spares: so there is always one for the next time, however often that is.
//! What makes the state grow is refused for as long as a spare is missing and none can be made.

use super::cleaning::Cleaning;
use super::{Draft, Inner, LoggedState, StateLog};
use crate::error::{Error, Result};
use crate::log::Log;
use crate::log::reserve::Reserve;
use crate::sync::{MutexGuard, Ordering};

impl<S: LoggedState> StateLog<S> {
    /// Makes the spares that are missing, if the log has any.
    ///
    /// # Errors
    ///
    /// [`Error::StorageFull`]: until there is space, nothing grows.
    pub(super) fn fill_reserve(&self) -> Result<()> {
        self.partition.with_log(fill)?;
        self.is_tight.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Finds and makes spares at an opening. Without any, as where none could ever be made, the log is
    /// used as if it had no reserve.
    pub(super) fn begin_reserve(&self) {
        let is_in_use = || self.partition.log().segments().all().iter().any(|it| it.keeps_space);
        let is_tight = self.fill_reserve().is_err() && is_in_use();
        self.is_tight.store(is_tight, Ordering::Relaxed);
    }

    /// Makes spares again, if some were missing.
    pub(crate) fn recover_reserve(&self) {
        if self.is_tight.load(Ordering::Relaxed) {
            let _ = self.fill_reserve();
        }
    }

    /// Refuses changes that add to the state while a spare is missing.
    pub(super) fn refuse_growth(&self, batches: &[Vec<Draft<S::Change>>]) -> Result<()> {
        if !self.is_tight.load(Ordering::Relaxed) {
            return Ok(());
        }
        let grows =
            self.read(|state| batches.iter().flatten().any(|draft| state.grows(&draft.change)));
        if grows { self.fill_reserve() } else { Ok(()) }
    }

    /// Whether what failed for want of space can be done with the reserve.
    pub(super) fn has_reserve_for(&self, error: &Error) -> bool {
        matches!(error, Error::StorageFull { .. })
            && self.partition.with_log(|log| log.factory().reserve().is_some())
    }

    pub(super) fn may_use_reserve<T>(&self, result: &Result<T>) -> bool {
        result.as_ref().err().is_some_and(|error| self.has_reserve_for(error))
    }

    /// Goes on in a segment that is made of a spare, with room for `bytes`, and makes spares of
    /// older segments until no more than that one is missing.
    ///
    /// # Errors
    ///
    /// [`Error::StorageFull`] where all spares are in use.
    pub(super) fn make_room(&self, bytes: usize) -> Result<()> {
        let mut cleaning = self.cleaning.lock();
        self.is_tight.store(true, Ordering::Relaxed);
        // One that was in use last time may be free now.
        let _ = self.remove_leftovers(&mut cleaning);
        {
            // No append comes between.
            let _inner = self.inner.lock();
            self.partition.with_log(|log| roll_into_reserve(log, bytes))?;
        }
        cleaning.uses_reserve = true;
        let cleaned = self.free_spares(&mut cleaning);
        cleaning.uses_reserve = false;
        drop(cleaning);
        let _ = self.fill_reserve();
        cleaned
    }

    fn free_spares(&self, cleaning: &mut Cleaning) -> Result<()> {
        let end = self.partition.log_end();
        let missing = |log: &mut Log| log.factory().reserve().map_or(0, Reserve::missing);
        while self.partition.with_log(missing) > 1 && cleaning.start < end {
            let start = cleaning.start;
            if !self.step_anyway(cleaning)? {
                break;
            }
            if cleaning.start > start {
                // One that was too short for a spare has made space for a new one.
                let _ = self.partition.with_log(fill);
            }
        }
        Ok(())
    }

    /// Appends records; in a segment that is made of a spare, where there is no other way.
    pub(super) fn append_anyway(
        &self,
        inner: &mut MutexGuard<'_, Inner<S>>,
        records: &[(&[u8], &[u8], u64)],
        uses_reserve: bool,
    ) -> Result<u64> {
        let appended = self.append_records(inner, records.iter().copied());
        if !uses_reserve || !self.may_use_reserve(&appended) {
            return appended;
        }
        let sizes = records.iter().map(|(key, value, _)| key.len() + value.len() + 32);
        let bytes = sizes.fold(4_096, usize::saturating_add);
        self.partition.with_log(|log| roll_into_reserve(log, bytes))?;
        self.append_records(inner, records.iter().copied())
    }
}

/// Makes the spares that are missing; nothing in a log without a reserve.
fn fill(log: &mut Log) -> Result<()> {
    log.factory_mut().reserve_mut().map_or(Ok(()), Reserve::fill)
}

/// Begins a new segment with room for a batch of `bytes`, made of a spare where the disk is full.
fn roll_into_reserve(log: &mut Log, bytes: usize) -> Result<()> {
    log.factory_mut().set_reserve_open(true);
    let rolled = log.roll_for(bytes);
    log.factory_mut().set_reserve_open(false);
    rolled
}

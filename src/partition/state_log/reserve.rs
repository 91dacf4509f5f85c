//! Keeps a state's log writable on a full disk, with the log's reserve.
//!
//! A change that finds no space, and does not make the state grow for good, goes into a segment
//! that is made of a spare. Before that, the live entries of older segments are appended there too,
//! and those segments become spares. So there is a spare for the next time, however often this
//! happens. Changes that make the state grow are refused for as long as a spare is missing and none
//! can be made.
//!
//! [`Tightness`] owns whether this is so; [`Reserve`] makes and uses spares, with the cleaner. Must
//! not know: which change found no space.

use super::LoggedState;
use super::cleaning::{Cleaner, Cleaning};
use super::writer::{Writer, roll_into_reserve};
use crate::error::Result;
use crate::log::Log;
use crate::log::reserve::Reserve as Spares;
use crate::partition::PartitionCore;
use crate::sync::{AtomicBool, Mutex, MutexGuard, Ordering};

/// Whether a spare is in use and none can be made, so that nothing may grow.
#[derive(Debug)]
pub(super) struct Tightness {
    /// ORDERING: a hint, Relaxed; the state itself is read under the log's lock.
    is_tight: AtomicBool,
}

impl Tightness {
    pub(super) fn new() -> Self {
        Self { is_tight: AtomicBool::new(false) }
    }

    pub(super) fn is_tight(&self) -> bool {
        self.is_tight.load(Ordering::Relaxed)
    }

    fn set(&self, is_tight: bool) {
        self.is_tight.store(is_tight, Ordering::Relaxed);
    }
}

pub(super) struct Reserve<'a, S> {
    partition: &'a PartitionCore,
    tightness: &'a Tightness,
    writer: &'a Mutex<Writer<S>>,
    cleaner: Cleaner<'a, S>,
    cleaning: &'a Mutex<Cleaning>,
}

impl<'a, S: LoggedState> Reserve<'a, S> {
    pub(super) fn new(
        partition: &'a PartitionCore,
        tightness: &'a Tightness,
        writer: &'a Mutex<Writer<S>>,
        cleaner: Cleaner<'a, S>,
        cleaning: &'a Mutex<Cleaning>,
    ) -> Self {
        Self { partition, tightness, writer, cleaner, cleaning }
    }

    /// Makes the spares that are missing, if the log has any.
    ///
    /// # Errors
    ///
    /// [`Error::StorageFull`](crate::Error::StorageFull): until there is space, nothing grows.
    pub(super) fn fill(&self) -> Result<()> {
        self.partition.with_log(fill)?;
        self.tightness.set(false);
        Ok(())
    }

    /// Finds and makes spares at an opening. If there is none, because none could be made, the log
    /// is used as if it had no reserve.
    pub(super) fn begin(&self) {
        let is_in_use = || self.partition.log().segments().all().iter().any(|it| it.keeps_space);
        self.tightness.set(self.fill().is_err() && is_in_use());
    }

    /// Continues in a segment that is made of a spare, with room for `bytes`, and makes spares of
    /// older segments until no more than that one is missing.
    ///
    /// # Errors
    ///
    /// [`Error::StorageFull`](crate::Error::StorageFull) where all spares are in use.
    pub(super) fn make_room(&self, bytes: usize) -> Result<()> {
        let mut cleaning = self.cleaning.lock();
        // A file that was in use at the last attempt may be free now.
        let _ = self.cleaner.remove_leftovers(&mut cleaning);
        // No append comes between.
        self.roll(&self.writer.lock(), bytes)?;
        self.free_with(cleaning)
    }

    /// The first half of [`make_room`](Self::make_room), for a caller that keeps the writer.
    ///
    /// # Errors
    ///
    /// As there.
    pub(super) fn roll(&self, _writer: &Writer<S>, bytes: usize) -> Result<()> {
        self.tightness.set(true);
        self.partition.with_log(|log| roll_into_reserve(log, bytes))
    }

    /// The other half.
    ///
    /// # Errors
    ///
    /// That of the disk. The next call that needs room tries again.
    #[cfg(feature = "replication")]
    pub(super) fn free(&self) -> Result<()> {
        self.free_with(self.cleaning.lock())
    }

    fn free_with(&self, mut cleaning: MutexGuard<'_, Cleaning>) -> Result<()> {
        cleaning.uses_reserve = true;
        let cleaned = self.free_spares(&mut cleaning);
        cleaning.uses_reserve = false;
        drop(cleaning);
        let _ = self.fill();
        cleaned
    }

    fn free_spares(&self, cleaning: &mut Cleaning) -> Result<()> {
        let end = self.partition.log_end();
        let missing = |log: &mut Log| log.factory().reserve().map_or(0, Spares::missing);
        while self.partition.with_log(missing) > 1 && cleaning.start() < end {
            let start = cleaning.start();
            if !self.cleaner.step_anyway(cleaning)? {
                break;
            }
            if cleaning.start() > start {
                // The removal of a file that was too short for a spare has made space for a new
                // one.
                let _ = self.partition.with_log(fill);
            }
        }
        Ok(())
    }
}

/// Makes the spares that are missing; nothing in a log without a reserve.
fn fill(log: &mut Log) -> Result<()> {
    log.factory_mut().reserve_mut().map_or(Ok(()), Spares::fill)
}

//! Cleaning up: the entries that are in force by the records of the oldest segment are appended
//! again at the end, a few at a time, and then the segment is removed.
//!
//! The order, for each segment:
//! 1. Copies of its live entries are appended, in batches of a bounded size. The lock that appends
//!    take is held for one batch at a time, and never while a file is read or synced.
//! 2. A trim is appended: records below the end of the segment are not needed.
//! 3. Copies and trim are synced.
//! 4. The segment is removed, once the removal before is durable.
//!
//! A crash before 3 leaves the segment and perhaps some copies, which say again what it says. One
//! after 3 leaves a segment that is not needed, which the next opening removes. A record that
//! removed entries needs no copy: what it removed was recorded before it, in segments that are gone
//! for good before its own goes.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::sync::Arc;

use super::entries::RecordedAt;
use super::replay::beginning_of;
use super::stored::{Stored, decoded, encoded};
use super::{LoggedState, STATE_SEGMENT_BYTES, StateLog, bytes_of, record_bytes};
use crate::clock::to_millis;
use crate::error::{CorruptionKind, Error, Result};
use crate::log::Log;
use crate::log::cursor::{Cursor, FetchLimits, Fetched};
use crate::log::reserve::TakenBack;
use crate::log::segment::Segment;
use crate::message::Batch;
use crate::partition::Work;
use crate::rules::Rule;

/// LIMIT: the log is cleaned up while it has more bytes than a segment, and more than twice what its
/// live entries need: copies then cost at most as much as the changes do.
const BYTES_PER_LIVE_BYTE: u64 = 2;

/// LIMIT: nor may it have more segments than this beside those that its bytes fill: each opening
/// that appends begins one, and an almost empty file takes some blocks too.
const SMALL_SEGMENTS: u64 = 4;

/// LIMIT: how much of the oldest segment one step looks at, and how much the lock is held for: some
/// hundred microseconds.
const STEP_RECORDS: usize = 500;
const STEP_BYTES: usize = 64 << 10;

/// LIMIT: an append cleans up by itself, although a thread is there to do it, when the log is this
/// many times as large as it should be at most.
const FAR_BEHIND: u64 = 4;

/// Where the clean-up is.
#[derive(Debug)]
pub(super) struct Cleaning {
    /// Records below are not needed.
    pub(super) start: u64,
    /// The live entries below have been copied.
    copied: u64,
    /// Segments that left the log, oldest first, and whose files are to be removed.
    leftovers: VecDeque<Arc<Segment>>,
    /// Whether copies may go into a segment that is made of a spare.
    pub(super) uses_reserve: bool,
}

impl Cleaning {
    pub(super) fn new(start: u64) -> Self {
        Self { start, copied: 0, leftovers: VecDeque::new(), uses_reserve: false }
    }
}

/// How far the log is from what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Dirt {
    Little,
    Much,
    TooMuch,
}

/// A record that may be live.
struct Candidate<C> {
    offset: u64,
    number: u64,
    /// On the wall clock.
    time: u64,
    value: Vec<u8>,
    change: C,
}

impl<S: LoggedState> StateLog<S> {
    /// Removes what a trim of an earlier run frees, and takes a first step: a process that dies
    /// soon after every opening must not make the log grow.
    pub(super) fn begin_cleaning(&self) {
        let mut cleaning = self.cleaning.lock();
        let freed = self.partition.with_log(|log| log.retire(cleaning.start, usize::MAX));
        cleaning.leftovers.extend(freed);
        // What fails is tried again: nothing depends on it but space.
        let _ = self.remove_leftovers(&mut cleaning).and_then(|()| self.step(&mut cleaning));
        drop(cleaning);
        self.tidy();
    }

    /// Cleans up if it is time: has the background do it, or takes one step where there is none.
    pub(crate) fn tidy(&self) {
        let dirt = self.dirt();
        if dirt == Dirt::Little {
            return;
        }
        if dirt == Dirt::Much && self.partition.requests().are_served() {
            self.partition.requests().request(Work::CleanUp);
            return;
        }
        // The changes are in the log either way; a disk that is full now is found by the append
        // that needs the space.
        if let Some(mut cleaning) = self.cleaning.try_lock() {
            let _ = self.step(&mut cleaning);
        }
    }

    /// Cleans up what there is now, in steps, as long as `goes_on` says so.
    ///
    /// # Errors
    ///
    /// What the disk said. The log is as it was, but for copies that it may have twice.
    pub(crate) fn clean_up(&self, goes_on: impl Fn() -> bool) -> Result<()> {
        let end = self.partition.log_end();
        while goes_on() {
            let mut cleaning = self.cleaning.lock();
            // What is appended meanwhile is for the next time.
            let is_done = cleaning.start >= end;
            if is_done || !self.step(&mut cleaning)? {
                return self.remove_leftovers(&mut cleaning);
            }
        }
        Ok(())
    }

    fn dirt(&self) -> Dirt {
        let segments = self.partition.log().segments().count() as u64;
        let inner = self.inner.lock();
        let needed = inner.state.live_bytes().saturating_mul(BYTES_PER_LIVE_BYTE);
        let allowed = needed.max(STATE_SEGMENT_BYTES);
        let filled = (inner.bytes / STATE_SEGMENT_BYTES).saturating_mul(2);
        if segments < 2 {
            Dirt::Little
        } else if inner.bytes > allowed.saturating_mul(FAR_BEHIND) {
            Dirt::TooMuch
        } else if inner.bytes > allowed || segments > filled.saturating_add(SMALL_SEGMENTS) {
            Dirt::Much
        } else {
            Dirt::Little
        }
    }

    /// Copies some live entries of the oldest segment, or removes it. False when nothing is to be
    /// done.
    fn step(&self, cleaning: &mut Cleaning) -> Result<bool> {
        if self.dirt() == Dirt::Little { Ok(false) } else { self.step_anyway(cleaning) }
    }

    /// As [`step`](Self::step), however little there is to be removed.
    pub(super) fn step_anyway(&self, cleaning: &mut Cleaning) -> Result<bool> {
        let oldest = self.partition.log().segments().first();
        // The one that takes appends stays.
        let Some((oldest, end)) = oldest.and_then(|it| Some((Arc::clone(&it), it.next_offset()?)))
        else {
            return Ok(false);
        };
        let from = cleaning.copied.max(oldest.base_offset);
        let (candidates, reached) = self.candidates(&oldest, from, end)?;
        // Whoever makes a spare of it must be the only one to hold it.
        drop(oldest);
        self.copy(candidates, cleaning.uses_reserve)?;
        cleaning.copied = reached;
        if reached >= end {
            self.trim(end, cleaning)?;
        }
        Ok(true)
    }

    /// The records from an offset on that may be live, and how far was looked.
    fn candidates(
        &self,
        oldest: &Arc<Segment>,
        from: u64,
        end: u64,
    ) -> Result<(Vec<Candidate<S::Change>>, u64)> {
        let (records, bytes, visible_end) = (STEP_RECORDS, STEP_BYTES, end);
        let limits = FetchLimits { records, bytes, visible_end };
        let mut cursor = beginning_at(oldest, from)?;
        let mut fetched = Fetched::default();
        cursor.fetch(self.partition.log().segments(), &limits, &mut fetched)?;
        if fetched.records == 0 {
            return Ok((Vec::new(), end));
        }
        let mut candidates = Vec::new();
        for message in Batch::new(fetched.runs).iter() {
            let offset = message.offset();
            let refused = |kind: CorruptionKind| -> Error {
                oldest.corruption(0, Some(offset..offset.saturating_add(1)), kind).into()
            };
            let stored = Stored::read(message.key(), message.value()).map_err(refused)?;
            if let Stored::Change { number, value } | Stored::Copy { number, value } = stored {
                let change = decoded(value).map_err(refused)?;
                let time = to_millis(message.timestamp()).unwrap_or(0);
                let value = value.to_vec();
                candidates.push(Candidate { offset, number, time, value, change });
            }
        }
        Ok((candidates, cursor.next_offset()))
    }

    /// Appends those that are live again.
    fn copy(&self, mut candidates: Vec<Candidate<S::Change>>, uses_reserve: bool) -> Result<()> {
        let mut inner = self.inner.lock();
        candidates.retain(|it| inner.state.is_live(&it.change, it.offset));
        let key = |it: &Candidate<S::Change>| {
            let (number, value) = (it.number, &*it.value);
            Stored::Copy { number, value }.key()
        };
        let keys = candidates.iter().map(key).collect::<Result<Vec<_>>>()?;
        let records = keys.iter().zip(&candidates);
        let records = records.map(|(key, it)| (&**key, &*it.value, it.time));
        let records = records.collect::<Vec<_>>();
        let base = self.append_anyway(&mut inner, &records, uses_reserve)?;
        for ((copied, key), offset) in candidates.into_iter().zip(&keys).zip(base..) {
            let bytes = record_bytes(key, &copied.value);
            // The entry knows when it was made.
            let at = RecordedAt { offset, bytes, time: 0, is_copy: true };
            inner.state.apply(copied.change, at);
        }
        Ok(())
    }

    /// Says that the records below are not needed any more, and removes them.
    fn trim(&self, start: u64, cleaning: &mut Cleaning) -> Result<()> {
        {
            let mut inner = self.inner.lock();
            let key = Stored::Trim { start, next_number: inner.next_number }.key()?;
            let value = encoded(&start)?;
            self.append_anyway(&mut inner, &[(&*key, &*value, 0)], cleaning.uses_reserve)?;
        }
        // DURABILITY: the copies are durable before the records that they repeat are removed. So
        // is the trim, behind them, without which a log that has lost its head looks whole.
        Rule::CleanUpSync.keep(|| self.partition.flush())?;
        cleaning.start = start;
        let freed = self.partition.with_log(|log| log.retire(start, usize::MAX));
        cleaning.leftovers.extend(freed);
        let mut inner = self.inner.lock();
        inner.bytes = bytes_of(&self.partition);
        drop(inner);
        self.remove_leftovers(cleaning)
    }

    /// Removes files, oldest first. What cannot be removed now is tried again at the next step or
    /// opening.
    pub(super) fn remove_leftovers(&self, cleaning: &mut Cleaning) -> Result<()> {
        // The removals act by path, under no lock of the partition: the close waits for them.
        let Some(_removing) = self.partition.log().disk_work().begin() else { return Ok(()) };
        while let Some(segment) = cleaning.leftovers.front() {
            // DURABILITY: one is gone for good before the next goes; otherwise an older one could
            // come back alone, and what lies between would look lost.
            Rule::CleanUpRemoval.keep(|| segment.sync_dir())?;
            let take_back = |log: &mut Log| match log.factory_mut().reserve_mut() {
                Some(reserve) => reserve.take_back(segment),
                None => Ok(TakenBack::No),
            };
            match self.partition.with_log(take_back)? {
                TakenBack::Yes => {
                    cleaning.leftovers.pop_front();
                    continue;
                }
                TakenBack::NotYet => return Ok(()),
                TakenBack::No => {}
            }
            match self.disk.remove_file(&segment.path) {
                Err(source) if source.kind() != ErrorKind::NotFound => {
                    return Err(Error::io("remove", &segment.path, source));
                }
                _ => drop(cleaning.leftovers.pop_front()),
            }
        }
        Ok(())
    }
}

fn beginning_at(segment: &Arc<Segment>, offset: u64) -> Result<Cursor> {
    if offset <= segment.base_offset {
        return beginning_of(segment);
    }
    Cursor::new(Arc::clone(segment), crate::format::SegmentHeader::SIZE, offset)
}

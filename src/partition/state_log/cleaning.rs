//! Cleans up a state's log: appends the live entries of the oldest segment again at the end, a few
//! at a time, and then removes the segment. An entry is live in a segment if the state has it from
//! there.
//!
//! The order, for each segment:
//! 1. Append copies of its live entries, in batches of a bounded size. The lock that appends take
//!    is held for one batch at a time, and never while a file is read or synced.
//! 2. Append a trim, which says that records below the end of the segment are not needed.
//! 3. Sync the copies and the trim.
//! 4. Remove the segment, once the previous removal is durable; in a log that is replicated, once a
//!    majority has the trim too, so that no truncation takes the trim or a copy away.
//!
//! A crash before 3 leaves the segment and perhaps some copies, which repeat its entries. A crash
//! after 3 leaves a segment that is not needed, which the next opening removes. A record that
//! removes entries needs no copy: the entries were recorded before it, in segments whose removal is
//! durable before its own segment is removed.
//!
//! A follower does 3 and 4 alone, with the copies and the trims of its leader. Whatever lies before a
//! trim that a majority has, a majority has too: so no change is truncated for which an entry was
//! not copied.
//!
//! [`Cleaning`] owns the progress; [`Cleaner`] does the steps, and uses the writer and the
//! partition. Must not know: why a step is taken.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::sync::Arc;

use super::LoggedState;
use super::draft::Candidate;
use super::replay::{Trim, beginning_of};
use super::stored::{Stored, decoded};
use super::writer::{STATE_SEGMENT_BYTES, Writer};
use crate::clock::to_millis;
use crate::error::{CorruptionKind, Error, Result};
use crate::log::Log;
use crate::log::cursor::{Cursor, FetchLimits, Fetched};
use crate::log::reserve::TakenBack;
use crate::log::segment::Segment;
use crate::message::Batch;
use crate::partition::PartitionCore;
use crate::rules::Rule;
use crate::storage::disk::Disk;
use crate::sync::Mutex;

/// LIMIT: the log is cleaned up while it has more bytes than a segment, and more than twice what
/// its live entries need: copies then cost at most as much as the changes do.
const BYTES_PER_LIVE_BYTE: u64 = 2;

/// LIMIT: the log may not have more segments than this beyond those that its bytes fill: each
/// opening that appends begins one, and an almost empty file takes some blocks too.
const SMALL_SEGMENTS: u64 = 4;

/// LIMIT: how many records and bytes of the oldest segment one step reads, under the lock: some
/// hundred microseconds.
const STEP_RECORDS: usize = 500;
const STEP_BYTES: usize = 64 << 10;

/// LIMIT: if the log is this many times larger than it should be, an append takes a step itself,
/// although the background does so too: the log then stays bounded if the background is slow.
const FAR_TOO_LARGE: u64 = 4;

/// The progress of the clean-up. Its lock is held over each step, so that steps run one after
/// another.
#[derive(Debug)]
pub(super) struct Cleaning {
    /// Records below were removed.
    start: u64,
    /// The live entries below have been copied.
    copied: u64,
    /// Removed segments, oldest first, whose files are to be unlinked.
    leftovers: VecDeque<Arc<Segment>>,
    /// Whether copies may go into a segment that is made of a spare.
    pub(super) uses_reserve: bool,
}

impl Cleaning {
    pub(super) fn new(start: u64) -> Self {
        Self { start, copied: 0, leftovers: VecDeque::new(), uses_reserve: false }
    }

    /// Records below were removed.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// The log has changed otherwise than by appends: which entries were copied is not known.
    #[cfg(feature = "replication")]
    pub(super) fn begin_again(&mut self, start: u64) {
        (self.start, self.copied) = (start, 0);
    }
}

/// How much larger than it should be the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Dirt {
    Little,
    Much,
    TooMuch,
}

/// What the last trim frees that is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trimmed {
    Nothing,
    /// Some segments, once a majority has the trim.
    Uncertain,
    /// The segments below this offset.
    Below(u64),
}

pub(super) struct Cleaner<'a, S> {
    partition: &'a PartitionCore,
    disk: &'a dyn Disk,
    writer: &'a Mutex<Writer<S>>,
}

impl<'a, S: LoggedState> Cleaner<'a, S> {
    pub(super) fn new(
        partition: &'a PartitionCore,
        disk: &'a dyn Disk,
        writer: &'a Mutex<Writer<S>>,
    ) -> Self {
        Self { partition, disk, writer }
    }

    /// Removes segments that a trim of an earlier run frees, and takes a first step: a process that
    /// dies soon after every opening must not make the log grow.
    pub(super) fn begin(&self, cleaning: &mut Cleaning) {
        let trim = self.writer.lock().replay().trim();
        if self.is_certain(trim) {
            self.retire(trim.start, cleaning);
        }
        // A failure is tried again later: only space depends on it.
        let _ = self.remove_leftovers(cleaning).and_then(|()| self.step(cleaning));
    }

    pub(super) fn dirt(&self) -> Dirt {
        let segments = self.partition.log().segments().count() as u64;
        let writer = self.writer.lock();
        if self.partition.log().ends().is_replicated() {
            match self.trimmed(&writer) {
                Trimmed::Below(_) => return Dirt::Much,
                Trimmed::Uncertain => return Dirt::Little,
                Trimmed::Nothing if writer.follows() => return Dirt::Little,
                Trimmed::Nothing => {}
            }
        }
        let needed = writer.state().live_bytes().saturating_mul(BYTES_PER_LIVE_BYTE);
        let allowed = needed.max(STATE_SEGMENT_BYTES);
        let filled = (writer.bytes() / STATE_SEGMENT_BYTES).saturating_mul(2);
        if segments < 2 {
            Dirt::Little
        } else if writer.bytes() > allowed.saturating_mul(FAR_TOO_LARGE) {
            Dirt::TooMuch
        } else if writer.bytes() > allowed || segments > filled.saturating_add(SMALL_SEGMENTS) {
            Dirt::Much
        } else {
            Dirt::Little
        }
    }

    /// Copies some live entries of the oldest segment, or removes it. False when nothing is to be
    /// done.
    pub(super) fn step(&self, cleaning: &mut Cleaning) -> Result<bool> {
        if self.dirt() == Dirt::Little { Ok(false) } else { self.step_anyway(cleaning) }
    }

    /// Copies some live entries of the oldest segment, or removes it, even if that frees little.
    /// False when nothing is to be done.
    pub(super) fn step_anyway(&self, cleaning: &mut Cleaning) -> Result<bool> {
        let is_replicated = self.partition.log().ends().is_replicated();
        if is_replicated && self.trimmed(&self.writer.lock()) != Trimmed::Nothing {
            return self.remove_trimmed(cleaning);
        }
        let oldest = self.partition.log().segments().first();
        // The active segment is kept.
        let Some((oldest, end)) = oldest.and_then(|it| Some((Arc::clone(&it), it.next_offset()?)))
        else {
            return Ok(false);
        };
        let from = cleaning.copied.max(oldest.base_offset);
        let (candidates, reached) = self.candidates(&oldest, from, end)?;
        // To become a spare it must not be held elsewhere.
        drop(oldest);
        self.writer.lock().append_copies(candidates, cleaning.uses_reserve)?;
        cleaning.copied = reached;
        if reached >= end {
            self.writer.lock().append_trim(end, cleaning.uses_reserve)?;
            return self.remove_trimmed(cleaning);
        }
        Ok(true)
    }

    /// The records from an offset on that may be live, and the offset up to which they were read.
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
        for message in Batch::new(fetched.ranges).iter() {
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

    /// Whether the trim is never truncated.
    fn is_certain(&self, trim: Trim) -> bool {
        trim.offset < self.partition.log().ends().watermark()
    }

    fn trimmed(&self, writer: &Writer<S>) -> Trimmed {
        let trim = writer.replay().trim();
        let oldest = self.partition.log().segments().first();
        let is_freed =
            oldest.and_then(|oldest| oldest.next_offset()).is_some_and(|end| end <= trim.start);
        if !is_freed {
            return Trimmed::Nothing;
        }
        if self.is_certain(trim) { Trimmed::Below(trim.start) } else { Trimmed::Uncertain }
    }

    /// Removes the records that the last trim frees, if it is certain to be kept. Whether they were
    /// removed.
    fn remove_trimmed(&self, cleaning: &mut Cleaning) -> Result<bool> {
        let Trimmed::Below(start) = self.trimmed(&self.writer.lock()) else { return Ok(false) };
        // DURABILITY: the copies are durable before the records that they repeat are removed. So is
        // the trim, after them. Without it a log that has lost its head would look whole.
        Rule::CleanUpSync.keep(|| self.partition.flush())?;
        self.retire(start, cleaning);
        self.writer.lock().measure();
        self.remove_leftovers(cleaning)?;
        Ok(true)
    }

    fn retire(&self, start: u64, cleaning: &mut Cleaning) {
        let freed = self.partition.with_log(|log| log.retire(start, usize::MAX));
        cleaning.start = start;
        cleaning.leftovers.extend(freed);
    }

    /// Unlinks files, oldest first. A failure is tried again at the next step or opening.
    pub(super) fn remove_leftovers(&self, cleaning: &mut Cleaning) -> Result<()> {
        // The removals act by path, under no lock of the partition: the close waits for them.
        let Some(_removing) = self.partition.log().disk_work().begin() else { return Ok(()) };
        while let Some(segment) = cleaning.leftovers.front() {
            // DURABILITY: the removal of each is durable before the next one; otherwise an older
            // one could exist again alone after a power cut, and those between would look lost.
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

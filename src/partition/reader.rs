//! Reads a partition: ranges, cursors, lookups by time, and waiting for records.
//!
//! Uses the shared log and the counts of reads, and owns nothing itself. Must not know: consumers
//! and their positions. The partition's lock is held only for a lookup in memory: under it, readers
//! never wait for the disk or for a sync.

use std::sync::Arc;
use std::time::SystemTime;

use super::background::Work;
use super::metrics::ReadCounts;
use super::requests::Requests;
use super::shared::SharedLog;
use super::waiters::{Awaits, Fired};
use crate::clock::to_millis;
use crate::config::Visibility;
use crate::error::{Error, Result};
use crate::format::SegmentHeader;
use crate::log::Log;
use crate::log::cursor::{Cursor, FetchLimits, Fetched};
use crate::log::locate::{self, SegmentPosition};
use crate::log::segment::Segment;
use crate::log::verify::{Findings, verify_names, verify_segments};
use crate::message::Batch;

/// LIMIT: how much a lookup by time reads at a time: more than the 32 KiB between two rows of the
/// index, so that one read is mostly enough.
const SCAN_BYTES: usize = 1 << 20;

/// LIMIT: how many passes over the files are made before an error is returned although each pass
/// finds a different one: that takes a removal by the other process in every pass.
pub(crate) const LOOKS: usize = 16;

#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    log: &'a SharedLog,
    counts: &'a ReadCounts,
    requests: &'a Requests,
}

impl<'a> Reader<'a> {
    #[inline]
    pub(super) fn new(log: &'a SharedLog, counts: &'a ReadCounts, requests: &'a Requests) -> Self {
        Self { log, counts, requests }
    }

    /// Refuses offsets that cannot be read now. The end itself is allowed, and has no records. So is
    /// any offset above the end of a replicated log: another member may have records there.
    pub(crate) fn check_range(self, offset: u64, end: u64) -> Result<()> {
        self.log.status().check_open()?;
        self.log.status().check_available()?;
        let start = self.log.ends().start();
        if offset < start || (offset > end && !self.log.ends().is_replicated()) {
            return Err(Error::out_of_range(self.log.origin(), offset, start, end));
        }
        Ok(())
    }

    /// A cursor at `offset`, which is within range.
    pub(crate) fn cursor_at(self, offset: u64) -> Result<Cursor> {
        self.steadily(|| self.find(offset).map_err(|error| self.explain(offset, error)))
    }

    /// Runs `read`. If a broker in another process writes to the files, those that it removed are
    /// no damage: the files are listed again, and the read is repeated, until it fails twice with
    /// the same error.
    #[inline]
    fn steadily<T>(self, mut read: impl FnMut() -> Result<T>) -> Result<T> {
        match read() {
            Err(error @ (Error::Corrupt(_) | Error::Io { .. })) => self.read_again(error, read),
            done => done,
        }
    }

    #[cold]
    fn read_again<T>(self, mut error: Error, mut read: impl FnMut() -> Result<T>) -> Result<T> {
        for _ in 0..LOOKS {
            if !self.requests.read_again() {
                return Err(error);
            }
            match read() {
                Err(again @ (Error::Corrupt(_) | Error::Io { .. })) => {
                    let is_same = format!("{again:?}") == format!("{error:?}");
                    error = again;
                    if is_same {
                        return Err(error);
                    }
                }
                done => return done,
            }
        }
        Err(error)
    }

    /// Takes over what a later look at the files has found, to which another process appends, and
    /// notifies readers of it.
    pub(crate) fn catch_up(self, found: Log) {
        let mut state = self.log.state().lock_for_change();
        if state.has_ended() {
            return;
        }
        state.log_mut().take_over(found, true);
        state.publish();
        let fired = [Awaits::Published, Awaits::Durable].map(|what| state.waiters().fire(what));
        drop(state);
        fired.into_iter().for_each(Fired::notify);
    }

    fn find(self, offset: u64) -> Result<Cursor> {
        self.log.status().check_available()?;
        loop {
            let found = locate::position_of_offset(self.log.segments(), offset, |segment| {
                let state = self.log.lock();
                locate::index_of(state.log(), segment).map(|index| locate::floor(index, offset))
            })?;
            let Some(SegmentPosition { segment, position }) = found else {
                return Err(self.log.status().closed());
            };
            if segment.base_offset > offset {
                // Only the first segment can be above `offset`. Those before it were removed just
                // now, under the lock under which the log start passed them, or are missing.
                let (start, end) = (self.log.lock().log().log_start(), self.log.ends().end());
                if offset < start {
                    return Err(Error::out_of_range(self.log.origin(), offset, start, end));
                }
                return Err(segment.missing_before(offset).into());
            }
            match Cursor::new(Arc::clone(&segment), position, offset) {
                // Replaced or removed since it was looked up.
                Err(_) if !self.log.segments().contains(&segment) => {}
                made => return made,
            }
        }
    }

    /// Adds what a cursor can read now.
    #[inline]
    pub(crate) fn fetch(
        self,
        cursor: &mut Cursor,
        limits: &FetchLimits,
        fetched: &mut Fetched,
    ) -> Result<()> {
        let (records, bytes) = (fetched.records, fetched.bytes);
        let read = self.scan(cursor, limits, fetched);
        if !fetched.ahead.is_empty() {
            self.requests.read_ahead(std::mem::take(&mut fetched.ahead));
        }
        self.counts.note_fetch(
            fetched.records.saturating_sub(records),
            fetched.bytes.saturating_sub(bytes),
        );
        read
    }

    /// Adds what a cursor can read now, for a reader that discarded what it had read ahead: the
    /// metrics do not count the records below `counted` again.
    #[cold]
    pub(crate) fn fetch_again(
        self,
        cursor: &mut Cursor,
        limits: &FetchLimits,
        fetched: &mut Fetched,
        counted: u64,
    ) -> Result<()> {
        let had = fetched.ranges.len();
        let read = self.scan(cursor, limits, fetched);
        for range in fetched.ranges.iter().skip(had) {
            let (records, bytes) = range.size_from(counted);
            self.counts.note_fetch(records, bytes);
        }
        read
    }

    /// Adds what a cursor can read now, for the engine's own purposes: the metrics do not count it.
    #[inline]
    pub(super) fn scan(
        self,
        cursor: &mut Cursor,
        limits: &FetchLimits,
        fetched: &mut Fetched,
    ) -> Result<()> {
        self.steadily(|| {
            let from = cursor.next_offset();
            let read = cursor.fetch(self.log.segments(), limits, fetched);
            read.map_err(|error| self.explain(from, error))
        })
    }

    /// Reads all files again and adds what is found to `findings`.
    pub(crate) fn verify(self, findings: &mut Findings) -> Result<()> {
        let mut before = None;
        loop {
            let mut found = Findings::default();
            let verified = self.verify_once(&mut found);
            let fault = format!("{verified:?} {:?}", found.damage);
            let has_fault = !found.damage.is_empty()
                || matches!(verified, Err(Error::Corrupt(_) | Error::Io { .. }));
            if !has_fault || before.as_ref() == Some(&fault) || !self.requests.read_again() {
                findings.add(found);
                return verified;
            }
            before = Some(fault);
        }
    }

    fn verify_once(self, findings: &mut Findings) -> Result<()> {
        self.log.status().check_open()?;
        if let Some(damage) = self.log.status().damage() {
            findings.damage.push(damage.clone());
            return Ok(());
        }
        // In this order: all that is published now lies in segments that are in the list later.
        let published = self.log.ends().end();
        let (identity, disk) = {
            let state = self.log.lock();
            (state.log().factory().identity().clone(), Arc::clone(&state.log().env().disk))
        };
        if let Some(first) = self.log.segments().first() {
            let start = self.log.lock().log().log_start();
            if start < first.base_offset {
                findings.damage.push(first.missing_before(start));
            }
        }
        let lacks_footer = |number| self.log.lock().log().backlog().lacks_footer(number);
        verify_segments(self.log.segments(), &identity, published, lacks_footer, findings)?;
        verify_names(&*disk, self.log.segments(), &identity, findings)?;
        // If the topic was deleted meanwhile, missing files are no damage.
        self.log.status().check_open()
    }

    /// The first visible record whose timestamp is at or after `time`.
    pub(crate) fn offset_at(self, time: SystemTime) -> Result<Option<u64>> {
        self.steadily(|| self.find_time(time))
    }

    fn find_time(self, time: SystemTime) -> Result<Option<u64>> {
        self.log.status().check_available()?;
        let wanted = match to_millis(time) {
            Some(wanted) => wanted,
            None if time < SystemTime::UNIX_EPOCH => 0,
            // It is later than any timestamp that can be stored.
            None => return Ok(None),
        };
        let limits = FetchLimits {
            records: usize::MAX,
            bytes: SCAN_BYTES,
            visible_end: self.log.ends().visible(Visibility::Published),
        };
        for segment in &self.log.segments().all() {
            // A sealed segment without any record of that age or younger holds no candidate.
            let too_old = segment
                .sealed()
                .is_some_and(|sealed| sealed.times.is_none_or(|times| times.max < wanted));
            if too_old {
                continue;
            }
            match self.first_since_in(segment, wanted, &limits) {
                Ok(None) => {}
                // The segment was replaced or removed meanwhile: the search begins again with the
                // present list.
                Err(_) if self.log.status().is_closed() => return Err(self.log.status().closed()),
                Err(_) if !self.log.segments().contains(segment) => return self.find_time(time),
                found => return found,
            }
        }
        Ok(None)
    }

    /// The first record of at least this timestamp in a segment, or after it.
    fn first_since_in(
        self,
        segment: &Arc<Segment>,
        wanted: u64,
        limits: &FetchLimits,
    ) -> Result<Option<u64>> {
        let start = self.first_position_since(segment, wanted)?;
        let offset = segment.base_offset.max(self.log.ends().start());
        let mut cursor = Cursor::new(Arc::clone(segment), start, offset)?;
        self.first_since(&mut cursor, wanted, limits)
    }

    /// Where in a segment to begin looking for a record of at least this timestamp.
    fn first_position_since(self, segment: &Arc<Segment>, wanted: u64) -> Result<usize> {
        let from_log = {
            let state = self.log.lock();
            locate::whole_index_of(state.log(), segment)
                .map(|index| index.first_at_or_after_time(wanted))
        };
        let position = match from_log {
            Some(position) => position,
            None => segment
                .read_footer()?
                .and_then(|footer| footer.index.first_at_or_after_time(wanted)),
        };
        Ok(position.map_or(SegmentHeader::SIZE, |position| position as usize))
    }

    /// Reads on from a cursor to the first record with a timestamp of at least `wanted`.
    fn first_since(
        self,
        cursor: &mut Cursor,
        wanted: u64,
        limits: &FetchLimits,
    ) -> Result<Option<u64>> {
        loop {
            let mut fetched = Fetched::default();
            self.scan(cursor, limits, &mut fetched)?;
            if fetched.records == 0 {
                return Ok(None);
            }
            let batch = Batch::new(fetched.ranges);
            let found = batch
                .iter()
                .find(|message| to_millis(message.timestamp()).is_some_and(|time| time >= wanted));
            if let Some(found) = found {
                return Ok(Some(found.offset()));
            }
        }
    }

    /// Arms a registration, unless there is something to read above `offset` already.
    pub(crate) fn arm(self, id: u64, offset: u64, visibility: Visibility) -> bool {
        let mut state = self.log.lock();
        if state.has_ended() || self.log.ends().visible(visibility) > offset {
            return false;
        }
        let awaits = match visibility {
            _ if self.log.ends().watermark() <= offset => Awaits::Watermark,
            Visibility::Published => Awaits::Published,
            Visibility::Durable => Awaits::Durable,
        };
        state.waiters().arm(id, awaits);
        // Also while it waits for the watermark: the sync and the replication run side by side.
        let wants_sync = visibility == Visibility::Durable && state.log().ends().is_dirty();
        drop(state);
        if wants_sync {
            self.requests.request(Work::Sync);
        }
        true
    }

    /// Counts offsets that retention removed before a reader read them.
    #[cold]
    pub(crate) fn note_gap(self, offsets: u64) {
        self.counts.note_gap(offsets);
    }

    /// Counts offsets that a reader skipped because of damage.
    #[cold]
    pub(crate) fn note_damage_passed(self, offsets: u64) {
        self.counts.note_damage_passed(offsets);
    }

    /// Replaces an error of reading at `offset` if retention has removed the offset meanwhile.
    fn explain(self, offset: u64, error: Error) -> Error {
        if self.log.status().is_closed() {
            // Its paths may lead to the files of another topic, whose contents are no damage of
            // this one.
            return self.log.status().closed();
        }
        if matches!(error, Error::OffsetOutOfRange { .. }) {
            // Retention removes segments from the list before it publishes the log start, both
            // under this lock. A reader that saw the shorter list must also see the new log start.
            drop(self.log.lock());
        }
        let start = self.log.ends().start();
        if offset >= start {
            return error;
        }
        Error::out_of_range(self.log.origin(), offset, start, self.log.ends().end())
    }
}

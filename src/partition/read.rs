//! The reading half of a partition: ranges, cursors, lookups by time, and waiting.

use std::sync::Arc;
use std::time::SystemTime;

use super::waiters::{Awaits, Notifier};
use super::{LOOKS, PartitionCore, Work};
use crate::clock::to_millis;
use crate::config::Visibility;
use crate::error::{Error, Result};
use crate::format::SegmentHeader;
use crate::log::cursor::{Cursor, FetchLimits, Fetched};
use crate::log::locate::{self, SegmentPosition};
use crate::log::segment::Segment;
use crate::log::verify::{Findings, verify_names, verify_segments};
use crate::message::Batch;

/// LIMIT: how much a lookup by time reads at a time.
const SCAN_BYTES: usize = 1 << 20;

impl PartitionCore {
    /// Refuses offsets that cannot be read now; the end itself is fine, and empty.
    pub(crate) fn check_range(&self, offset: u64, end: u64) -> Result<()> {
        if self.is_closed() {
            return Err(self.ended());
        }
        self.check_available()?;
        let start = self.log_start();
        if offset < start || offset > end {
            return Err(Error::OffsetOutOfRange { requested: offset, start, end });
        }
        Ok(())
    }

    /// A cursor at `offset`, which is within range.
    pub(crate) fn cursor_at(&self, offset: u64) -> Result<Cursor> {
        self.steadily(|| self.find(offset).map_err(|error| self.explain(offset, error)))
    }

    /// Reads. Where a broker in another process writes to the files, what it has removed is no damage:
    /// they are looked at anew, and the read is tried again, until the same error comes twice.
    #[inline]
    fn steadily<T>(&self, mut read: impl FnMut() -> Result<T>) -> Result<T> {
        match read() {
            Err(error @ (Error::Corrupt(_) | Error::Io { .. })) => self.read_again(error, read),
            done => done,
        }
    }

    #[cold]
    fn read_again<T>(&self, mut error: Error, mut read: impl FnMut() -> Result<T>) -> Result<T> {
        for _ in 0..LOOKS {
            if !self.background.look_again(self) {
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

    fn find(&self, offset: u64) -> Result<Cursor> {
        self.check_available()?;
        loop {
            let found = locate::position_of_offset(&self.segments, offset, |segment| {
                let state = self.state.lock();
                locate::index_of(&state.log, segment).map(|index| locate::floor(index, offset))
            })?;
            let Some(SegmentPosition { segment, position }) = found else {
                return Err(self.ended());
            };
            if segment.base_offset > offset {
                // Only the first segment can be that: those before it were removed just now, under
                // the lock under which the log start went past them, or are missing.
                let (start, end) = (self.state.lock().log.log_start(), self.log_end());
                if offset < start {
                    return Err(Error::OffsetOutOfRange { requested: offset, start, end });
                }
                return Err(segment.missing_before(offset).into());
            }
            match Cursor::new(Arc::clone(&segment), position, offset) {
                // Replaced or removed since it was looked up.
                Err(_) if !self.segments.contains(&segment) => {}
                made => return made,
            }
        }
    }

    /// Adds what a cursor can read now.
    #[inline]
    pub(crate) fn fetch(
        &self,
        cursor: &mut Cursor,
        limits: &FetchLimits,
        fetched: &mut Fetched,
    ) -> Result<()> {
        let (records, bytes) = (fetched.records, fetched.bytes);
        let read = self.scan(cursor, limits, fetched);
        self.reads.note_fetch(
            fetched.records.saturating_sub(records),
            fetched.bytes.saturating_sub(bytes),
        );
        read
    }

    /// As [`fetch`](Self::fetch), for a reader that gave back what it had read: the records below
    /// `counted` are not counted again.
    #[cold]
    pub(crate) fn fetch_again(
        &self,
        cursor: &mut Cursor,
        limits: &FetchLimits,
        fetched: &mut Fetched,
        counted: u64,
    ) -> Result<()> {
        let had = fetched.runs.len();
        let read = self.scan(cursor, limits, fetched);
        for run in fetched.runs.iter().skip(had) {
            let (records, bytes) = run.size_from(counted);
            self.reads.note_fetch(records, bytes);
        }
        read
    }

    /// As [`fetch`](Self::fetch), for the engine's own purposes: it does not count.
    #[inline]
    pub(super) fn scan(
        &self,
        cursor: &mut Cursor,
        limits: &FetchLimits,
        fetched: &mut Fetched,
    ) -> Result<()> {
        self.steadily(|| {
            let from = cursor.next_offset();
            let read = cursor.fetch(&self.segments, limits, fetched);
            read.map_err(|error| self.explain(from, error))
        })
    }

    /// Reads all files again and adds what is found to `findings`.
    pub(crate) fn verify(&self, findings: &mut Findings) -> Result<()> {
        let mut before = None;
        loop {
            let mut found = Findings::default();
            let verified = self.verify_once(&mut found);
            let fault = format!("{verified:?} {:?}", found.damage);
            let has_fault = !found.damage.is_empty()
                || matches!(verified, Err(Error::Corrupt(_) | Error::Io { .. }));
            if !has_fault || before.as_ref() == Some(&fault) || !self.background.look_again(self) {
                findings.add(found);
                return verified;
            }
            before = Some(fault);
        }
    }

    fn verify_once(&self, findings: &mut Findings) -> Result<()> {
        if self.is_closed() {
            return Err(self.ended());
        }
        if let Some(damage) = &self.damage {
            findings.damage.push(damage.clone());
            return Ok(());
        }
        // In this order: all that is published now lies in segments that are in the list later.
        let published = self.log_end();
        let (identity, disk) = {
            let state = self.state.lock();
            (state.log.factory().identity().clone(), Arc::clone(&state.log.env().disk))
        };
        if let Some(first) = self.segments.first() {
            let start = self.state.lock().log.log_start();
            if start < first.base_offset {
                findings.damage.push(first.missing_before(start));
            }
        }
        let lacks_footer = |number| self.state.lock().log.backlog().lacks_footer(number);
        verify_segments(&self.segments, &identity, published, lacks_footer, findings)?;
        verify_names(&*disk, &self.segments, &identity, findings)?;
        // The files of a topic that was deleted meanwhile are missing for a reason.
        if self.is_closed() { Err(self.ended()) } else { Ok(()) }
    }

    /// The first visible record whose timestamp is at or after `time`.
    pub(crate) fn offset_at(&self, time: SystemTime) -> Result<Option<u64>> {
        self.steadily(|| self.find_time(time))
    }

    fn find_time(&self, time: SystemTime) -> Result<Option<u64>> {
        self.check_available()?;
        let wanted = match to_millis(time) {
            Some(wanted) => wanted,
            None if time < SystemTime::UNIX_EPOCH => 0,
            // Later than any timestamp that can be stored.
            None => return Ok(None),
        };
        let limits = FetchLimits {
            records: usize::MAX,
            bytes: SCAN_BYTES,
            visible_end: self.visible_end(Visibility::Published),
        };
        for segment in &self.segments.all() {
            // A sealed segment without any record of that age or younger holds no candidate.
            let too_old = segment
                .sealed()
                .is_some_and(|sealed| sealed.times.is_none_or(|times| times.max < wanted));
            if too_old {
                continue;
            }
            match self.first_since_in(segment, wanted, &limits) {
                Ok(None) => {}
                // Replaced or removed while it was looked at: what there is now is in a new list.
                Err(_) if self.is_closed() => return Err(self.ended()),
                Err(_) if !self.segments.contains(segment) => return self.find_time(time),
                found => return found,
            }
        }
        Ok(None)
    }

    /// The first record of at least this timestamp in a segment, or behind it.
    fn first_since_in(
        &self,
        segment: &Arc<Segment>,
        wanted: u64,
        limits: &FetchLimits,
    ) -> Result<Option<u64>> {
        let start = self.first_place_since(segment, wanted)?;
        let offset = segment.base_offset.max(self.log_start());
        let mut cursor = Cursor::new(Arc::clone(segment), start, offset)?;
        self.first_since(&mut cursor, wanted, limits)
    }

    /// Where in a segment to begin looking for a record of at least this timestamp.
    fn first_place_since(&self, segment: &Arc<Segment>, wanted: u64) -> Result<usize> {
        let from_log = {
            let state = self.state.lock();
            locate::whole_index_of(&state.log, segment)
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
        &self,
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
            let batch = Batch::new(fetched.runs);
            let found = batch
                .iter()
                .find(|message| to_millis(message.timestamp()).is_some_and(|time| time >= wanted));
            if let Some(found) = found {
                return Ok(Some(found.offset()));
            }
        }
    }

    pub(crate) fn register(&self, notifier: &Arc<Notifier>, token: usize) -> u64 {
        self.state.lock().waiters.register(notifier, token)
    }

    pub(crate) fn deregister(&self, id: u64) {
        // A forked child has nobody to wake, and perhaps a lock that is never released.
        if self.process.is_current() {
            self.state.lock().waiters.deregister(id);
        }
    }

    /// Arms a registration, unless there is something to read above `offset` already.
    pub(crate) fn arm(self: &Arc<Self>, id: u64, offset: u64, visibility: Visibility) -> bool {
        let mut state = self.state.lock();
        if state.closed || self.visible_end(visibility) > offset {
            return false;
        }
        let awaits = match visibility {
            Visibility::Published => Awaits::Published,
            Visibility::Durable => Awaits::Durable,
        };
        state.waiters.arm(id, awaits);
        let wants_sync = awaits == Awaits::Durable && state.log.ends().is_dirty();
        drop(state);
        if wants_sync {
            self.request(Work::Sync);
        }
        true
    }
}

//! The segments that take appends: the active one, and the next ones if they are prepared.
//!
//! Owns: the writer of the active segment and the prepared segments, and when more space or a next
//! segment is requested. Must not know: offsets beyond those of the active segment, producers, what
//! happens to a sealed segment, which thread makes the requested space.
//!
//! Invariants; [`check`](Appender::check) holds the first:
//! 1. A prepared segment has a higher number than the active one and those prepared before it.
//! 2. If there is no active segment, the first append begins a new one, which has a new salt. So
//!    bytes that an earlier run left after the end never follow a later batch.

use std::collections::VecDeque;
use std::sync::Arc;

use super::active::{Active, Way};
use super::create::Prepared;
use super::factory::SegmentFactory;
use super::space::Growth;
pub(crate) use super::space::Shortening;
use super::tasks::SyncFile;
use crate::error::{Error, Result};
use crate::storage::disk::Disk;

/// LIMIT: how many segments are made ahead at most. A writer that fills segments faster than the disk
/// makes them one at a time, with two syncs each, had to make every second one itself; with two in
/// front of it, the times that the disk takes even out.
const PREPARED_MOST: usize = 2;

/// LIMIT: for how many segments: long enough for a burst of 2 GiB, after which a partition that has
/// become quiet keeps one file and map less.
const DOUBLE_FOR: u8 = 32;

#[derive(Debug, Default)]
pub(crate) struct Appender {
    /// `None` after an opening that left bytes after the end, until the first append.
    active: Option<Active>,
    /// The segments that come next, in order.
    prepared: VecDeque<Prepared>,
    /// For how many more segments two are made ahead, since one was full before the next was made.
    double_for: u8,
}

impl Appender {
    pub(crate) fn active(&self) -> Option<&Active> {
        self.active.as_ref()
    }

    /// The segments that are made ahead, in order.
    pub(crate) fn prepared(&self) -> &VecDeque<Prepared> {
        &self.prepared
    }

    // ---- room for a batch ----------------------------------------------------------------------

    /// Whether the active segment has room for a batch of `size` bytes that ends at `next_offset`.
    #[inline]
    pub(super) fn has_room(&self, size: u32, next_offset: u64) -> bool {
        self.active.as_ref().is_some_and(|active| {
            let end = active.position().saturating_add(size as usize);
            let span = next_offset.saturating_sub(active.segment().base_offset);
            // Offsets in the index and positions are 32 bits: roll before either overflows.
            end <= active.capacity() && u32::try_from(span).is_ok()
        })
    }

    /// The active segment, with space made for a batch of `size` bytes, for which it has room.
    #[inline]
    pub(super) fn with_space(&mut self, size: u32, way: Way) -> Result<&mut Active> {
        let Some(active) = self.active.as_mut() else {
            return Err(Error::Closed);
        };
        active.reserve(active.position().saturating_add(size as usize), way)?;
        Ok(active)
    }

    // ---- rolling -------------------------------------------------------------------------------

    /// Returns the prepared segment, or a new one if that has no room for `needed` bytes.
    pub(super) fn next_segment(
        &mut self,
        needed: usize,
        factory: &mut SegmentFactory,
    ) -> Result<Prepared> {
        let fits = |next: &Prepared| next.writer.region().capacity() >= needed;
        match self.prepared.pop_front() {
            Some(next) if fits(&next) => {
                self.double_for = self.double_for.saturating_sub(1);
                return Ok(next);
            }
            Some(next) => self.prepared.push_front(next),
            None if self.active.is_some() => self.double_for = DOUBLE_FOR,
            None => {}
        }
        // A segment that a recovery prepared records a cut of the log; so must the one that
        // replaces it.
        let rewrite = self.prepared.front().and_then(|next| next.header.rewrite);
        let new = factory.new_segment(needed, rewrite)?;
        let made = factory.make(new)?;
        for too_small in self.prepared.drain(..) {
            // A higher number is in use, so it must not be used any more.
            too_small.discard(&*factory.env().disk);
        }
        Ok(made)
    }

    /// Makes `next` the active segment. Returns the one before, to be sealed.
    pub(super) fn set_active(&mut self, next: Active) -> Option<Active> {
        let before = self.active.replace(next);
        self.assert_valid();
        before
    }

    /// Takes the active segment out, to be sealed.
    pub(super) fn take_active(&mut self) -> Option<Active> {
        self.active.take()
    }

    // ---- syncs ---------------------------------------------------------------------------------

    /// The active segment's file, for a sync of what is published now; `None` where a sync has
    /// covered all of it.
    pub(super) fn begin_sync(&mut self) -> Option<SyncFile> {
        self.active.as_mut()?.begin_sync()
    }

    /// A sync of this file has succeeded. It may be that of a segment sealed meanwhile.
    pub(super) fn finish_sync(&mut self, file: &SyncFile) {
        let active = self.active.as_mut();
        if let Some(active) = active.filter(|it| Arc::ptr_eq(it.segment(), &file.segment)) {
            active.synced_to(file.end);
        }
    }

    // ---- space ahead ---------------------------------------------------------------------------

    /// Whether to call [`growth_needed`](Self::growth_needed). Called after every append, so it only
    /// compares numbers.
    #[inline]
    pub(crate) fn wants_space(&mut self) -> bool {
        self.active.as_mut().is_some_and(Active::is_near_either) && self.lacks_space()
    }

    fn lacks_space(&self) -> bool {
        let Some(active) = &self.active else { return false };
        active.is_near_end()
            || (active.is_near_roll() && self.prepared.front().is_some_and(Prepared::is_small))
    }

    /// The space to make: for the active segment, or for the next one if that is needed soon.
    pub(crate) fn growth_needed(&self) -> Option<Growth> {
        let active = self.active.as_ref()?;
        let next = self.prepared.front().filter(|next| active.is_near_roll() && next.is_small());
        active.growth_needed().or_else(|| next.map(Prepared::growth))
    }

    /// Whether the active segment is so full that another one should be made ready.
    #[inline]
    pub(crate) fn wants_next(&self) -> bool {
        let Some(active) = &self.active else { return false };
        let part = if self.double_for > 0 { 8 } else { 2 };
        self.prepared.len() < self.prepared_wanted() && active.position() > active.capacity() / part
    }

    fn prepared_wanted(&self) -> usize {
        if self.double_for > 0 { PREPARED_MOST } else { 1 }
    }

    /// Takes a prepared segment. Returns one that is not needed, because there are others or a
    /// higher number is in use: the caller discards it.
    #[must_use = "a segment that comes too late is to be discarded"]
    pub(crate) fn finish_prepare(&mut self, prepared: Prepared) -> Option<Prepared> {
        if self.prepared.len() >= self.prepared_wanted()
            || prepared.header.number <= self.last_number()
        {
            return Some(prepared);
        }
        self.add_prepared(prepared);
        None
    }

    /// Removes the prepared segments, which nobody needs once the log takes no more appends. One that
    /// records a cut stays.
    pub(crate) fn discard_prepared(&mut self, disk: &dyn Disk) {
        let (kept, unneeded): (VecDeque<_>, VecDeque<_>) =
            self.prepared.drain(..).partition(|next| next.header.rewrite.is_some());
        self.prepared = kept;
        for next in unneeded {
            next.discard(disk);
        }
    }

    pub(super) fn add_prepared(&mut self, prepared: Prepared) {
        self.prepared.push_back(prepared);
        self.assert_valid();
    }

    /// Takes the prepared segments out, which must not be used any more.
    #[cfg(feature = "replication")]
    pub(super) fn take_prepared(&mut self) -> VecDeque<Prepared> {
        std::mem::take(&mut self.prepared)
    }

    /// Nothing is appended any more in this run. Returns the space to give back.
    pub(crate) fn end_space(&mut self) -> Option<Shortening> {
        self.active.as_mut().map(Active::end_space)
    }

    /// The files were removed with their topic.
    pub(super) fn clear(&mut self) {
        self.active = None;
        self.prepared.clear();
    }

    fn active_number(&self) -> u64 {
        self.active.as_ref().map_or(0, |active| active.segment().number)
    }

    /// The highest number that a segment has which takes appends, or will.
    fn last_number(&self) -> u64 {
        self.prepared.back().map_or_else(|| self.active_number(), |last| last.header.number)
    }

    fn assert_valid(&self) {
        debug_assert_eq!(self.check(), Ok(()));
    }

    /// What is wrong, if anything: invariant 1.
    fn check(&self) -> std::result::Result<(), &'static str> {
        let mut before = self.active_number();
        for next in &self.prepared {
            let number = next.header.number;
            if std::mem::replace(&mut before, number) >= number {
                return Err("a prepared segment has a number that was passed");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[cfg(not(loom))]
pub(super) mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::format::TopicId;
    use crate::log::create::Writer;
    use crate::log::{Log, LogEnv, LogIdentity, LogOptions};
    use crate::record::TopicPartition;
    use crate::storage::disk::MemoryDisk;

    /// A log in memory.
    pub(in crate::log) fn log() -> Log {
        log_of(16 << 10, Writer::Pwrite)
    }

    pub(in crate::log) fn log_of(segment_bytes: u64, writer: Writer) -> Log {
        let disk = MemoryDisk::new();
        disk.create_dir(Path::new("/t")).unwrap();
        let env = Arc::new(LogEnv::for_reading(Arc::new(disk)));
        let identity = LogIdentity {
            origin: Arc::new(TopicPartition::from(("t", 0))),
            topic_id: TopicId([7; 16]),
            dir: PathBuf::from("/t"),
        };
        let options = LogOptions { segment_bytes, writer, has_budget: false, features: 0 };
        Log::create(&env, identity, options, 0).unwrap()
    }

    #[test]
    fn the_check_finds_a_prepared_segment_whose_number_was_passed() {
        let mut log = log();
        let early = log.factory_mut().begin_prepare().unwrap().run().unwrap();
        log.roll_for(0).unwrap();
        assert!(log.appender.active_number() > early.header.number);
        log.appender.prepared.push_back(early);
        assert!(log.appender.check().is_err());
    }

    /// One segment is made ahead. Once the next one was needed before it was made, two are.
    #[test]
    fn a_late_segment_has_two_made_ahead() {
        let mut log = log();
        let make = |log: &mut Log| log.factory_mut().begin_prepare().unwrap().run().unwrap();
        let first = make(&mut log);
        assert!(log.appender.finish_prepare(first).is_none());
        let second = make(&mut log);
        let second = log.appender.finish_prepare(second).unwrap();
        log.roll_for(0).unwrap();
        assert_eq!(log.appender.double_for, 0);
        log.roll_for(0).unwrap();
        assert_eq!(log.appender.double_for, DOUBLE_FOR);
        assert!(log.appender.finish_prepare(second).is_some(), "its number was passed");
        for _ in 0..2 {
            let next = make(&mut log);
            assert!(log.appender.finish_prepare(next).is_none());
        }
        let third = make(&mut log);
        assert!(log.appender.finish_prepare(third).is_some());
        let numbers: Vec<u64> = log.appender.prepared.iter().map(|it| it.header.number).collect();
        log.roll_for(0).unwrap();
        assert_eq!(log.appender.active_number(), numbers[0], "in order");
        log.roll_for(0).unwrap();
        assert_eq!(log.appender.active_number(), numbers[1]);
        // For a while: a partition that has become quiet has one file and map less.
        for _ in 2..DOUBLE_FOR {
            assert_eq!(log.appender.prepared_wanted(), 2);
            let next = make(&mut log);
            assert!(log.appender.finish_prepare(next).is_none());
            log.roll_for(0).unwrap();
        }
        assert_eq!(log.appender.prepared_wanted(), 1);
        let (next, more) = (make(&mut log), make(&mut log));
        assert!(log.appender.finish_prepare(next).is_none());
        assert!(log.appender.finish_prepare(more).is_some());
    }

    #[test]
    fn a_segment_that_is_made_too_late_is_given_back() {
        let mut log = log();
        let late = log.factory_mut().begin_prepare().unwrap().run().unwrap();
        log.roll_for(0).unwrap();
        let number = late.header.number;
        let late = log.appender.finish_prepare(late).unwrap();
        assert_eq!(late.header.number, number);
        assert!(log.appender.prepared().is_empty());
    }
}

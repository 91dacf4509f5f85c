//! Retention of one partition: what goes, decided without the lock, and its removal, in steps.
//!
//! The order of a removal, which [`broker`](crate) keeps:
//! 1. the log up to the new start is durable, and so is the segment that goes on where all others
//!    go ([`settle`](PartitionCore::settle)),
//! 2. the new log start is durable (`__local`),
//! 3. readers are told, and the segments leave the log ([`retire`](PartitionCore::retire)),
//! 4. their files are unlinked, oldest first, and the directory is synced.
//!
//! A crash before 2 leaves everything; one after it leaves files below the log start, which the
//! next opening removes. The partition's lock is held for a step of 3 alone, never over the disk.
//!
//! Step 4 acts by path. So it is counted as work on the disk: the deletion of a topic waits for it
//! before the topic's name is free, and it never reaches a later topic of the same name.

use std::io::ErrorKind;
use std::sync::Arc;

use super::{PRODUCER_EXPIRY, PartitionCore, Work};
use crate::clock::Moment;
use crate::error::{Error, Result};
use crate::log::retention::{Plan, Planner, RetentionPolicy, SegmentFacts, Tail};
use crate::log::segment::Segment;
use crate::log::tasks::{PrepareTask, SyncScope};
use crate::rules::Rule;
use crate::sync::Ordering;
use crate::trace::note;

/// LIMIT: how many segments are looked at or taken out under one lock: microseconds of work.
const STEP: usize = 64;

impl PartitionCore {
    /// What retention would do now. `None` where the partition is closed or poisoned: what a
    /// failed sync left is evidence.
    pub(crate) fn plan_retention(&self, policy: &RetentionPolicy) -> Option<(Plan, Tail)> {
        let now = self.clock.moment();
        let tail = self.look_at_tail(now)?;
        let mut bytes = 0;
        if policy.bytes.is_some() {
            bytes = tail.facts.bytes;
            self.each_sealed(|facts| {
                bytes = facts.bytes.saturating_add(bytes);
                true
            });
        }
        let mut planner = Planner::new(*policy, now.run, self.log_start(), bytes);
        if policy.bytes.is_some() || policy.age.is_some() {
            self.each_sealed(|facts| planner.sealed(facts));
        }
        Some((planner.finish(&tail), tail))
    }

    /// As retention would plan it to remove all below `offset`.
    pub(crate) fn plan_deletion(&self, offset: u64) -> Result<(Plan, Tail)> {
        let tail = Tail::of(&self.writable_state()?.log).ok_or_else(|| self.ended())?;
        // The last segment is replaced when nothing is left in it: its space is wanted back.
        let roll = tail.facts.next_offset <= offset && tail.facts.times.is_some();
        Ok((Plan { log_start: offset, roll }, tail))
    }

    fn look_at_tail(&self, now: Moment) -> Option<Tail> {
        let mut state = self.state.lock();
        if state.closed || state.failure.is_some() || !self.is_available() {
            return None;
        }
        state.log.tell_time(now);
        // The next append asks for the time again, whatever the wall clock does until then.
        self.wall_seen.store(u64::MAX, Ordering::Relaxed);
        Tail::of(&state.log)
    }

    /// Gives the sealed segments except the last one of all, oldest first, until `more` is false.
    fn each_sealed(&self, mut more: impl FnMut(&SegmentFacts) -> bool) {
        let Some(last) = self.segments.last() else { return };
        let mut reached = None;
        loop {
            let some = self.segments.some_after(reached, STEP);
            for segment in &some {
                let before_last = segment.ranks.1 < last.ranks.0;
                match SegmentFacts::of(segment).filter(|_| before_last) {
                    Some(facts) if more(&facts) => {}
                    _ => return,
                }
            }
            let Some(segment) = some.last() else { return };
            reached = Some(segment.ranks.1);
        }
    }

    /// The oldest segment, if it is sealed and another one follows, and the partition is whole.
    pub(crate) fn oldest_sealed(&self) -> Option<SegmentFacts> {
        if self.is_closed() || self.state.is_poisoned() {
            return None;
        }
        let mut oldest = None;
        self.each_sealed(|facts| {
            oldest = Some(*facts);
            false
        });
        oldest
    }

    /// Whether the numbers of a producer are remembered, as far as is known.
    pub(crate) fn may_remember(&self, producer: u64) -> bool {
        let now = self.clock.moment();
        let mut state = self.state.lock();
        state.log.tell_time(now);
        state.log.expire_producers(PRODUCER_EXPIRY);
        !self.is_available() || state.log.producer(producer).is_some()
    }

    /// Gives up what the files of the partition have of the broker's byte budget; they were removed.
    pub(crate) fn give_up_space(&self) {
        for segment in self.segments.all() {
            segment.give_up_space();
        }
        self.state.lock().log.give_up_files();
    }

    /// Puts a new segment in the place of the last one, unless something was appended to that
    /// since `planned`. Whether it did.
    ///
    /// # Errors
    ///
    /// What the disk said about the new file. The log is as it was.
    pub(crate) fn roll_tail(self: &Arc<Self>, planned: &Tail) -> Result<bool> {
        self.prepare_ahead()?;
        let mut state = self.writable_state()?;
        if state.log.log_end() != planned.facts.next_offset {
            return Ok(false);
        }
        state.log.roll_for(0)?;
        state.changed = true;
        drop(state);
        self.request(Work::Finish);
        Ok(true)
    }

    /// Makes the next segment, so that rolling needs no disk under the lock.
    fn prepare_ahead(&self) -> Result<()> {
        let _running = self.disk_work.begin().ok_or_else(|| self.ended())?;
        let task = {
            let mut state = self.writable_state()?;
            if state.log.appender().prepared().is_some() {
                return Ok(());
            }
            let mut task = state.log.factory_mut().begin_prepare()?;
            // With it, others can go; without it, a budget that is used up would stay so.
            task.new.exceeds_budget = true;
            task
        };
        let prepared = PrepareTask::run(task)?;
        let mut state = self.state.lock();
        if state.closed {
            prepared.discard(&*state.log.env().disk);
            return Err(self.ended());
        }
        if let Some(late) = state.log.appender_mut().finish_prepare(prepared) {
            late.discard(&*state.log.env().disk);
        }
        Ok(())
    }

    /// Makes durable what must be before records below `start` may go: they themselves, and the
    /// opening batch of the segment that then is the first. What it says of the producers is all
    /// that is left of it once the footers before it are gone.
    pub(crate) fn settle(&self, start: u64) -> Result<()> {
        let first = self.segments.holding(start);
        let end = first.and_then(|first| first.next_offset());
        if end.is_some_and(|end| end > start && end <= self.durable_end()) {
            return Ok(());
        }
        Rule::SettledRemoval.keep(|| self.gate.run_one(&|| self.sync_once(SyncScope::All)))
    }

    /// Moves the log start, which is durable there, and removes the segments below it.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the directory cannot be synced. A file that cannot be removed is none:
    /// it is tried again.
    pub(crate) fn retire(&self, start: u64) -> Result<()> {
        let (mut last, mut segments) = (None, 0);
        // Held until the last unlink: afterwards a path may lead to another topic of this name.
        let Some(removing) = self.disk_work.begin() else { return Ok(()) };
        loop {
            let gone = {
                let mut state = self.state.lock();
                let before = state.log.log_start();
                let gone = state.log.retire(start, STEP);
                let passed = before..state.log.log_start();
                state.counts.note_removal(passed, &gone);
                self.log_start.store(state.log.log_start(), Ordering::Release);
                self.gate.raise(state.log.durable_end());
                gone
            };
            // Whatever is left when the partition ends is removed with the topic, or at the next
            // opening.
            let Some(segment) = gone.last().filter(|_| !self.is_closed()) else { break };
            last = Some(Arc::clone(segment));
            segments += gone.len();
            self.remove_files(gone);
        }
        // Not over the event: who hears of it may delete the topic, which waits for this work.
        drop(removing);
        if segments == 0 {
            return Ok(());
        }
        note!(
            self.trace,
            Removed {
                partition: Arc::clone(&self.origin),
                log_start_offset: self.log_start(),
                segments,
            }
        );
        // With the topic its directory may be gone: then there is nothing to make durable.
        let Some(_syncing) = self.disk_work.begin() else { return Ok(()) };
        last.map_or(Ok(()), |segment| segment.sync_dir())
    }

    /// Begins a new segment of at least so many bytes.
    ///
    /// # Errors
    ///
    /// What the disk said, also [`Error::Closed`], [`Error::UnknownTopic`] and
    /// [`Error::Poisoned`]; the log is as it was.
    pub(super) fn roll_for(&self, bytes: usize) -> Result<()> {
        self.writable_state()?.log.roll_for(bytes)
    }

    /// Tries again to remove files that could not be removed. Whether some are left.
    pub(crate) fn keeps_leftovers(&self) -> bool {
        self.retry_removals();
        !self.leftovers.lock().is_empty()
    }

    /// Tries again to remove files that could not be removed.
    pub(crate) fn retry_removals(&self) {
        let Some(_removing) = self.disk_work.begin() else { return };
        let leftovers = std::mem::take(&mut *self.leftovers.lock());
        if !leftovers.is_empty() && !self.is_closed() {
            self.remove_files(leftovers);
        }
    }

    pub(super) fn remove_files(&self, segments: Vec<Arc<Segment>>) {
        for segment in segments {
            match segment.remove_file() {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    self.leftovers.lock().push(segment);
                }
                _ => {}
            }
        }
    }

    /// What an error of reading at `offset` means if retention went past it meanwhile.
    pub(super) fn explain(&self, offset: u64, error: Error) -> Error {
        if self.is_closed() {
            // Its paths may lead to the files of another topic, which are no damage to this one.
            return self.ended();
        }
        if matches!(error, Error::OffsetOutOfRange { .. }) {
            // Retention shortens the list of segments before it publishes the log start, both under
            // this lock. Whoever met the shorter list must also find the log start behind it.
            drop(self.state.lock());
        }
        let start = self.log_start();
        if offset >= start {
            return error;
        }
        Error::OffsetOutOfRange { requested: offset, start, end: self.log_end() }
    }
}

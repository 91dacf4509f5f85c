//! Retention of one partition: decides without the lock what to remove, and removes it in steps.
//!
//! The order of a removal, which [`broker`](crate) keeps:
//! 1. Make the log durable up to the new start, and the opening batch of the segment that is then
//!    the first ([`flush_below`](Retention::flush_below)).
//! 2. Make the new log start durable (`__local`).
//! 3. Publish the new start, and take the segments out of the log ([`retire`](Retention::retire)).
//! 4. Unlink their files, oldest first, and sync the directory.
//!
//! A crash before 2 leaves everything. A crash after it leaves files below the log start, which the
//! next opening removes. The partition's lock is held for a step of 3 alone, never over the disk.
//!
//! Step 4 uses paths. So it is counted as work on the disk: the deletion of a topic waits for it
//! before the topic's name can be used again, and it never removes files of a later topic of the
//! same name.
//!
//! Uses the shared log, the flusher and the leftovers, and owns nothing itself. Must not know: the
//! topic's settings, and why its caller removes records.

use std::sync::Arc;

use super::background::Work;
use super::flusher::Flusher;
use super::leftovers::Leftovers;
use super::requests::Requests;
use super::shared::SharedLog;
use super::space;
use crate::error::Result;
use crate::log::Log;
use crate::log::compaction::run::LogAccess;
use crate::log::retention::{Plan, Planner, RetentionPolicy, SegmentFacts, Tail};
use crate::log::segment::Segment;
use crate::rules::Rule;
use crate::trace::note;

/// LIMIT: how many segments are read or removed from the list under one lock: microseconds of work.
const STEP: usize = 64;

#[derive(Clone, Copy)]
pub(crate) struct Retention<'a> {
    log: &'a SharedLog,
    flusher: Flusher<'a>,
    leftovers: &'a Leftovers,
    requests: &'a Requests,
}

impl LogAccess for Retention<'_> {
    fn with_log<R>(&self, change: impl FnOnce(&mut Log) -> R) -> R {
        self.log.with_log(change)
    }

    fn remove_files(&self, segments: Vec<Arc<Segment>>) {
        self.leftovers.remove_files(segments);
    }
}

impl<'a> Retention<'a> {
    pub(super) fn new(
        log: &'a SharedLog,
        flusher: Flusher<'a>,
        leftovers: &'a Leftovers,
        requests: &'a Requests,
    ) -> Self {
        Self { log, flusher, leftovers, requests }
    }

    /// What retention would do now. `None` if the partition is closed or poisoned: the files after
    /// a failed sync are evidence.
    pub(crate) fn plan(self, policy: &RetentionPolicy) -> Option<(Plan, Tail)> {
        let now = self.log.clock().moment();
        let tail = self.log.tail(now)?;
        let mut bytes = 0;
        if policy.bytes.is_some() {
            bytes = tail.facts.bytes;
            self.each_sealed(|facts| {
                bytes = facts.bytes.saturating_add(bytes);
                true
            });
        }
        let mut planner = Planner::new(*policy, now.run, self.log.ends().start(), bytes);
        if policy.bytes.is_some() || policy.age.is_some() {
            self.each_sealed(|facts| planner.sealed(facts));
        }
        let plan = planner.finish(&tail);
        // What lies above the high watermark may still be truncated and appended anew.
        let log_start = plan.log_start.min(self.log.ends().watermark());
        Some((Plan { log_start, ..plan }, tail))
    }

    /// The plan that removes all records below `offset`.
    ///
    /// # Errors
    ///
    /// The errors of a partition that takes no appends.
    pub(crate) fn plan_deletion(self, offset: u64) -> Result<(Plan, Tail)> {
        let tail = Tail::of(self.log.lock_for_writing()?.log())
            .ok_or_else(|| self.log.status().closed())?;
        // The last segment is replaced if all of its records are removed, to free its space.
        let roll = tail.facts.next_offset <= offset && tail.facts.times.is_some();
        Ok((Plan { log_start: offset, roll }, tail))
    }

    /// Passes the sealed segments, except the last segment of the log, oldest first, until `more`
    /// returns false.
    fn each_sealed(self, mut more: impl FnMut(&SegmentFacts) -> bool) {
        let Some(last) = self.log.segments().last() else { return };
        let mut reached = None;
        loop {
            let some = self.log.segments().some_after(reached, STEP);
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

    /// The oldest segment, if it is sealed and another one follows, all of it is below the high
    /// watermark, and the partition is whole.
    pub(crate) fn oldest_sealed(self) -> Option<SegmentFacts> {
        if self.log.status().is_closed() || self.log.ends().is_poisoned() {
            return None;
        }
        let mut oldest = None;
        self.each_sealed(|facts| {
            oldest = Some(*facts);
            false
        });
        let watermark = self.log.ends().watermark();
        oldest.filter(|oldest| oldest.next_offset <= watermark)
    }

    /// Replaces the last segment by a new one, unless something was appended to it since `planned`.
    /// Returns whether it did.
    ///
    /// # Errors
    ///
    /// The error of the disk for the new file; the log is unchanged.
    pub(crate) fn roll_tail(self, planned: &Tail) -> Result<bool> {
        space::make_next(self.log)?;
        let mut state = self.log.lock_for_writing()?;
        if state.log().log_end() != planned.facts.next_offset {
            return Ok(false);
        }
        state.roll_for(0)?;
        state.publish();
        drop(state);
        self.requests.request(Work::Finish);
        Ok(true)
    }

    /// Makes durable what must be durable before records below `start` may be removed: these
    /// records, and the opening batch of the segment that is then the first. That batch has the
    /// only remaining copy of the producers' numbers once earlier footers are removed.
    ///
    /// # Errors
    ///
    /// The error of the sync.
    pub(crate) fn flush_below(self, start: u64) -> Result<()> {
        let first = self.log.segments().holding(start);
        let end = first.and_then(|first| first.next_offset());
        if end.is_some_and(|end| end > start && end <= self.log.ends().durable()) {
            return Ok(());
        }
        Rule::SettledRemoval.keep(|| self.flusher.sync_now())
    }

    /// Moves the log start, which is durable there, and removes the segments below it.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io) when the directory cannot be synced. A file that cannot be
    /// removed is not an error: the removal is tried again.
    pub(crate) fn retire(self, start: u64) -> Result<()> {
        let (mut last, mut segments) = (None, 0);
        // Held until the last unlink: afterwards a path may lead to another topic of this name.
        let Ok(removing) = self.log.begin_disk_work() else { return Ok(()) };
        loop {
            let mut state = self.log.state().lock_for_change();
            let removed = state.retire(start, STEP);
            state.publish();
            drop(state);
            self.log.lead().changed();
            // Files that remain when the partition is closed are removed with the topic, or at the
            // next opening.
            let Some(segment) = removed.last().filter(|_| !self.log.status().is_closed()) else {
                break;
            };
            last = Some(Arc::clone(segment));
            segments += removed.len();
            self.leftovers.remove_files(removed);
        }
        // Not during the event: its subscriber may delete the topic, which waits for this work.
        drop(removing);
        if segments == 0 {
            return Ok(());
        }
        note!(
            self.log.trace(),
            Removed {
                partition: Arc::clone(self.log.origin()),
                log_start_offset: self.log.ends().start(),
                segments,
            }
        );
        // The directory may be deleted with its topic: then there is nothing to make durable.
        let Ok(_syncing) = self.log.begin_disk_work() else { return Ok(()) };
        last.map_or(Ok(()), |segment| segment.sync_dir())
    }

    /// Tries again to remove files that could not be removed. Returns whether some remain.
    pub(crate) fn keeps_leftovers(self) -> bool {
        self.retry_removals();
        !self.leftovers.is_empty()
    }

    /// Tries again to remove files that could not be removed.
    pub(crate) fn retry_removals(self) {
        let Ok(_removing) = self.log.begin_disk_work() else { return };
        let leftovers = self.leftovers.take();
        if !leftovers.is_empty() && !self.log.status().is_closed() {
            self.leftovers.remove_files(leftovers);
        }
    }
}

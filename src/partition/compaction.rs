//! Compaction of one partition: when it is due, one step at a time, and what it has done.
//!
//! Owns the compaction under way, of which there is one at most. A step holds no lock but for the
//! moments in which numbers are given out and segments exchanged; whoever is at work has *claimed*
//! the partition's compaction, and others come again or wait.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::guard::OnPanic;
use super::{PartitionCore, Work};
use crate::clock::real_now;
use crate::error::{Error, Result};
use crate::log::Log;
use crate::log::compaction::candidates::Candidates;
use crate::log::compaction::run::{Compaction, LogAccess, Progress, Terms};
use crate::log::compaction::{KEY_MEMORY_BYTES, Tally};
use crate::log::create::FIRST_ALLOCATION_BYTES;
use crate::log::retention::Tail;
use crate::log::segment::Segment;
use crate::sync::{Condvar, LockRank, Mutex, MutexGuard};
use crate::trace::note;

/// LIMIT: how long a partition whose compaction failed is left alone: a full disk or a damaged
/// segment is not mended by trying again at once.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// LIMIT: what compaction leaves to appends. After a step during which records were appended it
/// pauses for so many times the step's duration, which gives it a seventh of one core and of the
/// disk; a step without appends is followed by the next at once. With 4, appends at full rate on
/// two cores kept 0.80 to 0.95 of it (measured in docs/compaction.md).
const PAUSE_FACTOR: u32 = 6;

/// LIMIT: no step takes as long as to need more. A clock that jumps during one must not keep a
/// compaction waiting for hours.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// What the topic's settings say about compaction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct CompactionSettings {
    pub(crate) min_dirty_ratio: f64,
    pub(crate) tombstone_retention: Duration,
    pub(crate) segment_bytes: u64,
}

/// How far a partition is compacted, and what compaction did since the broker was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CompactionStats {
    /// Whether a compaction is under way.
    pub is_running: bool,
    /// Below this offset no key occurs twice.
    pub compacted_up_to: u64,
    /// Bytes of sealed segments below that.
    pub clean_bytes: u64,
    /// Bytes of sealed segments above that; the active segment does not count.
    pub dirty_bytes: u64,
    /// Compactions that came to their end.
    pub compactions: u64,
    /// Compactions that failed; they are tried again after a minute.
    pub failures: u64,
    /// Passes over the log.
    pub passes: u64,
    /// Segments that were replaced.
    pub segments_read: u64,
    /// Segments that replaced them.
    pub segments_written: u64,
    /// Records that were removed, tombstones included.
    pub records_removed: u64,
    /// Tombstones that were removed when their time was over.
    pub tombstones_removed: u64,
    /// Bytes of the segments that were replaced.
    pub bytes_before: u64,
    /// Bytes of the segments that replaced them.
    pub bytes_after: u64,
}

#[derive(Debug, Default)]
pub(super) struct CompactionSlot {
    settings: Option<CompactionSettings>,
    /// What the background has begun and not finished.
    run: Option<Compaction>,
    is_claimed: bool,
    done: Tally,
    compactions: u64,
    failures: u64,
    /// Not before this moment, on the broker's clock.
    retry_at: Option<Duration>,
    /// The end of what the last one compacted.
    end: u64,
}

impl CompactionSlot {
    /// A compaction ends before its end. What is done of it stays.
    fn note_given_up(&mut self, run: &Compaction) {
        self.done += run.tally();
    }
}

/// The compactions of one partition, and whoever waits for the one at work.
#[derive(Debug)]
pub(super) struct CompactionState {
    slot: Mutex<CompactionSlot>,
    released: Condvar,
}

impl CompactionState {
    pub(super) fn new() -> Self {
        Self {
            slot: Mutex::ranked(LockRank::Compaction, CompactionSlot::default()),
            released: Condvar::new(),
        }
    }

    /// Whether a step is under way.
    #[cfg(test)]
    pub(super) fn is_claimed(&self) -> bool {
        self.slot.lock().is_claimed
    }
}

/// The right to compact a partition, until it is dropped.
pub(super) struct Claim<'a> {
    core: &'a PartitionCore,
    settings: CompactionSettings,
    run: Option<Compaction>,
    on_panic: OnPanic,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut slot = self.core.compaction.slot.lock();
        let mut ended = self.run.take();
        // After the end nobody takes it up, and its temporary file must be gone before the
        // directory is given up: the name may then be another broker's. With other settings it
        // is not what is wanted any more.
        // One that panicked may be half way through anything: it begins anew, when it is asked for.
        let has_panicked = self.on_panic.has_begun();
        if has_panicked {
            slot.failures = slot.failures.saturating_add(1);
        } else if !self.core.is_closed() && slot.settings == Some(self.settings) {
            slot.run = ended.take();
        }
        if let Some(run) = ended {
            slot.note_given_up(&run);
            // The claim is given up after the file, which goes by its path.
            drop(slot);
            drop(run);
            slot = self.core.compaction.slot.lock();
        }
        slot.is_claimed = false;
        drop(slot);
        self.core.compaction.released.notify_all();
    }
}

impl LogAccess for PartitionCore {
    fn with_log<R>(&self, change: impl FnOnce(&mut Log) -> R) -> R {
        Self::with_log(self, change)
    }

    fn remove_files(&self, segments: Vec<Arc<Segment>>) {
        Self::remove_files(self, segments);
    }
}

impl PartitionCore {
    /// Says whether, and how, the partition is compacted.
    pub(crate) fn set_compaction(&self, settings: Option<CompactionSettings>) {
        // The temporary file goes by its path; none is left once this is refused.
        let _removing = self.disk_work.begin();
        let mut slot = self.compaction.slot.lock();
        // What was begun by other settings would hold its memory and its temporary file until it
        // is taken up, which may be never, and would then give tombstones the time of its beginning.
        let is_other = std::mem::replace(&mut slot.settings, settings) != settings;
        let outdated = slot.run.take_if(|_| is_other);
        if let Some(run) = &outdated {
            slot.note_given_up(run);
        }
        drop(slot);
        drop(outdated);
    }

    /// How far the partition is compacted; `None` if it is not to be.
    pub(crate) fn compaction_stats(&self) -> Option<CompactionStats> {
        let slot = self.compaction.slot.lock();
        slot.settings?;
        let mut done = slot.done;
        if let Some(run) = &slot.run {
            done += run.tally();
        }
        let (is_running, compactions, failures) =
            (slot.is_claimed || slot.run.is_some(), slot.compactions, slot.failures);
        drop(slot);
        let dirt = Candidates::of(&self.state.lock().log).dirt();
        Some(CompactionStats {
            is_running,
            compacted_up_to: dirt.clean_end,
            clean_bytes: dirt.clean_bytes,
            dirty_bytes: dirt.dirty_bytes,
            compactions,
            failures,
            passes: done.passes,
            segments_read: done.segments_read,
            segments_written: done.segments_written,
            records_removed: done.records_removed,
            tombstones_removed: done.tombstones_removed,
            bytes_before: done.bytes_before,
            bytes_after: done.bytes_after,
        })
    }

    /// Asks for a compaction if there is enough to do. Cheap where there is not.
    pub(crate) fn compact_if_due(self: &Arc<Self>) {
        let (now, monotonic) = (self.clock.moment(), self.clock.monotonic());
        let settings = {
            let slot = self.compaction.slot.lock();
            let Some(settings) = slot.settings else { return };
            if slot.is_claimed || slot.retry_at.is_some_and(|retry_at| monotonic < retry_at) {
                return;
            }
            settings
        };
        let state = self.state.lock();
        let has_work = || {
            let candidates = Candidates::of(&state.log);
            candidates.dirt().is_due(settings.min_dirty_ratio)
                || candidates.next_horizon() <= now.wall.min(now.run)
        };
        let is_due = !state.closed && self.is_available() && state.failure.is_none() && has_work();
        drop(state);
        if is_due {
            self.request(Work::Compact);
        }
    }

    /// After a compaction: asks for the next one if segments were finished while it ran, and nothing
    /// else would look at them before the minute is over. Without new ones there is nothing to do
    /// that was not done, or could not be.
    pub(crate) fn compact_again_if_due(self: &Arc<Self>) {
        let end = self.compaction.slot.lock().end;
        let reached = Candidates::of(&self.state.lock().log).end();
        if reached > end {
            self.compact_if_due();
        }
    }

    /// An append found no space: asks for a compaction, however little of the log is dirty.
    pub(crate) fn compact_for_room(self: &Arc<Self>) {
        let now = self.clock.monotonic();
        let slot = self.compaction.slot.lock();
        let must_wait = slot.is_claimed || slot.retry_at.is_some_and(|retry_at| now < retry_at);
        if must_wait || slot.settings.is_none() {
            return;
        }
        drop(slot);
        if self.finished_dirt() == 0 {
            self.seal_for_compaction();
        }
        if self.finished_dirt() > 0 {
            self.request(Work::Compact);
        }
    }

    /// How much can be compacted once all sealed segments are finished, which is done first.
    fn finished_dirt(&self) -> u64 {
        while !self.is_closed() && matches!(self.finish_one_segment(), Ok(true)) {}
        let state = self.state.lock();
        let is_usable = !state.closed && state.failure.is_none();
        if is_usable { Candidates::of(&state.log).dirt().dirty_bytes } else { 0 }
    }

    /// Seals the last segment, which is never compacted as long as it takes appends. Not one that
    /// takes no more than the next one does at first: that would give nothing back.
    fn seal_for_compaction(self: &Arc<Self>) {
        let tail = self.writable_state().ok().and_then(|state| Tail::of(&state.log));
        let is_large = |tail: &Tail| tail.facts.bytes > FIRST_ALLOCATION_BYTES;
        if let Some(tail) = tail.filter(is_large) {
            // Where there is no space for the next one, compaction cannot help.
            let _ = self.roll_tail(&tail);
        }
    }

    /// One step of the background's compaction, which is begun if there is none. False when it is
    /// done, or somebody else is at it.
    pub(crate) fn compact_step(&self) -> Result<bool> {
        if self.is_closed() {
            return Ok(false);
        }
        let Some(mut claim) = self.claim() else {
            return Ok(false);
        };
        let stepped = self.step(&mut claim);
        drop(claim);
        self.trace.deliver();
        stepped
    }

    /// Does all of the background's compaction at once; for `tick`.
    pub(super) fn compact_all(&self) {
        // A failure is counted, and the log is as it was: it is tried again later.
        while matches!(self.compact_step(), Ok(true)) {}
    }

    /// Compacts all that can be compacted, whatever the dirty ratio. `is_busy` says whether records
    /// were appended since it was asked last: then there are pauses.
    ///
    /// # Blocking
    ///
    /// Until it is done, in steps; between two of them it looks whether the partition was closed.
    pub(crate) fn compact_now(&self, mut is_busy: impl FnMut() -> bool) -> Result<Tally> {
        self.check_process()?;
        self.check_available()?;
        while self.finish_one_segment()? {}
        let Some(mut claim) = self.claim_waiting() else {
            if self.is_closed() {
                return Err(self.ended());
            }
            return Err(Error::config("cleanup", "the topic is not compacted"));
        };
        // What the background has begun counts as its own; what is done of it stays.
        if let Some(run) = claim.run.take() {
            self.compaction.slot.lock().note_given_up(&run);
        }
        let mut tally = Tally::default();
        loop {
            if self.is_closed() {
                return Err(self.ended());
            }
            if self.compaction.slot.lock().settings != Some(claim.settings) {
                // What it works towards is not wanted any more; what is done of it stays.
                return Err(Error::config(
                    "cleanup",
                    "the topic was altered while it was compacted",
                ));
            }
            let begun = self.clock.monotonic();
            let more = self.step_counting(&mut claim, &mut tally)?;
            if !more {
                return Ok(tally);
            }
            let took = self.clock.monotonic().saturating_sub(begun);
            if self.background.is_running() {
                self.pause(pause_after(took, is_busy()));
            }
        }
    }

    /// Gives up what the background has begun; a step under way gives it up when it ends. The
    /// partition is closed: none is begun any more.
    pub(super) fn end_compaction(&self) {
        let run = self.compaction.slot.lock().run.take();
        // Its temporary file goes with it.
        drop(run);
        self.compaction.released.notify_all();
    }

    /// Waits until no step is under way.
    pub(super) fn await_compaction(&self) {
        let mut slot = self.compaction.slot.lock();
        while slot.is_claimed {
            slot = self.compaction.released.wait(slot);
        }
    }

    fn pause(&self, pause: Duration) {
        let Some(deadline) = real_now().checked_add(pause).filter(|_| !pause.is_zero()) else {
            return;
        };
        let mut slot = self.compaction.slot.lock();
        loop {
            let (next, timed_out) = self.compaction.released.wait_until(slot, deadline);
            if timed_out || self.is_closed() {
                return;
            }
            slot = next;
        }
    }

    pub(super) fn claim(&self) -> Option<Claim<'_>> {
        self.claim_in(self.compaction.slot.lock())
    }

    /// `None` also once the partition is closed. That is looked at under the slot's lock, which
    /// [`end_compaction`](Self::end_compaction) takes: either the end sees the claim and waits for
    /// it, or the claim sees the end. Otherwise a compaction could begin in a directory that was
    /// given up.
    fn claim_in<'a>(&'a self, mut slot: MutexGuard<'_, CompactionSlot>) -> Option<Claim<'a>> {
        let settings = slot.settings.filter(|_| !slot.is_claimed && !self.is_closed())?;
        slot.is_claimed = true;
        let run = slot.run.take();
        Some(Claim { core: self, settings, run, on_panic: OnPanic::new() })
    }

    fn claim_waiting(&self) -> Option<Claim<'_>> {
        let mut slot = self.compaction.slot.lock();
        while slot.is_claimed {
            slot = self.compaction.released.wait(slot);
        }
        self.claim_in(slot)
    }

    fn step(&self, claim: &mut Claim<'_>) -> Result<bool> {
        self.step_counting(claim, &mut Tally::default())
    }

    /// One step; what a compaction that ends with it has done is added to `total`.
    fn step_counting(&self, claim: &mut Claim<'_>, total: &mut Tally) -> Result<bool> {
        if claim.run.is_none() {
            claim.run = self.begin(&claim.settings);
        }
        let Some(run) = claim.run.as_mut() else {
            return Ok(false);
        };
        let stepped = run.step(self);
        if matches!(stepped, Ok(Progress::More)) {
            return Ok(true);
        }
        let Some(run) = claim.run.take() else {
            return Ok(false);
        };
        *total += run.tally();
        // The clock is the application's code: it is asked before the lock is taken.
        let retry_at = stepped.is_err().then(|| self.clock.monotonic().saturating_add(RETRY_AFTER));
        let mut slot = self.compaction.slot.lock();
        slot.note_given_up(&run);
        slot.retry_at = retry_at;
        slot.end = run.end();
        match stepped {
            Ok(_) => {
                slot.compactions = slot.compactions.saturating_add(1);
                note!(
                    self.trace,
                    Compacted {
                        partition: Arc::clone(&self.origin),
                        records_removed: run.tally().records_removed,
                        bytes: (run.tally().bytes_before, run.tally().bytes_after),
                    }
                );
                Ok(false)
            }
            Err(error) => {
                slot.failures = slot.failures.saturating_add(1);
                drop(slot);
                note!(
                    self.trace,
                    Failed {
                        work: "compaction",
                        partition: Some(Arc::clone(&self.origin)),
                        error: error.clone(),
                    }
                );
                Err(error)
            }
        }
    }

    fn begin(&self, settings: &CompactionSettings) -> Option<Compaction> {
        // A horizon is stored, so it is in the wall clock's time. Where that and the run's differ,
        // one of them was or is wrong: a tombstone goes when it is due by both.
        let now = self.clock.moment();
        let latest = now.wall.max(now.run);
        let retention = settings.tombstone_retention.as_millis();
        let terms = Terms {
            key_memory_bytes: KEY_MEMORY_BYTES,
            segment_bytes: settings.segment_bytes,
            now: now.wall.min(now.run),
            horizon: latest.saturating_add(u64::try_from(retention).unwrap_or(u64::MAX)),
        };
        let state = self.state.lock();
        if state.failure.is_some() || !self.is_available() {
            // After a failed sync nothing is believed, and nothing built on it.
            return None;
        }
        Compaction::begin(&state.log, terms)
    }
}

/// How long compaction leaves the machine to others after a step.
pub(crate) fn pause_after(step: Duration, was_busy: bool) -> Duration {
    if was_busy { step.saturating_mul(PAUSE_FACTOR).min(PAUSE_MAX) } else { Duration::ZERO }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compaction_pauses_only_beside_appends_and_in_proportion() {
        let step = Duration::from_millis(3);
        assert_eq!(pause_after(step, false), Duration::ZERO);
        assert_eq!(pause_after(step, true), Duration::from_millis(18));
        assert_eq!(pause_after(Duration::MAX, true), PAUSE_MAX);
    }
}

//! Compaction of one partition: when it is due, its steps, and its results.
//!
//! [`Compactions`] owns the running compaction (there is at most one) and the results of all of
//! them. [`Compactor`] does the work, and uses the shared log, the footers and retention. Must not
//! know: who requests a compaction, and in which thread it runs.
//!
//! A step holds no lock, except for the moments in which numbers are assigned and segments
//! exchanged. The thread that does it has *claimed* the partition's compaction; other threads come
//! back later, or wait. A truncation of a replicated log *suspends* compaction: what is begun ends
//! with the step under way, and none begins until the truncation is over.
//!
//! The lock of [`Compactions`] and the partition's lock are never held together.
//!
//! Invariants; [`check`](CompactionSlot::check) holds the first two, and
//! [`claim_in`](Compactor::claim_in) the third:
//! 1. A compaction is with the slot or with the one thread that has claimed it, never with both.
//! 2. Without settings none is begun.
//! 3. While compaction is suspended no thread claims it.

use std::sync::Arc;
use std::time::Duration;

use super::background::Work;
use super::footers::Footers;
use super::guard::{OnPanic, StateGuard};
use super::metrics::CompactionStats;
use super::requests::Requests;
use super::retention::Retention;
use super::shared::SharedLog;
use crate::clock::real_now;
use crate::error::{Error, Result};
use crate::log::compaction::candidates::Candidates;
use crate::log::compaction::run::{Compaction, Progress, Terms};
use crate::log::compaction::{KEY_MEMORY_BYTES, Tally};
use crate::log::create::FIRST_ALLOCATION_BYTES;
use crate::log::retention::Tail;
use crate::sync::{Condvar, LockLevel, Mutex, MutexGuard};
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

#[derive(Debug, Default)]
pub(super) struct CompactionSlot {
    settings: Option<CompactionSettings>,
    /// What the background has begun and not finished.
    run: Option<Compaction>,
    is_claimed: bool,
    /// How many truncations are under way, or wait for the step that is.
    suspended: u32,
    done: Tally,
    compactions: u64,
    failures: u64,
    /// Not before this moment, on the broker's clock.
    retry_at: Option<Duration>,
    /// The end of what the last one compacted.
    end: u64,
}

impl CompactionSlot {
    /// Whether it cannot be claimed now.
    fn is_taken(&self) -> bool {
        self.is_claimed || self.suspended > 0
    }

    /// A compaction ends before its end. What is done of it stays.
    fn note_given_up(&mut self, run: &Compaction) {
        self.done += run.tally();
    }

    fn assert_valid(&self) {
        debug_assert_eq!(self.check(), Ok(()));
    }

    /// What is wrong, if anything: the invariants.
    fn check(&self) -> std::result::Result<(), &'static str> {
        if self.run.is_some() && self.is_claimed {
            return Err("a compaction that a thread has claimed is still there");
        }
        if self.run.is_some() && self.settings.is_none() {
            return Err("a compaction of a partition that is not compacted");
        }
        Ok(())
    }
}

/// The compactions of one partition, and the threads that wait for the one at work.
#[derive(Debug)]
pub(super) struct Compactions {
    slot: Mutex<CompactionSlot>,
    released: Condvar,
}

impl Compactions {
    pub(super) fn new() -> Self {
        Self {
            slot: Mutex::at_level(LockLevel::Compaction, CompactionSlot::default()),
            released: Condvar::new(),
        }
    }

    /// Gives up what the background has begun; a step under way gives it up when it ends. The
    /// partition is closed: none is begun any more.
    pub(super) fn end(&self) {
        let run = self.slot.lock().run.take();
        // Its temporary file goes with it.
        drop(run);
        self.released.notify_all();
    }

    /// Waits until no step is under way.
    pub(super) fn await_steps(&self) {
        let mut slot = self.slot.lock();
        while slot.is_claimed {
            slot = self.released.wait(slot);
        }
    }

    /// Gives up what is begun, after the step that is under way, and lets none begin until the
    /// result is dropped.
    #[cfg(feature = "replication")]
    pub(super) fn suspend(&self) -> Suspended<'_> {
        let mut slot = self.slot.lock();
        slot.suspended = slot.suspended.saturating_add(1);
        // Who pauses between two steps gives way.
        self.released.notify_all();
        let suspended = Suspended(self);
        while slot.is_claimed {
            slot = self.released.wait(slot);
        }
        let run = slot.run.take();
        if let Some(run) = &run {
            slot.note_given_up(run);
        }
        drop(slot);
        // Its temporary file goes with it.
        drop(run);
        suspended
    }

    /// Whether a truncation is under way, or waits for a step.
    #[cfg(all(test, feature = "replication"))]
    pub(super) fn is_suspended(&self) -> bool {
        self.slot.lock().suspended > 0
    }

    /// Whether a step is under way.
    #[cfg(test)]
    pub(super) fn is_claimed(&self) -> bool {
        self.slot.lock().is_claimed
    }

    /// What the check says of the compaction that is there, with these settings, claimed or not.
    #[cfg(test)]
    pub(super) fn check_with(
        &self,
        settings: Option<CompactionSettings>,
        is_claimed: bool,
    ) -> std::result::Result<(), &'static str> {
        let mut slot = self.slot.lock();
        let run = slot.run.take();
        let changed = CompactionSlot { settings, run, is_claimed, ..CompactionSlot::default() };
        let found = changed.check();
        slot.run = changed.run;
        found
    }
}

/// No compaction begins until this is dropped.
#[cfg(feature = "replication")]
#[must_use = "compactions begin again when this is dropped"]
pub(super) struct Suspended<'a>(&'a Compactions);

#[cfg(feature = "replication")]
impl Drop for Suspended<'_> {
    fn drop(&mut self) {
        let mut slot = self.0.slot.lock();
        slot.suspended = slot.suspended.saturating_sub(1);
        drop(slot);
        self.0.released.notify_all();
    }
}

/// The right to compact a partition, until it is dropped.
pub(super) struct Claim<'a> {
    compactor: Compactor<'a>,
    settings: CompactionSettings,
    run: Option<Compaction>,
    on_panic: OnPanic,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let compactions = self.compactor.compactions;
        let mut slot = compactions.slot.lock();
        let mut ended = self.run.take();
        // After the end no thread takes it up, and its temporary file must be removed before the
        // directory is given up: the name may then be another broker's. With other settings it
        // is not what is wanted any more.
        // One that panicked may be half way through anything: it begins anew, when it is requested.
        let has_panicked = self.on_panic.has_begun();
        if has_panicked {
            slot.failures = slot.failures.saturating_add(1);
        } else if !self.compactor.is_closed() && slot.settings == Some(self.settings) {
            slot.run = ended.take();
        }
        if let Some(run) = ended {
            slot.note_given_up(&run);
            // The claim is given up after the file, which is removed by its path.
            drop(slot);
            drop(run);
            slot = compactions.slot.lock();
        }
        slot.is_claimed = false;
        slot.assert_valid();
        drop(slot);
        compactions.released.notify_all();
    }
}

/// Why a compaction is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Occasion {
    /// It may be due, by the topic's settings.
    Due,
    /// One has ended. The next one is due if segments were finished while it ran, and nothing else
    /// would look at them before the minute is over. Without new ones there is nothing to do that
    /// was not done, or could not be.
    Ended,
    /// An append found no space: however little of the log is dirty.
    NoSpace,
}

#[derive(Clone, Copy)]
pub(crate) struct Compactor<'a> {
    log: &'a SharedLog,
    compactions: &'a Compactions,
    footers: Footers<'a>,
    retention: Retention<'a>,
    requests: &'a Requests,
}

impl<'a> Compactor<'a> {
    pub(super) fn new(
        log: &'a SharedLog,
        compactions: &'a Compactions,
        footers: Footers<'a>,
        retention: Retention<'a>,
        requests: &'a Requests,
    ) -> Self {
        Self { log, compactions, footers, retention, requests }
    }

    fn is_closed(self) -> bool {
        self.log.status().is_closed()
    }

    /// Says whether, and how, the partition is compacted.
    pub(crate) fn set(self, settings: Option<CompactionSettings>) {
        // The temporary file is removed by its path. If this is refused, the file was removed
        // already.
        let _removing = self.log.begin_disk_work();
        let mut slot = self.compactions.slot.lock();
        // A compaction that began with other settings would hold its memory and its temporary file
        // until it is continued, which may be never. It would also date tombstones by its
        // beginning.
        let is_other = std::mem::replace(&mut slot.settings, settings) != settings;
        let outdated = slot.run.take_if(|_| is_other);
        if let Some(run) = &outdated {
            slot.note_given_up(run);
        }
        slot.assert_valid();
        drop(slot);
        drop(outdated);
    }

    /// The progress of compaction; `None` if the topic is not compacted.
    pub(crate) fn stats(self) -> Option<CompactionStats> {
        let slot = self.compactions.slot.lock();
        slot.settings?;
        let mut done = slot.done;
        if let Some(run) = &slot.run {
            done += run.tally();
        }
        let (is_running, compactions, failures) =
            (slot.is_claimed || slot.run.is_some(), slot.compactions, slot.failures);
        drop(slot);
        let dirt = self.candidates(&self.log.lock()).dirt();
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

    /// Requests a compaction if one is due. Cheap if none is.
    pub(crate) fn request(self, occasion: Occasion) {
        let is_wanted = match occasion {
            Occasion::Due => self.is_due(),
            Occasion::Ended => self.has_new_segments() && self.is_due(),
            Occasion::NoSpace => self.can_make_room(),
        };
        if is_wanted {
            self.requests.request(Work::Compact);
        }
    }

    fn candidates(self, state: &StateGuard<'_>) -> Candidates {
        Candidates::of(state.log(), self.log.ends().watermark())
    }

    fn is_due(self) -> bool {
        let (now, monotonic) = (self.log.clock().moment(), self.log.clock().monotonic());
        let Some(settings) = self.settings_if_idle(monotonic) else { return false };
        let state = self.log.lock();
        let has_work = || {
            let candidates = self.candidates(&state);
            candidates.dirt().is_due(settings.min_dirty_ratio)
                || candidates.next_horizon() <= now.wall.min(now.run)
        };
        state.is_usable() && self.log.status().is_available() && has_work()
    }

    fn has_new_segments(self) -> bool {
        let end = self.compactions.slot.lock().end;
        self.candidates(&self.log.lock()).end() > end
    }

    fn can_make_room(self) -> bool {
        if self.settings_if_idle(self.log.clock().monotonic()).is_none() {
            return false;
        }
        if self.finished_dirt() == 0 {
            self.seal_for_compaction();
        }
        self.finished_dirt() > 0
    }

    /// The settings, if no step is running and no retry is pending.
    fn settings_if_idle(self, now: Duration) -> Option<CompactionSettings> {
        let slot = self.compactions.slot.lock();
        let must_wait = slot.is_taken() || slot.retry_at.is_some_and(|retry_at| now < retry_at);
        slot.settings.filter(|_| !must_wait)
    }

    /// How much can be compacted. Writes the missing footers of sealed segments first.
    fn finished_dirt(self) -> u64 {
        self.footers.write_all();
        let state = self.log.lock();
        if state.is_usable() { self.candidates(&state).dirt().dirty_bytes } else { 0 }
    }

    /// Seals the last segment, which is not compacted while it is active. Not if its file is no
    /// larger than a new one is at first: that would free no space.
    fn seal_for_compaction(self) {
        let tail = self.log.lock_for_writing().ok().and_then(|state| Tail::of(state.log()));
        let is_large = |tail: &Tail| tail.facts.bytes > FIRST_ALLOCATION_BYTES;
        if let Some(tail) = tail.filter(is_large) {
            // Without space for the next segment, compaction cannot begin.
            let _ = self.retention.roll_tail(&tail);
        }
    }

    /// Runs one step of the background's compaction, and begins one if none is running. False when
    /// it is complete, or another thread has claimed it.
    pub(crate) fn step(self) -> Result<bool> {
        if self.is_closed() {
            return Ok(false);
        }
        let Some(mut claim) = self.claim() else {
            return Ok(false);
        };
        let stepped = self.step_claimed(&mut claim);
        drop(claim);
        self.log.trace().deliver();
        stepped
    }

    /// Does all of the background's compaction at once; for `tick`.
    pub(super) fn run_all(self) {
        // A failure is counted and leaves the log unchanged: the compaction is tried again later.
        while matches!(self.step(), Ok(true)) {}
    }

    /// Compacts all that can be compacted, whatever the dirty ratio. `is_busy` says whether records
    /// were appended since its last call: then there are pauses.
    ///
    /// # Blocking
    ///
    /// For all its steps; between two of them it checks whether the partition was closed.
    pub(crate) fn run_now(self, mut is_busy: impl FnMut() -> bool) -> Result<Tally> {
        self.log.status().check_process()?;
        self.log.status().check_available()?;
        while self.footers.step()? {}
        let mut claim = self.claim_waiting()?;
        // A compaction that the background began counts as the background's. Segments that it has
        // replaced stay replaced.
        if let Some(run) = claim.run.take() {
            self.compactions.slot.lock().note_given_up(&run);
        }
        let mut tally = Tally::default();
        loop {
            self.log.status().check_open()?;
            let slot = self.compactions.slot.lock();
            let (settings, is_suspended) = (slot.settings, slot.suspended > 0);
            drop(slot);
            if is_suspended {
                claim = self.give_way(claim, &mut tally)?;
            } else if settings != Some(claim.settings) {
                // Its settings were changed. Segments that it has replaced stay replaced.
                return Err(Error::config(
                    "cleanup",
                    "the topic was altered while it was compacted; compact it again",
                ));
            }
            let begun = self.log.clock().monotonic();
            let more = self.step_counting(&mut claim, &mut tally)?;
            if !more {
                return Ok(tally);
            }
            let took = self.log.clock().monotonic().saturating_sub(begun);
            if self.requests.are_served() {
                self.pause(pause_after(took, is_busy()));
            }
        }
    }

    /// Gives the claim up for a truncation, and takes it again when that is over.
    ///
    /// # Errors
    ///
    /// The partition was closed meanwhile, or is not compacted any more.
    fn give_way(self, mut claim: Claim<'a>, tally: &mut Tally) -> Result<Claim<'a>> {
        if let Some(run) = claim.run.take() {
            *tally += run.tally();
            self.compactions.slot.lock().note_given_up(&run);
        }
        drop(claim);
        self.claim_waiting()
    }

    /// Waits, unless a truncation or a close waits for the claim.
    pub(super) fn pause(self, pause: Duration) {
        let Some(deadline) = real_now().checked_add(pause).filter(|_| !pause.is_zero()) else {
            return;
        };
        let mut slot = self.compactions.slot.lock();
        // A truncation or a close that came during the step has notified already.
        while slot.suspended == 0 && !self.is_closed() {
            let (next, timed_out) = self.compactions.released.wait_until(slot, deadline);
            if timed_out {
                return;
            }
            slot = next;
        }
    }

    pub(super) fn claim(self) -> Option<Claim<'a>> {
        self.claim_in(self.compactions.slot.lock())
    }

    /// `None` also once the partition is closed. That is checked under the slot's lock, which
    /// [`Compactions::end`] takes: either the end sees the claim and waits for it, or the claim
    /// sees the end. Otherwise a compaction could begin in a directory that another broker may have
    /// by now.
    fn claim_in(self, mut slot: MutexGuard<'_, CompactionSlot>) -> Option<Claim<'a>> {
        let settings = slot.settings.filter(|_| !slot.is_taken() && !self.is_closed())?;
        slot.is_claimed = true;
        let run = slot.run.take();
        slot.assert_valid();
        Some(Claim { compactor: self, settings, run, on_panic: OnPanic::new() })
    }

    /// # Errors
    ///
    /// The partition is closed, or is not compacted.
    fn claim_waiting(self) -> Result<Claim<'a>> {
        let mut slot = self.compactions.slot.lock();
        while slot.is_taken() {
            slot = self.compactions.released.wait(slot);
        }
        if let Some(claim) = self.claim_in(slot) {
            return Ok(claim);
        }
        self.log.status().check_open()?;
        Err(Error::config("cleanup", "the topic is not compacted"))
    }

    /// See [`Compactions::suspend`].
    #[cfg(feature = "replication")]
    pub(super) fn suspend(self) -> Suspended<'a> {
        self.compactions.suspend()
    }

    fn step_claimed(self, claim: &mut Claim<'_>) -> Result<bool> {
        self.step_counting(claim, &mut Tally::default())
    }

    /// Runs one step. If it completes the compaction, its results are added to `total`.
    fn step_counting(self, claim: &mut Claim<'_>, total: &mut Tally) -> Result<bool> {
        if claim.run.is_none() {
            claim.run = self.begin(&claim.settings);
        }
        let Some(run) = claim.run.as_mut() else {
            return Ok(false);
        };
        let stepped = run.step(&self.retention);
        if matches!(stepped, Ok(Progress::More)) {
            return Ok(true);
        }
        let Some(run) = claim.run.take() else {
            return Ok(false);
        };
        *total += run.tally();
        // The clock is the application's code, so it is read before the lock is taken.
        let retry_at =
            stepped.is_err().then(|| self.log.clock().monotonic().saturating_add(RETRY_AFTER));
        let mut slot = self.compactions.slot.lock();
        slot.note_given_up(&run);
        slot.retry_at = retry_at;
        slot.end = run.end();
        match stepped {
            Ok(_) => {
                slot.compactions = slot.compactions.saturating_add(1);
                note!(
                    self.log.trace(),
                    Compacted {
                        partition: Arc::clone(self.log.origin()),
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
                    self.log.trace(),
                    Failed {
                        work: "compaction",
                        partition: Some(Arc::clone(self.log.origin())),
                        error: error.clone(),
                    }
                );
                Err(error)
            }
        }
    }

    fn begin(self, settings: &CompactionSettings) -> Option<Compaction> {
        // A horizon is stored, so it is in wall-clock time. If the wall clock and the time of the
        // run differ, one of them was or is wrong: a tombstone is removed when it is due by both.
        let now = self.log.clock().moment();
        let latest = now.wall.max(now.run);
        let retention = settings.tombstone_retention.as_millis();
        let terms = Terms {
            key_memory_bytes: KEY_MEMORY_BYTES,
            segment_bytes: settings.segment_bytes,
            now: now.wall.min(now.run),
            horizon: latest.saturating_add(u64::try_from(retention).unwrap_or(u64::MAX)),
            limit: self.log.ends().watermark(),
        };
        let state = self.log.lock();
        if state.failure().is_some() || !self.log.status().is_available() {
            // After a failed sync the segments may not be durable, so nothing is compacted.
            return None;
        }
        Compaction::begin(state.log(), terms)
    }
}

/// How long compaction pauses after a step.
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

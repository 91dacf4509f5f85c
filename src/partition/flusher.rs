//! Makes a partition durable: who waits, who syncs, and what the result of a sync means.
//!
//! Uses the shared log and the gate, and owns nothing itself. Must not know: what was appended, and
//! at which level. Waiters are answered under no lock.

use std::task::Waker;
use std::time::{Duration, Instant};

use super::background::Work;
use super::group_commit::{SyncGate, Ticket};
use super::guard::OnPanic;
use super::requests::Requests;
use super::shared::SharedLog;
use crate::error::{Error, Result};
use crate::foreign;
use crate::log::tasks::SyncScope;
use crate::rules::Rule;
use crate::trace::note;

/// LIMIT: how far a producer may be ahead of the disk, in bytes of sealed segments that are not
/// durable. An opening after a crash reads them again, at 4 GB/s or more; and a producer that waits
/// here does not fill the page cache until the kernel stops it, and with it the whole machine. Tests
/// get there with small segments.
pub(super) const UNSYNCED_BYTES_MAX: u64 = if cfg!(test) { 1 << 20 } else { 1 << 30 };

#[derive(Clone, Copy)]
pub(crate) struct Flusher<'a> {
    log: &'a SharedLog,
    gate: &'a SyncGate,
    requests: &'a Requests,
    /// Whether the caller says to the other members of a replicated group what it has synced.
    announces: bool,
}

impl<'a> Flusher<'a> {
    #[inline]
    pub(super) fn new(log: &'a SharedLog, gate: &'a SyncGate, requests: &'a Requests) -> Self {
        Self { log, gate, requests, announces: false }
    }

    /// Whether [`announce`](Self::announce) may send something.
    #[inline]
    pub(crate) fn may_announce(self) -> bool {
        self.log.lead().is_member()
    }

    /// Sends the other members of a replicated group what no thread was woken for. The caller holds no
    /// lock.
    #[inline]
    pub(crate) fn announce(self) {
        self.log.lead().announce();
    }

    /// As of [`wait`](Self::wait), for a caller that holds no lock: if it syncs, it says so to the other
    /// members itself.
    ///
    /// # Errors
    ///
    /// As of [`wait`](Self::wait).
    pub(crate) fn wait_and_announce(self, target: u64) -> Result<()> {
        let waited = Self { announces: true, ..self }.wait(target);
        self.announce();
        waited
    }

    /// As of [`flush`](Self::flush), for a caller that [announces](Self::announce) soon what it has synced.
    ///
    /// # Errors
    ///
    /// As of [`flush`](Self::flush).
    pub(crate) fn flush_for_announcement(self) -> Result<()> {
        Self { announces: true, ..self }.flush()
    }

    /// Waits until everything below `target` is durable. Runs the sync itself if no other thread
    /// does.
    ///
    /// # Errors
    ///
    /// The error of the sync, or of a partition that was closed meanwhile.
    pub(super) fn wait(self, target: u64) -> Result<()> {
        self.log.status().check_process()?;
        self.wait_at_gate(target, None)
    }

    /// Waits until everything below `target` is durable, or until the deadline. A sync that hangs
    /// must not delay the caller beyond the deadline, so the background thread makes it, if there
    /// is one.
    ///
    /// # Errors
    ///
    /// What the sync failed with, that of a partition that is closed meanwhile, and
    /// [`Error::Timeout`](crate::Error::Timeout).
    pub(crate) fn wait_until(self, target: u64, deadline: Instant) -> Result<()> {
        self.log.status().check_process()?;
        if !self.requests.are_served() {
            return self.wait_at_gate(target, Some(deadline));
        }
        if self.log.ends().durable() >= target {
            return Ok(());
        }
        self.requests.request(Work::Sync);
        self.gate.wait(target, Some(deadline), None, &|| self.log.ends().end())
    }

    fn wait_at_gate(self, target: u64, deadline: Option<Instant>) -> Result<()> {
        if self.log.ends().durable() >= target {
            return Ok(());
        }
        let sync = || self.sync_once(SyncScope::All);
        self.gate.wait(target, deadline, Some(&sync), &|| self.log.ends().end())
    }

    /// The result for `target` if it is known; otherwise `waker` is woken when it is. See
    /// [`SyncGate::poll`].
    pub(crate) fn poll(
        self,
        target: u64,
        waker: &Waker,
        ticket: &mut Option<Ticket>,
    ) -> Option<Result<()>> {
        if let Err(error) = self.log.status().check_process() {
            return Some(Err(error));
        }
        if self.log.ends().durable() >= target {
            return Some(Ok(()));
        }
        #[cfg(feature = "testing")]
        if self.log.seams.are_of_a_test() {
            // It has no threads, and a test with one task has nobody who could make the sync.
            return Some(self.wait(target));
        }
        let answer = self.gate.poll(target, waker, ticket, &|| self.log.ends().end());
        if answer.is_none() {
            self.requests.request(Work::Sync);
        }
        answer
    }

    /// Ends the wait of a task that polled.
    pub(crate) fn forget(self, target: u64, ticket: Ticket) {
        if self.log.status().is_in_own_process() {
            self.gate.forget(target, ticket);
        }
    }

    /// Makes everything that is published now durable.
    ///
    /// # Errors
    ///
    /// The error of the sync, or of a partition that was closed meanwhile.
    pub(super) fn flush(self) -> Result<()> {
        unless_cut(self.wait(self.log.ends().end()))
    }

    /// Makes the sealed segments durable, which end at `end`.
    ///
    /// # Errors
    ///
    /// The error of the sync, or of a partition that was closed meanwhile.
    pub(super) fn flush_sealed(self, end: u64) -> Result<()> {
        if self.log.ends().durable() >= end {
            return Ok(());
        }
        let sync = || self.sync_once(SyncScope::Sealed);
        unless_cut(self.gate.wait(end, None, Some(&sync), &|| self.log.ends().end()))
    }

    /// After an append that sealed a segment: waits while more than [`UNSYNCED_BYTES_MAX`] of sealed
    /// segments are not durable.
    #[cold]
    pub(super) fn hold_producer(self) {
        if let Some(end) = self.excess_end() {
            // The append was successful. A failure is kept in the gate, and the next append returns
            // it.
            let _ = self.flush_sealed(end);
        }
    }

    /// Where the sealed segments end that a producer waits for, because more than
    /// [`UNSYNCED_BYTES_MAX`] of them are not durable.
    pub(crate) fn excess_end(self) -> Option<u64> {
        self.log.lock().log().backlog().end_beyond(UNSYNCED_BYTES_MAX)
    }

    /// Runs one sync that begins now, even if all published records are durable: for data without
    /// an offset.
    ///
    /// # Errors
    ///
    /// The error of the sync, or of a partition that was closed meanwhile.
    pub(super) fn sync_now(self) -> Result<()> {
        self.gate.run_one(&|| self.sync_once(SyncScope::All))
    }

    /// Syncs if an interval is over at `now`. Returns when it will be, if there is something to
    /// sync at that level.
    pub(crate) fn sync_if_due(self, now: Duration) -> Option<Duration> {
        let due = self.log.sync_due()?;
        if now < due {
            return Some(due);
        }
        // A failure is kept in the gate, and the next append returns it.
        let _ = self.flush();
        None
    }

    /// One sync of what is published when it begins. Called by the gate, for one caller at a time.
    pub(super) fn sync_once(self, scope: SyncScope) -> Result<u64> {
        let _on_panic = ReportPanic { flusher: self, on_panic: OnPanic::new() };
        let clock = self.log.clock();
        // Only for the metrics: if the clock panics, the duration is lost, and the waiters still
        // get their result.
        let begun = foreign::call(|| clock.monotonic());
        let mut task = self.log.lock().begin_sync(scope)?;
        // A tail is rewritten by its path, which after a deletion may lead to another topic's file.
        // Files that are open need no such protection, and a deletion does not wait for them.
        let rewriting = (!task.unproved.is_empty()).then(|| self.log.disk_work().begin());
        if matches!(rewriting, Some(None)) {
            self.log.lock().log_mut().backlog_mut().give_back_sync(task);
            return Err(self.log.status().closed());
        }
        let run = || {
            #[cfg(feature = "testing")]
            self.log.seams.sync(self.log.origin())?;
            task.run()
        };
        let result = self.log.state().guard(run);
        drop(rewriting);
        let ended = begun.and_then(|_| foreign::call(|| clock.monotonic()));
        let took =
            ended.zip(begun).map_or(Duration::ZERO, |(end, begun)| end.saturating_sub(begun));
        let mut state = self.log.lock();
        let fired = match &result {
            Ok(()) => {
                if !Rule::NextSync.holds() {
                    task = state.log_mut().begin_sync(scope);
                }
                state.publish_durable(task.target);
                // Raised now, so that the waiters get this result even if the partition is closed
                // before the sync ends.
                self.gate.raise(task.target);
                state.finish_sync(&task, took)
            }
            Err(error) => {
                // The failure is final: the kernel may have marked the lost pages clean, so a later
                // successful sync of this log would prove nothing.
                state.poison(error.clone());
                let (partition, error) = (self.log.origin().clone(), error.clone());
                note!(self.log.trace(), Poisoned { partition, error });
                state.waiters().fire_all()
            }
        };
        drop(state);
        fired.notify();
        match &result {
            Ok(()) => self.log.lead().synced(self.announces),
            // The member has to know: what it has confirmed may be missing from its next run.
            Err(_) => self.log.lead().changed(),
        }
        result.map(|()| task.target)
    }
}

/// The result of a wait without a deadline for what the log has: what was cut off meanwhile is not
/// waited for.
fn unless_cut(waited: Result<()>) -> Result<()> {
    match waited {
        Err(Error::LeadershipLost) => Ok(()),
        other => other,
    }
}

/// If a sync panics, reports to its waiters what poisoned the partition.
struct ReportPanic<'a> {
    flusher: Flusher<'a>,
    on_panic: OnPanic,
}

impl Drop for ReportPanic<'_> {
    fn drop(&mut self) {
        if self.on_panic.has_begun() {
            // It is dropped after the guard that poisons the partition, and waiters are woken under
            // no lock.
            let failure = self.flusher.log.lock().failure().cloned();
            if let Some(failure) = failure {
                self.flusher.gate.fail(failure);
            }
        }
    }
}

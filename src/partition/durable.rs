//! Making a partition durable: who waits, who syncs, and what a sync that ended means.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::guard::OnPanic;
use super::waiters::Awaits;
use super::{PartitionCore, Work};
use crate::config::Durability;
use crate::error::Result;
use crate::foreign;
use crate::log::tasks::SyncScope;
use crate::rules::Rule;
use crate::trace::note;

impl PartitionCore {
    /// Waits until everything below `target` is durable; runs the sync itself when nobody does.
    pub(crate) fn wait_durable(&self, target: u64) -> Result<()> {
        self.check_process()?;
        self.gate.wait(target, None, Some(&|| self.sync_once(SyncScope::All)))
    }

    /// As [`wait_durable`](Self::wait_durable), with a deadline: a sync that hangs must not hold
    /// the caller, so it is left to the worker where there is one.
    pub(crate) fn wait_durable_until(
        self: &Arc<Self>,
        target: u64,
        deadline: Instant,
    ) -> Result<()> {
        self.check_process()?;
        if !self.background.is_running() {
            return self.gate.wait(
                target,
                Some(deadline),
                Some(&|| self.sync_once(SyncScope::All)),
            );
        }
        if self.durable_end() < target {
            self.request(Work::Sync);
        }
        self.gate.wait(target, Some(deadline), None)
    }

    pub(crate) fn poll_durable(
        self: &Arc<Self>,
        target: u64,
        waker: &std::task::Waker,
        place: &mut Option<u64>,
    ) -> Option<Result<()>> {
        if let Err(error) = self.check_process() {
            return Some(Err(error));
        }
        let answer = self.gate.poll(target, waker, place);
        if answer.is_none() {
            self.request(Work::Sync);
        }
        answer
    }

    /// Whoever polled gives up.
    pub(crate) fn forget_waiter(&self, target: u64, place: u64) {
        if self.process.is_current() {
            self.gate.forget(target, place);
        }
    }

    /// Asks for a sync, at the level whose promise it is; the others have theirs when they say.
    pub(crate) fn sync_soon(self: &Arc<Self>) {
        if self.durability == Durability::Sync {
            self.request(Work::Sync);
        }
    }

    /// Whether appends are not refused for the rest of this run: for what the opening has found, or
    /// after a failed sync.
    #[inline]
    pub(crate) fn takes_appends(&self) -> bool {
        self.is_available() && !self.state.is_poisoned()
    }

    /// Makes everything that is published now durable.
    pub(crate) fn flush(&self) -> Result<()> {
        self.wait_durable(self.log_end())
    }

    /// One sync of what is published when it begins. Called by the gate, for one caller at a time.
    pub(super) fn sync_once(&self, scope: SyncScope) -> Result<u64> {
        let _on_panic = TellOfPanic { core: self, on_panic: OnPanic::new() };
        // For a figure only: a clock that panics costs that figure, and not what waits for the sync.
        let begun = foreign::call(|| self.clock.monotonic());
        let mut task = {
            let mut state = self.state.lock();
            if let Some(failure) = &state.failure {
                return Err(failure.clone());
            }
            if scope == SyncScope::All {
                state.unsynced_bytes = 0;
                state.sync_due = None;
            }
            state.log.begin_sync(scope)
        };
        // A tail is rewritten by its path, which after a deletion may lead to another topic's
        // file. What has a descriptor needs no such care, and a deletion does not wait for it.
        let rewriting = (!task.unproved.is_empty()).then(|| self.disk_work.begin());
        if matches!(rewriting, Some(None)) {
            self.state.lock().log.backlog_mut().give_back_sync(task);
            return Err(self.ended());
        }
        let result = self.state.guard(|| task.run());
        drop(rewriting);
        let ended = begun.and_then(|_| foreign::call(|| self.clock.monotonic()));
        let took =
            ended.zip(begun).map_or(Duration::ZERO, |(end, begun)| end.saturating_sub(begun));
        let mut state = self.state.lock();
        state.counts.note_sync(&task, took, result.is_ok());
        let fired = match &result {
            Ok(()) => {
                if !Rule::NextSync.holds() {
                    task = state.log.begin_sync(scope);
                }
                state.log.finish_sync(&task);
                // ORDERING: raised before the readers that wait for it are told, under the lock
                // under which they arm; else one could look at the old end and wait again.
                self.gate.raise(task.target);
                state.waiters.fire(Awaits::Durable)
            }
            Err(error) => {
                // Final: the kernel may have marked the lost pages clean, so no
                // later success of this log would mean anything.
                state.poison(error.clone());
                let (partition, error) = (Arc::clone(&self.origin), error.clone());
                note!(self.trace, Poisoned { partition, error });
                state.waiters.fire_all()
            }
        };
        drop(state);
        fired.notify();
        result.map(|()| task.target)
    }
}

/// Tells those who wait for a sync that panics what poisoned the partition.
struct TellOfPanic<'a> {
    core: &'a PartitionCore,
    on_panic: OnPanic,
}

impl Drop for TellOfPanic<'_> {
    fn drop(&mut self) {
        if self.on_panic.has_begun() {
            // Dropped after what poisons; and whoever is woken is woken under no lock.
            let failure = self.core.state.lock().failure.clone();
            if let Some(failure) = failure {
                self.core.gate.fail(failure);
            }
        }
    }
}

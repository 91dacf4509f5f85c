//! How a consumer waits while there is nothing to read.
//!
//! Invariant: a loop that waits checks its deadline in every pass, or it could keep its thread for
//! ever. Debug builds assert it, so every test of a consumer checks it.

#[cfg(debug_assertions)]
use std::cell::Cell;
#[cfg(all(feature = "testing", feature = "replication"))]
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::clock::real_now;
use crate::partition::waiters::Notifier;
#[cfg(all(feature = "testing", feature = "replication"))]
use crate::seams::{Drive, drive_until};

#[cfg(debug_assertions)]
thread_local! {
    /// How many passes this thread has begun since it looked at a deadline.
    static PASSES: Cell<u32> = const { Cell::new(0) };
}

/// Notes that a call begins, or checks its deadline.
#[inline]
pub(super) fn note_deadline_check() {
    #[cfg(debug_assertions)]
    PASSES.set(0);
}

/// Notes that a pass begins. Debug builds panic if a call makes passes without checking its
/// deadline.
#[inline]
pub(super) fn begin_pass() {
    #[cfg(debug_assertions)]
    {
        PASSES.set(PASSES.get().saturating_add(1));
        // LIMIT: two, because one more pass returns an error if there is nothing else.
        assert!(PASSES.get() <= 2, "a consumer looks again and again, and never at the time");
    }
}

pub(super) enum Wait<'w> {
    /// Returns at once, without reading the time.
    Never,
    /// Parks the thread, until this moment at most.
    Until(Instant),
    Forever,
    /// Lets a test's cluster work, until this moment of its clock at most.
    #[cfg(all(feature = "testing", feature = "replication"))]
    Driven {
        drive: Arc<dyn Drive>,
        until: Option<Duration>,
    },
    /// Returns at once, and has the task woken when it should poll again.
    #[cfg_attr(not(feature = "async"), expect(dead_code, reason = "only tasks wait like this"))]
    Task {
        waker: &'w Waker,
        /// Whether [`wake`](super::ConsumerHandle::wake) ends the wait. It does not end a stream.
        is_woken_by_call: bool,
    },
}

#[cfg(all(feature = "testing", feature = "replication"))]
impl Wait<'_> {
    /// What waits in a test's cluster; `None` if the call does not wait.
    pub(super) fn driven(drive: &Arc<dyn Drive>, timeout: Option<Duration>) -> Self {
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Self::Never;
        }
        let until = timeout.and_then(|timeout| drive.now().checked_add(timeout));
        Self::Driven { drive: Arc::clone(drive), until }
    }
}

impl Wait<'_> {
    #[inline]
    pub(super) fn up_to(timeout: Duration) -> Self {
        if timeout.is_zero() {
            return Self::Never;
        }
        // A timeout too long for the clock is no timeout.
        real_now().checked_add(timeout).map_or(Self::Forever, Self::Until)
    }

    /// Whether the call ends by itself.
    pub(super) fn has_deadline(&self) -> bool {
        match self {
            Self::Never | Self::Until(_) => true,
            #[cfg(all(feature = "testing", feature = "replication"))]
            Self::Driven { until, .. } => until.is_some(),
            Self::Forever | Self::Task { .. } => false,
        }
    }

    pub(super) fn is_task(&self) -> bool {
        matches!(self, Self::Task { .. })
    }

    /// Whether a wake-up ends the call. The task of a stream is woken by it, finds nothing, and
    /// keeps waiting.
    pub(super) fn ends_when_woken(&self) -> bool {
        !matches!(self, Self::Task { is_woken_by_call: false, .. })
    }

    /// Whether the call returns without a signal.
    pub(super) fn is_over(&self) -> bool {
        note_deadline_check();
        match self {
            Self::Never | Self::Task { .. } => true,
            Self::Until(deadline) => real_now() >= *deadline,
            #[cfg(all(feature = "testing", feature = "replication"))]
            Self::Driven { drive, until } => until.is_some_and(|until| drive.now() >= until),
            Self::Forever => false,
        }
    }

    /// Whether the call makes another pass without a wait, because something has changed during the
    /// last one. A task is woken at once instead, so that it never blocks its executor.
    pub(super) fn may_pass_again(&self) -> bool {
        if let Self::Task { waker, .. } = self {
            waker.wake_by_ref();
        }
        !self.is_over()
    }

    /// Waits for a signal, a thread for no longer than `most`. Returns the tokens of the partitions
    /// that fired; `None` when there was no signal.
    pub(super) fn at(&self, notifier: &Notifier, most: Option<Duration>) -> Option<Vec<usize>> {
        note_deadline_check();
        let cut = most.and_then(|most| real_now().checked_add(most));
        let (fired, called) = match self {
            Self::Never => return None,
            Self::Until(deadline) => {
                notifier.wait(Some(cut.map_or(*deadline, |cut| cut.min(*deadline))))
            }
            Self::Forever => notifier.wait(cut),
            #[cfg(all(feature = "testing", feature = "replication"))]
            Self::Driven { drive, until } => {
                let cut = most.map(|most| drive.now().saturating_add(most));
                let until = until.iter().copied().chain(cut).min();
                let _ = drive_until(&**drive, until, || notifier.has_signals().then_some(()));
                notifier.wait(Some(real_now()))
            }
            Self::Task { waker, .. } => notifier.poll(waker)?,
        };
        (!fired.is_empty() || called).then_some(fired)
    }
}

#[cfg(all(test, debug_assertions, not(loom)))]
mod tests {
    use super::*;

    /// Symptom: a reader of a paused partition whose topic was deleted never came back from
    /// `poll(100 ms)`. Cause: the loop went round where there was something to look at and nothing
    /// to read, past the line that looks at the time. Rule: what brings a loop to its next
    /// pass has looked.
    #[test]
    #[should_panic(expected = "never at the time")]
    fn a_loop_that_passes_again_and_again_without_a_look_at_its_deadline_is_found() {
        let wait = Wait::Forever;
        note_deadline_check();
        for _ in 0..10 {
            begin_pass();
            assert!(wait.may_pass_again());
        }
        (0..3).for_each(|_| begin_pass());
    }
}

//! What a consumer does when there is nothing to read.

use std::task::Waker;
use std::time::{Duration, Instant};

use crate::clock::real_now;
use crate::partition::waiters::Notifier;

pub(super) enum Wait<'w> {
    /// Comes back empty at once. Does not have to know the time.
    Never,
    /// Parks the thread, until this moment at most.
    Until(Instant),
    Forever,
    /// Comes back empty, and has the task woken when it is worth asking again.
    #[cfg_attr(not(feature = "async"), expect(dead_code, reason = "only streams wait like this"))]
    Task(&'w Waker),
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

    /// A wake-up call is for whoever called and waits for an answer; a task is woken by it, finds
    /// nothing, and goes on waiting.
    pub(super) fn ends_when_woken(&self) -> bool {
        !matches!(self, Self::Task(_))
    }

    /// Whether the call comes back without a signal.
    pub(super) fn is_over(&self) -> bool {
        match self {
            Self::Never | Self::Task(_) => true,
            Self::Until(deadline) => real_now() >= *deadline,
            Self::Forever => false,
        }
    }

    /// Whether the call looks again without a wait, because something changed while it looked. A
    /// task is woken at once instead, so that it never keeps its executor.
    pub(super) fn may_pass_again(&self) -> bool {
        if let Self::Task(waker) = self {
            waker.wake_by_ref();
        }
        !self.is_over()
    }

    /// Waits for a signal, a thread for no longer than `most`. Returns the tokens of the partitions
    /// that fired; `None` when there was no signal.
    pub(super) fn at(&self, notifier: &Notifier, most: Option<Duration>) -> Option<Vec<usize>> {
        let cut = most.and_then(|most| real_now().checked_add(most));
        let (fired, called) = match self {
            Self::Never => return None,
            Self::Until(deadline) => {
                notifier.wait(Some(cut.map_or(*deadline, |cut| cut.min(*deadline))))
            }
            Self::Forever => notifier.wait(cut),
            Self::Task(waker) => notifier.poll(waker)?,
        };
        (!fired.is_empty() || called).then_some(fired)
    }
}

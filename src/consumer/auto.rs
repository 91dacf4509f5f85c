//! When a consumer in auto mode commits.
//!
//! Owns: the interval and the time of the next commit, on the broker's clock. Must not know: what
//! is committed.

use std::time::Duration;

use crate::config::CommitMode;

#[derive(Debug)]
pub(super) struct AutoCommit {
    /// `None` in manual mode.
    every: Option<Duration>,
    due: Duration,
}

impl AutoCommit {
    pub(super) fn new(mode: CommitMode, now: Duration) -> Self {
        let every = match mode {
            CommitMode::Manual => None,
            CommitMode::Auto { every } => Some(every),
        };
        Self { every, due: every.map_or(Duration::MAX, |every| now.saturating_add(every)) }
    }

    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.every.is_some()
    }

    /// How long a wait may be before the next commit: real time, like the wait itself. Moving a
    /// manual clock does not shorten a wait; the next call checks again.
    pub(super) fn time_left(&self, now: Duration) -> Duration {
        self.due.saturating_sub(now)
    }

    /// Whether a commit is due. The next one is then due an interval later.
    #[inline]
    pub(super) fn take_due(&mut self, now: Duration) -> bool {
        let Some(every) = self.every.filter(|_| now >= self.due) else { return false };
        self.due = now.saturating_add(every);
        true
    }
}

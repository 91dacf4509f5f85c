//! What a segment has become by truncations of a replicated log, one after another.
//!
//! A reader that holds the segment, and has read none of what was cut off, must leave it where it
//! ends now; so its facts are in the segment itself. They are only ever added, so a reader borrows
//! them without a lock. Must not know: what the facts are, and why the log was truncated.

use crate::sync::OnceLock;

/// The facts after each truncation.
pub(super) struct Cuts<T>(OnceLock<Box<Cut<T>>>);

struct Cut<T> {
    facts: T,
    later: Cuts<T>,
}

impl<T> Cuts<T> {
    pub(super) fn none() -> Self {
        Self(OnceLock::new())
    }

    /// The facts after the last truncation; `None` if there was none.
    #[inline]
    pub(super) fn last(&self) -> Option<&T> {
        let mut cut = self.0.get()?;
        while let Some(later) = cut.later.0.get() {
            cut = later;
        }
        Some(&cut.facts)
    }

    /// Adds a truncation. Called under the lock of the log.
    pub(super) fn add(&self, facts: T) {
        let mut slot = &self.0;
        while let Some(cut) = slot.get() {
            slot = &cut.later.0;
        }
        let _ = slot.set(Box::new(Cut { facts, later: Self::none() }));
    }
}

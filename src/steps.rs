//! Counts steps of loops whose length must not grow with what they do not concern, so that a unit
//! test can say what a call costs without measuring time. Nothing in other builds.

use std::cmp::Ordering;

#[cfg(test)]
std::thread_local! {
    static TAKEN: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// So many steps of a loop are taken.
#[inline]
pub(crate) fn take(steps: u64) {
    #[cfg(test)]
    TAKEN.with(|taken| taken.set(taken.get().saturating_add(steps)));
    #[cfg(not(test))]
    let _ = steps;
}

/// How many steps this thread takes in `code`.
#[cfg(test)]
pub(crate) fn of(code: impl FnOnce()) -> u64 {
    let before = TAKEN.with(std::cell::Cell::get);
    code();
    TAKEN.with(std::cell::Cell::get) - before
}

/// A key of which each comparison is a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counted<T>(pub(crate) T);

impl<T: Ord> Ord for Counted<T> {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        take(1);
        self.0.cmp(&other.0)
    }
}

impl<T: Ord> PartialOrd for Counted<T> {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: Ord> PartialEq for Counted<T> {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T: Ord> Eq for Counted<T> {}

//! The published ends of a partition's log: log start, durable end and log end.
//!
//! Owns: the values that other threads read without the partition's lock. Only the holder of that
//! lock writes them, after the change that they stand for. Must not know: the log, and who reads.
//!
//! Invariant, whenever the lock is free: `start <= durable <= end`.

use crate::config::Visibility;
use crate::sync::{AtomicBool, AtomicU64, Ordering};

#[derive(Debug)]
pub(crate) struct Ends {
    /// ORDERING: all three are stored with Release after what they stand for, and loaded with
    /// Acquire by readers. Who sees the log end finds the batches below it; who sees the durable
    /// end may report that a sync has happened; who sees the start finds shorter lists. With
    /// Relaxed each of them could act on the number before the fact.
    start: AtomicU64,
    durable: AtomicU64,
    end: AtomicU64,
    /// After a failure the published records that are not known to be durable are hidden.
    ///
    /// ORDERING: Release under the lock, after the failure was noted; Acquire by readers.
    is_poisoned: AtomicBool,
}

impl Ends {
    pub(super) fn new(start: u64, durable: u64, end: u64) -> Self {
        Self {
            start: AtomicU64::new(start),
            durable: AtomicU64::new(durable),
            end: AtomicU64::new(end),
            is_poisoned: AtomicBool::new(false),
        }
    }

    #[inline]
    pub(crate) fn start(&self) -> u64 {
        self.start.load(Ordering::Acquire)
    }

    /// Everything below it is on stable storage.
    #[inline]
    pub(crate) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// The offset of the next record.
    #[inline]
    pub(crate) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// The end of what may be read.
    #[inline]
    pub(crate) fn visible(&self, visibility: Visibility) -> u64 {
        if visibility == Visibility::Durable || self.is_poisoned() {
            self.durable()
        } else {
            self.end()
        }
    }

    #[inline]
    pub(crate) fn is_poisoned(&self) -> bool {
        self.is_poisoned.load(Ordering::Acquire)
    }

    #[inline]
    pub(super) fn publish_end(&self, end: u64) {
        self.end.store(end, Ordering::Release);
    }

    pub(super) fn publish_start(&self, start: u64) {
        self.start.store(start, Ordering::Release);
    }

    /// Never moves back: what was reported durable remains so.
    pub(super) fn raise_durable(&self, durable: u64) {
        let before = self.durable.load(Ordering::Relaxed);
        self.durable.store(before.max(durable), Ordering::Release);
    }

    pub(super) fn poison(&self) {
        self.is_poisoned.store(true, Ordering::Release);
    }

    /// Whether the invariant holds. Under the partition's lock: to others, the ends move between
    /// two loads.
    pub(super) fn check(&self) -> bool {
        self.start() <= self.durable() && self.durable() <= self.end()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn ends_out_of_order_fail_the_check() {
        for (start, durable, end) in [(0, 0, 0), (1, 1, 1), (0, 3, 7)] {
            assert!(Ends::new(start, durable, end).check());
        }
        for (start, durable, end) in [(1, 0, 2), (0, 3, 2), (5, 2, 4)] {
            assert!(!Ends::new(start, durable, end).check(), "{start} {durable} {end}");
        }
    }

    #[test]
    fn a_poisoned_partition_shows_durable_records_only() {
        let ends = Ends::new(0, 3, 7);
        assert_eq!(
            (ends.visible(Visibility::Published), ends.visible(Visibility::Durable)),
            (7, 3)
        );
        ends.poison();
        assert_eq!((ends.visible(Visibility::Published), ends.end()), (3, 7));
        ends.raise_durable(2);
        assert_eq!(ends.durable(), 3, "it never moves back");
    }
}

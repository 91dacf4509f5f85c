//! The published ends of a partition's log: log start, high watermark, durable end and log end.
//!
//! Owns: the values that other threads read without the partition's lock. Only the holder of that
//! lock writes them, after the change that they stand for. Must not know: the log, and who reads.
//!
//! Invariant, whenever the lock is free: `start <= durable <= end`; and, in a replicated log,
//! `start <= watermark`. The watermark lies above the end only while a log that began anew, to be
//! repaired, gets back what it had.

use super::watermark::Watermark;
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
    watermark: Watermark,
}

impl Ends {
    pub(super) fn new(start: u64, durable: u64, end: u64) -> Self {
        Self {
            start: AtomicU64::new(start),
            durable: AtomicU64::new(durable),
            end: AtomicU64::new(end),
            is_poisoned: AtomicBool::new(false),
            watermark: Watermark::none(),
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
        let end = if visibility == Visibility::Durable || self.is_poisoned() {
            self.durable()
        } else {
            self.end()
        };
        end.min(self.watermark())
    }

    /// Below it a majority has the records, so that they are never lost and never change; nothing
    /// above it is shown, committed or removed. `u64::MAX` if the log is not replicated.
    #[inline]
    pub(crate) fn watermark(&self) -> u64 {
        self.watermark.get()
    }

    /// Whether the log has a watermark. A position above the end of a replicated log is no error:
    /// the records may be on their way.
    #[inline]
    pub(crate) fn is_replicated(&self) -> bool {
        self.watermark.exists()
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
        #[cfg(feature = "replication")]
        if self.is_replicated() {
            // The leader moves the log start, and never above the watermark. So it proves one.
            self.watermark.raise(start);
        }
        self.start.store(start, Ordering::Release);
    }

    /// Begins a watermark at the log start, if there is none.
    #[cfg(feature = "replication")]
    pub(super) fn begin_watermark(&self) {
        self.watermark.raise(self.start());
    }

    /// Raises the watermark, at most to the log end. Returns whether it was raised.
    #[cfg(feature = "replication")]
    pub(super) fn raise_watermark(&self, offset: u64) -> bool {
        let before = self.watermark();
        self.watermark.raise(offset.min(self.end()));
        self.watermark() > before
    }

    /// Never moves back: what was reported durable remains so.
    pub(super) fn raise_durable(&self, durable: u64) {
        let before = self.durable.load(Ordering::Relaxed);
        self.durable.store(before.max(durable), Ordering::Release);
    }

    /// Moves the ends back, after a truncation of what no reader has seen.
    #[cfg(feature = "replication")]
    pub(super) fn fall_back(&self, durable: u64, end: u64) {
        self.durable.store(durable, Ordering::Release);
        self.end.store(end, Ordering::Release);
    }

    pub(super) fn poison(&self) {
        self.is_poisoned.store(true, Ordering::Release);
    }

    /// Whether the invariant holds. Under the partition's lock: to others, the ends move between
    /// two loads.
    pub(super) fn check(&self) -> bool {
        let watermark = self.watermark();
        let is_sound = self.start() <= watermark;
        self.start() <= self.durable()
            && self.durable() <= self.end()
            && (is_sound || !self.is_replicated())
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

    #[test]
    fn a_log_that_is_not_replicated_has_no_watermark() {
        let ends = Ends::new(0, 3, 7);
        assert_eq!((ends.watermark(), ends.is_replicated()), (u64::MAX, false));
    }

    #[cfg(feature = "replication")]
    #[test]
    fn readers_see_what_lies_below_the_watermark_and_is_durable_if_they_want_that() {
        let ends = Ends::new(2, 5, 9);
        let visible = || (ends.visible(Visibility::Published), ends.visible(Visibility::Durable));
        ends.begin_watermark();
        assert_eq!(visible(), (2, 2), "nothing is known of the other members");
        assert!(ends.raise_watermark(4));
        assert_eq!(visible(), (4, 4));
        assert!(ends.raise_watermark(7));
        assert_eq!(visible(), (7, 5));
        assert!(!ends.raise_watermark(6), "it never falls");
        ends.begin_watermark();
        assert_eq!(ends.watermark(), 7);
        assert!(ends.raise_watermark(100), "no higher than the log end");
        assert_eq!((ends.watermark(), ends.check()), (9, true));
        ends.poison();
        assert_eq!(visible(), (5, 5));
    }

    #[cfg(feature = "replication")]
    #[test]
    fn a_log_that_begins_anew_further_on_has_its_watermark_there() {
        let ends = Ends::new(0, 3, 3);
        ends.begin_watermark();
        ends.publish_end(20);
        ends.raise_durable(20);
        ends.publish_start(20);
        assert_eq!((ends.watermark(), ends.check()), (20, true));
    }
}

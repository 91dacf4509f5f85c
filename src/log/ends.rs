//! The ends of a log: log start, durable end and log end.
//!
//! Owns: the three offsets. Must not know: segments, files, who waits for an end.
//!
//! Invariants, which [`check`](Ends::check) holds:
//! 1. `log_start <= durable_end <= log_end`.
//! 2. None of the three decreases, unless a replicated log is truncated.

use super::OFFSET_MAX;

/// Exclusive ends, and the first offset that is readable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ends {
    log_start: u64,
    durable_end: u64,
    log_end: u64,
}

impl Ends {
    /// The ends that an opening found. `log_end` decides: a start or a durable end above it is
    /// lowered to it. Records below the start count as durable, because they cannot be lost any
    /// more.
    pub(crate) fn found(log_start: u64, durable_end: u64, log_end: u64) -> Self {
        let log_start = log_start.min(log_end);
        let durable_end = durable_end.min(log_end).max(log_start);
        let ends = Self { log_start, durable_end, log_end };
        ends.assert_valid();
        ends
    }

    #[inline]
    pub(crate) fn log_start(&self) -> u64 {
        self.log_start
    }

    #[inline]
    pub(crate) fn durable_end(&self) -> u64 {
        self.durable_end
    }

    #[inline]
    pub(crate) fn log_end(&self) -> u64 {
        self.log_end
    }

    /// Whether anything is published and not durable.
    pub(crate) fn is_dirty(&self) -> bool {
        self.durable_end < self.log_end
    }

    /// The log end after a batch of this last offset delta; `None` where offsets are used up.
    #[inline]
    pub(crate) fn after(&self, last_offset_delta: u32) -> Option<u64> {
        self.log_end
            .checked_add(u64::from(last_offset_delta))
            .and_then(|last| last.checked_add(1))
            .filter(|next| *next <= OFFSET_MAX)
    }

    /// Notes that batches up to `next_offset` were published.
    #[inline]
    pub(crate) fn advance_end(&mut self, next_offset: u64) {
        self.log_end = self.log_end.max(next_offset);
        self.assert_valid();
    }

    /// Notes that a sync has made everything below `offset` durable.
    pub(crate) fn advance_durable(&mut self, offset: u64) {
        self.durable_end = self.durable_end.max(offset);
        self.assert_valid();
    }

    /// Removes records below `offset` from the log. They count as durable, because they cannot be
    /// lost any more.
    pub(crate) fn advance_start(&mut self, offset: u64) {
        self.log_start = self.log_start.max(offset.min(self.log_end));
        self.durable_end = self.durable_end.max(self.log_start);
        self.assert_valid();
    }

    /// Cuts off what lies at and above `offset`.
    #[cfg(feature = "replication")]
    pub(super) fn cut(&mut self, offset: u64) {
        self.log_end = self.log_end.min(offset.max(self.log_start));
        self.durable_end = self.durable_end.min(self.log_end);
        self.assert_valid();
    }

    /// Continues at `offset` with nothing below it.
    #[cfg(feature = "replication")]
    pub(super) fn begin_anew(&mut self, offset: u64) {
        *self = Self { log_start: offset, durable_end: offset, log_end: offset };
    }

    /// The ends of the same log after its files were read again. The log end is kept: a reader that
    /// has reached it holds its segment as it was then.
    pub(crate) fn renewed(&self, found: Self) -> Self {
        let log_start = found.log_start.max(self.log_start);
        let log_end = self.log_end.max(log_start);
        Self::found(log_start, found.durable_end, log_end)
    }

    /// The ends of the same log after its files were read again, with what was appended meanwhile.
    pub(crate) fn caught_up(&self, found: Self) -> Self {
        let log_start = found.log_start.max(self.log_start);
        let log_end = found.log_end.max(self.log_end).max(log_start);
        Self::found(log_start, found.durable_end.max(self.durable_end), log_end)
    }

    fn assert_valid(&self) {
        debug_assert_eq!(self.check(), Ok(()));
    }

    /// What is wrong, if anything: invariant 1.
    fn check(&self) -> Result<(), &'static str> {
        if self.log_start > self.durable_end {
            return Err("the log start lies above the durable end");
        }
        if self.durable_end > self.log_end {
            return Err("the durable end lies above the log end");
        }
        Ok(())
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn the_check_finds_ends_that_are_out_of_order() {
        let good = Ends { log_start: 1, durable_end: 2, log_end: 3 };
        assert_eq!(good.check(), Ok(()));
        assert!(Ends { log_start: 3, ..good }.check().is_err());
        assert!(Ends { durable_end: 4, ..good }.check().is_err());
    }

    #[test]
    fn no_end_decreases_and_the_start_is_always_durable() {
        let mut ends = Ends::found(10, 5, 20);
        assert_eq!((ends.log_start(), ends.durable_end(), ends.log_end()), (10, 10, 20));
        ends.advance_start(4);
        ends.advance_durable(15);
        ends.advance_durable(3);
        ends.advance_end(30);
        assert_eq!((ends.log_start(), ends.durable_end(), ends.log_end()), (10, 15, 30));
        ends.advance_start(99);
        assert_eq!((ends.log_start(), ends.durable_end(), ends.log_end()), (30, 30, 30));
        assert!(!ends.is_dirty());
    }

    #[test]
    fn another_look_at_the_files_never_moves_an_end_back() {
        let before = Ends::found(10, 20, 30);
        let after = before.renewed(Ends::found(12, 40, 40));
        assert_eq!((after.log_start(), after.durable_end(), after.log_end()), (12, 30, 30));
        let after = before.caught_up(Ends::found(12, 35, 40));
        assert_eq!((after.log_start(), after.durable_end(), after.log_end()), (12, 35, 40));
        let after = before.caught_up(Ends::found(5, 5, 15));
        assert_eq!(after, before);
        let after = before.renewed(Ends::found(5, 5, 5));
        assert_eq!((after.log_start(), after.durable_end(), after.log_end()), (10, 10, 30));
        let after = before.renewed(Ends::found(50, 60, 60));
        assert_eq!((after.log_start(), after.durable_end(), after.log_end()), (50, 50, 50));
    }
}

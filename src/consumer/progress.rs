//! How far a consumer has read one partition.
//!
//! Owns: the cursor, and the offsets that it has passed. Must not know: why it is moved, and what
//! is committed.
//!
//! Invariant: `passed <= handed_out <= fetched <= counted`; each is the offset of a next record.

use crate::error::Result;
use crate::log::cursor::{Cursor, FetchLimits, Fetched};
use crate::partition::PartitionCore;

#[derive(Default)]
pub(super) struct Progress {
    /// It is made when it is needed, and dropped by a seek.
    cursor: Option<Cursor>,
    /// The offset after the records that were read, returned or not.
    fetched: u64,
    /// The offset after the records that the metrics count as fetched. Above `fetched` if records
    /// that were read ahead were discarded: they are read again, and counted once.
    counted: u64,
    /// The offset after the records that were returned.
    handed_out: u64,
    /// The offset up to which a later poll has passed the records: auto-commit covers no more.
    passed: u64,
}

impl Progress {
    #[inline]
    pub(super) fn fetched(&self) -> u64 {
        self.fetched
    }

    #[inline]
    pub(super) fn handed_out(&self) -> u64 {
        self.handed_out
    }

    pub(super) fn passed(&self) -> u64 {
        self.passed
    }

    /// Moves to `offset`, and discards what was read ahead. If this goes back, records that were
    /// returned are counted once more.
    pub(super) fn move_to(&mut self, offset: u64) {
        let goes_back = offset < self.handed_out;
        let counted = if goes_back { offset } else { self.counted.max(offset) };
        let (fetched, handed_out, passed) = (offset, offset, offset);
        *self = Self { cursor: None, fetched, counted, handed_out, passed };
        self.check();
    }

    /// Continues after missing records. They do not count as passed yet: the poll that reports them
    /// has not returned.
    pub(super) fn skip_to(&mut self, offset: u64) {
        let passed = self.passed;
        self.move_to(offset);
        self.passed = passed;
        self.check();
    }

    /// Discards what was read ahead and not returned. False if there is nothing.
    pub(super) fn rewind(&mut self) -> bool {
        let has_read_ahead = self.fetched != self.handed_out;
        if has_read_ahead {
            self.cursor = None;
            self.fetched = self.handed_out;
        }
        has_read_ahead
    }

    /// Marks records below `next` as returned.
    #[inline]
    pub(super) fn hand_out(&mut self, next: u64) {
        self.handed_out = next;
        self.check();
    }

    /// Marks all fetched records as returned.
    pub(super) fn hand_out_all(&mut self) {
        self.handed_out = self.fetched;
    }

    /// Marks returned records as passed by a later poll.
    #[inline]
    pub(super) fn pass(&mut self) {
        self.passed = self.handed_out;
    }

    /// Adds what can be read from here. Moves by what was read.
    pub(super) fn read(
        &mut self,
        core: &PartitionCore,
        limits: &FetchLimits,
        fetched: &mut Fetched,
    ) -> Result<()> {
        let cursor = match &mut self.cursor {
            Some(cursor) => cursor,
            none => none.insert(core.reader().cursor_at(self.fetched)?),
        };
        let result = if self.fetched < self.counted {
            core.reader().fetch_again(cursor, limits, fetched, self.counted)
        } else {
            core.reader().fetch(cursor, limits, fetched)
        };
        self.fetched = cursor.next_offset();
        self.counted = self.counted.max(self.fetched);
        self.check();
        result
    }

    /// The invariant of the module, in debug builds.
    #[inline]
    fn check(&self) {
        debug_assert!(self.passed <= self.handed_out, "passed before it was handed out");
        debug_assert!(self.handed_out <= self.fetched, "handed out before it was read");
        debug_assert!(self.fetched <= self.counted, "read and not counted");
    }
}

#[cfg(all(test, debug_assertions, not(loom)))]
mod tests {
    use super::*;

    fn at(passed: u64, handed_out: u64, fetched: u64, counted: u64) -> Progress {
        Progress { cursor: None, fetched, counted, handed_out, passed }
    }

    #[test]
    fn a_move_back_counts_again_what_was_handed_out_only() {
        let mut progress = at(2, 4, 6, 6);
        progress.move_to(5);
        assert_eq!((progress.fetched, progress.counted), (5, 6), "read ahead, and counted");
        progress.move_to(1);
        assert_eq!((progress.fetched, progress.counted), (1, 1));
        progress.skip_to(9);
        assert_eq!((progress.passed, progress.handed_out, progress.counted), (1, 9, 9));
    }

    #[test]
    #[should_panic(expected = "passed before it was handed out")]
    fn a_pass_of_what_was_not_handed_out_is_found() {
        at(5, 4, 6, 6).check();
    }

    #[test]
    #[should_panic(expected = "handed out before it was read")]
    fn what_is_handed_out_and_was_not_read_is_found() {
        at(2, 7, 6, 6).check();
    }

    #[test]
    #[should_panic(expected = "read and not counted")]
    fn what_is_read_and_not_counted_is_found() {
        at(2, 4, 6, 5).check();
    }
}

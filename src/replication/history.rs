//! `History`: which leader epoch each record of a log has.
//!
//! Owns: start and end of a log, and the first offset of each epoch between them. Two logs that have
//! the same epoch at an offset are equal up to it, because only one leader appends in an epoch, and
//! followers copy in order. So comparing epochs finds where two logs diverge (KIP-101, KIP-279).
//! Must not know: members, messages.

use serde::{Deserialize, Serialize};

use crate::record::LeaderEpoch;

/// A row: from `first` on, up to the next row, records have this epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Row {
    epoch: LeaderEpoch,
    first: u64,
}

/// Records that follow each other and have one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct EpochRange {
    pub(crate) epoch: LeaderEpoch,
    pub(crate) records: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct History {
    start: u64,
    end: u64,
    /// The epoch of the record below `start`; zero if it is not known, or there is none.
    below: LeaderEpoch,
    /// Epochs and offsets rise strictly. A row may begin below `start`.
    rows: Vec<Row>,
}

impl History {
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// The epoch of the last record; zero for a log that never had one.
    pub(crate) fn last_epoch(&self) -> LeaderEpoch {
        self.rows.last().map_or(self.below, |row| row.epoch)
    }

    /// The epoch of the record below `offset`, which lies between start and end.
    pub(crate) fn epoch_before(&self, offset: u64) -> Option<LeaderEpoch> {
        if offset < self.start || offset > self.end {
            return None;
        }
        let row = self.rows.iter().rev().find(|row| row.first < offset);
        Some(row.map_or(self.below, |row| row.epoch))
    }

    /// The greatest epoch up to `epoch` that the log has, and the offset after its last record.
    pub(crate) fn end_of(&self, epoch: LeaderEpoch) -> (LeaderEpoch, u64) {
        let next = self.rows.iter().position(|row| row.epoch > epoch);
        let end = next.and_then(|i| self.rows.get(i)).map_or(self.end, |row| row.first);
        let found = match next {
            Some(0) => self.below,
            Some(i) => self.rows.get(i - 1).map_or(self.below, |row| row.epoch),
            None => self.last_epoch(),
        };
        (found.min(epoch), end.max(self.start))
    }

    /// The epochs of the records from `from` on, at most `most` records.
    pub(crate) fn ranges(&self, from: u64, most: u64) -> Vec<EpochRange> {
        let until = from.saturating_add(most).min(self.end);
        let mut ranges = Vec::new();
        for (i, row) in self.rows.iter().enumerate() {
            let end = self.rows.get(i + 1).map_or(self.end, |next| next.first).min(until);
            let records = end.saturating_sub(row.first.max(from));
            if records > 0 {
                ranges.push(EpochRange { epoch: row.epoch, records });
            }
        }
        ranges
    }

    /// Appends records. An epoch below the last one changes nothing: no leader sends that.
    #[must_use]
    pub(crate) fn push(&mut self, range: EpochRange) -> bool {
        let Some(end) = self.end.checked_add(range.records) else { return false };
        if range.epoch < self.last_epoch() {
            return false;
        }
        if range.records > 0 {
            if range.epoch > self.last_epoch() || self.rows.is_empty() {
                self.rows.push(Row { epoch: range.epoch, first: self.end });
            }
            self.end = end;
        }
        true
    }

    /// Removes the records from `offset` on.
    pub(crate) fn truncate(&mut self, offset: u64) {
        let offset = offset.max(self.start);
        self.end = self.end.min(offset);
        self.rows.retain(|row| row.first < offset);
    }

    /// Moves the start up; the records below it are no longer there.
    pub(crate) fn raise_start(&mut self, start: u64) {
        let start = start.clamp(self.start, self.end);
        if start > self.start {
            self.below = self.epoch_before(start).unwrap_or(self.below);
            self.start = start;
            let kept = self.rows.iter().rposition(|row| row.first <= start).unwrap_or(0);
            self.rows.drain(..kept);
            if start == self.end {
                self.rows.clear();
            }
        }
    }

    /// Removes everything, and continues at `start`; the record below it has the epoch `below`.
    pub(crate) fn begin_anew(&mut self, start: u64, below: LeaderEpoch) {
        *self = Self { start, end: start, below, rows: Vec::new() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(epoch: u32) -> LeaderEpoch {
        LeaderEpoch(epoch)
    }

    fn of(epochs: &[u32]) -> History {
        let mut history = History::default();
        for one in epochs {
            assert!(history.push(EpochRange { epoch: epoch(*one), records: 1 }));
        }
        history
    }

    #[test]
    fn it_says_which_epoch_a_record_has_and_where_an_epoch_ends() {
        let history = of(&[1, 1, 4, 6, 6]);
        let before: Vec<_> = (0..=5).map(|at| history.epoch_before(at)).collect();
        assert_eq!(before, [0, 1, 1, 4, 6, 6].map(|one| Some(epoch(one))));
        assert_eq!(history.epoch_before(6), None);
        for (asked, found, end) in
            [(0, 0, 0), (1, 1, 2), (3, 1, 2), (4, 4, 3), (5, 4, 3), (6, 6, 5), (9, 6, 5)]
        {
            assert_eq!(history.end_of(epoch(asked)), (epoch(found), end), "{asked}");
        }
    }

    #[test]
    fn a_start_that_rises_keeps_the_epoch_below_it() {
        for start in 0..=5 {
            let whole = of(&[1, 1, 4, 6, 6]);
            let mut history = whole.clone();
            history.raise_start(start);
            assert_eq!((history.start(), history.end()), (start, 5));
            assert_eq!(history.last_epoch(), epoch(6));
            for at in start..=5 {
                assert_eq!(history.epoch_before(at), whole.epoch_before(at), "{start}: {at}");
            }
            for asked in 1..8 {
                assert_eq!(history.end_of(epoch(asked)).1, whole.end_of(epoch(asked)).1.max(start));
            }
            history.truncate(start);
            assert_eq!(Some(history.last_epoch()), whole.epoch_before(start), "{start}");
        }
    }

    #[test]
    fn ranges_put_together_give_the_same_history() {
        let whole = of(&[1, 1, 4, 6, 6]);
        for from in 0..=5 {
            for most in 1..=6 {
                let mut copy = whole.clone();
                copy.truncate(from);
                for range in whole.ranges(from, most) {
                    assert!(copy.push(range));
                }
                assert_eq!(copy.end(), (from + most).min(5));
                assert_eq!(copy.ranges(0, 9), whole.ranges(0, copy.end()));
            }
        }
        assert!(!of(&[4]).push(EpochRange { epoch: epoch(3), records: 1 }), "epochs never fall");
    }
}

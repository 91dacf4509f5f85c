//! Comparing two logs: what is answered to a fetch, and where a log that diverges is cut.
//!
//! Pure functions over the epochs of one log. Must not know: members, roles.

use super::history::History;
use super::message::{Fetch, Found};
use super::rule::Rule;
use crate::record::LeaderEpoch;

/// What a log answers to a fetch, with at most `most` records.
pub(super) fn answer(history: &History, asked: &Fetch, most: u64) -> Found {
    let removed = Found::Removed { start: history.start(), below: below_start(history) };
    if asked.from < history.start() {
        return removed;
    }
    let is_equal = match (history.epoch_before(asked.from), asked.before) {
        (Some(own), Some(theirs)) => own == theirs,
        (Some(_), None) => true,
        (None, _) => false,
    };
    if !is_equal && asked.from == history.start() && asked.from > 0 {
        // What lies below is below the high watermark, and the asking log differs there.
        return removed;
    }
    if is_equal || (!Rule::NameEpoch.holds() && asked.from <= history.end()) {
        return Found::Records { ranges: history.ranges(asked.from, most), changes: Vec::new() };
    }
    let (epoch, end) = history.end_of(asked.before.unwrap_or_default());
    if end == history.start() && end > 0 {
        // All that this log has is of later epochs, and which one lies below may not be known.
        return removed;
    }
    Found::Diverges { epoch, end }
}

fn below_start(history: &History) -> LeaderEpoch {
    history.epoch_before(history.start()).unwrap_or_default()
}

/// Where a log is cut that diverges from one whose greatest epoch up to this log's last one is
/// `epoch`, with the end `end`. If this log has that epoch too, both agree up to the lower of
/// the two ends. If it does not, it is cut to its next lower epoch, and compared again (KIP-279).
pub(super) fn cut_point(history: &History, epoch: LeaderEpoch, end: u64) -> u64 {
    let (own_epoch, own_end) = history.end_of(epoch);
    if own_epoch == epoch { end.min(own_end) } else { own_end }
}

#[cfg(test)]
mod tests {
    use super::super::history::EpochRange;
    use super::super::log_key::LogKey;
    use super::*;

    fn asked(from: u64, before: u32) -> Fetch {
        let before = Some(LeaderEpoch(before));
        Fetch {
            log: LogKey::Offsets,
            from,
            before,
            adopted: false,
            synced: from,
            held: from,
            start: 0,
        }
    }

    /// It was accepted without comparing, because the record below the start is removed: the follower
    /// then had records of a later epoch before those of an earlier one, and was stuck.
    #[test]
    fn a_log_that_ends_at_the_start_and_differs_there_begins_anew() {
        let mut history = History::default();
        for epoch in [1, 1, 2, 3] {
            assert!(history.push(EpochRange { epoch: LeaderEpoch(epoch), records: 1 }));
        }
        history.raise_start(3);
        let removed = Found::Removed { start: 3, below: LeaderEpoch(2) };
        assert_eq!(answer(&history, &asked(3, 5), 9), removed);
        assert_eq!(answer(&history, &asked(2, 1), 9), removed);
        let ranges = vec![EpochRange { epoch: LeaderEpoch(3), records: 1 }];
        let records = Found::Records { ranges, changes: Vec::new() };
        assert_eq!(answer(&history, &asked(3, 2), 9), records);
    }
}

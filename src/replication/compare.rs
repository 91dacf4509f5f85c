//! Comparing two logs: what is answered to a fetch, and where a log that diverges is cut.
//!
//! Pure functions over the epochs of one log. Must not know: members, roles.

use super::history::History;
use super::message::{Fetch, Found};
use super::rule::Rule;
use crate::record::LeaderEpoch;

/// What a log answers to a fetch, with at most `most` records.
pub(super) fn answer(history: &History, asked: &Fetch, most: u64) -> Found {
    if asked.from < history.start() {
        return Found::Removed { start: history.start(), below: below_start(history) };
    }
    let is_equal = match history.epoch_before(asked.from) {
        // At its start a log may not know the epoch of the record below, which is certainly below
        // the high watermark.
        Some(before) => asked.from == history.start() || before == asked.before,
        None => false,
    };
    if is_equal || (!Rule::NameEpoch.holds() && asked.from <= history.end()) {
        return Found::Records { ranges: history.ranges(asked.from, most), changes: Vec::new() };
    }
    let (epoch, end) = history.end_of(asked.before);
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

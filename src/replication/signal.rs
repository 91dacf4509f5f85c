//! `Signal`: what members say to each other beside the protocol: that they hear each other, and who
//! misses the leader.
//!
//! Owns: the kinds of signals. None of them changes a log or a promise, so one that is lost, repeated
//! or late costs time, and nothing else. Must not know: logs.

use serde::{Deserialize, Serialize};

use super::log_key::LogKey;
use super::membership::{GroupId, MemberRun};
use super::strict::Strict;
use crate::record::{LeaderEpoch, NodeId};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Signal {
    pub(crate) group: Option<GroupId>,
    pub(crate) from: MemberRun,
    pub(crate) to: NodeId,
    pub(crate) epoch: LeaderEpoch,
    pub(crate) sign: Sign,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Sign {
    /// Goes with each beat of the leader: the number of the beat, and what the leader has.
    Beating { round: u64, sums: Sums },
    /// The answer of a member that follows.
    Heard { round: u64 },
    /// The sender misses the leader, and would lead the epoch: does the receiver miss it too?
    Missing,
    /// It does, and has not promised the epoch.
    Missed,
    /// The leader gives up its leadership: the receiver is to lead the epoch.
    TakeOver,
}

/// The ends and the high watermarks of all logs (and what [`Strict`] says of them), each mixed with the name of its log and added up: logs
/// of which one has more and another one less are not taken for equal. A follower whose sums are the same, and
/// whose high watermarks are its ends, lacks nothing, so that a group that is idle exchanges nothing but
/// beats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Sums {
    ends: u64,
    watermarks: u64,
}

impl Sums {
    /// Those of nobody: a member that lacks nothing finds that it differs, too.
    pub(crate) fn of_nobody() -> Self {
        Self { ends: u64::MAX, watermarks: u64::MAX }
    }

    pub(crate) fn add(&mut self, log: LogKey, end: u64, watermark: u64, strict: Strict) {
        let log = match log {
            LogKey::Meta => 1,
            LogKey::Offsets => 2,
            LogKey::Partition { topic, partition } => {
                let [low, high] = halves(topic);
                mixed(mixed(low) ^ high) ^ u64::from(partition)
            }
        };
        let reached = mixed(mixed(mixed(log) ^ watermark) ^ strict.wanted);
        let reached = mixed(reached ^ strict.synced);
        self.ends = self.ends.wrapping_add(mixed(mixed(log) ^ end));
        self.watermarks = self.watermarks.wrapping_add(reached);
    }
}

fn halves(n: u128) -> [u64; 2] {
    let half = |n: u128| u64::try_from(n & u128::from(u64::MAX)).unwrap_or_default();
    [half(n), half(n >> 64)]
}

/// A number in which each bit depends on all bits of `n` (the last step of `SplitMix64`), the same for
/// all members.
fn mixed(n: u64) -> u64 {
    let n = n.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    n ^ (n >> 31)
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    /// A follower that has not heard that a producer waits for a sync, because the frame was lost, must
    /// not take itself for one that lacks nothing.
    // RED: src/replication/signal.rs
    //   - let reached = mixed(mixed(mixed(log) ^ watermark) ^ strict.wanted);
    //   + let reached = mixed(mixed(mixed(log) ^ watermark) ^ 0);
    // RED: src/replication/signal.rs
    //   - let reached = mixed(reached ^ strict.synced);
    #[test]
    fn sums_differ_if_anything_of_a_log_does() {
        let strict = |wanted, synced| Strict { wanted, synced };
        let logs = [
            (LogKey::Meta, 5, 4, strict(3, 2)),
            (LogKey::Offsets, 5, 4, strict(3, 2)),
            (LogKey::Meta, 6, 4, strict(3, 2)),
            (LogKey::Meta, 5, 5, strict(3, 2)),
            (LogKey::Meta, 5, 4, strict(4, 2)),
            (LogKey::Meta, 5, 4, strict(3, 3)),
            (LogKey::Meta, 5, 4, strict(2, 3)),
        ];
        let sums = logs.map(|(log, end, watermark, strict)| {
            let mut sums = Sums::default();
            sums.add(log, end, watermark, strict);
            sums
        });
        for (at, one) in sums.iter().enumerate() {
            assert!(!sums[..at].contains(one), "{:?}", logs[at]);
        }
    }
}

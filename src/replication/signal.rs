//! `Signal`: what members say to each other beside the protocol: that they hear each other, and who
//! misses the leader.
//!
//! Owns: the kinds of signals. None of them changes a log or a promise, so one that is lost, repeated
//! or late costs time, and nothing else. Must not know: logs.

use serde::{Deserialize, Serialize};

use super::membership::{GroupId, MemberRun};
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

/// The ends and the high watermarks of all logs, each added up. A follower whose sums are the same, and
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

    pub(crate) fn add(&mut self, end: u64, watermark: u64) {
        self.ends = self.ends.wrapping_add(end);
        self.watermarks = self.watermarks.wrapping_add(watermark);
    }
}

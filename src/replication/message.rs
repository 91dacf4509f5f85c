//! What members say to each other, as values.
//!
//! Owns: the kinds of messages and what each carries. The bytes of records are not in them: the
//! frame that carries an answer has them beside it. Must not know: how frames are encoded or sent.

use serde::{Deserialize, Serialize};

use std::collections::BTreeMap;

use super::history::EpochRange;
use super::log_key::LogKey;
use super::logs::MetaChange;
use super::membership::{DirectoryId, GroupId, MemberRun, Membership};
use super::strict::Strict;
use crate::record::{LeaderEpoch, NodeId};

/// A message, with what it is compared with before anything else is looked at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Envelope {
    /// That of the sender; `None` if it knows of none.
    pub(crate) group: Option<GroupId>,
    pub(crate) from: MemberRun,
    pub(crate) to: NodeId,
    pub(crate) epoch: LeaderEpoch,
    pub(crate) body: Body,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum Body {
    /// A candidate asks for a promise for its epoch.
    Ask(Ask),
    /// The promise: durable before it is sent.
    Promised(Promised),
    /// A greater epoch was promised, or `Ask` cannot be answered.
    Refused {
        promised: LeaderEpoch,
    },
    /// The leader leads.
    Beat,
    /// A follower asks the leader, or a candidate a member that promised, for the records after
    /// those that it has.
    Fetch(Fetch),
    Fetched(Fetched),
    /// A later run of the directory was noted than the one that the message is an answer to.
    Superseded {
        directory: DirectoryId,
        session: u64,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// By a member of a group. The membership is for members that have none yet, because they were
    /// named when the group was founded and have fetched nothing since.
    Lead(Membership),
    /// By a member of no group, which founds one if nobody has a membership.
    Found,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Promised {
    /// The run that asked.
    pub(crate) to: MemberRun,
    /// All logs of the member.
    pub(crate) logs: BTreeMap<LogKey, Summary>,
    /// It is a member of a group already.
    pub(crate) has_membership: bool,
}

/// What a promise says of a log. The greater (adopted, end) is the better choice.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub(crate) struct Summary {
    pub(crate) adopted: LeaderEpoch,
    pub(crate) end: u64,
    pub(crate) start: u64,
}

/// The state of the fetching member's log; an answer counts only while this is still its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Fetch {
    pub(crate) log: LogKey,
    /// The member's end.
    pub(crate) from: u64,
    /// The epoch of its last record. `None` if it has none: what lies below its end is below the high
    /// watermark then, so there is nothing to compare.
    pub(crate) before: Option<LeaderEpoch>,
    /// Its log has adopted the epoch of the envelope.
    pub(crate) adopted: bool,
    /// How far its log is synced; zero while its creation in `__meta` is not.
    pub(crate) synced: u64,
    /// How far it would miss nothing after what its durability level allows.
    pub(crate) held: u64,
    /// Where its log begins, which is noted durably.
    pub(crate) start: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Fetched {
    /// The run that asked, and what it asked.
    pub(crate) to: MemberRun,
    pub(crate) asked: Fetch,
    /// Where the answering log begins: what lies below is below the high watermark.
    pub(crate) start: u64,
    /// By a leader; `None` where a candidate fetches.
    pub(crate) led: Option<Led>,
    pub(crate) found: Found,
}

/// What the leader of an epoch says of one of its logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Led {
    /// Its end when its epoch began: a log that contains it up to there has adopted the epoch.
    pub(crate) began: u64,
    pub(crate) watermark: u64,
    pub(crate) end: u64,
    /// What producers wait for that are stricter than the topic.
    pub(crate) strict: Strict,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum Found {
    /// The logs are equal up to the asked offset; the records after it, possibly none.
    Records { ranges: Vec<EpochRange>, changes: Vec<(u64, MetaChange)> },
    /// They are not: the greatest epoch of the answering log up to the asked one, and its end.
    Diverges { epoch: LeaderEpoch, end: u64 },
    /// The answering log begins above the asked offset; the record below it had this epoch.
    Removed { start: u64, below: LeaderEpoch },
}

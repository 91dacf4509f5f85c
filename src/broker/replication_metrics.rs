//! What the metrics of a broker say of it as a member of a replicated group. Plain data.
//!
//! Owns: the names of the values. Must not know: how a member works.

use serde::Serialize;

use crate::record::{LeaderEpoch, NodeId};

/// What a member of a replicated group is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum Role {
    /// It leads: it takes appends, commits and administration, while it hears a majority.
    Leader,
    /// It asks the others for their promises, to lead.
    Candidate,
    /// It copies what a leader has, or waits for a leader.
    Follower,
    /// It copies, but counts for nothing: its directory is not the one that the group knows for its
    /// node. [`replace_member`](crate::ReplicationHandle::replace_member) admits it.
    Learner,
    /// It may have lost records that it had confirmed, with its power or to a damaged disk, and
    /// promises nothing until it has them again.
    Recovering,
}

/// The metrics of a broker as a member of a replicated group. Counters begin at zero when the broker is
/// opened; the other values are those of
/// [`ReplicationHandle::status`](crate::ReplicationHandle::status).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ReplicationMetrics {
    /// This member.
    pub me: NodeId,
    /// What it is.
    pub role: Role,
    /// The greatest epoch that it has promised.
    pub epoch: LeaderEpoch,
    /// Whether it leads, and what is appended can be acknowledged.
    pub may_write: bool,
    /// Whether it has failed, and does nothing any more until its broker is opened again.
    pub has_failed: bool,
    /// The members of the group, by node id.
    pub members: Vec<MemberMetrics>,
    /// Frames between this member and the others.
    pub frames: FrameMetrics,
    /// Leaderships that this member began.
    pub leaderships: u64,
    /// How often the elector called this member to lead.
    pub elections: u64,
    /// How often records that no majority had were cut off a log of this member.
    pub truncations: u64,
}

/// A member of the group, as another one sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MemberMetrics {
    /// Which member.
    pub id: NodeId,
    /// How many records it has yet to copy, over all logs. Only the leader knows it; elsewhere it is 0.
    pub lag_records: u64,
    /// About how many bytes these are.
    pub lag_bytes: u64,
}

/// Frames that a member exchanged with the others, and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct FrameMetrics {
    /// Frames that the transport took.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Frames that the transport refused, or panicked at.
    pub unsent: u64,
    /// Frames that arrived, and were taken; also those of which a message was dropped then: of
    /// another group, late, or with damaged records.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Frames that were given to the member, and were refused: from or for another one, nothing
    /// that a member says, or for lack of room. What
    /// [`Frame::from_bytes`](crate::Frame::from_bytes) refuses does not reach the member, and is
    /// not counted.
    pub refused: u64,
    /// Their bytes.
    pub refused_bytes: u64,
}

//! What a member shows of itself: its status, and the events of its life in the group. Plain data.

use std::ops::Range;
use std::time::Duration;

use serde::Serialize;

use super::member::LeadRefused;
pub use crate::broker::replication_metrics::Role;
use crate::error::Error;
use crate::log::replica::refusal::Failure;
use crate::record::{LeaderEpoch, NodeId, TopicPartition};
use crate::trace::{MemberChange, Outbox, note};

/// What a leader knows of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum MemberState {
    /// It counts for the majority.
    Voter,
    /// It counts for nothing: its directory is not the one that the group knows for its node.
    Learner,
    /// It may have lost records, and does not count until it has them again. Only a member says so
    /// of itself.
    Recovering,
    /// It was not heard for longer than the time-out.
    Unreachable,
}

/// A member, as another one sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MemberStatus {
    /// Which member.
    pub id: NodeId,
    /// What it is.
    pub state: MemberState,
    /// How many records it has yet to copy, over all logs. Only the leader knows it; elsewhere it is 0.
    pub lag_records: u64,
    /// About how many bytes these are, by the average size of the records of each log.
    pub lag_bytes: u64,
    /// How long ago it was heard, on the broker's monotonic clock. `None` if it was not in this run.
    pub last_heard: Option<Duration>,
}

/// The status of a member of a replicated group, as it was a moment ago. Returned by
/// [`ReplicationHandle::status`](crate::ReplicationHandle::status).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ReplicationStatus {
    /// This member.
    pub me: NodeId,
    /// What it is; a follower of nobody if it has failed.
    pub role: Role,
    /// The greatest epoch that it has promised; 0 before the first.
    pub epoch: LeaderEpoch,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// Whether it leads, hears a majority, and a majority has all that was there when its
    /// leadership began, in every partition: what is appended can be acknowledged, and readers see
    /// all that was acknowledged before.
    pub may_write: bool,
    /// The members of the group, by node id; those that are listed, until the group is founded.
    pub members: Vec<MemberStatus>,
    /// Whether the list that was given to [`Replication::new`](crate::Replication::new) differs from the
    /// group's. The group's is in force.
    pub list_differs: bool,
    /// How often an answer of a leader would have removed records that readers here have seen. It
    /// was refused. In a group whose members keep the rules this stays 0: something is wrong with a
    /// directory (put back from a copy?), or with this library.
    pub cuts_refused: u64,
    /// The member that this leader was asked to [replace](crate::ReplicationHandle::replace_member), and
    /// whose new directory does not count yet.
    pub replacing: Option<NodeId>,
    /// Why the member does nothing any more, until its broker is opened again.
    pub failure: Option<String>,
}

/// What has happened to a member since its run began.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    /// Leaderships that it began.
    pub(super) leaderships: u64,
    /// How often records were cut off a log.
    pub(super) truncations: u64,
    /// How often its elector called it to lead.
    pub(super) elections: u64,
}

/// What [`ReplicationHandle::force_lead`](crate::ReplicationHandle::force_lead) has given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ForcedLead {
    /// The epoch that this member leads.
    pub epoch: LeaderEpoch,
    /// The members that the group had besides: their directories do not count any more.
    pub given_up: Vec<NodeId>,
    /// Whether this member may have lost records that it had confirmed, with its power.
    pub was_recovering: bool,
    /// Where the logs end now. Records that a majority had above these offsets are lost.
    pub ends: Vec<(TopicPartition, u64)>,
}

/// What happens to a member. Each change is reported once.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ReplicationEvent {
    /// This member was given the leadership. Its records can be acknowledged from
    /// [`MayWrite`](Self::MayWrite) on.
    Leading {
        /// The epoch of the leadership.
        epoch: LeaderEpoch,
    },
    /// A majority has all that was there when the leadership began, in every partition: appends are
    /// acknowledged, and readers see all that was acknowledged before.
    MayWrite {
        /// The epoch of the leadership.
        epoch: LeaderEpoch,
    },
    /// This member copies from a leader.
    Following {
        /// The epoch of the leadership.
        epoch: LeaderEpoch,
        /// Who leads.
        leader: NodeId,
    },
    /// The leadership of this member has ended.
    LeadershipLost {
        /// The epoch of the leadership.
        epoch: LeaderEpoch,
    },
    /// This member leads, and hears too few members: it takes no appends until it hears them again.
    NoMajority,
    /// After [`NoMajority`](Self::NoMajority), in the same leadership: this member hears a majority again, and
    /// takes appends. They are acknowledged once [`MayWrite`](Self::MayWrite) was reported, if it was not
    /// yet.
    MajorityBack,
    /// The new directory of a member counts from now on. But until all members know that a majority
    /// has this change, a majority of the members before it is needed too: if another member is
    /// stopped within a fraction of a second, the group may have no leader until it is back. The
    /// [procedure](crate::docs::copies#procedures) says what to wait for.
    MemberJoined(NodeId),
    /// This member leads, and has not heard another one for longer than the time-out. In spite of its name
    /// the event says nothing about what that one has yet to copy:
    /// [`lag_records`](MemberStatus::lag_records) may be 0.
    MemberLagging(NodeId),
    /// After [`MemberLagging`](Self::MemberLagging), in the same leadership: that member is heard again, from
    /// the directory that counts for it.
    MemberBack(NodeId),
    /// Records that no majority had were removed from a log of this member.
    Truncated {
        /// Of which partition.
        partition: TopicPartition,
        /// Their offsets.
        range: Range<u64>,
    },
    /// A damaged log of this member is being copied again.
    Repaired {
        /// Of which partition.
        partition: TopicPartition,
        /// The offsets that it had.
        range: Range<u64>,
    },
    /// An answer of the leader would have removed records that readers here have seen, and was
    /// refused. Reported once for each partition and leader; see
    /// [`ReplicationStatus::cuts_refused`].
    CutRefused {
        /// Of which partition.
        partition: TopicPartition,
    },
    /// The member has failed: it does nothing any more until its broker is opened again. That its broker
    /// was closed is no failure.
    Failed(Error),
}

/// What a failure of a member is to callers.
pub(super) fn error_of(failure: &Failure) -> Error {
    match failure {
        Failure::Failed(error) => error.clone(),
        Failure::Refused(refusal) => Error::config("replication", format!("{refusal:?}")),
    }
}

/// The error of a call that is refused.
pub(super) fn refused(why: LeadRefused, epoch: LeaderEpoch) -> Error {
    let reason = match why {
        LeadRefused::Fenced { promised } => {
            return Error::Fenced { id: String::new(), epoch: epoch.0, current: promised.0 };
        }
        LeadRefused::TooFar { promised } => {
            return Error::config(
                "lead",
                format!("epoch {} lies too far above {}", epoch.0, promised.0),
            );
        }
        LeadRefused::Learner => {
            "this directory is not the one that the group knows for this member; `replace_member` \
             admits it"
        }
        LeadRefused::Recovering => {
            "this member may have lost records; it can lead once it has copied them from a leader"
        }
        LeadRefused::Damaged => {
            "a log of this member is damaged; it can lead once it has copied it from a leader"
        }
        LeadRefused::Heard => {
            let reason = "a leader is heard, so nothing was forced: one that has no majority can \
                          be forced itself, or stopped for longer than the time-out";
            return Error::config("force_lead", reason);
        }
    };
    Error::config("lead", reason)
}

/// Hands an event on to subscribers of events, if there may be any.
pub(super) fn note_event(trace: &Outbox, me: NodeId, event: &ReplicationEvent) {
    use MemberChange as Change;
    if !cfg!(feature = "tracing") {
        return;
    }
    let change = match event {
        ReplicationEvent::Leading { epoch } => Change::Leading(*epoch),
        ReplicationEvent::MayWrite { epoch } => Change::MayWrite(*epoch),
        ReplicationEvent::Following { epoch, leader } => Change::Following(*epoch, *leader),
        ReplicationEvent::LeadershipLost { epoch } => Change::LeadershipLost(*epoch),
        ReplicationEvent::NoMajority => Change::NoMajority,
        ReplicationEvent::MajorityBack => Change::MajorityBack,
        ReplicationEvent::MemberJoined(node) => Change::MemberJoined(*node),
        ReplicationEvent::MemberLagging(node) => Change::MemberLagging(*node),
        ReplicationEvent::MemberBack(node) => Change::MemberBack(*node),
        ReplicationEvent::Truncated { partition, range } => {
            Change::Truncated(partition.clone(), range.clone())
        }
        ReplicationEvent::Repaired { partition, range } => {
            Change::Repaired(partition.clone(), range.clone())
        }
        ReplicationEvent::CutRefused { partition } => Change::CutRefused(partition.clone()),
        ReplicationEvent::Failed(error) => Change::Failed(error.clone()),
    };
    note!(trace, Member { me, change });
}

#[cfg(test)]
#[cfg(feature = "tracing")]
mod tests;

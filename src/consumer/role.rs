//! The role of a consumer: a member of a group, a user of a group with partitions chosen by hand,
//! or a reader without a group.

use std::sync::Arc;

use crate::group::membership::Membership;
use crate::group::owners::OwnershipEpoch;
use crate::record::TopicPartition;

pub(super) enum Role {
    /// No group: nothing to commit to.
    Reader,
    /// Commits for a group, with partitions chosen by hand.
    Standalone(Arc<str>),
    Member(Membership),
}

impl Role {
    pub(super) fn group(&self) -> Option<&Arc<str>> {
        match self {
            Self::Reader => None,
            Self::Standalone(group) => Some(group),
            Self::Member(member) => Some(member.group()),
        }
    }

    pub(super) fn is_member(&self) -> bool {
        matches!(self, Self::Member(_))
    }

    /// Whether the group's plan asks something of this member.
    #[inline]
    pub(super) fn needs_attention(&self) -> bool {
        matches!(self, Self::Member(member) if member.needs_attention())
    }

    /// Says that this member is there.
    #[inline]
    pub(super) fn note_poll(&self) {
        if let Self::Member(member) = self {
            member.polls();
        }
    }

    /// Says that this member is there until it polls again.
    pub(super) fn note_wait(&self) {
        if let Self::Member(member) = self {
            member.waits();
        }
    }

    /// The ownership under which a member has a partition; `None` without a group.
    pub(super) fn epoch_of(&self, partition: &TopicPartition) -> Option<OwnershipEpoch> {
        match self {
            Self::Member(member) => member.epoch_of(partition),
            _ => None,
        }
    }
}

//! `Role`: what a member is at the moment.
//!
//! Owns: what belongs to each role alone. Must not know: notes, messages.

use super::candidate::Candidate;
use super::leader::Leader;
use super::membership::MemberRun;
use crate::record::LeaderEpoch;

/// Whom a follower follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Following {
    pub(crate) leader: MemberRun,
    pub(crate) epoch: LeaderEpoch,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    /// `None` while no leader of the promised epoch is known.
    Follower(Option<Following>),
    Candidate(Candidate),
    Leader(Leader),
}

impl Role {
    /// The epoch that this run leads.
    pub(crate) fn leads(&self) -> Option<LeaderEpoch> {
        match self {
            Self::Leader(leader) => Some(leader.epoch()),
            Self::Follower(_) | Self::Candidate(_) => None,
        }
    }

    /// The epoch that this run would lead.
    pub(crate) fn stands_for(&self) -> Option<LeaderEpoch> {
        match self {
            Self::Candidate(candidate) => Some(candidate.epoch()),
            Self::Follower(_) | Self::Leader(_) => None,
        }
    }

    /// The leader that this member follows, and its epoch.
    pub(crate) fn follows(&self) -> Option<Following> {
        match self {
            Self::Follower(known) => *known,
            Self::Candidate(_) | Self::Leader(_) => None,
        }
    }
}

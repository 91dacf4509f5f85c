//! `Shown`: what a member shows of itself, and which changes it has reported.
//!
//! Owns: the memory of what was reported, so that a state is reported once. Must not know: messages.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::log_key::LogKey;
use super::super::member::Member;
use super::super::membership::Membership;
use super::super::pulse::Pulse;
use super::super::role;
use super::super::status::{MemberState, MemberStatus, ReplicationEvent, ReplicationStatus, Role};
use super::super::view;
use crate::error::Error;
use crate::log::replica::refusal::Failure;
use crate::record::NodeId;

#[derive(Debug, Default)]
pub(super) struct Shown {
    /// A member whose new directory is to count when it has everything.
    pub(super) replacing: Option<NodeId>,
    lacks_majority: bool,
    lagging: BTreeSet<NodeId>,
    has_failed: bool,
}

impl Shown {
    pub(super) fn note(&mut self, event: &ReplicationEvent) {
        if let ReplicationEvent::Leading { .. } = event {
            self.lacks_majority = false;
            self.lagging.clear();
        }
    }

    pub(super) fn note_reach(&mut self, is_majority: bool, events: &mut Vec<ReplicationEvent>) {
        if !is_majority && !self.lacks_majority {
            events.push(ReplicationEvent::NoMajority);
        }
        self.lacks_majority = !is_majority;
    }

    pub(super) fn note_lagging(
        &mut self,
        me: NodeId,
        pulse: &Pulse,
        needed: &[(u64, Membership)],
        now: Duration,
        events: &mut Vec<ReplicationEvent>,
    ) {
        for node in needed.iter().flat_map(|(_, membership)| membership.nodes()) {
            if node == me || pulse.is_heard(node, now) {
                self.lagging.remove(&node);
            } else if self.lagging.insert(node) {
                events.push(ReplicationEvent::MemberLagging(node));
            }
        }
    }

    pub(super) fn note_failure(&mut self, failure: &Failure, events: &mut Vec<ReplicationEvent>) {
        if !self.has_failed {
            self.has_failed = true;
            events.push(ReplicationEvent::Failed(error_of(failure)));
        }
    }
}

/// What a member shows of itself.
pub(super) fn status(
    (member, failure): (&Member, Option<&Failure>),
    pulse: &Pulse,
    needed: &[(u64, Membership)],
    takes_appends: bool,
    now: Duration,
) -> ReplicationStatus {
    let state = member.state();
    let me = state.me().node;
    let leader = match member.role() {
        role::Role::Leader(_) => Some(me),
        other => other.follows().map(|following| following.leader.node),
    };
    let newest = needed.last().map(|(_, membership)| membership);
    let nodes: BTreeSet<NodeId> =
        newest.into_iter().flat_map(Membership::nodes).chain([me]).collect();
    let listed = Membership::of_listed(state.listed());
    let list_differs = newest.is_some_and(|newest| newest.nodes().ne(listed.nodes()));
    let of = |id: NodeId| status_of(id, member, pulse, now);
    ReplicationStatus {
        me,
        role: role_of(member),
        epoch: state.notes().promised(),
        leader,
        may_write: takes_appends && view::may_write(member, LogKey::Meta),
        members: nodes.into_iter().map(of).collect(),
        list_differs,
        failure: failure.map(|failure| error_of(failure).to_string()),
    }
}

fn status_of(id: NodeId, member: &Member, pulse: &Pulse, now: Duration) -> MemberStatus {
    let is_me = id == member.state().me().node;
    let (leads, follows) = (member.role().leads().is_some(), member.role().follows());
    let is_known = leads || follows.is_some_and(|known| known.leader.node == id);
    let state = if is_me {
        state_of(role_of(member))
    } else if is_known && !pulse.is_heard(id, now) {
        MemberState::Unreachable
    } else if leads && pulse.run(id).is_some_and(|run| !view::counts(member, run)) {
        MemberState::Learner
    } else {
        MemberState::Voter
    };
    MemberStatus {
        id,
        state,
        lag_records: 0,
        lag_bytes: 0,
        last_heard: pulse.last(id).map(|at| now.saturating_sub(at)),
    }
}

fn state_of(role: Role) -> MemberState {
    match role {
        Role::Leader | Role::Candidate | Role::Follower => MemberState::Voter,
        Role::Learner => MemberState::Learner,
        Role::Recovering => MemberState::Recovering,
    }
}

fn role_of(member: &Member) -> Role {
    let state = member.state();
    let is_named = |membership: &Membership| membership.names(state.me());
    match member.role() {
        role::Role::Leader(_) => Role::Leader,
        role::Role::Candidate(_) => Role::Candidate,
        role::Role::Follower(_) if state.logs().membership().is_some_and(|it| !is_named(it)) => {
            Role::Learner
        }
        role::Role::Follower(_) if state.must_recover() || state.logs().is_damaged() => {
            Role::Recovering
        }
        role::Role::Follower(_) => Role::Follower,
    }
}

fn error_of(failure: &Failure) -> Error {
    match failure {
        Failure::Failed(error) => error.clone(),
        Failure::Refused(refusal) => Error::config("replication", format!("{refusal:?}")),
    }
}

//! `Shown`: what a member shows of itself, and which changes it has reported.
//!
//! Owns: the memory of what was reported, so that a state is reported once. Must not know: messages.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::log_key::LogKey;
use super::super::member::Member;
use super::super::membership::Membership;
use super::super::pulse::Pulse;
use super::super::role;
use super::super::status::{
    Counts, MemberState, MemberStatus, ReplicationEvent, ReplicationStatus, Role, error_of,
};
use super::super::view;
use crate::error::Error;
use crate::log::replica::refusal::Failure;
use crate::record::{LeaderEpoch, NodeId};

#[derive(Debug, Default)]
pub(super) struct Shown {
    /// A member whose new directory is to count when it has everything.
    pub(super) replacing: Option<NodeId>,
    /// What has happened since the run began.
    pub(super) counts: Counts,
    /// The epoch of the leadership that was reported, until its end is.
    led: Option<LeaderEpoch>,
    /// When the last one began: who has not been heard since is not lagging yet.
    began: Duration,
    lacks_majority: bool,
    lagging: BTreeSet<NodeId>,
    has_failed: bool,
    /// How often a cut was refused, and of which logs that was reported since the last change of
    /// the leader.
    cuts_refused: u64,
    refused: BTreeSet<LogKey>,
    /// How many callers await that a majority has noted the start of a log.
    pub(super) awaited_starts: BTreeMap<LogKey, usize>,
}

impl Shown {
    pub(super) fn note(&mut self, event: &ReplicationEvent, now: Duration) {
        let Counts { leaderships, truncations, .. } = &mut self.counts;
        match event {
            ReplicationEvent::Leading { epoch } => {
                self.lacks_majority = false;
                self.lagging.clear();
                (self.led, self.began) = (Some(*epoch), now);
                *leaderships = leaderships.saturating_add(1);
            }
            ReplicationEvent::Following { .. } => self.refused.clear(),
            ReplicationEvent::LeadershipLost { .. } => self.led = None,
            ReplicationEvent::Truncated { .. } => *truncations = truncations.saturating_add(1),
            _ => {}
        }
    }

    /// A cut was refused. True the first time for that log under that leader.
    pub(super) fn note_refused(&mut self, log: LogKey) -> bool {
        self.cuts_refused = self.cuts_refused.saturating_add(1);
        self.refused.insert(log)
    }

    pub(super) fn cuts_refused(&self) -> u64 {
        self.cuts_refused
    }

    pub(super) fn note_reach(&mut self, is_majority: bool, events: &mut Vec<ReplicationEvent>) {
        match (self.lacks_majority, !is_majority) {
            (false, true) => events.push(ReplicationEvent::NoMajority),
            (true, false) => events.push(ReplicationEvent::MajorityBack),
            _ => {}
        }
        self.lacks_majority = !is_majority;
    }

    /// `members` are the newest ones: while the change is not settled that admits a new directory, the old
    /// one is silent.
    pub(super) fn note_lagging(
        &mut self,
        me: NodeId,
        pulse: &Pulse,
        members: &Membership,
        now: Duration,
        events: &mut Vec<ReplicationEvent>,
    ) {
        for (node, directory) in members.directories() {
            if node == me || pulse.hears(node, directory, now) {
                if self.lagging.remove(&node) {
                    events.push(ReplicationEvent::MemberBack(node));
                }
            } else if pulse.has_missed(self.began, now) && self.lagging.insert(node) {
                events.push(ReplicationEvent::MemberLagging(node));
            }
        }
    }

    pub(super) fn note_failure(&mut self, failure: &Failure, events: &mut Vec<ReplicationEvent>) {
        if !self.has_failed {
            self.has_failed = true;
            let led = self.led.take();
            events.extend(led.map(|epoch| ReplicationEvent::LeadershipLost { epoch }));
            events.extend(shown_failure(failure).map(ReplicationEvent::Failed));
        }
    }
}

/// A member whose broker is being closed does nothing any more either, but has not failed.
fn shown_failure(failure: &Failure) -> Option<Error> {
    Some(error_of(failure)).filter(|error| !matches!(error, Error::Closed))
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
    // One that has failed neither leads nor follows, whatever its state machine was about to do.
    let has_failed = failure.is_some();
    ReplicationStatus {
        me,
        role: if has_failed { Role::Follower } else { role_of(member) },
        epoch: state.notes().promised(),
        leader: leader.filter(|_| !has_failed),
        may_write: takes_appends && !has_failed && view::is_current(member),
        members: nodes.into_iter().map(of).collect(),
        list_differs,
        cuts_refused: 0,
        replacing: None,
        failure: failure.and_then(shown_failure).map(|error| error.to_string()),
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
    } else if leads && !is_voter(id, member, pulse, now) {
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

/// Whether the member is heard from the directory that counts for it.
fn is_voter(id: NodeId, member: &Member, pulse: &Pulse, now: Duration) -> bool {
    member.state().logs().membership().is_none_or(|membership| {
        let mut directories = membership.directories().filter(|(node, _)| *node == id);
        directories.any(|(node, directory)| pulse.hears(node, directory, now))
    })
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

//! What a candidate asks all members, and what a leader says to all.
//!
//! Functions over the state and the role of a member. Must not know: answers, and what follows from them.

use super::candidate::Candidate;
use super::log_key::LogKey;
use super::logs::Logs;
use super::membership::MemberRun;
use super::message::{Ask, Body};
use super::role::Role;
use super::state::{Effects, State};
use crate::record::LeaderEpoch;

/// Asks those who have not answered; `again`: also the others, who may have begun another run.
pub(super) fn ask(state: &State, role: &Role, again: bool, out: &mut Effects) {
    let Role::Candidate(candidate) = role else { return };
    let ask = match state.goes_by() {
        Some(membership) if !candidate.is_founding() => Ask::Lead(membership),
        _ => Ask::Found,
    };
    let nodes = state.others().into_iter();
    for node in nodes.filter(|node| again || !candidate.has_answer_of(*node)) {
        state.send(node, candidate.epoch(), Body::Ask(ask.clone()), out);
    }
}

/// The leader says to all that it leads.
pub(super) fn beat(state: &State, epoch: LeaderEpoch, out: &mut Effects) {
    for node in state.others() {
        state.send(node, epoch, Body::Beat, out);
    }
}

/// The logs for which the candidate has to fetch, and from whom: `__meta` alone before the others.
pub(super) fn lacking(logs: &Logs, candidate: &Candidate) -> Vec<(LogKey, MemberRun)> {
    if let Some(from) = candidate.to_fetch(LogKey::Meta) {
        return vec![(LogKey::Meta, from)];
    }
    logs.iter().filter_map(|(key, _)| Some((key, candidate.to_fetch(key)?))).collect()
}

//! What can be said of a member: questions that change nothing.
//!
//! Functions over a [`Member`]. Must not know: time, and who asks.

use super::log_key::LogKey;
use super::logs::Log;
use super::member::Member;
use super::membership::MemberRun;
use super::role::Role;
use crate::record::NodeId;

/// Whether it would be of use to call this member to lead.
pub(super) fn could_lead(member: &Member) -> bool {
    let state = member.state();
    match state.logs().membership() {
        Some(_) => state.could_promise(),
        None => !state.must_recover() && !state.logs().is_damaged(),
    }
}

/// Whether it leads, and readers here see all that was acknowledged before its epoch began, in each
/// log.
pub(super) fn is_current(member: &Member) -> bool {
    matches!(member.role(), Role::Leader(leader) if leader.is_current())
}

/// The start of a log that a majority has noted; `None` if this member does not lead, or does not know of a
/// majority.
pub(super) fn noted_start(member: &Member, key: LogKey) -> Option<u64> {
    let Role::Leader(leader) = member.role() else { return None };
    let state = member.state();
    let own = state.logs().get(key)?.history.start();
    leader.noted_start(key, state.me(), own, &state.needed())
}

/// Whether this leader knows that another member that counts has noted where a log begins.
pub(super) fn has_noted_start(member: &Member, key: LogKey, node: NodeId) -> bool {
    let (Role::Leader(leader), state) = (member.role(), member.state()) else { return true };
    let start = state.logs().get(key).map_or(0, |log| log.history.start());
    leader.has_noted(key, node, start, &state.needed())
}

/// How many records another member has copied from this leader, over all logs.
pub(super) fn copied_by(member: &Member, node: NodeId) -> u64 {
    let Role::Leader(leader) = member.role() else { return 0 };
    let copied = member.state().logs().iter().map(|(key, _)| leader.copied(key, node));
    copied.fold(0, u64::saturating_add)
}

/// How many records another member has yet to copy from this leader, of each log that it lacks some of.
pub(super) fn lag_of(member: &Member, node: NodeId) -> Vec<(LogKey, u64)> {
    let Role::Leader(leader) = member.role() else { return Vec::new() };
    if node == member.state().me().node {
        return Vec::new();
    }
    let lag = |(key, log): (LogKey, &Log)| {
        (key, log.end().saturating_sub(leader.copied(key, node).max(log.history.start())))
    };
    member.state().logs().iter().map(lag).filter(|(_, records)| *records > 0).collect()
}

/// Whether this follower has adopted its leader's epoch in all logs, and all that they have is below the
/// high watermarks, and no producer waits for a sync. Otherwise the leader may not have got what it said
/// last. One that has found damage has not asked yet for what it is to copy again; and one that recovers
/// needs an answer about each log.
pub(super) fn is_settled(member: &Member) -> bool {
    let (state, epoch) = (member.state(), member.state().notes().promised());
    // `__meta` is not copied again.
    let is_damaged = |key, log: &Log| log.damaged && key != LogKey::Meta;
    let is_equal = |key, log: &Log| log.watermark == log.end() && state.adopted(key) == epoch;
    let is_settled = |(key, log): (LogKey, &Log)| {
        is_equal(key, log) && !is_damaged(key, log) && !log.strict.is_open()
    };
    !state.notes().is_recovering() && state.logs().iter().all(is_settled)
}

/// Whether the membership that this member goes by names the directory of a run.
pub(super) fn counts(member: &Member, run: MemberRun) -> bool {
    member.state().logs().membership().is_none_or(|membership| membership.names(run))
}

//! Whether a message may count at all, by who sent it, before anything of it is looked at.
//!
//! Functions over a [`State`]. Must not know: roles, and what a message says of logs.

use super::membership::{GroupId, MemberRun};
use super::message::{Ask, Body, Envelope};
use super::notes::Note;
use super::rule::Rule;
use super::session;
use super::state::{Effects, State};

/// Whether it is a message of another member of this group to this one.
pub(super) fn is_for(state: &State, message: &Envelope) -> bool {
    let me = state.me().node;
    message.to == me && message.from.node != me && is_of_group(state.logs().group(), message)
}

/// Whether a message may be meant for this group: who leads, or asks to, knows it. (A member that lost
/// the membership with its power does not, and a candidate may need what it has.)
fn is_of_group(own: Option<GroupId>, message: &Envelope) -> bool {
    match (own, message.group) {
        (Some(own), Some(theirs)) => theirs == own,
        (None, _) => true,
        (Some(_), None) => !matches!(&message.body, Body::Beat | Body::Ask(Ask::Lead(_))),
    }
}

/// Whether it is that, and what its sender says may count: for what is kept beside the state of a member.
pub(super) fn is_of_member(state: &State, message: &Envelope) -> bool {
    let MemberRun { node, directory, session } = message.from;
    let is_stale = session::is_stale(session, state.notes().seen(directory));
    is_for(state, message) && state.others().contains(&node) && !is_stale
}

/// Whether what a run says may count. A later one than was noted of its directory is noted before
/// it does. An earlier one is late, or the directory was put back from a copy; another one of the same
/// number is of a copy. Its member is informed.
pub(super) fn is_latest(state: &mut State, message: &Envelope, out: &mut Effects) -> bool {
    let MemberRun { node, directory, session } = message.from;
    let noted = state.notes().seen(directory);
    if session::is_stale(session, noted) && Rule::NewestSession.holds() {
        let body = Body::Superseded { directory, session: noted };
        state.send(node, message.epoch, body, out);
        return false;
    }
    // No run is earlier than the first.
    let is_later = session::number(session) > session::number(noted).max(1);
    if is_later && state.logs().needed().iter().any(|(_, it)| it.names(message.from)) {
        state.note(Note::Seen { directory, session }, out);
    }
    true
}

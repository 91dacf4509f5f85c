//! What the engine hears of who leads.
//!
//! Functions over a broker. Must not know: why a leadership ends.

use super::super::member::Member;
use super::Catalog;
use crate::broker::Broker;
use crate::record::LeaderEpoch;

/// Nothing is appended in the epoch any more on return. Calls that wait for a majority return before
/// anything else is done: they may hold what that needs.
pub(super) fn end_leadership<C: Catalog>((broker, catalog): (&Broker, &C), epoch: LeaderEpoch) {
    broker.run().leading().end(epoch.0);
    catalog.follow();
}

/// The errors of refused calls name the leader.
pub(super) fn note_leader(broker: &Broker, member: &Member) {
    let Some(leadership) = &broker.run().context().leadership else { return };
    let me = member.role().leads().map(|_| member.state().me().node);
    leadership.note_leader(me.or_else(|| member.role().follows().map(|it| it.leader.node)));
}

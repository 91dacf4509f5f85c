//! Goal: what members report is what has happened, once; and what is refused changes nothing.
//!
//! Method: the group of the tests beside this file.

use super::super::super::status::error_of;
use super::*;

/// A member that still took frames while its broker was being closed reported that as a failure.
// RED: src/replication/driver/shown.rs
//   - Some(error_of(failure)).filter(|error| !matches!(error, Error::Closed))
//   + Some(error_of(failure))
// RED: src/replication/shell.rs
//   - leadership.note_leader(None);
#[test]
fn a_broker_that_is_closed_has_not_failed() {
    for closed in [0, 1] {
        let mut group = Group::led(false);
        group.brokers[closed].clone().close().unwrap();
        group.members[1 - closed].resign(None, group.now);
        group.members[2].lead(LeaderEpoch(2), group.now).unwrap();
        for _ in 0..3 {
            group.pass(HEARTBEAT, |_| true);
        }
        let failure = group.members[closed].shell.failure().map(error_of);
        assert!(matches!(failure, Some(Error::Closed)), "{failure:?}");
        let failed = |event: &ReplicationEvent| matches!(event, ReplicationEvent::Failed(_));
        assert!(!group.events[closed].iter().any(failed), "{:?}", group.events[closed]);
        assert_eq!(group.status(closed).failure, None);
        let refused = group.members[closed].leadership.check();
        assert!(matches!(refused, Err(Error::NotLeader { leader: None })), "{refused:?}");
    }
}

/// The call succeeded, waited for a directory that would never come, and kept all others from being
/// replaced.
// RED: src/replication/driver.rs
//   - return Replacing::Counts;
// RED: src/replication/driver.rs
//   - other.filter(|other| !is_present(self, *other, now))
//   + other
// RED: src/replication/pulse.rs
//   - self.hears(node, directory, now) && at == self.last(node)
//   + self.hears(node, directory, now)
#[test]
fn a_member_whose_directory_counts_and_is_heard_is_not_replaced() {
    let mut group = Group::led(false);
    for node in [0, 1, 2].map(NodeId) {
        assert_eq!(group.members[0].replace(node, group.now), Replacing::Counts);
        assert_eq!(group.status(0).replacing, None);
    }
    // Two are silent. One of them comes back with its directory: it keeps nobody from being replaced.
    for _ in 0..6 {
        group.pass(HEARTBEAT, |_| false);
    }
    for _ in 0..2 {
        assert_eq!(group.members[0].replace(NodeId(1), group.now), Replacing::Begun);
    }
    assert_eq!(group.status(0).replacing, Some(NodeId(1)));
    let refused = group.members[0].replace(NodeId(2), group.now);
    assert_eq!(refused, Replacing::Another(NodeId(1)));
    let without_the_third = |said: &Said| said.from() != NodeId(2) && said.to() != NodeId(2);
    group.pass(HEARTBEAT, without_the_third);
    assert_eq!(group.members[0].replace(NodeId(2), group.now), Replacing::Begun);
    group.members[2] = open(2, 77, false);
    for _ in 0..5 {
        group.pass(HEARTBEAT, |_| true);
    }
    assert_eq!((group.status(2).role, group.status(0).replacing), (Shown::Follower, None));

    // It has just been heard from the directory that is lost.
    group.members[1] = open(1, 88, false);
    group.pass(HEARTBEAT / 2, |_| true);
    group.pass(HEARTBEAT / 2, |_| true);
    assert_eq!(group.members[0].replace(NodeId(1), group.now), Replacing::Begun);
}

/// It began a group of its own, at a member whose leader was well, and that leader lost a member.
// RED: src/replication/driver.rs
//   - return Err(LeadRefused::Heard);
#[test]
fn nothing_is_forced_while_a_leader_is_heard() {
    let mut group = Group::led(false);
    let force = |group: &mut Group, index: usize| {
        let forced = group.members[index].force_lead(LeaderEpoch(9), GroupId(9), group.now);
        forced.map(|forced| forced.given_up.len())
    };
    for index in 0..3 {
        assert_eq!(force(&mut group, index), Err(LeadRefused::Heard));
        assert_eq!(group.status(index).epoch, LeaderEpoch(1));
    }
    // A follower whose leader is silent, and a leader that hears nobody.
    for index in [1, 0] {
        let mut group = Group::led(false);
        for _ in 0..6 {
            group.pass(HEARTBEAT, |_| false);
        }
        assert_eq!(force(&mut group, index), Ok(2));
        assert_eq!(group.status(index).role, Shown::Leader);
        assert_eq!(force(&mut group, index), Err(LeadRefused::Heard), "it leads a group of one");
    }
}

/// Nothing said that an outage was over.
// RED: src/replication/driver/shown.rs
//   - (true, false) => events.push(ReplicationEvent::MajorityBack),
// RED: src/replication/driver/shown.rs
//   - events.push(ReplicationEvent::MemberBack(node));
#[test]
fn the_end_of_an_outage_is_reported_once() {
    let mut group = Group::led(false);
    group.events[0].clear();
    for _ in 0..2 {
        for hears in [false, true] {
            for _ in 0..8 {
                group.pass(HEARTBEAT, |_| hears);
            }
        }
    }
    let events: Vec<String> = group.events[0].iter().map(|event| format!("{event:?}")).collect();
    let lost = ["NoMajority", "MemberLagging(1)", "MemberLagging(2)"];
    let back = ["MajorityBack", "MemberBack(1)", "MemberBack(2)"];
    let ids = |text: &String| text.replace("NodeId(", "").replace("))", ")");
    let events: Vec<String> = events.iter().map(ids).collect();
    assert_eq!(events, [lost, back, lost, back].concat());
    // A new leadership begins anew.
    for _ in 0..6 {
        group.pass(HEARTBEAT, |_| false);
    }
    group.events[0].clear();
    group.members[0].lead(LeaderEpoch(2), group.now).unwrap();
    for _ in 0..6 {
        group.pass(HEARTBEAT, |_| true);
    }
    let back = |event: &ReplicationEvent| {
        matches!(event, ReplicationEvent::MajorityBack | ReplicationEvent::MemberBack(_))
    };
    assert!(!group.events[0].iter().any(back), "{:?}", group.events[0]);
}

/// A new leader reported members that it had not heard yet; and while the change was not settled that
/// admits a new directory, each tick reported the member whose old one is lost.
// RED: src/replication/driver/shown.rs
//   - pulse.has_missed(self.began, now) &&
// RED: src/replication/driver.rs
//   - needed.last()
//   + needed.first()
#[test]
fn a_member_lags_after_the_time_out_and_is_reported_once() {
    let lagging = |group: &Group, index: usize| {
        let lags = |event: &&ReplicationEvent| matches!(event, ReplicationEvent::MemberLagging(_));
        group.events[index].iter().filter(lags).count()
    };
    let mut group = Group::led(false);
    let without_the_third = |said: &Said| said.from() != NodeId(2) && said.to() != NodeId(2);
    group.members[1].lead(LeaderEpoch(2), group.now).unwrap();
    group.exchange(without_the_third);
    for beats in 1..8 {
        group.pass(HEARTBEAT, without_the_third);
        assert_eq!(lagging(&group, 1), usize::from(beats >= 5), "{beats}");
    }

    // The third comes back with another directory. The first is cut off, so the change does not settle.
    group.members[2] = open(2, 77, false);
    for _ in 0..3 {
        group.pass(HEARTBEAT, |_| true);
    }
    group.events[1].clear();
    let without_the_first = |said: &Said| said.from() != NodeId(0) && said.to() != NodeId(0);
    assert_eq!(group.members[1].replace(NodeId(2), group.now), Replacing::Begun);
    for _ in 0..3 {
        group.pass(HEARTBEAT, without_the_first);
    }
    assert_eq!(group.status(1).members.len(), 3);
    let joined = |event: &ReplicationEvent| matches!(event, ReplicationEvent::MemberJoined(_));
    let back = |event: &&ReplicationEvent| matches!(event, ReplicationEvent::MemberBack(_));
    assert!(group.events[1].iter().any(joined), "{:?}", group.events[1]);
    assert_eq!(group.events[1].iter().filter(back).count(), 1, "{:?}", group.events[1]);
    assert_eq!(lagging(&group, 1), 0, "{:?}", group.events[1]);
}

//! Goal: rows H of docs/failures.md, as far as they need no records and no disk: each in a world that is
//! small enough for every run.

use super::super::effect::{Effect, Event};
use super::super::history::EpochRange;
use super::super::log_key::LogKey;
use super::super::logs::{Logs, MetaChange};
use super::super::member::{LeadRefused, Member};
use super::super::membership::{GroupId, Membership};
use super::super::message::{Body, Envelope, Fetch, Fetched, Found, Led, Promised};
use super::super::notes::Notes;
use super::super::strict::Strict;
use super::node::Message;
use super::search::Search;
use super::world::{World, settle};
use super::{META, in_turns, once_each};
use crate::record::{LeaderEpoch, NodeId};

/// No state of the world loses anything; all of it is searched.
fn holds(world: &World) {
    let found = Search::new(world).run_whole(400_000);
    assert!(found.violation.is_none(), "{:#?}", found.violation);
    assert!(found.is_complete, "more states than expected");
}

/// As far as that many states show, in the order of their steps.
fn holds_within(world: &World, states: usize) {
    let found = Search::new(world).run(states);
    assert!(found.violation.is_none(), "{:#?}", found.violation);
}

fn two_leaders() -> World {
    World { leads: vec![(0, 1), (1, 2)], writes: vec![(1, META), (2, META)], ..World::default() }
}

/// A repeated "cut to 0" came when the follower had cut, adopted and copied a record that was counted.
// RED: src/replication/member.rs
//   - let is_current = asked == question || !Rule::AnswerAsked.holds();
//   + let is_current = true;
#[test]
fn row_h01_messages_are_lost_late_repeated_and_reordered() {
    holds_within(&World { keeps_late: true, ..two_leaders() }, 60_000);
}

/// It writes on; nobody follows it, so its high watermark stays.
// RED: src/replication/leader.rs
//   - needed.iter().map(|(_, membership)| membership.reached(held)).min().flatten()
//   + held(me.node, me.directory)
#[test]
fn row_h02_a_leader_without_a_majority_makes_nothing_visible() {
    holds(&two_leaders());
}

// RED: src/replication/member.rs
//   - if epoch < promised && Rule::TakeNothing.holds() {
//   + if false {
#[test]
fn row_h03_a_leader_of_an_earlier_epoch_comes_back() {
    holds_within(&World { keeps_late: true, ..two_leaders() }, 60_000);
}

// RED: src/replication/compare.rs
//   - (Some(own), Some(theirs)) => own == theirs,
//   + (Some(_), Some(_)) => true,
#[test]
fn row_h04_logs_diverge_after_three_leaders() {
    let leads = vec![(0, 1), (1, 2), (2, 3)];
    holds_within(
        &World { epochs: 3, leads, writes: vec![(1, META), (2, META)], ..World::default() },
        60_000,
    );
}

/// A member with three records below the high watermark, the last of epoch 1.
fn follower() -> Member {
    let me = World::run(0);
    let mut logs = Logs::default();
    let range = EpochRange { epoch: LeaderEpoch(1), records: 3 };
    let membership =
        Membership::new(GroupId(0), (0..3).map(|node| (NodeId(node), World::run(0).directory)));
    let first = EpochRange { epoch: LeaderEpoch(0), records: 1 };
    assert!(logs.append(LogKey::Meta, &[first], &[(0, MetaChange::Members(membership))]));
    assert!(logs.append(LogKey::Offsets, &[range], &[]));
    Member::new(Notes::new(me), logs, (0..3).map(NodeId).collect())
}

// RED: src/replication/state.rs
//   - if is_adopted || to < log.watermark || to < log.history.start() {
//   + if is_adopted || to < log.history.start() {
// RED: src/replication/state.rs
//   - let is_adopted = self.adopted(key) == epoch && Rule::AnswerAsked.holds();
//   + let is_adopted = false;
#[test]
fn row_h06_a_cut_below_the_high_watermark_is_refused_and_reported() {
    let mut member = follower();
    let leader = World::run(1);
    let (group, to, epoch) = (Some(GroupId(0)), NodeId(0), LeaderEpoch(2));
    let from = |body| Envelope { group, from: leader, to, epoch, body };
    member.receive(&from(Body::Beat));
    let asked = Fetch {
        log: LogKey::Offsets,
        from: 3,
        before: Some(LeaderEpoch(1)),
        adopted: false,
        synced: 0,
        held: 3,
        start: 0,
    };
    let to = member.state().me();
    let answer = |watermark, began, found| {
        let led = Some(Led { began, watermark, end: 5, strict: Strict::default() });
        from(Body::Fetched(Fetched { to, asked, start: 0, led, found }))
    };
    let none = Found::Records { ranges: Vec::new(), changes: Vec::new() };
    let effects = member.receive(&answer(2, 5, none));
    assert!(effects.contains(&Effect::Watermark { log: LogKey::Offsets, offset: 2 }));
    let before = member.clone();
    let diverges = Found::Diverges { epoch: LeaderEpoch(1), end: 1 };
    let effects = member.receive(&answer(2, 5, diverges));
    assert_eq!(effects, [Effect::Event(Event::CutRefused(LogKey::Offsets))]);
    assert_eq!(member, before);
    let diverges = Found::Diverges { epoch: LeaderEpoch(1), end: 2 };
    let effects = member.clone().receive(&answer(2, 5, diverges.clone()));
    assert_eq!(effects.first(), Some(&Effect::Truncate { log: LogKey::Offsets, to: 2 }));

    // Once it has adopted the epoch, not even above.
    let none = Found::Records { ranges: Vec::new(), changes: Vec::new() };
    member.receive(&answer(2, 3, none));
    assert_eq!(member.state().adopted(LogKey::Offsets), LeaderEpoch(2));
    let asked = Fetch { adopted: true, ..asked };
    let led = Some(Led { began: 3, watermark: 2, end: 5, strict: Strict::default() });
    let body = Body::Fetched(Fetched { to, asked, start: 0, led, found: diverges });
    let effects = member.receive(&from(body));
    assert_eq!(effects, [Effect::Event(Event::CutRefused(LogKey::Offsets))]);
}

/// A reader that waits at a follower keeps what it has seen when another one leads, which may know
/// less at first. Also the simulation checks each run.
// RED: src/replication/logs.rs
//   - let Some(log) = self.of.get_mut(&key).filter(|log| log.watermark < watermark) else {
//   + let Some(log) = self.of.get_mut(&key) else {
#[test]
fn row_h07_the_high_watermark_of_a_run_never_falls() {
    let mut member = follower();
    let to = member.state().me();
    for (leader, epoch, watermark) in [(1, 2, 3), (2, 3, 1), (1, 4, 2)] {
        let (leader, epoch) = (World::run(leader), LeaderEpoch(epoch));
        let (group, node) = (Some(GroupId(0)), NodeId(0));
        let from = |body| Envelope { group, from: leader, to: node, epoch, body };
        member.receive(&from(Body::Beat));
        let asked = member.state().question(epoch, LogKey::Offsets).unwrap();
        let led = Some(Led { began: 3, watermark, end: 3, strict: Strict::default() });
        let found = Found::Records { ranges: Vec::new(), changes: Vec::new() };
        let effects =
            member.receive(&from(Body::Fetched(Fetched { to, asked, start: 0, led, found })));
        let rises = Effect::Watermark { log: LogKey::Offsets, offset: 3 };
        let shown: Vec<_> =
            effects.into_iter().filter(|it| matches!(it, Effect::Watermark { .. })).collect();
        assert_eq!(shown, if watermark == 3 { vec![rises] } else { Vec::new() });
        assert_eq!(member.state().logs().get(LogKey::Offsets).map(|log| log.watermark), Some(3));
    }
}

/// A change of the leader writes nothing into a log.
// IMPOSSIBLE: no line of the engine writes at a change of the leader; a line would have to be added.
#[test]
fn row_h09_two_leaderships_without_a_record_change_no_log() {
    let mut nodes = World::default().begin();
    for (leader, epoch) in [(0, 1), (1, 2), (0, 3), (2, 4)] {
        let step = nodes[leader].lead(LeaderEpoch(epoch)).unwrap();
        settle(&mut nodes, step, |_| true);
        assert_eq!(nodes[leader].member.role().leads(), Some(LeaderEpoch(epoch)));
    }
    for node in &nodes {
        assert_eq!(node.records, World::default().begin()[0].records);
        assert_eq!(node.disk.adopted(LogKey::Meta), LeaderEpoch(4));
    }
}

/// The leader acknowledged with another member; then the third, which has nothing, is called.
// RED: src/replication/candidate.rs
//   - from.filter(|_| Rule::FetchFirst.holds() && self.equal.get(&log) != Some(&chosen))
//   + from.filter(|_| false)
// RED: src/replication/candidate.rs
//   - let is_confirmed = self.has_majorities(by) || !Rule::ConfirmingRound.holds();
//   + let is_confirmed = true;
#[test]
fn row_h10_the_member_that_lags_most_is_called_to_lead() {
    holds(&World { writes: vec![(1, META)], ..once_each() });
}

// RED: src/replication/member.rs
//   - let repeats = before == Some(promise)
//   + let repeats = before.is_some_and(|known| known.epoch == promise.epoch)
#[test]
fn row_h11_an_epoch_is_led_once() {
    holds(&World { epochs: 1, leads_twice: true, keeps_late: true, ..World::default() });
    let mut nodes = World::default().begin();
    assert!(nodes[0].lead(LeaderEpoch(5)).is_some());
    for old in 0..=5 {
        let refused = nodes[0].member.lead(LeaderEpoch(old));
        assert_eq!(refused, Err(LeadRefused::Fenced { promised: LeaderEpoch(5) }));
    }
}

/// Raft, figure 8: a record of an old epoch reaches a majority under a later leader, and is lost to
/// one whose log has a record of an epoch in between.
// RED: src/replication/leader.rs
//   - let counts = asked.adopted || !Rule::CountAdopted.holds();
//   + let counts = true;
#[test]
fn row_h12_records_of_an_old_epoch_do_not_count_before_the_new_one_is_adopted() {
    let writes = vec![(1, META), (1, META), (2, META)];
    holds_within(&World { writes, ..in_turns() }, 60_000);
}

/// It has another directory id, so it counts for nothing.
// RED: src/replication/state.rs
//   - theirs.names(self.me()) && !self.is_foreign()
//   + true
#[test]
fn row_h13_a_member_comes_back_with_an_empty_directory() {
    let world = World::default();
    let mut nodes = world.begin();
    let step = nodes[0].lead(LeaderEpoch(1)).unwrap();
    settle(&mut nodes, step, |to| to != 1);
    let step = nodes[0].append(LogKey::Meta, None).unwrap();
    settle(&mut nodes, step, |to| to != 1);
    nodes[2] = world.wiped(&nodes[2]);
    let asks = nodes[1].lead(LeaderEpoch(2)).unwrap();
    let answers = nodes[2].receive(&asks.sends[1]).sends;
    assert!(answers.is_empty(), "it refuses, and refusals are left out here: {answers:?}");

    // Even if it promised, the promise of another directory would not count.
    let promised = Promised {
        to: nodes[1].member.state().me(),
        logs: nodes[2].member.state().summaries(),
        has_membership: false,
    };
    let (from, epoch) = (nodes[2].member.state().me(), LeaderEpoch(2));
    let envelope =
        Envelope { group: None, from, to: NodeId(1), epoch, body: Body::Promised(promised) };
    nodes[1].receive(&Message { envelope, records: Vec::new() });
    assert_eq!(nodes[1].member.role().leads(), None);
}

/// What it had confirmed may be missing: it promises nothing until a leader has given it back.
// RED: src/replication/state.rs
//   - if self.must_recover() && Rule::RecoveringPromisesNothing.holds() {
//   + if false {
#[test]
fn row_h14_a_minority_loses_power_at_os() {
    holds_within(&World { power_cuts: 1, writes: vec![(1, META)], ..once_each() }, 60_000);
}

/// Between a membership and the one before it, both count.
// RED: src/replication/membership.rs
//   - let first = below.max(self.settled).saturating_sub(1);
//   + let first = self.records.len().saturating_sub(1);
#[test]
fn row_h20_a_change_of_membership_is_interrupted() {
    let leads = vec![(1, 2), (2, 2)];
    holds_within(&World { is_replacing: true, appends: 1, leads, ..World::default() }, 30_000);
}

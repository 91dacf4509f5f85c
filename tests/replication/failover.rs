//! Leaders that die, are cut off, or give way.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use logpond::{
    Acks, Election, Error, LeaderEpoch, MemberState, NodeId, Record, ReplicationEvent, Role,
    StartAt, TopicConfig, TopicPartition,
};

use crate::group::{Group, NODES, PATIENCE, read_all, until};

const QUICK: Election = Election { timeout: Duration::from_millis(150) };

fn send(group: &Group, node: NodeId, value: &str) -> u64 {
    let sent =
        until(|| match group.broker(node).producer().send(Record::to("orders").value(value)) {
            Ok(sent) => Some(sent.offset),
            Err(error) if error.is_retriable() && error.is_definite() => None,
            Err(error) => panic!("{error:?}"),
        });
    sent.unwrap()
}

#[test]
fn members_elect_a_leader_and_another_one_when_it_dies() {
    let mut group = Group::new(Some(QUICK));
    let mut sent = Vec::new();
    let first = group.leader();
    group.broker(first).ensure_topic("orders", TopicConfig::new(1)).unwrap();
    for round in 0..3 {
        let leader = group.leader();
        for number in 0..10 {
            let value = format!("{round} {number}");
            sent.push((send(&group, leader, &value), value));
        }
        group.stop(leader);
        let next = group.leader();
        assert_ne!(next, leader);
        send(&group, next, "between");
        group.start(leader);
    }
    let leader = group.leader();
    let all = read_all(group.broker(leader), "orders");
    for (offset, value) in sent {
        let offset = usize::try_from(offset).unwrap();
        assert_eq!(all.get(offset), Some(&value), "at {offset}");
    }
    for node in NODES {
        let same = until(|| (read_all(group.broker(node), "orders") == all).then_some(()));
        assert!(same.is_some(), "{node}");
    }
}

/// A member and the others.
fn others_of(one: NodeId) -> [NodeId; 3] {
    let mut others = NODES.into_iter().filter(|node| *node != one);
    [one, others.next().unwrap(), others.next().unwrap()]
}

/// Without an elector the application numbers the epochs, and says who leads.
#[test]
fn without_an_elector_nobody_leads_after_a_leader_has_resigned() {
    let group = Group::led();
    let [a, b, c] = NODES;
    for node in [a, NodeId(9)] {
        let refused = group.member(a).resign(Some(node));
        assert!(matches!(refused, Err(Error::Config(_))), "{refused:?}");
    }
    group.network.cut(c);
    let is_missed = || {
        let members = group.member(a).status().members;
        members.iter().any(|it| it.id == c && it.state == MemberState::Unreachable)
    };
    assert!(until(|| is_missed().then_some(())).is_some());
    let refused = group.member(a).resign(Some(c));
    assert!(matches!(refused, Err(Error::Config(_))), "{refused:?}");
    assert_eq!(group.role(a), Role::Leader);
    group.network.heal();
    group.member(a).resign(Some(b)).unwrap();
    assert_eq!(group.role(a), Role::Follower);
    group.lead(b, 2);
    assert_eq!(group.member(b).status().epoch, LeaderEpoch(2));
}

#[test]
fn a_leader_gives_way_to_the_member_that_is_named() {
    let group = Group::new(Some(QUICK));
    let [a, b, c] = others_of(group.leader());
    group.broker(a).ensure_topic("orders", TopicConfig::new(1)).unwrap();
    send(&group, a, "one");
    let named = until(|| group.member(a).resign(Some(c)).ok());
    assert!(named.is_some());
    group.member(c).wait_leading(Duration::from_secs(10)).unwrap();
    send(&group, c, "two");
    let refused = group.broker(a).producer().send(Record::to("orders").value("x"));
    assert!(matches!(refused, Err(Error::NotLeader { .. })), "{refused:?}");
    assert!(until(|| (group.member(b).status().leader == Some(c)).then_some(())).is_some());
    // To anybody: the one that has most.
    group.member(c).resign(None).unwrap();
    let next = group.leader();
    assert_ne!(next, c);
    send(&group, next, "three");
    assert_eq!(read_all(group.broker(next), "orders"), ["one", "two", "three"]);
}

/// A leader that was cut off does not know yet that another one leads.
#[test]
fn of_two_that_lead_only_one_acknowledges() {
    let group = Group::led();
    let [a, b, _] = NODES;
    group.broker(a).ensure_topic("orders", TopicConfig::new(1)).unwrap();
    send(&group, a, "one");
    group.network.cut(a);
    let lost = group.broker(a).producer().enqueue(Record::to("orders").value("lost"));
    group.lead(b, 2);
    send(&group, b, "two");
    assert_eq!(read_all(group.broker(a), "orders"), ["one"]);
    group.network.heal();
    // Its outcome is unknown, or it was refused.
    if let Ok(delivery) = lost {
        let answer = until(|| delivery.wait_timeout(Duration::ZERO)).unwrap();
        assert!(!answer.unwrap_err().is_definite());
    }
    let same = until(|| (read_all(group.broker(a), "orders") == ["one", "two"]).then_some(()));
    assert!(same.is_some(), "{:?}", read_all(group.broker(a), "orders"));
}

/// What a leader appended alone is removed when it follows another one.
#[test]
fn what_no_majority_had_is_removed_and_reported() {
    let (mut group, events) = (Group::without_members(None), Arc::new(Mutex::new(Vec::new())));
    let [a, b, _] = NODES;
    for node in NODES {
        let mut replication = group.settings(node);
        if node == a {
            let events = Arc::clone(&events);
            replication =
                replication.on_event(move |event| events.lock().unwrap().push(event.clone()));
        }
        group.network.attach(node, replication.handle());
        let broker = Group::open(&group.path(node), replication).unwrap();
        group.put(node, broker);
    }
    group.lead(a, 1);
    group.broker(a).ensure_topic("orders", TopicConfig::new(1)).unwrap();
    send(&group, a, "one");
    // A majority has it by now; here both followers must have said so.
    group.wait_for_copies(a);
    group.network.cut(a);
    let alone = group.broker(a).producer_builder().acks(Acks::Leader).build().unwrap();
    for value in ["two", "three"] {
        alone.send(Record::to("orders").value(value)).unwrap();
    }
    // The leader sees who lags behind, and how much.
    let lag = until(|| {
        let members = group.member(a).status().members;
        members.into_iter().find(|it| it.id == b && it.lag_records == 2)
    });
    assert!(lag.unwrap().lag_bytes > 0);
    group.lead(b, 2);
    send(&group, b, "other");
    group.network.heal();
    let seen = until(|| (read_all(group.broker(a), "orders") == ["one", "other"]).then_some(()));
    assert!(seen.is_some(), "{:?}", read_all(group.broker(a), "orders"));
    let truncated = events.lock().unwrap().iter().find_map(|event| match event {
        ReplicationEvent::Truncated { partition, range } => {
            Some((partition.clone(), range.clone()))
        }
        _ => None,
    });
    assert_eq!(truncated, Some((("orders", 0).into(), 1..3)));
}

/// The one that had founded the group refused the others, who had not copied that and founded again and
/// again, and it did not learn from their questions how far their epochs were.
#[test]
fn a_group_whose_founder_was_deposed_at_once_gets_a_leader() {
    let group = Group::new(Some(QUICK));
    let [a, b, _] = NODES;
    for node in NODES {
        group.network.lose(node, usize::MAX);
    }
    let leads = |node: NodeId| group.member(node).status().role == Role::Leader;
    if group.member(a).lead(LeaderEpoch(20)).is_err() || until(|| leads(a).then_some(())).is_none()
    {
        return; // another one was quicker
    }
    let _ = group.member(b).lead(LeaderEpoch(40));
    // The others are far ahead, or the founder has got ahead of them.
    let epoch = |node: NodeId| group.member(node).status().epoch;
    let is_ahead = || epoch(b) > LeaderEpoch(45) || leads(a) && epoch(a) > LeaderEpoch(40);
    assert!(until(|| is_ahead().then_some(())).is_some());
    for node in NODES {
        group.network.lose(node, 0);
    }
    group.leader();
}

/// A follower says by its next question what it has. When that was lost, nobody repeated it: all logs
/// were equal, and the call that waited timed out.
#[test]
fn a_lost_acknowledgement_is_repeated() {
    let group = Group::led();
    let [a, b, c] = NODES;
    group.broker(a).ensure_topic("orders", TopicConfig::new(1)).unwrap();
    send(&group, a, "one");
    for value in ["two", "three", "four"] {
        for follower in [b, c] {
            let all = || read_all(group.broker(follower), "orders");
            let before = read_all(group.broker(a), "orders");
            assert!(until(|| (all() == before).then_some(())).is_some());
            // That it has copied the record, and that it has synced it.
            group.network.lose(follower, 2);
        }
        let sent = group.broker(a).producer().send(Record::to("orders").value(value));
        assert!(sent.is_ok(), "{sent:?}");
    }
}

/// Two were called to lead the same epoch. The one that lost stayed a candidate, and copied nothing.
#[test]
fn the_loser_of_an_epoch_follows_the_one_that_leads_it() {
    for _ in 0..5 {
        let group = Group::led();
        let [a, b, c] = NODES;
        group.broker(a).ensure_topic("orders", TopicConfig::new(1)).unwrap();
        let together = Arc::new(std::sync::Barrier::new(2));
        let called = [b, c].map(|node| {
            let (member, together) = (group.member(node), Arc::clone(&together));
            std::thread::spawn(move || {
                together.wait();
                member.lead(LeaderEpoch(2))
            })
        });
        let called = called.map(|thread| thread.join().unwrap());
        if called.iter().any(Result::is_err) {
            continue; // one of them had promised it to the other already
        }
        // The third member promises it to one of them.
        let leads = |node: &NodeId| {
            let status = group.member(*node).status();
            status.may_write && status.epoch == LeaderEpoch(2)
        };
        let leader = until(|| NODES.into_iter().find(leads)).unwrap();
        send(&group, leader, "one");
        for node in NODES {
            let follows = until(|| {
                let status = group.member(node).status();
                (status.leader == Some(leader)).then_some(())
            });
            assert!(follows.is_some(), "{:?}", group.member(node).status());
            let has = until(|| (read_all(group.broker(node), "orders") == ["one"]).then_some(()));
            assert!(has.is_some(), "{node}");
        }
    }
}

/// The named case of the docs: why a leadership begins with a confirming round.
#[test]
fn a_member_that_lags_is_called_to_lead_and_loses_nothing() {
    let group = Group::led();
    let [a, b, c] = NODES;
    group.broker(a).ensure_topic("orders", TopicConfig::new(1)).unwrap();
    send(&group, a, "before");
    group.network.cut(c);
    send(&group, a, "acknowledged by A and B");
    group.network.heal();
    group.network.cut(a);
    group.lead(c, 2);
    assert_eq!(read_all(group.broker(c), "orders"), ["before", "acknowledged by A and B"]);
    send(&group, c, "after");
    let _ = b;
}

#[test]
fn each_change_is_reported_once() {
    let mut group = Group::without_members(None);
    let [a, b, _] = NODES;
    let events = Arc::new(Mutex::new(Vec::new()));
    for node in NODES {
        let mut replication = group.settings(node);
        if node == a {
            let events = Arc::clone(&events);
            replication = replication
                .on_event(move |event| events.lock().unwrap().push(format!("{event:?}")));
        }
        group.network.attach(node, replication.handle());
        let broker = Group::open(&group.path(node), replication).unwrap();
        group.put(node, broker);
    }
    group.lead(a, 1);
    group.wait_for_copies(a);
    group.network.cut(a);
    let has = |what: &str| events.lock().unwrap().iter().any(|event| event.starts_with(what));
    assert!(until(|| has("NoMajority").then_some(())).is_some());
    group.lead(b, 2);
    group.network.heal();
    assert!(until(|| has("Following").then_some(())).is_some());
    let events = events.lock().unwrap().clone();
    let count = |what: &str| events.iter().filter(|event| event.starts_with(what)).count();
    for what in ["Leading", "MayWrite", "NoMajority", "LeadershipLost", "Following"] {
        assert_eq!(count(what), 1, "{what} in {events:?}");
    }
    assert_eq!(count("MemberLagging"), 2, "{events:?}");
    assert_eq!(group.member(a).status().epoch, LeaderEpoch(2));
}

/// A new leader that has all records, and does not know of any that a majority has it: what the others
/// ask is lost. The group `g` has committed 3 under the leader before.
fn unknowing_leader() -> (Group, TopicPartition) {
    let mut group = Group::led();
    let [a, b, c] = NODES;
    group.broker(a).ensure_topic("orders", TopicConfig::new(1)).unwrap();
    for value in ["one", "two", "three"] {
        send(&group, a, value);
    }
    let mut consumer = group.broker(a).consumer("g").subscribe(["orders"]).open().unwrap();
    let polled =
        until(|| Some(consumer.poll(Duration::ZERO).unwrap().len()).filter(|polled| *polled > 0));
    assert_eq!(polled, Some(3));
    consumer.commit().unwrap();
    drop(consumer);
    group.wait_for_copies(a);
    // In this run it knows nothing of the others.
    group.stop(b);
    for node in [a, c] {
        group.network.lose(node, usize::MAX);
    }
    group.start(b);
    group.member(b).lead(LeaderEpoch(2)).unwrap();
    assert!(until(|| (group.role(b) == Role::Leader).then_some(())).is_some());
    let partition = TopicPartition::from(("orders", 0));
    (group, partition)
}

/// A commit of what the group had before was out of range right after a failover. Refused, it may be
/// repeated; accepted before a majority has the records, it could outlive them.
// RED: src/group/commit.rs
//   - Copies::below(self.core, self.committed.offset)
//   + Copies::default()
#[test]
fn a_commit_waits_until_a_new_leader_knows_that_a_majority_has_the_records() {
    for asynchronous in [false, cfg!(feature = "async")] {
        let (group, partition) = unknowing_leader();
        let [a, b, c] = NODES;
        let mut consumer = group.broker(b).consumer("g").subscribe(["orders"]).open().unwrap();
        assert_eq!(consumer.committed(partition.clone()).unwrap(), Some(3));
        // One that does not wait has nothing to commit, and one beyond the end is refused at once.
        consumer.commit_soon().unwrap();
        let beyond = consumer.commit_offsets(&[(partition.clone(), 4)].into());
        assert!(matches!(beyond, Err(Error::OffsetOutOfRange { end: 3, .. })), "{beyond:?}");
        let (sender, answer) = std::sync::mpsc::channel();
        let committing = std::thread::spawn(move || {
            let offsets = [(partition, 3)].into();
            let committed = match asynchronous {
                #[cfg(feature = "async")]
                true => pollster::block_on(consumer.in_async().commit_offsets(&offsets)),
                _ => consumer.commit_offsets(&offsets),
            };
            sender.send(committed).unwrap();
        });
        // A round trip to both: nothing that it waits for comes.
        let early = answer.recv_timeout(Duration::from_millis(100));
        assert!(early.is_err(), "asynchronous: {asynchronous}: {early:?}");
        for node in [a, c] {
            group.network.lose(node, 0);
        }
        let committed = answer.recv_timeout(PATIENCE).unwrap();
        assert!(committed.is_ok(), "asynchronous: {asynchronous}: {committed:?}");
        committing.join().unwrap();
    }
}

/// The group was put where the new leader knew that a majority has the records, without a word.
// RED: src/admin/groups.rs
//   - offset.clamp(start, core.log_end().max(start))
//   + offset.clamp(start, end.max(start))
#[test]
fn a_group_is_reset_to_what_it_could_have_before() {
    let (group, partition) = unknowing_leader();
    let [a, b, c] = NODES;
    let broker = group.broker(b).clone();
    let resetting = std::thread::spawn(move || {
        broker.admin().reset_partition("g", partition, StartAt::Offset(2))
    });
    for node in [a, c] {
        group.network.lose(node, 0);
    }
    assert_eq!(resetting.join().unwrap().unwrap(), 2);
}

/// The call was refused as if there were no such offset. It can be repeated, and nothing has changed.
// RED: src/partition/copies.rs
//   - _ => core.log.lead().refused(),
//   + Err(error) => error,
//   + Ok(()) => core.log.lead().refused(),
#[test]
fn a_commit_for_which_no_majority_is_heard_is_refused_and_not_unknown() {
    let mut group = Group::led();
    let [a, b, c] = NODES;
    group.broker(a).ensure_topic("orders", TopicConfig::new(1)).unwrap();
    send(&group, a, "one");
    group.wait_for_copies(a);
    group.stop(b);
    for node in [a, c] {
        group.network.lose(node, usize::MAX);
    }
    let quick = group.settings(b).ack_timeout(Duration::from_millis(100));
    group.start_with(b, quick, |builder| builder);
    group.member(b).lead(LeaderEpoch(2)).unwrap();
    assert!(until(|| (group.role(b) == Role::Leader).then_some(())).is_some());
    let partition = TopicPartition::from(("orders", 0));
    let mut consumer = group.broker(b).consumer("g").assign([partition.clone()]).open().unwrap();
    let refused = consumer.commit_offsets(&[(partition, 1)].into()).unwrap_err();
    assert!(matches!(refused, Error::NotEnoughReplicas { .. }), "{refused:?}");
    assert!(refused.is_definite() && refused.is_retriable());
}

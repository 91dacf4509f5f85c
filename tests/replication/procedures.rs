//! The procedures of the guide, step by step: founding, growing from one, replacing a member whose disk
//! is lost, and the last resort.

use std::time::Duration;

use logpond::{Broker, Error, LeaderEpoch, MemberState, Record, Role, TopicConfig};

use crate::group::{Group, NODES, read_all, until};

fn send(broker: &Broker, value: &str) {
    broker.producer().send(Record::to("orders").value(value)).unwrap();
}

/// Founding needs all members: a majority could found a second group later.
#[test]
fn a_group_is_founded_when_all_members_run() {
    let [a, b, c] = NODES;
    let mut group = Group::without_members(None);
    group.start(a);
    group.start(b);
    group.member(a).lead(LeaderEpoch(1)).unwrap();
    assert!(matches!(
        group.member(a).wait_leading(Duration::from_millis(200)),
        Err(Error::Timeout)
    ));
    group.start(c);
    group.member(a).wait_leading(Duration::from_secs(10)).unwrap();
    let status = group.member(a).status();
    assert_eq!(status.members.len(), 3);
    assert!(!status.list_differs);
}

/// One machine has a queue already. It becomes three.
#[test]
fn one_machine_grows_to_three() {
    let [a, b, c] = NODES;
    let mut group = Group::without_members(None);
    {
        let alone = Broker::open(group.path(a)).unwrap();
        alone.ensure_topic("orders", TopicConfig::new(2)).unwrap();
        (0..50).for_each(|number: u32| send(&alone, &number.to_string()));
        alone.close().unwrap();
    }
    for node in NODES {
        group.start(node);
    }
    group.lead(a, 1);
    send(group.broker(a), "first of three");
    for node in [b, c] {
        let same = until(|| (read_all(group.broker(node), "orders").len() == 51).then_some(()));
        assert!(same.is_some(), "{node}");
    }
    group.lead(c, 2);
    assert_eq!(read_all(group.broker(c), "orders").len(), 51);
    // It is one of three from now on.
    group.stop(a);
    let alone = until(|| match Broker::open(group.path(a)) {
        Err(Error::Locked { .. }) => None,
        opened => Some(opened),
    });
    assert!(matches!(alone, Some(Err(Error::Config(_)))), "{alone:?}");
}

// RED: src/replication/member.rs
//   - if !is_member {
//   + if false {
#[test]
fn a_member_whose_disk_is_lost_is_replaced() {
    let [a, b, c] = NODES;
    let mut group = Group::led();
    group.broker(a).ensure_topic("orders", TopicConfig::new(1)).unwrap();
    send(group.broker(a), "one");
    group.stop(c);
    let removed = until(|| std::fs::remove_dir_all(group.path(c)).ok());
    assert!(removed.is_some());
    group.start(c);
    // It copies, and counts for nothing.
    let copied = until(|| (read_all(group.broker(c), "orders") == ["one"]).then_some(()));
    assert!(copied.is_some());
    assert!(until(|| (group.role(c) == Role::Learner).then_some(())).is_some());
    let refused = group.member(c).lead(LeaderEpoch(9));
    assert!(matches!(refused, Err(Error::Config(_))), "{refused:?}");
    let state = |group: &Group| {
        let members = group.member(a).status().members;
        members.iter().find(|member| member.id == c).map(|member| member.state)
    };
    assert!(until(|| (state(&group) == Some(MemberState::Learner)).then_some(())).is_some());
    group.member(a).replace_member(c).unwrap();
    assert!(until(|| (group.role(c) == Role::Follower).then_some(())).is_some());
    // Now it counts: with it the group does without another one.
    group.stop(b);
    send(group.broker(a), "two");
    group.lead(c, 2);
    assert_eq!(read_all(group.broker(c), "orders"), ["one", "two"]);
}

/// Two of three disks are lost for ever.
#[test]
fn the_last_member_begins_a_group_of_its_own() {
    let [a, b, c] = NODES;
    let mut group = Group::led();
    group.broker(a).ensure_topic("orders", TopicConfig::new(1)).unwrap();
    send(group.broker(a), "one");
    assert!(until(|| (read_all(group.broker(b), "orders") == ["one"]).then_some(())).is_some());
    for node in [a, c] {
        group.stop(node);
        assert!(until(|| std::fs::remove_dir_all(group.path(node)).ok()).is_some());
    }
    group.member(b).lead(LeaderEpoch(2)).unwrap();
    assert!(group.member(b).wait_leading(Duration::from_millis(100)).is_err());
    let report = group.member(b).force_lead(LeaderEpoch(3)).unwrap();
    assert_eq!((report.epoch, report.given_up), (LeaderEpoch(3), vec![a, c]));
    group.member(b).wait_leading(Duration::from_secs(10)).unwrap();
    send(group.broker(b), "two");
    // The others come back with empty directories, and are admitted.
    for (node, count) in [(a, 2), (c, 3)] {
        group.member(b).replace_member(node).unwrap();
        // One at a time, and only when it has everything.
        let other = if node == a { c } else { a };
        let refused = group.member(b).replace_member(other);
        assert!(matches!(refused, Err(Error::Config(_))), "{refused:?}");
        group.start(node);
        let admitted = until(|| {
            let members = group.member(b).status().members;
            (members.len() == count).then_some(())
        });
        assert!(admitted.is_some(), "{node}");
    }
    send(group.broker(b), "three");
    // While it runs: a majority of the members before the last change is needed until the others know
    // that a majority has the change.
    group.member(b).resign(Some(c)).unwrap();
    group.lead(c, 4);
    group.stop(b);
    assert_eq!(read_all(group.broker(c), "orders"), ["one", "two", "three"]);
    // It starts again with its group.
    group.start(b);
    let same = until(|| (read_all(group.broker(b), "orders").len() == 3).then_some(()));
    assert!(same.is_some());
}

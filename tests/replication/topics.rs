//! Calls that change topics wait until a majority has the change, also if an earlier call has recorded it.

use std::time::Duration;

use logpond::{Error, NodeId, TopicConfig};

use crate::group::{Group, NODES, until};

const A: NodeId = NODES[0];
const B: NodeId = NODES[1];
const C: NodeId = NODES[2];

/// A group of which only the leader gets what is recorded.
fn lonely() -> Group {
    let mut group = Group::without_members(None);
    let replication = group.settings(A).ack_timeout(Duration::from_millis(300));
    group.start_with(A, replication, |builder| builder);
    group.start(B);
    group.start(C);
    group.lead(A, 1);
    group.broker(A).ensure_topic("before", TopicConfig::new(1)).unwrap();
    for node in [B, C] {
        group.network.lose(node, usize::MAX);
    }
    group
}

fn heal(group: &Group) {
    for node in [B, C] {
        group.network.lose(node, 0);
    }
}

/// The second call found the topic, and returned before a majority had it.
// RED: src/broker/handle.rs
//   - self.run.topics().await_certain(&found)?;
#[test]
fn a_topic_that_is_being_created_is_waited_for() {
    let group = lonely();
    let leader = group.broker(A);
    for _ in 0..2 {
        let created = leader.ensure_topic("orders", TopicConfig::new(1));
        assert!(matches!(created, Err(Error::Timeout)), "{created:?}");
    }
    // A majority has this one.
    leader.ensure_topic("before", TopicConfig::new(1)).unwrap();
    heal(&group);
    leader.ensure_topic("orders", TopicConfig::new(1)).unwrap();
    for node in [B, C] {
        // Where it is known that a majority has it.
        let known = || group.broker(node).ensure_topic("orders", TopicConfig::new(1)).ok();
        assert!(until(known).is_some());
    }
}

/// The second call said that there is no such topic, before a majority had its deletion.
// RED: src/broker/topics.rs
//   - if let Some(entry) = deleted_before(&self.run, name) {
//   + if let Some(entry) = deleted_before(&self.run, name).filter(|_| false) {
#[test]
fn a_topic_that_is_being_deleted_is_waited_for() {
    let group = lonely();
    let leader = group.broker(A);
    for _ in 0..2 {
        let deleted = leader.admin().delete_topic("before");
        assert!(matches!(deleted, Err(Error::Timeout)), "{deleted:?}");
    }
    heal(&group);
    leader.admin().delete_topic("before").unwrap();
    assert!(matches!(leader.admin().delete_topic("before"), Err(Error::UnknownTopic(_))));
    for node in NODES {
        assert!(until(|| group.broker(node).topic("before").err()).is_some());
    }
}

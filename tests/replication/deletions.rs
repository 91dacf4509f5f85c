//! Records that are deleted in a group stay deleted, whatever member leads.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use logpond::{
    Broker, Error, LeaderEpoch, NodeId, Record, Replication, ReplicationEvent, TopicConfig,
};

use crate::group::{Group, NODES, PATIENCE, read_all, until, within};

const A: NodeId = NODES[0];
const B: NodeId = NODES[1];
const C: NodeId = NODES[2];

/// Three members of which the first leads, with these settings, and has three records that all have.
fn with_records(background: bool, set: impl FnOnce(Replication) -> Replication) -> Group {
    let mut group = Group::without_members(None);
    group.start(B);
    group.start(C);
    let replication = set(group.settings(A));
    group.start_with(A, replication, |builder| builder.background(background));
    let leader = group.broker(A).clone();
    group.lead(A, 1);
    // Without background threads nobody else ticks.
    let member = group.member(A);
    let created = std::thread::spawn(move || {
        leader.ensure_topic("orders", TopicConfig::new(1)).unwrap();
        for value in ["one", "two", "three"] {
            leader.producer().send(Record::to("orders").value(value)).unwrap();
        }
    });
    let is_created = || {
        member.tick().unwrap();
        created.is_finished().then_some(())
    };
    assert!(until(is_created).is_some());
    created.join().unwrap();
    group.wait_for_copies(A);
    group
}

fn start_of(broker: &Broker) -> u64 {
    broker.topic("orders").unwrap().partition(0).unwrap().log_start_offset()
}

fn delete(broker: &Broker, before: u64) -> Result<u64, Error> {
    broker.admin().delete_records(("orders", 0), before)
}

/// The call returned when the leader had removed the records: if another one led before it had heard of
/// that, they were there again.
// RED: src/admin/retention.rs
//   - member.wait_start(id, before, deleted.led.number())?;
//   + let _ = (member, id);
// RED: src/replication/leader.rs
//   - Some(copy.asked.start)
//   + Some(own.max(copy.asked.start))
#[test]
fn deleted_records_stay_deleted_whatever_member_leads_next() {
    let group = with_records(true, |replication| replication.ack_timeout(PATIENCE / 6));
    // One of the others is away, and comes back as the leader.
    group.network.cut(C);
    assert_eq!(delete(group.broker(A), 2).unwrap(), 2);
    assert_eq!([A, B, C].map(|node| start_of(group.broker(node))), [2, 2, 0]);
    group.network.heal();
    group.network.cut(A);
    group.lead(C, 2);
    assert_eq!(start_of(group.broker(C)), 2);
    assert_eq!(read_all(group.broker(C), "orders"), ["three"]);
}

#[test]
fn a_lost_word_of_a_deletion_is_repeated() {
    let group = with_records(true, |replication| replication.ack_timeout(PATIENCE / 6));
    // What the leader says, and then what the others answer.
    group.network.lose(A, 4);
    assert_eq!(delete(group.broker(A), 1).unwrap(), 1);
    for node in [B, C] {
        group.network.lose(node, 1);
    }
    assert_eq!(delete(group.broker(A), 2).unwrap(), 2);
    for node in NODES {
        assert!(until(|| (start_of(group.broker(node)) == 2).then_some(())).is_some());
    }
}

#[test]
fn a_deletion_that_no_majority_notes_times_out_and_can_be_repeated() {
    let quick = |replication: Replication| replication.ack_timeout(Duration::from_millis(200));
    let group = with_records(true, quick);
    for node in [B, C] {
        group.network.lose(node, usize::MAX);
    }
    // Also if this member has it already.
    for _ in 0..2 {
        let unknown = delete(group.broker(A), 2).unwrap_err();
        assert!(matches!(unknown, Error::Timeout) && !unknown.is_definite(), "{unknown:?}");
        assert_eq!(start_of(group.broker(A)), 2);
    }
    for node in [B, C] {
        group.network.lose(node, 0);
    }
    let repeated = until(|| delete(group.broker(A), 2).ok());
    assert_eq!(repeated, Some(2));
    assert!([B, C].iter().any(|node| start_of(group.broker(*node)) == 2));
    // What is refused changes nothing, on a follower neither.
    let refused = delete(group.broker(B), 3);
    assert!(matches!(refused, Err(Error::NotLeader { leader: Some(A) })), "{refused:?}");
    let beyond = delete(group.broker(A), 4);
    assert!(matches!(beyond, Err(Error::OffsetOutOfRange { start: 2, end: 3, .. })), "{beyond:?}");
}

// RED: src/replication/handle.rs
//   - (!leads).then_some(Err(Error::LeadershipLost))
//   + None
#[test]
fn the_outcome_of_a_deletion_is_unknown_if_the_leadership_ends() {
    let group = with_records(true, |replication| replication);
    for node in [B, C] {
        group.network.lose(node, usize::MAX);
    }
    let leader = group.broker(A).clone();
    let deleting = std::thread::spawn(move || delete(&leader, 2));
    assert!(until(|| (start_of(group.broker(A)) == 2).then_some(())).is_some());
    group.member(B).lead(LeaderEpoch(2)).unwrap();
    let unknown = within(move || deleting.join().unwrap()).unwrap().unwrap_err();
    assert!(matches!(unknown, Error::LeadershipLost) && !unknown.is_definite(), "{unknown:?}");
}

/// The log start is not above the high watermark: what no majority has is not deleted.
#[test]
fn records_that_no_majority_has_are_not_deleted() {
    let group = with_records(true, |replication| replication);
    for node in [B, C] {
        group.network.lose(node, usize::MAX);
    }
    let unconfirmed = group.broker(A).producer().enqueue(Record::to("orders").value("four"));
    let beyond = delete(group.broker(A), 4);
    assert!(matches!(beyond, Err(Error::OffsetOutOfRange { end: 3, .. })), "{beyond:?}");
    assert_eq!(start_of(group.broker(A)), 0);
    drop(unconfirmed);
}

#[test]
fn a_deletion_runs_a_member_that_has_no_thread() {
    let group = with_records(false, |replication| replication);
    let leader = group.broker(A).clone();
    let deleted = within(move || delete(&leader, 2));
    assert!(matches!(deleted, Some(Ok(2))), "{deleted:?}");
    assert!([B, C].iter().any(|node| start_of(group.broker(*node)) == 2));
}

/// It would wait for the thread that calls it.
// RED: src/admin/retention.rs
//   - member.check_wait()?;
//   + let _ = member;
#[test]
fn an_event_cannot_delete_records_and_nothing_is_deleted() {
    let slot = Arc::new(OnceLock::<Broker>::new());
    let (results, broker) = (Arc::new(Mutex::new(Vec::new())), Arc::clone(&slot));
    let noted = Arc::clone(&results);
    let group = with_records(true, |replication| {
        replication.on_event(move |event| {
            let is_it = matches!(event, ReplicationEvent::MemberLagging(_));
            if let Some(broker) = broker.get().filter(|_| is_it) {
                noted.lock().unwrap().push(delete(broker, 2));
            }
        })
    });
    assert!(slot.set(group.broker(A).clone()).is_ok());
    group.network.cut(C);
    let refused = until(|| results.lock().unwrap().pop());
    assert!(matches!(refused, Some(Err(Error::Config(_)))), "{refused:?}");
    assert_eq!(start_of(group.broker(A)), 0);
    delete(group.broker(A), 2).unwrap();
}

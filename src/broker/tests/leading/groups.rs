//! Members of a group whose broker loses the leadership.

use super::*;
use crate::config::TopicConfig;
use crate::consumer::{Consumer, Rebalance};
use crate::error::Error;
use crate::record::{NodeId, Record, TopicPartition};
use crate::sync::Mutex;

fn send(member: &Member, count: u32) {
    for number in 0..count {
        let record = Record::to("t").partition(number % 2).value("x");
        member.broker.producer().send(record).unwrap();
    }
}

fn leader() -> Member {
    let mut member = Member::new(Durability::Os);
    member.lead(1);
    member.agree_always();
    member.broker.ensure_topic("t", TopicConfig::new(2)).unwrap();
    send(&member, 4);
    member
}

fn poll(consumer: &mut Consumer) -> usize {
    consumer.poll(Duration::ZERO).unwrap().len()
}

#[test]
fn a_member_hears_that_the_leadership_is_lost_and_joins_again_by_itself() {
    let member = leader();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let notified = Arc::clone(&heard);
    let builder = member.broker.consumer("g").subscribe(["t"]);
    let builder = builder.on_rebalance(move |event, _| {
        notified.lock().push(match event {
            Rebalance::Assigned(partitions) => ("assigned", partitions.len()),
            Rebalance::Revoked(partitions) => ("revoked", partitions.len()),
            Rebalance::Lost(partitions) => ("lost", partitions.len()),
        });
    });
    let mut consumer = builder.open().unwrap();
    assert_eq!(poll(&mut consumer), 4);
    consumer.commit().unwrap();
    send(&member, 2);
    assert_eq!(poll(&mut consumer), 2);

    member.lose(1);
    member.leadership.note_leader(Some(NodeId(2)));
    let committed = consumer.commit();
    assert!(matches!(committed, Err(Error::NotLeader { .. })), "{committed:?}");
    for _ in 0..3 {
        let polled = consumer.poll(Duration::ZERO);
        assert!(matches!(polled, Err(Error::NotLeader { leader: Some(NodeId(2)) })), "{polled:?}");
        assert_eq!(consumer.assignment(), []);
    }
    assert_eq!(*heard.lock(), [("assigned", 2), ("lost", 2)]);
    assert_eq!(member.broker.admin().describe_group("g").unwrap().members.len(), 0);

    member.lead(2);
    // It reads again what was not committed.
    assert_eq!(poll(&mut consumer), 2);
    consumer.commit().unwrap();
    assert_eq!(*heard.lock(), [("assigned", 2), ("lost", 2), ("assigned", 2)]);
    assert_eq!(member.broker.admin().describe_group("g").unwrap().members.len(), 1);
    consumer.close().unwrap();
}

/// Between the loss and the next poll the broker leads again: what was read under the earlier
/// leadership is not committed as if nothing had happened.
#[test]
fn a_member_that_did_not_poll_meanwhile_has_lost_its_partitions_too() {
    let member = leader();
    let mut consumer = member.broker.consumer("g").subscribe(["t"]).open().unwrap();
    assert_eq!(poll(&mut consumer), 4);
    member.lose(1);
    member.lead(2);
    let committed = consumer.commit();
    assert!(matches!(committed, Err(Error::Rebalanced { .. })), "{committed:?}");
    assert_eq!(poll(&mut consumer), 4);
    consumer.commit().unwrap();
}

#[test]
fn two_members_share_the_partitions_again() {
    let member = leader();
    let open = || member.broker.consumer("g").subscribe(["t"]).open().unwrap();
    let (mut one, mut other) = (open(), open());
    for _ in 0..4 {
        let _ = (poll(&mut one), poll(&mut other));
    }
    assert_eq!((one.assignment().len(), other.assignment().len()), (1, 1));
    member.lose(1);
    assert!(one.poll(Duration::ZERO).is_err() && other.poll(Duration::ZERO).is_err());
    member.lead(2);
    for _ in 0..4 {
        let _ = (poll(&mut one), poll(&mut other));
    }
    assert_eq!((one.assignment().len(), other.assignment().len()), (1, 1));
}

/// A static member keeps its name, and nobody is fenced.
#[test]
fn a_static_member_joins_again_under_its_name() {
    let member = leader();
    let open = |id: &str| {
        let builder = member.broker.consumer("g").subscribe(["t"]).instance_id(id);
        builder.open().unwrap()
    };
    let mut consumer = open("a");
    let dropped = open("b");
    assert!(poll(&mut consumer) > 0);
    drop(dropped);
    member.lose(1);
    assert!(consumer.poll(Duration::ZERO).is_err());
    member.lead(2);
    let away = member.broker.admin().describe_group("g").unwrap().members;
    assert_eq!(away.iter().filter(|it| !it.is_live).count(), 2, "both are waited for");
    let _ = poll(&mut consumer);
    let now = member.broker.admin().describe_group("g").unwrap().members;
    let live: Vec<_> = now.iter().filter(|it| it.is_live).collect();
    assert_eq!(live.len(), 1);
    assert_eq!(live[0].instance_id.as_deref(), Some("a"));
    // One that is fenced stays so.
    let mut newer = open("a");
    let fenced = consumer.poll(Duration::ZERO);
    assert!(matches!(fenced, Err(Error::Fenced { .. })), "{fenced:?}");
    let _ = poll(&mut newer);
}

/// A caller that ignores the error does not poll at full speed, and is woken when the broker leads.
#[test]
fn a_member_waits_for_the_leadership_after_it_has_heard_of_the_loss() {
    let member = leader();
    let mut consumer = member.broker.consumer("g").subscribe(["t"]).open().unwrap();
    assert_eq!(poll(&mut consumer), 4);
    consumer.commit().unwrap();
    let mut by_recv = member.broker.consumer("h").subscribe(["t"]).open().unwrap();
    member.lose(1);
    // At once the first time, however long the call may wait.
    assert!(consumer.poll(Duration::MAX).is_err());
    assert!(by_recv.recv().is_err());
    let over = consumer.poll(Duration::from_millis(1));
    assert!(matches!(over, Err(Error::NotLeader { .. })), "{over:?}");
    let woken = consumer.handle();
    woken.wake();
    assert!(consumer.poll(Duration::MAX).unwrap().is_empty());
    thread::scope(|scope| {
        let polls = scope.spawn(|| {
            loop {
                let batch = consumer.poll(Duration::MAX).unwrap();
                if !batch.is_empty() {
                    return batch.len();
                }
            }
        });
        let receives = scope.spawn(|| by_recv.recv().unwrap().offset());
        member.lead(2);
        assert_eq!(receives.join().unwrap(), 0);
        send(&member, 1);
        assert_eq!(polls.join().unwrap(), 1);
    });
}

#[test]
fn a_close_ends_the_wait_for_the_leadership() {
    let member = leader();
    let mut consumer = member.broker.consumer("g").subscribe(["t"]).open().unwrap();
    member.lose(1);
    assert!(consumer.poll(Duration::MAX).is_err());
    thread::scope(|scope| {
        let polls = scope.spawn(|| consumer.poll(Duration::MAX));
        member.broker.clone().close().unwrap();
        let polled = polls.join().unwrap();
        assert!(matches!(polled, Err(Error::Closed)), "{polled:?}");
    });
}

/// A position that is committed lies below the watermark, and one above it waits until it does.
#[test]
fn a_member_of_a_new_leader_waits_at_its_position_until_the_watermark_is_there() {
    let mut member = leader();
    let mut consumer = member.broker.consumer("g").subscribe(["t"]).open().unwrap();
    assert_eq!(poll(&mut consumer), 4);
    consumer.commit().unwrap();
    member.agree_no_more();
    let delivery = member.broker.producer().enqueue(Record::to("t").partition(0).value("x"));
    drop(delivery.unwrap());
    assert_eq!(poll(&mut consumer), 0, "no majority has it");
    let above = [(TopicPartition::from(("t", 0)), 3)].into();
    let refused = thread::scope(|scope| {
        let commit = scope.spawn(|| consumer.commit_offsets(&above));
        member.expire(&commit);
        commit.join().unwrap()
    });
    assert!(matches!(refused, Err(Error::NotEnoughReplicas { .. })), "{refused:?}");
    member.agree();
    assert_eq!(poll(&mut consumer), 1);
}

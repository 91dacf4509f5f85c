//! Rows of the failures that need members with threads, with clocks and with a transport of the
//! application.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use logpond::{
    Broker, Election, Error, Frame, ManualClock, NodeId, Producer, Record, Replication,
    ReplicationHandle, SendOutcome, TopicConfig, Transport, TransportError,
};

use crate::group::{Group, NODES, PATIENCE, read_all, until, within};

const A: NodeId = NODES[0];
const B: NodeId = NODES[1];
const C: NodeId = NODES[2];

/// Loses and panics, repeats, and brings garbage and what is for another member.
struct Wild {
    inner: Arc<dyn Transport>,
    turn: AtomicUsize,
    others: Vec<ReplicationHandle>,
}

impl Transport for Wild {
    fn send(&self, to: NodeId, frame: Frame) -> Result<(), TransportError> {
        // By turns that have no period: what repeats with the beats would always meet the same one.
        let turn = self.turn.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        match (turn >> 32) % 7 {
            0 => panic!("a transport that panics"),
            1 => return Err(TransportError::Unreachable),
            2 => {
                self.inner.send(to, frame.clone())?;
            }
            3 => {
                for member in &self.others {
                    // For another member, and as one of another member.
                    let _ = member.receive(A, frame.clone());
                    let _ = member.receive(NodeId(77), frame.clone());
                }
            }
            4 => {
                let mut bytes = frame.as_bytes().to_vec();
                let at = bytes.len() / 2;
                bytes[at] ^= 1;
                if let Ok(garbage) = Frame::from_bytes(bytes) {
                    let _ = self.inner.send(to, garbage);
                }
            }
            _ => {}
        }
        self.inner.send(to, frame)
    }
}

/// H18.
// RED: src/replication/beside.rs
//   - let sent = foreign::call(|| self.transport.send(to, frame));
//   + let sent = Some(self.transport.send(to, frame));
#[test]
fn row_h18_a_transport_that_panics_and_brings_garbage_harms_no_log() {
    let mut group = Group::without_members(None);
    group.start(B);
    group.start(C);
    let others = vec![group.member(B), group.member(C)];
    let (inner, turn) = (group.network.of(A), AtomicUsize::new(0));
    let replication = Replication::new(A, NODES, Arc::new(Wild { inner, turn, others }))
        .heartbeat(Duration::from_millis(20));
    group.start_with(A, replication, |builder| builder);
    group.lead(A, 1);
    group.broker(A).ensure_topic("orders", TopicConfig::new(1)).unwrap();
    let values: Vec<String> = (0..30).map(|number| number.to_string()).collect();
    for value in &values {
        group.broker(A).producer().send(Record::to("orders").value(value)).unwrap();
    }
    for node in NODES {
        let same = || (read_all(group.broker(node), "orders") == values).then_some(());
        assert!(until(same).is_some(), "{node}");
        assert_eq!(group.member(node).status().failure, None);
    }
}

fn importer(broker: &Broker) -> Producer {
    broker.producer_builder().id("importer").build().unwrap()
}

/// H19.
// RED: src/replication/shell/leading.rs
//   - broker.run().leading().end(epoch.0);
#[test]
fn row_h19_calls_that_wait_when_the_leadership_is_lost_have_a_typed_outcome() {
    type Waiting = std::thread::JoinHandle<Result<(), Error>>;
    let group = Group::led();
    let leader = group.broker(A).clone();
    leader.ensure_topic("orders", TopicConfig::new(1)).unwrap();
    let producer = importer(&leader);
    producer.send_sequenced(1, Record::to("orders").value("one").partition(0)).unwrap();
    let mut consumer = leader.consumer("workers").subscribe(["orders"]).open().unwrap();
    assert_eq!(consumer.poll(PATIENCE).unwrap().len(), 1);
    for node in [B, C] {
        group.network.lose(node, usize::MAX);
    }
    let partition = leader.topic("orders").unwrap().partition(0).unwrap();
    let ends_at = |end| until(|| (partition.log_end_offset() == end).then_some(())).is_some();
    let mut waiting: Vec<(&str, Waiting)> = Vec::new();
    let sequenced = std::thread::spawn(move || {
        producer.send_sequenced(2, Record::to("orders").value("two").partition(0)).map(drop)
    });
    waiting.push(("send_sequenced", sequenced));
    assert!(ends_at(2));
    let appending = partition.clone();
    let appended = std::thread::spawn(move || {
        appending.append_if(2, &[Record::new().value("three")]).map(drop)
    });
    waiting.push(("append_if", appended));
    assert!(ends_at(3));
    let creating = leader.clone();
    let created =
        std::thread::spawn(move || creating.ensure_topic("others", TopicConfig::new(1)).map(drop));
    waiting.push(("ensure_topic", created));
    assert!(until(|| leader.topic("others").ok()).is_some());
    let committed = std::thread::spawn(move || consumer.commit());
    waiting.push(("commit", committed));
    let joining = leader.clone();
    let joined = std::thread::spawn(move || {
        let mut member = joining.consumer("workers").subscribe(["orders"]).open()?;
        until(|| member.poll(Duration::from_millis(10)).err()).map_or(Ok(()), Err)
    });
    waiting.push(("poll", joined));
    // Another one leads, which has a part of it at most.
    group.network.cut(A);
    for node in [B, C] {
        group.network.lose(node, 0);
    }
    group.lead(B, 2);
    group.network.heal();
    for (name, call) in waiting {
        let result = within(move || call.join().unwrap());
        let Some(Err(error)) = result else { panic!("{name}: {result:?}") };
        let is_unknown = matches!(error, Error::LeadershipLost);
        let is_definite = matches!(
            error,
            Error::NotLeader { .. } | Error::NotEnoughReplicas { .. } | Error::Rebalanced { .. }
        );
        assert!(is_unknown || is_definite, "{name}: {error:?}");
        assert_eq!(error.is_definite(), is_definite, "{name}: {error:?}");
    }
    // What was unknown is repeated, and is there once: the new leader may have kept it.
    let producer = importer(group.broker(B));
    let again = || producer.send_sequenced(2, Record::to("orders").value("two").partition(0));
    again().unwrap();
    assert!(matches!(again().unwrap(), SendOutcome::Duplicate { last: 2 }));
    for node in NODES {
        let same = || (read_all(group.broker(node), "orders") == ["one", "two"]).then_some(());
        assert!(until(same).is_some(), "{node}: {:?}", read_all(group.broker(node), "orders"));
    }
}

/// H22: no rule reads a clock. Here one stands still, one jumps, and one is right.
// IMPOSSIBLE: the state machine has no clock, so no line makes a record depend on one.
#[test]
fn row_h22_clocks_that_stand_still_and_jump_lose_no_record() {
    let mut group = Group::without_members(Some(Election { timeout: Duration::from_millis(150) }));
    let clocks =
        [0, 1 << 40].map(|at| ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_millis(at)));
    for (node, clock) in [A, B].into_iter().zip(clocks.clone()) {
        group.start_with(node, group.settings(node), |builder| builder.clock(clock));
    }
    group.start(C);
    let [standing, jumping] = clocks;
    let mut sent = Vec::new();
    let mut round = 0;
    while sent.len() < 20 {
        round += 1;
        assert!(round < 2_000, "{sent:?}");
        // A leader whose clock stands still sends no beats, and is deposed by the two others.
        jumping.advance(Duration::from_secs(3_600 * (round % 2)));
        jumping.set(SystemTime::UNIX_EPOCH + Duration::from_secs(round % 3));
        standing.advance(Duration::from_millis(if round % 5 == 0 { 20 } else { 0 }));
        let leads = |node: &NodeId| group.member(*node).status().may_write;
        let found = until(|| {
            jumping.advance(Duration::from_millis(5));
            standing.advance(Duration::from_millis(1));
            NODES.into_iter().find(leads)
        });
        let broker = group.broker(found.unwrap()).clone();
        if broker.ensure_topic("orders", TopicConfig::new(1)).is_err() {
            continue;
        }
        let value = round.to_string();
        let producer = broker.producer();
        let Ok(delivery) = producer.enqueue(Record::to("orders").value(&value)) else { continue };
        let answer = until(|| {
            jumping.advance(Duration::from_millis(5));
            standing.advance(Duration::from_millis(1));
            delivery.wait_timeout(Duration::ZERO)
        });
        if let Some(Ok(stored)) = answer {
            sent.push((stored.offset, value));
        }
    }
    for node in NODES {
        let has_all = || {
            jumping.advance(Duration::from_millis(5));
            standing.advance(Duration::from_millis(5));
            let all = read_all(group.broker(node), "orders");
            let is_there = |(offset, value): &(u64, String)| {
                usize::try_from(*offset).is_ok_and(|at| all.get(at) == Some(value))
            };
            sent.iter().all(is_there).then_some(())
        };
        assert!(until(has_all).is_some(), "{node}: {sent:?}");
    }
}

//! What calls do on a member that leads, and on one that does not.

use std::sync::Arc;
use std::time::Duration;

use logpond::{
    Acks, Broker, Durability, Error, Frame, LeaderEpoch, NodeId, Record, Replication, Role,
    TopicConfig,
};

use crate::group::{Group, NODES, PATIENCE, read_all, until};

const A: NodeId = NODES[0];
const B: NodeId = NODES[1];

#[test]
fn a_record_is_acknowledged_by_a_majority_and_readers_on_followers_see_it() {
    let group = Group::led();
    let leader = group.broker(A);
    leader.ensure_topic("orders", TopicConfig::new(1)).unwrap();
    for value in ["one", "two", "three"] {
        leader.producer().send(Record::to("orders").value(value)).unwrap();
    }
    for node in NODES {
        let seen = until(|| {
            let all = read_all(group.broker(node), "orders");
            (all == ["one", "two", "three"]).then_some(())
        });
        assert!(seen.is_some(), "{node} sees {:?}", read_all(group.broker(node), "orders"));
    }
    // A reader that waits is woken by the watermark.
    let mut reader = group.broker(B).reader().subscribe(["orders"]).open().unwrap();
    assert_eq!(reader.poll(Duration::from_secs(10)).unwrap().len(), 3);
    leader.producer().send(Record::to("orders").value("four")).unwrap();
    assert_eq!(reader.poll(Duration::from_secs(10)).unwrap().len(), 1);
    group.member(A).confirm().unwrap();
}

#[test]
fn a_member_that_does_not_lead_says_who_does() {
    let group = Group::led();
    let leader = group.broker(A);
    leader.ensure_topic("orders", TopicConfig::new(1)).unwrap();
    let follower = group.broker(B);
    assert!(until(|| follower.topic("orders").ok()).is_some());
    let refused = [
        follower.producer().send(Record::to("orders").value("x")).map(drop),
        follower.ensure_topic("others", TopicConfig::new(1)).map(drop),
        follower.admin().delete_topic("orders"),
        follower.admin().add_partitions("orders", 2),
        follower
            .consumer("group")
            .subscribe(["orders"])
            .open()
            .and_then(|mut consumer| consumer.poll(Duration::ZERO).map(drop)),
    ];
    for result in refused {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::NotLeader { leader: Some(A) }), "{error:?}");
        assert!(error.is_definite() && error.is_retriable());
    }
    assert!(matches!(group.member(B).confirm(), Err(Error::NotLeader { .. })));
    assert!(matches!(group.member(B).resign(None), Err(Error::NotLeader { .. })));
    assert_eq!((group.role(A), group.role(B)), (Role::Leader, Role::Follower));
}

#[test]
fn a_group_of_consumers_works_where_its_broker_leads() {
    let group = Group::led();
    let leader = group.broker(A);
    leader.ensure_topic("orders", TopicConfig::new(2)).unwrap();
    for key in 0..20_u8 {
        leader.producer().send(Record::to("orders").key(&[key]).value("v")).unwrap();
    }
    let mut consumer = leader.consumer("workers").subscribe(["orders"]).open().unwrap();
    let mut count = 0;
    while count < 20 {
        count += consumer.poll(Duration::from_secs(10)).unwrap().len();
    }
    consumer.commit().unwrap();
    drop(consumer);
    // The next leader has the positions.
    group.lead(B, 2);
    let mut consumer = group.broker(B).consumer("workers").subscribe(["orders"]).open().unwrap();
    assert_eq!(consumer.poll(Duration::from_millis(50)).unwrap().len(), 0);
    group.broker(B).producer().send(Record::to("orders").value("new")).unwrap();
    assert_eq!(consumer.poll(Duration::from_secs(10)).unwrap().len(), 1);
}

#[test]
fn a_leader_that_hears_nobody_takes_no_appends() {
    let group = Group::led();
    let leader = group.broker(A);
    leader.ensure_topic("orders", TopicConfig::new(1)).unwrap();
    group.network.cut(A);
    let refused = until(|| leader.producer().enqueue(Record::to("orders").value("x")).err());
    let error = refused.unwrap();
    assert!(matches!(error, Error::NotEnoughReplicas { reachable: 1, required: 2 }), "{error:?}");
    assert!(error.is_definite() && error.is_retriable());
    // It continues in the same leadership when it hears them again.
    group.network.heal();
    let sent = until(|| leader.producer().send(Record::to("orders").value("y")).ok());
    assert!(sent.is_some());
    assert_eq!(group.member(A).status().epoch, LeaderEpoch(1));
}

#[test]
fn what_the_leader_alone_acknowledges_needs_no_majority() {
    let group = Group::led();
    let leader = group.broker(A);
    leader.ensure_topic("orders", TopicConfig::new(1)).unwrap();
    group.network.cut(A);
    let producer = leader.producer_builder().acks(Acks::Leader).build().unwrap();
    producer.send(Record::to("orders").value("alone")).unwrap();
    // Nobody sees it before a majority has it.
    assert!(read_all(leader, "orders").is_empty());
    group.network.heal();
    assert!(until(|| (read_all(leader, "orders") == ["alone"]).then_some(())).is_some());
}

/// On how many members the records of a topic are on stable storage, up to this offset.
fn synced_on(group: &Group, end: u64) -> usize {
    let is_synced = |node: &&NodeId| {
        let described = group.broker(**node).admin().describe_topic("orders");
        described.is_ok_and(|topic| topic.partitions[0].durable_end_offset >= end)
    };
    NODES.iter().filter(is_synced).count()
}

/// The record was synced where it was sent, and the other members had it in memory: a loss of power of
/// two machines could take it, or one and the loss of the leader's disk.
// RED: src/topic/append.rs
//   - Copies::synced(core, end, self.led)
//   + Copies::of(core, end, self.led)
// RED: src/partition/copies.rs
//   - let measure = if is_stricter { Measure::Synced } else { Measure::Held };
//   + let measure = Measure::Held;
#[test]
fn a_producer_stricter_than_its_topic_waits_until_a_majority_has_synced() {
    let group = Group::led();
    let leader = group.broker(A);
    leader.ensure_topic("orders", TopicConfig::new(1).durability(Durability::Os)).unwrap();
    let strict = leader.producer_builder().durability(Durability::Sync).build().unwrap();
    for round in 0..20_u64 {
        leader.producer().send(Record::to("orders").value("written")).unwrap();
        let sent = strict.send(Record::to("orders").value("synced")).unwrap();
        assert!(synced_on(&group, sent.offset + 1) >= 2, "round {round}: {sent:?}");
        let delivery = strict.enqueue(Record::to("orders").value("synced")).unwrap();
        let sent = delivery.wait().unwrap();
        assert!(synced_on(&group, sent.offset + 1) >= 2, "round {round}: {sent:?}");
    }
    // A flush has the same for what nobody waited for.
    let sent = strict.enqueue(Record::to("orders").value("synced")).unwrap().metadata();
    strict.flush().unwrap();
    assert!(synced_on(&group, sent.offset + 1) >= 2, "{sent:?}");
    // One member is enough beside the leader.
    group.network.cut(B);
    let sent = strict.send(Record::to("orders").value("synced")).unwrap();
    assert!(synced_on(&group, sent.offset + 1) == 2, "{sent:?}");
}

/// The word of a follower that it has synced may be lost as any frame. All that it has is below the high
/// watermark then.
// RED: src/replication/view.rs
//   - is_equal(key, log) && !is_damaged(key, log) && !log.strict.is_open()
//   + is_equal(key, log) && !is_damaged(key, log)
#[test]
fn a_producer_stricter_than_its_topic_is_answered_although_frames_are_lost() {
    let group = Group::led();
    let leader = group.broker(A);
    leader.ensure_topic("orders", TopicConfig::new(1).durability(Durability::Os)).unwrap();
    let strict = leader.producer_builder().durability(Durability::Sync).build().unwrap();
    for round in 0..12_usize {
        leader.producer().send(Record::to("orders").value("written")).unwrap();
        group.wait_for_copies(A);
        for follower in &NODES[1..] {
            group.network.lose_after(round % 3, *follower, 1 + round % 2);
        }
        let sent = strict.send(Record::to("orders").value("synced")).unwrap();
        assert!(synced_on(&group, sent.offset + 1) >= 2, "round {round}: {sent:?}");
    }
}

// RED: src/replication/handle.rs
//   - if from == *me {
//   + if false {
#[test]
fn the_metrics_say_what_a_member_has_done() {
    let mut group = Group::led();
    let leader = group.broker(A).clone();
    leader.ensure_topic("orders", TopicConfig::new(1)).unwrap();
    leader.producer().send(Record::to("orders").value("one")).unwrap();
    let of = |group: &Group, node| group.broker(node).metrics().replication.unwrap();
    let led = of(&group, A);
    assert_eq!((led.me, led.role, led.epoch), (A, Role::Leader, LeaderEpoch(1)));
    assert!(led.may_write && !led.has_failed);
    assert_eq!((led.leaderships, led.elections, led.truncations), (1, 0, 0));
    assert_eq!(led.members.iter().map(|it| it.id).collect::<Vec<_>>(), NODES);
    let frames = led.frames;
    assert!(frames.sent > 0 && frames.sent_bytes > frames.sent && frames.unsent == 0);
    assert!(frames.received > 0 && frames.received_bytes > frames.received);
    assert_eq!((frames.refused, frames.refused_bytes), (0, 0));
    // What B has to copy is counted while it cannot, and a frame of its own is refused.
    group.wait_for_copies(A);
    group.network.cut(B);
    leader.producer().send(Record::to("orders").value("two")).unwrap();
    let lag = |group: &Group| {
        let members = of(group, A).members;
        members.iter().find(|it| it.id == B).map(|it| (it.lag_records, it.lag_bytes)).unwrap()
    };
    assert!(until(|| (lag(&group).0 == 1 && lag(&group).1 > 0).then_some(())).is_some());
    assert!(until(|| (of(&group, A).frames.unsent > 0).then_some(())).is_some());
    group.network.heal();
    assert!(until(|| (lag(&group) == (0, 0)).then_some(())).is_some());
    let recorded = Arc::new(std::sync::Mutex::new(Vec::new()));
    let tap = Tap(Arc::clone(&recorded), group.network.of(B));
    group.stop(B);
    group.start_with(B, Replication::new(B, NODES, Arc::new(tap)), |builder| builder);
    assert!(until(|| recorded.lock().unwrap().pop()).is_some_and(|(_, frame)| {
        group.member(A).receive(A, frame.clone()).unwrap_err();
        group.member(A).receive(NodeId(99), frame).is_ok()
    }));
    assert!(until(|| (of(&group, A).frames.refused == 2).then_some(())).is_some());
    // What the leader alone had is cut off when it follows another one.
    group.network.cut(A);
    let producer = leader.producer_builder().acks(Acks::Leader).build().unwrap();
    producer.send(Record::to("orders").value("lost")).unwrap();
    let other = NODES[2];
    group.lead(other, 2);
    group.network.heal();
    assert!(until(|| (of(&group, A).truncations >= 1).then_some(())).is_some());
    assert_eq!(of(&group, A).role, Role::Follower);
    assert!(Broker::in_memory().unwrap().metrics().replication.is_none());
}

#[cfg(feature = "json")]
#[test]
fn the_metrics_of_a_member_can_be_serialised() {
    let group = Group::led();
    let json = serde_json::to_value(group.broker(A).metrics()).unwrap();
    let member = &json["replication"];
    assert_eq!((&member["role"], &member["epoch"]), (&"Leader".into(), &1.into()));
    assert_eq!(member["members"].as_array().unwrap().len(), 3);
    assert!(member["frames"]["sent_bytes"].as_u64().unwrap() > 0);
}

// RED: src/replication/settings.rs
//   - if members.len() != self.members.len() {
//   + if false {
// RED: src/replication/settings.rs
//   - if !members.contains(&self.me) {
//   + if false {
// RED: src/replication/settings.rs
//   - if members.len() > MEMBERS_MAX {
//   + if false {
#[test]
fn impossible_settings_are_refused() {
    let group = Group::without_members(None);
    let transport = || group.network.of(A);
    let refused: [(&str, Replication); 4] = [
        ("listed twice", Replication::new(A, [A, B, A], transport())),
        ("not in the list", Replication::new(A, [B], transport())),
        ("at most 7", Replication::new(A, (1..=8).map(NodeId), transport())),
        ("at most half", Replication::new(A, NODES, transport()).heartbeat(Duration::ZERO)),
    ];
    for (reason, replication) in refused {
        let opened = Group::open(&group.path(A), replication);
        let Err(Error::Config(error)) = opened else { panic!("{reason}: {opened:?}") };
        assert!(error.to_string().contains(reason), "{error}");
    }
    let read_only = Broker::builder()
        .data_dir(group.path(A))
        .read_only(true)
        .replication(group.settings(A))
        .open();
    assert!(matches!(read_only, Err(Error::Config(_))), "{read_only:?}");
    let acks = Broker::in_memory().unwrap().producer_builder().acks(Acks::Quorum).build();
    assert!(matches!(acks, Err(Error::Config(_))), "{acks:?}");
}

/// A follower would make the partition at offset 0, and could lead before it has asked the leader.
// RED: src/broker/topics.rs
//   - if begins.values().any(|offset| *offset > 0) && run.context().is_member() {
//   + if false {
#[test]
fn a_partition_of_a_group_begins_at_0_only() {
    let group = Group::led();
    let create = |begin| group.broker(A).admin().create_topic_at("t", TopicConfig::new(1), [begin]);
    let refused = create((0, 7));
    let Err(Error::Config(error)) = refused else { panic!("{refused:?}") };
    assert_eq!(error.setting, "begin");
    create((0, 0)).unwrap();
    let refused = group.broker(B).admin().create_topic_at("u", TopicConfig::new(1), [(0, 7)]);
    assert!(matches!(refused, Err(Error::NotLeader { .. })), "{refused:?}");
}

/// What was created alone begins at its offset on every member.
#[test]
fn a_partition_that_began_at_an_offset_begins_there_on_every_member() {
    let mut group = Group::without_members(None);
    {
        let alone = Broker::open(group.path(A)).unwrap();
        let topic =
            alone.admin().create_topic_at("orders", TopicConfig::new(1), [(0, 70)]).unwrap();
        assert_eq!(topic.partition(0).unwrap().append(&Record::new().value("one")).unwrap(), 70);
        alone.close().unwrap();
    }
    for node in NODES {
        group.start(node);
    }
    group.lead(A, 1);
    for node in NODES {
        let found = until(|| {
            let partition = group.broker(node).topic("orders").ok()?.partition(0).ok()?;
            let ends = (partition.log_start_offset(), partition.log_end_offset());
            (ends == (70, 71)).then_some(())
        });
        assert!(found.is_some(), "{node}");
    }
}

// RED: src/replication/member.rs
//   - if epoch <= promised && !again {
//   + if false {
// RED: src/replication/member.rs
//   - if epoch.0.saturating_sub(promised.0) > EPOCH_STEP_MAX {
//   + if false {
#[test]
fn wrong_calls_of_lead_are_refused_and_change_nothing() {
    let group = Group::led();
    let (a, b) = (group.member(A), group.member(B));
    for epoch in [0, 1] {
        for member in [&a, &b] {
            let refused = member.lead(LeaderEpoch(epoch));
            let Err(refused @ Error::Fenced { .. }) = refused else { panic!("{refused:?}") };
            // It spoke of a handle that was taken over, and is to be dropped.
            let text = refused.to_string();
            assert!(
                text.contains("promised epoch 1: the epoch of a leader must be greater"),
                "{text}"
            );
        }
    }
    let far = b.lead(LeaderEpoch(u32::MAX));
    assert!(matches!(far, Err(Error::Config(_))), "{far:?}");
    a.wait_leading(Duration::ZERO).unwrap();
    assert!(matches!(b.wait_leading(Duration::from_millis(10)), Err(Error::Timeout)));
    for node in [A, B, NodeId(9)] {
        assert!(matches!(a.replace_member(node), Err(Error::Config(_))), "{node}");
    }
    assert_eq!(a.status().replacing, None);
    let forced = a.force_lead(LeaderEpoch(9));
    assert!(matches!(forced, Err(Error::Config(_))), "{forced:?}");
    assert_eq!(a.status().epoch, LeaderEpoch(1));
    // Before the broker is open, and after it was closed.
    let handle = group.settings(A).handle();
    assert!(matches!(handle.lead(LeaderEpoch(5)), Err(Error::Closed)));
    let group = {
        let mut group = group;
        group.stop(A);
        group
    };
    assert!(matches!(a.lead(LeaderEpoch(9)), Err(Error::Closed)));
    assert!(matches!(a.wait_leading(Duration::from_secs(1)), Err(Error::Closed)));
    assert_eq!(a.status().leader, None);
    drop(group);
}

/// Keeps what is sent.
struct Tap(Arc<std::sync::Mutex<Vec<(NodeId, Frame)>>>, Arc<dyn logpond::Transport>);
impl logpond::Transport for Tap {
    fn send(&self, to: NodeId, frame: Frame) -> Result<(), logpond::TransportError> {
        self.0.lock().unwrap().push((to, frame.clone()));
        self.1.send(to, frame)
    }
}

/// A transport may hand over anything.
#[test]
fn frames_that_no_member_sent_change_nothing() {
    let group = Group::led();
    let leader = group.broker(A);
    leader.ensure_topic("orders", TopicConfig::new(1)).unwrap();
    let recorded = Arc::new(std::sync::Mutex::new(Vec::<(NodeId, Frame)>::new()));
    // Another group, whose frames arrive here.
    let mut other = Group::without_members(None);
    let tap = Tap(Arc::clone(&recorded), other.network.of(A));
    other.start_with(A, Replication::new(A, NODES, Arc::new(tap)), |builder| builder);
    other.start(B);
    other.start(NODES[2]);
    other.lead(A, 50);
    other.broker(A).ensure_topic("orders", TopicConfig::new(1)).unwrap();
    other.broker(A).producer().send(Record::to("orders").value("of another group")).unwrap();
    other.wait_for_copies(A);
    drop(other);
    let recorded = std::mem::take(&mut *recorded.lock().unwrap());
    assert!(recorded.len() > 10, "{}", recorded.len());
    for (to, frame) in &recorded {
        group.member(*to).receive(A, frame.clone()).unwrap();
        group.member(A).receive(*to, frame.clone()).unwrap();
        let _ = group.member(A).receive(NodeId(77), frame.clone());
    }
    let own = Frame::from_bytes(recorded_bytes());
    assert!(own.is_err());
    leader.producer().send(Record::to("orders").value("still")).unwrap();
    for node in NODES {
        let has_it = || (read_all(group.broker(node), "orders") == ["still"]).then_some(());
        assert!(until(has_it).is_some(), "{node}");
        assert_eq!(group.member(node).status().epoch, LeaderEpoch(1));
    }
}

/// Says the same again whenever it is answered.
struct Echo {
    frame: Frame,
    member: std::sync::OnceLock<logpond::ReplicationHandle>,
}

impl logpond::Transport for Echo {
    fn send(&self, to: NodeId, _: Frame) -> Result<(), logpond::TransportError> {
        let answered = self.member.get().map(|member| member.receive(to, self.frame.clone()));
        answered.and_then(Result::ok).ok_or(logpond::TransportError::Unreachable)
    }
}

/// A call of `tick` took frames for as long as there were some: two members in one process that
/// answered each other kept it for ever.
#[test]
fn a_call_of_tick_ends_although_more_and_more_arrives() {
    let group = Group::without_members(None);
    let recorded = Arc::new(std::sync::Mutex::new(Vec::<(NodeId, Frame)>::new()));
    let transport = Tap(Arc::clone(&recorded), group.network.of(B));
    let other = Replication::new(B, [A, B], Arc::new(transport));
    let other = Group::open(&group.path(B), other).unwrap();
    other.replication().unwrap().lead(LeaderEpoch(1)).unwrap();
    let asked = until(|| recorded.lock().unwrap().first().map(|(_, frame)| frame.clone()));
    drop(other);

    let echo = Arc::new(Echo { frame: asked.unwrap(), member: std::sync::OnceLock::new() });
    let replication = Replication::new(A, [A, B], Arc::clone(&echo) as Arc<dyn logpond::Transport>);
    let member = replication.handle();
    let _ = echo.member.set(member.clone());
    let builder = Broker::builder().data_dir(group.path(A)).background(false);
    let broker = builder.replication(replication).open().unwrap();
    member.receive(B, echo.frame.clone()).unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _ = sender.send(member.tick());
        drop(broker);
    });
    let due = receiver.recv_timeout(PATIENCE).expect("a call of `tick` that ends");
    assert_eq!(due.unwrap(), Duration::ZERO);
}

fn recorded_bytes() -> Vec<u8> {
    b"lpf\x01 and nothing else".to_vec()
}

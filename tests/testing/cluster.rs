//! A cluster: its calls, its time, its failures, and services that fail over.

use std::time::Duration;

use logpond::testing::{Link, SimNetwork, TestCluster};
use logpond::{
    Acks, Broker, Clock, Durability, Error, LeaderEpoch, MemberState, NodeId, Record, Role,
    TopicConfig,
};

use crate::broker::panic_of;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

/// Three members, of which one leads, with a topic.
fn led() -> TestCluster {
    let cluster = TestCluster::new(3);
    cluster.leader().ensure_topic("orders", TopicConfig::new(1)).unwrap();
    cluster
}

fn send(broker: &Broker, value: &str) -> logpond::Result<u64> {
    Ok(broker.producer().send(Record::to("orders").value(value))?.offset)
}

fn read(broker: &Broker) -> Vec<String> {
    let topic = broker.topic("orders").unwrap();
    let partition = topic.partition(0).unwrap();
    let batch = partition.read(partition.log_start_offset(), usize::MAX).unwrap();
    let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
    batch.iter().map(|message| text(message.value().unwrap())).collect()
}

fn has_leader(cluster: &TestCluster) -> bool {
    cluster.leader_id().is_some()
}

/// How much time has passed since.
fn passed(cluster: &TestCluster, since: Duration) -> Duration {
    cluster.clock().monotonic().checked_sub(since).unwrap()
}

/// A member that does not lead.
fn follower(cluster: &TestCluster) -> NodeId {
    let leads = cluster.leader_id();
    cluster.nodes().into_iter().find(|node| Some(*node) != leads).unwrap()
}

/// The time that a producer at `Sync` waits for a majority's syncs began with `enqueue`, and nobody was
/// asked to sync before the delivery was waited for: one that came later got a time-out. And a flush after
/// a leadership that had lost nothing failed as if it had.
// RED: src/partition/copies.rs
//   - Some(Awaited { deadline: *self.asked_until.get_or_init(begin), ..awaited })
//   + Some(awaited)
// RED: src/partition/quorum_gate.rs
//   - Measure::Synced => waits.lossy.synced,
//   + Measure::Synced => epoch,
#[test]
fn a_delivery_of_a_strict_producer_can_be_waited_for_late_and_flushed_after_the_leadership() {
    let cluster = TestCluster::new(3);
    let leader = cluster.leader();
    leader.ensure_topic("orders", TopicConfig::new(1).durability(Durability::Os)).unwrap();
    let strict = leader.producer_builder().durability(Durability::Sync).build().unwrap();
    let delivery = strict.enqueue(Record::to("orders").value("late")).unwrap();
    cluster.advance(MINUTE);
    // The others are slower than a beat, with which time-outs are noticed.
    let ms = Duration::from_millis;
    cluster.network().links(Link::default().delay(ms(120)..ms(150)));
    delivery.wait().unwrap();
    cluster.network().links(Link::default());
    leader.replication().unwrap().resign(None).unwrap();
    cluster.advance(SECOND);
    strict.flush().unwrap();
}

#[test]
fn a_plain_send_works_and_takes_no_time_on_a_healthy_network() {
    let cluster = led();
    let before = cluster.clock().monotonic();
    for number in 0..20 {
        assert_eq!(send(cluster.leader(), "x").unwrap(), number);
    }
    assert_eq!(cluster.clock().monotonic(), before);
    // All others have them with the next beat.
    let all_see =
        |it: &TestCluster| it.nodes().iter().all(|node| read(it.broker(*node)).len() == 20);
    assert!(cluster.run_until(all_see, SECOND));
}

/// A call takes the time that the frames take which it waits for.
#[test]
fn a_send_over_slow_links_takes_their_time() {
    let cluster = led();
    let ms = Duration::from_millis;
    cluster.network().links(Link::default().delay(ms(20)..ms(21)));
    let before = cluster.clock().monotonic();
    send(cluster.leader(), "x").unwrap();
    let took = passed(&cluster, before);
    assert!(took >= ms(40) && took < ms(250), "{took:?}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed: u64| {
        let cluster = TestCluster::builder(3).seed(seed).start();
        let ms = Duration::from_millis;
        let bad = Link::default().loss(0.2).repeat(0.1).reorder(0.1).delay(ms(1)..ms(30));
        cluster.network().links(bad);
        let mut seen = Vec::new();
        let made = cluster.leader().ensure_topic("orders", TopicConfig::new(2));
        seen.push(format!("{:?}", made.map(|topic| topic.partitions())));
        for number in 0..30 {
            let leader = cluster.leader_id();
            if number % 10 == 9
                && let Some(leader) = leader
            {
                cluster.crash(leader);
                assert!(cluster.run_until(has_leader, MINUTE));
                cluster.restart(leader);
            }
            assert!(cluster.run_until(has_leader, MINUTE));
            let broker = cluster.leader();
            let sent = broker.producer().send(Record::to("orders").key("k").value("x"));
            seen.push(format!("{:?} {sent:?}", cluster.leader_id()));
        }
        let statuses = NODES.map(|node| cluster.status(node));
        let stats = cluster.network().stats();
        assert!(stats.lost > 0 && stats.repeated > 0, "{stats:?}");
        (seen, format!("{statuses:?}"), stats, cluster.network().trace(), cluster.clock().now())
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7).3, run(8).3);
}

#[test]
fn another_member_leads_after_a_crash_and_has_all_that_was_acknowledged() {
    let cluster = led();
    for value in ["a", "b", "c"] {
        send(cluster.leader(), value).unwrap();
    }
    let (first, producer) = (cluster.leader_id().unwrap(), cluster.leader().producer());
    cluster.crash(first);
    assert!(matches!(producer.send(Record::to("orders").value("x")), Err(Error::Closed)));
    assert!(!cluster.is_running(first) && cluster.status(first).is_none());
    assert!(cluster.run_until(has_leader, 10 * SECOND));
    assert_ne!(cluster.leader_id(), Some(first));
    assert_eq!(read(cluster.leader()), ["a", "b", "c"]);
    assert_eq!(send(cluster.leader(), "d").unwrap(), 3);
    // The one that crashed catches up.
    cluster.restart(first);
    assert!(cluster.run_until(|it| read(it.broker(first)).len() == 4, 10 * SECOND));
    assert_eq!(cluster.produced("orders").len(), 4);
}

/// What a service does: it tries one broker after the other, and knows nothing of a test.
fn send_anywhere(brokers: &[Broker], value: &str) -> Result<u64, Error> {
    let mut last = Error::Timeout;
    for attempt in 0..200 {
        match send(&brokers[attempt % brokers.len()], value) {
            Ok(offset) => return Ok(offset),
            // That of a member which was killed.
            Err(Error::Closed) => {}
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Nobody but the service's own calls moves the time: a refused call takes some.
#[test]
fn a_service_that_tries_again_finds_the_next_leader() {
    let cluster = led();
    let brokers = NODES.map(|node| cluster.broker(node).clone());
    assert_eq!(send_anywhere(&brokers, "a").unwrap(), 0);
    cluster.crash(cluster.leader_id().unwrap());
    assert_eq!(send_anywhere(&brokers, "b").unwrap(), 1);
    cluster.crash(cluster.leader_id().unwrap());
    // The last one cannot lead alone.
    let error = send_anywhere(&brokers, "c").unwrap_err();
    assert!(
        matches!(error, Error::NotLeader { .. } | Error::NotEnoughReplicas { .. }),
        "{error:?}"
    );
    assert!(error.is_definite());
}

#[test]
fn a_leader_that_is_cut_off_refuses_and_another_one_leads() {
    let cluster = led();
    let old = cluster.leader_id().unwrap();
    let before = cluster.broker(old).clone();
    send(&before, "a").unwrap();
    cluster.isolate(old);
    // It has not noticed yet: it appends, waits as long as it may, and does not know the outcome.
    let began = cluster.clock().monotonic();
    let unknown = send(&before, "b").unwrap_err();
    assert!(matches!(unknown, Error::Timeout) && !unknown.is_definite(), "{unknown:?}");
    assert!(cluster.clock().monotonic() >= began + 30 * SECOND);
    // Meanwhile the others have elected.
    let new = cluster.leader_id().unwrap();
    assert_ne!(new, old);
    let refused = send(&before, "c").unwrap_err();
    assert!(
        matches!(refused, Error::NotEnoughReplicas { reachable: 1, required: 2 }),
        "{refused:?}"
    );
    send(cluster.leader(), "d").unwrap();
    cluster.heal();
    // It follows, and what it had alone is removed there.
    let same = |it: &TestCluster| read(it.broker(old)) == ["a", "d"];
    assert!(cluster.run_until(same, 10 * SECOND), "{:?}", read(cluster.broker(old)));
    let refused = send(&before, "e").unwrap_err();
    assert!(matches!(refused, Error::NotLeader { leader: Some(it) } if it == new), "{refused:?}");
}

/// The leadership ends while a call waits.
#[test]
fn a_call_that_waits_while_another_member_leads_hears_that_the_leadership_is_lost() {
    let cluster = led();
    let old = cluster.leader_id().unwrap();
    cluster.isolate(old);
    cluster.network().heal_after(5 * SECOND);
    let lost = send(cluster.broker(old), "x").unwrap_err();
    assert!(matches!(lost, Error::LeadershipLost) && !lost.is_definite(), "{lost:?}");
    assert!(cluster.run_until(|it| it.leader_id().is_some_and(|it| it != old), SECOND));
    assert!(read(cluster.leader()).is_empty());
}

#[test]
fn a_leader_gives_up_its_leadership_on_demand() {
    let cluster = led();
    let old = cluster.leader_id().unwrap();
    let delivery = cluster.leader().producer().enqueue(Record::to("orders").value("x")).unwrap();
    cluster.member(old).faults().lose_leadership();
    let lost = delivery.wait().unwrap_err();
    assert!(matches!(lost, Error::LeadershipLost), "{lost:?}");
    assert!(matches!(send(cluster.broker(old), "x"), Err(Error::NotLeader { .. })));
    assert!(cluster.run_until(|it| it.leader_id().is_some_and(|it| it != old), 5 * SECOND));
    let node = follower(&cluster);
    let message = panic_of(|| cluster.member(node).faults().lose_leadership());
    assert!(message.contains("does not lead"), "{message}");
}

#[test]
fn a_group_continues_at_the_new_leader_where_it_had_committed() {
    let cluster = led();
    for value in ["a", "b", "c", "d"] {
        send(cluster.leader(), value).unwrap();
    }
    let open = |it: &Broker| {
        it.consumer("workers").subscribe(["orders"]).max_poll_records(2).open().unwrap()
    };
    let mut worker = open(cluster.leader());
    assert_eq!(worker.poll(SECOND).unwrap().len(), 2);
    worker.commit().unwrap();
    assert_eq!(worker.poll(SECOND).unwrap().len(), 2); // not committed
    cluster.crash(cluster.leader_id().unwrap());
    assert!(matches!(worker.poll(SECOND), Err(Error::Closed)));
    assert!(cluster.run_until(has_leader, 10 * SECOND));
    let mut worker = open(cluster.leader());
    let batch = worker.poll(SECOND).unwrap();
    assert_eq!(batch.iter().map(|message| message.offset()).collect::<Vec<_>>(), [2, 3]);
}

/// Timeouts are the cluster's time, so that nothing waits.
#[test]
fn a_poll_lets_the_members_work_and_ends_at_its_timeout() {
    let cluster = led();
    let node = follower(&cluster);
    let mut reader = cluster.broker(node).reader().subscribe(["orders"]).open().unwrap();
    let before = cluster.clock().monotonic();
    assert!(reader.poll(MINUTE).unwrap().is_empty());
    let took = passed(&cluster, before);
    assert!(took >= MINUTE && took < MINUTE + SECOND, "{took:?}");
    send(cluster.leader(), "a").unwrap();
    let before = cluster.clock().monotonic();
    assert_eq!(reader.poll(MINUTE).unwrap().len(), 1);
    assert!(passed(&cluster, before) < SECOND);
    assert!(matches!(reader.recv_timeout(SECOND), Ok(None)));
    // Also where the caller does not wait.
    send(cluster.leader(), "b").unwrap();
    let found = (0..1_000).find_map(|_| reader.try_recv().unwrap());
    assert_eq!(found.unwrap().offset(), 1);
}

#[test]
fn a_member_that_lags_behind_catches_up() {
    let cluster = led();
    let late = follower(&cluster);
    cluster.isolate(late);
    for _ in 0..50 {
        send(cluster.leader(), "x").unwrap();
    }
    cluster.advance(SECOND);
    let of_late = |it: &TestCluster| {
        let status = it.leader().replication().unwrap().status();
        status.members.into_iter().find(|member| member.id == late).unwrap()
    };
    let status = of_late(&cluster);
    assert!(status.state == MemberState::Unreachable && status.lag_records >= 50, "{status:?}");
    cluster.heal();
    assert!(cluster.run_until(|it| of_late(it).lag_records == 0, 10 * SECOND));
    assert_eq!(read(cluster.broker(late)).len(), 50);
}

/// Frames pass from the leader to the others, and not back.
#[test]
fn a_cut_in_one_direction_is_one() {
    let cluster = led();
    let leader = cluster.leader_id().unwrap();
    let others: Vec<NodeId> = NODES.into_iter().filter(|node| *node != leader).collect();
    cluster.network().cut(&others, &[leader]);
    cluster.advance(5 * SECOND);
    // The others hear it, so nobody else wants to lead.
    assert_eq!(cluster.leader_id(), None);
    assert_eq!(cluster.status(others[0]).unwrap().leader, Some(leader));
    assert!(matches!(send(cluster.broker(leader), "x"), Err(Error::NotEnoughReplicas { .. })));
    cluster.heal();
    assert!(cluster.run_until(has_leader, 5 * SECOND));
    assert_eq!(cluster.leader_id(), Some(leader));
}

#[test]
fn the_test_says_who_leads_if_the_members_do_not_elect() {
    let cluster = TestCluster::builder(3).elect(None).start();
    cluster.advance(MINUTE);
    assert_eq!(cluster.leader_id(), None);
    let message = panic_of(|| drop(cluster.leader().clone()));
    assert!(message.starts_with("no member leads:\n  1: Follower of epoch 0"), "{message}");
    assert_eq!(cluster.lead(NodeId(2)).unwrap(), LeaderEpoch(1));
    assert_eq!(cluster.leader_id(), Some(NodeId(2)));
    cluster.leader().ensure_topic("orders", TopicConfig::new(1)).unwrap();
    send(cluster.leader(), "a").unwrap();
    assert_eq!(cluster.lead(NodeId(3)).unwrap(), LeaderEpoch(2));
    assert_eq!(cluster.leader_id(), Some(NodeId(3)));
    assert_eq!(read(cluster.leader()), ["a"]);
    cluster.crash(NodeId(3));
    cluster.advance(MINUTE);
    assert_eq!(cluster.leader_id(), None);
}

#[test]
fn acknowledged_records_survive_a_power_cut_of_all_members() {
    for seed in 0..10 {
        let cluster = TestCluster::builder(3).seed(seed).start();
        cluster.leader().ensure_topic("orders", TopicConfig::new(1)).unwrap();
        for value in ["a", "b", "c"] {
            send(cluster.leader(), value).unwrap();
        }
        for (number, node) in (0..).zip(NODES) {
            cluster.power_cut(node, seed * 3 + number);
        }
        for node in NODES {
            cluster.restart(node);
        }
        assert!(cluster.run_until(has_leader, MINUTE), "seed {seed}: {cluster:?}");
        assert_eq!(read(cluster.leader()), ["a", "b", "c"], "seed {seed}");
    }
}

#[test]
fn a_member_whose_machine_is_lost_is_replaced() {
    let cluster = led();
    send(cluster.leader(), "a").unwrap();
    let lost = follower(&cluster);
    cluster.wipe(lost);
    cluster.restart(lost);
    let role = |it: &TestCluster| it.status(lost).unwrap().role;
    assert!(cluster.run_until(|it| role(it) == Role::Learner, 10 * SECOND));
    cluster.leader().replication().unwrap().replace_member(lost).unwrap();
    assert!(cluster.run_until(|it| role(it) == Role::Follower, 10 * SECOND));
    assert!(cluster.run_until(|it| read(it.broker(lost)) == ["a"], 10 * SECOND));
}

/// The frame was lost by which a member said that it had adopted the epoch in a log in which it lacked
/// nothing. It did not ask again, and the leader took appends that nobody acknowledged.
#[test]
fn a_leader_may_write_also_if_any_frame_to_it_was_lost() {
    for steps in 0..60 {
        let cluster = TestCluster::builder(3).elect(None).start();
        let [first, second, third] = NODES;
        cluster.lead(first).unwrap();
        cluster.leader().ensure_topic("orders", TopicConfig::new(1)).unwrap();
        send(cluster.leader(), "a").unwrap();
        cluster.advance(SECOND);
        cluster.broker(second).replication().unwrap().lead(LeaderEpoch(2)).unwrap();
        let mut left = steps;
        let is_over = |_: &TestCluster| {
            left -= 1;
            left < 0
        };
        assert!(cluster.run_until(is_over, MINUTE));
        cluster.network().cut(&[first, third], &[second]);
        cluster.advance(Duration::from_millis(50));
        cluster.heal();
        let leads = |it: &TestCluster| it.leader_id() == Some(second);
        assert!(cluster.run_until(leads, 5 * SECOND), "after {steps} steps: {cluster:?}");
        assert_eq!(send(cluster.leader(), "b").unwrap(), 1, "after {steps} steps");
    }
}

/// Administration waits for a majority, too; a deletion under a lock.
#[test]
fn topics_are_changed_at_the_leader_and_followed_by_all() {
    let cluster = led();
    let admin = cluster.leader().admin();
    admin.add_partitions("orders", 3).unwrap();
    admin.alter_topic("orders", |config| config.retention(MINUTE)).unwrap();
    send(cluster.leader(), "a").unwrap();
    cluster.leader().replication().unwrap().confirm().unwrap();
    let count =
        |it: &TestCluster, node| it.broker(node).topic("orders").map(|it| it.partitions()).ok();
    assert!(cluster.run_until(|it| NODES.iter().all(|node| count(it, *node) == Some(3)), SECOND));
    admin.delete_topic("orders").unwrap();
    assert!(cluster.run_until(|it| NODES.iter().all(|node| count(it, *node).is_none()), SECOND));
    // Cut off, and another one leads before the deletion has a majority.
    cluster.leader().ensure_topic("orders", TopicConfig::new(1)).unwrap();
    let old = cluster.leader_id().unwrap();
    cluster.isolate(old);
    cluster.network().heal_after(5 * SECOND);
    let lost = cluster.broker(old).admin().delete_topic("orders").unwrap_err();
    assert!(matches!(lost, Error::LeadershipLost), "{lost:?}");
    assert!(cluster.run_until(has_leader, 5 * SECOND));
    assert!(cluster.leader().topic("orders").is_ok());
}

#[test]
fn a_future_is_ready_when_it_is_polled() {
    let cluster = led();
    let delivery = cluster.leader().producer().enqueue(Record::to("orders").value("a")).unwrap();
    assert_eq!(pollster::block_on(delivery).unwrap().offset, 0);
    // A wait with a timeout is one of the cluster's time.
    cluster.isolate(cluster.leader_id().unwrap());
    let node = cluster.leader_id().unwrap();
    let delivery =
        cluster.broker(node).producer().enqueue(Record::to("orders").value("b")).unwrap();
    let before = cluster.clock().monotonic();
    assert!(delivery.wait_timeout(3 * SECOND).is_none());
    assert_eq!(cluster.clock().monotonic(), before + 3 * SECOND);
    cluster.network().heal_after(SECOND);
    let answer = pollster::block_on(delivery).unwrap_err();
    assert!(matches!(answer, Error::LeadershipLost), "{answer:?}");
}

#[test]
fn threads_share_the_cluster() {
    let cluster = led();
    let leader = cluster.leader();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    send(leader, "x").unwrap();
                }
            });
        }
    });
    assert_eq!(cluster.produced("orders").len(), 200);
}

#[test]
fn mistakes_of_a_test_say_what_is_wrong() {
    let cluster = led();
    let node = follower(&cluster);
    cluster.crash(node);
    assert!(panic_of(|| cluster.crash(node)).contains("does not run"));
    assert!(panic_of(|| drop(cluster.broker(NodeId(9)).clone())).contains("is none of"));
    cluster.restart(node);
    cluster.restart(node); // kills it first
    let refused = panic_of(|| drop(TestCluster::new(8)));
    assert!(refused.contains("at most 7"), "{refused}");
    // Closed by the code under test.
    cluster.broker(node).clone().close().unwrap();
    cluster.advance(SECOND);
    cluster.restart(node);
    assert!(cluster.run_until(|it| it.status(node).unwrap().leader.is_some(), 5 * SECOND));
    // Nobody lets the members work after it.
    let handle = cluster.leader().clone();
    drop(cluster);
    assert!(matches!(send(&handle, "x"), Err(Error::Closed)));
}

/// A call that could never return.
#[test]
fn a_call_that_would_hang_panics() {
    let cluster = led();
    let mut reader = cluster.leader().reader().subscribe(["orders"]).open().unwrap();
    let message = panic_of(|| drop(reader.recv()));
    assert!(message.contains("a call has waited"), "{message}");
}

#[test]
fn a_network_alone_delivers_what_is_due() {
    let network = SimNetwork::new(3);
    let clock = network.clock();
    let open = |node: NodeId| {
        let replication = logpond::Replication::new(node, NODES, network.transport(node));
        network.attach(node, replication.handle());
        let settings = Broker::builder().in_memory().clock(clock.clone()).background(false);
        settings.seed(node.0).replication(replication).open().unwrap()
    };
    let brokers = NODES.map(open);
    let ms = Duration::from_millis;
    network.links(Link::default().delay(ms(5)..ms(6)));
    assert!(!network.step() && network.next_arrival().is_none());
    let leader = brokers[0].replication().unwrap();
    leader.lead(LeaderEpoch(1)).unwrap();
    let next = network.next_arrival().unwrap();
    assert!(next >= ms(5) && next < ms(6) && !network.step());
    clock.advance(next);
    assert!(network.step());
    brokers.iter().zip(NODES).skip(1).for_each(|(_, node)| network.detach(node));
    clock.advance(ms(1));
    assert!(network.step() && !network.step());
    let stats = network.stats();
    assert_eq!((stats.sent, stats.arrived, stats.lost), (2, 1, 1));
    let alone = brokers[1].producer_builder().acks(Acks::Leader).build();
    assert!(alone.is_ok());
}

//! Goal: whatever happens to a cluster, no acknowledged record is lost or moves, no reader sees what is
//! removed later, and no group skips a record that it has not committed.
//!
//! Method: random calls of the public interface at any member, while members crash, lose power, are cut off
//! and started again, leaders give way, and the network loses, repeats, delays and reorders frames. Each
//! record has a value of its own. What a reader has seen once at an offset must be there for every other
//! reader, and what was acknowledged must be at its offset. At the end all trouble ceases; then a member
//! leads, and all members come to show the same. A seed decides everything, the clock is the cluster's, and
//! the elector and the whole driver of replication run.
//!
//! ```text
//! LOGPOND_CLUSTERS=3000 cargo test --release --features testing,replication --test testing walk -- --nocapture
//! LOGPOND_SEED=17 cargo test --features testing,replication --test testing walk -- --nocapture
//! ```
//!
//! Not covered: damage on disks, lost machines, full disks, a second thread.

use std::collections::BTreeMap;
use std::time::Duration;

use logpond::testing::{Link, TestCluster};
use logpond::{
    Acks, Broker, Consumer, Delivery, Durability, Error, NodeId, Record, Role, TopicConfig,
};

const STEPS: u64 = 150;
const PARTITIONS: u32 = 2;
const TOPIC: &str = "orders";

/// Numbers from a seed (`SplitMix64`).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn millis(&mut self, below: u64) -> Duration {
        Duration::from_millis(self.below(below))
    }

    fn share(&mut self, most: u32) -> f64 {
        f64::from(u32::try_from(self.below(u64::from(most) + 1)).unwrap()) / 100.0
    }
}

/// Partition and offset.
type At = (u32, u64);

/// What must hold from now on.
#[derive(Default)]
struct Truth {
    /// Acknowledged, or seen by a reader.
    known: BTreeMap<At, String>,
    acknowledged: u64,
    seen: u64,
    /// Of the group, by partition: the greatest commit that was acknowledged, and the greatest that was
    /// tried since.
    committed: BTreeMap<u32, (u64, u64)>,
}

impl Truth {
    fn note(&mut self, at: At, value: &str, what: &str) {
        let known = self.known.entry(at).or_insert_with(|| value.to_owned());
        assert_eq!(known, value, "{what}: another record is at {at:?}");
    }
}

struct World {
    cluster: TestCluster,
    chance: Chance,
    durability: Durability,
    truth: Truth,
    sent: u64,
    leaders: u64,
    waiting: Vec<(String, Delivery)>,
    group: Option<(NodeId, Consumer)>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut chance = Chance(seed);
        let members = if chance.below(4) == 0 { 5 } else { 3 };
        let durability = if chance.below(2) == 0 { Durability::Sync } else { Durability::Os };
        let builder = TestCluster::builder(members).seed(seed);
        let cluster = builder.brokers(move |_, settings| settings.durability(durability)).start();
        cluster.leader().ensure_topic(TOPIC, TopicConfig::new(PARTITIONS)).unwrap();
        let (waiting, truth) = (Vec::new(), Truth::default());
        Self { cluster, chance, durability, truth, sent: 0, leaders: 0, waiting, group: None }
    }

    fn any_node(&mut self) -> NodeId {
        let nodes = self.cluster.nodes();
        nodes[usize::try_from(self.chance.below(nodes.len() as u64)).unwrap()]
    }

    /// The leader mostly, or any other member.
    fn target(&mut self) -> NodeId {
        let leader = self.cluster.leader_id();
        let any = self.any_node();
        leader.filter(|_| self.chance.below(5) > 0).unwrap_or(any)
    }

    fn value(&mut self) -> (u32, String) {
        self.sent += 1;
        let partition = u32::try_from(self.chance.below(u64::from(PARTITIONS))).unwrap();
        (partition, format!("record {}", self.sent))
    }

    // ---- what a user does ------------------------------------------------------------------------

    fn send(&mut self) {
        let (target, (partition, value)) = (self.target(), self.value());
        let producer = self.cluster.broker(target).producer();
        match producer.send(Record::to(TOPIC).partition(partition).value(&value)) {
            Ok(sent) => {
                self.truth.note((partition, sent.offset), &value, "acknowledged");
                self.truth.acknowledged += 1;
            }
            Err(error) => check_expected(&error),
        }
    }

    fn enqueue(&mut self) {
        let target = self.target();
        for _ in 0..=self.chance.below(5) {
            let (partition, value) = self.value();
            let producer = self.cluster.broker(target).producer();
            match producer.enqueue(Record::to(TOPIC).partition(partition).value(&value)) {
                Ok(delivery) => self.waiting.push((value, delivery)),
                Err(error) => check_expected(&error),
            }
        }
    }

    fn send_to_one(&mut self) {
        let (target, (partition, value)) = (self.target(), self.value());
        let broker = self.cluster.broker(target);
        let Ok(producer) = broker.producer_builder().acks(Acks::Leader).build() else { return };
        let sent = producer.send(Record::to(TOPIC).partition(partition).value(&value));
        if let Err(error) = sent {
            check_expected(&error);
        }
    }

    /// What has become of records that nobody has waited for.
    fn look_at_deliveries(&mut self) {
        for (value, delivery) in std::mem::take(&mut self.waiting) {
            match delivery.wait_timeout(Duration::ZERO) {
                None => self.waiting.push((value, delivery)),
                Some(Ok(sent)) => {
                    self.truth.note((sent.partition, sent.offset), &value, "delivered");
                    self.truth.acknowledged += 1;
                }
                Some(Err(error)) => check_expected(&error),
            }
        }
    }

    /// All that readers of a member see.
    fn read(&mut self, node: NodeId) {
        if !self.cluster.is_running(node) {
            return;
        }
        let Ok(all) = read_all(self.cluster.broker(node)) else { return };
        for (at, value) in all {
            self.truth.note(at, &value, &format!("read at {node}"));
            self.truth.seen += 1;
        }
    }

    /// A worker of the group reads and commits; at the leader, as it knows it.
    fn work(&mut self) {
        let target = self.target();
        if self.group.as_ref().is_none_or(|(at, _)| *at != target) {
            let broker = self.cluster.broker(target);
            let opened = broker.consumer("workers").subscribe([TOPIC]).max_poll_records(3).open();
            let Ok(consumer) = opened else { return };
            self.group = Some((target, consumer));
        }
        let Some((_, consumer)) = &mut self.group else { return };
        let batch = match consumer.poll(Duration::from_millis(10)) {
            Ok(batch) => batch,
            Err(error) => {
                check_expected(&error);
                self.group = None;
                return;
            }
        };
        for (partition, mut messages) in batch.by_partition() {
            let Some(first) = messages.next() else { continue };
            let value = String::from_utf8(first.value().unwrap().to_vec()).unwrap();
            let at = (partition.partition, first.offset());
            self.truth.note(at, &value, "polled");
            let (_, tried) = self.truth.committed.get(&at.0).copied().unwrap_or_default();
            assert!(at.1 <= tried, "the group skips what lies between {tried} and {at:?}");
        }
        let next = batch.next_offsets();
        let is_stored = match consumer.commit() {
            Ok(()) => true,
            Err(error) => {
                check_expected(&error);
                self.group = None;
                false
            }
        };
        for (partition, next) in next {
            let (done, tried) = self.truth.committed.entry(partition.partition).or_default();
            *tried = next.max(*tried);
            if is_stored {
                (*done, *tried) = (next, next);
            }
        }
    }

    // ---- what happens -----------------------------------------------------------------------------

    fn crash(&mut self) {
        let node = self.any_node();
        if !self.cluster.is_running(node) {
            return;
        }
        let seed = self.chance.next();
        if self.chance.below(2) == 0 && self.may_lose_power() {
            self.cluster.power_cut(node, seed);
        } else {
            self.cluster.crash(node);
        }
    }

    /// At `Sync` always. At `Os` a minority may lose what was not synced, until it has it again.
    fn may_lose_power(&self) -> bool {
        let is_whole = |node: NodeId| {
            let status = self.cluster.status(node);
            status.is_some_and(|it| matches!(it.role, Role::Leader | Role::Follower))
        };
        self.durability == Durability::Sync || self.cluster.nodes().into_iter().all(is_whole)
    }

    fn start(&mut self) {
        let node = self.any_node();
        if !self.cluster.is_running(node) {
            self.cluster.restart(node);
        }
    }

    fn close(&mut self) {
        let node = self.any_node();
        if self.cluster.is_running(node) {
            let _ = self.cluster.broker(node).clone().close();
            self.cluster.restart(node);
        }
    }

    fn cut(&mut self) {
        let (one, other) = (self.any_node(), self.any_node());
        match self.chance.below(3) {
            0 => self.cluster.isolate(one),
            1 => self.cluster.partition(&[one], &[other]),
            _ => self.cluster.network().cut(&[one], &[other]),
        }
        if self.chance.below(2) == 0 {
            let after = self.chance.millis(5_000);
            self.cluster.network().heal_after(after);
        }
    }

    fn change_weather(&mut self) {
        let chance = &mut self.chance;
        let (loss, repeat, reorder) = (chance.share(30), chance.share(20), chance.share(50));
        let (least, most) = (chance.millis(10), chance.millis(80));
        let link = Link::default().loss(loss).repeat(repeat).reorder(reorder);
        let link = link.delay(least..least + most);
        if chance.below(3) == 0 {
            let (from, to) = (self.any_node(), self.any_node());
            self.cluster.network().link(from, to, link);
        } else {
            self.cluster.network().links(link);
        }
    }

    fn change_leader(&mut self) {
        let Some(leader) = self.cluster.leader_id() else { return };
        if self.chance.below(2) == 0 {
            self.cluster.member(leader).faults().lose_leadership();
        } else {
            let node = self.any_node();
            let _ = self.cluster.is_running(node).then(|| self.cluster.lead(node));
        }
    }

    fn step(&mut self) {
        match self.chance.below(100) {
            0..30 => self.send(),
            30..38 => self.enqueue(),
            38..42 => self.send_to_one(),
            42..54 => self.work(),
            54..66 => {
                let node = self.any_node();
                self.read(node);
            }
            66..69 => self.crash(),
            69..76 => self.start(),
            76..77 => self.close(),
            77..80 => self.cut(),
            80..83 => self.cluster.heal(),
            83..86 => self.change_weather(),
            86..88 => self.change_leader(),
            _ => {
                let time = self.chance.millis(1_500);
                self.cluster.advance(time);
            }
        }
        self.look_at_deliveries();
    }

    /// All trouble ceases.
    fn settle(&mut self) {
        let cluster = &self.cluster;
        cluster.heal();
        let nodes = cluster.nodes();
        for from in &nodes {
            for to in &nodes {
                cluster.network().link(*from, *to, Link::default());
            }
        }
        nodes
            .iter()
            .filter(|node| !cluster.is_running(**node))
            .for_each(|node| cluster.restart(*node));
        let minute = Duration::from_secs(60);
        let is_led = cluster.run_until(|it| it.leader_id().is_some(), minute);
        assert!(is_led, "nobody leads: {cluster:?}");
        // Its own, after which it knows how far a majority has everything.
        for partition in 0..PARTITIONS {
            let value = format!("last of {partition}");
            let record = || Record::to(TOPIC).partition(partition).value(&value);
            let sent = (0..100).find_map(|_| {
                // The first one may be deposed by frames that were late.
                let _ = self.cluster.run_until(|it| it.leader_id().is_some(), minute);
                let leader = self.cluster.leader_id()?;
                self.cluster.broker(leader).producer().send(record()).ok()
            });
            let sent = sent.expect("the leader takes no record");
            self.truth.note((partition, sent.offset), &value, "the last one");
        }
        let all = |node: NodeId| read_all(self.cluster.broker(node)).unwrap_or_default();
        let is_same = |it: &TestCluster| {
            let Some(leader) = it.leader_id() else { return false };
            let of_leader = all(leader);
            nodes.iter().all(|node| all(*node) == of_leader)
        };
        assert!(self.cluster.run_until(is_same, minute), "members differ: {:?}", self.cluster);
        let found: BTreeMap<At, String> =
            all(self.cluster.leader_id().unwrap()).into_iter().collect();
        for (at, value) in &self.truth.known {
            assert_eq!(found.get(at), Some(value), "at {at:?}");
        }
        let broker = self.cluster.leader();
        for (partition, (done, tried)) in &self.truth.committed {
            let group = broker.admin().describe_group("workers");
            let offsets = group.map(|group| group.offsets).unwrap_or_default();
            let of = offsets.iter().find(|it| it.partition.partition == *partition);
            let committed = of.and_then(|it| it.committed).unwrap_or(0);
            assert!((*done..=*tried).contains(&committed), "{partition}: {committed}");
        }
    }
}

/// What a caller may hear while members crash and are cut off.
fn check_expected(error: &Error) {
    let is_expected = matches!(
        error,
        Error::NotLeader { .. }
            | Error::NotEnoughReplicas { .. }
            | Error::LeadershipLost
            | Error::Timeout
            | Error::Closed
            | Error::UnknownTopic(_)
            | Error::Rebalanced { .. }
    );
    assert!(is_expected, "unexpected: {error:?}");
}

fn read_all(broker: &Broker) -> logpond::Result<Vec<(At, String)>> {
    let mut all = Vec::new();
    for partition in broker.topic(TOPIC)?.iter() {
        let mut from = partition.log_start_offset();
        loop {
            let batch = partition.read(from, usize::MAX)?;
            let Some(last) = batch.iter().last() else { break };
            from = last.next_offset();
            let read = batch.iter().map(|message| {
                let value = message.value().unwrap_or_default().to_vec();
                ((partition.number(), message.offset()), String::from_utf8(value).unwrap())
            });
            all.extend(read);
        }
    }
    Ok(all)
}

/// A run, and what remains of it: that two runs of one seed are the same.
fn walk(seed: u64) -> (u64, u64, u64, u64) {
    let mut world = World::new(seed);
    let mut leader = None;
    for _ in 0..STEPS {
        world.step();
        let now = world.cluster.leader_id();
        if now.is_some() && now != leader {
            (world.leaders, leader) = (world.leaders + 1, now);
        }
    }
    world.settle();
    let Truth { acknowledged, seen, .. } = world.truth;
    (acknowledged, seen, world.leaders, world.cluster.network().trace())
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

#[test]
fn walks_of_clusters_lose_nothing() {
    let one = variable("LOGPOND_SEED");
    let seeds = one.map_or(0..variable("LOGPOND_CLUSTERS").unwrap_or(40), |seed| seed..seed + 1);
    let (mut acknowledged, mut seen, mut leaders) = (0, 0, 0);
    for seed in seeds.clone() {
        let walked = std::panic::catch_unwind(|| walk(seed));
        let Ok(sums) = walked else { panic!("LOGPOND_SEED={seed} fails: its message is above") };
        acknowledged += sums.0;
        seen += sums.1;
        leaders += sums.2;
    }
    let count = seeds.count();
    eprintln!("{count} clusters: {acknowledged} acknowledged, {seen} seen, {leaders} leaderships");
    assert!(one.is_some() || acknowledged > 0 && seen > 0 && leaders > 0);
}

#[test]
fn a_walk_is_the_same_every_time() {
    for seed in [3, 4] {
        assert_eq!(walk(seed), walk(seed), "seed {seed}");
    }
}

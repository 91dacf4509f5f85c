//! Three copies in one process, over channels: what they cost.
//!
//! - A stream of records that are not waited for one by one, acknowledged by a majority; beside it, in
//!   turns, the same records appended to three brokers that know nothing of each other, at once. And how
//!   many records a follower lacks meanwhile, at most.
//! - The same at `Sync`, by eight threads that wait.
//! - One record at a time, beside a bare round trip of two threads that sleep in between.
//! - From `lead` to the first acknowledged record, by the number of partitions.
//!
//! `-- stream`, `synced`, `lone` and `failover` after the command run only that part.
//!
//! All members, and what they are compared with, share the processors of the machine.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot continue must not continue"
)]
#![allow(clippy::cast_precision_loss, reason = "figures have three digits")]

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::Duration;

use logpond::{
    Broker, Durability, LeaderEpoch, NodeId, Producer, Record, Replication, TopicConfig,
};

use channels::Channels;
use common::{Bench, Rounds, TOPIC, latencies, now, per_second, quantile, seconds, times};

#[path = "../examples/three_members/channels.rs"]
mod channels;
mod common;
#[path = "replication/leading.rs"]
mod leading;

const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];
const VALUE: [u8; 1024] = [7; 1024];
const PATIENCE: Duration = Duration::from_secs(60);
/// How many records of a stream are not acknowledged yet, at most.
const IN_FLIGHT: usize = 1_000;

/// A part, and its name in the arguments.
type Part = (&'static str, fn(&Bench));

fn main() {
    let bench = Bench::start("replication", "Os and Sync, by a majority of three");
    let parts: [Part; 4] = [
        ("stream", stream),
        ("synced", synced),
        ("lone", one_by_one),
        ("failover", leading::failover),
    ];
    let named: Vec<String> = std::env::args().skip(1).filter(|it| !it.starts_with('-')).collect();
    for (name, part) in parts {
        if named.is_empty() || named.iter().any(|it| it == name) {
            part(&bench);
        }
    }
}

struct Group {
    brokers: Vec<Broker>,
    dir: std::path::PathBuf,
}

impl Group {
    fn new(dir: &Path, durability: Durability) -> Self {
        Self::with_patience(dir, durability, PATIENCE)
    }

    /// `ack_timeout`: how long calls wait for the followers.
    fn with_patience(dir: &Path, durability: Durability, ack_timeout: Duration) -> Self {
        let dir = dir.join("group");
        let channels = Channels::new(&NODES);
        let open = |node: NodeId| {
            let replication =
                Replication::new(node, NODES, channels.of(node)).ack_timeout(ack_timeout);
            channels.attach(node, replication.handle());
            let dir = dir.join(node.to_string());
            let builder = Broker::builder().data_dir(dir).durability(durability);
            builder.replication(replication).open().expect("a member opens")
        };
        let group = Self { brokers: NODES.into_iter().map(open).collect(), dir: dir.clone() };
        group.lead(0, 1);
        group
    }

    fn lead(&self, index: usize, epoch: u32) {
        let member = self.brokers[index].replication().expect("it has one");
        member.lead(LeaderEpoch(epoch)).expect("it may lead");
        member.wait_leading(PATIENCE).expect("it leads");
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for broker in self.brokers.drain(..).rev() {
            drop(broker.close());
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Three brokers that know nothing of each other.
fn three_alone(dir: &Path, durability: Durability) -> Vec<Broker> {
    let open = |number: u32| {
        let dir = dir.join(format!("alone-{number}"));
        let _ = std::fs::remove_dir_all(&dir);
        let builder = Broker::builder().data_dir(dir).durability(durability);
        let broker = builder.open().expect("a broker opens");
        broker.ensure_topic(TOPIC, TopicConfig::new(1)).expect("a topic can be made");
        broker
    };
    (1..=3).map(open).collect()
}

/// Sends so many records without waiting for each.
fn send_all(producer: &Producer, records: usize) {
    let mut flight = std::collections::VecDeque::with_capacity(IN_FLIGHT);
    for _ in 0..records {
        if flight.len() == IN_FLIGHT {
            let oldest: logpond::Delivery = flight.pop_front().expect("there are some");
            oldest.wait().expect("it is acknowledged");
        }
        flight.push_back(producer.enqueue(record()).expect("it is appended"));
    }
    for delivery in flight {
        delivery.wait().expect("it is acknowledged");
    }
}

fn record() -> Record<'static> {
    Record::to(TOPIC).value(&VALUE)
}

fn stream(bench: &Bench) {
    let records = bench.scale(300_000, 300);
    let group = Group::new(bench.dir(), Durability::Os);
    group.brokers[0].ensure_topic(TOPIC, TopicConfig::new(1)).expect("a topic can be made");
    let alone = three_alone(bench.dir(), Durability::Os);
    let (mut replicated, mut apart) = (Rounds::default(), Rounds::default());
    let mut lag = Rounds::default();
    for _ in 0..bench.scale(7, 1) {
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let watched = scope.spawn(|| greatest_lag(&group, &is_over));
            let start = now();
            send_all(&group.brokers[0].producer(), records);
            replicated.push(records as f64 / start.elapsed().as_secs_f64());
            is_over.store(true, Ordering::Relaxed);
            lag.push(watched.join().expect("nobody panics") as f64);
        });
        let start = now();
        thread::scope(|scope| {
            for broker in &alone {
                scope.spawn(|| send_all(&broker.producer(), records));
            }
        });
        apart.push(records as f64 / start.elapsed().as_secs_f64());
    }
    println!("\n  stream of 1 KiB at Os, {records} a round, at most {IN_FLIGHT} not acknowledged");
    println!("  three copies                   {}", replicated.show(per_second));
    println!("  three brokers apart, each      {}", apart.show(per_second));
    println!("  the first over the second      {}", replicated.over(&apart).show(times));
    println!(
        "  records that a follower lacks  {}, at most, by round",
        lag.show(|it| format!("{it}"))
    );
}

/// The most records that a follower lacked meanwhile, as the leader sees it. What is shown is made anew
/// ten times a second.
fn greatest_lag(group: &Group, is_over: &AtomicBool) -> u64 {
    let member = group.brokers[0].replication().expect("it has one");
    let mut greatest = 0;
    while !is_over.load(Ordering::Relaxed) {
        let lag = member.status().members.iter().map(|it| it.lag_records).max();
        greatest = greatest.max(lag.unwrap_or(0));
        thread::park_timeout(Duration::from_millis(20));
    }
    greatest
}

fn synced(bench: &Bench) {
    let each = bench.scale(2_000, 5);
    let group = Group::new(bench.dir(), Durability::Sync);
    group.brokers[0].ensure_topic(TOPIC, TopicConfig::new(1)).expect("a topic can be made");
    let alone = three_alone(bench.dir(), Durability::Sync);
    let by_eight = |brokers: &[&Broker]| {
        let start = now();
        thread::scope(|scope| {
            for broker in brokers {
                for _ in 0..8 {
                    scope.spawn(|| {
                        let producer = broker.producer();
                        for _ in 0..each {
                            producer.send(record()).expect("it is sent");
                        }
                    });
                }
            }
        });
        f64::from(8 * each) / start.elapsed().as_secs_f64()
    };
    let (mut replicated, mut apart) = (Rounds::default(), Rounds::default());
    for _ in 0..bench.scale(5, 1) {
        replicated.push(by_eight(&[&group.brokers[0]]));
        apart.push(by_eight(&alone.iter().collect::<Vec<_>>()));
    }
    println!("\n  1 KiB at Sync, eight threads, {each} each");
    println!("  three copies                   {}", replicated.show(per_second));
    println!("  three brokers apart, each      {}", apart.show(per_second));
    println!("  the first over the second      {}", replicated.over(&apart).show(times));
}

/// A number that one thread sets and another one waits for, asleep. (A channel spins first, and two
/// threads with a processor each are then never parked.)
#[derive(Default)]
struct Turn(Mutex<usize>, Condvar);

impl Turn {
    fn set(&self, turn: usize) {
        *self.0.lock().expect("nobody panics") = turn;
        self.1.notify_one();
    }

    fn wait_for(&self, turn: usize) {
        let mut current = self.0.lock().expect("nobody panics");
        while *current != turn {
            current = self.1.wait(current).expect("nobody panics");
        }
    }
}

fn one_by_one(bench: &Bench) {
    let (sends, rounds) = (bench.scale(5_000, 20), bench.scale(5, 1));
    let group = Group::new(bench.dir(), Durability::Os);
    group.brokers[0].ensure_topic(TOPIC, TopicConfig::new(1)).expect("a topic can be made");
    let producer = group.brokers[0].producer();
    let (call, answer) = (Turn::default(), Turn::default());
    let (mut ours, mut bare) = (Rounds::default(), Rounds::default());
    thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 1..=rounds * sends {
                call.wait_for(turn);
                answer.set(turn);
            }
        });
        for round in 0..rounds {
            let mut histogram = latencies();
            for _ in 0..sends {
                let start = now();
                producer.send(record()).expect("it is sent");
                histogram.saturating_record(nanos(start.elapsed()));
            }
            ours.push(quantile(&histogram, 0.5));
            let mut histogram = latencies();
            for turn in 1..=sends {
                let start = now();
                call.set(round * sends + turn);
                answer.wait_for(round * sends + turn);
                histogram.saturating_record(nanos(start.elapsed()));
            }
            bare.push(quantile(&histogram, 0.5));
        }
    });
    println!("\n  one record of 1 KiB at a time at Os, p50");
    println!("  three copies                   {}", ours.show(seconds));
    println!("  bare round trip, parked        {}", bare.show(seconds));
    println!("  the first over the second      {}", ours.over(&bare).show(times));
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

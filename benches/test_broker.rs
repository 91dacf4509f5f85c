//! Test brokers: how long one takes to open, and a thousand tests.
//!
//! A test opens a test broker, makes a topic, sends 100 records and waits for each, reads them as a
//! member of a group, commits, loses the power, and opens the broker again. They run on as many
//! threads as the machine has processors, as `cargo test` runs them. Everything is in memory.
//!
//! With the feature `replication` also a cluster of three: until one leads, and a failover.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(clippy::expect_used, reason = "a benchmark that cannot continue must not continue")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use logpond::testing::TestBroker;
use logpond::{Record, TopicConfig};

use common::{Bench, Rounds, TOPIC, now, seconds};

mod common;

const RECORDS: usize = 100;

fn main() {
    let bench = Bench::start("test_broker", "Sync");
    opening(&bench);
    tests(&bench);
    #[cfg(feature = "replication")]
    clusters(&bench);
}

/// Three members elect, a topic is made, 100 records are sent, one by one, the leader crashes, another
/// one leads, and all records are read there.
#[cfg(feature = "replication")]
fn clusters(bench: &Bench) {
    use logpond::testing::TestCluster;
    let (mut led, mut sent, mut failed_over) =
        (Rounds::default(), Rounds::default(), Rounds::default());
    for seed in 0..bench.scale(200, 3) {
        let start = now();
        let cluster = TestCluster::builder(3).seed(seed).start();
        led.push(start.elapsed().as_secs_f64());
        cluster.leader().ensure_topic(TOPIC, TopicConfig::new(1)).expect("a topic");
        let producer = cluster.leader().producer();
        for _ in 0..RECORDS {
            producer.send(Record::to(TOPIC).key("user-7").value("2 apples")).expect("a send");
        }
        sent.push(start.elapsed().as_secs_f64());
        cluster.crash(cluster.leader_id().expect("a leader"));
        assert!(cluster.run_until(|it| it.leader_id().is_some(), Duration::from_secs(60)));
        assert_eq!(cluster.produced(TOPIC).len(), RECORDS);
        failed_over.push(start.elapsed().as_secs_f64());
    }
    println!("  a cluster of three, one leads           {}", led.show(seconds));
    println!("  and 100 records are at a majority       {}", sent.show(seconds));
    println!("  and the leader dies, another one leads  {}", failed_over.show(seconds));
}

fn opening(bench: &Bench) {
    let (mut opened, mut with_topic) = (Rounds::default(), Rounds::default());
    for _ in 0..bench.scale(2_000, 10) {
        let start = now();
        let broker = TestBroker::new();
        opened.push(start.elapsed().as_secs_f64());
        broker.ensure_topic(TOPIC, TopicConfig::new(1)).expect("a topic");
        with_topic.push(start.elapsed().as_secs_f64());
    }
    println!("\n  opening                                 {}", opened.show(seconds));
    println!("  opening, and a topic of one partition   {}", with_topic.show(seconds));
}

fn tests(bench: &Bench) {
    let count: u64 = bench.scale(1_000, 10);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut took = Rounds::default();
    for _ in 0..bench.scale(5, 1) {
        let next = AtomicU64::new(0);
        let start = now();
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    // The tests share nothing but their number, which is the seed of the power cut.
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= count {
                            break;
                        }
                        test(seed);
                    }
                });
            }
        });
        took.push(start.elapsed().as_secs_f64());
    }
    println!("  {count} tests on {threads} threads              {}", took.show(seconds));
}

fn test(seed: u64) {
    let broker = TestBroker::new();
    broker.ensure_topic(TOPIC, TopicConfig::new(1)).expect("a topic");
    let producer = broker.producer();
    for _ in 0..RECORDS {
        producer.send(Record::to(TOPIC).key("user-7").value("2 apples")).expect("a send");
    }
    let mut consumer = broker.consumer("g").subscribe([TOPIC]).open().expect("a consumer");
    assert_eq!(consumer.poll(Duration::ZERO).expect("a poll").len(), RECORDS);
    consumer.commit().expect("a commit");
    let broker = broker.crash().power_cut(seed).expect("an opening");
    assert_eq!(broker.produced(TOPIC).len(), RECORDS);
}

//! From `lead` to the first acknowledged record, by the number of partitions; no log has diverged.
//!
//! Each log of each member takes a file descriptor: three members with 6,000 partitions are as many as a
//! process may have where its limit is 20,000.

use std::time::Duration;

use logpond::{Durability, TopicConfig};

use super::common::{Bench, Rounds, TOPIC, now, seconds};
use super::{Group, record};

/// Files are made with a few syncs each: a call waits that long for the followers.
const PATIENCE: Duration = Duration::from_secs(600);

pub(crate) fn failover(bench: &Bench) {
    println!("\n  from `lead` to the first acknowledged record, no log has diverged");
    for partitions in [1, 100, bench.scale(1_000, 100), bench.scale(6_000, 100)] {
        let group = Group::with_patience(bench.dir(), Durability::Os, PATIENCE);
        let config = TopicConfig::new(partitions).segment_bytes(64 << 10);
        let start = now();
        group.brokers[0].ensure_topic(TOPIC, config).expect("a topic can be made");
        let made = start.elapsed();
        let mut took = Rounds::default();
        let mut epoch = 1;
        for _ in 0..bench.scale(6, 1) {
            for index in [1, 0] {
                epoch += 1;
                let start = now();
                group.lead(index, epoch);
                let sent = group.brokers[index].producer().send(record());
                sent.expect("the new leader takes it");
                took.push(start.elapsed().as_secs_f64());
            }
        }
        let made = made.as_secs_f64();
        println!("  {partitions:>6} partitions            {}", took.show(seconds));
        println!("         made in                {made:.1} s");
    }
}

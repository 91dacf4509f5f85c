//! The engine's own state when it is large: one million live commits.
//!
//! - Opening: 10,000 groups have committed 100 partitions each. The same directory is opened again
//!   and again, after a clean close.
//! - Commits while the log of commits is cleaned up. One group commits one by one. Each commit
//!   replaces the one before, so that the log grows until all of the million have to be copied;
//!   that files were removed meanwhile is seen in the directory. A second thread, which commits
//!   without waiting, keeps the clean-up at work where commits wait for the disk. Beside it the
//!   same commits with a small state, which is never cleaned up for long.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot continue must not continue"
)]
#![allow(clippy::cast_precision_loss, reason = "figures have three digits")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use logpond::{Broker, Consumer, Durability, Offsets, TopicConfig};

use common::{Bench, Bytes, Rounds, TOPIC, latencies, now, quantile, record, seconds};

mod common;

const PARTITIONS: u32 = 100;

fn main() {
    let bench = Bench::start("state", "Os, and Sync where it says so");
    let groups = bench.scale(10_000_u32, 10);
    let dir = bench.dir().join("large");
    fill(&dir, groups);
    opening(&bench, &dir, groups);
    for durability in [Durability::Os, Durability::Sync] {
        commits(&bench, &dir, durability);
    }
}

fn open(dir: &Path, durability: Durability) -> Broker {
    Broker::builder().data_dir(dir).durability(durability).open().expect("a broker")
}

/// A consumer that commits for some of the partitions.
fn committer(broker: &Broker, group: &str, partitions: u32) -> Consumer {
    let partitions = (0..partitions).map(|number| (TOPIC, number));
    broker.consumer(group).assign(partitions).open().expect("a consumer")
}

fn fill(dir: &Path, groups: u32) {
    let broker = open(dir, Durability::Os);
    broker.ensure_topic(TOPIC, TopicConfig::new(PARTITIONS)).expect("a topic");
    let offsets: Offsets = (0..PARTITIONS).map(|number| ((TOPIC, number).into(), 0)).collect();
    for group in 0..groups {
        let mut consumer = committer(&broker, &format!("group-{group}"), PARTITIONS);
        consumer.commit_offsets(&offsets).expect("a commit");
    }
    broker.close().expect("close");
}

fn opening(bench: &Bench, dir: &Path, groups: u32) {
    let mut took = Rounds::default();
    for _ in 0..bench.scale(7, 1) {
        let start = now();
        let broker = open(dir, Durability::Os);
        took.push(start.elapsed().as_secs_f64());
        broker.close().expect("close");
    }
    let live = groups * PARTITIONS;
    let bytes: u64 =
        segments(dir).iter().filter_map(|it| it.metadata().ok()).map(|it| it.len()).sum();
    println!("\n  {live} live commits, in a log of {}", Bytes(bytes as f64));
    println!("  opening after a clean close             {}", took.show(seconds));
}

/// The segments of the log of commits.
fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir.join("__offsets").join("0")).expect("the log is there");
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.filter(|path| path.extension().is_some_and(|it| it == "log")).collect()
}

fn commits(bench: &Bench, large: &Path, durability: Durability) {
    let is_sync = durability == Durability::Sync;
    let count = match durability {
        Durability::Sync => bench.scale(20_000_u32, 10),
        _ => bench.scale(3_000_000, 1_000),
    };
    println!("\n  commit() at {durability:?}, {count} times, clock readings included");
    let small = bench.dir().join(format!("small-{durability:?}"));
    fill(&small, 1);
    for (name, dir) in [("a small state", &*small), ("a million live commits", large)] {
        let broker = open(dir, durability);
        let mut consumer = committer(&broker, "measured", 1);
        let ends = AtomicBool::new(false);
        let mut found = latencies();
        let before = segments(dir);
        thread::scope(|scope| {
            if is_sync {
                scope.spawn(|| {
                    let mut other = committer(&broker, "other", 1);
                    while !ends.load(Ordering::Relaxed) {
                        other.commit_soon().expect("a commit");
                    }
                });
            }
            for _ in 0..count {
                let start = now();
                consumer.commit().expect("a commit");
                record(&mut found, start.elapsed());
            }
            ends.store(true, Ordering::Relaxed);
        });
        let removed = before.iter().filter(|path| !path.exists()).count();
        let at = |share| seconds(quantile(&found, share));
        println!(
            "  {name:<24} p50 {}, p99 {}, p99.99 {}, most {}; {removed} files cleaned up",
            at(0.5),
            at(0.99),
            at(0.9999),
            at(1.0),
        );
        drop(consumer);
        broker.close().expect("close");
    }
}

//! How long it takes to open 2 GiB again, after a clean close and after `kill -9`.
//!
//! The data is written by a child process, which is this program again; it closes its broker, or
//! is killed in the middle of appending. What is measured, in this process, is `Broker::open` and
//! the first read.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot continue must not continue"
)]
#![allow(clippy::cast_precision_loss, reason = "figures have three digits")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use logpond::{Broker, Record};

use common::{Bench, Bytes, Rounds, TOPIC, now, seconds, unsynced, warm};

mod common;

/// Tells the child what to do: directory, bytes to write, bytes per value, `close` or `kill`.
const CHILD: &str = "LOGPOND_BENCH_CHILD";

fn main() {
    if let Ok(order) = std::env::var(CHILD) {
        return child(&order);
    }
    let bench = Bench::start("recovery", "Os (what a killed process leaves in the page cache)");
    let total = bench.scale(2_u64 << 30, 8 << 20);
    let rounds = bench.scale(5, 1);
    println!("\n  Broker::open and the first read, {} of data", Bytes(total as f64));
    for value_bytes in [100_u64, 1 << 10] {
        if !bench.quick {
            warm(2 << 30);
        }
        let dir = bench.dir().join(format!("data-{value_bytes}"));
        let (mut clean, mut killed) = (Rounds::default(), Rounds::default());
        // All of it once; then a little more in each round.
        let mut bytes = total;
        for _ in 0..rounds {
            end_of_a_run(&dir, bytes, value_bytes, "close");
            clean.push(reopen(&dir));
            bytes = total / 64;
            end_of_a_run(&dir, bytes, value_bytes, "kill");
            killed.push(reopen(&dir));
        }
        let size = Bytes(value_bytes as f64).to_string();
        println!("  {size:<8} after a clean close  {}", clean.show(seconds));
        println!("  {size:<8} after kill -9        {}", killed.show(seconds));
        std::fs::remove_dir_all(&dir).expect("the data can be removed");
        burst(&bench, total, value_bytes);
    }
}

/// Killed right after 2 GiB were appended at full speed: the worker that syncs sealed segments and
/// writes their footers has not kept up, and what has no footer is scanned.
fn burst(bench: &Bench, total: u64, value_bytes: u64) {
    let mut killed = Rounds::default();
    for _ in 0..bench.scale(2, 1) {
        let dir = bench.dir().join(format!("burst-{value_bytes}"));
        end_of_a_run(&dir, total, value_bytes, "kill");
        killed.push(reopen(&dir));
        std::fs::remove_dir_all(&dir).expect("the data can be removed");
    }
    let size = Bytes(value_bytes as f64).to_string();
    println!("  {size:<8} after kill -9 at once {}", killed.show(seconds));
}

/// A child process opens, appends and ends.
fn end_of_a_run(dir: &Path, bytes: u64, value_bytes: u64, end: &str) {
    let order = format!("{bytes}:{value_bytes}:{end}:{}", dir.display());
    let mut child = Command::new(std::env::current_exe().expect("the path of this program"))
        .env(CHILD, order)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child process");
    wait_until_written(&mut child);
    if end == "kill" {
        child.kill().expect("the child can be killed");
    }
    let status = child.wait().expect("the child ends");
    assert!(end == "kill" || status.success(), "the child failed");
}

fn wait_until_written(child: &mut Child) {
    let out = child.stdout.as_mut().expect("its output is piped");
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line).expect("the child reports");
    assert_eq!(line.trim(), "written");
}

fn child(order: &str) {
    let mut words = order.splitn(4, ':');
    let mut word = || words.next().expect("four words");
    let bytes: u64 = word().parse().expect("bytes");
    let size: usize = word().parse().expect("bytes per value");
    let (end, dir) = (word(), word());
    let broker = Broker::open(dir).expect("open");
    let topic = broker.ensure_topic(TOPIC, unsynced(1)).expect("topic");
    let partition = topic.partition(0).expect("partition");
    let value = vec![0xa5; size];
    let record = Record::new().value(&value);
    for _ in 0..bytes / (size as u64 + 48) {
        partition.append(&record).expect("append");
    }
    let report = || {
        println!("written");
        std::io::stdout().flush().expect("the parent listens");
    };
    if end == "close" {
        drop((topic, partition));
        broker.close().expect("close");
        report();
        return;
    }
    report();
    // Killed somewhere here.
    loop {
        partition.append(&record).expect("append");
        std::thread::park_timeout(std::time::Duration::from_micros(50));
    }
}

/// Seconds until the first and the last record could be read.
fn reopen(dir: &Path) -> f64 {
    let start = now();
    let broker = Broker::open(dir).expect("open");
    let partition = broker.topic(TOPIC).and_then(|topic| topic.partition(0)).expect("partition");
    let first = partition.read(partition.log_start_offset(), 1).expect("read");
    let last = partition.read(partition.log_end_offset() - 1, 1).expect("read");
    let took = start.elapsed();
    assert!(first.len() == 1 && last.len() == 1);
    drop((first, last, partition));
    // What the next child finds; how it ends is what the next measurement is about.
    broker.close().expect("close");
    took.as_secs_f64()
}

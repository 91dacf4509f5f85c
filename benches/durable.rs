//! Appends that are acknowledged when they are on stable storage, by one thread and by eight.
//!
//! Beside them, in the same run and in turns: `pwrite` and `fdatasync` of as many bytes into space
//! that was written before, which is the best that a log with one sync per append can do.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot continue must not continue"
)]
#![allow(clippy::cast_precision_loss, reason = "figures have three digits")]

use std::fs::File;
use std::io::Write;
use std::sync::Barrier;
use std::time::Duration;

use hdrhistogram::Histogram;
use logpond::{Durability, Partition, Record, TopicConfig};

use common::{
    Bench, Rounds, in_turns, latencies, now, per_second, quantile, record, seconds, times,
};

mod common;

const VALUE_BYTES: usize = 1 << 10;

/// What a record of that size takes in the log, about.
const STORED_BYTES: usize = VALUE_BYTES + 48;

/// The threads that share syncs.
const THREADS: usize = 8;

fn main() {
    let bench = Bench::start("durable", "Sync (acknowledged when on stable storage)");
    let fixture = bench.topic(TopicConfig::new(1).durability(Durability::Sync));
    let partition = fixture.partition(0);
    let round = Duration::from_millis(bench.scale(300, 10));
    let rounds = bench.scale(15, 1);
    let mut raw = Raw::new(&bench);
    let mut histograms = [latencies(), latencies(), latencies()];
    let [one, eight, limit] = &mut histograms;
    // Some appends go by before the file has its pace.
    for_a_while(round, || append(&partition));
    let [one_rate, eight_rate, raw_rate] = in_turns(
        rounds,
        &mut [
            &mut || timed(round, one, || append(&partition)),
            &mut || together(round, eight, &partition),
            &mut || timed(round, limit, || raw.append()),
        ],
    );
    println!("\n  1 KiB per append, {rounds} rounds of {round:?} in turns");
    let row = |name: &str, rate: &Rounds, histogram: &Histogram<u64>| {
        let (half, most) = (quantile(histogram, 0.5), quantile(histogram, 0.99));
        let rate = rate.show(per_second);
        println!("  {name:<30} {rate:<36} p50 {:>9}  p99 {:>9}", seconds(half), seconds(most));
    };
    row("1 thread", &one_rate, one);
    row("8 threads", &eight_rate, eight);
    row("raw pwrite + fdatasync", &raw_rate, limit);
    println!("  1 thread over raw     {}", one_rate.over(&raw_rate).show(times));
    println!("  8 threads over 1      {}", eight_rate.over(&one_rate).show(times));
}

fn append(partition: &Partition) {
    let value = [0xa5_u8; VALUE_BYTES];
    partition.append(&Record::new().value(&value)).expect("append");
}

/// Space that was written before, and syncs of one append each.
struct Raw {
    file: File,
    position: u64,
    bytes: Vec<u8>,
}

impl Raw {
    /// LIMIT: reached by no run, but the position starts over all the same.
    const FILE_BYTES: u64 = 64 << 20;

    fn new(bench: &Bench) -> Self {
        let path = bench.dir().join("raw");
        let mut file = File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(path)
            .expect("a file");
        // In steps of a page: one large write would make large folios, which sync slower.
        for _ in 0..Self::FILE_BYTES / 4096 {
            file.write_all(&[0; 4096]).expect("space for the file");
        }
        file.sync_all().expect("sync");
        Self { file, position: 0, bytes: vec![0xa5; STORED_BYTES] }
    }

    fn append(&mut self) {
        write_at(&self.file, &self.bytes, self.position);
        self.file.sync_data().expect("sync");
        self.position += self.bytes.len() as u64;
        if self.position + self.bytes.len() as u64 > Self::FILE_BYTES {
            self.position = 0;
        }
    }
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8], position: u64) {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, position).expect("write");
}

#[cfg(not(unix))]
fn write_at(mut file: &File, bytes: &[u8], position: u64) {
    use std::io::{Seek, SeekFrom};
    file.seek(SeekFrom::Start(position)).expect("seek");
    file.write_all(bytes).expect("write");
}

fn for_a_while(round: Duration, mut call: impl FnMut()) -> u64 {
    let start = now();
    let mut calls = 0;
    while start.elapsed() < round {
        call();
        calls += 1;
    }
    calls
}

/// Calls per second.
fn timed(round: Duration, histogram: &mut Histogram<u64>, mut call: impl FnMut()) -> f64 {
    let start = now();
    let calls = for_a_while(round, || {
        let start = now();
        call();
        record(histogram, start.elapsed());
    });
    calls as f64 / start.elapsed().as_secs_f64()
}

/// Calls per second of all threads together.
fn together(round: Duration, histogram: &mut Histogram<u64>, partition: &Partition) -> f64 {
    let barrier = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        let worker = || {
            let mut own = latencies();
            barrier.wait();
            let rate = timed(round, &mut own, || append(partition));
            (own, rate)
        };
        let workers: Vec<_> = (0..THREADS).map(|_| scope.spawn(worker)).collect();
        let done = workers.into_iter().map(|worker| worker.join().expect("no worker fails"));
        done.fold(0.0, |sum, (own, rate)| {
            histogram.add(own).expect("equal bounds");
            sum + rate
        })
    })
}

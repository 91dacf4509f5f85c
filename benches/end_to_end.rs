//! From produce to consume within one process: how long until a record is in the other thread.
//!
//! Both spinning: the consumer polls without waiting, the producer sends the next record when the
//! last one has arrived. Beside it, in turns, the same over a channel of `crossbeam`. Parked: the
//! consumer waits in `poll`, and is woken.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot continue must not continue"
)]
#![allow(clippy::cast_precision_loss, reason = "figures have three digits")]

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::{TryRecvError, unbounded};
use hdrhistogram::Histogram;
use logpond::{Consumer, Partition, Record, TopicPartition};

use common::{
    Bench, Fixture, Rounds, TOPIC, latencies, now, per_second, quantile, record, seconds, times,
    unsynced,
};

mod common;

const VALUE_BYTES: usize = 100;

/// How long a producer leaves the consumer alone, so that it has parked.
const PAUSE: Duration = Duration::from_micros(300);

fn main() {
    let bench = Bench::start("end_to_end", "Os (acknowledged when published)");
    let rounds = bench.scale(15, 1);
    let sends = bench.scale(100_000, 100);
    let fixture = bench.topic(unsynced(1));
    let mut ours = Series::default();
    let mut channel = Series::default();
    for _ in 0..rounds {
        ours.push(&spin_over_log(&fixture, sends));
        channel.push(&spin_over_channel(sends));
    }
    println!("\n  both spinning, {VALUE_BYTES} B, {rounds} rounds of {sends} in turns");
    ours.print("logpond");
    channel.print("crossbeam-channel, unbounded");
    println!("  p50 over the channel's    {}", ours.p50.over(&channel.p50).show(times));

    let mut parked = Series::default();
    for _ in 0..bench.scale(5, 1) {
        parked.push(&parked_consumer(&fixture, bench.scale(2_000, 20)));
    }
    println!("\n  parked consumer, woken by an append {PAUSE:?} later");
    parked.print("logpond");

    let mut streamed = Rounds::default();
    for _ in 0..bench.scale(7, 1) {
        streamed.push(stream(&fixture, bench.scale(1_000_000, 1_000)));
    }
    println!("\n  stream: one thread appends without waiting, another reads");
    println!("  logpond                        {}", streamed.show(per_second));
}

/// Quantiles of each round.
#[derive(Default)]
struct Series {
    p50: Rounds,
    p99: Rounds,
    p999: Rounds,
}

impl Series {
    fn push(&mut self, histogram: &Histogram<u64>) {
        self.p50.push(quantile(histogram, 0.5));
        self.p99.push(quantile(histogram, 0.99));
        self.p999.push(quantile(histogram, 0.999));
    }

    fn print(&self, name: &str) {
        println!(
            "  {name:<30} p50 {:<30} p99 {:<34} p99.9 {}",
            self.p50.show(seconds),
            self.p99.show(seconds),
            self.p999.show(seconds),
        );
    }
}

fn reader(fixture: &Fixture) -> Consumer {
    let end = fixture.partition(0).log_end_offset();
    fixture
        .broker()
        .reader()
        .assign([TopicPartition::from((TOPIC, 0))])
        .start(logpond::StartAt::Offset(end))
        .open()
        .expect("a reader")
}

/// Sends that each wait for the arrival of the one before. `send` is given the value; `receive`
/// returns when one has arrived, with when that was.
fn ping(
    sends: u64,
    mut send: impl FnMut(&[u8; VALUE_BYTES]) + Send,
    mut receive: impl FnMut() -> Instant,
    pause: Duration,
) -> Histogram<u64> {
    let arrived = AtomicU64::new(0);
    let origin = now();
    let sent_at = AtomicU64::new(0);
    let nanos = |at: Instant| u64::try_from((at - origin).as_nanos()).unwrap_or(u64::MAX);
    let mut histogram = latencies();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let value = [0xa5; VALUE_BYTES];
            for count in 0..sends {
                while arrived.load(Ordering::Acquire) < count {
                    spin_loop();
                }
                let rest = now();
                while rest.elapsed() < pause {
                    spin_loop();
                }
                sent_at.store(nanos(now()), Ordering::Relaxed);
                send(&value);
            }
        });
        for count in 1..=sends {
            let at = nanos(receive());
            // The record, or the message, has carried this store along.
            let start = sent_at.load(Ordering::Relaxed);
            record(&mut histogram, Duration::from_nanos(at.saturating_sub(start)));
            arrived.store(count, Ordering::Release);
        }
    });
    histogram
}

fn spin_over_log(fixture: &Fixture, sends: u64) -> Histogram<u64> {
    let partition = fixture.partition(0);
    let mut reader = reader(fixture);
    let receive = || {
        loop {
            let batch = reader.poll(Duration::ZERO).expect("poll");
            if let Some(message) = batch.iter().next() {
                let at = now();
                assert_eq!(message.value().map(<[u8]>::len), Some(VALUE_BYTES));
                return at;
            }
            spin_loop();
        }
    };
    ping(sends, |value| append(&partition, value), receive, Duration::ZERO)
}

fn append(partition: &Partition, value: &[u8]) {
    partition.append(&Record::new().value(value)).expect("append");
}

fn spin_over_channel(sends: u64) -> Histogram<u64> {
    let (sender, receiver) = unbounded::<[u8; VALUE_BYTES]>();
    let receive = || {
        loop {
            match receiver.try_recv() {
                Ok(value) => {
                    let at = now();
                    assert_eq!(value.len(), VALUE_BYTES);
                    return at;
                }
                Err(TryRecvError::Empty) => spin_loop(),
                Err(TryRecvError::Disconnected) => unreachable!("the sender outlives the loop"),
            }
        }
    };
    ping(sends, |value| sender.send(*value).expect("send"), receive, Duration::ZERO)
}

fn parked_consumer(fixture: &Fixture, sends: u64) -> Histogram<u64> {
    let partition = fixture.partition(0);
    let mut reader = reader(fixture);
    let receive = || {
        let batch = reader.poll(Duration::from_secs(10)).expect("poll");
        assert_eq!(batch.len(), 1);
        now()
    };
    ping(sends, |value| append(&partition, value), receive, PAUSE)
}

/// Records per second from the first append until the last one is read.
fn stream(fixture: &Fixture, count: u64) -> f64 {
    let partition = fixture.partition(0);
    let mut reader = reader(fixture);
    let start = now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..count {
                append(&partition, &[0xa5; VALUE_BYTES]);
            }
        });
        let mut seen = 0;
        while seen < count {
            seen += reader.poll(Duration::ZERO).expect("poll").iter().count() as u64;
        }
    });
    count as f64 / start.elapsed().as_secs_f64()
}

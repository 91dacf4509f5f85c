//! Appends at a steady pace, while retention removes ten thousand segments of the same partition.
//!
//! The segments are small because each was rolled by its age. What is compared: the latency of an
//! append without retention, and while retention runs. *call* is what the call took, *due* counts
//! from the moment at which the append was due, so that one that is late for the one before it
//! shows, too; on a machine that others use, *due* also shows when the writer did not run at all.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot continue must not continue"
)]
#![allow(clippy::cast_precision_loss, reason = "figures have three digits")]

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use logpond::{Broker, Durability, ManualClock, Partition, Record, TopicConfig};

use common::{Bench, TOPIC, latencies, now, quantile, record, seconds};

mod common;

const SEGMENTS: u64 = 10_000;
const VALUE_BYTES: usize = 10_000;
/// The pace: 100 MB/s.
const EVERY: Duration = Duration::from_micros(100);
const RETENTION: Duration = Duration::from_secs(3600);
const SEGMENT_AGE: Duration = Duration::from_millis(1);

fn main() {
    let bench = Bench::start("retention", "Os (acknowledged once published)");
    let rounds = bench.scale(3, 1);
    let segments = bench.scale(SEGMENTS, 20);
    let quiet_for = bench.scale(Duration::from_secs(2), Duration::from_millis(20));
    let (mut without, mut with) = (Latencies::new(), Latencies::new());
    let mut took = Vec::new();
    for _ in 0..rounds {
        let setup = Setup::new(&bench, segments);
        let start = now();
        without.paced(&setup.partition, || start.elapsed() >= quiet_for);
        took.push(setup.retain(&mut with));
        assert!(setup.partition.log_start_offset() >= segments);
    }
    let took: Vec<_> = took.iter().map(|took| seconds(took.as_secs_f64())).collect();
    println!("\n  {VALUE_BYTES} bytes every {EVERY:?}, by one thread");
    println!("  {segments} segments removed in {} ({rounds} rounds)", took.join(", "));
    without.show("without retention");
    with.show("while it runs");
}

struct Setup {
    broker: Broker,
    partition: Partition,
    clock: ManualClock,
}

impl Setup {
    /// A partition of many small segments, all of them older than allowed from a step of the clock
    /// on.
    fn new(bench: &Bench, segments: u64) -> Self {
        let dir = bench.dir().join("broker");
        drop(std::fs::remove_dir_all(&dir));
        let clock = ManualClock::new(SystemTime::UNIX_EPOCH + 1_000 * RETENTION);
        let builder = Broker::builder().data_dir(&dir).clock(clock.clone());
        let broker = builder.open().expect("a broker opens in a new directory");
        let config = TopicConfig::new(1).durability(Durability::Os);
        let config = config.retention(RETENTION).segment_age(SEGMENT_AGE);
        let topic = broker.ensure_topic(TOPIC, config).expect("a topic can be made");
        let partition = topic.partition(0).expect("the topic has this partition");
        for _ in 0..segments {
            partition.append(&Record::new().value("old")).expect("append");
            clock.advance(2 * SEGMENT_AGE);
            broker.admin().enforce_retention_now().expect("a roll");
        }
        broker.flush().expect("a sync");
        Self { broker, partition, clock }
    }

    /// Runs retention beside the writer, and says how long it took.
    fn retain(&self, latencies: &mut Latencies) -> Duration {
        self.clock.advance(2 * RETENTION);
        let (begin, done) = (Barrier::new(2), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let retention = scope.spawn(|| {
                begin.wait();
                let start = now();
                self.broker.admin().enforce_retention_now().expect("retention");
                done.store(true, Ordering::Release);
                start.elapsed()
            });
            begin.wait();
            latencies.paced(&self.partition, || done.load(Ordering::Acquire));
            retention.join().expect("retention does not panic")
        })
    }
}

struct Latencies {
    call: Histogram<u64>,
    due: Histogram<u64>,
}

impl Latencies {
    fn new() -> Self {
        Self { call: latencies(), due: latencies() }
    }

    /// Appends at the pace until it is over.
    fn paced(&mut self, partition: &Partition, is_over: impl Fn() -> bool) {
        let value = [0xa5_u8; VALUE_BYTES];
        let mut due = now();
        while !is_over() {
            due += EVERY;
            // It must not sleep: what is measured is far shorter than a sleep's own error.
            while now() < due {
                std::hint::spin_loop();
            }
            let start = now();
            partition.append(&Record::new().value(&value)).expect("append");
            record(&mut self.call, start.elapsed());
            record(&mut self.due, due.elapsed());
        }
    }

    fn show(&self, name: &str) {
        for (kind, histogram) in [("call", &self.call), ("due", &self.due)] {
            let at = |part: f64| seconds(quantile(histogram, part));
            println!(
                "  {name:<18} {kind:<4} {:>7} appends  p50 {:>8}  p99 {:>8}  p99.9 {:>8}  max {:>8}",
                histogram.len(),
                at(0.5),
                at(0.99),
                at(0.999),
                at(1.0),
            );
        }
    }
}

//! How fast 1 GiB with a million keys is compacted, and what appends keep of their rate while that
//! continues.
//!
//! Each key is written twice, in an order of its own, so half of all bytes go. The second half asks
//! for appends to another topic of the same broker, at full speed from one thread, with and without
//! a compaction beside them.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot continue must not continue"
)]
#![allow(clippy::cast_precision_loss, reason = "figures have three digits")]

use std::thread;
use std::time::Duration;

use logpond::{Cleanup, CompactionReport, Record, TopicConfig};

use common::{Bench, Bytes, Fixture, Rounds, bytes_per_second, now, per_second, times, unsynced};

mod common;

const COMPACTED: &str = "compacted";

fn main() {
    let bench = Bench::start("compaction", "Os");
    let load = Load {
        keys: bench.scale(1_000_000, 2_000),
        value_bytes: 470,
        records: bench.scale(2_000_000, 4_000),
    };
    let (mut alone, mut kept) = (Rounds::default(), Rounds::default());
    let (mut free, mut beside) = (Rounds::default(), Rounds::default());
    let (mut paced, mut last) = (Rounds::default(), None);
    for _ in 0..bench.scale(3, 1) {
        let fixture = load.fixture(&bench);
        let start = now();
        let report = fixture.broker().admin().compact_now(COMPACTED).expect("a compaction");
        alone.push(report.bytes_before as f64 / start.elapsed().as_secs_f64());
        last = Some(report);
        drop(fixture);

        let fixture = load.fixture(&bench);
        let window = bench.scale(Duration::from_millis(2_500), Duration::from_millis(20));
        let before = append_rate(&fixture, window);
        fixture.broker().flush().expect("flush");
        let (rate, report, took) = thread::scope(|scope| {
            let appender = scope.spawn(|| append_rate(&fixture, window));
            let start = now();
            let compaction = scope.spawn(|| fixture.broker().admin().compact_now(COMPACTED));
            let rate = appender.join().expect("the appender");
            let report = compaction.join().expect("no panic").expect("a compaction");
            (rate, report, start.elapsed())
        });
        // What is written back of the earlier appends slows the later ones down: so both sides.
        fixture.broker().flush().expect("flush");
        let after = append_rate(&fixture, window);
        let without = f64::midpoint(before, after);
        free.push(without);
        beside.push(rate);
        kept.push(rate / without);
        paced.push(report.bytes_before as f64 / took.as_secs_f64());
    }
    let report = last.unwrap_or_default();
    println!("\n  {}, {} keys", Bytes(report.bytes_before as f64), load.keys);
    show(&report);
    println!("  without appends            {}", alone.show(bytes_per_second));
    println!("  beside appends, and after  {}", paced.show(bytes_per_second));
    println!("  appends of 100 B alone     {}", free.show(per_second));
    println!("  beside the compaction      {}", beside.show(per_second));
    println!("  they keep                  {}", kept.show(times));
}

fn show(report: &CompactionReport) {
    let CompactionReport { segments_read, segments_written, passes, .. } = *report;
    let after = Bytes(report.bytes_after as f64);
    println!("  {segments_read} segments became {segments_written} ({after}), passes {passes}");
}

struct Load {
    keys: u64,
    value_bytes: usize,
    records: u64,
}

impl Load {
    /// A broker with the data, all of it in sealed segments, and a second topic for appends.
    fn fixture(&self, bench: &Bench) -> Fixture {
        let fixture = bench.topic(unsynced(1).segment_bytes(64 << 20));
        // Not by itself, but for the first segments: it begins when it is measured.
        let config: TopicConfig =
            unsynced(1).cleanup(Cleanup::Compact).min_dirty_ratio(1.0).segment_bytes(64 << 20);
        let topic = fixture.broker().ensure_topic(COMPACTED, config).expect("a topic");
        let partition = topic.partition(0).expect("a partition");
        let value = vec![0xa5; self.value_bytes];
        for number in 0..self.records {
            if number == self.records / 8 {
                // With something clean the ratio of 1 is never reached again.
                fixture.broker().flush().expect("flush");
                fixture.broker().admin().compact_now(COMPACTED).expect("a compaction");
            }
            let key = (number.wrapping_mul(0x9E37_79B1) % self.keys).to_le_bytes();
            partition.append(&Record::new().key(&key).value(&value)).expect("append");
        }
        fixture.broker().flush().expect("flush");
        fixture
    }
}

/// Appends per second, over `window`.
fn append_rate(fixture: &Fixture, window: Duration) -> f64 {
    let partition = fixture.partition(0);
    let value = [0x5a; 100];
    let record = Record::new().value(&value);
    let start = now();
    let mut count = 0_u32;
    loop {
        for _ in 0..1_000 {
            partition.append(&record).expect("append");
        }
        count += 1_000;
        let passed = start.elapsed();
        if passed >= window {
            return f64::from(count) / passed.as_secs_f64();
        }
    }
}

//! Appending without syncs: one by one, in batches, by key, by several producers.
//!
//! Beside each figure, in the same run, the machine's limit: for the same values, a read of the
//! wall clock, an uncontended lock, a checksum and a copy into a map whose pages are there.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot continue must not continue"
)]
#![allow(clippy::cast_precision_loss, reason = "figures have three digits")]

use std::hint::black_box;
use std::sync::Barrier;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use logpond::{Partition, Producer, Record};
use memmap2::MmapMut;
use parking_lot::Mutex;

use common::{
    Bench, Bytes, Fixture, Rounds, TOPIC, bytes_per_second, now, per_second, times, unsynced,
    wall_clock,
};

mod common;

/// How much is written to a topic before a new one replaces it. Less than the kernel lets
/// a process have dirty before it makes writers wait for the disk.
const TOPIC_BYTES: u64 = 768 << 20;

/// The batch size of the batch benchmarks.
const BATCH: usize = 100;

/// A round: enough that space is made several times in each, and so little that there are many of
/// which nobody else on the machine has disturbed more than a few.
const STEP_BYTES: u64 = 8 << 20;

const SIZES: [usize; 3] = [100, 1 << 10, 64 << 10];

fn main() {
    let bench = Bench::start("append", "Os (acknowledged when published, in the page cache)");
    let mut criterion = Criterion::default().without_plots().configure_from_args();
    let mut report = Vec::new();
    for size in SIZES {
        let lone = |map: &mut Map, value: &[u8]| map.append(value, 1);
        let ours = |partition: &Partition, _: &Producer, value: &[u8]| {
            partition.append(&Record::new().value(value)).expect("append");
        };
        report.push(single(&bench, &mut criterion, "append", size, 1, ours, lone));
    }
    for size in SIZES {
        let limit = |map: &mut Map, value: &[u8]| map.append(value, BATCH);
        let ours = |partition: &Partition, _: &Producer, value: &[u8]| {
            let records: [Record<'_>; BATCH] = std::array::from_fn(|_| Record::new().value(value));
            partition.append_batch(&records).expect("append_batch");
        };
        report.push(single(&bench, &mut criterion, "append_batch", size, BATCH, ours, limit));
    }
    for size in SIZES {
        let lone = |map: &mut Map, value: &[u8]| map.append(value, 1);
        let ours = |_: &Partition, producer: &Producer, value: &[u8]| {
            let record = Record::to(TOPIC).key("customer-4711").value(value);
            black_box(producer.send(record).expect("send"));
        };
        report.push(single(&bench, &mut criterion, "send_keyed", size, 1, ours, lone));
    }
    println!("\nappend: medians [least..greatest] of rounds in turns with the limit");
    for line in report.iter().flatten() {
        println!("{line}");
    }
    several_producers(&bench);
}

/// What the machine can do at most: the primitives that no such log can do without.
struct Map {
    lock: Mutex<MmapMut>,
    position: usize,
}

impl Map {
    fn new() -> Self {
        let mut map = MmapMut::map_anon(64 << 20).expect("64 MiB of memory");
        // Populated: what is measured is not the kernel that clears pages.
        map.fill(1);
        Self { lock: Mutex::new(map), position: 0 }
    }

    #[inline]
    fn append(&mut self, value: &[u8], count: usize) {
        let time = black_box(wall_clock());
        let mut checksum = crc32fast::Hasher::new();
        (0..count).for_each(|_| checksum.update(black_box(value)));
        let checksum = black_box((checksum.finalize(), time));
        let mut map = self.lock.lock();
        let needed = count * value.len() + 8;
        if self.position + needed > map.len() {
            self.position = 0;
        }
        let (head, room) = map[self.position..][..needed].split_at_mut(8);
        head.copy_from_slice(&u64::from(checksum.0).to_le_bytes());
        room.chunks_exact_mut(value.len()).for_each(|room| room.copy_from_slice(value));
        self.position += needed;
    }
}

/// A topic that is replaced when it has become large.
struct Target {
    fixture: Option<Fixture>,
    written: u64,
}

impl Target {
    fn new() -> Self {
        Self { fixture: None, written: 0 }
    }

    fn with_room(&mut self, bench: &Bench, partitions: u32, bytes: u64) -> &Fixture {
        self.written += bytes;
        if self.written > TOPIC_BYTES {
            self.fixture = None;
            self.written = 0;
        }
        self.fixture.get_or_insert_with(|| bench.topic(unsynced(partitions)))
    }
}

/// One thread. Criterion sees the appends; the limit is measured in turns with them.
fn single(
    bench: &Bench,
    criterion: &mut Criterion,
    name: &str,
    size: usize,
    batch: usize,
    ours: impl Fn(&Partition, &Producer, &[u8]),
    limit: impl Fn(&mut Map, &[u8]),
) -> Option<String> {
    let value = vec![0xa5; size];
    let call_bytes = (batch * size) as u64;
    let calls = (STEP_BYTES / call_bytes).max(1);
    let records = (calls * batch as u64) as f64;
    let mut target = Target::new();
    let mut map = Map::new();
    let (mut our_rounds, mut limit_rounds) = (Rounds::default(), Rounds::default());
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10).warm_up_time(Duration::from_millis(bench.scale(300, 1)));
    group.measurement_time(Duration::from_millis(bench.scale(1_000, 1)));
    group.throughput(Throughput::Elements(calls * batch as u64));
    group.bench_function(format!("{}", Bytes(size as f64)), |bencher| {
        bencher.iter_custom(|steps| {
            let mut our_time = Duration::ZERO;
            for _ in 0..steps {
                let fixture = target.with_room(bench, 1, calls * (call_bytes + 64));
                let partition = fixture.partition(0);
                let producer = fixture.broker().producer();
                let start = now();
                (0..calls).for_each(|_| ours(&partition, &producer, &value));
                let took = start.elapsed();
                our_time += took;
                our_rounds.push(records / took.as_secs_f64());
                let start = now();
                (0..calls).for_each(|_| limit(&mut map, &value));
                limit_rounds.push(records / start.elapsed().as_secs_f64());
            }
            our_time
        });
    });
    group.finish();
    if our_rounds.median().is_nan() {
        return None;
    }
    let name = format!("{name} {}", Bytes(size as f64));
    Some(line(&name, size, &our_rounds, &limit_rounds))
}

fn line(name: &str, size: usize, ours: &Rounds, limit: &Rounds) -> String {
    format!(
        "  {name:<28} {:<34} {:>10}   limit {:<34} time over the limit's {}",
        ours.show(per_second),
        bytes_per_second(ours.median() * size as f64),
        limit.show(per_second),
        limit.over(ours).show(times),
    )
}

/// Several threads on one partition, and on one each.
fn several_producers(bench: &Bench) {
    println!("several producers, one record per call");
    let rounds = bench.scale(7, 1);
    for size in [100, 1 << 10] {
        for threads in [2, 4] {
            for partitions in [1, threads] {
                let (mut ours, mut limit) = (Rounds::default(), Rounds::default());
                let bytes = bench.scale(96_u64 << 20, 1 << 20);
                let calls = bytes / (size as u64 + 48) / u64::from(threads);
                let mut target = Target::new();
                let maps: Vec<Mutex<Map>> =
                    (0..partitions).map(|_| Mutex::new(Map::new())).collect();
                let value = vec![0xa5_u8; size];
                for _ in 0..rounds {
                    let fixture = target.with_room(bench, partitions, bytes);
                    ours.push(race(threads, calls, |thread| {
                        let partition = fixture.partition(thread % partitions);
                        let value = &value;
                        move || {
                            partition.append(&Record::new().value(value)).expect("append");
                        }
                    }));
                    limit.push(race(threads, calls, |thread| {
                        let map = &maps[(thread % partitions) as usize];
                        let value = &value;
                        move || map.lock().append(value, 1)
                    }));
                }
                let name = format!("{threads} on {partitions}, {}", Bytes(size as f64));
                println!("{}", line(&name, size, &ours, &limit));
            }
        }
    }
}

/// Calls per second of all threads together, from when they start to when the last one ends.
fn race<F: FnMut() + Send>(threads: u32, calls: u64, call: impl Fn(u32) -> F) -> f64 {
    let barrier = Barrier::new(threads as usize + 1);
    let elapsed = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let (barrier, mut call) = (&barrier, call(thread));
                scope.spawn(move || {
                    barrier.wait();
                    (0..calls).for_each(|_| call());
                })
            })
            .collect();
        barrier.wait();
        let start = now();
        for worker in workers {
            worker.join().expect("no worker fails");
        }
        start.elapsed()
    });
    (calls * u64::from(threads)) as f64 / elapsed.as_secs_f64()
}

//! Reading what lies in the page cache, from the start to the end, by reference.
//!
//! Every byte's checksum is verified and every record is looked at. Beside each figure, in the
//! same run: a copy of the same bytes, and the checksum alone, record by record.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot continue must not continue"
)]
#![allow(clippy::cast_precision_loss, reason = "figures have three digits")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use logpond::{Partition, Record, StartAt, TopicPartition};

use common::{
    Bench, Bytes, Fixture, Rounds, TOPIC, bytes_per_second, now, per_second, times, unsynced,
};

mod common;

/// How much one poll or read may return: so much that the calls do not count, and so little that
/// what was checked is still in the core's own cache when it is looked at.
const FETCH_BYTES: usize = 512 << 10;

struct Case {
    name: &'static str,
    size: usize,
    batch: usize,
    read: fn(&Fixture, u64) -> u64,
}

fn main() {
    let bench = Bench::start("fetch", "Os (read from the page cache)");
    let mut criterion = Criterion::default().without_plots().configure_from_args();
    let cases = [
        Case { name: "reader", size: 100, batch: 1, read: by_reader },
        Case { name: "reader", size: 1 << 10, batch: 1, read: by_reader },
        Case { name: "reader, batches of 100", size: 100, batch: 100, read: by_reader },
        Case { name: "reader, owned messages", size: 100, batch: 1, read: by_owning_reader },
        Case { name: "Partition::read", size: 100, batch: 1, read: by_partition },
        Case { name: "Partition::read", size: 1 << 10, batch: 1, read: by_partition },
    ];
    let lines: Vec<_> = cases.iter().filter_map(|it| run(&bench, &mut criterion, it)).collect();
    println!("\nfetch: medians [least..greatest] of rounds in turns with the limits");
    for line in &lines {
        println!("{line}");
    }
}

fn run(bench: &Bench, criterion: &mut Criterion, case: &Case) -> Option<String> {
    let &Case { name, size, batch, read } = case;
    let total = bench.scale(192_usize << 20, 1 << 20);
    let fixture = bench.topic(unsynced(1));
    let records = fill(&fixture.partition(0), size, batch, total / size);
    let source = vec![0xa5_u8; total];
    let mut sink = vec![0_u8; FETCH_BYTES];
    let (mut ours, mut copy, mut checksum) =
        (Rounds::default(), Rounds::default(), Rounds::default());
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10).warm_up_time(Duration::from_millis(bench.scale(200, 1)));
    group.measurement_time(Duration::from_millis(bench.scale(1_000, 1)));
    group.throughput(Throughput::Elements(records));
    group.bench_function(format!("{}", Bytes(size as f64)), |bencher| {
        bencher.iter_custom(|passes| {
            let mut our_time = Duration::ZERO;
            for _ in 0..passes {
                let start = now();
                assert_eq!(read(&fixture, records), records);
                let took = start.elapsed();
                our_time += took;
                ours.push(records as f64 / took.as_secs_f64());

                let start = now();
                for chunk in source.chunks_exact(FETCH_BYTES.min(total)) {
                    if let Some(room) = sink.get_mut(..chunk.len()) {
                        room.copy_from_slice(black_box(chunk));
                    }
                    black_box(&sink);
                }
                copy.push(records as f64 / start.elapsed().as_secs_f64());

                let start = now();
                for value in source.chunks_exact(size) {
                    black_box(crc32fast::hash(black_box(value)));
                }
                checksum.push(records as f64 / start.elapsed().as_secs_f64());
            }
            our_time
        });
    });
    group.finish();
    if ours.median().is_nan() {
        return None;
    }
    Some(format!(
        "  {name} {:<8} {:<34} {:>10}   memcpy {:>10}, checksums alone {:<12} time over the checksums' {}",
        Bytes(size as f64).to_string(),
        ours.show(per_second),
        bytes_per_second(ours.median() * size as f64),
        bytes_per_second(copy.median() * size as f64),
        per_second(checksum.median()),
        checksum.over(&ours).show(times),
    ))
}

/// Appends `count` values, and returns how many that were.
fn fill(partition: &Partition, size: usize, batch: usize, count: usize) -> u64 {
    let value = vec![0xa5; size];
    let records = vec![Record::new().value(&value); batch];
    for _ in 0..count / batch {
        partition.append_batch(&records).expect("append");
    }
    partition.log_end_offset()
}

fn by_reader(fixture: &Fixture, records: u64) -> u64 {
    let mut reader = fixture
        .broker()
        .reader()
        .assign([TopicPartition::from((TOPIC, 0))])
        .start(StartAt::Earliest)
        .max_poll_records(usize::MAX)
        .max_poll_bytes(FETCH_BYTES)
        .open()
        .expect("a reader");
    let mut seen = 0;
    while seen < records {
        let batch = reader.poll(Duration::ZERO).expect("poll");
        assert!(!batch.is_empty(), "the end came too early");
        for message in batch.iter() {
            black_box(message.value());
            seen += 1;
        }
    }
    seen
}

fn by_owning_reader(fixture: &Fixture, records: u64) -> u64 {
    let mut reader = fixture
        .broker()
        .reader()
        .assign([TopicPartition::from((TOPIC, 0))])
        .max_poll_records(usize::MAX)
        .max_poll_bytes(FETCH_BYTES)
        .open()
        .expect("a reader");
    let mut seen = 0;
    while seen < records {
        for message in reader.poll(Duration::ZERO).expect("poll") {
            black_box(message.value());
            seen += 1;
        }
    }
    seen
}

fn by_partition(fixture: &Fixture, records: u64) -> u64 {
    let partition = fixture.partition(0);
    let mut seen = 0;
    while seen < records {
        let batch = partition.read(seen, FETCH_BYTES).expect("read");
        for message in batch.iter() {
            black_box(message.value());
            seen += 1;
        }
    }
    seen
}

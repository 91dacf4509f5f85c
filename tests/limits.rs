//! Goal: many partitions fit into few descriptors and little disk, and memory does not grow with
//! the data.
//!
//! Method: this binary counts what it has on the heap. The tests with many topics, partitions and
//! segments are child processes that first lower their own limit of open files. Making that many
//! is ten thousands of syncs, which take minutes on a busy disk and nothing in `/dev/shm`, where
//! they therefore work; `LOGPOND_LIMITS_DIR` puts them elsewhere. By default they are small;
//! `LOGPOND_LIMITS_TOPICS` changes the number of topics, and the whole of it is
//!
//! ```text
//! LOGPOND_LIMITS_PARTITIONS=10000 LOGPOND_LIMITS_SEGMENTS=100000 LOGPOND_LIMITS_STRAYS=1000000 \
//!     cargo test --release --test limits row_
//! ```
//!
//! Not covered: time (the benches), address space, and what the page cache holds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(target_os = "linux")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::*;
use logpond::{Broker, Clock, Durability, Error, Record, SystemClock, TopicConfig};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The system's allocator, counting.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

#[expect(unsafe_code, reason = "there is no other way to count what is on the heap")]
// SAFETY: every call is passed on as it is; the counter touches no memory of the callers.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise about `layout` is the one that the system asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: `pointer` came from `alloc` above with this layout, as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The tests of this file take turns: the heap and the descriptors are the whole process's.
static TURN: Mutex<()> = Mutex::new(());

fn live() -> usize {
    LIVE.load(Ordering::Relaxed)
}

fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Bytes of disk, holes not counted.
fn disk_use(dir: &Path) -> u64 {
    files_below(dir).iter().map(|file| fs::metadata(file).unwrap().blocks() * 512).sum()
}

const TOPICS: &str = "LOGPOND_LIMITS_TOPICS";
const PARTITIONS: u32 = 4;

#[test]
fn child_opens_a_thousand_topics() {
    let Some(dir) = child_dir() else { return };
    let limit = Rlimit { current: Some(1024), maximum: Some(1024) };
    setrlimit(Resource::Nofile, limit).unwrap();
    assert_eq!(getrlimit(Resource::Nofile).current, Some(1024));
    let topics = u32::try_from(from_env(TOPICS, 1000)).unwrap();
    let open =
        || Broker::builder().data_dir(&dir).durability(Durability::Os).open().expect("a broker");
    let broker = open();
    let name = |number: u32| format!("topic-{number}");
    let before = live();
    for number in 0..topics {
        broker.ensure_topic(&name(number), TopicConfig::new(PARTITIONS)).expect("a topic");
    }
    let partitions = u64::from(topics * PARTITIONS);
    let heap = (live() - before) as u64;
    assert!(heap / partitions <= 16 << 10, "{} bytes of heap each", heap / partitions);
    let disk = disk_use(&dir) / partitions;
    assert!(disk <= 256 << 10, "{disk} bytes of disk each");
    let send = |broker: &Broker, round: u64| {
        let producer = broker.producer();
        for number in 0..topics {
            let topic = name(number);
            for partition in 0..PARTITIONS {
                let record = Record::to(&topic).partition(partition).value("x");
                assert_eq!(producer.send(record).expect("a send").offset, round);
            }
        }
    };
    send(&broker, 0);
    assert!(open_files() < 1000, "{} files are open", open_files());
    let mut reader =
        broker.reader().subscribe((0..topics).map(name)).open().expect("a reader of everything");
    assert_eq!(drain(&mut reader).len() as u64, partitions);
    drop(reader);
    broker.close().expect("a clean close");
    let broker = open();
    assert!(broker.recovery().clean_shutdown && broker.recovery().is_clean());
    send(&broker, 1);
    drop(broker);
    let broker = open();
    assert!(!broker.recovery().clean_shutdown && broker.recovery().is_clean());
    let mut reader =
        broker.reader().subscribe((0..topics).map(name)).open().expect("a reader of everything");
    assert_eq!(drain(&mut reader).len() as u64, 2 * partitions);
    drop(reader);
    broker.close().expect("a clean close");
}

#[test]
fn a_thousand_topics_of_four_partitions_live_with_1024_descriptors() {
    in_a_child("child_opens_a_thousand_topics");
}

/// A directory where files cost little.
fn quick_dir() -> tempfile::TempDir {
    let dir = match std::env::var_os("LOGPOND_LIMITS_DIR") {
        Some(dir) => dir.into(),
        None if Path::new("/dev/shm").is_dir() => "/dev/shm".into(),
        None => std::env::temp_dir(),
    };
    tempfile::Builder::new().prefix("logpond-test-").tempdir_in(dir).unwrap()
}

fn in_a_child(name: &str) {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let dir = quick_dir();
    let output = child(name, dir.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    said.lines().filter(|line| line.starts_with("measured:")).for_each(|line| eprintln!("{line}"));
}

fn allow_open_files(count: u64) {
    setrlimit(Resource::Nofile, Rlimit { current: Some(count), maximum: Some(count) }).unwrap();
}

/// Maps of this process.
fn maps() -> usize {
    fs::read_to_string("/proc/self/maps").unwrap().lines().count()
}

/// One record to every partition of every topic, all at the same offset.
fn send_to_all(broker: &Broker, topics: &[String], partitions: u32, offset: u64) {
    let producer = broker.producer();
    for topic in topics {
        for partition in 0..partitions {
            let record = Record::to(topic).partition(partition).value("x");
            assert_eq!(producer.send(record).expect("a send").offset, offset);
        }
    }
}

fn read_all_of(broker: &Broker, topics: &[String]) -> usize {
    let mut reader = broker.reader().subscribe(topics.iter().cloned()).open().expect("a reader");
    drain(&mut reader).len()
}

#[test]
fn child_opens_few_topics_with_few_descriptors() {
    let Some(dir) = child_dir() else { return };
    allow_open_files(256);
    let topics: Vec<String> = (0..4).map(|number| format!("topic-{number}")).collect();
    let open = |durability| Broker::builder().data_dir(&dir).durability(durability).open().unwrap();
    // Mapped stores and `pwrite`: both need the descriptor again for the sync.
    for (run, durability) in [(0, Durability::Os), (1, Durability::Sync)] {
        let broker = open(durability);
        for topic in &topics {
            broker.ensure_topic(topic, small_topic(100)).unwrap();
        }
        send_to_all(&broker, &topics, 100, run);
        broker.flush().unwrap();
        assert!(open_files() < 256);
        assert_eq!(read_all_of(&broker, &topics) as u64, (run + 1) * 400);
        broker.close().unwrap();
    }
    let broker = open(Durability::Os);
    assert!(broker.recovery().clean_shutdown && broker.recovery().is_clean());
    assert_eq!(read_all_of(&broker, &topics), 800);
}

// RED: src/storage/disk/real/budget.rs
//   - if queue.open < self.limit { None } else { queue.files.pop_front() }
//   + if queue.open < self.limit + 100_000 { None } else { queue.files.pop_front() }
#[test]
fn row_g06_a_few_topics_live_with_256_descriptors() {
    in_a_child("child_opens_few_topics_with_few_descriptors");
}

#[test]
fn child_opens_many_partitions() {
    let Some(dir) = child_dir() else { return };
    let partitions = u32::try_from(from_env("LOGPOND_LIMITS_PARTITIONS", 1_000)).unwrap();
    allow_open_files(1024);
    let clock = SystemClock::new();
    let topics = ["t".to_owned()];
    let open = || Broker::builder().data_dir(&dir).durability(Durability::Os).open().unwrap();
    let broker = open();
    let begun = clock.monotonic();
    broker.ensure_topic("t", small_topic(partitions)).unwrap();
    let made = clock.monotonic().saturating_sub(begun);
    send_to_all(&broker, &topics, partitions, 0);
    broker.close().unwrap();
    let begun = clock.monotonic();
    let broker = open();
    let opened = clock.monotonic().saturating_sub(begun);
    assert!(broker.recovery().clean_shutdown && broker.recovery().is_clean());
    send_to_all(&broker, &topics, partitions, 1);
    assert_eq!(read_all_of(&broker, &topics), 2 * partitions as usize);
    assert!(open_files() < 1024);
    eprintln!("measured: {partitions} partitions made in {made:?}, opened in {opened:?}");
    drop(broker);
    let broker = open();
    assert!(!broker.recovery().clean_shutdown && broker.recovery().is_clean());
    assert_eq!(read_all_of(&broker, &topics), 2 * partitions as usize);
    assert!(broker.topic("t").unwrap().partition(partitions).is_err());
}

#[test]
fn row_g06_thousands_of_partitions_live_with_1024_descriptors() {
    in_a_child("child_opens_many_partitions");
}

#[test]
fn child_fills_many_segments() {
    let Some(dir) = child_dir() else { return };
    let wanted = usize::try_from(from_env("LOGPOND_LIMITS_SEGMENTS", 1_000)).unwrap();
    allow_open_files(256);
    let clock = SystemClock::new();
    let broker = open_quiet(&dir);
    let partition = broker.ensure_topic("t", small_topic(1)).unwrap().partition(0).unwrap();
    let value = vec![7; 9_000];
    let before = live();
    // One record in each: a second does not fit.
    let mut sent = 0_u64;
    for _ in 0..wanted {
        partition.append(&Record::new().value(&value)).unwrap();
        partition.append(&Record::new().value(&value[..4])).unwrap();
        sent += 2;
        if sent.is_multiple_of(1_000) {
            broker.tick().unwrap();
        }
    }
    broker.tick().unwrap();
    let segments = broker.admin().describe_topic("t").unwrap().partitions[0].segments;
    assert!(segments >= wanted, "{segments}");
    let heap = live().saturating_sub(before) / segments;
    assert!(heap < 2 << 10, "{heap} bytes of heap each");
    assert!(open_files() < 256, "{} files are open", open_files());
    drop(partition);
    broker.close().unwrap();
    let begun = clock.monotonic();
    let broker = open_quiet(&dir);
    let opened = clock.monotonic().saturating_sub(begun);
    let mut reader = broker.reader().subscribe(["t"]).open().unwrap();
    let (mut read, mut most) = (0, 0);
    loop {
        let batch = reader.poll(Duration::ZERO).unwrap();
        if batch.is_empty() {
            break;
        }
        read += batch.len() as u64;
        most = most.max(maps());
    }
    assert_eq!(read, sent);
    // The kernel's own limit is 65,530.
    assert!(most < 20_000, "{most} maps");
    eprintln!(
        "measured: {segments} segments, {heap} B of heap each, opened in {opened:?}, {most} maps"
    );
}

// RED: src/log/tasks.rs
//   - self.segment.claim.shrink_to(finished_bytes(kept, footer.len()));
//   + std::mem::forget(file); std::mem::forget(self.segment.open_file(Access::Read));
#[test]
fn row_g06_many_small_segments_take_neither_descriptors_nor_heap_nor_maps() {
    in_a_child("child_fills_many_segments");
}

/// Names that are not ours are looked at and nothing more: no stray is opened (a FIFO would be
/// waited for), none is removed, and the time is that of listing them.
// RED: src/log/inventory.rs
//   - } else if let Some(number) = parse_segment_file_name(&entry.name) {
//   + } else if let Some(number) = parse_segment_file_name(&entry.name).or(Some(9)) {
#[test]
fn row_g07_a_directory_full_of_stray_files_is_listed_and_left_alone() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let strays = from_env("LOGPOND_LIMITS_STRAYS", 5_000);
    let dir = quick_dir();
    let broker = open_quiet(dir.path());
    broker.ensure_topic("t", small_topic(1)).unwrap();
    send_numbers(&broker, "t", 0, 0..10);
    broker.close().unwrap();
    let partition = dir.path().join("t/0");
    for number in 0..strays {
        fs::write(partition.join(format!("stray-{number}.log")), "x").unwrap();
        fs::write(dir.path().join(format!("stray-{number}")), "x").unwrap();
    }
    let fifo =
        Command::new("mkfifo").arg(partition.join("pipe")).arg(dir.path().join("pipe")).status();
    let fifos = u64::from(fifo.is_ok_and(|status| status.success()));
    if fifos == 0 {
        eprintln!("skipped: no mkfifo");
    }
    let clock = SystemClock::new();
    let begun = clock.monotonic();
    let broker = open_quiet(dir.path());
    eprintln!(
        "measured: opened beside {} strays in {:?}",
        2 * strays,
        clock.monotonic().saturating_sub(begun)
    );
    assert!(broker.recovery().clean_shutdown && broker.recovery().is_clean());
    assert_eq!(broker.recovery().unknown.len() as u64, strays + fifos);
    assert_eq!(read_all(&broker.topic("t").unwrap().partition(0).unwrap()).len(), 10);
    broker.close().unwrap();
    let left = fs::read_dir(&partition).unwrap().count() as u64;
    assert!(left > strays + fifos, "{left}");
}

/// A key, header names and header values count like the value, up to the last byte; a batch of
/// nothing but empty records is one too.
// RED: src/partition/encode.rs
//   - if size > u64::from(rules.record_bytes_max) {
//   + if size > u64::from(rules.record_bytes_max) + 1 {
#[test]
fn row_g03_g05_records_are_taken_up_to_the_limit_whatever_part_of_them_is_large() {
    const LIMIT: usize = 1000;
    let broker = in_memory();
    let config = TopicConfig::new(1).max_record_bytes(u32::try_from(LIMIT).unwrap());
    let partition = broker.ensure_topic("t", config).unwrap().partition(0).unwrap();
    let text = "x".repeat(LIMIT + 1);
    let shapes: [&dyn Fn(usize) -> Record<'static>; 4] = {
        let text: &'static str = text.leak();
        [
            &move |size| Record::new().value(&text[..size]),
            &move |size| Record::new().key(&text[..size]),
            &move |size| Record::new().header(&text[..size], ""),
            &move |size| Record::new().header("", &text[..size]),
        ]
    };
    let mut end = 0;
    for (number, shape) in shapes.iter().enumerate() {
        for size in [0, 1, LIMIT - 1, LIMIT] {
            assert_eq!(partition.append(&shape(size)).unwrap(), end, "{number}: {size}");
            end += 1;
        }
        let refused = partition.append(&shape(LIMIT + 1));
        let Err(Error::RecordTooLarge { size: 1001, limit: 1000 }) = refused else {
            panic!("{number}: {refused:?}")
        };
        let batch = [shape(1), shape(LIMIT + 1)];
        assert!(partition.append_batch(&batch).is_err(), "{number}: a part of a batch");
    }
    // So many headers that they fill a segment although each is empty: refused as a whole.
    let crowded = (0..100_000).fold(Record::new(), |record, _| record.header("", ""));
    assert_eq!(partition.append(&crowded).is_ok(), partition.log_end_offset() > end);
    let read = read_all(&partition);
    assert_dense(&read, 0);
    assert_eq!(read[0].value(), Some(&b""[..]));
    assert_eq!(read[7].key().map(<[u8]>::len), Some(LIMIT));
    assert_eq!(read[11].headers().next().map(|(name, _)| name.len()), Some(LIMIT));
}

/// Writes `mebibytes` in rolls and returns what is on the heap then.
fn write(broker: &Broker, mebibytes: usize) -> usize {
    let partition = broker.topic("t").unwrap().partition(0).unwrap();
    let value = vec![7; 8 << 10];
    let records = vec![Record::new().value(&value); 32];
    for _ in 0..mebibytes {
        for _ in 0..4 {
            partition.append_batch(&records).unwrap();
        }
        broker.tick().unwrap();
    }
    live()
}

#[test]
fn the_heap_does_not_grow_with_the_data() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let dir = temp_dir();
    let broker = open_quiet(dir.path());
    broker.ensure_topic("t", TopicConfig::new(1).segment_bytes(4 << 20)).unwrap();
    let mut reader = broker.reader().subscribe(["t"]).open().unwrap();
    // Warm: encoders, tables, the first segments.
    let warm = write(&broker, 20);
    while !reader.poll(Duration::ZERO).unwrap().is_empty() {}
    let before = live();
    let after = write(&broker, 200);
    assert!(warm > 0 && broker.admin().describe_topic("t").unwrap().partitions[0].segments > 50);
    // What a sealed segment is known by costs something; its data must not.
    let grown = after.saturating_sub(before);
    assert!(grown < 256 << 10, "{grown} bytes of heap for 200 MiB");
    let mut read = 0;
    let mut highest = 0;
    loop {
        let batch = reader.poll(Duration::ZERO).unwrap();
        if batch.is_empty() {
            break;
        }
        read += batch.len();
        highest = highest.max(live());
    }
    assert_eq!(read, 200 * 128);
    let grown = highest.saturating_sub(before);
    assert!(grown < 512 << 10, "{grown} bytes of heap while 200 MiB were read");
}

#[test]
fn a_sealed_segment_keeps_no_descriptor_and_few_blocks_beyond_its_data() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let dir = temp_dir();
    let broker = open_quiet(dir.path());
    broker.ensure_topic("t", TopicConfig::new(1).segment_bytes(1 << 20)).unwrap();
    write(&broker, 1);
    let before = open_files();
    write(&broker, 40);
    broker.flush().unwrap();
    broker.tick().unwrap();
    let grown = open_files().saturating_sub(before);
    assert!(grown <= 2, "{grown} more files are open");
    let (data, used) = (41 << 20, disk_use(&dir.path().join("t")));
    assert!(used < data + (3 << 20), "{used} bytes of disk for {data} of data");
}

#[test]
fn a_dropped_broker_leaves_no_descriptor_and_no_heap() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let dir = temp_dir();
    let mut heap = Vec::new();
    let files = open_files();
    for _ in 0..6 {
        let broker = open_quiet(dir.path());
        broker.ensure_topic("t", TopicConfig::new(3).segment_bytes(1 << 20)).unwrap();
        write(&broker, 4);
        let mut consumer = broker.consumer("g").subscribe(["t"]).open().unwrap();
        while !consumer.poll(Duration::ZERO).unwrap().is_empty() {}
        consumer.commit().unwrap();
        drop(consumer);
        broker.close().unwrap();
        assert_eq!(open_files(), files);
        heap.push(live());
    }
    let grown = heap[5].saturating_sub(heap[2]);
    assert!(grown < 64 << 10, "{grown} bytes of heap are left by three runs");
}

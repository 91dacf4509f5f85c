//! Goal: many partitions fit into few descriptors and little disk, and memory does not grow with
//! the data.
//!
//! Method: this binary counts what it has on the heap. The test with a thousand topics is a child
//! process that first lowers its own limit of open files to 1,024. Making that many topics is some
//! ten thousand syncs, which take minutes on a busy disk and nothing in `/dev/shm`, where it
//! therefore works; `LOGPOND_LIMITS_DIR` puts it elsewhere, `LOGPOND_LIMITS_TOPICS` changes the
//! number of topics.
//!
//! Not covered: time (the benches), address space, and what the page cache holds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(target_os = "linux")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::*;
use logpond::{Broker, Durability, Record, TopicConfig};
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
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let place = match std::env::var_os("LOGPOND_LIMITS_DIR") {
        Some(place) => place.into(),
        None if Path::new("/dev/shm").is_dir() => "/dev/shm".into(),
        None => std::env::temp_dir(),
    };
    let dir = tempfile::Builder::new().prefix("logpond-test-").tempdir_in(place).unwrap();
    let output = child("child_opens_a_thousand_topics", dir.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
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
fn a_broker_that_is_gone_leaves_no_descriptor_and_no_heap() {
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
    assert!(grown < 64 << 10, "{grown} bytes of heap are left by three lives");
}

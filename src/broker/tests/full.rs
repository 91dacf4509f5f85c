//! The ways out of a full disk, or a budget that is used up: what removes must not need space
//! first, and must not wait for its minute.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::model::{DIR, clock, open_at};
use crate::broker::Broker;
use crate::clock::{ManualClock, real_now};
use crate::config::{Cleanup, Durability, TopicConfig, WhenFull};
use crate::error::Error;
use crate::record::Record;
use crate::storage::disk::{Fault, Operation, SimulatedDisk};
use crate::topic::Partition;

const MINUTE: Duration = Duration::from_secs(60);

/// Five of them fill a segment of [`config`].
const VALUE: [u8; 3_000] = [b'v'; 3_000];

fn config() -> TopicConfig {
    TopicConfig::new(1).segment_bytes(16 << 10).retention(10 * MINUTE).segment_age(MINUTE)
}

fn start(disk: &SimulatedDisk, clock: &ManualClock) -> (Broker, Partition) {
    let broker = open_at(disk, 1, Durability::Sync, clock).unwrap();
    let partition = broker.ensure_topic("t", config()).unwrap().partition(0).unwrap();
    (broker, partition)
}

fn append(partition: &Partition, count: usize) {
    for _ in 0..count {
        partition.append(&Record::new().value(&VALUE)).unwrap();
    }
}

/// No new file of the topic can be made, and none can grow.
fn fill(disk: &SimulatedDisk) {
    for operation in [Operation::Create, Operation::Allocate] {
        disk.inject(Fault::always(operation, ErrorKind::StorageFull).on("/t/"));
    }
}

/// The segments of the topic, oldest first.
fn segments(disk: &SimulatedDisk) -> Vec<PathBuf> {
    let dir = format!("{DIR}/t/0");
    disk.paths().into_iter().filter(|path| path.starts_with(&dir)).collect()
}

/// Symptom: on a full disk with a last segment older than `segment_age`, retention removed nothing,
/// for ever. Cause: it made the new segment first, and ended with the error of that. Rule: removing
/// needs no space. What can be removed is; the error is returned after that; the last segment is
/// replaced once there is space.
// RED: src/broker/retention.rs
//   - Ok(false) | Err(Error::StorageFull { .. }) => plan.log_start.min(tail.base_offset),
//   + Ok(false) => plan.log_start.min(tail.base_offset),
#[test]
fn row_c13_retention_removes_sealed_segments_where_no_new_one_can_be_made() {
    let (disk, clock) = (SimulatedDisk::new(), clock());
    let (broker, partition) = start(&disk, &clock);
    append(&partition, 12);
    clock.advance(11 * MINUTE);
    fill(&disk);
    let full = broker.tick();
    assert!(matches!(full, Err(Error::StorageFull { .. })), "{full:?}");
    assert_eq!(partition.log_start_offset(), 10);
    assert_eq!(segments(&disk).len(), 1);
    disk.heal();
    broker.tick().unwrap();
    assert_eq!(partition.log_start_offset(), 12);
    assert_eq!(segments(&disk).len(), 1);
}

/// Symptom: on a full disk `delete_records` up to the end failed, and nothing was removed. Cause
/// and rule as above: the log start moves, durably, the sealed segments are removed, and the last
/// one is replaced later: by the first retention that finds space.
// RED: src/broker/retention.rs
//   - let is_full = is_storage_full(&rolled);
//   + let is_full = false;
// RED: src/log/retention.rs
//   - let is_deleted = tail.facts.times.is_some() && tail.facts.next_offset <= self.log_start;
//   + let is_deleted = false;
#[test]
fn row_c13_all_records_can_be_deleted_on_a_full_disk() {
    let (disk, clock) = (SimulatedDisk::new(), clock());
    let (broker, partition) = start(&disk, &clock);
    append(&partition, 12);
    let last = segments(&disk).pop();
    fill(&disk);
    assert_eq!(broker.admin().delete_records(("t", 0), 12).unwrap(), 12);
    assert_eq!(partition.log_start_offset(), 12);
    assert_eq!(segments(&disk).last(), last.as_ref());
    assert_eq!(segments(&disk).len(), 1);
    let reopened = open_at(&disk.kill9(), 2, Durability::Sync, &clock).unwrap();
    let found = reopened.topic("t").unwrap().partition(0).unwrap();
    assert_eq!((found.log_start_offset(), found.log_end_offset()), (12, 12));
    disk.heal();
    broker.tick().unwrap();
    assert_eq!(segments(&disk).len(), 1);
    assert_ne!(segments(&disk).last(), last.as_ref(), "not replaced");
    append(&partition, 1);
    assert_eq!((partition.log_start_offset(), partition.log_end_offset()), (12, 13));
}

/// The last segment that a full disk kept, with all its records deleted, is sealed by an append
/// that needs the next one before retention has looked at it. Then it lies below a log start that
/// need not move any more, and is removed all the same; also after a crash.
// RED: src/broker/retention.rs
//   - if start <= core.log_start() && !core.retention().oldest_sealed().is_some_and(is_below) {
//   + if start <= core.log_start() {
#[test]
fn row_c13_a_deleted_segment_that_was_kept_is_removed_once_it_is_sealed() {
    for dies in [false, true] {
        let (mut disk, clock) = (SimulatedDisk::new(), clock());
        let (mut broker, mut partition) = start(&disk, &clock);
        append(&partition, 12);
        fill(&disk);
        assert_eq!(broker.admin().delete_records(("t", 0), 12).unwrap(), 12);
        disk.heal();
        if dies {
            disk = disk.kill9();
            (broker, partition) = start(&disk, &clock);
        }
        let values = [(); 4].map(|()| Record::new().value(&VALUE));
        partition.append_batch(&values).unwrap();
        // The next segment may have been made ahead, and lies there too.
        let core = broker.run().topic("t").unwrap().partitions[0].clone();
        let oldest = segments(&disk).into_iter().next().unwrap();
        assert_eq!(core.log().segments().count(), 2);
        broker.tick().unwrap();
        assert_eq!(core.log().segments().count(), 1);
        assert!(!disk.paths().contains(&oldest), "not removed");
        assert_eq!((partition.log_start_offset(), partition.log_end_offset()), (12, 16));
    }
}

/// What the removed segments gave back is space for the next one, which is made at once.
#[test]
fn row_c13_what_is_deleted_makes_space_for_the_next_segment() {
    let (disk, clock) = (SimulatedDisk::new(), clock());
    let (broker, partition) = start(&disk, &clock);
    let capacity = |files: Vec<PathBuf>| -> usize {
        files.iter().map(|path| disk.read(path).unwrap().len()).sum()
    };
    append(&partition, 12);
    let used = capacity(disk.paths());
    disk.limit_capacity(Some(used as u64));
    let last = segments(&disk).pop();
    assert_eq!(broker.admin().delete_records(("t", 0), 12).unwrap(), 12);
    assert_eq!(segments(&disk).len(), 1);
    assert_ne!(segments(&disk).last(), last.as_ref(), "not replaced");
    append(&partition, 1);
}

/// Appends records of ten keys until there is no space. How many went in.
fn fill_with_keys(partition: &Partition) -> u64 {
    for count in 0..10_000 {
        let key = format!("k{}", count % 10);
        match partition.append(&Record::new().key(&key).value(&VALUE)) {
            Ok(_) => {}
            Err(Error::StorageFull { .. }) => return count,
            Err(error) => panic!("{error:?}"),
        }
    }
    panic!("a budget without a limit");
}

/// Symptom: a compacted topic with 10 KB of live records in a budget of 6 MiB refused appends for
/// most of each minute. Cause: nothing was dirty enough for a compaction, or it had begun before
/// the last segments were sealed; and whatever is looked at every minute was looked at then. Rule:
/// a refused append has what is dirty compacted at once, whatever the ratio.
// RED: src/broker/space.rs
//   - partition.compactor().request(Occasion::NoSpace);
//   + partition.compactor().request(Occasion::Due);
#[test]
fn row_c14_a_refused_append_has_what_is_dirty_compacted() {
    let builder = Broker::builder().in_memory().max_total_bytes(1 << 20).clock(clock());
    let broker = builder.background(false).open().unwrap();
    let config = TopicConfig::new(1).cleanup(Cleanup::Compact).min_dirty_ratio(1.0);
    let topic = broker.ensure_topic("t", config.segment_bytes(64 << 10)).unwrap();
    let partition = topic.partition(0).unwrap();
    for round in 0..5 {
        let count = fill_with_keys(&partition);
        assert!(count > 200, "{count} in round {round}");
        broker.tick().unwrap();
    }
    // Without another append there is nothing new to look at.
    let before = broker.metrics();
    broker.tick().unwrap();
    assert_eq!(broker.metrics().budget_used_bytes, before.budget_used_bytes);
}

/// The same where the last segment, which takes appends and is never compacted, has used up the
/// budget alone: it is sealed.
// RED: src/partition/compactor.rs
//   - self.seal_for_compaction();
#[test]
fn row_c14_a_segment_that_uses_up_the_budget_alone_is_sealed_and_compacted() {
    let builder = Broker::builder().in_memory().max_total_bytes(1 << 20).clock(clock());
    let broker = builder.background(false).open().unwrap();
    let config = TopicConfig::new(1).cleanup(Cleanup::Compact);
    let partition = broker.ensure_topic("t", config).unwrap().partition(0).unwrap();
    for round in 0..5 {
        let count = fill_with_keys(&partition);
        assert!(count > 200, "{count} in round {round}");
        broker.tick().unwrap();
    }
}

/// The background does so without a `tick`, and does not wait for its minute; here with records
/// that have expired since.
// RED: src/broker/workers/bulk.rs
//   - engine.relieve();
#[test]
fn row_c14_the_background_looks_after_a_refused_append_at_once() {
    let clock = clock();
    let builder = Broker::builder().in_memory().max_total_bytes(1 << 20).clock(clock.clone());
    let broker = builder.open().unwrap();
    let config = TopicConfig::new(1).segment_bytes(64 << 10).retention(Duration::from_secs(10));
    let partition = broker.ensure_topic("t", config).unwrap().partition(0).unwrap();
    fill_with_keys(&partition);
    clock.advance(Duration::from_secs(11));
    let give_up = real_now() + MINUTE / 2;
    while partition.append(&Record::new().value(&VALUE)).is_err() {
        assert!(real_now() < give_up, "still refused");
        std::thread::yield_now();
    }
}

/// A full disk is waited for as a budget is, and is no reason for a commit to wait: that holds the
/// group's lock.
// RED: src/broker/space.rs
//   - if self.run.logs().contains(core) {
//   + if at_most.is_zero() {
#[test]
fn row_c16_a_full_disk_is_waited_for_and_not_by_commits() {
    let disk = SimulatedDisk::new();
    let builder = Broker::builder().disk(Arc::new(disk.clone()), Path::new(DIR)).clock(clock());
    let at_most = Duration::from_secs(5);
    let builder = builder.background(false).seed(1).when_full(WhenFull::Wait { at_most });
    let broker = builder.open().unwrap();
    let partition = broker.ensure_topic("t", config()).unwrap().partition(0).unwrap();
    append(&partition, 12);
    fill(&disk);
    std::thread::scope(|scope| {
        let producer = scope.spawn(|| append(&partition, 12));
        while !producer.is_finished() {
            // Deletion needs no space, and gives back what the disk has to give again.
            broker.admin().delete_records(("t", 0), 10).unwrap();
            disk.heal();
        }
        producer.join().unwrap();
    });

    for operation in [Operation::Write, Operation::Create, Operation::Allocate] {
        disk.inject(Fault::always(operation, ErrorKind::StorageFull).on("__offsets"));
    }
    let mut consumer = broker.consumer("g").subscribe(["t"]).open().unwrap();
    let began = real_now();
    let first = consumer.recv().unwrap();
    let refused = consumer.commit_message(&first);
    assert!(matches!(refused, Err(Error::StorageFull { .. })), "{refused:?}");
    assert!(began.elapsed() < at_most, "{:?}", began.elapsed());
}

/// Symptom: an append that waited for a full disk kept a processor and the disk busy. Cause: each
/// attempt to make a segment claimed its bytes and gave them back, and that called the append, as
/// if there were space now. Rule: what was never there is not given back.
// RED: src/log/create.rs
//   - claim.withdraw();
#[test]
fn row_c16_a_refused_segment_calls_nobody_who_waits_for_room() {
    let (disk, clock) = (SimulatedDisk::new(), clock());
    let (broker, partition) = start(&disk, &clock);
    append(&partition, 5);
    fill(&disk);
    let space = &broker.run().context().env.space;
    let before = (space.used(), space.returns());
    let refused = partition.append(&Record::new().value(&VALUE));
    assert!(matches!(refused, Err(Error::StorageFull { .. })), "{refused:?}");
    assert_eq!((space.used(), space.returns()), before);
}

/// Symptom: a full disk and a compacted topic had no way out but to delete the topic. Cause: a
/// compaction makes its new file before it removes the old ones, and `delete_records` was refused.
/// Rule: what an application asks to delete goes, in a compacted topic too. Neither an older value
/// nor a deleted one comes back, also after a crash.
// RED: src/broker/retention.rs
//   - let (start, end) = (core.log_start(), core.visible_end(Visibility::Published));
//   + let (start, end) = (core.log_start(), if deletes(topic.config.cleanup) { before } else { 0 });
#[test]
fn row_c17_records_of_a_compacted_topic_can_be_deleted_where_a_compaction_finds_no_space() {
    let (disk, clock) = (SimulatedDisk::new(), clock());
    let broker = open_at(&disk, 1, Durability::Sync, &clock).unwrap();
    let compacted = config().cleanup(Cleanup::Compact);
    let partition = broker.ensure_topic("t", compacted).unwrap().partition(0).unwrap();
    let put = |number: u64| {
        let key = format!("k{}", number % 4);
        partition.append(&Record::new().key(&key).value(&VALUE)).map(drop)
    };
    (0..12).for_each(|number| put(number).unwrap());
    fill(&disk);
    broker.tick().unwrap_or_default();
    let full = broker.admin().compact_now("t");
    assert!(matches!(full, Err(Error::StorageFull { .. })), "{full:?}");
    assert_eq!(broker.admin().delete_records(("t", 0), 10).unwrap(), 10);
    assert_eq!(segments(&disk).len(), 1, "nothing was removed");

    let reopened = open_at(&disk.kill9(), 2, Durability::Sync, &clock).unwrap();
    let found = reopened.topic("t").unwrap().partition(0).unwrap();
    assert_eq!((found.log_start_offset(), found.log_end_offset()), (10, 12));

    // With space again it continues as ever.
    disk.heal();
    (12..30).for_each(|number| put(number).unwrap());
    broker.tick().unwrap();
    broker.admin().compact_now("t").unwrap();
    let batch = partition.read(10, 1 << 20).unwrap();
    let first = batch.iter().next().unwrap();
    assert!(first.offset() > 10, "nothing was compacted");
}

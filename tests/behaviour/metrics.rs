//! Goal: what a broker says that it counted is what was done to it, and its parts agree.
//!
//! Method: known workloads on a manual clock without background threads, then all of them at once
//! from several threads, with the promised relations checked on every snapshot. Not covered: how
//! long syncs take, which only the disk knows; the histogram itself has its tests beside it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use logpond::{
    Broker, Cleanup, Durability, GroupStatus, ManualClock, Message, Metrics, Offsets,
    PartitionMetrics, Record, RecoveryPolicy, StartAt, TopicConfig, WhenFull,
};

use crate::common::{
    drain, files_below, in_memory, manual_clock, quiet, small_topic, temp_dir, tp,
};

const MINUTE: Duration = Duration::from_secs(60);
const VALUE: [u8; 1_000] = [b'v'; 1_000];

fn on_clock() -> (Broker, ManualClock) {
    let clock = manual_clock();
    let builder = Broker::builder().in_memory().background(false).clock(clock.clone());
    (builder.open().unwrap(), clock)
}

fn append(broker: &Broker, partition: u32, count: u64) {
    let partition = broker.topic("t").unwrap().partition(partition).unwrap();
    for _ in 0..count {
        partition.append(&Record::new().value(&VALUE)).unwrap();
    }
}

fn first(metrics: &Metrics) -> &PartitionMetrics {
    &metrics.topics[0].partitions[0]
}

#[test]
fn a_known_workload_gives_known_numbers() {
    let (broker, _clock) = on_clock();
    let partition = broker.ensure_topic("t", TopicConfig::new(2)).unwrap().partition(1).unwrap();
    for _ in 0..3 {
        partition.append(&Record::new().value("one")).unwrap();
    }
    let four = ["a", "b", "c", "d"].map(|value| Record::new().value(value));
    partition.append_batch(&four).unwrap();
    assert!(partition.append_if(3, &four).is_err());
    let mut reader = broker.reader().assign([tp("t", 1)]).max_poll_records(5).open().unwrap();
    assert_eq!(drain(&mut reader).len(), 7);
    assert_eq!(partition.read(6, 1).unwrap().len(), 1);
    assert!(partition.offset_at(crate::common::some_time()).unwrap().is_some());

    let metrics = broker.metrics();
    assert!(metrics.is_in_memory && metrics.poisoned.is_empty());
    assert_eq!(metrics.budget_limit_bytes, Some(1 << 30));
    let topic = &metrics.topics[0];
    assert_eq!((&*topic.name, topic.partitions.len()), ("t", 2));
    let (idle, used) = (&topic.partitions[0], &topic.partitions[1]);
    assert_eq!((idle.appended.batches, idle.fetched.fetches, idle.syncs.count), (0, 0, 0));
    assert_eq!((used.partition, used.segments), (1, 1));
    assert_eq!((used.log_start_offset, used.durable_end_offset, used.log_end_offset), (0, 7, 7));
    assert_eq!((used.appended.batches, used.appended.records), (4, 7));
    // Two polls of five and two, and one call of `read`; the lookup by time reads for itself.
    assert_eq!((used.fetched.fetches, used.fetched.records), (3, 8));
    assert!(used.appended.bytes > 4 * 32 && used.appended.bytes < 7 * 64, "{used:?}");
    assert!(used.fetched.bytes >= used.appended.bytes, "{used:?}");
    // Each append at level `Sync` waits for a sync of its own.
    assert_eq!((used.syncs.count, used.syncs.buckets[0], used.syncs.sum_micros), (4, 4, 0));
    assert_eq!(metrics.internal.len(), 3);
}

#[test]
fn bytes_on_disk_are_what_the_files_take() {
    use std::os::unix::fs::MetadataExt;
    let dir = temp_dir();
    let broker = quiet(dir.path()).max_total_bytes(8 << 20).open().unwrap();
    broker.ensure_topic("t", small_topic(2)).unwrap();
    append(&broker, 0, 100);
    append(&broker, 1, 3);
    broker.tick().unwrap();
    let metrics = broker.metrics();
    let reported: u64 = metrics.topics[0].partitions.iter().map(|it| it.bytes_on_disk).sum();
    let blocks = |path: &std::path::PathBuf| std::fs::metadata(path).unwrap().blocks() * 512;
    let files = files_below(&dir.path().join("t"));
    let taken: u64 = files.iter().map(blocks).sum();
    // A file system has a page or two of its own for each.
    let slack = 2 * 4096 * files.len() as u64;
    assert!(
        reported >= 100_000 && reported.abs_diff(taken) <= slack,
        "{reported}, in fact {taken}"
    );
    assert_eq!(metrics.budget_used_bytes, reported);
    assert_eq!(metrics.budget_limit_bytes, Some(8 << 20));
    assert!(!metrics.is_in_memory);
    broker.close().unwrap();

    // Counts begin anew, levels stay.
    let broker = quiet(dir.path()).open().unwrap();
    let metrics = broker.metrics();
    let reopened = first(&metrics);
    assert_eq!((reopened.appended.records, reopened.log_end_offset), (0, 100));
    append(&broker, 0, 2);
    let metrics = broker.metrics();
    assert_eq!((first(&metrics).appended.records, first(&metrics).log_end_offset), (2, 102));
}

#[test]
fn statement_20_what_retention_removes_is_counted_and_held_messages_pin_it() {
    for read_on in [false, true] {
        let (broker, clock) = on_clock();
        broker.ensure_topic("t", small_topic(1).retention(MINUTE)).unwrap();
        append(&broker, 0, 40);
        let mut reader = broker.reader().assign([tp("t", 0)]).open().unwrap();
        let held: Vec<Message> = drain(&mut reader);
        drop(reader);
        let before = broker.metrics();
        assert_eq!(before.pinned_bytes, 0);
        clock.advance(2 * MINUTE);
        broker.tick().unwrap();
        let after = broker.metrics();
        let gone = first(&after);
        assert_eq!((gone.log_start_offset, gone.removed.offsets), (40, 40));
        assert_eq!(gone.removed.segments, first(&before).segments as u64);
        assert!((40_000..60_000).contains(&gone.removed.bytes), "{gone:?}");
        assert_eq!(
            (gone.pinned_bytes, after.pinned_bytes),
            (gone.removed.bytes, gone.removed.bytes)
        );
        if read_on {
            append(&broker, 0, 10);
            assert_eq!(broker.metrics().pinned_bytes, after.pinned_bytes);
        }
        let last = held.last().unwrap().clone();
        drop(held);
        let pinned = broker.metrics().pinned_bytes;
        assert!(pinned > 0 && pinned < after.pinned_bytes, "one segment is held: {pinned}");
        drop(last);
        assert_eq!(broker.metrics().pinned_bytes, 0);
    }
}

#[test]
fn a_deleted_topic_pins_what_is_held_of_it() {
    let broker = in_memory();
    broker.ensure_topic("t", small_topic(1)).unwrap();
    append(&broker, 0, 5);
    let batch = broker.topic("t").unwrap().partition(0).unwrap().read(0, 1 << 20).unwrap();
    broker.admin().delete_topic("t").unwrap();
    broker.ensure_topic("t", small_topic(1)).unwrap();
    let metrics = broker.metrics();
    assert!(metrics.pinned_bytes >= 5_000, "{}", metrics.pinned_bytes);
    assert_eq!(first(&metrics).pinned_bytes, 0, "the new one has nothing of it");
    drop(batch);
    assert_eq!(broker.metrics().pinned_bytes, 0);
}

#[test]
fn statement_11_a_gap_is_counted_with_what_was_missed() {
    let (broker, clock) = on_clock();
    broker.ensure_topic("t", small_topic(1).retention(MINUTE)).unwrap();
    append(&broker, 0, 30);
    let mut reading = broker.reader().assign([tp("t", 0)]).max_poll_records(4).open().unwrap();
    assert_eq!(reading.poll(Duration::ZERO).unwrap().len(), 4);
    clock.advance(2 * MINUTE);
    broker.tick().unwrap();
    append(&broker, 0, 1);
    while !reading.poll(Duration::ZERO).unwrap().is_empty() {}
    let missed: u64 = reading.take_gaps().iter().map(|gap| gap.missed.end - gap.missed.start).sum();
    let metrics = broker.metrics();
    let fetched = &first(&metrics).fetched;
    assert_eq!((fetched.gaps, fetched.gap_offsets), (1, missed));
    assert_eq!((fetched.damage, fetched.damage_offsets), (0, 0));
    assert_eq!(fetched.records + fetched.gap_offsets, 31, "read or missed");
}

#[test]
fn damage_that_a_consumer_passes_is_counted() {
    let dir = temp_dir();
    let broker = quiet(dir.path()).open().unwrap();
    broker.ensure_topic("t", small_topic(1)).unwrap();
    append(&broker, 0, 40);
    broker.close().unwrap();
    let oldest = files_below(&dir.path().join("t")).into_iter().min().unwrap();
    let mut bytes = std::fs::read(&oldest).unwrap();
    bytes[5_000] ^= 1;
    std::fs::write(&oldest, bytes).unwrap();

    let broker = quiet(dir.path()).recovery(RecoveryPolicy::ReadAroundDamage).open().unwrap();
    let mut reader = broker.reader().assign([tp("t", 0)]).open().unwrap();
    let mut read = drain(&mut reader).len();
    // The poll that meets the damage moves past it and returns nothing.
    read += drain(&mut reader).len();
    assert_eq!(read, 39);
    let metrics = broker.metrics();
    let fetched = &first(&metrics).fetched;
    assert_eq!((fetched.records, fetched.damage, fetched.damage_offsets), (39, 1, 1));
    assert_eq!(fetched.gaps, 0);
}

/// Symptom: a group whose next 980 records were removed before it read them had a lag of 990, of
/// which ten could be read: it never came down, whatever its consumers did. Cause: lag was counted
/// from the commit alone. Rule: it is what can still be read, in the metrics and for an
/// administrator alike.
#[test]
fn lag_is_counted_from_the_log_start_where_a_commit_lies_below_it() {
    let (broker, _clock) = on_clock();
    broker.ensure_topic("t", TopicConfig::new(2)).unwrap();
    append(&broker, 0, 1000);
    append(&broker, 1, 1000);
    let mut member = broker.consumer("g").subscribe(["t"]).open().unwrap();
    member.commit_offsets(&Offsets::from([(tp("t", 0), 10)])).unwrap();
    let seen = || {
        let group = broker.admin().describe_group("g").unwrap();
        assert_eq!(broker.admin().groups().unwrap(), std::slice::from_ref(&group));
        let metrics = broker.metrics().groups.remove(0);
        assert_eq!(metrics.offsets, group.offsets);
        assert_eq!(metrics.lag, group.offsets.iter().map(|offset| offset.lag).sum::<u64>());
        [0, 1].map(|at: usize| (group.offsets[at].committed, group.offsets[at].lag))
    };
    assert_eq!(seen(), [(Some(10), 990), (None, 1000)]);
    for (before, lag) in [(10, 990), (11, 989), (990, 10), (1000, 0)] {
        broker.admin().delete_records(("t", 0), before).unwrap();
        assert_eq!(seen(), [(Some(10), lag), (None, 1000)], "{before}");
    }
    broker.admin().delete_records(("t", 1), 400).unwrap();
    assert_eq!(seen(), [(Some(10), 0), (None, 600)]);
    append(&broker, 0, 3);
    assert_eq!(seen()[0], (Some(10), 3));
}

/// Symptom: a service that died before its first commit, or that was stuck on its first message, had
/// no lag in the metrics, and none for an administrator: what an alert on lag is for. Cause: only
/// commits and owners counted. Rule: what the group has subscribed to counts, with a member or
/// without.
// RED: src/group/progress.rs
//   - committed.chain(assigned).chain(subscribed)
//   + committed.chain(assigned)
#[test]
fn a_group_that_has_never_committed_has_its_lag() {
    for pattern in [None, Some("t*")] {
        let (broker, _clock) = on_clock();
        broker.ensure_topic("t", TopicConfig::new(2)).unwrap();
        broker.ensure_topic("other", TopicConfig::new(1)).unwrap();
        append(&broker, 0, 5);
        append(&broker, 1, 3);
        let builder = broker.consumer("g");
        let mut member = match pattern {
            None => builder.subscribe(["t"]).open().unwrap(),
            Some(pattern) => builder.subscribe_pattern(pattern).open().unwrap(),
        };
        let seen = || {
            let group = broker.admin().describe_group("g").unwrap();
            let metrics = broker.metrics().groups.remove(0);
            assert_eq!(metrics.offsets, group.offsets);
            assert!(group.offsets.iter().all(|it| it.committed.is_none()));
            let offsets = group.offsets.into_iter();
            (metrics.lag, offsets.map(|it| (it.partition, it.lag)).collect::<Vec<_>>())
        };
        let all = (8, vec![(tp("t", 0), 5), (tp("t", 1), 3)]);
        assert_eq!(drain(&mut member).len(), 8);
        assert_eq!(seen(), all, "{pattern:?}: it is stuck on its first message");
        drop(member);
        assert_eq!(seen(), all, "{pattern:?}: it has died");
        broker.admin().delete_records(("t", 0), 4).unwrap();
        assert_eq!(seen(), (4, vec![(tp("t", 0), 1), (tp("t", 1), 3)]), "{pattern:?}");
        broker.admin().delete_topic("t").unwrap();
        assert_eq!(seen(), (0, vec![]), "{pattern:?}");
    }
}

#[test]
fn a_group_is_described_with_lag_rebalances_and_evictions() {
    let (broker, clock) = on_clock();
    broker.ensure_topic("t", TopicConfig::new(2)).unwrap();
    append(&broker, 0, 10);
    append(&broker, 1, 4);
    let member = || {
        let builder = broker.consumer("g").subscribe(["t"]).start(StartAt::Earliest);
        builder.max_poll_interval(MINUTE).open().unwrap()
    };
    let mut a = member();
    assert_eq!(drain(&mut a).len(), 14);
    a.commit().unwrap();
    append(&broker, 1, 3);
    let metrics = broker.metrics();
    let group = &metrics.groups[0];
    assert_eq!((&*group.name, group.state), ("g", GroupStatus::Stable));
    assert_eq!((group.members, group.members_away, group.evictions), (1, 0, 0));
    assert_eq!((group.lag, group.offsets.len(), group.assignments), (3, 2, 2));
    assert_eq!((group.offsets[1].committed, group.offsets[1].lag), (Some(4), 3));
    assert_eq!(metrics.rebalances, group.generation);

    let mut b = member();
    assert_eq!(broker.metrics().groups[0].state, GroupStatus::Rebalancing);
    a.poll(Duration::ZERO).unwrap();
    b.poll(Duration::ZERO).unwrap();
    assert_eq!(broker.metrics().groups[0].assignments, 3, "one partition has moved");
    clock.advance(MINUTE / 2);
    a.poll(Duration::ZERO).unwrap();
    clock.advance(MINUTE / 2);
    broker.tick().unwrap();
    let metrics = broker.metrics();
    assert_eq!((metrics.evictions, metrics.groups[0].evictions), (1, 1));
    assert!(metrics.groups[0].generation > group.generation);

    // The group keeps its offsets, and the broker what it has counted.
    drop((a, b));
    let empty = broker.metrics();
    assert_eq!((empty.groups[0].state, empty.groups[0].members), (GroupStatus::Empty, 0));
    assert_eq!((empty.groups[0].evictions, empty.evictions), (0, 1));
    assert!(empty.rebalances >= metrics.rebalances);
}

#[test]
fn compaction_is_part_of_the_numbers_where_there_is_any() {
    let broker = in_memory();
    broker.ensure_topic("t", small_topic(1).cleanup(Cleanup::Compact)).unwrap();
    let partition = broker.topic("t").unwrap().partition(0).unwrap();
    for _ in 0..100 {
        partition.append(&Record::new().key("key").value(&VALUE)).unwrap();
    }
    let held = partition.read(0, 1).unwrap();
    broker.admin().compact_now("t").unwrap();
    let metrics = broker.metrics();
    let compaction = first(&metrics).compaction.unwrap();
    assert!(compaction.records_removed > 50, "{compaction:?}");
    assert!(first(&metrics).pinned_bytes > 10_000, "what was replaced is still read");
    drop(held);
    assert_eq!(broker.metrics().pinned_bytes, 0);
}

#[cfg(feature = "json")]
#[test]
fn a_snapshot_can_be_serialised() {
    let broker = in_memory();
    broker.ensure_topic("t", small_topic(1)).unwrap();
    append(&broker, 0, 3);
    broker.consumer("g").subscribe(["t"]).open().unwrap().commit().unwrap();
    let json = serde_json::to_value(broker.metrics()).unwrap();
    let partition = &json["topics"][0]["partitions"][0];
    assert_eq!(json["topics"][0]["name"], "t");
    assert_eq!(partition["log_end_offset"], 3);
    assert_eq!(partition["appended"]["records"], 3);
    assert_eq!(partition["syncs"]["buckets"].as_array().unwrap().len(), 25);
    assert_eq!(json["budget_limit_bytes"], 1 << 30);
    assert_eq!(json["groups"][0]["name"], "g");
}

/// Symptom: with a `pause` after each `recv`, `fetched.records` was 3,775 for 100 records. Cause:
/// what was read ahead for `recv` is given back by `pause`, `resume`, `seek` and `poll`, and its
/// next reading counted again. Rule: a reader that only goes forward has never fetched more records
/// than the log has, however it goes forward.
#[test]
fn records_that_were_read_ahead_and_given_back_count_once() {
    for cleanup in [Cleanup::Delete, Cleanup::Compact] {
        let (broker, _clock) = on_clock();
        let topic = broker.ensure_topic("t", small_topic(1).cleanup(cleanup)).unwrap();
        let partition = topic.partition(0).unwrap();
        for batch in 0..40_u8 {
            let keys: Vec<_> = (0..7).map(|key| [batch % 3, key]).collect();
            let records: Vec<_> =
                keys.iter().map(|key| Record::new().key(key).value(&VALUE)).collect();
            partition.append_batch(&records).unwrap();
        }
        if cleanup == Cleanup::Compact {
            broker.admin().compact_now("t").unwrap();
        }
        let fetched = || first(&broker.metrics()).fetched;
        let stored = partition.log_end_offset();
        let all = drain(&mut broker.reader().subscribe(["t"]).open().unwrap()).len() as u64;
        assert_eq!((fetched().records, all < stored), (all, cleanup == Cleanup::Compact));

        let before = fetched();
        let mut reader = broker.reader().subscribe(["t"]).max_poll_records(10).open().unwrap();
        let (mut read, mut turn) = (0, 0);
        while let Some(message) = reader.try_recv().unwrap() {
            read += 1;
            let partition = message.topic_partition();
            let next = StartAt::Offset(message.next_offset());
            match turn % 5 {
                0 => reader.pause([&partition]).and_then(|()| reader.resume([&partition])).unwrap(),
                1 => reader.seek(&partition, next).unwrap(),
                2 if turn % 2 == 0 => read += reader.poll(Duration::ZERO).unwrap().len() as u64,
                _ => {}
            }
            turn += 1;
            let records = fetched().records - before.records;
            assert!(read <= records && records <= all, "{read} {records} of {all}");
        }
        let now = fetched();
        assert_eq!((read, now.records - before.records), (all, all), "{cleanup:?}");
        assert!(now.bytes - before.bytes >= all * 1_000, "{now:?}");

        reader.seek(("t", 0), StartAt::Earliest).unwrap();
        assert_eq!(drain(&mut reader).len() as u64, all);
        assert_eq!(fetched().records - now.records, all, "read again on purpose");
    }
}

/// The relations that every snapshot promises.
fn assert_consistent(metrics: &Metrics, earlier: Option<&Metrics>) {
    for (topic, name) in metrics.topics.iter().zip(["t"]) {
        assert_eq!(&*topic.name, name);
        for (index, now) in topic.partitions.iter().enumerate() {
            assert!(now.log_start_offset <= now.durable_end_offset, "{now:?}");
            assert!(now.durable_end_offset <= now.log_end_offset, "{now:?}");
            assert_eq!(now.appended.records, now.log_end_offset, "{now:?}");
            assert!(now.appended.batches <= now.appended.records, "{now:?}");
            assert_eq!(now.removed.offsets, now.log_start_offset, "{now:?}");
            assert!(now.fetched.records + now.fetched.gap_offsets <= now.log_end_offset, "{now:?}");
            assert_eq!(now.syncs.buckets.iter().sum::<u64>(), now.syncs.count, "{now:?}");
            let Some(before) = earlier.map(|earlier| &earlier.topics[0].partitions[index]) else {
                continue;
            };
            assert!(before.log_end_offset <= now.log_end_offset, "{before:?} {now:?}");
            assert!(before.log_start_offset <= now.log_start_offset, "{before:?} {now:?}");
            assert!(before.fetched.records <= now.fetched.records, "{before:?} {now:?}");
        }
    }
    for group in &metrics.groups {
        for offset in group.offsets.iter().filter(|offset| offset.committed.is_some()) {
            let partition = offset.partition.partition as usize;
            let end = metrics.topics[0].partitions[partition].log_end_offset;
            // Never ahead of the log, and counted to the same end.
            let start = metrics.topics[0].partitions[partition].log_start_offset;
            assert_eq!(offset.committed.unwrap().max(start) + offset.lag, end, "{offset:?}");
        }
    }
}

/// Appends, reads, commits and retention at once: each partition has one reader, that only goes
/// forward, so what was fetched and missed can be held against the log end.
#[test]
fn every_snapshot_is_consistent_under_concurrent_calls() {
    const RECORDS: u64 = 20_000;
    let broker = Broker::builder()
        .in_memory()
        .durability(Durability::Os)
        .max_total_bytes(1 << 20)
        .when_full(WhenFull::DropOldest)
        .open()
        .unwrap();
    broker.ensure_topic("t", small_topic(2).retention_bytes(200_000)).unwrap();
    let (ended, done) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let appenders: Vec<_> = (0..2)
            .map(|partition| {
                scope.spawn({
                    let broker = &broker;
                    move || append(broker, partition, RECORDS)
                })
            })
            .collect();
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut reader = broker.consumer("g").subscribe(["t"]).open().unwrap();
                    while !ended.load(Ordering::Acquire) {
                        let _ = reader.poll(Duration::from_millis(1)).unwrap();
                        reader.commit().unwrap_or_default();
                    }
                })
            })
            .collect();
        let deletes = scope.spawn(|| {
            let admin = broker.admin();
            while !ended.load(Ordering::Acquire) {
                admin.enforce_retention_now().unwrap();
            }
        });
        let watch = scope.spawn(|| {
            let (mut earlier, mut snapshots) = (None, 0_u64);
            while !done.load(Ordering::Acquire) {
                let metrics = broker.metrics();
                assert_consistent(&metrics, earlier.as_ref());
                earlier = Some(metrics);
                snapshots += 1;
            }
            snapshots
        });
        // A thread that fails must not leave the others running: its failure is looked at last.
        let appended: Vec<_> = appenders.into_iter().map(thread::ScopedJoinHandle::join).collect();
        ended.store(true, Ordering::Release);
        let read: Vec<_> = readers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        let retention = deletes.join();
        done.store(true, Ordering::Release);
        let watched = watch.join();
        appended.into_iter().chain(read).chain([retention]).for_each(|it| it.unwrap());
        assert!(watched.unwrap() > 10);
    });
    let metrics = broker.metrics();
    assert!(first(&metrics).removed.offsets > RECORDS / 2);
}

//! A read-only broker that follows one that writes.
//!
//! Goal: after a refresh it shows all that was published before it, each record once, and calls
//! nothing damaged that is not. Method: both are on one simulated disk; everything that a writer
//! does is done between two refreshes, and at every operation of one; halves of a batch are written
//! by hand. With a process of its own as the writer: `tests/environment.rs`.

use std::fs;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use super::inspect::{Writer, disk_with, look};
use super::model::{clock, open_at, open_on};
use crate::broker::Broker;
use crate::config::{Cleanup, Durability, RecoveryPolicy, TopicConfig};
use crate::error::{CorruptionKind, Error};
use crate::message::Message;
use crate::record::Record;
use crate::storage::disk::{Disk, HookedDisk, Side, SimulatedDisk};
use crate::sync::{AtomicU64, Ordering};
use crate::{Consumer, Offsets, TopicPartition};

fn writer(disk: &SimulatedDisk) -> Broker {
    open_at(disk, 1, Durability::Os, &clock()).unwrap()
}

fn viewer(disk: &SimulatedDisk) -> Broker {
    look(Arc::new(disk.clone())).unwrap()
}

fn send(broker: &Broker, topic: &str, partition: u32, value: &str) -> u64 {
    let partition = broker.topic(topic).unwrap().partition(partition).unwrap();
    partition.append(&Record::new().key(value).value(value)).unwrap()
}

fn text(message: &Message) -> String {
    String::from_utf8_lossy(message.value().unwrap()).into_owned()
}

/// All that there is now.
fn drain(reader: &mut Consumer) -> Vec<Message> {
    let mut all = Vec::new();
    loop {
        let batch = reader.poll(Duration::ZERO).unwrap();
        if batch.is_empty() {
            return all;
        }
        all.extend(batch);
    }
}

// RED: src/partition/reader.rs
//   - state.log_mut().take_over(found, true);
// RED: src/log/cursor.rs
//   - if let Some(grown) = segments.grown(&self.segment) {
//   + if let Some(grown) = segments.grown(&self.segment).filter(|_| false) {
#[test]
fn a_reader_sees_what_was_appended_after_the_next_refresh() {
    let disk = SimulatedDisk::new();
    let writer = writer(&disk);
    writer.ensure_topic("t", TopicConfig::new(1).segment_bytes(16 << 10)).unwrap();
    send(&writer, "t", 0, "0");
    let viewer = viewer(&disk);
    let partition = viewer.topic("t").unwrap().partition(0).unwrap();
    let mut reader = viewer.reader().subscribe(["t"]).open().unwrap();
    assert_eq!(drain(&mut reader).len(), 1);
    let padding = "p".repeat(3_000);
    for round in 1..20_u64 {
        let end = partition.log_end_offset();
        for number in 0..round {
            send(&writer, "t", 0, &format!("{} {padding}", end + number));
        }
        assert!(drain(&mut reader).is_empty(), "before the refresh");
        assert_eq!(partition.log_end_offset(), end);
        let refreshed = viewer.refresh().unwrap();
        assert_eq!(refreshed.records, round, "{refreshed:?}");
        assert_eq!(partition.log_end_offset(), end + round);
        let read = drain(&mut reader);
        assert_eq!(read.len() as u64, round);
        for (message, offset) in read.iter().zip(end..) {
            assert_eq!(message.offset(), offset);
            assert!(text(message).starts_with(&format!("{offset} ")));
        }
        assert!(viewer.refresh().unwrap().is_empty());
    }
    // Another reader, from the beginning.
    let mut reader = viewer.reader().subscribe(["t"]).open().unwrap();
    assert_eq!(drain(&mut reader).len() as u64, partition.log_end_offset());
    assert!(reader.take_gaps().is_empty());
    assert!(viewer.admin().verify("t").unwrap().is_ok());
    // It has nothing to do in a broker that writes.
    assert!(writer.refresh().unwrap().is_empty());
    viewer.clone().close().unwrap();
    assert!(matches!(viewer.refresh(), Err(Error::Closed)));
}

#[test]
fn a_waiting_reader_is_woken_by_a_refresh() {
    let disk = SimulatedDisk::new();
    let writer = writer(&disk);
    writer.ensure_topic("t", TopicConfig::new(1)).unwrap();
    let viewer = viewer(&disk);
    let mut reader = viewer.reader().subscribe_pattern("*").open().unwrap();
    let (read, was_read) = mpsc::channel();
    let waits = thread::spawn(move || {
        for _ in 0..2 {
            read.send(text(&reader.recv().unwrap())).unwrap();
        }
    });
    let patience = Duration::from_secs(40);
    send(&writer, "t", 0, "old topic");
    viewer.refresh().unwrap();
    assert_eq!(was_read.recv_timeout(patience).unwrap(), "old topic");
    writer.ensure_topic("u", TopicConfig::new(1)).unwrap();
    send(&writer, "u", 0, "new topic");
    viewer.refresh().unwrap();
    assert_eq!(was_read.recv_timeout(patience).unwrap(), "new topic");
    waits.join().unwrap();
}

/// Everything that changes between two refreshes.
// RED: src/broker/refresh.rs
//   - self.inspector.catch_up(META, logs.catalog(), looks)?;
// RED: src/broker/refresh.rs
//   - self.inspector.catch_up(OFFSETS, self.engine.coordinator().offsets().log(), looks)?;
#[test]
fn topics_settings_partitions_and_commits_follow() {
    let disk = SimulatedDisk::new();
    let writer = writer(&disk);
    for topic in ["kept", "replaced", "removed"] {
        writer.ensure_topic(topic, TopicConfig::new(1)).unwrap();
        send(&writer, topic, 0, "first");
    }
    let viewer = viewer(&disk);
    let kept = viewer.topic("kept").unwrap();
    let replaced = viewer.topic("replaced").unwrap().partition(0).unwrap();
    let removed = viewer.topic("removed").unwrap().partition(0).unwrap();
    let mut all = viewer.reader().subscribe_pattern("*").open().unwrap();
    assert_eq!(drain(&mut all).len(), 3);

    let admin = writer.admin();
    admin.add_partitions("kept", 3).unwrap();
    admin.alter_topic("kept", |config| config.max_record_bytes(1_000)).unwrap();
    admin.delete_topic("removed").unwrap();
    admin.delete_topic("replaced").unwrap();
    writer.ensure_topic("replaced", TopicConfig::new(2)).unwrap();
    writer.ensure_topic("new", TopicConfig::new(1)).unwrap();
    send(&writer, "kept", 2, "in a new partition");
    send(&writer, "replaced", 1, "in a new topic of an old name");
    send(&writer, "new", 0, "in a new topic");
    let mut group = writer.consumer("g").subscribe(["kept"]).open().unwrap();
    group.commit_offsets(&Offsets::from([(TopicPartition::from(("kept", 0)), 1)])).unwrap();
    drop(group);

    let mut refreshed = viewer.refresh().unwrap();
    for names in [&mut refreshed.created, &mut refreshed.deleted, &mut refreshed.altered] {
        names.sort();
    }
    assert_eq!(refreshed.created, ["new", "replaced"]);
    assert_eq!(refreshed.deleted, ["removed", "replaced"]);
    assert_eq!(refreshed.altered, ["kept"]);
    assert_eq!((refreshed.records, refreshed.corrupt.len()), (3, 0));
    assert_eq!((kept.partitions(), kept.config().max_record_bytes), (3, Some(1_000)));
    for gone in [&replaced, &removed] {
        assert!(matches!(gone.read(0, 1), Err(Error::UnknownTopic(_))));
    }
    assert!(matches!(viewer.topic("removed"), Err(Error::UnknownTopic(_))));
    let mut read: Vec<_> = drain(&mut all).iter().map(text).collect();
    read.sort();
    assert_eq!(read, ["in a new partition", "in a new topic", "in a new topic of an old name"]);
    let group = viewer.admin().describe_group("g").unwrap();
    let committed = group.offsets.iter().find(|it| it.partition.topic.as_ref() == "kept");
    assert_eq!(committed.and_then(|it| it.committed), Some(1), "{group:?}");
    assert!(viewer.refresh().unwrap().is_empty());
    drop(kept);
    viewer.close().unwrap();
}

/// Retention without and with the removal of files, and compaction.
// RED: src/broker/refresh.rs
//   - core.with_log(|log| log.retire(start, 0));
#[test]
fn what_is_removed_becomes_a_gap() {
    let disk = SimulatedDisk::new();
    let writer = writer(&disk);
    let config = || TopicConfig::new(1).segment_bytes(16 << 10);
    writer.ensure_topic("t", config()).unwrap();
    let compact = config().cleanup(Cleanup::Compact).min_dirty_ratio(0.01);
    writer.ensure_topic("c", compact).unwrap();
    let padding = "p".repeat(3_000);
    let fill = |numbers: std::ops::Range<u64>| {
        for number in numbers {
            let value = format!("{number} {padding}");
            let record = Record::new().value(&value);
            let t = writer.topic("t").unwrap().partition(0).unwrap();
            assert_eq!(t.append(&record).unwrap(), number);
            let c = writer.topic("c").unwrap().partition(0).unwrap();
            c.append(&record.key(&format!("{}", number % 3))).unwrap();
        }
    };
    fill(0..10);
    let viewer = viewer(&disk);
    let mut reader = viewer.reader().subscribe(["t"]).max_poll_records(2).open().unwrap();
    assert_eq!(reader.poll(Duration::ZERO).unwrap().len(), 2);
    viewer.refresh().unwrap();
    // In the middle of a segment: no file changes.
    writer.admin().delete_records(("t", 0), 3).unwrap();
    viewer.refresh().unwrap();
    assert_eq!(viewer.topic("t").unwrap().partition(0).unwrap().log_start_offset(), 3);
    assert_eq!(reader.poll(Duration::ZERO).unwrap().iter().next().unwrap().offset(), 3);
    fill(10..40);
    writer.admin().delete_records(("t", 0), 31).unwrap();
    writer.admin().compact_now("c").unwrap();
    let refreshed = viewer.refresh().unwrap();
    assert!(refreshed.corrupt.is_empty(), "{refreshed:?}");
    let read = drain(&mut reader);
    assert_eq!(read.iter().map(Message::offset).collect::<Vec<_>>(), (31..40).collect::<Vec<_>>());
    let missed: Vec<_> = reader.take_gaps().into_iter().map(|gap| gap.missed).collect();
    assert_eq!(missed.first(), Some(&(2..3)), "{missed:?}");
    assert_eq!(missed.last().map(|missed| missed.end), Some(31), "{missed:?}");
    let keys = drain(&mut viewer.reader().subscribe(["c"]).open().unwrap());
    let own = drain(&mut writer.reader().subscribe(["c"]).open().unwrap());
    assert!(keys.iter().map(Message::offset).eq(own.iter().map(Message::offset)));
    assert!(keys.len() < 40, "{}", keys.len());
}

/// F15: the writer rolls, removes, compacts, cleans up and replaces a topic at any operation of a
/// refresh.
// RED: src/broker/inspect.rs
//   - Some(settled(look, damage_of_look))
//   + Some(settled(look, |_| None))
#[test]
fn row_f15_a_refresh_finds_no_damage_whatever_the_writer_does_meanwhile() {
    let disk = SimulatedDisk::new();
    let writer = Arc::new(Writer::new(&disk));
    let (mut number, mut read) = (0, 0);
    loop {
        let (hooked, count, at) = disk_with(&disk, &writer);
        let context = format!("operation {number}");
        let viewer = look(Arc::new(hooked)).unwrap();
        let mut reader = viewer.reader().subscribe(["kept"]).open().unwrap();
        drain(&mut reader);
        viewer.refresh().unwrap();
        writer.proceed();
        let before = count.load(Ordering::Relaxed);
        let side = if number % 2 == 0 { Side::Before } else { Side::After };
        *at.lock() = Some((before + number, side));
        let refreshed = viewer.refresh().unwrap_or_else(|e| panic!("{context}: {e:?}"));
        let operations = count.load(Ordering::Relaxed) - before;
        *at.lock() = None;
        assert!(refreshed.corrupt.is_empty(), "{context}: {refreshed:?}");
        let refreshed = viewer.refresh().unwrap_or_else(|e| panic!("{context}: {e:?}"));
        assert!(refreshed.corrupt.is_empty(), "{context}: {refreshed:?}");
        for topic in ["kept", "compacted", "short"] {
            let own = writer.0.topic(topic).unwrap().partition(0).unwrap();
            let seen = viewer.topic(topic).unwrap().partition(0).unwrap();
            let ends = |it: &crate::Partition| (it.log_start_offset(), it.log_end_offset());
            assert_eq!(ends(&own), ends(&seen), "{context}: {topic}");
            let mut all = viewer.reader().subscribe([topic]).open().unwrap();
            assert_eq!(drain(&mut all).last().map(Message::next_offset), Some(ends(&own).1));
        }
        let followed = drain(&mut reader);
        read += followed.len();
        let end = writer.0.topic("kept").unwrap().partition(0).unwrap().log_end_offset();
        assert_eq!(followed.last().map(Message::next_offset), Some(end), "{context}");
        if number >= operations {
            break;
        }
        number += 1 + number / 16;
    }
    assert!(number > 20 && read > 100, "{number} operations, {read} records");
}

/// A batch is there when its last byte is.
#[test]
fn half_a_batch_is_the_end_for_now() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Broker::builder().data_dir(dir.path()).background(false).open().unwrap();
    let topic = writer.ensure_topic("t", TopicConfig::new(1)).unwrap();
    let ends = || {
        let core = writer.run().topic("t").unwrap().partitions[0].clone();
        core.with_log(|log| {
            let last = log.segments().last().unwrap();
            (last.path.clone(), last.end())
        })
    };
    let value = "v".repeat(100);
    topic.partition(0).unwrap().append(&Record::new().value(&value)).unwrap();
    let (path, begin) = ends();
    topic.partition(0).unwrap().append(&Record::new().value(&value)).unwrap();
    let (_, end) = ends();
    drop((topic, writer));
    let whole = fs::read(&path).unwrap();
    let write = |upto: usize| {
        let mut bytes = whole.clone();
        bytes[upto..end].fill(0);
        fs::write(&path, bytes).unwrap();
    };
    write(begin);
    let open = || {
        let builder = Broker::builder().data_dir(dir.path()).recovery(RecoveryPolicy::Strict);
        builder.read_only(true).open().unwrap()
    };
    let viewer = open();
    let mut reader = viewer.reader().subscribe(["t"]).open().unwrap();
    assert_eq!(drain(&mut reader).len(), 1);
    for upto in begin..end {
        write(upto);
        let refreshed = viewer.refresh().unwrap();
        // The last bytes of a batch may be zeros.
        let is_whole = whole[upto..end].iter().all(|byte| *byte == 0);
        assert_eq!(refreshed.records, u64::from(is_whole), "{upto} of {begin}..{end}");
        assert!(refreshed.corrupt.is_empty(), "{refreshed:?}");
        assert_eq!(drain(&mut reader).len(), usize::from(is_whole));
        if is_whole {
            break;
        }
    }
    write(end);
    viewer.refresh().unwrap();
    drain(&mut reader);
    assert_eq!(viewer.topic("t").unwrap().partition(0).unwrap().log_end_offset(), 2);
    assert!(viewer.admin().verify("t").unwrap().is_ok());
}

/// What is really missing, or damaged, is reported.
#[test]
fn row_f15_what_vanishes_for_no_reason_is_damage_in_a_refresh_too() {
    let disk = SimulatedDisk::new();
    let writer = Writer::new(&disk);
    let viewer = viewer(&disk);
    viewer.refresh().unwrap();
    let core = viewer.run().topic("kept").unwrap().partitions[0].clone();
    let segments = core.with_log(|log| log.segments().all());
    disk.remove_file(&segments[0].path).unwrap();
    let refreshed = viewer.refresh().unwrap();
    let kinds: Vec<_> = refreshed.corrupt.iter().map(|it| it.kind.clone()).collect();
    assert_eq!(kinds, [CorruptionKind::Missing]);
    // The others follow all the same.
    writer.send("compacted", 100);
    assert_eq!(viewer.refresh().unwrap().records, 1);
}

/// Symptom: a group consumer reported `Truncated`. Cause: each read-only opening of a log counted as
/// a recovery of it, and the commits that the writer made afterwards as older. Rule: a broker that
/// recovers nothing knows of no cut.
// RED: src/broker/topic_factory.rs
//   - let (lineage, change) = if self.context.settings.read_only {
//   + let (lineage, change) = if self.context.settings.in_memory {
#[test]
fn commits_of_a_writer_that_was_killed_are_no_cut() {
    let disk = SimulatedDisk::new();
    let first = writer(&disk);
    first.ensure_topic("t", TopicConfig::new(1)).unwrap();
    send(&first, "t", 0, "one");
    let viewer = viewer(&disk);
    let mut second = first;
    for round in 1..4_u64 {
        let mut group = second.consumer("g").subscribe(["t"]).open().unwrap();
        drain(&mut group);
        group.commit().unwrap();
        drop(group);
        let read = viewer.refresh().unwrap();
        assert!(read.corrupt.is_empty());
        let mut group = viewer.consumer("g").subscribe(["t"]).open().unwrap();
        assert!(drain(&mut group).is_empty(), "round {round}");
        drop((group, second));
        second = open_on(Arc::new(disk.clone()), round + 5, Durability::Os, &clock()).unwrap();
        send(&second, "t", 0, "more");
    }
}

/// A refresh that finds nothing new reads no segment.
#[test]
fn a_refresh_without_news_costs_a_few_calls_per_partition() {
    let disk = SimulatedDisk::new();
    let writer = writer(&disk);
    writer.ensure_topic("t", TopicConfig::new(50).segment_bytes(16 << 10)).unwrap();
    for partition in 0..50 {
        (0..9).for_each(|_| assert!(send(&writer, "t", partition, &"p".repeat(3_000)) < 9));
    }
    let calls = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&calls);
    let hooked = HookedDisk::new(Arc::new(disk.clone()), move |_, side| {
        if side == Side::Before {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    let viewer = look(Arc::new(hooked)).unwrap();
    viewer.refresh().unwrap();
    let before = calls.load(Ordering::Relaxed);
    assert!(viewer.refresh().unwrap().is_empty());
    let calls = calls.load(Ordering::Relaxed) - before;
    assert!(calls <= 53 * 7, "{calls} calls for 50 partitions and 3 internal logs");
}

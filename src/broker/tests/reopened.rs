//! A read-only broker whose partitions are opened again: those that were unavailable, and those
//! that a recovery by the broker that writes, or a restored copy, has cut.
//!
//! Method: files are changed by hand between two refreshes; and the writer dies and is opened again
//! at every operation of a refresh. Not covered: power cuts of a disk that two machines share.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, SystemTime};

use super::inspect::look;
use super::model::{clock, open_on};
use crate::broker::Broker;
use crate::config::{Durability, RecoveryPolicy, StartAt, TopicConfig};
use crate::error::Error;
use crate::record::Record;
use crate::storage::disk::{Fault, HookedDisk, Operation, Side, SimulatedDisk};
use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::{Consumer, TopicPartition};

fn writer(dir: &Path) -> Broker {
    Broker::builder().data_dir(dir).background(false).open().unwrap()
}

fn viewer(dir: &Path) -> Broker {
    let policy = RecoveryPolicy::ReadAroundDamage;
    Broker::builder().data_dir(dir).read_only(true).recovery(policy).open().unwrap()
}

fn send(broker: &Broker, values: std::ops::Range<u64>) {
    let partition = broker.topic("t").unwrap().partition(0).unwrap();
    for value in values {
        partition.append(&Record::new().value(&value.to_le_bytes())).unwrap();
    }
}

/// Offsets and values of all that there is now.
fn read(reader: &mut Consumer) -> Vec<(u64, u64)> {
    let mut all = Vec::new();
    loop {
        let batch = reader.poll(Duration::ZERO).unwrap();
        if batch.is_empty() {
            return all;
        }
        let value = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
        all.extend(batch.iter().map(|it| (it.offset(), value(it.value().unwrap()))));
    }
}

fn tp() -> TopicPartition {
    TopicPartition::new("t", 0)
}

/// The file that takes appends, and where its records end.
fn last_file(broker: &Broker) -> (PathBuf, usize) {
    let core = broker.run().topic("t").unwrap().partitions[0].clone();
    core.with_log(|log| {
        let last = log.segments().last().unwrap();
        (last.path.clone(), last.end())
    })
}

fn assert_cut(reader: &mut Consumer, from: u64, to: u64) {
    let cut = reader.poll(Duration::ZERO);
    let Err(Error::Truncated { partition, committed, end }) = &cut else { panic!("{cut:?}") };
    assert_eq!((partition, *committed, *end), (&tp(), from, to));
}

/// Symptom: a reader beyond the end of a file that was replaced by an older one waited, and then
/// silently skipped the records that got the offsets that it had read. Cause: a refresh took the higher
/// of both log ends. Rule: an end that is lower than before is a cut, which each reader beyond it gets
/// once.
// RED: src/broker/refresh.rs
//   - noted.into_iter().chain(lower).min()
//   + noted.into_iter().chain(lower.filter(|_| false)).min()
#[test]
fn row_f16_a_log_that_ends_lower_than_before_is_cut() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path();
    let broker = writer(dir);
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    send(&broker, 0..3);
    let (path, _) = last_file(&broker);
    let copy = fs::read(&path).unwrap();
    send(&broker, 3..6);
    drop(broker);

    let viewer = viewer(dir);
    let before = viewer.topic("t").unwrap().partition(0).unwrap();
    let mut reader = viewer.reader().subscribe(["t"]).open().unwrap();
    let mut slow = viewer.reader().subscribe(["t"]).max_poll_records(2).open().unwrap();
    assert_eq!(read(&mut reader).len(), 6);
    assert_eq!(slow.poll(Duration::ZERO).unwrap().len(), 2);
    fs::write(&path, copy).unwrap();
    let refreshed = viewer.refresh().unwrap();
    assert_eq!(refreshed.truncated, [tp()], "{refreshed:?}");
    assert!(viewer.refresh().unwrap().is_empty());
    assert_eq!(viewer.topic("t").unwrap().partition(0).unwrap().log_end_offset(), 3);
    assert!(matches!(before.read(0, 1), Err(Error::UnknownTopic(_))));
    assert_cut(&mut reader, 6, 3);
    assert!(read(&mut reader).is_empty());
    assert_eq!(read(&mut slow), [(2, 2)], "it has read nothing that was cut");
    let broker = writer(dir);
    assert_eq!(broker.topic("t").unwrap().partition(0).unwrap().log_end_offset(), 3);
    send(&broker, 100..105);
    viewer.refresh().unwrap();
    let new: Vec<_> = (3..8).map(|offset| (offset, 97 + offset)).collect();
    assert_eq!(read(&mut reader), new);
    assert_eq!(read(&mut slow), new);
    assert!(reader.take_gaps().is_empty());
}

/// The log is longer than before when the follower looks again; only the note of the recovery shows
/// that it was cut in between. Also if a refresh has read that note, and could not read the log.
// RED: src/broker/refresh.rs
//   - noted.into_iter().chain(lower).min()
//   + noted.filter(|_| false).into_iter().chain(lower).min()
// RED: src/broker/looks.rs
//   - self.taken.entry(key).or_insert(incarnation);
//   + self.taken.insert(key, incarnation);
#[test]
fn a_recovery_that_cuts_what_was_read_is_a_cut_also_if_more_was_appended_since() {
    for fails_between in [false, true] {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("data");
        let broker = writer(&dir);
        broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
        send(&broker, 0..6);
        let (path, end) = last_file(&broker);
        let viewer = viewer(&dir);
        let mut reader = viewer.reader().subscribe(["t"]).open().unwrap();
        assert_eq!(read(&mut reader).len(), 6);
        drop(broker);
        // The last batch did not reach the disk.
        let mut bytes = fs::read(&path).unwrap();
        bytes[end - 8..end].fill(0xff);
        fs::write(&path, bytes).unwrap();
        let broker = writer(&dir);
        assert_eq!(broker.topic("t").unwrap().partition(0).unwrap().log_end_offset(), 5);
        send(&broker, 100..104);
        if fails_between {
            let (partition, aside) = (dir.join("t/0"), root.path().join("aside"));
            rustix::fs::rename(&partition, &aside).unwrap();
            let between = viewer.refresh().unwrap();
            assert!(!between.corrupt.is_empty() && between.truncated.is_empty(), "{between:?}");
            rustix::fs::rename(&aside, &partition).unwrap();
        }
        assert_eq!(viewer.refresh().unwrap().truncated, [tp()]);
        assert_cut(&mut reader, 6, 5);
        assert_eq!(read(&mut reader), [(5, 100), (6, 101), (7, 102), (8, 103)]);
        assert!(viewer.refresh().unwrap().is_empty());
    }
}

/// Symptom: a partition that was unavailable when a read-only broker was opened remained so until it
/// was opened again. Rule: each refresh tries to open it.
// RED: src/broker/refresh.rs
//   - Outcome::Looked(looked) if !core.is_available() => {
//   + Outcome::Looked(_) if !core.is_available() => {} Outcome::Looked(looked) if false => {
#[test]
fn a_partition_whose_files_are_back_is_read_after_the_next_refresh() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("data");
    let broker = writer(&dir);
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    send(&broker, 0..3);
    broker.close().unwrap();
    let (partition, aside) = (dir.join("t/0"), root.path().join("aside"));
    rustix::fs::rename(&partition, &aside).unwrap();
    let viewer = viewer(&dir);
    let mut reader = viewer.reader().assign([("t", 0)]).open().unwrap();
    let missing = reader.poll(Duration::ZERO);
    assert!(matches!(missing, Err(Error::Corrupt(_))), "{missing:?}");
    assert!(viewer.refresh().unwrap().is_empty());
    rustix::fs::rename(&aside, &partition).unwrap();
    assert_eq!(viewer.refresh().unwrap().available, [tp()]);
    assert_eq!(read(&mut reader), [(0, 0), (1, 1), (2, 2)]);
    assert!(viewer.refresh().unwrap().is_empty());
    let broker = writer(&dir);
    send(&broker, 3..4);
    assert_eq!(viewer.refresh().unwrap().records, 1);
    assert_eq!(read(&mut reader), [(3, 3)]);
}

/// The writer dies and is opened again at any operation of a refresh, and appends at once. What it
/// has published is not cut by that.
// RED: src/broker/refresh.rs
//   - Outcome::Looked(_) if known_now.get(&key) != known_later.get(&key) => {}
#[test]
fn a_recovery_that_cuts_nothing_is_no_cut_whenever_it_happens() {
    let disk = SimulatedDisk::new();
    let seed = AtomicU64::new(1);
    let open = {
        let disk = disk.clone();
        move || {
            let seed = seed.fetch_add(1, Ordering::Relaxed);
            open_on(Arc::new(disk.clone()), seed, Durability::Os, &clock()).unwrap()
        }
    };
    let first = open();
    first.ensure_topic("t", TopicConfig::new(1)).unwrap();
    send(&first, 0..5);
    let writer = Arc::new(Mutex::new(Some(first)));
    let proceed = {
        let writer = Arc::clone(&writer);
        move || {
            let mut writer = writer.lock();
            drop(writer.take());
            let again = open();
            let end = again.topic("t").unwrap().partition(0).unwrap().log_end_offset();
            send(&again, end..end + 3);
            *writer = Some(again);
        }
    };
    let (count, at) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(u64::MAX)));
    let (counted, due) = (Arc::clone(&count), Arc::clone(&at));
    let hooked = HookedDisk::new(Arc::new(disk), move |_, side| {
        if side == Side::Before
            && counted.fetch_add(1, Ordering::Relaxed) == due.load(Ordering::Relaxed)
        {
            proceed();
        }
    });
    let viewer = look(Arc::new(hooked)).unwrap();
    let mut reader = viewer.reader().subscribe(["t"]).open().unwrap();
    let mut expected = 5;
    assert_eq!(read(&mut reader).len(), 5);
    viewer.refresh().unwrap();
    let (mut number, mut operations) = (0, u64::MAX);
    while number < operations {
        send(writer.lock().as_ref().unwrap(), expected..expected + 1);
        let before = count.load(Ordering::Relaxed);
        at.store(before + number, Ordering::Relaxed);
        let refreshed = viewer.refresh().unwrap();
        operations = count.load(Ordering::Relaxed) - before;
        at.store(u64::MAX, Ordering::Relaxed);
        assert!(refreshed.truncated.is_empty(), "operation {number}: {refreshed:?}");
        let refreshed = viewer.refresh().unwrap();
        assert!(refreshed.truncated.is_empty(), "after operation {number}: {refreshed:?}");
        let end = writer
            .lock()
            .as_ref()
            .unwrap()
            .topic("t")
            .unwrap()
            .partition(0)
            .unwrap()
            .log_end_offset();
        let all: Vec<_> = (expected..end).map(|it| (it, it)).collect();
        assert_eq!(read(&mut reader), all, "operation {number}");
        expected = end;
        number += 1;
    }
    assert!(number > 10 && expected > 50, "{number} operations, {expected} records");
}

/// A viewer of a topic with this many partitions, three records in the first one, whose files are moved
/// away; and what moves them back.
fn without_files(root: &Path, partitions: u32) -> (Broker, PathBuf, impl Fn() + use<>) {
    let dir = root.join("data");
    let broker = writer(&dir);
    broker.ensure_topic("t", TopicConfig::new(partitions)).unwrap();
    send(&broker, 0..3);
    broker.close().unwrap();
    let (partition, aside) = (dir.join("t/0"), root.join("aside"));
    rustix::fs::rename(&partition, &aside).unwrap();
    (viewer(&dir), dir, move || rustix::fs::rename(&aside, &partition).unwrap())
}

/// It read everything: where it was to begin was forgotten when the partition could not be read.
// RED: src/consumer/assignment.rs
//   - slot.stand_by(committed, committed.is_none() && !has_begun);
//   + slot.stand_by(committed, false && has_begun);
#[test]
fn a_reader_begins_where_it_was_to_begin_when_the_files_are_back() {
    for (start, first) in [
        (StartAt::Earliest, 0),
        (StartAt::Latest, 3),
        (StartAt::Offset(2), 2),
        (StartAt::Time(SystemTime::UNIX_EPOCH), 0),
    ] {
        let root = tempfile::tempdir().unwrap();
        let (viewer, dir, put_back) = without_files(root.path(), 1);
        let mut reader = viewer.reader().assign([("t", 0)]).start(start).open().unwrap();
        assert!(matches!(reader.poll(Duration::ZERO), Err(Error::Corrupt(_))));
        put_back();
        viewer.refresh().unwrap();
        let seen = read(&mut reader);
        assert_eq!(reader.position(("t", 0)), Some(3), "{start:?}");
        send(&writer(&dir), 3..5);
        viewer.refresh().unwrap();
        let all: Vec<_> = seen.into_iter().chain(read(&mut reader)).collect();
        assert_eq!(all, (first..5).map(|it| (it, it)).collect::<Vec<_>>(), "{start:?}");
    }
    let root = tempfile::tempdir().unwrap();
    let (viewer, _, put_back) = without_files(root.path(), 1);
    let mut reader = viewer.reader().assign([("t", 0)]).start(StartAt::Error).open().unwrap();
    assert!(matches!(reader.poll(Duration::ZERO), Err(Error::Corrupt(_))));
    put_back();
    viewer.refresh().unwrap();
    for _ in 0..3 {
        let refused = reader.poll(Duration::ZERO);
        assert!(matches!(refused, Err(Error::NoOffset(_))), "{refused:?}");
    }
    reader.seek(("t", 0), StartAt::Offset(1)).unwrap();
    assert_eq!(read(&mut reader), [(1, 1), (2, 2)]);
}

/// It slept until another partition got a record: it does not wait for one that is unavailable.
// RED: src/broker/refresh.rs
//   - if !refreshed.available.is_empty() || !refreshed.truncated.is_empty() {
//   + if false {
#[test]
fn a_reader_that_waits_is_woken_by_a_partition_that_is_back() {
    let root = tempfile::tempdir().unwrap();
    let (viewer, _, put_back) = without_files(root.path(), 2);
    let mut reader = viewer.reader().assign([("t", 0), ("t", 1)]).open().unwrap();
    assert!(matches!(reader.recv(), Err(Error::Corrupt(_))));
    // It has seen the other partition, which is empty.
    viewer.refresh().unwrap();
    let handle = reader.handle();
    let (send, received) = mpsc::channel();
    let waits = thread::spawn(move || send.send(reader.recv().map(|it| it.offset())));
    // Whether it waits already or not: it looks again after the refresh.
    assert!(received.recv_timeout(Duration::from_millis(50)).is_err());
    put_back();
    assert_eq!(viewer.refresh().unwrap().available, [tp()]);
    let first = received.recv_timeout(Duration::from_secs(40));
    handle.shutdown();
    assert_eq!(first.unwrap().unwrap(), 0);
    waits.join().unwrap().unwrap();
}

/// What a refresh had found was lost when one partition could not be looked at.
// RED: src/broker/refresh.rs
//   - looks.unreported().add(refreshed);
//   + *looks.unreported() = refreshed;
#[test]
fn what_a_refresh_has_found_is_returned_once_also_if_it_failed() {
    let disk = SimulatedDisk::new();
    let writer = open_on(Arc::new(disk.clone()), 1, Durability::Os, &clock()).unwrap();
    writer.ensure_topic("t", TopicConfig::new(2)).unwrap();
    send(&writer, 0..3);
    disk.inject(Fault::always(Operation::Open, ErrorKind::PermissionDenied).on("t/0"));
    let viewer = look(Arc::new(disk.clone())).unwrap();
    let is_available =
        |number: usize| viewer.run().topic("t").unwrap().partitions[number].is_available();
    assert_eq!([0, 1].map(is_available), [false, true]);
    disk.heal();
    let second = writer.topic("t").unwrap().partition(1).unwrap();
    second.append(&Record::new().value("x")).unwrap();
    disk.inject(Fault::always(Operation::Open, ErrorKind::TimedOut).on("t/1"));
    for _ in 0..2 {
        let failed = viewer.refresh();
        assert!(matches!(failed, Err(Error::Io { .. })), "{failed:?}");
    }
    disk.heal();
    assert!(is_available(0));
    // One that is not made by the caller.
    viewer.refresh_unreported().unwrap();
    let refreshed = viewer.refresh().unwrap();
    assert_eq!((refreshed.available.as_slice(), refreshed.records), (&[tp()][..], 1));
    assert!(viewer.refresh().unwrap().is_empty());
}

/// The damage of a partition that was unavailable before was in no report.
// RED: src/broker/refresh.rs
//   - self.report(&looked, refreshed); // of one that is back
#[test]
fn the_damage_of_a_partition_that_is_back_is_reported() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("data");
    let broker = writer(&dir);
    broker.ensure_topic("t", TopicConfig::new(1).segment_bytes(16 << 10)).unwrap();
    let partition = broker.topic("t").unwrap().partition(0).unwrap();
    for _ in 0..4 {
        partition.append(&Record::new().value(&[7; 10_000])).unwrap();
    }
    let files: Vec<PathBuf> = broker.run().topic("t").unwrap().partitions[0]
        .with_log(|log| log.segments().all().iter().map(|it| it.path.clone()).collect());
    assert!(files.len() > 2);
    broker.close().unwrap();
    let (partition, aside) = (dir.join("t/0"), root.path().join("aside"));
    rustix::fs::rename(&partition, &aside).unwrap();
    let viewer = viewer(&dir);
    rustix::fs::rename(&aside, &partition).unwrap();
    fs::remove_file(&files[1]).unwrap();
    let refreshed = viewer.refresh().unwrap();
    assert_eq!(refreshed.available, [tp()]);
    assert_eq!(refreshed.corrupt.len(), 1, "{refreshed:?}");
    assert!(viewer.refresh().unwrap().is_empty());
}

/// The writer dies and is opened again at any operation of an opening. `__local` is read before the
/// logs: what was read of a log that was recovered in between was then cut by the first refresh, and
/// returned twice.
// RED: src/broker/builder.rs
//   - settle_opening(&engine);
#[test]
fn an_opening_takes_no_recovery_before_it_for_a_cut_of_what_it_has_read() {
    let (mut number, mut operations) = (0, u64::MAX);
    while number < operations {
        let disk = SimulatedDisk::new();
        let seed = AtomicU64::new(1);
        let open = {
            let disk = disk.clone();
            move || {
                let seed = seed.fetch_add(1, Ordering::Relaxed);
                open_on(Arc::new(disk.clone()), seed, Durability::Os, &clock()).unwrap()
            }
        };
        let first = open();
        first.ensure_topic("t", TopicConfig::new(1)).unwrap();
        send(&first, 0..6);
        let writer = Arc::new(Mutex::new(Some(first)));
        let proceed = {
            let (writer, disk) = (Arc::clone(&writer), disk.clone());
            move || {
                let mut writer = writer.lock();
                let Some(first) = writer.take() else { return };
                let (path, end) = last_file(&first);
                drop(first);
                disk.corrupt(&path, end as u64 - 8, 0xff).unwrap();
                let again = open();
                assert_eq!(again.topic("t").unwrap().partition(0).unwrap().log_end_offset(), 5);
                send(&again, 100..104);
                *writer = Some(again);
            }
        };
        let count = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&count);
        let hooked = HookedDisk::new(Arc::new(disk), move |_, side| {
            if side == Side::Before && counted.fetch_add(1, Ordering::Relaxed) == number {
                proceed();
            }
        });
        let viewer = look(Arc::new(hooked)).unwrap();
        operations = count.load(Ordering::Relaxed);
        let mut reader = viewer.reader().subscribe(["t"]).open().unwrap();
        let mut all = Vec::new();
        for _ in 0..3 {
            match reader.poll(Duration::ZERO) {
                Ok(batch) => {
                    let value = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
                    all.extend(batch.iter().map(|it| (it.offset(), value(it.value().unwrap()))));
                }
                Err(Error::Truncated { .. }) => {}
                Err(error) => panic!("operation {number}: {error:?}"),
            }
            viewer.refresh().unwrap();
        }
        all.extend(read(&mut reader));
        let once: BTreeSet<_> = all.iter().collect();
        assert_eq!(once.len(), all.len(), "operation {number}: {all:?}");
        let now = [(5, 100), (6, 101), (7, 102), (8, 103)];
        assert!(all.ends_with(&now), "operation {number}: {all:?}");
        number += 1;
    }
    assert!(number > 20, "{number} operations");
}

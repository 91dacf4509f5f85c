//! A read-only broker whose partitions are opened again: those that were unavailable, and those
//! that a recovery by the broker that writes, or a restored copy, has cut.
//!
//! Method: files are changed by hand between two refreshes; and the writer dies and is opened again
//! at every operation of a refresh. Not covered: power cuts of a disk that two machines share.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::inspect::look;
use super::model::{clock, open_on};
use crate::broker::Broker;
use crate::config::{Durability, RecoveryPolicy, TopicConfig};
use crate::error::Error;
use crate::record::Record;
use crate::storage::disk::{HookedDisk, Side, SimulatedDisk};
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

//! Salvage over simulated disks: whatever was done to the source, and to the copy while it was
//! written.
//!
//! Method: one store with everything in it (several segments, compaction, deleted records, commits,
//! a named producer), damaged at a known position or at random, is copied to another disk; what the
//! copy has is compared with what was ever appended, record by record, and with what a broker can
//! still read in the source. `LOGPOND_SEED=n` runs the one random round with that seed.
//!
//! Not covered: real files and the lock (`tests/behaviour/salvage.rs`).

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::*;
use crate::clock::ManualClock;
use crate::config::{Cleanup, Durability};
use crate::format::{BatchHeader, SegmentHeader};
use crate::producer::SendOutcome;
use crate::random::Random;
use crate::record::{Offsets, Record, TopicPartition};
use crate::storage::disk::{Access, Fault, Operation, PowerCut, SimulatedDisk};
use crate::topic::Partition;

mod internal;
mod producers;

const FROM: &str = "/from";
const TO: &str = "/to";
const GROUP: &str = "readers";
const NAMED: &str = "np";
const DELETED_BELOW: u64 = 5;

/// Key, value, a header and the timestamp of a record.
type Seen = (Option<Vec<u8>>, Option<Vec<u8>>, Option<Vec<u8>>, SystemTime);
type Records = BTreeMap<u64, Seen>;

/// All that was ever appended, by partition, and what of it a reader sees.
struct Store {
    disk: SimulatedDisk,
    is_closed: bool,
    appended: BTreeMap<(String, u32), Records>,
    before: BTreeMap<(String, u32), Contents>,
}

#[derive(Debug, Clone, PartialEq)]
struct Contents {
    start: u64,
    end: u64,
    records: Records,
}

fn clock() -> ManualClock {
    ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000))
}

fn builder(disk: &SimulatedDisk, dir: &str) -> BrokerBuilder {
    Broker::builder()
        .disk(Arc::new(disk.clone()), Path::new(dir))
        .background(false)
        .durability(Durability::Sync)
        .clock(clock())
}

fn open(disk: &SimulatedDisk, dir: &str) -> Broker {
    builder(disk, dir).open().unwrap()
}

fn salvaged(disk: &SimulatedDisk) -> (SalvageReport, SimulatedDisk) {
    let copy = SimulatedDisk::new();
    (copied(disk, &copy).unwrap(), copy)
}

fn copied(disk: &SimulatedDisk, copy: &SimulatedDisk) -> Result<SalvageReport> {
    Source { disk: Arc::new(disk.clone()), dir: Path::new(FROM) }.copy_to(builder(copy, TO), |_| {})
}

/// What can be read of a partition, around damage.
fn read(partition: &Partition) -> Contents {
    let (start, end) = (partition.log_start_offset(), partition.log_end_offset());
    let (mut records, mut next) = (Records::new(), start);
    loop {
        match partition.read(next, 1 << 20) {
            Ok(batch) if batch.is_empty() => return Contents { start, end, records },
            Ok(batch) => {
                for message in batch.iter() {
                    let header = message.headers().get("h").map(<[u8]>::to_vec);
                    let (key, value) = (message.key(), message.value());
                    let (key, value) = (key.map(<[u8]>::to_vec), value.map(<[u8]>::to_vec));
                    records.insert(message.offset(), (key, value, header, message.timestamp()));
                    next = message.next_offset();
                }
            }
            Err(Error::Corrupt(damage)) => {
                let behind = damage.offsets.map(|offsets| offsets.end).filter(|end| *end > next);
                let Some(behind) = behind else { return Contents { start, end, records } };
                next = behind;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

fn contents(broker: &Broker) -> BTreeMap<(String, u32), Contents> {
    let mut contents = BTreeMap::new();
    for topic in broker.run().live().all() {
        let handle = broker.topic(&topic.name).unwrap();
        for number in 0..handle.partitions() {
            let partition = handle.partition(number).unwrap();
            contents.insert((topic.name.to_string(), number), read(&partition));
        }
    }
    contents
}

fn append(store: &mut Store, partition: &Partition, at: (&str, u32), number: u64, key: &str) {
    let value = format!("{number} {}", "v".repeat(500 + usize::try_from(number % 7).unwrap() * 40));
    let millis = 1_600_000_000_000 + number * 1_000;
    let timestamp = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
    let record = Record::new().key(key).value(&value).timestamp(timestamp).header("h", key);
    let offset = partition.append(&record).unwrap();
    let bytes = |text: &str| Some(text.as_bytes().to_vec());
    let seen = (bytes(key), bytes(&value), bytes(key), timestamp);
    store.appended.entry((at.0.into(), at.1)).or_default().insert(offset, seen);
}

fn plain_config() -> TopicConfig {
    TopicConfig::new(2).segment_bytes(16 << 10).retention(Duration::MAX)
}

/// The store that is damaged. `is_closed` ends its run cleanly.
fn store(is_closed: bool) -> Store {
    let disk = SimulatedDisk::new();
    let (appended, before) = (BTreeMap::new(), BTreeMap::new());
    let mut store = Store { disk: disk.clone(), is_closed, appended, before };
    let broker = open(&disk, FROM);
    let plain = broker.ensure_topic("plain", plain_config()).unwrap();
    let compacted = plain_config().cleanup(Cleanup::Compact);
    let compacted = TopicConfig { partitions: 1, ..compacted };
    let compacted = broker.ensure_topic("compacted", compacted).unwrap().partition(0).unwrap();
    for number in 0..100 {
        let at = u32::try_from(number % 2).unwrap();
        let partition = plain.partition(at).unwrap();
        append(&mut store, &partition, ("plain", at), number, &format!("k{number}"));
    }
    for number in 0..80 {
        let key = format!("k{}", number % 9);
        append(&mut store, &compacted, ("compacted", 0), number, &key);
    }
    let named = broker.producer_builder().id(NAMED).build().unwrap();
    for sequence in 1..=3 {
        let record = Record::to("plain").partition(1).key("n").value("named").header("h", "n");
        let timestamp = SystemTime::UNIX_EPOCH + Duration::from_secs(sequence);
        let sent = named.send_sequenced(sequence, record.timestamp(timestamp));
        let offset = offset_of(sent).unwrap();
        let seen = (Some(b"n".to_vec()), Some(b"named".to_vec()), Some(b"n".to_vec()), timestamp);
        store.appended.entry(("plain".into(), 1)).or_default().insert(offset, seen);
    }
    drop(named);
    let mut reader = broker.consumer(GROUP).assign([("plain", 0), ("plain", 1)]).open().unwrap();
    let offsets = [(("plain", 0), 7), (("plain", 1), 9)];
    let offsets: Offsets = offsets.map(|(at, offset)| (TopicPartition::from(at), offset)).into();
    reader.commit_offsets(&offsets).unwrap();
    drop(reader);
    broker.tick().unwrap();
    broker.admin().compact_now("compacted").unwrap();
    broker.admin().delete_records(("plain", 0), DELETED_BELOW).unwrap();
    store.before = contents(&broker);
    if is_closed {
        broker.close().unwrap();
    }
    store
}

/// Where a record went; `None` if it was there already.
fn offset_of(sent: Result<SendOutcome>) -> Option<u64> {
    match sent.unwrap() {
        SendOutcome::Appended(metadata) => Some(metadata.offset),
        SendOutcome::Duplicate { .. } => None,
    }
}

fn committed(broker: &Broker) -> Vec<(TopicPartition, Option<u64>)> {
    let groups = broker.admin().groups().unwrap();
    let offsets = groups.into_iter().flat_map(|group| group.offsets);
    offsets.map(|offset| (offset.partition, offset.committed)).collect()
}

/// The copy opens cleanly, verifies, and has nothing that was not appended; what is not in it is
/// named as lost.
fn check(store: &Store, report: &SalvageReport, copy: &SimulatedDisk, context: &str) -> Broker {
    let broker = open(copy, TO);
    assert!(broker.recovery().is_clean(), "{context}: {:?}", broker.recovery());
    assert!(broker.recovery().unknown.is_empty(), "{context}: {:?}", broker.recovery());
    for topic in &report.topics {
        let verified = broker.admin().verify(&topic.name).unwrap();
        assert!(verified.is_ok(), "{context}: {:?}", verified.damage);
        for partition in &topic.partitions {
            let at = (topic.name.to_string(), partition.partition);
            let handle = broker.topic(&topic.name).unwrap().partition(at.1).unwrap();
            let context = &format!("{context}: {at:?}");
            check_partition(store, &at, partition, &read(&handle), context);
        }
    }
    broker
}

fn check_partition(
    store: &Store,
    at: &(String, u32),
    report: &SalvagedPartition,
    found: &Contents,
    context: &str,
) {
    assert_eq!(found.start, report.log_start_offset, "{context}");
    assert_eq!(found.end, report.log_end_offset, "{context}");
    let is_lost = |offset: &u64| report.lost.iter().any(|lost| lost.contains(offset));
    let nothing = Records::new();
    let appended = store.appended.get(at).unwrap_or(&nothing);
    for (offset, seen) in &found.records {
        assert_eq!(Some(seen), appended.get(offset), "{context}: wrong bytes at {offset}");
        assert!(!is_lost(offset), "{context}: {offset} is there, and {:?} lost", report.lost);
    }
    let Some(before) = store.before.get(at) else { return };
    for offset in before.records.keys().filter(|offset| !found.records.contains_key(offset)) {
        let is_outside = *offset < found.start || *offset >= found.end;
        assert!(is_lost(offset) || is_outside, "{context}: {offset} is missing: {report:?}");
    }
}

fn files(disk: &SimulatedDisk) -> Vec<(PathBuf, Vec<u8>)> {
    disk.paths().into_iter().map(|path| (path.clone(), disk.read(&path).unwrap())).collect()
}

fn segments(disk: &SimulatedDisk, part: &str) -> Vec<PathBuf> {
    let paths = disk.paths().into_iter();
    paths.filter(|path| path.to_str().unwrap().contains(part)).collect()
}

/// The file in which an internal log ends, and where its last batch begins.
fn last_batch(disk: &SimulatedDisk, log: &str) -> (PathBuf, u64) {
    let path = segments(disk, &format!("/from/{log}/")).pop().unwrap();
    let bytes = disk.read(&path).unwrap();
    let mut next = SegmentHeader::SIZE;
    let mut last = next;
    while let Ok(Some(header)) = BatchHeader::parse(&bytes[next..]) {
        (last, next) = (next, next + header.size as usize);
    }
    (path, last as u64)
}

fn remove(disk: &SimulatedDisk, part: &str) {
    for path in segments(disk, part) {
        disk.remove_file(&path).unwrap();
    }
}

// ---- nothing is damaged --------------------------------------------------------------------------

#[test]
fn a_whole_store_is_copied_whole() {
    for is_closed in [true, false] {
        let store = store(is_closed);
        let source = files(&store.disk);
        let (report, copy) = salvaged(&store.disk);
        assert!(report.is_whole(), "{report:#?}");
        assert_eq!((report.groups, report.commits, report.unknown.len()), (1, 2, 0));
        assert_eq!(report.producers, [NAMED.into()]);
        assert_eq!(files(&store.disk), source, "the source was written to");
        let broker = check(&store, &report, &copy, "whole");
        assert_eq!(contents(&broker), store.before);
        assert_eq!(broker.topic("plain").unwrap().config(), plain_config());
        let commits = committed(&broker);
        let expected = [(("plain", 0).into(), Some(7)), (("plain", 1).into(), Some(9))];
        assert_eq!(commits, expected);

        // It continues as the source would have.
        let named = broker.producer_builder().id(NAMED).build().unwrap();
        let plain = TopicPartition::from(("plain", 1));
        assert_eq!(named.last_sequence(&plain), Some(3));
        let record = || Record::to("plain").partition(1).value("again");
        assert!(offset_of(named.send_sequenced(3, record())).is_none());
        let next = offset_of(named.send_sequenced(4, record()));
        let end = store.before[&("plain".to_owned(), 1)].end;
        assert_eq!(next, Some(end));
        drop(named);
        broker.close().unwrap();
        assert!(open(&copy, TO).recovery().is_clean());
    }
}

/// A copy of a copy is the same again.
#[test]
fn a_copy_is_a_store_like_any_other() {
    let store = store(true);
    let copy = SimulatedDisk::new();
    Source { disk: Arc::new(store.disk.clone()), dir: Path::new(FROM) }
        .copy_to(builder(&copy, FROM), |_| {})
        .unwrap();
    let (report, again) = salvaged(&copy);
    assert!(report.is_whole(), "{report:#?}");
    assert_eq!(contents(&check(&store, &report, &again, "again")), store.before);
}

// ---- one thing is damaged ------------------------------------------------------------------------

#[test]
fn without_the_catalog_topics_are_found_by_their_directories() {
    let store = store(true);
    remove(&store.disk, "__meta");
    store.disk.create_dir(Path::new("/from/stranger")).unwrap();
    store.disk.create(Path::new("/from/stray")).unwrap();
    assert!(builder(&store.disk, FROM).open().is_err());
    let (report, copy) = salvaged(&store.disk);
    assert!(!report.is_whole());
    assert_eq!(report.unknown, [Path::new("/from/stranger"), Path::new("/from/stray")]);
    assert!(report.topics.iter().all(|topic| topic.config_lost));
    assert_eq!(report.producers, ["salvaged-1".into()]);
    let broker = check(&store, &report, &copy, "no catalog");
    assert_eq!(contents(&broker), store.before, "log starts, too");
    assert_eq!(committed(&broker).len(), 2);
    assert_eq!(broker.topic("plain").unwrap().config().retention, Duration::MAX);
    // A new producer is not taken for the one whose name is lost.
    let stranger = broker.producer_builder().id("other").build().unwrap();
    let record = Record::to("plain").partition(1).value("first");
    assert!(offset_of(stranger.send_sequenced(1, record)).is_some());
}

/// Symptom: commits, or the names of producers, were not in the copy, and the copy was called
/// whole. Cause: what is whole of an internal log was taken for all of it: nothing after its last
/// record says that there were more. Rule: a clean end proves how far the other two reach, as at an
/// opening, and bytes after the end that are no batch are damage.
#[test]
fn what_is_lost_at_the_end_of_an_internal_log_is_damage() {
    for (is_closed, is_cut) in [(true, false), (false, false), (true, true)] {
        let store = store(is_closed);
        // Nothing proves the end of the log with the proofs.
        let logs = ["__meta", "__offsets", "__local"].into_iter().take(3 - usize::from(is_cut));
        for log in logs {
            let disk = store.disk.kill9();
            let (path, position) = last_batch(&disk, log);
            if is_cut {
                disk.truncate(&path, position).unwrap();
            } else {
                disk.corrupt(&path, position + 50, 1).unwrap();
            }
            let context = format!("{log}, closed: {is_closed}, cut: {is_cut}");
            let (report, copy) = salvaged(&disk);
            assert!(!report.is_whole(), "{context}: {report:#?}");
            assert!(report.damage.iter().any(|it| it.file == path), "{context}: {report:?}");
            check(&store, &report, &copy, &context);
        }
    }
}

/// Symptom: a topic, or partitions of one, that the next opening has with all records were not in
/// the copy, without a word. Cause: the record that made it live was damaged, and salvage took what
/// was being created for nothing. Rule: salvage decides as an opening does: where there are records
/// it was complete.
#[test]
fn a_topic_with_records_whose_completion_is_torn_is_copied() {
    for (grows, has_record) in [(false, true), (true, true), (false, false), (true, false)] {
        let disk = SimulatedDisk::new();
        let broker = open(&disk, FROM);
        let mut topic = broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
        if grows {
            broker.admin().add_partitions("t", 2).unwrap();
            topic = broker.topic("t").unwrap();
        }
        if has_record {
            topic.partition(u32::from(grows)).unwrap().append(&Record::new().value("v")).unwrap();
        }
        drop((topic, broker));
        let (path, position) = last_batch(&disk, "__meta");
        let torn = disk.kill9();
        torn.corrupt(&path, position + 50, 1).unwrap();
        // Without a trace, as if a crash had come before the record was written.
        for (at, byte) in (0..).zip(disk.read(&path).unwrap()).filter(|(at, _)| *at >= position) {
            if byte != 0 {
                disk.corrupt(&path, at, byte).unwrap();
            }
        }
        for (disk, is_torn) in [(torn, true), (disk, false)] {
            let context = format!("grows: {grows}, record: {has_record}, torn: {is_torn}");
            let (report, copy) = salvaged(&disk);
            let partitions = report.topics.last().map(|topic| topic.partitions.len());
            let is_complete = has_record || is_torn;
            let expected = if grows { Some(1 + usize::from(is_complete)) } else { Some(1) };
            assert_eq!(partitions, expected.filter(|_| grows || is_complete), "{context}");
            assert_eq!(report.is_whole(), !is_torn, "{context}");
            let left_out = if grows { "/from/t/1" } else { "/from/t" };
            let unknown: Vec<_> =
                [PathBuf::from(left_out)].into_iter().filter(|_| !is_complete).collect();
            assert_eq!(report.unknown, unknown, "{context}");
            let found = contents(&open(&copy, TO));
            for (at, left) in contents(&open(&disk, FROM)) {
                assert_eq!(found.get(&at), Some(&left), "{context}: {at:?}");
            }
        }
    }
}

#[test]
fn without_the_commits_all_else_is_there() {
    let store = store(true);
    remove(&store.disk, "__offsets");
    let (report, copy) = salvaged(&store.disk);
    // The directory, and how far the log had reached.
    assert_eq!((report.groups, report.damage.len()), (0, 2), "{:?}", report.damage);
    assert!(report.damage.iter().all(|it| it.file == Path::new("/from/__offsets/0")));
    let broker = check(&store, &report, &copy, "no commits");
    assert_eq!(contents(&broker), store.before);
    assert!(committed(&broker).is_empty());
}

#[test]
fn without_the_log_starts_records_that_were_deleted_come_back() {
    let store = store(true);
    remove(&store.disk, "__local");
    let (report, copy) = salvaged(&store.disk);
    assert_eq!(report.damage.len(), 1, "{:?}", report.damage);
    let broker = check(&store, &report, &copy, "no local state");
    let plain = contents(&broker).remove(&("plain".to_owned(), 0)).unwrap();
    assert_eq!(plain.start, 0);
    assert_eq!(plain.records, store.appended[&("plain".to_owned(), 0)]);
    assert_eq!(committed(&broker).len(), 2);
}

#[test]
fn a_file_whose_header_is_lost_is_lost_and_nothing_else() {
    for (number, is_removed) in [(0, false), (1, false), (1, true), (0, true)] {
        let store = store(true);
        let path = segments(&store.disk, "/from/plain/1/").remove(number);
        if is_removed {
            store.disk.remove_file(&path).unwrap();
        } else {
            store.disk.corrupt(&path, 60, 0x10).unwrap();
        }
        let context = format!("{number}, removed: {is_removed}");
        let (report, copy) = salvaged(&store.disk);
        let partition = &report.topics[1].partitions[1];
        assert_eq!(partition.lost.len(), 1, "{context}: {partition:?}");
        assert!(!partition.damage.is_empty(), "{context}");
        let broker = check(&store, &report, &copy, &context);
        let lost = partition.lost[0].clone();
        let before = &store.before[&("plain".to_owned(), 1)];
        let mut expected = before.clone();
        expected.records.retain(|offset, _| !lost.contains(offset));
        assert!(expected.records.len() < before.records.len(), "{context}");
        let found = contents(&broker).remove(&("plain".to_owned(), 1)).unwrap();
        assert_eq!(found, expected, "{context}: the hole is stepped over");
    }
}

#[test]
fn a_rotten_batch_is_a_hole_and_a_rotten_tail_is_still_counted() {
    for (is_last, is_closed) in [(false, true), (true, true), (false, false)] {
        let store = store(is_closed);
        let path = if is_last {
            // The last one with records: there may be some that were made ahead.
            let mut all = segments(&store.disk, "/from/plain/0/");
            all.retain(|path| store.disk.read(path).unwrap().windows(3).any(|it| it == b"vvv"));
            all.pop().unwrap()
        } else {
            segments(&store.disk, "/from/plain/0/").remove(1)
        };
        let bytes = store.disk.read(&path).unwrap();
        let last_value = bytes.windows(3).rposition(|window| window == b"vvv").unwrap();
        store.disk.corrupt(&path, last_value as u64, 1).unwrap();
        let (report, copy) = salvaged(&store.disk);
        let partition = &report.topics[1].partitions[0];
        let lost: u64 = partition.lost.iter().map(|lost| lost.end - lost.start).sum();
        assert_eq!((lost, partition.damage.len()), (1, 1), "{partition:?}");
        assert_eq!(partition.log_end_offset, store.before[&("plain".to_owned(), 0)].end);
        let broker = check(&store, &report, &copy, "a rotten batch");
        let handle = broker.topic("plain").unwrap().partition(0).unwrap();
        assert_eq!(handle.append(&Record::new().value("v")).unwrap(), partition.log_end_offset);
    }
}

/// Also where opening cuts, because nothing proves that what was missing was durable.
#[test]
fn what_is_whole_behind_an_unproved_hole_is_copied() {
    let disk = SimulatedDisk::new();
    let broker = builder(&disk, FROM).durability(Durability::Os).open().unwrap();
    let topic = broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    for number in 0..6 {
        topic.partition(0).unwrap().append(&Record::new().value(&format!("vvv{number}"))).unwrap();
    }
    drop((topic, broker));
    let path = segments(&disk, "/from/t/0/").remove(0);
    let bytes = disk.read(&path).unwrap();
    let third = bytes.windows(4).position(|window| window == b"vvv2").unwrap();
    disk.corrupt(&path, third as u64, 1).unwrap();
    let (report, _) = salvaged(&disk);
    let partition = &report.topics[0].partitions[0];
    assert_eq!((partition.records, partition.lost.first()), (5, Some(&(2..3))));
    let broker = open(&disk, FROM);
    let opened = broker.topic("t").unwrap().partition(0).unwrap();
    assert_eq!(opened.log_end_offset(), 2, "the source is as it was until it is opened");
    // Once that is closed, what was cut stays cut.
    broker.close().unwrap();
    let (report, _) = salvaged(&disk);
    let partition = &report.topics[0].partitions[0];
    assert_eq!((partition.records, partition.log_end_offset, partition.lost.len()), (2, 2, 0));
}

// ---- anything is damaged -------------------------------------------------------------------------

/// Damages one file; returns what was done.
fn damage(disk: &SimulatedDisk, random: &mut Random) -> String {
    let paths = disk.paths();
    let path = &paths[usize::try_from(random.below(paths.len() as u64)).unwrap()];
    let length = disk.read(path).unwrap().len() as u64;
    let name = path.display();
    match random.below(8) {
        0 => {
            disk.remove_file(path).unwrap();
            format!("{name} removed")
        }
        1..3 => {
            let to = random.below(length + 1);
            disk.truncate(path, to).unwrap();
            format!("{name} cut to {to}")
        }
        kind => {
            // Most of a file is space that was never used.
            let used = if kind < 5 { 200 } else { length.min(17 << 10) };
            let at = random.below(used.min(length));
            let mask = u8::try_from(random.below(255)).unwrap() + 1;
            let _nothing_there = disk.corrupt(path, at, mask);
            format!("{name} at {at} by {mask:#x}")
        }
    }
}

fn random_round(seed: u64, store: &Store) {
    let random = &mut Random::new(seed);
    let disk = store.disk.kill9();
    let done: Vec<String> = (0..=random.below(3)).map(|_| damage(&disk, random)).collect();
    let context = format!("LOGPOND_SEED={seed}: {done:?}");
    let source = files(&disk);
    let copy = SimulatedDisk::new();
    let report = copied(&disk, &copy).unwrap_or_else(|error| panic!("{context}: {error:?}"));
    assert_eq!(files(&disk), source, "{context}: the source was written to");
    let broker = check(store, &report, &copy, &context);
    let hits = |log: &str| done.iter().any(|done| done.contains(log));
    if !hits("__meta") {
        assert_eq!(report.topics.len(), 2, "{context}");
        assert!(!report.topics.iter().any(|topic| topic.config_lost), "{context}");
    }
    if !hits("__offsets") && !hits("__meta") {
        assert_eq!(committed(&broker).len(), 2, "{context}");
    }
    if !hits("__local") {
        for topic in &report.topics {
            for partition in &topic.partitions {
                let before = &store.before[&(topic.name.to_string(), partition.partition)];
                assert_eq!(partition.log_start_offset, before.start, "{context}: {partition:?}");
                // Only a clean end says how far the log reached.
                let is_end = partition.log_end_offset == before.end;
                assert!(is_end || !store.is_closed, "{context}: {partition:?}");
            }
        }
    }
    assert_honest(store, &report, &broker, &context);
    // What a broker can still read in the source is in the copy.
    let Ok(source) = builder(&disk, FROM).open() else { return };
    let found = contents(&broker);
    for (at, left) in contents(&source) {
        let Some(found) = found.get(&at) else { panic!("{context}: {at:?} is missing") };
        for (offset, seen) in left.records {
            assert_eq!(found.records.get(&offset), Some(&seen), "{context}: {at:?} {offset}");
        }
    }
}

/// What is called whole is all that there was.
fn assert_honest(store: &Store, report: &SalvageReport, broker: &Broker, context: &str) {
    if !report.is_whole() {
        return;
    }
    let commits = [(("plain", 0).into(), Some(7)), (("plain", 1).into(), Some(9))];
    assert_eq!(committed(broker), commits, "{context}");
    assert_eq!(report.producers, [NAMED.into()], "{context}");
    assert_eq!(broker.topic("plain").unwrap().config(), plain_config(), "{context}");
    let found = contents(broker);
    assert!(found.keys().eq(store.before.keys()), "{context}: {:?}", found.keys());
    // Only a clean end says how far the logs reached.
    assert!(found == store.before || !store.is_closed, "{context}: {report:#?}");
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn whatever_is_damaged_what_is_readable_is_copied_and_what_is_lost_is_named() {
    let stores = [store(true), store(false)];
    let of = |seed: u64| &stores[usize::from(seed % 2 == 1)];
    if let Some(seed) = variable("LOGPOND_SEED") {
        return random_round(seed, of(seed));
    }
    for seed in 0..variable("LOGPOND_ROUNDS").unwrap_or(60) {
        random_round(seed, of(seed));
    }
}

// ---- the copy fails ------------------------------------------------------------------------------

/// At every store point of the copy (or many of them), the power goes off there: the copy is then
/// an empty store or the whole of it.
#[test]
fn a_copy_that_is_cut_off_is_no_store_and_a_whole_one_is_durable() {
    let store = store(true);
    let source = files(&store.disk);
    let whole = SimulatedDisk::new();
    copied(&store.disk, &whole).unwrap();
    let points = whole.store_points();
    let step = usize::try_from(points / variable("LOGPOND_IMAGES").unwrap_or(40)).unwrap().max(1);
    let mut seen = [0_u64; 2];
    for point in (0..=points).rev().step_by(step) {
        let copy = SimulatedDisk::new();
        copy.crash_at(point);
        let result = copied(&store.disk, &copy);
        assert_eq!(result.is_ok(), point == points, "{point} of {points}: {result:?}");
        let (mut worst, mut any) = (Random::new(point), Random::new(point));
        let worst = copy.power_cut(&mut || worst.below(u64::MAX), PowerCut::WORST);
        let mut any = || any.below(u64::MAX);
        let how = PowerCut::any(&mut any);
        for found in [worst, copy.power_cut(&mut any, how), copy.kill9()] {
            let broker = open(&found, TO);
            let topics = contents(&broker);
            assert!(topics.is_empty() || topics == store.before, "{point} of {points}");
            assert!(!topics.is_empty() || result.is_err(), "{point} of {points}");
            if topics.is_empty() {
                // It can be used: nothing of the copy is in the way.
                broker.ensure_topic("plain", TopicConfig::new(1)).unwrap();
            }
            seen[usize::from(topics.is_empty())] += 1;
        }
    }
    eprintln!("{points} store points: {seen:?} whole and empty");
    assert!(seen[0] > 0 && seen[1] > 10, "{seen:?}");
    assert_eq!(files(&store.disk), source, "the source was written to");
}

#[test]
fn a_copy_that_finds_no_space_is_an_error_and_leaves_the_source_alone() {
    let store = store(true);
    let source = files(&store.disk);
    for calls in [0, 1, 5, 9, 14, 20, 30] {
        for operation in [Operation::Write, Operation::Sync, Operation::Rename, Operation::SyncDir]
        {
            let copy = SimulatedDisk::new();
            let full = Fault::always(operation, ErrorKind::StorageFull).after(calls);
            copy.inject(full);
            let result = copied(&store.disk, &copy);
            if result.is_ok() {
                assert!(!copy.has_fired(), "{operation:?} {calls}");
                continue;
            }
            copy.heal();
            let topics = contents(&open(&copy.kill9(), TO));
            assert!(topics.is_empty() || topics == store.before, "{operation:?} {calls}");
        }
    }
    assert_eq!(files(&store.disk), source);
}

/// A disk that does not give the bytes is not damage: what would be copied is not all that can be
/// read, and another time it may be.
#[test]
fn a_source_that_cannot_be_read_is_an_error() {
    let store = store(true);
    for (operation, part) in [
        (Operation::Read, "/plain/1/"),
        (Operation::Open, "/compacted/0/"),
        (Operation::Read, "/__meta/"),
    ] {
        store.disk.inject(Fault::once(operation, ErrorKind::Other).on(part));
        let result = copied(&store.disk, &SimulatedDisk::new());
        assert!(matches!(result, Err(Error::Io { .. })), "{part}: {result:?}");
    }
    assert!(store.disk.open(Path::new("/from/none"), Access::Read).is_err());
}

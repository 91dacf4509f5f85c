//! Entries of the internal logs that are whole, decode, and say what cannot be.
//!
//! An attacker that can write them can write a checksum too, and so can a bug. Each is `Corrupt`,
//! by the log and the offset; nothing is done for it, and no byte is changed. What exactly is
//! refused is tested beside the states: [`catalog`](crate::broker::catalog),
//! [`local`](crate::broker::local), [`offsets`](crate::group::offsets).

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::model::{DIR, open, values};
use crate::broker::Broker;
use crate::broker::catalog::{CatalogChange, ProducerEntry, Stage, TopicEntry};
use crate::broker::local::LocalChange;
use crate::codec::{Bincode, Codec};
use crate::config::{StartAt, TimestampType, TopicConfig};
use crate::error::{CorruptionKind, Error};
use crate::format::TopicId;
use crate::group::offsets::{Committed, OffsetChange};
use crate::partition::PartitionCore;
use crate::partition::append::Accepted;
use crate::partition::append::AppendOptions;
use crate::partition::encode::{Encoder, RecordRules};
use crate::record::Record;
use crate::storage::disk::{Disk, Fault, Operation, SimulatedDisk};

const RULES: RecordRules = RecordRules {
    record_bytes_max: u32::MAX,
    timestamps: TimestampType::CreateTime,
    needs_key: false,
};

/// Appends a change past all checks. Returns its offset.
fn forge<C: Serialize + DeserializeOwned>(core: &Arc<PartitionCore>, change: &C) -> u64 {
    let mut bytes = Vec::new();
    Bincode.encode(change, &mut bytes).unwrap();
    forge_bytes(core, &bytes)
}

fn forge_bytes(core: &Arc<PartitionCore>, bytes: &[u8]) -> u64 {
    let record = Record::new().value(bytes);
    let options = AppendOptions::default();
    let mut encoder = Encoder::take();
    let mut batch = encoder.encode([&record], RULES, 0).unwrap();
    match core.append(&mut batch, &options).unwrap() {
        Accepted::Appended { base_offset, .. } => base_offset,
        other @ Accepted::Duplicate { .. } => panic!("{other:?}"),
    }
}

fn contents(disk: &SimulatedDisk) -> Vec<(PathBuf, Vec<u8>)> {
    let file = |path: PathBuf| Some((path.clone(), disk.read(&path).ok()?));
    disk.paths().into_iter().filter_map(file).collect()
}

fn a_store() -> (SimulatedDisk, Broker) {
    let disk = SimulatedDisk::new();
    let broker = open(&disk, 1).unwrap();
    let topic = broker.ensure_topic("orders", TopicConfig::new(2)).unwrap();
    topic.partition(0).unwrap().append(&Record::new().value("one")).unwrap();
    (disk, broker)
}

fn topic(name: &str, partitions: u32) -> TopicEntry {
    let config = TopicConfig { partitions, ..TopicConfig::new(1) };
    TopicEntry { name: name.into(), id: TopicId([9; 16]), config }
}

/// A directory beside the data, and what `../victim` means inside it.
fn put_a_victim(disk: &SimulatedDisk) {
    let outside = PathBuf::from(DIR).parent().unwrap().join("victim");
    disk.create_dir(&outside).unwrap();
    disk.create_dir(&outside.join("0")).unwrap();
    disk.create(&outside.join("0/00000000000000000000.log.tmp")).unwrap();
}

fn is_refused(disk: &SimulatedDisk, log: &str, offset: u64, what: &str) {
    let before = contents(disk);
    for attempt in 0..2 {
        let refused = open(disk, 2);
        let Err(Error::Corrupt(found)) = &refused else { panic!("{what}: {refused:?}") };
        assert_eq!(found.partition, Some((log, 0).into()), "{what}");
        assert_eq!(found.offsets, Some(offset..offset + 1), "{what}");
        assert!(matches!(found.kind, CorruptionKind::Malformed(_)), "{what}: {found}");
        assert!(contents(disk) == before, "{what}: attempt {attempt} has changed a file");
    }
    let inspected = Broker::builder().disk(Arc::new(disk.clone()), DIR.as_ref()).read_only(true);
    assert!(matches!(inspected.open(), Err(Error::Corrupt(_))), "{what}");
    assert!(contents(disk) == before, "{what}");
}

/// Symptom: a record of `__meta` with a right checksum that named a topic `../victim` as being
/// deleted removed files beside the data directory; one with four billion partitions to be undone
/// looked for as many directories; with as many live ones the list of them had no room. Cause: what
/// could be decoded was believed. Rule: decode, check, and only then act.
// RED: src/partition/state_log/replay.rs
//   - self.state.check(&change)?;
#[test]
fn row_e16_a_topic_that_cannot_be_stops_the_opening_before_anything_is_done() {
    let hostile = [
        (topic("../victim", 1), Stage::Deleting),
        (topic("../victim", 1), Stage::Creating),
        (topic("orders", 1), Stage::Live),
        (topic("ORDERS", 1), Stage::Live),
        (topic("__offsets", 1), Stage::Deleting),
        (topic("", 1), Stage::Deleting),
        (topic("new", 0), Stage::Live),
        (topic("new", 1), Stage::Growing(u32::MAX)),
        (topic("new", 20_000), Stage::Deleting),
    ];
    for (entry, stage) in hostile {
        let what = format!("{} {stage:?}", entry.name);
        let (disk, broker) = a_store();
        put_a_victim(&disk);
        let change = CatalogChange::Topic(entry, stage);
        let offset = forge(broker.run().logs().catalog().partition(), &change);
        is_refused(&disk.kill9(), "__meta", offset, &what);
    }
    let (disk, broker) = a_store();
    broker.producer_builder().id("mine").build().unwrap();
    let entry =
        broker.run().logs().catalog().read(|it| it.producers.values().next().copied()).unwrap();
    let change = CatalogChange::Producer("yours".into(), ProducerEntry { ..entry });
    let offset = forge(broker.run().logs().catalog().partition(), &change);
    is_refused(&disk.kill9(), "__meta", offset, "a producer's id twice");
}

#[test]
fn row_e16_numbers_that_cannot_be_stop_the_opening_too() {
    let (disk, broker) = a_store();
    let id = broker.run().topic("orders").unwrap().id;
    let change = LocalChange::LogStart { topic: id, partition: 0, offset: u64::MAX };
    let offset = forge(broker.run().logs().local().partition(), &change);
    is_refused(&disk.kill9(), "__local", offset, "a log start");

    let (disk, broker) = a_store();
    let committed = Committed { offset: u64::MAX, leader_epoch: 0, incarnation: 0 };
    let change = OffsetChange::Commit { group: "g".into(), topic: id, partition: 0, committed };
    let offset = forge(broker.run().coordinator().offsets().partition(), &change);
    is_refused(&disk.kill9(), "__offsets", offset, "a committed offset");
}

/// What is not so much as a record of that log.
#[test]
fn row_e16_bytes_that_are_no_record_of_the_log_stop_the_opening() {
    for bytes in [vec![], vec![0xFF; 9], vec![3], vec![0; 2], vec![0xFC, 0xFF, 0xFF, 0xFF, 0x7F]] {
        let (disk, broker) = a_store();
        let offset = forge_bytes(broker.run().logs().catalog().partition(), &bytes);
        is_refused(&disk.kill9(), "__meta", offset, &format!("{bytes:?}"));
    }
}

/// As `what_is_missing_at_the_head_is_damage_and_no_log_start` of the log, through a broker: for
/// who reads, consumes, verifies, and deletes.
#[test]
fn files_that_are_missing_at_the_head_of_a_log_are_damage_to_everybody() {
    for is_closed in [false, true] {
        let disk = SimulatedDisk::new();
        let broker = open(&disk, 1).unwrap();
        let config = TopicConfig::new(1).segment_bytes(16 << 10);
        let topic = broker.ensure_topic("t", config).unwrap();
        let value = "v".repeat(6_000);
        for _ in 0..9 {
            topic.partition(0).unwrap().append(&Record::new().value(&value)).unwrap();
        }
        if is_closed {
            broker.close().unwrap();
        }
        let image = disk.kill9();
        let of_topic = |path: &&PathBuf| path.starts_with(format!("{DIR}/t/0"));
        let paths = image.paths();
        let first = paths.iter().find(of_topic).unwrap();
        image.remove_file(first).unwrap();
        let mut lost = 0..0;
        for run in 2..4 {
            let broker = open(&image, run).unwrap();
            let of_topic =
                broker.recovery().partitions.iter().find(|it| &*it.topic == "t").unwrap();
            lost = of_topic.corrupt[0].offsets.clone().unwrap();
            assert!(lost.start == 0 && lost.end > 0, "{lost:?}");
            let partition = broker.topic("t").unwrap().partition(0).unwrap();
            assert_eq!(partition.log_start_offset(), 0);
            for offset in lost.clone() {
                let Err(Error::Corrupt(found)) = partition.read(offset, 1 << 20) else { panic!() };
                assert_eq!(
                    (found.kind, found.offsets),
                    (CorruptionKind::Missing, Some(offset..lost.end))
                );
            }
            assert_eq!(
                partition.read(lost.end, 1).unwrap().iter().next().unwrap().offset(),
                lost.end
            );
            let mut reader = broker.reader().subscribe(["t"]).open().unwrap();
            let Err(Error::Corrupt(found)) = reader.poll(Duration::ZERO) else { panic!() };
            assert_eq!(found.offsets, Some(lost.clone()));
            reader.seek(("t", 0), StartAt::Offset(lost.end)).unwrap();
            let next = reader.poll(Duration::ZERO).unwrap();
            assert_eq!(next.iter().next().unwrap().offset(), lost.end);
            let verified = broker.admin().verify("t").unwrap();
            assert!(
                verified.damage.iter().any(|it| it.offsets == Some(lost.clone())),
                "{verified:?}"
            );
        }
        // Deleting what is missing makes the log whole.
        let broker = open(&image, 4).unwrap();
        broker.admin().delete_records(("t", 0), lost.end).unwrap();
        assert!(broker.admin().verify("t").unwrap().is_ok());
        broker.close().unwrap();
        let broker = open(&image, 5).unwrap();
        assert!(broker.recovery().is_clean(), "{:?}", broker.recovery());
    }
}

/// A disk that refuses to read one partition takes that one away, and nothing else; nothing of it
/// is changed, and when it reads again all is there. A topic whose making was never noted as done,
/// and whose files cannot be read, is not undone: they may hold records.
// RED: src/broker/topics.rs
//   - Err(error) if damage_of(&identity, &error).is_some() => Ok(true),
//   + Err(error) if damage_of(&identity, &error).is_some() => Ok(false),
#[test]
fn row_e23_a_partition_that_cannot_be_read_is_unavailable_and_kept() {
    for is_noted in [true, false] {
        for operation in [Operation::Open, Operation::Read] {
            let (disk, broker) = a_store();
            broker.ensure_topic("other", TopicConfig::new(1)).unwrap();
            if !is_noted {
                let catalog = &broker.run().logs().catalog();
                let entry = catalog.read(|it| it.named("orders").unwrap().clone());
                forge(catalog.partition(), &CatalogChange::Topic(entry, Stage::Creating));
                catalog.partition().flush().unwrap();
            }
            drop(broker);
            let of_topic =
                |(path, _): &(PathBuf, Vec<u8>)| path.starts_with(format!("{DIR}/orders/0"));
            let kept = |disk| contents(disk).into_iter().filter(of_topic).collect::<Vec<_>>();
            let before = kept(&disk);
            disk.inject(Fault::always(operation, ErrorKind::Other).on("orders/0"));
            let broker = open(&disk, 2).unwrap();
            let context = format!("{operation:?}, noted: {is_noted}");
            let record = Record::new().value("two");
            let append = |topic: &str, number| {
                broker.topic(topic).unwrap().partition(number).unwrap().append(&record)
            };
            let refused = append("orders", 0);
            let Err(Error::Corrupt(damage)) = &refused else { panic!("{context}: {refused:?}") };
            assert!(matches!(damage.kind, CorruptionKind::Unreadable(_)), "{context}: {damage}");
            append("other", 0).unwrap();
            append("orders", 1).unwrap();
            broker.tick().unwrap();
            broker.close().unwrap();
            disk.heal();
            let after = kept(&disk);
            assert!(before.iter().all(|file| after.contains(file)), "{context}");
            let broker = open(&disk, 3).unwrap();
            assert!(broker.recovery().is_clean(), "{context}: {:?}", broker.recovery());
            assert_eq!(values(&broker.topic("orders").unwrap(), 0), ["one"], "{context}");
            assert_eq!(values(&broker.topic("orders").unwrap(), 1), ["two"], "{context}");
        }
    }
}

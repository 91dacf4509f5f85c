//! What callers get reported when the disk is full or fails, and that it is true.

use std::io::ErrorKind;

use super::model::{Crash, clock, open, open_at, values};
use crate::config::{Durability, TopicConfig};
use crate::error::Error;
use crate::random::Random;
use crate::record::Record;
use crate::storage::disk::{Fault, Operation, PowerCut, SimulatedDisk};

fn power_cut(disk: &SimulatedDisk) -> SimulatedDisk {
    Crash::Cut(PowerCut::WORST).of(disk, &mut Random::new(1))
}

#[test]
fn statement_10_a_full_disk_refuses_sends_and_deleting_a_topic_restores_them() {
    let disk = SimulatedDisk::new();
    let broker = open(&disk, 1).unwrap();
    let topic = broker.ensure_topic("t", TopicConfig::new(1).segment_bytes(16 << 10)).unwrap();
    broker.ensure_topic("old", TopicConfig::new(1).segment_bytes(16 << 10)).unwrap();
    let partition = topic.partition(0).unwrap();
    let producer = broker.producer();
    let value = "v".repeat(3_000);
    let send = || producer.send(Record::to("t").value(&value));
    for _ in 0..20 {
        send().unwrap();
    }
    let mut consumer = broker.consumer("g").subscribe(["t"]).open().unwrap();
    let used = |disk: &SimulatedDisk| -> u64 {
        disk.paths().iter().map(|path| disk.read(path).unwrap().len() as u64).sum()
    };
    disk.limit_capacity(Some(used(&disk)));
    let refused = (0..20).find_map(|_| send().err()).expect("the disk never filled");
    assert!(matches!(refused, Error::StorageFull { .. }), "{refused:?}");
    assert!(refused.is_definite(), "{refused:?}");

    // Readers and commits continue, up to the end.
    let end = partition.log_end_offset();
    assert_eq!(values(&topic, 0).len() as u64, end);
    while consumer.position(("t", 0)).unwrap() < end {
        consumer.poll(std::time::Duration::ZERO).unwrap();
    }
    consumer.commit().unwrap();
    assert!(send().is_err(), "there is space without anything deleted");

    // Deleting something makes room, without a reopen.
    broker.admin().delete_topic("old").unwrap();
    for _ in 0..3 {
        send().unwrap();
    }
    // So does deleting records, once it is full again.
    (0..20).find_map(|_| send().err()).expect("the disk never filled again");
    broker.admin().delete_records(("t", 0), 10).unwrap();
    send().unwrap();
    let end = partition.log_end_offset();
    drop((consumer, partition, topic, producer, broker));
    // A broker begins its run with a new segment of each of its internal logs.
    disk.limit_capacity(None);
    let broker = open(&power_cut(&disk), 2).unwrap();
    assert!(broker.recovery().is_clean(), "{:?}", broker.recovery());
    let topic = broker.topic("t").unwrap();
    assert_eq!(values(&topic, 0).len() as u64, end - 10);
}

#[test]
fn statement_06_a_power_cut_takes_nothing_that_was_acknowledged_as_durable() {
    let disk = SimulatedDisk::new();
    let broker = open(&disk, 1).unwrap();
    broker.ensure_topic("t", TopicConfig::new(1).segment_bytes(16 << 10)).unwrap();
    let hurried = broker.producer_builder().durability(Durability::Os).build().unwrap();
    let value = |number: u64| format!("{number} {}", "v".repeat(700));
    let mut acknowledged = 0;
    for number in 0..60 {
        let bytes = value(number);
        let record = Record::to("t").value(&bytes);
        if number % 4 == 3 {
            broker.producer().send(record).unwrap();
            acknowledged = number + 1;
        } else {
            hurried.send(record).unwrap();
        }
        let crashes = [(Crash::Kill, number + 1), (Crash::Cut(PowerCut::WORST), acknowledged)];
        for (crash, survives) in crashes {
            let left = crash.of(&disk, &mut Random::new(number));
            let next = open(&left, 2).unwrap();
            let found = values(&next.topic("t").unwrap(), 0);
            assert!(found.len() as u64 >= survives, "{crash:?} after {number}: {}", found.len());
            let expected: Vec<_> = (0..found.len() as u64).map(value).collect();
            assert_eq!(found, expected, "{crash:?} after {number}");
        }
    }
}

/// Symptom: a batch over two partitions, of which one could not be synced, named the records of
/// both as done. Cause: `done` was filled in when records were appended. Rule: it names only what
/// has reached the level in force.
#[test]
fn a_partial_batch_names_only_durable_records_as_done() {
    let disk = SimulatedDisk::new();
    let broker = open(&disk, 1).unwrap();
    let topic = broker.ensure_topic("t", TopicConfig::new(2)).unwrap();
    disk.inject(Fault::once(Operation::Sync, ErrorKind::Other).on("/t/1"));
    let targets = [("a", 0), ("b", 1), ("c", 0), ("d", 1)];
    let records = targets.map(|(value, at)| Record::to("t").partition(at).value(value));
    let partial = broker.producer().send_batch(records);
    let Err(Error::PartialBatch { done, source }) = partial else { panic!("{partial:?}") };
    assert!(matches!(*source, Error::SyncFailed { .. }), "{source:?}");
    let done: Vec<_> = done.iter().map(|it| it.map(|it| (it.partition, it.offset))).collect();
    assert_eq!(done, [Some((0, 0)), None, Some((0, 1)), None]);
    drop((topic, broker));
    let broker = open(&power_cut(&disk), 2).unwrap();
    assert_eq!(values(&broker.topic("t").unwrap(), 0), ["a", "c"], "done, and lost");
}

/// Symptom: of two calls of `flush` the second answered before, or although, the first had failed.
/// Cause: each call took away the list of what was to be flushed. Rule: every call answers for all
/// that was appended before it.
#[test]
fn a_flush_answers_for_all_that_was_appended_whatever_another_did() {
    let disk = SimulatedDisk::new();
    let broker = open_at(&disk, 1, Durability::Os, &clock()).unwrap();
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    let producer = broker.producer();
    producer.send(Record::to("t").value("a")).unwrap();
    disk.inject(Fault::once(Operation::Sync, ErrorKind::Other).on("/t/0"));
    let failed = producer.clone().flush();
    assert!(matches!(failed, Err(Error::SyncFailed { .. })), "{failed:?}");
    let again = producer.flush();
    assert!(again.is_err(), "nothing of it is durable: {again:?}");
}

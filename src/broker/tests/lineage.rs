//! Logs that were cut under consumers that had come further.

use std::io::ErrorKind;
use std::time::Duration;

use super::model::{clock, open_at, values};
use crate::broker::Broker;
use crate::config::{Durability, TopicConfig};
use crate::consumer::Consumer;
use crate::error::Error;
use crate::record::{Record, TopicPartition};
use crate::storage::disk::{Fault, Metadata, Operation, Pages, PowerCut, SimulatedDisk};

fn open(disk: &SimulatedDisk, seed: u64) -> Broker {
    let broker = open_at(disk, seed, Durability::Os, &clock()).unwrap();
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    broker
}

fn send(broker: &Broker, values: &[&str]) {
    for value in values {
        broker.producer().send(Record::to("t").value(value)).unwrap();
    }
}

fn consumer(broker: &Broker) -> Consumer {
    broker.consumer("g").subscribe(["t"]).open().unwrap()
}

fn read(consumer: &mut Consumer) -> Vec<String> {
    let batch = consumer.poll(Duration::ZERO).unwrap();
    batch.iter().map(|it| String::from_utf8(it.value().unwrap().to_vec()).unwrap()).collect()
}

fn commit_all(broker: &Broker) -> u64 {
    let mut consumer = consumer(broker);
    read(&mut consumer);
    consumer.commit().unwrap();
    consumer.position(&TopicPartition::from(("t", 0))).unwrap()
}

/// The consumer is told once, and goes on at the end of the log.
fn assert_truncated(consumer: &mut Consumer, committed: u64, end: u64, log_end: u64) {
    match consumer.poll(Duration::ZERO) {
        Err(Error::Truncated { partition, committed: found, end: cut_to }) => {
            assert_eq!(partition, TopicPartition::from(("t", 0)));
            assert_eq!((found, cut_to), (committed, end));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(consumer.position(&TopicPartition::from(("t", 0))), Some(log_end));
    assert_eq!(read(consumer), Vec::<String>::new(), "told twice, or handed out");
}

/// Everything of the topic that was not synced is lost; the commit of it is not.
fn cut_topic_tail(broker: Broker, disk: &SimulatedDisk) -> SimulatedDisk {
    broker.life().coordinator.offsets_partition().flush().unwrap();
    drop(broker);
    disk.power_cut(&mut || 0, PowerCut::WORST)
}

/// Symptom: a group was told that records were cut, and its commit went back. Cause: what can be
/// read of a poisoned partition ends at its durable end, and a commit beyond that was taken for one
/// beyond a cut. Rule: only a recovery cuts.
#[test]
fn a_commit_beyond_what_a_poisoned_partition_shows_is_no_truncation() {
    let disk = SimulatedDisk::new();
    let broker = open_at(&disk, 1, Durability::Os, &clock()).unwrap();
    let topic = broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    let partition = topic.partition(0).unwrap();
    for value in ["a", "b", "c"] {
        partition.append(&Record::new().value(value)).unwrap();
    }
    let mut consumer = broker.consumer("g").subscribe(["t"]).open().unwrap();
    assert_eq!(consumer.poll(Duration::ZERO).unwrap().len(), 3);
    consumer.commit().unwrap();
    drop(consumer);
    disk.inject(Fault::once(Operation::Sync, ErrorKind::Other).on("/t/0"));
    partition.sync().unwrap_err();
    let mut next = broker.consumer("g").subscribe(["t"]).open().unwrap();
    assert!(next.poll(Duration::ZERO).unwrap().is_empty());
    assert_eq!(next.position(("t", 0)), Some(3));
}

// RED: src/consumer/slot.rs
//   - if let Some(cut_to) = cut.or_else(|| (offset > end).then_some(end)) {
//   + if let Some(cut_to) = cut.filter(|_| offset < end) {
#[test]
fn row_b06_a_consumer_beyond_the_cut_is_told_once() {
    let disk = SimulatedDisk::new();
    let broker = open(&disk, 1);
    send(&broker, &["0", "1"]);
    broker.flush().unwrap();
    send(&broker, &["2", "3", "4"]);
    assert_eq!(commit_all(&broker), 5);
    let disk = cut_topic_tail(broker, &disk);

    let broker = open(&disk, 2);
    assert_eq!(values(&broker.topic("t").unwrap(), 0), ["0", "1"]);
    assert_truncated(&mut consumer(&broker), 5, 2, 2);
}

// RED: src/consumer/slot.rs
//   - let cut = self.core.cut_below(offset, incarnation);
//   + let cut: Option<u64> = self.core.cut_below(offset, incarnation).filter(|_| offset > end);
#[test]
fn row_b06_records_that_reuse_the_numbers_are_not_skipped_unnoticed() {
    let disk = SimulatedDisk::new();
    let broker = open(&disk, 1);
    send(&broker, &["0", "1"]);
    broker.flush().unwrap();
    send(&broker, &["2", "3", "4"]);
    assert_eq!(commit_all(&broker), 5);
    let disk = cut_topic_tail(broker, &disk);

    let broker = open(&disk, 2);
    send(&broker, &["x2", "x3", "x4", "x5"]);
    assert_truncated(&mut consumer(&broker), 5, 2, 6);
    // Again after another crash, and after a clean end: until something new is committed.
    drop(broker);
    let broker = open(&disk, 3);
    assert_truncated(&mut consumer(&broker), 5, 2, 6);
    broker.close().unwrap();
    let broker = open(&disk, 4);
    assert_truncated(&mut consumer(&broker), 5, 2, 6);
    assert_eq!(commit_all_after_report(&broker), 6);
    send(&broker, &["x6"]);
    assert_eq!(read(&mut consumer(&broker)), ["x6"]);
    broker.close().unwrap();
    let broker = open(&disk, 5);
    assert_eq!(read(&mut consumer(&broker)), ["x6"]);
}

fn commit_all_after_report(broker: &Broker) -> u64 {
    let mut consumer = consumer(broker);
    assert!(consumer.poll(Duration::ZERO).is_err());
    consumer.commit().unwrap();
    consumer.position(&TopicPartition::from(("t", 0))).unwrap()
}

#[test]
fn a_commit_at_or_below_the_cut_stands() {
    let disk = SimulatedDisk::new();
    let broker = open(&disk, 1);
    send(&broker, &["0", "1"]);
    assert_eq!(commit_all(&broker), 2);
    broker.flush().unwrap();
    send(&broker, &["2", "3"]);
    let disk = cut_topic_tail(broker, &disk);
    let broker = open(&disk, 2);
    send(&broker, &["x2"]);
    assert_eq!(read(&mut consumer(&broker)), ["x2"]);
}

#[test]
fn many_crashes_without_loss_and_clean_ends_leave_a_commit_alone() {
    let disk = SimulatedDisk::new();
    let broker = open(&disk, 1);
    send(&broker, &["0", "1", "2"]);
    assert_eq!(commit_all(&broker), 3);
    drop(broker);
    for seed in 2..50 {
        let broker = open(&disk, seed);
        assert_eq!(read(&mut consumer(&broker)), Vec::<String>::new(), "{seed}");
        // Nothing appended, something appended and committed, clean, killed: in all mixtures.
        if seed % 3 == 0 {
            send(&broker, &["more"]);
            let end = commit_all(&broker);
            assert_eq!(end, 3 + seed / 3);
        }
        if seed % 4 < 2 {
            broker.close().unwrap();
        }
    }
}

#[test]
fn a_clean_end_draws_no_incarnation_and_writes_no_list() {
    let disk = SimulatedDisk::new();
    let broker = open(&disk, 1);
    send(&broker, &["0"]);
    drop(broker);
    let incarnation = |broker: &Broker| {
        let topic = broker.life().topic("t").unwrap();
        topic.partition(0).unwrap().lineage().1
    };
    let recorded = |broker: &Broker| {
        let lineages = broker.life().local.read(|local| local.lineages.clone());
        lineages.into_values().next().unwrap()
    };
    let broker = open(&disk, 2);
    let (drawn, list) = (incarnation(&broker), recorded(&broker));
    assert_eq!(list.current(), Some(drawn));
    broker.close().unwrap();
    // Idle lives, and lives with appends: the same incarnation, the same list.
    for seed in 3..8 {
        let broker = open(&disk, seed);
        assert_eq!((incarnation(&broker), recorded(&broker)), (drawn, list.clone()), "{seed}");
        if seed > 5 {
            send(&broker, &["1"]);
        }
        broker.close().unwrap();
    }
    drop(open(&disk, 8));
    let broker = open(&disk, 9);
    assert_ne!(incarnation(&broker), drawn);
}

/// The list must be durable before the numbers are given again: a crash of the life that drew the
/// incarnation, at any point, does not make the cut forgotten.
// RED: src/broker/open.rs
//   - lineage.begin(log.incarnation(), log.log_end());
#[test]
fn row_b06_the_cut_is_remembered_whenever_the_next_life_ends() {
    let disk = SimulatedDisk::new();
    let broker = open(&disk, 1);
    send(&broker, &["0", "1"]);
    broker.flush().unwrap();
    send(&broker, &["2", "3"]);
    assert_eq!(commit_all(&broker), 4);
    let disk = cut_topic_tail(broker, &disk);
    let second_life = |disk: &SimulatedDisk| {
        let broker = open_at(disk, 2, Durability::Os, &clock())?;
        let topic = broker.topic("t")?;
        for value in ["x2", "x3", "x4", "x5"] {
            topic.partition(0)?.append(&Record::new().value(value))?;
            topic.partition(0)?.sync()?;
        }
        broker.close()
    };
    let whole = disk.kill9();
    second_life(&whole).unwrap();
    let all = PowerCut { metadata: Metadata::All, pages: Pages::All, tear: false };
    for point in 0..=whole.store_points() {
        for how in [PowerCut::WORST, all] {
            let life = disk.kill9();
            life.crash_at(point);
            let _ = second_life(&life);
            let after = life.power_cut(&mut || 0, how);
            let broker = open(&after, 3);
            let end = broker.topic("t").unwrap().partition(0).unwrap().log_end_offset();
            assert_truncated(&mut consumer(&broker), 4, 2, end);
        }
    }
}

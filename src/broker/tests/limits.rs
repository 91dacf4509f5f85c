//! Where numbers end: offsets, the epochs of producers, and the bytes of a service that dies in a
//! loop.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::model::{DIR, clock, open, open_at, values};
use crate::broker::Broker;
use crate::broker::catalog::{CatalogChange, ProducerEntry};
use crate::config::{Durability, TopicConfig};
use crate::error::Error;
use crate::log::OFFSET_MAX;
#[cfg(debug_assertions)]
use crate::partition::background::Want;
use crate::record::Record;
use crate::storage::disk::SimulatedDisk;

/// As at the log's own level (`log::tests`), through every door of a broker, and again after it was
/// opened anew.
// RED: src/log/ends.rs
//   - .filter(|next| *next <= OFFSET_MAX)
#[test]
fn row_g01_the_last_offset_is_given_out_once_and_none_after_it() {
    let disk = SimulatedDisk::new();
    let broker = open_at(&disk, 1, Durability::Os, &clock()).unwrap();
    let topic = broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    let partition = topic.partition(0).unwrap();
    let core = broker.run().topic("t").unwrap().partitions[0].clone();
    let start = OFFSET_MAX - 4;
    core.with_log(|log| log.jump_to(start)).unwrap();
    broker.admin().delete_records(("t", 0), start).unwrap();
    let record = || Record::to("t").partition(0).value("x");
    let exhausted = |result: crate::error::Result<()>| {
        assert!(matches!(result, Err(Error::OffsetExhausted { .. })), "{result:?}");
        assert!(result.is_err_and(|error| error.is_definite() && !error.is_retriable()));
    };
    let three = [record(), record(), record()];
    assert_eq!(partition.append_batch(&three).unwrap(), start..OFFSET_MAX - 1);
    exhausted(partition.append_batch(&three[..2]).map(drop));
    let mut consumer = broker.consumer("g").subscribe(["t"]).open().unwrap();
    let named = broker.producer_builder().id("p").build().unwrap();
    named.send_sequenced(1, record()).unwrap();
    for run in 0..3 {
        let broker = if run == 0 { broker.clone() } else { open(&disk, run).unwrap() };
        let partition = broker.topic("t").unwrap().partition(0).unwrap();
        assert_eq!(partition.log_end_offset(), OFFSET_MAX, "run {run}");
        assert_eq!(partition.log_start_offset(), start);
        let producer = broker.producer();
        exhausted(partition.append(&Record::new().value("x")).map(drop));
        exhausted(partition.append_if(OFFSET_MAX, &three[..1]).map(drop));
        exhausted(producer.send(record()).map(drop));
        exhausted(producer.enqueue(record()).map(drop));
        let named = broker.producer_builder().id("p").build().unwrap();
        exhausted(named.send_sequenced(2, record()).map(drop));
        assert_eq!(partition.append_batch(&[]).unwrap(), OFFSET_MAX..OFFSET_MAX);
        assert_eq!(partition.log_end_offset(), OFFSET_MAX);
        if run == 0 {
            let read = consumer.poll(Duration::ZERO).unwrap();
            let offsets: Vec<u64> = read.iter().map(|message| message.offset()).collect();
            assert_eq!(offsets, (start..OFFSET_MAX).collect::<Vec<_>>());
            consumer.commit().unwrap();
            let committed = consumer.committed(("t", 0)).unwrap();
            assert_eq!(committed, Some(OFFSET_MAX));
            consumer.close().unwrap();
            consumer = broker.consumer("other").subscribe(["t"]).open().unwrap();
        }
        broker.close().unwrap();
    }
    drop(consumer);
}

// RED: src/broker/producers.rs
//   - if known.is_some_and(|known| known.epoch == entry.epoch) {
//   + if known.is_none() && entry.epoch > 0 {
#[test]
fn row_g08_a_producers_epoch_never_wraps() {
    let disk = SimulatedDisk::new();
    let broker = open(&disk, 1).unwrap();
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    let entry = ProducerEntry { id: 7, epoch: u32::MAX - 1 };
    let change = CatalogChange::Producer("p".into(), entry);
    broker.run().logs().catalog().append_durably(vec![change]).unwrap();
    let last = broker.producer_builder().id("p").build().unwrap();
    let refused = broker.producer_builder().id("p").build();
    assert!(matches!(&refused, Err(Error::Config(error)) if error.setting == "id"), "{refused:?}");
    // The last holder there can be is not fenced by who was refused.
    last.send_sequenced(1, Record::to("t").partition(0).value("x")).unwrap();
}

/// Symptom: with a budget of 8 MiB a service that died with a record in each of 20 partitions was
/// refused at the 32nd death, with 5 KB stored. Rule: deaths cost nothing that lasts.
#[test]
fn row_a28_a_service_that_dies_in_a_loop_does_not_use_up_its_budget() {
    const PARTITIONS: u32 = 4;
    let disk = SimulatedDisk::new();
    let mut taken = None;
    for run in 0..50_usize {
        let builder = Broker::builder().disk(Arc::new(disk.clone()), Path::new(DIR));
        let builder = builder.clock(clock()).durability(Durability::Os).background(false);
        let broker = builder.seed(run as u64).max_total_bytes(1 << 20).open().unwrap();
        let topic = broker.ensure_topic("t", TopicConfig::new(PARTITIONS)).unwrap();
        for number in 0..PARTITIONS {
            let partition = topic.partition(number).unwrap();
            partition.append(&Record::new().value(&run.to_string())).unwrap();
        }
        let metrics = broker.metrics();
        let partitions = &metrics.topics[0].partitions;
        assert!(partitions.iter().all(|partition| partition.segments == 1), "run {run}");
        let bytes: u64 = partitions.iter().map(|partition| partition.bytes_on_disk).sum();
        assert_eq!(*taken.get_or_insert(bytes), bytes, "run {run}");
        let expected: Vec<String> = (0..=run).map(|run| run.to_string()).collect();
        assert_eq!(values(&topic, 3), expected, "run {run}");
    }
}

/// Room is made under a lock, and what removes records notes it in an internal log: if that were
/// out of budget it would wait for itself.
#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "an internal log has no budget to be out of")]
fn an_internal_log_is_never_made_room_for() {
    let broker = open(&SimulatedDisk::new(), 1).unwrap();
    let local = broker.run().logs().local().partition();
    let want = Want { bytes: 1, is_budget: true, is_again: false, may_wait: true, wait: None };
    broker.run().space().make_room(local, &want);
}

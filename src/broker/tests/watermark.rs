//! Consumers and commits of a partition with a high watermark, as every member of a replicated group
//! has one.

use std::time::Duration;

use super::model::{clock, open, open_at};
use crate::broker::Broker;
use crate::config::{Durability, StartAt, TopicConfig};
use crate::consumer::Consumer;
use crate::error::Error;
use crate::partition::quorum::Quorum;
use crate::record::{Offsets, Record, TopicPartition};
use crate::storage::disk::{PowerCut, SimulatedDisk};

/// A broker with a topic of one partition, which is replicated and has so many records.
fn replicated(records: u64) -> Broker {
    let broker = open(&SimulatedDisk::new(), 1).unwrap();
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    let topic = broker.run().topic("t").unwrap();
    Quorum::of(topic.partition(0).unwrap()).begin();
    send(&broker, records);
    broker
}

fn send(broker: &Broker, records: u64) {
    for number in 0..records {
        broker.producer().send(Record::to("t").value(&number.to_string())).unwrap();
    }
}

fn advance(broker: &Broker, offset: u64) {
    let topic = broker.run().topic("t").unwrap();
    Quorum::of(topic.partition(0).unwrap()).advance(offset);
}

fn read(consumer: &mut Consumer) -> Vec<u64> {
    let batch = consumer.poll(Duration::ZERO).unwrap();
    batch.iter().map(|message| message.offset()).collect()
}

fn partition() -> TopicPartition {
    TopicPartition::from(("t", 0))
}

#[test]
fn a_consumer_reads_and_lags_up_to_the_watermark() {
    let broker = replicated(4);
    let mut consumer = broker.consumer("g").subscribe(["t"]).open().unwrap();
    let log = broker.topic("t").unwrap().partition(0).unwrap();
    assert_eq!(
        (read(&mut consumer), log.high_watermark(), log.log_end_offset()),
        (Vec::<u64>::new(), 0, 4)
    );
    advance(&broker, 3);
    assert_eq!(consumer.lag().unwrap().values().sum::<u64>(), 3);
    assert_eq!(read(&mut consumer), [0, 1, 2]);
    assert_eq!(log.read(3, 1_000).unwrap().len(), 0);
    assert_eq!(log.read(40, 1_000).unwrap().len(), 0, "it waits for records that may come");
    assert_eq!(log.read(0, 1_000).unwrap().len(), 3);
    assert_eq!(log.high_watermark(), 3);
    assert_eq!(broker.admin().describe_group("g").unwrap().offsets[0].lag, 3);
    assert_eq!(broker.metrics().groups[0].lag, 3);
    advance(&broker, 4);
    assert_eq!(read(&mut consumer), [3]);
}

/// A member that does not have all records yet. The position is no error, and no commit goes back.
#[test]
fn a_position_above_the_watermark_waits_for_its_record() {
    let broker = replicated(4);
    let mut reader = broker.reader().assign([partition()]).open().unwrap();
    reader.seek(&partition(), StartAt::Offset(6)).unwrap();
    assert_eq!(read(&mut reader), [0_u64; 0]);
    send(&broker, 4);
    assert_eq!(read(&mut reader), [0_u64; 0]);
    advance(&broker, 8);
    assert_eq!(read(&mut reader), [6, 7]);
}

/// The end of a log is where readers are: what lies above may be truncated.
#[test]
fn the_end_of_a_replicated_log_is_its_watermark() {
    let broker = replicated(4);
    advance(&broker, 2);
    let mut reader = broker.reader().assign([partition()]).start(StartAt::Latest).open().unwrap();
    assert_eq!(reader.position(&partition()), Some(2));
    advance(&broker, 3);
    assert_eq!(read(&mut reader), [2]);
    drop(broker.consumer("g").subscribe(["t"]).open().unwrap());
    broker.admin().reset_offsets("g", "t", StartAt::Latest).unwrap();
    let offsets = broker.admin().describe_group("g").unwrap().offsets;
    assert_eq!(offsets.iter().map(|it| it.committed).collect::<Vec<_>>(), [Some(3)]);
    let refused = broker.admin().delete_records(("t", 0), 4);
    assert!(matches!(refused, Err(Error::OffsetOutOfRange { end: 3, .. })), "{refused:?}");
}

/// Symptom, if it were otherwise: the position survives a change of the leader and the record does
/// not, and the group skips the record that gets its offset.
#[test]
fn a_position_is_committed_only_below_the_watermark() {
    let broker = replicated(4);
    advance(&broker, 2);
    let mut consumer = broker.consumer("g").subscribe(["t"]).open().unwrap();
    assert_eq!(read(&mut consumer), [0, 1]);
    let refused = consumer.commit_offsets(&Offsets::from([(partition(), 3)]));
    // Nobody leads, so there is nobody to wait for.
    assert!(matches!(refused, Err(Error::NotLeader { leader: None })), "{refused:?}");
    let refused = consumer.commit_offsets(&Offsets::from([(partition(), 5)]));
    assert!(matches!(refused, Err(Error::OffsetOutOfRange { end: 4, .. })), "{refused:?}");
    assert_eq!(consumer.committed(&partition()).unwrap(), None);
    consumer.commit().unwrap();
    assert_eq!(consumer.committed(&partition()).unwrap(), Some(2));
    advance(&broker, 3);
    consumer.commit_offsets(&Offsets::from([(partition(), 3)])).unwrap();
}

/// A member whose log a power cut has made shorter gets the records from the others again: the
/// commit still refers to them.
#[test]
fn a_group_resumes_above_the_end_of_a_replicated_log_without_a_truncation() {
    let disk = SimulatedDisk::new();
    let broker = open_at(&disk, 1, Durability::Os, &clock()).unwrap();
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    send(&broker, 2);
    broker.flush().unwrap();
    send(&broker, 3);
    let mut consumer = broker.consumer("g").subscribe(["t"]).open().unwrap();
    assert_eq!(read(&mut consumer).len(), 5);
    consumer.commit().unwrap();
    broker.run().coordinator().offsets().partition().flush().unwrap();
    drop((broker, consumer));
    let disk = disk.power_cut(&mut || 0, PowerCut::WORST);
    let broker = open_at(&disk, 2, Durability::Os, &clock()).unwrap();
    assert_eq!(broker.topic("t").unwrap().partition(0).unwrap().log_end_offset(), 2);
    let topic = broker.run().topic("t").unwrap();
    Quorum::of(topic.partition(0).unwrap()).begin();
    let mut consumer = broker.consumer("g").subscribe(["t"]).open().unwrap();
    assert_eq!(read(&mut consumer), [0_u64; 0]);
    assert_eq!(consumer.position(&partition()), Some(5));
    send(&broker, 4);
    advance(&broker, 6);
    assert_eq!(read(&mut consumer), [5]);
}

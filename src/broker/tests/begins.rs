//! Partitions that begin at a chosen offset, for a mirror.
//!
//! Goal: whatever happens while the topic is created and after, each record has the offset that it
//! was given. Method: the run is stopped at every store point, and what each kind of crash leaves
//! is opened twice.

use super::model::{Crash, open, values};
use crate::broker::Broker;
use crate::config::TopicConfig;
use crate::error::{Error, Result};
use crate::log::OFFSET_MAX;
use crate::random::Random;
use crate::record::Record;
use crate::storage::disk::{PowerCut, SimulatedDisk};

const BEGIN: u64 = 1_000;
const EMPTY: u64 = 500;

/// How many records were acknowledged.
fn live(disk: &SimulatedDisk, acknowledged: &mut usize) -> Result<()> {
    let broker = open(disk, 7)?;
    let config = TopicConfig::new(3).segment_bytes(16 << 10);
    let topic = broker.admin().create_topic_at("t", config, [(0, EMPTY), (1, BEGIN)])?;
    let padding = "p".repeat(6_000);
    for number in 0..4 {
        let partition = topic.partition(1)?;
        let offset = partition.append(&Record::new().value(&format!("{number} {padding}")))?;
        assert_eq!(offset, BEGIN + number);
        *acknowledged += 1;
    }
    topic.partition(2)?.append(&Record::new().value("first"))?;
    broker.close()
}

fn check(broker: &Broker, acknowledged: usize, context: &str) {
    for partition in &broker.recovery().partitions {
        assert!(partition.corrupt.is_empty(), "{context}: {partition:?}");
    }
    let Ok(topic) = broker.topic("t") else {
        assert_eq!(acknowledged, 0, "{context}: the topic is lost");
        return;
    };
    let begun = topic.partition(1).unwrap();
    let starts: Vec<_> = topic.iter().map(|partition| partition.log_start_offset()).collect();
    assert_eq!(starts, [EMPTY, BEGIN, 0], "{context}");
    assert_eq!(topic.partition(0).unwrap().log_end_offset(), EMPTY, "{context}");
    // `values` checks that offsets follow one another from the log start on.
    let found = values(&topic, 1);
    assert!(found.len() >= acknowledged, "{context}: {} of {acknowledged}", found.len());
    for (number, value) in found.iter().enumerate() {
        assert!(value.starts_with(&format!("{number} ")), "{context}: {value:.20}");
    }
    assert_eq!(begun.log_end_offset(), BEGIN + found.len() as u64, "{context}");
}

// RED: src/log/inventory.rs
//   - let made_at = made_at.map_or(0, |first| first.base_offset);
//   + let made_at = made_at.map_or(0, |_| 0);
// RED: src/log.rs
//   - log.ends = Ends::found(begin, begin, begin);
#[test]
fn a_partition_begins_at_its_offset_after_any_crash() {
    let whole = SimulatedDisk::new();
    live(&whole, &mut 0).unwrap();
    let points = whole.store_points();
    for point in 0..points {
        let disk = SimulatedDisk::new();
        disk.crash_at(point);
        let mut acknowledged = 0;
        assert!(live(&disk, &mut acknowledged).is_err());
        let mut random = Random::new(point);
        let any = PowerCut::any(&mut || random.next());
        for crash in [Crash::Kill, Crash::Cut(PowerCut::WORST), Crash::Cut(any)] {
            let context = format!("store point {point} of {points}, {crash:?}");
            let image = crash.of(&disk, &mut random);
            let broker = open(&image, point).unwrap_or_else(|e| panic!("{context}: {e:?}"));
            check(&broker, acknowledged, &context);
            drop(broker);
            let again = Crash::Cut(PowerCut::WORST).of(&image, &mut random);
            let broker = open(&again, point).unwrap();
            check(&broker, acknowledged, &format!("{context}, again"));
            broker.close().unwrap();
        }
    }
}

/// A partition that begins at the highest offset of all takes one record, and none begins above.
#[test]
fn the_highest_beginning_takes_a_record() {
    let broker = open(&SimulatedDisk::new(), 7).unwrap();
    let create =
        |name, begin| broker.admin().create_topic_at(name, TopicConfig::new(1), [(0, begin)]);
    let refused = create("above", OFFSET_MAX);
    assert!(matches!(&refused, Err(Error::Config(_))), "no record can have it: {refused:?}");
    let highest = OFFSET_MAX - 1;
    let message = refused.unwrap_err().to_string();
    assert!(message.contains(&format!("the highest is {highest}")), "{message}");
    let partition = create("highest", highest).unwrap().partition(0).unwrap();
    assert_eq!(partition.append(&Record::new().value("v")).unwrap(), highest);
    assert!(matches!(partition.append(&Record::new()), Err(Error::OffsetExhausted { .. })));
}

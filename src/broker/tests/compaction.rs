//! Compactions of a broker, stopped at every store point.

use std::collections::BTreeMap;

use super::model::{Crash, clock, open, open_at};
use crate::broker::Broker;
use crate::clock::ManualClock;
use crate::config::{Cleanup, Durability, TopicConfig};
use crate::random::Random;
use crate::record::Record;
use crate::storage::disk::{PowerCut, SimulatedDisk};
use std::time::Duration;

const RETENTION: Duration = Duration::from_secs(60);

/// What was acknowledged: of each key its last offset, and whether it is a tombstone.
pub(super) type Latest = BTreeMap<String, (u64, bool)>;

/// Sends, compacts, lets the tombstones' time go by, and compacts again.
pub(super) fn live(
    disk: &SimulatedDisk,
    clock: &ManualClock,
    latest: &mut Latest,
) -> crate::Result<()> {
    let broker = open_at(disk, 7, Durability::Sync, clock)?;
    let config = TopicConfig::new(1).cleanup(Cleanup::Compact).segment_bytes(16 << 10);
    let config = config.tombstone_retention(RETENTION).min_dirty_ratio(1.0);
    let partition = broker.ensure_topic("t", config)?.partition(0)?;
    for round in 0..2_u64 {
        for number in 0..24_u64 {
            let key = format!("k{}", (number * 5 + round) % 9);
            let value = "v".repeat(1_500);
            let is_tombstone = number % 4 == 3;
            let record = Record::new().key(&key);
            let record = if is_tombstone { record.tombstone() } else { record.value(&value) };
            let offset = partition.append(&record)?;
            latest.insert(key, (offset, is_tombstone));
        }
        broker.admin().compact_now("t")?;
        clock.advance(RETENTION);
        broker.admin().compact_now("t")?;
    }
    drop(partition);
    broker.close()
}

/// An acknowledged latest record is there, or a later one of the key, which the crash cut short;
/// what an acknowledged tombstone has deleted is not there without it.
pub(super) fn check(broker: &Broker, latest: &Latest, context: &str) {
    for partition in &broker.recovery().partitions {
        assert!(partition.corrupt.is_empty(), "{context}: {partition:?}");
    }
    let partition = match broker.topic("t") {
        Ok(topic) => topic.partition(0).unwrap(),
        Err(_) => return assert!(latest.is_empty(), "{context}: the topic is missing"),
    };
    let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut next = partition.log_start_offset();
    loop {
        let batch = partition.read(next, 1 << 20).unwrap();
        if batch.is_empty() {
            break;
        }
        for message in batch.iter() {
            assert!(message.offset() >= next, "{context}: order");
            next = message.next_offset();
            let key = String::from_utf8(message.key().unwrap().to_vec()).unwrap();
            found.entry(key).or_default().push(message.offset());
        }
    }
    for (key, (offset, is_tombstone)) in latest {
        let offsets = found.get(key).map_or(&[][..], Vec::as_slice);
        if !offsets.iter().any(|found| found >= offset) {
            assert!(is_tombstone, "{context}: {key} at {offset} is lost, there is {offsets:?}");
            assert!(offsets.is_empty(), "{context}: {key} is back at {offsets:?}");
        }
    }
}

/// A15 to A18 with everything around: the catalog, recovery points, a clean end.
#[test]
fn row_a15_a18_a_broker_that_is_stopped_while_it_compacts_keeps_the_latest_of_each_key() {
    let whole = SimulatedDisk::new();
    live(&whole, &clock(), &mut Latest::new()).unwrap();
    let points = whole.store_points();
    for point in 0..points {
        let disk = SimulatedDisk::new();
        disk.crash_at(point);
        let mut latest = Latest::new();
        let time = clock();
        assert!(live(&disk, &time, &mut latest).is_err());
        let mut random = Random::new(point);
        let any = PowerCut::any(&mut || random.next());
        for crash in [Crash::Kill, Crash::Cut(PowerCut::WORST), Crash::Cut(any)] {
            let context = format!("store point {point} of {points}, {crash:?}");
            let image = crash.of(&disk, &mut random);
            let broker = open(&image, point).unwrap_or_else(|e| panic!("{context}: {e:?}"));
            check(&broker, &latest, &context);
            if broker.topic("t").is_ok() {
                broker.admin().compact_now("t").unwrap();
                check(&broker, &latest, &format!("{context}, compacted"));
            }
            broker.close().unwrap();
            let again = Crash::Cut(PowerCut::WORST).of(&image, &mut random);
            let broker = open(&again, point).unwrap();
            check(&broker, &latest, &format!("{context}, again"));
        }
    }
}

//! `__offsets` as a member of a replicated group has it: what `__local` says of it is true when it is
//! truncated, or begins anew.

use super::model::{clock, open_at};
use std::path::Path;
use std::sync::Arc;

use crate::broker::Broker;
use crate::broker::catalog::{CatalogChange, MembersEntry};
use crate::broker::internal_logs::OFFSETS;
use crate::broker::replicated_logs::ReplicatedLog;
use crate::config::{Durability, TopicConfig};
use crate::error::{Error, Result};
use crate::storage::disk::SimulatedDisk;
use crate::{Offsets, Record, TopicPartition};

fn open(disk: &SimulatedDisk, seed: u64) -> Result<Broker> {
    open_at(disk, seed, Durability::Sync, &clock())
}

fn log(broker: &Broker) -> ReplicatedLog<'_> {
    ReplicatedLog::offsets(broker.run().logs())
}

fn end(broker: &Broker) -> u64 {
    log(broker).state().partition().log_end()
}

/// A broker that was closed after some commits, and opened again: it is known how far its logs were
/// on stable storage.
fn with_commits(disk: &SimulatedDisk) -> Broker {
    let broker = open(disk, 1).unwrap();
    let topic = broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    topic.partition(0).unwrap().append_batch(&vec![Record::new().value("v"); 9]).unwrap();
    let mut consumer = broker.consumer("g").subscribe(["t"]).open().unwrap();
    for offset in 1..9 {
        consumer
            .commit_offsets(&Offsets::from([(TopicPartition::from(("t", 0)), offset)]))
            .unwrap();
    }
    drop((topic, consumer));
    broker.close().unwrap();
    open(disk, 2).unwrap()
}

fn committed(broker: &Broker) -> Option<u64> {
    let topic = broker.run().topic("t").unwrap().id;
    broker.run().coordinator().offsets().committed("g", topic, 0).map(|it| it.offset)
}

/// Symptom: after a truncation the next opening failed with `Corrupt`, because the log did not reach
/// the end that was on stable storage.
// RED: src/broker/replicated_logs.rs
//   - self.local.append_durably(vec![LocalChange::Synced { own: self.id, end }])?;
#[test]
fn a_log_that_was_truncated_opens_again() {
    let disk = SimulatedDisk::new();
    let broker = with_commits(&disk);
    assert_eq!(committed(&broker), Some(8));
    log(&broker).state().join();
    let meta = ReplicatedLog::meta(broker.run().logs());
    let (ours, theirs) = (log(&broker).state().partition(), meta.state().partition());
    assert_eq!((&*ours.origin.topic, &*theirs.origin.topic), ("__offsets", "__meta"));
    let cut = end(&broker) - 3;
    assert_eq!(log(&broker).truncate(cut, cut - 1).unwrap(), cut);
    let found = committed(&broker);
    assert!(found.is_some_and(|found| found < 8), "{found:?}");
    drop(broker);
    for seed in 3..5 {
        let disk = disk.kill9();
        let broker = open(&disk, seed).unwrap();
        assert_eq!((end(&broker), committed(&broker)), (cut, found));
    }
}

/// Symptom: the next opening failed, because the log had lost its head; or the one after it, because
/// the note had been taken for that of a topic that does not exist.
// RED: src/broker/replicated_logs.rs
//   - self.local.append_whole(lower.into_iter().chain([noted]).collect())?;
//   + let _ = (lower, noted);
// RED: src/broker/open.rs
//   - live.extend([META.1, OFFSETS.1]);
// RED: src/broker/log_opener.rs
//   - let anew_at = local.read(|local| local.log_starts.get(&(id, 0)).copied().unwrap_or(0));
//   + let anew_at = 0;
#[test]
fn a_log_that_begins_anew_opens_again_and_knows_that_it_is_not_whole() {
    let disk = SimulatedDisk::new();
    let broker = with_commits(&disk);
    log(&broker).state().join();
    assert_eq!(log(&broker).begin_anew(1_000).unwrap(), 1_000);
    assert!(!log(&broker).state().is_whole());
    drop(broker);
    let mut disk = disk.kill9();
    for seed in 3..6 {
        let broker = open(&disk, seed).unwrap();
        assert_eq!((end(&broker), committed(&broker)), (1_000, None));
        assert!(!log(&broker).state().is_whole());
        assert!(broker.recovery().partitions.iter().all(|found| found.corrupt.is_empty()));
        let noted =
            broker.run().logs().local().read(|it| it.log_starts.get(&(OFFSETS.1, 0)).copied());
        assert_eq!(noted, Some(1_000));
        drop(broker);
        disk = disk.kill9();
    }
}

/// Symptom: the next opening failed with `Corrupt`. The log that began anew had ended above the offset, with
/// other records than its leader, and was taken for one that had lost its end.
// RED: src/broker/replicated_logs.rs
//   - let lower = lower.map(|_| LocalChange::Synced { own, end: offset });
//   + let lower = lower.filter(|_| false).map(|_| LocalChange::Synced { own, end: offset });
#[test]
fn a_log_that_begins_anew_below_its_end_opens_again() {
    let disk = SimulatedDisk::new();
    let broker = with_commits(&disk);
    log(&broker).state().join();
    let start = end(&broker) - 3;
    assert_eq!(log(&broker).begin_anew(start).unwrap(), start);
    drop(broker);
    let broker = open(&disk.kill9(), 3).unwrap();
    assert_eq!((end(&broker), committed(&broker)), (start, None));
}

/// What a broker without replication writes would not be in the logs of the other members.
// RED: src/broker/log_opener.rs
//   - self.check_group(catalog)?;
#[test]
fn a_directory_of_a_group_is_not_written_to_without_replication() {
    let disk = SimulatedDisk::new();
    let broker = with_commits(&disk);
    let members = MembersEntry { group: 1, directories: vec![(1, 5)] };
    let catalog = broker.run().logs().catalog();
    catalog.append_durably(vec![CatalogChange::Members(members)]).unwrap();
    broker.close().unwrap();
    let before = disk.store_points();
    let refused = open(&disk, 3).err();
    assert!(matches!(&refused, Some(Error::Config(_))), "{refused:?}");
    let reason = refused.unwrap().to_string();
    assert!(reason.contains("read_only(true)") && reason.contains("salvage"), "{reason}");
    assert_eq!(disk.store_points(), before, "something was written");
    let read_only = Broker::builder().disk(Arc::new(disk.clone()), Path::new("/srv/data"));
    let broker = read_only.read_only(true).open().unwrap();
    assert!(broker.admin().verify("t").unwrap().is_ok());
    assert_eq!(broker.topic("t").unwrap().partition(0).unwrap().log_end_offset(), 9);
}

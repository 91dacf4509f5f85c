//! Topics that are deleted while they are used: what those who use them get.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use super::model::{clock, open, open_on};
use crate::broker::Broker;
use crate::config::{CommitMode, Durability, TopicConfig};
use crate::error::Error;
use crate::record::{Record, TopicPartition};
use crate::storage::disk::{Fault, HookedDisk, Operation, Side, SimulatedDisk};
use crate::sync::Mutex;

/// A deletion of which nobody knows whether it happened: what waits for the disk then may be there
/// at the next opening, so it must not get the definite `UnknownTopic`.
// RED: src/broker/topics.rs
//   - partition.close_deleted(unsure.cloned());
//   + partition.close_deleted(None);
#[test]
fn row_j20_who_waits_during_a_deletion_of_unknown_outcome_has_an_unknown_outcome() {
    let disk = SimulatedDisk::new();
    let broker = open(&disk, 1).unwrap();
    let topic = broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    let partition = topic.partition(0).unwrap();
    let delivery = broker.producer().enqueue(Record::to("t").value("waits")).unwrap();
    disk.inject(Fault::once(Operation::Sync, ErrorKind::Other).on("__meta"));
    let deleted = broker.admin().delete_topic("t").unwrap_err();
    assert!(matches!(deleted, Error::SyncFailed { .. }), "{deleted:?}");
    let waited = delivery.wait().unwrap_err();
    assert!(matches!(waited, Error::SyncFailed { .. }) && !waited.is_definite(), "{waited:?}");
    // What comes later is not appended, for sure.
    let appended = partition.append(&Record::new().value("late")).unwrap_err();
    assert!(matches!(appended, Error::UnknownTopic(_)), "{appended:?}");
}

/// A disk before whose next operation of this kind the topic "gone" is deleted, once the broker is
/// put in.
fn deleting_at(
    deleted_at: Operation,
    disk: &SimulatedDisk,
) -> (HookedDisk, Arc<Mutex<Option<Broker>>>) {
    let armed: Arc<Mutex<Option<Broker>>> = Arc::default();
    let hooked = Arc::clone(&armed);
    let disk = HookedDisk::new(Arc::new(disk.clone()), move |operation, side| {
        if (operation, side) != (deleted_at, Side::Before) {
            return;
        }
        // Not under the lock: the deletion does the same operation, too.
        let armed = hooked.lock().take();
        if let Some(broker) = armed {
            broker.admin().delete_topic("gone").unwrap();
        }
    });
    (disk, armed)
}

/// Symptom: a consumer in auto mode that was closed while one of its topics was deleted committed
/// nothing, also of the others: their records were delivered again. Cause: the commit of all of its
/// partitions was refused for the one. Rule: auto mode commits what can be committed.
// RED: src/consumer/commit.rs
//   - if !matches!(committed, Err(Error::Rebalanced { .. } | Error::UnknownTopic(_))) {
//   + if true {
#[test]
fn a_topic_that_is_deleted_during_a_close_keeps_no_other_from_being_committed() {
    for is_member in [true, false] {
        let (disk, armed) = deleting_at(Operation::Sync, &SimulatedDisk::new());
        let broker = open_on(Arc::new(disk), 1, Durability::Sync, &clock()).unwrap();
        for name in ["gone", "stays"] {
            let config = TopicConfig::new(1).durability(Durability::Os);
            broker.ensure_topic(name, config).unwrap();
            broker.producer().send(Record::to(name).value("x")).unwrap();
        }
        // So that the only sync which the commit waits for is that of the other topic.
        broker.run().topic("gone").unwrap().partition(0).unwrap().flush().unwrap();
        let builder = broker.consumer("g").commit(CommitMode::Auto { every: Duration::MAX });
        let both = ["gone", "stays"].map(|name| TopicPartition::from((name, 0)));
        let builder =
            if is_member { builder.subscribe(["gone", "stays"]) } else { builder.assign(both) };
        let mut consumer = builder.open().unwrap();
        let polls = [(); 3].map(|()| consumer.poll(Duration::ZERO).unwrap().len());
        assert_eq!(polls.iter().sum::<usize>(), 2);

        *armed.lock() = Some(broker.clone());
        let closed = consumer.close();
        assert!(armed.lock().is_none(), "the commit did not wait for its records");
        assert!(closed.is_ok(), "{is_member} {closed:?}");
        let next = broker.consumer("g").subscribe(["stays"]).open().unwrap();
        assert_eq!(next.committed(("stays", 0)).unwrap(), Some(1), "{is_member}");
    }
}

/// A topic that is deleted while a consumer opens one of its files: the plan of a group takes it
/// away from a member, whose iteration must not end for it; a consumer by hand learns of it.
// RED: src/consumer/slots.rs
//   - if slot.core().is_closed() && is_member {
//   + if false {
#[test]
fn row_j20_a_member_continues_when_a_topic_is_deleted_under_its_read() {
    for is_member in [true, false] {
        let disk = SimulatedDisk::new();
        let broker = open(&disk, 1).unwrap();
        for name in ["gone", "stays"] {
            broker.ensure_topic(name, TopicConfig::new(1).segment_bytes(16 << 10)).unwrap();
            for _ in 0..10 {
                broker.producer().send(Record::to(name).value(&[7; 3_000])).unwrap();
            }
        }
        broker.close().unwrap();

        let (disk, armed) = deleting_at(Operation::Open, &disk);
        let broker = open_on(Arc::new(disk), 2, Durability::Sync, &clock()).unwrap();
        let mut consumer = if is_member {
            broker.consumer("g").subscribe(["gone", "stays"]).open().unwrap()
        } else {
            let both = ["gone", "stays"].map(|name| TopicPartition::from((name, 0)));
            broker.reader().assign(both).open().unwrap()
        };
        *armed.lock() = Some(broker.clone());
        let (mut read, mut errors) = (0, Vec::new());
        for _ in 0..100 {
            match consumer.poll(Duration::ZERO) {
                Ok(batch) => read += batch.iter().filter(|it| it.topic() == "stays").count(),
                Err(error) => errors.push(error),
            }
        }
        assert_eq!(read, 10, "{is_member} {errors:?}");
        assert!(armed.lock().is_none(), "no file was opened");
        match errors.as_slice() {
            [] => assert!(is_member),
            [Error::UnknownTopic(name), ..] => assert!(!is_member && name == "gone", "{errors:?}"),
            _ => panic!("{errors:?}"),
        }
    }
}

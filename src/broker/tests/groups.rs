//! Groups on a disk that refuses, and commits that come too late.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use super::model::{clock, open, open_at};
use crate::broker::Broker;
use crate::config::{CommitMode, Durability, StartAt, TopicConfig};
use crate::error::Error;
use crate::group::commit::{Commit, Ready, Wait};
use crate::record::{Offsets, Record, TopicPartition};
use crate::storage::disk::{Fault, Operation, PowerCut, SimulatedDisk};

const NOW: Duration = Duration::ZERO;

fn filled(disk: &SimulatedDisk, partitions: u32) -> Broker {
    let broker = open_at(disk, 1, Durability::Sync, &clock()).unwrap();
    let topic = broker.ensure_topic("t", TopicConfig::new(partitions)).unwrap();
    for number in 0..partitions {
        let records = vec![Record::new().value("v"); 4];
        topic.partition(number).unwrap().append_batch(&records).unwrap();
    }
    broker
}

/// A member that has to give partitions up gives them up, also when what it wants to commit before
/// cannot be stored: the error is the poll's, and the next owner reads again.
#[test]
fn a_failed_auto_commit_does_not_hold_up_a_rebalance() {
    let disk = SimulatedDisk::new();
    let broker = filled(&disk, 2);
    let auto = CommitMode::Auto { every: Duration::from_secs(3_600) };
    let open_member = || broker.consumer("g").subscribe(["t"]).commit(auto).open().unwrap();
    let mut a = open_member();
    assert_eq!(a.poll(NOW).unwrap().len(), 8);
    let mut b = open_member();
    disk.inject(Fault::always(Operation::Write, ErrorKind::Other).on("__offsets"));
    let failed = a.poll(NOW);
    assert!(matches!(failed, Err(Error::Io { .. })), "{failed:?}");
    assert_eq!(a.assignment().len(), 1, "not given up");
    assert_eq!(b.poll(NOW).unwrap().len(), 4, "read again by the next owner");
    disk.heal();
    assert!(a.poll(NOW).unwrap().is_empty());
    a.close().unwrap();
    b.close().unwrap();
}

/// What was acknowledged after a group has begun at the end is the group's, also when the power
/// goes before it has committed anything, and where the topic was still empty.
// RED: src/consumer/subscription.rs
//   - stored.settle(if self.must_keep_start() { self.level() } else { Wait::No })
//   + stored.settle(Wait::No)
#[test]
fn row_j21_where_a_group_begins_is_durable_before_its_first_poll() {
    for records in [0, 3] {
        let disk = SimulatedDisk::new();
        let broker = open_at(&disk, 1, Durability::Sync, &clock()).unwrap();
        broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
        let send = || broker.producer().send(Record::to("t").value("v")).unwrap();
        for _ in 0..records {
            send();
        }
        let latest = |broker: &Broker| {
            broker.consumer("g").subscribe(["t"]).start(StartAt::Latest).open().unwrap()
        };
        let begun = latest(&broker);
        send();
        let disk = disk.power_cut(&mut || 0, PowerCut::WORST);
        drop((begun, broker));
        let broker = open_at(&disk, 2, Durability::Sync, &clock()).unwrap();
        assert_eq!(latest(&broker).poll(NOW).unwrap().len(), 1, "behind {records}");
    }
}

/// A commit that adds nothing to one that did not wait for the disk waits for the disk itself: for
/// the records, and for the commit that is there.
// RED: src/group/commit.rs
//   - Wait::ForDisk => Rule::CommitSync.keep(|| log.wait_durable(self.end))?,
//   + Wait::ForDisk => {}
#[test]
fn a_commit_that_repeats_one_which_did_not_wait_is_durable() {
    let disk = SimulatedDisk::new();
    let broker = open_at(&disk, 1, Durability::Sync, &clock()).unwrap();
    let config = TopicConfig::new(1).durability(Durability::Os);
    let topic = broker.ensure_topic("t", config.clone()).unwrap();
    topic.partition(0).unwrap().append(&Record::new().value("v")).unwrap();
    let mut consumer = broker.consumer("g").subscribe(["t"]).open().unwrap();
    assert_eq!(consumer.poll(NOW).unwrap().len(), 1);
    consumer.commit_soon().unwrap();
    let end = broker.run().coordinator().offsets().partition().log_end();
    consumer.commit().unwrap();
    assert_eq!(broker.run().coordinator().offsets().partition().log_end(), end, "stored twice");
    let disk = disk.power_cut(&mut || 0, PowerCut::WORST);
    drop((consumer, broker));
    let broker = open_at(&disk, 2, Durability::Sync, &clock()).unwrap();
    let mut consumer = broker.consumer("g").subscribe(["t"]).open().unwrap();
    assert_eq!(consumer.committed(("t", 0)).unwrap(), Some(1));
    assert!(consumer.poll(NOW).unwrap().is_empty(), "neither read again nor cut off");
}

/// A commit that stores nothing, because the member has made it before, succeeded on a log whose
/// sync had failed: what was stored before may be lost.
#[test]
fn a_commit_that_repeats_one_notices_a_failed_log() {
    let disk = SimulatedDisk::new();
    let broker = open_at(&disk, 1, Durability::Os, &clock()).unwrap();
    let topic = broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    topic.partition(0).unwrap().append(&Record::new().value("v")).unwrap();
    let mut consumer = broker.consumer("g").subscribe(["t"]).open().unwrap();
    assert_eq!(consumer.poll(NOW).unwrap().len(), 1);
    consumer.commit_soon().unwrap();
    disk.inject(Fault::always(Operation::Sync, ErrorKind::Other).on("__offsets"));
    broker.flush().unwrap_err();
    disk.heal();
    let refused = consumer.commit_soon();
    assert!(matches!(refused, Err(Error::Poisoned { .. })), "{refused:?}");
    let refused = consumer.commit();
    assert!(matches!(refused, Err(Error::Poisoned { .. })), "{refused:?}");
}

/// Where the group begins must be kept, or the next owner could begin elsewhere; only the log start
/// is where it is.
#[test]
fn a_group_that_cannot_keep_where_it_begins_does_not_begin() {
    let disk = SimulatedDisk::new();
    let broker = filled(&disk, 1);
    disk.inject(Fault::always(Operation::Write, ErrorKind::Other).on("__offsets"));
    let open = |start| broker.consumer("g").subscribe(["t"]).start(start).open();
    let refused = open(StartAt::Latest);
    assert!(matches!(refused, Err(Error::Io { .. })), "{refused:?}");
    assert_eq!(open(StartAt::Earliest).unwrap().poll(NOW).unwrap().len(), 4);
    disk.heal();
    assert_eq!(open(StartAt::Latest).unwrap().position(("t", 0)), Some(4));
}

/// A commit that was checked before the topic was deleted, and comes to be stored after it.
#[test]
fn a_commit_that_comes_after_the_end_of_its_topic_is_not_stored() {
    let disk = SimulatedDisk::new();
    let broker = filled(&disk, 1);
    let topic = broker.run().topic("t").unwrap();
    broker.admin().delete_topic("t").unwrap();
    let commit = Commit::at(&topic.partitions[0], topic.id, 2);
    let commit = Ready::all(vec![commit], Wait::No).unwrap();
    let group = Arc::from("g");
    let refused = broker.run().coordinator().commit(&group, &commit);
    assert!(matches!(&refused, Err(Error::UnknownTopic(name)) if name == "t"), "{refused:?}");
    assert_eq!(broker.run().coordinator().offsets().committed("g", topic.id, 0), None);
}

/// The same for an administrator's reset, also of a group that has no commit for the topic left.
#[test]
fn a_reset_that_comes_after_the_end_of_its_topic_is_not_stored() {
    let disk = SimulatedDisk::new();
    let broker = filled(&disk, 1);
    broker.ensure_topic("other", TopicConfig::new(1)).unwrap();
    let mut other = broker.consumer("g").assign([("other", 0)]).open().unwrap();
    other.commit_offsets(&Offsets::from([(TopicPartition::from(("other", 0)), 0)])).unwrap();
    let topic = broker.run().topic("t").unwrap();
    broker.admin().delete_topic("t").unwrap();
    let commit = Commit::at(&topic.partitions[0], topic.id, 2);
    let commit = Ready::all(vec![commit], Wait::No).unwrap();
    let coordinator = broker.run().coordinator();
    let refused = coordinator.reset("g", &commit);
    assert!(matches!(&refused, Err(Error::UnknownTopic(name)) if name == "t"), "{refused:?}");
    assert_eq!(coordinator.offsets().committed("g", topic.id, 0), None);
}

/// After a power cut nothing says that the static members have left, and each finds what it had.
#[test]
fn static_members_are_waited_for_after_a_crash() {
    let disk = SimulatedDisk::new();
    let broker = filled(&disk, 4);
    let member = |broker: &Broker, name: &str| {
        broker.consumer("g").subscribe(["t"]).instance_id(name).open().unwrap()
    };
    let mut a = member(&broker, "a");
    let mut b = member(&broker, "b");
    for _ in 0..2 {
        a.poll(NOW).unwrap();
        b.poll(NOW).unwrap();
    }
    let (had_a, had_b) = (a.assignment(), b.assignment());
    // A durable commit makes all before it durable, and with it what the two own.
    a.commit_offsets(&Offsets::from([(had_a[0].clone(), 1)])).unwrap();
    let image = disk.kill9();
    drop((a, b, broker));
    let broker = open(&image, 2).unwrap();
    assert_eq!(member(&broker, "b").assignment(), had_b);
    assert_eq!(member(&broker, "a").assignment(), had_a);
}

//! Syncs of which the other members of a replicated group are informed.

use super::*;
use crate::partition::leadership::{Leadership, LeadershipTerms};
use crate::partition::replica::Replica;

const TERMS: LeadershipTerms =
    LeadershipTerms { ack_timeout: SECOND, max_uncommitted_bytes: u64::MAX };

/// A broker that leads its group, with a topic, and its leadership. Nothing that a majority has to have
/// may be waited for.
fn leading() -> (Broker, Arc<PartitionCore>, Arc<Leadership>) {
    let disk = SimulatedDisk::with_seed(1);
    let builder = || {
        let disk = Arc::new(disk.clone());
        Broker::builder().disk(disk, Path::new("/srv/data")).background(false).seed(1)
    };
    let alone = builder().open().unwrap();
    alone.ensure_topic("t", TopicConfig::new(1)).unwrap();
    alone.close().unwrap();
    let leadership = Arc::new(Leadership::new(TERMS));
    let broker = builder().leadership(Arc::clone(&leadership)).open().unwrap();
    let core = Arc::clone(broker.run().topic("t").unwrap().partition(0).unwrap());
    Replica::of(&core).set_epoch(1).unwrap();
    broker.run().leading().begin(1);
    (broker, core, leadership)
}

/// Symptom: tasks that waited for a sync waited for the transport too. Cause: a helper announced what it
/// had synced while it still counted as at work on the partition, so the next sync was put behind it
/// although other helpers were idle.
// RED: src/broker/workers/syncs.rs
//   - let _ = partition.flusher().flush_for_announcement();
//   + let _ = partition.flusher().flush_for_announcement();
//   + partition.flusher().announce();
// RED: src/broker/workers/syncs.rs
//   - done.and_then(|()| foreign::call(|| partition.flusher().announce()))
//   + done
#[test]
fn a_partition_can_be_synced_while_its_last_sync_is_announced() {
    let (broker, core, leadership) = leading();
    let syncs = Arc::new(Syncs::new());
    let seen = Arc::new(Mutex::new(Vec::new()));
    // Not joined: the test is the helper.
    let ask = |syncs: &Syncs, core: &Arc<PartitionCore>| {
        syncs.ask((Arc::clone(core), For::Waiters), &|| Ok(std::thread::spawn(|| {})));
    };
    let (others, partition, noted) = (Arc::clone(&syncs), Arc::clone(&core), Arc::clone(&seen));
    leadership.set_announcer(Box::new(move || {
        ask(&others, &partition);
        noted.lock().push(others.take_now().is_some());
    }));
    let delivery = broker.producer().enqueue(Record::to("t").value("x")).unwrap();
    leadership.take_changed();
    ask(&syncs, &core);
    syncs.sync(syncs.take_now().unwrap()).unwrap();
    assert_eq!(core.durable_end(), 1);
    assert_eq!(*seen.lock(), [true]);
    drop(delivery);
}

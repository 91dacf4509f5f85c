//! Calls of a member whose disk fails.

use std::path::Path;
use std::sync::mpsc::{Receiver, channel};

use super::*;
use crate::config::TopicConfig;
use crate::error::TransportError;
use crate::record::Record;
use crate::replication::{ReplicationEvent, Role};
use crate::storage::disk::SimulatedDisk;

const PATIENCE: Duration = Duration::from_secs(30);

/// Nobody else is there.
struct Nobody;

impl Transport for Nobody {
    fn send(&self, _: NodeId, _: Frame) -> Result<(), TransportError> {
        Err(TransportError::Unreachable)
    }
}

/// A group of one, which leads epoch 1 and has a topic, and the events of its member.
fn leader(disk: &SimulatedDisk) -> (Broker, ReplicationHandle, Receiver<ReplicationEvent>) {
    let (sender, events) = channel();
    let replication = Replication::new(NodeId(1), [NodeId(1)], Arc::new(Nobody))
        .on_event(move |event| drop(sender.send(event.clone())));
    let disk = Arc::new(disk.clone());
    let builder = Broker::builder().disk(disk, Path::new("/srv/data")).seed(1);
    let broker = builder.replication(replication).open().unwrap();
    let member = broker.replication().unwrap();
    member.lead(LeaderEpoch(1)).unwrap();
    member.wait_leading(PATIENCE).unwrap();
    broker.ensure_topic("orders", TopicConfig::new(1)).unwrap();
    (broker, member, events)
}

/// They returned `Ok`, the member still led, and a send waited for its time-out.
// RED: src/replication/beside.rs
//   - check(driver).map(|()| result)
//   + Ok(result)
// RED: src/replication/shell.rs
//   - leadership.note_leader(None);
#[test]
fn a_call_during_which_the_disk_fails_returns_the_error_and_ends_the_leadership() {
    type Call = fn(&ReplicationHandle) -> Result<()>;
    let calls: [Call; 2] = [
        |member| member.lead(LeaderEpoch(2)),
        |member| member.force_lead(LeaderEpoch(2)).map(drop),
    ];
    for call in calls {
        let disk = SimulatedDisk::with_seed(1);
        let (broker, member, events) = leader(&disk);
        disk.crash_at(disk.store_points());
        let failed = call(&member);
        assert!(matches!(failed, Err(Error::Io { .. } | Error::SyncFailed { .. })), "{failed:?}");
        let status = member.status();
        assert_eq!((status.role, status.leader, status.may_write), (Role::Follower, None, false));
        assert!(status.failure.is_some());
        let refused = broker.producer().send(Record::to("orders").value("x"));
        assert!(matches!(refused, Err(Error::NotLeader { leader: None })), "{refused:?}");
        // Later calls do not wait for what will not come.
        for later in [call(&member), member.confirm(), member.wait_leading(PATIENCE)] {
            let is_failure = matches!(&later, Err(it) if !matches!(it, Error::Timeout));
            assert!(is_failure, "{later:?}");
        }
        let mut lost = false;
        while let Ok(event) = events.recv_timeout(PATIENCE) {
            lost |= matches!(event, ReplicationEvent::LeadershipLost { .. });
            if matches!(event, ReplicationEvent::Failed(_)) {
                break;
            }
        }
        assert!(lost, "the end of the leadership was not reported");
    }
}

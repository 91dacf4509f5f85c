//! Calls of a member whose disk fails, or that panics.

use std::cell::Cell;
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
#[test]
fn a_call_during_which_the_disk_fails_returns_the_error_and_ends_the_leadership() {
    type Call = fn(&ReplicationHandle) -> Result<()>;
    let calls: [Call; 2] = [
        |member| member.lead(LeaderEpoch(2)),
        |member| {
            member.resign(None)?;
            member.force_lead(LeaderEpoch(2)).map(drop)
        },
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

thread_local! {
    /// The next sending on this thread panics.
    static TRAP: Cell<bool> = const { Cell::new(false) };
}

pub(super) fn spring() {
    assert!(!TRAP.replace(false), "in what makes frames");
}

/// Hands frames to the other one of two members.
#[derive(Default)]
struct Pair([OnceLock<ReplicationHandle>; 2]);

struct End(Arc<Pair>, NodeId);

impl Transport for End {
    fn send(&self, to: NodeId, frame: Frame) -> Result<(), TransportError> {
        let to = usize::try_from(to.0).ok().and_then(|at| self.0.0.get(at)?.get());
        to.map_or(Err(TransportError::Unreachable), |to| {
            to.receive(self.1, frame).map_err(TransportError::new)
        })
    }
}

/// Two members, of which the first leads and has a topic at `Os`.
fn pair() -> [Broker; 2] {
    let pair = Arc::new(Pair::default());
    let nodes = [NodeId(0), NodeId(1)];
    let brokers = [0, 1].map(|at| {
        let transport = Arc::new(End(Arc::clone(&pair), nodes[at]));
        let replication = Replication::new(nodes[at], nodes, transport);
        assert!(pair.0[at].set(replication.handle()).is_ok());
        let disk = Arc::new(SimulatedDisk::with_seed(1));
        let builder = Broker::builder().disk(disk, Path::new("/srv/data")).seed(at as u64);
        builder.replication(replication).open().unwrap()
    });
    let member = brokers[0].replication().unwrap();
    member.lead(LeaderEpoch(1)).unwrap();
    member.wait_leading(PATIENCE).unwrap();
    let config = TopicConfig::new(1).durability(crate::config::Durability::Os);
    brokers[0].ensure_topic("orders", config).unwrap();
    brokers
}

/// The caller got the panic, and the member neither beat nor answered any more: it waited for the thread
/// that was sending.
// RED: src/replication/beside.rs
//   - if foreign::call(|| self.outside.deliver(self.me, output, &self.shared)).is_none() {
//   + self.outside.deliver(self.me, output, &self.shared);
//   + if false {
// RED: src/replication/beside.rs
//   - let _ = self.attempt(&mut running, fail);
#[test]
fn a_panic_in_what_is_sent_on_a_callers_thread_fails_the_member() {
    let [leader, _follower] = pair();
    let member = leader.replication().unwrap();
    TRAP.set(true);
    // The thread of the member may be at it, and then sends the record.
    let sent = (0..10_000).find_map(|_| {
        let sent = leader.producer().send(Record::to("orders").value("x"));
        (!TRAP.get()).then_some(sent)
    });
    let ended = matches!(sent, Some(Err(Error::LeadershipLost)));
    assert!(ended, "{sent:?}: {:?}", member.status());
    assert!(member.status().failure.is_some());
    let failed = member.lead(LeaderEpoch(2));
    assert!(matches!(failed, Err(Error::Io { .. })), "{failed:?}");
    leader.close().unwrap();
}

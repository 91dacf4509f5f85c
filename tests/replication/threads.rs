//! Which threads do the work of a member: those that wait for it, if they can.

use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use logpond::{
    Durability, Frame, FrameClass, NodeId, Record, Replication, TopicConfig, Transport,
    TransportError,
};

use crate::group::{Group, NODES, Network};

/// The threads on which members have sent records, or questions for them.
type Senders = Arc<Mutex<Vec<(NodeId, ThreadId)>>>;

struct Watched {
    from: NodeId,
    inner: Arc<dyn Transport>,
    senders: Senders,
}

impl Transport for Watched {
    fn send(&self, to: NodeId, frame: Frame) -> Result<(), TransportError> {
        if frame.class() == FrameClass::Data {
            self.senders.lock().unwrap().push((self.from, thread::current().id()));
        }
        self.inner.send(to, frame)
    }
}

/// Three members of which the first leads and has a topic at `Os`.
fn watched(network: &Network) -> (Group, Senders) {
    let (mut group, senders) = (Group::on(network.clone()), Senders::default());
    for from in NODES {
        let (inner, senders) = (network.of(from), Arc::clone(&senders));
        let transport = Arc::new(Watched { from, inner, senders });
        group.start_with(from, Replication::new(from, NODES, transport), |builder| builder);
    }
    group.lead(NODES[0], 1);
    group.wait_for_copies(NODES[0]);
    let config = TopicConfig::new(1).durability(Durability::Os);
    group.broker(NODES[0]).ensure_topic("orders", config).unwrap();
    (group, senders)
}

/// Sends records until this thread has sent data of the member `of`.
fn sends_here(group: &Group, senders: &Senders, of: NodeId) -> bool {
    let here = (of, thread::current().id());
    let producer = group.broker(NODES[0]).producer();
    // The member may be at work at that moment, and then sends them too.
    (0..500).any(|_| {
        producer.send(Record::to("orders").value("x")).unwrap();
        senders.lock().unwrap().drain(..).any(|it| it == here)
    })
}

/// It woke the thread of the member, and slept: two more changes of threads for each record.
// RED: src/topic/append.rs
//   - self.is_settled_at_once && !self.is_leader_enough
//   + false
#[test]
fn a_caller_sends_the_record_that_it_waits_for() {
    let (group, senders) = watched(&Network::default());
    assert!(sends_here(&group, &senders, NODES[0]));
    // One that waits for nobody does not.
    let producer = group.broker(NODES[0]).producer();
    senders.lock().unwrap().clear();
    for _ in 0..100 {
        drop(producer.enqueue(Record::to("orders").value("x")).unwrap());
    }
    producer.flush().unwrap();
    let here = thread::current().id();
    assert!(senders.lock().unwrap().iter().all(|(_, thread)| *thread != here));
}

/// A follower's answer is made on the thread that brings the question, if the transport allows that: here
/// the caller's, who sends it.
// RED: src/replication/handle.rs
//   - calls.take_arrived();
#[test]
fn a_thread_of_the_transport_does_what_a_frame_asks_for() {
    let (group, senders) = watched(&Network::at_once());
    assert!(sends_here(&group, &senders, NODES[1]));
}

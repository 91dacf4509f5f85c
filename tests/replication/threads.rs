//! Which threads do the work of a member: those that wait for it, if they can.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, ThreadId};
use std::time::{Duration, SystemTime};

use logpond::{
    Clock, Durability, Election, Error, Frame, FrameClass, LeaderEpoch, NodeId, Record,
    Replication, ReplicationEvent, SystemClock, TopicConfig, Transport, TransportError,
};

use crate::group::{Group, NODES, Network, PATIENCE, read_all, until, within};

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

/// What a thread that is held up says, and waits for.
struct Stop {
    /// Any, if none is named.
    meant: Option<ThreadId>,
    entered: Sender<()>,
    released: Receiver<()>,
}

struct Door(Mutex<Option<Stop>>);

impl Door {
    fn open() -> Self {
        Self(Mutex::new(None))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Stop>> {
        self.0.lock().unwrap()
    }

    /// Holds up the next thread that comes.
    fn hold_next(&self, entered: Sender<()>, released: Receiver<()>) {
        *self.lock() = Some(Stop { meant: None, entered, released });
    }

    /// Holds up this thread once, if it is the one that is meant.
    fn pass(&self) {
        let here = thread::current().id();
        let stop = self.lock().take_if(|stop| stop.meant.is_none_or(|meant| meant == here));
        if let Some(stop) = stop {
            stop.entered.send(()).unwrap();
            // Also by the end of the test.
            let _ = stop.released.recv();
        }
    }
}

struct Held {
    inner: Arc<dyn Transport>,
    door: Arc<Door>,
}

impl Transport for Held {
    fn send(&self, to: NodeId, frame: Frame) -> Result<(), TransportError> {
        if frame.class() == FrameClass::Data {
            self.door.pass();
        }
        self.inner.send(to, frame)
    }
}

/// The last signal, and the events of the end, were left to a thread that had ended.
// RED: src/replication/beside.rs
//   - && (reports || running.driver.is_none() || running.waiting.events.is_empty())
//   + && (reports || running.waiting.events.is_empty())
#[test]
fn a_thread_that_sends_while_the_broker_is_closed_sends_the_rest() {
    // Who is not asked to take over waits for longer than the test.
    let mut group = Group::on(Network::default());
    let settings = |node: NodeId, transport: Arc<dyn Transport>| {
        let election = Election { timeout: PATIENCE * 4 };
        let replication = Replication::new(node, NODES, transport);
        replication.heartbeat(Duration::from_millis(20)).elect(election)
    };
    let (door, (events, reported)) = (Arc::new(Door::open()), channel());
    let held = Held { inner: group.network.of(NODES[0]), door: Arc::clone(&door) };
    let leader = settings(NODES[0], Arc::new(held)).on_event(move |event| {
        let _ = events.send((thread::current().id(), event.clone()));
    });
    group.start_with(NODES[0], leader, |builder| builder);
    for node in [NODES[1], NODES[2]] {
        let replication = settings(node, group.network.of(node));
        group.start_with(node, replication, |builder| builder);
    }
    group.lead(NODES[0], 1);
    group.wait_for_copies(NODES[0]);
    let broker = group.broker(NODES[0]).clone();
    broker.ensure_topic("orders", TopicConfig::new(1).durability(Durability::Os)).unwrap();
    let (entered, is_held) = channel();
    let (release, released) = channel::<()>();
    let sending = broker.clone();
    let sender = thread::spawn(move || {
        *door.lock() = Some(Stop { meant: Some(thread::current().id()), entered, released });
        // The member may be at work, and then sends them itself.
        while door.lock().is_some() {
            let _ = sending.producer().send(Record::to("orders").value("x"));
        }
    });
    is_held.recv_timeout(PATIENCE).unwrap();
    group.stop(NODES[0]);
    let closed = within(move || broker.close());
    assert!(matches!(closed, Some(Ok(()))), "{closed:?}");
    release.send(()).unwrap();
    let here = sender.thread().id();
    sender.join().unwrap();
    let is_last = |(thread, event): &(ThreadId, ReplicationEvent)| {
        *thread == here && matches!(event, ReplicationEvent::LeadershipLost { .. })
    };
    assert!(reported.try_iter().any(|it| is_last(&it)), "the end was not reported");
    let next = group.leader();
    assert!(next != NODES[0], "nobody was asked to take over");
}

/// A clock that holds up the thread of the member, which has the member locked then.
struct Stalls(Arc<Door>);

impl Clock for Stalls {
    fn now(&self) -> SystemTime {
        SystemClock::new().now()
    }

    fn monotonic(&self) -> Duration {
        if thread::current().name() == Some("logpond-replica") {
            let door = &self.0;
            if let Some(stop) = &mut *door.lock() {
                stop.meant = Some(thread::current().id());
            }
            door.pass();
        }
        SystemClock::new().monotonic()
    }
}

/// A caller waited for the member, as long as its disk took, and looked at its own deadline only then.
// RED: src/replication/beside.rs
//   - let Some(mut running) = self.running.try_lock() else { return self.shared.inbox.call() };
//   + let mut running = self.running.lock();
#[test]
fn a_caller_does_not_wait_for_what_the_member_is_doing() {
    let mut group = Group::without_members(None);
    let door = Arc::new(Door::open());
    let replication = group.settings(NODES[0]).ack_timeout(Duration::from_millis(300));
    let clock = Stalls(Arc::clone(&door));
    group.start_with(NODES[0], replication, |builder| builder.clock(clock));
    group.start(NODES[1]);
    group.start(NODES[2]);
    group.lead(NODES[0], 1);
    let leader = group.broker(NODES[0]).clone();
    let config = TopicConfig::new(1).durability(Durability::Os);
    assert!(until(|| leader.ensure_topic("orders", config.clone()).ok()).is_some());
    let (entered, is_held) = channel();
    let (release, released) = channel::<()>();
    *door.lock() = Some(Stop { meant: Some(thread::current().id()), entered, released });
    is_held.recv_timeout(PATIENCE).unwrap();
    let sending = leader.clone();
    let sent = within(move || sending.producer().send(Record::to("orders").value("x")));
    release.send(()).unwrap();
    assert!(matches!(sent, Some(Err(Error::Timeout))), "{sent:?}");
}

/// Hands what one member says to a queue, and what the others say to the thread that says it.
struct OneWay {
    network: Network,
    from: NodeId,
    later: Sender<(NodeId, Frame)>,
}

impl Transport for OneWay {
    fn send(&self, to: NodeId, frame: Frame) -> Result<(), TransportError> {
        if self.from == NODES[0] {
            return self.network.of(self.from).send(to, frame);
        }
        self.later.send((self.from, frame)).map_err(|_| TransportError::Failed)
    }
}

/// It slept until the next beat: the thread that had run the member woke others only.
// RED: src/replication/handle.rs
//   - let has_runners = shows.runners > 0;
//   + let has_runners = false;
#[test]
fn a_call_that_runs_the_member_is_woken_when_another_thread_does() {
    let mut group = Group::on(Network::default());
    let (later, arrived) = channel();
    for node in NODES {
        let (network, later) = (group.network.clone(), later.clone());
        let transport = Arc::new(OneWay { network, from: node, later });
        // No beat, and no time-out, within the test's patience.
        let election = Election { timeout: PATIENCE * 16 };
        let replication = Replication::new(node, NODES, transport)
            .heartbeat(PATIENCE * 4)
            .elect(election)
            .ack_timeout(PATIENCE);
        group.start_with(node, replication, |builder| builder.background(node != NODES[0]));
    }
    let member = group.member(NODES[0]);
    let reads = member.clone();
    thread::spawn(move || {
        for (from, frame) in arrived {
            let _ = reads.receive_and_tick(from, frame);
        }
    });
    let led = within(move || {
        member.lead(LeaderEpoch(1))?;
        member.wait_leading(PATIENCE)?;
        // An answer may come before the caller sleeps.
        (0..200).try_for_each(|_| member.confirm())
    });
    assert!(matches!(led, Some(Ok(()))), "{led:?}");
}

/// A transport that blocks holds up its member, and no call for longer than that waits; what it was to
/// send is sent when it returns.
// RED: src/replication/beside.rs
//   - running.sender = None;
#[test]
fn a_transport_that_blocks_holds_up_no_call_for_ever_and_loses_nothing() {
    let mut group = Group::on(Network::default());
    let door = Arc::new(Door::open());
    let held = Held { inner: group.network.of(NODES[0]), door: Arc::clone(&door) };
    let replication = Replication::new(NODES[0], NODES, Arc::new(held))
        .heartbeat(Duration::from_millis(20))
        .ack_timeout(Duration::from_millis(300));
    group.start_with(NODES[0], replication, |builder| builder);
    group.start(NODES[1]);
    group.start(NODES[2]);
    group.lead(NODES[0], 1);
    let leader = group.broker(NODES[0]).clone();
    let config = TopicConfig::new(1).durability(Durability::Os);
    assert!(until(|| leader.ensure_topic("orders", config.clone()).ok()).is_some());
    leader.producer().send(Record::to("orders").value("before")).unwrap();
    group.wait_for_copies(NODES[0]);
    // The next thread that sends data.
    let (entered, is_held) = channel();
    let (release, released) = channel::<()>();
    door.hold_next(entered, released);
    let first = leader.clone();
    let sent = thread::spawn(move || first.producer().send(Record::to("orders").value("first")));
    is_held.recv_timeout(PATIENCE).unwrap();
    let member = group.member(NODES[0]);
    let calls = within(move || {
        let sent = leader.producer().send(Record::to("orders").value("second"));
        (sent.map(drop), member.status().role, member.confirm(), member.tick())
    });
    let Some((second, _, confirmed, ticked)) = calls else { panic!("a call waits for ever") };
    assert!(matches!(second, Err(Error::Timeout)), "{second:?}");
    assert!(matches!(confirmed, Err(Error::Timeout)), "{confirmed:?}");
    assert!(ticked.is_ok(), "{ticked:?}");
    release.send(()).unwrap();
    let _ = sent.join().unwrap();
    for node in NODES {
        let all = || read_all(group.broker(node), "orders");
        let is_there = || (all() == ["before", "first", "second"]).then_some(());
        assert!(until(is_there).is_some(), "{node}: {:?}", all());
    }
}

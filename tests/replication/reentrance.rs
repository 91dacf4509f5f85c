//! Code of the application that the member calls, and that calls the member.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, SystemTime};

use logpond::{
    Broker, Durability, Error, Frame, LeaderEpoch, ManualClock, NodeId, Record, Replication,
    ReplicationEvent, ReplicationHandle, TopicConfig, Transport, TransportError,
};

use crate::group::{Group, NODES, PATIENCE, until};

const A: NodeId = NODES[0];
const B: NodeId = NODES[1];
const C: NodeId = NODES[2];

/// Calls something before each frame that it sends.
struct Calling<F>(Arc<dyn Transport>, F);

impl<F: Fn() + Send + Sync + 'static> Transport for Calling<F> {
    fn send(&self, to: NodeId, frame: Frame) -> Result<(), TransportError> {
        (self.1)();
        self.0.send(to, frame)
    }
}

/// A group whose first member has this transport and this callback for events. It is called to lead.
fn led(
    background: bool,
    on_send: impl Fn() + Send + Sync + 'static,
    on_event: impl Fn(&ReplicationEvent) + Send + Sync + 'static,
) -> Group {
    let mut group = Group::without_members(None);
    group.start(B);
    group.start(C);
    let transport = Arc::new(Calling(group.network.of(A), on_send));
    let replication = Replication::new(A, NODES, transport)
        .heartbeat(std::time::Duration::from_millis(20))
        .on_event(on_event);
    group.start_with(A, replication, |builder| builder.background(background));
    group
}

/// Without background threads somebody ticks, until the broker is closed.
fn tick(background: bool, member: ReplicationHandle) {
    if !background {
        std::thread::spawn(move || until(|| member.tick().err()));
    }
}

/// A slot for a broker that code of the application closes.
type Slot = Arc<Mutex<Option<Broker>>>;

fn close(slot: &Slot, closed: &Sender<logpond::Result<()>>) {
    let broker = slot.lock().unwrap().take();
    if let Some(broker) = broker {
        closed.send(broker.close()).unwrap();
    }
}

/// `close` within `on_event` did not return.
#[test]
fn an_event_and_a_transport_may_close_the_broker() {
    for (background, by_event) in [(true, true), (true, false), (false, true), (false, false)] {
        let (slot, (closed, done)) = (Slot::default(), channel());
        let (closing, sent) = ((Arc::clone(&slot), closed.clone()), (Arc::clone(&slot), closed));
        let group = led(
            background,
            move || {
                if !by_event {
                    close(&sent.0, &sent.1);
                }
            },
            move |_| {
                if by_event {
                    close(&closing.0, &closing.1);
                }
            },
        );
        let member = group.member(A);
        *slot.lock().unwrap() = Some(group.broker(A).clone());
        // Sent, or refused because the broker is being closed.
        let _ = member.lead(LeaderEpoch(1));
        tick(background, member.clone());
        let closed = done.recv_timeout(PATIENCE);
        assert!(matches!(closed, Ok(Ok(()))), "{background}, {by_event}: {closed:?}");
        assert!(matches!(member.lead(LeaderEpoch(9)), Err(Error::Closed)));
    }
}

/// What the member was called with while it sent.
#[derive(Default)]
struct Called {
    member: OnceLock<ReplicationHandle>,
    count: AtomicUsize,
    wrong: Mutex<Vec<String>>,
}

impl Called {
    /// Each call has an effect, or a typed error, at once.
    fn call(&self) {
        let Some(member) = self.member.get() else { return };
        // Each of them has something sent.
        if self.count.fetch_add(1, Ordering::Relaxed) >= 30 {
            return;
        }
        let results = [
            ("tick", member.tick().is_ok()),
            ("lead", matches!(member.lead(LeaderEpoch(0)), Err(Error::Fenced { .. }))),
            (
                "confirm",
                matches!(member.confirm(), Err(Error::Config(_) | Error::NotLeader { .. })),
            ),
            ("wait", matches!(member.wait_leading(PATIENCE), Err(Error::Config(_)))),
            ("replace", matches!(member.replace_member(NodeId(9)), Err(Error::Config(_)))),
        ];
        let wrong = results.iter().filter(|(_, is_right)| !is_right);
        self.wrong.lock().unwrap().extend(wrong.map(|(name, _)| (*name).to_owned()));
    }
}

/// H18: a transport, or a callback, that calls its member.
// RED: src/replication/beside.rs
//   - if self.running.lock().sender == Some(here) {
//   + if false {
#[test]
fn row_h18_what_a_transport_calls_works_or_fails_at_once() {
    for background in [true, false] {
        let called = Arc::new(Called::default());
        let (by_send, by_event) = (Arc::clone(&called), Arc::clone(&called));
        let group = led(background, move || by_send.call(), move |_| by_event.call());
        let member = group.member(A);
        called.member.set(member.clone()).unwrap();
        member.lead(LeaderEpoch(1)).unwrap();
        tick(background, member.clone());
        let led = until(|| member.status().may_write.then_some(()));
        assert!(led.is_some(), "{background}: {:?}", member.status());
        let leader = group.broker(A);
        leader.ensure_topic("orders", TopicConfig::new(1)).unwrap();
        leader.producer().send(Record::to("orders").value("one")).unwrap();
        member.confirm().unwrap();
        assert!(until(|| (called.count.load(Ordering::Relaxed) >= 30).then_some(())).is_some());
        assert_eq!(*called.wrong.lock().unwrap(), Vec::<String>::new(), "{background}");
    }
}

/// It asked for a beat before it was refused, which was sent, with another call, and so on.
// RED: src/replication/handle.rs
//   - let _ = calls.must_run()?;
#[test]
fn a_confirmation_that_a_transport_asks_for_sends_nothing() {
    const FRAMES_MAX: usize = 10_000;
    let (sent, slot) = (Arc::new(AtomicUsize::new(0)), Arc::new(OnceLock::new()));
    let (counted, confirming) = (Arc::clone(&sent), Arc::clone(&slot));
    let confirm = move || {
        // Otherwise a test that fails would not end.
        if counted.fetch_add(1, Ordering::Relaxed) < FRAMES_MAX {
            let _ = confirming.get().map(ReplicationHandle::confirm);
        }
    };
    let mut group = Group::without_members(None);
    group.start(B);
    group.start(C);
    let transport = Arc::new(Calling(group.network.of(A), confirm));
    let replication = Replication::new(A, NODES, transport);
    // Its time stands still: it beats when it is called to lead, and says something when it is asked.
    let clock = ManualClock::new(SystemTime::UNIX_EPOCH);
    group.start_with(A, replication, |builder| builder.background(false).clock(clock.clone()));
    let member = group.member(A);
    member.lead(LeaderEpoch(1)).unwrap();
    let leads = || {
        member.tick().unwrap();
        member.status().may_write.then_some(())
    };
    assert!(until(leads).is_some(), "{:?}", member.status());
    slot.set(member.clone()).unwrap();
    let before = sent.load(Ordering::Relaxed);
    clock.advance(Duration::from_millis(100));
    for _ in 0..20 {
        member.tick().unwrap();
    }
    let sent = sent.load(Ordering::Relaxed) - before;
    assert!((2..100).contains(&sent), "{sent} frames");
}

/// A task whose waker runs it at once.
struct Inline<F>(F);

impl<F: Fn() + Send + Sync + 'static> Wake for Inline<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

/// The waker was called while the member was locked.
// RED: src/foreign.rs
//   - held.extend(waker.take());
#[test]
fn a_waker_may_call_the_member() {
    let group = Group::led();
    let leader = group.broker(A);
    // Nothing waits for the disk: the member wakes the task.
    let config = TopicConfig::new(1).durability(Durability::Os);
    leader.ensure_topic("orders", config).unwrap();
    let calls: [fn(&ReplicationHandle) -> logpond::Result<()>; 3] = [
        ReplicationHandle::confirm,
        |member| member.lead(LeaderEpoch(7)),
        |member| member.wait_leading(PATIENCE).and_then(|()| member.resign(None)),
    ];
    for call in calls {
        let (member, (woken, done)) = (group.member(A), channel());
        let waker = Waker::from(Arc::new(Inline(move || {
            let _ = woken.send(call(&member));
        })));
        group.member(A).wait_leading(PATIENCE).unwrap();
        // It waits for the questions by which followers say that they have the record, and have synced it.
        for node in [B, C] {
            group.network.lose(node, 2);
        }
        let mut delivery = leader.producer().enqueue(Record::to("orders").value("x")).unwrap();
        let polled = Pin::new(&mut delivery).poll(&mut Context::from_waker(&waker));
        if polled.is_ready() {
            continue;
        }
        let result = done.recv_timeout(PATIENCE);
        assert!(matches!(result, Ok(Ok(()))), "{result:?}");
    }
}

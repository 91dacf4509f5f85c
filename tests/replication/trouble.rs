//! A member that fails, calls that nobody answers, and what is shown of both.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use logpond::{
    Broker, Clock, Durability, Error, LeaderEpoch, ManualClock, NodeId, Record, ReplicationEvent,
    Role, SystemClock, TopicConfig,
};

use crate::group::{Group, NODES, PATIENCE, until, within};

const A: NodeId = NODES[0];
const B: NodeId = NODES[1];
const C: NodeId = NODES[2];

/// A clock of the application that panics once, in the thread of the member.
#[derive(Default)]
struct Trap(AtomicBool);

impl Clock for Trap {
    fn now(&self) -> SystemTime {
        SystemClock::new().now()
    }

    fn monotonic(&self) -> Duration {
        let is_member = std::thread::current().name() == Some("logpond-replica");
        assert!(!(is_member && self.0.swap(false, Ordering::Relaxed)), "a clock that panics");
        SystemClock::new().monotonic()
    }
}

/// The thread ended, the member still led, and calls waited for their time-out.
// RED: src/replication/beside.rs
//   - driver.shell().panicked();
#[test]
fn a_panic_in_the_members_thread_ends_its_leadership() {
    let (trap, events) = (Arc::new(Trap::default()), Arc::new(Mutex::new(Vec::new())));
    let mut group = Group::without_members(None);
    let noted = Arc::clone(&events);
    let replication = group.settings(A).on_event(move |event| {
        noted.lock().unwrap().push(event.clone());
    });
    let clock = Arc::clone(&trap);
    group.start_with(A, replication, |builder| builder.clock(clock));
    group.start(B);
    group.start(C);
    group.lead(A, 1);
    let leader = group.broker(A).clone();
    leader.ensure_topic("orders", TopicConfig::new(1)).unwrap();
    // What is sent from now on waits.
    for node in [B, C] {
        group.network.lose(node, usize::MAX);
    }
    let sender = leader.clone();
    let waiting =
        std::thread::spawn(move || sender.producer().send(Record::to("orders").value("waits")));
    let partition = leader.topic("orders").unwrap().partition(0).unwrap();
    assert!(until(|| (partition.log_end_offset() == 1).then_some(())).is_some());
    let (member, waits) = (group.member(A), group.member(A));
    let confirming = std::thread::spawn(move || waits.confirm());
    trap.0.store(true, Ordering::Relaxed);
    let sent = within(move || waiting.join().unwrap()).unwrap();
    assert!(matches!(sent, Err(Error::LeadershipLost)), "{sent:?}");
    // It may have been confirmed before.
    assert!(within(move || confirming.join().unwrap()).is_some());
    assert!(until(|| member.status().failure).is_some());
    let status = member.status();
    assert_eq!((status.role, status.leader, status.may_write), (Role::Follower, None, false));
    let refused = leader.producer().send(Record::to("orders").value("refused"));
    assert!(matches!(refused, Err(Error::NotLeader { leader: None })), "{refused:?}");
    for failed in [
        member.lead(LeaderEpoch(9)),
        member.force_lead(LeaderEpoch(9)).map(drop),
        member.resign(None),
        member.replace_member(B),
        member.confirm(),
        member.wait_leading(PATIENCE),
    ] {
        assert!(matches!(failed, Err(Error::Io { .. })), "{failed:?}");
    }
    let lost = || {
        let events = events.lock().unwrap();
        let lost = |it: &ReplicationEvent| matches!(it, ReplicationEvent::LeadershipLost { .. });
        let failed = |it: &ReplicationEvent| matches!(it, ReplicationEvent::Failed(_));
        (events.iter().any(lost) && events.iter().any(failed)).then_some(())
    };
    assert!(until(lost).is_some());
    for node in [B, C] {
        group.network.lose(node, 0);
    }
    group.lead(B, 2);
    leader.close().unwrap();
}

/// A group of one, which needs nobody.
fn alone(build: impl FnOnce(logpond::BrokerBuilder) -> logpond::BrokerBuilder) -> (Group, Broker) {
    let mut group = Group::without_members(None);
    let replication =
        logpond::Replication::new(A, [A], group.network.of(A)).heartbeat(Duration::from_millis(20));
    group.start_with(A, replication, build);
    let broker = group.broker(A).clone();
    (group, broker)
}

/// A thread of the member could show what was before, after a call had shown what is.
#[test]
fn what_is_shown_is_not_older_than_a_call_that_has_returned() {
    let (group, _broker) = alone(|builder| builder);
    let member = group.member(A);
    for epoch in 1..300 {
        member.lead(LeaderEpoch(epoch)).unwrap();
        assert!(member.status().epoch >= LeaderEpoch(epoch), "{epoch}");
        member.wait_leading(PATIENCE).unwrap();
        member.resign(None).unwrap();
        let status = member.status();
        assert_eq!((status.role, status.may_write), (Role::Follower, false), "{epoch}");
    }
}

/// A wait could miss the end of its member.
#[test]
fn a_call_that_waits_ends_with_its_member() {
    for _ in 0..20 {
        let (group, broker) = alone(|builder| builder);
        let member = group.member(A);
        let waiting = std::thread::spawn(move || member.wait_leading(PATIENCE));
        broker.close().unwrap();
        let ended = waiting.join().unwrap();
        assert!(matches!(ended, Err(Error::Closed)), "{ended:?}");
    }
}

/// Without background threads: until it leads.
fn tick_until_it_leads(group: &Group) {
    let member = group.member(A);
    member.lead(LeaderEpoch(1)).unwrap();
    let leads = || {
        member.tick().unwrap();
        member.status().may_write.then_some(())
    };
    assert!(until(leads).is_some(), "{:?}", member.status());
}

/// The call waited for ever: only a tick looked at the clock.
// RED: src/partition/quorum.rs
//   - let next = real_now().checked_add(remaining.min(LOOK_EVERY));
//   + let next = until;
#[test]
fn a_call_that_waits_times_out_although_nobody_ticks() {
    for manual in [None, Some(ManualClock::new(SystemTime::UNIX_EPOCH))] {
        let mut group = Group::without_members(None);
        group.start(B);
        group.start(C);
        let timeout = Duration::from_millis(if manual.is_some() { 60_000 } else { 300 });
        let replication = group.settings(A).ack_timeout(timeout);
        let clock = manual.clone();
        group.start_with(A, replication, |builder| {
            let builder = builder.background(false);
            match clock {
                Some(clock) => builder.clock(clock),
                None => builder,
            }
        });
        tick_until_it_leads(&group);
        let leader = group.broker(A).clone();
        let (creating, ticking) = (leader.clone(), group.member(A));
        let created = std::thread::spawn(move || {
            // The time of the call begins right after its append: it must not wait for a disk before.
            let config = TopicConfig::new(1).durability(Durability::Os);
            creating.ensure_topic("orders", config).map(drop)
        });
        let is_created = || {
            ticking.tick().unwrap();
            created.is_finished().then_some(())
        };
        assert!(until(is_created).is_some());
        created.join().unwrap().unwrap();
        // From now on nobody ticks.
        let sending = leader.clone();
        let sent = std::thread::spawn(move || {
            sending.producer().send(Record::to("orders").value("alone"))
        });
        let partition = leader.topic("orders").unwrap().partition(0).unwrap();
        assert!(until(|| (partition.log_end_offset() == 1).then_some(())).is_some());
        if let Some(clock) = &manual {
            assert!(!sent.is_finished(), "the clock stands still");
            clock.advance(timeout);
        }
        let sent = within(move || sent.join().unwrap());
        assert!(matches!(sent, Some(Err(Error::Timeout))), "{sent:?}");
    }
}

/// A member without threads is run by the call that waits for it.
#[test]
fn a_call_that_waits_runs_a_member_that_has_no_thread() {
    let mut group = Group::without_members(None);
    group.start(B);
    group.start(C);
    group.start_with(A, group.settings(A), |builder| builder.background(false));
    let member = group.member(A);
    member.lead(LeaderEpoch(1)).unwrap();
    let waiting = member.clone();
    let led = within(move || waiting.wait_leading(PATIENCE).and_then(|()| waiting.confirm()));
    assert!(matches!(led, Some(Ok(()))), "{led:?}: {:?}", member.status());
}

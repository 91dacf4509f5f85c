//! Goal: who is a member, who is not any more, and what members hear of it: eviction, rebalance
//! callbacks, static members, subscriptions that change by themselves.
//!
//! Method: as in `groups.rs`, all members in one thread where that is enough; time is a manual
//! clock, and a wait for another thread has a generous timeout. Callbacks write down their events.
//!
//! Not covered: random walks (`group_model.rs`), many threads (`concurrency.rs`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod callback_errors;
mod static_members;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use crate::common::*;
use logpond::{
    Assignor, Broker, CommitMode, Consumer, ConsumerBuilder, Error, GroupStatus, ManualClock,
    Message, Offsets, Rebalance, StartAt, TopicPartition,
};

const INTERVAL: Duration = Duration::from_secs(10);
const NOW: Duration = Duration::ZERO;

/// A broker whose time stands still, with a topic `t` of ten records in each partition.
fn timed(partitions: u32) -> (Broker, ManualClock) {
    let clock = manual_clock();
    let builder = Broker::builder().in_memory().background(false).clock(clock.clone());
    let broker = builder.open().unwrap();
    fill(&broker, "t", partitions);
    (broker, clock)
}

fn fill(broker: &Broker, topic: &str, partitions: u32) {
    broker.ensure_topic(topic, small_topic(partitions)).unwrap();
    (0..partitions).for_each(|partition| send_numbers(broker, topic, partition, 0..10));
}

fn member(broker: &Broker) -> ConsumerBuilder {
    broker.consumer("g").subscribe(["t"]).max_poll_interval(INTERVAL)
}

/// What callbacks heard, in order: who, what, which partitions of `t`.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    fn listen(&self, who: &'static str, builder: ConsumerBuilder) -> ConsumerBuilder {
        let heard = self.clone();
        builder.on_rebalance(move |event, _| heard.note(who, event))
    }

    fn note(&self, who: &str, event: Rebalance<'_>) {
        let (what, partitions) = match event {
            Rebalance::Assigned(partitions) => ("assigned", partitions),
            Rebalance::Revoked(partitions) => ("revoked", partitions),
            Rebalance::Lost(partitions) => ("lost", partitions),
        };
        let numbers: Vec<String> = partitions.iter().map(|it| it.partition.to_string()).collect();
        self.0.lock().unwrap().push(format!("{who} {what} {}", numbers.join(" ")));
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn poll(consumer: &mut Consumer) -> Vec<Message> {
    consumer.poll(NOW).unwrap().into_iter().collect()
}

fn sizes(members: &[&Consumer]) -> Vec<usize> {
    members.iter().map(|member| member.assignment().len()).collect()
}

// ---- eviction -------------------------------------------------------------------------------

#[test]
fn statement_17_a_member_that_does_not_poll_is_evicted_and_its_commits_are_refused() {
    for by_tick in [true, false] {
        let (broker, clock) = timed(2);
        let heard = Heard::default();
        let mut a = heard.listen("a", member(&broker)).open().unwrap();
        let mut b = heard.listen("b", member(&broker)).open().unwrap();
        for _ in 0..2 {
            poll(&mut a);
            poll(&mut b);
        }
        assert_eq!(sizes(&[&a, &b]), [1, 1]);
        let taken = a.assignment()[0].clone();
        a.commit_offsets(&Offsets::from([(taken.clone(), 3)])).unwrap();
        heard.take();

        clock.advance(INTERVAL.saturating_sub(Duration::from_millis(1)));
        broker.tick().unwrap();
        poll(&mut b);
        assert_eq!(sizes(&[&b]), [1], "evicted too early");
        clock.advance(Duration::from_millis(1));
        if by_tick {
            broker.tick().unwrap();
        }
        let read_again = poll(&mut b);
        assert_eq!(sizes(&[&b]), [2], "by tick: {by_tick}");
        assert_eq!(read_again[0].offset(), 3, "it continues at what was committed");

        // It has not heard of it. It owned the partition once, and cannot move the group any more.
        let refused = a.commit();
        let names = matches!(&refused, Err(Error::Rebalanced { partition }) if *partition == taken);
        assert!(names, "{refused:?}");
        assert!(matches!(a.commit_soon(), Err(Error::Rebalanced { .. })));
        let ahead = Offsets::from([(taken.clone(), 9)]);
        assert!(matches!(a.commit_offsets(&ahead), Err(Error::Rebalanced { .. })));
        assert_eq!(b.committed(&taken).unwrap(), Some(3));
        let number = taken.partition;
        assert_eq!(heard.take(), [format!("b assigned {number}")]);

        // At its next poll it hears of the loss, and takes part again.
        poll(&mut a);
        assert_eq!(heard.take(), [format!("a lost {number}")]);
        a.commit().unwrap();
        poll(&mut b);
        poll(&mut a);
        assert_eq!(sizes(&[&a, &b]), [1, 1]);
        a.commit().unwrap();
        b.commit().unwrap();
        assert_eq!(heard.take().len(), 2);
    }
}

/// Symptom: a member read ten records, was evicted, came back and owned the partition again; its
/// late commit of the eighth record was taken, over the work of the owner in between. Cause: a
/// commit of a message was checked under the ownership of its partition now, whatever the message
/// was read under. Rule: a message is committed under the ownership under which it was read.
// RED: src/consumer/commit.rs
//   - && self.slots.get(index).is_some_and(|slot| !slot.has_read(message))
//   + && self.slots.get(index).is_none()
#[test]
fn row_j05_a_message_of_an_ownership_that_was_lost_and_regained_is_not_committed() {
    let (broker, clock) = timed(1);
    let mut a = member(&broker).open().unwrap();
    let early = poll(&mut a);
    assert_eq!(early.len(), 10);
    a.commit_message(&early[1]).unwrap();
    clock.advance(INTERVAL);
    broker.tick().unwrap();
    let mut b = member(&broker).open().unwrap();
    assert_eq!(poll(&mut b).len(), 8);
    drop(b);
    let again = poll(&mut a);
    assert_eq!((sizes(&[&a]), again.len()), (vec![1], 8), "it has the partition again");
    for late in [&early[7], &early[1], &early[7].detach()] {
        let refused = a.commit_message(late);
        let is_named =
            matches!(&refused, Err(Error::Rebalanced { partition }) if *partition == tp("t", 0));
        assert!(is_named, "{refused:?}");
    }
    assert_eq!(a.committed(("t", 0)).unwrap(), Some(2));
    // What it read under the ownership that it has counts, wherever it was kept meanwhile.
    a.seek(("t", 0), StartAt::Earliest).unwrap();
    poll(&mut a);
    a.commit_message(&again[0].detach()).unwrap();
    assert_eq!(a.committed(("t", 0)).unwrap(), Some(3));
    // What the older holder of a name read is not the newer one's.
    let named = |at: &str| broker.consumer("h").subscribe(["t"]).instance_id(at).open().unwrap();
    let read = poll(&mut named("a"));
    assert!(matches!(named("a").commit_message(&read[0]), Err(Error::Rebalanced { .. })));
    assert_eq!(a.committed(("t", 0)).unwrap(), Some(3));
}

#[test]
fn one_that_is_away_for_too_long_unnoticed_has_lost_nothing() {
    let (broker, clock) = timed(2);
    let mut a = member(&broker).open().unwrap();
    poll(&mut a);
    clock.advance(INTERVAL * 3);
    poll(&mut a);
    a.commit().unwrap();
    broker.tick().unwrap();
    assert_eq!(sizes(&[&a]), [2]);
    a.commit().unwrap();
}

#[test]
fn each_recv_counts_as_a_poll_and_commits_do_not() {
    let (broker, clock) = timed(1);
    let mut a = member(&broker).open().unwrap();
    for _ in 0..10 {
        a.recv().unwrap();
        clock.advance(INTERVAL.saturating_sub(Duration::from_millis(1)));
        broker.tick().unwrap();
        a.commit().unwrap();
    }
    clock.advance(Duration::from_millis(1));
    broker.tick().unwrap();
    assert!(matches!(a.commit(), Err(Error::Rebalanced { .. })));
}

#[test]
fn a_member_that_waits_in_poll_is_there_and_is_woken_for_what_an_absent_one_had() {
    let (broker, clock) = timed(2);
    let heard = Heard::default();
    let mut a = member(&broker).open().unwrap();
    let mut b = heard.listen("b", member(&broker)).open().unwrap();
    for _ in 0..2 {
        drain(&mut a);
        drain(&mut b);
    }
    heard.take();
    a.commit().unwrap();
    b.commit().unwrap();
    let taken = a.assignment()[0].clone();
    let (parked, is_parked) = mpsc::channel();
    let waiting = thread::spawn(move || {
        parked.send(ThreadState::here()).unwrap();
        let message = b.recv_timeout(PATIENCE).unwrap().expect("woken");
        (message.topic_partition(), message.offset(), b.assignment().len())
    });
    is_parked.recv().unwrap().wait_until_it_sleeps();
    send_numbers(&broker, "t", taken.partition, 10..11);
    clock.advance(INTERVAL);
    broker.tick().unwrap();
    let number = taken.partition;
    assert_eq!(waiting.join().unwrap(), (taken, 10, 2));
    assert_eq!(heard.take(), [format!("b assigned {number}")], "evicted while it waited");
}

/// Without `tick`, on the machine's own clock: the background thread notices.
#[test]
fn the_background_notices_an_absence_while_all_others_are_parked() {
    let broker = Broker::in_memory().unwrap();
    fill(&broker, "t", 2);
    let interval = Duration::from_millis(50);
    let open = || broker.consumer("g").subscribe(["t"]).max_poll_interval(interval);
    let mut stalled = open().open().unwrap();
    drain(&mut stalled);
    stalled.commit().unwrap();
    send_numbers(&broker, "t", 0, 10..11);
    let mut other = open().open().unwrap();
    let message = other.recv_timeout(PATIENCE).unwrap().expect("woken");
    assert_eq!(message.offset(), 10);
    assert!(matches!(stalled.commit(), Err(Error::Rebalanced { .. })));
}

/// When all members were overdue there was nothing left to watch; those that come back are watched
/// again.
#[test]
fn the_background_notices_an_absence_after_all_were_evicted_and_came_back() {
    let broker = Broker::in_memory().unwrap();
    fill(&broker, "t", 2);
    let interval = Duration::from_millis(300);
    let open = || broker.consumer("g").subscribe(["t"]).max_poll_interval(interval);
    let (mut a, mut b) = (open().open().unwrap(), open().open().unwrap());
    within_patience("a partition each", || {
        drain(&mut a);
        drain(&mut b);
        sizes(&[&a, &b]) == [1, 1] && a.commit().is_ok() && b.commit().is_ok()
    });
    let is_evicted =
        |member: &mut Consumer| matches!(member.commit(), Err(Error::Rebalanced { .. }));
    within_patience("both evicted", || is_evicted(&mut a) && is_evicted(&mut b));
    for _ in 0..2 {
        poll(&mut a);
        poll(&mut b);
    }
    (0..2).for_each(|partition| send_numbers(&broker, "t", partition, 10..11));
    let mut seen = BTreeSet::new();
    while seen.len() < 2 {
        let message = b.recv_timeout(PATIENCE).unwrap().expect("woken for what the other had");
        seen.insert(message.partition());
    }
}

#[test]
fn an_evicted_member_that_is_closed_hears_lost_and_not_revoked() {
    let (broker, clock) = timed(1);
    let heard = Heard::default();
    let auto = CommitMode::Auto { every: Duration::from_secs(3600) };
    let mut a = heard.listen("a", member(&broker).commit(auto)).open().unwrap();
    poll(&mut a);
    clock.advance(INTERVAL);
    broker.tick().unwrap();
    a.close().unwrap();
    assert_eq!(heard.take(), ["a assigned 0", "a lost 0"]);
}

// ---- callbacks ------------------------------------------------------------------------------

#[test]
fn statement_16_revoked_runs_before_anybody_else_is_assigned_and_commits_there_count() {
    let (broker, _) = timed(4);
    let heard = Heard::default();
    let listener = heard.clone();
    let mut a = member(&broker)
        .on_rebalance(move |event, commits| {
            listener.note("a", event);
            if let Rebalance::Revoked(partitions) = event {
                for partition in partitions {
                    let position = commits.position(partition).unwrap();
                    commits.commit(&Offsets::from([(partition.clone(), position - 1)])).unwrap();
                }
            }
        })
        .open()
        .unwrap();
    assert_eq!(heard.take(), [""; 0], "before the first poll");
    drain(&mut a);
    assert_eq!(heard.take(), ["a assigned 0 1 2 3"]);
    let mut b = heard.listen("b", member(&broker)).open().unwrap();
    assert!(poll(&mut b).is_empty(), "b was given what a has not given up");
    assert_eq!(heard.take(), [""; 0]);
    poll(&mut a);
    let handed = drain(&mut b);
    assert_eq!(heard.take(), ["a revoked 2 3", "b assigned 2 3"]);
    let records: Vec<_> = handed.iter().map(|it| (it.partition(), it.offset())).collect();
    assert_eq!(records, [(2, 9), (3, 9)], "resumes where the callback committed");
    a.close().unwrap();
    assert_eq!(heard.take(), ["a revoked 0 1"]);
    poll(&mut b);
    drop(b);
    assert_eq!(heard.take(), ["b assigned 0 1"], "a drop calls nobody");
}

#[test]
fn in_auto_mode_the_position_is_committed_before_the_callback() {
    let (broker, _) = timed(2);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (sink, admin) = (Arc::clone(&seen), broker.admin());
    let auto = CommitMode::Auto { every: Duration::from_secs(3600) };
    let mut a = member(&broker)
        .commit(auto)
        .on_rebalance(move |event, _| {
            if let Rebalance::Revoked(_) = event {
                let info = admin.describe_group("g").unwrap();
                sink.lock().unwrap().extend(info.offsets.iter().map(|it| it.committed));
            }
        })
        .open()
        .unwrap();
    drain(&mut a);
    let mut b = member(&broker).open().unwrap();
    poll(&mut a);
    assert_eq!(*seen.lock().unwrap(), [Some(10), Some(10)]);
    assert!(drain(&mut b).is_empty());
}

// RED: src/consumer/rebalance.rs
//   - Some(callback) if !partitions.is_empty() => {
//   + Some(callback) if partitions.is_empty() => {
#[test]
fn row_j12_a_callback_may_use_the_broker_and_its_own_group() {
    let (broker, _) = timed(4);
    let others = Arc::new(Mutex::new(Vec::new()));
    let (sink, inner) = (Arc::clone(&others), broker.clone());
    let mut calls = 0;
    let mut a = member(&broker)
        .on_rebalance(move |event, commits| {
            calls += 1;
            if calls > 2 {
                return;
            }
            let mut other = member(&inner).open().unwrap();
            other.poll(NOW).unwrap();
            inner.ensure_topic(&format!("made-{calls}"), small_topic(1)).unwrap();
            send_numbers(&inner, "t", 0, 10..11);
            assert_eq!(inner.admin().groups().unwrap().len(), 1);
            if let Rebalance::Assigned(partitions) = event {
                assert!(partitions.iter().all(|it| commits.position(it).is_some()));
            }
            sink.lock().unwrap().push(other);
        })
        .open()
        .unwrap();
    for _ in 0..6 {
        poll(&mut a);
        others.lock().unwrap().iter_mut().for_each(|other| drop(poll(other)));
    }
    let others = std::mem::take(&mut *others.lock().unwrap());
    assert_eq!(others.len(), 2);
    let mut owned: Vec<TopicPartition> = a.assignment();
    owned.extend(others.iter().flat_map(Consumer::assignment));
    owned.sort();
    assert_eq!(owned, (0..4).map(|it| tp("t", it)).collect::<Vec<_>>());
}

#[test]
fn a_panic_in_a_callback_leaves_the_group_whole() {
    for bad in ["assigned", "revoked", "lost"] {
        let (broker, clock) = timed(2);
        let mut a = member(&broker)
            .on_rebalance(move |event, _| {
                let panics = match event {
                    Rebalance::Assigned(_) => bad == "assigned",
                    Rebalance::Revoked(_) => bad == "revoked",
                    Rebalance::Lost(_) => bad == "lost",
                };
                if panics {
                    std::panic::resume_unwind(Box::new("the callback"));
                }
            })
            .open()
            .unwrap();
        let try_poll =
            |a: &mut Consumer| catch_unwind(AssertUnwindSafe(|| drop(a.poll(NOW)))).is_err();
        let mut b = None;
        let mut panics = u32::from(try_poll(&mut a));
        if bad == "revoked" {
            b = Some(member(&broker).open().unwrap());
            panics += u32::from(try_poll(&mut a));
            poll(b.as_mut().unwrap());
            assert_eq!(sizes(&[&a, b.as_ref().unwrap()]), [1, 1], "given up all the same");
        }
        if bad == "lost" {
            clock.advance(INTERVAL);
            broker.tick().unwrap();
            panics += u32::from(try_poll(&mut a));
        }
        assert_eq!(panics, 1, "{bad}");
        // The panic is caught here: the member continues as if nothing had happened.
        assert!(!try_poll(&mut a), "{bad}");
        drain(&mut a);
        a.commit().unwrap();
        let all: usize = sizes(&[&a]).iter().sum::<usize>() + b.map_or(0, |b| sizes(&[&b])[0]);
        assert_eq!(all, 2, "{bad}");
    }
}

#[test]
fn a_deleted_topic_is_lost_to_its_owner() {
    let (broker, _) = timed(1);
    fill(&broker, "u", 1);
    let heard = Heard::default();
    let builder = broker.consumer("g").subscribe(["t", "u"]);
    let mut a = heard.listen("a", builder).open().unwrap();
    drain(&mut a);
    broker.admin().delete_topic("t").unwrap();
    let refused = a.commit();
    assert!(matches!(&refused, Err(Error::UnknownTopic(name)) if name == "t"), "{refused:?}");
    poll(&mut a);
    assert_eq!(heard.take(), ["a assigned 0 0", "a lost 0"]);
    a.commit().unwrap();
}

/// Symptom: in auto mode `poll` returned `Rebalanced`, which is no error there. Cause: a member was
/// evicted after its group had given it a partition and before it took that over, here by the time
/// that its own callback took; so it took the partition without an ownership, and since no
/// ownership equals no ownership, the partition counted as its own. Rule: a partition that the
/// group has not given is not owned, and auto mode commits nothing of it.
#[test]
fn auto_mode_commits_nothing_of_a_partition_that_was_lost_before_it_was_taken_over() {
    let (broker, clock) = timed(1);
    fill(&broker, "u", 1);
    let heard = Heard::default();
    let (listener, evicting, mut is_first) = (heard.clone(), broker.clone(), true);
    let mut a = broker
        .consumer("g")
        .subscribe(["t", "u"])
        .max_poll_interval(INTERVAL)
        .commit(CommitMode::Auto { every: Duration::from_secs(1) })
        .on_rebalance(move |event, _| {
            if matches!(event, Rebalance::Lost(_)) && std::mem::take(&mut is_first) {
                clock.advance(INTERVAL);
                evicting.tick().unwrap();
            }
            listener.note("a", event);
        })
        .open()
        .unwrap();
    assert_eq!(drain(&mut a).len(), 20);
    // One plan takes a partition away and gives another.
    broker.admin().delete_topic("t").unwrap();
    broker.admin().add_partitions("u", 2).unwrap();
    send_numbers(&broker, "u", 1, 0..10);

    let polled = a.poll(NOW);
    assert!(polled.is_ok(), "{polled:?}");
    assert_eq!(heard.take(), ["a assigned 0 0", "a lost 0", "a assigned 1"]);
    assert_eq!(a.committed(("u", 1)).unwrap(), None);
    // It hears of the eviction at its next poll, takes part again, and reads what is not committed.
    assert_eq!(poll(&mut a).len(), 20);
    assert_eq!(heard.take(), ["a lost 0 1", "a assigned 0 1"]);
}

/// The offsets of a deleted topic must not come back with one of the same name.
#[test]
fn no_commit_outlives_its_topic() {
    let dir = temp_dir();
    let broker = open_quiet(dir.path());
    fill(&broker, "t", 1);
    let mut by_hand = broker.consumer("h").assign([("t", 0)]).open().unwrap();
    drain(&mut by_hand);
    by_hand.commit().unwrap();
    broker.admin().delete_topic("t").unwrap();
    let late = Offsets::from([(tp("t", 0), 5)]);
    for refused in [by_hand.commit(), by_hand.commit_soon(), by_hand.commit_offsets(&late)] {
        assert!(matches!(&refused, Err(Error::UnknownTopic(_))), "{refused:?}");
    }
    assert!(broker.admin().groups().unwrap().is_empty(), "an entry under a dead topic");
    drop((by_hand, broker));
    assert!(open_quiet(dir.path()).admin().groups().unwrap().is_empty());
}

// ---- subscriptions --------------------------------------------------------------------------

#[test]
fn a_pattern_takes_topics_as_they_come_and_go() {
    let dir = temp_dir();
    let broker = open_quiet(dir.path());
    fill(&broker, "orders-eu", 1);
    fill(&broker, "my-orders-eu", 1);
    fill(&broker, "single", 1);
    let open = || {
        let builder = broker.consumer("g").subscribe(["single"]);
        builder.subscribe_pattern("orders-*").subscribe_pattern("?-x").open().unwrap()
    };
    let names = |consumers: &[&Consumer]| {
        let all = consumers.iter().flat_map(|it| it.assignment());
        let mut names: Vec<_> = all.map(|it| it.to_string()).collect();
        names.sort();
        names
    };
    let mut a = open();
    assert_eq!(names(&[&a]), ["orders-eu-0", "single-0"]);
    drain(&mut a);
    fill(&broker, "orders-us", 2);
    fill(&broker, "b-x", 1);
    fill(&broker, "bb-x", 1);
    assert_eq!(drain(&mut a).len(), 30);
    assert_eq!(names(&[&a]), ["b-x-0", "orders-eu-0", "orders-us-0", "orders-us-1", "single-0"]);
    let mut b = open();
    for _ in 0..2 {
        poll(&mut a);
        poll(&mut b);
    }
    assert_eq!(names(&[&a, &b]).len(), 5);
    broker.admin().delete_topic("orders-us").unwrap();
    broker.admin().delete_topic("b-x").unwrap();
    for _ in 0..2 {
        poll(&mut a);
        poll(&mut b);
    }
    assert_eq!(names(&[&a, &b]), ["orders-eu-0", "single-0"]);
    assert_eq!(sizes(&[&a, &b]), [1, 1]);
    a.commit().unwrap();
    b.commit().unwrap();
}

#[test]
fn no_pattern_matches_what_the_engine_keeps_for_itself_and_none_needs_to_match() {
    let (broker, _) = timed(1);
    for pattern in ["*", "__*", "??offsets", "__offsets"] {
        let consumer = broker.consumer(pattern).subscribe_pattern(pattern).open().unwrap();
        let topics: Vec<_> = consumer.assignment().iter().map(|it| it.topic.to_string()).collect();
        assert_eq!(topics, if pattern == "*" { vec!["t"] } else { vec![] }, "{pattern}");
    }
    let reader = broker.reader().subscribe_pattern("?").open().unwrap();
    assert_eq!(reader.assignment(), [tp("t", 0)]);
    let empty = broker.consumer("g").subscribe_pattern("").open();
    assert_eq!(refused_setting(empty), "subscribe_pattern");
}

#[test]
fn a_partition_that_waits_for_a_position_can_be_given_one() {
    let (broker, _) = timed(2);
    let mut a = member(&broker).open().unwrap();
    a.commit_offsets(&Offsets::from([(tp("t", 0), 4), (tp("t", 1), 0)])).unwrap();
    drop(a);
    broker.admin().delete_records(("t", 1), 1).unwrap();
    let strict = || member(&broker).out_of_range(StartAt::Error);
    let opened = strict().open();
    assert!(matches!(opened, Err(Error::OffsetOutOfRange { .. })), "{opened:?}");
    let first = member(&broker).open().unwrap();
    let mut second = strict().open().unwrap();
    drop(first);
    assert!(matches!(second.poll(NOW), Err(Error::OffsetOutOfRange { .. })));
    second.seek(("t", 1), StartAt::Latest).unwrap();
    assert_eq!(drain(&mut second).len(), 6);
    second.commit().unwrap();
    assert_eq!(second.committed(("t", 1)).unwrap(), Some(10));
}

/// Symptom: a rebalance callback heard that a partition was assigned and never that it was lost or
/// revoked, when the consumer was fenced or closed. Cause: both listed the partitions that are
/// read, and one that waits for a position is not among them. Rule: every partition that a callback
/// saw assigned is later reported revoked or lost.
#[test]
fn the_callback_hears_the_end_of_a_partition_that_waits_for_a_position() {
    for (is_fenced, polls, end) in [
        (true, true, "second lost 0 1"),
        (true, false, "second lost 0 1"),
        (false, false, "second revoked 0 1"),
    ] {
        let (broker, _) = timed(2);
        let heard = Heard::default();
        let mut first = member(&broker).open().unwrap();
        first.commit_offsets(&Offsets::from([(tp("t", 0), 4), (tp("t", 1), 0)])).unwrap();
        broker.admin().delete_records(("t", 1), 1).unwrap();
        let strict = || member(&broker).out_of_range(StartAt::Error).instance_id("a");
        let mut second = heard.listen("second", strict()).open().unwrap();
        drop(first);
        assert!(matches!(second.poll(NOW), Err(Error::OffsetOutOfRange { .. })));
        assert_eq!((second.assignment(), heard.take()), (vec![tp("t", 0)], vec![ASSIGNED.into()]));

        let newer = is_fenced.then(|| member(&broker).instance_id("a").open().unwrap());
        if polls {
            assert!(matches!(second.poll(NOW), Err(Error::Fenced { .. })));
        }
        second.close().unwrap();
        assert_eq!(heard.take(), [end], "fenced: {is_fenced}, polls: {polls}");
        drop(newer);
    }
}

const ASSIGNED: &str = "second assigned 0 1";

//! Goal: consumers and producers work in a task of any executor: nothing is lost when a stream or a
//! future is dropped, nothing is missed while it waits, and it ends when it should.
//!
//! Method: what needs exactness is polled by hand with a waker that counts; beside it stories run
//! on a plain `block_on`. Brokers are in memory; where time matters it is a manual clock.
//!
//! Not covered: executors with tasks and threads, which `tests/executors/` runs the same stories
//! on; and every interleaving of a wake-up with a registration, which the models beside
//! `partition/waiters.rs` check.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "async_stream/calls.rs"]
mod calls;
mod common;
#[path = "async_stream/stories.rs"]
mod stories;
#[path = "async_stream/wakers.rs"]
mod wakers;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use common::*;
use futures_core::Stream;
use logpond::{
    Broker, CommitMode, Consumer, Error, ManualClock, Message, Record, Result, StartAt,
    TopicConfig, Visibility, WhenFull,
};
use stories::{member, two_streams_of_a_group};

fn poll_once<S: Stream + Unpin>(stream: &mut S, waker: &Waker) -> Poll<Option<S::Item>> {
    Pin::new(stream).poll_next(&mut Context::from_waker(waker))
}

/// The number of the message that must be there.
fn ready(polled: Poll<Option<Result<Message>>>) -> u64 {
    match polled {
        Poll::Ready(Some(Ok(message))) => number(&message),
        other => panic!("no message: {other:?}"),
    }
}

fn numbers(partitions: u32, count: u64) -> Broker {
    let broker = in_memory();
    broker.ensure_topic("t", TopicConfig::new(partitions)).unwrap();
    send_numbers(&broker, "t", 0, 0..count);
    broker
}

// ---- exactly, by hand ---------------------------------------------------------------------------

/// Symptom: a stream never gave its thread back when the topic of a paused partition was deleted.
/// Rule: a paused partition is nothing to wait for, and no reason to be woken.
#[test]
fn a_stream_waits_beside_a_paused_partition_whose_topic_is_deleted() {
    let broker = numbers(1, 0);
    broker.ensure_topic("u", TopicConfig::new(1)).unwrap();
    let mut consumer = broker.reader().assign([("t", 0), ("u", 0)]).open().unwrap();
    consumer.pause([("u", 0)]).unwrap();
    broker.admin().delete_topic("u").unwrap();
    let mut stream = consumer.stream();
    let counting = CountingWaker::new();
    let waker = Waker::from(Arc::clone(&counting));
    assert!(poll_once(&mut stream, &waker).is_pending());
    assert_eq!(counting.calls(), 0);
    send_numbers(&broker, "t", 0, 0..1);
    assert_eq!(counting.calls(), 1);
    assert_eq!(ready(poll_once(&mut stream, &waker)), 0);
}

/// A stream whose only partition had failed and was then taken away left no waker behind: nothing
/// woke its task any more, not even the topic that came back. Rule: a failure ends with its
/// partition, and a stream that waits leaves its waker.
#[test]
fn row_j23_a_stream_whose_failed_partition_is_deleted_waits_for_the_next() {
    let broker = numbers(1, 6);
    let builder = broker.consumer("g").subscribe(["t"]).out_of_range(StartAt::Error);
    let mut member = builder.max_poll_records(1).open().unwrap();
    assert_eq!(member.poll(Duration::ZERO).unwrap().len(), 1);
    broker.admin().delete_records(("t", 0), 5).unwrap();
    assert!(matches!(member.poll(Duration::ZERO), Err(Error::OffsetOutOfRange { .. })));
    broker.admin().delete_topic("t").unwrap();
    let mut stream = member.stream();
    let counting = CountingWaker::new();
    let waker = Waker::from(Arc::clone(&counting));
    assert!(poll_once(&mut stream, &waker).is_pending());
    let woken = counting.calls();
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    assert_eq!(counting.calls(), woken + 1);
    send_numbers(&broker, "t", 0, 7..8);
    assert_eq!(ready(poll_once(&mut stream, &waker)), 7);
}

/// A member was never evicted when its stream had returned `Pending` once and was then forgotten:
/// it counted as one that waits until it polled again. Its partitions were read by nobody. Rule: a
/// wake-up that nobody answers starts the time of the eviction.
// RED: src/group/presence.rs
//   - if last == WAITING && self.notifier.has_signals() {
//   + if last == WAITING && false {
#[test]
fn row_j16_a_stream_that_does_not_answer_a_wake_up_is_evicted() {
    let (clock, interval) = (manual_clock(), Duration::from_secs(10));
    let broker = Broker::builder().in_memory().clock(clock.clone()).background(false);
    let broker = broker.open().unwrap();
    broker.ensure_topic("t", TopicConfig::new(2)).unwrap();
    let member = || broker.consumer("g").subscribe(["t"]);
    let mut forgotten = member().max_poll_interval(interval).open().unwrap();
    let mut stream = forgotten.stream();
    assert!(poll_once(&mut stream, Waker::noop()).is_pending());
    let pass = |count: u32| {
        for _ in 0..count {
            clock.advance(interval + Duration::from_millis(1));
            broker.tick().unwrap();
        }
    };
    pass(10);
    let group = broker.admin().describe_group("g").unwrap();
    assert_eq!(group.members[0].assignment.len(), 2, "a stream that waits was evicted");
    let mut other = member().open().unwrap();
    // The rebalance has woken the task of the first.
    let mut polls = || {
        other.poll(Duration::ZERO).unwrap();
        other.assignment().len()
    };
    assert_eq!(polls(), 0);
    pass(1);
    assert_eq!(polls(), 0, "evicted before its time");
    pass(1);
    assert_eq!(polls(), 2);
    // It is a member again as soon as somebody asks.
    assert!(poll_once(&mut stream, Waker::noop()).is_pending());
    polls();
    assert!(poll_once(&mut stream, Waker::noop()).is_pending());
    assert_eq!(polls(), 1);
}

#[test]
fn a_stream_ends_after_an_error_that_lasts_and_the_next_one_reads_the_others() {
    let broker = numbers(1, 0);
    broker.ensure_topic("u", TopicConfig::new(1)).unwrap();
    let mut reader = broker.reader().subscribe(["t", "u"]).open().unwrap();
    broker.admin().delete_topic("u").unwrap();
    let mut stream = reader.stream();
    let refused = poll_once(&mut stream, Waker::noop());
    assert!(matches!(refused, Poll::Ready(Some(Err(Error::UnknownTopic(_))))), "{refused:?}");
    assert!(matches!(poll_once(&mut stream, Waker::noop()), Poll::Ready(None)));
    drop(stream);
    let mut next = reader.stream();
    assert!(poll_once(&mut next, Waker::noop()).is_pending());
    send_numbers(&broker, "t", 0, 0..1);
    assert_eq!(ready(poll_once(&mut next, Waker::noop())), 0);
}

#[test]
fn a_stream_yields_what_there_is_and_is_woken_once_for_what_comes() {
    let broker = numbers(1, 2);
    let mut consumer = member(&broker, "g");
    let mut stream = consumer.stream();
    let counting = CountingWaker::new();
    let waker = Waker::from(Arc::clone(&counting));
    assert_eq!(ready(poll_once(&mut stream, &waker)), 0);
    assert_eq!(ready(poll_once(&mut stream, &waker)), 1);
    assert!(poll_once(&mut stream, &waker).is_pending());
    // Asking again is no reason to be woken.
    assert!(poll_once(&mut stream, &waker).is_pending());
    assert_eq!(counting.calls(), 0);
    send_numbers(&broker, "t", 0, 2..5);
    assert_eq!(counting.calls(), 1, "one wake-up for all that came before the task runs");
    for expected in 2..5 {
        assert_eq!(ready(poll_once(&mut stream, &waker)), expected);
    }
    assert!(poll_once(&mut stream, &waker).is_pending());
    send_numbers(&broker, "t", 0, 5..6);
    assert_eq!(counting.calls(), 2);
}

#[test]
fn the_waker_of_the_last_poll_is_the_one_that_is_woken() {
    let broker = numbers(1, 0);
    let mut consumer = member(&broker, "g");
    let mut stream = consumer.stream();
    let (first, second) = (CountingWaker::new(), CountingWaker::new());
    assert!(poll_once(&mut stream, &Waker::from(Arc::clone(&first))).is_pending());
    assert!(poll_once(&mut stream, &Waker::from(Arc::clone(&second))).is_pending());
    send_numbers(&broker, "t", 0, 0..1);
    assert_eq!((first.calls(), second.calls()), (0, 1));
}

#[test]
fn a_dropped_stream_keeps_no_task_and_loses_no_message() {
    let broker = numbers(1, 10);
    let mut consumer = member(&broker, "g");
    let counting = CountingWaker::new();
    let waker = Waker::from(Arc::clone(&counting));
    assert_eq!(ready(poll_once(&mut consumer.stream(), &waker)), 0);
    // Nine were read ahead; the position knows one.
    assert_eq!(consumer.position(&tp("t", 0)), Some(1));
    assert_eq!(ready(poll_once(&mut consumer.stream(), &waker)), 1);
    assert_eq!(number(&consumer.recv().unwrap()), 2);
    consumer.commit().unwrap();
    assert_eq!(consumer.committed(&tp("t", 0)).unwrap(), Some(3));
    let rest: Vec<u64> = drain(&mut consumer).iter().map(number).collect();
    assert_eq!(rest, (3..10).collect::<Vec<_>>());

    assert!(poll_once(&mut consumer.stream(), &waker).is_pending());
    drop(waker);
    assert_eq!(Arc::strong_count(&counting), 1, "somebody keeps the waker of a dropped stream");
    send_numbers(&broker, "t", 0, 10..11);
    assert_eq!(counting.calls(), 0);
    assert_eq!(ready(poll_once(&mut consumer.stream(), Waker::noop())), 10);
}

/// A message that arrives for a task which is then cancelled must be found by the next task that
/// polls.
#[test]
fn a_wake_up_for_a_dropped_stream_is_not_lost_for_the_next() {
    let broker = numbers(1, 0);
    let mut consumer = member(&broker, "g");
    let counting = CountingWaker::new();
    let mut stream = consumer.stream();
    assert!(poll_once(&mut stream, &Waker::from(Arc::clone(&counting))).is_pending());
    send_numbers(&broker, "t", 0, 0..1);
    assert_eq!(counting.calls(), 1);
    drop(stream);
    assert_eq!(ready(poll_once(&mut consumer.stream(), Waker::noop())), 0);
}

#[test]
fn a_wake_call_changes_nothing_and_a_shutdown_ends_the_stream() {
    let broker = numbers(1, 0);
    let mut consumer = member(&broker, "g");
    let handle = consumer.handle();
    let mut stream = consumer.stream();
    let counting = CountingWaker::new();
    let waker = Waker::from(Arc::clone(&counting));
    assert!(poll_once(&mut stream, &waker).is_pending());
    handle.wake();
    assert_eq!(counting.calls(), 1);
    assert!(poll_once(&mut stream, &waker).is_pending(), "an answer to a wake-up call");
    // A wake-up between two polls, with and without messages.
    handle.wake();
    send_numbers(&broker, "t", 0, 0..2);
    assert_eq!(ready(poll_once(&mut stream, &waker)), 0);
    handle.wake();
    assert_eq!(ready(poll_once(&mut stream, &waker)), 1);
    handle.wake();
    let before = counting.calls();
    assert!(poll_once(&mut stream, &waker).is_pending());
    send_numbers(&broker, "t", 0, 2..3);
    assert_eq!(counting.calls(), before + 1, "the registration was lost to a wake-up call");
    assert_eq!(ready(poll_once(&mut stream, &waker)), 2);

    assert!(poll_once(&mut stream, &waker).is_pending());
    let before = counting.calls();
    handle.shutdown();
    assert_eq!(counting.calls(), before + 1);
    for _ in 0..3 {
        assert!(matches!(poll_once(&mut stream, &waker), Poll::Ready(None)));
    }
    drop(stream);
    assert!(matches!(consumer.recv(), Err(Error::Closed)));
}

#[test]
fn closing_the_broker_wakes_and_ends_streams_also_of_paused_partitions() {
    let broker = numbers(1, 0);
    let mut waiting = member(&broker, "g");
    let mut paused = member(&broker, "h");
    paused.pause(&[tp("t", 0)]).unwrap();
    let mut streams = [waiting.stream(), paused.stream()];
    let counting = CountingWaker::new();
    let waker = Waker::from(Arc::clone(&counting));
    for stream in &mut streams {
        assert!(poll_once(stream, &waker).is_pending());
    }
    broker.close().unwrap();
    assert!(counting.calls() >= 2);
    for stream in &mut streams {
        assert!(matches!(poll_once(stream, &waker), Poll::Ready(None)));
    }
}

#[test]
fn auto_commit_covers_what_the_stream_was_asked_to_pass() {
    let clock = manual_clock();
    let builder = Broker::builder().in_memory().background(false).clock(clock.clone());
    let broker = builder.open().unwrap();
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    send_numbers(&broker, "t", 0, 0..5);
    let every = Duration::from_secs(1);
    let builder = broker.consumer("g").subscribe(["t"]).commit(CommitMode::Auto { every });
    let mut consumer = builder.open().unwrap();
    let mut stream = consumer.stream();
    for expected in 0..3 {
        assert_eq!(ready(poll_once(&mut stream, Waker::noop())), expected);
    }
    clock.advance(every);
    // Being asked for the fourth passes three; the fourth is merely handed out.
    assert_eq!(ready(poll_once(&mut stream, Waker::noop())), 3);
    drop(stream);
    assert_eq!(consumer.committed(&tp("t", 0)).unwrap(), Some(3));
    // A stream that waits commits too, when it is polled and time has passed.
    assert_eq!(ready(poll_once(&mut consumer.stream(), Waker::noop())), 4);
    clock.advance(every);
    assert!(poll_once(&mut consumer.stream(), Waker::noop()).is_pending());
    assert_eq!(consumer.committed(&tp("t", 0)).unwrap(), Some(5));
}

#[test]
fn a_rebalance_wakes_a_waiting_stream_which_gives_up_its_share() {
    let broker = numbers(2, 0);
    let mut first = member(&broker, "g");
    let mut stream = first.stream();
    let counting = CountingWaker::new();
    let waker = Waker::from(Arc::clone(&counting));
    assert!(poll_once(&mut stream, &waker).is_pending());
    let mut second = member(&broker, "g");
    assert_eq!(counting.calls(), 1, "the stream was not woken to give up a partition");
    let mut other = second.stream();
    let other_counting = CountingWaker::new();
    let other_waker = Waker::from(Arc::clone(&other_counting));
    assert!(poll_once(&mut other, &other_waker).is_pending());
    assert!(poll_once(&mut stream, &waker).is_pending());
    assert_eq!(other_counting.calls(), 1, "the new member was not woken when its share was free");
    assert!(poll_once(&mut other, &other_waker).is_pending());
    for partition in 0..2 {
        send_numbers(&broker, "t", partition, 0..1);
    }
    // One each, and each is woken for its own.
    assert_eq!((counting.calls(), other_counting.calls()), (2, 2));
    assert_eq!(ready(poll_once(&mut stream, &waker)), 0);
    assert!(poll_once(&mut stream, &waker).is_pending());
    assert_eq!(ready(poll_once(&mut other, &other_waker)), 0);
    assert!(poll_once(&mut other, &other_waker).is_pending());
}

#[test]
fn a_typed_stream_yields_values_and_bad_bytes() {
    let broker = numbers(1, 0);
    broker.producer().typed::<(u8, String)>("t").send(&(7, "seven".into())).unwrap();
    broker.producer().send(Record::to("t").value("no value")).unwrap();
    let builder = broker.consumer("g").subscribe(["t"]);
    let mut consumer = builder.open_typed::<(u8, String)>().unwrap();
    let mut stream = consumer.stream();
    let Poll::Ready(Some(Ok(good))) = poll_once(&mut stream, Waker::noop()) else {
        panic!("no message");
    };
    assert_eq!(good.value.unwrap(), Some((7, "seven".into())));
    let Poll::Ready(Some(Ok(bad))) = poll_once(&mut stream, Waker::noop()) else {
        panic!("no message");
    };
    assert!(bad.value.is_err());
    assert_eq!(bad.raw.value(), Some(&b"no value"[..]));
    assert!(poll_once(&mut stream, Waker::noop()).is_pending());
}

// ---- on a plain `block_on` ----------------------------------------------------------------------

#[test]
fn a_stream_waits_for_another_thread() {
    pollster::block_on(stories::a_stream_waits_for_another_thread());
}

#[test]
fn deliveries_resolve() {
    pollster::block_on(stories::deliveries_resolve());
}

#[test]
fn a_stream_waits_for_what_is_durable() {
    pollster::block_on(stories::a_stream_waits_for_what_is_durable());
}

#[test]
fn a_worker_commits_each_message() {
    pollster::block_on(stories::a_worker_commits_each_message());
}

#[test]
fn a_task_sends() {
    pollster::block_on(stories::a_task_sends());
}

#[test]
fn a_stream_of_its_own() {
    pollster::block_on(stories::a_stream_of_its_own());
}

/// Both in one task, by hand: no spawning, no executor's help.
#[test]
fn two_streams_of_a_group_share_one_task() {
    two_streams_of_a_group(|mut futures| {
        let mut left = futures.len();
        pollster::block_on(poll_fn(|context| {
            futures.retain_mut(|future| {
                let is_pending = pin!(future).poll(context).is_pending();
                left -= usize::from(!is_pending);
                is_pending
            });
            if left == 0 { Poll::Ready(()) } else { Poll::Pending }
        }));
    });
}

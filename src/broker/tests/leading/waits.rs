//! Calls of the leader that wait for a majority.

use std::task::{Context, Poll, Waker};

use super::*;
use crate::config::{Acks, StartAt, TopicConfig};
use crate::error::{Error, Result};
use crate::producer::{Producer, SendOutcome};
use crate::record::{Offsets, Record, TopicPartition};

/// How the wait of a call ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Agreed,
    Lost,
    TimedOut,
    Closed,
}

const ENDS: [End; 4] = [End::Agreed, End::Lost, End::TimedOut, End::Closed];

/// A leader with a topic of two partitions, of a member that nobody follows any more.
fn leader(durability: Durability) -> Member {
    let mut member = Member::new(durability);
    member.lead(1);
    member.agree_always();
    member.broker.ensure_topic("t", TopicConfig::new(2)).unwrap();
    member.agree_no_more();
    member
}

fn record() -> Record<'static> {
    Record::to("t").partition(0).value("x")
}

/// What was appended, of all logs.
fn appended(member: &Member) -> u64 {
    member.ends().iter().map(|(_, _, end)| end).sum()
}

/// Runs a call that appends and then waits, until its wait ends in this way.
fn ends(member: &Member, end: End, call: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    let before = appended(member);
    // Of what waited before.
    member.leadership.expire_waits(Duration::ZERO);
    thread::scope(|scope| {
        let called = scope.spawn(call);
        // Some calls append more than once before they wait.
        while appended(member) == before || (end != End::Agreed && !member.leadership.has_waits()) {
            assert!(!called.is_finished(), "it waits for no majority: {:?}", called.join());
            thread::yield_now();
        }
        match end {
            End::Agreed => {
                while !called.is_finished() {
                    member.agree();
                    thread::yield_now();
                }
            }
            End::Lost => member.lose(1),
            End::TimedOut => member.expire(&called),
            End::Closed => member.broker.clone().close().unwrap(),
        }
        called.join().unwrap()
    })
}

fn check(name: &str, end: End, result: &Result<()>) {
    let is_expected = match (end, result) {
        (End::Agreed, Ok(()))
        | (End::Lost, Err(Error::LeadershipLost))
        | (End::TimedOut, Err(Error::Timeout))
        | (End::Closed, Err(Error::Closed)) => true,
        (_, Err(Error::PartialBatch { source, .. })) => {
            return check(name, end, &Err(Error::clone(source)));
        }
        _ => false,
    };
    assert!(is_expected, "{name}, {end:?}: {result:?}");
    assert!(result.as_ref().err().is_none_or(|error| !error.is_definite()), "{name}");
}

/// Has the leader make a call, and ends its wait in each way, at both levels.
fn each_end<S>(
    name: &str,
    prepare: impl Fn(&mut Member) -> S,
    call: impl Fn(&S, &Broker) -> Result<()> + Sync,
) where
    S: Sync,
{
    for durability in [Durability::Os, Durability::Sync] {
        for end in ENDS {
            let mut member = leader(durability);
            let prepared = prepare(&mut member);
            let broker = member.broker.clone();
            let result = ends(&member, end, || call(&prepared, &broker));
            check(name, end, &result);
        }
    }
}

fn producer(member: &mut Member) -> Producer {
    member.broker.producer()
}

#[test]
fn a_send_waits_until_a_majority_has_the_record() {
    each_end("send", producer, |producer, _| producer.send(record()).map(drop));
    each_end("send_batch", producer, |producer, _| {
        let other = Record::to("t").partition(1).value("x");
        producer.send_batch([record(), other]).map(drop)
    });
    each_end("append", producer, |_, broker| {
        broker.topic("t")?.partition(0)?.append(&Record::new().value("x")).map(drop)
    });
    each_end("append_batch", producer, |_, broker| {
        broker.topic("t")?.partition(0)?.append_batch(&[Record::new().value("x")]).map(drop)
    });
    each_end("append_if", producer, |_, broker| {
        broker.topic("t")?.partition(0)?.append_if(0, &[Record::new().value("x")]).map(drop)
    });
    each_end("delivery", producer, |producer, _| producer.enqueue(record())?.wait().map(drop));
    each_end("delivery with a long timeout", producer, |producer, _| {
        let delivery = producer.enqueue(record())?;
        delivery.wait_timeout(Duration::MAX).unwrap().map(drop)
    });
    each_end("flush", producer, |producer, _| {
        drop(producer.enqueue(record())?);
        producer.flush()
    });
}

#[test]
fn a_change_waits_until_a_majority_has_it() {
    each_end("create_topic", producer, |_, broker| {
        broker.admin().create_topic("new", TopicConfig::new(1)).map(drop)
    });
    each_end("ensure_topic", producer, |_, broker| {
        broker.ensure_topic("new", TopicConfig::new(1)).map(drop)
    });
    each_end("alter_topic", producer, |_, broker| {
        broker.admin().alter_topic("t", |it| it.retention(Duration::from_secs(9)))
    });
    each_end("a producer id", producer, |_, broker| {
        broker.producer_builder().id("p").build().map(drop)
    });
}

/// A member that has committed nothing yet, of a group that the majority knows.
fn member_of_group(member: &mut Member) -> crate::sync::Mutex<crate::consumer::Consumer> {
    member.agree_always();
    member.broker.producer().send(record()).unwrap();
    let mut consumer = member.broker.consumer("g").subscribe(["t"]).open().unwrap();
    assert_eq!(consumer.poll(Duration::ZERO).unwrap().len(), 1);
    member.agree_no_more();
    member.agree();
    crate::sync::Mutex::new(consumer)
}

#[test]
fn a_commit_waits_until_a_majority_has_it() {
    each_end("commit", member_of_group, |consumer, _| consumer.lock().commit());
    each_end("commit_offsets", member_of_group, |consumer, _| {
        let offsets = Offsets::from([(TopicPartition::from(("t", 0)), 1)]);
        consumer.lock().commit_offsets(&offsets)
    });
    let no_member = |member: &mut Member| drop(member_of_group(member));
    each_end("reset_offsets", no_member, |(), broker| {
        broker.admin().reset_offsets("g", "t", StartAt::Latest).map(drop)
    });
    each_end("delete_group", no_member, |(), broker| broker.admin().delete_group("g"));
}

/// What is not waited for is published, and in time a majority has it.
#[test]
fn commit_soon_waits_for_nobody() {
    let mut member = leader(Durability::Sync);
    let consumer = member_of_group(&mut member);
    consumer.lock().commit_soon().unwrap();
    let offsets = member.broker.run().coordinator().offsets().partition().clone();
    assert!(offsets.log().ends().watermark() < offsets.log_end());
}

/// A retry is answered when the original is certain.
#[test]
fn a_duplicate_waits_until_a_majority_has_the_original() {
    for end in ENDS {
        let mut member = leader(Durability::Os);
        member.agree_always();
        let producer = member.broker.producer_builder().id("p").build().unwrap();
        member.agree_no_more();
        let result =
            ends(&member, End::TimedOut, || producer.send_sequenced(1, record()).map(drop));
        check("the original", End::TimedOut, &result);
        let result = thread::scope(|scope| {
            let again = scope.spawn(|| {
                let outcome = producer.send_sequenced(1, record())?;
                assert_eq!(outcome, SendOutcome::Duplicate { last: 1 });
                Ok(())
            });
            // Its wait is listed before it can be answered.
            while !member.leadership.has_waits() {
                assert!(!again.is_finished(), "it waits for no majority");
                thread::yield_now();
            }
            assert!(!again.is_finished());
            match end {
                End::Agreed => member.agree(),
                End::Lost => member.lose(1),
                End::TimedOut => member.expire(&again),
                End::Closed => member.broker.clone().close().unwrap(),
            }
            again.join().unwrap()
        });
        check("the duplicate", end, &result);
    }
}

#[test]
fn a_delivery_is_a_future_that_wakes_its_task() {
    for durability in [Durability::Os, Durability::Sync] {
        for end in ENDS {
            let member = leader(durability);
            let mut delivery = Box::pin(member.broker.producer().enqueue(record()).unwrap());
            let mut context = Context::from_waker(Waker::noop());
            let mut poll = |delivery: &mut std::pin::Pin<Box<crate::producer::Delivery>>| {
                std::future::Future::poll(delivery.as_mut(), &mut context)
            };
            assert!(poll(&mut delivery).is_pending());
            member.broker.tick().unwrap();
            assert!(poll(&mut delivery).is_pending(), "durable here, and nowhere else");
            assert!(delivery.wait_timeout(Duration::ZERO).is_none());
            match end {
                End::Agreed => member.agree(),
                End::Lost => member.lose(1),
                End::TimedOut => {
                    assert_eq!(
                        member.leadership.expire_waits(member.clock.monotonic()),
                        Some(member.clock.monotonic() + ACK_TIMEOUT)
                    );
                    member.clock.advance(ACK_TIMEOUT);
                    assert_eq!(member.leadership.expire_waits(member.clock.monotonic()), None);
                }
                End::Closed => member.broker.clone().close().unwrap(),
            }
            let Poll::Ready(result) = poll(&mut delivery) else { panic!("{end:?}: pending") };
            check("a future", end, &result.map(drop));
        }
    }
}

/// Who drops a delivery leaves no wait behind.
#[test]
fn a_delivery_that_is_dropped_waits_no_more() {
    let member = leader(Durability::Os);
    let mut delivery = Box::pin(member.broker.producer().enqueue(record()).unwrap());
    let mut context = Context::from_waker(Waker::noop());
    assert!(std::future::Future::poll(delivery.as_mut(), &mut context).is_pending());
    assert!(member.leadership.has_waits());
    drop(delivery);
    assert_eq!(member.leadership.expire_waits(Duration::ZERO), None);
    assert!(!member.leadership.has_waits());
}

#[test]
fn acks_of_the_leader_wait_for_nobody_and_quorum_is_the_default() {
    let member = leader(Durability::Os);
    let lone = member.broker.producer_builder().acks(Acks::Leader).build().unwrap();
    lone.send(record()).unwrap();
    lone.send_batch([record(), record()]).unwrap();
    lone.enqueue(record()).unwrap().wait().unwrap();
    lone.flush().unwrap();
    assert_eq!(member.core("t", 0).log_end(), 4);
    let quorum = member.broker.producer_builder().acks(Acks::Quorum).build().unwrap();
    for producer in [member.broker.producer(), quorum] {
        let delivery = producer.enqueue(record()).unwrap();
        assert!(delivery.wait_timeout(Duration::ZERO).is_none());
    }
}

#[test]
fn what_a_majority_has_when_the_leadership_is_lost_is_acknowledged() {
    let member = leader(Durability::Os);
    let producer = member.broker.producer();
    let kept = producer.enqueue(record()).unwrap();
    member.agree();
    let lost = producer.enqueue(record()).unwrap();
    member.lose(1);
    assert_eq!(kept.wait().unwrap().offset, 0);
    check("above the watermark", End::Lost, &lost.wait().map(drop));
}

#[test]
fn a_flush_reports_a_leadership_that_was_lost_since_the_last_one_once() {
    let member = leader(Durability::Os);
    let producer = member.broker.producer();
    drop(producer.enqueue(record()).unwrap());
    member.agree();
    member.lose(1);
    producer.flush().unwrap();
    member.lead(2);
    drop(producer.enqueue(record()).unwrap());
    member.lose(2);
    // A later leadership here keeps what there is; but the call cannot know.
    member.lead(3);
    member.agree();
    let flushed = producer.flush();
    assert!(matches!(flushed, Err(Error::LeadershipLost)), "{flushed:?}");
    producer.flush().unwrap();
    drop(producer.enqueue(record()).unwrap());
    member.lose(3);
    let flushed = producer.flush();
    assert!(matches!(flushed, Err(Error::LeadershipLost)), "{flushed:?}");
}

#[test]
fn without_a_majority_or_room_an_append_is_refused_at_once() {
    let mut member = Member::with(Durability::Os, 1_000, |builder| builder);
    member.lead(1);
    member.agree_always();
    member.broker.ensure_topic("t", TopicConfig::new(2)).unwrap();
    member.agree_no_more();
    let producer = member.broker.producer();
    let value = "x".repeat(300);
    let send = || producer.enqueue(Record::to("t").partition(0).value(&value)).map(drop);
    let refused = |result: Result<()>, reached: (usize, usize)| {
        let error = result.unwrap_err();
        assert!(error.is_definite() && error.is_retriable() && !error.is_fatal());
        assert!(
            matches!(error, Error::NotEnoughReplicas { reachable, required }
                if (reachable, required) == reached),
            "{error:?}"
        );
    };
    member.leadership.note_reach(2, 2);
    let appended = (0..100).take_while(|_| send().is_ok()).count();
    assert_eq!(appended, 2);
    refused(send(), (2, 2));
    producer.enqueue(Record::to("t").partition(1).value("x")).map(drop).unwrap();
    Quorum::of(&member.core("t", 0)).advance(1);
    send().unwrap();
    refused(send(), (2, 2));
    member.agree();
    // One that is larger than the bound is taken alone.
    let large = "x".repeat(5_000);
    drop(producer.enqueue(Record::to("t").partition(0).value(&large)).unwrap());
    refused(send(), (2, 2));
    member.agree();
    member.leadership.note_reach(1, 2);
    let before = member.ends();
    refused(send(), (1, 2));
    refused(member.broker.ensure_topic("new", TopicConfig::new(1)).map(drop), (1, 2));
    assert_eq!(member.ends(), before);
    member.leadership.note_reach(2, 2);
    send().unwrap();
    // The next leadership begins with room.
    while send().is_ok() {}
    member.lose(1);
    member.lead(2);
    send().unwrap();
}

/// While another member led, it may have given the id to a newer producer.
#[test]
fn a_producer_that_was_fenced_by_another_leader_is_fenced_here() {
    use crate::broker::catalog::{CatalogChange, ProducerEntry};
    let mut member = leader(Durability::Os);
    member.agree_always();
    let producer = member.broker.producer_builder().id("p").build().unwrap();
    let other = member.broker.producer_builder().id("q").build().unwrap();
    producer.send(record()).unwrap();
    let catalog = member.broker.run().logs().catalog();
    let entry = catalog.read(|it| it.producers.get("p").copied()).unwrap();
    let newer = ProducerEntry { epoch: entry.epoch + 1, ..entry };
    // As the records of the other leader would.
    catalog.append(vec![CatalogChange::Producer("p".into(), newer)]).unwrap();
    producer.send(record()).unwrap();
    member.lose(1);
    member.lead(3);
    member.agree();
    let fenced = producer.send(record());
    assert!(matches!(fenced, Err(Error::Fenced { .. })), "{fenced:?}");
    other.send(record()).unwrap();
}

/// A log that was not given the epoch takes no appends.
#[test]
fn a_log_is_led_only_once_it_has_the_epoch() {
    let member = leader(Durability::Os);
    member.lose(1);
    member.give_epoch(2, |name| name != "t-1");
    member.broker.run().leading().begin(2);
    let producer = member.broker.producer();
    drop(producer.enqueue(record()).unwrap());
    let refused = producer.enqueue(Record::to("t").partition(1).value("x")).map(drop);
    assert!(matches!(refused, Err(Error::NotLeader { .. })), "{refused:?}");
}

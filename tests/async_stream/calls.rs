//! The calls of a task, polled by hand: what they wait for, and what a dropped one leaves.

use super::*;
use logpond::{AsyncConsumer, Durability, Offsets};

type Called<'a, R> = Pin<Box<dyn Future<Output = Result<R>> + Send + 'a>>;

fn poll_call<R>(call: &mut Called<'_, R>, waker: &Waker) -> Poll<Result<R>> {
    call.as_mut().poll(&mut Context::from_waker(waker))
}

/// Not polled by an executor: the future is not ready at once.
fn poll_now<R>(call: impl Future<Output = R>) -> Option<R> {
    match pin!(call).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}

fn received(inbox: &mut AsyncConsumer<'_>) -> u64 {
    number(&poll_now(inbox.recv()).expect("a message").unwrap())
}

/// What the group has committed, durably or not.
fn committed(broker: &Broker) -> Option<u64> {
    let group = broker.admin().describe_group("g").ok()?;
    group.offsets.first()?.committed
}

/// A broker that syncs when it is asked to, with records that are not durable.
fn enqueued(count: u64) -> Broker {
    let broker = numbers(1, 0);
    for number in 0..count {
        let value = number.to_string();
        drop(broker.producer().enqueue(Record::to("t").value(&value)).unwrap());
    }
    broker
}

/// A commit in a task waits in three steps, and each leaves the thread free: a broker without
/// threads, which syncs in `tick` alone, would otherwise sync in the poll.
#[test]
fn a_commit_waits_for_its_records_and_then_for_itself_and_blocks_nobody() {
    let broker = enqueued(3);
    let partition = broker.topic("t").unwrap().partition(0).unwrap();
    let mut consumer = member(&broker, "g");
    let mut inbox = consumer.in_async();
    assert_eq!(poll_now(inbox.poll()).unwrap().unwrap().len(), 3);
    let counting = CountingWaker::new();
    let waker = Waker::from(Arc::clone(&counting));
    let mut commit: Called<'_, ()> = Box::pin(inbox.commit());
    assert!(poll_call(&mut commit, &waker).is_pending());
    assert_eq!((partition.durable_end_offset(), committed(&broker)), (0, None));
    broker.tick().unwrap();
    assert_eq!((partition.durable_end_offset(), counting.calls()), (3, 1));
    assert_eq!(committed(&broker), None, "stored before its records were durable");
    assert!(poll_call(&mut commit, &waker).is_pending(), "not durable itself");
    assert_eq!(committed(&broker), Some(3));
    broker.tick().unwrap();
    assert_eq!(counting.calls(), 2);
    assert!(matches!(poll_call(&mut commit, &waker), Poll::Ready(Ok(()))));
}

#[test]
fn a_commit_that_is_dropped_keeps_no_task_and_what_was_not_stored_is_not_committed() {
    let broker = enqueued(3);
    let mut consumer = member(&broker, "g");
    let mut inbox = consumer.in_async();
    let message = poll_now(inbox.recv()).unwrap().unwrap();
    let counting = CountingWaker::new();
    let waker = Waker::from(Arc::clone(&counting));
    let mut commit: Called<'_, ()> = Box::pin(inbox.commit_message(&message));
    assert!(poll_call(&mut commit, &waker).is_pending());
    drop((commit, waker));
    assert_eq!(Arc::strong_count(&counting), 1, "somebody keeps the waker of a dropped commit");
    broker.tick().unwrap();
    assert_eq!((counting.calls(), committed(&broker)), (0, None));
    // What is durable is stored at the first poll.
    assert!(poll_now(inbox.commit_message(&message)).is_none());
    assert_eq!(committed(&broker), Some(1));
}

/// At the levels that wait for no disk a commit is made at once, as that of a thread.
#[test]
fn a_commit_at_another_level_resolves_at_once() {
    let builder = Broker::builder().in_memory().background(false).durability(Durability::Os);
    let broker = builder.open().unwrap();
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    send_numbers(&broker, "t", 0, 0..3);
    let mut consumer = member(&broker, "g");
    let mut inbox = consumer.in_async();
    assert_eq!(received(&mut inbox), 0);
    poll_now(inbox.commit()).unwrap().unwrap();
    assert_eq!(committed(&broker), Some(1));
    poll_now(inbox.commit_offsets(&Offsets::from([(tp("t", 0), 2)]))).unwrap().unwrap();
    assert_eq!(committed(&broker), Some(2));
    let beyond = poll_now(inbox.commit_offsets(&Offsets::from([(tp("t", 0), 4)]))).unwrap();
    assert!(matches!(beyond, Err(Error::OffsetOutOfRange { .. })), "{beyond:?}");
    let mut reader = broker.reader().subscribe(["t"]).open().unwrap();
    let refused = poll_now(reader.in_async().commit()).unwrap();
    assert!(matches!(refused, Err(Error::Config(_))), "{refused:?}");
}

/// The group may take a partition away while a commit waits for the records.
#[test]
fn a_commit_of_a_partition_that_was_taken_away_meanwhile_is_refused() {
    let (clock, interval) = (manual_clock(), Duration::from_secs(10));
    let broker = Broker::builder().in_memory().clock(clock.clone()).background(false);
    let broker = broker.open().unwrap();
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    drop(broker.producer().enqueue(Record::to("t").value("0")).unwrap());
    let slow = broker.consumer("g").subscribe(["t"]).max_poll_interval(interval);
    let mut slow = slow.open().unwrap();
    let mut inbox = slow.in_async();
    assert_eq!(received(&mut inbox), 0);
    let mut commit: Called<'_, ()> = Box::pin(inbox.commit());
    assert!(poll_call(&mut commit, Waker::noop()).is_pending());
    let mut other = member(&broker, "g");
    clock.advance(interval + Duration::from_millis(1));
    broker.tick().unwrap();
    other.poll(Duration::ZERO).unwrap();
    assert_eq!(other.assignment(), [tp("t", 0)]);
    let refused = poll_call(&mut commit, Waker::noop());
    assert!(matches!(refused, Poll::Ready(Err(Error::Rebalanced { .. }))), "{refused:?}");
}

#[test]
fn a_call_that_is_dropped_keeps_no_task_and_loses_no_message() {
    let broker = numbers(1, 5);
    let mut consumer = member(&broker, "g");
    let mut inbox = consumer.in_async();
    assert_eq!(received(&mut inbox), 0);
    // The others were read ahead; the position knows one.
    assert_eq!(inbox.inner().position(("t", 0)), Some(1));
    let batch = poll_now(inbox.poll()).unwrap().unwrap();
    assert_eq!(batch.into_iter().map(|it| number(&it)).collect::<Vec<_>>(), [1, 2, 3, 4]);
    let counting = CountingWaker::new();
    let waker = Waker::from(Arc::clone(&counting));
    let mut recv: Called<'_, Message> = Box::pin(inbox.recv());
    assert!(poll_call(&mut recv, &waker).is_pending());
    send_numbers(&broker, "t", 0, 5..6);
    assert_eq!(counting.calls(), 1);
    // Woken, and cancelled before it is polled again.
    drop(recv);
    let mut poll: Called<'_, _> = Box::pin(inbox.poll());
    let Poll::Ready(Ok(batch)) = poll_call(&mut poll, &waker) else { panic!("lost") };
    assert_eq!(batch.len(), 1);
    drop(poll);
    let mut recv: Called<'_, Message> = Box::pin(inbox.recv());
    assert!(poll_call(&mut recv, &waker).is_pending());
    drop((recv, waker));
    assert_eq!(Arc::strong_count(&counting), 1, "somebody keeps the waker of a dropped call");
}

/// Other than a stream, which has no answer for it.
#[test]
fn a_wake_call_ends_a_call_and_a_shutdown_all() {
    let broker = numbers(1, 0);
    let mut consumer = member(&broker, "g");
    let mut inbox = consumer.in_async();
    let handle = inbox.handle();
    let counting = CountingWaker::new();
    let waker = Waker::from(Arc::clone(&counting));
    let mut recv: Called<'_, Message> = Box::pin(inbox.recv());
    assert!(poll_call(&mut recv, &waker).is_pending());
    handle.wake();
    assert_eq!(counting.calls(), 1);
    assert!(matches!(poll_call(&mut recv, &waker), Poll::Ready(Err(Error::Timeout))));
    drop(recv);
    assert!(poll_now(inbox.recv()).is_none(), "a wake-up that was answered ends another call");
    handle.wake();
    assert!(poll_now(inbox.poll()).unwrap().unwrap().is_empty());
    handle.shutdown();
    assert!(matches!(poll_now(inbox.recv()), Some(Err(Error::Closed))));
    assert!(matches!(poll_now(inbox.poll()), Some(Err(Error::Closed))));
}

/// Rule: a member counts as polling while a call waits, and no longer than that.
#[test]
fn a_member_is_evicted_after_its_call_was_dropped_and_not_while_it_waits() {
    let (clock, interval) = (manual_clock(), Duration::from_secs(10));
    let broker = Broker::builder().in_memory().clock(clock.clone()).background(false);
    let broker = broker.open().unwrap();
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    let first = broker.consumer("g").subscribe(["t"]).max_poll_interval(interval);
    let mut first = first.open().unwrap();
    let mut inbox = first.in_async();
    let pass = || {
        clock.advance(interval + Duration::from_millis(1));
        broker.tick().unwrap();
    };
    let mut recv: Called<'_, Message> = Box::pin(inbox.recv());
    assert!(poll_call(&mut recv, Waker::noop()).is_pending());
    (0..5).for_each(|_| pass());
    let group = broker.admin().describe_group("g").unwrap();
    assert_eq!(group.members[0].assignment.len(), 1, "evicted while it waits");
    drop(recv);
    pass();
    let mut other = member(&broker, "g");
    other.poll(Duration::ZERO).unwrap();
    assert_eq!(other.assignment().len(), 1, "a call that was dropped counts as one that waits");
}

#[test]
fn a_send_resolves_when_its_record_is_durable_and_blocks_nobody() {
    let broker = numbers(1, 0);
    let partition = broker.topic("t").unwrap().partition(0).unwrap();
    let producer = broker.producer();
    let record = Record::to("t").value("v");
    let asynchronous = producer.in_async();
    let mut send: Called<'_, _> = Box::pin(asynchronous.send(record));
    assert_eq!(partition.log_end_offset(), 0, "appended before it is polled");
    let counting = CountingWaker::new();
    let waker = Waker::from(Arc::clone(&counting));
    assert!(poll_call(&mut send, &waker).is_pending());
    assert_eq!((partition.log_end_offset(), partition.durable_end_offset()), (1, 0));
    broker.tick().unwrap();
    assert_eq!(counting.calls(), 1);
    assert!(matches!(poll_call(&mut send, &waker), Poll::Ready(Ok(it)) if it.offset == 0));
    let refused = poll_now(producer.in_async().send(Record::to("none")));
    assert!(matches!(refused, Some(Err(Error::UnknownTopic(_)))), "{refused:?}");
}

/// A thread would wait for room; a task that did so would keep its executor from making it.
#[test]
fn a_send_on_a_full_broker_is_refused_at_once() {
    let builder = Broker::builder().in_memory().background(false).max_total_bytes(1 << 20);
    let wait = WhenFull::Wait { at_most: PATIENCE };
    let broker = builder.durability(Durability::Os).when_full(wait).open().unwrap();
    broker.ensure_topic("t", small_topic(1)).unwrap();
    let producer = broker.producer();
    let full = (0..2_000).find_map(|_| {
        let sent = poll_now(producer.in_async().send(Record::to("t").value(&[0; 1 << 10])));
        sent.expect("a send that waits").err()
    });
    assert!(matches!(full, Some(Error::StorageFull { .. })), "{full:?}");
}

#[test]
fn typed_calls_and_streams_commit_too() {
    let broker = numbers(1, 0);
    broker.producer().typed::<u64>("t").send(&7).unwrap();
    broker.producer().typed::<u64>("t").send(&8).unwrap();
    let mut consumer = broker.consumer("g").subscribe(["t"]).open_typed::<u64>().unwrap();
    let mut inbox = consumer.in_async();
    let message = poll_now(inbox.recv()).unwrap().unwrap();
    assert_eq!(message.value.as_ref().unwrap(), &Some(7));
    assert!(poll_now(inbox.commit_message(&message)).is_none());
    assert_eq!(committed(&broker), Some(1));
    let mut stream = consumer.into_stream();
    let handle = stream.handle();
    let polled = poll_once(&mut stream, Waker::noop());
    assert!(matches!(polled, Poll::Ready(Some(Ok(it))) if matches!(it.value, Ok(Some(8)))));
    assert!(poll_now(stream.commit()).is_none());
    assert_eq!(committed(&broker), Some(2));
    handle.shutdown();
    assert!(matches!(poll_once(&mut stream, Waker::noop()), Poll::Ready(None)));
}

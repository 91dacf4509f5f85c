//! What ends a wait.

use super::*;

/// A reader whose pattern matched nothing waited for ever when the broker was closed: the end of
/// the broker reached a consumer through its partitions, or through its group. Rule: the broker
/// itself knows all its consumers, and calls each of them when it is closed.
// RED: src/broker/engine.rs
//   - self.gate().consumers().call_all();
#[test]
fn row_j08_the_end_of_the_broker_ends_the_wait_of_a_consumer_without_partitions() {
    for is_member in [false, true] {
        for call in [0, 1, 2] {
            let broker = filled(&[1]);
            let builder = if is_member { broker.consumer("g") } else { broker.reader() };
            let mut consumer = builder.subscribe_pattern("none-*").open().unwrap();
            let (parked, is_parked) = mpsc::channel();
            let (ends, ended) = mpsc::channel();
            thread::spawn(move || {
                parked.send(ThreadState::here()).unwrap();
                let result = match call {
                    0 => consumer.recv().map(drop),
                    1 => consumer.poll(Duration::MAX).map(drop),
                    _ => consumer.iter().next().map_or(Err(Error::Closed), |next| next.map(drop)),
                };
                ends.send(result)
            });
            is_parked.recv().unwrap().wait_until_it_sleeps();
            broker.close().unwrap();
            let result = ended.recv_timeout(PATIENCE).expect("the wait ends");
            assert!(matches!(result, Err(Error::Closed)), "{is_member} {call}: {result:?}");
        }
    }
}

/// An empty batch was a wake-up, or the end of the time: a loop that another thread wakes for its
/// own reasons could not know which. Rule: the consumer says it of its last call, whatever that was.
#[test]
fn a_wake_up_differs_from_the_end_of_the_time() {
    let broker = filled(&[2]);
    let mut consumer = broker.reader().subscribe(["t"]).open().unwrap();
    let handle = consumer.handle();
    let moment = Duration::from_millis(1);
    assert!(!consumer.was_woken());
    handle.wake();
    assert!(consumer.recv_timeout(moment).unwrap().is_none() && consumer.was_woken());
    assert!(consumer.recv_timeout(moment).unwrap().is_some() && !consumer.was_woken());
    handle.wake();
    // With a message that was read ahead.
    assert!(consumer.try_recv().unwrap().is_none() && consumer.was_woken());
    assert!(!consumer.poll(moment).unwrap().is_empty() && !consumer.was_woken());
    assert!(consumer.poll(moment).unwrap().is_empty() && !consumer.was_woken());
    handle.wake();
    assert!(consumer.poll(moment).unwrap().is_empty() && consumer.was_woken());
    assert!(consumer.recv_timeout(moment).unwrap().is_none() && !consumer.was_woken());
    handle.wake();
    assert!(matches!(consumer.recv(), Err(Error::Timeout)) && consumer.was_woken());
}

/// A poll never returned, at full speed, when the topic of a paused partition was deleted: the slot
/// could not wait for the end of a partition that had ended, and the way back to the next pass did
/// not look at the deadline. Rule: a paused partition is nothing to wait for, and every way to the
/// next pass looks at the deadline.
// RED: src/consumer/slot.rs
//   - if self.arming.is_armed() || self.is_paused {
//   + if self.arming.is_armed() {
#[test]
fn row_j15_the_deleted_topic_of_a_paused_partition_lets_the_consumer_sleep() {
    for group in [None, Some("g")] {
        let broker = filled(&[1]);
        let builder = group.map_or_else(|| broker.reader(), |group| broker.consumer(group));
        let mut consumer = builder.assign([("t", 0)]).open().unwrap();
        consumer.pause([("t", 0)]).unwrap();
        broker.admin().delete_topic("t").unwrap();
        let handle = consumer.handle();
        let (polling, is_polling) = mpsc::channel();
        let waiting = thread::spawn(move || {
            polling.send(ThreadState::here()).unwrap();
            let result = consumer.poll(Duration::from_secs(3));
            consumer.resume([("t", 0)]).unwrap();
            (result, consumer.poll(Duration::ZERO))
        });
        is_polling.recv().unwrap().wait_until_it_sleeps();
        handle.wake();
        let (paused, resumed) = waiting.join().unwrap();
        assert!(paused.unwrap().is_empty());
        assert!(matches!(resumed, Err(Error::UnknownTopic(_))), "{resumed:?}");
    }
}

/// The same of a member, which only loses the partition.
#[test]
fn a_member_loses_a_paused_partition_with_its_topic() {
    let broker = filled(&[1]);
    broker.ensure_topic("u", small_topic(1)).unwrap();
    let mut member = broker.consumer("g").subscribe(["t", "u"]).open().unwrap();
    member.pause([("t", 0)]).unwrap();
    broker.admin().delete_topic("t").unwrap();
    assert!(member.poll(Duration::from_millis(1)).unwrap().is_empty());
    assert_eq!(member.assignment(), [tp("u", 0)]);
}

/// A loop over the messages of a member that was fenced, or of a reader whose topic was deleted,
/// got the same error seven million times a second, without an end. Rule: an error that only the
/// caller can do something about ends an iteration; it is returned at once the first time, and by
/// later polls when their time is over.
// RED: src/consumer.rs
//   - is_over = lasts(&error);
// RED: src/consumer/slots.rs
//   - slot.failure.note_returned(lasts(&error));
// RED: src/consumer/poller.rs
//   - Wait::Until(_) => is_repeated,
//   + Wait::Until(_) => false,
#[test]
fn row_j17_an_error_that_lasts_ends_an_iteration_and_is_repeated_when_the_time_is_over() {
    let broker = filled(&[0]);
    let member = || broker.consumer("g").subscribe(["t"]).instance_id("i").open().unwrap();
    let fenced = member();
    let _newer = member();
    broker.ensure_topic("gone", small_topic(1)).unwrap();
    let bereft = broker.reader().subscribe(["gone"]).open().unwrap();
    let standalone = broker.consumer("h").assign([("gone", 0), ("t", 0)]).open().unwrap();
    broker.admin().delete_topic("gone").unwrap();
    let clock = SystemClock::new();
    for mut consumer in [fenced, bereft, standalone] {
        let lasts = |error: &Error| matches!(error, Error::Fenced { .. } | Error::UnknownTopic(_));
        let mut iteration = consumer.iter();
        let first = iteration.next().unwrap().unwrap_err();
        assert!(lasts(&first), "{first:?}");
        assert!(iteration.next().is_none());
        drop(iteration);
        let timeout = Duration::from_millis(30);
        for _ in 0..3 {
            let end = clock.monotonic() + timeout;
            let again = consumer.poll(timeout).unwrap_err();
            assert!(lasts(&again), "{again:?}");
            assert!(clock.monotonic() >= end, "{again:?} at once");
            assert!(lasts(&consumer.poll(Duration::ZERO).unwrap_err()));
        }
        consumer.handle().wake();
        assert!(consumer.poll(PATIENCE).unwrap().is_empty());
    }
}

#[test]
fn an_error_that_lasts_holds_up_no_other_partition() {
    let broker = filled(&[0]);
    broker.ensure_topic("gone", small_topic(1)).unwrap();
    let mut reader = broker.reader().subscribe(["gone", "t"]).open().unwrap();
    broker.admin().delete_topic("gone").unwrap();
    assert!(matches!(reader.recv(), Err(Error::UnknownTopic(_))));
    let (parked, is_parked) = mpsc::channel();
    let waiting = thread::spawn(move || {
        parked.send(ThreadState::here()).unwrap();
        let received = reader.recv().unwrap();
        // Others have had records: it is time to say it again.
        (number(&received), reader.recv(), reader)
    });
    is_parked.recv().unwrap().wait_until_it_sleeps();
    send_numbers(&broker, "t", 0, 0..1);
    let (received, again, mut reader) = waiting.join().unwrap();
    assert_eq!(received, 0);
    assert!(matches!(again, Err(Error::UnknownTopic(_))), "{again:?}");
    reader.pause([("gone", 0)]).unwrap();
    assert!(reader.poll(Duration::from_millis(1)).unwrap().is_empty());
}

/// `recv` never slept again, at full speed, once a partition that had failed was taken away or
/// paused: that it had failed was noted beside the partitions, and stayed when it went. Rule: a
/// failure is a partition's, and ends with it.
// RED: src/consumer/slots.rs
//   - self.list.iter().any(has_failed)
//   + self.has_returned_failure
#[test]
fn row_j23_a_failure_ends_with_its_partition_and_the_consumer_sleeps() {
    for is_paused in [false, true] {
        let broker = filled(&[6]);
        let builder = broker.consumer("g").subscribe(["t"]).out_of_range(StartAt::Error);
        let mut member = builder.max_poll_records(1).open().unwrap();
        assert_eq!(member.poll(Duration::ZERO).unwrap().len(), 1);
        broker.admin().delete_records(("t", 0), 5).unwrap();
        let failed = member.poll(Duration::ZERO);
        assert!(matches!(failed, Err(Error::OffsetOutOfRange { .. })), "{failed:?}");
        if is_paused {
            member.pause([("t", 0)]).unwrap();
        } else {
            broker.admin().delete_topic("t").unwrap();
        }
        let handle = member.handle();
        let (parked, is_parked) = mpsc::channel();
        let waiting = thread::spawn(move || {
            parked.send(ThreadState::here()).unwrap();
            member.recv()
        });
        is_parked.recv().unwrap().wait_until_it_sleeps();
        handle.wake();
        let woken = waiting.join().unwrap();
        assert!(matches!(woken, Err(Error::Timeout)), "{woken:?}");
    }
}

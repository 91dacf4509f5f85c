//! What ends a wait.

use super::*;

/// A reader whose pattern matched nothing waited for ever when the broker was closed: the end of
/// the broker reached a consumer through its partitions, or through its group. Rule: the broker
/// itself knows all its consumers, and calls each of them when it is closed.
// RED: src/broker/engine.rs
//   - self.consumers.call_all();
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

/// A poll never returned, at full speed, when the topic of a paused partition was deleted: the slot
/// could not wait for the end of a partition that had ended, and the way back to the next pass did
/// not look at the deadline. Rule: a paused partition is nothing to wait for, and every way to the
/// next pass looks at the deadline.
// RED: src/consumer/slot.rs
//   - if self.is_armed || self.is_paused {
//   + if self.is_armed {
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

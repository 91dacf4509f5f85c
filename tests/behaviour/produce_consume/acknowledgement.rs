//! What an acknowledgement waits for, by every way to wait; batches over several partitions.

use super::*;

#[test]
fn the_narrowest_durability_decides_what_an_acknowledgement_waits_for() {
    let dir = temp_dir();
    let broker = Broker::builder()
        .data_dir(dir.path())
        .durability(Durability::Os)
        .background(false)
        .open()
        .unwrap();
    let plain = broker.ensure_topic("plain", TopicConfig::new(1)).unwrap().partition(0).unwrap();
    let config = TopicConfig::new(1).durability(Durability::Sync);
    let synced = broker.ensure_topic("synced", config).unwrap().partition(0).unwrap();
    plain.append(&Record::new().value("a")).unwrap();
    assert_eq!((plain.log_end_offset(), plain.durable_end_offset()), (1, 0));
    synced.append(&Record::new().value("a")).unwrap();
    assert_eq!((synced.log_end_offset(), synced.durable_end_offset()), (1, 1));
    let careful = broker.producer_builder().durability(Durability::Sync).build().unwrap();
    careful.send(Record::to("plain").value("b")).unwrap();
    assert_eq!(plain.durable_end_offset(), 2);
    let quick = broker.producer_builder().durability(Durability::Os).build().unwrap();
    quick.send(Record::to("synced").value("b")).unwrap();
    assert_eq!((synced.log_end_offset(), synced.durable_end_offset()), (2, 1));
    synced.flush().unwrap();
    assert_eq!(synced.durable_end_offset(), 2);
    assert_eq!(synced.high_watermark(), 2);
}

#[test]
fn an_interval_syncs_when_its_time_is_over_on_the_brokers_clock_or_its_bytes_are_full() {
    let dir = temp_dir();
    let clock = manual_clock();
    let every = Duration::from_secs(5);
    let broker = Broker::builder()
        .data_dir(dir.path())
        .durability(Durability::Interval { every, bytes: 4000 })
        .clock(clock.clone())
        .background(false)
        .open()
        .unwrap();
    let partition = broker.ensure_topic("t", TopicConfig::new(1)).unwrap().partition(0).unwrap();
    partition.append(&Record::new().value("a")).unwrap();
    broker.tick().unwrap();
    assert_eq!(partition.durable_end_offset(), 0);
    clock.advance(Duration::from_millis(4_999));
    broker.tick().unwrap();
    assert_eq!(partition.durable_end_offset(), 0, "too early");
    clock.advance(Duration::from_millis(1));
    broker.tick().unwrap();
    assert_eq!(partition.durable_end_offset(), 1);
    partition.append(&Record::new().value(&[7; 5000])).unwrap();
    broker.tick().unwrap();
    assert_eq!(partition.durable_end_offset(), 2);
}

#[test]
fn an_enqueued_record_is_readable_at_once_and_its_delivery_waits_for_the_sync() {
    for background in [true, false] {
        let dir = temp_dir();
        let broker = Broker::builder().data_dir(dir.path()).background(background).open().unwrap();
        let partition =
            broker.ensure_topic("t", TopicConfig::new(1)).unwrap().partition(0).unwrap();
        let producer = broker.producer();
        let delivery = producer.enqueue(Record::to("t").value("a")).unwrap();
        assert_eq!(delivery.metadata().offset, 0);
        assert_eq!(read_all(&partition).len(), 1);
        assert_eq!(delivery.wait().unwrap().offset, 0);
        assert_eq!(partition.durable_end_offset(), 1);
        let delivery = producer.enqueue(Record::to("t").value("b")).unwrap();
        let answer = delivery.wait_timeout(PATIENCE).expect("in time").unwrap();
        assert_eq!(answer, delivery.metadata());
        assert_eq!(partition.durable_end_offset(), 2);
        // Again: what is durable stays so.
        assert_eq!(delivery.wait_timeout(Duration::ZERO).unwrap().unwrap().offset, 1);
    }
}

#[test]
fn a_delivery_at_a_level_without_waiting_is_resolved_at_once() {
    let dir = temp_dir();
    let broker = open_quiet(dir.path());
    let partition = broker.ensure_topic("t", TopicConfig::new(1)).unwrap().partition(0).unwrap();
    let mut delivery = broker.producer().enqueue(Record::to("t").value("a")).unwrap();
    assert!(delivery.wait_timeout(Duration::ZERO).unwrap().is_ok());
    let mut context = Context::from_waker(Waker::noop());
    assert!(matches!(Pin::new(&mut delivery).poll(&mut context), Poll::Ready(Ok(_))));
    delivery.wait().unwrap();
    assert_eq!(partition.durable_end_offset(), 0, "nobody asked for a sync");
}

#[test]
fn a_polled_delivery_never_syncs_itself_and_is_answered_by_the_next_tick() {
    let dir = temp_dir();
    let broker = Broker::builder().data_dir(dir.path()).background(false).open().unwrap();
    let partition = broker.ensure_topic("t", TopicConfig::new(1)).unwrap().partition(0).unwrap();
    for serve in [Broker::tick, Broker::flush] {
        let end = partition.log_end_offset();
        let mut delivery = broker.producer().enqueue(Record::to("t").value("a")).unwrap();
        let counter = CountingWaker::new();
        let waker = Waker::from(std::sync::Arc::clone(&counter));
        let mut context = Context::from_waker(&waker);
        for _ in 0..3 {
            assert!(Pin::new(&mut delivery).poll(&mut context).is_pending());
        }
        assert_eq!((partition.durable_end_offset(), counter.calls()), (end, 0));
        serve(&broker).unwrap();
        assert_eq!(counter.calls(), 1, "woken once");
        let answer = Pin::new(&mut delivery).poll(&mut context);
        assert!(matches!(answer, Poll::Ready(Ok(sent)) if sent.offset == end), "{answer:?}");
    }
}

/// All of an executor that parks until it is woken.
struct Unpark(thread::Thread);

impl std::task::Wake for Unpark {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.unpark();
    }
}

#[test]
fn a_polled_delivery_is_woken_by_the_background_thread() {
    let dir = temp_dir();
    let broker = Broker::open(dir.path()).unwrap();
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    let mut delivery = broker.producer().enqueue(Record::to("t").value("a")).unwrap();
    let waker = Waker::from(std::sync::Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let answer = loop {
        match Pin::new(&mut delivery).poll(&mut context) {
            Poll::Ready(answer) => break answer,
            Poll::Pending => thread::park_timeout(PATIENCE),
        }
    };
    assert_eq!(answer.unwrap().offset, 0);
}

/// More partitions than a producer has quick ways to remember, some of them met twice, one of them
/// deleted: `flush` owes every one of the others a sync, each time.
#[test]
fn flush_covers_every_partition_that_was_appended_to_and_forgets_deleted_ones() {
    const PARTITIONS: u32 = 150;
    let dir = temp_dir();
    let broker = open_quiet(dir.path());
    let topic = broker.ensure_topic("t", small_topic(PARTITIONS)).unwrap();
    broker.ensure_topic("gone", small_topic(1)).unwrap();
    let producer = broker.producer();
    for round in 1..=2 {
        for number in (0..PARTITIONS).chain(0..10) {
            producer.send(Record::to("t").partition(number).value("v")).unwrap();
        }
        if round == 1 {
            producer.send(Record::to("gone").value("v")).unwrap();
            broker.admin().delete_topic("gone").unwrap();
        }
        let is_durable = |number| {
            let partition = topic.partition(number).unwrap();
            partition.durable_end_offset() == partition.log_end_offset()
        };
        assert!((0..PARTITIONS).all(|number| !is_durable(number)));
        producer.clone().flush().unwrap();
        assert!((0..PARTITIONS).all(is_durable), "round {round}");
    }
    broker.close().unwrap();
    assert!(matches!(producer.flush(), Err(Error::Closed)));
}

#[test]
fn a_dropped_delivery_is_fire_and_forget_and_flush_makes_it_durable() {
    let dir = temp_dir();
    let broker = Broker::builder().data_dir(dir.path()).background(false).open().unwrap();
    let topic = broker.ensure_topic("t", TopicConfig::new(2)).unwrap();
    let producer = broker.producer();
    for partition in [0, 1, 0] {
        drop(producer.enqueue(Record::to("t").value("a").partition(partition)).unwrap());
    }
    let ends = || [0, 1].map(|number| topic.partition(number).unwrap().durable_end_offset());
    assert_eq!(ends(), [0, 0]);
    producer.flush().unwrap();
    assert_eq!(ends(), [2, 1]);
}

#[test]
fn flush_of_the_broker_covers_every_topic_at_any_level() {
    let dir = temp_dir();
    let broker = open_quiet(dir.path());
    for topic in ["a", "b"] {
        broker.ensure_topic(topic, TopicConfig::new(2)).unwrap();
        send_numbers(&broker, topic, 0, 0..3);
        send_numbers(&broker, topic, 1, 0..4);
    }
    broker.flush().unwrap();
    for topic in broker.admin().topics().unwrap() {
        for partition in topic.partitions {
            assert_eq!(partition.durable_end_offset, partition.log_end_offset, "{}", topic.name);
        }
    }
}

// ---- send_batch -----------------------------------------------------------------------------

#[test]
fn send_batch_answers_in_input_order_with_one_batch_per_partition() {
    let broker = in_memory();
    broker.ensure_topic("t", TopicConfig::new(3)).unwrap();
    broker.ensure_topic("u", TopicConfig::new(1)).unwrap();
    let values: Vec<String> = (0..60).map(|number| number.to_string()).collect();
    let records: Vec<Record<'_>> = values
        .iter()
        .zip(0_u32..)
        .map(|(value, number)| match number % 4 {
            3 => Record::to("u").value(value),
            partition => Record::to("t").partition(partition).value(value),
        })
        .collect();
    let sent = broker.producer().send_batch(records).unwrap();
    assert_eq!(sent.len(), 60);
    for ((value, sent), number) in values.iter().zip(&sent).zip(0_u32..) {
        let topic = if number % 4 == 3 { "u" } else { "t" };
        let partition = broker.topic(topic).unwrap().partition(sent.partition).unwrap();
        let message = partition.read(sent.offset, 1).unwrap().into_iter().next().unwrap();
        assert_eq!(text(&message), *value);
        assert_eq!(message.timestamp(), sent.timestamp);
    }
    assert!(broker.producer().send_batch([]).unwrap().is_empty());
}

#[test]
fn a_batch_that_fails_for_one_partition_says_what_was_done() {
    let broker = in_memory();
    broker.ensure_topic("t", small_topic(2)).unwrap();
    let big = vec![7; 1000];
    // Partition 0 gets one record; partition 1 more than a segment holds.
    let mut records = vec![Record::to("t").partition(0).value("a")];
    records.extend(vec![Record::to("t").partition(1).value(&big); 20]);
    records.push(Record::to("t").partition(0).value("b"));
    let partial = broker.producer().send_batch(records.clone());
    let Err(Error::PartialBatch { done, source }) = partial else { panic!("{partial:?}") };
    assert!(matches!(*source, Error::RecordTooLarge { .. }), "{source:?}");
    assert_eq!(done.len(), 22);
    let offsets: Vec<Option<u64>> = done.iter().map(|it| it.map(|it| it.offset)).collect();
    assert_eq!((offsets[0], offsets[21]), (Some(0), Some(1)));
    assert!(offsets[1..21].iter().all(Option::is_none), "{offsets:?}");
    let error = Error::PartialBatch { done, source };
    assert!(!error.is_definite());
    // Nothing at all was appended: then the error is the plain one, and definite.
    records.rotate_left(1);
    let refused = broker.producer().send_batch(records);
    assert!(matches!(&refused, Err(error) if error.is_definite()), "{refused:?}");
    assert_eq!(broker.topic("t").unwrap().partition(0).unwrap().log_end_offset(), 2);
}

#[test]
fn an_unknown_partition_in_a_batch_stops_it_before_anything_is_appended() {
    let broker = in_memory();
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    let good = Record::to("t").value("a");
    for bad in [
        Record::to("t").partition(1).value("b"),
        Record::to("none").value("b"),
        Record::new().value("b"),
    ] {
        assert!(broker.producer().send_batch([good.clone(), bad]).unwrap_err().is_definite());
    }
    assert_eq!(broker.topic("t").unwrap().partition(0).unwrap().log_end_offset(), 0);
}

/// Only what was enqueued used to be flushed, and only by the first call.
#[test]
fn a_producers_flush_covers_what_it_sent_at_any_level() {
    let broker = Broker::builder().in_memory().background(false).open().unwrap();
    let config = TopicConfig::new(1).durability(Durability::Os);
    let partition = broker.ensure_topic("t", config).unwrap().partition(0).unwrap();
    let producer = broker.producer();
    producer.send(Record::to("t").value("a")).unwrap();
    assert_eq!(partition.durable_end_offset(), 0);
    producer.clone().flush().unwrap();
    assert_eq!(partition.durable_end_offset(), 1);
    producer.send_batch([Record::to("t").value("b")]).unwrap();
    producer.flush().unwrap();
    assert_eq!(partition.durable_end_offset(), 2);
}

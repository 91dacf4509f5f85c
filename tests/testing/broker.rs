//! The broker, its time and its crashes.

use std::time::{Duration, SystemTime};

use logpond::testing::TestBroker;
use logpond::{Broker, Clock, Durability, Error, Message, Record, TopicConfig};

const MINUTE: Duration = Duration::from_secs(60);

fn send(broker: &Broker, topic: &str, value: &str) -> logpond::Result<u64> {
    Ok(broker.producer().send(Record::to(topic).value(value))?.offset)
}

fn values(broker: &TestBroker, topic: &str) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    broker.produced(topic).iter().map(|message| text(message.value().unwrap())).collect()
}

#[test]
fn the_clock_begins_at_one_moment_and_stands_still() {
    let (first, second) = (TestBroker::new(), TestBroker::in_memory());
    assert_eq!(first.clock().now(), second.clock().now());
    first.ensure_topic("t", TopicConfig::new(1)).unwrap();
    send(&first, "t", "a").unwrap();
    send(&first, "t", "b").unwrap();
    let stamps: Vec<SystemTime> = first.produced("t").iter().map(Message::timestamp).collect();
    assert_eq!(stamps, [first.clock().now(); 2]);
    first.advance(MINUTE).unwrap();
    assert_eq!(first.clock().now(), second.clock().now() + MINUTE);
}

/// A member is evicted at its time, not before: `run_until` finds the moment to a step.
#[test]
fn run_until_moves_time_in_small_steps_and_no_further() {
    let broker = TestBroker::new();
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    let member = broker.consumer("g").subscribe(["t"]).max_poll_interval(MINUTE).open().unwrap();
    let is_evicted = |broker: &TestBroker| broker.metrics().evictions > 0;
    let before = broker.clock().monotonic();
    assert!(broker.run_until(is_evicted, 2 * MINUTE));
    let evicted_at = broker.clock().monotonic();
    assert!(evicted_at >= before + MINUTE && evicted_at < before + MINUTE + MINUTE / 50);
    assert!(!broker.run_until(|_| false, MINUTE));
    assert_eq!(broker.clock().monotonic(), evicted_at + MINUTE);
    drop(member);
}

#[test]
fn a_killed_process_loses_nothing_and_its_handles_are_closed() {
    let broker = TestBroker::with(|settings| settings.durability(Durability::Os));
    broker.ensure_topic("t", TopicConfig::new(2)).unwrap();
    let (producer, topic) = (broker.producer(), broker.topic("t").unwrap());
    let mut consumer = broker.consumer("g").subscribe(["t"]).open().unwrap();
    for value in ["a", "b", "c"] {
        producer.send(Record::to("t").partition(1).value(value)).unwrap();
    }
    let held = consumer.poll(Duration::ZERO).unwrap();
    let now = broker.clock().now();

    let broker = broker.crash().kill9().unwrap();
    assert_eq!(values(&broker, "t"), ["a", "b", "c"]);
    assert_eq!(broker.clock().now(), now);
    assert!(matches!(producer.send(Record::to("t").value("d")), Err(Error::Closed)));
    assert!(matches!(topic.partition(0).unwrap().flush(), Err(Error::Closed)));
    assert!(matches!(consumer.poll(Duration::ZERO), Err(Error::Closed)));
    assert!(matches!(consumer.commit(), Err(Error::Closed)));
    assert_eq!(held.len(), 3, "messages stay readable");
    assert_eq!(values(&broker, "t"), ["a", "b", "c"], "nothing reaches the disk of the next run");
}

/// Each seed is one outcome, the acknowledged record is in all of them, and the other in some.
#[test]
fn a_power_cut_takes_some_of_what_was_not_synced() {
    let cut = |seed| {
        let broker = TestBroker::with(|settings| settings.durability(Durability::Os));
        broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
        send(&broker, "t", "kept").unwrap();
        broker.flush().unwrap();
        send(&broker, "t", "not synced").unwrap();
        values(&broker.crash().power_cut(seed).unwrap(), "t")
    };
    let outcomes: Vec<_> = (0..60).map(cut).collect();
    assert_eq!(outcomes, (0..60).map(cut).collect::<Vec<_>>(), "a seed has one outcome");
    assert!(outcomes.iter().all(|found| found.starts_with(&["kept".to_owned()])));
    let lost = outcomes.iter().filter(|found| found.len() == 1).count();
    assert!(lost > 0 && lost < 60, "lost in {lost} of 60");
}

#[test]
fn the_settings_are_used_again_after_a_crash() {
    let minute = TopicConfig::new(1).retention(MINUTE);
    let broker = TestBroker::with(move |settings| settings.topic_defaults(minute.clone()));
    let broker = broker.crash().kill9().unwrap().crash().power_cut(3).unwrap();
    let topic = broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    assert_eq!(topic.config().retention, MINUTE);
}

#[test]
#[should_panic(expected = "a test broker could not be opened")]
fn settings_that_are_refused_say_so() {
    let zero = Durability::Interval { every: Duration::ZERO, bytes: 1 };
    drop(TestBroker::with(move |settings| settings.durability(zero)));
}

#[test]
#[should_panic(expected = "the records of topic \"none\" cannot be read")]
fn a_topic_that_does_not_exist_is_named() {
    let _ = TestBroker::new().produced("none");
}

//! The broker, its time and its crashes.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, SystemTime};

use logpond::testing::{TestBroker, at_every_crash};
use logpond::{Broker, Clock, Durability, Error, Message, Record, TopicConfig};

const MINUTE: Duration = Duration::from_secs(60);

fn send(broker: &Broker, topic: &str, value: &str) -> logpond::Result<u64> {
    Ok(broker.producer().send(Record::to(topic).value(value))?.offset)
}

fn values(broker: &TestBroker, topic: &str) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    broker.produced(topic).iter().map(|message| text(message.value().unwrap())).collect()
}

/// The message of a panic.
#[track_caller]
pub(crate) fn panic_of(code: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(code)).expect_err("no panic");
    match panic.downcast::<String>() {
        Ok(message) => *message,
        Err(other) => panic!("no message: {other:?}"),
    }
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
    let crashes = r#"crashes: ["kill9()", "power_cut(3)"]"#;
    assert!(format!("{broker:?}").contains(crashes), "for the message of a failed test");
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

#[test]
fn what_was_not_synced_is_lost_by_the_worst_power_cut() {
    let broker = TestBroker::with(|settings| settings.durability(Durability::Os));
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    send(&broker, "t", "kept").unwrap();
    broker.flush().unwrap();
    send(&broker, "t", "not synced").unwrap();
    let broker = broker.crash().lose_unsynced().unwrap();
    assert_eq!(values(&broker, "t"), ["kept"]);
    let sent = broker.producer_builder().durability(Durability::Sync).build().unwrap();
    sent.send(Record::to("t").value("synced")).unwrap();
    assert_eq!(values(&broker.crash().lose_unsynced().unwrap(), "t"), ["kept", "synced"]);
}

/// A group that has committed what is lost gets the error once, and one of another topic does not.
#[test]
fn a_lost_tail_is_that_of_one_partition() {
    let broker = TestBroker::with(|settings| settings.durability(Durability::Os));
    for topic in ["t", "u"] {
        broker.ensure_topic(topic, TopicConfig::new(2)).unwrap();
        for partition in 0..2 {
            let record = Record::to(topic).partition(partition).value("v");
            broker.producer().send(record).unwrap();
        }
        let mut consumer = broker.consumer(topic).subscribe([topic]).open().unwrap();
        assert_eq!(consumer.poll(Duration::ZERO).unwrap().len(), 2);
        consumer.commit().unwrap();
    }
    let broker = broker.crash().lose_tail(("t", 1)).unwrap();
    assert_eq!((values(&broker, "t").len(), values(&broker, "u").len()), (1, 2));
    let poll = |topic: &str| {
        let mut consumer = broker.consumer(topic).subscribe([topic]).open().unwrap();
        consumer.poll(Duration::ZERO)
    };
    let lost = poll("t");
    assert!(matches!(&lost, Err(Error::Truncated { partition, .. }) if partition.partition == 1));
    assert!(poll("u").unwrap().is_empty());
}

/// Everything before the change is there, the call at which the disk stops fails, and so do later
/// ones.
#[test]
fn the_disk_stops_after_a_change() {
    let broker = TestBroker::new();
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    send(&broker, "t", "kept").unwrap();
    broker.stop_disk_after(1);
    assert!(!broker.has_stopped());
    assert!(send(&broker, "t", "written, and not synced").is_err());
    assert!(broker.has_stopped());
    assert!(send(&broker, "t", "refused").is_err());
    assert_eq!(values(&broker.crash().lose_unsynced().unwrap(), "t"), ["kept"]);
}

/// The check sees an unacknowledged record that is lost, one that is not, and no lost promise; a
/// service that promises too early is found.
#[test]
fn every_crash_is_tried_and_a_promise_that_is_made_too_early_is_found() {
    let setup = || {
        let broker = TestBroker::new();
        broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
        broker
    };
    let take = |level| {
        move |broker: &Broker| {
            let producer = broker.producer_builder().durability(level).build().unwrap();
            (0..2).take_while(|_| producer.send(Record::to("t").value("v")).is_ok()).count()
        }
    };
    let lost = |level| {
        let (lost, whole) = (Cell::new(0), Cell::new(0));
        let tried = at_every_crash(setup, take(level), |taken, broker| {
            let found = broker.produced("t").len();
            lost.set(lost.get() + usize::from(found < taken));
            whole.set(whole.get() + usize::from(found == 2));
        });
        assert!(tried >= 8 && whole.get() >= 4, "{tried}");
        lost.get()
    };
    assert_eq!(lost(Durability::Sync), 0);
    assert!(lost(Durability::Os) > 0);
}

/// Bit rot below what was synced later is damage; the record after it is readable.
#[test]
fn a_corrupt_record_is_found_after_a_crash_and_by_verify() {
    let broker = TestBroker::new();
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    for value in ["a", "b", "c"] {
        send(&broker, "t", value).unwrap();
    }
    assert!(broker.admin().verify("t").unwrap().is_ok());
    broker.faults().corrupt_record(("t", 0), 1);
    assert_eq!(broker.admin().verify("t").unwrap().damage.len(), 1);
    let broker = broker.crash().kill9().unwrap();
    let partition = broker.topic("t").unwrap().partition(0).unwrap();
    assert!(matches!(partition.read(1, 1), Err(Error::Corrupt(_))));
    assert_eq!(partition.read(2, 1).unwrap().iter().next().unwrap().value(), Some(&b"c"[..]));
    let absent = panic_of(|| broker.faults().corrupt_record(("t", 0), 3));
    assert!(absent.starts_with("record 3 of t-0 cannot be corrupted"), "{absent}");
}

/// A run prints the same on every machine.
#[test]
fn with_one_thread_everything_is_the_same_in_every_run() {
    let run = || {
        let broker = TestBroker::with(|settings| settings.seed(7).durability(Durability::Os));
        broker.ensure_topic("t", TopicConfig::new(3).segment_bytes(16 << 10)).unwrap();
        let producer = broker.producer_builder().id("p").build().unwrap();
        let mut members: Vec<_> = (0..2)
            .map(|_| {
                broker.consumer("g").subscribe(["t"]).max_poll_interval(MINUTE).open().unwrap()
            })
            .collect();
        for number in 0..40_u32 {
            let (key, value) = (format!("key {}", number % 7), vec![0; 1_000]);
            let record = if number % 3 == 0 { Record::to("t") } else { Record::to("t").key(&key) };
            producer.send(record.value(&value)).unwrap();
            let _ = broker.advance(Duration::from_secs(7));
            let member = &mut members[number as usize % 2];
            drop(member.poll(Duration::ZERO));
            drop(member.commit());
        }
        let calls = broker.calls();
        let broker = broker.crash().power_cut(11).unwrap();
        let stamps: Vec<_> = broker.produced("t").iter().map(Message::timestamp).collect();
        format!("{calls:?} {stamps:?} {} {:?}", broker.show("t"), broker.recovery())
    };
    let first = run();
    assert!(first.contains("Rebalance") && first.contains("t-2: offsets"));
    assert_eq!(first, run());
}

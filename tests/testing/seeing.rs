//! What a test sees: calls, records, offsets, and the messages of assertions.

use std::time::Duration;

use logpond::testing::{Call, ErrorKind, RebalanceKind, TestBroker};
use logpond::{Broker, Offsets, Record, TopicConfig};

use super::broker::panic_of;

fn broker() -> TestBroker {
    let broker = TestBroker::new();
    broker.ensure_topic("t", TopicConfig::new(2)).unwrap();
    broker
}

fn lines(broker: &TestBroker) -> Vec<String> {
    broker.calls().iter().map(ToString::to_string).collect()
}

#[test]
fn each_call_is_listed_with_its_answer() {
    let broker = broker();
    let named = broker.producer_builder().id("p").build().unwrap();
    let record = |value: &'static str| Record::to("t").partition(0).value(value);
    named.send(record("a")).unwrap();
    broker.producer().send_batch([record("b"), record("c")]).unwrap();
    broker.producer().enqueue(record("d")).unwrap().wait().unwrap();
    broker.faults().fail_next_append(("t", 0), ErrorKind::StorageFull);
    broker.producer().send(record("e")).unwrap_err();

    let mut consumer = broker.consumer("g").subscribe(["t"]).open().unwrap();
    consumer.poll(Duration::ZERO).unwrap();
    consumer.commit().unwrap();
    consumer.poll(Duration::ZERO).unwrap();
    consumer.close().unwrap();
    let mut reader = broker.reader().subscribe(["t"]).open().unwrap();
    reader.recv().unwrap();

    assert_eq!(
        lines(&broker),
        [
            "send to t-0 by p: offset 0",
            "send to t-0: offsets 1 to 2",
            "enqueue to t-0: offset 3",
            "send to t-0: no space left for /logpond/t/0; free some, or delete records",
            "rebalance of g: Assigned t-0, t-1",
            "poll of g: t-0 offsets 0 to 3",
            "commit of g: t-0 next 4, t-1 next 0",
            "poll of g: nothing",
            "rebalance of g: Revoked t-0, t-1",
            "poll: t-0 offset 0",
        ]
    );
    let calls = broker.calls();
    let count = |is: fn(&Call) -> bool| calls.iter().filter(|it| is(it)).count();
    assert_eq!((count(Call::is_send), count(Call::is_poll), count(Call::is_commit)), (4, 3, 1));
    assert_eq!((count(Call::is_rebalance), count(Call::is_err)), (2, 1));
    broker.forget_calls();
    assert!(broker.calls().is_empty());
}

#[test]
fn an_eviction_is_listed_as_a_loss() {
    let broker = broker();
    let mut consumer = broker.consumer("g").subscribe(["t"]).open().unwrap();
    broker.forget_calls();
    broker.faults().evict("g");
    consumer.poll(Duration::ZERO).unwrap();
    let changes = broker.calls().into_iter().filter_map(|call| match call {
        Call::Rebalance { kind, partitions, .. } => Some((kind, partitions.len())),
        _ => None,
    });
    let kinds: Vec<_> = changes.collect();
    assert_eq!(kinds, [(RebalanceKind::Lost, 2), (RebalanceKind::Assigned, 2)]);
}

#[test]
fn records_are_found_by_their_key_and_offsets_by_their_group() {
    let broker = broker();
    for (partition, key) in [(0, "ann"), (0, "bob"), (1, "ann")] {
        broker.producer().send(Record::to("t").partition(partition).key(key).value("v")).unwrap();
    }
    let of_ann = broker.produced_with_key("t", "ann");
    assert_eq!(
        of_ann.iter().map(|it| (it.partition(), it.offset())).collect::<Vec<_>>(),
        [(0, 0), (1, 0)]
    );
    let mut consumer = broker.consumer("g").subscribe(["t"]).open().unwrap();
    let offsets =
        |ends: [u64; 2]| Offsets::from([(("t", 0).into(), ends[0]), (("t", 1).into(), ends[1])]);
    consumer.commit_offsets(&Offsets::from([(("t", 0).into(), 1)])).unwrap();
    assert_eq!(broker.committed("g"), Offsets::from([(("t", 0).into(), 1)]));
    assert_eq!(broker.lag("g"), offsets([1, 1]));
    assert!(broker.committed("nobody").is_empty() && broker.lag("nobody").is_empty());
}

#[test]
fn the_log_is_shown_as_text_where_it_is_text() {
    let broker = broker();
    let long = "x".repeat(100);
    let send = |record: Record<'_>| broker.producer().send(record.partition(0)).unwrap();
    send(Record::to("t").key("user-7").value("2 \"apples\"").header("trace", "abc"));
    send(Record::to("t").key(&[0, 255][..]).tombstone());
    send(Record::to("t").value(&long));
    let shown = broker.show("t");
    let expected = format!(
        "t-0: offsets from 0, next 3\n  \
         0  key \"user-7\"  value \"2 \\\"apples\\\"\"  trace: \"abc\"\n  \
         1  key 0x00ff  tombstone\n  \
         2  value \"{}\".. (100 bytes)\n\
         t-1: offsets from 0, next 0\n",
        "x".repeat(64)
    );
    assert_eq!(shown, expected);
}

#[test]
fn an_assertion_about_records_shows_the_log() {
    let broker = broker();
    broker.producer().send(Record::to("t").partition(1).key("k").value("2 apples")).unwrap();
    broker.assert_produced("t", ["2 apples"]);
    let message = panic_of(|| broker.assert_produced("t", ["2 apples", "1 pear"]));
    assert!(message.contains("0  key \"k\"  value \"2 apples\""), "{message}");
    assert!(message.contains("\"1 pear\""), "{message}");
}

/// Another thread's record ends the wait.
#[test]
fn wait_for_ends_with_the_call_that_makes_its_condition_true() {
    let broker = broker();
    let sender = {
        let broker: Broker = broker.clone();
        std::thread::spawn(move || broker.producer().send(Record::to("t").value("v")).unwrap())
    };
    let has_record = |broker: &TestBroker| broker.produced("t").len() == 1;
    broker.wait_for("a record", Duration::from_secs(60), has_record);
    sender.join().unwrap();
    let message = panic_of(|| broker.wait_for("another", Duration::ZERO, |_| false));
    assert!(message.starts_with("waited 0ns for another; the calls were:"), "{message}");
    assert!(message.contains("send to t-0: offset 0"), "{message}");
}

//! Calls on handles of a topic that was deleted.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use logpond::StartAt;

use super::*;

fn assert_unknown<T: std::fmt::Debug>(what: &str, answer: Result<T, Error>) {
    let error = answer.map(|answer| panic!("{what}: {answer:?}")).unwrap_err();
    assert!(matches!(&error, Error::UnknownTopic(name) if name == "t"), "{what}: {error:?}");
    assert!(error.is_definite() && !error.is_fatal(), "{what}");
}

/// Symptom: `send` beside a deletion answered `Closed`, which is fatal and leaves the outcome open,
/// with the broker open. Cause: a partition ended in one way only. Rule: what ends with its topic
/// answers `UnknownTopic`, to those who wait too: their records are durably removed.
// RED: src/partition/status.rs
//   - if self.is_deleted.load(Ordering::Relaxed) && !self.background.has_ended() {
//   + if false {
#[test]
fn row_j20_handles_of_a_deleted_topic_say_so_and_not_that_the_broker_is_closed() {
    let dir = temp_dir();
    let broker = open_quiet(dir.path());
    let config = small_topic(1).durability(Durability::Sync);
    let topic = broker.ensure_topic("t", config).unwrap();
    let partition = topic.partition(0).unwrap();
    let compacted = TopicConfig::new(1).cleanup(logpond::Cleanup::Compact);
    broker.ensure_topic("compacted", compacted).unwrap();
    let producer = broker.producer();
    let mut reader = broker.reader().subscribe(["t"]).open().unwrap();
    let mut by_hand = broker.consumer("by-hand").assign([("t", 0)]).open().unwrap();
    let mut member = broker.consumer("g").subscribe(["t", "compacted"]).open().unwrap();
    producer.send(Record::to("t").value("durable")).unwrap();
    let record = || Record::to("t").partition(0).value("waits");
    let waiting = producer.enqueue(record()).unwrap();
    let mut polled = producer.enqueue(record()).unwrap();
    let timed = producer.enqueue(record()).unwrap();
    broker.admin().delete_topic("t").unwrap();

    assert_unknown("wait", waiting.wait());
    assert_unknown("wait_timeout", timed.wait_timeout(PATIENCE).unwrap());
    match Pin::new(&mut polled).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => assert_unknown("future", answer),
        Poll::Pending => panic!("a deletion is an answer"),
    }
    assert_unknown("append", partition.append(&Record::new().value("x")));
    assert_unknown("append_batch", partition.append_batch(&[]));
    assert_unknown("append_if", partition.append_if(3, &[Record::new().value("x")]));
    assert_unknown("read", partition.read(0, 1));
    assert_unknown("offset_at", partition.offset_at(SystemTime::UNIX_EPOCH));
    assert_unknown("flush", partition.flush());
    assert_unknown("append", topic.partition(0).unwrap().append(&Record::new()));
    assert_unknown("send", producer.send(record()));
    assert_unknown("send_batch", producer.send_batch([record(), record()]));
    assert_unknown("poll", reader.poll(Duration::ZERO));
    assert_unknown("commit", by_hand.commit_offsets(&Offsets::from([(tp("t", 0), 1)])));
    assert_unknown("commit", by_hand.commit());
    assert_unknown("committed", by_hand.committed(("t", 0)));
    assert_unknown("seek", by_hand.seek(("t", 0), StartAt::Time(SystemTime::UNIX_EPOCH)));
    assert_unknown("delete_records", broker.admin().delete_records(("t", 0), 1));
    // The consumers that remain work without the topic.
    producer.flush().unwrap();
    broker.flush().unwrap();
    broker.tick().unwrap();
    assert!(member.poll(Duration::ZERO).unwrap().is_empty());
    member.commit().unwrap();
    assert_eq!(member.assignment(), [tp("compacted", 0)]);

    // A topic of that name is another one.
    broker.ensure_topic("t", small_topic(1)).unwrap();
    assert_unknown("append", partition.append(&Record::new().value("x")));
    producer.send(record()).unwrap();

    broker.close().unwrap();
    let closed = partition.append(&Record::new().value("x"));
    assert!(matches!(closed, Err(Error::Closed)), "{closed:?}");
    assert!(matches!(partition.read(0, 1), Err(Error::Closed)));
}

/// A batch whose partitions are all gone was not sent at all, and its answer says so.
#[test]
fn senders_beside_deletions_never_hear_that_the_broker_is_closed() {
    let broker = in_memory();
    let deleting = {
        let broker = broker.clone();
        thread::spawn(move || {
            for _ in 0..100 {
                broker.ensure_topic("t", small_topic(2)).unwrap();
                broker.admin().delete_topic("t").unwrap();
            }
        })
    };
    let producer = broker.producer();
    while !deleting.is_finished() {
        let record = |partition| Record::to("t").partition(partition).value("x");
        let batch = producer.send_batch([record(0), record(1)]).map(drop);
        for answer in [producer.send(record(0)).map(drop), batch] {
            match answer {
                Ok(()) => {}
                Err(Error::UnknownTopic(name)) => assert_eq!(name, "t"),
                // One partition was still there.
                Err(Error::PartialBatch { source, .. }) => {
                    assert!(matches!(*source, Error::UnknownTopic(_)), "{source:?}");
                }
                Err(error) => panic!("{error:?}"),
            }
        }
    }
    deleting.join().unwrap();
}

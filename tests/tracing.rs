//! Goal: with the feature `tracing` a subscriber hears what the engine does by itself, with the
//! facts, and may use the broker while it hears it.
//!
//! Method: a subscriber that keeps each event as a line, on the thread of a broker without
//! background threads. Not covered: failed background work, which needs a disk that refuses more
//! than syncs (`src/broker/tests/tracing.rs`).
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex, Once, OnceLock};
use std::time::Duration;

use logpond::testing::TestBroker;
use logpond::{Broker, Cleanup, Durability, Error, Record, TopicConfig};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record as SpanRecord};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};

use common::{drain, files_below, quiet, small_topic, temp_dir};

mod common;

const MINUTE: Duration = Duration::from_secs(60);
const VALUE: [u8; 1_000] = [b'v'; 1_000];
/// How a line begins that says that a subscriber could not use the broker.
const FAILED: &str = "the subscriber failed";

#[derive(Clone, Default)]
struct Heard {
    lines: Arc<Mutex<Vec<String>>>,
    /// Asked for its metrics and appended to at each event, which no lock of the engine survives.
    broker: Arc<OnceLock<Broker>>,
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.0.insert_str(0, &format!("{value:?}")),
            name => write!(self.0, " {name}={value:?}").unwrap(),
        }
    }
}

impl Subscriber for Heard {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "logpond"
    }

    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &SpanRecord<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.lines.lock().unwrap().push(line.0);
        // The engine ends a panic of a subscriber with the event, so it would go unnoticed here.
        if let Err(error) = self.use_broker() {
            self.lines.lock().unwrap().push(format!("{FAILED}: {error}"));
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl Heard {
    fn use_broker(&self) -> logpond::Result<()> {
        let Some(broker) = self.broker.get() else { return Ok(()) };
        let _ = broker.metrics();
        if let Ok(topic) = broker.topic("t") {
            let record = Record::new().key("key").value("from the subscriber");
            topic.partition(0)?.append(&record)?;
        }
        Ok(())
    }

    /// One subscriber is there all the time. Otherwise an event that is emitted for the first time
    /// while there is none, in the thread of another test, could be cached as disabled for good.
    fn new() -> Self {
        static ALWAYS: Once = Once::new();
        ALWAYS.call_once(|| tracing::subscriber::set_global_default(Self::default()).unwrap());
        Self::default()
    }

    /// What was heard during `what`, the internal logs aside.
    fn during<R>(&self, what: impl FnOnce() -> R) -> (R, Vec<String>) {
        let result = tracing::subscriber::with_default(self.clone(), what);
        let lines = std::mem::take(&mut *self.lines.lock().unwrap());
        assert!(!lines.iter().any(|line| line.starts_with(FAILED)), "{lines:?}");
        let is_own = |line: &String| line.contains("partition=__");
        (result, lines.into_iter().filter(|line| !is_own(line)).collect())
    }
}

/// Nothing is synced but what a test syncs.
fn test_broker(topic: TopicConfig) -> TestBroker {
    let broker = TestBroker::with(|settings| settings.durability(Durability::Os));
    broker.ensure_topic("t", topic).unwrap();
    broker
}

fn append(broker: &Broker, count: u64) {
    let partition = broker.topic("t").unwrap().partition(0).unwrap();
    for _ in 0..count {
        partition.append(&Record::new().key("key").value(&VALUE)).unwrap();
    }
}

#[test]
fn opening_cutting_and_closing_are_reported() {
    let (dir, heard) = (temp_dir(), Heard::new());
    let ((), lines) = heard.during(|| {
        let broker = quiet(dir.path()).open().unwrap();
        broker.ensure_topic("t", small_topic(1)).unwrap();
        broker.close().unwrap();
    });
    let path = dir.path().display();
    assert_eq!(lines[0], format!("opened dir={path} clean_shutdown=true partitions=0"));
    assert_eq!(lines.last().unwrap(), &format!("closed dir={path}"));
}

/// A tail that was torn, in a run that did not end.
#[test]
fn a_tail_that_is_cut_is_reported() {
    let (heard, broker) = (Heard::new(), test_broker(small_topic(1)));
    append(&broker, 3);
    broker.faults().corrupt_record(("t", 0), 2);
    let (broker, lines) = heard.during(|| broker.crash().kill9().unwrap());
    assert!(lines[0].starts_with("tail cut partition=t-0 end_offset=2 cut_bytes="), "{lines:?}");
    assert!(lines[1].contains("clean_shutdown=false"), "{lines:?}");
    drop(broker);
}

/// Symptom: after a `flush`, a `Delivery` or a commit whose sync had failed, a subscriber learned of
/// the poisoned partition only from a later call, or from the housekeeping of the next minute. Rule:
/// the call that returns the error delivers the event.
#[test]
fn the_call_whose_sync_fails_reports_it() {
    type Call = fn(&TestBroker) -> logpond::Result<()>;
    let sent = |broker: &TestBroker| -> logpond::Result<logpond::Producer> {
        let producer = broker.producer_builder().durability(Durability::Os).build()?;
        producer.send(Record::to("t").value("v"))?;
        Ok(producer)
    };
    let calls: [(&str, Call); 5] = [
        ("send", |broker| broker.producer().send(Record::to("t").value("v")).map(drop)),
        ("wait", |broker| broker.producer().enqueue(Record::to("t").value("v"))?.wait().map(drop)),
        ("wait_timeout", |broker| {
            let delivery = broker.producer().enqueue(Record::to("t").value("v"))?;
            delivery.wait_timeout(MINUTE).unwrap().map(drop)
        }),
        ("Broker::flush", |broker| broker.flush()),
        ("Partition::flush", |broker| broker.topic("t")?.partition(0)?.flush()),
    ];
    for (name, call) in calls {
        let (heard, broker) = (Heard::new(), TestBroker::new());
        broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
        let producer = sent(&broker).unwrap();
        broker.faults().fail_next_sync(("t", 0));
        let (failed, lines) = heard.during(|| call(&broker));
        assert!(matches!(failed, Err(Error::SyncFailed { .. })), "{name}: {failed:?}");
        let is_reported = |line: &String| line.starts_with("poisoned partition=t-0");
        assert!(lines.iter().any(is_reported), "{name}: {lines:?}");
        drop(producer);
    }
    let (heard, broker) = (Heard::new(), test_broker(small_topic(1)));
    let producer = sent(&broker).unwrap();
    broker.faults().fail_next_sync(("t", 0));
    let (failed, lines) = heard.during(|| producer.flush());
    assert!(failed.is_err() && lines[0].starts_with("poisoned partition=t-0"), "{lines:?}");

    // The end of a consumer would report it too.
    let (heard, broker) = (Heard::new(), TestBroker::new());
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    let _producer = sent(&broker).unwrap();
    let mut consumer = broker.consumer("g").subscribe(["t"]).open().unwrap();
    consumer.poll(Duration::ZERO).unwrap();
    broker.faults().fail_next_sync(("t", 0));
    let (failed, lines) = heard.during(|| consumer.commit());
    assert!(failed.is_err() && lines[0].starts_with("poisoned partition=t-0"), "{lines:?}");
}

#[test]
fn corruption_found_at_open_is_reported() {
    let (dir, heard) = (temp_dir(), Heard::new());
    let broker = quiet(dir.path()).open().unwrap();
    broker.ensure_topic("t", small_topic(1)).unwrap();
    append(&broker, 40);
    broker.close().unwrap();
    let oldest = files_below(&dir.path().join("t")).into_iter().min().unwrap();
    std::fs::remove_file(oldest).unwrap();
    let (broker, lines) = heard.during(|| quiet(dir.path()).open().unwrap());
    assert!(lines[0].starts_with("corruption corruption="), "{lines:?}");
    broker.close().unwrap();
}

#[test]
fn rolling_and_retention_are_reported_to_a_subscriber_that_uses_the_broker() {
    let (heard, broker) = (Heard::new(), test_broker(small_topic(1).retention(MINUTE)));
    heard.broker.set(broker.clone()).ok().unwrap();
    let ((), lines) = heard.during(|| {
        append(&broker, 20);
        broker.tick().unwrap();
    });
    assert!(lines.contains(&"rolled partition=t-0 base_offset=15".to_owned()), "{lines:?}");
    let ((), lines) = heard.during(|| broker.advance(2 * MINUTE).unwrap());
    let removed = lines.iter().find(|line| line.starts_with("removed")).unwrap();
    let start = broker.metrics().topics[0].partitions[0].log_start_offset;
    assert!(start >= 20, "{start}");
    let expected = format!("removed partition=t-0 log_start_offset={start} segments=");
    assert!(removed.starts_with(&expected), "{removed}");
}

/// What a consumer has missed was only in its list, which a program has to ask for.
#[test]
fn a_gap_is_reported() {
    let heard = Heard::new();
    let broker = Broker::builder().in_memory().background(false).open().unwrap();
    broker.ensure_topic("t", small_topic(1)).unwrap();
    append(&broker, 5);
    let mut reader = broker.reader().subscribe(["t"]).open().unwrap();
    broker.admin().delete_records(("t", 0), 3).unwrap();
    heard.broker.set(broker.clone()).ok().unwrap();
    let (messages, lines) = heard.during(|| drain(&mut reader));
    assert!(lines.contains(&"gap partition=t-0 start=0 end=3".to_owned()), "{lines:?}");
    assert!(messages.len() >= 2);
}

#[test]
fn compaction_is_reported() {
    let (heard, broker) = (Heard::new(), test_broker(small_topic(1).cleanup(Cleanup::Compact)));
    let ((), lines) = heard.during(|| {
        append(&broker, 100);
        broker.tick().unwrap();
        broker.tick().unwrap();
    });
    let compacted = lines.iter().find(|line| line.starts_with("compacted")).unwrap();
    assert!(compacted.starts_with("compacted partition=t-0 records_removed="), "{compacted}");
}

#[test]
fn rebalances_and_evictions_are_reported() {
    let (heard, broker) = (Heard::new(), test_broker(TopicConfig::new(2)));
    heard.broker.set(broker.clone()).ok().unwrap();
    let member = || broker.consumer("g").subscribe(["t"]).max_poll_interval(MINUTE).open().unwrap();
    let (mut member, lines) = heard.during(member);
    assert_eq!(lines, ["rebalanced group=\"g\" generation=1"]);
    drain(&mut member);
    let ((), lines) = heard.during(|| broker.advance(2 * MINUTE).unwrap());
    assert_eq!(lines, ["evicted group=\"g\" members=1", "rebalanced group=\"g\" generation=2"]);
    let ((), lines) = heard.during(|| drop(member));
    assert_eq!(lines, ["rebalanced group=\"g\" generation=3"]);
}

/// What a new, larger or deleted topic means for its groups is reported by the poll that makes the
/// plan. The subscriber appends at each event: no lock is held meanwhile.
#[test]
fn what_new_grown_and_deleted_topics_mean_for_groups_is_reported_by_the_next_poll() {
    let (heard, broker) = (Heard::new(), TestBroker::new());
    let mut member = broker.consumer("g").subscribe_pattern("t*").open().unwrap();
    heard.broker.set(broker.clone()).ok().unwrap();
    let of_group = |((), lines): ((), Vec<String>)| -> Vec<String> {
        lines.into_iter().filter(|line| line.starts_with("rebalanced")).collect()
    };
    let mut poll = || drop(member.poll(Duration::ZERO).unwrap());
    drop(broker.ensure_topic("t", TopicConfig::new(1)).unwrap());
    let created = heard.during(&mut poll);
    assert_eq!(of_group(created), ["rebalanced group=\"g\" generation=2"]);
    broker.admin().add_partitions("t", 2).unwrap();
    let grown = heard.during(&mut poll);
    assert_eq!(of_group(grown), ["rebalanced group=\"g\" generation=3"]);
    broker.admin().delete_topic("t").unwrap();
    let gone = heard.during(&mut poll);
    assert_eq!(of_group(gone), ["rebalanced group=\"g\" generation=4"]);
    drop(member);
}

/// A member of a replicated group, alone in it.
#[test]
#[cfg(feature = "replication")]
fn changes_of_a_member_of_a_replicated_group_are_reported_once() {
    use logpond::{Frame, LeaderEpoch, NodeId, Replication, Transport, TransportError};
    struct Nobody;
    impl Transport for Nobody {
        fn send(&self, _: NodeId, _: Frame) -> Result<(), TransportError> {
            Err(TransportError::Unreachable)
        }
    }
    let (dir, heard) = (temp_dir(), Heard::new());
    let replication = Replication::new(NodeId(1), [NodeId(1)], Arc::new(Nobody));
    let broker = quiet(dir.path()).replication(replication).open().unwrap();
    heard.broker.set(broker.clone()).ok().unwrap();
    let member = broker.replication().unwrap();
    let ((), led) = heard.during(|| {
        member.lead(LeaderEpoch(1)).unwrap();
        member.wait_leading(MINUTE).unwrap();
        for _ in 0..5 {
            let _ = member.tick().unwrap();
        }
    });
    let reported = |lines: &[String]| -> Vec<String> {
        lines.iter().filter(|line| line.contains("member=")).cloned().collect()
    };
    assert_eq!(reported(&led), ["leading member=1 epoch=1", "may write member=1 epoch=1"]);
    let ((), resigned) = heard.during(|| member.resign(None).unwrap());
    assert_eq!(reported(&resigned), ["leadership lost member=1 epoch=1"]);
    broker.close().unwrap();
}

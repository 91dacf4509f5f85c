//! A member that does not lead.

use super::*;
use crate::config::{Acks, Cleanup, CommitMode, StartAt, TopicConfig};
use crate::error::{Error, Result};
use crate::record::{NodeId, Offsets, Record, TopicPartition};

/// What a call of a follower does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    NotLeader,
    Works,
}

type Call = (&'static str, Expected, Box<dyn FnOnce() -> Result<()>>);

fn call(
    name: &'static str,
    expected: Expected,
    call: impl FnOnce() -> Result<()> + 'static,
) -> Call {
    (name, expected, Box::new(call))
}

/// A member that led, with two topics and a group, and follows now.
fn follower() -> Member {
    let mut member = Member::new(Durability::Os);
    member.lead(1);
    member.agree_always();
    let broker = &member.broker;
    broker.ensure_topic("plain", TopicConfig::new(2)).unwrap();
    let compacted = TopicConfig::new(1).cleanup(Cleanup::Compact);
    broker.ensure_topic("compacted", compacted).unwrap();
    let producer = broker.producer();
    for number in 0..4 {
        let record = Record::to("plain").partition(number % 2).value("x");
        producer.send(record).unwrap();
    }
    producer.send(Record::to("compacted").key("k").value("x")).unwrap();
    let mut consumer = broker.consumer("group").subscribe(["plain"]).open().unwrap();
    assert_eq!(consumer.poll(Duration::ZERO).unwrap().len(), 4);
    consumer.commit().unwrap();
    drop(consumer);
    member.agree_no_more();
    member.lose(1);
    member.leadership.note_leader(Some(NodeId(2)));
    member
}

fn appends(broker: &Broker) -> Vec<Call> {
    use Expected::{NotLeader, Works};
    let record = || Record::to("plain").partition(0).value("y");
    let plain = || Record::new().value("y");
    let producer = broker.producer();
    let lone = broker.producer_builder().acks(Acks::Leader).build().unwrap();
    let partition = || broker.topic("plain").unwrap().partition(0).unwrap();
    let (one, batch, none, at, at_none) =
        (partition(), partition(), partition(), partition(), partition());
    let (send, enqueue, send_all, flush, typed) =
        (producer.clone(), producer.clone(), producer.clone(), producer.clone(), producer.clone());
    let named = broker.clone();
    vec![
        call("send", NotLeader, move || send.send(record()).map(drop)),
        call("send, acks of the leader", NotLeader, move || lone.send(record()).map(drop)),
        call("enqueue", NotLeader, move || enqueue.enqueue(record()).map(drop)),
        call("send_batch", NotLeader, move || send_all.send_batch([record()]).map(drop)),
        call("send_batch of nothing", Works, move || producer.send_batch([]).map(drop)),
        call("flush of a producer", Works, move || flush.flush()),
        call("typed", NotLeader, move || typed.typed::<u32>("plain").send(&7).map(drop)),
        call("build with an id", NotLeader, move || {
            named.producer_builder().id("p").build().map(drop)
        }),
        call("append", NotLeader, move || one.append(&plain()).map(drop)),
        call("append_batch", NotLeader, move || batch.append_batch(&[plain()]).map(drop)),
        call("append_batch of nothing", Works, move || none.append_batch(&[]).map(drop)),
        call("append_if", NotLeader, move || at.append_if(2, &[plain()]).map(drop)),
        call("append_if of nothing", Works, move || at_none.append_if(2, &[]).map(drop)),
    ]
}

fn administration(broker: &Broker) -> Vec<Call> {
    use Expected::{NotLeader, Works};
    let admin = || broker.admin();
    let (create, delete, alter, grow, records, compact, retain, reset, forget, group) =
        (admin(), admin(), admin(), admin(), admin(), admin(), admin(), admin(), admin(), admin());
    let (topics, describe, groups, describe_group, verify) =
        (admin(), admin(), admin(), admin(), admin());
    let config = || TopicConfig::new(1);
    let (ensure, as_is, ensured, topic) =
        (broker.clone(), broker.clone(), broker.clone(), broker.clone());
    vec![
        call("create_topic", NotLeader, move || create.create_topic("new", config()).map(drop)),
        call("ensure_topic", NotLeader, move || ensure.ensure_topic("new", config()).map(drop)),
        call("ensure_topic_as_is", NotLeader, move || {
            as_is.ensure_topic_as_is("new", config()).map(drop)
        }),
        call("ensure_topic that exists", Works, move || {
            ensured.ensure_topic("plain", TopicConfig::new(2)).map(drop)
        }),
        call("topic", Works, move || topic.topic("plain").map(drop)),
        call("delete_topic", NotLeader, move || delete.delete_topic("plain")),
        call("alter_topic", NotLeader, move || alter.alter_topic("plain", |it| it)),
        call("add_partitions", NotLeader, move || grow.add_partitions("plain", 3)),
        call("delete_records", NotLeader, move || {
            records.delete_records(("plain", 0), 1).map(drop)
        }),
        call("compact_now", NotLeader, move || compact.compact_now("compacted").map(drop)),
        call("enforce_retention_now", NotLeader, move || retain.enforce_retention_now()),
        call("reset_offsets", NotLeader, move || {
            reset.reset_offsets("group", "plain", StartAt::Earliest).map(drop)
        }),
        call("forget_producer", NotLeader, move || forget.forget_producer("p")),
        call("delete_group", NotLeader, move || group.delete_group("group")),
        call("topics", Works, move || topics.topics().map(drop)),
        call("describe_topic", Works, move || describe.describe_topic("plain").map(drop)),
        call("groups", Works, move || groups.groups().map(drop)),
        call("describe_group", Works, move || {
            let info = describe_group.describe_group("group")?;
            assert_eq!((info.members.len(), info.offsets.len()), (0, 2));
            Ok(())
        }),
        call("verify", Works, move || {
            assert!(verify.verify("plain")?.is_ok());
            Ok(())
        }),
    ]
}

fn consumers(broker: &Broker) -> Vec<Call> {
    use Expected::{NotLeader, Works};
    let (member, by_hand, auto, commits, reader, read, tick, flush) = (
        broker.clone(),
        broker.clone(),
        broker.clone(),
        broker.clone(),
        broker.clone(),
        broker.clone(),
        broker.clone(),
        broker.clone(),
    );
    vec![
        call("open of a member", NotLeader, move || {
            member.consumer("group").subscribe(["plain"]).open().map(drop)
        }),
        call("a consumer by hand", Works, move || {
            let mut consumer = by_hand.consumer("group").assign([("plain", 0)]).open()?;
            assert_eq!(consumer.committed(("plain", 0))?, Some(2));
            consumer.seek(("plain", 0), StartAt::Earliest)?;
            assert_eq!(consumer.poll(Duration::ZERO)?.len(), 2);
            assert_eq!(consumer.lag()?.into_values().sum::<u64>(), 0);
            consumer.close()
        }),
        call("auto mode by hand", Works, move || {
            let every = CommitMode::Auto { every: Duration::from_nanos(1) };
            let consumer = auto.consumer("group").assign([("plain", 0)]).commit(every);
            let mut consumer = consumer.open()?;
            consumer.seek(("plain", 0), StartAt::Earliest)?;
            consumer.poll(Duration::ZERO)?;
            // A commit is due, and waits until the broker leads.
            consumer.poll(Duration::from_millis(1)).map(drop)
        }),
        call("commits by hand", NotLeader, move || {
            let mut consumer = commits.consumer("group").assign([("plain", 0)]).open()?;
            consumer.seek(("plain", 0), StartAt::Earliest)?;
            let message = consumer.recv()?;
            let offsets = Offsets::from([(TopicPartition::from(("plain", 0)), 1)]);
            let refused = [
                consumer.commit(),
                consumer.commit_soon(),
                consumer.commit_message(&message),
                consumer.commit_offsets(&offsets),
            ];
            assert!(refused.iter().all(Result::is_err), "{refused:?}");
            refused.into_iter().fold(Ok(()), Result::and)
        }),
        call("reader", Works, move || {
            let mut consumer = reader.reader().subscribe(["plain"]).open()?;
            assert_eq!(consumer.poll(Duration::ZERO)?.len(), 4);
            consumer.close()
        }),
        call("read", Works, move || {
            let partition = read.topic("plain")?.partition(0)?;
            assert_eq!(partition.read(0, 1 << 20)?.len(), 2);
            // Other members may have records there.
            assert_eq!(partition.read(9, 1 << 20)?.len(), 0);
            assert_eq!(partition.offset_at(SystemTime::UNIX_EPOCH)?, Some(0));
            assert_eq!((partition.high_watermark(), partition.log_end_offset()), (2, 2));
            partition.flush()
        }),
        call("flush", Works, move || flush.flush()),
        call("tick", Works, move || tick.tick()),
    ]
}

#[test]
fn each_call_of_a_follower_is_refused_or_works_and_appends_nothing() {
    let member = follower();
    let before = member.ends();
    let calls = appends(&member.broker).into_iter().chain(administration(&member.broker));
    for (name, expected, call) in calls.chain(consumers(&member.broker)) {
        let result = call();
        let is_expected = match &result {
            Ok(()) => expected == Expected::Works,
            Err(error @ Error::NotLeader { leader: Some(NodeId(2)) }) => {
                assert!(error.is_definite() && error.is_retriable() && !error.is_fatal());
                expected == Expected::NotLeader
            }
            Err(_) => false,
        };
        assert!(is_expected, "{name}: {result:?}");
        assert_eq!(member.ends(), before, "{name}");
    }
    let _ = member.broker.metrics();
    member.broker.clone().close().unwrap();
}

/// What time or a full budget removes, the leader removes.
#[test]
fn on_a_follower_nothing_moves_by_itself() {
    let mut member = Member::with(Durability::Os, u64::MAX, |builder| {
        builder.group_expiry(Duration::from_secs(60))
    });
    member.lead(1);
    member.agree_always();
    let config = TopicConfig::new(1).segment_bytes(16 << 10).retention(Duration::from_secs(60));
    member.broker.ensure_topic("t", config).unwrap();
    let (producer, value) = (member.broker.producer(), "x".repeat(5_000));
    for _ in 0..9 {
        producer.send(Record::to("t").value(&value)).unwrap();
    }
    let mut consumer = member.broker.consumer("g").subscribe(["t"]).open().unwrap();
    assert_eq!(consumer.poll(Duration::ZERO).unwrap().len(), 9);
    consumer.commit().unwrap();
    drop(consumer);
    member.agree_no_more();
    member.lose(1);
    member.clock.advance(Duration::from_secs(100 * 24 * 60 * 60));
    let before = member.ends();
    for _ in 0..3 {
        member.clock.advance(Duration::from_secs(61));
        member.broker.tick().unwrap();
    }
    let space = member.broker.run().space();
    assert!(!space.retention().drop_oldest().unwrap());
    assert!(!space.retention().drop_last(&member.core("t", 0)).unwrap());
    assert_eq!(member.ends(), before);
    assert_eq!(member.broker.admin().groups().unwrap().len(), 1);

    // It does when this broker leads.
    member.lead(2);
    member.agree();
    for _ in 0..3 {
        member.clock.advance(Duration::from_secs(61));
        member.broker.tick().unwrap();
        member.agree();
    }
    assert_eq!(member.core("t", 0).log_start(), 9);
    assert_eq!(member.broker.admin().groups().unwrap().len(), 0);
}

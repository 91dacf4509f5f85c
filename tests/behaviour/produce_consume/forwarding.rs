//! A batch is read by reference and by value, says where to continue, and its messages are records
//! for elsewhere.

use super::*;
use logpond::{Offsets, TopicPartition};

const NOW: Duration = Duration::ZERO;

/// Three partitions with 40 records each, over several segments; two of them read in part.
fn three_partitions(broker: &Broker) -> Vec<TopicPartition> {
    let topic = broker.ensure_topic("t", small_topic(3)).unwrap();
    for partition in topic.iter() {
        for number in 0..40 {
            let value = format!("{number:0>900}");
            partition.append(&Record::new().value(&value)).unwrap();
        }
    }
    (0..3).map(|partition| tp("t", partition)).collect()
}

#[test]
fn a_batch_is_read_by_reference_and_then_by_value() {
    let broker = in_memory();
    three_partitions(&broker);
    let mut reader = broker.reader().subscribe(["t"]).open().unwrap();
    let batch = reader.poll(NOW).unwrap();
    let mut borrowed = Vec::new();
    for message in &batch {
        borrowed.push((message.topic_partition(), message.offset()));
    }
    let iterated: Vec<_> = batch.iter().map(|m| (m.topic_partition(), m.offset())).collect();
    assert_eq!(borrowed.len(), batch.len());
    assert_eq!((&batch).into_iter().len(), batch.len());
    assert_eq!(borrowed, iterated);
    let owned: Vec<_> = batch.into_iter().map(|m| (m.topic_partition(), m.offset())).collect();
    assert_eq!(borrowed, owned);
}

/// The offsets of a batch are where its reader continues, at every size of a poll, and commit what
/// it handed out.
#[test]
fn the_next_offsets_of_a_batch_are_the_positions_behind_it() {
    let broker = in_memory();
    let parts = three_partitions(&broker);
    for most in [1, 7, 64, 500] {
        let group = format!("group-{most}");
        let mut member =
            broker.consumer(&group).subscribe(["t"]).max_poll_records(most).open().unwrap();
        let mut reached = Offsets::new();
        loop {
            let batch = member.poll(NOW).unwrap();
            if batch.is_empty() {
                break;
            }
            let next = batch.next_offsets();
            let named: BTreeSet<_> = batch.iter().map(|m| m.topic_partition()).collect();
            assert_eq!(next.keys().cloned().collect::<BTreeSet<_>>(), named);
            for (part, offset) in &next {
                assert_eq!(member.position(part), Some(*offset), "{part} at {most}");
            }
            member.commit_offsets(&next).unwrap();
            reached.extend(next);
        }
        for part in &parts {
            assert_eq!(reached.get(part), Some(&40));
            assert_eq!(member.committed(part).unwrap(), Some(40));
        }
    }
    assert_eq!(logpond::Batch::default().next_offsets(), Offsets::new());
}

#[test]
fn a_message_is_forwarded_with_all_but_its_origin() {
    let broker = in_memory();
    let from = broker.ensure_topic("from", TopicConfig::new(1)).unwrap().partition(0).unwrap();
    let to = broker.ensure_topic("to", TopicConfig::new(3)).unwrap();
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1234);
    let sent = [
        Record::new().key("k").value("v").header("a", "1").header("a", "").timestamp(at),
        Record::new().key("").tombstone().timestamp(at),
        Record::new().value("").timestamp(at),
    ];
    from.append_batch(&sent).unwrap();
    let batch = from.read(0, usize::MAX).unwrap();
    let second = to.partition(2).unwrap();
    for message in &batch {
        second.append(&Record::from(&message)).unwrap();
    }
    let producer = broker.producer();
    for message in from.read(0, usize::MAX).unwrap() {
        producer.send(Record::from(&message).topic("to").partition(1)).unwrap();
    }
    for partition in [1, 2] {
        let forwarded = to.partition(partition).unwrap().read(0, usize::MAX).unwrap();
        assert_eq!(forwarded.len(), sent.len());
        for (message, original) in forwarded.iter().zip(&batch) {
            assert_eq!(message.key(), original.key());
            assert_eq!(message.value(), original.value());
            assert_eq!(message.timestamp(), at);
            assert!(message.headers().eq(original.headers()));
        }
    }
}

#[test]
fn a_topic_is_iterated_and_its_partitions_know_their_numbers() {
    let broker = in_memory();
    let topic = broker.ensure_topic("t", TopicConfig::new(2)).unwrap();
    let numbers = || topic.iter().map(|partition| partition.number()).collect::<Vec<_>>();
    assert_eq!(numbers(), [0, 1]);
    broker.admin().add_partitions("t", 3).unwrap();
    assert_eq!(numbers(), [0, 1, 2], "a handle from before sees those that came later");
}

#[test]
fn the_brokers_clock_is_the_one_that_it_was_given() {
    let clock = manual_clock();
    let broker = Broker::builder().in_memory().clock(clock.clone()).open().unwrap();
    let before = (broker.clock().now(), broker.clock().monotonic());
    clock.advance(Duration::from_secs(5));
    assert_eq!(broker.clock().now(), before.0 + Duration::from_secs(5));
    assert_eq!(broker.clock().monotonic(), before.1 + Duration::from_secs(5));
}

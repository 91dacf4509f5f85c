//! Goal: what an application does wrong, or at a bad moment, hurts neither the log nor others: it
//! panics while it holds messages or encodes, never gives a message back, sends from within.
//!
//! Method: brokers without threads, and panics that are caught.
//!
//! Not covered: the end of a broker under load (`broker`), groups (`groups`, `membership`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::common::*;
use logpond::{Codec, CodecError, Error, Message, Partitioner, Record, TopicConfig};

// RED: src/group/membership.rs
//   - self.coordinator.leave(&self.group, self.member, &self.presence, instance);
//   + let _ = instance;
#[test]
fn row_j01_a_consumer_that_panics_commits_nothing_and_leaves_all_to_the_next() {
    let dir = temp_dir();
    let broker = open_quiet(dir.path());
    let partition = broker.ensure_topic("t", small_topic(1)).unwrap().partition(0).unwrap();
    send_numbers(&broker, "t", 0, 0..100);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let mut consumer = broker.consumer("g").subscribe(["t"]).open().unwrap();
        let held = consumer.poll(Duration::ZERO).unwrap();
        assert!(!held.is_empty());
        panic!("the application's");
    }));
    assert!(panicked.is_err());
    send_numbers(&broker, "t", 0, 100..101);
    let mut next = broker.consumer("g").subscribe(["t"]).open().unwrap();
    assert_eq!(next.committed(("t", 0)).unwrap(), None);
    let read: Vec<u64> = drain(&mut next).iter().map(number).collect();
    assert_eq!(read, (0..101).collect::<Vec<_>>());
    next.commit().unwrap();
    // Nothing is held: what was removed is freed.
    broker.admin().delete_records(("t", 0), partition.log_end_offset()).unwrap();
    drop(next);
    assert_eq!(broker.metrics().pinned_bytes, 0);
}

/// Encodes a part of every value; 1 is an error then, and 2 a panic.
struct Half;

impl Codec<u32> for Half {
    fn name(&self) -> &'static str {
        "half"
    }

    fn encode(&self, value: &u32, buffer: &mut Vec<u8>) -> Result<(), CodecError> {
        buffer.extend(b"value ");
        match value {
            1 => Err(CodecError::new("half", "no")),
            2 => panic!("the codec's"),
            value => {
                buffer.extend(value.to_string().as_bytes());
                Ok(())
            }
        }
    }

    fn decode(&self, _: &[u8]) -> Result<u32, CodecError> {
        Ok(0)
    }
}

/// Panics for the key `p`.
struct Chooses;

impl Partitioner for Chooses {
    fn partition(&self, key: Option<&[u8]>, _: u32) -> u32 {
        assert_ne!(key, Some(&b"p"[..]), "the partitioner's");
        0
    }
}

/// Code of the application's runs before anything is reserved: what fails there, half done or by a
/// panic, is no part of any batch, and nobody waits for it.
// RED: src/partition/encode.rs
//   - encoder.clear();
// RED: src/typed/producer.rs
//   - buffer.clear();
#[test]
fn row_j02_what_fails_while_it_is_encoded_leaves_no_trace() {
    let broker = in_memory();
    let config = TopicConfig::new(1).max_record_bytes(100);
    let partition = broker.ensure_topic("t", config).unwrap().partition(0).unwrap();
    let producer = broker.producer_builder().partitioner(Chooses).build().unwrap();
    let typed = broker.producer().typed_with("t", Half);
    let too_large = [Record::new().value("a"), Record::new().value(&[0; 101])];
    for round in 0..3 {
        assert!(catch_unwind(AssertUnwindSafe(|| typed.send(&2))).is_err());
        assert!(matches!(typed.send(&1), Err(Error::Codec(_))));
        typed.send(&3).unwrap();
        let panicking = || producer.send(Record::to("t").key("p").value("x"));
        assert!(catch_unwind(AssertUnwindSafe(panicking)).is_err());
        let refused = partition.append_batch(&too_large);
        assert!(matches!(refused, Err(Error::RecordTooLarge { .. })), "{refused:?}");
        producer.send(Record::to("t").key("k").value("y")).unwrap();
        assert_eq!(partition.log_end_offset(), (round + 1) * 2);
    }
    let read: Vec<String> = read_all(&partition).iter().map(text).collect();
    assert_eq!(read, ["value 3", "y"].repeat(3));
}

/// A message that is never given back keeps its segment's map, which is counted; nothing else.
// RED: src/log/segment.rs
//   - self.env.pinned.note(&self.origin, region, bytes);
#[test]
fn row_j04_a_message_that_is_never_dropped_pins_its_segment_and_nothing_else() {
    let dir = temp_dir();
    let broker = open_quiet(dir.path());
    let partition = broker.ensure_topic("t", small_topic(1)).unwrap().partition(0).unwrap();
    send_numbers(&broker, "t", 0, 0..3000);
    let messages: Vec<Message> = partition.read(0, 1 << 20).unwrap().into_iter().collect();
    let value: &'static [u8] = Box::leak(Box::new(messages[7].clone())).value().unwrap();
    std::mem::forget(messages);
    for _ in 0..20 {
        // What was sealed gets its footer.
        broker.flush().unwrap();
        broker.tick().unwrap();
    }
    let end = partition.log_end_offset();
    broker.admin().delete_records(("t", 0), end).unwrap();
    assert!(broker.metrics().pinned_bytes > 0);
    assert_eq!(value, b"7");
    send_numbers(&broker, "t", 0, 0..3000);
    assert_eq!(partition.log_start_offset(), end);
    assert_eq!(read_all(&partition).len(), 3000);
    drop(partition);
    broker.close().unwrap();
    let broker = open_quiet(dir.path());
    assert!(broker.recovery().is_clean());
    broker.admin().delete_topic("t").unwrap();
    assert_eq!(
        files_below(dir.path()).iter().filter(|it| it.starts_with(dir.path().join("t"))).count(),
        0
    );
    assert_eq!(value, b"7", "for as long as the process runs");
}

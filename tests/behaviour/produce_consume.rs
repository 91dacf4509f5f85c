//! Goal: what goes in comes out, in order, where it was said to go, by every way to append and
//! to wait.
//!
//! Method: public API over directories (with the smallest segments, so that every test rolls) and
//! over memory. Kafka's partitions are literal numbers from its own test vectors, not computed by
//! the code under test.
//!
//! Not covered: crashes (`kill9.rs`, `model.rs`), groups (`groups.rs`), damaged files
//! (`bad_input.rs`), power cuts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod acknowledgement;
mod forwarding;

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, SystemTime};

use crate::common::*;
use logpond::{
    Broker, Durability, Error, Partitioner, Record, RecordMetadata, TimestampType, TopicConfig,
};

// ---- 1. order -------------------------------------------------------------------------------

#[test]
fn statement_01_offsets_are_consecutive_and_order_survives_rolls_and_reopening() {
    let dir = temp_dir();
    for run in 0..3_u64 {
        let broker = open_quiet(dir.path());
        broker.ensure_topic("t", small_topic(1)).unwrap();
        let producer = broker.producer();
        for number in run * 500..(run + 1) * 500 {
            let value = format!("{number:0>80}");
            let sent = producer.send(Record::to("t").value(&value)).unwrap();
            assert_eq!((sent.partition, sent.offset), (0, number));
            if number % 100 == 0 {
                broker.tick().unwrap();
            }
        }
        let expected: Vec<u64> = (0..(run + 1) * 500).collect();
        for _reader in 0..2 {
            let mut reader = broker.reader().subscribe(["t"]).open().unwrap();
            let messages = drain(&mut reader);
            assert_dense(&messages, 0);
            assert_eq!(messages.iter().map(number).collect::<Vec<_>>(), expected);
        }
        let info = broker.admin().describe_topic("t").unwrap();
        assert!(info.partitions[0].segments as u64 > 2 * (run + 1), "{info:?}");
        broker.close().unwrap();
    }
}

#[test]
fn a_reader_that_was_open_before_sees_the_same_order_as_one_that_comes_later() {
    let broker = in_memory();
    broker.ensure_topic("t", small_topic(1)).unwrap();
    let mut early = broker.reader().subscribe(["t"]).open().unwrap();
    let mut seen = Vec::new();
    for step in 0..100 {
        send_numbers(&broker, "t", 0, step * 20..step * 20 + 20);
        seen.extend(drain(&mut early).iter().map(number));
    }
    let mut late = broker.reader().subscribe(["t"]).open().unwrap();
    assert_eq!(seen, (0..2000).collect::<Vec<_>>());
    assert_eq!(drain(&mut late).iter().map(number).collect::<Vec<_>>(), seen);
}

// ---- 2. addressing --------------------------------------------------------------------------

#[test]
fn statement_02_a_key_goes_where_kafka_puts_it() {
    let broker = in_memory();
    for partitions in [3_u32, 16, 1000] {
        broker.ensure_topic(&format!("t{partitions}"), TopicConfig::new(partitions)).unwrap();
    }
    let producer = broker.producer();
    // Kafka's UtilsTest.testMurmur2, its sign bit cleared as Kafka's `toPositive` does.
    for (key, hash) in [
        ("21", -973_932_308_i32),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ("abc", 479_470_107),
    ] {
        let positive = hash.cast_unsigned() & 0x7fff_ffff;
        for partitions in [3_u32, 16, 1000] {
            let topic = format!("t{partitions}");
            for _again in 0..2 {
                let sent = producer.send(Record::to(&topic).key(key).value("v")).unwrap();
                assert_eq!(sent.partition, positive % partitions, "{key} of {partitions}");
            }
        }
    }
}

#[test]
fn statement_02_an_explicit_partition_wins_over_the_key() {
    let broker = in_memory();
    broker.ensure_topic("t", TopicConfig::new(4)).unwrap();
    for partition in 0..4 {
        let record = Record::to("t").key("abc").value("v").partition(partition);
        assert_eq!(broker.producer().send(record).unwrap().partition, partition);
    }
}

#[test]
fn statement_02_keyless_records_take_turns_by_call_and_a_batch_stays_together() {
    let broker = in_memory();
    broker.ensure_topic("t", TopicConfig::new(3)).unwrap();
    let producer = broker.producer();
    let mut turns = Vec::new();
    for _ in 0..6 {
        turns.push(producer.send(Record::to("t").value("v")).unwrap().partition);
    }
    assert_eq!(turns, [0, 1, 2, 0, 1, 2]);
    let sent = producer.send_batch((0..5).map(|_| Record::to("t").value("v"))).unwrap();
    let touched: BTreeSet<u32> = sent.iter().map(|sent| sent.partition).collect();
    assert_eq!(touched.len(), 1, "{sent:?}");
    // An empty key is a key: it always goes to the same partition.
    let empty: BTreeSet<u32> = (0..6)
        .map(|_| producer.send(Record::to("t").key("").value("v")).unwrap().partition)
        .collect();
    assert_eq!(empty.len(), 1);
}

/// Answers with what the key says.
struct Obedient;

impl Partitioner for Obedient {
    fn partition(&self, key: Option<&[u8]>, _partitions: u32) -> u32 {
        key.and_then(|key| std::str::from_utf8(key).ok()?.parse().ok()).unwrap_or(1)
    }
}

#[test]
fn a_custom_partitioner_decides_and_a_wrong_answer_is_a_typed_error() {
    let broker = in_memory();
    broker.ensure_topic("t", TopicConfig::new(3)).unwrap();
    let producer = broker.producer_builder().partitioner(Obedient).build().unwrap();
    assert_eq!(producer.send(Record::to("t").key("2").value("v")).unwrap().partition, 2);
    assert_eq!(producer.send(Record::to("t").value("v")).unwrap().partition, 1);
    for answer in ["3", "4294967295"] {
        let refused = producer.send(Record::to("t").key(answer).value("v"));
        let Err(Error::UnknownPartition(partition)) = &refused else { panic!("{refused:?}") };
        assert_eq!(*partition, tp("t", answer.parse().unwrap()));
        assert!(refused.unwrap_err().is_definite());
        let batch = [Record::to("t").key("0").value("v"), Record::to("t").key(answer).value("v")];
        let refused = producer.send_batch(batch);
        assert!(matches!(refused, Err(Error::UnknownPartition(_))), "{refused:?}");
    }
    let ends: Vec<u64> = (0..3)
        .map(|number| broker.topic("t").unwrap().partition(number).unwrap().log_end_offset())
        .collect();
    assert_eq!(ends, [0, 1, 1], "a refused call appended something");
}

// ---- 3. round trip --------------------------------------------------------------------------

#[test]
fn statement_03_keys_values_headers_and_timestamps_come_back_as_they_went_in() {
    let dir = temp_dir();
    let time = some_time() + Duration::from_millis(7);
    let headers: [&[(&str, &str)]; 3] =
        [&[], &[("a", "1")], &[("b", "2"), ("a", ""), ("b", "3"), ("", "x"), ("b", "2")]];
    let parts: [Option<&str>; 4] = [None, Some(""), Some("x"), Some("a longer one \u{0} \u{ff}")];
    let mut expected = Vec::new();
    for key in parts {
        for value in parts {
            for headers in headers {
                expected.push((key, value, headers));
            }
        }
    }
    let check = |broker: &Broker| {
        let mut reader = broker.reader().subscribe(["t"]).open().unwrap();
        let batch = reader.poll(Duration::ZERO).unwrap();
        assert_eq!(batch.len(), expected.len());
        for (message, (key, value, headers)) in batch.iter().zip(&expected) {
            assert_eq!(message.key(), key.map(str::as_bytes));
            assert_eq!(message.value(), value.map(str::as_bytes));
            let found: Vec<_> = message.headers().collect();
            let wanted: Vec<_> =
                headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
            assert_eq!(found, wanted);
            assert_eq!(message.timestamp(), time);
            assert_eq!(message.next_offset(), message.offset() + 1);
            // The owned twin and its copy say the same.
            for owned in [message.to_owned(), message.to_owned().detach()] {
                assert_eq!(owned.key(), key.map(str::as_bytes));
                assert_eq!(owned.value(), value.map(str::as_bytes));
                assert_eq!(owned.key_bytes().as_deref(), key.map(str::as_bytes));
                assert_eq!(owned.value_bytes().as_deref(), value.map(str::as_bytes));
                assert_eq!(owned.headers().collect::<Vec<_>>(), wanted);
                assert_eq!((owned.offset(), owned.timestamp()), (message.offset(), time));
                assert_eq!((owned.topic(), owned.partition()), ("t", 0));
            }
        }
        let repeated = batch.iter().last().unwrap();
        assert_eq!(repeated.headers().get("b"), Some(&b"2"[..]), "the last one of a name");
        assert_eq!(repeated.headers().get("none"), None);
    };
    let broker = open_quiet(dir.path());
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    for (key, value, headers) in &expected {
        let mut record = Record::to("t").timestamp(time);
        if let Some(key) = key {
            record = record.key(*key);
        }
        if let Some(value) = value {
            record = record.value(*value);
        }
        for (name, value) in *headers {
            record = record.header(name, *value);
        }
        assert_eq!(broker.producer().send(record).unwrap().timestamp, time);
    }
    check(&broker);
    broker.close().unwrap();
    check(&open_quiet(dir.path()));
}

#[test]
fn a_tombstone_has_no_value_whatever_was_set_before() {
    let broker = in_memory();
    let partition = broker.ensure_topic("t", TopicConfig::new(1)).unwrap().partition(0).unwrap();
    partition.append(&Record::new().key("k").value("v").tombstone()).unwrap();
    assert_eq!(read_all(&partition)[0].value(), None);
}

#[test]
fn timestamps_keep_milliseconds_and_append_time_overrules_them() {
    let clock = manual_clock();
    let broker = in_memory_at(&clock);
    broker.ensure_topic("create", TopicConfig::new(1)).unwrap();
    let append = TopicConfig::new(1).timestamps(TimestampType::AppendTime);
    broker.ensure_topic("append", append).unwrap();
    let producer = broker.producer();
    let own = SystemTime::UNIX_EPOCH + Duration::from_micros(1_234_567);
    let stored = SystemTime::UNIX_EPOCH + Duration::from_millis(1_234);
    assert_eq!(producer.send(Record::to("create").timestamp(own)).unwrap().timestamp, stored);
    assert_eq!(producer.send(Record::to("create")).unwrap().timestamp, some_time());
    clock.advance(Duration::from_millis(9));
    let now = some_time() + Duration::from_millis(9);
    assert_eq!(producer.send(Record::to("append").timestamp(own)).unwrap().timestamp, now);
    let mut reader = broker.reader().subscribe(["create", "append"]).open().unwrap();
    let mut times: Vec<_> =
        drain(&mut reader).iter().map(|it| (it.topic().to_owned(), it.timestamp())).collect();
    times.sort();
    let create = "create".to_owned();
    let expected = [("append".to_owned(), now), (create.clone(), stored), (create, some_time())];
    assert_eq!(times, expected);
}

#[test]
fn a_moment_before_1970_is_refused_and_leaves_no_gap() {
    let broker = in_memory();
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    let early = SystemTime::UNIX_EPOCH - Duration::from_millis(1);
    let refused = broker.producer().send(Record::to("t").timestamp(early));
    assert_eq!(refused_setting(refused), "timestamp");
    let sent = broker.producer().send(Record::to("t").timestamp(SystemTime::UNIX_EPOCH)).unwrap();
    assert_eq!((sent.offset, sent.timestamp), (0, SystemTime::UNIX_EPOCH));
}

#[test]
fn statement_03_a_record_of_exactly_the_limit_passes_and_one_byte_more_leaves_no_gap() {
    let dir = temp_dir();
    let broker = open_quiet(dir.path());
    broker.ensure_topic("t", TopicConfig::new(1).max_record_bytes(1000)).unwrap();
    let producer = broker.producer();
    let (exact, above) = (vec![b'x'; 1000 - 7], vec![b'x'; 1001 - 7]);
    // Key, value, header names and header values count.
    let record = |value: &'static [u8]| Record::to("t").key("kk").header("h", "four").value(value);
    let (exact, above): (&'static [u8], &'static [u8]) = (exact.leak(), above.leak());
    assert_eq!(producer.send(record(exact)).unwrap().offset, 0);
    let refused = producer.send(record(above));
    let Err(Error::RecordTooLarge { size: 1001, limit: 1000 }) = refused else {
        panic!("{refused:?}")
    };
    assert!(refused.unwrap_err().is_definite());
    let refused = producer.send_batch([record(exact), record(above)]);
    assert!(matches!(refused, Err(Error::RecordTooLarge { .. })), "{refused:?}");
    assert!(matches!(producer.enqueue(record(above)), Err(Error::RecordTooLarge { .. })));
    assert_eq!(producer.send(record(exact)).unwrap().offset, 1, "a refused record left a gap");
}

#[test]
fn the_default_limit_is_a_mebibyte_or_what_the_segment_holds() {
    let dir = temp_dir();
    let broker = open_quiet(dir.path());
    broker.ensure_topic("large", TopicConfig::new(1)).unwrap();
    broker.ensure_topic("small", small_topic(1)).unwrap();
    let producer = broker.producer();
    let mebibyte = vec![7; 1 << 20];
    assert_eq!(producer.send(Record::to("large").value(&mebibyte)).unwrap().offset, 0);
    let above = vec![7; (1 << 20) + 1];
    let refused = producer.send(Record::to("large").value(&above));
    assert!(matches!(refused, Err(Error::RecordTooLarge { .. })), "{refused:?}");
    // The limit of a small segment is what the error says it is, to the byte.
    let refused = producer.send(Record::to("small").value(&mebibyte));
    let Err(Error::RecordTooLarge { limit, .. }) = refused else { panic!("{refused:?}") };
    let limit = usize::try_from(limit).unwrap();
    assert!((10 << 10..16 << 10).contains(&limit), "{limit}");
    for expected in 0..5 {
        let exact = vec![7; limit];
        assert_eq!(producer.send(Record::to("small").value(&exact)).unwrap().offset, expected);
        let above = vec![7; limit + 1];
        let refused = producer.send(Record::to("small").value(&above));
        assert!(matches!(refused, Err(Error::RecordTooLarge { .. })), "{refused:?}");
    }
    let partition = broker.topic("small").unwrap().partition(0).unwrap();
    let read = read_all(&partition);
    assert_dense(&read, 0);
    assert!(read.len() == 5 && read.iter().all(|it| it.value().unwrap().len() == limit));
}

#[test]
fn a_batch_that_no_segment_holds_is_refused_whole() {
    let broker = in_memory();
    let partition = broker.ensure_topic("t", small_topic(1)).unwrap().partition(0).unwrap();
    let value = vec![7; 1000];
    let records = vec![Record::new().value(&value); 20];
    let refused = partition.append_batch(&records);
    assert!(matches!(refused, Err(Error::RecordTooLarge { .. })), "{refused:?}");
    assert_eq!(partition.append_batch(&records[..10]).unwrap(), 0..10);
    assert_eq!(read_all(&partition).len(), 10);
}

// ---- 4. threads -----------------------------------------------------------------------------

#[test]
fn statement_04_eight_threads_lose_nothing_duplicate_nothing_and_each_keeps_its_order() {
    const EACH: u64 = 400;
    for durability in [Durability::Os, Durability::Sync] {
        let each = if durability == Durability::Sync { EACH / 8 } else { EACH };
        let dir = temp_dir();
        let broker = Broker::builder().data_dir(dir.path()).durability(durability).open().unwrap();
        let topic = broker.ensure_topic("t", small_topic(1)).unwrap();
        let acked: Vec<Vec<RecordMetadata>> = thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|thread| {
                    let producer = broker.producer();
                    let send = move |number| {
                        let value = format!("{thread} {number:0>60}");
                        producer.send(Record::to("t").value(&value)).unwrap()
                    };
                    scope.spawn(move || (0..each).map(send).collect())
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let messages = read_all(&topic.partition(0).unwrap());
        assert_eq!(messages.len() as u64, 8 * each);
        assert_dense(&messages, 0);
        let mut next = [0_u64; 8];
        for message in &messages {
            let text = text(message);
            let (thread, number) = text.split_once(' ').unwrap();
            let (thread, number): (usize, u64) = (thread.parse().unwrap(), number.parse().unwrap());
            assert_eq!(number, next[thread], "thread {thread} at {}", message.offset());
            let metadata = acked[thread][usize::try_from(number).unwrap()];
            assert_eq!(metadata.offset, message.offset(), "acknowledged elsewhere");
            next[thread] += 1;
        }
    }
}

// ---- partitions by hand ---------------------------------------------------------------------

// RED: src/topic.rs
//   - if records.is_empty() {
//   + if records.len() > 1_000_000 {
#[test]
fn row_g04_append_batch_gives_consecutive_offsets_and_an_empty_one_writes_nothing() {
    let broker = in_memory();
    let partition = broker.ensure_topic("t", TopicConfig::new(2)).unwrap().partition(1).unwrap();
    assert_eq!(partition.append_batch(&[]).unwrap(), 0..0);
    let records = [Record::new().value("a"), Record::to("t").partition(1).value("b")];
    assert_eq!(partition.append_batch(&records).unwrap(), 0..2);
    assert_eq!(partition.append(&Record::new().value("c")).unwrap(), 2);
    assert_eq!(partition.append_batch(&[]).unwrap(), 3..3);
    assert_eq!(read_all(&partition).iter().map(text).collect::<Vec<_>>(), ["a", "b", "c"]);
}

#[test]
fn a_record_for_another_partition_is_refused_and_nothing_of_its_batch_is_appended() {
    let broker = in_memory();
    let partition = broker.ensure_topic("t", TopicConfig::new(2)).unwrap().partition(1).unwrap();
    for wrong in [Record::to("u").value("x"), Record::new().partition(0).value("x")] {
        assert_eq!(refused_setting(partition.append(&wrong)), "record");
        let batch = [Record::new().value("a"), wrong];
        assert_eq!(refused_setting(partition.append_batch(&batch)), "record");
        assert_eq!(refused_setting(partition.append_if(0, &batch)), "record");
    }
    assert_eq!(partition.log_end_offset(), 0);
}

#[test]
fn append_if_appends_only_at_the_expected_end() {
    let broker = in_memory();
    let partition = broker.ensure_topic("t", TopicConfig::new(1)).unwrap().partition(0).unwrap();
    let record = [Record::new().value("x")];
    assert_eq!(partition.append_if(0, &record).unwrap(), 0..1);
    for (expected, records) in [(0, &record[..]), (2, &record[..]), (0, &[])] {
        let refused = partition.append_if(expected, records);
        let Err(Error::WrongOffset { partition: at, expected: found, actual: 1 }) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!((at, found), (tp("t", 0), expected));
    }
    assert_eq!(partition.append_if(1, &[]).unwrap(), 1..1);
    assert_eq!(partition.append_if(1, &record).unwrap(), 1..2);
    assert_eq!(partition.log_end_offset(), 2);
}

#[test]
fn of_two_that_append_at_the_same_end_exactly_one_succeeds() {
    let broker = in_memory();
    let partition = broker.ensure_topic("t", small_topic(1)).unwrap().partition(0).unwrap();
    let wins: Vec<u64> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|thread: u32| {
                let partition = partition.clone();
                scope.spawn(move || {
                    let value = thread.to_string();
                    let mut wins = 0;
                    for expected in 0..200 {
                        match partition.append_if(expected, &[Record::new().value(&value)]) {
                            Ok(range) => {
                                assert_eq!(range, expected..expected + 1);
                                wins += 1;
                            }
                            Err(Error::WrongOffset { actual, .. }) => assert_ne!(actual, expected),
                            Err(other) => panic!("{other:?}"),
                        }
                    }
                    wins
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(wins.iter().sum::<u64>(), partition.log_end_offset());
}

#[test]
fn read_starts_anywhere_and_honours_its_byte_limit_with_at_least_one_record() {
    let dir = temp_dir();
    let broker = open_quiet(dir.path());
    let partition = broker.ensure_topic("t", small_topic(1)).unwrap().partition(0).unwrap();
    for batch in 0..60_u64 {
        let values: Vec<String> = (0..7).map(|n| format!("{:0>90}", batch * 7 + n)).collect();
        let records: Vec<_> = values.iter().map(|value| Record::new().value(value)).collect();
        partition.append_batch(&records).unwrap();
    }
    for from in 0..420 {
        for bytes in [0, 1, 1000, usize::MAX] {
            let batch = partition.read(from, bytes).unwrap();
            let first = batch.iter().next().expect("at least one record");
            assert_eq!(first.offset(), from);
            assert_eq!(first.value().unwrap(), format!("{from:0>90}").as_bytes());
            let size: usize = batch.iter().map(|it| it.value().unwrap().len()).sum();
            assert!(batch.len() <= 7 || size <= bytes, "{size} bytes of {bytes}");
        }
    }
    assert!(partition.read(420, 1000).unwrap().is_empty());
    for beyond in [421, u64::MAX] {
        let refused = partition.read(beyond, 1000);
        let Err(Error::OffsetOutOfRange { partition: at, requested, start: 0, end: 420 }) = refused
        else {
            panic!("{refused:?}")
        };
        assert_eq!((at, requested), (tp("t", 0), beyond));
    }
}

#[test]
fn statement_12_offset_at_finds_the_first_record_at_or_after_a_time_also_out_of_order() {
    let dir = temp_dir();
    let broker = open_quiet(dir.path());
    // The timestamps are those of 1970, which no retention would keep.
    let config = small_topic(1).retention(Duration::MAX);
    let partition = broker.ensure_topic("t", config).unwrap().partition(0).unwrap();
    let at = |millis: u64| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
    let mut rng = Rng::announced("offset_at");
    let mut times: Vec<u64> = Vec::new();
    assert_eq!(partition.offset_at(at(0)).unwrap(), None);
    for _batch in 0..150 {
        let count = 1 + rng.index(5);
        let stamps: Vec<u64> = (0..count).map(|_| 10 + rng.below(2_000)).collect();
        let padding = "x".repeat(100);
        let records: Vec<_> = stamps
            .iter()
            .map(|stamp| Record::new().value(&padding).timestamp(at(*stamp)))
            .collect();
        partition.append_batch(&records).unwrap();
        times.extend(stamps);
    }
    let check = |partition: &logpond::Partition| {
        for wanted in (0..2_020).step_by(3) {
            let expected = times.iter().position(|time| *time >= wanted).map(|it| it as u64);
            assert_eq!(partition.offset_at(at(wanted)).unwrap(), expected, "{wanted}");
        }
    };
    check(&partition);
    broker.tick().unwrap();
    check(&partition);
    broker.close().unwrap();
    let broker = open_quiet(dir.path());
    check(&broker.topic("t").unwrap().partition(0).unwrap());
}

//! Goal: many producers, readers, group members and waiters at once: nothing is lost, repeated,
//! reordered, torn or forgotten, while segments roll all the time.
//!
//! Method: values say who wrote them and as which; every reader checks order and gaps as it goes.
//! A thread that waits for ever would hang the test: waits have a patience, and running out of it
//! is a failure. Threads end by counts and by `shutdown`, never by time.
//!
//! Not covered: interleavings one by one, which is the work of the loom models in `src/`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use crate::common::*;
use logpond::{
    Broker, Consumer, ConsumerBuilder, Durability, Error, ReadMode, Record, StartAt, TopicConfig,
    Visibility,
};

const PRODUCERS: usize = 8;
const CONSUMERS: usize = 4;

fn open(dir: &std::path::Path, durability: Durability, read_mode: ReadMode) -> Broker {
    let builder = Broker::builder().data_dir(dir).durability(durability).read_mode(read_mode);
    builder.open().unwrap()
}

/// Sends `each` records per producer in every way there is. Values: `<producer> <number>
/// <padding>`.
fn produce(broker: &Broker, producer: usize, each: u64, partitions: u32) {
    let handle = broker.producer();
    let mut rng = Rng::new(producer as u64);
    let partition = |number: u64| u32::try_from(number % u64::from(partitions)).unwrap();
    let padding = "p".repeat(300);
    let value = |number: u64, len: usize| format!("{producer} {number} {}", &padding[..len]);
    let mut number = 0;
    while number < each {
        let left = each - number;
        match rng.below(4) {
            0 => {
                let value = value(number, rng.index(300));
                let record = Record::to("t").partition(partition(number)).value(&value);
                handle.send(record).unwrap();
                number += 1;
            }
            1 => {
                let value = value(number, rng.index(300));
                let record = Record::to("t").partition(partition(number)).value(&value);
                drop(handle.enqueue(record).unwrap());
                number += 1;
            }
            _ => {
                let count = (1 + rng.below(9)).min(left);
                let values: Vec<String> =
                    (number..number + count).map(|it| value(it, rng.index(100))).collect();
                let records = values
                    .iter()
                    .zip(number..)
                    .map(|(value, it)| Record::to("t").partition(partition(it)).value(value));
                assert_eq!(handle.send_batch(records).unwrap().len() as u64, count);
                number += count;
            }
        }
    }
    handle.flush().unwrap();
}

fn parse(text: &str) -> (usize, u64) {
    let mut words = text.splitn(3, ' ');
    (words.next().unwrap().parse().unwrap(), words.next().unwrap().parse().unwrap())
}

/// Checks that offsets are dense and each producer's numbers rise by the partition count.
#[derive(Default)]
struct Order {
    next_offset: BTreeMap<u32, u64>,
    last: BTreeMap<(u32, usize), u64>,
    count: u64,
}

impl Order {
    fn take(&mut self, partition: u32, offset: u64, text: &str, partitions: u32) {
        let next = self.next_offset.entry(partition).or_default();
        assert_eq!(offset, *next, "a gap or a repetition in partition {partition}");
        *next += 1;
        let (producer, number) = parse(text);
        assert_eq!(number % u64::from(partitions), u64::from(partition), "in a wrong partition");
        let before = self.last.insert((partition, producer), number);
        let expected = before.map_or(u64::from(partition), |it| it + u64::from(partitions));
        assert_eq!(number, expected, "producer {producer} out of order after {before:?}");
        self.count += 1;
    }
}

#[test]
fn eight_producers_and_four_readers_agree_on_one_order_without_gaps() {
    const PARTITIONS: u32 = 3;
    for (durability, read_mode, each) in [
        (Durability::Os, ReadMode::Mapped, 1500),
        (Durability::Os, ReadMode::Copy, 600),
        (Durability::Sync, ReadMode::Mapped, 150),
    ] {
        let dir = temp_dir();
        let broker = open(dir.path(), durability, read_mode);
        broker.ensure_topic("t", small_topic(PARTITIONS)).unwrap();
        let total = PRODUCERS as u64 * each;
        thread::scope(|scope| {
            for producer in 0..PRODUCERS {
                let broker = &broker;
                scope.spawn(move || produce(broker, producer, each, PARTITIONS));
            }
            for reader in 0..CONSUMERS {
                let broker = &broker;
                scope.spawn(move || {
                    let visibility =
                        if reader == 3 { Visibility::Durable } else { Visibility::Published };
                    let builder = broker.reader().subscribe(["t"]).visibility(visibility);
                    let mut consumer = builder.max_poll_records(1 + reader * 40).open().unwrap();
                    let mut order = Order::default();
                    while order.count < total {
                        read_some(&mut consumer, &mut order, reader, PARTITIONS);
                    }
                    assert!(consumer.poll(Duration::ZERO).unwrap().is_empty(), "too many");
                });
            }
        });
        assert!(broker.admin().describe_topic("t").unwrap().partitions[0].segments > 1);
        broker.close().unwrap();
    }
}

/// Each reader has its own way to read.
fn read_some(consumer: &mut Consumer, order: &mut Order, reader: usize, partitions: u32) {
    if reader == 1 {
        let message = consumer.recv_timeout(PATIENCE).unwrap().expect("a lost wake-up");
        order.take(message.partition(), message.offset(), &text(&message), partitions);
        return;
    }
    let timeout = if reader == 2 { Duration::ZERO } else { PATIENCE };
    let batch = consumer.poll(timeout).unwrap();
    assert!(reader == 2 || !batch.is_empty(), "a lost wake-up");
    for message in batch.iter() {
        let text = std::str::from_utf8(message.value().unwrap()).unwrap();
        order.take(message.partition(), message.offset(), text, partitions);
    }
}

/// What a group has processed: partition and offset of each record, and how often.
#[derive(Default)]
struct Processed {
    seen: Mutex<BTreeMap<(u32, u64), u64>>,
}

#[test]
fn a_group_of_four_processes_everything_while_members_come_and_go() {
    const PARTITIONS: u32 = 6;
    const EACH: u64 = 1000;
    let dir = temp_dir();
    let broker = open(dir.path(), Durability::Os, ReadMode::Mapped);
    broker.ensure_topic("t", small_topic(PARTITIONS)).unwrap();
    let processed = Processed::default();
    let total = EACH * PRODUCERS as u64;
    let switches = Mutex::new(Vec::new());
    let member = |leaves_after: u64| {
        let mut handled = 0;
        let mut consumer =
            broker.consumer("g").subscribe(["t"]).max_poll_records(50).open().unwrap();
        switches.lock().unwrap().push(consumer.handle());
        let done = || processed.seen.lock().unwrap().len() as u64 >= total;
        while handled < leaves_after && !done() {
            let batch = match consumer.poll(PATIENCE) {
                Ok(batch) => batch,
                Err(Error::Closed) => break,
                Err(other) => panic!("{other:?}"),
            };
            for message in batch.iter() {
                handled += 1;
                let mut seen = processed.seen.lock().unwrap();
                *seen.entry((message.partition(), message.offset())).or_default() += 1;
            }
            match consumer.commit() {
                Ok(()) | Err(Error::Rebalanced { .. } | Error::Closed) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
        if done() {
            // A member that still waits has nothing to wait for.
            switches.lock().unwrap().iter().for_each(logpond::ConsumerHandle::shutdown);
        }
    };
    thread::scope(|scope| {
        for producer in 0..PRODUCERS {
            let broker = &broker;
            scope.spawn(move || produce(broker, producer, EACH, PARTITIONS));
        }
        for _ in 0..CONSUMERS - 1 {
            scope.spawn(|| member(u64::MAX));
        }
        scope.spawn(|| {
            // The fourth member is replaced again and again.
            while (processed.seen.lock().unwrap().len() as u64) < total {
                member(200);
            }
        });
    });
    let seen = processed.seen.into_inner().unwrap();
    assert_eq!(seen.len() as u64, total);
    let mut next = BTreeMap::<u32, u64>::new();
    for (partition, offset) in seen.keys() {
        let expected = next.entry(*partition).or_default();
        assert_eq!(offset, expected, "a gap in partition {partition}");
        *expected += 1;
    }
}

#[test]
fn reads_and_seeks_at_random_see_whole_records_while_segments_roll() {
    let dir = temp_dir();
    let broker = open(dir.path(), Durability::Os, ReadMode::Mapped);
    let clock_free = SystemTime::UNIX_EPOCH;
    let partition = broker.ensure_topic("t", small_topic(1)).unwrap().partition(0).unwrap();
    let done = AtomicBool::new(false);
    // The only appender: offset, value and timestamp are the same number.
    let value = |number: u64| format!("{number:0>120}");
    let check = |offset: u64, found: Option<&[u8]>| {
        assert_eq!(found, Some(value(offset).as_bytes()), "at {offset}");
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..8_000_u64 {
                let value = value(number);
                let time = clock_free + Duration::from_millis(number);
                let record = Record::new().value(&value).timestamp(time);
                assert_eq!(partition.append(&record).unwrap(), number);
            }
            done.store(true, Ordering::Release);
        });
        for thread in 0..2 {
            let (partition, done, check) = (partition.clone(), &done, &check);
            scope.spawn(move || {
                let mut rng = Rng::new(thread);
                while !done.load(Ordering::Acquire) {
                    let end = partition.log_end_offset();
                    assert!(partition.durable_end_offset() <= partition.log_end_offset());
                    let from = rng.below(end + 1);
                    let batch = partition.read(from, 1 + rng.index(5000)).unwrap();
                    assert!(from == end || !batch.is_empty());
                    for (message, offset) in batch.iter().zip(from..) {
                        assert_eq!(message.offset(), offset);
                        check(offset, message.value());
                    }
                    if end > 0 && rng.one_in(4) {
                        let wanted = rng.below(end);
                        let time = clock_free + Duration::from_millis(wanted);
                        assert_eq!(partition.offset_at(time).unwrap(), Some(wanted));
                    }
                }
            });
        }
        let (broker, done) = (&broker, &done);
        scope.spawn(move || {
            let mut rng = Rng::new(9);
            let mut reader = broker.reader().subscribe(["t"]).max_poll_records(30).open().unwrap();
            while !done.load(Ordering::Acquire) {
                let end = broker.topic("t").unwrap().partition(0).unwrap().log_end_offset();
                let to = rng.below(end + 1);
                reader.seek(&tp("t", 0), StartAt::Offset(to)).unwrap();
                let mut next = to;
                for _ in 0..rng.below(5) {
                    for message in reader.poll(Duration::ZERO).unwrap() {
                        assert_eq!(message.offset(), next);
                        check(next, message.value());
                        next += 1;
                    }
                    if let Some(message) = reader.try_recv().unwrap() {
                        assert_eq!(message.offset(), next);
                        next += 1;
                    }
                    assert_eq!(reader.position(&tp("t", 0)), Some(next));
                }
            }
        });
    });
}

#[test]
fn every_acknowledgement_among_many_waiters_is_durable() {
    let dir = temp_dir();
    let broker = open(dir.path(), Durability::Sync, ReadMode::Mapped);
    let topic = broker.ensure_topic("t", small_topic(2)).unwrap();
    let acked = AtomicU64::new(0);
    thread::scope(|scope| {
        for thread in 0..PRODUCERS {
            let (broker, topic, acked) = (&broker, &topic, &acked);
            scope.spawn(move || {
                let producer = broker.producer();
                let number = u32::try_from(thread % 2).unwrap();
                let partition = topic.partition(number).unwrap();
                let value = "v".repeat(200);
                for round in 0..60 {
                    let record = Record::to("t").partition(number).value(&value);
                    let offset = match (thread + round) % 4 {
                        0 => producer.send(record).unwrap().offset,
                        1 => producer.enqueue(record).unwrap().wait().unwrap().offset,
                        2 => {
                            let delivery = producer.enqueue(record).unwrap();
                            delivery.wait_timeout(PATIENCE).expect("forgotten").unwrap().offset
                        }
                        _ => {
                            let delivery = producer.enqueue(record).unwrap();
                            match round % 3 {
                                0 => producer.flush().unwrap(),
                                1 => partition.flush().unwrap(),
                                _ => broker.flush().unwrap(),
                            }
                            delivery.metadata().offset
                        }
                    };
                    let durable = partition.durable_end_offset();
                    assert!(durable > offset, "{offset} was acknowledged at {durable}");
                    acked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let ends: u64 = (0..2).map(|it| topic.partition(it).unwrap().log_end_offset()).sum();
    assert_eq!(ends, acked.into_inner());
}

/// A member that is as difficult as its number says: it stalls, is static, or dies in its callback.
fn troubled_member(broker: &Broker, number: usize, is_last_turn: bool) -> ConsumerBuilder {
    let builder = broker.consumer("g").subscribe(["t"]).max_poll_records(20);
    match number % 4 {
        // It stalls by polling rarely enough to be evicted now and then.
        1 => builder.max_poll_interval(Duration::from_millis(2)),
        2 => builder.instance_id(number.to_string()),
        3 if !is_last_turn => {
            let mut left = 2;
            builder.on_rebalance(move |_, _| {
                left -= 1;
                if left == 0 {
                    std::panic::resume_unwind(Box::new("the callback"));
                }
            })
        }
        _ => builder,
    }
}

/// Members come, go, die in their callback and stall while records flow: everything is handed out,
/// and within a member's ownership in order.
#[test]
fn sixty_four_members_share_256_partitions_under_churn_and_keep_delivering() {
    const MEMBERS: usize = 64;
    const PARTITIONS: u32 = 256;
    const EACH: u64 = 40;
    const TURNS: usize = 6;
    let broker = Broker::builder().in_memory().durability(Durability::Os).open().unwrap();
    broker.ensure_topic("t", small_topic(PARTITIONS)).unwrap();
    let processed = Processed::default();
    let total = EACH * u64::from(PARTITIONS);
    let switches = Mutex::new(Vec::new());
    let is_done = || processed.seen.lock().unwrap().len() as u64 >= total;
    let run = |number: usize, turn: usize| {
        let is_last = turn + 1 == TURNS;
        let mut consumer = troubled_member(&broker, number, is_last).open().unwrap();
        switches.lock().unwrap().push(consumer.handle());
        let mut polls = 0;
        while (is_last || polls < 10) && !is_done() {
            polls += 1;
            let wait = if is_last { PATIENCE } else { Duration::from_millis(1) };
            let batch = match consumer.poll(wait) {
                Ok(batch) => batch,
                Err(Error::Closed) => break,
                Err(other) => panic!("{other:?}"),
            };
            let mut last = BTreeMap::new();
            let mut seen = processed.seen.lock().unwrap();
            for message in batch.iter() {
                let before = last.insert(message.partition(), message.offset());
                assert!(before.is_none_or(|before| before + 1 == message.offset()), "a gap");
                *seen.entry((message.partition(), message.offset())).or_default() += 1;
            }
            drop(seen);
            match consumer.commit() {
                Ok(()) | Err(Error::Rebalanced { .. } | Error::Closed) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
        if is_done() {
            switches.lock().unwrap().iter().for_each(logpond::ConsumerHandle::shutdown);
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..EACH {
                for partition in 0..PARTITIONS {
                    send_numbers(&broker, "t", partition, number..number + 1);
                }
            }
        });
        for number in 0..MEMBERS {
            let run = &run;
            scope.spawn(move || {
                for turn in 0..TURNS {
                    // The last turn waits until all is processed; a callback that panics ends a
                    // turn.
                    let one = std::panic::AssertUnwindSafe(|| run(number, turn));
                    if let Err(panic) = std::panic::catch_unwind(one)
                        && panic.downcast_ref::<&str>() != Some(&"the callback")
                    {
                        std::panic::resume_unwind(panic);
                    }
                }
            });
        }
    });
    let seen = processed.seen.into_inner().unwrap();
    assert_eq!(seen.len() as u64, total, "records that were handed to no member");
}

fn gone(error: &Error) -> bool {
    matches!(error, Error::UnknownTopic(_) | Error::Closed)
}

/// Reads "stays" in a group whose members come and go, until `done`; how many records it had.
fn read_beside_churn(broker: &Broker, group: &str, done: &AtomicBool) -> usize {
    let mut seen = BTreeSet::new();
    let mut consumer = None;
    let mut polls_left = 0;
    loop {
        // Asked before the poll, which therefore sees all of "stays".
        let is_done = done.load(Ordering::Acquire);
        if polls_left == 0 || is_done {
            // A new member with another choice of topics; sometimes "churns" is away.
            let topics: &[&str] = if is_done { &["stays"] } else { &["churns", "stays"] };
            consumer = match broker.consumer(group).subscribe(topics).open() {
                Ok(consumer) => Some(consumer),
                Err(error) if gone(&error) => None,
                Err(other) => panic!("{other:?}"),
            };
            polls_left = 10;
        }
        let Some(consumer) = &mut consumer else { continue };
        polls_left -= 1;
        loop {
            // A member never hears of a topic's end otherwise than by its plan.
            let batch = consumer.poll(Duration::ZERO).unwrap();
            let stays = batch.iter().filter(|message| message.topic() == "stays");
            seen.extend(stays.map(|it| (it.partition(), it.offset())));
            if batch.is_empty() {
                break;
            }
        }
        if is_done {
            return seen.len();
        }
    }
}

#[test]
fn topics_come_and_go_under_producers_and_consumers_that_use_them() {
    let dir = temp_dir();
    let broker = open(dir.path(), Durability::Os, ReadMode::Mapped);
    broker.ensure_topic("stays", small_topic(2)).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let (broker, done) = (&broker, &done);
        scope.spawn(move || {
            for round in 0..25 {
                broker.ensure_topic("churns", small_topic(1 + round % 3)).unwrap();
                send_numbers(broker, "stays", round % 2, 0..3);
                broker.admin().delete_topic("churns").unwrap();
            }
            done.store(true, Ordering::Release);
        });
        for thread in 0..3_u64 {
            scope.spawn(move || {
                let producer = broker.producer();
                let mut kinds = BTreeSet::new();
                while !done.load(Ordering::Acquire) {
                    let value = thread.to_string();
                    match producer.send(Record::to("churns").key("k").value(&value)) {
                        Ok(_) => kinds.insert("sent"),
                        Err(error) if gone(&error) => kinds.insert("gone"),
                        Err(other) => panic!("{other:?}"),
                    };
                }
            });
        }
        for thread in 0..2 {
            scope.spawn(move || {
                let seen = read_beside_churn(broker, &format!("g{thread}"), done);
                assert_eq!(seen, 75, "records of the other topic were missed");
            });
        }
    });
    broker.close().unwrap();
    let broker = open_quiet(dir.path());
    assert_eq!(broker.admin().topics().unwrap().len(), 1);
    assert_eq!(
        fs_names(dir.path()),
        ["LOCK", "__local", "__meta", "__offsets", "stays"],
        "a deleted topic left something"
    );
}

fn fs_names(dir: &std::path::Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn commits_of_many_groups_at_once_are_each_their_own() {
    let dir = temp_dir();
    let broker = open(dir.path(), Durability::Os, ReadMode::Mapped);
    broker.ensure_topic("t", TopicConfig::new(4)).unwrap();
    for partition in 0..4 {
        send_numbers(&broker, "t", partition, 0..300);
    }
    thread::scope(|scope| {
        for thread in 0..6 {
            let broker = &broker;
            scope.spawn(move || {
                let group = format!("g{thread}");
                let mut consumer =
                    broker.consumer(&group).subscribe(["t"]).max_poll_records(5).open().unwrap();
                for _ in 0..100 + thread {
                    consumer.poll(Duration::ZERO).unwrap();
                    consumer.commit().unwrap();
                }
            });
        }
    });
    drop(broker);
    let broker = open_quiet(dir.path());
    for thread in 0..6_u64 {
        let consumer = broker.consumer(&format!("g{thread}")).subscribe(["t"]).open().unwrap();
        let committed = (0..4).map(|it| consumer.committed(&tp("t", it)).unwrap().unwrap());
        assert_eq!(committed.sum::<u64>(), 5 * (100 + thread));
    }
}

/// Symptom: now and then a reader skipped removed records and did not report them. Cause: the end
/// of the gap and the offset where reading continued came from two reads of a log start that moves.
/// Rule: one read. (A race: without the rule this fails in most runs, not in all.)
#[test]
fn a_reader_chased_by_deletion_reports_every_record_that_it_does_not_get() {
    let broker = Broker::builder().in_memory().durability(Durability::Os).open().unwrap();
    let topic = broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    let is_done = AtomicBool::new(false);
    let mut reader = broker.reader().assign([("t", 0)]).max_poll_records(1).open().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let (partition, admin) = (topic.partition(0).unwrap(), broker.admin());
            for _ in 0..from_env("LOGPOND_ROUNDS", 2_000) {
                let records: Vec<_> = (0..20).map(|_| Record::new().value("v")).collect();
                let added = partition.append_batch(&records).unwrap();
                for before in added.start + 2..added.end {
                    admin.delete_records(("t", 0), before).unwrap();
                }
            }
            is_done.store(true, Ordering::Release);
        });
        let mut next = 0;
        while !is_done.load(Ordering::Acquire) {
            let batch = reader.poll(Duration::ZERO).unwrap();
            for gap in reader.take_gaps() {
                assert_eq!(gap.missed.start, next, "{gap:?}");
                next = gap.missed.end;
            }
            for message in &batch.iter().collect::<Vec<_>>() {
                assert_eq!(message.offset(), next, "skipped unnoticed");
                next = message.next_offset();
            }
        }
    });
}

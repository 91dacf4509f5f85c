//! Goal: a consumer hands out what it says it hands out, stands where it says it stands, waits
//! only as long as it may, and commits only what it is asked to.
//!
//! Method: public API, mostly over memory and without background threads, so that nothing happens
//! by itself; auto-commit on a manual clock. A test that needs another thread to be parked asks
//! the kernel whether it is.
//!
//! Not covered: members of a group with each other (`groups.rs`), damage (`bad_input.rs`), what a
//! power cut takes back, retention (gaps cannot be made yet).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod commits;
mod control;
mod in_flight;
mod settings;
mod waits;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use crate::common::*;
use logpond::{
    Broker, Clock, CommitMode, Consumer, Durability, Error, Message, Offsets, Record, StartAt,
    SystemClock, TopicConfig, Visibility,
};

/// A broker in memory whose topic `t` has `counts[p]` numbered records in partition `p`.
fn filled(counts: &[u64]) -> Broker {
    let broker = in_memory();
    broker.ensure_topic("t", small_topic(u32::try_from(counts.len()).unwrap())).unwrap();
    for (partition, count) in (0..).zip(counts) {
        send_numbers(&broker, "t", partition, 0..*count);
    }
    broker
}

fn reader(broker: &Broker) -> Consumer {
    broker.reader().subscribe(["t"]).open().unwrap()
}

fn numbers(messages: impl IntoIterator<Item = Message>) -> Vec<u64> {
    messages.into_iter().map(|message| number(&message)).collect()
}

// ---- poll -----------------------------------------------------------------------------------

#[test]
fn a_poll_of_nothing_is_an_empty_batch_at_once_or_when_the_time_is_over() {
    let broker = filled(&[0, 0]);
    let mut reader = reader(&broker);
    assert!(reader.poll(Duration::ZERO).unwrap().is_empty());
    assert!(reader.poll(Duration::from_millis(1)).unwrap().is_empty());
    assert!(reader.recv_timeout(Duration::ZERO).unwrap().is_none());
    assert!(reader.recv_timeout(Duration::from_millis(1)).unwrap().is_none());
    assert!(reader.try_recv().unwrap().is_none());
}

/// Symptom: after one poll that had waited in vain, polls that do not wait found nothing any more.
/// Cause: a partition that was armed for the wait was taken to be empty until the next wait. Rule:
/// each poll begins by looking at every partition.
#[test]
fn a_poll_that_never_waits_sees_what_came_after_one_that_waited_in_vain() {
    let broker = filled(&[0, 0]);
    let mut reader = reader(&broker);
    for round in 0..3 {
        assert!(reader.poll(Duration::from_millis(1)).unwrap().is_empty());
        send_numbers(&broker, "t", 1, round..round + 1);
        assert_eq!(numbers(reader.poll(Duration::ZERO).unwrap()), [round]);
        assert!(reader.recv_timeout(Duration::from_millis(1)).unwrap().is_none());
        send_numbers(&broker, "t", 0, round..round + 1);
        assert_eq!(reader.try_recv().unwrap().as_ref().map(number), Some(round));
    }
}

#[test]
fn statement_13_a_parked_poll_is_woken_by_an_append_to_any_of_its_partitions() {
    let broker = filled(&[0, 0, 0]);
    for partition in [2, 0, 1, 1] {
        let mut reader = broker.reader().subscribe(["t"]).start(StartAt::Latest).open().unwrap();
        let (parked, is_parked) = mpsc::channel();
        let waiting = thread::spawn(move || {
            parked.send(ThreadState::here()).unwrap();
            reader.poll(PATIENCE).unwrap().into_iter().next().map(|it| it.partition())
        });
        is_parked.recv().unwrap().wait_until_it_sleeps();
        send_numbers(&broker, "t", partition, 0..1);
        assert_eq!(waiting.join().unwrap(), Some(partition));
    }
}

#[test]
fn statement_13_a_poll_returns_at_most_so_many_records_and_at_least_one_whatever_the_bytes() {
    let broker = filled(&[70, 30]);
    let mut few = broker.reader().subscribe(["t"]).max_poll_records(9).open().unwrap();
    let mut sizes = Vec::new();
    loop {
        let batch = few.poll(Duration::ZERO).unwrap();
        if batch.is_empty() {
            break;
        }
        sizes.push(batch.len());
    }
    assert_eq!(sizes.iter().sum::<usize>(), 100);
    assert!(sizes.iter().all(|size| *size <= 9), "{sizes:?}");
    for bytes in [0, 1] {
        let mut tight = broker.reader().subscribe(["t"]).max_poll_bytes(bytes).open().unwrap();
        for _ in 0..100 {
            assert_eq!(tight.poll(Duration::ZERO).unwrap().len(), 1, "limit of {bytes}");
        }
        assert!(tight.poll(Duration::ZERO).unwrap().is_empty());
    }
}

#[test]
fn a_record_limit_inside_a_batch_neither_loses_nor_repeats() {
    let broker = in_memory();
    let partition = broker.ensure_topic("t", small_topic(1)).unwrap().partition(0).unwrap();
    let values: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    let records: Vec<_> = values.iter().map(|value| Record::new().value(value)).collect();
    partition.append_batch(&records).unwrap();
    for limit in [1, 3, 7, 99, 100, 101] {
        let mut reader = broker.reader().subscribe(["t"]).max_poll_records(limit).open().unwrap();
        assert_eq!(numbers(drain(&mut reader)), (0..100).collect::<Vec<_>>());
    }
}

#[test]
fn no_partition_starves_while_others_have_more() {
    let broker = filled(&[1000, 1000, 1000]);
    let mut reader = broker.reader().subscribe(["t"]).max_poll_records(10).open().unwrap();
    let mut counts = BTreeMap::<u32, usize>::new();
    for _ in 0..30 {
        for message in reader.poll(Duration::ZERO).unwrap() {
            *counts.entry(message.partition()).or_default() += 1;
        }
    }
    assert_eq!(counts, BTreeMap::from([(0, 100), (1, 100), (2, 100)]));
}

/// One partition was read to its end before the next had a turn: a poll that ended because the next
/// batch did not fit below the byte limit left the turn where it was, since neither count had
/// reached its limit. Rule: after a poll that a limit ends, the next one begins with another
/// partition.
// RED: src/consumer/slots.rs
//   - let is_full = fetched.is_cut
//   + let is_full = false
#[test]
fn row_j13_a_byte_limit_moves_the_turn() {
    let broker = in_memory();
    let value = vec![7; 3000];
    let records: Vec<_> = (0..4).map(|_| Record::new().value(&value)).collect();
    for topic in ["t", "u"] {
        let topic = broker.ensure_topic(topic, small_topic(2)).unwrap();
        for partition in 0..2 {
            for _ in 0..20 {
                topic.partition(partition).unwrap().append_batch(&records).unwrap();
            }
        }
    }
    let open = || broker.reader().subscribe(["t", "u"]).max_poll_bytes(20_000).open().unwrap();
    let partition_of = |message: &Message| (message.topic().to_owned(), message.partition());
    let mut reader = open();
    let mut served = BTreeMap::<_, usize>::new();
    for _ in 0..8 {
        for message in reader.poll(Duration::ZERO).unwrap() {
            *served.entry(partition_of(&message)).or_default() += 1;
        }
    }
    assert_eq!(served.values().copied().collect::<Vec<_>>(), [8; 4], "{served:?}");
    let mut reader = open();
    let received: BTreeSet<_> = (0..16).map(|_| partition_of(&reader.recv().unwrap())).collect();
    assert_eq!(received.len(), 4, "{received:?}");
}

#[test]
fn statement_13_a_wake_ends_the_current_or_the_next_wait_once() {
    let broker = filled(&[0]);
    let mut consumer = reader(&broker);
    let handle = consumer.handle();
    // Before the wait.
    handle.wake();
    assert!(consumer.poll(PATIENCE).unwrap().is_empty());
    handle.wake();
    assert!(matches!(consumer.recv(), Err(Error::Timeout)));
    handle.wake();
    assert!(consumer.recv_timeout(PATIENCE).unwrap().is_none());
    // During it, several times in a row.
    let (parked, is_parked) = mpsc::channel();
    let waiting = thread::spawn(move || {
        for _ in 0..3 {
            parked.send(ThreadState::here()).unwrap();
            assert!(consumer.poll(PATIENCE).unwrap().is_empty());
        }
        parked.send(ThreadState::here()).unwrap();
        assert!(matches!(consumer.recv(), Err(Error::Timeout)));
        // One wake ends one wait: this one ends by its time.
        assert!(consumer.poll(Duration::from_millis(1)).unwrap().is_empty());
        consumer
    });
    for _ in 0..4 {
        is_parked.recv().unwrap().wait_until_it_sleeps();
        handle.wake();
    }
    let mut consumer = waiting.join().unwrap();
    send_numbers(&broker, "t", 0, 0..1);
    assert_eq!(number(&consumer.recv().unwrap()), 0);
}

#[test]
fn shutdown_closes_waiting_and_later_calls_and_ends_iterations() {
    let broker = filled(&[3]);
    let mut consumer = reader(&broker);
    let handle = consumer.handle();
    let (parked, is_parked) = mpsc::channel();
    let waiting = thread::spawn(move || {
        let mut seen = Vec::new();
        for message in consumer.iter() {
            let message = message.unwrap();
            if message.offset() == 2 {
                parked.send(ThreadState::here()).unwrap();
            }
            seen.push(number(&message));
        }
        assert!(matches!(consumer.poll(Duration::ZERO), Err(Error::Closed)));
        assert!(matches!(consumer.recv(), Err(Error::Closed)));
        assert!(matches!(consumer.try_recv(), Err(Error::Closed)));
        assert!(matches!(consumer.recv_timeout(PATIENCE), Err(Error::Closed)));
        assert!(consumer.iter().next().is_none());
        seen
    });
    is_parked.recv().unwrap().wait_until_it_sleeps();
    handle.shutdown();
    assert_eq!(waiting.join().unwrap(), [0, 1, 2]);
    // The broker is another matter.
    assert_eq!(drain(&mut reader(&broker)).len(), 3);
}

#[test]
fn an_iteration_outlives_a_wake() {
    let broker = filled(&[1]);
    let mut consumer = reader(&broker);
    let handle = consumer.handle();
    let mut iteration = consumer.iter();
    handle.wake();
    assert_eq!(number(&iteration.next().unwrap().unwrap()), 0);
    handle.wake();
    send_numbers(&broker, "t", 0, 1..2);
    assert_eq!(number(&iteration.next().unwrap().unwrap()), 1);
}

// ---- positions ------------------------------------------------------------------------------

#[test]
fn recv_and_poll_mixed_hand_out_everything_once_and_the_position_is_what_was_handed_out() {
    let mut rng = Rng::announced("mixed");
    let broker = filled(&[400]);
    let mut reader = broker.reader().subscribe(["t"]).max_poll_records(7).open().unwrap();
    let mut seen = Vec::new();
    while seen.len() < 400 {
        match rng.below(4) {
            0 => seen.extend(numbers(reader.poll(Duration::ZERO).unwrap())),
            1 => seen.push(number(&reader.recv().unwrap())),
            2 => seen.extend(reader.try_recv().unwrap().iter().map(number)),
            _ => seen.extend(reader.recv_timeout(PATIENCE).unwrap().iter().map(number)),
        }
        let position = reader.position(&tp("t", 0)).unwrap();
        assert_eq!(position, seen.len() as u64, "not what was handed out");
        assert_eq!(reader.lag().unwrap()[&tp("t", 0)], 400 - position);
    }
    assert_eq!(seen, (0..400).collect::<Vec<_>>());
}

#[test]
fn what_was_read_ahead_for_recv_is_given_back_by_seek_pause_and_commit() {
    let broker = filled(&[10, 10]);
    let mut consumer = broker.consumer("g").assign([("t", 0), ("t", 1)]).open().unwrap();
    let first = consumer.recv().unwrap();
    assert_eq!((first.partition(), first.offset()), (0, 0));
    consumer.commit().unwrap();
    assert_eq!(consumer.committed(&tp("t", 0)).unwrap(), Some(1));
    assert_eq!(consumer.committed(&tp("t", 1)).unwrap(), Some(0));
    consumer.seek(&tp("t", 0), StartAt::Offset(5)).unwrap();
    assert_eq!(consumer.position(&tp("t", 0)), Some(5));
    consumer.pause(&[tp("t", 1)]).unwrap();
    assert_eq!(numbers(drain(&mut consumer)), [5, 6, 7, 8, 9]);
    consumer.resume(&[tp("t", 1)]).unwrap();
    assert_eq!(numbers(drain(&mut consumer)), (0..10).collect::<Vec<_>>());
}

#[test]
fn statement_12_every_way_to_seek_goes_where_it_says_and_out_of_range_to_the_nearest_end() {
    let clock = manual_clock();
    let broker = in_memory_at(&clock);
    broker.ensure_topic("t", small_topic(2)).unwrap();
    for number in 0..600 {
        send_numbers(&broker, "t", 1, number..number + 1);
        clock.advance(Duration::from_millis(10));
    }
    let at = |number: u32| some_time() + Duration::from_millis(10) * number;
    let mut reader = reader(&broker);
    let there = tp("t", 1);
    for (start, expected) in [
        (StartAt::Latest, 600),
        (StartAt::Earliest, 0),
        (StartAt::Offset(123), 123),
        (StartAt::Offset(600), 600),
        (StartAt::Offset(u64::MAX), 600),
        (StartAt::Time(at(250)), 250),
        (StartAt::Time(at(250) - Duration::from_millis(3)), 250),
        (StartAt::Time(std::time::SystemTime::UNIX_EPOCH), 0),
        (StartAt::Time(at(700)), 600),
    ] {
        reader.seek(&there, start).unwrap();
        assert_eq!(reader.position(&there), Some(expected), "{start:?}");
        let next = reader.poll(Duration::ZERO).unwrap().into_iter().next();
        assert_eq!(next.map(|it| it.offset()), (expected < 600).then_some(expected), "{start:?}");
    }
    reader.seek(&there, StartAt::Offset(7)).unwrap();
    let refused = reader.seek(&there, StartAt::Error);
    assert!(matches!(refused, Err(Error::NoOffset(ref at)) if *at == there), "{refused:?}");
    assert_eq!(reader.position(&there), Some(7), "a refused seek moved");
    for unknown in [tp("t", 2), tp("u", 1)] {
        let refused = reader.seek(&unknown, StartAt::Earliest);
        let Err(Error::UnknownPartition(named)) = refused else { panic!("{refused:?}") };
        assert_eq!(named, unknown);
        assert_eq!(reader.position(&unknown), None);
    }
}

#[test]
fn a_consumer_opens_where_start_says() {
    let clock = manual_clock();
    let broker = in_memory_at(&clock);
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    send_numbers(&broker, "t", 0, 0..5);
    clock.advance(Duration::from_secs(1));
    send_numbers(&broker, "t", 0, 5..10);
    let later = some_time() + Duration::from_secs(1);
    for (start, first) in [
        (StartAt::Earliest, 0),
        (StartAt::Offset(3), 3),
        (StartAt::Time(later), 5),
        (StartAt::Latest, 10),
        (StartAt::Offset(11), 10),
    ] {
        for group in [None, Some(format!("{start:?}"))] {
            let builder = group.map_or_else(|| broker.reader(), |group| broker.consumer(&group));
            let mut consumer = builder.subscribe(["t"]).start(start).open().unwrap();
            assert_eq!(consumer.position(&tp("t", 0)), Some(first), "{start:?}");
            assert_eq!(drain(&mut consumer).len() as u64, 10 - first);
        }
    }
    let refused = broker.consumer("g").subscribe(["t"]).start(StartAt::Error).open();
    assert!(matches!(refused, Err(Error::NoOffset(_))), "{refused:?}");
    // With something committed, `start` is not asked.
    let mut consumer = broker.consumer("g").subscribe(["t"]).open().unwrap();
    consumer.commit_offsets(&Offsets::from([(tp("t", 0), 4)])).unwrap();
    drop(consumer);
    for start in [StartAt::Error, StartAt::Latest, StartAt::Earliest] {
        let consumer = broker.consumer("g").subscribe(["t"]).start(start).open().unwrap();
        assert_eq!(consumer.position(&tp("t", 0)), Some(4), "{start:?}");
    }
}

#[test]
fn a_paused_partition_keeps_its_offset_and_is_not_read() {
    let broker = filled(&[5, 5]);
    let mut reader = reader(&broker);
    reader.pause(&[tp("t", 0)]).unwrap();
    assert!(drain(&mut reader).iter().all(|message| message.partition() == 1));
    send_numbers(&broker, "t", 0, 5..8);
    assert!(reader.poll(Duration::ZERO).unwrap().is_empty());
    assert_eq!(reader.position(&tp("t", 0)), Some(0));
    let refused = reader.pause(&[tp("t", 1), tp("t", 9)]);
    assert!(matches!(refused, Err(Error::UnknownPartition(_))), "{refused:?}");
    send_numbers(&broker, "t", 1, 5..6);
    assert_eq!(drain(&mut reader).len(), 1, "a refused pause paused");
    reader.resume(&[tp("t", 0)]).unwrap();
    assert_eq!(numbers(drain(&mut reader)), (0..8).collect::<Vec<_>>());
}

#[test]
fn a_paused_partition_wakes_nobody_and_a_resumed_one_does() {
    let broker = filled(&[0, 0]);
    let mut reader = reader(&broker);
    reader.pause(&[tp("t", 0)]).unwrap();
    let handle = reader.handle();
    let (parked, is_parked) = mpsc::channel();
    let waiting = thread::spawn(move || {
        parked.send(ThreadState::here()).unwrap();
        assert!(reader.poll(PATIENCE).unwrap().is_empty(), "the paused partition was read");
        reader.resume(&[tp("t", 0)]).unwrap();
        numbers(reader.poll(PATIENCE).unwrap())
    });
    is_parked.recv().unwrap().wait_until_it_sleeps();
    send_numbers(&broker, "t", 0, 0..1);
    handle.wake();
    assert_eq!(waiting.join().unwrap(), [0]);
}

#[test]
fn statement_14_lag_is_the_distance_from_position_to_visible_end() {
    let broker = filled(&[5, 3]);
    let mut reader = broker.reader().subscribe(["t"]).max_poll_records(1).open().unwrap();
    assert_eq!(reader.lag().unwrap(), BTreeMap::from([(tp("t", 0), 5), (tp("t", 1), 3)]));
    reader.poll(Duration::ZERO).unwrap();
    reader.poll(Duration::ZERO).unwrap();
    assert_eq!(reader.lag().unwrap().values().sum::<u64>(), 6);
    drain(&mut reader);
    assert!(reader.lag().unwrap().values().all(|lag| *lag == 0));
}

#[test]
fn durable_visibility_shows_nothing_that_a_power_cut_could_take_back() {
    let dir = temp_dir();
    let broker = open_quiet(dir.path());
    let topic = broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    let open = |visibility| broker.reader().subscribe(["t"]).visibility(visibility).open().unwrap();
    let mut careful = open(Visibility::Durable);
    let mut eager = open(Visibility::Published);
    send_numbers(&broker, "t", 0, 0..3);
    assert_eq!(drain(&mut eager).len(), 3);
    assert!(careful.poll(Duration::ZERO).unwrap().is_empty());
    assert_eq!(careful.lag().unwrap()[&tp("t", 0)], 0);
    topic.partition(0).unwrap().flush().unwrap();
    assert_eq!(drain(&mut careful).len(), 3);
    send_numbers(&broker, "t", 0, 3..5);
    // Armed: from here on the reader is owed a sync, which `tick` runs.
    assert!(careful.poll(Duration::from_millis(1)).unwrap().is_empty());
    broker.tick().unwrap();
    assert_eq!(drain(&mut careful).len(), 2);
}

/// Symptom: a reader that waited for what is durable slept on although a sync had made it so.
/// Cause: the sync woke the waiting readers before it raised the durable end; a quick reader saw
/// the old end and waited again. Rule: what is waited for is true before it is announced.
#[test]
fn a_parked_durable_reader_is_woken_by_every_sync() {
    let dir = temp_dir();
    let broker = Broker::builder().data_dir(dir.path()).durability(Durability::Os).open().unwrap();
    let topic = broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    let partition = topic.partition(0).unwrap();
    let mut reader =
        broker.reader().subscribe(["t"]).visibility(Visibility::Durable).open().unwrap();
    let waiting = thread::spawn(move || {
        for expected in 0..300 {
            let message = reader.recv_timeout(PATIENCE).unwrap().expect("a lost wake-up");
            assert_eq!(number(&message), expected);
        }
    });
    for number in 0..300 {
        send_numbers(&broker, "t", 0, number..number + 1);
        partition.flush().unwrap();
    }
    waiting.join().unwrap();
}

/// Symptom: a reader that waited for what is durable waited for ever, unless somebody else synced.
/// Cause: only a log that was dirty when the reader began to wait was synced for it. Rule: an
/// append that finds such a reader waiting asks for a sync.
#[test]
fn a_parked_durable_reader_gets_the_syncs_that_it_waits_for_without_anybody_asking() {
    let dir = temp_dir();
    let broker = Broker::builder().data_dir(dir.path()).durability(Durability::Os).open().unwrap();
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    let mut reader =
        broker.reader().subscribe(["t"]).visibility(Visibility::Durable).open().unwrap();
    // Dirty before it parks.
    send_numbers(&broker, "t", 0, 0..1);
    assert_eq!(number(&reader.recv_timeout(PATIENCE).unwrap().expect("a sync")), 0);
    // And after it has parked.
    let (parked, is_parked) = mpsc::channel();
    let waiting = thread::spawn(move || {
        parked.send(ThreadState::here()).unwrap();
        number(&reader.recv_timeout(PATIENCE).unwrap().expect("a sync"))
    });
    is_parked.recv().unwrap().wait_until_it_sleeps();
    send_numbers(&broker, "t", 0, 1..2);
    assert_eq!(waiting.join().unwrap(), 1);
}

// ---- messages -------------------------------------------------------------------------------

#[test]
fn messages_outlive_topic_rolls_deletion_and_the_broker() {
    for in_dir in [true, false] {
        let dir = temp_dir();
        let broker = if in_dir { open_quiet(dir.path()) } else { in_memory() };
        broker.ensure_topic("t", small_topic(1)).unwrap();
        send_numbers(&broker, "t", 0, 0..2000);
        let mut reader = reader(&broker);
        let batch = reader.poll(Duration::ZERO).unwrap();
        let held: Vec<Message> = drain(&mut reader);
        let bytes: Vec<_> = held.iter().map(|it| it.value_bytes().unwrap()).collect();
        let detached: Vec<_> = held.iter().map(Message::detach).collect();
        drop(reader);
        broker.admin().delete_topic("t").unwrap();
        // A topic of the same name takes nothing of the old one's memory.
        broker.ensure_topic("t", small_topic(1)).unwrap();
        send_numbers(&broker, "t", 0, 5000..7000);
        broker.close().unwrap();
        dir.close().unwrap();
        let (first, rest) = (batch.len() as u64, held.len() as u64);
        assert_eq!(first + rest, 2000);
        assert_eq!(numbers(batch), (0..first).collect::<Vec<_>>());
        let elsewhere = thread::spawn(move || numbers(held));
        assert_eq!(elsewhere.join().unwrap(), (first..2000).collect::<Vec<_>>());
        assert_eq!(numbers(detached), (first..2000).collect::<Vec<_>>());
        for (bytes, number) in bytes.iter().zip(first..) {
            assert_eq!(bytes, number.to_string().as_bytes());
        }
    }
}

#[test]
fn value_bytes_share_the_segment_and_detached_messages_do_not() {
    let broker = in_memory();
    let partition = broker.ensure_topic("t", TopicConfig::new(1)).unwrap().partition(0).unwrap();
    partition.append(&Record::new().key("k").value("value").header("h", "x")).unwrap();
    partition.append(&Record::new().value("")).unwrap();
    partition.append(&Record::new()).unwrap();
    let messages = read_all(&partition);
    let shared = messages[0].value_bytes().unwrap();
    assert_eq!(shared.as_ptr(), messages[0].value().unwrap().as_ptr(), "copied");
    let key = messages[0].key_bytes().unwrap();
    assert_eq!(key.as_ptr(), messages[0].key().unwrap().as_ptr(), "copied");
    let detached = messages[0].detach();
    assert_ne!(detached.value().unwrap().as_ptr(), shared.as_ptr(), "not copied");
    assert_eq!(detached.headers().get("h"), Some(&b"x"[..]));
    assert_eq!(messages[1].value_bytes().as_deref(), Some(&b""[..]));
    assert_eq!(messages[1].detach().value(), Some(&b""[..]));
    assert_eq!(messages[2].value_bytes(), None);
    assert_eq!(messages[2].detach().value(), None);
    assert_eq!(messages[2].detach().key(), None);
}

#[test]
fn a_batch_can_be_walked_by_partition_by_reference_and_by_value() {
    let broker = filled(&[40, 50, 60]);
    let mut reader = reader(&broker);
    let batch = reader.poll(Duration::ZERO).unwrap();
    assert_eq!(batch.len(), 150);
    let mut groups = BTreeSet::new();
    for (partition, messages) in batch.by_partition() {
        let mut next = 0;
        for message in messages {
            assert_eq!(message.topic_partition(), partition);
            assert_eq!(message.offset(), next);
            next += 1;
        }
        assert_eq!(next, 40 + 10 * u64::from(partition.partition));
        assert!(groups.insert(partition.clone()), "{partition} came twice");
    }
    assert_eq!(groups.len(), 3);
    let borrowed: Vec<_> = batch.iter().map(|it| (it.partition(), it.offset())).collect();
    let clone = batch.clone();
    let owned = batch.into_iter();
    assert_eq!(owned.len(), 150);
    let owned: Vec<_> = owned.map(|it| (it.partition(), it.offset())).collect();
    assert_eq!(borrowed, owned);
    assert_eq!(clone.len(), 150);
}

/// A wake-up used to be swallowed by a poll that found records, and its sender waited in vain.
#[test]
fn a_wake_up_is_for_the_call_whatever_there_is_to_read() {
    let broker = Broker::in_memory().unwrap();
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    broker.producer().send(Record::to("t").value("a")).unwrap();
    let mut reader = broker.reader().subscribe(["t"]).open().unwrap();
    reader.handle().wake();
    assert!(reader.poll(Duration::ZERO).unwrap().is_empty());
    assert_eq!(reader.poll(Duration::ZERO).unwrap().len(), 1);
}

/// The turn used to stay with a partition whose every fetch fails.
#[test]
fn a_partition_that_fails_does_not_starve_the_others() {
    let broker = Broker::in_memory().unwrap();
    for topic in ["gone", "kept"] {
        broker.ensure_topic(topic, TopicConfig::new(1)).unwrap();
    }
    let mut reader = broker.reader().assign([("gone", 0), ("kept", 0)]).open().unwrap();
    broker.admin().delete_topic("gone").unwrap();
    broker.producer().send(Record::to("kept").value("a")).unwrap();
    let polls: Vec<_> = (0..2).map(|_| reader.poll(Duration::ZERO)).collect();
    assert!(polls.iter().flatten().any(|batch| batch.len() == 1), "{polls:?}");
}

/// A consumer that has paused everything waits for nothing, but for the end.
#[test]
fn a_consumer_that_is_wholly_paused_hears_that_the_broker_is_closed() {
    let broker = Broker::in_memory().unwrap();
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    let mut reader = broker.reader().subscribe(["t"]).open().unwrap();
    reader.pause(&reader.assignment()).unwrap();
    let (begins, begun) = std::sync::mpsc::channel();
    let parked = std::thread::spawn(move || {
        begins.send(ThreadState::here()).unwrap();
        reader.poll(PATIENCE)
    });
    begun.recv().unwrap().wait_until_it_sleeps();
    broker.close().unwrap();
    assert!(matches!(parked.join().unwrap(), Err(Error::Closed)));
}

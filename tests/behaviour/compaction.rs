//! Goal: a compacted topic keeps the latest record of each key, at its offset and in its order,
//! through reopening and through being killed; readers and appenders continue while it is
//! compacted.
//!
//! Method: the public interface alone. Small segments, a manual clock and `tick` where order
//! matters; threads where it must not; for the kill, this test binary again as a child. What is
//! expected is computed from what was sent.
//!
//! Not covered: power cuts, full disks and damage during compaction (over the simulated disk, in
//! `src/log/tests/compaction.rs`), speed (`benches/compaction.rs`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::*;
use logpond::{
    Broker, Cleanup, CompactionStats, Error, Message, Partition, ReadMode, Record, SendOutcome,
    StartAt, TopicConfig,
};

const HOUR: Duration = Duration::from_secs(3600);

fn compacted(partitions: u32) -> TopicConfig {
    small_topic(partitions).cleanup(Cleanup::Compact).tombstone_retention(HOUR)
}

fn put(partition: &Partition, key: &str, value: &str) -> u64 {
    partition.append(&Record::new().key(key).value(value)).unwrap()
}

fn delete(partition: &Partition, key: &str) -> u64 {
    partition.append(&Record::new().key(key).tombstone()).unwrap()
}

/// Appends until the segment that was active is sealed.
fn roll(broker: &Broker, topic: &str) {
    let segments = || broker.admin().describe_topic(topic).unwrap().partitions[0].segments;
    let before = segments();
    let partition = broker.topic(topic).unwrap().partition(0).unwrap();
    while segments() == before {
        put(&partition, "filler", &"f".repeat(3_000));
    }
}

fn key_of(message: &Message) -> String {
    String::from_utf8(message.key().unwrap().to_vec()).unwrap()
}

/// The offsets at which a key can be read.
fn offsets_of(partition: &Partition, key: &str) -> Vec<u64> {
    let all = read_all(partition);
    all.iter().filter(|message| key_of(message) == key).map(Message::offset).collect()
}

fn stats(broker: &Broker, topic: &str) -> CompactionStats {
    broker.admin().describe_topic(topic).unwrap().partitions[0].compaction.unwrap()
}

/// Statement 21: the last value per key, offsets and order kept, tombstones for their time and then
/// gone, never the active segment, through a reopening.
#[test]
fn statement_21_a_compacted_topic_keeps_the_last_value_of_each_key() {
    let dir = temp_dir();
    let clock = manual_clock();
    let open = || quiet(dir.path()).clock(clock.clone()).open().unwrap();
    let broker = open();
    broker.ensure_topic("t", compacted(1)).unwrap();
    let partition = broker.topic("t").unwrap().partition(0).unwrap();
    let mut last = BTreeMap::new();
    for round in 0..10 {
        for key in 0..20 {
            let key = format!("key-{key}");
            last.insert(key.clone(), (put(&partition, &key, &format!("{round}")), round));
        }
    }
    let gone = put(&partition, "gone", "for a while");
    let tombstone = delete(&partition, "gone");
    roll(&broker, "t");
    let active = put(&partition, "key-0", "in the active segment");
    let before = read_all(&partition);

    let report = broker.admin().compact_now("t").unwrap();
    assert_eq!((report.partitions, report.tombstones_removed), (1, 0), "{report:?}");
    assert!(report.records_removed >= 181 && report.bytes_after < report.bytes_before);
    let check = |partition: &Partition| {
        let after = read_all(partition);
        assert!(after.iter().map(Message::offset).is_sorted());
        for (key, (offset, round)) in &last {
            let found: Vec<&Message> = after.iter().filter(|it| key_of(it) == *key).collect();
            assert_eq!(found[0].offset(), *offset, "{key} has moved");
            assert_eq!(text(found[0]), round.to_string(), "{key}");
            assert_eq!(found.len(), 1 + usize::from(key == "key-0"), "{key}");
        }
        for message in &after {
            let same = before.iter().find(|it| it.offset() == message.offset()).unwrap();
            assert_eq!((same.key(), same.value()), (message.key(), message.value()));
            assert_eq!(same.timestamp(), message.timestamp());
        }
        assert_eq!(offsets_of(partition, "key-0"), [last["key-0"].0, active]);
    };
    check(&partition);
    assert_eq!(offsets_of(&partition, "gone"), [tombstone], "{gone} is deleted, and it says so");

    // Kept through a reopening; still kept just before its time is over; then removed.
    drop(partition);
    broker.close().unwrap();
    let broker = open();
    let partition = broker.topic("t").unwrap().partition(0).unwrap();
    clock.advance(HOUR.saturating_sub(Duration::from_millis(1)));
    assert_eq!(broker.admin().compact_now("t").unwrap().tombstones_removed, 0);
    assert_eq!(offsets_of(&partition, "gone"), [tombstone]);
    clock.advance(Duration::from_millis(1));
    assert_eq!(broker.admin().compact_now("t").unwrap().tombstones_removed, 1);
    assert!(offsets_of(&partition, "gone").is_empty());
    check(&partition);
    drop(partition);
    broker.close().unwrap();
    let broker = open();
    assert!(broker.recovery().is_clean(), "{:?}", broker.recovery());
    let partition = broker.topic("t").unwrap().partition(0).unwrap();
    check(&partition);
    assert!(offsets_of(&partition, "gone").is_empty());
}

#[test]
fn a_topic_that_is_not_compacted_is_a_configuration_error() {
    let broker = in_memory();
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    assert_eq!(refused_setting(broker.admin().compact_now("t")), "cleanup");
    assert!(matches!(broker.admin().compact_now("u"), Err(Error::UnknownTopic(_))));
    let described = broker.admin().describe_topic("t").unwrap();
    assert_eq!(described.partitions[0].compaction, None);
}

#[test]
fn a_compacted_topic_takes_no_record_without_a_key() {
    for cleanup in [Cleanup::Compact, Cleanup::CompactAndDelete] {
        let broker = in_memory();
        broker.ensure_topic("t", TopicConfig::new(1).cleanup(cleanup)).unwrap();
        let partition = broker.topic("t").unwrap().partition(0).unwrap();
        let keyless = Record::new().value("x");
        assert_eq!(refused_setting(partition.append(&keyless)), "key");
        let batch = [Record::new().key("a").value("x"), keyless];
        let refused = partition.append_batch(&batch);
        assert!(refused.as_ref().is_err_and(Error::is_definite), "{refused:?}");
        assert_eq!(refused_setting(refused), "key");
        assert_eq!(refused_setting(broker.producer().send(Record::to("t").value("x"))), "key");
        assert_eq!(partition.log_end_offset(), 0, "nothing was appended");
        // Empty is a key.
        put(&partition, "", "x");
    }
}

#[test]
fn compaction_starts_by_itself_at_the_dirty_ratio() {
    let broker = in_memory();
    broker.ensure_topic("t", compacted(1).min_dirty_ratio(0.75)).unwrap();
    let partition = broker.topic("t").unwrap().partition(0).unwrap();
    let fill = |from: u32| {
        for key in from..from + 40 {
            put(&partition, &format!("{key}"), &"v".repeat(300));
        }
        roll(&broker, "t");
        broker.tick().unwrap();
    };
    fill(0);
    let first = stats(&broker, "t");
    assert_eq!((first.compactions, first.dirty_bytes), (1, 0), "all was dirty: {first:?}");
    assert!(first.clean_bytes > 0 && first.compacted_up_to > 0);
    fill(100);
    let second = stats(&broker, "t");
    assert_eq!(second.compactions, 1, "less than three quarters are dirty: {second:?}");
    assert_eq!(second.compacted_up_to, first.compacted_up_to);
    let mut from = 200;
    while stats(&broker, "t").compactions == 1 {
        let CompactionStats { clean_bytes, dirty_bytes, .. } = stats(&broker, "t");
        assert!(dirty_bytes < 3 * clean_bytes, "it is due: {dirty_bytes} beside {clean_bytes}");
        fill(from);
        from += 100;
    }
    assert_eq!(stats(&broker, "t").dirty_bytes, 0);
}

#[test]
fn a_tombstone_whose_time_is_over_goes_without_new_dirt() {
    let clock = manual_clock();
    let broker = Broker::builder().in_memory().background(false).clock(clock.clone());
    let broker = broker.open().unwrap();
    broker.ensure_topic("t", compacted(1)).unwrap();
    let partition = broker.topic("t").unwrap().partition(0).unwrap();
    put(&partition, "a", "x");
    let tombstone = delete(&partition, "a");
    roll(&broker, "t");
    broker.tick().unwrap();
    assert_eq!(offsets_of(&partition, "a"), [tombstone]);
    clock.advance(HOUR);
    broker.tick().unwrap();
    assert!(offsets_of(&partition, "a").is_empty());
    assert_eq!(stats(&broker, "t").tombstones_removed, 1);
}

/// Symptom: a topic was compacted, then the broker opened again, and nothing was appended since:
/// its tombstones stayed for ever. Cause: when the first one may go was known only to the run that
/// had compacted. Rule: it is stored with the segment, and time passes for a quiet log too.
// RED: src/log/open.rs
//   - segment.note_horizon(horizon);
//   + segment.note_horizon(horizon | u64::MAX);
// RED: src/log/compaction/output.rs
//   - next_horizon: Some(self.contents.next_horizon),
//   + next_horizon: Some(Footer::NO_HORIZON),
#[test]
fn row_f13_tombstones_of_a_quiet_topic_go_in_a_later_run() {
    for closes in [true, false] {
        let (dir, clock) = (temp_dir(), manual_clock());
        let open = || quiet(dir.path()).clock(clock.clone()).open().unwrap();
        let broker = open();
        let partition = broker.ensure_topic("t", compacted(1)).unwrap().partition(0).unwrap();
        put(&partition, "a", "x");
        let tombstone = delete(&partition, "a");
        roll(&broker, "t");
        broker.tick().unwrap();
        drop(partition);
        if closes {
            broker.close().unwrap();
        } else {
            drop(broker);
        }

        let broker = open();
        let partition = broker.topic("t").unwrap().partition(0).unwrap();
        clock.advance(HOUR.saturating_sub(Duration::from_millis(1)));
        broker.tick().unwrap();
        assert_eq!(offsets_of(&partition, "a"), [tombstone]);
        assert_eq!(stats(&broker, "t").compactions, 0, "an opening asks for none");
        clock.advance(Duration::from_millis(1));
        broker.tick().unwrap();
        assert!(offsets_of(&partition, "a").is_empty(), "closes: {closes}");
        let once = stats(&broker, "t").compactions;
        (0..3).for_each(|_| broker.tick().unwrap());
        assert_eq!((once, stats(&broker, "t").compactions), (1, 1), "no tombstone is left");
    }
}

/// Symptom: where a process died and nothing was appended since, the records of the last segment
/// were never compacted. Cause: after such an end the log continues in a new segment, which the
/// next append makes; until then the last one takes no appends, had no age, and was never replaced.
/// Rule: time passes for a quiet log too.
// RED: src/log/retention.rs
//   - let age = tail.began.or(youngest).map(
//   + let age = tail.began.or(youngest.filter(|_| false)).map(
#[test]
fn row_f13_the_last_segment_of_a_quiet_topic_is_compacted_after_its_process_died() {
    for (cleanup, deaths) in [(Cleanup::Compact, 1), (Cleanup::CompactAndDelete, 2)] {
        let (dir, clock) = (temp_dir(), manual_clock());
        let open = || quiet(dir.path()).clock(clock.clone()).open().unwrap();
        let mut broker = open();
        let config = small_topic(1).cleanup(cleanup).segment_age(HOUR);
        let partition = broker.ensure_topic("t", config).unwrap().partition(0).unwrap();
        (0..50).for_each(|number| assert_eq!(put(&partition, "k", "v"), number));
        drop(partition);
        for _ in 0..deaths {
            drop(broker);
            put_something_behind_the_end(&dir.path().join("t"));
            broker = open();
        }
        let partition = broker.topic("t").unwrap().partition(0).unwrap();
        clock.advance(HOUR);
        broker.tick().unwrap();
        assert_eq!(read_all(&partition).len(), 50, "it is not older than an hour");
        clock.advance(Duration::from_millis(1));
        // It is rolled, then given its footer, then compacted.
        (0..3).for_each(|_| broker.tick().unwrap());
        assert_eq!(offsets_of(&partition, "k"), [49], "{cleanup:?}");
        let segments = || broker.admin().describe_topic("t").unwrap().partitions[0].segments;
        assert_eq!(segments(), 2);
        clock.advance(10 * HOUR);
        (0..3).for_each(|_| broker.tick().unwrap());
        assert_eq!((segments(), put(&partition, "k", "w")), (2, 50));
    }
}

#[test]
fn readers_pass_over_stretches_in_which_nothing_is_left() {
    for mode in [ReadMode::Mapped, ReadMode::Copy] {
        let dir = temp_dir();
        let clock = manual_clock();
        let broker = quiet(dir.path()).read_mode(mode).clock(clock.clone()).open().unwrap();
        broker.ensure_topic("t", compacted(1)).unwrap();
        let partition = broker.topic("t").unwrap().partition(0).unwrap();
        for key in 0..50 {
            delete(&partition, &format!("{key}"));
        }
        roll(&broker, "t");
        let mut reader = broker.reader().assign([tp("t", 0)]).open().unwrap();
        reader.poll(Duration::ZERO).unwrap();
        reader.seek(&tp("t", 0), StartAt::Offset(3)).unwrap();
        for _ in 0..2 {
            broker.admin().compact_now("t").unwrap();
            clock.advance(HOUR);
        }
        let left = read_all(&partition);
        assert!(left.iter().all(|message| key_of(message) == "filler"), "{mode:?}");
        // From inside the gap: the next record there is.
        let first = partition.read(3, 1).unwrap().into_iter().next().unwrap();
        assert_eq!(first.offset(), left[0].offset(), "{mode:?}");
        let found: Vec<u64> = drain(&mut reader).iter().map(Message::offset).collect();
        assert_eq!(found, left.iter().map(Message::offset).collect::<Vec<_>>(), "{mode:?}");
        assert_eq!(reader.lag().unwrap()[&tp("t", 0)], 0, "{mode:?}");
        assert_eq!(reader.position(&tp("t", 0)), Some(partition.log_end_offset()));
        // Nothing of that time is left but the filler.
        let at = partition.offset_at(some_time()).unwrap();
        assert_eq!(at, Some(left[0].offset()), "{mode:?}");
    }
}

#[test]
fn a_named_producers_sequence_survives_compaction() {
    let dir = temp_dir();
    let broker = open_quiet(dir.path());
    broker.ensure_topic("t", compacted(1)).unwrap();
    let producer = broker.producer_builder().id("p").build().unwrap();
    producer.send_sequenced(70, Record::to("t").key("a").value("1")).unwrap();
    let partition = broker.topic("t").unwrap().partition(0).unwrap();
    put(&partition, "a", "2");
    roll(&broker, "t");
    broker.admin().compact_now("t").unwrap();
    assert_eq!(offsets_of(&partition, "a"), [1], "its only batch was removed");
    drop((partition, producer));
    broker.close().unwrap();
    let broker = open_quiet(dir.path());
    let producer = broker.producer_builder().id("p").build().unwrap();
    let again = producer.send_sequenced(70, Record::to("t").key("a").value("1")).unwrap();
    assert_eq!(again, SendOutcome::Duplicate { last: 70 });
}

/// J9 with threads: appends, compactions and readers of both kinds at the same time.
#[test]
fn row_j09_readers_and_appenders_continue_while_a_topic_is_compacted() {
    for mode in [ReadMode::Mapped, ReadMode::Copy] {
        let dir = temp_dir();
        let builder = Broker::builder().data_dir(dir.path()).read_mode(mode);
        let broker = builder.durability(logpond::Durability::Os).open().unwrap();
        broker.ensure_topic("t", compacted(1).min_dirty_ratio(0.1)).unwrap();
        let partition = broker.topic("t").unwrap().partition(0).unwrap();
        let is_over = AtomicBool::new(false);
        let last: BTreeMap<String, u64> = thread::scope(|scope| {
            let appender = scope.spawn(|| {
                let mut last = BTreeMap::new();
                for number in 0..6_000_u64 {
                    let key = (number * 7_919 % 97).to_string();
                    last.insert(key.clone(), number);
                    put(&partition, &key, &format!("{number} {}", "x".repeat(200)));
                }
                is_over.store(true, Ordering::Release);
                last
            });
            scope.spawn(|| {
                while !is_over.load(Ordering::Acquire) {
                    broker.admin().compact_now("t").unwrap();
                }
            });
            for _ in 0..2 {
                scope.spawn(|| {
                    // Again and again from the start: whatever a reader sees is what was sent.
                    while !is_over.load(Ordering::Acquire) {
                        let mut reader = broker.reader().assign([tp("t", 0)]).open().unwrap();
                        let mut next = 0;
                        for message in drain(&mut reader) {
                            assert!(message.offset() >= next, "order");
                            next = message.next_offset();
                            let number: u64 =
                                text(&message).split(' ').next().unwrap().parse().unwrap();
                            assert_eq!(number, message.offset());
                            assert_eq!(key_of(&message), (number * 7_919 % 97).to_string());
                        }
                    }
                });
            }
            appender.join().unwrap()
        });
        broker.admin().compact_now("t").unwrap();
        let found: BTreeMap<String, u64> =
            read_all(&partition).iter().map(|it| (key_of(it), it.offset())).collect();
        assert_eq!(found, last, "{mode:?}");
        assert!(read_all(&partition).len() < 1_000, "{mode:?}");
    }
}

#[test]
fn closing_ends_a_compaction_and_the_directory_opens_again() {
    let dir = temp_dir();
    for _ in 0..5 {
        let broker = Broker::builder().data_dir(dir.path()).open().unwrap();
        broker.ensure_topic("t", compacted(1)).unwrap();
        let partition = broker.topic("t").unwrap().partition(0).unwrap();
        let batch = vec![b'v'; 3_000];
        for key in 0..200_u32 {
            let key = (key % 50).to_string();
            let record = Record::new().key(&key).value(&batch);
            partition.append_batch(&[record]).unwrap();
        }
        drop(partition);
        let admin = broker.admin();
        let compaction = thread::spawn(move || admin.compact_now("t"));
        broker.close().unwrap();
        let ended = compaction.join().unwrap();
        assert!(matches!(&ended, Ok(_) | Err(Error::Closed | Error::UnknownTopic(_))), "{ended:?}");
        let temporary = |path: &std::path::PathBuf| path.to_string_lossy().ends_with(".tmp");
        assert!(!files_below(dir.path()).iter().any(temporary));
    }
}

// ---- kill -9 ------------------------------------------------------------------------------------

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n@{line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

#[test]
fn child_compacts_until_it_is_killed() {
    let Some(dir) = child_dir() else { return };
    let broker = open_quiet(&dir);
    broker.ensure_topic("t", compacted(1)).unwrap();
    let partition = broker.topic("t").unwrap().partition(0).unwrap();
    let mut rng = Rng::announced("the child");
    thread::scope(|scope| {
        scope.spawn(|| {
            loop {
                broker.admin().compact_now("t").unwrap();
            }
        });
        loop {
            let key = rng.below(60).to_string();
            let value = "v".repeat(rng.index(900));
            say(&format!("acked {key} {}", put(&partition, &key, &value)));
        }
    });
}

/// A15 to A18 on real files: whatever the moment, the latest acknowledged record of each key is
/// there, and no older one comes back.
#[test]
fn row_a15_a18_a_process_that_is_killed_while_it_compacts_loses_no_latest_record() {
    let dir = temp_dir();
    let mut rng = Rng::announced("kills while compacting");
    let mut latest: BTreeMap<String, u64> = BTreeMap::new();
    for round in 0..from_env("LOGPOND_ROUNDS", 6) {
        let mut child = child("compaction::child_compacts_until_it_is_killed", dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut note = |line: &str| {
            let Some(rest) = line.strip_prefix("@acked ") else { return false };
            let (key, offset) = rest.split_once(' ').unwrap();
            if let Ok(offset) = offset.parse() {
                latest.insert(key.to_owned(), offset);
            }
            true
        };
        let mut wanted = 100 + rng.below(1_500);
        while wanted > 0 {
            wanted -= u64::from(note(&lines.next().expect("the child runs").unwrap()));
        }
        child.kill().unwrap();
        // What it has said before it died counts; a line that was cut does not.
        for line in lines.map_while(Result::ok) {
            note(&line);
        }
        child.wait().unwrap();
        let broker = open_quiet(dir.path());
        assert!(broker.recovery().partitions.iter().all(|it| it.corrupt.is_empty()));
        let partition = broker.topic("t").unwrap().partition(0).unwrap();
        let found: BTreeMap<String, u64> =
            read_all(&partition).iter().map(|it| (key_of(it), it.offset())).collect();
        for (key, offset) in &latest {
            assert!(found[key] >= *offset, "round {round}: {key} at {offset}, {:?}", found[key]);
        }
    }
}

/// Symptom: `verify` reported damage, "footer timestamps", in a sound log. Cause: it took the time
/// of a batch in which compaction had left no record for a record's. Rule: a batch without records
/// has no time, neither where a footer is written nor where it is checked.
#[test]
fn a_segment_in_which_no_record_is_left_is_sound() {
    let clock = manual_clock();
    let builder = Broker::builder().in_memory().background(false).clock(clock.clone());
    let broker = builder.open().unwrap();
    broker.ensure_topic("t", compacted(1)).unwrap();
    let partition = broker.topic("t").unwrap().partition(0).unwrap();
    let admin = broker.admin();
    // One long key that is deleted again and again: one tombstone stays, for its time.
    let key = "k".repeat(3_000);
    while admin.describe_topic("t").unwrap().partitions[0].segments == 1 {
        delete(&partition, &key);
    }
    admin.compact_now("t").unwrap();
    clock.advance(HOUR);
    assert_eq!(admin.compact_now("t").unwrap().tombstones_removed, 1);
    assert_eq!(read_all(&partition).len(), 1, "only the active segment has a record");
    let report = admin.verify("t").unwrap();
    assert!(report.is_ok(), "{report:?}");
}

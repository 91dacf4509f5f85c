//! Goal: a directory has one broker at a time, which opens, closes and reopens as it says; topics
//! come and go; every handle learns of the end; named producers store each record once.
//!
//! Method: public API. A second process is this test binary again, which reads from an environment
//! variable what to do (`common::child`); it ends with exit code 0 only if it saw what it should.
//!
//! Not covered: crashes while topics are created or deleted (unit tests over the simulated disk),
//! kill -9 (`kill9.rs`), expiry of producer ids.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod deleted_topics;
mod files;
mod named_producers;
mod other_ways;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, SystemTime};

use crate::common::*;
use logpond::{
    Broker, Cleanup, Durability, Error, LockHolder, NameError, Offsets, Producer, ReadMode, Record,
    RecordMetadata, SendOutcome, TopicConfig,
};

// ---- opening and locking --------------------------------------------------------------------

#[test]
fn open_creates_missing_parents_and_keeps_everything_to_its_owner() {
    let dir = temp_dir();
    let store = dir.path().join("a/b/store");
    let broker = Broker::open(&store).unwrap();
    assert!(broker.recovery().clean_shutdown && broker.recovery().is_clean());
    broker.ensure_topic("t", small_topic(2)).unwrap();
    send_numbers(&broker, "t", 0, 0..3);
    broker.close().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for created in ["a", "a/b", "a/b/store", "a/b/store/t", "a/b/store/t/0", "a/b/store/__meta"] {
        assert_eq!(mode(&dir.path().join(created)), 0o700, "{created}");
    }
    let files = files_below(&store);
    assert!(files.len() > 4, "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[test]
fn a_second_open_in_this_process_is_locked_whatever_the_path() {
    let dir = temp_dir();
    let store = dir.path().join("store");
    let link = dir.path().join("link");
    let broker = Broker::open(&store).unwrap();
    std::os::unix::fs::symlink(&store, &link).unwrap();
    for path in [&store, &link, &store.join("../store/."), &dir.path().join("link/../store")] {
        let refused = Broker::open(path);
        let Err(Error::Locked { path: named, holder }) = &refused else { panic!("{refused:?}") };
        assert_eq!(named, path);
        let expected = LockHolder::ThisProcess { handles: 1, is_closing: false };
        assert_eq!(*holder, expected, "{refused:?}");
        assert!(refused.unwrap_err().is_retriable());
    }
    drop(broker);
    Broker::open(&link).unwrap().close().unwrap();
    Broker::open(&store).unwrap();
}

#[test]
fn child_finds_the_directory_locked() {
    let Some(dir) = child_dir() else { return };
    let refused = Broker::open(&dir);
    assert!(matches!(refused, Err(Error::Locked { .. })), "{refused:?}");
    // For inspection there is no lock.
    let inspecting = Broker::builder().data_dir(&dir).read_only(true).open().unwrap();
    assert_eq!(read_all(&inspecting.topic("t").unwrap().partition(0).unwrap()).len(), 5);
}

#[test]
fn child_finds_the_directory_free() {
    let Some(dir) = child_dir() else { return };
    Broker::open(&dir).unwrap().close().unwrap();
}

#[test]
fn statement_09_a_second_process_is_kept_out_until_the_first_is_done() {
    let dir = temp_dir();
    let broker = Broker::open(dir.path()).unwrap();
    broker.ensure_topic("t", small_topic(1)).unwrap();
    send_numbers(&broker, "t", 0, 0..5);
    assert!(
        child("broker::child_finds_the_directory_locked", dir.path()).status().unwrap().success()
    );
    let wrong = child("broker::child_finds_the_directory_free", dir.path()).output().unwrap();
    assert!(!wrong.status.success(), "the child cannot fail");
    broker.close().unwrap();
    assert!(
        child("broker::child_finds_the_directory_free", dir.path()).status().unwrap().success()
    );
}

#[test]
fn the_last_handle_of_any_kind_keeps_the_directory_and_its_drop_frees_it() {
    let dir = temp_dir();
    let open = || Broker::open(dir.path());
    let broker = open().unwrap();
    let topic = broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    let partition = topic.partition(0).unwrap();
    let producer = broker.producer();
    let consumer = broker.consumer("g").subscribe(["t"]).open().unwrap();
    let admin = broker.admin();
    let delivery = producer.enqueue(Record::to("t").value("x")).unwrap();
    let held = read_all(&partition);
    let mut most = usize::MAX;
    let mut still_locked = || {
        let refused = open();
        let Err(Error::Locked { holder: LockHolder::ThisProcess { handles, .. }, .. }) = refused
        else {
            panic!("{refused:?}")
        };
        assert!((1..most).contains(&handles), "{handles} handles, of less than {most}");
        most = handles;
    };
    drop(broker);
    still_locked();
    drop(topic);
    still_locked();
    drop(partition);
    still_locked();
    drop(consumer);
    still_locked();
    drop(admin);
    still_locked();
    drop(producer);
    // The delivery is a handle of the producer.
    let kept = open();
    let one = LockHolder::ThisProcess { handles: 1, is_closing: false };
    let is_kept = matches!(&kept, Err(Error::Locked { holder, .. }) if *holder == one);
    assert!(is_kept, "{kept:?}");
    drop(delivery);
    // A message is not a handle. The workers end by themselves; `open` waits for them.
    let broker = open().unwrap();
    assert!(!broker.recovery().clean_shutdown);
    assert_eq!(text(&held[0]), "x");
    assert_eq!(read_all(&broker.topic("t").unwrap().partition(0).unwrap()).len(), 1);
}

#[test]
fn a_broker_opened_and_dropped_a_hundred_times_is_never_locked_out() {
    let dir = temp_dir();
    for run in 0..100_u64 {
        let broker = Broker::builder()
            .data_dir(dir.path())
            .durability(Durability::Os)
            .open()
            .unwrap_or_else(|error| panic!("run {run}: {error:?}"));
        let topic = broker.ensure_topic("t", small_topic(1)).unwrap();
        let partition = topic.partition(0).unwrap();
        assert_eq!(partition.log_end_offset(), run);
        partition.append(&Record::new().value("x")).unwrap();
        assert_eq!(broker.recovery().clean_shutdown, run == 0 || run % 3 == 0);
        if run % 3 == 2 {
            broker.close().unwrap();
        }
    }
}

#[test]
fn everything_is_there_after_a_clean_close() {
    for read_mode in [ReadMode::Mapped, ReadMode::Copy] {
        let dir = temp_dir();
        let open = || quiet(dir.path()).read_mode(read_mode).open().unwrap();
        let broker = open();
        broker.ensure_topic("t", small_topic(3).max_record_bytes(777)).unwrap();
        broker.ensure_topic("empty", TopicConfig::new(2)).unwrap();
        for partition in 0..3 {
            send_numbers(&broker, "t", partition, 0..500 * u64::from(partition));
        }
        let before = broker.admin().topics().unwrap();
        broker.close().unwrap();
        let broker = open();
        let report = broker.recovery();
        assert!(report.clean_shutdown && report.is_clean(), "{report:?}");
        let ends: Vec<_> = report
            .partitions
            .iter()
            .filter(|it| *it.topic == *"t")
            .map(|it| (it.partition, it.end_offset, it.cut_bytes))
            .collect();
        assert_eq!(ends, [(0, 0, 0), (1, 500, 0), (2, 1000, 0)]);
        let after = broker.admin().topics().unwrap();
        assert_eq!(after.len(), 2);
        for (before, after) in before.iter().zip(&after) {
            assert_eq!((&before.name, &before.config), (&after.name, &after.config));
            for (before, after) in before.partitions.iter().zip(&after.partitions) {
                assert_eq!(before.log_end_offset, after.log_end_offset);
                assert_eq!(after.durable_end_offset, after.log_end_offset);
            }
        }
        for partition in 0..3 {
            let messages = read_all(&broker.topic("t").unwrap().partition(partition).unwrap());
            assert_dense(&messages, 0);
            assert_eq!(messages.len() as u64, 500 * u64::from(partition));
            assert!(messages.iter().all(|message| number(message) == message.offset()));
        }
    }
}

#[test]
fn what_was_published_is_there_after_a_drop_without_close() {
    for durability in [Durability::Os, Durability::Sync] {
        let dir = temp_dir();
        let broker = quiet(dir.path()).durability(durability).open().unwrap();
        broker.ensure_topic("t", small_topic(1)).unwrap();
        let sent = if durability == Durability::Sync { 300 } else { 2000 };
        send_numbers(&broker, "t", 0, 0..sent);
        drop(broker);
        let broker = open_quiet(dir.path());
        assert!(!broker.recovery().clean_shutdown && broker.recovery().is_clean());
        let partition = broker.topic("t").unwrap().partition(0).unwrap();
        assert_eq!(read_all(&partition).len() as u64, sent);
        send_numbers(&broker, "t", 0, sent..sent + 10);
        broker.flush().unwrap();
        assert_eq!(partition.durable_end_offset(), sent + 10);
        let messages = read_all(&partition);
        assert!(messages.iter().all(|message| number(message) == message.offset()));
    }
}

// ---- topics ---------------------------------------------------------------------------------

#[test]
fn topics_are_created_described_deleted_and_stay_so_across_a_restart() {
    let dir = temp_dir();
    let broker = open_quiet(dir.path());
    let admin = broker.admin();
    let made = admin.create_topic("orders", small_topic(2)).unwrap();
    assert_eq!((made.name(), made.partitions()), ("orders", 2));
    assert_eq!(made.config().segment_bytes, SMALL_SEGMENT);
    let refused = admin.create_topic("orders", small_topic(2));
    assert!(matches!(&refused, Err(Error::TopicExists(name)) if name == "orders"), "{refused:?}");
    for name in ["zebra", "alpha", "a.b_c-D9"] {
        admin.create_topic(name, TopicConfig::new(1)).unwrap();
    }
    let names = |broker: &Broker| -> Vec<String> {
        let topics = broker.admin().topics().unwrap();
        topics.iter().map(|topic| topic.name.to_string()).collect()
    };
    assert_eq!(names(&broker), ["a.b_c-D9", "alpha", "orders", "zebra"]);
    send_numbers(&broker, "orders", 1, 0..3);
    let info = admin.describe_topic("orders").unwrap();
    assert_eq!(info.partitions[1].log_end_offset, 3);
    admin.delete_topic("alpha").unwrap();
    admin.delete_topic("orders").unwrap();
    assert!(!dir.path().join("orders").exists());
    for call in [
        admin.delete_topic("orders").map(drop),
        admin.describe_topic("orders").map(drop),
        broker.topic("orders").map(drop),
        broker.producer().send(Record::to("orders")).map(drop),
        broker.reader().subscribe(["orders"]).open().map(drop),
        broker.consumer("g").assign([("orders", 0)]).open().map(drop),
    ] {
        assert!(matches!(&call, Err(Error::UnknownTopic(name)) if name == "orders"), "{call:?}");
    }
    for call in [
        made.partition(0).unwrap().append(&Record::new().value("x")).map(drop),
        made.partition(0).unwrap().read(0, 1).map(drop),
    ] {
        assert!(matches!(call, Err(Error::UnknownTopic(_))), "of a deleted topic: {call:?}");
    }
    drop((made, admin));
    broker.close().unwrap();
    let broker = open_quiet(dir.path());
    assert_eq!(names(&broker), ["a.b_c-D9", "zebra"]);
    assert!(broker.recovery().unknown.is_empty());
    // Again, under the old name: nothing of the old one.
    let topic = broker.admin().create_topic("orders", small_topic(3)).unwrap();
    for partition in 0..3 {
        assert_eq!(topic.partition(partition).unwrap().log_end_offset(), 0);
    }
}

#[test]
fn ensure_topic_keeps_what_is_there_and_refuses_another_partition_count() {
    let dir = temp_dir();
    let broker = open_quiet(dir.path());
    broker.ensure_topic("t", small_topic(2).max_record_bytes(100)).unwrap();
    let same = broker.ensure_topic("t", TopicConfig::new(2).max_record_bytes(200)).unwrap();
    assert_eq!(same.config().max_record_bytes, Some(100));
    for count in [1, 3] {
        let refused = broker.ensure_topic("t", TopicConfig::new(count));
        assert_eq!(refused_setting(refused), "partitions");
    }
    drop(same);
    broker.close().unwrap();
    let broker = open_quiet(dir.path());
    assert_eq!(refused_setting(broker.ensure_topic("t", TopicConfig::new(1))), "partitions");
    assert_eq!(broker.ensure_topic("t", TopicConfig::new(2)).unwrap().partitions(), 2);
}

/// A service was deployed with a longer retention, asked for it, and kept the old one without a
/// word. The rule: what is asked for, by other than a default, is there or is an error that names
/// it; a default asks for nothing.
#[test]
fn ensure_topic_names_each_setting_that_is_not_as_asked_for() {
    let hour = Duration::from_secs(3600);
    let stored = || TopicConfig::new(2).retention(hour).cleanup(Cleanup::CompactAndDelete);
    let dir = temp_dir();
    let defaults = TopicConfig::new(1).retention_bytes(1 << 30);
    let open = || quiet(dir.path()).topic_defaults(defaults.clone()).open().unwrap();
    let broker = open();
    broker.ensure_topic("t", stored()).unwrap();
    broker.close().unwrap();
    let broker = open();
    for agrees in [
        stored(),
        TopicConfig::new(2),
        stored().retention_bytes(1 << 30),
        stored().retention(TopicConfig::new(1).retention),
        stored().segment_age(hour).max_record_bytes(7),
    ] {
        assert_eq!(broker.ensure_topic("t", agrees).unwrap().config().retention, hour);
    }
    for (differs, named) in [
        (stored().retention(2 * hour), &["retention"][..]),
        (stored().retention_bytes(7), &["retention_bytes"]),
        (stored().cleanup(Cleanup::Compact), &["cleanup"]),
        (stored().durability(Durability::Os), &["durability"]),
        (TopicConfig::new(3).retention(2 * hour), &["partitions", "retention"]),
    ] {
        let taken = broker.ensure_topic_as_is("t", differs.clone()).unwrap();
        assert_eq!(taken.config().retention, hour, "as it is");
        let Err(Error::Config(refused)) = broker.ensure_topic("t", differs) else { panic!() };
        assert_eq!(refused.setting, named[0]);
        let missing = named.iter().find(|name| !refused.reason.contains(**name));
        assert!(missing.is_none(), "{refused}");
    }
    let created = broker.ensure_topic_as_is("u", TopicConfig::new(3)).unwrap();
    assert_eq!((created.partitions(), created.config().retention_bytes), (3, 1 << 30));
}

#[test]
fn many_threads_that_ensure_one_topic_get_the_same() {
    let dir = temp_dir();
    let broker = Broker::open(dir.path()).unwrap();
    thread::scope(|scope| {
        for _ in 0..8 {
            let broker = broker.clone();
            scope.spawn(move || {
                let topic = broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
                topic.partition(0).unwrap().append(&Record::new().value("x")).unwrap();
            });
        }
    });
    assert_eq!(broker.topic("t").unwrap().partition(0).unwrap().log_end_offset(), 8);
}

#[test]
fn topic_defaults_fill_in_what_a_config_leaves_open() {
    let defaults = TopicConfig::new(9).segment_bytes(SMALL_SEGMENT).durability(Durability::Os);
    let broker =
        Broker::builder().in_memory().topic_defaults(defaults).background(false).open().unwrap();
    let config =
        broker.ensure_topic("t", TopicConfig::new(2).max_record_bytes(5)).unwrap().config();
    assert_eq!((config.partitions, config.segment_bytes), (2, SMALL_SEGMENT));
    assert_eq!((config.durability, config.max_record_bytes), (Some(Durability::Os), Some(5)));
}

/// Also on a file system that tells no cases apart there is one directory per topic.
// RED: src/broker/catalog.rs
//   - .find(|(entry, _)| entry.name.eq_ignore_ascii_case(name))
//   + .find(|(entry, _)| *entry.name == *name)
#[test]
fn row_e18_names_that_differ_only_in_case_collide() {
    let broker = in_memory();
    broker.ensure_topic("Orders", TopicConfig::new(1)).unwrap();
    let refused = broker.ensure_topic("orders", TopicConfig::new(1));
    let Err(Error::InvalidName { name, reason: NameError::CaseCollision }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(name, "orders");
    broker.admin().delete_topic("Orders").unwrap();
    broker.ensure_topic("orders", TopicConfig::new(1)).unwrap();
}

#[test]
fn what_the_catalog_does_not_know_is_reported_and_kept() {
    let dir = temp_dir();
    open_quiet(dir.path()).close().unwrap();
    let stray_dir = dir.path().join("stray");
    fs::create_dir_all(stray_dir.join("0")).unwrap();
    fs::write(stray_dir.join("precious"), "data").unwrap();
    fs::write(dir.path().join("notes.txt"), "data").unwrap();
    let broker = open_quiet(dir.path());
    let mut unknown = broker.recovery().unknown.clone();
    unknown.sort();
    assert_eq!(unknown, [dir.path().join("notes.txt"), stray_dir.clone()]);
    // A file of a topic's name is in its way, and stays.
    let refused = broker.ensure_topic("notes.txt", small_topic(1));
    let Err(Error::Io { path, .. }) = &refused else { panic!("{refused:?}") };
    assert_eq!(*path, dir.path().join("notes.txt"));
    assert!(matches!(broker.topic("notes.txt"), Err(Error::UnknownTopic(_))));
    broker.ensure_topic("t", small_topic(1)).unwrap();
    broker.close().unwrap();
    let broker = open_quiet(dir.path());
    assert_eq!(broker.recovery().unknown.len(), 2);
    assert_eq!(fs::read_to_string(stray_dir.join("precious")).unwrap(), "data");
    // A directory without segments may become a topic's; what is not ours outlives the topic.
    broker.ensure_topic("stray", small_topic(1)).unwrap();
    send_numbers(&broker, "stray", 0, 0..3);
    broker.admin().delete_topic("stray").unwrap();
    assert_eq!(fs::read_to_string(stray_dir.join("precious")).unwrap(), "data");
}

// ---- closing --------------------------------------------------------------------------------

// RED: src/partition/status.rs
//   - self.is_closed.store(true, Ordering::Release);
#[test]
fn row_j08_after_close_every_handle_answers_closed() {
    let dir = temp_dir();
    let broker = Broker::open(dir.path()).unwrap();
    let topic = broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    let partition = topic.partition(0).unwrap();
    let producer = broker.producer();
    let named = broker.producer_builder().id("p").build().unwrap();
    let mut reader = broker.reader().subscribe(["t"]).open().unwrap();
    let mut member = broker.consumer("g").subscribe(["t"]).open().unwrap();
    let admin = broker.admin();
    partition.append(&Record::new().value("x")).unwrap();
    let message = member.recv().unwrap();
    let clone = broker.clone();
    broker.close().unwrap();
    let record = Record::to("t").key("k").value("x");
    let offsets = Offsets::from([(tp("t", 0), 1)]);
    let calls: Vec<(&str, Result<(), Error>)> = vec![
        ("close", clone.clone().close()),
        ("flush", clone.flush()),
        ("tick", clone.tick()),
        ("topic", clone.topic("t").map(drop)),
        ("ensure_topic", clone.ensure_topic("t", TopicConfig::new(1)).map(drop)),
        ("ensure_topic of a new one", clone.ensure_topic("u", TopicConfig::new(1)).map(drop)),
        ("a named producer", clone.producer_builder().id("p").build().map(drop)),
        ("a new reader", clone.reader().subscribe(["t"]).open().map(drop)),
        ("a new member", clone.consumer("g").subscribe(["t"]).open().map(drop)),
        ("admin.create_topic", admin.create_topic("u", TopicConfig::new(1)).map(drop)),
        ("admin.delete_topic", admin.delete_topic("t")),
        ("admin.topics", admin.topics().map(drop)),
        ("admin.describe_topic", admin.describe_topic("t").map(drop)),
        ("send", producer.send(record.clone()).map(drop)),
        ("enqueue", producer.enqueue(record.clone()).map(drop)),
        ("send_batch", producer.send_batch([record.clone()]).map(drop)),
        ("send_sequenced", named.send_sequenced(9, record).map(drop)),
        ("append", partition.append(&Record::new()).map(drop)),
        ("append_batch", partition.append_batch(&[]).map(drop)),
        ("append_if", partition.append_if(1, &[]).map(drop)),
        ("read", partition.read(0, 1).map(drop)),
        ("read at the end", partition.read(1, 1).map(drop)),
        ("offset_at", partition.offset_at(SystemTime::UNIX_EPOCH).map(drop)),
        ("flush", partition.flush()),
        ("reader.poll", reader.poll(Duration::ZERO).map(drop)),
        ("reader.recv", reader.recv().map(drop)),
        ("reader.try_recv", reader.try_recv().map(drop)),
        ("member.poll", member.poll(PATIENCE).map(drop)),
        ("member.lag", member.lag().map(drop)),
        ("member.committed", member.committed(&tp("t", 0)).map(drop)),
        ("member.commit", member.commit()),
        ("member.commit_soon", member.commit_soon()),
        ("member.commit_message", member.commit_message(&message)),
        ("member.commit_offsets", member.commit_offsets(&offsets)),
    ];
    for (what, result) in &calls {
        assert!(matches!(result, Err(Error::Closed)), "{what}: {result:?}");
    }
    assert!(reader.iter().next().is_none());
    assert_eq!(text(&message), "x");
    // All handles are still held, and the directory is free.
    Broker::open(dir.path()).unwrap().close().unwrap();
    drop((calls, topic));
}

#[test]
fn close_ends_every_wait() {
    let dir = temp_dir();
    let broker = Broker::open(dir.path()).unwrap();
    broker.ensure_topic("t", TopicConfig::new(2)).unwrap();
    let mut threads = Vec::new();
    let (parked, are_parked) = mpsc::channel();
    for kind in 0..4 {
        let (broker, parked) = (broker.clone(), parked.clone());
        threads.push(thread::spawn(move || {
            let mut consumer = match kind {
                0 | 1 => broker.reader().subscribe(["t"]).open().unwrap(),
                _ => broker.consumer(&format!("g{kind}")).subscribe(["t"]).open().unwrap(),
            };
            drop(broker);
            parked.send(ThreadState::here()).unwrap();
            match kind {
                0 | 2 => consumer.recv().map(drop),
                1 => consumer.poll(Duration::MAX).map(drop),
                _ => consumer.iter().next().map_or(Err(Error::Closed), |it| it.map(drop)),
            }
        }));
    }
    for _ in 0..4 {
        are_parked.recv().unwrap().wait_until_it_sleeps();
    }
    broker.close().unwrap();
    for thread in threads {
        let ended = thread.join().unwrap();
        assert!(matches!(ended, Err(Error::Closed)), "{ended:?}");
    }
}

#[test]
fn senders_and_deliveries_that_meet_a_close_get_an_answer_that_is_true() {
    for round in 0..5_u64 {
        let dir = temp_dir();
        let broker = Broker::open(dir.path()).unwrap();
        broker.ensure_topic("t", small_topic(2)).unwrap();
        let (started, is_started) = mpsc::channel();
        let threads: Vec<_> = (0..6_u32)
            .map(|thread| {
                let (producer, started) = (broker.producer(), started.clone());
                thread::spawn(move || {
                    let mut acked = 0_u64;
                    loop {
                        let value = format!("{thread} {acked}");
                        let record = Record::to("t").partition(thread % 2).value(&value);
                        let answer = match thread % 3 {
                            0 => producer.send(record),
                            1 => producer.enqueue(record).and_then(logpond::Delivery::wait),
                            _ => producer.enqueue(record).and_then(|delivery| {
                                delivery.wait_timeout(Duration::MAX).expect("no timeout")
                            }),
                        };
                        match answer {
                            Ok(_) => acked += 1,
                            Err(Error::Closed) => return (thread, acked),
                            Err(other) => panic!("{other:?}"),
                        }
                        if acked == 3 + round {
                            started.send(()).unwrap();
                        }
                    }
                })
            })
            .collect();
        drop(started);
        assert_eq!(is_started.iter().take(6).count(), 6);
        broker.close().unwrap();
        let acked: Vec<(u32, u64)> =
            threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        let broker = open_quiet(dir.path());
        assert!(broker.recovery().clean_shutdown);
        for (thread, acked) in acked {
            let partition = broker.topic("t").unwrap().partition(thread % 2).unwrap();
            let own = format!("{thread} ");
            let found: Vec<String> =
                read_all(&partition).iter().map(text).filter(|it| it.starts_with(&own)).collect();
            assert!(found.len() as u64 >= acked, "{} of {acked}", found.len());
            for (number, value) in found.iter().enumerate() {
                assert_eq!(*value, format!("{thread} {number}"));
            }
        }
    }
}

/// Symptom: `flush` of an open broker failed with `Closed`, which applications take for the end,
/// because a topic was deleted beside it.
#[test]
fn flush_and_housekeeping_do_not_mind_topics_that_are_deleted_beside_them() {
    let broker = in_memory();
    let deleting = {
        let broker = broker.clone();
        thread::spawn(move || {
            for round in 0..200 {
                let name = format!("t{round}");
                broker.ensure_topic(&name, small_topic(2)).unwrap();
                broker.producer().send(Record::to(&name).value("v")).unwrap();
                broker.admin().delete_topic(&name).unwrap();
            }
        })
    };
    while !deleting.is_finished() {
        broker.flush().unwrap();
        broker.tick().unwrap();
    }
    deleting.join().unwrap();
    broker.clone().close().unwrap();
    assert!(matches!(broker.flush(), Err(Error::Closed)));
}

/// Symptom: a producer that never flushed kept the files of every deleted topic that it had sent
/// to, and a service with a topic per job filled its disk with what nobody could see.
#[test]
#[cfg(target_os = "linux")]
fn a_producer_keeps_no_files_of_deleted_topics() {
    let dir = temp_dir();
    let broker = quiet(dir.path()).open().unwrap();
    let producer = broker.producer();
    let mut handles = Vec::new();
    for round in 0..40 {
        let name = format!("job-{round}");
        handles.push(broker.ensure_topic(&name, small_topic(1)).unwrap());
        producer.send(Record::to(&name).value("v")).unwrap();
        broker.admin().delete_topic(&name).unwrap();
    }
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let path = dir.path().to_str().unwrap();
    let kept = maps.lines().filter(|line| line.contains(path) && line.contains("(deleted)"));
    assert_eq!(kept.count(), 0);
    drop(handles);
}

/// What a clean end leaves is believed: of a thousand segments only their ends are read, and of
/// the last one as much as a recovery point asks for.
#[test]
#[cfg(target_os = "linux")]
fn statement_09_opening_a_thousand_segments_reads_little_of_them() {
    const SEGMENTS: usize = 1_000;
    let dir = temp_dir();
    let broker = open_quiet(dir.path());
    let topic = broker.ensure_topic("t", small_topic(1)).unwrap();
    let partition = topic.partition(0).unwrap();
    let value = [b'v'; 3_800];
    let segments = |broker: &Broker| {
        broker.admin().describe_topic("t").unwrap().partitions.first().unwrap().segments
    };
    while segments(&broker) < SEGMENTS {
        partition.append(&Record::new().value(&value)).unwrap();
    }
    let end = partition.log_end_offset();
    broker.close().unwrap();

    // One partition is opened by the thread that opens the broker.
    let read_bytes = || {
        let counters = fs::read_to_string("/proc/thread-self/io").ok()?;
        let line = counters.lines().find_map(|line| line.strip_prefix("rchar: "))?;
        line.parse::<u64>().ok()
    };
    let Some(before) = read_bytes() else {
        eprintln!("SKIPPED: this kernel does not count what a thread reads");
        return;
    };
    let broker = open_quiet(dir.path());
    let read = read_bytes().unwrap() - before;
    assert_eq!(segments(&broker), SEGMENTS);
    assert_eq!(broker.topic("t").unwrap().partition(0).unwrap().log_end_offset(), end);
    let written = end * value.len() as u64;
    assert!(read < written / 8, "{read} of {written} bytes were read");
}

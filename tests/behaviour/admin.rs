//! Goal: topics are altered, grown and verified while they are in use, and every handle follows.
//!
//! Method: brokers without threads, where nothing happens by itself. For damage, a directory with
//! every area of a segment file is made and closed; copies of it are damaged one byte at a time,
//! opened and verified.
//!
//! Not covered: crashes at each step of an alteration or growth, which `src/broker/tests` stops
//! everywhere; creating, deleting and describing topics (`broker.rs`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::*;
use logpond::{
    Broker, CorruptionKind, Durability, Error, Partitioner, Record, TimestampType, TopicConfig,
    TopicPartition, VerifyReport,
};

// ---- altering -----------------------------------------------------------------------------------

#[test]
fn alterations_are_in_force_at_once_for_all_handles() {
    let broker = in_memory();
    let topic = broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    let partition = topic.partition(0).unwrap();
    let (producer, clone) = (broker.producer(), topic.clone());
    let record = || Record::to("t").value("eleven bytes");
    producer.send(record()).unwrap();
    broker.admin().alter_topic("t", |config| config.max_record_bytes(10)).unwrap();
    let refused = [
        partition.append(&Record::new().value("eleven bytes")).map(drop),
        producer.send(record()).map(drop),
        producer.enqueue(record()).map(drop),
        clone.partition(0).unwrap().append(&Record::new().value("eleven bytes")).map(drop),
    ];
    for refused in refused {
        assert!(matches!(refused, Err(Error::RecordTooLarge { limit: 10, .. })), "{refused:?}");
    }
    assert_eq!(topic.config().max_record_bytes, Some(10));
    // And back, again and again: the first handle finds the last settings.
    for limit in 11..40 {
        broker.admin().alter_topic("t", |config| config.max_record_bytes(limit)).unwrap();
    }
    assert_eq!(topic.config().max_record_bytes, Some(39));
    partition.append(&Record::new().value("eleven bytes")).unwrap();
    assert_eq!(broker.admin().describe_topic("t").unwrap().config.max_record_bytes, Some(39));
}

#[test]
fn an_alteration_survives_the_end_of_the_broker() {
    let dir = temp_dir();
    let broker = open_quiet(dir.path());
    broker.ensure_topic("t", TopicConfig::new(2)).unwrap();
    let change = |config: TopicConfig| {
        config.retention(Duration::from_secs(5)).timestamps(TimestampType::AppendTime)
    };
    broker.admin().alter_topic("t", change).unwrap();
    drop(broker);
    let config = open_quiet(dir.path()).topic("t").unwrap().config();
    assert_eq!(config.retention, Duration::from_secs(5));
    assert_eq!(config.timestamps, TimestampType::AppendTime);
    assert_eq!(config.partitions, 2);
}

#[test]
fn what_cannot_be_altered_changes_nothing() {
    let broker = in_memory();
    let topic = broker.ensure_topic("t", TopicConfig::new(2)).unwrap();
    let admin = broker.admin();
    let before = topic.config();
    let mut more = before.clone();
    more.partitions = 3;
    assert_eq!(refused_setting(admin.alter_topic("t", |_| more)), "partitions");
    let durability = |config: TopicConfig| config.durability(Durability::Os);
    assert_eq!(refused_setting(admin.alter_topic("t", durability)), "durability");
    let small = |config: TopicConfig| config.segment_bytes(1);
    assert_eq!(refused_setting(admin.alter_topic("t", small)), "segment_bytes");
    let large = |config: TopicConfig| config.segment_bytes(SMALL_SEGMENT).max_record_bytes(20_000);
    assert_eq!(refused_setting(admin.alter_topic("t", large)), "max_record_bytes");
    assert_eq!(topic.config(), before);
    let unknown = admin.alter_topic("other", |config| config);
    assert!(matches!(unknown, Err(Error::UnknownTopic(_))), "{unknown:?}");
}

#[test]
fn the_closure_runs_under_no_lock_and_what_it_leaves_alone_stays_as_others_change_it() {
    let broker = in_memory();
    let topic = broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    let admin = broker.admin();
    let outer = |config: TopicConfig| {
        // Another alteration, a growth, a creation and an append, all while this one decides.
        admin.alter_topic("t", |config| config.max_record_bytes(99)).unwrap();
        admin.add_partitions("t", 3).unwrap();
        broker.ensure_topic("u", TopicConfig::new(1)).unwrap();
        broker.producer().send(Record::to("t").value("x")).unwrap();
        config.retention_bytes(1 << 40)
    };
    admin.alter_topic("t", outer).unwrap();
    let config = topic.config();
    assert_eq!(config.partitions, 3);
    assert_eq!((config.max_record_bytes, config.retention_bytes), (Some(99), 1 << 40));
    // A topic that is deleted and made anew meanwhile is another one.
    let outer = |config: TopicConfig| {
        admin.delete_topic("t").unwrap();
        admin.create_topic("t", TopicConfig::new(1)).unwrap();
        config.max_record_bytes(7)
    };
    let refused = admin.alter_topic("t", outer);
    assert!(matches!(refused, Err(Error::UnknownTopic(_))), "{refused:?}");
    assert_eq!(broker.topic("t").unwrap().config().max_record_bytes, None);
}

#[test]
fn segment_bytes_hold_from_the_next_segment_on_also_across_a_restart() {
    let dir = temp_dir();
    let broker = open_quiet(dir.path());
    let topic = broker.ensure_topic("t", TopicConfig::new(1).segment_bytes(1 << 20)).unwrap();
    let partition = topic.partition(0).unwrap();
    let value = vec![7; 10_000];
    let append = |count: usize| {
        for _ in 0..count {
            partition.append(&Record::new().value(&value)).unwrap();
        }
    };
    append(3);
    let segments =
        |broker: &Broker| broker.admin().describe_topic("t").unwrap().partitions[0].segments;
    broker.admin().alter_topic("t", |config| config.segment_bytes(SMALL_SEGMENT)).unwrap();
    append(3);
    assert_eq!(segments(&broker), 1, "the active segment keeps its size");
    let large = partition.append(&Record::new().value(&vec![7; 20_000]));
    assert!(matches!(large, Err(Error::RecordTooLarge { .. })), "{large:?}");
    drop((partition, topic));
    broker.close().unwrap();

    let broker = open_quiet(dir.path());
    let topic = broker.topic("t").unwrap();
    let partition = topic.partition(0).unwrap();
    for _ in 0..20 {
        partition.append(&Record::new().value(&value)).unwrap();
        broker.tick().unwrap();
    }
    assert!(segments(&broker) >= 15, "{} segments of 16 KiB", segments(&broker));
    broker.admin().alter_topic("t", |config| config.segment_bytes(1 << 20)).unwrap();
    partition.append(&Record::new().value(&vec![7; 200_000])).unwrap();
    assert_eq!(read_all(&partition).len(), 27);
    assert!(broker.admin().verify("t").unwrap().is_ok());
}

// ---- growing ------------------------------------------------------------------------------------

/// The last partition, always.
struct Last;

impl Partitioner for Last {
    fn partition(&self, _key: Option<&[u8]>, partitions: u32) -> u32 {
        partitions - 1
    }
}

#[test]
fn producers_handles_and_groups_follow_a_growth() {
    let dir = temp_dir();
    let broker = open_quiet(dir.path());
    let topic = broker.ensure_topic("t", TopicConfig::new(2)).unwrap();
    let producer = broker.producer_builder().partitioner(Last).build().unwrap();
    let mut member = broker.consumer("g").subscribe(["t"]).open().unwrap();
    assert_eq!(member.assignment().len(), 2);
    assert_eq!(producer.send(Record::to("t").key("k").value("0")).unwrap().partition, 1);
    assert!(matches!(topic.partition(3), Err(Error::UnknownPartition(_))));

    broker.admin().add_partitions("t", 4).unwrap();
    assert_eq!((topic.partitions(), topic.config().partitions), (4, 4));
    assert_eq!(topic.partition(3).unwrap().log_end_offset(), 0);
    let sent = producer.send(Record::to("t").key("k").value("1")).unwrap();
    assert_eq!((sent.partition, sent.offset), (3, 0));
    producer.send_batch([Record::to("t").key("k").value("2")]).unwrap();
    let values: Vec<String> = drain(&mut member).iter().map(text).collect();
    assert_eq!(values.len(), 3, "{values:?}");
    assert_eq!(member.assignment().len(), 4);
    member.commit().unwrap();
    drop(member);
    broker.close().unwrap();

    let broker = open_quiet(dir.path());
    assert!(broker.recovery().is_clean());
    assert_eq!(broker.topic("t").unwrap().partitions(), 4);
    let mut member = broker.consumer("g").subscribe(["t"]).open().unwrap();
    assert!(drain(&mut member).is_empty());
    assert_eq!(member.position(&TopicPartition::from(("t", 3))), Some(2));
    broker.admin().delete_topic("t").unwrap();
    assert!(!dir.path().join("t").exists());
}

#[test]
fn a_growth_that_is_none_is_refused() {
    let broker = in_memory();
    let topic = broker.ensure_topic("t", TopicConfig::new(2)).unwrap();
    for total in [0, 1, 2, 10_001, u32::MAX] {
        let refused = broker.admin().add_partitions("t", total);
        assert_eq!(refused_setting(refused), "partitions", "{total}");
    }
    assert_eq!(topic.partitions(), 2);
    let unknown = broker.admin().add_partitions("other", 3);
    assert!(matches!(unknown, Err(Error::UnknownTopic(_))), "{unknown:?}");
}

#[test]
fn an_inspector_alters_nothing() {
    let dir = temp_dir();
    open_quiet(dir.path()).ensure_topic("t", TopicConfig::new(1)).unwrap();
    let broker = Broker::builder().data_dir(dir.path()).read_only(true).open().unwrap();
    let altered = broker.admin().alter_topic("t", |config| config.retention_bytes(1));
    assert!(matches!(altered, Err(Error::ReadOnly { .. })), "{altered:?}");
    let grown = broker.admin().add_partitions("t", 2);
    assert!(matches!(grown, Err(Error::ReadOnly { .. })), "{grown:?}");
    assert!(broker.admin().verify("t").unwrap().is_ok());
}

// ---- verifying ----------------------------------------------------------------------------------

/// Three segments, the first two with footers, and an active one; some batches of several records.
fn fill(broker: &Broker) -> (u64, u64) {
    let topic = broker.ensure_topic("t", small_topic(1)).unwrap();
    let partition = topic.partition(0).unwrap();
    let (mut batches, mut records) = (0, 0);
    for number in 0..34u64 {
        let value = number.to_string().repeat(400);
        let record = || Record::new().key("key").value(&value).header("name", "value");
        let batch: Vec<_> = (0..=number % 3).map(|_| record()).collect();
        partition.append_batch(&batch).unwrap();
        batches += 1;
        records += batch.len() as u64;
        broker.tick().unwrap();
    }
    (batches, records)
}

fn verify(dir: &Path) -> Result<VerifyReport, Error> {
    open_quiet(dir).admin().verify("t")
}

#[test]
fn partitions_are_verified_one_by_one() {
    let dir = temp_dir();
    let broker = open_quiet(dir.path());
    broker.admin().create_topic("t", small_topic(2)).unwrap();
    send_numbers(&broker, "t", 0, 0..3);
    let damaged = Record::new().value("to be damaged");
    broker.topic("t").unwrap().partition(1).unwrap().append(&damaged).unwrap();
    broker.close().unwrap();
    let [file] = files_below(&dir.path().join("t/1")).try_into().unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let position = bytes.windows(13).position(|it| it == b"to be damaged").unwrap();
    bytes[position] ^= 1;
    fs::write(&file, bytes).unwrap();

    let admin = open_quiet(dir.path()).admin();
    let records = |number| admin.verify_partition(("t", number)).map(|it| (it.records, it.is_ok()));
    assert_eq!(records(0).unwrap(), (3, true));
    assert!(!records(1).unwrap().1, "a record of partition 1 is damaged");
    assert!(!admin.verify("t").unwrap().is_ok());
    let unknown = admin.verify_partition(("t", 2));
    assert!(matches!(unknown, Err(Error::UnknownPartition(_))), "{unknown:?}");
    let unknown = admin.verify_partition(("u", 0));
    assert!(matches!(unknown, Err(Error::UnknownTopic(_))), "{unknown:?}");
    assert!(admin.verify_partition(("__meta", 0)).unwrap().records > 0);
    let unknown = admin.verify_partition(("__meta", 1));
    assert!(matches!(unknown, Err(Error::UnknownPartition(_))), "{unknown:?}");
}

#[test]
fn a_sound_topic_is_verified_whole_open_and_reopened_in_memory_and_on_disk() {
    let dir = temp_dir();
    for broker in [in_memory(), open_quiet(dir.path())] {
        let (batches, records) = fill(&broker);
        let report = broker.admin().verify("t").unwrap();
        assert!(report.is_ok(), "{:?}", report.damage);
        assert_eq!((report.batches, report.records), (batches, records));
        if broker.close().is_ok() && dir.path().join("t").exists() {
            let report = verify(dir.path()).unwrap();
            assert!(report.is_ok(), "{:?}", report.damage);
            assert_eq!((report.batches, report.records), (batches, records));
        }
    }
}

#[test]
fn a_topic_is_verified_while_producers_append() {
    let dir = temp_dir();
    for durability in [Durability::Os, Durability::Sync] {
        let path = dir.path().join(format!("{durability:?}"));
        let broker = Broker::builder().data_dir(path).durability(durability).open().unwrap();
        broker.ensure_topic("t", small_topic(2)).unwrap();
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let producer = broker.producer();
                for number in 0..400u64 {
                    let value = number.to_string().repeat(100);
                    drop(producer.enqueue(Record::to("t").value(&value)).unwrap());
                }
                is_done.store(true, Ordering::Release);
            });
            let mut last = 0;
            loop {
                let was_done = is_done.load(Ordering::Acquire);
                let report = broker.admin().verify("t").unwrap();
                assert!(report.is_ok(), "{:?}", report.damage);
                assert!(report.records >= last, "{} after {last}", report.records);
                last = report.records;
                if was_done {
                    assert_eq!(last, 400);
                    break;
                }
            }
        });
    }
}

/// The three areas of a sealed segment, one of which only its footer's length tells.
fn areas(bytes: &[u8], active: bool) -> Vec<(&'static str, std::ops::Range<usize>)> {
    let mut areas = vec![("header", 0..128), ("opening batch", 128..180)];
    if active {
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        areas.push(("batches", 180..end));
    } else {
        let length = bytes.len();
        let trailer = &bytes[length - 16..];
        let footer = u32::from_le_bytes(trailer[..4].try_into().unwrap()) as usize;
        let end = bytes[..length - footer].iter().rposition(|byte| *byte != 0).unwrap();
        areas.extend([("batches", 180..end), ("footer", length - footer..length)]);
    }
    areas
}

/// A flip is refused at open, reported by recovery or found by `verify`; in what recovery trusts
/// without reading it, by `verify` alone.
#[test]
fn a_flipped_byte_in_any_area_of_any_file_is_found_and_stops_nothing() {
    let dir = temp_dir();
    let origin = dir.path().join("origin");
    let broker = open_quiet(&origin);
    let (batches, _) = fill(&broker);
    broker.close().unwrap();
    let mut rng = Rng::announced("verify");
    let segments = files_below(&origin.join("t"));
    let last = segments.len() - 1;
    assert!(last >= 2, "{segments:?}");
    let mut by_verify = 0;
    for (number, segment) in segments.iter().enumerate() {
        let bytes = fs::read(segment).unwrap();
        for (area, range) in areas(&bytes, number == last) {
            for round in 0..12 {
                let at = range.start + rng.index(range.len());
                let copy = dir.path().join(format!("{number}-{area}-{round}"));
                copy_dir(&origin, &copy);
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << rng.below(8);
                fs::write(copy.join(segment.strip_prefix(&origin).unwrap()), damaged).unwrap();
                let context = format!("{area} of segment {number}, byte {at}");
                let builder = quiet(&copy);
                let Ok(broker) = builder.open() else {
                    assert_eq!(area, "header", "{context}: refused");
                    continue;
                };
                let is_reported = !broker.recovery().is_clean();
                let report = broker.admin().verify("t").unwrap();
                // A footer that is not there any more is made anew from the batches.
                let may_be_rebuilt = area == "footer";
                assert!(is_reported || !report.is_ok() || may_be_rebuilt, "{context}: not found");
                by_verify += usize::from(!report.is_ok());
                if area == "batches" {
                    assert!(!report.is_ok(), "{context}: {report:?}");
                    let damage = &report.damage[0];
                    assert_eq!(damage.partition, Some(tp("t", 0)), "{context}");
                    assert!(report.batches >= batches - 2, "{context}: {report:?}");
                }
                fs::remove_dir_all(&copy).unwrap();
            }
        }
    }
    assert!(by_verify > 30, "{by_verify} flips were found by verification");
}

/// Damage after the files were opened: nothing that was checked at open is believed.
#[test]
fn damage_under_an_open_broker_is_found_in_every_file_at_once() {
    let dir = temp_dir();
    // Not mapped: what is damaged here must not be memory that others are promised.
    let broker = quiet(dir.path()).read_mode(logpond::ReadMode::Copy).open().unwrap();
    let (batches, records) = fill(&broker);
    let segments = files_below(&dir.path().join("t"));
    // The last file may be prepared and hold nothing yet; the last in use has no footer.
    let used = broker.admin().describe_topic("t").unwrap().partitions[0].segments;
    let mut expected = 0;
    for (number, segment) in segments[..used].iter().enumerate() {
        let mut bytes = fs::read(segment).unwrap();
        let length = bytes.len();
        // The header, a batch, and the footer.
        let footer = (number < used - 1).then_some(length - 20);
        for at in [70, 250].into_iter().chain(footer) {
            bytes[at] ^= 1;
            expected += 1;
        }
        overwrite(segment, &bytes);
    }
    let report = broker.admin().verify("t").unwrap();
    assert_eq!(report.damage.len(), expected, "{:#?}", report.damage);
    assert_eq!(report.batches, batches - used as u64);
    assert!(report.records < records);
    let is_checksum = |kind: &CorruptionKind| matches!(kind, CorruptionKind::Checksum { .. });
    assert!(report.damage.iter().any(|damage| is_checksum(&damage.kind)), "{report:#?}");

    fs::remove_file(&segments[1]).unwrap();
    let report = broker.admin().verify("t").unwrap();
    let missing = report.damage.iter().find(|damage| damage.kind == CorruptionKind::Missing);
    assert_eq!(missing.unwrap().file, segments[1]);
    assert!(missing.unwrap().offsets.is_some());
    // Shortened from outside: an error or a finding, never a signal or a panic.
    fs::File::options().write(true).open(&segments[0]).unwrap().set_len(300).unwrap();
    assert!(!broker.admin().verify("t").unwrap().is_ok());
}

/// Overwrites a file in place, so that a process that has it open sees it.
fn overwrite(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    let file = fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(bytes, 0).unwrap();
}

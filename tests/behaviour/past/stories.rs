//! How the directories came to be. Everything is decided by the program: with the same build, the
//! same clock and the same boot of the machine the same bytes come out.

use std::fs;
use std::path::Path;
use std::time::Duration;

use logpond::{
    Broker, BrokerBuilder, Cleanup, Durability, ManualClock, Offsets, Producer, Record, StartAt,
    TimestampType, TopicConfig, TopicPartition,
};

use super::shown::shown;
use crate::common::*;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
/// A value that takes space in a segment, and little in a text: a byte of each page is not zero.
const LARGE: usize = 20_000;
const PAGE: usize = 4096;

/// A directory that somebody left behind.
pub(crate) struct Story {
    pub(crate) name: &'static str,
    /// Makes the directory, and returns what it has to hold.
    pub(crate) make: fn(&Path, &ManualClock) -> Vec<String>,
}

pub(crate) const STORIES: [Story; 6] = [
    Story { name: "closed", make: closed },
    Story { name: "compacted", make: compacted },
    Story { name: "groups", make: groups },
    Story { name: "killed", make: killed },
    Story { name: "power_cut", make: power_cut },
    Story { name: "used", make: used },
];

fn builder(dir: &Path, clock: &ManualClock) -> BrokerBuilder {
    quiet(dir).clock(clock.clone()).seed(7)
}

fn open(dir: &Path, clock: &ManualClock) -> Broker {
    builder(dir, clock).open().unwrap()
}

fn aged(partitions: u32) -> TopicConfig {
    small_topic(partitions).segment_age(HOUR).retention(YEAR)
}

/// A new segment for each topic with an age, and an hour.
fn hour(broker: &Broker, clock: &ManualClock) {
    clock.advance(HOUR);
    broker.tick().unwrap();
}

/// Batches and single records, with keys, headers, without values, and with times of their own in
/// no order, in a new segment every hour.
fn orders(broker: &Broker, clock: &ManualClock, hours: u32) {
    let topic = broker.topic("orders").unwrap();
    for at in 0..hours {
        let time = some_time() + SECOND * (100 - at);
        let first = topic.partition(0).unwrap();
        let text = format!("order {at} of {}", first.log_end_offset());
        first.append(&Record::new().key("k").value(&text).timestamp(time)).unwrap();
        let tagged =
            Record::new().value("tagged").header("a", "1").header("a", "").header("b", "x");
        let batch = [tagged, Record::new().key("").value(""), Record::new().key("no value")];
        first.append_batch(&batch).unwrap();
        clock.advance(SECOND);
        topic.partition(1).unwrap().append(&Record::new().value(&text)).unwrap();
        hour(broker, clock);
    }
}

/// Segments of several indexed stretches.
fn wide(broker: &Broker, clock: &ManualClock, records: usize) {
    let partition = broker.topic("wide").unwrap().partition(0).unwrap();
    for number in 0..records {
        let mut value = vec![0; LARGE];
        let text = format!("wide {number}");
        value.iter_mut().skip(LARGE % PAGE).step_by(PAGE).for_each(|byte| *byte = b'.');
        value[..text.len()].copy_from_slice(text.as_bytes());
        partition.append(&Record::new().value(&value)).unwrap();
        clock.advance(SECOND);
    }
}

/// Two runs, both ended by `close`: topics that were altered, grown, deleted and made again,
/// records that were deleted, and logs of many segments.
fn closed(dir: &Path, clock: &ManualClock) -> Vec<String> {
    let broker = open(dir, clock);
    let admin = broker.admin();
    broker.ensure_topic("orders", aged(2).durability(Durability::Sync)).unwrap();
    let interval = Durability::Interval { every: SECOND, bytes: 4096 };
    let config = TopicConfig::new(1).segment_bytes(128 << 10).timestamps(TimestampType::AppendTime);
    broker.ensure_topic("wide", config.durability(interval).max_record_bytes(30_000)).unwrap();
    broker.ensure_topic("grown", small_topic(1)).unwrap();
    for name in ["gone", "again"] {
        broker.ensure_topic(name, small_topic(1)).unwrap();
        send_numbers(&broker, name, 0, 0..3);
    }
    orders(&broker, clock, 4);
    wide(&broker, clock, 8);
    send_numbers(&broker, "grown", 0, 0..2);
    admin.add_partitions("grown", 3).unwrap();
    send_numbers(&broker, "grown", 2, 5..7);
    admin.delete_topic("gone").unwrap();
    broker.close().unwrap();

    let broker = open(dir, clock);
    let admin = broker.admin();
    admin.delete_topic("again").unwrap();
    broker.ensure_topic("again", small_topic(1)).unwrap();
    send_numbers(&broker, "again", 0, 7..9);
    let change = |config: TopicConfig| config.retention(YEAR * 2).retention_bytes(1 << 30);
    admin.alter_topic("grown", change).unwrap();
    orders(&broker, clock, 4);
    wide(&broker, clock, 8);
    admin.delete_records(("orders", 1), 3).unwrap();
    broker.tick().unwrap();
    let lines = shown(&broker, &[]);
    broker.close().unwrap();
    lines
}

/// Rewritten segments, tombstones that are still kept, and records after them.
fn compacted(dir: &Path, clock: &ManualClock) -> Vec<String> {
    let broker = open(dir, clock);
    let latest = aged(1).cleanup(Cleanup::Compact).tombstone_retention(YEAR).min_dirty_ratio(0.25);
    broker.ensure_topic("latest", latest).unwrap();
    let both = aged(1).cleanup(Cleanup::CompactAndDelete).tombstone_retention(Duration::MAX);
    broker.ensure_topic("both", both).unwrap();
    let write = |round: u32| {
        for name in ["latest", "both"] {
            let partition = broker.topic(name).unwrap().partition(0).unwrap();
            let (key, value) = (format!("only {round}"), format!("value {round}"));
            partition.append(&Record::new().key("same").value(&value)).unwrap();
            partition.append(&Record::new().key(&key).value(&value)).unwrap();
            let dead = format!("only {}", round.saturating_sub(2));
            partition.append(&Record::new().key(&dead)).unwrap();
        }
        hour(&broker, clock);
    };
    (0..5).for_each(write);
    for name in ["latest", "both"] {
        broker.admin().compact_now(name).unwrap();
        let partition = broker.topic(name).unwrap().partition(0).unwrap();
        assert!((read_all(&partition).len() as u64) < partition.log_end_offset());
    }
    (5..8).for_each(write);
    broker.admin().compact_now("latest").unwrap();
    write(8);
    broker.tick().unwrap();
    let lines = shown(&broker, &[]);
    broker.close().unwrap();
    lines
}

/// Groups, static members and named producers, of a process that died while they were there.
fn groups(dir: &Path, clock: &ManualClock) -> Vec<String> {
    let home = temp_dir();
    let broker = open(home.path(), clock);
    broker.ensure_topic("jobs", aged(3)).unwrap();
    for partition in 0..3 {
        send_numbers(&broker, "jobs", partition, 0..8);
    }
    let commit = |group: &str, offsets: &[(u32, u64)]| {
        let mut consumer = broker.consumer(group).subscribe(["jobs"]).open().unwrap();
        drain(&mut consumer);
        let offsets: Offsets = offsets.iter().map(|(at, to)| (tp("jobs", *at), *to)).collect();
        consumer.commit_offsets(&offsets).unwrap();
        consumer.close().unwrap();
    };
    commit("billing", &[(0, 3), (1, 8)]);
    commit("audit", &[(0, 1), (1, 1), (2, 1)]);
    commit("left", &[(0, 5)]);
    broker.admin().reset_offsets("audit", "jobs", StartAt::Offset(6)).unwrap();
    broker.admin().delete_group("left").unwrap();
    let mut numbered = Vec::new();
    for name in ["importer", "importer", "mirror"] {
        let producer = broker.producer_builder().id(name).build().unwrap();
        numbered.push((name.to_owned(), producer));
    }
    let send = |producer: &Producer, partition: u32, number: u64| {
        let record = Record::to("jobs").partition(partition).value("numbered");
        producer.send_sequenced(number, record).unwrap();
    };
    for number in [1, 2, 41] {
        send(&numbered[1].1, 0, number);
    }
    send(&numbered[1].1, 2, 1 << 40);
    broker.close().unwrap();
    drop(numbered);

    let broker = open(home.path(), clock);
    hour(&broker, clock);
    let numbered = ["importer", "mirror"].map(|name| {
        let producer = broker.producer_builder().id(name).build().unwrap();
        (name.to_owned(), producer)
    });
    for (number, at) in [(9, 0), (10, 0), (11, 1)] {
        let record = Record::to("jobs").partition(at).value("mirrored");
        numbered[1].1.send_sequenced(number, record).unwrap();
        clock.advance(SECOND);
    }
    let fixed = |name: &str| {
        let consumer = broker.consumer("fixed").subscribe(["jobs"]).instance_id(name);
        consumer.rejoin_timeout(HOUR).open().unwrap()
    };
    let mut members = [fixed("a"), fixed("b")];
    for _ in 0..4 {
        for member in &mut members {
            drain(member);
        }
    }
    members[0].commit().unwrap();
    let [gone, _live] = members;
    drop(gone);
    copy_dir(home.path(), dir);
    shown(&broker, &numbered)
}

/// What earlier stories have not: a group and a producer id that have expired, numbers of records
/// with a key, where a group began, and members that share a topic when the process dies. Beside it
/// a topic that was compacted, one with other settings, and one that was deleted.
fn used(dir: &Path, clock: &ManualClock) -> Vec<String> {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let home = temp_dir();
    let open = || builder(home.path(), clock).group_expiry(DAY * 10).open().unwrap();
    let broker = open();
    let admin = broker.admin();
    broker.ensure_topic("jobs", aged(2)).unwrap();
    let latest = aged(1).cleanup(Cleanup::Compact).tombstone_retention(YEAR);
    broker.ensure_topic("latest", latest).unwrap();
    broker.ensure_topic("gone", small_topic(1)).unwrap();
    for partition in 0..2 {
        send_numbers(&broker, "jobs", partition, 0..4);
    }
    for group in ["idle", "team"] {
        commit_all(&broker, group, "jobs");
    }
    commit_all(&broker, "idle", "gone");
    drop(broker.producer_builder().id("former").build().unwrap());
    let importer = broker.producer_builder().id("importer").build().unwrap();
    for number in 1..4 {
        let record = Record::to("jobs").key("by key").value("numbered");
        importer.send_sequenced(number, record).unwrap();
    }
    admin.alter_topic("jobs", |config| config.retention(YEAR * 2).segment_age(HOUR * 2)).unwrap();
    admin.delete_topic("gone").unwrap();
    broker.close().unwrap();
    drop(importer);

    let broker = open();
    let importer = broker.producer_builder().id("importer").build().unwrap();
    let member = || broker.consumer("team").subscribe(["jobs"]).open().unwrap();
    let mut members = [member(), member()];
    for day in 0..40_u32 {
        clock.advance(DAY);
        broker.tick().unwrap();
        if day % 10 == 9 {
            let latest = broker.topic("latest").unwrap().partition(0).unwrap();
            let text = format!("day {day}");
            latest.append(&Record::new().key("same").value(&text)).unwrap();
            latest.append(&Record::new().key(&text)).unwrap();
            send_numbers(&broker, "jobs", day / 10 % 2, 10..11);
        }
        // Each day they are evicted, and take part again.
        for at in [0, 1, 0, 1] {
            drain(&mut members[at]);
        }
    }
    broker.admin().compact_now("latest").unwrap();
    let record = Record::to("jobs").key("by key").value("numbered");
    importer.send_sequenced(4, record).unwrap();
    members[1].commit().unwrap();
    let late = broker.consumer("late").subscribe(["jobs"]).start(StartAt::Latest).open().unwrap();
    send_numbers(&broker, "jobs", 0, 20..22);
    let metrics = broker.metrics();
    assert_eq!((metrics.groups_expired, metrics.producers_expired), (1, 1));
    assert!(members.iter().all(|member| member.assignment().len() == 1));
    copy_dir(home.path(), dir);
    drop(late);
    shown(&broker, &[("importer".to_owned(), importer)])
}

/// A run that was closed, and one that was killed.
fn killed(dir: &Path, clock: &ManualClock) -> Vec<String> {
    let home = temp_dir();
    let broker = open(home.path(), clock);
    broker.ensure_topic("orders", aged(2)).unwrap();
    orders(&broker, clock, 3);
    broker.close().unwrap();

    let broker = open(home.path(), clock);
    broker.ensure_topic("new", small_topic(1)).unwrap();
    orders(&broker, clock, 3);
    send_numbers(&broker, "new", 0, 0..4);
    broker.admin().delete_records(("orders", 0), 5).unwrap();
    commit_all(&broker, "g", "orders");
    copy_dir(home.path(), dir);
    shown(&broker, &[])
}

fn commit_all(broker: &Broker, group: &str, topic: &str) {
    let mut consumer = broker.consumer(group).subscribe([topic]).open().unwrap();
    drain(&mut consumer);
    consumer.commit().unwrap();
}

/// The power fails: of the pages that were written after the last sync every second is found as it
/// was before.
fn power_cut(dir: &Path, clock: &ManualClock) -> Vec<String> {
    let (home, synced) = (temp_dir(), temp_dir());
    let broker = open(home.path(), clock);
    broker.ensure_topic("orders", aged(2)).unwrap();
    broker.ensure_topic("wide", TopicConfig::new(1).segment_bytes(1 << 20)).unwrap();
    orders(&broker, clock, 3);
    wide(&broker, clock, 2);
    commit_all(&broker, "g", "orders");
    broker.flush().unwrap();
    copy_dir(home.path(), synced.path());
    let acknowledged = shown(&broker, &[]);

    // Nothing of this is synced, and no file is made.
    let before = files_below(home.path());
    wide(&broker, clock, 6);
    for partition in 0..2 {
        send_numbers(&broker, "orders", partition, 0..30);
    }
    commit_all(&broker, "g", "wide");
    assert_eq!(files_below(home.path()), before);
    copy_dir(home.path(), dir);
    let mut changed = 0;
    for path in files_below(dir) {
        let mut old = fs::read(synced.path().join(path.strip_prefix(dir).unwrap())).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        old.resize(bytes.len(), 0);
        for (page, old) in bytes.chunks_mut(PAGE).zip(old.chunks(PAGE)) {
            if page != old {
                changed += 1;
                if changed % 2 == 0 {
                    page.copy_from_slice(old);
                }
            }
        }
        fs::write(&path, bytes).unwrap();
    }
    assert!(changed > 10, "{changed} pages");

    let found = temp_dir();
    copy_dir(dir, found.path());
    let found = shown(&open(found.path(), clock), &[]);
    let is_kept = |line: &&String| !line.starts_with("partition") && !found.contains(line);
    assert_eq!(acknowledged.iter().find(is_kept), None, "{found:#?}");
    found
}

/// Where each group of the lines stands in each partition.
pub(crate) fn commits(lines: &[String]) -> Vec<(String, TopicPartition, u64)> {
    let words = lines.iter().map(|line| line.split(' ').collect::<Vec<_>>());
    let commits = words.filter(|words| words[0] == "commit").map(|words| {
        let (topic, partition) = words[2].rsplit_once('-').unwrap();
        let at = tp(topic, partition.parse().unwrap());
        (words[1].to_owned(), at, words[3].parse().unwrap())
    });
    commits.collect()
}

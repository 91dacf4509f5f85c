//! A disk that stays full for weeks, while every call is tried.
//!
//! Goal: with no free block each call of the public interface is done, or refused with
//! `StorageFull`, definite, and then nothing of it is there; what needs no space for good is always
//! done: openings, commits that replace others, `delete_records`, `delete_topic`, `delete_group`.
//! As soon as space was made, by whatever call is allowed or by somebody else, everything works
//! again. Method: a seeded walk beside a model of what was appended and committed; whatever the
//! broker gives back to the disk is taken by others now and then. Not covered: crashes in the
//! middle of a call (`reserve.rs`), real file systems (`tests/outside/full.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::effort;
use super::model::{DIR, clock};
use crate::broker::Broker;
use crate::clock::ManualClock;
use crate::config::{Cleanup, StartAt, TopicConfig};
use crate::error::{Error, Result};
use crate::producer::{Producer, SendOutcome};
use crate::random::Random;
use crate::record::{Offsets, Record, TopicPartition};
use crate::storage::disk::SimulatedDisk;
use crate::topic::Partition;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const STEPS: u64 = 300;
/// How much is given back in the end: more than the reserves that others took the space of, which are
/// made again first. Those are the spare of compactions, of 4 MiB, and spares of the internal logs.
const BALLAST_BYTES: usize = 8 << 20;

/// What makes space in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    DeleteTopic,
    DeleteRecords,
    DeleteCompactedRecords,
    Age,
    Bytes,
    SomebodyElse,
}

const WAYS: [Way; 6] = [
    Way::DeleteTopic,
    Way::DeleteRecords,
    Way::DeleteCompactedRecords,
    Way::Age,
    Way::Bytes,
    Way::SomebodyElse,
];

#[derive(Debug, Default)]
struct Log {
    is_compacted: bool,
    start: u64,
    /// Keys and values, by offset.
    records: Vec<(String, String)>,
}

struct World {
    disk: SimulatedDisk,
    clock: ManualClock,
    broker: Broker,
    source: Option<Producer>,
    random: Random,
    logs: BTreeMap<TopicPartition, Log>,
    /// The next row of the source.
    row: u64,
    committed: u64,
    /// How many names were thought of.
    names: u64,
    context: String,
    refused: BTreeMap<&'static str, u64>,
    done: u64,
}

fn open(disk: &SimulatedDisk, seed: u64, clock: &ManualClock) -> Result<Broker> {
    let builder = Broker::builder().disk(Arc::new(disk.clone()), DIR.as_ref()).reserve();
    let builder = builder.group_expiry(Duration::MAX).clock(clock.clone());
    builder.background(false).seed(seed).open()
}

fn at(topic: &str) -> TopicPartition {
    TopicPartition::from((topic, 0))
}

fn config() -> TopicConfig {
    TopicConfig::new(1).segment_bytes(16 << 10).retention(5 * DAY).segment_age(DAY)
}

impl World {
    fn new(way: Way, seed: u64) -> Self {
        let (disk, clock) = (SimulatedDisk::new(), clock());
        let broker = open(&disk, seed, &clock).unwrap();
        let context = format!("{way:?}, seed {seed}");
        let mut world = Self {
            disk,
            clock,
            broker,
            source: None,
            random: Random::new(seed),
            logs: BTreeMap::new(),
            row: 1,
            committed: 0,
            names: 0,
            context,
            refused: BTreeMap::new(),
            done: 0,
        };
        world.create("log", config());
        world.create("keys", config().cleanup(Cleanup::Compact));
        let ballast = config().segment_bytes(256 << 10).retention(100 * DAY);
        let is_compacted = way == Way::DeleteCompactedRecords;
        let cleanup = if is_compacted { Cleanup::Compact } else { Cleanup::Delete };
        world.create("ballast", ballast.cleanup(cleanup));
        let value = "b".repeat(50_000);
        for number in 0..BALLAST_BYTES / value.len() {
            world.append_to("ballast", &[(format!("{number}"), value.clone())]);
        }
        (0..8).for_each(|_| world.commit());
        world.send_row();
        world.disk.limit_capacity(Some(0));
        while world.append_some("log") {}
        world
    }

    // ---- answers -----------------------------------------------------------------------------

    /// What a full disk may refuse, definitely.
    fn may<T>(&mut self, what: &'static str, result: Result<T>) -> Option<T> {
        match result {
            Ok(done) => {
                self.done += 1;
                Some(done)
            }
            Err(error @ Error::StorageFull { .. }) => {
                assert!(error.is_definite(), "{}: {what}: {error:?}", self.context);
                *self.refused.entry(what).or_default() += 1;
                None
            }
            Err(error) => panic!("{}: {what}: {error:?}", self.context),
        }
    }

    /// What always works.
    fn must<T>(&mut self, what: &'static str, result: Result<T>) -> T {
        self.done += 1;
        result.unwrap_or_else(|error| panic!("{}: {what}: {error:?}", self.context))
    }

    // ---- calls -------------------------------------------------------------------------------

    fn partition(&self, topic: &str) -> Partition {
        self.broker.topic(topic).unwrap().partition(0).unwrap()
    }

    fn create(&mut self, topic: &str, config: TopicConfig) {
        let is_compacted = config.cleanup != Cleanup::Delete;
        let created = self.broker.admin().create_topic(topic, config);
        if self.may("create_topic", created).is_some() {
            self.logs.insert(at(topic), Log { is_compacted, ..Log::default() });
        } else {
            assert!(matches!(self.broker.topic(topic), Err(Error::UnknownTopic(_))));
        }
    }

    fn append_to(&mut self, topic: &str, records: &[(String, String)]) -> bool {
        let partition = self.partition(topic);
        let batch = records.iter().map(|(key, value)| Record::new().key(key).value(value));
        let batch: Vec<_> = batch.collect();
        let end = partition.log_end_offset();
        let appended = match self.random.below(3) {
            0 => partition.append_if(end, &batch),
            1 if batch.len() == 1 => partition.append(&batch[0]).map(|it| it..it + 1),
            _ => partition.append_batch(&batch),
        };
        let appended = self.may("append", appended);
        let log = self.logs.get_mut(&at(topic)).unwrap();
        if let Some(range) = &appended {
            assert_eq!(range.start, log.records.len() as u64, "{}", self.context);
            log.records.extend(records.iter().cloned());
        }
        let end = log.records.len() as u64;
        assert_eq!(partition.log_end_offset(), end, "{}: {topic}", self.context);
        let is_durable = partition.durable_end_offset() == end;
        assert!(is_durable || appended.is_none(), "{}: {topic}", self.context);
        appended.is_some()
    }

    fn append_some(&mut self, topic: &str) -> bool {
        let count = 1 + self.random.below(3);
        let some = |_| {
            let key = format!("k{}", self.random.below(8));
            let pad = usize::try_from(self.random.below(4_000)).unwrap();
            (key, format!("{}{}", self.random.next(), "v".repeat(pad)))
        };
        let records: Vec<_> = (0..count).map(some).collect();
        self.append_to(topic, &records)
    }

    /// The source tries its next row again until it is there.
    fn send_row(&mut self) {
        if self.source.is_none() {
            let source = self.broker.producer_builder().id("source").build();
            self.source = Some(self.must("producer", source));
        }
        let (key, value) = (format!("{}", self.row), format!("row {}", self.row));
        let record = Record::to("log").partition(0).key(&key).value(&value);
        let sent = self.source.as_ref().unwrap().send_sequenced(self.row, record);
        if let Some(outcome) = self.may("send_sequenced", sent) {
            let log = self.logs.get_mut(&at("log")).unwrap();
            let end = log.records.len() as u64;
            let is_next = matches!(outcome, SendOutcome::Appended(at) if at.offset == end);
            assert!(is_next, "{}: {outcome:?}", self.context);
            log.records.push((key, value));
            self.row += 1;
        }
    }

    fn enqueue(&mut self) {
        let sent = self.broker.producer().enqueue(Record::to("log").key("k").value("enqueued"));
        if let Some(delivery) = self.may("enqueue", sent) {
            let delivered = delivery.wait();
            self.must("wait", delivered);
            let record = ("k".to_owned(), "enqueued".to_owned());
            self.logs.get_mut(&at("log")).unwrap().records.push(record);
        }
    }

    fn try_commit(&self, group: &str, offset: u64) -> Result<()> {
        let mut consumer = self.broker.consumer(group).assign([("log", 0)]).open()?;
        consumer.commit_offsets(&Offsets::from([(at("log"), offset)]))
    }

    /// By hand, or as a member that has read all there is.
    fn commit(&mut self) {
        let offset = self.partition("log").log_end_offset();
        if self.random.below(2) == 0 {
            let committed = self.try_commit("g", offset);
            self.must("commit", committed);
        } else {
            let member = self.broker.consumer("g").subscribe(["log"]).open();
            let mut member = self.must("subscribe", member);
            while !self.must("poll", member.poll(Duration::ZERO)).is_empty() {}
            self.must("commit", member.commit());
            self.must("leave", member.close());
        }
        self.committed = offset;
    }

    fn new_group(&mut self) -> bool {
        self.names += 1;
        let group = format!("group-{}", self.names);
        let committed = self.try_commit(&group, 0);
        if self.may("first commit", committed).is_none() {
            let found = self.broker.admin().describe_group(&group);
            assert!(matches!(found, Err(Error::UnknownGroup(_))), "{}: {found:?}", self.context);
            return false;
        }
        let deleted = self.broker.admin().delete_group(&group);
        self.must("delete_group", deleted);
        true
    }

    fn new_topic(&mut self) {
        self.names += 1;
        self.create(&format!("topic-{}", self.names), config());
    }

    fn new_producer(&mut self) -> bool {
        self.names += 1;
        let id = format!("producer-{}", self.names);
        let built = self.broker.producer_builder().id(&id).build();
        if self.may("first producer", built).is_none() {
            return false;
        }
        let forgotten = self.broker.admin().forget_producer(&id);
        self.must("forget_producer", forgotten);
        true
    }

    fn delete_topic(&mut self) {
        let own = |it: &&TopicPartition| it.topic.starts_with("topic-");
        let Some(some) = self.logs.keys().find(own).cloned() else { return };
        let deleted = self.broker.admin().delete_topic(&some.topic);
        self.must("delete_topic", deleted);
        self.logs.remove(&some);
    }

    fn delete_records(&mut self, topic: &str, before: u64) {
        let deleted = self.broker.admin().delete_records((topic, 0), before);
        assert_eq!(self.must("delete_records", deleted), before, "{}", self.context);
    }

    fn delete_some(&mut self) {
        let topic = *self.random.pick(&["log", "keys"]);
        let partition = self.partition(topic);
        let (start, end) = (partition.log_start_offset(), partition.log_end_offset());
        let before = start + self.random.below(end - start + 1);
        self.delete_records(topic, before);
    }

    fn reopen(&mut self) {
        self.source = None;
        let seed = self.random.next();
        if seed.is_multiple_of(2) {
            let closed = self.broker.clone().close();
            self.must("close", closed);
        } else {
            self.disk = self.disk.kill9();
        }
        let opened = open(&self.disk, seed, &self.clock);
        self.broker = self.must("open", opened);
        let report = self.broker.recovery();
        assert!(report.is_clean() && report.unknown.is_empty(), "{}: {report:?}", self.context);
        self.check();
    }

    fn alter(&mut self) {
        let bytes = 1_000_000 + self.random.below(1_000_000);
        let altered = self.broker.admin().alter_topic("log", |it| it.retention_bytes(bytes));
        self.may("alter_topic", altered);
    }

    fn step(&mut self) {
        let broker = self.broker.clone();
        match self.random.below(20) {
            0..=3 => drop(self.append_some("log")),
            4 | 5 => drop(self.append_some("keys")),
            6 => self.send_row(),
            7 => self.enqueue(),
            8 => self.commit(),
            9 => drop(self.new_group()),
            10 => self.new_topic(),
            11 => drop(self.new_producer()),
            12 => self.delete_topic(),
            13 => self.delete_some(),
            14 => drop(self.may("tick", broker.tick())),
            15 => drop(self.may("retention", broker.admin().enforce_retention_now())),
            16 => drop(self.may("compact_now", broker.admin().compact_now("keys"))),
            17 => {
                let reset = broker.admin().reset_offsets("g", "log", StartAt::Earliest);
                self.committed = self.must("reset_offsets", reset)[&at("log")];
            }
            18 if self.random.below(2) == 0 => self.alter(),
            18 => self.must("flush", broker.flush()),
            _ => self.reopen(),
        }
    }

    /// The disk stays full: what the broker gave back is somebody else's now and then.
    fn stay_full(&mut self) {
        for step in 0..STEPS {
            self.clock.advance(MINUTE * u32::try_from(self.random.below(360)).unwrap());
            if self.random.below(3) > 0 {
                self.disk.limit_capacity(Some(self.used()));
            }
            self.step();
            if step % 10 == 0 {
                self.check();
            }
        }
    }

    fn used(&self) -> u64 {
        let files = self.disk.paths().into_iter();
        files.map(|path| self.disk.read(&path).unwrap().len() as u64).sum()
    }

    // ---- what must hold ----------------------------------------------------------------------

    fn check(&mut self) {
        let committed = {
            let consumer = self.broker.consumer("g").assign([("log", 0)]).open().unwrap();
            consumer.committed(("log", 0)).unwrap()
        };
        assert_eq!(committed, Some(self.committed), "{}", self.context);
        for (at, log) in &mut self.logs {
            let context = format!("{}: {at}", self.context);
            let topic = self.broker.topic(&at.topic).unwrap();
            let partition = topic.partition(0).unwrap();
            assert_eq!(partition.log_end_offset(), log.records.len() as u64, "{context}");
            let start = partition.log_start_offset();
            assert!(start >= log.start, "{context}: {start}");
            log.start = start;
            let (mut next, mut found) = (start, BTreeMap::new());
            while next < partition.log_end_offset() {
                let batch = partition.read(next, 1 << 20).unwrap();
                if batch.is_empty() {
                    break;
                }
                for message in batch.iter() {
                    let offset = message.offset();
                    let (key, value) = &log.records[usize::try_from(offset).unwrap()];
                    assert!(log.is_compacted || offset == next, "{context}: {next} is missing");
                    assert_eq!(message.value(), Some(value.as_bytes()), "{context}: {offset}");
                    found.insert(key.clone(), offset);
                    next = message.next_offset();
                }
            }
            let above = (0..).zip(&log.records).filter(|(offset, _)| *offset >= start);
            let latest: BTreeMap<_, u64> = above.map(|(it, (key, _))| (key.clone(), it)).collect();
            assert_eq!(found, latest, "{context}");
        }
    }

    fn make_space(&mut self, way: Way) {
        let broker = self.broker.clone();
        let end = self.partition("ballast").log_end_offset();
        match way {
            Way::DeleteTopic => {
                self.must("delete_topic", broker.admin().delete_topic("ballast"));
                self.logs.remove(&at("ballast"));
            }
            Way::DeleteRecords | Way::DeleteCompactedRecords => self.delete_records("ballast", end),
            Way::Age => {
                self.clock.advance(100 * DAY);
                self.may("tick", broker.tick());
                assert_eq!(self.partition("ballast").log_start_offset(), end, "{}", self.context);
            }
            Way::Bytes => {
                let altered = broker.admin().alter_topic("ballast", |it| it.retention_bytes(1));
                self.must("alter_topic", altered);
                self.may("retention", broker.admin().enforce_retention_now());
            }
            Way::SomebodyElse => self.disk.limit_capacity(None),
        }
    }

    /// After a minute at most.
    fn everything_works(&mut self) {
        self.refused.clear();
        self.clock.advance(MINUTE);
        let broker = self.broker.clone();
        self.must("tick", broker.tick());
        for _ in 0..2 {
            for _ in 0..10 {
                self.append_some("log");
                self.append_some("keys");
            }
            self.send_row();
            self.enqueue();
            self.commit();
            self.new_group();
            self.new_topic();
            self.new_producer();
            self.delete_topic();
            let broker = self.broker.clone();
            self.must("compact_now", broker.admin().compact_now("keys"));
            let ballast = format!("wide-{}", self.names);
            let wide = broker.admin().create_topic(&ballast, config());
            self.must("create_topic", wide);
            self.must("add_partitions", broker.admin().add_partitions(&ballast, 3));
            self.must("delete_topic", broker.admin().delete_topic(&ballast));
            self.must("retention", broker.admin().enforce_retention_now());
            self.must("tick", broker.tick());
            for topic in broker.admin().topics().unwrap() {
                let report = broker.admin().verify(&topic.name).unwrap();
                assert!(report.is_ok(), "{}: {report:?}", self.context);
            }
            drop(broker);
            self.reopen();
        }
        assert!(self.refused.is_empty(), "{}: {:?}", self.context, self.refused);
    }
}

// RED: src/broker/retention.rs
//   - Ok(false) | Err(Error::StorageFull { .. }) => plan.log_start.min(tail.base_offset),
//   + Ok(false) => plan.log_start.min(tail.base_offset),
#[test]
fn row_c13_c19_a_disk_that_is_full_for_weeks_is_as_before_once_there_is_space() {
    for seed in 1..=effort() {
        for (number, way) in (0..).zip(WAYS) {
            let mut world = World::new(way, seed * 100 + number);
            world.stay_full();
            world.make_space(way);
            let refused = std::mem::take(&mut world.refused);
            world.everything_works();
            eprintln!("{}: {} calls done, refused {refused:?}", world.context, world.done);
            for what in ["append", "first commit", "create_topic", "first producer"] {
                assert!(refused.contains_key(what), "{}: {what}: {refused:?}", world.context);
            }
        }
    }
}

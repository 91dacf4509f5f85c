//! Goal: any sequence of calls does what a few maps in memory would do: produce, read, seek,
//! commit, roll, reopen (clean or not), delete and create, in any order.
//!
//! Method: a reference model (`Model`) of topics, records, commits, sequences and one consumer,
//! kept beside a real broker; each random step changes both and compares answers, and now and then
//! everything is compared. One seed per run, printed; `LOGPOND_SEED` replays one run;
//! `LOGPOND_MODEL_SEEDS` and `LOGPOND_MODEL_STEPS` make it a campaign (defaults 5 and 400).
//!
//! Not covered: threads (`concurrency.rs`), power cuts and failing disks (the model in
//! `src/broker/tests`, which runs over the simulated disk), timestamps out of order
//! (`produce_consume.rs`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::common::*;
use crate::show_last_steps;
use logpond::{
    Broker, Consumer, Durability, Error, Message, Offsets, Partition, Producer, ReadMode, Record,
    SendOutcome, StartAt, TopicConfig, TopicPartition,
};

const TOPICS: [&str; 2] = ["a", "b"];
const GROUPS: [&str; 2] = ["g", "h"];
const NAMED: &str = "named";

type Value = Vec<u8>;

#[derive(Debug, Clone, PartialEq)]
struct Stored {
    key: Option<Value>,
    value: Option<Value>,
    headers: Vec<(String, Value)>,
}

impl Stored {
    fn random(rng: &mut Rng) -> Self {
        let part = |rng: &mut Rng| match rng.below(8) {
            0 => None,
            1 => Some(Vec::new()),
            2 => {
                let len = rng.index(3000);
                Some(rng.bytes(len))
            }
            _ => {
                let len = rng.index(60);
                Some(rng.bytes(len))
            }
        };
        let (key, value) = (part(rng), part(rng));
        let names = ["x", "y", ""];
        let headers =
            (0..rng.below(3)).map(|_| (names[rng.index(3)].to_owned(), rng.bytes(3))).collect();
        Self { key, value, headers }
    }

    fn record<'a>(&'a self, mut record: Record<'a>) -> Record<'a> {
        if let Some(key) = &self.key {
            record = record.key(key);
        }
        if let Some(value) = &self.value {
            record = record.value(value);
        }
        self.headers.iter().fold(record, |record, (name, value)| record.header(name, value))
    }

    fn of(message: &Message) -> Self {
        Self {
            key: message.key().map(<[u8]>::to_vec),
            value: message.value().map(<[u8]>::to_vec),
            headers: message
                .headers()
                .map(|(name, value)| (name.to_owned(), value.to_vec()))
                .collect(),
        }
    }
}

/// What should be there.
#[derive(Default)]
struct Model {
    logs: BTreeMap<TopicPartition, Vec<Stored>>,
    commits: BTreeMap<(&'static str, TopicPartition), u64>,
    sequences: BTreeMap<TopicPartition, u64>,
    /// Where the one consumer stands; empty when there is none.
    positions: BTreeMap<TopicPartition, u64>,
}

impl Model {
    fn partitions(&self, topic: &str) -> u32 {
        let count = self.logs.keys().filter(|partition| *partition.topic == *topic).count();
        u32::try_from(count).unwrap()
    }

    fn forget(&mut self, topic: &str) {
        self.logs.retain(|partition, _| *partition.topic != *topic);
        self.commits.retain(|(_, partition), _| *partition.topic != *topic);
        self.sequences.retain(|partition, _| *partition.topic != *topic);
        self.positions.retain(|partition, _| *partition.topic != *topic);
    }
}

/// The broker under test, with its producers and its consumer.
struct Opened {
    broker: Broker,
    producer: Producer,
    named: Producer,
    consumer: Option<Consumer>,
}

struct Run<'a> {
    rng: Rng,
    dir: &'a Path,
    model: Model,
    opened: Option<Opened>,
    steps: Vec<String>,
}

fn open(dir: &Path, rng: &mut Rng) -> Opened {
    let levels = [Durability::Os, Durability::Os, Durability::Sync];
    let modes = [ReadMode::Mapped, ReadMode::Mapped, ReadMode::Copy];
    let broker = Broker::builder()
        .data_dir(dir)
        .durability(levels[rng.index(3)])
        .read_mode(modes[rng.index(3)])
        .background(rng.one_in(3))
        .clock(manual_clock())
        .open()
        .unwrap();
    let named = broker.producer_builder().id(NAMED).build().unwrap();
    Opened { producer: broker.producer(), named, consumer: None, broker }
}

impl Run<'_> {
    fn opened(&mut self) -> &mut Opened {
        self.opened.as_mut().expect("an open broker")
    }

    fn partition(&mut self, at: &TopicPartition) -> Partition {
        self.opened().broker.topic(&at.topic).unwrap().partition(at.partition).unwrap()
    }

    /// Some partition, if there is one.
    fn some_partition(&mut self) -> Option<TopicPartition> {
        let all: Vec<_> = self.model.logs.keys().cloned().collect();
        (!all.is_empty()).then(|| all[self.rng.index(all.len())].clone())
    }

    fn step(&mut self) {
        let what = self.rng.below(100);
        let Some(at) = self.some_partition().filter(|_| what >= 4) else {
            return self.create_or_delete();
        };
        self.steps.push(format!("{what} {at}"));
        match what {
            0..=29 => self.append(&at),
            30..=37 => self.send_batch(),
            38..=45 => self.send_sequenced(&at),
            46..=59 => self.read(&at),
            60..=74 => self.consume(),
            75..=80 => self.seek(),
            81..=89 => self.commit(),
            90..=92 => self.opened().broker.tick().unwrap(),
            93 => self.opened().broker.flush().unwrap(),
            94 => self.opened().consumer = None,
            95..=96 => self.compare_all(),
            97 => self.reopen(true),
            98 => self.reopen(false),
            _ => self.create_or_delete(),
        }
        if self.opened().consumer.is_none() {
            self.model.positions.clear();
        }
    }

    // ---- writing ----------------------------------------------------------------------------

    fn append(&mut self, at: &TopicPartition) {
        let count = if self.rng.one_in(3) { self.rng.index(6) } else { 1 };
        let records: Vec<Stored> = (0..count).map(|_| Stored::random(&mut self.rng)).collect();
        let partition = self.partition(at);
        let log = self.model.logs.get_mut(at).unwrap();
        let end = log.len() as u64;
        let batch: Vec<Record<'_>> =
            records.iter().map(|stored| stored.record(Record::new())).collect();
        let next = end + count as u64;
        match self.rng.below(4) {
            0 => {
                let wrong = end + 1 - 2 * self.rng.below(2).min(end);
                let refused = partition.append_if(wrong, &batch);
                assert!(
                    matches!(refused, Err(Error::WrongOffset { actual, .. }) if actual == end),
                    "{refused:?}"
                );
                assert_eq!(partition.append_if(end, &batch).unwrap(), end..next);
            }
            1 if count == 1 => {
                let record = records[0].record(Record::to(&at.topic)).partition(at.partition);
                let opened = self.opened.as_ref().unwrap();
                let delivery = opened.producer.enqueue(record).unwrap();
                assert_eq!(delivery.metadata().offset, end);
                if self.rng.one_in(2) {
                    delivery.wait().unwrap();
                }
            }
            2 if count == 1 => assert_eq!(partition.append(&batch[0]).unwrap(), end),
            _ => assert_eq!(partition.append_batch(&batch).unwrap(), end..next),
        }
        log.extend(records);
    }

    fn send_batch(&mut self) {
        let count = self.rng.index(8);
        let targets: Vec<TopicPartition> =
            (0..count).map(|_| self.some_partition().unwrap()).collect();
        let records: Vec<Stored> = targets.iter().map(|_| Stored::random(&mut self.rng)).collect();
        let batch = targets
            .iter()
            .zip(&records)
            .map(|(at, stored)| stored.record(Record::to(&at.topic)).partition(at.partition));
        let sent = self.opened.as_ref().unwrap().producer.send_batch(batch).unwrap();
        assert_eq!(sent.len(), count);
        for ((at, stored), sent) in targets.iter().zip(records).zip(sent) {
            let log = self.model.logs.get_mut(at).unwrap();
            assert_eq!((sent.partition, sent.offset), (at.partition, log.len() as u64));
            log.push(stored);
        }
    }

    fn send_sequenced(&mut self, at: &TopicPartition) {
        let stored = Stored::random(&mut self.rng);
        let last = self.model.sequences.get(at).copied();
        let named = self.opened.as_ref().unwrap().named.clone();
        assert_eq!(named.last_sequence(at), last);
        let record = stored.record(Record::to(&at.topic)).partition(at.partition);
        if self.rng.one_in(4) {
            // Without a number, and no number is taken.
            named.send(record).unwrap();
            self.model.logs.get_mut(at).unwrap().push(stored);
            return;
        }
        let seq = (last.unwrap_or(0) + self.rng.below(5)).saturating_sub(2);
        let outcome = named.send_sequenced(seq, record).unwrap();
        match outcome {
            SendOutcome::Duplicate { last: stored } => {
                assert!(
                    last.is_some_and(|last| last == stored && seq <= last),
                    "{seq} of {last:?}"
                );
            }
            SendOutcome::Appended(sent) => {
                assert!(last.is_none_or(|last| seq > last), "{seq} after {last:?} was appended");
                let log = self.model.logs.get_mut(at).unwrap();
                assert_eq!(sent.offset, log.len() as u64);
                log.push(stored);
                self.model.sequences.insert(at.clone(), seq);
            }
        }
    }

    fn create_or_delete(&mut self) {
        let name = TOPICS[self.rng.index(2)];
        self.steps.push(format!("create or delete {name}"));
        let admin = self.opened().broker.admin();
        // The consumer has all partitions by hand; the next one will have the new ones.
        self.opened().consumer = None;
        self.model.positions.clear();
        if self.model.partitions(name) > 0 {
            admin.delete_topic(name).unwrap();
            self.model.forget(name);
            return;
        }
        assert!(matches!(admin.delete_topic(name), Err(Error::UnknownTopic(_))));
        let count = 1 + u32::try_from(self.rng.below(3)).unwrap();
        let segment = SMALL_SEGMENT << self.rng.below(2);
        let mut config = TopicConfig::new(count).segment_bytes(segment);
        if self.rng.one_in(4) {
            config = config.durability(Durability::Sync);
        }
        admin.create_topic(name, config.clone()).unwrap();
        assert!(matches!(admin.create_topic(name, config), Err(Error::TopicExists(_))));
        for partition in 0..count {
            self.model.logs.insert(tp(name, partition), Vec::new());
        }
    }

    fn reopen(&mut self, closes: bool) {
        let Opened { broker, producer, named, consumer } = self.opened.take().unwrap();
        drop((producer, named, consumer));
        if closes {
            broker.close().unwrap();
        } else {
            drop(broker);
        }
        self.model.positions.clear();
        self.opened = Some(open(self.dir, &mut self.rng));
        let report = self.opened().broker.recovery().clone();
        assert_eq!(report.clean_shutdown, closes);
        assert!(report.is_clean() && report.unknown.is_empty(), "{report:?}");
        for partition in report.partitions.iter().filter(|it| !it.topic.starts_with("__")) {
            let log = &self.model.logs[&tp(&partition.topic, partition.partition)];
            assert_eq!(partition.end_offset, log.len() as u64, "{partition:?}");
        }
        self.compare_all();
    }

    // ---- reading ----------------------------------------------------------------------------

    fn read(&mut self, at: &TopicPartition) {
        let partition = self.partition(at);
        let log = &self.model.logs[at];
        let end = log.len() as u64;
        let from = self.rng.below(end + 3);
        let bytes = self.rng.index(6000);
        let result = partition.read(from, bytes);
        if from > end {
            assert!(matches!(result, Err(Error::OffsetOutOfRange { .. })), "{result:?}");
            return;
        }
        let batch = result.unwrap();
        assert_eq!(batch.is_empty(), from == end);
        for (message, offset) in batch.into_iter().zip(from..) {
            assert_eq!(message.offset(), offset);
            assert_eq!(Stored::of(&message), log[usize::try_from(offset).unwrap()], "{at}");
        }
    }

    /// The consumer of the group `g`, with all partitions by hand.
    fn consumer(&mut self) -> &mut Consumer {
        let model = &mut self.model;
        let opened = self.opened.as_mut().expect("an open broker");
        opened.consumer.get_or_insert_with(|| {
            for at in model.logs.keys() {
                let committed = model.commits.get(&(GROUPS[0], at.clone())).copied();
                model.positions.insert(at.clone(), committed.unwrap_or(0));
            }
            let builder = opened.broker.consumer(GROUPS[0]).assign(model.logs.keys());
            builder.max_poll_records(20).open().unwrap()
        })
    }

    fn consume(&mut self) {
        let waits = self.rng.one_in(3);
        let one = self.rng.one_in(2);
        let consumer = self.consumer();
        let timeout = Duration::from_millis(u64::from(waits));
        let messages: Vec<Message> = if one {
            consumer.recv_timeout(timeout).unwrap().into_iter().collect()
        } else {
            consumer.poll(timeout).unwrap().into_iter().collect()
        };
        assert!(messages.len() <= 20);
        if messages.is_empty() {
            for (at, position) in &self.model.positions {
                let end = self.model.logs[at].len() as u64;
                assert_eq!(*position, end, "{at} has more, and was not read");
            }
        }
        for message in messages {
            let at = message.topic_partition();
            let position = self.model.positions.get_mut(&at).unwrap();
            assert_eq!(message.offset(), *position, "{at}");
            let stored = &self.model.logs[&at][usize::try_from(*position).unwrap()];
            assert_eq!(Stored::of(&message), *stored, "{at} {position}");
            *position += 1;
        }
        self.compare_positions();
    }

    fn compare_positions(&mut self) {
        let lag = self.consumer().lag().unwrap();
        let expected: BTreeMap<_, _> = self.model.positions.clone();
        for (at, position) in expected {
            assert_eq!(self.consumer().position(&at), Some(position), "{at}");
            assert_eq!(lag[&at], self.model.logs[&at].len() as u64 - position, "{at}");
        }
    }

    fn seek(&mut self) {
        self.consumer();
        let Some(at) = self.some_partition() else { return };
        let end = self.model.logs[&at].len() as u64;
        let (start, expected) = match self.rng.below(4) {
            0 => (StartAt::Earliest, 0),
            1 => (StartAt::Latest, end),
            _ => {
                let offset = self.rng.below(end + 5);
                (StartAt::Offset(offset), offset.min(end))
            }
        };
        self.consumer().seek(&at, start).unwrap();
        self.model.positions.insert(at, expected);
        self.compare_positions();
    }

    fn commit(&mut self) {
        if self.rng.one_in(3) {
            // Another group, by hand, back and forth.
            let Some(at) = self.some_partition() else { return };
            let end = self.model.logs[&at].len() as u64;
            let offset = self.rng.below(end + 2);
            let mut consumer =
                self.opened().broker.consumer(GROUPS[1]).assign([&at]).open().unwrap();
            let result = consumer.commit_offsets(&Offsets::from([(at.clone(), offset)]));
            if offset > end {
                assert!(matches!(result, Err(Error::OffsetOutOfRange { .. })), "{result:?}");
            } else {
                result.unwrap();
                self.model.commits.insert((GROUPS[1], at), offset);
            }
            return;
        }
        let is_async = self.rng.one_in(2);
        let consumer = self.consumer();
        if is_async {
            consumer.commit_soon().unwrap();
        } else {
            consumer.commit().unwrap();
        }
        for (at, position) in &self.model.positions {
            self.model.commits.insert((GROUPS[0], at.clone()), *position);
        }
    }

    // ---- everything -------------------------------------------------------------------------

    fn compare_all(&mut self) {
        let broker = self.opened().broker.clone();
        let model = &self.model;
        let found: Vec<(String, u32)> = broker
            .admin()
            .topics()
            .unwrap()
            .iter()
            .map(|topic| (topic.name.to_string(), topic.config.partitions))
            .collect();
        let expected: Vec<(String, u32)> = TOPICS
            .iter()
            .map(|name| ((*name).to_owned(), model.partitions(name)))
            .filter(|(_, partitions)| *partitions > 0)
            .collect();
        assert_eq!(found, expected);
        for (at, log) in &model.logs {
            let partition = broker.topic(&at.topic).unwrap().partition(at.partition).unwrap();
            let messages = read_all(&partition);
            assert_dense(&messages, 0);
            let found: Vec<Stored> = messages.iter().map(Stored::of).collect();
            assert!(found == *log, "{at} differs: {} of {}", found.len(), log.len());
            let mut reader = broker.reader().assign([at]).open().unwrap();
            let streamed: Vec<Stored> = drain(&mut reader).iter().map(Stored::of).collect();
            assert!(streamed == *log, "{at} differs when it is streamed");
            for group in GROUPS {
                let consumer = broker.consumer(group).assign([at]).open().unwrap();
                let committed = model.commits.get(&(group, at.clone())).copied();
                assert_eq!(consumer.committed(at).unwrap(), committed, "{group} {at}");
                assert_eq!(consumer.position(at), Some(committed.unwrap_or(0)));
            }
            let sequence = model.sequences.get(at).copied();
            assert_eq!(self.opened.as_ref().unwrap().named.last_sequence(at), sequence, "{at}");
        }
    }
}

/// Says where a run failed.
struct Trace<'a>(Run<'a>);

impl Drop for Trace<'_> {
    fn drop(&mut self) {
        show_last_steps(&self.0.steps);
    }
}

#[test]
fn any_sequence_of_calls_does_what_the_model_does() {
    let mut seeds = Rng::announced("model");
    let steps = from_env("LOGPOND_MODEL_STEPS", 400);
    for run in 0..from_env("LOGPOND_MODEL_SEEDS", 5) {
        // The first run has the announced seed itself, so that a replay needs only one.
        let seed = seeds.next();
        eprintln!("run {run}");
        let dir = temp_dir();
        let mut rng = Rng::new(seed);
        let opened = Some(open(dir.path(), &mut rng));
        let run = Run { rng, dir: dir.path(), model: Model::default(), opened, steps: Vec::new() };
        let mut trace = Trace(run);
        for _ in 0..steps {
            trace.0.step();
        }
        trace.0.reopen(true);
    }
}

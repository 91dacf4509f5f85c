//! What must be there after a crash (FAILURES 4.2 and 4.4, literally), and the steps that workloads
//! are made of.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::broker::Broker;
use crate::clock::ManualClock;
use crate::config::{Durability, TopicConfig};
use crate::consumer::Consumer;
use crate::error::{Error, Result};
use crate::producer::Producer;
use crate::record::{Record, TopicPartition};
use crate::storage::disk::{PowerCut, SimulatedDisk};
use crate::topic::Topic;

pub(super) const DIR: &str = "/srv/data";
const GROUP: &str = "group";
const NAMED: &str = "named";

/// splitmix64, from a seed that every failure prints.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub(super) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }
}

/// What happened to the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crash {
    /// The process died; what was published is in the page cache.
    Kill,
    /// The power was cut.
    Cut(PowerCut),
}

impl Crash {
    pub(super) fn of(self, disk: &SimulatedDisk, random: &mut Random) -> SimulatedDisk {
        match self {
            Self::Kill => disk.kill9(),
            Self::Cut(how) => disk.power_cut(&mut || random.next(), how),
        }
    }
}

pub(super) fn open(disk: &SimulatedDisk, seed: u64) -> Result<Broker> {
    open_at(disk, seed, Durability::Sync, &clock())
}

pub(super) fn clock() -> ManualClock {
    ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000))
}

pub(super) fn open_at(
    disk: &SimulatedDisk,
    seed: u64,
    durability: Durability,
    clock: &ManualClock,
) -> Result<Broker> {
    Broker::builder()
        .disk(Arc::new(disk.clone()), Path::new(DIR))
        .clock(clock.clone())
        .durability(durability)
        .background(false)
        .seed(seed)
        .open()
}

/// All values of a partition, from the log start to its end.
pub(super) fn values(topic: &Topic, partition: u32) -> Vec<String> {
    let partition = topic.partition(partition).unwrap();
    let mut next = partition.log_start_offset();
    let mut values = Vec::new();
    while next < partition.log_end_offset() {
        let batch = partition.read(next, 1 << 20).unwrap();
        assert!(!batch.is_empty(), "nothing at {next} of {}", partition.log_end_offset());
        for message in batch.iter() {
            assert_eq!(message.offset(), next, "a hole");
            values.push(String::from_utf8(message.value().unwrap().to_vec()).unwrap());
            next = message.next_offset();
        }
    }
    values
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Create(&'static str, Shape),
    Delete(&'static str),
    /// Acknowledged at the topic's level.
    Send(&'static str, u32),
    Batch(&'static str, u32, usize),
    /// Published, not waited for.
    Enqueue(&'static str, u32),
    /// By a named producer, which is built when there is none.
    Named(&'static str, u32),
    /// A new holder of the name.
    Acquire,
    /// Reads on and commits; durably or not.
    Commit(&'static str),
    CommitAsync(&'static str),
    Flush,
    /// A tick after a minute: syncs, footers, recovery points.
    Tick,
    /// A clean end, and a new life.
    Close,
    /// No clean end, and a new life.
    Drop,
}

/// Partitions and level of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape(pub(super) u32, pub(super) Durability);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Absent,
    Creating,
    Present,
    Deleting,
}

#[derive(Debug, Clone, Default)]
struct PartitionModel {
    /// What was published, batch by batch.
    batches: Vec<Vec<String>>,
    /// A batch whose append has not returned.
    unknown: Option<Vec<String>>,
    /// How many records no power cut can take back.
    durable: usize,
}

impl PartitionModel {
    fn len(&self) -> usize {
        self.batches.iter().map(Vec::len).sum()
    }

    /// The recovered values must be whole batches, in order, and at least `floor` records.
    fn check(&mut self, found: &[String], floor: usize, context: &str) {
        let mut kept = Vec::new();
        let mut rest = found;
        for batch in self.batches.drain(..).chain(self.unknown.take()) {
            if rest.is_empty() {
                break;
            }
            assert!(rest.starts_with(&batch), "{context}: {rest:.60?} is not {batch:.60?}");
            rest = &rest[batch.len()..];
            kept.push(batch);
        }
        assert!(rest.is_empty(), "{context}: invented {rest:.60?}");
        assert!(found.len() >= floor, "{context}: {} of {floor} acknowledged", found.len());
        self.batches = kept;
        self.durable = self.durable.min(found.len());
    }
}

#[derive(Debug, Clone)]
struct TopicModel {
    presence: Presence,
    creation: u32,
    durability: Durability,
    partitions: Vec<PartitionModel>,
}

/// The commits of one partition.
#[derive(Debug, Clone, Default)]
struct Commits {
    /// What was attempted, in order, and whether the log still has what it refers to.
    attempts: Vec<(u64, bool)>,
    /// How many of them are published, and durable.
    published: usize,
    durable: usize,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    topics: BTreeMap<&'static str, TopicModel>,
    creations: u32,
    records: u32,
    /// By creation and partition.
    commits: BTreeMap<(u32, u32), Commits>,
    /// How often the named producer was acquired: durably, and perhaps.
    epochs: (u32, u32),
}

impl Model {
    fn topic(&mut self, name: &'static str) -> &mut TopicModel {
        self.topics.get_mut(name).unwrap()
    }

    /// Whether steps on a topic make sense.
    pub(super) fn is_present(&self, name: &str) -> bool {
        self.topics.get(name).is_some_and(|topic| topic.presence == Presence::Present)
    }

    fn all_durable(&mut self) {
        for topic in self.topics.values_mut() {
            topic.partitions.iter_mut().for_each(|partition| partition.durable = partition.len());
        }
        self.commits.values_mut().for_each(|commits| commits.durable = commits.published);
    }

    fn value(&mut self, name: &'static str, partition: u32, who: &str) -> String {
        self.records += 1;
        let (record, creation) = (self.records, self.topic(name).creation);
        // Now and then a value of more than a page.
        let pad = [7, 90, 700, 5_000][Random::new(u64::from(record)).below(4) as usize];
        format!("{creation}/{partition}/{record}/{who}/{}", "x".repeat(pad))
    }

    fn begin_append(&mut self, name: &'static str, partition: u32, who: &str, count: usize) -> Vec<String> {
        let batch: Vec<String> = (0..count).map(|_| self.value(name, partition, who)).collect();
        self.topic(name).partitions[partition as usize].unknown = Some(batch.clone());
        batch
    }

    fn end_append(&mut self, name: &'static str, partition: u32, waited: bool) {
        let topic = self.topic(name);
        let durable = waited && topic.durability == Durability::Sync;
        let partition = &mut topic.partitions[partition as usize];
        partition.batches.extend(partition.unknown.take());
        if durable {
            partition.durable = partition.len();
        }
    }

    // ---- after a crash -----------------------------------------------------------------------

    /// Holds a broker that was opened after `crash` against what must be there, and goes on with
    /// what is there.
    pub(super) fn check(&mut self, broker: &Broker, crash: Crash, context: &str) {
        let report = broker.recovery();
        for partition in &report.partitions {
            assert!(partition.corrupt.is_empty(), "{context}: {partition:?}");
        }
        assert!(report.unknown.is_empty(), "{context}: left behind {:?}", report.unknown);
        // Nothing may be missing after an end that claims to be clean.
        let is_whole = crash == Crash::Kill || report.clean_shutdown;
        let names: Vec<&'static str> = self.topics.keys().copied().collect();
        for name in names {
            self.check_topic(broker, name, is_whole, context);
        }
        self.check_producer(broker, context);
    }

    fn check_topic(&mut self, broker: &Broker, name: &'static str, is_whole: bool, context: &str) {
        let context = &format!("{context}: topic {name}");
        let model = self.topics.get_mut(name).unwrap();
        let found = match broker.topic(name) {
            Ok(found) => Some(found),
            Err(Error::UnknownTopic(_)) => None,
            Err(other) => panic!("{context}: {other:?}"),
        };
        let Some(found) = found else {
            assert_ne!(model.presence, Presence::Present, "{context} is gone");
            model.presence = Presence::Absent;
            return;
        };
        assert_ne!(model.presence, Presence::Absent, "{context} is back");
        model.presence = Presence::Present;
        assert_eq!(found.partitions() as usize, model.partitions.len(), "{context}");
        let creation = model.creation;
        let shared = broker.life().topic(name).unwrap();
        for (number, partition) in (0..).zip(&mut model.partitions) {
            let context = &format!("{context}-{number}");
            let floor = if is_whole { partition.len() } else { partition.durable };
            let values = values(&found, number);
            partition.check(&values, floor, context);
            let handle = found.partition(number).unwrap();
            assert!(handle.durable_end_offset() <= handle.log_end_offset(), "{context}");
            // What the engine calls durable is held against it from here on.
            let durable = usize::try_from(handle.durable_end_offset()).unwrap();
            partition.durable = partition.durable.max(durable);
            let named = values.iter().filter(|value| value.contains(NAMED)).count() as u64;
            let id = broker.life().catalog.read(|it| it.producers.get(NAMED).map(|it| it.id));
            let core = shared.partition(number).unwrap();
            let last = id.and_then(|id| core.last_sequence(id)).unwrap_or(0);
            assert_eq!(last, named, "{context}: sequence numbers");
            let coordinator = &broker.life().coordinator;
            let committed = coordinator.committed(GROUP, shared.id, number);
            let commits = self.commits.entry((creation, number)).or_default();
            commits.check(committed.map(|it| it.offset), is_whole, values.len(), context);
        }
    }

    fn check_producer(&mut self, broker: &Broker, context: &str) {
        let found = broker.life().catalog.read(|it| it.producers.get(NAMED).map(|it| it.epoch));
        let found = found.map_or(0, |epoch| epoch + 1);
        let (durable, attempted) = self.epochs;
        assert!((durable..=attempted).contains(&found), "{context}: epoch {found}, {durable}");
        self.epochs = (found, found);
    }
}

impl Commits {
    fn check(&mut self, found: Option<u64>, is_whole: bool, end: usize, context: &str) {
        let floor = if is_whole { self.published } else { self.durable };
        let attempts = &self.attempts;
        let index = match found {
            None => {
                assert_eq!(floor, 0, "{context}: commits {attempts:?} are lost");
                0
            }
            Some(found) => {
                let at = |from: usize| {
                    attempts.iter().skip(from).position(|(offset, _)| *offset == found)
                };
                let from = floor.saturating_sub(1);
                let at = at(from).unwrap_or_else(|| {
                    panic!("{context}: committed {found}, of {attempts:?} {floor} are certain")
                });
                from + at + 1
            }
        };
        self.attempts.truncate(index);
        self.published = index;
        self.durable = self.durable.min(index);
        for (offset, is_valid) in &mut self.attempts {
            *is_valid &= *offset <= end as u64;
        }
    }
}

// ---- running workloads ---------------------------------------------------------------------------

/// One broker and what was done with it.
pub(super) struct Life {
    pub(super) disk: SimulatedDisk,
    pub(super) model: Model,
    broker: Option<Broker>,
    named: Option<Producer>,
    clock: ManualClock,
    random: Random,
    context: String,
}

/// Whether all steps were done, or the power went off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Done,
    Off,
}

impl Life {
    pub(super) fn new(disk: SimulatedDisk, model: Model, seed: u64, context: &str) -> Self {
        let (clock, random, context) = (clock(), Random::new(seed), context.to_owned());
        Self { disk, model, broker: None, named: None, clock, random, context }
    }

    pub(super) fn broker(&self) -> &Broker {
        self.broker.as_ref().unwrap()
    }

    /// Opens the broker. False when the power went off.
    pub(super) fn open(&mut self) -> bool {
        let opened = open_at(&self.disk, self.random.next(), Durability::Sync, &self.clock);
        match opened {
            Ok(broker) => {
                self.broker = Some(broker);
                true
            }
            Err(_) if self.disk.is_off() => false,
            Err(error) => panic!("{}: cannot open: {error:?}", self.context),
        }
    }

    pub(super) fn open_and_check(&mut self, crash: Crash) -> bool {
        let opened = self.open();
        if opened {
            let context = self.context.clone();
            self.model.check(self.broker.as_ref().unwrap(), crash, &context);
        }
        opened
    }

    pub(super) fn run(&mut self, steps: &[Step]) -> Ended {
        for step in steps {
            if let Err(error) = self.step(step) {
                assert!(self.disk.is_off(), "{}: {step:?}: {error:?}", self.context);
                return Ended::Off;
            }
            // What the engine calls durable is held against it, also between acknowledgements.
            self.note_durable();
        }
        Ended::Done
    }

    fn note_durable(&mut self) {
        let Some(broker) = &self.broker else { return };
        for (name, topic) in &mut self.model.topics {
            let Ok(found) = broker.topic(name) else { continue };
            for (number, partition) in (0..).zip(&mut topic.partitions) {
                let durable = found.partition(number).unwrap().durable_end_offset();
                partition.durable = partition.durable.max(usize::try_from(durable).unwrap());
            }
        }
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        let broker = self.broker().clone();
        match *step {
            Step::Create(name, config) => self.create(&broker, name, config),
            Step::Delete(name) => {
                self.model.topic(name).presence = Presence::Deleting;
                broker.life().delete_topic(name)?;
                self.model.topic(name).presence = Presence::Absent;
                Ok(())
            }
            Step::Send(name, partition) => {
                let batch = self.model.begin_append(name, partition, "plain", 1);
                let record = Record::to(name).partition(partition).value(&batch[0]);
                broker.producer().send(record)?;
                self.model.end_append(name, partition, true);
                Ok(())
            }
            Step::Batch(name, partition, count) => {
                let batch = self.model.begin_append(name, partition, "batch", count);
                let record = |value| Record::to(name).partition(partition).value(value);
                broker.producer().send_batch(batch.iter().map(record))?;
                self.model.end_append(name, partition, true);
                Ok(())
            }
            Step::Enqueue(name, partition) => {
                let batch = self.model.begin_append(name, partition, "enqueued", 1);
                let record = Record::to(name).partition(partition).value(&batch[0]);
                drop(broker.producer().enqueue(record)?);
                self.model.end_append(name, partition, false);
                Ok(())
            }
            Step::Named(name, partition) => {
                if self.named.is_none() {
                    self.acquire(&broker)?;
                }
                let batch = self.model.begin_append(name, partition, NAMED, 1);
                let record = Record::to(name).partition(partition).value(&batch[0]);
                self.named.as_ref().unwrap().send(record)?;
                self.model.end_append(name, partition, true);
                Ok(())
            }
            Step::Acquire => self.acquire(&broker),
            Step::Commit(name) => self.commit(&broker, name, true),
            Step::CommitAsync(name) => self.commit(&broker, name, false),
            Step::Flush => {
                broker.flush()?;
                self.model.all_durable();
                Ok(())
            }
            Step::Tick => {
                self.clock.advance(Duration::from_secs(61));
                broker.tick()
            }
            Step::Close => {
                (self.broker, self.named) = (None, None);
                broker.close()?;
                self.model.all_durable();
                self.reopen(true)
            }
            Step::Drop => {
                (self.broker, self.named) = (None, None);
                drop(broker);
                self.reopen(false)
            }
        }
    }

    fn reopen(&mut self, is_clean: bool) -> Result<()> {
        if !self.open_and_check(Crash::Kill) {
            return Err(Error::Closed);
        }
        assert_eq!(self.broker().recovery().clean_shutdown, is_clean, "{}", self.context);
        Ok(())
    }

    fn create(&mut self, broker: &Broker, name: &'static str, config: Shape) -> Result<()> {
        let Shape(partitions, durability) = config;
        self.model.creations += 1;
        let topic = TopicModel {
            presence: Presence::Creating,
            creation: self.model.creations,
            durability,
            partitions: vec![PartitionModel::default(); partitions as usize],
        };
        self.model.topics.insert(name, topic);
        let config = TopicConfig::new(partitions).durability(durability).segment_bytes(16 << 10);
        let created = broker.ensure_topic(name, config)?;
        self.model.topic(name).presence = Presence::Present;
        // Nothing of an earlier topic of that name shows.
        for partition in 0..partitions {
            assert_eq!(values(&created, partition), Vec::<String>::new(), "{}", self.context);
            let id = broker.life().topic(name).unwrap().id;
            assert_eq!(broker.life().coordinator.committed(GROUP, id, partition), None);
        }
        Ok(())
    }

    fn acquire(&mut self, broker: &Broker) -> Result<()> {
        self.model.epochs.1 += 1;
        let before = self.named.take();
        self.named = Some(broker.producer_builder().id(NAMED).build()?);
        self.model.epochs.0 = self.model.epochs.1;
        // The holder before is fenced in every partition.
        let fenced = self.model.topics.keys().find(|name| self.model.is_present(name));
        if let (Some(before), Some(name)) = (before, fenced) {
            let sent = before.send(Record::to(name).partition(0).value("fenced"));
            assert!(matches!(sent, Err(Error::Fenced { .. })), "{}: {sent:?}", self.context);
        }
        Ok(())
    }

    fn commit(&mut self, broker: &Broker, name: &'static str, durably: bool) -> Result<()> {
        let mut consumer = broker.consumer(GROUP).subscribe([name]).open()?;
        self.read_on(&mut consumer, name)?;
        let topic = &self.model.topics[name];
        let keys: Vec<_> = (0..).zip(&topic.partitions).map(|(it, _)| (topic.creation, it)).collect();
        let ends: Vec<_> = topic.partitions.iter().map(|it| it.len() as u64).collect();
        for (key, end) in keys.iter().zip(ends) {
            self.model.commits.entry(*key).or_default().attempts.push((end, true));
        }
        if durably {
            consumer.commit()?;
        } else {
            consumer.commit_async()?;
        }
        for key in &keys {
            let commits = self.model.commits.get_mut(key).unwrap();
            commits.published = commits.attempts.len();
            if durably {
                commits.durable = commits.published;
            }
        }
        Ok(())
    }

    /// Reads all that was not committed: what follows the commit, or a report that it was cut.
    fn read_on(&mut self, consumer: &mut Consumer, name: &'static str) -> Result<()> {
        let topic = self.model.topics[name].clone();
        let mut read = vec![Vec::new(); topic.partitions.len()];
        let mut cut = vec![0; topic.partitions.len()];
        loop {
            match consumer.poll(Duration::ZERO) {
                Ok(batch) if batch.is_empty() => break,
                Ok(batch) => {
                    for message in batch.iter() {
                        let value = String::from_utf8(message.value().unwrap().to_vec()).unwrap();
                        read[message.partition() as usize].push(value);
                    }
                }
                Err(Error::Truncated { partition, .. }) => cut[partition.partition as usize] += 1,
                Err(error) => return Err(error),
            }
        }
        for (number, partition) in (0..).zip(&topic.partitions) {
            let context = &format!("{}: {name}-{number}", self.context);
            let last = self.model.commits.get(&(topic.creation, number));
            let last = last.and_then(|commits| commits.attempts.last().copied());
            let all: Vec<String> = partition.batches.concat();
            let (from, cuts) = match last {
                None => (0, 0),
                Some((offset, true)) => (usize::try_from(offset).unwrap(), 0),
                Some((_, false)) => (all.len(), 1),
            };
            assert_eq!(cut[number as usize], cuts, "{context}: reports that {last:?} was cut");
            assert_eq!(read[number as usize], all[from..], "{context}: after {last:?}");
            let at = TopicPartition::from((name, number));
            assert_eq!(consumer.position(&at), Some(all.len() as u64), "{context}");
        }
        Ok(())
    }

    /// The steps that show whether the engine is whole: every topic takes records and commits,
    /// every name that is free can be taken again.
    pub(super) fn follow_up(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (name, topic) in &self.model.topics {
            if topic.presence != Presence::Present {
                steps.push(Step::Create(name, Shape(1, Durability::Sync)));
            }
            steps.extend([Step::Commit(name), Step::Named(name, 0), Step::Send(name, 0)]);
            steps.push(Step::Commit(name));
        }
        steps
    }
}

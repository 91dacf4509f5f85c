//! One broker at work: runs the steps of a workload and keeps the model of what they did.

use std::sync::Arc;
use std::time::Duration;

use super::model::{
    Crash, GROUP, Model, NAMED, PartitionModel, Presence, Shape, Step, TopicModel, clock, open_on,
    values,
};
use crate::broker::Broker;
use crate::clock::ManualClock;
use crate::config::{Durability, StartAt, TopicConfig};
use crate::consumer::Consumer;
use crate::error::{Error, Result};
use crate::producer::{Producer, SendOutcome};
use crate::random::Random;
use crate::record::{Record, TopicPartition};
use crate::storage::disk::{Disk, SimulatedDisk};

/// One broker and what was done with it.
pub(super) struct Run {
    pub(super) disk: SimulatedDisk,
    /// The way to it.
    door: Arc<dyn Disk>,
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

impl Run {
    pub(super) fn new(disk: SimulatedDisk, model: Model, seed: u64, context: &str) -> Self {
        let door = Arc::new(disk.clone());
        Self::behind(door, disk, model, seed, context)
    }

    /// A run whose broker reaches the disk through another one.
    pub(super) fn behind(
        door: Arc<dyn Disk>,
        disk: SimulatedDisk,
        model: Model,
        seed: u64,
        context: &str,
    ) -> Self {
        let (clock, random, context) = (clock(), Random::new(seed), context.to_owned());
        Self { disk, door, model, broker: None, named: None, clock, random, context }
    }

    pub(super) fn broker(&self) -> &Broker {
        self.broker.as_ref().unwrap()
    }

    /// Opens the broker. False when the power went off.
    pub(super) fn open(&mut self) -> bool {
        let opened =
            open_on(Arc::clone(&self.door), self.random.next(), Durability::Sync, &self.clock);
        match opened {
            Ok(broker) => {
                self.broker = Some(broker);
                true
            }
            Err(_) if self.disk.is_off() => false,
            Err(error) => panic!("{}: cannot open: {error:?}", self.context),
        }
    }

    pub(super) fn broker_if_open(&self) -> Option<&Broker> {
        self.broker.as_ref()
    }

    /// Gives the broker up, without any end.
    pub(super) fn abandon(&mut self) {
        (self.broker, self.named) = (None, None);
    }

    /// Opens the broker, unless that fails.
    pub(super) fn try_open(&mut self) -> Result<()> {
        self.abandon();
        let seed = self.random.next();
        self.broker = Some(open_on(Arc::clone(&self.door), seed, Durability::Sync, &self.clock)?);
        Ok(())
    }

    pub(super) fn open_and_check(&mut self, crash: Crash) -> bool {
        let opened = self.open();
        if opened {
            let context = self.context.clone();
            self.model.check(self.broker.as_ref().unwrap(), crash, &context);
        }
        opened
    }

    pub(super) fn take_steps(&mut self, steps: &[Step]) -> Ended {
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

    /// A step that may fail, the power being on. What was definitely not done is forgotten.
    pub(super) fn attempt(&mut self, step: &Step) -> Result<()> {
        let before = self.model.clone();
        let done = self.step(step);
        match &done {
            Err(error) if error.is_definite() => self.forget_attempt(before),
            _ => self.note_durable(),
        }
        done
    }

    /// An error that says that nothing was done is taken at its word; for creations and deletions
    /// too. Numbers once given are not given again.
    fn forget_attempt(&mut self, before: Model) {
        let (creations, records) = (self.model.creations, self.model.records);
        // A send that was refused may have acquired its producer first.
        let (durable, attempted) = self.model.epochs;
        let epochs = if durable == attempted { self.model.epochs } else { before.epochs };
        self.model = Model { creations, records, epochs, ..before };
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
        let broker = self.broker.clone().ok_or(Error::Closed)?;
        match *step {
            Step::Create(name, config) => self.create(&broker, name, config),
            Step::Delete(name) => {
                self.model.topic(name).presence = Presence::Deleting;
                broker.run().topics().delete(name)?;
                self.model.topic(name).presence = Presence::Absent;
                Ok(())
            }
            Step::Grow(name, total) => self.grow(&broker, name, total),
            Step::Alter(name) => self.alter(&broker, name),
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
            Step::Named(name, partition) => self.send_named(&broker, name, partition),
            Step::Acquire => self.acquire(&broker),
            Step::Commit(name) => self.commit(&broker, name, true),
            Step::CommitAsync(name) => self.commit(&broker, name, false),
            #[cfg(feature = "async")]
            Step::CommitInTask(name) => self.commit_in_task(&broker, name),
            Step::Reset(name) => self.reset(&broker, name),
            Step::Flush => {
                broker.flush()?;
                self.model.all_durable();
                Ok(())
            }
            Step::Tick => {
                self.clock.advance(Duration::from_secs(61));
                broker.tick()?;
                // What was committed without waiting is durable with the next round of syncs.
                self.model.commits.values_mut().for_each(|it| it.durable = it.published);
                Ok(())
            }
            Step::End => {
                (self.broker, self.named) = (None, None);
                broker.close()?;
                self.model.all_durable();
                Ok(())
            }
            Step::Close => {
                self.step(&Step::End)?;
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
            grows_to: None,
            has_grown: false,
            alterations: (0, 0),
        };
        self.model.topics.insert(name, topic);
        let config = TopicConfig::new(partitions).durability(durability).segment_bytes(16 << 10);
        let config = config.tombstone_retention(Duration::ZERO);
        let created = broker.ensure_topic(name, config)?;
        self.model.topic(name).presence = Presence::Present;
        // Nothing of an earlier topic of that name shows.
        for partition in 0..partitions {
            assert_eq!(values(&created, partition), Vec::<String>::new(), "{}", self.context);
            let id = broker.run().topic(name).unwrap().id;
            assert_eq!(broker.run().coordinator().offsets().committed(GROUP, id, partition), None);
        }
        Ok(())
    }

    fn alter(&mut self, broker: &Broker, name: &'static str) -> Result<()> {
        let alterations = &mut self.model.topic(name).alterations;
        alterations.1 += 1;
        let next = alterations.1;
        let value = Duration::from_secs(next);
        broker.admin().alter_topic(name, |config| config.tombstone_retention(value))?;
        self.model.topic(name).alterations = (next, next);
        let altered = broker.topic(name)?.config().tombstone_retention;
        assert_eq!(altered, value, "{}", self.context);
        Ok(())
    }

    fn grow(&mut self, broker: &Broker, name: &'static str, total: u32) -> Result<()> {
        let handle = broker.topic(name)?;
        let topic = self.model.topic(name);
        (topic.grows_to, topic.has_grown) = (Some(total as usize), true);
        broker.admin().add_partitions(name, total)?;
        let topic = self.model.topic(name);
        topic.grows_to = None;
        let before = topic.partitions.len();
        topic.partitions.resize(total as usize, PartitionModel::default());
        // The handle from before sees them, and they are empty.
        for partition in u32::try_from(before).unwrap()..total {
            assert_eq!(values(&handle, partition), Vec::<String>::new(), "{}", self.context);
        }
        Ok(())
    }

    fn send_named(&mut self, broker: &Broker, name: &'static str, partition: u32) -> Result<()> {
        if self.named.is_none() {
            self.acquire(broker)?;
        }
        let batch = self.model.begin_append(name, partition, NAMED, 1);
        let record = Record::to(name).partition(partition).value(&batch[0]);
        let named = self.named.as_ref().unwrap();
        let last = named.last_sequence(&TopicPartition::from((name, partition)));
        let sent = named.send_sequenced(last.unwrap_or(0) + 1, record)?;
        assert!(matches!(sent, SendOutcome::Appended(_)), "{}: {sent:?}", self.context);
        self.model.end_append(name, partition, true);
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
        self.attempt_commits(broker, name)?;
        if durably {
            consumer.commit()?;
        } else {
            consumer.commit_soon()?;
        }
        self.end_commits(name, durably);
        Ok(())
    }

    #[cfg(feature = "async")]
    fn commit_in_task(&mut self, broker: &Broker, name: &'static str) -> Result<()> {
        use std::task::{Context, Poll, Waker};

        let mut consumer = broker.consumer(GROUP).subscribe([name]).open()?;
        self.read_on(&mut consumer, name)?;
        self.attempt_commits(broker, name)?;
        let mut view = consumer.in_async();
        let mut commit = std::pin::pin!(view.commit());
        let mut context = Context::from_waker(Waker::noop());
        // One round for the records and one for the commit, and a few for what the ticks meet.
        for _ in 0..4 {
            if let Poll::Ready(committed) = commit.as_mut().poll(&mut context) {
                committed?;
                self.end_commits(name, true);
                return Ok(());
            }
            broker.tick()?;
        }
        panic!("{}: the commit of a task does not resolve", self.context);
    }

    fn reset(&mut self, broker: &Broker, name: &'static str) -> Result<()> {
        self.attempt_commits(broker, name)?;
        broker.admin().reset_offsets(GROUP, name, StartAt::Latest)?;
        self.end_commits(name, true);
        Ok(())
    }

    /// The log ends are about to be committed.
    fn attempt_commits(&mut self, broker: &Broker, name: &'static str) -> Result<()> {
        let topic = &self.model.topics[name];
        let shared = broker.run().topic(name)?;
        for (number, partition) in (0..).zip(&topic.partitions) {
            let incarnation = shared.partition(number)?.log().incarnation().1;
            let commits = self.model.commits.entry((topic.creation, number)).or_default();
            commits.attempts.push((partition.len() as u64, incarnation, None));
        }
        Ok(())
    }

    fn end_commits(&mut self, name: &'static str, durably: bool) {
        let Model { topics, commits, .. } = &mut self.model;
        let topic = topics.get_mut(name).unwrap();
        for (number, partition) in (0..).zip(&mut topic.partitions) {
            let commits = commits.get_mut(&(topic.creation, number)).unwrap();
            commits.published = commits.attempts.len();
            if durably {
                commits.durable = commits.published;
                // A commit that no power cut takes back vouches for the records before it.
                partition.durable = partition.len();
            }
        }
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
            let last =
                last.and_then(|commits| commits.attempts[..commits.published].last().copied());
            let all: Vec<String> = partition.batches.concat();
            let (from, cuts) = match last {
                None => (0, 0),
                Some((offset, _, None)) => (usize::try_from(offset).unwrap(), 0),
                Some((_, _, Some(cut_to))) => (usize::try_from(cut_to).unwrap(), 1),
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
        if self.model.topics.is_empty() {
            steps.extend([
                Step::Create("first", Shape(1, Durability::Sync)),
                Step::Send("first", 0),
            ]);
        }
        for (name, topic) in &self.model.topics {
            if topic.presence != Presence::Present {
                steps.push(Step::Create(name, Shape(1, Durability::Sync)));
            }
            steps.extend([Step::Commit(name), Step::Named(name, 0), Step::Send(name, 0)]);
            steps.push(Step::Commit(name));
            if topic.has_grown && topic.presence == Presence::Present {
                // What an interrupted growth has left is in nobody's way.
                let last = u32::try_from(topic.partitions.len()).unwrap();
                steps.extend([Step::Grow(name, last + 1), Step::Send(name, last)]);
            }
        }
        steps
    }
}

//! What must be there after a crash (docs/durability.md, literally), and the steps that workloads
//! are made of.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::broker::Broker;
use crate::clock::ManualClock;
use crate::config::Durability;
use crate::error::{Error, Result};
use crate::random::Random;
use crate::storage::disk::{Disk, PowerCut, SimulatedDisk};
use crate::topic::Topic;

pub(super) const DIR: &str = "/srv/data";
pub(super) const GROUP: &str = "group";
pub(super) const NAMED: &str = "named";

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
    open_on(Arc::new(disk.clone()), seed, durability, clock)
}

pub(super) fn open_on(
    disk: Arc<dyn Disk>,
    seed: u64,
    durability: Durability,
    clock: &ManualClock,
) -> Result<Broker> {
    Broker::builder()
        .disk(disk, Path::new(DIR))
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
    /// The same by a future, which ticks resolve.
    #[cfg(feature = "async")]
    CommitInTask(&'static str),
    /// Sends the group to the end, durably.
    Reset(&'static str),
    Flush,
    /// A tick after a minute: syncs, footers, recovery points.
    Tick,
    /// A clean end.
    End,
    /// A clean end, and a new run.
    Close,
    /// No clean end, and a new run.
    Drop,
    /// More partitions, this many in all.
    Grow(&'static str, u32),
    /// Another setting.
    Alter(&'static str),
}

/// Partitions and level of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape(pub(super) u32, pub(super) Durability);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    Absent,
    Creating,
    Present,
    Deleting,
}

#[derive(Debug, Clone, Default)]
pub(super) struct PartitionModel {
    /// What was published, batch by batch.
    pub(super) batches: Vec<Vec<String>>,
    /// A batch whose append has not returned.
    pub(super) unknown: Option<Vec<String>>,
    /// How many records no power cut can take back.
    pub(super) durable: usize,
}

impl PartitionModel {
    pub(super) fn len(&self) -> usize {
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
pub(super) struct TopicModel {
    pub(super) presence: Presence,
    pub(super) creation: u32,
    pub(super) durability: Durability,
    pub(super) partitions: Vec<PartitionModel>,
    /// How many partitions there are if the growth that has not returned is done.
    pub(super) grows_to: Option<usize>,
    /// Whether a growth was ever begun.
    pub(super) has_grown: bool,
    /// How often the settings were altered: for sure, and perhaps.
    pub(super) alterations: (u64, u64),
}

/// The commits of one partition.
#[derive(Debug, Clone, Default)]
pub(super) struct Commits {
    /// What was attempted, in order: under which incarnation, and to where the log was cut below
    /// it since.
    pub(super) attempts: Vec<(u64, u64, Option<u64>)>,
    /// How many of them are published, and durable.
    pub(super) published: usize,
    pub(super) durable: usize,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    pub(super) topics: BTreeMap<&'static str, TopicModel>,
    pub(super) creations: u32,
    pub(super) records: u32,
    /// By creation and partition.
    pub(super) commits: BTreeMap<(u32, u32), Commits>,
    /// How often the named producer was acquired: durably, and perhaps.
    pub(super) epochs: (u32, u32),
}

impl Model {
    pub(super) fn topic(&mut self, name: &'static str) -> &mut TopicModel {
        self.topics.get_mut(name).unwrap()
    }

    /// Whether steps on a topic make sense.
    pub(super) fn is_present(&self, name: &str) -> bool {
        self.topics.get(name).is_some_and(|topic| topic.presence == Presence::Present)
    }

    pub(super) fn all_durable(&mut self) {
        for topic in self.topics.values_mut() {
            topic.partitions.iter_mut().for_each(|partition| partition.durable = partition.len());
        }
        self.commits.values_mut().for_each(|commits| commits.durable = commits.published);
    }

    fn value(&mut self, name: &'static str, partition: u32, who: &str) -> String {
        self.records += 1;
        let (record, creation) = (self.records, self.topic(name).creation);
        // Now and then a value of more than a page.
        let pad = *Random::new(u64::from(record)).pick(&[7, 90, 700, 5_000]);
        format!("{creation}/{partition}/{record}/{who}/{}", "x".repeat(pad))
    }

    pub(super) fn begin_append(
        &mut self,
        name: &'static str,
        partition: u32,
        who: &str,
        count: usize,
    ) -> Vec<String> {
        let batch: Vec<String> = (0..count).map(|_| self.value(name, partition, who)).collect();
        self.topic(name).partitions[partition as usize].unknown = Some(batch.clone());
        batch
    }

    pub(super) fn end_append(&mut self, name: &'static str, partition: u32, waited: bool) {
        let topic = self.topic(name);
        let durable = waited && topic.durability == Durability::Sync;
        let partition = &mut topic.partitions[partition as usize];
        partition.batches.extend(partition.unknown.take());
        if durable {
            partition.durable = partition.len();
        }
    }

    // ---- after a crash -----------------------------------------------------------------------

    /// Holds a broker that was opened after `crash` against what must be there, and continues with
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
            assert_ne!(model.presence, Presence::Present, "{context} is missing");
            model.presence = Presence::Absent;
            return;
        };
        assert_ne!(model.presence, Presence::Absent, "{context} is back");
        model.presence = Presence::Present;
        let count = found.partitions() as usize;
        if model.grows_to.take() == Some(count) {
            model.partitions.resize(count, PartitionModel::default());
        }
        assert_eq!(count, model.partitions.len(), "{context}");
        let entries = broker.run().context().env.disk.list(&Path::new(DIR).join(name)).unwrap();
        assert_eq!(entries.len(), count, "{context}: {entries:?}");
        let altered = found.config().tombstone_retention.as_secs();
        let (sure, perhaps) = model.alterations;
        assert!((sure..=perhaps).contains(&altered), "{context}: {altered} of {sure}..={perhaps}");
        model.alterations = (altered, altered);
        let creation = model.creation;
        let shared = broker.run().topic(name).unwrap();
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
            let id =
                broker.run().logs().catalog().read(|it| it.producers.get(NAMED).map(|it| it.id));
            let core = shared.partition(number).unwrap();
            let last = id.and_then(|id| core.log().last_sequence(id)).unwrap_or(0);
            assert_eq!(last, named, "{context}: sequence numbers");
            let coordinator = &broker.run().coordinator();
            let committed = coordinator.offsets().committed(GROUP, shared.id, number);
            let commits = self.commits.entry((creation, number)).or_default();
            let committed = committed.map(|it| (it.offset, it.incarnation));
            commits.check(committed, is_whole, values.len(), context);
        }
    }

    fn check_producer(&mut self, broker: &Broker, context: &str) {
        let found =
            broker.run().logs().catalog().read(|it| it.producers.get(NAMED).map(|it| it.epoch));
        let found = found.map_or(0, |epoch| epoch + 1);
        let (durable, attempted) = self.epochs;
        assert!((durable..=attempted).contains(&found), "{context}: epoch {found}, {durable}");
        self.epochs = (found, found);
    }
}

impl Commits {
    fn check(&mut self, found: Option<(u64, u64)>, is_whole: bool, end: usize, context: &str) {
        let floor = if is_whole { self.published } else { self.durable };
        let attempts = &self.attempts;
        let index = match found {
            None => {
                assert_eq!(floor, 0, "{context}: commits {attempts:?} are lost");
                0
            }
            Some(found) => {
                let from = floor.saturating_sub(1);
                let is_found = |attempt: &(u64, u64, Option<u64>)| (attempt.0, attempt.1) == found;
                let at = attempts.iter().skip(from).position(is_found).unwrap_or_else(|| {
                    panic!("{context}: committed {found:?}, of {attempts:?} {floor} are certain")
                });
                from + at + 1
            }
        };
        self.attempts.truncate(index);
        self.published = index;
        self.durable = self.durable.min(index);
        for (offset, _, cut_to) in &mut self.attempts {
            if *offset > end as u64 {
                *cut_to = Some(cut_to.map_or(end as u64, |lowest| lowest.min(end as u64)));
            }
        }
    }
}

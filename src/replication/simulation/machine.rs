//! A machine of the simulation: a disk, and mostly a member of the group that runs on it.
//!
//! Owns: the disk, what its crashes leave, and the run. Must not know: the other machines.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::super::log_key::LogKey;
use super::super::logs::MetaChange;
use super::super::membership::{DirectoryId, GroupId, Membership};
use super::super::shell::{Catalog, Shell};
use crate::broker::Broker;
use crate::clock::ManualClock;
use crate::config::{Durability, TopicConfig};
use crate::error::Result;
use crate::format::{BatchView, TopicId};
use crate::partition::PartitionCore;
use crate::random::Random;
use crate::record::{NodeId, Record};
use crate::storage::disk::{PowerCut, SimulatedDisk};

const DIR: &str = "/srv/data";
/// Small, so that logs have several segments.
const SEGMENT_BYTES: u64 = 16 << 10;

/// The topics that stand for the logs of a group. Those of `__meta` and `__offsets` have one partition.
/// All are there from the beginning, and exist for the group once `__meta` says so.
const META: &str = "meta";
const OFFSETS: &str = "offsets";
/// Of the group's level, and at `Sync`.
pub(super) const TOPICS: [(&str, u32); 2] = [("plain", 2), ("synced", 1)];

/// Which topics of a broker stand for the logs.
#[derive(Clone)]
pub(super) struct Topics {
    broker: Broker,
    counts_synced: bool,
}

impl Topics {
    fn partition_of(&self, name: &str, partition: u32) -> Option<(TopicId, Arc<PartitionCore>)> {
        let topic = self.broker.run().topic(name).ok()?;
        Some((topic.id, Arc::clone(topic.partition(partition).ok()?)))
    }

    pub(super) fn key(&self, name: &str, partition: u32) -> LogKey {
        let (topic, _) = self.partition_of(name, partition).unwrap();
        LogKey::Partition { topic: u128::from_le_bytes(topic.0), partition }
    }

    /// The topic and partition that stand for a log.
    pub(super) fn name(&self, key: LogKey) -> (&'static str, u32) {
        let is_it = |name: &str, number| self.key(name, number) == key;
        match key {
            LogKey::Meta => (META, 0),
            LogKey::Offsets => (OFFSETS, 0),
            LogKey::Partition { partition, .. } => {
                let found = TOPICS
                    .iter()
                    .find(|(name, count)| partition < *count && is_it(name, partition));
                (found.unwrap().0, partition)
            }
        }
    }

    /// The record of `__meta` that creates a log, or deletes it.
    pub(super) fn creation(name: &str, partition: u32) -> String {
        format!("create {name} {partition}")
    }

    pub(super) fn deletion(name: &str, partition: u32) -> String {
        format!("delete {name} {partition}")
    }

    fn change(&self, value: &str) -> Option<MetaChange> {
        let mut words = value.split(' ');
        let kind = words.next()?;
        if kind == "members" {
            let directory = |word: &str| {
                let (node, directory) = word.split_once('=')?;
                Some((NodeId(node.parse().ok()?), DirectoryId(directory.parse().ok()?)))
            };
            let group = GroupId(words.next()?.parse().ok()?);
            return Some(MetaChange::Members(Membership::new(group, words.filter_map(directory))));
        }
        if !matches!(kind, "create" | "delete") {
            return None;
        }
        let (name, partition) = (words.next()?, words.next()?.parse().ok()?);
        let log = self.key(name, partition);
        let counts_synced = self.counts_synced || name == "synced";
        match kind {
            "create" => Some(MetaChange::Created { log, counts_synced }),
            "delete" => Some(MetaChange::Deleted(log)),
            _ => None,
        }
    }
}

impl Catalog for Topics {
    fn counts_synced(&self) -> bool {
        self.counts_synced
    }

    fn partition(&self, key: LogKey) -> Option<(TopicId, Arc<PartitionCore>)> {
        let (name, partition) = self.name(key);
        self.partition_of(name, partition)
    }

    fn changes(&self, batches: &[u8]) -> Vec<(u64, MetaChange)> {
        let (mut changes, mut rest) = (Vec::new(), batches);
        while let Some(view) = BatchView::trusted(rest).filter(|_| !rest.is_empty()) {
            for record in view.records() {
                let value = std::str::from_utf8(record.value.unwrap_or_default()).unwrap();
                changes.extend(self.change(value).map(|change| (record.offset, change)));
            }
            rest = &rest[view.bytes().len()..];
        }
        changes
    }

    fn append_membership(&self, membership: &Membership) -> Result<()> {
        let each = membership
            .directories()
            .map(|(node, directory)| format!(" {}={}", node.0, directory.0));
        let group = membership.group().0;
        let value = format!("members {group}{}", each.collect::<String>());
        self.broker.producer().enqueue(Record::to(META).value(&value)).map(drop)
    }
}

/// What a machine is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Make {
    pub(super) node: NodeId,
    pub(super) members: u64,
    pub(super) durability: Durability,
}

pub(super) struct Machine {
    make: Make,
    pub(super) disk: SimulatedDisk,
    pub(super) clock: ManualClock,
    /// `None` while it is down.
    pub(super) run: Option<Run>,
    /// How often its disk was replaced by an empty one.
    wipes: u64,
}

pub(super) struct Run {
    pub(super) broker: Broker,
    pub(super) topics: Topics,
    pub(super) shell: Shell<Topics>,
}

impl Machine {
    pub(super) fn new(make: Make, random: &mut Random) -> Self {
        let clock = ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
        let mut machine = Self { make, disk: SimulatedDisk::new(), clock, run: None, wipes: 0 };
        machine.format(random);
        machine
    }

    /// An empty disk, and the topics on it.
    fn format(&mut self, random: &mut Random) {
        self.disk = SimulatedDisk::with_seed(random.next());
        // The same seed everywhere gives the same topics.
        let broker = self.open_broker(1).unwrap();
        for (name, partitions) in [(META, 1), (OFFSETS, 1)].into_iter().chain(TOPICS) {
            let config = TopicConfig::new(partitions).segment_bytes(SEGMENT_BYTES);
            let config =
                if name == "synced" { config.durability(Durability::Sync) } else { config };
            broker.ensure_topic(name, config).unwrap();
        }
        broker.close().unwrap();
    }

    fn open_broker(&self, seed: u64) -> Result<Broker> {
        Broker::builder()
            .disk(Arc::new(self.disk.clone()), Path::new(DIR))
            .clock(self.clock.clone())
            .durability(self.make.durability)
            .background(false)
            .seed(seed)
            .open()
    }

    /// Somebody opens the directory without the member, and closes it.
    pub(super) fn open_and_close(&self) {
        self.open_broker(2).unwrap().close().unwrap();
    }

    /// Begins a run.
    pub(super) fn start(&mut self, random: &mut Random) -> Result<()> {
        let broker = self.open_broker(random.next())?;
        let counts_synced = self.make.durability == Durability::Sync;
        let topics = Topics { broker: broker.clone(), counts_synced };
        let listed = (0..self.make.members).map(NodeId).collect();
        let (node, wipes) = (self.make.node, self.wipes);
        let directory = || u128::from(node.0 + 10 * wipes + 1);
        let shell = Shell::open(broker.clone(), topics.clone(), node, listed, directory)?;
        self.run = Some(Run { broker, topics, shell });
        Ok(())
    }

    /// Ends the run: the process dies, or the machine loses power.
    pub(super) fn crash(&mut self, cut: Option<PowerCut>, random: &mut Random) {
        // What the end of the broker does comes after the crash.
        let disk = match cut {
            Some(cut) => self.disk.power_cut(&mut || random.next(), cut),
            None => self.disk.kill9(),
        };
        self.run = None;
        self.disk = disk;
    }

    /// The disk is lost; the machine comes back with an empty one.
    pub(super) fn wipe(&mut self, random: &mut Random) {
        self.run = None;
        self.wipes += 1;
        self.format(random);
    }

    pub(super) fn wipes(&self) -> u64 {
        self.wipes
    }

    /// Changes the last byte that was written of the member's notes.
    pub(super) fn tear_notes(&self) {
        let dir = Path::new(DIR).join("__local");
        let paths = self.disk.paths().into_iter().filter(|path| path.starts_with(&dir));
        let written = |path: &PathBuf| {
            let bytes = self.disk.read(path).unwrap();
            bytes.iter().rposition(|byte| *byte != 0)
        };
        let mut ends = paths.filter_map(|path| Some((path.clone(), written(&path)?)));
        let (path, at) = ends.next_back().unwrap();
        self.disk.corrupt(&path, at as u64, 1).unwrap();
    }

    /// Changes a byte of the first file of a partition.
    pub(super) fn rot_at(&self, name: &str, partition: u32, position: u64) {
        let dir = Path::new(DIR).join(name).join(partition.to_string());
        let paths = self.disk.paths();
        let first = paths.iter().find(|path| path.starts_with(&dir)).unwrap();
        self.disk.corrupt(first, position, 1).unwrap();
    }

    /// Changes a byte of a log that is not in its last segment, if the machine runs: what is at the end
    /// may be torn.
    pub(super) fn rot(&self, name: &str, partition: u32, random: &mut Random) -> bool {
        let run = self.run.as_ref();
        let core = run.and_then(|run| run.topics.partition_of(name, partition));
        let Some((_, core)) = core else { return false };
        let mut segments = core.log().segments().all();
        segments.pop();
        if segments.is_empty() {
            return false;
        }
        let path = random.pick(&segments).path.clone();
        let length = self.disk.read(&path).unwrap().len() as u64;
        // The beginning of a file says where its batches are, and of which epoch.
        let within = if random.below(2) == 0 { length } else { length.min(300) };
        self.disk.corrupt(&path, random.below(within), 1 << random.below(8)).unwrap();
        true
    }
}

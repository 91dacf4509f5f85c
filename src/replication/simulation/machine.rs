//! A machine of the simulation: a disk, and mostly a member of the group that runs on it.
//!
//! Owns: the disk, what its crashes leave, and the run. Must not know: the other machines.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::super::catalog::EngineCatalog;
use super::super::log_key::LogKey;
use super::super::shell::{Catalog, Shell};
use super::trouble::key_of;
use crate::broker::Broker;
use crate::clock::{Clock, ManualClock};
use crate::config::{Durability, TimestampType};
use crate::error::{Error, Result};
use crate::format::SegmentHeader;
use crate::partition::PartitionCore;
use crate::partition::append::AppendOptions;
use crate::partition::encode::{Encoder, RecordRules};
use crate::partition::leadership::{Leadership, LeadershipTerms};
use crate::partition::replica::{Fed, Replica};
use crate::random::Random;
use crate::record::{LeaderEpoch, NodeId, Record};
use crate::storage::disk::{PowerCut, SimulatedDisk};
use crate::topic::Partition;

const DIR: &str = "/srv/data";
/// What the clocks show first; records are of that time.
const BEGINS_AT: u64 = 1_000_000_000;
/// Small, so that logs have several segments.
pub(super) const SEGMENT_BYTES: u64 = 16 << 10;

/// The topics that a group may have, each with the partitions that it is created with: of the group's
/// level, at `Sync`, and one that comes and goes.
pub(super) const TOPICS: [(&str, u32); 3] = [("plain", 2), ("synced", 1), ("passing", 1)];
/// The keys of records in a topic that is compacted.
pub(super) const KEYS: [&str; 4] = ["k0", "k1", "k2", "k3"];
/// How many partitions a topic grows to.
pub(super) const PARTITIONS_MAX: u32 = 3;

/// Where the batches of a file begin.
pub(super) const FIRST_BATCH: u64 = SegmentHeader::END_POSITION as u64;

const TERMS: LeadershipTerms =
    LeadershipTerms { ack_timeout: Duration::from_secs(30), max_uncommitted_bytes: u64::MAX };

const RULES: RecordRules = RecordRules {
    record_bytes_max: u32::MAX,
    timestamps: TimestampType::CreateTime,
    needs_key: false,
};

/// What a machine is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Make {
    pub(super) node: NodeId,
    pub(super) members: u64,
    pub(super) durability: Durability,
}

pub(super) struct Machine {
    pub(super) make: Make,
    pub(super) disk: SimulatedDisk,
    pub(super) clock: ManualClock,
    /// `None` while it is down.
    pub(super) run: Option<Run>,
    /// How often its disk was replaced by an empty one.
    wipes: u64,
    /// How often it was started, from whatever directory.
    starts: u32,
    /// Its disk has room for little, or for nothing.
    pub(super) is_full: bool,
    /// A call of its disk fails.
    pub(super) is_failing: bool,
    /// What has changed at the end of a log looks like what a loss of power leaves there.
    pub(super) keeps_power: bool,
}

pub(super) struct Run {
    pub(super) broker: Broker,
    pub(super) catalog: EngineCatalog,
    pub(super) shell: Shell<EngineCatalog>,
    clock: ManualClock,
    /// A sync has failed: the run is to end.
    pub(super) is_broken: bool,
}

impl Run {
    pub(super) fn leads(&self) -> Option<LeaderEpoch> {
        self.shell.member().role().leads()
    }

    pub(super) fn keys(&self) -> Vec<LogKey> {
        self.shell.member().state().logs().iter().map(|(key, _)| key).collect()
    }

    /// Also of those whose deletion is not certain.
    fn all_keys(&self) -> Vec<LogKey> {
        self.shell.member().state().logs().with_deleted().map(|(key, _)| key).collect()
    }

    pub(super) fn core(&self, key: LogKey) -> Option<Arc<PartitionCore>> {
        self.catalog.partition(key).map(|(_, core)| core)
    }

    /// The log of a partition, if the topic can be used.
    pub(super) fn key(&self, name: &str, partition: u32) -> Option<LogKey> {
        let topic = self.broker.run().topic(name).ok()?;
        topic.partition(partition).ok()?;
        Some(LogKey::Partition { topic: u128::from_le_bytes(topic.id.0), partition })
    }

    /// The same, as readers have it.
    pub(super) fn reader(&self, key: LogKey) -> Option<Partition> {
        let core = self.core(key)?;
        let topic = self.broker.topic(&core.origin.topic).ok()?;
        topic.partition(core.origin.partition).ok()
    }

    /// Appends a batch, as a caller who waits for nobody.
    pub(super) fn append(&self, key: LogKey, values: &[String]) -> Result<()> {
        let core = self.core(key).ok_or(Error::Closed)?;
        let record = |value| match key_of(value) {
            Some(key) => Record::new().key(key).value(value),
            None => Record::new().value(value),
        };
        let records: Vec<_> = values.iter().map(|value| record(value)).collect();
        let mut encoder = Encoder::take();
        let now = self.clock.now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let now = u64::try_from(now.as_millis()).unwrap();
        let mut batch = encoder.encode(&records, RULES, now)?;
        let level = Some(&Durability::Os);
        core.append(&mut batch, &AppendOptions { level, ..AppendOptions::default() }).map(drop)
    }

    /// Takes note of everything that has happened in the engine.
    pub(super) fn notice_all(&mut self) {
        while self.shell.prepare_more() {}
        for key in self.all_keys() {
            self.shell.notice(key);
        }
    }
}

impl Machine {
    pub(super) fn new(make: Make, random: &mut Random) -> Self {
        let clock = ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_millis(BEGINS_AT));
        let mut machine = Self {
            make,
            disk: SimulatedDisk::new(),
            clock,
            run: None,
            wipes: 0,
            starts: 0,
            is_full: false,
            is_failing: false,
            keeps_power: false,
        };
        machine.format(random);
        machine
    }

    fn format(&mut self, random: &mut Random) {
        self.disk = SimulatedDisk::with_seed(random.next());
    }

    fn open_broker(&self, seed: u64) -> Result<Broker> {
        Broker::builder()
            .disk(Arc::new(self.disk.clone()), Path::new(DIR))
            .clock(self.clock.clone())
            .durability(self.make.durability)
            .background(false)
            .seed(seed)
            .leadership(Arc::new(Leadership::new(TERMS)))
            .open()
    }

    /// Somebody opens the directory, and closes it before the member begins.
    pub(super) fn open_and_close(&self) {
        self.open_broker(2).unwrap().close().unwrap();
    }

    /// Begins a run.
    pub(super) fn start(&mut self, random: &mut Random) -> Result<()> {
        let broker = self.open_broker(random.next())?;
        let catalog = EngineCatalog::new(&broker);
        let listed = (0..self.make.members).map(NodeId).collect();
        let (node, wipes) = (self.make.node, self.wipes);
        let directory = || u128::from(node.0 + 10 * wipes + 1);
        let own = EngineCatalog::new(&broker);
        self.starts += 1;
        let drawn = (directory, self.starts);
        let shell = Shell::open(broker.clone(), own, node, listed, drawn)?;
        self.run =
            Some(Run { broker, catalog, shell, clock: self.clock.clone(), is_broken: false });
        Ok(())
    }

    /// Ends the run: the process dies, or the machine loses power.
    pub(super) fn crash(&mut self, cut: Option<PowerCut>, random: &mut Random) {
        // What the end of the broker does comes after the crash.
        let disk = match cut.filter(|_| !self.keeps_power) {
            Some(cut) => self.disk.power_cut(&mut || random.next(), cut),
            None => self.disk.kill9(),
        };
        self.run = None;
        self.disk = disk;
        // Before the next run somebody makes room.
        self.mend();
    }

    /// Its disk has room, and no call fails any more.
    pub(super) fn mend(&mut self) {
        self.limit(None);
        self.disk.heal();
        self.is_failing = false;
    }

    /// The run ends as it should. Then the machine may lose power. False if it had not everything on
    /// disk.
    pub(super) fn end(&mut self, cut: Option<PowerCut>, random: &mut Random) -> bool {
        let Some(run) = self.run.take() else { return false };
        let is_clean = run.broker.clone().close().is_ok();
        drop(run);
        if let Some(cut) = cut {
            self.disk = self.disk.power_cut(&mut || random.next(), cut);
        }
        is_clean
    }

    /// The disk takes so many more bytes; `None`: any number.
    pub(super) fn limit(&mut self, more: Option<u64>) {
        let length = |path: &PathBuf| self.disk.read(path).map_or(0, |bytes| bytes.len() as u64);
        let used: u64 = self.disk.paths().iter().map(length).sum();
        self.disk.limit_capacity(more.map(|more| used + more));
        self.is_full = more.is_some();
    }

    /// Changes a byte of the last segment of a log, before the last batch.
    pub(super) fn rot_in_tail(&mut self, key: LogKey, random: &mut Random) -> bool {
        let core = self.run.as_ref().and_then(|run| run.core(key));
        let Some(core) = core else { return false };
        let last_batch = match Replica::of(&core).read(core.log_end().saturating_sub(1), 1) {
            Ok(Fed::Batches(portions)) => portions.last().map_or(0, |it| it.bytes().len()),
            _ => 0,
        };
        let segments = core.log().segments().all();
        let Some(segment) = segments.last().filter(|_| last_batch > 0) else { return false };
        let before = segment.end().saturating_sub(last_batch) as u64;
        if before <= FIRST_BATCH {
            return false;
        }
        let at = FIRST_BATCH + random.below(before - FIRST_BATCH);
        self.disk.corrupt(&segment.path, at, 1 << random.below(8)).unwrap();
        self.keeps_power = true;
        true
    }

    /// What the disk has, as a copy of it.
    pub(super) fn copy(&self) -> SimulatedDisk {
        self.disk.kill9()
    }

    /// The directory is put back from a copy.
    pub(super) fn put_back(&mut self, copy: SimulatedDisk) {
        self.run = None;
        self.disk = copy;
        // The next number that a directory draws is another one.
        self.wipes += 1;
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
        let core = run.and_then(|run| run.core(run.key(name, partition)?));
        let Some(core) = core else { return false };
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

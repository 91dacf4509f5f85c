//! One partition on a disk that refuses and lies: waiting, poisoning, intervals.
//!
//! Goal: each waiter gets the answer that the disk gave, once and for good. Without threads,
//! except where waiting threads are what is tested. Not covered here: every interleaving of group
//! commit and of waiting readers (the models in [`group_commit`](super::group_commit) and
//! [`waiters`](super::waiters)), crashes (`broker::tests`, `log::tests`).

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::{Duration, SystemTime};

use super::append::{Accepted, AppendOptions, Fence};
use super::background::Want;
use super::encode::{Encoder, RecordRules};
use super::lineage::Lineage;
use super::*;
use crate::clock::{ManualClock, RunClock, real_now};
use crate::config::{RecoveryPolicy, TimestampType};
use crate::format::TopicId;
use crate::log::budget::SpaceBudget;
use crate::log::create::Writer;
use crate::log::cursor::{FetchLimits, Fetched};
use crate::log::maps::MapBudget;
use crate::log::open::{Known, open_log};
use crate::log::producers::Sequence;
use crate::log::{LogEnv, LogIdentity, LogOptions, ProducerRequest};
use crate::record::Record;
use crate::storage::disk::{Disk, Fault, HookedDisk, Operation, PowerCut, Side, SimulatedDisk};
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Mutex, Ordering};

mod appends;
mod compaction;
mod panics;
mod paths;
#[cfg(feature = "replication")]
mod replica;
mod state_log;
mod syncs;
#[cfg(feature = "replication")]
mod truncation;
#[cfg(feature = "replication")]
mod walk;
#[cfg(feature = "replication")]
mod watermark;

const DIR: &str = "/t";

/// Background work that is noted and left to the test.
#[derive(Debug, Default)]
struct Noted {
    requests: Mutex<Vec<Work>>,
    is_running: AtomicBool,
}

impl Background for Noted {
    fn request(&self, _: &Arc<PartitionCore>, work: Work) {
        self.requests.lock().push(work);
    }

    fn is_running(&self) -> bool {
        self.is_running.load(Ordering::Relaxed)
    }

    fn make_room(&self, _: &Arc<PartitionCore>, _: &mut Want) -> Result<bool> {
        Ok(false)
    }
}

struct Setup {
    disk: SimulatedDisk,
    clock: ManualClock,
    noted: Arc<Noted>,
    core: Arc<PartitionCore>,
}

impl Setup {
    fn new(durability: Durability) -> Self {
        let disk = SimulatedDisk::new();
        disk.create_dir(Path::new(DIR)).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let log = Log::create(&env(&disk), identity(), OPTIONS, 0).unwrap();
        Self::with_log(disk, log, durability)
    }

    /// The partition in a new run, after a crash.
    fn recovered(disk: SimulatedDisk, same_boot: bool) -> Self {
        let known = Known {
            checkpoint: None,
            clean: false,
            same_boot,
            policy: RecoveryPolicy::default(),
            read_only: false,
            needs_all: false,
            proved: 0,
            log_start: None,
            now: u64::MAX,
        };
        let (log, _) = open_log(&env(&disk), identity(), OPTIONS, &known).unwrap();
        Self::with_log(disk, log, Durability::Sync)
    }

    fn with_log(disk: SimulatedDisk, log: Log, durability: Durability) -> Self {
        let clock = ManualClock::new(SystemTime::UNIX_EPOCH);
        let noted = Arc::new(Noted::default());
        let (shared_clock, background) =
            (RunClock::begin(Arc::new(clock.clone())), Arc::clone(&noted));
        let core = PartitionCore::new(
            log,
            Lineage::default(),
            durability,
            &Lead::none(),
            shared_clock,
            background,
            None,
        );
        Self { disk, clock, noted, core }
    }

    /// A partition on a disk that calls back around each operation.
    fn hooked(hook: impl Fn(Operation, Side) + Send + Sync + 'static) -> Self {
        let disk = SimulatedDisk::new();
        disk.create_dir(Path::new(DIR)).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let hooked = HookedDisk::new(Arc::new(disk.clone()), hook);
        let log = Log::create(&env_on(Arc::new(hooked), 1), identity(), OPTIONS, 0).unwrap();
        Self::with_log(disk, log, Durability::Sync)
    }

    fn append(&self, value: &str) -> Result<u64> {
        append(&self.core, value, &AppendOptions::default())
    }

    fn fail_next_sync(&self) {
        self.disk.inject(Fault::once(Operation::Sync, ErrorKind::Other));
    }

    /// What can be read, to the end that is visible.
    fn values(&self) -> Vec<String> {
        let visible_end = self.core.visible_end(Visibility::Published);
        if visible_end == self.core.log_start() {
            return Vec::new();
        }
        let mut cursor = self.core.reader().cursor_at(self.core.log_start()).unwrap();
        let limits = FetchLimits { records: usize::MAX, bytes: usize::MAX, visible_end };
        let mut fetched = Fetched::default();
        self.core.reader().fetch(&mut cursor, &limits, &mut fetched).unwrap();
        let batch = crate::message::Batch::new(fetched.ranges);
        batch.iter().map(|it| String::from_utf8(it.value().unwrap().to_vec()).unwrap()).collect()
    }

    fn requests(&self) -> Vec<Work> {
        std::mem::take(&mut *self.noted.requests.lock())
    }
}

const OPTIONS: LogOptions =
    LogOptions { segment_bytes: 256 << 10, writer: Writer::Pwrite, has_budget: true, features: 0 };
const RULES: RecordRules = RecordRules {
    record_bytes_max: u32::MAX,
    timestamps: TimestampType::CreateTime,
    needs_key: false,
};

fn env(disk: &SimulatedDisk) -> Arc<LogEnv> {
    env_on(Arc::new(disk.clone()), disk.store_points())
}

fn env_on(disk: Arc<dyn Disk>, seed: u64) -> Arc<LogEnv> {
    let counter = AtomicU64::new(seed);
    Arc::new(LogEnv {
        disk,
        copy_reads: false,
        maps: MapBudget::new(8),
        space: SpaceBudget::unlimited(),
        pinned: crate::log::pinned::PinnedMaps::new(),
        spare: None,
        process: Arc::new(crate::storage::process::Process::current()),
        trace: crate::trace::Outbox::default(),
        #[cfg(feature = "testing")]
        seams: crate::seams::Seams::default(),
        random: Box::new(move || counter.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9)),
    })
}

fn identity() -> LogIdentity {
    let origin = Arc::new(TopicPartition::from(("t", 0)));
    LogIdentity { origin, topic_id: TopicId([1; 16]), dir: DIR.into() }
}

/// Returns the offset after the record.
fn append(core: &Arc<PartitionCore>, value: &str, options: &AppendOptions<'_>) -> Result<u64> {
    let level = *options.level.unwrap_or(&core.durability);
    let stamp = core.log().stamp(level, options.producer.is_some())?;
    let options = AppendOptions { stamp, ..*options };
    let mut encoder = Encoder::take();
    let mut batch = encoder.encode([&Record::new().value(value)], RULES, 0)?;
    match core.append(&mut batch, &options)? {
        Accepted::Appended { next_offset, .. } => Ok(next_offset),
        other @ Accepted::Duplicate { .. } => panic!("{other:?}"),
    }
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn waker() -> (Arc<Woken>, Waker) {
    let woken = Arc::new(Woken::default());
    (Arc::clone(&woken), Waker::from(woken))
}

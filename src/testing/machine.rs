//! What a crash of the broker does not take: the disk, the clock and the settings.
//!
//! Owns: how a test broker is opened. Must not know: what the test does with it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::damage;
use super::faults::{UnmetFaults, Watch};
use crate::broker::{Broker, BrokerBuilder};
use crate::clock::ManualClock;
use crate::error::Result;
use crate::random::Random;
use crate::record::TopicPartition;
use crate::seams::{Script, Seam, Seams, Site};
use crate::storage::disk::{PowerCut, SimulatedDisk};

/// What a test's clock shows first: the beginning of 2024. It is the same in every run, as all that
/// follows from it.
const BEGIN: Duration = Duration::from_secs(1_704_067_200);

/// The seed of the random numbers of a broker that is given none.
const SEED: u64 = 1;

type Settings = Arc<dyn Fn(BrokerBuilder) -> BrokerBuilder + Send + Sync>;

/// See the module's documentation. Clones are the same machine.
#[derive(Clone)]
pub(super) struct Machine {
    pub(super) clock: ManualClock,
    disk: SimulatedDisk,
    settings: Settings,
    /// The faults that the test has set.
    watch: Arc<Watch>,
}

impl Machine {
    pub(super) fn new(
        settings: impl Fn(BrokerBuilder) -> BrokerBuilder + Send + Sync + 'static,
    ) -> Self {
        Self::on(&new_clock(), settings)
    }

    /// A machine whose time is that of others.
    pub(super) fn on(
        clock: &ManualClock,
        settings: impl Fn(BrokerBuilder) -> BrokerBuilder + Send + Sync + 'static,
    ) -> Self {
        Self {
            watch: Arc::new(Watch(Script::new(clock))),
            clock: clock.clone(),
            disk: SimulatedDisk::new(),
            settings: Arc::new(settings),
        }
    }

    /// What the test has arranged.
    pub(super) fn script(&self) -> &Arc<Script> {
        &self.watch.0
    }

    /// Says which faults were never met, and forgets them.
    pub(super) fn check(&self) -> std::result::Result<(), UnmetFaults> {
        self.watch.check()
    }

    /// Opens the broker of this machine.
    pub(super) fn open(&self) -> Result<Broker> {
        let (disk, seams) = (Arc::new(self.disk.clone()), Seams::new(self.script()));
        let open = || {
            (self.settings)(Broker::builder().seed(SEED))
                .test_disk(disk, seams.clone())
                .clock(self.clock.clone())
                .background(false)
                .open()
        };
        seams.around(|| Site::of(Seam::Open), open)
    }

    /// The disk, for damage.
    pub(super) fn disk(&self) -> &SimulatedDisk {
        &self.disk
    }

    /// Lets this many changes reach the disk; every later call of it fails.
    pub(super) fn stop_after(&self, changes: u64) {
        self.disk.crash_at(self.disk.store_points().saturating_add(changes));
    }

    pub(super) fn has_stopped(&self) -> bool {
        self.disk.is_off()
    }

    /// From now on nothing reaches the disk, and every call of it fails.
    pub(super) fn stop(&self) {
        self.disk.crash_at(0);
    }

    /// The machine after the death of the process: what was written is there.
    pub(super) fn after_kill9(self) -> Self {
        self.script().note_crash("kill9()".to_owned());
        Self { disk: self.disk.kill9(), ..self }
    }

    /// The machine with an empty disk.
    #[cfg(feature = "replication")]
    pub(super) fn with_new_disk(self) -> Self {
        Self { disk: SimulatedDisk::new(), ..self }
    }

    /// The machine after a power cut: what was synced is there, and of the rest what the seed says.
    pub(super) fn after_power_cut(self, seed: u64) -> Self {
        self.script().note_crash(format!("power_cut({seed})"));
        let mut random = Random::new(seed);
        let mut next = || random.next();
        let how = PowerCut::any(&mut next);
        Self { disk: self.disk.power_cut(&mut next, how), ..self }
    }

    /// The machine after the worst power cut: only what was synced is there.
    pub(super) fn after_worst_cut(self) -> Self {
        self.script().note_crash("lose_unsynced()".to_owned());
        self.cut_worst()
    }

    fn cut_worst(self) -> Self {
        let mut random = Random::new(SEED);
        Self { disk: self.disk.power_cut(&mut || random.next(), PowerCut::WORST), ..self }
    }

    /// The machine after a power cut that has taken what was not synced of one partition, and
    /// nothing else.
    pub(super) fn after_lost_tail(self, partition: &TopicPartition) -> Self {
        self.script().note_crash(format!("lose_tail({partition})"));
        damage::sync_all_but(&self.disk, partition);
        self.cut_worst()
    }
}

/// A clock that shows what a test's clock shows first.
pub(super) fn new_clock() -> ManualClock {
    ManualClock::new(SystemTime::UNIX_EPOCH.checked_add(BEGIN).unwrap_or(SystemTime::UNIX_EPOCH))
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine")
            .field("clock", &self.clock)
            .field("crashes", &self.script().crashes())
            .finish_non_exhaustive()
    }
}

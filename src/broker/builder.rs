//! The settings of a broker before it is open.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "replication")]
use super::attachment::Attachment;
use super::context::{Context, Settings};
use super::handle::Broker;
use super::internal_logs::LOCAL;
use super::open::Opening;
use super::refresh::settle_opening;
use super::workers::{Spawn, spawn_thread};
use crate::clock::{Clock, RunClock, SystemClock};
use crate::config::{Durability, ReadMode, RecoveryPolicy, TopicConfig, WhenFull};
use crate::error::{Error, Result};
use crate::format::partition_dir_name;
use crate::log::LogEnv;
use crate::log::budget::SpaceBudget;
use crate::log::compaction::spare::CompactionSpare;
use crate::log::maps::MapBudget;
use crate::log::pinned::PinnedMaps;
#[cfg(feature = "replication")]
use crate::partition::leadership::Leadership;
use crate::random::EngineRandom;
#[cfg(feature = "testing")]
use crate::seams::{self, Seams};
use crate::storage::disk::{Disk, MemoryDisk, RealDisk};
use crate::storage::lock::DEFAULT_WAIT;
use crate::storage::process::Process;
use crate::trace::Outbox;

/// LIMIT: what topics take in memory unless they are given more: room for sixteen full segments,
/// and less than what a process can be expected to spare for a bus.
const MEMORY_BYTES: u64 = 1 << 30;

/// Where a broker keeps its data.
#[derive(Debug, Clone)]
enum Storage {
    Dir(PathBuf),
    Memory,
}

/// What a broker runs on.
struct Machine {
    disk: Arc<dyn Disk>,
    #[cfg(feature = "testing")]
    seams: Seams,
}

impl Machine {
    fn real(in_memory: bool) -> Self {
        if in_memory { Self::with(MemoryDisk::new()) } else { Self::with(RealDisk::new()) }
    }

    fn with(disk: impl Disk + 'static) -> Self {
        Self {
            disk: Arc::new(disk),
            #[cfg(feature = "testing")]
            seams: Seams::default(),
        }
    }
}

/// Settings of a broker; made by [`Broker::builder`].
///
/// ```
/// # use logpond::{Broker, Durability, TopicConfig, WhenFull};
/// # use std::time::Duration;
/// # let directory = tempfile::tempdir().unwrap();
/// let broker = Broker::builder()
///     .data_dir(directory.path().join("queue"))
///     .durability(Durability::Interval { every: Duration::from_millis(50), bytes: 1 << 20 })
///     .max_total_bytes(10 << 30)
///     .when_full(WhenFull::DropOldest)
///     .topic_defaults(TopicConfig::new(1).segment_bytes(16 << 20))
///     .open()?;
/// broker.close()?;
/// # Ok::<(), logpond::Error>(())
/// ```
#[must_use]
pub struct BrokerBuilder {
    storage: Option<Storage>,
    /// `None`: the real one, or memory.
    machine: Option<Machine>,
    durability: Durability,
    clock: Arc<dyn Clock>,
    background: bool,
    topic_defaults: TopicConfig,
    recovery: RecoveryPolicy,
    read_mode: ReadMode,
    read_only: bool,
    seed: Option<u64>,
    /// `None`: as much as there is on the disk, [`MEMORY_BYTES`] in memory.
    max_total_bytes: Option<u64>,
    when_full: WhenFull,
    lock_wait: Duration,
    spawn: Arc<Spawn>,
    group_expiry: Option<Duration>,
    /// Whether the internal logs have a reserve on a simulated disk, too.
    reserve: bool,
    #[cfg(feature = "replication")]
    member: Option<Member>,
}

/// What makes a broker a member of a replicated group.
#[cfg(feature = "replication")]
enum Member {
    Beside(Box<dyn Attachment>),
    /// A test that leads by hand.
    #[cfg(test)]
    ByHand(Arc<Leadership>),
}

#[cfg(feature = "replication")]
impl Member {
    fn leadership(&self) -> Arc<Leadership> {
        match self {
            Self::Beside(attachment) => attachment.leadership(),
            #[cfg(test)]
            Self::ByHand(leadership) => Arc::clone(leadership),
        }
    }
}

impl Default for BrokerBuilder {
    fn default() -> Self {
        Self {
            storage: None,
            machine: None,
            durability: Durability::default(),
            clock: Arc::new(SystemClock::new()),
            background: true,
            topic_defaults: TopicConfig::new(1),
            recovery: RecoveryPolicy::default(),
            read_mode: ReadMode::default(),
            read_only: false,
            seed: None,
            max_total_bytes: None,
            when_full: WhenFull::default(),
            lock_wait: DEFAULT_WAIT,
            spawn: Arc::new(spawn_thread),
            group_expiry: None,
            reserve: false,
            #[cfg(feature = "replication")]
            member: None,
        }
    }
}

impl Broker {
    /// Opens the broker of a directory with the default settings. Creates the directory, with
    /// missing parents, if it does not exist.
    ///
    /// # Errors
    ///
    /// - [`Error::Locked`]: another broker has the directory open for longer than
    ///   [`lock_wait`](BrokerBuilder::lock_wait), 250 ms by default.
    /// - [`Error::Corrupt`]: one of the logs in which the broker stores its own state is damaged.
    ///   [`salvage`](crate::salvage) copies the readable records into a new directory. Damage in
    ///   topics does not fail the opening; [`recovery`](Self::recovery) lists it.
    /// - [`Error::UnsupportedVersion`]: a newer build wrote the directory.
    /// - [`Error::Config`]: every user of the machine may write to the directory.
    /// - [`Error::StorageFull`], [`Error::ReadOnly`], [`Error::Io`]: the file system refused a
    ///   call, or a thread could not be started.
    ///
    /// # Durability
    ///
    /// On return the directory, and everything that was repaired after a crash, are durable.
    ///
    /// # Blocking
    ///
    /// For the disk. If another broker has the directory open, up to
    /// [`lock_wait`](BrokerBuilder::lock_wait), and up to a second if that broker is in this
    /// process and is being closed.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::builder().data_dir(dir).open()
    }

    /// Opens a broker on heap memory: the same engine without files. Its records are lost when its
    /// last handle is dropped.
    ///
    /// All topics together use at most 1 GiB, so that a slow consumer cannot make the process use
    /// up its memory. At that limit appends return [`Error::StorageFull`].
    /// [`max_total_bytes`](BrokerBuilder::max_total_bytes) sets another limit, and
    /// [`when_full`](BrokerBuilder::when_full) what an append does at the limit.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if a thread cannot be started or memory cannot be allocated.
    pub fn in_memory() -> Result<Self> {
        Self::builder().in_memory().open()
    }

    /// Returns the settings of a broker that is not open yet. Finish with
    /// [`open`](BrokerBuilder::open).
    pub fn builder() -> BrokerBuilder {
        BrokerBuilder::default()
    }
}

impl BrokerBuilder {
    /// Keeps the data in this directory. It is created, with missing parents, if it does not exist.
    /// Directories get mode 0700 and files 0600, less what the umask takes.
    ///
    /// A directory that every user may write to is refused with [`Error::Config`]: anybody could
    /// put files where the broker looks for its own. Name a directory below it instead, for example
    /// below the root of a volume. The path may lead through symbolic links, but nothing inside the
    /// directory may be one.
    ///
    /// A segment file that has a second hard link when the broker is opened (a copy by `cp -al`) is
    /// read and never written to; appends continue in a new segment. A hard link that is made while
    /// the broker is open shares later appends.
    #[doc(alias = "log.dirs")]
    pub fn data_dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.storage = Some(Storage::Dir(dir.as_ref().to_path_buf()));
        self
    }

    /// Keeps the data on the heap, at most 1 GiB of it unless
    /// [`max_total_bytes`](Self::max_total_bytes) sets another limit. If
    /// [`data_dir`](Self::data_dir) is called too, the later call wins.
    pub fn in_memory(mut self) -> Self {
        self.storage = Some(Storage::Memory);
        self
    }

    /// Sets which failures a record survives once its append has returned, for topics and producers
    /// that have no level of their own, and for commits. Default [`Durability::Sync`].
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Sets the clock of the broker: for timestamps, ages of records, intervals and deadlines of
    /// groups. Timeouts of blocking calls are real time. Default [`SystemClock`].
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Sets whether the broker has background threads. Default true. Without them,
    /// [`Broker::tick`] does their work, and the broker is deterministic, for tests.
    pub fn background(mut self, background: bool) -> Self {
        self.background = background;
        self
    }

    /// Sets default settings for topics that are created later: they replace each setting that has
    /// the crate's default value. The number of partitions is ignored.
    pub fn topic_defaults(mut self, config: TopicConfig) -> Self {
        self.topic_defaults = config;
        self
    }

    /// Sets what [`open`](Self::open) does if it finds damage. Default
    /// [`RecoveryPolicy::CutTornTail`].
    pub fn recovery(mut self, policy: RecoveryPolicy) -> Self {
        self.recovery = policy;
        self
    }

    /// Sets whether files are read through memory maps or copied. Default [`ReadMode::Mapped`].
    pub fn read_mode(mut self, mode: ReadMode) -> Self {
        self.read_mode = mode;
        self
    }

    /// Sets how many bytes the files of all topics may take together; `u64::MAX` is no limit. The
    /// default is no limit in a directory, and 1 GiB [in memory](Self::in_memory).
    ///
    /// Allocated bytes count. Space is allocated before it is written: 64 KiB in a new segment, up
    /// to 2 MiB at a time in a larger one, and the same in the next segment, which is prepared
    /// early. The logs in which the broker stores its own state do not count, nor do removed files
    /// that messages still hold.
    ///
    /// [`when_full`](Self::when_full) sets what an append does at the limit; with
    /// [`WhenFull::Wait`] a topic is a bounded channel. A directory that has more bytes than the
    /// limit can be opened.
    pub fn max_total_bytes(mut self, bytes: u64) -> Self {
        self.max_total_bytes = Some(bytes);
        self
    }

    /// Sets what an append does at the limit of [`max_total_bytes`](Self::max_total_bytes). Default
    /// [`WhenFull::Refuse`]. [`open`](Self::open) refuses a [`WhenFull::Wait`] of zero time.
    pub fn when_full(mut self, policy: WhenFull) -> Self {
        self.when_full = policy;
        self
    }

    /// Sets how long [`open`](Self::open) waits if another broker has the directory open, in this
    /// process or another, before it returns [`Error::Locked`]. Default 250 ms. If your service may
    /// start again before its old process has closed the broker, set it to the time that the close
    /// may take. If a broker of this process is being closed, `open` waits at least a second. The
    /// wait is real time, whatever the [`clock`](Self::clock).
    pub fn lock_wait(mut self, wait: Duration) -> Self {
        self.lock_wait = wait;
        self
    }

    /// Sets how long a group is kept that has no member and commits nothing. After that its
    /// committed offsets and subscriptions are deleted, which is counted in
    /// [`Metrics::groups_expired`]; a later consumer begins as in a new group. [`Duration::MAX`]
    /// keeps groups for ever.
    ///
    /// The default is 7 days, or the longest retention of the topics that the group has commits
    /// for, whichever is longer. A group with a commit for a topic that keeps its records for ever
    /// never expires. The time counts from the last commit, or from when the group last had a
    /// member, whichever is later, and also while no broker is open. If the wall clock is ahead
    /// when a broker is opened, groups expire earlier by as much.
    ///
    /// [`Metrics::groups_expired`]: crate::Metrics::groups_expired
    #[doc(alias = "offsets.retention.minutes")]
    pub fn group_expiry(mut self, idle: Duration) -> Self {
        self.group_expiry = Some(idle);
        self
    }

    /// Opens the directory for inspection only. Default false. The broker takes no lock, writes
    /// nothing, maps nothing, and sees at most the records that were published when it was opened,
    /// or when [`Broker::refresh`] was called last.
    /// Calls that write return [`Error::ReadOnly`]. These settings have no effect:
    /// [`background`](Self::background), [`durability`](Self::durability),
    /// [`topic_defaults`](Self::topic_defaults), [`max_total_bytes`](Self::max_total_bytes) and
    /// [`when_full`](Self::when_full).
    ///
    /// Another broker, in this process or another, may write to the directory meanwhile. Files that
    /// it removes are not reported as damage, because a file is looked for a second time before it
    /// is reported as missing. If it removed records by retention, a consumer gets a gap; if it
    /// compacted them, the consumer reads the remaining ones; if it deleted the topic, the consumer
    /// gets [`Error::UnknownTopic`].
    ///
    /// If the other broker is a member of a replicated group, this one also shows records that no
    /// majority has yet. If the group takes them back, open the directory again.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Makes the random numbers of the broker reproducible, for tests. Not for production: they are
    /// part of the checksums of files, and if they can be predicted, a hostile payload could
    /// imitate stored records.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Uses the simulated disk of crash tests instead of a real one.
    #[cfg(test)]
    pub(crate) fn disk(mut self, disk: Arc<dyn Disk>, dir: &Path) -> Self {
        self.machine = Some(Machine {
            disk,
            #[cfg(feature = "testing")]
            seams: Seams::default(),
        });
        self.storage = Some(Storage::Dir(dir.to_path_buf()));
        self
    }

    /// Makes the broker one of a replicated group: the owner of `leadership` says what it may do.
    #[cfg(all(test, feature = "replication"))]
    pub(crate) fn leadership(mut self, leadership: Arc<Leadership>) -> Self {
        self.member = Some(Member::ByHand(leadership));
        self
    }

    /// Has something run beside the broker.
    #[cfg(feature = "replication")]
    pub(crate) fn attach(mut self, attachment: Box<dyn Attachment>) -> Self {
        self.member = Some(Member::Beside(attachment));
        self
    }

    /// Uses the disk of a test broker, and lets the test step in at the seams.
    #[cfg(feature = "testing")]
    pub(crate) fn test_disk(mut self, disk: Arc<dyn Disk>, seams: Seams) -> Self {
        self.machine = Some(Machine { disk, seams });
        self.storage = Some(Storage::Dir(PathBuf::from(seams::DIR)));
        self
    }

    /// How the broker's threads are started.
    #[cfg(test)]
    pub(crate) fn spawn(mut self, spawn: Arc<Spawn>) -> Self {
        self.spawn = spawn;
        self
    }

    /// Has the internal logs keep spare segments on the simulated disk, as on every real one.
    #[cfg(test)]
    pub(crate) fn reserve(mut self) -> Self {
        self.reserve = true;
        self
    }

    /// Refuses settings that cannot work, also with each other.
    fn validate(&self) -> Result<()> {
        self.durability.validate()?;
        self.when_full.validate()?;
        if self.group_expiry.is_some_and(|idle| idle.is_zero()) {
            return Err(Error::config(
                "group_expiry",
                "must be more than zero: a group would expire at once",
            ));
        }
        if self.read_only && matches!(self.storage, Some(Storage::Memory)) {
            return Err(Error::config(
                "read_only",
                "a broker in memory begins empty: there is nothing to inspect",
            ));
        }
        #[cfg(feature = "replication")]
        if let Some(Member::Beside(attachment)) = &self.member {
            attachment.validate()?;
        }
        #[cfg(feature = "replication")]
        if self.read_only && self.member.is_some() {
            return Err(Error::config("replication", "a member of a group writes: not read-only"));
        }
        Ok(())
    }

    /// Opens the broker.
    ///
    /// # Errors
    ///
    /// - [`Error::Config`]: neither [`data_dir`](Self::data_dir) nor [`in_memory`](Self::in_memory)
    ///   was called, a setting has an impossible value, or every user of the machine may write to
    ///   the directory.
    /// - [`Error::Locked`]: another broker has the directory open for longer than
    ///   [`lock_wait`](Self::lock_wait).
    /// - [`Error::Corrupt`]: one of the logs in which the broker stores its own state is damaged,
    ///   or, with [`RecoveryPolicy::Strict`], a partition is damaged or would be cut.
    ///   [`salvage`](crate::salvage) copies the readable records into a new directory.
    /// - [`Error::UnsupportedVersion`]: a newer build wrote the directory.
    /// - [`Error::StorageFull`], [`Error::ReadOnly`], [`Error::Io`]: the file system refused a
    ///   call, or a thread could not be started.
    ///
    /// # Durability
    ///
    /// On return the directory, and everything that was repaired after a crash, are durable.
    ///
    /// # Blocking
    ///
    /// For the disk. If another broker has the directory open, up to
    /// [`lock_wait`](Self::lock_wait), and up to a second if that broker is in this process and is
    /// being closed.
    pub fn open(self) -> Result<Broker> {
        self.validate()?;
        let storage = self
            .storage
            .ok_or_else(|| Error::config("data_dir", "call `data_dir` or `in_memory`"))?;
        let (dir, in_memory) = match storage {
            Storage::Dir(dir) => (dir, false),
            Storage::Memory => (PathBuf::from("/memory"), true),
        };
        let default_limit = if in_memory { MEMORY_BYTES } else { u64::MAX };
        let is_simulated = self.machine.is_some();
        let machine = self.machine.unwrap_or_else(|| Machine::real(in_memory));
        let copy_reads = self.read_only || self.read_mode == ReadMode::Copy;
        let random = Arc::new(EngineRandom::new(self.seed));
        let has_reserve = !in_memory && !self.read_only && (!is_simulated || self.reserve);
        let internal = dir.join(LOCAL.0).join(partition_dir_name(0));
        let env = LogEnv {
            disk: machine.disk,
            copy_reads: copy_reads && !in_memory,
            maps: MapBudget::new(MapBudget::DEFAULT_LIMIT),
            space: SpaceBudget::new(self.max_total_bytes.unwrap_or(default_limit)),
            pinned: PinnedMaps::new(),
            spare: has_reserve.then(|| CompactionSpare::new(&internal)),
            process: Arc::new(Process::current()),
            trace: Outbox::default(),
            #[cfg(feature = "testing")]
            seams: machine.seams,
            random: {
                let random = Arc::clone(&random);
                Box::new(move || random.next())
            },
        };
        let settings = Settings {
            dir,
            in_memory,
            has_reserve,
            has_lock: !in_memory && !is_simulated && !self.read_only,
            durability: self.durability,
            topic_defaults: self.topic_defaults,
            read_only: self.read_only,
            recovery: self.recovery,
            when_full: self.when_full,
            group_expiry: self.group_expiry,
        };
        let clock = RunClock::begin(self.clock);
        let opening = Opening {
            context: Arc::new(Context {
                settings,
                env: Arc::new(env),
                clock,
                #[cfg(feature = "replication")]
                leadership: self.member.as_ref().map(Member::leadership),
            }),
            background: self.background && !self.read_only,
            lock_wait: self.lock_wait,
            spawn: self.spawn,
            reseed: Box::new(move |opens| random.mix(opens)),
        };
        let (engine, report) = opening.run()?;
        settle_opening(&engine);
        let broker = Broker::from_opened((engine, report));
        #[cfg(feature = "replication")]
        if let Some(Member::Beside(attachment)) = self.member {
            let attached = attachment.begin(broker.as_guest(), self.background)?;
            broker.run().attach(attached);
        }
        Ok(broker)
    }
}

impl std::fmt::Debug for BrokerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BrokerBuilder")
            .field("storage", &self.storage)
            .field("durability", &self.durability)
            .finish_non_exhaustive()
    }
}

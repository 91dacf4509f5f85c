//! The broker as an application holds it.
//!
//! Owns: the handle, and the close when the last one is dropped. Must not know: how a broker is
//! opened, which [`builder`](super::builder) does.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::engine::Engine;
use super::metrics::{Metrics, snapshot};
use super::refresh::{refresh, refresh_unreported};
use super::report::{RecoveryReport, Refreshed};
use crate::clock::Clock;
use crate::config::TopicConfig;
use crate::error::{Error, Result};
use crate::topic::{Lifeline, Topic, TopicShared};

/// A broker: topics, producers, consumers and groups over one data directory, or over heap memory.
///
/// Cheap to clone and safe to share between threads. The broker stays open until its last handle is
/// dropped: a clone, topic, partition, producer or consumer. That stops the background threads and
/// releases the directory, but syncs nothing. [`close`](Self::close) makes everything durable,
/// records a clean shutdown and returns an error if something failed.
///
/// ```
/// use logpond::{Broker, Record, TopicConfig};
/// use std::time::Duration;
///
/// let broker = Broker::in_memory()?;
/// broker.ensure_topic("emails", TopicConfig::new(4))?;
/// broker.producer().send(Record::to("emails").key("user-7").value("welcome!"))?;
///
/// let mut inbox = broker.consumer("mailer").subscribe(["emails"]).open()?;
/// for message in inbox.poll(Duration::from_secs(1))? {
///     assert_eq!(message.value(), Some(&b"welcome!"[..]));
/// }
/// inbox.commit()?;
/// # Ok::<(), logpond::Error>(())
/// ```
#[doc(alias = "KafkaServer")]
#[doc(alias = "kafka")]
#[derive(Clone)]
pub struct Broker {
    run: Arc<Run>,
}

/// One opening of a broker, up to its close, as handles hold it: when the last of them is dropped,
/// so is this.
pub(crate) struct Run {
    engine: Arc<Engine>,
    recovery: RecoveryReport,
    /// Whether the run ends with it. What runs beside the engine does not keep it open.
    keeps_open: bool,
}

impl Drop for Run {
    fn drop(&mut self) {
        if !self.keeps_open {
            return;
        }
        if self.engine.gate().check_process().is_err() {
            // A forked child has no part in the end of the engine: it would take locks that are
            // never released there, and threads that it does not have. Its copy ends with it, or
            // with `exec`.
            std::mem::forget(Arc::clone(&self.engine));
            return;
        }
        self.engine.abandon();
    }
}

impl Deref for Run {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.engine
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.engine.fmt(f)
    }
}

impl Broker {
    pub(super) fn from_opened((engine, recovery): (Arc<Engine>, RecoveryReport)) -> Self {
        let broker = Self { run: Arc::new(Run { engine, recovery, keeps_open: true }) };
        broker.run.gate().count_handles(Arc::downgrade(&broker.lifeline()));
        broker
    }

    pub(crate) fn run(&self) -> &Arc<Run> {
        &self.run
    }

    /// A handle that does not keep the run open.
    #[cfg(feature = "replication")]
    pub(crate) fn as_guest(&self) -> Self {
        let (engine, recovery) = (Arc::clone(&self.run.engine), self.run.recovery.clone());
        Self { run: Arc::new(Run { engine, recovery, keeps_open: false }) }
    }

    pub(crate) fn lifeline(&self) -> Lifeline {
        let run: Arc<Run> = Arc::clone(&self.run);
        run as Arc<dyn Any + Send + Sync>
    }

    /// Returns the topic with this name. Creates it with these settings if it does not exist.
    ///
    /// The settings of an existing topic are not changed, but compared with `config`: the number of
    /// partitions, and of `cleanup`, `retention`, `retention_bytes` and `durability` those that do
    /// not have their default value in `config`. If one differs, the call returns
    /// [`Error::Config`]. To change the settings of a topic, use
    /// [`Admin::alter_topic`](crate::Admin::alter_topic); to get an existing topic whatever its
    /// settings are, [`ensure_topic_as_is`](Self::ensure_topic_as_is).
    ///
    /// A new topic gets the broker's [`topic_defaults`](crate::BrokerBuilder::topic_defaults) in
    /// place of the settings that have their default value in `config`.
    ///
    /// ```
    /// use logpond::{Broker, Error, TopicConfig};
    /// use std::time::Duration;
    ///
    /// let broker = Broker::in_memory()?;
    /// let hour = Duration::from_secs(3600);
    /// broker.ensure_topic("clicks", TopicConfig::new(2).retention(hour))?;
    /// broker.ensure_topic("clicks", TopicConfig::new(2))?; // a default is not compared
    /// let longer = TopicConfig::new(2).retention(2 * hour);
    /// let refused = broker.ensure_topic("clicks", longer.clone());
    /// assert!(matches!(refused, Err(Error::Config(error)) if error.setting == "retention"));
    /// broker.ensure_topic_as_is("clicks", longer)?; // still keeps records for one hour
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if settings of an existing topic differ (the error names each of them), or
    /// if a setting has an impossible value; [`Error::InvalidName`], [`Error::StorageFull`],
    /// [`Error::Io`], [`Error::ReadOnly`], [`Error::Closed`]. In a replicated group also
    /// [`Error::NotLeader`], [`Error::NotEnoughReplicas`], [`Error::LeadershipLost`] and
    /// [`Error::Timeout`], unless a majority is known to have the topic.
    ///
    /// # Durability
    ///
    /// On return the topic exists after any crash.
    ///
    /// # Blocking
    ///
    /// For the disk, a few syncs per partition that is created; on a replicated broker then also for a
    /// majority of the members.
    #[doc(alias = "createTopics")]
    pub fn ensure_topic(&self, name: &str, config: TopicConfig) -> Result<Topic> {
        let asked = config.clone();
        let topic = self.ensure_topic_as_is(name, config)?;
        let unmet = asked.unmet_by(&topic.config());
        let Some((first, _)) = unmet.first() else { return Ok(topic) };
        let each: Vec<_> = unmet.iter().map(|(name, it)| format!("{name} {it}")).collect();
        Err(Error::config(first, format!("topic {name:?} has {}", each.join(", "))))
    }

    /// Returns the topic with this name. Creates it with these settings if it does not exist. An
    /// existing topic is returned whatever its settings and its number of partitions are.
    ///
    /// A new topic gets the broker's [`topic_defaults`](crate::BrokerBuilder::topic_defaults) in
    /// place of the settings that have their default value in `config`.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the topic is created and a setting has an impossible value;
    /// [`Error::InvalidName`], [`Error::StorageFull`], [`Error::Io`], [`Error::ReadOnly`],
    /// [`Error::Closed`]. In a replicated group also those of [`ensure_topic`](Self::ensure_topic).
    ///
    /// # Durability
    ///
    /// On return the topic exists after any crash.
    ///
    /// # Blocking
    ///
    /// For the disk, a few syncs per partition that is created; on a replicated broker then also for a
    /// majority of the members.
    pub fn ensure_topic_as_is(&self, name: &str, config: TopicConfig) -> Result<Topic> {
        let found = match self.run.topic(name) {
            Err(Error::UnknownTopic(_)) => match self.create_topic(name, config) {
                // Another thread was quicker.
                Err(Error::TopicExists(_)) => self.run.topic(name)?,
                created => return Ok(Topic::new(created?, self.lifeline())),
            },
            found => found?,
        };
        // The one that creates it may still wait for a majority.
        self.run.topics().await_certain(&found)?;
        Ok(Topic::new(found, self.lifeline()))
    }

    fn create_topic(&self, name: &str, config: TopicConfig) -> Result<Arc<TopicShared>> {
        let led = self.run.leading().check();
        let made = led.and_then(|()| self.run.topics().create(name, config, &BTreeMap::new()));
        #[cfg(feature = "testing")]
        let made = made.inspect_err(|error| self.run.context().env.seams.refused(error));
        made
    }

    /// Returns the topic with this name.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownTopic`] if it does not exist; [`Error::Closed`].
    pub fn topic(&self, name: &str) -> Result<Topic> {
        Ok(Topic::new(self.run.topic(name)?, self.lifeline()))
    }

    /// Returns the clock that the broker uses: the system's, or the one that was passed to
    /// [`BrokerBuilder::clock`](crate::BrokerBuilder::clock). A program can use it for deadlines of
    /// its own that should follow the same clock.
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    /// use logpond::{Broker, ManualClock};
    ///
    /// let clock = ManualClock::new(SystemTime::UNIX_EPOCH);
    /// let broker = Broker::builder().in_memory().clock(clock.clone()).open()?;
    /// let deadline = broker.clock().monotonic() + Duration::from_secs(30);
    /// clock.advance(Duration::from_secs(31));
    /// assert!(broker.clock().monotonic() > deadline);
    /// # Ok::<(), logpond::Error>(())
    /// ```
    #[must_use]
    pub fn clock(&self) -> &dyn Clock {
        self.run.clock().clock()
    }

    /// Returns what was found and done when this broker opened the directory: torn records that
    /// were cut off after a crash, and damaged, missing or unreadable files.
    #[must_use]
    pub fn recovery(&self) -> &RecoveryReport {
        &self.run.recovery
    }

    /// Brings a broker that was opened with [`read_only(true)`](crate::BrokerBuilder::read_only) up
    /// to date with what another broker, in this process or another, has written to the directory:
    /// topics that were created, altered or deleted, records that were appended or removed, and
    /// committed offsets. In other brokers, which are always up to date, it does nothing.
    ///
    /// Between two refreshes a read-only broker shows no new records. Its handles and consumers
    /// remain valid: after a refresh they see what is new, and a consumer that waits in another
    /// thread is woken. So a program that follows a topic refreshes as often as it wants to know:
    ///
    /// ```
    /// # use logpond::{Broker, Record, StartAt, TopicConfig};
    /// # use std::time::Duration;
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path();
    /// let service = Broker::open(path)?;
    /// service.ensure_topic("orders", TopicConfig::new(1))?;
    ///
    /// let viewer = Broker::builder().data_dir(path).read_only(true).open()?;
    /// let mut tail = viewer.reader().subscribe(["orders"]).start(StartAt::Latest).open()?;
    /// service.producer().send(Record::to("orders").value("2 apples"))?;
    ///
    /// assert!(tail.poll(Duration::ZERO)?.is_empty());
    /// assert_eq!(viewer.refresh()?.records, 1);
    /// assert_eq!(tail.poll(Duration::ZERO)?.len(), 1);
    /// # Ok::<(), logpond::Error>(())
    /// ```
    ///
    /// A batch counts only if its checksum is right. One that the other broker is in the middle of
    /// writing is not damage: the next refresh finds it. A file that has vanished is looked for a
    /// second time: retention, compaction and deletion record what they do before they remove a
    /// file. Records that were removed become a [`Gap`](crate::Gap), as in any consumer. The
    /// refreshes of one broker run one after the other.
    ///
    /// If nothing has changed in a partition, a refresh lists its directory and reads a few bytes.
    /// Otherwise it reads the records of the last segment from the last recovery point on, which
    /// the other broker stores about once a minute, and a few bytes of each other segment. Each
    /// commit of a group makes it read the commits of all groups again.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if files cannot be read, [`Error::Corrupt`] if an internal log of the
    /// directory is damaged, or ends before what this broker has seen because an older copy of the
    /// directory was restored (then open it again); part of the changes may be visible then, and the next call tries
    /// again and returns all of them. Damage of a topic is no error of this call: it is in
    /// [`Refreshed::corrupt`](crate::report::Refreshed). [`Error::Closed`].
    ///
    /// # Blocking
    ///
    /// For reads of the disk, and for a refresh by another thread.
    pub fn refresh(&self) -> Result<Refreshed> {
        refresh(&self.run)
    }

    /// [`refresh`](Self::refresh), whose findings the next call returns.
    pub(crate) fn refresh_unreported(&self) -> Result<()> {
        refresh_unreported(&self.run)
    }

    /// Returns a snapshot of all metrics.
    ///
    /// # Blocking
    ///
    /// Never for the disk. It takes each partition's and each group's lock for about a microsecond;
    /// longer if a partition is compacted or a group is large. The snapshot has an entry for each
    /// partition of each group, so 1,000 groups that read 10,000 partitions make it a large one.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        snapshot(&self.run)
    }

    /// Makes all records durable that were appended to any topic before the call, whatever their
    /// level of [`Durability`](crate::Durability).
    ///
    /// # Errors
    ///
    /// All partitions are tried, and the error of the first one that failed is returned:
    /// [`Error::SyncFailed`] or [`Error::Poisoned`]. [`Error::Closed`].
    ///
    /// # Durability
    ///
    /// On `Ok` all these records are on stable storage.
    ///
    /// # Blocking
    ///
    /// For a sync of each partition with un-synced records, up to eight of them at the same time.
    pub fn flush(&self) -> Result<()> {
        self.run.flush()
    }

    /// Does one round of the work of the background threads, for a broker without them
    /// ([`background(false)`](crate::BrokerBuilder::background)): allocates space for appends, runs
    /// the syncs that are due, writes the indexes of full segments, applies retention, compacts,
    /// stores recovery points, and evicts group members that do not poll.
    ///
    /// # Errors
    ///
    /// All steps are tried, and the error of the first one that failed is returned:
    /// [`Error::StorageFull`], [`Error::SyncFailed`] or [`Error::Io`]. [`Error::Closed`].
    ///
    /// # Blocking
    ///
    /// For the disk, until the round is done.
    pub fn tick(&self) -> Result<()> {
        self.run.tick()
    }

    /// Makes all records durable, records a clean shutdown, and closes the broker, also for its
    /// other clones and handles: their later and waiting calls return [`Error::Closed`]. On return
    /// the directory can be opened again. Messages that the program holds stay readable.
    ///
    /// # Errors
    ///
    /// [`Error::SyncFailed`] or [`Error::Io`] if a partition could not be synced. The broker is
    /// closed all the same, and the next opening recovers the directory as after a crash.
    ///
    /// # Durability
    ///
    /// On `Ok` everything that was appended is on stable storage.
    ///
    /// # Blocking
    ///
    /// For the disk, and for the current step of the background threads.
    pub fn close(self) -> Result<()> {
        self.run.close()
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker")
            .field("settings", &self.run.context().settings)
            .finish_non_exhaustive()
    }
}

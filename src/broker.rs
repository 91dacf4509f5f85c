//! The broker: the root of everything an application holds.
//!
//! Owns: opening and closing, the catalog of topics, what is true of this machine only, background
//! work. Must not know: what producers and consumers do; those are built on it.

use std::any::Any;
use std::fmt;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

pub use self::builder::BrokerBuilder;
use self::engine::Engine;
pub use self::report::RecoveryReport;
pub(crate) use self::restore::Restored;
use crate::config::TopicConfig;
use crate::error::{Error, Result};
use crate::topic::{Lifeline, Topic};

mod alter;
mod builder;
pub(crate) mod catalog;
pub(crate) mod engine;
mod expiry;
mod grow;
mod housekeeping;
mod inspect;
pub(crate) mod internal_logs;
pub(crate) mod local;
pub(crate) mod metrics;
pub(crate) mod numbers;
pub(crate) mod open;
mod report;
mod restore;
mod room;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
mod topics;
mod workers;

/// A broker: topics, producers, consumers and groups over one data directory, or over heap memory.
///
/// Cheap to clone and safe to share between threads. The broker stays open as long as any handle of
/// it lives: a clone, topic, partition, producer or consumer. Dropping the last one stops the
/// background threads and frees the directory, without a flush. [`close`](Self::close) flushes,
/// marks a clean shutdown and reports what failed.
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

/// The engine as handles hold it: when the last of them is dropped, so is this.
pub(crate) struct Run(Arc<Engine>);

impl Drop for Run {
    fn drop(&mut self) {
        if self.0.check_process().is_err() {
            // A forked child has no part in the end of the engine: it would take locks that nobody
            // releases, and threads that it does not have. Its copy ends with it, or with `exec`.
            std::mem::forget(Arc::clone(&self.0));
            return;
        }
        self.0.abandon();
    }
}

impl Deref for Run {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.0
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Broker {
    /// Opens the broker of a directory with the default settings. Creates the directory, with
    /// missing parents, if it does not exist.
    ///
    /// # Errors
    ///
    /// - [`Error::Locked`]: another broker has the directory, and keeps it for as long as
    ///   [`lock_wait`](BrokerBuilder::lock_wait).
    /// - [`Error::Corrupt`]: an internal log is damaged. [`salvage`](crate::salvage) copies what
    ///   can be read. Damage in topics does not fail the opening; it is in
    ///   [`recovery`](Self::recovery).
    /// - [`Error::UnsupportedVersion`]: a newer build wrote the directory.
    /// - [`Error::Config`]: every user of the machine may write to the directory.
    /// - [`Error::StorageFull`], [`Error::ReadOnly`], [`Error::Io`]: of the file system.
    ///
    /// # Durability
    ///
    /// On return the directory and everything that recovery did are durable.
    ///
    /// # Blocking
    ///
    /// For the disk. For another broker that has the directory, up to
    /// [`lock_wait`](BrokerBuilder::lock_wait), and up to a second if it is of this process and
    /// closing.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::builder().data_dir(dir).open()
    }

    /// Opens a broker on heap memory: the same engine with nothing on disk. Its data is gone with
    /// its last handle.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if a thread cannot be started or memory cannot be had.
    pub fn in_memory() -> Result<Self> {
        Self::builder().in_memory().open()
    }

    /// Returns the settings of a broker, to be changed before it is opened.
    pub fn builder() -> BrokerBuilder {
        BrokerBuilder::default()
    }

    pub(crate) fn from_engine(engine: Arc<Engine>) -> Self {
        Self { run: Arc::new(Run(engine)) }
    }

    pub(crate) fn run(&self) -> &Arc<Run> {
        &self.run
    }

    pub(crate) fn lifeline(&self) -> Lifeline {
        let run: Arc<Run> = Arc::clone(&self.run);
        run as Arc<dyn Any + Send + Sync>
    }

    /// The topic of this name, created with these settings if there is none. An existing topic
    /// keeps its settings. Settings that are at the crate's defaults are taken from the broker's
    /// [`topic_defaults`](BrokerBuilder::topic_defaults).
    ///
    /// # Errors
    ///
    /// [`Error::Config`] when the topic exists with another number of partitions or a setting
    /// cannot work, [`Error::InvalidName`], [`Error::StorageFull`], [`Error::Io`],
    /// [`Error::Closed`].
    ///
    /// # Durability
    ///
    /// On return the topic is there after any crash.
    ///
    /// # Blocking
    ///
    /// For the disk, a few syncs per partition that is created.
    pub fn ensure_topic(&self, name: &str, config: TopicConfig) -> Result<Topic> {
        let partitions = config.partitions;
        let shared = match self.run.topic(name) {
            Err(Error::UnknownTopic(_)) => match self.run.create_topic(name, config) {
                // Another thread was quicker.
                Err(Error::TopicExists(_)) => self.run.topic(name)?,
                created => created?,
            },
            found => found?,
        };
        if shared.config.partitions != partitions {
            let has = shared.config.partitions;
            let reason = format!("topic {name:?} has {has}, not {partitions}");
            return Err(Error::config("partitions", reason));
        }
        Ok(Topic::new(shared, self.lifeline()))
    }

    /// Returns the topic of this name.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownTopic`], [`Error::Closed`].
    pub fn topic(&self, name: &str) -> Result<Topic> {
        Ok(Topic::new(self.run.topic(name)?, self.lifeline()))
    }

    /// Returns what recovery found and did when this broker was opened.
    #[must_use]
    pub fn recovery(&self) -> &RecoveryReport {
        &self.run.recovery
    }

    /// Makes everything durable that was appended before the call, at any level.
    ///
    /// # Errors
    ///
    /// [`Error::SyncFailed`] or [`Error::Poisoned`] of the first partition that could not be
    /// synced; all were tried. [`Error::Closed`].
    ///
    /// # Durability
    ///
    /// On `Ok` all these records are on stable storage.
    ///
    /// # Blocking
    ///
    /// For a sync of each partition with un-synced records, up to eight of them side by side.
    pub fn flush(&self) -> Result<()> {
        self.run.flush()
    }

    /// Does one round of what the background threads do otherwise: allocate space ahead, run due
    /// syncs, write footers, apply retention, compact, store recovery points, evict members that do
    /// not poll. For [`background(false)`](BrokerBuilder::background).
    ///
    /// # Errors
    ///
    /// [`Error::StorageFull`], [`Error::SyncFailed`] or [`Error::Io`] of the first step that
    /// failed; the other steps were done. [`Error::Closed`].
    ///
    /// # Blocking
    ///
    /// For the disk, until the round is done.
    pub fn tick(&self) -> Result<()> {
        self.run.tick()
    }

    /// Flushes everything, marks a clean shutdown and closes the engine for all clones and handles:
    /// their later and waiting calls return [`Error::Closed`]. On return the directory can be
    /// opened again. Messages stay readable.
    ///
    /// # Errors
    ///
    /// [`Error::SyncFailed`] or [`Error::Io`] for what could not be flushed. The engine is closed
    /// all the same, and the next opening recovers.
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
        f.debug_struct("Broker").field("settings", &self.run.settings).finish_non_exhaustive()
    }
}

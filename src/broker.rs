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

/// A broker: topics, producers, consumers and groups over one data directory, or over memory.
///
/// Cheap to clone and free to share between threads. The broker stays open while any handle of it
/// lives: clones, topics, partitions, producers, consumers. Dropping the last one stops the
/// background threads and frees the directory without any flush; [`close`](Self::close) is the end
/// that flushes and gives an answer.
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
    /// Opens the broker of a directory with the default settings, and creates the directory, with
    /// missing parents, if there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] when another broker has the directory and keeps it for as long as
    /// [`lock_wait`](BrokerBuilder::lock_wait) says, [`Error::Corrupt`] when its
    /// internal logs are damaged (what is wrong with topics is in [`recovery`](Self::recovery)), [`Error::UnsupportedVersion`], [`Error::Io`], [`Error::StorageFull`], and
    /// [`Error::Config`] when every user of the machine may write to the directory.
    ///
    /// # Durability
    ///
    /// On return the directory is durable. What recovery did is in [`recovery`](Self::recovery).
    ///
    /// # Blocking
    ///
    /// For the disk; for another broker that has the directory up to
    /// [`lock_wait`](BrokerBuilder::lock_wait), and up to a second if it is of this process and
    /// closing.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::builder().data_dir(dir).open()
    }

    /// A broker on heap memory: the same engine, nothing on disk, gone with its last handle.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when threads or memory cannot be had.
    pub fn in_memory() -> Result<Self> {
        Self::builder().in_memory().open()
    }

    /// For other settings than the defaults.
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

    /// The topic of this name.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownTopic`], [`Error::Closed`].
    pub fn topic(&self, name: &str) -> Result<Topic> {
        Ok(Topic::new(self.run.topic(name)?, self.lifeline()))
    }

    /// What recovery found and did when this broker was opened.
    #[must_use]
    pub fn recovery(&self) -> &RecoveryReport {
        &self.run.recovery
    }

    /// Makes everything durable that was appended before the call, whatever its level.
    ///
    /// # Errors
    ///
    /// [`Error::SyncFailed`] for the first partition that could not be synced; the others were.
    ///
    /// # Blocking
    ///
    /// For the disk.
    pub fn flush(&self) -> Result<()> {
        self.run.flush()
    }

    /// One round of the work that background threads do otherwise: space ahead, due syncs,
    /// footers, retention, recovery points. For [`background(false)`](BrokerBuilder::background).
    ///
    /// # Errors
    ///
    /// [`Error::Io`] and its kin for what could not be written; [`Error::Closed`].
    ///
    /// # Blocking
    ///
    /// For the disk.
    pub fn tick(&self) -> Result<()> {
        self.run.tick()
    }

    /// Flushes everything, marks a clean end and closes the engine for all clones and handles:
    /// their later and waiting calls get [`Error::Closed`]. When it returns the directory can be
    /// opened again. Messages stay readable.
    ///
    /// # Errors
    ///
    /// What could not be flushed; the engine is closed all the same, and the next open recovers.
    ///
    /// # Durability
    ///
    /// On `Ok` everything that was appended is on stable storage.
    ///
    /// # Blocking
    ///
    /// For the disk and the current step of the background threads.
    pub fn close(self) -> Result<()> {
        self.run.close()
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("settings", &self.run.settings).finish_non_exhaustive()
    }
}

//! What all parts of one run use: the settings, the files and the clock.
//!
//! Owns: nothing that changes. Must not know: topics, locks and threads.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::catalog::TopicEntry;
use crate::clock::RunClock;
use crate::config::{Durability, RecoveryPolicy, TopicConfig, WhenFull};
use crate::error::{Error, Result};
use crate::format::partition_dir_name;
use crate::log::create::Writer;
use crate::log::{LogEnv, LogIdentity};
use crate::partition::PartitionCore;
use crate::partition::lead::Lead;
#[cfg(feature = "replication")]
use crate::partition::leadership::Leadership;
use crate::record::TopicPartition;
use crate::trace::note;

/// The settings of a broker that outlive its opening.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "facts that do not depend on one another")]
pub(crate) struct Settings {
    pub(crate) dir: PathBuf,
    pub(crate) in_memory: bool,
    /// Whether the internal logs keep spare segments for a full disk.
    pub(crate) has_reserve: bool,
    /// Whether there is a directory that other brokers must be kept out of.
    pub(crate) has_lock: bool,
    pub(crate) durability: Durability,
    pub(crate) topic_defaults: TopicConfig,
    pub(crate) read_only: bool,
    pub(crate) recovery: RecoveryPolicy,
    pub(crate) when_full: WhenFull,
    /// How long a group is kept without use; `None` where its topics decide.
    pub(crate) group_expiry: Option<Duration>,
}

/// See the module's documentation.
pub(crate) struct Context {
    pub(crate) settings: Settings,
    pub(crate) env: Arc<LogEnv>,
    pub(crate) clock: RunClock,
    /// `None` without replication.
    #[cfg(feature = "replication")]
    pub(crate) leadership: Option<Arc<Leadership>>,
}

impl Context {
    /// Whether the broker leads, if it is a member of a replicated group.
    #[cfg(feature = "replication")]
    pub(crate) fn lead(&self) -> Lead {
        Lead::of(self.leadership.clone())
    }

    #[cfg(not(feature = "replication"))]
    #[expect(clippy::unused_self, reason = "it is no member of a group")]
    pub(crate) fn lead(&self) -> Lead {
        Lead::none()
    }

    /// Whether the broker is a member of a replicated group.
    #[cfg(feature = "replication")]
    pub(crate) fn is_member(&self) -> bool {
        self.leadership.is_some()
    }

    #[cfg(not(feature = "replication"))]
    #[expect(clippy::unused_self, reason = "it is no member of a group")]
    pub(crate) fn is_member(&self) -> bool {
        false
    }

    /// The epoch in which the broker leads its replicated group; `None` also if it is in none.
    #[cfg(feature = "replication")]
    pub(crate) fn leads(&self) -> Option<u32> {
        self.leadership.as_ref().and_then(|leadership| leadership.leads())
    }

    #[cfg(not(feature = "replication"))]
    #[expect(clippy::unused_self, reason = "it is no member of a group")]
    pub(crate) fn leads(&self) -> Option<u32> {
        None
    }

    /// Whether another member decides what is changed, or nobody does at the moment.
    pub(crate) fn follows(&self) -> bool {
        self.is_member() && self.leads().is_none()
    }

    /// Refuses what the leader of the replicated group alone may change.
    ///
    /// # Errors
    ///
    /// [`Error::NotLeader`](crate::Error::NotLeader), and
    /// [`Error::NotEnoughReplicas`](crate::Error::NotEnoughReplicas).
    #[cfg_attr(
        not(feature = "replication"),
        expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "nobody else could lead")
    )]
    pub(crate) fn check_leads(&self) -> Result<()> {
        #[cfg(feature = "replication")]
        if let Some(leadership) = &self.leadership {
            return leadership.check().map(drop);
        }
        Ok(())
    }

    /// The error of what has to wait until a majority has more.
    #[cfg_attr(
        not(feature = "replication"),
        expect(clippy::unused_self, reason = "there are no other members")
    )]
    pub(crate) fn not_enough(&self) -> Error {
        #[cfg(feature = "replication")]
        if let Some(leadership) = &self.leadership {
            return leadership.not_enough();
        }
        Error::NotEnoughReplicas { reachable: 1, required: 1 }
    }

    /// The durability in force for a topic: its own, or the broker's.
    pub(crate) fn durability_of(&self, config: &TopicConfig) -> Durability {
        config.durability.unwrap_or(self.settings.durability)
    }

    /// How the files of a topic are written.
    pub(crate) fn writer_for(&self, durability: Durability) -> Writer {
        if self.settings.in_memory {
            return Writer::Stores;
        }
        // Durable topics write by pwrite: it syncs fastest whatever the size of the page cache's
        // folios, while a mapped store into a large one makes the sync write all of it (measured,
        // see docs/performance.md).
        let stores = durability != Durability::Sync
            && !self.env.copy_reads
            && self.env.disk.supports_mapped_writes(&self.settings.dir);
        if stores { Writer::Stores } else { Writer::Pwrite }
    }

    /// The name, the id and the directory of a partition.
    pub(crate) fn identity(&self, entry: &TopicEntry, number: u32) -> LogIdentity {
        let dir = self.settings.dir.join(&*entry.name).join(partition_dir_name(number));
        let origin = TopicPartition { topic: Arc::clone(&entry.name), partition: number };
        LogIdentity { origin: Arc::new(origin), topic_id: entry.id, dir }
    }

    /// Reports a failure of work that no caller waits for.
    pub(super) fn note_failure(
        &self,
        work: &'static str,
        partition: Option<&Arc<PartitionCore>>,
        done: Result<()>,
    ) {
        if let Err(error) = done {
            let partition = partition.map(|core| Arc::clone(&core.origin));
            note!(self.env.trace, Failed { work, partition, error });
        }
    }
}

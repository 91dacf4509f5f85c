//! What all parts of one run use: the settings, the files and the clock.
//!
//! Owns: nothing that changes. Must not know: topics, locks and threads.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::catalog::TopicEntry;
use crate::clock::RunClock;
use crate::config::{Durability, RecoveryPolicy, TopicConfig, WhenFull};
use crate::error::Result;
use crate::format::partition_dir_name;
use crate::log::create::Writer;
use crate::log::{LogEnv, LogIdentity};
use crate::partition::PartitionCore;
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
}

impl Context {
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

//! The results of an opening and of a refresh, as values.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::Corruption;
use crate::log::open::PartitionRecovery;
use crate::record::TopicPartition;
use crate::trace::{Outbox, note};

/// What was found and done when the broker opened the directory; returned by
/// [`Broker::recovery`](crate::Broker::recovery). It lists everything that was cut off after a
/// crash, and everything that is damaged.
///
/// ```
/// # use logpond::Broker;
/// # let broker = Broker::in_memory()?;
/// let report = broker.recovery();
/// for partition in report.partitions.iter().filter(|it| it.cut_bytes > 0) {
///     println!("{}-{}: {} bytes cut", partition.topic, partition.partition, partition.cut_bytes);
/// }
/// assert!(report.is_clean());
/// # Ok::<(), logpond::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// Whether the last run of the directory ended with [`Broker::close`](crate::Broker::close);
    /// also true for a new directory. False after a close while a partition was unavailable or
    /// poisoned.
    pub clean_shutdown: bool,
    /// One entry per partition of every topic, and of the internal logs `__meta`, `__offsets` and
    /// `__local`.
    pub partitions: Vec<PartitionRecovery>,
    /// Directories and files that belong to no topic. They are not changed.
    pub unknown: Vec<PathBuf>,
}

impl RecoveryReport {
    /// Returns whether nothing was cut and nothing is damaged.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.partitions.iter().all(|it| it.cut_bytes == 0 && it.corrupt.is_empty())
    }

    /// Makes events of what it says about the opening of `dir`.
    pub(super) fn note(&self, trace: &Outbox, dir: &Path) {
        for found in &self.partitions {
            let (end_offset, cut_bytes) = (found.end_offset, found.cut_bytes);
            if cut_bytes > 0 {
                let partition = (&*found.topic, found.partition).into();
                note!(trace, TailCut { partition, end_offset, cut_bytes });
            }
            for corruption in &found.corrupt {
                note!(trace, Corruption(corruption.clone()));
            }
        }
        note!(
            trace,
            Opened {
                dir: dir.to_path_buf(),
                clean_shutdown: self.clean_shutdown,
                partitions: self.partitions.len(),
            }
        );
        trace.deliver();
    }
}

/// What a read-only broker has found anew; returned by
/// [`Broker::refresh`](crate::Broker::refresh).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Refreshed {
    /// Topics that were created, by name. A topic that was deleted and created again is in this
    /// list and in `deleted`.
    pub created: Vec<String>,
    /// Topics that were deleted. Their handles return
    /// [`Error::UnknownTopic`](crate::Error::UnknownTopic).
    pub deleted: Vec<String>,
    /// Topics whose settings were changed, or that have more partitions now.
    pub altered: Vec<String>,
    /// Partitions that were unavailable, and that can be read now.
    pub available: Vec<TopicPartition>,
    /// Partitions whose log ends lower than this broker has seen it, or did in between: a recovery
    /// has cut it, or files were replaced. A consumer that has read beyond the cut gets
    /// [`Error::Truncated`](crate::Error::Truncated) once. Handles of such a partition, and of one
    /// in `available`, return [`Error::UnknownTopic`](crate::Error::UnknownTopic):
    /// [`Topic::partition`](crate::Topic::partition) returns new ones.
    pub truncated: Vec<TopicPartition>,
    /// By how much the log ends of all partitions have moved. In a new topic or partition, how many
    /// offsets there are.
    pub records: u64,
    /// Damage in the partitions whose files were read again. What the other broker was in the
    /// middle of writing or removing is none.
    pub corrupt: Vec<Corruption>,
}

impl Refreshed {
    /// Returns whether nothing has changed: no topic, no record, and no damage was found. Committed
    /// offsets may have changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { created, deleted, altered, available, truncated, records, corrupt } = self;
        let topics = [created, deleted, altered].iter().all(|topics| topics.is_empty());
        let partitions = [available, truncated].iter().all(|partitions| partitions.is_empty());
        *records == 0 && corrupt.is_empty() && topics && partitions
    }

    /// Adds what was found later. What was found before is not listed twice.
    pub(super) fn add(&mut self, later: Self) {
        if self.is_empty() {
            *self = later;
            return;
        }
        let Self { created, deleted, altered, available, truncated, records, corrupt } = later;
        add_new(&mut self.created, created);
        add_new(&mut self.deleted, deleted);
        add_new(&mut self.altered, altered);
        add_new(&mut self.available, available);
        add_new(&mut self.truncated, truncated);
        add_new(&mut self.corrupt, corrupt);
        self.records = self.records.saturating_add(records);
    }
}

fn add_new<T: PartialEq>(all: &mut Vec<T>, later: Vec<T>) {
    for one in later {
        if !all.contains(&one) {
            all.push(one);
        }
    }
}

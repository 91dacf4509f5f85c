//! What opening found and did, as values.

use std::path::PathBuf;

use serde::Serialize;

use crate::log::open::PartitionRecovery;

/// What recovery found and did when the broker was opened. Loss is never hidden: whatever was cut
/// or is damaged is here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// Whether the last run of the directory ended with [`Broker::close`](crate::Broker::close);
    /// also true for a directory that is new. Not after a close while a partition was unavailable or
    /// poisoned: then one of them is not known to be whole.
    pub clean_shutdown: bool,
    /// One entry per partition of every topic, the engine's own included.
    pub partitions: Vec<PartitionRecovery>,
    /// Directories and files that the catalog does not know. They are left alone.
    pub unknown: Vec<PathBuf>,
}

impl RecoveryReport {
    /// Whether nothing was cut and nothing is damaged.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.partitions.iter().all(|it| it.cut_bytes == 0 && it.corrupt.is_empty())
    }
}

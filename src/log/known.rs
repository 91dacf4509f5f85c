//! What a broker knows of a partition before it reads the partition's files.
//!
//! Plain data: the broker fills it in, and the passes of an opening read it.

use super::Checkpoint;
use crate::config::RecoveryPolicy;

/// What the broker knows of a partition before it is opened.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "facts that do not depend on one another")]
pub(crate) struct Known {
    pub(crate) checkpoint: Option<Checkpoint>,
    /// The broker was closed after the checkpoint was written, and nothing was opened since.
    pub(crate) clean: bool,
    /// The machine was not restarted since, so data in the page cache may not be on the disk.
    pub(crate) same_boot: bool,
    pub(crate) policy: RecoveryPolicy,
    pub(crate) read_only: bool,
    /// Whether a file that cannot be read fails the opening: the rest of a state would pass for the
    /// whole of it. The caller checks the state further, and then calls [`Log::finish_opening`];
    /// until then nothing on the disk is changed.
    pub(crate) needs_all: bool,
    /// The log start as recorded apart from the checkpoint.
    pub(crate) log_start: Option<u64>,
    /// A durable end of the log, as another log proves it.
    pub(crate) proved: u64,
    /// The time of retention: no record counts as younger, whatever its timestamp.
    pub(crate) now: u64,
}

impl Known {
    /// The log start offset, if it was ever recorded.
    pub(super) fn start(&self) -> Option<u64> {
        self.log_start.max(self.checkpoint.as_ref().map(|point| point.log_start))
    }
}

//! Why an operation of replication is not done.

use crate::error::{CorruptionKind, Error};

/// What contradicts the log. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// They are not whole batches under this key.
    Damaged { position: usize, kind: CorruptionKind },
    /// They do not continue the log: a batch begins at `found`.
    Offset { expected: u64, found: u64 },
    /// A batch is of an earlier leader epoch than the one before it.
    Epoch { before: u32, found: u32 },
    /// A batch exceeds what a segment can hold.
    Size { bytes: u64, limit: u64 },
    /// The log is not cut below `bound`.
    Bound { offset: u64, bound: u64 },
}

/// Why an operation of replication failed.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    /// What was asked for contradicts the log. Nothing was changed.
    Refused(Refusal),
    /// The partition or its disk.
    Failed(Error),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

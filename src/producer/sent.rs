//! A record in its partition: what a call returns of it, and where one with a number may go.
//!
//! Must not know: how records are appended.

use crate::error::{Error, Result};
use crate::record::{Record, RecordMetadata};
use crate::topic::append::Appended;

/// The answer of [`Producer::send_sequenced`](crate::Producer::send_sequenced).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendOutcome {
    /// The record is new, and appended.
    Appended(RecordMetadata),
    /// The partition has stored a record with this number or a higher one already.
    Duplicate {
        /// The last number that the partition has stored for this producer id. If it is higher than
        /// the number that was sent, a record with that number may never have been stored.
        /// [`Producer::last_sequenced`](crate::Producer::last_sequenced) says where its record is.
        last: u64,
    },
}

/// A record in its partition, and not yet waited for.
pub(super) struct Sent<'t> {
    pub(super) appended: Appended<'t>,
    pub(super) metadata: RecordMetadata,
}

impl Sent<'_> {
    pub(super) fn outcome(&self) -> SendOutcome {
        match self.appended.duplicate_of {
            Some(last) => SendOutcome::Duplicate { last },
            None => SendOutcome::Appended(self.metadata),
        }
    }
}

/// A record with a number goes to the same partition at each attempt.
pub(super) fn check_target(record: &Record<'_>) -> Result<()> {
    if record.key.is_none() && record.partition.is_none() {
        let reason = "it needs a key or a partition, so that a retry goes to the same partition";
        return Err(Error::config("record", reason));
    }
    Ok(())
}

//! `LogKey`: which logs are replicated.
//!
//! Owns: their names. Must not know: what is in them.

use serde::{Deserialize, Serialize};

/// A log that is replicated. A topic that is created again under its name is another topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum LogKey {
    /// The changes of `__meta`: topics, producer ids, memberships.
    Meta,
    /// The changes of `__offsets`: committed offsets.
    Offsets,
    Partition {
        topic: u128,
        partition: u32,
    },
}

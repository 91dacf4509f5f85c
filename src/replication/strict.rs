//! `Strict`: how far a log is synced by a majority, for producers that are stricter than its topic.
//!
//! A copy of a log whose topic is not at `Sync` counts once it is written. A producer that is at `Sync`
//! waits until a majority has synced its records too. So its leader asks for that in its answers, up
//! to an offset; the followers sync up to there, and ask again, which says how far they have.
//!
//! Owns: what is asked for, and how far a majority is. Nothing of the protocol rests on it: a member
//! that syncs too much, or says nothing, costs the producer time. Must not know: producers, and how a
//! log is synced.

use serde::{Deserialize, Serialize};

/// At the leader, and as its followers know it. Zero for logs at `Sync`: only synced copies of those
/// count.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub(crate) struct Strict {
    /// What is below is to be synced.
    pub(crate) wanted: u64,
    /// A majority has synced what is below; not above the high watermark.
    pub(crate) synced: u64,
}

impl Strict {
    /// Whether a producer waits.
    pub(crate) fn is_open(self) -> bool {
        self.synced < self.wanted
    }
}

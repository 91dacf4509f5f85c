//! `LogKey`: which logs are replicated.
//!
//! Owns: their names. Must not know: what is in them.

/// A log that is replicated. A topic that is created again under its name is another topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

//! What the files of a directory have shown so far to a read-only broker, for its next refresh.
//!
//! Owns: that, as plain data. Must not know: what is done about a change.

use std::collections::HashMap;

use crate::format::TopicId;
use crate::log::open::PartitionRecovery;
use crate::log::seen::Seen;

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Looks {
    /// Of each log whose files were read by a refresh.
    seen: HashMap<(TopicId, u32), Seen>,
    /// What the last look at `__local` has found.
    local: Option<PartitionRecovery>,
}

impl Looks {
    pub(super) fn seen(&self, key: (TopicId, u32)) -> Option<&Seen> {
        self.seen.get(&key)
    }

    pub(super) fn note(&mut self, key: (TopicId, u32), seen: Seen) {
        self.seen.insert(key, seen);
    }

    pub(super) fn local(&self) -> &[PartitionRecovery] {
        self.local.as_slice()
    }

    pub(super) fn note_local(&mut self, found: PartitionRecovery) {
        self.local = Some(found);
    }

    /// Forgets the partitions of all topics but these.
    pub(super) fn retain(&mut self, is_kept: impl Fn(TopicId) -> bool) {
        self.seen.retain(|(id, _), _| is_kept(*id));
    }
}

//! What the files of a directory have shown so far to a read-only broker, for its next refresh.
//!
//! Owns: that, as plain data. Must not know: what is done about a change.

use std::collections::HashMap;

use super::report::Refreshed;
use crate::format::TopicId;
use crate::log::open::PartitionRecovery;
use crate::log::seen::Seen;

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Looks {
    /// Of each log whose files were read by a refresh.
    seen: HashMap<(TopicId, u32), Seen>,
    /// Of each log the incarnation, as `__local` said, when its end was taken over. One of a refresh
    /// that failed, or left the log out, is no evidence of what this broker has seen.
    taken: HashMap<(TopicId, u32), u64>,
    /// What the last look at `__local` has found.
    local: Option<PartitionRecovery>,
    /// What refreshes have found that no caller was given: they failed, or were made for another call.
    unreported: Refreshed,
}

impl Looks {
    pub(super) fn seen(&self, key: (TopicId, u32)) -> Option<&Seen> {
        self.seen.get(&key)
    }

    pub(super) fn note(&mut self, key: (TopicId, u32), seen: Seen) {
        self.seen.insert(key, seen);
    }

    pub(super) fn taken(&self, key: (TopicId, u32)) -> u64 {
        self.taken.get(&key).copied().unwrap_or(0)
    }

    /// The end of a log was taken over under this incarnation.
    pub(super) fn note_taken(&mut self, key: (TopicId, u32), incarnation: u64) {
        self.taken.insert(key, incarnation);
    }

    /// The same, of a log whose end was not taken over by a refresh yet.
    pub(super) fn note_opened(&mut self, key: (TopicId, u32), incarnation: u64) {
        self.taken.entry(key).or_insert(incarnation);
    }

    pub(super) fn local(&self) -> &[PartitionRecovery] {
        self.local.as_slice()
    }

    pub(super) fn note_local(&mut self, found: PartitionRecovery) {
        self.local = Some(found);
    }

    pub(super) fn unreported(&mut self) -> &mut Refreshed {
        &mut self.unreported
    }

    /// Forgets the partitions of all topics but these.
    pub(super) fn retain(&mut self, is_kept: impl Fn(TopicId) -> bool) {
        self.seen.retain(|(id, _), _| is_kept(*id));
        self.taken.retain(|(id, _), _| is_kept(*id));
    }
}

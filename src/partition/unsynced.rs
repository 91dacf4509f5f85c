//! When the appends at an interval level must be synced. Other levels have no such time.
//!
//! Owns: the bytes since the last sync, and the earliest due time. It is under the partition's
//! lock. Must not know: how a sync is made.

use std::time::Duration;

use super::background::Work;
use crate::config::Durability;

#[derive(Debug, Default)]
pub(super) struct Unsynced {
    bytes: u64,
    /// On the broker's monotonic clock.
    due: Option<Duration>,
}

impl Unsynced {
    /// Notes an append at `now`. Returns the sync to request, if the bytes are reached or the due
    /// time is earlier than it was.
    #[inline]
    pub(super) fn note(
        &mut self,
        bytes: u64,
        level: Durability,
        now: Option<Duration>,
    ) -> Option<Work> {
        let (Durability::Interval { every, bytes: limit }, Some(now)) = (level, now) else {
            return None;
        };
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes >= limit {
            return Some(Work::Sync);
        }
        let due = now.saturating_add(every);
        let is_first = self.due.is_none_or(|known| due < known);
        is_first.then(|| {
            self.due = Some(due);
            Work::SyncLater
        })
    }

    pub(super) fn due(&self) -> Option<Duration> {
        self.due
    }

    /// A sync begins that covers all of it.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

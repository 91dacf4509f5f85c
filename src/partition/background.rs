//! The requests of a partition to its broker: work for the background threads, space for an append
//! that found none, and another read of files that a broker in another process changes.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::PartitionCore;
use crate::error::Result;
use crate::log::read_ahead::Ahead;

/// Work that a partition requests of another thread. Each kind is a bit, so that it is requested
/// once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Space ahead of the writer.
    Space = 1,
    /// A sync, for callers that wait without blocking or because the interval's bytes are full.
    Sync = 2,
    /// A sync, when the interval's time is over.
    SyncLater = 4,
    /// Footers of sealed segments.
    Finish = 8,
    /// Compaction.
    Compact = 16,
    /// The clean-up of an internal log, which the engine does.
    CleanUp = 32,
    /// The next segment: two syncs, for which no space is to wait.
    Next = 64,
}

impl Work {
    const ALL: [Self; 7] = [
        Self::Space,
        Self::Sync,
        Self::SyncLater,
        Self::Finish,
        Self::Compact,
        Self::CleanUp,
        Self::Next,
    ];

    #[inline]
    pub(super) fn bit(self) -> u32 {
        self as u32
    }
}

/// Several kinds of work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct WorkSet(u32);

impl WorkSet {
    #[inline]
    pub(super) fn add_if(&mut self, is_wanted: bool, work: Work) {
        if is_wanted {
            self.0 |= work.bit();
        }
    }

    #[inline]
    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn has(self, work: Work) -> bool {
        self.0 & work.bit() != 0
    }

    pub(super) fn iter(self) -> impl Iterator<Item = Work> {
        Work::ALL.into_iter().filter(move |work| self.0 & work.bit() != 0)
    }
}

/// The services of the broker for a partition.
pub(crate) trait Background: Send + Sync + fmt::Debug {
    /// Hands work to a background thread, or notes it for the next `tick`.
    fn request(&self, partition: &Arc<PartitionCore>, work: Work);

    /// Whether requests are served without a `tick`.
    fn is_running(&self) -> bool;

    /// Whether the broker is closed.
    fn has_ended(&self) -> bool {
        false
    }

    /// Called when an append found no space: makes space as the broker's settings say. Returns
    /// whether the append is to be tried again.
    ///
    /// # Errors
    ///
    /// `Closed` and `UnknownTopic`, for an append that waits for room.
    fn make_room(&self, partition: &Arc<PartitionCore>, want: &mut Want) -> Result<bool>;

    /// Has bytes read from the disk that a reader needs soon. Does not wait.
    fn read_ahead(&self, _ahead: Ahead) {}

    /// Called when a read has failed: reads the files again if a broker in another process writes
    /// to them. Returns whether the read is to be tried again.
    fn read_again(&self, _partition: &PartitionCore) -> bool {
        false
    }
}

/// The request of an append that found no space.
#[derive(Debug)]
pub(crate) struct Want {
    pub(crate) bytes: u64,
    /// Whether the byte budget was used up, and not the disk.
    pub(crate) is_budget: bool,
    /// Whether space was made for this append before, and was not enough.
    pub(crate) is_again: bool,
    /// Whether the caller can be kept waiting.
    pub(crate) may_wait: bool,
    /// Set once it waits for space.
    pub(crate) wait: Option<Wait>,
}

/// An append that waits until space is freed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wait {
    /// How often space had been freed before the last attempt.
    pub(crate) seen: u64,
    /// In real time; `None` for ever.
    pub(crate) until: Option<Instant>,
    pub(crate) is_over: bool,
}

//! The parameters of one append: the expected log end, the producer, the durability and the time.

use std::time::Duration;

use super::lead::LedEpoch;
use crate::clock::RunClock;
use crate::config::Durability;
use crate::error::{Error, Result};
use crate::log::ProducerRequest;
use crate::sync::{AtomicU32, Ordering};

/// The time of an append, on the broker's clocks. Read once, before any lock.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Stamp {
    /// What the wall clock shows, in milliseconds; 0 for appends whose age does not matter.
    pub(crate) wall: u64,
    /// Only where it is needed; see [`SharedLog::stamp`](super::shared::SharedLog::stamp).
    pub(crate) monotonic: Option<Duration>,
}

impl Stamp {
    /// For an append whose age does not matter. It still counts towards an interval.
    pub(super) fn undated(level: Durability, clock: &RunClock) -> Self {
        let is_needed = matches!(level, Durability::Interval { .. });
        Self { wall: 0, monotonic: is_needed.then(|| clock.monotonic()) }
    }
}

/// What an append that was not refused has done, and under which leadership. A duplicate is in the log
/// of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accepted {
    Appended { base_offset: u64, next_offset: u64, led: LedEpoch },
    Duplicate { last_sequence: u64, last_offset: u64, led: LedEpoch },
}

/// A named producer's request, and the check that it has not been superseded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fence<'a> {
    pub(crate) request: ProducerRequest,
    pub(crate) name: &'a str,
    /// The epoch in force; raised by a newer holder before it reads any last sequence.
    pub(crate) current: &'a AtomicU32,
}

impl Fence<'_> {
    /// The request, unless a newer holder has the name.
    ///
    /// # Errors
    ///
    /// [`Error::Fenced`].
    pub(super) fn check(&self) -> Result<&ProducerRequest> {
        // ORDERING: a new holder raises the epoch (Release) before it takes this partition's lock
        // to read the last sequence; so an append after that read sees the new epoch here.
        let current = self.current.load(Ordering::Acquire);
        if current == self.request.epoch {
            Ok(&self.request)
        } else {
            Err(Fence::error(Some(self), current))
        }
    }

    /// The error of a holder that was superseded; without a name for a request without a fence.
    #[cold]
    pub(super) fn error(fence: Option<&Self>, current: u32) -> Error {
        let (name, epoch) = fence.map_or(("", 0), |fence| (fence.name, fence.request.epoch));
        Error::Fenced { id: name.to_owned(), epoch, current }
    }
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct AppendOptions<'a> {
    /// Compare-and-append: what the log end must be.
    pub(crate) expected: Option<u64>,
    pub(crate) producer: Option<Fence<'a>>,
    /// The durability in force, where it is not the partition's: the producer's own.
    pub(crate) level: Option<&'a Durability>,
    pub(crate) stamp: Stamp,
    /// Whether the caller can be held back, for the disk or for space: it holds no lock, and is no
    /// task of an executor.
    pub(crate) is_held: bool,
    /// Whether the caller waits for the other members at once, and announces the records itself.
    #[cfg(feature = "replication")]
    pub(crate) is_announced: bool,
}

impl AppendOptions<'_> {
    /// Whether the caller announces the records to other members.
    #[inline]
    #[cfg_attr(not(feature = "replication"), expect(clippy::unused_self, reason = "no members"))]
    pub(super) fn is_announced(&self) -> bool {
        #[cfg(feature = "replication")]
        return self.is_announced;
        #[cfg(not(feature = "replication"))]
        false
    }
}

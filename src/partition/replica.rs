//! What a partition offers to replication: its epochs, its batches as they are stored, and appends
//! of batches that were received.
//!
//! Uses the shared log, the flusher and the requests, and owns nothing itself. Must not know:
//! members, leadership, frames, and which offsets a majority has.
//!
//! Its caller is the only one who appends to a partition that follows, so that what it looks up
//! without the lock is true when it takes the lock; if it is not, the look is repeated.

use super::PartitionCore;
use super::background::Work;
use super::flusher::Flusher;
use super::requests::Requests;
use super::shared::SharedLog;
use crate::config::Durability;
use crate::error::{Error, Result};
use crate::format::SparseIndex;
use crate::log::locate;
use crate::log::replica::append::{self, Terms};
use crate::log::replica::feed::{self, FeedLimits, Portion};
use crate::log::replica::history::{EpochEnd, History};
use crate::log::replica::received::{Received, Refusal};
use crate::log::segment::Segment;

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

/// What a follower is given.
#[derive(Debug)]
pub(crate) enum Fed {
    /// Whole batches, from the one that holds the offset on. None at the end of the log.
    Batches(Vec<Portion>),
    /// The offset is below the log start, or above the log end.
    OutOfRange { log_start: u64, log_end: u64 },
}

#[derive(Clone, Copy)]
pub(crate) struct Replica<'a> {
    log: &'a SharedLog,
    flusher: Flusher<'a>,
    requests: &'a Requests,
    durability: Durability,
}

impl<'a> Replica<'a> {
    pub(crate) fn of(core: &'a PartitionCore) -> Self {
        let (log, flusher) = (&core.log, core.flusher());
        Self { log, flusher, requests: &core.requests, durability: core.durability }
    }

    // ---- epochs --------------------------------------------------------------------------------

    /// The epoch and the end of the last batch; `None` if there is no batch.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if damage hides it, and errors of the disk.
    pub(crate) fn last(self) -> Result<Option<EpochEnd>> {
        self.look().map(|(_, last)| last)
    }

    /// The greatest epoch that is not above `epoch`, and its end: see [`History::end_of`].
    ///
    /// # Errors
    ///
    /// As of [`last`](Self::last).
    pub(crate) fn end_of(self, epoch: u32) -> Result<Option<EpochEnd>> {
        self.with_history(|history| history.end_of(epoch))
    }

    /// The epoch of the last batch that begins below `offset`; `None` if there is none.
    ///
    /// # Errors
    ///
    /// As of [`last`](Self::last).
    pub(crate) fn epoch_before(self, offset: u64) -> Result<Option<u32>> {
        self.with_history(|history| history.epoch_before(offset))
    }

    /// Sets the epoch that appends write from here on.
    ///
    /// # Errors
    ///
    /// It is below one that the log has; those of a partition that takes no appends; and those of
    /// [`last`](Self::last).
    pub(crate) fn set_epoch(self, epoch: u32) -> Result<(), Failure> {
        loop {
            let (end, last) = self.look()?;
            let mut state = self.log.lock_for_writing()?;
            if state.log().log_end() == end {
                let last = last.map(|last| last.epoch);
                return Ok(append::set_epoch(state.log_mut(), epoch, last)?);
            }
        }
    }

    fn with_history<R>(self, ask: impl FnOnce(&History<'_>) -> Result<R>) -> Result<R> {
        self.log.status().check_open()?;
        self.log.status().check_available()?;
        let index_of = |segment: &Segment| -> Option<SparseIndex> {
            locate::whole_index_of(self.log.lock().log(), segment)
        };
        ask(&History::new(self.log.segments(), &index_of))
    }

    /// The log end, and the last batch at that moment or later.
    fn look(self) -> Result<(u64, Option<EpochEnd>)> {
        let (end, tail) = {
            let state = self.log.lock();
            let log = state.log();
            let active = log.appender().active();
            let tail = active.map(|it| (it.segment().clone(), it.contents().last_batch));
            (log.log_end(), tail)
        };
        // Mostly it is in memory.
        if let Some((segment, position)) = tail
            && let Some(last) = EpochEnd::at(segment, position)?
            && last.end_offset == end
        {
            return Ok((end, Some(last)));
        }
        Ok((end, self.with_history(|history| history.end_of(u32::MAX))?))
    }

    // ---- reads ---------------------------------------------------------------------------------

    /// Reads whole batches from the one that holds `offset` on: at most `bytes`, and at least one
    /// batch, if there is one. All that is published is read, also what readers do not see yet.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if the next batch is damaged or missing; what is damaged is never handed
    /// on. Those of a closed or unavailable partition, and errors of the disk.
    pub(crate) fn read(self, offset: u64, bytes: usize) -> Result<Fed> {
        self.log.status().check_open()?;
        self.log.status().check_available()?;
        let ends = self.log.ends();
        // After a failed sync only what is durable is known to stay.
        let end = if ends.is_poisoned() { ends.durable() } else { ends.end() };
        let out_of_range = || Fed::OutOfRange { log_start: ends.start(), log_end: end };
        if offset < ends.start() || offset > end {
            return Ok(out_of_range());
        }
        let index_of = |segment: &Segment| {
            let state = self.log.lock();
            locate::index_of(state.log(), segment).map(|index| locate::floor(index, offset))
        };
        let limits = FeedLimits { bytes, end };
        match feed::read(self.log.segments(), offset, limits, &index_of) {
            Ok(portions) => Ok(Fed::Batches(portions)),
            Err(_) if self.log.status().is_closed() => Err(self.log.status().closed()),
            Err(error) => {
                // Segments leave the list before the log start is published, both under this lock.
                drop(self.log.lock());
                if offset < ends.start() { Ok(out_of_range()) } else { Err(error) }
            }
        }
    }

    // ---- appends -------------------------------------------------------------------------------

    /// Appends and publishes batches that were received, byte for byte except for their local
    /// part. Below `sparse_below` there may be gaps. Returns the log end. Waits for no sync.
    ///
    /// # Errors
    ///
    /// A refusal changes nothing. After an error of the disk the batches before it are appended:
    /// the log end says which.
    pub(crate) fn append(self, received: &Received<'_>, sparse_below: u64) -> Result<u64, Failure> {
        let clock = self.log.clock();
        let (now, monotonic) = (clock.moment(), clock.monotonic());
        loop {
            let (end, last) = self.look()?;
            let mut state = self.log.lock_for_writing()?;
            if state.log().log_end() != end {
                continue;
            }
            let terms = Terms { last_epoch: last.map(|last| last.epoch), sparse_below };
            append::admit(state.log(), received, &terms)?;
            state.log_mut().set_now(now);
            let (appended, fired, wanted) =
                state.append_received(received, self.durability, Some(monotonic));
            let end = state.log().log_end();
            state.publish_end(end);
            drop(state);
            fired.notify();
            self.requests.request_all(wanted);
            if wanted.has(Work::Finish) {
                self.flusher.hold_producer();
            }
            return Ok(appended.map(|()| end)?);
        }
    }
}

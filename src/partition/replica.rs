//! What a partition offers to replication: its epochs, its batches as they are stored, and appends
//! of batches that were received.
//!
//! Uses the shared log, the flusher and the requests, and owns nothing itself. Must not know:
//! members, leadership, frames, and which offsets a majority has.
//!
//! Its caller is the only one who appends to a partition that follows, so that what it looks up
//! without the lock is true when it takes the lock; if it is not, the look is repeated.

use std::io::ErrorKind;
use std::sync::Arc;

use super::PartitionCore;
use super::background::Work;
use super::flusher::Flusher;
use super::group_commit::SyncGate;
use super::requests::Requests;
use super::shared::SharedLog;
use super::state::State;
use crate::config::Durability;
use crate::error::{Error, Result};
use crate::format::SparseIndex;
use crate::log::locate;
use crate::log::replica::append::{self, Terms};
use crate::log::replica::cut::{self, Cut, CutOff, Ends};
use crate::log::replica::feed::{self, FeedLimits, Portion};
use crate::log::replica::history::{EpochEnd, History};
use crate::log::replica::received::Received;
use crate::log::replica::refusal::Failure;
use crate::log::segment::Segment;
use crate::log::tasks::SyncScope;
use crate::storage::disk::Disk;

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
    gate: &'a SyncGate,
    durability: Durability,
}

impl<'a> Replica<'a> {
    pub(crate) fn of(core: &'a PartitionCore) -> Self {
        let PartitionCore { log, requests, gate, durability, .. } = core;
        let (flusher, durability) = (core.flusher(), *durability);
        Self { log, flusher, requests, gate, durability }
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
        ask(&History::new(self.log.segments(), self.log.ends().start(), &index_of))
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

    // ---- truncation ----------------------------------------------------------------------------

    /// Cuts off everything at and above `offset`, and the batch that holds it, durably. Returns the
    /// log end. What is kept is durable then. Messages that are held stay as they are; no reader
    /// has seen what is cut off, because nothing below the high watermark is.
    ///
    /// # Errors
    ///
    /// A refusal if something below `bound` would be cut off, and an error before the new segment
    /// gets its name, change nothing. After an error later than that it is not known whether the
    /// log is cut, and the partition is poisoned.
    pub(crate) fn truncate(self, offset: u64, bound: u64) -> Result<u64, Failure> {
        let ends = self.log.ends();
        let watermark = if ends.is_replicated() { ends.watermark() } else { 0 };
        let bound = bound.max(watermark);
        self.change(|ends| {
            self.with_history(|history| Ok(cut::plan(history, ends, offset, bound)))?
        })
    }

    /// Drops all there is, and continues at `offset`. The caller has noted it durably as the log
    /// start before, so that an opening after a crash finds the log there, or can be followed by
    /// another call.
    ///
    /// # Errors
    ///
    /// A refusal if the log begins above `offset` already; otherwise as of
    /// [`truncate`](Self::truncate).
    pub(crate) fn begin_anew(self, offset: u64) -> Result<u64, Failure> {
        self.change(|ends| cut::plan_anew(ends, offset).map(Some))
    }

    /// Makes the log durable, plans a cut and carries it out, while no sync is in flight.
    fn change(
        self,
        plan: impl FnOnce(Ends) -> Result<Option<Cut>, Failure>,
    ) -> Result<u64, Failure> {
        self.log.status().check_process()?;
        // The new file and those that are removed are named by path.
        let _changing = self.log.begin_disk_work()?;
        self.gate.run_alone(|| {
            self.flusher.sync_once(SyncScope::All)?;
            let ends = *self.log.lock_for_writing()?.log().ends();
            let Some(cut) = plan(ends)? else { return Ok(ends.durable_end()) };
            let task = {
                let mut state = self.log.lock_for_writing()?;
                self.check_unchanged(&state, ends)?;
                cut.begin(state.log_mut())?
            };
            let mut is_named = false;
            let made = self.log.guard(|| task.run(&mut is_named));
            let mut state = self.log.lock_for_writing()?;
            let made = made.map_err(Failure::Failed);
            let made = made.and_then(|made| self.check_unchanged(&state, ends).map(|()| made));
            let made = match made {
                Err(Failure::Failed(error)) if is_named => {
                    state.poison(error.clone());
                    return Err(error.into());
                }
                made => made?,
            };
            let cut_off = state.cut(cut, made);
            state.publish_cut();
            let (end, disk) = (state.log().log_end(), Arc::clone(&state.log().env().disk));
            drop(state);
            if let Err(error) = Self::remove(cut_off, &*disk) {
                // If a compaction replaced the new segment, nothing would say any more that these
                // files do not count.
                self.log.lock().poison(error.clone());
                return Err(error.into());
            }
            Ok(end)
        })
    }

    /// Only the caller may append meanwhile, and it does not.
    fn check_unchanged(self, state: &State, planned: Ends) -> Result<(), Failure> {
        if *state.log().ends() == planned {
            return Ok(());
        }
        let (expected, found) = (planned.log_end(), state.log().log_end());
        Err(Error::wrong_offset(self.log.origin(), expected, found).into())
    }

    /// Removes the files that were cut off, durably.
    fn remove(cut_off: CutOff, disk: &dyn Disk) -> Result<()> {
        let CutOff { segments, prepared, .. } = cut_off;
        for unused in prepared {
            unused.discard(disk);
        }
        for segment in &segments {
            match segment.remove_file() {
                Err(source) if source.kind() != ErrorKind::NotFound => {
                    return Err(Error::io("remove", &segment.path, source));
                }
                _ => {}
            }
        }
        segments.first().map_or(Ok(()), |first| first.sync_dir())
    }
}

//! What a partition offers to replication: its epochs, its batches as they are stored, and appends
//! of batches that were received.
//!
//! Uses the shared log, the flusher and the requests, and owns nothing itself. Must not know:
//! members, leadership, frames, and which offsets a majority has.
//!
//! Its caller is the only one who appends to a partition that follows, so that what it looks up
//! without the lock is true when it takes the lock; if it is not, the look is repeated.
//!
//! # A truncation has the log to itself
//!
//! A truncation is planned and made durable without the partition's lock, and its new segment counts
//! from the moment at which that has its name. What changed the log in between would contradict it
//! after a crash: a segment that was begun meanwhile has the new rewrite number, so it is not cut off;
//! a compaction that was given a later number brings back what it has read; the plan may rest on
//! segments that were removed. Also, what is believed of a record above the cut (that it is durable,
//! that a majority has it) must not become known then. So nothing else happens to the log, from
//! before it is read for the plan until the files that were cut off are removed, on every way out:
//!
//! 1. No file is given up: it counts as work on the disk ([`disk_work`](super::disk_work)).
//! 2. No compaction is under way, and none begins ([`Compactor::suspend`]). First of those that
//!    wait, because a step of a compaction may wait for 4.
//! 3. No sync is in flight ([`SyncGate::run_alone`]).
//! 4. No append, roll, removal or preparation of a segment, no move of the log start or of the
//!    watermark, and no end of appends ([`guard`](super::guard)).
//!
//! Each of these waits for the truncation. They do not fail and come back later: a truncation takes a
//! few syncs, a caller of `delete_records` would have to wait anyway, and what waits need not be
//! remembered. A truncation waits for nothing but the disk once it has all four, so none waits for
//! ever.
//!
//! Footers are written beside it. One that was begun before says where its segment ended then, as a
//! footer from before the truncation does, and the new segment has the later number.

use std::io::ErrorKind;
use std::sync::Arc;

use super::PartitionCore;
use super::background::Work;
use super::compactor::{Compactor, Occasion};
use super::flusher::Flusher;
use super::group_commit::SyncGate;
use super::requests::Requests;
use super::shared::{SharedLog, check_usable};
use crate::config::Durability;
use crate::error::{Error, Result};
use crate::format::SparseIndex;
use crate::log::locate;
use crate::log::replica::append::{self, First, Terms};
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
    compactor: Compactor<'a>,
    requests: &'a Requests,
    gate: &'a SyncGate,
    durability: Durability,
}

impl<'a> Replica<'a> {
    pub(crate) fn of(core: &'a PartitionCore) -> Self {
        let PartitionCore { log, requests, gate, durability, .. } = core;
        let (flusher, compactor, durability) = (core.flusher(), core.compactor(), *durability);
        Self { log, flusher, compactor, requests, gate, durability }
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

    /// Whether batches that were received continue the log: what [`append`](Self::append) would refuse
    /// before anything is changed.
    ///
    /// # Errors
    ///
    /// As of [`append`](Self::append).
    pub(crate) fn admits(self, received: &Received<'_>, sparse_below: u64) -> Result<(), Failure> {
        let (_, last) = self.look()?;
        let state = self.log.lock_for_writing()?;
        let terms = Terms { last_epoch: last.map(|last| last.epoch), sparse_below };
        Ok(append::admit(state.log(), received, &terms)?)
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
        self.change(true, |ends| {
            let published = self.log.ends();
            let watermark = if published.is_replicated() { published.watermark() } else { 0 };
            let bound = bound.max(watermark);
            self.with_history(|history| Ok(cut::plan(history, ends, offset, bound)))?
        })
    }

    /// Drops all there is, and continues at `offset`. The caller has noted it durably as the log
    /// start before, so that an opening after a crash finds the log there, or can be followed by
    /// another call. If `offset` lies within the next batch, `first` begins with that.
    ///
    /// # Errors
    ///
    /// A refusal if the log begins above `offset` already; otherwise as of
    /// [`truncate`](Self::truncate).
    pub(crate) fn begin_anew(
        self,
        offset: u64,
        first: Option<&Received<'_>>,
    ) -> Result<u64, Failure> {
        let first = first.and_then(First::of);
        self.change(false, |ends| cut::plan_anew(ends, offset, first).map(Some))
    }

    /// Plans a cut and carries it out, while nothing else happens to the log. What is kept of it is
    /// made durable before, if anything is: damage need not allow that.
    fn change(
        self,
        keeps_some: bool,
        plan: impl FnOnce(Ends) -> Result<Option<Cut>, Failure>,
    ) -> Result<u64, Failure> {
        self.log.status().check_process()?;
        // The new file and those that are removed are named by path.
        let _changing = self.log.begin_disk_work()?;
        let suspended = self.compactor.suspend();
        let changed = self.gate.run_alone(keeps_some, || {
            let _reserved = self.log.state().reserve(|state| check_usable(self.log, state))?;
            if keeps_some {
                self.flusher.sync_once(SyncScope::All)?;
            }
            let ends = *self.log.lock().log().ends();
            let Some(cut) = plan(ends)? else { return Ok(ends.durable_end()) };
            self.carry_out(cut)
        });
        drop(suspended);
        // What was to be compacted still is.
        self.compactor.request(Occasion::Due);
        changed
    }

    fn carry_out(self, cut: Cut) -> Result<u64, Failure> {
        let task = cut.begin(self.log.lock().log_mut())?;
        let mut is_named = false;
        let made = self.log.state().guard(|| task.run(&mut is_named));
        let mut state = self.log.lock();
        let made = match made {
            Err(error) if is_named => {
                state.poison(error.clone());
                return Err(error.into());
            }
            made => made?,
        };
        if state.has_ended() {
            // The next opening finds the log cut.
            return Err(self.log.status().closed().into());
        }
        if let Some(failure) = state.failure() {
            return Err(failure.clone().into());
        }
        let cut_off = state.cut(cut, made);
        state.publish_cut();
        let (end, disk) = (state.log().log_end(), Arc::clone(&state.log().env().disk));
        drop(state);
        if let Err(error) = Self::remove(cut_off, &*disk) {
            // If a compaction replaced the new segment, nothing would say any more that these files
            // do not count.
            self.log.lock().poison(error.clone());
            return Err(error.into());
        }
        Ok(end)
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

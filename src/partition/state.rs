//! The state under the partition's lock: the log, and all that must change together with it.
//!
//! Owns: the log, the waiting readers, the bytes that are not synced yet, the counts, and whether
//! appends are allowed. Must not know: the lock, other threads, the disk's syncs, the clock. Calls
//! return what is to be done after the lock is released: readers to notify, work to request.
//!
//! Invariants:
//! 1. After a failure nothing is appended, and no later sync is believed.
//! 2. After the close nothing is appended; earlier records can still become durable.
//! 3. While a truncation has reserved the log, nothing else appends to it, begins a segment or
//!    removes one.
//!
//! [`check`](State::check) holds that nothing is appended after either. What refuses a sync after a
//! failure is [`begin_sync`](State::begin_sync). Debug builds assert the third where it would break.

use std::sync::Arc;
use std::time::Duration;

use super::append::{Accepted, AppendOptions, Fence};
use super::background::{Work, WorkSet};
use super::lead::LedEpoch;
use super::metrics::Counts;
#[cfg(feature = "replication")]
use super::uncommitted::Uncommitted;
use super::unsynced::Unsynced;
use super::waiters::{Awaits, Fired, WaitList};
use crate::config::Durability;
use crate::error::{Error, Result};
use crate::format::EncodedBatch;
#[cfg(feature = "replication")]
use crate::log::replica::{
    append::append as append_received,
    cut::{Cut, CutOff, Made, apply},
    received::Received,
};
use crate::log::segment::Segment;
use crate::log::tasks::{SyncScope, SyncTask};
use crate::log::{Checkpoint, Log, Outcome, ProducerRequest, Way};

pub(super) struct State {
    log: Log,
    waiters: WaitList,
    unsynced: Unsynced,
    counts: Counts,
    failure: Option<Error>,
    has_ended: bool,
    /// Where the log ended when appends did.
    stopped_at: Option<u64>,
    /// Whether the log changed since its last recovery point.
    has_changed: bool,
    /// How many threads wait for the log, if it is reserved.
    #[cfg(feature = "replication")]
    reserved: Option<u32>,
    #[cfg(feature = "replication")]
    uncommitted: Uncommitted,
}

impl State {
    pub(super) fn new(log: Log) -> Self {
        Self {
            counts: Counts::since(log.log_end()),
            log,
            waiters: WaitList::default(),
            unsynced: Unsynced::default(),
            failure: None,
            has_ended: false,
            stopped_at: None,
            has_changed: true,
            #[cfg(feature = "replication")]
            reserved: None,
            #[cfg(feature = "replication")]
            uncommitted: Uncommitted::default(),
        }
    }

    #[inline]
    pub(super) fn log(&self) -> &Log {
        &self.log
    }

    #[inline]
    pub(super) fn log_mut(&mut self) -> &mut Log {
        &mut self.log
    }

    pub(super) fn waiters(&mut self) -> &mut WaitList {
        &mut self.waiters
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    // ---- what may be done --------------------------------------------------------------------

    #[inline]
    pub(super) fn failure(&self) -> Option<&Error> {
        self.failure.as_ref()
    }

    /// Refuses all later appends, and ignores the results of later syncs.
    pub(super) fn fail(&mut self, failure: Error) {
        self.failure.get_or_insert(failure);
        self.stopped_at.get_or_insert(self.log.log_end());
        // The disk may have more than is known in memory.
        self.has_changed = true;
    }

    #[inline]
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Ends appends: the log end is final.
    pub(super) fn end_appends(&mut self) {
        self.has_ended = true;
        self.stopped_at.get_or_insert(self.log.log_end());
    }

    /// Whether appends have neither ended nor failed.
    #[inline]
    pub(super) fn is_usable(&self) -> bool {
        !self.has_ended && self.failure.is_none()
    }

    #[cfg(feature = "replication")]
    fn assert_changeable(&self) {
        debug_assert_eq!(self.reserved, None, "a truncation is under way");
    }

    #[cfg(not(feature = "replication"))]
    #[expect(clippy::unused_self, reason = "nothing is truncated")]
    fn assert_changeable(&self) {}

    fn assert_valid(&self) {
        debug_assert_eq!(self.check(), Ok(()));
    }

    /// What is wrong, if anything: the parts of both invariants that speak of appends.
    pub(super) fn check(&self) -> std::result::Result<(), &'static str> {
        match self.stopped_at {
            Some(end) if self.log.log_end() != end => Err("appended after the close or a failure"),
            _ => Ok(()),
        }
    }

    // ---- appends -----------------------------------------------------------------------------

    /// The critical section of an append. Returns the readers to notify and the work to request;
    /// for a duplicate there are none.
    ///
    /// # Errors
    ///
    /// [`Error::WrongOffset`], [`Error::Fenced`], and those of [`Log::append`]. All leave the log
    /// unchanged.
    #[inline]
    pub(super) fn append(
        &mut self,
        batch: &mut EncodedBatch<'_>,
        producer: Option<&ProducerRequest>,
        options: &AppendOptions<'_>,
        level: Durability,
        led: LedEpoch,
    ) -> Result<(Accepted, Fired, WorkSet)> {
        self.assert_changeable();
        if let Some(expected) = options.expected
            && expected != self.log.log_end()
        {
            let partition = &self.log.factory().identity().origin;
            return Err(Error::wrong_offset(partition, expected, self.log.log_end()));
        }
        let way = if level == Durability::Sync { Way::ToFile } else { Way::AsUsual };
        match self.log.append(batch, producer, way)? {
            Outcome::Appended { base_offset, next_offset } => {
                let bytes =
                    u64::from(batch.size(producer.is_some_and(ProducerRequest::is_stamped)));
                self.counts.note_append(bytes);
                let sync = self.unsynced.note(bytes, level, options.stamp.monotonic);
                let (fired, wanted) = self.after_append(sync);
                self.assert_valid();
                Ok((Accepted::Appended { base_offset, next_offset, led }, fired, wanted))
            }
            Outcome::Duplicate { last_sequence, last_offset } => {
                let duplicate = Accepted::Duplicate { last_sequence, last_offset, led };
                Ok((duplicate, Fired::default(), WorkSet::default()))
            }
            Outcome::Fenced { current } => Err(Fence::error(options.producer.as_ref(), current)),
        }
    }

    /// Appends batches that were received from a leader, and that were admitted. Whatever the
    /// result, readers are to be notified and work is to be requested.
    #[cfg(feature = "replication")]
    pub(super) fn append_received(
        &mut self,
        received: &Received<'_>,
        level: Durability,
        monotonic: Option<Duration>,
    ) -> (Result<()>, Fired, WorkSet) {
        self.assert_changeable();
        let before = self.log.log_end();
        let appended = append_received(&mut self.log, received);
        if self.log.log_end() == before {
            return (appended, Fired::default(), WorkSet::default());
        }
        let bytes = received.bytes.len() as u64;
        self.counts.note_append(bytes);
        let sync = self.unsynced.note(bytes, level, monotonic);
        let (fired, wanted) = self.after_append(sync);
        self.assert_valid();
        (appended, fired, wanted)
    }

    /// Cuts the log, whose new segment is made. What is returned is dropped without the lock.
    #[cfg(feature = "replication")]
    pub(super) fn cut(&mut self, cut: Cut, made: Made) -> CutOff {
        self.has_changed = true;
        apply(&mut self.log, cut, made)
    }

    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "one call per record, also where the feature `replication` adds a caller"
    )]
    fn after_append(&mut self, sync: Option<Work>) -> (Fired, WorkSet) {
        self.has_changed = true;
        let fired = if self.waiters.any_armed() {
            self.waiters.fire(Awaits::Published)
        } else {
            Fired::default()
        };
        let mut wanted = WorkSet::default();
        wanted.add_if(self.log.appender_mut().wants_space(), Work::Space);
        wanted.add_if(self.log.appender().wants_next(), Work::Next);
        wanted.add_if(self.waiters.any_awaits_durable(), Work::Sync);
        if let Some(sync) = sync {
            wanted.add_if(true, sync);
        }
        wanted.add_if(self.log.backlog_mut().take_request(), Work::Finish);
        (fired, wanted)
    }

    /// When an interval is over, if there are bytes to sync at that level.
    pub(super) fn sync_due(&self) -> Option<Duration> {
        self.unsynced.due()
    }

    // ---- syncs -------------------------------------------------------------------------------

    /// The task of a sync that begins now.
    ///
    /// # Errors
    ///
    /// The earlier failure.
    pub(super) fn begin_sync(&mut self, scope: SyncScope) -> Result<SyncTask> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        if scope == SyncScope::All {
            self.unsynced.clear();
        }
        Ok(self.log.begin_sync(scope))
    }

    /// Records that a sync has succeeded, and how long it took. Returns the readers that wait for
    /// it, to be notified.
    pub(super) fn finish_sync(&mut self, task: &SyncTask, took: Duration) -> Fired {
        self.counts.note_sync(task, took);
        self.log.finish_sync(task);
        self.assert_valid();
        self.waiters.fire(Awaits::Durable)
    }

    // ---- removal and recovery points -----------------------------------------------------------

    /// Removes up to `count` segments below `start` from the log.
    pub(super) fn retire(&mut self, start: u64, count: usize) -> Vec<Arc<Segment>> {
        self.assert_changeable();
        let before = self.log.log_start();
        let removed = self.log.retire(start, count);
        self.counts.note_removal(before..self.log.log_start(), &removed);
        removed
    }

    /// Begins a new segment of at least so many bytes.
    ///
    /// # Errors
    ///
    /// The error of the disk; the log is unchanged.
    pub(super) fn roll_for(&mut self, bytes: usize) -> Result<()> {
        self.assert_changeable();
        self.log.roll_for(bytes)?;
        self.has_changed = true;
        Ok(())
    }

    #[inline]
    pub(super) fn has_changed(&self) -> bool {
        self.has_changed
    }

    /// The recovery point of a log that changed since the last one, if all of it is durable.
    pub(super) fn take_checkpoint(&mut self) -> Option<Checkpoint> {
        let point = self.log.checkpoint()?;
        self.has_changed = false;
        Some(point)
    }

    /// Takes back the last recovery point, which was not stored.
    pub(super) fn give_back_checkpoint(&mut self) {
        self.has_changed = true;
    }
}

/// A truncation is under way.
#[cfg(feature = "replication")]
impl State {
    /// What lies above the high watermark; see [`Uncommitted`].
    pub(super) fn uncommitted(&mut self) -> &mut Uncommitted {
        &mut self.uncommitted
    }

    pub(super) fn reserve(&mut self) {
        self.reserved = Some(0);
    }

    pub(super) fn give_back(&mut self) {
        self.reserved = None;
    }

    /// Whether the caller has to wait. Counts it then.
    #[inline]
    pub(super) fn awaits_reserved(&mut self) -> bool {
        self.reserved.as_mut().map(|waiting| *waiting = waiting.saturating_add(1)).is_some()
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> u32 {
        self.reserved.unwrap_or(0)
    }
}

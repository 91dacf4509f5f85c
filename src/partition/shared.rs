//! The log of a partition as its threads share it: behind a lock, with its ends published.
//!
//! Owns: the lock and the state under it, the published ends, the partition's status, the count of
//! work on its files, and the clock that dates its changes. The parts above it (flusher, reader,
//! retention, footers, compactor) use the log only through this one. Must not know: those parts,
//! the background threads, topics, brokers, groups.
//!
//! Invariants:
//! 1. An end is published under the lock, after the change that it stands for.
//! 2. No application code runs under the lock, except the clone of a waker: the clock is read
//!    before it. Nor does a sync, an allocation ahead or the wake-up of a thread.
//! 3. Named producers are admitted under the lock, with the epoch in force at that moment.
//! 4. What changes the log waits while that is reserved ([`guard`](super::guard)).

use std::sync::Arc;
use std::time::Duration;

use super::append::{Accepted, AppendOptions, Stamp};
use super::background::WorkSet;
use super::disk_work::{DiskWork, Running};
use super::encode::stored_millis;
use super::ends::Ends;
use super::guard::{StateGuard, StateLock};
use super::lead::PartitionLead;
use super::lineage::Lineage;
use super::state::State;
use super::status::Status;
use super::waiters::{Fired, Notifier};
use crate::clock::{Moment, RunClock, to_millis_now};
use crate::config::Durability;
use crate::error::{Error, Result};
use crate::format::EncodedBatch;
use crate::format::ProducerState;
use crate::log::retention::Tail;
use crate::log::segment::SegmentList;
use crate::log::{Checkpoint, Log};
use crate::record::TopicPartition;
#[cfg(feature = "testing")]
use crate::seams::Seams;
use crate::sync::{AtomicU64, Ordering};
use crate::trace::Outbox;

/// LIMIT: how long a named producer's numbers are remembered without use: longer than a source is
/// likely to be down. It bounds the memory for ids that are used only once.
pub(crate) const PRODUCER_EXPIRY: Duration = Duration::from_secs(30 * 24 * 60 * 60);

pub(crate) struct SharedLog {
    status: Status,
    state: StateLock,
    segments: Arc<SegmentList>,
    lineage: Lineage,
    lead: PartitionLead,
    disk_work: DiskWork,
    clock: RunClock,
    trace: Outbox,
    #[cfg(feature = "testing")]
    pub(crate) seams: Seams,
    /// The wall clock when the log's time was last set. ORDERING: Relaxed, written under the lock
    /// after the log's time was set: a thread that finds its own reading here takes the lock later.
    wall_seen: AtomicU64,
}

impl SharedLog {
    pub(super) fn new(
        mut log: Log,
        status: Status,
        lineage: Lineage,
        lead: PartitionLead,
        clock: RunClock,
    ) -> Self {
        log.set_now(clock.moment());
        Self {
            status,
            segments: Arc::clone(log.segments()),
            lineage,
            lead,
            disk_work: DiskWork::new(),
            clock,
            trace: log.env().trace.clone(),
            #[cfg(feature = "testing")]
            seams: log.env().seams.clone(),
            wall_seen: AtomicU64::new(0),
            state: StateLock::new(State::new(log)),
        }
    }

    pub(super) fn origin(&self) -> &Arc<TopicPartition> {
        self.status.origin()
    }

    #[inline]
    pub(crate) fn status(&self) -> &Status {
        &self.status
    }

    #[inline]
    pub(crate) fn ends(&self) -> &Ends {
        self.state.ends()
    }

    pub(super) fn lead(&self) -> &PartitionLead {
        &self.lead
    }

    pub(crate) fn segments(&self) -> &Arc<SegmentList> {
        &self.segments
    }

    pub(crate) fn clock(&self) -> &RunClock {
        &self.clock
    }

    pub(crate) fn trace(&self) -> &Outbox {
        &self.trace
    }

    // ---- the lock ----------------------------------------------------------------------------

    /// For who reads, or notes what has become of something begun before.
    #[inline]
    pub(super) fn lock(&self) -> StateGuard<'_> {
        self.state.lock()
    }

    /// The lock, to take it in other ways.
    pub(super) fn state(&self) -> &StateLock {
        &self.state
    }

    /// Takes the lock for a change of stored data.
    ///
    /// # Errors
    ///
    /// [`Error::Forked`], [`Error::Closed`], [`Error::UnknownTopic`], [`Error::Corrupt`] and
    /// [`Error::Poisoned`].
    #[inline]
    pub(super) fn lock_for_writing(&self) -> Result<StateGuard<'_>> {
        self.status.check_process()?;
        let state = self.state.lock_for_change();
        check_usable(self, &state)?;
        Ok(state)
    }

    /// Runs `change` on the log under the partition's lock, then publishes its ends.
    pub(crate) fn with_log<R>(&self, change: impl FnOnce(&mut Log) -> R) -> R {
        let mut state = self.state.lock_for_change();
        let result = change(state.log_mut());
        state.publish();
        result
    }

    /// Begins work on the files that the lock does not cover.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] or [`Error::UnknownTopic`] for a closed partition, whose files are
    /// released.
    pub(super) fn begin_disk_work(&self) -> Result<Running<'_>> {
        self.disk_work.begin().ok_or_else(|| self.status.closed())
    }

    pub(super) fn disk_work(&self) -> &DiskWork {
        &self.disk_work
    }

    // ---- appends -----------------------------------------------------------------------------

    /// The time of an append that begins now. The monotonic clock is read only if it is needed. The
    /// log's time is set only if the wall clock has moved, and for most appends of a fast producer
    /// it has not.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the clock shows a time that cannot be stored.
    #[inline]
    pub(crate) fn stamp(&self, level: Durability, is_named: bool) -> Result<Stamp> {
        let wall = stored_millis(to_millis_now(self.clock.now()))?;
        let is_needed = is_named
            || matches!(level, Durability::Interval { .. })
            || self.wall_seen.load(Ordering::Relaxed) != wall;
        Ok(Stamp { wall, monotonic: is_needed.then(|| self.clock.monotonic()) })
    }

    /// Appends and publishes a batch. Also returns the work that is to be done without the lock.
    #[inline]
    pub(super) fn append(
        &self,
        batch: &mut EncodedBatch<'_>,
        options: &AppendOptions<'_>,
        level: Durability,
    ) -> Result<(Accepted, Fired, WorkSet)> {
        let Stamp { wall, monotonic } = options.stamp;
        batch.expect(self.ends().end(), self.ends().durable());
        // As `lock_for_writing`, whose guard would come back through memory: it would be read before
        // it has got there, which costs five nanoseconds.
        self.status.check_process()?;
        let mut state = self.state.lock_for_change();
        check_usable(self, &state)?;
        if let Some(monotonic) = monotonic
            && (options.producer.is_some() || self.wall_seen.load(Ordering::Relaxed) != wall)
        {
            state.log_mut().set_now(Moment { wall, run: self.clock.run_at(monotonic) });
            self.wall_seen.store(wall, Ordering::Relaxed);
        }
        let led = self.lead.check(state.log().epochs().leader_epoch)?;
        if led.is_some() {
            check_room(&self.lead, &mut state, batch)?;
        }
        let producer = options.producer.as_ref().map(super::append::Fence::check).transpose()?;
        let appended = state.append(batch, producer, options, level, led)?;
        if let Accepted::Appended { next_offset, .. } = appended.0 {
            state.publish_end(next_offset);
            if led.is_some() {
                note_uncommitted(&self.lead, &mut state, batch, next_offset);
            }
        }
        Ok(appended)
    }

    // ---- what is known of the log ------------------------------------------------------------

    /// Leader epoch and incarnation: what a committed offset refers to.
    pub(crate) fn incarnation(&self) -> (u32, u64) {
        let state = self.state.lock();
        let epochs = state.log().epochs();
        (epochs.leader_epoch, epochs.incarnation)
    }

    /// The recoveries of this log; in a read-only broker, the cuts that it has noticed.
    pub(crate) fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    pub(crate) fn producer(&self, id: u64) -> Option<ProducerState> {
        self.state.lock().log().producer(id).copied()
    }

    #[cfg(test)]
    pub(crate) fn last_sequence(&self, producer: u64) -> Option<u64> {
        self.producer(producer).map(|state| state.last_sequence)
    }

    /// Whether the numbers of a producer are remembered, as far as is known.
    pub(crate) fn may_remember(&self, producer: u64) -> bool {
        let now = self.clock.moment();
        let mut state = self.state.lock();
        state.log_mut().set_now(now);
        state.log_mut().expire_producers(PRODUCER_EXPIRY);
        !self.status.is_available() || state.log().producer(producer).is_some()
    }

    /// The last segment, as retention sees it at `now`. `None` if the partition is closed or
    /// poisoned: the files after a failed sync are evidence.
    pub(super) fn tail(&self, now: Moment) -> Option<Tail> {
        let mut state = self.state.lock();
        if !state.is_usable() || !self.status.is_available() {
            return None;
        }
        state.log_mut().set_now(now);
        // The next append reads the monotonic clock again, also if the wall clock does not move.
        self.wall_seen.store(u64::MAX, Ordering::Relaxed);
        Tail::of(state.log())
    }

    /// When an interval is over, if there are bytes to sync at that level.
    pub(crate) fn sync_due(&self) -> Option<Duration> {
        self.state.lock().sync_due()
    }

    // ---- recovery points ---------------------------------------------------------------------

    /// A recovery point, if the log changed since the last one and is durable.
    pub(crate) fn take_checkpoint(&self) -> Option<Checkpoint> {
        let now = self.clock.moment();
        let mut state = self.state.lock();
        // After a failure or damage the next opening has to read the files.
        if !state.has_changed() || state.failure().is_some() || !self.status.is_available() {
            return None;
        }
        state.log_mut().set_now(now);
        state.log_mut().expire_producers(PRODUCER_EXPIRY);
        state.take_checkpoint()
    }

    /// Takes back the last recovery point: it could not be stored, or its times are of a clock that
    /// was set since.
    pub(crate) fn give_back_checkpoint(&self) {
        self.state.lock().give_back_checkpoint();
    }

    /// Whether the log changed since its last recovery point.
    pub(crate) fn has_changed(&self) -> bool {
        self.state.lock().has_changed()
    }

    // ---- readers that wait -------------------------------------------------------------------

    pub(crate) fn register(&self, notifier: &Arc<Notifier>, token: usize) -> u64 {
        self.state.lock().waiters().register(notifier, token)
    }

    pub(crate) fn deregister(&self, id: u64) {
        // A forked child has no thread to wake, and the lock may never be released there.
        if self.status.is_in_own_process() {
            self.state.lock().waiters().deregister(id);
        }
    }

    // ---- the end -----------------------------------------------------------------------------

    /// Ends appends: later ones return `Closed`, and the log end is final. Waiting callers still
    /// get their results.
    pub(crate) fn end_appends(&self) {
        self.state.lock_for_change().end_appends();
    }

    /// Closes the partition. Returns all waiting readers, to be notified.
    pub(super) fn close(&self) -> Fired {
        let mut state = self.state.lock();
        state.end_appends();
        self.status.close();
        state.waiters().fire_all()
    }

    /// Releases the byte budget of the partition's files, which were removed.
    pub(crate) fn give_up_space(&self) {
        for segment in self.segments.all() {
            segment.give_up_space();
        }
        self.state.lock().log_mut().give_up_files();
    }
}

/// Whether stored data may be changed.
#[inline]
pub(super) fn check_usable(shared: &SharedLog, state: &State) -> Result<()> {
    if state.is_usable() && shared.status.is_available() {
        return Ok(());
    }
    refuse(shared, state)
}

#[cold]
fn refuse(shared: &SharedLog, state: &State) -> Result<()> {
    if state.has_ended() {
        return Err(shared.status.closed());
    }
    shared.status.check_available()?;
    match state.failure() {
        Some(failure) => Err(Error::Poisoned {
            partition: TopicPartition::clone(shared.origin()),
            source: Box::new(failure.clone()),
        }),
        None => Ok(()),
    }
}

/// Refuses an append for which a majority lags too far behind.
///
/// # Errors
///
/// [`Error::NotEnoughReplicas`].
#[cfg(feature = "replication")]
fn check_room(lead: &PartitionLead, state: &mut State, batch: &EncodedBatch<'_>) -> Result<()> {
    let bytes = u64::from(batch.size(true));
    if state.uncommitted().has_room_for(bytes, bound(lead)) {
        return Ok(());
    }
    Err(lead.not_enough())
}

#[cfg(feature = "replication")]
fn note_uncommitted(lead: &PartitionLead, state: &mut State, batch: &EncodedBatch<'_>, end: u64) {
    state.uncommitted().note(end, u64::from(batch.size(true)), bound(lead));
}

#[cfg(feature = "replication")]
fn bound(lead: &PartitionLead) -> u64 {
    lead.terms().map_or(u64::MAX, |terms| terms.max_uncommitted_bytes)
}

#[cfg(not(feature = "replication"))]
#[expect(clippy::unnecessary_wraps, reason = "no members lag behind")]
fn check_room(_: &PartitionLead, _: &mut State, _: &EncodedBatch<'_>) -> Result<()> {
    Ok(())
}

#[cfg(not(feature = "replication"))]
fn note_uncommitted(_: &PartitionLead, _: &mut State, _: &EncodedBatch<'_>, _: u64) {}

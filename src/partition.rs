//! One partition: a log that many threads append to, read and flush, and the work around it.
//!
//! Owns: the parts, and how they are composed. Each has a file of its own:
//!
//! | part | what it is for |
//! |---|---|
//! | [`shared`] | the log behind its lock ([`guard`], [`state`]), with its published [`ends`] and its [`status`] |
//! | [`flusher`] | makes the log durable; [`group_commit`] lets one sync serve all waiting threads; [`durable_wait`] is the wait of a task |
//! | `quorum` | with replication: the high watermark ([`watermark`]), and calls that wait for it |
//! | [`reader`] | ranges, cursors, lookups by time, waiting for records ([`waiters`]) |
//! | `replica` | with replication: epochs, and batches as they are stored |
//! | [`footers`], [`retention`], [`compactor`], [`space`] | work on segments, which the background threads do |
//! | [`requests`], [`background`] | the requests of a partition to the broker |
//! | [`state_log`] | a state that is stored as the log of its changes, in a partition |
//!
//! A part that works on the log borrows it for one call ([`flusher`](PartitionCore::flusher) and
//! the like), together with the other parts that it needs; its fields say which. So data that must
//! outlive a call has one owner, and the append path passes through no part that it does not use.
//!
//! Must not know: topics, brokers, groups.
//!
//! Invariant: events are delivered, readers notified and work requested under no lock of a
//! partition.

use std::fmt;
use std::sync::Arc;

use crossbeam::utils::CachePadded;

use self::append::{Accepted, AppendOptions};
use self::background::Want;
pub(crate) use self::background::{Background, Work};
use self::compactor::{Compactions, Compactor, Occasion};
use self::flusher::Flusher;
use self::footers::{Finished, Footers};
use self::group_commit::SyncGate;
use self::lead::{Lead, PartitionLead};
use self::leftovers::Leftovers;
use self::lineage::Lineage;
use self::metrics::{PartitionMetrics, ReadCounts};
#[cfg(feature = "replication")]
use self::quorum_gate::QuorumGate;
use self::reader::Reader;
use self::requests::Requests;
use self::retention::Retention;
use self::shared::SharedLog;
use self::snapshot::FileBytes;
use self::status::Status;
use crate::clock::RunClock;
use crate::config::{Durability, Visibility};
use crate::error::{Corruption, Error, Result};
use crate::format::EncodedBatch;
use crate::log::{Log, budget};
use crate::record::TopicPartition;

pub(crate) mod append;
pub(crate) mod background;
pub(crate) mod compactor;
pub(crate) mod copies;
mod disk_work;
pub(crate) mod durable_wait;
pub(crate) mod encode;
pub(crate) mod ends;
pub(crate) mod flusher;
pub(crate) mod footers;
mod group_commit;
mod guard;
pub(crate) mod lead;
#[cfg(feature = "replication")]
pub(crate) mod leadership;
mod leftovers;
pub(crate) mod lineage;
pub(crate) mod metrics;
#[cfg(all(test, loom))]
mod models;
#[cfg(feature = "replication")]
pub(crate) mod quorum;
#[cfg(feature = "replication")]
pub(crate) mod quorum_gate;
pub(crate) mod reader;
#[cfg(feature = "replication")]
#[cfg_attr(not(test), expect(dead_code, reason = "nothing replicates yet"))]
pub(crate) mod replica;
pub(crate) mod requests;
pub(crate) mod retention;
pub(crate) mod shared;
mod snapshot;
pub(crate) mod space;
mod state;
pub(crate) mod state_log;
pub(crate) mod status;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
pub(crate) mod together;
#[cfg(feature = "replication")]
mod uncommitted;
mod unsynced;
pub(crate) mod waiters;
mod watermark;

pub(crate) struct PartitionCore {
    pub(crate) origin: Arc<TopicPartition>,
    durability: Durability,
    log: SharedLog,
    gate: SyncGate,
    #[cfg(feature = "replication")]
    quorum_gate: Arc<QuorumGate>,
    compactions: Compactions,
    leftovers: Leftovers,
    requests: Requests,
    /// Padded: readers write it, and must not share a cache line with appenders.
    reads: CachePadded<ReadCounts>,
}

impl PartitionCore {
    /// Creates a partition. With `damage` it is unavailable in this run: reads, appends and
    /// removals return it as their error.
    pub(crate) fn new(
        mut log: Log,
        lineage: Lineage,
        durability: Durability,
        lead: &Lead,
        clock: RunClock,
        background: Arc<dyn Background>,
        damage: Option<Corruption>,
    ) -> Arc<Self> {
        let lead = lead_of(lead, &mut log, durability);
        let (origin, process) =
            (Arc::clone(&log.factory().identity().origin), Arc::clone(&log.env().process));
        let gate = SyncGate::new(log.durable_end());
        let broker = Arc::clone(&background);
        let status = Status::new(Arc::clone(&origin), process, broker, damage);
        #[cfg(feature = "replication")]
        let quorum_gate = QuorumGate::new(lead.clone());
        let log = SharedLog::new(log, status, lineage, lead, clock);
        let core = Arc::new_cyclic(|this| Self {
            origin,
            durability,
            log,
            gate,
            #[cfg(feature = "replication")]
            quorum_gate,
            compactions: Compactions::new(),
            leftovers: Leftovers::new(),
            requests: Requests::new(background, this.clone()),
            reads: CachePadded::new(ReadCounts::new()),
        });
        begin_replication(&core);
        core
    }

    // ---- the parts -----------------------------------------------------------------------------

    #[inline]
    pub(crate) fn log(&self) -> &SharedLog {
        &self.log
    }

    #[inline]
    pub(crate) fn requests(&self) -> &Requests {
        &self.requests
    }

    #[inline]
    pub(crate) fn flusher(&self) -> Flusher<'_> {
        Flusher::new(&self.log, &self.gate, &self.requests)
    }

    #[inline]
    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader::new(&self.log, &self.reads, &self.requests)
    }

    pub(crate) fn footers(&self) -> Footers<'_> {
        Footers::new(&self.log, self.flusher())
    }

    pub(crate) fn retention(&self) -> Retention<'_> {
        Retention::new(&self.log, self.flusher(), &self.leftovers, &self.requests)
    }

    pub(crate) fn compactor(&self) -> Compactor<'_> {
        let (footers, retention) = (self.footers(), self.retention());
        Compactor::new(&self.log, &self.compactions, footers, retention, &self.requests)
    }

    // ---- ends and status ---------------------------------------------------------------------

    pub(crate) fn log_start(&self) -> u64 {
        self.log.ends().start()
    }

    pub(crate) fn durable_end(&self) -> u64 {
        self.log.ends().durable()
    }

    #[inline]
    pub(crate) fn log_end(&self) -> u64 {
        self.log.ends().end()
    }

    /// The end of what may be read.
    #[inline]
    pub(crate) fn visible_end(&self, visibility: Visibility) -> u64 {
        self.log.ends().visible(visibility)
    }

    #[inline]
    pub(crate) fn is_available(&self) -> bool {
        self.log.status().is_available()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.log.status().is_closed()
    }

    /// Whether the partition takes appends in this run. It does not after a failed sync, or if the
    /// opening found damage that makes it unavailable.
    #[inline]
    pub(crate) fn takes_appends(&self) -> bool {
        self.is_available() && !self.log.ends().is_poisoned()
    }

    /// See [`SharedLog::with_log`].
    pub(crate) fn with_log<R>(&self, change: impl FnOnce(&mut Log) -> R) -> R {
        self.log.with_log(change)
    }

    /// All numbers; `pinned` are the bytes of removed segments that are still mapped.
    pub(crate) fn metrics(&self, pinned: u64) -> PartitionMetrics {
        let (compaction, leftover) = (self.compactor().stats(), self.leftovers.bytes());
        snapshot::take(&self.log, &self.reads, compaction, FileBytes { leftover, pinned })
    }

    // ---- appends and flushes -----------------------------------------------------------------

    /// Appends and publishes a batch. Does not wait for any durability.
    ///
    /// # Errors
    ///
    /// All are definite: nothing was appended.
    pub(crate) fn append(
        &self,
        batch: &mut EncodedBatch<'_>,
        options: &AppendOptions<'_>,
    ) -> Result<Accepted> {
        match self.try_append(batch, options) {
            Err(error @ Error::StorageFull { .. }) => self.append_when_full(error, batch, options),
            appended => appended,
        }
    }

    #[inline]
    fn try_append(
        &self,
        batch: &mut EncodedBatch<'_>,
        options: &AppendOptions<'_>,
    ) -> Result<Accepted> {
        let level = *options.level.unwrap_or(&self.durability);
        let (outcome, fired, wanted) = self.log.append(batch, options, level)?;
        fired.notify();
        self.log.lead().appended(options.is_announced());
        self.requests.request_all(wanted);
        if options.is_held && wanted.has(Work::Finish) {
            self.flusher().hold_producer();
        }
        Ok(outcome)
    }

    /// Repeats an append that found no space, for as long as space is made for it. Otherwise
    /// returns `refused`, or the error of the last attempt.
    #[cold]
    fn append_when_full(
        &self,
        mut refused: Error,
        batch: &mut EncodedBatch<'_>,
        options: &AppendOptions<'_>,
    ) -> Result<Accepted> {
        let bytes = u64::from(batch.size(true));
        let may_wait = options.is_held;
        let mut want = Want { bytes, is_budget: false, is_again: false, may_wait, wait: None };
        let mut options = *options;
        // No lock is held here, so that other threads can make space, and be waited for. Each turn
        // except the first removes records or follows a wait, so the loop ends.
        loop {
            match &refused {
                Error::StorageFull { source, .. } => want.is_budget = budget::is_budget(source),
                // Closed while it waited. The engine knows whether the broker was closed or the
                // topic deleted.
                Error::Closed if want.wait.is_some() => {}
                _ => return Err(refused),
            }
            if !self.requests.make_room(&mut want)? {
                return Err(refused);
            }
            want.is_again = true;
            if options.stamp.wall != 0 {
                // Time has passed. A clock that was set before 1970 meanwhile changes nothing.
                let level = *options.level.unwrap_or(&self.durability);
                let stamp = self.log.stamp(level, options.producer.is_some());
                options.stamp = stamp.unwrap_or(options.stamp);
            }
            match self.try_append(batch, &options) {
                Ok(outcome) => return Ok(outcome),
                Err(error) => refused = error,
            }
        }
    }

    /// Waits until everything below `target` is durable. Runs the sync itself if no other thread
    /// does.
    ///
    /// # Errors
    ///
    /// The error of the sync, or of a partition that was closed meanwhile.
    pub(crate) fn wait_durable(&self, target: u64) -> Result<()> {
        self.flusher().wait(target)
    }

    /// Makes everything that is published now durable.
    ///
    /// # Errors
    ///
    /// The error of the sync, or of a partition that was closed meanwhile.
    pub(crate) fn flush(&self) -> Result<()> {
        self.flusher().flush()
    }

    /// Requests a sync if the level is `Sync`; the other levels sync at their own times.
    pub(crate) fn sync_soon(&self) {
        if self.durability == Durability::Sync {
            self.requests.request(Work::Sync);
        }
    }

    // ---- background work ---------------------------------------------------------------------

    /// Does what was requested.
    pub(crate) fn do_work(&self, work: Work) {
        self.requests.begin(work);
        match work {
            Work::Space => space::make_ahead(&self.log),
            Work::Next => space::prepare_next(&self.log),
            // A failure is kept in the gate, and the next append returns it.
            Work::Sync => drop(self.flush()),
            // The broker waits for the interval, and the owner of an internal log cleans it up.
            Work::SyncLater | Work::CleanUp => {}
            Work::Finish => {
                self.footers().write_all();
                self.compactor().request(Occasion::Due);
            }
            Work::Compact => self.compactor().run_all(),
        }
        self.log.trace().deliver();
    }

    /// Does all that was requested and not begun; for `tick`.
    pub(crate) fn do_requested(&self) {
        use Work::{Compact, Finish, Next, Space, Sync, SyncLater};
        for work in [Space, Next, Sync, SyncLater, Finish, Compact] {
            // Read again for each kind: footers may request a compaction.
            if self.requests.is_pending(work) {
                self.do_work(work);
            }
        }
    }

    /// Writes the footers of the sealed segments that are synced already, for a thread that must
    /// not wait for a sync.
    pub(crate) fn finish_durable(&self) -> Finished {
        self.requests.begin(Work::Finish);
        let finished = self.footers().write_durable();
        if !finished.wants_sync {
            self.compactor().request(Occasion::Due);
        }
        self.log.trace().deliver();
        finished
    }

    // ---- the end -----------------------------------------------------------------------------

    /// Closes the partition for this run: later and waiting calls get `Closed`.
    pub(crate) fn close(&self) {
        self.end(Error::Closed);
    }

    /// Closes the partition because its topic was deleted. Later calls return `UnknownTopic`. Calls
    /// that wait for the disk return `waiting`: if the deletion is not durable, their records may
    /// exist again.
    pub(crate) fn close_deleted(&self, waiting: Option<Error>) {
        self.log.status().mark_deleted();
        self.end(waiting.unwrap_or_else(|| self.log.status().unknown_topic()));
    }

    fn end(&self, waiting: Error) {
        self.log.close().notify();
        #[cfg(feature = "replication")]
        self.quorum_gate.fail(waiting.clone());
        self.gate.fail(waiting);
        self.compactions.end();
    }

    /// Waits, once the partition is closed, until no thread writes to its files any more.
    pub(crate) fn await_work(&self) {
        self.compactions.await_steps();
        self.log.disk_work().end();
    }

    /// Whether [`await_work`](Self::await_work) would wait, and whether it does.
    #[cfg(test)]
    pub(crate) fn work_under_way(&self) -> (bool, bool) {
        let work = self.log.disk_work();
        (work.is_running() || self.compactions.is_claimed(), work.is_awaited())
    }
}

/// Whether a sync has failed of a partition whose records are confirmed before they are synced.
pub(crate) fn may_lack_confirmed(core: &PartitionCore) -> bool {
    core.log.ends().is_poisoned() && core.durability != Durability::Sync
}

/// What a new partition knows of the leadership of its broker. The log of one that was created just now
/// appends in the epoch that is led.
#[cfg(feature = "replication")]
fn lead_of(lead: &Lead, log: &mut Log, durability: Durability) -> PartitionLead {
    let identity = log.factory().identity();
    let partition = (identity.topic_id, identity.origin.partition);
    let lead = PartitionLead::of(lead, partition, durability == Durability::Sync);
    if let Some(epoch) = lead.leads().filter(|_| log.log_end() == 0) {
        // It has no later epoch.
        let _ = crate::log::replica::append::set_epoch(log, epoch, None);
    }
    lead
}

#[cfg(not(feature = "replication"))]
fn lead_of(_: &Lead, _: &mut Log, _: Durability) -> PartitionLead {
    PartitionLead::default()
}

/// In a replicated group nothing is shown before a majority is known to have it.
#[cfg(feature = "replication")]
fn begin_replication(core: &PartitionCore) {
    if core.log.lead().terms().is_some() {
        quorum::Quorum::of(core).begin();
    }
}

#[cfg(not(feature = "replication"))]
fn begin_replication(_: &PartitionCore) {}

impl fmt::Debug for PartitionCore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partition")
            .field("partition", &self.origin)
            .field("log_start", &self.log_start())
            .field("durable_end", &self.durable_end())
            .field("log_end", &self.log_end())
            .finish_non_exhaustive()
    }
}

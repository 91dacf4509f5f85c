//! The engine that all handles of one broker share: its parts, composed.
//!
//! Owns: the parts of a run, the round of background work, and the close of the run. Must not know:
//! what a producer or a consumer does, and how a part does its work.
//!
//! Invariant: nothing is written before the directory lock is held, nor after it is released.

use std::fmt;
use std::sync::Arc;
#[cfg(feature = "replication")]
use std::sync::OnceLock;

#[cfg(feature = "replication")]
use super::attached::Attached;
use super::catalog_writer::Recorded;
use super::context::Context;
use super::expiry::Expiry;
use super::gate::{Change, Gate};
use super::internal_logs::InternalLogs;
use super::last_run::note_loss;
use super::leading::Leading;
use super::live_topics::LiveTopics;
use super::local::LocalChange;
use super::producers::Producers;
use super::recovery_points::{RecoveryPoints, flush};
use super::run_parts::RunParts;
use super::space::Space;
use super::topic_factory::TopicFactory;
use super::topics::Topics;
#[cfg(feature = "replication")]
use super::workers::spawn_thread;
use super::workers::{Housekeeping, Workers};
use crate::clock::RunClock;
use crate::error::{Error, Result};
use crate::foreign;
use crate::group::coordinator::Coordinator;
use crate::partition::compactor::Occasion;
use crate::partition::{Background, PartitionCore, Work, space, together};
use crate::topic::TopicShared;
use crate::trace::note;

/// See the module's documentation.
pub(crate) struct Engine {
    run: RunParts,
    workers: Arc<Workers>,
    space: Arc<Space>,
    topics: Topics,
    producers: Arc<Producers>,
    expiry: Expiry,
    points: RecoveryPoints,
    #[cfg(feature = "replication")]
    attached: OnceLock<Arc<dyn Attached>>,
}

impl Engine {
    /// Composes an engine of open parts, with an empty table of topics.
    pub(super) fn new(
        context: Arc<Context>,
        gate: Arc<Gate>,
        workers: Arc<Workers>,
        logs: Arc<InternalLogs>,
    ) -> Self {
        let run = RunParts::new(context, gate, logs);
        let space = Arc::new(Space::new(&run, &workers));
        let factory = TopicFactory::new(run.context(), &workers);
        let topics = Topics::new(&run, factory, &space);
        let producers = Arc::new(Producers::new(&run));
        let expiry = Expiry::new(&run, &producers);
        let points = RecoveryPoints::new(&run);
        Self {
            run,
            workers,
            space,
            topics,
            producers,
            expiry,
            points,
            #[cfg(feature = "replication")]
            attached: OnceLock::new(),
        }
    }

    /// What runs beside this engine from now on.
    #[cfg(feature = "replication")]
    pub(crate) fn attach(&self, attached: Arc<dyn Attached>) {
        let _ = self.attached.set(attached);
    }

    #[cfg(feature = "replication")]
    pub(crate) fn attached(&self) -> Option<&Arc<dyn Attached>> {
        self.attached.get()
    }

    /// Starts a thread beside the engine's; a close waits for its end.
    ///
    /// # Errors
    ///
    /// That of the operating system.
    #[cfg(feature = "replication")]
    pub(crate) fn start_beside(
        &self,
        name: &'static str,
        run: Box<dyn FnOnce() + Send>,
    ) -> Result<()> {
        let started = spawn_thread(name, run);
        let dir = &self.run.settings().dir;
        let thread = started.map_err(|source| Error::io("start a thread for", dir, source))?;
        self.workers.keep_thread(thread);
        Ok(())
    }

    /// Ends what runs beside the engine.
    #[cfg_attr(not(feature = "replication"), expect(clippy::unused_self, reason = "nothing runs"))]
    fn detach(&self, gives_way: bool) {
        #[cfg(feature = "replication")]
        if let Some(attached) = self.attached.get() {
            attached.stop(gives_way);
        }
        #[cfg(not(feature = "replication"))]
        let _ = gives_way;
    }

    pub(crate) fn context(&self) -> &Arc<Context> {
        self.run.context()
    }

    pub(crate) fn clock(&self) -> &RunClock {
        &self.run.context().clock
    }

    pub(crate) fn gate(&self) -> &Gate {
        self.run.gate()
    }

    pub(super) fn workers(&self) -> &Arc<Workers> {
        &self.workers
    }

    pub(crate) fn logs(&self) -> &InternalLogs {
        self.run.logs()
    }

    /// The coordinator of groups.
    pub(crate) fn coordinator(&self) -> &Arc<Coordinator> {
        self.run.logs().coordinator()
    }

    /// The topics that can be used.
    pub(crate) fn live(&self) -> &LiveTopics {
        self.run.live()
    }

    /// A topic that can be used: see [`LiveTopics::get`].
    #[inline]
    pub(crate) fn topic(&self, name: &str) -> Result<Arc<TopicShared>> {
        self.run.live().get(name)
    }

    pub(crate) fn space(&self) -> &Arc<Space> {
        &self.space
    }

    pub(crate) fn topics(&self) -> &Topics {
        &self.topics
    }

    pub(crate) fn producers(&self) -> &Producers {
        &self.producers
    }

    /// What depends on the leadership of a replicated group.
    pub(crate) fn leading(&self) -> Leading<'_> {
        Leading::of(&self.run, &self.producers)
    }

    pub(super) fn expiry(&self) -> &Expiry {
        &self.expiry
    }

    pub(super) fn points(&self) -> &RecoveryPoints {
        &self.points
    }

    /// Every partition, those of the internal logs included.
    pub(super) fn all_partitions(&self) -> Vec<Arc<PartitionCore>> {
        let mut partitions = self.live().partitions();
        partitions.extend(self.logs().partitions());
        partitions
    }

    /// Adds partitions to a topic, unless sequence numbers of its records depend on their count.
    pub(crate) fn add_partitions(&self, name: &str, total: u32) -> Result<()> {
        let recorded = self.begin_add_partitions(name, total)?;
        self.run.catalog_writer().settle(recorded)
    }

    /// The same, as far as that waits for no other member of a replicated group.
    pub(crate) fn begin_add_partitions(&self, name: &str, total: u32) -> Result<Recorded> {
        let check =
            |change: &Change<'_>, topic: &TopicShared| self.producers.check_growth(change, topic);
        self.topics.begin_grow(name, total, check)
    }

    /// Makes all records durable that were appended before the call. Tries every partition, and
    /// returns the first failure.
    pub(crate) fn flush(&self) -> Result<()> {
        self.gate().check_open()?;
        if self.run.settings().read_only {
            return Ok(());
        }
        // Checked last: a broker that was closed meanwhile has closed partitions too.
        let flushed = flush(&self.all_partitions()).and_then(|()| self.gate().check_open());
        flushed.inspect_err(|_| self.run.env().trace.deliver())
    }

    /// One round of the background work, for a broker without background threads.
    pub(crate) fn tick(&self) -> Result<()> {
        self.gate().check_open()?;
        self.coordinator().evict_overdue();
        if self.run.settings().read_only {
            return Ok(());
        }
        // A failure here occurs again below, and is returned there.
        let _ = self.space.relieve();
        let now = self.clock().monotonic();
        for partition in self.all_partitions() {
            partition.do_requested();
            partition.flusher().sync_if_due(now);
            partition.compactor().request(Occasion::Due);
            partition.do_requested();
        }
        for partition in self.logs().partitions() {
            let cleaned = self.logs().clean_up(&partition, || true);
            self.context().note_failure("cleaning up", Some(&partition), cleaned);
        }
        #[cfg(feature = "replication")]
        if let Some(attached) = self.attached.get() {
            attached.run();
        }
        let is_due = self.points.are_due(now);
        let retention = self.space.retention();
        let done = if is_due { self.do_every_minute() } else { retention.enforce() };
        self.run.env().trace.deliver();
        done
    }

    /// The work of every minute: releases unused maps, applies retention, requests due compactions and
    /// missing footers, writes recovery points, expires groups and producers, and tries again to remove files that
    /// could not be removed.
    fn do_every_minute(&self) -> Result<()> {
        self.run.env().maps.give_up_unused();
        // Where another member leads, nothing is changed that is replicated.
        let follows = self.leading().follows();
        if !follows {
            self.topics.finish_all_interrupted();
        }
        let retained = self.space.retention().enforce();
        self.logs().recover_reserves();
        self.space.keep_compaction_spare();
        for partition in self.all_partitions() {
            partition.compactor().request(Occasion::Due);
            // One that could not be written when its segment was sealed.
            if partition.footers().are_missing() {
                partition.requests().request(Work::Finish);
            }
        }
        let expired = if follows { Ok(()) } else { self.expiry.run() };
        self.points.write().and(retained).and(expired)
    }

    /// Closes the run: flushes, writes footers, durably records the clean end, and releases the
    /// directory.
    pub(crate) fn close(&self) -> Result<()> {
        self.gate().check_process()?;
        if !self.gate().close() {
            return Err(Error::Closed);
        }
        self.detach(true);
        // Appends that wait for space return `Closed`.
        self.run.env().space.wake();
        let has_threads = self.workers.is_running();
        self.workers.stop_and_join();
        let is_read_only = self.run.settings().read_only;
        let result = if is_read_only { Ok(()) } else { self.end_cleanly(has_threads) };
        if result.is_err() {
            note_loss(self.logs().local(), &self.all_partitions());
        }
        self.end();
        let dir = self.run.settings().dir.clone();
        note!(self.run.env().trace, Closed { dir, error: result.as_ref().err().cloned() });
        self.run.env().trace.deliver();
        result
    }

    /// `has_threads`: whether the broker may have threads, of which its own have ended by now.
    fn end_cleanly(&self, has_threads: bool) -> Result<()> {
        let _woken = foreign::hold_back();
        // From here on no topic is created or deleted, and no other recovery point stored.
        let _change = self.gate().last_change();
        let points = self.points.hold();
        let topics = self.live().all();
        let users = || topics.iter().flat_map(|topic| &topic.partitions);
        // The next opening would lose records that are appended after the recovery point.
        for partition in users() {
            partition.log().end_appends();
        }
        users().for_each(|partition| space::give_back(partition.log()));
        let waits: Vec<_> = users().map(|partition| (&**partition, partition.log_end())).collect();
        let flushed = together::wait_durable_with(&waits, has_threads);
        let flushed = flushed.into_iter().fold(Ok(()), Result::and);
        for partition in users() {
            // Footers make the next opening fast; a missing one costs a scan, never data.
            while matches!(partition.footers().step(), Ok(true)) {}
            // The next opening would have to remove them: megabytes of space that was never used.
            let disk = &*self.run.env().disk;
            partition.with_log(|log| log.appender_mut().discard_prepared(disk));
        }
        flushed?;
        if !self.leading().follows() {
            self.expiry.note_last_use();
        }
        self.coordinator().offsets().partition().flush()?;
        self.logs().catalog().partition().flush()?;
        self.points.store(&points, &topics)?;
        if users().any(|partition| partition.log().has_changed()) {
            // One of them has no recovery point: it is durable, but not recorded as whole.
            return Ok(());
        }
        // DURABILITY: this is the last entry, after everything that it claims was synced.
        self.logs().local().append_last(LocalChange::Closed)
    }

    /// Ends the run for all handles, without a flush. Published records stay in the files.
    pub(crate) fn abandon(&self) {
        if !self.gate().close() {
            return;
        }
        self.detach(false);
        self.workers.stop();
        self.end_handles();
        // The directory stays locked until the workers have finished their step: they hold the
        // engine, which has the lock.
    }

    fn end(&self) {
        let partitions = self.all_partitions();
        self.end_handles();
        for partition in partitions {
            // Nothing may be written after the directory was released, by no thread.
            partition.await_work();
        }
        self.gate().release_directory();
    }

    pub(super) fn end_handles(&self) {
        for partition in self.all_partitions() {
            partition.close();
        }
        self.coordinator().close();
        // After the run was closed: a consumer that is woken checks for that, and so does one that
        // has not parked yet. A consumer may wait for no partition at all, so each is called
        // itself.
        self.gate().consumers().call_all();
        self.live().clear();
    }
}

impl Housekeeping for Engine {
    fn run_housekeeping(&self) {
        // A recovery point that cannot be written now costs a longer scan after a crash.
        self.context().note_failure("housekeeping", None, self.do_every_minute());
        self.run.env().trace.deliver();
    }

    fn finished(&self, partition: &Arc<PartitionCore>) {
        // A removal that fails is tried again.
        let retained = self.space.retention().enforce_bytes(partition);
        self.context().note_failure("retention", Some(partition), retained);
        let cleaned = self.logs().clean_up(partition, || self.workers.is_running());
        self.context().note_failure("cleaning up", Some(partition), cleaned);
        self.run.env().trace.deliver();
    }

    fn relieve(&self) {
        self.context().note_failure("making room", None, self.space.relieve());
        self.run.env().trace.deliver();
    }

    fn appended(&self) -> u64 {
        self.live().appended()
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("settings", self.run.settings()).finish_non_exhaustive()
    }
}

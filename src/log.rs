//! The log of one partition: appends batches, rolls segments, finds offsets, recovers after a
//! crash.
//!
//! [`Log`] composes parts. Each has its own fields and can be read alone:
//!
//! | part | what it owns |
//! |---|---|
//! | [`factory`] | the partition's identity, the options of its files, their numbers, the reserve |
//! | [`segment`] | the list of segments, in order, shared with readers |
//! | [`appender`] | the writer of the active segment, and the prepared next segment |
//! | [`backlog`] | sealed segments that wait for a sync or a footer |
//! | [`ends`] | log start, durable end, log end |
//! | [`producers`] | the last sequence number of each named producer |
//! | [`leftovers`] | files that an opening found and that are to be removed |
//!
//! Must not know: threads, waiting, other partitions. It reads no clock: the partition sets the
//! time.
//!
//! The partition calls every method that changes anything under its lock. Readers do not need that
//! lock: the segment list and the map of each segment have small locks of their own. Work that
//! blocks on the disk is a [task](tasks), which runs without the partition's lock.
//!
//! Invariants:
//! 1. `log_start <= durable_end <= log_end`; none of the three decreases while the log is open
//!    ([`ends`]).
//! 2. The bytes below the published position of any segment never change, move or shrink.
//! 3. The segment list is in offset order. All but the last segment are sealed, and each begins at
//!    the offset at which the one before ends (unless the opening found damage).
//! 4. An offset is durable only if every earlier one is: syncs run in segment order.
//! 5. A failed append leaves the log as it was.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use self::active::Way;
use self::active::{Active, BatchTimes, SealedActive};
use self::appender::Appender;
use self::backlog::{Backlog, Unfinished};
use self::budget::SpaceBudget;
pub(crate) use self::checkpoint::Checkpoint;
use self::compaction::spare::CompactionSpare;
use self::create::Writer;
use self::ends::Ends;
use self::factory::SegmentFactory;
use self::leftovers::Leftovers;
use self::maps::MapBudget;
use self::pinned::PinnedMaps;
use self::producers::{Admission, ProducerTable, Sequence};
use self::retention::age_of;
use self::segment::{Segment, SegmentFile, SegmentList};
use self::tasks::{SyncScope, SyncTask};
use crate::clock::Moment;
use crate::error::{Error, Result};
use crate::format::{
    EncodedBatch, Opening, Placement, ProducerStamp, ProducerState, SegmentHeader, TopicId,
};
use crate::record::TopicPartition;
use crate::rules::Rule;
#[cfg(feature = "testing")]
use crate::seams::Seams;
use crate::storage::disk::Disk;
use crate::storage::process::Process;
use crate::trace::{Outbox, note};

pub(crate) mod active;
pub(crate) mod appender;
mod backlog;
pub(crate) mod budget;
mod checkpoint;
mod chunk;
pub(crate) mod compaction;
pub(crate) mod create;
pub(crate) mod cursor;
#[cfg(feature = "replication")]
mod cuts;
mod damage;
mod ends;
pub(crate) mod factory;
pub(crate) mod inventory;
mod known;
mod leftovers;
pub(crate) mod locate;
pub(crate) mod maps;
pub(crate) mod open;
pub(crate) mod pinned;
pub(crate) mod producers;
pub(crate) mod read_ahead;
mod recovery;
#[cfg(feature = "replication")]
pub(crate) mod replica;
pub(crate) mod reserve;
pub(crate) mod retention;
pub(crate) mod salvage;
mod scan;
pub(crate) mod seen;
pub(crate) mod segment;
mod space;
pub(crate) mod tasks;
#[cfg(test)]
mod tests;
pub(crate) mod unavailable;
pub(crate) mod verify;

/// LIMIT: offsets end well below `u64::MAX`, so that an exclusive end and every sum of an offset
/// and a batch's length is representable.
pub(crate) const OFFSET_MAX: u64 = u64::MAX - (1 << 32);

/// LIMIT: the unit in which files grow and are released. A hint only: a larger page of the machine
/// merely rounds again.
pub(crate) const PAGE_BYTES: u64 = 4096;

/// What all logs of a broker share.
pub(crate) struct LogEnv {
    pub(crate) disk: Arc<dyn Disk>,
    /// Whether reads use `pread` into buffers, so that nothing is mapped.
    pub(crate) copy_reads: bool,
    pub(crate) maps: MapBudget,
    /// The byte budget, for the logs that have one.
    pub(crate) space: Arc<SpaceBudget>,
    /// Unlinked files that are still mapped.
    pub(crate) pinned: PinnedMaps,
    /// The spare file of compactions, for a full disk.
    pub(crate) spare: Option<CompactionSpare>,
    /// The process that may write.
    pub(crate) process: Arc<Process>,
    pub(crate) trace: Outbox,
    #[cfg(feature = "testing")]
    pub(crate) seams: Seams,
    /// Random numbers for salts and incarnations.
    pub(crate) random: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl LogEnv {
    /// For a caller that only reads, through this disk: nothing is mapped or written.
    pub(crate) fn for_reading(disk: Arc<dyn Disk>) -> Self {
        Self {
            disk,
            copy_reads: true,
            maps: MapBudget::new(MapBudget::DEFAULT_LIMIT),
            space: SpaceBudget::unlimited(),
            pinned: PinnedMaps::new(),
            spare: None,
            process: Arc::new(Process::current()),
            trace: Outbox::default(),
            #[cfg(feature = "testing")]
            seams: Seams::default(),
            random: Box::new(|| 0),
        }
    }

    /// The key of the checksums of a new segment.
    fn salt(&self) -> u64 {
        if Rule::Salt.holds() { (self.random)() } else { 0 }
    }
}

impl fmt::Debug for LogEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogEnv").field("disk", &self.disk).finish_non_exhaustive()
    }
}

/// Which partition a log belongs to, and its directory.
#[derive(Debug, Clone)]
pub(crate) struct LogIdentity {
    pub(crate) origin: Arc<TopicPartition>,
    pub(crate) topic_id: TopicId,
    pub(crate) dir: PathBuf,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct LogOptions {
    pub(crate) segment_bytes: u64,
    pub(crate) writer: Writer,
    /// Whether the log's files count against the broker's byte budget.
    pub(crate) has_budget: bool,
    /// Incompatible feature bits of the segments that it makes.
    pub(crate) features: u64,
}

/// The request of a named producer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProducerRequest {
    pub(crate) id: u64,
    pub(crate) epoch: u32,
    pub(crate) sequence: Sequence,
}

impl ProducerRequest {
    /// Whether the batch, if it is new, bears the producer's stamp.
    #[inline]
    pub(crate) fn is_stamped(&self) -> bool {
        self.sequence != Sequence::Absent
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Appended { base_offset: u64, next_offset: u64 },
    Duplicate { last_sequence: u64, last_offset: u64 },
    Fenced { current: u32 },
}

/// The leader epoch and the incarnation under which a log appends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Epochs {
    pub(crate) leader_epoch: u32,
    pub(crate) incarnation: u64,
    /// Whether the opening drew a new incarnation, because the log did not end as a clean close
    /// left it.
    pub(crate) is_new_incarnation: bool,
}

/// The parts of which an opening composes a log.
pub(crate) struct Parts {
    factory: SegmentFactory,
    segments: Vec<Arc<Segment>>,
    appender: Appender,
    backlog: Backlog,
    leftovers: Option<Leftovers>,
    ends: Ends,
    epochs: Epochs,
    producers: ProducerTable,
}

impl Parts {
    /// Of a log without any file.
    fn empty(env: &Arc<LogEnv>, identity: LogIdentity, options: LogOptions) -> Self {
        let incarnation = (env.random)();
        Self {
            factory: SegmentFactory::new(env, identity, options),
            segments: Vec::new(),
            appender: Appender::default(),
            backlog: Backlog::default(),
            leftovers: None,
            ends: Ends::default(),
            epochs: Epochs { leader_epoch: 0, incarnation, is_new_incarnation: false },
            producers: ProducerTable::default(),
        }
    }
}

pub(crate) struct Log {
    factory: SegmentFactory,
    segments: Arc<SegmentList>,
    appender: Appender,
    backlog: Backlog,
    /// What the opening has yet to do on the disk.
    leftovers: Option<Leftovers>,
    ends: Ends,
    epochs: Epochs,
    producers: ProducerTable,
    /// The time that was set last: a log has no clock.
    now: Moment,
}

/// LIMIT: room that each segment keeps for an opening batch without producers: a header of 44 bytes
/// and a payload of 16, with a margin. A segment whose opening batch lists producers is made
/// larger.
const OPENING_BYTES: usize = 128;

/// LIMIT: room for what a lone record takes beside its payload: a batch header with every
/// extension, 84 bytes, and the record's flags, lengths and deltas.
const RECORD_OVERHEAD_BYTES: u64 = 128;

/// Room for an opening batch with this many producers.
fn opening_room(producers: usize) -> usize {
    /// LIMIT: more than a producer's 36 stored bytes.
    const PRODUCER_BYTES: usize = 48;
    OPENING_BYTES + producers.saturating_mul(PRODUCER_BYTES)
}

/// The largest batch that a segment of this size holds.
pub(crate) fn batch_bytes_max(segment_bytes: u64) -> u64 {
    segment_bytes.saturating_sub((SegmentHeader::SIZE + OPENING_BYTES) as u64)
}

/// The largest payload of a lone record that a segment of this size holds.
pub(crate) fn record_bytes_max(segment_bytes: u64) -> u64 {
    batch_bytes_max(segment_bytes).saturating_sub(RECORD_OVERHEAD_BYTES)
}

impl Log {
    /// A new, empty log in a directory that exists, whose first record gets the offset `begin`.
    /// Durable on return. Blocks for two syncs.
    pub(crate) fn create(
        env: &Arc<LogEnv>,
        identity: LogIdentity,
        options: LogOptions,
        begin: u64,
    ) -> Result<Self> {
        let mut log = Self::new(Parts::empty(env, identity, options));
        // The opening batch of the first segment has it: an opening finds the log start there.
        log.ends = Ends::found(begin, begin, begin);
        log.roll_for(0)?;
        let task = log.begin_sync(SyncScope::All);
        task.run()?;
        log.finish_sync(&task);
        Ok(log)
    }

    fn new(parts: Parts) -> Self {
        let Parts { factory, segments, appender, backlog, .. } = parts;
        let Parts { leftovers, ends, epochs, producers, .. } = parts;
        let (segments, now) = (Arc::new(SegmentList::new(segments)), Moment::default());
        Self { factory, segments, appender, backlog, leftovers, ends, epochs, producers, now }
    }

    /// Does the disk work that the opening found necessary. Called once, before anything is
    /// appended.
    pub(crate) fn finish_opening(&mut self) -> Result<()> {
        let Some(leftovers) = self.leftovers.take() else { return Ok(()) };
        self.factory.set_reserve_open(true);
        let removed = leftovers.remove(&mut self.factory, self.ends.log_end());
        let finished = removed.and_then(|successor| {
            if let Some(successor) = successor {
                self.appender.add_prepared(successor);
            }
            // A log is never without a segment.
            if self.segments.last().is_none() { self.roll_for(0) } else { Ok(()) }
        });
        self.factory.set_reserve_open(false);
        finished
    }

    pub(crate) fn segments(&self) -> &Arc<SegmentList> {
        &self.segments
    }

    pub(crate) fn env(&self) -> &Arc<LogEnv> {
        self.factory.env()
    }

    pub(crate) fn factory(&self) -> &SegmentFactory {
        &self.factory
    }

    pub(crate) fn appender(&self) -> &Appender {
        &self.appender
    }

    pub(crate) fn appender_mut(&mut self) -> &mut Appender {
        &mut self.appender
    }

    pub(crate) fn factory_mut(&mut self) -> &mut SegmentFactory {
        &mut self.factory
    }

    pub(crate) fn ends(&self) -> &Ends {
        &self.ends
    }

    pub(crate) fn log_start(&self) -> u64 {
        self.ends.log_start()
    }

    pub(crate) fn log_end(&self) -> u64 {
        self.ends.log_end()
    }

    pub(crate) fn durable_end(&self) -> u64 {
        self.ends.durable_end()
    }

    pub(crate) fn epochs(&self) -> Epochs {
        self.epochs
    }

    /// Sets the incarnation that was in force when the log was closed cleanly. A segment knows only
    /// the one that was in force when it was begun.
    pub(crate) fn continue_incarnation(&mut self, incarnation: u64) {
        self.epochs.incarnation = incarnation;
    }

    /// The work that sealed segments still need.
    pub(crate) fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    pub(crate) fn backlog_mut(&mut self) -> &mut Backlog {
        &mut self.backlog
    }

    /// Sets the time from which the idle time of producers is counted. Called before anything else,
    /// and before each append of a named producer.
    pub(crate) fn set_now(&mut self, now: Moment) {
        if self.now == Moment::default() {
            self.producers.begin_run(now.run);
            if self.epochs.is_new_incarnation {
                self.producers.touch(now);
                if self.appender.active().is_none() {
                    // As long as no segment follows it, the footer of the last one has these
                    // producers too.
                    self.backlog.set_last_producers(self.producers.states());
                }
            }
        }
        self.now = Moment { run: self.now.run.max(now.run), ..now };
    }

    /// Forgets producers that have been idle for longer than this.
    pub(crate) fn expire_producers(&mut self, idle: Duration) {
        let idle = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
        self.producers.expire(self.now.run.saturating_sub(idle));
    }

    pub(crate) fn producer(&self, id: u64) -> Option<&ProducerState> {
        self.producers.get(id)
    }

    /// Appends a batch and publishes it: it is readable when this returns, and not yet durable.
    ///
    /// # Errors
    ///
    /// Each leaves the log as it was, so it is definite: `RecordTooLarge`, `OffsetExhausted`,
    /// `StorageFull`, `Io`.
    #[inline]
    pub(crate) fn append(
        &mut self,
        batch: &mut EncodedBatch<'_>,
        producer: Option<&ProducerRequest>,
        way: Way,
    ) -> Result<Outcome> {
        let stamp = match producer.map(|it| admit(&self.producers, it, batch.record_count())) {
            None => None,
            Some(Ok(stamp)) => stamp,
            Some(Err(Refusal::Outcome(outcome))) => return Ok(outcome),
            Some(Err(Refusal::Exhausted)) => {
                return Err(Error::config(
                    "sequence",
                    "no number above the last one is left; choose another producer id",
                ));
            }
        };
        let base_offset = self.ends.log_end();
        let next_offset =
            self.ends.after(batch.last_offset_delta()).ok_or_else(|| Error::OffsetExhausted {
                partition: TopicPartition::clone(&self.factory.identity().origin),
            })?;
        let size = batch.size(stamp.is_some());
        let (leader_epoch, durable_end) = (self.epochs.leader_epoch, self.ends.durable_end());
        let (now, max_timestamp) = (self.now, batch.max_timestamp());
        let times = BatchTimes {
            base_timestamp: batch.base_timestamp(),
            max_timestamp,
            age: age_of(max_timestamp, now),
            appended: now,
        };
        let active = self.active_with_room(size, next_offset, way)?;
        let placement = Placement {
            base_offset,
            leader_epoch,
            durable_end,
            key: &active.segment().key,
            producer: stamp,
        };
        let placed = batch.unsealed(&placement);
        active.append(placed, base_offset, &times, way)?;
        self.ends.advance_end(next_offset);
        if let Some(stamp) = stamp {
            let state = ProducerState {
                id: stamp.id,
                epoch: stamp.epoch,
                last_sequence: stamp
                    .base_sequence
                    .saturating_add(u64::from(batch.last_offset_delta())),
                last_offset: next_offset.saturating_sub(1),
                last_timestamp: now.wall,
            };
            self.producers.note(state, now.run);
        } else if let Some(producer) = producer {
            self.producers.note_use(producer.id, now);
        }
        Ok(Outcome::Appended { base_offset, next_offset })
    }

    /// Continues at `offset`, like a log whose earlier offsets are all used.
    #[cfg(test)]
    pub(crate) fn jump_to(&mut self, offset: u64) -> Result<()> {
        self.ends.advance_end(offset);
        self.roll_for(0)
    }

    /// The active segment, with space for a batch of `size` bytes that ends at `next_offset`.
    #[inline]
    fn active_with_room(&mut self, size: u32, next_offset: u64, way: Way) -> Result<&mut Active> {
        if !self.appender.has_room(size, next_offset) {
            let limit = batch_bytes_max(self.factory.options().segment_bytes);
            if u64::from(size) > limit {
                return Err(Error::RecordTooLarge { size: u64::from(size), limit });
            }
            self.roll_for(size as usize)?;
        }
        self.appender.with_space(size, way)
    }

    /// Seals the active segment and begins a new one, with room for a batch of `bytes`.
    pub(crate) fn roll_for(&mut self, bytes: usize) -> Result<()> {
        let producers = self.producers.states_at(self.now);
        let base_offset = self.ends.log_end();
        let opening = Opening {
            base_offset,
            leader_epoch: self.epochs.leader_epoch,
            incarnation: self.epochs.incarnation,
            durable_mark: self.ends.durable_end(),
            producers: producers.clone(),
        };
        let needed = SegmentHeader::SIZE + opening_room(producers.len()) + bytes;
        let prepared = self.appender.next_segment(needed, &mut self.factory)?;
        let opening = opening.encode(&prepared.header.key(), 0)?;
        let origin = &self.factory.identity().origin;
        let file = SegmentFile::new(origin, &prepared.path, &prepared.header, base_offset);
        let region = prepared.writer.region();
        let segment = Segment::active(self.env(), file, region, &prepared.claim);
        let mut next = Active::begin(segment, prepared);
        if let Err(error) = next.append_opening(&opening) {
            if self.factory.withdraw(&next.segment().path).is_err()
                && let Some(active) = self.appender.take_active()
            {
                // The opening batch may have reached the file, and the file may exist again after a
                // crash. The segment that was active must then end where that file begins.
                self.seal(active, producers);
            }
            return Err(error);
        }
        // The successor is in the list before the segment is sealed: a reader that finds the
        // segment sealed must find its successor.
        self.segments.push(Arc::clone(next.segment()));
        if let Some(sealed) = self.appender.set_active(next) {
            let partition = Arc::clone(&self.factory.identity().origin);
            note!(self.env().trace, Rolled { partition, base_offset });
            self.seal(sealed, producers);
        }
        Ok(())
    }

    fn seal(&mut self, active: Active, producers: Vec<ProducerState>) {
        let SealedActive { file, is_synced, contents } = active.seal(self.ends.log_end());
        let sealed = Unfinished {
            segment: Arc::clone(&file.segment),
            is_found: false,
            index: contents.index,
            index_is_whole: contents.index_is_whole,
            producers,
            leader_epoch: self.epochs.leader_epoch,
            incarnation: self.epochs.incarnation,
            sealed_to: 0,
        };
        self.backlog.seal(sealed, file, is_synced);
    }

    // ---- syncs and retention --------------------------------------------------------------------

    /// A task that makes durable what is published now, or an empty one if all of it is durable.
    /// There is one at a time. The caller drops it without a lock, because the drop closes files.
    pub(crate) fn begin_sync(&mut self, scope: SyncScope) -> SyncTask {
        let segments = Arc::clone(&self.segments);
        if scope == SyncScope::Sealed {
            let end = self.backlog.sealed_end().unwrap_or(self.ends.log_start());
            return self.backlog.begin_piece(segments, end);
        }
        let mut task = self.backlog.begin_sync(segments, self.ends.log_end());
        task.files.extend(self.appender.begin_sync());
        task
    }

    /// Records that a sync has succeeded.
    pub(crate) fn finish_sync(&mut self, task: &SyncTask) {
        self.ends.advance_durable(task.target);
        self.backlog.finish_sync(task);
        if let Some(last) = task.files.last() {
            self.appender.finish_sync(last);
        }
    }

    /// A recovery point. `None` while some record is not durable.
    pub(crate) fn checkpoint(&self) -> Option<Checkpoint> {
        if self.ends.is_dirty() {
            return None;
        }
        let mut began = None;
        let (segment, position, last_batch, times) = if let Some(active) = self.appender.active() {
            let contents = active.contents();
            began = contents.began;
            (active.segment().number, active.position(), contents.last_batch, contents.times)
        } else {
            let last = self.segments.last()?;
            let sealed = last.sealed()?;
            (last.number, sealed.data_end as usize, 0, sealed.times)
        };
        Some(Checkpoint {
            log_start: self.ends.log_start(),
            end_offset: self.ends.log_end(),
            segment,
            position: u32::try_from(position).ok()?,
            last_batch: u32::try_from(last_batch).ok()?,
            times: times.map(|times| (times.first, times.max)),
            producers: checkpoint::stored(&self.producers.states_at(self.now)),
            ages: times
                .map(|times| (times.aged_from, began.map_or(times.aged_from, |began| began.wall))),
            is_of_one_run: false,
        })
    }

    /// Moves the log start to `offset` and takes out at most `count` of the segments wholly below
    /// it, oldest first. The caller has made the new log start durable before, and removes the
    /// files afterwards.
    pub(crate) fn retire(&mut self, offset: u64, count: usize) -> Vec<Arc<Segment>> {
        self.ends.advance_start(offset);
        let removed = self.segments.remove_below(self.ends.log_start(), count);
        if let Some(last) = removed.last() {
            // The list is in the order of ranks, and its first segments were removed.
            self.backlog.remove_up_to(last.ranks.1);
        }
        removed
    }

    /// Gives up the files, which were removed with their topic: handles that still exist must not
    /// keep the space that they had. Nothing is appended after this.
    pub(crate) fn give_up_files(&mut self) {
        self.appender.clear();
        self.backlog.clear();
        for segment in self.segments.all() {
            segment.try_drop_map();
        }
    }

    /// For a log to which another process writes: takes over the segments, and the log start, that
    /// a later pass over the files has found. `with_end`: the end too; otherwise it is kept.
    pub(crate) fn take_over(&mut self, mut found: Self, with_end: bool) {
        found.ends =
            if with_end { self.ends.caught_up(found.ends) } else { self.ends.renewed(found.ends) };
        found.now = self.now;
        found.epochs.incarnation = self.epochs.incarnation;
        self.segments.become_as(&found.segments);
        found.segments = Arc::clone(&self.segments);
        *self = found;
    }
}

/// Returns the stamp of a new batch. A batch without a sequence has none: the epoch is in the
/// catalog, and there is nothing else to remember.
fn admit(
    producers: &ProducerTable,
    producer: &ProducerRequest,
    records: u32,
) -> Result<Option<ProducerStamp>, Refusal> {
    let ProducerRequest { id, epoch, sequence } = *producer;
    match producers.admit(id, epoch, sequence, records) {
        Admission::Append { base_sequence } => {
            Ok(base_sequence.map(|base_sequence| ProducerStamp { id, epoch, base_sequence }))
        }
        Admission::Duplicate { last_sequence, last_offset } => {
            Err(Refusal::Outcome(Outcome::Duplicate { last_sequence, last_offset }))
        }
        Admission::Fenced { current } => Err(Refusal::Outcome(Outcome::Fenced { current })),
        Admission::Exhausted => Err(Refusal::Exhausted),
    }
}

enum Refusal {
    Outcome(Outcome),
    Exhausted,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("partition", &self.factory.identity().origin)
            .field("ends", &self.ends)
            .field("appender", &self.appender)
            .finish_non_exhaustive()
    }
}

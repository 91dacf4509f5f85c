//! Topics and partitions as an application holds them.
//!
//! Owns: the public handles [`Topic`] and [`Partition`], and what all partitions of a topic share.
//! Must not know: the broker. A handle keeps the broker alive through a [`Lifeline`], of which it
//! knows nothing else.

use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use crate::clock::Clock;
use crate::config::{Durability, TopicConfig, Visibility};
use crate::error::{Error, Result};
use crate::format::TopicId;
use crate::log::Outcome;
use crate::log::cursor::{FetchLimits, Fetched};
use crate::message::Batch;
use crate::partition::encode::{RecordRules, encode, millis_of};
use crate::partition::{AppendOptions, PartitionCore};
use crate::record::{Record, TopicPartition};
use crate::sync::{AtomicBool, Ordering, RwLock};

/// Keeps the broker open for as long as a handle lives.
pub(crate) type Lifeline = Arc<dyn Any + Send + Sync>;

/// What all handles of a topic share. Never changed: a topic that is altered or grows gets another
/// one, with the same partitions, and handles of the one before find it by [`Succession`].
pub(crate) struct TopicShared {
    pub(crate) name: Arc<str>,
    pub(crate) id: TopicId,
    pub(crate) config: TopicConfig,
    /// The durability in force: the topic's own, or the broker's.
    pub(crate) durability: Durability,
    pub(crate) rules: RecordRules,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) partitions: Vec<Arc<PartitionCore>>,
    /// The data directory, if it was opened for inspection alone.
    pub(crate) read_only: Option<PathBuf>,
    pub(crate) succession: Succession,
}

/// Where a handle of a topic whose settings were replaced finds those in force. Costs a handle that
/// is up to date one load of a value that hardly ever changes.
pub(crate) struct Succession {
    /// ORDERING: stored with Release after `current` names a successor; loaded with Acquire by
    /// handles, who then find it there.
    is_replaced: AtomicBool,
    /// Shared by all that succeed one another. Weak: the broker's table keeps the one in force.
    current: Arc<RwLock<Weak<TopicShared>>>,
}

impl Succession {
    /// Of a topic that was just made or opened.
    pub(crate) fn first() -> Self {
        Self::of(Arc::new(RwLock::new(Weak::new())))
    }

    fn of(current: Arc<RwLock<Weak<TopicShared>>>) -> Self {
        Self { is_replaced: AtomicBool::new(false), current }
    }
}

impl TopicShared {
    /// What is in force in place of this one, if it was replaced.
    #[inline]
    fn successor(&self) -> Option<Arc<Self>> {
        if !self.is_replaced() {
            return None;
        }
        // None also when the topic is gone: then the handle goes on with what it has.
        self.succession.current.read().upgrade()
    }

    /// Whether other settings, or more partitions, are in force in place of these.
    pub(crate) fn is_replaced(&self) -> bool {
        self.succession.is_replaced.load(Ordering::Acquire)
    }

    /// The same topic with other settings or more partitions. In force for the handles of this one
    /// from [`give_way_to`](Self::give_way_to) on.
    pub(crate) fn with(
        &self,
        config: TopicConfig,
        rules: RecordRules,
        partitions: Vec<Arc<PartitionCore>>,
    ) -> Arc<Self> {
        let current = Arc::clone(&self.succession.current);
        Arc::new(Self {
            name: Arc::clone(&self.name),
            id: self.id,
            config,
            durability: self.durability,
            rules,
            clock: Arc::clone(&self.clock),
            partitions,
            read_only: self.read_only.clone(),
            succession: Succession::of(current),
        })
    }

    pub(crate) fn give_way_to(&self, next: &Arc<Self>) {
        *self.succession.current.write() = Arc::downgrade(next);
        self.succession.is_replaced.store(true, Ordering::Release);
    }

    pub(crate) fn partition(&self, number: u32) -> Result<&Arc<PartitionCore>> {
        self.partitions.get(number as usize).ok_or_else(|| {
            Error::UnknownPartition(TopicPartition {
                topic: Arc::clone(&self.name),
                partition: number,
            })
        })
    }

    /// Refuses to write what was opened for inspection.
    #[inline]
    pub(crate) fn check_writable(&self) -> Result<()> {
        match &self.read_only {
            Some(path) => Err(Error::ReadOnly { path: path.clone() }),
            None => Ok(()),
        }
    }

    /// The broker's time, as it is stored in records.
    pub(crate) fn now_millis(&self) -> Result<u64> {
        millis_of(self.clock.now())
    }
}

impl fmt::Debug for TopicShared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topic")
            .field("name", &self.name)
            .field("partitions", &self.partitions.len())
            .finish_non_exhaustive()
    }
}

/// A topic: a named set of partitions. Cheap to clone; keeps the broker open.
#[derive(Clone)]
pub struct Topic {
    shared: Arc<TopicShared>,
    lifeline: Lifeline,
}

impl Topic {
    pub(crate) fn new(shared: Arc<TopicShared>, lifeline: Lifeline) -> Self {
        Self { shared, lifeline }
    }

    /// The topic's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// How many partitions it has now.
    #[must_use]
    pub fn partitions(&self) -> u32 {
        self.current().config.partitions
    }

    /// One of its partitions.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownPartition`].
    pub fn partition(&self, number: u32) -> Result<Partition> {
        let shared = self.current();
        let core = Arc::clone(shared.partition(number)?);
        Ok(Partition { core, shared, _lifeline: Arc::clone(&self.lifeline) })
    }

    /// The topic's settings, as they are in force now.
    #[must_use]
    pub fn config(&self) -> TopicConfig {
        self.current().config.clone()
    }

    fn current(&self) -> Arc<TopicShared> {
        self.shared.successor().unwrap_or_else(|| Arc::clone(&self.shared))
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

/// One partition of a topic: an ordered log of records with consecutive offsets.
///
/// Appending here bypasses the partitioner; the timestamps, limits and durability are the topic's.
/// Cheap to clone and free to share between threads; keeps the broker open.
#[derive(Clone)]
pub struct Partition {
    core: Arc<PartitionCore>,
    shared: Arc<TopicShared>,
    _lifeline: Lifeline,
}

impl Partition {
    /// Appends one record and returns the offset that it was given.
    ///
    /// # Errors
    ///
    /// Definite (nothing was appended): [`Error::RecordTooLarge`], [`Error::Config`] for a record
    /// that names another topic or partition or a moment before 1970, or has no key where the
    /// topic is compacted, [`Error::StorageFull`],
    /// [`Error::OffsetExhausted`], [`Error::Poisoned`], [`Error::ReadOnly`],
    /// [`Error::UnknownTopic`] once the topic is deleted. Unknown outcome: [`Error::SyncFailed`],
    /// [`Error::Closed`] while waiting.
    ///
    /// # Durability
    ///
    /// On return the record is acknowledged at the topic's durability.
    ///
    /// # Blocking
    ///
    /// At [`Durability::Sync`] for a sync of the disk, which concurrent callers share; at the
    /// other levels only while a segment is rolled or grown that the background did not get to.
    /// With [`WhenFull::Wait`](crate::WhenFull::Wait) until there is room, too.
    pub fn append(&self, record: &Record<'_>) -> Result<u64> {
        self.check_addressee(record)?;
        let range = self.append_records([record], None)?;
        Ok(range.start)
    }

    /// Appends records as one batch: all or nothing, also across a crash. Returns their offsets.
    ///
    /// # Errors
    ///
    /// As [`append`](Self::append); [`Error::RecordTooLarge`] also when no segment holds the
    /// batch.
    ///
    /// # Durability
    ///
    /// As [`append`](Self::append). No records: `Ok(end..end)`, and nothing is written.
    ///
    /// # Blocking
    ///
    /// As [`append`](Self::append).
    pub fn append_batch(&self, records: &[Record<'_>]) -> Result<Range<u64>> {
        self.append_all(None, records)
    }

    /// Compare-and-append: as [`append_batch`](Self::append_batch), but only if the next offset is
    /// `expected_next`.
    ///
    /// # Errors
    ///
    /// [`Error::WrongOffset`] tells the actual next offset; nothing was appended. Otherwise as
    /// [`append`](Self::append).
    ///
    /// # Durability
    ///
    /// As [`append`](Self::append).
    ///
    /// # Blocking
    ///
    /// As [`append`](Self::append).
    pub fn append_if(&self, expected_next: u64, records: &[Record<'_>]) -> Result<Range<u64>> {
        self.append_all(Some(expected_next), records)
    }

    fn append_all(&self, expected: Option<u64>, records: &[Record<'_>]) -> Result<Range<u64>> {
        for record in records {
            self.check_addressee(record)?;
        }
        if records.is_empty() {
            self.check_open()?;
            let end = self.core.log_end();
            return match expected.filter(|expected| *expected != end) {
                Some(expected) => Err(Error::WrongOffset { expected, actual: end }),
                None => Ok(end..end),
            };
        }
        self.append_records(records, expected)
    }

    #[inline]
    fn append_records<'r, 'a: 'r>(
        &self,
        records: impl IntoIterator<Item = &'r Record<'a>>,
        expected: Option<u64>,
    ) -> Result<Range<u64>> {
        let successor = self.shared.successor();
        let shared = successor.as_deref().unwrap_or(&self.shared);
        shared.check_writable()?;
        let now = shared.now_millis()?;
        let options = AppendOptions { expected, wall: now, ..AppendOptions::default() };
        let outcome =
            encode(records, shared.rules, now, |batch| self.core.append(batch, &options))?;
        let Outcome::Appended { base_offset, next_offset } = outcome else {
            return Err(Error::config("producer", "a plain append has no sequence"));
        };
        if shared.durability == Durability::Sync {
            self.core.wait_durable(next_offset).inspect_err(|_| self.core.trace.deliver())?;
        }
        Ok(base_offset..next_offset)
    }

    fn check_open(&self) -> Result<()> {
        if self.core.is_closed() { Err(self.core.ended()) } else { Ok(()) }
    }

    fn check_addressee(&self, record: &Record<'_>) -> Result<()> {
        let origin = &self.core.origin;
        if record.topic.is_some_and(|topic| *topic != *origin.topic) {
            return Err(Error::config("record", format!("it names another topic than {origin}")));
        }
        if record.partition.is_some_and(|partition| partition != origin.partition) {
            let reason = format!("it names another partition than {origin}");
            return Err(Error::config("record", reason));
        }
        Ok(())
    }

    /// Reads records from `from` on: at least one if there is one, about `max_bytes` at most.
    /// Empty at the end of the log. Each call finds its place anew; a loop that reads on is faster
    /// with [`Broker::reader`](crate::Broker::reader).
    ///
    /// # Errors
    ///
    /// [`Error::OffsetOutOfRange`] below the log start and beyond the end; [`Error::Corrupt`] when
    /// the record at `from` is damaged; [`Error::UnknownTopic`] once the topic is deleted;
    /// [`Error::Closed`].
    ///
    /// # Blocking
    ///
    /// Only for the disk, where the data is not in memory. Appenders are not waited for.
    pub fn read(&self, from: u64, max_bytes: usize) -> Result<Batch> {
        let visible_end = self.core.visible_end(Visibility::Published);
        self.core.check_range(from, visible_end)?;
        if from == visible_end {
            return Ok(Batch::default());
        }
        let mut cursor = self.core.cursor_at(from)?;
        let limits = FetchLimits { records: usize::MAX, bytes: max_bytes, visible_end };
        let mut fetched = Fetched::default();
        self.core.fetch(&mut cursor, &limits, &mut fetched)?;
        Ok(Batch::new(fetched.runs))
    }

    /// Where the log begins: everything below was removed on purpose. Where files are missing or
    /// damaged, not every offset from here on can be read.
    #[must_use]
    pub fn log_start_offset(&self) -> u64 {
        self.core.log_start()
    }

    /// The offset that the next record gets.
    #[must_use]
    pub fn log_end_offset(&self) -> u64 {
        self.core.log_end()
    }

    /// Everything below this offset is on stable storage.
    #[must_use]
    pub fn durable_end_offset(&self) -> u64 {
        self.core.durable_end()
    }

    /// The end of what consumers may see. Without replication that is the log end, except after a
    /// failed sync, when only what is durable is shown.
    #[must_use]
    pub fn high_watermark(&self) -> u64 {
        self.core.visible_end(Visibility::Published)
    }

    /// The offset of the first record whose timestamp is `time` or later; `None` if there is none.
    /// Exact also inside a batch and when timestamps are out of order, at the resolution of
    /// timestamps, a millisecond.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] where damage is in the way; [`Error::UnknownTopic`] once the topic is
    /// deleted; [`Error::Io`], [`Error::Closed`].
    ///
    /// # Blocking
    ///
    /// For the disk: reads index footers, and at most a stretch of one segment.
    pub fn offset_at(&self, time: SystemTime) -> Result<Option<u64>> {
        self.check_open()?;
        self.core.offset_at(time)
    }

    /// Makes everything durable that was appended before the call, at any level.
    ///
    /// # Errors
    ///
    /// [`Error::SyncFailed`]: the outcome is unknown, and the partition takes no more appends
    /// until the broker is reopened. [`Error::UnknownTopic`] once the topic is deleted.
    ///
    /// # Blocking
    ///
    /// For a sync of the disk.
    pub fn sync(&self) -> Result<()> {
        self.check_open()?;
        self.shared.check_writable()?;
        self.core.flush()
    }
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.core.fmt(f)
    }
}

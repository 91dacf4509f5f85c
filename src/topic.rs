//! Topics and partitions as an application holds them.
//!
//! Owns: the public handles [`Topic`] and [`Partition`], and what all partitions of a topic share.
//! Must not know: the broker. A handle keeps the broker open through a [`Lifeline`], and uses it
//! for nothing else.

use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use self::append::Terms;
use crate::config::{Durability, TopicConfig, Visibility};
use crate::error::{Error, Result};
use crate::format::TopicId;
use crate::log::cursor::{FetchLimits, Fetched};
use crate::message::Batch;
use crate::partition::PartitionCore;
use crate::partition::encode::RecordRules;
use crate::record::{Record, TopicPartition};
use crate::sync::{AtomicBool, LockLevel, Ordering, RwLock};

pub(crate) mod append;

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
    pub(crate) partitions: Vec<Arc<PartitionCore>>,
    /// The data directory, if it was opened for inspection alone.
    pub(crate) read_only: Option<PathBuf>,
    pub(crate) succession: Succession,
}

/// Leads a handle of a topic whose settings were replaced to those in force. Costs a handle that is
/// up to date one load of a value that hardly ever changes.
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
        Self::of(Arc::new(RwLock::at_level(LockLevel::TopicSuccessor, Weak::new())))
    }

    fn of(current: Arc<RwLock<Weak<TopicShared>>>) -> Self {
        Self { is_replaced: AtomicBool::new(false), current }
    }
}

impl TopicShared {
    /// What has replaced this one, if anything.
    #[inline]
    fn successor(&self) -> Option<Arc<Self>> {
        if !self.is_replaced() {
            return None;
        }
        // `None` also if the topic is deleted: then the handle keeps its settings.
        self.succession.current.read().upgrade()
    }

    /// Whether other settings, or more partitions, have replaced these.
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

    /// Refuses to write in a read-only broker.
    #[inline]
    pub(crate) fn check_writable(&self) -> Result<()> {
        match &self.read_only {
            Some(path) => Err(Error::ReadOnly { path: path.clone() }),
            None => Ok(()),
        }
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

/// A topic: a named set of partitions; made by
/// [`Broker::ensure_topic`](crate::Broker::ensure_topic) and
/// [`Broker::topic`](crate::Broker::topic). Cheap to clone; keeps the broker open.
///
/// ```
/// # use logpond::{Broker, Record, TopicConfig};
/// # let broker = Broker::in_memory()?;
/// let orders = broker.ensure_topic("orders", TopicConfig::new(3))?;
/// assert_eq!((orders.name(), orders.partitions()), ("orders", 3));
/// assert_eq!(orders.partition(2)?.append(&Record::new().value("2 apples"))?, 0);
/// # Ok::<(), logpond::Error>(())
/// ```
#[derive(Clone)]
pub struct Topic {
    shared: Arc<TopicShared>,
    lifeline: Lifeline,
}

impl Topic {
    pub(crate) fn new(shared: Arc<TopicShared>, lifeline: Lifeline) -> Self {
        Self { shared, lifeline }
    }

    /// Returns the topic's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Returns how many partitions the topic has now. Their numbers are 0 up to this one,
    /// exclusive.
    #[must_use]
    pub fn partitions(&self) -> u32 {
        self.current().config.partitions
    }

    /// Returns one of the topic's partitions.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownPartition`] if `number` is not below [`partitions`](Self::partitions).
    pub fn partition(&self, number: u32) -> Result<Partition> {
        let shared = self.current();
        let core = Arc::clone(shared.partition(number)?);
        Ok(Partition { core, shared, _lifeline: Arc::clone(&self.lifeline) })
    }

    /// Iterates the partitions in the order of their numbers. Includes partitions that were added
    /// after this handle was made, but none that are added during the iteration.
    ///
    /// ```
    /// use logpond::{Broker, TopicConfig};
    ///
    /// let broker = Broker::in_memory()?;
    /// let topic = broker.ensure_topic("emails", TopicConfig::new(3))?;
    /// let records: u64 = topic.iter().map(|partition| partition.log_end_offset()).sum();
    /// assert_eq!(records, 0);
    /// # Ok::<(), logpond::Error>(())
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = Partition> {
        let shared = self.current();
        let lifeline = Arc::clone(&self.lifeline);
        (0..shared.config.partitions).filter_map(move |number| {
            let core = Arc::clone(shared.partition(number).ok()?);
            let (shared, lifeline) = (Arc::clone(&shared), Arc::clone(&lifeline));
            Some(Partition { core, shared, _lifeline: lifeline })
        })
    }

    /// Returns the present settings of the topic.
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

/// One partition of a topic: an ordered log of records, with consecutive offsets from 0; returned
/// by [`Topic::partition`].
///
/// This handle appends to the partition and reads from it directly, without a producer or consumer;
/// no key chooses the partition. The topic's settings apply, including its durability. Cheap to
/// clone and safe to share between threads; keeps the broker open.
///
/// ```
/// # use logpond::{Broker, Record, TopicConfig};
/// # let broker = Broker::in_memory()?;
/// let log = broker.ensure_topic("audit", TopicConfig::new(1))?.partition(0)?;
/// let batch = [Record::new().value("login"), Record::new().value("logout")];
/// assert_eq!(log.append_batch(&batch)?, 0..2);
///
/// let read = log.read(1, 1 << 20)?;
/// assert_eq!(read.iter().next().unwrap().value(), Some(&b"logout"[..]));
/// # Ok::<(), logpond::Error>(())
/// ```
#[derive(Clone)]
pub struct Partition {
    core: Arc<PartitionCore>,
    shared: Arc<TopicShared>,
    _lifeline: Lifeline,
}

impl Partition {
    /// Returns the partition's number in its topic, from 0.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.core.origin.partition
    }

    /// Appends one record and returns its offset.
    ///
    /// # Errors
    ///
    /// Nothing was appended after [`Error::RecordTooLarge`], [`Error::Config`] (the record names
    /// another topic or partition, has a time before 1970, or has no key and the topic is
    /// compacted), [`Error::StorageFull`], [`Error::OffsetExhausted`], [`Error::Poisoned`],
    /// [`Error::ReadOnly`], [`Error::Corrupt`] (files of the partition are missing or unreadable),
    /// [`Error::Forked`], and [`Error::UnknownTopic`] once the topic is deleted. The record may or
    /// may not be stored after [`Error::SyncFailed`], [`Error::Io`] and [`Error::Closed`].
    ///
    /// On a replicated broker nothing was appended after [`Error::NotLeader`] and
    /// [`Error::NotEnoughReplicas`], and the record may or may not be kept after
    /// [`Error::LeadershipLost`] and [`Error::Timeout`].
    ///
    /// # Durability
    ///
    /// On return the record survives what the topic's [`Durability`] covers, or the broker's if the
    /// topic has none. On a replicated broker a majority of the members has it.
    ///
    /// # Blocking
    ///
    /// On a replicated broker, for a majority of the members. At [`Durability::Sync`], for a sync of the disk, which concurrent callers share. At the
    /// other levels, only if the append needs space in the segment or a new segment, and a
    /// background thread has not prepared it yet; and while 1 GiB of the partition's full segments
    /// is not durable. With [`WhenFull::Wait`](crate::WhenFull::Wait), also until there is space.
    pub fn append(&self, record: &Record<'_>) -> Result<u64> {
        self.check_addressee(record)?;
        Ok(self.append_records([record], None)?.start)
    }

    /// Appends records as one batch, which is stored as a whole or not at all, also after a crash.
    /// Returns their offsets. If `records` is empty, nothing is written and the result is an empty
    /// range at the log end offset.
    ///
    /// # Errors
    ///
    /// Nothing was appended after [`Error::RecordTooLarge`] (a record, or the batch, is too large),
    /// [`Error::Config`] (a record names another topic or partition, has a time before 1970, or has
    /// no key and the topic is compacted), [`Error::StorageFull`], [`Error::OffsetExhausted`],
    /// [`Error::Poisoned`], [`Error::ReadOnly`], [`Error::Corrupt`] (files of the partition are
    /// missing or unreadable), [`Error::Forked`], and [`Error::UnknownTopic`] once the topic is
    /// deleted. The whole batch may or may not be stored after [`Error::SyncFailed`],
    /// [`Error::Io`] and [`Error::Closed`].
    ///
    /// On a replicated broker nothing was appended after [`Error::NotLeader`] and
    /// [`Error::NotEnoughReplicas`], and the batch may or may not be kept after
    /// [`Error::LeadershipLost`] and [`Error::Timeout`].
    ///
    /// # Durability
    ///
    /// On return the batch survives what the topic's [`Durability`] covers, or the broker's if the
    /// topic has none. On a replicated broker a majority of the members has it.
    ///
    /// # Blocking
    ///
    /// On a replicated broker, for a majority of the members. At [`Durability::Sync`], for a sync of the disk. With
    /// [`WhenFull::Wait`](crate::WhenFull::Wait), also until there is space.
    pub fn append_batch(&self, records: &[Record<'_>]) -> Result<Range<u64>> {
        self.append_all(None, records)
    }

    /// Appends records as one batch, but only if the log ends at `expected_next`, that is, if the
    /// first record gets this offset. Of several writers that have read the log up to the same
    /// offset, exactly one succeeds.
    ///
    /// ```
    /// # use logpond::{Broker, Error, Record, TopicConfig};
    /// # let broker = Broker::in_memory()?;
    /// # let log = broker.ensure_topic("ledger", TopicConfig::new(1))?.partition(0)?;
    /// let seen = log.log_end_offset();
    /// log.append_if(seen, &[Record::new().value("balance: 90")])?;
    ///
    /// // A second writer that has seen the same end is refused. It reads the new record first.
    /// let late = log.append_if(seen, &[Record::new().value("balance: 80")]);
    /// assert!(matches!(late, Err(Error::WrongOffset { expected: 0, actual: 1, .. })));
    /// # Ok::<(), logpond::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::WrongOffset`] if the log ends at another offset, which the error contains: nothing
    /// was appended.
    ///
    /// Nothing was appended after [`Error::RecordTooLarge`] (a record, or the batch, is too large),
    /// [`Error::Config`] (a record names another topic or partition, has a time before 1970, or has
    /// no key and the topic is compacted), [`Error::StorageFull`], [`Error::OffsetExhausted`],
    /// [`Error::Poisoned`], [`Error::ReadOnly`], [`Error::Corrupt`] (files of the partition are
    /// missing or unreadable), [`Error::Forked`], and [`Error::UnknownTopic`] once the topic is
    /// deleted. The whole batch may or may not be stored after [`Error::SyncFailed`],
    /// [`Error::Io`] and [`Error::Closed`].
    ///
    /// On a replicated broker nothing was appended after [`Error::NotLeader`] and
    /// [`Error::NotEnoughReplicas`], and the batch may or may not be kept after
    /// [`Error::LeadershipLost`] and [`Error::Timeout`].
    ///
    /// # Durability
    ///
    /// On return the batch survives what the topic's [`Durability`] covers, or the broker's if the
    /// topic has none. On a replicated broker a majority of the members has it.
    ///
    /// # Blocking
    ///
    /// On a replicated broker, for a majority of the members. At [`Durability::Sync`], for a sync of the disk. With
    /// [`WhenFull::Wait`](crate::WhenFull::Wait), also until there is space.
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
                Some(expected) => Err(Error::wrong_offset(&self.core.origin, expected, end)),
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
        let terms = Terms { expected, ..Terms::default() }.at_once();
        let appended = append::append(shared, &self.core, records, &terms)?;
        appended.settle()?;
        Ok(appended.offsets)
    }

    fn check_open(&self) -> Result<()> {
        self.core.log().status().check_open()
    }

    #[inline]
    fn check_addressee(&self, record: &Record<'_>) -> Result<()> {
        if record.topic.is_none() && record.partition.is_none() {
            return Ok(());
        }
        self.check_names(record)
    }

    fn check_names(&self, record: &Record<'_>) -> Result<()> {
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

    /// Returns the records from offset `from` on: at least one if there is one, and about
    /// `max_bytes` bytes at most. The result is empty if `from` is the end of the log. On a
    /// replicated broker the log ends at the [`high_watermark`](Self::high_watermark), and an offset
    /// above it is not out of range: other members may have records there. Each call
    /// looks `from` up in the index; to read a whole log, [`Broker::reader`](crate::Broker::reader)
    /// is faster.
    ///
    /// # Errors
    ///
    /// [`Error::OffsetOutOfRange`] if `from` is below the log start offset or beyond the end;
    /// [`Error::Corrupt`] if the record at `from` is damaged, or files of the partition are missing
    /// or unreadable; [`Error::UnknownTopic`] once the topic is deleted; [`Error::Io`];
    /// [`Error::Closed`].
    ///
    /// # Blocking
    ///
    /// For the disk, if the data is not in memory. Never for appends.
    pub fn read(&self, from: u64, max_bytes: usize) -> Result<Batch> {
        let visible_end = self.core.visible_end(Visibility::Published);
        self.core.reader().check_range(from, visible_end)?;
        if from >= visible_end {
            return Ok(Batch::default());
        }
        let mut cursor = self.core.reader().cursor_at(from)?;
        let limits = FetchLimits { records: usize::MAX, bytes: max_bytes, visible_end };
        let mut fetched = Fetched::default();
        self.core.reader().fetch(&mut cursor, &limits, &mut fetched)?;
        Ok(Batch::new(fetched.ranges))
    }

    /// Returns the first offset of the log. All records below it were removed on purpose, by
    /// retention or [`delete_records`](crate::Admin::delete_records). If files are missing or
    /// damaged, not every offset from here on can be read.
    #[doc(alias = "beginningOffsets")]
    #[must_use]
    pub fn log_start_offset(&self) -> u64 {
        self.core.log_start()
    }

    /// Returns the offset that the next record will get.
    ///
    /// On a replicated broker it is the end of this member's log: what lies above the
    /// [`high_watermark`](Self::high_watermark) is not visible yet, and may be removed if another
    /// member leads.
    #[doc(alias = "endOffsets")]
    #[must_use]
    pub fn log_end_offset(&self) -> u64 {
        self.core.log_end()
    }

    /// Returns the end of the durable records: every record below this offset is on stable storage.
    #[must_use]
    pub fn durable_end_offset(&self) -> u64 {
        self.core.durable_end()
    }

    /// Returns the end of the visible records: consumers see every record below this offset.
    /// Without replication it is the log end offset; after a failed sync, the durable end offset.
    #[must_use]
    pub fn high_watermark(&self) -> u64 {
        self.core.visible_end(Visibility::Published)
    }

    /// Returns the offset of the first record whose timestamp is `time` or later; `None` if there
    /// is none. The result is exact, also inside a batch, and if timestamps are not in the order of
    /// the records. Timestamps are compared in milliseconds.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if a damaged record has to be read, or files of the partition are missing
    /// or unreadable; [`Error::UnknownTopic`] once the topic is deleted; [`Error::Io`];
    /// [`Error::Closed`].
    ///
    /// # Blocking
    ///
    /// For the disk: reads the indexes of segments, and at most a part of one segment.
    #[doc(alias = "offsetsForTimes")]
    pub fn offset_at(&self, time: SystemTime) -> Result<Option<u64>> {
        self.check_open()?;
        self.core.reader().offset_at(time)
    }

    /// Makes all records of the partition durable that were appended before the call, whatever
    /// their level of [`Durability`]. Only on this machine, also on a replicated broker.
    ///
    /// # Errors
    ///
    /// [`Error::SyncFailed`]: the records may or may not be stored, and the partition takes no more
    /// appends until the broker is opened again. [`Error::Poisoned`]: that happened before.
    /// [`Error::ReadOnly`], [`Error::Corrupt`] (files of the partition are missing or unreadable),
    /// [`Error::Closed`], and [`Error::UnknownTopic`] once the topic is deleted.
    ///
    /// # Durability
    ///
    /// On `Ok` all these records are on stable storage.
    ///
    /// # Blocking
    ///
    /// For a sync of the disk.
    pub fn flush(&self) -> Result<()> {
        self.check_open()?;
        self.shared.check_writable()?;
        self.core.flush().inspect_err(|_| self.core.log().trace().deliver())
    }
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.core.fmt(f)
    }
}

//! Settings, as plain values. Each says its default, its bounds and what follows from it.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Which failures a record survives once the call that appended it has returned `Ok`.
///
/// | level | the call returns when the record | survives process death | survives power loss |
/// |---|---|---|---|
/// | `Os` | is published: readable, in the page cache of the system | yes | no |
/// | `Interval` | is published; a sync follows in the background | yes | all but the records of the last interval |
/// | `Sync` | was published, and then a sync began and succeeded | yes | yes |
///
/// It is set per broker, per topic and per producer. A producer's setting wins over its topic's,
/// and a topic's over the broker's.
///
/// ```
/// use logpond::{Broker, Durability, Record, TopicConfig};
/// use std::time::Duration;
///
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path();
/// let broker = Broker::open(path)?; // Sync
/// let every = Duration::from_millis(50);
/// let clicks = TopicConfig::new(4).durability(Durability::Interval { every, bytes: 1 << 20 });
/// broker.ensure_topic("clicks", clicks)?;
/// let drafts = broker.producer_builder().durability(Durability::Os).build()?;
/// drafts.send(Record::to("clicks").value("home"))?; // published; does not wait for a sync
/// # broker.close()?;
/// # Ok::<(), logpond::Error>(())
/// ```
#[doc(alias = "acks")]
#[doc(alias = "flush.messages")]
#[doc(alias = "flush.ms")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Durability {
    /// The call returns when the record is published: it survives kill -9, but not a power cut. A
    /// background thread makes full segments durable. A producer that is 1 GiB ahead of it waits.
    Os,
    /// The call returns when the record is published, and the partition is synced in the
    /// background: a sync begins `every` after the first un-synced append, or as soon as `bytes`
    /// are un-synced.
    ///
    /// Each partition has its own interval and its own sync. A broker runs up to 16 syncs at the
    /// same time: if P partitions are due together, the last sync begins about P / 16 syncs later.
    Interval {
        /// How long after an append its sync begins at the latest, on the broker's clock, unless
        /// more than 16 syncs are due.
        every: Duration,
        /// With so many un-synced bytes a sync begins earlier.
        bytes: u64,
    },
    /// The call returns when the record is on stable storage. Concurrent callers share each sync.
    #[default]
    Sync,
}

/// Which records of a topic are removed.
#[doc(alias = "cleanup.policy")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Cleanup {
    /// Whole segments are removed when they are older, or the partition is larger, than the
    /// retention settings allow.
    #[default]
    Delete,
    /// Compaction: the latest record of each key is kept, and earlier ones are removed. A record
    /// without a value deletes its key. Appending records without a key is an error. See
    /// [`docs::compaction`](crate::docs::compaction).
    Compact,
    /// Both: compaction removes all but the latest record of each key, and whole segments are
    /// removed by the retention settings.
    CompactAndDelete,
}

/// Which timestamp is stored with a record.
#[doc(alias = "message.timestamp.type")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum TimestampType {
    /// The one that the record has, or else the time of the append by the broker's clock.
    #[default]
    CreateTime,
    /// The time of the append by the broker's clock, also if the record has a timestamp.
    AppendTime,
}

/// What opening a broker does if it finds damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RecoveryPolicy {
    /// The broker opens. Incomplete records at the end of a log, which a crash has left, are cut
    /// off. Other damage is reported ([`Broker::recovery`](crate::Broker::recovery)), reading the
    /// damaged records is an error, and all others stay readable. A partition whose directory or
    /// files are missing or cannot be read is unavailable.
    #[default]
    CutTornTail,
    /// If anything is damaged or would be cut off, the opening fails, and the partition concerned
    /// is not changed.
    Strict,
    /// The broker opens, as with `CutTornTail`. Consumers skip damaged records instead of returning
    /// an error, and report their offsets as gaps
    /// ([`Consumer::take_gaps`](crate::Consumer::take_gaps)).
    ReadAroundDamage,
}

/// What an append does if it would exceed
/// [`BrokerBuilder::max_total_bytes`](crate::BrokerBuilder::max_total_bytes), the byte budget of
/// the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum WhenFull {
    /// The append returns [`Error::StorageFull`], and nothing is stored. Reading, committing and
    /// deleting work as usual. Appends work again once retention or a deletion has made space.
    #[default]
    Refuse,
    /// The broker removes the oldest records of all topics that are not only compacted: of all full
    /// segments, the one whose youngest record is the oldest. If no partition has a full segment,
    /// it removes the last segment of the partition that is appended to, with all of its records:
    /// keep [`TopicConfig::segment_bytes`] small compared with the budget. If that segment is empty
    /// too, the append returns [`Error::StorageFull`].
    DropOldest,
    /// The append waits until retention, a deletion or a compaction has made space, so that a topic
    /// is a bounded channel. The broker applies retention and compaction at once, and then every
    /// minute; with `background(false)`, another thread has to call
    /// [`Broker::tick`](crate::Broker::tick). When the time is over, the append returns
    /// [`Error::StorageFull`], and nothing is stored. If the broker is closed or the topic deleted
    /// meanwhile, it returns [`Error::Closed`] or [`Error::UnknownTopic`].
    ///
    /// All appends wait, also `enqueue`, each batch for itself and in the calling thread: do not
    /// append in an `async` task, whose executor it would block, or in a callback of the broker,
    /// which may have to return before there is space. Creating a topic does not wait. An append
    /// also waits on a full disk; space that another program frees is noticed within a second.
    ///
    /// ```
    /// use logpond::{Broker, Record, TopicConfig, WhenFull};
    /// use std::time::Duration;
    ///
    /// # fn main() -> logpond::Result<()> {
    /// let at_most = Duration::from_secs(30);
    /// let broker = Broker::builder()
    ///     .in_memory()
    ///     .max_total_bytes(4 << 20)
    ///     .when_full(WhenFull::Wait { at_most })
    ///     .open()?;
    /// let config = TopicConfig::new(1).segment_bytes(256 << 10);
    /// let jobs = broker.ensure_topic("jobs", config)?.partition(0)?;
    /// std::thread::scope(|scope| -> logpond::Result<()> {
    ///     let producer = scope.spawn(|| -> logpond::Result<()> {
    ///         // More than the budget: it sends as fast as the other thread deletes.
    ///         for _ in 0..200 {
    ///             jobs.append(&Record::new().value(&[7; 64 << 10]))?;
    ///         }
    ///         Ok(())
    ///     });
    ///     let mut consumer = broker.consumer("workers").subscribe(["jobs"]).open()?;
    ///     for _ in 0..200 {
    ///         let job = consumer.recv()?;
    ///         consumer.commit_message(&job)?;
    ///         broker.admin().delete_records(("jobs", 0), job.next_offset())?;
    ///     }
    ///     producer.join().expect("no panic")
    /// })
    /// # }
    /// ```
    Wait {
        /// The longest wait, in real time, whatever the broker's clock is; [`Duration::MAX`] is for
        /// ever. With zero, opening the broker returns [`Error::Config`]: use `Refuse`.
        at_most: Duration,
    },
}

impl WhenFull {
    pub(crate) fn validate(self) -> Result<()> {
        match self {
            Self::Wait { at_most: Duration::ZERO } => {
                Err(Error::config("when_full", "the wait is zero; use `Refuse` instead"))
            }
            _ => Ok(()),
        }
    }
}

/// How a broker reads segment files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReadMode {
    /// Through memory maps, without a copy, on every file system. If another program shortens a
    /// mapped file, or the disk cannot read a page, the signal SIGBUS ends the process.
    #[default]
    Mapped,
    /// By `pread` into buffers. Nothing is mapped, not even to write, so SIGBUS cannot occur: a
    /// page that cannot be read is [`Error::Io`].
    Copy,
}

/// An offset, by its meaning. It says where a consumer starts in a partition without a commit
/// ([`start`](crate::ConsumerBuilder::start)), where it continues if its next records were removed
/// ([`out_of_range`](crate::ConsumerBuilder::out_of_range)), and where it reads after a
/// [`seek`](crate::Consumer::seek).
///
/// ```
/// # use logpond::{Broker, Record, StartAt, TopicConfig};
/// # use std::time::{Duration, SystemTime};
/// # let broker = Broker::in_memory()?;
/// # broker.ensure_topic("clicks", TopicConfig::new(1))?;
/// # broker.producer().send(Record::to("clicks").value("home"))?;
/// let an_hour_ago = SystemTime::now() - Duration::from_secs(3600);
/// let mut reader = broker.reader().subscribe(["clicks"]).start(StartAt::Time(an_hour_ago)).open()?;
/// assert_eq!(reader.poll(Duration::ZERO)?.len(), 1);
/// # Ok::<(), logpond::Error>(())
/// ```
#[doc(alias = "auto.offset.reset")]
#[doc(alias = "OffsetSpec")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StartAt {
    /// The first record.
    #[default]
    Earliest,
    /// The end of the log: only records that are appended later.
    Latest,
    /// This offset, or the nearest end of the log if it has no such offset.
    Offset(u64),
    /// The first record with this timestamp or a later one; the end of the log if there is none.
    Time(SystemTime),
    /// None: the call returns [`Error::NoOffset`] or [`Error::OffsetOutOfRange`].
    Error,
}

/// Whether the program or the consumer commits, and when. To commit is to store the offset at which
/// the group continues.
#[doc(alias = "enable.auto.commit")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CommitMode {
    /// The program commits, by [`Consumer::commit`](crate::Consumer::commit),
    /// [`commit_message`](crate::Consumer::commit_message) and the like.
    #[default]
    Manual,
    /// The consumer commits, inside `poll` and in `close`; a stream commits only when it is polled.
    /// It commits the messages of all polls but the last. So finish the work on a batch before the
    /// next poll.
    Auto {
        /// The time between two commits, on the broker's clock. More than zero.
        every: Duration,
    },
}

/// Whether a consumer sees records before they are durable.
///
/// ```
/// # use logpond::{Broker, Durability, Record, TopicConfig, Visibility};
/// # use std::time::Duration;
/// # let directory = tempfile::tempdir().unwrap();
/// let broker = Broker::builder().data_dir(directory.path()).background(false).open()?;
/// broker.ensure_topic("clicks", TopicConfig::new(1).durability(Durability::Os))?;
/// let mut careful =
///     broker.reader().subscribe(["clicks"]).visibility(Visibility::Durable).open()?;
/// broker.producer().send(Record::to("clicks").value("home"))?; // published, not synced
/// assert!(careful.poll(Duration::ZERO)?.is_empty());
/// broker.flush()?;
/// assert_eq!(careful.poll(Duration::ZERO)?.len(), 1);
/// # Ok::<(), logpond::Error>(())
/// ```
#[doc(alias = "isolation.level")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Visibility {
    /// It sees each record as soon as it is appended. **A power cut can remove records that it has
    /// seen**, unless they were acknowledged at [`Durability::Sync`].
    #[default]
    Published,
    /// It sees only records on stable storage, which no power cut can remove.
    Durable,
}

/// Which members of a replicated group must have a record before it is acknowledged; a setting of a
/// [producer](crate::ProducerBuilder::acks). A broker without replication is the only copy there is.
///
/// Consumers on all members see a record only once a majority has it, whatever the producer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Acks {
    /// The leader alone, at the durability in force. A record that no majority has yet is lost if
    /// another member leads next.
    #[default]
    Leader,
    /// The leader at the durability in force, and a majority of the members at the stricter one of the
    /// topic's and the producer's: at [`Durability::Sync`] they have synced the record, at the other
    /// levels they have written it. The record is never lost while a majority keeps its disks. The default on a replicated
    /// broker; without replication it is refused with [`Error::Config`].
    Quorum,
}

/// LIMIT: a segment must hold its header, its opening batch and a useful number of records.
pub(crate) const SEGMENT_BYTES_MIN: u64 = 16 << 10;
/// LIMIT: positions are 32 bits, with room to spare for the arithmetic on them.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// LIMIT: partitions of one topic; far above need, low enough that a loop over all of them stays
/// short.
pub(crate) const PARTITIONS_MAX: u32 = 10_000;
/// LIMIT: the default of `max_record_bytes`, as far as the segment holds it: Kafka's.
pub(crate) const RECORD_BYTES_DEFAULT: u32 = 1 << 20;

/// The settings of a topic: made by [`new`](Self::new), changed by setters, and read by fields of the
/// same names.
///
/// ```
/// use logpond::{Durability, TopicConfig};
/// use std::time::Duration;
///
/// let config = TopicConfig::new(4).durability(Durability::Os).retention(Duration::from_secs(3600));
/// assert_eq!(config.partitions, 4);
/// ```
#[doc(alias = "NewTopic")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TopicConfig {
    /// How many partitions, 1 to 10,000.
    pub partitions: u32,
    /// Which failures a record survives once its append has returned. `None`, the default, takes
    /// the broker's setting. It decides how the topic's files are written, so it cannot be altered
    /// later; a producer can have its own.
    pub durability: Option<Durability>,
    /// How long records are kept. Default 7 days; [`Duration::MAX`] is for ever. A segment file is
    /// removed when all of its records are older: see [`docs::retention`](crate::docs::retention).
    /// Without effect while [`cleanup`](Self::cleanup) is [`Cleanup::Compact`].
    #[doc(alias = "retention.ms")]
    pub retention: Duration,
    /// How many bytes each partition keeps at least. Default `u64::MAX`, no limit. The oldest
    /// segment is removed if the others have this many bytes; the last segment is kept. Without
    /// effect while [`cleanup`](Self::cleanup) is
    /// [`Cleanup::Compact`].
    #[doc(alias = "retention.bytes")]
    pub retention_bytes: u64,
    /// The size of a segment file: 16 KiB to 1 GiB. Default 64 MiB. A record and a batch must fit
    /// into one segment.
    #[doc(alias = "segment.bytes")]
    pub segment_bytes: u64,
    /// A new segment is begun when the first record of the last one is older than this, although it
    /// is not full. Default 7 days; [`Duration::MAX`] is never.
    #[doc(alias = "segment.ms")]
    pub segment_age: Duration,
    /// Which records are removed: by age and size, or all but the latest of each key. Default
    /// [`Cleanup::Delete`].
    #[doc(alias = "cleanup.policy")]
    pub cleanup: Cleanup,
    /// How long a tombstone (a record without a value) is kept in a compacted topic, counted from
    /// the first compaction that reads it. Default 24 hours; [`Duration::MAX`] is for ever.
    #[doc(alias = "delete.retention.ms")]
    pub tombstone_retention: Duration,
    /// A compaction starts when this share, 0 to 1, of the bytes in full segments was not compacted
    /// yet. Default 0.5.
    #[doc(alias = "min.cleanable.dirty.ratio")]
    pub min_dirty_ratio: f64,
    /// The largest record: bytes of key, value and headers together. `None`, the default, is 1 MiB,
    /// or what a segment holds if that is less.
    #[doc(alias = "max.message.bytes")]
    pub max_record_bytes: Option<u32>,
    /// Which timestamp is stored with a record. Default [`TimestampType::CreateTime`].
    #[doc(alias = "message.timestamp.type")]
    pub timestamps: TimestampType,
}

impl TopicConfig {
    /// Returns the default settings for a topic with this many partitions.
    #[must_use]
    pub fn new(partitions: u32) -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self {
            partitions,
            durability: None,
            retention: DAY.saturating_mul(7),
            retention_bytes: u64::MAX,
            segment_bytes: 64 << 20,
            segment_age: DAY.saturating_mul(7),
            cleanup: Cleanup::Delete,
            tombstone_retention: DAY,
            min_dirty_ratio: 0.5,
            max_record_bytes: None,
            timestamps: TimestampType::CreateTime,
        }
    }

    /// Sets [`durability`](Self::durability).
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// Sets [`retention`](Self::retention).
    #[must_use]
    pub fn retention(mut self, age: Duration) -> Self {
        self.retention = age;
        self
    }

    /// Sets [`retention_bytes`](Self::retention_bytes).
    #[must_use]
    pub fn retention_bytes(mut self, bytes: u64) -> Self {
        self.retention_bytes = bytes;
        self
    }

    /// Sets [`segment_bytes`](Self::segment_bytes).
    #[must_use]
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// Sets [`segment_age`](Self::segment_age).
    #[must_use]
    pub fn segment_age(mut self, age: Duration) -> Self {
        self.segment_age = age;
        self
    }

    /// Sets [`cleanup`](Self::cleanup).
    #[must_use]
    pub fn cleanup(mut self, cleanup: Cleanup) -> Self {
        self.cleanup = cleanup;
        self
    }

    /// Sets [`tombstone_retention`](Self::tombstone_retention).
    #[must_use]
    pub fn tombstone_retention(mut self, age: Duration) -> Self {
        self.tombstone_retention = age;
        self
    }

    /// Sets [`min_dirty_ratio`](Self::min_dirty_ratio).
    #[must_use]
    pub fn min_dirty_ratio(mut self, ratio: f64) -> Self {
        self.min_dirty_ratio = ratio;
        self
    }

    /// Sets [`max_record_bytes`](Self::max_record_bytes).
    #[must_use]
    pub fn max_record_bytes(mut self, bytes: u32) -> Self {
        self.max_record_bytes = Some(bytes);
        self
    }

    /// Sets [`timestamps`](Self::timestamps).
    #[must_use]
    pub fn timestamps(mut self, timestamps: TimestampType) -> Self {
        self.timestamps = timestamps;
        self
    }

    /// Takes the broker's defaults for every setting that is still at the crate's default. The
    /// partition count is never taken.
    pub(crate) fn or_defaults(self, defaults: &Self) -> Self {
        let defaults = Self { partitions: self.partitions, ..defaults.clone() };
        Self::new(self.partitions).with_changes(&self, &defaults)
    }

    /// The settings of an existing topic, which has `stored`, that are not what `self` asks for,
    /// and how they differ. Looks at those that decide what is kept and what an acknowledgement
    /// means; of these, one that is at the crate's default asks for nothing, except the partition
    /// count.
    pub(crate) fn unmet_by(&self, stored: &Self) -> Vec<(&'static str, String)> {
        let default = Self::new(self.partitions);
        let mut unmet = Vec::new();
        if self.partitions != stored.partitions {
            let difference = format!("{}, not {}", stored.partitions, self.partitions);
            unmet.push(("partitions", difference));
        }
        macro_rules! compare {
            ($($field:ident),*) => {$(
                if self.$field != stored.$field && self.$field != default.$field {
                    let difference = format!("{:?}, not {:?}", stored.$field, self.$field);
                    unmet.push((stringify!($field), difference));
                }
            )*};
        }
        compare!(cleanup, retention, retention_bytes, durability);
        unmet
    }

    /// `now` with what `wanted` changes of `self`: two callers that alter different settings at the
    /// same time both get what they want. The partition count is always `now`'s.
    #[expect(clippy::float_cmp, reason = "changed or not: the very value that was shown")]
    pub(crate) fn with_changes(&self, wanted: &Self, now: &Self) -> Self {
        macro_rules! pick {
            ($($field:ident),*) => {{
                // A setting that is missing here does not compile.
                let Self { partitions: _, $($field),* } = wanted;
                Self {
                    partitions: now.partitions,
                    $($field: if *$field == self.$field { now.$field } else { *$field }),*
                }
            }};
        }
        pick!(
            durability,
            retention,
            retention_bytes,
            segment_bytes,
            segment_age,
            cleanup,
            tombstone_retention,
            min_dirty_ratio,
            max_record_bytes,
            timestamps
        )
    }

    /// The record limit in force: the configured one, or the default as far as the segment
    /// holds it.
    pub(crate) fn record_limit(&self, held_by_segment: u64) -> u32 {
        let held = u32::try_from(held_by_segment).unwrap_or(u32::MAX);
        self.max_record_bytes.unwrap_or_else(|| RECORD_BYTES_DEFAULT.min(held))
    }

    /// # Errors
    ///
    /// [`Error::Config`] names the first setting that cannot work. `held_by_segment` is the
    /// largest record that a segment of this size holds.
    pub(crate) fn validate(&self, held_by_segment: u64) -> Result<()> {
        if !(1..=PARTITIONS_MAX).contains(&self.partitions) {
            let reason = format!("{} is outside 1..={PARTITIONS_MAX}", self.partitions);
            return Err(Error::config("partitions", reason));
        }
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes) {
            let bytes = self.segment_bytes;
            let reason = format!("{bytes} is outside {SEGMENT_BYTES_MIN}..={SEGMENT_BYTES_MAX}");
            return Err(Error::config("segment_bytes", reason));
        }
        if self.max_record_bytes.is_some_and(|limit| u64::from(limit) > held_by_segment) {
            let reason = format!("a segment of this size holds at most {held_by_segment} bytes");
            return Err(Error::config("max_record_bytes", reason));
        }
        if !(0.0..=1.0).contains(&self.min_dirty_ratio) {
            let reason = format!("{} is outside 0..=1", self.min_dirty_ratio);
            return Err(Error::config("min_dirty_ratio", reason));
        }
        if self.segment_age.is_zero() {
            return Err(Error::config("segment_age", "must be more than zero"));
        }
        if let Some(durability) = self.durability {
            durability.validate()?;
        }
        Ok(())
    }
}

impl Durability {
    pub(crate) fn validate(self) -> Result<()> {
        match self {
            Self::Interval { bytes: 0, .. } => {
                Err(Error::config("durability", "an interval of 0 bytes; use `Sync` instead"))
            }
            Self::Interval { every, .. } if every.is_zero() => {
                Err(Error::config("durability", "an interval of zero time; use `Sync` instead"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(config: &TopicConfig) -> &'static str {
        match config.validate(10_000) {
            Err(Error::Config(error)) => error.setting,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_bad_setting_is_named() {
        assert_eq!(refused(&TopicConfig::new(0)), "partitions");
        assert_eq!(refused(&TopicConfig::new(PARTITIONS_MAX + 1)), "partitions");
        assert_eq!(refused(&TopicConfig::new(1).segment_bytes(1)), "segment_bytes");
        assert_eq!(refused(&TopicConfig::new(1).segment_bytes(u64::MAX)), "segment_bytes");
        assert_eq!(refused(&TopicConfig::new(1).max_record_bytes(10_001)), "max_record_bytes");
        assert_eq!(refused(&TopicConfig::new(1).min_dirty_ratio(f64::NAN)), "min_dirty_ratio");
        assert_eq!(refused(&TopicConfig::new(1).segment_age(Duration::ZERO)), "segment_age");
        let never = Durability::Interval { every: Duration::ZERO, bytes: 1 };
        assert_eq!(refused(&TopicConfig::new(1).durability(never)), "durability");
        TopicConfig::new(1).validate(10_000).unwrap();
    }

    #[test]
    fn the_default_record_limit_shrinks_with_the_segment() {
        assert_eq!(TopicConfig::new(1).record_limit(5_000), 5_000);
        assert_eq!(TopicConfig::new(1).record_limit(64 << 20), RECORD_BYTES_DEFAULT);
        assert_eq!(TopicConfig::new(1).max_record_bytes(7).record_limit(5_000), 7);
    }
}

//! The errors of this crate, as data.
//!
//! A text says what happened, with its values, and what to do where that is not plain. It is in
//! lower case, has no full stop, and does not repeat its source.
//!
//! Callers branch on few questions and log all the rest: [`Error::is_definite`] (was it surely not
//! appended?), [`Error::is_retriable`] (may the same call succeed later?) and
//! [`Error::is_fatal`] (does this handle need to be reopened?).

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use crate::record::{NodeId, RecordMetadata, TopicPartition};

/// The result of almost every call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong. Match on variants, or ask [`is_definite`](Self::is_definite),
/// [`is_retriable`](Self::is_retriable) and [`is_fatal`](Self::is_fatal). It is `Clone`, because
/// one failed sync answers every caller that waited for it.
///
/// ```
/// # use logpond::{Broker, Error, Record, TopicConfig};
/// # let broker = Broker::in_memory()?;
/// # broker.ensure_topic("orders", TopicConfig::new(1))?;
/// match broker.producer().send(Record::to("orders").value("2 apples")) {
///     Ok(sent) => println!("stored at offset {}", sent.offset),
///     Err(error) if error.is_definite() => eprintln!("not stored: {error}"),
///     // A retry may store it twice, unless it is sent by `send_sequenced`.
///     Err(error) => eprintln!("may be stored: {error}"),
/// }
/// # Ok::<(), Error>(())
/// ```
///
/// What a loop does with an error that it does not know:
///
/// | | in a loop that sends | in a loop that polls or commits |
/// |---|---|---|
/// | `is_fatal()` | ends: open the handle again | ends |
/// | `is_retriable()` | may send again; if not `is_definite()`, with `send_sequenced`, or the record may be stored twice | polls again |
/// | neither, but not `is_definite()`, as [`Io`](Self::Io) | does not know whether the record is stored; `send_sequenced` can be repeated | repeats it a few times |
/// | none of these | does not send this record again: it is refused | the caller has to act, for example by `seek`; a poll without that returns the error again, and messages of other partitions in between |
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file operation failed for a reason that has no variant of its own.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was being done, as a verb.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's answer.
        source: Arc<io::Error>,
    },
    /// Another broker, in this process or another, has the directory. Close it, or raise
    /// [`lock_wait`](crate::BrokerBuilder::lock_wait).
    #[error("{} is in use by {holder}", path.display())]
    Locked {
        /// The data directory.
        path: PathBuf,
        /// Who has it, and what keeps it open.
        holder: LockHolder,
    },
    /// Stored bytes are not what was written, or a file is missing. [`Corruption::offsets`] says
    /// what cannot be read; a consumer continues after it with [`seek`](crate::Consumer::seek).
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// A newer build of this crate wrote the file. Open the directory with that build or a later
    /// one.
    #[error("{} {}: open it with the build that wrote it, or a later one", path.display(), lacking(*found, *supported, *features))]
    UnsupportedVersion {
        /// The file.
        path: PathBuf,
        /// The file's format version.
        found: u32,
        /// The newest version that this build reads.
        supported: u32,
        /// The file's incompatible feature bits that this build does not know.
        features: u64,
    },
    /// No topic has this name.
    #[error("there is no topic {0:?}; create it, for example with `ensure_topic`")]
    UnknownTopic(String),
    /// The topic has no such partition.
    #[error("there is no partition {0}; `Topic::partitions` says how many the topic has")]
    UnknownPartition(TopicPartition),
    /// A topic of this name exists.
    #[error("topic {0:?} exists already; `Broker::topic` returns it")]
    TopicExists(String),
    /// A name that cannot be used.
    #[error("{name:?} cannot be used as a name: {reason}")]
    InvalidName {
        /// The name as given, at most its first 300 characters.
        name: String,
        /// Why not.
        reason: NameError,
    },
    /// A record, or a batch of records, is larger than the limit. Nothing was appended.
    #[doc(alias = "RecordTooLargeException")]
    #[error(
        "{size} bytes exceed the limit of {limit}; send less at once, or raise the topic's limit"
    )]
    RecordTooLarge {
        /// The record's or batch's size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The offset is outside of what the partition holds.
    #[doc(alias = "OffsetOutOfRangeException")]
    #[error("offset {requested} of {partition} is outside {start}..={end}; seek to one of these")]
    OffsetOutOfRange {
        /// The partition.
        partition: TopicPartition,
        /// The offset that was asked for.
        requested: u64,
        /// The log start offset.
        start: u64,
        /// The end of what may be read.
        end: u64,
    },
    /// [`append_if`](crate::Partition::append_if) found another log end than the caller expected.
    /// Nothing was appended.
    #[error("the next offset of {partition} is {actual}, not {expected}; nothing was appended")]
    WrongOffset {
        /// The partition.
        partition: TopicPartition,
        /// What the caller expected the next offset to be.
        expected: u64,
        /// What it is.
        actual: u64,
    },
    /// The group has no commit for this partition, and [`start`](crate::ConsumerBuilder::start) is
    /// [`StartAt::Error`](crate::StartAt::Error).
    #[doc(alias = "NoOffsetForPartitionException")]
    #[error("the group has no committed offset for {0}; commit one, or choose another `start`")]
    NoOffset(TopicPartition),
    /// An unclean recovery cut the log below this consumer's position. Reading continues at `end`,
    /// or at the log start if that is higher, with records that reuse the offsets.
    #[error(
        "a recovery cut {partition} to offset {end}, below the position {committed} of this consumer; \
         poll again to read what follows"
    )]
    Truncated {
        /// The partition.
        partition: TopicPartition,
        /// The position that the consumer had reached.
        committed: u64,
        /// Where the log was cut, and where reading continues.
        end: u64,
    },
    /// The member does not own the partition any more, or has lost it and got it back since it read
    /// the records. Nothing was committed. The new owner reads them again.
    #[doc(alias = "CommitFailedException")]
    #[doc(alias = "RebalanceInProgressException")]
    #[error(
        "this member no longer owns {partition}, or has lost it since it read the records; nothing \
         was committed"
    )]
    Rebalanced {
        /// The partition; of several, one of them.
        partition: TopicPartition,
    },
    /// No group has this name: no member, no subscription and no commit.
    #[error("there is no group {0:?}: it has no member, no subscription and no commit")]
    UnknownGroup(String),
    /// The operation is refused while the group has live members.
    #[doc(alias = "GroupNotEmptyException")]
    #[error("group {group:?} has {members} live members; close them first")]
    GroupNotEmpty {
        /// The group.
        group: String,
        /// How many consumers are members of it now.
        members: usize,
    },
    /// A newer producer with the same id, or a newer consumer with the same instance id, has taken
    /// over. Nothing was appended or committed. Drop this handle.
    ///
    /// With replication also: a member was called to lead an epoch that is not greater than the one that
    /// it has promised. Nothing has changed. Call it with a greater one.
    #[doc(alias = "ProducerFencedException")]
    #[doc(alias = "FencedInstanceIdException")]
    #[error("{}", fenced(id, *epoch, *current))]
    Fenced {
        /// The producer id, or the instance id of a static member. Empty for an epoch of a leader.
        id: String,
        /// This handle's epoch, or that of the call.
        epoch: u32,
        /// The epoch in force, or promised.
        current: u32,
    },
    /// Another member of the replicated group leads, or none does. Nothing was appended or changed.
    ///
    /// The name may be stale: members name the last leader that they have heard, also after it has
    /// resigned or died. If the call is refused there too, pause for a moment, and try the other members.
    #[doc(alias = "NotLeaderOrFollowerException")]
    #[error("this broker does not lead{}", leader.map_or_else(String::new, |it| format!("; member {it} does")))]
    NotLeader {
        /// Who leads, as far as this member knows. Never this member itself after its leadership.
        leader: Option<NodeId>,
    },
    /// Too few members of the replicated group are heard, or have what was appended before. Nothing
    /// was appended: the call can be repeated.
    #[doc(alias = "NotEnoughReplicasException")]
    #[error("{reachable} members of {required} that are needed can be reached")]
    NotEnoughReplicas {
        /// How many members are heard, this one among them.
        reachable: usize,
        /// How many are a majority.
        required: usize,
    },
    /// This broker has lost the leadership of its replicated group while the call waited for a
    /// majority of the members. What was appended or changed may be kept or not: the next leader keeps
    /// what a majority has, and may keep more.
    #[error("the leadership was lost before a majority had it; it may be kept or not")]
    LeadershipLost,
    /// The disk, or the budget of [`max_total_bytes`](crate::BrokerBuilder::max_total_bytes), is
    /// full. Nothing was appended. Reading, committing and deleting continue; appends work again
    /// once there is space.
    #[error("no space left for {}; free some, or delete records", path.display())]
    StorageFull {
        /// What could not grow.
        path: PathBuf,
        /// The operating system's answer.
        source: Arc<io::Error>,
    },
    /// The data cannot be changed: it was opened read-only, or the file system is read-only.
    #[error(
        "{} is read-only; to change it, open the broker without `read_only`, on a file system that can \
         be written", path.display()
    )]
    ReadOnly {
        /// The file or directory.
        path: PathBuf,
    },
    /// The partition has no offsets left. Nothing was appended.
    #[error("{partition} has no offsets left; use another partition or topic")]
    OffsetExhausted {
        /// The partition.
        partition: TopicPartition,
    },
    /// A sync failed, or a thread panicked in it: the records may or may not be on stable storage.
    /// The partition takes no more appends until the broker is opened again.
    #[error("could not sync {}; reopen the broker to learn what is stored", path.display())]
    SyncFailed {
        /// The file that could not be synced.
        path: PathBuf,
        /// The operating system's answer.
        source: Arc<io::Error>,
    },
    /// An earlier failure of a sync, or a panic, left the partition in an unknown state. It takes
    /// no appends until the broker is opened again. This call appended nothing.
    #[error("{partition} takes no appends after an earlier failure; reopen the broker")]
    Poisoned {
        /// The partition.
        partition: TopicPartition,
        /// The failure.
        source: Box<Error>,
    },
    /// Not all records of a [`send_batch`](crate::Producer::send_batch) were acknowledged.
    #[error(
        "{} of {} records were acknowledged; `done` says which", done.iter().flatten().count(), done.len()
    )]
    PartialBatch {
        /// In input order: partition and offset of each acknowledged record. `None` for a record
        /// that was not appended, and for one whose sync failed, which may be stored all the same.
        done: Vec<Option<RecordMetadata>>,
        /// Why the other records were not acknowledged.
        source: Box<Error>,
    },
    /// The callback of [`on_rebalance`](crate::ConsumerBuilder::on_rebalance), which ran in this
    /// call, returned an error. After an error of [`Assigned`](crate::Rebalance::Assigned) nothing
    /// was read, and the next poll calls it again.
    #[error("the rebalance callback failed")]
    Callback {
        /// What the callback returned; `downcast_ref` finds its type.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The call reached its timeout, or [`wake`](crate::ConsumerHandle::wake) ended it. An append
    /// may or may not be stored. With replication also: no majority of the members has confirmed an
    /// append or a change within the acknowledgement timeout; it may be kept or not.
    #[doc(alias = "TimeoutException")]
    #[doc(alias = "WakeupException")]
    #[error("timed out; if it was an append or a change, it may still be stored")]
    Timeout,
    /// A value could not be encoded or decoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A transport of replication failed, or handed over a frame that is none.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A setting or an argument that cannot work; the error names it and says why.
    #[doc(alias = "InvalidConfigurationException")]
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// This process is a forked child of the one that opened the broker. Nothing was appended or
    /// committed: locks and files belong to the parent.
    #[error("this process is a fork of the one that opened the broker; open a broker of its own")]
    Forked,
    /// The broker or the consumer was closed. A handle of a deleted topic returns
    /// [`UnknownTopic`](Self::UnknownTopic) instead.
    #[error("the broker or the consumer is closed; open it again")]
    Closed,
}

impl Error {
    /// Returns whether the same call may succeed later, without opening or configuring anything
    /// anew. True for example for [`StorageFull`](Self::StorageFull), [`Locked`](Self::Locked) and
    /// [`Rebalanced`](Self::Rebalanced).
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Locked { .. }
            | Self::Rebalanced { .. }
            | Self::GroupNotEmpty { .. }
            | Self::NotLeader { .. }
            | Self::NotEnoughReplicas { .. }
            | Self::LeadershipLost
            | Self::StorageFull { .. }
            | Self::Callback { .. }
            | Self::Truncated { .. }
            | Self::Timeout
            | Self::Transport(_) => true,
            // The log end only rises.
            Self::WrongOffset { expected, actual, .. } => actual < expected,
            Self::PartialBatch { source, .. } => source.is_retriable(),
            _ => false,
        }
    }

    /// Returns whether the handle that returned this cannot be used until it is opened again. True
    /// for example for [`Fenced`](Self::Fenced), [`Poisoned`](Self::Poisoned) and
    /// [`Closed`](Self::Closed).
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::SyncFailed { .. }
            | Self::Poisoned { .. }
            | Self::Fenced { .. }
            | Self::Forked
            | Self::Closed => true,
            Self::PartialBatch { source, .. } => source.is_fatal(),
            _ => false,
        }
    }

    /// Returns whether certainly nothing was appended or committed. After an error that is not
    /// definite, a record may or may not be stored, also after a restart. With an
    /// [`id`](crate::ProducerBuilder::id), [`send_sequenced`](crate::Producer::send_sequenced)
    /// makes the retry safe.
    #[must_use]
    pub fn is_definite(&self) -> bool {
        // Each variant is named: a new one has to choose.
        match self {
            Self::Io { .. }
            | Self::SyncFailed { .. }
            | Self::Timeout
            | Self::LeadershipLost
            | Self::PartialBatch { .. }
            | Self::Callback { .. }
            | Self::Transport(_)
            | Self::Closed => false,
            Self::Locked { .. }
            | Self::Corrupt(_)
            | Self::UnsupportedVersion { .. }
            | Self::UnknownTopic(_)
            | Self::UnknownPartition(_)
            | Self::TopicExists(_)
            | Self::InvalidName { .. }
            | Self::RecordTooLarge { .. }
            | Self::OffsetOutOfRange { .. }
            | Self::WrongOffset { .. }
            | Self::NoOffset(_)
            | Self::Truncated { .. }
            | Self::Rebalanced { .. }
            | Self::UnknownGroup(_)
            | Self::GroupNotEmpty { .. }
            | Self::Fenced { .. }
            | Self::NotLeader { .. }
            | Self::NotEnoughReplicas { .. }
            | Self::StorageFull { .. }
            | Self::ReadOnly { .. }
            | Self::OffsetExhausted { .. }
            | Self::Poisoned { .. }
            | Self::Codec(_)
            | Self::Config(_)
            | Self::Forked => true,
        }
    }

    /// An I/O failure, classified by what the caller can do about it.
    pub(crate) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Self::StorageFull { path, source: Arc::new(source) },
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { path },
            _ => Self::Io { operation, path, source: Arc::new(source) },
        }
    }

    /// An offset below `start` or above `end`.
    #[cold]
    pub(crate) fn out_of_range(
        partition: &TopicPartition,
        requested: u64,
        start: u64,
        end: u64,
    ) -> Self {
        Self::OffsetOutOfRange { partition: partition.clone(), requested, start, end }
    }

    /// A compare-and-append that found another end of the log.
    #[cold]
    pub(crate) fn wrong_offset(partition: &TopicPartition, expected: u64, actual: u64) -> Self {
        Self::WrongOffset { partition: partition.clone(), expected, actual }
    }

    /// A setting or argument that cannot work.
    pub(crate) fn config(setting: &'static str, reason: impl Into<String>) -> Self {
        Self::Config(ConfigError { setting, reason: reason.into() })
    }
}

/// No id is empty but that of leaders' epochs.
fn fenced(id: &str, epoch: u32, current: u32) -> String {
    if id.is_empty() {
        return format!(
            "this member has promised epoch {current}: the epoch of a leader must be greater than that, \
             and {epoch} is not"
        );
    }
    format!(
        "{id:?} was taken over by a newer handle: its epoch is {current}, this one has {epoch}; drop \
         this handle"
    )
}

/// Why this build cannot read a file.
fn lacking(found: u32, supported: u32, features: u64) -> String {
    if found == supported {
        format!("has the incompatible feature bits {features:#x}, which this build does not know")
    } else {
        format!("has format version {found}, and this build knows version {supported}")
    }
}

/// Who has the data directory that could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LockHolder {
    /// A broker of this process, or a [`salvage`](crate::salvage) of it.
    ThisProcess {
        /// How many handles keep that broker open: clones of the [`Broker`](crate::Broker), topics,
        /// partitions, producers and consumers. The clones of one producer count once. 0 while the
        /// broker is being opened, when its last handle was dropped, and for a salvage.
        handles: usize,
        /// Whether it is being closed: then another attempt succeeds soon.
        is_closing: bool,
    },
    /// A broker of another process, or a process that inherited the lock from one by `fork`.
    OtherProcess,
}

impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ThisProcess { is_closing: true, .. } => {
                f.write_str("another broker of this process, which is being closed; try again")
            }
            Self::ThisProcess { handles: 0, .. } => {
                f.write_str("this process, which is opening or salvaging it; try again")
            }
            Self::ThisProcess { handles, .. } => write!(
                f,
                "another broker of this process; use that one, or drop the handles that keep it open \
                 (brokers, topics, partitions, producers, consumers): {handles}"
            ),
            Self::OtherProcess => {
                f.write_str("another process; close its broker, or set `lock_wait`")
            }
        }
    }
}

/// Why a name was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The name is empty.
    #[error("it is empty")]
    Empty,
    /// The name is too long.
    #[error("it is longer than {limit} bytes")]
    TooLong {
        /// The longest allowed, in bytes.
        limit: usize,
    },
    /// A character outside `[A-Za-z0-9._-]`.
    #[error("it contains {0:?}; letters, digits, '.', '_' and '-' are allowed")]
    Character(char),
    /// `.` and `..`.
    #[error("it stands for a directory")]
    Directory,
    /// Names that begin with `__` are the engine's own.
    #[error("names that begin with \"__\" are reserved")]
    Reserved,
    /// It differs from an existing topic's name only in upper and lower case.
    #[error("it differs from an existing name only in case")]
    CaseCollision,
}

/// Stored bytes that differ from what was written, and their position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{} is damaged at byte {position}: {kind}{}", file.display(), self.advice())]
pub struct Corruption {
    /// The partition, where one is concerned.
    pub partition: Option<TopicPartition>,
    /// The damaged, missing or foreign file.
    pub file: PathBuf,
    /// The byte position in the file.
    pub position: u64,
    /// The offsets that cannot be read, if known. A consumer continues after them with `seek(..,
    /// StartAt::Offset(offsets.end))`.
    pub offsets: Option<Range<u64>>,
    /// What is wrong.
    pub kind: CorruptionKind,
}

impl Corruption {
    /// What to do about it, where the broker does not open.
    fn advice(&self) -> &'static str {
        match &self.partition {
            Some(partition) if partition.topic.starts_with("__") => {
                " (the broker needs all of its internal logs: put the file back from a backup, or \
                 copy what can be read of the topics with `salvage`)"
            }
            _ => "",
        }
    }
}

/// What is wrong with damaged bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[non_exhaustive]
pub enum CorruptionKind {
    /// A checksum does not match.
    #[error("checksum {computed:#010x}, stored {stored:#010x}")]
    Checksum {
        /// The checksum in the file.
        stored: u32,
        /// The checksum of the bytes found.
        computed: u32,
    },
    /// A length or count exceeds the bytes that are there.
    #[error("a length or count is out of bounds in {0}")]
    Length(&'static str),
    /// Bytes that should be a known structure are not.
    #[error("{0} is malformed")]
    Malformed(&'static str),
    /// The file is not a segment file of this crate.
    #[error("not a segment file")]
    Magic,
    /// The file belongs to another topic, partition or rank in the log.
    #[error("the file belongs elsewhere: wrong {0}")]
    Foreign(&'static str),
    /// Offsets do not follow one another.
    #[error("offset {found} follows where {expected} was expected")]
    OffsetOrder {
        /// The offset that should come next.
        expected: u64,
        /// The offset found.
        found: u64,
    },
    /// A file that must be there is not.
    #[error("a file is missing")]
    Missing,
    /// A file or directory exists and cannot be read, and the operating system's answer.
    #[error("it cannot be read: {0}")]
    Unreadable(Arc<str>),
    /// The log ends before an offset that was on stable storage.
    #[error("the log ends at offset {found}, although it was durable to {durable}")]
    ShortOfDurable {
        /// Where the readable log ends.
        found: u64,
        /// Where it was known to be durable.
        durable: u64,
    },
}

/// A setting or an argument that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {reason}")]
#[non_exhaustive]
pub struct ConfigError {
    /// Which setting or argument.
    pub setting: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

/// A value that could not be encoded or decoded.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{codec}: {reason}")]
pub struct CodecError {
    codec: &'static str,
    reason: Arc<str>,
}

impl CodecError {
    /// An error of the named codec. The reason is shown wherever the error is logged: it must hold
    /// no part of the value.
    #[must_use]
    pub fn new(codec: &'static str, reason: impl fmt::Display) -> Self {
        Self { codec, reason: reason.to_string().into() }
    }

    /// The codec's name.
    #[must_use]
    pub fn codec(&self) -> &'static str {
        self.codec
    }
}

/// A failure of an application's replication transport, or a frame that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The member cannot be reached at the moment.
    #[error("the member cannot be reached")]
    Unreachable,
    /// The frame could not be sent, for a reason that may pass.
    #[error("the frame could not be sent")]
    Failed,
    /// In the transport's own words.
    #[error("transport: {0}")]
    Other(Arc<str>),
}

impl TransportError {
    /// An error with the transport's own words.
    #[must_use]
    pub fn new(reason: impl fmt::Display) -> Self {
        Self::Other(reason.to_string().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_definite_and_retriable() {
        let error = Error::io("grow", Path::new("x"), io::ErrorKind::StorageFull.into());
        assert!(matches!(error, Error::StorageFull { .. }), "{error:?}");
        assert!(error.is_definite() && error.is_retriable() && !error.is_fatal());
    }

    #[test]
    fn a_failed_sync_is_neither_definite_nor_retriable() {
        let source = Arc::new(io::ErrorKind::Other.into());
        let error = Error::SyncFailed { path: "x".into(), source };
        assert!(!error.is_definite() && !error.is_retriable() && error.is_fatal());
    }

    #[test]
    fn a_compare_and_append_can_be_repeated_only_until_its_offset_is_taken() {
        let partition = TopicPartition::from(("t", 0));
        assert!(Error::wrong_offset(&partition, 7, 5).is_retriable());
        assert!(!Error::wrong_offset(&partition, 5, 7).is_retriable());
    }

    #[test]
    fn errors_display_without_repeating_their_source() {
        let error = Error::io("open", Path::new("/a/b"), io::ErrorKind::PermissionDenied.into());
        assert_eq!(error.to_string(), "cannot open /a/b");
        assert!(std::error::Error::source(&error).is_some());
    }
}

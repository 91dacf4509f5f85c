//! A fault as a test describes it: which calls it concerns, when, and what it does to them.
//!
//! Pure: values in, values out. Must not know: which faults are set, and how often they were met.

use std::fmt;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;
use crate::record::TopicPartition;

/// The kinds of calls that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seam {
    Append,
    Sync,
    Poll,
    Commit,
    Open,
}

/// One call, as faults see it.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    pub(crate) seam: Seam,
    /// The partitions that it concerns: of a poll, those that the consumer has.
    pub(crate) partitions: Vec<TopicPartition>,
    pub(crate) group: Option<Arc<str>>,
    pub(crate) producer: Option<Arc<str>>,
}

impl Site {
    pub(crate) fn of(seam: Seam) -> Self {
        Self { seam, partitions: Vec::new(), group: None, producer: None }
    }

    pub(crate) fn partition(mut self, partition: &TopicPartition) -> Self {
        self.partitions.push(partition.clone());
        self
    }

    pub(crate) fn partitions(self, partitions: Vec<TopicPartition>) -> Self {
        Self { partitions, ..self }
    }

    pub(crate) fn group(self, group: Option<&Arc<str>>) -> Self {
        Self { group: group.cloned(), ..self }
    }

    pub(crate) fn producer(self, producer: Option<&str>) -> Self {
        Self { producer: producer.map(Arc::from), ..self }
    }
}

/// What a call returns in place of its result.
#[derive(Debug, Clone)]
pub(super) enum Cause {
    Kind(ErrorKind),
    Error(Box<Error>),
}

#[derive(Debug, Clone)]
pub(super) enum Effect {
    /// Nothing is done.
    Fails(Cause),
    /// Everything is done, and the caller does not learn it.
    SucceedsUnknown,
    /// Nothing is done, and the caller does not learn it.
    FailsUnknown,
    /// On the broker's clock.
    TakesTime(Duration),
    /// In real time.
    TakesRealTime(Duration),
}

/// A fault of a test broker: the next call of a kind fails, is late, or has an unknown outcome. Set
/// by [`Faults::set`](crate::testing::Faults::set).
///
/// It concerns all calls of its kind, unless [`on`](Self::on), [`of_group`](Self::of_group) or
/// [`of_producer`](Self::of_producer) say which; it is met once, unless [`times`](Self::times) or
/// [`until_lifted`](Self::until_lifted) say otherwise; and the call fails with
/// [`ErrorKind::Other`], unless another effect is chosen.
///
/// ```
/// use logpond::testing::{ErrorKind, Fault, TestBroker};
/// use logpond::{Error, Record, TopicConfig};
///
/// let broker = TestBroker::new();
/// broker.ensure_topic("orders", TopicConfig::new(2))?;
/// let full = Fault::append().on(("orders", 1)).error(ErrorKind::StorageFull).times(2);
/// broker.faults().set(full);
///
/// let send = |partition| broker.producer().send(Record::to("orders").partition(partition));
/// send(0)?;
/// assert!(matches!(send(1), Err(Error::StorageFull { .. })));
/// assert!(matches!(send(1), Err(Error::StorageFull { .. })));
/// send(1)?;
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "give it to `Faults::set`"]
pub struct Fault {
    pub(super) seam: Seam,
    pub(super) effect: Effect,
    partition: Option<TopicPartition>,
    group: Option<Arc<str>>,
    producer: Option<Arc<str>>,
    /// How many calls that it concerns pass first.
    pub(super) after: usize,
    /// How many calls meet it; `None` is all of them.
    pub(super) times: Option<usize>,
}

impl Fault {
    fn at(seam: Seam) -> Self {
        Self {
            seam,
            effect: Effect::Fails(Cause::Kind(ErrorKind::Other)),
            partition: None,
            group: None,
            producer: None,
            after: 0,
            times: Some(1),
        }
    }

    /// A send, an enqueue or an append of a batch to one partition: nothing is appended.
    pub fn append() -> Self {
        Self::at(Seam::Append)
    }

    /// A sync of a partition of a topic. As after every failed sync, the call returns
    /// [`Error::SyncFailed`], whatever the kind, and the partition takes no more appends until the
    /// broker is opened again.
    pub fn sync() -> Self {
        Self::at(Seam::Sync)
    }

    /// A poll, or a receive of one message: nothing is returned, and no position changes.
    pub fn poll() -> Self {
        Self::at(Seam::Poll)
    }

    /// A commit, by hand or of auto mode: nothing is committed.
    pub fn commit() -> Self {
        Self::at(Seam::Commit)
    }

    /// An opening of the broker after a [`crash`](crate::testing::TestBroker::crash).
    pub fn open() -> Self {
        Self::at(Seam::Open)
    }

    /// Only calls that concern this partition: appends and syncs of it, commits with an offset of
    /// it, and polls of a consumer that reads it.
    pub fn on(self, partition: impl Into<TopicPartition>) -> Self {
        Self { partition: Some(partition.into()), ..self }
    }

    /// Only polls and commits of this group.
    pub fn of_group(self, group: &str) -> Self {
        Self { group: Some(group.into()), ..self }
    }

    /// Only appends of the producer with this [id](crate::ProducerBuilder::id).
    pub fn of_producer(self, id: &str) -> Self {
        Self { producer: Some(id.into()), ..self }
    }

    /// Lets this many calls pass first.
    pub fn after(self, calls: usize) -> Self {
        Self { after: calls, ..self }
    }

    /// Sets how many calls meet the fault.
    pub fn times(self, calls: usize) -> Self {
        Self { times: Some(calls), ..self }
    }

    /// All calls meet the fault, until [`Faults::lift`](crate::testing::Faults::lift).
    pub fn until_lifted(self) -> Self {
        Self { times: None, ..self }
    }

    /// The call fails with this kind of error, as if the operating system had returned it:
    /// [`ErrorKind::StorageFull`] is [`Error::StorageFull`], [`ErrorKind::ReadOnlyFilesystem`] is
    /// [`Error::ReadOnly`], and others are [`Error::Io`].
    pub fn error(self, kind: ErrorKind) -> Self {
        Self { effect: Effect::Fails(Cause::Kind(kind)), ..self }
    }

    /// The call fails with this error, for example [`Error::Poisoned`] or [`Error::Corrupt`].
    pub fn with(self, error: Error) -> Self {
        Self { effect: Effect::Fails(Cause::Error(Box::new(error))), ..self }
    }

    /// The append or commit is done, and returns an error that leaves its outcome open
    /// ([`Error::is_definite`] is false): as if the answer was lost.
    pub fn stored_but_unknown(self) -> Self {
        Self { effect: Effect::SucceedsUnknown, ..self }
    }

    /// The append or commit is not done, and returns the same error as with
    /// [`stored_but_unknown`](Self::stored_but_unknown): the caller cannot tell which it was.
    pub fn not_stored_and_unknown(self) -> Self {
        Self { effect: Effect::FailsUnknown, ..self }
    }

    /// The call succeeds and takes this long on the clock of the broker, which moves by as much. The
    /// thread does not wait.
    pub fn takes(self, time: Duration) -> Self {
        Self { effect: Effect::TakesTime(time), ..self }
    }

    /// The call succeeds and takes this long in real time: its thread waits.
    pub fn takes_real_time(self, time: Duration) -> Self {
        Self { effect: Effect::TakesRealTime(time), ..self }
    }

    /// Whether it concerns a call.
    pub(super) fn concerns(&self, site: &Site) -> bool {
        let is = |wanted: &Option<Arc<str>>, found: &Option<Arc<str>>| {
            wanted.is_none() || wanted == found
        };
        let is_of_partition = match &self.partition {
            Some(partition) => site.partitions.contains(partition),
            // The internal logs are the engine's own.
            None => !site.partitions.iter().any(|it| it.topic.starts_with("__")),
        };
        self.seam == site.seam
            && is_of_partition
            && is(&self.group, &site.group)
            && is(&self.producer, &site.producer)
    }
}

/// As the message about a fault that was never met shows it.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seam = match self.seam {
            Seam::Append => "append",
            Seam::Sync => "sync",
            Seam::Poll => "poll",
            Seam::Commit => "commit",
            Seam::Open => "open",
        };
        f.write_str(seam)?;
        if let Some(partition) = &self.partition {
            write!(f, " on {partition}")?;
        }
        if let Some(group) = &self.group {
            write!(f, " of group {group:?}")?;
        }
        if let Some(producer) = &self.producer {
            write!(f, " of producer {producer:?}")?;
        }
        match &self.effect {
            Effect::Fails(Cause::Kind(kind)) => write!(f, " fails with {kind:?}")?,
            Effect::Fails(Cause::Error(error)) => write!(f, " fails with \"{error}\"")?,
            Effect::SucceedsUnknown => f.write_str(" is stored, outcome unknown")?,
            Effect::FailsUnknown => f.write_str(" is not stored, outcome unknown")?,
            Effect::TakesTime(time) => write!(f, " takes {time:?}")?,
            Effect::TakesRealTime(time) => write!(f, " takes {time:?} of real time")?,
        }
        match (self.after, self.times) {
            (0, Some(1)) => f.write_str(", once"),
            (0, Some(times)) => write!(f, ", {times} times"),
            (0, None) => f.write_str(", until lifted"),
            (after, Some(times)) => write!(f, ", {times} times after {after} calls"),
            (after, None) => write!(f, ", after {after} calls until lifted"),
        }
    }
}

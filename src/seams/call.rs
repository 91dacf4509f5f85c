//! The calls that the code under test has made, as a test looks at them.
//!
//! Plain data. Must not know: who records it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::record::{Offsets, TopicPartition};

/// A call that the code under test has made, with its answer; listed by
/// [`TestBroker::calls`](crate::testing::TestBroker::calls).
///
/// Its text is one line, for messages of assertions: `send to orders-0: offset 3`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Call {
    /// A batch that was sent or appended to one partition. A call of
    /// [`send_batch`](crate::Producer::send_batch) makes one for each partition.
    Send {
        /// The partition.
        partition: TopicPartition,
        /// The id of the producer, if it has one.
        producer: Option<Arc<str>>,
        /// The offsets of the records once they were acknowledged, or the error that the caller got.
        result: Result<Range<u64>>,
    },
    /// A record of [`enqueue`](crate::Producer::enqueue) or of an async `send`: it is in the
    /// partition, and not acknowledged yet.
    Enqueue {
        /// The partition.
        partition: TopicPartition,
        /// The offset of the record.
        offset: u64,
    },
    /// A poll, also an empty one, or a receive that returned a message or an error.
    Poll {
        /// The group; `None` for a reader.
        group: Option<Arc<str>>,
        /// How many messages were returned from each partition, or the error that the caller got.
        result: Result<Vec<(TopicPartition, Range<u64>)>>,
    },
    /// A commit, by hand or of auto mode.
    Commit {
        /// The group.
        group: Option<Arc<str>>,
        /// What was to be committed: the next offset to read of each partition.
        offsets: Offsets,
        /// The answer.
        result: Result<()>,
    },
    /// A member has gained or lost partitions.
    Rebalance {
        /// The group.
        group: Option<Arc<str>>,
        /// Whether it has gained or lost them.
        kind: RebalanceKind,
        /// The partitions, in order.
        partitions: Vec<TopicPartition>,
    },
}

/// What a rebalance did with partitions of a member; see [`Rebalance`](crate::Rebalance).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RebalanceKind {
    /// The member owns them from now on.
    Assigned,
    /// The member has given them up, and could commit before.
    Revoked,
    /// The member has lost them: it was evicted or fenced, or the topic was deleted.
    Lost,
}

impl Call {
    /// Returns whether the code under test got an error.
    #[must_use]
    pub fn is_err(&self) -> bool {
        self.error().is_some()
    }

    /// Returns the error that the code under test got.
    #[must_use]
    pub fn error(&self) -> Option<&Error> {
        match self {
            Self::Send { result, .. } => result.as_ref().err(),
            Self::Poll { result, .. } => result.as_ref().err(),
            Self::Commit { result, .. } => result.as_ref().err(),
            Self::Enqueue { .. } | Self::Rebalance { .. } => None,
        }
    }

    /// Returns whether it is a send, an enqueue or an append.
    #[must_use]
    pub fn is_send(&self) -> bool {
        matches!(self, Self::Send { .. } | Self::Enqueue { .. })
    }

    /// Returns whether it is a poll or a receive.
    #[must_use]
    pub fn is_poll(&self) -> bool {
        matches!(self, Self::Poll { .. })
    }

    /// Returns whether it is a commit.
    #[must_use]
    pub fn is_commit(&self) -> bool {
        matches!(self, Self::Commit { .. })
    }

    /// Returns whether a member has gained or lost partitions.
    #[must_use]
    pub fn is_rebalance(&self) -> bool {
        matches!(self, Self::Rebalance { .. })
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send { partition, producer, result } => {
                write!(f, "send to {partition}")?;
                if let Some(producer) = producer {
                    write!(f, " by {producer}")?;
                }
                f.write_str(": ")?;
                match result {
                    Ok(offsets) => show_offsets(f, offsets),
                    Err(error) => write!(f, "{error}"),
                }
            }
            Self::Enqueue { partition, offset } => {
                write!(f, "enqueue to {partition}: offset {offset}")
            }
            Self::Poll { group, result } => {
                write!(f, "poll{}: ", Of(group.as_deref()))?;
                match result {
                    Ok(returned) if returned.is_empty() => f.write_str("nothing"),
                    Ok(returned) => show_list(f, returned, |f, (partition, offsets)| {
                        write!(f, "{partition} ")?;
                        show_offsets(f, offsets)
                    }),
                    Err(error) => write!(f, "{error}"),
                }
            }
            Self::Commit { group, offsets, result } => {
                write!(f, "commit{}: ", Of(group.as_deref()))?;
                show_list(f, offsets, |f, (partition, next)| write!(f, "{partition} next {next}"))?;
                match result {
                    Ok(()) => Ok(()),
                    Err(error) => write!(f, ": {error}"),
                }
            }
            Self::Rebalance { group, kind, partitions } => {
                write!(f, "rebalance{}: {kind:?} ", Of(group.as_deref()))?;
                show_list(f, partitions, |f, partition| write!(f, "{partition}"))
            }
        }
    }
}

/// Whose call it was.
struct Of<'a>(Option<&'a str>);

impl fmt::Display for Of<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |group| write!(f, " of {group}"))
    }
}

fn show_offsets(f: &mut fmt::Formatter<'_>, offsets: &Range<u64>) -> fmt::Result {
    match offsets.end.checked_sub(offsets.start) {
        Some(1) => write!(f, "offset {}", offsets.start),
        _ => write!(f, "offsets {} to {}", offsets.start, offsets.end.saturating_sub(1)),
    }
}

fn show_list<T>(
    f: &mut fmt::Formatter<'_>,
    items: impl IntoIterator<Item = T>,
    show: impl Fn(&mut fmt::Formatter<'_>, T) -> fmt::Result,
) -> fmt::Result {
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            f.write_str(", ")?;
        }
        show(f, item)?;
    }
    Ok(())
}

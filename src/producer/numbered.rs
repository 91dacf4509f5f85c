//! Records with numbers of their source: the acknowledgement of one, and the result of a batch.
//!
//! Owns: which records of a batch are duplicates. Must not know: how records are appended.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::SendOutcome;
use super::answer::Answer;
use super::delivery::Delivery;
use crate::error::Result;
use crate::log::producers::Sequence;

/// The acknowledgement of a record with a number that
/// [`Producer::enqueue_sequenced`](crate::Producer::enqueue_sequenced) has appended. It resolves
/// when the record is durable; of a duplicate, when the record that was stored before is.
///
/// [`wait`](Self::wait) blocks; `.await` works with any executor, without any feature.
///
/// ```
/// # use logpond::{Broker, Record, SendOutcome, TopicConfig};
/// # let broker = Broker::in_memory()?;
/// # broker.ensure_topic("lines", TopicConfig::new(1))?;
/// let importer = broker.producer_builder().id("importer").build()?;
/// let send = |seq| importer.enqueue_sequenced(seq, Record::to("lines").partition(0).value("a"));
/// let deliveries = [send(1)?, send(2)?, send(2)?]; // one sync serves all of them
/// assert_eq!(deliveries[2].outcome(), SendOutcome::Duplicate { last: 2 });
/// assert_eq!(deliveries[2].offset(), 1); // that of number 2
/// for delivery in deliveries {
///     delivery.wait()?;
/// }
/// # Ok::<(), logpond::Error>(())
/// ```
#[must_use = "dropping a delivery is fire and forget; say so with drop()"]
pub struct SequencedDelivery {
    delivery: Delivery,
    outcome: SendOutcome,
}

impl SequencedDelivery {
    pub(super) fn new(delivery: Delivery, outcome: SendOutcome) -> Self {
        Self { delivery, outcome }
    }

    /// Waits until the record is acknowledged, or the one that was stored before.
    ///
    /// # Errors
    ///
    /// [`Error::SyncFailed`](crate::Error::SyncFailed), [`Error::Poisoned`](crate::Error::Poisoned)
    /// and [`Error::Closed`](crate::Error::Closed): the record may or may not be stored; it can be
    /// sent again safely. [`Error::UnknownTopic`](crate::Error::UnknownTopic): the topic was deleted,
    /// and the record with it.
    ///
    /// # Blocking
    ///
    /// At [`Durability::Sync`](crate::Durability::Sync), for a sync of the disk, which all waiting
    /// callers share.
    pub fn wait(self) -> Result<SendOutcome> {
        self.delivery.wait().map(|_| self.outcome)
    }

    /// Waits as [`wait`](Self::wait) does, at most `timeout`. Returns `None` if the time is over
    /// first.
    ///
    /// # Errors
    ///
    /// Those of [`wait`](Self::wait).
    ///
    /// # Blocking
    ///
    /// At most `timeout` of real time.
    #[must_use = "the answer may be an error"]
    pub fn wait_timeout(&self, timeout: Duration) -> Option<Result<SendOutcome>> {
        self.delivery.wait_timeout(timeout).map(|waited| waited.map(|_| self.outcome))
    }

    /// Returns whether the record is new, without waiting: it may not be durable yet.
    #[must_use]
    pub fn outcome(&self) -> SendOutcome {
        self.outcome
    }

    /// Returns the partition of the record.
    #[must_use]
    pub fn partition(&self) -> u32 {
        self.delivery.metadata().partition
    }

    /// Returns the offset of the record; of a duplicate, that of the record with the last number.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.delivery.metadata().offset
    }
}

impl Future for SequencedDelivery {
    type Output = Result<SendOutcome>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = self.outcome;
        Pin::new(&mut self.delivery).poll(context).map(|waited| waited.map(|_| outcome))
    }
}

impl fmt::Debug for SequencedDelivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SequencedDelivery").field("outcome", &self.outcome).finish_non_exhaustive()
    }
}

/// The last sequence number of a producer id in a partition, and where its record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LastSequenced {
    /// The number.
    pub sequence: u64,
    /// The offset of the record that has it.
    pub offset: u64,
}

/// The result of a batch of records with numbers, by their index in the input.
pub(super) struct NumberedAnswer {
    numbers: Vec<u64>,
    /// Of each duplicate, the last number of its partition.
    duplicates: Vec<Option<u64>>,
    pub(super) answer: Answer,
}

impl NumberedAnswer {
    /// To a call with these numbers.
    pub(super) fn to(numbers: Vec<u64>) -> Self {
        let (duplicates, answer) = (vec![None; numbers.len()], Answer::to(numbers.len()));
        Self { numbers, duplicates, answer }
    }

    /// Those of the records whose numbers rise. The others are duplicates of records in the same
    /// call.
    pub(super) fn rising(&mut self, members: &[usize]) -> Vec<usize> {
        let (mut last, mut rising) = (None, Vec::with_capacity(members.len()));
        for &index in members {
            let number = self.numbers.get(index).copied();
            if last.is_some() && number <= last {
                self.note_duplicate(index, last);
            } else {
                last = number;
                rising.push(index);
            }
        }
        rising
    }

    /// What a batch of these records asks of the log; `None` for none.
    pub(super) fn sequence_of(&self, rising: &[usize]) -> Option<Sequence> {
        let number = |index: Option<&usize>| self.numbers.get(*index?).copied();
        Some(Sequence::Rising { first: number(rising.first())?, last: number(rising.last())? })
    }

    /// Those up to `last` are stored already, and removed from the list.
    pub(super) fn note_duplicates(&mut self, rising: &mut Vec<usize>, last: u64) {
        let is_new = |index: &usize| self.numbers.get(*index).is_some_and(|number| *number > last);
        let new = rising.iter().position(is_new).unwrap_or(rising.len());
        for index in rising.drain(..new) {
            if let Some(slot) = self.duplicates.get_mut(index) {
                *slot = Some(last);
            }
        }
    }

    fn note_duplicate(&mut self, index: usize, last: Option<u64>) {
        if let Some(slot) = self.duplicates.get_mut(index) {
            *slot = last;
        }
    }

    /// # Errors
    ///
    /// Those of [`Answer::finish`].
    pub(super) fn finish(self) -> Result<Vec<SendOutcome>> {
        let mut appended = self.answer.finish()?.into_iter();
        let outcome = |duplicate| match duplicate {
            Some(last) => Some(SendOutcome::Duplicate { last }),
            None => appended.next().map(SendOutcome::Appended),
        };
        Ok(self.duplicates.into_iter().filter_map(outcome).collect())
    }
}

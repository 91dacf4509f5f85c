//! What the application hears of a rebalance, and what it may do then.
//!
//! A callback runs in the member's own `poll` or `close`, under no lock: it may open consumers of
//! the same group, administer, produce. While it runs the consumer has no callback, and is kept
//! consistent whatever it does: a panic passes through once the hand-over is finished.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Consumer;
use crate::error::Result;
use crate::record::{Offsets, TopicPartition};

/// What a rebalance changes for one member. The partitions are never empty, and in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rebalance<'a> {
    /// They are this member's from now on; nothing of them was handed out yet. The positions are
    /// known already, but where [`StartAt::Error`](crate::StartAt::Error) finds none.
    Assigned(&'a [TopicPartition]),
    /// They are to be given up, and still this member's: nobody else is given them before the
    /// callback has returned. The moment to commit. In auto mode the positions are committed
    /// already.
    Revoked(&'a [TopicPartition]),
    /// They were taken away: the member had not polled for `max_poll_interval`, its instance id
    /// was taken by a newer consumer, or the topic was deleted. Too late to commit: somebody else
    /// may have them by now.
    Lost(&'a [TopicPartition]),
}

/// The consumer, as far as a rebalance callback may use it.
pub struct Commits<'a> {
    consumer: &'a mut Consumer,
}

impl Commits<'_> {
    /// As [`Consumer::commit_offsets`].
    ///
    /// # Errors
    ///
    /// As [`Consumer::commit_offsets`]; [`Error::Rebalanced`](crate::Error::Rebalanced) for a
    /// partition that is [`Lost`](Rebalance::Lost).
    ///
    /// # Durability
    ///
    /// As [`Consumer::commit`].
    ///
    /// # Blocking
    ///
    /// As [`Consumer::commit`].
    pub fn commit(&mut self, offsets: &Offsets) -> Result<()> {
        self.consumer.commit_offsets(offsets)
    }

    /// The offset that is handed out next; what was handed out lies before it.
    #[must_use]
    pub fn position(&self, partition: impl Into<TopicPartition>) -> Option<u64> {
        self.consumer.position(partition)
    }
}

impl fmt::Debug for Commits<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commits").field("consumer", &self.consumer).finish()
    }
}

pub(super) type Callback = Box<dyn FnMut(Rebalance<'_>, &mut Commits<'_>) + Send>;

/// A panic of the application's callback, to be resumed once the consumer is consistent.
pub(super) type Panic = Box<dyn Any + Send>;

impl Consumer {
    /// Runs the callback, if there is one and something to tell.
    pub(super) fn tell<'p>(
        &mut self,
        event: impl FnOnce(&'p [TopicPartition]) -> Rebalance<'p>,
        partitions: &'p [TopicPartition],
    ) -> Result<(), Panic> {
        if partitions.is_empty() {
            return Ok(());
        }
        let Some(mut callback) = self.callback.take() else { return Ok(()) };
        let event = event(partitions);
        let run = || callback(event, &mut Commits { consumer: self });
        let told = catch_unwind(AssertUnwindSafe(run));
        self.callback = Some(callback);
        told
    }
}

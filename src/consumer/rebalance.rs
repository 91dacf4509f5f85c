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

/// What a rebalance changes for one member; the argument of a callback of
/// [`on_rebalance`](crate::ConsumerBuilder::on_rebalance). The partitions are never empty, and in
/// order.
#[doc(alias = "ConsumerRebalanceListener")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rebalance<'a> {
    /// The partitions are this member's from now on, and nothing of them was handed out yet. Their
    /// positions are known, unless [`StartAt::Error`](crate::StartAt::Error) finds none.
    #[doc(alias = "onPartitionsAssigned")]
    Assigned(&'a [TopicPartition]),
    /// The partitions are about to be given up. They are still this member's: no other member gets
    /// them before the callback has returned. Commit here. In auto mode the positions are committed
    /// already.
    #[doc(alias = "onPartitionsRevoked")]
    Revoked(&'a [TopicPartition]),
    /// The partitions were taken away: the member was evicted, a newer consumer took its instance
    /// id, or the topic was deleted. It is too late to commit; another member may have them
    /// already.
    #[doc(alias = "onPartitionsLost")]
    Lost(&'a [TopicPartition]),
}

/// What a rebalance callback may do with its consumer: commit, and ask for positions.
pub struct Commits<'a> {
    consumer: &'a mut Consumer,
}

impl Commits<'_> {
    /// Commits these offsets, each the next one to read, for the group of the consumer.
    ///
    /// # Errors
    ///
    /// [`Error::Rebalanced`](crate::Error::Rebalanced) for a partition that is not this member's
    /// any more, in particular for one that is [`Lost`](Rebalance::Lost). Otherwise those of
    /// [`Consumer::commit_offsets`].
    ///
    /// # Durability
    ///
    /// At broker level [`Durability::Sync`](crate::Durability::Sync): on return first the records
    /// and then the commit are on stable storage. At the other levels the commit survives the death
    /// of the process.
    ///
    /// # Blocking
    ///
    /// At broker level `Sync`, for syncs of the disk.
    pub fn commit(&mut self, offsets: &Offsets) -> Result<()> {
        self.consumer.commit_offsets(offsets)
    }

    /// Returns the offset of the next record to be handed out. Everything handed out lies before
    /// it.
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

//! Chooses the partition of a record that names none.
//!
//! Owns: the call of the partitioner, and the use of its result. Must not know: how a record is
//! appended.

use std::sync::Arc;

use crate::partitioner::{DefaultPartitioner, Partitioner};
use crate::topic::TopicShared;

/// The partitioner of a producer.
#[derive(Clone)]
pub(super) struct Choice {
    partitioner: Arc<dyn Partitioner>,
    /// Whether records without a key may go to another partition than it chooses. Not if the
    /// application chose the partitioner.
    is_default: bool,
}

impl Choice {
    pub(super) fn by_default() -> Self {
        Self { partitioner: Arc::new(DefaultPartitioner::new()), is_default: true }
    }

    pub(super) fn by(partitioner: impl Partitioner) -> Self {
        Self { partitioner: Arc::new(partitioner), is_default: false }
    }

    /// The partition of a record with this key, or without one.
    #[inline]
    pub(super) fn partition(&self, key: Option<&[u8]>, topic: &TopicShared) -> u32 {
        let chosen = self.partitioner.partition(key, topic.config.partitions);
        // A key always goes to its partition, even one that takes no appends: order depends on it.
        if !self.is_default || key.is_some() || takes_appends(topic, chosen) {
            return chosen;
        }
        self.next_that_takes_appends(topic, chosen)
    }

    /// Another turn, so that all that are left get the same share. Where other senders take just
    /// the turns that would help, the first that is left.
    #[cold]
    fn next_that_takes_appends(&self, topic: &TopicShared, chosen: u32) -> u32 {
        let count = topic.config.partitions;
        let turns = (1..count).map(|_| self.partitioner.partition(None, count));
        let takes_appends = |number: &u32| takes_appends(topic, *number);
        turns.chain(0..count).find(takes_appends).unwrap_or(chosen)
    }
}

#[inline]
fn takes_appends(topic: &TopicShared, number: u32) -> bool {
    topic.partitions.get(number as usize).is_some_and(|core| core.takes_appends())
}

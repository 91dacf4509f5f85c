//! The topics that a reader without a group follows: which partitions it has to add, and to drop.
//!
//! Owns: the reader's subscription, and which state of the table of topics it has seen. Must not
//! know: positions. A group does the same for its members by plans.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::slot::Slot;
use super::slots::Slots;
use crate::broker::Run;
use crate::group::interest::Interest;
use crate::record::TopicPartition;

pub(super) struct Followed {
    interest: Interest,
    /// See [`LiveTopics::changes`](crate::broker::live_topics::LiveTopics::changes).
    seen: u64,
}

/// What a reader has to change after the topics have changed.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) add: Vec<TopicPartition>,
    pub(super) drop: Vec<TopicPartition>,
}

impl Followed {
    /// `seen` was read before the first partitions were looked up.
    pub(super) fn new(interest: Interest, seen: u64) -> Self {
        Self { interest, seen }
    }

    /// What is to change, if any topic has changed since the last call.
    #[inline]
    pub(super) fn changes(&mut self, run: &Run, slots: &Slots) -> Option<Changes> {
        let now = run.live().changes();
        if now == self.seen {
            return None;
        }
        self.seen = now;
        Some(self.compare(run, slots))
    }

    #[cold]
    fn compare(&self, run: &Run, slots: &Slots) -> Changes {
        let mut changes = Changes::default();
        let is_read_only = run.context().settings.read_only;
        let (mut topics, mut live) = (BTreeSet::new(), BTreeSet::new());
        for topic in run.live().all().iter().filter(|topic| self.interest.covers(&topic.name)) {
            for (number, core) in (0..).zip(&topic.partitions) {
                let partition =
                    TopicPartition { topic: Arc::clone(&topic.name), partition: number };
                let slot = slots.index_of(&partition).ok().and_then(|index| slots.get(index));
                // In a read-only broker, a slot finds by itself what was opened again.
                let is_reopened = |slot: &Slot| is_read_only && slot.topic().id == topic.id;
                let is_same =
                    slot.is_some_and(|it| Arc::ptr_eq(it.core(), core) || is_reopened(it));
                if slot.is_some() && !is_same {
                    // Deleted, and created again under the same name.
                    changes.drop.push(partition.clone());
                }
                if !is_same {
                    changes.add.push(partition.clone());
                }
                live.insert(partition);
            }
            topics.insert(Arc::clone(&topic.name));
        }
        // A topic that was subscribed to by its name and is deleted remains as an error.
        let is_dropped = |partition: &&TopicPartition| {
            let is_missed =
                self.interest.names(&partition.topic) && !topics.contains(&partition.topic);
            !live.contains(*partition) && !is_missed
        };
        let slots = slots.iter().map(Slot::origin);
        changes.drop.extend(slots.filter(is_dropped).cloned());
        changes
    }
}

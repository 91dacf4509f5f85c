//! How a consumer makes the slot of a partition that it takes over.
//!
//! Owns: the tokens by which the consumer's notifier tells its partitions apart. Must not know:
//! which partitions it takes over, and when.

use std::sync::Arc;

use super::role::Role;
use super::slot::Slot;
use crate::broker::Run;
use crate::error::Result;
use crate::group::offsets::Committed;
use crate::partition::waiters::Notifier;
use crate::record::TopicPartition;

pub(super) struct SlotMaker {
    notifier: Arc<Notifier>,
    last_token: usize,
}

impl SlotMaker {
    pub(super) fn new(notifier: &Arc<Notifier>) -> Self {
        Self { notifier: Arc::clone(notifier), last_token: 0 }
    }

    pub(super) fn notifier(&self) -> &Arc<Notifier> {
        &self.notifier
    }

    pub(super) fn next_token(&mut self) -> usize {
        self.last_token += 1;
        self.last_token
    }

    /// A slot that has no position yet.
    ///
    /// # Errors
    ///
    /// [`UnknownTopic`](crate::Error::UnknownTopic),
    /// [`UnknownPartition`](crate::Error::UnknownPartition), [`Closed`](crate::Error::Closed).
    pub(super) fn make(
        &mut self,
        run: &Run,
        role: &Role,
        partition: &TopicPartition,
    ) -> Result<Slot> {
        let topic = run.topic(&partition.topic)?;
        let core = Arc::clone(topic.partition(partition.partition)?);
        let token = self.next_token();
        let mut slot = Slot::new(topic, core, &self.notifier, token);
        if role.is_member() {
            slot.begin_ownership(role.epoch_of(partition));
        }
        Ok(slot)
    }
}

/// What the group has committed of the slot's partition.
pub(super) fn committed_of(run: &Run, role: &Role, slot: &Slot) -> Option<Committed> {
    let offsets = run.coordinator().offsets();
    offsets.committed(role.group()?, slot.topic().id, slot.origin().partition)
}

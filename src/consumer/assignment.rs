//! Taking partitions over and giving them up.

use std::sync::Arc;

use super::slot::Slot;
use super::{Consumer, Role};
use crate::config::CommitMode;
use crate::error::{Error, Result};
use crate::group::assignor::Assignor;
use crate::record::TopicPartition;

impl Consumer {
    /// Becomes a member of the group and takes what is free of its share.
    pub(super) fn join(
        &mut self,
        group: &Arc<str>,
        topics: Vec<Arc<str>>,
        assignor: Assignor,
    ) -> Result<()> {
        let life = Arc::clone(&self.life);
        let member = life.coordinator.join(group, topics, assignor, &self.notifier)?;
        self.role = Role::Member(member);
        self.follow_plan()
    }

    /// Takes whole topics, or partitions chosen by hand.
    pub(super) fn take_by_hand(
        &mut self,
        topics: Vec<Arc<str>>,
        partitions: Vec<TopicPartition>,
    ) -> Result<()> {
        for topic in topics {
            let count = self.life.topic(&topic)?.config.partitions;
            for partition in 0..count {
                self.add_slot(&TopicPartition { topic: Arc::clone(&topic), partition })?;
            }
        }
        for partition in partitions {
            self.add_slot(&partition)?;
        }
        Ok(())
    }

    /// Does what the group's plan asks of this member: gives up first, then takes over.
    pub(super) fn follow_plan(&mut self) -> Result<()> {
        loop {
            let Role::Member(member) = &self.role else { return Ok(()) };
            if !member.needs_attention() {
                return self.place();
            }
            let change = member.poll()?;
            if !change.lost.is_empty() {
                self.give_back_ahead();
                self.drop_slots(&change.lost);
            }
            if !change.revoke.is_empty() {
                self.give_back_ahead();
                // Still owned here: the new owner goes on where this one stopped.
                let committed = match self.settings.commit {
                    CommitMode::Auto { .. } => self.commit_passed(),
                    CommitMode::Manual => Ok(()),
                };
                self.drop_slots(&change.revoke);
                if let Role::Member(member) = &self.role {
                    member.revoked(&change.revoke)?;
                }
                // A commit that failed keeps nobody else from the partitions: they are read again.
                committed?;
                continue;
            }
            if change.assign.is_empty() {
                return self.place();
            }
            self.unplaced.extend(change.assign);
        }
    }

    /// Takes over what the group gave, as far as there is a position to begin at. One partition
    /// without a position keeps none of the others from being read.
    fn place(&mut self) -> Result<()> {
        let mut result = Ok(());
        for partition in std::mem::take(&mut self.unplaced) {
            match self.add_slot(&partition) {
                // Deleted meanwhile; the plan will say so.
                Ok(()) | Err(Error::UnknownTopic(_) | Error::UnknownPartition(_)) => {}
                Err(error) => {
                    self.unplaced.push(partition);
                    result = result.and(Err(error));
                }
            }
        }
        result
    }

    fn drop_slots(&mut self, partitions: &[TopicPartition]) {
        self.slots.retain(|slot| !partitions.contains(slot.origin()));
        self.unplaced.retain(|partition| !partitions.contains(partition));
    }

    /// Takes a partition over, at what is committed or where the settings say.
    fn add_slot(&mut self, partition: &TopicPartition) -> Result<()> {
        if self.slots.iter().any(|slot| slot.is_at(partition)) {
            return Ok(());
        }
        let topic = self.life.topic(&partition.topic)?;
        let core = Arc::clone(topic.partition(partition.partition)?);
        self.last_token += 1;
        let mut slot = Slot::new(Arc::clone(&topic), core, &self.notifier, self.last_token);
        if let Role::Member(member) = &self.role {
            slot.epoch = member.epoch_of(partition);
        }
        let committed = self.group().and_then(|group| {
            self.life.coordinator.committed(group, topic.id, partition.partition)
        });
        match committed {
            Some(committed) => self.gaps.extend(slot.resume_at(committed, &self.settings)?),
            None => slot.start_at(self.settings.start, &self.settings)?,
        }
        self.slots.push(slot);
        Ok(())
    }
}

//! Taking partitions over and giving them up.

use std::collections::BTreeSet;
use std::panic::resume_unwind;
use std::sync::Arc;

use super::rebalance::Rebalance;
use super::slot::Slot;
use super::{Consumer, Role};
use crate::config::CommitMode;
use crate::error::{Error, Result};
use crate::group::interest::Interest;
use crate::group::members::JoinRequest;
use crate::group::membership::Membership;
use crate::group::offsets::Committed;
use crate::record::TopicPartition;

impl Consumer {
    /// Becomes a member of the group and takes what is free of its share. The callback hears of
    /// it at the first poll.
    pub(super) fn join(&mut self, group: &Arc<str>, request: &JoinRequest) -> Result<()> {
        let run = Arc::clone(&self.run);
        let member = Membership::join(run.coordinator(), group, request, &self.notifier)?;
        self.role = Role::Member(member);
        // Before it has any partition: where it begins depends on this.
        self.store_subscription(group, &request.interest)?;
        let taken = self.follow_plan();
        self.is_open = true;
        taken.and(self.place_failure.take().map_or(Ok(()), Err))
    }

    /// Takes whole topics, or partitions chosen by hand.
    pub(super) fn take_by_hand(
        &mut self,
        interest: &Interest,
        partitions: Vec<TopicPartition>,
    ) -> Result<()> {
        let mut all: BTreeSet<_> = partitions.into_iter().collect();
        let counts = self.run.live().all();
        let counts = counts.iter().map(|it| (Arc::clone(&it.name), it.config.partitions)).collect();
        for topic in interest.resolve(&counts).topics() {
            let count = self.run.topic(topic)?.config.partitions;
            let partition = |partition| TopicPartition { topic: Arc::clone(topic), partition };
            all.extend((0..count).map(partition));
        }
        for partition in &all {
            let slot = self.placed_slot(partition)?;
            self.slots.push(slot);
        }
        self.is_open = true;
        Ok(())
    }

    /// Does what the group's plan asks of this member: gives up first, then takes over.
    pub(super) fn follow_plan(&mut self) -> Result<()> {
        loop {
            let Role::Member(member) = &self.role else { return Ok(()) };
            if !member.needs_attention() {
                self.tell_assigned();
                self.place();
                return Ok(());
            }
            let change = match member.poll() {
                Err(fenced @ Error::Fenced { .. }) => {
                    let all = self.owned();
                    self.lose(&all);
                    return Err(fenced);
                }
                change => change?,
            };
            self.lose(&change.lost);
            if change.is_evicted {
                if let Role::Member(member) = &self.role {
                    member.rejoin()?;
                }
                continue;
            }
            if !change.revoke.is_empty() {
                self.give_up(&change.revoke)?;
                continue;
            }
            if let Role::Member(member) = &self.role {
                let epoch_of = |it: &TopicPartition| (it.clone(), member.epoch_of(it));
                self.unplaced.extend(change.assign.iter().map(epoch_of));
            }
            if self.callback.is_some() {
                self.untold.extend(change.assign);
            }
            self.place();
            // What the callback brings about is for the next poll, so that this one ends.
            self.tell_assigned();
            return Ok(());
        }
    }

    fn tell_assigned(&mut self) {
        if self.is_open && !self.untold.is_empty() {
            let assigned: Vec<_> = std::mem::take(&mut self.untold).into_iter().collect();
            if let Err(panic) = self.tell(Rebalance::Assigned, &assigned) {
                resume_unwind(panic);
            }
        }
    }

    /// Those of the partitions of which the callback has heard: of the others it hears neither
    /// that they came nor that they went.
    fn heard_of(&self, partitions: &[TopicPartition]) -> Vec<TopicPartition> {
        let is_told = |partition: &&TopicPartition| !self.untold.contains(partition);
        partitions.iter().filter(is_told).cloned().collect()
    }

    /// What the group gave to this consumer, with a position or without, in order.
    fn owned(&self) -> Vec<TopicPartition> {
        let all = self.slots.iter().map(Slot::origin).chain(self.unplaced.keys());
        all.collect::<BTreeSet<_>>().into_iter().cloned().collect()
    }

    /// Partitions were taken away.
    fn lose(&mut self, lost: &[TopicPartition]) {
        if lost.is_empty() {
            return;
        }
        self.give_back_ahead();
        let told = self.tell(Rebalance::Lost, &self.heard_of(lost));
        self.drop_slots(lost);
        if let Err(panic) = told {
            resume_unwind(panic);
        }
    }

    /// Gives partitions up: the new owners go on where this one stopped.
    fn give_up(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        self.give_back_ahead();
        let committed = match self.settings.commit {
            CommitMode::Auto { .. } => self.commit_passed(),
            CommitMode::Manual => Ok(()),
        };
        let told = self.tell(Rebalance::Revoked, &self.heard_of(partitions));
        self.drop_slots(partitions);
        let revoked = match &self.role {
            Role::Member(member) => member.revoked(partitions),
            _ => Ok(()),
        };
        if let Err(panic) = told {
            resume_unwind(panic);
        }
        revoked?;
        // A commit that failed keeps nobody else from the partitions: they are read again.
        committed
    }

    /// Tells the application that it has nothing any more. Leaving itself is the end of the role.
    pub(super) fn give_up_everything(&mut self) -> Result<()> {
        let Role::Member(member) = &self.role else { return self.commit_at_the_end() };
        let epochs = self.slots.iter().map(|slot| (slot.origin(), slot.epoch));
        let all = epochs.chain(self.unplaced.iter().map(|(partition, epoch)| (partition, *epoch)));
        let lost = all.filter(|(partition, epoch)| member.epoch_of(partition) != *epoch);
        let lost: Vec<_> = lost.map(|(partition, _)| partition.clone()).collect();
        self.lose(&lost);
        let committed = self.commit_at_the_end();
        let left = self.heard_of(&self.owned());
        if let Err(panic) = self.tell(Rebalance::Revoked, &left) {
            resume_unwind(panic);
        }
        committed
    }

    /// Takes over what the group gave, as far as there is a position to begin at. One partition
    /// without a position keeps none of the others from being read.
    fn place(&mut self) {
        self.place_failure = None;
        if self.unplaced.is_empty() {
            return;
        }
        let mut placed = Vec::with_capacity(self.unplaced.len());
        for (partition, epoch) in std::mem::take(&mut self.unplaced) {
            match self.placed_slot(&partition) {
                Ok(slot) => placed.push(slot),
                // Deleted meanwhile; the plan will say so.
                Err(Error::UnknownTopic(_) | Error::UnknownPartition(_)) => {}
                Err(error) => {
                    self.unplaced.insert(partition, epoch);
                    self.place_failure.get_or_insert(error);
                }
            }
        }
        self.add_slots(placed);
    }

    pub(super) fn add_slots(&mut self, slots: Vec<Slot>) {
        self.slots.extend(slots);
        self.slots.sort_by(|a, b| a.origin().cmp(b.origin()));
    }

    fn drop_slots(&mut self, partitions: &[TopicPartition]) {
        let gone: BTreeSet<&TopicPartition> = partitions.iter().collect();
        self.slots.retain(|slot| !gone.contains(slot.origin()));
        self.unplaced.retain(|partition, _| !gone.contains(partition));
        self.untold.retain(|partition| !gone.contains(partition));
        self.gaps.forget_taken_over(&gone);
    }

    /// A partition as it is taken over: at what is committed, or where one without a commit begins.
    fn placed_slot(&mut self, partition: &TopicPartition) -> Result<Slot> {
        let mut slot = self.new_slot(partition)?;
        if !slot.core.is_available() {
            // What is known of its ends is no reason to move the group.
            slot.stand_by(self.committed_of(&slot));
            return Ok(slot);
        }
        let gap = match self.committed_of(&slot) {
            Some(committed) => slot.resume_at(committed, &self.settings)?,
            None if self.has_subscribed_to(&partition.topic) => slot.begin(&self.settings)?,
            None => {
                slot.start_at(self.settings.start, &self.settings)?;
                None
            }
        };
        if let Some(gap) = gap {
            self.gaps.push_taken_over(gap);
        }
        Ok(slot)
    }

    /// What the group has committed of the slot's partition.
    pub(super) fn committed_of(&self, slot: &Slot) -> Option<Committed> {
        let partition = slot.origin().partition;
        self.run.coordinator().offsets().committed(self.group()?, slot.topic.id, partition)
    }

    /// What was missing where partitions were taken over counts from the first poll that reads them.
    #[inline]
    pub(super) fn keep_gaps(&mut self) {
        for gap in self.gaps.take_taken_over() {
            if let Some(slot) = self.index_of(&gap.partition).ok().and_then(|at| self.slots.get(at))
            {
                slot.count_gap(&gap);
            }
            self.gaps.push(gap);
        }
    }

    /// A partition that has no position yet.
    pub(super) fn new_slot(&mut self, partition: &TopicPartition) -> Result<Slot> {
        let topic = self.run.topic(&partition.topic)?;
        let core = Arc::clone(topic.partition(partition.partition)?);
        self.last_token += 1;
        let mut slot = Slot::new(topic, core, &self.notifier, self.last_token);
        if let Role::Member(member) = &self.role {
            slot.begin_ownership(member.epoch_of(partition));
        }
        Ok(slot)
    }
}

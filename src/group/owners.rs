//! Which member owns each partition of a group, and which one should.
//!
//! Owns: the current and the target assignment, and the ownership epochs. Must not know: members
//! (beyond their ids), how a target assignment is made, when a member learns of it.
//!
//! Invariants:
//! 1. A partition has at most one owner: there is one field for the owner's id.
//! 2. Each ownership has an epoch of its own, none above `last_epoch`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::assignor::{Assignment, MemberId};
use crate::record::TopicPartition;
use crate::steps;

/// One ownership of one partition by one member, from its assignment to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct OwnershipEpoch(u64);

/// The partitions of a group: one for each partition of each known topic that a member reads.
#[derive(Debug)]
pub(crate) struct Owners {
    topics: BTreeMap<Arc<str>, Vec<Partition>>,
    last_epoch: OwnershipEpoch,
}

/// A partition's owner, and the member that should be. At rest the two are the same.
#[derive(Debug, Clone, Copy, Default)]
struct Partition {
    owner: Option<(MemberId, OwnershipEpoch)>,
    target: Option<MemberId>,
}

impl Partition {
    fn is_owned_by(&self, member: MemberId) -> bool {
        self.owner.is_some_and(|(owner, _)| owner == member)
    }

    /// The member whose poll brings the partition closer to its target: the owner that should give
    /// it up, else the target itself.
    fn due(&self) -> Option<MemberId> {
        match self.owner {
            Some((owner, _)) => (self.target != Some(owner)).then_some(owner),
            None => self.target,
        }
    }
}

impl Owners {
    pub(super) fn new() -> Self {
        Self { topics: BTreeMap::new(), last_epoch: OwnershipEpoch(0) }
    }

    pub(super) fn has_topic(&self, topic: &str) -> bool {
        self.topics.contains_key(topic)
    }

    /// Adds partitions of a topic, until there are so many.
    pub(super) fn grow(&mut self, topic: &Arc<str>, partitions: u32) {
        let all = self.topics.entry(Arc::clone(topic)).or_default();
        all.resize_with(partitions as usize, Partition::default);
    }

    /// Removes the partitions of a topic from this number on. Returns those that had an owner.
    pub(super) fn truncate(
        &mut self,
        topic: &str,
        partitions: u32,
    ) -> Vec<(MemberId, TopicPartition)> {
        let Some((topic, all)) = self.topics.get_key_value(topic) else { return Vec::new() };
        let removed = (0..).zip(all).skip(partitions as usize);
        let owned = removed.filter_map(|(number, partition)| {
            let (owner, _) = partition.owner?;
            Some((owner, TopicPartition { topic: Arc::clone(topic), partition: number }))
        });
        let (owned, topic) = (owned.collect(), Arc::clone(topic));
        if partitions == 0 {
            self.topics.remove(&topic);
        } else if let Some(all) = self.topics.get_mut(&topic) {
            all.truncate(partitions as usize);
        }
        owned
    }

    // ---- ownership ---------------------------------------------------------------------------

    /// The partitions that the member owns and must give up.
    pub(super) fn to_revoke(&self, id: MemberId) -> Vec<TopicPartition> {
        self.named(|it| it.due() == Some(id) && it.is_owned_by(id)).collect()
    }

    /// Assigns the member all unowned partitions that it should own, each with a new epoch.
    pub(super) fn assign(&mut self, id: MemberId) -> Vec<TopicPartition> {
        let assigned: Vec<_> =
            self.named(|it| it.owner.is_none() && it.target == Some(id)).collect();
        for partition in &assigned {
            self.last_epoch.0 += 1;
            let owner = Some((id, self.last_epoch));
            if let Some(partition) = self.get_mut(partition) {
                partition.owner = owner;
            }
        }
        self.check();
        assigned
    }

    /// The member has given a partition up. Returns the member that waits for it; `None` also
    /// where it was not the member's.
    pub(super) fn release(&mut self, id: MemberId, partition: &TopicPartition) -> Option<MemberId> {
        let partition = self.get_mut(partition).filter(|it| it.is_owned_by(id))?;
        partition.owner = None;
        partition.target
    }

    /// Ends each ownership of the member. Returns the partitions that it owned.
    pub(super) fn release_all(&mut self, id: MemberId) -> Vec<TopicPartition> {
        let released = self.owned_by(id);
        let all = self.topics.values_mut().flatten();
        all.filter(|it| it.is_owned_by(id)).for_each(|it| it.owner = None);
        released
    }

    /// The epoch of the member's ownership of a partition, if it owns it.
    pub(super) fn epoch_of(
        &self,
        id: MemberId,
        partition: &TopicPartition,
    ) -> Option<OwnershipEpoch> {
        let all = self.topics.get(&partition.topic)?;
        let (owner, epoch) = all.get(partition.partition as usize)?.owner?;
        (owner == id).then_some(epoch)
    }

    // ---- targets -----------------------------------------------------------------------------

    /// Sets the target of one partition, if there is such a partition.
    pub(super) fn set_target(&mut self, partition: &TopicPartition, id: MemberId) {
        if let Some(partition) = self.get_mut(partition) {
            partition.target = Some(id);
        }
    }

    /// Clears all targets. Returns the partitions that each member owns, or, if it `waits` for its
    /// partitions, those that it should own.
    pub(super) fn clear_targets(&mut self, waits: impl Fn(MemberId) -> bool) -> Assignment {
        let mut owned = Assignment::new();
        for (topic, all) in &mut self.topics {
            steps::take(all.len() as u64);
            for (number, partition) in (0..).zip(all) {
                let waits_for = partition.target.take().filter(|id| waits(*id));
                if let Some(owner) = partition.owner.map(|(owner, _)| owner).or(waits_for) {
                    let partition = TopicPartition { topic: Arc::clone(topic), partition: number };
                    owned.entry(owner).or_default().insert(partition);
                }
            }
        }
        self.check();
        owned
    }

    /// Whether there are partitions, and none has an owner or should have one.
    #[cfg(feature = "testing")]
    pub(super) fn are_without_plan(&self) -> bool {
        let mut all = self.topics.values().flatten().peekable();
        all.peek().is_some() && all.all(|it| it.owner.is_none() && it.target.is_none())
    }

    /// The members whose polls bring partitions closer to their targets.
    pub(super) fn due(&self) -> BTreeSet<MemberId> {
        self.topics.values().flatten().filter_map(Partition::due).collect()
    }

    // ---- what is shown of them ---------------------------------------------------------------

    /// What the member owns now, in order.
    pub(super) fn owned_by(&self, id: MemberId) -> Vec<TopicPartition> {
        self.named(|it| it.is_owned_by(id)).collect()
    }

    /// The partitions that wait for the member, or that it will own once others have given them up,
    /// in order.
    pub(super) fn targeted_at(&self, id: MemberId) -> Vec<TopicPartition> {
        self.named(|it| it.target == Some(id)).collect()
    }

    /// How often a partition was given to a member: each time took an epoch.
    pub(super) fn assignments(&self) -> u64 {
        self.last_epoch.0
    }

    fn get_mut(&mut self, partition: &TopicPartition) -> Option<&mut Partition> {
        self.topics.get_mut(&partition.topic)?.get_mut(partition.partition as usize)
    }

    /// The names of some of the partitions, in ascending order.
    fn named(&self, wanted: impl Fn(&Partition) -> bool) -> impl Iterator<Item = TopicPartition> {
        self.topics.iter().flat_map(move |(topic, all)| {
            let wanted = (0..).zip(all).filter(|(_, partition)| wanted(partition));
            let numbers: Vec<u32> = wanted.map(|(number, _)| number).collect();
            let named = |partition| TopicPartition { topic: Arc::clone(topic), partition };
            numbers.into_iter().map(named)
        })
    }

    /// Invariant 2 of the module, in debug builds.
    fn check(&self) {
        if cfg!(debug_assertions) {
            let epochs = self.topics.values().flatten().filter_map(|it| it.owner);
            let epochs: Vec<_> = epochs.map(|(_, epoch)| epoch).collect();
            let distinct: BTreeSet<_> = epochs.iter().collect();
            debug_assert!(distinct.len() == epochs.len(), "two ownerships of one epoch");
            debug_assert!(
                distinct.last().is_none_or(|it| **it <= self.last_epoch),
                "an epoch ahead"
            );
        }
    }
}

#[cfg(all(test, debug_assertions, not(loom)))]
mod tests {
    use super::*;

    fn owned(epochs: &[u64], last: u64) -> Owners {
        let owner = |epoch: &u64| Some((MemberId(1), OwnershipEpoch(*epoch)));
        let all = epochs.iter().map(|epoch| Partition { owner: owner(epoch), target: None });
        let topics = BTreeMap::from([(Arc::from("t"), all.collect())]);
        Owners { topics, last_epoch: OwnershipEpoch(last) }
    }

    #[test]
    fn ownerships_with_epochs_of_their_own_are_sound() {
        owned(&[1, 3, 2], 3).check();
    }

    #[test]
    #[should_panic(expected = "two ownerships of one epoch")]
    fn an_epoch_that_is_given_twice_is_found() {
        owned(&[1, 2, 1], 3).check();
    }

    #[test]
    #[should_panic(expected = "an epoch ahead")]
    fn an_epoch_above_the_last_is_found() {
        owned(&[1, 4], 3).check();
    }
}

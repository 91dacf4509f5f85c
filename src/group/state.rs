//! A group's state: who is in it, who owns which partition, and who should.
//!
//! Owns the hand-over: a partition goes from one member to the next through the moment in which
//! nobody owns it. Must not know time, threads, offsets or callbacks: the coordinator calls it
//! under the group's lock, runs callbacks between two calls without the lock, and looks at its
//! clock itself (and then calls [`GroupState::evict`]).
//!
//! 1. A partition has at most one owner: there is one place for the owner's name.
//! 2. Ownership begins only in [`poll`](GroupState::poll) of the new owner, and only when nobody
//!    owns the partition; it ends only by [`revoked`](GroupState::revoked),
//!    [`leave`](GroupState::leave), [`evict`](GroupState::evict) or with the partition itself.
//! 3. Each beginning takes a new ownership epoch, greater than any before it in this group; while
//!    ownership lasts its epoch does not change, however many rebalances pass.
//! 4. A plan is made whenever members, subscriptions or partitions change, and each plan has a
//!    greater generation. Owners follow it at their own polls; nobody waits for anybody else.
//! 5. A member whose poll would have something to tell
//!    [`needs_attention`](GroupState::needs_attention), and when that comes up it is among the
//!    next [`take_wakeups`](GroupState::take_wakeups), unless it polls first.
//!
//! So a commit is refused exactly when the member does not own the partition any more, or has lost
//! it and got it again since.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;

use super::assignor::{Assignment, Assignor, MemberId, Subscription};
use crate::record::TopicPartition;

/// One ownership of one partition by one member, from its assignment to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct OwnershipEpoch(u64);

/// The member is not in the group: it never joined, or it left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a member of the group")]
pub(crate) struct NotAMember;

/// What [`GroupState::join`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JoinOutcome {
    /// The member is new.
    Joined,
    /// The member was evicted, and is back with nothing of what it owned.
    Rejoined,
    /// The member wants other topics now.
    Resubscribed,
    /// Nothing has changed.
    Unchanged,
}

/// What a member learns at a poll, in the order in which it is to act: `lost`, then `revoke`, then
/// `assign`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PollChange {
    /// The generation of the plan that `revoke` and `assign` follow.
    pub(crate) generation: u64,
    /// The member was evicted and gets nothing until it joins again. Told until it does.
    pub(crate) is_evicted: bool,
    /// Was owned and is not any more, without having been asked: too late to commit. Told once.
    pub(crate) lost: Vec<TopicPartition>,
    /// Still owned, and to be given up: the moment to commit. Told at each poll until
    /// [`GroupState::revoked`] confirms it.
    pub(crate) revoke: Vec<TopicPartition>,
    /// Owned from now on. Empty while there is anything to revoke, so that a callback hears of the
    /// end of the old before the beginning of the new.
    pub(crate) assign: Vec<TopicPartition>,
}

/// One consumer group. See the module for its rules.
#[derive(Debug)]
pub(crate) struct GroupState {
    assignor: Assignor,
    members: BTreeMap<MemberId, Member>,
    partitions_of: BTreeMap<Arc<str>, u32>,
    /// One for each partition in `partitions_of`.
    places: BTreeMap<TopicPartition, Place>,
    generation: u64,
    last_epoch: OwnershipEpoch,
    /// Members with something to do that have not polled since it came up.
    wakeups: BTreeSet<MemberId>,
}

#[derive(Debug)]
struct Member {
    subscription: Subscription,
    presence: Presence,
    /// What was taken away and has not been told yet.
    lost: BTreeSet<TopicPartition>,
    /// Whether a poll has anything to tell: a flag, so that asking costs nothing.
    needs_attention: bool,
}

/// Whether a member takes part in the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Live,
    /// Known, since it has yet to hear of it, but owning nothing and planned nothing.
    Evicted,
}

/// A partition's owner, and who should be. At rest the two are the same.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    owner: Option<(MemberId, OwnershipEpoch)>,
    planned: Option<MemberId>,
}

impl Place {
    fn is_owned_by(&self, member: MemberId) -> bool {
        self.owner.is_some_and(|(owner, _)| owner == member)
    }

    /// Whose poll brings the place closer to the plan: the owner's that should give it up, else
    /// that of the member it waits for.
    fn due(&self) -> Option<MemberId> {
        match self.owner {
            Some((owner, _)) => (self.planned != Some(owner)).then_some(owner),
            None => self.planned,
        }
    }
}

impl GroupState {
    /// A group without members and topics.
    pub(crate) fn new(assignor: Assignor) -> Self {
        Self {
            assignor,
            members: BTreeMap::new(),
            partitions_of: BTreeMap::new(),
            places: BTreeMap::new(),
            generation: 0,
            last_epoch: OwnershipEpoch(0),
            wakeups: BTreeSet::new(),
        }
    }

    /// Takes a member in, back in after an eviction, or changes what it wants to read. Joining
    /// again with the same topics changes nothing.
    pub(crate) fn join(&mut self, id: MemberId, subscription: Subscription) -> JoinOutcome {
        // Equal subscriptions share one set, which the assignor then looks at once.
        let subscriptions = self.members.values().map(|member| &member.subscription);
        let known = subscriptions.clone().find(|known| **known == subscription);
        let subscription = known.cloned().unwrap_or(subscription);
        let outcome = match self.members.get_mut(&id) {
            None => {
                let member = Member {
                    subscription,
                    presence: Presence::Live,
                    lost: BTreeSet::new(),
                    needs_attention: false,
                };
                self.members.insert(id, member);
                JoinOutcome::Joined
            }
            Some(member) => {
                let was = mem::replace(&mut member.presence, Presence::Live);
                let before = mem::replace(&mut member.subscription, subscription);
                if was == Presence::Evicted {
                    JoinOutcome::Rejoined
                } else if before == member.subscription {
                    return JoinOutcome::Unchanged;
                } else {
                    JoinOutcome::Resubscribed
                }
            }
        };
        self.plan();
        outcome
    }

    /// Takes an evicted member back in with the topics that it had; nothing, if it is live.
    #[cfg_attr(not(test), expect(dead_code, reason = "the coordinator evicts nobody yet"))]
    pub(crate) fn rejoin(&mut self, id: MemberId) -> Result<JoinOutcome, NotAMember> {
        let member = self.members.get(&id).ok_or(NotAMember)?;
        let subscription = member.subscription.clone();
        Ok(self.join(id, subscription))
    }

    /// Forgets a member. What it owned is free at once, and is the answer: whoever leaves has
    /// committed before, there is nobody left to ask.
    pub(crate) fn leave(&mut self, id: MemberId) -> Result<Vec<TopicPartition>, NotAMember> {
        self.members.remove(&id).ok_or(NotAMember)?;
        self.wakeups.remove(&id);
        let freed = self.free_all_of(id);
        self.plan();
        Ok(freed)
    }

    /// Takes everything from a member that has stopped polling. Its commits fail from now on; it
    /// hears of the loss at its next poll, and may then join again. The answer is what it owned;
    /// nothing, if it was evicted before.
    #[cfg_attr(not(test), expect(dead_code, reason = "the coordinator evicts nobody yet"))]
    pub(crate) fn evict(&mut self, id: MemberId) -> Result<Vec<TopicPartition>, NotAMember> {
        let member = self.members.get_mut(&id).ok_or(NotAMember)?;
        if mem::replace(&mut member.presence, Presence::Evicted) == Presence::Evicted {
            return Ok(Vec::new());
        }
        let freed = self.free_all_of(id);
        if let Some(member) = self.members.get_mut(&id) {
            member.lost.extend(freed.iter().cloned());
            member.needs_attention = true;
            self.wakeups.insert(id);
        }
        self.plan();
        Ok(freed)
    }

    /// The topics that exist and how many partitions each has; whether that is news. Partitions
    /// that are gone are lost to their owners at once. A topic that was deleted and created again
    /// has to be passed as deleted in between, else its owners would keep what is another topic.
    pub(crate) fn set_partitions(&mut self, partitions_of: BTreeMap<Arc<str>, u32>) -> bool {
        if partitions_of == self.partitions_of {
            return false;
        }
        let before = mem::replace(&mut self.partitions_of, partitions_of);
        let (members, wakeups) = (&mut self.members, &mut self.wakeups);
        let partitions_of = &self.partitions_of;
        self.places.retain(|partition, place| {
            let count = partitions_of.get(&partition.topic).copied().unwrap_or(0);
            let exists = partition.partition < count;
            if let (false, Some((owner, _))) = (exists, place.owner)
                && let Some(member) = members.get_mut(&owner)
            {
                member.lost.insert(partition.clone());
                member.needs_attention = true;
                wakeups.insert(owner);
            }
            exists
        });
        for (topic, &count) in partitions_of {
            for partition in before.get(topic).copied().unwrap_or(0)..count {
                let topic = Arc::clone(topic);
                let partition = TopicPartition { topic, partition };
                self.places.insert(partition, Place::default());
            }
        }
        self.plan();
        true
    }

    /// What the member has to do, and to whom it belongs from now on. While there is something to
    /// revoke, the caller lets the member finish with it, calls [`revoked`](Self::revoked) and
    /// polls again.
    pub(crate) fn poll(&mut self, id: MemberId) -> Result<PollChange, NotAMember> {
        let member = self.members.get_mut(&id).ok_or(NotAMember)?;
        self.wakeups.remove(&id);
        let mut change = PollChange {
            generation: self.generation,
            is_evicted: member.presence == Presence::Evicted,
            lost: mem::take(&mut member.lost).into_iter().collect(),
            ..PollChange::default()
        };
        if !mem::replace(&mut member.needs_attention, change.is_evicted) {
            return Ok(change);
        }
        for (partition, place) in &self.places {
            if place.due() == Some(id) && place.is_owned_by(id) {
                change.revoke.push(partition.clone());
            }
        }
        if !change.revoke.is_empty() {
            member.needs_attention = true;
            return Ok(change);
        }
        for (partition, place) in &mut self.places {
            if place.due() == Some(id) {
                self.last_epoch.0 += 1;
                place.owner = Some((id, self.last_epoch));
                change.assign.push(partition.clone());
            }
        }
        Ok(change)
    }

    /// The member has finished with these partitions: whom they wait for may have them. Those
    /// that it does not own are passed over. Had a later plan given one back to it meanwhile, it
    /// gets it at its next poll, under a new epoch: it has told its user that it is gone.
    pub(crate) fn revoked(
        &mut self,
        id: MemberId,
        partitions: &[TopicPartition],
    ) -> Result<(), NotAMember> {
        let member = self.members.get_mut(&id).ok_or(NotAMember)?;
        for partition in partitions {
            // Evicted in the middle of revoking: that it is gone need not be told twice.
            member.lost.remove(partition);
        }
        for partition in partitions {
            let place = self.places.get_mut(partition);
            let Some(place) = place.filter(|place| place.is_owned_by(id)) else {
                continue;
            };
            place.owner = None;
            if let Some(next) = place.planned
                && let Some(member) = self.members.get_mut(&next)
            {
                member.needs_attention = true;
                // The member itself is awake, and polls again.
                if next != id {
                    self.wakeups.insert(next);
                }
            }
        }
        Ok(())
    }

    /// The epoch of the member's ownership of a partition, if it owns it.
    pub(crate) fn owns(&self, id: MemberId, partition: &TopicPartition) -> Option<OwnershipEpoch> {
        let (owner, epoch) = self.places.get(partition)?.owner?;
        (owner == id).then_some(epoch)
    }

    /// Whether the member still has the ownership under which it read what it wants to commit.
    pub(crate) fn may_commit(
        &self,
        id: MemberId,
        partition: &TopicPartition,
        epoch: OwnershipEpoch,
    ) -> bool {
        self.owns(id, partition) == Some(epoch)
    }

    /// Whether the next poll has anything to tell. An unknown member is told so by its poll.
    pub(crate) fn needs_attention(&self, id: MemberId) -> bool {
        self.members.get(&id).is_none_or(|member| member.needs_attention)
    }

    /// The members that have something to do and have not polled since it came up, each once.
    pub(crate) fn take_wakeups(&mut self) -> Vec<MemberId> {
        mem::take(&mut self.wakeups).into_iter().collect()
    }

    /// What the member owns now.
    #[cfg_attr(not(test), expect(dead_code, reason = "the coordinator evicts nobody yet"))]
    pub(crate) fn assignment(&self, id: MemberId) -> Vec<TopicPartition> {
        let owned = self.places.iter().filter(|(_, place)| place.is_owned_by(id));
        owned.map(|(partition, _)| partition.clone()).collect()
    }

    /// Whether nobody is in the group, evicted members included.
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    fn free_all_of(&mut self, id: MemberId) -> Vec<TopicPartition> {
        let owned = self.places.iter_mut().filter(|(_, place)| place.is_owned_by(id));
        owned
            .map(|(partition, place)| {
                place.owner = None;
                partition.clone()
            })
            .collect()
    }

    /// Makes a new plan. It starts from who owns what, not from the plan before: a hand-over that
    /// has not happened yet and is not needed any more then never happens.
    fn plan(&mut self) {
        self.generation += 1;
        let live = self.members.iter().filter(|(_, member)| member.presence == Presence::Live);
        let live = live.map(|(&id, member)| (id, member.subscription.clone())).collect();
        let mut owned = Assignment::new();
        for (partition, place) in &mut self.places {
            place.planned = None;
            if let Some((owner, _)) = place.owner {
                owned.entry(owner).or_default().insert(partition.clone());
            }
        }
        for (id, partitions) in self.assignor.assign(&live, &self.partitions_of, &owned) {
            for partition in partitions {
                if let Some(place) = self.places.get_mut(&partition) {
                    place.planned = Some(id);
                }
            }
        }
        let due: BTreeSet<MemberId> = self.places.values().filter_map(Place::due).collect();
        for (&id, member) in &mut self.members {
            let is_due = due.contains(&id);
            let is_evicted = member.presence == Presence::Evicted;
            member.needs_attention = is_due || is_evicted || !member.lost.is_empty();
            if is_due {
                self.wakeups.insert(id);
            }
        }
    }
}

#[cfg(test)]
mod tests;

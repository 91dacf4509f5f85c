//! A group's state: its members, and the hand-over of partitions between them.
//!
//! Owns: the members, and what each has yet to be notified of. Between two owners a partition has
//! none for a moment; [`owners`](super::owners) has the partitions. Must not know: time, threads,
//! offsets or callbacks. The coordinator calls it under the group's lock, and reads the clock
//! before (and then calls [`GroupState::sweep`]).
//!
//! 1. A partition has at most one owner.
//! 2. Ownership begins only in [`poll`](GroupState::poll) of the new owner, and only while the
//!    partition has no owner. It ends only by [`revoked`](GroupState::revoked),
//!    [`leave`](GroupState::leave), [`stay_away`](GroupState::stay_away),
//!    [`sweep`](GroupState::sweep) or with the partition itself.
//! 3. Each ownership has a new epoch, greater than any before it in this group; while it lasts its
//!    epoch does not change, however many rebalances pass.
//! 4. A plan is made whenever members or subscriptions change. After topics have changed, it is
//!    made when the group is [used next](GroupState::catch_up), once even if a thousand of them
//!    have. Each plan has a greater generation. Owners follow it at their own polls; no member
//!    waits for another.
//! 5. A member whose poll would have something to report
//!    [`needs_attention`](GroupState::needs_attention). When that begins, the member is among the
//!    next [`take_wakeups`](GroupState::take_wakeups), unless it polls first.
//! 6. A member that is away owns nothing, but has its part in every plan: the partitions that are
//!    planned for it wait for it, unowned.
//!
//! So a commit is refused exactly if the member does not own the partition any more, or has lost it
//! and got it again since.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;

use super::assignor::{Assignor, MemberId, Subscription};
use super::interest::{Interest, Topics};
use super::owners::Owners;
use crate::record::TopicPartition;

#[cfg(feature = "testing")]
pub(super) mod hand_over;

/// The member is not in the group: it never joined, or it left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a member of the group")]
pub(crate) struct NotAMember;

/// What [`GroupState::join`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JoinOutcome {
    /// The member is new.
    Joined,
    /// The member was evicted or away, and is back. It owns nothing that it owned before.
    Rejoined,
    /// The member subscribes to other topics now.
    Resubscribed,
    /// Nothing has changed.
    Unchanged,
}

/// What a poll reports to a member, in the order in which it must act: `lost`, then `revoke`, then
/// `assign`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PollChange {
    /// The generation of the plan that `revoke` and `assign` follow.
    pub(crate) generation: u64,
    /// The member was evicted and gets nothing until it joins again. Reported until it does.
    pub(crate) is_evicted: bool,
    /// Partitions that the member has lost without a hand-over: too late to commit. Reported once.
    pub(crate) lost: Vec<TopicPartition>,
    /// Partitions that the member still owns and must give up: it can commit now. Reported at each
    /// poll until [`GroupState::revoked`] confirms it.
    pub(crate) revoke: Vec<TopicPartition>,
    /// Partitions that the member owns from now on. Empty while there is anything to revoke, so
    /// that a callback gets revocations before assignments.
    pub(crate) assign: Vec<TopicPartition>,
}

/// One consumer group. See the module for its rules.
#[derive(Debug)]
pub(crate) struct GroupState {
    assignor: Assignor,
    members: BTreeMap<MemberId, Member>,
    /// All topics there are, shared with all other groups.
    known: Arc<Topics>,
    /// Whether topics of the group have changed since the last plan. Each live member was woken
    /// when they changed.
    is_outdated: bool,
    owners: Owners,
    generation: u64,
    /// Members that have something to do and have not polled since.
    wakeups: BTreeSet<MemberId>,
}

#[derive(Debug)]
struct Member {
    interest: Arc<Interest>,
    /// The interest, resolved with the topics that are known now.
    subscription: Subscription,
    presence: Presence,
    /// Lost partitions that were not reported yet.
    lost: BTreeSet<TopicPartition>,
    /// Whether a poll has anything to report. A flag, so that reading it is cheap.
    needs_attention: bool,
}

/// Whether a member takes part in the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Live,
    /// It has no consumer; its partitions wait until it has one.
    Away,
    /// It owns nothing and has no part in the plan. Kept until the eviction was reported to it.
    Evicted,
}

impl GroupState {
    /// A group without members and topics.
    pub(crate) fn new(assignor: Assignor) -> Self {
        Self {
            assignor,
            members: BTreeMap::new(),
            known: Arc::default(),
            is_outdated: false,
            owners: Owners::new(),
            generation: 0,
            wakeups: BTreeSet::new(),
        }
    }

    pub(crate) fn assignor(&self) -> Assignor {
        self.assignor
    }

    /// Which member owns which partition.
    pub(crate) fn owners(&self) -> &Owners {
        &self.owners
    }

    /// Sets the assignor of the next plans.
    pub(crate) fn set_assignor(&mut self, assignor: Assignor) {
        self.assignor = assignor;
    }

    /// Adds a member, takes it back after an eviction or an absence, or changes its interest.
    /// Joining again with the same interest changes nothing.
    pub(crate) fn join(&mut self, id: MemberId, interest: Interest) -> JoinOutcome {
        let outcome = match self.members.get(&id) {
            None => JoinOutcome::Joined,
            Some(member) if member.presence != Presence::Live => JoinOutcome::Rejoined,
            Some(member) if *member.interest == interest => return JoinOutcome::Unchanged,
            Some(_) => JoinOutcome::Resubscribed,
        };
        self.admit(id, interest, Presence::Live);
        self.plan();
        outcome
    }

    /// Adds or changes a member, without a plan.
    fn admit(&mut self, id: MemberId, interest: Interest, presence: Presence) {
        // Equal interests share one set, which the assignor then reads once.
        let equal = self.members.values().find(|member| *member.interest == interest);
        let is_new = equal.is_none();
        let (interest, subscription) = if let Some(equal) = equal {
            (Arc::clone(&equal.interest), equal.subscription.clone())
        } else {
            let subscription = interest.resolve(&self.known);
            (Arc::new(interest), subscription)
        };
        if let Some(member) = self.members.get_mut(&id) {
            (member.interest, member.subscription) = (interest, subscription);
            member.presence = presence;
        } else {
            let (lost, needs_attention) = (BTreeSet::new(), false);
            let member = Member { interest, subscription, presence, lost, needs_attention };
            self.members.insert(id, member);
        }
        if is_new {
            self.grow_owners();
        }
    }

    /// Takes an evicted member back with the topics that it had. Does nothing if it is live.
    pub(crate) fn rejoin(&mut self, id: MemberId) -> Result<JoinOutcome, NotAMember> {
        let member = self.members.get(&id).ok_or(NotAMember)?;
        let interest = Interest::clone(&member.interest);
        Ok(self.join(id, interest))
    }

    /// Adds members that are away, with the partitions that wait for them.
    pub(crate) fn restore(
        &mut self,
        members: impl IntoIterator<Item = (MemberId, Interest, Vec<TopicPartition>)>,
    ) {
        for (id, interest, held) in members {
            self.admit(id, interest, Presence::Away);
            for partition in held {
                self.owners.set_target(&partition, id);
            }
        }
        self.plan();
    }

    /// Removes a member. Returns the partitions that it owned, which are free at once: a member
    /// commits before it leaves, so no revocation is needed.
    pub(crate) fn leave(&mut self, id: MemberId) -> Result<Vec<TopicPartition>, NotAMember> {
        let freed = self.remove(id).ok_or(NotAMember)?;
        self.plan();
        Ok(freed)
    }

    /// The member has no consumer for now: the partitions that it owned wait for it. An evicted
    /// member has none, and leaves.
    pub(crate) fn stay_away(&mut self, id: MemberId) -> Result<(), NotAMember> {
        let member = self.members.get_mut(&id).ok_or(NotAMember)?;
        if member.presence == Presence::Evicted {
            return self.leave(id).map(drop);
        }
        member.presence = Presence::Away;
        member.lost.clear();
        self.owners.release_all(id);
        // Not a new plan: partitions that were planned for other members are theirs now, and
        // nothing else moves.
        self.wake_members_that_are_due();
        Ok(())
    }

    /// Evicts members that have stopped polling, and removes static members whose wait has ended:
    /// one new plan for all of them. Returns how many were evicted.
    ///
    /// An evicted member owns nothing. Its commits fail from now on; its next poll reports the
    /// loss, and it may then join again.
    pub(crate) fn sweep(&mut self, overdue: &[MemberId], gone: &[MemberId]) -> usize {
        let evicted = overdue.iter().filter(|id| self.set_evicted(**id)).count();
        let left = gone.iter().filter(|id| self.remove(**id).is_some()).count();
        if evicted + left > 0 {
            self.plan();
        }
        evicted
    }

    /// Returns whether the member was not evicted before.
    fn set_evicted(&mut self, id: MemberId) -> bool {
        if self.members.get(&id).is_none_or(|member| member.presence == Presence::Evicted) {
            return false;
        }
        let freed = self.owners.release_all(id);
        if let Some(member) = self.members.get_mut(&id) {
            member.presence = Presence::Evicted;
            member.lost.extend(freed);
            member.needs_attention = true;
            self.wakeups.insert(id);
        }
        true
    }

    /// Removes a member, and returns the partitions that it owned. The caller makes a plan.
    fn remove(&mut self, id: MemberId) -> Option<Vec<TopicPartition>> {
        self.members.remove(&id)?;
        self.wakeups.remove(&id);
        Some(self.owners.release_all(id))
    }

    /// Whether a change of this topic concerns the group: a member reads it, or the group has
    /// partitions of it.
    pub(crate) fn is_concerned(&self, topic: &str) -> bool {
        let mut last = None;
        // Mostly all members share one interest.
        let is_another = |interest: &&Arc<Interest>| {
            let address = Arc::as_ptr(interest).addr();
            last.replace(address) != Some(address)
        };
        let mut interests = self.members.values().map(|member| &member.interest);
        self.owners.has_topic(topic)
            || interests.by_ref().filter(is_another).any(|interest| interest.covers(topic))
    }

    /// Changes the partition count of a topic that [concerns](Self::is_concerned) the group; 0 if
    /// it is deleted. Deleted partitions are lost to their owners at once. A topic that was deleted
    /// and created again must be passed as deleted in between; otherwise its owners would keep
    /// partitions of another topic. The plan is made later, once for any number of topics: before
    /// the next call that makes or follows one, [`catch_up`](Self::catch_up) has to be called.
    pub(crate) fn topic_changed(&mut self, topic: &str, partitions: u32) {
        self.lose_from(topic, partitions);
        if mem::replace(&mut self.is_outdated, true) {
            return;
        }
        // The member that polls first makes the plan, so all are woken.
        let live = self.members.iter_mut().filter(|(_, member)| member.presence == Presence::Live);
        for (&id, member) in live {
            member.needs_attention = true;
            self.wakeups.insert(id);
        }
    }

    /// Makes the plan that is due because topics have changed, if any. `known` returns the existing
    /// topics.
    pub(crate) fn catch_up(&mut self, known: impl FnOnce() -> Arc<Topics>) {
        if self.is_outdated {
            self.refresh(known());
        }
    }

    /// Makes the plan that is due because topics have changed, if any, with all existing topics,
    /// also those that do not concern the group yet.
    pub(crate) fn refresh(&mut self, known: Arc<Topics>) {
        self.known = known;
        if mem::take(&mut self.is_outdated) {
            self.resolve_again();
            self.grow_owners();
            self.plan();
        }
    }

    /// Resolves all interests with the topics that are known now.
    fn resolve_again(&mut self) {
        // Members with equal interests continue to share one resolution.
        let mut resolved: Vec<(Arc<Interest>, Subscription)> = Vec::new();
        for member in self.members.values_mut().filter(|member| member.interest.has_patterns()) {
            let known = &self.known;
            let same = |(interest, _): &&(Arc<Interest>, _)| *interest == member.interest;
            let subscription = if let Some((_, subscription)) = resolved.iter().find(same) {
                subscription.clone()
            } else {
                let subscription = member.interest.resolve(known);
                resolved.push((Arc::clone(&member.interest), subscription.clone()));
                subscription
            };
            member.subscription = subscription;
        }
    }

    /// Removes the partitions of a topic from this number on.
    fn lose_from(&mut self, topic: &str, partitions: u32) {
        for (owner, partition) in self.owners.truncate(topic, partitions) {
            if let Some(member) = self.members.get_mut(&owner) {
                member.lost.insert(partition);
                member.needs_attention = true;
                self.wakeups.insert(owner);
            }
        }
    }

    /// Adds partitions, so that there is one for each known partition that a member reads.
    fn grow_owners(&mut self) {
        let known = &self.known;
        let mut last = None;
        for subscription in self.members.values().map(|member| &member.subscription) {
            // Mostly all are the same one; reading one twice is harmless.
            if last.replace(subscription) == Some(subscription) {
                continue;
            }
            for (topic, &count) in subscription.topics().filter_map(|it| known.get_key_value(it)) {
                self.owners.grow(topic, count);
            }
        }
    }

    /// Returns what the member has to do. It owns the assigned partitions from now on. While there
    /// is something to revoke, the caller lets the member finish with it, calls
    /// [`revoked`](Self::revoked) and polls again.
    pub(crate) fn poll(&mut self, id: MemberId) -> Result<PollChange, NotAMember> {
        debug_assert!(!self.is_outdated, "a poll that follows an old plan");
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
        change.revoke = self.owners.to_revoke(id);
        if change.revoke.is_empty() {
            change.assign = self.owners.assign(id);
        } else {
            member.needs_attention = true;
        }
        Ok(change)
    }

    /// The member has finished with these partitions, so other members may own them. Partitions
    /// that it does not own are skipped. If a later plan has given one back to it meanwhile, it
    /// gets it at its next poll, under a new epoch, because the revocation was reported to its
    /// callback.
    pub(crate) fn revoked(
        &mut self,
        id: MemberId,
        partitions: &[TopicPartition],
    ) -> Result<(), NotAMember> {
        let member = self.members.get_mut(&id).ok_or(NotAMember)?;
        for partition in partitions {
            // It was evicted while it revoked: the loss need not be reported too.
            member.lost.remove(partition);
        }
        for partition in partitions {
            let Some(next) = self.owners.release(id, partition) else { continue };
            if let Some(member) = self.members.get_mut(&next) {
                member.needs_attention = true;
                // The member itself is awake, and polls again.
                if next != id {
                    self.wakeups.insert(next);
                }
            }
        }
        #[cfg(feature = "testing")]
        hand_over::divide_if_done(self);
        Ok(())
    }

    /// Whether the next poll has anything to report. True for an unknown member.
    pub(crate) fn needs_attention(&self, id: MemberId) -> bool {
        self.members.get(&id).is_none_or(|member| member.needs_attention)
    }

    /// The members that have something to do and have not polled since, each once.
    pub(crate) fn take_wakeups(&mut self) -> Vec<MemberId> {
        mem::take(&mut self.wakeups).into_iter().collect()
    }

    /// Whether the member is in the group, be it evicted or away.
    pub(crate) fn has_member(&self, id: MemberId) -> bool {
        self.members.contains_key(&id)
    }

    /// Whether the group has no member, not even an evicted one.
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether every partition has the owner that the plan names. A partition that waits for a
    /// member that is away counts as such.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.owners.due().into_iter().all(|id| is_away(&self.members, id))
    }

    /// Makes a new plan. It starts from the present owners, not from the earlier plan: a hand-over
    /// that is not done yet and not needed any more is dropped.
    fn plan(&mut self) {
        debug_assert!(!self.is_outdated, "a plan for topics that have changed");
        self.generation += 1;
        let there = self.members.iter().filter(|(_, it)| it.presence != Presence::Evicted);
        let there = there.map(|(&id, member)| (id, member.subscription.clone())).collect();
        let members = &self.members;
        let owned = self.owners.clear_targets(|id| is_away(members, id));
        for (id, partitions) in self.assignor.assign(&there, &self.known, &owned) {
            for partition in partitions {
                self.owners.set_target(&partition, id);
            }
        }
        self.wake_members_that_are_due();
    }

    /// Notes the members whose polls have something to report.
    fn wake_members_that_are_due(&mut self) {
        let due = self.owners.due();
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

fn is_away(members: &BTreeMap<MemberId, Member>, id: MemberId) -> bool {
    members.get(&id).is_some_and(|member| member.presence == Presence::Away)
}

#[cfg(test)]
mod tests;

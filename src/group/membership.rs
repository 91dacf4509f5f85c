//! A consumer's membership in its group: the calls of one member.
//!
//! Owns: these calls. Must not know: what a consumer does with its partitions. Every call holds the
//! group's lock for the time of a few lookups and at most one append, and runs no application code
//! under it, except for the clock that dates the append.

use std::fmt;
use std::sync::Arc;

use super::assignor::MemberId;
use super::commit::{self, Commit, Permit, Ready, Stored};
use super::coordinator::Coordinator;
use super::interest::Interest;
use super::members::{Holder, JoinRequest, Members};
use super::owners::OwnershipEpoch;
use super::presence::Presence;
use super::shared::Group;
use super::state::PollChange;
use crate::error::{Error, Result};
use crate::partition::waiters::Notifier;
use crate::record::TopicPartition;
use crate::sync::MutexGuard;

/// Dropping it leaves the group at once; a static member's partitions then wait for it.
pub(crate) struct Membership {
    coordinator: Arc<Coordinator>,
    group: Arc<Group>,
    member: MemberId,
    presence: Arc<Presence>,
    holder: Option<Holder>,
    /// To join again, when the broker has lost the leadership of its group and leads again.
    request: JoinRequest,
}

impl Membership {
    /// Becomes a member of a group.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the live members use another assignor; [`Error::NotLeader`];
    /// [`Error::Closed`].
    pub(crate) fn join(
        coordinator: &Arc<Coordinator>,
        group: &Arc<str>,
        request: &JoinRequest,
        notifier: &Arc<Notifier>,
    ) -> Result<Self> {
        let (group, joined) = coordinator.join(group, request, notifier)?;
        Ok(Self {
            coordinator: Arc::clone(coordinator),
            group,
            member: joined.member,
            presence: joined.presence,
            holder: joined.holder,
            request: request.clone(),
        })
    }

    /// Becomes a member once more, after this membership was dismissed.
    ///
    /// # Errors
    ///
    /// As of [`join`](Self::join).
    pub(crate) fn join_again(&self, notifier: &Arc<Notifier>) -> Result<Self> {
        Self::join(&self.coordinator, self.group(), &self.request, notifier)
    }

    /// What the member subscribes to.
    pub(crate) fn interest(&self) -> &Interest {
        &self.request.interest
    }

    /// Whether the membership has ended because another broker leads, or has led: the member has no
    /// partitions any more.
    pub(crate) fn is_dismissed(&self) -> bool {
        self.presence.is_dismissed()
    }

    pub(crate) fn group(&self) -> &Arc<str> {
        self.group.name()
    }

    /// Notes that the member polls, and evicts overdue members.
    #[inline]
    pub(crate) fn polls(&self) {
        let now = self.coordinator.now();
        self.presence.polled(now);
        if now >= self.group.next_check() {
            self.coordinator.evict_overdue_of(&self.group, now);
        }
    }

    /// Notes that the member parks: it cannot be overdue until it [`polls`](Self::polls) again.
    pub(crate) fn waits(&self) {
        self.presence.waits();
    }

    /// Whether [`poll`](Self::poll) would have anything to report.
    #[inline]
    pub(crate) fn needs_attention(&self) -> bool {
        self.presence.needs_attention()
    }

    /// What to give up and what to take over, now.
    ///
    /// # Errors
    ///
    /// [`Error::Fenced`] when a newer consumer has taken the instance id.
    pub(crate) fn poll(&self) -> Result<PollChange> {
        let mut members = self.lock()?;
        self.coordinator.catch_up(&mut members);
        let change = members.poll(self.member)?;
        if !change.assign.is_empty() || !change.lost.is_empty() {
            self.store_holder(&members);
        }
        self.release(members);
        self.tidy();
        Ok(change)
    }

    /// Takes part again, after an eviction.
    pub(crate) fn rejoin(&self) -> Result<()> {
        let mut members = self.lock()?;
        self.coordinator.catch_up(&mut members);
        members.rejoin(self.member)?;
        // It polls now. The eviction had removed it from the deadlines.
        self.group.note_deadline(0);
        self.release(members);
        self.coordinator.deadline_noted();
        Ok(())
    }

    /// Gives the partitions up: the member reads and commits nothing of them any more.
    pub(crate) fn revoked(&self, partitions: &[TopicPartition]) -> Result<()> {
        let mut members = self.lock()?;
        members.revoked(self.member, partitions)?;
        self.store_holder(&members);
        self.release(members);
        self.tidy();
        Ok(())
    }

    pub(crate) fn epoch_of(&self, partition: &TopicPartition) -> Option<OwnershipEpoch> {
        self.group.lock().state().owners().epoch_of(self.member, partition)
    }

    /// Stores commits, all or none. None if the member has lost one of the partitions, or has lost
    /// it and got it back since it read the records.
    pub(crate) fn commit(&self, commits: &Ready<'_>) -> Result<Stored<'_>> {
        if let Some(first) = commits.iter().next()
            && self.is_dismissed()
            && !self.coordinator.follows()
        {
            // The broker leads again, and this consumer has not joined again yet.
            return Err(Error::Rebalanced { partition: first.partition.clone() });
        }
        let members = self.lock()?;
        let owners = members.state().owners();
        let is_owned = |commit: &Commit<'_>| {
            commit.epoch.is_some() && owners.epoch_of(self.member, commit.partition) == commit.epoch
        };
        if let Some(lost) = commits.iter().find(|commit| !is_owned(commit)) {
            return Err(Error::Rebalanced { partition: lost.partition.clone() });
        }
        let permit = Permit::Owner { _members: members };
        let offsets = self.coordinator.offsets();
        let stored = commit::store(offsets, self.group.name(), commits, permit);
        offsets.tidy();
        stored
    }

    /// The group's lock, unless the member was fenced or dismissed.
    fn lock(&self) -> Result<MutexGuard<'_, Members>> {
        let members = self.group.lock();
        if self.is_dismissed() {
            return Err(self.coordinator.offsets().lead().refused());
        }
        match (self.presence.fenced_by(), &self.holder) {
            (Some(current), Some(Holder { instance, epoch })) => {
                Err(Error::Fenced { id: instance.as_ref().to_owned(), epoch: *epoch, current })
            }
            _ => Ok(members),
        }
    }

    /// Releases the lock, then wakes the members that the change concerns.
    fn release(&self, members: MutexGuard<'_, Members>) {
        self.presence.set_attention(members.state().needs_attention(self.member));
        self.coordinator.release(&self.group, members, None);
    }

    /// After [`store_holder`](Self::store_holder), when the lock is released.
    fn tidy(&self) {
        if self.holder.is_some() {
            self.coordinator.offsets().tidy();
        }
    }

    fn store_holder(&self, members: &Members) {
        if let Some(holder) = &self.holder {
            let record = members.static_record(&holder.instance);
            self.coordinator.offsets().store_static(self.group.name(), &holder.instance, record);
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        // A forked child's copy of a member: the member itself lives in the parent.
        if self.coordinator.offsets().partition().log().status().check_process().is_err() {
            return;
        }
        let instance = self.holder.as_ref().map(|holder| &holder.instance);
        self.coordinator.leave(&self.group, self.member, &self.presence, instance);
    }
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership")
            .field("group", self.group.name())
            .field("member", &self.member)
            .finish_non_exhaustive()
    }
}

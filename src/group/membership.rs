//! A consumer's place in its group.
//!
//! Owns: what one member may ask and say. Must not know: what a consumer does with its partitions.
//! Every call takes the group's lock for as long as a few look-ups and at most one append take, and
//! none of them runs code of the application under it, but for a clock that says when the append was.

use std::fmt;
use std::sync::Arc;

use super::assignor::MemberId;
use super::coordinator::{Commit, Coordinator, Permit};
use super::roster::{Group, Holder, Presence, Roster};
use super::state::{OwnershipEpoch, PollChange};
use crate::error::{Error, Result};
use crate::record::TopicPartition;
use crate::sync::MutexGuard;

/// A place in a group. Dropping it leaves the group at once; a static member's partitions then
/// wait for it.
pub(crate) struct Membership {
    pub(super) coordinator: Arc<Coordinator>,
    pub(super) group: Arc<Group>,
    pub(super) member: MemberId,
    pub(super) presence: Arc<Presence>,
    pub(super) holder: Option<Holder>,
}

impl Membership {
    pub(crate) fn group(&self) -> &Arc<str> {
        &self.group.name
    }

    /// Says that the member is there, and looks whether others are not.
    #[inline]
    pub(crate) fn polls(&self) {
        let now = self.coordinator.now();
        self.presence.polled(now);
        if now >= self.group.look_at() {
            self.coordinator.sweep(&self.group, now);
        }
    }

    /// Says that the member parks: it is there until it says that it [`polls`](Self::polls) again.
    pub(crate) fn waits(&self) {
        self.presence.waits();
    }

    /// Whether [`poll`](Self::poll) would have anything to say.
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
        let mut roster = self.lock()?;
        self.coordinator.catch_up(&mut roster);
        let change = roster.state.poll(self.member).map_err(|_| Error::Rebalanced)?;
        if !change.assign.is_empty() || !change.lost.is_empty() {
            self.store_holder(&roster);
        }
        self.release(roster);
        self.tidy();
        Ok(change)
    }

    /// Takes part again, after an eviction.
    pub(crate) fn rejoin(&self) -> Result<()> {
        let mut roster = self.lock()?;
        self.coordinator.catch_up(&mut roster);
        roster.state.rejoin(self.member).map_err(|_| Error::Rebalanced)?;
        if let Some(member) = roster.live.get_mut(&self.member) {
            member.is_evicted = false;
        }
        // It polls now, and an eviction made `look_at` pass it over.
        self.group.note_deadline(0);
        self.release(roster);
        self.coordinator.deadline_noted();
        Ok(())
    }

    /// The partitions are given up: nothing of them is read or committed any more.
    pub(crate) fn revoked(&self, partitions: &[TopicPartition]) -> Result<()> {
        let mut roster = self.lock()?;
        roster.state.revoked(self.member, partitions).map_err(|_| Error::Rebalanced)?;
        self.store_holder(&roster);
        self.release(roster);
        self.tidy();
        Ok(())
    }

    pub(crate) fn epoch_of(&self, partition: &TopicPartition) -> Option<OwnershipEpoch> {
        self.group.roster.lock().state.owns(self.member, partition)
    }

    /// Stores commits, all or none: none when one of the partitions is not this member's any more.
    pub(crate) fn commit(&self, commits: &[Commit<'_>]) -> Result<u64> {
        let roster = self.lock()?;
        let owned = |commit: &Commit<'_>| {
            commit
                .epoch
                .is_some_and(|epoch| roster.state.may_commit(self.member, commit.partition, epoch))
        };
        if !commits.iter().all(owned) {
            return Err(Error::Rebalanced);
        }
        let permit = Permit::Owner { _roster: roster };
        let result = self.coordinator.append_commits(&self.group.name, commits, permit);
        self.coordinator.tidy_offsets();
        result
    }

    /// The group's lock, unless the member was fenced.
    fn lock(&self) -> Result<MutexGuard<'_, Roster>> {
        let roster = self.group.roster.lock();
        match (self.presence.fenced_by(), &self.holder) {
            (Some(current), Some(Holder { instance, epoch })) => {
                Err(Error::Fenced { id: instance.as_ref().to_owned(), epoch: *epoch, current })
            }
            _ => Ok(roster),
        }
    }

    /// Releases the lock, then wakes whom the change concerns.
    fn release(&self, mut roster: MutexGuard<'_, Roster>) {
        let wakeups = roster.take_wakeups();
        roster.note_events(&self.group.name, self.coordinator.trace());
        self.presence.set_attention(roster.state.needs_attention(self.member));
        drop(roster);
        wakeups.call();
        self.coordinator.trace().deliver();
    }

    /// After [`store_holder`](Self::store_holder), when the lock is released.
    fn tidy(&self) {
        if self.holder.is_some() {
            self.coordinator.tidy_offsets();
        }
    }

    fn store_holder(&self, roster: &Roster) {
        if let Some(holder) = &self.holder {
            self.coordinator.store_static(&self.group.name, &holder.instance, roster);
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        // A forked child's copy of a member: the member itself lives in the parent.
        if self.coordinator.offsets_partition().check_process().is_err() {
            return;
        }
        let instance = self.holder.as_ref().map(|holder| &holder.instance);
        self.coordinator.leave(&self.group, self.member, &self.presence, instance);
    }
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership")
            .field("group", &self.group.name)
            .field("member", &self.member)
            .finish_non_exhaustive()
    }
}

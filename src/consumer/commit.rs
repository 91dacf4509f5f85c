//! Commits: which positions, and when.

use std::sync::Arc;
use std::time::Duration;

use super::slot::Slot;
use super::{Consumer, Role};
use crate::config::CommitMode;
use crate::error::{Error, Result};
use crate::group::commit::{Commit, Ready, Wait};
use crate::message::Message;
use crate::record::{Offsets, TopicPartition};
use crate::steps;

/// What to commit: slots by their place in the list, and the next offset to read of each.
type Positions = Vec<(usize, u64)>;

/// Whether a commit may take the group back to records that were done before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rewinds {
    /// The caller says where: by offsets, or by a position that it has moved.
    OnPurpose,
    /// Only where the position was moved back by a seek; else the earlier commit stands.
    AfterSeek,
}

impl Consumer {
    /// Commits everything that was handed out, for each assigned partition. The committed offset is
    /// the next one to read. A partition is left out while a poll has yet to return its
    /// [`Error::Truncated`] or to report a [`Gap`](super::Gap).
    ///
    /// # Errors
    ///
    /// - [`Error::Rebalanced`]: the member does not own one of the partitions any more. Nothing is
    ///   committed; the next poll follows the new plan.
    /// - [`Error::Fenced`]: a newer consumer has taken the instance id.
    /// - [`Error::UnknownTopic`]: a topic was deleted since the member's last poll, or everything
    ///   that a consumer by [`assign`](crate::ConsumerBuilder::assign) reads.
    /// - [`Error::GroupNotEmpty`]: a consumer by `assign`, while the group has live members.
    /// - [`Error::Config`]: a reader without a group.
    /// - [`Error::SyncFailed`], [`Error::Poisoned`]: the records of a partition could not be
    ///   synced; the other partitions are committed. Or the commit itself could not.
    /// - [`Error::StorageFull`], [`Error::Io`], [`Error::ReadOnly`], [`Error::Forked`],
    ///   [`Error::Closed`].
    ///
    /// # Durability
    ///
    /// At broker level [`Durability::Sync`](crate::Durability::Sync): on return first the records
    /// and then the commit are on stable storage. At the other levels the commit survives the death
    /// of the process.
    ///
    /// # Blocking
    ///
    /// At broker level `Sync`, for syncs of the disk, which concurrent commits share.
    #[doc(alias = "commitSync")]
    pub fn commit(&mut self) -> Result<()> {
        let positions = self.handed_out();
        self.commit_durably(&positions, Rewinds::OnPurpose)
    }

    /// Commits one message and everything before it in its partition. A higher commit is never
    /// taken back, unless a [`seek`](Self::seek) moved the position back: a message that is handled
    /// out of turn does not undo a later one.
    ///
    /// # Errors
    ///
    /// - [`Error::Rebalanced`]: the member does not own the partition any more, or has not read the
    ///   message itself since it owns it.
    /// - [`Error::UnknownPartition`]: a consumer by [`assign`](crate::ConsumerBuilder::assign) does
    ///   not read it.
    /// - [`Error::Truncated`]: a poll has yet to return this error of the partition.
    /// - All others of [`commit`](Self::commit).
    ///
    /// # Durability
    ///
    /// At broker level [`Durability::Sync`](crate::Durability::Sync): on return first the records
    /// and then the commit are on stable storage. At the other levels the commit survives the death
    /// of the process.
    ///
    /// # Blocking
    ///
    /// At broker level `Sync`, for syncs of the disk, which concurrent commits share.
    pub fn commit_message(&mut self, message: &Message) -> Result<()> {
        self.check_commits()?;
        let index = self.own_slot(&message.topic_partition())?;
        // What is committed now may lie behind the message, by the work of another member.
        if matches!(self.role, Role::Member(_))
            && self.slots.get(index).is_some_and(|slot| !slot.has_read(message))
        {
            return Err(Error::Rebalanced { partition: message.topic_partition() });
        }
        self.commit_durably(&[(index, message.next_offset())], Rewinds::AfterSeek)
    }

    /// Commits these offsets, each the next one to read. They may be lower than what is committed:
    /// the group then reads again.
    ///
    /// # Errors
    ///
    /// Nothing is committed after any of them, except after a failed sync:
    ///
    /// - [`Error::Rebalanced`]: the member does not own one of the partitions.
    /// - [`Error::UnknownPartition`]: a consumer by [`assign`](crate::ConsumerBuilder::assign) does
    ///   not read one.
    /// - [`Error::OffsetOutOfRange`]: an offset lies beyond the log end.
    /// - [`Error::Truncated`]: a poll has yet to return this error of one of the partitions.
    /// - [`Error::Corrupt`]: one of the partitions is unavailable.
    /// - All others of [`commit`](Self::commit).
    ///
    /// # Durability
    ///
    /// At broker level [`Durability::Sync`](crate::Durability::Sync): on return first the records
    /// and then the commit are on stable storage. At the other levels the commit survives the death
    /// of the process.
    ///
    /// # Blocking
    ///
    /// At broker level `Sync`, for syncs of the disk, which concurrent commits share.
    #[doc(alias = "commitSync")]
    pub fn commit_offsets(&mut self, offsets: &Offsets) -> Result<()> {
        self.check_commits()?;
        let position = |(partition, &offset): (_, &u64)| Ok((self.own_slot(partition)?, offset));
        let positions = offsets.iter().map(position).collect::<Result<Positions>>()?;
        self.commit_durably(&positions, Rewinds::OnPurpose)
    }

    /// Commits everything that was handed out, as [`commit`](Self::commit) does, without waiting
    /// for the disk. Auto mode commits like this.
    ///
    /// # Errors
    ///
    /// Those of [`commit`](Self::commit), except of syncs.
    ///
    /// # Durability
    ///
    /// On return the commit survives the death of the process. The next background sync makes it
    /// durable.
    ///
    /// # Blocking
    ///
    /// Never for a sync.
    #[doc(alias = "commitAsync")]
    pub fn commit_soon(&mut self) -> Result<()> {
        let positions = self.handed_out();
        self.publish_soon(&positions, Rewinds::OnPurpose)
    }

    /// Returns what the group has committed for a partition: the next offset to read. `None` if
    /// nothing, or without a group.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownTopic`], [`Error::Closed`].
    pub fn committed(&self, partition: impl Into<TopicPartition>) -> Result<Option<u64>> {
        let partition = partition.into();
        let topic = self.run.topic(&partition.topic)?;
        let Some(group) = self.group() else { return Ok(None) };
        let committed =
            self.run.coordinator().offsets().committed(group, topic.id, partition.partition);
        Ok(committed.map(|committed| committed.offset))
    }

    // ---- what is committed -------------------------------------------------------------------

    /// What `commit` covers. One of the topics that a consumer without a plan reads may have been
    /// deleted: the others still have offsets to commit. To a member its group's plan says so.
    /// Nothing was handed out of a partition that is unavailable.
    fn handed_out(&self) -> Positions {
        let is_left = |slot: &Slot| !slot.core.is_closed();
        let takes_all = matches!(self.role, Role::Member(_)) || !self.slots.iter().any(is_left);
        let slots = (0..).zip(&self.slots).filter(|(_, slot)| takes_all || is_left(slot));
        let reported = slots.filter(|(_, slot)| slot.unreported_cut().is_none());
        let reported = reported.filter(|(_, slot)| !self.gaps.awaits_poll(slot.origin()));
        let reported = reported.filter(|(_, slot)| slot.core.is_available());
        reported.map(|(index, slot)| (index, slot.handed_out)).collect()
    }

    /// What auto-commit covers: what a later poll has passed, as far as it is news.
    fn passed(&self) -> Positions {
        let is_news = |slot: &Slot| {
            slot.committed != Some(slot.passed)
                && !slot.core.is_closed()
                && slot.core.is_available()
                && slot.unreported_cut().is_none()
        };
        let slots = (0..).zip(&self.slots).filter(|(_, slot)| is_news(slot));
        slots.map(|(index, slot)| (index, slot.passed)).collect()
    }

    /// Where a partition is in the list.
    fn own_slot(&self, partition: &TopicPartition) -> Result<usize> {
        self.index_of(partition).map_err(|unknown| match self.role {
            // Taken away by the group, or never here.
            Role::Member(_) => Error::Rebalanced { partition: partition.clone() },
            _ => unknown,
        })
    }

    /// Whoever asks for more has passed what was handed out before. Between two messages of one
    /// poll that is the last one, however many partitions there are.
    pub(super) fn pass_handed_out(&mut self) {
        let CommitMode::Auto { .. } = self.settings.commit else { return };
        let last = self.last_slot..=self.last_slot;
        let slots = if std::mem::take(&mut self.passes_all) {
            self.slots.as_mut_slice()
        } else {
            self.slots.get_mut(last).unwrap_or_default()
        };
        for slot in slots {
            steps::take(1);
            slot.passed = slot.handed_out;
        }
    }

    // ---- auto mode ---------------------------------------------------------------------------

    /// How long a wait may be before auto mode commits what was passed by it: real time, like the
    /// wait itself. A clock that is moved by hand moves no wait; the next call looks again.
    pub(super) fn auto_commit_wait(&self) -> Option<Duration> {
        let CommitMode::Auto { .. } = self.settings.commit else { return None };
        let has_news = !self.passed().is_empty();
        has_news.then(|| self.commit_due.saturating_sub(self.run.clock().monotonic()))
    }

    pub(super) fn auto_commit_if_due(&mut self) -> Result<()> {
        let CommitMode::Auto { every } = self.settings.commit else { return Ok(()) };
        let now = self.run.clock().monotonic();
        if now < self.commit_due {
            return Ok(());
        }
        self.commit_due = now.saturating_add(every);
        self.commit_passed()
    }

    /// Publishes a commit of what later polls have passed.
    pub(super) fn commit_passed(&mut self) -> Result<()> {
        self.commit_owned(Self::publish_soon)
    }

    /// Commits what later polls have passed. A partition that is taken away in this moment, be it
    /// that its topic is deleted, keeps no other from being committed: the new owner reads it again,
    /// and the next poll follows the plan.
    fn commit_owned(
        &mut self,
        commit: impl Fn(&mut Self, &[(usize, u64)], Rewinds) -> Result<()>,
    ) -> Result<()> {
        let mut positions = self.passed();
        loop {
            let committed = commit(self, &positions, Rewinds::AfterSeek);
            if !matches!(committed, Err(Error::Rebalanced { .. } | Error::UnknownTopic(_))) {
                return committed;
            }
            let before = positions.len();
            let is_owned = |index| self.slots.get(index).is_some_and(|slot| self.is_owned(slot));
            positions.retain(|&(index, _)| is_owned(index));
            if positions.len() == before {
                return committed;
            }
        }
    }

    /// Whether the partition still is what the slot was made for.
    fn is_owned(&self, slot: &Slot) -> bool {
        let is_member_owned = match &self.role {
            Role::Member(member) => member.epoch_of(slot.origin()) == slot.epoch,
            _ => true,
        };
        is_member_owned && !slot.core.is_closed()
    }

    /// What `close` commits: in auto mode, what later polls have passed.
    pub(super) fn commit_at_the_end(&mut self) -> Result<()> {
        match self.settings.commit {
            CommitMode::Manual => Ok(()),
            CommitMode::Auto { .. } => self.commit_owned(Self::commit_durably),
        }
    }

    // ---- the commit itself -------------------------------------------------------------------

    fn check_commits(&self) -> Result<()> {
        match self.role {
            Role::Reader => Err(no_commits()),
            _ => self.run.gate().check_open().and_then(|()| self.run.gate().check_writable()),
        }
    }

    /// Commits, and waits for the disk where the broker's level does.
    fn commit_durably(&mut self, positions: &[(usize, u64)], rewinds: Rewinds) -> Result<()> {
        self.commit_in_order(
            positions,
            rewinds,
            Wait::at_level(self.run.context().settings.durability),
        )
    }

    /// Commits without waiting for the disk.
    fn publish_soon(&mut self, positions: &[(usize, u64)], rewinds: Rewinds) -> Result<()> {
        self.commit_in_order(positions, rewinds, Wait::No)
    }

    /// Commits all or none, but for partitions whose records cannot be made durable.
    fn commit_in_order(
        &mut self,
        positions: &[(usize, u64)],
        rewinds: Rewinds,
        wait: Wait,
    ) -> Result<()> {
        self.check_commits()?;
        let (ready, failed) = Ready::each(self.commits(positions, rewinds)?, wait);
        if ready.is_empty() {
            return failed;
        }
        let stored = match &self.role {
            Role::Reader => return Err(no_commits()),
            Role::Standalone(group) => self.run.coordinator().commit(group, &ready)?,
            Role::Member(member) => member.commit(&ready)?,
        };
        let done = ready.iter().map(|it| (self.index_of(it.partition), it.committed.offset));
        for (index, offset) in done.collect::<Vec<_>>() {
            if let Some(slot) = index.ok().and_then(|index| self.slots.get_mut(index)) {
                slot.note_commit(offset, rewinds == Rewinds::OnPurpose);
            }
        }
        failed.and(stored.settle(wait))
    }

    /// The commits of these positions, checked.
    fn commits(&self, positions: &[(usize, u64)], rewinds: Rewinds) -> Result<Vec<Commit<'_>>> {
        let mut commits = Vec::with_capacity(positions.len());
        for &(index, offset) in positions {
            let Some(slot) = self.slots.get(index) else { continue };
            check_topic(slot)?;
            if let Some(cut) = slot.unreported_cut() {
                return Err(cut);
            }
            let (start, end) = (slot.core.log_start(), slot.core.log_end());
            if offset > end {
                return Err(Error::out_of_range(slot.origin(), offset, start, end));
            }
            if rewinds == Rewinds::AfterSeek && offset < slot.floor {
                continue;
            }
            let commit = Commit::at(&slot.core, slot.topic.id, offset);
            commits.push(Commit { partition: slot.origin(), epoch: slot.epoch, ..commit });
        }
        Ok(commits)
    }

    pub(super) fn group(&self) -> Option<&Arc<str>> {
        match &self.role {
            Role::Reader => None,
            Role::Standalone(group) => Some(group),
            Role::Member(member) => Some(member.group()),
        }
    }
}

/// The broker is open, so a partition that is closed was deleted with its topic. What is committed
/// for one that is unavailable stays.
fn check_topic(slot: &Slot) -> Result<()> {
    if slot.core.is_closed() {
        return Err(Error::UnknownTopic(slot.topic.name.as_ref().to_owned()));
    }
    slot.core.log().status().check_available()
}

fn no_commits() -> Error {
    Error::config("group", "a reader has no commits")
}

//! Which positions a consumer commits, and whether it may.
//!
//! Owns: nothing; it is a view of one consumer's positions in its group. Must not know: when auto
//! mode commits. [`group::commit`](crate::group::commit) has the order in which records and commits
//! become durable.

#[cfg(feature = "async")]
use std::sync::Arc;
use std::{fmt, ptr};

use super::gaps::Gaps;
use super::pending::Pending;
use super::role::Role;
#[cfg(feature = "testing")]
use super::seen::CommitCall;
use super::settings::Settings;
use super::slot::Slot;
use super::slot_maker::{SlotMaker, committed_of};
use super::slots::Slots;
use crate::broker::Run;
use crate::config::StartAt;
use crate::error::{Error, Result};
use crate::group::commit::{Commit, Ready, Stored, Wait};
use crate::message::Message;
#[cfg(feature = "async")]
use crate::partition::{copies::Copies, durable_wait::DurableWait};
use crate::record::{Offsets, TopicPartition};

/// Slots by their index, and the next offset to read of each.
type Positions = Vec<(usize, u64)>;

/// What a call commits.
#[derive(Debug)]
pub(super) struct Wanted {
    positions: Positions,
    rewinds: Rewinds,
}

/// Whether a commit may be lower than an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rewinds {
    /// The caller names the offset, or has moved the position.
    OnPurpose,
    /// Only if a seek has moved the position back; otherwise the earlier commit stays.
    AfterSeek,
}

/// The second argument of the callback of
/// [`on_rebalance`](crate::ConsumerBuilder::on_rebalance): by it the callback commits for its
/// consumer, and gets and sets its positions.
///
/// A sink that stores its offsets with its results, in one transaction of a database, begins where
/// the database says, before the first message of a partition is returned:
///
/// ```
/// # use logpond::{Broker, Rebalance, Record, StartAt, TopicConfig, TopicPartition};
/// # use std::time::Duration;
/// # let broker = Broker::in_memory()?;
/// # broker.ensure_topic("orders", TopicConfig::new(1))?;
/// # for value in ["a", "b", "c"] { broker.producer().send(Record::to("orders").value(value))?; }
/// # let offset_in_database = |_: &TopicPartition| 2;
/// let sink = broker.consumer("sink").subscribe(["orders"]);
/// let mut sink = sink
///     .on_rebalance(move |event, commits| {
///         if let Rebalance::Assigned(partitions) = event {
///             for partition in partitions {
///                 let next = StartAt::Offset(offset_in_database(partition));
///                 commits.seek(partition, next).expect("an assigned partition");
///             }
///         }
///     })
///     .open()?;
/// assert_eq!(sink.recv()?.value(), Some(&b"c"[..]));
/// # Ok::<(), logpond::Error>(())
/// ```
pub struct Commits<'a> {
    run: &'a Run,
    role: &'a Role,
    settings: &'a Settings,
    slots: &'a mut Slots,
    gaps: &'a Gaps,
    pending: &'a mut Pending,
    maker: &'a mut SlotMaker,
}

impl<'a> Commits<'a> {
    pub(super) fn new(
        (run, role, settings): (&'a Run, &'a Role, &'a Settings),
        slots: &'a mut Slots,
        gaps: &'a Gaps,
        pending: &'a mut Pending,
        maker: &'a mut SlotMaker,
    ) -> Self {
        Self { run, role, settings, slots, gaps, pending, maker }
    }

    /// Commits these offsets for the group of the consumer. Each is that of the next record to
    /// read.
    ///
    /// # Errors
    ///
    /// Nothing is committed after any of these, except after a failed sync. [`Error::Rebalanced`]:
    /// the member does not own a partition any more, for example one that is
    /// [`Lost`](super::Rebalance::Lost). [`Error::OffsetOutOfRange`]: an offset is higher than the
    /// log end offset. [`Error::Truncated`], [`Error::Fenced`], [`Error::UnknownTopic`],
    /// [`Error::SyncFailed`], [`Error::Poisoned`], [`Error::StorageFull`], [`Error::Io`],
    /// [`Error::ReadOnly`], [`Error::Corrupt`], [`Error::Forked`], [`Error::Closed`]:
    /// [`Consumer::commit_offsets`](super::Consumer::commit_offsets) describes them.
    ///
    /// # Durability
    ///
    /// At broker level [`Durability::Sync`](crate::Durability::Sync): on return first the records
    /// and then the commit are on stable storage. At the other levels the commit survives the death
    /// of the process.
    ///
    /// # Blocking
    ///
    /// At broker level `Sync`, for syncs of the disk. On a replicated broker, for a majority of the
    /// members.
    pub fn commit(&mut self, offsets: &Offsets) -> Result<()> {
        let wanted = self.offsets(offsets)?;
        self.make(&wanted, self.level())
    }

    /// Returns the offset of the next record that the consumer would return; all messages that it
    /// has returned are below. `None` if it does not read the partition.
    #[must_use]
    pub fn position(&self, partition: impl Into<TopicPartition>) -> Option<u64> {
        let index = self.slots.index_of(&partition.into()).ok()?;
        self.slots.get(index).map(|slot| slot.progress.handed_out())
    }

    /// Sets the position of a partition of this consumer, as
    /// [`Consumer::seek`](super::Consumer::seek) does. The next message of it is read from there.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownPartition`] if the partition is not assigned to this consumer;
    /// [`Error::NoOffset`] for [`StartAt::Error`]; [`Error::Corrupt`] and [`Error::Io`] if a time
    /// could not be looked up.
    ///
    /// # Blocking
    ///
    /// For the disk with [`StartAt::Time`].
    pub fn seek(&mut self, partition: impl Into<TopicPartition>, to: StartAt) -> Result<()> {
        self.move_to(&partition.into(), to)
    }

    /// Stops reading these partitions until [`Consumer::resume`](super::Consumer::resume). The
    /// consumer still owns them.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownPartition`] if one is not assigned; then none is paused.
    pub fn pause<P: Into<TopicPartition>>(
        &mut self,
        partitions: impl IntoIterator<Item = P>,
    ) -> Result<()> {
        self.slots.set_paused(partitions, true)
    }

    fn move_to(&mut self, partition: &TopicPartition, to: StartAt) -> Result<()> {
        if self.pending.contains(partition) {
            // The member owns it, and it has waited for a position.
            let mut slot = self.maker.make(self.run, self.role, partition)?;
            slot.start_at(to, self.settings)?;
            let committed = committed_of(self.run, self.role, &slot);
            let handed_out = slot.progress.handed_out();
            slot.commits
                .take_from(committed.map_or(0, |committed| committed.offset.min(handed_out)));
            self.pending.remove(partition);
            self.slots.add([slot]);
            return Ok(());
        }
        let index = self.slots.index_of(partition)?;
        if let Some(slot) = self.slots.get_mut(index) {
            slot.start_at(to, self.settings)?;
            // Only a seek back allows a lower commit, and only down to its target.
            slot.commits.take_from_at_most(slot.progress.handed_out());
        }
        Ok(())
    }

    /// The wait of a commit at the broker's level.
    pub(super) fn level(&self) -> Wait {
        Wait::at_level(self.run.context().settings.durability)
    }

    /// The position of each slot: everything that was returned.
    pub(super) fn everything(&self) -> Wanted {
        Wanted { positions: self.handed_out(), rewinds: Rewinds::OnPurpose }
    }

    /// The same, for a commit that does not wait: without what the group has committed before, and of which
    /// a new leader does not know yet that a majority has it.
    pub(super) fn everything_now(&self) -> Wanted {
        let mut wanted = self.everything();
        wanted.positions.retain(|&(index, offset)| {
            let is_kept = |slot: &Slot| {
                let committed = || committed_of(self.run, self.role, slot);
                is_certain(slot, offset) || committed().is_none_or(|it| it.offset != offset)
            };
            self.slots.get(index).is_some_and(is_kept)
        });
        wanted
    }

    /// These offsets.
    pub(super) fn offsets(&self, offsets: &Offsets) -> Result<Wanted> {
        self.check()?;
        let position = |(partition, &offset): (_, &u64)| Ok((self.index_of(partition)?, offset));
        let positions = offsets.iter().map(position).collect::<Result<Positions>>()?;
        Ok(Wanted { positions, rewinds: Rewinds::OnPurpose })
    }

    /// One message and everything before it in its partition; never below a higher commit, unless a
    /// seek moved the position back.
    pub(super) fn message(&self, message: &Message) -> Result<Wanted> {
        self.check()?;
        let index = self.index_of(&message.topic_partition())?;
        // The committed offset may be above the message by now: another member has committed.
        if self.role.is_member()
            && self.slots.get(index).is_some_and(|slot| !slot.has_read(message))
        {
            return Err(Error::Rebalanced { partition: message.topic_partition() });
        }
        let positions = vec![(index, message.next_offset())];
        Ok(Wanted { positions, rewinds: Rewinds::AfterSeek })
    }

    /// Commits, and waits as it says.
    pub(super) fn make(&mut self, wanted: &Wanted, wait: Wait) -> Result<()> {
        let made = self.commit_in_order(&wanted.positions, wanted.rewinds, wait);
        made.inspect_err(|_| self.run.context().env.trace.deliver())
    }

    /// Commits what later polls have passed. If a partition is taken away at this moment, also
    /// because its topic is deleted, the others are committed all the same: the new owner reads it
    /// again, and the next poll follows the plan.
    pub(super) fn commit_passed(&mut self, wait: Wait) -> Result<()> {
        let mut positions = self.passed();
        loop {
            let committed = self.commit_in_order(&positions, Rewinds::AfterSeek, wait);
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

    /// Whether a later poll has passed anything that is not committed.
    pub(super) fn has_passed(&self) -> bool {
        !self.passed().is_empty()
    }

    // ---- which positions ---------------------------------------------------------------------

    /// The positions that `commit` covers. Without a group plan, a deleted topic is left out, and
    /// the others are committed; a member gets its plan instead. An unavailable partition has
    /// returned nothing.
    fn handed_out(&self) -> Positions {
        let is_left = |slot: &Slot| !slot.core().is_closed();
        let takes_all = self.role.is_member() || !self.slots.iter().any(is_left);
        let slots = (0..).zip(self.slots.iter()).filter(|(_, slot)| takes_all || is_left(slot));
        let reported = slots.filter(|(_, slot)| slot.failure.unreported_cut().is_none());
        let reported = reported.filter(|(_, slot)| !self.gaps.awaits_poll(slot.origin()));
        let reported = reported.filter(|(_, slot)| slot.core().is_available());
        reported.map(|(index, slot)| (index, slot.progress.handed_out())).collect()
    }

    /// The positions that auto-commit covers: what a later poll has passed, if it is not committed
    /// yet.
    fn passed(&self) -> Positions {
        let is_news = |slot: &Slot| {
            !slot.commits.is_last(slot.progress.passed())
                && !slot.core().is_closed()
                && slot.core().is_available()
                && slot.failure.unreported_cut().is_none()
                && is_certain(slot, slot.progress.passed())
        };
        let slots = (0..).zip(self.slots.iter()).filter(|(_, slot)| is_news(slot));
        slots.map(|(index, slot)| (index, slot.progress.passed())).collect()
    }

    /// The slot of a partition.
    fn index_of(&self, partition: &TopicPartition) -> Result<usize> {
        self.slots.index_of(partition).map_err(|unknown| {
            // Taken away by the group, or never here.
            if self.role.is_member() {
                Error::Rebalanced { partition: partition.clone() }
            } else {
                unknown
            }
        })
    }

    /// Whether the partition is still this consumer's: a member owns it under the slot's ownership.
    fn is_owned(&self, slot: &Slot) -> bool {
        let is_same = slot.epoch().is_some() && self.role.epoch_of(slot.origin()) == slot.epoch();
        (is_same || !self.role.is_member()) && !slot.core().is_closed()
    }

    // ---- the commit itself -------------------------------------------------------------------

    fn check(&self) -> Result<()> {
        if let Role::Reader = self.role {
            return Err(no_commits());
        }
        self.run.gate().check_open()?;
        self.run.gate().check_writable()?;
        self.run.leading().check()
    }

    /// Commits all or none, but for partitions whose records cannot be made durable. A test may have
    /// other wishes.
    #[cfg(feature = "testing")]
    fn commit_in_order(
        &mut self,
        positions: &[(usize, u64)],
        rewinds: Rewinds,
        wait: Wait,
    ) -> Result<()> {
        let call = self.seen(positions);
        let result = match call.begin() {
            Ok(after) => after.end(self.commit_now(positions, rewinds, wait)),
            Err(error) => Err(error),
        };
        call.end(result)
    }

    /// A commit of these positions, as a test sees it.
    #[cfg(feature = "testing")]
    fn seen(&self, positions: &[(usize, u64)]) -> CommitCall {
        let named = |&(index, offset): &(usize, u64)| {
            Some((self.slots.get(index)?.origin().clone(), offset))
        };
        let offsets = positions.iter().filter_map(named).collect();
        CommitCall::new(&self.run.context().env.seams, self.role, offsets)
    }

    #[cfg(not(feature = "testing"))]
    fn commit_in_order(
        &mut self,
        positions: &[(usize, u64)],
        rewinds: Rewinds,
        wait: Wait,
    ) -> Result<()> {
        self.commit_now(positions, rewinds, wait)
    }

    /// Commits all or none, but for partitions whose records cannot be made durable.
    fn commit_now(
        &mut self,
        positions: &[(usize, u64)],
        rewinds: Rewinds,
        wait: Wait,
    ) -> Result<()> {
        self.check()?;
        let (ready, failed) = Ready::each(self.commits(positions, rewinds)?, wait);
        if ready.is_empty() {
            return failed;
        }
        let (stored, noted) = self.store(&ready, positions)?;
        self.note(&noted, rewinds);
        failed.and(stored.settle(wait))
    }

    /// Publishes the commits, which are of some of these positions, and says of which.
    fn store(
        &self,
        ready: &Ready<'_>,
        positions: &[(usize, u64)],
    ) -> Result<(Stored<'a>, Positions)> {
        let stored = match self.role {
            Role::Reader => return Err(no_commits()),
            Role::Standalone(group) => self.run.coordinator().commit(group, ready)?,
            Role::Member(member) => member.commit(ready)?,
        };
        Ok((stored, self.positions_of(ready.iter(), positions)))
    }

    /// These positions are committed.
    fn note(&mut self, committed: &[(usize, u64)], rewinds: Rewinds) {
        for &(index, offset) in committed {
            if let Some(slot) = self.slots.get_mut(index) {
                slot.commits.note(offset, rewinds == Rewinds::OnPurpose);
            }
        }
    }

    /// Those of the positions that these commits are of; both have the same order.
    fn positions_of<'c>(
        &self,
        commits: impl Iterator<Item = &'c Commit<'c>>,
        positions: &[(usize, u64)],
    ) -> Positions {
        let mut commits = commits.peekable();
        let has_commit = |&&(index, _): &&(usize, u64)| {
            let origin = self.slots.get(index).map(Slot::origin);
            let is_same = |next: &&Commit<'_>| origin.is_some_and(|it| ptr::eq(it, next.partition));
            commits.next_if(is_same).is_some()
        };
        positions.iter().filter(has_commit).copied().collect()
    }

    /// The commits of these positions, checked.
    fn commits(&self, positions: &[(usize, u64)], rewinds: Rewinds) -> Result<Vec<Commit<'_>>> {
        let mut commits = Vec::with_capacity(positions.len());
        for &(index, offset) in positions {
            let Some(slot) = self.slots.get(index) else { continue };
            check_topic(slot)?;
            if let Some(cut) = slot.failure.unreported_cut() {
                return Err(cut);
            }
            let (start, end) = (slot.core().log_start(), slot.core().log_end());
            if offset > end {
                return Err(Error::out_of_range(slot.origin(), offset, start, end));
            }
            if rewinds == Rewinds::AfterSeek && !slot.commits.takes(offset) {
                continue;
            }
            let commit = Commit::at(slot.core(), slot.topic().id, offset);
            commits.push(Commit { partition: slot.origin(), epoch: slot.epoch(), ..commit });
        }
        Ok(commits)
    }
}

// ---- for a task, which must not be kept waiting ------------------------------------------------

#[cfg(feature = "async")]
impl Commits<'_> {
    /// This commit, as a test sees it.
    #[cfg(feature = "testing")]
    pub(super) fn seen_wanted(&self, wanted: &Wanted) -> CommitCall {
        self.seen(&wanted.positions)
    }

    /// What is waited for before the commit is stored: that the records below it are durable, and that
    /// a majority of a replicated group has them. Of `wanted` are left the positions that a wait is for, in the same order.
    pub(super) fn waits(&self, wanted: &mut Wanted) -> Result<Vec<DurableWait>> {
        self.check()?;
        let commits = self.commits(&wanted.positions, wanted.rewinds)?;
        wanted.positions = self.positions_of(commits.iter(), &wanted.positions);
        let is_synced = self.level() == Wait::ForDisk;
        let slot = |&(index, offset): &(usize, u64)| Some((self.slots.get(index)?, offset));
        let wait = |(slot, offset): (&Slot, u64)| {
            let (core, copies) = (Arc::clone(slot.core()), Copies::below(slot.core(), offset));
            if is_synced {
                DurableWait::new(core, offset).and(copies)
            } else {
                DurableWait::of_copies(core, offset, copies)
            }
        };
        let waits: Vec<_> = wanted.positions.iter().filter_map(slot).map(wait).collect();
        let has_to = is_synced || waits.iter().any(|wait| wait.copies().is_awaited());
        Ok(if has_to { waits } else { Vec::new() })
    }

    /// Stores the commit after those waits, whose results these are. Returns the first failure
    /// of a partition, and what is waited for until the commit itself is durable.
    pub(super) fn store_after(
        &mut self,
        mut wanted: Wanted,
        results: Vec<Result<()>>,
    ) -> Result<(Result<()>, Option<DurableWait>)> {
        self.check()?;
        let (level, mut results) = (self.level(), results.into_iter());
        let mut failed = Ok(());
        wanted.positions.retain(|(index, _)| {
            let result = results.next().unwrap_or(Ok(()));
            let is_durable = result.is_ok();
            if let (Some(slot), true) = (self.slots.get(*index), failed.is_ok() && !is_durable) {
                failed = Err(Copies::refused(slot.core(), result));
            }
            is_durable
        });
        let commits = self.commits(&wanted.positions, wanted.rewinds)?;
        let (ready, refused) = match level {
            Wait::ForDisk => Ready::each_durable_now(commits),
            // What there is to wait for was waited for.
            Wait::ForCopies | Wait::No => Ready::each(commits, Wait::No),
        };
        let failed = failed.and(refused);
        if ready.is_empty() {
            return Ok((failed, None));
        }
        let (stored, noted) = self.store(&ready, &wanted.positions)?;
        self.note(&noted, wanted.rewinds);
        Ok((failed, stored.into_wait(level)))
    }
}

impl fmt::Debug for Commits<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commits")
            .field("group", &self.role.group())
            .field("assignment", &self.slots.partitions())
            .finish_non_exhaustive()
    }
}

/// The broker is open, so a closed partition was deleted with its topic. The commit of an
/// unavailable partition is kept.
fn check_topic(slot: &Slot) -> Result<()> {
    if slot.core().is_closed() {
        return Err(Error::UnknownTopic(slot.topic().name.as_ref().to_owned()));
    }
    slot.core().log().status().check_available()
}

/// Whether a majority of a replicated group is known to have the records below an offset.
fn is_certain(slot: &Slot, offset: u64) -> bool {
    offset <= slot.core().log().ends().watermark()
}

fn no_commits() -> Error {
    Error::config("group", "a reader without a group cannot commit; open a consumer of a group")
}

//! The one way to commit an offset: first the records become durable, then the commit.
//!
//! Three steps, each of which takes the result of the step before, so that none can be left out:
//!
//! 1. [`Ready`]: the records below each offset are under the high watermark, which is waited for if
//!    the caller waits at all, and durable, as far as it waits for the disk. If a commit survived a power cut, or another leader, and its
//!    records did not, the group would skip the records that get these offsets next.
//! 2. [`store`]: the commits are checked once more and published, all or none, while a [`Permit`]
//!    prevents the partitions from changing owners.
//! 3. [`Stored`]: the commits are durable, as far as the caller waits for the disk.
//!
//! `commit*`, auto mode, the beginning of a group and `reset_offsets` all use it. Must not know:
//! who commits, and why.

use std::sync::Arc;

use super::interest::Wanted;
use super::members::Members;
use super::offset_store::OffsetStore;
use super::offsets::{Committed, OffsetChange, OffsetsState};
use super::owners::OwnershipEpoch;
use super::table::GroupTable;
use crate::config::Durability;
use crate::error::{Error, Result};
use crate::format::TopicId;
use crate::partition::copies::Copies;
#[cfg(feature = "async")]
use crate::partition::durable_wait::DurableWait;
use crate::partition::lead::LedEpoch;
use crate::partition::{PartitionCore, together};
use crate::record::TopicPartition;
use crate::rules::Rule;
use crate::sync::MutexGuard;

/// What is to be committed for one partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Commit<'a> {
    pub(crate) partition: &'a TopicPartition,
    pub(crate) topic: TopicId,
    pub(crate) core: &'a PartitionCore,
    pub(crate) committed: Committed,
    /// The ownership under which it is made; `None` for a consumer that assigned by hand.
    pub(crate) epoch: Option<OwnershipEpoch>,
}

impl<'a> Commit<'a> {
    /// A commit of an offset of the partition as it is now, under no ownership.
    pub(crate) fn at(core: &'a PartitionCore, topic: TopicId, offset: u64) -> Self {
        let (leader_epoch, incarnation) = core.log().incarnation();
        let committed = Committed { offset, leader_epoch, incarnation };
        Self { partition: &core.origin, topic, core, committed, epoch: None }
    }

    /// Whether the records below it cannot be lost any more to a leader that does not have them. If
    /// a position outlived its records, the group would skip the records that get their offsets.
    fn is_below_watermark(&self) -> bool {
        self.committed.offset <= self.core.log().ends().watermark()
    }

    /// What it waits for until it is. Right after a change of the leader that may take a moment also for
    /// what the group had committed before: the new leader has the records, and does not know yet that
    /// a majority has.
    fn copies(&self, wait: Wait) -> Copies {
        if wait == Wait::No || self.committed.offset > self.core.log_end() {
            return Copies::default();
        }
        Copies::below(self.core, self.committed.offset)
    }

    /// Why it is not stored, after that wait.
    fn refused(&self, waited: Result<()>) -> Error {
        let (offset, start, end) =
            (self.committed.offset, self.core.log_start(), self.core.log_end());
        if offset > end {
            return Error::out_of_range(self.partition, offset, start, end);
        }
        Copies::refused(self.core, waited)
    }
}

/// How far a step of a commit is taken before it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// To stable storage, and, in a replicated group, until a majority has it.
    ForDisk,
    /// As [`No`](Self::No), but in a replicated group until a majority has it.
    ForCopies,
    /// It is published; a background sync follows if the broker makes any.
    No,
}

impl Wait {
    /// The wait of a call that commits at the broker's level.
    pub(crate) fn at_level(durability: Durability) -> Self {
        if durability == Durability::Sync { Self::ForDisk } else { Self::ForCopies }
    }
}

/// Commits whose records are as durable as the caller wants them. Only such commits are stored.
#[derive(Debug)]
pub(crate) struct Ready<'a>(Vec<Commit<'a>>);

impl<'a> Ready<'a> {
    /// Those of the commits whose records are durable, and the first failure of the others.
    pub(crate) fn each(mut commits: Vec<Commit<'a>>, wait: Wait) -> (Self, Result<()>) {
        let certain = retain_certain(&mut commits, wait);
        let (ready, failed) = Self::each_durable(commits, wait);
        (ready, certain.and(failed))
    }

    /// Those of the commits whose records are durable now, and the first failure of the others; for
    /// a caller that has waited before.
    #[cfg(feature = "async")]
    pub(crate) fn each_durable_now(commits: Vec<Commit<'a>>) -> (Self, Result<()>) {
        let (Self(mut commits), mut failed) = Self::each(commits, Wait::No);
        commits.retain(|commit| {
            let is_durable = commit.core.durable_end() >= commit.committed.offset;
            if !is_durable && failed.is_ok() {
                // The log was cut since, and the records were waited for in vain.
                failed = Err(Error::Timeout);
            }
            is_durable
        });
        (Self(commits), failed)
    }

    fn each_durable(commits: Vec<Commit<'a>>, wait: Wait) -> (Self, Result<()>) {
        if wait != Wait::ForDisk || !Rule::RecordsBeforeCommit.holds() {
            return (Self(commits), Ok(()));
        }
        let records = |commit: &Commit<'a>| (commit.core, commit.committed.offset);
        let records: Vec<_> = commits.iter().map(records).collect();
        // DURABILITY: before the commit is stored, or a power cut could keep it without them.
        let answers = together::wait_durable(&records);
        let (mut ready, mut failed) = (Vec::with_capacity(commits.len()), Ok(()));
        for (commit, durable) in commits.into_iter().zip(answers) {
            match durable {
                Ok(()) => ready.push(commit),
                Err(error) => failed = failed.and(Err(error)),
            }
        }
        (Self(ready), failed)
    }

    /// All of the commits.
    ///
    /// # Errors
    ///
    /// The first failure of those whose records cannot be made durable.
    pub(crate) fn all(commits: Vec<Commit<'a>>, wait: Wait) -> Result<Self> {
        let (ready, failed) = Self::each(commits, wait);
        failed.map(|()| ready)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Commit<'a>> {
        self.0.iter()
    }
}

/// Retains the commits whose records a majority has, once those are waited for that have to. Returns the
/// first failure of the others.
fn retain_certain(commits: &mut Vec<Commit<'_>>, wait: Wait) -> Result<()> {
    if commits.iter().all(Commit::is_below_watermark) {
        return Ok(());
    }
    // The time of all of them begins now.
    let copies: Vec<_> = commits.iter().map(|commit| commit.copies(wait)).collect();
    let (mut copies, mut certain) = (copies.into_iter(), Ok(()));
    commits.retain(|commit| {
        let waited = copies.next().map_or(Ok(()), |copies| copies.wait(commit.core));
        let is_certain = commit.is_below_watermark();
        if !is_certain && certain.is_ok() {
            certain = Err(commit.refused(waited));
        }
        is_certain
    });
    certain
}

/// Commits that are published.
#[must_use = "they may have to be made durable"]
#[derive(Debug)]
pub(crate) struct Stored<'a> {
    offsets: &'a OffsetStore,
    /// The end of the offsets log after them.
    end: u64,
    /// The leadership under which they are stored.
    led: LedEpoch,
}

impl Stored<'_> {
    /// What a task waits for until they are durable, and a majority has them; `None`, and a request for
    /// the sync that makes them so, if the caller waits for neither.
    #[cfg(feature = "async")]
    pub(crate) fn into_wait(self, wait: Wait) -> Option<DurableWait> {
        let log = self.offsets.partition();
        if wait != Wait::ForDisk {
            log.sync_soon();
        }
        let copies = || Copies::of(log, self.end, self.led);
        match wait {
            Wait::ForDisk => Some(DurableWait::new(Arc::clone(log), self.end).and(copies())),
            Wait::ForCopies => Some(DurableWait::of_copies(Arc::clone(log), self.end, copies())),
            Wait::No => None,
        }
    }

    /// Makes them durable, or asks for the sync that does; and waits until a majority has them.
    pub(crate) fn settle(self, wait: Wait) -> Result<()> {
        let log = self.offsets.partition();
        match wait {
            // DURABILITY: the group must not go back below a commit that was acknowledged.
            Wait::ForDisk => Rule::CommitSync.keep(|| log.wait_durable(self.end))?,
            Wait::ForCopies | Wait::No => log.sync_soon(),
        }
        if wait == Wait::No { Ok(()) } else { Copies::of(log, self.end, self.led).wait(log) }
    }
}

/// The right to store offsets of a group. While it is held, no partition of the group changes its
/// owner.
pub(super) enum Permit<'a> {
    /// That of a member, for the partitions that it owns.
    Owner { _members: MutexGuard<'a, Members> },
    /// That of any caller, while the group has no live members.
    NoMembers { _groups: MutexGuard<'a, GroupTable> },
    /// That of a new subscription, which is stored with the commits, for partitions without a
    /// commit.
    FirstOf(&'a [Wanted]),
}

impl Permit<'_> {
    /// Checks that the right still exists. Nothing may happen between this and the append.
    fn check(&self, offsets: &OffsetsState, group: &str, commits: &Ready<'_>) -> Result<()> {
        let Self::FirstOf(subscriptions) = self else { return Ok(()) };
        let is_committed = |commit: &Commit<'_>| {
            offsets.get(group, commit.topic, commit.partition.partition).is_some()
        };
        if subscriptions.iter().any(|wanted| offsets.has_subscribed(group, wanted))
            || commits.iter().any(is_committed)
        {
            // No application sees it: the caller looks again at the topics that remain.
            let partition = commits.iter().next().map(|commit| commit.partition.clone());
            let partition = partition.unwrap_or_else(|| (group, 0).into());
            return Err(Error::Rebalanced { partition });
        }
        Ok(())
    }
}

/// The commits that are to be recorded: all but those that a member has made before. A consumer that
/// commits after each poll commits every partition, and most have not moved.
///
/// Only its member changes the commits of a partition, so what is found here remains, and the
/// caller waits for the end of the log, below which the record is. A group with a member is in use,
/// whether it commits or not; that of a consumer without one is not, so there each commit counts.
fn news<'c>(
    offsets: &OffsetStore,
    group: &str,
    commits: &'c Ready<'_>,
    permit: &Permit<'_>,
) -> Vec<&'c Commit<'c>> {
    let Permit::Owner { .. } = permit else { return commits.iter().collect() };
    offsets.log().read(|state| {
        let known = state.of_group(group);
        let is_news = |commit: &&Commit<'_>| {
            let key = (commit.topic, commit.partition.partition);
            known.and_then(|known| known.get(&key)) != Some(&commit.committed)
        };
        commits.iter().filter(is_news).collect()
    })
}

/// Appends commits, unless one of the topics is deleted. A deletion removes a topic's commits in an
/// append after its partitions were closed, so no commit can follow it. The caller
/// [tidies](OffsetStore::tidy) when its locks are released.
///
/// # Errors
///
/// [`Error::UnknownTopic`], [`Error::Rebalanced`] where the permit does not hold any more, and
/// [`Error::NotLeader`]; nothing is stored then.
pub(super) fn store<'a>(
    offsets: &'a OffsetStore,
    group: &Arc<str>,
    commits: &Ready<'_>,
    permit: Permit<'_>,
) -> Result<Stored<'a>> {
    // Before the append: if that comes under a later leadership, this one has ended.
    let led = offsets.lead().check()?;
    let change = |commit: &Commit<'_>| OffsetChange::Commit {
        group: Arc::clone(group),
        topic: commit.topic,
        partition: commit.partition.partition,
        committed: commit.committed,
    };
    let mut changes: Vec<_> =
        news(offsets, group, commits, &permit).into_iter().map(change).collect();
    if changes.is_empty() {
        // Nothing is appended that would find it: after a failed sync, what was stored before may
        // be lost.
        offsets.log().check_writable()?;
    }
    if let Permit::FirstOf(subscriptions) = &permit {
        // They are last: a subscription that is found after a crash has all of its commits before
        // it.
        changes.extend(subscriptions.iter().map(|wanted| OffsetChange::Subscribed {
            group: Arc::clone(group),
            wanted: wanted.clone(),
        }));
    }
    let end = offsets.log().append_if(changes, |state| {
        match commits.iter().find(|commit| commit.core.is_closed()) {
            Some(gone) => Err(Error::UnknownTopic(gone.partition.topic.as_ref().to_owned())),
            None => permit.check(state, group, commits),
        }
    });
    // Not before: no partition may get another owner between the check and the append.
    drop(permit);
    Ok(Stored { offsets, end: end?, led })
}

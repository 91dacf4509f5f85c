//! Administration of groups: lists, describes, resets and deletes them.

use std::sync::Arc;

use serde::Serialize;

use super::Admin;
use crate::config::{StartAt, Visibility};
use crate::error::{Error, Result};
use crate::format::validate_label;
use crate::group::assignor::Assignor;
use crate::group::commit::{Commit, Ready, Wait};
use crate::group::inspect::{self, GroupView};
use crate::group::progress::{self, TopicTable};
pub use crate::group::progress::{GroupOffset, GroupStatus};
use crate::partition::PartitionCore;
use crate::record::{Offsets, TopicPartition};
use crate::topic::TopicShared;

/// The description of a consumer group that [`Admin::describe_group`] returns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct GroupInfo {
    /// The group's name.
    pub name: Arc<str>,
    /// Whether it has members, and whether a rebalance is running.
    pub state: GroupStatus,
    /// How its partitions are divided among the members; `None` while it has no member.
    pub assignor: Option<Assignor>,
    /// The number of rebalances since the broker was opened.
    pub generation: u64,
    /// In the order of joining: open consumers, and static members whose partitions are kept for
    /// them.
    pub members: Vec<GroupMember>,
    /// One entry per partition with a commit or an owner, and per partition of a topic that the
    /// group has ever subscribed to, by name or by pattern.
    pub offsets: Vec<GroupOffset>,
}

/// The description of a member of a group, in a [`GroupInfo`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct GroupMember {
    /// A number that no other member has since the broker was opened.
    pub id: u64,
    /// The [`instance_id`](crate::ConsumerBuilder::instance_id) of a static member.
    pub instance_id: Option<Arc<str>>,
    /// Whether its consumer is open. If not, its partitions are kept for the next one with its
    /// instance id.
    pub is_live: bool,
    /// The partitions that it owns, or that are kept for it.
    pub assignment: Vec<TopicPartition>,
}

impl Admin {
    /// Returns the descriptions of all groups that have members, a subscription or a commit, sorted
    /// by name.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`].
    #[doc(alias = "listConsumerGroups")]
    pub fn groups(&self) -> Result<Vec<GroupInfo>> {
        self.run().gate().check_open()?;
        let views = inspect::views(self.run().coordinator());
        let topics = TopicTable::new(&self.run().live().all(), views.iter().map(|(_, view)| view));
        Ok(views.into_iter().map(|(name, view)| describe(name, view, &topics)).collect())
    }

    /// Returns the description of a group: its members and their partitions, and the committed
    /// offset and lag for each partition.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownGroup`], [`Error::Closed`].
    #[doc(alias = "describeConsumerGroups")]
    pub fn describe_group(&self, name: &str) -> Result<GroupInfo> {
        self.run().gate().check_open()?;
        let view = inspect::view(self.run().coordinator(), name)?;
        let topics = TopicTable::new(&self.run().live().all(), [&view]);
        Ok(describe(name.into(), view, &topics))
    }

    /// Sets a group's committed offset for every partition of a topic, and returns the new ones. An
    /// offset that a log does not have becomes the nearest end of the log. A group that does not
    /// exist is created by it, and then begins there.
    ///
    /// # Errors
    ///
    /// Nothing is changed after any of them: [`Error::GroupNotEmpty`] while the group has live
    /// members, [`Error::InvalidName`] for the group's name, [`Error::UnknownTopic`],
    /// [`Error::Config`] for [`StartAt::Error`], [`Error::Corrupt`] if files of a partition are
    /// missing or unreadable, [`Error::ReadOnly`], [`Error::StorageFull`], [`Error::Closed`]. After
    /// [`Error::SyncFailed`] the offsets may be reset or not.
    ///
    /// On a replicated broker also [`Error::NotLeader`] and [`Error::NotEnoughReplicas`], and, when it is
    /// not known whether a majority of the members keeps the change, [`Error::LeadershipLost`] and
    /// [`Error::Timeout`].
    ///
    /// # Durability
    ///
    /// At broker level [`Durability::Sync`](crate::Durability::Sync): on return first the records
    /// and then the offsets are on stable storage. At the other levels the offsets survive the
    /// death of the process.
    ///
    /// # Blocking
    ///
    /// At broker level `Sync`, for a sync of each partition, up to eight of them at the same time.
    /// Also for the disk, to look up a time. On a replicated broker, for a majority of the members.
    #[doc(alias = "alterConsumerGroupOffsets")]
    pub fn reset_offsets(&self, group: &str, topic: &str, to: StartAt) -> Result<Offsets> {
        self.run().gate().check_writable()?;
        self.run().leading().check()?;
        let topic = self.run().topic(topic)?;
        let cores = topic.partitions.iter().map(|core| (&*topic, &**core));
        self.reset(group, cores, to)
    }

    /// Sets a group's committed offset for one partition, and returns it, as
    /// [`reset_offsets`](Self::reset_offsets) does for all of a topic.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownPartition`], and those of [`reset_offsets`](Self::reset_offsets).
    ///
    /// # Durability
    ///
    /// At broker level [`Durability::Sync`](crate::Durability::Sync): on return first the records
    /// and then the offset are on stable storage. At the other levels the offset survives the
    /// death of the process.
    ///
    /// # Blocking
    ///
    /// At broker level `Sync`, for a sync of the partition. Also for the disk, to look up a time. On a
    /// replicated broker, for a majority of the members.
    pub fn reset_partition(
        &self,
        group: &str,
        partition: impl Into<TopicPartition>,
        to: StartAt,
    ) -> Result<u64> {
        self.run().gate().check_writable()?;
        let partition = partition.into();
        let topic = self.run().topic(&partition.topic)?;
        let core = topic.partition(partition.partition)?;
        let offsets = self.reset(group, [(&*topic, &**core)], to)?;
        offsets.get(&partition).copied().ok_or(Error::UnknownPartition(partition))
    }

    /// Sets a group's committed offset in all partitions that [`describe_group`](Self::describe_group)
    /// lists, of all topics that it has subscribed to or committed in, by name or by pattern; and
    /// returns the new ones. For example, `StartAt::Time` lets the group read the last hour again.
    /// It is [`reset_offsets`](Self::reset_offsets) for several topics, all or none of them.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownGroup`], and those of [`reset_offsets`](Self::reset_offsets).
    ///
    /// # Durability
    ///
    /// At broker level [`Durability::Sync`](crate::Durability::Sync): on return first the records
    /// and then the offsets are on stable storage. At the other levels the offsets survive the
    /// death of the process.
    ///
    /// # Blocking
    ///
    /// At broker level `Sync`, for a sync of each partition, up to eight of them at the same time.
    /// Also for the disk, to look up a time. On a replicated broker, for a majority of the members.
    pub fn reset_group(&self, group: &str, to: StartAt) -> Result<Offsets> {
        self.run().gate().check_writable()?;
        self.run().leading().check()?;
        let view = inspect::view(self.run().coordinator(), group)?;
        let table = TopicTable::new(&self.run().live().all(), [&view]);
        let cores = progress::partitions_of(&view, &table);
        self.reset(group, cores.iter().map(|(topic, core, _)| (&***topic, &***core)), to)
    }

    fn reset<'p>(
        &self,
        group: &str,
        partitions: impl IntoIterator<Item = (&'p TopicShared, &'p PartitionCore)>,
        to: StartAt,
    ) -> Result<Offsets> {
        validate_label(group)
            .map_err(|reason| Error::InvalidName { name: group.to_owned(), reason })?;
        let wait = Wait::at_level(self.run().context().settings.durability);
        let (mut offsets, mut commits) = (Offsets::new(), Vec::new());
        for (topic, core) in partitions {
            core.log().status().check_available()?;
            let offset = offset_of(core, to)?;
            commits.push(Commit::at(core, topic.id, offset));
            offsets.insert(TopicPartition::clone(&core.origin), offset);
        }
        let commits = Ready::all(commits, wait)?;
        let stored = self.run().coordinator().reset(group, &commits)?;
        stored.settle(wait)?;
        Ok(offsets)
    }

    /// Deletes a group: its subscriptions and commits, and the static members whose partitions are
    /// kept.
    ///
    /// # Errors
    ///
    /// Nothing is changed after [`Error::GroupNotEmpty`] while the group has live members,
    /// [`Error::UnknownGroup`], [`Error::ReadOnly`] and [`Error::Closed`]. After
    /// [`Error::SyncFailed`] the group may be deleted or not.
    ///
    /// On a replicated broker also [`Error::NotLeader`] and [`Error::NotEnoughReplicas`], and, when it is
    /// not known whether a majority of the members keeps the change, [`Error::LeadershipLost`] and
    /// [`Error::Timeout`].
    ///
    /// # Durability
    ///
    /// On return the group stays deleted after any crash.
    ///
    /// # Blocking
    ///
    /// For a sync of the disk. On a replicated broker, for a majority of the members.
    #[doc(alias = "deleteConsumerGroups")]
    pub fn delete_group(&self, name: &str) -> Result<()> {
        self.run().gate().check_open()?;
        self.run().gate().check_writable()?;
        self.run().leading().check()?;
        self.run().coordinator().delete_group(name)
    }
}

/// Where a group begins that is sent to `to`.
fn offset_of(core: &PartitionCore, to: StartAt) -> Result<u64> {
    let (start, end) = (core.log_start(), core.visible_end(Visibility::Published));
    Ok(match to {
        StartAt::Earliest => start,
        StartAt::Latest => end,
        StartAt::Offset(offset) if core.log().ends().is_replicated() => {
            // Also what a new leader does not know yet that a majority has: the commit waits for that.
            offset.clamp(start, core.log_end().max(start))
        }
        StartAt::Offset(offset) => offset.clamp(start, end.max(start)),
        StartAt::Time(time) => core.reader().offset_at(time)?.map_or(end, |offset| offset.min(end)),
        StartAt::Error => {
            return Err(Error::config("to", "`StartAt::Error` names no offset; choose another"));
        }
    })
}

fn describe(name: Arc<str>, view: GroupView, topics: &TopicTable) -> GroupInfo {
    let state = progress::status_of(&view);
    let offsets = progress::offsets_of(&view, topics, |core| {
        core.log_start()..core.visible_end(Visibility::Published)
    });
    let members = view.members.into_iter().map(|member| GroupMember {
        id: member.id,
        instance_id: member.instance,
        is_live: member.is_live,
        assignment: member.assignment,
    });
    GroupInfo {
        name,
        state,
        assignor: view.assignor.filter(|_| state != GroupStatus::Empty),
        generation: view.generation,
        members: members.collect(),
        offsets,
    }
}

//! Groups, for an administrator.

use std::sync::Arc;

use serde::Serialize;

use super::Admin;
use crate::config::{Durability, StartAt, Visibility};
use crate::error::{Error, Result};
use crate::group::assignor::Assignor;
use crate::group::inspect::GroupView;
use crate::group::offsets::Committed;
use crate::group::progress::TopicTable;
pub use crate::group::progress::{GroupOffset, GroupStatus};
use crate::partition::{PartitionCore, together};
use crate::record::{Offsets, TopicPartition};
use crate::rules::Rule;

/// A consumer group as [`Admin::describe_group`] shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct GroupInfo {
    /// The group's name.
    pub name: Arc<str>,
    /// What it is doing.
    pub state: GroupStatus,
    /// How its members share their partitions; `None` while it has none.
    pub assignor: Option<Assignor>,
    /// Rises with each rebalance, from 0 when the broker is opened.
    pub generation: u64,
    /// In the order of joining: consumers, and static members that are waited for.
    pub members: Vec<GroupMember>,
    /// By partition: what is committed or assigned.
    pub offsets: Vec<GroupOffset>,
}

/// A member of a group as [`Admin::describe_group`] shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct GroupMember {
    /// Tells it apart from all others in this run of the broker.
    pub id: u64,
    /// The name of a static member.
    pub instance_id: Option<Arc<str>>,
    /// Whether there is a consumer; else the partitions wait for one of this name.
    pub is_live: bool,
    /// What it owns, or what waits for it.
    pub assignment: Vec<TopicPartition>,
}

impl Admin {
    /// Returns all groups that have members, a subscription or a commit, by name.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`].
    #[doc(alias = "listConsumerGroups")]
    pub fn groups(&self) -> Result<Vec<GroupInfo>> {
        self.run().gate().check_open()?;
        let topics = TopicTable::new(&self.run().live().all());
        let mut infos = Vec::new();
        for name in self.run().coordinator().group_names() {
            match self.run().coordinator().view(&name) {
                Ok(view) => infos.push(describe(name, view, &topics)),
                // Gone since its name was read.
                Err(Error::UnknownGroup(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(infos)
    }

    /// Returns one group: its members, what they own, and commits and lag by partition.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownGroup`], [`Error::Closed`].
    #[doc(alias = "describeConsumerGroups")]
    pub fn describe_group(&self, name: &str) -> Result<GroupInfo> {
        self.run().gate().check_open()?;
        let view = self.run().coordinator().view(name)?;
        Ok(describe(name.into(), view, &TopicTable::new(&self.run().live().all())))
    }

    /// Resets a group's committed offsets for every partition of a topic, and returns them. An
    /// offset out of range becomes the nearest end.
    ///
    /// # Errors
    ///
    /// Nothing is changed after any of them: [`Error::GroupNotEmpty`] while the group has live
    /// members, [`Error::UnknownGroup`], [`Error::UnknownTopic`], [`Error::Config`] for
    /// [`StartAt::Error`], [`Error::Corrupt`] for a partition that is unavailable,
    /// [`Error::ReadOnly`], [`Error::Closed`]. After [`Error::SyncFailed`] the offsets may be reset
    /// or not.
    ///
    /// # Durability
    ///
    /// At broker level [`Durability::Sync`]: on return first the records and then the offsets are
    /// on stable storage. At the other levels the offsets survive the death of the process.
    ///
    /// # Blocking
    ///
    /// At broker level `Sync`, for a sync of each partition, up to eight of them side by side. Also
    /// for the disk, to look up a time.
    #[doc(alias = "alterConsumerGroupOffsets")]
    pub fn reset_offsets(&self, group: &str, topic: &str, to: StartAt) -> Result<Offsets> {
        self.run().gate().check_writable()?;
        let topic = self.run().topic(topic)?;
        let waits = self.run().context().settings.durability == Durability::Sync;
        let target =
            |core: &Arc<PartitionCore>| core.check_available().and_then(|()| offset_of(core, to));
        let targets = topic.partitions.iter().map(target).collect::<Result<Vec<_>>>()?;
        if waits {
            let syncs = topic.partitions.iter().map(|core| &**core).zip(targets.iter().copied());
            let syncs: Vec<_> = syncs.collect();
            // DURABILITY: as a commit, never ahead of the records that it speaks of.
            let sync = || together::wait_durable(&syncs).into_iter().collect::<Result<()>>();
            Rule::RecordsBeforeReset.keep(sync)?;
        }
        let (mut offsets, mut changes) = (Offsets::new(), Vec::new());
        for (core, offset) in topic.partitions.iter().zip(targets) {
            let (leader_epoch, incarnation) = core.lineage();
            let committed = Committed { offset, leader_epoch, incarnation };
            changes.push((&**core, committed));
            offsets.insert(TopicPartition::clone(&core.origin), offset);
        }
        let coordinator = self.run().coordinator();
        let end = coordinator.replace_offsets(group, topic.id, &changes)?;
        if waits {
            Rule::ResetSync.keep(|| coordinator.offsets_partition().wait_durable(end))?;
        }
        Ok(offsets)
    }

    /// Deletes a group: its subscriptions and commits, and the static members that it waits for.
    ///
    /// # Errors
    ///
    /// Nothing is changed after [`Error::GroupNotEmpty`] while the group has live members,
    /// [`Error::UnknownGroup`], [`Error::ReadOnly`] and [`Error::Closed`]. After
    /// [`Error::SyncFailed`] the group may be deleted or not.
    ///
    /// # Durability
    ///
    /// On return the group is gone after any crash.
    ///
    /// # Blocking
    ///
    /// For a sync of the disk.
    #[doc(alias = "deleteConsumerGroups")]
    pub fn delete_group(&self, name: &str) -> Result<()> {
        self.run().gate().check_open()?;
        self.run().gate().check_writable()?;
        self.run().coordinator().delete_group(name)
    }
}

/// Where a group begins that is sent to `to`.
fn offset_of(core: &PartitionCore, to: StartAt) -> Result<u64> {
    let (start, end) = (core.log_start(), core.visible_end(Visibility::Published));
    Ok(match to {
        StartAt::Earliest => start,
        StartAt::Latest => end,
        StartAt::Offset(offset) => offset.clamp(start, end.max(start)),
        StartAt::Time(time) => core.offset_at(time)?.map_or(end, |offset| offset.min(end)),
        StartAt::Error => return Err(Error::config("to", "a place is needed")),
    })
}

fn describe(name: Arc<str>, view: GroupView, topics: &TopicTable) -> GroupInfo {
    let state = view.status();
    let offsets =
        view.progress(topics, |core| core.log_start()..core.visible_end(Visibility::Published));
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

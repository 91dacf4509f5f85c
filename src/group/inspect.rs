//! Groups seen and changed from outside, by an administrator.
//!
//! LOCK ORDER: as the coordinator's. What is refused while members live is checked and done under
//! the lock of the table of groups, so that nobody can join in between.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::assignor::Assignor;
use super::coordinator::{Commit, Coordinator, Groups};
use super::offsets::{Committed, GroupOffsets, OffsetChange};
use super::roster::{Group, Roster};
use crate::error::{Error, Result};
use crate::format::TopicId;
use crate::partition::PartitionCore;
use crate::record::TopicPartition;

/// A group as it is at one moment.
#[derive(Debug, Clone)]
pub(crate) struct GroupView {
    /// What its members use; `None` when it has none.
    pub(crate) assignor: Option<Assignor>,
    pub(crate) generation: u64,
    pub(crate) is_at_rest: bool,
    pub(crate) members: Vec<MemberView>,
    pub(crate) offsets: GroupOffsets,
}

#[derive(Debug, Clone)]
pub(crate) struct MemberView {
    pub(crate) id: u64,
    pub(crate) instance: Option<Arc<str>>,
    pub(crate) is_live: bool,
    pub(crate) assignment: Vec<TopicPartition>,
}

impl Coordinator {
    /// The groups that have members or offsets, by name.
    pub(crate) fn group_names(&self) -> BTreeSet<Arc<str>> {
        let mut names: BTreeSet<_> = self.groups.lock().by_name.keys().cloned().collect();
        self.offsets.read(|offsets| names.extend(offsets.groups().cloned()));
        names
    }

    /// # Errors
    ///
    /// [`Error::UnknownGroup`].
    pub(crate) fn view(&self, name: &str) -> Result<GroupView> {
        let groups = self.groups.lock();
        let offsets = self.offsets.read(|offsets| offsets.of_group(name).cloned());
        let Some(group) = groups.by_name.get(name) else {
            let offsets = offsets.ok_or_else(|| Error::UnknownGroup(name.to_owned()))?;
            let members = Vec::new();
            return Ok(GroupView {
                assignor: None,
                generation: 0,
                is_at_rest: true,
                members,
                offsets,
            });
        };
        let roster = group.roster.lock();
        Ok(GroupView {
            assignor: Some(roster.assignor),
            generation: roster.state.generation(),
            is_at_rest: roster.state.is_at_rest(),
            members: members_of(&roster),
            offsets: offsets.unwrap_or_default(),
        })
    }

    /// Puts a group without live members somewhere else. Returns the end of the offsets log, to
    /// wait for.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownGroup`], [`Error::GroupNotEmpty`], [`Error::UnknownTopic`] when the topic is
    /// gone; nothing is changed.
    pub(crate) fn replace_offsets<'a>(
        &self,
        name: &str,
        topic: TopicId,
        offsets: &[(&'a PartitionCore, Committed)],
    ) -> Result<u64> {
        let group = Arc::from(name);
        let commit = |&(core, committed): &(&'a PartitionCore, Committed)| Commit {
            partition: &core.origin,
            topic,
            core,
            committed,
            epoch: None,
        };
        let commits: Vec<_> = offsets.iter().map(commit).collect();
        let groups = self.groups.lock();
        self.empty_group(&groups, name)?;
        let end = self.append_commits(&group, &commits)?;
        drop(groups);
        self.tidy_offsets();
        Ok(end)
    }

    /// Forgets a group without live members: its offsets, and whom it waits for. Durable on
    /// return.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownGroup`], [`Error::GroupNotEmpty`]; nothing is changed.
    pub(crate) fn delete_group(&self, name: &str) -> Result<()> {
        let mut groups = self.groups.lock();
        self.empty_group(&groups, name)?;
        let gone = vec![OffsetChange::GroupGone(name.into())];
        let end = self.offsets.append_if(gone, |_| Ok(()))?;
        groups.by_name.remove(name);
        drop(groups);
        self.offsets.partition().wait_durable(end)
    }

    /// The group, if it has one in memory, after the checks.
    fn empty_group(&self, groups: &Groups, name: &str) -> Result<Option<Arc<Group>>> {
        let Some(group) = groups.by_name.get(name) else {
            let has_offsets = self.offsets.read(|offsets| offsets.of_group(name).is_some());
            return has_offsets.then_some(None).ok_or_else(|| Error::UnknownGroup(name.to_owned()));
        };
        match group.roster.lock().live.len() {
            0 => Ok(Some(Arc::clone(group))),
            members => Err(Error::GroupNotEmpty { group: name.to_owned(), members }),
        }
    }
}

fn members_of(roster: &Roster) -> Vec<MemberView> {
    let instance_of = |id| {
        let mut statics = roster.statics.iter();
        statics.find(|(_, member)| member.id == id).map(|(instance, _)| Arc::clone(instance))
    };
    let live = roster.live.keys().map(|&id| MemberView {
        id: id.0,
        instance: instance_of(id),
        is_live: true,
        assignment: roster.state.assignment(id),
    });
    let away = roster.statics.iter().filter(|(_, member)| member.away_until.is_some());
    let away = away.map(|(instance, member)| MemberView {
        id: member.id.0,
        instance: Some(Arc::clone(instance)),
        is_live: false,
        assignment: roster.state.planned_for(member.id),
    });
    let mut members: Vec<_> = live.chain(away).collect();
    members.sort_by_key(|member| member.id);
    members
}

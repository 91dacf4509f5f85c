//! Groups seen and changed from outside, by an administrator.
//!
//! LOCK ORDER: as the coordinator's. What is refused while members live is checked and done under
//! the lock of the table of groups, so that nobody can join in between.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::assignor::Assignor;
use super::coordinator::{Commit, Coordinator, Groups, Permit};
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
    /// How often a partition was given to a member, and how many members were evicted.
    pub(crate) assignments: u64,
    pub(crate) evictions: u64,
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
    /// The groups that have members, offsets or subscriptions, by name.
    pub(crate) fn group_names(&self) -> BTreeSet<Arc<str>> {
        let mut names: BTreeSet<_> = self.groups.lock().by_name.keys().cloned().collect();
        self.offsets.read(|offsets| names.extend(offsets.groups().cloned()));
        names
    }

    /// All of them, each at one moment.
    pub(crate) fn views(&self) -> Vec<(Arc<str>, GroupView)> {
        let names = self.group_names().into_iter();
        // One that is gone since its name was read is left out.
        names.filter_map(|name| self.view(&name).ok().map(|view| (name, view))).collect()
    }

    /// Rebalances and evictions of all groups, of those that are gone too.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let groups = self.groups.lock();
        groups.by_name.values().fold(groups.past, |(rebalances, evictions), group| {
            let roster = group.roster.lock();
            (rebalances + roster.state.generation(), evictions + roster.evictions)
        })
    }

    /// # Errors
    ///
    /// [`Error::UnknownGroup`].
    pub(crate) fn view(&self, name: &str) -> Result<GroupView> {
        let groups = self.groups.lock();
        let (is_known, offsets) = self.offsets.read(|offsets| {
            (offsets.has_group(name), offsets.of_group(name).cloned().unwrap_or_default())
        });
        let Some(group) = groups.by_name.get(name) else {
            if !is_known {
                return Err(Error::UnknownGroup(name.to_owned()));
            }
            let members = Vec::new();
            return Ok(GroupView {
                assignor: None,
                generation: 0,
                assignments: 0,
                evictions: 0,
                is_at_rest: true,
                members,
                offsets,
            });
        };
        let mut roster = group.roster.lock();
        self.catch_up(&mut roster);
        let view = GroupView {
            assignor: Some(roster.assignor),
            generation: roster.state.generation(),
            assignments: roster.state.assignments(),
            evictions: roster.evictions,
            is_at_rest: roster.state.is_at_rest(),
            members: members_of(&roster),
            offsets,
        };
        let wakeups = roster.take_wakeups();
        roster.note_events(&group.name, self.trace());
        drop(roster);
        drop(groups);
        wakeups.call();
        self.trace().deliver();
        Ok(view)
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
        let end = self.append_commits(&group, &commits, Permit::NoMembers { _groups: groups })?;
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
        if let Some(group) = groups.by_name.get(name).cloned() {
            groups.forget(name, &group.roster.lock());
        }
        drop(groups);
        self.offsets.partition().wait_durable(end)
    }

    /// The group, if it has one in memory, after the checks.
    fn empty_group(&self, groups: &Groups, name: &str) -> Result<Option<Arc<Group>>> {
        let Some(group) = groups.by_name.get(name) else {
            let is_known = self.offsets.read(|offsets| offsets.has_group(name));
            return is_known.then_some(None).ok_or_else(|| Error::UnknownGroup(name.to_owned()));
        };
        group.check_no_members()?;
        Ok(Some(Arc::clone(group)))
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

//! Groups as an administrator and the metrics see them: each group at one moment.
//!
//! Functions over the coordinator; they change nothing, except that a plan that is due is made.
//! LOCK ORDER: as the coordinator's.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::assignor::Assignor;
use super::coordinator::Coordinator;
use super::interest::Wanted;
use super::members::MemberView;
use super::offsets::GroupOffsets;
use crate::error::{Error, Result};

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
    /// What the group has subscribed to, with or without members now.
    pub(crate) subscriptions: Vec<Wanted>,
}

/// The groups that have members, offsets or subscriptions, by name.
pub(crate) fn group_names(coordinator: &Coordinator) -> BTreeSet<Arc<str>> {
    let mut names = coordinator.groups().names();
    coordinator.offsets().log().read(|offsets| names.extend(offsets.groups().cloned()));
    names
}

/// All of them, each at one moment.
pub(crate) fn views(coordinator: &Coordinator) -> Vec<(Arc<str>, GroupView)> {
    let names = group_names(coordinator).into_iter();
    // A group that has ended since its name was read is left out.
    names.filter_map(|name| view(coordinator, &name).ok().map(|view| (name, view))).collect()
}

/// Rebalances and evictions of all groups, also of those that have ended.
pub(crate) fn totals(coordinator: &Coordinator) -> (u64, u64) {
    coordinator.groups().totals()
}

/// One group.
///
/// # Errors
///
/// [`Error::UnknownGroup`].
pub(crate) fn view(coordinator: &Coordinator, name: &str) -> Result<GroupView> {
    let groups = coordinator.groups();
    let (is_known, offsets, subscriptions) = coordinator.offsets().log().read(|state| {
        let offsets = state.of_group(name).cloned().unwrap_or_default();
        (state.has_group(name), offsets, state.subscriptions_of(name).cloned().collect())
    });
    let Some(group) = groups.get(name).cloned() else {
        if !is_known {
            return Err(Error::UnknownGroup(name.to_owned()));
        }
        return Ok(GroupView {
            assignor: None,
            generation: 0,
            assignments: 0,
            evictions: 0,
            is_at_rest: true,
            members: Vec::new(),
            offsets,
            subscriptions,
        });
    };
    let mut members = group.lock();
    coordinator.catch_up(&mut members);
    let (state, (generation, evictions)) = (members.state(), members.totals());
    let view = GroupView {
        assignor: Some(state.assignor()),
        generation,
        assignments: state.owners().assignments(),
        evictions,
        is_at_rest: state.is_at_rest(),
        members: members.views(),
        offsets,
        subscriptions,
    };
    coordinator.release(&group, members, Some(groups));
    Ok(view)
}

//! Expiry of unused groups: the time of each group's last use, and the removal of a group.
//!
//! Pure functions over the groups and the offsets log of a coordinator. Must not know: topics and
//! how long they keep records, from which the engine decides when a group has expired.
//!
//! A group is in use while it has a member, live or waited for, and whenever it commits. Commits
//! carry the time of their records. That a group has a member is recorded too: rarely while it has
//! one, and once when it has none any more.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::coordinator::Coordinator;
use super::offset_store::OffsetStore;
use super::offsets::OffsetChange;
use crate::clock::Moment;
use crate::error::{Error, Result};
use crate::format::TopicId;

/// LIMIT: how many groups are read under the lock that commits take: some hundred microseconds.
const GROUPS_PER_LOOK: usize = 500;

/// A group without members.
#[derive(Debug)]
pub(crate) struct IdleGroup {
    pub(crate) name: Arc<str>,
    /// When it was used last, and whether that is from an entry that it had a member rather than
    /// from a commit.
    pub(crate) last_use: (u64, bool),
    /// The topics that it has commits for.
    pub(crate) topics: BTreeSet<TopicId>,
}

/// Records that groups have members, unless that was recorded less than `every` milliseconds ago;
/// that groups had members until now; and a use for groups whose last use is not known.
pub(crate) fn note_seen(coordinator: &Coordinator, every: u64) -> Result<()> {
    let store = coordinator.offsets();
    let now = store.partition().log().clock().millis();
    let mut groups = coordinator.groups();
    let (ended, mut seen) = (groups.take_ended(), groups.names());
    drop(groups);
    store.log().read(|offsets| {
        seen.retain(|name| {
            let (used, _) = offsets.last_use(name);
            offsets.has_group(name) && used.saturating_add(every) <= now
        });
    });
    seen.extend(ended.iter().cloned());
    seen.extend(of_unknown_age(store, GROUPS_PER_LOOK));
    let seen = seen.into_iter().map(OffsetChange::GroupSeen).collect::<Vec<_>>();
    if seen.is_empty() {
        return Ok(());
    }
    let stored = store.log().append(seen);
    if stored.is_err() {
        coordinator.groups().return_ended(ended);
    }
    stored.map(drop)
}

/// Records the uses of groups in this run, which began at `since`, again: the wall clock was set
/// since.
pub(crate) fn redate(coordinator: &Coordinator, since: u64, now: Moment) -> Result<()> {
    let store = coordinator.offsets();
    let mut used = Vec::new();
    for_each_group(store, |name, (at, _), _| {
        if at >= since {
            used.push((OffsetChange::GroupSeen(Arc::clone(name)), Moment::from_run(at, now)));
        }
    });
    for part in used.chunks(GROUPS_PER_LOOK) {
        store.log().append_dated(part.to_vec())?;
        store.tidy();
    }
    Ok(())
}

/// Groups whose commits are of an earlier version, which did not store when they were made.
fn of_unknown_age(store: &OffsetStore, count: usize) -> Vec<Arc<str>> {
    let mut unknown = Vec::new();
    for_each_group(store, |name, (used, _), _| {
        if used == 0 && unknown.len() < count {
            unknown.push(Arc::clone(name));
        }
    });
    unknown
}

/// Groups without members that were not used for more than `idle` milliseconds.
pub(crate) fn idle_groups(coordinator: &Coordinator, idle: u64) -> Vec<IdleGroup> {
    let store = coordinator.offsets();
    let now = store.partition().log().clock().millis();
    let mut found = Vec::new();
    for_each_group(store, |name, last_use, topics| {
        if last_use.0 > 0 && now.saturating_sub(last_use.0) > idle {
            found.push(IdleGroup { name: Arc::clone(name), last_use, topics: topics() });
        }
    });
    let groups = coordinator.groups();
    found.retain(|it| !groups.contains(&it.name));
    found
}

/// Calls `each` for all groups, a few at a time.
fn for_each_group(
    store: &OffsetStore,
    mut look: impl FnMut(&Arc<str>, (u64, bool), &dyn Fn() -> BTreeSet<TopicId>),
) {
    let mut last: Option<Arc<str>> = None;
    loop {
        let names = store.log().read(|offsets| {
            let names = offsets.groups_after(last.as_ref(), GROUPS_PER_LOOK);
            for name in &names {
                let topics = || {
                    let offsets = offsets.of_group(name).into_iter();
                    offsets.flat_map(|it| it.keys().map(|(topic, _)| *topic)).collect()
                };
                look(name, offsets.last_use(name), &topics);
            }
            names
        });
        let Some(name) = names.last() else { return };
        last = Some(Arc::clone(name));
    }
}

/// Removes an idle group, unless it was used meanwhile. False if it was.
pub(crate) fn expire(coordinator: &Coordinator, group: &IdleGroup) -> Result<bool> {
    let groups = coordinator.groups();
    if groups.contains(&group.name) {
        return Ok(false);
    }
    let mut is_used = false;
    let gone = vec![OffsetChange::GroupGone(Arc::clone(&group.name))];
    let stored = coordinator.offsets().log().append_if(gone, |offsets| {
        is_used = offsets.last_use(&group.name) != group.last_use;
        if is_used { Err(Error::UnknownGroup(group.name.as_ref().to_owned())) } else { Ok(()) }
    });
    drop(groups);
    if is_used {
        return Ok(false);
    }
    coordinator.offsets().tidy();
    stored.map(|_| true)
}

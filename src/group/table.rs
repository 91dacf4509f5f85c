//! The groups that have members, by name. The coordinator keeps the table under its outermost lock.
//!
//! Owns: which group has a name now, and what is remembered of groups that have ended. Must not
//! know: what a group does.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;

use super::members::Members;
use super::shared::Group;

#[derive(Default)]
pub(super) struct GroupTable {
    by_name: BTreeMap<Arc<str>, Arc<Group>>,
    /// Rebalances and evictions of the groups that have ended.
    past: (u64, u64),
    /// Groups with commits whose last member has left, if that is not recorded yet.
    ended: BTreeSet<Arc<str>>,
}

impl GroupTable {
    pub(super) fn get(&self, name: &str) -> Option<&Arc<Group>> {
        self.by_name.get(name)
    }

    pub(super) fn get_or_insert(
        &mut self,
        name: &Arc<str>,
        new: impl FnOnce() -> Arc<Group>,
    ) -> Arc<Group> {
        Arc::clone(self.by_name.entry(Arc::clone(name)).or_insert_with(new))
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.by_name.values()
    }

    pub(super) fn names(&self) -> BTreeSet<Arc<str>> {
        self.by_name.keys().cloned().collect()
    }

    /// Rebalances and evictions of all groups.
    pub(super) fn totals(&self) -> (u64, u64) {
        self.by_name.values().fold(self.past, |(rebalances, evictions), group| {
            let of_group = group.lock().totals();
            (rebalances + of_group.0, evictions + of_group.1)
        })
    }

    /// Removes a group without members. Another group may have its name by now, while a consumer
    /// still holds this one; that one remains. `keeps` says whether the offsets log has entries of
    /// the group; then the end of its last membership is to be recorded.
    pub(super) fn remove(&mut self, group: &Arc<Group>, members: &Members, keeps: bool) {
        let name = group.name();
        if !self.by_name.get(name).is_some_and(|known| Arc::ptr_eq(known, group)) {
            return;
        }
        self.by_name.remove(name);
        let totals = members.totals();
        self.past = (self.past.0 + totals.0, self.past.1 + totals.1);
        if keeps {
            self.ended.insert(Arc::clone(name));
        }
    }

    /// Takes the groups whose last member has left since the last call.
    pub(super) fn take_ended(&mut self) -> BTreeSet<Arc<str>> {
        mem::take(&mut self.ended)
    }

    /// Puts back the groups whose end could not be recorded.
    pub(super) fn return_ended(&mut self, ended: BTreeSet<Arc<str>>) {
        self.ended.extend(ended);
    }
}

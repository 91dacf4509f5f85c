//! The groups that have members, by name. The coordinator keeps the table under its outermost lock.
//!
//! Owns: which group has a name now, and what is remembered of groups that have ended. Must not
//! know: what a group does.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;
#[cfg(feature = "replication")]
use std::sync::Weak;

use super::members::Members;
#[cfg(feature = "replication")]
use super::presence::Wakeups;
use super::shared::Group;
use crate::partition::lead::Lead;
#[cfg(feature = "replication")]
use crate::partition::waiters::Notifier;

#[derive(Default)]
pub(super) struct GroupTable {
    by_name: BTreeMap<Arc<str>, Arc<Group>>,
    /// Rebalances and evictions of the groups that have ended.
    past: (u64, u64),
    /// Groups with commits whose last member has left, if that is not recorded yet.
    ended: BTreeSet<Arc<str>>,
    /// Whether another member of a replicated group has the groups.
    #[cfg(feature = "replication")]
    follows: bool,
    /// Consumers that may join again when this one has them.
    #[cfg(feature = "replication")]
    dismissed: Vec<Weak<Notifier>>,
}

impl GroupTable {
    /// That of a broker before it leads, if it is replicated.
    #[cfg(feature = "replication")]
    pub(super) fn of(lead: &Lead) -> Self {
        Self { follows: lead.is_member(), ..Self::default() }
    }

    #[cfg(not(feature = "replication"))]
    pub(super) fn of(_: &Lead) -> Self {
        Self::default()
    }

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

    /// Dismisses the members of all groups: another broker has the groups. Returns them, to be woken.
    #[cfg(feature = "replication")]
    pub(super) fn dismiss_all(&mut self) -> Wakeups {
        self.follows = true;
        let mut wakeups = Wakeups::default();
        for group in mem::take(&mut self.by_name).into_values() {
            let mut members = group.lock();
            let totals = members.totals();
            self.past = (self.past.0 + totals.0, self.past.1 + totals.1);
            wakeups.extend(group.dismiss(&mut members));
        }
        self.ended.clear();
        self.dismissed.retain(|notifier| notifier.strong_count() > 0);
        self.dismissed.extend(wakeups.notifiers());
        wakeups
    }

    /// This broker has the groups. Returns the consumers that were dismissed, to be woken.
    #[cfg(feature = "replication")]
    pub(super) fn take_charge(&mut self) -> Wakeups {
        self.follows = false;
        let dismissed = mem::take(&mut self.dismissed);
        Wakeups::of(dismissed.iter().filter_map(Weak::upgrade))
    }

    /// Whether another broker has the groups.
    #[cfg_attr(not(feature = "replication"), expect(clippy::unused_self, reason = "a constant"))]
    pub(super) fn follows(&self) -> bool {
        #[cfg(feature = "replication")]
        return self.follows;
        #[cfg(not(feature = "replication"))]
        false
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

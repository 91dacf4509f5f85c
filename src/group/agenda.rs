//! When somebody may be overdue in which group, so that whoever looks for them looks at no other.
//!
//! Must not know what a deadline means. LOCK ORDER: after a group's lock; no other is taken under
//! it.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use super::roster::{Group, NEVER};
use crate::steps::Counted;
use crate::sync::{AtomicU64, LockRank, Mutex, Ordering};

/// A time, and the number of a group.
type Place = Counted<(u64, u64)>;

/// The groups of a coordinator by when to look at them; those that need no look are not in it.
#[derive(Debug)]
pub(super) struct Agenda {
    groups: Mutex<BTreeMap<Place, Weak<Group>>>,
    next_number: AtomicU64,
}

impl Agenda {
    pub(super) fn new() -> Self {
        let groups = Mutex::ranked(LockRank::Agenda, BTreeMap::new());
        Self { groups, next_number: AtomicU64::new(0) }
    }

    /// The number of a new group, which tells it apart from all others, also of its name.
    pub(super) fn new_number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    /// Moves a group from one time to another.
    pub(super) fn put(&self, group: &Arc<Group>, from: u64, to: u64) {
        let mut groups = self.groups.lock();
        groups.remove(&Counted((from, group.number)));
        if to < NEVER {
            groups.insert(Counted((to, group.number)), Arc::downgrade(group));
        }
    }

    /// A group is gone.
    pub(super) fn remove(&self, at: u64, number: u64) {
        self.groups.lock().remove(&Counted((at, number)));
    }

    /// The groups to look at now.
    pub(super) fn due(&self, now: u64) -> Vec<Arc<Group>> {
        let groups = self.groups.lock();
        let due = groups.range(..=Counted((now, u64::MAX)));
        due.filter_map(|(_, group)| group.upgrade()).collect()
    }

    /// When the next group is to be looked at.
    pub(super) fn next(&self) -> Option<u64> {
        self.groups.lock().first_key_value().map(|(at, _)| at.0.0)
    }
}

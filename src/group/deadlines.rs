//! When to check which group for overdue members, so that a check reads no other groups.
//!
//! Owns: one time for each group that has a deadline. Must not know: what a deadline is for, and
//! what a group is.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use crate::steps::Counted;
use crate::sync::{AtomicU64, LockLevel, Mutex, Ordering};

/// A time that is never reached.
pub(super) const NEVER: u64 = u64::MAX;

/// A time, and the number of a group.
type Key = Counted<(u64, u64)>;

/// The groups of a coordinator by their next deadline; those without a deadline are not in it.
#[derive(Debug)]
pub(super) struct Deadlines<T> {
    groups: Mutex<BTreeMap<Key, Weak<T>>>,
    /// The number of the next group.
    ///
    /// ORDERING: Relaxed: each group takes another number, and a number publishes nothing.
    next_number: AtomicU64,
}

impl<T> Deadlines<T> {
    pub(super) fn new() -> Self {
        let groups = Mutex::at_level(LockLevel::Deadlines, BTreeMap::new());
        Self { groups, next_number: AtomicU64::new(0) }
    }

    /// The number of a new group, which distinguishes it from all others, also of the same name.
    pub(super) fn new_number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    /// Moves a group from one time to another.
    pub(super) fn reschedule(&self, group: &Arc<T>, number: u64, from: u64, to: u64) {
        let mut groups = self.groups.lock();
        groups.remove(&Counted((from, number)));
        if to < NEVER {
            groups.insert(Counted((to, number)), Arc::downgrade(group));
        }
    }

    /// Removes a group that has ended.
    pub(super) fn remove(&self, at: u64, number: u64) {
        self.groups.lock().remove(&Counted((at, number)));
    }

    /// The groups to check now.
    pub(super) fn due(&self, now: u64) -> Vec<Arc<T>> {
        let groups = self.groups.lock();
        let due = groups.range(..=Counted((now, u64::MAX)));
        due.filter_map(|(_, group)| group.upgrade()).collect()
    }

    /// When the next group is to be checked.
    pub(super) fn next(&self) -> Option<u64> {
        self.groups.lock().first_key_value().map(|(at, _)| at.0.0)
    }
}

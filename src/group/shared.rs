//! One group, shared by its coordinator and its memberships.
//!
//! Owns: the group's lock, and the time before which none of its members can be overdue. Must not
//! know: other groups, the offsets log.
//!
//! Invariant: no member is overdue before `next_check`. Each new deadline lowers it, under the lock,
//! and the table of deadlines has the group at that time.

use std::fmt;
use std::sync::Arc;

use super::assignor::Assignor;
use super::deadlines::{Deadlines, NEVER};
use super::interest::Topics;
use super::members::Members;
#[cfg(feature = "replication")]
use super::presence::Wakeups;
use crate::error::{Error, Result};
use crate::sync::{AtomicU64, LockLevel, Mutex, MutexGuard, Ordering};

/// A group that has members, live or waited for.
pub(super) struct Group {
    name: Arc<str>,
    members: Mutex<Members>,
    /// No member is overdue before this time.
    ///
    /// ORDERING: swapped with `AcqRel` under the group's lock, loaded with Acquire by every poll of
    /// every member. A poll that reads an old value checks too early, or leaves the check to the
    /// next poll.
    next_check: AtomicU64,
    /// The table that has the group at that time.
    deadlines: Arc<Deadlines<Self>>,
    number: u64,
}

impl Group {
    pub(super) fn new(
        name: &Arc<str>,
        assignor: Assignor,
        topics: &Arc<Topics>,
        deadlines: &Arc<Deadlines<Self>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            name: Arc::clone(name),
            members: Mutex::at_level(LockLevel::Group, Members::new(assignor, Arc::clone(topics))),
            next_check: AtomicU64::new(NEVER),
            deadlines: Arc::clone(deadlines),
            number: deadlines.new_number(),
        })
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Members> {
        self.members.lock()
    }

    /// Refuses a change from outside while the group has a live member.
    ///
    /// # Errors
    ///
    /// [`Error::GroupNotEmpty`].
    pub(super) fn check_no_members(&self) -> Result<()> {
        match self.lock().live_count() {
            0 => Ok(()),
            members => Err(Error::GroupNotEmpty { group: self.name.as_ref().to_owned(), members }),
        }
    }

    /// No member is overdue before this time.
    #[inline]
    pub(super) fn next_check(&self) -> u64 {
        self.next_check.load(Ordering::Acquire)
    }

    /// Notes a deadline. The caller holds the members' lock.
    pub(super) fn note_deadline(self: &Arc<Self>, deadline: u64) {
        self.set_next_check(self.next_check().min(deadline));
    }

    /// The caller holds the members' lock, so that the table of deadlines changes in the same
    /// order.
    fn set_next_check(self: &Arc<Self>, time: u64) {
        let before = self.next_check.swap(time, Ordering::AcqRel);
        if before != time {
            self.deadlines.reschedule(self, self.number, before, time);
        }
    }

    /// Dismisses all members: the group is another broker's, or another one's here later. `members`
    /// are this group's. Returns the consumers, to be woken.
    #[cfg(feature = "replication")]
    pub(super) fn dismiss(self: &Arc<Self>, members: &mut Members) -> Wakeups {
        self.set_next_check(NEVER);
        members.dismiss()
    }

    /// Evicts overdue members, and removes static members whose wait has ended; returns the names
    /// of the latter. `members` are this group's.
    pub(super) fn evict_overdue(
        self: &Arc<Self>,
        members: &mut Members,
        now: u64,
    ) -> Vec<Arc<str>> {
        if now < self.next_check() {
            return Vec::new();
        }
        let (expired, next) = members.evict_overdue(now);
        self.set_next_check(next);
        expired
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.deadlines.remove(self.next_check(), self.number);
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("name", &self.name).finish_non_exhaustive()
    }
}

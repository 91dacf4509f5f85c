//! The coordinator: serves joins, polls, evictions and commits of all groups, each under its lock.
//!
//! Owns: the table of groups, the live topics, and the order in which their locks are taken. It
//! composes the parts: [`members`](super::members) decides for a group,
//! [`offset_store`](super::offset_store) stores, and [`commit`](super::commit) has the order of a
//! commit. Must not know: consumers and what they do with their partitions.
//!
//! There are no heartbeats: joining, leaving and dropping take effect at once, and members that
//! have something to do are woken. A member that stops polling is evicted by the first thread that
//! notices: another member's poll, a background thread, `tick`.
//!
//! No callback runs under a lock of this room. The clock is read before a lock is taken, except for
//! the time of a stored record.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::assignor::MemberId;
use super::commit::{self, Permit, Ready, Stored};
use super::deadlines::Deadlines;
use super::interest::{Topics, Wanted};
use super::members::{JoinRequest, Joined, Left, Members};
use super::offset_store::OffsetStore;
use super::offsets::{OffsetChange, OffsetsState};
use super::presence::{Presence, Wakeups, nanos};
use super::shared::Group;
use super::table::GroupTable;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::partition::copies::Copies;
use crate::partition::lead::Lead;
use crate::partition::state_log::StateLog;
use crate::partition::waiters::Notifier;
use crate::steps;
use crate::sync::{AtomicBool, AtomicU64, LockLevel, Mutex, MutexGuard, Ordering};
use crate::trace::Outbox;

pub(crate) struct Coordinator {
    offsets: OffsetStore,
    clock: Arc<dyn Clock>,
    groups: Mutex<GroupTable>,
    /// All live topics, shared with the groups.
    topics: Mutex<Arc<Topics>>,
    deadlines: Arc<Deadlines<Group>>,
    /// The number of the next member.
    ///
    /// ORDERING: Relaxed: each join takes another number, and a number publishes nothing.
    next_member: AtomicU64,
    /// Whether the broker was closed.
    ///
    /// ORDERING: stored with Release by the thread that closes the broker, loaded with Acquire by a
    /// join, which holds the lock of `groups`. A join that does not see it creates a member of a
    /// closed broker, whose next poll finds the broker closed.
    closed: AtomicBool,
    on_deadline: OnDeadline,
}

/// Notifies the caller of [`Coordinator::evict_overdue`] of a new deadline, which may be earlier
/// than all others. Called under no lock.
type OnDeadline = Box<dyn Fn() + Send + Sync>;

impl Coordinator {
    pub(crate) fn new(
        offsets: StateLog<OffsetsState>,
        clock: Arc<dyn Clock>,
        is_read_only: bool,
        lead: &Lead,
        on_deadline: impl Fn() + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            offsets: OffsetStore::new(offsets, is_read_only, lead.clone()),
            clock,
            groups: Mutex::at_level(LockLevel::Groups, GroupTable::of(lead)),
            topics: Mutex::at_level(LockLevel::GroupTopics, Arc::default()),
            deadlines: Arc::new(Deadlines::new()),
            next_member: AtomicU64::new(1),
            closed: AtomicBool::new(false),
            on_deadline: Box::new(on_deadline),
        })
    }

    pub(crate) fn offsets(&self) -> &OffsetStore {
        &self.offsets
    }

    pub(super) fn groups(&self) -> MutexGuard<'_, GroupTable> {
        self.groups.lock()
    }

    #[inline]
    pub(super) fn now(&self) -> u64 {
        nanos(self.clock.monotonic())
    }

    // ---- leadership --------------------------------------------------------------------------

    /// This broker has the groups from now on, as `__offsets` has them. Their members of an earlier
    /// leadership join again at their next poll.
    #[cfg(feature = "replication")]
    pub(crate) fn lead(&self) {
        self.restore();
        let wakeups = self.groups.lock().take_charge();
        wakeups.call();
        self.deadline_noted();
    }

    /// Another broker has the groups, or none: nobody is a member here any more.
    #[cfg(feature = "replication")]
    pub(crate) fn follow(&self) {
        let wakeups = self.groups.lock().dismiss_all();
        wakeups.call();
    }

    /// Whether a consumer that was dismissed has to wait.
    pub(super) fn follows(&self) -> bool {
        self.offsets.lead().follows()
    }

    fn trace(&self) -> &Outbox {
        self.offsets.partition().log().trace()
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.offsets.partition().close();
    }

    // ---- after a change ----------------------------------------------------------------------

    /// Releases a group, and the table if it is held. Then does what must not be done under a lock:
    /// wakes the members that the change concerns, and delivers its events.
    pub(super) fn release(
        &self,
        group: &Group,
        mut members: MutexGuard<'_, Members>,
        groups: Option<MutexGuard<'_, GroupTable>>,
    ) {
        let wakeups = members.take_wakeups();
        members.report_events(group.name(), self.trace());
        drop(members);
        drop(groups);
        wakeups.call();
        self.trace().deliver();
    }

    /// Cleans up the offsets log if that is due, and delivers events. Called after the locks are
    /// released.
    fn tidy(&self) {
        self.offsets.tidy();
        self.trace().deliver();
    }

    /// Notifies of a new deadline, after the locks are released.
    pub(super) fn deadline_noted(&self) {
        (self.on_deadline)();
    }

    // ---- topics ------------------------------------------------------------------------------

    /// Notifies all groups of the present partition count of a topic; 0 if it is deleted.
    pub(crate) fn topic_changed(&self, name: &str, partitions: u32) {
        let groups = self.groups.lock();
        {
            let mut topics = self.topics.lock();
            if Arc::get_mut(&mut topics).is_none() {
                // A group has a reference to it since the last change, for a plan that read all of
                // it.
                steps::take(topics.len() as u64);
            }
            let topics = Arc::make_mut(&mut topics);
            if partitions == 0 {
                topics.remove(name);
            } else {
                topics.insert(name.into(), partitions);
            }
        }
        let mut wakeups = Wakeups::default();
        for group in groups.iter() {
            let mut members = group.lock();
            // The other groups see the topic when a member joins.
            if members.state().is_concerned(name) {
                members.topic_changed(name, partitions);
                wakeups.extend(members.take_wakeups());
            }
        }
        drop(groups);
        wakeups.call();
    }

    /// Makes the plan that is due because topics have changed. Must be called, with the group
    /// locked, before anything that makes or follows a plan. So a thousand new topics between two
    /// polls cost one plan, and one copy of the table of topics.
    pub(super) fn catch_up(&self, members: &mut Members) {
        members.catch_up(|| self.topics());
    }

    fn topics(&self) -> Arc<Topics> {
        Arc::clone(&self.topics.lock())
    }

    // ---- members -----------------------------------------------------------------------------

    /// Begins to wait for the static members of the last run, or of the last leader. Called when all
    /// topics are known and before any member can join.
    pub(crate) fn restore(&self) {
        let now = self.now();
        let statics = self.offsets.log().read(|offsets| offsets.statics().clone());
        let mut groups = self.groups.lock();
        for (name, members) in statics {
            // The assignor of the last run is not known; the first member that joins decides.
            let assignor = super::assignor::Assignor::default();
            let new = || Group::new(&name, assignor, &self.topics(), &self.deadlines);
            let group = groups.get_or_insert(&name, new);
            let members = members.into_iter();
            let restored = members.map(|(instance, member)| (instance, self.new_member(), member));
            if let Some(deadline) = group.lock().restore(restored, now) {
                group.note_deadline(deadline);
            }
        }
    }

    fn new_member(&self) -> MemberId {
        MemberId(self.next_member.fetch_add(1, Ordering::Relaxed))
    }

    /// Takes a consumer into a group, for a membership.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the live members use another assignor; [`Error::NotLeader`];
    /// [`Error::Closed`].
    pub(super) fn join(
        &self,
        name: &Arc<str>,
        request: &JoinRequest,
        notifier: &Arc<Notifier>,
    ) -> Result<(Arc<Group>, Joined)> {
        let now = self.now();
        let id = self.new_member();
        let mut groups = self.groups.lock();
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        if groups.follows() {
            return Err(self.offsets.lead().refused());
        }
        let new = || Group::new(name, request.assignor, &self.topics(), &self.deadlines);
        let group = groups.get_or_insert(name, new);
        let mut members = group.lock();
        members.refresh(self.topics());
        self.offsets.forget_statics(name, &group.evict_overdue(&mut members, now));
        // A refused join changes nothing, but the eviction before it may have.
        let joined = members.join(id, request, notifier, now);
        if let Ok(joined) = &joined {
            group.note_deadline(now.saturating_add(nanos(request.max_poll_interval)));
            if let Some(holder) = &joined.holder {
                let record = members.static_record(&holder.instance);
                self.offsets.store_static(name, &holder.instance, record);
            }
        }
        self.release(&group, members, Some(groups));
        if joined.is_ok() {
            self.deadline_noted();
        }
        self.tidy();
        joined.map(|joined| (group, joined))
    }

    /// Ends a membership, unless another consumer holds it by now.
    pub(super) fn leave(
        &self,
        group: &Arc<Group>,
        id: MemberId,
        presence: &Arc<Presence>,
        instance: Option<&Arc<str>>,
    ) {
        let now = self.now();
        let mut groups = self.groups.lock();
        let mut members = group.lock();
        if !members.is_held(id, presence) {
            return;
        }
        self.catch_up(&mut members);
        let left = members.leave(id, instance, now);
        match left {
            Left::AwayUntil(until) => group.note_deadline(until),
            Left::Nothing => {
                let instance = instance.map(std::slice::from_ref).unwrap_or_default();
                self.offsets.forget_statics(group.name(), instance);
            }
        }
        self.remove_if_empty(&mut groups, group, &members);
        self.release(group, members, Some(groups));
        if let Left::AwayUntil(_) = left {
            self.deadline_noted();
        }
        self.tidy();
    }

    fn remove_if_empty(&self, groups: &mut GroupTable, group: &Arc<Group>, members: &Members) {
        if members.state().is_empty() {
            groups.remove(group, members, self.offsets.has_group(group.name()));
        }
    }

    /// Evicts the overdue members of all groups, and removes static members whose wait has ended.
    /// Returns for how long, on the broker's clock, no other member can be overdue.
    pub(crate) fn evict_overdue(&self) -> Option<Duration> {
        let now = self.now();
        let mut groups = self.groups.lock();
        let mut wakeups = Wakeups::default();
        for group in self.deadlines.due(now) {
            let mut members = group.lock();
            self.catch_up(&mut members);
            let expired = group.evict_overdue(&mut members, now);
            self.offsets.forget_statics(group.name(), &expired);
            wakeups.extend(members.take_wakeups());
            members.report_events(group.name(), self.trace());
            self.remove_if_empty(&mut groups, &group, &members);
        }
        let next = self.deadlines.next();
        drop(groups);
        wakeups.call();
        self.tidy();
        next.map(|next| Duration::from_nanos(next.saturating_sub(now)))
    }

    /// The same for one group, during the poll of a member.
    #[cold]
    pub(super) fn evict_overdue_of(&self, group: &Arc<Group>, now: u64) {
        let mut members = group.lock();
        self.catch_up(&mut members);
        let expired = group.evict_overdue(&mut members, now);
        self.offsets.forget_statics(group.name(), &expired);
        let is_empty = members.state().is_empty();
        if is_empty {
            // Only a fenced member polls: `evict_overdue` removes the rest of the group.
            group.note_deadline(now);
        }
        self.release(group, members, None);
        if is_empty {
            self.deadline_noted();
        }
        self.tidy();
    }

    // ---- tests -------------------------------------------------------------------------------

    /// Evicts all members of a group, whenever they have polled.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownGroup`] for a group without members.
    #[cfg(feature = "testing")]
    pub(crate) fn evict_all(&self, name: &str) -> Result<()> {
        let group = self.group_with_members(name)?;
        self.evict_overdue_of(&group, u64::MAX);
        Ok(())
    }

    /// Has each member of a group give up all of its partitions, and divides them anew then.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownGroup`] for a group without members.
    #[cfg(feature = "testing")]
    pub(crate) fn hand_over_all(&self, name: &str) -> Result<()> {
        let group = self.group_with_members(name)?;
        let mut members = group.lock();
        self.catch_up(&mut members);
        members.hand_over_all();
        self.release(&group, members, None);
        Ok(())
    }

    #[cfg(feature = "testing")]
    fn group_with_members(&self, name: &str) -> Result<Arc<Group>> {
        let group = self.groups.lock().get(name).cloned();
        group.ok_or_else(|| Error::UnknownGroup(name.to_owned()))
    }

    // ---- offsets -----------------------------------------------------------------------------

    /// Stores commits of a consumer that is not a member. Published on return.
    ///
    /// # Errors
    ///
    /// [`Error::GroupNotEmpty`], [`Error::UnknownTopic`] when a topic is deleted; nothing is stored.
    pub(crate) fn commit(&self, group: &Arc<str>, commits: &Ready<'_>) -> Result<Stored<'_>> {
        let groups = self.groups.lock();
        if let Some(group) = groups.get(group) {
            group.check_no_members()?;
        }
        let permit = Permit::NoMembers { _groups: groups };
        let stored = commit::store(&self.offsets, group, commits, permit)?;
        self.offsets.tidy();
        Ok(stored)
    }

    /// Resets the offsets of a group that has no live members. Published on return.
    ///
    /// # Errors
    ///
    /// Those of [`commit`](Self::commit); nothing is stored.
    pub(crate) fn reset(&self, name: &str, commits: &Ready<'_>) -> Result<Stored<'_>> {
        let groups = self.groups.lock();
        // A group that does not exist begins with these commits.
        groups.get(name).map_or(Ok(()), |group| group.check_no_members())?;
        let permit = Permit::NoMembers { _groups: groups };
        let stored = commit::store(&self.offsets, &Arc::from(name), commits, permit)?;
        self.offsets.tidy();
        Ok(stored)
    }

    /// Stores the first subscriptions of a group to names or patterns, and where it begins.
    /// Published on return.
    ///
    /// # Errors
    ///
    /// [`Error::Rebalanced`] when another member was quicker with one of them, or has committed
    /// something meanwhile; [`Error::UnknownTopic`]; nothing is stored then.
    pub(crate) fn subscribe(
        &self,
        group: &Arc<str>,
        subscriptions: &[Wanted],
        starts: &Ready<'_>,
    ) -> Result<Stored<'_>> {
        let permit = Permit::FirstOf(subscriptions);
        let stored = commit::store(&self.offsets, group, starts, permit)?;
        self.offsets.tidy();
        Ok(stored)
    }

    /// Deletes a group without live members: its offsets, and the static members that it waits for.
    /// Durable on return.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownGroup`], [`Error::GroupNotEmpty`]; nothing is changed.
    pub(crate) fn delete_group(&self, name: &str) -> Result<()> {
        let led = self.offsets.lead().check()?;
        let mut groups = self.groups.lock();
        self.check_reset(&groups, name)?;
        let gone = vec![OffsetChange::GroupGone(name.into())];
        let end = self.offsets.log().append_if(gone, |_| Ok(()))?;
        if let Some(group) = groups.get(name).cloned() {
            groups.remove(&group, &group.lock(), false);
        }
        drop(groups);
        let log = self.offsets.partition();
        log.wait_durable(end)?;
        Copies::of(log, end, led).wait(log)
    }

    /// Checks that the group exists and has no live member.
    fn check_reset(&self, groups: &GroupTable, name: &str) -> Result<()> {
        match groups.get(name) {
            Some(group) => group.check_no_members(),
            None if self.offsets.has_group(name) => Ok(()),
            None => Err(Error::UnknownGroup(name.to_owned())),
        }
    }
}

impl fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coordinator").field("offsets", &self.offsets).finish_non_exhaustive()
    }
}

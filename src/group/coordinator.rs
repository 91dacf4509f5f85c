//! The coordinator: runs the pure state of each group under a lock, and stores commits.
//!
//! Owns: the groups that have members, and the log of committed offsets. Must not know: consumers
//! and what they do with their partitions. There are no heartbeats to lose: joining, leaving and
//! dropping take effect at once, and who has something to do is woken. A member that stops polling
//! is evicted by whoever notices first: another member's poll, the workers, `tick`.
//!
//! LOCK ORDER: the table of groups, one group, then the table of topics or the offsets log. No
//! callback runs under any. The clock is read before, except for the time of what is stored.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::agenda::Agenda;
use super::assignor::{Assignor, MemberId};
use super::interest::{Interest, Topics, Wanted};
use super::membership::Membership;
use super::offsets::{Committed, OffsetChange, OffsetsState};
use super::roster::{Group, Live, Presence, Roster, Static, Wakeups, nanos};
use super::state::OwnershipEpoch;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::format::TopicId;
use crate::partition::PartitionCore;
use crate::partition::state_log::StateLog;
use crate::partition::waiters::Notifier;
use crate::record::TopicPartition;
use crate::steps;
use crate::sync::{AtomicBool, AtomicU64, LockRank, Mutex, MutexGuard, Ordering};
use crate::trace::Outbox;

pub(crate) struct Coordinator {
    pub(crate) offsets: StateLog<OffsetsState>,
    clock: Arc<dyn Clock>,
    is_read_only: bool,
    pub(super) groups: Mutex<Groups>,
    /// All live topics, shared with the groups.
    topics: Mutex<Arc<Topics>>,
    agenda: Arc<Agenda>,
    next_member: AtomicU64,
    closed: AtomicBool,
    on_deadline: OnDeadline,
}

/// Tells whoever calls [`Coordinator::evict_overdue`] in time that there is a new deadline, which
/// may come before all others. Called under no lock.
type OnDeadline = Box<dyn Fn() + Send + Sync>;

#[derive(Default)]
pub(super) struct Groups {
    pub(super) by_name: BTreeMap<Arc<str>, Arc<Group>>,
    /// Rebalances and evictions of the groups that are gone.
    pub(super) past: (u64, u64),
    /// Groups with commits that have lost their last member, of which that is not recorded yet.
    pub(super) left: BTreeSet<Arc<str>>,
}

impl Groups {
    /// A group has nobody left.
    pub(super) fn forget(&mut self, name: &str, roster: &Roster) {
        if self.by_name.remove(name).is_some() {
            self.past.0 += roster.state.generation();
            self.past.1 += roster.evictions;
        }
    }
}

/// What a consumer asks for when it joins a group.
#[derive(Debug, Clone)]
pub(crate) struct JoinRequest {
    pub(crate) interest: Interest,
    pub(crate) assignor: Assignor,
    pub(crate) max_poll_interval: Duration,
    /// The name of a static member, and how long its partitions wait for it.
    pub(crate) instance: Option<(Arc<str>, Duration)>,
}

/// What is committed for one partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Commit<'a> {
    pub(crate) partition: &'a TopicPartition,
    pub(crate) topic: TopicId,
    pub(crate) core: &'a PartitionCore,
    pub(crate) committed: Committed,
    /// The ownership under which it is made; `None` for a consumer that assigned by hand.
    pub(crate) epoch: Option<OwnershipEpoch>,
}

/// The right to store offsets of a group. While it is held no partition of the group changes hands.
pub(super) enum Permit<'a> {
    /// A member's, for what it owns.
    Owner { _roster: MutexGuard<'a, Roster> },
    /// Anybody's, while the group has no live members.
    NoMembers { _groups: MutexGuard<'a, Groups> },
    /// A new subscription's, stored with them, for what the group has committed nothing of.
    FirstOf(&'a [Wanted]),
}

impl Permit<'_> {
    /// Whether it still holds, with nothing between this and the append.
    fn check(&self, offsets: &OffsetsState, group: &str, commits: &[Commit<'_>]) -> Result<()> {
        let Self::FirstOf(subscriptions) = self else { return Ok(()) };
        let is_committed = |commit: &Commit<'_>| {
            offsets.get(group, commit.topic, commit.partition.partition).is_some()
        };
        if subscriptions.iter().any(|wanted| offsets.has_subscribed(group, wanted))
            || commits.iter().any(is_committed)
        {
            return Err(Error::Rebalanced);
        }
        Ok(())
    }
}

impl Coordinator {
    pub(crate) fn new(
        offsets: StateLog<OffsetsState>,
        clock: Arc<dyn Clock>,
        is_read_only: bool,
        on_deadline: impl Fn() + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            offsets,
            clock,
            is_read_only,
            groups: Mutex::ranked(LockRank::Groups, Groups::default()),
            topics: Mutex::ranked(LockRank::GroupTopics, Arc::default()),
            agenda: Arc::new(Agenda::new()),
            next_member: AtomicU64::new(1),
            closed: AtomicBool::new(false),
            on_deadline: Box::new(on_deadline),
        })
    }

    pub(crate) fn offsets_partition(&self) -> &Arc<PartitionCore> {
        self.offsets.partition()
    }

    #[inline]
    pub(super) fn now(&self) -> u64 {
        nanos(self.clock.monotonic())
    }

    pub(super) fn trace(&self) -> &Outbox {
        &self.offsets.partition().trace
    }

    // ---- topics ------------------------------------------------------------------------------

    /// Tells all groups how many partitions a topic has now; none when it is gone.
    pub(crate) fn topic_changed(&self, name: &str, partitions: u32) {
        let groups = self.groups.lock();
        {
            let mut topics = self.topics.lock();
            if Arc::get_mut(&mut topics).is_none() {
                // A group has taken it since the last change, for a plan that looked at all of it.
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
        for group in groups.by_name.values() {
            let mut roster = group.roster.lock();
            // The others learn of it when somebody joins.
            if roster.state.is_concerned(name) {
                roster.state.topic_changed(name, partitions);
                wakeups.extend(roster.take_wakeups());
            }
        }
        drop(groups);
        wakeups.call();
    }

    /// Makes the plan that is due since topics have changed. To be called, with the group locked,
    /// before anything that makes a plan or follows it: a thousand topics that come while nobody
    /// looks cost one plan, and the table of topics one copy.
    pub(super) fn catch_up(&self, roster: &mut Roster) {
        roster.state.catch_up(|| Arc::clone(&self.topics.lock()));
    }

    /// Forgets, durably, what all groups committed for a topic that is gone.
    pub(crate) fn forget_topic(&self, id: TopicId) -> Result<()> {
        if !self.offsets.read(|offsets| offsets.knows(id)) {
            return Ok(());
        }
        self.offsets.append_durably(vec![OffsetChange::TopicGone(id)])
    }

    // ---- members -----------------------------------------------------------------------------

    /// Waits for the static members of the last run, from now on. Called once, when all topics
    /// are known and before anybody can join; whoever evicts begins by looking.
    pub(crate) fn restore(&self) {
        let now = self.now();
        let statics = self.offsets.read(|offsets| offsets.statics().clone());
        let mut groups = self.groups.lock();
        for (name, members) in statics {
            // What they used is not known; whoever joins first decides.
            let group = Group::new(&name, Assignor::default(), &self.topics.lock(), &self.agenda);
            let mut roster = group.roster.lock();
            let mut restored = Vec::new();
            for (instance, member) in members {
                let id = self.new_member();
                let rejoin_timeout = Duration::from_millis(member.rejoin_timeout_ms);
                let away_until = now.saturating_add(nanos(rejoin_timeout));
                group.note_deadline(away_until);
                let (interest, away_until) = (member.interest.clone(), Some(away_until));
                let held = Static { id, epoch: 0, interest, rejoin_timeout, away_until };
                roster.statics.insert(instance, held);
                restored.push((id, member.interest, member.owned));
            }
            roster.state.restore(restored);
            drop(roster);
            groups.by_name.insert(name, group);
        }
    }

    fn new_member(&self) -> MemberId {
        MemberId(self.next_member.fetch_add(1, Ordering::Relaxed))
    }

    /// Becomes a member of a group; [`Membership`] ends it when dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] when the live members use another assignor; [`Error::Closed`].
    pub(crate) fn join(
        self: &Arc<Self>,
        name: &Arc<str>,
        request: &JoinRequest,
        notifier: &Arc<Notifier>,
    ) -> Result<Membership> {
        let now = self.now();
        let mut id = self.new_member();
        let mut groups = self.groups.lock();
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        let new = || Group::new(name, request.assignor, &self.topics.lock(), &self.agenda);
        let group = Arc::clone(groups.by_name.entry(Arc::clone(name)).or_insert_with(new));
        let mut roster = group.roster.lock();
        roster.state.refresh(Arc::clone(&self.topics.lock()));
        self.forget_statics(name, &group.sweep(&mut roster, now));
        let mut wakeups = roster.take_wakeups();
        let taken_over = request.instance.as_ref().and_then(|(it, _)| roster.statics.get(it));
        let taken_over = taken_over.map(|known| known.id);
        if roster.assignor != request.assignor {
            if roster.live.keys().any(|id| Some(*id) != taken_over) {
                // Whoever is refused leaves no trace; the sweep may have.
                roster.note_events(name, self.trace());
                drop(roster);
                drop(groups);
                wakeups.call();
                self.tidy_offsets();
                self.trace().deliver();
                return Err(Error::config("assignor", "the group's members use another one"));
            }
            roster.assignor = request.assignor;
            roster.state.set_assignor(request.assignor);
        }
        let mut holder = None;
        if let Some((instance, timeout)) = &request.instance {
            let held = roster.hold(instance, id, &request.interest, *timeout);
            (id, holder) = (held.0, Some(held.1));
            wakeups.extend(held.2);
        }
        roster.state.join(id, request.interest.clone());
        let presence = Presence::new(notifier, request.max_poll_interval, now);
        let live = Live { presence: Arc::clone(&presence), is_evicted: false };
        roster.live.insert(id, live);
        group.note_deadline(now.saturating_add(nanos(request.max_poll_interval)));
        if let Some(holder) = &holder {
            self.store_static(name, &holder.instance, &roster);
        }
        wakeups.extend(roster.take_wakeups());
        roster.note_events(name, self.trace());
        drop(roster);
        drop(groups);
        wakeups.call();
        self.deadline_noted();
        self.tidy_offsets();
        self.trace().deliver();
        let coordinator = Arc::clone(self);
        Ok(Membership { coordinator, group, member: id, presence, holder })
    }

    /// Ends a membership, unless somebody else holds it by now.
    pub(super) fn leave(
        &self,
        group: &Arc<Group>,
        id: MemberId,
        presence: &Arc<Presence>,
        instance: Option<&Arc<str>>,
    ) {
        let now = self.now();
        let mut groups = self.groups.lock();
        let mut roster = group.roster.lock();
        let holds = |member: &Live| Arc::ptr_eq(&member.presence, presence);
        if !roster.live.get(&id).is_some_and(holds) {
            return;
        }
        self.catch_up(&mut roster);
        let mut is_waited_for = false;
        let is_evicted = roster.live.remove(&id).is_some_and(|member| member.is_evicted);
        match instance {
            Some(instance) if !is_evicted => {
                let _ = roster.state.stay_away(id);
                if let Some(member) = roster.statics.get_mut(instance) {
                    let until = now.saturating_add(nanos(member.rejoin_timeout));
                    member.away_until = Some(until);
                    group.note_deadline(until);
                    is_waited_for = true;
                }
            }
            _ => {
                let _ = roster.state.leave(id);
                if let Some(instance) = instance {
                    roster.statics.remove(instance);
                    self.forget_statics(&group.name, std::slice::from_ref(instance));
                }
            }
        }
        if roster.state.is_empty() {
            self.forget(&mut groups, &group.name, &roster);
        }
        let wakeups = roster.take_wakeups();
        roster.note_events(&group.name, self.trace());
        drop(roster);
        drop(groups);
        wakeups.call();
        if is_waited_for {
            self.deadline_noted();
        }
        self.tidy_offsets();
        self.trace().deliver();
    }

    /// A deadline was noted, and the locks are released.
    pub(super) fn deadline_noted(&self) {
        (self.on_deadline)();
    }

    /// Evicts who has not polled for too long, in all groups, and forgets who was waited for in
    /// vain. Returns how long, on the broker's clock, nobody else can be overdue.
    pub(crate) fn evict_overdue(&self) -> Option<Duration> {
        let now = self.now();
        let mut groups = self.groups.lock();
        let mut wakeups = Wakeups::default();
        for group in self.agenda.due(now) {
            let mut roster = group.roster.lock();
            self.catch_up(&mut roster);
            self.forget_statics(&group.name, &group.sweep(&mut roster, now));
            wakeups.extend(roster.take_wakeups());
            roster.note_events(&group.name, self.trace());
            // Another group may have its name by now, while a consumer still holds this one.
            let is_known = |known: &Arc<Group>| Arc::ptr_eq(known, &group);
            if roster.state.is_empty() && groups.by_name.get(&group.name).is_some_and(is_known) {
                self.forget(&mut groups, &group.name, &roster);
            }
        }
        let next = self.agenda.next();
        drop(groups);
        wakeups.call();
        self.tidy_offsets();
        self.trace().deliver();
        next.map(|next| Duration::from_nanos(next.saturating_sub(now)))
    }

    /// The same for one group, of which a member polls.
    #[cold]
    pub(super) fn sweep(&self, group: &Arc<Group>, now: u64) {
        let mut roster = group.roster.lock();
        self.catch_up(&mut roster);
        self.forget_statics(&group.name, &group.sweep(&mut roster, now));
        let is_empty = roster.state.is_empty();
        if is_empty {
            // Only a fenced one polls: what is left of the group is for `evict_overdue` to forget.
            group.note_deadline(now);
        }
        let wakeups = roster.take_wakeups();
        roster.note_events(&group.name, self.trace());
        drop(roster);
        wakeups.call();
        if is_empty {
            self.deadline_noted();
        }
        self.tidy_offsets();
        self.trace().deliver();
    }

    // ---- the offsets log ---------------------------------------------------------------------

    /// Stores what a static member owns now. Not waited for, and a failure is not reported: what
    /// could be lost is that partitions wait for their owner, never a record or a commit. Whoever
    /// calls this [tidies](Self::tidy_offsets) when the locks are released.
    pub(super) fn store_static(&self, group: &Arc<str>, instance: &Arc<str>, roster: &Roster) {
        if let Some(member) = roster.record_of(instance) {
            let (group, instance) = (Arc::clone(group), Arc::clone(instance));
            self.store(vec![OffsetChange::StaticMember { group, instance, member }]);
        }
    }

    fn forget_statics(&self, group: &Arc<str>, instances: &[Arc<str>]) {
        let gone = |instance: &Arc<str>| OffsetChange::StaticMemberGone {
            group: Arc::clone(group),
            instance: Arc::clone(instance),
        };
        self.store(instances.iter().map(gone).collect());
    }

    fn store(&self, changes: Vec<OffsetChange>) {
        if !changes.is_empty() && !self.is_read_only {
            let _ = self.offsets.append_if(changes, |_| Ok(()));
        }
    }

    pub(crate) fn committed(
        &self,
        group: &str,
        topic: TopicId,
        partition: u32,
    ) -> Option<Committed> {
        self.offsets.read(|offsets| offsets.get(group, topic, partition))
    }

    /// Stores commits of a consumer that is no member. Published on return.
    ///
    /// # Errors
    ///
    /// [`Error::GroupNotEmpty`], [`Error::UnknownTopic`] when a topic is gone; nothing is stored.
    pub(crate) fn commit(&self, group: &Arc<str>, commits: &[Commit<'_>]) -> Result<u64> {
        let groups = self.groups.lock();
        if let Some(group) = groups.by_name.get(group) {
            group.check_no_members()?;
        }
        let end = self.append_commits(group, commits, Permit::NoMembers { _groups: groups })?;
        self.tidy_offsets();
        Ok(end)
    }

    /// What of `interest` the group subscribes to for the first time.
    pub(crate) fn new_subscriptions(&self, group: &str, interest: &Interest) -> Vec<Wanted> {
        self.offsets.read(|offsets| {
            let is_new = |wanted: &Wanted| !offsets.has_subscribed(group, wanted);
            interest.each().filter(is_new).collect()
        })
    }

    /// Whether a subscription of the group covers this topic.
    pub(crate) fn has_subscribed_to(&self, group: &str, topic: &str) -> bool {
        self.offsets.read(|offsets| offsets.reads(group, topic))
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
        starts: &[Commit<'_>],
    ) -> Result<u64> {
        let end = self.append_commits(group, starts, Permit::FirstOf(subscriptions))?;
        self.tidy_offsets();
        Ok(end)
    }

    /// Appends commits, unless one of the topics is gone: its commits are forgotten in an append
    /// that comes after its partitions were closed, so that none can follow it. The one way to
    /// store an offset.
    pub(super) fn append_commits(
        &self,
        group: &Arc<str>,
        commits: &[Commit<'_>],
        permit: Permit<'_>,
    ) -> Result<u64> {
        let change = |commit: &Commit<'_>| OffsetChange::Commit {
            group: Arc::clone(group),
            topic: commit.topic,
            partition: commit.partition.partition,
            committed: commit.committed,
        };
        let mut changes: Vec<_> = commits.iter().map(change).collect();
        if let Permit::FirstOf(subscriptions) = &permit {
            // Last: one that is found after a crash has all of its commits before it.
            changes.extend(subscriptions.iter().map(|wanted| OffsetChange::Subscribed {
                group: Arc::clone(group),
                wanted: wanted.clone(),
            }));
        }
        let result = self.offsets.append_if(changes, |offsets| {
            match commits.iter().find(|commit| commit.core.is_closed()) {
                Some(gone) => Err(Error::UnknownTopic(gone.partition.topic.as_ref().to_owned())),
                None => permit.check(offsets, group, commits),
            }
        });
        // Not before: nobody can be given a partition between the check and the append.
        drop(permit);
        result
    }

    /// Writes a snapshot of the offsets if it is time for one. Not under a group's lock: it waits
    /// for the disk.
    pub(super) fn tidy_offsets(&self) {
        self.offsets.tidy();
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.offsets.partition().close();
    }
}

impl fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coordinator").field("offsets", &self.offsets).finish_non_exhaustive()
    }
}

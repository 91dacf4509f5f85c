//! The coordinator: runs the pure state of each group under a lock, and stores commits.
//!
//! Owns: the groups that have members, and the log of committed offsets. Must not know: consumers
//! and what they do with their partitions. There are no heartbeats to lose: joining, leaving and
//! dropping take effect at once, and who has something to do is woken.
//!
//! LOCK ORDER: the table of groups, one group, then the offsets log. No callback runs under any.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use super::assignor::{Assignor, MemberId, Subscription};
use super::offsets::{Committed, OffsetChange, OffsetsState};
use super::state::{GroupState, OwnershipEpoch, PollChange};
use crate::error::{Error, Result};
use crate::format::TopicId;
use crate::partition::PartitionCore;
use crate::partition::state_log::StateLog;
use crate::partition::waiters::Notifier;
use crate::record::TopicPartition;
use crate::sync::{AtomicBool, AtomicU64, Mutex, MutexGuard, Ordering};

pub(crate) struct Coordinator {
    offsets: StateLog<OffsetsState>,
    groups: Mutex<Groups>,
    next_member: AtomicU64,
    closed: AtomicBool,
}

#[derive(Default)]
struct Groups {
    by_name: HashMap<Arc<str>, Arc<Group>>,
    /// Partition counts of all live topics.
    topics: BTreeMap<Arc<str>, u32>,
}

/// One group that has, or had, members.
struct Group {
    name: Arc<str>,
    inner: Mutex<GroupInner>,
}

struct GroupInner {
    assignor: Assignor,
    state: GroupState,
    notifiers: HashMap<MemberId, Arc<Notifier>>,
}

impl GroupInner {
    /// Whom to wake for what has just changed; call them without the lock.
    fn wakeups(&mut self) -> Vec<Arc<Notifier>> {
        let members = self.state.take_wakeups();
        members.into_iter().filter_map(|member| self.notifiers.get(&member).cloned()).collect()
    }
}

/// What is committed for one partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Commit<'a> {
    pub(crate) partition: &'a TopicPartition,
    pub(crate) topic: TopicId,
    pub(crate) committed: Committed,
    /// The ownership under which it is made; `None` for a consumer that assigned by hand.
    pub(crate) epoch: Option<OwnershipEpoch>,
}

impl Coordinator {
    pub(crate) fn new(offsets: StateLog<OffsetsState>) -> Arc<Self> {
        Arc::new(Self {
            offsets,
            groups: Mutex::new(Groups::default()),
            next_member: AtomicU64::new(1),
            closed: AtomicBool::new(false),
        })
    }

    pub(crate) fn offsets_partition(&self) -> &Arc<PartitionCore> {
        self.offsets.partition()
    }

    /// Tells all groups how many partitions a topic has now; none when it is gone.
    pub(crate) fn topic_changed(&self, name: &str, partitions: u32) {
        let mut groups = self.groups.lock();
        if partitions == 0 {
            groups.topics.remove(name);
        } else {
            groups.topics.insert(name.into(), partitions);
        }
        let mut wakeups = Vec::new();
        for group in groups.by_name.values() {
            let mut inner = group.inner.lock();
            inner.state.set_partitions(groups.topics.clone());
            wakeups.extend(inner.wakeups());
        }
        drop(groups);
        for notifier in &wakeups {
            notifier.call();
        }
    }

    /// Forgets, durably, what all groups committed for a topic that is gone.
    pub(crate) fn forget_topic(&self, id: TopicId) -> Result<()> {
        if !self.offsets.read(|offsets| offsets.knows(id)) {
            return Ok(());
        }
        self.offsets.append_durably(vec![OffsetChange::TopicGone(id)])
    }

    /// Becomes a member of a group; [`Membership`] ends it when dropped.
    pub(crate) fn join(
        self: &Arc<Self>,
        group: &Arc<str>,
        topics: impl IntoIterator<Item = Arc<str>>,
        assignor: Assignor,
        notifier: &Arc<Notifier>,
    ) -> Result<Membership> {
        let member = MemberId(self.next_member.fetch_add(1, Ordering::Relaxed));
        let mut groups = self.groups.lock();
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        let known = groups.topics.clone();
        let group = Arc::clone(groups.by_name.entry(Arc::clone(group)).or_insert_with(|| {
            let state = GroupState::new(assignor);
            let inner = GroupInner { assignor, state, notifiers: HashMap::new() };
            Arc::new(Group { name: Arc::clone(group), inner: Mutex::new(inner) })
        }));
        let mut inner = group.inner.lock();
        if inner.assignor != assignor {
            return Err(Error::config("assignor", "the group's other members use another one"));
        }
        inner.state.set_partitions(known);
        inner.state.join(member, topics.into_iter().collect::<Subscription>());
        inner.notifiers.insert(member, Arc::clone(notifier));
        let wakeups = inner.wakeups();
        drop(inner);
        drop(groups);
        for notifier in &wakeups {
            notifier.call();
        }
        Ok(Membership { coordinator: Arc::clone(self), group, member })
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
    pub(crate) fn commit(&self, group: &Arc<str>, commits: &[Commit<'_>]) -> Result<u64> {
        let change = |commit: &Commit<'_>| OffsetChange::Commit {
            group: Arc::clone(group),
            topic: commit.topic,
            partition: commit.partition.partition,
            committed: commit.committed,
        };
        self.offsets.append(commits.iter().map(change).collect())
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let groups = self.groups.lock();
        let members: Vec<_> = groups
            .by_name
            .values()
            .flat_map(|group| group.inner.lock().notifiers.values().cloned().collect::<Vec<_>>())
            .collect();
        drop(groups);
        for notifier in &members {
            notifier.call();
        }
        self.offsets.partition().close();
    }
}

/// A place in a group. Dropping it leaves the group at once.
pub(crate) struct Membership {
    coordinator: Arc<Coordinator>,
    group: Arc<Group>,
    member: MemberId,
}

impl Membership {
    pub(crate) fn group(&self) -> &Arc<str> {
        &self.group.name
    }

    /// Whether [`poll`](Self::poll) would have anything to say.
    pub(crate) fn needs_attention(&self) -> bool {
        self.group.inner.lock().state.needs_attention(self.member)
    }

    /// What to give up and what to take over, now.
    pub(crate) fn poll(&self) -> Result<PollChange> {
        self.group.inner.lock().state.poll(self.member).map_err(|_| Error::Rebalanced)
    }

    /// The partitions are given up: nothing of them is read or committed any more.
    pub(crate) fn revoked(&self, partitions: &[TopicPartition]) -> Result<()> {
        let mut inner = self.group.inner.lock();
        let result = inner.state.revoked(self.member, partitions);
        Self::wake(inner);
        result.map_err(|_| Error::Rebalanced)
    }

    pub(crate) fn epoch_of(&self, partition: &TopicPartition) -> Option<OwnershipEpoch> {
        self.group.inner.lock().state.owns(self.member, partition)
    }

    /// Stores commits, all or none: none when one of the partitions is not this member's any more.
    /// The group's lock is held over the check and the append, so that nobody can be given a
    /// partition in between.
    pub(crate) fn commit(&self, commits: &[Commit<'_>]) -> Result<u64> {
        let inner = self.group.inner.lock();
        let owned = |commit: &Commit<'_>| {
            commit
                .epoch
                .is_some_and(|epoch| inner.state.may_commit(self.member, commit.partition, epoch))
        };
        if !commits.iter().all(owned) {
            return Err(Error::Rebalanced);
        }
        self.coordinator.commit(&self.group.name, commits)
    }

    fn wake(mut inner: MutexGuard<'_, GroupInner>) {
        let wakeups = inner.wakeups();
        drop(inner);
        for notifier in &wakeups {
            notifier.call();
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut groups = self.coordinator.groups.lock();
        let mut inner = self.group.inner.lock();
        let _ = inner.state.leave(self.member);
        inner.notifiers.remove(&self.member);
        if inner.state.is_empty() {
            groups.by_name.remove(&self.group.name);
        }
        let wakeups = inner.wakeups();
        drop(inner);
        drop(groups);
        for notifier in &wakeups {
            notifier.call();
        }
    }
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership")
            .field("group", &self.group.name)
            .field("member", &self.member)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coordinator").field("offsets", &self.offsets).finish_non_exhaustive()
    }
}

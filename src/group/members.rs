//! The members of one group: live ones, and static ones that are waited for.
//!
//! Owns: which members are live, the static members by name, what was reported of both. Must not
//! know: other groups, the offsets log, locks, and clocks (the caller reads the clock before). Time
//! is nanoseconds on the broker's clock.
//!
//! Invariants:
//! 1. A member is live exactly while a consumer holds its [`Presence`]; each live member is known
//!    to the group's state.
//! 2. A static member that is waited for is not live.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::assignor::{Assignor, MemberId};
use super::interest::{Interest, Topics};
use super::offsets::StaticMember;
use super::presence::{Presence, Wakeups, nanos};
#[cfg(feature = "testing")]
use super::state::hand_over;
use super::state::{GroupState, PollChange};
use crate::error::{Error, Result};
use crate::partition::waiters::Notifier;
use crate::record::TopicPartition;
use crate::trace::{Outbox, note};

/// What a consumer asks for when it joins a group.
#[derive(Debug, Clone)]
pub(crate) struct JoinRequest {
    pub(crate) interest: Interest,
    pub(crate) assignor: Assignor,
    pub(crate) max_poll_interval: Duration,
    /// The name of a static member, and how long its partitions wait for it.
    pub(crate) instance: Option<(Arc<str>, Duration)>,
}

/// A consumer that has joined.
pub(super) struct Joined {
    pub(super) member: MemberId,
    pub(super) presence: Arc<Presence>,
    pub(super) holder: Option<Holder>,
}

/// The new holder of a static member.
#[derive(Debug, Clone)]
pub(super) struct Holder {
    pub(super) instance: Arc<str>,
    /// Counts the holders.
    pub(super) epoch: u32,
}

/// What is kept of a member whose consumer has ended.
pub(super) enum Left {
    Nothing,
    /// A static member that is waited for until this time.
    AwayUntil(u64),
}

/// A member as it is at one moment.
#[derive(Debug, Clone)]
pub(crate) struct MemberView {
    pub(crate) id: u64,
    pub(crate) instance: Option<Arc<str>>,
    pub(crate) is_live: bool,
    pub(crate) assignment: Vec<TopicPartition>,
}

pub(super) struct Members {
    state: GroupState,
    live: HashMap<MemberId, Live>,
    statics: BTreeMap<Arc<str>, Static>,
    /// How many members were evicted.
    evictions: u64,
    /// The generation and the evictions that the last events reported.
    reported: (u64, u64),
    /// Consumers that have lost their instance id to a newer one, to be woken.
    fenced: Wakeups,
}

/// A member with a consumer.
struct Live {
    presence: Arc<Presence>,
    is_evicted: bool,
}

/// A static member: known by name, also while it has no consumer.
struct Static {
    id: MemberId,
    /// Counts its holders.
    epoch: u32,
    interest: Interest,
    rejoin_timeout: Duration,
    /// While it has no consumer, how long it is waited for.
    away_until: Option<u64>,
}

impl Members {
    pub(super) fn new(assignor: Assignor, topics: Arc<Topics>) -> Self {
        let mut state = GroupState::new(assignor);
        state.refresh(topics);
        Self {
            state,
            live: HashMap::new(),
            statics: BTreeMap::new(),
            evictions: 0,
            reported: (0, 0),
            fenced: Wakeups::default(),
        }
    }

    /// The state, for reading. It changes only through this type, which knows the consumers.
    pub(super) fn state(&self) -> &GroupState {
        &self.state
    }

    // ---- topics ------------------------------------------------------------------------------

    /// Changes the partition count of a topic; 0 if it is deleted.
    pub(super) fn topic_changed(&mut self, topic: &str, partitions: u32) {
        self.state.topic_changed(topic, partitions);
    }

    /// Makes the plan that is due since topics have changed, if there is one.
    pub(super) fn catch_up(&mut self, known: impl FnOnce() -> Arc<Topics>) {
        self.state.catch_up(known);
    }

    /// Makes the plan that is due, with all topics that exist now.
    pub(super) fn refresh(&mut self, known: Arc<Topics>) {
        self.state.refresh(known);
    }

    // ---- consumers come and end --------------------------------------------------------------

    /// Adds the static members of an earlier run, which are waited for from now on. Returns the
    /// first deadline.
    pub(super) fn restore(
        &mut self,
        members: impl IntoIterator<Item = (Arc<str>, MemberId, StaticMember)>,
        now: u64,
    ) -> Option<u64> {
        let (mut restored, mut first) = (Vec::new(), None);
        for (instance, id, member) in members {
            let rejoin_timeout = Duration::from_millis(member.rejoin_timeout_ms);
            let until = now.saturating_add(nanos(rejoin_timeout));
            first = Some(first.map_or(until, |first: u64| first.min(until)));
            let (interest, away_until) = (member.interest.clone(), Some(until));
            let held = Static { id, epoch: 0, interest, rejoin_timeout, away_until };
            self.statics.insert(instance, held);
            restored.push((id, member.interest, member.owned));
        }
        self.state.restore(restored);
        self.check();
        first
    }

    /// Adds a consumer, with `id` or with the id that its static member has.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] when the other live members use another assignor; nothing is changed.
    pub(super) fn join(
        &mut self,
        id: MemberId,
        request: &JoinRequest,
        notifier: &Arc<Notifier>,
        now: u64,
    ) -> Result<Joined> {
        if self.state.assignor() != request.assignor {
            let taken_over = request.instance.as_ref().and_then(|(it, _)| self.statics.get(it));
            let taken_over = taken_over.map(|known| known.id);
            if self.live.keys().any(|id| Some(*id) != taken_over) {
                return Err(Error::config(
                    "assignor",
                    "the live members of the group use another one",
                ));
            }
            self.state.set_assignor(request.assignor);
        }
        let (id, holder) = match &request.instance {
            Some((instance, timeout)) => {
                let (id, holder) = self.hold(instance, id, &request.interest, *timeout);
                (id, Some(holder))
            }
            None => (id, None),
        };
        self.state.join(id, request.interest.clone());
        let presence = Presence::new(notifier, request.max_poll_interval, now);
        let live = Live { presence: Arc::clone(&presence), is_evicted: false };
        self.live.insert(id, live);
        self.check();
        Ok(Joined { member: id, presence, holder })
    }

    /// Makes `instance` a static member with `id`, or with the id that it has. A live holder is
    /// fenced, and its partitions are free for the new one.
    fn hold(
        &mut self,
        instance: &Arc<str>,
        id: MemberId,
        interest: &Interest,
        rejoin_timeout: Duration,
    ) -> (MemberId, Holder) {
        let known = self.statics.get(instance);
        let id = known.map_or(id, |known| known.id);
        let epoch = known.map_or(1, |known| known.epoch.saturating_add(1));
        if let Some(older) = self.live.remove(&id) {
            older.presence.fence(epoch);
            self.fenced.add(&older.presence);
            let _ = self.state.stay_away(id);
        }
        let interest = interest.clone();
        let held = Static { id, epoch, interest, rejoin_timeout, away_until: None };
        self.statics.insert(Arc::clone(instance), held);
        (id, Holder { instance: Arc::clone(instance), epoch })
    }

    /// Whether this consumer still holds its membership.
    pub(super) fn is_held(&self, id: MemberId, presence: &Arc<Presence>) -> bool {
        self.live.get(&id).is_some_and(|member| Arc::ptr_eq(&member.presence, presence))
    }

    /// Ends a membership that is held. A static member is waited for, unless it was evicted.
    pub(super) fn leave(&mut self, id: MemberId, instance: Option<&Arc<str>>, now: u64) -> Left {
        let is_evicted = self.live.remove(&id).is_some_and(|member| member.is_evicted);
        if let Some(member) =
            instance.filter(|_| !is_evicted).and_then(|it| self.statics.get_mut(it))
        {
            let until = now.saturating_add(nanos(member.rejoin_timeout));
            member.away_until = Some(until);
            let _ = self.state.stay_away(id);
            self.check();
            return Left::AwayUntil(until);
        }
        let _ = self.state.leave(id);
        if let Some(instance) = instance {
            self.statics.remove(instance);
        }
        self.check();
        Left::Nothing
    }

    /// Evicts overdue members, and removes static members whose wait has ended. Returns the names
    /// of the latter, and the next deadline, [`NEVER`](super::deadlines::NEVER) if there is none.
    pub(super) fn evict_overdue(&mut self, now: u64) -> (Vec<Arc<str>>, u64) {
        let (mut next, mut overdue) = (super::deadlines::NEVER, Vec::new());
        for (&id, member) in self.live.iter_mut().filter(|(_, member)| !member.is_evicted) {
            let deadline = member.presence.deadline(now);
            if deadline > now {
                next = next.min(deadline);
            } else {
                member.is_evicted = true;
                overdue.push(id);
            }
        }
        let (mut expired, mut expired_ids) = (Vec::new(), Vec::new());
        for (instance, member) in &self.statics {
            match member.away_until {
                Some(until) if until <= now => {
                    expired_ids.push(member.id);
                    expired.push(Arc::clone(instance));
                }
                Some(until) => next = next.min(until),
                None => {}
            }
        }
        self.evictions += self.state.sweep(&overdue, &expired_ids) as u64;
        for instance in &expired {
            self.statics.remove(instance);
        }
        self.check();
        (expired, next)
    }

    /// Has each member give up all of its partitions, and divides them anew then.
    #[cfg(feature = "testing")]
    pub(super) fn hand_over_all(&mut self) {
        hand_over::begin(&mut self.state);
    }

    // ---- what a member does ------------------------------------------------------------------

    /// What the member has to do. What it is assigned is its from now on.
    pub(super) fn poll(&mut self, id: MemberId) -> Result<PollChange> {
        self.state.poll(id).map_err(|_| Error::Closed)
    }

    /// Takes a member back after an eviction.
    pub(super) fn rejoin(&mut self, id: MemberId) -> Result<()> {
        self.state.rejoin(id).map_err(|_| Error::Closed)?;
        if let Some(member) = self.live.get_mut(&id) {
            member.is_evicted = false;
        }
        Ok(())
    }

    /// The member has finished with these partitions: the members that wait for them may have them.
    pub(super) fn revoked(&mut self, id: MemberId, partitions: &[TopicPartition]) -> Result<()> {
        self.state.revoked(id, partitions).map_err(|_| Error::Closed)
    }

    /// Dismisses all consumers. Returns them, to be woken.
    #[cfg(feature = "replication")]
    pub(super) fn dismiss(&mut self) -> Wakeups {
        let mut wakeups = std::mem::take(&mut self.fenced);
        for member in self.live.values() {
            member.presence.dismiss();
            wakeups.add(&member.presence);
        }
        *self = Self::new(self.state.assignor(), Arc::default());
        wakeups
    }

    // ---- what follows a change ---------------------------------------------------------------

    /// Emits events for the changes since the last ones.
    pub(super) fn report_events(&mut self, group: &Arc<str>, trace: &Outbox) {
        let now = self.totals();
        let reported = std::mem::replace(&mut self.reported, now);
        if now.1 > reported.1 {
            note!(trace, Evicted { group: Arc::clone(group), members: now.1 - reported.1 });
        }
        if now.0 > reported.0 {
            note!(trace, Rebalanced { group: Arc::clone(group), generation: now.0 });
        }
    }

    /// The consumers to wake because of the last change; wake them without the lock.
    pub(super) fn take_wakeups(&mut self) -> Wakeups {
        let mut wakeups = std::mem::take(&mut self.fenced);
        for id in self.state.take_wakeups() {
            if let Some(member) = self.live.get(&id) {
                member.presence.set_attention(true);
                wakeups.add(&member.presence);
            }
        }
        wakeups
    }

    /// What is stored of a static member.
    pub(super) fn static_record(&self, instance: &str) -> Option<StaticMember> {
        let member = self.statics.get(instance)?;
        Some(StaticMember {
            interest: member.interest.clone(),
            owned: self.state.owners().owned_by(member.id),
            rejoin_timeout_ms: u64::try_from(member.rejoin_timeout.as_millis()).unwrap_or(u64::MAX),
        })
    }

    // ---- what is shown of them ---------------------------------------------------------------

    pub(super) fn live_count(&self) -> usize {
        self.live.len()
    }

    /// Rebalances and evictions.
    pub(super) fn totals(&self) -> (u64, u64) {
        (self.state.generation(), self.evictions)
    }

    /// Each member, in the order of joining.
    pub(super) fn views(&self) -> Vec<MemberView> {
        let instance_of = |id| {
            let mut statics = self.statics.iter();
            statics.find(|(_, member)| member.id == id).map(|(instance, _)| Arc::clone(instance))
        };
        let live = self.live.keys().map(|&id| MemberView {
            id: id.0,
            instance: instance_of(id),
            is_live: true,
            assignment: self.state.owners().owned_by(id),
        });
        let away = self.statics.iter().filter(|(_, member)| member.away_until.is_some());
        let away = away.map(|(instance, member)| MemberView {
            id: member.id.0,
            instance: Some(Arc::clone(instance)),
            is_live: false,
            assignment: self.state.owners().targeted_at(member.id),
        });
        let mut members: Vec<_> = live.chain(away).collect();
        members.sort_by_key(|member| member.id);
        members
    }

    /// The invariants of the module, in debug builds.
    fn check(&self) {
        debug_assert!(self.live.keys().all(|id| self.state.has_member(*id)), "invariant 1");
        let is_live = |member: &Static| self.live.contains_key(&member.id);
        let mut away = self.statics.values().filter(|member| member.away_until.is_some());
        debug_assert!(!away.any(is_live), "invariant 2");
    }
}

#[cfg(all(test, debug_assertions, not(loom)))]
mod tests {
    use super::*;

    fn members() -> Members {
        Members::new(Assignor::default(), Arc::default())
    }

    fn live() -> Live {
        let presence = Presence::new(&Notifier::new(), Duration::from_secs(1), 0);
        Live { presence, is_evicted: false }
    }

    #[test]
    #[should_panic(expected = "invariant 1")]
    fn a_consumer_that_the_state_does_not_know_is_found() {
        let mut members = members();
        members.live.insert(MemberId(1), live());
        members.check();
    }

    #[test]
    #[should_panic(expected = "invariant 2")]
    fn a_static_member_that_is_waited_for_although_it_is_live_is_found() {
        let mut members = members();
        members.state.join(MemberId(1), Interest::default());
        members.live.insert(MemberId(1), live());
        let held = Static {
            id: MemberId(1),
            epoch: 1,
            interest: Interest::default(),
            rejoin_timeout: Duration::from_secs(1),
            away_until: Some(1),
        };
        members.statics.insert("a".into(), held);
        members.check();
    }
}

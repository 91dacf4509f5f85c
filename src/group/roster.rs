//! One group under its lock: the pure state, who is behind each member, and who is overdue.
//!
//! Owns: the group's lock, the presence of its members, the static ones by name. Must not know:
//! other groups, the offsets log, clocks (whoever calls has read it before). Time is nanoseconds
//! on the broker's clock.
//!
//! Invariants:
//! 1. A member is in `live` exactly while a consumer holds its [`Presence`].
//! 2. Nobody is overdue before `look_at`: it is lowered with each new deadline, under the lock, and
//!    the agenda has the group under that time.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::agenda::Agenda;
use super::assignor::{Assignor, MemberId};
use super::interest::{Interest, Topics};
use super::offsets::StaticMember;
use super::state::GroupState;
use crate::error::{Error, Result};
use crate::partition::waiters::Notifier;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, LockRank, Mutex, Ordering};
use crate::trace::{Outbox, note};

/// A time that does not come.
pub(super) const NEVER: u64 = u64::MAX;

/// In the place of the time of the last poll: the member is inside one.
const WAITING: u64 = u64::MAX;

pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(NEVER)
}

/// What a member and its group tell each other without the group's lock.
#[derive(Debug)]
pub(super) struct Presence {
    notifier: Arc<Notifier>,
    /// Whether a poll has anything to tell. Written under the group's lock, read by the member.
    ///
    /// ORDERING: a hint; what it speaks of is read under the lock. The call of the notifier that
    /// follows it wakes a member that has read the old value and parked.
    needs_attention: AtomicBool,
    /// When the member polled last, or `WAITING`. Written by the member, read by whoever looks for
    /// members that are overdue; one that reads an old value evicts a member that was overdue. One
    /// that finds a call that a waiting member has not answered writes its own time.
    last_poll: AtomicU64,
    max_poll_interval: u64,
    /// The epoch of the newer holder of the instance id; 0 while there is none. Written once,
    /// under the group's lock.
    fenced_by: AtomicU32,
}

impl Presence {
    pub(super) fn new(notifier: &Arc<Notifier>, interval: Duration, now: u64) -> Arc<Self> {
        Arc::new(Self {
            notifier: Arc::clone(notifier),
            needs_attention: AtomicBool::new(true),
            last_poll: AtomicU64::new(now),
            max_poll_interval: nanos(interval),
            fenced_by: AtomicU32::new(0),
        })
    }

    #[inline]
    pub(super) fn needs_attention(&self) -> bool {
        self.needs_attention.load(Ordering::Acquire)
    }

    pub(super) fn set_attention(&self, needs_attention: bool) {
        self.needs_attention.store(needs_attention, Ordering::Release);
    }

    #[inline]
    pub(super) fn polled(&self, now: u64) {
        self.last_poll.store(now, Ordering::Release);
    }

    pub(super) fn waits(&self) {
        self.last_poll.store(WAITING, Ordering::Release);
    }

    /// When the member will be overdue, if it does not poll again.
    fn deadline(&self, now: u64) -> u64 {
        let last = self.last_poll.load(Ordering::Acquire);
        if last == WAITING && self.notifier.has_signals() {
            // It was called and has not polled since: a thread is about to, and a task may have
            // been forgotten together with its stream. From here on it is as if it had polled now.
            // ORDERING: a member that polls in between has stored its own time, which remains.
            let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
            let _ = self.last_poll.compare_exchange(WAITING, now, success, failure);
        }
        let last = if last == WAITING { now } else { last };
        last.saturating_add(self.max_poll_interval)
    }

    fn fence(&self, by: u32) {
        self.fenced_by.store(by, Ordering::Release);
        self.set_attention(true);
    }

    pub(super) fn fenced_by(&self) -> Option<u32> {
        Some(self.fenced_by.load(Ordering::Acquire)).filter(|by| *by > 0)
    }
}

/// Whom to wake; not under any lock.
#[must_use]
#[derive(Debug, Default)]
pub(super) struct Wakeups(Vec<Arc<Notifier>>);

impl Wakeups {
    pub(super) fn call(self) {
        for notifier in self.0 {
            notifier.call();
        }
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}

/// A group that has members, live or away.
pub(super) struct Group {
    pub(super) name: Arc<str>,
    pub(super) roster: Mutex<Roster>,
    /// Nobody is overdue before. Written under the lock, read by every poll of every member.
    look_at: AtomicU64,
    /// Where the group stands under that time.
    agenda: Arc<Agenda>,
    pub(super) number: u64,
}

pub(super) struct Roster {
    pub(super) state: GroupState,
    pub(super) assignor: Assignor,
    pub(super) live: HashMap<MemberId, Live>,
    pub(super) statics: BTreeMap<Arc<str>, Static>,
    /// How many members were evicted.
    pub(super) evictions: u64,
    /// The generation and the evictions of which there was an event.
    told: (u64, u64),
}

/// A member with a consumer behind it.
pub(super) struct Live {
    pub(super) presence: Arc<Presence>,
    pub(super) is_evicted: bool,
}

/// A static member: known by name, also while nobody is behind it.
pub(super) struct Static {
    pub(super) id: MemberId,
    /// Counts its holders.
    pub(super) epoch: u32,
    pub(super) interest: Interest,
    pub(super) rejoin_timeout: Duration,
    /// While nobody is behind it, how long it is waited for.
    pub(super) away_until: Option<u64>,
}

/// Who holds a static member from now on.
#[derive(Debug, Clone)]
pub(super) struct Holder {
    pub(super) instance: Arc<str>,
    pub(super) epoch: u32,
}

impl Group {
    pub(super) fn new(
        name: &Arc<str>,
        assignor: Assignor,
        topics: &Arc<Topics>,
        agenda: &Arc<Agenda>,
    ) -> Arc<Self> {
        let mut state = GroupState::new(assignor);
        state.refresh(Arc::clone(topics));
        let (live, statics) = (HashMap::new(), BTreeMap::new());
        let roster = Mutex::ranked(
            LockRank::Roster,
            Roster { state, assignor, live, statics, evictions: 0, told: (0, 0) },
        );
        let (name, look_at) = (Arc::clone(name), AtomicU64::new(NEVER));
        let (agenda, number) = (Arc::clone(agenda), agenda.new_number());
        Arc::new(Self { name, roster, look_at, agenda, number })
    }

    /// What is done over the heads of the members is refused while one is live.
    ///
    /// # Errors
    ///
    /// [`Error::GroupNotEmpty`].
    pub(super) fn check_no_members(&self) -> Result<()> {
        match self.roster.lock().live.len() {
            0 => Ok(()),
            members => Err(Error::GroupNotEmpty { group: self.name.as_ref().to_owned(), members }),
        }
    }

    /// Nobody is overdue before this time.
    #[inline]
    pub(super) fn look_at(&self) -> u64 {
        self.look_at.load(Ordering::Acquire)
    }

    /// Takes note of a deadline. The roster is locked.
    pub(super) fn note_deadline(self: &Arc<Self>, deadline: u64) {
        self.set_look_at(self.look_at().min(deadline));
    }

    /// The roster is locked, so that the agenda follows the same order of changes.
    fn set_look_at(self: &Arc<Self>, time: u64) {
        let before = self.look_at.swap(time, Ordering::AcqRel);
        if before != time {
            self.agenda.put(self, before, time);
        }
    }

    /// Evicts who is overdue and forgets who was waited for in vain; returns the names of these.
    /// The roster is locked.
    pub(super) fn sweep(self: &Arc<Self>, roster: &mut Roster, now: u64) -> Vec<Arc<str>> {
        if now < self.look_at() {
            return Vec::new();
        }
        let (mut next, mut overdue) = (NEVER, Vec::new());
        for (&id, member) in roster.live.iter_mut().filter(|(_, member)| !member.is_evicted) {
            let deadline = member.presence.deadline(now);
            if deadline > now {
                next = next.min(deadline);
            } else {
                member.is_evicted = true;
                overdue.push(id);
            }
        }
        let (mut gone, mut gone_ids) = (Vec::new(), Vec::new());
        for (instance, member) in &roster.statics {
            match member.away_until {
                Some(until) if until <= now => {
                    gone_ids.push(member.id);
                    gone.push(Arc::clone(instance));
                }
                Some(until) => next = next.min(until),
                None => {}
            }
        }
        roster.evictions += roster.state.sweep(&overdue, &gone_ids) as u64;
        for instance in &gone {
            roster.statics.remove(instance);
        }
        self.set_look_at(next);
        gone
    }
}

impl Roster {
    /// Makes events of what has changed since there were some.
    pub(super) fn note_events(&mut self, group: &Arc<str>, trace: &Outbox) {
        let now = (self.state.generation(), self.evictions);
        let told = std::mem::replace(&mut self.told, now);
        if now.1 > told.1 {
            note!(trace, Evicted { group: Arc::clone(group), members: now.1 - told.1 });
        }
        if now.0 > told.0 {
            note!(trace, Rebalanced { group: Arc::clone(group), generation: now.0 });
        }
    }

    /// Whom to wake for what has just changed; call them without the lock.
    pub(super) fn take_wakeups(&mut self) -> Wakeups {
        let mut wakeups = Wakeups::default();
        for id in self.state.take_wakeups() {
            if let Some(member) = self.live.get(&id) {
                member.presence.set_attention(true);
                wakeups.0.push(Arc::clone(&member.presence.notifier));
            }
        }
        wakeups
    }

    /// Makes `instance` a static member under `id`, or under the id that it has. A holder that is
    /// still there is fenced, and what it owned is free for the new one.
    pub(super) fn hold(
        &mut self,
        instance: &Arc<str>,
        id: MemberId,
        interest: &Interest,
        rejoin_timeout: Duration,
    ) -> (MemberId, Holder, Wakeups) {
        let known = self.statics.get(instance);
        let id = known.map_or(id, |known| known.id);
        let epoch = known.map_or(1, |known| known.epoch.saturating_add(1));
        let mut wakeups = Wakeups::default();
        if let Some(older) = self.live.remove(&id) {
            older.presence.fence(epoch);
            wakeups.0.push(Arc::clone(&older.presence.notifier));
            let _ = self.state.stay_away(id);
        }
        let interest = interest.clone();
        let held = Static { id, epoch, interest, rejoin_timeout, away_until: None };
        self.statics.insert(Arc::clone(instance), held);
        (id, Holder { instance: Arc::clone(instance), epoch }, wakeups)
    }

    /// What is stored of a static member.
    pub(super) fn record_of(&self, instance: &str) -> Option<StaticMember> {
        let member = self.statics.get(instance)?;
        Some(StaticMember {
            interest: member.interest.clone(),
            owned: self.state.assignment(member.id),
            rejoin_timeout_ms: u64::try_from(member.rejoin_timeout.as_millis()).unwrap_or(u64::MAX),
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.agenda.remove(self.look_at(), self.number);
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("name", &self.name).finish_non_exhaustive()
    }
}

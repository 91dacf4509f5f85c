//! Groups and producer ids that nobody uses any more expire.
//!
//! Owns: how long is too long, and the named producers' part of it. What is stored is when each was
//! used last, as the wall clock showed it; within a run ages are compared in its own time.

use std::sync::Arc;
use std::time::Duration;

use super::catalog::{CatalogChange, ProducerEntry};
use super::engine::Engine;
use crate::clock::Moment;
use crate::error::Result;
use crate::group::expiry::IdleGroup;
use crate::log::retention::RetentionPolicy;
use crate::partition::PRODUCER_EXPIRY;
use crate::sync::Ordering;
use crate::trace::note;

/// What a group is kept for at least, where no setting says so.
const GROUP_EXPIRY: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// LIMIT: a group with members, and no commit, is recorded as seen this often at most; after a kill
/// nothing later is known, so that the group is kept for as much longer. A group that is to expire
/// soon is recorded more often, by this part of the time.
const SEEN_EVERY: Duration = Duration::from_secs(60 * 60);
const SEEN_PER_EXPIRY: u32 = 16;

/// LIMIT: the same for a producer that is held.
const HELD_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// LIMIT: how many producers of an earlier version, which stored no times, are recorded as used at a
/// time.
const UNKNOWN_PER_LOOK: usize = 500;

/// LIMIT: a clock that is set by less than this makes no difference to what is kept for days.
const SET_BY: i64 = 60 * 60 * 1_000;

/// How far the wall clock is from the time of this run, in milliseconds: by how much it was set
/// forward since the opening.
#[derive(Debug, Default)]
pub(crate) struct ClockSet {
    /// At the last look.
    seen: i64,
    /// When what was used was dated last, or less since.
    dated: i64,
}

impl ClockSet {
    /// How far the clock is set, if it was set forward since what was used was dated, and for good:
    /// a time that it shows at one look only is none to store.
    fn look(&mut self, now: Moment, is_last: bool) -> Option<i64> {
        let of = |millis: u64| i64::try_from(millis).unwrap_or(i64::MAX);
        let set_by = of(now.wall).saturating_sub(of(now.run));
        let stays = is_last || set_by.saturating_sub(self.seen) < SET_BY;
        self.seen = set_by;
        self.dated = self.dated.min(set_by);
        let is_set = set_by.saturating_sub(self.dated) >= SET_BY;
        (stays && is_set).then_some(set_by)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Engine {
    /// Records which groups and producers are in use, and forgets those that were not for too long.
    pub(super) fn expire(&self) -> Result<()> {
        self.redate(false)?;
        let groups = self.expire_groups();
        groups.and(self.expire_producers())
    }

    /// How often a group is recorded as seen.
    fn seen_every(&self) -> u64 {
        let expiry = self.settings.group_expiry.unwrap_or(GROUP_EXPIRY);
        millis(SEEN_EVERY.min(expiry / SEEN_PER_EXPIRY))
    }

    /// The last record of which groups have members, at a clean end.
    pub(super) fn note_last_use(&self) {
        // What is not stored costs a group a part of its time.
        let _ = self.redate(true);
        let _ = self.coordinator.note_seen(0);
        let _ = self.hold_producers(0);
    }

    /// Records again when what was used in this run was used, once the clock is set that was behind
    /// at the opening: by what it showed, the next run would find it idle.
    fn redate(&self, is_last: bool) -> Result<()> {
        let partition = self.local.partition();
        let (since, now) = (partition.clock().began_at(), partition.clock().moment());
        let Some(set_by) = self.clock_set.lock().look(now, is_last) else { return Ok(()) };
        // What the partitions know of producers is in their recovery points.
        for topic in self.all_topics() {
            topic.partitions.iter().for_each(|core| core.give_back_checkpoint());
        }
        let groups = self.coordinator.redate(since, now);
        // Whoever acquires an id waits, and raises the epoch that is recorded here.
        let producers = self.producers.lock();
        let used = self.catalog.read(|catalog| {
            let dated = |(name, entry): (&Arc<str>, &ProducerEntry)| {
                let used = catalog.producers.time_of(name).filter(|used| *used >= since)?;
                Some((CatalogChange::Producer(Arc::clone(name), *entry), Moment::used(used, now)))
            };
            catalog.producers.iter().filter_map(dated).collect::<Vec<_>>()
        });
        let stored = self.catalog.append_dated(used);
        drop(producers);
        self.catalog.tidy();
        groups.and(stored)?;
        self.clock_set.lock().dated = set_by;
        Ok(())
    }

    fn expire_groups(&self) -> Result<()> {
        let every = self.seen_every();
        self.coordinator.note_seen(every)?;
        let least = self.settings.group_expiry.unwrap_or(GROUP_EXPIRY);
        let now = self.local.partition().clock().millis();
        for group in self.coordinator.idle_groups(millis(least)) {
            let Some(expiry) = self.expiry_of(&group) else { continue };
            let (used, is_seen) = group.last_use;
            let expiry = expiry.saturating_add(if is_seen { every } else { 0 });
            if now.saturating_sub(used) > expiry && self.coordinator.expire(&group)? {
                self.expired.groups.fetch_add(1, Ordering::Relaxed);
                note!(self.env.trace, GroupExpired { group: group.name });
            }
        }
        Ok(())
    }

    /// How long a group is kept without use, in milliseconds; `None` for ever.
    fn expiry_of(&self, group: &IdleGroup) -> Option<u64> {
        if let Some(expiry) = self.settings.group_expiry {
            return Some(millis(expiry)).filter(|_| expiry != Duration::MAX);
        }
        // The records that a group has yet to read must not outlive its position.
        let topics = self.all_topics();
        let topics = topics.iter().filter(|topic| group.topics.contains(&topic.id));
        topics
            .map(|topic| RetentionPolicy::of(&topic.config).age)
            .try_fold(millis(GROUP_EXPIRY), |longest, age| Some(longest.max(age?)))
    }

    fn expire_producers(&self) -> Result<()> {
        self.hold_producers(millis(HELD_EVERY))?;
        for (name, used) in self.idle_producers() {
            self.expire_producer(name, used)?;
        }
        Ok(())
    }

    /// The producers that were not used for too long, and when each was used last.
    pub(crate) fn idle_producers(&self) -> Vec<(Arc<str>, u64)> {
        let now = self.local.partition().clock().millis();
        let limit = millis(PRODUCER_EXPIRY).saturating_add(millis(HELD_EVERY));
        self.catalog.read(|catalog| {
            let idle = |name: &Arc<str>| {
                let used = catalog.producers.time_of(name).unwrap_or(0);
                let is_idle = used > 0 && now.saturating_sub(used) > limit;
                is_idle.then(|| (Arc::clone(name), used))
            };
            catalog.producers.keys().filter_map(idle).collect()
        })
    }

    /// Forgets a producer that is idle, unless it has been used meanwhile.
    pub(crate) fn expire_producer(&self, name: Arc<str>, used: u64) -> Result<()> {
        // Whoever acquires the id waits, and finds it used or gone.
        let mut producers = self.producers.lock();
        let is_held = producers.get(&name).is_some_and(|held| Arc::strong_count(held) > 1);
        let last = self.catalog.read(|catalog| catalog.producers.time_of(&name));
        if is_held || last != Some(used) {
            return Ok(());
        }
        let changes = self.catalog.read(|catalog| catalog.producer_gone(&name));
        self.catalog.append_whole(changes)?;
        producers.remove(&name);
        drop(producers);
        self.expired.producers.fetch_add(1, Ordering::Relaxed);
        note!(self.env.trace, ProducerExpired { producer: name });
        Ok(())
    }

    /// Records that producers are held, unless it was recorded less than `every` milliseconds ago;
    /// and that those are in use of which it is not known.
    fn hold_producers(&self, every: u64) -> Result<()> {
        let now = self.local.partition().clock().millis();
        let producers = self.producers.lock();
        let is_held =
            |name: &Arc<str>| producers.get(name).is_some_and(|held| Arc::strong_count(held) > 1);
        let changes = self.catalog.read(|catalog| {
            let mut unknown = 0;
            let mut is_due = |name: &Arc<str>| {
                let used = catalog.producers.time_of(name).unwrap_or(0);
                unknown += usize::from(used == 0);
                let is_unknown = used == 0 && unknown <= UNKNOWN_PER_LOOK;
                is_unknown || (is_held(name) && used.saturating_add(every) <= now)
            };
            let due = catalog.producers.iter().filter(|(name, _)| is_due(name));
            due.map(|(name, entry)| CatalogChange::Producer(Arc::clone(name), *entry))
                .collect::<Vec<_>>()
        });
        if changes.is_empty() {
            return Ok(());
        }
        let stored = self.catalog.append_if(changes, |_| Ok(()));
        drop(producers);
        self.catalog.tidy();
        stored.map(drop)
    }
}

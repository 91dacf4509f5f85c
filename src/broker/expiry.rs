//! Expires groups and producer ids that are not used any more.
//!
//! Owns: how long a group is kept, and whether uses in this run are stored with the present wall
//! clock. Stored is the wall-clock time of each last use; within a run, ages are compared in the
//! time of the run. Must not know: how a group or a producer is removed.

use std::sync::Arc;
use std::time::Duration;

use super::producers::Producers;
use super::run_parts::RunParts;
use crate::clock::Moment;
use crate::error::Result;
use crate::group::expiry::{self, IdleGroup};
use crate::log::retention::RetentionPolicy;
use crate::sync::{AtomicU64, LockLevel, Mutex, Ordering};
use crate::trace::note;

/// LIMIT: how long a group without members and commits is kept at least, unless a setting says
/// otherwise: the default retention of a topic, and Kafka's default for committed offsets.
const GROUP_EXPIRY: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// LIMIT: a group that has members but does not commit is recorded as in use once an hour at most.
/// After a kill nothing later is known, so the group is kept for an hour longer: little beside the
/// seven days of the default, and it costs 24 small entries a day.
const SEEN_EVERY: Duration = Duration::from_secs(60 * 60);

/// LIMIT: with a short expiry, such a group is recorded this many times within it, so that it is
/// kept for at most 1/16 of the expiry longer.
const SEEN_PER_EXPIRY: u32 = 16;

/// LIMIT: a clock that is set by less than this makes no difference to what is kept for days.
const SET_BY: i64 = 60 * 60 * 1_000;

/// How far the wall clock was set since the opening, in milliseconds: its distance from the time of
/// this run.
#[derive(Debug, Default)]
struct ClockSet {
    /// At the last look.
    seen: i64,
    /// The distance at the last dating, or a lower one since.
    dated: i64,
}

impl ClockSet {
    /// How far the clock is set, if it was set forward since the last dates were stored, and two
    /// checks in a row have found it so: a time that the clock shows only for a moment must not be
    /// stored.
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

/// See the module's documentation.
pub(crate) struct Expiry {
    run: RunParts,
    producers: Arc<Producers>,
    clock_set: Mutex<ClockSet>,
    /// How many groups have expired since the opening.
    ///
    /// ORDERING: Relaxed: added by the expiry walk, loaded for the metrics; a count that guards no
    /// memory.
    groups_expired: AtomicU64,
}

impl Expiry {
    pub(super) fn new(run: &RunParts, producers: &Arc<Producers>) -> Self {
        Self {
            run: run.clone(),
            producers: Arc::clone(producers),
            clock_set: Mutex::at_level(LockLevel::ClockSet, ClockSet::default()),
            groups_expired: AtomicU64::new(0),
        }
    }

    pub(super) fn groups_expired(&self) -> u64 {
        self.groups_expired.load(Ordering::Relaxed)
    }

    /// Records which groups and producers are in use, and removes those that were not used for too
    /// long.
    pub(super) fn run(&self) -> Result<()> {
        if self.run.context().follows() {
            return Ok(());
        }
        self.redate(false)?;
        let groups = self.expire_groups();
        groups.and(self.producers.expire_idle())
    }

    /// How often a group is recorded as seen.
    fn seen_every(&self) -> u64 {
        let expiry = self.run.settings().group_expiry.unwrap_or(GROUP_EXPIRY);
        millis(SEEN_EVERY.min(expiry / SEEN_PER_EXPIRY))
    }

    /// The last record of which groups have members, at a clean end.
    pub(super) fn note_last_use(&self) {
        if self.run.context().follows() {
            return;
        }
        // If it is not stored, a group may expire earlier by as much.
        let _ = self.redate(true);
        let _ = expiry::note_seen(self.run.logs().coordinator(), 0);
        let _ = self.producers.note_held(0);
    }

    /// Records the uses in this run again, with corrected times, after a clock was set that was
    /// slow at the opening. With the old times the next run would find the groups and producers
    /// idle.
    fn redate(&self, is_last: bool) -> Result<()> {
        let clock = self.run.logs().clock();
        let (since, now) = (clock.began_at(), clock.moment());
        let Some(set_by) = self.clock_set.lock().look(now, is_last) else { return Ok(()) };
        // The partitions' own producer tables are in their recovery points.
        for topic in self.run.live().all() {
            topic.partitions.iter().for_each(|core| core.log().give_back_checkpoint());
        }
        let groups = expiry::redate(self.run.logs().coordinator(), since, now);
        groups.and(self.producers.redate(since, now))?;
        self.clock_set.lock().dated = set_by;
        Ok(())
    }

    fn expire_groups(&self) -> Result<()> {
        let every = self.seen_every();
        expiry::note_seen(self.run.logs().coordinator(), every)?;
        let least = self.run.settings().group_expiry.unwrap_or(GROUP_EXPIRY);
        let now = self.run.logs().clock().millis();
        for group in expiry::idle_groups(self.run.logs().coordinator(), millis(least)) {
            let Some(expiry) = self.expiry_of(&group) else { continue };
            let (used, is_seen) = group.last_use;
            let expiry = expiry.saturating_add(if is_seen { every } else { 0 });
            if now.saturating_sub(used) > expiry
                && expiry::expire(self.run.logs().coordinator(), &group)?
            {
                self.groups_expired.fetch_add(1, Ordering::Relaxed);
                note!(self.run.env().trace, GroupExpired { group: group.name });
            }
        }
        Ok(())
    }

    /// How long a group is kept without use, in milliseconds; `None` for ever.
    fn expiry_of(&self, group: &IdleGroup) -> Option<u64> {
        if let Some(expiry) = self.run.settings().group_expiry {
            return Some(millis(expiry)).filter(|_| expiry != Duration::MAX);
        }
        // The position of a group must not be removed before the records that it has yet to read.
        let topics = self.run.live().all();
        let topics = topics.iter().filter(|topic| group.topics.contains(&topic.id));
        topics
            .map(|topic| RetentionPolicy::of(&topic.config).age)
            .try_fold(millis(GROUP_EXPIRY), |longest, age| Some(longest.max(age?)))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

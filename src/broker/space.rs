//! Space for appends, in the byte budget and on the disk.
//!
//! Owns: what is done at once when an append was refused for want of space, and how an append waits
//! for space. The background work would do the same within a minute, by the settings of the topics;
//! a refused append must not wait for that. Must not know: how records are removed
//! ([`retention`](super::retention)).

use std::sync::Arc;
use std::time::Duration;

use super::retention::Retention;
use super::run_parts::RunParts;
use super::workers::Workers;
use crate::clock::real_now;
use crate::config::{Cleanup, WhenFull};
use crate::error::{Error, Result};
use crate::foreign;
use crate::log::create::FIRST_ALLOCATION_BYTES;
use crate::partition::PartitionCore;
use crate::partition::background::{Wait, Want};
use crate::partition::compactor::Occasion;
use crate::sync::{LockLevel, Mutex};
use crate::topic::TopicShared;

/// What decides whether more space can be freed than at the last attempt. If none of it has changed
/// there is no other attempt, so that an append that is tried in a loop does not keep the disk
/// busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Circumstances {
    appended: u64,
    /// How often space was given back to the budget.
    returns: u64,
    /// On the broker's clock, in seconds: records expire.
    time: u64,
}

/// LIMIT: how long an append that waits for a full disk sleeps at most. What another program
/// removes from the disk is not reported, nor is memory that a message held.
const LOOK_AT_DISK: Duration = Duration::from_secs(1);

/// See the module's documentation.
pub(crate) struct Space {
    run: RunParts,
    workers: Arc<Workers>,
    retention: Retention,
    /// Held while the oldest records make room for new ones, so that no two callers remove records
    /// for the same need.
    dropping: Mutex<()>,
    /// The circumstances of the last attempt to free space after a refused append.
    last_attempt: Mutex<Option<Circumstances>>,
}

impl Space {
    pub(super) fn new(run: &RunParts, workers: &Arc<Workers>) -> Self {
        Self {
            run: run.clone(),
            workers: Arc::clone(workers),
            retention: Retention::new(run),
            dropping: Mutex::at_level(LockLevel::RoomMaking, ()),
            last_attempt: Mutex::at_level(LockLevel::Relieved, None),
        }
    }

    pub(crate) fn retention(&self) -> &Retention {
        &self.retention
    }

    /// Has the workers make room, or appends wait for it, where the settings ask for that.
    pub(super) fn serve_appends(self: &Arc<Self>) {
        let weak = Arc::downgrade(self);
        match self.run.settings().when_full {
            WhenFull::Refuse => {}
            WhenFull::DropOldest => self.workers.set_room(move |core, want| {
                Ok(weak.upgrade().is_some_and(|space| space.make_room(core, want)))
            }),
            WhenFull::Wait { at_most } => self.workers.set_room(move |core, want| {
                weak.upgrade().map_or(Ok(false), |space| space.wait_for_room(core, want, at_most))
            }),
        }
    }

    /// Removes the oldest records of all topics until a batch of `want.bytes` fits the budget, with
    /// some space to spare. For an append that asks again the space was not enough, so at least one
    /// segment is removed. False if none can be, and if it is the disk that is full: other programs
    /// may use it, and no number of old records makes up for that.
    pub(super) fn make_room(&self, core: &Arc<PartitionCore>, want: &Want) -> bool {
        /// LIMIT: enough for a new segment's first allocation and a few steps of growth: each drop
        /// costs a sync, which must not come with every append.
        const SPARE_BYTES: u64 = 1 << 20;
        if !want.is_budget {
            return false;
        }
        // What removes records notes it in an internal log: that would wait for itself here.
        debug_assert!(
            !self.run.logs().contains(core),
            "an internal log has no budget to be out of"
        );
        let _woken = foreign::hold_back();
        let _one = self.dropping.lock();
        let budget = &self.run.env().space;
        let wanted = want.bytes.saturating_add(SPARE_BYTES.min(budget.limit() / 16));
        let mut is_done = !want.is_again;
        while !is_done || budget.free() < wanted {
            let dropped = match self.retention.drop_oldest() {
                Ok(false) if !is_done => self.retention.drop_last(core),
                dropped => dropped,
            };
            if !matches!(dropped, Ok(true)) {
                return is_done;
            }
            is_done = true;
        }
        true
    }

    /// Removes the oldest sealed segments until the first segments of `count` new partitions fit
    /// the budget.
    pub(super) fn make_room_for_partitions(&self, count: u32) {
        if self.run.settings().when_full != WhenFull::DropOldest {
            return;
        }
        let wanted = FIRST_ALLOCATION_BYTES.saturating_mul(u64::from(count));
        let _woken = foreign::hold_back();
        let _one = self.dropping.lock();
        while self.run.env().space.free() < wanted
            && matches!(self.retention.drop_oldest(), Ok(true))
        {}
    }

    /// Frees space if an append was refused since the last call: removes expired records, and
    /// compacts compacted topics whatever their dirty ratio.
    pub(super) fn relieve(&self) -> Result<()> {
        if !self.workers.take_refusal() {
            return Ok(());
        }
        let circumstances = Circumstances {
            appended: self.run.live().appended(),
            returns: self.run.env().space.returns(),
            time: Duration::as_secs(&self.run.context().clock.monotonic()),
        };
        if self.last_attempt.lock().replace(circumstances) == Some(circumstances) {
            return Ok(());
        }
        let retained = self.retention.enforce();
        for partition in self.run.live().partitions() {
            partition.compactor().request(Occasion::NoSpace);
        }
        retained
    }

    /// Waits for room, as [`WhenFull::Wait`](crate::WhenFull::Wait) says. Called after each attempt
    /// of an append that failed, with no lock held. False when the time is over and the last
    /// attempt is made, for a caller that may not wait, and for the internal logs: what is appended
    /// to those is waited for under locks.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`], and [`Error::UnknownTopic`] when the topic was deleted.
    pub(super) fn wait_for_room(
        &self,
        core: &Arc<PartitionCore>,
        want: &mut Want,
        at_most: Duration,
    ) -> Result<bool> {
        if !want.may_wait {
            return Ok(false);
        }
        if self.run.logs().contains(core) {
            return Ok(false);
        }
        // Read before `check_open`: a broker closes its partitions after it is closed itself.
        let is_closed = core.is_closed();
        self.run.gate().check_open()?;
        if is_closed {
            return Err(Error::UnknownTopic(core.origin.topic.to_string()));
        }
        let space = &self.run.env().space;
        let pause = match want.wait {
            Some(pause) if pause.is_over => return Ok(false),
            Some(pause) => {
                let look = real_now().checked_add(LOOK_AT_DISK).filter(|_| !want.is_budget);
                let until = [pause.until, look].into_iter().flatten().min();
                space.wait_for_return(pause.seen, until);
                Wait { is_over: pause.until.is_some_and(|until| real_now() >= until), ..pause }
            }
            None => Wait { seen: 0, until: real_now().checked_add(at_most), is_over: false },
        };
        // Read before the next attempt, so that no return is missed.
        want.wait = Some(Wait { seen: space.returns(), ..pause });
        Ok(true)
    }

    /// Has appends that wait try again: by new settings of a topic there may be room for them. If
    /// they are refused again, space is freed by these settings.
    pub(super) fn settings_changed(&self) {
        *self.last_attempt.lock() = None;
        self.run.env().space.wake();
    }

    /// Keeps a file for compactions on a full disk, if there is a topic that is compacted. What
    /// cannot be made now is tried again every minute.
    pub(super) fn keep_compaction_spare(&self) {
        let Some(spare) = &self.run.env().spare else { return };
        let is_compacted = |topic: &Arc<TopicShared>| topic.config.cleanup != Cleanup::Delete;
        if self.run.live().all().iter().any(is_compacted) {
            let _ = spare.fill(&*self.run.env().disk);
        }
    }
}

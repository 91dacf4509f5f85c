//! The work of a log beside appending: syncs, space ahead, footers behind, retention.
//!
//! What blocks on the disk is handed out as [`tasks`](super::tasks) and taken back when it is done.

use std::sync::Arc;

use super::create::Prepared;
use super::space::Growth;
use super::tasks::{FooterTask, PrepareTask, SyncFile, SyncScope, SyncTask, Unfinished};
use super::{Checkpoint, Log, to_tuple};
use crate::error::Result;
use crate::format::Footer;
use crate::rules::Rule;

impl Log {
    // ---- syncs -------------------------------------------------------------------------------

    /// A task that makes durable what is published now. Empty when all of it is. One is under way
    /// at a time.
    ///
    /// It takes what it needs with it, however many segments wait: appends wait for this, and for
    /// [`finish_sync`](Self::finish_sync). Whoever runs the task drops it under no lock, since that
    /// closes the files.
    pub(crate) fn begin_sync(&mut self, scope: SyncScope) -> SyncTask {
        let unproved = std::mem::take(&mut self.unproved);
        let mut files = Vec::from(std::mem::take(&mut self.to_sync));
        let segments = Arc::clone(&self.segments);
        let sealed_to = self.unfinished.back().map(|last| last.segment.places.1);
        if scope == SyncScope::Sealed {
            return SyncTask { unproved, files, segments, sealed_to, target: self.sealed_end() };
        }
        if let Some(active) = self.active.as_mut().filter(|active| !active.is_synced()) {
            // What is published from here on belongs to the next sync.
            active.announced = false;
            files.push(SyncFile {
                segment: Arc::clone(&active.segment),
                file: Arc::clone(&active.file),
                end: active.position,
            });
        }
        SyncTask { unproved, files, segments, sealed_to, target: self.ends.log_end() }
    }

    /// Takes a task back that did not succeed: nothing of it is durable, whatever has been synced.
    pub(crate) fn give_back_sync(&mut self, task: SyncTask) {
        let before = std::mem::replace(&mut self.unproved, task.unproved);
        self.unproved.extend(before);
        let next = self.to_sync.front().map(|next| next.segment.number);
        // Without the one that was active: it still is, or was sealed meanwhile and waits already.
        let was_sealed =
            |file: &SyncFile| file.segment.sealed().is_some() && Some(file.segment.number) != next;
        for file in task.files.into_iter().filter(was_sealed).rev() {
            self.to_sync.push_front(file);
        }
    }

    /// Takes note of a sync that succeeded.
    pub(crate) fn finish_sync(&mut self, task: &SyncTask) {
        self.ends.advance_durable(task.target);
        self.synced_to = self.synced_to.max(task.sealed_to);
        let Some(last) = task.files.last() else { return };
        if let Some(active) = &mut self.active
            && Arc::ptr_eq(&active.segment, &last.segment)
        {
            active.synced_to(last.end);
            return;
        }
        // A segment that was sealed while the sync ran is the first of those that wait for the
        // next. It may end behind what this one covered.
        let is_covered =
            |next: &SyncFile| Arc::ptr_eq(&next.segment, &last.segment) && last.end >= next.end;
        if self.to_sync.front().is_some_and(is_covered) {
            self.to_sync.pop_front();
            self.synced_to = self.synced_to.max(Some(last.segment.places.1));
        }
    }

    /// Whether anything is published and not durable.
    pub(crate) fn is_dirty(&self) -> bool {
        self.ends.is_dirty()
    }

    // ---- work ahead and behind ---------------------------------------------------------------

    /// Whether [`growth_wish`](Self::growth_wish) or a next segment is worth asking for: looked at
    /// after every append, so it only compares numbers.
    #[inline]
    pub(crate) fn wants_space(&self) -> bool {
        let Some(active) = &self.active else { return false };
        active.is_near_end()
            || self.wants_next()
            || (active.is_near_roll() && self.prepared.as_ref().is_some_and(Prepared::is_small))
    }

    /// Space for the active segment, or for the next one if that is needed soon.
    pub(crate) fn growth_wish(&self) -> Option<Growth> {
        let active = self.active.as_ref()?;
        let next = self.prepared.as_ref().filter(|next| active.is_near_roll() && next.is_small());
        active.growth_wish().or_else(|| next.map(Prepared::growth))
    }

    pub(crate) fn finish_growth(&mut self, growth: &Growth, end: u64) {
        match (&mut self.active, &mut self.prepared) {
            (Some(active), _) if active.segment.number == growth.segment => active.grown_to(end),
            (_, Some(next)) if next.header.number == growth.segment => next.grown_to(end),
            _ => {}
        }
    }

    /// Whether the active segment is so full that the next one should be made ready.
    pub(crate) fn wants_next(&self) -> bool {
        self.prepared.is_none()
            && self.active.as_ref().is_some_and(|active| active.position > active.capacity() / 2)
    }

    pub(crate) fn has_prepared(&self) -> bool {
        self.prepared.is_some()
    }

    /// What the file of the prepared segment takes.
    pub(crate) fn prepared_bytes(&self) -> u64 {
        self.prepared.as_ref().map_or(0, |prepared| prepared.claim.bytes())
    }

    pub(crate) fn begin_prepare(&mut self) -> Result<PrepareTask> {
        let new = self.prepare(0, None)?;
        Ok(PrepareTask { env: Arc::clone(&self.env), new })
    }

    /// Takes a prepared segment, unless the log has gone past its number meanwhile.
    pub(crate) fn finish_prepare(&mut self, prepared: Prepared) {
        let last = self.segments.last().map_or(0, |segment| segment.number);
        if self.prepared.is_none() && prepared.header.number > last {
            self.prepared = Some(prepared);
        } else {
            prepared.discard(&*self.env.disk);
        }
    }

    /// Gives up the files, which are gone with their topic: handles that are still about must not
    /// keep the space that they had. Nothing is appended after this.
    pub(crate) fn give_up_files(&mut self) {
        self.prepared = None;
        self.active = None;
        self.unfinished.clear();
        self.to_sync.clear();
        self.footerless.clear();
        self.unproved.clear();
        for segment in self.segments.all() {
            segment.try_drop_map();
        }
    }

    /// Gives up a prepared segment that will never be used.
    pub(crate) fn discard_prepared(&self, prepared: Prepared) {
        prepared.discard(&*self.env.disk);
    }

    /// The footer to be written next: of the oldest segment without one, once it is synced.
    pub(crate) fn begin_footer(&mut self) -> Option<FooterTask> {
        let is_synced = |oldest: &Unfinished| Some(oldest.segment.places.1) <= self.synced_to;
        let is_due = |oldest: &&Unfinished| is_synced(oldest) || !Rule::FooterAfterSync.holds();
        let oldest = self.unfinished.front().filter(is_due)?;
        let sealed = *oldest.segment.sealed()?;
        let footer = Footer {
            base_offset: oldest.segment.base_offset,
            next_offset: sealed.next_offset,
            data_end: sealed.data_end,
            times: sealed.times,
            leader_epoch: oldest.leader_epoch,
            incarnation: oldest.incarnation,
            index: oldest.index.clone(),
            producers: oldest.producers.clone(),
            next_horizon: None,
        };
        let segment = Arc::clone(&oldest.segment);
        let Unfinished { is_found, index_is_whole, .. } = *oldest;
        let (spare_bytes, is_shared) = (self.spare_bytes(), false);
        Some(FooterTask {
            segment,
            sealed,
            footer,
            is_found,
            index_is_whole,
            spare_bytes,
            is_shared,
        })
    }

    /// The end of what the sealed segments hold.
    pub(crate) fn sealed_end(&self) -> u64 {
        let sealed = self.unfinished.back().and_then(|last| last.segment.next_offset());
        sealed.unwrap_or(self.ends.log_start())
    }

    /// Whether a segment waits for its footer, synced or not.
    pub(crate) fn has_unfinished(&self) -> bool {
        !self.unfinished.is_empty()
    }

    /// Takes note that nothing is left to do for the segment: a shared one must not hold up those
    /// behind it, and is still found by the index that it has in memory only.
    pub(crate) fn finish_footer(&mut self, task: &FooterTask) {
        let done = |front: &mut Unfinished| Arc::ptr_eq(&front.segment, &task.segment);
        if self.unfinished.front_mut().is_some_and(done) {
            let done = self.unfinished.pop_front();
            self.footerless.extend(done.filter(|_| task.is_shared));
        }
    }

    /// The recovery point of what is durable now. `None` while something is not.
    pub(crate) fn checkpoint(&self) -> Option<Checkpoint> {
        if self.is_dirty() {
            return None;
        }
        let mut began = None;
        let (segment, position, last_batch, times) = if let Some(active) = &self.active {
            began = active.began;
            (active.segment.number, active.position, active.last_batch, active.times)
        } else {
            let last = self.segments.last()?;
            let sealed = last.sealed()?;
            (last.number, sealed.data_end as usize, 0, sealed.times)
        };
        Some(Checkpoint {
            log_start: self.ends.log_start(),
            end_offset: self.ends.log_end(),
            segment,
            position: u32::try_from(position).ok()?,
            last_batch: u32::try_from(last_batch).ok()?,
            times: times.map(|times| (times.first, times.max)),
            producers: self.producers.states_at(self.now).iter().map(to_tuple).collect(),
            ages: times
                .map(|times| (times.aged_from, began.map_or(times.aged_from, |began| began.wall))),
            is_of_one_run: false,
        })
    }

    /// Begins a new segment, unless one takes appends.
    pub(crate) fn begin_segment(&mut self) -> Result<()> {
        if self.active.is_none() { self.roll(0) } else { Ok(()) }
    }

    /// Seals the active segment and begins a new one, with room for a batch of `bytes`.
    pub(crate) fn roll_for(&mut self, bytes: usize) -> Result<()> {
        self.roll(bytes)
    }
}

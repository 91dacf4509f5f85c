//! The work of a log beside appending: syncs, space ahead, footers behind, retention.
//!
//! What blocks on the disk is handed out as [`tasks`](super::tasks) and taken back when it is done.

use std::sync::Arc;

use super::active::Active;
use super::create::Prepared;
use super::reserve::Reserve;
use super::space::Growth;
use super::tasks::{FooterTask, SyncScope, SyncTask};
use super::{Checkpoint, Log, to_tuple};
use crate::error::Result;

impl Log {
    // ---- syncs -------------------------------------------------------------------------------

    /// A task that makes durable what is published now. Empty when all of it is. One is under way
    /// at a time. The caller drops it under no lock, since that closes the files.
    pub(crate) fn begin_sync(&mut self, scope: SyncScope) -> SyncTask {
        let target = match scope {
            SyncScope::Sealed => self.backlog.sealed_end().unwrap_or(self.ends.log_start()),
            SyncScope::All => self.ends.log_end(),
        };
        let mut task = self.backlog.begin_sync(Arc::clone(&self.segments), target);
        if scope == SyncScope::All {
            task.files.extend(self.active.as_mut().and_then(Active::begin_sync));
        }
        task
    }

    /// A sync has succeeded.
    pub(crate) fn finish_sync(&mut self, task: &SyncTask) {
        self.ends.advance_durable(task.target);
        self.backlog.finish_sync(task);
        if let (Some(active), Some(last)) = (&mut self.active, task.files.last())
            && Arc::ptr_eq(&active.segment, &last.segment)
        {
            active.synced_to(last.end);
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

    /// Takes a prepared segment, unless the log has gone past its number meanwhile.
    pub(crate) fn finish_prepare(&mut self, prepared: Prepared) {
        let last = self.segments.last().map_or(0, |segment| segment.number);
        if self.prepared.is_none() && prepared.header.number > last {
            self.prepared = Some(prepared);
        } else {
            prepared.discard(&*self.env().disk);
        }
    }

    /// Gives up the files, which are gone with their topic: handles that are still about must not
    /// keep the space that they had. Nothing is appended after this.
    pub(crate) fn give_up_files(&mut self) {
        self.prepared = None;
        self.active = None;
        self.backlog.clear();
        for segment in self.segments.all() {
            segment.try_drop_map();
        }
    }

    /// The footer to be written next: of the oldest segment without one, once it is synced.
    pub(crate) fn begin_footer(&mut self) -> Option<FooterTask> {
        self.backlog.begin_footer(self.factory.reserve().map(Reserve::bytes))
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

    /// Goes on in a new segment with room for a batch of `bytes`, made of a spare where the disk is
    /// full.
    pub(crate) fn roll_into_reserve(&mut self, bytes: usize) -> Result<()> {
        self.factory.set_reserve_open(true);
        let rolled = self.roll(bytes);
        self.factory.set_reserve_open(false);
        rolled
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

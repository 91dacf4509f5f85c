//! The work of a log beside appending: syncs, space ahead, footers behind, retention.
//!
//! What blocks on the disk is handed out as [`tasks`](super::tasks) and taken back when it is done.

use std::sync::Arc;

use super::reserve::Reserve;
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
            task.files.extend(self.appender.begin_sync());
        }
        task
    }

    /// A sync has succeeded.
    pub(crate) fn finish_sync(&mut self, task: &SyncTask) {
        self.ends.advance_durable(task.target);
        self.backlog.finish_sync(task);
        if let Some(last) = task.files.last() {
            self.appender.finish_sync(last);
        }
    }

    /// Whether anything is published and not durable.
    pub(crate) fn is_dirty(&self) -> bool {
        self.ends.is_dirty()
    }

    /// Gives up the files, which are gone with their topic: handles that are still about must not
    /// keep the space that they had. Nothing is appended after this.
    pub(crate) fn give_up_files(&mut self) {
        self.appender.clear();
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
        let (segment, position, last_batch, times) = if let Some(active) = self.appender.active() {
            let contents = active.contents();
            began = contents.began;
            (active.segment().number, active.position(), contents.last_batch, contents.times)
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
        let rolled = self.roll_for(bytes);
        self.factory.set_reserve_open(false);
        rolled
    }

    /// Begins a new segment, unless one takes appends.
    pub(crate) fn begin_segment(&mut self) -> Result<()> {
        if self.appender.active().is_none() { self.roll_for(0) } else { Ok(()) }
    }
}

//! Footers of sealed segments.

use std::sync::Arc;

use super::{PartitionCore, Work};
use crate::error::Result;
use crate::log::reserve::Reserve;
use crate::log::tasks::{FooterTask, SyncScope};

/// What is next for the sealed segments.
enum Next {
    /// All have their footers, or will never get them.
    Nothing,
    Footer(Box<FooterTask>),
    /// A sync: nothing below this offset may have a footer before it is durable.
    Sync(u64),
}

/// What was done of the footers that were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Finished {
    /// Whether segments are left that wait for a sync.
    pub(crate) wants_sync: bool,
    /// Whether there were footers to write.
    pub(crate) has_written: bool,
}

impl PartitionCore {
    /// Does one step towards footers on all sealed segments: a sync, or one footer. False when
    /// there is nothing (more) to do.
    pub(crate) fn finish_one_segment(&self) -> Result<bool> {
        match self.next_to_finish() {
            Next::Nothing => Ok(false),
            Next::Footer(task) => self.write_footer(*task).map(|()| true),
            Next::Sync(_) => self.sync_sealed(),
        }
    }

    /// Writes the footers of all segments that are durable, and waits for no sync: for a thread that
    /// has other partitions to look after.
    pub(crate) fn finish_durable(self: &Arc<Self>) -> Finished {
        self.take_up(Work::Finish);
        let mut finished = Finished { wants_sync: false, has_written: false };
        // In steps, so that a broker that is going away is not waited for.
        while !self.is_closed() {
            match self.next_to_finish() {
                Next::Nothing => break,
                Next::Footer(task) => {
                    // One that cannot be written is tried again when the next segment is sealed.
                    if self.write_footer(*task).is_err() {
                        break;
                    }
                    finished.has_written = true;
                }
                Next::Sync(_) => {
                    finished.wants_sync = true;
                    break;
                }
            }
        }
        if !finished.wants_sync {
            self.compact_if_due();
        }
        self.deliver_events();
        finished
    }

    /// Makes the sealed segments durable: sooner or later they are, at every level. Whether one of
    /// them can have its footer then.
    pub(crate) fn sync_sealed(&self) -> Result<bool> {
        if let Next::Sync(end) = self.next_to_finish() {
            self.gate.wait(end, None, Some(&|| self.sync_once(SyncScope::Sealed)))?;
        }
        Ok(matches!(self.next_to_finish(), Next::Footer(_)))
    }

    fn next_to_finish(&self) -> Next {
        let state = self.state.lock();
        if state.failure.is_some() || !state.log.backlog().has_unfinished() {
            return Next::Nothing;
        }
        let spare_bytes = state.log.factory().reserve().map(Reserve::bytes);
        match state.log.backlog().begin_footer(spare_bytes) {
            Some(task) => Next::Footer(Box::new(task)),
            None => state.log.backlog().sealed_end().map_or(Next::Nothing, Next::Sync),
        }
    }

    pub(super) fn write_footer(&self, mut task: FooterTask) -> Result<()> {
        let _running = self.disk_work.begin().ok_or_else(|| self.ended())?;
        match task.run() {
            // Retention has removed the segment meanwhile, and its file: it needs no footer.
            Err(_) if !self.segments.contains(&task.segment) => return Ok(()),
            written => written?,
        }
        self.state.lock().log.backlog_mut().finish_footer(&task);
        Ok(())
    }
}

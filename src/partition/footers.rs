//! Writes the footers of sealed segments: in the order of the log, each after its segment is
//! durable.
//!
//! Uses the shared log and the flusher, and owns nothing itself. Must not know: the purpose of a
//! footer.

use super::flusher::Flusher;
use super::shared::SharedLog;
use crate::error::Result;
use crate::log::reserve::Reserve;
use crate::log::tasks::FooterTask;

/// The next step for the sealed segments.
enum Next {
    /// All have their footers, or will never get them.
    Nothing,
    Footer(Box<FooterTask>),
    /// A sync: nothing below `end` may have a footer before it is durable. `piece` ends what is
    /// synced at once.
    Sync {
        piece: u64,
        end: u64,
    },
}

/// The result of a request for footers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Finished {
    /// Whether some segments wait for a sync.
    pub(crate) wants_sync: bool,
    /// Whether there were footers to write.
    pub(crate) has_written: bool,
}

#[derive(Clone, Copy)]
pub(crate) struct Footers<'a> {
    log: &'a SharedLog,
    flusher: Flusher<'a>,
}

impl<'a> Footers<'a> {
    pub(super) fn new(log: &'a SharedLog, flusher: Flusher<'a>) -> Self {
        Self { log, flusher }
    }

    /// Whether a sealed segment has no footer yet, synced or not.
    pub(crate) fn are_missing(self) -> bool {
        self.log.lock().log().backlog().has_unfinished()
    }

    /// Does one step towards footers on all sealed segments: a sync, or one footer. False when
    /// there is nothing (more) to do.
    ///
    /// # Errors
    ///
    /// The error of the disk. The step can be repeated.
    pub(crate) fn step(self) -> Result<bool> {
        match self.next() {
            Next::Nothing => Ok(false),
            Next::Footer(task) => self.write(*task).map(|()| true),
            Next::Sync { .. } => self.sync_sealed(),
        }
    }

    /// Writes all that are missing, as far as the disk allows. In steps, so that a broker that
    /// shuts down does not wait for it.
    pub(super) fn write_all(self) {
        while !self.log.status().is_closed() && matches!(self.step(), Ok(true)) {}
    }

    /// Writes the footers of all segments that are durable, and waits for no sync: for a thread
    /// that serves other partitions, too.
    pub(super) fn write_durable(self) -> Finished {
        let mut finished = Finished { wants_sync: false, has_written: false };
        // In steps, so that a broker that shuts down does not wait for it.
        while !self.log.status().is_closed() {
            match self.next() {
                Next::Nothing => break,
                Next::Footer(task) => {
                    // One that cannot be written is tried again when the next segment is sealed.
                    if self.write(*task).is_err() {
                        break;
                    }
                    finished.has_written = true;
                }
                Next::Sync { .. } => {
                    finished.wants_sync = true;
                    break;
                }
            }
        }
        finished
    }

    /// Makes the oldest sealed segments durable, which happens at every level sooner or later. Returns
    /// whether a footer can then be written. A piece and not all, so that a caller whose sync comes
    /// next does not wait for all.
    ///
    /// # Errors
    ///
    /// The error of the sync.
    pub(crate) fn sync_sealed(self) -> Result<bool> {
        if let Next::Sync { piece, .. } = self.next() {
            self.flusher.flush_sealed(piece)?;
        }
        // Segments without records end where those before them do, which may be durable already.
        if let Next::Sync { end, .. } = self.next() {
            self.flusher.flush_sealed(end)?;
        }
        Ok(matches!(self.next(), Next::Footer(_)))
    }

    fn next(self) -> Next {
        let state = self.log.lock();
        if state.failure().is_some() || !state.log().backlog().has_unfinished() {
            return Next::Nothing;
        }
        let spare_bytes = state.log().factory().reserve().map(Reserve::bytes);
        let backlog = state.log().backlog();
        if let Some(task) = backlog.begin_footer(spare_bytes) {
            return Next::Footer(Box::new(task));
        }
        let Some(end) = backlog.sealed_end() else { return Next::Nothing };
        Next::Sync { piece: backlog.piece_end().unwrap_or(end), end }
    }

    pub(super) fn write(self, mut task: FooterTask) -> Result<()> {
        let _running = self.log.begin_disk_work()?;
        match task.run() {
            // Retention has removed the segment meanwhile, and its file: it needs no footer.
            Err(_) if !self.log.segments().contains(&task.segment) => return Ok(()),
            written => written?,
        }
        self.log.lock().log_mut().backlog_mut().finish_footer(&task);
        Ok(())
    }
}

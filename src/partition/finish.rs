//! Footers of sealed segments.

use super::PartitionCore;
use crate::error::Result;
use crate::log::tasks::{FooterTask, SyncScope};

impl PartitionCore {
    /// Does one step towards footers on all sealed segments: a sync, or one footer. False when
    /// there is nothing (more) to do.
    pub(crate) fn finish_one_segment(&self) -> Result<bool> {
        let (task, sealed_end) = {
            let mut state = self.state.lock();
            if state.failure.is_some() || !state.log.has_unfinished() {
                return Ok(false);
            }
            (state.log.begin_footer(), state.log.sealed_end())
        };
        let Some(task) = task else {
            // The oldest one is not synced: sealed data is, sooner or later, at every level.
            self.gate.wait(sealed_end, None, Some(&|| self.sync_once(SyncScope::Sealed)))?;
            return Ok(self.state.lock().log.begin_footer().is_some());
        };
        self.write_footer(task)?;
        Ok(true)
    }

    pub(super) fn write_footer(&self, mut task: FooterTask) -> Result<()> {
        let _running = self.disk_work.begin().ok_or_else(|| self.ended())?;
        match task.run() {
            // Retention has removed the segment meanwhile, and its file: it needs no footer.
            Err(_) if !self.segments.contains(&task.segment) => return Ok(()),
            written => written?,
        }
        self.state.lock().log.finish_footer(&task);
        Ok(())
    }
}

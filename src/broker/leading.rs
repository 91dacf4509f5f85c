//! What a broker does when it begins to lead its replicated group, and when it ends.
//!
//! Uses the parts of a run, and owns nothing itself. Must not know: members, and who decides who
//! leads. Without replication a broker leads itself, and nothing here does anything.

use super::producers::Producers;
use super::run_parts::RunParts;
use crate::error::Result;
#[cfg(feature = "replication")]
use crate::partition::quorum::Quorum;

/// See the module's documentation.
#[derive(Clone, Copy)]
pub(crate) struct Leading<'a> {
    run: &'a RunParts,
    #[cfg(feature = "replication")]
    producers: &'a Producers,
}

impl<'a> Leading<'a> {
    #[cfg(feature = "replication")]
    pub(super) fn of(run: &'a RunParts, producers: &'a Producers) -> Self {
        Self { run, producers }
    }

    #[cfg(not(feature = "replication"))]
    pub(super) fn of(run: &'a RunParts, _: &Producers) -> Self {
        Self { run }
    }

    /// Refuses what only the leader may do.
    ///
    /// # Errors
    ///
    /// [`Error::NotLeader`](crate::Error::NotLeader).
    pub(crate) fn check(self) -> Result<()> {
        self.run.context().lead().check().map(drop)
    }

    /// Whether another member leads, or none does.
    pub(crate) fn follows(self) -> bool {
        self.run.context().lead().follows()
    }
}

#[cfg(feature = "replication")]
impl Leading<'_> {
    /// The broker leads `epoch` from now on. All of its logs have been given the epoch, and `__meta`
    /// and `__offsets` take changes.
    pub(crate) fn begin(self, epoch: u32) {
        let Some(leadership) = &self.run.context().leadership else { return };
        // Before anything can be appended: other members may have had newer holders of the ids.
        self.producers.look_again();
        leadership.lead(epoch);
        self.run.logs().coordinator().lead();
    }

    /// The broker does not lead `epoch` any more, nor any before. Nothing of it is appended any more on
    /// return, and who waits for a majority knows.
    pub(crate) fn end(self, epoch: u32) {
        let Some(leadership) = &self.run.context().leadership else { return };
        leadership.end();
        let logs = self.run.logs().partitions();
        for partition in self.run.live().partitions().iter().chain(&logs) {
            Quorum::of(partition).end_leadership(epoch);
        }
        self.run.logs().coordinator().follow();
    }
}

//! What an append does that found no space.

use std::sync::Arc;
use std::time::Instant;

use super::{AppendOptions, PartitionCore};
use crate::clock::to_millis;
use crate::error::{Error, Result};
use crate::format::EncodedBatch;
use crate::log::Outcome;
use crate::log::budget;

/// What an append wants that found no space.
#[derive(Debug)]
pub(crate) struct Want {
    pub(crate) bytes: u64,
    /// Whether it was the broker's byte budget that had none, and not the disk.
    pub(crate) is_budget: bool,
    /// Whether room was made for this append before, and was not enough.
    pub(crate) is_again: bool,
    /// Set once it waits for room.
    pub(crate) wait: Option<Wait>,
}

/// An append that waits until something is given back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wait {
    /// How often something had been given back before the last attempt.
    pub(crate) seen: u64,
    /// In real time; `None` for ever.
    pub(crate) until: Option<Instant>,
    pub(crate) is_over: bool,
}

impl PartitionCore {
    /// Tries an append again for as long as room is made for it; then `refused`, or what the last
    /// attempt ended with.
    #[cold]
    pub(super) fn append_when_full(
        self: &Arc<Self>,
        mut refused: Error,
        batch: &mut EncodedBatch<'_>,
        options: &AppendOptions<'_>,
    ) -> Result<Outcome> {
        let bytes = u64::from(batch.size(true));
        let mut want = Want { bytes, is_budget: false, is_again: false, wait: None };
        let mut options = *options;
        // No lock is held here, so that others can be asked to make room, and waited for. Each turn
        // but the first removes something or comes after a wait, so there is an end.
        loop {
            match &refused {
                Error::StorageFull { source, .. } => want.is_budget = budget::is_budget(source),
                // While it waited. The engine knows whether the broker was closed, or the topic gone.
                Error::Closed if want.wait.is_some() => {}
                _ => return Err(refused),
            }
            if !self.background.make_room(self, &mut want)? {
                return Err(refused);
            }
            want.is_again = true;
            if options.wall != 0 && want.wait.is_some() {
                options.wall = to_millis(self.clock.now()).unwrap_or(options.wall);
            }
            match self.try_append(batch, &options) {
                Ok(outcome) => return Ok(outcome),
                Err(error) => refused = error,
            }
        }
    }
}

//! What an append does that found no space.

use std::sync::Arc;

use super::{AppendOptions, PartitionCore};
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
        let mut want = Want { bytes, is_budget: false, is_again: false };
        // No lock is held here, so that others can be asked to make room. Each turn but the first
        // removes something, so there is an end.
        loop {
            let Error::StorageFull { source, .. } = &refused else { return Err(refused) };
            want.is_budget = budget::is_budget(source);
            if !self.background.make_room(self, &mut want) {
                return Err(refused);
            }
            want.is_again = true;
            match self.try_append(batch, options) {
                Ok(outcome) => return Ok(outcome),
                Err(error) => refused = error,
            }
        }
    }
}

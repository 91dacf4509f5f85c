//! `Read`: what was read of a log for one follower, for others that have the same.
//!
//! Owns: the batches that were read last. Must not know: who asks for them, and what it is sent.

use std::ops::Range;

use super::super::frame::Batches;
use super::super::log_key::LogKey;
use super::Catalog;
use super::files::Files;
use crate::log::replica::refusal::Failure;

/// The batches of a log between two offsets. Several followers that have the same are given the same.
pub(super) struct Read {
    log: LogKey,
    offsets: Range<u64>,
    batches: Vec<Batches>,
}

impl Read {
    /// The batches of a log between two offsets, as far as a frame has room: those that were read last,
    /// or they are read.
    ///
    /// # Errors
    ///
    /// Those of the disk; what was found damaged.
    pub(super) fn again<C: Catalog>(
        last: &mut Option<Self>,
        files: Files<'_, C>,
        log: LogKey,
        offsets: Range<u64>,
    ) -> Result<Vec<Batches>, Failure> {
        if let Some(read) = last.as_ref().filter(|it| it.log == log && it.offsets == offsets) {
            return Ok(read.batches.clone());
        }
        let batches = files.read(log, offsets.start, offsets.end)?;
        *last = Some(Self { log, offsets, batches: batches.clone() });
        Ok(batches)
    }
}

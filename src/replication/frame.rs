//! `Frame`: what travels from member to member: a message, and the batches that belong to it.
//!
//! Owns: the connection of both, and the check that the batches of an answer are what it says they
//! are. Must not know: who sends it, and what is done with it.

use bytes::Bytes;

use super::history::EpochRange;
use super::message::{Body, Envelope, Found};
use crate::format::BatchHeader;
use crate::log::replica::received::Received;
use crate::log::replica::under::Under;
use crate::record::LeaderEpoch;

/// Batches that follow one another, as they are stored, and what their checksums hold under.
#[derive(Debug, Clone)]
pub(crate) struct Batches {
    pub(crate) under: Under,
    pub(crate) bytes: Bytes,
}

#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) envelope: Envelope,
    /// The batches of an answer; a message of another kind has none.
    pub(crate) batches: Vec<Batches>,
}

/// The batches of a frame, checked, and their epochs.
#[derive(Debug)]
pub(crate) struct Checked<'a> {
    pub(crate) received: Vec<Received<'a>>,
    pub(crate) ranges: Vec<EpochRange>,
}

impl Frame {
    /// Checks the batches against their checksums, and that they follow what was asked. What the
    /// message says of them is not used: `None` if they are not as they should be.
    pub(crate) fn check(&self) -> Option<Checked<'_>> {
        let mut checked = Checked { received: Vec::new(), ranges: Vec::new() };
        let Body::Fetched(fetched) = &self.envelope.body else {
            return self.batches.is_empty().then_some(checked);
        };
        if !matches!(fetched.found, Found::Records { .. }) {
            return self.batches.is_empty().then_some(checked);
        }
        let mut end = fetched.asked.from;
        // A log without records may begin within a batch.
        let mut may_begin_below = fetched.asked.before.is_none();
        for batches in &self.batches {
            let received = Received::check(&batches.bytes, batches.under).ok()?;
            end = add_ranges(&received, end, may_begin_below, &mut checked.ranges)?;
            may_begin_below = false;
            checked.received.push(received);
        }
        Some(checked)
    }
}

/// Adds the epochs of batches that follow `end`. Offsets that compaction has left out belong to the
/// epoch of the next batch, because it keeps the last batch of each epoch. Returns their end.
fn add_ranges(
    received: &Received<'_>,
    end: u64,
    may_begin_below: bool,
    ranges: &mut Vec<EpochRange>,
) -> Option<u64> {
    let (mut end, mut rest, mut may_begin_below) = (end, received.bytes, may_begin_below);
    while let Ok(Some(header)) = BatchHeader::parse(rest) {
        let records = header.next_offset().checked_sub(end).filter(|records| *records > 0)?;
        if header.base_offset < end && !may_begin_below {
            return None;
        }
        may_begin_below = false;
        let epoch = LeaderEpoch(header.leader_epoch);
        match ranges.last_mut() {
            Some(last) if last.epoch == epoch => {
                last.records = last.records.checked_add(records)?;
            }
            _ => ranges.push(EpochRange { epoch, records }),
        }
        end = header.next_offset();
        rest = rest.get(header.size as usize..)?;
    }
    Some(end)
}

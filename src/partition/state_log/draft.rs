//! Changes before they are appended to a state's log, and the size of their records.
//!
//! Plain data and functions: how many changes a batch holds, and how many bytes count for a record.
//! Must not know: the log, locks.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::stored::encoded;
use crate::clock::Moment;
use crate::error::Result;

/// LIMIT: how many changes go into one batch; a long list (a close with thousands of partitions)
/// becomes several.
const CHANGES_PER_BATCH: usize = 1_000;

/// LIMIT: nor more bytes than this, unless one change has more: several batches fit a segment, and
/// none holds up others for long.
const BATCH_BYTES: usize = 64 << 10;

/// LIMIT: room for a record's own fields beside its key and value: flags, lengths and deltas, which
/// are short in a small batch.
pub(super) const RECORD_ROOM: usize = 16;

/// LIMIT: room for a batch's header with every extension, its padding, and a margin.
pub(super) const BATCH_ROOM: u64 = 256;

/// A change that is to be appended.
pub(super) struct Draft<C> {
    pub(super) change: C,
    pub(super) value: Vec<u8>,
    pub(super) made: Moment,
}

pub(super) fn drafts_of<C: Serialize + DeserializeOwned>(
    changes: impl IntoIterator<Item = (C, Moment)>,
) -> Result<Vec<Draft<C>>> {
    let draft = |(change, made)| Ok(Draft { value: encoded(&change)?, change, made });
    changes.into_iter().map(draft).collect()
}

/// A record that may be live, and then is appended again.
pub(super) struct Candidate<C> {
    pub(super) offset: u64,
    pub(super) number: u64,
    /// On the wall clock.
    pub(super) time: u64,
    pub(super) value: Vec<u8>,
    pub(super) change: C,
}

/// The batches of a list of changes.
pub(super) fn batches_of<C>(drafts: Vec<Draft<C>>) -> Vec<Vec<Draft<C>>> {
    let mut drafts = drafts.into_iter().peekable();
    let mut batches = Vec::new();
    while drafts.peek().is_some() {
        let mut bytes = 0;
        let mut batch = Vec::new();
        while let Some(next) = drafts.next_if(|next| {
            bytes += next.value.len() + RECORD_ROOM;
            batch.is_empty() || (batch.len() < CHANGES_PER_BATCH && bytes <= BATCH_BYTES)
        }) {
            batch.push(next);
        }
        batches.push(batch);
    }
    batches
}

/// What a batch takes of a segment at most.
pub(super) fn bytes_of_batch<C>(batch: &[Draft<C>]) -> usize {
    let records = batch.iter().map(|draft| draft.value.len().saturating_add(2 * RECORD_ROOM));
    records.fold(BATCH_BYTES / 16, usize::saturating_add)
}

/// What a record takes of the log, about.
pub(super) fn record_bytes(key: &[u8], value: &[u8]) -> u32 {
    let bytes = key.len().saturating_add(value.len()).saturating_add(RECORD_ROOM);
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

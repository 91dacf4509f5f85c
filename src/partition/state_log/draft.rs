//! Changes before they are appended to a state's log, and the size of their records.
//!
//! Plain data and functions: how many changes a batch holds, and how many bytes count for a record.
//! Must not know: the log, locks.

use std::mem;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::stored::encode;
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

/// Changes that are to be appended as one batch, with their encoded values.
pub(super) struct Drafts<C> {
    changes: Vec<(C, Moment)>,
    values: Packed,
}

impl<C: Serialize + DeserializeOwned> Drafts<C> {
    /// All changes of a list in one batch.
    pub(super) fn of(changes: impl IntoIterator<Item = (C, Moment)>) -> Result<Self> {
        let changes = changes.into_iter();
        let mut drafts = Self::with_room_for(changes.size_hint().0);
        for (change, made) in changes {
            drafts.values.push_with(|bytes| encode(&change, bytes))?;
            drafts.changes.push((change, made));
        }
        Ok(drafts)
    }

    /// The batches of a list of changes.
    pub(super) fn batches_of(changes: impl IntoIterator<Item = (C, Moment)>) -> Result<Vec<Self>> {
        let changes = changes.into_iter();
        let mut batch = Self::with_room_for(changes.size_hint().0.min(CHANGES_PER_BATCH));
        let mut full = Vec::new();
        for (change, made) in changes {
            batch.values.push_with(|bytes| encode(&change, bytes))?;
            if batch.is_over_limit() && !batch.changes.is_empty() {
                let value = batch.values.pop();
                full.push(mem::replace(&mut batch, Self::with_room_for(0)));
                batch.values.push(&value);
            }
            batch.changes.push((change, made));
        }
        if !batch.changes.is_empty() {
            full.push(batch);
        }
        Ok(full)
    }

    fn with_room_for(count: usize) -> Self {
        Self { changes: Vec::with_capacity(count), values: Packed::with_room_for(count) }
    }

    fn is_over_limit(&self) -> bool {
        let (count, bytes) = (self.values.len(), self.values.size());
        count > CHANGES_PER_BATCH || bytes.saturating_add(count * RECORD_ROOM) > BATCH_BYTES
    }
}

impl<C> Drafts<C> {
    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    pub(super) fn changes(&self) -> impl Iterator<Item = &C> {
        self.changes.iter().map(|(change, _)| change)
    }

    /// The value of each change, and when it was made.
    pub(super) fn values(&self) -> impl Iterator<Item = (&[u8], Moment)> {
        self.values.iter().zip(self.changes.iter().map(|(_, made)| *made))
    }

    /// Removes all changes, each with when it was made and its value.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = (C, Moment, &[u8])> {
        let changes = self.changes.drain(..).zip(self.values.iter());
        changes.map(|((change, made), value)| (change, made, value))
    }

    /// What the batch takes of a segment at most.
    pub(super) fn size(&self) -> usize {
        let records = self.len().saturating_mul(2 * RECORD_ROOM);
        (BATCH_BYTES / 16).saturating_add(records).saturating_add(self.values.size())
    }
}

/// Byte strings behind one another in one buffer: a thousand of them are two allocations.
#[derive(Debug, Default)]
pub(super) struct Packed {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Packed {
    /// LIMIT: enough for most keys and values of commits; the buffer grows if they are longer.
    const USUAL_BYTES: usize = 48;

    pub(super) fn with_room_for(count: usize) -> Self {
        let bytes = Vec::with_capacity(count.saturating_mul(Self::USUAL_BYTES));
        Self { bytes, ends: Vec::with_capacity(count) }
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    /// How many bytes all of them have.
    fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Adds what `write` appends. If it fails, the strings are not used.
    pub(super) fn push_with(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        write(&mut self.bytes)?;
        self.ends.push(self.bytes.len());
        Ok(())
    }

    fn push(&mut self, string: &[u8]) {
        self.bytes.extend_from_slice(string);
        self.ends.push(self.bytes.len());
    }

    /// Removes the last one; nothing if there is none.
    fn pop(&mut self) -> Vec<u8> {
        self.ends.pop();
        self.bytes.split_off(self.ends.last().copied().unwrap_or(0))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let string = self.bytes.get(start..end).unwrap_or_default();
            start = end;
            string
        })
    }
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

/// What a record takes of the log, about.
pub(super) fn record_bytes(key: &[u8], value: &[u8]) -> u32 {
    let bytes = key.len().saturating_add(value.len()).saturating_add(RECORD_ROOM);
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(sizes: &[usize]) -> Vec<Vec<usize>> {
        let now = Moment::default();
        let changes = sizes.iter().map(|size| (vec![b'v'; *size], now));
        let batches = Drafts::batches_of(changes).unwrap();
        let sizes = |batch: &Drafts<Vec<u8>>| {
            for (change, (value, _)) in batch.changes().zip(batch.values()) {
                assert_eq!(value, super::super::stored::encoded(change).unwrap());
            }
            batch.changes().map(Vec::len).collect()
        };
        batches.iter().map(sizes).collect()
    }

    #[test]
    fn a_batch_has_a_bounded_number_of_changes_and_bytes() {
        assert_eq!(batches(&[]), Vec::<Vec<usize>>::new());
        assert_eq!(batches(&[1, 0, 2]), [[1, 0, 2]]);
        let counts: Vec<_> =
            batches(&[1; 2 * CHANGES_PER_BATCH + 1]).iter().map(Vec::len).collect();
        assert_eq!(counts, [CHANGES_PER_BATCH, CHANGES_PER_BATCH, 1]);
        // Each of these fits alone, and no two fit together.
        let half = BATCH_BYTES / 2;
        assert_eq!(batches(&[half, half, 7]), [vec![half], vec![half, 7]]);
        // A change that exceeds the limit has a batch of its own.
        let over = BATCH_BYTES + 1;
        assert_eq!(batches(&[1, over, over, 2]), [vec![1], vec![over], vec![over], vec![2]]);
    }
}

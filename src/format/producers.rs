//! The producer table: the epoch and the last sequence number of each named producer, as opening
//! batches and footers store it.
//!
//! Owns: the 36 bytes of one row. Invariant: a table that decodes has strictly rising ids. Pure;
//! called from any thread.

use super::fields::{set_field, u32_field, u64_field};
use crate::error::CorruptionKind;

const ID_AT: usize = 0;
const EPOCH_AT: usize = ID_AT + 8;
const LAST_SEQUENCE_AT: usize = EPOCH_AT + 4;
const LAST_OFFSET_AT: usize = LAST_SEQUENCE_AT + 8;
const LAST_TIMESTAMP_AT: usize = LAST_OFFSET_AT + 8;

/// One row, in bytes.
pub(super) const ROW_SIZE: usize = LAST_TIMESTAMP_AT + 8;

const _: () = assert!(ID_AT == 0);
const _: () = assert!(EPOCH_AT == 8);
const _: () = assert!(LAST_SEQUENCE_AT == 12);
const _: () = assert!(LAST_OFFSET_AT == 20);
const _: () = assert!(LAST_TIMESTAMP_AT == 28);
const _: () = assert!(ROW_SIZE == 36);

/// `(at, size, field)` of every field, for the test that reads the table in `docs/format.md`.
#[cfg(test)]
pub(super) const LAYOUT: &[(usize, usize, &str)] = &[
    (ID_AT, 8, "id"),
    (EPOCH_AT, 4, "epoch"),
    (LAST_SEQUENCE_AT, 8, "last_sequence"),
    (LAST_OFFSET_AT, 8, "last_offset"),
    (LAST_TIMESTAMP_AT, 8, "last_timestamp"),
];

/// Where one named producer stands in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProducerState {
    pub(crate) id: u64,
    pub(crate) epoch: u32,
    /// The sequence number of its last record.
    pub(crate) last_sequence: u64,
    /// The offset of its last record.
    pub(crate) last_offset: u64,
    /// When its last record was appended: idle producers are forgotten.
    pub(crate) last_timestamp: u64,
}

/// Appends the table, in the order of ids.
pub(super) fn put_table(out: &mut Vec<u8>, producers: &[ProducerState]) {
    let mut sorted: Vec<&ProducerState> = producers.iter().collect();
    sorted.sort_unstable_by_key(|producer| producer.id);
    for producer in sorted {
        let mut row = [0; ROW_SIZE];
        set_field::<ID_AT, _, _>(&mut row, producer.id.to_le_bytes());
        set_field::<EPOCH_AT, _, _>(&mut row, producer.epoch.to_le_bytes());
        set_field::<LAST_SEQUENCE_AT, _, _>(&mut row, producer.last_sequence.to_le_bytes());
        set_field::<LAST_OFFSET_AT, _, _>(&mut row, producer.last_offset.to_le_bytes());
        set_field::<LAST_TIMESTAMP_AT, _, _>(&mut row, producer.last_timestamp.to_le_bytes());
        out.extend_from_slice(&row);
    }
}

/// Reads a table that fills `bytes`. Allocates no more than the bytes themselves call for.
pub(super) fn get_table(bytes: &[u8]) -> Result<Vec<ProducerState>, CorruptionKind> {
    let (rows, rest) = bytes.as_chunks::<ROW_SIZE>();
    if !rest.is_empty() {
        return Err(CorruptionKind::Length("producer table"));
    }
    let state = |row: &[u8; ROW_SIZE]| ProducerState {
        id: u64_field::<ID_AT, _>(row),
        epoch: u32_field::<EPOCH_AT, _>(row),
        last_sequence: u64_field::<LAST_SEQUENCE_AT, _>(row),
        last_offset: u64_field::<LAST_OFFSET_AT, _>(row),
        last_timestamp: u64_field::<LAST_TIMESTAMP_AT, _>(row),
    };
    let producers: Vec<ProducerState> = rows.iter().map(state).collect();
    if !producers.is_sorted_by(|left, right| left.id < right.id) {
        return Err(CorruptionKind::Malformed("producer table"));
    }
    Ok(producers)
}

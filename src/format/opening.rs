//! The opening batch: the first batch of every segment, written when the segment becomes active.
//!
//! Owns: its payload. It is framed as a batch with the opening bit, so it has a batch's header,
//! checksum and salt, and no records. Invariants: 1. it consumes no offset: the next batch begins
//! at its base offset; 2. the payload fills the batch exactly. Pure; called from any thread.

use super::batch::{BatchHeader, BatchView, RECORDS_SIZE_MAX, SIZE_MAX, TooLarge};
use super::batch::{durable_distance, seal, write_header};
use super::fields::{set_field, u64_field};
use super::key::SegmentKey;
use super::producers::{ProducerState, ROW_SIZE, get_table, put_table};
use crate::error::CorruptionKind;

const INCARNATION_AT: usize = 0;
const DURABLE_MARK_AT: usize = INCARNATION_AT + 8;
const PRODUCERS_AT: usize = DURABLE_MARK_AT + 8;

const _: () = assert!(INCARNATION_AT == 0);
const _: () = assert!(DURABLE_MARK_AT == 8);
const _: () = assert!(PRODUCERS_AT == 16);
// The payload needs no padding, so its length alone says how many producers there are.
const _: () = assert!(PRODUCERS_AT.is_multiple_of(4) && ROW_SIZE.is_multiple_of(4));

/// `(at, size, field)` of every field, for the test that reads the table in `docs/format.md`.
#[cfg(test)]
pub(super) const LAYOUT: &[(usize, usize, &str)] =
    &[(INCARNATION_AT, 8, "incarnation"), (DURABLE_MARK_AT, 8, "durable_mark")];

/// What was known when a segment became active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Opening {
    /// The offset of the segment's first record.
    pub(crate) base_offset: u64,
    pub(crate) leader_epoch: u32,
    /// Random, drawn anew by every unclean recovery: never a leader epoch.
    pub(crate) incarnation: u64,
    /// How far the log was durable.
    pub(crate) durable_mark: u64,
    /// Every named producer that is still remembered, in the order of ids.
    pub(crate) producers: Vec<ProducerState>,
}

impl Opening {
    /// The whole batch.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] with more producers than a batch can hold.
    pub(crate) fn encode(&self, key: &SegmentKey, timestamp: u64) -> Result<Vec<u8>, TooLarge> {
        let rows = (self.producers.len() as u64).saturating_mul(ROW_SIZE as u64);
        let payload_size = rows.saturating_add(PRODUCERS_AT as u64);
        if payload_size > RECORDS_SIZE_MAX {
            return Err(TooLarge { size: payload_size, limit: RECORDS_SIZE_MAX });
        }
        let mut fixed = [0; PRODUCERS_AT];
        set_field::<INCARNATION_AT, _, _>(&mut fixed, self.incarnation.to_le_bytes());
        set_field::<DURABLE_MARK_AT, _, _>(&mut fixed, self.durable_mark.to_le_bytes());
        let mut buffer = vec![0; SIZE_MAX];
        buffer.extend_from_slice(&fixed);
        put_table(&mut buffer, &self.producers);

        let records = buffer.get(SIZE_MAX..).unwrap_or_default();
        let mut header = BatchHeader {
            durable_distance: durable_distance(self.base_offset, self.durable_mark),
            base_offset: self.base_offset,
            base_timestamp: timestamp,
            max_timestamp: timestamp,
            leader_epoch: self.leader_epoch,
            opening: true,
            ..BatchHeader::default()
        };
        let size = header.header_size() + records.len();
        header.size = u32::try_from(size).unwrap_or(u32::MAX);
        let header_size = write_header(&header, &mut buffer);
        Ok(seal(header_size, None, key, &mut buffer).to_vec())
    }

    /// Reads the payload of a batch that [`BatchView::check`] has passed.
    ///
    /// # Errors
    ///
    /// What is wrong with the payload; `Malformed` if this is no opening batch.
    pub(crate) fn decode(view: &BatchView<'_>) -> Result<Self, CorruptionKind> {
        let header = view.header();
        if !header.is_opening() {
            return Err(CorruptionKind::Malformed("opening batch"));
        }
        let Some((fixed, rows)) = view.payload().split_first_chunk::<PRODUCERS_AT>() else {
            return Err(CorruptionKind::Length("opening batch"));
        };
        Ok(Self {
            base_offset: header.base_offset,
            leader_epoch: header.leader_epoch,
            incarnation: u64_field::<INCARNATION_AT, _>(fixed),
            durable_mark: u64_field::<DURABLE_MARK_AT, _>(fixed),
            producers: get_table(rows)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::ONE_PASS_CHECKSUMS;

    fn key(salt: u64) -> SegmentKey {
        SegmentKey::new(salt, ONE_PASS_CHECKSUMS)
    }

    fn opening(count: u64) -> Opening {
        let producer = |id| ProducerState {
            id,
            epoch: 2,
            last_sequence: id * 10,
            last_offset: id * 100,
            last_timestamp: 1_700_000_000_000,
        };
        Opening {
            base_offset: 1 << 40,
            leader_epoch: 5,
            incarnation: u64::MAX,
            durable_mark: 77,
            producers: (0..count).map(producer).collect(),
        }
    }

    #[test]
    fn openings_round_trip_and_consume_no_offset() {
        for count in [0, 1, 1000] {
            let opening = opening(count);
            let bytes = opening.encode(&key(9), 1234).unwrap();
            let view = BatchView::check(&bytes, &key(9)).unwrap().unwrap();
            assert_eq!(view.header().next_offset(), opening.base_offset);
            // Farther back than 32 bits can say: the payload is what tells.
            assert_eq!(view.header().durable_mark(), None);
            assert_eq!(view.records().count(), 0);
            assert_eq!(Opening::decode(&view), Ok(opening));
        }
    }

    #[test]
    fn producers_are_written_in_the_order_of_their_ids() {
        let mut shuffled = opening(3);
        shuffled.producers.reverse();
        let bytes = shuffled.encode(&key(9), 0).unwrap();
        let view = BatchView::check(&bytes, &key(9)).unwrap().unwrap();
        assert_eq!(Opening::decode(&view), Ok(opening(3)));
    }

    #[test]
    fn another_salt_is_damage() {
        let bytes = opening(1).encode(&key(9), 0).unwrap();
        let result = BatchView::check(&bytes, &key(10));
        assert!(matches!(result, Err(CorruptionKind::Checksum { .. })), "{result:?}");
    }
}

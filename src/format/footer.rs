//! The footer of a sealed segment: a summary and indexes, so that opening and seeking read little.
//!
//! Owns: tagged fields and the 16-byte trailer at the very end of the file. Must not know: how the
//! file is read. A footer repeats what the batches say: missing or damaged, it is rebuilt from
//! them. Invariants of every [`Footer`] that `decode` returns:
//!
//! 1. `base_offset ≤ next_offset`; the first timestamp is not above the greatest.
//! 2. Index rows rise, lie in `header ≤ position < data_end` and in the segment's offsets, and
//!    their times do not exceed the greatest timestamp.
//! 3. Producer ids rise strictly.
//!
//! Pure; called from any thread.

use super::batch::TooLarge;
use super::checksum::Checksum;
use super::fields::{set_field, take, take_slice, u32_field, u64_field};
use super::index::{IndexRow, SparseIndex};
use super::producers::{ProducerState, ROW_SIZE, get_table, put_table};
use super::segment::SegmentHeader;
use crate::clock::Moment;
use crate::error::CorruptionKind;

const TAG_SUMMARY: u16 = 1;
const TAG_OFFSET_INDEX: u16 = 2;
const TAG_TIME_INDEX: u16 = 3;
const TAG_PRODUCERS: u16 = 4;
/// Written by versions whose ages were in the private time of one run.
const TAG_RUN_AGE: u16 = 5;
const TAG_AGE: u16 = 6;
const TAG_HORIZON: u16 = 7;

const FIELD_HEADER_SIZE: usize = 2 + 4;
const OFFSET_ROW_SIZE: usize = 4 + 4;
const TIME_ROW_SIZE: usize = 8;
const AGE_SIZE: usize = 8;
const HORIZON_SIZE: usize = 8;

const LENGTH_AT: usize = 0;
const CHECKSUM_AT: usize = LENGTH_AT + 4;
const MAGIC_AT: usize = CHECKSUM_AT + 4;
const _: () = assert!(LENGTH_AT == 0);
const _: () = assert!(CHECKSUM_AT == 4);
const _: () = assert!(MAGIC_AT == 8);
const _: () = assert!(MAGIC_AT + 8 == Footer::TRAILER_SIZE);

const MAGIC: [u8; 8] = *b"\x89PONDEND";

const BASE_OFFSET_AT: usize = 0;
const NEXT_OFFSET_AT: usize = BASE_OFFSET_AT + 8;
const FIRST_TIMESTAMP_AT: usize = NEXT_OFFSET_AT + 8;
const MAX_TIMESTAMP_AT: usize = FIRST_TIMESTAMP_AT + 8;
const INCARNATION_AT: usize = MAX_TIMESTAMP_AT + 8;
const DATA_END_AT: usize = INCARNATION_AT + 8;
const LEADER_EPOCH_AT: usize = DATA_END_AT + 4;
const FLAGS_AT: usize = LEADER_EPOCH_AT + 4;
const SUMMARY_SIZE: usize = FLAGS_AT + 4;
const _: () = assert!(BASE_OFFSET_AT == 0);
const _: () = assert!(NEXT_OFFSET_AT == 8);
const _: () = assert!(FIRST_TIMESTAMP_AT == 16);
const _: () = assert!(MAX_TIMESTAMP_AT == 24);
const _: () = assert!(INCARNATION_AT == 32);
const _: () = assert!(DATA_END_AT == 40);
const _: () = assert!(LEADER_EPOCH_AT == 44);
const _: () = assert!(FLAGS_AT == 48);
const _: () = assert!(SUMMARY_SIZE == 52);

/// The two timestamps are there; without records there are none.
const HAS_TIMESTAMPS: u32 = 1;

/// `(at, size, field)` of every field, for the test that reads the tables in `docs/format.md`.
#[cfg(test)]
pub(super) const TRAILER_LAYOUT: &[(usize, usize, &str)] =
    &[(LENGTH_AT, 4, "footer_length"), (CHECKSUM_AT, 4, "checksum"), (MAGIC_AT, 8, "magic")];
#[cfg(test)]
pub(super) const SUMMARY_LAYOUT: &[(usize, usize, &str)] = &[
    (BASE_OFFSET_AT, 8, "base_offset"),
    (NEXT_OFFSET_AT, 8, "next_offset"),
    (FIRST_TIMESTAMP_AT, 8, "first_timestamp"),
    (MAX_TIMESTAMP_AT, 8, "max_timestamp"),
    (INCARNATION_AT, 8, "incarnation"),
    (DATA_END_AT, 4, "data_end"),
    (LEADER_EPOCH_AT, 4, "leader_epoch"),
    (FLAGS_AT, 4, "flags"),
];

/// The timestamps of a segment that has records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeRange {
    /// The first batch's base timestamp.
    pub(crate) first: u64,
    /// The greatest of all records.
    pub(crate) max: u64,
    /// The moment from which the age of the youngest record counts, as the wall clock showed it.
    /// Not a timestamp of any record: those may lie in the future.
    pub(crate) aged_from: u64,
    /// The same moment in the time of this run, which is not stored.
    pub(crate) since: u64,
}

impl TimeRange {
    /// Takes note of the next batch.
    #[inline]
    pub(crate) fn note(range: &mut Option<Self>, base: u64, max: u64, age: Moment) {
        if let Some(range) = range {
            range.max = range.max.max(max);
            range.aged_from = range.aged_from.max(age.wall);
            range.since = range.since.max(age.run);
        } else {
            let (aged_from, since) = (age.wall, age.run);
            *range = Some(Self { first: base, max, aged_from, since });
        }
    }

    /// What was stored, for a run that opens the log at `now`.
    pub(crate) fn found(self, now: u64) -> Self {
        // What an earlier version stored says less than the wall clock does, if that can be right.
        let since = if self.aged_from <= now { self.aged_from } else { self.since.min(now) };
        Self { since, ..self }
    }

    /// What a version stored that knew only `age`, in the private time of one run: earlier than
    /// the append by as much as the wall clock was behind when that run began. Nothing is younger
    /// than the greatest timestamp; `age` decides only where that lies in the future.
    pub(crate) fn of_one_run(first: u64, max: u64, age: u64) -> Self {
        Self { first, max, aged_from: max, since: age.min(max) }
    }
}

/// The footer of a sealed segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) base_offset: u64,
    pub(crate) next_offset: u64,
    /// The position after the last batch.
    pub(crate) data_end: u32,
    /// `None` when the segment has no records.
    pub(crate) times: Option<TimeRange>,
    pub(crate) leader_epoch: u32,
    pub(crate) incarnation: u64,
    pub(crate) index: SparseIndex,
    pub(crate) producers: Vec<ProducerState>,
    /// The earliest delete horizon of the batches, [`NO_HORIZON`](Self::NO_HORIZON) if none has
    /// one. `None` if that is not known.
    pub(crate) next_horizon: Option<u64>,
}

impl Footer {
    /// No tombstone waits for its time to be over.
    pub(crate) const NO_HORIZON: u64 = u64::MAX;

    /// What the last bytes of a file must be to end a footer.
    pub(crate) const TRAILER_SIZE: usize = 16;

    /// The footer, to be written so that it ends where the file ends.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] when a table does not fit 32 bits.
    pub(crate) fn encode(&self, salt: u64) -> Result<Vec<u8>, TooLarge> {
        let producers_size = (self.producers.len() as u64).saturating_mul(ROW_SIZE as u64);
        let index_size = (self.index.rows().len() as u64).saturating_mul(16);
        // LIMIT: half of what 32 bits hold leaves room for everything else without counting it.
        let (size, limit) = (producers_size.saturating_add(index_size), u64::from(u32::MAX / 2));
        if size > limit {
            return Err(TooLarge { size, limit });
        }
        let mut out = Vec::new();
        put_field(&mut out, TAG_SUMMARY, |out| {
            out.extend_from_slice(&self.encode_summary());
        });
        put_field(&mut out, TAG_OFFSET_INDEX, |out| {
            for row in self.index.rows() {
                out.extend_from_slice(&row.offset_delta.to_le_bytes());
                out.extend_from_slice(&row.position.to_le_bytes());
            }
        });
        put_field(&mut out, TAG_TIME_INDEX, |out| {
            for row in self.index.rows() {
                out.extend_from_slice(&row.max_timestamp.to_le_bytes());
            }
        });
        put_field(&mut out, TAG_PRODUCERS, |out| {
            put_table(out, &self.producers);
        });
        if let Some(times) = self.times {
            put_field(&mut out, TAG_AGE, |out| {
                out.extend_from_slice(&times.aged_from.to_le_bytes());
            });
        }
        if let Some(horizon) = self.next_horizon {
            put_field(&mut out, TAG_HORIZON, |out| {
                out.extend_from_slice(&horizon.to_le_bytes());
            });
        }
        finish(&mut out, salt);
        Ok(out)
    }

    fn encode_summary(&self) -> [u8; SUMMARY_SIZE] {
        let mut bytes = [0; SUMMARY_SIZE];
        set_field::<BASE_OFFSET_AT, _, _>(&mut bytes, self.base_offset.to_le_bytes());
        set_field::<NEXT_OFFSET_AT, _, _>(&mut bytes, self.next_offset.to_le_bytes());
        if let Some(times) = self.times {
            set_field::<FIRST_TIMESTAMP_AT, _, _>(&mut bytes, times.first.to_le_bytes());
            set_field::<MAX_TIMESTAMP_AT, _, _>(&mut bytes, times.max.to_le_bytes());
            set_field::<FLAGS_AT, _, _>(&mut bytes, HAS_TIMESTAMPS.to_le_bytes());
        }
        set_field::<INCARNATION_AT, _, _>(&mut bytes, self.incarnation.to_le_bytes());
        set_field::<DATA_END_AT, _, _>(&mut bytes, self.data_end.to_le_bytes());
        set_field::<LEADER_EPOCH_AT, _, _>(&mut bytes, self.leader_epoch.to_le_bytes());
        bytes
    }

    /// The length of the footer that ends with `trailer`, the trailer included; `None` if it is
    /// not a trailer. The caller compares it with the file before it reads that much.
    pub(crate) fn length(trailer: &[u8; Self::TRAILER_SIZE]) -> Option<u32> {
        let length = u32_field::<LENGTH_AT, _>(trailer);
        let ours = u64_field::<MAGIC_AT, _>(trailer) == u64::from_le_bytes(MAGIC);
        (ours && length as usize >= Self::TRAILER_SIZE).then_some(length)
    }

    /// Reads a footer from exactly its bytes.
    ///
    /// # Errors
    ///
    /// What is wrong with the trailer, the checksum, a field, or the fields together.
    pub(crate) fn decode(bytes: &[u8], salt: u64) -> Result<Self, CorruptionKind> {
        let short = CorruptionKind::Length("footer");
        let Some((fields, trailer)) = bytes.split_last_chunk::<{ Self::TRAILER_SIZE }>() else {
            return Err(short);
        };
        let length = Self::length(trailer).ok_or(CorruptionKind::Malformed("footer trailer"))?;
        if length as usize != bytes.len() {
            return Err(short);
        }
        let stored = u32_field::<CHECKSUM_AT, _>(trailer);
        let computed = checksum(fields, length, salt);
        if stored != computed {
            return Err(CorruptionKind::Checksum { stored, computed });
        }
        Fields::read(fields)?.decode()
    }

    fn validate(&self) -> Result<(), CorruptionKind> {
        let malformed = |noun| Err(CorruptionKind::Malformed(noun));
        if self.base_offset > self.next_offset {
            return malformed("footer offsets");
        }
        let start = SegmentHeader::END_POSITION;
        if self.data_end < start || !self.data_end.is_multiple_of(4) {
            return malformed("footer data end");
        }
        if self.times.is_some_and(|times| times.first > times.max) {
            return malformed("footer timestamps");
        }
        let max = self.times.map(|times| times.max);
        let sound = |row: &IndexRow| {
            let offset = self.base_offset.checked_add(u64::from(row.offset_delta));
            offset.is_some_and(|offset| offset < self.next_offset)
                && (start..self.data_end).contains(&row.position)
                && row.position.is_multiple_of(4)
                && max.is_some_and(|max| row.max_timestamp <= max)
        };
        if !self.index.rows().iter().all(sound) {
            return malformed("footer index");
        }
        Ok(())
    }
}

/// The contents of the fields that this version knows.
#[derive(Default)]
struct Fields<'a> {
    summary: Option<&'a [u8]>,
    offset_index: Option<&'a [u8]>,
    time_index: Option<&'a [u8]>,
    producers: Option<&'a [u8]>,
    run_age: Option<&'a [u8]>,
    age: Option<&'a [u8]>,
    horizon: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    /// Every turn takes at least a field's header, so hostile lengths cannot make it loop.
    fn read(mut rest: &'a [u8]) -> Result<Self, CorruptionKind> {
        let mut fields = Self::default();
        while !rest.is_empty() {
            let (tag, contents) = take_field(&mut rest).ok_or(CorruptionKind::Length("footer"))?;
            let field = match tag {
                TAG_SUMMARY => &mut fields.summary,
                TAG_OFFSET_INDEX => &mut fields.offset_index,
                TAG_TIME_INDEX => &mut fields.time_index,
                TAG_PRODUCERS => &mut fields.producers,
                TAG_RUN_AGE => &mut fields.run_age,
                TAG_AGE => &mut fields.age,
                TAG_HORIZON => &mut fields.horizon,
                // A later version's: it repeats the batches, as everything here does.
                _ => continue,
            };
            if field.replace(contents).is_some() {
                return Err(CorruptionKind::Malformed("footer: a field appears twice"));
            }
        }
        Ok(fields)
    }

    fn decode(&self) -> Result<Footer, CorruptionKind> {
        let missing = CorruptionKind::Malformed("footer: a field is missing");
        let (Some(summary), Some(offsets), Some(times), Some(producers)) =
            (self.summary, self.offset_index, self.time_index, self.producers)
        else {
            return Err(missing);
        };
        let Ok(summary) = <&[u8; SUMMARY_SIZE]>::try_from(summary) else {
            return Err(CorruptionKind::Length("footer summary"));
        };
        let horizon = self.horizon.map(<[u8; HORIZON_SIZE]>::try_from).transpose();
        let Ok(horizon) = horizon else {
            return Err(CorruptionKind::Length("footer horizon"));
        };
        let base_offset = u64_field::<BASE_OFFSET_AT, _>(summary);
        let footer = Footer {
            base_offset,
            next_offset: u64_field::<NEXT_OFFSET_AT, _>(summary),
            data_end: u32_field::<DATA_END_AT, _>(summary),
            times: decode_times(summary, self.age, self.run_age)?,
            leader_epoch: u32_field::<LEADER_EPOCH_AT, _>(summary),
            incarnation: u64_field::<INCARNATION_AT, _>(summary),
            index: decode_index(base_offset, offsets, times)?,
            producers: get_table(producers)?,
            next_horizon: horizon.map(u64::from_le_bytes),
        };
        footer.validate()?;
        Ok(footer)
    }
}

fn decode_times(
    summary: &[u8; SUMMARY_SIZE],
    age: Option<&[u8]>,
    run_age: Option<&[u8]>,
) -> Result<Option<TimeRange>, CorruptionKind> {
    let first = u64_field::<FIRST_TIMESTAMP_AT, _>(summary);
    let max = u64_field::<MAX_TIMESTAMP_AT, _>(summary);
    match u32_field::<FLAGS_AT, _>(summary) {
        0 if first == 0 && max == 0 && age.is_none() && run_age.is_none() => Ok(None),
        HAS_TIMESTAMPS => {
            let moment = |age: Option<&[u8]>| match age.map(<[u8; AGE_SIZE]>::try_from) {
                None => Ok(None),
                Some(Ok(age)) => Ok(Some(u64::from_le_bytes(age))),
                Some(Err(_)) => Err(CorruptionKind::Length("footer age")),
            };
            // Without a field, the age counts from the timestamps.
            Ok(Some(match (moment(age)?, moment(run_age)?) {
                (Some(aged_from), _) => TimeRange { first, max, aged_from, since: aged_from },
                (None, age) => TimeRange::of_one_run(first, max, age.unwrap_or(max)),
            }))
        }
        _ => Err(CorruptionKind::Malformed("footer flags")),
    }
}

fn decode_index(
    base_offset: u64,
    offsets: &[u8],
    times: &[u8],
) -> Result<SparseIndex, CorruptionKind> {
    let (offsets, offsets_rest) = offsets.as_chunks::<OFFSET_ROW_SIZE>();
    let (times, times_rest) = times.as_chunks::<TIME_ROW_SIZE>();
    if !offsets_rest.is_empty() || !times_rest.is_empty() || offsets.len() != times.len() {
        return Err(CorruptionKind::Length("footer index"));
    }
    let row = |(offset, time): (&[u8; OFFSET_ROW_SIZE], &[u8; TIME_ROW_SIZE])| IndexRow {
        offset_delta: u32_field::<0, _>(offset),
        position: u32_field::<4, _>(offset),
        max_timestamp: u64::from_le_bytes(*time),
    };
    let rows = offsets.iter().zip(times).map(row).collect();
    SparseIndex::from_rows(base_offset, rows).ok_or(CorruptionKind::Malformed("footer index"))
}

fn take_field<'a>(rest: &mut &'a [u8]) -> Option<(u16, &'a [u8])> {
    let tag = u16::from_le_bytes(take(rest)?);
    let length = u32::from_le_bytes(take(rest)?);
    Some((tag, take_slice(rest, u64::from(length))?))
}

fn put_field(out: &mut Vec<u8>, tag: u16, contents: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(&tag.to_le_bytes());
    let length_at = out.len();
    out.extend_from_slice(&[0; FIELD_HEADER_SIZE - 2]);
    let start = out.len();
    contents(out);
    // `encode` has limited the sum of all fields to what 32 bits hold.
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    if let Some(field) = out.get_mut(length_at..start) {
        field.copy_from_slice(&length.to_le_bytes());
    }
}

fn finish(out: &mut Vec<u8>, salt: u64) {
    let length = u32::try_from(out.len() + Footer::TRAILER_SIZE).unwrap_or(u32::MAX);
    let trailer = trailer(out, length, salt);
    out.extend_from_slice(&trailer);
}

/// What ends a footer of this length, trailer included, with these fields.
pub(super) fn trailer(fields: &[u8], length: u32, salt: u64) -> [u8; Footer::TRAILER_SIZE] {
    let checksum = checksum(fields, length, salt);
    let mut trailer = [0; Footer::TRAILER_SIZE];
    set_field::<LENGTH_AT, _, _>(&mut trailer, length.to_le_bytes());
    set_field::<CHECKSUM_AT, _, _>(&mut trailer, checksum.to_le_bytes());
    set_field::<MAGIC_AT, _, _>(&mut trailer, MAGIC);
    trailer
}

/// FORMAT: the fields, the length, the magic, the salt.
fn checksum(fields: &[u8], length: u32, salt: u64) -> u32 {
    let suffix = Checksum::of(fields).then(&length.to_le_bytes()).then(&MAGIC);
    suffix.then(&salt.to_le_bytes()).value()
}

#[cfg(test)]
#[path = "footer_tests.rs"]
mod tests;

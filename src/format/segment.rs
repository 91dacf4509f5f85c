//! The segment header: how a file identifies itself before any data.
//!
//! Owns: the 128 bytes at the start of every segment file. Must not know: where the file is stored,
//! or what its batches hold. Invariants:
//!
//! 1. `decode(encode(h)) == h`.
//! 2. The magic, the version, both feature words and the checksum keep their positions in every
//!    future version, so damage is distinguished from a newer format before anything else is
//!    believed.
//! 3. Written once, before the file gets its name; never changed.
//!
//! Pure; called from any thread.

use std::fmt;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::checksum::Checksum;
use super::fields::{field, set_field, u32_field, u64_field};
use super::key::{ONE_PASS_CHECKSUMS, SegmentKey};
use crate::error::CorruptionKind;

/// FORMAT: not text, and not what any other file kind begins with; the carriage return and line
/// feed show a transfer that took the file for text.
const MAGIC: [u8; 8] = *b"\x89LPOND\r\n";

/// The format version that this build writes, and the only one that it reads.
pub(crate) const VERSION: u32 = 1;

/// Incompatible feature bit: the segment belongs to an internal log, and its records are numbered
/// changes and copies. Builds without it would take a copy for a change.
pub(crate) const NUMBERED_CHANGES: u64 = 1;

/// Compatible feature bit: the file was a spare of a reserve. While one is in use and cannot be
/// made anew, the state of its log may not grow.
pub(crate) const KEEPS_SPACE: u64 = 1;

/// Compatible feature bit: offsets may be missing between the records, although the segment
/// replaces no other. A follower has received its batches, and the leader had compacted them.
pub(crate) const HAS_GAPS: u64 = 1 << 1;

/// Incompatible feature bits that this build understands.
const INCOMPATIBLE_KNOWN: u64 = NUMBERED_CHANGES | ONE_PASS_CHECKSUMS;

const REWRITE_PRESENT: u32 = 1;
const REWRITE_TRUNCATES: u32 = 2;
const REWRITE_IS_CLEAN: u32 = 4;

const TRUNCATES: u32 = REWRITE_PRESENT | REWRITE_TRUNCATES;
const REPLACES: u32 = REWRITE_PRESENT;
const REPLACES_CLEAN: u32 = REWRITE_PRESENT | REWRITE_IS_CLEAN;

const MAGIC_AT: usize = 0;
const VERSION_AT: usize = MAGIC_AT + 8;
const PARTITION_AT: usize = VERSION_AT + 4;
const INCOMPATIBLE_AT: usize = PARTITION_AT + 4;
const COMPATIBLE_AT: usize = INCOMPATIBLE_AT + 8;
const TOPIC_ID_AT: usize = COMPATIBLE_AT + 8;
const NUMBER_AT: usize = TOPIC_ID_AT + 16;
const SALT_AT: usize = NUMBER_AT + 8;
const GENERATION_AT: usize = SALT_AT + 8;
const REWRITE_FLAGS_AT: usize = GENERATION_AT + 4;
const REWRITE_BASE_AT: usize = REWRITE_FLAGS_AT + 4;
const REWRITE_NEXT_AT: usize = REWRITE_BASE_AT + 8;
const REWRITE_FIRST_AT: usize = REWRITE_NEXT_AT + 8;
const REWRITE_LAST_AT: usize = REWRITE_FIRST_AT + 8;
const RESERVED_AT: usize = REWRITE_LAST_AT + 8;
const RESERVED_SIZE: usize = 20;
const CHECKSUM_AT: usize = RESERVED_AT + RESERVED_SIZE;
const END: usize = CHECKSUM_AT + 4;

const _: () = assert!(MAGIC_AT == 0);
const _: () = assert!(VERSION_AT == 8);
const _: () = assert!(PARTITION_AT == 12);
const _: () = assert!(INCOMPATIBLE_AT == 16);
const _: () = assert!(COMPATIBLE_AT == 24);
const _: () = assert!(TOPIC_ID_AT == 32);
const _: () = assert!(NUMBER_AT == 48);
const _: () = assert!(SALT_AT == 56);
const _: () = assert!(GENERATION_AT == 64);
const _: () = assert!(REWRITE_FLAGS_AT == 68);
const _: () = assert!(REWRITE_BASE_AT == 72);
const _: () = assert!(REWRITE_NEXT_AT == 80);
const _: () = assert!(REWRITE_FIRST_AT == 88);
const _: () = assert!(REWRITE_LAST_AT == 96);
const _: () = assert!(RESERVED_AT == 104);
const _: () = assert!(CHECKSUM_AT == 124);
const _: () = assert!(END == SegmentHeader::SIZE);

/// `(at, size, field)` of every field, for the test that reads the table in `docs/format.md`.
#[cfg(test)]
pub(super) const LAYOUT: &[(usize, usize, &str)] = &[
    (MAGIC_AT, 8, "magic"),
    (VERSION_AT, 4, "version"),
    (PARTITION_AT, 4, "partition"),
    (INCOMPATIBLE_AT, 8, "incompatible"),
    (COMPATIBLE_AT, 8, "compatible"),
    (TOPIC_ID_AT, 16, "topic_id"),
    (NUMBER_AT, 8, "number"),
    (SALT_AT, 8, "salt"),
    (GENERATION_AT, 4, "generation"),
    (REWRITE_FLAGS_AT, 4, "rewrite_flags"),
    (REWRITE_BASE_AT, 8, "rewrite_base_offset"),
    (REWRITE_NEXT_AT, 8, "rewrite_next_offset"),
    (REWRITE_FIRST_AT, 8, "rewrite_first_number"),
    (REWRITE_LAST_AT, 8, "rewrite_last_number"),
    (RESERVED_AT, RESERVED_SIZE, "reserved"),
    (CHECKSUM_AT, 4, "checksum"),
];

/// A topic's random id: a re-created topic of the same name has another one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct TopicId(pub(crate) [u8; 16]);

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicId({self})")
    }
}

/// Says which segments of lower generation a segment makes void.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rewrite {
    /// It cuts the log: segments that begin at or above this offset do not count.
    Truncates(u64),
    /// It stands where others stood.
    Replaces(Replacement),
}

/// What a segment that compaction wrote stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Replacement {
    /// The first offset of the segments that are replaced.
    pub(crate) base_offset: u64,
    /// The offset after their last.
    pub(crate) next_offset: u64,
    /// The rank of the first of them; a segment that was never rewritten has its own number as its
    /// rank.
    pub(crate) first_number: u64,
    /// The rank of the last of them.
    pub(crate) last_number: u64,
    /// Whether no key occurs twice from the log start to `next_offset`.
    pub(crate) is_clean: bool,
}

/// The header of a segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) topic_id: TopicId,
    pub(crate) partition: u32,
    /// The segment's number, which is its file's name too.
    pub(crate) number: u64,
    /// Random; keys the checksums of this segment's batches and footer.
    pub(crate) salt: u64,
    /// Rises with every rewrite of the partition.
    pub(crate) generation: u32,
    pub(crate) rewrite: Option<Rewrite>,
    /// Feature bits that a reader must know.
    pub(crate) incompatible: u64,
    /// Feature bits that a reader may ignore; kept as found.
    pub(crate) compatible: u64,
}

/// Why a segment header was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HeaderError {
    /// The bytes are not what was written; `Malformed` when all are zero, `Length` when short.
    Corrupt(CorruptionKind),
    /// Intact, and written by a version that this one does not understand.
    Unsupported {
        /// The file's format version.
        version: u32,
        /// The incompatible feature bits that this build does not know.
        features: u64,
    },
}

impl SegmentHeader {
    /// The ranks that the segment covers: its own number, or those of the segments that it
    /// replaces. Segments follow one another in the order of their ranks.
    pub(crate) fn ranks(&self) -> RangeInclusive<u64> {
        match self.rewrite {
            Some(Rewrite::Replaces(it)) => it.first_number..=it.last_number,
            Some(Rewrite::Truncates(_)) | None => self.number..=self.number,
        }
    }

    /// What the checksums of its batches depend on.
    pub(crate) fn key(&self) -> SegmentKey {
        SegmentKey::new(self.salt, self.incompatible)
    }

    /// The size in bytes: the position of the opening batch.
    pub(crate) const SIZE: usize = 128;

    /// The position of the opening batch.
    pub(crate) const END_POSITION: u32 = 128;

    /// The bytes of the header.
    pub(crate) fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        set_field::<MAGIC_AT, _, _>(&mut bytes, MAGIC);
        set_field::<VERSION_AT, _, _>(&mut bytes, VERSION.to_le_bytes());
        set_field::<PARTITION_AT, _, _>(&mut bytes, self.partition.to_le_bytes());
        set_field::<INCOMPATIBLE_AT, _, _>(&mut bytes, self.incompatible.to_le_bytes());
        set_field::<COMPATIBLE_AT, _, _>(&mut bytes, self.compatible.to_le_bytes());
        set_field::<TOPIC_ID_AT, _, _>(&mut bytes, self.topic_id.0);
        set_field::<NUMBER_AT, _, _>(&mut bytes, self.number.to_le_bytes());
        set_field::<SALT_AT, _, _>(&mut bytes, self.salt.to_le_bytes());
        set_field::<GENERATION_AT, _, _>(&mut bytes, self.generation.to_le_bytes());
        match self.rewrite {
            None => {}
            Some(Rewrite::Truncates(at)) => {
                set_field::<REWRITE_FLAGS_AT, _, _>(&mut bytes, TRUNCATES.to_le_bytes());
                set_field::<REWRITE_BASE_AT, _, _>(&mut bytes, at.to_le_bytes());
                set_field::<REWRITE_NEXT_AT, _, _>(&mut bytes, at.to_le_bytes());
            }
            Some(Rewrite::Replaces(it)) => it.encode(&mut bytes),
        }
        let checksum = Self::checksum(&bytes);
        set_field::<CHECKSUM_AT, _, _>(&mut bytes, checksum.to_le_bytes());
        bytes
    }

    /// Reads the header from the start of a file. Bytes beyond [`SIZE`](Self::SIZE) are ignored.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let Some(bytes) = bytes.first_chunk::<{ Self::SIZE }>() else {
            return Err(HeaderError::Corrupt(CorruptionKind::Length("segment header")));
        };
        // A file that was allocated and never written: a crash left it, and it is not damaged.
        if bytes.iter().all(|byte| *byte == 0) {
            return Err(HeaderError::Corrupt(CorruptionKind::Malformed("segment header")));
        }
        if field::<MAGIC_AT, 8, _>(bytes) != MAGIC {
            return Err(HeaderError::Corrupt(CorruptionKind::Magic));
        }
        // Before the version: a flipped bit must not pass for a newer format.
        let stored = u32_field::<CHECKSUM_AT, _>(bytes);
        let computed = Self::checksum(bytes);
        if stored != computed {
            return Err(HeaderError::Corrupt(CorruptionKind::Checksum { stored, computed }));
        }
        let version = u32_field::<VERSION_AT, _>(bytes);
        let incompatible = u64_field::<INCOMPATIBLE_AT, _>(bytes);
        let features = incompatible & !INCOMPATIBLE_KNOWN;
        if version != VERSION || features != 0 {
            return Err(HeaderError::Unsupported { version, features });
        }
        Ok(Self {
            topic_id: TopicId(field::<TOPIC_ID_AT, 16, _>(bytes)),
            partition: u32_field::<PARTITION_AT, _>(bytes),
            number: u64_field::<NUMBER_AT, _>(bytes),
            salt: u64_field::<SALT_AT, _>(bytes),
            generation: u32_field::<GENERATION_AT, _>(bytes),
            rewrite: Self::decode_rewrite(bytes).map_err(HeaderError::Corrupt)?,
            incompatible,
            compatible: u64_field::<COMPATIBLE_AT, _>(bytes),
        })
    }

    fn decode_rewrite(bytes: &[u8; Self::SIZE]) -> Result<Option<Rewrite>, CorruptionKind> {
        let flags = u32_field::<REWRITE_FLAGS_AT, _>(bytes);
        let replacement = Replacement {
            base_offset: u64_field::<REWRITE_BASE_AT, _>(bytes),
            next_offset: u64_field::<REWRITE_NEXT_AT, _>(bytes),
            first_number: u64_field::<REWRITE_FIRST_AT, _>(bytes),
            last_number: u64_field::<REWRITE_LAST_AT, _>(bytes),
            is_clean: flags & REWRITE_IS_CLEAN != 0,
        };
        let Replacement { base_offset, next_offset, first_number, last_number, .. } = replacement;
        let has_ranks = first_number != 0 || last_number != 0;
        let is_sound = match flags {
            0 => base_offset == 0 && next_offset == 0 && !has_ranks,
            TRUNCATES => base_offset == next_offset && !has_ranks,
            REPLACES | REPLACES_CLEAN => {
                let number = u64_field::<NUMBER_AT, _>(bytes);
                base_offset <= next_offset && first_number <= last_number && last_number < number
            }
            _ => false,
        };
        if !is_sound {
            return Err(CorruptionKind::Malformed("rewrite"));
        }
        Ok(match flags {
            0 => None,
            TRUNCATES => Some(Rewrite::Truncates(base_offset)),
            _ => Some(Rewrite::Replaces(replacement)),
        })
    }

    fn checksum(bytes: &[u8; Self::SIZE]) -> u32 {
        Checksum::of(&field::<0, CHECKSUM_AT, _>(bytes)).value()
    }
}

impl Replacement {
    fn encode(&self, bytes: &mut [u8; SegmentHeader::SIZE]) {
        let flags = if self.is_clean { REPLACES_CLEAN } else { REPLACES };
        set_field::<REWRITE_FLAGS_AT, _, _>(bytes, flags.to_le_bytes());
        set_field::<REWRITE_BASE_AT, _, _>(bytes, self.base_offset.to_le_bytes());
        set_field::<REWRITE_NEXT_AT, _, _>(bytes, self.next_offset.to_le_bytes());
        set_field::<REWRITE_FIRST_AT, _, _>(bytes, self.first_number.to_le_bytes());
        set_field::<REWRITE_LAST_AT, _, _>(bytes, self.last_number.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            topic_id: TopicId([0xab; 16]),
            partition: 7,
            number: 42,
            salt: 0x0123_4567_89ab_cdef,
            generation: 3,
            rewrite: Some(Rewrite::Replaces(replacement(true))),
            incompatible: NUMBERED_CHANGES,
            compatible: 1 << 63,
        }
    }

    fn replacement(is_clean: bool) -> Replacement {
        Replacement { base_offset: 10, next_offset: 20, first_number: 3, last_number: 5, is_clean }
    }

    fn with_checksum(mut bytes: [u8; SegmentHeader::SIZE]) -> [u8; SegmentHeader::SIZE] {
        let checksum = SegmentHeader::checksum(&bytes);
        set_field::<CHECKSUM_AT, _, _>(&mut bytes, checksum.to_le_bytes());
        bytes
    }

    #[test]
    fn headers_round_trip() {
        let replaces = |is_clean| Some(Rewrite::Replaces(replacement(is_clean)));
        for (rewrite, ranks) in [
            (None, 42..=42),
            (Some(Rewrite::Truncates(10)), 42..=42),
            (replaces(false), 3..=5),
            (replaces(true), 3..=5),
        ] {
            let header = SegmentHeader { rewrite, ..header() };
            assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
            assert_eq!(header.ranks(), ranks);
        }
        assert_eq!(header().topic_id.to_string(), "ab".repeat(16));
    }

    #[test]
    fn every_flipped_bit_is_damage_and_never_a_newer_version() {
        let bytes = header().encode();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            let result = SegmentHeader::decode(&damaged);
            assert!(matches!(result, Err(HeaderError::Corrupt(_))), "bit {bit}: {result:?}");
        }
    }

    #[test]
    fn short_empty_and_foreign_files_are_distinguished() {
        let bytes = header().encode();
        for cut in 0..bytes.len() {
            let expected = CorruptionKind::Length("segment header");
            let result = SegmentHeader::decode(&bytes[..cut]);
            assert_eq!(result, Err(HeaderError::Corrupt(expected)), "{cut}");
        }
        let zeroes = SegmentHeader::decode(&[0; 4096]);
        let expected = CorruptionKind::Malformed("segment header");
        assert_eq!(zeroes, Err(HeaderError::Corrupt(expected)));
        let foreign = SegmentHeader::decode(&[b'#'; 4096]);
        assert_eq!(foreign, Err(HeaderError::Corrupt(CorruptionKind::Magic)));
    }

    #[test]
    fn newer_versions_and_unknown_incompatible_features_are_refused() {
        let mut newer = header().encode();
        set_field::<VERSION_AT, _, _>(&mut newer, 2_u32.to_le_bytes());
        let result = SegmentHeader::decode(&with_checksum(newer));
        assert_eq!(result, Err(HeaderError::Unsupported { version: 2, features: 0 }));

        let mut featured = header().encode();
        set_field::<INCOMPATIBLE_AT, _, _>(&mut featured, (4 | NUMBERED_CHANGES).to_le_bytes());
        let result = SegmentHeader::decode(&with_checksum(featured));
        assert_eq!(result, Err(HeaderError::Unsupported { version: 1, features: 4 }));
    }

    #[test]
    fn rewrites_that_make_no_sense_are_refused() {
        let cases: &[(u32, [u64; 4])] = &[
            (0, [1, 1, 0, 0]),
            (0, [0, 0, 1, 1]),
            (1, [20, 10, 3, 5]),
            (1, [10, 20, 5, 3]),
            (1, [10, 20, 3, 42]),
            (2, [0, 0, 0, 0]),
            (3, [10, 20, 0, 0]),
            (3, [10, 10, 3, 5]),
            (4, [10, 20, 3, 5]),
            (7, [10, 10, 3, 5]),
            (8, [0, 0, 0, 0]),
        ];
        for (flags, [base, next, first, last]) in cases {
            let mut bytes = header().encode();
            set_field::<REWRITE_FLAGS_AT, _, _>(&mut bytes, flags.to_le_bytes());
            set_field::<REWRITE_BASE_AT, _, _>(&mut bytes, base.to_le_bytes());
            set_field::<REWRITE_NEXT_AT, _, _>(&mut bytes, next.to_le_bytes());
            set_field::<REWRITE_FIRST_AT, _, _>(&mut bytes, first.to_le_bytes());
            set_field::<REWRITE_LAST_AT, _, _>(&mut bytes, last.to_le_bytes());
            let result = SegmentHeader::decode(&with_checksum(bytes));
            let expected = CorruptionKind::Malformed("rewrite");
            assert_eq!(result, Err(HeaderError::Corrupt(expected)), "{flags} {first} {last}");
        }
    }
}

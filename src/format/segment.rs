//! The segment header: what a file says about itself before any data.
//!
//! Owns: the 128 bytes at the start of every segment file. Must not know: where the file lies, or
//! what its batches hold. Invariants:
//!
//! 1. `decode(encode(h)) == h`.
//! 2. The magic, the version, both feature words and the checksum stay where they are in every
//!    future version, so damage is told from a newer format before anything else is believed.
//! 3. Written once, before the file gets its name; never changed.
//!
//! Pure; called from any thread.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::checksum::Checksum;
use super::fields::{field, set_field, u32_field, u64_field};
use crate::error::CorruptionKind;

/// FORMAT: not text, and not what any other file kind begins with; the carriage return and line
/// feed show a transfer that took the file for text.
const MAGIC: [u8; 8] = *b"\x89LPOND\r\n";

/// The format version that this build writes, and the only one that it reads.
pub(crate) const VERSION: u32 = 1;

/// Incompatible feature bits that this build understands: none yet.
const INCOMPATIBLE_KNOWN: u64 = 0;

const REWRITE_PRESENT: u32 = 1;
const REWRITE_TRUNCATES: u32 = 2;

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
const RESERVED_AT: usize = REWRITE_NEXT_AT + 8;
const RESERVED_SIZE: usize = 36;
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
const _: () = assert!(RESERVED_AT == 88);
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

/// Says that a segment replaces those of lower generation between two offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rewrite {
    /// The first offset that is replaced.
    pub(crate) base_offset: u64,
    /// The offset after the last that is replaced.
    pub(crate) next_offset: u64,
    /// Whether everything of lower generation at or beyond `next_offset` is void too.
    pub(crate) truncates: bool,
}

/// What a segment file says about itself.
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
        set_field::<INCOMPATIBLE_AT, _, _>(&mut bytes, INCOMPATIBLE_KNOWN.to_le_bytes());
        set_field::<COMPATIBLE_AT, _, _>(&mut bytes, self.compatible.to_le_bytes());
        set_field::<TOPIC_ID_AT, _, _>(&mut bytes, self.topic_id.0);
        set_field::<NUMBER_AT, _, _>(&mut bytes, self.number.to_le_bytes());
        set_field::<SALT_AT, _, _>(&mut bytes, self.salt.to_le_bytes());
        set_field::<GENERATION_AT, _, _>(&mut bytes, self.generation.to_le_bytes());
        if let Some(rewrite) = self.rewrite {
            let truncates = if rewrite.truncates { REWRITE_TRUNCATES } else { 0 };
            let flags = REWRITE_PRESENT | truncates;
            set_field::<REWRITE_FLAGS_AT, _, _>(&mut bytes, flags.to_le_bytes());
            set_field::<REWRITE_BASE_AT, _, _>(&mut bytes, rewrite.base_offset.to_le_bytes());
            set_field::<REWRITE_NEXT_AT, _, _>(&mut bytes, rewrite.next_offset.to_le_bytes());
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
        // A file that was allocated and never written: a crash left it, nobody damaged it.
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
        let features = u64_field::<INCOMPATIBLE_AT, _>(bytes) & !INCOMPATIBLE_KNOWN;
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
            compatible: u64_field::<COMPATIBLE_AT, _>(bytes),
        })
    }

    fn decode_rewrite(bytes: &[u8; Self::SIZE]) -> Result<Option<Rewrite>, CorruptionKind> {
        let flags = u32_field::<REWRITE_FLAGS_AT, _>(bytes);
        let base_offset = u64_field::<REWRITE_BASE_AT, _>(bytes);
        let next_offset = u64_field::<REWRITE_NEXT_AT, _>(bytes);
        let truncates = flags & REWRITE_TRUNCATES != 0;
        match flags {
            0 if base_offset == 0 && next_offset == 0 => Ok(None),
            f if f & !REWRITE_TRUNCATES == REWRITE_PRESENT && base_offset <= next_offset => {
                Ok(Some(Rewrite { base_offset, next_offset, truncates }))
            }
            _ => Err(CorruptionKind::Malformed("rewrite")),
        }
    }

    fn checksum(bytes: &[u8; Self::SIZE]) -> u32 {
        Checksum::of(&field::<0, CHECKSUM_AT, _>(bytes)).value()
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
            rewrite: Some(Rewrite { base_offset: 10, next_offset: 20, truncates: true }),
            compatible: 1 << 63,
        }
    }

    fn with_checksum(mut bytes: [u8; SegmentHeader::SIZE]) -> [u8; SegmentHeader::SIZE] {
        let checksum = SegmentHeader::checksum(&bytes);
        set_field::<CHECKSUM_AT, _, _>(&mut bytes, checksum.to_le_bytes());
        bytes
    }

    #[test]
    fn headers_round_trip() {
        let truncates = |truncates| Rewrite { base_offset: 10, next_offset: 20, truncates };
        for rewrite in [None, Some(truncates(false)), Some(truncates(true))] {
            let header = SegmentHeader { rewrite, ..header() };
            assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
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
    fn short_empty_and_foreign_files_are_told_apart() {
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
        set_field::<INCOMPATIBLE_AT, _, _>(&mut featured, 4_u64.to_le_bytes());
        let result = SegmentHeader::decode(&with_checksum(featured));
        assert_eq!(result, Err(HeaderError::Unsupported { version: 1, features: 4 }));
    }

    #[test]
    fn rewrites_that_make_no_sense_are_refused() {
        for (flags, base, next) in [(1, 20, 10), (2, 0, 0), (4, 0, 0), (5, 1, 2), (0, 1, 2)] {
            let mut bytes = header().encode();
            set_field::<REWRITE_FLAGS_AT, _, _>(&mut bytes, u32::to_le_bytes(flags));
            set_field::<REWRITE_BASE_AT, _, _>(&mut bytes, u64::to_le_bytes(base));
            set_field::<REWRITE_NEXT_AT, _, _>(&mut bytes, u64::to_le_bytes(next));
            let result = SegmentHeader::decode(&with_checksum(bytes));
            let expected = CorruptionKind::Malformed("rewrite");
            assert_eq!(result, Err(HeaderError::Corrupt(expected)), "{flags}");
        }
    }
}

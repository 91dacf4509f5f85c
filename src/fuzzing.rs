//! What the fuzz targets of `tests/fuzz` run: one function per target, over arbitrary bytes.
//!
//! Each asserts what must hold whatever the bytes are: no panic, no endless loop, and what is
//! accepted has one meaning, so that it is written as it was read. Bounds on memory are the
//! fuzzer's (`-malloc_limit_mb`). Where only a right checksum lets anything through, the function
//! makes it right first, so that the code behind it is reached.
//!
//! No part of the crate as it is used: compiled under `--cfg fuzzing`, which `cargo fuzz` sets, and
//! for the tests, which run the same functions over the corpus and over mutations of it.

#[cfg(feature = "replication")]
mod frames;
mod internal;
mod recovery;
mod stored;
#[cfg(test)]
mod tests;
mod values;

#[cfg(feature = "replication")]
pub use self::frames::frame;
pub use self::internal::internal;
pub use self::recovery::recovery;
pub use self::stored::{batch, footer};
pub use self::values::codec;

use crate::format::{ONE_PASS_CHECKSUMS, SegmentKey};

/// The salt of what is made up here. A hostile file may have any.
const SALT: u64 = 0x5A17;

/// The keys of segments with this salt: of today, and of earlier builds.
fn keys(salt: u64) -> [SegmentKey; 2] {
    [SegmentKey::new(salt, ONE_PASS_CHECKSUMS), SegmentKey::new(salt, 0)]
}

/// Takes the first byte: what the rest is to be taken for.
fn mode(data: &[u8]) -> (u8, &[u8]) {
    data.split_first().map_or((0, data), |(mode, rest)| (*mode, rest))
}

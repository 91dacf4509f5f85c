//! The checksum of everything on disk: CRC-32 (IEEE 802.3, reflected, polynomial 0x04C11DB7).
//!
//! Owns: the only import of `crc32fast`. A [`Checksum`] can be continued, which is what lets a
//! producer checksum its records before the partition's lock and the header under it:
//! `of(a).then(b) == of(a ++ b)`. The CRC of nothing is 0, so zeroes are never taken for data
//! because a checksum fits: a size of zero ends a log before any checksum is looked at.
//! Pure; called from any thread.

use crc32fast::Hasher;

/// A CRC-32 that can be continued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Checksum(u32);

impl Checksum {
    /// The checksum of `bytes`.
    #[inline]
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(0).then(bytes)
    }

    /// The checksum of `head` followed by `tail`. Cheaper than [`of`](Self::of) and
    /// [`then`](Self::then): what the machine can do is asked for once.
    #[inline]
    pub(crate) fn of_both(head: &[u8], tail: &[u8]) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(head);
        hasher.update(tail);
        Self(hasher.finalize())
    }

    /// The checksum of what this one covers followed by `bytes`.
    #[inline]
    pub(crate) fn then(self, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new_with_initial(self.0);
        hasher.update(bytes);
        Self(hasher.finalize())
    }

    /// The value that is stored.
    #[inline]
    pub(crate) const fn value(self) -> u32 {
        self.0
    }
}

/// A checksum that has begun, to be continued many times. What the machine can do was asked for
/// once, which costs each short checksum a nanosecond.
#[derive(Debug, Clone)]
pub(crate) struct Begun(Hasher);

impl Begun {
    /// The beginning that all continue.
    pub(crate) fn with(head: &[u8]) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(head);
        Self(hasher)
    }

    /// The checksum of the beginning followed by `bytes`.
    #[inline]
    pub(crate) fn then(&self, bytes: &[u8]) -> Checksum {
        let mut hasher = self.0.clone();
        hasher.update(bytes);
        Checksum(hasher.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_crc_that_everybody_calls_crc32() {
        assert_eq!(Checksum::of(b"123456789").value(), 0xcbf4_3926);
        assert_eq!(Checksum::of(b"").value(), 0);
    }

    #[test]
    fn continuing_equals_the_whole_at_every_cut() {
        let bytes: Vec<u8> = (0..=255).collect();
        for cut in 0..=bytes.len() {
            let (left, right) = bytes.split_at(cut);
            assert_eq!(Checksum::of(left).then(right), Checksum::of(&bytes));
            assert_eq!(Checksum::of_both(left, right), Checksum::of(&bytes));
            let begun = Begun::with(left);
            assert_eq!(begun.then(right), Checksum::of(&bytes));
            assert_eq!(begun.then(right), Checksum::of(&bytes), "the beginning is as it was");
        }
    }
}

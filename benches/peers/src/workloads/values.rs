//! What is written, and how a reader knows that it has read just that.
//!
//! Each value begins with its number; the rest is noise, which does not compress. A reader compares
//! the number and the length of every record, so a contender that skips, repeats or shortens one
//! fails instead of being fast.

use crate::log::{Outcome, Values};

/// Values of one size, as many as a batch has.
#[derive(Debug)]
pub(crate) struct Source {
    bytes: Vec<u8>,
    size: usize,
}

impl Source {
    pub(crate) fn new(size: usize, count: u64) -> Outcome<Self> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut noise = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        let length = size * usize::try_from(count)?;
        let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| noise()).collect();
        bytes.truncate(length);
        Ok(Self { bytes, size })
    }

    /// The values of one append, of which the first gets this number.
    #[inline]
    pub(crate) fn numbered(&mut self, first: u64) -> Values<'_> {
        for (number, value) in (first..).zip(self.bytes.chunks_exact_mut(self.size)) {
            if let Some(start) = value.first_chunk_mut() {
                *start = number.to_le_bytes();
            }
        }
        Values { bytes: &self.bytes, size: self.size }
    }

    /// A lone value.
    #[inline]
    pub(crate) fn lone(&mut self, number: u64) -> &[u8] {
        self.numbered(number).bytes
    }
}

/// What a reader expects next.
#[derive(Debug)]
pub(crate) struct Expected {
    next: u64,
    size: usize,
    /// What came instead, if anything ever did.
    wrong: Option<(u64, Option<u64>, usize)>,
}

impl Expected {
    pub(crate) fn new(size: usize) -> Self {
        Self { next: 0, size, wrong: None }
    }

    #[inline]
    pub(crate) fn see(&mut self, value: &[u8]) {
        let number = value.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        if number != Some(self.next) || value.len() != self.size {
            self.note(number, value.len());
        }
        self.next += 1;
    }

    #[cold]
    fn note(&mut self, number: Option<u64>, length: usize) {
        self.wrong.get_or_insert((self.next, number, length));
    }

    /// How many records came as they were written, before the first one that did not.
    pub(crate) fn right(&self) -> u64 {
        self.wrong.map_or(self.next, |(at, _, _)| at)
    }

    /// How many records came, of which the first `count` must be as they were written.
    pub(crate) fn check(&self, count: u64) -> Outcome<u64> {
        match self.wrong {
            Some((at, number, length)) if at < count => {
                Err(format!("record {at} came with the number {number:?} and {length} bytes")
                    .into())
            }
            _ => Ok(self.next),
        }
    }
}

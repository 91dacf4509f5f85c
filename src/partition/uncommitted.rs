//! The bytes of a leader's log above the high watermark, which are bounded.
//!
//! Owns: how many there are, and where they end. It is under the partition's lock. Must not know:
//! the log, and what the bound is for.

use std::collections::VecDeque;

/// LIMIT: into how many parts the bound is divided: that many marks are kept at most, and the bytes
/// of a part count until the watermark has passed all of it.
const PARTS: u64 = 64;

/// Appends that follow one another.
#[derive(Debug)]
struct Mark {
    end: u64,
    bytes: u64,
}

#[derive(Debug, Default)]
pub(super) struct Uncommitted {
    /// In the order of their ends.
    marks: VecDeque<Mark>,
    bytes: u64,
}

impl Uncommitted {
    /// Whether so many bytes may be added. If there are none, any number may: a batch that is larger
    /// than the bound could never be appended otherwise.
    pub(super) fn has_room_for(&self, bytes: u64, bound: u64) -> bool {
        self.bytes == 0 || self.bytes.saturating_add(bytes) <= bound
    }

    /// Notes an append.
    pub(super) fn note(&mut self, end: u64, bytes: u64, bound: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        match self.marks.back_mut() {
            Some(last) if last.bytes.saturating_add(bytes) <= bound / PARTS => {
                last.end = end;
                last.bytes = last.bytes.saturating_add(bytes);
            }
            _ => self.marks.push_back(Mark { end, bytes }),
        }
    }

    /// A majority has everything below `watermark`.
    pub(super) fn settle(&mut self, watermark: u64) {
        while let Some(first) = self.marks.front().filter(|first| first.end <= watermark) {
            self.bytes = self.bytes.saturating_sub(first.bytes);
            self.marks.pop_front();
        }
    }

    /// The leadership has ended.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_above_the_watermark_are_bounded() {
        let mut uncommitted = Uncommitted::default();
        assert!(uncommitted.has_room_for(1_000, 640), "a batch alone may be larger");
        uncommitted.note(1, 1_000, 640);
        assert!(!uncommitted.has_room_for(1, 640));
        uncommitted.settle(1);
        for end in 2..=65 {
            assert!(uncommitted.has_room_for(10, 640), "{end}");
            uncommitted.note(end, 10, 640);
        }
        assert!(!uncommitted.has_room_for(1, 640));
        uncommitted.settle(33);
        assert!(uncommitted.has_room_for(320, 640) && !uncommitted.has_room_for(321, 640));
        uncommitted.clear();
        assert!(uncommitted.has_room_for(1_000, 640));
    }

    #[test]
    fn many_small_appends_have_few_marks() {
        let mut uncommitted = Uncommitted::default();
        for end in 1..=100_000 {
            uncommitted.note(end, 7, 1 << 20);
        }
        assert!(uncommitted.marks.len() as u64 <= PARTS, "{}", uncommitted.marks.len());
        uncommitted.settle(100_000);
        assert_eq!((uncommitted.bytes, uncommitted.marks.len()), (0, 0));
    }
}

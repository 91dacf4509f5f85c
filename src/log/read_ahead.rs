//! How far ahead of a cursor the disk is read.
//!
//! Owns: how much the cursor has read in one go, and up to where it has asked for what follows. Must
//! not know: the cursor, what is in the files, which thread reads ahead.
//!
//! The kernel reads ahead of a map by itself, a window at a time, but the reader starts each window
//! by a page fault, pays for it, and waits for the device at the beginning of each file. So a cursor
//! that reads on and on has ranges read by another thread before it gets there, also in the next
//! segment. One that reads a little here and there asks for nothing.
//!
//! Invariant: no byte is asked for twice, unless the cursor is placed anew.

use std::ops::Range;
use std::sync::Arc;

use crate::storage::region::Region;

/// LIMIT: how far the cursor goes between two looks ahead, and what one range has at most when it
/// reads steadily. Large enough that one system call to look costs nothing beside it.
const STEP_BYTES: usize = 4 << 20;

/// LIMIT: how far ahead the disk is read: what a device of 2 GB/s needs to be busy while one step is
/// checked, and little beside the page cache. The distance grows with what was read in one go.
const AHEAD_BYTES: usize = 16 << 20;

/// Bytes that a cursor is going to read, and that are not in memory.
#[derive(Debug)]
pub(crate) struct Ahead {
    region: Arc<Region>,
    range: Range<usize>,
}

impl Ahead {
    /// What of this range is to be read from the disk; `None` if it is in memory already, which the
    /// last page of a range shows well enough.
    pub(super) fn of(region: &Arc<Region>, range: Range<usize>) -> Option<Self> {
        let range = range.start..range.end.min(region.published());
        let last = range.end.checked_sub(1).filter(|last| *last >= range.start)?;
        (!region.is_resident(last)).then(|| Self { region: Arc::clone(region), range })
    }

    /// Of a range that is in memory.
    #[cfg(test)]
    pub(crate) fn of_any(region: &Arc<Region>, range: Range<usize>) -> Self {
        Self { region: Arc::clone(region), range }
    }

    /// Reads it. Blocks for the disk.
    pub(crate) fn run(&self) {
        self.region.read_in(self.range.clone());
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct ReadAhead {
    /// At which position in the segment to look ahead next.
    due: usize,
    /// What was read in one go, up to [`AHEAD_BYTES`].
    read: usize,
    /// Up to where it was asked for in this segment.
    asked: usize,
    /// The same in the next one.
    asked_next: usize,
}

impl ReadAhead {
    /// Of a cursor that is placed at `position`, and may read one record only.
    pub(super) fn at(position: usize) -> Self {
        let due = position.saturating_add(STEP_BYTES);
        Self { due, read: 0, asked: position, asked_next: 0 }
    }

    /// At which position to call [`look`](Self::look).
    #[inline]
    pub(super) fn due(&self) -> usize {
        self.due
    }

    /// The cursor continues at the beginning of the next segment.
    pub(super) fn begin_next(&mut self) {
        self.asked = std::mem::take(&mut self.asked_next);
        self.due = 0;
    }

    /// What to read now of this segment, which ends at `end`, and of the next one.
    pub(super) fn look(&mut self, position: usize, end: usize) -> (Range<usize>, Range<usize>) {
        if self.due > 0 {
            self.read = self.read.saturating_add(STEP_BYTES).min(AHEAD_BYTES);
        }
        self.due = position.saturating_add(STEP_BYTES);
        let reach = position.saturating_add(self.read);
        let own = self.asked.max(position)..reach.min(end);
        self.asked = self.asked.max(own.end);
        let next = self.asked_next..reach.saturating_sub(end);
        self.asked_next = self.asked_next.max(next.end);
        (own, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: usize = 64 << 20;
    const MIB: usize = 1 << 20;

    fn mib(range: &Range<usize>) -> Range<usize> {
        range.start / MIB..range.end / MIB
    }

    /// Reads a segment to its end, and returns what was asked for at which position.
    fn read(
        ahead: &mut ReadAhead,
        mut position: usize,
    ) -> Vec<(usize, Range<usize>, Range<usize>)> {
        let mut asked = Vec::new();
        while position < END {
            if position >= ahead.due() {
                let (own, next) = ahead.look(position, END);
                asked.push((position / MIB, mib(&own), mib(&next)));
            }
            position += MIB;
        }
        asked
    }

    /// A cursor that reads a record here and there has nothing read that nobody needs; one that
    /// reads on is ahead of the disk by more and more, across segments.
    #[test]
    fn the_distance_grows_with_what_was_read_in_one_go() {
        let mut ahead = ReadAhead::at(0);
        assert_eq!(ahead.due(), 4 * MIB, "nothing for less than a step");
        let first = read(&mut ahead, 0);
        let beginning = [(4, 4..8, 0..0), (8, 8..16, 0..0), (12, 16..24, 0..0), (16, 24..32, 0..0)];
        assert_eq!(first[..4], beginning);
        assert_eq!(
            first[first.len() - 3..],
            [(52, 64..64, 0..4), (56, 64..64, 4..8), (60, 64..64, 8..12)]
        );
        ahead.begin_next();
        let second = read(&mut ahead, 0);
        assert_eq!(second[..2], [(0, 12..16, 0..0), (4, 16..20, 0..0)]);
        let sum: usize = second.iter().map(|(_, own, _)| own.len()).sum();
        assert_eq!(sum, 64 - 12, "each byte once");
    }

    /// At the end of a log, where little is left, nothing beyond it is asked for.
    #[test]
    fn nothing_is_asked_for_beyond_the_end_or_behind_the_cursor() {
        let mut ahead = ReadAhead::at(0);
        let (own, _) = ahead.look(20 * MIB, 21 * MIB);
        assert_eq!(mib(&own), 20..21);
        let (own, _) = ahead.look(30 * MIB, 21 * MIB);
        assert!(own.is_empty());
    }
}

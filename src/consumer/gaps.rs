//! The gaps of a consumer: offsets that it missed, until the application takes the list.
//!
//! Owns: the list behind [`Consumer::take_gaps`](super::Consumer::take_gaps), and its limit. Must
//! not know: why records were missed.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::record::TopicPartition;

/// Offsets that a consumer missed, returned by [`Consumer::take_gaps`](super::Consumer::take_gaps):
/// the records were removed before it read them, it skipped them because of
/// [`out_of_range`](super::ConsumerBuilder::out_of_range), or they are damaged and it skipped them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gap {
    /// The partition.
    pub partition: TopicPartition,
    /// The offsets that were missed.
    pub missed: Range<u64>,
}

/// LIMIT: a consumer that falls behind again and again, and never takes its gaps, keeps this many
/// ranges and at most one more per partition.
const GAPS_MAX: usize = 1_024;

/// In the order in which they were met.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    met: Vec<Gap>,
    /// Gaps that were found when partitions were taken over. The partitions may be taken away
    /// before a poll reads them; then the next owner finds the same gap, and only that owner
    /// reports it.
    taken_over: Vec<Gap>,
}

impl Gaps {
    /// Adds a gap, or extends the partition's last one if both are one range. Beyond the limit the
    /// partition's two oldest gaps become one, with the offsets between them.
    pub(super) fn push(&mut self, gap: Gap) {
        let mut newest_first = self.met.iter_mut().rev();
        let last = newest_first.find(|known| known.partition == gap.partition);
        if let Some(last) = last
            && touch(last, &gap)
        {
            cover(last, &gap);
            return;
        }
        let partition = gap.partition.clone();
        self.met.push(gap);
        if self.met.len() > GAPS_MAX {
            self.join_oldest(&partition);
        }
    }

    /// Adds a gap that was found when a partition was taken over.
    pub(super) fn push_taken_over(&mut self, gap: Gap) {
        self.taken_over.push(gap);
    }

    /// Whether a gap was found when the partition was taken over, and no poll has followed. A
    /// commit above it would hide it from the next owner.
    pub(super) fn awaits_poll(&self, partition: &TopicPartition) -> bool {
        self.taken_over.iter().any(|gap| gap.partition == *partition)
    }

    /// The partitions that were taken over are read now: the caller adds their gaps.
    #[inline]
    pub(super) fn take_taken_over(&mut self) -> Vec<Gap> {
        std::mem::take(&mut self.taken_over)
    }

    /// These partitions are another's before they were read.
    pub(super) fn forget_taken_over(&mut self, gone: &BTreeSet<&TopicPartition>) {
        self.taken_over.retain(|gap| !gone.contains(&gap.partition));
    }

    pub(super) fn take(&mut self) -> Vec<Gap> {
        std::mem::take(&mut self.met)
    }

    fn join_oldest(&mut self, partition: &TopicPartition) {
        let is_same = |gap: &Gap| gap.partition == *partition;
        let Some(oldest) = self.met.iter().position(is_same) else { return };
        let Some(next) = self.met.iter().skip(oldest + 1).position(is_same) else { return };
        let next = self.met.remove(oldest + 1 + next);
        if let Some(oldest) = self.met.get_mut(oldest) {
            cover(oldest, &next);
        }
    }
}

impl Extend<Gap> for Gaps {
    fn extend<I: IntoIterator<Item = Gap>>(&mut self, gaps: I) {
        for gap in gaps {
            self.push(gap);
        }
    }
}

fn touch(one: &Gap, other: &Gap) -> bool {
    one.missed.start <= other.missed.end && other.missed.start <= one.missed.end
}

fn cover(gap: &mut Gap, other: &Gap) {
    gap.missed.start = gap.missed.start.min(other.missed.start);
    gap.missed.end = gap.missed.end.max(other.missed.end);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(partition: u32, missed: Range<u64>) -> Gap {
        Gap { partition: TopicPartition::from(("t", partition)), missed }
    }

    fn kept(gaps: impl IntoIterator<Item = Gap>) -> Vec<Gap> {
        let mut all = Gaps::default();
        all.extend(gaps);
        all.take()
    }

    #[test]
    fn gaps_that_are_one_range_are_one() {
        assert_eq!(kept([gap(0, 1..4), gap(0, 4..6), gap(0, 6..7)]), [gap(0, 1..7)]);
        // Missed once more after a seek back.
        assert_eq!(kept([gap(0, 3..6), gap(0, 0..8)]), [gap(0, 0..8)]);
        // Whatever other partitions missed meanwhile.
        let mixed = [gap(0, 1..4), gap(1, 4..6), gap(0, 4..6)];
        assert_eq!(kept(mixed), [gap(0, 1..6), gap(1, 4..6)]);
    }

    #[test]
    fn records_removed_before_the_assignment_are_no_gap() {
        let mut all = Gaps::default();
        all.push(gap(0, 0..1));
        all.push_taken_over(gap(0, 1..4));
        all.push_taken_over(gap(1, 1..4));
        all.forget_taken_over(&BTreeSet::from([&TopicPartition::from(("t", 0))]));
        assert_eq!(all.take_taken_over(), [gap(1, 1..4)]);
        assert_eq!(all.take(), [gap(0, 0..1)]);
    }

    #[test]
    fn what_was_read_between_two_gaps_keeps_them_apart() {
        let apart = [gap(0, 1..4), gap(0, 5..6), gap(1, 0..1)];
        assert_eq!(kept(apart.clone()), apart);
    }

    #[test]
    fn beyond_the_limit_the_oldest_of_the_partition_become_one() {
        let max = GAPS_MAX as u64;
        let nth = |nth: u64| gap(0, nth * 10..nth * 10 + 1);
        let mut expected = vec![gap(1, 0..1), gap(0, 0..41)];
        expected.extend((5..max + 3).map(nth));
        assert_eq!(expected.len(), GAPS_MAX);
        assert_eq!(kept(std::iter::once(gap(1, 0..1)).chain((0..max + 3).map(nth))), expected);
    }

    #[test]
    fn each_partition_keeps_one_at_least() {
        let each = u32::try_from(GAPS_MAX).unwrap() * 2;
        let twice = (0..each).chain(0..each).map(|number| gap(number, 0..1));
        assert_eq!(kept(twice), (0..each).map(|number| gap(number, 0..1)).collect::<Vec<_>>());
        let again = (0..each).map(|number| gap(number, 0..1));
        let later = (0..each).map(|number| gap(number, 5..6));
        let joined: Vec<_> = (0..each).map(|number| gap(number, 0..6)).collect();
        assert_eq!(kept(again.chain(later)), joined);
    }
}

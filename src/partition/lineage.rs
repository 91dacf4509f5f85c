//! The incarnations of one log: each recovery, and the offset from which the log continued after
//! it.
//!
//! A recovery may drop a tail that a consumer has read and committed. The log then assigns the same
//! offsets to other records. Only the incarnation, a random number that each recovery draws,
//! distinguishes the two. Pure; stored in `__local`.

use serde::{Deserialize, Serialize};

use crate::error::CorruptionKind;
use crate::log::OFFSET_MAX;

/// LIMIT: how many recoveries are remembered per partition, about 20 bytes each. A commit older
/// than the oldest of them is held against those that are left.
const RECOVERIES_MAX: usize = 32;

/// Where an incarnation begins: records below it are those of earlier incarnations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Incarnation {
    id: u64,
    base_offset: u64,
}

/// The incarnations of a log since it was made, oldest first. The first one of all, under which
/// the log was made, is not listed: an unknown id is older than all that are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lineage(Vec<Incarnation>);

impl Lineage {
    /// The id of the last incarnation; `None` while the log was never recovered.
    pub(crate) fn current(&self) -> Option<u64> {
        self.0.last().map(|last| last.id)
    }

    /// Whether a log can have been recovered where this says.
    pub(crate) fn check(&self) -> Result<(), CorruptionKind> {
        if self.0.iter().all(|incarnation| incarnation.base_offset <= OFFSET_MAX) {
            return Ok(());
        }
        Err(CorruptionKind::Malformed("an incarnation's base offset"))
    }

    /// Takes note of a recovery, after which the log continues at `base_offset`.
    pub(crate) fn begin(&mut self, id: u64, base_offset: u64) {
        self.0.push(Incarnation { id, base_offset });
        let surplus = self.0.len().saturating_sub(RECOVERIES_MAX);
        self.0.drain(..surplus);
    }

    /// Whether a position that was reached under the incarnation `id` has been cut off since:
    /// the lowest offset to which the log was cut below it.
    pub(crate) fn cut_below(&self, offset: u64, id: u64) -> Option<u64> {
        let known = self.0.iter().position(|incarnation| incarnation.id == id);
        let later = known.map_or(0, |index| index.saturating_add(1));
        let bases = self.0.iter().skip(later).map(|incarnation| incarnation.base_offset);
        bases.min().filter(|lowest| *lowest < offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lineage(incarnations: &[(u64, u64)]) -> Lineage {
        let mut lineage = Lineage::default();
        for (id, base_offset) in incarnations {
            lineage.begin(*id, *base_offset);
        }
        lineage
    }

    #[test]
    fn a_position_is_cut_by_any_later_incarnation_that_begins_below_it() {
        let lineage = lineage(&[(1, 10), (2, 7), (3, 12)]);
        assert_eq!(lineage.cut_below(8, 0), Some(7), "made before all");
        assert_eq!(lineage.cut_below(8, 1), Some(7));
        assert_eq!(lineage.cut_below(20, 2), Some(12));
        assert_eq!(lineage.cut_below(20, 3), None, "the present one");
        assert_eq!(lineage.cut_below(20, 1), Some(7), "the lowest of both");
    }

    #[test]
    fn a_position_at_or_below_every_later_base_stands() {
        let lineage = lineage(&[(1, 10), (2, 10)]);
        assert_eq!(lineage.cut_below(10, 0), None);
        assert_eq!(lineage.cut_below(0, 1), None);
        assert_eq!(Lineage::default().cut_below(u64::MAX, 9), None);
    }

    #[test]
    fn the_oldest_are_forgotten_first_and_count_as_older_than_the_rest() {
        let mut lineage = Lineage::default();
        (0..100).for_each(|id| lineage.begin(id, 1_000 + id));
        assert_eq!(lineage.0.len(), RECOVERIES_MAX);
        assert_eq!(lineage.current(), Some(99));
        assert_eq!(lineage.cut_below(2_000, 3), Some(1_068));
        assert_eq!(lineage.cut_below(1_068, 3), None);
    }
}

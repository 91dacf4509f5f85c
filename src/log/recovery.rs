//! What a partition is after a crash: a pure decision over what its files show.
//!
//! [`decide`] sees [`Facts`] about each segment and says which stretches belong to the log, where
//! it ends, what is damage and what is a torn tail. It does no I/O, so every crash window is a
//! table test. The rules:
//!
//! 1. Evidence: a valid footer, an opening batch's or any batch's durable mark, and a recovery
//!    point each prove that everything before them was on stable storage. The highest is
//!    `durable`.
//! 2. Below `durable`, anything missing is damage: reported, never cut, readable around.
//! 3. At or above `durable`, the first gap ends the log: a torn tail.
//! 4. A segment's stretches count only up to where the next segment begins: what a crash left
//!    behind a cut stays in the file for ever and must never follow a later batch.
//! 5. A segment that truncates removes those of lower generation that begin at or above its base.

use std::ops::Range;

use super::scan::Stretch;
use crate::error::CorruptionKind;
use crate::format::{SegmentHeader, TimeRange};

/// What is known of one segment file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) number: u64,
    pub(crate) generation: u32,
    /// Set in a segment that cut the log: it begins here, and replaces what lies above.
    pub(crate) truncates_to: Option<u64>,
    /// The base offset that its opening batch or footer states; `None` if there is neither.
    pub(crate) base_offset: Option<u64>,
    /// All chains of valid batches in it. A valid footer makes it one.
    pub(crate) stretches: Vec<Stretch>,
    /// The highest offset that its contents prove to have been durable.
    pub(crate) durable: u64,
    /// Why its first stretch ended, if not at an end mark.
    pub(crate) damage: Option<(u64, CorruptionKind)>,
    /// Position after the last byte that is not zero.
    pub(crate) garbage_end: u64,
}

/// What the log makes of one segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It belongs to the log. `tail_start` is where its last stretch begins: all damage is before.
    Keep { tail_start: u32, data_end: u32, next_offset: u64, times: Option<TimeRange> },
    /// It holds nothing that counts.
    Remove,
}

/// Offsets that were durable and cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damage {
    /// The segment in which the gap begins.
    pub(crate) segment: usize,
    pub(crate) position: u64,
    pub(crate) offsets: Range<u64>,
    pub(crate) kind: CorruptionKind,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// One fate per segment, in order.
    pub(crate) fates: Vec<Fate>,
    pub(crate) end_offset: u64,
    pub(crate) durable: u64,
    pub(crate) damage: Vec<Damage>,
    /// Bytes of torn or unproved batches behind the cut.
    pub(crate) cut_bytes: u64,
    /// Whether whole segments are cut off, so that their successor must say so.
    pub(crate) cuts_segments: bool,
}

/// Decides. `segments` are in number order; `proved` is what a recovery point proves; `start` is
/// the log start offset, where the log must begin at the latest.
pub(crate) fn decide(segments: &[Facts], proved: u64, start: Option<u64>) -> Verdict {
    let live = without_leftovers(segments);
    let evidence = live.iter().filter_map(|index| segments.get(*index)).map(|facts| facts.durable);
    let durable = evidence.fold(proved, u64::max);
    let mut verdict =
        Verdict { fates: vec![Fate::Remove; segments.len()], durable, ..Verdict::default() };
    let mut walk = Walk { durable, expected: None, torn: false };
    for (order, &index) in live.iter().enumerate() {
        let Some(facts) = segments.get(index) else { continue };
        let bound = live
            .iter()
            .skip(order.saturating_add(1))
            .filter_map(|next| segments.get(*next)?.base_offset)
            .next();
        walk.segment(index, facts, bound, start, &mut verdict);
    }
    let end = walk.expected.or(start).unwrap_or(0);
    verdict.end_offset = end.max(durable);
    if durable > end {
        // Rule 2 at the very end: what is gone was durable.
        let last = live.last().copied().unwrap_or(0);
        let (position, kind) = segments
            .get(last)
            .and_then(|facts| facts.damage.clone())
            .unwrap_or((0, CorruptionKind::ShortOfDurable { found: end, durable }));
        verdict.damage.push(Damage { segment: last, position, offsets: end..durable, kind });
    }
    verdict
}

/// The segments that no truncation has removed (rule 5).
fn without_leftovers(segments: &[Facts]) -> Vec<usize> {
    let removed = |facts: &Facts| {
        segments.iter().any(|other| {
            other.generation > facts.generation
                && other.truncates_to.is_some_and(|cut| {
                    facts.base_offset.is_none_or(|base| base >= cut) && facts.number < other.number
                })
        })
    };
    (0..segments.len())
        .filter(|index| segments.get(*index).is_some_and(|facts| !removed(facts)))
        .collect()
}

struct Walk {
    durable: u64,
    /// The offset that comes next; `None` before the first stretch.
    expected: Option<u64>,
    /// The log has ended: nothing from here on counts.
    torn: bool,
}

impl Walk {
    fn segment(
        &mut self,
        index: usize,
        facts: &Facts,
        bound: Option<u64>,
        start: Option<u64>,
        verdict: &mut Verdict,
    ) {
        let mut kept: Option<Fate> = None;
        for stretch in &facts.stretches {
            if bound.is_some_and(|bound| stretch.base_offset >= bound && kept.is_some()) {
                break; // rule 4
            }
            if self.torn || !self.accepts(index, facts, stretch, start, verdict) {
                verdict.cut_bytes += u64::from(stretch.end.saturating_sub(stretch.start));
                continue;
            }
            kept = Some(Fate::Keep {
                tail_start: stretch.start,
                data_end: stretch.end,
                next_offset: stretch.next_offset,
                times: stretch.times,
            });
            self.expected = Some(stretch.next_offset);
        }
        if bound.is_none() {
            let listed = facts.stretches.last().map_or(SegmentHeader::SIZE as u64, |last| u64::from(last.end));
            verdict.cut_bytes += facts.garbage_end.saturating_sub(listed);
        }
        match kept {
            Some(fate) => {
                if let Some(slot) = verdict.fates.get_mut(index) {
                    *slot = fate;
                }
            }
            None if !facts.stretches.is_empty() => verdict.cuts_segments = true,
            None => {}
        }
    }

    /// Whether the stretch continues the log; takes note of damage before it.
    fn accepts(
        &mut self,
        index: usize,
        facts: &Facts,
        stretch: &Stretch,
        start: Option<u64>,
        verdict: &mut Verdict,
    ) -> bool {
        let expected = self.expected.or(start).unwrap_or(stretch.base_offset);
        if stretch.base_offset <= expected && self.expected.is_none() {
            return true;
        }
        if stretch.base_offset == expected {
            return true;
        }
        if stretch.base_offset < expected {
            let kind = CorruptionKind::OffsetOrder { expected, found: stretch.base_offset };
            let position = u64::from(stretch.start);
            verdict.damage.push(Damage { segment: index, position, offsets: 0..0, kind });
            return false;
        }
        if expected >= self.durable {
            self.torn = true; // rule 3
            return false;
        }
        let (position, kind) =
            facts.damage.clone().unwrap_or((u64::from(stretch.start), CorruptionKind::Missing));
        let offsets = expected..stretch.base_offset;
        verdict.damage.push(Damage { segment: index, position, offsets, kind });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretch(start: u32, end: u32, base_offset: u64, next_offset: u64) -> Stretch {
        Stretch { start, end, base_offset, next_offset, times: None }
    }

    fn segment(number: u64, stretches: &[Stretch]) -> Facts {
        let end = stretches.last().map_or(0, |stretch| u64::from(stretch.end));
        Facts {
            number,
            base_offset: stretches.first().map(|stretch| stretch.base_offset),
            stretches: stretches.to_vec(),
            garbage_end: end,
            ..Facts::default()
        }
    }

    fn kept(verdict: &Verdict) -> Vec<Option<u64>> {
        let next = |fate: &Fate| match fate {
            Fate::Keep { next_offset, .. } => Some(*next_offset),
            Fate::Remove => None,
        };
        verdict.fates.iter().map(next).collect()
    }

    #[test]
    fn a_whole_chain_is_kept() {
        let segments =
            [segment(0, &[stretch(128, 900, 0, 10)]), segment(1, &[stretch(128, 500, 10, 15)])];
        let verdict = decide(&segments, 0, None);
        assert_eq!(kept(&verdict), [Some(10), Some(15)]);
        assert_eq!((verdict.end_offset, verdict.cut_bytes), (15, 0));
        assert!(verdict.damage.is_empty());
    }

    #[test]
    fn a_hole_above_the_last_proof_ends_the_log() {
        let segments = [segment(0, &[stretch(128, 500, 0, 5), stretch(700, 900, 7, 9)])];
        let verdict = decide(&segments, 5, None);
        assert_eq!((verdict.end_offset, verdict.cut_bytes), (5, 200));
        assert!(verdict.damage.is_empty());
    }

    #[test]
    fn a_hole_below_the_last_proof_is_damage_and_is_read_around() {
        let segments = [segment(0, &[stretch(128, 500, 0, 5), stretch(700, 900, 7, 9)])];
        let verdict = decide(&segments, 6, None);
        assert_eq!(verdict.end_offset, 9);
        assert_eq!(verdict.damage.len(), 1);
        assert_eq!(verdict.damage[0].offsets, 5..7);
    }

    #[test]
    fn an_end_below_the_last_proof_is_damage() {
        let verdict = decide(&[segment(0, &[stretch(128, 500, 0, 5)])], 8, None);
        assert_eq!(verdict.end_offset, 8);
        assert_eq!(verdict.damage[0].offsets, 5..8);
    }

    #[test]
    fn what_lies_behind_an_old_cut_never_follows_a_later_batch() {
        // The first segment was cut at 5 by an earlier recovery; a stale stretch 7..9 is still in
        // the file, and the next segment went on at 5 and is durable to 20.
        let mut next = segment(1, &[stretch(128, 900, 5, 20)]);
        next.durable = 20;
        let segments = [segment(0, &[stretch(128, 500, 0, 5), stretch(700, 900, 7, 9)]), next];
        let verdict = decide(&segments, 0, None);
        assert_eq!(kept(&verdict), [Some(5), Some(20)]);
        assert!(verdict.damage.is_empty(), "{:?}", verdict.damage);
    }

    #[test]
    fn a_missing_segment_below_the_last_proof_is_damage() {
        let mut last = segment(2, &[stretch(128, 500, 20, 30)]);
        last.durable = 20;
        let verdict = decide(&[segment(0, &[stretch(128, 900, 0, 10)]), last], 0, None);
        assert_eq!(verdict.damage[0].offsets, 10..20);
        assert_eq!(verdict.end_offset, 30);
    }

    #[test]
    fn segments_behind_a_torn_tail_are_cut_and_their_successor_must_say_so() {
        let segments =
            [segment(0, &[stretch(128, 500, 0, 5)]), segment(1, &[stretch(128, 500, 9, 12)])];
        let verdict = decide(&segments, 5, None);
        assert_eq!(kept(&verdict), [Some(5), None]);
        assert!(verdict.cuts_segments);
        assert_eq!(verdict.end_offset, 5);
    }

    #[test]
    fn a_truncating_segment_removes_what_an_interrupted_cut_left() {
        let mut successor = segment(2, &[stretch(128, 500, 5, 8)]);
        successor.generation = 1;
        successor.truncates_to = Some(5);
        successor.durable = 8;
        let segments = [
            segment(0, &[stretch(128, 500, 0, 5)]),
            segment(1, &[stretch(128, 500, 9, 12)]),
            successor,
        ];
        let verdict = decide(&segments, 0, None);
        assert_eq!(kept(&verdict), [Some(5), None, Some(8)]);
        assert!(!verdict.cuts_segments && verdict.damage.is_empty(), "{verdict:?}");
    }

    #[test]
    fn a_prepared_segment_that_never_became_active_is_removed() {
        let segments = [segment(0, &[stretch(128, 500, 0, 5)]), segment(1, &[])];
        let verdict = decide(&segments, 5, None);
        assert_eq!(kept(&verdict), [Some(5), None]);
        assert!(!verdict.cuts_segments);
    }

    #[test]
    fn a_log_that_begins_above_its_start_has_lost_its_head() {
        let verdict = decide(&[segment(3, &[stretch(128, 500, 40, 50)])], 50, Some(30));
        assert_eq!(verdict.damage[0].offsets, 30..40);
    }

    #[test]
    fn bytes_behind_the_last_batch_are_counted_as_cut() {
        let mut facts = segment(0, &[stretch(128, 500, 0, 5)]);
        facts.garbage_end = 560;
        assert_eq!(decide(&[facts], 5, None).cut_bytes, 60);
    }
}

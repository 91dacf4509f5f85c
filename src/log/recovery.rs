//! What a partition is after a crash: a pure decision over what its files show.
//!
//! [`decide`] sees [`Facts`] about each segment and says which stretches belong to the log, where
//! it ends, what is damage and what is a torn tail. It does no I/O, so every crash window is a
//! table test. The rules:
//!
//! 1. Evidence: a valid footer, an opening batch's or any batch's durable mark, and a recovery
//!    point each prove that everything before them was on stable storage. The highest is
//!    `durable`.
//! 2. Below `durable`, anything missing is damage: reported, never cut, readable around. Below the
//!    log start offset nothing is missed.
//! 3. At or above `durable`, the first gap ends the log: a torn tail. The head of the log is never
//!    torn: what lay before the first file was removed on purpose, or is damage.
//! 4. A segment's stretches count only up to where the next segment begins ([`bounds`]): what a
//!    crash left behind a cut, or a failed write behind the end, stays in the file for ever and
//!    must never follow a later batch.
//! 5. A segment that truncates removes those of lower generation that begin at or above its base;
//!    one that replaces, those of lower generation that fill any of its places. What is removed
//!    removes nothing itself.
//! 6. Files go only when nothing in them can count: unused ones, leftovers (5), a torn tail, and
//!    what lies wholly below the log start. A file that contradicts the others is left alone.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use super::scan::Stretch;
use crate::error::CorruptionKind;
use crate::format::{SegmentHeader, TimeRange};
use crate::rules::Rule;

/// What is known of one segment file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) number: u64,
    /// The first and the last place of the log that it fills.
    pub(crate) places: (u64, u64),
    pub(crate) generation: u32,
    /// Whether it stands where others stood.
    pub(crate) replaces: bool,
    /// Set in a segment that cut the log: it begins here, and replaces what lies above.
    pub(crate) truncates_to: Option<u64>,
    /// The offset at which its data begins; `None` if it has none.
    pub(crate) base_offset: Option<u64>,
    /// All chains of valid batches in it. A valid footer makes it one.
    pub(crate) stretches: Vec<Stretch>,
    /// The highest offset that its contents prove to have been durable.
    pub(crate) durable: u64,
    /// Where stretches ended otherwise than at an end mark, and why.
    pub(crate) damage: Vec<(u64, CorruptionKind)>,
    /// Position after the last byte that is not zero.
    pub(crate) garbage_end: u64,
}

/// What the log makes of one segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It belongs to the log. `tail_start` is where its last stretch begins: all damage is before.
    Keep { tail_start: u32, data_end: u32, next_offset: u64, times: Option<TimeRange> },
    /// It does not belong to the log, and what is in it may be somebody's data.
    Leave,
    /// It holds nothing that counts.
    Remove,
}

impl Fate {
    pub(crate) fn is_kept(self) -> bool {
        matches!(self, Self::Keep { .. })
    }
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

impl Verdict {
    /// The last segment that belongs to the log.
    pub(crate) fn last_kept(&self) -> Option<usize> {
        self.fates.iter().rposition(|fate| fate.is_kept())
    }
}

/// Decides. `segments` are in the order of their places; `proved` is what a recovery point proves; `start` is
/// the log start offset, where the log must begin at the latest.
pub(crate) fn decide(segments: &[Facts], proved: u64, start: Option<u64>) -> Verdict {
    let live = without_leftovers(segments);
    let evidence = live.iter().filter_map(|index| segments.get(*index)).map(|facts| facts.durable);
    let durable = evidence.fold(proved, u64::max);
    let mut verdict =
        Verdict { fates: vec![Fate::Remove; segments.len()], durable, ..Verdict::default() };
    let head = live.first().copied().unwrap_or(0);
    let mut walk = Walk { durable, start, head, expected: None, last: None, torn: false };
    let bounds = bounds(segments);
    for &index in &live {
        if let (Some(facts), Some(bound)) = (segments.get(index), bounds.get(index)) {
            walk.segment(index, facts, *bound, &mut verdict);
        }
    }
    walk.end(segments, &mut verdict);
    finish_retention(segments, start.unwrap_or(0), &mut verdict);
    keep_one(segments, &live, &mut verdict);
    verdict
}

/// Where each segment must end: at the base offset of the next one that has data (rule 4).
/// `u64::MAX` for the last, for leftovers, and where the next one contradicts the order.
pub(crate) fn bounds(segments: &[Facts]) -> Vec<u64> {
    let mut bounds = vec![u64::MAX; segments.len()];
    let mut next = u64::MAX;
    for index in without_leftovers(segments).into_iter().rev() {
        let base = segments.get(index).and_then(|facts| facts.base_offset);
        if let Some(slot) = bounds.get_mut(index)
            && base.is_none_or(|base| base <= next)
        {
            *slot = next;
        }
        next = base.unwrap_or(next);
    }
    bounds
}

/// The segments that no rewrite has removed (rule 5).
fn without_leftovers(segments: &[Facts]) -> Vec<usize> {
    let replaced = replaced(segments);
    let cuts: Vec<_> = segments
        .iter()
        .filter_map(|facts| Some((facts.truncates_to?, facts.generation, facts.number)))
        .collect();
    let is_cut = |facts: &Facts| {
        cuts.iter().any(|(cut, generation, number)| {
            *generation > facts.generation
                && facts.number < *number
                && facts.base_offset.is_none_or(|base| base >= *cut)
        })
    };
    let is_live = |(index, facts): (usize, &Facts)| {
        let is_leftover = Rule::CutIsLeftover.holds() && is_cut(facts);
        (!replaced.contains(&index) && !is_leftover).then_some(index)
    };
    segments.iter().enumerate().filter_map(is_live).collect()
}

/// The segments whose places another one of higher generation fills. The highest generation is
/// asked first, so that what is itself replaced replaces nothing: a file may come back that an
/// attempt has left which failed, and whose places a later one has divided otherwise.
fn replaced(segments: &[Facts]) -> HashSet<usize> {
    let mut replaced = HashSet::new();
    if !segments.iter().any(|facts| facts.replaces) || !Rule::ReplacedIsLeftover.holds() {
        return replaced;
    }
    let mut order: Vec<(usize, &Facts)> = segments.iter().enumerate().collect();
    order.sort_by_key(|(_, facts)| Reverse(facts.generation));
    // The places of those that replace and count, which do not overlap: from first to last.
    let mut filled: BTreeMap<u64, (u64, u32)> = BTreeMap::new();
    for (index, facts) in order {
        let (first, last) = facts.places;
        let below = filled.range(..=last).next_back();
        match below {
            Some((_, (end, generation))) if *end >= first && *generation > facts.generation => {
                replaced.insert(index);
            }
            _ if facts.replaces => {
                filled.insert(first, (last, facts.generation));
            }
            _ => {}
        }
    }
    replaced
}

/// Segments that lie wholly below the log start were being removed when the log was closed: the
/// start was made durable first (rule 6). The last segment stays.
fn finish_retention(segments: &[Facts], start: u64, verdict: &mut Verdict) {
    let last = verdict.last_kept();
    for (index, (facts, fate)) in segments.iter().zip(&mut verdict.fates).enumerate() {
        if let Fate::Keep { next_offset, .. } = *fate
            && facts.base_offset.is_some_and(|base| base < start)
            && next_offset <= start
            && Some(index) != last
        {
            *fate = Fate::Remove;
        }
    }
}

/// A log is never without a file: where nothing counts, one stands for the empty log, and one that
/// never had data if there is any.
fn keep_one(segments: &[Facts], live: &[usize], verdict: &mut Verdict) {
    if verdict.last_kept().is_some() {
        return;
    }
    let is_empty =
        |index: &&usize| segments.get(**index).is_some_and(|facts| facts.stretches.is_empty());
    let one = live.iter().rfind(is_empty).or(live.first());
    let (position, next_offset) = (SegmentHeader::END_POSITION, verdict.end_offset);
    if let Some(fate) = one.and_then(|index| verdict.fates.get_mut(*index)) {
        *fate = Fate::Keep { tail_start: position, data_end: position, next_offset, times: None };
    }
}

struct Walk {
    durable: u64,
    start: Option<u64>,
    /// The first segment.
    head: usize,
    /// The offset that comes next; `None` before the first stretch.
    expected: Option<u64>,
    /// Where the last stretch that counts ended.
    last: Option<(usize, u32)>,
    /// The log has ended: nothing from here on counts.
    torn: bool,
}

/// What a stretch is to the log.
enum Judgement {
    Counts,
    /// Behind the end.
    Torn,
    /// It repeats offsets that another file has.
    Contradicts,
}

impl Walk {
    fn segment(&mut self, index: usize, facts: &Facts, bound: u64, verdict: &mut Verdict) {
        let mut fate = Fate::Remove;
        for stretch in &facts.stretches {
            if stretch.base_offset >= bound && fate.is_kept() {
                break; // rule 4
            }
            match self.judge(index, facts, stretch, verdict) {
                Judgement::Counts => {
                    fate = Fate::Keep {
                        tail_start: stretch.start,
                        data_end: stretch.end,
                        next_offset: stretch.next_offset,
                        times: stretch.times,
                    };
                    self.expected = Some(stretch.next_offset);
                    self.last = Some((index, stretch.end));
                }
                Judgement::Torn => {
                    verdict.cut_bytes += u64::from(stretch.end.saturating_sub(stretch.start));
                    verdict.cuts_segments |= !fate.is_kept();
                }
                Judgement::Contradicts if !fate.is_kept() => fate = Fate::Leave,
                Judgement::Contradicts => {}
            }
        }
        if bound == u64::MAX {
            let nothing = SegmentHeader::SIZE as u64;
            let listed = facts.stretches.last().map_or(nothing, |last| u64::from(last.end));
            verdict.cut_bytes += facts.garbage_end.saturating_sub(listed);
        } else if facts.stretches.is_empty() && facts.garbage_end > 0 {
            // It was in use, since the log went on behind it.
            fate = Fate::Leave;
        }
        if let Some(slot) = verdict.fates.get_mut(index) {
            *slot = fate;
        }
    }

    /// Says what the stretch is; takes note of damage before it.
    fn judge(
        &mut self,
        index: usize,
        facts: &Facts,
        stretch: &Stretch,
        verdict: &mut Verdict,
    ) -> Judgement {
        if self.torn {
            return Judgement::Torn;
        }
        let found = stretch.base_offset;
        if let Some(expected) = self.expected.filter(|expected| found < *expected) {
            let kind = CorruptionKind::OffsetOrder { expected, found };
            let position = u64::from(stretch.start);
            verdict.damage.push(Damage { segment: index, position, offsets: found..found, kind });
            return Judgement::Contradicts;
        }
        // The first file says where the log begins, if its own beginning is whole; otherwise it is
        // not known what stood before the first batch that is.
        let is_head = self.expected.is_none()
            && index == self.head
            && stretch.start == SegmentHeader::END_POSITION;
        let first = if is_head { found } else { 0 };
        let needed = self.expected.or(self.start).unwrap_or(first).max(self.start.unwrap_or(0));
        if found <= needed {
            return Judgement::Counts;
        }
        if needed >= self.durable && !is_head {
            self.torn = true; // rule 3
            return Judgement::Torn;
        }
        let (segment, position, kind) = match self.last {
            Some((last, end)) if last == index => gap_in(last, end, facts),
            Some((last, end)) => (last, u64::from(end), CorruptionKind::Missing),
            None => (index, 0, CorruptionKind::Missing),
        };
        verdict.damage.push(Damage { segment, position, offsets: needed..found, kind });
        Judgement::Counts
    }

    /// Says where the log ends, and what is missing there (rule 2).
    fn end(&self, segments: &[Facts], verdict: &mut Verdict) {
        let found = self.expected.unwrap_or(0).max(self.start.unwrap_or(0));
        let durable = self.durable;
        verdict.end_offset = found.max(durable);
        if durable <= found {
            return;
        }
        let (last, end) = self.last.unwrap_or((0, SegmentHeader::END_POSITION));
        let short = CorruptionKind::ShortOfDurable { found, durable };
        let kind = segments.get(last).and_then(|facts| damage_at(facts, end)).unwrap_or(short);
        let position = u64::from(end);
        verdict.damage.push(Damage { segment: last, position, offsets: found..durable, kind });
        // What is missing may be in a file that cannot be read.
        for (facts, fate) in segments.iter().zip(&mut verdict.fates) {
            if *fate == Fate::Remove && facts.stretches.is_empty() && facts.garbage_end > 0 {
                *fate = Fate::Leave;
            }
        }
    }
}

fn gap_in(index: usize, end: u32, facts: &Facts) -> (usize, u64, CorruptionKind) {
    // Without a reason the chain ended at zeros: batches that never reached the disk.
    let kind = damage_at(facts, end).unwrap_or(CorruptionKind::Length("a batch"));
    (index, u64::from(end), kind)
}

fn damage_at(facts: &Facts, end: u32) -> Option<CorruptionKind> {
    let at = facts.damage.iter().find(|(position, _)| *position == u64::from(end));
    at.map(|(_, kind)| kind.clone())
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
            places: (number, number),
            base_offset: stretches.first().map(|stretch| stretch.base_offset),
            stretches: stretches.to_vec(),
            garbage_end: end,
            ..Facts::default()
        }
    }

    fn kept(verdict: &Verdict) -> Vec<Option<u64>> {
        let next = |fate: &Fate| match fate {
            Fate::Keep { next_offset, .. } => Some(*next_offset),
            Fate::Leave | Fate::Remove => None,
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
        assert_eq!(verdict.damage[0].position, 500);
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

    /// Symptom: a truncating segment removed the empty first one, lost its own opening batch in the
    /// next power cut, and a later segment passed for the head of the log. Rule: only the first
    /// file can be the head.
    #[test]
    fn a_segment_behind_a_torn_first_one_is_not_the_head_of_the_log() {
        let mut truncating = segment(2, &[]);
        truncating.generation = 1;
        truncating.truncates_to = Some(0);
        let mut torn = segment(3, &[stretch(128, 320, 2, 8)]);
        torn.generation = 1;
        let segments = [segment(0, &[stretch(128, 188, 0, 0)]), truncating, torn];
        let verdict = decide(&segments, 0, None);
        assert_eq!(kept(&verdict), [None, Some(0), None]);
        assert!(verdict.cuts_segments && verdict.end_offset == 0, "{verdict:?}");
    }

    #[test]
    fn an_empty_first_segment_is_not_below_the_log_start() {
        let segments =
            [segment(0, &[stretch(128, 188, 0, 0)]), segment(1, &[stretch(128, 500, 0, 9)])];
        for start in [None, Some(0)] {
            assert_eq!(kept(&decide(&segments, 9, start)), [Some(0), Some(9)]);
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_left_where_something_is_missing() {
        let mut unreadable = segment(1, &[]);
        unreadable.garbage_end = 900;
        // In the middle: the log went on behind it.
        let segments = [
            segment(0, &[stretch(128, 500, 0, 5)]),
            unreadable.clone(),
            segment(2, &[stretch(128, 500, 7, 9)]),
        ];
        assert_eq!(decide(&segments, 9, None).fates[1], Fate::Leave);
        // At the end: what was durable may be in it. If nothing is missing, it is a torn tail.
        let segments = [segment(0, &[stretch(128, 500, 0, 5)]), unreadable];
        assert_eq!(decide(&segments, 8, None).fates[1], Fate::Leave);
        assert_eq!(decide(&segments, 5, None).fates[1], Fate::Remove);
    }

    #[test]
    fn a_file_that_repeats_what_another_has_is_reported_and_left_alone() {
        let segments =
            [segment(0, &[stretch(128, 500, 0, 5)]), segment(1, &[stretch(128, 300, 2, 4)])];
        let verdict = decide(&segments, 5, None);
        assert_eq!(verdict.fates[1], Fate::Leave);
        assert_eq!((verdict.damage.len(), verdict.end_offset), (1, 5));
        assert!(!verdict.cuts_segments);
    }

    /// A segment that stands for others, with all of its offsets.
    fn replacing(number: u64, generation: u32, places: (u64, u64), offsets: (u64, u64)) -> Facts {
        let whole = segment(number, &[stretch(128, 300, offsets.0, offsets.1)]);
        Facts { generation, places, replaces: true, durable: offsets.1, ..whole }
    }

    #[test]
    fn what_a_rewrite_stands_for_is_a_leftover_whatever_is_left_of_it() {
        let old = [
            segment(0, &[stretch(128, 500, 0, 5)]),
            segment(1, &[stretch(128, 500, 5, 9)]),
            segment(2, &[]),
        ];
        let last = segment(3, &[stretch(128, 500, 9, 12)]);
        for left in 0..8_usize {
            let is_left = |(index, _): &(usize, &Facts)| left & (1 << index) != 0;
            let leftovers = old.iter().enumerate().filter(is_left).map(|(_, facts)| facts);
            let mut segments: Vec<Facts> = leftovers.cloned().collect();
            let count = segments.len();
            segments.push(replacing(4, 1, (0, 2), (0, 9)));
            segments.push(last.clone());
            segments.sort_by_key(|facts| (facts.places.0, facts.number));
            let verdict = decide(&segments, 9, None);
            assert!(verdict.damage.is_empty() && !verdict.cuts_segments, "{left}: {verdict:?}");
            assert_eq!(verdict.end_offset, 12);
            let removed = verdict.fates.iter().filter(|fate| **fate == Fate::Remove).count();
            assert_eq!(removed, count, "{left}");
        }
    }

    /// A file that an attempt left which failed comes back after a later one has divided the
    /// places otherwise, and is itself half done.
    #[test]
    fn what_is_void_makes_nothing_void() {
        let segments = [
            replacing(7, 2, (0, 1), (0, 9)),
            replacing(6, 1, (0, 3), (0, 20)),
            segment(2, &[stretch(128, 500, 9, 15)]),
            segment(3, &[stretch(128, 500, 15, 20)]),
        ];
        let verdict = decide(&segments, 20, None);
        assert_eq!(kept(&verdict), [Some(9), None, Some(15), Some(20)]);
        assert!(verdict.damage.is_empty(), "{verdict:?}");
    }

    #[test]
    fn a_rewrite_of_a_rewrite_replaces_it() {
        let segments = [
            replacing(5, 1, (0, 1), (0, 9)),
            replacing(9, 3, (0, 2), (0, 15)),
            replacing(6, 2, (2, 2), (9, 15)),
            segment(3, &[stretch(128, 500, 15, 20)]),
        ];
        let verdict = decide(&segments, 15, None);
        assert_eq!(kept(&verdict), [None, Some(15), None, Some(20)]);
        assert!(verdict.damage.is_empty(), "{verdict:?}");
    }

    #[test]
    fn below_the_log_start_nothing_is_missed_and_nothing_is_kept() {
        let segments = [
            segment(0, &[stretch(128, 500, 0, 5)]),
            segment(2, &[stretch(128, 500, 9, 20)]),
            segment(3, &[stretch(128, 500, 20, 30)]),
        ];
        let verdict = decide(&segments, 30, Some(22));
        assert_eq!(kept(&verdict), [None, None, Some(30)]);
        assert!(verdict.damage.is_empty(), "{verdict:?}");
    }

    #[test]
    fn bytes_behind_the_last_batch_are_counted_as_cut() {
        let mut facts = segment(0, &[stretch(128, 500, 0, 5)]);
        facts.garbage_end = 560;
        assert_eq!(decide(&[facts], 5, None).cut_bytes, 60);
    }
}

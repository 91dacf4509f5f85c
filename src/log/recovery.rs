//! Decides what a partition's log is after a crash: a pure function of what its files show.
//!
//! [`decide`] gets [`Facts`] about each segment, and says which stretches belong to the log, where
//! it ends, what is damage and what is a torn tail. It does no I/O, so every crash window is a
//! table test. The rules:
//!
//! 1. Evidence: a valid footer, the durable mark of an opening batch or of any batch, and a
//!    recovery point each prove that everything before them was on stable storage. The highest
//!    proof is `durable`.
//! 2. Below `durable`, missing data is damage: it is reported, never cut, and readers pass it. Data
//!    below the log start is not missing.
//! 3. At or above `durable`, the first gap ends the log: a torn tail. The head of the log is never
//!    torn: data before the first file was removed on purpose, or is damage.
//! 4. The stretches of a segment count only up to where the next segment begins ([`bounds`]). What
//!    a crash left after a cut, or a failed write after the end, stays in the file for ever and
//!    must never follow a later batch.
//! 5. A segment that truncates supersedes those of lower generation that begin at or above its
//!    base; one that replaces supersedes those of lower generation that cover any of its ranks. A
//!    superseded segment does not supersede others.
//! 6. A file whose header is lost has at least a known limit for its end. Data that is missing
//!    where it may have stood was in it: that is damage and never a torn tail. A hole before such a
//!    file that held data is damage too, because the log continues after it, where rule 4 hides
//!    nothing. The file is kept.
//! 7. Files are removed only if nothing in them can count: unused ones, leftovers (5), a torn tail,
//!    and those wholly below the log start. A file that contradicts the others is kept.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;

use super::OFFSET_MAX;
use super::scan::Stretch;
use crate::error::CorruptionKind;
use crate::format::{SegmentHeader, TimeRange};
use crate::rules::Rule;

/// What is known of one segment file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) number: u64,
    /// The first and the last rank that it covers.
    pub(crate) ranks: (u64, u64),
    pub(crate) generation: u32,
    /// Whether it replaces other segments.
    pub(crate) replaces: bool,
    /// Set in a segment that cut the log: it begins here, and supersedes everything above.
    pub(crate) truncates_to: Option<u64>,
    /// The offset at which its data begins; `None` if it has none.
    pub(crate) base_offset: Option<u64>,
    /// All chains of valid batches in it. A valid footer makes it one.
    pub(crate) stretches: Vec<Stretch>,
    /// The highest offset that its contents prove to have been durable.
    pub(crate) durable: u64,
    /// Where stretches ended without an end mark, and why.
    pub(crate) damage: Vec<(u64, CorruptionKind)>,
    /// Position after the last byte that is not zero.
    pub(crate) garbage_end: u64,
}

/// What is known of a segment file whose header is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) number: u64,
    /// What is wrong with the header.
    pub(crate) kind: CorruptionKind,
    /// The offset after its last batch, as its batches claim; nothing proves it.
    pub(crate) claimed: Option<u64>,
    /// How many bytes follow the header, without zeros at the end. A record takes at least one
    /// byte, so the file has no more offsets than that.
    pub(crate) bytes: u64,
}

impl Lost {
    /// Whether the file ends before its header does: it was shortened, and shows nothing of its
    /// former contents.
    pub(crate) fn is_short(&self) -> bool {
        matches!(self.kind, CorruptionKind::Length(_))
    }
}

/// What an opening does with one segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// It belongs to the log. `tail_start` is where its last stretch begins; all damage is before
    /// it.
    Keep { tail_start: u32, data_end: u32, next_offset: u64, times: Option<TimeRange> },
    /// It does not belong to the log, and may hold data of the application: it is kept.
    Leave,
    /// It holds nothing that counts.
    Remove,
}

impl Action {
    pub(crate) fn is_kept(self) -> bool {
        matches!(self, Self::Keep { .. })
    }
}

/// Offsets that were durable and cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damage {
    /// The segment in which the gap begins; those that are lost are counted after the others.
    pub(crate) segment: usize,
    pub(crate) position: u64,
    pub(crate) offsets: Range<u64>,
    pub(crate) kind: CorruptionKind,
}

impl Damage {
    /// Whether it lies between files or after the last, and not in one.
    fn is_gap(&self) -> bool {
        matches!(self.kind, CorruptionKind::Missing | CorruptionKind::ShortOfDurable { .. })
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    /// One action per segment, in order.
    pub(crate) actions: Vec<Action>,
    pub(crate) end_offset: u64,
    pub(crate) durable: u64,
    pub(crate) damage: Vec<Damage>,
    /// Bytes of torn or unproved batches after the cut.
    pub(crate) cut_bytes: u64,
    /// Whether whole batches are among them.
    pub(crate) cuts_batches: bool,
    /// Whether whole segments are cut off, which their successor must record.
    pub(crate) cuts_segments: bool,
}

impl Decision {
    /// The last segment that belongs to the log.
    pub(crate) fn last_kept(&self) -> Option<usize> {
        self.actions.iter().rposition(|action| action.is_kept())
    }
}

/// Decides. `segments` are in the order of their ranks; `proved` is the end that a recovery point
/// proves; `start` is the log start offset, above which the log must not begin.
pub(crate) fn decide(
    segments: &[Facts],
    lost: &[Lost],
    proved: u64,
    start: Option<u64>,
) -> Decision {
    let live = without_leftovers(segments);
    let evidence = live.iter().filter_map(|index| segments.get(*index)).map(|facts| facts.durable);
    let durable = evidence.fold(proved, u64::max);
    let mut decision =
        Decision { actions: vec![Action::Remove; segments.len()], durable, ..Decision::default() };
    let head = live.first().copied().unwrap_or(0);
    let has_lost = !lost.is_empty();
    let used = lost.iter().filter(|lost| lost.bytes > 0);
    let lost_used = used.map(|lost| lost.number).max();
    let mut walk = Walk { durable, start, head, has_lost, lost_used, ..Walk::default() };
    let bounds = bounds(segments);
    for &index in &live {
        if let (Some(facts), Some(bound)) = (segments.get(index), bounds.get(index)) {
            walk.segment(index, facts, *bound, &mut decision);
        }
    }
    walk.end(segments, &mut decision);
    leave_the_empty(segments, &live, &mut decision);
    continue_after_lost(segments, lost, &mut decision);
    // A file may claim any offset, but no log has more than these.
    decision.end_offset = decision.end_offset.min(OFFSET_MAX);
    finish_retention(segments, start.unwrap_or(0), &mut decision);
    keep_one(segments, &live, &mut decision);
    decision
}

/// The end that a recovery point proves, which says that the log ended at `end` in the segment
/// `number`. A segment that was begun later begins at or above that end, unless the log was truncated
/// in between; then the point proves nothing above the lowest base of these segments. The last
/// segment of a log is one of them, however much of the others was compacted or removed since.
pub(super) fn proof_of_point(segments: &[Facts], number: u64, end: u64) -> u64 {
    let live = without_leftovers(segments);
    let facts = live.iter().filter_map(|index| segments.get(*index));
    let later = facts.filter(|facts| facts.ranks.0 > number);
    later.filter_map(|facts| facts.base_offset).fold(end, u64::min)
}

/// Where each segment must end: at the base offset of the next one that has data (rule 4), or of
/// a later one, if that agrees with the order: the log may have continued after one that
/// contradicts it. `u64::MAX` for the last, and for leftovers.
pub(crate) fn bounds(segments: &[Facts]) -> Vec<u64> {
    let mut bounds = vec![u64::MAX; segments.len()];
    let mut next = u64::MAX;
    let mut later = BTreeSet::new();
    for index in without_leftovers(segments).into_iter().rev() {
        let base = segments.get(index).and_then(|facts| facts.base_offset);
        let not_below = |base| later.range(base..).next().copied().unwrap_or(u64::MAX);
        if let Some(slot) = bounds.get_mut(index) {
            *slot = base.map_or(next, not_below);
        }
        next = base.unwrap_or(next);
        later.extend(base);
    }
    bounds
}

/// The segments that no rewrite has removed (rule 5).
pub(super) fn without_leftovers(segments: &[Facts]) -> Vec<usize> {
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

/// The segments whose ranks another one of higher generation covers. The highest generation is
/// tried first, so that a superseded segment supersedes none. That matters for the file of a failed
/// attempt that exists again after a crash: a later attempt may have grouped its ranks differently.
fn replaced(segments: &[Facts]) -> HashSet<usize> {
    let mut replaced = HashSet::new();
    if !segments.iter().any(|facts| facts.replaces) || !Rule::ReplacedIsLeftover.holds() {
        return replaced;
    }
    let mut order: Vec<(usize, &Facts)> = segments.iter().enumerate().collect();
    order.sort_by_key(|(_, facts)| Reverse(facts.generation));
    // The ranks of the replacements that count, from first to last. They do not overlap.
    let mut filled: BTreeMap<u64, (u64, u32)> = BTreeMap::new();
    for (index, facts) in order {
        let (first, last) = facts.ranks;
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
/// start was made durable first (rule 7). The last segment stays.
fn finish_retention(segments: &[Facts], start: u64, decision: &mut Decision) {
    let last = decision.last_kept();
    for (index, (facts, action)) in segments.iter().zip(&mut decision.actions).enumerate() {
        if let Action::Keep { next_offset, .. } = *action
            && facts.base_offset.is_some_and(|base| base < start)
            && next_offset <= start
            && Some(index) != last
        {
            *action = Action::Remove;
        }
    }
}

/// A log always has a file: if none counts, one is kept for the empty log, preferably one that
/// never had data.
fn keep_one(segments: &[Facts], live: &[usize], decision: &mut Decision) {
    if decision.last_kept().is_some() {
        return;
    }
    let is_empty =
        |index: &&usize| segments.get(**index).is_some_and(|facts| facts.stretches.is_empty());
    let one = live.iter().rfind(is_empty).or(live.first());
    let (position, next_offset) = (SegmentHeader::END_POSITION, decision.end_offset);
    if let Some(action) = one.and_then(|index| decision.actions.get_mut(*index)) {
        *action =
            Action::Keep { tail_start: position, data_end: position, next_offset, times: None };
    }
}

/// A file without a batch was never used; or it was shortened, and shows that data is missing.
/// Without it, a later opening might not notice the loss (rule 2).
fn leave_the_empty(segments: &[Facts], live: &[usize], decision: &mut Decision) {
    if !decision.damage.iter().any(Damage::is_gap) {
        return;
    }
    for index in live {
        if let (Some(facts), Some(action)) =
            (segments.get(*index), decision.actions.get_mut(*index))
            && facts.stretches.is_empty()
            && *action == Action::Remove
        {
            *action = Action::Leave;
        }
    }
}

/// Reports lost data by the file that it was in, and lets the log continue after it, so that no
/// offset is used twice (rule 6). Only a segment that counts shows by its rank that the log had
/// continued before: prepared and rewritten segments have higher numbers too.
fn continue_after_lost(segments: &[Facts], lost: &[Lost], decision: &mut Decision) {
    let end = decision.end_offset;
    let bytes = lost.iter().fold(0_u64, |sum, lost| sum.saturating_add(lost.bytes));
    let most = end.saturating_add(bytes);
    let kept = segments.iter().zip(&decision.actions).filter(|(_, action)| action.is_kept());
    let last_rank = kept.map(|(facts, _)| facts.ranks.1).max();
    let gaps = decision.damage.len();
    for (index, lost) in lost.iter().enumerate() {
        let next = decision.end_offset;
        let is_above_all = last_rank.is_none_or(|rank| lost.number > rank);
        let after_all = next.saturating_add(lost.bytes);
        let reached = lost.claimed.filter(|claimed| *claimed <= most).unwrap_or(after_all);
        let offsets = next..if is_above_all { reached.max(next) } else { next };
        decision.end_offset = offsets.end;
        let (segment, kind) = (segments.len().saturating_add(index), lost.kind.clone());
        // Offsets that are missing between other segments were in it; gaps and files are both in
        // order.
        let gap = decision.damage.get_mut(..gaps).unwrap_or_default();
        let gap = gap.iter_mut().find(|damage| damage.is_gap());
        match gap.filter(|_| offsets.is_empty()) {
            Some(gap) => *gap = Damage { segment, position: 0, offsets: gap.offsets.clone(), kind },
            None => decision.damage.push(Damage { segment, position: 0, offsets, kind }),
        }
    }
}

#[derive(Default)]
struct Walk {
    durable: u64,
    start: Option<u64>,
    /// The first segment.
    head: usize,
    /// Whether there are files that may have held the offsets that are missing between others.
    has_lost: bool,
    /// The last of them that held data.
    lost_used: Option<u64>,
    /// The last rank that a segment which counts covers.
    filled: Option<u64>,
    /// The offset that comes next; `None` before the first stretch.
    expected: Option<u64>,
    /// Where the last stretch that counts ended.
    last: Option<(usize, u32)>,
    /// The log has ended: nothing from here on counts.
    torn: bool,
}

/// How a stretch belongs to the log.
enum Judgement {
    Counts,
    /// It is after the end.
    Torn,
    /// It repeats offsets that another file has.
    Contradicts,
}

impl Walk {
    fn segment(&mut self, index: usize, facts: &Facts, bound: u64, decision: &mut Decision) {
        let mut action = Action::Remove;
        if self.filled.is_some_and(|filled| facts.ranks.0 <= filled) {
            // Readers find a segment by its rank, so a rank must have one segment only.
            let next = self.expected.unwrap_or(0);
            let (offsets, kind) = (next..next, CorruptionKind::Malformed("rewrite"));
            decision.damage.push(Damage { segment: index, position: 0, offsets, kind });
            if let Some(slot) = decision.actions.get_mut(index) {
                *slot = Action::Leave;
            }
            return;
        }
        for stretch in &facts.stretches {
            if stretch.base_offset >= bound && action.is_kept() {
                break; // rule 4
            }
            match self.judge(index, facts, stretch, decision) {
                Judgement::Counts => {
                    action = Action::Keep {
                        tail_start: stretch.start,
                        data_end: stretch.end,
                        next_offset: stretch.next_offset,
                        times: stretch.times,
                    };
                    self.filled = Some(facts.ranks.1);
                    self.expected = Some(stretch.next_offset);
                    self.last = Some((index, stretch.end));
                }
                Judgement::Torn => {
                    decision.cut_bytes += u64::from(stretch.end.saturating_sub(stretch.start));
                    decision.cuts_segments |= !action.is_kept();
                    decision.cuts_batches = true;
                }
                Judgement::Contradicts if !action.is_kept() => {
                    // The rest of its contents is not believed either, and must not end the log.
                    action = Action::Leave;
                    break;
                }
                Judgement::Contradicts => {}
            }
        }
        if bound == u64::MAX {
            let nothing = SegmentHeader::SIZE as u64;
            let listed = facts.stretches.last().map_or(nothing, |last| u64::from(last.end));
            decision.cut_bytes += facts.garbage_end.saturating_sub(listed);
        } else if facts.stretches.is_empty() && facts.garbage_end > 0 {
            // It was in use, since the log continued after it.
            action = Action::Leave;
        }
        if let Some(slot) = decision.actions.get_mut(index) {
            *slot = action;
        }
    }

    /// Judges a stretch, and records damage before it.
    fn judge(
        &mut self,
        index: usize,
        facts: &Facts,
        stretch: &Stretch,
        decision: &mut Decision,
    ) -> Judgement {
        if self.torn {
            return Judgement::Torn;
        }
        let found = stretch.base_offset;
        if let Some(expected) = self.expected.filter(|expected| found < *expected) {
            let kind = CorruptionKind::OffsetOrder { expected, found };
            let position = u64::from(stretch.start);
            decision.damage.push(Damage { segment: index, position, offsets: found..found, kind });
            return Judgement::Contradicts;
        }
        // The log begins where the first file does, if the beginning of that file is whole.
        // Otherwise it is not known which records stood before its first whole batch.
        let is_head = self.expected.is_none()
            && !self.has_lost
            && index == self.head
            && stretch.start == SegmentHeader::END_POSITION;
        let first = if is_head { found } else { 0 };
        let needed = self.expected.or(self.start).unwrap_or(first).max(self.start.unwrap_or(0));
        if found <= needed {
            return Judgement::Counts;
        }
        let is_within = self.last.is_some_and(|(last, _)| last == index);
        let continues = self.lost_used.is_some_and(|lost| lost > facts.ranks.1);
        let may_be_lost = if is_within { continues } else { self.has_lost };
        if needed >= self.durable && !is_head && !may_be_lost {
            self.torn = true; // rule 3
            return Judgement::Torn;
        }
        let (segment, position, kind) = match self.last {
            Some((last, end)) if last == index => gap_in(last, end, facts),
            Some((last, end)) => (last, u64::from(end), CorruptionKind::Missing),
            None => (index, 0, CorruptionKind::Missing),
        };
        decision.damage.push(Damage { segment, position, offsets: needed..found, kind });
        Judgement::Counts
    }

    /// Decides where the log ends, and reports what is missing there (rule 2).
    fn end(&self, segments: &[Facts], decision: &mut Decision) {
        let found = self.expected.unwrap_or(0).max(self.start.unwrap_or(0));
        let durable = self.durable;
        decision.end_offset = found.max(durable);
        if durable <= found {
            return;
        }
        let (last, end) = self.last.unwrap_or((0, SegmentHeader::END_POSITION));
        let short = CorruptionKind::ShortOfDurable { found, durable };
        let kind = segments.get(last).and_then(|facts| damage_at(facts, end)).unwrap_or(short);
        let position = u64::from(end);
        decision.damage.push(Damage { segment: last, position, offsets: found..durable, kind });
        // The missing records may be in a file that cannot be read.
        for (facts, action) in segments.iter().zip(&mut decision.actions) {
            if *action == Action::Remove && facts.stretches.is_empty() && facts.garbage_end > 0 {
                *action = Action::Leave;
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
mod tests;

//! Every crash window and every kind of damage, as a table of facts and what is made of them.

use super::*;

fn stretch(start: u32, end: u32, base_offset: u64, next_offset: u64) -> Stretch {
    Stretch { start, end, base_offset, next_offset, times: None }
}

fn segment(number: u64, stretches: &[Stretch]) -> Facts {
    let end = stretches.last().map_or(0, |stretch| u64::from(stretch.end));
    Facts {
        number,
        ranks: (number, number),
        base_offset: stretches.first().map(|stretch| stretch.base_offset),
        stretches: stretches.to_vec(),
        garbage_end: end,
        ..Facts::default()
    }
}

fn kept(decision: &Decision) -> Vec<Option<u64>> {
    let next = |action: &Action| match action {
        Action::Keep { next_offset, .. } => Some(*next_offset),
        Action::Leave | Action::Remove => None,
    };
    decision.actions.iter().map(next).collect()
}

#[test]
fn a_whole_chain_is_kept() {
    let segments =
        [segment(0, &[stretch(128, 900, 0, 10)]), segment(1, &[stretch(128, 500, 10, 15)])];
    let decision = decide(&segments, &[], 0, None);
    assert_eq!(kept(&decision), [Some(10), Some(15)]);
    assert_eq!((decision.end_offset, decision.cut_bytes), (15, 0));
    assert!(decision.damage.is_empty());
}

#[test]
fn a_hole_above_the_last_proof_ends_the_log() {
    let segments = [segment(0, &[stretch(128, 500, 0, 5), stretch(700, 900, 7, 9)])];
    let decision = decide(&segments, &[], 5, None);
    assert_eq!((decision.end_offset, decision.cut_bytes), (5, 200));
    assert!(decision.damage.is_empty());
}

#[test]
fn a_hole_below_the_last_proof_is_damage_and_is_read_around() {
    let segments = [segment(0, &[stretch(128, 500, 0, 5), stretch(700, 900, 7, 9)])];
    let decision = decide(&segments, &[], 6, None);
    assert_eq!(decision.end_offset, 9);
    assert_eq!(decision.damage.len(), 1);
    assert_eq!(decision.damage[0].offsets, 5..7);
    assert_eq!(decision.damage[0].position, 500);
}

#[test]
fn an_end_below_the_last_proof_is_damage() {
    let decision = decide(&[segment(0, &[stretch(128, 500, 0, 5)])], &[], 8, None);
    assert_eq!(decision.end_offset, 8);
    assert_eq!(decision.damage[0].offsets, 5..8);
}

#[test]
fn records_above_an_old_cut_never_follow_a_later_batch() {
    // The first segment was cut at 5 by an earlier recovery; a stale stretch 7..9 is still in
    // the file, and the next segment continued at 5 and is durable to 20.
    let mut next = segment(1, &[stretch(128, 900, 5, 20)]);
    next.durable = 20;
    let segments = [segment(0, &[stretch(128, 500, 0, 5), stretch(700, 900, 7, 9)]), next];
    let decision = decide(&segments, &[], 0, None);
    assert_eq!(kept(&decision), [Some(5), Some(20)]);
    assert!(decision.damage.is_empty(), "{:?}", decision.damage);
}

#[test]
fn a_missing_segment_below_the_last_proof_is_damage() {
    let mut last = segment(2, &[stretch(128, 500, 20, 30)]);
    last.durable = 20;
    let decision = decide(&[segment(0, &[stretch(128, 900, 0, 10)]), last], &[], 0, None);
    assert_eq!(decision.damage[0].offsets, 10..20);
    assert_eq!(decision.end_offset, 30);
}

#[test]
fn segments_behind_a_torn_tail_are_cut_and_their_successor_must_say_so() {
    let segments =
        [segment(0, &[stretch(128, 500, 0, 5)]), segment(1, &[stretch(128, 500, 9, 12)])];
    let decision = decide(&segments, &[], 5, None);
    assert_eq!(kept(&decision), [Some(5), None]);
    assert!(decision.cuts_segments && decision.cuts_batches);
    assert_eq!(decision.end_offset, 5);
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
    let decision = decide(&segments, &[], 0, None);
    assert_eq!(kept(&decision), [Some(5), None, Some(8)]);
    assert!(
        !decision.cuts_segments && !decision.cuts_batches && decision.damage.is_empty(),
        "{decision:?}"
    );
}

#[test]
fn a_prepared_segment_that_never_became_active_is_removed() {
    let segments = [segment(0, &[stretch(128, 500, 0, 5)]), segment(1, &[])];
    let decision = decide(&segments, &[], 5, None);
    assert_eq!(kept(&decision), [Some(5), None]);
    assert!(!decision.cuts_segments);
}

#[test]
fn a_log_that_begins_above_its_start_has_lost_its_head() {
    let decision = decide(&[segment(3, &[stretch(128, 500, 40, 50)])], &[], 50, Some(30));
    assert_eq!(decision.damage[0].offsets, 30..40);
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
    let decision = decide(&segments, &[], 0, None);
    assert_eq!(kept(&decision), [None, Some(0), None]);
    assert!(decision.cuts_segments && decision.end_offset == 0, "{decision:?}");
}

#[test]
fn an_empty_first_segment_is_not_below_the_log_start() {
    let segments = [segment(0, &[stretch(128, 188, 0, 0)]), segment(1, &[stretch(128, 500, 0, 9)])];
    for start in [None, Some(0)] {
        assert_eq!(kept(&decide(&segments, &[], 9, start)), [Some(0), Some(9)]);
    }
}

#[test]
fn a_file_that_cannot_be_read_is_left_where_something_is_missing() {
    let mut unreadable = segment(1, &[]);
    unreadable.garbage_end = 900;
    // In the middle: the log continued after it.
    let segments = [
        segment(0, &[stretch(128, 500, 0, 5)]),
        unreadable.clone(),
        segment(2, &[stretch(128, 500, 7, 9)]),
    ];
    assert_eq!(decide(&segments, &[], 9, None).actions[1], Action::Leave);
    // At the end: what was durable may be in it. If nothing is missing, it is a torn tail.
    let segments = [segment(0, &[stretch(128, 500, 0, 5)]), unreadable];
    assert_eq!(decide(&segments, &[], 8, None).actions[1], Action::Leave);
    assert_eq!(decide(&segments, &[], 5, None).actions[1], Action::Remove);
}

#[test]
fn a_file_that_repeats_what_another_has_is_reported_and_left_alone() {
    let segments = [segment(0, &[stretch(128, 500, 0, 5)]), segment(1, &[stretch(128, 300, 2, 4)])];
    let decision = decide(&segments, &[], 5, None);
    assert_eq!(decision.actions[1], Action::Leave);
    assert_eq!((decision.damage.len(), decision.end_offset), (1, 5));
    assert!(!decision.cuts_segments);
}

fn lost(number: u64, claimed: Option<u64>, bytes: u64) -> Lost {
    Lost { number, kind: CorruptionKind::Magic, claimed, bytes }
}

/// Symptom: one flipped bit in the header of one segment, and the partition did not open.
/// Rule: a file that bears its name had its header on the disk, so it is damage, whatever is
/// proved, and never a torn tail.
#[test]
fn a_segment_without_its_header_is_a_gap_that_nothing_proves_and_nothing_cuts() {
    let others = [segment(0, &[stretch(128, 500, 0, 5)]), segment(2, &[stretch(128, 500, 9, 20)])];
    let decision = decide(&others, &[lost(1, Some(9), 300)], 0, None);
    assert_eq!(kept(&decision), [Some(5), Some(20)]);
    let gap = Damage { segment: 2, position: 0, offsets: 5..9, kind: CorruptionKind::Magic };
    assert_eq!((decision.damage, decision.end_offset), (vec![gap], 20));
    assert!(!decision.cuts_segments);
}

#[test]
fn the_log_continues_after_all_that_a_lost_end_may_have_held() {
    let first = [segment(0, &[stretch(128, 500, 0, 5)])];
    for (file, end) in [
        (lost(1, Some(9), 300), 9),
        // What it claims cannot be: a record takes a byte.
        (lost(1, Some(900), 300), 305),
        (lost(1, None, 300), 305),
        // Prepared, and never used.
        (lost(1, None, 0), 5),
        // Not the last one, so it cannot end after the last.
        (Lost { number: 0, ..lost(0, None, 300) }, 5),
    ] {
        let decision = decide(&first, std::slice::from_ref(&file), 0, None);
        assert_eq!(
            (decision.end_offset, &decision.damage[0].offsets),
            (end, &(5..end)),
            "{file:?}"
        );
        assert_eq!(kept(&decision), [Some(5)]);
    }
    let alone = decide(&[], &[lost(0, Some(7), 400)], 3, None);
    assert_eq!((alone.end_offset, alone.last_kept()), (7, None));
}

#[test]
fn the_head_of_the_log_may_be_in_a_lost_file() {
    let decision = decide(&[segment(3, &[stretch(128, 500, 9, 20)])], &[lost(0, None, 1)], 0, None);
    assert_eq!((decision.damage[0].offsets.clone(), decision.end_offset), (0..9, 20));
    assert_eq!(kept(&decision), [Some(20)]);
}

/// Symptom: a file that repeats what others have continued, after a gap of its own, in what
/// nothing proves; the log was taken to end there, and what had been appended after it was
/// removed. Found by the fuzz target `recovery`.
#[test]
fn a_file_that_contradicts_the_others_does_not_end_the_log() {
    let twice = segment(1, &[stretch(128, 300, 2, 4), stretch(400, 500, 9, 12)]);
    let segments =
        [segment(0, &[stretch(128, 500, 0, 5)]), twice, segment(2, &[stretch(128, 500, 5, 6)])];
    let decision = decide(&segments, &[], 5, None);
    assert_eq!(kept(&decision), [Some(5), None, Some(6)]);
    assert_eq!((decision.actions[1], decision.cuts_segments), (Action::Leave, false));
}

/// Symptom: a record that was appended after a lost segment was removed by the next opening, and
/// its offset given again. Cause: a hole that nothing proved ended the log, and the lost segment
/// then moved the end; so the record's segment did not begin at the cut, where it would have hidden
/// the batch after the hole (rule 4), and that batch made it part of a torn tail. Rule: what
/// stands before a lost segment is not torn, so that a later opening decides as this one did.
#[test]
fn a_hole_before_a_lost_segment_does_not_cut_what_is_appended_behind_it() {
    let torn = segment(0, &[stretch(128, 500, 0, 5), stretch(700, 900, 7, 9)]);
    let behind = [lost(1, None, 300)];
    let first = decide(std::slice::from_ref(&torn), &behind, 0, None);
    assert_eq!((kept(&first), first.end_offset), (vec![Some(9)], 309));
    let offsets = |decision: &Decision| -> Vec<Range<u64>> {
        decision.damage.iter().map(|damage| damage.offsets.clone()).collect()
    };
    assert_eq!(offsets(&first), [5..7, 9..309]);
    let appended = segment(2, &[stretch(128, 300, 309, 310)]);
    for proved in [0, 309, 310] {
        let again = decide(&[torn.clone(), appended.clone()], &behind, proved, None);
        assert_eq!(kept(&again), [Some(9), Some(310)], "{proved}");
        assert_eq!((offsets(&again), again.cuts_segments), (offsets(&first), false), "{proved}");
    }
}

/// A lost segment that never had data, or after which the log continued, moves no end: a torn tail
/// is cut as ever, and what continues at the cut hides what followed it.
#[test]
fn a_lost_segment_that_is_not_the_end_leaves_a_torn_tail_torn() {
    let torn = segment(3, &[stretch(128, 500, 0, 5), stretch(700, 900, 7, 9)]);
    let appended = segment(5, &[stretch(128, 300, 5, 6)]);
    for file in [lost(4, None, 0), lost(2, Some(8), 300), lost(2, None, 300)] {
        let decision = decide(std::slice::from_ref(&torn), std::slice::from_ref(&file), 0, Some(0));
        assert_eq!((kept(&decision), decision.end_offset), (vec![Some(5)], 5), "{file:?}");
        let again = decide(&[torn.clone(), appended.clone()], &[file], 0, Some(0));
        assert_eq!((kept(&again), again.end_offset), (vec![Some(5), Some(6)], 6));
    }
}

/// Symptom: after a lost segment stood one that was prepared and never used, or before it one that
/// a compaction had made; its higher number said that the log had continued, and offsets that the
/// lost segment had held were given again. Rule: only ranks of what counts say that.
#[test]
fn the_log_continues_after_a_lost_end_whatever_numbers_others_have() {
    let first = segment(0, &[stretch(128, 500, 0, 5)]);
    let compacted = replacing(7, 1, (0, 0), (0, 5));
    let prepared = segment(2, &[]);
    for others in [vec![first, prepared], vec![compacted]] {
        let decision = decide(&others, &[lost(1, None, 300)], 0, None);
        assert_eq!((decision.end_offset, &decision.damage[0].offsets), (305, &(5..305)));
    }
    let one_after_another = [lost(1, None, 300), lost(2, None, 200)];
    let decision = decide(&[segment(0, &[])], &one_after_another, 5, None);
    assert_eq!(decision.end_offset, 505, "{decision:?}");
}

/// Symptom: a record that was appended after a file that contradicts the others was removed by the
/// next opening. Cause: the file stood between a hole and the segment that continued at the cut,
/// and was asked where the segment with the hole must end; what lay after the hole came back. Rule:
/// whatever stands between, a segment ends where any later one begins.
#[test]
fn a_file_that_contradicts_the_others_does_not_hide_where_the_log_continued() {
    let torn = segment(1, &[stretch(128, 188, 3, 3), stretch(240, 288, 5, 6)]);
    for base in [0, 9] {
        let mut files = vec![torn.clone(), replacing(2, 1, (1, 1), (base, base + 3))];
        files[1].durable = 0;
        files[1].generation = 0;
        assert_eq!(kept(&decide(&files, &[], 0, None)), [Some(3), None], "{base}");
        files.push(segment(3, &[stretch(128, 240, 3, 4)]));
        let decision = decide(&files, &[], 0, None);
        assert_eq!(kept(&decision), [Some(3), None, Some(4)], "{base}");
        assert_eq!((decision.actions[1], decision.end_offset), (Action::Leave, 4), "{base}");
    }
}

/// A segment that stands for others, with all of its offsets.
fn replacing(number: u64, generation: u32, ranks: (u64, u64), offsets: (u64, u64)) -> Facts {
    let whole = segment(number, &[stretch(128, 300, offsets.0, offsets.1)]);
    Facts { generation, ranks, replaces: true, durable: offsets.1, ..whole }
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
        segments.sort_by_key(|facts| (facts.ranks.0, facts.number));
        let decision = decide(&segments, &[], 9, None);
        assert!(decision.damage.is_empty() && !decision.cuts_segments, "{left}: {decision:?}");
        assert_eq!(decision.end_offset, 12);
        let removed = decision.actions.iter().filter(|action| **action == Action::Remove).count();
        assert_eq!(removed, count, "{left}");
    }
}

/// A file that an attempt left which failed comes back after a later one has divided the
/// ranks otherwise, and is itself half done.
#[test]
fn what_is_void_makes_nothing_void() {
    let segments = [
        replacing(7, 2, (0, 1), (0, 9)),
        replacing(6, 1, (0, 3), (0, 20)),
        segment(2, &[stretch(128, 500, 9, 15)]),
        segment(3, &[stretch(128, 500, 15, 20)]),
    ];
    let decision = decide(&segments, &[], 20, None);
    assert_eq!(kept(&decision), [Some(9), None, Some(15), Some(20)]);
    assert!(decision.damage.is_empty(), "{decision:?}");
}

#[test]
fn a_rewrite_of_a_rewrite_replaces_it() {
    let segments = [
        replacing(5, 1, (0, 1), (0, 9)),
        replacing(9, 3, (0, 2), (0, 15)),
        replacing(6, 2, (2, 2), (9, 15)),
        segment(3, &[stretch(128, 500, 15, 20)]),
    ];
    let decision = decide(&segments, &[], 15, None);
    assert_eq!(kept(&decision), [None, Some(15), None, Some(20)]);
    assert!(decision.damage.is_empty(), "{decision:?}");
}

#[test]
fn below_the_log_start_nothing_is_missed_and_nothing_is_kept() {
    let segments = [
        segment(0, &[stretch(128, 500, 0, 5)]),
        segment(2, &[stretch(128, 500, 9, 20)]),
        segment(3, &[stretch(128, 500, 20, 30)]),
    ];
    let decision = decide(&segments, &[], 30, Some(22));
    assert_eq!(kept(&decision), [None, None, Some(30)]);
    assert!(decision.damage.is_empty(), "{decision:?}");
}

#[test]
fn bytes_behind_the_last_batch_are_counted_as_cut() {
    let mut facts = segment(0, &[stretch(128, 500, 0, 5)]);
    facts.garbage_end = 560;
    assert_eq!(decide(&[facts], &[], 5, None).cut_bytes, 60);
}

/// Symptom: a first segment that somebody had shortened to its header was taken for one that was
/// never used, and removed; the opening after that missed nothing. Rule: where something is
/// missing, a file without a batch stays.
#[test]
fn a_file_without_a_batch_stays_where_something_is_missing() {
    let empty = Facts { stretches: Vec::new(), base_offset: None, ..segment(0, &[]) };
    let mut next = segment(1, &[stretch(128, 500, 5, 9)]);
    next.durable = 9;
    let decision = decide(&[empty.clone(), next.clone()], &[], 0, None);
    assert_eq!((decision.actions[0], decision.damage[0].offsets.clone()), (Action::Leave, 0..5));
    // Where nothing is, it was prepared and never used.
    let decision = decide(&[empty, next], &[], 0, Some(5));
    assert_eq!(decision.actions[0], Action::Remove);
}

/// Symptom: two files that stand for the same segments, in the same generation, both counted; a
/// reader that looked for one found the other, and did so for ever. Found by the mutations of the
/// corpus that every run of the tests makes. Rule: a rank has one segment.
#[test]
fn of_two_files_of_one_rank_one_counts_and_the_other_stays() {
    let segments = [replacing(5, 1, (0, 1), (0, 9)), replacing(6, 1, (0, 1), (9, 12))];
    let decision = decide(&segments, &[], 0, None);
    assert_eq!(kept(&decision), [Some(9), None]);
    assert_eq!((decision.actions[1], decision.damage.len()), (Action::Leave, 2));
}

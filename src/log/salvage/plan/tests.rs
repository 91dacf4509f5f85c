//! One table: what the segments hold, and what the plan makes of them.

#![expect(clippy::single_range_in_vec_init, reason = "a list of ranges that happens to have one")]

use super::*;
use crate::error::CorruptionKind;
use crate::format::SegmentHeader;

/// The segment of rank `number`, with these stretches of offsets, 100 bytes each.
fn segment(number: u64, base_offset: u64, stretches: &[Range<u64>]) -> Facts {
    let stretch = |(at, offsets): (usize, &Range<u64>)| {
        let start = SegmentHeader::END_POSITION + u32::try_from(at).unwrap() * 100;
        let (base_offset, next_offset) = (offsets.start, offsets.end);
        Stretch { start, end: start + 60, base_offset, next_offset, times: None }
    };
    Facts {
        number,
        ranks: (number, number),
        base_offset: Some(base_offset),
        stretches: stretches.iter().enumerate().map(stretch).collect(),
        ..Facts::default()
    }
}

fn planned(segments: &[Facts], lost: &[Lost], proved: u64, start: Option<u64>) -> Plan {
    let recorded = RecordedEnds { log_start: start, proved, is_end: false };
    plan(segments, &judge(segments, lost, &recorded), start)
}

/// Of each piece: which segment, how many stretches, from where to where.
type Shape = (Option<usize>, usize, Range<u64>);

/// A name; segments, what is proved, the log start; the pieces, what is lost.
type Case = (&'static str, Vec<Facts>, u64, Option<u64>, Vec<Shape>, Vec<Range<u64>>);

fn shapes(plan: &Plan) -> Vec<Shape> {
    let shape =
        |piece: &Piece| (piece.segment, piece.ranges.len(), piece.base_offset..piece.next_offset);
    plan.pieces.iter().map(shape).collect()
}

fn check(cases: Vec<Case>) {
    for (name, segments, proved, start, pieces, lost) in cases {
        let plan = planned(&segments, &[], proved, start);
        assert_eq!(shapes(&plan), pieces, "{name}");
        assert_eq!(plan.lost, lost, "{name}");
        assert_eq!(plan.end_offset, pieces.last().unwrap().2.end, "{name}");
        assert!(plan.start_offset >= pieces[0].2.start, "{name}");
        assert!(plan.start_offset >= start.unwrap_or(0), "{name}");
    }
}

#[test]
fn pieces_follow_one_another_and_holes_are_in_them() {
    check(vec![
        ("nothing", vec![], 0, None, vec![(None, 0, 0..0)], vec![]),
        ("nothing left", vec![], 7, Some(7), vec![(None, 0, 7..7)], vec![]),
        ("all gone", vec![], 7, Some(2), vec![(None, 0, 2..7)], vec![2..7]),
        (
            "whole",
            vec![segment(0, 0, &[0..5]), segment(1, 5, &[5..9])],
            9,
            Some(0),
            vec![(Some(0), 1, 0..5), (Some(1), 1, 5..9)],
            vec![],
        ),
        (
            "holes within, between and behind",
            vec![segment(0, 0, &[0..2, 3..4]), segment(1, 5, &[6..9])],
            12,
            Some(0),
            vec![(Some(0), 2, 0..4), (Some(1), 1, 4..12)],
            vec![2..3, 4..6, 9..12],
        ),
        (
            "a hole in front",
            vec![segment(1, 5, &[5..9])],
            0,
            Some(2),
            vec![(Some(0), 1, 2..9)],
            vec![2..5],
        ),
        (
            "what is below the start is not missed, and a batch that straddles it is kept whole",
            vec![segment(0, 0, &[0..2]), segment(1, 2, &[2..9])],
            0,
            Some(4),
            vec![(Some(1), 1, 2..9)],
            vec![],
        ),
    ]);
}

#[test]
fn what_does_not_belong_to_the_log_is_left_out_and_no_segment_spans_too_much() {
    let far = 1 << 40;
    let cut = Facts { generation: 1, truncates_to: Some(4), ..segment(2, 4, &[4..6]) };
    check(vec![
        (
            "where it begins is not known: the first says it",
            vec![segment(3, 5, &[5..9])],
            0,
            None,
            vec![(Some(0), 1, 5..9)],
            vec![],
        ),
        (
            "a tail behind a cut at which the log was continued",
            vec![segment(0, 0, &[0..2, 3..4]), segment(1, 2, &[2..6])],
            0,
            None,
            vec![(Some(0), 1, 0..2), (Some(1), 1, 2..6)],
            vec![],
        ),
        (
            "what a later segment has cut off",
            vec![segment(0, 0, &[0..4]), segment(1, 4, &[4..9]), cut],
            0,
            None,
            vec![(Some(0), 1, 0..4), (Some(2), 1, 4..6)],
            vec![],
        ),
        (
            "a hole that no segment spans remains between them",
            vec![segment(0, 0, &[0..2]), segment(1, far, &[far..far + 2])],
            0,
            Some(0),
            vec![(Some(0), 1, 0..2), (Some(1), 1, far..far + 2)],
            vec![2..far],
        ),
        (
            "also behind the last, and within one",
            vec![segment(0, 0, &[0..2, far..far + 2])],
            far * 2,
            Some(0),
            vec![(Some(0), 1, 0..2), (Some(0), 1, far..far + 2), (None, 0, far * 2..far * 2)],
            vec![2..far, far + 2..far * 2],
        ),
    ]);
}

#[test]
fn what_a_clean_close_has_left_behind_its_end_stays_there() {
    let segments = [segment(0, 0, &[0..2, 3..4, 7..9])];
    let planned = |proved, is_end| {
        let recorded = RecordedEnds { log_start: None, proved, is_end };
        let plan = plan(&segments, &judge(&segments, &[], &recorded), None);
        (shapes(&plan), plan.lost)
    };
    assert_eq!(planned(4, true), (vec![(Some(0), 2, 0..4)], vec![2..3]));
    assert_eq!(planned(2, true), (vec![(Some(0), 1, 0..2)], vec![]));
    assert_eq!(planned(4, false), (vec![(Some(0), 3, 0..9)], vec![2..3, 4..7]));
}

/// Symptom: the copy of a log that was closed at offset 80 continued at 2970. Cause: a rewritten
/// file had lost its header, and may have been the last one, with as many records as bytes. Rule:
/// nothing follows the end that a clean close has recorded.
#[test]
fn a_file_whose_header_is_lost_held_nothing_behind_a_clean_end() {
    let segments = [segment(0, 0, &[0..5])];
    let lost = [Lost { number: 3, kind: CorruptionKind::Magic, claimed: None, bytes: 1_000 }];
    for (proved, missing) in [(5, vec![]), (9, vec![5..9])] {
        let recorded = RecordedEnds { log_start: Some(0), proved, is_end: true };
        let plan = plan(&segments, &judge(&segments, &lost, &recorded), Some(0));
        assert_eq!((plan.end_offset, plan.lost), (proved, missing));
    }
}

#[test]
fn a_file_whose_header_is_lost_is_a_hole_of_what_it_said() {
    let kind = CorruptionKind::Magic;
    let lost = [Lost { number: 1, kind, claimed: Some(8), bytes: 1_000 }];
    let between = planned(&[segment(0, 0, &[0..5]), segment(2, 8, &[8..9])], &lost, 0, Some(0));
    assert_eq!(shapes(&between), [(Some(0), 1, 0..5), (Some(1), 1, 5..9)]);
    assert_eq!(between.lost, [5..8]);
    let behind = planned(&[segment(0, 0, &[0..5])], &lost, 0, Some(0));
    assert_eq!(shapes(&behind), [(Some(0), 1, 0..8)]);
    assert_eq!(behind.lost, [5..8]);
}

//! A log that is truncated, and one that begins anew.

use super::*;
use crate::format::ProducerState;
use crate::log::verify::{Findings, verify_segments};

fn producers(log: &Log) -> Vec<Option<ProducerState>> {
    let state = |id| log.producer(id).map(|it| ProducerState { last_timestamp: 0, ..*it });
    (0..4).map(state).collect()
}

fn history(log: &Log) -> Vec<Option<EpochEnd>> {
    (0..40).map(|epoch| with_history(log, |history| history.end_of(epoch)).unwrap()).collect()
}

fn damage(log: &Log) -> Vec<Corruption> {
    let mut findings = Findings::default();
    let (identity, end) = (log.factory().identity(), log.log_end());
    let lacks = |number| log.backlog().lacks_footer(number);
    verify_segments(log.segments(), identity, end, lacks, &mut findings).unwrap();
    findings.damage
}

/// Batches as they are appended, so that a log can be built up to any of them.
#[derive(Debug, Clone)]
struct Plan(Vec<(u32, u64, usize, Option<ProducerRequest>)>);

impl Plan {
    fn any(random: &mut Random, count: usize) -> Self {
        let (mut epoch, mut sequences) = (0, [0; 4]);
        let mut any = || {
            epoch += u32::from(random.below(6) == 0);
            let (count, size) = (1 + random.below(3), [10, 400, 2_500][random.below(3) as usize]);
            let id = random.below(8) as usize;
            let request = sequences.get_mut(id).map(|next| {
                let sequence = Sequence::At(*next);
                *next += count;
                ProducerRequest { id: id as u64, epoch: 3, sequence }
            });
            (epoch, count, size, request)
        };
        Self((0..count).map(|_| any()).collect())
    }

    fn append(&self, log: &mut Log, batches: std::ops::Range<usize>) {
        for (epoch, count, size, request) in &self.0[batches] {
            set_epoch(log, *epoch, None).unwrap();
            let base = log.log_end();
            let values: Vec<_> =
                (base..base + count).map(|offset| value(0, offset, *size)).collect();
            append_values(log, &values, request.as_ref()).unwrap();
        }
    }

    fn end(&self, batches: usize) -> u64 {
        self.0[..batches].iter().map(|batch| batch.1).sum()
    }
}

fn assert_same(log: &Log, expected: &Log, case: &str) {
    assert_eq!(log.log_end(), expected.log_end(), "{case}");
    assert_eq!(portable(log), portable(expected), "{case}");
    assert_eq!(history(log), history(expected), "{case}");
    assert_eq!(producers(log), producers(expected), "{case}");
    let all = |log: &Log| read_from(log, 0, 7).unwrap();
    assert_eq!(all(log), all(expected), "{case}");
    assert_eq!(damage(log), [], "{case}");
    for offset in (0..expected.log_end()).step_by(5) {
        let (found, expected) = (read_from(log, offset, 1), read_from(expected, offset, 1));
        assert_eq!(found.unwrap(), expected.unwrap(), "{case}: {offset}");
    }
}

/// After a truncation the log is what it was when it ended there: records, epochs, producers,
/// indexes; now, after more was appended, and for every later opening, also with a recovery point
/// from before the truncation.
// RED: src/log/recovery.rs
//   - later.filter_map(|facts| facts.base_offset).fold(end, u64::min)
//   + later.filter_map(|facts| facts.base_offset).fold(end, u64::max)
#[test]
fn a_truncated_log_is_what_it_was_when_it_ended_there() {
    every_rig(|name, rig| {
        for seed in 0..if name.starts_with("simulated") { 60 * effort() } else { 8 } {
            let mut random = Random::new(seed);
            let batches = Plan::any(&mut random, 40);
            let case = format!("{name}, seed {seed}");
            // Memory does not survive a process, and is never opened as if it had.
            let same_boot = !name.starts_with("memory");
            let killed = Known { same_boot, ..AFTER_KILL };
            let known = |point, clean| Known { same_boot, ..known(point, clean) };
            let mut log = rig.create();
            let reopened = random.below(batches.0.len() as u64) as usize;
            batches.append(&mut log, 0..reopened);
            if random.below(3) == 0 {
                drop(log);
                log = rig.open(&killed).unwrap().0;
            }
            batches.append(&mut log, reopened..batches.0.len());
            sync(&mut log).unwrap();
            if random.below(2) == 0 {
                finish_segments(&mut log).unwrap();
            }
            make_space(&mut log).unwrap();
            let stale = log.checkpoint();
            let mut kept = batches.0.len();
            for _ in 0..=random.below(3) {
                kept = random.below(kept as u64 + 1) as usize;
                let (before, end) = (log.log_end(), batches.end(kept));
                // Anywhere in the first batch that is cut off.
                let inside = if end < before { random.below(batches.0[kept].1) } else { 0 };
                assert_eq!(truncate(&mut log, end + inside, end).unwrap(), end, "{case}");
                let (_, other) = Rig::fresh(seed);
                let mut expected = other.create();
                batches.append(&mut expected, 0..kept);
                assert_same(&log, &expected, &case);
            }
            let (_, other) = Rig::fresh(seed);
            let mut expected = other.create();
            batches.append(&mut expected, 0..kept);
            let opening = match random.below(4) {
                0 => None,
                1 => Some(known(stale.clone(), false)),
                2 => Some(killed.clone()),
                _ => Some(known(log.checkpoint(), true)),
            };
            if let Some(opening) = opening {
                drop(log);
                let (opened, report) = rig.open(&opening).unwrap();
                assert!(report.corrupt.is_empty(), "{case}: {report:?}");
                log = opened;
                assert_same(&log, &expected, &format!("{case}, reopened"));
            }
            [&mut log, &mut expected].into_iter().for_each(continue_in_a_later_epoch);
            assert_same(&log, &expected, &format!("{case}, continued"));
            sync(&mut log).unwrap();
            finish_segments(&mut log).unwrap();
            drop(log);
            for known in [killed.clone(), AFTER_CUT, known(stale.clone(), false)] {
                let (mut log, report) = rig.open(&known).unwrap();
                assert!(report.corrupt.is_empty(), "{case}: {report:?}");
                assert_same(&log, &expected, &format!("{case}, at last"));
                sync(&mut log).unwrap();
                finish_segments(&mut log).unwrap();
                assert_same(&log, &expected, &format!("{case}, footers"));
            }
            remove_all(&rig);
        }
    });
}

fn continue_in_a_later_epoch(log: &mut Log) {
    let last = last_epoch(log);
    set_epoch(log, 30, last).unwrap();
    for offset in log.log_end()..log.log_end() + 9 {
        append_values(log, &[value(7, offset, 900)], None).unwrap();
    }
}

/// Removes the files of a log, for the next one.
fn remove_all(rig: &Rig) {
    let (disk, dir) = (&rig.env.disk, &rig.identity.dir);
    for entry in disk.list(dir).unwrap() {
        disk.remove_file(&dir.join(entry.name)).unwrap();
    }
}

/// A reader that has read all that was visible leaves the segment where it ends now, whether that
/// was cut or removed, and sees what was appended instead.
// RED: src/log/cursor.rs
//   - let end = self.segment.sealed().map_or(end, |sealed| end.min(sealed.data_end as usize));
#[test]
fn a_reader_never_sees_what_was_cut_off() {
    every_rig(|name, rig| {
        for kept in 1..9 {
            let mut log = rig.create();
            for number in 0..9 {
                append_values(&mut log, &[value(0, number, 900)], None).unwrap();
                if number % 3 == 2 {
                    log.roll_for(0).unwrap();
                }
            }
            let visible = |visible_end| FetchLimits { records: 9, bytes: usize::MAX, visible_end };
            let mut readers = Vec::new();
            for reads in 0..=kept {
                let mut cursor = cursor_at(&log, 0).unwrap();
                if reads > 0 {
                    fetch(&log, &mut cursor, &visible(reads)).unwrap();
                }
                // It looks again, and may move to the next segment.
                fetch(&log, &mut cursor, &visible(kept)).unwrap();
                readers.push((cursor, reads));
            }
            let held = fetch(&log, &mut cursor_at(&log, 0).unwrap(), &visible(9)).unwrap();
            truncate(&mut log, kept, kept).unwrap();
            for offset in kept..12 {
                append_values(&mut log, &[value(1, offset, 700)], None).unwrap();
            }
            let run = |offset| u64::from(offset >= kept);
            let size = |offset| if offset >= kept { 700 } else { 900 };
            for (mut cursor, reads) in readers {
                let mut next = cursor.next_offset();
                while next < 12 {
                    let some = fetch(&log, &mut cursor, &visible(12)).unwrap();
                    assert!(!some.is_empty(), "{name}: {kept}, {reads}, {next}");
                    for (offset, found) in some {
                        assert_eq!(offset, next, "{name}: {kept}, {reads}");
                        assert!(found == value(run(next), next, size(next)), "{name}: {next}");
                        next += 1;
                    }
                }
            }
            assert_eq!(held.len(), 9);
            assert_eq!(damage(&log), [], "{name}");
            drop(log);
            remove_all(&rig);
        }
    });
}

/// When the segment gets its footer in which the log is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FooterComes {
    Before,
    /// Its writing has begun before.
    Meanwhile,
    InALaterRun,
}

/// What is held stays as it is, in later runs too: the bytes of a truncated batch are in the map of a
/// file that was removed, or in a file that keeps them.
// RED: src/log/tasks.rs
//   - end_of_contents(file, data_end..length).unwrap_or(length)
//   + Some((file, length)).map_or(length, |_| data_end)
#[test]
fn row_d25_h17_bytes_that_are_held_stay_valid_after_a_truncation() {
    for comes in [FooterComes::Before, FooterComes::Meanwhile, FooterComes::InALaterRun] {
        every_rig(|name, mut rig| {
            rig.options.segment_bytes = 64 << 10;
            let mut log = rig.create();
            for _ in 0..3 {
                append(&mut log, 2, 2_000);
                log.roll_for(0).unwrap();
                append(&mut log, 2, 7_000);
            }
            sync(&mut log).unwrap();
            let early = match comes {
                FooterComes::Before => finish_segments(&mut log).map(|()| None).unwrap(),
                FooterComes::Meanwhile => {
                    let mut first = log.backlog().begin_footer(None).unwrap();
                    first.run().unwrap();
                    log.backlog_mut().finish_footer(&first);
                    log.backlog().begin_footer(None)
                }
                FooterComes::InALaterRun => None,
            };
            let held = feed(&log, 0, usize::MAX).unwrap();
            let bytes = || held.iter().map(|it| it.bytes().to_vec()).collect::<Vec<_>>();
            let before = bytes();
            truncate(&mut log, 4, 4).unwrap();
            if let Some(mut early) = early {
                early.run().unwrap();
                log.backlog_mut().finish_footer(&early);
            }
            // Memory does not survive a process, and is never opened as if it had.
            let killed = Known { same_boot: !name.starts_with("memory"), ..AFTER_KILL };
            for run in 0..3 {
                (0..9).for_each(|_| append(&mut log, 1, 1_900));
                log.roll_for(0).unwrap();
                sync(&mut log).unwrap();
                finish_segments(&mut log).unwrap();
                end_space(&mut log).unwrap();
                assert!(bytes() == before, "{name}, {comes:?}, run {run}");
                drop(log);
                let (opened, report) = rig.open(&killed).unwrap();
                assert!(report.corrupt.is_empty(), "{name}, {comes:?}: {report:?}");
                log = opened;
                assert_eq!(log.log_end(), 4 + 9 * (run + 1));
            }
            drop(log);
            remove_all(&rig);
        });
    }
}

// RED: src/log/replica/cut.rs
//   - if offset < bound.max(ends.log_start()) {
//   + if offset < ends.log_start() {
#[test]
fn below_the_bound_nothing_is_cut() {
    let rig = Rig::memory();
    let mut log = rig.create();
    append(&mut log, 4, 100);
    append(&mut log, 4, 100);
    let refused = truncate(&mut log, 3, 4);
    assert!(matches!(refused, Err(Failure::Refused(Refusal::Bound { offset: 3, bound: 4 }))));
    // It would take the batch with it that holds the offset.
    let refused = truncate(&mut log, 6, 5);
    assert!(matches!(refused, Err(Failure::Refused(Refusal::Bound { offset: 4, bound: 5 }))));
    log.retire(2, usize::MAX);
    let refused = truncate(&mut log, 1, 0);
    assert!(matches!(refused, Err(Failure::Refused(Refusal::Bound { offset: 1, .. }))));
    let refused = begin_anew(&mut log, 1);
    assert!(matches!(refused, Err(Failure::Refused(Refusal::Bound { offset: 1, bound: 2 }))));
    assert_eq!((log.log_end(), segment_count(&log)), (8, 1));
    assert_eq!(truncate(&mut log, 8, 8).unwrap(), 8);
    assert_eq!(truncate(&mut log, 99, 8).unwrap(), 8, "there is nothing");
    assert_eq!(segment_count(&log), 1);
}

/// What compaction has written was below the watermark.
#[test]
fn a_compacted_segment_is_not_cut() {
    let rig = Rig::memory();
    let mut log = rig.create();
    append(&mut log, 2, 100);
    append(&mut log, 2, 100);
    log.roll_for(0).unwrap();
    append(&mut log, 2, 100);
    log.roll_for(0).unwrap();
    sync(&mut log).unwrap();
    finish_segments(&mut log).unwrap();
    let shared = Shared::new(log);
    shared.compact(TERMS).unwrap();
    let mut log = shared.0.into_inner();
    append(&mut log, 2, 100);
    let refused = truncate(&mut log, 2, 0);
    assert!(matches!(refused, Err(Failure::Refused(Refusal::Bound { .. }))), "{refused:?}");
    assert_eq!(truncate(&mut log, 6, 0).unwrap(), 6);
}

/// A follower of a compacted leader is cut in a gap: the log ends where the caller says, also after an
/// opening, so that it never ends below what a majority has.
#[test]
fn a_cut_in_a_gap_ends_the_log_at_the_offset() {
    for offset in 1..=9 {
        for rolls in [false, true] {
            let (leader_rig, rig) = (Rig::memory(), Rig::memory());
            let (mut leader, mut log) = (leader_rig.create(), rig.create());
            for number in 0..10 {
                append_in(&mut leader, 1 + number / 4, 1, 50);
            }
            let mut give = |base: u64| {
                let portions = feed(&leader, base, 1).unwrap();
                store(&mut log, portions[0].bytes(), portions[0].under, 99).unwrap();
                if rolls {
                    log.roll_for(0).unwrap();
                }
            };
            [0, 1, 5, 9].into_iter().for_each(&mut give);
            let end = truncate(&mut log, offset, offset).unwrap();
            assert_eq!(end, offset, "{rolls}");
            let expected: Records = plain(0..10, 50);
            let is_kept = |(at, _): &&(u64, Vec<u8>)| [0, 1, 5, 9].contains(at) && *at < offset;
            let expected: Records = expected.iter().filter(is_kept).cloned().collect();
            assert_eq!(read_from(&log, 0, 9).unwrap(), expected, "{offset}");
            assert_eq!(damage(&log), [], "{offset}");
            let epochs = history(&log);
            drop(log);
            let (mut log, report) = rig.open(&AFTER_KILL).unwrap();
            assert!(report.corrupt.is_empty(), "{offset}: {report:?}");
            assert_eq!((log.log_end(), history(&log)), (offset, epochs), "{offset}");
            assert_eq!(read_from(&log, 0, 9).unwrap(), expected, "{offset}");
            append_in(&mut log, 9, 1, 50);
            assert_eq!(log.log_end(), offset + 1);
        }
    }
}

// RED: src/log/replica/cut.rs
//   - let from = if is_anew { 0 } else { base_offset };
//   + let from = base_offset;
#[test]
fn row_h16_a_log_begins_anew_above_its_end_and_within() {
    every_rig(|name, rig| {
        for start in [0, 7, 12, 13, 40] {
            let mut log = rig.create();
            let batches = Plan::any(&mut Random::new(start), 9);
            for number in 0..9 {
                batches.append(&mut log, number..number + 1);
                if number % 2 == 0 {
                    log.roll_for(0).unwrap();
                }
            }
            let stale = {
                sync(&mut log).unwrap();
                log.checkpoint()
            };
            let mut reader = cursor_at(&log, 0).unwrap();
            begin_anew(&mut log, start).unwrap();
            let ends = |log: &Log| (log.log_start(), log.durable_end(), log.log_end());
            assert_eq!(ends(&log), (start, start, start), "{name}");
            assert_eq!((last_epoch(&log), segment_count(&log)), (None, 1), "{name}");
            assert_eq!(producers(&log), vec![None; 4], "{name}");
            append(&mut log, 3, 700);
            let all = limits(&log, 99, usize::MAX);
            let read = fetch(&log, &mut reader, &all);
            match read {
                Ok(found) => assert_eq!((start, found), (0, plain(0..3, 700)), "{name}"),
                Err(Error::OffsetOutOfRange { .. }) => assert!(start > 0, "{name}"),
                Err(other) => panic!("{name}: {other:?}"),
            }
            sync(&mut log).unwrap();
            drop(log);
            for checkpoint in [None, stale] {
                let known = Known { log_start: Some(start), checkpoint, ..AFTER_KILL };
                let (log, report) = rig.open(&known).unwrap();
                assert!(report.corrupt.is_empty(), "{name}, {start}: {report:?}");
                assert_eq!((log.log_start(), log.log_end()), (start, start + 3), "{name}");
                let expected = plain(start..start + 3, 700);
                assert_eq!(read_from(&log, start, 9).unwrap(), expected, "{name}");
                assert_eq!(damage(&log), [], "{name}");
            }
            remove_all(&rig);
        }
    });
}

/// Every operation of the disk that can fail: before the new segment has its name nothing has
/// changed; after that, the next opening finds one or the other.
// RED: src/log/create.rs
//   - *is_named = true;
#[test]
fn row_h05_a_truncation_that_fails_is_not_done_or_is_found_done() {
    for operation in [
        Operation::Create,
        Operation::Allocate,
        Operation::Write,
        Operation::Sync,
        Operation::Rename,
        Operation::SyncDir,
    ] {
        let (disk, rig) = Rig::fresh(1);
        let mut log = rig.create();
        append(&mut log, 1, 100);
        append(&mut log, 1, 100);
        sync(&mut log).unwrap();
        let cut = with_history(&log, |history| plan(history, *log.ends(), 1, 1)).unwrap().unwrap();
        let task = cut.begin(&mut log).unwrap();
        disk.inject(Fault::once(operation, std::io::ErrorKind::Other));
        let mut is_named = false;
        task.run(&mut is_named).unwrap_err();
        let late = operation == Operation::SyncDir;
        assert_eq!(is_named, late, "{operation:?}");
        assert_eq!(read_from(&log, 0, 9).unwrap(), plain(0..2, 100), "{operation:?}");
        if !late {
            append(&mut log, 1, 100);
            assert_eq!(truncate(&mut log, 1, 1).unwrap(), 1, "{operation:?}");
        }
        drop(log);
        let (log, report) = rig.open(&AFTER_KILL).unwrap();
        assert!(report.corrupt.is_empty() && [1, 2].contains(&log.log_end()), "{report:?}");
    }
}

/// The first batches of a segment were damaged, and the log was cut among them or at their end: what was
/// damaged looked like what compaction leaves out, and the record was gone without a word.
// RED: src/log/replica/history.rs
//   - check_head(later, reached)?;
#[test]
fn a_cut_makes_no_gap_of_what_is_damaged() {
    const BATCHES: u64 = 8;
    let mut refused = 0;
    for rolls_at in [BATCHES, 4] {
        for (first, damaged) in [(0, 1), (0, 3), (4, 1), (4, 3)] {
            for offset in 1..BATCHES {
                let (disk, rig) = Rig::fresh(1);
                let mut log = rig.create();
                for number in 0..BATCHES {
                    if number == rolls_at {
                        log.roll_for(0).unwrap();
                    }
                    append(&mut log, 1, 100);
                }
                log.roll_for(0).unwrap();
                sync(&mut log).unwrap();
                finish_segments(&mut log).unwrap();
                let segment = Arc::clone(&log.segments().all()[usize::from(first >= rolls_at)]);
                drop(log);
                let number = |of: u64| of - segment.base_offset;
                let size = (segment.end() as u64 - 188) / number(segment.next_offset().unwrap());
                for batch in first..first + damaged {
                    disk.corrupt(&segment.path, 188 + number(batch) * size + 70, 1).unwrap();
                }
                let (mut log, _) = rig.open(&AFTER_CUT).unwrap();
                let cut = truncate(&mut log, offset, 0);
                let case = format!("{rolls_at}, {first}, {damaged}, {offset}: {cut:?}");
                let is_corrupt = matches!(cut, Err(Failure::Failed(Error::Corrupt(_))));
                assert!(cut.is_ok() || is_corrupt, "{case}");
                refused += u32::from(is_corrupt);
                // Each record below the cut is there, or is reported.
                for at in 0..offset {
                    let is_damaged = (first..first + damaged).contains(&at);
                    let found = feed(&log, at, 1);
                    let is_reported = matches!(found, Err(Error::Corrupt(_)));
                    assert!(is_reported || (!is_damaged && found.is_ok()), "{case}, {at}");
                }
            }
        }
    }
    assert!(refused > 20, "{refused}");
}

/// The first batch of the segment that a cut has made was damaged before it had a footer. It says where the
/// segment begins; without it the next opening read on in the one before, and what was cut off came back.
// RED: src/log/inventory.rs
//   - self.cuts_at().into_iter().chain(first).min()
//   + first
#[test]
fn what_was_cut_off_does_not_come_back_after_damage() {
    for position in 128..188 {
        let (disk, rig) = Rig::fresh(1);
        let mut log = rig.create();
        for _ in 0..5 {
            append_in(&mut log, 1, 1, 50);
        }
        assert_eq!(truncate(&mut log, 2, 0).unwrap(), 2);
        append_in(&mut log, 2, 2, 50);
        sync(&mut log).unwrap();
        let records = read_from(&log, 0, 9).unwrap();
        let path = log.segments().all().last().unwrap().path.clone();
        drop(log);
        disk.corrupt(&path, position, 4).unwrap();
        let (log, _) = rig.open(&AFTER_KILL).unwrap();
        assert_eq!(log.log_end(), 4, "{position}");
        assert_eq!(read_from(&log, 0, 9).unwrap(), records, "{position}");
    }
}

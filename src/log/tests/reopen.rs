//! Reopening: after a clean close, with a recovery point of every quality, and what producers
//! are remembered by.

use super::*;
use crate::format::Rewrite;
use crate::log::ends::Ends;

/// A log of several segments, closed cleanly: all is synced, footers are there.
fn closed(rig: &Rig) -> Checkpoint {
    let mut log = rig.create();
    while segment_count(&log) < 4 {
        append(&mut log, 3, 500);
    }
    append(&mut log, 1, 500);
    sync(&mut log).unwrap();
    finish_segments(&mut log).unwrap();
    log.checkpoint().unwrap()
}

fn is_clean(report: &PartitionRecovery) -> bool {
    report.corrupt.is_empty() && report.cut_bytes == 0
}

#[test]
fn a_clean_close_resumes_in_the_same_segment_right_behind_the_last_batch() {
    every_rig(|name, rig| {
        let point = closed(&rig);
        for round in 0..3 {
            let point = if round == 0 {
                point.clone()
            } else {
                let (mut log, _) = rig.open(&known(Some(point.clone()), false)).unwrap();
                sync(&mut log).unwrap_or_default();
                continue;
            };
            let (mut log, report) = rig.open(&known(Some(point.clone()), true)).unwrap();
            assert!(is_clean(&report), "{name}: {report:?}");
            let (end, count) = (log.log_end(), segment_count(&log));
            assert_eq!((end, log.durable_end()), (point.end_offset, point.end_offset), "{name}");
            let active = log.appender().active().unwrap();
            assert_eq!(active.segment().number, point.segment, "{name}");
            assert_eq!(active.position(), point.position as usize, "{name}");
            append(&mut log, 2, 500);
            assert_eq!(segment_count(&log), count, "{name}");
            let mut cursor = cursor_at(&log, end - 1).unwrap();
            let some = fetch(&log, &mut cursor, &limits(&log, 9, usize::MAX)).unwrap();
            assert_eq!(some, plain(end - 1..end + 2, 500), "{name}");
            assert_eq!(read_from(&log, 0, 7).unwrap(), plain(0..end + 2, 500), "{name}");
            while segment_count(&log) == count {
                append(&mut log, 1, 500);
            }
            sync(&mut log).unwrap();
            finish_segments(&mut log).unwrap();
            let end = log.log_end();
            drop(log);
            let (log, report) = rig.open(&AFTER_CUT).unwrap();
            assert!(is_clean(&report), "{name}: {report:?}");
            assert_eq!(read_from(&log, 0, 7).unwrap(), plain(0..end, 500), "{name}");
        }
    });
}

#[test]
fn a_clean_close_keeps_the_incarnation_and_an_unclean_one_draws_another() {
    let (disk, rig) = Rig::fresh(1);
    let mut log = rig.create();
    append(&mut log, 1, 10);
    sync(&mut log).unwrap();
    let (incarnation, point) = (log.epochs().incarnation, log.checkpoint());
    drop(log);
    let other = Rig::simulated(&disk, 2);
    let (log, _) = other.open(&known(point.clone(), true)).unwrap();
    assert_eq!(log.epochs().incarnation, incarnation);
    drop(log);
    let (log, _) = other.open(&known(point, false)).unwrap();
    assert_ne!(log.epochs().incarnation, incarnation);
}

#[test]
fn row_a10_a_clean_close_without_footers_resumes_all_the_same() {
    let (disk, rig) = Rig::fresh(1);
    let mut log = rig.create();
    fill_segments(&mut log, 3, 3_000);
    sync(&mut log).unwrap();
    let (point, end) = (log.checkpoint(), log.log_end());
    drop(log);
    let (mut log, report) = Rig::simulated(&disk, 2).open(&known(point, true)).unwrap();
    assert!(is_clean(&report));
    assert!(log.appender().active().is_some());
    assert_eq!(read_from(&log, 0, 1).unwrap(), plain(0..end, 3_000));
    finish_segments(&mut log).unwrap();
    assert!(!log.backlog().has_unfinished());
}

/// A recovery point that passes for clean and is not: the log was continued in another segment.
// RED: src/log/open/tail.rs
//   - (ends_there && decision.last_kept() == Some(index)).then_some(())?;
//   + ends_there.then_some(())?;
#[test]
fn row_b18_a_clean_close_that_the_files_contradict_is_not_believed() {
    for count in [0, 2] {
        let (disk, rig) = Rig::fresh(1);
        let mut log = rig.create();
        append(&mut log, 3, 100);
        sync(&mut log).unwrap();
        let point = log.checkpoint();
        log.roll_for(0).unwrap();
        for _ in 0..count {
            append(&mut log, 1, 100);
        }
        sync(&mut log).unwrap();
        drop(log);
        let (mut log, report) = Rig::simulated(&disk, 2).open(&known(point, true)).unwrap();
        assert!(is_clean(&report) && log.appender().active().is_none(), "{report:?}");
        append(&mut log, 1, 100);
        assert_eq!(read_from(&log, 0, 9).unwrap(), plain(0..4 + count, 100));
    }
}

/// B12: a recovery point that is lost, stale, or wrong in any field costs a scan and no data.
// RED: src/log/inventory.rs
//   - && found.agrees_with(point)?
#[test]
fn row_b12_any_recovery_point_gives_the_same_log() {
    let (disk, rig) = Rig::fresh(1);
    let mut log = rig.create();
    let mut stale = Vec::new();
    while segment_count(&log) < 3 {
        append(&mut log, 2, 900);
        sync(&mut log).unwrap();
        stale.push(log.checkpoint().unwrap());
    }
    append(&mut log, 2, 900);
    append(&mut log, 2, 900);
    let end = log.log_end();
    sync(&mut log).unwrap();
    let right = log.checkpoint().unwrap();
    drop(log);
    let mut points: Vec<Option<Checkpoint>> = vec![None];
    points.extend(stale.into_iter().map(Some));
    for position in [0, 3, right.position - 4, right.position + 4, 1 << 20, u32::MAX] {
        points.push(Some(Checkpoint { position, ..right.clone() }));
    }
    for last_batch in [0, 127, 128, right.last_batch + 4, u32::MAX] {
        points.push(Some(Checkpoint { last_batch, ..right.clone() }));
    }
    for segment in [0, 1, 77] {
        points.push(Some(Checkpoint { segment, ..right.clone() }));
    }
    points.push(Some(Checkpoint { end_offset: end - 1, ..right.clone() }));
    points.push(Some(Checkpoint { end_offset: 0, ..right }));
    for point in points {
        for clean in [false, true] {
            let rig = Rig::simulated(&disk.kill9(), 2);
            let (mut log, report) = rig.open(&known(point.clone(), clean)).unwrap();
            let context = format!("clean: {clean}, {point:?}");
            assert!(is_clean(&report), "{context}: {report:?}");
            assert_eq!(log.log_end(), end, "{context}");
            assert_eq!(read_from(&log, 0, 5).unwrap(), plain(0..end, 900), "{context}");
            append(&mut log, 1, 900);
            assert_eq!(read_from(&log, 0, 5).unwrap(), plain(0..end + 1, 900), "{context}");
        }
    }
}

/// E5: what the recovery point says was durable and is not there is reported, and the offsets are
/// not given away again.
// RED: src/log/open.rs
//   - let proved = point.map_or(0, proof).max(known.proved);
//   + let proved = known.proved;
#[test]
fn row_e05_a_log_that_ends_before_its_recovery_point_is_corrupt_and_continues_after_it() {
    let (disk, rig) = Rig::fresh(1);
    let mut log = rig.create();
    append(&mut log, 5, 10);
    append(&mut log, 5, 10);
    sync(&mut log).unwrap();
    let point = log.checkpoint().unwrap();
    disk.truncate(&files(&disk)[0], u64::from(point.last_batch) + 40).unwrap();
    drop(log);
    for clean in [false, true] {
        let rig = Rig::simulated(&disk.kill9(), 2);
        let (mut log, report) = rig.open(&known(Some(point.clone()), clean)).unwrap();
        assert_eq!(report.corrupt.len(), 1, "{report:?}");
        assert_eq!(report.corrupt[0].offsets, Some(5..10));
        assert_eq!(log.log_end(), 10);
        let (records, damage) = read_around(&log);
        assert_eq!(records, plain(0..5, 10));
        assert_eq!(damage.len(), 1);
        assert_eq!(damage[0].offsets, Some(5..10));
        append(&mut log, 2, 10);
        let (records, damage) = read_around(&log);
        assert_eq!(records, [plain(0..5, 10), plain(10..12, 10)].concat());
        assert_eq!(damage[0].offsets, Some(5..10));
    }
}

// RED: src/format/footer.rs
//   - if stored != computed {
//   + if stored == !computed {
#[test]
fn row_b05_lost_and_damaged_footers_cost_a_scan() {
    let (disk, rig) = Rig::fresh(1);
    let point = closed(&rig);
    let end = point.end_offset;
    for clean in [false, true] {
        let flips = (1..120).map(|from_end| ("flip", from_end));
        for (damage, from_end) in [("cut", 3), ("zero", 16)].into_iter().chain(flips) {
            let image = disk.kill9();
            let sealed = files(&image).len() - 1;
            for path in files(&image).into_iter().take(sealed) {
                let length = image.read(&path).unwrap().len() as u64;
                match damage {
                    "cut" => image.truncate(&path, length - from_end).unwrap(),
                    "flip" => image.corrupt(&path, length - from_end, 0x10).unwrap(),
                    _ => (length - from_end..length).for_each(|at| {
                        let byte = image.read(&path).unwrap()[at as usize];
                        image.corrupt(&path, at, byte).unwrap();
                    }),
                }
            }
            let rig = Rig::simulated(&image, 2);
            let (mut log, report) = rig.open(&known(Some(point.clone()), clean)).unwrap();
            assert!(is_clean(&report), "{damage}: {report:?}");
            assert_eq!(read_from(&log, 0, 5).unwrap(), plain(0..end, 500), "{damage}");
            sync(&mut log).unwrap();
            finish_segments(&mut log).unwrap();
            let footers = log.segments().all();
            let lacking = footers.iter().filter(|s| s.read_footer().unwrap().is_none()).count();
            assert_eq!(lacking, 1, "{damage}: all but the active one have one again");
        }
    }
}

/// What a truncation will leave: a footer from before it, and a segment that begins below its end.
// RED: src/log/inventory.rs
//   - found.footer = None;
#[test]
fn row_b05_a_footer_that_says_more_than_is_still_true_is_not_believed() {
    let (disk, rig) = Rig::fresh(1);
    let mut log = rig.create();
    append(&mut log, 5, 100);
    append(&mut log, 5, 100);
    log.roll_for(0).unwrap();
    sync(&mut log).unwrap();
    finish_segments(&mut log).unwrap();
    let cut = Rewrite::Truncates(5);
    log.factory_mut().begin_generation();
    let made = log.factory_mut().new_segment(0, Some(cut)).unwrap().create(&rig.env).unwrap();
    log.ends = Ends::found(0, 5, 5);
    log.appender.add_prepared(made);
    log.roll_for(0).unwrap();
    append(&mut log, 3, 200);
    sync(&mut log).unwrap();
    drop(log);
    let (log, report) = Rig::simulated(&disk, 2).open(&AFTER_CUT).unwrap();
    assert!(report.corrupt.is_empty(), "{report:?}");
    assert_eq!(files(&disk).len(), 2, "what begins at the cut or above is removed");
    assert_eq!(read_from(&log, 0, 9).unwrap(), [plain(0..5, 100), plain(5..8, 200)].concat());
}

// RED: src/log/leftovers.rs
//   - for path in temporary {
//   + for path in temporary.iter().take(0) {
#[test]
fn row_a08_unused_and_unfinished_segments_are_removed_at_open() {
    let (disk, rig) = Rig::fresh(1);
    let mut log = rig.create();
    append(&mut log, 1, 10_000);
    make_space(&mut log).unwrap();
    sync(&mut log).unwrap();
    let point = log.checkpoint();
    drop(log);
    disk.create(Path::new("/t/00000000000000000009.log.tmp")).unwrap();
    assert_eq!(disk.paths().len(), 3);
    for known in [AFTER_KILL, AFTER_CUT, known(point, true)] {
        let image = disk.kill9();
        let (mut log, report) = Rig::simulated(&image, 2).open(&known).unwrap();
        assert!(is_clean(&report));
        assert_eq!(image.paths(), [Path::new("/t/00000000000000000000.log")]);
        append(&mut log, 1, 10_000);
        assert_eq!(read_from(&log, 0, 1).unwrap(), plain(0..2, 10_000));
    }
}

#[test]
fn a_read_only_open_changes_no_file() {
    let (disk, rig) = Rig::fresh(1);
    let point = closed(&rig);
    disk.create(Path::new("/t/00000000000000000099.log.tmp")).unwrap();
    for clean in [false, true] {
        let image = disk.kill9();
        let read_only = Known { read_only: true, ..known(Some(point.clone()), clean) };
        let (log, report) = Rig::simulated(&image, 2).open(&read_only).unwrap();
        assert!(is_clean(&report));
        assert_eq!(read_from(&log, 0, 5).unwrap(), plain(0..point.end_offset, 500));
        assert_eq!(image.store_points(), 0);
    }
}

/// A19, A20: the log start is durable before files go; what a crash left is removed later.
// RED: src/log/recovery.rs
//   - finish_retention(segments, start.unwrap_or(0), &mut decision);
#[test]
fn row_a19_segments_below_the_log_start_are_removed_at_open() {
    let (disk, rig) = Rig::fresh(1);
    let mut point = closed(&rig);
    let (log, _) = rig.open(&known(Some(point.clone()), true)).unwrap();
    let start = log.segments().all()[2].base_offset + 1;
    drop(log);
    point.log_start = start;
    for removed_already in [0, 1] {
        let image = disk.kill9();
        // Hostile order: a later one may be gone before an earlier one.
        if removed_already == 1 {
            image.remove_file(&files(&image)[1]).unwrap();
        }
        let (log, report) =
            Rig::simulated(&image, 2).open(&known(Some(point.clone()), false)).unwrap();
        assert!(is_clean(&report), "{report:?}");
        assert_eq!(log.log_start(), start);
        assert_eq!(files(&image).len(), 2);
        let end = log.log_end();
        assert_eq!(read_from(&log, start, 5).unwrap(), plain(start..end, 500));
    }
}

fn request(epoch: u32, sequence: Sequence) -> ProducerRequest {
    ProducerRequest { id: 42, epoch, sequence }
}

#[test]
fn producers_are_remembered_across_rolls_and_by_every_kind_of_evidence() {
    let (disk, rig) = Rig::fresh(1);
    let mut log = rig.create();
    let first = request(2, Sequence::At(1));
    append_values(&mut log, &[vec![1], vec![2]], Some(&first)).unwrap();
    let check = |log: &mut Log, context: &str| {
        let state = *log.producer(42).unwrap_or_else(|| panic!("{context}: forgotten"));
        assert_eq!((state.epoch, state.last_sequence, state.last_offset), (2, 2, 1), "{context}");
        let again = append_values(log, &[vec![1]], Some(&request(2, Sequence::At(2)))).unwrap();
        let duplicate = Outcome::Duplicate { last_sequence: 2, last_offset: 1 };
        assert_eq!(again, duplicate, "{context}");
        let fenced = append_values(log, &[vec![1]], Some(&request(1, Sequence::Absent))).unwrap();
        assert_eq!(fenced, Outcome::Fenced { current: 2 }, "{context}");
    };
    check(&mut log, "appended");
    sync(&mut log).unwrap();
    let (point, in_batch) = (log.checkpoint(), disk.kill9());
    fill_segments(&mut log, 3, 3_000);
    check(&mut log, "rolled");
    sync(&mut log).unwrap();
    let in_opening = disk.kill9();
    finish_segments(&mut log).unwrap();
    log.roll_for(0).unwrap();
    sync(&mut log).unwrap();
    finish_segments(&mut log).unwrap();
    let in_footers = disk.kill9();
    // The batch was removed, and the last segment as well: only footers remain.
    in_footers.remove_file(&files(&in_footers)[0]).unwrap();
    in_footers.remove_file(files(&in_footers).last().unwrap()).unwrap();
    let open = |image: &SimulatedDisk, known: &Known, context: &str| {
        let (mut log, _) = Rig::simulated(&image.kill9(), 2).open(known).unwrap();
        check(&mut log, context);
    };
    open(&in_batch, &AFTER_KILL, "batch");
    open(&in_batch, &known(point.clone(), true), "checkpoint, clean");
    open(&in_batch, &known(point, false), "checkpoint");
    open(&in_opening, &AFTER_KILL, "opening");
    open(&in_footers, &AFTER_KILL, "footer");
}

#[test]
fn producers_of_batches_that_were_cut_are_forgotten_with_them() {
    let (disk, rig) = Rig::fresh(1);
    let mut log = rig.create();
    let at = |number| request(0, Sequence::At(number));
    append_values(&mut log, &[vec![1; 5_000]], Some(&at(1))).unwrap();
    append_values(&mut log, &[vec![2; 5_000]], Some(&at(2))).unwrap();
    append_values(&mut log, &[vec![3; 900]], Some(&at(3))).unwrap();
    sync(&mut log).unwrap_or_default();
    drop(log);
    // The second batch is damaged, the third is whole and after the cut.
    disk.corrupt(&files(&disk)[0], 128 + 60 + 5_100 + 1_000, 1).unwrap();
    let (log, report) = rig.open(&AFTER_CUT).unwrap();
    assert_eq!((log.log_end(), report.corrupt.len()), (1, 0), "{report:?}");
    assert_eq!(log.producer(42).map(|state| state.last_sequence), Some(1));
}

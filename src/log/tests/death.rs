//! The death of the process at every step of an append, a roll and a sync: what is in the page
//! cache stays there, and the next run finds it.

use super::*;
use crate::format::Footer;
use crate::storage::disk::{Metadata, Pages};

/// A log of three small records on a fresh disk, and where the next batch goes.
fn three_records() -> (SimulatedDisk, Rig, Log, u64) {
    let (disk, rig) = Rig::fresh(1);
    let mut log = rig.create();
    append(&mut log, 3, 20);
    let end = log.appender().active().unwrap().position() as u64;
    (disk, rig, log, end)
}

/// Opens what a killed process left, checks that `expected` is there, and appends to it.
fn check_and_continue(image: &SimulatedDisk, expected: &Records, context: &str) {
    let rig = Rig::simulated(image, 9);
    let (mut log, report) = rig.open(&AFTER_KILL).unwrap_or_else(|e| panic!("{context}: {e:?}"));
    assert_eq!(report.corrupt, [], "{context}");
    let read = |log: &Log| if log.log_end() == 0 { vec![] } else { read_from(log, 0, 9).unwrap() };
    assert_eq!(read(&log), *expected, "{context}");
    append(&mut log, 2, 77);
    sync(&mut log).unwrap();
    let end = expected.len() as u64;
    let more = [expected.clone(), plain(end..end + 2, 77)].concat();
    drop(log);
    for known in [AFTER_KILL, AFTER_CUT] {
        let (log, report) = Rig::simulated(&image.kill9(), 10).open(&known).unwrap();
        assert_eq!(report.corrupt, [], "{context}");
        assert_eq!(read(&log), more, "{context}, again");
    }
}

/// Space is made ahead of the writer, and the next segment with it, while nothing is appended.
// RED: src/log/leftovers.rs
//   - for path in temporary {
//   + for path in temporary.iter().take(0) {
#[test]
fn row_a01_a_death_while_space_is_made_changes_nothing() {
    let mut left_behind = 0;
    for point in 0.. {
        let (disk, mut rig) = Rig::fresh(1);
        rig.options.segment_bytes = 256 << 10;
        let mut log = rig.create();
        for _ in 0..3 {
            append(&mut log, 1, 60_000);
        }
        disk.crash_at(disk.store_points() + point);
        let is_whole = make_space(&mut log).is_ok() && make_space(&mut log).is_ok();
        drop(log);
        let image = disk.kill9();
        left_behind += u64::from(image.paths().len() > 1);
        let context = format!("store point {point}");
        // What was cut short takes no space for ever.
        let opened = image.kill9();
        drop(Rig::simulated(&opened, 2).open(&AFTER_KILL).unwrap());
        assert_eq!(opened.paths(), files(&disk)[..1], "{context}");
        check_and_continue(&image, &plain(0..3, 60_000), &context);
        if is_whole {
            break;
        }
    }
    assert!(left_behind > 2);
}

/// The batch's bytes reach the page cache in any order and number; the machine continues without
/// the process.
// RED: src/format/batch/decode.rs
//   - let sound = plain_checksum(bytes, fixed, records, key) == header.checksum
//   + let sound = plain_checksum(bytes, fixed, records, key) != !header.checksum
#[test]
fn row_a02_a03_a04_a_batch_that_was_being_stored_is_there_whole_or_not_at_all() {
    let (disk, _, mut log, start) = three_records();
    let path = files(&disk)[0].clone();
    let before = disk.kill9();
    append(&mut log, 2, 50);
    let end = log.appender().active().unwrap().position() as u64;
    drop(log);
    let batch = disk.read(&path).unwrap()[start as usize..end as usize].to_vec();
    let store = |image: &SimulatedDisk, at: usize, bytes: &[u8]| {
        let file = image.open(&path, crate::storage::disk::Access::ReadWrite).unwrap();
        file.write_at(bytes, start + at as u64).unwrap();
    };
    let check = |image: &SimulatedDisk, context: &str| {
        let stored = image.read(&path).unwrap()[start as usize..end as usize].to_vec();
        let whole = [plain(0..3, 20), plain(3..5, 50)].concat();
        let expected = if stored == batch { whole } else { plain(0..3, 20) };
        check_and_continue(image, &expected, context);
    };
    // From the front: header, payload, and at last all of it (A4).
    for length in 0..=batch.len() {
        let image = before.kill9();
        store(&image, 0, &batch[..length]);
        check(&image, &format!("the first {length} of {}", batch.len()));
    }
    // In any order, by words: a processor may write its caches back as it likes.
    for seed in 0..200 {
        let (mut random, image) = (Random::new(seed), before.kill9());
        for (number, word) in batch.chunks(8).enumerate() {
            if random.below(4) > 0 {
                store(&image, number * 8, word);
            }
        }
        check(&image, &format!("seed {seed}"));
    }
}

/// The sync has returned, and the process dies before it tells anybody.
// RED: src/log/tasks.rs
//   - rule.keep(|| file.sync()).map_err(|source| Error::SyncFailed {
//   + rule.keep(|| Ok(())).map_err(|source| Error::SyncFailed {
#[test]
fn row_a07_what_was_synced_is_there_although_nothing_was_acknowledged() {
    let (disk, _, mut log, _) = three_records();
    log.begin_sync(SyncScope::All).run().unwrap();
    drop(log);
    check_and_continue(&disk.kill9(), &plain(0..3, 20), "killed");
    let image = disk.power_cut(&mut || 0, PowerCut::WORST);
    check_and_continue(&image, &plain(0..3, 20), "and the machine with it");
}

/// The names of the next segment before and after its renaming, synced or not, with any of its
/// bytes that were not synced.
// RED: src/log/create.rs
//   - Rule::HeaderSync.keep(|| file.sync())?;
#[test]
fn row_a09_a_death_while_the_log_rolls_leaves_the_old_set_or_an_empty_new_segment() {
    let all = PowerCut { metadata: Metadata::All, pages: Pages::None, tear: false };
    let mut with_new = 0;
    for point in 0.. {
        let (disk, _, mut log, _) = three_records();
        sync(&mut log).unwrap();
        disk.crash_at(disk.store_points() + point);
        let is_whole = log.roll_for(0).is_ok();
        drop(log);
        let cuts = [PowerCut::WORST, all, PowerCut { metadata: Metadata::Hostile, ..all }];
        let images = cuts.map(|how| disk.power_cut(&mut || point, how));
        for image in images.iter().chain([&disk.kill9()]) {
            with_new += u64::from(files(image).len() == 2);
            check_and_continue(image, &plain(0..3, 20), &format!("store point {point}"));
        }
        if is_whole {
            break;
        }
    }
    assert!(with_new > 3);
}

/// Four segments, three of them without footers, and the process dies; so do the next ones, each
/// after one more footer.
// RED: src/log/inventory.rs
//   - if found.footer.is_none() && found.scan.is_none() {
//   + if found.footer.is_none() && found.scan.is_none() && bound == u64::MAX {
#[test]
fn row_a10_segments_without_footers_are_read_to_their_ends() {
    let (disk, rig) = Rig::fresh(1);
    let mut log = rig.create();
    fill_segments(&mut log, 4, 3_000);
    let end = log.log_end();
    drop(log);
    let mut disk = disk.kill9();
    for footers in 0..=4 {
        let (mut log, report) = Rig::simulated(&disk, 2).open(&AFTER_KILL).unwrap();
        assert_eq!((log.log_end(), report.corrupt), (end, vec![]), "{footers} footers");
        for offset in 0..end {
            assert_eq!(read_from(&log, offset, 1).unwrap(), plain(offset..end, 3_000));
        }
        sync(&mut log).unwrap();
        if let Some(mut task) = log.backlog().begin_footer(None) {
            task.run().unwrap();
            log.backlog_mut().finish_footer(&task);
        }
        drop(log);
        disk = disk.kill9();
    }
}

/// A footer holds the indexes, by offset and by time. It is torn at every length, and what it says
/// beyond its own checksum counts for nothing: the next run reads the segment and makes another.
// RED: src/format/footer.rs
//   - if stored != computed {
//   + if false {
#[test]
fn row_a11_a12_an_index_that_is_half_written_is_made_again() {
    let (disk, rig) = Rig::fresh(1);
    let mut log = rig.create();
    for _ in 0..12 {
        append(&mut log, 1, 1_000);
    }
    log.roll_for(0).unwrap();
    sync(&mut log).unwrap();
    let path = files(&disk)[0].clone();
    let before = disk.read(&path).unwrap().len() as u64;
    finish_segments(&mut log).unwrap();
    let length = disk.read(&path).unwrap().len() as u64;
    let whole = log.segments().first().unwrap().read_footer().unwrap().unwrap();
    drop(log);
    assert!(length > before + 50);
    let flipped = (before..length).map(|at| (at, false));
    for (at, is_cut) in (before..length).map(|at| (at, true)).chain(flipped) {
        let context = format!("footer of {before}..{length} at {at}, cut: {is_cut}");
        let image = disk.kill9();
        if is_cut {
            image.truncate(&path, at).unwrap();
        } else {
            image.corrupt(&path, at, 0x55).unwrap();
        }
        let (mut log, report) = Rig::simulated(&image, 2).open(&AFTER_KILL).unwrap();
        assert_eq!((log.log_end(), report.corrupt), (12, vec![]), "{context}");
        assert_eq!(log.segments().first().unwrap().read_footer().unwrap(), None, "{context}");
        for offset in 0..12 {
            assert_eq!(read_from(&log, offset, 9).unwrap(), plain(offset..12, 1_000), "{context}");
        }
        sync(&mut log).unwrap();
        finish_segments(&mut log).unwrap();
        let again = log.segments().first().unwrap().read_footer().unwrap().unwrap();
        let times = |footer: &Footer| footer.times.map(|times| (times.first, times.max));
        assert_eq!((&again.index, times(&again)), (&whole.index, times(&whole)), "{context}");
    }
}

/// Of the files below the log start any may be gone; of those above it none.
// RED: src/log/recovery.rs
//   - decision.damage.push(Damage { segment, position, offsets: needed..found, kind });
//   + let _ = (segment, position, kind);
#[test]
fn row_a21_files_below_the_log_start_may_be_gone_and_others_may_not() {
    let (disk, rig) = Rig::fresh(1);
    let mut log = rig.create();
    fill_segments(&mut log, 6, 3_000);
    sync(&mut log).unwrap();
    finish_segments(&mut log).unwrap();
    // A batch that knows how much was durable before it.
    append(&mut log, 1, 3_000);
    sync(&mut log).unwrap();
    let bases: Vec<u64> = log.segments().all().iter().map(|it| it.base_offset).collect();
    let (start, end) = (bases[3], log.log_end());
    drop(log);
    let known = Known { log_start: Some(start), ..AFTER_KILL };
    let all = files(&disk);
    // Every set of the three files below the start, and each of those above it alone.
    for gone in (0_u32..8).chain([8, 16]) {
        let image = disk.kill9();
        for (_, path) in all.iter().enumerate().filter(|(index, _)| gone & (1 << index) != 0) {
            image.remove_file(path).unwrap();
        }
        let (log, report) = Rig::simulated(&image, 2).open(&known).unwrap();
        assert_eq!(log.log_end(), end, "{gone:b}");
        let (records, damage) = read_around(&log);
        if gone < 8 {
            assert_eq!((report.corrupt, log.log_start()), (vec![], start), "{gone:b}");
            assert_eq!(records, plain(start..end, 3_000), "{gone:b}");
            assert_eq!(files(&image).len(), 3, "{gone:b}: the rest of them goes");
            continue;
        }
        let lost = gone.trailing_zeros() as usize;
        let lost = bases[lost]..bases[lost + 1];
        assert_eq!(report.corrupt[0].offsets, Some(lost.clone()), "{gone:b}");
        assert_eq!(damage.len(), 1, "{gone:b}: {damage:?}");
        assert_eq!(damage[0].offsets, Some(lost.clone()), "{gone:b}: readers report it");
        let others = [plain(start..lost.start, 3_000), plain(lost.end..end, 3_000)].concat();
        assert_eq!(records, others, "{gone:b}");
    }
}

/// Symptom: each death of a process cost each partition to which it had appended a new segment,
/// some 11 KB that stayed for as long as the records, and a service that died in a loop filled its
/// disk with them. Cause: after an end that was not clean the log never continued in its last
/// segment. Rule: it does where only zeros follow the end.
// RED: src/log/open/tail.rs
//   - (is_all && is_begun && ends_in_zeros && is_last() && is_ours()).then_some(())?;
//   + (is_all && is_begun && ends_in_zeros && is_last() && !is_ours()).then_some(())?;
#[test]
fn row_a28_a_log_continues_in_its_last_segment_whatever_ended_the_run() {
    every_rig(|name, rig| {
        let mut log = rig.create();
        let mut incarnations = vec![log.epochs().incarnation];
        for run in 1..30 {
            append(&mut log, 1, 20);
            if run % 3 == 0 {
                sync(&mut log).unwrap();
            }
            let point = log.checkpoint().filter(|_| run % 2 == 0);
            drop(log);
            // What is in memory alone does not outlive its process.
            let same_boot = run % 4 < 2 && !name.starts_with("memory");
            let how = Known { checkpoint: point, same_boot, ..AFTER_KILL };
            let (opened, report) = rig.open(&how).unwrap();
            log = opened;
            assert_eq!((report.cut_bytes, report.corrupt), (0, vec![]), "{name} {run}");
            assert!(log.appender().active().is_some(), "{name} {run}");
            assert_eq!(segment_count(&log), 1, "{name} {run}");
            assert_eq!(read_from(&log, 0, 9).unwrap(), plain(0..run, 20), "{name} {run}");
            assert!(!incarnations.contains(&log.epochs().incarnation), "{name} {run}");
            incarnations.push(log.epochs().incarnation);
            // Records count as durable only when they are known to be.
            assert_eq!(log.ends().is_dirty(), same_boot && run % 6 != 0, "{name} {run}");
        }
        // It ends as any other: sealed, with a footer, and resumed after a clean close.
        append(&mut log, 1, 20);
        log.roll_for(0).unwrap();
        append(&mut log, 1, 20);
        sync(&mut log).unwrap();
        finish_segments(&mut log).unwrap();
        let first = log.segments().first().unwrap();
        assert_eq!(first.read_footer().unwrap().unwrap().next_offset, 30, "{name}");
        let point = log.checkpoint();
        drop((first, log));
        let (log, _) = rig.open(&known(point, true)).unwrap();
        assert!(log.appender().active().is_some() && segment_count(&log) == 2, "{name}");
        assert_eq!(read_from(&log, 0, 9).unwrap(), plain(0..31, 20), "{name}");
    });
}

/// A tail that no sync has covered is not durable for being resumed, nor for being rolled then.
// RED: src/log/open.rs
//   - active.set_unsynced();
#[test]
fn row_a28_a_tail_that_is_resumed_gets_a_footer_only_after_a_sync() {
    let (disk, rig, log, _) = three_records();
    drop(log);
    let (mut log, _) = rig.open(&AFTER_KILL).unwrap();
    assert!(log.appender().active().is_some());
    log.roll_for(0).unwrap();
    assert!(log.backlog().begin_footer(None).is_none(), "nothing proves it");
    finish_segments(&mut log).unwrap();
    drop(log);
    let cut = disk.power_cut(&mut || 0, PowerCut::WORST);
    let (log, report) = Rig::simulated(&cut, 2).open(&AFTER_CUT).unwrap();
    assert_eq!((log.log_end(), report.corrupt), (0, vec![]));
    let (mut log, _) = rig.open(&AFTER_KILL).unwrap();
    sync(&mut log).unwrap();
    finish_segments(&mut log).unwrap();
    assert!(log.segments().first().unwrap().read_footer().unwrap().is_some());
}

/// What follows the end may be a batch that a later one would lead to: nothing is put before it.
// RED: src/log/open/tail.rs
//   - scan.stretches.len() == 1 && scan.damage.is_empty() && scan.garbage_end == 0;
//   + scan.stretches.len() == 1 && scan.damage.is_empty();
#[test]
fn row_a28_behind_an_end_that_is_followed_by_anything_the_log_continues_in_a_new_segment() {
    let (disk, _, log, end) = three_records();
    drop(log);
    let path = files(&disk)[0].clone();
    let length = disk.read(&path).unwrap().len() as u64;
    for at in [end, end + 1, end + 2, end + 40, end + 5_000, length - 8, length - 1] {
        let image = disk.kill9();
        let file = image.open(&path, crate::storage::disk::Access::ReadWrite).unwrap();
        file.write_at(&[1], at).unwrap();
        let before = image.read(&path).unwrap();
        for (how, known) in [("killed", AFTER_KILL), ("cut", AFTER_CUT)] {
            let image = image.kill9();
            let context = format!("{how}, byte {} behind the end", at - end);
            let (mut log, report) = Rig::simulated(&image, 5).open(&known).unwrap();
            assert_eq!((log.log_end(), report.corrupt), (3, vec![]), "{context}");
            assert!(log.appender().active().is_none(), "{context}");
            append(&mut log, 1, 20);
            sync(&mut log).unwrap();
            assert_eq!(segment_count(&log), 2, "{context}");
            assert_eq!(image.read(&path).unwrap(), before, "{context}");
        }
        check_and_continue(&image, &plain(0..3, 20), "at last");
    }
}

/// A segment ages from its first record on, however many runs append to it: otherwise one to which
/// each appends a little would keep its oldest record for ever.
// RED: src/log/open/tail.rs
//   - began: began.map(|began| Moment::from_stored(began, known.now)),
//   + began: None,
#[test]
fn row_a28_a_segment_of_many_runs_is_as_old_as_its_first_record() {
    for has_point in [false, true] {
        let (disk, rig) = Rig::fresh(1);
        let mut log = rig.create();
        let started = crate::clock::Moment { wall: 900, run: 900 };
        log.set_now(started);
        append(&mut log, 1, 20);
        sync(&mut log).unwrap();
        let point = log.checkpoint().filter(|_| has_point);
        for run in 0..5 {
            drop(log);
            let checkpoint = point.clone();
            let later = Known { checkpoint, now: 2_000_000 + run, ..AFTER_KILL };
            log = Rig::simulated(&disk, run).open(&later).unwrap().0;
            append(&mut log, 1, 20);
            // The first record is stamped 1,000, and was appended at 900.
            let began = Tail::of(&log).unwrap().began;
            assert_eq!(began, Some(if has_point { 900 } else { 1_000 }), "run {run}");
        }
    }
}

/// A file with a second name may be another log's: it is not appended to after a crash either.
// RED: src/log/open/tail.rs
//   - && matches!(found.file.has_other_names(), Ok(false))
#[test]
fn row_a28_a_segment_with_a_second_name_is_not_appended_to() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::real(&dir);
    let mut log = rig.create();
    append(&mut log, 3, 20);
    let path = log.segments().first().unwrap().path.clone();
    drop(log);
    std::fs::hard_link(&path, dir.path().join("a copy")).unwrap();
    let before = std::fs::read(&path).unwrap();
    let (mut log, _) = rig.open(&AFTER_KILL).unwrap();
    append(&mut log, 1, 20);
    assert_eq!(segment_count(&log), 2);
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

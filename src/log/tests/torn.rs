//! Torn tails and rot, byte by byte.

use super::*;

/// Three batches; the last one lies in `span` of the only file. Nothing of it is proved durable
/// unless `proved`, when a fourth batch says so.
fn three_batches(proved: bool) -> (SimulatedDisk, PathBuf, std::ops::Range<u64>) {
    let (disk, rig) = Rig::fresh(1);
    let mut log = rig.create();
    append(&mut log, 3, 20);
    append(&mut log, 1, 33);
    let start = log.active.as_ref().unwrap().position as u64;
    append(&mut log, 2, 50);
    let end = log.active.as_ref().unwrap().position as u64;
    sync(&mut log).unwrap();
    if proved {
        append(&mut log, 1, 10);
        sync(&mut log).unwrap();
    }
    let path = files(&disk)[0].clone();
    (disk, path, start..end)
}

#[derive(Debug, Clone, Copy)]
enum Harm {
    Truncate,
    ZeroFrom,
    Flip(u8),
}

fn harm(disk: &SimulatedDisk, path: &Path, at: u64, end: u64, how: Harm) {
    match how {
        Harm::Truncate => disk.truncate(path, at).unwrap(),
        Harm::ZeroFrom => {
            let bytes = disk.read(path).unwrap();
            for position in at..end {
                disk.corrupt(path, position, bytes[position as usize]).unwrap();
            }
        }
        Harm::Flip(mask) => disk.corrupt(path, at, mask).unwrap(),
    }
}

fn expected_before_the_last() -> Records {
    [plain(0..3, 20), plain(3..4, 33)].concat()
}

/// B2, E3, E5: whatever happens to a byte of the un-proved last batch, exactly the earlier
/// batches are there, and the log goes on behind them.
// RED: src/format/batch/decode.rs
//   - let sound = plain_checksum(records, fixed, salt) == header.checksum
//   + let sound = plain_checksum(records, fixed, salt) | 1 > 0
#[test]
fn row_b02_a_torn_tail_is_cut_at_every_byte() {
    let (disk, path, last) = three_batches(false);
    let length = disk.read(&path).unwrap().len() as u64;
    for at in last.clone() {
        for how in [Harm::Truncate, Harm::ZeroFrom, Harm::Flip(1), Harm::Flip(0x80)] {
            let image = disk.kill9();
            let end = if at % 2 == 0 { length } else { last.end };
            harm(&image, &path, at, end, how);
            let unchanged = image.read(&path).unwrap() == disk.read(&path).unwrap();
            let rig = Rig::simulated(&image, 9);
            let (mut log, report) = rig.open(&AFTER_CUT).unwrap();
            let context = format!("{how:?} at {at} of {last:?}");
            if unchanged {
                assert_eq!(log.log_end(), 6, "{context}");
                continue; // the padding's zeros were zeroed
            }
            let zeroed_padding = log.log_end() == 6 && matches!(how, Harm::Truncate);
            assert!(!zeroed_padding, "{context}");
            assert_eq!((log.log_end(), report.corrupt.len()), (4, 0), "{context}: {report:?}");
            assert_eq!(log.durable_end(), 4, "{context}");
            assert_eq!(read_from(&log, 0, 9).unwrap(), expected_before_the_last(), "{context}");
            append(&mut log, 2, 77);
            sync(&mut log).unwrap();
            let both = [expected_before_the_last(), plain(4..6, 77)].concat();
            assert_eq!(read_from(&log, 0, 9).unwrap(), both, "{context}");
            drop(log);
            let (log, report) = rig.open(&AFTER_KILL).unwrap();
            assert_eq!(report.corrupt, [], "{context}");
            assert_eq!(read_from(&log, 0, 9).unwrap(), both, "{context}");
        }
    }
}

/// E2, E4: the same harm below what is proved durable is reported, not cut, and read around.
#[test]
fn row_e02_damage_below_the_proof_is_reported_and_read_around() {
    let (disk, path, last) = three_batches(true);
    for at in last.clone() {
        for how in [Harm::ZeroFrom, Harm::Flip(1), Harm::Flip(0x80)] {
            let image = disk.kill9();
            harm(&image, &path, at, last.end, how);
            if image.read(&path).unwrap() == disk.read(&path).unwrap() {
                continue;
            }
            let rig = Rig::simulated(&image, 9);
            let before = image.read(&path).unwrap();
            let (mut log, report) = rig.open(&AFTER_CUT).unwrap();
            let context = format!("{how:?} at {at} of {last:?}");
            assert_eq!((log.log_end(), report.cut_bytes), (7, 0), "{context}");
            assert_eq!(report.corrupt.len(), 1, "{context}");
            let damaged = &report.corrupt[0];
            assert_eq!(
                (damaged.offsets.clone(), damaged.position),
                (Some(4..6), last.start),
                "{context}"
            );
            assert_eq!(damaged.file, path);
            assert_eq!(image.read(&path).unwrap(), before, "{context}");
            append(&mut log, 1, 5);
            let (records, damage) = read_around(&log);
            let whole = [expected_before_the_last(), plain(6..7, 10), plain(7..8, 5)].concat();
            assert_eq!(records, whole, "{context}");
            assert_eq!(damage.len(), 1, "{context}");
            assert_eq!(damage[0].offsets, Some(4..6), "{context}");
            // What is not visible is not damage yet.
            let visible = FetchLimits { visible_end: 4, ..limits(&log, 9, 999) };
            let mut cursor = cursor_at(&log, 4).unwrap();
            assert_eq!(fetch(&log, &mut cursor, &visible).unwrap(), [], "{context}");
            // Seeking behind the damage works too, and so does seeking before it.
            for offset in [6, 7] {
                let some = read_from(&log, offset, 9).unwrap();
                assert_eq!(some.len() as u64, 8 - offset, "{context}");
            }
            assert!(matches!(read_from(&log, 5, 9), Err(Error::Corrupt(_))), "{context}");
        }
    }
}

/// E1: every byte of every file, one bit: what is read is what was written, or an error, or a
/// bounded and reported loss; never other bytes.
#[test]
fn row_e01_a_flipped_bit_anywhere_never_changes_what_is_read() {
    let (disk, mut rig) = Rig::fresh(1);
    rig.options.segment_bytes = 16 << 10;
    let mut log = rig.create();
    for _ in 0..4 {
        append(&mut log, 2, 30);
        sync(&mut log).unwrap();
        append(&mut log, 1, 30);
        sync(&mut log).unwrap();
        log.roll_for(0).unwrap();
    }
    append(&mut log, 2, 30);
    sync(&mut log).unwrap();
    append(&mut log, 1, 30);
    sync(&mut log).unwrap();
    for _ in 0..2 {
        let mut task = log.begin_footer().unwrap();
        task.run().unwrap();
        log.finish_footer(&task);
    }
    let end = log.log_end();
    drop(log);
    let expected = plain(0..end, 30);
    for path in files(&disk) {
        let bytes = disk.read(&path).unwrap();
        for at in (0..bytes.len()).filter(|at| bytes[*at] != 0 || at % 509 == 0) {
            let image = disk.kill9();
            image.corrupt(&path, at as u64, 1 << (at % 8)).unwrap();
            let opened = Rig::simulated(&image, 9).open(&AFTER_CUT);
            let Ok((log, report)) = opened else {
                assert!(matches!(opened, Err(Error::Corrupt(_))), "{path:?} {at}: {opened:?}");
                continue;
            };
            let (records, _) = read_around(&log);
            let lost = end - records.len() as u64;
            let all = records.iter().all(|record| expected.contains(record));
            assert!(all && lost <= 2, "{path:?} {at}: {lost} lost, {report:?}");
            assert_eq!(
                files(&image).len(),
                files(&disk).len(),
                "{path:?} {at}: nothing is deleted"
            );
        }
    }
}

/// B3: what lies behind the cut is in no index and no footer, and readers find their way.
// RED: src/log/tasks.rs
//   - let end = u64::from(self.sealed.data_end);
//   + let end = u64::MAX;
#[test]
fn row_b03_the_footer_of_a_cut_segment_knows_nothing_of_what_was_cut() {
    let (disk, mut rig) = Rig::fresh(1);
    rig.options.segment_bytes = 256 << 10;
    let mut log = rig.create();
    append(&mut log, 2, 20_000);
    let start = log.active.as_ref().unwrap().position as u64;
    append(&mut log, 1, 40_000);
    append(&mut log, 2, 20_000);
    sync(&mut log).unwrap();
    drop(log);
    disk.corrupt(&files(&disk)[0], start + 100, 1).unwrap();
    let (mut log, report) = rig.open(&AFTER_CUT).unwrap();
    assert_eq!((log.log_end(), report.corrupt), (2, vec![]));
    let segment = log.segments().first().unwrap();
    assert!(log.index_of(&segment).unwrap().rows().len() <= 1);
    append(&mut log, 3, 20_000);
    finish_segments(&mut log).unwrap();
    let footer = segment.read_footer().unwrap().expect("a footer that is valid");
    assert_eq!((footer.next_offset, footer.data_end), (2, start as u32));
    assert_eq!(read_from(&log, 0, 1).unwrap(), plain(0..5, 20_000));
    drop(log);
    let (log, report) = rig.open(&AFTER_CUT).unwrap();
    assert_eq!((log.log_end(), report.corrupt, report.cut_bytes), (5, vec![], 0));
}

/// The only file has lost its opening and its first batch, and nothing proves the rest: it stands
/// for an empty log, and what is appended goes on in another file and stays there.
#[test]
fn a_log_whose_beginning_is_torn_starts_again_beside_it() {
    let (disk, rig) = Rig::fresh(1);
    let mut log = rig.create();
    append(&mut log, 1, 100);
    append(&mut log, 1, 100);
    sync(&mut log).unwrap();
    drop(log);
    disk.corrupt(&files(&disk)[0], 140, 1).unwrap();
    disk.corrupt(&files(&disk)[0], 250, 1).unwrap();
    let (mut log, report) = rig.open(&AFTER_CUT).unwrap();
    assert_eq!((log.log_end(), report.corrupt), (0, vec![]));
    append(&mut log, 3, 100);
    let bases: Vec<u64> = log.segments().all().iter().map(|s| s.base_offset).collect();
    assert_eq!(bases, [0, 0]);
    assert_eq!(read_from(&log, 0, 2).unwrap(), plain(0..3, 100));
    sync(&mut log).unwrap();
    drop(log);
    for _ in 0..2 {
        let (log, report) = rig.open(&AFTER_CUT).unwrap();
        assert_eq!((log.log_end(), report.corrupt), (3, vec![]));
        assert_eq!(read_from(&log, 0, 2).unwrap(), plain(0..3, 100));
    }
}

/// E7: a segment that is missing in the middle.
#[test]
fn row_e07_a_missing_segment_is_an_error_for_readers_and_not_a_gap() {
    let (disk, rig) = Rig::fresh(1);
    let mut log = rig.create();
    while segment_count(&log) < 4 {
        append(&mut log, 1, 3_000);
        sync(&mut log).unwrap();
    }
    let segments = log.segments().all();
    let (first, last) = (segments[1].base_offset, segments[2].base_offset);
    let end = log.log_end();
    drop(log);
    disk.remove_file(&segments[1].path).unwrap();
    for known in [AFTER_CUT, AFTER_KILL] {
        let image = disk.kill9();
        let (log, report) = Rig::simulated(&image, 9).open(&known).unwrap();
        assert_eq!(report.corrupt.len(), 1, "{report:?}");
        assert_eq!(report.corrupt[0].offsets, Some(first..last));
        assert_eq!(report.corrupt[0].kind, CorruptionKind::Missing);
        assert_eq!(log.log_end(), end);
        let (records, damage) = read_around(&log);
        assert_eq!(records, [plain(0..first, 3_000), plain(last..end, 3_000)].concat());
        assert_eq!(damage[0].offsets, Some(first..last));
        assert_eq!(read_from(&log, last, 9).unwrap(), plain(last..end, 3_000));
        assert_eq!(files(&image).len(), 3);
    }
}

/// Copied chunks report the same damage as the map, even when it spans chunks.
#[test]
fn damage_is_the_same_for_copying_readers() {
    for copy_reads in [false, true] {
        let (disk, mut rig) = Rig::fresh(1);
        rig.env().copy_reads = copy_reads;
        rig.options.segment_bytes = 2 << 20;
        let mut log = rig.create();
        append(&mut log, 1, 100);
        let start = log.active.as_ref().unwrap().position as u64;
        append(&mut log, 4, 150_000);
        append(&mut log, 1, 100);
        sync(&mut log).unwrap();
        append(&mut log, 1, 100);
        sync(&mut log).unwrap();
        drop(log);
        disk.corrupt(&files(&disk)[0], start + 1_000, 4).unwrap();
        let (log, report) = rig.open(&AFTER_CUT).unwrap();
        assert_eq!(report.corrupt[0].offsets, Some(1..5), "{copy_reads}");
        let (records, damage) = read_around(&log);
        let whole = [plain(0..1, 100), plain(5..7, 100)].concat();
        assert_eq!(records, whole, "{copy_reads}");
        assert_eq!(damage[0].offsets, Some(1..5), "{copy_reads}");
        assert_eq!((damage.len(), damage[0].position), (1, start), "{copy_reads}");
    }
}

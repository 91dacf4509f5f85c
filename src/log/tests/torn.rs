//! Torn tails and rot, byte by byte.

use super::*;
use crate::format::SegmentHeader;
use crate::log::verify::{Findings, verify_names, verify_segments};

/// Three batches; the last one lies in `span` of the only file. Nothing of it is proved durable
/// unless `proved`, when a fourth batch says so.
fn three_batches(proved: bool) -> (SimulatedDisk, PathBuf, std::ops::Range<u64>) {
    let (disk, rig) = Rig::fresh(1);
    let mut log = rig.create();
    append(&mut log, 3, 20);
    append(&mut log, 1, 33);
    let start = log.appender().active().unwrap().position() as u64;
    append(&mut log, 2, 50);
    let end = log.appender().active().unwrap().position() as u64;
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
/// batches are there, and the log continues after them.
// RED: src/format/batch/decode.rs
//   - let sound = plain_checksum(bytes, fixed, records, key) == header.checksum
//   + let sound = plain_checksum(bytes, fixed, records, key) | 1 > 0
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

/// E3: each bit of a tail that nothing proves to have been synced. It is cut, to the byte that was
/// used, and the report says so.
// RED: src/log/recovery.rs
//   - decision.cut_bytes += facts.garbage_end.saturating_sub(listed);
#[test]
fn row_e03_rot_in_an_unproved_tail_is_cut_and_counted() {
    let (disk, path, last) = three_batches(false);
    for bit in last.start * 8..last.end * 8 {
        let image = disk.kill9();
        image.corrupt(&path, bit / 8, 1 << (bit % 8)).unwrap();
        let bytes = image.read(&path).unwrap();
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1;
        let cut = used.next_multiple_of(4) - last.start;
        for known in [AFTER_CUT, AFTER_KILL] {
            let (log, report) = Rig::simulated(&image, 9).open(&known).unwrap();
            let found = (log.log_end(), report.end_offset, report.cut_bytes);
            assert_eq!(found, (4, 4, cut), "bit {bit} of {last:?}");
            assert_eq!(report.corrupt, [], "bit {bit} of {last:?}");
            assert_eq!(read_from(&log, 0, 9).unwrap(), expected_before_the_last());
        }
    }
}

/// E4: random appends and syncs, each batch damaged in turn. What a later batch says was durable
/// when it was appended, and nothing else, tells rot from a torn tail.
// RED: src/log/scan.rs
//   - self.durable_mark = self.durable_mark.max(header.durable_mark().unwrap_or(0));
#[test]
fn row_e04_a_later_batch_tells_rot_from_a_torn_tail() {
    let mut counts = [0, 0];
    for seed in 0..30 * effort() {
        let mut random = Random::new(seed);
        let (disk, rig) = Rig::fresh(seed + 1);
        let mut log = rig.create();
        // Where each batch begins, in the file and in the log, and what was durable by then.
        let mut batches = Vec::new();
        for _ in 0..8 {
            if random.below(3) == 0 {
                sync(&mut log).unwrap();
            }
            let start = log.appender().active().unwrap().position() as u64;
            batches.push((start, log.log_end(), log.durable_end()));
            append(&mut log, 1 + random.below(3), 20);
        }
        let end = log.log_end();
        sync(&mut log).unwrap(); // and nothing is appended that could say so
        drop(log);
        for (at, (start, base, _)) in batches.iter().enumerate() {
            let later = &batches[at + 1..];
            let next = later.first().map_or(end, |(_, next, _)| *next);
            let is_proved = later.iter().any(|(.., durable)| durable > base);
            let image = disk.kill9();
            image.corrupt(&files(&disk)[0], start + 50, 1).unwrap();
            let (log, report) = Rig::simulated(&image, 9).open(&AFTER_CUT).unwrap();
            let context = format!("seed {seed}, batch {at} of {batches:?}: {report:?}");
            counts[usize::from(is_proved)] += 1;
            if is_proved {
                assert_eq!((log.log_end(), report.cut_bytes), (end, 0), "{context}");
                assert_eq!(report.corrupt.len(), 1, "{context}");
                assert_eq!(report.corrupt[0].offsets, Some(*base..next), "{context}");
            } else {
                assert_eq!((log.log_end(), report.corrupt), (*base, vec![]), "{context}");
                assert!(report.cut_bytes > 0, "{context}");
            }
        }
    }
    assert!(counts.iter().all(|count| *count > 50), "{counts:?}");
}

/// Symptom: a reader that began at an offset was at the end of the log at once, and stayed there,
/// or began with the next segment: what lay between was passed over in silence. Cause: batches
/// before an offset are passed over by their headers, and one whose size or base offset was
/// damaged led just to the end of the segment, where it was believed. Rule: headers that were not
/// checked lead to the end only of a segment that says itself which offset comes next.
// RED: src/log/cursor.rs
//   - let is_whole = reached.is_some() && reached == self.segment.next_offset();
//   + let is_whole = reached.is_none_or(|reached| reached >= offset);
#[test]
fn row_e01_a_damaged_header_leads_no_reader_past_records() {
    let mut damaged = 0;
    for (size, seals) in (1..160).step_by(4).flat_map(|size| [(size, false), (size, true)]) {
        let (disk, rig) = Rig::fresh(1);
        let mut log = rig.create();
        append(&mut log, 1, 5);
        log.roll_for(0).unwrap();
        let start = log.appender().active().unwrap().position() as u64;
        append(&mut log, 2, 20);
        if seals {
            log.roll_for(0).unwrap();
        }
        append(&mut log, 1, size);
        sync(&mut log).unwrap();
        finish_segments(&mut log).unwrap();
        let known = known(log.checkpoint(), true);
        drop(log);
        for bit in (0..10).chain(128..132) {
            let image = disk.kill9();
            image.corrupt(&files(&disk)[1], start + bit / 8, 1 << (bit % 8)).unwrap();
            let (mut log, _) = Rig::simulated(&image, 2).open(&known).unwrap();
            append(&mut log, 1, 5);
            for offset in 0..log.log_end() {
                let context = format!("size {size}, sealed {seals}, bit {bit}, at {offset}");
                let limits = limits(&log, 1, 999);
                match cursor_at(&log, offset).and_then(|mut it| fetch(&log, &mut it, &limits)) {
                    Ok(read) => assert_eq!(read.first().map(|it| it.0), Some(offset), "{context}"),
                    Err(Error::Corrupt(damage)) => {
                        damaged += 1;
                        assert!(damage.offsets.unwrap().contains(&offset), "{context}");
                    }
                    Err(other) => panic!("{context}: {other:?}"),
                }
            }
        }
    }
    assert!(damaged > 500, "{damaged}");
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
            // Seeking after the damage works too, and so does seeking before it.
            for offset in [6, 7] {
                let some = read_from(&log, offset, 9).unwrap();
                assert_eq!(some.len() as u64, 8 - offset, "{context}");
            }
            assert!(matches!(read_from(&log, 5, 9), Err(Error::Corrupt(_))), "{context}");
        }
    }
}

/// Five segments, of which the first two have footers, synced throughout.
fn five_segments() -> (SimulatedDisk, u64) {
    let (disk, mut rig) = Rig::fresh(1);
    rig.options.segment_bytes = 16 << 10;
    let mut log = rig.create();
    for segment in 0..5 {
        append(&mut log, 2, 30);
        sync(&mut log).unwrap();
        append(&mut log, 1, 30);
        sync(&mut log).unwrap();
        if segment < 4 {
            log.roll_for(0).unwrap();
        }
    }
    for _ in 0..2 {
        let mut task = log.backlog().begin_footer(None).unwrap();
        task.run().unwrap();
        log.backlog_mut().finish_footer(&task);
    }
    (disk, log.log_end())
}

/// Which bits to flip: all of them with `LOGPOND_EVERY_BIT`, otherwise some; which ones depends on
/// the length, or on chance with `LOGPOND_SEED=fresh`.
fn bits(length: usize) -> impl Iterator<Item = u64> {
    let step = if std::env::var_os("LOGPOND_EVERY_BIT").is_some() { 1 } else { 37 };
    let is_fresh = std::env::var("LOGPOND_SEED").is_ok_and(|seed| seed == "fresh");
    let random = || std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), length);
    let start = if is_fresh { random() } else { length as u64 } % step;
    eprintln!("every {step}. bit from {start} on, of {length} bytes");
    (start..length as u64 * 8).step_by(step as usize)
}

/// E1: every bit of every file: what is read is what was written, or an error, or a bounded and
/// reported loss at that position; never other bytes. No file is changed or removed because of it,
/// and a verification finds every flip that loses anything.
// RED: src/log/inventory.rs
//   - return Ok(Err(LostFile { path, facts }));
//   + return Err(self.corruption(path, facts.bytes, facts.kind).into());
#[test]
fn row_e01_a_flipped_bit_anywhere_never_changes_what_is_read() {
    let (disk, end) = five_segments();
    let expected = plain(0..end, 30);
    let mut flips = 0;
    for path in files(&disk) {
        let bytes = disk.read(&path).unwrap();
        // Behind what is in use there are zeros that nobody reads, a page at a time.
        let is_read =
            |bit: &u64| bytes[(bit / 8) as usize] != 0 || bit.is_multiple_of(8) || bit / 8 < 512;
        for bit in bits(bytes.len()).filter(is_read) {
            flips += 1;
            let image = disk.kill9();
            image.corrupt(&path, bit / 8, 1 << (bit % 8)).unwrap();
            let before = contents(&image);
            let context = format!("{path:?} bit {bit}");
            let opened = Rig::simulated(&image, 9).open(&AFTER_CUT);
            let (log, report) = opened.unwrap_or_else(|error| panic!("{context}: {error}"));
            let (records, damage) = read_around(&log);
            let lost = end - records.len() as u64;
            let of_header = bit / 8 < SegmentHeader::SIZE as u64;
            let all = records.iter().all(|record| expected.contains(record));
            assert!(all && lost <= if of_header { 3 } else { 2 }, "{context}: {lost} lost");
            let is_newest = path == *files(&disk).last().unwrap();
            let is_reported = !report.corrupt.is_empty() || !damage.is_empty();
            assert!(lost == 0 || is_newest || is_reported, "{context}: {report:?}");
            let findings = verify(&log);
            let torn = is_newest && report.cut_bytes > 0;
            assert!(lost == 0 || torn || !findings.is_empty(), "{context}: {report:?}");
            assert!(before == contents(&image), "{context}: a file is not what it was");
        }
    }
    eprintln!("{flips} bits");
}

/// E1: a segment whose header is lost, at each rank, in the run after it too: the other segments
/// are readable around it, the log continues after it, and gives no offset twice.
// RED: src/log/inventory.rs
//   - return Ok(Err(LostFile { path, facts }));
//   + return Err(self.corruption(path, facts.bytes, facts.kind).into());
#[test]
fn row_e01_e02_a_segment_without_its_header_is_reported_and_the_log_continues_around_it() {
    let (disk, end) = five_segments();
    for (at, path) in files(&disk).iter().enumerate() {
        let lost = at as u64 * 3..at as u64 * 3 + 3;
        let image = disk.kill9();
        image.corrupt(path, 60, 1).unwrap();
        let damaged = image.read(path).unwrap();
        let rig = Rig::simulated(&image, 9);
        for run in 0..3 {
            let (mut log, report) =
                rig.open(if run == 0 { &AFTER_CUT } else { &AFTER_KILL }).unwrap();
            let context = format!("segment {at}, run {run}");
            assert_eq!((log.log_end(), report.cut_bytes), (end + run, 0), "{context}: {report:?}");
            let [corrupt] = &report.corrupt[..] else { panic!("{context}: {report:?}") };
            assert_eq!((&corrupt.file, &corrupt.offsets), (path, &Some(lost.clone())), "{context}");
            assert!(matches!(corrupt.kind, CorruptionKind::Checksum { .. }), "{context}");
            append(&mut log, 1, 30);
            let (records, _) = read_around(&log);
            let whole = [plain(0..lost.start, 30), plain(lost.end..end + run + 1, 30)].concat();
            assert_eq!(records, whole, "{context}");
            assert!(verify(&log).iter().any(|found| found.file == *path), "{context}");
            assert!(image.read(path).unwrap() == damaged, "{context}");
        }
    }
}

/// The only segment: the log continues after what it held, to which nobody but itself can testify.
#[test]
fn row_e01_a_log_that_has_lost_its_only_segment_continues_after_it() {
    let (disk, rig) = Rig::fresh(1);
    let mut log = rig.create();
    append(&mut log, 3, 30);
    append(&mut log, 2, 30);
    sync(&mut log).unwrap();
    drop(log);
    let path = files(&disk)[0].clone();
    for (how, end) in [(None, 5), (Some(Harm::Flip(1)), 5 + 1_000), (Some(Harm::Truncate), 0)] {
        let image = disk.kill9();
        image.corrupt(&path, 3, 1).unwrap();
        match how {
            // The chain of its batches is broken too: no more records than bytes.
            Some(flip @ Harm::Flip(_)) => harm(&image, &path, 128, 0, flip),
            Some(cut) => harm(&image, &path, 100, 0, cut),
            None => {}
        }
        let damaged = image.read(&path).unwrap();
        let rig = Rig::simulated(&image, 9);
        let refusals = [
            Known { read_only: true, ..AFTER_CUT },
            Known { needs_all: true, ..AFTER_CUT },
            Known { policy: RecoveryPolicy::Strict, ..AFTER_CUT },
        ];
        let before = contents(&image);
        for known in refusals {
            let refused = rig.open(&known);
            assert!(matches!(refused, Err(Error::Corrupt(_))), "{how:?}: {refused:?}");
        }
        assert!(before == contents(&image));
        let (mut log, report) = rig.open(&AFTER_CUT).unwrap();
        let next = log.log_end();
        assert!(next == end || (end > 1_000 && (5..end).contains(&next)), "{how:?}: {next}");
        assert_eq!(report.corrupt[0].offsets, Some(0..next), "{how:?}");
        append(&mut log, 1, 30);
        drop(log);
        let (log, report) = rig.open(&AFTER_KILL).unwrap();
        assert_eq!((log.log_end(), report.corrupt.len()), (next + 1, 1), "{how:?}: {report:?}");
        assert_eq!(read_around(&log).0, plain(next..next + 1, 30), "{how:?}");
        assert!(image.read(&path).unwrap() == damaged);
    }
}

/// E5: every file at every length: synced data below what a later segment proves is reported
/// when it is missing, and only the last segment can be torn.
// RED: src/log/recovery.rs
//   - leave_the_empty(segments, &live, &mut decision);
#[test]
fn row_e05_a_file_of_any_length_is_a_reported_loss_or_a_torn_end() {
    let (disk, end) = five_segments();
    let all = files(&disk);
    let expected = plain(0..end, 30);
    for (at, path) in all.iter().enumerate() {
        let bytes = disk.read(path).unwrap();
        let used = 1 + bytes.iter().rposition(|byte| *byte != 0).unwrap();
        for length in (0..used as u64).filter(|length| *length < 700 || *length + 300 > used as u64)
        {
            let image = disk.kill9();
            image.truncate(path, length).unwrap();
            let context = format!("{path:?} of {length} bytes");
            let (log, report) = Rig::simulated(&image, 9).open(&AFTER_CUT).unwrap();
            let (records, damage) = read_around(&log);
            let lost = end - records.len() as u64;
            assert!(records.iter().all(|record| expected.contains(record)), "{context}");
            assert!(lost <= 3, "{context}: {lost}");
            let is_last = at + 1 == all.len();
            let is_reported = !report.corrupt.is_empty() || !damage.is_empty();
            assert!(lost == 0 || is_last || is_reported, "{context}: {report:?}");
            // Shortened to its header, the last one is as good as never used.
            assert!(is_last || files(&image) == all, "{context}");
            if lost > 0 && !is_last {
                let (_, again) = Rig::simulated(&image, 9).open(&AFTER_CUT).unwrap();
                assert_eq!(again.corrupt, report.corrupt, "{context}");
            }
        }
    }
}

/// What is in each file.
fn contents(disk: &SimulatedDisk) -> Vec<(PathBuf, Vec<u8>)> {
    disk.paths()
        .into_iter()
        .map(|path| (path.clone(), disk.read(&path).unwrap_or_default()))
        .collect()
}

/// What a verification says of a log.
fn verify(log: &Log) -> Vec<Corruption> {
    let mut findings = Findings::default();
    let lacks_footer = |number| log.backlog().lacks_footer(number);
    let (segments, end) = (log.segments(), log.log_end());
    verify_segments(segments, log.factory().identity(), end, lacks_footer, &mut findings).unwrap();
    verify_names(&*log.env().disk, segments, log.factory().identity(), &mut findings).unwrap();
    findings.damage
}

/// B3: what follows the cut is in no index and no footer, and readers find their way.
// RED: src/log/tasks.rs
//   - let end = u64::from(self.sealed.data_end);
//   + let end = u64::MAX;
#[test]
fn row_b03_the_footer_of_a_cut_segment_knows_nothing_of_what_was_cut() {
    let (disk, mut rig) = Rig::fresh(1);
    rig.options.segment_bytes = 256 << 10;
    let mut log = rig.create();
    append(&mut log, 2, 20_000);
    let start = log.appender().active().unwrap().position() as u64;
    append(&mut log, 1, 40_000);
    append(&mut log, 2, 20_000);
    sync(&mut log).unwrap();
    drop(log);
    disk.corrupt(&files(&disk)[0], start + 100, 1).unwrap();
    let (mut log, report) = rig.open(&AFTER_CUT).unwrap();
    assert_eq!((log.log_end(), report.corrupt), (2, vec![]));
    let segment = log.segments().first().unwrap();
    assert!(index_of(&log, &segment).unwrap().rows().len() <= 1);
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
/// for an empty log, and what is appended continues in another file and stays there.
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
// RED: src/log/recovery.rs
//   - decision.damage.push(Damage { segment, position, offsets: needed..found, kind });
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

/// Symptom: when the first files of a log were missing, reading there was `OffsetOutOfRange`, as if
/// retention had removed them. Cause: the log began with the first file that was there. Rule: a log
/// begins where its log start was recorded; what it lacks after that is damage, in every run.
#[test]
fn what_is_missing_at_the_head_is_damage_and_no_log_start() {
    let (disk, end) = five_segments();
    for count in 1..5 {
        let image = disk.kill9();
        for path in files(&disk).iter().take(count) {
            image.remove_file(path).unwrap();
        }
        let lost = 0..count as u64 * 3;
        let rig = Rig::simulated(&image, 9);
        for (run, first) in [(0, 0), (1, 0), (2, 2), (3, lost.end)] {
            let known = Known { log_start: Some(first), ..AFTER_CUT };
            let (log, report) = rig.open(&known).unwrap();
            let context = format!("{count} files, run {run}: {report:?}");
            assert_eq!((log.log_start(), log.log_end()), (first, end), "{context}");
            let expected: Vec<_> =
                Some(first..lost.end).filter(|it| !it.is_empty()).into_iter().collect();
            let reported: Vec<_> =
                report.corrupt.iter().filter_map(|it| it.offsets.clone()).collect();
            assert_eq!(reported, expected, "{context}");
            assert!(
                report.corrupt.iter().all(|it| it.kind == CorruptionKind::Missing),
                "{context}"
            );
            assert_eq!(log.checkpoint().map(|point| point.log_start), Some(first), "{context}");
            assert_eq!(
                read_from(&log, lost.end, 9).unwrap(),
                plain(lost.end..end, 30),
                "{context}"
            );
        }
        // Where nothing is known of the log start, the log begins with what is there.
        let (log, report) = rig.open(&AFTER_CUT).unwrap();
        assert_eq!((log.log_start(), report.corrupt.len()), (lost.end, 0), "{report:?}");
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
        let start = log.appender().active().unwrap().position() as u64;
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

//! Goal: each of the twenty-two behaviours that somebody who knows Kafka tests first has a test
//! that bears its number, `statement_NN_...`; those about damaged directories are here.
//!
//! Method: the first test reads the names of all test functions. The others copy the directory of
//! an open broker, which is what a killed process leaves, damage the copy byte by byte and open it.
//!
//! Not covered: power cuts and full disks (`src/broker/tests`), random damage (`bad_input.rs`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::*;
use logpond::{Error, Partition, Record};

#[test]
fn every_statement_has_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeSet::new();
    for file in [files_below(&root.join("tests")), files_below(&root.join("src"))].concat() {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for pair in lines.windows(2).filter(|pair| pair[0].starts_with("#[test")) {
            let name = pair[1].strip_prefix("fn statement_");
            found.extend(name.and_then(|name| name.get(..2)?.parse::<u32>().ok()));
        }
    }
    let missing: Vec<u32> = (1..=22).filter(|number| !found.contains(number)).collect();
    assert!(missing.is_empty(), "no test of the statements {missing:?}");
}

/// The only segment of the only partition.
fn segment(dir: &Path) -> PathBuf {
    let files = files_below(&dir.join("t").join("0"));
    let mut logs = files.into_iter().filter(|path| path.extension().is_some_and(|it| it == "log"));
    logs.next().expect("a segment")
}

/// Where two files of one length differ.
fn difference(before: &[u8], after: &[u8]) -> Range<usize> {
    let differs = |at: &usize| before.get(*at) != after.get(*at);
    let mut all = (0..after.len()).filter(differs);
    let first = all.next().expect("a difference");
    first..all.next_back().unwrap_or(first) + 1
}

/// What one partition of a damaged directory still gives: values by offset, up to an error.
fn salvage(partition: &Partition) -> (Vec<(u64, String)>, bool) {
    let mut next = partition.log_start_offset();
    let mut records = Vec::new();
    loop {
        match partition.read(next, 1) {
            Ok(batch) if batch.is_empty() => return (records, true),
            Ok(batch) => {
                records.extend(batch.iter().map(|it| (it.offset(), text(&it.to_owned()))));
                next = records.last().unwrap().0 + 1;
            }
            Err(Error::Corrupt(_)) => return (records, false),
            Err(other) => panic!("{other:?}"),
        }
    }
}

/// A directory as a killed process leaves it, and where its batches lie: two records in each.
fn killed() -> (tempfile::TempDir, Vec<Range<usize>>) {
    let (live, copy) = (temp_dir(), temp_dir());
    let broker = open_quiet(live.path());
    let partition = broker.ensure_topic("t", small_topic(1)).unwrap().partition(0).unwrap();
    let mut spans = Vec::new();
    let mut before = fs::read(segment(live.path())).unwrap();
    for batch in 0..4 {
        let values = [format!("value {}", 2 * batch), format!("value {}", 2 * batch + 1)];
        let records: Vec<_> = values.iter().map(|value| Record::new().value(value)).collect();
        partition.append_batch(&records).unwrap();
        let after = fs::read(segment(live.path())).unwrap();
        spans.push(difference(&before, &after));
        before = after;
    }
    copy_dir(live.path(), copy.path());
    (copy, spans)
}

/// Opens a damaged copy. Returns how many records it has, and whether loss was reported.
fn open_damaged(original: &Path, damage: impl FnOnce(&mut Vec<u8>)) -> (usize, bool) {
    let copy = temp_dir();
    copy_dir(original, copy.path());
    let path = segment(copy.path());
    let mut bytes = fs::read(&path).unwrap();
    damage(&mut bytes);
    fs::write(&path, &bytes).unwrap();
    let broker = open_quiet(copy.path());
    let partition = broker.topic("t").unwrap().partition(0).unwrap();
    let (records, is_whole) = salvage(&partition);
    for (offset, value) in &records {
        assert_eq!(*value, format!("value {offset}"), "never written");
    }
    (records.len(), !broker.recovery().is_clean() || !is_whole)
}

#[test]
fn statement_05_a_batch_torn_at_any_byte_is_there_whole_or_not_at_all() {
    let (dir, spans) = killed();
    let last = spans[3].clone();
    for at in last.clone() {
        // Written up to here: the rest of the file is as it was before, or is not there.
        for is_cut in [false, true] {
            let found = open_damaged(dir.path(), |bytes| {
                if is_cut { bytes.truncate(at) } else { bytes[at..last.end].fill(0) }
            });
            // Of what had no byte written nobody can know.
            assert_eq!(found, (6, at > last.start), "torn at {at} of {last:?}, cut: {is_cut}");
        }
    }
    assert_eq!(open_damaged(dir.path(), |_| ()), (8, false));
}

#[test]
fn statement_07_whatever_byte_is_damaged_every_record_before_it_stays() {
    let (dir, spans) = killed();
    for (number, span) in (0_usize..).zip(&spans) {
        for at in span.clone() {
            for mask in [0x01, 0x80] {
                let (count, is_reported) = open_damaged(dir.path(), |bytes| bytes[at] ^= mask);
                assert!(count >= 2 * number && count < 8, "{count}, {at} of {span:?}");
                assert!(is_reported, "{at} of {span:?}");
            }
            let found = open_damaged(dir.path(), |bytes| bytes.truncate(at));
            assert_eq!(found, (2 * number, at > span.start), "cut at {at} of {span:?}");
        }
    }
}

/// What is known of a sealed segment beside its records, its time index among it, stands at its
/// end. None of it is evidence.
#[test]
fn statement_08_without_any_index_everything_is_found_all_the_same() {
    for closes in [true, false] {
        let dir = temp_dir();
        let broker = open_quiet(dir.path());
        let config = small_topic(1).retention(Duration::MAX);
        let partition = broker.ensure_topic("t", config).unwrap().partition(0).unwrap();
        let padding = "p".repeat(500);
        for number in 0..200_u64 {
            let time = some_time() + Duration::from_millis(number);
            partition.append(&Record::new().key(&padding).timestamp(time)).unwrap();
        }
        broker.tick().unwrap();
        let copy = temp_dir();
        if closes {
            drop(partition);
            broker.close().unwrap();
        }
        copy_dir(dir.path(), copy.path());
        let mut logs = files_below(&copy.path().join("t").join("0"));
        logs.retain(|path| path.extension().is_some_and(|it| it == "log"));
        logs.sort();
        assert!(logs.len() > 4, "{logs:?}");
        let mut damaged = 0;
        for path in &logs[..logs.len() - 2] {
            let mut bytes = fs::read(path).unwrap();
            // The footer's length stands where its last sixteen bytes begin.
            let trailer = bytes.len() - 16;
            let length = u32::from_le_bytes(bytes[trailer..trailer + 4].try_into().unwrap());
            let footer = bytes.len() - usize::try_from(length).unwrap()..bytes.len();
            assert!(footer.len() > 60, "{}: {footer:?}", path.display());
            match damaged % 3 {
                0 => bytes[footer].fill(0),
                1 => bytes.truncate(footer.start),
                _ => bytes[footer].reverse(),
            }
            fs::write(path, bytes).unwrap();
            damaged += 1;
        }
        let broker = open_quiet(copy.path());
        assert!(broker.recovery().is_clean(), "{damaged}: {:?}", broker.recovery());
        let partition = broker.topic("t").unwrap().partition(0).unwrap();
        let messages = read_all(&partition);
        assert_dense(&messages, 0);
        assert_eq!(messages.len(), 200);
        for wanted in [0_u64, 1, 77, 150, 199] {
            let time = some_time() + Duration::from_millis(wanted);
            assert_eq!(partition.offset_at(time).unwrap(), Some(wanted));
        }
        assert_eq!(partition.append(&Record::new().key("next")).unwrap(), 200);
    }
}

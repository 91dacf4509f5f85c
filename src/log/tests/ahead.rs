//! Reading ahead of a cursor, in files on a real disk.
//!
//! Goal: what a steady reader needs next is asked for, also in the next segment, and nothing that is
//! in memory. Not covered: how far ahead (`log::read_ahead`), who reads (`broker::workers`).

use std::fs::File;

use rustix::fs::{Advice, fadvise};

use super::*;
use crate::log::read_ahead::Ahead;
use crate::log::segment::Segment;

/// Drops the files of a directory, which are synced, from the page cache.
fn evict(dir: &Path) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let file = File::open(entry.unwrap().path()).unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    }
}

/// Symptom: from the disk, records were read at three quarters of the rate of the device. Cause: at
/// the beginning of each segment the device had nothing to do until the reader came, and then the
/// reader had to wait. Rule: a steady reader has what it needs next read by another thread.
// RED: src/log/read_ahead.rs
//   - (!region.is_resident(last)).then(|| Self { region: Arc::clone(region), range })
//   + None
#[test]
fn what_a_steady_reader_needs_next_is_asked_for_unless_it_is_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::real(&dir);
    rig.options.segment_bytes = 16 << 20;
    let mut log = rig.create();
    while segment_count(&log) < 3 {
        append(&mut log, 1, 1 << 20);
    }
    sync(&mut log).unwrap();
    drop(log);
    let (log, _) = rig.open(&AFTER_CUT).unwrap();
    let read = || {
        let mut cursor = cursor_at(&log, 0).unwrap();
        let mut asked = Vec::new();
        loop {
            let mut fetched = Fetched::default();
            cursor.fetch(log.segments(), &limits(&log, 1, usize::MAX), &mut fetched).unwrap();
            if fetched.records == 0 {
                return asked;
            }
            asked.extend(fetched.ahead);
        }
    };
    evict(dir.path());
    let middle = |segment: &Arc<Segment>| segment.window(0).unwrap().region.is_resident(8 << 20);
    let segments = log.segments().all();
    if segments.iter().take(2).all(middle) {
        return; // A file system in memory.
    }
    let asked = read();
    assert!(!asked.is_empty(), "what comes next is not in memory");
    drop(asked);
    assert!(segments.iter().take(2).all(middle), "the reader has brought all of it there");
    assert!(read().is_empty(), "all is in memory");
    // So does a thread that reads ahead. What is mapped cannot be evicted.
    drop((log, segments));
    evict(dir.path());
    let (log, _) = rig.open(&AFTER_CUT).unwrap();
    evict(dir.path());
    let region = log.segments().first().unwrap().window(0).unwrap().region;
    let ahead = Ahead::of(&region, (4 << 20)..(9 << 20)).unwrap();
    ahead.run();
    assert!(Ahead::of(&region, (4 << 20)..(9 << 20)).is_none());
    assert!(Ahead::of(&region, 9..9).is_none());
    let beyond = region.published()..usize::MAX;
    assert!(Ahead::of(&region, beyond).is_none(), "nothing beyond the end");
}

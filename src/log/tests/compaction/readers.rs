//! Readers that stand in a segment while compaction replaces it.

use super::*;

/// One fetch of a few records.
fn fetch_some(log: &Log, cursor: &mut Cursor, into: &mut Found) {
    let mut fetched = Fetched::default();
    cursor.fetch(log.segments(), &limits(log, 3, 400), &mut fetched).unwrap();
    for message in Batch::new(fetched.ranges) {
        let entry = (message.key().unwrap().to_vec(), message.value().map(<[u8]>::to_vec));
        assert!(into.insert(message.offset(), entry).is_none(), "{} twice", message.offset());
    }
}

/// J9: mapped and copied, from every offset, with steps of the compaction between the fetches.
// RED: src/log/cursor.rs
//   - Err(_) if !segments.contains(&self.segment) => self.find_again(segments, limits),
#[test]
fn row_j09_a_cursor_continues_across_replaced_segments() {
    every_rig(|name, mut rig| {
        // Larger than what a copying reader has at a time: it comes back to the file.
        rig.options.segment_bytes = 1 << 20;
        let segments: Vec<Vec<Entry>> = (0..5_u32)
            .map(|round| {
                let value = format!("{round}{}", "x".repeat(12_000));
                (0..30).map(|key| entry(&(key * (1 + round % 2)).to_string(), &value)).collect()
            })
            .collect();
        let segments: Vec<&[Entry]> = segments.iter().map(Vec::as_slice).collect();
        let log = log_of(&rig, &segments);
        let before = read_entries(&log.0.borrow(), 0, 50).unwrap();
        let starts = [0, 17, 29, 30, 31, 64, 90, 119, 149];
        let mut cursors: Vec<(u64, Cursor, Found)> = starts
            .map(|start| (start, cursor_at(&log.0.borrow(), start).unwrap(), Found::new()))
            .into();
        // Some have begun to read and some have not.
        for (_, cursor, found) in cursors.iter_mut().step_by(2) {
            fetch_some(&log.0.borrow(), cursor, found);
        }
        let apart = Terms { segment_bytes: 256 << 10, ..TERMS };
        log.compact_with(apart, |log| {
            for (_, cursor, found) in &mut cursors {
                fetch_some(log, cursor, found);
            }
        })
        .unwrap();
        log.compact(TERMS).unwrap();
        let log = log.0.borrow();
        let after = read_entries(&log, 0, 50).unwrap();
        assert!(after.len() < before.len(), "{name}");
        for (start, mut cursor, mut found) in cursors {
            while cursor.next_offset() < log.log_end() {
                fetch_some(&log, &mut cursor, &mut found);
            }
            for (offset, entry) in &found {
                assert_eq!(before.get(offset), Some(entry), "{name}: {offset} from {start}");
            }
            for offset in after.keys().filter(|offset| **offset >= start) {
                assert!(found.contains_key(offset), "{name}: {offset} is missing from {start}");
            }
        }
    });
}

#[test]
fn held_messages_stay_what_they_are() {
    every_rig(|name, rig| {
        let log = log_of(&rig, &[&[entry("a", "old")], &[entry("a", "new")]]);
        let mut cursor = cursor_at(&log.0.borrow(), 0).unwrap();
        let mut fetched = Fetched::default();
        let limits = limits(&log.0.borrow(), 1, 1);
        cursor.fetch(log.0.borrow().segments(), &limits, &mut fetched).unwrap();
        let held = Batch::new(fetched.ranges).into_iter().next().unwrap();
        log.compact(TERMS).unwrap();
        assert_eq!(held.value(), Some(b"old".as_slice()), "{name}");
        assert_eq!(offsets(&read_entries(&log.0.borrow(), 0, 9).unwrap()), [1], "{name}");
    });
}

#[test]
fn retention_that_takes_the_inputs_away_ends_the_compaction() {
    let (disk, rig) = Rig::fresh(1);
    for after in 0..6 {
        let dir = rig.identity.dir.clone();
        for name in disk.list(&dir).unwrap() {
            disk.remove_file(&dir.join(name.name)).unwrap();
        }
        let log = log_of(&rig, &[&[entry("a", "1")], &[entry("a", "2")], &[entry("b", "3")]]);
        let mut compaction = Compaction::begin(&log.0.borrow(), TERMS).unwrap();
        for _ in 0..after {
            compaction.step(&log).unwrap();
        }
        let removed = log.0.borrow_mut().retire(2, usize::MAX);
        for segment in removed {
            disk.remove_file(&segment.path).unwrap();
        }
        while compaction.step(&log).unwrap() == Progress::More {}
        drop(compaction);
        let found = read_entries(&log.0.borrow(), 2, 9).unwrap();
        assert_eq!(offsets(&found), [2], "after {after} steps");
        assert_eq!(files(&disk).len(), log.0.borrow().segments().count(), "after {after} steps");
    }
}

/// The caller learns that not all was looked at, however far the compaction was.
#[test]
fn a_compaction_whose_input_is_taken_away_says_that_it_was_cut_short() {
    let mut cut_short = 0;
    for after in 0.. {
        let (_, rig) = Rig::fresh(1);
        let log = log_of(&rig, &[&[entry("a", "1")], &[entry("a", "2")], &[entry("b", "3")]]);
        let apart = Terms { segment_bytes: 1, ..TERMS };
        let mut compaction = Compaction::begin(&log.0.borrow(), apart).unwrap();
        for _ in 0..after {
            assert_eq!(compaction.step(&log).unwrap(), Progress::More);
        }
        let is_replaced = compaction.tally().segments_written > 0;
        for segment in log.0.borrow_mut().retire(1, usize::MAX) {
            segment.remove_file().unwrap();
        }
        let mut progress = Progress::More;
        while progress == Progress::More {
            progress = compaction.step(&log).unwrap();
        }
        if is_replaced {
            assert_eq!(progress, Progress::Done, "after {after} steps");
            break;
        }
        assert_eq!(progress, Progress::CutShort, "after {after} steps");
        cut_short += 1;
    }
    assert!(cut_short > 4, "{cut_short}");
}

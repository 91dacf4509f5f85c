//! Appending, rolling, reading, finding: a log that nothing happens to.

use super::*;
use crate::format::{Rewrite, SegmentHeader};
use crate::storage::disk::Access;

#[test]
fn what_is_appended_is_read_back_across_rolls_from_every_offset() {
    every_rig(|name, rig| {
        let mut log = rig.create();
        for count in [1, 3, 100, 1, 1, 120, 40, 60] {
            append(&mut log, count, 100);
        }
        assert!(segment_count(&log) > 2, "{name}");
        let end = log.log_end();
        for step in [1, 7, usize::MAX] {
            assert_eq!(read_from(&log, 0, step).unwrap(), plain(0..end, 100), "{name}, {step}");
        }
        for offset in 0..=end {
            let records = read_from(&log, offset, usize::MAX).unwrap();
            assert_eq!(records.len() as u64, end - offset, "{name}");
            assert_eq!(records, plain(offset..end, 100), "{name}");
        }
    });
}

#[test]
fn lone_records_and_empty_values_are_records_too() {
    every_rig(|name, rig| {
        let mut log = rig.create();
        for _ in 0..50 {
            append(&mut log, 1, 0);
        }
        assert_eq!(read_from(&log, 20, 3).unwrap(), plain(20..50, 0), "{name}");
    });
}

#[test]
fn a_fetch_obeys_its_limits_and_returns_at_least_one_record() {
    let rig = Rig::memory();
    let mut log = rig.create();
    for _ in 0..20 {
        append(&mut log, 5, 100);
    }
    let mut cursor = cursor_at(&log, 0).unwrap();
    for (records, bytes, expected) in
        [(1, usize::MAX, 1), (7, usize::MAX, 7), (usize::MAX, 0, 2), (usize::MAX, 1_400, 10)]
    {
        let from = cursor.next_offset();
        let some = fetch(&log, &mut cursor, &limits(&log, records, bytes)).unwrap();
        assert_eq!(some, plain(from..from + expected, 100), "{records} {bytes}");
    }
    let visible = FetchLimits { visible_end: 30, ..limits(&log, usize::MAX, usize::MAX) };
    assert_eq!(fetch(&log, &mut cursor, &visible).unwrap(), plain(20..30, 100));
    assert!(fetch(&log, &mut cursor, &visible).unwrap().is_empty());
}

#[test]
fn a_batch_larger_than_a_fetch_is_resumed_in_its_middle() {
    every_rig(|name, rig| {
        let mut log = rig.create();
        append(&mut log, 100, 10);
        append(&mut log, 1, 10);
        let mut cursor = cursor_at(&log, 0).unwrap();
        for step in [30, 30, 30] {
            let from = cursor.next_offset();
            let some = fetch(&log, &mut cursor, &limits(&log, step, usize::MAX)).unwrap();
            assert_eq!(some, plain(from..from + step as u64, 10), "{name}");
        }
        let rest = fetch(&log, &mut cursor, &limits(&log, 30, usize::MAX)).unwrap();
        assert_eq!(rest, plain(90..101, 10), "{name}");
    });
}

/// A chunk of a copying reader ends in the middle of batches, and a batch may be larger than one.
#[test]
fn copied_chunks_give_what_the_map_gives() {
    for copy_reads in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut rig = Rig::real(&dir);
        rig.env().copy_reads = copy_reads;
        rig.options.segment_bytes = 4 << 20;
        let mut log = rig.create();
        let mut random = Random::new(3);
        for _ in 0..60 {
            let size = 1 + random.below(40_000) as usize;
            append(&mut log, 1, size);
        }
        append(&mut log, 3, 300_000);
        append(&mut log, 1, 10);
        let mut random = Random::new(3);
        let mut expected: Records = (0..60)
            .map(|offset| (offset, value(0, offset, 1 + random.below(40_000) as usize)))
            .collect();
        expected.extend(plain(60..63, 300_000));
        expected.extend(plain(63..64, 10));
        for step in [1, 5, usize::MAX] {
            assert!(read_from(&log, 0, step).unwrap() == expected, "copied: {copy_reads}, {step}");
        }
        for offset in 0..64 {
            let found = read_from(&log, offset, usize::MAX).unwrap();
            assert!(found == expected[offset as usize..], "copied: {copy_reads}, {offset}");
        }
    }
}

#[test]
fn a_reader_that_stands_at_the_end_sees_what_is_appended_behind_it() {
    every_rig(|name, rig| {
        let mut log = rig.create();
        let mut cursor = cursor_at(&log, 0).unwrap();
        for round in 0..200 {
            let from = log.log_end();
            append(&mut log, 1 + round % 3, 150);
            let all = limits(&log, usize::MAX, usize::MAX);
            let some = fetch(&log, &mut cursor, &all).unwrap();
            assert_eq!(some, plain(from..log.log_end(), 150), "{name}");
            assert!(fetch(&log, &mut cursor, &all).unwrap().is_empty(), "{name}");
        }
        assert!(segment_count(&log) > 3, "{name}");
    });
}

/// J9: a reader at a roll sees every offset once and in order.
#[test]
fn row_j09_readers_on_other_threads_see_every_offset_once_and_in_order() {
    use crate::sync::{AtomicU64, Ordering};
    const RECORDS: u64 = 3_000;
    every_rig(|name, rig| {
        let mut log = rig.create();
        let end = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for reader in 0..2 {
                let (segments, end) = (Arc::clone(log.segments()), &end);
                let mut cursor = cursor_at(&log, 0).unwrap();
                scope.spawn(move || {
                    let mut next = 0;
                    while next < RECORDS {
                        let visible_end = end.load(Ordering::Acquire);
                        let records = 1 + reader * 100;
                        let limits = FetchLimits { records, bytes: usize::MAX, visible_end };
                        let mut fetched = Fetched::default();
                        cursor.fetch(&segments, &limits, &mut fetched).unwrap();
                        for message in Batch::new(fetched.ranges).iter() {
                            assert_eq!(message.offset(), next, "{name}");
                            assert_eq!(message.value().unwrap(), value(0, next, 40), "{name}");
                            next += 1;
                        }
                    }
                });
            }
            while log.log_end() < RECORDS {
                append(&mut log, 3, 40);
                end.store(log.log_end(), Ordering::Release);
            }
        });
    });
}

#[test]
fn offsets_are_found_with_and_without_footers_and_with_few_maps() {
    every_rig(|name, mut rig| {
        rig.env().maps = MapBudget::new(2);
        let mut log = rig.create();
        fill_segments(&mut log, 8, 400);
        let end = log.log_end();
        let check = |log: &Log| {
            for offset in (0..=end).step_by(3) {
                let some = read_from(log, offset, 100).unwrap();
                assert_eq!(some, plain(offset..end, 400), "{name}");
            }
        };
        check(&log);
        assert!(
            log.backlog().begin_footer(None).is_none(),
            "{name}: not over data that is not synced"
        );
        sync(&mut log).unwrap();
        finish_segments(&mut log).unwrap();
        assert!(!log.backlog().has_unfinished(), "{name}");
        let footers =
            log.segments().all().iter().filter(|s| s.read_footer().unwrap().is_some()).count();
        assert_eq!(footers, segment_count(&log) - 1, "{name}");
        check(&log);
    });
}

#[test]
fn maps_beyond_the_budget_are_dropped_unless_a_message_holds_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::real(&dir);
    rig.env().maps = MapBudget::new(2);
    let mut log = rig.create();
    fill_segments(&mut log, 8, 1_000);
    let mut held = Vec::new();
    for segment in log.segments().all() {
        let window = segment.window(0).unwrap();
        held.push((Arc::downgrade(&window.region), window));
    }
    let regions: Vec<_> = held.iter().map(|(region, _)| region.clone()).collect();
    append(&mut log, 1, 10);
    log.roll_for(0).unwrap();
    assert!(regions.iter().all(|region| region.strong_count() > 0), "held, so not dropped");
    drop(held);
    log.roll_for(0).unwrap();
    let alive = regions.iter().filter(|region| region.strong_count() > 0).count();
    assert!(alive <= 3, "two maps and the active segment's, not {alive}");
}

#[test]
fn the_next_segment_is_prepared_when_half_is_full_and_then_used() {
    every_rig(|name, rig| {
        let mut log = rig.create();
        append(&mut log, 1, 1_000);
        assert!(!log.appender().wants_next(), "{name}");
        while !log.appender().wants_next() {
            append(&mut log, 1, 1_000);
        }
        make_space(&mut log).unwrap();
        let prepared = log.appender().prepared().front().map(|next| next.header.number);
        assert_eq!(prepared, Some(1), "{name}");
        while segment_count(&log) == 1 {
            append(&mut log, 1, 1_000);
        }
        assert_eq!(log.segments().last().map(|last| last.number), prepared, "{name}");
        assert!(log.appender().prepared().is_empty(), "{name}");
        let end = log.log_end();
        assert_eq!(read_from(&log, 0, usize::MAX).unwrap(), plain(0..end, 1_000), "{name}");
    });
}

/// Symptom: a roll that needed more room than the prepared segment had made a new one, and the
/// prepared one, with the lower number, was used after it. Rule: numbers rise with offsets.
#[test]
fn a_prepared_segment_that_is_too_small_is_never_used_later() {
    let (disk, rig) = Rig::fresh(1);
    let mut log = rig.create();
    append(&mut log, 1, 10_000);
    make_space(&mut log).unwrap();
    assert!(!log.appender().prepared().is_empty());
    log.roll_for(20_000).unwrap();
    append(&mut log, 1, 18_000);
    for _ in 0..10 {
        append(&mut log, 1, 10_000);
    }
    let numbers: Vec<u64> = log.segments().all().iter().map(|s| s.number).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    sync(&mut log).unwrap();
    assert_eq!(files(&disk).len(), segment_count(&log), "the unused one is removed");
    let (log, report) = Rig::simulated(&disk, 2).open(&AFTER_KILL).unwrap();
    assert_eq!((log.log_end(), report.corrupt.len()), (12, 0));
}

#[test]
fn what_replaces_a_truncating_segment_truncates_too() {
    let (disk, rig) = Rig::fresh(1);
    let mut log = rig.create();
    append(&mut log, 1, 10);
    let cut = Some(Rewrite::Truncates(1));
    let made = log.factory_mut().new_segment(0, cut).unwrap().create(&rig.env).unwrap();
    log.appender.add_prepared(made);
    log.roll_for(20_000).unwrap();
    let last = disk.read(&log.segments().last().unwrap().path).unwrap();
    assert_eq!(SegmentHeader::decode(&last).unwrap().rewrite, cut);
}

#[test]
fn a_segment_that_was_prepared_too_late_is_given_up() {
    let (disk, rig) = Rig::fresh(1);
    let mut log = rig.create();
    append(&mut log, 1, 10_000);
    let task = log.factory_mut().begin_prepare().unwrap();
    append(&mut log, 1, 10_000);
    finish_prepare(&mut log, task.run().unwrap());
    assert!(log.appender().prepared().is_empty());
    assert_eq!(files(&disk).len(), 2);
}

// RED: src/log.rs
//   - if u64::from(size) > limit {
//   + if u64::from(size) > limit.saturating_mul(1_000_000) {
#[test]
fn row_g03_a_batch_that_is_too_large_is_refused_and_changes_nothing() {
    every_rig(|name, rig| {
        let mut log = rig.create();
        append(&mut log, 1, 100);
        let largest = super::super::record_bytes_max(SEGMENT_BYTES) as usize;
        let before = format!("{log:?}");
        for size in [SEGMENT_BYTES as usize, SEGMENT_BYTES as usize * 100] {
            let refused = append_values(&mut log, &[vec![0; size]], None);
            assert!(matches!(refused, Err(Error::RecordTooLarge { .. })), "{name}: {refused:?}");
            assert_eq!(format!("{log:?}"), before, "{name}");
        }
        append(&mut log, 1, largest);
        assert_eq!(read_from(&log, 1, 1).unwrap(), plain(1..2, largest), "{name}");
        append(&mut log, 1, 0);
        assert_eq!(read_from(&log, 2, 1).unwrap(), plain(2..3, 0), "{name}");
    });
}

/// Positions and offsets inside a segment are 32 bits: the log rolls before either overflows.
/// (Segments have at most a gibibyte, so positions never come near.)
// RED: src/log/appender.rs
//   - end <= active.capacity() && u32::try_from(span).is_ok()
//   + end <= active.capacity()
#[test]
fn row_g02_a_segment_ends_before_its_offsets_need_more_than_32_bits() {
    const _: () = assert!(crate::config::SEGMENT_BYTES_MAX < u32::MAX as u64);
    let rig = Rig::memory();
    let mut log = rig.create();
    append(&mut log, 1, 8);
    // As if compaction had left nothing of what was in between.
    log.ends.advance_end(u64::from(u32::MAX) - 1);
    let one = [vec![1]];
    append_values(&mut log, &one, None).unwrap();
    assert_eq!(segment_count(&log), 1);
    append_values(&mut log, &one, None).unwrap();
    assert_eq!(segment_count(&log), 2);
    let last = log.segments().last().unwrap();
    assert_eq!(last.base_offset, u64::from(u32::MAX));
    let found = read_from(&log, u64::from(u32::MAX) - 1, usize::MAX).unwrap();
    let offsets: Vec<u64> = found.iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets, [u64::from(u32::MAX) - 1, u64::from(u32::MAX)]);
}

// RED: src/log/ends.rs
//   - .filter(|next| *next <= OFFSET_MAX)
#[test]
fn row_g01_offsets_that_would_wrap_are_refused() {
    let rig = Rig::memory();
    let mut log = rig.create();
    log.ends.advance_end(super::super::OFFSET_MAX - 3);
    log.roll_for(0).unwrap();
    let two = [vec![1], vec![2]];
    assert!(matches!(append_values(&mut log, &two, None), Ok(Outcome::Appended { .. })));
    let refused = append_values(&mut log, &two, None);
    assert!(matches!(refused, Err(Error::OffsetExhausted { .. })), "{refused:?}");
    assert!(append_values(&mut log, &two[..1], None).is_ok());
    assert_eq!(log.log_end(), super::super::OFFSET_MAX);
    let refused = append_values(&mut log, &two[..1], None);
    assert!(matches!(refused, Err(Error::OffsetExhausted { .. })), "{refused:?}");
    let end = log.log_end();
    assert_eq!(read_from(&log, end - 3, usize::MAX).unwrap().len(), 3);
}

/// C1: at every allocation, and at every other step of making a segment.
// RED: src/log/create.rs
//   - let _ = env.disk.remove_file(&temporary);
#[test]
fn row_c01_a_full_disk_fails_the_append_and_nothing_else() {
    let operations = [Operation::Allocate, Operation::Create, Operation::Write, Operation::Rename];
    for operation in operations {
        for after in 0..4 {
            let (disk, mut rig) = Rig::fresh(1);
            rig.options.segment_bytes = 256 << 10;
            let mut log = rig.create();
            let full = Fault::once(operation, std::io::ErrorKind::StorageFull).after(after);
            disk.inject(Fault { forever: true, ..full });
            let mut appended = 0;
            let refused = loop {
                let outcome = append_values(&mut log, &[value(0, appended, 20_000)], None);
                match outcome {
                    Ok(_) => appended += 1,
                    Err(error) => break error,
                }
                if appended > 60 {
                    // Fewer such calls than `after`.
                    break Error::Timeout;
                }
            };
            if matches!(refused, Error::Timeout) {
                continue;
            }
            let context = format!("{operation:?} after {after}");
            assert!(matches!(refused, Error::StorageFull { .. }), "{context}: {refused:?}");
            assert!(refused.is_definite() && refused.is_retriable());
            assert_eq!(log.log_end(), appended, "{context}");
            assert_eq!(files(&disk).len(), segment_count(&log), "{context}: debris");
            assert_eq!(disk.paths().len(), segment_count(&log), "{context}: debris");
            assert_eq!(read_from(&log, 0, 3).unwrap(), plain(0..appended, 20_000), "{context}");
            disk.heal();
            for _ in 0..30 {
                append(&mut log, 1, 20_000);
            }
            let end = log.log_end();
            assert_eq!(read_from(&log, 0, 3).unwrap(), plain(0..end, 20_000), "{context}");
            sync(&mut log).unwrap();
            let image = disk.power_cut(&mut || 0, PowerCut::WORST);
            let (log, report) = Rig::simulated(&image, 2).open(&AFTER_CUT).unwrap();
            assert_eq!((log.log_end(), report.corrupt), (end, vec![]), "{context}");
        }
    }
}

#[test]
fn row_c01_appends_resume_when_a_small_disk_has_space_again() {
    let (disk, rig) = Rig::fresh(1);
    let mut log = rig.create();
    disk.limit_capacity(Some(3 * SEGMENT_BYTES));
    let refused = loop {
        let next = value(0, log.log_end(), 3_000);
        if let Err(error) = append_values(&mut log, &[next], None) {
            break error;
        }
    };
    assert!(matches!(refused, Error::StorageFull { .. }), "{refused:?}");
    let end = log.log_end();
    assert_eq!(read_from(&log, 0, 3).unwrap(), plain(0..end, 3_000));
    // Deletion makes space, and appending continues without a reopen.
    let start = log.segments().all()[1].base_offset;
    for segment in log.retire(start, usize::MAX) {
        disk.remove_file(&segment.path).unwrap();
    }
    append(&mut log, 1, 3_000);
    assert_eq!(read_from(&log, start, 3).unwrap(), plain(start..end + 1, 3_000));
}

// RED: src/log/cursor.rs
//   - Err(_) if !segments.contains(&self.segment) => self.find_again(segments, limits),
#[test]
fn row_j03_a_reader_behind_retention_learns_it_and_its_messages_stay() {
    every_rig(|name, rig| {
        let mut log = rig.create();
        fill_segments(&mut log, 5, 1_000);
        let mut cursor = cursor_at(&log, 0).unwrap();
        let held = {
            let mut fetched = Fetched::default();
            cursor.fetch(log.segments(), &limits(&log, 2, usize::MAX), &mut fetched).unwrap();
            Batch::new(fetched.ranges)
        };
        let start = log.segments().all()[3].base_offset;
        for segment in log.retire(start + 1, usize::MAX) {
            rig.env.disk.remove_file(&segment.path).unwrap();
        }
        assert_eq!(log.log_start(), start + 1);
        let mut read = 2;
        let refused = loop {
            match fetch(&log, &mut cursor, &limits(&log, usize::MAX, usize::MAX)) {
                Ok(some) => read += some.len() as u64,
                Err(error) => break error,
            }
        };
        let partition = ("t", 3).into();
        let end = log.log_end();
        let expected = Error::OffsetOutOfRange { partition, requested: read, start, end };
        assert_eq!(format!("{refused:?}"), format!("{expected:?}"), "{name}");
        assert_eq!(held.iter().next().unwrap().value().unwrap(), value(0, 0, 1_000), "{name}");
        let end = log.log_end();
        let rest = read_from(&log, start + 1, 7).unwrap();
        assert_eq!(rest, plain(start + 1..end, 1_000), "{name}");
    });
}

#[test]
fn space_is_made_ahead_without_changing_what_is_there() {
    every_rig(|name, mut rig| {
        rig.options.segment_bytes = 8 << 20;
        let mut log = rig.create();
        let mut grown = 0;
        while log.log_end() < 300 {
            append(&mut log, 1, 15_000);
            if log.appender_mut().wants_space() {
                let growth: Option<Growth> = log.appender().growth_needed();
                if let Some(growth) = growth {
                    growth.run().unwrap();
                    grown += 1;
                }
            }
        }
        assert!(grown > 1, "{name}");
        assert_eq!(read_from(&log, 0, usize::MAX).unwrap(), plain(0..300, 15_000), "{name}");
    });
}

/// Symptom: a producer at full speed made its own pages at the beginning of each segment, since
/// the next one was prepared with as little as an idle partition needs.
#[test]
fn the_next_segment_has_space_for_a_burst_before_it_is_needed() {
    every_rig(|name, mut rig| {
        rig.options.segment_bytes = 8 << 20;
        let mut log = rig.create();
        let growths = |log: &mut Log| {
            let mut grown = Vec::new();
            while let Some(growth) = log.appender().growth_needed() {
                growth.run().unwrap();
                grown.push(growth.is_for_next());
            }
            grown
        };
        while !log.appender().wants_next() {
            append(&mut log, 1, 15_000);
            growths(&mut log);
        }
        let task = log.factory_mut().begin_prepare().unwrap();
        finish_prepare(&mut log, task.run().unwrap());
        assert_eq!(growths(&mut log).last(), None, "{name}: not before it is near");
        let mut of_next = 0;
        while segment_count(&log) == 1 {
            append(&mut log, 1, 15_000);
            let wanted = log.appender_mut().wants_space();
            let grown = growths(&mut log);
            assert_eq!(wanted, !grown.is_empty(), "{name}");
            of_next += grown.iter().filter(|is_for_next| **is_for_next).count();
        }
        assert!(of_next > 0, "{name}");
        assert_eq!(read_from(&log, 0, usize::MAX).unwrap(), plain(0..log.log_end(), 15_000));
    });
}

/// Symptom: where appends are written to the file, a partition refused all of them, for ever, once
/// the background had made more space than the writer knew of, since the writer asked for the right
/// to store into a map that is only read. A batch or an opening that ends in the middle of a folio
/// begins it.
#[test]
fn appends_follow_space_that_begins_and_ends_in_the_middle_of_a_folio() {
    every_rig(|name, mut rig| {
        rig.options.segment_bytes = 16 << 20;
        let mut log = rig.create();
        append(&mut log, 1, 1_324_000);
        for round in 0..40 {
            make_space(&mut log).unwrap();
            append(&mut log, 1, 50_000);
            if round % 7 == 0 {
                sync(&mut log).unwrap();
                make_space(&mut log).unwrap();
            }
        }
        assert_eq!(log.log_end(), 41, "{name}");
    });
}

/// A sync makes the kernel take the pages that it wrote from the map; what is appended next goes
/// to pages that were asked for again, with every writer, and also when space is made meanwhile.
#[test]
fn appends_continue_across_syncs_and_growth() {
    every_rig(|name, mut rig| {
        rig.options.segment_bytes = 4 << 20;
        let mut log = rig.create();
        for round in 0..60 {
            append(&mut log, 1 + round % 3, 20_000);
            if round % 2 == 0 {
                sync(&mut log).unwrap();
            }
            if let Some(growth) = log.appender().growth_needed().filter(|_| round % 5 == 0) {
                growth.run().unwrap();
            }
        }
        let end = log.log_end();
        assert_eq!(read_from(&log, 0, usize::MAX).unwrap(), plain(0..end, 20_000), "{name}");
    });
}

/// Stores and writes to the file alternate, in the same pages too, before and after a sync has taken
/// the right to store; and what a killed process has left is all of both.
#[test]
fn appends_through_the_map_and_to_the_file_alternate() {
    every_rig(|name, mut rig| {
        rig.options.segment_bytes = 1 << 20;
        let mut log = rig.create();
        let mut random = Random::new(7);
        while log.segments().count() < 4 {
            let way = if random.below(2) == 0 { Way::AsUsual } else { Way::ToFile };
            append_by(&mut log, 1 + random.below(3), 900, way);
            match random.below(8) {
                0 | 1 => sync(&mut log).unwrap(),
                2 => make_space(&mut log).unwrap(),
                _ => {}
            }
        }
        let end = log.log_end();
        assert_eq!(read_from(&log, 0, 7).unwrap(), plain(0..end, 900), "{name}");
        drop(log);
        let (log, recovery) = rig.open(&AFTER_KILL).unwrap();
        assert_eq!((log.log_end(), recovery.corrupt.len()), (end, 0), "{name}");
        assert_eq!(read_from(&log, 0, 7).unwrap(), plain(0..end, 900), "{name}");
    });
}

/// Space ahead of the writer is made without the partition's lock, so it may come when its segment
/// was rolled and has its footer, or is removed. It wrote zeros over the footer, made the file as
/// long as the step, and took from the byte budget what nobody gave back. The rule: a segment that
/// takes no more appends gets no more space.
// RED: src/log/space.rs
//   - if self.is_over() || ready >= capacity {
//   + if ready >= capacity {
#[test]
fn row_d12_space_that_comes_too_late_changes_neither_the_file_nor_the_budget() {
    for is_removed in [false, true] {
        every_rig(|name, mut rig| {
            rig.env().space = SpaceBudget::new(1 << 30);
            rig.options.segment_bytes = 1 << 20;
            let mut log = rig.create();
            let late = loop {
                append(&mut log, 1, 5_000);
                if let Some(growth) = log.appender().growth_needed() {
                    break growth;
                }
            };
            log.roll_for(0).unwrap();
            sync(&mut log).unwrap();
            finish_segments(&mut log).unwrap();
            let segment = log.segments().first().unwrap();
            if is_removed {
                for removed in log.retire(log.log_end(), 1) {
                    removed.remove_file().unwrap();
                }
            }

            let length = || segment.open_file(Access::Read).map(|file| file.len().unwrap()).ok();
            let before = (rig.env.space.used(), length());
            late.run().unwrap();
            assert_eq!((rig.env.space.used(), length()), before, "{name}");
            let has_footer = !is_removed && segment.read_footer().unwrap().is_some();
            assert_eq!(has_footer, !is_removed, "{name}");
        });
    }
}

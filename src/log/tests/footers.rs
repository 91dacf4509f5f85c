//! What writing a footer does to the file: what it shortens, what it releases, and what it never
//! touches, because a reader may hold it.

use std::io::ErrorKind;

use super::*;
use crate::log::chunk::{CHUNK_BYTES, end_of_contents};
use crate::log::segment::{Segment, Window};
use crate::storage::disk::Access;

/// A log with a segment that was sealed early, in front of much space that is not used.
fn sealed_early(rig: &Rig) -> Log {
    let mut log = rig.create();
    let growth = loop {
        append(&mut log, 1, 5_000);
        if let Some(growth) = log.appender().growth_needed() {
            break growth;
        }
    };
    growth.run().unwrap();
    log.roll_for(0).unwrap();
    sync(&mut log).unwrap();
    log
}

fn length(segment: &Segment) -> u64 {
    segment.open_file(Access::Read).unwrap().len().unwrap()
}

fn all_of(window: &Window) -> Vec<u8> {
    window.bytes(0, usize::MAX).to_vec()
}

/// Symptom: none was seen; a review found it. Where a file may be written and not shortened, no
/// segment got a footer, and each opening after a crash read all of the log. Cause: an error of the
/// shortening was one of the footer, unless the disk was full. Rule: it is an optimisation; if it
/// fails, the file is longer.
// RED: src/log/tasks.rs
//   - let _ = file.shorten(kept);
//   + file.shorten(kept).unwrap();
#[test]
fn row_d24_a_file_that_cannot_be_shortened_gets_its_footer() {
    for error in [
        ErrorKind::PermissionDenied,
        ErrorKind::Other,
        ErrorKind::ReadOnlyFilesystem,
        ErrorKind::Unsupported,
        ErrorKind::StorageFull,
    ] {
        let (disk, mut rig) = Rig::fresh(1);
        rig.options = LogOptions { segment_bytes: 1 << 20, writer: Writer::Pwrite, ..rig.options };
        let mut log = sealed_early(&rig);
        let segment = log.segments().first().unwrap();
        let before = length(&segment);
        disk.inject(Fault::always(Operation::Shorten, error));
        finish_segments(&mut log).unwrap();
        assert!(disk.has_fired() && !log.backlog().has_unfinished(), "{error:?}");
        assert!(segment.read_footer().unwrap().is_some(), "{error:?}");
        assert!(length(&segment) > before, "{error:?}");
        // The close does not fail either.
        append(&mut log, 1, 5_000);
        assert!(end_space(&mut log).is_err());
        sync(&mut log).unwrap();
        let end = log.log_end();
        assert_eq!(read_from(&log, 0, 9).unwrap(), plain(0..end, 5_000));
    }
}

/// Symptom: after the death of a process, batches that a reader in another process held turned into
/// zeros. Cause: one before them was lost, so the opening cut them off, and the footer returned what
/// lay behind the data to the disk. Rule: published bytes never change; only zeros are released.
// RED: src/log/tasks.rs
//   - end_of_contents(file, data_end..length).unwrap_or(length)
//   + Some((file, length)).map_or(length, |_| data_end)
#[test]
fn row_d25_what_was_cut_off_stays_for_readers_in_other_processes() {
    for writer in [Writer::Pwrite, Writer::Stores] {
        let dir = tempfile::tempdir().unwrap();
        let mut rig = Rig::real(&dir);
        rig.options = LogOptions { segment_bytes: 1 << 20, writer, ..rig.options };
        let mut log = rig.create();
        append(&mut log, 1, 100);
        sync(&mut log).unwrap();
        append(&mut log, 1, 5_000);
        append(&mut log, 1, 9_000);
        let other = Known { read_only: true, ..AFTER_KILL };
        let (reader, _) = rig.open(&other).unwrap();
        let held = reader.segments().first().unwrap().window(0).unwrap();
        let lost = all_of(&held).len() as u64 - 12_000;
        let path = log.segments().first().unwrap().path.clone();
        drop(log);
        let file = rig.env.disk.open(&path, Access::ReadWrite).unwrap();
        file.write_at(&[0; 100], lost).unwrap();
        let before = all_of(&held);
        for ends in 1..3 {
            let (mut log, report) = rig.open(&AFTER_KILL).unwrap();
            assert!(report.corrupt.is_empty() && log.log_end() == ends, "{report:?}");
            append(&mut log, 1, 100);
            log.roll_for(0).unwrap();
            sync(&mut log).unwrap();
            finish_segments(&mut log).unwrap();
            assert!(log.segments().first().unwrap().read_footer().unwrap().is_some());
            assert!(all_of(&held) == before, "{writer:?}, {ends}");
        }
    }
}

/// An access to a map behind the end of its file is SIGBUS.
// RED: src/log/tasks.rs
//   - let end = u64::from(self.sealed.data_end).max(self.segment.shown_end());
//   + let end = u64::from(self.sealed.data_end);
#[test]
fn row_d25_no_file_is_shortened_below_what_its_map_shows() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::real(&dir);
    rig.options = LogOptions { segment_bytes: 1 << 20, writer: Writer::Stores, ..rig.options };
    let log = sealed_early(&rig);
    let segment = log.segments().first().unwrap();
    let held = segment.window(0).unwrap();
    let (before, longest) = (all_of(&held), length(&segment));
    let mut task = log.backlog().begin_footer(None).unwrap();
    task.sealed.data_end = 4_096;
    task.run().unwrap();
    assert!(length(&segment) < longest, "it was shortened");
    assert!(all_of(&held) == before);
}

/// A file is read from its end, a piece at a time.
#[test]
fn the_end_of_what_is_not_zero_is_found() {
    let disk = MemoryDisk::new();
    let file = disk.create(Path::new("/f")).unwrap();
    let length = 3 * CHUNK_BYTES as u64 + 100;
    file.allocate(length).unwrap();
    let end = |from| end_of_contents(&*file, from..length).unwrap();
    assert_eq!((end(0), end(length), end(length + 9)), (0, length, length + 9));
    let chunk = CHUNK_BYTES as u64;
    for at in [0, 63, 99, 100, chunk + 99, chunk + 100, 2 * chunk + 777, length - 1] {
        file.write_at(&[1], at).unwrap();
        assert_eq!((end(0), end(at)), (at + 1, at + 1));
        assert_eq!(end(at + 1), at + 1);
    }
}

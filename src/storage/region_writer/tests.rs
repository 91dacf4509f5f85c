//! The publication protocol over heap memory, where Miri can follow it, and what the writer
//! refuses. Maps of real files are tested with the real disk.

use std::path::Path;

use super::*;
use crate::storage::disk::{Disk, MemoryDisk};

fn writer(capacity: usize) -> RegionWriter {
    let memory = Memory::heap(capacity).unwrap();
    let mut writer = RegionWriter::new(memory, 0, None, true).unwrap();
    writer.set_writable(capacity);
    writer
}

fn kind<T>(result: io::Result<T>) -> Option<io::ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn published_bytes_are_read_and_others_are_not() {
    let mut writer = writer(64);
    writer.write(0, b"hello").unwrap();
    let region = Arc::clone(writer.region());
    assert_eq!(region.bytes(0..1), None);
    writer.publish(5);
    assert_eq!(region.bytes(0..5), Some(&b"hello"[..]));
    assert_eq!(region.bytes(1..3), Some(&b"el"[..]));
    assert_eq!(region.bytes(0..6), None);
    assert!(!region.is_mapped() && region.is_readable());
}

#[test]
fn writing_below_the_published_end_is_refused() {
    let mut writer = writer(64);
    writer.write(0, b"abcd").unwrap();
    writer.write(2, b"CD").unwrap();
    writer.publish(4);
    assert_eq!(kind(writer.write(3, b"x")), Some(io::ErrorKind::InvalidInput));
    writer.write(4, b"e").unwrap();
    writer.publish(5);
    assert_eq!(writer.region().bytes(0..5), Some(&b"abCDe"[..]));
}

/// Whether the word is stored afterwards, or put into the bytes because a file takes them too.
#[test]
fn a_word_replaces_what_the_bytes_have_there() {
    let disk = MemoryDisk::new();
    for file in [None, Some(disk.create(Path::new("/f")).unwrap())] {
        let memory = Memory::heap(64).unwrap();
        let mut writer = RegionWriter::new(memory, 0, file.clone(), true).unwrap();
        writer.set_writable(64);
        writer.write_with(0, &mut b"ab????gh".to_vec(), 2, *b"cdef").unwrap();
        writer.publish(8);
        assert_eq!(writer.region().bytes(0..8), Some(&b"abcdefgh"[..]));
        if let Some(file) = file {
            let mut stored = [0; 8];
            file.read_at(&mut stored, 0).unwrap();
            assert_eq!(&stored, b"abcdefgh");
        }
        let refused = writer.write_with(8, &mut b"abcdef".to_vec(), 3, *b"xxxx");
        assert_eq!(kind(refused), Some(io::ErrorKind::InvalidInput), "beyond the bytes");
        let refused = writer.write_with(60, &mut b"abcdef".to_vec(), 0, *b"xxxx");
        assert_eq!(kind(refused), Some(io::ErrorKind::InvalidInput), "beyond the memory");
    }
}

#[test]
#[should_panic(expected = "published bytes stay published")]
fn the_published_end_never_goes_back() {
    let mut writer = writer(64);
    writer.write(0, b"abcd").unwrap();
    writer.publish(4);
    writer.publish(3);
}

#[test]
#[should_panic(expected = "only written bytes are published")]
fn what_was_not_written_is_not_published() {
    let mut writer = writer(64);
    writer.write(0, b"abcd").unwrap();
    writer.publish(5);
}

#[test]
#[expect(clippy::reversed_empty_ranges, reason = "a reversed range must be refused too")]
fn ranges_at_the_edges_of_arithmetic_are_refused() {
    let mut writer = writer(8);
    writer.write(0, &[1; 8]).unwrap();
    writer.publish(8);
    let region = writer.region();
    for range in [0..usize::MAX, usize::MAX..usize::MAX, usize::MAX..0, 5..4, 8..9, 9..9] {
        assert_eq!(region.bytes(range.clone()), None, "{range:?}");
    }
    for position in [9, usize::MAX - 1, usize::MAX] {
        assert!(writer.write(position, &[1, 2]).is_err(), "{position}");
    }
    assert!(writer.region().populate(0..9).is_err());
    assert!(writer.region().populate(usize::MAX..0).is_err());
}

#[test]
fn empty_ranges_are_empty_slices_up_to_the_published_end() {
    let mut writer = writer(8);
    assert_eq!(writer.region().bytes(0..0), Some(&[][..]));
    assert_eq!(writer.region().bytes(1..1), None);
    writer.write(0, &[]).unwrap();
    writer.publish(0);
    writer.write(0, &[1]).unwrap();
    writer.publish(1);
    assert_eq!(writer.region().bytes(1..1), Some(&[][..]));
}

#[test]
fn a_region_of_no_capacity_takes_nothing() {
    let mut writer = writer(0);
    assert_eq!(writer.region().capacity(), 0);
    assert_eq!(writer.region().bytes(0..0), Some(&[][..]));
    writer.write(0, &[]).unwrap();
    assert!(writer.write(0, &[1]).is_err());
    assert!(writer.region().populate(0..0).is_ok());
}

#[test]
fn storing_needs_writable_memory() {
    let memory = Memory::heap(64).unwrap();
    let mut writer = RegionWriter::new(memory, 0, None, true).unwrap();
    assert!(writer.write(0, &[1]).is_err());
    writer.set_writable(2);
    writer.set_writable(1);
    assert_eq!(writer.writable(), 2);
    assert!(writer.write(1, &[1, 2]).is_err());
    writer.write(0, &[1, 2]).unwrap();
    writer.set_writable(usize::MAX);
    assert_eq!(writer.writable(), 64);
}

#[test]
fn memory_that_cannot_be_stored_into_is_refused() {
    assert!(RegionWriter::new(Memory::absent(8), 0, None, true).is_err());
    assert!(RegionWriter::new(Memory::heap(8).unwrap(), 0, None, false).is_err());
    let region = Region::from_bytes(b"abc").unwrap();
    assert!(RegionWriter::new(Memory::view(&region, 8), 3, None, true).is_err());
    assert!(Region::sealed(Memory::heap(8).unwrap(), 9).is_err());
    assert!(Memory::heap(usize::MAX).is_err());
}

#[test]
fn readers_see_every_published_byte_while_the_writer_appends() {
    let capacity: usize = if cfg!(miri) { 256 } else { 1 << 16 };
    let mut writer = writer(capacity);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let region = Arc::clone(writer.region());
            scope.spawn(move || {
                let mut seen = 0;
                while seen < region.capacity() {
                    let end = region.published();
                    assert!(end >= seen);
                    for (at, byte) in region.bytes(seen..end).unwrap().iter().enumerate() {
                        assert_eq!(usize::from(*byte), (seen + at) % 251);
                    }
                    seen = end;
                    std::thread::yield_now();
                }
            });
        }
        for position in (0..capacity).step_by(16) {
            let chunk: Vec<u8> =
                (position..position + 16).map(|at| u8::try_from(at % 251).unwrap()).collect();
            writer.write(position, &chunk).unwrap();
            writer.publish(position + 16);
        }
    });
}

/// Invariant 1 is looked at where it could break.
#[test]
#[should_panic(expected = "stored where it is ready")]
#[cfg(debug_assertions)]
fn a_writer_ahead_of_its_memory_is_found() {
    let mut writer = writer(8);
    writer.writable = 0;
    writer.written = 1;
    writer.check();
}

//! The disk in the heap: that chunks and region together are one file, kept once.

use super::*;
use crate::storage::region_writer::RegionWriter;

fn read(file: &dyn DiskFile, position: u64, length: usize) -> Vec<u8> {
    let mut buffer = vec![0xFF; length];
    let count = file.read_at(&mut buffer, position).unwrap();
    buffer.truncate(count);
    buffer
}

fn chunks(disk: &MemoryDisk, path: &str) -> usize {
    disk.names.lock().file(Path::new(path)).unwrap().bytes.lock().chunks.len()
}

#[test]
fn header_region_and_footer_are_one_file() {
    let disk = MemoryDisk::new();
    let file = disk.create(Path::new("log")).unwrap();
    file.write_at(b"header", 0).unwrap();
    file.allocate(20_000).unwrap();
    let memory = file.map(20_000, Access::ReadWrite).unwrap();
    let mut writer = RegionWriter::new(memory, 6, None, true).unwrap();
    writer.set_writable(20_000);
    writer.write(6, &[7; 9000]).unwrap();
    assert_eq!(read(&*file, 0, 8), b"header\0\0", "not published yet");
    writer.publish(9006);
    file.write_at(b"footer", 19_000).unwrap();
    assert_eq!(writer.region().bytes(0..7), Some(&b"header\x07"[..]));
    assert_eq!(read(&*file, 4, 4), b"er\x07\x07");
    assert_eq!(read(&*file, 9004, 4), [7, 7, 0, 0]);
    assert_eq!(read(&*file, 18_999, 8), b"\0footer\0");
    assert_eq!((file.len().unwrap(), chunks(&disk, "log")), (20_000, 1));
    assert!(file.write_at(b"x", 9005).is_err(), "published bytes never change");
    file.release(9006..19_003).unwrap();
    assert_eq!(read(&*file, 19_000, 7), b"\0\0\0ter\0");

    // The file, opened again, shows the same memory.
    let file = disk.open(Path::new("log"), Access::Read).unwrap();
    let sealed = Region::sealed(file.map(20_000, Access::Read).unwrap(), 9006).unwrap();
    let (first, second) = (writer.region().bytes(0..9006), sealed.bytes(0..9006));
    assert_eq!(first.map(<[u8]>::as_ptr), second.map(<[u8]>::as_ptr));
    drop(writer);
    assert_eq!(read(&*file, 0, 7), b"header\x07");
    assert!(file.write_at(b"x", 19_999).is_err());
}

#[test]
fn a_file_written_by_calls_is_mapped_and_then_kept_once() {
    let disk = MemoryDisk::new();
    let file = disk.create(Path::new("log")).unwrap();
    let bytes: Vec<u8> = (0..10_000u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    for (start, part) in (0u64..).step_by(999).zip(bytes.chunks(999)) {
        file.write_at(part, start).unwrap();
    }
    assert_eq!(read(&*file, 0, 20_000), bytes);
    assert!(read(&*file, 10_000, 1).is_empty());
    assert!(read(&*file, u64::MAX, 1).is_empty());
    let sealed = Region::sealed(file.map(10_000, Access::Read).unwrap(), 10_000).unwrap();
    assert_eq!(sealed.bytes(0..10_000), Some(&bytes[..]));
    assert_eq!(chunks(&disk, "log"), 1);
    assert_eq!(read(&*file, 0, 20_000), bytes);
}

#[test]
fn what_follows_the_published_end_is_in_a_new_map() {
    let disk = MemoryDisk::new();
    let file = disk.create(Path::new("log")).unwrap();
    let memory = file.map(64, Access::ReadWrite).unwrap();
    let mut writer = RegionWriter::new(memory, 0, Some(Arc::clone(&file)), true).unwrap();
    writer.set_writable(64);
    writer.write(0, b"one").unwrap();
    writer.publish(3);
    writer.write(3, b"two").unwrap();
    drop(writer);
    let sealed = Region::sealed(file.map(64, Access::Read).unwrap(), 6).unwrap();
    assert_eq!(sealed.bytes(0..6), Some(&b"onetwo"[..]));
}

#[test]
fn a_writer_never_shares_the_memory_of_another() {
    let disk = MemoryDisk::new();
    let file = disk.create(Path::new("log")).unwrap();
    let map = || file.map(64, Access::ReadWrite).unwrap();
    let mut first = RegionWriter::new(map(), 0, None, true).unwrap();
    let mut second = RegionWriter::new(map(), 0, None, true).unwrap();
    for (writer, bytes) in [(&mut first, b"aa"), (&mut second, b"bb")] {
        writer.set_writable(64);
        writer.write(0, bytes).unwrap();
        writer.publish(2);
    }
    assert_eq!(first.region().bytes(0..2), Some(&b"aa"[..]));
    assert_eq!(read(&*file, 0, 2), b"bb");
}

#[test]
fn a_full_disk_says_so_and_recovers_when_a_file_is_removed() {
    let disk = MemoryDisk::with_capacity_limit(100);
    let file = disk.create(Path::new("a")).unwrap();
    file.allocate(60).unwrap();
    file.write_at(&[1; 60], 0).unwrap();
    let other = disk.create(Path::new("b")).unwrap();
    assert_eq!(other.allocate(41).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(other.write_at(&[1], 40).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(other.len().unwrap(), 0);
    disk.remove_file(Path::new("a")).unwrap();
    assert!(other.allocate(100).is_err(), "the file is still open");
    drop(file);
    other.allocate(100).unwrap();
}

#[test]
fn a_shorter_file_gives_its_space_back_and_keeps_what_is_published() {
    let disk = MemoryDisk::with_capacity_limit(10_000);
    let file = disk.create(Path::new("a")).unwrap();
    file.allocate(10_000).unwrap();
    let memory = file.map(10_000, Access::ReadWrite).unwrap();
    let mut writer = RegionWriter::new(memory, 0, Some(Arc::clone(&file)), true).unwrap();
    writer.set_writable(10_000);
    writer.write(0, &[1; 5_000]).unwrap();
    writer.publish(4_500);
    assert!(file.shorten(4_499).is_err());
    file.shorten(4_500).unwrap();
    file.shorten(9_000).unwrap();
    assert_eq!(file.len().unwrap(), 4_500);
    writer.end_stores();
    assert!(writer.write(5_000, &[1]).is_err(), "stores have ended");
    disk.create(Path::new("b")).unwrap().allocate(5_500).unwrap();
    assert!(file.allocate(4_501).is_err());
    disk.remove_file(Path::new("b")).unwrap();
    file.allocate(10_000).unwrap();
    assert_eq!(read(&*file, 4_490, 20), [[1; 10], [0; 10]].concat());
}

#[test]
fn names_behave_like_a_file_system() {
    let disk = MemoryDisk::new();
    let kind = |result: io::Result<()>| result.err().map(|error| error.kind());
    let (dir, path) = (Path::new("/data/x"), Path::new("/data/x/f"));
    assert_eq!(kind(disk.create_dir(dir)), Some(ErrorKind::NotFound));
    disk.create_dir(Path::new("/data")).unwrap();
    disk.create_dir(dir).unwrap();
    disk.create_dir(Path::new("/data/x-y")).unwrap();
    disk.create(path).unwrap();
    assert!(disk.create(path).is_err() && disk.create(&path.join("below")).is_err());
    assert_eq!(disk.list(dir).unwrap(), [Entry { name: "f".into(), kind: EntryKind::File }]);
    assert_eq!(disk.list(Path::new("/data")).unwrap().len(), 2);
    assert_eq!(kind(disk.remove_dir(dir)), Some(ErrorKind::DirectoryNotEmpty));
    assert_eq!(kind(disk.remove_file(dir)), Some(ErrorKind::IsADirectory));
    disk.create(&dir.join("g")).unwrap();
    assert_eq!(kind(disk.rename(path, &dir.join("g"))), Some(ErrorKind::AlreadyExists));
    disk.rename(path, &dir.join("h")).unwrap();
    assert_eq!(disk.kind(path).unwrap(), None);
    assert_eq!(disk.kind(Path::new("/")).unwrap(), Some(EntryKind::Directory));
    assert!(disk.open(path, Access::Read).is_err() && disk.sync_dir(path).is_err());
    disk.remove_file(&dir.join("g")).unwrap();
    disk.remove_file(&dir.join("h")).unwrap();
    disk.remove_dir(dir).unwrap();
}

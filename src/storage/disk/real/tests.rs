//! The real disk in a temporary directory: what it refuses, how space is had, maps, and that a
//! file survives the loss of its descriptor. Failing syncs need a failing device; what is done
//! about one is tested by setting it.

use std::io::ErrorKind;

use super::*;
use crate::storage::region::Region;
use crate::storage::region_writer::RegionWriter;
use tempfile::{TempDir, tempdir};

fn disk(limit: usize) -> (TempDir, RealDisk) {
    (tempdir().unwrap(), RealDisk::with_descriptors(limit))
}

fn kind<T>(result: io::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

fn read(file: &dyn DiskFile, position: u64, length: usize) -> Vec<u8> {
    let mut buffer = vec![0xFF; length];
    let count = file.read_at(&mut buffer, position).unwrap();
    buffer.truncate(count);
    buffer
}

/// A file as its own type, to look inside.
fn real(disk: &RealDisk, path: &Path) -> Arc<RealFile> {
    drop(disk.create(path).unwrap());
    let file = platform::open(path, Access::ReadWrite).unwrap();
    let identity = platform::identity(&file.metadata().unwrap());
    let file = Arc::new_cyclic(|this| RealFile {
        this: Weak::clone(this),
        budget: Arc::clone(&disk.budget),
        access: Access::ReadWrite,
        identity,
        used: AtomicBool::new(false),
        syncing: Mutex::new(()),
        state: Mutex::new(State {
            path: path.to_path_buf(),
            file: Some(Arc::new(file)),
            written: Marks::default(),
            stored: Marks::default(),
            failed: None,
        }),
    });
    disk.budget.opened(Weak::clone(&file.this));
    file
}

#[test]
fn files_are_created_written_read_and_listed() {
    let (dir, disk) = disk(8);
    let sub = dir.path().join("sub");
    disk.create_dir(&sub).unwrap();
    let path = sub.join("b");
    let file = disk.create(&path).unwrap();
    file.write_at(b"hello", 3).unwrap();
    file.sync().unwrap();
    assert_eq!(file.len().unwrap(), 8);
    assert_eq!(read(&*file, 2, 100), b"\0hello");
    assert_eq!(kind(disk.create(&path)), Some(ErrorKind::AlreadyExists));
    disk.create(&sub.join("a")).unwrap();
    disk.sync_dir(&sub).unwrap();
    let names: Vec<String> = disk.list(&sub).unwrap().into_iter().map(|e| e.name).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(disk.kind(&sub).unwrap(), Some(EntryKind::Directory));
    assert_eq!(disk.kind(&sub.join("c")).unwrap(), None);
    assert_eq!(kind(disk.rename(&sub.join("a"), &path)), Some(ErrorKind::AlreadyExists));
    disk.rename(&sub.join("a"), &sub.join("c")).unwrap();
    let outside = dir.path().join("c");
    disk.rename(&sub.join("c"), &outside).unwrap();
    assert_eq!(
        (disk.kind(&sub.join("c")).unwrap(), file.has_other_names().unwrap()),
        (None, false)
    );
    assert_eq!(kind(disk.rename(&outside, &path)), Some(ErrorKind::AlreadyExists));
    disk.remove_file(&outside).unwrap();
    disk.remove_file(&path).unwrap();
    disk.remove_dir(&sub).unwrap();
}

#[test]
#[cfg(unix)]
fn what_is_not_a_regular_file_is_refused_without_waiting() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, disk) = disk(8);
    let (path, link) = (dir.path().join("file"), dir.path().join("link"));
    disk.create(&path).unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(disk.open(&link, Access::Read).is_err());
    assert!(disk.create(&link).is_err());
    assert_eq!(disk.kind(&link).unwrap(), Some(EntryKind::Other));
    assert!(disk.open(dir.path(), Access::Read).is_err());
    let fifo = dir.path().join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    if made.is_ok_and(|status| status.success()) {
        assert_eq!(kind(disk.open(&fifo, Access::Read)), Some(ErrorKind::InvalidInput));
    }
    let sub = dir.path().join("sub");
    disk.create_dir(&sub).unwrap();
    let bits = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((bits(&sub), bits(&path)), (0o700, 0o600));
}

#[test]
#[cfg(target_os = "linux")]
fn allocated_space_is_real_and_released_space_reads_as_zeros() {
    use std::os::unix::fs::MetadataExt;
    let (dir, disk) = disk(8);
    let path = dir.path().join("file");
    let file = disk.create(&path).unwrap();
    file.allocate(1 << 20).unwrap();
    file.allocate(1 << 10).unwrap();
    let blocks = || std::fs::metadata(&path).unwrap().blocks() * 512;
    assert_eq!(file.len().unwrap(), 1 << 20);
    assert!(blocks() >= 1 << 20);
    file.write_at(&[7; 8192], 8192).unwrap();
    file.release(8192..1 << 20).unwrap();
    assert_eq!(file.len().unwrap(), 1 << 20);
    assert_eq!(read(&*file, 8192, 2), [0, 0]);
    // Refused before anything is written: the fallback for EINVAL would fill the disk.
    assert_eq!(kind(file.allocate(u64::MAX)), Some(ErrorKind::FileTooLarge));
    assert_eq!(file.len().unwrap(), 1 << 20);
}

/// A reader of the map touches nothing beyond what is published, and so does not notice.
#[test]
#[cfg(target_os = "linux")]
fn a_shorter_file_keeps_what_its_map_has_published() {
    let (dir, disk) = disk(8);
    let file = disk.create(&dir.path().join("file")).unwrap();
    file.allocate(1 << 20).unwrap();
    file.write_at(&[7; 5_000], 0).unwrap();
    let region = Region::sealed(file.map(1 << 20, Access::ReadWrite).unwrap(), 5_000).unwrap();
    assert_eq!(region.bytes(0..5_000), Some(&[7; 5_000][..]));
    for end in [2 << 20, 1 << 20, 8_192] {
        file.shorten(end).unwrap();
        assert_eq!(file.len().unwrap(), end.min(1 << 20));
    }
    assert_eq!(region.bytes(0..5_000), Some(&[7; 5_000][..]));
    // What comes too late is an error and no signal: more space, and its pages.
    assert!(region.populate(0..1 << 20).is_err());
    file.allocate(16_384).unwrap();
    assert_eq!(read(&*file, 8_190, 4), [0; 4]);
}

#[test]
#[cfg(target_os = "linux")]
fn stores_and_writes_show_in_a_map_and_in_the_file() {
    let (dir, disk) = disk(8);
    let file = disk.create(&dir.path().join("file")).unwrap();
    file.allocate(8192).unwrap();
    let memory = file.map(1 << 20, Access::ReadWrite).unwrap();
    let mut writer = RegionWriter::new(memory, 0, None, true).unwrap();
    writer.region().populate(0..8192).unwrap();
    writer.set_writable(8192);
    writer.write(4090, b"stored").unwrap();
    assert!(writer.write(8190, b"beyond").is_err());
    writer.publish(4096);
    file.set_dirty(true);
    file.sync().unwrap();
    assert_eq!(read(&*file, 4090, 6), b"stored");
    assert!(writer.region().is_mapped());

    let memory = file.map(8192, Access::Read).unwrap();
    let mut writer = RegionWriter::new(memory, 4096, Some(Arc::clone(&file)), false).unwrap();
    writer.write(4096, b"written").unwrap();
    writer.publish(4103);
    assert_eq!(writer.region().bytes(4090..4103), Some(&b"storedwritten"[..]));
    assert!(writer.region().populate(0..1).is_err(), "the map is read-only");

    let memory = file.map(1 << 20, Access::Read).unwrap();
    assert!(Region::sealed(memory, 8193).is_err(), "published beyond the file's end");
    assert!(RegionWriter::new(file.map(8192, Access::Read).unwrap(), 0, None, true).is_err());
}

#[test]
fn files_outlive_their_descriptors() {
    let (dir, disk) = disk(4);
    let paths: Vec<PathBuf> = (0..40).map(|n| dir.path().join(n.to_string())).collect();
    let files: Vec<_> = paths.iter().map(|path| disk.create(path).unwrap()).collect();
    assert!(disk.budget.open() <= 4, "{}", disk.budget.open());
    for round in 0..3u64 {
        for (number, file) in (0u8..).zip(&files) {
            file.write_at(&[number], round).unwrap();
        }
    }
    assert!(disk.budget.open() <= 4, "{}", disk.budget.open());
    let moved = dir.path().join("moved");
    disk.rename(&paths[0], &moved).unwrap();
    files[0].renamed(&moved);
    for (number, file) in (0u8..).zip(&files) {
        assert_eq!(read(&**file, 0, 9), [number; 3]);
        file.sync().unwrap();
    }
    drop(files);
    assert_eq!(disk.budget.open(), 0);
}

#[test]
fn clean_descriptors_are_given_up_before_dirty_ones() {
    let (dir, disk) = disk(2);
    let dirty = real(&disk, &dir.path().join("dirty"));
    dirty.set_dirty(true);
    let clean = real(&disk, &dir.path().join("clean"));
    let _third = disk.create(&dir.path().join("third")).unwrap();
    assert!(dirty.state.lock().file.is_some());
    assert!(clean.state.lock().file.is_none());
}

#[test]
fn a_dirty_descriptor_is_synced_before_it_is_given_up() {
    let (dir, disk) = disk(1);
    let file = real(&disk, &dir.path().join("file"));
    file.write_at(b"x", 0).unwrap();
    file.take_used();
    let _other = disk.create(&dir.path().join("other")).unwrap();
    let state = file.state.lock();
    assert!(state.file.is_none() && !state.written.is_dirty());
}

// RED: src/storage/disk/real.rs
//   - return Err(failure.error());
//   + drop(failure.error());
#[test]
fn row_d04_a_failed_sync_is_final() {
    let (dir, disk) = disk(1);
    let file = real(&disk, &dir.path().join("file"));
    file.write_at(b"x", 0).unwrap();
    file.state.lock().failed = Some(Failure { code: Some(5), kind: ErrorKind::Other });
    for _ in 0..2 {
        assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(5));
    }
    // Nor does losing the descriptor make it forget.
    file.take_used();
    let _other = disk.create(&dir.path().join("other")).unwrap();
    assert!(file.state.lock().file.is_none());
    assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(5));
}

#[test]
fn a_change_during_a_sync_is_not_taken_for_synced() {
    let (dir, disk) = disk(8);
    let file = real(&disk, &dir.path().join("file"));
    // A write that began before the sync, and ends after it.
    let inner = file.with_descriptor(|state| state.written.make()).unwrap();
    file.set_dirty(true);
    file.sync().unwrap();
    file.state.lock().written.make();
    drop(inner);
    let state = file.state.lock();
    assert!(state.written.is_dirty() && !state.stored.is_dirty());
}

#[test]
fn a_descriptor_in_use_is_not_given_up() {
    let (dir, disk) = disk(1);
    let file = real(&disk, &dir.path().join("file"));
    let used = file.descriptor().unwrap();
    assert_eq!(file.give_up(), GivenUp::Busy);
    let _other = disk.create(&dir.path().join("other")).unwrap();
    assert!(file.state.lock().file.is_some());
    drop(used);
    assert_eq!(file.give_up(), GivenUp::Closed);
    disk.budget.closed();
}

#[test]
#[cfg(unix)]
fn another_file_of_the_same_name_is_not_taken_for_it() {
    let (dir, disk) = disk(1);
    let path = dir.path().join("file");
    let file = real(&disk, &path);
    assert_eq!(file.give_up(), GivenUp::Closed);
    disk.budget.closed();
    // The old file remains under another name, so its inode is not used again.
    disk.rename(&path, &dir.path().join("kept")).unwrap();
    disk.create(&path).unwrap();
    assert_eq!(kind(file.len()), Some(ErrorKind::NotFound));
    file.renamed(&dir.path().join("kept"));
    assert_eq!(file.len().unwrap(), 0);
}

#[test]
fn threads_share_few_descriptors() {
    let (dir, disk) = disk(3);
    let files: Vec<_> =
        (0..12).map(|number| disk.create(&dir.path().join(number.to_string())).unwrap()).collect();
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let files = &files;
            scope.spawn(move || {
                for round in 0..60usize {
                    let file = &files[(round * 7 + usize::from(thread)) % files.len()];
                    let at = u64::from(thread) * 64 + round as u64;
                    file.write_at(&[thread + 1], at).unwrap();
                    assert_eq!(read(&**file, at, 1), [thread + 1]);
                    if round % 20 == 0 {
                        file.sync().unwrap();
                    }
                }
            });
        }
    });
    drop(files);
    assert_eq!(disk.budget.open(), 0);
}

// RED: src/storage/platform.rs
//   - IN_PLACE.contains(&magic)
//   + magic != 0
#[test]
#[cfg(target_os = "linux")]
fn row_c03_mapped_writes_are_for_known_file_systems() {
    let disk = RealDisk::new();
    assert!(!disk.supports_mapped_writes(Path::new("/proc")));
    assert!(!disk.supports_mapped_writes(Path::new("/does/not/exist")));
}

/// The kernel may answer any call with EINTR; std repeats some of them.
// RED: src/storage/platform.rs
//   - if !result.as_ref().is_err_and(interrupted) {
//   + if !result.as_ref().is_err_and(interrupted) || true {
#[test]
fn row_c11_an_interrupted_call_is_made_again() {
    let mut calls = 0;
    let answer = platform::retried(|| {
        calls += 1;
        if calls < 4 { Err(ErrorKind::Interrupted.into()) } else { Ok(calls) }
    });
    assert_eq!(answer.unwrap(), 4);
}

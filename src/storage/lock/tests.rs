//! One broker per directory, whatever somebody does to the lock file.

use super::*;
use std::sync::mpsc;
use tempfile::tempdir;

const AT_ONCE: Duration = Duration::ZERO;

fn is_locked(result: &Result<impl fmt::Debug>) -> bool {
    matches!(result, Err(Error::Locked { .. }))
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Files")
    }
}

#[test]
fn a_second_open_is_refused_until_the_first_is_dropped() {
    let dir = tempdir().unwrap();
    let lock = DirLock::acquire(dir.path(), AT_ONCE).unwrap();
    assert!(is_locked(&DirLock::acquire(dir.path(), AT_ONCE)));
    drop(lock);
    assert!(dir.path().join(FILE_NAME).exists());
    DirLock::acquire(dir.path(), AT_ONCE).unwrap();
}

// RED: src/storage/lock.rs
//   - let key = (platform::identity(metadata), path);
//   + let key = (platform::identity(metadata), path.join(dir));
#[test]
#[cfg(unix)]
fn row_f02_a_second_open_by_another_path_is_refused() {
    let dir = tempdir().unwrap();
    let (real, link) = (dir.path().join("real"), dir.path().join("link"));
    std::fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let _lock = DirLock::acquire(&real, AT_ONCE).unwrap();
    let entry = RegistryEntry::take(&link, &std::fs::metadata(&link).unwrap()).unwrap();
    assert!(matches!(entry, Err((Holder::Staying, 0))), "{entry:?}");
}

#[test]
fn another_process_is_refused_by_the_files_alone() {
    let dir = tempdir().unwrap();
    let lock = DirLock::acquire(dir.path(), AT_ONCE).unwrap();
    assert!(is_locked(&Files::lock(dir.path())));
    drop(lock);
    Files::lock(dir.path()).unwrap();
}

/// A holder that goes a moment later, in this process or another, made an opening fail: after the
/// last handle was dropped, after another opening had failed, while a new process took over from an
/// old one. Only one in this process that had said that it was closing was waited for. The rule: an
/// opening waits for any of them, as long as it was asked to.
// RED: src/storage/lock.rs
//   - if !wait(holder) {
//   + if holder == Holder::Staying || !wait(holder) {
#[test]
fn row_f14_any_holder_is_waited_for() {
    let dir = tempdir().unwrap();
    let open = |wait: &mut dyn FnMut() -> bool| {
        DirLock::take(dir.path(), check_owner, Files::lock, |_| wait())
    };
    let mut here = Some(DirLock::acquire(dir.path(), AT_ONCE).unwrap());
    open(&mut || here.take().is_some()).unwrap();
    // The files alone, as if the holder were another process.
    let mut elsewhere = Some(Files::lock(dir.path()).unwrap());
    open(&mut || elsewhere.take().is_some()).unwrap();

    let mut attempts = 0;
    let _stays = DirLock::acquire(dir.path(), AT_ONCE).unwrap();
    let mut three_times = || {
        attempts += 1;
        attempts < 3
    };
    assert!(is_locked(&open(&mut three_times)));
    assert_eq!(attempts, 3);
}

/// The wait is for a holder, and no longer than was asked for.
#[test]
fn a_wait_is_over_when_its_time_is() {
    let (wait, begun) = (Duration::from_millis(20), real_now());
    let mut again = for_at_most(wait);
    while again(Holder::Staying) {}
    assert!(real_now() >= begun + wait);
    assert!(!for_at_most(AT_ONCE)(Holder::Staying));
    assert!(for_at_most(AT_ONCE)(Holder::Closing), "its last syncs and joins");
}

#[test]
fn a_closing_holder_is_waited_for() {
    let dir = tempdir().unwrap();
    let lock = DirLock::acquire(dir.path(), AT_ONCE).unwrap();
    lock.announce_closing();
    let (about_to_wait, waiting) = mpsc::channel();
    std::thread::scope(|scope| {
        let second = scope.spawn(|| {
            about_to_wait.send(()).unwrap();
            DirLock::acquire(dir.path(), AT_ONCE).map(drop)
        });
        waiting.recv().unwrap();
        drop(lock);
        second.join().unwrap().unwrap();
    });
}

#[test]
fn a_closing_holder_that_stays_is_not_waited_for_for_ever() {
    let dir = tempdir().unwrap();
    let lock = DirLock::acquire(dir.path(), AT_ONCE).unwrap();
    lock.announce_closing();
    let refused = DirLock::acquire(dir.path(), AT_ONCE);
    let closing = LockHolder::ThisProcess { handles: 0, is_closing: true };
    let is_named = matches!(&refused, Err(Error::Locked { holder, .. }) if *holder == closing);
    assert!(is_named, "{refused:?}");
}

#[test]
#[cfg(unix)]
fn a_lock_file_that_is_a_link_is_refused() {
    let dir = tempdir().unwrap();
    let target = dir.path().join("target");
    std::os::unix::fs::symlink(&target, dir.path().join(FILE_NAME)).unwrap();
    let result = DirLock::acquire(dir.path(), AT_ONCE);
    assert!(matches!(result, Err(Error::Io { .. })), "{result:?}");
    assert!(!target.exists());
    // The failed attempt has left nothing taken.
    std::fs::remove_file(dir.path().join(FILE_NAME)).unwrap();
    DirLock::acquire(dir.path(), AT_ONCE).unwrap();
}

// RED: src/storage/lock.rs
//   - Some(Ok(())) => lock_dir,
//   + Some(Ok(())) => None,
#[test]
#[cfg(target_os = "linux")]
fn row_f03_a_deleted_lock_file_is_noticed_and_lets_nobody_in() {
    let dir = tempdir().unwrap();
    let lock = DirLock::acquire(dir.path(), AT_ONCE).unwrap();
    assert!(lock.is_intact());
    std::fs::remove_file(dir.path().join(FILE_NAME)).unwrap();
    assert!(!lock.is_intact());
    assert!(is_locked(&Files::lock(dir.path())));
    // Replaced: the new file is nobody's, and the directory still ours.
    std::fs::write(dir.path().join(FILE_NAME), "").unwrap();
    assert!(!lock.is_intact());
    assert!(is_locked(&Files::lock(dir.path())));
    drop(lock);
    assert!(DirLock::acquire(dir.path(), AT_ONCE).unwrap().is_intact());
}

#[test]
fn a_missing_directory_is_not_created() {
    let dir = tempdir().unwrap();
    let result = DirLock::acquire(&dir.path().join("none"), AT_ONCE);
    assert!(matches!(result, Err(Error::Io { .. })), "{result:?}");
}

/// A broker that only reads is kept out as others are, keeps others out, and leaves no file.
#[test]
fn a_directory_is_locked_by_what_is_there() {
    let dir = tempdir().unwrap();
    let reading = DirLock::acquire_read_only(dir.path()).unwrap();
    assert!(is_locked(&DirLock::acquire(dir.path(), AT_ONCE)));
    drop(reading);
    assert!(!dir.path().join(FILE_NAME).exists());

    let writing = DirLock::acquire(dir.path(), AT_ONCE).unwrap();
    assert!(is_locked(&DirLock::acquire_read_only(dir.path())));
    assert!(is_locked(&Files::lock_what_is_there(dir.path())), "by the files alone, too");
    drop(writing);
    let reading = Files::lock_what_is_there(dir.path()).unwrap();
    assert!(is_locked(&Files::lock(dir.path())));
    assert!(reading.lock.is_some());
}

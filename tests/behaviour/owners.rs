//! Goal: files that somebody else may change, or whose names are not all ours, are refused or left
//! alone; what may not be read or written is an error that can be mended.
//!
//! Method: real files. Links and modes are set by hand; another user is this test binary again, as
//! a child under `setpriv`. Without root, or without `setpriv`, that part is skipped, loudly.
//!
//! Not covered: access lists, and what root may do, which is everything.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(target_os = "linux")]

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::common::*;
use logpond::{Broker, Cleanup, CorruptionKind, Error, Record, RecoveryPolicy};

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

/// What every file holds.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    files_below(dir).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[expect(clippy::disallowed_methods, reason = "somebody else's hands")]
fn rename(from: &Path, to: &Path) {
    fs::rename(from, to).unwrap();
}

/// A store with ten numbers in the topic `t`, whose end is clean.
fn make_store(dir: &Path) {
    let broker = open_quiet(dir);
    broker.ensure_topic("t", small_topic(1)).unwrap();
    send_numbers(&broker, "t", 0, 0..10);
    broker.close().unwrap();
}

fn numbers(broker: &Broker) -> Vec<u64> {
    read_all(&broker.topic("t").unwrap().partition(0).unwrap()).iter().map(number).collect()
}

fn assert_success(output: &Output, context: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{context}: {}: {said}", output.status);
}

// ---- links ----------------------------------------------------------------------------------

/// A link where a file or directory of the store should be is not followed, whatever it leads to.
// RED: src/storage/platform.rs
//   - let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
//   + let flags = flags | OFlags::CLOEXEC;
// RED: src/log/inventory.rs
//   - check_no_link(&*self.env.disk, dir)?;
#[test]
fn row_e20_a_link_in_place_of_an_entry_is_refused_and_its_target_is_untouched() {
    let dir = temp_dir();
    let (store, elsewhere) = (dir.path().join("store"), dir.path().join("elsewhere"));
    make_store(&store);
    let segment = files_below(&store.join("t/0")).remove(0);
    let segment = segment.strip_prefix(&store).unwrap().to_str().unwrap();
    for name in ["t", "t/0", "__meta", "__meta/0", "__offsets", "__local", "LOCK", segment] {
        let path = store.join(name);
        rename(&path, &elsewhere);
        symlink(&elsewhere, &path).unwrap();
        let before = contents(&store);
        let refused = Broker::open(&store);
        match &refused {
            Err(Error::Io { path: named, .. }) => assert!(named.starts_with(&path), "{refused:?}"),
            // The topic alone is refused.
            Ok(broker) if name.starts_with('t') => {
                let damage = broker.recovery().partitions.iter().flat_map(|it| &it.corrupt);
                let files: Vec<_> = damage.map(|it| it.file.clone()).collect();
                assert!(files.len() == 1 && files[0].starts_with(&path), "{files:?}");
            }
            other => panic!("{name}: {other:?}"),
        }
        drop(refused);
        let is_of_topic = |file: &(PathBuf, Vec<u8>)| file.0.starts_with(store.join("t"));
        let kept = |files: Vec<_>| files.into_iter().filter(is_of_topic).collect::<Vec<_>>();
        assert!(kept(contents(&store)) == kept(before), "{name}");
        fs::remove_file(&path).unwrap();
        rename(&elsewhere, &path);
    }
    let broker = open_quiet(&store);
    assert!(broker.recovery().is_clean(), "{:?}", broker.recovery());
    assert_eq!(numbers(&broker), (0..10).collect::<Vec<_>>());
}

/// A name that the next segment needs is taken by a link: that segment gets another name.
#[test]
fn row_e20_a_link_in_place_of_a_temporary_file_is_not_written_through() {
    let dir = temp_dir();
    let store = dir.path().join("store");
    let victim = dir.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    make_store(&store);
    for number in 1..3 {
        symlink(&victim, store.join(format!("t/0/{number:020}.log.tmp"))).unwrap();
    }
    let broker = open_quiet(&store);
    let partition = broker.topic("t").unwrap().partition(0).unwrap();
    let value = "1".repeat(6_000);
    let mut refused = 0;
    while files_below(&store.join("t/0")).len() < 7 {
        match partition.append(&Record::new().value(&value)) {
            Ok(_) => {}
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::AlreadyExists => {
                refused += 1;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(refused <= 2, "{refused}");
    let end = partition.log_end_offset();
    broker.close().unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    let read = read_all(&open_quiet(&store).topic("t").unwrap().partition(0).unwrap());
    assert_eq!(read.len() as u64, end);
}

/// A copy that shares the files, as `cp -al` makes it; without `LOCK`, by which it would keep the
/// other one out.
fn link_all(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            link_all(&path, &target);
        } else if !path.ends_with("LOCK") {
            fs::hard_link(&path, &target).unwrap();
        }
    }
}

/// Symptom: a copy made of hard links, and opened, appended to the very file to which the store
/// that it was made of appended, and each lost records of the other. Cause: the lock is the
/// directory's, and a file can be in two. Rule: what has a second name is read, and never written
/// to.
// RED: src/log/inventory.rs
//   - Ok(ok && last.ends_at(point.position)? && !last.file.has_other_names()?)
//   + Ok(ok && last.ends_at(point.position)?)
// RED: src/log/tasks.rs
//   - if self.is_found && file.has_other_names().map_err(failed)? {
//   + if false {
#[test]
fn row_e20_a_copy_of_hard_links_and_its_original_do_not_write_to_each_others_files() {
    for is_closed in [true, false] {
        let dir = temp_dir();
        let (store, copy) = (dir.path().join("store"), dir.path().join("copy"));
        make_store(&store);
        let original = open_quiet(&store);
        send_numbers(&original, "t", 0, 10..12);
        let original = if is_closed {
            original.close().unwrap();
            link_all(&store, &copy);
            open_quiet(&store)
        } else {
            link_all(&store, &copy);
            original
        };
        let copied = open_quiet(&copy);
        assert_eq!(numbers(&copied), (0..12).collect::<Vec<_>>());
        for round in 0..3 {
            send_numbers(&copied, "t", 0, 100 + round..101 + round);
            send_numbers(&original, "t", 0, 200 + round..201 + round);
            // What the workers do: footers, and the unused space after them given back.
            copied.tick().unwrap();
            original.tick().unwrap();
        }
        let expected = |from: u64| (0..12).chain(from..from + 3).collect::<Vec<_>>();
        for (broker, path, from) in [(copied, &copy, 100), (original, &store, 200)] {
            assert_eq!(numbers(&broker), expected(from), "closed: {is_closed}");
            broker.close().unwrap();
            let again = open_quiet(path);
            assert!(again.recovery().is_clean(), "{:?}", again.recovery());
            assert_eq!(numbers(&again), expected(from), "closed: {is_closed}");
        }
    }
}

/// Symptom: with a backup by hard links beside it, a topic was never compacted again, and none of
/// its segments was given a footer. Cause: the segment that had a second name was refused its
/// footer as an error, and stood first in the queue of those to be given one. Rule: a footer that
/// may not be written is not missed.
// RED: src/log/tasks.rs
//   - self.is_shared = true;
//   + return Err(failed(std::io::Error::other("the file has another name")));
// RED: src/log/backlog.rs
//   - self.footerless.extend(done.filter(|_| task.is_shared));
//   + drop(done.filter(|_| task.is_shared));
#[test]
fn row_e20_a_backup_of_hard_links_does_not_stop_compaction_and_footers() {
    let dir = temp_dir();
    let (store, backup) = (dir.path().join("store"), dir.path().join("backup"));
    let puts = |broker: &Broker, from: u64| {
        for topic in ["compacted", "kept"] {
            let partition = broker.topic(topic).unwrap().partition(0).unwrap();
            for value in from..from + 20 {
                let value = format!("{value:03000}");
                partition.append(&Record::new().key("k").value(&value)).unwrap();
            }
        }
    };
    let values = |broker: &Broker, topic: &str| -> Vec<u64> {
        let partition = broker.topic(topic).unwrap().partition(0).unwrap();
        read_all(&partition).iter().map(number).collect()
    };
    let broker = open_quiet(&store);
    broker.ensure_topic("compacted", small_topic(1).cleanup(Cleanup::Compact)).unwrap();
    broker.ensure_topic("kept", small_topic(1)).unwrap();
    puts(&broker, 0);
    broker.close().unwrap();
    link_all(&store, &backup);
    let before = contents(&backup);

    for round in 1..4 {
        let broker = open_quiet(&store);
        assert!(broker.recovery().is_clean(), "{:?}", broker.recovery());
        puts(&broker, 20 * round);
        let end = 20 * (round + 1);
        broker.tick().unwrap();
        let described = broker.admin().describe_topic("compacted").unwrap();
        let stats = described.partitions[0].compaction.unwrap();
        assert!(stats.records_removed > 10, "round {round}: {stats:?}");
        let compacted = broker.admin().compact_now("compacted").unwrap();
        assert_eq!(compacted.records_removed, 0, "{compacted:?}");
        let left = values(&broker, "compacted");
        assert!(left.len() < 10 && left.last() == Some(&(end - 1)), "{left:?}");
        assert_eq!(values(&broker, "kept"), (0..end).collect::<Vec<_>>());
        for topic in ["compacted", "kept"] {
            let verified = broker.admin().verify(topic).unwrap();
            assert!(verified.is_ok(), "{verified:?}");
        }
        broker.close().unwrap();
        assert!(contents(&backup) == before, "round {round}");
    }
    let restored = open_quiet(&backup);
    assert!(restored.recovery().is_clean(), "{:?}", restored.recovery());
    assert_eq!(values(&restored, "compacted"), (0..20).collect::<Vec<_>>());
}

// ---- modes ----------------------------------------------------------------------------------

#[test]
fn child_makes_a_store() {
    let Some(dir) = child_dir() else { return };
    make_store(&dir.join("above/store"));
}

/// The umask can take from what the owner may, and never gives anything to others.
// RED: src/storage/platform.rs
//   - std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
// RED: src/storage/platform.rs
//   - let mode = Mode::RUSR | Mode::WUSR;
//   + let mode = Mode::RUSR | Mode::WUSR | Mode::ROTH;
#[test]
fn row_e21_what_is_made_is_for_its_owner_alone_whatever_the_umask() {
    for umask in ["000", "022", "077"] {
        let dir = temp_dir();
        let child = child("owners::child_makes_a_store", dir.path());
        let mut command = Command::new("sh");
        command.args(["-c", &format!("umask {umask}; exec \"$@\""), "sh"]).arg(child.get_program());
        let output = command.args(child.get_args()).env(CHILD_DIR, dir.path()).output().unwrap();
        assert_success(&output, umask);
        let store = dir.path().join("above/store");
        for made in ["", "t", "t/0", "__meta", "__meta/0", "__offsets", "__local/0"] {
            assert_eq!(mode(&store.join(made)), 0o700, "{made:?} under {umask}");
        }
        assert_eq!(mode(&dir.path().join("above")), 0o700);
        let files = files_below(&store);
        assert!(files.len() > 4, "{files:?}");
        for file in files {
            assert_eq!(mode(&file), 0o600, "{} under {umask}", file.display());
        }
    }
}

// RED: src/storage/lock.rs
//   - Self::take(dir, check_owner, Files::lock, for_at_most(wait))
//   + Self::take(dir, |_, _| Ok(()), Files::lock, for_at_most(wait))
#[test]
fn row_e21_a_directory_that_every_user_may_write_to_is_refused() {
    let dir = temp_dir();
    let store = dir.path().join("store");
    for mode in [0o777, 0o1777, 0o703, 0o702] {
        // Empty, as the root of a volume is.
        fs::create_dir(&store).unwrap();
        set_mode(&store, mode);
        assert_eq!(refused_setting(Broker::open(&store)), "data_dir", "{mode:o}");
        assert_eq!(fs::read_dir(&store).unwrap().count(), 0, "{mode:o}");
        // A directory below it is ours.
        make_store(&store.join("mine"));
        fs::remove_dir_all(&store).unwrap();
    }
    make_store(&store);
    set_mode(&store, 0o777);
    let before = contents(&store);
    let refused = Broker::open(&store).unwrap_err();
    assert!(refused.is_definite() && refused.to_string().contains("every user"), "{refused}");
    assert!(contents(&store) == before);
    // To look at it is no risk: nothing is mapped.
    let inspected = Broker::builder().data_dir(&store).read_only(true).open().unwrap();
    assert_eq!(numbers(&inspected).len(), 10);
    drop(inspected);
    // To a group it may belong.
    for mode in [0o770, 0o755, 0o700] {
        set_mode(&store, mode);
        open_quiet(&store).close().unwrap();
    }
}

// ---- another user ---------------------------------------------------------------------------

const NOBODY: u32 = 65534;

/// This test binary as the user `nobody`. `None`, and a line on stderr, where that is not possible.
fn as_nobody(dir: &Path) -> Option<impl Fn(&str, &Path) -> Output> {
    let ids = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];
    let tried = Command::new("setpriv").args(ids).arg("true").output();
    if !tried.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: setpriv is not there, or may not change the user");
        return None;
    }
    // The directory of the test binary need not be readable by other users.
    let program = dir.join("test");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    set_mode(&program, 0o755);
    Some(move |name: &str, dir: &Path| {
        let child = child(name, dir);
        let mut command = Command::new("setpriv");
        command.args(ids).arg(&program).args(child.get_args()).env(CHILD_DIR, dir);
        command.current_dir("/").output().unwrap()
    })
}

fn give_to_nobody(dir: &Path) {
    std::os::unix::fs::lchown(dir, Some(NOBODY), Some(NOBODY)).unwrap();
    if dir.is_dir() {
        for entry in fs::read_dir(dir).unwrap() {
            give_to_nobody(&entry.unwrap().path());
        }
    }
}

#[test]
fn child_may_not() {
    let Some(dir) = child_dir() else { return };
    for read_only in [false, true] {
        let opened = quiet(&dir).read_only(read_only).open();
        let Err(Error::Io { path, source, .. }) = &opened else { panic!("{opened:?}") };
        assert!(path.starts_with(&dir) || dir.starts_with(path), "{opened:?}");
        assert_eq!(source.kind(), ErrorKind::PermissionDenied, "{opened:?}");
    }
}

#[test]
fn child_may_not_use_the_topic() {
    let Some(dir) = child_dir() else { return };
    let strict = quiet(&dir).recovery(RecoveryPolicy::Strict).open();
    assert!(matches!(&strict, Err(Error::Io { .. })), "{strict:?}");
    for read_only in [false, true] {
        let broker = quiet(&dir).read_only(read_only).open().unwrap();
        let damage = broker.recovery().partitions.iter().flat_map(|it| &it.corrupt);
        let files: Vec<_> = damage.map(|it| it.file.clone()).collect();
        assert!(files.len() == 1 && files[0].starts_with(dir.join("t")), "{files:?}");
        let read = broker.topic("t").unwrap().partition(0).unwrap().read(0, 1);
        let Err(Error::Corrupt(damage)) = &read else { panic!("{read:?}") };
        assert!(matches!(&damage.kind, CorruptionKind::Unreadable(_)), "{read:?}");
    }
}

#[test]
fn child_may_not_make() {
    let Some(dir) = child_dir() else { return };
    let opened = quiet(&dir).open();
    let Err(Error::Io { source, .. }) = &opened else { panic!("{opened:?}") };
    assert_eq!(source.kind(), ErrorKind::PermissionDenied, "{opened:?}");
}

#[test]
fn child_may() {
    let Some(dir) = child_dir() else { return };
    let broker = open_quiet(&dir);
    assert!(broker.recovery().is_clean(), "{:?}", broker.recovery());
    let expected: Vec<u64> =
        (0..broker.topic("t").unwrap().partition(0).unwrap().log_end_offset()).collect();
    assert!(expected.len() >= 10);
    assert_eq!(numbers(&broker), expected);
    let end = expected.len() as u64;
    send_numbers(&broker, "t", 0, end..end + 1);
    broker.close().unwrap();
}

/// What may not be read, written or searched is an error that names it; nothing is half made, and
/// when it is mended, all is there.
// RED: src/broker/directories.rs
//   - Err(source) if is_absent(source.kind()) => Ok(false),
//   + Err(_) => Ok(false),
#[test]
fn row_e22_without_permission_there_is_an_error_and_with_it_everything_is_there() {
    let dir = temp_dir();
    set_mode(dir.path(), 0o755);
    let Some(run) = as_nobody(dir.path()) else { return };
    let store = dir.path().join("store");
    // Nothing is there yet, and nothing may be made.
    assert_success(&run("owners::child_may_not_make", &store), "a parent of another user");
    assert!(!store.exists());
    fs::create_dir(&store).unwrap();
    for mode in [0o755, 0o700, 0o000] {
        set_mode(&store, mode);
        assert_success(
            &run("owners::child_may_not_make", &store),
            &format!("an empty directory, {mode:o}"),
        );
        assert_eq!(fs::read_dir(&store).unwrap().count(), 0);
    }
    set_mode(&store, 0o700);
    make_store(&store);
    set_mode(&store, 0o755);
    assert_success(&run("owners::child_may_not", &store), "a store of another user");

    give_to_nobody(&store);
    let topic = store.join("t");
    // An opening begins its internal logs anew: which file is theirs is asked each time.
    let first_file = |below: &str| files_below(&store.join(below)).remove(0);
    let denied = [
        ("", 0o000),
        ("", 0o600),
        ("t", 0o000),
        ("t", 0o600),
        ("t/0", 0o000),
        ("t/0 file", 0o000),
        ("__meta/0 file", 0o000),
        ("__meta", 0o000),
        ("__local/0", 0o000),
    ];
    for (name, less) in denied {
        let path = name.strip_suffix(" file").map_or_else(|| store.join(name), first_file);
        let (whole, before) = (mode(&path), contents(&topic));
        set_mode(&path, less);
        let context = format!("{} {less:o}", path.display());
        let is_of_topic = name.starts_with('t');
        let child = if is_of_topic {
            "owners::child_may_not_use_the_topic"
        } else {
            "owners::child_may_not"
        };
        assert_success(&run(child, &store), &context);
        set_mode(&path, whole);
        assert!(contents(&topic) == before, "{context}");
        assert_success(&run("owners::child_may", &store), &context);
    }
    // Of another user, in a directory of one's own.
    for below in ["t/0", "__meta/0"] {
        let path = first_file(below);
        std::os::unix::fs::chown(&path, Some(0), Some(0)).unwrap();
        let is_of_topic = below.starts_with('t');
        let child = if is_of_topic {
            "owners::child_may_not_use_the_topic"
        } else {
            "owners::child_may_not"
        };
        assert_success(&run(child, &store), &format!("{} of root", path.display()));
        std::os::unix::fs::chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    assert_success(&run("owners::child_may", &store), "at the end");
    assert_eq!(fs::metadata(store.join("LOCK")).unwrap().uid(), NOBODY);
}

//! Goal: a directory that no broker opens any more is copied into one that every broker opens, and
//! is not touched by that.
//!
//! Method: the public interface alone, on real directories. What goes into the copy, damage at
//! random, and copies that are cut off are tried over the simulated disk (`src/salvage/tests.rs`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::common::*;
use logpond::{Broker, Error, salvage};

/// A directory with a topic of 100 records, and a path for the copy.
fn store(root: &Path) -> (PathBuf, PathBuf) {
    let (data, copy) = (root.join("data"), root.join("copy"));
    let broker = open_quiet(&data);
    broker.ensure_topic("t", small_topic(1)).unwrap();
    send_numbers(&broker, "t", 0, 0..100);
    broker.close().unwrap();
    (data, copy)
}

fn numbers(dir: &Path) -> Vec<u64> {
    let broker = open_quiet(dir);
    assert!(broker.recovery().is_clean(), "{:?}", broker.recovery());
    read_all(&broker.topic("t").unwrap().partition(0).unwrap()).iter().map(number).collect()
}

/// Every file with its bytes, its mode and when it was last written to.
fn state(dir: &Path) -> Vec<(PathBuf, Vec<u8>, u32, i64, i64)> {
    let of = |path: PathBuf| {
        let meta = fs::metadata(&path).unwrap();
        let bytes = fs::read(&path).unwrap();
        (path, bytes, meta.mode(), meta.mtime_nsec(), meta.ctime_nsec())
    };
    files_below(dir).into_iter().map(of).collect()
}

#[test]
fn what_cannot_be_opened_is_copied_and_the_copy_opens() {
    let root = temp_dir();
    for own in ["__meta", "__offsets", "__local"] {
        let (data, copy) = store(&root.path().join(own));
        for path in files_below(&data.join(own)) {
            fs::write(&path, b"not a segment").unwrap();
        }
        assert!(matches!(quiet(&data).open(), Err(Error::Corrupt(_))), "{own}");
        let before = state(&data);
        let report = salvage(&data, &copy).unwrap();
        assert!(!report.is_whole(), "{own}");
        assert_eq!(report.topics[0].config_lost, own == "__meta");
        assert_eq!(report.topics[0].partitions[0].records, 100, "{own}");
        #[cfg(feature = "json")]
        assert!(serde_json::to_string(&report).unwrap().contains(own), "{own}");
        assert_eq!(state(&data), before, "{own}: the source was touched");
        assert_eq!(numbers(&copy), (0..100).collect::<Vec<_>>(), "{own}");
    }
}

#[test]
fn a_read_only_source_without_a_lock_file_is_enough() {
    let root = temp_dir();
    let (data, copy) = store(root.path());
    fs::remove_file(data.join("LOCK")).unwrap();
    for path in files_below(&data) {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    }
    for dir in [data.join("t/0"), data.join("t"), data.join("__meta/0"), data.clone()] {
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o500)).unwrap();
    }
    let before = state(&data);
    let report = salvage(&data, &copy).unwrap();
    assert!(report.is_whole(), "{report:?}");
    assert_eq!(state(&data), before);
    for dir in [data.clone(), data.join("t"), data.join("t/0"), data.join("__meta/0")] {
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    }
    assert_eq!(numbers(&copy), (0..100).collect::<Vec<_>>());
}

/// Symptom: a damaged directory that somebody had made writable for all, to have a look at it,
/// could not be salvaged. Cause: it was refused as for a broker, whose maps need the files to stay
/// what they are. Rule: salvage maps nothing, so that it does not matter who else may write.
#[test]
fn a_source_that_every_user_may_write_to_is_salvaged_although_it_is_not_opened() {
    let root = temp_dir();
    let (data, copy) = store(root.path());
    fs::set_permissions(&data, fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(refused_setting(quiet(&data).open().map(drop)), "data_dir");
    let mut steps = Vec::new();
    let report = logpond::salvage_with(&data, &copy, |step| {
        steps.push((step.topic.to_owned(), step.partition, step.copied, step.total));
    });
    assert!(report.unwrap().is_whole());
    assert!(!steps.is_empty());
    for (number, (_, _, copied, total)) in steps.iter().enumerate() {
        assert_eq!((*copied, *total), (number, steps.len()));
    }
    assert_eq!(numbers(&copy), (0..100).collect::<Vec<_>>());
}

#[test]
fn a_source_that_is_open_is_refused_and_nothing_is_made() {
    let root = temp_dir();
    let (data, copy) = store(root.path());
    let broker = Broker::open(&data).unwrap();
    let refused = salvage(&data, &copy);
    assert!(matches!(refused, Err(Error::Locked { .. })), "{refused:?}");
    assert!(!copy.exists());
    broker.close().unwrap();
    salvage(&data, &copy).unwrap();
}

#[test]
fn the_copy_goes_only_to_a_free_path_outside_the_source() {
    let root = temp_dir();
    let (data, copy) = store(root.path());
    let before = state(&data);
    fs::create_dir(&copy).unwrap();
    fs::write(copy.join("mine"), b"mine").unwrap();
    assert_eq!(refused_setting(salvage(&data, &copy)), "to");
    assert_eq!(fs::read_dir(&copy).unwrap().count(), 1);
    assert_eq!(refused_setting(salvage(&data, &data)), "to");
    assert_eq!(refused_setting(salvage(&data, data.join("copy"))), "to");
    let link = root.path().join("link");
    std::os::unix::fs::symlink(&data, &link).unwrap();
    assert_eq!(refused_setting(salvage(&data, link.join("deep/copy"))), "to");
    let file = root.path().join("file");
    fs::write(&file, b"mine").unwrap();
    assert!(matches!(salvage(&data, &file), Err(Error::Io { .. })));
    let nowhere = salvage(root.path().join("nowhere"), root.path().join("new"));
    assert!(matches!(nowhere, Err(Error::Io { .. })), "{nowhere:?}");
    assert!(!root.path().join("new").exists());
    assert_eq!(state(&data), before);
    // An empty directory is as good as none.
    fs::remove_file(copy.join("mine")).unwrap();
    assert!(salvage(&data, &copy).unwrap().is_whole());
}

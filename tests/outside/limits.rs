//! A process that may have little: descriptors, address space, length of files; a file system that
//! turns read-only under it; a medium that does not deliver.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;

use crate::common::*;
use crate::ledger::Ledger;
use crate::machine::{Mount, assert_orderly, run, under_shell};
use logpond::{Broker, Durability, Error, ReadMode, Record, TopicConfig};

const CHILD: &str = "workload::child_works";

/// Runs the workload under a shell's limit. Returns how many calls failed.
fn limited(setup: &str) -> usize {
    let dir = temp_dir();
    let data = dir.path().join("data");
    let output = under_shell(setup, CHILD, &data);
    let mut ledger = Ledger::default();
    ledger.hear_all(&output.stdout);
    if !ledger.began {
        eprintln!("{setup}: too little for the test itself");
        return 0;
    }
    assert_orderly(&output, setup);
    assert!(ledger.ended, "{setup}");
    ledger.check(&data, &format!("{setup}, {:?}", ledger.failures));
    ledger.failures.len()
}

/// With few descriptors everything works, with fewer there are errors, and what was acknowledged
/// is there.
// RED: src/storage/platform.rs
//   - Ok(retry_on_intr(|| rustix::fs::open(path, flags, mode))?.into())
//   + Ok(retry_on_intr(|| rustix::fs::open(path, flags, mode)).unwrap().into())
#[test]
fn row_c08_too_few_descriptors_are_an_error() {
    let failures: Vec<usize> =
        (4..26).map(|count| limited(&format!("ulimit -n {count}"))).collect();
    eprintln!("failures from 4 descriptors on: {failures:?}");
    assert!(failures.iter().any(|failed| *failed > 0), "{failures:?}");
    assert_eq!(failures.last(), Some(&0));
}

/// Files that may not grow: the host ignores SIGXFSZ, as the documentation says, and gets errors.
#[test]
fn row_c04_a_limit_on_the_length_of_files_is_a_full_disk() {
    // In blocks of 512 bytes.
    for blocks in [40, 100, 127, 128] {
        let failures = limited(&format!("trap '' XFSZ; ulimit -f {blocks}"));
        // Segments begin with 64 KiB.
        assert_eq!(failures > 0, blocks < 128, "{blocks} blocks: {failures} failures");
    }
}

/// Large segments need address space; when there is none left a topic cannot be made, and the
/// others continue.
#[test]
fn child_maps_until_it_may_not() {
    let Some(dir) = child_dir() else { return };
    let broker = Broker::builder().data_dir(dir).background(false).open().unwrap();
    let large = || TopicConfig::new(1).segment_bytes(1 << 30).durability(Durability::Os);
    let first = broker.ensure_topic("t-0", large()).unwrap().partition(0).unwrap();
    let mut made = 1;
    let refused = loop {
        match broker.ensure_topic(&format!("t-{made}"), large()) {
            Ok(_) => made += 1,
            Err(error) => break error,
        }
        assert!(made < 20, "there is no limit");
    };
    assert!(matches!(refused, Error::Io { .. }), "{refused:?}");
    first.append(&Record::new().value("continues")).unwrap();
    // Nothing leaked: the space of a topic that goes is enough for one that comes.
    broker.admin().delete_topic(&format!("t-{}", made - 1)).unwrap();
    broker.ensure_topic("again", large()).unwrap();
    first.append(&Record::new().value("continues")).unwrap();
    broker.close().unwrap();
}

#[test]
fn row_c08_too_little_address_space_is_an_error() {
    let dir = temp_dir();
    let name = "limits::child_maps_until_it_may_not";
    let output = under_shell("ulimit -v 6000000", name, &dir.path().join("data"));
    assert_orderly(&output, "6 GB of address space");
    let broker = open_quiet(&dir.path().join("data"));
    let partition = broker.topic("t-0").unwrap().partition(0).unwrap();
    assert_eq!(partition.log_end_offset(), 2);
}

/// ext4 turns read-only by itself when it finds an error.
#[test]
fn row_c10_a_file_system_that_turns_read_only_refuses_appends_and_serves_readers() {
    let Some(mut mount) = Mount::ext4(48, "errors=remount-ro") else { return };
    let device = mount.device().trim_start_matches("/dev/").to_owned();
    let trigger = format!("/sys/fs/ext4/{device}/trigger_fs_error");
    if !std::path::Path::new(&trigger).exists() {
        eprintln!("skipped: this kernel has no {trigger}");
        return;
    }
    let dir = mount.path().join("data");
    let broker = Broker::builder().data_dir(&dir).background(false).open().unwrap();
    let config = || TopicConfig::new(1).segment_bytes(SMALL_SEGMENT);
    let topics = [("sync", Durability::Sync), ("os", Durability::Os)]
        .map(|(name, level)| broker.ensure_topic(name, config().durability(level)).unwrap());
    for topic in &topics {
        let partition = topic.partition(0).unwrap();
        for _ in 0..3 {
            partition.append(&Record::new().value("before")).unwrap();
        }
        partition.flush().unwrap();
    }
    fs::write(&trigger, "a test").unwrap();
    let mut refused = 0;
    for topic in &topics {
        let partition = topic.partition(0).unwrap();
        for _ in 0..40 {
            let value = "v".repeat(1_000);
            match partition.append(&Record::new().value(&value)) {
                // Into space that is there; nothing has to be made for it.
                Ok(_) => assert_eq!(topic.name(), "os"),
                Err(Error::ReadOnly { .. } | Error::Poisoned { .. } | Error::SyncFailed { .. }) => {
                    refused += 1;
                }
                Err(error) => panic!("{}: {error:?}", topic.name()),
            }
        }
        assert!(read_all(&partition).len() >= 3, "{}", topic.name());
    }
    assert!(refused > 40, "{refused}");
    let made = broker.ensure_topic("more", config());
    assert!(matches!(made, Err(Error::ReadOnly { .. })), "{made:?}");
    assert!(broker.close().is_err(), "an end that could not be written is no clean one");
    let opened = Broker::builder().data_dir(&dir).background(false).open();
    assert!(matches!(opened, Err(Error::ReadOnly { .. })), "{opened:?}");
    let inspected = Broker::builder().data_dir(&dir).read_only(true).open().unwrap();
    for name in ["sync", "os"] {
        let partition = inspected.topic(name).unwrap().partition(0).unwrap();
        assert!(read_all(&partition).len() >= 3, "{name}");
    }
    drop((inspected, topics));
    // Repaired, it is served again.
    mount.unmount();
    run("fsck.ext4", &["-p", "-f", mount.device()]).unwrap_or_default();
    mount.mount().unwrap();
    let broker = Broker::builder().data_dir(&dir).background(false).open().unwrap();
    assert!(!broker.recovery().clean_shutdown);
    for name in ["sync", "os"] {
        let partition = broker.topic(name).unwrap().partition(0).unwrap();
        assert!(read_all(&partition).len() >= 3, "{name}");
        partition.append(&Record::new().value("after")).unwrap();
    }
    broker.close().unwrap();
}

// ---- what a map cannot report -------------------------------------------------------------------

const MODE: &str = "LOGPOND_CHILD_MODE";

/// Reads a file that has lost its bytes behind the engine's back.
#[test]
fn child_reads_a_shortened_file() {
    let Some(dir) = child_dir() else { return };
    let mode = if from_env(MODE, 0) == 0 { ReadMode::Mapped } else { ReadMode::Copy };
    let builder = Broker::builder().data_dir(&dir).durability(Durability::Os);
    let broker = builder.background(false).read_mode(mode).open().unwrap();
    let partition = broker.ensure_topic("t", small_topic(1)).unwrap().partition(0).unwrap();
    for _ in 0..10 {
        partition.append(&Record::new().value("v".repeat(5_000).as_str())).unwrap();
    }
    for path in files_below(&dir.join("t")) {
        File::options().write(true).open(path).unwrap().set_len(0).unwrap();
    }
    // A later open sees an empty file, and what is mapped has no bytes any more.
    let read = try_read_all(&partition);
    assert!(matches!(read, Err(Error::Io { .. } | Error::Corrupt(_))), "{read:?}");
    let verified = broker.admin().verify("t");
    assert!(!matches!(verified, Ok(report) if report.is_ok()));
    // Without a flush: the file is empty.
    std::mem::forget(broker);
}

/// Bytes that a map cannot deliver end the process, as the documentation says; with
/// `ReadMode::Copy` they are an error.
// RED: src/broker/builder.rs
//   - let copy_reads = self.read_only || self.read_mode == ReadMode::Copy;
//   + let copy_reads = self.read_only;
#[test]
fn row_d07_bytes_that_cannot_be_had_are_an_error_where_nothing_is_mapped() {
    for (mode, survives) in [(1, true), (0, false)] {
        let dir = temp_dir();
        let mut command = child("limits::child_reads_a_shortened_file", &dir.path().join("data"));
        let output = command.env(MODE, mode.to_string()).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!errors.contains("panicked"), "mode {mode}: {errors}");
        // SIGBUS, and no other.
        let signal = (!survives).then_some(7);
        assert_eq!(output.status.signal(), signal, "mode {mode}: {}", output.status);
        assert_eq!(output.status.success(), survives, "mode {mode}: {}", output.status);
        // The next opening, and a verification, read the rest without a map, and survive.
        let broker = open_quiet(&dir.path().join("data"));
        assert!(!broker.recovery().is_clean(), "mode {mode}");
        assert!(!broker.admin().verify("t").unwrap().is_ok(), "mode {mode}");
    }
}

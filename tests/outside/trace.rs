//! The n-th call of a kind fails, or is the last one: for the calls that a child makes on its
//! directory, as a first run under `strace` tells them.
//!
//! strace counts per thread and per kind of call; the child works in one thread. Where it does not
//! hit the call that was meant it hits another one, and what must then hold is the same.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::common::*;
use crate::ledger::Ledger;
use crate::machine::{assert_orderly, has_strace};
use crate::workload::BEGIN;

const CHILD: &str = "workload::child_works";

/// What concerns files, and may be asked for by the engine, its packages or std.
const CALLS: &str = "openat,close,read,pread64,pwrite64,ftruncate,fallocate,fdatasync,fsync,msync,\
                     rename,renameat2,unlink,unlinkat,rmdir,mkdir,mmap,munmap,madvise,flock,\
                     getdents64,fstat,newfstatat,statx,lseek,fcntl,statfs";

/// One call, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    call: String,
    count: u64,
}

fn strace(more: &[&str], dir: &Path) -> Output {
    let child = child(CHILD, dir);
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "--seccomp-bpf"]).args(more).arg(child.get_program());
    command.args(child.get_args()).env(CHILD_DIR, dir);
    command.stdin(Stdio::null()).output().unwrap()
}

/// The calls that the child makes on its directory, from where its work begins.
fn targets() -> Vec<Target> {
    let dir = temp_dir();
    let log = dir.path().join("log");
    let data = dir.path().join("data");
    let trace = format!("trace={CALLS}");
    let output = strace(&["-y", "-e", &trace, "-o", log.to_str().unwrap()], &data);
    assert_orderly(&output, "strace");
    let mut ledger = Ledger::default();
    ledger.hear_all(&output.stdout);
    assert!(ledger.ended && ledger.failures.is_empty(), "{ledger:?}");
    ledger.check(&data, "strace without a fault");

    let (mut counts, mut found) = (BTreeMap::<(String, String), u64>::new(), BTreeSet::new());
    let mut began = false;
    for line in std::fs::read_to_string(&log).unwrap().lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((call, arguments)) = rest.trim_start().split_once('(') else { continue };
        if call.contains(' ') {
            continue; // the second half of a call that was counted
        }
        let count = counts.entry((thread.to_owned(), call.to_owned())).or_default();
        *count += 1;
        let concerns = arguments.contains(data.to_str().unwrap());
        // Of these the arguments do not tell whose memory it is.
        let is_memory = matches!(call, "madvise" | "munmap" | "msync");
        if began && (concerns || is_memory) {
            found.insert(Target { call: call.to_owned(), count: *count });
        }
        began |= arguments.contains(BEGIN);
    }
    found.into_iter().collect()
}

/// What was tried, and what came of it.
#[derive(Debug, Default)]
struct Tally {
    runs: u64,
    failures: u64,
    /// Runs in which the child did not even begin: the count hit a call of its runtime.
    missed: u64,
}

impl Tally {
    fn one(&mut self, target: &Target, fault: &str, forever: bool) -> Ledger {
        let Target { call, count } = target;
        let when = if forever { format!("{count}+") } else { count.to_string() };
        let context = format!("{call}:{fault}:when={when}");
        let dir = temp_dir();
        let data = dir.path().join("data");
        let (trace, inject) = (format!("trace={call}"), format!("inject={context}"));
        let output = strace(&["-e", &trace, "-e", &inject, "-o", "/dev/null"], &data);
        let mut ledger = Ledger::default();
        ledger.hear_all(&output.stdout);
        self.runs += 1;
        self.failures += ledger.failures.len() as u64;
        if !ledger.began {
            self.missed += 1;
            return ledger;
        }
        if !fault.starts_with("signal") {
            assert_orderly(&output, &context);
            assert!(ledger.ended, "{context}: it did not come to its end");
        }
        ledger.check(&data, &format!("{context}, {:?}", ledger.failures));
        ledger
    }
}

fn is_campaign() -> bool {
    std::env::var("LOGPOND_CALLS").is_ok_and(|it| it == "all")
}

/// The calls to try: all of them, or a few of each kind.
fn sample(all: &[Target], rng: &mut Rng, per_kind: usize) -> Vec<Target> {
    if is_campaign() {
        return all.to_vec();
    }
    let mut kinds = BTreeMap::<&str, Vec<&Target>>::new();
    for target in all {
        kinds.entry(&target.call).or_default().push(target);
    }
    let mut picked = Vec::new();
    for of_kind in kinds.values() {
        picked.extend((0..per_kind).map(|_| of_kind[rng.index(of_kind.len())].clone()));
    }
    picked
}

fn sweep(name: &str, faults: &[&str], per_kind: usize) -> Option<Tally> {
    if !has_strace() {
        return None;
    }
    let mut rng = Rng::announced(name);
    let mut all = targets();
    // std panics where the closing of a directory that it has listed fails; local file systems do
    // not fail it.
    all.retain(|it| it.call != "close" || faults.iter().any(|it| it.starts_with("signal")));
    let mut tally = Tally::default();
    for target in sample(&all, &mut rng, per_kind) {
        // Each fault in a campaign, one by chance otherwise; and once, or from then on.
        let chosen = if is_campaign() { faults } else { &faults[rng.index(faults.len())..][..1] };
        for fault in chosen {
            tally.one(&target, fault, rng.one_in(3) && !fault.starts_with("signal"));
        }
    }
    eprintln!("{name}: of {} calls, {tally:?}", all.len());
    assert!(tally.missed * 4 < tally.runs, "{tally:?}");
    Some(tally)
}

#[test]
fn any_call_may_fail() {
    let Some(tally) = sweep("calls that fail", &["error=EIO", "error=ENOSPC"], 1) else { return };
    assert!(tally.failures > tally.runs / 4, "{tally:?}");
}

#[test]
fn any_call_may_be_the_last() {
    sweep("calls that kill", &["signal=SIGKILL"], 1);
}

/// Calls that a signal interrupts are made again: nothing fails for it.
#[test]
fn row_c11_interrupted_calls_are_made_again() {
    if !has_strace() {
        return;
    }
    let mut rng = Rng::announced("interrupted calls");
    let mut all = targets();
    // What cannot be interrupted: Linux documents it for none of these, and `close` frees the
    // descriptor whatever it says.
    all.retain(|it| !matches!(it.call.as_str(), "close" | "mmap" | "munmap" | "lseek" | "fcntl"));
    let mut tally = Tally::default();
    for target in sample(&all, &mut rng, 1) {
        let ledger = tally.one(&target, "error=EINTR", false);
        assert_eq!(ledger.failures, Vec::<String>::new(), "{target:?}");
    }
    eprintln!("interrupted: {tally:?}");
}

/// No memory for a map, no descriptor, no quota, no room in the file, a file system that turned
/// read-only: each has its own error, and passes.
#[test]
fn row_c04_c08_refusals_have_their_own_errors() {
    if !has_strace() {
        return;
    }
    let mut rng = Rng::announced("refusals");
    let all = targets();
    let mut tally = Tally::default();
    let refusals = [
        ("mmap", "ENOMEM", "Io"),
        ("madvise", "ENOMEM", "Io"),
        ("openat", "EMFILE", "Io"),
        ("openat", "ENFILE", "Io"),
        ("pwrite64", "EDQUOT", "StorageFull"),
        ("fallocate", "EDQUOT", "StorageFull"),
        ("fallocate", "EFBIG", "StorageFull"),
        ("pwrite64", "EROFS", "ReadOnly"),
        ("renameat2", "EROFS", "ReadOnly"),
    ];
    for (call, code, name) in refusals {
        let of_call: Vec<_> = all.iter().filter(|it| it.call == call).cloned().collect();
        assert!(!of_call.is_empty(), "no {call} is made");
        for target in sample(&of_call, &mut rng, 2) {
            let ledger = tally.one(&target, &format!("error={code}"), rng.one_in(3));
            for failure in &ledger.failures {
                // A tail of an earlier run is written again for a sync; its failure is the sync's.
                let follow = ["SyncFailed", "Poisoned", "UnknownTopic"];
                let typed = failure.contains(name) || follow.iter().any(|it| failure.contains(it));
                assert!(typed, "{call} {code}: {failure}");
            }
        }
    }
    eprintln!("refusals: {tally:?}");
    assert!(tally.failures > 0);
}

/// Where a file system cannot allocate, zeros are written: no file is sparse.
// RED: src/storage/platform.rs
//   - Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => write_zeros(file, range),
//   + Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => Ok(()),
#[test]
fn row_c02_where_nothing_can_be_allocated_zeros_are_written() {
    if !has_strace() {
        return;
    }
    let target = Target { call: "fallocate".to_owned(), count: 1 };
    let ledger = Tally::default().one(&target, "error=EOPNOTSUPP", true);
    assert_eq!(ledger.failures, Vec::<String>::new());
    assert!(ledger.closed && ledger.acks > 60, "{ledger:?}");
}

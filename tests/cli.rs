//! Goal: the program `logpond` does what its page says, command by command, errors included.
//!
//! Method: the built program is run on directories that the library has made, beside brokers of
//! this process where it says that it works beside them. What it prints is compared as a whole, or
//! parsed as JSON.
//!
//! Not covered: a terminal. That progress is shown on one, and on nothing else, is tested where it
//! is written (`src/bin/logpond/progress.rs`); so are the ways to write sizes and times.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(target_os = "linux")]

mod common;

#[path = "cli/damage.rs"]
mod damage;
#[path = "cli/documents.rs"]
mod documents;
#[path = "cli/looking.rs"]
mod looking;
#[path = "cli/tailing.rs"]
mod tailing;
#[path = "cli/writing.rs"]
mod writing;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::*;
use logpond::{Broker, Record, TopicConfig};
use tempfile::TempDir;

/// What the program has printed, and its exit code.
#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    /// The output of a run that did what it was asked for, and said nothing else.
    fn ok(self) -> String {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{}", self.out);
        self.out
    }

    fn json(self) -> serde_json::Value {
        let out = self.ok();
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }

    /// The message of a run that failed with this exit code, on one line, and printed nothing else.
    fn refused(self, code: i32) -> String {
        assert_eq!((self.code, self.out.as_str()), (code, ""), "{}", self.err);
        let line = self.err.strip_suffix('\n').unwrap_or_default();
        assert!(!line.contains('\n') || code == 2, "{line}");
        line.to_owned()
    }
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_logpond"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the program with these arguments; the first `{}` of them is the directory.
fn run(dir: &Path, line: &str) -> Ran {
    run_with(dir, line, "")
}

fn run_with(dir: &Path, line: &str, input: &str) -> Ran {
    let mut child = command(dir, line).stdin(Stdio::piped()).spawn().unwrap();
    // A program that refuses reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    Ran {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn command(dir: &Path, line: &str) -> Command {
    let mut command = program();
    command.args(line.split(' ').map(|argument| match argument {
        "{}" => dir.as_os_str().to_owned(),
        argument => argument.into(),
    }));
    command
}

/// A directory with the topic `emails` of two partitions: three records in the first, a minute
/// apart, and one in the second; the group `mailer` has committed 1 and 1. And an empty compacted
/// topic.
fn sample() -> TempDir {
    let dir = temp_dir();
    fill_sample(dir.path());
    dir
}

fn fill_sample(dir: &Path) {
    let broker = open_quiet(dir);
    broker.ensure_topic("emails", TopicConfig::new(2).retention(Duration::MAX)).unwrap();
    let compacted = TopicConfig::new(1).cleanup(logpond::Cleanup::Compact);
    broker.ensure_topic("addresses", compacted).unwrap();
    let producer = broker.producer();
    let minute = |number: u64| some_time() + Duration::from_secs(60 * number);
    let emails = || Record::to("emails").key("user-7");
    let record = emails().partition(0).value("welcome!").timestamp(minute(0));
    producer.send(record.header("trace", "abc")).unwrap();
    let record = emails().partition(0).value(&[0xff, 0x00]).timestamp(minute(1));
    producer.send(record).unwrap();
    producer.send(emails().partition(0).tombstone().timestamp(minute(2))).unwrap();
    let record = Record::to("emails").partition(1).value("two\nlines").timestamp(minute(3));
    producer.send(record).unwrap();
    let mut inbox = broker.consumer("mailer").subscribe(["emails"]).open().unwrap();
    let offsets = [(tp("emails", 0), 1), (tp("emails", 1), 1)].into();
    inbox.poll(Duration::ZERO).unwrap();
    inbox.commit_offsets(&offsets).unwrap();
    inbox.close().unwrap();
    broker.close().unwrap();
}

/// Names and contents of all files.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    files_below(dir).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// A broker that has the directory open for writing.
fn service(dir: &Path) -> Broker {
    open_quiet(dir)
}

//! Why a command did not succeed, what it says then, and the exit code.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use logpond::Error;

use crate::text::{escape, escape_path};
use crate::units::counted;

/// The exit codes. Part of the interface: `src/docs/command_line.md` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Ok = 0,
    Failed = 1,
    Usage = 2,
    Damaged = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The program that reads the output has ended: nobody wants more of it.
    OutputClosed,
    /// Standard input or output failed.
    Stream { operation: &'static str, source: io::Error },
    /// There is no data directory at this path.
    NoDirectory { path: PathBuf, reason: &'static str },
    /// The system does not say what is at this path.
    Path { path: PathBuf, source: io::Error },
    /// Another process has the directory open for writing. `holder` is escaped; `waits`: the command
    /// can wait for it.
    InUse { path: PathBuf, holder: String, waits: bool },
    /// The command would do something that was not asked for. The text is escaped.
    Refused(String),
    /// The library's answer.
    Library(Error),
    /// A line of standard input was not sent; `sent` lines before it were.
    Line { number: u64, sent: u64, source: Box<Failure> },
}

impl Failure {
    pub(crate) fn output(source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Stream { operation: "write standard output", source },
        }
    }

    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::OutputClosed => Exit::Ok,
            Self::Library(Error::Corrupt(_)) => Exit::Damaged,
            Self::Line { source, .. } => source.exit(),
            _ => Exit::Failed,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Library(error)
    }
}

/// In the words of this program: the library names calls where a user of the program needs commands.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutputClosed => f.write_str("standard output is closed"),
            Self::Stream { operation, source } => write!(f, "cannot {operation}: {source}"),
            Self::NoDirectory { path, reason } => write!(f, "{}: {reason}", shown(path)),
            Self::Path { path, source } => write!(f, "cannot look at {}: {source}", shown(path)),
            Self::InUse { path, holder, waits } => {
                let path = shown(path);
                write!(f, "{path} is in use by {holder}; only one process may write to it: ")?;
                let advice = if *waits { ", or wait for it with `--wait`" } else { "" };
                write!(f, "stop that one{advice}")
            }
            Self::Refused(reason) => f.write_str(reason),
            Self::Library(Error::UnknownTopic(name)) => {
                write!(f, "there is no topic {}; `logpond topics` lists the topics", quoted(name))
            }
            Self::Library(Error::UnknownPartition(partition)) => write!(
                f,
                "there is no partition {}; `logpond describe` lists the partitions",
                escape(&partition.to_string())
            ),
            Self::Library(Error::UnknownGroup(name)) => {
                write!(f, "there is no group {}; `logpond groups` lists the groups", quoted(name))
            }
            Self::Library(error) => f.write_str(&escape(&with_causes(error))),
            Self::Line { number, sent, source } => {
                let (lines, were) =
                    (counted(*sent, "line"), if *sent == 1 { "was" } else { "were" });
                write!(f, "line {number}: {source} ({lines} before it {were} sent)")
            }
        }
    }
}

fn shown(path: &Path) -> String {
    escape_path(path)
}

pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", escape(name))
}

/// The texts of an error and of all that caused it.
fn with_causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

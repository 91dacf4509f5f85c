//! The calls at which a test broker steps between the engine and the code under test.
//!
//! Owns: what a test has arranged, the [`Script`], and how a call follows it. Must not know: what the
//! engine does in a call.
//!
//! The room exists with the feature `testing` only, and so does every line of the engine that names
//! it: in other builds a call passes no seam. A broker that is no test broker has an empty one.
//!
//! | seam | where |
//! |---|---|
//! | append | `topic/append.rs`: one batch to one partition, before any lock is taken |
//! | sync | `partition/flusher.rs`: one sync of a partition, under no lock |
//! | poll, commit | `consumer/poller.rs`, `consumer/commit.rs` |
//! | open | `testing/machine.rs` |

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
#[cfg(feature = "replication")]
use std::time::Duration;

pub use self::call::{Call, RebalanceKind};
#[cfg(feature = "replication")]
pub(crate) use self::drive::{Drive, drive_until};
pub use self::fault::Fault;
pub(crate) use self::fault::{Seam, Site};
pub use self::script::FaultId;
pub(crate) use self::script::Script;
use self::script::Then;
use crate::error::{Error, Result};
use crate::record::TopicPartition;

mod call;
#[cfg(feature = "replication")]
mod drive;
mod fault;
mod script;

/// LIMIT: how much time a refused call takes in a cluster, about as much as a caller would wait before it
/// tries again: so a loop that tries again and again comes to see the next leader.
#[cfg(feature = "replication")]
const REFUSAL_TAKES: Duration = Duration::from_millis(50);
/// LIMIT: how much time a poll takes in a cluster that finds nothing.
#[cfg(feature = "replication")]
const EMPTY_POLL_TAKES: Duration = Duration::from_millis(1);

/// The directory of a test broker on its disk.
pub(crate) const DIR: &str = "/logpond";

/// The seams of one broker. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seams(Option<Arc<Script>>);

impl Seams {
    pub(crate) fn new(script: &Arc<Script>) -> Self {
        Self(Some(Arc::clone(script)))
    }

    /// Whether this is a test broker, which has no threads that futures could wait for.
    pub(crate) fn are_of_a_test(&self) -> bool {
        self.0.is_some()
    }

    /// A call begins, under no lock: it may be late, or fail before it has done anything. Its result
    /// passes [`After::end`].
    pub(crate) fn begin(&self, site: impl FnOnce() -> Site) -> Result<After> {
        let Some(script) = &self.0 else { return Ok(After(None)) };
        match script.meet(&site()) {
            Then::Runs => Ok(After(None)),
            Then::Fails(error) => Err(error),
            Then::RunsAndFails(error) => Ok(After(Some(error))),
        }
    }

    /// Runs a call as the faults that concern it want it.
    pub(crate) fn around<T>(
        &self,
        site: impl FnOnce() -> Site,
        run: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let after = self.begin(site)?;
        after.end(run())
    }

    /// A sync of a partition. What fails here leaves it to the disk what is kept of the pages.
    pub(crate) fn sync(&self, partition: &TopicPartition) -> Result<()> {
        self.begin(|| Site::of(Seam::Sync).partition(partition))?.end(Ok(()))
    }

    /// Remembers a call.
    pub(crate) fn note(&self, call: impl FnOnce() -> Call) {
        let Some(script) = &self.0 else { return };
        let call = call();
        let error = call.error().cloned();
        script.note(call);
        if let Some(error) = error {
            self.refused(&error);
        }
    }

    /// A call has failed, under no lock. One that another member has to serve, or that lacks members,
    /// takes some time.
    #[cfg_attr(
        not(feature = "replication"),
        expect(clippy::unused_self, reason = "only a cluster's time passes by itself")
    )]
    pub(crate) fn refused(&self, error: &Error) {
        #[cfg(feature = "replication")]
        if let Some(script) = self.0.as_ref().filter(|script| script.drive().is_some())
            && matches!(error, Error::NotLeader { .. } | Error::NotEnoughReplicas { .. })
        {
            script.pass(REFUSAL_TAKES);
        }
        #[cfg(not(feature = "replication"))]
        let _ = error;
    }

    /// A poll has found nothing.
    #[cfg_attr(
        not(feature = "replication"),
        expect(clippy::unused_self, reason = "only a cluster's time passes by itself")
    )]
    pub(crate) fn found_nothing(&self) {
        #[cfg(feature = "replication")]
        if let Some(script) = &self.0
            && script.drive().is_some()
        {
            script.pass(EMPTY_POLL_TAKES);
        }
    }

    /// The cluster that the test broker belongs to.
    #[cfg(feature = "replication")]
    pub(crate) fn drive(&self) -> Option<&Arc<dyn Drive>> {
        self.0.as_ref()?.drive()
    }

    /// Remembers what the sender of a batch was answered.
    pub(crate) fn note_send(
        &self,
        partition: &TopicPartition,
        producer: Option<&str>,
        answer: &Result<Range<u64>>,
    ) {
        self.note(|| Call::Send {
            partition: partition.clone(),
            producer: producer.map(Arc::from),
            result: answer.clone(),
        });
    }
}

/// What becomes of the result of a call that was done.
#[must_use]
#[derive(Debug)]
pub(crate) struct After(Option<Error>);

impl After {
    /// The call fails although it has done everything, if a fault says so.
    pub(crate) fn end<T>(self, result: Result<T>) -> Result<T> {
        match self.0 {
            Some(error) => result.and(Err(error)),
            None => result,
        }
    }
}

/// Where a test broker has the files of a partition, for the texts of errors.
fn path_of(partition: Option<&TopicPartition>) -> PathBuf {
    let dir = Path::new(DIR);
    partition
        .map_or_else(|| dir.to_path_buf(), |it| dir.join(&*it.topic).join(it.partition.to_string()))
}

/// The error of a call at a seam, with the operating system's kind of it.
fn error_of(site: &Site, kind: std::io::ErrorKind) -> Error {
    let path = path_of(site.partitions.first());
    let source = std::io::Error::new(kind, "a fault that the test has set");
    match site.seam {
        Seam::Sync => Error::SyncFailed { path, source: Arc::new(source) },
        Seam::Append => Error::io("append to", &path, source),
        Seam::Poll => Error::io("read", &path, source),
        Seam::Commit => Error::io("commit to", &path, source),
        Seam::Open => Error::io("open", &path, source),
    }
}

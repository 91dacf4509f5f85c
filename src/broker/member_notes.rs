//! The notes of this member of a replicated group, each as durable as a promise has to be.
//!
//! Uses `__local`, and owns nothing itself. Must not know: messages, and what follows from a note.
//!
//! A call returns when its notes are on stable storage, at every durability level: a member answers
//! others only after that, and what it has answered must survive a power cut. All notes of a call
//! share one sync.

use super::internal_logs::InternalLogs;
use super::local::{LocalChange, LocalState, NotedLog, NotedPromise, ReplicaNote, Standing};
use crate::error::{Error, Result};
use crate::partition::state_log::StateLog;
use crate::rules::Rule;

#[derive(Clone, Copy)]
pub(crate) struct MemberNotes<'a> {
    local: &'a StateLog<LocalState>,
}

/// What a member has noted of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// The random number of the data directory.
    pub(crate) directory: u128,
    /// The number of this run; the first is 1.
    pub(crate) session: u64,
    pub(crate) promise: Option<NotedPromise>,
    /// `None` if it never noted that it was whole.
    pub(crate) standing: Option<Standing>,
    /// The group that it founds, or has founded.
    pub(crate) founder: Option<u128>,
}

impl<'a> MemberNotes<'a> {
    pub(crate) fn of(logs: &'a InternalLogs) -> Self {
        Self { local: logs.local() }
    }

    /// Begins a run, of the session that `next` makes of that of the run before (0 before the first). The
    /// first one of a directory gives it the number that `draw` returns.
    ///
    /// # Errors
    ///
    /// The error of the append or of its sync.
    pub(crate) fn begin(
        self,
        draw: impl FnOnce() -> u128,
        next: impl FnOnce(u64) -> u64,
    ) -> Result<Member> {
        let (directory, session) =
            self.local.read(|local| (local.replica.directory(), local.replica.session()));
        let mut notes = Vec::new();
        // Zero: it was put back from a copy, and is another directory from now on.
        let directory = directory.filter(|directory| *directory != 0).unwrap_or_else(|| {
            let drawn = draw();
            notes.push(ReplicaNote::Directory(drawn));
            drawn
        });
        let session = next(session);
        notes.push(ReplicaNote::Session(session));
        self.note(notes)?;
        let of_member = |local: &LocalState| Member {
            directory,
            session,
            promise: local.replica.promise(),
            standing: local.replica.standing().cloned(),
            founder: local.replica.founder(),
        };
        Ok(self.local.read(of_member))
    }

    /// Stores notes. On return they are durable.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a promise below an earlier one, or of the same epoch to another run;
    /// nothing is noted then. Otherwise the error of the append, or of its sync.
    pub(crate) fn note(self, notes: Vec<ReplicaNote>) -> Result<()> {
        let promises: Vec<NotedPromise> = notes
            .iter()
            .filter_map(|note| match note {
                ReplicaNote::Promise(promise) => Some(*promise),
                _ => None,
            })
            .collect();
        let changes = notes.into_iter().map(LocalChange::Replica).collect();
        let end = self.local.append_if(changes, |local| {
            promises.iter().try_fold(local.replica.promise(), check_promise).map(drop)
        })?;
        // DURABILITY: what rests on a note is said to others, who cannot forget it.
        Rule::StateSync.keep(|| self.local.partition().wait_durable(end))?;
        self.local.tidy();
        Ok(())
    }

    /// Whether it was noted last that the next run may lack what was confirmed.
    pub(crate) fn is_incomplete(self) -> bool {
        self.local.read(|local| matches!(local.replica.standing(), Some(Standing::Incomplete)))
    }

    /// The epoch that a log has adopted; 0 for none.
    pub(crate) fn adopted(self, log: NotedLog) -> u32 {
        self.local.read(|local| local.replica.adopted(log))
    }

    /// Whether any epoch was noted of a log, also 0.
    pub(crate) fn has_epoch(self, log: NotedLog) -> bool {
        self.local.read(|local| local.replica.has_epoch(log))
    }

    /// The greatest session that was noted of another directory; 0 for none.
    #[cfg(test)]
    pub(crate) fn seen(self, directory: u128) -> u64 {
        self.local.read(|local| local.replica.seen(directory))
    }

    /// The greatest session that was noted of each other directory.
    pub(crate) fn all_seen(self) -> Vec<(u128, u64)> {
        self.local.read(|local| local.replica.all_seen().collect())
    }

    /// Whether more of a log was noted as synced than an opening has found.
    pub(crate) fn lacks(self, log: NotedLog, found_end: u64) -> bool {
        let noted = self.local.read(|local| local.replica.synced(log));
        noted.is_some_and(|noted| noted > found_end)
    }
}

/// Checks a promise after `before`. It may be repeated.
fn check_promise(
    before: Option<NotedPromise>,
    promise: &NotedPromise,
) -> Result<Option<NotedPromise>> {
    match before {
        Some(before) if promise.epoch <= before.epoch && *promise != before => {
            let reason = format!("epoch {} was promised to another run already", before.epoch);
            Err(Error::config("promise", reason))
        }
        _ => Ok(Some(*promise)),
    }
}

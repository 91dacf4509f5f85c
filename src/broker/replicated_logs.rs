//! `__meta` and `__offsets` as a member of a replicated group has them, with what `__local` must say
//! before they are changed.
//!
//! Uses the internal logs, and owns nothing itself. Must not know: messages, leadership, and what
//! the logs contain.

use super::internal_logs::{InternalLogs, META, OFFSETS};
use super::local::{LocalChange, LocalState};
use crate::format::TopicId;
use crate::log::replica::refusal::Failure;
use crate::partition::state_log::StateLog;
use crate::partition::state_log::replicated::ReplicatedState;

/// One of the two logs.
#[derive(Clone, Copy)]
pub(crate) struct ReplicatedLog<'a> {
    id: TopicId,
    state: &'a dyn ReplicatedState,
    local: &'a StateLog<LocalState>,
}

impl<'a> ReplicatedLog<'a> {
    pub(crate) fn meta(logs: &'a InternalLogs) -> Self {
        Self { id: META.1, state: logs.catalog(), local: logs.local() }
    }

    pub(crate) fn offsets(logs: &'a InternalLogs) -> Self {
        Self { id: OFFSETS.1, state: logs.coordinator().offsets().log(), local: logs.local() }
    }

    /// What needs no note.
    pub(crate) fn state(self) -> &'a dyn ReplicatedState {
        self.state
    }

    /// See [`ReplicatedState::truncate`].
    ///
    /// # Errors
    ///
    /// As there, and those of the note, after which nothing is changed.
    pub(crate) fn truncate(self, offset: u64, bound: u64) -> Result<u64, Failure> {
        let proved = self.local.read(|local| local.synced.get(&self.id).copied());
        // The cut may take a batch with it that begins below.
        let end = bound.min(offset);
        if proved.is_some_and(|proved| proved > end) {
            // DURABILITY: before the cut. Otherwise the next opening takes the log for one that has
            // lost what was on stable storage.
            self.local.append_durably(vec![LocalChange::Synced { own: self.id, end }])?;
        }
        self.state.truncate(offset, bound)
    }

    /// See [`ReplicatedState::begin_anew`].
    ///
    /// # Errors
    ///
    /// As there, and those of the note, after which nothing is changed.
    pub(crate) fn begin_anew(self, offset: u64) -> Result<u64, Failure> {
        let own = self.id;
        let proved = self.local.read(|local| local.synced.get(&own).copied());
        let lower = proved.filter(|proved| *proved > offset);
        let lower = lower.map(|_| LocalChange::Synced { own, end: offset });
        // DURABILITY: before the log is dropped. Otherwise the next opening takes it for one that has
        // lost its head, or its end.
        let noted = LocalChange::LogStart { topic: own, partition: 0, offset };
        self.local.append_whole(lower.into_iter().chain([noted]).collect())?;
        self.local.tidy();
        self.state.begin_anew(offset)
    }
}

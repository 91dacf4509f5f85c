//! `Notes`: what a member must never forget.
//!
//! Owns: the durable values of one member: its directory and session, its promise, the epoch that
//! each of its logs has adopted, and whether it must recover. They are kept in `__local`, which is never
//! replicated, and each change is synced before the step that relies on it, at every durability
//! level. Must not know: logs, messages.

use std::collections::BTreeMap;

use super::log_key::LogKey;
use super::membership::{DirectoryId, GroupId, MemberRun};
use crate::record::LeaderEpoch;

/// A promise: nothing is taken from, or given to, a smaller epoch any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Promise {
    pub(crate) epoch: LeaderEpoch,
    /// To whom it was made: the only run that may lead this epoch.
    pub(crate) candidate: MemberRun,
}

/// A change of the notes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Note {
    Promise(Promise),
    /// These logs contain those of the epoch's leader as they were when the epoch began.
    Adopted {
        epoch: LeaderEpoch,
        logs: Vec<LogKey>,
    },
    /// Something that this member confirmed is missing.
    Incomplete,
    /// Nothing that this member confirmed before is missing: it may promise again.
    Whole,
    /// The latest run of another directory that was heard.
    Seen {
        directory: DirectoryId,
        session: u64,
    },
    /// This member founds a group. Nothing that it has of it counts yet: should that be lost, nothing is
    /// missing.
    Founding(GroupId),
    /// It may count from now on.
    Founded,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Notes {
    me: MemberRun,
    promise: Option<Promise>,
    adopted: BTreeMap<LogKey, LeaderEpoch>,
    /// The sessions of the latest runs of other directories.
    seen: BTreeMap<DirectoryId, u64>,
    /// A power cut may have removed what this member confirmed, and no leader has given it back yet.
    recovering: bool,
    /// It has founded a group, and nothing that it has of it counts yet.
    founding: bool,
}

impl Notes {
    /// Those of a new directory, in its first session.
    #[cfg(test)]
    pub(crate) fn new(me: MemberRun) -> Self {
        let (adopted, seen) = (BTreeMap::new(), BTreeMap::new());
        Self { me, promise: None, adopted, seen, recovering: false, founding: false }
    }

    /// Those that a run has found.
    pub(crate) fn found(
        me: MemberRun,
        promise: Option<Promise>,
        adopted: impl IntoIterator<Item = (LogKey, LeaderEpoch)>,
        seen: impl IntoIterator<Item = (DirectoryId, u64)>,
        recovering: bool,
    ) -> Self {
        let (adopted, seen) = (adopted.into_iter().collect(), seen.into_iter().collect());
        Self { me, promise, adopted, seen, recovering, founding: false }
    }

    /// The run has found that the group which this member founded is not settled.
    pub(crate) fn founding(mut self, founding: bool) -> Self {
        self.founding = founding;
        self
    }

    /// Those of the next run of the same directory. `has_lost`: records that the last run confirmed
    /// may be missing.
    #[cfg(test)]
    pub(crate) fn next_session(mut self, has_lost: bool) -> Self {
        self.me.session = self.me.session.saturating_add(1);
        self.recovering |= has_lost;
        self
    }

    pub(crate) fn me(&self) -> MemberRun {
        self.me
    }

    /// The greatest epoch that was promised; zero without one.
    pub(crate) fn promised(&self) -> LeaderEpoch {
        self.promise.map_or(LeaderEpoch::default(), |promise| promise.epoch)
    }

    pub(crate) fn promise(&self) -> Option<Promise> {
        self.promise
    }

    pub(crate) fn adopted(&self, log: LogKey) -> LeaderEpoch {
        self.adopted.get(&log).copied().unwrap_or_default()
    }

    /// The session of the latest run of another directory; zero if none was noted.
    pub(crate) fn seen(&self, directory: DirectoryId) -> u64 {
        self.seen.get(&directory).copied().unwrap_or(0)
    }

    /// It may have confirmed something: it has adopted an epoch.
    pub(crate) fn has_adopted_any(&self) -> bool {
        self.adopted.values().any(|epoch| epoch.0 > 0)
    }

    /// It has followed nobody yet.
    pub(crate) fn has_adopted_nothing(&self) -> bool {
        self.adopted.is_empty()
    }

    /// It has founded a group, and nothing that it has of it counts yet.
    pub(crate) fn is_founding(&self) -> bool {
        self.founding
    }

    pub(crate) fn is_recovering(&self) -> bool {
        self.recovering
    }

    pub(crate) fn apply(&mut self, note: &Note) {
        match note {
            Note::Promise(promise) => self.promise = Some(*promise),
            Note::Adopted { epoch, logs } => {
                self.adopted.extend(logs.iter().map(|log| (*log, *epoch)));
            }
            Note::Incomplete => self.recovering = true,
            Note::Whole => self.recovering = false,
            Note::Founding(_) => self.founding = true,
            Note::Founded => self.founding = false,
            Note::Seen { directory, session } => {
                self.seen.insert(*directory, *session);
            }
        }
    }

    /// A log that was removed has adopted nothing.
    pub(crate) fn forget(&mut self, log: LogKey) {
        self.adopted.remove(&log);
    }
}

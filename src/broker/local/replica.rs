//! What a member of a replicated group notes of itself, as `__local` stores it.
//!
//! Owns: the stored form, and the state that its records build. Every build reads and keeps the
//! notes, also one without replication, which never writes any. Must not know: what the notes are
//! used for.
//!
//! Values that a member must never go back on (its promise, its session, the epochs that its logs
//! have adopted) never decrease, in whichever order their records are read.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::CorruptionKind;
use crate::format::TopicId;
use crate::log::OFFSET_MAX;
use crate::partition::state_log::check_partition;
use crate::partition::state_log::entries::{Entries, RecordedAt};

/// LIMIT: the name of a boot of the machine; Linux has 36 characters.
const BOOT_BYTES_MAX: usize = 128;

/// A replicated log. Variants are only ever added at the end, as everywhere in this file: their
/// order is the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum NotedLog {
    Meta,
    Offsets,
    /// A topic that is created again under its name is another topic.
    Partition {
        topic: TopicId,
        partition: u32,
    },
}

/// One run of a member: from the opening of its broker to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NotedRun {
    pub(crate) node: u64,
    pub(crate) directory: u128,
    pub(crate) session: u64,
}

/// A promise: nothing is taken from, or given to, a smaller epoch any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NotedPromise {
    pub(crate) epoch: u32,
    /// The only run that may lead this epoch.
    pub(crate) candidate: NotedRun,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ReplicaNote {
    /// The random number of this data directory, drawn once. Zero: it was put back from a copy, and
    /// the next opening draws another one.
    Directory(u128),
    /// A run of this member has begun.
    Session(u64),
    Promise(NotedPromise),
    /// The log contains that of the epoch's leader as it was when the epoch began, and nothing else
    /// before.
    Adopted {
        log: NotedLog,
        epoch: u32,
    },
    /// Nothing that this member has confirmed is missing, under this boot of the machine.
    Whole {
        boot: Option<Arc<str>>,
    },
    /// The end of `__local` was cut off at an opening, so that any later note may be missing.
    Incomplete,
    /// The greatest session that another directory has shown.
    Seen {
        directory: u128,
        session: u64,
    },
    /// The log was on stable storage up to here. A truncation notes a lower end, before it begins.
    Synced {
        log: NotedLog,
        end: u64,
    },
    /// This member founds the group of this random number, and nothing that it has of it counts yet.
    /// Zero: it does.
    Founder {
        group: u128,
    },
}

/// Whether anything that the member has confirmed may be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    Whole { boot: Option<Arc<str>> },
    Incomplete,
}

#[derive(Debug, Default)]
pub(crate) struct ReplicaState {
    directory: Entries<(), u128>,
    session: Entries<(), u64>,
    promise: Entries<(), NotedPromise>,
    standing: Entries<(), Standing>,
    founder: Entries<(), u128>,
    adopted: Entries<NotedLog, u32>,
    seen: Entries<u128, u64>,
    synced: Entries<NotedLog, u64>,
}

impl ReplicaState {
    pub(crate) fn directory(&self) -> Option<u128> {
        self.directory.get(&()).copied()
    }

    pub(crate) fn promise(&self) -> Option<NotedPromise> {
        self.promise.get(&()).copied()
    }

    pub(crate) fn standing(&self) -> Option<&Standing> {
        self.standing.get(&())
    }

    pub(crate) fn founder(&self) -> Option<u128> {
        self.founder.get(&()).copied()
    }

    /// All topics that have a note.
    pub(super) fn topics(&self) -> BTreeSet<TopicId> {
        let logs = self.adopted.keys().chain(self.synced.keys());
        logs.filter_map(NotedLog::topic).collect()
    }

    /// Forgets the partitions of a topic from a number on.
    pub(super) fn forget_partitions(&mut self, id: TopicId, from: u32) {
        let is_kept = |log: &NotedLog| match log {
            NotedLog::Partition { topic, partition } => *topic != id || *partition < from,
            NotedLog::Meta | NotedLog::Offsets => true,
        };
        self.adopted.retain(|log, _| is_kept(log));
        self.synced.retain(|log, _| is_kept(log));
    }

    pub(super) fn apply(&mut self, note: ReplicaNote, at: RecordedAt) {
        match note {
            ReplicaNote::Directory(directory) => self.directory.insert((), directory, at),
            ReplicaNote::Session(session) => raise(&mut self.session, (), session, at),
            ReplicaNote::Promise(promise) => {
                if self.promise().is_none_or(|before| promise.epoch >= before.epoch) {
                    self.promise.insert((), promise, at);
                }
            }
            ReplicaNote::Adopted { log, epoch } => raise(&mut self.adopted, log, epoch, at),
            ReplicaNote::Whole { boot } => self.standing.insert((), Standing::Whole { boot }, at),
            ReplicaNote::Incomplete => self.standing.insert((), Standing::Incomplete, at),
            ReplicaNote::Seen { directory, session } => {
                raise(&mut self.seen, directory, session, at);
            }
            ReplicaNote::Synced { log, end } => self.synced.insert(log, end, at),
            ReplicaNote::Founder { group } => self.founder.insert((), group, at),
        }
    }

    pub(super) fn is_live(&self, note: &ReplicaNote, offset: u64) -> bool {
        match note {
            ReplicaNote::Directory(_) => self.directory.is_at(&(), offset),
            ReplicaNote::Session(_) => self.session.is_at(&(), offset),
            ReplicaNote::Promise(_) => self.promise.is_at(&(), offset),
            ReplicaNote::Adopted { log, .. } => self.adopted.is_at(log, offset),
            ReplicaNote::Whole { .. } | ReplicaNote::Incomplete => self.standing.is_at(&(), offset),
            ReplicaNote::Seen { directory, .. } => self.seen.is_at(directory, offset),
            ReplicaNote::Synced { log, .. } => self.synced.is_at(log, offset),
            ReplicaNote::Founder { .. } => self.founder.is_at(&(), offset),
        }
    }

    /// Whether the note adds an entry that is kept for good.
    pub(super) fn grows(&self, note: &ReplicaNote) -> bool {
        match note {
            ReplicaNote::Adopted { log, .. } => !self.adopted.contains_key(log),
            ReplicaNote::Synced { log, .. } => !self.synced.contains_key(log),
            ReplicaNote::Seen { directory, .. } => !self.seen.contains_key(directory),
            _ => false,
        }
    }

    pub(super) fn live_bytes(&self) -> u64 {
        let of_member = [
            self.directory.bytes(),
            self.session.bytes(),
            self.promise.bytes(),
            self.standing.bytes(),
            self.founder.bytes(),
        ];
        let of_others = [self.adopted.bytes(), self.seen.bytes(), self.synced.bytes()];
        of_member.iter().chain(&of_others).fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }

    pub(super) fn snapshot(&self) -> impl Iterator<Item = ReplicaNote> {
        let standing = self.standing().map(|standing| match standing {
            Standing::Whole { boot } => ReplicaNote::Whole { boot: boot.clone() },
            Standing::Incomplete => ReplicaNote::Incomplete,
        });
        let session = self.session.values().map(|session| ReplicaNote::Session(*session));
        let adopted = self.adopted.iter();
        let adopted = adopted.map(|(log, epoch)| ReplicaNote::Adopted { log: *log, epoch: *epoch });
        let seen = self.seen.iter().map(|(directory, session)| ReplicaNote::Seen {
            directory: *directory,
            session: *session,
        });
        let synced = self.synced.iter();
        let synced = synced.map(|(log, end)| ReplicaNote::Synced { log: *log, end: *end });
        let founder = self.founder().map(|group| ReplicaNote::Founder { group });
        let directory = self.directory().map(ReplicaNote::Directory);
        let promise = self.promise().map(ReplicaNote::Promise);
        let of_member = directory.into_iter().chain(session).chain(promise).chain(standing);
        of_member.chain(founder).chain(adopted).chain(seen).chain(synced)
    }
}

#[cfg(any(test, feature = "replication"))]
impl ReplicaState {
    /// The session of the last run; 0 before the first.
    pub(crate) fn session(&self) -> u64 {
        self.session.get(&()).copied().unwrap_or(0)
    }

    /// The epoch that the log has adopted; 0 for none.
    pub(crate) fn adopted(&self, log: NotedLog) -> u32 {
        self.adopted.get(&log).copied().unwrap_or(0)
    }

    /// Whether any epoch was noted of the log, also 0.
    #[cfg(feature = "replication")]
    pub(crate) fn has_epoch(&self, log: NotedLog) -> bool {
        self.adopted.contains_key(&log)
    }

    /// The greatest session that was noted of another directory; 0 for none.
    #[cfg(test)]
    pub(crate) fn seen(&self, directory: u128) -> u64 {
        self.seen.get(&directory).copied().unwrap_or(0)
    }

    /// The greatest session that was noted of each other directory.
    #[cfg(feature = "replication")]
    pub(crate) fn all_seen(&self) -> impl Iterator<Item = (u128, u64)> {
        self.seen.iter().map(|(directory, session)| (*directory, *session))
    }

    /// The end that was noted as synced.
    pub(crate) fn synced(&self, log: NotedLog) -> Option<u64> {
        self.synced.get(&log).copied()
    }
}

/// Inserts a value that never decreases.
fn raise<K: Ord, V: Ord>(entries: &mut Entries<K, V>, key: K, value: V, at: RecordedAt) {
    if entries.get(&key).is_none_or(|before| value >= *before) {
        entries.insert(key, value, at);
    }
}

impl NotedLog {
    fn topic(&self) -> Option<TopicId> {
        match self {
            Self::Meta | Self::Offsets => None,
            Self::Partition { topic, .. } => Some(*topic),
        }
    }

    fn check(&self) -> Result<(), CorruptionKind> {
        match self {
            Self::Meta | Self::Offsets => Ok(()),
            Self::Partition { partition, .. } => check_partition(*partition),
        }
    }
}

impl ReplicaNote {
    /// Whether a member can have noted this.
    pub(super) fn check(&self) -> Result<(), CorruptionKind> {
        match self {
            Self::Adopted { log, .. } => log.check(),
            Self::Synced { log, end } if *end <= OFFSET_MAX => log.check(),
            Self::Synced { .. } => Err(CorruptionKind::Malformed("the end of a replicated log")),
            Self::Whole { boot: Some(boot) } if boot.len() > BOOT_BYTES_MAX => {
                Err(CorruptionKind::Malformed("the name of a boot"))
            }
            Self::Directory(_)
            | Self::Session(_)
            | Self::Promise(_)
            | Self::Whole { .. }
            | Self::Incomplete
            | Self::Seen { .. }
            | Self::Founder { .. } => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::local::LocalChange;
    use crate::codec::{Bincode, Codec};
    use crate::config::PARTITIONS_MAX;

    const RUN: NotedRun = NotedRun { node: 2, directory: 7, session: 3 };

    fn partition(partition: u32) -> NotedLog {
        NotedLog::Partition { topic: TopicId([9; 16]), partition }
    }

    fn promise(epoch: u32) -> ReplicaNote {
        ReplicaNote::Promise(NotedPromise { epoch, candidate: RUN })
    }

    /// One of each kind, in the order of the format.
    fn all() -> Vec<ReplicaNote> {
        vec![
            ReplicaNote::Directory(u128::from_le_bytes([5; 16])),
            ReplicaNote::Session(300),
            promise(4),
            ReplicaNote::Adopted { log: partition(1), epoch: 4 },
            ReplicaNote::Whole { boot: Some("b".into()) },
            ReplicaNote::Incomplete,
            ReplicaNote::Seen { directory: 6, session: 2 },
            ReplicaNote::Synced { log: NotedLog::Offsets, end: 250 },
            ReplicaNote::Founder { group: 1 },
        ]
    }

    fn state(notes: impl IntoIterator<Item = ReplicaNote>) -> ReplicaState {
        let mut state = ReplicaState::default();
        for (note, offset) in notes.into_iter().zip(0..) {
            assert_eq!(note.check(), Ok(()));
            state.apply(note, RecordedAt { offset, bytes: 10, ..RecordedAt::default() });
        }
        state
    }

    /// The bytes are fixed: directories hold them.
    #[test]
    fn the_bytes_of_a_note_are_fixed() {
        let bytes: Vec<Vec<u8>> = all()
            .into_iter()
            .map(|note| {
                let mut bytes = Vec::new();
                Bincode.encode(&LocalChange::Replica(note), &mut bytes).unwrap();
                assert_eq!(bytes.remove(0), 9, "the number of the variant");
                bytes
            })
            .collect();
        let directory = [&[0, 254][..], &[5; 16]].concat();
        let adopted = [&[3, 2][..], &[9; 16], &[1, 4]].concat();
        let expected: [&[u8]; 9] = [
            &directory,
            &[1, 251, 44, 1],
            &[2, 4, 2, 7, 3],
            &adopted,
            &[4, 1, 1, b'b'],
            &[5],
            &[6, 6, 2],
            &[7, 1, 250],
            &[8, 1],
        ];
        assert_eq!(bytes, expected);
    }

    #[test]
    fn a_snapshot_rebuilds_the_state() {
        let noted = all().into_iter().filter(|note| *note != ReplicaNote::Incomplete);
        let before = state(noted);
        let again = state(before.snapshot());
        for state in [&before, &again] {
            assert_eq!(state.directory(), Some(u128::from_le_bytes([5; 16])));
            assert_eq!((state.session(), state.founder()), (300, Some(1)));
            assert_eq!(state.promise(), Some(NotedPromise { epoch: 4, candidate: RUN }));
            assert_eq!(state.standing(), Some(&Standing::Whole { boot: Some("b".into()) }));
            assert_eq!((state.adopted(partition(1)), state.adopted(NotedLog::Meta)), (4, 0));
            assert_eq!((state.seen(6), state.seen(7)), (2, 0));
            assert_eq!(state.synced(NotedLog::Offsets), Some(250));
            assert_eq!(state.live_bytes(), 80);
        }
        assert_eq!(again.snapshot().count(), 8);
    }

    #[test]
    fn what_a_member_must_not_go_back_on_never_decreases() {
        let state = state([
            promise(4),
            promise(3),
            ReplicaNote::Session(5),
            ReplicaNote::Session(4),
            ReplicaNote::Adopted { log: NotedLog::Meta, epoch: 4 },
            ReplicaNote::Adopted { log: NotedLog::Meta, epoch: 2 },
            ReplicaNote::Seen { directory: 1, session: 9 },
            ReplicaNote::Seen { directory: 1, session: 8 },
            ReplicaNote::Synced { log: NotedLog::Meta, end: 9 },
            ReplicaNote::Synced { log: NotedLog::Meta, end: 7 },
            ReplicaNote::Incomplete,
        ]);
        assert_eq!(state.promise().map(|promise| promise.epoch), Some(4));
        assert_eq!((state.session(), state.adopted(NotedLog::Meta), state.seen(1)), (5, 4, 9));
        assert_eq!(state.synced(NotedLog::Meta), Some(7), "a truncation lowers it");
        assert_eq!(state.standing(), Some(&Standing::Incomplete));
        assert!(state.is_live(&promise(4), 0) && !state.is_live(&promise(3), 1));
        assert!(!state.is_live(&ReplicaNote::Synced { log: NotedLog::Meta, end: 9 }, 8));
    }

    #[test]
    fn the_notes_of_a_deleted_topic_are_removed() {
        let mut state = state([
            ReplicaNote::Adopted { log: partition(0), epoch: 1 },
            ReplicaNote::Synced { log: partition(0), end: 1 },
            ReplicaNote::Adopted { log: NotedLog::Meta, epoch: 1 },
        ]);
        assert_eq!(state.topics(), BTreeSet::from([TopicId([9; 16])]));
        state.forget_partitions(TopicId([9; 16]), 0);
        assert_eq!((state.topics(), state.live_bytes()), (BTreeSet::new(), 10));
        assert_eq!(state.adopted(NotedLog::Meta), 1);
    }

    #[test]
    fn notes_that_no_member_can_have_made_are_refused() {
        let long = "b".repeat(BOOT_BYTES_MAX + 1);
        let hostile = [
            ReplicaNote::Adopted { log: partition(PARTITIONS_MAX), epoch: 1 },
            ReplicaNote::Synced { log: partition(u32::MAX), end: 1 },
            ReplicaNote::Synced { log: NotedLog::Meta, end: OFFSET_MAX + 1 },
            ReplicaNote::Whole { boot: Some(long.into()) },
        ];
        for note in hostile {
            let refused = note.check();
            assert!(matches!(refused, Err(CorruptionKind::Malformed(_))), "{note:?}: {refused:?}");
        }
    }
}

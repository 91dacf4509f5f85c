//! The state of this machine: how the last run ended, recovery points, and what a member of a
//! replicated group notes of itself. Stored in `__local`, which is never replicated.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub(crate) use self::replica::ReplicaNote;
use self::replica::ReplicaState;
#[cfg(feature = "replication")]
pub(crate) use self::replica::{NotedLog, NotedPromise, NotedRun, Standing};
use crate::error::CorruptionKind;
use crate::format::TopicId;
use crate::log::{Checkpoint, OFFSET_MAX};
use crate::partition::lineage::Lineage;
use crate::partition::state_log::entries::{Entries, RecordedAt};
use crate::partition::state_log::{LoggedState, check_partition};

mod replica;

/// The stored form. Variants are only ever added at the end: their order is the format.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum LocalChange {
    /// A broker opened the directory, under this boot of the machine; synced before anything else
    /// is written.
    Opened {
        boot: Option<Arc<str>>,
        opens: u64,
    },
    /// Everything was flushed and every recovery point written; the last record of a clean run.
    Closed,
    Point {
        topic: TopicId,
        partition: u32,
        point: Checkpoint,
    },
    TopicGone(TopicId),
    /// All of the internal logs were made: from here on a missing one is damage.
    Initialised,
    /// A partition was recovered: its incarnations, the new one included; synced before anything
    /// is appended under it.
    Lineage {
        topic: TopicId,
        partition: u32,
        lineage: Lineage,
    },
    /// Records below are removed; synced before any file of them is unlinked.
    LogStart {
        topic: TopicId,
        partition: u32,
        offset: u64,
    },
    /// One of the other internal logs was on stable storage up to here.
    Synced {
        own: TopicId,
        end: u64,
    },
    /// A recovery point with wall-clock times. Earlier versions wrote [`Point`](Self::Point), with
    /// times of one run.
    TimedPoint {
        topic: TopicId,
        partition: u32,
        point: Checkpoint,
    },
    /// A note of a member of a replicated group; synced before anything is answered because of it.
    Replica(ReplicaNote),
    /// The deletion of a topic is certain, and its files are being removed: some may be missing.
    Removing(TopicId),
    /// A topic has no partitions from this number on: what is noted of any is of ones that were
    /// removed.
    PartitionsGone {
        topic: TopicId,
        from: u32,
    },
}

/// How the last run began.
#[derive(Debug, Clone, PartialEq, Eq)]
struct LastOpening {
    boot: Option<Arc<str>>,
    opens: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Flag {
    Closed,
    Initialised,
}

#[derive(Debug, Default)]
pub(crate) struct LocalState {
    opened: Entries<(), LastOpening>,
    flags: Entries<Flag, ()>,
    pub(crate) points: Entries<(TopicId, u32), Checkpoint>,
    pub(crate) lineages: Entries<(TopicId, u32), Lineage>,
    /// They never decrease, in whichever order they are stored.
    pub(crate) log_starts: Entries<(TopicId, u32), u64>,
    /// Durable ends of the other internal logs.
    pub(crate) synced: Entries<TopicId, u64>,
    pub(crate) replica: ReplicaState,
    removing: Entries<TopicId, ()>,
}

impl LocalState {
    pub(crate) fn boot(&self) -> Option<&Arc<str>> {
        self.opened.get(&())?.boot.as_ref()
    }

    /// How often the directory was opened.
    pub(crate) fn opens(&self) -> u64 {
        self.opened.get(&()).map_or(0, |opened| opened.opens)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.flags.contains_key(&Flag::Closed)
    }

    pub(crate) fn is_initialised(&self) -> bool {
        self.flags.contains_key(&Flag::Initialised)
    }

    /// The entries to add for the durable ends of the other internal logs.
    pub(crate) fn news_of(&self, ends: &[(TopicId, u64)]) -> Vec<LocalChange> {
        let known = |own: &TopicId| self.synced.get(own).copied().unwrap_or(0);
        let news = ends.iter().filter(|(own, end)| known(own) != *end);
        news.map(|&(own, end)| LocalChange::Synced { own, end }).collect()
    }

    /// All topics that have an entry.
    pub(crate) fn topics(&self) -> BTreeSet<TopicId> {
        let keys = self.points.keys().chain(self.lineages.keys()).chain(self.log_starts.keys());
        let mut topics = self.replica.topics();
        topics.extend(keys.map(|(topic, _)| *topic).chain(self.removing.keys().copied()));
        topics
    }

    /// Whether files of the topic may have been removed.
    pub(crate) fn is_removing(&self, topic: TopicId) -> bool {
        self.removing.contains_key(&topic)
    }

    /// Forgets the partitions of a topic from a number on.
    fn forget_partitions(&mut self, id: TopicId, from: u32) {
        let is_kept = |(topic, number): &(TopicId, u32)| *topic != id || *number < from;
        self.points.retain(|key, _| is_kept(key));
        self.lineages.retain(|key, _| is_kept(key));
        self.log_starts.retain(|key, _| is_kept(key));
        self.replica.forget_partitions(id, from);
    }
}

fn check_offset(offset: u64, what: &'static str) -> Result<(), CorruptionKind> {
    if offset <= OFFSET_MAX { Ok(()) } else { Err(CorruptionKind::Malformed(what)) }
}

impl LoggedState for LocalState {
    type Change = LocalChange;

    fn check(&self, change: &LocalChange) -> Result<(), CorruptionKind> {
        match change {
            LocalChange::Opened { .. }
            | LocalChange::Closed
            | LocalChange::Initialised
            | LocalChange::Removing(_)
            | LocalChange::TopicGone(_) => Ok(()),
            LocalChange::PartitionsGone { from, .. } => check_partition(*from),
            LocalChange::Point { partition, point, .. }
            | LocalChange::TimedPoint { partition, point, .. } => {
                check_partition(*partition)?;
                point.check()
            }
            LocalChange::Lineage { partition, lineage, .. } => {
                check_partition(*partition)?;
                lineage.check()
            }
            LocalChange::LogStart { partition, offset, .. } => {
                check_partition(*partition)?;
                check_offset(*offset, "a log start")
            }
            LocalChange::Synced { end, .. } => check_offset(*end, "the end of a log"),
            LocalChange::Replica(note) => note.check(),
        }
    }

    fn apply(&mut self, change: LocalChange, at: RecordedAt) {
        match change {
            LocalChange::Opened { boot, opens } => {
                self.opened.insert((), LastOpening { boot, opens }, at);
                // A copied entry is no opening: it may stand after the end of the run that it
                // began.
                if !at.is_copy {
                    self.flags.remove(&Flag::Closed);
                }
            }
            LocalChange::Closed => self.flags.insert(Flag::Closed, (), at),
            LocalChange::Initialised => self.flags.insert(Flag::Initialised, (), at),
            LocalChange::Point { topic, partition, point } => {
                let point = Checkpoint { is_of_one_run: true, ..point };
                self.points.insert((topic, partition), point, at);
            }
            LocalChange::TimedPoint { topic, partition, point } => {
                self.points.insert((topic, partition), point, at);
            }
            LocalChange::TopicGone(id) => {
                self.forget_partitions(id, 0);
                let _ = self.removing.remove(&id);
            }
            LocalChange::Removing(id) => self.removing.insert(id, (), at),
            LocalChange::PartitionsGone { topic, from } => self.forget_partitions(topic, from),
            LocalChange::Lineage { topic, partition, lineage } => {
                self.lineages.insert((topic, partition), lineage, at);
            }
            LocalChange::LogStart { topic, partition, offset } => {
                let key = (topic, partition);
                if self.log_starts.get(&key).is_none_or(|start| offset >= *start) {
                    self.log_starts.insert(key, offset, at);
                }
            }
            LocalChange::Synced { own, end } => self.synced.insert(own, end, at),
            LocalChange::Replica(note) => self.replica.apply(note, at),
        }
    }

    fn is_live(&self, change: &LocalChange, offset: u64) -> bool {
        match change {
            LocalChange::Opened { .. } => self.opened.is_at(&(), offset),
            LocalChange::Closed => self.flags.is_at(&Flag::Closed, offset),
            LocalChange::Initialised => self.flags.is_at(&Flag::Initialised, offset),
            LocalChange::Point { topic, partition, .. }
            | LocalChange::TimedPoint { topic, partition, .. } => {
                self.points.is_at(&(*topic, *partition), offset)
            }
            LocalChange::TopicGone(_) | LocalChange::PartitionsGone { .. } => false,
            LocalChange::Removing(id) => self.removing.is_at(id, offset),
            LocalChange::Lineage { topic, partition, .. } => {
                self.lineages.is_at(&(*topic, *partition), offset)
            }
            LocalChange::LogStart { topic, partition, .. } => {
                self.log_starts.is_at(&(*topic, *partition), offset)
            }
            LocalChange::Synced { own, .. } => self.synced.is_at(own, offset),
            LocalChange::Replica(note) => self.replica.is_live(note, offset),
        }
    }

    fn grows(&self, change: &LocalChange) -> bool {
        matches!(change, LocalChange::Replica(note) if self.replica.grows(note))
    }

    fn live_bytes(&self) -> u64 {
        let ends = self.synced.bytes().saturating_add(self.replica.live_bytes());
        let state = [self.opened.bytes(), self.flags.bytes(), self.removing.bytes(), ends];
        let partitions = [self.points.bytes(), self.lineages.bytes(), self.log_starts.bytes()];
        state.iter().chain(&partitions).fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }

    fn snapshot(&self) -> Vec<LocalChange> {
        let opened = self.opened.values().map(|LastOpening { boot, opens }| LocalChange::Opened {
            boot: boot.clone(),
            opens: *opens,
        });
        let of_point = |((topic, partition), point): (&(TopicId, u32), &Checkpoint)| {
            let (topic, partition, point) = (*topic, *partition, point.clone());
            if point.is_of_one_run {
                LocalChange::Point { topic, partition, point }
            } else {
                LocalChange::TimedPoint { topic, partition, point }
            }
        };
        let points = self.points.iter().map(of_point);
        let of_partition = |((topic, partition), lineage): (&(TopicId, u32), &Lineage)| {
            let (topic, partition, lineage) = (*topic, *partition, lineage.clone());
            LocalChange::Lineage { topic, partition, lineage }
        };
        let lineages = self.lineages.iter().map(of_partition);
        let of_start = |((topic, partition), offset): (&(TopicId, u32), &u64)| {
            LocalChange::LogStart { topic: *topic, partition: *partition, offset: *offset }
        };
        let log_starts = self.log_starts.iter().map(of_start);
        let synced =
            self.synced.iter().map(|(own, end)| LocalChange::Synced { own: *own, end: *end });
        let closed = self.is_closed().then_some(LocalChange::Closed);
        let initialised = self.is_initialised().then_some(LocalChange::Initialised);
        opened
            .chain(initialised)
            .chain(points)
            .chain(lineages)
            .chain(log_starts)
            .chain(synced)
            .chain(self.replica.snapshot().map(LocalChange::Replica))
            .chain(self.removing.keys().map(|id| LocalChange::Removing(*id)))
            .chain(closed)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Bincode, Codec};
    use crate::config::PARTITIONS_MAX;

    const TOPIC: TopicId = TopicId([1; 16]);

    fn point() -> Checkpoint {
        Checkpoint {
            log_start: 3,
            end_offset: 7,
            segment: 1,
            position: 400,
            last_batch: 300,
            times: None,
            producers: Vec::new(),
            ages: None,
            is_of_one_run: false,
        }
    }

    fn lineage(bases: &[u64]) -> Lineage {
        let mut lineage = Lineage::default();
        for base in bases {
            lineage.begin(*base, *base);
        }
        lineage
    }

    /// Symptom: the next opening took the private time of one run for what the wall clock showed.
    /// Rule: a point that an earlier version wrote is known as one, also through a snapshot.
    #[test]
    fn a_point_of_an_earlier_version_is_distinguished_from_one_of_this() {
        let (topic, partition) = (TOPIC, 0);
        let old = LocalChange::Point { topic, partition, point: point() };
        let new = LocalChange::TimedPoint { topic, partition, point: point() };
        for (change, is_of_one_run) in [(old, true), (new, false)] {
            let mut state = LocalState::default();
            state.apply(change, RecordedAt::default());
            let (mut again, at) = (LocalState::default(), RecordedAt::default());
            state.snapshot().into_iter().for_each(|change| again.apply(change, at));
            for state in [state, again] {
                assert_eq!(
                    state.points.get(&(TOPIC, 0)).map(|it| it.is_of_one_run),
                    Some(is_of_one_run)
                );
            }
        }
    }

    /// The bytes are fixed: directories hold them.
    #[test]
    fn the_bytes_of_what_is_noted_of_removals_are_fixed() {
        let encoded = |change: LocalChange| {
            let mut bytes = Vec::new();
            Bincode.encode(&change, &mut bytes).unwrap();
            bytes
        };
        let removing = encoded(LocalChange::Removing(TOPIC));
        assert_eq!(removing, [&[10][..], &[1; 16]].concat());
        let gone = encoded(LocalChange::PartitionsGone { topic: TOPIC, from: 2 });
        assert_eq!(gone, [&[11][..], &[1; 16], &[2]].concat());
    }

    /// A partition that is created anew has nothing of one of its number whose creation was truncated.
    #[test]
    fn partitions_that_are_removed_are_forgotten_from_a_number_on() {
        let mut state = LocalState::default();
        let mut apply = |change: LocalChange| {
            assert_eq!(state.check(&change), Ok(()));
            state.apply(change, RecordedAt::default());
        };
        for partition in 0..3 {
            let log = replica::NotedLog::Partition { topic: TOPIC, partition };
            apply(LocalChange::LogStart { topic: TOPIC, partition, offset: 5 });
            apply(LocalChange::TimedPoint { topic: TOPIC, partition, point: point() });
            apply(LocalChange::Lineage { topic: TOPIC, partition, lineage: lineage(&[1]) });
            apply(LocalChange::Replica(ReplicaNote::Adopted { log, epoch: 4 }));
            apply(LocalChange::Replica(ReplicaNote::Synced { log, end: 7 }));
        }
        apply(LocalChange::Removing(TOPIC));
        apply(LocalChange::PartitionsGone { topic: TOPIC, from: 1 });
        let kept = |state: &LocalState| {
            let of = |partition| replica::NotedLog::Partition { topic: TOPIC, partition };
            let has = |partition| {
                let key = (TOPIC, partition);
                [
                    state.log_starts.contains_key(&key),
                    state.points.contains_key(&key),
                    state.lineages.contains_key(&key),
                    state.replica.adopted(of(partition)) == 4,
                    state.replica.synced(of(partition)) == Some(7),
                ]
            };
            (0..3).map(has).collect::<Vec<_>>()
        };
        assert_eq!(kept(&state), [[true; 5], [false; 5], [false; 5]]);
        assert!(state.is_removing(TOPIC) && state.topics().contains(&TOPIC));
        let mut again = LocalState::default();
        for change in state.snapshot() {
            again.apply(change, RecordedAt::default());
        }
        assert!(again.is_removing(TOPIC));
        state.apply(LocalChange::TopicGone(TOPIC), RecordedAt::default());
        assert_eq!(kept(&state), [[false; 5]; 3]);
        assert!(!state.is_removing(TOPIC) && state.topics().is_empty());
    }

    /// E16: no number gets in that a log cannot have.
    // RED: src/log/checkpoint.rs
    //   - if self.log_start > self.end_offset || self.end_offset > OFFSET_MAX {
    //   + if false {
    #[test]
    fn row_e16_no_number_of_a_partition_is_believed_that_it_cannot_have() {
        let of_point = |partition, point| LocalChange::Point { topic: TOPIC, partition, point };
        let of_lineage = |partition, bases: &[u64]| LocalChange::Lineage {
            topic: TOPIC,
            partition,
            lineage: lineage(bases),
        };
        let of_start =
            |partition, offset| LocalChange::LogStart { topic: TOPIC, partition, offset };
        let state = LocalState::default();
        let sound = [
            of_point(0, point()),
            of_point(PARTITIONS_MAX - 1, Checkpoint { end_offset: OFFSET_MAX, ..point() }),
            of_lineage(0, &[9, 2, OFFSET_MAX]),
            of_start(0, OFFSET_MAX),
            LocalChange::Opened { boot: None, opens: u64::MAX },
        ];
        for change in &sound {
            assert_eq!(state.check(change), Ok(()), "{change:?}");
        }
        let hostile = [
            of_point(PARTITIONS_MAX, point()),
            of_point(0, Checkpoint { log_start: 8, ..point() }),
            of_point(0, Checkpoint { end_offset: OFFSET_MAX + 1, ..point() }),
            of_point(0, Checkpoint { end_offset: u64::MAX, log_start: u64::MAX, ..point() }),
            of_point(0, Checkpoint { last_batch: 401, ..point() }),
            of_lineage(u32::MAX, &[1]),
            of_lineage(0, &[1, OFFSET_MAX + 1]),
            of_lineage(0, &[u64::MAX, 1]),
            of_start(PARTITIONS_MAX, 1),
            of_start(0, OFFSET_MAX + 1),
            of_start(0, u64::MAX),
            LocalChange::Synced { own: TOPIC, end: OFFSET_MAX + 1 },
        ];
        for change in &hostile {
            let refused = state.check(change);
            assert!(
                matches!(refused, Err(CorruptionKind::Malformed(_))),
                "{change:?}: {refused:?}"
            );
        }
    }
}

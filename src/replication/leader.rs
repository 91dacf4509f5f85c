//! `Leader`: how far the members have copied, and which records a majority holds.
//!
//! Owns: the ends that an epoch began with, and what each member that adopted the epoch in a log has
//! of it. Must not know: the leader's logs; messages that are on the way.

use std::collections::{BTreeMap, BTreeSet};

use super::log_key::LogKey;
use super::membership::{DirectoryId, MemberRun, Membership};
use super::message::Fetch;
use super::rule::Rule;
use crate::record::{LeaderEpoch, NodeId};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Copying {
    run: MemberRun,
    /// Its last question. Its log is equal to the leader's up to there.
    asked: Fetch,
    /// It was not given records since.
    waits: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Leader {
    epoch: LeaderEpoch,
    /// The ends when the epoch began. A log that was created since began at zero.
    began: BTreeMap<LogKey, u64>,
    /// By log, and by the directory that asks: a member may run from two.
    copies: BTreeMap<LogKey, BTreeMap<(NodeId, DirectoryId), Copying>>,
    /// The logs in which a majority has adopted the epoch.
    writable: BTreeSet<LogKey>,
}

impl Leader {
    pub(super) fn new(epoch: LeaderEpoch, began: BTreeMap<LogKey, u64>) -> Self {
        Self { epoch, began, copies: BTreeMap::new(), writable: BTreeSet::new() }
    }

    pub(super) fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    pub(super) fn began(&self, log: LogKey) -> u64 {
        self.began.get(&log).copied().unwrap_or(0)
    }

    /// A member asked; its log is equal to the leader's up to the asked offset. A question that
    /// arrives after a later one of the same run changes nothing: a log that has adopted the epoch
    /// only grows.
    pub(super) fn asked(&mut self, run: MemberRun, asked: Fetch) {
        let copies = self.copies.entry(asked.log).or_default();
        let key = (run.node, run.directory);
        let is_late = copies.get(&key).is_some_and(|known| {
            let reached = (known.asked.from, known.asked.synced);
            let is_less = asked.from < reached.0 || asked.synced < reached.1;
            known.run == run && known.asked.adopted && (!asked.adopted || is_less)
        });
        if !is_late {
            copies.insert(key, Copying { run, asked, waits: true });
        }
    }

    /// How far a member has a log, by the stricter measure of the two; `None` unless it has adopted
    /// the epoch in it.
    pub(super) fn held(
        &self,
        log: LogKey,
        node: NodeId,
        directory: DirectoryId,
        counts_synced: bool,
    ) -> Option<u64> {
        let copy = self.copies.get(&log)?.get(&(node, directory))?;
        let asked = &copy.asked;
        let counts = asked.adopted || !Rule::CountAdopted.holds();
        let held = if counts_synced { asked.held.min(asked.synced) } else { asked.held };
        let held = if Rule::CountSynced.holds() { held } else { asked.from };
        counts.then_some(held.min(asked.from))
    }

    /// The offset below which a majority of each of these memberships has a log; `own` is how far
    /// the leader has it, by the same measure.
    pub(super) fn reached(
        &self,
        log: LogKey,
        me: MemberRun,
        own: u64,
        counts_synced: bool,
        needed: &[(u64, Membership)],
    ) -> Option<u64> {
        let held = |node: NodeId, directory: DirectoryId| {
            if node == me.node {
                return (directory == me.directory).then_some(own);
            }
            self.held(log, node, directory, counts_synced)
        };
        if !Rule::CountMajority.holds() {
            return Some(own);
        }
        needed.iter().map(|(_, membership)| membership.reached(held)).min().flatten()
    }

    /// Whether a majority has adopted the epoch in a log.
    pub(super) fn may_write(&self, log: LogKey) -> bool {
        self.writable.contains(&log)
    }

    /// How far the run that a member asked from last has a log; zero if it has not asked for it.
    pub(super) fn copied(&self, log: LogKey, node: NodeId) -> u64 {
        let copies = self.copies.get(&log).into_iter().flatten();
        let of = copies.filter(|((asking, _), _)| *asking == node);
        of.map(|(_, copy)| copy.asked.from).max().unwrap_or(0)
    }

    /// Notes that a log can be written to. True the first time.
    pub(super) fn can_write(&mut self, log: LogKey) -> bool {
        self.writable.insert(log)
    }

    /// The last question of each that has everything there was, for news of the log. Those that are
    /// given records are left out until they ask again: one that is dead costs nothing.
    pub(super) fn waiting(&mut self, log: LogKey, end: u64) -> Vec<(MemberRun, Fetch)> {
        let mut waiting = Vec::new();
        for copy in self.copies.get_mut(&log).into_iter().flat_map(BTreeMap::values_mut) {
            if copy.waits {
                copy.waits = copy.asked.from >= end;
                waiting.push((copy.run, copy.asked));
            }
        }
        waiting
    }

    /// A question was answered with what there is.
    pub(super) fn answered(&mut self, run: MemberRun, asked: &Fetch, end: u64) {
        let copies = self.copies.get_mut(&asked.log);
        if let Some(copy) = copies.and_then(|it| it.get_mut(&(run.node, run.directory))) {
            copy.waits &= asked.from >= end;
        }
    }

    /// The directories from which a member asks for `__meta`.
    pub(super) fn directories(&self, node: NodeId) -> impl Iterator<Item = MemberRun> {
        let of = self.copies.get(&LogKey::Meta).into_iter().flatten();
        of.filter(move |((asking, _), _)| *asking == node).map(|(_, copy)| copy.run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory was admitted as a member whose copy did not count: it had not adopted the epoch,
    /// or had not synced a log at `Sync`. With its voice the group lost what the others had.
    #[test]
    fn a_copy_is_held_as_far_as_it_has_adopted_and_synced() {
        let (log, directory) = (LogKey::Offsets, DirectoryId(7));
        let run = MemberRun { node: NodeId(2), directory, session: 1 };
        let before = Some(LeaderEpoch(1));
        let mut leader = Leader::new(LeaderEpoch(2), BTreeMap::new());
        let mut asked = Fetch { log, from: 5, before, adopted: false, synced: 3, held: 5 };
        leader.asked(run, asked);
        assert_eq!(leader.held(log, run.node, directory, false), None);
        asked.adopted = true;
        leader.asked(run, asked);
        assert_eq!(leader.held(log, run.node, directory, false), Some(5));
        assert_eq!(leader.held(log, run.node, directory, true), Some(3));
        assert_eq!(leader.held(log, run.node, DirectoryId(8), false), None);

        // One that has a stricter level than the leader may lose what it has not synced.
        asked.held = 3;
        let other = MemberRun { directory: DirectoryId(9), ..run };
        leader.asked(other, asked);
        assert_eq!(leader.held(log, run.node, other.directory, false), Some(3));
    }
}

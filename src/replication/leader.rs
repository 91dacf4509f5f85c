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
    /// The logs that were there then, and of which readers here may not see all that they had.
    behind: BTreeSet<LogKey>,
    /// By log, and by the directory that asks: a member may run from two.
    copies: BTreeMap<LogKey, BTreeMap<(NodeId, DirectoryId), Copying>>,
    /// Of each member the last run that asked and that no membership names. LIMIT: one, so that a
    /// member whose directory is emptied again and again takes no more room than one that is not.
    learners: BTreeMap<NodeId, MemberRun>,
}

impl Leader {
    pub(super) fn new(epoch: LeaderEpoch, began: BTreeMap<LogKey, u64>) -> Self {
        let behind = began.keys().copied().collect();
        Self { epoch, began, behind, copies: BTreeMap::new(), learners: BTreeMap::new() }
    }

    pub(super) fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    pub(super) fn began(&self, log: LogKey) -> u64 {
        self.began.get(&log).copied().unwrap_or(0)
    }

    /// Readers here see a log up to `watermark`.
    pub(super) fn shows(&mut self, log: LogKey, watermark: u64) {
        if watermark >= self.began(log) {
            self.behind.remove(&log);
        }
    }

    /// Only these logs are still there.
    pub(super) fn keep(&mut self, is_there: impl Fn(LogKey) -> bool) {
        self.behind.retain(|log| is_there(*log));
    }

    /// Whether readers here see all that was there when the epoch began. Whatever was acknowledged
    /// before is among that.
    pub(super) fn is_current(&self) -> bool {
        if !Rule::CurrentInEachLog.holds() {
            return !self.behind.contains(&LogKey::Meta);
        }
        self.behind.is_empty()
    }

    /// A member asked; its log is equal to the leader's up to the asked offset. A question that
    /// arrives after a later one of the same run changes nothing: a log that has adopted the epoch
    /// only grows. `counts`: whether a membership names the directory of a run.
    pub(super) fn asked(
        &mut self,
        run: MemberRun,
        asked: Fetch,
        counts: impl Fn(MemberRun) -> bool,
    ) {
        if !counts(run) {
            self.learn(run, counts);
        }
        let copies = self.copies.entry(asked.log).or_default();
        let key = (run.node, run.directory);
        let is_late = copies.get(&key).is_some_and(|known| {
            let Fetch { from, synced, start, .. } = known.asked;
            let is_less = asked.from < from || asked.synced < synced || asked.start < start;
            known.run == run && known.asked.adopted && (!asked.adopted || is_less)
        });
        if !is_late {
            copies.insert(key, Copying { run, asked, waits: true });
        }
    }

    /// A run that adopted the epoch in a log has asked later than this: what is answered to this
    /// question, it does not obey.
    #[cfg(test)]
    pub(super) fn knows_later(&self, run: MemberRun, asked: &Fetch) -> bool {
        let known = self.copies.get(&asked.log).and_then(|it| it.get(&(run.node, run.directory)));
        known.is_some_and(|known| {
            let is_later = !asked.adopted || asked.from < known.asked.from;
            known.run == run && known.asked.adopted && is_later
        })
    }

    /// A run asks that counts for nothing. What the one before it had is forgotten.
    fn learn(&mut self, run: MemberRun, counts: impl Fn(MemberRun) -> bool) {
        let before = self.learners.insert(run.node, run);
        let is_other = |before: &MemberRun| before.directory != run.directory && !counts(*before);
        if let Some(before) = before.filter(is_other) {
            for copies in self.copies.values_mut() {
                copies.remove(&(before.node, before.directory));
            }
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

    /// The log start that a majority of each of these memberships has noted; `own` is the leader's. Also in
    /// a log that has not adopted the epoch: who leads next takes the greatest that anybody names who
    /// promises, whatever else that member has.
    pub(super) fn noted_start(
        &self,
        log: LogKey,
        me: MemberRun,
        own: u64,
        needed: &[(u64, Membership)],
    ) -> Option<u64> {
        let noted = |node: NodeId, directory: DirectoryId| {
            if node == me.node {
                return (directory == me.directory).then_some(own);
            }
            let copy = self.copies.get(&log)?.get(&(node, directory))?;
            Some(copy.asked.start)
        };
        if !Rule::StartCounted.holds() {
            return Some(own);
        }
        needed.iter().map(|(_, membership)| membership.reached(noted)).min().flatten()
    }

    /// Whether this leader knows that the directories of a member that count have noted that a log begins
    /// at `start`, or above.
    pub(super) fn has_noted(
        &self,
        log: LogKey,
        node: NodeId,
        start: u64,
        needed: &[(u64, Membership)],
    ) -> bool {
        let directories = needed.iter().flat_map(|(_, membership)| membership.directories());
        let copies = self.copies.get(&log);
        directories.filter(|(of, _)| *of == node).all(|key| {
            let copy = copies.and_then(|it| it.get(&key));
            copy.is_some_and(|copy| copy.asked.start >= start)
        })
    }

    /// How far the run that a member asked from last has a log; zero if it has not asked for it.
    pub(super) fn copied(&self, log: LogKey, node: NodeId) -> u64 {
        let copies = self.copies.get(&log).into_iter().flatten();
        let of = copies.filter(|((asking, _), _)| *asking == node);
        of.map(|(_, copy)| copy.asked.from).max().unwrap_or(0)
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

    /// The run of a member that asked last of those that counted for nothing when they asked.
    pub(super) fn learner(&self, node: NodeId) -> Option<MemberRun> {
        self.learners.get(&node).copied()
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
        let mut asked =
            Fetch { log, from: 5, before, adopted: false, synced: 3, held: 5, start: 0 };
        leader.asked(run, asked, |_| true);
        assert_eq!(leader.held(log, run.node, directory, false), None);
        asked.adopted = true;
        leader.asked(run, asked, |_| true);
        assert_eq!(leader.held(log, run.node, directory, false), Some(5));
        assert_eq!(leader.held(log, run.node, directory, true), Some(3));
        assert_eq!(leader.held(log, run.node, DirectoryId(8), false), None);

        // One that has a stricter level than the leader may lose what it has not synced.
        asked.held = 3;
        let other = MemberRun { directory: DirectoryId(9), ..run };
        leader.asked(other, asked, |_| true);
        assert_eq!(leader.held(log, run.node, other.directory, false), Some(3));
    }

    /// Each directory that a member ever asked from was kept, so a member whose directory is
    /// emptied again and again took more and more room.
    // RED: src/replication/leader.rs
    //   - copies.remove(&(before.node, before.directory));
    #[test]
    fn of_the_directories_that_do_not_count_one_for_each_member_is_kept() {
        let log = LogKey::Offsets;
        let run = |directory| MemberRun {
            node: NodeId(2),
            directory: DirectoryId(directory),
            session: 1,
        };
        let named = |asking: MemberRun| asking.directory == DirectoryId(0);
        let asked =
            Fetch { log, from: 5, before: None, adopted: true, synced: 5, held: 5, start: 0 };
        let mut leader = Leader::new(LeaderEpoch(2), BTreeMap::new());
        for directory in 0..50 {
            leader.asked(run(directory), asked, named);
        }
        assert_eq!(leader.copies[&log].len(), 2);
        assert_eq!(leader.learner(NodeId(2)), Some(run(49)));
        assert_eq!(leader.held(log, NodeId(2), DirectoryId(0), false), Some(5));
        // The last one is admitted, and the one before it asks once more.
        let named = |asking: MemberRun| asking.directory == DirectoryId(49);
        leader.asked(run(0), asked, named);
        assert_eq!(leader.held(log, NodeId(2), DirectoryId(49), false), Some(5));
    }
}

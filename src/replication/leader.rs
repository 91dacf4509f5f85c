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
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Leader {
    epoch: LeaderEpoch,
    /// The ends when the epoch began. A log that was created since began at zero.
    began: BTreeMap<LogKey, u64>,
    /// By log and member.
    copies: BTreeMap<LogKey, BTreeMap<NodeId, Copying>>,
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
        let is_late = copies.get(&run.node).is_some_and(|known| {
            let reached = (known.asked.from, known.asked.synced);
            let is_less = asked.from < reached.0 || asked.synced < reached.1;
            known.run == run && known.asked.adopted && (!asked.adopted || is_less)
        });
        if !is_late {
            copies.insert(run.node, Copying { run, asked });
        }
    }

    /// How far a member has copied a log; `None` unless it has adopted the epoch in it.
    fn held(
        &self,
        log: LogKey,
        node: NodeId,
        directory: DirectoryId,
        is_synced: bool,
    ) -> Option<u64> {
        let copy = self.copies.get(&log)?.get(&node)?;
        let counts =
            copy.run.directory == directory && (copy.asked.adopted || !Rule::CountAdopted.holds());
        counts.then_some(if is_synced {
            copy.asked.synced.min(copy.asked.from)
        } else {
            copy.asked.from
        })
    }

    /// The offset below which a majority of each of these memberships has a log; `own` is how far
    /// the leader has it, by the same measure.
    pub(super) fn reached(
        &self,
        log: LogKey,
        me: MemberRun,
        own: u64,
        is_synced: bool,
        needed: &[(u64, Membership)],
    ) -> Option<u64> {
        let held = |node: NodeId, directory: DirectoryId| {
            if node == me.node {
                return (directory == me.directory).then_some(own);
            }
            self.held(log, node, directory, is_synced)
        };
        if !Rule::CountMajority.holds() {
            return Some(own);
        }
        needed.iter().map(|(_, membership)| membership.reached(held)).min().flatten()
    }

    /// Notes that a log can be written to. True the first time.
    pub(super) fn can_write(&mut self, log: LogKey) -> bool {
        self.writable.insert(log)
    }

    /// The questions that have no answer with records yet.
    pub(super) fn waiting(&self, log: LogKey) -> impl Iterator<Item = (MemberRun, Fetch)> {
        self.copies.get(&log).into_iter().flatten().map(|(_, copy)| (copy.run, copy.asked))
    }

    /// The run of a member that asked last.
    pub(super) fn asks(&self, log: LogKey, node: NodeId) -> Option<MemberRun> {
        Some(self.copies.get(&log)?.get(&node)?.run)
    }

    /// How far a member has a log, whether it counts or not.
    pub(super) fn copied(&self, log: LogKey, run: MemberRun) -> Option<u64> {
        self.copies
            .get(&log)?
            .get(&run.node)
            .filter(|copy| copy.run == run)
            .map(|copy| copy.asked.from)
    }
}

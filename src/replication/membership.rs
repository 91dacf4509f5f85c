//! `Membership`: who the members are, and what a majority of them is.
//!
//! Owns: the list of members by the directories that count for them, and the two newest such lists
//! of a log of `__meta`. Must not know: messages, roles, notes.

use serde::{Deserialize, Serialize};

use std::collections::BTreeMap;

use crate::record::NodeId;

/// A data directory, by the random number that it drew when it was created. A member whose directory
/// was lost comes back with another one, and so cannot be taken for the one that held records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct DirectoryId(pub(crate) u128);

/// One run of a member: from the opening of its broker to its end. Sessions of a directory count up,
/// durably, so an answer to an earlier run is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct MemberRun {
    pub(crate) node: NodeId,
    pub(crate) directory: DirectoryId,
    pub(crate) session: u64,
}

/// A group, by the directory that founded it. A directory founds one group at most, because its
/// `__meta` names that from then on, durably.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct GroupId(pub(crate) u128);

/// The members of a group, with the directory of each.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Membership {
    group: GroupId,
    directories: BTreeMap<NodeId, DirectoryId>,
}

impl Membership {
    pub(crate) fn new(
        group: GroupId,
        directories: impl IntoIterator<Item = (NodeId, DirectoryId)>,
    ) -> Self {
        Self { group, directories: directories.into_iter().collect() }
    }

    /// The members as an application lists them, before a group is founded: only their number and
    /// their nodes mean something.
    pub(crate) fn of_listed(nodes: &[NodeId]) -> Self {
        Self::new(GroupId(0), nodes.iter().map(|node| (*node, DirectoryId(0))))
    }

    pub(crate) fn group(&self) -> GroupId {
        self.group
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.directories.keys().copied()
    }

    pub(crate) fn directories(&self) -> impl Iterator<Item = (NodeId, DirectoryId)> {
        self.directories.iter().map(|(node, directory)| (*node, *directory))
    }

    pub(crate) fn names(&self, run: MemberRun) -> bool {
        self.directories.get(&run.node) == Some(&run.directory)
    }

    /// The same members, but another directory for one of them.
    pub(crate) fn with(&self, node: NodeId, directory: DirectoryId) -> Self {
        let mut directories = self.directories.clone();
        directories.insert(node, directory);
        Self { group: self.group, directories }
    }

    /// How many members a majority has.
    pub(crate) fn majority(&self) -> usize {
        self.directories.len() / 2 + 1
    }

    pub(crate) fn has_majority(&self, counts: impl Fn(NodeId, DirectoryId) -> bool) -> bool {
        let of = self.directories.iter().filter(|(node, directory)| counts(**node, **directory));
        of.count() >= self.majority()
    }

    /// The greatest offset that a majority has reached; `None` unless a majority has one at all.
    pub(crate) fn reached(&self, of: impl Fn(NodeId, DirectoryId) -> Option<u64>) -> Option<u64> {
        let mut reached: Vec<u64> =
            self.directories.iter().filter_map(|(node, directory)| of(*node, *directory)).collect();
        reached.sort_unstable_by(|a, b| b.cmp(a));
        reached.get(self.majority() - 1).copied()
    }
}

/// The memberships that a log of `__meta` has, by the offsets of their records.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Memberships {
    /// Offsets rise.
    records: Vec<(u64, Membership)>,
    /// How many of them are known to have come below the high watermark, whatever this run's
    /// watermark is: a leader writes a membership only after the one before it came there.
    settled: usize,
}

impl Memberships {
    /// The newest, whether a majority has it or not: every member goes by that of its log.
    pub(crate) fn newest(&self) -> Option<&Membership> {
        self.records.last().map(|(_, membership)| membership)
    }

    /// The offset of the newest one's record.
    pub(crate) fn newest_offset(&self) -> Option<u64> {
        self.records.last().map(|(offset, _)| *offset)
    }

    /// Those of which a majority is needed: the newest, and the one before it until the newest is
    /// below the high watermark.
    pub(crate) fn needed(&self, watermark: u64) -> &[(u64, Membership)] {
        let below = self.records.iter().filter(|(offset, _)| *offset < watermark).count();
        let first = below.max(self.settled).saturating_sub(1);
        self.records.get(first..).unwrap_or(&[])
    }

    /// A copy of the newest one's record is none of its own.
    pub(crate) fn push(&mut self, offset: u64, membership: Membership) {
        if self.newest() == Some(&membership) {
            return;
        }
        if self.newest().is_some_and(|newest| newest.group != membership.group) {
            // Somebody has given the group up, and founded one of what this directory has.
            self.records.clear();
        }
        self.settled = self.records.len();
        self.records.push((offset, membership));
    }

    pub(crate) fn truncate(&mut self, offset: u64) {
        self.records.retain(|(at, _)| *at < offset);
        self.settled = self.settled.min(self.records.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(directories: &[(u64, u128)]) -> Membership {
        Membership::new(GroupId(1), directories.iter().map(|(n, d)| (NodeId(*n), DirectoryId(*d))))
    }

    #[test]
    fn a_majority_is_more_than_half() {
        for members in 1..=7_u64 {
            let membership = of(&(0..members).map(|n| (n, u128::from(n))).collect::<Vec<_>>());
            for count in 0..=members {
                let has = membership.has_majority(|node, _| node.0 < count);
                assert_eq!(has, count * 2 > members, "{count} of {members}");
                let reached = membership.reached(|node, _| (node.0 < count).then_some(node.0));
                assert_eq!(reached.is_some(), has);
            }
        }
    }

    #[test]
    fn a_majority_has_reached_the_middle() {
        let three = of(&[(1, 1), (2, 2), (3, 3)]);
        assert_eq!(three.reached(|node, _| Some(node.0 * 10)), Some(20));
        assert_eq!(three.reached(|node, _| (node.0 > 1).then_some(node.0 * 10)), Some(20));
        assert_eq!(three.reached(|node, _| (node.0 > 2).then_some(node.0 * 10)), None);
    }

    #[test]
    fn the_one_before_counts_until_the_newest_is_below_the_watermark() {
        let mut all = Memberships::default();
        assert!(all.newest().is_none() && all.needed(9).is_empty());
        all.push(0, of(&[(1, 1)]));
        all.push(4, of(&[(1, 2)]));
        let needed =
            |all: &Memberships, at| all.needed(at).iter().map(|(o, _)| *o).collect::<Vec<_>>();
        assert_eq!(needed(&all, 0), [0, 4]);
        assert_eq!(needed(&all, 4), [0, 4]);
        assert_eq!(needed(&all, 5), [4]);
        all.push(5, of(&[(1, 2)]));
        assert_eq!(needed(&all, 5), [4], "a copy is none of its own");
        assert_eq!(needed(&all, 4), [0, 4]);
        all.push(7, of(&[(1, 3)]));
        assert_eq!(needed(&all, 0), [4, 7], "the third exists, so the second was below");
        all.truncate(7);
        assert_eq!(needed(&all, 0), [4]);
        all.truncate(4);
        assert_eq!(needed(&all, 0), [0]);
        // Another group does not need a majority of the one before.
        all.push(4, Membership::new(GroupId(2), [(NodeId(1), DirectoryId(1))]));
        assert_eq!(needed(&all, 0), [4]);
    }
}

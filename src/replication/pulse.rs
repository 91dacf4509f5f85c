//! `Pulse`: who of the members is heard, for the one that leads.
//!
//! Owns: when each directory was heard last, and which beat it has answered. Time comes in as a
//! value. Must not know: logs, messages.
//!
//! What counts are directories, as everywhere: a member whose disk was lost answers from another
//! one, and would be no help.

use std::collections::BTreeMap;
use std::time::Duration;

use super::membership::{DirectoryId, MemberRun, Membership};
use crate::record::NodeId;

/// LIMIT: how many directories of one member are remembered: the one that counts is heard with
/// every beat, so it is not the one that was heard longest ago.
const DIRECTORIES_MAX: usize = 4;

#[derive(Debug, Clone, Copy, Default)]
struct Heard {
    at: Duration,
    /// The last beat of this leadership that it has answered.
    round: u64,
}

/// How many members of a group are heard, this one among them, and how many are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reach {
    pub(super) reachable: usize,
    pub(super) required: usize,
}

impl Reach {
    pub(super) fn is_majority(self) -> bool {
        self.reachable >= self.required
    }
}

#[derive(Debug)]
pub(super) struct Pulse {
    timeout: Duration,
    heard: BTreeMap<(NodeId, DirectoryId), Heard>,
    /// The number of the last beat.
    round: u64,
}

impl Pulse {
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout, heard: BTreeMap::new(), round: 0 }
    }

    pub(super) fn round(&self) -> u64 {
        self.round
    }

    /// The number of the next beat.
    pub(super) fn beat(&mut self) -> u64 {
        self.round = self.round.saturating_add(1);
        self.round
    }

    pub(super) fn heard(&mut self, run: MemberRun, now: Duration) {
        let key = (run.node, run.directory);
        if !self.heard.contains_key(&key) {
            let of_node: Vec<_> = self.of(run.node).map(|(key, it)| (it.at, key)).collect();
            if of_node.len() >= DIRECTORIES_MAX
                && let Some((_, silent)) = of_node.into_iter().min()
            {
                self.heard.remove(&silent);
            }
        }
        self.heard.entry(key).or_default().at = now;
    }

    /// A member has answered a beat. A number that no beat had is a stranger's.
    pub(super) fn answered(&mut self, run: MemberRun, round: u64, now: Duration) {
        self.heard(run, now);
        if let Some(heard) = self.heard.get_mut(&(run.node, run.directory))
            && round <= self.round
        {
            heard.round = heard.round.max(round);
        }
    }

    fn of(&self, node: NodeId) -> impl Iterator<Item = ((NodeId, DirectoryId), Heard)> {
        let of = self.heard.iter().filter(move |((heard, _), _)| *heard == node);
        of.map(|(key, heard)| (*key, *heard))
    }

    /// When a member was heard last, from any directory.
    pub(super) fn last(&self, node: NodeId) -> Option<Duration> {
        self.of(node).map(|(_, heard)| heard.at).max()
    }

    /// Whether who was heard last at `since` is missed.
    pub(super) fn has_missed(&self, since: Duration, now: Duration) -> bool {
        now >= since.saturating_add(self.timeout)
    }

    pub(super) fn is_heard(&self, node: NodeId, now: Duration) -> bool {
        self.last(node).is_some_and(|at| !self.has_missed(at, now))
    }

    /// Whether a member is heard from the directory that counts for it.
    pub(super) fn hears(&self, node: NodeId, directory: DirectoryId, now: Duration) -> bool {
        let heard = self.heard.get(&(node, directory));
        heard.is_some_and(|heard| !self.has_missed(heard.at, now))
    }

    /// The same, and it was not heard from another one since: that it has lost this one.
    pub(super) fn hears_last(&self, node: NodeId, directory: DirectoryId, now: Duration) -> bool {
        let at = self.heard.get(&(node, directory)).map(|heard| heard.at);
        self.hears(node, directory, now) && at == self.last(node)
    }

    /// Of the membership that is worst off: a majority of each is needed.
    pub(super) fn reach(&self, me: NodeId, needed: &[(u64, Membership)], now: Duration) -> Reach {
        let of = |(_, membership): &(u64, Membership)| Reach {
            reachable: membership
                .directories()
                .filter(|(node, directory)| *node == me || self.hears(*node, *directory, now))
                .count(),
            required: membership.majority(),
        };
        let missing = |reach: &Reach| reach.required.saturating_sub(reach.reachable);
        let worst = needed.iter().map(of).max_by_key(missing);
        worst.unwrap_or(Reach { reachable: 1, required: 1 })
    }

    /// The last beat that a majority has answered.
    pub(super) fn confirmed(&self, me: NodeId, needed: &[(u64, Membership)]) -> u64 {
        let round = |node: NodeId, directory: DirectoryId| {
            if node == me {
                return Some(self.round);
            }
            self.heard.get(&(node, directory)).map(|heard| heard.round)
        };
        let each = needed.iter().map(|(_, membership)| membership.reached(round).unwrap_or(0));
        each.min().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::membership::GroupId;
    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(500);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn members(nodes: &[u64]) -> (u64, Membership) {
        let nodes = nodes.iter().map(|node| (NodeId(*node), DirectoryId(u128::from(*node))));
        (0, Membership::new(GroupId(1), nodes))
    }

    fn run(node: u64, directory: u128) -> MemberRun {
        MemberRun { node: NodeId(node), directory: DirectoryId(directory), session: 1 }
    }

    #[test]
    fn a_member_is_heard_until_the_time_out() {
        let mut pulse = Pulse::new(TIMEOUT);
        let (me, needed) = (NodeId(0), [members(&[0, 1, 2])]);
        let reach = |pulse: &Pulse, now| pulse.reach(me, &needed, now);
        assert_eq!(reach(&pulse, ms(0)), Reach { reachable: 1, required: 2 });
        pulse.heard(run(2, 2), ms(100));
        assert_eq!(reach(&pulse, ms(599)), Reach { reachable: 2, required: 2 });
        assert!(!reach(&pulse, ms(600)).is_majority());
        // A change of the membership: a majority of both is needed.
        let both = [members(&[0, 2]), members(&[0, 1, 3])];
        assert_eq!(pulse.reach(me, &both, ms(200)), Reach { reachable: 1, required: 2 });
    }

    #[test]
    fn a_beat_is_confirmed_when_a_majority_has_answered_it() {
        let mut pulse = Pulse::new(TIMEOUT);
        let (me, needed) = (NodeId(0), [members(&[0, 1, 2, 3, 4])]);
        assert_eq!((pulse.beat(), pulse.beat()), (1, 2));
        pulse.answered(run(1, 1), 2, ms(0));
        assert_eq!(pulse.confirmed(me, &needed), 0);
        pulse.answered(run(2, 2), 1, ms(0));
        assert_eq!(pulse.confirmed(me, &needed), 1);
        // Late, repeated, and never sent.
        pulse.answered(run(1, 1), 1, ms(0));
        pulse.answered(run(3, 3), 900, ms(0));
        assert_eq!(pulse.confirmed(me, &needed), 1);
        pulse.answered(run(3, 3), 2, ms(0));
        assert_eq!(pulse.confirmed(me, &needed), 2);
    }

    /// A member whose disk was lost answered beats under its node id, and counted for the majority
    /// that a leader needs.
    #[test]
    fn another_directory_of_a_member_does_not_count_for_it() {
        let mut pulse = Pulse::new(TIMEOUT);
        let (me, needed) = (NodeId(0), [members(&[0, 1, 2])]);
        let round = pulse.beat();
        pulse.answered(run(1, 77), round, ms(0));
        assert_eq!(pulse.confirmed(me, &needed), 0);
        assert!(!pulse.reach(me, &needed, ms(0)).is_majority());
        assert!(pulse.is_heard(NodeId(1), ms(0)) && !pulse.hears(NodeId(1), DirectoryId(1), ms(0)));
        pulse.answered(run(1, 1), round, ms(0));
        assert_eq!(pulse.confirmed(me, &needed), round);
        assert!(pulse.reach(me, &needed, ms(0)).is_majority());
    }

    #[test]
    fn few_directories_of_a_member_are_remembered() {
        let mut pulse = Pulse::new(TIMEOUT);
        for (directory, at) in (2..100).zip(0..) {
            pulse.heard(run(1, directory), ms(at));
            pulse.heard(run(1, 1), ms(at));
        }
        assert_eq!(pulse.heard.len(), DIRECTORIES_MAX);
        assert!(pulse.hears(NodeId(1), DirectoryId(1), ms(97)));
    }
}

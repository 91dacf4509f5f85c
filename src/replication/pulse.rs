//! `Pulse`: who of the members is heard, for the one that leads.
//!
//! Owns: when each member was heard last, and which beat it has answered. Time comes in as a value.
//! Must not know: logs, messages.

use std::collections::BTreeMap;
use std::time::Duration;

use super::membership::{DirectoryId, MemberRun, Membership};
use crate::record::NodeId;

#[derive(Debug, Clone, Copy, Default)]
struct Heard {
    at: Duration,
    /// From which run.
    run: Option<MemberRun>,
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
    heard: BTreeMap<NodeId, Heard>,
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
        let heard = self.heard.entry(run.node).or_default();
        (heard.at, heard.run) = (now, Some(run));
    }

    /// The run from which a member was heard last.
    pub(super) fn run(&self, node: NodeId) -> Option<MemberRun> {
        self.heard.get(&node).and_then(|heard| heard.run)
    }

    /// A member has answered a beat. A number that no beat had is a stranger's.
    pub(super) fn answered(&mut self, node: NodeId, round: u64) {
        let heard = self.heard.entry(node).or_default();
        if round <= self.round {
            heard.round = heard.round.max(round);
        }
    }

    /// When a member was heard last.
    pub(super) fn last(&self, node: NodeId) -> Option<Duration> {
        self.heard.get(&node).map(|heard| heard.at)
    }

    pub(super) fn is_heard(&self, node: NodeId, now: Duration) -> bool {
        self.last(node).is_some_and(|at| now < at.saturating_add(self.timeout))
    }

    /// Of the membership that is worst off: a majority of each is needed.
    pub(super) fn reach(&self, me: NodeId, needed: &[(u64, Membership)], now: Duration) -> Reach {
        let of = |(_, membership): &(u64, Membership)| Reach {
            reachable: membership
                .nodes()
                .filter(|node| *node == me || self.is_heard(*node, now))
                .count(),
            required: membership.majority(),
        };
        let missing = |reach: &Reach| reach.required.saturating_sub(reach.reachable);
        let worst = needed.iter().map(of).max_by_key(missing);
        worst.unwrap_or(Reach { reachable: 1, required: 1 })
    }

    /// The last beat that a majority has answered.
    pub(super) fn confirmed(&self, me: NodeId, needed: &[(u64, Membership)]) -> u64 {
        let round = |node: NodeId, _: DirectoryId| {
            if node == me {
                return Some(self.round);
            }
            self.heard.get(&node).map(|heard| heard.round)
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

    #[test]
    fn a_member_is_heard_until_the_time_out() {
        let mut pulse = Pulse::new(TIMEOUT);
        let (me, needed) = (NodeId(0), [members(&[0, 1, 2])]);
        let reach = |pulse: &Pulse, now| pulse.reach(me, &needed, now);
        assert_eq!(reach(&pulse, ms(0)), Reach { reachable: 1, required: 2 });
        let directory = DirectoryId(2);
        pulse.heard(MemberRun { node: NodeId(2), directory, session: 1 }, ms(100));
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
        pulse.answered(NodeId(1), 2);
        assert_eq!(pulse.confirmed(me, &needed), 0);
        pulse.answered(NodeId(2), 1);
        assert_eq!(pulse.confirmed(me, &needed), 1);
        // Late, repeated, and never sent.
        pulse.answered(NodeId(1), 1);
        pulse.answered(NodeId(3), 900);
        assert_eq!(pulse.confirmed(me, &needed), 1);
        pulse.answered(NodeId(3), 2);
        assert_eq!(pulse.confirmed(me, &needed), 2);
    }
}

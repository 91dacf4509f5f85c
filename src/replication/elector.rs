//! `Elector`: when a member calls itself to lead.
//!
//! Owns: when the leader was last heard, and who else misses it. Time and chance come in as values. A
//! member that misses its leader first asks the others whether they miss it too (Raft's pre-vote), so
//! one that was cut off, or was removed, does not depose a leader that the others hear. It can only
//! cause calls of `lead`; what these may do is decided by `Member`, so nothing here can lose
//! a record. Must not know: promises, logs.

use std::collections::BTreeSet;
use std::time::Duration;

use super::membership::{DirectoryId, Membership};
use crate::record::{LeaderEpoch, NodeId};

/// Who else misses the leader.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Round {
    epoch: LeaderEpoch,
    missed_by: BTreeSet<NodeId>,
}

/// What the elector wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Ask the others whether they miss the leader too, and would let somebody lead this epoch.
    Ask(LeaderEpoch),
    Lead(LeaderEpoch),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Elector {
    me: NodeId,
    timeout: Duration,
    /// When the leader was last heard, or a round began; on the broker's monotonic clock.
    since: Duration,
    /// How long it waits from then: drawn between the time-out and its double, so that members
    /// rarely begin at the same time.
    patience: Duration,
    /// The leader was last heard at that time.
    heard: Option<Duration>,
    round: Option<Round>,
}

impl Elector {
    /// `chance` is any number; each member should have another one.
    pub(crate) fn new(me: NodeId, timeout: Duration, now: Duration, chance: u32) -> Self {
        let mut elector =
            Self { me, timeout, since: now, patience: timeout, heard: None, round: None };
        elector.wait_from(now, chance);
        elector
    }

    fn wait_from(&mut self, now: Duration, chance: u32) {
        let share = self.timeout.saturating_mul(chance % 1024) / 1024;
        self.since = now;
        self.patience = self.timeout.saturating_add(share);
    }

    /// When it wants to be called next.
    pub(crate) fn due(&self) -> Duration {
        self.since.saturating_add(self.patience)
    }

    /// The leader of the promised epoch was heard, or this member leads and hears a majority.
    pub(crate) fn heard(&mut self, now: Duration, chance: u32) {
        self.heard = Some(now);
        self.round = None;
        self.wait_from(now, chance);
    }

    /// Time has passed. `promised` is the greatest epoch that this member has promised, or of which
    /// a refusal said that another one has.
    pub(crate) fn tick(
        &mut self,
        now: Duration,
        promised: LeaderEpoch,
        chance: u32,
    ) -> Option<Wish> {
        if now < self.due() {
            return None;
        }
        let epoch = LeaderEpoch(promised.0.checked_add(1)?);
        self.round = Some(Round { epoch, missed_by: BTreeSet::from([self.me]) });
        self.wait_from(now, chance);
        Some(Wish::Ask(epoch))
    }

    /// Another member asks. True if this one misses the leader too.
    pub(crate) fn misses(&self, now: Duration, epoch: LeaderEpoch, promised: LeaderEpoch) -> bool {
        let hears = self.heard.is_some_and(|heard| now < heard.saturating_add(self.timeout));
        epoch > promised && !hears
    }

    /// Another member misses the leader too. `needed` are the memberships of which a majority is
    /// needed to lead.
    pub(crate) fn missed_by(
        &mut self,
        node: NodeId,
        epoch: LeaderEpoch,
        needed: &[(u64, Membership)],
    ) -> Option<Wish> {
        let round = self.round.as_mut().filter(|round| round.epoch == epoch)?;
        round.missed_by.insert(node);
        let misses = |node: NodeId, _: DirectoryId| round.missed_by.contains(&node);
        let is_majority =
            !needed.is_empty() && needed.iter().all(|(_, of)| of.has_majority(misses));
        if is_majority {
            self.round = None;
        }
        is_majority.then_some(Wish::Lead(epoch))
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

    fn three() -> Vec<(u64, Membership)> {
        let nodes = (0..3).map(|node| (NodeId(node), DirectoryId(u128::from(node))));
        vec![(0, Membership::new(GroupId(1), nodes))]
    }

    /// A group on one clock, whose messages arrive at once: who leads which epoch, and who hears whom.
    struct Group {
        electors: Vec<Elector>,
        promised: Vec<LeaderEpoch>,
        leader: Option<(usize, LeaderEpoch)>,
        is_cut_off: [bool; 3],
        now: Duration,
        chance: u32,
    }

    impl Group {
        fn new(chance: u32) -> Self {
            let elector = |node: u32| {
                Elector::new(NodeId(node.into()), TIMEOUT, ms(0), chance * 7 + 97 * node)
            };
            Self {
                electors: (0..3).map(elector).collect(),
                promised: vec![LeaderEpoch(0); 3],
                leader: None,
                is_cut_off: [false; 3],
                now: ms(0),
                chance,
            }
        }

        fn hear(&self, a: usize, b: usize) -> bool {
            !self.is_cut_off[a] && !self.is_cut_off[b]
        }

        fn chance(&mut self) -> u32 {
            self.chance = self.chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            self.chance >> 16
        }

        fn pass(&mut self, step: Duration) {
            self.now += step;
            if let Some((leader, epoch)) = self.leader {
                let hears = |i: &usize| *i == leader || self.hear(leader, *i);
                let hearing: Vec<usize> = (0..3).filter(hears).collect();
                for i in hearing.iter().copied().filter(|_| hearing.len() > 1) {
                    if self.promised[i] <= epoch {
                        self.promised[i] = epoch;
                        let chance = self.chance();
                        self.electors[i].heard(self.now, chance);
                    }
                }
            }
            for i in 0..3 {
                let (promised, chance) = (self.promised[i], self.chance());
                if let Some(Wish::Ask(epoch)) = self.electors[i].tick(self.now, promised, chance) {
                    self.ask(i, epoch);
                }
            }
        }

        fn ask(&mut self, i: usize, epoch: LeaderEpoch) {
            for (other, node) in (0..3).zip([0, 1, 2].map(NodeId)) {
                let hears = other != i && self.hear(i, other);
                if hears && self.electors[other].misses(self.now, epoch, self.promised[other]) {
                    let wish = self.electors[i].missed_by(node, epoch, &three());
                    if let Some(Wish::Lead(epoch)) = wish {
                        self.promised[i] = epoch;
                        self.promised[other] = epoch;
                        self.leader = Some((i, epoch));
                    }
                }
            }
        }
    }

    #[test]
    fn a_group_gets_a_leader_within_two_timeouts_and_again_when_that_is_cut_off() {
        for seed in 0..200 {
            let mut group = Group::new(seed);
            let passes =
                |group: &mut Group, time: u64| (0..time / 10).for_each(|_| group.pass(ms(10)));
            passes(&mut group, 1000);
            let (first, epoch) = group.leader.expect("a leader within two time-outs");
            group.is_cut_off[first] = true;
            passes(&mut group, 1000 + 10);
            let (second, later) = group.leader.unwrap();
            assert_ne!((first, epoch), (second, later), "seed {seed}");
            assert!(second != first && later > epoch, "seed {seed}");
        }
    }

    #[test]
    fn who_was_cut_off_does_not_depose_the_leader_that_others_hear() {
        for seed in 0..200 {
            let mut group = Group::new(seed);
            (0..200).for_each(|_| group.pass(ms(10)));
            let leader = group.leader.expect("a leader");
            let other = (leader.0 + 1) % 3;
            group.is_cut_off[other] = true;
            (0..500).for_each(|_| group.pass(ms(10)));
            group.is_cut_off[other] = false;
            (0..200).for_each(|_| group.pass(ms(10)));
            assert_eq!(group.leader, Some(leader), "seed {seed}");
        }
    }

    #[test]
    fn the_last_epoch_is_not_passed() {
        let mut elector = Elector::new(NodeId(0), TIMEOUT, ms(0), 0);
        assert_eq!(elector.tick(ms(10_000), LeaderEpoch(u32::MAX), 0), None);
        assert_eq!(elector.tick(ms(10_000), LeaderEpoch(7), 0), Some(Wish::Ask(LeaderEpoch(8))));
        assert_eq!(elector.missed_by(NodeId(1), LeaderEpoch(7), &three()), None, "another round");
        assert_eq!(elector.missed_by(NodeId(1), LeaderEpoch(8), &[]), None, "no membership");
    }
}

//! The worlds that are explored: how many members, and how much may happen.
//!
//! Owns: the bounds of a world, its first state, and what must never be true in it. Must not know:
//! how it is searched.

use super::super::log_key::LogKey;
use super::super::logs::{Log, MetaChange};
use super::super::membership::{DirectoryId, GroupId, MemberRun, Membership};
use super::super::message::{Body, Envelope, Fetch, Fetched};
use super::super::role::{Following, Role};
use super::super::rule::Rule;
use super::action::{Action, Spent, Write};
use super::node::{Message, Node, Rec, Records, Step};
use super::shown::Shown;
use crate::record::{LeaderEpoch, NodeId};

#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "what a world has does not depend on each other")]
pub(super) struct World {
    pub(super) members: u8,
    pub(super) epochs: u32,
    pub(super) appends: u8,
    pub(super) kills: u8,
    pub(super) power_cuts: u8,
    pub(super) wipes: u8,
    /// Logs beside `__meta`.
    pub(super) others: Vec<LogKey>,
    /// The log that takes the appends.
    pub(super) appends_to: Vec<LogKey>,
    /// The group was founded before.
    pub(super) is_founded: bool,
    /// The first member leads epoch 1, all have adopted it, and the last member runs from two
    /// directories: its own, and a new one that has copied everything.
    pub(super) is_replacing: bool,
    /// Who may be called to lead which epoch; empty: anybody, any.
    pub(super) leads: Vec<(u8, u32)>,
    /// What is appended beside, each once, in its epoch.
    pub(super) writes: Vec<(u32, Write)>,
    /// The first member leads epoch 1 and has created a topic, which all have; the others, not the
    /// leader, have synced its creation.
    pub(super) has_topic: bool,
    /// Only synced copies count.
    pub(super) at_sync: bool,
    /// Messages that the rules make useless are delivered too.
    pub(super) keeps_late: bool,
    /// A call to lead may come twice for an epoch, at two members.
    pub(super) leads_twice: bool,
}

impl Default for World {
    fn default() -> Self {
        Self {
            members: 3,
            epochs: 2,
            appends: 0,
            kills: 0,
            power_cuts: 0,
            wipes: 0,
            others: Vec::new(),
            appends_to: vec![LogKey::Meta],
            is_founded: true,
            is_replacing: false,
            has_topic: false,
            leads: Vec::new(),
            writes: Vec::new(),
            at_sync: false,
            keeps_late: false,
            leads_twice: false,
        }
    }
}

impl World {
    pub(super) fn run(node: u8) -> MemberRun {
        MemberRun {
            node: NodeId(node.into()),
            directory: DirectoryId(u128::from(node)),
            session: 1,
        }
    }

    fn membership(&self) -> Membership {
        Membership::new(
            GroupId(0),
            (0..self.members).map(|node| (NodeId(node.into()), DirectoryId(node.into()))),
        )
    }

    fn keys(&self) -> Vec<LogKey> {
        let mut keys = vec![LogKey::Meta];
        keys.extend(&self.others);
        keys
    }

    pub(super) fn begin(&self) -> Vec<Node> {
        let listed: Vec<NodeId> = self.membership().nodes().collect();
        let mut nodes: Vec<Node> = (0..self.members)
            .map(|node| {
                if self.is_founded {
                    Node::founded(Self::run(node), &self.membership(), &self.keys(), self.at_sync)
                } else {
                    Node::blank(Self::run(node), listed.clone(), &self.keys(), self.at_sync)
                }
            })
            .collect();
        if self.is_replacing {
            self.replace_last(&mut nodes);
        }
        if self.has_topic {
            self.create_topic(&mut nodes);
        }
        nodes
    }

    fn create_topic(&self, nodes: &mut [Node]) {
        let all = |_: usize| true;
        let step = nodes[0].lead(LeaderEpoch(1)).unwrap_or_default();
        settle(nodes, step, all);
        let log = LogKey::Partition { topic: 1, partition: 0 };
        let epoch = nodes[0].leads();
        let created = MetaChange::Created { log, counts_synced: self.at_sync, epoch };
        let step = nodes[0].append(LogKey::Meta, Some(created)).unwrap_or_default();
        settle(nodes, step, all);
        for i in 1..nodes.len() {
            let step = nodes[i].sync(LogKey::Meta).unwrap_or_default();
            settle(nodes, step, all);
        }
    }

    /// The first member leads epoch 1, and a new directory of the last one copies everything. With five
    /// members, it is admitted, and another record is visible, but not all have heard of it.
    fn replace_last(&self, nodes: &mut Vec<Node>) {
        let all = |_: usize| true;
        let step = nodes[0].lead(LeaderEpoch(1)).unwrap_or_default();
        settle(nodes, step, all);
        let new = nodes.last().map(|node| self.wiped(node));
        nodes.extend(new);
        let step = nodes[0].resend();
        settle(nodes, step, all);
        if self.members == 5 {
            let step = nodes[0].replace(NodeId(4)).unwrap_or_default();
            settle(nodes, step, |to| [0, 2, 3, 5].contains(&to));
            let step = nodes[0].append(LogKey::Meta, None).unwrap_or_default();
            settle(nodes, step, |to| [0, 3, 5].contains(&to));
        }
    }

    /// What is no question of the world: there are two directories of one member.
    fn has_other_directories(&self) -> bool {
        self.wipes > 0 || self.is_replacing || !self.is_founded
    }

    /// The same node with a new directory.
    pub(super) fn wiped(&self, node: &Node) -> Node {
        let mut me = node.member.state().me();
        me.directory = DirectoryId(me.directory.0 + 10);
        me.session = 1;
        let listed: Vec<NodeId> = self.membership().nodes().collect();
        Node::blank(me, listed, &self.keys(), self.at_sync)
    }

    pub(super) fn actions(
        &self,
        index: u8,
        node: &Node,
        spent: &Spent,
        mut add: impl FnMut(Action),
    ) {
        for epoch in 1..=self.epochs {
            let bits = if self.leads_twice { 2 } else { 1 };
            let may = self.leads.is_empty() || self.leads.contains(&(index, epoch));
            let used = (spent.epochs >> (epoch * 2)) & 3;
            if may && used < bits && LeaderEpoch(epoch) >= node.member.state().notes().promised() {
                add(Action::Lead(LeaderEpoch(epoch)));
            }
        }
        if node.member.role().leads().is_some() {
            let epoch = node.member.role().leads().map_or(0, |epoch| epoch.0);
            if spent.appends < self.appends {
                self.appends_to.iter().for_each(|log| add(Action::Append(*log)));
            }
            for (i, (in_epoch, write)) in (0..).zip(&self.writes) {
                if *in_epoch == epoch && spent.writes >> i & 1 == 0 {
                    add(Action::Write(i, *write));
                }
            }
            if self.has_other_directories() {
                (0..self.members).for_each(|other| add(Action::Replace(NodeId(other.into()))));
            }
        }
        if self.at_sync {
            node.records.keys().for_each(|log| add(Action::Sync(*log)));
        }
        if self.kills + self.power_cuts + self.wipes > 0 {
            add(Action::Resend);
        }
        if spent.kills < self.kills {
            add(Action::Kill);
        }
        if spent.power_cuts < self.power_cuts {
            add(Action::PowerCut);
        }
        if spent.wipes < self.wipes {
            add(Action::Wipe);
        }
    }

    /// Some majority would choose logs that lack what was visible.
    pub(super) fn loses(&self, nodes: &[&Node], shown: &Shown) -> Option<String> {
        if self.has_other_directories() {
            return None;
        }
        let meta = shown.committed.get(&LogKey::Meta).map_or(&[][..], |meta| meta);
        for (log, committed) in &shown.committed {
            if meta.iter().any(|rec| rec.change == Some(MetaChange::Deleted(*log))) {
                continue;
            }
            let copies: Vec<(LeaderEpoch, &[Rec])> = nodes
                .iter()
                .filter(|node| !node.disk.is_recovering())
                .map(|node| {
                    let records: &[Rec] =
                        node.records.get(log).map_or(&[], |log: &Records| &log.all);
                    (node.member.state().logs().adopted(*log, &node.disk), records)
                })
                .collect();
            let majority = nodes.len() / 2 + 1;
            for chosen in 0_u32..1 << copies.len() {
                if chosen.count_ones() as usize != majority {
                    continue;
                }
                let of = copies.iter().enumerate().filter(|(i, _)| chosen >> i & 1 == 1);
                let of: Vec<_> = of.map(|(_, copy)| copy).collect();
                let best = of.iter().map(|(adopted, records)| (*adopted, records.len())).max();
                let mut best =
                    of.iter().filter(|(adopted, records)| Some((*adopted, records.len())) == best);
                if best.any(|(_, records)| !records.starts_with(committed)) {
                    return Some(format!("a majority would lose visible records of {log:?}"));
                }
            }
        }
        None
    }
}

/// Delivers messages in order until none is left, to those to whom it may.
pub(super) fn settle(nodes: &mut [Node], step: Step, may: impl Fn(usize) -> bool) {
    let mut messages = std::collections::VecDeque::from(step.sends);
    while let Some(message) = messages.pop_front() {
        for (i, node) in nodes.iter_mut().enumerate() {
            if node.member.state().me().node == message.envelope.to && may(i) {
                messages.extend(node.receive(&message).sends);
            }
        }
    }
}

/// A message that can change nothing at its receiver any more.
pub(super) fn is_spent(world: &World, message: &Message, to: &Node, was_delivered: bool) -> bool {
    let keeps_late = world.keeps_late
        || !(Rule::TakeNothing.holds()
            && Rule::PromiseOnce.holds()
            && Rule::PromiseNoted.holds()
            && Rule::AnswerToThisRun.holds());
    if keeps_late {
        return false;
    }
    let state = to.member.state();
    let (me, promised) = (state.me(), state.notes().promised());
    let Envelope { from, epoch, .. } = message.envelope;
    // Of a leadership, or a run, that is known to be over.
    if epoch < promised || from.session < state.notes().seen(from.directory) {
        return true;
    }
    let role = to.member.role();
    match &message.envelope.body {
        Body::Ask(_) => epoch == promised,
        Body::Promised(answer) => {
            was_delivered || answer.to != me || role.stands_for() != Some(epoch)
        }
        Body::Fetched(answer) => {
            answer.to != me || (Rule::AnswerAsked.holds() && is_late(answer, to, from, epoch))
        }
        Body::Fetch(asked) => match role {
            Role::Leader(leader) if leader.epoch() == epoch => {
                was_delivered || leader.knows_later(from, asked)
            }
            _ => {
                let is_answered = state.notes().promise().is_some_and(|it| it.candidate == from);
                was_delivered || (epoch == promised && !is_answered)
            }
        },
        Body::Beat => role.follows() == Some(Following { leader: from, epoch }),
        Body::Refused { .. } | Body::Superseded { .. } => false,
    }
}

/// An answer that no member obeys any more, because its log has changed since it asked. In an epoch a
/// log is cut to what it has in common with the leader's, and then only grows: it never asks the same
/// again.
fn is_late(answer: &Fetched, to: &Node, from: MemberRun, epoch: LeaderEpoch) -> bool {
    let state = to.member.state();
    match to.member.role() {
        Role::Leader(leader) => leader.epoch() == epoch,
        Role::Follower(Some(known)) if known.epoch == epoch => {
            let question = state.question(epoch, answer.asked.log);
            let is_other = |question: Fetch| {
                let Fetch { synced, held, start, .. } = question;
                question != Fetch { synced, held, start, ..answer.asked }
            };
            known.leader != from || answer.led.is_none() || question.is_some_and(is_other)
        }
        Role::Follower(_) | Role::Candidate(_) => {
            let adopted = state.logs().adopted(answer.asked.log, state.notes());
            let end = state.logs().get(answer.asked.log).map_or(0, Log::end);
            adopted == epoch && (answer.asked.from < end || !answer.asked.adopted)
        }
    }
}

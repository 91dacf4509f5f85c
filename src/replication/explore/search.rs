//! The search through all states of a small world.
//!
//! Owns: the states that were seen, and how each was reached. A message is never removed from the
//! network, so it can be delivered late, repeatedly, in any order, or never. A state is a handful of
//! numbers. Must not know: the rules.

use std::collections::HashSet;
use std::hash::BuildHasherDefault;

use super::action::{Action, Spent};
use super::known::Known;
use super::node::Node;
use super::numbers::{Mix, fingerprint};
use super::shown::Shown;
use super::steps::{Outcome, Steps};
use super::world::{World, is_spent};

#[derive(Debug, Clone)]
struct State {
    nodes: Box<[u32]>,
    shown: u32,
    spent: Spent,
    /// Sorted.
    messages: Box<[u32]>,
    index: u32,
}

impl State {
    fn members(&self) -> u128 {
        fingerprint(&(&self.nodes, self.shown, self.spent))
    }

    fn all(&self) -> u128 {
        fingerprint(&(&self.nodes, self.shown, self.spent, &self.messages))
    }

    fn has(&self, message: u32) -> bool {
        self.messages.binary_search(&message).is_ok()
    }
}

/// What a search found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) states: usize,
    /// States of single members, and steps of them.
    pub(super) of_members: (usize, usize),
    /// All states of the world were seen.
    pub(super) is_complete: bool,
    pub(super) violation: Option<Violation>,
}

#[derive(Debug)]
pub(super) struct Violation {
    pub(super) what: String,
    pub(super) trace: Vec<String>,
}

pub(super) struct Search<'a> {
    steps: Steps<'a>,
    /// How each state was reached: from which one, by which action of which member.
    parents: Vec<(u32, u32, u8)>,
    /// The members as they begin.
    begin: Box<[u32]>,
}

impl<'a> Search<'a> {
    pub(super) fn new(world: &'a World) -> Self {
        Self { steps: Steps::new(world), parents: Vec::new(), begin: Box::default() }
    }

    fn first(&mut self) -> State {
        let begin = self.steps.world.begin();
        let nodes: Box<[u32]> = begin.iter().map(|node| self.steps.nodes.of(node)).collect();
        self.begin.clone_from(&nodes);
        let mut shown = Shown::default();
        begin.iter().flat_map(Node::visible).for_each(|claim| shown.take(&claim).unwrap());
        let shown = self.steps.shown.of(&shown);
        self.parents.push((0, 0, 0));
        State { nodes, shown, spent: Spent::default(), messages: Box::default(), index: 0 }
    }

    /// Searches all states, depth first, and gives up at `most`.
    ///
    /// A state is left out if one with the same members had all of its messages: whatever can happen
    /// in it can happen there. So what only sends something, and changes no member, is done at once.
    pub(super) fn run_whole(mut self, most: usize) -> Found {
        let mut stack = vec![self.first()];
        let mut known = Known::default();
        let mut states = 0;
        while let Some(state) = stack.pop() {
            if state.index > 0 && !known.has(state.members(), &state.messages) {
                continue;
            }
            states += 1;
            for (node, action) in self.actions(&state) {
                let (next, shown) = match self.take(&state, node, action) {
                    Err(what) => return self.violated(states, &state, node, action, what),
                    Ok(None) => continue,
                    Ok(Some(next)) => next,
                };
                let length = self.parents.len();
                let next = self.reached(next, state.index, node, action);
                let next = self.sent(next);
                if !known.add(next.members(), &next.messages) {
                    self.parents.truncate(length);
                    continue;
                }
                if let Some(what) = shown.then(|| self.loses(&next)).flatten() {
                    self.parents.truncate(length);
                    return self.violated(states, &state, node, action, what);
                }
                stack.push(next);
            }
            if states >= most || self.steps.is_full() {
                return self.found(states, false, None);
            }
        }
        self.found(states, true, None)
    }

    /// Searches breadth first, so the way to a violation is a shortest one. Gives up at `most` states.
    pub(super) fn run(mut self, most: usize) -> Found {
        let mut level = vec![self.first()];
        let mut seen: HashSet<u128, BuildHasherDefault<Mix>> = HashSet::default();
        while !level.is_empty() && self.parents.len() <= most && !self.steps.is_full() {
            let mut next_level = Vec::new();
            for state in &level {
                for (node, action) in self.actions(state) {
                    let next = match self.take(state, node, action) {
                        Err(what) => return self.violated(seen.len(), state, node, action, what),
                        Ok(None) => continue,
                        Ok(Some((next, _))) => next,
                    };
                    if !seen.insert(next.all()) {
                        continue;
                    }
                    if let Some(what) = self.loses(&next) {
                        return self.violated(seen.len(), state, node, action, what);
                    }
                    next_level.push(self.reached(next, state.index, node, action));
                }
            }
            level = next_level;
        }
        self.found(self.parents.len(), level.is_empty(), None)
    }

    fn found(&self, states: usize, is_complete: bool, violation: Option<Violation>) -> Found {
        Found { states, of_members: self.steps.count(), is_complete, violation }
    }

    /// Notes how a state was reached.
    fn reached(&mut self, mut state: State, from: u32, node: u8, action: Action) -> State {
        state.index = u32::try_from(self.parents.len()).unwrap();
        let action = self.steps.number(action);
        self.parents.push((from, action, node));
        state
    }

    /// The state after everything that changes no member and nothing but messages.
    fn sent(&mut self, mut state: State) -> State {
        loop {
            let mut done = None;
            for (node, action) in self.actions(&state) {
                let number = state.nodes[usize::from(node)];
                let Some(outcome) = self.steps.step(number, action) else { continue };
                let is_free = !action.is_counted() && outcome.node == number;
                if !is_free || self.steps.sends(outcome).iter().all(|it| state.has(*it)) {
                    continue;
                }
                if self.steps.shows(state.shown, outcome) != Ok(state.shown) {
                    continue;
                }
                let next = self.after(&state, node, action, outcome, state.shown);
                if next.messages.iter().any(|message| !state.has(*message)) {
                    done = Some((next, node, action));
                    break;
                }
            }
            let Some((next, node, action)) = done else { return state };
            state = self.reached(next, state.index, node, action);
        }
    }

    fn actions(&self, state: &State) -> Vec<(u8, Action)> {
        let mut actions: Vec<(u8, Action)> = Vec::with_capacity(state.messages.len() + 8);
        // Members that nothing has happened to are alike: it happens to the first of them.
        let alike = self.steps.world.leads.is_empty();
        let is_untouched = |i: usize| alike && state.nodes[i] == self.begin[i];
        let untouched = (0..state.nodes.len()).find(|i| is_untouched(*i));
        for number in &state.messages {
            for i in self.receivers(&state.nodes, *number) {
                actions.push((i, Action::Deliver(*number)));
            }
        }
        for (i, number) in state.nodes.iter().enumerate() {
            let node = self.steps.nodes.get(*number);
            let i = u8::try_from(i).unwrap();
            self.steps.world.actions(i, node, &state.spent, |action| actions.push((i, action)));
        }
        actions
            .retain(|(i, _)| !is_untouched(usize::from(*i)) || untouched == Some(usize::from(*i)));
        actions
    }

    /// Takes a step. `None`: it changes nothing. Otherwise also whether it changed a member, or showed
    /// something.
    fn take(
        &mut self,
        state: &State,
        node: u8,
        action: Action,
    ) -> Result<Option<(State, bool)>, String> {
        let number = state.nodes[usize::from(node)];
        let Some(outcome) = self.steps.step(number, action) else { return Ok(None) };
        let shown = self.steps.shows(state.shown, outcome)?;
        let has_changed = outcome.node != number || shown != state.shown;
        if !has_changed
            && !action.is_counted()
            && self.steps.sends(outcome).iter().all(|sent| state.has(*sent))
        {
            return Ok(None);
        }
        Ok(Some((self.after(state, node, action, outcome, shown), has_changed)))
    }

    fn after(
        &self,
        state: &State,
        node: u8,
        action: Action,
        outcome: Outcome,
        shown: u32,
    ) -> State {
        let mut spent = state.spent;
        spent.add(action);
        let mut nodes = state.nodes.clone();
        nodes[usize::from(node)] = outcome.node;
        let mut messages = state.messages.to_vec();
        for sent in self.steps.sends(outcome) {
            if let Err(at) = messages.binary_search(sent) {
                messages.insert(at, *sent);
            }
        }
        let delivered = match action {
            Action::Deliver(number) => Some(number),
            _ => None,
        };
        let me = self.steps.nodes.get(outcome.node).member.state().me().node;
        messages.retain(|number| {
            let message = self.steps.messages.get(*number);
            if message.envelope.to != me && state.has(*number) {
                // Its receiver is as it was.
                return true;
            }
            self.receivers(&nodes, *number).any(|i| {
                let was_delivered = i == node && delivered == Some(*number);
                let to = self.steps.nodes.get(nodes[usize::from(i)]);
                !is_spent(self.steps.world, message, to, was_delivered)
            })
        });
        State { nodes, shown, spent, messages: messages.into(), index: 0 }
    }

    /// Those who can get a message: directories of one member, if there are several.
    fn receivers(&self, nodes: &[u32], message: u32) -> impl Iterator<Item = u8> {
        let to = self.steps.messages.get(message).envelope.to;
        let is_receiver = move |(i, number): (usize, &u32)| {
            (self.steps.nodes.get(*number).member.state().me().node == to)
                .then(|| u8::try_from(i).unwrap())
        };
        nodes.iter().enumerate().filter_map(is_receiver)
    }

    fn loses(&self, state: &State) -> Option<String> {
        let node = |number: &u32| self.steps.nodes.get(*number);
        let nodes: Vec<&Node> = state.nodes.iter().map(node).collect();
        self.steps.world.loses(&nodes, self.steps.shown.get(state.shown))
    }

    fn violated(
        &self,
        states: usize,
        state: &State,
        node: u8,
        action: Action,
        what: String,
    ) -> Found {
        let mut path = vec![(node, action)];
        let mut at = state.index;
        while at != 0 {
            let (parent, action, node) = self.parents[at as usize];
            path.push((node, self.steps.action(action)));
            at = parent;
        }
        let words = |(node, action): &(u8, Action)| self.steps.say(*node, *action);
        let trace = path.iter().rev().map(words).collect();
        self.found(states, false, Some(Violation { what, trace }))
    }
}

//! The search: breadth first through all states of a small world.
//!
//! Owns: the states that were seen, and how each was reached. A message is never removed from the
//! network, so it can be delivered late, repeatedly, in any order, or never. Members and messages
//! are numbered, and each step of a member is computed once: the state machine is pure, and a state
//! is a handful of numbers. Must not know: the rules.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hash, Hasher};

use super::super::log_key::LogKey;
use super::super::logs::MetaChange;
use super::super::message::Body;
use super::action::{Action, Spent, Write};
use super::node::{Claim, Message, Node, Step};
use super::shown::Shown;
use super::world::{World, is_spent};

/// A fast hasher for keys that nobody chooses to collide.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u128(&mut self, word: u128) {
        let [low, high] = [word & u128::from(u64::MAX), word >> 64].map(u64::try_from);
        self.write_u64(low.unwrap_or(0) ^ high.unwrap_or(0));
    }

    fn write_u64(&mut self, word: u64) {
        let mixed = (self.0 ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = (mixed ^ (mixed >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word) + 1);
    }

    fn write_u8(&mut self, word: u8) {
        self.write_u64(u64::from(word) + 2);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
}

type Map<K, V> = HashMap<K, V, BuildHasherDefault<Mix>>;

/// Numbers values.
#[derive(Debug)]
struct Numbers<T> {
    all: Vec<T>,
    of: Map<T, u32>,
}

impl<T: Clone + Eq + Hash> Numbers<T> {
    fn new() -> Self {
        Self { all: Vec::new(), of: Map::default() }
    }

    fn of(&mut self, value: &T) -> u32 {
        if let Some(number) = self.of.get(value) {
            return *number;
        }
        let number = u32::try_from(self.all.len()).unwrap();
        self.all.push(value.clone());
        self.of.insert(value.clone(), number);
        number
    }

    fn get(&self, number: u32) -> &T {
        &self.all[number as usize]
    }
}

#[derive(Debug, Clone)]
struct State {
    nodes: Box<[u32]>,
    shown: u32,
    spent: Spent,
    /// Sorted.
    messages: Box<[u32]>,
    index: u32,
}

#[derive(Debug, Clone)]
struct Outcome {
    node: u32,
    sends: Box<[u32]>,
    claims: Box<[u32]>,
}

/// What a search found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) states: usize,
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
    world: &'a World,
    nodes: Numbers<Node>,
    messages: Numbers<Message>,
    claims: Numbers<Claim>,
    shown: Numbers<Shown>,
    steps: Map<(u32, Action), Option<Outcome>>,
    shows: Map<(u32, u32), Result<u32, String>>,
    seen: HashSet<u128, BuildHasherDefault<Mix>>,
    parents: Vec<(u32, u8, Action)>,
    /// The members as they begin.
    begin: Box<[u32]>,
}

impl<'a> Search<'a> {
    pub(super) fn new(world: &'a World) -> Self {
        Self {
            world,
            nodes: Numbers::new(),
            messages: Numbers::new(),
            claims: Numbers::new(),
            shown: Numbers::new(),
            steps: Map::default(),
            shows: Map::default(),
            seen: HashSet::default(),
            parents: Vec::new(),
            begin: Box::default(),
        }
    }

    /// Searches all states, depth first, and gives up at `most`. A state is left out if one with the
    /// same members had all of its messages: whatever can happen in it can happen there.
    pub(super) fn run_whole(mut self, most: usize) -> Found {
        let mut stack = vec![self.first()];
        let mut known: Map<u128, Vec<Box<[u32]>>> = Map::default();
        let mut states = 0;
        while let Some(state) = stack.pop() {
            let sets = known.entry(members_print(&state)).or_default();
            if sets.iter().any(|set| is_subset(&state.messages, set)) {
                continue;
            }
            sets.retain(|set| !is_subset(set, &state.messages));
            sets.push(state.messages.clone());
            states += 1;
            for (node, action) in self.actions(&state) {
                match self.take(&state, node, action) {
                    Err(what) => return self.violated(&state, node, action, what),
                    Ok(Some(state)) => stack.push(state),
                    Ok(None) => {}
                }
            }
            if self.parents.len() > most || self.is_full() {
                return Found { states, is_complete: false, violation: None };
            }
        }
        Found { states, is_complete: true, violation: None }
    }

    /// As many states of members, and steps of them, as take some gigabytes.
    fn is_full(&self) -> bool {
        self.nodes.all.len() > 150_000 || self.steps.len() > 6_000_000
    }

    fn first(&mut self) -> State {
        let begin = self.world.begin();
        let nodes: Box<[u32]> = begin.iter().map(|node| self.nodes.of(node)).collect();
        self.begin.clone_from(&nodes);
        let mut shown = Shown::default();
        begin.iter().flat_map(Node::visible).for_each(|claim| shown.take(&claim).unwrap());
        let shown = self.shown.of(&shown);
        let messages = Box::default();
        let first = State { nodes, shown, spent: Spent::default(), messages, index: 0 };
        self.parents.push((0, 0, Action::Resend));
        self.seen.insert(fingerprint(&first));
        first
    }

    /// Searches breadth first, so the way to a violation is a shortest one. Gives up at `most` states.
    pub(super) fn run(mut self, most: usize) -> Found {
        let mut level = vec![self.first()];
        while !level.is_empty() && self.parents.len() <= most && !self.is_full() {
            let mut next = Vec::new();
            for state in &level {
                for (node, action) in self.actions(state) {
                    match self.take(state, node, action) {
                        Err(what) => return self.violated(state, node, action, what),
                        Ok(Some(state)) => next.push(state),
                        Ok(None) => {}
                    }
                }
            }
            level = next;
        }
        Found { states: self.parents.len(), is_complete: level.is_empty(), violation: None }
    }

    fn actions(&self, state: &State) -> Vec<(u8, Action)> {
        let mut actions: Vec<(u8, Action)> = Vec::with_capacity(state.messages.len() + 8);
        // Members that nothing has happened to are alike: it happens to the first of them.
        let alike = self.world.leads.is_empty();
        let is_untouched = |i: usize| alike && state.nodes[i] == self.begin[i];
        let untouched = (0..state.nodes.len()).find(|i| is_untouched(*i));
        for number in &state.messages {
            for i in self.receivers(&state.nodes, *number) {
                actions.push((i, Action::Deliver(*number)));
            }
        }
        for (i, number) in state.nodes.iter().enumerate() {
            let node = self.nodes.get(*number);
            let i = u8::try_from(i).unwrap();
            self.world.actions(i, node, &state.spent, |action| actions.push((i, action)));
        }
        actions
            .retain(|(i, _)| !is_untouched(usize::from(*i)) || untouched == Some(usize::from(*i)));
        actions
    }

    /// Takes a step. `None`: it leads to no new state.
    fn take(&mut self, state: &State, node: u8, action: Action) -> Result<Option<State>, String> {
        let i = usize::from(node);
        let Some(outcome) = self.step(state.nodes[i], action) else { return Ok(None) };
        let mut shown = state.shown;
        for claim in &outcome.claims {
            shown = self.show(shown, *claim)?;
        }
        let mut spent = state.spent;
        spent.add(action);
        if outcome.node == state.nodes[i]
            && spent == state.spent
            && shown == state.shown
            && outcome.sends.iter().all(|sent| state.messages.binary_search(sent).is_ok())
        {
            return Ok(None);
        }
        let mut nodes = state.nodes.clone();
        nodes[i] = outcome.node;
        let mut messages = state.messages.to_vec();
        for sent in &outcome.sends {
            if let Err(at) = messages.binary_search(sent) {
                messages.insert(at, *sent);
            }
        }
        let delivered = match action {
            Action::Deliver(number) => Some(number),
            _ => None,
        };
        messages.retain(|number| {
            let message = self.messages.get(*number);
            self.receivers(&nodes, *number).any(|i| {
                let was_delivered = i == node && delivered == Some(*number);
                !is_spent(self.world, message, self.nodes.get(nodes[usize::from(i)]), was_delivered)
            })
        });
        let mut next = State { nodes, shown, spent, messages: messages.into(), index: 0 };
        if !self.seen.insert(fingerprint(&next)) {
            return Ok(None);
        }
        next.index = u32::try_from(self.parents.len()).unwrap();
        self.parents.push((state.index, node, action));
        if let Some(what) = self.loses(&next) {
            return Err(what);
        }
        Ok(Some(next))
    }

    /// Those who can get a message: directories of one member, if there are several.
    fn receivers(&self, nodes: &[u32], message: u32) -> impl Iterator<Item = u8> {
        let to = self.messages.get(message).envelope.to;
        let is_receiver = move |(i, number): (usize, &u32)| {
            (self.nodes.get(*number).member.state().me().node == to)
                .then(|| u8::try_from(i).unwrap())
        };
        nodes.iter().enumerate().filter_map(is_receiver)
    }

    fn step(&mut self, number: u32, action: Action) -> Option<Outcome> {
        if let Some(known) = self.steps.get(&(number, action)) {
            return known.clone();
        }
        let mut node = self.nodes.get(number).clone();
        let step = match action {
            Action::Deliver(message) => Some(node.receive(self.messages.get(message))),
            Action::Lead(epoch) => node.lead(epoch),
            Action::Append(log) | Action::Write(_, Write::Record(log)) => node.append(log, None),
            Action::Write(_, Write::Creation(log)) => {
                let (counts_synced, epoch) = (self.world.at_sync, node.leads());
                node.append(LogKey::Meta, Some(MetaChange::Created { log, counts_synced, epoch }))
            }
            Action::Write(_, Write::Deletion(log)) => {
                node.append(LogKey::Meta, Some(MetaChange::Deleted(log)))
            }
            Action::Kill | Action::PowerCut => {
                node.restart(action == Action::PowerCut);
                Some(Step::default())
            }
            Action::Wipe => {
                node = self.world.wiped(&node);
                Some(Step::default())
            }
            Action::Replace(other) => node.replace(other),
            Action::Resend => Some(node.resend()),
            Action::Sync(log) => node.sync(log),
        };
        let outcome = step.map(|step| Outcome {
            sends: step.sends.iter().map(|message| self.messages.of(message)).collect(),
            claims: step.claims.iter().map(|claim| self.claims.of(claim)).collect(),
            node: self.nodes.of(&node),
        });
        self.steps.insert((number, action), outcome.clone());
        outcome
    }

    fn show(&mut self, shown: u32, claim: u32) -> Result<u32, String> {
        if let Some(known) = self.shows.get(&(shown, claim)) {
            return known.clone();
        }
        let mut value = self.shown.get(shown).clone();
        let result = value.take(self.claims.get(claim)).map(|()| self.shown.of(&value));
        self.shows.insert((shown, claim), result.clone());
        result
    }

    fn loses(&self, state: &State) -> Option<String> {
        let nodes: Vec<&Node> = state.nodes.iter().map(|number| self.nodes.get(*number)).collect();
        self.world.loses(&nodes, self.shown.get(state.shown))
    }

    fn violated(&self, state: &State, node: u8, action: Action, what: String) -> Found {
        let mut path = vec![(node, action)];
        let mut at = state.index;
        while at != 0 {
            let (parent, node, action) = self.parents[at as usize];
            path.push((node, action));
            at = parent;
        }
        let trace = path.iter().rev().map(|(node, action)| self.say(*node, *action)).collect();
        let violation = Some(Violation { what, trace });
        Found { states: self.parents.len(), is_complete: false, violation }
    }

    fn say(&self, node: u8, action: Action) -> String {
        let name = char::from(b'A' + node);
        let Action::Deliver(number) = action else { return format!("{name}: {action:?}") };
        let message = self.messages.get(number);
        let from = char::from(b'A' + u8::try_from(message.envelope.from.node.0).unwrap());
        let epoch = message.envelope.epoch.0;
        let body = match &message.envelope.body {
            Body::Ask(_) => "asks for a promise".to_owned(),
            Body::Promised(promised) => format!("promises: {:?}", promised.logs),
            Body::Refused { .. } => "refuses".to_owned(),
            Body::Superseded { session, .. } => format!("has noted run {session}"),
            Body::Beat => "leads".to_owned(),
            Body::Fetch(fetch) => format!("{fetch:?}"),
            Body::Fetched(fetched) => format!("answers {:?} {:?}", fetched.led, fetched.found),
        };
        format!("{name} hears {from} in epoch {epoch}: {body}")
    }
}

fn fingerprint(state: &State) -> u128 {
    let half = |seed: u64| {
        let mut hasher = Mix(seed);
        state.nodes.hash(&mut hasher);
        state.shown.hash(&mut hasher);
        state.spent.hash(&mut hasher);
        state.messages.hash(&mut hasher);
        hasher.finish()
    };
    (u128::from(half(1)) << 64) | u128::from(half(0xA5A5_5A5A_1234_4321))
}

fn members_print(state: &State) -> u128 {
    fingerprint(&State { messages: Box::default(), ..state.clone() })
}

fn is_subset(small: &[u32], large: &[u32]) -> bool {
    let mut large = large.iter();
    small.len() <= large.len() && small.iter().all(|number| large.any(|other| other == number))
}

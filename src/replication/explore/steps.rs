//! The steps of single members, each computed once: the state machine is pure.
//!
//! Owns: the numbers of members, messages and what they show, and what comes of each step. Must not
//! know: states of the group, the order of a search.

use super::super::log_key::LogKey;
use super::super::logs::MetaChange;
use super::super::message::Body;
use super::action::{Action, Write};
use super::node::{Claim, Message, Node, Step};
use super::numbers::{Map, Numbers};
use super::shown::Shown;
use super::world::World;

/// What comes of a step: the member after it, and what it sent and showed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outcome {
    pub(super) node: u32,
    /// Where the numbers of what was sent and shown are.
    at: u32,
    sends: u16,
    claims: u16,
}

pub(super) struct Steps<'a> {
    pub(super) world: &'a World,
    pub(super) nodes: Numbers<Node>,
    pub(super) messages: Numbers<Message>,
    pub(super) shown: Numbers<Shown>,
    claims: Numbers<Claim>,
    actions: Numbers<Action>,
    /// By member and action.
    known: Map<u64, Option<Outcome>>,
    /// The messages and claims of all outcomes.
    listed: Vec<u32>,
    shows: Map<u64, Result<u32, String>>,
}

fn pair(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

impl<'a> Steps<'a> {
    pub(super) fn new(world: &'a World) -> Self {
        Self {
            world,
            nodes: Numbers::new(),
            messages: Numbers::new(),
            shown: Numbers::new(),
            claims: Numbers::new(),
            actions: Numbers::new(),
            known: Map::default(),
            listed: Vec::new(),
            shows: Map::default(),
        }
    }

    /// More than fits into some gigabytes.
    pub(super) fn is_full(&self) -> bool {
        self.nodes.len() > 1_200_000 || self.known.len() > 100_000_000
    }

    pub(super) fn count(&self) -> (usize, usize) {
        (self.nodes.len(), self.known.len())
    }

    pub(super) fn number(&mut self, action: Action) -> u32 {
        self.actions.of(&action)
    }

    pub(super) fn action(&self, number: u32) -> Action {
        *self.actions.get(number)
    }

    pub(super) fn sends(&self, outcome: Outcome) -> &[u32] {
        &self.listed[outcome.at as usize..][..usize::from(outcome.sends)]
    }

    /// What was shown with what a step shows.
    pub(super) fn shows(&mut self, mut shown: u32, outcome: Outcome) -> Result<u32, String> {
        let from = outcome.at as usize + usize::from(outcome.sends);
        for i in from..from + usize::from(outcome.claims) {
            shown = self.show(shown, self.listed[i])?;
        }
        Ok(shown)
    }

    fn show(&mut self, shown: u32, claim: u32) -> Result<u32, String> {
        if let Some(known) = self.shows.get(&pair(shown, claim)) {
            return known.clone();
        }
        let mut value = self.shown.get(shown).clone();
        let result = value.take(self.claims.get(claim)).map(|()| self.shown.of(&value));
        self.shows.insert(pair(shown, claim), result.clone());
        result
    }

    /// What comes of an action of a member; `None` if it is none that it can take.
    pub(super) fn step(&mut self, number: u32, action: Action) -> Option<Outcome> {
        let key = pair(number, self.number(action));
        if let Some(known) = self.known.get(&key) {
            return *known;
        }
        let mut node = self.nodes.get(number).clone();
        let outcome = self.act(&mut node, action).map(|step| {
            let at = u32::try_from(self.listed.len()).unwrap();
            for message in &step.sends {
                let number = self.messages.of(message);
                self.listed.push(number);
            }
            for claim in &step.claims {
                let number = self.claims.of(claim);
                self.listed.push(number);
            }
            let count = |all: usize| u16::try_from(all).unwrap();
            let (sends, claims) = (count(step.sends.len()), count(step.claims.len()));
            Outcome { node: self.nodes.of(&node), at, sends, claims }
        });
        self.known.insert(key, outcome);
        outcome
    }

    fn act(&self, node: &mut Node, action: Action) -> Option<Step> {
        match action {
            Action::Deliver(message) => Some(node.receive(self.messages.get(message))),
            Action::Lead(epoch) => node.lead(epoch),
            Action::Append(log) | Action::Write(_, Write::Record(log)) => node.append(log, None),
            Action::Write(_, Write::Creation(log)) => {
                let (counts_synced, epoch) = (self.world.at_sync, node.leads());
                let created = MetaChange::Created { log, counts_synced, epoch };
                node.append(LogKey::Meta, Some(created))
            }
            Action::Write(_, Write::Deletion(log)) => {
                node.append(LogKey::Meta, Some(MetaChange::Deleted(log)))
            }
            Action::Kill | Action::PowerCut => {
                node.restart(action == Action::PowerCut);
                Some(Step::default())
            }
            Action::Wipe => {
                *node = self.world.wiped(node);
                Some(Step::default())
            }
            Action::Replace(other) => node.replace(other),
            Action::Resend => Some(node.resend()),
            Action::Sync(log) => node.sync(log),
        }
    }

    /// A step in words.
    pub(super) fn say(&self, node: u8, action: Action) -> String {
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

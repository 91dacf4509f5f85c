//! A member with a disk, as the exploration sees it: the state machine, and the records themselves.
//!
//! Owns: carrying out the effects of the state machine on records and notes, and what a crash leaves
//! of them. Must not know: which messages are on the way, what is committed.

use std::collections::BTreeMap;

use super::super::effect::{Effect, Event};
use super::super::history::EpochRange;
use super::super::log_key::LogKey;
use super::super::logs::{Logs, MetaChange};
use super::super::member::Member;
use super::super::membership::{DirectoryId, MemberRun, Membership};
use super::super::message::{Body, Envelope, Found};
use super::super::notes::Notes;
use crate::record::{LeaderEpoch, NodeId};

/// A record, by the leadership that wrote it and what it changes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Rec {
    pub(super) epoch: LeaderEpoch,
    pub(super) by: MemberRun,
    pub(super) change: Option<MetaChange>,
}

/// The records of a log. Offset 0 is the first: retention is not explored here.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Records {
    pub(super) all: Vec<Rec>,
    pub(super) synced: usize,
}

/// A message with the records that its frame carries.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Message {
    pub(super) envelope: Envelope,
    pub(super) records: Vec<Rec>,
}

/// What a step shows to the outside.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Claim {
    /// These records of a log are below a high watermark.
    Visible(LogKey, Vec<Rec>),
    Leads(LeaderEpoch, MemberRun),
    /// A leader says that nothing is missing from what readers see at it: of each log so many
    /// records.
    Current(LeaderEpoch, Vec<(LogKey, u64)>),
    /// Something that never happens if the rules are kept.
    Bug(&'static str),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Node {
    pub(super) member: Member,
    pub(super) disk: Notes,
    pub(super) records: BTreeMap<LogKey, Records>,
    listed: Vec<NodeId>,
}

/// What came of a step.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub(super) sends: Vec<Message>,
    pub(super) claims: Vec<Claim>,
}

impl Node {
    /// A member of a group that was founded: its `__meta` begins with the membership, synced.
    pub(super) fn founded(
        me: MemberRun,
        membership: &Membership,
        keys: &[LogKey],
        at_sync: bool,
    ) -> Self {
        let mut logs = Logs::only(keys, at_sync);
        let change = MetaChange::Members(membership.clone());
        let range = EpochRange { epoch: LeaderEpoch(0), records: 1 };
        assert!(logs.append(LogKey::Meta, &[range], &[(0, change.clone())]));
        logs.synced(LogKey::Meta, 1);
        let founder = MemberRun { node: NodeId(0), directory: DirectoryId(0), session: 0 };
        let first = Rec { epoch: LeaderEpoch(0), by: founder, change: Some(change) };
        let mut records: BTreeMap<LogKey, Records> =
            keys.iter().map(|key| (*key, Records::default())).collect();
        records.insert(LogKey::Meta, Records { all: vec![first], synced: 1 });
        let notes = Notes::new(me);
        let listed: Vec<NodeId> = membership.nodes().collect();
        let member = Member::new(notes.clone(), logs, listed.clone());
        Self { member, disk: notes, records, listed }
    }

    /// A member with an empty directory.
    pub(super) fn blank(
        me: MemberRun,
        listed: Vec<NodeId>,
        keys: &[LogKey],
        at_sync: bool,
    ) -> Self {
        let notes = Notes::new(me);
        let member = Member::new(notes.clone(), Logs::only(keys, at_sync), listed.clone());
        let records = keys.iter().map(|key| (*key, Records::default())).collect();
        Self { member, disk: notes, records, listed }
    }

    /// What readers of this member see.
    pub(super) fn visible(&self) -> Vec<Claim> {
        let logs = self.member.state().logs().iter();
        let seen = |key, end| self.records.get(&key).and_then(|log| log.all.get(..size(end)));
        logs.filter_map(|(key, log)| Some(Claim::Visible(key, seen(key, log.watermark)?.to_vec())))
            .filter(|claim| !matches!(claim, Claim::Visible(_, records) if records.is_empty()))
            .collect()
    }

    pub(super) fn receive(&mut self, message: &Message) -> Step {
        let effects = self.member.receive(&message.envelope);
        self.carry_out(effects, &message.records)
    }

    pub(super) fn lead(&mut self, epoch: LeaderEpoch) -> Option<Step> {
        let effects = self.member.lead(epoch).ok()?;
        Some(self.carry_out(effects, &[]))
    }

    /// The epoch that it leads; zero if it does not.
    pub(super) fn leads(&self) -> LeaderEpoch {
        self.member.role().leads().unwrap_or_default()
    }

    pub(super) fn append(&mut self, key: LogKey, change: Option<MetaChange>) -> Option<Step> {
        let epoch = self.member.role().leads()?;
        self.member.state().logs().get(key)?;
        let log = self.records.get_mut(&key)?;
        let at = log.all.len() as u64;
        log.all.push(Rec { epoch, by: self.member.state().me(), change: change.clone() });
        let changes: Vec<_> = change.into_iter().map(|change| (at, change)).collect();
        let effects = self.member.appended(key, 1, &changes)?;
        let created = changes.iter().filter_map(|(_, change)| match change {
            MetaChange::Created { log, .. } => Some(*log),
            _ => None,
        });
        for key in created {
            self.records.entry(key).or_default();
        }
        Some(self.carry_out(effects, &[]))
    }

    /// A log is synced. Nothing if it is already.
    pub(super) fn sync(&mut self, key: LogKey) -> Option<Step> {
        let log = self.records.get_mut(&key).filter(|log| log.synced < log.all.len())?;
        log.synced = log.all.len();
        let effects = self.member.synced(key, log.synced as u64);
        Some(self.carry_out(effects, &[]))
    }

    pub(super) fn replace(&mut self, node: NodeId) -> Option<Step> {
        let effects = self.member.replace(node)?;
        Some(self.carry_out(effects, &[]))
    }

    pub(super) fn resend(&mut self) -> Step {
        let effects = self.member.resend();
        self.carry_out(effects, &[])
    }

    /// The process ends, and begins again; a power cut removes what was not synced.
    pub(super) fn restart(&mut self, after_power_cut: bool) {
        let mut logs = self.member.state().logs().clone();
        // What counted was synced, unless copies count before.
        let has_lost = after_power_cut && logs.iter().any(|(_, log)| !log.counts_synced);
        if after_power_cut {
            for (key, log) in &mut self.records {
                log.all.truncate(log.synced);
                logs.truncate(*key, log.synced as u64);
            }
            let kept: Vec<LogKey> = logs.with_deleted().map(|(key, _)| key).collect();
            self.records.retain(|key, _| kept.contains(key));
        }
        self.disk = self.disk.clone().next_session(has_lost);
        self.member = Member::new(self.disk.clone(), logs, self.listed.clone());
    }

    fn carry_out(&mut self, effects: Vec<Effect>, in_hand: &[Rec]) -> Step {
        let mut step = Step::default();
        let mut in_hand = in_hand.iter();
        for effect in effects {
            match effect {
                Effect::Sync(keys) => {
                    for key in keys {
                        let log = self.records.entry(key).or_default();
                        log.synced = log.all.len();
                    }
                }
                Effect::Note(note) => self.disk.apply(&note),
                Effect::Append { log, records } => {
                    let log = self.records.entry(log).or_default();
                    log.all.extend(in_hand.by_ref().take(size(records)).cloned());
                }
                Effect::Truncate { log, to } => {
                    let log = self.records.entry(log).or_default();
                    log.all.truncate(size(to));
                    log.synced = log.synced.min(log.all.len());
                }
                Effect::Remove(log) => {
                    self.records.remove(&log);
                    self.disk.forget(log);
                }
                Effect::AppendMembership(membership) => {
                    let epoch = self.member.state().notes().promised();
                    let change = Some(MetaChange::Members(membership));
                    let rec = Rec { epoch, by: self.member.state().me(), change: change.clone() };
                    let all = &mut self.records.entry(LogKey::Meta).or_default().all;
                    let changes: Vec<_> =
                        change.map(|it| (all.len() as u64, it)).into_iter().collect();
                    all.push(rec);
                    let effects = self.member.appended(LogKey::Meta, 1, &changes);
                    let then = self.carry_out(effects.unwrap_or_default(), &[]);
                    step.sends.extend(then.sends);
                    step.claims.extend(then.claims);
                }
                Effect::Send(envelope) => {
                    if let Some(message) = self.load(*envelope) {
                        step.sends.push(message);
                    }
                }
                Effect::Watermark { log, offset } => {
                    let all = self.records.get(&log).map_or(&[][..], |log| &log.all);
                    match all.get(..size(offset)) {
                        Some(visible) => step.claims.push(Claim::Visible(log, visible.to_vec())),
                        None => step.claims.push(Claim::Bug("a watermark above the end")),
                    }
                }
                Effect::Event(event) => step.claims.extend(self.claim(&event)),
                // No log begins above its first record here, no group is forced, and no producer is strict.
                Effect::BeginAnew { .. }
                | Effect::RaiseStart { .. }
                | Effect::Synced { .. }
                | Effect::SyncSoon(_)
                | Effect::BeginGroup(_)
                | Effect::Disown => {}
            }
        }
        for (key, log) in self.member.state().logs().iter() {
            let records = self.records.entry(key).or_default();
            if log.end() != records.all.len() as u64 {
                step.claims.push(Claim::Bug("the state machine does not know its log"));
            }
        }
        step
    }

    /// What an event shows.
    fn claim(&self, event: &Event) -> Option<Claim> {
        match event {
            Event::Leading(epoch) => Some(Claim::Leads(*epoch, self.member.state().me())),
            Event::Current(epoch) => {
                let logs = self.member.state().logs().iter();
                let seen = logs.map(|(key, log)| (key, log.watermark)).collect();
                Some(Claim::Current(*epoch, seen))
            }
            Event::CutRefused(_) => Some(Claim::Bug("a cut was refused")),
            _ => None,
        }
    }

    /// Adds the records to an answer, and what they change. Refusals only make members stop, so they
    /// are left out; and no directory is put back from a copy here.
    fn load(&self, mut envelope: Envelope) -> Option<Message> {
        let mut records = Vec::new();
        match &mut envelope.body {
            Body::Refused { .. } | Body::Superseded { .. } => return None,
            Body::Fetched(fetched) => {
                if let Found::Records { ranges, changes } = &mut fetched.found {
                    let count: u64 = ranges.iter().map(|range| range.records).sum();
                    let from = fetched.asked.from;
                    let log = &self.records.get(&fetched.asked.log)?.all;
                    records = log.get(size(from)..size(from + count))?.to_vec();
                    let numbered = records.iter().zip(from..);
                    *changes = numbered
                        .filter_map(|(rec, at)| rec.change.clone().map(|change| (at, change)))
                        .collect();
                }
            }
            _ => {}
        }
        Some(Message { envelope, records })
    }
}

fn size(count: u64) -> usize {
    usize::try_from(count).unwrap()
}

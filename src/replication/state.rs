//! `State`: what a member has: its notes, and what it knows of its logs.
//!
//! Owns: both, and every change of them, each with the effect that carries it out. Which changes are
//! made, and when, is decided by the member's role. Must not know: roles.

use std::collections::BTreeMap;

use super::compare;
use super::effect::{Effect, Event};
use super::history::EpochRange;
use super::log_key::LogKey;
use super::logs::{Log, Logs, MetaChange};
use super::membership::{MemberRun, Membership};
use super::message::{Ask, Body, Envelope, Fetch, Fetched, Led, Summary};
use super::notes::{Note, Notes};
use super::rule::Rule;
use crate::record::{LeaderEpoch, NodeId};

/// How many records an answer has at most; the shell sends fewer if the frame is full. Tests send
/// them one by one, because others may act in between.
const RECORDS_MAX: u64 = if cfg!(test) { 1 } else { u64::MAX };

/// What is to be done, in order.
pub(crate) type Effects = Vec<Effect>;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    notes: Notes,
    logs: Logs,
    /// The members as the application lists them; used until a membership is known.
    listed: Vec<NodeId>,
}

impl State {
    /// What a member has when a run begins.
    pub(super) fn new(notes: Notes, mut logs: Logs, listed: Vec<NodeId>) -> Self {
        logs.restart();
        Self { notes, logs, listed }
    }

    pub(crate) fn me(&self) -> MemberRun {
        self.notes.me()
    }

    pub(crate) fn notes(&self) -> &Notes {
        &self.notes
    }

    pub(crate) fn logs(&self) -> &Logs {
        &self.logs
    }

    pub(super) fn adopted(&self, key: LogKey) -> LeaderEpoch {
        self.logs.adopted(key, &self.notes)
    }

    pub(super) fn listed(&self) -> &[NodeId] {
        &self.listed
    }

    /// For what only the engine knows: synced ends, damage, the leader's own appends.
    pub(super) fn logs_mut(&mut self) -> &mut Logs {
        &mut self.logs
    }

    pub(super) fn keys(&self) -> Vec<LogKey> {
        self.logs.iter().map(|(key, _)| key).collect()
    }

    // ---- who counts ------------------------------------------------------------------------

    /// A group of one has nobody who could give back what it lost, and who was in no group has
    /// confirmed nothing.
    pub(super) fn must_recover(&self) -> bool {
        let members = self.logs.membership().map(|membership| membership.nodes().count());
        let has_confirmed = members.is_some() || self.notes.has_adopted_any();
        let has_confirmed = has_confirmed && !self.notes.is_founding();
        self.notes.is_recovering() && has_confirmed && members != Some(1)
    }

    /// Whether this member may promise anything to anybody: it has what it has confirmed, and the
    /// membership names its directory.
    pub(crate) fn could_promise(&self) -> bool {
        let is_whole = !self.must_recover() && !self.logs.is_damaged();
        is_whole && self.goes_by().is_some_and(|own| own.names(self.me()))
    }

    /// A directory with records that never belonged to a group: nothing says that they are those of a
    /// group that it hears of. (One that has noted any epoch of a log belonged to one: it lost the
    /// membership with its power, or has not copied it yet.)
    pub(super) fn is_foreign(&self) -> bool {
        self.logs.membership().is_none()
            && self.notes.has_adopted_nothing()
            && self.logs.iter().any(|(_, log)| log.end() > 0)
    }

    /// The membership that this member goes by.
    pub(super) fn goes_by(&self) -> Option<Membership> {
        if Rule::NewestMembership.holds() {
            return self.logs.membership().cloned();
        }
        self.logs.needed().first().map(|(_, membership)| membership.clone())
    }

    /// The memberships of which a majority is needed.
    pub(super) fn needed(&self) -> Vec<(u64, Membership)> {
        let mut needed = self.logs.needed().to_vec();
        if !Rule::NewestMembership.holds() {
            needed.truncate(1);
        } else if !Rule::BothMajorities.holds() {
            needed.drain(..needed.len().saturating_sub(1));
        }
        needed
    }

    /// All nodes but this one that are members, or are listed as such.
    pub(super) fn others(&self) -> Vec<NodeId> {
        let needed = self.needed();
        let mut nodes: Vec<NodeId> = needed.iter().flat_map(|(_, m)| m.nodes()).collect();
        nodes.extend(&self.listed);
        nodes.sort_unstable();
        nodes.dedup();
        nodes.retain(|node| *node != self.me().node);
        nodes
    }

    /// Whether this member may promise anything to whom asks.
    pub(super) fn may_promise(&self, from: MemberRun, ask: &Ask) -> bool {
        if self.must_recover() && Rule::RecoveringPromisesNothing.holds() {
            return false;
        }
        if self.logs.is_damaged() && Rule::DamagedPromisesNothing.holds() {
            return false;
        }
        let own = self.goes_by();
        match ask {
            // The group was founded meanwhile, and whom it names has not copied that yet.
            Ask::Found => own.is_none_or(|own| own.names(self.me()) && own.names(from)),
            Ask::Lead(theirs) => {
                theirs.names(self.me()) && !self.is_foreign()
                    || own.is_some_and(|own| own.names(self.me()))
            }
        }
    }

    pub(super) fn summaries(&self) -> BTreeMap<LogKey, Summary> {
        let summary = |key, log: &Log| Summary {
            adopted: self.adopted(key),
            end: log.end(),
            start: log.history.start(),
        };
        self.logs.with_deleted().map(|(key, log)| (key, summary(key, log))).collect()
    }

    // ---- what is said ----------------------------------------------------------------------

    pub(super) fn send(&self, to: NodeId, epoch: LeaderEpoch, body: Body, out: &mut Effects) {
        let group = self.logs.group();
        out.push(Effect::Send(Box::new(Envelope { group, from: self.me(), to, epoch, body })));
    }

    /// What this member asks about a log, in that epoch.
    pub(super) fn question(&self, epoch: LeaderEpoch, key: LogKey) -> Option<Fetch> {
        let log = self.logs.get(key)?;
        if log.damaged {
            // All of it is asked for. What `__meta` says of the members is not given up.
            let from = log.history.start();
            let nothing = Fetch {
                log: key,
                from,
                before: None,
                adopted: false,
                synced: 0,
                held: 0,
                start: 0,
            };
            return (key != LogKey::Meta).then_some(nothing);
        }
        Some(Fetch {
            log: key,
            from: log.end(),
            before: (log.history.start() < log.end()).then(|| log.history.last_epoch()),
            adopted: self.adopted(key) == epoch,
            synced: self.logs.synced_end(key),
            held: self.logs.held(key),
            start: log.history.start(),
        })
    }

    pub(super) fn fetch(&self, epoch: LeaderEpoch, key: LogKey, from: NodeId, out: &mut Effects) {
        if let Some(fetch) = self.question(epoch, key) {
            self.send(from, epoch, Body::Fetch(fetch), out);
        }
    }

    /// Answers a fetch from this member's log; `began` is the leader's end when its epoch began.
    pub(super) fn answer(
        &self,
        epoch: LeaderEpoch,
        to: MemberRun,
        asked: Fetch,
        began: Option<u64>,
        out: &mut Effects,
    ) {
        let Some(log) = self.logs.get(asked.log) else { return };
        let led = began.map(|began| Led {
            began,
            watermark: log.watermark,
            end: log.end(),
            strict: log.strict,
        });
        let found = compare::answer(&log.history, &asked, RECORDS_MAX);
        let start = log.history.start();
        self.send(to.node, epoch, Body::Fetched(Fetched { to, asked, start, led, found }), out);
    }

    // ---- what is changed -------------------------------------------------------------------

    pub(super) fn note(&mut self, note: Note, out: &mut Effects) {
        self.notes.apply(&note);
        let is_durable = match &note {
            Note::Promise(_) => Rule::PromiseNoted.holds(),
            Note::Adopted { .. } => Rule::AdoptionNoted.holds(),
            Note::Founded => Rule::FoundedNoted.holds(),
            Note::Incomplete | Note::Whole | Note::Seen { .. } | Note::Founding(_) => true,
        };
        if is_durable {
            out.push(Effect::Note(note));
        }
    }

    pub(super) fn sync(&mut self, logs: Vec<LogKey>, out: &mut Effects) {
        for key in &logs {
            self.logs.synced(*key, u64::MAX);
        }
        out.push(Effect::Sync(logs));
    }

    pub(super) fn adopt(&mut self, epoch: LeaderEpoch, logs: Vec<LogKey>, out: &mut Effects) {
        if Rule::AdoptionSynced.holds() {
            self.sync(logs.clone(), out);
        }
        self.note(Note::Adopted { epoch, logs }, out);
    }

    /// Appends what follows this member's end. `None` if it does not follow; otherwise the logs that
    /// it creates.
    pub(super) fn copy(
        &mut self,
        epoch: LeaderEpoch,
        key: LogKey,
        from: u64,
        ranges: &[EpochRange],
        changes: &[(u64, MetaChange)],
        out: &mut Effects,
    ) -> Option<Vec<LogKey>> {
        let follows = self.logs.get(key).is_some_and(|log| log.end() == from);
        let led = ranges.iter().all(|range| range.epoch <= epoch);
        if !follows || !led || !self.logs.append(key, ranges, changes) {
            return None;
        }
        let records: u64 = ranges.iter().map(|range| range.records).sum();
        if records > 0 {
            out.push(Effect::Append { log: key, records });
        }
        let created = changes.iter().filter_map(|(_, change)| match change {
            MetaChange::Created { log, .. } => Some(*log),
            MetaChange::Members(_) | MetaChange::Deleted(_) | MetaChange::Trimmed(_) => None,
        });
        Some(created.collect())
    }

    /// The other log and this one differ below the end of this one.
    pub(super) fn cut(
        &mut self,
        epoch: LeaderEpoch,
        key: LogKey,
        other: LeaderEpoch,
        end: u64,
        out: &mut Effects,
    ) {
        let Some(log) = self.logs.get(key) else { return };
        let to = compare::cut_point(&log.history, other, end);
        self.cut_to(epoch, key, to, out);
    }

    fn cut_to(&mut self, epoch: LeaderEpoch, key: LogKey, to: u64, out: &mut Effects) {
        if self.refuses_cut(epoch, key, to, out) {
            return;
        }
        let end = self.logs.get(key).map_or(0, Log::end);
        if to < end {
            out.push(Effect::Truncate { log: key, to });
            out.push(Effect::Event(Event::Truncated(key, to, end)));
            drop_from(&mut self.logs, &mut self.notes, (key, to), out);
        }
    }

    /// Reports a cut that no leader of this epoch would cause, if the group keeps the rules.
    fn refuses_cut(&self, epoch: LeaderEpoch, key: LogKey, to: u64, out: &mut Effects) -> bool {
        let Some(log) = self.logs.get(key) else { return true };
        let is_adopted = self.adopted(key) == epoch && Rule::AnswerAsked.holds();
        if is_adopted || to < log.watermark || to < log.history.start() {
            out.push(Effect::Event(Event::CutRefused(key)));
            return true;
        }
        false
    }

    /// The other log begins above the end of this one: what lies between was removed there, and so
    /// it is below the high watermark. Or this log is damaged, and is copied again from `start` on.
    pub(super) fn begin_anew(
        &mut self,
        epoch: LeaderEpoch,
        key: LogKey,
        start: u64,
        below: LeaderEpoch,
        out: &mut Effects,
    ) {
        let Some(log) = self.logs.get(key) else { return };
        if log.damaged {
            if key == LogKey::Meta {
                // Its records say who the members are.
                return;
            }
            // Something may be missing then that this member has confirmed.
            out.push(Effect::Event(Event::Repaired(key, log.history.start(), log.had)));
            if Rule::RepairNoted.holds() {
                self.note(Note::Incomplete, out);
            }
        } else if log.end() > start {
            // They differ from the start on. A truncation could not end there: that may lie within a batch
            // of this log.
            let end = log.end();
            if self.refuses_cut(epoch, key, start, out) {
                return;
            }
            out.push(Effect::Event(Event::Truncated(key, start, end)));
            drop_from(&mut self.logs, &mut self.notes, (key, start), out);
        }
        let Some(log) = self.logs.get_mut(key) else { return };
        log.history.begin_anew(start, below);
        log.synced = start;
        log.watermark = log.watermark.min(start);
        log.damaged = false;
        if key == LogKey::Meta {
            self.logs.begin_meta_anew(start);
        }
        out.push(Effect::BeginAnew { log: key, start });
        self.believe(key, start, out);
    }

    pub(super) fn raise_start(&mut self, key: LogKey, start: u64, out: &mut Effects) {
        let Some(log) = self.logs.get_mut(key) else { return };
        let start = start.min(log.end());
        if start > log.history.start() {
            log.history.raise_start(start);
            out.push(Effect::RaiseStart { log: key, start });
        }
    }

    pub(super) fn believe(&mut self, key: LogKey, watermark: u64, out: &mut Effects) {
        if self.logs.raise_watermark(key, watermark) {
            out.push(Effect::Watermark { log: key, offset: watermark });
        }
    }
}

/// What this member has of the group that it has founded may count from now on.
pub(super) fn end_founding(state: &mut State, out: &mut Effects) {
    if state.notes.is_founding() {
        state.note(Note::Founded, out);
    }
}

/// The records of a log from an offset on are removed, and with those of `__meta` what they created.
fn drop_from(logs: &mut Logs, notes: &mut Notes, (key, to): (LogKey, u64), out: &mut Effects) {
    for removed in logs.truncate(key, to) {
        notes.forget(removed);
        out.push(Effect::Remove(removed));
    }
}

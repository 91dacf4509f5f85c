//! `Member`: the state machine of one member of a replicated group.
//!
//! Owns: the member's notes, what it knows of its logs, and its role. Values in (calls, messages),
//! values out (effects, in order). No I/O, no lock, no clock. The rules P1 to P10 are those of
//! `docs/replication.md`. Must not know: how messages travel, how effects are carried out, when a
//! leader is missed (that is the elector's).

use super::candidate::Candidate;
use super::compare;
use super::effect::{Declined, Effect, Event};
use super::history::EpochRange;
use super::leader::Leader;
use super::log_key::LogKey;
use super::logs::{Log, Logs, MetaChange};
use super::membership::{GroupId, Membership};
use super::message::{Ask, Body, Envelope, Fetch, Fetched, Found, Led, Promised};
use super::notes::{Note, Notes, Promise};
use super::recovery::Recovery;
use super::role::{Following, Role};
use super::rounds::{ask, beat, lacking};
use super::rule::Rule;
use super::senders;
use super::session;
use super::state::{Effects, State, end_founding};
use super::syncs;
use crate::record::{LeaderEpoch, NodeId};

/// How far an epoch may lie above the promised one: half of all epochs. One call with a wrong number
/// cannot use them up.
const EPOCH_STEP_MAX: u32 = u32::MAX / 2;

/// Why a member does not become a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeadRefused {
    /// This epoch, or a greater one, was promised.
    Fenced { promised: LeaderEpoch },
    /// The epoch lies too far above the promised one.
    TooFar { promised: LeaderEpoch },
    /// The membership does not name this member's directory.
    Learner,
    /// The member may have lost records that it confirmed, or its `__meta` has begun anew and does not
    /// have everything that is in force.
    Recovering,
    /// One of its logs is damaged.
    Damaged,
    /// A leader is heard, or is this member: nothing needs to be forced.
    Heard,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Member {
    state: State,
    role: Role,
    recovery: Recovery,
}

impl Member {
    pub(crate) fn new(notes: Notes, logs: Logs, listed: Vec<NodeId>) -> Self {
        let state = State::new(notes, logs, listed);
        Self { state, role: Role::Follower(None), recovery: Recovery::default() }
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    pub(crate) fn role(&self) -> &Role {
        &self.role
    }

    // ---- calls -----------------------------------------------------------------------------

    /// Begins a confirming round: asks the members for their promises.
    pub(crate) fn lead(&mut self, epoch: LeaderEpoch) -> Result<Effects, LeadRefused> {
        check_epoch(&self.state, epoch)?;
        if self.state.logs().is_damaged() {
            return Err(LeadRefused::Damaged);
        }
        let must_recover = self.state.must_recover() && Rule::RecoveringPromisesNothing.holds();
        if must_recover || !self.state.logs().is_whole() {
            return Err(LeadRefused::Recovering);
        }
        let membership = self.state.goes_by();
        let is_member = match &membership {
            Some(membership) => membership.names(self.state.me()),
            None => self.state.listed().contains(&self.state.me().node),
        };
        if !is_member {
            return Err(LeadRefused::Learner);
        }
        let mut out = Effects::new();
        self.promise(Promise { epoch, candidate: self.state.me() }, &mut out);
        let mut candidate = Candidate::new(epoch, self.state.me(), membership.is_none());
        candidate.promised(self.state.me(), self.state.summaries(), false);
        self.role = Role::Candidate(candidate);
        ask(&self.state, &self.role, false, &mut out);
        self.proceed(&mut out);
        Ok(out)
    }

    /// Leads without asking anybody, a new group that this directory is alone in. What the others have
    /// and this one has not is given up.
    pub(crate) fn force_lead(
        &mut self,
        epoch: LeaderEpoch,
        group: GroupId,
    ) -> Result<Effects, LeadRefused> {
        check_epoch(&self.state, epoch)?;
        if self.state.logs().is_damaged() {
            return Err(LeadRefused::Damaged);
        }
        let (me, mut out) = (self.state.me(), Effects::new());
        self.promise(Promise { epoch, candidate: me }, &mut out);
        let mut candidate = Candidate::new(epoch, me, false);
        candidate.promised(me, self.state.summaries(), false);
        self.role = Role::Candidate(candidate);
        // First of all: a member of the old group that had adopted an epoch which it was not given
        // would have others take its logs for the best.
        let alone = Membership::new(group, [(me.node, me.directory)]);
        out.push(Effect::BeginGroup(alone));
        self.take_lead(&mut out);
        Ok(out)
    }

    /// The leader has appended records to one of its logs. `None`, and nothing changes, if this
    /// member does not lead, or the records cannot follow what the log has.
    pub(crate) fn appended(
        &mut self,
        key: LogKey,
        records: u64,
        changes: &[(u64, MetaChange)],
    ) -> Option<Effects> {
        let Role::Leader(leader) = &self.role else { return None };
        let range = EpochRange { epoch: leader.epoch(), records };
        if !self.state.logs_mut().append(key, &[range], changes) {
            return None;
        }
        let mut out = Effects::new();
        self.count_all(key, &mut out);
        self.answer_waiting(key, &mut out);
        Some(out)
    }

    /// What the engine knows of the logs, and this member does not: records of a leadership that has ended
    /// meanwhile, logs of whose creation `__meta` did not say when the run began.
    pub(crate) fn logs_mut(&mut self) -> &mut Logs {
        self.state.logs_mut()
    }

    /// A log is synced up to `offset`.
    pub(crate) fn synced(&mut self, key: LogKey, offset: u64) -> Effects {
        let mut out = Effects::new();
        self.state.logs_mut().synced(key, offset);
        self.count_all(key, &mut out);
        if let Role::Follower(Some(Following { leader, epoch })) = &self.role {
            for key in syncs::to_report(&self.state, key) {
                self.state.fetch(*epoch, key, leader.node, &mut out);
            }
        }
        out
    }

    /// The log begins at `start` from now on: the leader has moved it, perhaps right before it stopped
    /// to lead; or it is an internal log, which each member cleans up for itself. A start above the
    /// high watermark changes nothing.
    pub(crate) fn start_moved(&mut self, key: LogKey, start: u64) -> Effects {
        let mut out = Effects::new();
        let Some(log) = self.state.logs().get(key) else { return out };
        if start <= log.watermark {
            self.state.raise_start(key, start, &mut out);
            if !out.is_empty() {
                say_start(self, key, &mut out);
            }
        }
        out
    }

    /// Records of a log cannot be read.
    pub(crate) fn damaged(&mut self, key: LogKey) -> Effects {
        let mut out = Effects::new();
        if let Some(log) = self.state.logs_mut().get_mut(key) {
            log.had = if log.damaged { log.had } else { log.end() };
            log.damaged = true;
        }
        if !matches!(self.role, Role::Follower(_)) {
            self.stop_leading(Declined::Damaged, &mut out);
            self.role = Role::Follower(None);
        }
        out
    }

    /// Gives up the leadership, or the candidature.
    pub(crate) fn resign(&mut self) -> Effects {
        let mut out = Effects::new();
        if !matches!(self.role, Role::Follower(_)) {
            self.stop_leading(Declined::Resigned, &mut out);
            self.role = Role::Follower(None);
        }
        out
    }

    /// At the leader: the directory that a member had is lost, and the one that it asks from now
    /// counts instead. `None`, and nothing changes, unless that one has all records, and the membership
    /// before is below the high watermark.
    pub(crate) fn replace(&mut self, node: NodeId) -> Option<Effects> {
        let Role::Leader(leader) = &self.role else { return None };
        let meta = self.state.logs().get(LogKey::Meta)?;
        let settled =
            self.state.logs().memberships().newest_offset().is_some_and(|at| at < meta.watermark);
        let membership = self.state.logs().membership()?;
        let run = leader.learner(node).filter(|run| !membership.names(*run))?;
        let held = |key, log: &Log| leader.held(key, node, run.directory, log.counts_synced);
        let has_all = self.state.logs().iter().all(|(key, log)| held(key, log) == Some(log.end()));
        if !settled || !has_all {
            return None;
        }
        let next = membership.with(node, run.directory);
        Some(vec![Effect::AppendMembership(next)])
    }

    /// What is sent again when no answer came: questions of a candidate and a follower, beats of
    /// a leader. Changes nothing.
    pub(crate) fn resend(&self) -> Effects {
        let mut out = Effects::new();
        match &self.role {
            Role::Follower(_) => {
                let _ = self.ask_from(None, usize::MAX, &mut out);
            }
            Role::Candidate(candidate) => {
                ask(&self.state, &self.role, true, &mut out);
                for (key, from) in lacking(self.state.logs(), candidate) {
                    self.state.fetch(candidate.epoch(), key, from.node, &mut out);
                }
            }
            Role::Leader(leader) => beat(&self.state, leader.epoch(), &mut out),
        }
        out
    }

    pub(crate) fn receive(&mut self, message: &Envelope) -> Effects {
        let mut out = Effects::new();
        if !senders::is_for(&self.state, message)
            || !senders::is_latest(&mut self.state, message, &mut out)
        {
            return out;
        }
        match &message.body {
            Body::Ask(ask) => self.asked(message, ask, &mut out),
            Body::Promised(promised) => self.got_promise(message, promised, &mut out),
            Body::Refused { promised } => self.refused(message, *promised, &mut out),
            Body::Beat => self.heard_leader(message, &mut out),
            Body::Fetch(fetch) => self.fetched_by(message, *fetch, &mut out),
            Body::Fetched(fetched) => self.got_records(message, fetched, &mut out),
            Body::Superseded { directory, session } => {
                let me = self.state.me();
                if *directory == me.directory && session::is_stale(me.session, *session) {
                    self.stop_leading(Declined::PutBack, &mut out);
                    self.role = Role::Follower(None);
                    out.push(Effect::Disown);
                }
            }
        }
        out
    }

    // ---- promises --------------------------------------------------------------------------

    fn promise(&mut self, promise: Promise, out: &mut Effects) {
        self.stop_leading(Declined::Promised(promise.epoch), out);
        self.role = Role::Follower(None);
        self.state.note(Note::Promise(promise), out);
    }

    fn stop_leading(&mut self, why: Declined, out: &mut Effects) {
        match &self.role {
            Role::Leader(leader) => {
                out.push(Effect::Event(Event::LeadershipLost(leader.epoch(), why)));
            }
            Role::Candidate(candidate) => {
                out.push(Effect::Event(Event::Declined(candidate.epoch(), why)));
            }
            Role::Follower(_) => {}
        }
    }

    fn asked(&mut self, message: &Envelope, ask: &Ask, out: &mut Effects) {
        let promise = Promise { epoch: message.epoch, candidate: message.from };
        let before = self.state.notes().promise();
        let repeats = before == Some(promise)
            || (!Rule::PromiseOnce.holds() && message.epoch == self.state.notes().promised());
        if !self.state.may_promise(message.from, ask)
            || (message.epoch <= self.state.notes().promised() && !repeats)
        {
            let promised = self.state.notes().promised();
            self.state.send(message.from.node, message.epoch, Body::Refused { promised }, out);
            return;
        }
        if !repeats {
            self.promise(promise, out);
        }
        let answer = Promised {
            to: message.from,
            logs: self.state.summaries(),
            has_membership: self.state.logs().membership().is_some(),
        };
        self.state.send(message.from.node, message.epoch, Body::Promised(answer), out);
    }

    /// Somebody has promised more, or belongs to a group that this member would found. Who calls `lead`
    /// next has to know: the event says it.
    fn refused(&mut self, message: &Envelope, promised: LeaderEpoch, out: &mut Effects) {
        let needed = self.state.needed();
        if !needed.is_empty() && !needed.iter().any(|(_, it)| it.names(message.from)) {
            return;
        }
        if let Role::Candidate(candidate) = &self.role
            && candidate.is_founding()
            && candidate.epoch() == message.epoch
            && message.group.is_some()
        {
            self.stop_leading(Declined::Founded, out);
            self.role = Role::Follower(None);
            return;
        }
        let is_greater = match &self.role {
            Role::Candidate(candidate) => candidate.epoch() < promised,
            Role::Leader(leader) => leader.epoch() < promised,
            Role::Follower(_) => false,
        };
        if is_greater {
            self.stop_leading(Declined::Promised(promised), out);
            self.role = Role::Follower(None);
        }
    }

    // ---- candidate -------------------------------------------------------------------------

    fn got_promise(&mut self, message: &Envelope, promised: &Promised, out: &mut Effects) {
        let me = self.state.me();
        let is_asked = self.state.others().contains(&message.from.node);
        let is_named = self.state.needed().iter().any(|(_, it)| it.names(message.from));
        let Role::Candidate(candidate) = &mut self.role else { return };
        let is_mine =
            promised.to == me || (!Rule::AnswerToThisRun.holds() && promised.to.node == me.node);
        // A directory of no group counts for a group that is founded, or names it.
        let may_count = candidate.is_founding() || is_named || promised.has_membership;
        if message.epoch == candidate.epoch() && is_mine && is_asked && may_count {
            candidate.promised(message.from, promised.logs.clone(), promised.has_membership);
            self.proceed(out);
        }
    }

    /// Goes as far towards leading as the promises allow.
    fn proceed(&mut self, out: &mut Effects) {
        let needed = self.state.needed();
        let Role::Candidate(candidate) = &mut self.role else { return };
        if candidate.is_founding() && !candidate.joins() {
            return self.found(out);
        }
        // One that was named when the group was founded, and has copied nothing since, has to know first
        // who the members are.
        if !needed.is_empty() && !candidate.is_confirmed(&needed) {
            return;
        }
        let Role::Candidate(candidate) = &self.role else { return };
        let (epoch, lacking) = (candidate.epoch(), lacking(self.state.logs(), candidate));
        if lacking.is_empty() && self.state.logs().is_whole() && !needed.is_empty() {
            return self.take_lead(out);
        }
        ask(&self.state, &self.role, false, out);
        for (key, from) in lacking {
            self.state.fetch(epoch, key, from.node, out);
        }
    }

    fn found(&mut self, out: &mut Effects) {
        let Role::Candidate(candidate) = &self.role else { return };
        if candidate.finds_others() {
            self.stop_leading(Declined::Founded, out);
            self.role = Role::Follower(None);
        } else if let Some(membership) = candidate.founded(self.state.listed()) {
            // Before anything rests on it.
            self.state.note(Note::Founding(membership.group()), out);
            self.take_lead(out);
            out.push(Effect::AppendMembership(membership));
        }
    }

    fn take_lead(&mut self, out: &mut Effects) {
        let Role::Candidate(candidate) = &self.role else { return };
        let epoch = candidate.epoch();
        let starts: Vec<_> =
            self.state.logs().iter().map(|(key, _)| (key, candidate.start(key))).collect();
        for (log, start) in starts {
            self.state.raise_start(log, start, out);
        }
        let logs = self.state.keys();
        syncs::forget_all(&mut self.state);
        self.state.adopt(epoch, logs, out);
        if self.state.notes().is_recovering() {
            // It had to recover nothing: it is alone, or has confirmed nothing before.
            self.state.note(Note::Whole, out);
        }
        let began = self.state.logs().iter().map(|(key, log)| (key, log.end())).collect();
        self.role = Role::Leader(Leader::new(epoch, began));
        out.push(Effect::Event(Event::Leading(epoch)));
        beat(&self.state, epoch, out);
        let keys = self.state.keys();
        for key in keys {
            self.count(key, out);
        }
    }

    // ---- leader ----------------------------------------------------------------------------

    /// Raises the high watermark of a log to what a majority holds.
    fn count(&mut self, key: LogKey, out: &mut Effects) {
        let needed = self.state.needed();
        let me = self.state.me();
        let Role::Leader(leader) = &mut self.role else { return };
        let was_current = leader.is_current();
        if key == LogKey::Meta {
            leader.keep(|log| self.state.logs().get(log).is_some());
        }
        let Some(log) = self.state.logs().get(key) else { return };
        let held = self.state.logs().held(key);
        let Some(reached) = leader.reached(key, me, held, log.counts_synced, &needed) else {
            return;
        };
        let meta = self.state.logs().get(LogKey::Meta).map_or(0, |meta| meta.watermark);
        let exists =
            log.created.is_none_or(|created| created.offset < meta) || !Rule::CreationFirst.holds();
        if !exists {
            return;
        }
        leader.shows(key, reached.max(log.watermark));
        let current = (!was_current && leader.is_current()).then(|| leader.epoch());
        if self.state.logs().get(key).is_some_and(|log| log.watermark < reached) {
            // From now on this member's copies count.
            end_founding(&mut self.state, out);
        }
        let mut is_news = self.state.logs_mut().raise_watermark(key, reached);
        if is_news {
            out.push(Effect::Watermark { log: key, offset: reached });
        }
        if let Role::Leader(leader) = &self.role {
            is_news |= syncs::count(&mut self.state, leader, key, &needed, out);
        }
        if is_news {
            self.answer_waiting(key, out);
        }
        out.extend(current.map(|epoch| Effect::Event(Event::Current(epoch))));
    }

    /// Counts a log, and with `__meta` all: others may wait for their creation, or for a membership.
    fn count_all(&mut self, key: LogKey, out: &mut Effects) {
        self.count(key, out);
        if key == LogKey::Meta {
            let keys = self.state.keys();
            for key in keys {
                self.count(key, out);
            }
        }
    }

    fn answer_waiting(&mut self, key: LogKey, out: &mut Effects) {
        let Role::Leader(leader) = &mut self.role else { return };
        let end = self.state.logs().get(key).map_or(0, Log::end);
        for (run, asked) in leader.waiting(key, end) {
            self.state.answer(leader.epoch(), run, asked, Some(leader.began(key)), out);
        }
    }

    /// A follower asks its leader, or a candidate a member that promised it this epoch.
    fn fetched_by(&mut self, message: &Envelope, fetch: Fetch, out: &mut Effects) {
        let promised = self.state.notes().promised();
        if message.epoch < promised {
            self.state.send(message.from.node, message.epoch, Body::Refused { promised }, out);
            return;
        }
        if !self.state.others().contains(&message.from.node) {
            return;
        }
        let promise = Promise { epoch: message.epoch, candidate: message.from };
        let mut began = None;
        if let Role::Leader(leader) = &mut self.role
            && leader.epoch() == message.epoch
        {
            began = Some(leader.began(fetch.log));
            let Some(log) = self.state.logs().get(fetch.log) else { return };
            if matches!(compare::answer(&log.history, &fetch, 0), Found::Records { .. }) {
                let needed = self.state.logs().needed();
                let counts = |run| needed.iter().any(|(_, membership)| membership.names(run));
                leader.asked(message.from, fetch, counts);
                self.count_all(fetch.log, out);
            }
        } else if self.state.notes().promise() != Some(promise) {
            return;
        }
        if let Role::Leader(leader) = &mut self.role {
            let end = self.state.logs().get(fetch.log).map_or(0, Log::end);
            leader.answered(message.from, &fetch, end);
        }
        self.state.answer(message.epoch, message.from, fetch, began, out);
    }

    // ---- follower --------------------------------------------------------------------------

    fn heard_leader(&mut self, message: &Envelope, out: &mut Effects) {
        let Envelope { from, epoch, .. } = *message;
        let promised = self.state.notes().promised();
        if self.state.is_foreign() {
            return;
        }
        if epoch < promised && Rule::TakeNothing.holds() {
            self.state.send(from.node, epoch, Body::Refused { promised }, out);
            return;
        }
        if epoch > promised {
            self.promise(Promise { epoch, candidate: from }, out);
        }
        let following = Following { leader: from, epoch };
        if matches!(&self.role, Role::Follower(Some(known)) if *known == following)
            || self.role.leads() == Some(epoch)
        {
            return;
        }
        // This member may have promised the epoch to another run, also to itself. That does not lead it
        // and never will: a majority has promised it to the one that does.
        self.stop_leading(Declined::Led, out);
        self.role = Role::Follower(Some(following));
        self.recovery.begin();
        syncs::forget_all(&mut self.state);
        // From now on this member's copies count.
        end_founding(&mut self.state, out);
        if self.state.logs().membership().is_none() && self.state.notes().has_adopted_nothing() {
            // Before it has records, which would be taken for those of somebody else.
            let (epoch, logs) = (LeaderEpoch(0), vec![LogKey::Meta]);
            self.state.note(Note::Adopted { epoch, logs }, out);
        }
        out.push(Effect::Event(Event::Following(epoch)));
        let _ = self.ask_from(None, usize::MAX, out);
    }

    /// Asks the leader for at most so many of the logs after `after`, of all from the first on. Returns
    /// the last one, or `None` after the last of all. Changes nothing.
    pub(crate) fn ask_from(
        &self,
        after: Option<LogKey>,
        logs: usize,
        out: &mut Effects,
    ) -> Option<LogKey> {
        let following = self.role.follows()?;
        let mut last = None;
        for key in self.state.logs().keys_after(after).take(logs) {
            self.state.fetch(following.epoch, key, following.leader.node, out);
            last = Some(key);
        }
        last
    }

    fn got_records(&mut self, message: &Envelope, fetched: &Fetched, out: &mut Effects) {
        let key = fetched.asked.log;
        let to_this_run = fetched.to == self.state.me()
            || (!Rule::AnswerToThisRun.holds() && fetched.to.node == self.state.me().node);
        let is_expected = match &self.role {
            Role::Follower(Some(known)) => {
                *known == Following { leader: message.from, epoch: message.epoch }
                    && fetched.led.is_some()
            }
            Role::Candidate(candidate) => {
                candidate.epoch() == message.epoch && candidate.to_fetch(key) == Some(message.from)
            }
            Role::Follower(None) | Role::Leader(_) => false,
        };
        let Some(question) = self.state.question(message.epoch, key) else { return };
        let Fetch { synced, held, start, .. } = question;
        let asked = Fetch { synced, held, start, ..fetched.asked };
        let is_current = asked == question || !Rule::AnswerAsked.holds();
        if !(to_this_run && is_expected && is_current) {
            return;
        }
        if let Some(log) = self.state.logs().get(key).filter(|log| log.damaged) {
            // It is copied again. Answers to earlier questions may name an end below what it had.
            self.recovery.begin();
            self.recovery.named(key, log.had);
        }
        match &fetched.found {
            Found::Diverges { epoch, end } => self.state.cut(message.epoch, key, *epoch, *end, out),
            Found::Removed { start, below } => {
                self.state.begin_anew(message.epoch, key, *start, *below, out);
            }
            Found::Records { ranges, changes } => {
                if self.state.logs().get(key).is_some_and(|log| log.damaged) {
                    let (start, below) = (fetched.asked.from, LeaderEpoch::default());
                    self.state.begin_anew(message.epoch, key, start, below, out);
                }
                let created =
                    self.state.copy(message.epoch, key, fetched.asked.from, ranges, changes, out);
                let Some(created) = created else { return };
                if let Role::Follower(_) = &self.role {
                    for key in created {
                        self.state.fetch(message.epoch, key, message.from.node, out);
                    }
                }
                // Below its start a log was not compared. Nobody has to read that.
                self.state.raise_start(key, fetched.start, out);
                if let Some(led) = fetched.led {
                    self.follow(message.epoch, key, led, out);
                } else if let (Role::Candidate(candidate), Some(log)) =
                    (&mut self.role, self.state.logs().get(key))
                {
                    candidate.agrees(key, message.from, log.end());
                }
            }
        }
        if matches!(self.role, Role::Candidate(_)) {
            self.proceed(out);
        } else {
            let mut known = Fetch { start: fetched.asked.start, ..question };
            if self.state.logs().get(key).is_some_and(|log| log.strict.is_open()) {
                // It may be synced further than the leader has heard.
                known.synced = fetched.asked.synced;
            }
            let again = self.state.question(message.epoch, key);
            if again != Some(known) {
                self.state.fetch(message.epoch, key, message.from.node, out);
            }
        }
    }

    /// The log is equal to the leader's up to its end: what follows from what the leader says of it.
    fn follow(&mut self, epoch: LeaderEpoch, key: LogKey, led: Led, out: &mut Effects) {
        let Some(log) = self.state.logs().get(key) else { return };
        let end = log.end();
        if end >= led.began && self.state.adopted(key) != epoch {
            let logs = if Rule::AdoptEachLog.holds() { vec![key] } else { self.state.keys() };
            self.state.adopt(epoch, logs, out);
        }
        // The log is equal to the leader's up to its end, also if it has not adopted the epoch yet.
        self.state.believe(key, led.watermark.min(end), out);
        syncs::hear(&mut self.state, key, led.strict, out);
        if self.state.notes().is_recovering() {
            self.recovery.named(key, led.end);
            if self.recovery.is_done(self.state.logs(), |key| self.state.adopted(key) == epoch) {
                let logs = self.state.keys();
                self.state.sync(logs, out);
                self.state.note(Note::Whole, out);
                out.push(Effect::Event(Event::Whole));
            }
        }
    }
}

/// Whether this member may be called to lead an epoch.
fn check_epoch(state: &State, epoch: LeaderEpoch) -> Result<(), LeadRefused> {
    let promised = state.notes().promised();
    let again = !Rule::LeadOnce.holds()
        && state
            .notes()
            .promise()
            .is_some_and(|p| p.epoch == epoch && p.candidate.node == state.me().node);
    if epoch <= promised && !again {
        return Err(LeadRefused::Fenced { promised });
    }
    if epoch.0.saturating_sub(promised.0) > EPOCH_STEP_MAX {
        return Err(LeadRefused::TooFar { promised });
    }
    Ok(())
}

/// At the leader: a producer waits until a majority has synced a log below `offset`. If its records are
/// not [noticed](Member::appended) yet, the answer that brings them says so.
pub(crate) fn want_synced(member: &mut Member, key: LogKey, offset: u64) -> Effects {
    let mut out = Effects::new();
    if member.role.leads().is_some() && syncs::want(&mut member.state, key, offset) {
        member.count(key, &mut out);
        if member.state.logs().get(key).is_some_and(|log| offset <= log.end()) {
            member.answer_waiting(key, &mut out);
        }
    }
    out
}

/// The leader says where a log begins. Those that were given records learn it when they ask again.
pub(super) fn say_start(member: &mut Member, key: LogKey, out: &mut Effects) {
    // Each member cleans up the internal logs for itself.
    if matches!(key, LogKey::Partition { .. }) {
        member.answer_waiting(key, out);
    }
}

#[cfg(test)]
mod tests;

//! `Driver`: a member with its clock: when it beats, what it asks again, when it wants to lead, and what
//! it shows of itself.
//!
//! Owns: the shell, the elector, and who is heard. Frames and the time come in as values; frames and
//! events come out. Must not know: threads, locks of the handle, and how frames travel.
//!
//! Whatever it does wrong costs availability: what may be promised, acknowledged and removed is decided
//! by the state machine in the shell.

mod shown;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use super::effect::Event;
use super::elector::{Elector, Wish};
use super::log_key::LogKey;
use super::member::LeadRefused;
use super::membership::{GroupId, MemberRun, Membership};
use super::message::Body;
use super::pulse::Pulse;
use super::role::Role;
use super::session;
use super::shell::{Catalog, Shell, say_again, say_starts};
use super::signal::{Sign, Signal, Sums};
use super::status::{Counts, ForcedLead, ReplicationEvent, ReplicationStatus};
use super::view;
use super::wire::{Frame, Said, unpack};
use crate::broker::internal_logs::{META, OFFSETS};
use crate::error::TransportError;
use crate::format::TopicId;
use crate::partition::leadership::{Leadership, PartitionId};
use crate::record::{LeaderEpoch, NodeId};

/// LIMIT: how many logs a follower asks for again with one beat, while its logs differ from the leader's:
/// a lost frame is found soon, and 10,000 logs under load are not all asked for ten times a second.
const ASKED_AGAIN: usize = 100;
/// LIMIT: how many, if nothing has come since the last beat.
const ASKED_AGAIN_IDLE: usize = 2_000;

/// LIMIT: how far an epoch may lie above the promised one to be taken for that of a member: more than
/// elections use up in hours. A stranger's number must not use all of them up.
const EPOCHS_AHEAD: u32 = 1 << 16;

/// The times of a member, on the broker's monotonic clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    pub(super) heartbeat: Duration,
    /// After which a member that is not heard is missed.
    pub(super) timeout: Duration,
    /// Whether it calls itself to lead.
    pub(super) elects: bool,
}

/// What is to be sent and reported.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub(super) said: Vec<Said>,
    pub(super) events: Vec<ReplicationEvent>,
}

pub(super) struct Driver<C> {
    shell: Shell<C>,
    leadership: Arc<Leadership>,
    timing: Timing,
    /// Any numbers; each member should have others.
    chance: Box<dyn FnMut() -> u32 + Send>,
    elector: Elector,
    pulse: Pulse,
    beat_due: Duration,
    follower: Follower,
    shown: shown::Shown,
    out: Output,
}

/// What comes of the wish to replace a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replacing {
    Begun,
    NotLeader,
    /// This one is being replaced: one at a time.
    Another(NodeId),
    /// Its directory counts, and is heard.
    Counts,
}

/// What comes of the wish to give the leadership up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resigning {
    Done,
    NotLeader,
    /// This one cannot be given it: it is no other member that counts and is heard.
    Unfit(NodeId),
}

/// What a follower remembers between beats.
#[derive(Debug, Default)]
struct Follower {
    /// Whether records came since the last beat.
    has_news: bool,
    /// How many beats in a row named other sums than this member's.
    behind: u32,
    /// When the last of them was looked at.
    compared: Option<Duration>,
    /// The log that was asked for last.
    asked: Option<LogKey>,
    /// The greatest epoch that another member knows.
    known: LeaderEpoch,
}

impl Output {
    pub(super) fn is_empty(&self) -> bool {
        self.said.is_empty() && self.events.is_empty()
    }

    pub(super) fn add(&mut self, later: Self) {
        self.said.extend(later.said);
        self.events.extend(later.events);
    }
}

impl<C: Catalog> Driver<C> {
    pub(super) fn new(
        shell: Shell<C>,
        leadership: Arc<Leadership>,
        timing: Timing,
        mut chance: Box<dyn FnMut() -> u32 + Send>,
        now: Duration,
    ) -> Self {
        let me = shell.member().state().me().node;
        let elector = Elector::new(me, timing.timeout, now, chance());
        Self {
            shell,
            leadership,
            timing,
            chance,
            elector,
            pulse: Pulse::new(timing.timeout),
            beat_due: now,
            follower: Follower::default(),
            shown: shown::Shown::default(),
            out: Output::default(),
        }
    }

    pub(super) fn take_output(&mut self) -> Output {
        std::mem::take(&mut self.out)
    }

    pub(super) fn shell(&mut self) -> &mut Shell<C> {
        &mut self.shell
    }

    fn me(&self) -> NodeId {
        self.shell.member().state().me().node
    }

    fn promised(&self) -> LeaderEpoch {
        self.shell.member().state().notes().promised()
    }

    /// The memberships of which a majority is needed; before the group is founded, the listed members.
    fn needed(&self) -> Vec<(u64, Membership)> {
        let state = self.shell.member().state();
        let needed = state.needed();
        if needed.is_empty() { vec![(0, Membership::of_listed(state.listed()))] } else { needed }
    }

    // ---- calls -----------------------------------------------------------------------------

    pub(super) fn lead(&mut self, epoch: LeaderEpoch, now: Duration) -> Result<(), LeadRefused> {
        self.shell.lead(epoch)?;
        self.beat_due = now.saturating_add(self.timing.heartbeat);
        self.collect(now);
        Ok(())
    }

    pub(super) fn force_lead(
        &mut self,
        epoch: LeaderEpoch,
        group: GroupId,
        now: Duration,
    ) -> Result<ForcedLead, LeadRefused> {
        if hears_leader(self, now) {
            return Err(LeadRefused::Heard);
        }
        let state = self.shell.member().state();
        let (was_recovering, me) = (state.must_recover(), self.me());
        let known = state.logs().membership().into_iter().flat_map(Membership::nodes);
        let given_up = known.filter(|node| *node != me).collect();
        self.shell.force_lead(epoch, group)?;
        self.beat_due = now.saturating_add(self.timing.heartbeat);
        self.collect(now);
        Ok(ForcedLead { epoch, given_up, was_recovering, ends: self.shell.ends() })
    }

    /// Gives the leadership up: with an elector to the member that is named, or to the one that has
    /// copied most. Without one the application numbers the epochs, and calls the next one.
    pub(super) fn resign(&mut self, to: Option<NodeId>, now: Duration) -> Resigning {
        let (member, me) = (self.shell.member(), self.me());
        let Some(epoch) = member.role().leads() else { return Resigning::NotLeader };
        let members = member.state().logs().membership().into_iter();
        let others = members.flat_map(Membership::directories).filter(|(node, _)| *node != me);
        let heard = others.filter(|(node, directory)| self.pulse.hears(*node, *directory, now));
        let heard: Vec<NodeId> = heard.map(|(node, _)| node).collect();
        let most = || heard.iter().copied().max_by_key(|node| view::copied_by(member, *node));
        if let Some(to) = to.filter(|to| !heard.contains(to)) {
            return Resigning::Unfit(to);
        }
        let to = to.or_else(most);
        self.shell.resign();
        if let Some(to) = to.filter(|_| self.timing.elects) {
            self.signal(to, epoch, Sign::TakeOver);
        }
        // It waits before it calls itself again.
        let chance = (self.chance)();
        self.elector.heard(now, chance);
        self.collect(now);
        Resigning::Done
    }

    /// The new directory of a member is to count as soon as it has everything.
    pub(super) fn replace(&mut self, node: NodeId, now: Duration) -> Replacing {
        if self.shell.member().role().leads().is_none() {
            return Replacing::NotLeader;
        }
        if is_present(self, node, now) {
            return Replacing::Counts;
        }
        // One that has come back with its directory does not need it any more.
        let other = self.shown.replacing.filter(|other| *other != node);
        if let Some(other) = other.filter(|other| !is_present(self, *other, now)) {
            return Replacing::Another(other);
        }
        self.shown.replacing = Some(node);
        self.try_replace();
        self.collect(now);
        Replacing::Begun
    }

    fn try_replace(&mut self) {
        if let Some(node) = self.shown.replacing
            && self.shell.replace(node)
        {
            self.shown.replacing = None;
            self.out.events.push(ReplicationEvent::MemberJoined(node));
        }
    }

    /// Beats at once, and returns the number of the beat: when a majority has answered it, this member
    /// led at a moment after the call.
    pub(super) fn confirm(&mut self, now: Duration) -> Option<(LeaderEpoch, u64)> {
        let epoch = self.shell.member().role().leads()?;
        // Between beats: it says nothing of how long something is on the way.
        self.pulse.beat();
        say_again(&mut self.shell);
        self.collect(now);
        Some((epoch, self.pulse.round()))
    }

    /// The last beat that a majority has answered; none before readers here see all that was
    /// acknowledged in earlier epochs.
    pub(super) fn confirmed(&self) -> u64 {
        if !view::is_current(self.shell.member()) {
            return 0;
        }
        self.pulse.confirmed(self.me(), &self.needed())
    }

    /// Also what has happened since the run began.
    pub(super) fn status(&self, now: Duration) -> (ReplicationStatus, Counts) {
        let (member, pulse, needed) = (self.shell.member(), &self.pulse, self.needed());
        let takes_appends = self.leadership.check().is_ok();
        let failure = self.shell.failure();
        let mut status = shown::status((member, failure), pulse, &needed, takes_appends, now);
        status.cuts_refused = self.shown.cuts_refused();
        status.replacing = self.shown.replacing;
        for it in &mut status.members {
            let lag = view::lag_of(member, it.id);
            it.lag_records = lag.iter().map(|(_, records)| records).sum();
            it.lag_bytes = self.shell.files().bytes_of(&lag);
        }
        (status, self.shown.counts)
    }

    // ---- what arrives ------------------------------------------------------------------------

    /// Takes a frame of a member.
    ///
    /// # Errors
    ///
    /// It is no frame, or not of that member, or not for this one. Nothing is changed then.
    pub(super) fn receive(
        &mut self,
        from: NodeId,
        frame: &Frame,
        now: Duration,
    ) -> Result<(), TransportError> {
        let all = unpack(frame)?;
        if self.shell.failure().is_some() {
            return Ok(());
        }
        let is_right = |said: &Said| said.to() == self.me() && said.from() == from;
        if !all.iter().all(is_right) || from == self.me() {
            return Err(TransportError::new("the frame is of or for another member"));
        }
        for said in all {
            match said {
                Said::Signal(signal) => self.signalled(&signal, now),
                Said::Parcel(parcel) => {
                    let envelope = &parcel.envelope;
                    if !is_of_group(&self.shell, envelope.group) {
                        continue;
                    }
                    self.hear(envelope.from, envelope.epoch, now);
                    self.note_epoch(envelope.epoch);
                    if let Body::Refused { promised } = &envelope.body {
                        self.note_epoch(*promised);
                    }
                    self.follower.has_news |= matches!(&envelope.body, Body::Fetched(_));
                    let is_beat = matches!(&envelope.body, Body::Beat);
                    self.shell.receive(&parcel);
                    if is_beat {
                        self.hear_leader(parcel.envelope.from, parcel.envelope.epoch, now);
                    }
                }
            }
        }
        // At the end: what is said because of a frame has one note before it, whatever was adopted.
        self.collect(now);
        Ok(())
    }

    /// A member has said something in the epoch that this one leads, or wants to.
    fn hear(&mut self, from: MemberRun, epoch: LeaderEpoch, now: Duration) {
        let member = self.shell.member();
        let is_of_epoch = member.role().leads().or(member.role().stands_for()) == Some(epoch);
        if is_of_epoch && self.is_member(from) {
            self.pulse.heard(from, now);
        }
    }

    /// Whether it may be a sign of life: it is of a member, and not of a copy of its directory.
    fn is_member(&self, from: MemberRun) -> bool {
        let state = self.shell.member().state();
        let noted = state.notes().seen(from.directory);
        state.others().contains(&from.node) && !session::is_stale(from.session, noted)
    }

    /// Another member knows this epoch. The next one that this member asks for is greater: it may not be
    /// able to promise that of others, and they would not promise a smaller one.
    fn note_epoch(&mut self, epoch: LeaderEpoch) {
        if epoch.0.saturating_sub(self.promised().0) <= EPOCHS_AHEAD {
            self.follower.known = self.follower.known.max(epoch);
        }
    }

    fn hear_leader(&mut self, from: MemberRun, epoch: LeaderEpoch, now: Duration) {
        let follows = self.shell.member().role().follows();
        if follows.is_some_and(|known| known.leader == from && known.epoch == epoch) {
            let chance = (self.chance)();
            self.elector.heard(now, chance);
            self.pulse.heard(from, now);
        }
    }

    fn signalled(&mut self, signal: &Signal, now: Duration) {
        let Signal { from, epoch, sign, .. } = *signal;
        if !is_of_group(&self.shell, signal.group) || self.shell.failure().is_some() {
            return;
        }
        let follows = self.shell.member().role().follows();
        let is_followed = follows.is_some_and(|known| known.leader == from && known.epoch == epoch);
        match sign {
            Sign::Beating { round, sums } if is_followed => {
                self.signal(from.node, epoch, Sign::Heard { round });
                self.compare(sums, now);
            }
            Sign::Heard { round } if self.shell.member().role().leads() == Some(epoch) => {
                if self.is_member(from) {
                    self.pulse.answered(from, round, now);
                }
            }
            Sign::Missing if self.elector.misses(now, epoch, self.promised()) => {
                self.signal(from.node, epoch, Sign::Missed);
            }
            Sign::Missed if self.timing.elects && view::counts(self.shell.member(), from) => {
                let needed = self.needed();
                let wish = self.elector.missed_by(from.node, epoch, &needed);
                self.grant(wish, now);
            }
            Sign::TakeOver if is_followed && self.timing.elects => {
                if let Some(next) = epoch.0.checked_add(1) {
                    // What it may not lead, another one will.
                    let _ = self.lead(LeaderEpoch(next), now);
                }
            }
            Sign::Beating { .. }
            | Sign::Heard { .. }
            | Sign::Missing
            | Sign::Missed
            | Sign::TakeOver => {}
        }
    }

    /// The leader has named its sums. While this member's are others, or it has something that is not
    /// below the high watermark, it asks again: a frame may be lost.
    fn compare(&mut self, sums: Sums, now: Duration) {
        let follower = &mut self.follower;
        let half = self.timing.heartbeat / 2;
        if follower.compared.is_some_and(|at| now < at.saturating_add(half)) {
            // The leader beats more often while it is asked to confirm that it leads, or beats were late.
            return;
        }
        follower.compared = Some(now);
        let has_news = std::mem::take(&mut follower.has_news);
        if sums == sums_of(&self.shell) && view::is_settled(self.shell.member()) {
            follower.behind = 0;
            return;
        }
        follower.behind = follower.behind.saturating_add(1);
        // What is on the way may arrive with the next beat.
        if follower.behind >= 2 {
            let count = if has_news { ASKED_AGAIN } else { ASKED_AGAIN_IDLE };
            follower.asked = self.shell.ask_from(follower.asked, count);
        }
    }

    fn signal(&mut self, to: NodeId, epoch: LeaderEpoch, sign: Sign) {
        let state = self.shell.member().state();
        let (group, from) = (state.logs().group(), state.me());
        self.out.said.push(Said::Signal(Signal { group, from, to, epoch, sign }));
    }

    // ---- what the engine says ------------------------------------------------------------------

    /// Takes note of the partitions that have news, has synced what was copied, and does a part of what
    /// takes long. Returns whether there is more of that.
    pub(super) fn take_news(&mut self, syncs_in_background: bool, now: Duration) -> bool {
        let is_busy = self.shell.prepare_more();
        self.shell.sync_copied(syncs_in_background);
        take_changed(self, now);
        is_busy
    }

    // ---- time --------------------------------------------------------------------------------

    /// Does what is due. Returns when it wants to be called next.
    pub(super) fn tick(&mut self, now: Duration) -> Duration {
        // Waits that begin later are looked at with the next beat.
        let _ = self.leadership.expire_waits(now);
        if self.shell.failure().is_some() {
            self.collect(now);
            return now.saturating_add(self.timing.heartbeat);
        }
        self.elect(now);
        if now >= self.beat_due {
            self.beat(now);
        }
        self.reach(now);
        self.collect(now);
        let due = if self.timing.elects { self.elector.due() } else { Duration::MAX };
        due.min(self.beat_due).max(now)
    }

    /// Sends again what had no answer; as a leader, a beat.
    fn beat(&mut self, now: Duration) {
        self.beat_due = now.saturating_add(self.timing.heartbeat);
        match self.shell.member().role() {
            Role::Leader(_) => {
                self.pulse.beat();
                self.shell.resend();
                // Who has missed it does not ask: it lacks no record.
                say_starts(&mut self.shell, self.shown.awaited_starts.keys().copied());
                self.try_replace();
            }
            Role::Candidate(_) => self.shell.resend(),
            // It asks when the leader's beats say that it lacks something.
            Role::Follower(_) => {}
        }
    }

    fn elect(&mut self, now: Duration) {
        if !self.timing.elects || self.shell.failure().is_some() {
            return;
        }
        let (promised, chance) = (self.promised().max(self.follower.known), (self.chance)());
        let Some(Wish::Ask(epoch)) = self.elector.tick(now, promised, chance) else { return };
        if !view::could_lead(self.shell.member()) {
            return;
        }
        for node in self.shell.member().state().others() {
            self.signal(node, epoch, Sign::Missing);
        }
        // Alone it is a majority of a group of one.
        let (me, needed) = (self.me(), self.needed());
        let wish = self.elector.missed_by(me, epoch, &needed);
        self.grant(wish, now);
    }

    fn grant(&mut self, wish: Option<Wish>, now: Duration) {
        if let Some(Wish::Lead(epoch)) = wish {
            self.shown.counts.elections = self.shown.counts.elections.saturating_add(1);
            // The elector asks again later.
            let _ = self.lead(epoch, now);
        }
    }

    /// Whether a leader hears a majority: it takes no appends without.
    fn reach(&mut self, now: Duration) {
        if self.shell.member().role().leads().is_none() {
            return;
        }
        let needed = self.needed();
        let reach = self.pulse.reach(self.me(), &needed, now);
        self.leadership.note_reach(reach.reachable, reach.required);
        if reach.is_majority() {
            let chance = (self.chance)();
            self.elector.heard(now, chance);
        }
        self.shown.note_reach(reach.is_majority(), &mut self.out.events);
        if let Some((_, members)) = needed.last() {
            self.shown.note_lagging(self.me(), &self.pulse, members, now, &mut self.out.events);
        }
    }

    // ---- what comes out ------------------------------------------------------------------------

    /// Takes what the shell wants sent and reported.
    pub(super) fn collect(&mut self, now: Duration) {
        for parcel in self.shell.take_frames() {
            let (to, epoch) = (parcel.envelope.to, parcel.envelope.epoch);
            let is_beat = matches!(&parcel.envelope.body, Body::Beat);
            self.out.said.push(Said::Parcel(Box::new(parcel)));
            if is_beat {
                let sums = sums_to_name(&self.shell, &self.shown, to);
                self.signal(to, epoch, Sign::Beating { round: self.pulse.round(), sums });
            }
        }
        for event in self.shell.take_events() {
            self.note(&event, now);
        }
        if let Some(failure) = self.shell.failure() {
            self.shown.note_failure(failure, &mut self.out.events);
        }
    }

    fn note(&mut self, event: &Event, now: Duration) {
        let event = match *event {
            Event::Leading(epoch) => {
                self.beat_due = now.saturating_add(self.timing.heartbeat);
                ReplicationEvent::Leading { epoch }
            }
            Event::Current(epoch) => ReplicationEvent::MayWrite { epoch },
            Event::CutRefused(key) => {
                let is_first = self.shown.note_refused(key);
                let partition = self.shell.files().partition_of(key).filter(|_| is_first);
                let Some(partition) = partition else { return };
                ReplicationEvent::CutRefused { partition }
            }
            Event::LeadershipLost(epoch, _) => {
                self.shown.replacing = None;
                ReplicationEvent::LeadershipLost { epoch }
            }
            Event::Following(epoch) => {
                let Some(following) = self.shell.member().role().follows() else { return };
                let leader = following.leader.node;
                self.follower = Follower { known: self.follower.known, ..Follower::default() };
                ReplicationEvent::Following { epoch, leader }
            }
            Event::Truncated(key, from, end) => {
                let Some(partition) = self.shell.files().partition_of(key) else { return };
                ReplicationEvent::Truncated { partition, range: from..end }
            }
            Event::Repaired(key, from, end) => {
                let Some(partition) = self.shell.files().partition_of(key) else { return };
                ReplicationEvent::Repaired { partition, range: from..end }
            }
            Event::Declined(..) | Event::Whole => return,
        };
        self.shown.note(&event, now);
        self.out.events.push(event);
    }
}

/// Takes note of the partitions that have news.
pub(super) fn take_changed<C: Catalog>(driver: &mut Driver<C>, now: Duration) {
    for partition in driver.leadership.take_changed() {
        driver.shell.notice(key_of(partition));
    }
    driver.collect(now);
}

/// A caller awaits that a majority has noted the start of a log.
pub(super) fn await_start<C: Catalog>(driver: &mut Driver<C>, key: LogKey) {
    let callers = driver.shown.awaited_starts.entry(key).or_default();
    *callers = callers.saturating_add(1);
}

/// It awaits that no more.
pub(super) fn forget_start<C: Catalog>(driver: &mut Driver<C>, key: LogKey) {
    if let Entry::Occupied(mut callers) = driver.shown.awaited_starts.entry(key) {
        *callers.get_mut() = callers.get().saturating_sub(1);
        if *callers.get() == 0 {
            callers.remove();
        }
    }
}

/// The log starts that a majority has noted, of the logs of which that is awaited.
pub(super) fn noted_starts<C: Catalog>(driver: &Driver<C>) -> BTreeMap<LogKey, u64> {
    let member = driver.shell.member();
    let awaited = driver.shown.awaited_starts.keys();
    awaited.filter_map(|key| Some((*key, view::noted_start(member, *key)?))).collect()
}

/// The log of a partition of the engine.
pub(super) fn key_of((topic, partition): PartitionId) -> LogKey {
    match topic {
        id if id == META.1 => LogKey::Meta,
        id if id == OFFSETS.1 => LogKey::Offsets,
        TopicId(id) => LogKey::Partition { topic: u128::from_le_bytes(id), partition },
    }
}

/// Whether a member is heard from the directory that counts for it, and has not lost it since.
fn is_present<C: Catalog>(driver: &Driver<C>, node: NodeId, now: Duration) -> bool {
    let members = driver.shell.member().state().logs().membership();
    let mut all = members.into_iter().flat_map(Membership::directories);
    let hears = |directory| node == driver.me() || driver.pulse.hears_last(node, directory, now);
    all.any(|(counting, directory)| counting == node && hears(directory))
}

/// Whether the leader is heard, or is this member, with a majority.
fn hears_leader<C: Catalog>(driver: &Driver<C>, now: Duration) -> bool {
    let role = driver.shell.member().role();
    let (leads, follows) = (role.leads().is_some(), role.follows().map(|known| known.leader));
    (leads && driver.pulse.reach(driver.me(), &driver.needed(), now).is_majority())
        || follows.is_some_and(|it| driver.pulse.hears(it.node, it.directory, now))
}

fn is_of_group<C: Catalog>(shell: &Shell<C>, group: Option<GroupId>) -> bool {
    match (shell.member().state().logs().group(), group) {
        (Some(own), Some(theirs)) => own == theirs,
        _ => true,
    }
}

/// What a beat says to another member that this one has. A member that has the same says nothing any
/// more, also if its last question was lost: by it a leader learns that the epoch was adopted, without
/// which it is not current; what was copied, and all that a new directory needs to count; and where a
/// log was noted to begin, which a caller may await. Until then that member has to ask again.
fn sums_to_name<C: Catalog>(shell: &Shell<C>, shown: &shown::Shown, to: NodeId) -> Sums {
    let member = shell.member();
    let is_current = member.role().leads().is_none() || view::is_current(member);
    let is_replaced = shown.replacing == Some(to);
    let has_noted = |key: &LogKey| view::has_noted_start(member, *key, to);
    let is_known =
        view::lag_of(member, to).is_empty() && shown.awaited_starts.keys().all(has_noted);
    if is_current && !is_replaced && is_known { sums_of(shell) } else { Sums::of_nobody() }
}

fn sums_of<C: Catalog>(shell: &Shell<C>) -> Sums {
    let mut sums = Sums::default();
    for (key, log) in shell.member().state().logs().iter() {
        sums.add(key, log.end(), log.watermark, log.strict);
    }
    sums
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;

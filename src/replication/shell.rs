//! `Shell`: one member of a group over the engine of its broker.
//!
//! Owns: the state machine of the member, and the order in which what it wants is carried out: one
//! effect after the other, on the thread that calls. So what is sent rests on what was made durable
//! before it. Must not know: how frames travel, and who decides who leads.
//!
//! If an effect cannot be carried out, the state machine believes what is not so: the shell does
//! nothing any more, and the next run begins with what is in the directory. Damage that a read finds is
//! the exception: the member gives up its leadership, and copies the log again.

mod aside;
mod feed;
mod files;
mod found;
mod leading;
mod outgoing;
mod read;
mod starts;
mod stored;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use super::effect::{Effect, Event};
use super::frame::{Checked, Frame};
use super::history::EpochRange;
use super::log_key::LogKey;
use super::logs::MetaChange;
use super::member::{self, LeadRefused, Member};
use super::membership::{GroupId, Membership};
use super::message::{Body, Envelope, Fetched, Found};
use super::notes::Note;
use super::senders;
use super::state::Effects;
use crate::broker::Broker;
use crate::error::{Error, Result};
use crate::format::TopicId;
use crate::log::replica::received::Received;
use crate::log::replica::refusal::Failure;
use crate::partition::quorum::Quorum;
use crate::partition::{PartitionCore, Work};
use crate::record::{LeaderEpoch, NodeId, TopicPartition};
use aside::Aside;
use feed::Feeds;
use files::Files;
use leading::{end_leadership, note_leader};
use outgoing::Outgoing;
use read::Read;
pub(crate) use starts::say_starts;

/// How many bytes of batches a frame has at most, unless one batch alone is larger. Tests send little at
/// a time, because something may happen in between.
const FRAME_BYTES: usize = if cfg!(test) { 32 << 10 } else { 1 << 20 };

/// Which partitions of a broker are the logs of a group, and what the records of `__meta` say.
pub(crate) trait Catalog {
    /// Whether only synced copies of `__meta` and `__offsets` count.
    fn counts_synced(&self) -> bool;

    /// The partition of a log; `None` if this broker does not have it, or not any more.
    fn partition(&self, key: LogKey) -> Option<(TopicId, Arc<PartitionCore>)>;

    /// The same, once nobody changes topics: one that is created is in `__meta` before it can be used.
    fn settled_partition(&self, key: LogKey) -> Option<(TopicId, Arc<PartitionCore>)>;

    /// Makes some of the files that records of `__meta` need before they are stored. True when it can
    /// make no more before. It adds files, and removes only those that belong to no topic.
    fn prepare(&self, received: &[Received<'_>]) -> Result<bool, Failure>;

    /// What was prepared is not needed any more.
    fn forget_prepared(&self);

    /// What checked batches of `__meta` change, by offset.
    fn changes(&self, batches: &[u8]) -> Vec<(u64, MetaChange)>;

    /// Where `__meta` has begun anew, if it does not have everything that is in force; otherwise zero.
    fn lacks_below(&self) -> u64;

    /// Appends a record to `__meta` that says who the members are.
    fn append_membership(&self, membership: &Membership) -> Result<()>;

    /// The same, durably and as the first record of an epoch in which changes are taken from then on.
    fn begin_group(&self, membership: &Membership, epoch: u32) -> Result<(), Failure>;

    /// Appends what was received. Below `sparse_below` there may be gaps.
    fn append(&self, key: LogKey, received: Received<'_>, sparse_below: u64)
    -> Result<(), Failure>;

    /// Cuts a log, and returns its end. What records of `__meta` have created that are cut is removed.
    fn truncate(&self, key: LogKey, to: u64) -> Result<u64, Failure>;

    /// Drops what a log has, and continues at `start`.
    fn begin_anew(&self, key: LogKey, start: u64) -> Result<(), Failure>;

    /// Moves a log start to that of the leader.
    fn raise_start(&self, key: LogKey, start: u64) -> Result<()>;

    /// A majority has everything below `offset`.
    fn advance(&self, key: LogKey, offset: u64);

    /// A majority has synced everything below `offset`.
    fn advance_synced(&self, key: LogKey, offset: u64);

    /// What is appended to a log has this epoch from now on.
    fn lead(&self, key: LogKey, epoch: u32) -> Result<(), Failure>;

    /// Nothing is appended to `__meta` and `__offsets` here any more.
    fn follow(&self);
}

/// The batches of the answer in hand.
#[derive(Clone, Copy)]
struct Answer<'a> {
    checked: &'a Checked<'a>,
    /// Below it the leader's log may be compacted.
    sparse_below: u64,
    /// What the batches change, if they are of `__meta`.
    changes: &'a [(u64, MetaChange)],
}

pub(crate) struct Shell<C> {
    broker: Broker,
    catalog: C,
    member: Member,
    outgoing: Outgoing,
    events: Vec<Event>,
    feeds: Feeds,
    /// Logs with records that count once they are synced.
    unsynced: BTreeSet<LogKey>,
    /// Records of `__meta` that wait until the files are made that they need.
    aside: Aside,
    /// What was read for an answer among the effects that are being carried out.
    read: Option<Read>,
    failure: Option<Failure>,
}

impl<C: Catalog> Shell<C> {
    /// Begins a run of the member that has this broker. From now on readers see what is below the
    /// high watermarks. `draw` gives a random number to a directory that has none, and `random` is one of
    /// this run.
    ///
    /// # Errors
    ///
    /// Those of the disk. Damage is none: such a member does not lead.
    pub(crate) fn open(
        broker: Broker,
        catalog: C,
        node: NodeId,
        listed: Vec<NodeId>,
        (draw, random): (impl FnOnce() -> u128, u32),
    ) -> Result<Self> {
        let logs = found::logs(&catalog)?;
        let notes = found::notes((&broker, &catalog), node, &logs, (draw, random))?;
        let member = Member::new(notes, logs, listed);
        let (outgoing, events, feeds) = (Outgoing::default(), Vec::new(), Feeds::default());
        let (unsynced, aside, read) = (BTreeSet::new(), Aside::default(), None);
        let failure = None;
        Ok(Self {
            broker,
            catalog,
            member,
            outgoing,
            events,
            feeds,
            unsynced,
            aside,
            read,
            failure,
        })
    }

    pub(crate) fn member(&self) -> &Member {
        &self.member
    }

    /// Why the shell does nothing any more.
    pub(crate) fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    pub(crate) fn take_frames(&mut self) -> Vec<Frame> {
        let files = Files { broker: &self.broker, catalog: &self.catalog };
        // DURABILITY: they say what was adopted.
        let taken = self.outgoing.take_frames(self.failure.is_some(), |note| files.note(note));
        taken.unwrap_or_else(|error| {
            self.fail(error.into());
            Vec::new()
        })
    }

    pub(crate) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    // ---- calls -----------------------------------------------------------------------------

    /// Begins a confirming round.
    ///
    /// # Errors
    ///
    /// Why this member does not become a candidate.
    pub(crate) fn lead(&mut self, epoch: LeaderEpoch) -> Result<(), LeadRefused> {
        if self.failure.is_none() {
            let effects = self.member.lead(epoch)?;
            self.carry_out(effects, None);
        }
        Ok(())
    }

    /// Leads without the others: see [`Member::force_lead`].
    ///
    /// # Errors
    ///
    /// Why this member does not lead.
    pub(crate) fn force_lead(
        &mut self,
        epoch: LeaderEpoch,
        group: GroupId,
    ) -> Result<(), LeadRefused> {
        if self.failure.is_none() {
            let effects = self.member.force_lead(epoch, group)?;
            self.carry_out(effects, None);
            self.notice(LogKey::Meta);
        }
        Ok(())
    }

    /// Takes a frame. What is not as it should be changes nothing.
    ///
    /// If it brings new topics whose files take long, it is put aside: see
    /// [`prepare_more`](Self::prepare_more).
    pub(crate) fn receive(&mut self, frame: &Frame) {
        let Some(checked) = frame.check() else { return };
        if self.failure.is_some() {
            return;
        }
        match self.aside.admits(frame, &checked, (&self.member, &self.catalog)) {
            Ok(true) => {}
            Ok(false) => return,
            Err(failure) => return self.fail(failure),
        }
        let mut envelope = frame.envelope.clone();
        let (mut sparse_below, mut meta_changes) = (u64::MAX, Vec::new());
        if let Body::Fetched(Fetched { asked, found, led, .. }) = &mut envelope.body
            && let Found::Records { ranges, changes } = found
        {
            ranges.clone_from(&checked.ranges);
            changes.clear();
            if asked.log == LogKey::Meta {
                let each = checked.received.iter();
                changes.extend(each.flat_map(|it| self.catalog.changes(it.bytes)));
                meta_changes.clone_from(changes);
            }
            // What was compacted lay below the watermark of an earlier run, or of this one.
            sparse_below = led.map_or(u64::MAX, |led| led.watermark.max(led.began));
        }
        if senders::is_of_member(self.member.state(), &envelope) {
            self.feeds.heard(&envelope);
        }
        let effects = self.member.receive(&envelope);
        let answer = Answer { checked: &checked, sparse_below, changes: &meta_changes };
        self.carry_out(effects, Some(answer));
        if self.aside.is_empty() {
            self.catalog.forget_prepared();
        }
        self.feed();
    }

    /// Makes more of the files that an answer waits for, and takes it when there are all. Returns
    /// whether more are missing.
    pub(crate) fn prepare_more(&mut self) -> bool {
        if let Some(frame) = self.aside.take() {
            self.receive(&frame);
        }
        !self.aside.is_empty()
    }

    /// Takes questions that were put off, as far as there is room for their answers.
    fn feed(&mut self) {
        while self.failure.is_none()
            && let Some(question) = self.feeds.next()
        {
            let effects = self.member.receive(&question);
            self.carry_out(effects, None);
        }
    }

    /// Sends again what had no answer.
    pub(crate) fn resend(&mut self) {
        if self.failure.is_none() {
            self.feeds.beat();
            say_again(self);
            self.feed();
        }
    }

    /// Asks the leader again for some logs: see [`Member::ask_from`].
    pub(crate) fn ask_from(&mut self, after: Option<LogKey>, logs: usize) -> Option<LogKey> {
        if self.failure.is_some() {
            return None;
        }
        let mut effects = Effects::new();
        let last = self.member.ask_from(after, logs, &mut effects);
        self.carry_out(effects, None);
        last
    }

    /// Gives up the leadership.
    pub(crate) fn resign(&mut self) {
        if self.failure.is_none() {
            let effects = self.member.resign();
            self.carry_out(effects, None);
        }
    }

    /// The directory that asks for this member counts for it from now on. False, and nothing changes,
    /// while it must not count.
    pub(crate) fn replace(&mut self, node: NodeId) -> bool {
        if self.failure.is_some() {
            return false;
        }
        let effects = self.member.replace(node);
        let is_replaced = effects.is_some();
        self.carry_out(effects.unwrap_or_default(), None);
        is_replaced
    }

    /// Takes note of what happened to a log in the engine: the leader's own appends, its log start,
    /// and what was synced.
    pub(crate) fn notice(&mut self, key: LogKey) {
        let logs = self.member.state().logs();
        if self.failure.is_some() {
            return self.files().note_loss(logs.find(key).map(|log| (key, log)));
        }
        let Some((_, core)) = self.catalog.partition(key) else { return };
        // What a damaged log has is not known: it is copied again.
        let log = logs.find(key).filter(|log| !log.damaged);
        let Some((end, synced)) = log.map(|log| (log.end(), log.synced)) else { return };
        if let Err(error) = files::check_syncs(&core) {
            return self.fail(error.into());
        }
        let effects = member::want_synced(&mut self.member, key, Quorum::of(&core).wanted());
        self.carry_out(effects, None);
        if core.log_end() > end
            && let Err(failure) = self.notice_records(key, &core, end)
        {
            return self.fail(failure);
        }
        let effects = self.member.start_moved(key, core.log_start());
        self.carry_out(effects, None);
        if core.durable_end() > synced {
            let effects = self.member.synced(key, core.durable_end());
            self.carry_out(effects, None);
        }
    }

    /// Has synced what was copied and counts only then: in the background, where that then says so, or
    /// at once.
    pub(crate) fn sync_copied(&mut self, in_background: bool) {
        if self.failure.is_some() {
            return;
        }
        for key in std::mem::take(&mut self.unsynced) {
            let Some((_, core)) = self.catalog.partition(key) else { continue };
            if in_background {
                core.requests().request(Work::Sync);
                continue;
            }
            match core.flush() {
                Ok(()) => self.notice(key),
                Err(error) => return self.fail(error.into()),
            }
        }
    }

    /// Where the logs of partitions end.
    pub(crate) fn ends(&self) -> Vec<(TopicPartition, u64)> {
        let logs = self.member.state().logs().iter();
        let partitions = logs.filter(|(key, _)| matches!(key, LogKey::Partition { .. }));
        let cores = partitions.filter_map(|(key, _)| self.catalog.partition(key));
        cores.map(|(_, core)| (TopicPartition::clone(&core.origin), core.log_end())).collect()
    }

    /// Takes note of what the leader has appended from `end` on.
    fn notice_records(
        &mut self,
        key: LogKey,
        core: &PartitionCore,
        end: u64,
    ) -> Result<(), Failure> {
        // Others append meanwhile.
        let new_end = core.log_end();
        let changes = self.found_changes(key, core, end..new_end)?;
        let Some(effects) = self.member.appended(key, new_end.saturating_sub(end), &changes) else {
            // Somebody has appended to a log that this member does not lead.
            return Err(Error::wrong_offset(&core.origin, end, new_end).into());
        };
        let created = self.begin_logs(core, &changes)?;
        self.carry_out(effects, None);
        for key in created {
            // It may have records already, of which nothing was known to be noticed.
            self.notice(key);
        }
        Ok(())
    }

    /// What the records between these offsets change, if they are of `__meta`.
    fn found_changes(
        &self,
        key: LogKey,
        core: &PartitionCore,
        offsets: Range<u64>,
    ) -> Result<Vec<(u64, MetaChange)>> {
        if key != LogKey::Meta {
            return Ok(Vec::new());
        }
        let mut changes = found::changes(&self.catalog, core, offsets.start)?;
        changes.retain(|(at, _)| *at < offsets.end);
        Ok(changes)
    }

    /// Reads all of a log, to find damage.
    #[cfg(test)]
    pub(crate) fn scrub(&mut self, key: LogKey) {
        use crate::partition::replica::{Fed, Replica};
        let Some((_, core)) = self.catalog.partition(key) else { return };
        let mut from = core.log_start();
        loop {
            match Replica::of(&core).read(from, FRAME_BYTES) {
                Ok(Fed::Batches(portions)) => match portions.last() {
                    Some(last) => from = last.offsets.end,
                    None => return,
                },
                Ok(Fed::OutOfRange { .. }) => return,
                Err(error @ Error::Corrupt(_)) => return self.damaged(key, error),
                Err(error) => return self.fail(error.into()),
            }
        }
    }

    /// Records of a log cannot be read: it is copied again. `__meta` is not, because it says who the
    /// members are: that ends the run.
    pub(crate) fn damaged(&mut self, key: LogKey, damage: Error) {
        if self.failure.is_none() {
            let effects = self.member.damaged(key);
            self.carry_out(effects, None);
            if key == LogKey::Meta {
                self.fail(damage.into());
            }
        }
    }

    /// Logs that were created just now, which are returned. The creation is durable before there can be
    /// records of what it creates, and what the leader appends to them is of its epoch.
    fn begin_logs(
        &mut self,
        meta: &PartitionCore,
        changes: &[(u64, MetaChange)],
    ) -> Result<Vec<LogKey>, Failure> {
        let is_new = |offset: u64, key: LogKey| {
            let log = self.member.state().logs().get(key);
            log.and_then(|log| log.created).is_some_and(|created| created.offset == offset)
        };
        let created = changes.iter().filter_map(|(offset, change)| match change {
            MetaChange::Created { log, .. } => Some(*log).filter(|log| is_new(*offset, *log)),
            _ => None,
        });
        let created: Vec<LogKey> = created.collect();
        if !created.is_empty() {
            meta.flush()?;
        }
        for key in &created {
            if let Some(epoch) = self.member.role().leads() {
                self.catalog.lead(*key, epoch.0)?;
                continue;
            }
            let (_, core) = self.files().core(*key)?;
            if core.log_end() > 0 {
                // `__meta` has begun anew, and did not have the topic when this run began.
                let found = found::log(&core)?;
                self.member.logs_mut().restore(*key, &found);
                self.member.logs_mut().restart_one(*key);
            }
        }
        Ok(created)
    }

    // ---- effects ---------------------------------------------------------------------------

    /// The member does nothing any more. If it led, that ends for callers: nobody learns any more what
    /// becomes of records that wait for a majority.
    fn fail(&mut self, failure: Failure) {
        self.failure.get_or_insert(failure);
        let leadership = self.broker.run().context().leadership.as_ref();
        // The state machine may be ahead of the engine, or behind it after a panic.
        let led = leadership.and_then(|leadership| leadership.leads());
        if let Some(epoch) = led.or_else(|| self.member.role().leads().map(|epoch| epoch.0)) {
            end_leadership((&self.broker, &self.catalog), LeaderEpoch(epoch));
        }
        if let Some(leadership) = leadership {
            leadership.note_leader(None);
        }
        self.files().note_loss(self.member.state().logs().with_deleted());
    }

    /// A panic has ended what the member was doing, of which nothing more is known.
    pub(super) fn panicked(&mut self) {
        let dir = &self.broker.run().context().settings.dir;
        let source = std::io::Error::other("the member of the replicated group has panicked");
        self.fail(Error::io("replicate", dir, source).into());
    }

    /// Takes note of what was appended at the end of a leadership, and was not noticed yet.
    fn take_last_appends(&mut self, epoch: LeaderEpoch) -> Result<(), Failure> {
        // `__meta` is the first: logs that it has created since have records too.
        self.take_last_appends_of(LogKey::Meta, epoch)?;
        let logs = self.member.state().logs().with_deleted();
        let keys: Vec<LogKey> = logs.map(|(key, _)| key).collect();
        keys.into_iter().try_for_each(|key| self.take_last_appends_of(key, epoch))
    }

    fn take_last_appends_of(&mut self, key: LogKey, epoch: LeaderEpoch) -> Result<(), Failure> {
        let log = self.member.state().logs().find(key).filter(|log| !log.damaged);
        let Some(end) = log.map(super::logs::Log::end) else { return Ok(()) };
        let Some((_, core)) = self.catalog.settled_partition(key) else { return Ok(()) };
        // Otherwise it would be asked for records that it does not have, and say nothing.
        let _ = self.member.start_moved(key, core.log_start());
        let new_end = core.log_end();
        let Some(records) = new_end.checked_sub(end).filter(|records| *records > 0) else {
            return Ok(());
        };
        let changes = self.found_changes(key, &core, end..new_end)?;
        if self.member.logs_mut().append(key, &[EpochRange { epoch, records }], &changes) {
            return Ok(());
        }
        Err(Error::wrong_offset(&core.origin, end, new_end).into())
    }

    fn carry_out(&mut self, effects: Effects, answer: Option<Answer<'_>>) {
        for effect in effects {
            if self.failure.is_some() {
                return;
            }
            if let Err(failure) = self.carry_out_one(effect, answer) {
                self.fail(failure);
            }
        }
        self.read = None;
    }

    fn carry_out_one(&mut self, effect: Effect, answer: Option<Answer<'_>>) -> Result<(), Failure> {
        match effect {
            Effect::Sync(logs) => {
                for key in logs {
                    self.files().core(key)?.1.flush()?;
                }
            }
            Effect::Note(note) => {
                if matches!(&note, Note::Promise(_)) {
                    self.feeds.clear();
                }
                let files = Files { broker: &self.broker, catalog: &self.catalog };
                let follows = self.member.role().follows().is_some();
                self.outgoing.note(note, follows, |note| files.note(note))?;
            }
            Effect::Append { log, .. } => {
                let (_, core) = self.files().core(log)?;
                if let Some(Answer { checked, sparse_below, changes }) = answer {
                    for received in &checked.received {
                        self.catalog.append(log, *received, sparse_below)?;
                    }
                    self.begin_logs(&core, changes)?;
                    let copied = self.member.state().logs().get(log);
                    if copied.is_some_and(|copied| copied.counts_synced) {
                        self.unsynced.insert(log);
                    }
                }
            }
            Effect::Truncate { log, to } => match self.files().truncate(log, to) {
                // It is copied again: what is damaged must not become a gap.
                Err(Failure::Failed(error @ Error::Corrupt(_))) => self.damaged(log, error),
                done => done?,
            },
            Effect::BeginAnew { log, start } => self.files().begin_anew(log, start)?,
            Effect::RaiseStart { log, start } => {
                self.catalog.raise_start(log, start)?;
            }
            // Done by the truncation of `__meta`.
            Effect::Remove(_) => {}
            Effect::AppendMembership(membership) => {
                self.catalog.append_membership(&membership)?;
                self.files().core(LogKey::Meta)?.1.flush()?;
                self.notice(LogKey::Meta);
            }
            Effect::BeginGroup(membership) => {
                if let Some(epoch) = self.member.role().leads() {
                    // `__meta` alone has the epoch then: no other log takes appends yet.
                    self.catalog.begin_group(&membership, epoch.0)?;
                }
            }
            Effect::Disown => {
                self.files().disown()?;
                let reason = "the directory was put back from a copy: others know later runs of it. \
                              When it is opened again it is that of a learner";
                return Err(Error::config("replication", reason).into());
            }
            Effect::Send(envelope) => self.send(*envelope)?,
            Effect::Watermark { log, offset } => {
                self.catalog.advance(log, offset);
                if matches!(log, LogKey::Meta | LogKey::Offsets) {
                    // What is not needed any more was removed.
                    let _ = self.member.start_moved(log, self.files().core(log)?.1.log_start());
                }
            }
            Effect::Synced { log, offset } => self.catalog.advance_synced(log, offset),
            Effect::SyncSoon(log) => drop(self.unsynced.insert(log)),
            Effect::Event(event) => self.event(event)?,
        }
        Ok(())
    }

    /// What the member stores.
    pub(super) fn files(&self) -> Files<'_, C> {
        Files { broker: &self.broker, catalog: &self.catalog }
    }

    fn event(&mut self, event: Event) -> Result<(), Failure> {
        let mut done = Ok(());
        match &event {
            Event::Leading(epoch) => {
                for (key, _) in self.member.state().logs().iter() {
                    self.catalog.lead(key, epoch.0)?;
                }
                // From now on users append.
                self.broker.run().leading().begin(epoch.0);
            }
            Event::LeadershipLost(epoch, _) => {
                end_leadership((&self.broker, &self.catalog), *epoch);
                done = self.take_last_appends(*epoch);
            }
            _ => {}
        }
        note_leader(&self.broker, &self.member);
        self.events.push(event);
        done
    }

    /// Adds the batches to an answer.
    fn send(&mut self, envelope: Envelope) -> Result<(), Failure> {
        let mut batches = Vec::new();
        if let Body::Fetched(Fetched { asked, found, .. }) = &envelope.body
            && let Found::Records { ranges, .. } = found
            && !ranges.is_empty()
        {
            // A candidate asks for what it lacks and no more; nobody frees the window that it leaves.
            let feeds = self.member.role().leads().is_some();
            if feeds && !self.feeds.admits(&envelope) {
                return Ok(());
            }
            let (log, from) = (asked.log, asked.from);
            let end = self.member.state().logs().get(log).map_or(from, super::logs::Log::end);
            let files = Files { broker: &self.broker, catalog: &self.catalog };
            match Read::again(&mut self.read, files, log, from..end) {
                Ok(found) => batches = found,
                Err(Failure::Failed(error @ Error::Corrupt(_))) => {
                    self.damaged(log, error);
                    return Ok(());
                }
                Err(failure) => return Err(failure),
            }
            let start = self.files().core(log)?.1.log_start();
            if from < start {
                // A clean-up in the background has removed them since the member was asked, which
                // then does not know it yet. The follower asks again.
                let _ = self.member.start_moved(log, start);
                return Ok(());
            }
            let bytes = batches.iter().map(|it| it.bytes.len()).fold(0, usize::saturating_add);
            if feeds && bytes > 0 {
                self.feeds.sent(&envelope, bytes);
            }
        }
        self.outgoing.push(Frame { envelope, batches });
        Ok(())
    }
}

/// Sends again what had no answer, between beats: how long something is on the way is counted in those.
pub(crate) fn say_again<C: Catalog>(shell: &mut Shell<C>) {
    if shell.failure.is_none() {
        let effects = shell.member.resend();
        shell.carry_out(effects, None);
    }
}

//! `Shell`: one member of a group over the engine of its broker.
//!
//! Owns: the state machine of the member, and the order in which what it wants is carried out: one
//! effect after the other, on the thread that calls. So what is sent rests on what was made durable
//! before it. Must not know: how frames travel, and who decides who leads.
//!
//! If an effect cannot be carried out, the state machine believes what is not so: the shell does
//! nothing any more, and the next run begins with what is in the directory. Damage that a read finds is
//! the exception: the member gives up its leadership, and copies the log again.

mod found;
mod stored;

use std::sync::Arc;

use super::effect::{Effect, Event};
use super::frame::{Batches, Checked, Frame};
use super::log_key::LogKey;
use super::logs::MetaChange;
use super::member::{LeadRefused, Member};
use super::membership::Membership;
use super::message::{Body, Envelope, Fetched, Found};
use super::notes::Note;
use super::rule::Rule;
use super::state::Effects;
use crate::broker::Broker;
use crate::broker::local::{LocalChange, ReplicaNote};
use crate::broker::member_notes::MemberNotes;
use crate::error::{Error, Result};
use crate::format::{BatchHeader, TopicId};
use crate::log::replica::received::Received;
use crate::log::replica::refusal::Failure;
use crate::partition::PartitionCore;
use crate::partition::quorum::Quorum;
use crate::partition::replica::{Fed, Replica};
use crate::record::{LeaderEpoch, NodeId};
use stored::Opening;

/// How many bytes of batches a frame has at most, unless one batch alone is larger.
const FRAME_BYTES: usize = 1 << 20;

/// Which partitions of a broker stand for the logs of a group, and what the records of `__meta` say.
pub(crate) trait Catalog {
    /// Whether only synced copies of `__meta` and `__offsets` count.
    fn counts_synced(&self) -> bool;

    fn partition(&self, key: LogKey) -> Option<(TopicId, Arc<PartitionCore>)>;

    /// What checked batches of `__meta` change, by offset.
    fn changes(&self, batches: &[u8]) -> Vec<(u64, MetaChange)>;

    /// Appends a record to `__meta` that says who the members are.
    fn append_membership(&self, membership: &Membership) -> Result<()>;
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
    frames: Vec<Frame>,
    events: Vec<Event>,
    failure: Option<Failure>,
}

impl<C: Catalog> Shell<C> {
    /// Begins a run of the member that has this broker. From now on readers see what is below the
    /// high watermarks.
    ///
    /// # Errors
    ///
    /// Those of the disk. Damage is none: such a member does not lead.
    pub(crate) fn open(
        broker: Broker,
        catalog: C,
        node: NodeId,
        listed: Vec<NodeId>,
        draw: impl FnOnce() -> u128,
    ) -> Result<Self> {
        let logs = found::logs(&catalog)?;
        let notes = found::notes(&broker, node, &logs, draw)?;
        // Also of logs of which `__meta` does not say that they exist: it may be damaged.
        let topics = broker.run().live().all();
        for core in topics.iter().flat_map(|topic| &topic.partitions) {
            Quorum::of(core).begin();
        }
        let member = Member::new(notes, logs, listed);
        Ok(Self { broker, catalog, member, frames: Vec::new(), events: Vec::new(), failure: None })
    }

    pub(crate) fn member(&self) -> &Member {
        &self.member
    }

    /// Why the shell does nothing any more.
    pub(crate) fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    pub(crate) fn take_frames(&mut self) -> Vec<Frame> {
        std::mem::take(&mut self.frames)
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

    /// Takes a frame. What is not as it should be changes nothing.
    pub(crate) fn receive(&mut self, frame: &Frame) {
        let Some(checked) = frame.check() else { return };
        if self.failure.is_some() {
            return;
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
        let effects = self.member.receive(&envelope);
        let answer = Answer { checked: &checked, sparse_below, changes: &meta_changes };
        self.carry_out(effects, Some(answer));
    }

    /// Sends again what had no answer.
    pub(crate) fn resend(&mut self) {
        if self.failure.is_none() {
            let effects = self.member.resend();
            self.carry_out(effects, None);
        }
    }

    /// The directory that asks for this member counts for it from now on.
    pub(crate) fn replace(&mut self, node: NodeId) {
        if self.failure.is_none() {
            let effects = self.member.replace(node);
            self.carry_out(effects.unwrap_or_default(), None);
        }
    }

    /// Takes note of what happened to a log in the engine: the leader's own appends, its log start,
    /// and what was synced.
    pub(crate) fn notice(&mut self, key: LogKey) {
        if self.failure.is_some() {
            return;
        }
        let Some((_, core)) = self.catalog.partition(key) else { return };
        // What a damaged log has is not known: it is copied again.
        let log = self.member.state().logs().get(key).filter(|log| !log.damaged);
        let Some((end, synced)) = log.map(|log| (log.end(), log.synced)) else { return };
        if let Some(records) = core.log_end().checked_sub(end).filter(|records| *records > 0) {
            let changes = match key {
                LogKey::Meta => found::changes(&self.catalog, &core, end),
                _ => Ok(Vec::new()),
            };
            let changes = match changes {
                Ok(changes) => changes,
                Err(error) => return self.fail(error.into()),
            };
            let effects = self.member.appended(key, records, &changes);
            if key == LogKey::Meta
                && let Err(failure) = self.begin_logs(&core, &changes)
            {
                return self.fail(failure);
            }
            let Some(effects) = effects else {
                // Somebody has appended to a log that this member does not lead.
                return self.fail(Error::wrong_offset(&core.origin, end, core.log_end()).into());
            };
            self.carry_out(effects, None);
        }
        let effects = self.member.start_moved(key, core.log_start());
        self.carry_out(effects, None);
        if core.durable_end() > synced {
            let effects = self.member.synced(key, core.durable_end());
            self.carry_out(effects, None);
        }
    }

    /// Reads all of a log, to find damage.
    pub(crate) fn scrub(&mut self, key: LogKey) {
        let Some((_, core)) = self.catalog.partition(key) else { return };
        let mut from = core.log_start();
        loop {
            match Replica::of(&core).read(from, FRAME_BYTES) {
                Ok(Fed::Batches(portions)) => match portions.last() {
                    Some(last) => from = last.offsets.end,
                    None => return,
                },
                Ok(Fed::OutOfRange { .. }) => return,
                Err(Error::Corrupt(_)) => return self.damaged(key),
                Err(error) => return self.fail(error.into()),
            }
        }
    }

    /// Records of a log cannot be read.
    pub(crate) fn damaged(&mut self, key: LogKey) {
        if self.failure.is_none() {
            let effects = self.member.damaged(key);
            self.carry_out(effects, None);
        }
    }

    /// The log start of the leader lies within a batch, with which the empty log begins.
    fn begin_within(core: &PartitionCore, received: &Received<'_>) -> Result<(), Failure> {
        let (start, end) = (core.log_start(), core.log_end());
        if start == end && received.base_offset < start {
            Replica::of(core).begin_anew(start, Some(received))?;
        }
        Ok(())
    }

    /// Logs that were created just now. The creation is durable before there can be records of what it
    /// creates; nothing of them is visible yet, and what the leader appends to them is of its epoch.
    fn begin_logs(
        &self,
        meta: &PartitionCore,
        changes: &[(u64, MetaChange)],
    ) -> Result<(), Failure> {
        if !changes.is_empty() {
            meta.flush()?;
        }
        for (offset, change) in changes {
            let MetaChange::Created { log: key, .. } = change else { continue };
            let log = self.member.state().logs().get(*key);
            if log.and_then(|log| log.created).is_none_or(|created| created.offset != *offset) {
                continue;
            }
            let (_, core) = self.core(*key)?;
            Quorum::of(&core).begin();
            if core.log_end() > 0 {
                // A run has died after it cut the creation, and before it removed the log.
                self.truncate(*key, 0)?;
            }
            if let Some(epoch) = self.member.role().leads() {
                Replica::of(&core).set_epoch(epoch.0)?;
            }
        }
        Ok(())
    }

    // ---- effects ---------------------------------------------------------------------------

    /// Nobody learns any more what becomes of records that wait for a majority.
    fn fail(&mut self, failure: Failure) {
        self.failure.get_or_insert(failure);
        if let Some(epoch) = self.member.role().leads() {
            self.end_leadership(epoch);
        }
    }

    fn end_leadership(&self, epoch: LeaderEpoch) {
        for (key, _) in self.member.state().logs().with_deleted() {
            if let Some((_, core)) = self.catalog.partition(key) {
                Quorum::of(&core).end_leadership(epoch.0);
            }
        }
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
    }

    fn carry_out_one(&mut self, effect: Effect, answer: Option<Answer<'_>>) -> Result<(), Failure> {
        match effect {
            Effect::Sync(logs) => {
                for key in logs {
                    self.core(key)?.1.flush()?;
                }
            }
            Effect::Note(note) => self.note(note)?,
            Effect::Append { log, .. } => {
                let (_, core) = self.core(log)?;
                if let Some(Answer { checked, sparse_below, changes }) = answer {
                    for received in &checked.received {
                        Self::begin_within(&core, received)?;
                        Replica::of(&core).append(received, sparse_below)?;
                    }
                    self.begin_logs(&core, changes)?;
                }
            }
            Effect::Truncate { log, to } => self.truncate(log, to)?,
            Effect::BeginAnew { log, start } => self.begin_anew(log, start)?,
            Effect::RaiseStart { log, start } => {
                let (topic, core) = self.core(log)?;
                self.broker.run().space().retention().raise_start(topic, &core, start)?;
            }
            Effect::Remove(log) => self.truncate(log, 0)?,
            Effect::AppendMembership(membership) => {
                self.catalog.append_membership(&membership)?;
                self.core(LogKey::Meta)?.1.flush()?;
            }
            Effect::Send(envelope) => self.send(*envelope)?,
            Effect::Watermark { log, offset } => {
                Quorum::of(&self.core(log)?.1).advance(offset);
            }
            Effect::Event(event) => self.event(event)?,
        }
        Ok(())
    }

    fn core(&self, key: LogKey) -> Result<(TopicId, Arc<PartitionCore>), Failure> {
        let found = self.catalog.partition(key);
        found.ok_or_else(|| Error::UnknownTopic(format!("{key:?}")).into())
    }

    fn note(&self, note: Note) -> Result<()> {
        let notes = match note {
            Note::Promise(promise) => vec![ReplicaNote::Promise(stored::promise(promise))],
            Note::Adopted { epoch, logs } => {
                let mut notes = Vec::new();
                for key in logs {
                    let log = stored::log(key);
                    notes.push(ReplicaNote::Adopted { log, epoch: epoch.0 });
                    if let Some((_, core)) = self.catalog.partition(key) {
                        notes.push(ReplicaNote::Synced { log, end: core.durable_end() });
                    }
                }
                notes
            }
            Note::Incomplete => vec![ReplicaNote::Incomplete],
            Note::Whole => vec![ReplicaNote::Whole { boot: Opening::of(&self.broker).note() }],
        };
        self.notes().note(notes)
    }

    fn notes(&self) -> MemberNotes<'_> {
        MemberNotes::of(self.broker.run().logs())
    }

    /// Notes a lower end before what lies above it is removed: what is removed on purpose is not lost.
    fn note_end(&self, key: LogKey, end: u64) -> Result<()> {
        let log = stored::log(key);
        if self.notes().lacks(log, end) {
            self.notes().note(vec![ReplicaNote::Synced { log, end }])?;
        }
        Ok(())
    }

    fn truncate(&self, key: LogKey, to: u64) -> Result<(), Failure> {
        let (_, core) = self.core(key)?;
        self.note_end(key, to)?;
        let end = Replica::of(&core).truncate(to, to)?;
        if end != to {
            return Err(Error::wrong_offset(&core.origin, to, end).into());
        }
        Ok(())
    }

    fn begin_anew(&self, key: LogKey, start: u64) -> Result<(), Failure> {
        let (topic, core) = self.core(key)?;
        self.note_end(key, start)?;
        if Rule::StartNoted.holds() {
            let partition = core.origin.partition;
            let change = LocalChange::LogStart { topic, partition, offset: start };
            self.broker.run().logs().local().append_durably(vec![change])?;
        }
        Replica::of(&core).begin_anew(start, None)?;
        Ok(())
    }

    fn event(&mut self, event: Event) -> Result<(), Failure> {
        match &event {
            Event::Leading(epoch) => {
                for (key, _) in self.member.state().logs().iter() {
                    Replica::of(&self.core(key)?.1).set_epoch(epoch.0)?;
                }
            }
            Event::LeadershipLost(epoch, _) => self.end_leadership(*epoch),
            _ => {}
        }
        self.events.push(event);
        Ok(())
    }

    /// Adds the batches to an answer.
    fn send(&mut self, envelope: Envelope) -> Result<(), Failure> {
        let mut batches = Vec::new();
        if let Body::Fetched(Fetched { asked, found, .. }) = &envelope.body
            && let Found::Records { ranges, .. } = found
            && !ranges.is_empty()
        {
            let (log, from) = (asked.log, asked.from);
            let end = self.member.state().logs().get(log).map_or(from, super::logs::Log::end);
            match self.read(log, from, end) {
                Ok(found) => batches = found,
                Err(Failure::Failed(Error::Corrupt(_))) => {
                    self.damaged(log);
                    return Ok(());
                }
                Err(failure) => return Err(failure),
            }
        }
        self.frames.push(Frame { envelope, batches });
        Ok(())
    }

    /// The batches from `from` on that end at or below `end`, as far as a frame has room.
    fn read(&self, key: LogKey, from: u64, end: u64) -> Result<Vec<Batches>, Failure> {
        let (_, core) = self.core(key)?;
        let Fed::Batches(portions) = Replica::of(&core).read(from, FRAME_BYTES)? else {
            return Ok(Vec::new());
        };
        let mut all = Vec::new();
        for portion in &portions {
            let mut kept = 0;
            while let Some(rest) = portion.bytes().get(kept..)
                && let Ok(Some(header)) = BatchHeader::parse(rest)
                && header.next_offset() <= end
            {
                kept = kept.saturating_add(header.size as usize);
            }
            if let Some(bytes) = portion.bytes().get(..kept).filter(|bytes| !bytes.is_empty()) {
                all.push(Batches { under: portion.under, bytes: bytes.to_vec() });
            }
        }
        Ok(all)
    }
}

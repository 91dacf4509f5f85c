//! A group of machines, the network between them, and what happens to both.
//!
//! Owns: the frames that are on the way, what may happen at random, and the checks after each step.
//! Must not know: how a member decides.

use std::collections::BTreeMap;

use super::super::effect::Event;
use super::super::frame::Frame;
use super::super::log_key::LogKey;
use super::super::logs::Log;
use super::super::message::Envelope;
use super::super::view;
use super::machine::{Machine, Make, Run};
use super::trouble::Trouble;
use super::truth::{Truth, Violation};
use crate::broker::catalog::Stage;
use crate::config::Durability;
use crate::error::Error;
use crate::format::{BatchView, TopicId};
use crate::log::replica::refusal::Failure;
use crate::message::MessageRef;
use crate::partition::replica::{Fed, Replica};
use crate::partition::state_log::LoggedState;
use crate::random::Random;
use crate::record::{LeaderEpoch, NodeId};
use crate::storage::disk::PowerCut;

/// A group that is followed for so many steps is quiet at the end, or has no leader.
const QUIET_STEPS: usize = 60_000;
/// How many frames may be on the way; later ones are lost.
const FLIGHT_MAX: usize = 200;
const READ_BYTES: usize = 1 << 20;

#[expect(
    clippy::struct_excessive_bools,
    reason = "what has happened does not depend on each other"
)]
pub(super) struct Group {
    pub(super) machines: Vec<Machine>,
    pub(super) random: Random,
    pub(super) flight: Vec<Frame>,
    /// One-way links that are cut.
    pub(super) cut: Vec<(usize, usize)>,
    pub(super) truth: Truth,
    /// Per machine and log: up to where this run's visible records were compared.
    checked: Vec<BTreeMap<LogKey, u64>>,
    pub(super) appended: u64,
    /// Whether each step is printed.
    is_followed: bool,
    pub(super) has_rotten: bool,
    /// A disk was lost, or lost what was not synced, or has rotten.
    pub(super) has_lost: bool,
    pub(super) led: u64,
    /// The greatest starts of `__meta` and `__offsets`: they were cleaned up.
    pub(super) cleaned: (u64, u64),
    /// How often a run was seen whose `__meta` had begun anew.
    pub(super) anew: u64,
    /// A directory was put back from a copy: its run may end when it hears of that.
    pub(super) has_copy: bool,
    /// The trouble that it has beside, and how often that happened.
    pub(super) trouble: Option<Trouble>,
    pub(super) troubles: u64,
    /// The machine whose `__meta` rots.
    pub(super) rotten_meta: Option<usize>,
}

impl Group {
    pub(super) fn new(members: u64, durability: Durability, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let machines: Vec<Machine> = (0..members)
            .map(|node| {
                let make = Make { node: NodeId(node), members, durability };
                Machine::new(make, &mut random)
            })
            .collect();
        let checked = machines.iter().map(|_| BTreeMap::new()).collect();
        let truth = Truth::default();
        let is_followed = std::env::var("LOGPOND_FOLLOW").is_ok();
        let (flight, cut) = (Vec::new(), Vec::new());
        Self {
            machines,
            random,
            flight,
            cut,
            truth,
            checked,
            appended: 0,
            is_followed,
            has_rotten: false,
            has_lost: false,
            led: 0,
            cleaned: (0, 0),
            anew: 0,
            has_copy: false,
            trouble: None,
            troubles: 0,
            rotten_meta: None,
        }
    }

    /// One line of what happens, if somebody wants to follow a run.
    pub(super) fn say(&self, line: impl FnOnce() -> String) {
        if self.is_followed {
            eprintln!("{}", line());
        }
    }

    pub(super) fn records(&self) -> usize {
        self.truth.records()
    }

    // ---- what is done to a machine ------------------------------------------------------------

    pub(super) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.machines.iter().filter_map(|machine| machine.run.as_ref())
    }

    pub(super) fn start(&mut self, index: usize) -> Result<(), Violation> {
        if self.machines[index].run.is_some() {
            return Ok(());
        }
        self.checked[index].clear();
        let mut started = self.machines[index].start(&mut self.random);
        if started.is_err() && self.rotten_meta == Some(index) {
            self.say(|| format!("machine {index} does not open: {started:?}"));
            started = self.replace_disk(index);
        }
        started.map_err(|error| Violation(format!("machine {index} does not start: {error:?}")))?;
        self.say(|| {
            let run = self.machines[index].run.as_ref().unwrap();
            let logs = run.shell.member().state().logs().with_deleted();
            let ends: Vec<_> =
                logs.map(|(key, log)| (key, log.history.start(), log.end(), log.damaged)).collect();
            format!("machine {index} starts: {ends:?}")
        });
        self.after(index)
    }

    /// Its `__meta` is damaged.
    fn replace_disk(&mut self, index: usize) -> Result<(), Error> {
        self.say(|| format!("machine {index} is replaced"));
        self.machines[index].wipe(&mut self.random);
        self.machines[index].start(&mut self.random)
    }

    pub(super) fn crash(&mut self, index: usize, cut: Option<PowerCut>) {
        self.say(|| format!("machine {index} dies: {cut:?}"));
        self.has_lost |= cut.is_some();
        self.machines[index].crash(cut, &mut self.random);
    }

    /// Reads everything, to find damage.
    pub(super) fn scrub(&mut self, index: usize) -> Result<(), Violation> {
        self.with(index, |run| {
            for key in run.keys() {
                run.shell.scrub(key);
            }
        })
    }

    pub(super) fn lead(&mut self, index: usize, epoch: LeaderEpoch) -> Result<(), Violation> {
        self.with(index, |run| {
            let _ = run.shell.lead(epoch);
        })
    }

    pub(super) fn leads(run: &Run) -> bool {
        run.leads().is_some()
    }

    pub(super) fn sync_log(run: &mut Run, key: LogKey) {
        let Some(core) = run.core(key) else { return };
        match core.flush() {
            Ok(()) => run.shell.notice(key),
            // What has rotten cannot be made durable again.
            Err(error @ Error::Corrupt(_)) => run.shell.damaged(key, error),
            Err(_) => {
                // The member is woken, and its run ends.
                run.shell.notice(key);
                run.is_broken = true;
            }
        }
    }

    pub(super) fn arrive(&mut self, frame: &Frame) -> Result<(), Violation> {
        let at = |node: NodeId| usize::try_from(node.0).unwrap();
        let (from, to) = (at(frame.envelope.from.node), at(frame.envelope.to));
        if self.cut.contains(&(from, to)) {
            return Ok(());
        }
        let Envelope { epoch, body, .. } = &frame.envelope;
        self.say(|| format!("{from} to {to}: {epoch:?} {body:?}"));
        self.with(to, |run| run.shell.receive(frame))
    }

    /// The disk of a machine stops within its next few changes, if it makes so many.
    pub(super) fn stop_soon(&mut self, index: usize) {
        let disk = &self.machines[index].disk;
        disk.crash_at(disk.store_points() + self.random.below(5));
    }

    /// Does something with a member that runs, and checks what comes of it.
    pub(super) fn with(
        &mut self,
        index: usize,
        act: impl FnOnce(&mut Run),
    ) -> Result<(), Violation> {
        let Some(run) = &mut self.machines[index].run else { return Ok(()) };
        act(run);
        self.after(index)
    }

    // ---- what must be true -----------------------------------------------------------------

    fn after(&mut self, index: usize) -> Result<(), Violation> {
        let machine = &mut self.machines[index];
        // First, because what they say is noted then.
        let frames = machine.run.as_mut().map(|run| run.shell.take_frames()).unwrap_or_default();
        let (is_off, is_full) = (machine.disk.is_off(), machine.is_full);
        let is_failing = machine.is_failing && machine.disk.has_fired();
        // What a sync was to make durable may be lost if it has failed.
        self.has_lost |= is_failing;
        let Some(run) = &mut machine.run else { return Ok(()) };
        if is_failing {
            // A sync that has failed wakes the member.
            run.notice_all();
        }
        let me = run.shell.member().state().me();
        for event in run.shell.take_events() {
            match event {
                Event::Leading(epoch) => {
                    self.led += 1;
                    self.truth.leads(epoch, me)?;
                    for (key, log) in run.shell.member().state().logs().iter() {
                        self.truth.leads_from(key, log.history.start())?;
                    }
                }
                Event::CutRefused(log) => {
                    return Err(Violation(format!("{me:?} would cut visible records of {log:?}")));
                }
                _ => {}
            }
        }
        if let Some(failure) = run.shell.failure() {
            let is_of_disk = |error: &Error| {
                matches!(
                    error,
                    Error::Corrupt(_) | Error::SyncFailed { .. } | Error::Poisoned { .. }
                )
            };
            let rotten =
                self.has_rotten && matches!(failure, Failure::Failed(error) if is_of_disk(error));
            let is_copy = self.has_copy && matches!(failure, Failure::Failed(Error::Config(_)));
            self.troubles += u64::from(is_full || is_failing);
            if rotten || is_off || is_copy || is_full || is_failing {
                // What cannot be read, or a crash in the middle, ends a run.
                self.crash(index, None);
                return Ok(());
            }
            return Err(Violation(format!("{me:?} failed: {failure:?}")));
        }
        if run.is_broken && (is_off || is_full || is_failing || self.has_rotten) {
            self.troubles += u64::from(is_full || is_failing);
            self.crash(index, None);
            return Ok(());
        }
        let room = FLIGHT_MAX.saturating_sub(self.flight.len());
        self.flight.extend(frames.into_iter().take(room));
        self.compare(index)
    }

    /// Compares what readers of a machine see, as far as it was not compared yet.
    fn compare(&mut self, index: usize) -> Result<(), Violation> {
        let Some(run) = &self.machines[index].run else { return Ok(()) };
        let logs = run.shell.member().state().logs();
        if Self::leads(run) && self.trouble == Some(Trouble::Ageing) {
            // By the leader's clock, and not above its high watermark.
            let cores = logs.with_deleted().filter_map(|(key, _)| Some((key, run.core(key)?)));
            for (key, core) in cores {
                self.truth.asks(key, core.log_start().min(core.log().ends().watermark()));
            }
        }
        self.anew += u64::from(!logs.is_whole());
        for (key, log) in logs.iter() {
            if let (LogKey::Partition { .. }, Some(noted)) =
                (key, view::noted_start(run.shell.member(), key))
            {
                self.truth.notes_start(key, noted);
            }
            match key {
                LogKey::Meta => self.cleaned.0 = self.cleaned.0.max(log.history.start()),
                LogKey::Offsets => self.cleaned.1 = self.cleaned.1.max(log.history.start()),
                LogKey::Partition { .. } => {}
            }
            let Some(core) = run.core(key) else {
                // Of what was dropped when `__meta` began anew.
                if log.is_of_before {
                    continue;
                }
                return Err(Violation(format!("{index} does not have {key:?}")));
            };
            let (start, end) = (core.log_start(), core.log().ends().watermark());
            if log.damaged && !self.has_rotten {
                return Err(Violation(format!("{key:?} of {index} is damaged by nothing")));
            }
            let checked = self.checked[index].entry(key).or_default();
            // What the leader has appended may be noticed later.
            let is_known =
                log.end() == core.log_end() || (Self::leads(run) && log.end() < core.log_end());
            if !is_known && !log.damaged {
                let what = format!("{key:?} of {index} ends at {}", core.log_end());
                return Err(Violation(format!("{what}, the member says {}", log.end())));
            }
            let mut from = (*checked).max(start);
            while from < end.min(core.log_end()) {
                // Damage is seen, and nothing else in its stead.
                let Some(records) = read(run, key, from, end) else { break };
                let Some((last, _)) = records.last() else { break };
                from = last + 1;
                for (offset, value) in &records {
                    self.truth.sees(key, *offset, value)?;
                }
            }
            if end < *checked && !self.has_rotten {
                let what = format!("the high watermark of {key:?} of {index} fell to {end}");
                return Err(Violation(format!("{what} from {checked}")));
            }
            *checked = from.max(*checked);
            self.truth.reaches(key, end.min(from));
            let is_asked = start <= self.truth.start(key);
            if !is_asked && matches!(key, LogKey::Partition { .. }) {
                return Err(Violation(format!("{key:?} of {index} begins where nobody asked for")));
            }
        }
        Ok(())
    }

    /// Ends all trouble, and follows the group until it is quiet. Returns whether somebody leads.
    pub(super) fn settle(&mut self) -> Result<bool, Violation> {
        self.cut.clear();
        self.flight.clear();
        for index in 0..self.machines.len() {
            if self.machines[index].is_failing {
                self.crash(index, None);
            }
            self.machines[index].mend();
            self.start(index)?;
            self.scrub(index)?;
            if self.machines[index].run.is_none() && self.rotten_meta == Some(index) {
                // It has found the damage that no opening finds, and its run has ended: it said so.
                let replaced = self.replace_disk(index);
                replaced.map_err(|error| Violation(format!("{index} is new: {error:?}")))?;
            }
            self.start(index)?;
            self.scrub(index)?;
        }
        for round in 0..2 * self.machines.len() {
            let index = round % self.machines.len();
            let promised = self.runs().map(|run| run.shell.member().state().notes().promised().0);
            let epoch = promised.max().unwrap_or(0) + 1;
            self.lead(index, LeaderEpoch(epoch))?;
            self.follow_up()?;
            if self.has_rotten {
                // A log whose deletion was cut off meanwhile was not read before.
                for index in 0..self.machines.len() {
                    self.scrub(index)?;
                }
                self.follow_up()?;
            }
            if self.runs().any(Self::leads) {
                return self.check_end().map(|()| true);
            }
        }
        if !self.has_lost {
            return Err(Violation("no disk has lost anything, and nobody leads".to_owned()));
        }
        let can = self.runs().filter(|run| self.could_promise(run)).count();
        if can > self.machines.len() / 2 {
            return Err(Violation(format!("{can} could promise, and nobody leads")));
        }
        Ok(false)
    }

    /// Delivers what is said, and said again: longer than a leader waits at most before it answers a
    /// question again.
    fn follow_up(&mut self) -> Result<(), Violation> {
        for _ in 0..30 {
            self.flush()?;
            for index in 0..self.machines.len() {
                self.with(index, |run| run.shell.resend())?;
            }
        }
        self.flush()
    }

    /// Whether nothing is missing from what a member has confirmed. It need not have copied yet who the
    /// members are, if another member that is whole can tell it.
    fn could_promise(&self, run: &Run) -> bool {
        let state = run.shell.member().state();
        let whole =
            self.runs().map(|run| run.shell.member().state()).filter(|it| it.could_promise());
        let memberships: Vec<_> = whole.filter_map(|it| it.logs().membership()).collect();
        let is_named = memberships.iter().all(|membership| membership.names(state.me()));
        let is_new = state.logs().membership().is_none() && view::could_lead(run.shell.member());
        state.could_promise() || (is_new && is_named && !memberships.is_empty())
    }

    /// Delivers all frames in order.
    pub(super) fn flush(&mut self) -> Result<(), Violation> {
        for step in 0..QUIET_STEPS {
            if self.flight.is_empty() {
                for index in 0..self.machines.len() {
                    self.with(index, |run| {
                        run.notice_all();
                        for key in run.keys() {
                            Self::sync_log(run, key);
                        }
                    })?;
                }
                if self.flight.is_empty() {
                    return Ok(());
                }
            }
            let frame = self.flight.remove(0);
            self.arrive(&frame)?;
            assert!(step + 1 < QUIET_STEPS, "the group does not become quiet");
        }
        Ok(())
    }

    /// The leader has everything that was ever visible, and so have those who follow it.
    fn check_end(&mut self) -> Result<(), Violation> {
        let leader = self.runs().max_by_key(|run| run.shell.member().role().leads());
        let leader = leader.map(|run| run.shell.member().state().me());
        for (index, machine) in self.machines.iter().enumerate() {
            let Some(run) = &machine.run else { continue };
            let me = run.shell.member().state().me();
            if leader != Some(me)
                && run.shell.member().role().follows().map(|it| it.leader) != leader
            {
                continue;
            }
            let member = run.shell.member().state();
            for (key, log) in member.logs().iter() {
                Self::check_whole(&mut self.truth, index, key, log, run)?;
            }
            check_state(run).map_err(|what| Violation(format!("{index}: {what}")))?;
        }
        let followers = self.runs().filter(|run| run.shell.member().role().follows().is_some());
        let leader = self.runs().find(|run| Some(run.shell.member().state().me()) == leader);
        let Some(leader) = leader else { return Ok(()) };
        for follower in followers {
            for (ours, theirs) in state(leader).iter().zip(&state(follower)) {
                if ours != theirs {
                    return Err(Violation(format!("the leader has {ours}, another has {theirs}")));
                }
            }
        }
        Ok(())
    }

    fn check_whole(
        truth: &mut Truth,
        index: usize,
        key: LogKey,
        log: &Log,
        run: &Run,
    ) -> Result<(), Violation> {
        if log.watermark < truth.end(key) {
            let (has, end) = (log.watermark, truth.end(key));
            return Err(Violation(format!("{key:?} of {index} has {has}, {end} was visible")));
        }
        let Some(core) = run.core(key) else {
            return Err(Violation(format!("{index} does not have {key:?}")));
        };
        let start = core.log_start();
        let (mut found, mut from) = (Vec::new(), start);
        while from < truth.end(key) {
            let records = read(run, key, from, truth.end(key));
            let Some(records) = records else {
                return Err(Violation(format!("{key:?} of {index} cannot be read at {from}")));
            };
            for (offset, value) in &records {
                truth.sees(key, *offset, value)?;
                found.push(*offset);
            }
            let Some((last, _)) = records.last() else { break };
            from = last + 1;
        }
        let lost: Vec<u64> =
            truth.offsets(key, start).into_iter().filter(|at| !found.contains(at)).collect();
        if lost.is_empty() {
            Ok(())
        } else {
            Err(Violation(format!("{key:?} of {index} lacks {lost:?}")))
        }
    }
}

/// The records from an offset on that readers see, with their contents, below `end`. `None` if they
/// cannot be read.
fn read(run: &Run, key: LogKey, from: u64, end: u64) -> Option<Vec<(u64, Vec<u8>)>> {
    if let Some(reader) = run.reader(key) {
        let batch = reader.read(from, READ_BYTES).ok()?;
        let of = |message: MessageRef<'_>| {
            (message.offset(), message.value().unwrap_or_default().to_vec())
        };
        return Some(batch.iter().map(of).collect());
    }
    let core = run.core(key)?;
    let Ok(Fed::Batches(portions)) = Replica::of(&core).read(from, READ_BYTES) else { return None };
    let mut records = Vec::new();
    for portion in &portions {
        let mut rest = portion.bytes();
        while let Some(view) = BatchView::trusted(rest).filter(|_| !rest.is_empty()) {
            for record in view.records().filter(|it| (from..end).contains(&it.offset)) {
                let parts = [record.key.unwrap_or_default(), record.value.unwrap_or_default()];
                records.push((record.offset, parts.concat()));
            }
            rest = &rest[view.bytes().len()..];
        }
    }
    Some(records)
}

/// The topics that can be used are those of the catalog.
fn check_state(run: &Run) -> Result<(), String> {
    let topics = run.broker.run().live().all();
    let shown: BTreeMap<TopicId, u32> =
        topics.iter().map(|topic| (topic.id, topic.config.partitions)).collect();
    let known: BTreeMap<TopicId, (u32, Stage)> = run.broker.run().logs().catalog().read(|it| {
        let topics = it.topics.iter();
        topics.map(|(id, (entry, stage))| (*id, (entry.config.partitions, *stage))).collect()
    });
    for (id, (partitions, stage)) in &known {
        if stage.is_live() && shown.get(id) != Some(partitions) {
            return Err(format!("{id:?} is {stage:?} with {partitions}, not {:?}", shown.get(id)));
        }
    }
    match shown.keys().find(|id| !known.contains_key(id)) {
        Some(id) => Err(format!("{id:?} can be used, and the catalog does not have it")),
        None => Ok(()),
    }
}

/// What the states of the internal logs have.
fn state(run: &Run) -> Vec<String> {
    let logs = run.broker.run().logs();
    let catalog = logs.catalog().read(|it| {
        let mut entries: Vec<_> = it.snapshot().iter().map(|it| format!("{it:?}")).collect();
        entries.sort();
        entries
    });
    let offsets = logs.coordinator().offsets().log().read(|it| {
        let mut entries: Vec<_> = it.snapshot().iter().map(|it| format!("{it:?}")).collect();
        entries.sort();
        entries
    });
    catalog.into_iter().chain(offsets).collect()
}

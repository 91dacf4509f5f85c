//! Opens a log: reads its files, lets [`recovery::decide`](super::recovery::decide) decide what
//! they mean, and acts on the decision.
//!
//! The passes continue the two of [`inventory`](super::inventory), which only read:
//! 3. Decide (pure).
//! 4. Build the segment list. Resume the last segment if it was closed cleanly, or if nothing
//!    follows its end (see [`tail`]). No byte of any segment is changed.
//! 5. Remove leftovers: at once, or later if the caller has to check the whole state first. No file
//!    is removed because of damage.
//!
//! A second crash in any pass leaves the same files, or the same without some leftovers: opening is
//! idempotent.

use std::sync::Arc;

use serde::Serialize;

use super::backlog::Unfinished;
use super::ends::Ends;
use super::inventory::{Found, Inventory, LostFile, Reader};
pub(crate) use super::known::Known;
use super::leftovers::Leftovers;
use super::producers::ProducerTable;
use super::recovery::{Action, Decision, Facts, decide, proof_of_point};
use super::segment::{Sealed, Segment, SegmentFile};
use super::{Checkpoint, Log, LogEnv, LogIdentity, LogOptions, Parts};
use crate::clock::Moment;
use crate::config::RecoveryPolicy;
use crate::error::{Corruption, CorruptionKind, Result};
use crate::format::SparseIndex;
use crate::record::TopicPartition;
use crate::rules::Rule;

#[cfg(test)]
mod mutant;
mod tail;

use self::tail::Tail;

/// What was found and done in one partition when the broker was opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PartitionRecovery {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number.
    pub partition: u32,
    /// The log end offset after the opening.
    pub end_offset: u64,
    /// Bytes of incomplete records, and of records after them, that were cut off the end of the
    /// log. None of them is known to have been on stable storage.
    pub cut_bytes: u64,
    /// Damage in records that were on stable storage. Nothing was removed because of it.
    pub corrupt: Vec<Corruption>,
    /// Whether whole batches were cut off, because one before them was not whole. If the machine was not
    /// restarted, a crash does not leave that: batches are appended one after the other.
    #[serde(skip)]
    pub(crate) cuts_batches: bool,
}

impl PartitionRecovery {
    fn of(
        identity: &LogIdentity,
        inventory: &Inventory,
        known: &Known,
        decision: &Decision,
    ) -> Self {
        let origin = &identity.origin;
        let corrupt = decision.damage.iter().map(|damage| Corruption {
            partition: Some(TopicPartition::clone(origin)),
            file: inventory.path(damage.segment),
            position: damage.position,
            offsets: Some(damage.offsets.clone()),
            kind: damage.kind.clone(),
        });
        // What follows the end of a clean close was cut by an earlier recovery, which has
        // reported it.
        let was_cut_before = ends_as_closed(known, decision);
        Self {
            topic: Arc::clone(&origin.topic),
            partition: origin.partition,
            end_offset: decision.end_offset,
            cut_bytes: if was_cut_before { 0 } else { decision.cut_bytes },
            corrupt: corrupt.collect(),
            cuts_batches: !was_cut_before && decision.cuts_batches,
        }
    }
}

/// Whether the log ends where a clean close says that it did: then nothing was appended since the
/// previous recovery.
fn ends_as_closed(known: &Known, decision: &Decision) -> bool {
    let point = known.checkpoint.as_ref().filter(|_| known.clean);
    point.is_some_and(|point| point.end_offset == decision.end_offset)
}

/// Opens a log.
///
/// # Errors
///
/// The error of the disk; damage that the caller does not accept (see [`Known`]).
pub(crate) fn open_log(
    env: &Arc<LogEnv>,
    identity: LogIdentity,
    options: LogOptions,
    known: &Known,
) -> Result<(Log, PartitionRecovery)> {
    let reader = Reader { env, identity: &identity, known };
    let inventory = reader.read()?;
    if known.needs_all {
        inventory.refuse_shortened(&reader)?;
    }
    let facts: Vec<Facts> = inventory.found.iter().map(Found::facts).collect();
    let point = known.checkpoint.as_ref();
    let proof = |point: &Checkpoint| proof_of_point(&facts, point.segment, point.end_offset);
    let proved = point.map_or(0, proof).max(known.proved);
    let decision = decide(&facts, &inventory.lost_facts(), proved, known.start());
    let report = PartitionRecovery::of(&identity, &inventory, known, &decision);
    if known.policy == RecoveryPolicy::Strict
        && (report.cut_bytes > 0 || !report.corrupt.is_empty())
    {
        let kind = CorruptionKind::Malformed("the tail");
        let torn = || reader.corruption(identity.dir.clone(), 0, kind);
        return Err(report.corrupt.first().cloned().unwrap_or_else(torn).into());
    }
    let is_lost = decision.last_kept().is_none();
    let is_needed = |lost: &&LostFile| {
        let held_data = lost.facts.bytes > 0 || lost.facts.is_short();
        known.needs_all && (held_data || decision.end_offset == 0)
    };
    let none_is_left = || inventory.lost.first().filter(|_| known.read_only && is_lost);
    if let Some(lost) = inventory.lost.iter().find(is_needed).or_else(none_is_left) {
        let kind = lost.facts.kind.clone();
        return Err(reader.corruption(lost.path.clone(), 0, kind).into());
    }
    #[cfg(test)]
    let (inventory, known) = mutant::without_new_segment(inventory, known, &decision);
    #[cfg(test)]
    let known = &known;
    let parts = Parts::empty(env, identity, options);
    let mut parts = Assembly { parts, known, decision: &decision, durable: 0 }.run(&inventory)?;
    if is_lost && !known.read_only {
        // New records get offsets above everything that the log has lost.
        parts.ends.advance_durable(parts.ends.log_end());
    }
    parts.leftovers = Some(Leftovers::of(inventory, &decision));
    let mut log = Log::new(parts);
    if !known.needs_all && !known.read_only {
        log.finish_opening()?;
    }
    Ok((log, report))
}

/// Composes a log from the findings.
struct Assembly<'a> {
    parts: Parts,
    known: &'a Known,
    decision: &'a Decision,
    /// Everything below is known to be on stable storage.
    durable: u64,
}

impl Assembly<'_> {
    fn run(mut self, inventory: &Inventory) -> Result<Parts> {
        let found = &inventory.found;
        let (known, decision) = (self.known, self.decision);
        let closed = tail::closed(known, decision, inventory);
        let ends_as_closed = ends_as_closed(known, decision);
        let log = &mut self.parts;
        let numbers = found.iter().map(|found| found.header.number);
        let numbers = numbers.chain(inventory.lost.iter().map(|lost| lost.facts.number));
        let next_number = numbers.max().map_or(0, |number| number.saturating_add(1));
        let generation = found.iter().map(|found| found.header.generation).max().unwrap_or(0);
        log.factory.set_found(next_number, generation);
        let log_end = self.decision.end_offset;
        // After a restart of the machine, everything that was read came from the disk. Otherwise
        // only what is proved is known to be there.
        self.durable = if !self.known.same_boot || closed.is_some() {
            log_end
        } else {
            self.decision.durable.min(log_end)
        };
        for (found, action) in found.iter().zip(&self.decision.actions) {
            let segment = self.add(found, *action);
            self.parts.segments.extend(segment);
        }
        let log = &mut self.parts;
        let first_base = log.segments.first().map_or(log_end, |segment| segment.base_offset);
        // Not the base of the first existing segment: a reader gets an error for what is missing
        // before it.
        let gaps = self.decision.damage.iter().filter(|damage| !damage.offsets.is_empty());
        let first_gap = gaps.map(|damage| damage.offsets.start).min().unwrap_or(first_base);
        let start = self.known.start().unwrap_or(first_base.min(first_gap));
        log.ends = Ends::found(start, self.durable, log_end);
        if closed.is_none() && !ends_as_closed {
            // A new incarnation begins only if the end of the log is not known to be whole.
            log.epochs.incarnation = (log.factory.env().random)();
            log.epochs.is_new_incarnation = true;
        }
        if let Some(tail) = closed {
            self.resume(&tail)?;
        } else if let Some(tail) = tail::recovered(known, decision, inventory) {
            // DURABILITY: an earlier run that cut off segments after this one may have ended before
            // their removal was durable. If they existed again after a crash, they would contradict
            // what is appended here.
            let synced = Rule::TailNames.keep(|| self.parts.factory.sync_dir());
            // If it fails, the log opens all the same, and the next append begins a new segment.
            let _ = synced.and_then(|()| self.resume(&tail));
        }
        Ok(self.parts)
    }

    /// Makes the last segment active again. A failure changes nothing.
    fn resume(&mut self, tail: &Tail<'_>) -> Result<()> {
        let log = &mut self.parts;
        let Some(last) = log.segments.last().filter(|_| !self.known.read_only) else {
            return Ok(());
        };
        let mut active = tail.reopen(last, &log.factory)?;
        if log.backlog.is_unproved(last) {
            // DURABILITY: no sync has covered it. If it were rolled before the next append, it
            // would otherwise get a footer, which is taken as proof that its data is on the disk.
            active.set_unsynced();
        }
        let sealed = log.backlog.take_last();
        if let Some(sealed) = sealed.filter(|_| tail.keeps_index()) {
            active.set_index(sealed.index, sealed.index_is_whole);
        }
        log.segments.pop();
        log.segments.push(Arc::clone(active.segment()));
        log.appender.set_active(active);
        Ok(())
    }

    /// Adds a segment to the log, with its producers, epochs and incarnation.
    fn add(&mut self, found: &Found, action: Action) -> Option<Arc<Segment>> {
        let Action::Keep { tail_start, data_end, next_offset, times } = action else {
            return None;
        };
        let log = &mut self.parts;
        // A file that is only kept for an empty log has no offsets of its own.
        let base_offset = found.base_offset().unwrap_or(next_offset).min(next_offset);
        let origin = &log.factory.identity().origin;
        let file = SegmentFile::new(origin, &found.path, &found.header, base_offset);
        let times = times.map(|times| times.found(self.known.now));
        let sealed = Sealed { data_end, next_offset, times };
        let claim = log.factory.claim(found.bytes());
        let segment = Segment::found(log.factory.env(), file, sealed, claim);
        if let Some(footer) = &found.footer {
            log.producers = ProducerTable::from_states(footer.producers.iter().copied());
            log.epochs.leader_epoch = footer.leader_epoch;
            log.epochs.incarnation = footer.incarnation;
            if let Some(horizon) = footer.next_horizon {
                segment.note_horizon(horizon);
            }
            return Some(segment);
        }
        self.adopt(found, &segment, tail_start, data_end);
        Some(segment)
    }

    /// Takes over a segment that has no footer yet.
    fn adopt(&mut self, found: &Found, segment: &Arc<Segment>, tail_start: u32, data_end: u32) {
        let log = &mut self.parts;
        if let Some(opening) = found.opening() {
            log.producers = ProducerTable::from_states(opening.producers.iter().copied());
            log.epochs.leader_epoch = opening.leader_epoch;
            log.epochs.incarnation = opening.incarnation;
        }
        let point = self.known.checkpoint.as_ref().filter(|_| found.from_point);
        if let Some(point) = point {
            log.producers = ProducerTable::from_states(point.producer_states());
            if point.is_of_one_run {
                // It is not known when they were used last.
                log.producers.touch(Moment { wall: self.known.now, run: self.known.now });
            }
        }
        let scan = found.scan.as_ref();
        let stretches = scan.map(|scan| scan.stretches.iter().zip(&scan.producers));
        let (mut is_whole, mut tail_start) = (point.is_none(), tail_start);
        for (stretch, producers) in stretches.into_iter().flatten() {
            if stretch.end <= data_end {
                log.producers.merge(producers);
            } else {
                // The index knows batches that are cut off.
                is_whole = false;
            }
        }
        let mut index = SparseIndex::new(segment.base_offset);
        if let Some(scan) = scan {
            tail_start = tail_start.max(scan.index.floor(self.durable));
            if is_whole || point.is_some() {
                index = scan.index.clone();
            }
        }
        // Durable records prove the opening batch before them. Without any, it is proved only if it
        // came from the disk or was synced by a clean close.
        let is_whole_on_disk = !self.known.same_boot || self.known.clean;
        let is_durable = segment.next_offset().is_some_and(|next| {
            next <= self.durable && (segment.base_offset < next || is_whole_on_disk)
        });
        let unproved = (!is_durable).then_some(tail_start..data_end);
        let unfinished = Unfinished {
            segment: Arc::clone(segment),
            is_found: true,
            index,
            index_is_whole: is_whole,
            producers: log.producers.states(),
            leader_epoch: log.epochs.leader_epoch,
            incarnation: log.epochs.incarnation,
            sealed_to: 0,
        };
        log.backlog.add_found(unfinished, unproved);
    }
}

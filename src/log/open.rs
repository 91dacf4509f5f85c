//! Opening a log: read what is there, let [`recovery::decide`](super::recovery::decide) say what
//! it means, then act.
//!
//! Numbered passes, after the two of [`inventory`](super::inventory) that only read:
//! 3. Decide (pure).
//! 4. Build the segment list; resume the last segment if it was closed cleanly, or if nothing lies
//!    behind its end (see [`tail`]). No byte of any segment is changed.
//! 5. Remove leftovers, at once or when the whole state is believed. No file is removed because of
//!    damage.
//!
//! A second crash in any pass leaves the same files, or the same less some leftovers: opening is
//! idempotent.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::backlog::Unfinished;
use super::ends::Ends;
use super::inventory::{Found, Inventory, LostFile, Reader};
pub(crate) use super::known::Known;
use super::producers::ProducerTable;
use super::recovery::{Facts, Fate, Verdict, decide};
use super::segment::{Sealed, Segment, SegmentList};
use super::{Log, LogEnv, LogIdentity, LogOptions, from_tuple};
use crate::clock::Moment;
use crate::config::RecoveryPolicy;
use crate::error::{Corruption, CorruptionKind, Error, Result};
use crate::format::{KEEPS_SPACE, Rewrite, SparseIndex};
use crate::record::TopicPartition;
use crate::rules::Rule;

#[cfg(test)]
mod mutant;
mod tail;

/// What recovery did to one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PartitionRecovery {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number.
    pub partition: u32,
    /// The log end offset after recovery.
    pub end_offset: u64,
    /// Bytes of torn or unproved batches that were cut off the end.
    pub cut_bytes: u64,
    /// Damage in what had been durable: reported, not cut.
    pub corrupt: Vec<Corruption>,
}

impl PartitionRecovery {
    fn of(identity: &LogIdentity, inventory: &Inventory, known: &Known, verdict: &Verdict) -> Self {
        let origin = &identity.origin;
        let corrupt = verdict.damage.iter().map(|damage| Corruption {
            partition: Some(TopicPartition::clone(origin)),
            file: inventory.path(damage.segment),
            position: damage.position,
            offsets: Some(damage.offsets.clone()),
            kind: damage.kind.clone(),
        });
        // What lies behind the end of a clean close was cut by an earlier recovery, which has
        // reported it.
        let was_cut_before = ends_as_closed(known, verdict);
        Self {
            topic: Arc::clone(&origin.topic),
            partition: origin.partition,
            end_offset: verdict.end_offset,
            cut_bytes: if was_cut_before { 0 } else { verdict.cut_bytes },
            corrupt: corrupt.collect(),
        }
    }
}

/// Whether the log ends where a clean close says that it did: nothing was appended since the
/// recovery before.
fn ends_as_closed(known: &Known, verdict: &Verdict) -> bool {
    let point = known.checkpoint.as_ref().filter(|_| known.clean);
    point.is_some_and(|point| point.end_offset == verdict.end_offset)
}

impl Log {
    pub(crate) fn open(
        env: &Arc<LogEnv>,
        identity: LogIdentity,
        options: LogOptions,
        known: &Known,
    ) -> Result<(Self, PartitionRecovery)> {
        let reader = Reader { env, identity: &identity, known };
        let inventory = reader.read()?;
        if known.needs_all {
            inventory.refuse_shortened(&reader)?;
        }
        let facts: Vec<Facts> = inventory.found.iter().map(Found::facts).collect();
        let point = known.checkpoint.as_ref();
        let proved = point.map_or(0, |point| point.end_offset).max(known.proved);
        let verdict = decide(&facts, &inventory.lost_facts(), proved, known.start());
        let report = PartitionRecovery::of(&identity, &inventory, known, &verdict);
        if known.policy == RecoveryPolicy::Strict
            && (report.cut_bytes > 0 || !report.corrupt.is_empty())
        {
            let kind = CorruptionKind::Malformed("the tail");
            let torn = || reader.corruption(identity.dir.clone(), 0, kind);
            return Err(report.corrupt.first().cloned().unwrap_or_else(torn).into());
        }
        let is_lost = verdict.last_kept().is_none();
        let is_needed = |lost: &&LostFile| {
            let held_data = lost.facts.bytes > 0 || lost.facts.is_short();
            known.needs_all && (held_data || verdict.end_offset == 0)
        };
        let none_is_left = || inventory.lost.first().filter(|_| known.read_only && is_lost);
        if let Some(lost) = inventory.lost.iter().find(is_needed).or_else(none_is_left) {
            let kind = lost.facts.kind.clone();
            return Err(reader.corruption(lost.path.clone(), 0, kind).into());
        }
        #[cfg(test)]
        let (inventory, known) = mutant::without_new_segment(inventory, known, &verdict);
        #[cfg(test)]
        let known = &known;
        let mut log = Self::empty(env, identity, options);
        Assembly { log: &mut log, known, verdict: &verdict, durable: 0 }.run(&inventory)?;
        if is_lost && !known.read_only {
            // It goes on behind what it has lost.
            log.ends.advance_durable(log.ends.log_end());
        }
        log.leftovers = Some(Leftovers::of(inventory, &verdict));
        if !known.needs_all && !known.read_only {
            log.finish_opening()?;
        }
        Ok((log, report))
    }

    /// Does what an opening has found to do on the disk; once, and before anything is appended.
    pub(crate) fn finish_opening(&mut self) -> Result<()> {
        let Some(leftovers) = self.leftovers.take() else { return Ok(()) };
        self.factory.set_reserve_open(true);
        let finished = self.remove_leftovers(&leftovers).and_then(|()| {
            // A log is never without a segment.
            if self.segments.last().is_none() { self.roll_for(0) } else { Ok(()) }
        });
        self.factory.set_reserve_open(false);
        finished
    }

    /// Removes what the verdict says does not count: prepared segments that were never used, and
    /// whole segments behind a torn tail, once a successor says durably that they are cut off.
    fn remove_leftovers(&mut self, leftovers: &Leftovers) -> Result<()> {
        let Leftovers { temporary, unused, spare, cuts_segments } = leftovers;
        let mut unused = &unused[..];
        if *cuts_segments {
            self.factory.begin_generation();
            while let Err(error) = self.prepare_truncating() {
                // Without space the newest goes first, and for good: what is left then is a torn
                // tail with fewer segments behind it, of which the next opening says the same.
                let (Error::StorageFull { .. }, Some((newest, rest))) =
                    (&error, unused.split_last())
                else {
                    return Err(error);
                };
                self.remove_leftover(newest, spare)?;
                self.factory.sync_dir()?;
                unused = rest;
                if unused.is_empty() {
                    // None is left of which a successor had to say that it is cut off.
                    break;
                }
            }
        }
        let mut removed = false;
        for path in temporary.iter().chain(unused) {
            removed |= self.remove_leftover(path, spare)?;
        }
        if removed {
            // DURABILITY: what is cut off is gone for good before the log goes on. The making of
            // the next segment syncs the directory too, and a truncating one knows what it cut;
            // with this, neither has to be argued.
            self.factory.sync_dir()?;
        }
        Ok(())
    }

    /// Makes the segment that says durably that all behind the end is cut off.
    fn prepare_truncating(&mut self) -> Result<()> {
        let rewrite = Rule::CutSaysSo.holds().then_some(Rewrite::Truncates(self.ends.log_end()));
        let new = self.factory.new_segment(0, rewrite)?;
        let made = self.factory.make(new)?;
        self.appender.set_prepared(made);
        Ok(())
    }

    /// Removes a file that does not count, or makes a spare of it. False if it is gone already.
    fn remove_leftover(&mut self, path: &Path, spare: &[PathBuf]) -> Result<bool> {
        if spare.iter().any(|it| it == path) && self.factory.take_back_file(path)? {
            return Ok(true);
        }
        match self.env().disk.remove_file(path) {
            // The truncating segment was made under the same temporary name.
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(false),
            result => result.map(|()| true).map_err(|source| Error::io("remove", path, source)),
        }
    }
}

/// Files that do not count.
#[derive(Debug)]
pub(super) struct Leftovers {
    temporary: Vec<PathBuf>,
    unused: Vec<PathBuf>,
    /// Those of them that are of the reserve.
    spare: Vec<PathBuf>,
    /// Whether some of them were cut off, so that their successor must say so.
    cuts_segments: bool,
}

impl Leftovers {
    fn of(inventory: Inventory, verdict: &Verdict) -> Self {
        let fates = inventory.found.into_iter().zip(&verdict.fates);
        let unused = fates.filter(|(_, fate)| **fate == Fate::Remove).map(|(found, _)| found);
        let unused: Vec<_> = unused.collect();
        let is_spare = |found: &&Found| found.header.compatible & KEEPS_SPACE != 0;
        let spare = unused.iter().filter(is_spare).map(|found| found.path.clone()).collect();
        Self {
            unused: unused.into_iter().map(|found| found.path).collect(),
            spare,
            temporary: inventory.temporary,
            cuts_segments: verdict.cuts_segments,
        }
    }
}

/// Puts a log together from what was found.
struct Assembly<'a> {
    log: &'a mut Log,
    known: &'a Known,
    verdict: &'a Verdict,
    /// Everything below is known to be on stable storage.
    durable: u64,
}

impl Assembly<'_> {
    fn run(&mut self, inventory: &Inventory) -> Result<()> {
        let found = &inventory.found;
        let closed = self.closed_tail(inventory);
        let ends_as_closed = ends_as_closed(self.known, self.verdict);
        let log = &mut *self.log;
        let numbers = found.iter().map(|found| found.header.number);
        let numbers = numbers.chain(inventory.lost.iter().map(|lost| lost.facts.number));
        let next_number = numbers.max().map_or(0, |number| number.saturating_add(1));
        let generation = found.iter().map(|found| found.header.generation).max().unwrap_or(0);
        log.factory.set_found(next_number, generation);
        let log_end = self.verdict.end_offset;
        // What was read after a restart of the machine came from the disk; otherwise only what is
        // proved is known to be there.
        self.durable = if !self.known.same_boot || closed.is_some() {
            log_end
        } else {
            self.verdict.durable.min(log_end)
        };
        let mut segments = Vec::new();
        for (found, fate) in found.iter().zip(&self.verdict.fates) {
            segments.extend(self.add(found, *fate));
        }
        let log = &mut *self.log;
        let first_base = segments.first().map_or(log_end, |segment| segment.base_offset);
        // Not the first segment that is there: what is missing before it is damage to who reads there.
        let gaps = self.verdict.damage.iter().filter(|damage| !damage.offsets.is_empty());
        let first_gap = gaps.map(|damage| damage.offsets.start).min().unwrap_or(first_base);
        let start = self.known.start().unwrap_or(first_base.min(first_gap));
        log.ends = Ends::found(start, self.durable, log_end);
        if closed.is_none() && !ends_as_closed {
            // Only an end that nobody has seen to be whole begins a new incarnation.
            log.incarnation = (log.env().random)();
            log.is_new_incarnation = true;
        }
        if let Some(tail) = closed {
            self.resume(&tail, &mut segments)?;
        } else if let Some(tail) = self.recovered_tail(inventory) {
            // What stands in the way of it is no reason not to open: the log goes on in a new
            // segment.
            let _ = self.resume(&tail, &mut segments);
        }
        self.log.segments = Arc::new(SegmentList::new(segments));
        Ok(())
    }

    /// A segment of the log, with what it says of producers, epochs and incarnations.
    fn add(&mut self, found: &Found, fate: Fate) -> Option<Arc<Segment>> {
        let Fate::Keep { tail_start, data_end, next_offset, times } = fate else {
            return None;
        };
        let log = &mut *self.log;
        let segment = Segment::found(
            log.env(),
            &log.identity().origin,
            &found.path,
            &found.header,
            // A file that only stands for an empty log has no offsets of its own.
            found.base_offset().unwrap_or(next_offset).min(next_offset),
            Sealed { data_end, next_offset, times: times.map(|times| times.found(self.known.now)) },
            log.factory.claim(found.bytes()),
        );
        if let Some(footer) = &found.footer {
            log.producers = ProducerTable::from_states(footer.producers.iter().copied());
            log.leader_epoch = footer.leader_epoch;
            log.incarnation = footer.incarnation;
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
        let log = &mut *self.log;
        if let Some(opening) = found.opening() {
            log.producers = ProducerTable::from_states(opening.producers.iter().copied());
            log.leader_epoch = opening.leader_epoch;
            log.incarnation = opening.incarnation;
        }
        let point = self.known.checkpoint.as_ref().filter(|_| found.from_point);
        if let Some(point) = point {
            log.producers = ProducerTable::from_states(point.producers.iter().map(from_tuple));
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
        // Durable records prove the opening batch before them; without any nothing does, unless
        // it came from the disk or was synced by a clean close.
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
            leader_epoch: log.leader_epoch,
            incarnation: log.incarnation,
        };
        log.backlog.add_found(unfinished, unproved);
    }
}

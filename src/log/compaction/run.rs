//! One compaction of a log, in steps.
//!
//! It makes passes until no segment has a superseded record:
//! 1. *Gather*: read the segments that may have superseded records, and note the latest offset of
//!    each key, until the end of the log or until the memory for keys is full.
//! 2. *Rewrite*: group by group from the log start on, write the records of the inputs that remain
//!    into one new segment, replace the inputs by it, and unlink them. A group of which all records
//!    remain is not rewritten.
//!
//! Each step reads at most [`STEP_BYTES`](super::inputs::STEP_BYTES), or makes one file durable.
//! Between two steps a compaction holds only memory and one temporary file, and may be dropped.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Tally;
use super::candidates::{Candidates, data_bytes, input};
use super::inputs::{Read, ReadPosition, heritage_of, read_step};
use super::keys::{Full, KeyMap, Latest};
use super::output::{Output, Target};
use super::plan::{self, Input};
use super::sieve::{Effect, Rules, Sieve};
use super::spare::SPARE_BYTES;
use crate::clock::Moment;
use crate::error::{CorruptionKind, Error, Result};
use crate::format::{BatchView, Footer, RecordView, Replacement, SegmentHeader};
use crate::log::segment::Segment;
use crate::log::{Log, LogEnv, LogIdentity};

/// LIMIT: what a record takes in a new segment beside its key, value and headers, if it is alone in
/// its batch: the batch's header, its own flags, lengths and deltas, padding.
const RECORD_OVERHEAD_BYTES: u64 = 128;

/// LIMIT: what a spare has beside the records of several inputs: the header, the opening batch, and
/// the footer with its index.
const SPARE_OVERHEAD_BYTES: u64 = 256 << 10;

/// Access to a log for the moments in which its lists change.
pub(crate) trait LogAccess {
    fn with_log<R>(&self, change: impl FnOnce(&mut Log) -> R) -> R;

    /// Unlinks the files of removed segments. A failed unlink is tried again later.
    fn remove_files(&self, segments: Vec<Arc<Segment>>);
}

/// The parameters of a compaction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) key_memory_bytes: usize,
    pub(crate) segment_bytes: u64,
    /// The time of retention in milliseconds, and the delete horizon of a tombstone that is met
    /// now.
    pub(crate) now: u64,
    pub(crate) horizon: u64,
    /// Segments that end above it are left alone.
    pub(crate) limit: u64,
}

/// Whether there is more to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    More,
    Done,
    /// It has ended before all inputs were read: retention has removed one meanwhile. The rest is
    /// for another compaction.
    CutShort,
}

pub(crate) struct Compaction {
    env: Arc<LogEnv>,
    identity: LogIdentity,
    terms: Terms,
    /// The sealed segments with footers, except the last segment, from the log start on.
    inputs: Vec<Arc<Segment>>,
    keys: KeyMap,
    sieve: Sieve,
    stage: Stage,
    /// Up to here the log is clean, or gathered in this pass.
    from: u64,
    tally: Tally,
    buffer: Vec<u8>,
}

enum Stage {
    Gather(Gather),
    Rewrite(Rewrite),
    Done,
    CutShort,
}

struct Gather {
    at: ReadPosition,
    /// How much can remain of each input, at most.
    bytes_max: Vec<u64>,
    full_at: Option<u64>,
}

struct Rewrite {
    /// The lengths of the remaining groups; the first one is in work.
    groups: VecDeque<usize>,
    /// The first input of the group at work.
    first: usize,
    at: ReadPosition,
    /// How much can remain of each input of the pass, at most.
    bytes_max: Vec<u64>,
    /// Whether the group in work is written into the spare file for a full disk.
    is_on_spare: bool,
    /// `None` while it is not known whether the group loses any record.
    output: Option<Box<Output>>,
    /// What the group in work adds to the tally, if it is rewritten.
    tally: Tally,
}

/// Replaces segments by a new one, for readers. Returns the replaced ones.
fn replace(log: &mut Log, new: &Arc<Segment>) -> Vec<Arc<Segment>> {
    let replaced = log.segments().replace(new);
    log.backlog_mut().remove_replaced(&replaced);
    replaced
}

impl Compaction {
    /// Begins a compaction of all segments that can be compacted now; `None` if there is none.
    pub(crate) fn begin(log: &Log, terms: Terms) -> Option<Self> {
        let inputs = Candidates::of(log, terms.limit).into_segments();
        let start = inputs.first()?.base_offset;
        let rules = Rules { pass_end: 0, now: terms.now, horizon: terms.horizon };
        let env = Arc::clone(log.env());
        let mut compaction = Self {
            identity: log.factory().identity().clone(),
            terms,
            inputs,
            keys: KeyMap::new(terms.key_memory_bytes, (env.random)()),
            env,
            sieve: Sieve::new(rules),
            stage: Stage::Done,
            from: 0,
            tally: Tally::default(),
            buffer: Vec::new(),
        };
        compaction.from = plan::survey(compaction.facts(), start).clean_end;
        compaction.begin_pass();
        Some(compaction)
    }

    /// What was done so far.
    pub(crate) fn tally(&self) -> Tally {
        self.tally
    }

    /// The end of what it compacts.
    pub(crate) fn end(&self) -> u64 {
        self.inputs.last().and_then(|last| last.next_offset()).unwrap_or(0)
    }

    fn facts(&self) -> Vec<Input> {
        self.inputs.iter().map(|segment| input(segment)).collect()
    }

    /// Does one step.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if an input is damaged: it is not rewritten, because its bytes are
    /// evidence. [`Error::StorageFull`] and [`Error::Io`]: complete groups stay replaced, and the
    /// others are unchanged. After an error the compaction has ended.
    pub(crate) fn step(&mut self, log: &impl LogAccess) -> Result<Progress> {
        let stepped = match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Gather(gather) => self.gather(gather),
            Stage::Rewrite(rewrite) => self.rewrite_anyway(rewrite, log),
            Stage::Done | Stage::CutShort => Ok(Stage::Done),
        };
        match stepped {
            Ok(Stage::Done) => Ok(Progress::Done),
            Ok(Stage::CutShort) => Ok(Progress::CutShort),
            Ok(stage) => {
                self.stage = stage;
                Ok(Progress::More)
            }
            Err(_) if log.with_log(|log| self.has_lost_inputs(log)) => Ok(Progress::CutShort),
            Err(error) => Err(error),
        }
    }

    fn has_lost_inputs(&self, log: &Log) -> bool {
        self.inputs.iter().any(|input| !log.segments().contains(input))
    }

    // ---- gathering keys --------------------------------------------------------------------------

    fn begin_pass(&mut self) {
        let first = self.inputs.iter().position(|segment| {
            segment.next_offset().is_some_and(|next| next > self.from) || !segment.is_clean
        });
        let first = first.unwrap_or(self.inputs.len());
        let bytes_max = self.inputs.iter().map(|segment| data_bytes(segment)).collect();
        self.keys = KeyMap::new(self.terms.key_memory_bytes, (self.env.random)());
        self.tally.passes = self.tally.passes.saturating_add(1);
        let mut gather = Gather { at: self.start_of(first), bytes_max, full_at: None };
        for bytes in gather.bytes_max.iter_mut().skip(first) {
            // Counted as the records are gathered.
            *bytes = SegmentHeader::SIZE as u64 + RECORD_OVERHEAD_BYTES;
        }
        self.stage = Stage::Gather(gather);
    }

    fn start_of(&self, input: usize) -> ReadPosition {
        let expected = self.inputs.get(input).map_or(0, |segment| segment.base_offset);
        ReadPosition { input, position: SegmentHeader::SIZE, expected }
    }

    fn gather(&mut self, mut gather: Gather) -> Result<Stage> {
        let Some(segment) = self.inputs.get(gather.at.input).map(Arc::clone) else {
            return self.plan(&gather);
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut at = gather.at;
        let read = read_step(&segment, &mut at, &mut buffer, |view| {
            Ok(self.gather_batch(view, &mut gather))
        });
        self.buffer = buffer;
        gather.at = at;
        match read? {
            _ if gather.full_at.is_some() => self.plan(&gather),
            Read::More => Ok(Stage::Gather(gather)),
            Read::End => {
                gather.at = self.start_of(gather.at.input.saturating_add(1));
                Ok(Stage::Gather(gather))
            }
        }
    }

    /// Notes the keys of a batch. Returns whether to continue.
    fn gather_batch(&mut self, view: &BatchView<'_>, gather: &mut Gather) -> bool {
        let index = gather.at.input;
        let input = u32::try_from(index).unwrap_or(u32::MAX);
        for record in view.records() {
            let bytes = bytes_max_of(&record);
            let latest = Latest {
                offset: record.offset,
                input,
                bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            };
            // Records that an earlier pass has gathered count, because they may remain, but are not
            // noted again.
            let key = record.key.filter(|_| record.offset >= self.from);
            let before = match key.map(|key| self.keys.note(key, latest)) {
                Some(Err(Full)) => {
                    gather.full_at = Some(record.offset);
                    return false;
                }
                Some(Ok(before)) => before,
                None => None,
            };
            if let Some(total) = gather.bytes_max.get_mut(index) {
                *total = total.saturating_add(bytes);
            }
            if let Some(before) = before
                && let Some(total) = gather.bytes_max.get_mut(before.input as usize)
            {
                *total = total.saturating_sub(u64::from(before.bytes));
            }
        }
        true
    }

    /// Decides what the pass rewrites, once its keys are gathered.
    fn plan(&mut self, gather: &Gather) -> Result<Stage> {
        let facts = self.facts();
        if let Some(missing) = plan::first_gap(&facts) {
            let before = |segment: &&Arc<Segment>| segment.next_offset() == Some(missing.start);
            return self.inputs.iter().find(before).map_or(Ok(Stage::Done), |segment| {
                let (end, kind) = (data_bytes(segment), CorruptionKind::Missing);
                Err(segment.corruption(end, Some(missing.clone()), kind).into())
            });
        }
        let pass = plan::pass(&facts, self.from, gather.full_at);
        let covered = facts.get(..pass.inputs).unwrap_or_default();
        let bytes_max: Vec<u64> = covered
            .iter()
            .zip(&gather.bytes_max)
            // If an input was not gathered to its end, all of it may remain.
            .map(|(input, counted)| {
                let is_whole = input.next_offset <= pass.end;
                if is_whole { input.bytes.min(*counted) } else { input.bytes }
            })
            .collect();
        let groups = plan::groups(covered, &bytes_max, self.terms.segment_bytes);
        self.sieve.rules.pass_end = pass.end;
        self.from = pass.end;
        self.sieve.take_horizon();
        let at = self.start_of(0);
        let (groups, tally) = (groups.into(), Tally::default());
        let (first, is_on_spare, output) = (0, false, None);
        let rewrite = Rewrite { groups, first, at, bytes_max, is_on_spare, output, tally };
        Ok(Stage::Rewrite(rewrite))
    }

    // ---- rewriting -------------------------------------------------------------------------------

    /// Continues the rewriting. If the disk is full, the group in work is begun again in the spare
    /// file.
    fn rewrite_anyway(&mut self, rewrite: Rewrite, log: &impl LogAccess) -> Result<Stage> {
        if rewrite.is_on_spare || self.env.spare.is_none() {
            return self.rewrite(rewrite, log);
        }
        let (groups, bytes_max) = (rewrite.groups.clone(), rewrite.bytes_max.clone());
        let first = rewrite.first;
        match self.rewrite(rewrite, log) {
            Err(Error::StorageFull { .. }) => Ok(self.on_spare(&groups, first, bytes_max)),
            rewritten => rewritten,
        }
    }

    /// The remaining groups, divided so that each fits the spare file unless it is a single input.
    fn on_spare(&self, groups: &VecDeque<usize>, first: usize, bytes_max: Vec<u64>) -> Stage {
        let left = first..groups.iter().fold(first, |end, length| end.saturating_add(*length));
        let facts = self.facts();
        let facts = facts.get(left.clone()).unwrap_or_default();
        let limit = self.terms.segment_bytes.min(SPARE_BYTES.saturating_sub(SPARE_OVERHEAD_BYTES));
        let groups = plan::groups(facts, bytes_max.get(left).unwrap_or_default(), limit);
        let (at, tally, output) = (self.start_of(first), Tally::default(), None);
        let (groups, is_on_spare) = (groups.into(), true);
        Stage::Rewrite(Rewrite { groups, first, at, bytes_max, is_on_spare, output, tally })
    }

    fn rewrite(&mut self, mut rewrite: Rewrite, log: &impl LogAccess) -> Result<Stage> {
        let Some(length) = rewrite.groups.front().copied() else {
            return Ok(self.end_pass());
        };
        let group = rewrite.first..rewrite.first.saturating_add(length);
        if rewrite.output.is_none() && self.must_rewrite(&group) {
            return self.begin_output(rewrite, group, log);
        }
        let Some(segment) =
            self.inputs.get(rewrite.at.input).filter(|_| group.contains(&rewrite.at.input))
        else {
            return self.end_group(rewrite, group, log);
        };
        let segment = Arc::clone(segment);
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut is_changed = false;
        let Rewrite { at, output, tally, .. } = &mut rewrite;
        let read = read_step(&segment, at, &mut buffer, |view| {
            let effect = self.sieve.judge(view, &self.keys, tally);
            if let Some(output) = output {
                return self.push(output, view, effect).map(|()| true);
            }
            is_changed |= effect != Effect::Unchanged;
            Ok(!is_changed)
        });
        self.buffer = buffer;
        let read = read?;
        if is_changed {
            return self.begin_output(rewrite, group, log);
        }
        if read == Read::End {
            rewrite.tally.segments_read = rewrite.tally.segments_read.saturating_add(1);
            let bytes = rewrite.tally.bytes_before;
            rewrite.tally.bytes_before = bytes.saturating_add(data_bytes(&segment));
            rewrite.at = self.start_of(rewrite.at.input.saturating_add(1));
        }
        Ok(Stage::Rewrite(rewrite))
    }

    /// Whether a group is rewritten even if no record is removed: if several segments become one,
    /// and if one is not clean yet and will be.
    fn must_rewrite(&self, group: &std::ops::Range<usize>) -> bool {
        let inputs = self.inputs.get(group.clone()).unwrap_or_default();
        inputs.len() > 1 || inputs.iter().any(|segment| !segment.is_clean)
    }

    /// Begins the new segment of a group, and reads the group again from its start.
    fn begin_output(
        &mut self,
        mut rewrite: Rewrite,
        group: std::ops::Range<usize>,
        log: &impl LogAccess,
    ) -> Result<Stage> {
        let inputs = self.inputs.get(group.clone()).unwrap_or_default();
        let (Some(first), Some(last)) = (inputs.first(), inputs.last()) else {
            return Ok(Stage::Done);
        };
        let next_offset = last.next_offset().unwrap_or(last.base_offset);
        let replacement = Replacement {
            base_offset: first.base_offset,
            next_offset,
            first_number: first.ranks.0,
            last_number: last.ranks.1,
            is_clean: next_offset <= self.sieve.rules.pass_end,
        };
        let ages = || inputs.iter().filter_map(|input| input.sealed()?.times);
        let age = Moment {
            wall: ages().map(|times| times.aged_from).max().unwrap_or(0),
            run: ages().map(|times| times.since).max().unwrap_or(0),
        };
        let heritage = heritage_of(last, age)?;
        let Some(allotted) = log.with_log(|log| log.factory_mut().allot_rewrite()) else {
            // All generations are used: nothing can be replaced any more.
            return Ok(Stage::Done);
        };
        let target = if rewrite.is_on_spare { Target::Spare } else { Target::New };
        let (env, identity) = (&self.env, &self.identity);
        let output = Output::create(env, identity, allotted, replacement, heritage, target)?;
        rewrite.output = Some(Box::new(output));
        rewrite.at = self.start_of(group.start);
        rewrite.tally = Tally::default();
        Ok(Stage::Rewrite(rewrite))
    }

    /// Adds the remaining records of a batch to the new segment.
    fn push(&mut self, output: &mut Output, view: &BatchView<'_>, effect: Effect) -> Result<()> {
        match effect {
            Effect::Removed => output.leave_out(&view.header()),
            Effect::Unchanged => output.copy(view),
            Effect::Changed => {
                let (sieve, key) = (&mut self.sieve, output.key());
                output.push(&view.header(), |out| Ok(sieve.encode(view, &key, out)?))
            }
        }
    }

    /// Replaces the inputs by the new segment, for readers and durably, and removes them.
    fn end_group(
        &mut self,
        mut rewrite: Rewrite,
        group: std::ops::Range<usize>,
        log: &impl LogAccess,
    ) -> Result<Stage> {
        rewrite.groups.pop_front();
        let group_tally = std::mem::take(&mut rewrite.tally);
        let horizon = self.sieve.take_horizon();
        let Some(mut output) = rewrite.output.take() else {
            // The group is unchanged, and all of it was read.
            for segment in self.inputs.get(group.clone()).unwrap_or_default() {
                segment.note_horizon(horizon.unwrap_or(Footer::NO_HORIZON));
            }
            rewrite.first = group.end;
            rewrite.at = self.start_of(group.end);
            return Ok(Stage::Rewrite(rewrite));
        };
        let inputs = self.inputs.get(group.clone()).unwrap_or_default();
        let new = output.complete(inputs)?;
        self.tally += group_tally;
        self.tally.segments_written = self.tally.segments_written.saturating_add(1);
        self.tally.bytes_after = self.tally.bytes_after.saturating_add(data_bytes(&new));
        let replaced = log.with_log(|log| replace(log, &new));
        if replaced.is_empty() {
            // Retention has removed all of them meanwhile.
            self.remove(vec![new], log)?;
            return Ok(Stage::CutShort);
        }
        self.remove(replaced, log)?;
        if std::mem::take(&mut rewrite.is_on_spare)
            && let Some(spare) = &self.env.spare
        {
            output.give_unused_back();
            // The space of the inputs is free now. If other files take it first, the spare is made
            // later.
            let _ = spare.fill(&*self.env.disk);
        }
        rewrite.bytes_max.splice(group.clone(), [data_bytes(&new)]);
        self.inputs.splice(group.clone(), [new]);
        rewrite.first = group.start.saturating_add(1);
        rewrite.at = self.start_of(rewrite.first);
        Ok(Stage::Rewrite(rewrite))
    }

    /// Unlinks segments that readers do not find any more. Readers that have their maps continue.
    /// A file that cannot be unlinked remains superseded: each later rewrite covers its ranks too.
    fn remove(&self, segments: Vec<Arc<Segment>>, log: &impl LogAccess) -> Result<()> {
        log.remove_files(segments);
        // DURABILITY: their removal is durable before the next compaction, which removes the
        // segment that supersedes them.
        let dir = &self.identity.dir;
        self.env.disk.sync_dir(dir).map_err(|source| Error::io("sync", dir, source))
    }

    /// Begins the next pass, or ends.
    fn end_pass(&mut self) -> Stage {
        if self.from >= self.end() {
            return Stage::Done;
        }
        self.begin_pass();
        std::mem::replace(&mut self.stage, Stage::Done)
    }
}

impl std::fmt::Debug for Compaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compaction").field("tally", &self.tally).finish_non_exhaustive()
    }
}

/// What a record takes at most in a new segment.
fn bytes_max_of(record: &RecordView<'_>) -> u64 {
    let length = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len) as u64;
    length(record.key)
        .saturating_add(length(record.value))
        .saturating_add(record.headers.as_bytes().len() as u64)
        .saturating_add(RECORD_OVERHEAD_BYTES)
}

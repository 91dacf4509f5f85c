//! Truncates a log, or has it begin anew at another offset.
//!
//! Both make one new segment, which truncates: its header says that everything at and above its
//! base offset is cut off, or everything there was, and has a higher rewrite number. The file gets
//! its opening batch before it gets its name, so the name is the commit point: before it is durable
//! nothing has changed, afterwards an opening finds the log truncated, whichever of the old files it
//! finds. The steps:
//!
//! 1. [`plan`], without a lock: where the last batch ends that is kept, and what was known there.
//! 2. [`Cut::begin`], under the partition's lock: the number of the new segment.
//! 3. [`CutTask::run`], without a lock: makes the file, durably.
//! 4. [`apply`], under the lock: exchanges the segments. The old files are removed afterwards.
//!
//! No byte that was published changes: the segment in which the log is cut keeps its file, and only
//! its end moves. The caller makes the log durable before step 1 if anything of it is kept, appends
//! nothing until step 4, and lets no sync overlap. Must not know: why the log is cut, who asks.

use std::sync::Arc;

use super::append::First;
use super::history::History;
use super::refusal::{Failure, Refusal};
use crate::error::{CorruptionKind, Error, Result};
use crate::format::{
    BatchEncoder, HAS_GAPS, Opening, Placement, ProducerState, SegmentHeader, SegmentKey,
    SparseIndex,
};
use crate::log::active::{Active, SealedActive};
use crate::log::backlog::Unfinished;
use crate::log::create::{NewSegment, Prepared};
pub(crate) use crate::log::ends::Ends;
use crate::log::producers::ProducerTable;
use crate::log::scan::{ScanFrom, read_opening, scan_segment};
use crate::log::segment::{Sealed, Segment, SegmentFile};
use crate::log::{Log, LogEnv, OFFSET_MAX, opening_room};
use crate::storage::disk::Access;

/// What is cut off, and what the log is afterwards.
#[derive(Debug)]
pub(crate) struct Cut {
    /// Where the new segment begins: after the last batch that is kept.
    base_offset: u64,
    /// Where the log ends afterwards. Above the base if offsets between are missing in the log.
    end_offset: u64,
    /// Whether nothing is kept, and the log begins where it ends.
    is_anew: bool,
    /// The epoch of the last batch that is kept.
    leader_epoch: u32,
    /// The segment in which the log is cut, if it is not cut between two.
    shortened: Option<Shortened>,
    producers: ProducerTable,
    /// The batch that comes next, if it has to be in the new segment.
    first: Option<First>,
}

#[derive(Debug)]
struct Shortened {
    segment: Arc<Segment>,
    sealed: Sealed,
    index: SparseIndex,
}

/// Plans to cut off everything at and above `offset`, and the batch that holds it. `None` if there
/// is nothing.
///
/// # Errors
///
/// A refusal if something below `bound` would be cut off. [`Error::Corrupt`] if what is kept of a
/// segment is damaged, and errors of the disk.
pub(crate) fn plan(
    history: &History<'_>,
    ends: Ends,
    offset: u64,
    bound: u64,
) -> Result<Option<Cut>, Failure> {
    let below = |offset| Failure::Refused(Refusal::Bound { offset, bound });
    if offset < bound.max(ends.log_start()) {
        return Err(below(offset));
    }
    if offset >= ends.log_end() {
        return Ok(None);
    }
    // A batch that holds the offset is cut off as a whole.
    let held = history.last_of(&|batch| batch.base_offset < offset)?;
    let held = held.filter(|batch| batch.next_offset() > offset);
    let end_offset = held.map_or(offset, |batch| batch.base_offset);
    if end_offset < bound.max(ends.log_start()) {
        return Err(below(end_offset));
    }
    let kept = history.last_of(&|batch| batch.next_offset() <= end_offset)?;
    let segments = history.segments().all();
    let first = segments.first().map_or(end_offset, |first| first.base_offset);
    let base_offset = kept.map_or(first.min(end_offset), |kept| kept.next_offset());
    let after = segments.partition_point(|segment| segment.base_offset < base_offset);
    let last = after.checked_sub(1).and_then(|index| segments.get(index));
    let mut cut = Cut {
        base_offset,
        end_offset,
        is_anew: false,
        leader_epoch: kept.map_or(0, |kept| kept.leader_epoch),
        shortened: None,
        producers: ProducerTable::default(),
        first: None,
    };
    match last.filter(|last| last.next_offset() != Some(base_offset)) {
        Some(last) if last.ranks.1 < last.number => {
            // Compaction has written it: all of it was below the bound.
            let bound = last.next_offset().unwrap_or(bound);
            return Err(Refusal::Bound { offset, bound }.into());
        }
        Some(last) => shorten(&mut cut, last)?,
        // Cut between two segments: the first one that is cut off lists the producers there.
        None => {
            let removed = segments.get(after);
            cut.producers = removed.map_or(Ok(cut.producers), |first| producers_at(first))?;
        }
    }
    Ok(Some(cut))
}

/// Plans to drop all there is, and to continue at `offset`, which the caller has noted durably as
/// the log start. `first` is the batch that comes next, if that begins below the offset: no later
/// segment can have it.
///
/// # Errors
///
/// The log begins above it already.
pub(crate) fn plan_anew(ends: Ends, offset: u64, first: Option<First>) -> Result<Cut, Failure> {
    let bound = ends.log_start();
    let base_offset = first.map_or(offset, |first| first.base_offset);
    if !(bound..=OFFSET_MAX).contains(&offset) || base_offset > offset {
        return Err(Refusal::Bound { offset, bound }.into());
    }
    Ok(Cut {
        base_offset,
        end_offset: offset,
        is_anew: true,
        leader_epoch: 0,
        shortened: None,
        producers: ProducerTable::default(),
        first,
    })
}

/// The producers at the beginning of a segment that compaction has not written.
fn producers_at(segment: &Segment) -> Result<ProducerTable> {
    let file = segment.open_file(Access::Read)?;
    let opening = read_opening(&*file, &segment.key);
    let opening = opening.map_err(|source| Error::io("read", &segment.path, source))?;
    let Some((opening, _)) = opening else {
        let kind = CorruptionKind::Malformed("the opening batch");
        return Err(segment.corruption(SegmentHeader::SIZE as u64, None, kind).into());
    };
    Ok(ProducerTable::from_states(opening.producers))
}

/// Reads what is kept of a segment, as an opening would after a crash.
fn shorten(cut: &mut Cut, segment: &Arc<Segment>) -> Result<()> {
    let file = segment.open_file(Access::Read)?;
    let from = ScanFrom {
        end: segment.end() as u64,
        bound: cut.base_offset,
        ..ScanFrom::start(segment.base_offset)
    };
    let scan = scan_segment(&*file, &segment.key, from);
    let scan = scan.map_err(|source| Error::io("read", &segment.path, source))?;
    let stretch = match (scan.stretches.as_slice(), &scan.opening) {
        ([stretch], Some(_)) if stretch.next_offset == cut.base_offset => *stretch,
        _ => {
            let damage = scan.damage.first().cloned();
            let (position, kind) =
                damage.unwrap_or((SegmentHeader::SIZE as u64, CorruptionKind::Length("a batch")));
            return Err(segment.corruption(position, None, kind).into());
        }
    };
    let opening = scan.opening.iter().flat_map(|opening| &opening.producers);
    cut.producers = ProducerTable::from_states(opening.copied());
    scan.producers.iter().for_each(|later| cut.producers.merge(later));
    let sealed =
        Sealed { data_end: stretch.end, next_offset: stretch.next_offset, times: stretch.times };
    let segment = Arc::clone(segment);
    cut.shortened = Some(Shortened { segment, sealed, index: scan.index });
    Ok(())
}

/// The new segment, to be made.
#[derive(Debug)]
pub(crate) struct CutTask {
    env: Arc<LogEnv>,
    new: NewSegment,
    /// Its opening batch, and where it ends.
    first: Vec<u8>,
    last_batch: usize,
}

impl Cut {
    /// Begins the cut.
    ///
    /// # Errors
    ///
    /// No new segment can be made; the log is unchanged.
    pub(crate) fn begin(&self, log: &mut Log) -> Result<CutTask> {
        let producers = self.producers.states();
        // The filler takes less than an opening batch without producers.
        let room = opening_room(producers.len()).saturating_add(opening_room(0));
        let first_bytes = self.first.map_or(0, |first| first.bytes as usize);
        let needed = SegmentHeader::SIZE.saturating_add(room).saturating_add(first_bytes);
        // Of a log that begins anew nothing counts that there was: a segment that begins below
        // could prove that records above were durable, and these would be missing.
        let cut_off_from = if self.is_anew { 0 } else { self.base_offset };
        let mut new = log.factory.begin_cut(needed, cut_off_from)?;
        // It is made so that others can be removed.
        new.exceeds_budget = true;
        let opening = self.opening(log, producers).encode(&new.header.key(), 0)?;
        if self.first.is_some_and(|first| first.has_gaps) {
            new.header.compatible |= HAS_GAPS;
        }
        let mut first = opening;
        let mut last_batch = SegmentHeader::SIZE;
        if self.end_offset > self.base_offset && !self.is_anew {
            new.header.compatible |= HAS_GAPS;
            last_batch = last_batch.saturating_add(first.len());
            self.put_filler(&new.header.key(), &mut first)?;
        }
        Ok(CutTask { env: Arc::clone(log.factory.env()), new, first, last_batch })
    }

    fn opening(&self, log: &Log, producers: Vec<ProducerState>) -> Opening {
        Opening {
            base_offset: self.base_offset,
            leader_epoch: log.epochs.leader_epoch,
            // No reader has seen what is cut off, so no committed offset is above the cut.
            incarnation: log.epochs.incarnation,
            // All that is kept was made durable before.
            durable_mark: self.base_offset,
            producers,
        }
    }

    /// A batch without records, for offsets that are missing before the cut.
    fn put_filler(&self, key: &SegmentKey, out: &mut Vec<u8>) -> Result<()> {
        let missing = self.end_offset.saturating_sub(self.base_offset).saturating_sub(1);
        let last_offset_delta = u32::try_from(missing)
            .map_err(|_| Error::RecordTooLarge { size: missing, limit: u64::from(u32::MAX) })?;
        let mut encoder = BatchEncoder::new();
        encoder.set_last_offset_delta(last_offset_delta);
        let placement = Placement {
            base_offset: self.base_offset,
            leader_epoch: self.leader_epoch,
            durable_end: self.base_offset,
            key,
            producer: None,
        };
        out.extend_from_slice(encoder.finish().seal(&placement));
        Ok(())
    }
}

impl CutTask {
    /// Makes the segment. Blocks for two syncs. `is_named` is set when a failure is not definite
    /// any more: then an opening may find the log cut, so nothing may be appended to it as it is.
    ///
    /// # Errors
    ///
    /// The error of the disk.
    pub(crate) fn run(self, is_named: &mut bool) -> Result<Made> {
        let Self { env, new, first, last_batch } = self;
        let position = SegmentHeader::SIZE.saturating_add(first.len());
        let prepared = new.create_with(&env, &first, is_named)?;
        Ok(Made { prepared, position, last_batch })
    }
}

/// The new segment, which is durable and not in the list yet.
#[derive(Debug)]
pub(crate) struct Made {
    prepared: Prepared,
    position: usize,
    last_batch: usize,
}

/// What a cut has taken out of a log. To be dropped without a lock, because files are closed.
#[derive(Debug)]
#[must_use = "the files are to be removed"]
pub(crate) struct CutOff {
    pub(crate) segments: Vec<Arc<Segment>>,
    /// Segments that were made ahead and have lower numbers than the new one.
    pub(crate) prepared: Vec<Prepared>,
    _active: Option<SealedActive>,
}

/// Cuts the log. Everything that is kept is durable.
pub(crate) fn apply(log: &mut Log, cut: Cut, made: Made) -> CutOff {
    let Made { prepared, position, last_batch } = made;
    let Cut { base_offset, end_offset, is_anew, shortened, mut producers, .. } = cut;
    let origin = &log.factory.identity().origin;
    let file = SegmentFile::new(origin, &prepared.path, &prepared.header, base_offset);
    let region = prepared.writer.region();
    let segment = Segment::active(log.factory.env(), file, region, &prepared.claim);
    let next = Active::begun(segment, prepared, position, last_batch);
    let from = if is_anew { 0 } else { base_offset };
    // The new segment is in the list before those before it end: a reader that finds a segment
    // sealed must find its successor.
    let removed = log.segments.truncate(from, next.segment());
    let active = log.appender.take_active().map(|active| active.seal(log.ends.log_end()));
    for segment in &removed {
        let (data_end, next_offset) = (SegmentHeader::END_POSITION, segment.base_offset);
        segment.shorten(Sealed { data_end, next_offset, times: None });
    }
    let now = log.now.run;
    let shortened = shortened.map(|Shortened { segment, sealed, index }| {
        let times = sealed.times.map(|times| times.found(now));
        segment.shorten(Sealed { times, ..sealed });
        Unfinished {
            segment,
            is_found: true,
            index,
            index_is_whole: true,
            producers: producers.states(),
            leader_epoch: cut.leader_epoch,
            incarnation: log.epochs.incarnation,
            sealed_to: 0,
        }
    });
    log.backlog.cut(from, shortened);
    let prepared = log.appender.take_prepared().into();
    log.appender.set_active(next);
    producers.begin_run(now);
    log.producers = producers;
    if is_anew {
        log.ends.begin_anew(end_offset);
    } else {
        log.ends.cut(end_offset);
    }
    CutOff { segments: removed, prepared, _active: active }
}

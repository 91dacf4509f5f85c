//! Decides whether the last segment of a log takes appends again, and from which position.
//!
//! After a clean close it does, at the end that the close recorded. After the death of the process
//! or the machine it does if *only zeros* follow the end that was found. Otherwise the next append
//! makes a new segment, with another salt.
//!
//! Why zeros are enough. A batch of an earlier run must not be taken for the successor of a later
//! one. Such a batch would have to be in the file after the end, now or after the next crash. It is
//! not there now, because all of the file after the end was read. It cannot come back either: the
//! page cache is never older than the disk, so zeros that were read are also on the disk, or will
//! be. From then on the segment is like one that was never interrupted.
//!
//! Why resume at all. A new segment costs a header, a footer and three blocks for as long as its
//! records are kept, and files are never joined. A service that dies in a loop, with a few records
//! each time, would fill its disk with segments.
//!
//! A resumed log still gets a new incarnation, which is durable before anything is appended,
//! because records may be lost whose offsets are used again. Nor does the tail count as durable:
//! the first sync of this run writes again what no sync of this run has covered (see
//! [`Unproved`](super::super::tasks::Unproved)).

use super::super::active::{Active, Contents};
use super::super::create::region_writer;
use super::super::factory::SegmentFactory;
use super::super::inventory::{Found, Inventory};
use super::super::known::Known;
use super::super::recovery::{Action, Decision};
use super::super::segment::{Segment, SegmentFile};
use crate::clock::Moment;
use crate::error::{Error, Result};
use crate::format::{Rewrite, SegmentHeader, TimeRange};
use crate::storage::disk::Access;

/// Where appends continue, and what is known of the segment there.
pub(super) struct Tail<'a> {
    found: &'a Found,
    position: u32,
    last_batch: u32,
    times: Option<TimeRange>,
    /// When its first record was appended.
    began: Option<Moment>,
    /// Whether the index that was read is kept.
    keeps_index: bool,
}

impl Tail<'_> {
    pub(super) fn keeps_index(&self) -> bool {
        self.keeps_index
    }

    /// Opens the last segment as the active one.
    pub(super) fn reopen(&self, last: &Segment, factory: &SegmentFactory) -> Result<Active> {
        let (env, options) = (factory.env(), factory.options());
        let (position, kind) = (self.position as usize, options.writer);
        let file = last.open_file(Access::ReadWrite)?;
        let capacity = usize::try_from(options.segment_bytes).unwrap_or(usize::MAX);
        let capacity = capacity.max(position).max(SegmentHeader::SIZE);
        let writer = region_writer(env, &file, capacity, position, kind)
            .map_err(|source| Error::io("map", &last.path, source))?;
        let (origin, found) = (&factory.identity().origin, self.found);
        let named = SegmentFile::new(origin, &found.path, &found.header, last.base_offset);
        let segment = Segment::active(env, named, writer.region(), &last.claim);
        let contents = Contents {
            times: self.times,
            began: self.began,
            last_batch: self.last_batch as usize,
            ..Contents::new(last.base_offset, false)
        };
        Active::resume(segment, file, writer, kind, position, contents)
            .map_err(|source| Error::io("grow", &last.path, source))
    }
}

/// The end that a clean close recorded, if the decision agrees.
pub(super) fn closed<'a>(
    known: &Known,
    decision: &Decision,
    inventory: &'a Inventory,
) -> Option<Tail<'a>> {
    let (index, point) = (inventory.resumable?, known.checkpoint.as_ref()?);
    let ends_there = match *decision.actions.get(index)? {
        Action::Keep { data_end, next_offset, .. } => {
            data_end == point.position && next_offset == decision.end_offset
        }
        Action::Leave | Action::Remove => false,
    };
    (ends_there && decision.last_kept() == Some(index)).then_some(())?;
    Some(Tail {
        found: inventory.found.get(index)?,
        position: point.position,
        last_batch: point.last_batch,
        times: point.times().map(|times| times.found(known.now)),
        began: point.ages.map(|(_, began)| Moment::from_stored(began, known.now)),
        keeps_index: false,
    })
}

/// The end that a recovery found, if nothing follows it, nothing is lost or cut off, and no other
/// log may continue there.
pub(super) fn recovered<'a>(
    known: &Known,
    decision: &Decision,
    inventory: &'a Inventory,
) -> Option<Tail<'a>> {
    // After a clean close that the files contradict, the log never continues here. An internal log
    // begins a new segment in each run.
    let may_continue = !known.read_only && !known.needs_all && !known.clean;
    let index = decision.last_kept().filter(|_| may_continue)?;
    let Action::Keep { data_end, next_offset, times, .. } = *decision.actions.get(index)? else {
        return None;
    };
    let found = inventory.found.get(index)?;
    let scan = found.scan.as_ref()?;
    let is_all = decision.damage.is_empty()
        && !decision.cuts_segments
        && !decision.actions.contains(&Action::Leave)
        && next_offset == decision.end_offset
        && inventory.lost.is_empty();
    // A later file was prepared and never used.
    let is_last = || inventory.found.iter().skip(index + 1).all(|it| it.base_offset().is_none());
    let ends_in_zeros =
        scan.stretches.len() == 1 && scan.damage.is_empty() && scan.garbage_end == 0;
    let is_ours = || {
        !matches!(found.header.rewrite, Some(Rewrite::Replaces(_)))
            && matches!(found.file.has_other_names(), Ok(false))
    };
    let is_begun = found.footer.is_none() && found.opening().is_some();
    (is_all && is_begun && ends_in_zeros && is_last() && is_ours()).then_some(())?;
    // The segment keeps its age. Otherwise a segment to which each run appends a little would never
    // be rolled by age.
    let point = known.checkpoint.as_ref().filter(|it| it.segment == found.header.number);
    let began = point.and_then(|point| point.ages).map(|(_, began)| began);
    let began = began.or_else(|| times.map(|times| times.first));
    Some(Tail {
        found,
        position: data_end,
        last_batch: scan.last_batch,
        times: times.map(|times| times.found(known.now)),
        began: began.map(|began| Moment::from_stored(began, known.now)),
        keeps_index: true,
    })
}

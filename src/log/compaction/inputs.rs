//! Reads the segments that a compaction rewrites, in steps of bounded size.
//!
//! Owns: nothing; the caller has the [`ReadPosition`]. Must not know: what the batches are used
//! for. Reads by `pread` and never through a map: a disk that fails causes an error, not a signal.

use super::candidates::data_bytes;
use super::output::Heritage;
use crate::clock::Moment;
use crate::error::{CorruptionKind, Error, Result};
use crate::format::{BatchHeader, BatchView, SegmentHeader};
use crate::log::producers::ProducerTable;
use crate::log::scan::{ScanFrom, scan_segment};
use crate::log::segment::Segment;
use crate::storage::disk::Access;

/// LIMIT: how much one step reads, unless a single batch is larger: a few milliseconds of work,
/// after which other work has its turn.
pub(crate) const STEP_BYTES: usize = 1 << 20;

/// How far an input was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadPosition {
    pub(super) input: usize,
    pub(super) position: usize,
    /// The least offset that the next batch may have.
    pub(super) expected: u64,
}

/// What a new segment inherits from a segment: from its footer, or, if that is damaged, from its
/// batches.
pub(super) fn heritage_of(segment: &Segment, age: Moment) -> Result<Heritage> {
    if let Some(footer) = segment.read_footer()? {
        let (leader_epoch, incarnation) = (footer.leader_epoch, footer.incarnation);
        let producers = footer.producers;
        return Ok(Heritage { leader_epoch, incarnation, producers, age });
    }
    let file = segment.open_file(Access::Read)?;
    let from = ScanFrom { end: data_bytes(segment), ..ScanFrom::start(segment.base_offset) };
    let scan = scan_segment(&*file, &segment.key, from);
    let scan = scan.map_err(|source| Error::io("read", &segment.path, source))?;
    let Some(opening) = scan.opening else {
        let kind = CorruptionKind::Malformed("opening batch");
        let position = SegmentHeader::SIZE as u64;
        return Err(segment.corruption(position, None, kind).into());
    };
    let mut producers = ProducerTable::from_states(opening.producers.iter().copied());
    scan.producers.iter().for_each(|later| producers.merge(later));
    Ok(Heritage {
        leader_epoch: opening.leader_epoch,
        incarnation: opening.incarnation,
        producers: producers.states(),
        age,
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    More,
    End,
}

/// Reads the next batches of a segment, [`STEP_BYTES`] at most or one batch, checks them and passes
/// them to `each` until that returns false.
pub(super) fn read_step(
    segment: &Segment,
    at: &mut ReadPosition,
    buffer: &mut Vec<u8>,
    mut each: impl FnMut(&BatchView<'_>) -> Result<bool>,
) -> Result<Read> {
    let end = usize::try_from(data_bytes(segment)).unwrap_or(usize::MAX);
    let left = end.saturating_sub(at.position);
    if left == 0 {
        return Ok(Read::End);
    }
    let file = segment.open_file(Access::Read)?;
    let mut wanted = left.min(STEP_BYTES);
    loop {
        buffer.resize(wanted, 0);
        let read = file.read_at(buffer, at.position as u64);
        let read = read.map_err(|source| Error::io("read", &segment.path, source))?;
        buffer.truncate(read);
        // A batch that is larger than a step is read alone. Its size is compared with the file
        // before memory of that size is allocated.
        let size = BatchHeader::declared_size(buffer).map_or(0, |size| size as usize);
        if size <= wanted || size > left {
            break;
        }
        wanted = size;
    }
    let mut rest = buffer.as_slice();
    while !rest.is_empty() {
        let size = BatchHeader::declared_size(rest).map_or(0, |size| size as usize);
        if rest.len() < buffer.len() && size > rest.len() && size <= end - at.position {
            break; // it continues after the step
        }
        let (view, header) = match BatchView::check(rest, &segment.key) {
            Ok(Some(view)) => (view, view.header()),
            Ok(None) => return Err(damaged(segment, at, CorruptionKind::Length("a batch"))),
            Err(kind) => return Err(damaged(segment, at, kind)),
        };
        if header.base_offset < at.expected {
            let (expected, found) = (at.expected, header.base_offset);
            return Err(damaged(segment, at, CorruptionKind::OffsetOrder { expected, found }));
        }
        if !header.is_opening() && !each(&view)? {
            return Ok(Read::More);
        }
        at.expected = header.next_offset();
        at.position = at.position.saturating_add(header.size as usize);
        rest = rest.get(header.size as usize..).unwrap_or_default();
    }
    if buffer.is_empty() {
        return Err(damaged(segment, at, CorruptionKind::Length("the file")));
    }
    Ok(if at.position >= end { Read::End } else { Read::More })
}

fn damaged(segment: &Segment, at: &ReadPosition, kind: CorruptionKind) -> Error {
    let until = segment.next_offset().unwrap_or(at.expected).max(at.expected);
    segment.corruption(at.position as u64, Some(at.expected..until), kind).into()
}

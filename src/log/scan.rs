//! Reading a segment from its file, batch by batch, without trusting any of it.
//!
//! Used by recovery, verification and the making of footers. Reads by `pread` into one bounded
//! buffer: a failing disk or a hostile file can at worst give an error (never a signal), and memory
//! does not grow with the segment.

use std::io;

use super::Checkpoint;
use super::producers::ProducerTable;
use crate::error::CorruptionKind;
use crate::format::{ALIGNMENT, BatchHeader, BatchView, BATCH_HEADER_SIZE_MIN, Opening, ProducerState, SegmentHeader, SparseIndex, TimeRange};
use crate::storage::disk::DiskFile;

/// LIMIT: how much is read at a time. Large enough that system calls vanish beside the checksums.
const CHUNK_BYTES: usize = 1 << 20;

/// A window on a file that moves forward.
struct ChunkReader<'a> {
    file: &'a dyn DiskFile,
    buffer: Vec<u8>,
    base: u64,
    end: u64,
    chunk: usize,
}

impl<'a> ChunkReader<'a> {
    fn new(file: &'a dyn DiskFile, chunk: usize) -> io::Result<Self> {
        Ok(Self { file, buffer: Vec::new(), base: 0, end: file.len()?, chunk })
    }

    /// The bytes from `position` on: at least `wanted` of them, fewer only at the end of the file.
    fn at(&mut self, position: u64, wanted: usize) -> io::Result<&[u8]> {
        let buffered = self.base.saturating_add(self.buffer.len() as u64);
        let wanted_end = position.saturating_add(wanted as u64).min(self.end);
        if position < self.base || wanted_end > buffered {
            let left = usize::try_from(self.end.saturating_sub(position)).unwrap_or(usize::MAX);
            self.buffer.resize(wanted.max(self.chunk).min(left), 0);
            let read = self.file.read_at(&mut self.buffer, position)?;
            self.buffer.truncate(read);
            self.base = position;
        }
        let skip = usize::try_from(position.saturating_sub(self.base)).unwrap_or(usize::MAX);
        Ok(self.buffer.get(skip..).unwrap_or_default())
    }

    /// The bytes of the batch at `position`, all of them if the file has them.
    fn batch(&mut self, position: u64) -> io::Result<&[u8]> {
        let bytes = self.at(position, BATCH_HEADER_SIZE_MIN)?;
        let size = BatchHeader::declared_size(bytes).map_or(0, |size| size as usize);
        // A hostile size is compared with the file before anything is allocated by it.
        if position.saturating_add(size as u64) > self.end {
            return self.at(position, 0);
        }
        self.at(position, size)
    }
}

/// Batches that follow one another without damage between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) start: u32,
    pub(crate) end: u32,
    pub(crate) base_offset: u64,
    pub(crate) next_offset: u64,
    /// The timestamps from the segment's start to its end.
    pub(crate) times: Option<TimeRange>,
}

/// What a scan found in a segment.
#[derive(Debug, Clone)]
pub(crate) struct Scan {
    pub(crate) opening: Option<Opening>,
    pub(crate) stretches: Vec<Stretch>,
    /// The highest offset that any batch found here proves to have been durable.
    pub(crate) durable_mark: u64,
    pub(crate) index: SparseIndex,
    pub(crate) producers: Vec<(u64, ProducerState)>,
    /// Why the first stretch ended where it did, if not at an end mark.
    pub(crate) damage: Option<(u64, CorruptionKind)>,
    /// Position after the last byte that is not zero, behind the last stretch.
    pub(crate) garbage_end: u64,
}

impl Scan {
    pub(crate) fn new(base_offset: u64) -> Self {
        Self {
            opening: None,
            stretches: Vec::new(),
            durable_mark: 0,
            index: SparseIndex::new(base_offset),
            producers: Vec::new(),
            damage: None,
            garbage_end: 0,
        }
    }

    /// Puts what a recovery point vouches for in front of what was scanned from there on.
    pub(crate) fn join_to(&mut self, opening: &Opening, point: &Checkpoint) {
        let trusted = Stretch {
            start: SegmentHeader::END_POSITION,
            end: point.position,
            base_offset: opening.base_offset,
            next_offset: point.end_offset,
            times: point.times(),
        };
        match self.stretches.first_mut().filter(|first| first.start == point.position) {
            Some(first) => {
                first.start = trusted.start;
                first.base_offset = trusted.base_offset;
            }
            None => self.stretches.insert(0, trusted),
        }
        self.durable_mark = self.durable_mark.max(point.end_offset);
        self.opening = Some(opening.clone());
    }
}

/// The opening batch of a segment and its size, if it is whole.
pub(crate) fn read_opening(file: &dyn DiskFile, salt: u64) -> io::Result<Option<(Opening, u32)>> {
    const ENOUGH_BYTES: usize = 4 << 10;
    let mut reader = ChunkReader::new(file, ENOUGH_BYTES)?;
    let Ok(Some(view)) = BatchView::check(reader.batch(u64::from(SegmentHeader::END_POSITION))?, salt) else {
        return Ok(None);
    };
    Ok(Opening::decode(&view).ok().map(|opening| (opening, view.header().size)))
}

/// Where a scan begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScanFrom {
    pub(crate) position: u32,
    /// The offset that the batch there must have; `None` at the opening batch, which says it.
    pub(crate) offset: Option<u64>,
    pub(crate) base_offset: u64,
    pub(crate) times: Option<TimeRange>,
}

/// Scans a segment from `from` to the end of the file: first the chain of batches, then what lies
/// behind its end. Nothing behind the end is believed to belong to the log; it is evidence only.
pub(crate) fn scan_segment(file: &dyn DiskFile, salt: u64, from: ScanFrom) -> io::Result<Scan> {
    let mut reader = ChunkReader::new(file, CHUNK_BYTES)?;
    let mut scan = Scan::new(from.base_offset);
    let mut position = u64::from(from.position);
    let mut expected = from.offset;
    let mut times = from.times;
    loop {
        let (end, next, damage) =
            follow_chain(&mut reader, salt, position, expected, &mut times, &mut scan)?;
        if scan.damage.is_none() {
            scan.damage = damage.map(|kind| (end, kind));
        }
        expected = next.or(expected);
        match search(&mut reader, salt, end, expected.unwrap_or(0), &mut scan.garbage_end)? {
            Some(found) => position = found,
            None => return Ok(scan),
        }
        expected = None;
    }
}

/// Follows the chain from `position`. Returns where it ends, the offset it reached, and why it
/// ended if not at an end mark.
fn follow_chain(
    reader: &mut ChunkReader<'_>,
    salt: u64,
    start: u64,
    expected: Option<u64>,
    times: &mut Option<TimeRange>,
    scan: &mut Scan,
) -> io::Result<(u64, Option<u64>, Option<CorruptionKind>)> {
    let mut position = start;
    let mut expected = expected;
    let mut base_offset = expected;
    let damage = loop {
        let bytes = reader.batch(position)?;
        let view = match BatchView::check(bytes, salt) {
            Ok(Some(view)) => view,
            Ok(None) => break None,
            Err(kind) => break Some(kind),
        };
        let header = &view.header();
        if let Some(expected) = expected.filter(|expected| header.base_offset < *expected) {
            break Some(CorruptionKind::OffsetOrder { expected, found: header.base_offset });
        }
        let size = u64::from(header.size);
        let Ok(at) = u32::try_from(position) else { break Some(CorruptionKind::Length("a segment")) };
        if header.is_opening() {
            match Opening::decode(&view) {
                Ok(opening) if scan.opening.is_none() && scan.stretches.is_empty() => {
                    scan.index = SparseIndex::new(opening.base_offset);
                    scan.durable_mark = scan.durable_mark.max(opening.durable_mark);
                    scan.opening = Some(opening);
                }
                Ok(_) => break Some(CorruptionKind::Malformed("a second opening batch")),
                Err(kind) => break Some(kind),
            }
        } else {
            note_batch(header, at, times, scan);
        }
        base_offset = base_offset.or(Some(header.base_offset));
        expected = Some(header.next_offset());
        position = position.saturating_add(size);
    };
    let range = (u32::try_from(start), u32::try_from(position));
    if let ((Ok(start), Ok(end)), Some(base_offset), Some(next_offset)) = (range, base_offset, expected)
        && end > start
    {
        let times = *times;
        scan.stretches.push(Stretch { start, end, base_offset, next_offset, times });
    }
    Ok((position, expected, damage))
}

fn note_batch(header: &BatchHeader, at: u32, times: &mut Option<TimeRange>, scan: &mut Scan) {
    scan.durable_mark = scan.durable_mark.max(header.durable_mark().unwrap_or(0));
    TimeRange::note(times, header.base_timestamp, header.max_timestamp);
    scan.index.note_batch(header.base_offset, at, header.size, header.max_timestamp);
    if let Some(producer) = header.producer {
        let state = ProducerState {
            id: producer.id,
            epoch: producer.epoch,
            last_sequence: producer.base_sequence.saturating_add(u64::from(header.last_offset_delta)),
            last_offset: header.next_offset().saturating_sub(1),
            last_timestamp: header.max_timestamp,
        };
        scan.producers.push((header.base_offset, state));
        // Bounded memory: only the last state of each producer matters once the chain went on.
        if scan.producers.len() > PRODUCER_NOTES_MAX {
            compact_notes(&mut scan.producers);
        }
    }
}

/// LIMIT: how many producer notes a scan keeps before it folds them to the last one of each id.
const PRODUCER_NOTES_MAX: usize = 64 << 10;

fn compact_notes(notes: &mut Vec<(u64, ProducerState)>) {
    let table = ProducerTable::from_states(notes.iter().map(|(_, state)| *state));
    *notes = table.states().into_iter().map(|state| (state.last_offset, state)).collect();
}

/// Looks for a whole batch behind `position`: every aligned boundary, under the segment's salt.
/// Notes where the last byte that is not zero ends.
fn search(
    reader: &mut ChunkReader<'_>,
    salt: u64,
    position: u64,
    from_offset: u64,
    garbage_end: &mut u64,
) -> io::Result<Option<u64>> {
    let mut position = position;
    let mut first = true;
    while position < reader.end {
        let bytes = reader.at(position, 1)?;
        if bytes.is_empty() {
            break;
        }
        let zeros = leading_zeros(bytes);
        if zeros >= ALIGNMENT as u64 {
            position = position.saturating_add(zeros - zeros % ALIGNMENT as u64);
            first = false;
            continue;
        }
        *garbage_end = (*garbage_end).max(position.saturating_add(ALIGNMENT as u64)).min(reader.end);
        if !first {
            let bytes = reader.batch(position)?;
            if let Ok(Some(header)) = BatchHeader::parse(bytes)
                && header.base_offset >= from_offset
                && let Ok(Some(_)) = BatchView::check(bytes, salt)
            {
                return Ok(Some(position));
            }
        }
        first = false;
        position = position.saturating_add(ALIGNMENT as u64);
    }
    Ok(None)
}

/// How many zero bytes the slice begins with, by whole words where it can.
fn leading_zeros(bytes: &[u8]) -> u64 {
    const BLOCK: usize = 64;
    let blocks = bytes.chunks_exact(BLOCK).take_while(|block| **block == [0; BLOCK]).count() * BLOCK;
    let rest = bytes.get(blocks..).unwrap_or_default();
    (blocks + rest.iter().take_while(|byte| **byte == 0).count()) as u64
}

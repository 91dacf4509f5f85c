//! Reads a segment from its file, batch by batch, without trusting any of it.
//!
//! Used by recovery, verification and the making of footers. A scan first follows the chain of
//! batches. Then it searches the bytes after the chain for evidence: later batches, and what they
//! prove. [`recovery`](super::recovery) decides what of it belongs to the log.

use std::io;

use super::Checkpoint;
use super::chunk::{CHUNK_BYTES, ChunkReader};
use super::damage::next_whole_batch;
use super::producers::ProducerTable;
use crate::clock::Moment;
use crate::error::CorruptionKind;
use crate::format::{
    BatchHeader, BatchView, Opening, ProducerState, SegmentHeader, SegmentKey, SparseIndex,
    TimeRange,
};
use crate::rules::Rule;
use crate::storage::disk::DiskFile;

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
    /// The producers in the batches of each stretch: a stretch counts or is cut as a whole.
    pub(crate) producers: Vec<ProducerTable>,
    /// The highest offset that any batch found here proves to have been durable.
    pub(crate) durable_mark: u64,
    pub(crate) index: SparseIndex,
    /// Where chains ended without an end mark, and why.
    pub(crate) damage: Vec<(u64, CorruptionKind)>,
    /// Position after the last byte that is not zero, after the last stretch.
    pub(crate) garbage_end: u64,
    /// Where the last batch of the last stretch begins.
    pub(crate) last_batch: u32,
}

impl Scan {
    pub(crate) fn new(base_offset: u64) -> Self {
        Self {
            opening: None,
            stretches: Vec::new(),
            producers: Vec::new(),
            durable_mark: 0,
            index: SparseIndex::new(base_offset),
            damage: Vec::new(),
            garbage_end: 0,
            last_batch: 0,
        }
    }

    /// Adds what a recovery point covers in front of what was scanned from there on.
    pub(crate) fn join_to(&mut self, opening: &Opening, point: &Checkpoint) {
        let (start, base_offset) = (SegmentHeader::END_POSITION, opening.base_offset);
        if let Some(first) =
            self.stretches.first_mut().filter(|first| first.start == point.position)
        {
            (first.start, first.base_offset) = (start, base_offset);
        } else {
            let (end, next_offset, times) = (point.position, point.end_offset, point.times());
            if self.stretches.is_empty() {
                self.last_batch = point.last_batch;
            }
            self.stretches.insert(0, Stretch { start, end, base_offset, next_offset, times });
            self.producers.insert(0, ProducerTable::default());
        }
        self.durable_mark = self.durable_mark.max(point.end_offset);
        self.opening = Some(opening.clone());
    }
}

/// The opening batch of a segment and its size, if it is whole.
pub(crate) fn read_opening(
    file: &dyn DiskFile,
    key: &SegmentKey,
) -> io::Result<Option<(Opening, u32)>> {
    /// LIMIT: the opening of a segment whose partition has a hundred named producers.
    const ENOUGH_BYTES: usize = 4 << 10;
    let mut reader = ChunkReader::new(file, u64::MAX, ENOUGH_BYTES)?;
    let bytes = reader.batch(u64::from(SegmentHeader::END_POSITION))?;
    let Ok(Some(view)) = BatchView::check(bytes, key) else {
        return Ok(None);
    };
    Ok(Opening::decode(&view).ok().map(|opening| (opening, view.header().size)))
}

/// What part of a segment a scan reads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScanFrom {
    pub(crate) position: u32,
    /// The offset that the batch there must have; `None` at the opening batch, which defines it.
    pub(crate) offset: Option<u64>,
    pub(crate) base_offset: u64,
    pub(crate) times: Option<TimeRange>,
    /// Where the bytes of interest end.
    pub(crate) end: u64,
    /// Where the next segment begins: batches beyond it do not belong to the log.
    pub(crate) bound: u64,
}

impl ScanFrom {
    /// All of a segment.
    pub(crate) fn start(base_offset: u64) -> Self {
        Self {
            position: SegmentHeader::END_POSITION,
            offset: None,
            base_offset,
            times: None,
            end: u64::MAX,
            bound: u64::MAX,
        }
    }
}

/// Scans a segment: first the chain of batches, then what follows its end.
pub(crate) fn scan_segment(
    file: &dyn DiskFile,
    key: &SegmentKey,
    from: ScanFrom,
) -> io::Result<Scan> {
    let reader = ChunkReader::new(file, from.end, CHUNK_BYTES)?;
    let scan = Scan::new(from.base_offset);
    let mut scanner = Scanner { reader, key, bound: from.bound, times: from.times, scan };
    let mut position = u64::from(from.position);
    let mut expected = from.offset;
    loop {
        let chain = scanner.follow_chain(position, expected)?;
        match chain.ended {
            Ended::AtMark => {}
            Ended::AtBound => return Ok(scanner.scan),
            Ended::Damaged(kind) => scanner.scan.damage.push((chain.end, kind)),
        }
        if !Rule::Evidence.holds() {
            return Ok(scanner.scan);
        }
        expected = chain.next_offset.or(expected);
        let above = expected.unwrap_or(0);
        let wanted = |header: &BatchHeader| header.base_offset >= above;
        let searched = next_whole_batch(&mut scanner.reader, key, chain.end, wanted)?;
        scanner.scan.garbage_end = scanner.scan.garbage_end.max(searched.garbage_end);
        let Some(found) = searched.found else {
            return Ok(scanner.scan);
        };
        position = found.position;
        expected = None;
    }
}

/// A scan under way.
struct Scanner<'a> {
    reader: ChunkReader<'a>,
    key: &'a SegmentKey,
    bound: u64,
    times: Option<TimeRange>,
    scan: Scan,
}

/// Why a chain of batches ended.
enum Ended {
    AtMark,
    AtBound,
    Damaged(CorruptionKind),
}

struct Chain {
    end: u64,
    /// The offset that it reached; `None` if it has no batch and nothing was expected.
    next_offset: Option<u64>,
    ended: Ended,
}

impl Scanner<'_> {
    /// Follows the chain from `start`, where a batch at `expected` should be.
    fn follow_chain(&mut self, start: u64, expected: Option<u64>) -> io::Result<Chain> {
        let mut position = start;
        let mut next_offset = expected;
        let mut base_offset = expected;
        let mut producers = ProducerTable::default();
        let ended = loop {
            let bytes = self.reader.batch(position)?;
            let view = match BatchView::check(bytes, self.key) {
                Ok(Some(view)) => view,
                Ok(None) => break Ended::AtMark,
                Err(kind) => break Ended::Damaged(kind),
            };
            let header = view.header();
            if let Some(expected) = next_offset.filter(|expected| header.base_offset < *expected) {
                let found = header.base_offset;
                break Ended::Damaged(CorruptionKind::OffsetOrder { expected, found });
            }
            let Ok(at) = u32::try_from(position) else {
                break Ended::Damaged(CorruptionKind::Length("a segment"));
            };
            let opening = match self.scan.opening_in(&view) {
                Ok(opening) => opening,
                Err(kind) => break Ended::Damaged(kind),
            };
            // Checked last: damage without a bound is also damage with it, and the bytes after it
            // are searched.
            if header.next_offset() > self.bound {
                break Ended::AtBound;
            }
            match opening {
                Some(opening) => self.scan.note_opening(opening),
                None => self.scan.note_batch(&header, at, &mut self.times, &mut producers),
            }
            self.scan.last_batch = at;
            base_offset = base_offset.or(Some(header.base_offset));
            next_offset = Some(header.next_offset());
            position = position.saturating_add(u64::from(header.size));
        };
        if let (Ok(start), Ok(end)) = (u32::try_from(start), u32::try_from(position))
            && let (Some(base_offset), Some(next_offset)) = (base_offset, next_offset)
            && end > start
        {
            let times = self.times;
            self.scan.stretches.push(Stretch { start, end, base_offset, next_offset, times });
            self.scan.producers.push(producers);
        }
        Ok(Chain { end: position, next_offset, ended })
    }
}

impl Scan {
    /// The contents of an opening batch, if one may be here.
    fn opening_in(&self, view: &BatchView<'_>) -> Result<Option<Opening>, CorruptionKind> {
        if !view.header().is_opening() {
            return Ok(None);
        }
        let opening = Opening::decode(view)?;
        if self.opening.is_some() || !self.stretches.is_empty() {
            return Err(CorruptionKind::Malformed("a second opening batch"));
        }
        Ok(Some(opening))
    }

    fn note_opening(&mut self, opening: Opening) {
        self.index = SparseIndex::new(opening.base_offset);
        self.durable_mark = self.durable_mark.max(opening.durable_mark);
        self.opening = Some(opening);
    }

    fn note_batch(
        &mut self,
        header: &BatchHeader,
        at: u32,
        times: &mut Option<TimeRange>,
        producers: &mut ProducerTable,
    ) {
        self.durable_mark = self.durable_mark.max(header.durable_mark().unwrap_or(0));
        if header.record_count > 0 {
            // A batch without records has no time. The time of the append is not stored with a
            // batch, so the timestamp is used.
            let max = header.max_timestamp;
            TimeRange::note(times, header.base_timestamp, max, Moment { wall: max, run: max });
            self.index.note_batch(header.base_offset, at, header.size, max);
        }
        if let (Some(producer), Some(last_sequence)) = (header.producer, header.last_sequence()) {
            let state = ProducerState {
                id: producer.id,
                epoch: producer.epoch,
                last_sequence,
                last_offset: header.next_offset().saturating_sub(1),
                last_timestamp: header.max_timestamp,
            };
            producers.note(state, header.max_timestamp);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::format::{BatchEncoder, ONE_PASS_CHECKSUMS, Placement};
    use crate::storage::disk::{Disk, MemoryDisk};

    fn key() -> SegmentKey {
        SegmentKey::new(7, ONE_PASS_CHECKSUMS)
    }

    fn opening(base_offset: u64) -> Vec<u8> {
        let (leader_epoch, incarnation, durable_mark) = (0, 1, 0);
        let producers = Vec::new();
        Opening { base_offset, leader_epoch, incarnation, durable_mark, producers }
            .encode(&key(), 1)
            .unwrap()
    }

    fn record(base_offset: u64) -> Vec<u8> {
        let mut encoder = BatchEncoder::new();
        encoder.push(1, None, Some(b"value"), std::iter::empty::<(&str, &[u8])>()).unwrap();
        let (leader_epoch, durable_end, producer) = (0, 0, None);
        let placement = Placement { base_offset, leader_epoch, durable_end, key: &key(), producer };
        encoder.finish().seal(&placement).to_vec()
    }

    /// Symptom: a record that was appended was removed by the next opening, and nothing was
    /// reported. Cause: a segment had an opening batch where none may stand, which said that it was
    /// far ahead. Alone, that was damage, and the batches after it counted. Once another segment
    /// followed, it was the bound, the batches after it were not searched for, and the next segment
    /// stood after a gap. Rule: a bound hides only what lies beyond it.
    #[test]
    fn a_bound_hides_nothing_below_it() {
        let disk = MemoryDisk::new();
        let file = disk.create(Path::new("/s")).unwrap();
        let parts = [vec![0; SegmentHeader::SIZE], opening(0), record(0), opening(900), record(1)];
        file.write_at(&parts.concat(), 0).unwrap();
        let offsets = |bound| -> Vec<(u64, u64)> {
            let scan =
                scan_segment(&*file, &key(), ScanFrom { bound, ..ScanFrom::start(0) }).unwrap();
            scan.stretches.iter().map(|it| (it.base_offset, it.next_offset)).collect()
        };
        assert_eq!(offsets(u64::MAX), [(0, 1), (1, 2)]);
        assert_eq!(offsets(2), [(0, 1), (1, 2)]);
        assert_eq!(offsets(1), [(0, 1)]);
    }
}

//! Verification: reads all files of a partition again, and returns what is wrong as values.
//!
//! Owns: the checks that normal operation never makes: the header of a file that is open, the
//! batches that a footer covers, and the contents of the footer itself. Must not know: locks.
//! Appends continue meanwhile; batches that are published after a segment was read are not
//! verified.
//!
//! The checks of a segment, each of which continues after damage:
//! 1. The header: intact, of this topic, partition and number, and with the salt in use.
//! 2. The opening batch: whole, first, only, and where the segment begins.
//! 3. Every batch up to the end: checksum, structure, offsets that follow one another, the greatest
//!    timestamp as announced. Offsets may be missing only in what compaction has rewritten.
//! 4. The footer of a sealed segment: intact, and each summary and index row as the batches have
//!    it.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::sync::Arc;

use super::chunk::{CHUNK_BYTES, ChunkReader};
use super::damage::next_whole_batch;
use super::scan::read_opening;
use super::segment::{Segment, SegmentList};
use super::{LogIdentity, PAGE_BYTES};
use crate::clock::Moment;
use crate::error::{Corruption, CorruptionKind, Error, Result};
use crate::format::{
    BATCH_HEADER_SIZE_MAX, BatchHeader, BatchView, Footer, HAS_GAPS, HeaderError, IndexRow,
    Opening, Rewrite, SegmentHeader, TimeRange, parse_segment_file_name,
};
use crate::record::TopicPartition;
use crate::storage::disk::{Access, Disk, DiskFile};

/// What a verification has found so far.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) batches: u64,
    pub(crate) records: u64,
    pub(crate) damage: Vec<Corruption>,
}

impl Findings {
    pub(crate) fn add(&mut self, other: Self) {
        self.batches = self.batches.saturating_add(other.batches);
        self.records = self.records.saturating_add(other.records);
        self.damage.extend(other.damage);
    }
}

/// Verifies the segments of one partition. `lacks_footer` says which ones have no footer yet, or
/// will have none; `published` is an end that the log had before the call.
///
/// # Errors
///
/// [`Error::Io`] if the disk does not return the bytes; damage is a finding.
pub(crate) fn verify_segments(
    segments: &SegmentList,
    identity: &LogIdentity,
    published: u64,
    lacks_footer: impl Fn(u64) -> bool,
    findings: &mut Findings,
) -> Result<()> {
    let (mut reached, mut rank) = (None, None);
    let mut before: Option<Arc<Segment>> = None;
    while let Some(segment) = segments.some_after(rank, 1).pop() {
        // Its end now, not the end that was seen: the active segment may have grown since.
        let base_offset = before.as_ref().and_then(|before| before.next_offset());
        let had = (findings.batches, findings.records, findings.damage.len());
        let verified = Verifier::new(&segment, identity, findings).run(base_offset, &lacks_footer);
        if !segments.contains(&segment) {
            // Retention or compaction has removed it meanwhile: its findings do not count, and the
            // segment that replaced it is next.
            (findings.batches, findings.records) = (had.0, had.1);
            findings.damage.truncate(had.2);
            (reached, before) = (None, None);
            continue;
        }
        rank = Some(segment.ranks.1);
        reached = Some(verified?);
        before = Some(segment);
    }
    let Some(last) = segments.last() else { return Ok(()) };
    if let Some(found) = reached.filter(|reached| *reached < published) {
        let kind = CorruptionKind::ShortOfDurable { found, durable: published };
        findings.damage.push(last.corruption(last.end() as u64, Some(found..published), kind));
    }
    Ok(())
}

/// Looks for files that have a segment's name but are not in the log, because their beginning is
/// not what was written. Their records are lost, and no segment of the list shows it.
///
/// # Errors
///
/// [`Error::Io`] if a file cannot be read.
pub(crate) fn verify_names(
    disk: &dyn Disk,
    segments: &SegmentList,
    identity: &LogIdentity,
    findings: &mut Findings,
) -> Result<()> {
    let dir = &identity.dir;
    let entries = disk.list(dir).map_err(|source| Error::io("list", dir, source))?;
    let known: HashSet<u64> = segments.all().iter().map(|segment| segment.number).collect();
    for entry in entries {
        let number = parse_segment_file_name(&entry.name);
        if number.is_none_or(|number| known.contains(&number)) {
            continue;
        }
        let file = dir.join(&entry.name);
        let (position, kind) = match disk.open(&file, Access::Read).and_then(|it| lost(&*it)) {
            Ok(Some(found)) => found,
            Ok(None) => continue,
            // Removed meanwhile.
            Err(source) if source.kind() == ErrorKind::NotFound => continue,
            Err(source) => return Err(Error::io("read", &file, source)),
        };
        if segments.all().iter().any(|segment| Some(segment.number) == number) {
            continue; // came into use meanwhile
        }
        let partition = Some(TopicPartition::clone(&identity.origin));
        findings.damage.push(Corruption { partition, file, position, offsets: None, kind });
    }
    Ok(())
}

/// What is damaged in a file that is not in the log although it was in use: its header or its first
/// batch is not what was written. `None` if it was never used.
fn lost(file: &dyn DiskFile) -> std::io::Result<Option<(u64, CorruptionKind)>> {
    const START: u64 = SegmentHeader::SIZE as u64;
    let mut bytes = [0; SegmentHeader::SIZE];
    let read = file.read_at(&mut bytes, 0)?;
    let header = match SegmentHeader::decode(bytes.get(..read).unwrap_or_default()) {
        Ok(header) => header,
        Err(HeaderError::Corrupt(kind)) => return Ok(Some((0, kind))),
        Err(HeaderError::Unsupported { .. }) => return Ok(None),
    };
    if read_opening(file, &header.key())?.is_some() {
        return Ok(None); // a leftover
    }
    let mut first = [0; BATCH_HEADER_SIZE_MAX];
    let read = file.read_at(&mut first, START)?;
    // A prepared segment has zeros there.
    let was_used = first.get(..read).unwrap_or_default().iter().any(|byte| *byte != 0);
    Ok(was_used.then_some((START, CorruptionKind::Malformed("the opening batch"))))
}

/// One segment being verified.
struct Verifier<'a> {
    segment: &'a Arc<Segment>,
    identity: &'a LogIdentity,
    findings: &'a mut Findings,
    /// Whether a compaction may have taken records, and with them offsets, out.
    is_rewritten: bool,
    has_opening: bool,
    /// The offset that the next batch should have.
    expected: u64,
    times: Option<TimeRange>,
    /// Whether every batch was readable: only then can the footer be compared with them.
    is_whole: bool,
    rows: Rows,
}

impl<'a> Verifier<'a> {
    fn new(
        segment: &'a Arc<Segment>,
        identity: &'a LogIdentity,
        findings: &'a mut Findings,
    ) -> Self {
        Self {
            segment,
            identity,
            findings,
            is_rewritten: false,
            has_opening: false,
            expected: segment.base_offset,
            times: None,
            is_whole: true,
            rows: Rows::default(),
        }
    }

    /// `expected` is where the segment should begin. Returns where the next one should.
    fn run(mut self, expected: Option<u64>, lacks_footer: &impl Fn(u64) -> bool) -> Result<u64> {
        let base_offset = self.segment.base_offset;
        self.check_base(expected);
        // Read in this order: a sealed segment has its final end, and its footer a little later.
        let sealed = self.segment.sealed().copied();
        let end = self.segment.end() as u64;
        let lacks_footer = lacks_footer(self.segment.number);
        let next_offset = sealed.map(|sealed| sealed.next_offset);
        let file = match self.segment.open_file(Access::Read) {
            Ok(file) => file,
            Err(Error::Corrupt(mut missing)) => {
                missing.offsets = next_offset.map(|next| base_offset..next);
                self.findings.damage.push(missing);
                return Ok(next_offset.unwrap_or(base_offset));
            }
            Err(error) => return Err(error),
        };
        let header = self.read_header(&*file)?;
        let rewrite = header.and_then(|header| header.rewrite);
        let has_gaps = header.is_some_and(|header| header.compatible & HAS_GAPS != 0);
        self.is_rewritten = has_gaps || matches!(rewrite, Some(Rewrite::Replaces(_)));
        let footer = match sealed {
            Some(_) if !lacks_footer => self.read_footer(&*file)?,
            _ => None,
        };
        if let Some(footer) = &footer {
            self.rows = Rows::of(footer);
        }
        self.check_batches(&*file, end, next_offset)?;
        if let Some(footer) = &footer {
            self.check_footer(footer, end);
        }
        Ok(next_offset.unwrap_or(self.expected))
    }

    fn damage(&mut self, position: u64, kind: CorruptionKind) {
        self.findings.damage.push(self.segment.corruption(position, None, kind));
    }

    /// The segment begins where the one before has ended.
    fn check_base(&mut self, reached: Option<u64>) {
        let (base, Some(reached)) = (self.segment.base_offset, reached) else { return };
        if base > reached {
            let missing = Some(reached..base);
            let damage = self.segment.corruption(0, missing, CorruptionKind::Missing);
            self.findings.damage.push(damage);
        } else if base < reached {
            self.damage(0, CorruptionKind::OffsetOrder { expected: reached, found: base });
        }
    }

    fn failed(&self, source: std::io::Error) -> Error {
        Error::io("read", &self.segment.path, source)
    }

    fn read_header(&mut self, file: &dyn DiskFile) -> Result<Option<SegmentHeader>> {
        let mut bytes = [0; SegmentHeader::SIZE];
        let read = file.read_at(&mut bytes, 0).map_err(|source| self.failed(source))?;
        let header = match SegmentHeader::decode(bytes.get(..read).unwrap_or_default()) {
            Ok(header) => header,
            Err(HeaderError::Corrupt(kind)) => {
                self.damage(0, kind);
                return Ok(None);
            }
            Err(HeaderError::Unsupported { .. }) => {
                // This build understood the version when it opened or created the file.
                self.damage(0, CorruptionKind::Foreign("version"));
                return Ok(None);
            }
        };
        let foreign = if header.topic_id != self.identity.topic_id {
            Some("topic")
        } else if header.partition != self.identity.origin.partition {
            Some("partition")
        } else if header.number != self.segment.number {
            Some("number")
        } else {
            (header.salt != self.segment.key.salt()).then_some("salt")
        };
        if let Some(what) = foreign {
            self.damage(0, CorruptionKind::Foreign(what));
        }
        Ok(Some(header))
    }

    /// Follows the batches up to `end`, and after damage continues with the next whole one.
    fn check_batches(
        &mut self,
        file: &dyn DiskFile,
        end: u64,
        next_offset: Option<u64>,
    ) -> Result<()> {
        let reader = ChunkReader::new(file, end, CHUNK_BYTES);
        let mut reader = reader.map_err(|source| self.failed(source))?;
        let start = u64::from(SegmentHeader::END_POSITION);
        let mut position = start;
        while position < end {
            let bytes = reader.batch(position).map_err(|source| self.failed(source))?;
            let kind = match BatchView::check(bytes, &self.segment.key) {
                Ok(Some(view)) => {
                    let size = u64::from(view.header().size);
                    self.note_batch(&view, position);
                    position = position.saturating_add(size);
                    continue;
                }
                // An end mark below the end.
                Ok(None) => CorruptionKind::Length("a batch"),
                Err(kind) => kind,
            };
            self.is_whole = false;
            let above = self.expected;
            let wanted = |header: &BatchHeader| header.base_offset >= above;
            let searched = next_whole_batch(&mut reader, &self.segment.key, position, wanted);
            let found = searched.map_err(|source| self.failed(source))?.found;
            let until = found.map(|found| found.base_offset).or(next_offset);
            let lost = until.filter(|until| *until > above).map(|until| above..until);
            self.findings.damage.push(self.segment.corruption(position, lost, kind));
            self.expected = until.unwrap_or(above).max(above);
            position = found.map_or(end, |found| found.position);
        }
        // A file without a batch is kept for a log that a crash left empty.
        if !self.has_opening && self.is_whole && end > start {
            self.damage(start, CorruptionKind::Malformed("the opening batch"));
        }
        if let Some(next) = next_offset.filter(|next| self.is_whole && *next != self.expected) {
            let found = self.expected;
            if !self.is_rewritten || found > next {
                self.damage(end, CorruptionKind::OffsetOrder { expected: next, found });
            }
        }
        Ok(())
    }

    fn note_batch(&mut self, view: &BatchView<'_>, position: u64) {
        let header = view.header();
        if header.is_opening() {
            let opening = Opening::decode(view);
            let is_first = position == u64::from(SegmentHeader::END_POSITION);
            let begins_here = |opening: Opening| opening.base_offset == self.segment.base_offset;
            match opening.map(begins_here) {
                Ok(true) if is_first => self.has_opening = true,
                Ok(_) => self.damage(position, CorruptionKind::Malformed("the opening batch")),
                Err(kind) => self.damage(position, kind),
            }
            return;
        }
        self.findings.batches += 1;
        self.findings.records += u64::from(header.record_count);
        let (expected, found) = (self.expected, header.base_offset);
        let whole = u64::from(header.record_count) == u64::from(header.last_offset_delta) + 1;
        let follows = found == expected || (self.is_rewritten && found > expected);
        if !follows {
            self.damage(position, CorruptionKind::OffsetOrder { expected, found });
        } else if !whole && !self.is_rewritten {
            self.damage(position, CorruptionKind::Malformed("record count"));
        }
        let greatest = view.records().map(|record| record.timestamp).max();
        if whole && greatest.is_some_and(|greatest| greatest != header.max_timestamp) {
            self.damage(position, CorruptionKind::Malformed("maximum timestamp"));
        }
        self.rows.note_batch(&header, position, self.times.map(|times| times.max));
        if header.record_count > 0 {
            // The age is not a timestamp of a record, so it cannot be compared with batches.
            let age = Moment::default();
            TimeRange::note(&mut self.times, header.base_timestamp, header.max_timestamp, age);
        }
        self.expected = header.next_offset().max(expected);
    }

    /// The footer; `None`, and a finding, where there is none that is intact.
    fn read_footer(&mut self, file: &dyn DiskFile) -> Result<Option<Footer>> {
        let length = file.len().map_err(|source| self.failed(source))?;
        let mut trailer = [0; Footer::TRAILER_SIZE];
        let trailer_start = length.saturating_sub(trailer.len() as u64);
        let read = file.read_at(&mut trailer, trailer_start);
        read.map_err(|source| self.failed(source))?;
        let size = Footer::length(&trailer).map(u64::from);
        // The length is compared with the file before anything is allocated by it.
        let start = size.and_then(|size| length.checked_sub(size));
        let (Some(size), Some(start)) = (size, start) else {
            self.damage(trailer_start, CorruptionKind::Malformed("the footer"));
            return Ok(None);
        };
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        let read = file.read_at(&mut bytes, start).map_err(|source| self.failed(source))?;
        match Footer::decode(bytes.get(..read).unwrap_or_default(), self.segment.key.salt()) {
            Ok(footer) => Ok(Some(footer)),
            Err(kind) => {
                self.damage(start, kind);
                Ok(None)
            }
        }
    }

    /// Compares the footer with the batches.
    fn check_footer(&mut self, footer: &Footer, end: u64) {
        if u64::from(footer.data_end) > end {
            // It is older than a truncation. The log ignores it, and so does the verification.
            return;
        }
        if !self.is_whole {
            return;
        }
        self.rows.finish(self.times.map(|times| times.max));
        let of_records = |times: TimeRange| (times.first, times.max);
        let wrong = if u64::from(footer.data_end) != end {
            Some("footer data end")
        } else if footer.base_offset != self.segment.base_offset
            || Some(footer.next_offset) != self.segment.next_offset()
        {
            Some("footer offsets")
        } else if footer.times.map(of_records) != self.times.map(of_records) {
            Some("footer timestamps")
        } else {
            self.rows.is_wrong.then_some("footer index")
        };
        if let Some(what) = wrong {
            let position = end.next_multiple_of(PAGE_BYTES);
            self.damage(position, CorruptionKind::Malformed(what));
        }
    }
}

/// The rows of a footer's index, compared with the batches in their order.
#[derive(Debug, Default)]
struct Rows {
    base_offset: u64,
    left: std::vec::IntoIter<IndexRow>,
    /// The row of the interval that is being read, and the one where the next begins.
    current: Option<IndexRow>,
    next: Option<IndexRow>,
    is_wrong: bool,
}

impl Rows {
    fn of(footer: &Footer) -> Self {
        let mut left = footer.index.rows().to_vec().into_iter();
        let next = left.next();
        let base_offset = footer.base_offset;
        Self { base_offset, left, current: None, next, is_wrong: false }
    }

    /// A batch, and the greatest timestamp before it.
    fn note_batch(&mut self, header: &BatchHeader, position: u64, max_before: Option<u64>) {
        let Some(next) = self.next else { return };
        if position < u64::from(next.position) {
            return;
        }
        let offset = self.base_offset.saturating_add(u64::from(next.offset_delta));
        // The row was skipped: no batch begins there.
        self.is_wrong |= position > u64::from(next.position) || header.base_offset != offset;
        self.end_interval(max_before);
        self.current = Some(next);
        self.next = self.left.next();
    }

    /// The interval of the current row has ended.
    fn end_interval(&mut self, max: Option<u64>) {
        if let Some(row) = self.current.take() {
            self.is_wrong |= Some(row.max_timestamp) != max;
        }
    }

    /// After the last batch.
    fn finish(&mut self, max: Option<u64>) {
        self.end_interval(max);
        // A row after the last batch.
        self.is_wrong |= self.next.is_some();
    }
}

//! Salvages one partition: copies the readable records of its files into new files elsewhere.
//!
//! Owns: reading a directory of segments that an opening may refuse, and writing the copy. Must not
//! know: topics and brokers, to which the files belong. The source is only read, by `pread`, a
//! chunk at a time.
//!
//! [`recovery`](super::recovery) decides what the files mean, by the same rules as an opening, with
//! one exception: salvage cuts no tail that was not cut before. A batch that is whole under the
//! random salt of its segment was written there, and belongs in the copy, whether or not a sync
//! ever covered it. [`plan`], which is pure, decides which batch goes into which new file.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::plan::{Piece, Plan, judge, plan};
use super::chunk::{CHUNK_BYTES, ChunkReader};
use super::compaction::output::{Heritage, Output, Target};
use super::inventory::{Found, Inventory, LostFile, Reader, lost_facts};
use super::producers::ProducerTable;
use super::recovery::{Action, Damage, Decision, Facts, bounds};
use super::scan::{ScanFrom, Stretch, scan_segment};
use super::{Checkpoint, LogEnv, LogIdentity, OFFSET_MAX};
use crate::clock::Moment;
use crate::error::{Corruption, CorruptionKind, Error, Result};
use crate::format::{
    BatchView, HeaderError, NUMBERED_CHANGES, Replacement, SegmentHeader, TopicId, VERSION,
    parse_segment_file_name,
};
use crate::record::TopicPartition;
use crate::storage::disk::{Access, Disk, DiskFile, EntryKind};

mod plan;

/// The recorded ends of a partition, apart from its files.
#[derive(Debug, Clone, Default)]
pub(crate) struct RecordedEnds {
    /// Records below were removed on purpose.
    pub(crate) log_start: Option<u64>,
    /// The log was durable up to this offset.
    pub(crate) proved: u64,
    /// The log ended there at a clean close: an opening has cut, and reported, everything above.
    pub(crate) is_end: bool,
}

impl RecordedEnds {
    /// The ends of a recovery point. `is_closed` if nothing was opened since it was written.
    pub(crate) fn of(point: Option<&Checkpoint>, log_start: Option<u64>, is_closed: bool) -> Self {
        Self {
            log_start: log_start.max(point.map(|point| point.log_start)),
            proved: point.map_or(0, |point| point.end_offset.min(OFFSET_MAX)),
            is_end: is_closed && point.is_some(),
        }
    }
}

/// The readable contents of a partition's directory.
pub(crate) struct DamagedLog {
    found: Vec<Found>,
    plan: Plan,
    /// Every hole, every file that does not match its name, and a torn tail.
    pub(crate) damage: Vec<Corruption>,
}

/// What was copied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Copied {
    pub(crate) batches: u64,
    pub(crate) records: u64,
    /// The ids of the named producers that the log knows, with the highest epoch of each.
    pub(crate) producers: BTreeMap<u64, u32>,
}

impl Copied {
    fn note_producer(&mut self, id: u64, epoch: u32) {
        let known = self.producers.entry(id).or_insert(epoch);
        *known = epoch.max(*known);
    }
}

/// The ids of the topics whose segments are in the directory of a partition, each with the number
/// of segments.
///
/// # Errors
///
/// [`Error::Io`], [`Error::UnsupportedVersion`]. Other contents of the files cause no error.
pub(crate) fn owners(
    disk: &dyn Disk,
    dir: &Path,
    partition: u32,
) -> Result<BTreeMap<TopicId, u64>> {
    let mut owners = BTreeMap::new();
    for entry in disk.list(dir).map_err(|source| Error::io("list", dir, source))? {
        if entry.kind != EntryKind::File || parse_segment_file_name(&entry.name).is_none() {
            continue;
        }
        let path = dir.join(&entry.name);
        match read_header(disk, &path)?.1 {
            Ok(header) if header.partition == partition => {
                let count: &mut u64 = owners.entry(header.topic_id).or_default();
                *count = count.saturating_add(1);
            }
            Ok(_) => {}
            // Checked here already, before the directory of the copy is created.
            Err(error) => drop(damage_of(&path, error)?),
        }
    }
    Ok(owners)
}

type Header = std::result::Result<SegmentHeader, HeaderError>;

fn read_header(disk: &dyn Disk, path: &Path) -> Result<(Arc<dyn DiskFile>, Header)> {
    let file = disk.open(path, Access::Read);
    let file = file.map_err(|source| Error::io("open", path, source))?;
    let mut bytes = [0; SegmentHeader::SIZE];
    let read = file.read_at(&mut bytes, 0);
    let read = read.map_err(|source| Error::io("read", path, source))?;
    let header = SegmentHeader::decode(bytes.get(..read).unwrap_or_default());
    Ok((file, header))
}

/// What is damaged in a header that cannot be read.
///
/// # Errors
///
/// [`Error::UnsupportedVersion`] if it is whole, and of a later version.
fn damage_of(path: &Path, error: HeaderError) -> Result<CorruptionKind> {
    match error {
        HeaderError::Corrupt(kind) => Ok(kind),
        HeaderError::Unsupported { version, features } => {
            let (path, found, supported) = (path.to_owned(), version, VERSION);
            Err(Error::UnsupportedVersion { path, found, supported, features })
        }
    }
}

impl DamagedLog {
    /// Reads a partition's directory, which may be missing. Changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the disk does not return the bytes, [`Error::UnsupportedVersion`]. Damage
    /// causes no error.
    pub(crate) fn read(
        disk: &dyn Disk,
        identity: &LogIdentity,
        recorded: &RecordedEnds,
    ) -> Result<Self> {
        let mut survey = Survey { disk, identity, damage: Vec::new() };
        let mut inventory = survey.list()?;
        Reader::read_openings(&mut inventory.found)?;
        scan(&mut inventory.found)?;
        let facts: Vec<Facts> = inventory.found.iter().map(Found::scanned_facts).collect();
        let decision = judge(&facts, &inventory.lost_facts(), recorded);
        let plan = plan(&facts, &decision, recorded.log_start);
        let missed = decision.damage.iter().map(|damage| {
            let offsets = Some(damage.offsets.clone()).filter(|offsets| !offsets.is_empty());
            let kind = damage.kind.clone();
            let path =
                Some(inventory.path(damage.segment)).filter(|path| path.file_name().is_some());
            // Where there is no file at all.
            let path = path.unwrap_or_else(|| identity.dir.clone());
            survey.corruption(path, damage.position, offsets, kind)
        });
        let mut damage: Vec<Corruption> = missed.collect();
        if decision.cut_bytes > 0 && !recorded.is_end {
            damage.extend(survey.torn_end(&inventory, &decision));
        }
        damage.append(&mut survey.damage);
        Ok(Self { found: inventory.found, plan, damage })
    }

    /// Files that another program has shortened. Only for a log whose segments are never smaller
    /// than their first allocation.
    pub(crate) fn shortened(&self) -> Result<Vec<PathBuf>> {
        let mut shortened = Vec::new();
        for found in &self.found {
            if found.is_shortened()? {
                shortened.push(found.path.clone());
            }
        }
        Ok(shortened)
    }

    /// Whether any segment may hold numbered changes.
    pub(crate) fn has_numbers(&self) -> bool {
        self.found.iter().any(|found| found.header.incompatible & NUMBERED_CHANGES != 0)
    }

    /// The log start offset of the copy.
    pub(crate) fn start_offset(&self) -> u64 {
        self.plan.start_offset
    }

    pub(crate) fn end_offset(&self) -> u64 {
        self.plan.end_offset
    }

    /// The offsets that the copy lacks, in order. Offsets that compaction or retention removed do
    /// not count, as long as the batches around them are whole.
    pub(crate) fn lost(&self) -> &[Range<u64>] {
        &self.plan.lost
    }

    /// Passes every whole batch to `each`, in order.
    ///
    /// # Errors
    ///
    /// The error of `each`; [`Error::Io`]; [`Error::Corrupt`] if the disk returns other bytes than
    /// before.
    pub(crate) fn for_each_batch(
        &self,
        mut each: impl FnMut(&BatchView<'_>) -> Result<()>,
    ) -> Result<()> {
        self.plan.pieces.iter().try_for_each(|piece| self.read_piece(piece, &mut each))
    }

    /// Writes the copy into an existing, empty directory: new segments with all whole batches, at
    /// the same offsets. Durable on return.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] and [`Error::Corrupt`] if a batch cannot be read again; errors of writing.
    /// Completed files are kept.
    pub(crate) fn copy_to(&self, env: &Arc<LogEnv>, target: &LogIdentity) -> Result<Copied> {
        let mut copied = Copied::default();
        let mut heritage = Heritage {
            leader_epoch: 0,
            incarnation: (env.random)(),
            producers: Vec::new(),
            age: Moment::default(),
        };
        // A segment has a higher number than its ranks. Here each covers one rank of its own, so
        // the numbers are above all ranks.
        let numbers = self.plan.pieces.len() as u64..;
        for ((rank, number), piece) in (0..).zip(numbers).zip(&self.plan.pieces) {
            self.inherit(piece, &mut heritage);
            heritage.producers.iter().for_each(|it| copied.note_producer(it.id, it.epoch));
            let replacement = Replacement {
                base_offset: piece.base_offset,
                next_offset: piece.next_offset,
                first_number: rank,
                last_number: rank,
                // Compaction will find out.
                is_clean: false,
            };
            let allotted = (number, GENERATION);
            let mut output =
                Output::create(env, target, allotted, replacement, heritage.clone(), Target::New)?;
            self.read_piece(piece, &mut |view| {
                let header = view.header();
                copied.batches = copied.batches.saturating_add(1);
                copied.records = copied.records.saturating_add(u64::from(header.record_count));
                header.producer.iter().for_each(|it| copied.note_producer(it.id, it.epoch));
                output.copy(view)
            })?;
            output.finish(&[])?;
        }
        Ok(copied)
    }

    fn read_piece(
        &self,
        piece: &Piece,
        each: &mut dyn FnMut(&BatchView<'_>) -> Result<()>,
    ) -> Result<()> {
        let Some(found) = piece.segment.and_then(|index| self.found.get(index)) else {
            return Ok(());
        };
        let failed = |source| Error::io("read", &found.path, source);
        let key = found.header.key();
        for range in &piece.ranges {
            let reader = ChunkReader::new(&*found.file, u64::from(range.end), CHUNK_BYTES);
            let mut reader = reader.map_err(failed)?;
            let mut position = u64::from(range.start);
            while position < u64::from(range.end) {
                let bytes = reader.batch(position).map_err(failed)?;
                let view = match BatchView::check(bytes, &key) {
                    Ok(Some(view)) => view,
                    Ok(None) => return Err(changed(found, position, None)),
                    Err(kind) => return Err(changed(found, position, Some(kind))),
                };
                let header = view.header();
                if !header.is_opening() {
                    each(&view)?;
                }
                position = position.saturating_add(u64::from(header.size));
            }
        }
        Ok(())
    }

    /// Adds the state of the log at the end of a piece, beside its records.
    fn inherit(&self, piece: &Piece, heritage: &mut Heritage) {
        let Some(found) = piece.segment.and_then(|index| self.found.get(index)) else { return };
        let scan = found.scan.as_ref();
        heritage.age = Moment::default();
        let mut table = ProducerTable::from_states(heritage.producers.iter().copied());
        if let Some(footer) = &found.footer {
            table = ProducerTable::from_states(footer.producers.iter().copied());
            (heritage.leader_epoch, heritage.incarnation) =
                (footer.leader_epoch, footer.incarnation);
        } else if let Some(opening) = scan.and_then(|scan| scan.opening.as_ref()) {
            table = ProducerTable::from_states(opening.producers.iter().copied());
            (heritage.leader_epoch, heritage.incarnation) =
                (opening.leader_epoch, opening.incarnation);
        }
        let stretches = scan.map(|scan| scan.stretches.iter().zip(&scan.producers));
        for (stretch, producers) in stretches.into_iter().flatten() {
            if piece.ranges.iter().any(|range| range.start == stretch.start) {
                table.merge(producers);
                let aged_from = stretch.times.map_or(0, |times| times.aged_from);
                heritage.age.wall = heritage.age.wall.max(aged_from);
            }
        }
        let footer = found.footer.as_ref();
        if let Some(times) = footer.and_then(|footer| footer.times) {
            heritage.age.wall = times.aged_from;
        }
        heritage.producers = table.states();
    }
}

/// The generation of the segments of a copy: that of a first rewrite.
const GENERATION: u32 = 1;

/// The error for a batch that was whole when it was read before.
fn changed(found: &Found, position: u64, kind: Option<CorruptionKind>) -> Error {
    let kind = kind.unwrap_or(CorruptionKind::Length("a batch"));
    let (partition, file, offsets) = (None, found.path.clone(), None);
    Corruption { partition, file, position, offsets, kind }.into()
}

/// Reads a partition's directory.
struct Survey<'a> {
    disk: &'a dyn Disk,
    identity: &'a LogIdentity,
    damage: Vec<Corruption>,
}

impl Survey<'_> {
    fn corruption(
        &self,
        file: PathBuf,
        position: u64,
        offsets: Option<Range<u64>>,
        kind: CorruptionKind,
    ) -> Corruption {
        let partition = Some(TopicPartition::clone(&self.identity.origin));
        Corruption { partition, file, position, offsets, kind }
    }

    /// The bytes after the end of a log that are no batch: an interrupted write, or a batch that
    /// was damaged. `None` if data is known to be missing there.
    fn torn_end(&self, inventory: &Inventory, decision: &Decision) -> Option<Corruption> {
        let last = decision.last_kept()?;
        let Action::Keep { data_end, .. } = *decision.actions.get(last)? else { return None };
        let position = u64::from(data_end);
        let is_there = |damage: &Damage| damage.segment == last && damage.position == position;
        if decision.damage.iter().any(is_there) {
            return None;
        }
        let scan = inventory.found.get(last)?.scan.as_ref();
        let mut found = scan.into_iter().flat_map(|scan| &scan.damage);
        let found = found.find(|(at, _)| *at == position).map(|(_, kind)| kind.clone());
        let kind = found.unwrap_or(CorruptionKind::Malformed("the tail"));
        Some(self.corruption(inventory.path(last), position, None, kind))
    }

    fn note(&mut self, file: PathBuf, kind: CorruptionKind) {
        let damage = self.corruption(file, 0, None, kind);
        self.damage.push(damage);
    }

    fn list(&mut self) -> Result<Inventory> {
        let dir = &self.identity.dir;
        let (mut found, mut lost) = (Vec::new(), Vec::new());
        let entries = match self.disk.list(dir) {
            Err(source) if is_absent(&source) => Vec::new(),
            listed => listed.map_err(|source| Error::io("list", dir, source))?,
        };
        for entry in entries {
            let Some(number) = parse_segment_file_name(&entry.name) else { continue };
            let path = dir.join(&entry.name);
            if entry.kind != EntryKind::File {
                self.note(path, CorruptionKind::Magic);
                continue;
            }
            let (file, header) = read_header(self.disk, &path)?;
            match header {
                Ok(header) => match self.foreign(&header, number) {
                    None => found.push(Found::new(path, header, file)?),
                    Some(what) => self.note(path, CorruptionKind::Foreign(what)),
                },
                Err(error) => {
                    let kind = damage_of(&path, error)?;
                    let facts = lost_facts(&*file, number, kind);
                    let facts = facts.map_err(|source| Error::io("read", &path, source))?;
                    lost.push(LostFile { path, facts });
                }
            }
        }
        if found.is_empty() && lost.is_empty() {
            self.note(dir.clone(), CorruptionKind::Missing);
        }
        found.sort_by_key(|found: &Found| (*found.header.ranks().start(), found.header.number));
        Ok(Inventory { found, lost, temporary: Vec::new(), resumable: None })
    }

    /// The field of a header by which its file belongs to another partition or rank.
    fn foreign(&self, header: &SegmentHeader, number: u64) -> Option<&'static str> {
        if header.topic_id != self.identity.topic_id {
            Some("topic")
        } else if header.partition != self.identity.origin.partition {
            Some("partition")
        } else {
            (header.number != number).then_some("number")
        }
    }
}

pub(crate) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Scans all segments, each up to where the next one begins: batches that a crash left after a cut
/// do not belong to the log. The beginning of a segment may be known only after its scan.
fn scan(found: &mut [Found]) -> Result<()> {
    /// LIMIT: the second round knows all beginnings.
    const ROUNDS: usize = 2;
    for _ in 0..ROUNDS {
        let facts: Vec<Facts> = found.iter().map(Found::scanned_facts).collect();
        for (found, bound) in found.iter_mut().zip(bounds(&facts)) {
            let footer = found.footer.as_ref();
            let bound = footer.map_or(bound, |footer| bound.min(footer.next_offset));
            let stretches = found.scan.as_ref().map(|scan| &scan.stretches);
            let is_beyond = |stretches: &Vec<Stretch>| {
                stretches.last().is_some_and(|last| last.next_offset > bound)
            };
            if stretches.is_none_or(is_beyond) {
                let end = footer.map_or(u64::MAX, |footer| u64::from(footer.data_end));
                let base_offset = found.base_offset().unwrap_or(0);
                let from = ScanFrom { end, bound, ..ScanFrom::start(base_offset) };
                let scan = scan_segment(&*found.file, &found.header.key(), from);
                let scan = scan.map_err(|source| Error::io("read", &found.path, source))?;
                found.scan = Some(scan);
            }
        }
    }
    Ok(())
}

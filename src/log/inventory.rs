//! The passes of an opening that only read a partition's directory:
//!
//! 1. List the directory, and read and check the header and footer of each segment.
//! 2. Scan the batches that no footer covers, from the recovery point if there is one, up to where
//!    the next segment begins.
//!
//! Must not know: what the findings mean, which [`recovery`](super::recovery) decides. Whatever the
//! files hold, the result is an error or a finding; no byte is changed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::chunk::{CHUNK_BYTES, ChunkReader};
use super::create::FIRST_ALLOCATION_BYTES;
use super::known::Known;
use super::recovery::{Facts, Lost, bounds};
use super::scan::{Scan, ScanFrom, Stretch, read_opening, scan_segment};
use super::segment::read_footer;
use super::tasks::finished_bytes;
use super::{Checkpoint, LogEnv, LogIdentity};
use crate::error::{Corruption, CorruptionKind, Error, Result};
use crate::format::{
    ALIGNMENT, BatchHeader, BatchView, Footer, HeaderError, Opening, Rewrite, SegmentHeader,
    VERSION, parse_segment_file_name, parse_temporary_segment_file_name,
};
use crate::record::TopicPartition;
use crate::storage::disk::{Access, Disk, DiskFile, Entry, EntryKind};

/// One segment file and what was read of it.
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) header: SegmentHeader,
    pub(super) footer: Option<Footer>,
    pub(super) scan: Option<Scan>,
    /// Whether the scan began at the recovery point, which covers everything before it.
    pub(super) from_point: bool,
    opening: Option<(Opening, u32)>,
    pub(super) file: Arc<dyn DiskFile>,
}

impl Found {
    /// A segment file with an intact header, and its footer if that is intact too.
    pub(super) fn new(
        path: PathBuf,
        header: SegmentHeader,
        file: Arc<dyn DiskFile>,
    ) -> Result<Self> {
        let footer = read_footer(&*file, header.salt);
        let footer = footer.map_err(|source| Error::io("read the footer of", &path, source))?;
        Ok(Self { path, header, footer, scan: None, from_point: false, opening: None, file })
    }

    /// The opening batch, where there is no footer.
    pub(super) fn opening(&self) -> Option<&Opening> {
        self.opening.as_ref().map(|(opening, _)| opening)
    }

    /// The offset at which its data begins. Without footer and opening batch, that at which it cuts the
    /// log, or that of the first whole batch; `None` if there is none.
    pub(super) fn base_offset(&self) -> Option<u64> {
        let footer = self.footer.as_ref().map(|footer| footer.base_offset);
        footer.or_else(|| self.opening().map(|opening| opening.base_offset)).or_else(|| {
            let first = self.scan.as_ref().and_then(|scan| scan.stretches.first());
            let first = first.map(|stretch| stretch.base_offset);
            self.cuts_at().into_iter().chain(first).min()
        })
    }

    /// The offset at which it cuts the log, by its header: it begins there or right below, unless nothing is
    /// kept.
    fn cuts_at(&self) -> Option<u64> {
        match self.header.rewrite {
            Some(Rewrite::Truncates(at)) => Some(at).filter(|at| *at > 0),
            _ => None,
        }
    }

    /// The approximate space of the file; no decision depends on its exact value.
    pub(super) fn bytes(&self) -> u64 {
        let length = self.file.len().unwrap_or(0);
        let footer = self.footer.as_ref().and_then(|footer| {
            let encoded = footer.encode(self.header.salt).ok()?;
            Some(finished_bytes(u64::from(footer.data_end), encoded.len()))
        });
        footer.map_or(length, |bytes| bytes.min(length))
    }

    pub(super) fn facts(&self) -> Facts {
        let mut facts = self.header_facts();
        if let Some(footer) = &self.footer {
            facts.durable = footer.next_offset;
            facts.stretches.push(Stretch {
                start: SegmentHeader::END_POSITION,
                end: footer.data_end,
                base_offset: footer.base_offset,
                next_offset: footer.next_offset,
                times: footer.times,
            });
        } else if let Some(scan) = &self.scan {
            take_scan(&mut facts, scan);
        }
        facts
    }

    /// The facts of a segment whose batches were scanned although it has a footer: of the footer
    /// only the base offset is used, and the proof that all before its end was durable.
    pub(super) fn scanned_facts(&self) -> Facts {
        let mut facts = self.header_facts();
        if let Some(scan) = &self.scan {
            take_scan(&mut facts, scan);
        }
        if let Some(footer) = &self.footer {
            facts.durable = facts.durable.max(footer.next_offset);
            let start = SegmentHeader::END_POSITION;
            if facts.stretches.first().is_none_or(|first| first.start > start) {
                let (base_offset, times) = (footer.base_offset, None);
                let next_offset = base_offset;
                let nothing = Stretch { start, end: start, base_offset, next_offset, times };
                facts.stretches.insert(0, nothing);
            }
        }
        facts
    }

    /// The facts from the header, and where the data begins.
    fn header_facts(&self) -> Facts {
        let (truncates_to, replaces) = match self.header.rewrite {
            None => (None, false),
            Some(Rewrite::Truncates(at)) => (Some(at), false),
            Some(Rewrite::Replaces(_)) => (None, true),
        };
        Facts {
            number: self.header.number,
            ranks: self.header.ranks().into_inner(),
            generation: self.header.generation,
            truncates_to,
            replaces,
            base_offset: self.base_offset(),
            ..Facts::default()
        }
    }

    /// Whether the file ends with its data, below the first allocation of every new segment. No
    /// crash shortens a file, so another program has, and what the rest held is not known. Only for
    /// logs whose segments are never smaller than their first allocation.
    pub(super) fn is_shortened(&self) -> Result<bool> {
        let failed = |source| Error::io("read", &self.path, source);
        let length = self.file.len().map_err(failed)?;
        // A longer file may end with a footer that was torn.
        let may_be = self.footer.is_none() && length < FIRST_ALLOCATION_BYTES;
        let Some(scan) = self.scan.as_ref().filter(|_| may_be) else { return Ok(false) };
        let last = scan.stretches.last();
        let data_end = last.map_or(SegmentHeader::SIZE as u64, |last| u64::from(last.end));
        let mark_end = data_end.saturating_add(ALIGNMENT as u64);
        Ok(length < mark_end || scan.garbage_end > data_end)
    }

    fn read_opening(&mut self) -> Result<()> {
        let opening = read_opening(&*self.file, &self.header.key());
        self.opening = opening.map_err(|source| Error::io("read", &self.path, source))?;
        Ok(())
    }

    /// Whether the file agrees with the recovery point of its log: the last batch that the point
    /// names is whole, and ends where the point says.
    fn agrees_with(&self, point: &Checkpoint) -> io::Result<bool> {
        let Some((opening, opening_size)) = &self.opening else {
            return Ok(false);
        };
        let Checkpoint { position, last_batch, end_offset, .. } = *point;
        let data_start = SegmentHeader::END_POSITION.saturating_add(*opening_size);
        let within = last_batch >= SegmentHeader::END_POSITION && position >= data_start;
        // It is compared with the file's length before memory of this size is allocated.
        let there = u64::from(position) <= self.file.len()? && opening.base_offset <= end_offset;
        let (true, true, Some(size)) = (within, there, position.checked_sub(last_batch)) else {
            return Ok(false);
        };
        let mut bytes = vec![0; size as usize];
        let read = self.file.read_at(&mut bytes, u64::from(last_batch))?;
        let batch = BatchView::check(bytes.get(..read).unwrap_or_default(), &self.header.key());
        Ok(batch.ok().flatten().is_some_and(|view| {
            view.header().next_offset() == end_offset && view.header().size == size
        }))
    }

    /// Whether the word at `position` is an end mark, or the file ends there.
    fn ends_at(&self, position: u32) -> io::Result<bool> {
        let mut word = [0; ALIGNMENT];
        let read = self.file.read_at(&mut word, u64::from(position))?;
        Ok(BatchHeader::declared_size(word.get(..read).unwrap_or_default()).unwrap_or(0) == 0)
    }
}

fn take_scan(facts: &mut Facts, scan: &Scan) {
    facts.durable = scan.durable_mark;
    facts.stretches.clone_from(&scan.stretches);
    facts.damage.clone_from(&scan.damage);
    facts.garbage_end = scan.garbage_end;
}

/// A segment file whose header is not what was written. Without the salt in it, nothing in the
/// file can be distinguished from chance.
pub(super) struct LostFile {
    pub(super) path: PathBuf,
    pub(super) facts: Lost,
}

/// The files of a partition.
pub(super) struct Inventory {
    pub(super) found: Vec<Found>,
    pub(super) lost: Vec<LostFile>,
    /// Files that were being made.
    pub(super) temporary: Vec<PathBuf>,
    /// The segment that was active at a clean close, if all is as the close left it.
    pub(super) resumable: Option<usize>,
}

impl Inventory {
    pub(super) fn lost_facts(&self) -> Vec<Lost> {
        self.lost.iter().map(|lost| lost.facts.clone()).collect()
    }

    /// # Errors
    ///
    /// [`Error::Corrupt`] if a file was shortened: see [`Found::is_shortened`].
    pub(super) fn refuse_shortened(&self, reader: &Reader<'_>) -> Result<()> {
        for found in &self.found {
            if found.is_shortened()? {
                let kind = CorruptionKind::Length("the file");
                return Err(reader.corruption(found.path.clone(), 0, kind).into());
            }
        }
        Ok(())
    }

    /// The file of an index in a decision: lost files follow the others.
    pub(super) fn path(&self, index: usize) -> PathBuf {
        let lost = || self.lost.get(index.checked_sub(self.found.len())?);
        let found = self.found.get(index).map(|found| &found.path);
        found.or_else(|| Some(&lost()?.path)).cloned().unwrap_or_default()
    }
}

/// The read-only passes.
pub(super) struct Reader<'a> {
    pub(super) env: &'a Arc<LogEnv>,
    pub(super) identity: &'a LogIdentity,
    pub(super) known: &'a Known,
}

impl Reader<'_> {
    pub(super) fn read(&self) -> Result<Inventory> {
        let mut inventory = self.list()?;
        if inventory.found.is_empty() && inventory.lost.is_empty() {
            let dir = self.identity.dir.clone();
            return Err(self.corruption(dir, 0, CorruptionKind::Missing).into());
        }
        Self::read_openings(&mut inventory.found)?;
        inventory.resumable = self.clean_end(&mut inventory.found)?;
        self.scan(&mut inventory.found)?;
        Ok(inventory)
    }

    pub(super) fn corruption(
        &self,
        file: PathBuf,
        position: u64,
        kind: CorruptionKind,
    ) -> Corruption {
        let partition = Some(TopicPartition::clone(&self.identity.origin));
        Corruption { partition, file, position, offsets: None, kind }
    }

    /// Pass 1.
    fn list(&self) -> Result<Inventory> {
        let dir = &self.identity.dir;
        for dir in dir.parent().into_iter().chain([&**dir]) {
            check_no_link(&*self.env.disk, dir)?;
        }
        let entries = self.env.disk.list(dir).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => {
                self.corruption(dir.clone(), 0, CorruptionKind::Missing).into()
            }
            _ => Error::io("list", dir, source),
        })?;
        let (mut found, mut temporary) = (Vec::with_capacity(entries.len()), Vec::new());
        let mut lost = Vec::new();
        for entry in entries {
            let path = dir.join(&entry.name);
            let is_file = entry.kind == EntryKind::File;
            if is_file && parse_temporary_segment_file_name(&entry.name).is_some() {
                temporary.push(path);
            } else if let Some(number) = parse_segment_file_name(&entry.name) {
                if !is_file {
                    return Err(self.corruption(path, 0, CorruptionKind::Magic).into());
                }
                match self.read_segment(path, number)? {
                    Ok(segment) => found.push(segment),
                    Err(file) => lost.push(file),
                }
            }
        }
        found.sort_by_key(|found| (*found.header.ranks().start(), found.header.number));
        Ok(Inventory { found, lost, temporary, resumable: None })
    }

    /// DURABILITY: a segment bears its name only after its header was synced, so a header that is
    /// not whole is never a torn write: the file was damaged afterwards.
    fn read_segment(
        &self,
        path: PathBuf,
        number: u64,
    ) -> Result<std::result::Result<Found, LostFile>> {
        let opened = self.env.disk.open(&path, Access::Read);
        let file = opened.map_err(|source| Error::io("open", &path, source))?;
        let mut bytes = [0; SegmentHeader::SIZE];
        let read = file.read_at(&mut bytes, 0);
        let read = read.map_err(|source| Error::io("read", &path, source))?;
        let header = match SegmentHeader::decode(bytes.get(..read).unwrap_or_default()) {
            Ok(header) => header,
            Err(HeaderError::Unsupported { version, features }) => {
                let supported = VERSION;
                return Err(Error::UnsupportedVersion {
                    path,
                    found: version,
                    supported,
                    features,
                });
            }
            Err(HeaderError::Corrupt(kind)) => {
                let facts = lost_facts(&*file, number, kind);
                let facts = facts.map_err(|source| Error::io("read", &path, source))?;
                return Ok(Err(LostFile { path, facts }));
            }
        };
        let foreign = if header.topic_id != self.identity.topic_id {
            Some("topic")
        } else if header.partition != self.identity.origin.partition {
            Some("partition")
        } else {
            (header.number != number).then_some("number")
        };
        if let Some(what) = foreign {
            return Err(self.corruption(path, 0, CorruptionKind::Foreign(what)).into());
        }
        Found::new(path, header, file).map(Ok)
    }

    /// The opening batches of segments without a footer.
    pub(super) fn read_openings(found: &mut [Found]) -> Result<()> {
        for found in found.iter_mut().filter(|found| found.footer.is_none()) {
            found.read_opening()?;
        }
        let facts: Vec<Facts> = found.iter().map(Found::facts).collect();
        for (found, bound) in found.iter_mut().zip(bounds(&facts)) {
            if found.footer.as_ref().is_some_and(|footer| footer.next_offset > bound) {
                // It claims too much: the log was truncated after it was written.
                found.footer = None;
                found.read_opening()?;
            }
        }
        Ok(())
    }

    /// The segment in which, according to a clean close, the log ends. If its first and last
    /// batches agree, it counts as scanned.
    fn clean_end(&self, found: &mut [Found]) -> Result<Option<usize>> {
        let Some(point) = self.known.checkpoint.as_ref().filter(|_| self.known.clean) else {
            return Ok(None);
        };
        let at = found.iter().position(|found| found.header.number == point.segment);
        let Some((index, last)) = at.and_then(|index| Some((index, found.get_mut(index)?))) else {
            return Ok(None);
        };
        // A file with another name may be the active segment of another log, made by a copier that
        // links: it is read, and never appended to.
        let agrees = last.agrees_with(point).and_then(|ok| {
            Ok(ok && last.ends_at(point.position)? && !last.file.has_other_names()?)
        });
        if !agrees.map_err(|source| Error::io("read", &last.path, source))? {
            return Ok(None);
        }
        if let (None, Some((opening, _))) = (&last.footer, &last.opening) {
            let mut scan = Scan::new(opening.base_offset);
            scan.join_to(opening, point);
            last.scan = Some(scan);
            last.from_point = true;
            return Ok(Some(index));
        }
        Ok(None)
    }

    /// Pass 2.
    fn scan(&self, found: &mut [Found]) -> Result<()> {
        let facts: Vec<Facts> = found.iter().map(Found::facts).collect();
        for (found, bound) in found.iter_mut().zip(bounds(&facts)) {
            if found.footer.is_none() && found.scan.is_none() {
                let scanned = self.scan_one(found, bound);
                scanned.map_err(|source| Error::io("read", &found.path, source))?;
            }
        }
        Ok(())
    }

    fn scan_one(&self, found: &mut Found, bound: u64) -> io::Result<()> {
        let number = found.header.number;
        let point = self.known.checkpoint.as_ref().filter(|point| point.segment == number);
        let base_offset = found.opening().map_or(0, |opening| opening.base_offset);
        let mut from = ScanFrom { bound, ..ScanFrom::start(base_offset) };
        let mut trusted = None;
        if let (Some(point), Some((opening, _))) = (point, &found.opening)
            && point.end_offset <= bound
            && found.agrees_with(point)?
        {
            from.position = point.position;
            from.offset = Some(point.end_offset);
            from.times = point.times();
            trusted = Some((opening.clone(), point));
        }
        let mut scan = scan_segment(&*found.file, &found.header.key(), from)?;
        if let Some((opening, point)) = trusted {
            scan.join_to(&opening, point);
            found.from_point = true;
        }
        found.scan = Some(scan);
        Ok(())
    }
}

/// Refuses a directory of ours that is a link. Its target may be on a file system on which mapped
/// stores are not safe, or belong to another log; only the data directory itself is checked for
/// that.
pub(crate) fn check_no_link(disk: &dyn Disk, dir: &Path) -> Result<()> {
    match disk.kind(dir).map_err(|source| Error::io("look at", dir, source))? {
        Some(EntryKind::Directory) | None => Ok(()),
        Some(EntryKind::File | EntryKind::Other) => {
            Err(Error::io("open", dir, io::ErrorKind::NotADirectory.into()))
        }
    }
}

/// What a file with a lost header still shows: the headers of its batches, as long as they follow
/// one another, and how many bytes there are.
pub(super) fn lost_facts(
    file: &dyn DiskFile,
    number: u64,
    kind: CorruptionKind,
) -> io::Result<Lost> {
    let mut reader = ChunkReader::new(file, u64::MAX, CHUNK_BYTES)?;
    let mut position = u64::from(SegmentHeader::END_POSITION);
    let mut claimed: Option<u64> = None;
    let claimed = loop {
        match BatchHeader::parse(reader.batch(position)?) {
            Ok(Some(header)) if claimed.is_none_or(|next| next <= header.base_offset) => {
                claimed = Some(header.next_offset());
                position = position.saturating_add(u64::from(header.size));
            }
            Ok(None) => break claimed,
            Ok(Some(_)) | Err(_) => break None,
        }
    };
    let mut bytes = 0;
    let mut position = u64::from(SegmentHeader::END_POSITION);
    loop {
        let chunk = reader.at(position, 1)?;
        let Some(last) = chunk.iter().rposition(|byte| *byte != 0) else {
            if chunk.is_empty() {
                return Ok(Lost { number, kind, claimed, bytes });
            }
            position = position.saturating_add(chunk.len() as u64);
            continue;
        };
        let after_header = position.saturating_sub(u64::from(SegmentHeader::END_POSITION));
        bytes = after_header.saturating_add(last as u64).saturating_add(1);
        position = position.saturating_add(chunk.len() as u64);
    }
}

/// Whether a partition was ever appended to: there is a whole batch of records in any of its
/// segments, or one begins after some.
///
/// # Errors
///
/// [`Error::Io`]: what cannot be read is not empty.
pub(crate) fn holds_records(env: &LogEnv, identity: &LogIdentity) -> Result<bool> {
    let dir = &identity.dir;
    let entries = match env.disk.list(dir) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(false),
        listed => listed.map_err(|source| Error::io("list", dir, source))?,
    };
    let is_segment = |entry: &&Entry| {
        entry.kind == EntryKind::File && parse_segment_file_name(&entry.name).is_some()
    };
    for entry in entries.iter().filter(is_segment) {
        let path = dir.join(&entry.name);
        let holds = || {
            let file = env.disk.open(&path, Access::Read)?;
            let mut bytes = [0; SegmentHeader::SIZE];
            let read = file.read_at(&mut bytes, 0)?;
            let header = SegmentHeader::decode(bytes.get(..read).unwrap_or_default());
            let Some(header) = header.ok().filter(|it| it.topic_id == identity.topic_id) else {
                return Ok(false);
            };
            let scan = scan_segment(&*file, &header.key(), ScanFrom::start(0))?;
            // The first file of a log begins where the log was made to begin.
            let made_at = scan.stretches.first().filter(|_| header.number == 0);
            let made_at = made_at.map_or(0, |first| first.base_offset);
            Ok(scan.stretches.iter().any(|stretch| stretch.next_offset > made_at))
        };
        if holds().map_err(|source| Error::io("read", &path, source))? {
            return Ok(true);
        }
    }
    Ok(false)
}

//! Opening a log: read what is there, let [`recovery::decide`] say what it means, then act.
//!
//! Numbered passes:
//! 1. Inventory: list the directory, read and check each segment's header and footer.
//! 2. Scan what no footer vouches for, from the recovery point where there is one.
//! 3. Decide (pure).
//! 4. Act: remove leftovers, build the segment list, resume the last segment if it was closed
//!    cleanly. No byte of any segment is changed, and no file is removed because of damage.
//!
//! A second crash in any pass leaves the same files, or the same less some leftovers: opening is
//! idempotent.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use super::active::{Active, reopen};
use super::create::{NewSegment, region_writer};
use super::producers::ProducerTable;
use super::recovery::{Facts, Fate, Verdict, decide};
use super::scan::{Scan, ScanFrom, Stretch, read_opening, scan_segment};
use super::segment::{Sealed, Segment, SegmentList, read_footer};
use super::tasks::{Unfinished, Unproved};
use super::{Checkpoint, Log, LogEnv, LogIdentity, LogOptions, from_tuple};
use crate::config::RecoveryPolicy;
use crate::error::{Corruption, CorruptionKind, Error, Result};
use crate::format::{BatchView, Footer, HeaderError, Opening, Rewrite, SegmentHeader, SparseIndex, TimeRange, VERSION, parse_segment_file_name, parse_temporary_segment_file_name};
use crate::record::TopicPartition;
use crate::storage::disk::{Access, DiskFile, EntryKind};

/// What the broker knows of a partition before it is opened.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) checkpoint: Option<Checkpoint>,
    /// The broker was closed after the checkpoint was written, and nothing was opened since.
    pub(crate) clean: bool,
    /// The machine was not restarted since: what is in the page cache may not be on the disk.
    pub(crate) same_boot: bool,
    pub(crate) policy: RecoveryPolicy,
    pub(crate) read_only: bool,
}

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

/// One segment file and what was read of it.
struct Found {
    path: PathBuf,
    header: SegmentHeader,
    footer: Option<Footer>,
    scan: Option<Scan>,
    file: Arc<dyn DiskFile>,
}

impl Log {
    pub(crate) fn open(
        env: &Arc<LogEnv>,
        identity: LogIdentity,
        options: LogOptions,
        known: &Known,
    ) -> Result<(Self, PartitionRecovery)> {
        let mut opening = Opener { env, identity: &identity, known, temporary: Vec::new() };
        let mut found = opening.inventory()?;
        if found.is_empty() {
            return Err(opening.corruption(identity.dir.clone(), 0, CorruptionKind::Missing).into());
        }
        let resume = opening.clean_end(&mut found);
        if !resume {
            opening.scan(&mut found)?;
        }
        let verdict = opening.decide(&found);
        let report = opening.report(&found, &verdict);
        if known.policy == RecoveryPolicy::Strict && (report.cut_bytes > 0 || !report.corrupt.is_empty()) {
            let torn = || opening.corruption(identity.dir.clone(), 0, CorruptionKind::Malformed("the tail"));
            return Err(report.corrupt.first().cloned().unwrap_or_else(torn).into());
        }
        let temporary = opening.temporary;
        let mut log = Self::empty(env, identity, options);
        log.assemble(&found, &verdict, known, resume)?;
        if !known.read_only {
            log.remove_leftovers(&found, &verdict, &temporary)?;
        }
        Ok((log, report))
    }

    fn assemble(&mut self, found: &[Found], verdict: &Verdict, known: &Known, resume: bool) -> Result<()> {
        let (mut segments, mut tail_starts) = (Vec::new(), Vec::new());
        let mut producers = ProducerTable::default();
        for (found, fate) in found.iter().zip(&verdict.fates) {
            let Fate::Keep { tail_start, data_end, next_offset, times } = *fate else { continue };
            tail_starts.push(tail_start);
            let base_offset = found.base_offset().unwrap_or(next_offset);
            let sealed = Sealed { data_end, next_offset, times };
            let segment = Segment::found(
                &self.env,
                &self.identity.origin,
                &found.path,
                (found.header.number, found.header.salt),
                base_offset,
                sealed,
            );
            self.adopt(found, &segment, &sealed, verdict, known, &mut producers);
            segments.push(segment);
        }
        self.producers = producers;
        self.next_number = found
            .iter()
            .map(|found| found.header.number.saturating_add(1))
            .max()
            .unwrap_or(0);
        self.generation = found.iter().map(|found| found.header.generation).max().unwrap_or(0);
        self.log_end = verdict.end_offset;
        // What was read after a restart of the machine came from the disk; otherwise only what is
        // proved is known to be there.
        let all_durable = !known.same_boot || known.clean;
        self.durable_end = if all_durable { self.log_end } else { verdict.durable.min(self.log_end) };
        let first_base = segments.first().map_or(self.log_end, |segment| segment.base_offset);
        let start = known.checkpoint.as_ref().map_or(first_base, |point| point.log_start);
        self.log_start = start.max(first_base).min(self.log_end);
        if resume {
            self.resume(found, &mut segments, known)?;
        } else {
            self.list_unproved(&segments, &tail_starts);
        }
        self.segments = Arc::new(SegmentList::new(segments));
        Ok(())
    }

    /// Takes over what a found segment says of producers, epochs and incarnations.
    fn adopt(
        &mut self,
        found: &Found,
        segment: &Arc<Segment>,
        sealed: &Sealed,
        verdict: &Verdict,
        known: &Known,
        producers: &mut ProducerTable,
    ) {
        if let Some(footer) = &found.footer {
            *producers = ProducerTable::from_states(footer.producers.iter().copied());
            self.leader_epoch = footer.leader_epoch;
            self.incarnation = footer.incarnation;
            return;
        }
        let opening = found.opening();
        if let Some(opening) = opening {
            *producers = ProducerTable::from_states(opening.producers.iter().copied());
            self.leader_epoch = opening.leader_epoch;
            self.incarnation = opening.incarnation;
        }
        let point = known.checkpoint.as_ref().filter(|point| point.segment == found.header.number);
        if let Some(point) = point {
            *producers = ProducerTable::from_states(point.producers.iter().map(from_tuple));
        }
        let mut index = SparseIndex::new(segment.base_offset);
        if let Some(scan) = &found.scan {
            index = scan.index.clone();
            for (base_offset, state) in &scan.producers {
                if *base_offset < sealed.next_offset {
                    producers.note(*state);
                }
            }
        }
        self.unfinished.push_back(Unfinished {
            segment: Arc::clone(segment),
            file: None,
            synced: sealed.next_offset <= verdict.durable || !known.same_boot,
            index,
            index_is_whole: point.is_none(),
            producers: producers.states(),
            leader_epoch: self.leader_epoch,
            incarnation: self.incarnation,
        });
    }

    /// After an unclean end: a new incarnation, and a list of what must be written again before
    /// anything in it may be called durable.
    fn list_unproved(&mut self, segments: &[Arc<Segment>], tail_starts: &[u32]) {
        self.incarnation = (self.env.random)();
        if self.durable_end >= self.log_end {
            return;
        }
        for (segment, tail_start) in segments.iter().zip(tail_starts) {
            if let Some(sealed) = segment.sealed().filter(|it| it.next_offset > self.durable_end) {
                let range = *tail_start..sealed.data_end;
                self.unproved.push(Arc::new(Unproved { segment: Arc::clone(segment), range }));
            }
        }
    }

    /// Goes on in the last segment, which was closed cleanly.
    fn resume(&mut self, found: &[Found], segments: &mut Vec<Arc<Segment>>, known: &Known) -> Result<()> {
        let (Some(point), Some(last), Some(found)) =
            (&known.checkpoint, segments.pop(), found.iter().rfind(|found| found.is_used()))
        else {
            return Ok(());
        };
        self.unfinished.pop_back();
        if known.read_only {
            segments.push(last);
            return Ok(());
        }
        let position = point.position as usize;
        let file = last.open_file(Access::ReadWrite)?;
        let capacity = usize::try_from(self.options.segment_bytes).unwrap_or(usize::MAX).max(position);
        let resumed = region_writer(&self.env, &file, capacity, position, self.options.writer)
            .map_err(|source| Error::io("map", &last.path, source))?;
        let segment = Segment::active(
            &self.env,
            &self.identity.origin,
            &found.path,
            (last.number, last.salt),
            last.base_offset,
            resumed.region(),
        );
        let mut active: Active =
            reopen(Arc::clone(&segment), file, resumed, self.options.writer, position)
                .map_err(|source| Error::io("grow", &last.path, source))?;
        active.times = point.times();
        active.last_batch = point.last_batch as usize;
        self.active = Some(active);
        segments.push(segment);
        Ok(())
    }

    /// Removes what the verdict says does not count: prepared segments that were never used, and
    /// whole segments behind a torn tail, once a successor says durably that they are cut off.
    fn remove_leftovers(&mut self, found: &[Found], verdict: &Verdict, temporary: &[PathBuf]) -> Result<()> {
        if verdict.cuts_segments {
            self.generation = self.generation.saturating_add(1);
            let cut = self.log_end;
            let rewrite = Rewrite { base_offset: cut, next_offset: cut, truncates: true };
            let new: NewSegment = self.prepare(0, Some(rewrite))?;
            self.prepared = Some(new.create(&self.env)?);
        }
        let unused = found
            .iter()
            .zip(&verdict.fates)
            .filter(|(_, fate)| **fate == Fate::Remove)
            .map(|(found, _)| &found.path);
        let mut removed = false;
        for path in temporary.iter().chain(unused) {
            let disk = &self.env.disk;
            disk.remove_file(path).map_err(|source| Error::io("remove", path, source))?;
            removed = true;
        }
        if removed {
            let dir = &self.identity.dir;
            self.env.disk.sync_dir(dir).map_err(|source| Error::io("sync", dir, source))?;
        }
        Ok(())
    }
}

impl Found {
    fn opening(&self) -> Option<&Opening> {
        self.scan.as_ref().and_then(|scan| scan.opening.as_ref())
    }

    fn base_offset(&self) -> Option<u64> {
        let footer = self.footer.as_ref().map(|footer| footer.base_offset);
        footer.or_else(|| self.opening().map(|opening| opening.base_offset))
    }

    fn is_used(&self) -> bool {
        self.base_offset().is_some()
    }

    fn facts(&self) -> Facts {
        let mut facts = Facts {
            number: self.header.number,
            generation: self.header.generation,
            truncates_to: self
                .header
                .rewrite
                .filter(|rewrite| rewrite.truncates)
                .map(|rewrite| rewrite.base_offset),
            base_offset: self.base_offset(),
            ..Facts::default()
        };
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
            facts.durable = scan.durable_mark;
            facts.stretches.clone_from(&scan.stretches);
            facts.damage.clone_from(&scan.damage);
            facts.garbage_end = scan.garbage_end;
        }
        facts
    }
}

/// The read-only passes.
struct Opener<'a> {
    env: &'a Arc<LogEnv>,
    identity: &'a LogIdentity,
    known: &'a Known,
    temporary: Vec<PathBuf>,
}

impl Opener<'_> {
    fn corruption(&self, file: PathBuf, position: u64, kind: CorruptionKind) -> Corruption {
        let partition = Some(TopicPartition::clone(&self.identity.origin));
        Corruption { partition, file, position, offsets: None, kind }
    }

    /// Pass 1.
    fn inventory(&mut self) -> Result<Vec<Found>> {
        let dir = &self.identity.dir;
        let entries = self.env.disk.list(dir).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => {
                self.corruption(dir.clone(), 0, CorruptionKind::Missing).into()
            }
            _ => Error::io("list", dir, source),
        })?;
        let mut found = Vec::with_capacity(entries.len());
        for entry in entries {
            let path = dir.join(&entry.name);
            if parse_temporary_segment_file_name(&entry.name).is_some() && entry.kind == EntryKind::File {
                self.temporary.push(path);
            } else if let Some(number) = parse_segment_file_name(&entry.name) {
                if entry.kind != EntryKind::File {
                    return Err(self.corruption(path, 0, CorruptionKind::Magic).into());
                }
                found.push(self.read_segment(path, number)?);
            }
        }
        found.sort_by_key(|found| found.header.number);
        Ok(found)
    }

    fn read_segment(&self, path: PathBuf, number: u64) -> Result<Found> {
        let file = self
            .env
            .disk
            .open(&path, Access::Read)
            .map_err(|source| Error::io("open", &path, source))?;
        let mut bytes = [0; SegmentHeader::SIZE];
        let read =
            file.read_at(&mut bytes, 0).map_err(|source| Error::io("read", &path, source))?;
        let header = match SegmentHeader::decode(bytes.get(..read).unwrap_or_default()) {
            Ok(header) => header,
            Err(HeaderError::Unsupported { version, features }) => {
                let supported = VERSION;
                return Err(Error::UnsupportedVersion { path, found: version, supported, features });
            }
            Err(HeaderError::Corrupt(kind)) => return Err(self.corruption(path, 0, kind).into()),
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
        let footer = read_footer(&*file, header.salt)
            .map_err(|source| Error::io("read the footer of", &path, source))?;
        Ok(Found { path, header, footer, scan: None, file })
    }

    /// Whether the log ends where a clean close said it does; if so, the last segment is taken as
    /// scanned. Looks at its first and its last batch only.
    fn clean_end(&self, found: &mut [Found]) -> bool {
        let Some(point) = self.known.checkpoint.as_ref().filter(|_| self.known.clean) else {
            return false;
        };
        let lacks_footer =
            |found: &Found| found.footer.is_none() && found.header.number < point.segment;
        if found.iter().any(lacks_footer) {
            return false;
        }
        let Some(last) = found.iter_mut().find(|found| found.header.number == point.segment) else {
            return false;
        };
        if last.footer.is_some() || point.last_batch < SegmentHeader::END_POSITION || point.position <= point.last_batch {
            return false;
        }
        let mut bytes = vec![0; (point.position - point.last_batch) as usize];
        let Ok(read) = last.file.read_at(&mut bytes, u64::from(point.last_batch)) else {
            return false;
        };
        if read < bytes.len() {
            return false;
        }
        let ends_there = matches!(
            BatchView::check(&bytes, last.header.salt),
            Ok(Some(view)) if view.header().next_offset() == point.end_offset
                && view.header().size as usize == bytes.len()
        );
        let Ok(Some((opening, _))) = read_opening(&*last.file, last.header.salt) else {
            return false;
        };
        if ends_there {
            let mut scan = Scan::new(opening.base_offset);
            scan.join_to(&opening, point);
            last.scan = Some(scan);
        }
        ends_there
    }

    /// Pass 2: every segment without a footer, from the recovery point where it lies in it.
    fn scan(&self, found: &mut [Found]) -> Result<()> {
        for found in found.iter_mut().filter(|found| found.footer.is_none()) {
            let scan = self
                .scan_one(found)
                .map_err(|source| Error::io("read", &found.path, source))?;
            found.scan = Some(scan);
        }
        Ok(())
    }

    fn scan_one(&self, found: &Found) -> std::io::Result<Scan> {
        let from = ScanFrom { position: SegmentHeader::END_POSITION, offset: None, base_offset: 0, times: None };
        let salt = found.header.salt;
        let Some(point) =
            self.known.checkpoint.as_ref().filter(|point| point.segment == found.header.number)
        else {
            return scan_segment(&*found.file, salt, from);
        };
        let Some((opening, size)) = read_opening(&*found.file, salt)? else {
            return scan_segment(&*found.file, salt, from);
        };
        if point.position < SegmentHeader::END_POSITION.saturating_add(size) || point.end_offset < opening.base_offset {
            return scan_segment(&*found.file, salt, from);
        }
        let from = ScanFrom {
            position: point.position,
            offset: Some(point.end_offset),
            base_offset: opening.base_offset,
            times: point.times(),
        };
        let mut scan = scan_segment(&*found.file, salt, from)?;
        scan.join_to(&opening, point);
        Ok(scan)
    }

    /// Pass 3.
    fn decide(&self, found: &[Found]) -> Verdict {
        let point = self.known.checkpoint.as_ref();
        let facts: Vec<Facts> = found.iter().map(Found::facts).collect();
        decide(&facts, point.map_or(0, |point| point.end_offset), point.map(|point| point.log_start))
    }

    fn report(&self, found: &[Found], verdict: &Verdict) -> PartitionRecovery {
        let origin = &self.identity.origin;
        let corrupt = verdict.damage.iter().map(|damage| Corruption {
            partition: Some(TopicPartition::clone(origin)),
            file: found.get(damage.segment).map_or_else(PathBuf::new, |found| found.path.clone()),
            position: damage.position,
            offsets: Some(damage.offsets.clone()),
            kind: damage.kind.clone(),
        });
        PartitionRecovery {
            topic: Arc::clone(&origin.topic),
            partition: origin.partition,
            end_offset: verdict.end_offset,
            cut_bytes: verdict.cut_bytes,
            corrupt: corrupt.collect(),
        }
    }
}

//! Writes one new segment file: header, opening batch, the remaining records of the inputs, footer.
//! Used by compaction, and by salvage, in whose new directory nothing is replaced.
//!
//! The file has a temporary name until it is complete. Data and footer are synced first, then the
//! file is renamed, and the name is durable when [`Output::finish`] returns. From the rename on the
//! file counts, and the segments whose ranks it covers do not.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::spare::{CompactionSpare, SPARE_BYTES};
use crate::clock::Moment;
use crate::error::{Corruption, CorruptionKind, Error, Result};
use crate::format::{
    BatchEncoder, BatchHeader, BatchView, Footer, ONE_PASS_CHECKSUMS, Opening, Placement,
    ProducerState, Replacement, Rewrite, SegmentHeader, SegmentKey, SparseIndex, TimeRange, reseal,
    segment_file_name, temporary_segment_file_name,
};
use crate::log::budget::Claim;
use crate::log::segment::{Sealed, Segment, SegmentFile};
use crate::log::tasks::finished_bytes;
use crate::log::{LogEnv, LogIdentity, PAGE_BYTES};
use crate::record::TopicPartition;
use crate::rules::Rule;
use crate::storage::disk::DiskFile;

/// LIMIT: how much is written at a time: enough that the calls cost little beside the sync, and
/// little memory.
const BUFFER_BYTES: usize = 256 << 10;

/// What a new segment inherits from its inputs beside their records.
#[derive(Debug, Clone)]
pub(in crate::log) struct Heritage {
    pub(in crate::log) leader_epoch: u32,
    pub(in crate::log) incarnation: u64,
    /// As it was at the end of the last input.
    pub(in crate::log) producers: Vec<ProducerState>,
    /// The moment from which the age of the youngest record of all inputs counts.
    pub(in crate::log) age: Moment,
}

/// Which file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::log) enum Target {
    New,
    /// The spare file for a full disk.
    Spare,
}

pub(in crate::log) struct Output {
    env: Arc<LogEnv>,
    identity: LogIdentity,
    header: SegmentHeader,
    replacement: Replacement,
    heritage: Heritage,
    draft: Draft,
    contents: Contents,
    is_named: bool,
}

/// The file under its temporary name, and what is not written to it yet.
struct Draft {
    target: Target,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    /// The bytes that are not written yet, and their position.
    buffer: Vec<u8>,
    written: u64,
    /// The range of the file that it does not need.
    unused: Range<u64>,
}

impl Draft {
    /// Makes the file, which begins with these bytes.
    fn create(
        env: &LogEnv,
        dir: &Path,
        number: u64,
        target: Target,
        buffer: Vec<u8>,
    ) -> Result<Self> {
        let path = match (target, &env.spare) {
            (Target::Spare, Some(spare)) => spare.path().to_path_buf(),
            _ => dir.join(temporary_segment_file_name(number)),
        };
        let file = match (target, &env.spare) {
            (Target::New, _) => env.disk.create(&path),
            (Target::Spare, Some(spare)) => spare.take(&*env.disk),
            (Target::Spare, None) => Err(io::ErrorKind::StorageFull.into()),
        };
        let file = file.map_err(|source| Error::io("create", &path, source))?;
        Ok(Self { target, path, file, buffer, written: 0, unused: 0..0 })
    }

    /// Where the next batch goes.
    fn end(&self) -> Result<u32> {
        let end = self.written.saturating_add(self.buffer.len() as u64);
        let limit = u64::from(u32::MAX);
        u32::try_from(end).map_err(|_| Error::RecordTooLarge { size: end, limit })
    }

    fn write_out(&mut self) -> Result<()> {
        let end = self.written.saturating_add(self.buffer.len() as u64);
        if self.target == Target::Spare && end > SPARE_BYTES {
            return Err(self.failed("write", io::ErrorKind::StorageFull.into()));
        }
        let written = self.file.write_at(&self.buffer, self.written);
        written.map_err(|source| self.failed("write", source))?;
        self.written = self.written.saturating_add(self.buffer.len() as u64);
        self.buffer.clear();
        Ok(())
    }

    /// Writes the footer behind the batches, which end at `data_end`.
    fn write_footer(&mut self, footer: &[u8], data_end: u32) -> Result<()> {
        // FORMAT: an end mark stands between the last batch and the footer.
        self.buffer.extend_from_slice(&[0; 4]);
        if self.target == Target::Spare {
            // FORMAT: a footer ends the file, and this one has its length.
            self.write_out()?;
            let start = SPARE_BYTES.saturating_sub(footer.len() as u64);
            if start < self.written {
                return Err(self.failed("write", io::ErrorKind::StorageFull.into()));
            }
            self.written = start;
            self.unused = u64::from(data_end).next_multiple_of(PAGE_BYTES)..start;
        }
        self.buffer.extend_from_slice(footer);
        self.write_out()
    }

    fn failed(&self, operation: &'static str, source: io::Error) -> Error {
        Error::io(operation, &self.path, source)
    }
}

/// What the footer will say of the batches.
struct Contents {
    index: SparseIndex,
    times: Option<TimeRange>,
    /// The earliest delete horizon.
    next_horizon: u64,
    /// The offset up to which they reach.
    reached: u64,
    /// Where the batches end that were left out since, and the leader epoch of the last of them.
    left_out: Option<(u64, u32)>,
}

impl Contents {
    fn new(base_offset: u64) -> Self {
        Self {
            index: SparseIndex::new(base_offset),
            times: None,
            next_horizon: Footer::NO_HORIZON,
            reached: base_offset,
            left_out: None,
        }
    }

    /// A batch was added at this position.
    fn note(&mut self, batch: &BatchHeader, at: u32, age: Moment) {
        if batch.record_count > 0 {
            let (first, max) = (batch.base_timestamp, batch.max_timestamp);
            TimeRange::note(&mut self.times, first, max, age);
            self.index.note_batch(batch.base_offset, at, batch.size, batch.max_timestamp);
        }
        self.next_horizon =
            batch.delete_horizon.map_or(self.next_horizon, |it| it.min(self.next_horizon));
        self.reached = batch.next_offset();
        self.left_out = None;
    }
}

impl Output {
    /// Makes the file, under its temporary name.
    pub(in crate::log) fn create(
        env: &Arc<LogEnv>,
        identity: &LogIdentity,
        (number, generation): (u64, u32),
        replacement: Replacement,
        heritage: Heritage,
        target: Target,
    ) -> Result<Self> {
        let header = SegmentHeader {
            topic_id: identity.topic_id,
            partition: identity.origin.partition,
            number,
            salt: env.salt(),
            generation,
            rewrite: Some(Rewrite::Replaces(replacement)),
            incompatible: ONE_PASS_CHECKSUMS,
            compatible: 0,
        };
        let opening = Opening {
            base_offset: replacement.base_offset,
            leader_epoch: heritage.leader_epoch,
            incarnation: heritage.incarnation,
            // All of it was durable before it was rewritten.
            durable_mark: replacement.next_offset,
            producers: heritage.producers.clone(),
        };
        let mut buffer = header.encode().to_vec();
        buffer.extend_from_slice(&opening.encode(&header.key(), 0)?);
        Ok(Self {
            draft: Draft::create(env, &identity.dir, number, target, buffer)?,
            contents: Contents::new(replacement.base_offset),
            env: Arc::clone(env),
            identity: identity.clone(),
            header,
            replacement,
            heritage,
            is_named: false,
        })
    }

    /// The key of the checksums of the batches that are pushed.
    pub(in crate::log) fn key(&self) -> SegmentKey {
        self.header.key()
    }

    /// Adds an unchanged batch, except for its local part.
    pub(in crate::log) fn copy(&mut self, view: &BatchView<'_>) -> Result<()> {
        let (key, mut resealed) = (self.header.key(), Ok(()));
        self.push(&view.header(), |out| {
            let start = out.len();
            out.extend_from_slice(view.bytes());
            let copied = out.get_mut(start..).unwrap_or_default();
            // All that is rewritten was durable.
            resealed = reseal(copied, u64::MAX, &key).map(|_| ());
            Ok(())
        })?;
        resealed.map_err(|kind| self.corruption(kind).into())
    }

    /// Adds a batch by having it appended to the buffer.
    pub(in crate::log) fn push(
        &mut self,
        header: &BatchHeader,
        append: impl FnOnce(&mut Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        self.begin_epoch(header.leader_epoch)?;
        self.write(header, append)
    }

    /// Takes note of a batch that is not added, because none of its records remains.
    pub(super) fn leave_out(&mut self, header: &BatchHeader) -> Result<()> {
        self.begin_epoch(header.leader_epoch)?;
        self.contents.left_out = Some((header.next_offset(), header.leader_epoch));
        Ok(())
    }

    /// FORMAT: where a leader epoch ends must remain visible, so its last batch is kept, without
    /// records: replicas find by it where their logs part.
    fn begin_epoch(&mut self, leader_epoch: u32) -> Result<()> {
        match self.contents.left_out {
            Some((end, of)) if of < leader_epoch => self.fill_up(end, of),
            _ => Ok(()),
        }
    }

    fn write(
        &mut self,
        header: &BatchHeader,
        append: impl FnOnce(&mut Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        let draft = &mut self.draft;
        let (at, start) = (draft.end()?, draft.buffer.len());
        append(&mut draft.buffer)?;
        let batch = draft.buffer.get(start..).unwrap_or_default();
        // The header that was written, not the one that was read: its times are those of the
        // remaining records.
        let pushed = BatchHeader::parse(batch).ok().flatten().unwrap_or(*header);
        self.contents.note(&pushed, at, self.heritage.age);
        if draft.buffer.len() >= BUFFER_BYTES { draft.write_out() } else { Ok(()) }
    }

    fn spare(&self) -> Option<&CompactionSpare> {
        self.env.spare.as_ref().filter(|_| self.draft.target == Target::Spare)
    }

    /// Completes the file, makes it durable and renames it: the commit point. After a failure there
    /// is no file, or one with the same records as those it replaces. Their claims on the byte
    /// budget become its own.
    pub(in crate::log) fn finish(mut self, replaced: &[Arc<Segment>]) -> Result<Arc<Segment>> {
        self.complete(replaced)
    }

    /// Completes the file, makes it durable and renames it. If this fails before the rename,
    /// dropping the output removes the file.
    pub(super) fn complete(&mut self, replaced: &[Arc<Segment>]) -> Result<Arc<Segment>> {
        let leader_epoch = self.heritage.leader_epoch;
        let leader_epoch = self.contents.left_out.map_or(leader_epoch, |(_, of)| of);
        self.fill_up(self.replacement.next_offset, leader_epoch)?;
        let data_end = self.draft.end()?;
        let Replacement { base_offset, next_offset, .. } = self.replacement;
        let times = self.contents.times;
        let sealed = Sealed { data_end, next_offset, times };
        let footer = Footer {
            base_offset,
            next_offset,
            data_end,
            times,
            leader_epoch: self.heritage.leader_epoch,
            incarnation: self.heritage.incarnation,
            index: self.contents.index.clone(),
            producers: self.heritage.producers.clone(),
            next_horizon: Some(self.contents.next_horizon),
        };
        let footer = footer.encode(self.header.salt)?;
        self.draft.write_footer(&footer, data_end)?;
        // DURABILITY: everything in the file is synced before the file has a name that counts, and
        // the name before the first file that it replaces is removed; otherwise a power cut could
        // leave neither.
        let synced = Rule::CompactedSync.keep(|| self.draft.file.sync());
        synced.map_err(|source| self.draft.failed("sync", source))?;
        let dir = &self.identity.dir;
        let path = dir.join(segment_file_name(self.header.number));
        let disk = &self.env.disk;
        disk.rename(&self.draft.path, &path)
            .map_err(|source| self.draft.failed("rename", source))?;
        self.is_named = true;
        self.draft.file.renamed(&path);
        // The spare's directory comes second: its old name may exist again after a power cut, its
        // new one must not be lost.
        if let Err(source) = Rule::CompactedName.keep(|| disk.sync_dir(dir)) {
            let _ = disk.remove_file(&path);
            self.spare().inspect(|spare| spare.moved(&**disk));
            return Err(Error::io("sync", dir, source));
        }
        if let Some(spare) = self.spare() {
            spare.moved(&**disk);
        }
        let origin = &self.identity.origin;
        let claims = replaced.iter().map(|segment| &*segment.claim);
        let bytes = match self.draft.target {
            Target::New => self.draft.written,
            Target::Spare => finished_bytes(u64::from(data_end), footer.len()),
        };
        let claim = Claim::of_successor(&self.env.space, bytes, claims);
        let file = SegmentFile::new(origin, &path, &self.header, base_offset);
        let new = Segment::found(&self.env, file, sealed, claim);
        new.note_horizon(self.contents.next_horizon);
        Ok(new)
    }

    /// Returns the unused middle of the spare, between data and footer, to the disk, after its
    /// inputs are removed: XFS needs a little space for that.
    pub(super) fn give_unused_back(&self) {
        let Draft { file, unused, .. } = &self.draft;
        if !unused.is_empty() {
            // A failure costs only space.
            let _ = file.release(unused.clone());
        }
    }

    /// Adds a batch without records up to `end`, if needed, so that the batches alone show that
    /// nothing is missing.
    fn fill_up(&mut self, end: u64, leader_epoch: u32) -> Result<()> {
        let Some(last_delta) = end.checked_sub(self.contents.reached.saturating_add(1)) else {
            return Ok(());
        };
        let span = CorruptionKind::Length("a compacted segment");
        let last_offset_delta =
            u32::try_from(last_delta).map_err(|_| self.corruption(span)).map_err(Error::Corrupt)?;
        let header = BatchHeader {
            base_offset: self.contents.reached,
            last_offset_delta,
            leader_epoch,
            ..BatchHeader::default()
        };
        let timestamp = self.contents.times.map_or(0, |times| times.first);
        let placement = Placement {
            base_offset: header.base_offset,
            leader_epoch: header.leader_epoch,
            durable_end: header.base_offset,
            key: &self.header.key(),
            producer: None,
        };
        self.write(&header, |out| {
            let mut encoder = BatchEncoder::new();
            encoder.set_base_timestamp_if_empty(timestamp);
            encoder.set_last_offset_delta(last_offset_delta);
            out.extend_from_slice(encoder.finish().seal(&placement));
            Ok(())
        })
    }

    fn corruption(&self, kind: CorruptionKind) -> Corruption {
        Corruption {
            partition: Some(TopicPartition::clone(&self.identity.origin)),
            file: self.draft.path.clone(),
            position: 0,
            offsets: None,
            kind,
        }
    }
}

impl Drop for Output {
    /// Removes a file that was not completed. If that fails, the next opening removes it.
    fn drop(&mut self) {
        if self.is_named {
            return;
        }
        if let Some(spare) = self.spare() {
            spare.give_back();
        } else {
            let _ = self.env.disk.remove_file(&self.draft.path);
        }
    }
}

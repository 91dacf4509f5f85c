//! Work of a log that blocks on the disk, as tasks that run without the partition's lock.
//!
//! A task is made under the lock, holds all that it needs, runs without the lock, and is handed
//! back under it. If its segment was rolled or removed meanwhile, the result changes nothing.

use std::ops::Range;
use std::sync::Arc;

use super::LogEnv;
use super::chunk::end_of_contents;
use super::create::is_refusal;
use super::scan::{ScanFrom, scan_segment};
use super::segment::{Sealed, Segment, SegmentList, read_footer};
use super::space::{page_ceil, shortened};
use crate::error::{CorruptionKind, Error, Result};
use crate::format::{BatchView, Footer, NUMBERED_CHANGES};
use crate::rules::Rule;
use crate::storage::disk::{Access, DiskFile};

/// What a sync is to cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SyncScope {
    /// All that is published when it begins.
    All,
    /// The sealed segments: no caller waits, and the active one is not touched.
    Sealed,
}

/// A sync of what was published, in its scope, when it was made.
#[derive(Debug)]
pub(crate) struct SyncTask {
    /// Tails of an earlier run that no sync of this one has covered.
    pub(crate) unproved: Vec<Unproved>,
    /// The files, in segment order, the active one last.
    pub(crate) files: Vec<SyncFile>,
    pub(crate) segments: Arc<SegmentList>,
    /// The rank of the last segment that was sealed when the task was made.
    pub(crate) sealed_to: Option<u64>,
    /// What is durable when the task succeeds.
    pub(crate) target: u64,
    /// Whether it leaves the device to other syncs in between: it is for footers.
    pub(crate) is_paced: bool,
}

/// A file to be synced, and the end that the sync will cover: what is published beyond `end` while
/// the sync runs belongs to the next one.
#[derive(Debug, Clone)]
pub(crate) struct SyncFile {
    pub(crate) segment: Arc<Segment>,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) end: usize,
}

impl SyncTask {
    /// Whether all that is published is durable already.
    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty() && self.unproved.is_empty()
    }

    /// # Errors
    ///
    /// [`Error::SyncFailed`]: from then on none of the files is known to be durable.
    pub(crate) fn run(&self) -> Result<()> {
        for tail in &self.unproved {
            match tail.rewrite() {
                // Retention has removed the segment meanwhile, and its file.
                Err(_) if !self.segments.contains(&tail.segment) => {}
                // Whatever the cause, the caller's records are published, and their durability is
                // unknown.
                Err(error) if !matches!(error, Error::SyncFailed { .. }) => {
                    let path = tail.segment.path.clone();
                    let source = Arc::new(std::io::Error::other(error));
                    return Err(Error::SyncFailed { path, source });
                }
                rewritten => rewritten?,
            }
        }
        // DURABILITY: in segment order, so that what is durable is always a prefix.
        self.files.iter().try_for_each(|file| file.sync(self.is_paced))
    }
}

impl SyncFile {
    fn sync(&self, is_paced: bool) -> Result<()> {
        let Self { segment, file, end } = self;
        segment.drop_pages(*end);
        if is_paced {
            let path = segment.path.clone();
            let failed = |source| Error::SyncFailed { path, source: Arc::new(source) };
            file.write_back(*end as u64).map_err(failed)?;
        }
        let is_sealed = segment.sealed().is_some();
        let rule = if is_sealed { Rule::SealedSync } else { Rule::ActiveSync };
        rule.keep(|| file.sync()).map_err(|source| Error::SyncFailed {
            path: segment.path.clone(),
            source: Arc::new(source),
        })
    }
}

/// A tail that was found in the page cache of the same boot, and may or may not be on the disk. An
/// earlier sync may have failed unseen. The kernel then marks the lost pages clean, so that another
/// sync would write nothing and still succeed.
#[derive(Debug)]
pub(crate) struct Unproved {
    pub(crate) segment: Arc<Segment>,
    pub(crate) range: Range<u32>,
}

impl Unproved {
    /// Writes the tail's bytes again, unchanged, so that the next sync writes them to the disk.
    ///
    /// The bytes do not change: each batch is checked again before it is written back, and a reader
    /// of the map sees what was there (published bytes never change). A copy of the tail in a new
    /// segment would need a second file, a switch between the two, and a rule for each crash in
    /// between.
    fn rewrite(&self) -> Result<()> {
        let path = &self.segment.path;
        let failed = |source| Error::SyncFailed { path: path.clone(), source: Arc::new(source) };
        let file = self.segment.open_file(Access::ReadWrite)?;
        let mut position = self.range.start;
        while position < self.range.end {
            let left = self.range.end.saturating_sub(position);
            let wanted = left.min(REWRITE_CHUNK_BYTES) as usize;
            let mut window = self.segment.copied_window(position as usize, wanted)?;
            let mut whole = self.checked_prefix(window.bytes(position as usize, usize::MAX))?;
            if whole == 0 {
                // A batch larger than the chunk: all of the rest, once.
                window = self.segment.copied_window(position as usize, left as usize)?;
                whole = self.checked_prefix(window.bytes(position as usize, usize::MAX))?;
            }
            let bytes = window.bytes(position as usize, (position as usize).saturating_add(whole));
            let advance = u32::try_from(whole).unwrap_or(0);
            if advance == 0 {
                let kind = CorruptionKind::Length("a batch");
                return Err(self.segment.corruption(u64::from(position), None, kind).into());
            }
            let rewrite = || file.write_at(bytes, u64::from(position));
            Rule::TailRewrite.keep(rewrite).map_err(failed)?;
            position = position.saturating_add(advance);
        }
        Rule::TailSync.keep(|| file.sync()).map_err(failed)
    }

    /// How many of the bytes are whole batches.
    fn checked_prefix(&self, bytes: &[u8]) -> Result<usize> {
        let mut length: usize = 0;
        while let Some(rest) = bytes.get(length..).filter(|rest| !rest.is_empty()) {
            match BatchView::check(rest, &self.segment.key) {
                Ok(Some(view)) => length = length.saturating_add(view.header().size as usize),
                Err(kind) if length == 0 && !matches!(kind, CorruptionKind::Length(_)) => {
                    let position = u64::from(self.range.start);
                    return Err(self.segment.corruption(position, None, kind).into());
                }
                // The chunk ends within a batch; the caller continues there with the next chunk.
                Ok(None) | Err(_) => break,
            }
        }
        Ok(length)
    }
}

/// LIMIT: how much of a tail is in memory and written in one call: enough that the calls cost
/// little beside the sync that follows, and little memory while many partitions open.
const REWRITE_CHUNK_BYTES: u32 = 1 << 20;

/// The footer of the oldest synced segment that has none.
#[derive(Debug)]
pub(crate) struct FooterTask {
    pub(crate) segment: Arc<Segment>,
    pub(crate) sealed: Sealed,
    pub(crate) footer: Footer,
    pub(crate) is_found: bool,
    pub(crate) index_is_whole: bool,
    /// The length at which a file is not changed, because it may become a spare.
    pub(crate) spare_bytes: Option<u64>,
    /// Set by [`run`](Self::run): the file is not changed.
    pub(crate) is_shared: bool,
}

impl FooterTask {
    /// Writes the footer and returns the unused middle of the file to the disk. A lost footer costs
    /// a scan at the next opening, so it is not synced, and it may be left out.
    pub(crate) fn run(&mut self) -> Result<()> {
        let path = &self.segment.path;
        let failed = |source| Error::io("write the footer of", path, source);
        // The footer ends the file: no space may be allocated after it, and nothing written over
        // it.
        self.segment.end_space();
        let file = self.segment.open_file(Access::ReadWrite)?;
        let before = read_footer(&*file, self.segment.key.salt()).map_err(failed)?;
        if before.as_ref().is_some_and(|footer| self.sealed.agrees_with(footer)) {
            return Ok(());
        }
        let mut length = file.len().map_err(failed)?;
        self.is_shared = self.spare_bytes == Some(length);
        if self.is_shared {
            return Ok(());
        }
        if self.is_found && file.has_other_names().map_err(failed)? {
            // Beyond the end of this log, a log in a directory of another name may continue.
            self.is_shared = true;
            return Ok(());
        }
        if !self.index_is_whole {
            // Not beyond the data: what a crash left there is no part of the log.
            let end = u64::from(self.sealed.data_end);
            let from = ScanFrom { end, ..ScanFrom::start(self.segment.base_offset) };
            self.footer.index =
                scan_segment(&*file, &self.segment.key, from).map_err(failed)?.index;
        }
        let footer = self.footer.encode(self.segment.key.salt())?;
        if !self.is_found && before.is_none() {
            self.shorten(&*file, length);
            length = file.len().map_err(failed)?;
        }
        let kept = self.kept_end(&*file, length);
        let unused = page_ceil(kept)..length;
        let mut written = file.write_at(&footer, length);
        if is_refused(&written) && !unused.is_empty() {
            // The unused middle may give the space that it needs.
            release(&*file, unused.clone()).map_err(failed)?;
            written = file.write_at(&footer, length);
        }
        // On a full disk the segment must not wait for its footer: it could not be compacted until
        // there is space, and only a compaction makes space.
        self.is_shared = is_refused(&written);
        if self.is_shared {
            return Ok(());
        }
        written.map_err(failed)?;
        if !unused.is_empty() {
            release(&*file, unused).map_err(failed)?;
        }
        self.segment.claim.shrink_to(finished_bytes(kept, footer.len()));
        Ok(())
    }

    /// Gives back what the file has behind its data, if that is worth it: of a segment that was begun
    /// or resumed in this run.
    fn shorten(&self, file: &dyn DiskFile, length: u64) {
        // A file of an internal log that is shorter than every new one counts as shortened by another
        // program; and these files are small.
        if self.segment.features & NUMBERED_CHANGES != 0 {
            return;
        }
        // What readers of its map may touch stays in it, whatever the task says.
        let end = u64::from(self.sealed.data_end).max(self.segment.shown_end());
        if let Some(kept) = shortened(end, length) {
            // If it fails, with whatever error, the file is longer than it needs to be. A file system
            // may have shortened it all the same, so the caller asks how long it is.
            let _ = file.shorten(kept);
        }
    }

    /// Where ends what must stay in the file. Of a segment of an earlier run that is more than its
    /// data: what a truncation or a recovery has cut off may be in maps that are still held, in this
    /// process or another. It is not known how much that was, but zeros can be released: they stay
    /// zeros.
    fn kept_end(&self, file: &dyn DiskFile, length: u64) -> u64 {
        let data_end = u64::from(self.sealed.data_end);
        let is_ours = !self.is_found && self.segment.shown_end() <= data_end;
        // No segment is longer than positions are: then nothing is known of the file.
        if is_ours || length <= data_end || u32::try_from(length).is_err() {
            return if is_ours { data_end } else { length };
        }
        end_of_contents(file, data_end..length).unwrap_or(length)
    }
}

/// Returns space to the disk. XFS may need some space for that; on a full disk it fails, and the
/// file keeps its blocks.
fn release(file: &dyn DiskFile, range: Range<u64>) -> std::io::Result<()> {
    match file.release(range) {
        Err(error) if is_refusal(&error) => Ok(()),
        released => released,
    }
}

/// Whether the disk had no space for it.
fn is_refused(written: &std::io::Result<()>) -> bool {
    written.as_ref().is_err_and(is_refusal)
}

/// The size of a segment's file with its footer.
pub(crate) fn finished_bytes(data_end: u64, footer: usize) -> u64 {
    page_ceil(data_end).saturating_add(page_ceil(footer as u64))
}

/// The next segment, to be made before it is needed.
#[derive(Debug)]
pub(crate) struct PrepareTask {
    pub(crate) env: Arc<LogEnv>,
    pub(crate) new: super::create::NewSegment,
}

impl PrepareTask {
    pub(crate) fn run(self) -> Result<super::create::Prepared> {
        self.new.create(&self.env)
    }
}

//! The reserve of an internal log: spare files that become its next segments when the disk is full.
//!
//! Owns: the spare files and their blocks, which are never returned to the file system: a rename
//! makes a spare a segment, and a removed segment a spare. Must not know: when a log may use one,
//! which `partition::state_log` decides.
//!
//! A spare has a fixed length and all of its blocks. Its contents do not matter until it is used;
//! then it is zeroed in place, before it gets a header. Any segment of that length may become a
//! spare, also one that was filled while there was space: if the state has many segments, more
//! files than the spares are in rotation. So no segment of that length gets a footer, which would
//! make it longer.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::create::{NewSegment, Prepared, is_refusal, make_writable, region_writer};
use super::segment::Segment;
use super::space::{Space, ZERO_PAGE};
use super::{LogEnv, PAGE_BYTES};
use crate::error::{Error, Result};
use crate::format::{KEEPS_SPACE, SegmentHeader, segment_file_name, spare_file_name};
use crate::rules::Rule;
use crate::storage::disk::{Access, Disk, DiskFile, EntryKind};

/// LIMIT: how many spares an internal log has. One is in use once the disk is full, one takes the
/// live entries of the oldest segment, and one is for a process that dies in the middle of that.
pub(crate) const SPARES: usize = 3;

/// What happened to a removed segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TakenBack {
    /// It is a spare.
    Yes,
    /// A reader or a sync still uses it, so its bytes must not change.
    NotYet,
    /// It cannot become a spare, or the reserve is complete: its file is to be removed.
    No,
}

/// The spares of a log that has some.
#[derive(Debug)]
pub(crate) struct Reserve {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    bytes: u64,
    /// Which of them exist.
    is_there: [bool; SPARES],
    /// Whether a segment may be made of one.
    is_open: bool,
}

impl Reserve {
    /// Spares of this size, none of which is known.
    pub(super) fn new(disk: &Arc<dyn Disk>, dir: &Path, bytes: u64) -> Self {
        let (disk, dir) = (Arc::clone(disk), dir.to_path_buf());
        Self { disk, dir, bytes, is_there: [false; SPARES], is_open: false }
    }

    /// How long a file is that may become a spare.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    pub(super) fn set_open(&mut self, is_open: bool) {
        self.is_open = is_open;
    }

    fn path(&self, number: usize) -> PathBuf {
        self.dir.join(spare_file_name(number))
    }

    /// How many spares are missing.
    pub(crate) fn missing(&self) -> usize {
        self.is_there.iter().filter(|is_there| !**is_there).count()
    }

    /// Finds the spares there are.
    pub(super) fn find(&mut self) -> Result<()> {
        let found = self.find_each();
        found.map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::io("make spare segments in", &self.dir, source)
    }

    fn find_each(&mut self) -> io::Result<()> {
        for number in 0..SPARES {
            let path = self.path(number);
            let is_whole = match self.disk.kind(&path)? {
                Some(EntryKind::File) => {
                    let file = self.disk.open(&path, Access::Read)?;
                    // One with another name (a hard link) may be the spare of another directory.
                    file.len()? == self.bytes && !file.has_other_names()?
                }
                Some(_) | None => false,
            };
            if let Some(is_there) = self.is_there.get_mut(number) {
                *is_there = is_whole;
            }
        }
        Ok(())
    }

    /// Finds the spares, and makes those that are missing.
    ///
    /// # Errors
    ///
    /// [`Error::StorageFull`] if there is no space for all; the existing ones can be used.
    pub(crate) fn fill(&mut self) -> Result<()> {
        let filled = self.find_each().and_then(|()| self.make_missing());
        filled.map_err(|source| self.failed(source))
    }

    fn make_missing(&mut self) -> io::Result<()> {
        let mut made = Ok(false);
        for number in 0..SPARES {
            let Some(false) = self.is_there.get(number) else { continue };
            let path = self.path(number);
            made = make(&*self.disk, &path, self.bytes).map(|()| true);
            if made.is_err() {
                // Blocks of a failed allocation stay in the file until it is removed.
                let _ = self.disk.remove_file(&path);
                break;
            }
            if let Some(is_there) = self.is_there.get_mut(number) {
                *is_there = true;
            }
        }
        if made? { self.disk.sync_dir(&self.dir) } else { Ok(()) }
    }

    /// Makes a segment of a spare, which needs no space. A spare without its blocks, because a copy
    /// program left them out, is skipped.
    pub(super) fn use_one(&mut self, env: &LogEnv, new: &NewSegment) -> io::Result<Prepared> {
        // DURABILITY: the spare may have been a segment before. The removal of that name is durable
        // before its bytes are overwritten; otherwise the name could exist again after a power cut,
        // without a header.
        self.disk.sync_dir(&self.dir)?;
        let mut used = Err(io::ErrorKind::StorageFull.into());
        for number in 0..SPARES {
            let Some(true) = self.is_there.get(number) else { continue };
            used = self.use_file(env, new, number);
            if used.as_ref().err().is_none_or(|error| !is_refusal(error)) {
                break;
            }
        }
        used
    }

    fn use_file(&mut self, env: &LogEnv, new: &NewSegment, number: usize) -> io::Result<Prepared> {
        let from = self.path(number);
        let file = self.disk.open(&from, Access::ReadWrite)?;
        if file.has_other_names()? {
            return Err(io::ErrorKind::StorageFull.into());
        }
        make_zero(&*file, self.bytes)?;
        let capacity = usize::try_from(self.bytes).unwrap_or(usize::MAX);
        let mut writer = region_writer(env, &file, capacity, 0, new.writer)?;
        make_writable(&mut writer, self.bytes, new.writer)?;
        let header =
            SegmentHeader { compatible: new.header.compatible | KEEPS_SPACE, ..new.header };
        writer.write(0, &header.encode())?;
        writer.publish(SegmentHeader::SIZE);
        Rule::HeaderSync.keep(|| file.sync())?;
        // DURABILITY: as when a segment is made (`create`): the header is synced before the name is
        // there, and the name before anything is appended. A power cut between leaves a spare, or a
        // segment without a batch, which the next opening makes a spare again.
        let path = self.dir.join(segment_file_name(header.number));
        self.disk.rename(&from, &path)?;
        file.renamed(&path);
        if let Some(is_there) = self.is_there.get_mut(number) {
            *is_there = false;
        }
        Rule::SegmentName.keep(|| self.disk.sync_dir(&self.dir))?;
        new.claim.grow_anyway(self.bytes);
        let claim = Arc::clone(&new.claim);
        let space = Space::new(&file, new.writer, &claim, self.bytes, self.bytes);
        Ok(Prepared { header, path, file, writer, claim, space })
    }

    /// Makes a spare of a removed segment that only the caller still holds.
    pub(crate) fn take_back(&mut self, segment: &Arc<Segment>) -> Result<TakenBack> {
        if self.missing() == 0 {
            return Ok(TakenBack::No);
        }
        if Arc::strong_count(segment) > 1 {
            return Ok(TakenBack::NotYet);
        }
        // A step of growth that still runs would write zeros into a file that may be a segment again.
        segment.end_space();
        let taken = self.take_back_file(&segment.path)?;
        Ok(if taken { TakenBack::Yes } else { TakenBack::No })
    }

    /// Makes a spare of a file that is no segment of the log. False if it is to be removed.
    pub(super) fn take_back_file(&mut self, path: &Path) -> Result<bool> {
        self.rename_to_spare(path).map_err(|source| Error::io("rename", path, source))
    }

    fn rename_to_spare(&mut self, path: &Path) -> io::Result<bool> {
        let disk = &self.disk;
        let number = self.is_there.iter().position(|is_there| !is_there);
        let Some(number) = number else { return Ok(false) };
        let file = disk.open(path, Access::Read)?;
        if file.len()? != self.bytes || file.has_other_names()? {
            return Ok(false);
        }
        let spare = self.path(number);
        if disk.kind(&spare)?.is_some() {
            // It is shorter than a whole one: a crash interrupted its creation.
            disk.remove_file(&spare)?;
        }
        disk.rename(path, &spare)?;
        if let Some(is_there) = self.is_there.get_mut(number) {
            *is_there = true;
        }
        Ok(true)
    }
}

fn make(disk: &dyn Disk, path: &Path, bytes: u64) -> io::Result<()> {
    let file = match disk.create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            disk.remove_file(path)?;
            disk.create(path)?
        }
        created => created?,
    };
    file.allocate(bytes)?;
    file.sync()
}

/// Writes zeros over all of it, so that old bytes cannot be taken for the remains of a torn write.
/// If blocks are missing, because a copy program left them out, this finds it, and not an append.
fn make_zero(file: &dyn DiskFile, bytes: u64) -> io::Result<()> {
    let mut position = 0;
    while position < bytes {
        let length = bytes.saturating_sub(position).min(PAGE_BYTES);
        let length = usize::try_from(length).unwrap_or(0);
        file.write_at(ZERO_PAGE.get(..length).unwrap_or_default(), position)?;
        position = position.saturating_add(PAGE_BYTES);
    }
    Ok(())
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;

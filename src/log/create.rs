//! Making segment files, so that a file with its final name is always whole.
//!
//! The order is temporary name, allocate, header, sync, rename, directory sync. A file under a
//! segment's name has a whole header; a file under a temporary name may be removed. A failure at
//! any step removes what was made: ext4 keeps the blocks of a failed allocation until the file is
//! unlinked.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::LogEnv;
use super::budget::Claim;
pub(crate) use super::space::{FIRST_ALLOCATION_BYTES, Writer};
use super::space::{Growth, Space, page_ceil};
use crate::error::{Error, Result};
use crate::format::{SegmentHeader, segment_file_name, temporary_segment_file_name};
use crate::rules::Rule;
use crate::storage::disk::{Access, Disk, DiskFile};
use crate::storage::region::Memory;
use crate::storage::region_writer::RegionWriter;

/// A segment to be made.
#[derive(Debug, Clone)]
pub(crate) struct NewSegment {
    pub(crate) dir: PathBuf,
    pub(crate) header: SegmentHeader,
    pub(crate) capacity: usize,
    pub(crate) writer: Writer,
    pub(crate) claim: Arc<Claim>,
    /// It is made so that others can go, and may need more than there is until they have.
    pub(crate) exceeds_budget: bool,
}

/// A segment that is made and durable, but not yet part of the log.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) header: SegmentHeader,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) writer: RegionWriter,
    pub(crate) claim: Arc<Claim>,
    pub(super) space: Arc<Space>,
}

impl NewSegment {
    /// Makes the file. Blocks for two syncs.
    pub(crate) fn create(self, env: &LogEnv) -> Result<Prepared> {
        self.create_with(env, &[], &mut false)
    }

    /// Makes the file with these bytes after the header, which readers will see. Sets `is_named`
    /// when the file has its name: a failure after that is not definite.
    pub(crate) fn create_with(
        self,
        env: &LogEnv,
        first: &[u8],
        is_named: &mut bool,
    ) -> Result<Prepared> {
        let temporary = self.dir.join(temporary_segment_file_name(self.header.number));
        let path = self.dir.join(segment_file_name(self.header.number));
        let claim = Arc::clone(&self.claim);
        match self.fill(env, &temporary, &path, first, is_named) {
            Ok(prepared) => Ok(prepared),
            Err(source) => {
                // Best effort: what stays behind is removed at the next open.
                let _ = env.disk.remove_file(&temporary);
                if is_refusal(&source) {
                    claim.withdraw();
                }
                Err(Error::io("create", &path, source))
            }
        }
    }

    fn fill(
        self,
        env: &LogEnv,
        temporary: &Path,
        path: &Path,
        first: &[u8],
        is_named: &mut bool,
    ) -> io::Result<Prepared> {
        let capacity = self.capacity as u64;
        let end = SegmentHeader::SIZE.saturating_add(first.len());
        let allocated = FIRST_ALLOCATION_BYTES.max(page_ceil(end as u64)).min(capacity);
        if self.exceeds_budget {
            self.claim.grow_anyway(allocated);
        } else {
            self.claim.grow_to(allocated)?;
        }
        let file = match env.disk.create(temporary) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // Left by a crash or a failed attempt of ours: only a temporary name is removed.
                env.disk.remove_file(temporary)?;
                env.disk.create(temporary)?
            }
            other => other?,
        };
        file.allocate(allocated)?;
        let mut writer = region_writer(env, &file, self.capacity, 0, self.writer)?;
        make_writable(&mut writer, allocated, self.writer)?;
        writer.write(0, &self.header.encode())?;
        if !first.is_empty() {
            writer.write(SegmentHeader::SIZE, first)?;
        }
        writer.publish(end);
        Rule::HeaderSync.keep(|| file.sync())?;
        // DURABILITY: the header is synced before the name exists, and the name before the first
        // acknowledged append refers to it; otherwise a power cut can lose a whole acknowledged
        // segment although each of its pages was synced.
        env.disk.rename(temporary, path)?;
        // A renaming that fails leaves both names as they were.
        *is_named = true;
        file.renamed(path);
        if let Err(error) = Rule::SegmentName.keep(|| env.disk.sync_dir(&self.dir)) {
            let _ = env.disk.remove_file(path);
            return Err(error);
        }
        let path = path.to_path_buf();
        let (header, claim) = (self.header, self.claim);
        let space = Space::new(&file, self.writer, &claim, allocated, allocated);
        Ok(Prepared { header, path, file, writer, claim, space })
    }
}

/// Whether it was space that the disk did not have.
pub(super) fn is_refusal(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

impl Prepared {
    /// Whether it has less space than a burst wants that continues in it.
    #[inline]
    pub(crate) fn is_small(&self) -> bool {
        self.space.ready() < self.space.ahead(self.writer.region().capacity())
    }

    /// Space for a burst.
    pub(crate) fn growth(&self) -> Growth {
        let region = self.writer.region();
        Growth::new(&self.space, region, self.space.ahead(region.capacity()))
    }

    /// Gives up a segment that is not needed. What cannot be removed is found, empty, at the next
    /// open, and removed then.
    pub(crate) fn discard(self, disk: &dyn Disk) {
        let _ = disk.remove_file(&self.path);
    }
}

/// The writer of a segment's file, with the region that its readers will see.
pub(crate) fn region_writer(
    env: &LogEnv,
    file: &Arc<dyn DiskFile>,
    capacity: usize,
    published: usize,
    writer: Writer,
) -> io::Result<RegionWriter> {
    let stores = writer == Writer::Stores;
    // Where the file does not show in its map by itself (the simulated disk), each byte goes both
    // ways, whatever the writer.
    let coherent = file.map_shows_writes();
    let absent = env.copy_reads && !stores;
    let store = (stores || !coherent) && !absent;
    let access = if store { Access::ReadWrite } else { Access::Read };
    let memory = if absent {
        Memory::absent(capacity)
    } else {
        env.maps.make(|| file.map(capacity, access))?
    };
    let through_file = (!stores || !coherent).then(|| Arc::clone(file));
    let writer = RegionWriter::new(memory, published, through_file, store)?;
    Ok(if coherent && stores { writer.shows(Arc::clone(file)) } else { writer })
}

/// Makes `[.., end)`, which is allocated, usable for stores: a store into a page that is not there
/// yet would find a full or failing disk as a signal, populating finds it as an error.
pub(crate) fn make_writable(writer: &mut RegionWriter, end: u64, kind: Writer) -> io::Result<()> {
    let end = usize::try_from(end).unwrap_or(usize::MAX).min(writer.region().capacity());
    if kind == Writer::Stores {
        writer.region().populate(writer.writable()..end)?;
    }
    writer.set_writable(end);
    Ok(())
}

//! What backs a region: a map, a heap block, another region, or nothing.
//!
//! Owns the bytes before anybody shares them. Must not know what is published of them, nor who is
//! given the region that they become.
#![deny(unsafe_code)]

use std::fmt;
#[cfg(target_os = "linux")]
use std::fs::File;
use std::io;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use super::block::HeapBlock;
#[cfg(target_os = "linux")]
use super::map::FileMap;
use super::{PAGE, invalid};
#[cfg(target_os = "linux")]
use crate::storage::platform::{self, Access};

/// Memory that another backing shows: alive, and never moved, as long as this is.
pub(super) trait Parent: Send + Sync {
    fn base(&self) -> Option<NonNull<u8>>;

    #[cfg(test)]
    fn is_mapped(&self) -> bool;
}

/// Bytes that nobody shares yet.
pub(super) struct Backing {
    kind: Kind,
    capacity: usize,
    /// Up to where there is something to be read: what may be published at first.
    backed: usize,
}

enum Kind {
    #[cfg(target_os = "linux")]
    Mapped(FileMap),
    Heap(HeapBlock),
    /// The published bytes of another region, which is kept alive.
    View(Arc<dyn Parent>),
    Absent,
}

impl Backing {
    fn new(kind: Kind, capacity: usize, backed: usize) -> Self {
        debug_assert!(backed <= capacity, "M4: no more is there than the memory has");
        Self { kind, capacity, backed }
    }

    /// Maps a file, shared. `capacity` may lie beyond the file's end; see M1.
    #[cfg(target_os = "linux")]
    pub(super) fn map(file: &File, capacity: usize, access: Access) -> io::Result<Self> {
        if capacity == 0 {
            return Self::heap(0);
        }
        let backed =
            usize::try_from(platform::metadata(file)?.len()).unwrap_or(usize::MAX).min(capacity);
        let map = FileMap::new(file, capacity, access)?;
        Ok(Self::new(Kind::Mapped(map), capacity, backed))
    }

    pub(super) fn heap(capacity: usize) -> io::Result<Self> {
        let block = HeapBlock::new(capacity, PAGE)?;
        Ok(Self::new(Kind::Heap(block), capacity, capacity))
    }

    pub(super) fn copy_of(bytes: &[u8]) -> io::Result<Self> {
        let capacity = bytes.len();
        let mut block = HeapBlock::new(capacity, HeapBlock::LAZY_ALIGN)?;
        block.fill(0, bytes)?;
        Ok(Self::new(Kind::Heap(block), capacity, capacity))
    }

    pub(super) fn absent(capacity: usize) -> Self {
        Self::new(Kind::Absent, capacity, capacity)
    }

    /// The first `backed` bytes of `parent`.
    pub(super) fn view(parent: Arc<dyn Parent>, capacity: usize, backed: usize) -> Self {
        Self::new(Kind::View(parent), capacity, backed)
    }

    pub(super) fn fill(&mut self, position: usize, bytes: &[u8]) -> io::Result<()> {
        let Kind::Heap(block) = &mut self.kind else {
            return Err(invalid("only heap memory can be filled"));
        };
        block.fill(position, bytes)
    }

    pub(super) fn base(&self) -> Option<NonNull<u8>> {
        match &self.kind {
            #[cfg(target_os = "linux")]
            Kind::Mapped(map) => map.base(),
            Kind::Heap(block) => Some(block.base()),
            Kind::View(parent) => parent.base(),
            Kind::Absent => None,
        }
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn backed(&self) -> usize {
        self.backed
    }

    pub(super) fn is_view(&self) -> bool {
        matches!(self.kind, Kind::View(_))
    }

    /// Whether bytes may be stored into it.
    #[inline]
    pub(super) fn is_storable(&self) -> bool {
        match &self.kind {
            #[cfg(target_os = "linux")]
            Kind::Mapped(map) => map.is_storable(),
            Kind::Heap(_) => true,
            Kind::View(_) | Kind::Absent => false,
        }
    }

    /// Whether the bytes are a file's own pages.
    #[cfg(test)]
    pub(super) fn is_mapped(&self) -> bool {
        match &self.kind {
            #[cfg(target_os = "linux")]
            Kind::Mapped(_) => true,
            Kind::View(parent) => parent.is_mapped(),
            Kind::Heap(_) | Kind::Absent => false,
        }
    }

    /// See `Region::populate`.
    pub(super) fn populate(&self, range: Range<usize>) -> io::Result<()> {
        match &self.kind {
            #[cfg(target_os = "linux")]
            Kind::Mapped(map) => map.populate(range),
            _ => Ok(()),
        }
    }

    /// See `Region::drop_pages`.
    pub(super) fn drop_pages(&self, range: Range<usize>) -> io::Result<()> {
        match &self.kind {
            #[cfg(target_os = "linux")]
            Kind::Mapped(map) => map.drop_pages(range),
            _ => Ok(()),
        }
    }

    /// See `Region::is_resident`.
    pub(super) fn is_resident(&self, position: usize) -> bool {
        match &self.kind {
            #[cfg(target_os = "linux")]
            Kind::Mapped(map) => map.is_resident(position),
            _ => true,
        }
    }

    /// See `Region::read_in`.
    pub(super) fn read_in(&self, range: Range<usize>) {
        match &self.kind {
            #[cfg(target_os = "linux")]
            Kind::Mapped(map) => map.read_in(range),
            _ => {}
        }
    }
}

/// Kind and size, never a byte of payload and never an address.
impl fmt::Debug for Backing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            #[cfg(target_os = "linux")]
            Kind::Mapped(_) => "mapped",
            Kind::Heap(_) => "heap",
            Kind::View(_) => "view",
            Kind::Absent => "absent",
        };
        write!(f, "{kind} memory of {} bytes", self.capacity)
    }
}

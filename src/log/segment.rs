//! One segment as readers see it: its file, how far it may be read, and its bytes.
//!
//! The log, which is the only writer, shares a [`Segment`] with any number of readers. It has no
//! lock that an appender takes: readers learn the end of the active segment from its region's
//! published position, and that of a sealed one from [`Sealed`], which is set once.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use super::LogEnv;
use super::budget::Claim;
#[cfg(feature = "replication")]
use super::cuts::Cuts;
use super::space::Space;
use crate::error::{Corruption, CorruptionKind, Error, Result};
use crate::format::{Footer, KEEPS_SPACE, Rewrite, SegmentHeader, SegmentKey, TimeRange};
use crate::record::TopicPartition;
use crate::storage::disk::{Access, DiskFile};
use crate::storage::region::Region;
use crate::sync::{AtomicBool, AtomicU64, LockLevel, Mutex, OnceLock, Ordering, RwLock};

/// LIMIT: how much `ReadMode::Copy` reads at a time: enough to amortise the system call over a
/// few thousand small records, little enough to waste nothing on a consumer that seeks around.
const COPY_CHUNK_BYTES: usize = 256 << 10;

/// The facts of a sealed segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sealed {
    /// Position after the last batch.
    pub(crate) data_end: u32,
    /// Offset after the last record.
    pub(crate) next_offset: u64,
    /// The timestamps, if there is any record.
    pub(crate) times: Option<TimeRange>,
}

impl Sealed {
    /// Whether a footer is of a segment that ends here.
    pub(super) fn agrees_with(&self, footer: &Footer) -> bool {
        footer.data_end == self.data_end && footer.next_offset == self.next_offset
    }
}

/// A readable range of a segment's bytes: all of it through its map, or a copied chunk.
#[derive(Clone)]
pub(crate) struct Window {
    pub(crate) region: Arc<Region>,
    /// The position in the segment at which the region begins.
    pub(crate) base: usize,
    /// Whether the region is the segment's own, which also shows what is published later. A copied
    /// chunk does not change.
    pub(crate) live: bool,
}

impl Window {
    /// The bytes of `[position, end)` in the segment's positions, or as many as the window has.
    #[inline]
    pub(crate) fn bytes(&self, position: usize, end: usize) -> &[u8] {
        let start = position.saturating_sub(self.base);
        let end = end.saturating_sub(self.base).min(self.region.published());
        self.region.bytes(start..end).unwrap_or_default()
    }
}

/// Which file a segment is, and what its header says: fixed from the moment at which it is made.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    pub(crate) origin: Arc<TopicPartition>,
    pub(crate) path: PathBuf,
    pub(crate) number: u64,
    /// The first and the last rank that it covers: see [`SegmentHeader::ranks`].
    pub(crate) ranks: (u64, u64),
    /// Whether compaction wrote it, and left no key twice up to its end.
    pub(crate) is_clean: bool,
    /// Incompatible feature bits: what must be known to read its records.
    pub(crate) features: u64,
    /// Whether the file was a spare of a reserve.
    pub(crate) keeps_space: bool,
    /// Whether offsets may be missing between its records, although it replaces no other segment.
    #[cfg(feature = "replication")]
    pub(crate) has_gaps: bool,
    pub(crate) base_offset: u64,
    pub(crate) key: SegmentKey,
}

impl SegmentFile {
    pub(crate) fn new(
        origin: &Arc<TopicPartition>,
        path: &Path,
        header: &SegmentHeader,
        base_offset: u64,
    ) -> Self {
        let is_clean = match header.rewrite {
            Some(Rewrite::Replaces(replacement)) => replacement.is_clean,
            Some(Rewrite::Truncates(_)) | None => false,
        };
        Self {
            origin: Arc::clone(origin),
            path: path.to_path_buf(),
            number: header.number,
            ranks: header.ranks().into_inner(),
            is_clean,
            features: header.incompatible,
            keeps_space: header.compatible & KEEPS_SPACE != 0,
            #[cfg(feature = "replication")]
            has_gaps: header.compatible & crate::format::HAS_GAPS != 0,
            base_offset,
            key: header.key(),
        }
    }
}

/// See the module's documentation. What never changes of it is its [`SegmentFile`], to which it
/// dereferences; the other fields are what readers and the log change.
pub(crate) struct Segment {
    env: Arc<LogEnv>,
    file: SegmentFile,
    /// The map. It always exists while the segment is active; afterwards it is made on demand and
    /// may be released.
    region: Mutex<Option<Arc<Region>>>,
    /// Whether a reader took the map since the last call of [`was_used`](Self::was_used). ORDERING:
    /// Relaxed, by readers and by what gives maps up; a hint that guards nothing.
    used: AtomicBool,
    sealed: OnceLock<Sealed>,
    /// What a truncation has made of it.
    #[cfg(feature = "replication")]
    cuts: Cuts<Sealed>,
    /// ORDERING: Relaxed; a moment that guards no memory.
    next_horizon: AtomicU64,
    pub(crate) claim: Arc<Claim>,
    /// The space of its file, if it ever was active. Dangling once no thread can make space any
    /// more.
    space: OnceLock<Weak<Space>>,
}

impl Deref for Segment {
    type Target = SegmentFile;

    #[inline]
    fn deref(&self) -> &SegmentFile {
        &self.file
    }
}

impl Segment {
    /// One that takes appends, into this region.
    pub(crate) fn active(
        env: &Arc<LogEnv>,
        file: SegmentFile,
        region: &Arc<Region>,
        claim: &Arc<Claim>,
    ) -> Arc<Self> {
        Self::new(env, file, Some(Arc::clone(region)), OnceLock::new(), Arc::clone(claim))
    }

    /// One whose file is complete.
    pub(crate) fn found(
        env: &Arc<LogEnv>,
        file: SegmentFile,
        sealed: Sealed,
        claim: Arc<Claim>,
    ) -> Arc<Self> {
        Self::new(env, file, None, OnceLock::from(sealed), claim)
    }

    fn new(
        env: &Arc<LogEnv>,
        file: SegmentFile,
        region: Option<Arc<Region>>,
        sealed: OnceLock<Sealed>,
        claim: Arc<Claim>,
    ) -> Arc<Self> {
        Arc::new(Self {
            env: Arc::clone(env),
            file,
            region: Mutex::at_level(LockLevel::SegmentRegion, region),
            used: AtomicBool::new(true),
            sealed,
            #[cfg(feature = "replication")]
            cuts: Cuts::none(),
            next_horizon: AtomicU64::new(Footer::NO_HORIZON),
            claim,
            space: OnceLock::new(),
        })
    }

    /// Sets the space of the segment's file. Called once.
    pub(super) fn set_space(&self, space: &Arc<Space>) {
        let _ = self.space.set(Arc::downgrade(space));
    }

    /// Ends the growth of the file, which the background may still do. Later changes of the file
    /// and of its claim are not undone by it. Blocks for the disk while a step of the growth runs.
    pub(super) fn end_space(&self) {
        if let Some(space) = self.space.get().and_then(Weak::upgrade) {
            space.end();
        }
    }

    #[inline]
    pub(crate) fn sealed(&self) -> Option<&Sealed> {
        let sealed = self.sealed.get();
        #[cfg(feature = "replication")]
        let sealed = sealed.map(|sealed| self.cuts.last().unwrap_or(sealed));
        sealed
    }

    /// Cuts off the end of a sealed segment. Its bytes stay as they are. The segment that follows
    /// must be in the list already.
    #[cfg(feature = "replication")]
    pub(super) fn shorten(&self, sealed: Sealed) {
        self.cuts.add(sealed);
    }

    /// Seals the segment. Its successor must be in the list already: a reader that finds the
    /// segment sealed and read to the end goes there.
    pub(crate) fn seal(self: &Arc<Self>, sealed: Sealed) {
        if self.sealed.set(sealed).is_ok() {
            self.env.maps.register(self);
        }
    }

    /// The offset after the last record, once sealed.
    pub(crate) fn next_offset(&self) -> Option<u64> {
        self.sealed().map(|sealed| sealed.next_offset)
    }

    /// When the first tombstone of the segment may be removed, as far as that is known. Appended
    /// records have no delete horizon, and segments that an earlier build compacted do not record
    /// one; the next compaction computes it.
    pub(crate) fn next_horizon(&self) -> u64 {
        self.next_horizon.load(Ordering::Relaxed)
    }

    pub(crate) fn note_horizon(&self, next: u64) {
        self.next_horizon.store(next, Ordering::Relaxed);
    }

    /// A window that begins at or before `position`, and shows at least what was published when it
    /// was made.
    pub(crate) fn window(self: &Arc<Self>, position: usize) -> Result<Window> {
        if let Some(window) = self.mapped_window()? {
            return Ok(window);
        }
        let end = self.end();
        let wanted = end.saturating_sub(position).min(COPY_CHUNK_BYTES);
        self.copied_window(position, wanted)
    }

    /// A window of exactly `[position, position + len)`, for a batch larger than a chunk.
    pub(crate) fn copied_window(&self, position: usize, len: usize) -> Result<Window> {
        let file = self.open_file(Access::Read)?;
        let mut buffer = vec![0; len];
        let read = file
            .read_at(&mut buffer, position as u64)
            .map_err(|source| Error::io("read", &self.path, source))?;
        buffer.truncate(read);
        let region =
            Region::from_bytes(&buffer).map_err(|source| Error::io("read", &self.path, source))?;
        Ok(Window { region, base: position, live: false })
    }

    /// Where readable bytes end now.
    #[inline]
    pub(crate) fn end(&self) -> usize {
        if let Some(sealed) = self.sealed() {
            return sealed.data_end as usize;
        }
        self.region.lock().as_ref().map_or(0, |region| region.published())
    }

    /// Where ends what readers of its map may touch, as far as this log has the map.
    pub(super) fn shown_end(&self) -> u64 {
        self.region.lock().as_ref().map_or(0, |region| region.published() as u64)
    }

    fn mapped_window(self: &Arc<Self>) -> Result<Option<Window>> {
        let mut slot = self.region.lock();
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        if let Some(region) = slot.as_ref() {
            return Ok(region.is_readable().then(|| Window {
                region: Arc::clone(region),
                base: 0,
                live: true,
            }));
        }
        let (false, Some(sealed)) = (self.env.copy_reads, self.sealed()) else {
            return Ok(None);
        };
        let file = self.open_file(Access::Read)?;
        let length =
            file.len().map_err(|source| Error::io("read the size of", &self.path, source))?;
        if length < u64::from(sealed.data_end) {
            // This crate never cuts off records: another program did, and the map would raise
            // SIGBUS where the bytes are missing (docs/durability.md, "SIGBUS").
            return Err(self.corruption(length, None, CorruptionKind::Length("the file")).into());
        }
        let end = sealed.data_end as usize;
        let map = || file.map(end, Access::Read).and_then(|memory| Region::sealed(memory, end));
        let region =
            self.env.maps.make(map).map_err(|source| Error::io("map", &self.path, source))?;
        *slot = Some(Arc::clone(&region));
        drop(slot);
        self.env.maps.register(self);
        Ok(Some(Window { region, base: 0, live: true }))
    }

    /// Makes ready for a sync of what lies below `end`; a hint, without effect on any byte.
    pub(crate) fn drop_pages(&self, end: usize) {
        let region = self.region.lock().clone();
        if let Some(region) = region {
            let _ = region.drop_pages(0..end);
        }
    }

    pub(crate) fn open_file(&self, access: Access) -> Result<Arc<dyn DiskFile>> {
        match self.env.disk.open(&self.path, access) {
            Ok(file) => Ok(file),
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
                Err(self.corruption(0, None, CorruptionKind::Missing).into())
            }
            Err(source) => Err(Error::io("open", &self.path, source)),
        }
    }

    /// Removes the file. A reader that has it open or mapped keeps what is in it.
    pub(crate) fn remove_file(&self) -> std::io::Result<()> {
        self.env.disk.remove_file(&self.path)?;
        self.give_up_space();
        Ok(())
    }

    /// The file is unlinked: its space is free, except for the part that is still mapped.
    pub(crate) fn give_up_space(&self) {
        self.end_space();
        self.claim.shrink_to(0);
        let bytes = self.sealed().map_or(0, |sealed| u64::from(sealed.data_end));
        if let Some(region) = &*self.region.lock() {
            let bytes = bytes.max(region.published() as u64);
            self.env.pinned.note(&self.origin, region, bytes);
        }
    }

    /// Makes durable what happened to names in the directory of the segment.
    pub(crate) fn sync_dir(&self) -> Result<()> {
        let Some(dir) = self.path.parent() else { return Ok(()) };
        self.env.disk.sync_dir(dir).map_err(|source| Error::io("sync", dir, source))
    }

    /// The footer, if the segment has a valid one. Damage there costs a scan, never data.
    pub(crate) fn read_footer(&self) -> Result<Option<Footer>> {
        let file = self.open_file(Access::Read)?;
        let footer = read_footer(&*file, self.key.salt());
        let footer = footer.map_err(|source| Error::io("read", &self.path, source))?;
        // One that was written before a truncation says too much.
        Ok(footer.filter(|footer| self.sealed().is_none_or(|sealed| sealed.agrees_with(footer))))
    }

    pub(crate) fn corruption(
        &self,
        position: u64,
        offsets: Option<std::ops::Range<u64>>,
        kind: CorruptionKind,
    ) -> Corruption {
        Corruption {
            partition: Some(TopicPartition::clone(&self.origin)),
            file: self.path.clone(),
            position,
            offsets,
            kind,
        }
    }

    /// What a log lacks that begins at `offset` and whose first segment this is: the files before.
    pub(crate) fn missing_before(&self, offset: u64) -> Corruption {
        self.corruption(0, Some(offset..self.base_offset), CorruptionKind::Missing)
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("path", &self.path)
            .field("base_offset", &self.base_offset)
            .field("sealed", &self.sealed())
            .finish_non_exhaustive()
    }
}

/// The footer at the end of a file, if there is a valid one.
pub(crate) fn read_footer(file: &dyn DiskFile, salt: u64) -> std::io::Result<Option<Footer>> {
    let length = file.len()?;
    let mut trailer = [0; Footer::TRAILER_SIZE];
    let Some(trailer_start) = length.checked_sub(trailer.len() as u64) else {
        return Ok(None);
    };
    if file.read_at(&mut trailer, trailer_start)? < trailer.len() {
        return Ok(None);
    }
    let Some(footer_length) = Footer::length(&trailer).map(u64::from) else {
        return Ok(None);
    };
    // The length is checked against the file before anything is allocated by it.
    let (Some(start), Ok(size)) =
        (length.checked_sub(footer_length), usize::try_from(footer_length))
    else {
        return Ok(None);
    };
    let mut bytes = vec![0; size];
    if file.read_at(&mut bytes, start)? < bytes.len() {
        return Ok(None);
    }
    Ok(Footer::decode(&bytes, salt).ok().filter(|footer| u64::from(footer.data_end) <= start))
}

/// The segments of a partition in the order of ranks and offsets, shared with its readers.
#[derive(Debug)]
pub(crate) struct SegmentList(RwLock<VecDeque<Arc<Segment>>>);

impl SegmentList {
    pub(crate) fn new(segments: impl IntoIterator<Item = Arc<Segment>>) -> Self {
        Self(RwLock::at_level(LockLevel::SegmentList, segments.into_iter().collect()))
    }

    /// Becomes a list of the same segments as another.
    pub(super) fn become_as(&self, other: &Self) {
        let segments = other.0.read().clone();
        *self.0.write() = segments;
    }

    /// The same segment as a later look at its file has found it, if it is longer now: another
    /// process appends to it.
    pub(super) fn grown(&self, segment: &Segment) -> Option<Arc<Segment>> {
        let before = segment.sealed()?.data_end;
        let now = self.holding_rank(segment.ranks.0)?;
        let is_longer = now.sealed().is_some_and(|sealed| sealed.data_end > before);
        (now.number == segment.number && is_longer).then_some(now)
    }

    fn holding_rank(&self, first: u64) -> Option<Arc<Segment>> {
        let segments = self.0.read();
        let found = segments.binary_search_by_key(&first, |other| other.ranks.0).ok()?;
        segments.get(found).cloned()
    }

    pub(crate) fn push(&self, segment: Arc<Segment>) {
        self.0.write().push_back(segment);
    }

    /// The segment that holds `offset`: the last one whose base offset is not above it. The first
    /// segment when `offset` lies below all.
    pub(crate) fn holding(&self, offset: u64) -> Option<Arc<Segment>> {
        let segments = self.0.read();
        let after = segments.partition_point(|segment| segment.base_offset <= offset);
        segments.get(after.saturating_sub(1)).cloned()
    }

    /// The segment that follows this one, which need not be in the list any more.
    pub(crate) fn after(&self, segment: &Segment) -> Option<Arc<Segment>> {
        let segments = self.0.read();
        let last = segment.ranks.1;
        segments.get(segments.partition_point(|other| other.ranks.0 <= last)).cloned()
    }

    /// Whether this segment still belongs to the log: neither removed nor replaced.
    pub(crate) fn contains(&self, segment: &Segment) -> bool {
        let found = self.holding_rank(segment.ranks.0);
        found.is_some_and(|other| other.number == segment.number)
    }

    /// Replaces the segments whose ranks `new` covers by `new`, in one step for readers, and
    /// returns them. If there is none, it does nothing.
    pub(crate) fn replace(&self, new: &Arc<Segment>) -> Vec<Arc<Segment>> {
        let (first, last) = new.ranks;
        let mut segments = self.0.write();
        let start = segments.partition_point(|segment| segment.ranks.1 < first);
        let end = segments.partition_point(|segment| segment.ranks.0 <= last);
        if start >= end {
            return Vec::new();
        }
        let replaced = segments.drain(start..end).collect();
        segments.insert(start, Arc::clone(new));
        replaced
    }

    pub(crate) fn all(&self) -> Vec<Arc<Segment>> {
        self.0.read().iter().cloned().collect()
    }

    /// Up to `count` segments after the one with this last rank, in order; from the first one on
    /// without a rank. For walks over all segments that must not hold the list's lock for long.
    pub(crate) fn some_after(&self, rank: Option<u64>, count: usize) -> Vec<Arc<Segment>> {
        let segments = self.0.read();
        let from =
            rank.map_or(0, |rank| segments.partition_point(|segment| segment.ranks.0 <= rank));
        segments.range(from..).take(count).cloned().collect()
    }

    pub(crate) fn first(&self) -> Option<Arc<Segment>> {
        self.0.read().front().cloned()
    }

    pub(crate) fn last(&self) -> Option<Arc<Segment>> {
        self.0.read().back().cloned()
    }

    pub(crate) fn count(&self) -> usize {
        self.0.read().len()
    }

    /// Takes out the segments that begin at or above `offset`, and adds `new`, in one step for
    /// readers.
    #[cfg(feature = "replication")]
    pub(super) fn truncate(&self, offset: u64, new: &Arc<Segment>) -> Vec<Arc<Segment>> {
        let mut segments = self.0.write();
        let kept = segments.partition_point(|segment| segment.base_offset < offset);
        let removed = segments.drain(kept..).collect();
        segments.push_back(Arc::clone(new));
        removed
    }

    /// Takes out at most `count` of the segments that end at or below `offset`, oldest first; the
    /// last one is always kept.
    pub(crate) fn remove_below(&self, offset: u64, count: usize) -> Vec<Arc<Segment>> {
        let mut segments = self.0.write();
        let mut removed = Vec::new();
        while segments.len() > 1 && removed.len() < count {
            let ends_below = segments
                .front()
                .and_then(|segment| segment.next_offset())
                .is_some_and(|next| next <= offset);
            if !ends_below {
                break;
            }
            removed.extend(segments.pop_front());
        }
        removed
    }
}

impl Segment {
    /// Releases the map, unless a message or cursor holds it, or a reader is about to take it.
    pub(crate) fn try_drop_map(&self) -> bool {
        let Some(mut slot) = self.region.try_lock() else { return false };
        if slot.as_ref().is_some_and(|region| Arc::strong_count(region) > 1) {
            return false;
        }
        let map = slot.take();
        drop(slot);
        // Unmapped without the lock: it takes as long as the map has pages.
        drop(map);
        true
    }

    /// Whether the map was taken since the last call.
    pub(super) fn was_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }
}

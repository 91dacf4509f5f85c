//! One file of the simulated disk: its pages, and their versions since the last sync.
//!
//! Owns bytes and lengths, current and durable. Must not know names, faults or other files.
//!
//! 1. A page without versions is clean: a sync does not change what is durable of it.
//! 2. `cached` is what a read returns. It equals the last version, except after a failed sync.
//! 3. A page that is not there is zeros, durable and cached.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// LIMIT: the unit in which a kernel writes back, and so of what may be lost.
pub(super) const PAGE: usize = 4096;

/// LIMIT: how many versions of a page a test broker keeps: a test that appends 100,000 small records
/// without a sync takes 50 MB, not 400. Our own tests need each version.
const VERSIONS_MAX: usize = if cfg!(test) { 1 << 20 } else { 4 };

pub(super) type Bytes = Arc<[u8; PAGE]>;

#[derive(Debug, Clone)]
pub(super) struct Page {
    pub(super) durable: Bytes,
    /// Contents since the last sync, oldest first, each as a store left it.
    pub(super) versions: Vec<Bytes>,
    cached: Bytes,
}

impl Default for Page {
    fn default() -> Self {
        let zeros = Arc::new([0; PAGE]);
        Self { durable: Arc::clone(&zeros), versions: Vec::new(), cached: zeros }
    }
}

impl Page {
    pub(super) fn synced(bytes: Bytes) -> Self {
        Self { durable: Arc::clone(&bytes), versions: Vec::new(), cached: bytes }
    }

    /// Whether a power cut may find another content than the durable one.
    pub(super) fn is_dirty(&self) -> bool {
        !self.versions.is_empty()
    }

    /// Version 0 is the durable one.
    pub(super) fn version(&self, number: usize) -> Bytes {
        let since = number.checked_sub(1).and_then(|index| self.versions.get(index));
        Arc::clone(since.unwrap_or(&self.durable))
    }

    fn change(&mut self, change: impl FnOnce(&mut [u8; PAGE])) {
        let mut bytes = *self.cached;
        change(&mut bytes);
        self.cached = Arc::new(bytes);
        if self.versions.len() >= VERSIONS_MAX {
            self.versions.pop();
        }
        self.versions.push(Arc::clone(&self.cached));
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    pub(super) pages: BTreeMap<u64, Page>,
    pub(super) length: u64,
    pub(super) durable_length: u64,
}

impl Content {
    pub(super) fn read(&self, buffer: &mut [u8], position: u64) {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let (number, within) = locate(position.saturating_add(filled as u64));
            let count = rest.len().min(PAGE - within);
            let rest = rest.get_mut(..count).unwrap_or_default();
            match self.pages.get(&number).and_then(|page| page.cached.get(within..within + count)) {
                Some(bytes) => rest.copy_from_slice(bytes),
                None => rest.fill(0),
            }
            filled += count;
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8], position: u64) {
        let mut rest = bytes;
        let mut at = position;
        while !rest.is_empty() {
            let (number, within) = locate(at);
            let (now, later) = rest.split_at(rest.len().min(PAGE - within));
            self.pages.entry(number).or_default().change(|page| {
                if let Some(target) = page.get_mut(within..within + now.len()) {
                    target.copy_from_slice(now);
                }
            });
            at = at.saturating_add(now.len() as u64);
            rest = later;
        }
        if !bytes.is_empty() {
            self.grow(at);
        }
    }

    pub(super) fn clear(&mut self, range: Range<u64>) {
        let mut at = range.start;
        let end = range.end.min(self.length);
        while at < end {
            let (number, within) = locate(at);
            let count = usize::try_from(end - at).unwrap_or(PAGE).min(PAGE - within);
            if let Some(page) = self.pages.get_mut(&number) {
                page.change(|page| {
                    page.get_mut(within..within + count).unwrap_or_default().fill(0);
                });
            }
            at = at.saturating_add(count as u64);
        }
    }

    pub(super) fn grow(&mut self, end: u64) {
        self.length = self.length.max(end);
    }

    pub(super) fn truncate(&mut self, length: u64) {
        let end = self.length;
        self.clear(length..end);
        self.length = length;
    }

    /// The cached pages with their positions.
    pub(super) fn pages(&self) -> impl Iterator<Item = (u64, &[u8; PAGE])> {
        self.pages.iter().map(|(number, page)| (number * PAGE as u64, &*page.cached))
    }

    /// A sync that succeeded. Pages without versions were clean, and stay as they are.
    pub(super) fn make_durable(&mut self) {
        for page in self.pages.values_mut() {
            if let Some(last) = page.versions.pop() {
                page.durable = last;
                page.versions.clear();
            }
        }
        self.durable_length = self.length;
    }

    /// A sync that failed: each dirty page was written or not, and is clean now. The cache keeps
    /// what it had, or falls back to what is durable; both were seen on real file systems.
    pub(super) fn fail_sync(&mut self, mut coin: impl FnMut() -> u64) {
        for page in self.pages.values_mut() {
            let Some(last) = page.versions.pop() else {
                continue;
            };
            page.versions.clear();
            match coin() % 3 {
                0 => page.durable = last,
                1 => page.cached = Arc::clone(&page.durable),
                _ => {}
            }
        }
        if coin().is_multiple_of(2) {
            self.durable_length = self.length;
        }
    }
}

fn locate(position: u64) -> (u64, usize) {
    let within = usize::try_from(position % PAGE as u64).unwrap_or_default();
    (position / PAGE as u64, within)
}

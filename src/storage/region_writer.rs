//! The writer of a region: writes to the file and to memory, in this order.
//!
//! Owns the end of what was written, and how far memory can be stored into. Must not know what the
//! bytes mean. Everything that unsafe code depends on is checked again there, in `region`. The log
//! calls it under the partition's lock.
//!
//! 1. `published <= written`, and where bytes are stored `written <= writable <= capacity`.
//! 2. A file is written before memory is stored into, so a failed write leaves memory unchanged.

use std::io;
use std::sync::Arc;

use super::disk::DiskFile;
use super::region::{Memory, Region, Sole, end_of, invalid};

/// The sole writer of a region.
#[derive(Debug)]
pub(crate) struct RegionWriter {
    sole: Sole,
    /// Where bytes go besides memory, or instead of it.
    file: Option<Arc<dyn DiskFile>>,
    /// The file whose map the memory is, if what is written to the file shows in it.
    shown: Option<Arc<dyn DiskFile>>,
    store: bool,
    published: usize,
    written: usize,
    writable: usize,
}

impl RegionWriter {
    /// A writer that continues at `published`. Bytes are written to `file`, if there is one, and
    /// then stored into memory, if `store`. Nothing is [`writable`](Self::writable) yet.
    pub(crate) fn new(
        memory: Memory,
        published: usize,
        file: Option<Arc<dyn DiskFile>>,
        store: bool,
    ) -> io::Result<Self> {
        if store && !memory.is_storable() {
            return Err(invalid("this memory cannot be stored into"));
        }
        if !store && file.is_none() {
            return Err(invalid("a writer with neither a file nor memory"));
        }
        let sole = Sole::claim(memory, published)?;
        let (shown, written, writable) = (None, published, published);
        let writer = Self { sole, file, shown, store, published, written, writable };
        writer.check();
        Ok(writer)
    }

    /// Names the file whose map the memory is: what is written to the file must show in it.
    pub(crate) fn shows(mut self, file: Arc<dyn DiskFile>) -> Self {
        self.shown = Some(file);
        self
    }

    /// Invariant 1.
    fn check(&self) {
        debug_assert!(self.published == self.region().published(), "what readers see is known");
        debug_assert!(self.published <= self.written, "only written bytes are published");
        debug_assert!(!self.store || self.written <= self.writable, "stored where it is ready");
        debug_assert!(self.writable <= self.region().capacity(), "only memory is writable");
    }

    pub(crate) fn region(&self) -> &Arc<Region> {
        self.sole.region()
    }

    /// Writes bytes that stay invisible until they are published. After an error nothing below
    /// `position` has changed, and the same position may be written again.
    pub(crate) fn write(&mut self, position: usize, bytes: &[u8]) -> io::Result<()> {
        self.put(position, bytes, false)
    }

    /// As [`write`](Self::write), with `word` at the position `at` of `bytes`. Where bytes are only
    /// stored, the word is stored after them, so that their copy does not wait for it: it may take
    /// longer to compute than they take to copy.
    #[inline]
    pub(crate) fn write_with(
        &mut self,
        position: usize,
        bytes: &mut [u8],
        at: usize,
        word: [u8; 4],
    ) -> io::Result<()> {
        if self.store && self.file.is_none() {
            let end = self.end_of_write(position, bytes)?;
            self.sole.store_with(position, bytes, at, word)?;
            self.sole.store_soon(end, bytes.len());
            self.set_written(end);
            return Ok(());
        }
        let room = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<4>());
        *room.ok_or_else(|| invalid("a word beyond the bytes"))? = word;
        self.put(position, bytes, false)
    }

    /// As [`write`](Self::write), but not by stores into a map of the file: a sync then writes the
    /// pages of these bytes, and not all of the folio that a store has made dirty.
    pub(crate) fn write_to_file(&mut self, position: usize, bytes: &[u8]) -> io::Result<()> {
        self.put(position, bytes, true)
    }

    fn put(&mut self, position: usize, bytes: &[u8], to_file: bool) -> io::Result<()> {
        let end = self.end_of_write(position, bytes)?;
        let shown = if to_file { self.shown.as_ref() } else { None };
        if let Some(file) = shown.or(self.file.as_ref()) {
            file.write_at(bytes, position as u64)?;
        }
        if self.store && shown.is_none() {
            self.sole.store(position, bytes)?;
            self.sole.store_soon(end, bytes.len());
        }
        self.set_written(end);
        Ok(())
    }

    /// Where bytes that are written at `position` end.
    #[inline]
    fn end_of_write(&self, position: usize, bytes: &[u8]) -> io::Result<usize> {
        if position < self.published {
            return Err(invalid("written below the published end"));
        }
        let limit = if self.store { self.writable } else { self.region().capacity() };
        end_of(position, bytes, limit)
    }

    #[inline]
    fn set_written(&mut self, end: usize) {
        self.written = self.written.max(end);
        self.check();
    }

    /// Shows everything below `end` to readers, for ever.
    ///
    /// # Panics
    ///
    /// If `end` is below what is published or beyond what was written: our own bug, and readers
    /// would be shown bytes that may still change.
    #[inline]
    pub(crate) fn publish(&mut self, end: usize) {
        assert!(end <= self.written, "only written bytes are published");
        self.sole.publish(end);
        self.published = end;
        self.check();
    }

    /// Says that memory below `end` is allocated and populated. Goes back only when
    /// [all stores end](Self::end_stores).
    pub(crate) fn set_writable(&mut self, end: usize) {
        self.writable = self.writable.max(end.min(self.region().capacity()));
        self.check();
    }

    /// Ends all stores: the file may be shortened after what was written.
    pub(crate) fn end_stores(&mut self) {
        self.writable = self.written;
        self.check();
    }

    /// Up to where bytes may be stored.
    pub(crate) fn writable(&self) -> usize {
        self.writable
    }
}

#[cfg(test)]
mod tests;

//! A window that moves forward over the bytes of a file, for code that trusts none of them; and where
//! the zeros at its end begin.
//!
//! Reads by `pread` into one buffer of bounded size. So a failing disk or a hostile file causes an
//! error, never a signal, and memory does not grow with the segment.

use std::io;
use std::ops::Range;

use crate::format::{BATCH_HEADER_SIZE_MIN, BatchHeader};
use crate::storage::disk::DiskFile;

/// LIMIT: how much is read at a time: large enough that system calls cost little beside the
/// checksums.
pub(super) const CHUNK_BYTES: usize = 1 << 20;

/// The position after the last byte in a range of a file that is not zero; the start of the range if
/// all are.
pub(super) fn end_of_contents(file: &dyn DiskFile, range: Range<u64>) -> io::Result<u64> {
    /// LIMIT: a cache line, which is compared with a few vector instructions: most of what is read is
    /// space that was never used.
    const BLOCK: usize = 64;
    let mut buffer = Vec::new();
    let mut end = range.end;
    while end > range.start {
        let start = end.saturating_sub(CHUNK_BYTES as u64).max(range.start);
        buffer.resize(usize::try_from(end.saturating_sub(start)).unwrap_or(CHUNK_BYTES), 0);
        let read = file.read_at(&mut buffer, start)?;
        let bytes = buffer.get(..read).unwrap_or_default();
        let zeros = bytes.rchunks_exact(BLOCK).take_while(|block| **block == [0; BLOCK]).count();
        let rest = bytes.len().saturating_sub(zeros.saturating_mul(BLOCK));
        let last = bytes.get(..rest).unwrap_or_default().iter().rposition(|byte| *byte != 0);
        if let Some(last) = last {
            return Ok(start.saturating_add(last as u64).saturating_add(1));
        }
        end = start;
    }
    Ok(range.start)
}

enum Source<'a> {
    File(&'a dyn DiskFile),
    /// Bytes that are in memory already, and where they begin.
    Bytes(&'a [u8], u64),
}

pub(super) struct ChunkReader<'a> {
    source: Source<'a>,
    buffer: Vec<u8>,
    base: u64,
    end: u64,
    chunk: usize,
}

impl<'a> ChunkReader<'a> {
    /// Reads a file up to `end`, or to its own end if that comes first.
    pub(super) fn new(file: &'a dyn DiskFile, end: u64, chunk: usize) -> io::Result<Self> {
        let end = file.len()?.min(end);
        Ok(Self { source: Source::File(file), buffer: Vec::new(), base: 0, end, chunk })
    }

    /// Reads bytes that are in memory and begin at the position `base` of their file.
    pub(super) fn over(bytes: &'a [u8], base: u64) -> Self {
        let end = base.saturating_add(bytes.len() as u64);
        Self { source: Source::Bytes(bytes, base), buffer: Vec::new(), base: 0, end, chunk: 0 }
    }

    /// Where the bytes end.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// The bytes from `position` on: at least `wanted` of them, fewer only at the end.
    pub(super) fn at(&mut self, position: u64, wanted: usize) -> io::Result<&[u8]> {
        let file = match self.source {
            Source::File(file) => file,
            Source::Bytes(bytes, base) => {
                let skip = usize::try_from(position.saturating_sub(base)).unwrap_or(usize::MAX);
                return Ok(bytes.get(skip..).unwrap_or_default());
            }
        };
        let buffered = self.base.saturating_add(self.buffer.len() as u64);
        let wanted_end = position.saturating_add(wanted as u64).min(self.end);
        if position < self.base || wanted_end > buffered {
            let left = usize::try_from(self.end.saturating_sub(position)).unwrap_or(usize::MAX);
            self.buffer.resize(wanted.max(self.chunk).min(left), 0);
            let read = file.read_at(&mut self.buffer, position)?;
            self.buffer.truncate(read);
            self.base = position;
        }
        let skip = usize::try_from(position.saturating_sub(self.base)).unwrap_or(usize::MAX);
        Ok(self.buffer.get(skip..).unwrap_or_default())
    }

    /// The bytes of the batch at `position`, all of them if they are there.
    pub(super) fn batch(&mut self, position: u64) -> io::Result<&[u8]> {
        let bytes = self.at(position, BATCH_HEADER_SIZE_MIN)?;
        let size = BatchHeader::declared_size(bytes).map_or(0, |size| size as usize);
        // A size from the file is compared with the file before memory of that size is allocated.
        if position.saturating_add(size as u64) > self.end {
            return self.at(position, 0);
        }
        self.at(position, size)
    }
}

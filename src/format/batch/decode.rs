//! Reads batches: each is checked once, then iterated without errors.
//!
//! Owns: the check of a batch. [`BatchView::check`] verifies header, checksum and every record. A
//! view from it, or from [`BatchView::trusted`] over the same bytes, iterates without errors and
//! without allocating. Invariant: the check and the iteration share one parser, so they cannot
//! disagree. Pure; called from any thread.

use super::header::{ALIGNMENT, BatchHeader, FIXED_SIZE};
use super::record::{Cursor, RecordView};
use super::seal::{batch_checksum, plain_checksum};
use crate::error::CorruptionKind;
use crate::format::key::SegmentKey;

/// A view of a batch in its buffer. It is small: the header is read again when it is needed, which
/// costs a few loads from the cache, less than carrying it around.
#[derive(Clone, Copy)]
pub(crate) struct BatchView<'a> {
    /// The whole batch: header, records, padding.
    bytes: &'a [u8],
    /// Everything after the header and its extension.
    records: &'a [u8],
}

impl std::fmt::Debug for BatchView<'_> {
    /// The header only: payloads do not belong in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchView").field("header", &self.header()).finish_non_exhaustive()
    }
}

impl<'a> BatchView<'a> {
    /// Checks the batch at the start of `bytes` entirely. `None` is the end of the log.
    ///
    /// # Errors
    ///
    /// What is wrong with the header, the checksum or a record.
    #[inline]
    pub(crate) fn check(bytes: &'a [u8], key: &SegmentKey) -> Result<Option<Self>, CorruptionKind> {
        let Some(size) = Self::sound_size(bytes, key) else {
            return Self::check_any(bytes, key);
        };
        let bytes = bytes.get(..size as usize).unwrap_or_default();
        let records = bytes.get(FIXED_SIZE..).unwrap_or_default();
        Ok(Some(Self { bytes, records }))
    }

    /// The size of what nearly every batch is: without extension, and nothing wrong with it. `None`
    /// says nothing: [`check_any`](Self::check_any) decides. The answer fits a register: a view
    /// that is returned through memory is waited for, and costs as much as the rest of the check.
    fn sound_size(bytes: &'a [u8], key: &SegmentKey) -> Option<u32> {
        Self::sound_plain(bytes, key, |_| true).map(|header| header.size)
    }

    /// The header of the batch at the start of `bytes`, if it has no extension, is `wanted`, and
    /// nothing is wrong with it. `None` says nothing. For a loop that passes many batches: inlined
    /// into it, the header is never stored.
    #[inline]
    pub(crate) fn sound_plain(
        bytes: &'a [u8],
        key: &SegmentKey,
        wanted: impl FnOnce(&BatchHeader) -> bool,
    ) -> Option<BatchHeader> {
        let header = BatchHeader::parse_plain(bytes).filter(wanted)?;
        let bytes = bytes.get(..header.size as usize)?;
        let (fixed, records) = bytes.split_first_chunk::<FIXED_SIZE>()?;
        let sound = plain_checksum(bytes, fixed, records, key) == header.checksum
            && Self { bytes, records }.check_records(&header).is_ok();
        sound.then_some(header)
    }

    #[cold]
    fn check_any(bytes: &'a [u8], key: &SegmentKey) -> Result<Option<Self>, CorruptionKind> {
        let Some((header, view)) = Self::parse(bytes)? else {
            return Ok(None);
        };
        let computed = batch_checksum(view.bytes, header.header_size(), key);
        let stored = header.checksum;
        if stored != computed {
            return Err(CorruptionKind::Checksum { stored, computed });
        }
        view.check_records(&header)?;
        Ok(Some(view))
    }

    /// The batch at the start of bytes that [`check`](Self::check) has passed before.
    #[inline]
    pub(crate) fn trusted(bytes: &'a [u8]) -> Option<Self> {
        Self::parse(bytes).ok().flatten().map(|(_, view)| view)
    }

    /// Size, leader epoch and records of the batch at the start of bytes that
    /// [`check`](Self::check) has passed before: nothing is compared again.
    #[inline]
    pub(crate) fn records_of_checked(bytes: &'a [u8]) -> Option<(usize, u32, Records<'a>)> {
        let header = BatchHeader::parsed(bytes);
        let size = header.size as usize;
        let records = bytes.get(header.header_size()..size)?;
        let cursor = Cursor::new(&header, records);
        Some((size, header.leader_epoch, Records { cursor, remaining: header.record_count }))
    }

    #[inline]
    fn parse(bytes: &'a [u8]) -> Result<Option<(BatchHeader, Self)>, CorruptionKind> {
        let Some(header) = BatchHeader::parse(bytes)? else {
            return Ok(None);
        };
        let length = CorruptionKind::Length("batch");
        let (bytes, _) = bytes.split_at_checked(header.size as usize).ok_or(length)?;
        let records = bytes.get(header.header_size()..).unwrap_or_default();
        Ok(Some((header, Self { bytes, records })))
    }

    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "one call per record, also where the feature `replication` adds a caller"
    )]
    fn check_records(&self, header: &BatchHeader) -> Result<(), CorruptionKind> {
        // An opening batch has a payload of its own, which `Opening::decode` checks.
        if header.is_opening() {
            return Ok(());
        }
        let mut cursor = Cursor::new(header, self.records);
        for _ in 0..header.record_count {
            cursor.next::<false>().map_err(CorruptionKind::Malformed)?;
        }
        if cursor.rest.len() >= ALIGNMENT || cursor.rest.iter().any(|byte| *byte != 0) {
            return Err(CorruptionKind::Malformed("batch padding"));
        }
        Ok(())
    }

    /// The batch's header.
    #[inline]
    pub(crate) fn header(&self) -> BatchHeader {
        BatchHeader::parsed(self.bytes)
    }

    /// The records, in the order of their offsets.
    #[inline]
    pub(crate) fn records(&self) -> Records<'a> {
        let header = self.header();
        Records { cursor: Cursor::new(&header, self.records), remaining: header.record_count }
    }

    /// The bytes of the whole batch: header, records, padding.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Everything after the header: the records area, or an opening batch's payload.
    #[inline]
    pub(in crate::format) fn payload(&self) -> &'a [u8] {
        self.records
    }
}

/// The records of a batch.
#[derive(Debug, Clone)]
pub(crate) struct Records<'a> {
    cursor: Cursor<'a>,
    remaining: u32,
}

impl Records<'_> {
    /// No records at all.
    pub(crate) fn none() -> Self {
        Self { cursor: Cursor::new(&BatchHeader::default(), &[]), remaining: 0 }
    }

    /// The state of the iteration without the bytes, for a caller that cannot borrow them.
    #[inline]
    pub(crate) fn pause(&self) -> PausedRecords {
        let cursor = self.cursor.over(&[]);
        PausedRecords { cursor, remaining: self.remaining, left: self.cursor.rest.len() }
    }
}

/// An iteration over the records of a batch that does not hold the batch.
#[derive(Debug, Clone)]
pub(crate) struct PausedRecords {
    cursor: Cursor<'static>,
    remaining: u32,
    left: usize,
}

impl PausedRecords {
    /// continues. `bytes` end where the batch ends.
    #[inline]
    pub(crate) fn resume<'a>(&self, bytes: &'a [u8]) -> Records<'a> {
        let rest = bytes.get(bytes.len().saturating_sub(self.left)..).unwrap_or_default();
        Records { cursor: self.cursor.over(rest), remaining: self.remaining }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = RecordView<'a>;

    #[inline]
    fn next(&mut self) -> Option<RecordView<'a>> {
        self.remaining = self.remaining.checked_sub(1)?;
        // Only bytes that were never checked can fail here; they end the batch.
        let record = self.cursor.next::<true>().ok();
        if record.is_none() {
            self.remaining = 0;
        }
        record
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.remaining as usize))
    }
}

impl std::iter::FusedIterator for Records<'_> {}

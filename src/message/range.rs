//! The range of one region that holds a number of checked batches.
//!
//! Owns: a share of the region. Must not know: who checked it, and what its records are used for.
//!
//! Invariant: the bytes of a range are below their region's published end. Published bytes never
//! change, so what was checked once is still true when it is read.

use std::ops::Range;
use std::sync::Arc;

use crate::format::BatchView;
use crate::record::TopicPartition;
use crate::storage::region::Region;

/// A stretch of consecutive, checked batches in one region.
#[derive(Debug, Clone)]
pub(crate) struct CheckedRange {
    pub(crate) origin: Arc<TopicPartition>,
    pub(crate) region: Arc<Region>,
    /// Positions in the region: from the first batch's start to the last one's end.
    pub(crate) span: Range<usize>,
    /// The offsets that count; the first and last batch may hold more.
    pub(crate) offsets: Range<u64>,
    /// How many records of the span lie in `offsets`.
    pub(crate) records: usize,
}

impl CheckedRange {
    /// The records at or above `offset`, and the bytes of the batches that hold them.
    pub(crate) fn size_from(&self, offset: u64) -> (usize, usize) {
        let wanted = self.offsets.start.max(offset)..self.offsets.end;
        let mut rest = self.region.bytes(self.span.clone()).unwrap_or_default();
        let (mut records, mut bytes) = (0_usize, 0_usize);
        while !wanted.is_empty() {
            let Some((size, _, batch)) = BatchView::records_of_checked(rest) else { break };
            let found = batch.filter(|record| wanted.contains(&record.offset)).count();
            records = records.saturating_add(found);
            bytes = bytes.saturating_add(if found > 0 { size } else { 0 });
            rest = rest.get(size..).unwrap_or_default();
        }
        (records, bytes)
    }
}

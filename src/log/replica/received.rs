//! Batches that were received from a leader, checked entirely. Pure.
//!
//! The bytes are a stranger's until they are checked: nothing of them is used before, and whatever
//! they are, the result is a value or a [`Refusal`]. Must not know: the log that will have them.

use super::refusal::Refusal;
use super::under::Under;
use crate::error::CorruptionKind;
#[cfg(feature = "replication")]
use crate::format::BatchHeader;
use crate::format::BatchView;
use crate::log::OFFSET_MAX;

/// Whole batches, of which nothing is known to be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Received<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) base_offset: u64,
    pub(crate) next_offset: u64,
    pub(crate) first_epoch: u32,
    pub(crate) last_epoch: u32,
    /// Where the last gap between two batches ends, if there is one.
    pub(super) gap_end: Option<u64>,
    pub(super) largest: u32,
}

impl<'a> Received<'a> {
    /// Checks all of `bytes`: one or more batches whose checksums hold under the key of a segment.
    ///
    /// # Errors
    ///
    /// What is wrong with the first batch that is not as it should be.
    pub(crate) fn check(bytes: &'a [u8], under: Under) -> Result<Self, Refusal> {
        let key = under.key().map_err(|kind| Refusal::Damaged { position: 0, kind })?;
        let mut received: Option<Self> = None;
        let mut position = 0;
        // Each turn takes a whole batch, and an empty rest is none.
        while position < bytes.len() || received.is_none() {
            let damaged = |kind| Refusal::Damaged { position, kind };
            let rest = bytes.get(position..).unwrap_or_default();
            let view = BatchView::check(rest, &key).map_err(damaged)?;
            let view = view.ok_or_else(|| damaged(CorruptionKind::Length("a batch")))?;
            let header = view.header();
            if header.is_opening() {
                return Err(damaged(CorruptionKind::Malformed("an opening batch")));
            }
            if header.next_offset() > OFFSET_MAX {
                return Err(damaged(CorruptionKind::Malformed("base offset")));
            }
            let (base_offset, leader_epoch) = (header.base_offset, header.leader_epoch);
            let all = received.get_or_insert(Self {
                bytes,
                base_offset,
                next_offset: base_offset,
                first_epoch: leader_epoch,
                last_epoch: leader_epoch,
                gap_end: None,
                largest: 0,
            });
            all.check_next(base_offset, leader_epoch)?;
            all.next_offset = header.next_offset();
            all.last_epoch = leader_epoch;
            all.largest = all.largest.max(header.size);
            position = position.saturating_add(header.size as usize);
        }
        received.ok_or(Refusal::Damaged { position: 0, kind: CorruptionKind::Length("a batch") })
    }

    /// The batches one by one.
    #[cfg(feature = "replication")]
    pub(crate) fn each(self) -> impl Iterator<Item = Self> {
        let mut rest = self.bytes;
        std::iter::from_fn(move || {
            let header = BatchHeader::parse(rest).ok().flatten()?;
            let (bytes, after) = rest.split_at_checked(header.size as usize)?;
            rest = after;
            let (base_offset, next_offset) = (header.base_offset, header.next_offset());
            let epoch = header.leader_epoch;
            let (first_epoch, last_epoch, largest) = (epoch, epoch, header.size);
            let gap_end = None;
            Some(Self {
                bytes,
                base_offset,
                next_offset,
                first_epoch,
                last_epoch,
                gap_end,
                largest,
            })
        })
    }

    fn check_next(&mut self, base_offset: u64, leader_epoch: u32) -> Result<(), Refusal> {
        check_offset(self.next_offset, base_offset)?;
        if base_offset > self.next_offset {
            self.gap_end = Some(base_offset);
        }
        if leader_epoch < self.last_epoch {
            return Err(Refusal::Epoch { before: self.last_epoch, found: leader_epoch });
        }
        Ok(())
    }
}

/// Whether a batch may begin at `found` where the one before ends at `expected`. A compacted log
/// has gaps, but none that exceeds a segment, and offsets within a segment are 32 bits.
pub(super) fn check_offset(expected: u64, found: u64) -> Result<(), Refusal> {
    let gap = found.checked_sub(expected).map(u32::try_from);
    match gap {
        Some(Ok(_)) => Ok(()),
        _ => Err(Refusal::Offset { expected, found }),
    }
}

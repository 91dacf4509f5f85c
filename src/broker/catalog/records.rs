//! What the stored records of `__meta` are, one by one, without the state that they add up to.
//!
//! Pure: batches in, changes out. Must not know: where the batches come from.

use super::CatalogChange;
use crate::format::BatchView;
use crate::partition::state_log::stored::{Stored, decoded};

/// A record of `__meta`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum CatalogRecord {
    /// A change, or the copy of one that is in force.
    Change(CatalogChange),
    /// Records below this offset are not needed any more.
    Trim(u64),
}

/// The records of checked batches, by offset. What is no record of `__meta` is left out: it is refused
/// where the batches are stored.
pub(crate) fn records(batches: &[u8]) -> Vec<(u64, CatalogRecord)> {
    let (mut records, mut rest) = (Vec::new(), batches);
    while let Some(view) = BatchView::trusted(rest).filter(|_| !rest.is_empty()) {
        for record in view.records() {
            let found = match Stored::read(record.key, record.value) {
                Ok(Stored::Change { value, .. } | Stored::Copy { value, .. }) => {
                    decoded(value).ok().map(CatalogRecord::Change)
                }
                Ok(Stored::Trim { start, .. }) => Some(CatalogRecord::Trim(start)),
                Ok(Stored::Snapshot) | Err(_) => None,
            };
            records.extend(found.map(|found| (record.offset, found)));
        }
        rest = rest.get(view.bytes().len()..).unwrap_or_default();
    }
    records
}

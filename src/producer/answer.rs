//! The result of a call that sends several batches: which records were acknowledged.
//!
//! Owns: the acknowledged records of the call, and its first failure. Must not know: partitions,
//! and how records get there. A record without a result may or may not be stored.

use crate::error::{Error, Result};
use crate::record::RecordMetadata;

#[derive(Debug)]
pub(super) struct Answer {
    /// In the order of the input.
    records: Vec<Option<RecordMetadata>>,
    failure: Option<Error>,
    /// Whether all that failed left nothing in the log, for sure.
    is_definite: bool,
}

impl Answer {
    /// To a call with so many records.
    pub(super) fn to(records: usize) -> Self {
        Self { records: vec![None; records], failure: None, is_definite: true }
    }

    pub(super) fn note(&mut self, index: usize, metadata: RecordMetadata) {
        if let Some(slot) = self.records.get_mut(index) {
            *slot = Some(metadata);
        }
    }

    /// Something failed, and with it the acknowledgement of these records.
    pub(super) fn fail(&mut self, records: &[usize], error: Error) {
        for index in records {
            if let Some(slot) = self.records.get_mut(*index) {
                *slot = None;
            }
        }
        self.is_definite &= error.is_definite();
        self.failure.get_or_insert(error);
    }

    /// # Errors
    ///
    /// [`Error::PartialBatch`], or the failure itself where nothing of the call is in the log.
    pub(super) fn finish(self) -> Result<Vec<RecordMetadata>> {
        let Some(source) = self.failure else {
            return Ok(self.records.into_iter().flatten().collect());
        };
        if self.is_definite && self.records.iter().all(Option::is_none) {
            // All its partitions were deleted, with what was appended to them.
            return Err(source);
        }
        Err(Error::PartialBatch { done: self.records, source: Box::new(source) })
    }
}

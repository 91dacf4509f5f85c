//! From records to an encoded batch, before any lock.
//!
//! Everything that depends only on the caller's data happens here: limits, timestamps, encoding,
//! the checksum of the records. What depends on the log (offsets, salt) is done under its lock.

use std::cell::RefCell;
use std::time::SystemTime;

use crate::clock::to_millis;
use crate::config::TimestampType;
use crate::error::{Error, Result};
use crate::format::{BatchEncoder, EncodedBatch, TooLarge};
use crate::record::Record;

/// LIMIT: how much encoding memory a thread keeps between appends.
const KEPT_BYTES: usize = 1 << 20;

thread_local! {
    /// One encoder per thread: appending allocates nothing once it is warm.
    static ENCODER: RefCell<BatchEncoder> = RefCell::new(BatchEncoder::new());
}

/// The rules that records of a topic must obey.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecordRules {
    pub(crate) record_bytes_max: u32,
    pub(crate) timestamps: TimestampType,
    /// A topic that keeps the latest record of each key takes none without a key.
    pub(crate) needs_key: bool,
}

/// Encodes records, stamped with `now` (milliseconds) where they have no timestamp, and hands the
/// batch to `append`.
///
/// # Errors
///
/// [`Error::RecordTooLarge`] and [`Error::Config`] (a moment before 1970, no key in a compacted
/// topic), before anything is appended; otherwise what `append` returns.
#[inline]
pub(crate) fn encode<'r, 'a: 'r, R>(
    records: impl IntoIterator<Item = &'r Record<'a>>,
    rules: RecordRules,
    now: u64,
    append: impl FnOnce(&mut EncodedBatch<'_>) -> Result<R>,
) -> Result<R> {
    ENCODER.with(|encoder| match encoder.try_borrow_mut() {
        Ok(mut encoder) => {
            let result = encode_into(&mut encoder, records, rules, now, append);
            encoder.shrink_to(KEPT_BYTES);
            result
        }
        // An iterator of the caller's that appends by itself.
        Err(_) => encode_into(&mut BatchEncoder::new(), records, rules, now, append),
    })
}

#[inline]
fn encode_into<'r, 'a: 'r, R>(
    encoder: &mut BatchEncoder,
    records: impl IntoIterator<Item = &'r Record<'a>>,
    rules: RecordRules,
    now: u64,
    append: impl FnOnce(&mut EncodedBatch<'_>) -> Result<R>,
) -> Result<R> {
    encoder.clear();
    for record in records {
        let size = record.payload_bytes();
        if size > u64::from(rules.record_bytes_max) {
            let limit = u64::from(rules.record_bytes_max);
            return Err(Error::RecordTooLarge { size, limit });
        }
        if rules.needs_key && record.key.is_none() {
            return Err(Error::config("key", "a compacted topic takes no record without a key"));
        }
        let timestamp = timestamp_of(record, rules.timestamps, now)?;
        encoder
            .push(timestamp, record.key, record.value, record.headers.iter().copied())
            .map_err(|TooLarge { size, limit }| Error::RecordTooLarge { size, limit })?;
    }
    append(&mut encoder.finish())
}

/// The timestamp that a record is stored with, in milliseconds.
#[inline]
pub(crate) fn timestamp_of(record: &Record<'_>, kind: TimestampType, now: u64) -> Result<u64> {
    match (kind, record.timestamp) {
        (TimestampType::CreateTime, Some(time)) => millis_of(time),
        _ => Ok(now),
    }
}

pub(crate) fn millis_of(time: SystemTime) -> Result<u64> {
    to_millis(time)
        .ok_or_else(|| Error::config("timestamp", "a moment before 1970 or beyond 64 bits"))
}

//! Encodes records as a batch, before any lock is taken.
//!
//! It does everything that depends only on the caller's data: limits, timestamps, encoding, the
//! checksum of the records. What depends on the log (offsets, salt) is done under its lock.

use std::cell::Cell;

use crate::clock::to_millis;
use crate::config::TimestampType;
use crate::error::{Error, Result};
use crate::format::{BatchEncoder, EncodedBatch};
use crate::record::Record;

/// LIMIT: how much encoding memory a thread keeps between appends.
const KEPT_BYTES: usize = 1 << 20;

thread_local! {
    /// One encoder per thread: appending allocates nothing once it is warm. None while it is in
    /// use.
    static ENCODER: Cell<Option<Box<BatchEncoder>>> = const { Cell::new(None) };
}

/// The rules that records of a topic must obey.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecordRules {
    pub(crate) record_bytes_max: u32,
    pub(crate) timestamps: TimestampType,
    /// A topic that keeps the latest record of each key takes none without a key.
    pub(crate) needs_key: bool,
}

/// The encoder of the calling thread, until it is dropped.
///
/// An iterator of the application's may append by itself while its records are encoded. The append
/// inside finds no encoder, and makes one.
#[derive(Debug)]
pub(crate) struct Encoder(Option<Box<BatchEncoder>>);

impl Encoder {
    #[inline]
    pub(crate) fn take() -> Self {
        // No encoder either in a thread that ends: the records of its destructors are appended too.
        Self(ENCODER.try_with(Cell::take).ok().flatten())
    }

    /// Encodes records as one batch, stamped with `now` (milliseconds) where they have no
    /// timestamp.
    ///
    /// # Errors
    ///
    /// [`Error::RecordTooLarge`] and [`Error::Config`] (a moment before 1970, no key in a compacted
    /// topic).
    #[inline]
    pub(crate) fn encode<'r, 'a: 'r>(
        &mut self,
        records: impl IntoIterator<Item = &'r Record<'a>>,
        rules: RecordRules,
        now: u64,
    ) -> Result<EncodedBatch<'_>> {
        let encoder = self.0.get_or_insert_with(Box::default);
        let mut records = records.into_iter();
        let is_lone = records.size_hint().1 == Some(1);
        let lone = if is_lone { records.next() } else { None };
        if let Some(record) = lone
            && record.headers.is_empty()
        {
            let timestamp = check(record, rules, now)?;
            return Ok(encoder.lone(timestamp, record.key, record.value)?);
        }
        encoder.clear();
        if let Some(record) = lone {
            push(encoder, record, rules, now)?;
        }
        for record in records {
            push(encoder, record, rules, now)?;
        }
        Ok(encoder.finish())
    }
}

#[inline]
fn push(
    encoder: &mut BatchEncoder,
    record: &Record<'_>,
    rules: RecordRules,
    now: u64,
) -> Result<()> {
    let timestamp = check(record, rules, now)?;
    Ok(encoder.push(timestamp, record.key, record.value, record.headers.iter().copied())?)
}

/// The timestamp of a record that obeys the rules.
#[inline]
fn check(record: &Record<'_>, rules: RecordRules, now: u64) -> Result<u64> {
    let size = record.payload_bytes();
    if size > u64::from(rules.record_bytes_max) {
        return Err(too_large(size, rules));
    }
    if rules.needs_key && record.key.is_none() {
        return Err(lacks_key());
    }
    timestamp_of(record, rules.timestamps, now)
}

#[cold]
fn too_large(size: u64, rules: RecordRules) -> Error {
    Error::RecordTooLarge { size, limit: u64::from(rules.record_bytes_max) }
}

#[cold]
fn lacks_key() -> Error {
    Error::config("key", "a compacted topic takes no record without a key")
}

impl Drop for Encoder {
    #[inline]
    fn drop(&mut self) {
        if let Some(mut encoder) = self.0.take() {
            encoder.shrink_to(KEPT_BYTES);
            let _ = ENCODER.try_with(|kept| kept.set(Some(encoder)));
        }
    }
}

/// The timestamp that a record is stored with, in milliseconds.
#[inline]
pub(crate) fn timestamp_of(record: &Record<'_>, kind: TimestampType, now: u64) -> Result<u64> {
    match (kind, record.timestamp) {
        (TimestampType::CreateTime, Some(time)) => stored_millis(to_millis(time)),
        _ => Ok(now),
    }
}

/// Milliseconds, if the time can be stored in them.
#[inline]
pub(super) fn stored_millis(millis: Option<u64>) -> Result<u64> {
    match millis {
        Some(millis) => Ok(millis),
        None => Err(not_stored()),
    }
}

#[cold]
fn not_stored() -> Error {
    Error::config("timestamp", "it is before 1970 or exceeds 64 bits of milliseconds")
}

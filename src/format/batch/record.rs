//! One record inside a batch: the parser that checking and iterating share, and what it yields.
//!
//! Owns: the record's layout when read. Invariants: 1. each successful call consumes at least one
//! byte, so every loop over records ends; 2. offset deltas rise strictly and stay within the
//! batch; 3. nothing is allocated. Pure; called from any thread.

use super::header::BatchHeader;
use crate::format::fields::{take, take_slice};
use crate::format::varint;

pub(in crate::format) const HAS_KEY: u8 = 1 << 0;
pub(in crate::format) const HAS_VALUE: u8 = 1 << 1;
pub(in crate::format) const HAS_HEADERS: u8 = 1 << 2;
pub(in crate::format) const HAS_TIMESTAMP: u8 = 1 << 3;
pub(in crate::format) const HAS_OFFSET: u8 = 1 << 4;
pub(in crate::format) const KNOWN: u8 = 0x1f;

/// One record, borrowed from its batch.
#[derive(Clone)]
pub(crate) struct RecordView<'a> {
    pub(crate) offset: u64,
    pub(crate) timestamp: u64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: HeaderFields<'a>,
}

impl std::fmt::Debug for RecordView<'_> {
    /// Sizes only: payloads do not belong in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordView")
            .field("offset", &self.offset)
            .field("timestamp", &self.timestamp)
            .field("key_bytes", &self.key.map(<[u8]>::len))
            .field("value_bytes", &self.value.map(<[u8]>::len))
            .field("headers", &self.headers.len())
            .finish()
    }
}

/// The headers of one record, in their order. Cloning it is cheap; the default has none.
#[derive(Clone, Default)]
pub(crate) struct HeaderFields<'a> {
    rest: &'a [u8],
    remaining: usize,
}

impl std::fmt::Debug for HeaderFields<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HeaderFields").field("remaining", &self.remaining).finish_non_exhaustive()
    }
}

impl<'a> HeaderFields<'a> {
    /// The encoded fields that are left; with their count, [`checked`](Self::checked) has them
    /// back.
    pub(crate) fn as_bytes(&self) -> &'a [u8] {
        self.rest
    }

    /// Fields that were taken out of a checked batch by [`as_bytes`](Self::as_bytes).
    pub(crate) fn checked(bytes: &'a [u8], count: usize) -> Self {
        Self { rest: bytes, remaining: count }
    }
}

impl<'a> Iterator for HeaderFields<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.remaining = self.remaining.checked_sub(1)?;
        let (name, value) = header_field(&mut self.rest)?;
        // `check` has seen that the name is UTF-8.
        Some((std::str::from_utf8(name).unwrap_or_default(), value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining, Some(self.remaining))
    }
}

impl ExactSizeIterator for HeaderFields<'_> {}
impl std::iter::FusedIterator for HeaderFields<'_> {}

/// Where a walk over a records area stands, and what it needs of the batch's header. The rare
/// parts take and return slices by value, so that the common record stays in registers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    pub(super) rest: &'a [u8],
    /// The offset delta of the next record, unless it says otherwise.
    next_delta: u64,
    last_delta: u64,
    base_offset: u64,
    base_timestamp: u64,
    max_timestamp: u64,
}

impl<'a> Cursor<'a> {
    #[inline]
    pub(super) fn new(header: &BatchHeader, records: &'a [u8]) -> Self {
        Self {
            rest: records,
            next_delta: 0,
            last_delta: u64::from(header.last_offset_delta),
            base_offset: header.base_offset,
            base_timestamp: header.base_timestamp,
            max_timestamp: header.max_timestamp,
        }
    }

    /// The same cursor over other remaining bytes.
    #[inline]
    pub(super) fn over<'b>(&self, rest: &'b [u8]) -> Cursor<'b> {
        Cursor { rest, ..*self }
    }

    /// Takes the next record off the front, or returns what is wrong with it. With `CHECKED`, its
    /// header names were checked before and are not looked at again.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "one call per record, also where the feature `replication` adds a caller"
    )]
    pub(super) fn next<const CHECKED: bool>(&mut self) -> Result<RecordView<'a>, &'static str> {
        let mut rest = self.rest;
        let [flags] = take(&mut rest).ok_or("record count")?;
        let mut timestamp = self.base_timestamp;
        let mut delta = self.next_delta;
        if flags & !(HAS_KEY | HAS_VALUE) != 0 {
            (timestamp, delta, rest) = self.rare_prefix(flags, rest)?;
        }
        if delta > self.last_delta {
            return Err("record offset");
        }
        let key = if flags & HAS_KEY != 0 { Some(bytes(&mut rest)?) } else { None };
        let value = if flags & HAS_VALUE != 0 { Some(bytes(&mut rest)?) } else { None };
        let mut headers = HeaderFields::default();
        if flags & HAS_HEADERS != 0 {
            (headers, rest) = headers_of::<CHECKED>(rest)?;
        }
        self.rest = rest;
        self.next_delta = delta + 1;
        // The batch's header was validated: its last offset does not overflow.
        let offset = self.base_offset.wrapping_add(delta);
        Ok(RecordView { offset, timestamp, key, value, headers })
    }

    /// What stands between the flags and the key: the timestamp and the offset delta.
    fn rare_prefix(
        &self,
        flags: u8,
        mut rest: &'a [u8],
    ) -> Result<(u64, u64, &'a [u8]), &'static str> {
        if flags & !KNOWN != 0 {
            return Err("record flags");
        }
        let mut timestamp = self.base_timestamp;
        if flags & HAS_TIMESTAMP != 0 {
            let delta = varint::get(&mut rest).ok_or("record timestamp")?;
            timestamp = timestamp.wrapping_add(varint::unzigzag(delta).cast_unsigned());
            if timestamp > self.max_timestamp {
                return Err("record timestamp");
            }
        }
        let mut delta = self.next_delta;
        if flags & HAS_OFFSET != 0 {
            delta = varint::get(&mut rest).ok_or("record offset")?;
            if delta < self.next_delta {
                return Err("record offset");
            }
        }
        Ok((timestamp, delta, rest))
    }
}

#[inline]
fn bytes<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], &'static str> {
    let length = varint::get(rest).ok_or("record length")?;
    take_slice(rest, length).ok_or("record length")
}

type Split<'a> = (HeaderFields<'a>, &'a [u8]);

fn headers_of<const CHECKED: bool>(mut rest: &[u8]) -> Result<Split<'_>, &'static str> {
    let count = varint::get(&mut rest).ok_or("header count")?;
    // Each takes two bytes at least, so the bytes limit a false count.
    let remaining = usize::try_from(count).map_err(|_| "header count")?;
    if remaining == 0 || remaining > rest.len() {
        return Err("header count");
    }
    let fields = HeaderFields { rest, remaining };
    for _ in 0..remaining {
        let (name, _) = header_field(&mut rest).ok_or("header length")?;
        if !CHECKED && std::str::from_utf8(name).is_err() {
            return Err("header name");
        }
    }
    Ok((fields, rest))
}

fn header_field<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let length = varint::get(rest)?;
    let name = take_slice(rest, length)?;
    let length = varint::get(rest)?;
    Some((name, take_slice(rest, length)?))
}

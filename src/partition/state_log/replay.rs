//! Reads the log of a state back.
//!
//! The whole log is read, from its first segment on. Only the last trim shows that segments were
//! removed: records below its offset are not needed, and a log that begins above it has lost its
//! head. If something below the trim is damaged (a clean-up was about to remove it), the log is
//! read from the trim's offset on.
//!
//! The log of a member of a replicated group may begin anew further on. Its records add up to the
//! whole state only once the trim is there that its leader wrote before the removal of those below.

use std::sync::Arc;

use super::LoggedState;
use super::draft::record_bytes;
use super::entries::RecordedAt;
use super::stored::{SNAPSHOT_KEY, Stored, decoded};
use crate::clock::to_millis;
use crate::error::{Corruption, CorruptionKind, Error, Result};
use crate::format::{NUMBERED_CHANGES, SegmentHeader};
use crate::log::cursor::{Cursor, FetchLimits, Fetched};
use crate::log::segment::Segment;
use crate::message::Batch;
use crate::partition::PartitionCore;
use crate::record::TopicPartition;

/// LIMIT: how much of the log is read at a time in a replay: more than a whole segment of the usual
/// size.
const REPLAY_BYTES: usize = 1 << 20;

/// A record that says that records below `start` are not needed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Trim {
    pub(super) start: u64,
    /// Its own offset.
    pub(super) offset: u64,
}

/// A state that is built from the records of its log, in their order.
#[derive(Debug, Default)]
pub(crate) struct Replay<S> {
    pub(crate) state: S,
    /// The number of the next change.
    pub(crate) next_number: u64,
    trim: Trim,
    /// Where the log began anew; 0 if it never did. Until a trim names this offset or a higher one,
    /// entries are missing.
    pub(super) anew_at: u64,
    /// Whether there was any record.
    pub(crate) has_records: bool,
    /// No record counts as younger. 0 where times do not matter.
    pub(crate) now: u64,
}

impl<S: LoggedState> Replay<S> {
    /// Takes the next record, once it is decoded and checked.
    pub(crate) fn apply(
        &mut self,
        offset: u64,
        timestamp: u64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<(), CorruptionKind> {
        let bytes = record_bytes(key.unwrap_or_default(), value.unwrap_or_default());
        let (value, is_copy) = match Stored::read(key, value)? {
            Stored::Snapshot => {
                self.state = S::default();
                self.trim = Trim { start: offset, offset };
                self.has_records = true;
                return Ok(());
            }
            Stored::Trim { start, next_number } => {
                if start > offset {
                    return Err(CorruptionKind::Malformed("where a log begins"));
                }
                self.note_trim(Trim { start, offset });
                self.next_number = self.next_number.max(next_number);
                self.has_records = true;
                return Ok(());
            }
            Stored::Change { number, value } => {
                if number > 0 && number < self.next_number {
                    return Err(CorruptionKind::Malformed("the number of a change"));
                }
                self.next_number = self.next_number.max(number.saturating_add(1));
                (value, false)
            }
            Stored::Copy { value, .. } => (value, true),
        };
        let change = decoded(value)?;
        self.state.check(&change)?;
        let time = timestamp.min(self.now);
        self.state.apply(change, RecordedAt { offset, bytes, time, is_copy });
        self.has_records = true;
        Ok(())
    }

    /// Takes a trim.
    pub(super) fn note_trim(&mut self, trim: Trim) {
        if trim.start > self.trim.start {
            self.trim = trim;
        }
    }

    /// The last trim.
    pub(super) fn trim(&self) -> Trim {
        self.trim
    }

    /// Records below are not needed.
    pub(crate) fn start(&self) -> u64 {
        self.trim.start
    }

    /// Whether the state has all its entries.
    pub(super) fn is_whole(&self) -> bool {
        self.trim.start >= self.anew_at
    }
}

/// Evidence about a log, apart from its files.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Evidence {
    /// A snapshot was synced in it, if it has the form that knew them.
    pub(crate) had_snapshot: bool,
    /// Records were synced in it.
    pub(crate) had_records: bool,
    /// It was about to begin anew at this offset, as a member of a replicated group; 0 if it never
    /// was.
    pub(crate) anew_at: u64,
}

/// The state at the end of the log.
pub(super) fn replay<S: LoggedState>(
    partition: &Arc<PartitionCore>,
    evidence: Evidence,
    damage: &[Corruption],
) -> Result<Replay<S>> {
    let segments = partition.log().segments().all();
    let reading = Reading { partition, segments: &segments, damage, anew_at: evidence.anew_at };
    let Some(first) = segments.first() else { return Ok(reading.nothing()) };
    let begin = reading.last_snapshot()?.unwrap_or(first);
    let replayed = match reading.from(begin) {
        Err(error @ Error::Corrupt(_)) => {
            let needed = reading.last_trim();
            match segments.iter().find(|it| it.base_offset == needed && needed > 0) {
                Some(needed) if needed.base_offset > begin.base_offset => reading.from(needed)?,
                _ => return Err(error),
            }
        }
        replayed => replayed?,
    };
    let is_old = segments.iter().all(|segment| !has_numbers(segment));
    if !replayed.has_records && (evidence.had_records || (is_old && evidence.had_snapshot)) {
        // DURABILITY: a snapshot is synced before the records that it replaces are removed. So a
        // log that ever had one has one, and a torn write cannot remove it.
        let kind = CorruptionKind::Malformed("the first record");
        return Err(first.corruption(SegmentHeader::SIZE as u64, None, kind).into());
    }
    Ok(replayed)
}

struct Reading<'a> {
    partition: &'a Arc<PartitionCore>,
    segments: &'a [Arc<Segment>],
    /// What the opening of the log found.
    damage: &'a [Corruption],
    /// As of [`Evidence`].
    anew_at: u64,
}

impl Reading<'_> {
    /// All there is, also what a majority is not known to have.
    fn limits(&self) -> FetchLimits {
        let visible_end = self.partition.log_end();
        FetchLimits { records: usize::MAX, bytes: REPLAY_BYTES, visible_end }
    }

    fn nothing<S: LoggedState>(&self) -> Replay<S> {
        let now = self.partition.log().clock().moment().run;
        Replay { now, anew_at: self.anew_at, ..Replay::default() }
    }

    /// The state from a replay of this segment and the following ones.
    fn from<S: LoggedState>(&self, begin: &Arc<Segment>) -> Result<Replay<S>> {
        let base = begin.base_offset;
        let counts = |damage: &&Corruption| {
            damage.offsets.as_ref().is_none_or(|offsets| offsets.end > offsets.start.max(base))
        };
        if let Some(damage) = self.damage.iter().find(counts) {
            return Err(damage.clone().into());
        }
        let mut replay = self.nothing::<S>();
        let mut cursor = beginning_of(begin)?;
        let limits = self.limits();
        loop {
            let mut fetched = Fetched::default();
            self.partition.reader().scan(&mut cursor, &limits, &mut fetched)?;
            if fetched.records == 0 {
                break;
            }
            for message in Batch::new(fetched.ranges).iter() {
                let time = to_millis(message.timestamp()).unwrap_or(0);
                let applied = replay.apply(message.offset(), time, message.key(), message.value());
                applied
                    .map_err(|kind| refused(&message.topic_partition(), message.offset(), kind))?;
            }
        }
        if base > replay.start().max(replay.anew_at) {
            return Err(begin.missing_before(replay.start()).into());
        }
        Ok(replay)
    }

    /// The last segment that begins with a whole snapshot.
    fn last_snapshot(&self) -> Result<Option<&Arc<Segment>>> {
        let one = FetchLimits { records: 1, ..self.limits() };
        for segment in self.segments.iter().rev().filter(|segment| !has_numbers(segment)) {
            let mut fetched = Fetched::default();
            let mut cursor = beginning_of(segment)?;
            if cursor.fetch(self.partition.log().segments(), &one, &mut fetched).is_err() {
                continue;
            }
            let first = Batch::new(fetched.ranges);
            if first.iter().any(|message| {
                message.key() == Some(SNAPSHOT_KEY) && message.offset() == segment.base_offset
            }) {
                return Ok(Some(segment));
            }
        }
        Ok(None)
    }

    /// The greatest offset that a readable trim names.
    fn last_trim(&self) -> u64 {
        let limits = self.limits();
        let mut start = 0;
        for segment in self.segments {
            let Ok(mut cursor) = beginning_of(segment) else { continue };
            let visible_end = segment.next_offset().unwrap_or(limits.visible_end);
            let limits = FetchLimits { visible_end, ..limits };
            loop {
                let mut fetched = Fetched::default();
                let read = cursor.fetch(self.partition.log().segments(), &limits, &mut fetched);
                if read.is_err() || fetched.records == 0 {
                    break;
                }
                for message in Batch::new(fetched.ranges).iter() {
                    let stored = Stored::read(message.key(), message.value());
                    if let Ok(Stored::Trim { start: trimmed, .. }) = stored {
                        start = start.max(trimmed.min(message.offset()));
                    }
                }
            }
        }
        start
    }
}

fn has_numbers(segment: &Segment) -> bool {
    segment.features & NUMBERED_CHANGES != 0
}

pub(super) fn beginning_of(segment: &Arc<Segment>) -> Result<Cursor> {
    Cursor::new(Arc::clone(segment), SegmentHeader::SIZE, segment.base_offset)
}

fn refused(partition: &TopicPartition, offset: u64, kind: CorruptionKind) -> Error {
    let corruption = Corruption {
        partition: Some(partition.clone()),
        file: partition.to_string().into(),
        position: 0,
        offsets: Some(offset..offset.saturating_add(1)),
        kind,
    };
    corruption.into()
}

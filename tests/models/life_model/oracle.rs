//! What was appended, and what may be missing of it.

use super::*;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stored {
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) time: SystemTime,
}

impl Stored {
    pub(super) fn of(message: &Message) -> Self {
        let (key, value) = (message.key().map(<[u8]>::to_vec), message.value().map(<[u8]>::to_vec));
        Self { key, value, time: message.timestamp() }
    }

    /// For an append. The broker stamps what has no timestamp of its own.
    pub(super) fn record(&self, is_stamped: bool) -> Record<'_> {
        let mut record = Record::new();
        if let Some(key) = &self.key {
            record = record.key(key);
        }
        if let Some(value) = &self.value {
            record = record.value(value);
        }
        if is_stamped { record.timestamp(self.time) } else { record }
    }
}

/// When a record was appended.
pub(super) struct Appended {
    /// From which moment its age counts: its timestamp or its append, as the wall clock showed it
    /// or as it was, whichever is the earliest.
    pub(super) aged_from: SystemTime,
    pub(super) mark: Mark,
}

/// One partition as it should be.
#[derive(Default)]
pub(super) struct Log {
    pub(super) records: Vec<Stored>,
    pub(super) appended: Vec<Appended>,
    /// The log start as it was last seen.
    pub(super) start: u64,
    /// What `delete_records` was asked to delete.
    pub(super) deleted: u64,
    /// What compaction was seen to have removed; never to be seen again.
    pub(super) removed: BTreeSet<u64>,
}

impl Log {
    pub(super) fn end(&self) -> u64 {
        self.records.len() as u64
    }

    pub(super) fn at(&self, offset: u64) -> &Stored {
        &self.records[usize::try_from(offset).unwrap()]
    }

    /// Whether a reader at `next` has something to come to.
    pub(super) fn has_after(&self, next: u64) -> bool {
        (next.max(self.start)..self.end()).any(|it| !self.removed.contains(&it))
    }

    /// A reader that stood at `next` has missed something, and continues at `most` or before.
    pub(super) fn hear_gap(&self, gap: &Gap, next: &mut u64, most: u64) {
        let missed = &gap.missed;
        let is_next = missed.start >= *next && self.has_passed(*next, missed.start);
        let is_removed = missed.start < self.start && missed.end <= most;
        assert!(is_next && is_removed, "{gap:?} after {next}, {} and {most}", self.start);
        *next = missed.end;
    }

    /// A position that was at `next` may be at `to`: it has passed offsets whose records compaction
    /// removed.
    pub(super) fn has_passed(&self, next: u64, to: u64) -> bool {
        next <= to && (next..to).all(|it| self.removed.contains(&it))
    }

    /// Where a reader continues whose position is below the log start. `None` where it does not.
    pub(super) fn proceed(&self, out_of_range: StartAt) -> Option<u64> {
        self.resolve(out_of_range).map(|it| it.max(self.start))
    }

    /// A reader that stood at `next` was handed a message.
    pub(super) fn hear(&self, message: &Message, next: &mut u64) {
        let (at, offset) = (message.topic_partition(), message.offset());
        assert!(offset >= *next, "{at} {offset}: handed out twice to one owner");
        let skipped = (*next..offset).find(|it| !self.removed.contains(it));
        assert_eq!(skipped, None, "{at}: skipped before {offset}");
        assert_eq!(Stored::of(message), *self.at(offset), "{at} {offset}");
        *next = offset + 1;
    }

    /// Where a reader with this `start` begins. `None` without a position.
    pub(super) fn resolve(&self, start: StartAt) -> Option<u64> {
        match start {
            StartAt::Earliest => Some(self.start),
            StartAt::Latest => Some(self.end()),
            StartAt::Offset(offset) => Some(offset.clamp(self.start, self.end())),
            StartAt::Time(time) => {
                let is_late = |it: &u64| !self.removed.contains(it) && self.at(*it).time >= time;
                Some((self.start..self.end()).find(is_late).unwrap_or(self.end()))
            }
            StartAt::Error => None,
        }
    }

    pub(super) fn appended(&self, offset: u64) -> &Appended {
        &self.appended[usize::try_from(offset).unwrap()]
    }

    pub(super) fn is_latest(&self, offset: u64) -> bool {
        let key = &self.at(offset).key;
        key.is_none() || (offset + 1..self.end()).all(|later| self.at(later).key != *key)
    }
}

/// What a topic's settings have allowed.
pub(super) struct TopicModel {
    /// Which of the topics that had this name.
    pub(super) era: u64,
    pub(super) partitions: u32,
    pub(super) cleanup: Cleanup,
    /// It was compacted at some time.
    pub(super) was_compacted: bool,
    pub(super) retention: Duration,
    pub(super) has_byte_limit: bool,
    /// The shortest there was.
    pub(super) tombstones: Duration,
    pub(super) timestamps: TimestampType,
}

/// Nothing goes from the log's start but what age, bytes or a caller allowed to go.
pub(super) fn check_start(
    at: &TopicPartition,
    topic: &TopicModel,
    log: &Log,
    start: u64,
    clocks: &Clocks,
) {
    if start <= log.start.max(log.deleted) {
        return;
    }
    assert_ne!(topic.cleanup, Cleanup::Compact, "{at}: the start of a compacted log moved");
    if topic.has_byte_limit {
        return;
    }
    for offset in log.start.max(log.deleted)..start {
        let since = log.appended(offset).aged_from;
        let age = clocks.truth().duration_since(since).unwrap_or_default();
        // What compaction removed, or was free to remove, keeps no segment.
        let counts = !topic.was_compacted || log.is_latest(offset);
        let counts = counts && !log.removed.contains(&offset);
        assert!(!counts || age >= topic.retention, "{at} {offset}: gone at the age of {age:?}");
    }
}

/// Everything from the log start on is there as it was appended, but what compaction may remove.
pub(super) fn check_contents(
    at: &TopicPartition,
    topic: &TopicModel,
    log: &mut Log,
    partition: &Partition,
    clocks: &Clocks,
) {
    let mut next = log.start;
    let messages = read_all(partition);
    let last = messages.last().map(Message::offset);
    for message in &messages {
        let offset = message.offset();
        assert!(offset >= next && offset < log.end(), "{at}: {offset} out of order");
        assert!(!log.removed.contains(&offset), "{at} {offset} was removed, and came back");
        assert_eq!(Stored::of(message), *log.at(offset), "{at} {offset} has changed");
        (next..offset).for_each(|missing| check_missing(at, topic, log, missing, clocks));
        log.removed.extend(next..offset);
        next = offset + 1;
    }
    (next..log.end()).for_each(|missing| check_missing(at, topic, log, missing, clocks));
    log.removed.extend(next..log.end());
    assert!(topic.was_compacted || log.removed.is_empty(), "{at}: {last:?}");
}

pub(super) fn check_missing(
    at: &TopicPartition,
    topic: &TopicModel,
    log: &Log,
    offset: u64,
    clocks: &Clocks,
) {
    let stored = log.at(offset);
    // Counted from the first compaction that saw it, as the clocks showed it then.
    let since = clocks.earliest_since(log.appended(offset).mark);
    let age = clocks.truth().duration_since(since).unwrap_or_default();
    let is_over = stored.value.is_none() && stored.key.is_some() && age >= topic.tombstones;
    let may_go = topic.was_compacted && (is_over || !log.is_latest(offset));
    let came_before = log.removed.contains(&offset);
    let why = (&stored.key, stored.value.is_none(), age);
    assert!(may_go || came_before, "{at} {offset} is missing: key, tombstone, age {why:?}");
}

//! `tail`: reads the records of a topic, and follows it.
//!
//! The broker is read-only, and shows a directory as it was when it last looked at it. To follow
//! the process that writes, [`Tail::renew`] lets it look again.

use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use logpond::{
    Broker, Cleanup, Consumer, Corruption, Error, MessageRef, Partition, StartAt, Topic,
    TopicPartition,
};
use serde::Serialize;

use crate::failure::Failure;
use crate::open;
use crate::text::Payload;
use crate::time::show_time;

/// How long to wait for new records before the directory is looked at again.
const FOLLOW_EVERY: Duration = Duration::from_millis(250);

/// Where to begin in each partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// At the last so many records.
    Last(u64),
    At(StartAt),
}

/// What `tail` is to read.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) topic: &'a str,
    /// None means all, also those that are added later.
    pub(crate) partitions: &'a [u32],
    pub(crate) from: From,
}

/// A record, as plain data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct TailedRecord {
    pub(crate) topic: String,
    pub(crate) partition: u32,
    pub(crate) offset: u64,
    pub(crate) timestamp: String,
    pub(crate) key: Option<Payload>,
    /// `None` is a tombstone.
    pub(crate) value: Option<Payload>,
    pub(crate) headers: Vec<Header>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Header {
    pub(crate) name: String,
    pub(crate) value: Payload,
}

/// Something other than a record that a reader has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Notice {
    /// These offsets were removed before they were read, or are damaged.
    Missing { partition: TopicPartition, start: u64, end: u64 },
    /// The partition is unavailable.
    LeftOut { partition: TopicPartition, reason: String },
    /// The partition was left out, and is read now.
    Back { partition: TopicPartition },
    /// The log was cut below what was read; what follows has offsets that were used before.
    Cut { partition: TopicPartition, end: u64 },
    /// What follows is of another topic with the same name, from its beginning.
    Anew { topic: String },
}

/// A reader of a topic.
pub(crate) struct Tail {
    dir: PathBuf,
    identity: Option<Identity>,
    topic: String,
    partitions: Vec<u32>,
    from: From,
    /// Partitions that could not be read when their beginning was looked up.
    unplaced: Vec<TopicPartition>,
    broker: Broker,
    reader: Consumer,
    notices: Vec<Notice>,
    has_damage: bool,
}

impl Tail {
    pub(crate) fn open(request: &Request<'_>) -> Result<Self, Failure> {
        let identity = identity(request.dir, request.topic);
        let broker = open::read_only(request.dir)?;
        open::note_damage(&broker);
        let reader = reader(&broker, request.topic, request.partitions)?;
        let mut tail = Self {
            dir: request.dir.to_path_buf(),
            identity,
            topic: request.topic.to_owned(),
            partitions: request.partitions.to_vec(),
            from: request.from,
            unplaced: Vec::new(),
            broker,
            reader,
            notices: Vec::new(),
            has_damage: false,
        };
        tail.seek_all()?;
        Ok(tail)
    }

    fn seek_all(&mut self) -> Result<(), Failure> {
        let topic = self.broker.topic(&self.topic)?;
        self.unplaced.clear();
        for partition in self.reader.assignment() {
            if let Err(error) = self.seek(&topic, &partition) {
                self.leave_out(error)?;
                self.unplaced.push(partition);
            }
        }
        Ok(())
    }

    /// Moves the reader to the beginning that was asked for.
    fn seek(&mut self, topic: &Topic, partition: &TopicPartition) -> logpond::Result<()> {
        let start = match self.from {
            From::At(start) => start,
            From::Last(count) => {
                let log = topic.partition(partition.partition)?;
                let may_have_holes = topic.config().cleanup != Cleanup::Delete;
                let end = log.high_watermark();
                let first = if may_have_holes { last_records(&log, count) } else { None };
                StartAt::Offset(first.unwrap_or(end.saturating_sub(count)))
            }
        };
        self.reader.seek(partition, start)
    }

    /// Passes the next records to `each`, as many as one poll returns. Returns whether there were
    /// any, or a notice: if not, there is nothing more to read now.
    pub(crate) fn next(
        &mut self,
        mut each: impl FnMut(MessageRef<'_>) -> Result<(), Failure>,
    ) -> Result<bool, Failure> {
        let batch = match self.reader.poll(Duration::ZERO) {
            Ok(batch) => batch,
            Err(error) => return self.continue_after(error).map(|()| true),
        };
        let gaps = self.reader.take_gaps().into_iter();
        self.notices.extend(gaps.map(|gap| Notice::Missing {
            partition: gap.partition,
            start: gap.missed.start,
            end: gap.missed.end,
        }));
        for message in batch.iter() {
            each(message)?;
        }
        Ok(!batch.is_empty() || !self.notices.is_empty())
    }

    pub(crate) fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Whether damaged records were passed over, or a partition was left out.
    pub(crate) fn has_damage(&self) -> bool {
        let topics = self.broker.metrics().topics;
        let partitions = topics.iter().flat_map(|topic| &topic.partitions);
        self.has_damage || partitions.into_iter().any(|it| it.fetched.damage > 0)
    }

    /// Waits a little, and then looks at the directory again.
    pub(crate) fn wait(&mut self) -> Result<(), Failure> {
        // Nothing arrives before the next look: the poll is there for its time-out.
        if let Err(error) = self.reader.poll(FOLLOW_EVERY) {
            self.continue_after(error)?;
        }
        self.renew()
    }

    fn renew(&mut self) -> Result<(), Failure> {
        self.has_damage = self.has_damage();
        let identity = identity(&self.dir, &self.topic);
        let is_same = identity == self.identity;
        let refreshed = match self.broker.refresh() {
            // The broker's own state went back: all files may be another copy. It is read anew, or
            // fails to open.
            Err(Error::Corrupt(damage)) if is_state(&damage) => {
                self.broker = open::read_only(&self.dir)?;
                return self.begin_anew();
            }
            refreshed => refreshed?,
        };
        if refreshed.deleted.contains(&self.topic) {
            return self.begin_anew();
        }
        if !is_same {
            // A broker takes what it sees later for the same log with more records.
            self.broker = open::read_only(&self.dir)?;
            return self.begin_anew();
        }
        let topic = self.broker.topic(&self.topic)?;
        for partition in self.reader.paused() {
            self.try_again(&topic, partition)?;
        }
        let reads = self.reader.assignment();
        if self.partitions.is_empty() && reads.len() < topic.partitions() as usize {
            self.reader.assign((0..topic.partitions()).map(|it| (self.topic.as_str(), it)))?;
        }
        Ok(())
    }

    /// Continues in a partition that was left out, if its next record can be read by now: it was
    /// unavailable, or files of it had been moved away.
    fn try_again(&mut self, topic: &Topic, partition: TopicPartition) -> Result<(), Failure> {
        let is_unplaced = self.unplaced.contains(&partition);
        let log = topic.partition(partition.partition)?;
        let next = self.reader.position(&partition).unwrap_or(0).max(log.log_start_offset());
        let is_lost = |it: &Error| matches!(it, Error::Corrupt(_) | Error::UnknownTopic(_));
        if log.read(next, 1).is_err_and(|error| is_lost(&error))
            || is_unplaced && self.seek(topic, &partition).is_err()
        {
            return Ok(());
        }
        self.unplaced.retain(|it| *it != partition);
        self.reader.resume([&partition])?;
        self.notices.push(Notice::Back { partition });
        Ok(())
    }

    fn continue_after(&mut self, error: Error) -> Result<(), Failure> {
        match error {
            // A read has found it out, before a look did.
            Error::UnknownTopic(_) => {
                self.has_damage = self.has_damage();
                self.broker.refresh()?;
                self.begin_anew()
            }
            // The reader is at the cut already.
            Error::Truncated { partition, end, .. } => {
                self.notices.push(Notice::Cut { partition, end });
                Ok(())
            }
            error => self.leave_out(error),
        }
    }

    /// The topic was deleted, or the directory replaced: if there is another topic with its name,
    /// that is read from its beginning.
    fn begin_anew(&mut self) -> Result<(), Failure> {
        self.identity = identity(&self.dir, &self.topic);
        self.reader = reader(&self.broker, &self.topic, &self.partitions)?;
        self.notices.push(Notice::Anew { topic: self.topic.clone() });
        self.from = From::At(StartAt::Earliest);
        self.seek_all()
    }

    /// After an error of a partition that is unavailable: the others are read.
    fn leave_out(&mut self, error: Error) -> Result<(), Failure> {
        let Error::Corrupt(damage) = &error else { return Err(error.into()) };
        let partition = damage.partition.clone();
        let is_read = |it: &TopicPartition| self.reader.position(it).is_some();
        match partition.filter(|it| is_read(it) && !self.reader.paused().contains(it)) {
            None => Err(error.into()),
            Some(partition) => {
                self.has_damage = true;
                self.reader.pause([&partition])?;
                self.notices.push(Notice::LeftOut { partition, reason: error.to_string() });
                Ok(())
            }
        }
    }
}

/// The offset of the first of the last `count` records, or of the first one of all. Compaction leaves
/// holes between offsets. `None`: what was read is damaged.
fn last_records(log: &Partition, count: u64) -> Option<u64> {
    let (first, end) = (log.log_start_offset(), log.high_watermark());
    let wanted = usize::try_from(count).unwrap_or(usize::MAX);
    let mut span = count.max(1);
    loop {
        let from = end.saturating_sub(span).max(first);
        let mut found = VecDeque::new();
        let mut next = from;
        while next < end {
            let batch = log.read(next, 1 << 20).ok()?;
            let Some(last) = batch.iter().last().map(|it| it.next_offset()) else { break };
            for message in batch.iter().filter(|it| it.offset() < end) {
                found.push_back(message.offset());
                if found.len() > wanted {
                    found.pop_front();
                }
            }
            next = last;
        }
        if found.len() >= wanted || from == first {
            return Some(found.front().copied().unwrap_or(end));
        }
        span = span.saturating_mul(2);
    }
}

/// Whether the broker's own state is damaged.
fn is_state(damage: &Corruption) -> bool {
    damage.partition.as_ref().is_some_and(|it| it.topic.starts_with("__"))
}

/// What distinguishes the directories of a topic from others at the same paths: numbers, which are
/// used again, and the times at which they were made.
type Identity = [(u64, u64, Option<SystemTime>); 2];

fn identity(dir: &Path, topic: &str) -> Option<Identity> {
    let of = |path: &Path| {
        let found = fs::metadata(path).ok()?;
        Some((found.dev(), found.ino(), found.created().ok()))
    };
    Some([of(dir)?, of(&dir.join(topic))?])
}

/// A reader at the beginning of some partitions of a topic, or of all.
fn reader(broker: &Broker, topic: &str, partitions: &[u32]) -> Result<Consumer, Failure> {
    let known = broker.topic(topic)?.partitions();
    let all: Vec<u32> = (0..known).collect();
    let chosen = if partitions.is_empty() { &all } else { partitions };
    let chosen = chosen.iter().map(|number| TopicPartition::from((topic, *number)));
    Ok(broker.reader().assign(chosen).start(StartAt::Earliest).open()?)
}

impl TailedRecord {
    pub(crate) fn new(message: &MessageRef<'_>) -> Self {
        let headers = message
            .headers()
            .map(|(name, value)| Header { name: name.to_owned(), value: Payload::new(value) });
        Self {
            topic: message.topic().to_owned(),
            partition: message.partition(),
            offset: message.offset(),
            timestamp: show_time(message.timestamp()),
            key: message.key().map(Payload::new),
            value: message.value().map(Payload::new),
            headers: headers.collect(),
        }
    }
}

/// Parses where to begin: `earliest`, `end`, an offset, a time, or how long ago. `now` is the time.
pub(crate) fn parse_start(text: &str, now: SystemTime) -> Result<StartAt, String> {
    match text {
        "earliest" => return Ok(StartAt::Earliest),
        "end" | "latest" => return Ok(StartAt::Latest),
        _ => {}
    }
    if let Ok(offset) = text.parse() {
        return Ok(StartAt::Offset(offset));
    }
    if text.get(4..5) == Some("-") {
        return crate::time::parse_time(text).map(StartAt::Time);
    }
    let ago = crate::units::parse_duration(text).map_err(|_| {
        "write earliest, end, an offset, a time (2026-11-01T00:00Z), or how long ago (7d, 1h30m)"
            .to_owned()
    })?;
    Ok(StartAt::Time(now.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_a_word_an_offset_a_time_or_an_age() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let at = |seconds| StartAt::Time(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        for (text, start) in [
            ("earliest", StartAt::Earliest),
            ("end", StartAt::Latest),
            ("latest", StartAt::Latest),
            ("17", StartAt::Offset(17)),
            ("1970-01-02", at(86_400)),
            ("1970-01-02T00:00:01Z", at(86_401)),
            ("1h", at(996_400)),
            ("forever", at(0)),
        ] {
            assert_eq!(parse_start(text, now), Ok(start), "{text}");
        }
        for text in ["", "begin", "-1", "1.5", "1970-01-02T00:00", "äöü-ß"] {
            assert!(parse_start(text, now).is_err(), "{text}");
        }
    }
}

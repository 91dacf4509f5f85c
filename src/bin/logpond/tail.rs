//! `tail`: reads the records of a topic, and follows it.
//!
//! The broker is read-only, and shows a directory as it was when it was opened. To follow the
//! process that writes, [`Tail::renew`] opens it again, and continues at the same offsets.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use logpond::{Broker, Consumer, Error, MessageRef, StartAt, TopicPartition};
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
    /// So many offsets before the end.
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
    /// A recovery has cut the log, which now has other records from `end` on.
    Cut { partition: TopicPartition, end: u64 },
}

/// A reader of a topic.
pub(crate) struct Tail {
    dir: PathBuf,
    topic: String,
    partitions: Vec<u32>,
    broker: Broker,
    reader: Consumer,
    notices: Vec<Notice>,
    has_damage: bool,
}

impl Tail {
    pub(crate) fn open(request: &Request<'_>) -> Result<Self, Failure> {
        let broker = open::read_only(request.dir)?;
        open::note_damage(&broker);
        let mut reader = reader(&broker, request.topic, request.partitions)?;
        for partition in reader.assignment() {
            let start = match request.from {
                From::At(start) => start,
                From::Last(count) => {
                    let log = broker.topic(request.topic)?.partition(partition.partition)?;
                    StartAt::Offset(log.high_watermark().saturating_sub(count))
                }
            };
            reader.seek(&partition, start)?;
        }
        Ok(Self {
            dir: request.dir.to_path_buf(),
            topic: request.topic.to_owned(),
            partitions: request.partitions.to_vec(),
            broker,
            reader,
            notices: Vec::new(),
            has_damage: false,
        })
    }

    /// Passes the next records to `each`, as many as one poll returns. Returns whether there were
    /// any, or a notice: if not, there is nothing more to read now.
    pub(crate) fn next(
        &mut self,
        mut each: impl FnMut(MessageRef<'_>) -> Result<(), Failure>,
    ) -> Result<bool, Failure> {
        let batch = match self.reader.poll(Duration::ZERO) {
            Err(Error::Truncated { partition, end, .. }) => {
                self.notices.push(Notice::Cut { partition, end });
                self.reader.poll(Duration::ZERO)?
            }
            polled => polled?,
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

    /// Whether damaged records were passed over.
    pub(crate) fn has_damage(&self) -> bool {
        let topics = self.broker.metrics().topics;
        let partitions = topics.iter().flat_map(|topic| &topic.partitions);
        self.has_damage || partitions.into_iter().any(|it| it.fetched.damage > 0)
    }

    /// Waits a little, and then looks at the directory again.
    pub(crate) fn wait(&mut self) -> Result<(), Failure> {
        // Nothing arrives in a read-only broker: the poll is there for its time-out.
        self.reader.poll(FOLLOW_EVERY)?;
        self.renew()
    }

    fn renew(&mut self) -> Result<(), Failure> {
        self.has_damage = self.has_damage();
        let positions: BTreeMap<TopicPartition, u64> = self
            .reader
            .assignment()
            .into_iter()
            .filter_map(|partition| Some((partition.clone(), self.reader.position(&partition)?)))
            .collect();
        let broker = open::read_only(&self.dir)?;
        let mut reader = reader(&broker, &self.topic, &self.partitions)?;
        for (partition, position) in positions {
            let log = broker.topic(&self.topic)?.partition(partition.partition)?;
            let (start, end) = (log.log_start_offset(), log.high_watermark());
            if position < start {
                let (start, end) = (position, start);
                self.notices.push(Notice::Missing { partition: partition.clone(), start, end });
            } else if position > end {
                self.notices.push(Notice::Cut { partition: partition.clone(), end });
            }
            reader.seek(&partition, StartAt::Offset(position))?;
        }
        (self.broker, self.reader) = (broker, reader);
        Ok(())
    }
}

/// A reader at the beginning of some partitions of a topic, or of all.
fn reader(broker: &Broker, topic: &str, partitions: &[u32]) -> Result<Consumer, Failure> {
    let known = broker.topic(topic)?.partitions();
    let all: Vec<u32> = (0..known).collect();
    let chosen = if partitions.is_empty() { &all } else { partitions };
    let chosen = chosen.iter().map(|number| TopicPartition::from((topic, *number)));
    Ok(broker.reader().assign(chosen).open()?)
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

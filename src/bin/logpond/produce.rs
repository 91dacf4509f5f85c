//! `produce`: sends the lines of standard input.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, Read};

use logpond::{Broker, Delivery, Error, Producer, Record, RecordMetadata, TopicConfig};
use serde::Serialize;

use crate::args;
use crate::failure::Failure;
use crate::output::Report;
use crate::table::{Align, Table};
use crate::units::show_count;

/// LIMIT: how many records wait for the disk at the same time: a few syncs serve all of them, and
/// what was sent is known soon after.
const IN_FLIGHT_MAX: usize = 1_024;

/// LIMIT: the longest line unless the topic has a limit of its own: that of its records, by default.
const LINE_BYTES_MAX: u32 = 1 << 20;

/// A partition that no topic has, and an offset.
const NO_PARTITION: (u32, u64) = (u32::MAX, 0);

/// How lines become records.
#[derive(Debug)]
pub(crate) struct Lines<'a> {
    pub(crate) topic: &'a str,
    /// What stands between key and value; `None`: the line is the value.
    pub(crate) key_separator: Option<&'a str>,
    pub(crate) partition: Option<u32>,
}

/// What `produce` returns. All of these records are durable.
#[derive(Debug, Serialize)]
pub(crate) struct ProduceReport {
    topic: String,
    records: u64,
    partitions: Vec<Sent>,
}

#[derive(Debug, Serialize)]
struct Sent {
    partition: u32,
    records: u64,
    first_offset: u64,
    last_offset: u64,
}

/// The settings of a topic that is to be created.
pub(crate) fn config(partitions: u32, args: &args::Produce) -> TopicConfig {
    let mut config = TopicConfig::new(partitions);
    config.retention = args.retention.unwrap_or(config.retention);
    config.retention_bytes = args.retention_bytes.unwrap_or(config.retention_bytes);
    config.segment_bytes = args.segment_bytes.unwrap_or(config.segment_bytes);
    config
}

/// Refuses what a new topic cannot be, without making anything.
pub(crate) fn check_new(
    topic: &str,
    config: &TopicConfig,
    partition: Option<u32>,
) -> Result<(), Failure> {
    // The library checks name and settings, and then refuses a partition that no topic has.
    let checked =
        Broker::in_memory()?.admin().create_topic_at(topic, config.clone(), [NO_PARTITION]);
    match checked {
        Err(Error::UnknownPartition(_)) | Ok(_) => {}
        Err(error) => return Err(error.into()),
    }
    match partition.filter(|number| *number >= config.partitions) {
        Some(number) => Err(Error::UnknownPartition((topic, number).into()).into()),
        None => Ok(()),
    }
}

/// Sends each line as a record. Returns when all of them are durable.
pub(crate) fn produce(
    broker: &Broker,
    lines: &Lines<'_>,
    mut input: impl BufRead,
) -> Result<ProduceReport, Failure> {
    let limit = broker.topic(lines.topic)?.config().max_record_bytes.unwrap_or(LINE_BYTES_MAX);
    let producer = broker.producer();
    let mut deliveries = Deliveries::default();
    let (mut number, mut line) = (0, Vec::new());
    loop {
        number += 1;
        let read = read_line(&mut input, &mut line, limit);
        let send = |is_there: bool| is_there.then(|| lines.send(&producer, &line)).transpose();
        match read.and_then(send) {
            Ok(Some(delivery)) => deliveries.push(number, delivery)?,
            Ok(None) => break,
            Err(source) => {
                // What was sent is durable before anything is said about it.
                let report = deliveries.finish(lines.topic)?;
                return Err(Failure::Line {
                    number,
                    sent: report.records,
                    source: Box::new(source),
                });
            }
        }
    }
    deliveries.finish(lines.topic)
}

/// Reads a line without its end. Returns false if there is none.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>, limit: u32) -> Result<bool, Failure> {
    line.clear();
    let read = input.take(u64::from(limit) + 1).read_until(b'\n', line);
    let failed = |source| Failure::Stream { operation: "read standard input", source };
    if read.map_err(failed)? == 0 {
        return Ok(false);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() > limit as usize {
        return Err(Failure::Refused(format!("it is longer than {limit} bytes")));
    }
    Ok(true)
}

impl Lines<'_> {
    fn send(&self, producer: &Producer, line: &[u8]) -> Result<Delivery, Failure> {
        let (key, value) = match self.key_separator {
            None => (None, line),
            Some(separator) => match split(line, separator.as_bytes()) {
                Some((key, value)) => (Some(key), value),
                None => {
                    return Err(Failure::Refused(
                        "it has no key: no separator is in it".to_owned(),
                    ));
                }
            },
        };
        let mut record = Record::to(self.topic).value(value);
        if let Some(key) = &key {
            record = record.key(*key);
        }
        if let Some(partition) = self.partition {
            record = record.partition(partition);
        }
        Ok(producer.enqueue(record)?)
    }
}

/// Splits a line at the first separator.
fn split<'a>(line: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = line.windows(separator.len()).position(|window| window == separator)?;
    let (key, rest) = line.split_at(at);
    Some((key, rest.get(separator.len()..)?))
}

/// The records that were sent, in order.
#[derive(Default)]
struct Deliveries {
    /// With the numbers of their lines.
    in_flight: VecDeque<(u64, Delivery)>,
    done: BTreeMap<u32, Sent>,
}

impl Deliveries {
    fn push(&mut self, line: u64, delivery: Delivery) -> Result<(), Failure> {
        self.in_flight.push_back((line, delivery));
        while self.in_flight.len() > IN_FLIGHT_MAX {
            self.settle_first()?;
        }
        Ok(())
    }

    fn settle_first(&mut self) -> Result<(), Failure> {
        if let Some((number, delivery)) = self.in_flight.pop_front() {
            let RecordMetadata { partition, offset, .. } = delivery.wait().map_err(|error| {
                let (sent, source) = (self.records(), Box::new(error.into()));
                Failure::Line { number, sent, source }
            })?;
            let new = Sent { partition, records: 0, first_offset: offset, last_offset: offset };
            let sent = self.done.entry(partition).or_insert(new);
            sent.records += 1;
            sent.last_offset = offset;
        }
        Ok(())
    }

    fn records(&self) -> u64 {
        self.done.values().map(|it| it.records).sum()
    }

    fn finish(mut self, topic: &str) -> Result<ProduceReport, Failure> {
        while !self.in_flight.is_empty() {
            self.settle_first()?;
        }
        let records = self.records();
        let partitions: Vec<Sent> = self.done.into_values().collect();
        Ok(ProduceReport { topic: topic.to_owned(), records, partitions })
    }
}

impl Report for ProduceReport {
    fn text(&self) -> String {
        let mut table = Table::new([
            ("TOPIC", Align::Left),
            ("PARTITION", Align::Right),
            ("RECORDS", Align::Right),
            ("FIRST", Align::Right),
            ("LAST", Align::Right),
        ]);
        for sent in &self.partitions {
            table.row([
                self.topic.clone(),
                sent.partition.to_string(),
                show_count(sent.records),
                show_count(sent.first_offset),
                show_count(sent.last_offset),
            ]);
        }
        table.render()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_split_at_the_first_separator() {
        assert_eq!(split(b"a:b:c", b":"), Some((&b"a"[..], &b"b:c"[..])));
        assert_eq!(split(b":", b":"), Some((&b""[..], &b""[..])));
        assert_eq!(split(b"a => b", b" => "), Some((&b"a"[..], &b"b"[..])));
        assert_eq!(split(b"ab", b":"), None);
        assert_eq!(split(b"", b":"), None);
    }

    /// A record that was accepted and is then refused has the number of its line.
    #[test]
    fn a_record_that_does_not_become_durable_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let broker = Broker::builder().data_dir(dir.path()).background(false).open().unwrap();
        broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
        let producer = broker.producer();
        let send = || producer.enqueue(Record::to("t").value("v")).unwrap();
        let mut deliveries = Deliveries::default();
        deliveries.push(1, send()).unwrap();
        deliveries.settle_first().unwrap();
        deliveries.push(2, send()).unwrap();
        deliveries.push(3, send()).unwrap();
        broker.admin().delete_topic("t").unwrap();
        let failed = deliveries.finish("t").unwrap_err();
        assert!(matches!(failed, Failure::Line { number: 2, sent: 1, .. }), "{failed:?}");
    }

    #[test]
    fn lines_are_read_up_to_the_limit() {
        let mut input = std::io::Cursor::new(b"one\n\nlast".to_vec());
        let mut line = Vec::new();
        for expected in [&b"one"[..], b"", b"last"] {
            assert!(read_line(&mut input, &mut line, 4).unwrap());
            assert_eq!(line, expected);
        }
        assert!(!read_line(&mut input, &mut line, 4).unwrap());
        for (text, is_short) in [(&b"four\n"[..], true), (b"four", true), (b"fives", false)] {
            let read = read_line(&mut std::io::Cursor::new(text.to_vec()), &mut line, 4);
            assert_eq!(read.is_ok(), is_short, "{text:?}");
        }
    }
}

//! What a broker holds, as lines of text: topics with their settings, log ends, records, what
//! groups have committed, static members, and the last numbers of named producers.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use logpond::{Broker, Message, Partition, Producer, TopicConfig};

use crate::common::*;

/// All that the public interface shows of what is stored. Each producer has one of the names that
/// `producers` names.
pub(crate) fn shown(broker: &Broker, producers: &[(String, Producer)]) -> Vec<String> {
    let mut lines = Vec::new();
    for topic in broker.admin().topics().unwrap() {
        lines.push(format!("topic {} {}", topic.name, settings(&topic.config)));
        let handle = broker.topic(&topic.name).unwrap();
        for partition in topic.partitions {
            let at = tp(&topic.name, partition.partition);
            let (start, end) = (partition.log_start_offset, partition.log_end_offset);
            lines.push(format!("partition {at} {start}..{end}"));
            let handle = handle.partition(partition.partition).unwrap();
            let messages = read_all(&handle);
            lines.extend(messages.iter().map(|message| format!("record {at} {}", record(message))));
            check_times(&handle, &messages);
        }
        assert!(broker.admin().verify(&topic.name).unwrap().is_ok(), "{}", topic.name);
    }
    for group in broker.admin().groups().unwrap() {
        for offset in &group.offsets {
            if let Some(committed) = offset.committed {
                lines.push(format!("commit {} {} {committed}", group.name, offset.partition));
            }
        }
        for member in &group.members {
            if let Some(instance) = &member.instance_id {
                let owned: Vec<_> = member.assignment.iter().map(ToString::to_string).collect();
                lines.push(format!("member {} {instance} {}", group.name, owned.join(",")));
            }
        }
    }
    for (name, producer) in producers {
        for topic in broker.admin().topics().unwrap() {
            for partition in topic.partitions {
                let at = tp(&topic.name, partition.partition);
                if let Some(last) = producer.last_sequence(&at) {
                    lines.push(format!("producer {name} {at} {last}"));
                }
            }
        }
    }
    lines
}

fn duration(duration: Duration) -> String {
    if duration == Duration::MAX { "MAX".to_owned() } else { duration.as_millis().to_string() }
}

fn settings(config: &TopicConfig) -> String {
    format!(
        "partitions={} durability={:?} retention={} retention_bytes={} segment_bytes={} \
         segment_age={} cleanup={:?} tombstone_retention={} min_dirty_ratio={} \
         max_record_bytes={:?} timestamps={:?}",
        config.partitions,
        config.durability,
        duration(config.retention),
        config.retention_bytes,
        config.segment_bytes,
        duration(config.segment_age),
        config.cleanup,
        duration(config.tombstone_retention),
        config.min_dirty_ratio,
        config.max_record_bytes,
        config.timestamps,
    )
}

fn millis(time: SystemTime) -> u128 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis()
}

/// Text in quotes; of longer stretches of zeros the number.
fn bytes(bytes: Option<&[u8]>) -> String {
    let Some(mut bytes) = bytes else { return "none".to_owned() };
    let mut shown = String::new();
    let zeros = |bytes: &[u8]| bytes.iter().take_while(|byte| **byte == 0).count();
    while !bytes.is_empty() || shown.is_empty() {
        let blank = zeros(bytes);
        if blank >= 8 {
            write!(shown, "+{blank}").unwrap();
            bytes = &bytes[blank..];
        } else {
            let is_end = |at: &usize| zeros(&bytes[*at..]) >= 8;
            let end = (0..bytes.len()).find(is_end).unwrap_or(bytes.len());
            write!(shown, "'{}'", bytes[..end].escape_ascii()).unwrap();
            bytes = &bytes[end..];
        }
    }
    shown
}

fn record(message: &Message) -> String {
    let mut line = format!(
        "{} time={} key={} value={}",
        message.offset(),
        millis(message.timestamp()),
        bytes(message.key()),
        bytes(message.value())
    );
    for (name, value) in message.headers() {
        write!(line, " {name}={}", bytes(Some(value))).unwrap();
    }
    line
}

/// The index by time finds what the records say.
fn check_times(partition: &Partition, messages: &[Message]) {
    for time in messages.iter().map(Message::timestamp) {
        let first = messages.iter().find(|message| message.timestamp() >= time);
        let found = partition.offset_at(time).unwrap();
        assert_eq!(found, first.map(Message::offset), "{partition:?} at {}", millis(time));
    }
}

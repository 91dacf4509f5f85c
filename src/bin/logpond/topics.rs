//! `topics` and `describe`: which topics there are, and what one of them is like.

use std::fmt::Write;

use logpond::{Broker, Cleanup, Durability, PartitionMetrics, TimestampType, TopicConfig};
use serde::Serialize;

use crate::failure::Failure;
use crate::output::Report;
use crate::table::{Align, Table};
use crate::text::escape;
use crate::units::{show_count, show_duration, show_size};

/// What `topics` returns.
#[derive(Debug, Serialize)]
pub(crate) struct TopicList {
    topics: Vec<TopicSummary>,
}

#[derive(Debug, Serialize)]
struct TopicSummary {
    name: String,
    partitions: usize,
    /// Log end minus log start offsets. Of these, compaction may have removed some.
    offsets: u64,
    bytes: u64,
    cleanup: &'static str,
    /// `None` is for ever.
    retention_ms: Option<u64>,
}

pub(crate) fn topics(broker: &Broker) -> Result<TopicList, Failure> {
    let metrics = broker.metrics();
    let mut topics = Vec::new();
    for topic in broker.admin().topics()? {
        let measured = metrics.topics.iter().find(|it| it.name == topic.name);
        let measured = measured.map(|it| it.partitions.as_slice()).unwrap_or_default();
        topics.push(TopicSummary {
            name: topic.name.to_string(),
            partitions: topic.partitions.len(),
            offsets: measured.iter().map(offsets_in).sum(),
            bytes: measured.iter().map(|it| it.bytes_on_disk).sum(),
            cleanup: show_cleanup(topic.config.cleanup),
            retention_ms: millis(topic.config.retention),
        });
    }
    Ok(TopicList { topics })
}

fn offsets_in(partition: &PartitionMetrics) -> u64 {
    partition.log_end_offset.saturating_sub(partition.log_start_offset)
}

/// `None` for the longest duration, which is no limit.
fn millis(duration: std::time::Duration) -> Option<u64> {
    let is_limit = duration != std::time::Duration::MAX;
    is_limit.then(|| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

fn show_cleanup(cleanup: Cleanup) -> &'static str {
    match cleanup {
        Cleanup::Delete => "delete",
        Cleanup::Compact => "compact",
        Cleanup::CompactAndDelete => "compact, delete",
    }
}

fn show_millis(millis: Option<u64>) -> String {
    millis.map_or_else(
        || "forever".to_owned(),
        |it| show_duration(std::time::Duration::from_millis(it)),
    )
}

impl Report for TopicList {
    fn text(&self) -> String {
        let mut table = Table::new([
            ("TOPIC", Align::Left),
            ("PARTITIONS", Align::Right),
            ("OFFSETS", Align::Right),
            ("SIZE", Align::Right),
            ("CLEANUP", Align::Left),
            ("RETENTION", Align::Right),
        ]);
        for topic in &self.topics {
            table.row([
                topic.name.clone(),
                topic.partitions.to_string(),
                show_count(topic.offsets),
                show_size(topic.bytes),
                topic.cleanup.to_owned(),
                show_millis(topic.retention_ms),
            ]);
        }
        table.render()
    }
}

/// What `describe` returns.
#[derive(Debug, Serialize)]
pub(crate) struct TopicDescription {
    name: String,
    settings: Settings,
    partitions: Vec<PartitionDescription>,
}

/// Limits that are not set are `None`.
#[derive(Debug, Serialize)]
struct Settings {
    /// `None`: the broker's.
    durability: Option<String>,
    cleanup: &'static str,
    retention_ms: Option<u64>,
    retention_bytes: Option<u64>,
    segment_bytes: u64,
    segment_age_ms: Option<u64>,
    tombstone_retention_ms: Option<u64>,
    min_dirty_ratio: f64,
    max_record_bytes: Option<u32>,
    timestamps: &'static str,
}

#[derive(Debug, Serialize)]
struct PartitionDescription {
    partition: u32,
    log_start_offset: u64,
    log_end_offset: u64,
    segments: usize,
    bytes: u64,
    /// Its directory or one of its files is missing or cannot be read.
    is_unavailable: bool,
}

pub(crate) fn describe(broker: &Broker, topic: &str) -> Result<TopicDescription, Failure> {
    let info = broker.admin().describe_topic(topic)?;
    let metrics = broker.metrics();
    let measured = metrics.topics.iter().find(|it| it.name == info.name);
    let measured = measured.map(|it| it.partitions.as_slice()).unwrap_or_default();
    let partitions = measured.iter().map(|it| PartitionDescription {
        partition: it.partition,
        log_start_offset: it.log_start_offset,
        log_end_offset: it.log_end_offset,
        segments: it.segments,
        bytes: it.bytes_on_disk,
        is_unavailable: it.is_unavailable,
    });
    Ok(TopicDescription {
        name: info.name.to_string(),
        settings: Settings::of(&info.config),
        partitions: partitions.collect(),
    })
}

impl Settings {
    fn of(config: &TopicConfig) -> Self {
        let durability = config.durability.map(|durability| match durability {
            Durability::Os => "os".to_owned(),
            Durability::Sync => "sync".to_owned(),
            Durability::Interval { every, bytes } => {
                format!("interval {} {}", show_duration(every), show_size(bytes))
            }
        });
        let timestamps = match config.timestamps {
            TimestampType::CreateTime => "create time",
            TimestampType::AppendTime => "append time",
        };
        Self {
            durability,
            cleanup: show_cleanup(config.cleanup),
            retention_ms: millis(config.retention),
            retention_bytes: Some(config.retention_bytes).filter(|bytes| *bytes != u64::MAX),
            segment_bytes: config.segment_bytes,
            segment_age_ms: millis(config.segment_age),
            tombstone_retention_ms: millis(config.tombstone_retention),
            min_dirty_ratio: config.min_dirty_ratio,
            max_record_bytes: config.max_record_bytes,
            timestamps,
        }
    }

    fn rows(&self) -> [(&'static str, String); 8] {
        let compaction = format!(
            "from {} of new bytes on; tombstones are kept {}",
            self.min_dirty_ratio,
            show_millis(self.tombstone_retention_ms)
        );
        let (segment, age) = (show_size(self.segment_bytes), show_millis(self.segment_age_ms));
        [
            ("durability", self.durability.clone().unwrap_or_else(|| "the broker's".to_owned())),
            ("cleanup", self.cleanup.to_owned()),
            ("retention", show_millis(self.retention_ms)),
            ("retention bytes", show_size(self.retention_bytes.unwrap_or(u64::MAX))),
            ("segments", format!("of {segment} or {age}")),
            ("compaction", compaction),
            (
                "record limit",
                self.max_record_bytes
                    .map_or_else(|| "default".to_owned(), |it| show_size(it.into())),
            ),
            ("timestamps", self.timestamps.to_owned()),
        ]
    }
}

impl Report for TopicDescription {
    fn text(&self) -> String {
        let mut text = format!("{:<15}  {}\n", "topic", escape(&self.name));
        let is_compacted = self.settings.cleanup.contains("compact");
        let shown = |name: &str| is_compacted || name != "compaction";
        for (name, value) in self.settings.rows().iter().filter(|(name, _)| shown(name)) {
            let _ = writeln!(text, "{name:<15}  {value}");
        }
        text.push('\n');
        let mut table = Table::new([
            ("PARTITION", Align::Right),
            ("START", Align::Right),
            ("END", Align::Right),
            ("SEGMENTS", Align::Right),
            ("SIZE", Align::Right),
            ("STATE", Align::Left),
        ]);
        for partition in &self.partitions {
            table.row([
                partition.partition.to_string(),
                show_count(partition.log_start_offset),
                show_count(partition.log_end_offset),
                partition.segments.to_string(),
                show_size(partition.bytes),
                if partition.is_unavailable { "unavailable" } else { "ok" }.to_owned(),
            ]);
        }
        text.push_str(&table.render());
        text
    }
}

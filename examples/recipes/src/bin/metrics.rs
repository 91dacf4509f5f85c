//! Metrics for Prometheus: `Broker::metrics` as a collector of the crate `prometheus-client`.
//!
//! The names have base units as suffixes, and counters `_total`; the crate appends both. Each scrape
//! takes one snapshot.

use std::fmt;
use std::time::Duration;

use logpond::{Broker, LatencyHistogram, PartitionMetrics, Record, TopicConfig};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType::{self, Counter, Gauge, Histogram};
use prometheus_client::registry::{Registry, Unit};

type Value = fn(&PartitionMetrics) -> u64;
const OF_PARTITIONS: [(MetricType, &str, Option<Unit>, &str, Value); 8] = [
    (Counter, "appended_records", None, "Records appended", |it| it.appended.records),
    (Counter, "appended", Some(Unit::Bytes), "Bytes appended", |it| it.appended.bytes),
    (Counter, "fetched_records", None, "Records fetched", |it| it.fetched.records),
    (Counter, "missed_records", None, "Removed unread", |it| it.fetched.gap_offsets),
    (Gauge, "log_end_offset", None, "Offset of the next record", |it| it.log_end_offset),
    (Gauge, "disk", Some(Unit::Bytes), "Allocated bytes", |it| it.bytes_on_disk),
    (Gauge, "segments", None, "Segment files", |it| it.segments as u64),
    (Gauge, "poisoned", None, "1 if it takes no appends", |it| it.is_poisoned.into()),
];

#[derive(Debug)]
struct OfBroker(Broker);

impl Collector for OfBroker {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let metrics = self.0.metrics();
        let topics = metrics.topics.iter();
        let partitions: Vec<_> = topics
            .flat_map(|topic| {
                topic.partitions.iter().map(|it| (labels(&topic.name, it.partition), it))
            })
            .collect();
        for (kind, name, unit, help, value) in &OF_PARTITIONS {
            let mut family = encoder.encode_descriptor(name, help, unit.as_ref(), *kind)?;
            for (labels, partition) in &partitions {
                sample(&mut family.encode_family(labels)?, *kind, value(partition))?;
            }
        }
        let (name, help) = ("sync_duration", "Durations of syncs");
        let mut family = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), Histogram)?;
        for (labels, partition) in &partitions {
            let (sum, buckets) = in_seconds(&partition.syncs);
            let mut metric = family.encode_family(labels)?;
            metric.encode_histogram::<NoLabelSet>(sum, partition.syncs.count, &buckets, None)?;
        }
        let (name, help) = ("group_lag_records", "Records that a group has yet to read");
        let mut family = encoder.encode_descriptor(name, help, None, Gauge)?;
        for group in &metrics.groups {
            for it in &group.offsets {
                let of_group = [("group", group.name.to_string())];
                let labels = (of_group, labels(&it.partition.topic, it.partition.partition));
                sample(&mut family.encode_family(&labels)?, Gauge, it.lag)?;
            }
        }
        let help = "Members that were evicted";
        let mut metric = encoder.encode_descriptor("evictions", help, None, Counter)?;
        sample(&mut metric, Counter, metrics.evictions)
    }
}

fn labels(topic: &str, partition: u32) -> [(&'static str, String); 2] {
    [("topic", topic.to_owned()), ("partition", partition.to_string())]
}

fn sample(metric: &mut MetricEncoder<'_>, kind: MetricType, value: u64) -> fmt::Result {
    match kind {
        Counter => metric.encode_counter::<NoLabelSet, _, u64>(&value, None),
        _ => metric.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX)),
    }
}

fn in_seconds(times: &LatencyHistogram) -> (f64, Vec<(f64, u64)>) {
    let seconds = |micros| Duration::from_micros(micros).as_secs_f64();
    let bound =
        |bucket| LatencyHistogram::upper_bound_micros(bucket).map_or(f64::INFINITY, seconds);
    let buckets = times.buckets.iter().enumerate().map(|(bucket, count)| (bound(bucket), *count));
    (seconds(times.sum_micros), buckets.collect())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let broker = Broker::open(dir.path())?;
    broker.ensure_topic("orders", TopicConfig::new(1))?;
    for order in ["2 apples", "1 pear", "3 plums"] {
        broker.producer().send(Record::to("orders").value(order))?;
    }
    let mut orders = broker.consumer("packers").subscribe(["orders"]).open()?;
    let first = orders.recv()?;
    orders.commit_message(&first)?;

    let mut registry = Registry::with_prefix("logpond");
    registry.register_collector(Box::new(OfBroker(broker.clone())));
    let mut scraped = String::new();
    text::encode(&mut scraped, &registry)?; // in the handler of `GET /metrics`
    for line in [
        "# TYPE logpond_appended_records counter",
        r#"logpond_appended_records_total{topic="orders",partition="0"} 3"#,
        r#"logpond_log_end_offset{topic="orders",partition="0"} 3"#,
        "# UNIT logpond_disk_bytes bytes",
        r#"logpond_sync_duration_seconds_bucket{le="+Inf",topic="orders",partition="0"} 3"#,
        r#"logpond_group_lag_records{group="packers",topic="orders",partition="0"} 2"#,
        "logpond_evictions_total 0",
    ] {
        assert!(scraped.lines().any(|it| it == line), "no line {line} in\n{scraped}");
    }
    println!("{scraped}");
    Ok(broker.close()?)
}

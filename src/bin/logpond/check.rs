//! `verify` and `salvage`: what is damaged, and a copy of what is not.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::ops::Range;
use std::path::Path;

use logpond::{
    Broker, Corruption, Error, PartitionMetrics, SalvageReport, SalvageStep, SalvagedPartition,
    SalvagedTopic, TopicMetrics, TopicPartition,
};
use serde::Serialize;

use crate::failure::Failure;
use crate::open::explain_lock;
use crate::output::Report;
use crate::table::{Align, Table};
use crate::text::{escape, escape_path};
use crate::units::show_count;

/// A range of offsets, without its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Span {
    start: u64,
    end: u64,
}

impl From<&Range<u64>> for Span {
    fn from(range: &Range<u64>) -> Self {
        Self { start: range.start, end: range.end }
    }
}

impl Span {
    fn text(&self) -> String {
        format!("{}..{}", self.start, self.end)
    }
}

/// A damaged, missing or foreign file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Damage {
    topic: Option<String>,
    partition: Option<u32>,
    file: String,
    position: u64,
    /// The offsets that cannot be read, if known.
    offsets: Option<Span>,
    reason: String,
}

impl From<&Corruption> for Damage {
    fn from(found: &Corruption) -> Self {
        Self {
            topic: found.partition.as_ref().map(|it| it.topic.to_string()),
            partition: found.partition.as_ref().map(|it| it.partition),
            file: found.file.to_string_lossy().into_owned(),
            position: found.position,
            offsets: found.offsets.as_ref().map(Span::from),
            reason: found.kind.to_string(),
        }
    }
}

impl Damage {
    fn line(&self) -> String {
        let offsets = self.offsets.as_ref().map(Span::text);
        let offsets = offsets.map_or(String::new(), |it| format!(" (offsets {it})"));
        let (file, reason) = (escape(&self.file), escape(&self.reason));
        format!("damaged: {file} at byte {}: {reason}{offsets}\n", self.position)
    }
}

/// What `verify` returns.
#[derive(Debug, Serialize)]
pub(crate) struct Verification {
    topics: Vec<VerifiedTopic>,
    damage: Vec<Damage>,
}

#[derive(Debug, Serialize)]
struct VerifiedTopic {
    name: String,
    partitions: usize,
    batches: u64,
    records: u64,
    /// How many of the entries of `damage` are of this topic.
    damaged: usize,
}

/// How far a verification is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step<'a> {
    /// The partition that is read next.
    pub(crate) partition: &'a TopicPartition,
    /// Bytes of the partitions that were read, and of all.
    pub(crate) bytes_read: u64,
    pub(crate) bytes: u64,
}

/// Reads and checks some topics, or of all and of the broker's own state.
pub(crate) fn verify(
    broker: &Broker,
    topics: &[String],
    mut on_step: impl FnMut(Step<'_>),
) -> Result<Verification, Failure> {
    let metrics = broker.metrics();
    let chosen = chosen(&metrics.internal, &metrics.topics, topics)?;
    let bytes_of = |it: &PartitionMetrics| it.bytes_on_disk;
    let bytes = chosen.iter().flat_map(|it| &it.partitions).map(bytes_of).sum();
    let mut bytes_read = 0_u64;
    let (mut verified, mut damage) = (Vec::new(), Vec::new());
    'topics: for topic in chosen {
        let mut of_topic = Vec::new();
        let (mut batches, mut records) = (0, 0);
        for partition in &topic.partitions {
            let origin = TopicPartition::from((&*topic.name, partition.partition));
            on_step(Step { partition: &origin, bytes_read, bytes });
            let report = match broker.admin().verify_partition(&origin) {
                // The service has deleted it meanwhile.
                Err(Error::UnknownTopic(_)) => continue 'topics,
                verified => verified?,
            };
            batches += report.batches;
            records += report.records;
            let found =
                if report.is_ok() { found_at_opening(broker, &origin) } else { report.damage };
            of_topic.extend(found.iter().map(Damage::from));
            bytes_read = bytes_read.saturating_add(partition.bytes_on_disk);
        }
        let (partitions, damaged) = (topic.partitions.len(), of_topic.len());
        let name = topic.name.to_string();
        verified.push(VerifiedTopic { name, partitions, batches, records, damaged });
        damage.append(&mut of_topic);
    }
    Ok(Verification { topics: verified, damage })
}

/// The topics with these names, or all if there are none.
fn chosen<'a>(
    internal: &'a [TopicMetrics],
    topics: &'a [TopicMetrics],
    names: &[String],
) -> Result<Vec<&'a TopicMetrics>, Failure> {
    let all = || internal.iter().chain(topics);
    let known: BTreeSet<&str> = all().map(|it| &*it.name).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(name.as_str())) {
        return Err(logpond::Error::UnknownTopic(unknown.clone()).into());
    }
    let is_chosen =
        |it: &&TopicMetrics| names.is_empty() || names.iter().any(|name| **name == *it.name);
    Ok(all().filter(is_chosen).collect())
}

/// What the opening has found damaged, for a partition in which a verification finds nothing.
fn found_at_opening(broker: &Broker, origin: &TopicPartition) -> Vec<Corruption> {
    let partitions = broker.recovery().partitions.iter();
    let same = partitions.filter(|it| it.topic == origin.topic && it.partition == origin.partition);
    same.flat_map(|it| it.corrupt.iter().cloned()).collect()
}

impl Report for Verification {
    fn text(&self) -> String {
        let mut table = Table::new([
            ("TOPIC", Align::Left),
            ("PARTITIONS", Align::Right),
            ("BATCHES", Align::Right),
            ("RECORDS", Align::Right),
            ("DAMAGED", Align::Right),
        ]);
        for topic in &self.topics {
            table.row([
                topic.name.clone(),
                topic.partitions.to_string(),
                show_count(topic.batches),
                show_count(topic.records),
                topic.damaged.to_string(),
            ]);
        }
        let mut text = table.render();
        text.extend(self.damage.iter().map(Damage::line));
        text
    }

    fn has_damage(&self) -> bool {
        !self.damage.is_empty()
    }
}

/// What `salvage` returns.
#[derive(Debug, Serialize)]
pub(crate) struct Salvage {
    from: String,
    to: String,
    /// Whether no loss and no damage was found.
    is_whole: bool,
    topics: Vec<Salvaged>,
    groups: usize,
    commits: usize,
    /// Damage of the broker's own state; that of topics is with them.
    damage: Vec<Damage>,
    /// Files and directories that belong to no topic, and are not in the copy.
    unknown: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Salvaged {
    name: String,
    /// Whether the settings were lost, and are the default ones in the copy.
    settings_lost: bool,
    partitions: Vec<SalvagedLog>,
}

#[derive(Debug, Serialize)]
struct SalvagedLog {
    partition: u32,
    log_start_offset: u64,
    log_end_offset: u64,
    records: u64,
    lost: Vec<Span>,
    damage: Vec<Damage>,
}

/// Copies what can be read in `from` to `to`, a new directory.
pub(crate) fn salvage(
    from: &Path,
    to: &Path,
    on_step: impl FnMut(SalvageStep<'_>),
) -> Result<Salvage, Failure> {
    let report = logpond::salvage_with(from, to, on_step).map_err(|error| match error {
        Error::Config(error) if error.setting == "to" => {
            Failure::Refused(format!("{}: {}", escape_path(to), escape(&error.reason)))
        }
        error => explain_lock(from, error, false),
    })?;
    Ok(Salvage::new(from, to, &report))
}

impl Salvage {
    fn new(from: &Path, to: &Path, report: &SalvageReport) -> Self {
        let unknown = report.unknown.iter().map(|path| path.to_string_lossy().into_owned());
        Self {
            from: from.to_string_lossy().into_owned(),
            to: to.to_string_lossy().into_owned(),
            is_whole: report.is_whole(),
            topics: report.topics.iter().map(Salvaged::from).collect(),
            groups: report.groups,
            commits: report.commits,
            damage: report.damage.iter().map(Damage::from).collect(),
            unknown: unknown.collect(),
        }
    }

    fn all_damage(&self) -> impl Iterator<Item = &Damage> {
        let logs = self.topics.iter().flat_map(|topic| &topic.partitions);
        self.damage.iter().chain(logs.flat_map(|log| &log.damage))
    }
}

impl From<&SalvagedTopic> for Salvaged {
    fn from(topic: &SalvagedTopic) -> Self {
        Self {
            name: topic.name.to_string(),
            settings_lost: topic.config_lost,
            partitions: topic.partitions.iter().map(SalvagedLog::from).collect(),
        }
    }
}

impl From<&SalvagedPartition> for SalvagedLog {
    fn from(log: &SalvagedPartition) -> Self {
        Self {
            partition: log.partition,
            log_start_offset: log.log_start_offset,
            log_end_offset: log.log_end_offset,
            records: log.records,
            lost: log.lost.iter().map(Span::from).collect(),
            damage: log.damage.iter().map(Damage::from).collect(),
        }
    }
}

impl Report for Salvage {
    fn text(&self) -> String {
        let mut table = Table::new([
            ("TOPIC", Align::Left),
            ("PARTITION", Align::Right),
            ("START", Align::Right),
            ("END", Align::Right),
            ("RECORDS", Align::Right),
            ("LOST OFFSETS", Align::Left),
        ]);
        for topic in &self.topics {
            for log in &topic.partitions {
                let lost: Vec<String> = log.lost.iter().map(Span::text).collect();
                table.row([
                    topic.name.clone(),
                    log.partition.to_string(),
                    show_count(log.log_start_offset),
                    show_count(log.log_end_offset),
                    show_count(log.records),
                    if lost.is_empty() { "none".to_owned() } else { lost.join(", ") },
                ]);
            }
        }
        let mut text = table.render();
        for topic in self.topics.iter().filter(|topic| topic.settings_lost) {
            let name = escape(&topic.name);
            let _ = writeln!(text, "{name}: its settings were lost; it keeps its records for ever");
        }
        text.extend(self.all_damage().map(Damage::line));
        for path in &self.unknown {
            let _ = writeln!(text, "not copied: {}", escape(path));
        }
        let (to, groups, commits) = (escape_path(Path::new(&self.to)), self.groups, self.commits);
        let _ = writeln!(text, "Copied to {to}, with {commits} commits of {groups} groups.");
        text
    }

    fn has_damage(&self) -> bool {
        !self.is_whole
    }
}

#[cfg(test)]
mod tests {
    use logpond::{Record, TopicConfig};

    use super::*;

    /// A service commits until the files of its own state are replaced, and its topic is deleted,
    /// after the directory was opened for verification.
    #[test]
    fn what_a_service_replaces_meanwhile_is_no_damage() {
        let dir = tempfile::tempdir().unwrap();
        let service = Broker::builder().data_dir(dir.path()).background(false).open().unwrap();
        for topic in ["kept", "deleted"] {
            let topic = service.ensure_topic(topic, TopicConfig::new(1)).unwrap();
            topic.partition(0).unwrap().append(&Record::new().value("v")).unwrap();
        }
        let mut consumer = service.consumer("g").subscribe(["kept"]).open().unwrap();
        consumer.poll(std::time::Duration::ZERO).unwrap();
        let mut commit = |offset| {
            let offsets = [(TopicPartition::from(("kept", 0)), offset)].into();
            consumer.commit_offsets(&offsets).unwrap();
        };
        commit(1);
        let viewer = Broker::builder().data_dir(dir.path()).read_only(true).open().unwrap();
        let first = dir.path().join("__offsets/0/00000000000000000000.log");
        assert!(first.exists());
        let mut number = 0;
        while first.exists() && number < 40_000 {
            number += 1;
            commit(number % 2);
            if number % 1_000 == 0 {
                service.tick().unwrap();
            }
        }
        assert!(!first.exists(), "the files are not replaced");
        service.admin().delete_topic("deleted").unwrap();
        let verified = verify(&viewer, &[], |_| {}).unwrap();
        assert_eq!(verified.damage, []);
        let of_kept = verified.topics.iter().find(|it| it.name == "kept");
        assert_eq!(of_kept.unwrap().records, 1);
    }
}

//! `groups`, `lag` and `reset`: how far the groups are, and where they continue.
//!
//! Only what groups have committed can be seen from outside. Which members they have is known to
//! the process that runs them alone.

use std::collections::BTreeSet;

use logpond::{
    Broker, Error, GroupInfo, GroupOffset, Partition, StartAt, TopicConfig, TopicPartition,
};
use serde::Serialize;

use crate::failure::{Failure, quoted};
use crate::output::Report;
use crate::table::{Align, Table};
use crate::units::show_count;

/// What `groups` returns.
#[derive(Debug, Serialize)]
pub(crate) struct GroupList {
    groups: Vec<GroupSummary>,
}

#[derive(Debug, Serialize)]
struct GroupSummary {
    name: String,
    /// The topics that it has commits for or has subscribed to.
    topics: Vec<String>,
    /// Their partitions.
    partitions: usize,
    lag: u64,
}

pub(crate) fn groups(broker: &Broker) -> Result<GroupList, Failure> {
    let groups = broker.admin().groups()?.into_iter().map(|group| {
        let topics = group.offsets.iter().map(|it| it.partition.topic.to_string());
        GroupSummary {
            name: group.name.to_string(),
            topics: topics.collect::<BTreeSet<_>>().into_iter().collect(),
            partitions: group.offsets.len(),
            lag: group.offsets.iter().map(|it| it.lag).sum(),
        }
    });
    Ok(GroupList { groups: groups.collect() })
}

impl Report for GroupList {
    fn text(&self) -> String {
        let mut table = Table::new([
            ("GROUP", Align::Left),
            ("PARTITIONS", Align::Right),
            ("LAG", Align::Right),
            ("TOPICS", Align::Left),
        ]);
        for group in &self.groups {
            table.row([
                group.name.clone(),
                group.partitions.to_string(),
                show_count(group.lag),
                group.topics.join(", "),
            ]);
        }
        table.render()
    }
}

/// What `lag` returns.
#[derive(Debug, Serialize)]
pub(crate) struct LagList {
    offsets: Vec<Lag>,
    /// Over all of them.
    lag: u64,
}

#[derive(Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "the names are those of the JSON")]
struct Lag {
    group: String,
    topic: String,
    partition: u32,
    /// The offset at which the group continues; `None` before its first commit.
    committed: Option<u64>,
    log_start_offset: u64,
    log_end_offset: u64,
    lag: u64,
}

/// The lag of all groups, or of one; in all topics, or in one.
pub(crate) fn lag(
    broker: &Broker,
    group: Option<&str>,
    topic: Option<&str>,
) -> Result<LagList, Failure> {
    let groups: Vec<GroupInfo> = match group {
        Some(name) => vec![broker.admin().describe_group(name)?],
        None => broker.admin().groups()?,
    };
    if let Some(topic) = topic {
        broker.topic(topic)?;
    }
    let mut offsets = Vec::new();
    for group in &groups {
        for offset in &group.offsets {
            if topic.is_none_or(|topic| topic == &*offset.partition.topic) {
                offsets.push(Lag::of(broker, group, offset)?);
            }
        }
    }
    let lag = offsets.iter().map(|it| it.lag).sum();
    Ok(LagList { offsets, lag })
}

impl Lag {
    fn of(broker: &Broker, group: &GroupInfo, offset: &GroupOffset) -> Result<Self, Failure> {
        let TopicPartition { topic, partition } = &offset.partition;
        let log = broker.topic(topic)?.partition(*partition)?;
        Ok(Self {
            group: group.name.to_string(),
            topic: topic.to_string(),
            partition: *partition,
            committed: offset.committed,
            log_start_offset: log.log_start_offset(),
            log_end_offset: log.high_watermark(),
            lag: offset.lag,
        })
    }
}

impl Report for LagList {
    fn text(&self) -> String {
        let mut table = Table::new([
            ("GROUP", Align::Left),
            ("TOPIC", Align::Left),
            ("PARTITION", Align::Right),
            ("COMMITTED", Align::Right),
            ("START", Align::Right),
            ("END", Align::Right),
            ("LAG", Align::Right),
        ]);
        for it in &self.offsets {
            table.row([
                it.group.clone(),
                it.topic.clone(),
                it.partition.to_string(),
                show_offset(it.committed),
                show_count(it.log_start_offset),
                show_count(it.log_end_offset),
                show_count(it.lag),
            ]);
        }
        table.render()
    }
}

fn show_offset(offset: Option<u64>) -> String {
    offset.map_or_else(|| "-".to_owned(), show_count)
}

/// What `reset` is to do.
#[derive(Debug)]
pub(crate) struct Reset<'a> {
    pub(crate) group: &'a str,
    pub(crate) topic: &'a str,
    /// `None` is all.
    pub(crate) partition: Option<u32>,
    pub(crate) to: StartAt,
    /// Whether the group may be a new one.
    pub(crate) is_new: bool,
}

/// What `reset` returns.
#[derive(Debug, Serialize)]
pub(crate) struct ResetReport {
    group: String,
    topic: String,
    /// Whether the offsets are committed. Else they are what `--execute` would commit.
    executed: bool,
    offsets: Vec<ResetOffset>,
}

#[derive(Debug, Serialize)]
struct ResetOffset {
    partition: u32,
    /// The commit before; `None` without one.
    committed: Option<u64>,
    /// The new one.
    reset_to: u64,
    /// How many records the group would read, of those that are in the log now.
    lag: u64,
}

/// Says what [`execute_reset`] would do now. Changes nothing.
pub(crate) fn plan_reset(broker: &Broker, reset: &Reset<'_>) -> Result<ResetReport, Failure> {
    let committed = committed(broker, reset)?;
    if reset.is_new {
        check_new(reset.group)?;
    }
    let topic = broker.topic(reset.topic)?;
    let partitions: Vec<Partition> = match reset.partition {
        Some(number) => vec![topic.partition(number)?],
        None => topic.iter().collect(),
    };
    let mut offsets = Vec::new();
    for log in &partitions {
        check_available(broker, reset.topic, log.number())?;
        let to = offset_of(log, reset.to)?;
        offsets.push(reset.offset(log, &committed, to));
    }
    Ok(reset.report(false, offsets))
}

/// Refuses a name that no group can have, as the library does when it stores a commit.
fn check_new(group: &str) -> Result<(), Failure> {
    let broker = Broker::in_memory()?;
    broker.ensure_topic("any", TopicConfig::new(1))?;
    broker.admin().reset_offsets(group, "any", StartAt::Earliest)?;
    Ok(())
}

/// Refuses a partition that is unavailable: nothing can be committed for it.
fn check_available(broker: &Broker, topic: &str, partition: u32) -> Result<(), Failure> {
    let partition = TopicPartition::from((topic, partition));
    let mut reader = broker.reader().assign([&partition]).start(StartAt::Earliest).open()?;
    Ok(reader.seek(&partition, StartAt::Earliest)?)
}

/// Commits the new offsets, and returns them.
pub(crate) fn execute_reset(broker: &Broker, reset: &Reset<'_>) -> Result<ResetReport, Failure> {
    let committed = committed(broker, reset)?;
    let topic = broker.topic(reset.topic)?;
    let admin = broker.admin();
    let now = match reset.partition {
        Some(number) => {
            let partition = TopicPartition::from((reset.topic, number));
            let offset = admin.reset_partition(reset.group, &partition, reset.to)?;
            [(partition, offset)].into()
        }
        None => admin.reset_offsets(reset.group, reset.topic, reset.to)?,
    };
    let mut offsets = Vec::new();
    for (partition, to) in &now {
        offsets.push(reset.offset(&topic.partition(partition.partition)?, &committed, *to));
    }
    Ok(reset.report(true, offsets))
}

/// What the group has committed. A group that is not there is created by a reset, and by a name
/// that is mistyped.
fn committed(broker: &Broker, reset: &Reset<'_>) -> Result<Vec<GroupOffset>, Failure> {
    match broker.admin().describe_group(reset.group) {
        Ok(group) => Ok(group.offsets),
        Err(Error::UnknownGroup(_)) if reset.is_new => Ok(Vec::new()),
        Err(Error::UnknownGroup(name)) => Err(Failure::Refused(format!(
            "there is no group {}; `logpond groups` lists the groups, and `--new-group` creates one",
            quoted(&name)
        ))),
        Err(error) => Err(error.into()),
    }
}

/// The offset that a reset takes, as the library decides it.
fn offset_of(log: &Partition, to: StartAt) -> Result<u64, Failure> {
    let (start, end) = (log.log_start_offset(), log.high_watermark());
    Ok(match to {
        StartAt::Latest => end,
        StartAt::Offset(offset) => offset.clamp(start, end.max(start)),
        StartAt::Time(time) => log.offset_at(time)?.map_or(end, |offset| offset.min(end)),
        StartAt::Earliest | StartAt::Error => start,
    })
}

impl Reset<'_> {
    fn report(&self, executed: bool, offsets: Vec<ResetOffset>) -> ResetReport {
        let (group, topic) = (self.group.to_owned(), self.topic.to_owned());
        ResetReport { group, topic, executed, offsets }
    }

    fn offset(&self, log: &Partition, committed: &[GroupOffset], reset_to: u64) -> ResetOffset {
        let partition = log.number();
        let origin = TopicPartition::from((self.topic, partition));
        let committed = committed.iter().find(|it| it.partition == origin);
        ResetOffset {
            partition,
            committed: committed.and_then(|it| it.committed),
            reset_to,
            lag: log.high_watermark().saturating_sub(reset_to),
        }
    }
}

impl Report for ResetReport {
    fn text(&self) -> String {
        let mut table = Table::new([
            ("GROUP", Align::Left),
            ("TOPIC", Align::Left),
            ("PARTITION", Align::Right),
            ("COMMITTED", Align::Right),
            ("RESET TO", Align::Right),
            ("LAG", Align::Right),
        ]);
        for it in &self.offsets {
            table.row([
                self.group.clone(),
                self.topic.clone(),
                it.partition.to_string(),
                show_offset(it.committed),
                show_count(it.reset_to),
                show_count(it.lag),
            ]);
        }
        let done = if self.executed {
            "The offsets are reset.\n"
        } else {
            "Nothing was changed. Add `--execute` to reset the offsets.\n"
        };
        format!("{}{done}", table.render())
    }
}

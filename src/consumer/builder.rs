//! The settings of a consumer before it is open.

use std::fmt;
use std::sync::Arc;

use super::{Consumer, Settings};
use crate::broker::Broker;
use crate::config::{CommitMode, RecoveryPolicy, StartAt, Visibility};
use crate::error::{Error, Result};
use crate::format::validate_label;
use crate::group::assignor::Assignor;
use crate::record::TopicPartition;

/// LIMIT: what one poll hands out unless told otherwise: enough to amortise the call, little
/// enough to be processed well within any poll interval. Kafka's default.
const POLL_RECORDS: usize = 500;
const POLL_BYTES: usize = 4 << 20;

impl Broker {
    /// For a member of a consumer group: the members share the partitions of their topics, and
    /// the group's committed offsets are durable. The name is 1 to 255 bytes.
    pub fn consumer(&self, group: &str) -> ConsumerBuilder {
        ConsumerBuilder::new(self, Some(group.into()))
    }

    /// For a reader of its own: no group, no commits; it starts at [`StartAt::Earliest`].
    pub fn reader(&self) -> ConsumerBuilder {
        ConsumerBuilder::new(self, None)
    }
}

/// Settings of a consumer; made by [`Broker::consumer`] and [`Broker::reader`].
#[must_use]
pub struct ConsumerBuilder {
    broker: Broker,
    group: Option<Arc<str>>,
    topics: Vec<Arc<str>>,
    assigned: Vec<TopicPartition>,
    assignor: Assignor,
    settings: Settings,
}

impl ConsumerBuilder {
    fn new(broker: &Broker, group: Option<Arc<str>>) -> Self {
        Self {
            broker: broker.clone(),
            group,
            topics: Vec::new(),
            assigned: Vec::new(),
            assignor: Assignor::default(),
            settings: Settings {
                start: StartAt::default(),
                commit: CommitMode::default(),
                visibility: Visibility::default(),
                poll_records: POLL_RECORDS,
                poll_bytes: POLL_BYTES,
                reads_around_damage: broker.life().settings.recovery
                    == RecoveryPolicy::ReadAroundDamage,
            },
        }
    }

    /// Reads these topics: a group shares their partitions, a reader without a group has all.
    pub fn subscribe<T: AsRef<str>>(mut self, topics: impl IntoIterator<Item = T>) -> Self {
        self.topics.extend(topics.into_iter().map(|topic| topic.as_ref().into()));
        self
    }

    /// Reads exactly these partitions, whatever other members of the group read.
    pub fn assign<P: Into<TopicPartition>>(mut self, parts: impl IntoIterator<Item = P>) -> Self {
        self.assigned.extend(parts.into_iter().map(Into::into));
        self
    }

    /// Where to start when nothing is committed, and where to go when out of range. Default
    /// [`StartAt::Earliest`].
    pub fn start(mut self, start: StartAt) -> Self {
        self.settings.start = start;
        self
    }

    /// Who commits. Default [`CommitMode::Manual`].
    pub fn commit(mut self, mode: CommitMode) -> Self {
        self.settings.commit = mode;
        self
    }

    /// What the consumer may see. Default [`Visibility::Published`].
    pub fn visibility(mut self, visibility: Visibility) -> Self {
        self.settings.visibility = visibility;
        self
    }

    /// The most messages that one poll returns. Default 500.
    pub fn max_poll_records(mut self, records: usize) -> Self {
        self.settings.poll_records = records;
        self
    }

    /// About how many bytes one poll returns; always at least one message. Default 4 MiB.
    pub fn max_poll_bytes(mut self, bytes: usize) -> Self {
        self.settings.poll_bytes = bytes;
        self
    }

    /// How the group shares its partitions; all members must use the same. Default
    /// [`Assignor::CooperativeSticky`].
    pub fn assignor(mut self, assignor: Assignor) -> Self {
        self.assignor = assignor;
        self
    }

    /// Opens the consumer; a member of a group is given its partitions at once, as far as nobody
    /// has to give them up first.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownTopic`], [`Error::UnknownPartition`], [`Error::InvalidName`] for the group,
    /// [`Error::NoOffset`] with [`StartAt::Error`], and [`Error::Config`] when there is nothing to
    /// read, both ways of choosing are mixed, or a setting cannot work.
    ///
    /// # Blocking
    ///
    /// For the disk, where positions are looked up.
    pub fn open(self) -> Result<Consumer> {
        if self.settings.poll_records == 0 {
            return Err(Error::config("max_poll_records", "must be at least 1"));
        }
        if let CommitMode::Auto { .. } = self.settings.commit
            && self.group.is_none()
        {
            return Err(Error::config("commit", "a reader without a group has no commits"));
        }
        if let Some(group) = &self.group {
            validate_label(group).map_err(|reason| Error::InvalidName {
                name: group.chars().take(300).collect(),
                reason,
            })?;
        }
        let life = self.broker.life();
        for topic in &self.topics {
            life.topic(topic)?;
        }
        match (self.topics.is_empty(), self.assigned.is_empty()) {
            (true, true) => return Err(Error::config("subscribe", "nothing to read was chosen")),
            (false, false) => {
                return Err(Error::config("assign", "cannot be mixed with subscribe"));
            }
            _ => {}
        }
        let mut consumer = Consumer::new(life, self.group.clone(), self.settings.clone());
        match self.group {
            Some(group) if self.assigned.is_empty() => {
                consumer.join(&group, self.topics, self.assignor)?;
            }
            _ => consumer.take_by_hand(self.topics, self.assigned)?,
        }
        Ok(consumer)
    }
}

impl fmt::Debug for ConsumerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerBuilder")
            .field("group", &self.group)
            .field("topics", &self.topics)
            .field("assigned", &self.assigned)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

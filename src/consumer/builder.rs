//! The settings of a consumer before it is open.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::rebalance::{Callback, Commits, Rebalance};
use super::{Consumer, Settings};
use crate::broker::Broker;
use crate::config::{CommitMode, RecoveryPolicy, StartAt, Visibility};
use crate::error::{Error, Result};
use crate::format::validate_label;
use crate::group::assignor::Assignor;
use crate::group::coordinator::JoinRequest;
use crate::group::interest::Interest;
use crate::record::TopicPartition;

/// LIMIT: what one poll hands out unless told otherwise: enough to amortise the call, little
/// enough to be processed well within any poll interval. Kafka's default.
const POLL_RECORDS: usize = 500;
const POLL_BYTES: usize = 4 << 20;

/// LIMIT: time for one batch, whatever is done with it. Kafka's default.
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// LIMIT: longer than a service takes to start again, and short enough that a partition whose
/// owner does not come back is not left alone for long. Kafka's session timeout.
const REJOIN_TIMEOUT: Duration = Duration::from_secs(45);

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
    patterns: Vec<Arc<str>>,
    assigned: Vec<TopicPartition>,
    assignor: Option<Assignor>,
    max_poll_interval: Option<Duration>,
    instance: Option<Arc<str>>,
    rejoin_timeout: Option<Duration>,
    callback: Option<Callback>,
    settings: Settings,
}

impl ConsumerBuilder {
    fn new(broker: &Broker, group: Option<Arc<str>>) -> Self {
        Self {
            broker: broker.clone(),
            group,
            topics: Vec::new(),
            patterns: Vec::new(),
            assigned: Vec::new(),
            assignor: None,
            max_poll_interval: None,
            instance: None,
            rejoin_timeout: None,
            callback: None,
            settings: Settings {
                start: StartAt::default(),
                out_of_range: StartAt::default(),
                commit: CommitMode::default(),
                visibility: Visibility::default(),
                poll_records: POLL_RECORDS,
                poll_bytes: POLL_BYTES,
                reads_around_damage: broker.run().settings.recovery
                    == RecoveryPolicy::ReadAroundDamage,
            },
        }
    }

    /// Reads these topics: a group shares their partitions, also those that are added later; a
    /// reader without a group has all that there are now.
    pub fn subscribe<T: AsRef<str>>(mut self, topics: impl IntoIterator<Item = T>) -> Self {
        self.topics.extend(topics.into_iter().map(|topic| topic.as_ref().into()));
        self
    }

    /// Reads every topic whose whole name matches the pattern, in which `*` stands for any
    /// characters, also none, and `?` for one. A group reads also those that are created later; a
    /// reader without a group, those that there are now. Can be said several times, and beside
    /// [`subscribe`](Self::subscribe). The engine's own topics never match.
    pub fn subscribe_pattern(mut self, pattern: &str) -> Self {
        self.patterns.push(pattern.into());
        self
    }

    /// Reads exactly these partitions, whatever the members of the group read. With a group, its
    /// commits are the group's, so they are refused with [`Error::GroupNotEmpty`] while the group
    /// has live members.
    pub fn assign<P: Into<TopicPartition>>(mut self, parts: impl IntoIterator<Item = P>) -> Self {
        self.assigned.extend(parts.into_iter().map(Into::into));
        self
    }

    /// Where to start when nothing is committed. Default [`StartAt::Earliest`].
    ///
    /// For a member this is asked once, when its group subscribes to the name or pattern for the
    /// first time: where the partitions begin that are there is committed before `open` returns, and
    /// those that come later are read from their beginning.
    pub fn start(mut self, start: StartAt) -> Self {
        self.settings.start = start;
        self
    }

    /// Where to continue when the records at the position were removed before they were read. All
    /// between the two is a [`Gap`](super::Gap). Default [`StartAt::Earliest`], which leaves out
    /// nothing that is still there; [`StartAt::Error`] returns [`Error::OffsetOutOfRange`].
    pub fn out_of_range(mut self, to: StartAt) -> Self {
        self.settings.out_of_range = to;
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

    /// How the group shares its partitions. All live members must use the same: whoever joins with
    /// another one is refused, until the last of them has left. Default
    /// [`Assignor::CooperativeSticky`].
    pub fn assignor(mut self, assignor: Assignor) -> Self {
        self.assignor = Some(assignor);
        self
    }

    /// How long a member of a group may be away between two polls, on the broker's clock, before
    /// its partitions are given to others. It hears [`Rebalance::Lost`] at its next poll and takes
    /// part again; only its commits of what it lost fail, with [`Error::Rebalanced`]. Waiting in
    /// `poll` or `recv` is no absence. Default 5 minutes.
    pub fn max_poll_interval(mut self, interval: Duration) -> Self {
        self.max_poll_interval = Some(interval);
        self
    }

    /// Makes this a static member of the group, by this name: when it is dropped or closed, its
    /// partitions wait for the next consumer of the same name for
    /// [`rejoin_timeout`](Self::rejoin_timeout), also while the broker is restarted. Of two live
    /// consumers of the same name the older one gets [`Error::Fenced`]. 1 to 255 bytes.
    pub fn instance_id(mut self, id: impl Into<String>) -> Self {
        self.instance = Some(id.into().into());
        self
    }

    /// How long the partitions of a static member wait for it, on the broker's clock; after a
    /// restart, from the opening of the broker on. Default 45 seconds.
    pub fn rejoin_timeout(mut self, timeout: Duration) -> Self {
        self.rejoin_timeout = Some(timeout);
        self
    }

    /// Is called when partitions come and go, in the member's own `poll`, `recv` or `close`, under
    /// no lock. It may use the broker, also for other members of the same group. Dropping a
    /// consumer calls nobody.
    ///
    /// A panic in it ends the poll, once the hand-over is finished: the partitions are given up,
    /// or taken over, all the same.
    pub fn on_rebalance(
        mut self,
        callback: impl FnMut(Rebalance<'_>, &mut Commits<'_>) + Send + 'static,
    ) -> Self {
        self.callback = Some(Box::new(callback));
        self
    }

    /// Opens the consumer; a member of a group is given its partitions at once, as far as nobody
    /// has to give them up first. A rebalance callback hears of them at the first poll.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownTopic`], [`Error::UnknownPartition`], [`Error::InvalidName`] for the group
    /// or the instance id, [`Error::NoOffset`] and [`Error::OffsetOutOfRange`] with
    /// [`StartAt::Error`] (to begin elsewhere, open it once with another setting and
    /// [`seek`](Consumer::seek), or [`reset_offsets`](crate::Admin::reset_offsets)), and
    /// [`Error::Config`] when
    /// there is nothing to read, both ways of choosing are mixed, the group's members use another
    /// assignor, or a setting cannot work. So is one that would have no effect:
    /// [`assignor`](Self::assignor), [`max_poll_interval`](Self::max_poll_interval),
    /// [`instance_id`](Self::instance_id) and [`on_rebalance`](Self::on_rebalance) of a consumer
    /// that is no member of a group, because it has none or reads by [`assign`](Self::assign);
    /// [`rejoin_timeout`](Self::rejoin_timeout) without an instance id; commits of a reader.
    ///
    /// # Blocking
    ///
    /// For the disk, where positions are looked up.
    pub fn open(self) -> Result<Consumer> {
        self.check()?;
        let run = self.broker.run();
        for topic in &self.topics {
            run.topic(topic)?;
        }
        let (group, settings) = (self.group.clone(), self.settings.clone());
        let mut consumer = Consumer::new(run, group, settings, self.callback);
        let interest = Interest::new(self.topics, self.patterns);
        match self.group {
            Some(group) if self.assigned.is_empty() => {
                let timeout = self.rejoin_timeout.unwrap_or(REJOIN_TIMEOUT);
                let request = JoinRequest {
                    interest,
                    assignor: self.assignor.unwrap_or_default(),
                    max_poll_interval: self.max_poll_interval.unwrap_or(MAX_POLL_INTERVAL),
                    instance: self.instance.map(|instance| (instance, timeout)),
                };
                consumer.join(&group, &request)?;
            }
            _ => consumer.take_by_hand(&interest, self.assigned)?,
        }
        Ok(consumer)
    }

    /// What can be seen without the broker.
    fn check(&self) -> Result<()> {
        if self.settings.poll_records == 0 {
            return Err(Error::config("max_poll_records", "must be at least 1"));
        }
        if let CommitMode::Auto { every } = self.settings.commit {
            if self.group.is_none() {
                return Err(Error::config("commit", "a reader without a group has no commits"));
            }
            // Always due, a commit would be no wait's end and every wait's.
            if every.is_zero() {
                let reason = "an interval of no time; commit by hand after each poll instead";
                return Err(Error::config("commit", reason));
            }
        }
        if self.max_poll_interval.is_some_and(|interval| interval.is_zero()) {
            return Err(Error::config("max_poll_interval", "must be more than zero"));
        }
        if self.patterns.iter().any(|pattern| pattern.is_empty()) {
            return Err(Error::config("subscribe_pattern", "an empty pattern matches nothing"));
        }
        for label in self.group.iter().chain(&self.instance) {
            validate_label(label).map_err(|reason| Error::InvalidName {
                name: label.chars().take(300).collect(),
                reason,
            })?;
        }
        let subscribes = !self.topics.is_empty() || !self.patterns.is_empty();
        self.check_member_settings(self.group.is_some() && subscribes)?;
        match (subscribes, self.assigned.is_empty()) {
            (false, true) => Err(Error::config("subscribe", "nothing to read was chosen")),
            (true, false) => Err(Error::config("assign", "cannot be mixed with subscribe")),
            _ => Ok(()),
        }
    }

    /// Refuses settings that would have no effect: whoever makes them expects one.
    fn check_member_settings(&self, is_member: bool) -> Result<()> {
        let of_members = [
            ("instance_id", self.instance.is_some()),
            ("assignor", self.assignor.is_some()),
            ("max_poll_interval", self.max_poll_interval.is_some()),
            ("on_rebalance", self.callback.is_some()),
        ];
        if let Some((setting, _)) = of_members.iter().find(|(_, is_set)| *is_set && !is_member) {
            let reason = "it is for members of a group: those that `subscribe` with a group's name";
            return Err(Error::config(setting, reason));
        }
        if self.rejoin_timeout.is_some() && self.instance.is_none() {
            let reason = "only a member with an `instance_id` is waited for";
            return Err(Error::config("rejoin_timeout", reason));
        }
        Ok(())
    }
}

impl fmt::Debug for ConsumerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerBuilder")
            .field("group", &self.group)
            .field("topics", &self.topics)
            .field("patterns", &self.patterns)
            .field("assigned", &self.assigned)
            .field("instance", &self.instance)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

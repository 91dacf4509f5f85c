//! The settings of a consumer before it is open.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Consumer;
use super::commit::Commits;
use super::rebalance::{Callback, CallbackResult, Rebalance, boxed};
use super::settings::Settings;
use crate::broker::Broker;
use crate::config::{CommitMode, RecoveryPolicy, StartAt, Visibility};
use crate::error::{Error, Result};
use crate::format::validate_label;
use crate::group::assignor::Assignor;
use crate::group::interest::Interest;
use crate::group::members::JoinRequest;
use crate::record::TopicPartition;

/// LIMIT: how many records one poll returns by default: enough to amortise the call, few enough to
/// be processed well within any poll interval. Kafka's default.
const POLL_RECORDS: usize = 500;

/// LIMIT: how many bytes one poll returns by default: 500 records of 8 KiB. Larger records come in
/// smaller batches, so that a batch holds little memory.
const POLL_BYTES: usize = 4 << 20;

/// LIMIT: how long a batch may be processed until the member is evicted. Kafka's default.
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// LIMIT: longer than a service takes to start again, and short enough that a partition whose
/// owner does not come back is not left alone for long. Kafka's session timeout.
const REJOIN_TIMEOUT: Duration = Duration::from_secs(45);

impl Broker {
    /// Returns the settings of a consumer that is a member of this group; finish with
    /// [`open`](ConsumerBuilder::open). All open consumers with the same group name are members of
    /// one group: each partition of their topics is read by one of them. The group's committed
    /// offsets are stored. The name has 1 to 255 bytes.
    pub fn consumer(&self, group: &str) -> ConsumerBuilder {
        ConsumerBuilder::new(self, Some(group.into()))
    }

    /// Returns the settings of a consumer without a group; finish with
    /// [`open`](ConsumerBuilder::open). It starts at [`StartAt::Earliest`] by default, also reads
    /// partitions and topics that are created later, and cannot commit.
    pub fn reader(&self) -> ConsumerBuilder {
        ConsumerBuilder::new(self, None)
    }
}

/// Settings of a consumer; made by [`Broker::consumer`] and [`Broker::reader`].
///
/// ```
/// # use logpond::{Broker, CommitMode, StartAt, TopicConfig};
/// # use std::time::Duration;
/// # let broker = Broker::in_memory()?;
/// # broker.ensure_topic("emails", TopicConfig::new(4))?;
/// let every = Duration::from_secs(5);
/// let inbox = broker
///     .consumer("mailer")
///     .subscribe(["emails"])
///     .start(StartAt::Latest)
///     .commit(CommitMode::Auto { every })
///     .max_poll_records(100)
///     .open()?;
/// assert_eq!(inbox.assignment().len(), 4);
/// # Ok::<(), logpond::Error>(())
/// ```
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
                reads_around_damage: broker.run().context().settings.recovery
                    == RecoveryPolicy::ReadAroundDamage,
            },
        }
    }

    /// Adds topics to read, including partitions that are created later. The members of a group
    /// share the partitions; a reader without a group reads all.
    pub fn subscribe<T: AsRef<str>>(mut self, topics: impl IntoIterator<Item = T>) -> Self {
        self.topics.extend(topics.into_iter().map(|topic| topic.as_ref().into()));
        self
    }

    /// Adds all topics whose whole name matches the pattern. `*` stands for any characters, also
    /// none; `?` stands for one. Matching topics that are created later are read too, from their
    /// beginning. Can be called several times, and together with [`subscribe`](Self::subscribe).
    /// The broker's internal logs never match.
    pub fn subscribe_pattern(mut self, pattern: &str) -> Self {
        self.patterns.push(pattern.into());
        self
    }

    /// Reads exactly these partitions. A consumer of a group is then no member of it, but can
    /// commit for it; a commit returns [`Error::GroupNotEmpty`] while the group has live members.
    pub fn assign<P: Into<TopicPartition>>(mut self, parts: impl IntoIterator<Item = P>) -> Self {
        self.assigned.extend(parts.into_iter().map(Into::into));
        self
    }

    /// Sets where to start in partitions without a committed offset. Default
    /// [`StartAt::Earliest`].
    ///
    /// In a group only the first member that subscribes to a topic or to a pattern uses it: before
    /// [`open`](Self::open) returns, this start is committed for each existing partition. Later
    /// members continue at the committed offsets. Partitions that are created later are read from
    /// their beginning.
    #[doc(alias = "auto.offset.reset")]
    pub fn start(mut self, start: StartAt) -> Self {
        self.settings.start = start;
        self
    }

    /// Sets where to continue if the next records were removed before the consumer read them.
    /// Default [`StartAt::Earliest`]: at the first record that is left. The offsets in between are
    /// reported as a [`Gap`](super::Gap). With [`StartAt::Error`], reading returns
    /// [`Error::OffsetOutOfRange`].
    #[doc(alias = "auto.offset.reset")]
    pub fn out_of_range(mut self, to: StartAt) -> Self {
        self.settings.out_of_range = to;
        self
    }

    /// Sets whether the program or the consumer commits. Default [`CommitMode::Manual`]: the
    /// program.
    #[doc(alias = "enable.auto.commit")]
    #[doc(alias = "auto.commit.interval.ms")]
    pub fn commit(mut self, mode: CommitMode) -> Self {
        self.settings.commit = mode;
        self
    }

    /// Sets whether the consumer sees records before they are durable. Default
    /// [`Visibility::Published`]: it does.
    #[doc(alias = "isolation.level")]
    pub fn visibility(mut self, visibility: Visibility) -> Self {
        self.settings.visibility = visibility;
        self
    }

    /// Sets how many messages one poll returns at most. Default 500.
    #[doc(alias = "max.poll.records")]
    pub fn max_poll_records(mut self, records: usize) -> Self {
        self.settings.poll_records = records;
        self
    }

    /// Sets about how many bytes one poll returns at most; it always returns at least one message.
    /// Default 4 MiB.
    #[doc(alias = "fetch.max.bytes")]
    pub fn max_poll_bytes(mut self, bytes: usize) -> Self {
        self.settings.poll_bytes = bytes;
        self
    }

    /// Sets how the group divides its partitions among its members. Default
    /// [`Assignor::CooperativeSticky`]. All live members must use the same one:
    /// [`open`](Self::open) refuses another with [`Error::Config`].
    #[doc(alias = "partition.assignment.strategy")]
    pub fn assignor(mut self, assignor: Assignor) -> Self {
        self.assignor = Some(assignor);
        self
    }

    /// Sets the longest time between two polls of a member, on the broker's clock. After that the
    /// member is evicted: its partitions are given to other members. Default 5 minutes. The time
    /// during which a call of `poll` or `recv` waits does not count.
    ///
    /// At its next poll, an evicted member gets [`Rebalance::Lost`] and joins again. Its commits
    /// for partitions that it lost return [`Error::Rebalanced`].
    #[doc(alias = "max.poll.interval.ms")]
    pub fn max_poll_interval(mut self, interval: Duration) -> Self {
        self.max_poll_interval = Some(interval);
        self
    }

    /// Makes this a static member of the group, with an id of 1 to 255 bytes. When the consumer is
    /// dropped or closed, its partitions are kept for the next consumer with the same id, for
    /// [`rejoin_timeout`](Self::rejoin_timeout), also if the broker is opened again meanwhile. If
    /// two open consumers have the same id, the older one gets [`Error::Fenced`].
    #[doc(alias = "group.instance.id")]
    pub fn instance_id(mut self, id: impl Into<String>) -> Self {
        self.instance = Some(id.into().into());
        self
    }

    /// Sets how long the partitions of a static member are kept for it after it was dropped or
    /// closed, on the broker's clock. If the broker is opened again, the time begins anew. Default
    /// 45 seconds.
    #[doc(alias = "session.timeout.ms")]
    pub fn rejoin_timeout(mut self, timeout: Duration) -> Self {
        self.rejoin_timeout = Some(timeout);
        self
    }

    /// Sets a callback that is called when this member gains or loses partitions. It is called
    /// inside `poll`, `recv` or `close` of the consumer, and under no lock: it may use the broker,
    /// also other members of the group. It is not called when the consumer is dropped.
    ///
    /// ```
    /// # use logpond::{Broker, Offsets, Rebalance, TopicConfig, TopicPartition};
    /// # use std::time::Duration;
    /// # let broker = Broker::in_memory()?;
    /// # broker.ensure_topic("jobs", TopicConfig::new(8))?;
    /// let mut worker = broker
    ///     .consumer("workers")
    ///     .subscribe(["jobs"])
    ///     .on_rebalance(|event, commits| match event {
    ///         Rebalance::Assigned(partitions) => println!("reads {partitions:?}"),
    ///         // The member still owns them: the last moment to commit the finished work.
    ///         Rebalance::Revoked(partitions) => {
    ///             let position = |it: &TopicPartition| Some((it.clone(), commits.position(it)?));
    ///             let done: Offsets = partitions.iter().filter_map(position).collect();
    ///             if let Err(error) = commits.commit(&done) {
    ///                 eprintln!("the next owner reads again: {error}");
    ///             }
    ///         }
    ///         // Another member may own them already: it is too late to commit.
    ///         Rebalance::Lost(partitions) => println!("lost {partitions:?}"),
    ///     })
    ///     .open()?;
    /// worker.poll(Duration::ZERO)?; // calls back with `Assigned`
    /// worker.close()?; // and with `Revoked`
    /// # Ok::<(), logpond::Error>(())
    /// ```
    ///
    /// The callback may return a [`Result`](CallbackResult) and use `?`. The call in which it runs
    /// then returns the error as [`Error::Callback`]:
    ///
    /// - of `Assigned`: no message is returned, of any partition, before the callback has succeeded.
    ///   The member keeps the partitions, and each poll calls the callback with them again, until it
    ///   returns `Ok` or they are lost. So a sink that cannot read its offsets from a database does
    ///   not begin elsewhere. Partitions that it has moved or paused before the error remain so.
    ///   They count as not reported: if they are lost or revoked before, it is not called for that.
    ///   A [`poll`](Consumer::poll) returns the second error in a row when its timeout is over, so a
    ///   loop does not ask the database at full speed. `recv`, a timeout of zero and a stream return
    ///   it at once: pause before the next call.
    /// - of `Revoked` and `Lost`: the partitions are given up all the same, since other members wait
    ///   for them; the next poll continues.
    ///
    /// ```
    /// # use logpond::{Broker, Error, Rebalance, StartAt, TopicConfig, TopicPartition};
    /// # let broker = Broker::in_memory()?;
    /// # broker.ensure_topic("jobs", TopicConfig::new(1))?;
    /// # fn next_offset_in_database(_: &TopicPartition) -> std::io::Result<u64> {
    /// #     Err(std::io::ErrorKind::NotConnected.into())
    /// # }
    /// type AnyError = Box<dyn std::error::Error + Send + Sync>;
    /// let sink = broker.consumer("sink").subscribe(["jobs"]);
    /// let mut sink = sink
    ///     .on_rebalance(|event, commits| -> Result<(), AnyError> {
    ///         let Rebalance::Assigned(partitions) = event else { return Ok(()) };
    ///         for partition in partitions {
    ///             let next = next_offset_in_database(partition)?;
    ///             commits.seek(partition, StartAt::Offset(next))?;
    ///         }
    ///         Ok(())
    ///     })
    ///     .open()?;
    /// let Err(Error::Callback { source }) = sink.try_recv() else { panic!("not connected") };
    /// assert!(source.downcast_ref::<std::io::Error>().is_some());
    /// # Ok::<(), logpond::Error>(())
    /// ```
    ///
    /// If the callback panics, the rebalance is finished as if it had returned. Then the panic
    /// continues through `poll`.
    #[doc(alias = "ConsumerRebalanceListener")]
    pub fn on_rebalance<R: CallbackResult>(
        mut self,
        callback: impl FnMut(Rebalance<'_>, &mut Commits<'_>) -> R + Send + 'static,
    ) -> Self {
        self.callback = Some(boxed(callback));
        self
    }

    /// Opens the consumer. A member of a group gets its partitions at once, except those that
    /// another member must give up first. The rebalance callback is called for them in the first
    /// poll.
    ///
    /// # Errors
    ///
    /// - [`Error::UnknownTopic`], [`Error::UnknownPartition`]: there is no such topic or partition.
    /// - [`Error::InvalidName`]: the name of the group or the instance id is empty or too long.
    /// - [`Error::NoOffset`], [`Error::OffsetOutOfRange`]: with [`StartAt::Error`]. To begin at
    ///   another offset, call [`reset_offsets`](crate::Admin::reset_offsets), or open the consumer
    ///   once with another setting and [`seek`](Consumer::seek).
    /// - [`Error::Config`]: no topic or partition was chosen, both [`subscribe`](Self::subscribe)
    ///   and [`assign`](Self::assign) were called, the group's members use another assignor, or a
    ///   setting has an impossible value or would have no effect. These have no effect:
    ///   [`assignor`](Self::assignor), [`max_poll_interval`](Self::max_poll_interval),
    ///   [`instance_id`](Self::instance_id) and [`on_rebalance`](Self::on_rebalance) of a consumer
    ///   that is no member of a group; [`rejoin_timeout`](Self::rejoin_timeout) without an instance
    ///   id; [`commit`](Self::commit) of a reader without a group.
    /// - [`Error::StorageFull`], [`Error::SyncFailed`], [`Error::Io`], [`Error::ReadOnly`]: the
    ///   group subscribes to a topic or pattern for the first time, and this could not be stored.
    /// - [`Error::NotLeader`]: the consumer would be a member of a group, and this broker does not lead
    ///   its replicated group. Readers, and consumers that [`assign`](Self::assign), read on every
    ///   broker; the latter commit only on the leader.
    /// - [`Error::Closed`]: the broker was closed.
    ///
    /// # Durability
    ///
    /// At broker level [`Durability::Sync`](crate::Durability::Sync): on return the group's
    /// subscription, and the offsets at which it begins, are on stable storage. With
    /// [`StartAt::Earliest`] the call does not wait for that, because the group would begin at the
    /// same offsets after a crash.
    ///
    /// # Blocking
    ///
    /// For the disk, when positions are looked up, and for a sync when a group subscribes to a
    /// topic or pattern for the first time; on a replicated broker then also for a majority of the
    /// members, unless the group begins at [`StartAt::Earliest`].
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
                consumer.poller.assigned_mut().join(&group, &request)?;
            }
            _ => consumer.poller.assigned_mut().take_by_hand(interest, self.assigned)?,
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
                return Err(Error::config(
                    "commit",
                    "a reader without a group cannot commit; choose CommitMode::Manual",
                ));
            }
            // A commit that is always due would end every wait at once.
            if every.is_zero() {
                let reason = "the interval is zero; commit after each poll instead";
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
            (false, true) => Err(Error::config(
                "subscribe",
                "no topic was chosen; call `subscribe`, `subscribe_pattern` or `assign`",
            )),
            (true, false) => Err(Error::config("assign", "cannot be combined with `subscribe`")),
            _ => Ok(()),
        }
    }

    /// Refuses settings that would have no effect: a caller that makes them expects one.
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
            let reason = "it applies only to a member with an `instance_id`";
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

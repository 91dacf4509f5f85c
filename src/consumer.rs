//! Consumers: read records from given offsets, alone or as a member of a group.
//!
//! From the bottom up; no part names one above it:
//!
//! | part | what it is for |
//! |---|---|
//! | [`settings`] | the settings of the builder |
//! | [`progress`], [`commit_mark`], [`failure`], [`arming`], [`gaps`] | how far one partition is read; its commits; its errors; waiting there; missed records |
//! | [`slot`], [`slot_maker`], [`slots`] | one partition as it is read; how it is made; all of them, and which is next |
//! | [`role`], [`commit`] | the consumer's role in a group; what it may commit |
//! | [`pending`], [`rebalance`], [`auto`], [`subscription`], [`followed`] | partitions without a position; the callback; when auto mode commits; where a group begins; the topics of a reader |
//! | [`assignment`] | the consumer's partitions: takes them over and gives them up |
//! | [`handle`], [`wait`] | requests of other threads; how a call waits |
//! | `seen` | what a test broker sees of it |
//! | [`poller`] | the loop of a poll |
//! | [`in_flight`] | for callers: messages whose work is not done |
//! | `in_async`, `stream` | with the feature `async`: futures and a stream of the same calls |
//! | this file | the public handle |
//!
//! Must not know: segments and files. A partition returns checked batches.
//!
//! Invariants:
//! 1. `position` is the offset after the last record that was returned, not that was read ahead.
//! 2. Auto-commit covers only records that an earlier poll returned.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use self::assignment::{Assigned, ends};
pub use self::builder::ConsumerBuilder;
pub use self::commit::Commits;
use self::failure::lasts;
pub use self::gaps::Gap;
pub use self::handle::ConsumerHandle;
#[cfg(feature = "async")]
pub use self::in_async::AsyncConsumer;
pub use self::in_flight::InFlight;
use self::poller::Poller;
use self::rebalance::Callback;
pub use self::rebalance::{CallbackResult, Rebalance};
use self::settings::Settings;
#[cfg(feature = "async")]
pub use self::stream::MessageStream;
use self::wait::Wait;
use crate::broker::Run;
use crate::config::StartAt;
use crate::error::{Error, Result};
use crate::group::commit::Wait as CommitWait;
use crate::message::{Batch, Message};
use crate::partition::PartitionCore;
use crate::record::{Offsets, TopicPartition};

mod arming;
mod assignment;
mod auto;
mod builder;
mod commit;
mod commit_mark;
mod failure;
mod followed;
mod gaps;
mod handle;
#[cfg(feature = "async")]
mod in_async;
mod in_flight;
mod pending;
mod poller;
mod progress;
mod rebalance;
mod role;
#[cfg(feature = "testing")]
mod seen;
mod settings;
mod slot;
mod slot_maker;
mod slots;
#[cfg(feature = "async")]
mod stream;
mod subscription;
mod wait;

/// Reads records, alone ([`Broker::reader`](crate::Broker::reader)) or as a member of a group
/// ([`Broker::consumer`](crate::Broker::consumer)). Its position in a partition is the offset of
/// the next record that it will return.
///
/// One thread at a time uses it, which `&mut self` ensures; other threads can stop it by a
/// [`ConsumerHandle`]. Keeps the broker open.
///
/// ```
/// # use logpond::{Broker, Record, TopicConfig};
/// # use std::time::Duration;
/// # let broker = Broker::in_memory()?;
/// # broker.ensure_topic("emails", TopicConfig::new(4))?;
/// # broker.producer().send(Record::to("emails").key("user-7").value("welcome!"))?;
/// let mut inbox = broker.consumer("mailer").subscribe(["emails"]).open()?;
/// for message in inbox.poll(Duration::from_secs(1))?.iter() {
///     println!("{:?}: {:?}", message.key_text(), message.value_text());
/// }
/// inbox.commit()?; // the work is done: the group will not get these messages again
/// inbox.close()?;
/// # Ok::<(), logpond::Error>(())
/// ```
///
/// A consumer that is dropped leaves its group at once, without a commit and without a callback.
/// [`close`](Self::close) commits in auto mode and calls the rebalance callback.
#[doc(alias = "KafkaConsumer")]
pub struct Consumer {
    poller: Poller,
}

impl Consumer {
    fn new(
        run: &Arc<Run>,
        group: Option<Arc<str>>,
        settings: Settings,
        callback: Option<Callback>,
    ) -> Self {
        let notifier = run.gate().consumers().add_new();
        let assigned = Assigned::new(run, group, settings, callback, &notifier);
        let poller = Poller::new(
            assigned,
            ConsumerHandle::new(notifier),
            #[cfg(feature = "testing")]
            &run.context().env.seams,
        );
        Self { poller }
    }

    // ---- reading -----------------------------------------------------------------------------

    /// Returns the next messages. If there are none, waits for them, at most `timeout`; if none has
    /// arrived by then, the batch is empty. With `Duration::ZERO` it does not wait.
    ///
    /// A member of a group first follows the rebalances of its group: it gives up and takes over
    /// partitions, and calls the callback of [`on_rebalance`]. If the member was evicted, it joins
    /// again. In auto mode it also commits.
    ///
    /// # Errors
    ///
    /// - [`Error::Corrupt`]: the next record of a partition is damaged; the records before it were
    ///   returned. Every poll returns this until the consumer [seeks](Self::seek) to the end of the
    ///   damaged offsets. If the files of a whole partition are missing or unreadable, and the
    ///   consumer reads others too, it is returned once.
    /// - [`Error::Truncated`]: after a crash the log ends below the committed offset. Returned once
    ///   per partition, before anything is committed for it. The next poll continues where the log
    ///   ended after that crash, with the records that were appended since.
    /// - [`Error::OffsetOutOfRange`]: the records at the position were removed, and
    ///   [`out_of_range`](ConsumerBuilder::out_of_range) is [`StartAt::Error`].
    /// - [`Error::NoOffset`]: nothing is committed, and [`start`](ConsumerBuilder::start) is
    ///   [`StartAt::Error`].
    /// - [`Error::Callback`]: the callback returned an error; [`on_rebalance`] says what follows.
    /// - [`Error::Fenced`]: a newer consumer uses the same instance id.
    /// - [`Error::UnknownTopic`]: a topic was deleted. Only without a group, or with
    ///   [`assign`](crate::ConsumerBuilder::assign).
    /// - [`Error::NotLeader`]: the consumer is a member of a group, and this broker does not lead its
    ///   replicated group any more. The member has lost its partitions. It joins again in the first
    ///   poll after the broker leads again, which wakes a call that waits, and continues at the
    ///   offsets that are committed then.
    /// - [`Error::Io`]: the disk could not be read.
    /// - In auto mode [`Error::StorageFull`], [`Error::Poisoned`], [`Error::ReadOnly`], and with
    ///   `assign` [`Error::GroupNotEmpty`]: the commit could not be stored.
    /// - [`Error::Forked`]: this process is a forked child.
    /// - [`Error::Closed`]: after [`ConsumerHandle::shutdown`] or [`Broker::close`].
    ///
    /// An error that repeats until the caller acts is returned at once the first time, and then after
    /// a poll that returned records of other partitions, or when `timeout` is over.
    ///
    /// [`Broker::close`]: crate::Broker::close
    /// [`on_rebalance`]: ConsumerBuilder::on_rebalance
    ///
    /// # Blocking
    ///
    /// At most `timeout` of real time, without spinning; also for the disk, if the data is not in
    /// memory.
    pub fn poll(&mut self, timeout: Duration) -> Result<Batch> {
        self.poller.poll_up_to(timeout)
    }

    /// Waits for the next message and returns it.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] if [`ConsumerHandle::wake`] ends the wait. Otherwise [`Error::Corrupt`],
    /// [`Error::Truncated`], [`Error::OffsetOutOfRange`], [`Error::NoOffset`], [`Error::Fenced`],
    /// [`Error::UnknownTopic`], [`Error::NotLeader`], [`Error::Callback`], [`Error::Io`],
    /// [`Error::Forked`], [`Error::Closed`], and in auto mode those of a commit;
    /// [`poll`](Self::poll) says what each means.
    ///
    /// # Blocking
    ///
    /// Until there is a message.
    pub fn recv(&mut self) -> Result<Message> {
        match self.poller.next_message_up_to(None)? {
            Some(message) => Ok(message),
            None => Err(Error::Timeout),
        }
    }

    /// Waits for the next message, at most `timeout`. Returns `None` if the time is over first.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`], [`Error::Truncated`], [`Error::OffsetOutOfRange`], [`Error::NoOffset`],
    /// [`Error::Fenced`], [`Error::UnknownTopic`], [`Error::NotLeader`], [`Error::Callback`],
    /// [`Error::Io`], [`Error::Forked`], [`Error::Closed`], and in auto mode those of a commit;
    /// [`poll`](Self::poll) says what each means.
    ///
    /// # Blocking
    ///
    /// At most `timeout` of real time.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Option<Message>> {
        self.poller.next_message_up_to(Some(timeout))
    }

    /// Returns the next message if there is one now.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`], [`Error::Truncated`], [`Error::OffsetOutOfRange`], [`Error::NoOffset`],
    /// [`Error::Fenced`], [`Error::UnknownTopic`], [`Error::NotLeader`], [`Error::Callback`],
    /// [`Error::Io`], [`Error::Forked`], [`Error::Closed`], and in auto mode those of a commit;
    /// [`poll`](Self::poll) says what each means.
    ///
    /// # Blocking
    ///
    /// Never for messages; for the disk, if the data is not in memory.
    pub fn try_recv(&mut self) -> Result<Option<Message>> {
        self.poller.next_message(&Wait::Never)
    }

    /// Returns an iterator over the messages, for loops that do not commit: those use `recv`.
    ///
    /// It ends after [`ConsumerHandle::shutdown`], when the broker is closed, and after an error
    /// that repeats until the caller acts: [`Error::Fenced`], [`Error::UnknownTopic`],
    /// [`Error::Corrupt`], [`Error::OffsetOutOfRange`], [`Error::NoOffset`], [`Error::Forked`]. If
    /// one partition has failed, a new iterator continues with the others.
    ///
    /// # Blocking
    ///
    /// Each `next`, until there is a message.
    pub fn iter(&mut self) -> impl Iterator<Item = Result<Message>> {
        let mut is_over = false;
        std::iter::from_fn(move || {
            while !is_over {
                match self.recv() {
                    Err(Error::Closed) => is_over = true,
                    // A wake-up is for a caller that polls; an iteration continues.
                    Err(Error::Timeout) => {}
                    Err(error) => {
                        is_over = lasts(&error);
                        return Some(Err(error));
                    }
                    message => return Some(message),
                }
            }
            None
        })
    }

    /// Returns the messages from the position on, as a stream for any executor. Needs the feature
    /// `async`.
    ///
    /// The stream ends after [`ConsumerHandle::shutdown`](crate::ConsumerHandle::shutdown) or
    /// [`Broker::close`](crate::Broker::close). [`wake`](crate::ConsumerHandle::wake) has no effect
    /// on it. Errors are items. The stream ends after an error that repeats until the caller acts
    /// ([`iter`](Self::iter) lists them), and continues after others.
    ///
    /// # Cancel safety
    ///
    /// The stream, and a future for its next message, can be dropped at any time. Messages that
    /// were not yielded are returned by the next stream, `recv` or `poll`; the position changes
    /// only with messages that were yielded.
    ///
    /// # Time
    ///
    /// A stream has no timer. If a commit of [`CommitMode::Auto`](crate::CommitMode::Auto) is due
    /// while the stream waits for messages, it is made when the next one arrives. A member whose
    /// stream waits for messages is not evicted; a message or a rebalance wakes its task.
    /// `max_poll_interval` counts while the stream has messages and is not polled, from when its
    /// task was woken until it polls, and after the stream is dropped. Whether a task was woken is
    /// checked once per `max_poll_interval`, so a task that does not poll is evicted after one to
    /// two intervals.
    ///
    /// # Blocking
    ///
    /// Polling the stream never waits for messages or for a sync; it reads the disk if data is not
    /// in memory. No thread is started.
    ///
    /// ```
    /// # use logpond::{Broker, Record, TopicConfig};
    /// # use std::{future::poll_fn, pin::Pin};
    /// use futures_core::Stream;
    ///
    /// # pollster::block_on(async {
    /// # let broker = Broker::in_memory()?;
    /// # broker.ensure_topic("emails", TopicConfig::new(1))?;
    /// # broker.producer().send(Record::to("emails").value("welcome!"))?;
    /// let mut inbox = broker.consumer("mailer").subscribe(["emails"]).open()?;
    /// let mut stream = inbox.stream();
    /// // `stream.next().await` with any crate that has `StreamExt`.
    /// let message = poll_fn(|context| Pin::new(&mut stream).poll_next(context)).await;
    /// assert_eq!(message.unwrap()?.value(), Some(&b"welcome!"[..]));
    /// drop(stream);
    /// inbox.commit()?;
    /// # Ok::<(), logpond::Error>(())
    /// # }).unwrap();
    /// ```
    #[cfg(feature = "async")]
    pub fn stream(&mut self) -> MessageStream<'_> {
        MessageStream::new(self)
    }

    /// Returns the messages from the position on, as a stream that owns the consumer, for example
    /// for a response that outlives its handler. It is otherwise as that of
    /// [`stream`](Self::stream). Dropping it drops the consumer, which leaves its group. Needs the
    /// feature `async`.
    #[cfg(feature = "async")]
    pub fn into_stream(self) -> MessageStream<'static> {
        MessageStream::owning(self)
    }

    /// Returns a view of this consumer whose waiting calls are futures, for any executor: `recv`,
    /// `poll`, `commit`, `commit_message` and `commit_offsets`. The view can be made anew for each
    /// call. Needs the feature `async`.
    #[cfg(feature = "async")]
    pub fn in_async(&mut self) -> AsyncConsumer<'_> {
        AsyncConsumer::new(self)
    }

    /// Returns the offsets that this consumer missed since the last call, and forgets them.
    ///
    /// Offsets are missed if retention or [`delete_records`](crate::Admin::delete_records) removed
    /// the records before they were read, and if damaged records were skipped. Each gap is reported
    /// at least once: by the first poll that reaches it, and again after a consumer continues at an
    /// older commit. Adjacent gaps of a partition are one range. A consumer keeps about 1,024
    /// ranges; if there are more, the two oldest of a partition are joined, with the offsets in
    /// between.
    pub fn take_gaps(&mut self) -> Vec<Gap> {
        self.poller.assigned_mut().take_gaps()
    }

    /// Whether [`ConsumerHandle::wake`] ended the last `poll` or `recv`: its result was empty, `None`
    /// or [`Error::Timeout`] for that reason, and not because its time was over.
    #[must_use]
    pub fn was_woken(&self) -> bool {
        self.poller.was_woken()
    }

    /// Returns a handle by which other threads can wake this consumer or shut it down.
    #[must_use]
    pub fn handle(&self) -> ConsumerHandle {
        self.poller.handle().clone()
    }

    /// Leaves the group. In auto mode it first commits the messages of all polls but the last. Then
    /// the rebalance callback is called with [`Rebalance::Revoked`]. If the consumer has an
    /// [`instance_id`](crate::ConsumerBuilder::instance_id), its partitions are kept for the next
    /// consumer with that id.
    ///
    /// # Errors
    ///
    /// [`Error::Callback`] if the callback returned an error. In auto mode, if the commit fails:
    /// [`Error::Fenced`], [`Error::GroupNotEmpty`], [`Error::SyncFailed`], [`Error::Poisoned`],
    /// [`Error::StorageFull`], [`Error::Io`], [`Error::ReadOnly`], [`Error::Forked`] and
    /// [`Error::Closed`], as [`commit`](Self::commit) describes them. The consumer leaves the group
    /// all the same.
    ///
    /// # Durability
    ///
    /// In auto mode at broker level [`Durability::Sync`](crate::Durability::Sync): on return the
    /// commit is on stable storage.
    ///
    /// # Blocking
    ///
    /// In auto mode as [`commit`](Self::commit). Also for the callback.
    pub fn close(mut self) -> Result<()> {
        self.poller.settled().give_up_everything()
    }

    // ---- commits -----------------------------------------------------------------------------

    /// Commits all messages that were returned so far, for each partition of the consumer: its
    /// group will not get them again. The committed offset is that of the next record to read. A
    /// partition is left out if the next poll of it will return [`Error::Truncated`] or report a
    /// [`Gap`](super::Gap).
    ///
    /// # Errors
    ///
    /// - [`Error::Rebalanced`]: the member does not own one of the partitions any more. Nothing is
    ///   committed. Poll again: the member then reads its present partitions.
    /// - [`Error::Fenced`]: a newer consumer uses the same instance id.
    /// - [`Error::UnknownTopic`]: a topic was deleted since the member's last poll. For a consumer
    ///   by [`assign`](crate::ConsumerBuilder::assign): all of its topics were deleted.
    /// - [`Error::GroupNotEmpty`]: the consumer chose its partitions by `assign`, and the group has
    ///   live members.
    /// - [`Error::Config`]: the consumer is a reader without a group.
    /// - [`Error::SyncFailed`], [`Error::Poisoned`]: the records of a partition could not be
    ///   synced, and the other partitions are committed; or the commit itself could not be synced.
    /// - On a replicated broker [`Error::NotLeader`] and [`Error::NotEnoughReplicas`]: nothing is
    ///   committed. [`Error::LeadershipLost`] and [`Error::Timeout`]: no majority of the members was
    ///   known to have the commit, which may be kept or not.
    /// - [`Error::StorageFull`], [`Error::Io`], [`Error::ReadOnly`], [`Error::Forked`],
    ///   [`Error::Closed`].
    ///
    /// # Durability
    ///
    /// At broker level [`Durability::Sync`](crate::Durability::Sync): on return first the records
    /// and then the commit are on stable storage. At the other levels the commit survives the death
    /// of the process. On a replicated broker a majority of the members has the commit.
    ///
    /// # Blocking
    ///
    /// At broker level `Sync`, for syncs of the disk, which concurrent commits share. On a replicated
    /// broker, for a majority of the members.
    #[doc(alias = "commitSync")]
    pub fn commit(&mut self) -> Result<()> {
        let mut commits = self.poller.assigned_mut().commits();
        let level = commits.level();
        let everything = commits.everything();
        commits.make(&everything, level)
    }

    /// Commits one message **and all messages before it in its partition**, whether or not their work
    /// is done. A higher commit is kept, unless a [`seek`](Self::seek) has moved the position back.
    ///
    /// If several threads work on the messages of one partition, do not call it for each that is
    /// finished: after a crash, earlier ones that were not finished would not be delivered again.
    /// Commit the last message before the first unfinished one: [`InFlight`] finds it.
    ///
    /// # Errors
    ///
    /// - [`Error::Rebalanced`]: the member does not own the partition any more, or has lost it and
    ///   got it back since it read the message, or another member read the message.
    /// - [`Error::UnknownPartition`]: a consumer by [`assign`](crate::ConsumerBuilder::assign) does
    ///   not read the partition.
    /// - [`Error::Truncated`]: the log was cut after a crash; the next poll returns this error too.
    /// - [`Error::Fenced`], [`Error::UnknownTopic`], [`Error::GroupNotEmpty`], [`Error::Config`],
    ///   [`Error::SyncFailed`], [`Error::Poisoned`], [`Error::StorageFull`], [`Error::Io`],
    ///   [`Error::ReadOnly`], [`Error::Corrupt`], [`Error::Forked`], [`Error::Closed`], for the
    ///   reasons that [`commit`](Self::commit) lists.
    ///
    /// # Durability
    ///
    /// At broker level [`Durability::Sync`](crate::Durability::Sync): on return first the records
    /// and then the commit are on stable storage. At the other levels the commit survives the death
    /// of the process. On a replicated broker a majority of the members has the commit.
    ///
    /// # Blocking
    ///
    /// As [`commit`](Self::commit).
    pub fn commit_message(&mut self, message: &Message) -> Result<()> {
        let mut commits = self.poller.assigned_mut().commits();
        let (message, level) = (commits.message(message)?, commits.level());
        commits.make(&message, level)
    }

    /// Commits these offsets. Each is that of the next record to read. It may be lower than the
    /// committed one: the group then reads these records again.
    ///
    /// # Errors
    ///
    /// Nothing is committed after any of these, except after a failed sync:
    ///
    /// - [`Error::Rebalanced`]: the member does not own one of the partitions.
    /// - [`Error::UnknownPartition`]: a consumer by [`assign`](crate::ConsumerBuilder::assign) does
    ///   not read one of the partitions.
    /// - [`Error::OffsetOutOfRange`]: an offset is higher than the log end offset.
    /// - [`Error::NotEnoughReplicas`]: an offset lies above what a majority of a replicated group is
    ///   known to have, and that did not change in time.
    /// - [`Error::Truncated`]: a log was cut after a crash, and the next poll of the partition will
    ///   return this error too.
    /// - [`Error::Corrupt`]: files of one of the partitions are missing or unreadable.
    /// - [`Error::Fenced`], [`Error::UnknownTopic`], [`Error::GroupNotEmpty`], [`Error::Config`],
    ///   [`Error::SyncFailed`], [`Error::Poisoned`], [`Error::StorageFull`], [`Error::Io`],
    ///   [`Error::ReadOnly`], [`Error::Forked`], [`Error::Closed`], for the reasons that
    ///   [`commit`](Self::commit) lists.
    ///
    /// # Durability
    ///
    /// At broker level [`Durability::Sync`](crate::Durability::Sync): on return first the records
    /// and then the commit are on stable storage. At the other levels the commit survives the death
    /// of the process. On a replicated broker a majority of the members has the commit.
    ///
    /// # Blocking
    ///
    /// As [`commit`](Self::commit).
    #[doc(alias = "commitSync")]
    pub fn commit_offsets(&mut self, offsets: &Offsets) -> Result<()> {
        self.poller.assigned_mut().commits().commit(offsets)
    }

    /// Commits all messages that were returned so far, for each partition of the consumer, without
    /// waiting for the disk. Auto mode commits in the same way.
    ///
    /// # Errors
    ///
    /// [`Error::Rebalanced`], [`Error::Fenced`], [`Error::UnknownTopic`],
    /// [`Error::GroupNotEmpty`], [`Error::Config`], [`Error::Poisoned`], [`Error::StorageFull`],
    /// [`Error::Io`], [`Error::ReadOnly`], [`Error::Forked`], [`Error::Closed`], for the reasons
    /// that [`commit`](Self::commit) lists; on a replicated broker [`Error::NotLeader`], and
    /// [`Error::NotEnoughReplicas`] for a position that a majority is not known to have yet.
    ///
    /// # Durability
    ///
    /// On return the commit survives the death of the process. The next background sync makes it
    /// durable.
    ///
    /// # Blocking
    ///
    /// Never for a sync.
    #[doc(alias = "commitAsync")]
    pub fn commit_soon(&mut self) -> Result<()> {
        let mut commits = self.poller.assigned_mut().commits();
        let everything = commits.everything_now();
        commits.make(&everything, CommitWait::No)
    }

    /// Returns the committed offset of the group for a partition, that of the next record to read.
    /// `None` if there is no commit, or no group.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownTopic`], [`Error::Closed`].
    pub fn committed(&self, partition: impl Into<TopicPartition>) -> Result<Option<u64>> {
        self.poller.assigned().committed(&partition.into())
    }

    // ---- positions ---------------------------------------------------------------------------

    /// Sets the position of a partition. The next poll reads from there.
    ///
    /// ```
    /// # use logpond::{Broker, Record, StartAt, TopicConfig};
    /// # use std::time::Duration;
    /// # let broker = Broker::in_memory()?;
    /// # broker.ensure_topic("clicks", TopicConfig::new(1))?;
    /// # for value in ["a", "b", "c"] { broker.producer().send(Record::to("clicks").value(value))?; }
    /// let mut reader = broker.reader().subscribe(["clicks"]).open()?;
    /// reader.seek(("clicks", 0), StartAt::Offset(2))?;
    /// assert_eq!(reader.recv()?.value(), Some(&b"c"[..]));
    ///
    /// reader.seek(("clicks", 0), StartAt::Earliest)?; // also: Latest, Time(..)
    /// assert_eq!(reader.poll(Duration::ZERO)?.len(), 3);
    /// # Ok::<(), logpond::Error>(())
    /// ```
    ///
    /// A [`StartAt::Offset`] that is out of range becomes the nearest end of the log. After a seek
    /// back, [`commit_message`](Self::commit_message) and auto mode may lower the group's committed
    /// offset, down to the position of the seek. If the next poll of the partition would have
    /// returned an error such as [`Error::Truncated`], the error is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownPartition`] if the partition is not assigned to this consumer;
    /// [`Error::NoOffset`] for [`StartAt::Error`]; [`Error::Corrupt`] and [`Error::Io`] if a time
    /// could not be looked up.
    ///
    /// # Blocking
    ///
    /// For the disk with [`StartAt::Time`].
    #[doc(alias = "seekToBeginning")]
    #[doc(alias = "seekToEnd")]
    pub fn seek(&mut self, partition: impl Into<TopicPartition>, to: StartAt) -> Result<()> {
        self.poller.settled().commits().seek(partition, to)
    }

    /// Stops reading these partitions, which the consumer still owns, until [`resume`](Self::resume)
    /// or until it loses them: a partition that comes back later is read.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownPartition`] if one is not assigned; then none is paused.
    pub fn pause<P: Into<TopicPartition>>(
        &mut self,
        partitions: impl IntoIterator<Item = P>,
    ) -> Result<()> {
        self.poller.settled().slots_mut().set_paused(partitions, true)
    }

    /// Reads these partitions again after [`pause`](Self::pause).
    ///
    /// # Errors
    ///
    /// [`Error::UnknownPartition`] if one is not assigned; then none is resumed.
    pub fn resume<P: Into<TopicPartition>>(
        &mut self,
        partitions: impl IntoIterator<Item = P>,
    ) -> Result<()> {
        self.poller.settled().slots_mut().set_paused(partitions, false)
    }

    /// Stops reading all partitions, and those that this consumer gets later, until
    /// [`resume_all`](Self::resume_all). So a member that is busy can poll, which keeps it in its
    /// group and returns no messages.
    pub fn pause_all(&mut self) {
        self.poller.settled().slots_mut().set_all_paused(true);
    }

    /// Reads all partitions again, after [`pause`](Self::pause) and [`pause_all`](Self::pause_all).
    pub fn resume_all(&mut self) {
        self.poller.settled().slots_mut().set_all_paused(false);
    }

    /// Returns the partitions that are paused, sorted.
    #[must_use]
    pub fn paused(&self) -> Vec<TopicPartition> {
        self.poller.assigned().slots().paused()
    }

    /// Reads exactly these partitions from now on, and no others. A partition that was read before
    /// keeps its position; the others begin where [`start`](ConsumerBuilder::start) says, or at the
    /// committed offset. A reader that followed its topics does so no more.
    ///
    /// # Errors
    ///
    /// Nothing is changed after any of them. [`Error::Config`]: the consumer is a member of a group,
    /// which assigns its partitions. [`Error::UnknownTopic`], [`Error::UnknownPartition`]: there is
    /// no such topic or partition. [`Error::NoOffset`]: with [`StartAt::Error`].
    /// [`Error::OffsetOutOfRange`], [`Error::Corrupt`], [`Error::Io`], [`Error::Closed`].
    ///
    /// # Blocking
    ///
    /// For the disk, when positions are looked up by time.
    pub fn assign<P: Into<TopicPartition>>(
        &mut self,
        partitions: impl IntoIterator<Item = P>,
    ) -> Result<()> {
        let partitions = partitions.into_iter().map(Into::into).collect();
        self.poller.settled().assign(partitions)
    }

    /// Returns the offset of the first record that each of these partitions has, or will have; they
    /// need not be read by this consumer.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownTopic`], [`Error::UnknownPartition`], [`Error::Closed`].
    pub fn beginning_offsets<P: Into<TopicPartition>>(
        &self,
        partitions: impl IntoIterator<Item = P>,
    ) -> Result<Offsets> {
        ends(self.poller.assigned().run(), partitions, PartitionCore::log_start)
    }

    /// Returns the offset after the last record of each of these partitions that this consumer's
    /// [`visibility`](ConsumerBuilder::visibility) shows; they need not be read by it.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownTopic`], [`Error::UnknownPartition`], [`Error::Closed`].
    pub fn end_offsets<P: Into<TopicPartition>>(
        &self,
        partitions: impl IntoIterator<Item = P>,
    ) -> Result<Offsets> {
        let visibility = self.poller.assigned().settings().visibility;
        let run = self.poller.assigned().run();
        ends(run, partitions, |core| core.visible_end(visibility))
    }

    /// Returns the offset of the next record that this consumer will return; `None` if it does not
    /// read the partition.
    #[must_use]
    pub fn position(&self, partition: impl Into<TopicPartition>) -> Option<u64> {
        let slots = self.poller.assigned().slots();
        let index = slots.index_of(&partition.into()).ok()?;
        slots.get(index).map(|slot| slot.progress.handed_out())
    }

    /// Returns for each partition of this consumer how many visible offsets it has not returned
    /// yet.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`].
    #[doc(alias = "currentLag")]
    pub fn lag(&self) -> Result<BTreeMap<TopicPartition, u64>> {
        self.poller.check_shutdown()?;
        let visibility = self.poller.assigned().settings().visibility;
        let slots = self.poller.assigned().slots().iter();
        Ok(slots.map(|slot| (slot.origin().clone(), slot.lag(visibility))).collect())
    }

    /// Returns the partitions that this consumer reads now, sorted.
    #[must_use]
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.poller.assigned().slots().partitions()
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("group", &self.poller.assigned().role().group())
            .field("assignment", &self.assignment())
            .field("settings", self.poller.assigned().settings())
            .finish_non_exhaustive()
    }
}

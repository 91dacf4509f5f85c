//! Consumers: records out, by position, alone or as a member of a group.
//!
//! From the bottom up; no part names one above it:
//!
//! | part | what it is for |
//! |---|---|
//! | [`progress`], [`arming`], [`gaps`] | how far one partition is read; the wait there; what was missed |
//! | [`slot`], [`slots`] | one partition as it is read; all of them, and whose turn it is |
//! | [`role`], [`commit`] | what the consumer is to a group; what it may commit |
//! | [`pending`], [`rebalance`], [`auto`], [`subscription`] | partitions without a position; the callback; when auto mode commits; where a group begins |
//! | [`assignment`] | what the consumer has: takes over and gives up |
//! | [`handle`], [`wait`] | what other threads ask; how a call waits |
//! | [`poller`] | the loop of a poll |
//! | this file | the public handle |
//!
//! Must not know: segments and files; a partition hands it checked batches.
//!
//! Invariants:
//! 1. `position` is what was handed out, not what was read ahead.
//! 2. Auto-commit covers only what a LATER poll has passed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use self::assignment::Assigned;
pub use self::builder::ConsumerBuilder;
pub use self::commit::Commits;
pub use self::gaps::Gap;
pub use self::handle::ConsumerHandle;
use self::poller::Poller;
use self::rebalance::Callback;
pub use self::rebalance::Rebalance;
#[cfg(feature = "async")]
pub use self::stream::MessageStream;
use self::wait::Wait;
use crate::broker::Run;
use crate::config::{CommitMode, StartAt, Visibility};
use crate::error::{Error, Result};
use crate::group::commit::Wait as CommitWait;
use crate::message::{Batch, Message};
use crate::record::{Offsets, TopicPartition};

mod arming;
mod assignment;
mod auto;
mod builder;
mod commit;
mod gaps;
mod handle;
mod pending;
mod poller;
mod progress;
mod rebalance;
mod role;
mod slot;
mod slots;
#[cfg(feature = "async")]
mod stream;
mod subscription;
mod wait;

#[derive(Debug, Clone)]
pub(crate) struct Settings {
    start: StartAt,
    out_of_range: StartAt,
    commit: CommitMode,
    visibility: Visibility,
    poll_records: usize,
    poll_bytes: usize,
    /// Damage is skipped, and noted as a gap, instead of returned.
    reads_around_damage: bool,
}

/// Reads records, alone or as a member of a group. It belongs to one thread at a time, which `&mut
/// self` checks; give other threads a [`ConsumerHandle`]. Keeps the broker open.
///
/// ```
/// # use logpond::{Broker, Record, TopicConfig};
/// # use std::time::Duration;
/// # let broker = Broker::in_memory()?;
/// # broker.ensure_topic("emails", TopicConfig::new(4))?;
/// # broker.producer().send(Record::to("emails").key("user-7").value("welcome!"))?;
/// let mut inbox = broker.consumer("mailer").subscribe(["emails"]).open()?;
/// for message in inbox.poll(Duration::from_secs(1))?.iter() {
///     println!("{:?}: {:?}", message.key(), message.value());
/// }
/// inbox.commit()?; // the work is done: these messages are not handed out again
/// inbox.close()?;
/// # Ok::<(), logpond::Error>(())
/// ```
///
/// A consumer that is dropped leaves its group at once, without a commit and without a callback.
/// [`close`](Self::close) commits in auto mode and calls back.
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
        Self { poller: Poller::new(assigned, ConsumerHandle::new(notifier)) }
    }

    // ---- reading -----------------------------------------------------------------------------

    /// Returns the next messages: those that are there, or, if there are none, what arrives within
    /// `timeout`. The batch is empty if nothing has arrived by then. `Duration::ZERO` never waits.
    ///
    /// First the member follows its group's plan: it gives up partitions that are to move, takes
    /// over new ones, and runs the rebalance callback. A member that was evicted joins again.
    ///
    /// # Errors
    ///
    /// - [`Error::Corrupt`]: the next record of a partition is damaged. What precedes it was
    ///   returned before. Returned by every poll until the consumer [seeks](Self::seek) to the end
    ///   of the damaged offsets. For an unavailable partition beside others: returned once.
    /// - [`Error::Truncated`]: a recovery cut the log below the committed offset. Returned once per
    ///   partition; then new records are read, from the cut or the log start, whichever is higher.
    ///   Nothing is committed of the partition before this error was returned.
    /// - [`Error::OffsetOutOfRange`]: the records at the position were removed, and
    ///   [`out_of_range`](ConsumerBuilder::out_of_range) is [`StartAt::Error`].
    /// - [`Error::NoOffset`]: nothing is committed, and [`start`](ConsumerBuilder::start) is
    ///   [`StartAt::Error`].
    /// - [`Error::Fenced`]: a newer consumer has taken the instance id.
    /// - [`Error::UnknownTopic`]: a topic was deleted. Only without a group, or with
    ///   [`assign`](crate::ConsumerBuilder::assign).
    /// - [`Error::Io`]: the disk could not be read.
    /// - [`Error::Closed`]: after [`ConsumerHandle::shutdown`] or [`Broker::close`].
    ///
    /// An error that lasts until the caller acts is returned at once the first time, and again
    /// after other partitions had records; otherwise when `timeout` is over.
    ///
    /// [`Broker::close`]: crate::Broker::close
    ///
    /// # Blocking
    ///
    /// At most `timeout` of real time, without spinning; also for the disk, if the data is not in
    /// memory.
    pub fn poll(&mut self, timeout: Duration) -> Result<Batch> {
        self.poller.poll(&Wait::up_to(timeout))
    }

    /// Waits for the next message and returns it.
    ///
    /// # Errors
    ///
    /// Those of [`poll`](Self::poll). [`Error::Timeout`] if [`ConsumerHandle::wake`] ends the wait.
    ///
    /// # Blocking
    ///
    /// Until there is a message.
    pub fn recv(&mut self) -> Result<Message> {
        match self.poller.next_message(&Wait::Forever)? {
            Some(message) => Ok(message),
            None => Err(Error::Timeout),
        }
    }

    /// Waits for the next message, at most `timeout`. Returns `None` if the time is over first.
    ///
    /// # Errors
    ///
    /// Those of [`poll`](Self::poll).
    ///
    /// # Blocking
    ///
    /// At most `timeout` of real time.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Option<Message>> {
        self.poller.next_message(&Wait::up_to(timeout))
    }

    /// Returns the next message if there is one now.
    ///
    /// # Errors
    ///
    /// Those of [`poll`](Self::poll).
    ///
    /// # Blocking
    ///
    /// Never for messages; for the disk, if the data is not in memory.
    pub fn try_recv(&mut self) -> Result<Option<Message>> {
        self.poller.next_message(&Wait::Never)
    }

    /// Returns an iterator over the messages from here on, which waits for each.
    ///
    /// It ends after [`ConsumerHandle::shutdown`], when the broker is closed, and after an error
    /// that lasts until the caller acts: [`Error::Fenced`], [`Error::UnknownTopic`],
    /// [`Error::Corrupt`], [`Error::OffsetOutOfRange`], [`Error::NoOffset`]. A new iteration reads
    /// the other partitions on.
    ///
    /// # Blocking
    ///
    /// Each `next` until there is a message.
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

    /// The messages from here on, as a stream that any executor can poll. Needs the feature
    /// `async`.
    ///
    /// It ends after [`ConsumerHandle::shutdown`](crate::ConsumerHandle::shutdown) or
    /// [`Broker::close`](crate::Broker::close); a
    /// [`wake`](crate::ConsumerHandle::wake) does nothing to it. An error is an item; the stream
    /// ends after one that [`iter`](Self::iter) ends after, and continues after others.
    ///
    /// # Cancel safety
    ///
    /// A stream can be dropped at any time, and so can a future that waits for its next message:
    /// what was not yielded is yielded by the next stream, `recv` or `poll`. The position moves
    /// only with what was yielded.
    ///
    /// # Time
    ///
    /// A stream has no timer. What falls due with time (the `every` of
    /// [`CommitMode::Auto`](crate::CommitMode::Auto)) is done when the stream is polled, so a
    /// stream that waits for messages does it with the next one. A member whose stream waits is
    /// not evicted, and a message or a rebalance wakes its task. `max_poll_interval` runs while the
    /// stream has messages that nobody asks for, once its task was woken and does not poll it, and
    /// once it is dropped. Whether a task was woken is looked at once per `max_poll_interval`, so
    /// that a task which does not answer is evicted after one to two of them.
    ///
    /// # Blocking
    ///
    /// Polling never waits for messages, nor for a sync; it reads the disk where data is not in
    /// memory. No thread is made.
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

    /// Returns the offsets that this consumer missed since the last call, and forgets them.
    ///
    /// Gaps are reported at least once: by the first poll that reaches them, and again after a
    /// consumer resumes from an older commit. Adjacent gaps of a partition are one range. A
    /// partition keeps at most 1,024 ranges: then its two oldest are joined, with what was read
    /// between them. Call this more often if you need each range.
    pub fn take_gaps(&mut self) -> Vec<Gap> {
        self.poller.assigned_mut().take_gaps()
    }

    /// Returns a handle by which other threads can wake this consumer or shut it down.
    #[must_use]
    pub fn handle(&self) -> ConsumerHandle {
        self.poller.handle().clone()
    }

    /// Leaves the group. In auto mode the consumer first commits what later polls have passed; then
    /// the rebalance callback is called with [`Rebalance::Revoked`]. The partitions of a static
    /// member are kept for it.
    ///
    /// # Errors
    ///
    /// Only in auto mode, and those of [`commit`](Self::commit). The consumer leaves the group all
    /// the same.
    ///
    /// # Durability
    ///
    /// In auto mode at broker level [`Durability::Sync`](crate::Durability::Sync): on return the
    /// commit is on stable storage.
    ///
    /// # Blocking
    ///
    /// In auto mode at broker level `Sync`, for a sync of the disk. Also for the callback.
    pub fn close(mut self) -> Result<()> {
        self.poller.settled().give_up_everything()
    }

    // ---- commits -----------------------------------------------------------------------------

    /// Commits everything that was handed out, for each assigned partition. The committed offset is
    /// the next one to read. A partition is left out while a poll has yet to return its
    /// [`Error::Truncated`] or to report a [`Gap`](super::Gap).
    ///
    /// # Errors
    ///
    /// - [`Error::Rebalanced`]: the member does not own one of the partitions any more. Nothing is
    ///   committed; the next poll follows the new plan.
    /// - [`Error::Fenced`]: a newer consumer has taken the instance id.
    /// - [`Error::UnknownTopic`]: a topic was deleted since the member's last poll, or everything
    ///   that a consumer by [`assign`](crate::ConsumerBuilder::assign) reads.
    /// - [`Error::GroupNotEmpty`]: a consumer by `assign`, while the group has live members.
    /// - [`Error::Config`]: a reader without a group.
    /// - [`Error::SyncFailed`], [`Error::Poisoned`]: the records of a partition could not be
    ///   synced; the other partitions are committed. Or the commit itself could not.
    /// - [`Error::StorageFull`], [`Error::Io`], [`Error::ReadOnly`], [`Error::Forked`],
    ///   [`Error::Closed`].
    ///
    /// # Durability
    ///
    /// At broker level [`Durability::Sync`](crate::Durability::Sync): on return first the records
    /// and then the commit are on stable storage. At the other levels the commit survives the death
    /// of the process.
    ///
    /// # Blocking
    ///
    /// At broker level `Sync`, for syncs of the disk, which concurrent commits share.
    #[doc(alias = "commitSync")]
    pub fn commit(&mut self) -> Result<()> {
        let mut commits = self.poller.assigned_mut().commits();
        let level = commits.level();
        commits.commit_handed_out(level)
    }

    /// Commits one message and everything before it in its partition. A higher commit is never
    /// taken back, unless a [`seek`](Self::seek) moved the position back: a message that is handled
    /// out of turn does not undo a later one.
    ///
    /// # Errors
    ///
    /// - [`Error::Rebalanced`]: the member does not own the partition any more, or has not read the
    ///   message itself since it owns it.
    /// - [`Error::UnknownPartition`]: a consumer by [`assign`](crate::ConsumerBuilder::assign) does
    ///   not read it.
    /// - [`Error::Truncated`]: a poll has yet to return this error of the partition.
    /// - All others of [`commit`](Self::commit).
    ///
    /// # Durability
    ///
    /// At broker level [`Durability::Sync`](crate::Durability::Sync): on return first the records
    /// and then the commit are on stable storage. At the other levels the commit survives the death
    /// of the process.
    ///
    /// # Blocking
    ///
    /// At broker level `Sync`, for syncs of the disk, which concurrent commits share.
    pub fn commit_message(&mut self, message: &Message) -> Result<()> {
        self.poller.assigned_mut().commits().commit_message(message)
    }

    /// Commits these offsets, each the next one to read. They may be lower than what is committed:
    /// the group then reads again.
    ///
    /// # Errors
    ///
    /// Nothing is committed after any of them, except after a failed sync:
    ///
    /// - [`Error::Rebalanced`]: the member does not own one of the partitions.
    /// - [`Error::UnknownPartition`]: a consumer by [`assign`](crate::ConsumerBuilder::assign) does
    ///   not read one.
    /// - [`Error::OffsetOutOfRange`]: an offset lies beyond the log end.
    /// - [`Error::Truncated`]: a poll has yet to return this error of one of the partitions.
    /// - [`Error::Corrupt`]: one of the partitions is unavailable.
    /// - All others of [`commit`](Self::commit).
    ///
    /// # Durability
    ///
    /// At broker level [`Durability::Sync`](crate::Durability::Sync): on return first the records
    /// and then the commit are on stable storage. At the other levels the commit survives the death
    /// of the process.
    ///
    /// # Blocking
    ///
    /// At broker level `Sync`, for syncs of the disk, which concurrent commits share.
    #[doc(alias = "commitSync")]
    pub fn commit_offsets(&mut self, offsets: &Offsets) -> Result<()> {
        self.poller.assigned_mut().commits().commit(offsets)
    }

    /// Commits everything that was handed out, as [`commit`](Self::commit) does, without waiting
    /// for the disk. Auto mode commits like this.
    ///
    /// # Errors
    ///
    /// Those of [`commit`](Self::commit), except of syncs.
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
        self.poller.assigned_mut().commits().commit_handed_out(CommitWait::No)
    }

    /// Returns what the group has committed for a partition: the next offset to read. `None` if
    /// nothing, or without a group.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownTopic`], [`Error::Closed`].
    pub fn committed(&self, partition: impl Into<TopicPartition>) -> Result<Option<u64>> {
        self.poller.assigned().committed(&partition.into())
    }

    // ---- positions ---------------------------------------------------------------------------

    /// Moves the position of a partition. The next poll reads there.
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
    /// A [`StartAt::Offset`] out of range goes to the nearest end. Later commits may follow the
    /// position back, but not below where it went. An error that the next poll of the partition
    /// would return, such as [`Error::Truncated`], is dropped: the caller has said where to read.
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
        self.poller.settled().seek(&partition.into(), to)
    }

    /// Stops reading these partitions. The consumer still owns them.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownPartition`] if one is not assigned; then none is paused.
    pub fn pause<P: Into<TopicPartition>>(
        &mut self,
        partitions: impl IntoIterator<Item = P>,
    ) -> Result<()> {
        self.set_paused(partitions, true)
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
        self.set_paused(partitions, false)
    }

    fn set_paused<P: Into<TopicPartition>>(
        &mut self,
        partitions: impl IntoIterator<Item = P>,
        is_paused: bool,
    ) -> Result<()> {
        let slots = self.poller.settled().slots_mut();
        let indexes = partitions.into_iter().map(|partition| slots.index_of(&partition.into()));
        for index in indexes.collect::<Result<Vec<_>>>()? {
            if let Some(slot) = slots.get_mut(index) {
                slot.set_paused(is_paused);
            }
        }
        Ok(())
    }

    /// Returns the offset of the next record to be handed out; `None` if the partition is not
    /// assigned.
    #[must_use]
    pub fn position(&self, partition: impl Into<TopicPartition>) -> Option<u64> {
        let slots = self.poller.assigned().slots();
        let index = slots.index_of(&partition.into()).ok()?;
        slots.get(index).map(|slot| slot.progress.handed_out())
    }

    /// Returns for each assigned partition how many visible offsets were not handed out yet.
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

    /// Returns the partitions that this consumer reads now, in order.
    #[must_use]
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.poller.assigned().slots().partitions()
    }
}

/// Whether an error is met again until the caller does something about it. An iteration ends with
/// it, since its caller can do nothing in between.
fn lasts(error: &Error) -> bool {
    matches!(
        error,
        Error::Fenced { .. }
            | Error::Forked
            | Error::UnknownTopic(_)
            | Error::Corrupt(_)
            | Error::OffsetOutOfRange { .. }
            | Error::NoOffset(_)
    )
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

//! A consumer in a task: the calls of it that wait, as futures for any executor.
//!
//! Owns: nothing; it is a view of one consumer. Must not know: executors and timers. A future waits
//! by leaving a waker: for records with the consumer's notifier, for syncs at the gate of a
//! partition. So none blocks its thread, and the consumer has no state of a future that was dropped.

use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use super::Consumer;
use super::commit::Wanted;
use super::handle::ConsumerHandle;
use super::poller::Poller;
use super::wait::Wait;
use crate::error::{Error, Result};
use crate::message::{Batch, Message};
use crate::partition::durable_wait::DurableWait;
use crate::record::Offsets;

/// A [`Consumer`] whose waiting calls are futures, for any executor; made by
/// [`Consumer::in_async`]. Needs the feature `async`.
///
/// The loop of a worker, "next, work, commit":
///
/// ```
/// # use logpond::{Broker, Error, Message, Record, TopicConfig};
/// # async fn deliver(_message: &Message) {}
/// # pollster::block_on(async {
/// # let broker = Broker::in_memory()?;
/// # broker.ensure_topic("emails", TopicConfig::new(1))?;
/// # broker.producer().send(Record::to("emails").value("welcome!"))?;
/// let mut consumer = broker.consumer("mailer").subscribe(["emails"]).open()?;
/// # let stop = consumer.handle();
/// let worker = async move {
///     let mut inbox = consumer.in_async();
///     loop {
///         let message = match inbox.recv().await {
///             Err(Error::Closed) => break, // after `ConsumerHandle::shutdown` or `Broker::close`
///             received => received?,
///         };
///         deliver(&message).await;
///         match inbox.commit_message(&message).await {
///             Err(Error::Rebalanced { .. }) => {} // its next owner does it again
///             committed => committed?, // only now is this message done
///         }
/// #       stop.shutdown();
///     }
/// #   assert_eq!(consumer.committed(("emails", 0))?, Some(1));
///     // An async block has to name the error of its `?`, which an `async fn` does by its signature.
///     Ok::<_, Error>(())
/// };
/// worker.await?; // or `tokio::spawn(worker)`
/// # Ok::<(), logpond::Error>(())
/// # }).unwrap();
/// ```
///
/// The view borrows the consumer. For a task, move the consumer into it and make the view there, as
/// above.
///
/// # Time
///
/// A future has no timer: put it into the timeout of your executor. A member that waits in
/// [`recv`](Self::recv) or [`poll`](Self::poll) is not evicted. `max_poll_interval` counts while
/// there is no such call, and from when its task was woken until it polls the future.
///
/// # Blocking
///
/// No future waits for messages or for a sync in its thread. Polling one reads the disk if data is
/// not in memory, and runs the rebalance callback. No thread is started.
pub struct AsyncConsumer<'a> {
    consumer: &'a mut Consumer,
}

impl<'a> AsyncConsumer<'a> {
    pub(super) fn new(consumer: &'a mut Consumer) -> Self {
        Self { consumer }
    }

    /// Waits for the next message and returns it.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] if [`ConsumerHandle::wake`] ends the wait; [`Error::Closed`] after
    /// [`ConsumerHandle::shutdown`] or [`Broker::close`](crate::Broker::close). The others are those
    /// of [`Consumer::poll`].
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped at any time, for example by a `select!` or a timeout, and no
    /// message is lost: only a message that it has returned moves the position.
    pub async fn recv(&mut self) -> Result<Message> {
        let mut waiting = Waiting(&mut self.consumer.poller);
        poll_fn(|context| waiting.poll_message(context.waker())).await
    }

    /// Waits until there are messages, and returns all that are there, within the limits of
    /// [`max_poll_records`](crate::ConsumerBuilder::max_poll_records) and
    /// [`max_poll_bytes`](crate::ConsumerBuilder::max_poll_bytes). The batch is empty only if
    /// [`ConsumerHandle::wake`] ended the wait.
    ///
    /// # Errors
    ///
    /// Those of [`Consumer::poll`]. [`Error::Closed`] after [`ConsumerHandle::shutdown`] or
    /// [`Broker::close`](crate::Broker::close).
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped at any time, and no message is lost: only messages that it has
    /// returned move the position.
    pub async fn poll(&mut self) -> Result<Batch> {
        let mut waiting = Waiting(&mut self.consumer.poller);
        poll_fn(|context| waiting.poll_batch(context.waker())).await
    }

    /// Commits all messages that were returned so far, for each partition of the consumer, as
    /// [`Consumer::commit`] does.
    ///
    /// # Errors
    ///
    /// Those of [`Consumer::commit`].
    ///
    /// # Durability
    ///
    /// At broker level [`Durability::Sync`](crate::Durability::Sync) the future resolves when first
    /// the records and then the commit are on stable storage. At the other levels it resolves at
    /// once, and the commit survives the death of the process. The syncs are made by the broker's
    /// background threads; without these, by [`Broker::tick`](crate::Broker::tick).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it has resolved, the commit may or may not be made.
    pub async fn commit(&mut self) -> Result<()> {
        let wanted = self.consumer.poller.assigned_mut().commits().everything();
        commit(&mut self.consumer.poller, wanted).await
    }

    /// Commits one message and all messages before it in its partition, as
    /// [`Consumer::commit_message`] does.
    ///
    /// # Errors
    ///
    /// Those of [`Consumer::commit_message`].
    ///
    /// # Durability
    ///
    /// At broker level [`Durability::Sync`](crate::Durability::Sync) the future resolves when first
    /// the records and then the commit are on stable storage. At the other levels it resolves at
    /// once, and the commit survives the death of the process.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it has resolved, the commit may or may not be made.
    pub async fn commit_message(&mut self, message: &Message) -> Result<()> {
        let wanted = self.consumer.poller.assigned_mut().commits().message(message)?;
        commit(&mut self.consumer.poller, wanted).await
    }

    /// Commits these offsets, as [`Consumer::commit_offsets`] does.
    ///
    /// # Errors
    ///
    /// Those of [`Consumer::commit_offsets`].
    ///
    /// # Durability
    ///
    /// At broker level [`Durability::Sync`](crate::Durability::Sync) the future resolves when first
    /// the records and then the commit are on stable storage. At the other levels it resolves at
    /// once, and the commit survives the death of the process.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it has resolved, the commit may or may not be made.
    pub async fn commit_offsets(&mut self, offsets: &Offsets) -> Result<()> {
        let wanted = self.consumer.poller.assigned_mut().commits().offsets(offsets)?;
        commit(&mut self.consumer.poller, wanted).await
    }

    /// Returns a handle by which other tasks and threads can wake this consumer or shut it down.
    #[must_use]
    pub fn handle(&self) -> ConsumerHandle {
        self.consumer.handle()
    }

    /// Returns the consumer that this one uses, for example to seek, to pause or for the lag.
    pub fn inner(&mut self) -> &mut Consumer {
        self.consumer
    }
}

impl fmt::Debug for AsyncConsumer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncConsumer").field("consumer", &self.consumer).finish()
    }
}

/// A task that waits for records. When it is dropped, the task may have ended: its waker must not be
/// kept, and the member must not count as one that waits.
struct Waiting<'a>(&'a mut Poller);

impl Waiting<'_> {
    fn poll_message(&mut self, waker: &Waker) -> Poll<Result<Message>> {
        match self.0.next_message(&Wait::Task { waker, is_woken_by_call: true }) {
            Ok(None) if self.0.was_woken() => Poll::Ready(Err(Error::Timeout)),
            Ok(None) => Poll::Pending,
            Ok(Some(message)) => Poll::Ready(Ok(message)),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn poll_batch(&mut self, waker: &Waker) -> Poll<Result<Batch>> {
        match self.0.poll(&Wait::Task { waker, is_woken_by_call: true }) {
            Ok(batch) if batch.is_empty() && !self.0.was_woken() => Poll::Pending,
            polled => Poll::Ready(polled),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.end_task();
    }
}

#[cfg(feature = "testing")]
async fn commit(poller: &mut Poller, wanted: Wanted) -> Result<()> {
    let call = poller.assigned_mut().commits().seen_wanted(&wanted);
    let result = match call.begin() {
        Ok(after) => after.end(commit_now(poller, wanted).await),
        Err(error) => Err(error),
    };
    call.end(result)
}

#[cfg(not(feature = "testing"))]
use self::commit_now as commit;

/// Commits, and resolves when the commit is as durable as the broker's level says. The records
/// first: see [`group::commit`](crate::group::commit).
async fn commit_now(poller: &mut Poller, mut wanted: Wanted) -> Result<()> {
    let waits = poller.assigned_mut().commits().waits(&mut wanted)?;
    let durable = each(waits).await;
    let (failed, stored) = poller.assigned_mut().commits().store_after(wanted, durable)?;
    let stored = each(stored.into_iter().collect()).await.into_iter().collect::<Result<()>>();
    failed.and(stored)
}

/// The results of all waits, in their order.
async fn each(waits: Vec<DurableWait>) -> Vec<Result<()>> {
    let mut waits: Vec<_> = waits.into_iter().map(|wait| (wait, None)).collect();
    poll_fn(|context: &mut Context<'_>| {
        for (wait, result) in waits.iter_mut().filter(|(_, result)| result.is_none()) {
            *result = wait.poll(context.waker());
        }
        let is_over = waits.iter().all(|(_, result)| result.is_some());
        if is_over { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    waits.into_iter().filter_map(|(_, result)| result).collect()
}

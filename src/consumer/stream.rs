//! A consumer as a stream of messages, for any executor.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::Consumer;
use super::failure::lasts;
use super::handle::ConsumerHandle;
use super::in_async::AsyncConsumer;
use super::wait::Wait;
use crate::error::{Error, Result};
use crate::message::Message;
use crate::record::Offsets;

/// The messages of a [`Consumer`], made by [`Consumer::stream`]; or by [`Consumer::into_stream`],
/// which is `'static`, for a response that outlives its handler (server-sent events, a websocket) or
/// a task of its own.
///
/// Between two messages it commits and gives a handle:
///
/// ```
/// # use logpond::{Broker, MessageStream, Record, TopicConfig};
/// # use std::{future::poll_fn, pin::Pin};
/// # use futures_core::Stream;
/// # pollster::block_on(async {
/// # let broker = Broker::in_memory()?;
/// # broker.ensure_topic("emails", TopicConfig::new(1))?;
/// # broker.producer().send(Record::to("emails").value("welcome!"))?;
/// # let consumer = broker.consumer("mailer").subscribe(["emails"]).open()?;
/// let mut inbox: MessageStream<'static> = consumer.into_stream();
/// let stop = inbox.handle(); // ends the stream: `stop.shutdown()`
/// // `inbox.next().await` with any crate that has `StreamExt`.
/// while let Some(message) = poll_fn(|context| Pin::new(&mut inbox).poll_next(context)).await {
///     let message = message?;
///     println!("{:?}", message.value());
///     inbox.commit_message(&message).await?;
/// #   stop.shutdown();
/// }
/// # Ok::<(), logpond::Error>(())
/// # }).unwrap();
/// ```
#[must_use = "a stream does nothing unless it is polled"]
pub struct MessageStream<'a> {
    consumer: Source<'a>,
    /// An error that lasts was yielded.
    is_over: bool,
}

enum Source<'a> {
    Lent(&'a mut Consumer),
    Own(Box<Consumer>),
}

impl Source<'_> {
    fn get(&mut self) -> &mut Consumer {
        match self {
            Self::Lent(consumer) => consumer,
            Self::Own(consumer) => consumer,
        }
    }

    fn shown(&self) -> &Consumer {
        match self {
            Self::Lent(consumer) => consumer,
            Self::Own(consumer) => consumer,
        }
    }
}

impl<'a> MessageStream<'a> {
    pub(super) fn new(consumer: &'a mut Consumer) -> Self {
        Self { consumer: Source::Lent(consumer), is_over: false }
    }

    pub(super) fn owning(consumer: Consumer) -> MessageStream<'static> {
        MessageStream { consumer: Source::Own(Box::new(consumer)), is_over: false }
    }

    /// Commits all messages that the consumer has returned so far, as
    /// [`AsyncConsumer::commit`] does.
    ///
    /// # Errors
    ///
    /// Those of [`Consumer::commit`].
    ///
    /// # Durability
    ///
    /// At broker level [`Durability::Sync`](crate::Durability::Sync) the future resolves when first
    /// the records and then the commit are on stable storage.
    pub async fn commit(&mut self) -> Result<()> {
        self.in_async().commit().await
    }

    /// Commits one message and all messages before it in its partition, as
    /// [`AsyncConsumer::commit_message`] does.
    ///
    /// # Errors
    ///
    /// Those of [`Consumer::commit_message`].
    ///
    /// # Durability
    ///
    /// At broker level [`Durability::Sync`](crate::Durability::Sync) the future resolves when first
    /// the records and then the commit are on stable storage.
    pub async fn commit_message(&mut self, message: &Message) -> Result<()> {
        self.in_async().commit_message(message).await
    }

    /// Commits these offsets, as [`AsyncConsumer::commit_offsets`] does.
    ///
    /// # Errors
    ///
    /// Those of [`Consumer::commit_offsets`].
    ///
    /// # Durability
    ///
    /// At broker level [`Durability::Sync`](crate::Durability::Sync) the future resolves when first
    /// the records and then the commit are on stable storage.
    pub async fn commit_offsets(&mut self, offsets: &Offsets) -> Result<()> {
        self.in_async().commit_offsets(offsets).await
    }

    /// Returns a handle by which other tasks and threads can end the stream.
    #[must_use]
    pub fn handle(&self) -> ConsumerHandle {
        self.consumer.shown().handle()
    }

    /// Returns the consumer of which these are the messages, for example to seek, to pause or for
    /// the lag. The next message is that of the consumer's position.
    pub fn inner(&mut self) -> &mut Consumer {
        self.consumer.get()
    }

    fn in_async(&mut self) -> AsyncConsumer<'_> {
        self.consumer.get().in_async()
    }
}

impl Stream for MessageStream<'_> {
    type Item = Result<Message>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let wait = Wait::Task { waker: context.waker(), is_woken_by_call: false };
        match self.inner().poller.next_message(&wait) {
            Ok(Some(message)) => Poll::Ready(Some(Ok(message))),
            Ok(None) => Poll::Pending,
            Err(Error::Closed) => Poll::Ready(None),
            Err(error) => {
                self.is_over = lasts(&error);
                Poll::Ready(Some(Err(error)))
            }
        }
    }
}

impl Drop for MessageStream<'_> {
    fn drop(&mut self) {
        self.inner().poller.end_task();
    }
}

impl fmt::Debug for MessageStream<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageStream").field("consumer", self.consumer.shown()).finish()
    }
}

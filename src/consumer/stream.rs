//! A consumer as a stream of messages, for any executor.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::wait::Wait;
use super::{Consumer, lasts};
use crate::error::{Error, Result};
use crate::message::Message;

impl Consumer {
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
    pub fn stream(&mut self) -> MessageStream<'_> {
        MessageStream { consumer: self, is_over: false }
    }
}

/// The messages of a [`Consumer`], made by [`Consumer::stream`].
#[must_use = "a stream does nothing unless it is polled"]
pub struct MessageStream<'a> {
    consumer: &'a mut Consumer,
    /// An error that lasts was yielded.
    is_over: bool,
}

impl Stream for MessageStream<'_> {
    type Item = Result<Message>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let next = self.consumer.next_message(&Wait::Task(context.waker()));
        match next {
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
    /// The task may be gone for good: it must not be kept, nor count as one that waits.
    fn drop(&mut self) {
        self.consumer.notifier.forget_waker();
        self.consumer.note_poll();
    }
}

impl fmt::Debug for MessageStream<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageStream").field("consumer", &self.consumer).finish()
    }
}

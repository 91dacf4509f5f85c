//! A consumer as a stream of messages, for any executor.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::wait::Wait;
use super::{Consumer, lasts};
use crate::error::{Error, Result};
use crate::message::Message;

/// The messages of a [`Consumer`], made by [`Consumer::stream`].
#[must_use = "a stream does nothing unless it is polled"]
pub struct MessageStream<'a> {
    consumer: &'a mut Consumer,
    /// An error that lasts was yielded.
    is_over: bool,
}

impl<'a> MessageStream<'a> {
    pub(super) fn new(consumer: &'a mut Consumer) -> Self {
        Self { consumer, is_over: false }
    }
}

impl Stream for MessageStream<'_> {
    type Item = Result<Message>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let next = self.consumer.poller.next_message(&Wait::Task(context.waker()));
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
    /// The task may have ended: it must not be kept, nor count as one that waits.
    fn drop(&mut self) {
        self.consumer.poller.handle().notifier().forget_waker();
        self.consumer.poller.assigned().role().note_poll();
    }
}

impl fmt::Debug for MessageStream<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageStream").field("consumer", &self.consumer).finish()
    }
}

//! A consumer of values in a task: futures and a stream.
//!
//! Owns: the decoding of what they yield. Must not know: how a task waits.

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::message::TypedMessage;
use crate::codec::{Bincode, Codec};
use crate::consumer::{AsyncConsumer, Consumer, ConsumerHandle, MessageStream};
use crate::error::Result;
use crate::message::Message;
use crate::record::Offsets;

/// A [`TypedConsumer`](crate::TypedConsumer) whose waiting calls are futures, for any executor; made
/// by its `in_async`. Needs the feature `async`. [`AsyncConsumer`] has the details, and the loop of
/// a worker.
///
/// ```
/// # use logpond::{Broker, TopicConfig};
/// # pollster::block_on(async {
/// # let broker = Broker::in_memory()?;
/// # broker.ensure_topic("readings", TopicConfig::new(1))?;
/// # broker.producer().typed::<(u64, f64)>("readings").send(&(1, 21.5))?;
/// let mut feed = broker.consumer("plot").subscribe(["readings"]).open_typed::<(u64, f64)>()?;
/// let message = feed.in_async().recv().await?;
/// assert_eq!(message.value.as_ref().unwrap(), &Some((1, 21.5)));
/// feed.in_async().commit_message(&message).await?;
/// # Ok::<(), logpond::Error>(())
/// # }).unwrap();
/// ```
pub struct AsyncTypedConsumer<'a, T, C = Bincode> {
    consumer: AsyncConsumer<'a>,
    codec: Arc<C>,
    values: PhantomData<fn() -> T>,
}

impl<'a, T, C: Codec<T>> AsyncTypedConsumer<'a, T, C> {
    pub(super) fn new(consumer: AsyncConsumer<'a>, codec: &Arc<C>) -> Self {
        Self { consumer, codec: Arc::clone(codec), values: PhantomData }
    }

    /// Waits for the next message and returns it, as [`AsyncConsumer::recv`] does.
    ///
    /// # Errors
    ///
    /// Those of [`AsyncConsumer::recv`]. A value that cannot be decoded is not one: it is in
    /// [`TypedMessage::value`].
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped at any time, and no message is lost.
    pub async fn recv(&mut self) -> Result<TypedMessage<T>> {
        let raw = self.consumer.recv().await?;
        Ok(TypedMessage::decode(&*self.codec, raw))
    }

    /// Waits until there are messages, and returns all that are there, as [`AsyncConsumer::poll`]
    /// does.
    ///
    /// # Errors
    ///
    /// Those of [`AsyncConsumer::poll`]. A value that cannot be decoded is not one: it is in
    /// [`TypedMessage::value`].
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped at any time, and no message is lost.
    pub async fn poll(&mut self) -> Result<Vec<TypedMessage<T>>> {
        let batch = self.consumer.poll().await?;
        Ok(batch.into_iter().map(|raw| TypedMessage::decode(&*self.codec, raw)).collect())
    }

    /// Commits all messages that were returned so far, as [`AsyncConsumer::commit`] does.
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
        self.consumer.commit().await
    }

    /// Commits one message, typed or [raw](TypedMessage::raw), and all messages before it in its
    /// partition, as [`AsyncConsumer::commit_message`] does.
    ///
    /// # Errors
    ///
    /// Those of [`Consumer::commit_message`].
    ///
    /// # Durability
    ///
    /// At broker level [`Durability::Sync`](crate::Durability::Sync) the future resolves when first
    /// the records and then the commit are on stable storage.
    pub fn commit_message<M: AsRef<Message>>(
        &mut self,
        message: &M,
    ) -> impl Future<Output = Result<()>> {
        self.consumer.commit_message(message.as_ref())
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
        self.consumer.commit_offsets(offsets).await
    }

    /// Returns a handle by which other tasks and threads can wake this consumer or shut it down.
    #[must_use]
    pub fn handle(&self) -> ConsumerHandle {
        self.consumer.handle()
    }

    /// Returns the consumer that this one uses, for example to seek, to pause or for the lag.
    pub fn inner(&mut self) -> &mut Consumer {
        self.consumer.inner()
    }
}

impl<T, C> fmt::Debug for AsyncTypedConsumer<'_, T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncTypedConsumer")
            .field("consumer", &self.consumer)
            .finish_non_exhaustive()
    }
}

/// The messages of a [`TypedConsumer`](crate::TypedConsumer), made by its `stream` and
/// `into_stream`. Between two messages it commits and gives a handle, as [`MessageStream`] does.
#[must_use = "a stream does nothing unless it is polled"]
pub struct TypedStream<'a, T, C = Bincode> {
    messages: MessageStream<'a>,
    codec: Arc<C>,
    values: PhantomData<fn() -> T>,
}

impl<'a, T, C: Codec<T>> TypedStream<'a, T, C> {
    pub(super) fn new(messages: MessageStream<'a>, codec: &Arc<C>) -> Self {
        Self { messages, codec: Arc::clone(codec), values: PhantomData }
    }

    /// Commits all messages that the consumer has returned so far, as [`AsyncConsumer::commit`]
    /// does.
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
        self.messages.commit().await
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
    pub fn commit_message<M: AsRef<Message>>(
        &mut self,
        message: &M,
    ) -> impl Future<Output = Result<()>> {
        self.messages.commit_message(message.as_ref())
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
        self.messages.commit_offsets(offsets).await
    }

    /// Returns a handle by which other tasks and threads can end the stream.
    #[must_use]
    pub fn handle(&self) -> ConsumerHandle {
        self.messages.handle()
    }

    /// Returns the consumer of which these are the messages, for example to seek, to pause or for
    /// the lag.
    pub fn inner(&mut self) -> &mut Consumer {
        self.messages.inner()
    }
}

impl<T, C: Codec<T>> Stream for TypedStream<'_, T, C> {
    type Item = Result<TypedMessage<T>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = Pin::new(&mut self.messages).poll_next(context);
        next.map(|next| next.map(|raw| Ok(TypedMessage::decode(&*self.codec, raw?))))
    }
}

impl<T, C> fmt::Debug for TypedStream<'_, T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedStream").field("messages", &self.messages).finish_non_exhaustive()
    }
}

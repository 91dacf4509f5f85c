//! A consumer of values.
//!
//! Owns: the decoding after a read. Must not know: how values are sent.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "async")]
use super::in_async::{AsyncTypedConsumer, TypedStream};
use super::message::TypedMessage;
use crate::codec::{Bincode, Codec};
use crate::config::StartAt;
use crate::consumer::{Consumer, ConsumerBuilder, ConsumerHandle, Gap};
use crate::error::Result;
use crate::message::Message;
use crate::record::{Offsets, TopicPartition};

impl ConsumerBuilder {
    /// Opens a consumer of values that [`Bincode`] encoded.
    ///
    /// # Errors
    ///
    /// Those that [`open`](Self::open) lists.
    ///
    /// # Blocking
    ///
    /// For the disk, when positions are looked up, and for a sync when a group subscribes to a name
    /// or pattern for the first time.
    pub fn open_typed<T>(self) -> Result<TypedConsumer<T>>
    where
        Bincode: Codec<T>,
    {
        self.open_typed_with(Bincode)
    }

    /// Opens a consumer of values, with a codec of your choice.
    ///
    /// # Errors
    ///
    /// Those that [`open`](Self::open) lists.
    ///
    /// # Blocking
    ///
    /// For the disk, when positions are looked up, and for a sync when a group subscribes to a name
    /// or pattern for the first time.
    pub fn open_typed_with<T, C: Codec<T>>(self, codec: C) -> Result<TypedConsumer<T, C>> {
        let codec = Arc::new(codec);
        Ok(TypedConsumer { consumer: self.open()?, codec, values: PhantomData })
    }
}

/// A [`Consumer`] that decodes values of one type; made by [`ConsumerBuilder::open_typed`].
/// [`inner`](Self::inner) borrows the consumer, for example to pause.
///
/// ```
/// # use logpond::{Broker, TopicConfig};
/// # let broker = Broker::in_memory()?;
/// # broker.ensure_topic("readings", TopicConfig::new(1))?;
/// # broker.producer().typed::<(u64, f64)>("readings").send(&(1, 21.5))?;
/// let mut feed = broker.consumer("plot").subscribe(["readings"]).open_typed::<(u64, f64)>()?;
/// let message = feed.recv()?;
/// match &message.value {
///     Ok(Some(reading)) => println!("{reading:?}"),
///     Ok(None) => println!("deleted"),
///     Err(error) => eprintln!("offset {}: {error}", message.raw.offset()),
/// }
/// feed.commit_message(&message)?;
/// # Ok::<(), logpond::Error>(())
/// ```
pub struct TypedConsumer<T, C = Bincode> {
    consumer: Consumer,
    codec: Arc<C>,
    values: PhantomData<fn() -> T>,
}

impl<T, C: Codec<T>> TypedConsumer<T, C> {
    /// Returns the next messages. If there are none, waits for them, at most `timeout`; if none has
    /// arrived by then, the result is empty.
    ///
    /// # Errors
    ///
    /// Those that [`Consumer::poll`] lists. A value that cannot be decoded is not an error of this
    /// call: it is in [`TypedMessage::value`].
    ///
    /// # Blocking
    ///
    /// At most `timeout` of real time, without spinning; also for the disk, if the data is not in
    /// memory.
    pub fn poll(&mut self, timeout: Duration) -> Result<Vec<TypedMessage<T>>> {
        let batch = self.consumer.poll(timeout)?;
        Ok(batch.into_iter().map(|raw| TypedMessage::decode(&*self.codec, raw)).collect())
    }

    /// Waits for the next message and returns it.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`](crate::Error::Timeout) if [`ConsumerHandle::wake`] ends the wait, and
    /// those that [`Consumer::poll`] lists.
    ///
    /// # Blocking
    ///
    /// Until there is a message.
    pub fn recv(&mut self) -> Result<TypedMessage<T>> {
        let raw = self.consumer.recv()?;
        Ok(TypedMessage::decode(&*self.codec, raw))
    }

    /// Waits for the next message, at most `timeout`. Returns `None` if the time is over first.
    ///
    /// # Errors
    ///
    /// Those that [`Consumer::poll`] lists.
    ///
    /// # Blocking
    ///
    /// At most `timeout` of real time.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Option<TypedMessage<T>>> {
        let raw = self.consumer.recv_timeout(timeout)?;
        Ok(raw.map(|raw| TypedMessage::decode(&*self.codec, raw)))
    }

    /// Returns the next message if there is one now.
    ///
    /// # Errors
    ///
    /// Those that [`Consumer::poll`] lists.
    pub fn try_recv(&mut self) -> Result<Option<TypedMessage<T>>> {
        let raw = self.consumer.try_recv()?;
        Ok(raw.map(|raw| TypedMessage::decode(&*self.codec, raw)))
    }

    /// Returns an iterator over the messages from the position on. Each `next` waits for a message.
    /// It ends after [`ConsumerHandle::shutdown`], when the broker is closed, and after an error
    /// that repeats until the caller acts ([`Consumer::iter`] lists these).
    ///
    /// # Blocking
    ///
    /// Each `next` until there is a message.
    pub fn iter(&mut self) -> impl Iterator<Item = Result<TypedMessage<T>>> {
        let (consumer, codec) = (&mut self.consumer, &*self.codec);
        consumer.iter().map(|raw| Ok(TypedMessage::decode(codec, raw?)))
    }
}

#[cfg(feature = "async")]
impl<T, C: Codec<T>> TypedConsumer<T, C> {
    /// Returns the messages from the position on, as a stream for any executor. It can be dropped
    /// at any time without losing a message; [`Consumer::stream`] has the details. Needs the
    /// feature `async`.
    pub fn stream(&mut self) -> TypedStream<'_, T, C> {
        TypedStream::new(self.consumer.stream(), &self.codec)
    }

    /// Returns the messages from the position on, as a stream that owns the consumer;
    /// [`Consumer::into_stream`] has the details. Needs the feature `async`.
    pub fn into_stream(self) -> TypedStream<'static, T, C> {
        TypedStream::new(self.consumer.into_stream(), &self.codec)
    }

    /// Returns a view of this consumer whose waiting calls are futures, for any executor. Needs the
    /// feature `async`.
    pub fn in_async(&mut self) -> AsyncTypedConsumer<'_, T, C> {
        AsyncTypedConsumer::new(self.consumer.in_async(), &self.codec)
    }
}

impl<T, C> TypedConsumer<T, C> {
    /// Commits all messages that were returned so far, including those whose values could not be
    /// decoded.
    ///
    /// # Errors
    ///
    /// [`Error::Rebalanced`](crate::Error::Rebalanced) if a partition belongs to another member
    /// now; [`Consumer::commit`] lists the others.
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
    pub fn commit(&mut self) -> Result<()> {
        self.consumer.commit()
    }

    /// Commits one message, typed or [raw](TypedMessage::raw), and all messages before it in its
    /// partition. A higher commit is kept.
    ///
    /// # Errors
    ///
    /// [`Error::Rebalanced`](crate::Error::Rebalanced) if the partition belongs to another member
    /// now; [`Consumer::commit_message`] lists the others.
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
    pub fn commit_message<M: AsRef<Message>>(&mut self, message: &M) -> Result<()> {
        self.consumer.commit_message(message.as_ref())
    }

    /// Commits these offsets. Each is that of the next record to read.
    ///
    /// # Errors
    ///
    /// [`Error::Rebalanced`](crate::Error::Rebalanced) if a partition belongs to another member
    /// now; [`Consumer::commit_offsets`] lists the others.
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
    pub fn commit_offsets(&mut self, offsets: &Offsets) -> Result<()> {
        self.consumer.commit_offsets(offsets)
    }

    /// Sets the position of a partition, as [`Consumer::seek`] does. The next message of it is read
    /// from there.
    ///
    /// # Errors
    ///
    /// Those of [`Consumer::seek`].
    ///
    /// # Blocking
    ///
    /// For the disk with [`StartAt::Time`].
    pub fn seek(&mut self, partition: impl Into<TopicPartition>, to: StartAt) -> Result<()> {
        self.consumer.seek(partition, to)
    }

    /// Returns for each partition of this consumer how many visible offsets it has not returned
    /// yet.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`](crate::Error::Closed).
    pub fn lag(&self) -> Result<BTreeMap<TopicPartition, u64>> {
        self.consumer.lag()
    }

    /// Returns the offsets that this consumer missed since the last call, and forgets them, as
    /// [`Consumer::take_gaps`] does.
    pub fn take_gaps(&mut self) -> Vec<Gap> {
        self.consumer.take_gaps()
    }

    /// Returns a handle by which other threads can wake this consumer or shut it down.
    #[must_use]
    pub fn handle(&self) -> ConsumerHandle {
        self.consumer.handle()
    }

    /// Returns the consumer that this one uses. They have the same position: messages that one has
    /// returned are not returned by the other.
    pub fn inner(&mut self) -> &mut Consumer {
        &mut self.consumer
    }

    /// Leaves the group. In auto mode it first commits the messages of all polls but the last.
    ///
    /// # Errors
    ///
    /// If the rebalance callback, or the commit of auto mode, fails; [`Consumer::close`] lists the
    /// errors. The consumer leaves the group all the same.
    ///
    /// # Durability
    ///
    /// In auto mode at broker level [`Durability::Sync`](crate::Durability::Sync): on return the
    /// commit is on stable storage.
    ///
    /// # Blocking
    ///
    /// In auto mode at broker level `Sync`, for a sync of the disk. Also for the rebalance
    /// callback.
    pub fn close(self) -> Result<()> {
        self.consumer.close()
    }
}

impl<T, C> fmt::Debug for TypedConsumer<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedConsumer").field("consumer", &self.consumer).finish_non_exhaustive()
    }
}

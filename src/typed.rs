//! Typed producers and consumers: an untyped one with a [`Codec`].
//!
//! Owns: encoding before a send, decoding after a read. Must not know: brokers, partitions, logs,
//! groups; it uses only the public interface of producers and consumers.
//!
//! Invariants:
//! 1. Bytes that cannot be decoded are returned as a value, not as a failure of the consumer: its
//!    position has passed them like any other record.
//! 2. Codecs run under no lock, neither of the engine nor of this room.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
#[cfg(feature = "async")]
use std::pin::Pin;
use std::sync::Arc;
#[cfg(feature = "async")]
use std::task::{Context, Poll};
use std::time::Duration;

#[cfg(feature = "async")]
use futures_core::Stream;

use crate::codec::{Bincode, Codec};
#[cfg(feature = "async")]
use crate::consumer::MessageStream;
use crate::consumer::{Consumer, ConsumerBuilder, ConsumerHandle};
use crate::error::{CodecError, Result};
use crate::message::Message;
use crate::producer::{Delivery, Producer};
use crate::record::{Record, RecordMetadata};

/// LIMIT: how much encoding memory a thread keeps between sends.
const KEPT_BYTES: usize = 1 << 20;

thread_local! {
    /// One buffer per thread, so that threads that share a producer do not meet in it.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Lends the thread's buffer. Taken out meanwhile: a codec that itself sends gets a fresh one.
fn with_buffer<R>(use_it: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    let mut buffer = BUFFER.take();
    buffer.clear();
    let result = use_it(&mut buffer);
    if buffer.capacity() <= KEPT_BYTES {
        BUFFER.set(buffer);
    }
    result
}

impl Producer {
    /// Returns a producer of values for one topic, encoded by [`Bincode`]. It shares this
    /// producer's settings, id and [`flush`](Self::flush).
    ///
    /// ```
    /// # use logpond::{Broker, TopicConfig};
    /// # use serde::{Deserialize, Serialize};
    /// #[derive(Debug, PartialEq, Serialize, Deserialize)]
    /// struct PriceChanged {
    ///     cents: u64,
    /// }
    ///
    /// # let broker = Broker::in_memory()?;
    /// broker.ensure_topic("prices", TopicConfig::new(1))?;
    /// let prices = broker.producer().typed::<PriceChanged>("prices");
    /// prices.send_keyed("sku-1", &PriceChanged { cents: 1799 })?;
    ///
    /// let mut feed = broker.consumer("cache").subscribe(["prices"]).open_typed::<PriceChanged>()?;
    /// let message = feed.recv()?;
    /// assert_eq!(message.value.unwrap(), Some(PriceChanged { cents: 1799 }));
    /// # Ok::<(), logpond::Error>(())
    /// ```
    #[must_use]
    pub fn typed<T>(&self, topic: &str) -> TypedProducer<T>
    where
        Bincode: Codec<T>,
    {
        self.typed_with(topic, Bincode)
    }

    /// Returns a producer of values for one topic, with a codec of your choice.
    #[must_use]
    pub fn typed_with<T, C: Codec<T>>(&self, topic: &str, codec: C) -> TypedProducer<T, C> {
        let (producer, topic, codec) = (self.clone(), topic.into(), Arc::new(codec));
        TypedProducer { producer, topic, codec, values: PhantomData }
    }
}

/// Sends values of one type to one topic; made by [`Producer::typed`]. Cheap to clone and safe to
/// share between threads; keeps the broker open.
///
/// ```
/// # use logpond::{Broker, TopicConfig};
/// # let broker = Broker::in_memory()?;
/// # broker.ensure_topic("readings", TopicConfig::new(1))?;
/// let readings = broker.producer().typed::<(u64, f64)>("readings");
/// readings.send_keyed("sensor-7", &(1, 21.5))?;
/// readings.enqueue_keyed("sensor-7", &(2, 21.4))?.wait()?;
/// # Ok::<(), logpond::Error>(())
/// ```
pub struct TypedProducer<T, C = Bincode> {
    producer: Producer,
    topic: Arc<str>,
    codec: Arc<C>,
    values: PhantomData<fn(&T)>,
}

impl<T, C: Codec<T>> TypedProducer<T, C> {
    /// Sends a value without a key, and waits for its acknowledgement.
    ///
    /// # Errors
    ///
    /// [`Error::Codec`](crate::Error::Codec) if the value cannot be encoded; nothing was appended
    /// then. After any other error, [`is_definite`](crate::Error::is_definite) says whether the
    /// record may be stored; [`Producer::send`] lists these errors.
    ///
    /// # Durability
    ///
    /// On return the record survives what the [`Durability`](crate::Durability) in force covers:
    /// the producer's, or the topic's if the producer has none, or the broker's.
    ///
    /// # Blocking
    ///
    /// At [`Durability::Sync`](crate::Durability::Sync), for a sync of the disk, which concurrent
    /// senders share.
    pub fn send(&self, value: &T) -> Result<RecordMetadata> {
        self.encoded(value, |bytes| self.producer.send(self.record().value(bytes)))
    }

    /// Sends a value with a key, and waits for its acknowledgement. The bytes of the key are stored
    /// without encoding.
    ///
    /// # Errors
    ///
    /// [`Error::Codec`](crate::Error::Codec) if the value cannot be encoded; nothing was appended
    /// then. After any other error, [`is_definite`](crate::Error::is_definite) says whether the
    /// record may be stored; [`Producer::send`] lists these errors.
    ///
    /// # Durability
    ///
    /// On return the record survives what the [`Durability`](crate::Durability) in force covers:
    /// the producer's, or the topic's if the producer has none, or the broker's.
    ///
    /// # Blocking
    ///
    /// At [`Durability::Sync`](crate::Durability::Sync), for a sync of the disk, which concurrent
    /// senders share.
    pub fn send_keyed<K: AsRef<[u8]> + ?Sized>(
        &self,
        key: &K,
        value: &T,
    ) -> Result<RecordMetadata> {
        self.encoded(value, |bytes| self.producer.send(self.record().key(key).value(bytes)))
    }

    /// Appends a value without a key, without waiting for the disk. The returned [`Delivery`]
    /// resolves when the record is durable.
    ///
    /// # Errors
    ///
    /// Nothing was appended after any error. [`Error::Codec`](crate::Error::Codec): the value
    /// cannot be encoded. [`Producer::enqueue`] lists the other errors.
    ///
    /// # Durability
    ///
    /// On return the record survives the death of the process, but not a loss of power.
    ///
    /// # Blocking
    ///
    /// Only if the append needs space in the segment or a new segment, and a background thread has
    /// not prepared it yet.
    pub fn enqueue(&self, value: &T) -> Result<Delivery> {
        self.encoded(value, |bytes| self.producer.enqueue(self.record().value(bytes)))
    }

    /// Appends a value with a key, without waiting for the disk. The returned [`Delivery`] resolves
    /// when the record is durable.
    ///
    /// # Errors
    ///
    /// Nothing was appended after any error. [`Error::Codec`](crate::Error::Codec): the value
    /// cannot be encoded. [`Producer::enqueue`] lists the other errors.
    ///
    /// # Durability
    ///
    /// On return the record survives the death of the process, but not a loss of power.
    ///
    /// # Blocking
    ///
    /// Only if the append needs space in the segment or a new segment, and a background thread has
    /// not prepared it yet.
    pub fn enqueue_keyed<K: AsRef<[u8]> + ?Sized>(&self, key: &K, value: &T) -> Result<Delivery> {
        self.encoded(value, |bytes| self.producer.enqueue(self.record().key(key).value(bytes)))
    }

    /// Sends a record without a value: in a compacted topic this deletes the key.
    ///
    /// # Errors
    ///
    /// [`is_definite`](crate::Error::is_definite) says whether the record may be stored;
    /// [`Producer::send`] lists the errors.
    ///
    /// # Durability
    ///
    /// On return the record survives what the [`Durability`](crate::Durability) in force covers:
    /// the producer's, or the topic's if the producer has none, or the broker's.
    ///
    /// # Blocking
    ///
    /// At [`Durability::Sync`](crate::Durability::Sync), for a sync of the disk, which concurrent
    /// senders share.
    pub fn tombstone<K: AsRef<[u8]> + ?Sized>(&self, key: &K) -> Result<RecordMetadata> {
        self.producer.send(self.record().key(key).tombstone())
    }

    /// Returns the encoded value, for a [`Record`] with headers, a timestamp or a partition, which
    /// [`producer`](Self::producer) can send.
    ///
    /// # Errors
    ///
    /// [`Error::Codec`](crate::Error::Codec) if the value cannot be encoded.
    pub fn encode(&self, value: &T) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.codec.encode(value, &mut bytes)?;
        Ok(bytes)
    }

    fn encoded<R>(&self, value: &T, send: impl FnOnce(&[u8]) -> Result<R>) -> Result<R> {
        with_buffer(|buffer| {
            self.codec.encode(value, buffer)?;
            send(buffer)
        })
    }
}

impl<T, C> TypedProducer<T, C> {
    /// Returns the topic to which the values are sent.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Returns the producer that this one uses, to send a [`Record`] or to call
    /// [`Producer::flush`].
    #[must_use]
    pub fn producer(&self) -> &Producer {
        &self.producer
    }

    fn record(&self) -> Record<'_> {
        Record::to(&self.topic)
    }
}

impl<T, C> Clone for TypedProducer<T, C> {
    fn clone(&self) -> Self {
        let (producer, topic) = (self.producer.clone(), Arc::clone(&self.topic));
        Self { producer, topic, codec: Arc::clone(&self.codec), values: PhantomData }
    }
}

impl<T, C> fmt::Debug for TypedProducer<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedProducer")
            .field("topic", &self.topic)
            .field("producer", &self.producer)
            .finish_non_exhaustive()
    }
}

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
        Ok(TypedConsumer { consumer: self.open()?, codec, values: PhantomData })
    }
}

/// A message with its decoded value.
#[derive(Clone)]
pub struct TypedMessage<T> {
    /// The decoded value; `Ok(None)` if the record has none (a tombstone). `Err` if the bytes
    /// cannot be decoded: they are in [`raw`](Self::raw), and the consumer continues with the next
    /// message.
    pub value: Result<Option<T>, CodecError>,
    /// The message as it was read.
    pub raw: Message,
}

impl<T> TypedMessage<T> {
    fn decode<C: Codec<T>>(codec: &C, raw: Message) -> Self {
        let value = raw.value().map(|bytes| codec.decode(bytes)).transpose();
        Self { value, raw }
    }
}

impl<T> fmt::Debug for TypedMessage<T> {
    /// Whether there is a value, and its size: payloads do not belong in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value.as_ref().map(|value| match value {
            Some(_) => format_args!("a value"),
            None => format_args!("a tombstone"),
        });
        f.debug_struct("TypedMessage").field("value", &value).field("raw", &self.raw).finish()
    }
}

impl<T> AsRef<Message> for TypedMessage<T> {
    fn as_ref(&self) -> &Message {
        &self.raw
    }
}

/// A [`Consumer`] that decodes values of one type; made by [`ConsumerBuilder::open_typed`].
/// [`inner`](Self::inner) borrows the consumer, for example to seek, to pause or for the lag.
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
    codec: C,
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
        Ok(batch.into_iter().map(|raw| TypedMessage::decode(&self.codec, raw)).collect())
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
        Ok(TypedMessage::decode(&self.codec, raw))
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
        Ok(raw.map(|raw| TypedMessage::decode(&self.codec, raw)))
    }

    /// Returns the next message if there is one now.
    ///
    /// # Errors
    ///
    /// Those that [`Consumer::poll`] lists.
    pub fn try_recv(&mut self) -> Result<Option<TypedMessage<T>>> {
        let raw = self.consumer.try_recv()?;
        Ok(raw.map(|raw| TypedMessage::decode(&self.codec, raw)))
    }

    /// Returns an iterator over the messages from the position on. Each `next` waits for a message.
    /// It ends after [`ConsumerHandle::shutdown`], when the broker is closed, and after an error
    /// that repeats until the caller acts ([`Consumer::iter`] lists these).
    ///
    /// # Blocking
    ///
    /// Each `next` until there is a message.
    pub fn iter(&mut self) -> impl Iterator<Item = Result<TypedMessage<T>>> {
        let (consumer, codec) = (&mut self.consumer, &self.codec);
        consumer.iter().map(|raw| Ok(TypedMessage::decode(codec, raw?)))
    }
}

#[cfg(feature = "async")]
impl<T, C: Codec<T>> TypedConsumer<T, C> {
    /// Returns the messages from the position on, as a stream for any executor. It can be dropped
    /// at any time without losing a message; [`Consumer::stream`] has the details. Needs the
    /// feature `async`.
    pub fn stream(&mut self) -> TypedStream<'_, T, C> {
        let messages = self.consumer.stream();
        TypedStream { messages, codec: &self.codec, values: PhantomData }
    }
}

/// The messages of a [`TypedConsumer`], made by [`TypedConsumer::stream`].
#[cfg(feature = "async")]
#[must_use = "a stream does nothing unless it is polled"]
pub struct TypedStream<'a, T, C = Bincode> {
    messages: MessageStream<'a>,
    codec: &'a C,
    values: PhantomData<fn() -> T>,
}

#[cfg(feature = "async")]
impl<T, C: Codec<T>> Stream for TypedStream<'_, T, C> {
    type Item = Result<TypedMessage<T>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = Pin::new(&mut self.messages).poll_next(context);
        next.map(|next| next.map(|raw| Ok(TypedMessage::decode(self.codec, raw?))))
    }
}

#[cfg(feature = "async")]
impl<T, C> fmt::Debug for TypedStream<'_, T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedStream").field("messages", &self.messages).finish_non_exhaustive()
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
    /// Only in auto mode, if the commit fails; [`Consumer::close`] lists the errors. The consumer
    /// leaves the group all the same.
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

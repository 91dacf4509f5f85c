//! Producers and consumers of values: a [`Codec`] beside the untyped ones, and nothing else.
//!
//! Owns: encoding before a send, decoding after a read. Must not know: brokers, partitions, logs,
//! groups; it uses the public interface of producers and consumers only.
//!
//! Invariants:
//! 1. Bytes that do not decode are a value of the consumer, not a failure of it: the position has
//!    passed them like any other.
//! 2. Codecs run under no lock, of the engine or of this room.

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
    /// A producer of values for one topic, encoded by [`Bincode`]. Shares this producer's
    /// settings, id and [`flush`](Self::flush).
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

    /// As [`typed`](Self::typed), with a codec of the caller's choice.
    #[must_use]
    pub fn typed_with<T, C: Codec<T>>(&self, topic: &str, codec: C) -> TypedProducer<T, C> {
        let (producer, topic, codec) = (self.clone(), topic.into(), Arc::new(codec));
        TypedProducer { producer, topic, codec, values: PhantomData }
    }
}

/// Sends values of one type to one topic; made by [`Producer::typed`]. Cheap to clone and free to
/// share between threads; keeps the broker open.
pub struct TypedProducer<T, C = Bincode> {
    producer: Producer,
    topic: Arc<str>,
    codec: Arc<C>,
    values: PhantomData<fn(&T)>,
}

impl<T, C: Codec<T>> TypedProducer<T, C> {
    /// Sends a value without a key.
    ///
    /// # Errors
    ///
    /// [`Error::Codec`](crate::Error::Codec) when the value cannot be encoded; nothing was
    /// appended then. Otherwise as [`Producer::send`].
    ///
    /// # Durability
    ///
    /// As [`Producer::send`].
    ///
    /// # Blocking
    ///
    /// As [`Producer::send`].
    pub fn send(&self, value: &T) -> Result<RecordMetadata> {
        self.encoded(value, |bytes| self.producer.send(self.record().value(bytes)))
    }

    /// Sends a value under a key, which is taken as the bytes that it is.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    ///
    /// # Durability
    ///
    /// As [`Producer::send`].
    ///
    /// # Blocking
    ///
    /// As [`Producer::send`].
    pub fn send_keyed<K: AsRef<[u8]> + ?Sized>(
        &self,
        key: &K,
        value: &T,
    ) -> Result<RecordMetadata> {
        self.encoded(value, |bytes| self.producer.send(self.record().key(key).value(bytes)))
    }

    /// Appends a value without waiting for its durability.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send), the definite ones.
    ///
    /// # Durability
    ///
    /// As [`Producer::enqueue`].
    ///
    /// # Blocking
    ///
    /// As [`Producer::enqueue`].
    pub fn enqueue(&self, value: &T) -> Result<Delivery> {
        self.encoded(value, |bytes| self.producer.enqueue(self.record().value(bytes)))
    }

    /// As [`enqueue`](Self::enqueue), under a key.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send), the definite ones.
    ///
    /// # Durability
    ///
    /// As [`Producer::enqueue`].
    ///
    /// # Blocking
    ///
    /// As [`Producer::enqueue`].
    pub fn enqueue_keyed<K: AsRef<[u8]> + ?Sized>(&self, key: &K, value: &T) -> Result<Delivery> {
        self.encoded(value, |bytes| self.producer.enqueue(self.record().key(key).value(bytes)))
    }

    /// Sends a record without a value: in a compacted topic, the deletion of the key.
    ///
    /// # Errors
    ///
    /// As [`Producer::send`].
    ///
    /// # Durability
    ///
    /// As [`Producer::send`].
    ///
    /// # Blocking
    ///
    /// As [`Producer::send`].
    pub fn tombstone<K: AsRef<[u8]> + ?Sized>(&self, key: &K) -> Result<RecordMetadata> {
        self.producer.send(self.record().key(key).tombstone())
    }

    /// The encoded value, for a [`Record`] made by hand: with headers, a timestamp, a partition.
    ///
    /// # Errors
    ///
    /// [`Error::Codec`](crate::Error::Codec).
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
    /// The topic that values go to.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The producer underneath, for records made by hand and for [`Producer::flush`].
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
    /// As [`open`](Self::open).
    ///
    /// # Blocking
    ///
    /// As [`open`](Self::open).
    pub fn open_typed<T>(self) -> Result<TypedConsumer<T>>
    where
        Bincode: Codec<T>,
    {
        self.open_typed_with(Bincode)
    }

    /// As [`open_typed`](Self::open_typed), with a codec of the caller's choice.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    ///
    /// # Blocking
    ///
    /// As [`open`](Self::open).
    pub fn open_typed_with<T, C: Codec<T>>(self, codec: C) -> Result<TypedConsumer<T, C>> {
        Ok(TypedConsumer { consumer: self.open()?, codec, values: PhantomData })
    }
}

/// A message and what its value decodes to.
#[derive(Clone)]
pub struct TypedMessage<T> {
    /// The value; `Ok(None)` is a tombstone. Bytes that do not decode are an `Err` here, and the
    /// consumer goes on: the bytes themselves are in [`raw`](Self::raw).
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

/// Reads values of one type; made by [`ConsumerBuilder::open_typed`]. In everything but decoding it
/// is the [`Consumer`] underneath, which [`inner`](Self::inner) lends for seeking, pausing, lag and
/// the like.
pub struct TypedConsumer<T, C = Bincode> {
    consumer: Consumer,
    codec: C,
    values: PhantomData<fn() -> T>,
}

impl<T, C: Codec<T>> TypedConsumer<T, C> {
    /// Waits up to `timeout` for messages, as [`Consumer::poll`].
    ///
    /// # Errors
    ///
    /// As [`Consumer::poll`]. Not for values that do not decode: see [`TypedMessage::value`].
    ///
    /// # Blocking
    ///
    /// As [`Consumer::poll`].
    pub fn poll(&mut self, timeout: Duration) -> Result<Vec<TypedMessage<T>>> {
        let batch = self.consumer.poll(timeout)?;
        Ok(batch.into_iter().map(|raw| TypedMessage::decode(&self.codec, raw)).collect())
    }

    /// Waits for the next message.
    ///
    /// # Errors
    ///
    /// As [`Consumer::recv`].
    ///
    /// # Blocking
    ///
    /// Until there is a message.
    pub fn recv(&mut self) -> Result<TypedMessage<T>> {
        let raw = self.consumer.recv()?;
        Ok(TypedMessage::decode(&self.codec, raw))
    }

    /// Waits up to `timeout` for the next message; `None` when the time is over.
    ///
    /// # Errors
    ///
    /// As [`Consumer::recv_timeout`].
    ///
    /// # Blocking
    ///
    /// At most `timeout`.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Option<TypedMessage<T>>> {
        let raw = self.consumer.recv_timeout(timeout)?;
        Ok(raw.map(|raw| TypedMessage::decode(&self.codec, raw)))
    }

    /// The next message, if there is one now.
    ///
    /// # Errors
    ///
    /// As [`Consumer::try_recv`].
    pub fn try_recv(&mut self) -> Result<Option<TypedMessage<T>>> {
        let raw = self.consumer.try_recv()?;
        Ok(raw.map(|raw| TypedMessage::decode(&self.codec, raw)))
    }

    /// The messages from here on, waiting for each, as [`Consumer::iter`].
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
    /// The messages from here on as a stream, as [`Consumer::stream`]: cancel safe, for any
    /// executor. Needs the feature `async`.
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
    /// Commits all that was handed out, values that did not decode included, as
    /// [`Consumer::commit`].
    ///
    /// # Errors
    ///
    /// As [`Consumer::commit`].
    ///
    /// # Durability
    ///
    /// As [`Consumer::commit`].
    ///
    /// # Blocking
    ///
    /// As [`Consumer::commit`].
    pub fn commit(&mut self) -> Result<()> {
        self.consumer.commit()
    }

    /// Commits this message, typed or [raw](TypedMessage::raw), and all before it in its
    /// partition.
    ///
    /// # Errors
    ///
    /// As [`Consumer::commit_message`].
    ///
    /// # Durability
    ///
    /// As [`Consumer::commit`].
    ///
    /// # Blocking
    ///
    /// As [`Consumer::commit`].
    pub fn commit_message<M: AsRef<Message>>(&mut self, message: &M) -> Result<()> {
        self.consumer.commit_message(message.as_ref())
    }

    /// What other threads may hold: wakes and shuts down this consumer.
    #[must_use]
    pub fn handle(&self) -> ConsumerHandle {
        self.consumer.handle()
    }

    /// The consumer underneath. What it hands out is handed out; it goes on where this one
    /// stopped, and the other way round.
    pub fn inner(&mut self) -> &mut Consumer {
        &mut self.consumer
    }

    /// Leaves the group, as [`Consumer::close`].
    ///
    /// # Errors
    ///
    /// As [`Consumer::close`].
    ///
    /// # Durability
    ///
    /// As [`Consumer::close`].
    pub fn close(self) -> Result<()> {
        self.consumer.close()
    }
}

impl<T, C> fmt::Debug for TypedConsumer<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedConsumer").field("consumer", &self.consumer).finish_non_exhaustive()
    }
}

//! A producer of values.
//!
//! Owns: the encoding before a send, and the memory for it. Must not know: how values are read.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::codec::{Bincode, Codec};
use crate::error::Result;
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

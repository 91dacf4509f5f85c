//! A producer of values.
//!
//! Owns: the encoding before a send, and the memory for it. Must not know: how values are read.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use super::encode::{check, encode_into};
#[cfg(feature = "async")]
use super::send_in_async::AsyncTypedProducer;
use crate::codec::{Bincode, Codec};
use crate::error::Result;
use crate::producer::{Delivery, Producer, SendOutcome, SequencedDelivery};
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
    /// Returns a producer of values for one topic, encoded by [`Bincode`]: a struct that gets another
    /// field later does not decode the records from before, and types with
    /// `#[serde(skip_serializing_if)]`, `tag` or `flatten` or a `serde_json::Value` are not decoded
    /// at all. [`Versioned`](crate::Versioned) is for types that change, and `Json` decodes these.
    ///
    /// In debug builds, each value is decoded once after it was encoded; if that fails, the send
    /// returns [`Error::Codec`](crate::Error::Codec), and nothing is appended.
    ///
    /// The producer shares this one's settings, id and [`flush`](Self::flush).
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

    /// Returns a producer of values for one topic, with a codec of your choice, for example
    /// `typed_with::<Price, _>("prices", Json)`. In debug builds, each
    /// value is decoded once after it was encoded; if that fails, the send returns
    /// [`Error::Codec`](crate::Error::Codec), and nothing is appended.
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

    /// Sends a value with headers, a timestamp, a key or a partition: those of `record`. Its topic
    /// and its value are set by this call. Waits for the acknowledgement.
    ///
    /// ```
    /// # use logpond::{Broker, Record, TopicConfig};
    /// # let broker = Broker::in_memory()?;
    /// # broker.ensure_topic("readings", TopicConfig::new(1))?;
    /// let readings = broker.producer().typed::<(u64, f64)>("readings");
    /// readings.send_with(&(1, 21.5), Record::new().key("sensor-7").header("trace", "4bf92f35"))?;
    /// # let mut feed = broker.reader().subscribe(["readings"]).open_typed::<(u64, f64)>()?;
    /// # assert_eq!(feed.recv()?.raw.headers().get("trace"), Some(&b"4bf92f35"[..]));
    /// # Ok::<(), logpond::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Codec`](crate::Error::Codec) if the value cannot be encoded, and
    /// [`Error::Config`](crate::Error::Config) if the record names another topic or has a value;
    /// nothing was appended then. After any other error,
    /// [`is_definite`](crate::Error::is_definite) says whether the record may be stored;
    /// [`Producer::send`] lists these errors.
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
    pub fn send_with(&self, value: &T, record: Record<'_>) -> Result<RecordMetadata> {
        check(&self.topic, &record)?;
        self.encoded(value, |bytes| self.producer.send(record.topic(&self.topic).value(bytes)))
    }

    /// Appends a value with headers, a timestamp, a key or a partition, those of `record`, without
    /// waiting for the disk. The returned [`Delivery`] resolves when the record is durable.
    ///
    /// # Errors
    ///
    /// Nothing was appended after any error. [`Error::Codec`](crate::Error::Codec): the value
    /// cannot be encoded. [`Error::Config`](crate::Error::Config): the record names another topic or
    /// has a value. [`Producer::enqueue`] lists the other errors.
    ///
    /// # Durability
    ///
    /// On return the record survives the death of the process, but not a loss of power.
    ///
    /// # Blocking
    ///
    /// Only if the append needs space in the segment or a new segment, and a background thread has
    /// not prepared it yet.
    pub fn enqueue_with(&self, value: &T, record: Record<'_>) -> Result<Delivery> {
        check(&self.topic, &record)?;
        self.encoded(value, |bytes| self.producer.enqueue(record.topic(&self.topic).value(bytes)))
    }

    /// Sends a value with a number from its source, at most once, as [`Producer::send_sequenced`]
    /// does. `record` has the key or the partition, and may have headers and a timestamp.
    ///
    /// # Errors
    ///
    /// [`Error::Codec`](crate::Error::Codec) if the value cannot be encoded, and
    /// [`Error::Config`](crate::Error::Config) if the record names another topic or has a value;
    /// nothing was appended then. [`Producer::send_sequenced`] lists the other errors.
    ///
    /// # Durability
    ///
    /// On return the record survives what the [`Durability`](crate::Durability) in force covers; of
    /// a duplicate, this is true of the record that was stored before.
    ///
    /// # Blocking
    ///
    /// As [`Producer::send_sequenced`].
    pub fn send_sequenced(&self, seq: u64, value: &T, record: Record<'_>) -> Result<SendOutcome> {
        check(&self.topic, &record)?;
        self.encoded(value, |bytes| {
            self.producer.send_sequenced(seq, record.topic(&self.topic).value(bytes))
        })
    }

    /// Appends a value with a number from its source, as [`Producer::enqueue_sequenced`] does,
    /// without waiting for the disk.
    ///
    /// # Errors
    ///
    /// Nothing was appended after any error: [`Error::Codec`](crate::Error::Codec),
    /// [`Error::Config`](crate::Error::Config) if the record names another topic or has a value, and
    /// those of [`Producer::enqueue_sequenced`].
    ///
    /// # Durability
    ///
    /// On return the record survives the death of the process, but not a loss of power.
    ///
    /// # Blocking
    ///
    /// As [`Producer::enqueue_sequenced`].
    pub fn enqueue_sequenced(
        &self,
        seq: u64,
        value: &T,
        record: Record<'_>,
    ) -> Result<SequencedDelivery> {
        check(&self.topic, &record)?;
        self.encoded(value, |bytes| {
            self.producer.enqueue_sequenced(seq, record.topic(&self.topic).value(bytes))
        })
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
        encode_into(&*self.codec, value, &mut bytes)?;
        Ok(bytes)
    }

    /// Returns a view of this producer whose sends are futures, for any executor. Needs the feature
    /// `async`; [`enqueue`](Self::enqueue) and its [`Delivery`](crate::Delivery), a future too, need
    /// none.
    #[cfg(feature = "async")]
    #[must_use]
    pub fn in_async(&self) -> AsyncTypedProducer<'_, T, C> {
        AsyncTypedProducer::new(&self.producer, &self.topic, &self.codec)
    }

    fn encoded<R>(&self, value: &T, send: impl FnOnce(&[u8]) -> Result<R>) -> Result<R> {
        with_buffer(|buffer| {
            encode_into(&*self.codec, value, buffer)?;
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

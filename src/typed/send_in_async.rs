//! A producer of values in a task: its sends as futures for any executor.
//!
//! Owns: nothing; it is a view of one producer. Must not know: how a task waits.

use std::fmt;
use std::marker::PhantomData;

use super::encode::{check, encode_into};
use crate::codec::{Bincode, Codec};
use crate::error::Result;
use crate::producer::Producer;
use crate::record::{Record, RecordMetadata};

/// A [`TypedProducer`](crate::TypedProducer) whose sends are futures, for any executor; made by
/// [`TypedProducer::in_async`](crate::TypedProducer::in_async). Needs the feature `async`.
///
/// ```
/// # use logpond::{Broker, TopicConfig};
/// # pollster::block_on(async {
/// # let broker = Broker::in_memory()?;
/// # broker.ensure_topic("readings", TopicConfig::new(1))?;
/// let readings = broker.producer().typed::<(u64, f64)>("readings");
/// let sent = readings.in_async().send_keyed("sensor-7", &(1, 21.5)).await?;
/// assert_eq!(sent.offset, 0); // acknowledged: at `Durability::Sync`, on stable storage
/// # Ok::<(), logpond::Error>(())
/// # }).unwrap();
/// ```
pub struct AsyncTypedProducer<'a, T, C = Bincode> {
    producer: &'a Producer,
    topic: &'a str,
    codec: &'a C,
    values: PhantomData<fn(&T)>,
}

impl<'a, T, C: Codec<T>> AsyncTypedProducer<'a, T, C> {
    pub(super) fn new(producer: &'a Producer, topic: &'a str, codec: &'a C) -> Self {
        Self { producer, topic, codec, values: PhantomData }
    }

    /// Sends a value without a key, and resolves when it is acknowledged.
    ///
    /// # Errors
    ///
    /// [`Error::Codec`](crate::Error::Codec) if the value cannot be encoded; nothing was appended
    /// then. The others are those of [`AsyncProducer::send`].
    ///
    /// # Durability
    ///
    /// When the future resolves, the record survives what the
    /// [`Durability`](crate::Durability) in force covers.
    ///
    /// # Cancel safety
    ///
    /// As [`AsyncProducer::send`].
    ///
    /// # Blocking
    ///
    /// As [`AsyncProducer::send`].
    ///
    /// [`AsyncProducer::send`]: crate::AsyncProducer::send
    pub async fn send(&self, value: &T) -> Result<RecordMetadata> {
        self.send_with(value, Record::new()).await
    }

    /// Sends a value with a key, and resolves when it is acknowledged. The bytes of the key are
    /// stored without encoding.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    ///
    /// # Durability
    ///
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// As [`send`](Self::send).
    ///
    /// # Blocking
    ///
    /// As [`send`](Self::send).
    pub async fn send_keyed<K: AsRef<[u8]> + ?Sized>(
        &self,
        key: &K,
        value: &T,
    ) -> Result<RecordMetadata> {
        self.send_with(value, Record::new().key(key)).await
    }

    /// Sends a value with headers, a timestamp, a key or a partition, those of `record`, and resolves
    /// when it is acknowledged.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send); also [`Error::Config`](crate::Error::Config) if the record names
    /// another topic or has a value.
    ///
    /// # Durability
    ///
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// As [`send`](Self::send).
    ///
    /// # Blocking
    ///
    /// As [`send`](Self::send).
    pub async fn send_with(&self, value: &T, record: Record<'_>) -> Result<RecordMetadata> {
        check(self.topic, &record)?;
        let mut bytes = Vec::new();
        encode_into(self.codec, value, &mut bytes)?;
        self.producer.in_async().send(record.topic(self.topic).value(&bytes)).await
    }
}

impl<T, C> Clone for AsyncTypedProducer<'_, T, C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, C> Copy for AsyncTypedProducer<'_, T, C> {}

impl<T, C> fmt::Debug for AsyncTypedProducer<'_, T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncTypedProducer")
            .field("topic", &self.topic)
            .field("producer", self.producer)
            .finish_non_exhaustive()
    }
}

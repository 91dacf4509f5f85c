//! A message with its value.

use std::borrow::Cow;
use std::fmt;
use std::time::SystemTime;

use crate::codec::Codec;
use crate::error::CodecError;
use crate::message::{Headers, Message};

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
    pub(super) fn decode<C: Codec<T>>(codec: &C, raw: Message) -> Self {
        let value = raw.value().map(|bytes| codec.decode(bytes)).transpose();
        Self { value, raw }
    }

    /// Returns the topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        self.raw.topic()
    }

    /// Returns the number of the partition.
    #[must_use]
    pub fn partition(&self) -> u32 {
        self.raw.partition()
    }

    /// Returns the offset.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.raw.offset()
    }

    /// Returns the key, as it was sent; `None` if the record has none.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.raw.key()
    }

    /// Returns the key as text; see [`Message::key_text`].
    #[must_use]
    pub fn key_text(&self) -> Option<Cow<'_, str>> {
        self.raw.key_text()
    }

    /// Returns the headers.
    #[must_use]
    pub fn headers(&self) -> Headers<'_> {
        self.raw.headers()
    }

    /// Returns the timestamp, in milliseconds.
    #[must_use]
    pub fn timestamp(&self) -> SystemTime {
        self.raw.timestamp()
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

//! Typed producers and consumers: an untyped one with a [`Codec`](crate::Codec).
//!
//! Owns: encoding before a send, decoding after a read. Must not know: brokers, partitions, logs,
//! groups; it uses only the public interface of producers and consumers.
//!
//! Invariants:
//! 1. Bytes that cannot be decoded are returned as a value, not as a failure of the consumer: its
//!    position has passed them like any other record.
//! 2. Codecs run under no lock, neither of the engine nor of this room.

pub use self::consumer::TypedConsumer;
#[cfg(feature = "async")]
pub use self::in_async::{AsyncTypedConsumer, TypedStream};
pub use self::message::TypedMessage;
pub use self::producer::TypedProducer;
#[cfg(feature = "async")]
pub use self::send_in_async::AsyncTypedProducer;

mod consumer;
mod encode;
#[cfg(feature = "async")]
mod in_async;
mod message;
mod producer;
#[cfg(feature = "async")]
mod send_in_async;

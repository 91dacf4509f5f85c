//! lib
#![allow(dead_code, unused_imports, missing_docs, unreachable_pub)]

mod broker;
mod clock;
mod codec;
mod config;
mod consumer;
mod error;
mod format;
mod group;
mod log;
mod message;
mod partition;
mod partitioner;
mod producer;
mod record;
mod storage;
mod sync;
mod topic;

pub use broker::{Broker, BrokerBuilder, RecoveryReport};
pub use clock::{Clock, ManualClock, SystemClock};
pub use codec::{Bincode, Codec};
pub use config::{
    Acks, Cleanup, CommitMode, Durability, ReadMode, RecoveryPolicy, StartAt, TimestampType,
    TopicConfig, Visibility,
};
pub use consumer::{Consumer, ConsumerBuilder, ConsumerHandle, Gap};
pub use error::{CodecError, Corruption, CorruptionKind, Error, NameError, Result, TransportError};
pub use message::{Batch, Headers, IntoMessages, Message, MessageRef};
pub use group::assignor::Assignor;
pub use log::open::PartitionRecovery;
pub use partitioner::{DefaultPartitioner, Partitioner};
pub use producer::{Delivery, Producer, ProducerBuilder, SendOutcome};
pub use record::{Offsets, Record, RecordMetadata, TopicPartition};
pub use topic::{Partition, Topic};

//! logpond is an embedded message queue with Kafka's semantics: durable topics, partitions,
//! producers, consumers and consumer groups, linked into a Rust service over memory-mapped
//! segment files. It serves as the durable queue inside a service, as the bus between the parts of
//! one process, and, on heap memory, as a broker for tests.
//!
//! It is **not** a server and speaks no wire protocol; one process at a time opens a directory. It
//! does not share a directory between machines, and it does not deliver exactly once across
//! processes: delivery is at least once when a commit follows the work, at most once when it
//! precedes it.
//!
//! # Quick start
//!
//! ```
//! use logpond::{Broker, Record, TopicConfig};
//! use std::time::Duration;
//!
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path();
//! let broker = Broker::open(path)?;
//! broker.ensure_topic("emails", TopicConfig::new(4))?;
//!
//! // Returns when the record is on stable storage.
//! broker.producer().send(Record::to("emails").key("user-7").value("welcome!"))?;
//!
//! let mut inbox = broker.consumer("mailer").subscribe(["emails"]).open()?;
//! for message in inbox.poll(Duration::from_secs(1))? {
//!     println!("{:?}: {:?}", message.key(), message.value());
//! }
//! inbox.commit()?; // only now are these messages done
//! broker.close()?;
//! # Ok::<(), logpond::Error>(())
//! ```
//!
//! # Guarantees
//!
//! | | |
//! |---|---|
//! | order | records of a partition have consecutive offsets, and every consumer sees them in that order, also after a crash |
//! | batches | a batch is there whole or not at all, also after a crash at any byte of it |
//! | visibility | a record is readable as soon as it is published, before it is durable; [`Visibility::Durable`] shows only what no power cut can take back |
//! | durability | as [`Durability`] says; the default, [`Durability::Sync`], survives power loss |
//! | after a crash | each partition is a prefix of what was published, with everything that was acknowledged at a level that covers the crash |
//! | damage | bytes that are not what was written are an error, never data; what had been durable is reported, not cut |
//!
//! The long form, with the assumptions it rests on, is in [`docs::durability`].
//!
//! # Limits
//!
//! | | |
//! |---|---|
//! | platform | 64-bit Linux is tested and promised; elsewhere there is a fallback on the standard library that has not been tried |
//! | record | 1 MiB by default, up to what a segment holds (segments are 16 KiB to 1 GiB) |
//! | topic | names of `[A-Za-z0-9._-]{1,249}`, up to 10,000 partitions |
//! | offsets | 64 bits |
//! | one directory | one broker at a time, kept by an advisory lock |
//! | not yet | replication, transactions, compression |
//!
//! Soundness of the memory maps rests on nobody else changing the files of an open directory: a
//! file that is truncated from outside raises SIGBUS when it is read. [`ReadMode::Copy`] maps
//! nothing.
//!
//! # Features
//!
//! None is on by default, and none changes what the others do.
//!
//! | | |
//! |---|---|
//! | `async` | `Consumer::stream`, a `futures_core::Stream` for any executor; brings no runtime and no thread. Without it, [`Delivery`] is a future all the same |
//! | `json` | the codec `Json` for typed producers and consumers; [`Bincode`] is always there |
//! | `tracing` | events of what the engine does by itself, see [`docs::metrics`]; brings no subscriber. [`Broker::metrics`] is always there |
//!
//! # Reading on
//!
//! [`docs`] holds the on-disk format, the durability contract, the concurrency rules and what was
//! measured.

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod admin;
mod broker;
mod clock;
mod codec;
mod config;
mod consumer;
pub mod docs;
mod error;
mod foreign;
mod format;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
mod group;
mod log;
mod message;
mod partition;
mod partitioner;
mod producer;
mod record;
mod rules;
mod salvage;
mod steps;
mod storage;
mod sync;
mod topic;
mod trace;
mod typed;

pub use admin::{
    Admin, CompactionReport, GroupInfo, GroupMember, GroupOffset, GroupStatus, PartitionInfo,
    TopicInfo, VerifyReport,
};
pub use broker::metrics::{GroupMetrics, Metrics, TopicMetrics};
pub use broker::{Broker, BrokerBuilder, RecoveryReport};
pub use clock::{Clock, ManualClock, SystemClock};
#[cfg(feature = "json")]
pub use codec::Json;
pub use codec::{Bincode, Codec};
pub use config::{
    Acks, Cleanup, CommitMode, Durability, ReadMode, RecoveryPolicy, StartAt, TimestampType,
    TopicConfig, Visibility, WhenFull,
};
#[cfg(feature = "async")]
pub use consumer::MessageStream;
pub use consumer::{Commits, Consumer, ConsumerBuilder, ConsumerHandle, Gap, Rebalance};
pub use error::{
    CodecError, ConfigError, Corruption, CorruptionKind, Error, NameError, Result, TransportError,
};
pub use group::assignor::Assignor;
pub use log::open::PartitionRecovery;
pub use message::{Batch, Headers, IntoMessages, Message, MessageRef};
pub use partition::compaction::CompactionStats;
pub use partition::metrics::{
    AppendMetrics, FetchMetrics, LatencyHistogram, PartitionMetrics, RemovalMetrics,
};
pub use partitioner::{DefaultPartitioner, Partitioner};
pub use producer::{Delivery, Producer, ProducerBuilder, SendOutcome};
pub use record::{LeaderEpoch, NodeId, Offsets, Record, RecordMetadata, TopicPartition};
pub use salvage::{SalvageReport, SalvagedPartition, SalvagedTopic, salvage};
pub use topic::{Partition, Topic};
#[cfg(feature = "async")]
pub use typed::TypedStream;
pub use typed::{TypedConsumer, TypedMessage, TypedProducer};

//! logpond is an embedded message queue with Kafka's semantics: durable topics, partitions, producers,
//! consumers and consumer groups, in one crate that is linked into a service.
//!
//! It **is** the durable queue inside a service, the bus between the parts of one process, and, on heap
//! memory, a broker for tests.
//!
//! It is **not** a server, and it does not speak Kafka's protocol. One process at a time opens a
//! directory. Messages are delivered at least once if the commit follows the work, and at most once if it
//! precedes it; never exactly once across processes.
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
//! // Returns once the record is on stable storage.
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
//! # The main types
//!
//! | | |
//! |---|---|
//! | [`Broker`] | the root: opened over a directory or in memory; makes everything else |
//! | [`Topic`], [`Partition`], [`TopicConfig`] | named logs, their settings, and direct access to one log |
//! | [`Producer`], [`Record`], [`Delivery`] | records in |
//! | [`Consumer`], [`Batch`], [`Message`], [`MessageRef`] | records out, alone or as a member of a group |
//! | [`Durability`], [`Visibility`], [`StartAt`], [`CommitMode`], [`WhenFull`] | the choices that matter |
//! | [`TypedProducer`], [`TypedConsumer`], [`Codec`] | values of your own types |
//! | [`Admin`] | topics and groups are listed, changed, reset, verified, deleted |
//! | [`Error`] | what can go wrong; asked by [`is_definite`](Error::is_definite), [`is_retriable`](Error::is_retriable) and [`is_fatal`](Error::is_fatal) |
//! | [`metrics`], [`report`] | what the broker counts and finds, as plain data |
//!
//! # I want to ...
//!
//! | | |
//! |---|---|
//! | keep a durable queue inside my service | [`Broker::open`]; `examples/quickstart.rs` |
//! | send every record to several parts of my process | [`Broker::in_memory`], one [group](Broker::consumer) per part; `examples/broadcast.rs` |
//! | know that a record is on disk | [`Producer::send`] |
//! | send many records without waiting for each | [`Producer::enqueue`], [`Delivery`] |
//! | send several records at once | [`Producer::send_batch`] |
//! | send again after a crash without duplicates | [`ProducerBuilder::id`], [`Producer::send_sequenced`]; `examples/pipeline.rs` |
//! | append only if nobody else has appended | [`Partition::append_if`] |
//! | share work between threads | several consumers of one [`Broker::consumer`] group |
//! | read everything without a group | [`Broker::reader`], [`Partition::read`] |
//! | say that messages are done | [`Consumer::commit`], [`Consumer::commit_message`] |
//! | begin at the end or at a time, or read again | [`ConsumerBuilder::start`], [`Consumer::seek`], [`Admin::reset_offsets`] |
//! | act when partitions come and go | [`ConsumerBuilder::on_rebalance`] |
//! | keep a worker's partitions while it restarts | [`ConsumerBuilder::instance_id`] |
//! | stop a consumer from another thread | [`Consumer::handle`] |
//! | await messages | `Consumer::stream`, with the feature `async` |
//! | forward a message to another topic | `Record::from(&message).topic("copy")` |
//! | keep the latest value of each key | [`Cleanup::Compact`]; `examples/compacted_topic.rs` |
//! | limit what is kept | [`TopicConfig::retention`], [`TopicConfig::retention_bytes`], [`Admin::delete_records`] |
//! | limit the disk, or have a bounded channel | [`BrokerBuilder::max_total_bytes`], [`WhenFull`] |
//! | trade safety for speed | [`Durability`], per broker, topic or producer |
//! | send and read my own types | [`Producer::typed`], [`ConsumerBuilder::open_typed`] |
//! | see how far behind a group is | [`Consumer::lag`], [`Broker::metrics`], [`Admin::describe_group`] |
//! | test with time that I move | [`ManualClock`], [`BrokerBuilder::background`], [`Broker::tick`] |
//! | know what a crash has cost | [`Broker::recovery`], [`Admin::verify`] |
//! | save what is left of a damaged directory | [`salvage`] |
//!
//! Search these pages for Kafka's names (`KafkaConsumer`, `commitSync`, `seekToBeginning`,
//! `retention.ms`): they lead to what corresponds here.
//!
//! # Guarantees
//!
//! | | |
//! |---|---|
//! | order | The records of a partition have consecutive offsets. Every consumer reads them in that order, also after a crash. |
//! | batches | A batch is stored as a whole or not at all, also after a crash at any byte of it. |
//! | visibility | A record is readable as soon as it is published, before it is durable. [`Visibility::Durable`] shows only what no power cut can take back. |
//! | durability | As [`Durability`] says. The default, [`Durability::Sync`], survives power loss. |
//! | after a crash | Each partition is a prefix of what was published, with everything that was acknowledged at a level that covers the crash. |
//! | damage | Bytes that are not what was written are an error, never data. What was durable is reported, not cut. |
//!
//! [`docs::durability`] has the long form, and the assumptions that it rests on.
//!
//! # Limits
//!
//! | | |
//! |---|---|
//! | platform | 64-bit Linux is tested and promised. Elsewhere there is an untried fallback on the standard library. |
//! | record | 1 MiB by default, up to what a segment holds; segments have 16 KiB to 1 GiB |
//! | topic | names of `[A-Za-z0-9._-]{1,249}`, up to 10,000 partitions |
//! | offsets | 64 bits |
//! | one directory | one broker writes at a time, by an advisory lock; others open it with [`BrokerBuilder::read_only`] |
//! | not yet | replication, transactions, compression |
//!
//! The memory maps are sound only if nobody else changes the files of an open directory: to read a file
//! that was truncated from outside raises SIGBUS. [`ReadMode::Copy`] maps nothing.
//!
//! # Features
//!
//! None is on by default, and none changes what the others do.
//!
//! | | |
//! |---|---|
//! | `async` | `Consumer::stream`, a `futures_core::Stream` for any executor. It brings no runtime and no thread. [`Delivery`] is a future without it. |
//! | `json` | The codec `Json` for typed producers and consumers. [`Bincode`] needs no feature. |
//! | `tracing` | Events of what the engine does by itself: see [`docs::metrics`]. It brings no subscriber. [`Broker::metrics`] needs no feature. |
//!
//! # Documents
//!
//! For users: [durability](docs::durability), [groups](docs::groups), [retention](docs::retention),
//! [compaction](docs::compaction), [failures](docs::failures), [metrics](docs::metrics),
//! [performance](docs::performance), [versions](docs::versions) and [changes](docs::changelog). For
//! those who read or change the code: begin with [architecture](docs::architecture), then
//! [decisions](docs::decisions), [concurrency](docs::concurrency), [format](docs::format),
//! [testing](docs::testing) and [contributing](docs::contributing).

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

pub use admin::Admin;
pub use broker::{Broker, BrokerBuilder};
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
    CodecError, ConfigError, Corruption, CorruptionKind, Error, LockHolder, NameError, Result,
    TransportError,
};
pub use group::assignor::Assignor;
pub use message::{Batch, BatchIter, Headers, IntoMessages, Message, MessageRef};
pub use partitioner::{DefaultPartitioner, Partitioner};
pub use producer::{Delivery, Producer, ProducerBuilder, SendOutcome};
pub use record::{LeaderEpoch, NodeId, Offsets, Record, RecordMetadata, TopicPartition};
pub use salvage::salvage;
pub use topic::{Partition, Topic};
#[cfg(feature = "async")]
pub use typed::TypedStream;
pub use typed::{TypedConsumer, TypedMessage, TypedProducer};

// Listed under their modules below, so that the first page shows what programs are built of.
#[doc(hidden)]
pub use metrics::*;
#[doc(hidden)]
pub use report::*;

/// What a broker counts: the parts of the snapshot that [`Broker::metrics`]
/// returns.
///
/// Each of them is at the root of the crate too: `logpond::Metrics`. What agrees with what is in
/// [`docs::metrics`].
pub mod metrics {
    pub use crate::broker::metrics::{GroupMetrics, Metrics, TopicMetrics};
    pub use crate::partition::metrics::CompactionStats;
    pub use crate::partition::metrics::{
        AppendMetrics, FetchMetrics, LatencyHistogram, PartitionMetrics, RemovalMetrics,
    };
}

/// What calls find and do, as plain data: descriptions of topics and groups, and the reports of
/// recovery, verification, compaction and salvage.
///
/// Each of them is at the root of the crate too: `logpond::RecoveryReport`.
pub mod report {
    pub use crate::admin::{
        CompactionReport, GroupInfo, GroupMember, GroupOffset, GroupStatus, PartitionInfo,
        TopicInfo, VerifyReport,
    };
    pub use crate::broker::RecoveryReport;
    pub use crate::log::open::PartitionRecovery;
    pub use crate::salvage::{SalvageReport, SalvagedPartition, SalvagedTopic};
}

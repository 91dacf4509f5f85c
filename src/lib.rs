//! logpond is an embedded message queue with Kafka's semantics: durable topics, partitions,
//! producers, consumers and consumer groups, in one crate that is linked into a service.
//!
//! It **is** the durable queue inside a service, the bus between the parts of one process, and, on
//! heap memory, a broker for tests.
//!
//! It is **not** a server, and it does not speak Kafka's protocol. One process at a time writes to
//! a directory; others may open it read-only. Messages are delivered at least once if you commit
//! after the work, and at most once if you commit before it. It does not make side effects happen
//! exactly once.
//!
//! The words are Kafka's. A *topic* is a named set of *partitions*. A partition is a log: records
//! in the order in which they were appended, each with a number, its *offset*. It is stored in
//! *segments*, files of which the last one takes the appends. A *group* is a set of consumers, its
//! *members*; each partition is read by one of them. To *commit* is to store the offset at which
//! the group continues. A *tombstone* is a record without a value.
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
//! // Returns when the record is on disk and survives a power cut.
//! broker.producer().send(Record::to("emails").key("user-7").value("welcome!"))?;
//!
//! let mut inbox = broker.consumer("mailer").subscribe(["emails"]).open()?;
//! for message in inbox.poll(Duration::from_secs(1))? {
//!     println!("{:?}: {:?}", message.key_text(), message.value_text());
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
//! | [`Broker`] | opens a directory, or keeps its data in memory; makes all other handles |
//! | [`Topic`], [`Partition`], [`TopicConfig`] | a topic, one of its logs for direct access, and its settings |
//! | [`Producer`], [`Record`], [`Delivery`] | send records |
//! | [`Consumer`], [`Batch`], [`Message`], [`MessageRef`] | receive records, alone or as a member of a group |
//! | [`Durability`], [`Visibility`], [`StartAt`], [`CommitMode`], [`WhenFull`] | the settings to decide on first |
//! | [`TypedProducer`], [`TypedConsumer`], [`Codec`] | values of your own types |
//! | [`Admin`] | lists, changes, verifies, resets and deletes topics and groups |
//! | [`Error`] | what can go wrong. [`is_definite`](Error::is_definite): nothing was stored; [`is_retriable`](Error::is_retriable): the call may succeed later; [`is_fatal`](Error::is_fatal): the handle cannot be used any more |
//! | [`metrics`], [`report`] | counters, and descriptions of topics, groups and damage, as plain data |
//!
//! # I want to ...
//!
//! | | |
//! |---|---|
//! | keep a durable queue inside my service | [`Broker::open`]; `examples/quickstart.rs` |
//! | keep copies on three machines, and survive the loss of one | `BrokerBuilder::replication` and `Replication`, with the feature `replication`; [`docs::copies`]; `examples/replicated` |
//! | send every record to several parts of my process | [`Broker::in_memory`], one [group](Broker::consumer) per part; `examples/broadcast.rs` |
//! | know that a record is on disk | [`Producer::send`] |
//! | send many records without waiting for each | [`Producer::enqueue`], [`Delivery`] |
//! | send several records at once | [`Producer::send_batch`] |
//! | send again after a crash without duplicates | [`ProducerBuilder::id`], [`Producer::send_sequenced`], [`Producer::send_batch_sequenced`]; [`docs::sources`]; `examples/pipeline.rs` |
//! | mirror a log with its offsets | [`Admin::create_topic_at`]; [`docs::sources`] |
//! | store each message in a database exactly once | [`Commits::seek`]; [`docs::sources`]; the recipe `outbox` |
//! | append only if no other writer has appended meanwhile | [`Partition::append_if`] |
//! | share work between threads | one consumer per thread, all of one [group](Broker::consumer) |
//! | have more workers than partitions | [`InFlight`]; the recipe `worker_pool` in [`docs::recipes`] |
//! | try again later what failed, and keep what fails for good | the recipe `retry` in [`docs::recipes`] |
//! | read everything without a group | [`Broker::reader`], [`Partition::read`] |
//! | store that messages are done | [`Consumer::commit`], [`Consumer::commit_message`] |
//! | begin at the end or at a time, or read again | [`ConsumerBuilder::start`], [`Consumer::seek`], [`Admin::reset_offsets`] |
//! | be called when a consumer gains or loses partitions, and say where it begins | [`ConsumerBuilder::on_rebalance`], [`Commits::seek`] |
//! | stop reading for a while, and stay in the group | [`Consumer::pause_all`] |
//! | know how far a partition goes | [`Consumer::end_offsets`], [`Partition::log_end_offset`] |
//! | keep a worker's partitions while it restarts | [`ConsumerBuilder::instance_id`] |
//! | stop a consumer from another thread | [`Consumer::handle`] |
//! | stop a service in order | [`ConsumerHandle::shutdown`], [`Broker::close`]; the recipe `shutdown` in [`docs::recipes`] |
//! | await messages and commits in a task | `Consumer::in_async` and `Consumer::stream`, with the feature `async` |
//! | send from a task | `Producer::in_async`, with the feature `async`; or await the [`Delivery`] of [`Producer::enqueue`] |
//! | send messages to a browser (server-sent events, websockets) | `Consumer::into_stream`, with the feature `async` |
//! | forward a message to another topic | `Record::from(&message).topic("copy")` |
//! | keep the latest value of each key | [`Cleanup::Compact`]; `examples/compacted_topic.rs` |
//! | limit how many records are kept | [`TopicConfig::retention`], [`TopicConfig::retention_bytes`], [`Admin::delete_records`] |
//! | limit the disk space, or have a bounded channel | [`BrokerBuilder::max_total_bytes`], [`WhenFull`]; the recipe `channel` in [`docs::recipes`] |
//! | trade safety for speed | [`Durability`], per broker, topic or producer |
//! | send and read my own types | [`Producer::typed`], [`ConsumerBuilder::open_typed`] |
//! | change my type, and still read old records | [`Versioned`] |
//! | send a value with headers | [`TypedProducer::send_with`] |
//! | show metrics to Prometheus | [`Broker::metrics`]; the recipe `metrics` in [`docs::recipes`] |
//! | follow a request through the queue | [`Record::header`], [`Message::headers`]; the recipe `trace_context` in [`docs::recipes`] |
//! | see how many records a group has yet to read | [`Consumer::lag`], [`Broker::metrics`], [`Admin::describe_group`] |
//! | inspect a directory that another process has open, and follow it | [`BrokerBuilder::read_only`], [`Broker::refresh`]; from a shell: [`docs::command_line`] |
//! | test with time that I move | [`ManualClock`], [`BrokerBuilder::background`], [`Broker::tick`] |
//! | test my service against crashes, faults and time | `testing::TestBroker`, with the feature `testing` |
//! | know which records a crash or a bad disk has damaged | [`Broker::recovery`], [`Admin::verify`], [`Admin::verify_partition`] |
//! | copy the readable records of a damaged directory | [`salvage`], [`salvage_with`] |
//!
//! The search of these pages also finds Kafka's names (`KafkaConsumer`, `commitSync`,
//! `seekToBeginning`, `retention.ms`).
//!
//! # Guarantees
//!
//! | | |
//! |---|---|
//! | order | The records of a partition get consecutive offsets. Every consumer reads them in that order, also after a crash. |
//! | batches | A batch is stored as a whole or not at all, also after a crash in the middle of it. |
//! | visibility | A record is *published*, that is, readable, as soon as it is in the partition, which may be before it is durable. With [`Visibility::Durable`] a consumer sees only records that a power cut cannot remove. |
//! | durability | The level is set per broker, topic or producer, and is what a record survives once its call has returned `Ok`. [`Durability::Os`]: the record survives the death of the process. [`Durability::Interval`]: also power loss, except the last interval. [`Durability::Sync`], the default: both. |
//! | after a crash | Each partition has the first records that were published to it, up to some record, and all that were acknowledged at a level that covers the crash. |
//! | damage | Bytes that differ from those that were written are an error, never data. Damaged records that were durable are reported, and never removed silently. |
//!
//! [`docs::durability`] has the details, and the assumptions about the disk.
//!
//! # Limits
//!
//! | | |
//! |---|---|
//! | platform | 64-bit Linux. For other systems there is a fallback on the standard library, which has not been tried. |
//! | record | at most 1 MiB by default; with another setting, at most what a segment holds (16 KiB to 1 GiB) |
//! | topic | names of `[A-Za-z0-9._-]{1,249}`, up to 10,000 partitions |
//! | offsets | 64 bits |
//! | one directory | one broker writes at a time, by an advisory lock; others open it with [`BrokerBuilder::read_only`] |
//! | not yet | transactions, compression |
//!
//! No other program may change the files of an open directory. By default they are read through
//! memory maps: if another program truncates a mapped file, the next read of it ends the process
//! with the signal SIGBUS. [`ReadMode::Copy`] reads without maps.
//!
//! # Features
//!
//! No feature is on by default. They are independent of each other.
//!
//! | | |
//! |---|---|
//! | `async` | `Consumer::in_async`, `Producer::in_async`, whose waiting calls are futures, and `Consumer::stream`, a `futures_core::Stream`; for any executor. It adds no runtime and no thread. [`Delivery`] is a future without this feature. |
//! | `cli` | The program `logpond`, which looks into a data directory from a shell: [`docs::command_line`]. It adds nothing to the library. |
//! | `json` | The codec `Json` for typed producers and consumers. [`Bincode`] needs no feature. |
//! | `replication` | Copies of a broker in several processes, over a transport of the application: [`docs::copies`]. |
//! | `testing` | `testing::TestBroker`, the broker of your own tests: this engine on a clock that the test moves and a simulated disk, with crashes, power cuts and faults on demand. For `[dev-dependencies]`. |
//! | `tracing` | Events about recovery, retention, rebalances and failures: [`docs::metrics`] lists them. It adds no subscriber. [`Broker::metrics`] needs no feature. |
//!
//! # Documents
//!
//! For users: [recipes](docs::recipes), [sources](docs::sources),
//! [durability](docs::durability), [groups](docs::groups), [retention](docs::retention),
//! [compaction](docs::compaction), [copies](docs::copies), [command line](docs::command_line),
//! [failures](docs::failures), [metrics](docs::metrics), [performance](docs::performance),
//! [testing your service](docs::testing_your_service), [versions](docs::versions) and
//! [changes](docs::changelog). For
//! those who read or change the code: begin with [architecture](docs::architecture), then
//! [decisions](docs::decisions), [concurrency](docs::concurrency), [format](docs::format),
//! [replication](docs::replication), [testing](docs::testing) and [contributing](docs::contributing).

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
mod random;
mod record;
#[cfg(feature = "replication")]
pub mod replication;
mod rules;
mod salvage;
#[cfg(feature = "testing")]
mod seams;
mod steps;
mod storage;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;
mod topic;
mod trace;
mod typed;

pub use admin::Admin;
pub use broker::{Broker, BrokerBuilder};
pub use clock::{Clock, ManualClock, SystemClock};
#[cfg(feature = "json")]
pub use codec::Json;
pub use codec::{Bincode, Codec, NoVersion, Version, Versioned};
pub use config::{
    Acks, Cleanup, CommitMode, Durability, ReadMode, RecoveryPolicy, StartAt, TimestampType,
    TopicConfig, Visibility, WhenFull,
};
#[cfg(feature = "async")]
pub use consumer::{AsyncConsumer, MessageStream};
pub use consumer::{
    CallbackResult, Commits, Consumer, ConsumerBuilder, ConsumerHandle, Gap, InFlight, Rebalance,
};
pub use error::{
    CodecError, ConfigError, Corruption, CorruptionKind, Error, LockHolder, NameError, Result,
    TransportError,
};
pub use group::assignor::Assignor;
pub use message::{Batch, BatchIter, Headers, IntoMessages, Message, MessageRef};
pub use partitioner::{DefaultPartitioner, Partitioner};
#[cfg(feature = "async")]
pub use producer::AsyncProducer;
pub use producer::{
    Delivery, LastSequenced, Producer, ProducerBuilder, SendOutcome, SequencedDelivery,
};
pub use record::{LeaderEpoch, NodeId, Offsets, Record, RecordMetadata, TopicPartition};
#[cfg(feature = "replication")]
pub use replication::{
    Election, ForcedLead, Frame, FrameClass, MemberState, MemberStatus, Replication,
    ReplicationEvent, ReplicationHandle, ReplicationStatus, Role, Transport,
};
pub use salvage::{SalvageStep, salvage, salvage_with};
pub use topic::{Partition, Topic};
#[cfg(feature = "async")]
pub use typed::{AsyncTypedConsumer, AsyncTypedProducer, TypedStream};
pub use typed::{TypedConsumer, TypedMessage, TypedProducer};

#[cfg(feature = "testing")]
#[doc(hidden)]
pub use testing::{CrashedBroker, TestBroker};

// Listed under their modules below, so that the first page shows what programs are built of.
#[doc(hidden)]
pub use metrics::*;
#[doc(hidden)]
pub use report::*;

/// The types of the snapshot that [`Broker::metrics`] returns.
///
/// Each type is also at the root of the crate, for example `logpond::Metrics`. [`docs::metrics`]
/// explains every metric, and which of them belong to the same moment.
pub mod metrics {
    pub use crate::broker::metrics::{GroupMetrics, Metrics, TopicMetrics};
    #[cfg(feature = "replication")]
    pub use crate::broker::replication_metrics::{FrameMetrics, MemberMetrics, ReplicationMetrics};
    pub use crate::partition::metrics::CompactionStats;
    pub use crate::partition::metrics::{
        AppendMetrics, FetchMetrics, LatencyHistogram, PartitionMetrics, RemovalMetrics,
    };
}

/// Plain data that calls return: descriptions of topics and groups, and the reports of recovery,
/// verification, compaction and salvage.
///
/// Each type is also at the root of the crate, for example `logpond::RecoveryReport`.
pub mod report {
    pub use crate::admin::{
        CompactionReport, GroupInfo, GroupMember, GroupOffset, GroupStatus, PartitionInfo,
        TopicInfo, VerifyReport,
    };
    pub use crate::broker::{RecoveryReport, Refreshed};
    pub use crate::log::open::PartitionRecovery;
    pub use crate::salvage::{SalvageReport, SalvagedPartition, SalvagedTopic};
}

//! The broker: the root of everything that an application uses.
//!
//! Owns: opening and closing, the catalog of topics, the state of this machine, background work.
//! Must not know: what producers and consumers do; those are built on it.
//!
//! The files of the room. Each imports only from those in rows above it (`tests/layering` holds the
//! order):
//!
//! | floor | files |
//! |---|---|
//! | data, functions, threads | `catalog`, `local`, `looks`, `report`, `replication_metrics`, `directories`, `parallel`, `workers` |
//! | what all parts share | `context`; `gate` |
//! | the internal logs | `internal_logs`; `last_run`; `log_opener`; `inspect` |
//! | services | `catalog_writer`, `live_topics`, `topic_factory`; `run_parts`; `retention`, `producers`, `recovery_points`; `space`, `expiry`; `topics` |
//! | the engine | `engine` |
//! | what uses all of it | `open`, `restore`, `metrics`; `refresh`; `handle`; `builder` |

pub use self::builder::BrokerBuilder;
pub use self::handle::Broker;
pub(crate) use self::handle::Run;
pub use self::report::{RecoveryReport, Refreshed};

#[cfg(feature = "replication")]
pub(crate) mod attached;
#[cfg(feature = "replication")]
pub(crate) mod attachment;
mod builder;
pub(crate) mod catalog;
mod catalog_writer;
pub(crate) mod context;
mod directories;
pub(crate) mod engine;
mod expiry;
mod gate;
mod handle;
mod inspect;
pub(crate) mod internal_logs;
mod last_run;
mod leading;
mod live_topics;
pub(crate) mod local;
mod log_opener;
mod looks;
#[cfg(feature = "replication")]
pub(crate) mod member_notes;
pub(crate) mod metrics;
pub(crate) mod open;
mod parallel;
pub(crate) mod producers;
mod recovery_points;
mod refresh;
#[cfg(feature = "replication")]
pub(crate) mod replicated_logs;
#[cfg(feature = "replication")]
pub(crate) mod replication_metrics;
mod report;
pub(crate) mod restore;
mod retention;
mod run_parts;
mod space;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
mod topic_factory;
pub(crate) mod topics;
mod workers;

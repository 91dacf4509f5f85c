//! Goal: a test broker behaves as the engine does, and as its documentation says.
//!
//! Method: short tests as applications write them, through the public interface alone.
//!
//! Not covered: executors, which `tests/executors/` runs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "testing/broker.rs"]
mod broker;
#[cfg(feature = "replication")]
#[path = "testing/cluster.rs"]
mod cluster;
#[cfg(feature = "replication")]
#[path = "testing/cluster_walk.rs"]
mod cluster_walk;
#[path = "testing/faults.rs"]
mod faults;
#[path = "testing/seeing.rs"]
mod seeing;

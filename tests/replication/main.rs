//! Replication as an application uses it: real threads, real time, and a transport in memory.
//!
//! What must hold whatever happens is the business of the simulation (`src/replication/simulation.rs`);
//! here are the calls, their errors, and the procedures of the guide.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod calls;
mod deletions;
mod failover;
mod group;
mod procedures;
mod reentrance;
mod rows;
mod threads;
mod topics;
mod transports;
mod trouble;

//! Goal: what the public interface promises, call by call.
//!
//! Method: a file for each area, named after what it is about, in one program, because each program
//! links the whole crate. One area alone: `cargo test --test behaviour retention::`.
//!
//! Not covered: what needs a process of its own to die or to run out (`kill9`, `environment`,
//! `limits`, `outside`), random programs (`models`), features (`async_stream`, `tracing`).

#[path = "../common/mod.rs"]
mod common;

mod admin;
mod api;
mod bad_input;
mod broker;
mod callers;
mod compaction;
mod concurrency;
mod consumers;
mod groups;
mod metrics;
mod owners;
mod past;
mod produce_consume;
mod retention;
mod salvage;
mod statements;
mod typed;
mod unavailable;

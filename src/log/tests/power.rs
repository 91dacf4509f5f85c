//! Every image that a power cut can leave of a short workload, and many of long ones.
//!
//! Goal: after a power cut at any store point the log is what docs/durability.md, "After any
//! crash" says. Method: [`exhaustive`] runs all workloads of up to three operations over segments
//! of four pages, from two beginnings; at each store point it opens each image that the disk's
//! model knows ([`Images`]). [`random`] runs long ones and tries 64 biased images at each store
//! point. Of some images of both the opening is interrupted by another cut, and what is recovered
//! is appended to and cut again, to depth two, and now and then three ([`check::Campaign`]).
//! [`world`] does the operations and keeps the oracle: values that say where they belong, and what
//! was acknowledged. Not covered: committed offsets, topics and clean ends (`broker`).
//!
//! ```text
//! LOGPOND_EFFORT=100 cargo test --release --lib log::tests::power -- --nocapture
//! LOGPOND_REPLAY=grown:fill,roll,sync/3/17 cargo test --lib log::tests::power -- --nocapture
//! ```
//!
//! `LOGPOND_EFFORT` is 1 by default: all workloads of up to two operations, a part of those of
//! three, and a part of their images. From 10 on nothing is left out, and each more is another
//! round of random workloads. A failure prints the `LOGPOND_EFFORT` and the `LOGPOND_REPLAY` that
//! do it again.

use super::*;

mod check;
mod exhaustive;
mod lying;
mod random;
mod rows;
mod world;

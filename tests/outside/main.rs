//! Goal: the real engine on the real kernel, seen from outside: whatever call fails, whatever runs
//! out, and at whatever moment the power goes, what was acknowledged is there, what was refused is
//! not, every error is typed, and nothing panics.
//!
//! Method: this test binary again, as a child that works on a directory and says on a pipe what it
//! is about to do and how that ended ([`workload`]). `strace` makes its n-th call of a kind fail or
//! be its last ([`trace`]); small file systems fill up ([`full`]); a file system is shut down under
//! it, as by a power cut ([`cut`]); it is given too few descriptors, too little address space, too
//! small files, a file system that turns read-only ([`limits`]). Then the directory is opened
//! without any of that, and compared with what was said ([`ledger`]).
//!
//! What needs root, strace, perl or a loop device is skipped, loudly, without it. By default each
//! test tries a sample; `LOGPOND_CALLS=all` and `LOGPOND_CUTS=20000` are campaigns. The seed is
//! fixed and printed; `LOGPOND_SEED=fresh` draws a new one, and `LOGPOND_SEED=<seed>` replays one.
//!
//! Not covered: lies of the disk (`src/broker/tests`), other file systems than ext4 and tmpfs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../common/mod.rs"]
mod common;
mod cut;
mod full;
mod ledger;
mod limits;
mod machine;
mod trace;
mod workload;

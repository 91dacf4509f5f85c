//! The broker on a disk that loses power, refuses and lies.
//!
//! Goal: after any crash, what docs/durability.md, "After any crash" promise is there, and nothing
//! else. Method: [`model`] keeps what [`run`] did and what was acknowledged; [`crash`] stops short
//! workloads at every store point and opens what each kind of crash leaves, also when the opening
//! itself is interrupted; [`power`] opens every image that a power cut can leave of still shorter
//! ones; [`random`] does so to long random workloads; [`faults`] lets single calls fail, [`sweep`]
//! each call of a workload, once and for ever; [`full`] is about the ways out of a full disk,
//! [`expiry`] about groups and producers that nobody uses. Not covered: real files and real
//! processes (`tests/`), threads.
//!
//! `LOGPOND_IMAGES=n` tries n images per store point instead of a few, and as many more random
//! workloads: for long campaigns, best with `--release`. `LOGPOND_SEED=n` runs the one random
//! workload with that seed, which every failure prints.

mod begins;
mod compaction;
mod costs;
mod crash;
mod deleted;
mod expiry;
mod faults;
mod full;
mod groups;
mod hostile;
mod inspect;
#[cfg(feature = "replication")]
mod leading;
mod limits;
mod lineage;
mod model;
mod names;
#[cfg(feature = "replication")]
mod notes;
mod panics;
mod power;
mod random;
mod refresh;
mod reopened;
#[cfg(feature = "replication")]
mod replicated_logs;
mod reserve;
mod retention;
mod rot;
mod run;
mod sources;
mod state;
mod statements;
mod sweep;
#[cfg(feature = "tracing")]
mod tracing;
#[cfg(feature = "replication")]
mod watermark;
mod weeks;

/// Scales [`power`], as `LOGPOND_EFFORT` asks: from 10 on nothing is left out.
fn effort() -> u64 {
    variable("LOGPOND_EFFORT").unwrap_or(1)
}

/// How many images to try where the caller did not say.
fn images(default: u64) -> u64 {
    variable("LOGPOND_IMAGES").unwrap_or(default)
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

//! The contenders, one per file.

use crate::log::Outcome;
use crate::workloads::{Figures, Order, Workload};

mod channels;
#[cfg(feature = "peers")]
mod commitlog;
#[cfg(feature = "peers")]
mod khata;
mod limit_map;
mod limit_sync;
mod logpond;
#[cfg(feature = "peers")]
mod okaywal;
#[cfg(feature = "peers")]
mod raft_engine;
#[cfg(feature = "peers")]
mod yaque;

/// One that takes part, and what is to be known of it beside its figures.
#[derive(Debug)]
pub(crate) struct Contender {
    /// As on the command line.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// The package that it comes from, whose version the lock file knows.
    pub(crate) package: Option<&'static str>,
    /// What an acknowledged record survives.
    pub(crate) survives: fn(&Workload) -> &'static str,
    /// Whether a reader notices bytes that have changed.
    pub(crate) checks: &'static str,
    pub(crate) takes: fn(&Workload) -> bool,
    pub(crate) run: fn(&Order) -> Outcome<Figures>,
}

pub(crate) const NOTHING: &str = "nothing";
pub(crate) const PROCESS: &str = "death of the process";
pub(crate) const POWER: &str = "power loss";

/// All of them, in the order of the tables: the limits come last.
pub(crate) const CONTENDERS: &[&Contender] = &[
    &logpond::LOGPOND,
    #[cfg(feature = "peers")]
    &khata::KHATA,
    #[cfg(feature = "peers")]
    &yaque::YAQUE,
    #[cfg(feature = "peers")]
    &commitlog::COMMITLOG,
    #[cfg(feature = "peers")]
    &raft_engine::RAFT_ENGINE,
    #[cfg(feature = "peers")]
    &okaywal::OKAYWAL,
    &channels::CROSSBEAM,
    &channels::MPSC,
    &limit_map::FRESH,
    &limit_map::READY,
    &limit_map::UNCHECKED,
    &limit_map::PREAD,
    &limit_sync::SYNC,
];

impl Contender {
    /// `khata-rs 0.1.1`: with the version that is built in.
    pub(crate) fn titled(&self) -> String {
        let version = self.package.and_then(version);
        version.map_or_else(|| self.title.into(), |version| format!("{} {version}", self.title))
    }
}

/// The version of a package in this program.
fn version(package: &str) -> Option<&'static str> {
    let wanted = format!("name = \"{package}\"");
    let mut lines = include_str!("../../Cargo.lock").lines().skip_while(|line| *line != wanted);
    lines.nth(1)?.strip_prefix("version = \"")?.strip_suffix('"')
}

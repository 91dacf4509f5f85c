//! The names of logs and members as `__local` stores them, and notes as it stores them.
//!
//! Pure conversions.

use std::sync::Arc;

use super::super::log_key::LogKey;
use super::super::membership::{DirectoryId, MemberRun};
use super::super::notes::Promise;
use crate::broker::Broker;
use crate::broker::local::{LocalState, NotedLog, NotedPromise, NotedRun};
use crate::format::TopicId;
use crate::record::NodeId;

/// An opening of a broker: the boot of the machine, if it is known, and the number of the opening.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opening {
    pub(super) boot: String,
    pub(super) number: u64,
}

impl Opening {
    pub(super) fn of(broker: &Broker) -> Self {
        let boot = broker.run().context().env.disk.boot_id().unwrap_or_default();
        Self { boot, number: broker.run().logs().local().read(LocalState::opens) }
    }

    /// What a note calls a boot is an opening. `None` where the boot is not known: then no other run
    /// can be shown to be of the same one.
    pub(super) fn note(&self) -> Option<Arc<str>> {
        let Self { boot, number } = self;
        (!boot.is_empty()).then(|| Arc::from(format!("{boot} {number}")))
    }

    pub(super) fn noted(note: &str) -> Option<Self> {
        let (boot, number) = note.rsplit_once(' ')?;
        Some(Self { boot: boot.to_owned(), number: number.parse().ok()? })
    }
}

pub(super) fn log(key: LogKey) -> NotedLog {
    match key {
        LogKey::Meta => NotedLog::Meta,
        LogKey::Offsets => NotedLog::Offsets,
        LogKey::Partition { topic, partition } => {
            NotedLog::Partition { topic: TopicId(topic.to_le_bytes()), partition }
        }
    }
}

pub(super) fn promise(promise: Promise) -> NotedPromise {
    let MemberRun { node, directory, session } = promise.candidate;
    let candidate = NotedRun { node: node.0, directory: directory.0, session };
    NotedPromise { epoch: promise.epoch.0, candidate }
}

pub(super) fn run_of(run: NotedRun) -> MemberRun {
    let NotedRun { node, directory, session } = run;
    MemberRun { node: NodeId(node), directory: DirectoryId(directory), session }
}

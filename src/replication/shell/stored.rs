//! The names of logs and members as `__local` stores them, and notes as it stores them.
//!
//! Pure conversions.

use super::super::log_key::LogKey;
use super::super::membership::{DirectoryId, MemberRun};
use super::super::notes::Promise;
use crate::broker::local::{NotedLog, NotedPromise, NotedRun};
use crate::format::TopicId;
use crate::record::NodeId;

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

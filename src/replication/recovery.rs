//! `Recovery`: whether a member has everything again that a power cut may have removed.
//!
//! Owns: the ends that a leader named in its answers to this run. Must not know: messages, notes.

use std::collections::BTreeMap;

use super::log_key::LogKey;
use super::logs::Logs;

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Recovery {
    ends: BTreeMap<LogKey, u64>,
}

impl Recovery {
    /// Another leader answers from now on.
    pub(super) fn begin(&mut self) {
        self.ends.clear();
    }

    /// The leader named the end of a log; the first answer counts, for it is from after the loss.
    pub(super) fn named(&mut self, log: LogKey, end: u64) {
        self.ends.entry(log).or_insert(end);
    }

    /// Every log has reached the end that the leader named for it, and has adopted its epoch. A log
    /// whose deletion is not certain was not asked for, so it is not known to be complete.
    pub(super) fn is_done(&self, logs: &Logs, has_adopted: impl Fn(LogKey) -> bool) -> bool {
        !logs.has_deleted()
            && logs.iter().all(|(key, log)| {
                has_adopted(key) && self.ends.get(&key).is_some_and(|end| log.end() >= *end)
            })
    }
}

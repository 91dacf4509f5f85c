//! What must be true of a group from outside: nobody sees two values at one offset, and nothing that
//! was visible is lost.
//!
//! Owns: what readers have seen, and who led. Must not know: messages, disks.

use std::collections::{BTreeMap, BTreeSet};

use super::super::log_key::LogKey;
use super::super::membership::MemberRun;
use super::trouble::key_of;
use crate::record::LeaderEpoch;

/// What is not as it must be.
#[derive(Debug)]
pub(super) struct Violation(pub(super) String);

#[derive(Debug, Default)]
pub(super) struct Truth {
    /// The visible records of each log by offset, and the end of what was visible.
    seen: BTreeMap<LogKey, (BTreeMap<u64, Vec<u8>>, u64)>,
    leaders: BTreeMap<LeaderEpoch, MemberRun>,
    /// The greatest log start that was asked for.
    starts: BTreeMap<LogKey, u64>,
    /// The greatest log start that a leader knew a majority to have noted.
    noted: BTreeMap<LogKey, u64>,
}

impl Truth {
    pub(super) fn leads(&mut self, epoch: LeaderEpoch, run: MemberRun) -> Result<(), Violation> {
        match *self.leaders.entry(epoch).or_insert(run) {
            first if first == run => Ok(()),
            first => Err(Violation(format!("{first:?} and {run:?} both lead {epoch:?}"))),
        }
    }

    /// A reader has seen this record.
    pub(super) fn sees(&mut self, log: LogKey, offset: u64, value: &[u8]) -> Result<(), Violation> {
        let (seen, _) = self.seen.entry(log).or_default();
        let first = seen.entry(offset).or_insert_with(|| value.to_vec());
        if first == value {
            return Ok(());
        }
        let first = String::from_utf8_lossy(first).chars().take(20).collect::<String>();
        let value = String::from_utf8_lossy(value).chars().take(20).collect::<String>();
        Err(Violation(format!("at {offset} of {log:?} are {first} and {value}")))
    }

    /// All below this offset is visible somewhere.
    pub(super) fn reaches(&mut self, log: LogKey, end: u64) {
        let (_, known) = self.seen.entry(log).or_default();
        *known = end.max(*known);
    }

    /// The end of what was visible of a log.
    pub(super) fn end(&self, log: LogKey) -> u64 {
        self.seen.get(&log).map_or(0, |(_, end)| *end)
    }

    /// Somebody removes the records below an offset.
    pub(super) fn asks(&mut self, log: LogKey, start: u64) {
        let known = self.starts.entry(log).or_default();
        *known = start.max(*known);
    }

    /// Above it no log may begin.
    pub(super) fn start(&self, log: LogKey) -> u64 {
        self.starts.get(&log).copied().unwrap_or_default()
    }

    /// A leader says that a majority has noted where a log begins.
    pub(super) fn notes_start(&mut self, log: LogKey, start: u64) {
        let known = self.noted.entry(log).or_default();
        *known = start.max(*known);
    }

    /// Who leads next has a log that begins at `start`.
    pub(super) fn leads_from(&self, log: LogKey, start: u64) -> Result<(), Violation> {
        match self.noted.get(&log) {
            Some(noted) if *noted > start => {
                let what = format!("{log:?} begins at {start} again");
                Err(Violation(format!("{what}, a majority had noted {noted}")))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn records(&self) -> usize {
        self.seen.values().map(|(seen, _)| seen.len()).sum()
    }

    /// The offsets of a log from `start` on at which a record was visible. Not those of records with a
    /// key that a later one had too: these may be compacted.
    pub(super) fn offsets(&self, log: LogKey, start: u64) -> Vec<u64> {
        let Some((seen, _)) = self.seen.get(&log) else { return Vec::new() };
        let mut keys = BTreeSet::new();
        let mut is_last = |value: &[u8]| {
            let key = std::str::from_utf8(value).ok().and_then(key_of);
            key.is_none_or(|key| keys.insert(key.to_owned()))
        };
        let from_the_last = seen.range(start..).rev();
        let mut offsets: Vec<u64> =
            from_the_last.filter(|(_, value)| is_last(value)).map(|(at, _)| *at).collect();
        offsets.reverse();
        offsets
    }
}

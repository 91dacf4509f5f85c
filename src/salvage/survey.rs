//! Which topics a damaged directory holds: a pure decision over the catalog and the files.
//!
//! The rules:
//! 1. A topic of the catalog counts if it is live, under its name. One that was being created does
//!    not count, and one that was growing is as it was before, unless the entry that completed it
//!    may be among the lost ones. (A topic with records was complete: the given catalog says so
//!    already.)
//! 2. A directory with segments of a topic that the catalog does not have is a topic whose entry is
//!    lost. Its name is the directory's, its partitions are those with segments, its settings are
//!    lost.
//! 3. Of several topics for one name (names that differ only in case are one), one with segments is
//!    preferred, then one of the catalog, then the one with most segments.
//! 4. Partitions beyond those of the entry count if they have segments: the growth was lost.
//! 5. Files that are left out are reported, except those of a topic that was being deleted.

use std::collections::{BTreeMap, BTreeSet};

use crate::broker::catalog::{CatalogState, Stage, TopicEntry};
use crate::config::TopicConfig;
use crate::format::{TopicId, partition_dir_name, validate_topic};
use crate::log::record_bytes_max;

/// How many segments a topic has in each partition of a directory.
pub(super) type Holdings = BTreeMap<TopicId, BTreeMap<u32, u64>>;

/// What the subdirectories hold, by name; and nothing where it is nothing of ours.
pub(super) type Found = BTreeMap<String, Holdings>;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Choice {
    pub(super) entry: TopicEntry,
    pub(super) config_lost: bool,
}

/// A topic that may be the one of its name.
struct Candidate {
    choice: Choice,
    segments: u64,
}

impl Candidate {
    fn rank(&self) -> (bool, bool, u64, TopicId) {
        let Choice { entry, config_lost } = &self.choice;
        (self.segments > 0, !config_lost, self.segments, entry.id)
    }
}

/// Chooses the topics, by name, and returns which directories belong to none, and which partitions
/// are left out.
pub(super) fn choose(
    catalog: &CatalogState,
    is_whole: bool,
    found: &Found,
) -> (Vec<Choice>, Vec<String>) {
    let mut candidates = Vec::new();
    for (entry, stage) in catalog.topics.values() {
        if stage.is_live() || (*stage == Stage::Creating && !is_whole) {
            let counts_all = !is_whole || !matches!(stage, Stage::Growing(_));
            candidates.push(of_entry(entry, counts_all, found));
        }
    }
    for (name, holdings) in found.iter().filter(|(name, _)| validate_topic(name).is_ok()) {
        let strangers = holdings.iter().filter(|(id, _)| !catalog.topics.contains_key(id));
        candidates.extend(strangers.map(|(id, partitions)| of_directory(name, *id, partitions)));
    }
    let mut by_name: BTreeMap<String, Candidate> = BTreeMap::new();
    for candidate in candidates {
        let name = candidate.choice.entry.name.to_ascii_lowercase();
        match by_name.get(&name) {
            Some(other) if other.rank() >= candidate.rank() => {}
            _ => drop(by_name.insert(name, candidate)),
        }
    }
    let choices: Vec<Choice> = by_name.into_values().map(|candidate| candidate.choice).collect();
    let going = catalog.topics.values().filter(|(_, stage)| *stage == Stage::Deleting);
    let names = going.map(|(entry, _)| &*entry.name);
    let known: BTreeSet<&str> =
        names.chain(choices.iter().map(|choice| &*choice.entry.name)).collect();
    let mut unknown: Vec<String> =
        found.keys().filter(|name| !known.contains(&***name)).cloned().collect();
    for Choice { entry, .. } in &choices {
        let held = partitions_in(found, entry).into_iter().flatten();
        let beyond = held.filter(|(number, _)| **number >= entry.config.partitions);
        unknown.extend(
            beyond.map(|(number, _)| format!("{}/{}", entry.name, partition_dir_name(*number))),
        );
    }
    (choices, unknown)
}

/// The partitions of a topic of which there are segments, with their number.
pub(super) fn partitions_in<'a>(
    found: &'a Found,
    entry: &TopicEntry,
) -> Option<&'a BTreeMap<u32, u64>> {
    found.get(&*entry.name)?.get(&entry.id)
}

fn of_entry(entry: &TopicEntry, counts_all: bool, found: &Found) -> Candidate {
    let partitions = partitions_in(found, entry);
    let mut entry = entry.clone();
    let held = record_bytes_max(entry.config.segment_bytes);
    let config_lost = entry.config.validate(held).is_err();
    if config_lost {
        entry.config = unknown_config(1);
    }
    if counts_all {
        let needed = partitions.map_or(0, partitions_of);
        entry.config.partitions = entry.config.partitions.max(needed);
    }
    let choice = Choice { entry, config_lost };
    Candidate { choice, segments: partitions.map_or(0, segments_of) }
}

fn of_directory(name: &str, id: TopicId, partitions: &BTreeMap<u32, u64>) -> Candidate {
    let config = unknown_config(partitions_of(partitions));
    let choice = Choice { entry: TopicEntry { name: name.into(), id, config }, config_lost: true };
    Candidate { choice, segments: segments_of(partitions) }
}

/// The settings of a topic whose entry is lost: the defaults, but without retention.
fn unknown_config(partitions: u32) -> TopicConfig {
    TopicConfig::new(partitions).retention(std::time::Duration::MAX)
}

fn partitions_of(partitions: &BTreeMap<u32, u64>) -> u32 {
    partitions.keys().next_back().map_or(0, |last| last.saturating_add(1))
}

fn segments_of(partitions: &BTreeMap<u32, u64>) -> u64 {
    partitions.values().fold(0, |sum, segments| sum.saturating_add(*segments))
}

#[cfg(test)]
mod tests;

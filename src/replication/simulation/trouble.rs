//! Trouble of disks, clocks and ends: each kind happens in groups of its own, and is counted.
//!
//! Owns: the kinds, and what each does to a machine. Must not know: what must be true.

use std::io::ErrorKind;
use std::time::Duration;

use super::super::log_key::LogKey;
use super::group::Group;
use super::machine::{KEYS, SEGMENT_BYTES};
use super::truth::Violation;
use super::weather::{CALM, Weather};
use super::{INTERVAL, World};
use crate::config::Durability;
use crate::random::Random;
use crate::storage::disk::{Fault, Operation, PowerCut};

/// How much a clock may be ahead of another, in seconds.
pub(super) const CLOCKS_DIFFER: u64 = 3 * 60 * 60;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// A disk has room for little, or has room again. A member that has none ends.
    Full,
    /// A call of a disk fails, once. After a failed sync what it was to make durable may be lost.
    Failing,
    /// Power is lost at level `Interval`.
    Interval,
    /// A member ends as it should, and often the machine then loses power.
    Ending,
    /// Topics of which only the last record of each key is kept.
    Compacting,
    /// Clocks differ by hours and jump, and records are removed when they are old.
    Ageing,
    /// A byte before the last batch of a log changes, in the segment that takes the appends.
    RotInTail,
    /// The same in `__meta` of one member. If it cannot be opened any more, its disk is replaced.
    RotInMeta,
}

impl Trouble {
    pub(super) const ALL: [Self; 8] = [
        Self::Full,
        Self::Interval,
        Self::Ending,
        Self::RotInTail,
        Self::RotInMeta,
        Self::Failing,
        Self::Compacting,
        Self::Ageing,
    ];

    /// A group that has it.
    pub(super) fn world(self, seed: u64) -> World {
        let mut random = Random::new(seed);
        let weather = Weather { losses: 40, crashes: 6, leads: 6, ..CALM };
        let mut level = |levels: &[Durability]| *random.pick(levels);
        let (sync, os) = (Durability::Sync, Durability::Os);
        let (durability, weather) = match self {
            Self::Full => (level(&[sync, os, INTERVAL]), Weather { troubles: 25, ..weather }),
            Self::Failing => (level(&[sync, os, INTERVAL]), Weather { troubles: 15, ..weather }),
            Self::Interval => (INTERVAL, Weather { troubles: 2, ..weather }),
            Self::Ending => (level(&[os, INTERVAL]), Weather { troubles: 25, ..weather }),
            Self::Compacting => {
                let weather = Weather { leads: 12, troubles: 60, ..weather };
                (level(&[sync, os]), weather)
            }
            Self::Ageing => (level(&[sync, os]), Weather { troubles: 25, ..weather }),
            Self::RotInTail => (level(&[sync, os]), Weather { troubles: 15, ..weather }),
            Self::RotInMeta => (level(&[sync, os]), Weather { troubles: 3, ..weather }),
        };
        let weather = Weather { trouble: Some(self), ..weather };
        World { members: 3, durability, weather, seed }
    }

    /// What topics groups have that meet it.
    pub(super) fn topics(self) -> &'static [(&'static str, u32)] {
        match self {
            Self::Compacting => &[("keyed", 1)],
            Self::Ageing => &[("ageing", 1), ("plain", 1)],
            _ => &super::machine::TOPICS,
        }
    }
}

impl Group {
    /// So often the trouble of this group has happened.
    fn counts(&mut self) {
        self.troubles += 1;
    }

    pub(super) fn meets(&mut self, index: usize, trouble: Trouble) -> Result<(), Violation> {
        match trouble {
            Trouble::Full => self.fill(index),
            Trouble::Failing => self.fail(index),
            Trouble::Interval => {
                let cut = PowerCut::any(&mut || self.random.next());
                self.counts();
                self.crash(index, Some(cut));
            }
            Trouble::Ending => self.end_well(index),
            Trouble::Compacting => self.compact(index)?,
            Trouble::Ageing => self.jump(index)?,
            Trouble::RotInTail => self.rot_in_tail(index)?,
            Trouble::RotInMeta => self.rot_in_meta()?,
        }
        Ok(())
    }

    fn fill(&mut self, index: usize) {
        let more = self.random.below(SEGMENT_BYTES);
        let machine = &mut self.machines[index];
        if machine.run.is_none() {
            return;
        }
        let more = (!machine.is_full).then_some(more);
        machine.limit(more);
        self.say(|| format!("machine {index} has room for {more:?}"));
    }

    fn fail(&mut self, index: usize) {
        const CALLS: [Operation; 7] = [
            Operation::Write,
            Operation::Sync,
            Operation::SyncDir,
            Operation::Create,
            Operation::Allocate,
            Operation::Remove,
            Operation::Read,
        ];
        let operation = *self.random.pick(&CALLS);
        let fault = Fault::once(operation, ErrorKind::Other).after(self.random.below(4));
        if self.machines[index].run.is_some() {
            self.machines[index].disk.inject(fault);
            self.machines[index].is_failing = true;
            self.say(|| format!("machine {index}: a {operation:?} will fail"));
        }
    }

    fn end_well(&mut self, index: usize) {
        if self.machines[index].run.is_none() {
            return;
        }
        let cut = (self.random.below(4) > 0).then(|| PowerCut::any(&mut || self.random.next()));
        self.say(|| format!("machine {index} ends, then {cut:?}"));
        if self.machines[index].end(cut, &mut self.random) {
            self.counts();
        }
    }

    /// The background work of a broker whose clock has moved on.
    fn compact(&mut self, index: usize) -> Result<(), Violation> {
        let clock = self.machines[index].clock.clone();
        let mut removed = 0;
        self.with(index, |run| {
            let count = |run: &super::machine::Run| {
                let cores = run.keys().into_iter().filter_map(|key| run.core(key));
                let each = cores.filter_map(|core| core.compactor().stats());
                each.map(|stats| stats.records_removed).sum::<u64>()
            };
            let before = count(run);
            clock.advance(Duration::from_secs(61));
            run.broker.tick().unwrap();
            run.notice_all();
            removed = count(run).saturating_sub(before);
        })?;
        if removed > 0 {
            self.counts();
        }
        Ok(())
    }

    fn jump(&mut self, index: usize) -> Result<(), Violation> {
        let by = Duration::from_secs(self.random.below(CLOCKS_DIFFER));
        let clock = self.machines[index].clock.clone();
        let mut moved = 0;
        self.with(index, |run| {
            let starts = |run: &super::machine::Run| {
                let cores = run.keys().into_iter().filter_map(|key| run.core(key));
                cores.map(|core| core.log_start()).sum::<u64>()
            };
            let before = starts(run);
            clock.advance(by);
            run.broker.tick().unwrap();
            run.notice_all();
            moved = starts(run) - before;
        })?;
        if moved > 0 {
            self.counts();
        }
        Ok(())
    }

    fn rot_in_tail(&mut self, index: usize) -> Result<(), Violation> {
        let Some(run) = &self.machines[index].run else { return Ok(()) };
        let keys: Vec<LogKey> =
            run.keys().into_iter().filter(|key| matches!(key, LogKey::Partition { .. })).collect();
        let Some(key) = keys.get(self.random.index(keys.len().max(1))).copied() else {
            return Ok(());
        };
        self.rot_before_the_last_batch(index, key)
    }

    /// All but one member keep what they have.
    fn rot_in_meta(&mut self) -> Result<(), Violation> {
        let index = *self.rotten_meta.get_or_insert_with(|| self.random.index(self.machines.len()));
        self.rot_before_the_last_batch(index, LogKey::Meta)
    }

    fn rot_before_the_last_batch(&mut self, index: usize, key: LogKey) -> Result<(), Violation> {
        if !self.machines[index].rot_in_tail(key, &mut self.random) {
            return Ok(());
        }
        self.say(|| format!("machine {index} rots before the last batch of {key:?}"));
        self.counts();
        (self.has_rotten, self.has_lost) = (true, true);
        if self.random.below(2) == 0 { self.scrub(index) } else { Ok(()) }
    }
}

/// The key of a record, by its value.
pub(super) fn key_of(value: &str) -> Option<&str> {
    let first = value.split(' ').next()?;
    KEYS.contains(&first).then_some(first)
}

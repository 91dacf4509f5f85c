//! What happens to a group at random.
//!
//! Owns: how often things happen, and the choice of each. Must not know: what must be true.

use super::super::log_key::LogKey;
use super::group::Group;
use super::machine::{Machine, TOPICS, Topics};
use super::truth::Violation;
use crate::config::Durability;
use crate::record::{LeaderEpoch, NodeId, Record};
use crate::storage::disk::PowerCut;

/// How often things happen, of a thousand steps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weather {
    pub(super) losses: u64,
    pub(super) crashes: u64,
    pub(super) power_cuts: u64,
    pub(super) leads: u64,
    pub(super) wipes: u64,
    pub(super) rot: u64,
    pub(super) starts: u64,
}

impl Group {
    pub(super) fn run(&mut self, steps: usize, weather: &Weather) -> Result<(), Violation> {
        for index in 0..self.machines.len() {
            self.start(index)?;
        }
        self.lead(0, LeaderEpoch(1))?;
        for _ in 0..steps {
            self.step(weather)?;
        }
        Ok(())
    }

    fn step(&mut self, weather: &Weather) -> Result<(), Violation> {
        let index = self.random.index(self.machines.len());
        let mut at = self.random.below(1_000);
        let mut is_due = |share: u64| {
            let is_due = at < share;
            at = at.saturating_sub(share);
            if is_due {
                at = u64::MAX;
            }
            is_due
        };
        if is_due(weather.crashes) {
            self.crash(index, None);
        } else if is_due(weather.power_cuts) {
            let cut = PowerCut::any(&mut || self.random.next());
            self.crash(index, Some(cut));
        } else if is_due(weather.leads) {
            let promised = self.runs().map(|run| run.shell.member().state().notes().promised().0);
            let epoch = promised.max().unwrap_or(0) + u32::from(self.random.below(3) > 0);
            self.lead(index, LeaderEpoch(epoch))?;
        } else if is_due(weather.wipes) {
            self.wipe(index);
        } else if is_due(weather.rot) {
            self.rot(index)?;
        } else if is_due(weather.starts) {
            self.move_start(index)?;
        } else if is_due(60) {
            self.start(index)?;
        } else if is_due(10) {
            let to = self.random.index(self.machines.len());
            self.cut.push((index, to));
            if self.random.below(2) == 0 {
                self.cut.clear();
            }
        } else if is_due(20) {
            self.change_topics(index)?;
        } else if is_due(15) {
            self.replace(index)?;
        } else if is_due(100) {
            self.with(index, |run| run.shell.resend())?;
        } else if is_due(70) {
            self.sync(index)?;
        } else if is_due(150) {
            self.append(index)?;
        } else {
            self.deliver(weather)?;
        }
        Ok(())
    }

    /// All but one keep their disks.
    fn wipe(&mut self, index: usize) {
        if self.machines.iter().map(Machine::wipes).sum::<u64>() == 0 {
            self.has_lost = true;
            self.machines[index].wipe(&mut self.random);
        }
    }

    /// Reading finds damage at once or later; after a crash, perhaps the opening does.
    fn rot(&mut self, index: usize) -> Result<(), Violation> {
        let (name, partitions) = *self.random.pick(&TOPICS);
        let partition = u32::try_from(self.random.below(partitions.into())).unwrap();
        let has_records = self.machines[index].run.as_ref().is_some_and(|run| {
            let log = run.shell.member().state().logs().get(run.topics.key(name, partition));
            log.is_some_and(|log| log.end() > 0)
        });
        if !has_records {
            return Ok(());
        }
        let has_rotten = self.machines[index].rot(name, partition, &mut self.random);
        self.has_rotten |= has_rotten;
        self.has_lost |= has_rotten;
        if has_rotten && self.random.below(2) == 0 {
            self.scrub(index)?;
        }
        Ok(())
    }

    fn replace(&mut self, index: usize) -> Result<(), Violation> {
        let node = NodeId(self.random.below(self.machines.len() as u64));
        self.with(index, |run| run.shell.replace(node))
    }

    /// Creates a log, or deletes the one that is deleted in a run, which is never created again.
    fn change_topics(&mut self, index: usize) -> Result<(), Violation> {
        let (name, partitions) = *self.random.pick(&TOPICS);
        let partition = u32::try_from(self.random.below(partitions.into())).unwrap();
        let (deletes, was_deleted) = (self.random.below(4) == 0, self.has_deleted);
        let mut has_deleted = false;
        self.with(index, |run| {
            let key = run.topics.key(name, partition);
            let exists = run.shell.member().state().logs().get(key).is_some();
            let is_deleted_once = (name, partition) == ("plain", 1);
            let value = match exists {
                true if deletes && is_deleted_once => Topics::deletion(name, partition),
                false if !(was_deleted && is_deleted_once) => Topics::creation(name, partition),
                _ => return,
            };
            if Self::leads(run) {
                has_deleted = exists;
                drop(run.broker.producer().enqueue(Record::to("meta").value(&value)).unwrap());
                run.shell.notice(LogKey::Meta);
            }
        })?;
        self.has_deleted |= has_deleted;
        Ok(())
    }

    fn append(&mut self, index: usize) -> Result<(), Violation> {
        let records = 1 + self.random.below(3);
        let pad = *self.random.pick(&[5, 400, 2_000, 5_000]);
        let (number, choice) = (self.appended, self.random.next());
        self.appended += records;
        self.with(index, |run| {
            let Some(epoch) = run.shell.member().role().leads() else { return };
            let logs = run.shell.member().state().logs().iter();
            let keys: Vec<LogKey> = logs.map(|(key, _)| key).collect();
            let key = keys[usize::try_from(choice % keys.len() as u64).unwrap()];
            let (name, partition) = run.topics.name(key);
            let values: Vec<String> = (number..number + records)
                .map(|number| format!("{number} in {} {}", epoch.0, "x".repeat(pad)))
                .collect();
            let records =
                values.iter().map(|value| Record::to(name).partition(partition).value(value));
            let producer = run.broker.producer_builder();
            let producer = producer.durability(Durability::Os).build().unwrap();
            producer.send_batch(records).unwrap();
            run.shell.notice(key);
        })
    }

    /// Makes a log durable, or does a round of the broker's background work.
    fn sync(&mut self, index: usize) -> Result<(), Violation> {
        let choice = self.random.next();
        self.with(index, |run| {
            let logs = run.shell.member().state().logs().iter();
            let keys: Vec<LogKey> = logs.map(|(key, _)| key).collect();
            if choice.is_multiple_of(4) {
                run.broker.tick().unwrap();
                for key in keys {
                    run.shell.notice(key);
                }
                return;
            }
            let key = keys[usize::try_from(choice % keys.len() as u64).unwrap()];
            Self::sync_log(run, key);
        })
    }

    /// Removes the oldest records of a log of the leader.
    fn move_start(&mut self, index: usize) -> Result<(), Violation> {
        let choice = self.random.next();
        let Some(run) = &self.machines[index].run else { return Ok(()) };
        let key = run.topics.key("plain", 0);
        let Some(log) = run.shell.member().state().logs().get(key) else { return Ok(()) };
        let (start, end) = (log.history.start(), log.watermark);
        if Self::leads(run) && end > start {
            self.remove_below(index, start + 1 + choice % (end - start))?;
        }
        Ok(())
    }

    fn deliver(&mut self, weather: &Weather) -> Result<(), Violation> {
        let Weather { losses, crashes, power_cuts, .. } = *weather;
        if self.flight.is_empty() {
            return Ok(());
        }
        // Mostly in order, so that much is done.
        let index =
            if self.random.below(4) == 0 { self.random.index(self.flight.len()) } else { 0 };
        let is_kept = self.random.below(20) == 0;
        let frame = self.flight.remove(index);
        if is_kept {
            self.flight.push(frame.clone());
        }
        if self.random.below(1_000) < losses {
            return Ok(());
        }
        let to = usize::try_from(frame.envelope.to.0).unwrap();
        if self.random.below(1_000) >= crashes || self.machines[to].run.is_none() {
            return self.arrive(&frame);
        }
        // It dies in the middle of what it does then.
        self.stop_soon(to);
        self.arrive(&frame)?;
        if self.machines[to].disk.is_off() {
            let cut = self.random.below(1_000) < 25 * power_cuts;
            let cut = cut.then(|| PowerCut::any(&mut || self.random.next()));
            self.crash(to, cut);
        }
        self.machines[to].disk.crash_at(u64::MAX);
        Ok(())
    }
}

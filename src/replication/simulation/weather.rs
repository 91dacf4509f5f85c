//! What happens to a group at random.
//!
//! Owns: how often things happen, and the choice of each. Must not know: what must be true.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::log_key::LogKey;
use super::group::Group;
use super::machine::{KEYS, Machine, PARTITIONS_MAX, Run, SEGMENT_BYTES, TOPICS};
use super::trouble::{CLOCKS_DIFFER, Trouble};
use super::truth::Violation;
use crate::broker::catalog::{CatalogChange, CatalogState, ProducerEntry};
use crate::config::{Cleanup, Durability, TopicConfig};
use crate::error::Result;
use crate::format::TopicId;
use crate::group::offsets::{Committed, OffsetChange};
use crate::record::{LeaderEpoch, NodeId};
use crate::storage::disk::PowerCut;

/// How old records of a topic get that are removed then.
const AGE: Duration = Duration::from_secs(60 * 60);

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
    /// Of many changes of the internal logs at once, so that these are cleaned up.
    pub(super) floods: u64,
    /// Of the trouble that a group has.
    pub(super) troubles: u64,
    pub(super) trouble: Option<Trouble>,
}

pub(super) const CALM: Weather = Weather {
    losses: 0,
    crashes: 0,
    power_cuts: 0,
    leads: 5,
    wipes: 0,
    rot: 0,
    starts: 0,
    floods: 0,
    troubles: 0,
    trouble: None,
};

impl Group {
    pub(super) fn run(&mut self, steps: usize, weather: &Weather) -> Result<(), Violation> {
        self.trouble = weather.trouble;
        for index in 0..self.machines.len() {
            if self.trouble == Some(Trouble::Ageing) {
                let ahead = self.random.below(CLOCKS_DIFFER);
                self.machines[index].clock.advance(Duration::from_secs(ahead));
            }
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
        } else if is_due(weather.floods) {
            self.flood(index)?;
        } else if is_due(weather.troubles) {
            weather.trouble.map_or(Ok(()), |trouble| self.meets(index, trouble))?;
        } else if is_due(60) {
            self.start(index)?;
        } else if is_due(10) {
            let to = self.random.index(self.machines.len());
            self.cut.push((index, to));
            if self.random.below(2) == 0 {
                self.cut.clear();
            }
        } else if is_due(25) {
            self.change_topics(index)?;
        } else if is_due(24) {
            self.commit(index)?;
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

    fn leader(&self) -> Option<usize> {
        let leads = |machine: &Machine| machine.run.as_ref().is_some_and(Self::leads);
        self.machines.iter().position(leads)
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
            let key = run.key(name, partition);
            key.and_then(|key| run.core(key)).is_some_and(|core| core.log_end() > 0)
        });
        if !has_records {
            return Ok(());
        }
        let has_rotten = self.machines[index].rot(name, partition, &mut self.random);
        if has_rotten {
            self.say(|| format!("machine {index} rots: {name} {partition}"));
        }
        self.has_rotten |= has_rotten;
        self.has_lost |= has_rotten;
        if has_rotten && self.random.below(2) == 0 {
            self.scrub(index)?;
        }
        Ok(())
    }

    fn replace(&mut self, index: usize) -> Result<(), Violation> {
        let node = NodeId(self.random.below(self.machines.len() as u64));
        self.with(index, |run| _ = run.shell.replace(node))
    }

    /// The leader creates a topic, or grows, alters or deletes one, and waits for nobody.
    fn change_topics(&mut self, index: usize) -> Result<(), Violation> {
        let topics = self.trouble.map_or(&TOPICS[..], Trouble::topics);
        let (name, partitions) = *self.random.pick(topics);
        let (choice, is_noticed) = (self.random.below(10), self.random.below(4) > 0);
        self.with(index, |run| {
            if Self::leads(run) {
                let _ = change_topic(run, name, partitions, choice);
                if is_noticed {
                    run.shell.notice(LogKey::Meta);
                }
            }
        })
    }

    /// A group commits where it is.
    fn commit(&mut self, index: usize) -> Result<(), Violation> {
        let (choice, is_noticed) = (self.random.next(), self.random.below(4) > 0);
        self.with(index, |run| {
            let keys = run.keys();
            let key = keys[usize::try_from(choice % keys.len() as u64).unwrap()];
            if let (true, LogKey::Partition { topic, partition }) = (Self::leads(run), key) {
                let topic = TopicId(topic.to_le_bytes());
                let commits =
                    vec![commit(format!("group {}", choice % 5), topic, partition, choice % 100)];
                let offsets = run.broker.run().coordinator().offsets();
                let _ = offsets.log().append(commits);
                if is_noticed {
                    run.shell.notice(LogKey::Offsets);
                }
            }
        })
    }

    /// So many changes of one of the internal logs that it is cleaned up soon. Some of what they define
    /// is defined again the next time, and some is not.
    pub(super) fn flood(&mut self, index: usize) -> Result<(), Violation> {
        let index = self.leader().unwrap_or(index);
        let choice = self.random.next();
        self.with(index, |run| {
            if !Self::leads(run) {
                return;
            }
            let names = (0..400).map(|number| {
                let kind = if number < 20 { choice % 7 } else { 0 };
                format!("{number:03} {kind} {}", "n".repeat(180))
            });
            let logs = run.broker.run().logs();
            if choice.is_multiple_of(2) {
                let from = logs.catalog().read(CatalogState::next_producer_id).unwrap();
                let entries = names.zip(from..).map(|(name, id)| {
                    let name: Arc<str> = name.into();
                    let known = logs.catalog().read(|it| it.producers.get(&name).copied());
                    let first = ProducerEntry { id, epoch: 0 };
                    let next =
                        known.map_or(first, |it| ProducerEntry { epoch: it.epoch + 1, ..it });
                    CatalogChange::Producer(name, next)
                });
                let _ = logs.catalog().append(entries.collect());
                run.shell.notice(LogKey::Meta);
            } else {
                let topic = TopicId([7; 16]);
                let commits = names.map(|name| commit(name, topic, 0, choice % 1_000));
                let _ = logs.coordinator().offsets().log().append(commits.collect());
                run.shell.notice(LogKey::Offsets);
            }
        })
    }

    fn append(&mut self, index: usize) -> Result<(), Violation> {
        let records = 1 + self.random.below(3);
        let pad = *self.random.pick(&[5, 400, 2_000, 5_000]);
        let (number, choice) = (self.appended, self.random.next());
        let is_noticed = self.random.below(4) > 0;
        self.appended += records;
        let index = match self.trouble {
            // The one that leads, so that logs have several segments.
            Some(_) => self.leader().unwrap_or(index),
            None => index,
        };
        self.with(index, |run| {
            let Some(epoch) = run.leads() else { return };
            let keys = run.keys();
            let key = keys[usize::try_from(choice % keys.len() as u64).unwrap()];
            if !matches!(key, LogKey::Partition { .. }) {
                return;
            }
            let is_keyed = run.core(key).is_some_and(|core| &*core.origin.topic == "keyed");
            let values: Vec<String> = (number..number + records)
                .map(|number| {
                    let value = format!("{number} in {} {}", epoch.0, "x".repeat(pad));
                    let key = KEYS[usize::try_from(number % 7 % 4).unwrap()];
                    if is_keyed { format!("{key} {value}") } else { value }
                })
                .collect();
            let _ = run.append(key, &values);
            if is_noticed {
                run.shell.notice(key);
            }
        })
    }

    /// Makes a log durable, or does a round of the broker's background work.
    fn sync(&mut self, index: usize) -> Result<(), Violation> {
        let choice = self.random.next();
        let clock = self.machines[index].clock.clone();
        let machine = &self.machines[index];
        let may_fail = self.has_rotten || machine.is_full || machine.is_failing;
        self.with(index, |run| {
            if choice.is_multiple_of(4) {
                // Every minute, what was interrupted is finished.
                clock.advance(Duration::from_secs(choice % 100));
                let done = run.broker.tick();
                assert!(done.is_ok() || may_fail, "{done:?}");
                run.notice_all();
                return;
            }
            let keys = run.keys();
            let key = keys[usize::try_from(choice % keys.len() as u64).unwrap()];
            run.shell.notice(key);
            Self::sync_log(run, key);
        })
    }

    /// Removes the oldest records of a log of the leader.
    fn move_start(&mut self, index: usize) -> Result<(), Violation> {
        let choice = self.random.next();
        let Some(run) = &self.machines[index].run else { return Ok(()) };
        let Some(key) = run.key("plain", 0) else { return Ok(()) };
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
        // Nothing is promised of a member that is killed between a sync that fails and its note of that.
        let may_die = self.machines[to].run.is_some() && !self.machines[to].is_failing;
        if self.random.below(1_000) >= crashes || !may_die {
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

fn commit(group: String, topic: TopicId, partition: u32, offset: u64) -> OffsetChange {
    let committed = Committed { offset, leader_epoch: 0, incarnation: 0 };
    OffsetChange::Commit { group: group.into(), topic, partition, committed }
}

fn change_topic(run: &Run, name: &str, partitions: u32, choice: u64) -> Result<()> {
    let topics = run.broker.run().topics();
    let Ok(topic) = run.broker.run().topic(name) else {
        let config = TopicConfig::new(partitions).segment_bytes(SEGMENT_BYTES);
        let config = match name {
            "synced" => config.durability(Durability::Sync),
            "keyed" => config.cleanup(Cleanup::Compact).min_dirty_ratio(0.1),
            "ageing" => config.retention(AGE).segment_age(AGE),
            _ => config,
        };
        return topics.begin_create(name, config, &BTreeMap::new()).map(drop);
    };
    let has = topic.config.partitions;
    match choice {
        0..2 => topics.begin_delete(name).map(drop),
        2..5 if has < PARTITIONS_MAX => {
            run.broker.run().begin_add_partitions(name, has + 1).map(drop)
        }
        _ => {
            let bytes = SEGMENT_BYTES + choice * 100;
            topics.begin_alter(name, |config| config.segment_bytes(bytes)).map(drop)
        }
    }
}

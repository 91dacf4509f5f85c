//! Goal: everything together keeps its promises: appends, retention, compaction, deleted records,
//! altered, grown, deleted and re-created topics, a group whose members come, go, stall and commit,
//! a broker that is closed, dropped or killed, wall clocks that are wrong when it is opened and set
//! right later, and a machine that sleeps.
//!
//! Method: a seeded random walk over the public interface, on a manual clock and in one thread,
//! beside an oracle that knows what was appended and what each setting allows to go. After every
//! step each log's ends are checked, and the contents of one log or, where the step could have
//! changed any, of all. A kill is a copy of the directory under an open broker: what the page cache
//! has when the process dies. `LOGPOND_SEED` replays one walk; `LOGPOND_LIVES` and `LOGPOND_STEPS`
//! make a campaign of it:
//!
//! `LOGPOND_LIVES=400 LOGPOND_STEPS=1500 cargo test --release --test models life_model:: --
//! --nocapture`
//!
//! Not covered: threads (`concurrency.rs`), power cuts and failing disks (`src/broker/tests`),
//! static members, seeks and callbacks that die (`group_model.rs`), that retention and compaction
//! remove all that they should (their own tests).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod clocks;
mod group;
mod oracle;
mod readers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use crate::common::*;
use crate::show_last_steps;
use clocks::{Clocks, Mark};
use group::{Member, Shared};
use logpond::{
    Broker, Cleanup, Clock, Commits, Consumer, Error, Gap, ManualClock, Message, Offsets,
    Partition, ReadMode, Rebalance, Record, StartAt, TimestampType, TopicConfig, TopicPartition,
};
use oracle::{Appended, Log, Stored, TopicModel, check_contents, check_start};
use readers::Reader;
use tempfile::TempDir;

const TOPICS: [&str; 3] = ["m-a", "m-b", "m-c"];
const CLEANUPS: [Cleanup; 3] = [Cleanup::Delete, Cleanup::Compact, Cleanup::CompactAndDelete];
const TIMESTAMPS: [TimestampType; 2] = [TimestampType::CreateTime, TimestampType::AppendTime];
const GROUP: &str = "g";
const INTERVAL: Duration = Duration::from_secs(30);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);
/// How long a group is kept that nobody uses, at least.
const WEEK: Duration = Duration::from_secs(7 * 86_400);
const MEMBERS_MAX: usize = 4;
const PARTITIONS_MAX: u32 = 4;

struct Walk {
    rng: Rng,
    clocks: Clocks,
    dir: TempDir,
    broker: Option<Broker>,
    topics: BTreeMap<&'static str, TopicModel>,
    logs: BTreeMap<TopicPartition, Log>,
    eras: u64,
    shared: Arc<Mutex<Shared>>,
    members: BTreeMap<u64, Member>,
    next_member: u64,
    /// When a member subscribed for the group, as [`Clocks::shown`] says. `None` before, and once
    /// the group has expired.
    begun: Option<SystemTime>,
    /// How often a group has expired since the opening.
    expired: u64,
    readers: Vec<Reader>,
    steps: Vec<String>,
    tally: BTreeMap<&'static str, u64>,
}

fn open(dir: &TempDir, clocks: &Clocks, rng: &mut Rng) -> Broker {
    let mode = if rng.one_in(3) { ReadMode::Copy } else { ReadMode::Mapped };
    quiet(dir.path()).clock(clocks.manual.clone()).read_mode(mode).open().unwrap()
}

impl Walk {
    fn new(mut rng: Rng) -> Self {
        let (dir, clocks) = (temp_dir(), Clocks::new());
        let broker = Some(open(&dir, &clocks, &mut rng));
        Self {
            rng,
            clocks,
            dir,
            broker,
            topics: BTreeMap::new(),
            logs: BTreeMap::new(),
            eras: 0,
            shared: Arc::default(),
            members: BTreeMap::new(),
            next_member: 0,
            begun: None,
            expired: 0,
            readers: Vec::new(),
            steps: Vec::new(),
            tally: BTreeMap::new(),
        }
    }

    fn broker(&self) -> Broker {
        self.broker.clone().expect("an open broker")
    }

    fn partition(&self, at: &TopicPartition) -> Partition {
        self.broker().topic(&at.topic).unwrap().partition(at.partition).unwrap()
    }

    fn count(&mut self, what: &'static str, by: u64) {
        *self.tally.entry(what).or_default() += by;
    }

    fn step(&mut self) {
        let what = self.rng.below(100);
        let some = (!self.logs.is_empty()).then(|| self.rng.index(self.logs.len()));
        let some = some.map(|index| self.logs.keys().nth(index).unwrap().clone());
        let member = (!self.members.is_empty()).then(|| self.rng.index(self.members.len()));
        let member = member.map(|index| *self.members.keys().nth(index).unwrap());
        self.steps.push(format!("{what} {some:?} {member:?}"));
        let mut touches_all = false;
        match (what, &some, member) {
            (0..=2, _, _) | (_, None, _) => {
                self.create_or_delete();
                touches_all = true;
            }
            (3..=39, Some(at), _) => self.append(&at.clone()),
            (40..=45, _, _) => {
                // Mostly less than the absence that evicts a member, now and then far more.
                let seconds =
                    if self.rng.one_in(4) { self.rng.below(1_200) } else { self.rng.below(9) };
                self.clocks.pass(Duration::from_secs(seconds));
            }
            (46, _, _) => self.clocks.sleep(Duration::from_secs(self.rng.below(30_000))),
            (47, _, _) => self.clocks.set(&mut self.rng),
            (48..=52, _, _) => {
                self.broker().tick().unwrap();
                self.note_expiry();
                touches_all = true;
            }
            (53..=55, Some(at), _) => self.compact_now(&at.clone()),
            (56 | 57, Some(at), _) => self.delete_records(&at.clone()),
            (58 | 59, Some(at), _) => self.alter(&at.clone()),
            (60, Some(at), _) => self.add_partitions(&at.clone()),
            (61, _, _) => {
                self.broker().admin().enforce_retention_now().unwrap();
                touches_all = true;
            }
            (62..=64, _, _) if self.members.len() < MEMBERS_MAX => self.join(),
            (65, _, Some(id)) => self.leave(id),
            (66..=70, _, Some(id)) => self.commit(id),
            (71 | 72, _, _) => self.open_or_drop_reader(),
            (73..=79, _, _) => self.use_reader(),
            (80..=96, _, Some(id)) => drop(self.poll(id)),
            (97, _, _) => {
                let is_kill = self.rng.one_in(2);
                self.reopen(is_kill);
                touches_all = true;
            }
            (98, Some(at), _) => self.verify(&at.topic.clone()),
            _ => {}
        }
        self.check(some.filter(|_| !touches_all).as_ref());
    }

    // ---- topics -----------------------------------------------------------------------------

    fn create_or_delete(&mut self) {
        let name = TOPICS[self.rng.index(TOPICS.len())];
        let admin = self.broker().admin();
        if self.topics.contains_key(name) {
            if self.rng.one_in(2) {
                return;
            }
            admin.delete_topic(name).unwrap();
            self.topics.remove(name);
            self.logs.retain(|at, _| *at.topic != *name);
            let mut shared = self.shared.lock().unwrap();
            shared.committed.retain(|at, _| *at.topic != *name);
            shared.commit_times.retain(|at, _| *at.topic != *name);
            shared.starts.retain(|at, _| *at.topic != *name);
            shared.eras.remove(name);
            return;
        }
        let cleanup = CLEANUPS[self.rng.index(3)];
        let partitions = 1 + u32::try_from(self.rng.below(2)).unwrap();
        let topic = TopicModel {
            era: self.eras,
            partitions,
            cleanup,
            was_compacted: cleanup != Cleanup::Delete,
            retention: some_retention(&mut self.rng),
            has_byte_limit: self.rng.one_in(3),
            tombstones: some_retention(&mut self.rng),
            timestamps: TIMESTAMPS[self.rng.index(2)],
        };
        self.eras += 1;
        let mut config = small_topic(partitions)
            .cleanup(cleanup)
            .retention(topic.retention)
            .tombstone_retention(topic.tombstones)
            .timestamps(topic.timestamps);
        if topic.has_byte_limit {
            config = config.retention_bytes(20_000 + self.rng.below(60_000));
        }
        admin.create_topic(name, config).unwrap();
        self.shared.lock().unwrap().eras.insert(name.to_owned(), topic.era);
        self.topics.insert(name, topic);
        (0..partitions).for_each(|number| self.add_log(tp(name, number)));
    }

    fn add_log(&mut self, at: TopicPartition) {
        self.shared.lock().unwrap().starts.insert(at.clone(), 0);
        self.logs.insert(at, Log::default());
    }

    fn alter(&mut self, at: &TopicPartition) {
        let topic = self.topics.get_mut(&*at.topic).unwrap();
        let retention = some_retention(&mut self.rng);
        let tombstones = some_retention(&mut self.rng);
        let segment = SMALL_SEGMENT << self.rng.below(2);
        let cleanup = CLEANUPS[self.rng.index(3)];
        let change = |config: TopicConfig| {
            let config = config.retention(retention).tombstone_retention(tombstones);
            config.segment_bytes(segment).cleanup(cleanup)
        };
        self.broker.as_ref().unwrap().admin().alter_topic(&at.topic, change).unwrap();
        topic.retention = retention;
        topic.tombstones = topic.tombstones.min(tombstones);
        topic.cleanup = cleanup;
        topic.was_compacted |= cleanup != Cleanup::Delete;
    }

    fn add_partitions(&mut self, at: &TopicPartition) {
        let topic = self.topics.get_mut(&*at.topic).unwrap();
        if topic.partitions == PARTITIONS_MAX {
            return;
        }
        let number = topic.partitions;
        topic.partitions += 1;
        self.broker().admin().add_partitions(&at.topic, number + 1).unwrap();
        self.add_log(tp(&at.topic, number));
    }

    // ---- records ----------------------------------------------------------------------------

    fn append(&mut self, at: &TopicPartition) {
        let may_lack_key = self.topics[&*at.topic].cleanup == Cleanup::Delete;
        // Now and then more than most polls take.
        let most = if self.rng.one_in(6) { 15 } else { 6 };
        let count = 1 + self.rng.index(most);
        let now = self.clocks.wall();
        // Late, or stamped by a clock that is ahead.
        let stamp = match self.rng.below(8) {
            0 => Some(now - MINUTE * u32::try_from(self.rng.below(10)).unwrap()),
            1 => Some(now + DAY),
            _ => None,
        };
        let given =
            stamp.filter(|_| self.topics[&*at.topic].timestamps == TimestampType::CreateTime);
        let time = given.unwrap_or(now);
        let records: Vec<Stored> = (0..count)
            .map(|_| {
                let lacks_key = may_lack_key && self.rng.one_in(3);
                let key = (!lacks_key).then(|| format!("key-{}", self.rng.below(12)).into_bytes());
                let most = if count > 6 { 800 } else { 1_500 };
                let length = if self.rng.one_in(5) { 0 } else { self.rng.index(most) };
                let value = (!self.rng.one_in(5)).then(|| self.rng.bytes(length));
                Stored { key, value, time }
            })
            .collect();
        let batch: Vec<Record<'_>> = records.iter().map(|it| it.record(given.is_some())).collect();
        let log = self.logs.get(at).unwrap();
        let range = self.partition(at).append_batch(&batch).unwrap();
        assert_eq!(range, log.end()..log.end() + count as u64, "{at}");
        self.count("records", count as u64);
        let (mark, truth) = (self.clocks.mark(), self.clocks.truth());
        let appended = || Appended { aged_from: time.min(now).min(truth), mark };
        let log = self.logs.get_mut(at).unwrap();
        log.records.extend(records);
        log.appended.resize_with(log.records.len(), appended);
    }

    fn compact_now(&mut self, at: &TopicPartition) {
        self.check(None);
        let result = self.broker().admin().compact_now(&at.topic);
        if self.topics[&*at.topic].cleanup == Cleanup::Delete {
            assert_eq!(refused_setting(result), "cleanup");
            return;
        }
        let removed = |walk: &Self| -> u64 {
            let of_topic = walk.logs.iter().filter(|(it, _)| it.topic == at.topic);
            of_topic.map(|(_, log)| log.removed.len() as u64).sum()
        };
        let before = removed(self);
        self.check(None);
        let report = result.unwrap();
        // Deleted records whose file is still there are removed too, and were not to be seen.
        let seen = removed(self) - before;
        let all_seen = self.logs.iter().all(|(it, log)| it.topic != at.topic || log.deleted == 0);
        assert!(seen <= report.records_removed, "{seen}: {report:?}");
        assert!(!all_seen || seen == report.records_removed, "{seen}: {report:?}");
        self.count("compacted away", report.records_removed);
        self.verify(&at.topic);
    }

    fn delete_records(&mut self, at: &TopicPartition) {
        let log = &self.logs[at];
        let before = log.start + self.rng.below(log.end() - log.start + 2);
        let end = log.end();
        let result = self.broker().admin().delete_records(at, before);
        if before > end {
            assert!(matches!(result, Err(Error::OffsetOutOfRange { .. })), "{result:?}");
        } else {
            assert_eq!(result.unwrap(), before);
            assert_eq!(self.partition(at).log_start_offset(), before, "{at}");
            self.logs.get_mut(at).unwrap().deleted = before;
        }
    }

    fn verify(&mut self, topic: &str) {
        let report = self.broker().admin().verify(topic).unwrap();
        assert!(report.is_ok(), "{topic}: {report:?}");
        self.count("verified", 1);
    }

    // ---- the broker's ends ------------------------------------------------------------------

    fn reopen(&mut self, is_kill: bool) {
        let copy = temp_dir();
        if is_kill {
            copy_dir(self.dir.path(), copy.path());
        }
        self.members.clear();
        self.readers.clear();
        self.shared.lock().unwrap().assigned.clear();
        let broker = self.broker.take().unwrap();
        let closes = self.rng.one_in(2);
        if closes {
            broker.close().unwrap();
        } else {
            drop(broker);
        }
        if is_kill {
            self.dir = copy;
        }
        self.count(if is_kill { "kills" } else { "ends" }, 1);
        self.clocks.restart(&mut self.rng);
        let broker = open(&self.dir, &self.clocks, &mut self.rng);
        let report = broker.recovery().clone();
        assert_eq!(report.clean_shutdown, closes && !is_kill);
        assert!(report.is_clean() && report.unknown.is_empty(), "{report:?}");
        self.broker = Some(broker);
        self.expired = 0;
        let names: Vec<_> = self.topics.keys().copied().collect();
        let infos = self.broker().admin().topics().unwrap();
        assert!(infos.iter().map(|it| &*it.name).eq(names.iter().copied()), "{infos:?}");
        for name in names {
            self.verify(name);
        }
        if self.logs.is_empty() {
            return;
        }
        let consumer = self.broker().consumer(GROUP).assign(self.logs.keys()).open().unwrap();
        for at in self.logs.keys() {
            let expected = self.shared.lock().unwrap().committed.get(at).copied();
            let found = consumer.committed(at).unwrap();
            // A position, and so a commit of it, may follow offsets without records.
            let is_same = found.zip(expected).is_some_and(|(found, expected)| {
                found >= expected && (expected..found).all(|it| self.logs[at].removed.contains(&it))
            });
            assert!(is_same || found == expected, "{at}: {found:?} instead of {expected:?}");
        }
    }

    // ---- the rules --------------------------------------------------------------------------

    /// Ends of all logs, and the contents of one or of all.
    fn check(&mut self, only: Option<&TopicPartition>) {
        let (broker, clocks) = (self.broker(), &self.clocks);
        for (at, log) in &mut self.logs {
            let topic = &self.topics[&*at.topic];
            let partition = broker.topic(&at.topic).unwrap().partition(at.partition).unwrap();
            let (start, end) = (partition.log_start_offset(), partition.log_end_offset());
            assert_eq!(end, log.end(), "{at}: another end");
            assert!((log.start..=end).contains(&start), "{at}: {start} after {}", log.start);
            check_start(at, topic, log, start, clocks);
            log.start = start;
            self.shared.lock().unwrap().starts.insert(at.clone(), start);
            if only.is_none_or(|only| only == at) {
                check_contents(at, topic, log, &partition, clocks);
            }
        }
        let shared = self.shared.lock().unwrap();
        let mut owned = BTreeSet::new();
        for (id, assigned) in &shared.assigned {
            if !self.members.contains_key(id) || self.is_overdue(*id) {
                continue; // who was evicted still believes to own what it had
            }
            for (at, (era, _)) in assigned {
                let is_current = shared.eras.get(&*at.topic) == Some(era);
                assert!(!is_current || owned.insert(at.clone()), "{at} is owned twice");
            }
        }
    }

    /// Once no member gets anything more, everything was handed out.
    fn end(&mut self) {
        self.join();
        let mut idle = 0;
        while idle < 4 {
            let ids: Vec<u64> = self.members.keys().copied().collect();
            let count: usize = ids.into_iter().map(|id| self.poll(id)).sum();
            idle = if count == 0 { idle + 1 } else { 0 };
        }
        self.check(None);
        self.end_readers();
        let shared = self.shared.lock().unwrap();
        let assigned: BTreeMap<_, _> = shared.assigned.values().flatten().collect();
        for (at, log) in &self.logs {
            let (_, next) = assigned.get(at).unwrap_or_else(|| panic!("{at} has no owner"));
            let rest = (*next..log.end()).find(|it| !log.removed.contains(it));
            assert_eq!(rest, None, "{at}: handed out to no member");
        }
        drop(shared);
        self.reopen(false);
        self.check(None);
        eprintln!("{:?}", self.tally);
    }
}

/// Some minutes, or some days.
fn some_retention(rng: &mut Rng) -> Duration {
    let unit = if rng.one_in(3) { DAY } else { MINUTE };
    unit * u32::try_from(1 + rng.below(30)).unwrap()
}

/// Says where a walk failed.
struct Trace(Walk);

impl Drop for Trace {
    fn drop(&mut self) {
        show_last_steps(&self.0.steps);
    }
}

#[test]
fn whatever_happens_to_a_broker_its_promises_hold() {
    let steps = from_env("LOGPOND_STEPS", 500);
    let mut rng = Rng::announced("whatever_happens_to_a_broker_its_promises_hold");
    let is_replay = std::env::var("LOGPOND_SEED").is_ok_and(|seed| seed != "fresh");
    let walks = from_env("LOGPOND_LIVES", if is_replay { 1 } else { 6 });
    for _ in 0..walks {
        let mut walk = Trace(Walk::new(rng.clone()));
        for _ in 0..steps {
            walk.0.step();
        }
        walk.0.end();
        let seed = rng.next();
        rng = Rng::new(seed);
        eprintln!("and on with LOGPOND_SEED={seed}");
    }
}

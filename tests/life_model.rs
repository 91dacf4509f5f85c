//! Goal: everything together keeps its promises: appends, retention, compaction, deleted records,
//! altered, grown, deleted and re-created topics, a group whose members come, go, stall and commit,
//! and a broker that is closed, dropped or killed.
//!
//! Method: a seeded random walk over the public interface, on a manual clock and in one thread,
//! beside an oracle that knows what was appended and what each setting allows to go. After every
//! step each log's ends are checked, and the contents of one log or, where the step could have
//! changed any, of all. A kill is a copy of the directory under an open broker: what the page cache
//! has when the process dies. `LOGPOND_SEED` replays one walk; `LOGPOND_LIVES` and `LOGPOND_STEPS`
//! make a campaign of it:
//!
//! `LOGPOND_LIVES=400 LOGPOND_STEPS=1500 cargo test --release --test life_model -- --nocapture`
//!
//! Not covered: threads (`concurrency.rs`), power cuts and failing disks (`src/broker/tests`),
//! static members, seeks and callbacks that die (`group_model.rs`), clocks that jump
//! (`retention.rs`), that retention and compaction remove all that they should (their own tests).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use common::*;
use logpond::{
    Broker, Cleanup, Commits, Consumer, Error, ManualClock, Message, Offsets, Partition, ReadMode,
    Rebalance, Record, TopicConfig, TopicPartition,
};
use tempfile::TempDir;

const TOPICS: [&str; 3] = ["m-a", "m-b", "m-c"];
const CLEANUPS: [Cleanup; 3] = [Cleanup::Delete, Cleanup::Compact, Cleanup::CompactAndDelete];
const GROUP: &str = "g";
const INTERVAL: Duration = Duration::from_secs(30);
const MINUTE: Duration = Duration::from_secs(60);
const MEMBERS_MAX: usize = 4;
const PARTITIONS_MAX: u32 = 4;

#[derive(Debug, Clone, PartialEq)]
struct Stored {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    time: SystemTime,
}

impl Stored {
    fn of(message: &Message) -> Self {
        let (key, value) = (message.key().map(<[u8]>::to_vec), message.value().map(<[u8]>::to_vec));
        Self { key, value, time: message.timestamp() }
    }

    fn record(&self) -> Record<'_> {
        let mut record = Record::new();
        if let Some(key) = &self.key {
            record = record.key(key);
        }
        if let Some(value) = &self.value {
            record = record.value(value);
        }
        record
    }
}

/// One partition as it should be.
#[derive(Default)]
struct Log {
    records: Vec<Stored>,
    /// The log start as it was last seen.
    start: u64,
    /// What `delete_records` was asked to delete.
    deleted: u64,
    /// What compaction was seen to have removed; never to be seen again.
    removed: BTreeSet<u64>,
}

impl Log {
    fn end(&self) -> u64 {
        self.records.len() as u64
    }

    fn at(&self, offset: u64) -> &Stored {
        &self.records[usize::try_from(offset).unwrap()]
    }

    fn is_latest(&self, offset: u64) -> bool {
        let key = &self.at(offset).key;
        key.is_none() || (offset + 1..self.end()).all(|later| self.at(later).key != *key)
    }
}

/// What a topic's settings have allowed.
struct TopicModel {
    /// Which of the topics that had this name.
    era: u64,
    partitions: u32,
    cleanup: Cleanup,
    /// It was compacted at some time.
    was_compacted: bool,
    retention: Duration,
    has_byte_limit: bool,
    /// The shortest there was.
    tombstones: Duration,
}

/// What the callbacks of members and the walk both know.
#[derive(Default)]
struct Shared {
    committed: Offsets,
    starts: Offsets,
    eras: BTreeMap<String, u64>,
    /// Of each member's partitions: the era of the topic, and the next offset it is to be handed.
    told: BTreeMap<u64, BTreeMap<TopicPartition, (u64, u64)>>,
}

impl Shared {
    fn hear(&mut self, who: u64, event: &Rebalance<'_>, commits: &Commits<'_>) {
        let told = self.told.entry(who).or_default();
        match event {
            Rebalance::Assigned(partitions) => {
                for at in *partitions {
                    let Some(era) = self.eras.get(&*at.topic) else { continue };
                    // Where the log began when the member joined may be gone since: a gap follows.
                    let position = commits.position(at).expect("a position");
                    let from = self.committed.get(at).copied().unwrap_or(position);
                    let is_new = !self.committed.contains_key(at);
                    assert!(!is_new || position <= self.starts[at], "{at}: begins at {position}");
                    let before = told.insert(at.clone(), (*era, from));
                    assert_eq!(before, None, "{at} assigned to its owner");
                }
            }
            Rebalance::Revoked(partitions) | Rebalance::Lost(partitions) => {
                for at in *partitions {
                    assert!(told.remove(at).is_some(), "{at} was not its own");
                }
            }
        }
    }
}

struct Member {
    consumer: Consumer,
    last_poll: Duration,
    has_polled: bool,
}

struct Walk {
    rng: Rng,
    clock: ManualClock,
    now: Duration,
    dir: TempDir,
    broker: Option<Broker>,
    topics: BTreeMap<&'static str, TopicModel>,
    logs: BTreeMap<TopicPartition, Log>,
    eras: u64,
    shared: Arc<Mutex<Shared>>,
    members: BTreeMap<u64, Member>,
    next_member: u64,
    steps: Vec<String>,
    tally: BTreeMap<&'static str, u64>,
}

fn open(dir: &TempDir, clock: &ManualClock, rng: &mut Rng) -> Broker {
    let mode = if rng.one_in(3) { ReadMode::Copy } else { ReadMode::Mapped };
    quiet(dir.path()).clock(clock.clone()).read_mode(mode).open().unwrap()
}

impl Walk {
    fn new(mut rng: Rng) -> Self {
        let (dir, clock) = (temp_dir(), manual_clock());
        let broker = Some(open(&dir, &clock, &mut rng));
        Self {
            rng,
            clock,
            now: Duration::ZERO,
            dir,
            broker,
            topics: BTreeMap::new(),
            logs: BTreeMap::new(),
            eras: 0,
            shared: Arc::default(),
            members: BTreeMap::new(),
            next_member: 0,
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
            (40..=47, _, _) => {
                // Mostly less than the absence that evicts a member, now and then far more.
                let seconds =
                    if self.rng.one_in(4) { self.rng.below(1_200) } else { self.rng.below(9) };
                self.clock.advance(Duration::from_secs(seconds));
                self.now += Duration::from_secs(seconds);
            }
            (48..=52, _, _) => {
                self.broker().tick().unwrap();
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
            (65 | 66, _, Some(id)) => self.leave(id),
            (67..=72, _, Some(id)) => self.commit(id),
            (73..=96, _, Some(id)) => drop(self.poll(id)),
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
            retention: MINUTE * u32::try_from(1 + self.rng.below(30)).unwrap(),
            has_byte_limit: self.rng.one_in(3),
            tombstones: MINUTE * u32::try_from(self.rng.below(10)).unwrap(),
        };
        self.eras += 1;
        let mut config = small_topic(partitions)
            .cleanup(cleanup)
            .retention(topic.retention)
            .tombstone_retention(topic.tombstones);
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
        let retention = MINUTE * u32::try_from(1 + self.rng.below(30)).unwrap();
        let tombstones = MINUTE * u32::try_from(self.rng.below(10)).unwrap();
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
        let count = 1 + self.rng.index(6);
        let time = some_time() + self.now;
        let records: Vec<Stored> = (0..count)
            .map(|_| {
                let lacks_key = may_lack_key && self.rng.one_in(3);
                let key = (!lacks_key).then(|| format!("key-{}", self.rng.below(12)).into_bytes());
                let length = if self.rng.one_in(5) { 0 } else { self.rng.index(1_500) };
                let value = (!self.rng.one_in(5)).then(|| self.rng.bytes(length));
                Stored { key, value, time }
            })
            .collect();
        let batch: Vec<Record<'_>> = records.iter().map(Stored::record).collect();
        let log = self.logs.get(at).unwrap();
        let given = self.partition(at).append_batch(&batch).unwrap();
        assert_eq!(given, log.end()..log.end() + count as u64, "{at}");
        self.count("records", count as u64);
        self.logs.get_mut(at).unwrap().records.extend(records);
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
        if self.topics[&*at.topic].cleanup == Cleanup::Compact {
            assert_eq!(refused_setting(result), "cleanup");
        } else if before > end {
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
        self.shared.lock().unwrap().told.clear();
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
        let broker = open(&self.dir, &self.clock, &mut self.rng);
        let report = broker.recovery().clone();
        assert_eq!(report.clean_shutdown, closes && !is_kill);
        assert!(report.is_clean() && report.unknown.is_empty(), "{report:?}");
        self.broker = Some(broker);
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
            // A position, and so a commit of it, may lie behind offsets without records.
            let is_same = found.zip(expected).is_some_and(|(found, expected)| {
                found >= expected && (expected..found).all(|it| self.logs[at].removed.contains(&it))
            });
            assert!(is_same || found == expected, "{at}: {found:?} instead of {expected:?}");
        }
    }

    // ---- the group --------------------------------------------------------------------------

    fn join(&mut self) {
        let id = self.next_member;
        self.next_member += 1;
        let shared = Arc::clone(&self.shared);
        let builder = self.broker().consumer(GROUP).subscribe_pattern("m-*");
        let consumer = builder
            .max_poll_records(20)
            .max_poll_interval(INTERVAL)
            .on_rebalance(move |event, commits| shared.lock().unwrap().hear(id, &event, commits))
            .open()
            .unwrap();
        self.members.insert(id, Member { consumer, last_poll: self.now, has_polled: false });
    }

    fn leave(&mut self, id: u64) {
        let member = self.members.remove(&id).unwrap();
        if self.rng.one_in(2) {
            member.consumer.close().unwrap();
        } else {
            drop(member);
        }
        self.shared.lock().unwrap().told.remove(&id);
    }

    fn poll(&mut self, id: u64) -> usize {
        let member = self.members.get_mut(&id).unwrap();
        let batch = member.consumer.poll(Duration::ZERO).unwrap();
        let gaps = member.consumer.take_gaps();
        (member.last_poll, member.has_polled) = (self.now, true);
        let mut shared = self.shared.lock().unwrap();
        let told = shared.told.entry(id).or_default();
        self.tally.entry("gaps").and_modify(|it| *it += gaps.len() as u64).or_default();
        for gap in gaps {
            let (_, next) = told.get_mut(&gap.partition).expect("missed what it does not own");
            let Some(log) = self.logs.get(&gap.partition) else { continue };
            // A position has passed offsets whose records compaction removed.
            let passed = (*next..gap.missed.start).all(|it| log.removed.contains(&it));
            // One that was met when the partition was taken over may be told after retention has gone
            // further: the rest is another gap, without which the next record would be a skip.
            let is_next = gap.missed.start >= *next && passed && gap.missed.end <= log.start;
            assert!(is_next, "{}: {:?} after {next}", gap.partition, gap.missed);
            *next = gap.missed.end;
        }
        let count = batch.len();
        for message in batch {
            let at = message.topic_partition();
            let (_, next) = told.get_mut(&at).expect("handed out what it was not told to own");
            let (log, offset) = (&self.logs[&at], message.offset());
            assert!(offset >= *next, "{at} {offset}: handed out twice to one owner");
            let skipped = (*next..offset).find(|it| !log.removed.contains(it));
            assert_eq!(skipped, None, "{at}: skipped before {offset}");
            assert_eq!(Stored::of(&message), *log.at(offset), "{at} {offset}");
            *next = offset + 1;
        }
        *self.tally.entry("handed out").or_default() += count as u64;
        count
    }

    fn commit(&mut self, id: u64) {
        let is_overdue = self.is_overdue(id);
        let member = self.members.get_mut(&id).unwrap();
        if !member.has_polled {
            return; // it has partitions of which its callback has not heard
        }
        let is_async = self.rng.one_in(2);
        let result =
            if is_async { member.consumer.commit_async() } else { member.consumer.commit() };
        let mut shared = self.shared.lock().unwrap();
        let Shared { told, committed, eras, .. } = &mut *shared;
        let told = told.entry(id).or_default();
        let is_stale = told.iter().any(|(at, (era, _))| eras.get(&*at.topic) != Some(era));
        match result {
            Err(Error::Rebalanced) => assert!(is_overdue || is_stale, "evicted for nothing"),
            Err(Error::UnknownTopic(_) | Error::UnknownPartition(_)) => assert!(is_stale),
            result => {
                result.unwrap();
                let own = told.iter().filter(|(at, (era, _))| eras.get(&*at.topic) == Some(era));
                committed.extend(own.map(|(at, (_, next))| (at.clone(), *next)));
            }
        }
    }

    fn is_overdue(&self, id: u64) -> bool {
        self.now.saturating_sub(self.members[&id].last_poll) >= INTERVAL
    }

    // ---- the rules --------------------------------------------------------------------------

    /// Ends of all logs, and the contents of one or of all.
    fn check(&mut self, only: Option<&TopicPartition>) {
        let (broker, now) = (self.broker(), some_time() + self.now);
        for (at, log) in &mut self.logs {
            let topic = &self.topics[&*at.topic];
            let partition = broker.topic(&at.topic).unwrap().partition(at.partition).unwrap();
            let (start, end) = (partition.log_start_offset(), partition.log_end_offset());
            assert_eq!(end, log.end(), "{at}: another end");
            assert!((log.start..=end).contains(&start), "{at}: {start} after {}", log.start);
            check_start(at, topic, log, start, now);
            log.start = start;
            self.shared.lock().unwrap().starts.insert(at.clone(), start);
            if only.is_none_or(|only| only == at) {
                check_contents(at, topic, log, &partition, now);
            }
        }
        let shared = self.shared.lock().unwrap();
        let mut owned = BTreeSet::new();
        for (id, told) in &shared.told {
            if !self.members.contains_key(id) || self.is_overdue(*id) {
                continue; // who was evicted still believes to own what it had
            }
            for (at, (era, _)) in told {
                let is_current = shared.eras.get(&*at.topic) == Some(era);
                assert!(!is_current || owned.insert(at.clone()), "{at} is owned twice");
            }
        }
    }

    /// Everything was handed out when nobody has anything more.
    fn end(&mut self) {
        self.join();
        let mut idle = 0;
        while idle < 4 {
            let ids: Vec<u64> = self.members.keys().copied().collect();
            let count: usize = ids.into_iter().map(|id| self.poll(id)).sum();
            idle = if count == 0 { idle + 1 } else { 0 };
        }
        self.check(None);
        let shared = self.shared.lock().unwrap();
        let told: BTreeMap<_, _> = shared.told.values().flatten().collect();
        for (at, log) in &self.logs {
            let (_, next) = told.get(at).unwrap_or_else(|| panic!("{at} has no owner"));
            let rest = (*next..log.end()).find(|it| !log.removed.contains(it));
            assert_eq!(rest, None, "{at}: nobody was handed it");
        }
        drop(shared);
        self.reopen(false);
        self.check(None);
        eprintln!("{:?}", self.tally);
    }
}

/// Nothing goes from the log's start but what age, bytes or a caller allowed to go.
fn check_start(at: &TopicPartition, topic: &TopicModel, log: &Log, start: u64, now: SystemTime) {
    if start <= log.start.max(log.deleted) {
        return;
    }
    assert_ne!(topic.cleanup, Cleanup::Compact, "{at}: the start of a compacted log moved");
    if topic.has_byte_limit {
        return;
    }
    for offset in log.start.max(log.deleted)..start {
        let age = now.duration_since(log.at(offset).time).unwrap();
        // What compaction removed, or was free to remove, keeps no segment.
        let counts = !topic.was_compacted || log.is_latest(offset);
        let counts = counts && !log.removed.contains(&offset);
        assert!(!counts || age >= topic.retention, "{at} {offset}: gone at the age of {age:?}");
    }
}

/// Everything from the log start on is there as it was appended, but what compaction may remove.
fn check_contents(
    at: &TopicPartition,
    topic: &TopicModel,
    log: &mut Log,
    partition: &Partition,
    now: SystemTime,
) {
    let mut next = log.start;
    let messages = read_all(partition);
    let last = messages.last().map(Message::offset);
    for message in &messages {
        let offset = message.offset();
        assert!(offset >= next && offset < log.end(), "{at}: {offset} out of order");
        assert!(!log.removed.contains(&offset), "{at} {offset} was removed, and came back");
        assert_eq!(Stored::of(message), *log.at(offset), "{at} {offset} has changed");
        (next..offset).for_each(|missing| check_missing(at, topic, log, missing, now));
        log.removed.extend(next..offset);
        next = offset + 1;
    }
    (next..log.end()).for_each(|missing| check_missing(at, topic, log, missing, now));
    log.removed.extend(next..log.end());
    assert!(topic.was_compacted || log.removed.is_empty(), "{at}: {last:?}");
}

fn check_missing(at: &TopicPartition, topic: &TopicModel, log: &Log, offset: u64, now: SystemTime) {
    let stored = log.at(offset);
    let age = now.duration_since(stored.time).unwrap();
    let is_over = stored.value.is_none() && stored.key.is_some() && age >= topic.tombstones;
    let may_go = topic.was_compacted && (is_over || !log.is_latest(offset));
    let came_before = log.removed.contains(&offset);
    assert!(may_go || came_before, "{at} {offset} is missing: {:?}", stored.key);
}

/// Says where a walk failed.
struct Trace(Walk);

impl Drop for Trace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let steps = &self.0.steps;
            let last = &steps[steps.len().saturating_sub(12)..];
            eprintln!("failed at step {}, the last ones: {last:#?}", steps.len());
        }
    }
}

#[test]
fn whatever_happens_to_a_broker_its_promises_hold() {
    let steps = from_env("LOGPOND_STEPS", 500);
    let mut rng = Rng::announced("whatever_happens_to_a_broker_its_promises_hold");
    let is_replay = std::env::var("LOGPOND_SEED").is_ok_and(|seed| seed != "fresh");
    let lives = from_env("LOGPOND_LIVES", if is_replay { 1 } else { 6 });
    for _ in 0..lives {
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

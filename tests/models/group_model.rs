//! Goal: whatever the members of a group do, each partition has one owner, each record is handed
//! out, and only records that were not committed are handed out twice.
//!
//! Method: a seeded random walk of joins, departures, deaths in a callback, absences, commits,
//! seeks, appends and new topics, on a manual clock and in one thread, beside a reference that
//! knows only what the members' callbacks saw: which partitions, since when, and the next offset
//! of each.
//! The rules are checked at every step. Now and then the group is left in peace, and has to come
//! to rest complete and even; then one joins or leaves, and no more may move than has to.
//! `LOGPOND_SEED` replays a walk, `LOGPOND_STEPS` makes it longer.
//!
//! Not covered: threads (`concurrency.rs`), crashes (the broker's own tests), deleted topics
//! (`membership.rs`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::*;
use logpond::{
    Broker, Commits, Consumer, Error, ManualClock, Offsets, Rebalance, StartAt, TopicPartition,
};

const INTERVAL: Duration = Duration::from_secs(10);
const REJOIN: Duration = Duration::from_secs(25);
const MEMBERS_MAX: usize = 7;
/// What a callback panics with.
const CALLBACK: &str = "the callback";

/// The result of a call; `None` when a callback panicked in it. No other panic ends here.
fn past_the_callback<R>(call: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => Some(result),
        Err(panic) if panic.downcast_ref::<&str>() == Some(&CALLBACK) => None,
        Err(panic) => resume_unwind(panic),
    }
}

/// What callbacks and the walk both know.
#[derive(Default)]
struct Shared {
    /// What the group has committed, as far as its members know.
    committed: Offsets,
    /// The partitions that each member was assigned, and the next offset that it is to be handed.
    assigned: BTreeMap<u64, Offsets>,
    /// The next callback dies, after it was noted.
    dies: bool,
    deaths: u64,
    /// Revocations commit.
    commits: bool,
}

impl Shared {
    fn hear(&mut self, who: u64, event: Rebalance<'_>, commits: &mut Commits<'_>) {
        let assigned = self.assigned.entry(who).or_default();
        match event {
            Rebalance::Assigned(partitions) => {
                for partition in partitions {
                    let start = self.committed.get(partition).copied().unwrap_or(0);
                    assert_eq!(commits.position(partition), Some(start), "not at the commit");
                    let before = assigned.insert(partition.clone(), start);
                    assert_eq!(before, None, "{partition} assigned to its owner");
                }
            }
            Rebalance::Revoked(partitions) => {
                for partition in partitions {
                    let position = assigned.remove(partition).expect("assigned before");
                    assert_eq!(commits.position(partition), Some(position));
                    if self.commits {
                        let offsets = Offsets::from([(partition.clone(), position)]);
                        commits.commit(&offsets).expect("still the owner");
                        self.committed.extend(offsets);
                    }
                }
            }
            Rebalance::Lost(partitions) => {
                for partition in partitions {
                    let position = assigned.remove(partition).expect("assigned before");
                    let refused = commits.commit(&Offsets::from([(partition.clone(), position)]));
                    let too_late =
                        matches!(refused, Err(Error::Rebalanced { .. } | Error::Fenced { .. }));
                    assert!(too_late, "{refused:?}");
                }
            }
        }
    }
}

struct Member {
    consumer: Consumer,
    last_poll: Duration,
    /// Away for too long, and somebody has noticed.
    is_evicted: bool,
    instance: Option<u64>,
    /// A newer consumer has its instance id.
    is_fenced: bool,
}

struct Walk {
    broker: Broker,
    clock: ManualClock,
    rng: Rng,
    now: Duration,
    shared: Arc<Mutex<Shared>>,
    members: BTreeMap<u64, Member>,
    next_member: u64,
    /// How many records each partition has.
    ends: BTreeMap<TopicPartition, u64>,
    topics: u32,
    polls: u64,
    handed: u64,
}

impl Walk {
    fn new(rng: Rng) -> Self {
        let clock = manual_clock();
        let builder = Broker::builder().in_memory().background(false).clock(clock.clone());
        let mut walk = Self {
            broker: builder.open().unwrap(),
            clock,
            rng,
            now: Duration::ZERO,
            shared: Arc::default(),
            members: BTreeMap::new(),
            next_member: 0,
            ends: BTreeMap::new(),
            topics: 0,
            polls: 0,
            handed: 0,
        };
        walk.add_topic();
        walk
    }

    fn add_topic(&mut self) {
        let name = format!("m-{}", self.topics);
        let partitions = 1 + u32::try_from(self.rng.below(5)).unwrap();
        self.broker.ensure_topic(&name, small_topic(partitions)).unwrap();
        self.topics += 1;
        self.ends.extend((0..partitions).map(|partition| (tp(&name, partition), 0)));
    }

    fn append(&mut self) {
        let at = self.rng.index(self.ends.len());
        let count = 1 + self.rng.below(8);
        let (partition, end) = self.ends.iter_mut().nth(at).unwrap();
        send_numbers(&self.broker, &partition.topic, partition.partition, *end..*end + count);
        *end += count;
    }

    /// One member checks the group: every other member that is overdue now is evicted.
    fn look_around(&mut self, looks: Option<u64>) {
        for (id, member) in &mut self.members {
            let overdue = self.now.saturating_sub(member.last_poll) >= INTERVAL;
            member.is_evicted |= overdue && Some(*id) != looks && !member.is_fenced;
        }
    }

    fn join(&mut self) {
        let id = self.next_member;
        self.next_member += 1;
        let instance = self.rng.one_in(4).then(|| self.rng.below(3));
        let shared = Arc::clone(&self.shared);
        let mut builder = self
            .broker
            .consumer("g")
            .subscribe_pattern("m-*")
            .max_poll_records(5)
            .max_poll_interval(INTERVAL)
            .on_rebalance(move |event, commits| {
                let mut shared = shared.lock().unwrap();
                shared.hear(id, event, commits);
                if std::mem::take(&mut shared.dies) {
                    shared.deaths += 1;
                    drop(shared);
                    resume_unwind(Box::new(CALLBACK));
                }
            });
        if let Some(instance) = instance {
            builder = builder.instance_id(instance.to_string()).rejoin_timeout(REJOIN);
        }
        self.look_around(None);
        for older in self.members.values_mut().filter(|it| it.instance == instance) {
            older.is_fenced |= instance.is_some();
        }
        let consumer = builder.open().unwrap();
        let last_poll = self.now;
        let (is_evicted, is_fenced) = (false, false);
        self.members.insert(id, Member { consumer, last_poll, is_evicted, instance, is_fenced });
    }

    fn leave(&mut self, id: u64) {
        let member = self.members.remove(&id).unwrap();
        if self.rng.one_in(2) {
            // The callback of a member that is closed runs; of one that is dropped it does not. If
            // the callback panics, the close is complete all the same.
            if let Some(closed) = past_the_callback(|| member.consumer.close()) {
                closed.unwrap();
            }
        } else {
            drop(member);
        }
        self.shared.lock().unwrap().assigned.remove(&id);
    }

    fn poll(&mut self, id: u64) {
        self.polls += 1;
        self.look_around(Some(id));
        let member = self.members.get_mut(&id).unwrap();
        let result = past_the_callback(|| member.consumer.poll(Duration::ZERO));
        member.last_poll = self.now;
        // It hears of its eviction in this very call, and is back at the end of it, unless its
        // callback dies in between; then at the next.
        let Some(result) = result else { return self.check_evicted(id) };
        if member.is_fenced {
            assert!(matches!(result, Err(Error::Fenced { .. })), "{result:?}");
            self.leave(id);
            return;
        }
        member.is_evicted = false;
        let mut shared = self.shared.lock().unwrap();
        let assigned = shared.assigned.entry(id).or_default();
        for message in result.unwrap() {
            let partition = message.topic_partition();
            let next = assigned.get_mut(&partition).expect("handed out what it was not assigned");
            assert_eq!(message.offset(), *next, "{partition}: skipped or repeated");
            assert_eq!(number(&message), *next);
            *next += 1;
            self.handed += 1;
        }
    }

    fn check_evicted(&mut self, id: u64) {
        let member = self.members.get_mut(&id).unwrap();
        // Dead in `Lost`, it has not joined again; dead in `Assigned`, it has.
        member.is_evicted &= member.consumer.assignment().is_empty();
    }

    fn commit(&mut self, id: u64) {
        let member = self.members.get_mut(&id).unwrap();
        let owns_some = !member.consumer.assignment().is_empty();
        let result = if self.rng.one_in(2) {
            member.consumer.commit()
        } else {
            member.consumer.commit_soon()
        };
        match result {
            Err(Error::Fenced { .. }) => assert!(member.is_fenced && owns_some),
            Err(Error::Rebalanced { .. }) => assert!(member.is_evicted && owns_some),
            result => {
                result.unwrap();
                assert!(!(member.is_evicted || member.is_fenced) || !owns_some, "not its any more");
                let mut shared = self.shared.lock().unwrap();
                let assigned = shared.assigned.get(&id).cloned().unwrap_or_default();
                shared.committed.extend(assigned);
            }
        }
    }

    fn seek(&mut self, id: u64) {
        let mut shared = self.shared.lock().unwrap();
        let assigned = shared.assigned.entry(id).or_default();
        if assigned.is_empty() {
            return;
        }
        let at = self.rng.index(assigned.len());
        let (partition, position) = assigned.iter_mut().nth(at).unwrap();
        let target = self.rng.below(self.ends[partition] + 1);
        let consumer = &mut self.members.get_mut(&id).unwrap().consumer;
        consumer.seek(partition.clone(), StartAt::Offset(target)).unwrap();
        *position = target;
    }

    fn any_member(&mut self) -> Option<u64> {
        let at = self.rng.index(self.members.len().max(1));
        self.members.keys().nth(at).copied()
    }

    fn step(&mut self) {
        let member = self.any_member();
        match (self.rng.below(40), member) {
            (0..=2, _) | (_, None) if self.members.len() < MEMBERS_MAX => self.join(),
            (3, Some(id)) => self.leave(id),
            (4 | 5, Some(id)) => self.commit(id),
            (6, Some(id)) => self.seek(id),
            (7..=12, _) => self.append(),
            (13, _) if self.topics < 6 => self.add_topic(),
            (14..=16, _) => {
                let by = Duration::from_millis(self.rng.below(8_000));
                self.clock.advance(by);
                self.now += by;
            }
            (17, _) => {
                self.look_around(None);
                self.broker.tick().unwrap();
            }
            (18, _) => self.shared.lock().unwrap().dies = true,
            (19, _) => {
                let commits = self.rng.one_in(2);
                self.shared.lock().unwrap().commits = commits;
            }
            (20, _) if self.rng.one_in(4) => self.rest(),
            (_, Some(id)) => self.poll(id),
            (_, None) => {}
        }
        self.check();
    }

    /// No partition is owned twice. Who was evicted or fenced still believes to own what it had.
    fn check(&self) {
        let mut owned = BTreeSet::new();
        for member in self.members.values().filter(|it| !it.is_evicted && !it.is_fenced) {
            for partition in member.consumer.assignment() {
                assert!(owned.insert(partition.clone()), "{partition} is owned twice");
            }
        }
    }

    fn poll_all(&mut self, rounds: usize) {
        for _ in 0..rounds {
            for id in self.members.keys().copied().collect::<Vec<_>>() {
                if self.members.contains_key(&id) {
                    self.poll(id);
                    self.check();
                }
            }
        }
    }

    /// Nobody dies, and nobody is waited for.
    fn come_to_rest(&mut self) {
        self.shared.lock().unwrap().dies = false;
        for _ in 0..4 {
            self.poll_all(3);
            let by = REJOIN / 3;
            self.clock.advance(by);
            self.now += by;
        }
        self.poll_all(3);
        if self.members.is_empty() {
            return;
        }
        let owned: BTreeSet<_> =
            self.members.values().flat_map(|it| it.consumer.assignment()).collect();
        assert!(owned.iter().eq(self.ends.keys()), "a partition without an owner: {owned:?}");
        let loads = || self.members.values().map(|it| it.consumer.assignment().len());
        let gap = loads().max().unwrap() - loads().min().unwrap();
        assert!(gap <= 1, "uneven: {:?}", loads().collect::<Vec<_>>());
    }

    /// Comes to rest; then one joins or leaves, and as little as possible moves.
    fn rest(&mut self) {
        self.come_to_rest();
        let before: BTreeMap<u64, BTreeSet<TopicPartition>> = self
            .members
            .iter()
            .map(|(&id, member)| (id, member.consumer.assignment().into_iter().collect()))
            .collect();
        match self.any_member() {
            Some(id) if self.rng.one_in(2) => self.leave(id),
            _ => self.join(),
        }
        self.come_to_rest();
        let (members, total) = (self.members.len().max(1), self.ends.len());
        let quota = |rank| total / members + usize::from(rank < total % members);
        let (mut loads, mut kept) = (Vec::new(), 0);
        for (id, member) in &self.members {
            if let Some(had) = before.get(id) {
                loads.push(had.len());
                kept += member.consumer.assignment().iter().filter(|it| had.contains(*it)).count();
            }
        }
        loads.sort_unstable_by(|a, b| b.cmp(a));
        let most: usize = (0..).zip(&loads).map(|(rank, &load)| load.min(quota(rank))).sum();
        // An instance id that was taken over is one member, and not one that left and one that
        // came.
        let is_plain = before.keys().filter(|id| !self.members.contains_key(id)).count() <= 1;
        assert!(kept == most || !is_plain, "{kept} of {most} stayed: {before:?}");
    }

    /// Every record has been handed out when nobody has anything more.
    fn end(mut self) {
        if self.members.is_empty() {
            self.join();
        }
        self.come_to_rest();
        loop {
            let before = self.handed;
            self.poll_all(1);
            if self.handed == before {
                break;
            }
        }
        let shared = self.shared.lock().unwrap();
        let positions: Offsets =
            shared.assigned.values().flatten().map(|(a, b)| (a.clone(), *b)).collect();
        assert_eq!(positions, self.ends, "records that nobody was handed");
        eprintln!("{} polls, {} records, {} deaths", self.polls, self.handed, shared.deaths);
    }
}

#[test]
fn random_lives_of_members_keep_the_rules() {
    let steps = from_env("LOGPOND_STEPS", 1_500);
    let mut rng = Rng::announced("random_lives_of_members_keep_the_rules");
    let is_replay = std::env::var("LOGPOND_SEED").is_ok_and(|seed| seed != "fresh");
    for _ in 0..if is_replay { 1 } else { 12 } {
        let mut walk = Walk::new(rng.clone());
        for _ in 0..steps {
            walk.step();
        }
        walk.end();
        let seed = rng.next();
        rng = Rng::new(seed);
        eprintln!("and on with LOGPOND_SEED={seed}");
    }
}

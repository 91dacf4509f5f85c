//! The group: its members, what their callbacks hear, and what they are handed.

use super::*;

/// What the callbacks of members and the walk both know.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) committed: Offsets,
    /// When, as [`Clocks::shown`] says.
    pub(super) commit_times: BTreeMap<TopicPartition, SystemTime>,
    pub(super) starts: Offsets,
    pub(super) eras: BTreeMap<String, u64>,
    /// Of each member's partitions: the era of the topic, and the next offset it is to be handed.
    pub(super) assigned: BTreeMap<u64, BTreeMap<TopicPartition, (u64, u64)>>,
}

impl Shared {
    pub(super) fn hear(
        &mut self,
        (who, out_of_range): (u64, StartAt),
        event: &Rebalance<'_>,
        commits: &Commits<'_>,
    ) {
        let assigned = self.assigned.entry(who).or_default();
        match event {
            Rebalance::Assigned(partitions) => {
                for at in *partitions {
                    let Some(era) = self.eras.get(&*at.topic) else { continue };
                    // Where the log began when the member joined may be gone since: a gap follows.
                    let position = commits.position(at).expect("a position");
                    // Nothing is committed of what came after the group began: all is news.
                    let from = self.committed.get(at).copied().unwrap_or(0);
                    let is_new = !self.committed.contains_key(at);
                    let start = self.starts[at];
                    let jumps = start > 0 && out_of_range != StartAt::Earliest;
                    let is_right = !is_new || position <= start || jumps;
                    assert!(is_right, "{at}: begins at {position} of {start}");
                    let before = assigned.insert(at.clone(), (*era, from));
                    assert_eq!(before, None, "{at} assigned to its owner");
                }
            }
            Rebalance::Revoked(partitions) | Rebalance::Lost(partitions) => {
                for at in *partitions {
                    assert!(assigned.remove(at).is_some(), "{at} was not its own");
                }
            }
        }
    }
}

pub(super) struct Member {
    pub(super) consumer: Consumer,
    /// Whether it takes messages one by one.
    pub(super) is_single: bool,
    /// Where it continues if the records at its position were removed.
    pub(super) out_of_range: StartAt,
    /// For how many polls in a row each of its partitions had something and was not served.
    pub(super) starved: BTreeMap<TopicPartition, usize>,
    /// The partitions that it had.
    pub(super) turns: Vec<TopicPartition>,
    pub(super) last_poll: Duration,
    pub(super) has_polled: bool,
}

impl Member {
    /// What it is given, call by call: what it has missed before, and messages.
    fn take(&mut self, rng: &mut Rng) -> Vec<(Vec<Gap>, Vec<Message>)> {
        if !self.is_single {
            let batch = self.consumer.poll(Duration::ZERO).unwrap().into_iter().collect();
            return vec![(self.consumer.take_gaps(), batch)];
        }
        let most = 1 + rng.below(30);
        let mut taken = Vec::new();
        for _ in 0..most {
            let message = self.consumer.try_recv().unwrap();
            let is_last = message.is_none();
            taken.push((self.consumer.take_gaps(), message.into_iter().collect()));
            if is_last {
                break;
            }
        }
        taken
    }

    /// No partition waits while others are served twice.
    fn note_served(
        &mut self,
        hungry: &BTreeSet<TopicPartition>,
        served: &BTreeSet<TopicPartition>,
        assigned: &BTreeMap<TopicPartition, (u64, u64)>,
    ) {
        if self.is_single {
            return; // a poll's worth is handed out in several steps
        }
        // Other partitions, other turns.
        let is_same = self.turns.iter().eq(assigned.keys());
        self.turns = assigned.keys().cloned().collect();
        self.starved.retain(|at, _| is_same && hungry.contains(at));
        for at in hungry.iter().filter(|at| assigned.contains_key(at)) {
            let polls = self.starved.entry(at.clone()).or_default();
            *polls = if served.contains(at) { 0 } else { *polls + 1 };
            assert!(
                *polls <= assigned.len(),
                "{at} starves: {polls} polls of {} partitions",
                assigned.len()
            );
        }
    }
}

impl Walk {
    pub(super) fn join(&mut self) {
        let id = self.next_member;
        self.next_member += 1;
        let shared = Arc::clone(&self.shared);
        // Now and then less than a record, mostly less than a batch.
        let bytes = [1, 700, 4_000, 20_000, 1 << 20][self.rng.index(5)];
        let records = 1 + self.rng.index(40);
        // Only the first of the group asks where to start.
        let start = self.some_start();
        let out_of_range = if self.rng.one_in(3) { self.some_start() } else { StartAt::Earliest };
        let who = (id, out_of_range);
        let builder = self.broker().consumer(GROUP).subscribe_pattern("m-*");
        let consumer = builder
            .start(start)
            .out_of_range(out_of_range)
            .max_poll_records(records)
            .max_poll_bytes(bytes)
            .max_poll_interval(INTERVAL)
            .on_rebalance(move |event, commits| shared.lock().unwrap().hear(who, &event, commits))
            .open()
            .unwrap();
        if self.begun.is_none() {
            self.begun = Some(self.clocks.shown());
            for (at, log) in &self.logs {
                let begins = consumer.committed(at).unwrap();
                assert_eq!(begins, log.resolve(start).filter(|it| *it > 0), "{at}: {start:?}");
                self.shared.lock().unwrap().committed.extend(begins.map(|it| (at.clone(), it)));
            }
        }
        let member = Member {
            consumer,
            is_single: self.rng.one_in(4),
            out_of_range,
            starved: BTreeMap::new(),
            turns: Vec::new(),
            last_poll: self.clocks.monotonic(),
            has_polled: false,
        };
        self.members.insert(id, member);
    }

    pub(super) fn leave(&mut self, id: u64) {
        let member = self.members.remove(&id).unwrap();
        if self.rng.one_in(2) {
            member.consumer.close().unwrap();
        } else {
            drop(member);
        }
        self.shared.lock().unwrap().assigned.remove(&id);
    }

    pub(super) fn poll(&mut self, id: u64) -> usize {
        let hungry = self.hungry(id);
        let member = self.members.get_mut(&id).unwrap();
        let taken = member.take(&mut self.rng);
        (member.last_poll, member.has_polled) = (self.clocks.monotonic(), true);
        let shared = &mut *self.shared.lock().unwrap();
        let assigned = shared.assigned.entry(id).or_default();
        let gaps = taken.iter().flat_map(|(gaps, _)| gaps);
        self.tally.entry("gaps").and_modify(|it| *it += gaps.clone().count() as u64).or_default();
        let messages = taken.iter().flat_map(|(_, batch)| batch);
        let count = messages.clone().count();
        let of_gaps = gaps.map(|gap| gap.partition.clone());
        let served = messages.map(Message::topic_partition).chain(of_gaps).collect();
        member.note_served(&hungry, &served, assigned);
        for (gaps, batch) in &taken {
            for gap in gaps {
                let (era, next) =
                    assigned.get_mut(&gap.partition).expect("missed what it does not own");
                if shared.eras.get(&*gap.partition.topic) == Some(era) {
                    // A gap that was met when the partition was taken over may be reported after
                    // retention has removed more: the rest is another gap, or the next record skips
                    // it.
                    let log = &self.logs[&gap.partition];
                    let jumps = member.out_of_range != StartAt::Earliest;
                    log.hear_gap(gap, next, if jumps { log.end() } else { log.start });
                }
            }
            for message in batch {
                let at = message.topic_partition();
                let (era, next) =
                    assigned.get_mut(&at).expect("handed out what it was not assigned");
                if shared.eras.get(&*at.topic) == Some(era) {
                    self.logs[&at].hear(message, next);
                }
            }
        }
        *self.tally.entry("handed out").or_default() += count as u64;
        count
    }

    /// Which partitions of a member have something for it.
    fn hungry(&self, id: u64) -> BTreeSet<TopicPartition> {
        let shared = self.shared.lock().unwrap();
        let own = shared.assigned.get(&id).into_iter().flatten();
        own.filter(|(at, (era, next))| {
            let is_current = shared.eras.get(&*at.topic) == Some(era);
            is_current && self.logs[at].has_after(*next)
        })
        .map(|(at, _)| at.clone())
        .collect()
    }

    pub(super) fn commit(&mut self, id: u64) {
        let is_overdue = self.is_overdue(id);
        let member = self.members.get_mut(&id).unwrap();
        if !member.has_polled {
            return; // it has partitions of which its callback has not heard
        }
        let is_async = self.rng.one_in(2);
        let result =
            if is_async { member.consumer.commit_soon() } else { member.consumer.commit() };
        let mut shared = self.shared.lock().unwrap();
        let Shared { assigned, committed, commit_times, eras, .. } = &mut *shared;
        let assigned = assigned.entry(id).or_default();
        let is_stale = assigned.iter().any(|(at, (era, _))| eras.get(&*at.topic) != Some(era));
        match result {
            Err(Error::Rebalanced { .. }) => assert!(is_overdue || is_stale, "evicted for nothing"),
            Err(Error::UnknownTopic(_) | Error::UnknownPartition(_)) => assert!(is_stale),
            result => {
                result.unwrap();
                let own =
                    assigned.iter().filter(|(at, (era, _))| eras.get(&*at.topic) == Some(era));
                for (at, (_, next)) in own {
                    committed.insert(at.clone(), *next);
                    commit_times.insert(at.clone(), self.clocks.shown());
                }
            }
        }
    }

    /// A group that nobody uses is forgotten after a week, by what the wall clock showed when it
    /// was used last. One that is used never is.
    pub(super) fn note_expiry(&mut self) {
        let expired = self.broker().metrics().groups_expired;
        if std::mem::replace(&mut self.expired, expired) == expired {
            return;
        }
        let shared = &mut *self.shared.lock().unwrap();
        let used = self.begun.take().into_iter().chain(shared.commit_times.values().copied());
        let used = used.max().expect("a group that nobody has begun expired");
        let idle = self.clocks.truth().duration_since(used).unwrap_or_default();
        let has_members = self.members.keys().any(|id| !self.is_overdue(*id));
        assert!(!has_members && idle > WEEK, "expired after {idle:?}, has members: {has_members}");
        shared.committed.clear();
        shared.commit_times.clear();
        *self.tally.entry("expired").or_default() += 1;
    }

    pub(super) fn is_overdue(&self, id: u64) -> bool {
        self.clocks.monotonic().saturating_sub(self.members[&id].last_poll) >= INTERVAL
    }
}

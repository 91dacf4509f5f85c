//! A random walk of joins, departures, evictions, topic changes and half-done polls.
//!
//! The model holds what was REPORTED to each member: what it believes it owns, and under which
//! epoch. At every step the state is held against these beliefs; now and then the group is left in
//! peace, and has to come to rest complete, even, and having moved as little as possible.

use super::*;
use crate::random::Random;

/// What was reported to one member.
#[derive(Default)]
struct Belief {
    topics: BTreeSet<&'static str>,
    owned: BTreeMap<TopicPartition, OwnershipEpoch>,
    /// To be given up, and not confirmed yet: the callback runs.
    revoking: Vec<TopicPartition>,
    /// Evicted, and not back.
    evicted: bool,
}

struct Walk {
    group: GroupState,
    random: Random,
    members: BTreeMap<MemberId, Belief>,
    partitions_of: BTreeMap<&'static str, u32>,
    /// All members read everything, so that evenness and fewest moves can be demanded.
    equal: bool,
    next_id: u64,
    last_epoch: Option<OwnershipEpoch>,
    generation: u64,
    /// Woken by the group and not polled since.
    woken: BTreeSet<MemberId>,
}

const TOPICS: [&str; 3] = ["a", "b", "c"];

impl Walk {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let assignor = match random.below(5) {
            0 => Assignor::Range,
            1 => Assignor::RoundRobin,
            _ => Assignor::CooperativeSticky,
        };
        Self {
            group: GroupState::new(assignor),
            equal: random.below(2) == 0,
            random,
            members: BTreeMap::new(),
            partitions_of: BTreeMap::new(),
            next_id: 0,
            last_epoch: None,
            generation: 0,
            woken: BTreeSet::new(),
        }
    }

    fn topics(&mut self) -> BTreeSet<&'static str> {
        let random = &mut self.random;
        let equal = self.equal;
        TOPICS.into_iter().filter(|_| equal || random.below(3) > 0).collect()
    }

    fn any_member(&mut self) -> Option<MemberId> {
        let nth = self.random.index(self.members.len());
        self.members.keys().nth(nth).copied()
    }

    fn join(&mut self) {
        let id = MemberId(self.next_id);
        self.next_id += 1;
        let topics = self.topics();
        self.group.refresh(self.known());
        assert_eq!(self.group.join(id, topics.iter().copied().collect()), JoinOutcome::Joined);
        let belief = Belief { topics, ..Belief::default() };
        self.members.insert(id, belief);
    }

    fn leave(&mut self, id: MemberId) {
        self.catch_up();
        let freed = self.group.leave(id).unwrap();
        let belief = self.members.remove(&id).unwrap();
        self.woken.remove(&id);
        assert!(freed.iter().all(|it| belief.owned.contains_key(it)));
    }

    fn known(&self) -> Arc<Topics> {
        let counts = self.partitions_of.iter().map(|(&name, &count)| (name.into(), count));
        Arc::new(counts.collect())
    }

    fn catch_up(&mut self) {
        let known = self.known();
        self.group.catch_up(|| known);
    }

    fn change_topic(&mut self) {
        let topic = TOPICS[self.random.index(3)];
        let count = u32::try_from(self.random.below(9)).unwrap();
        self.partitions_of.insert(topic, count);
        if count == 0 {
            self.partitions_of.remove(topic);
        }
        if self.group.is_concerned(topic) {
            self.group.topic_changed(topic, count);
        }
    }

    /// Half a poll: either confirms what it was asked to give up, or polls.
    fn poll(&mut self, id: MemberId) {
        self.catch_up();
        let belief = self.members.get_mut(&id).unwrap();
        if !belief.revoking.is_empty() {
            self.group.revoked(id, &belief.revoking).unwrap();
            for partition in mem::take(&mut belief.revoking) {
                belief.owned.remove(&partition);
            }
            self.woken.insert(id); // awake anyway, and about to poll again
            return;
        }
        let had_nothing_to_do = !self.group.needs_attention(id);
        let change = self.group.poll(id).unwrap();
        self.woken.remove(&id);
        let news = [&change.lost, &change.revoke, &change.assign];
        assert!(!had_nothing_to_do || news.iter().all(|it| it.is_empty()), "{change:?}");
        assert!(change.revoke.is_empty() || change.assign.is_empty(), "{change:?}");
        assert!(change.generation >= self.generation, "{change:?}");
        self.generation = change.generation;
        assert_eq!(change.is_evicted, belief.evicted);
        for partition in &change.lost {
            assert!(belief.owned.remove(partition).is_some(), "lost {partition} unowned");
        }
        for partition in &change.revoke {
            assert!(belief.owned.contains_key(partition), "revoked {partition} unowned");
        }
        for partition in change.assign {
            let epoch = self.group.owners().epoch_of(id, &partition).unwrap();
            assert!(Some(epoch) > self.last_epoch, "{partition} under an old epoch");
            self.last_epoch = Some(epoch);
            assert!(belief.topics.contains(&*partition.topic), "{partition} unsubscribed");
            assert_eq!(belief.owned.insert(partition, epoch), None);
        }
        belief.revoking = change.revoke;
    }

    /// Both halves, until there is nothing to confirm.
    fn poll_to_the_end(&mut self, id: MemberId) {
        loop {
            let was_confirming = !self.members[&id].revoking.is_empty();
            self.poll(id);
            if !was_confirming && self.members[&id].revoking.is_empty() {
                return;
            }
        }
    }

    fn step(&mut self) {
        match (self.random.below(20), self.any_member()) {
            (0 | 1, _) if self.members.len() < 8 => self.join(),
            (2, Some(id)) => self.leave(id),
            (3, Some(id)) => {
                self.catch_up();
                self.group.evict(id).unwrap();
                self.members.get_mut(&id).unwrap().evicted = true;
            }
            (4 | 5, Some(id)) => {
                self.catch_up();
                self.group.rejoin(id).unwrap();
                self.members.get_mut(&id).unwrap().evicted = false;
            }
            (6, Some(id)) if !self.equal => {
                let topics = self.topics();
                self.group.refresh(self.known());
                self.group.join(id, topics.iter().copied().collect());
                let belief = self.members.get_mut(&id).unwrap();
                (belief.topics, belief.evicted) = (topics, false);
            }
            (7, _) => self.change_topic(),
            (8, _) => self.rest(),
            (_, Some(id)) => self.poll(id),
            (_, None) => {}
        }
        self.woken.extend(self.group.take_wakeups());
        self.check();
    }

    /// What holds at any time.
    fn check(&self) {
        let mut owners = BTreeMap::new();
        for (&id, belief) in &self.members {
            for partition in self.group.owners().owned_by(id) {
                let epoch = self.group.owners().epoch_of(id, &partition).unwrap();
                assert_eq!(belief.owned.get(&partition), Some(&epoch), "{partition} unreported");
                assert!(self.group.may_commit(id, &partition, epoch));
                assert!(!belief.evicted, "{id:?} was evicted and owns {partition}");
                let count = self.partitions_of.get(&*partition.topic).copied().unwrap_or(0);
                assert!(partition.partition < count, "{partition} does not exist");
                let other = owners.insert(partition, id);
                assert_eq!(other, None, "owned twice");
            }
            if !self.group.needs_attention(id) {
                let owned: Vec<_> = belief.owned.keys().cloned().collect();
                assert_eq!(owned, self.group.owners().owned_by(id), "{id:?} has lost without news");
            } else if belief.revoking.is_empty() && !belief.evicted {
                assert!(self.woken.contains(&id), "{id:?} sleeps over its news");
            }
            for (partition, &epoch) in &belief.owned {
                let owns = self.group.owners().epoch_of(id, partition) == Some(epoch);
                assert_eq!(self.group.may_commit(id, partition, epoch), owns);
            }
        }
    }

    /// Everybody comes back and polls twice, confirming at once; then one joins or leaves.
    fn rest(&mut self) {
        self.come_to_rest();
        if !self.equal || self.group.assignor != Assignor::CooperativeSticky {
            return;
        }
        let before: BTreeMap<_, _> =
            self.members.keys().map(|&id| (id, self.group.owners().owned_by(id))).collect();
        match self.any_member() {
            Some(id) if self.random.below(2) == 0 => self.leave(id),
            _ => self.join(),
        }
        self.come_to_rest();
        let total: usize = before.values().map(Vec::len).sum();
        let mut loads = Vec::new();
        let mut kept = 0;
        for (id, had) in before.iter().filter(|(id, _)| self.members.contains_key(id)) {
            loads.push(had.len());
            kept += had.iter().filter(|it| self.group.owners().epoch_of(*id, it).is_some()).count();
        }
        loads.sort_unstable_by(|a, b| b.cmp(a));
        let members = self.members.len().max(1);
        let quota = |rank| total / members + usize::from(rank < total % members);
        let most: usize = (0..).zip(&loads).map(|(rank, &load)| load.min(quota(rank))).sum();
        assert_eq!(kept, most, "{before:?}");
    }

    fn come_to_rest(&mut self) {
        self.catch_up();
        for id in self.members.keys().copied().collect::<Vec<_>>() {
            self.group.rejoin(id).unwrap();
            self.members.get_mut(&id).unwrap().evicted = false;
        }
        for _ in 0..2 {
            for id in self.members.keys().copied().collect::<Vec<_>>() {
                self.poll_to_the_end(id);
            }
        }
        self.woken.extend(self.group.take_wakeups());
        self.check();
        for (topic, &count) in &self.partitions_of {
            let is_read = self.members.values().any(|it| it.topics.contains(topic));
            for partition in 0..count {
                let partition = (*topic, partition).into();
                let owners = self
                    .members
                    .keys()
                    .filter(|&&id| self.group.owners().epoch_of(id, &partition).is_some());
                assert_eq!(owners.count(), usize::from(is_read), "{partition}");
            }
        }
        assert!(self.members.keys().all(|&id| !self.group.needs_attention(id)));
        let loads = || self.members.values().map(|it| it.owned.len());
        if self.equal && self.group.assignor != Assignor::Range {
            let gap = loads().max().unwrap_or(0) - loads().min().unwrap_or(0);
            assert!(gap <= 1, "uneven: {:?}", loads().collect::<Vec<_>>());
        }
    }
}

/// Prints the seed of a failed walk, which replays it.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}", self.0);
        }
    }
}

#[test]
fn random_walks_keep_the_rules() {
    for seed in 0..400 {
        let seed = Seed(seed);
        let mut walk = Walk::new(seed.0);
        for _ in 0..150 {
            walk.step();
        }
    }
}

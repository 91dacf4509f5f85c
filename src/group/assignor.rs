//! The assignors: pure functions that say which member should own which partition, from the
//! members, the topics and the present owners.
//!
//! Owns: the rules of distribution. Must not know: polls, epochs or hand-overs, which are
//! [`state`](super::state)'s. For every result:
//!
//! 1. every partition of a topic with at least one subscriber has exactly one owner;
//! 2. the owner subscribes to the topic;
//! 3. every member is in the result, also those that get nothing;
//! 4. equal arguments give equal results: no randomness, no address, no order of arrival.
//!
//! Runs under the group's lock, so the work is limited to about (partitions × members) simple
//! steps: members, topics and partitions are numbered once, and topics with the same subscribers
//! are treated as one.

use std::collections::{BTreeMap, BTreeSet};
use std::iter;
use std::sync::Arc;

use serde::Serialize;

use crate::record::TopicPartition;

/// A member of a group, for as long as it stays. The order of ids is the order of joining, which
/// `Range` and `RoundRobin` deal by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MemberId(pub(crate) u64);

/// The topics that a member wants to read. Cheap to clone; equal subscriptions that share their
/// set make [`Assignor::assign`] look at it once instead of once per member.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Subscription(Arc<BTreeSet<Arc<str>>>);

impl Subscription {
    pub(crate) fn topics(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.iter()
    }
}

impl<T: Into<Arc<str>>> FromIterator<T> for Subscription {
    fn from_iter<I: IntoIterator<Item = T>>(topics: I) -> Self {
        Self(Arc::new(topics.into_iter().map(Into::into).collect()))
    }
}

/// Which partitions each member has, or should have.
pub(crate) type Assignment = BTreeMap<MemberId, BTreeSet<TopicPartition>>;

/// How the partitions of a group are divided among its members; set by
/// [`ConsumerBuilder::assignor`](crate::ConsumerBuilder::assignor).
///
/// With every assignor, a rebalance interrupts no member: a member continues to read the partitions
/// that it keeps, and only the others are revoked and given to their new owner. The assignors
/// differ in how many partitions change their owner, and which partitions have the same one.
#[doc(alias = "ConsumerPartitionAssignor")]
#[doc(alias = "partition.assignment.strategy")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
#[non_exhaustive]
pub enum Assignor {
    /// Topic by topic, consecutive partitions to each member in the order of joining. Partition n
    /// of two topics with the same number of partitions and the same subscribers has the same
    /// owner, so that it can join the records of both. If partitions do not divide evenly, the
    /// first members get one more of EVERY topic.
    #[doc(alias = "RangeAssignor")]
    Range,
    /// All partitions of all topics in turn, one to each member in the order of joining. Equal
    /// shares over many topics, but most partitions change their owner when a member joins or
    /// leaves.
    #[doc(alias = "RoundRobinAssignor")]
    RoundRobin,
    /// Equal shares, and as few partitions as possible change their owner. Members with the same
    /// subscription differ by at most one partition. If subscriptions differ, no member has two or
    /// more partitions more than another one that could read one of them.
    #[doc(alias = "CooperativeStickyAssignor")]
    #[default]
    CooperativeSticky,
}

impl Assignor {
    /// Who should own what. `owned` is who owns what now: only `CooperativeSticky` looks at it,
    /// and passes over what is no longer there, no longer subscribed or owned twice.
    pub(crate) fn assign(
        self,
        members: &BTreeMap<MemberId, Subscription>,
        partitions_of: &BTreeMap<Arc<str>, u32>,
        owned: &Assignment,
    ) -> Assignment {
        let question = Question::new(members, partitions_of);
        let owners = match self {
            Self::Range => range(&question),
            Self::RoundRobin => round_robin(&question),
            Self::CooperativeSticky => sticky(&question, owned),
        };
        question.answer(owners)
    }
}

/// The arguments with everything numbered. Member numbers count ascending ids; partition numbers
/// run through the topics in ascending order of name, so that a result is one list of members.
struct Question<'a> {
    members: Vec<MemberId>,
    /// Ascending by name, without topics that no member reads.
    topics: Vec<Topic<'a>>,
    /// The distinct sets of subscribers, each as ascending member numbers, none empty.
    audiences: Vec<Vec<usize>>,
}

struct Topic<'a> {
    name: &'a Arc<str>,
    partitions: u32,
    /// The number of its partition 0.
    base: usize,
    /// The position of its subscribers in `audiences`.
    audience: usize,
}

impl<'a> Question<'a> {
    fn new(
        members: &'a BTreeMap<MemberId, Subscription>,
        partitions_of: &'a BTreeMap<Arc<str>, u32>,
    ) -> Self {
        // Members that share a set are handled once: a thousand topics × a hundred members would
        // otherwise be a hundred thousand look-ups by name. Sharing is found by address, but
        // numbered by member: addresses must not decide anything (invariant 4).
        let mut sets: Vec<(&Subscription, Vec<usize>)> = Vec::new();
        for (member, subscription) in members.values().enumerate() {
            let same =
                |(other, _): &&mut (&Subscription, _)| Arc::ptr_eq(&other.0, &subscription.0);
            match sets.iter_mut().find(same) {
                Some((_, sharing)) => sharing.push(member),
                None => sets.push((subscription, vec![member])),
            }
        }
        let mut sets_of_topic: BTreeMap<&Arc<str>, Vec<usize>> = BTreeMap::new();
        for (set, (subscription, _)) in sets.iter().enumerate() {
            for topic in subscription.0.iter() {
                sets_of_topic.entry(topic).or_default().push(set);
            }
        }
        let mut audience_of_sets: BTreeMap<Vec<usize>, usize> = BTreeMap::new();
        let mut question = Self {
            members: members.keys().copied().collect(),
            topics: Vec::new(),
            audiences: Vec::new(),
        };
        let mut base = 0;
        for (name, topic_sets) in sets_of_topic {
            let Some(&partitions) = partitions_of.get(name) else {
                continue;
            };
            let audiences = &mut question.audiences;
            let audience = *audience_of_sets.entry(topic_sets).or_insert_with_key(|topic_sets| {
                let sharing = topic_sets.iter().filter_map(|&set| sets.get(set));
                let members = sharing.flat_map(|(_, members)| members).copied();
                let mut audience: Vec<usize> = members.collect();
                audience.sort_unstable();
                audiences.push(audience);
                audiences.len() - 1
            });
            question.topics.push(Topic { name, partitions, base, audience });
            base += partitions as usize;
        }
        question
    }

    fn audience(&self, topic: &Topic<'_>) -> &[usize] {
        self.audiences.get(topic.audience).map_or(&[], Vec::as_slice)
    }

    /// A partition's number, and its audience.
    fn find(&self, partition: &TopicPartition) -> Option<(usize, usize)> {
        let by_name = |topic: &Topic<'_>| topic.name.as_ref().cmp(&partition.topic);
        let topic = self.topics.get(self.topics.binary_search_by(by_name).ok()?)?;
        (partition.partition < topic.partitions)
            .then(|| (topic.base + partition.partition as usize, topic.audience))
    }

    fn partition_count(&self) -> usize {
        self.topics.last().map_or(0, |topic| topic.base + topic.partitions as usize)
    }

    /// Converts owners, in the order of partition numbers, back into names.
    fn answer(&self, owners: impl IntoIterator<Item = Option<usize>>) -> Assignment {
        let mut lists: Vec<Vec<TopicPartition>> = self.members.iter().map(|_| Vec::new()).collect();
        let partitions = self.topics.iter().flat_map(|topic| {
            (0..topic.partitions)
                .map(|partition| TopicPartition { topic: Arc::clone(topic.name), partition })
        });
        for (partition, owner) in partitions.zip(owners) {
            if let Some(list) = owner.and_then(|owner| lists.get_mut(owner)) {
                list.push(partition);
            }
        }
        let sets = lists.into_iter().map(BTreeSet::from_iter);
        self.members.iter().copied().zip(sets).collect()
    }
}

/// Kafka's `RangeAssignor`. Seven partitions over three members: 0 1 2, 3 4, 5 6.
fn range(question: &Question<'_>) -> Vec<Option<usize>> {
    let mut owners = Vec::with_capacity(question.partition_count());
    for topic in &question.topics {
        let audience = question.audience(topic);
        let partitions = topic.partitions as usize;
        let (each, extra) = (partitions / audience.len(), partitions % audience.len());
        for (rank, &member) in audience.iter().enumerate() {
            let share = each + usize::from(rank < extra);
            owners.extend(iter::repeat_n(Some(member), share));
        }
    }
    owners
}

/// Kafka's `RoundRobinAssignor`: one turn goes through all members and all topics; a member that
/// does not read the topic is skipped and has had its turn.
fn round_robin(question: &Question<'_>) -> Vec<Option<usize>> {
    let mut owners = Vec::with_capacity(question.partition_count());
    let mut turn = 0;
    for topic in &question.topics {
        let audience = question.audience(topic);
        for _ in 0..topic.partitions {
            let next = audience.partition_point(|&member| member < turn);
            let owner = audience.get(next).or(audience.first()).copied();
            turn = owner.map_or(0, |member| member + 1);
            owners.push(owner);
        }
    }
    owners
}

/// Kafka's `CooperativeStickyAssignor`, for equal and different subscriptions alike:
///
/// 1. each member keeps the partitions that it owns and may own;
/// 2. unowned partitions go to the member that has least, scarce ones (those with the fewest
///    subscribers) first, because the others leave more choice for later;
/// 3. while a member has at least two partitions more than another subscriber of one of them,
///    that partition moves.
///
/// Step 3 ends because each move lowers the sum of the squared loads. With equal subscriptions
/// there is one pool; its moves then only take from members above the even share and only give to
/// members below it, so their number is the least possible. Worked: three members own 4, 3 and 0
/// of seven partitions. 4 3 0 → 3 3 1 → 3 2 2: two moves, and the third member cannot be given two
/// partitions with fewer.
fn sticky(question: &Question<'_>, owned: &Assignment) -> Vec<Option<usize>> {
    let mut pools: Vec<Pool> = question.audiences.iter().map(|it| Pool::new(it)).collect();
    let mut loads = Loads(vec![0; question.members.len()]);
    let mut taken = vec![false; question.partition_count()];
    for (member, id) in question.members.iter().enumerate() {
        for partition in owned.get(id).into_iter().flatten() {
            let Some((number, audience)) = question.find(partition) else {
                continue;
            };
            let share = pools.get_mut(audience).and_then(|pool| pool.share_of(member));
            if let (Some(share), Some(taken @ false)) = (share, taken.get_mut(number)) {
                share.partitions.push(number);
                loads.raise(member);
                *taken = true;
            }
        }
    }
    for topic in &question.topics {
        let Some(pool) = pools.get_mut(topic.audience) else {
            continue;
        };
        let numbers = topic.base..topic.base + topic.partitions as usize;
        let free = |number: &usize| taken.get(*number) == Some(&false);
        pool.free.extend(numbers.filter(free));
    }
    // Stable: equally scarce pools stay in the order of their first topic's name.
    pools.sort_by_key(|pool| pool.shares.len());
    for pool in &mut pools {
        pool.deal(&mut loads);
    }
    let mut is_level = false;
    while !is_level {
        is_level = true;
        for pool in &mut pools {
            is_level &= !pool.level(&mut loads);
        }
    }

    let mut owners = vec![None; question.partition_count()];
    for share in pools.iter().flat_map(|pool| &pool.shares) {
        for &number in &share.partitions {
            if let Some(owner) = owners.get_mut(number) {
                *owner = Some(share.member);
            }
        }
    }
    owners
}

/// How many partitions each member has, over all pools.
struct Loads(Vec<usize>);

impl Loads {
    fn of(&self, member: usize) -> usize {
        self.0.get(member).copied().unwrap_or(0)
    }

    fn raise(&mut self, member: usize) {
        if let Some(load) = self.0.get_mut(member) {
            *load += 1;
        }
    }

    fn lower(&mut self, member: usize) {
        if let Some(load) = self.0.get_mut(member) {
            *load = load.saturating_sub(1);
        }
    }
}

/// The partitions of all topics that have the same subscribers.
struct Pool {
    /// Ascending by member.
    shares: Vec<Share>,
    free: Vec<usize>,
}

/// The partitions of one member in a pool.
struct Share {
    member: usize,
    /// Partitions that the member owns already come first, new ones last. Moves take from the end,
    /// so an owned partition moves only if there is no other.
    partitions: Vec<usize>,
}

impl Pool {
    fn new(audience: &[usize]) -> Self {
        let share = |&member| Share { member, partitions: Vec::new() };
        Self { shares: audience.iter().map(share).collect(), free: Vec::new() }
    }

    /// The member's share, unless it does not read these topics.
    fn share_of(&mut self, member: usize) -> Option<&mut Share> {
        let found = self.shares.binary_search_by_key(&member, |share| share.member);
        self.shares.get_mut(found.ok()?)
    }

    /// Gives each free partition to the member with the least.
    fn deal(&mut self, loads: &mut Loads) {
        for number in self.free.drain(..) {
            if let Some(share) = self.shares.iter_mut().min_by_key(|it| loads.of(it.member)) {
                share.partitions.push(number);
                loads.raise(share.member);
            }
        }
    }

    /// Moves partitions from the most to the least loaded member until no move helps. Returns
    /// whether any was made. Of equally loaded members the last gives and the first takes.
    fn level(&mut self, loads: &mut Loads) -> bool {
        let mut moved = false;
        loop {
            let loaded =
                || self.shares.iter().enumerate().map(|(at, it)| (loads.of(it.member), at));
            let has_some = |&(_, at): &(usize, usize)| {
                self.shares.get(at).is_some_and(|share| !share.partitions.is_empty())
            };
            let Some(source) = loaded().filter(has_some).max() else { return moved };
            let Some((least, _)) = loaded().min() else { return moved };
            if source.0 < least + 2 {
                return moved;
            }
            // One pass serves as many moves as possible: one for each of the least loaded members,
            // while no other member has more to give.
            let next = loaded().filter(has_some).filter(|it| *it != source).max();
            let targets: Vec<_> = loaded().filter(|(load, _)| *load == least).collect();
            let mut load = source.0;
            for (_, target) in targets {
                if load < least + 2 || next.is_some_and(|next| next > (load, source.1)) {
                    break;
                }
                let Ok([from, to]) = self.shares.get_disjoint_mut([source.1, target]) else {
                    return moved;
                };
                // The first of the round has one: the source was chosen for it.
                let Some(partition) = from.partitions.pop() else { break };
                to.partitions.push(partition);
                loads.lower(from.member);
                loads.raise(to.member);
                load -= 1;
                moved = true;
            }
        }
    }
}

#[cfg(test)]
mod tests;

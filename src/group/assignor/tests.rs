//! Goal: each assignor's rules, on hand-made cases that show them and on random ones against the
//! conditions themselves. Not covered: hand-over, which is `state`'s.

use super::*;
use crate::random::Random;

fn members<const N: usize>(subscriptions: [&[&str]; N]) -> BTreeMap<MemberId, Subscription> {
    let subscriptions = subscriptions.iter().map(|it| it.iter().copied().collect());
    (0..).map(MemberId).zip(subscriptions).collect()
}

fn topics<const N: usize>(counts: [(&str, u32); N]) -> BTreeMap<Arc<str>, u32> {
    counts.iter().map(|&(name, count)| (name.into(), count)).collect()
}

/// "a-0 a-1 | b-0" for two members.
fn show(assignment: &Assignment) -> String {
    let sets = assignment.values().map(|set| {
        let names: Vec<String> = set.iter().map(ToString::to_string).collect();
        names.join(" ")
    });
    sets.collect::<Vec<_>>().join(" | ")
}

fn owned(sets: &[(u64, &[(&str, u32)])]) -> Assignment {
    let set = |list: &[(&str, u32)]| list.iter().map(|&it| it.into()).collect();
    sets.iter().map(|&(id, list)| (MemberId(id), set(list))).collect()
}

/// How many of the partitions that are owned and still assigned change hands.
fn moved(before: &Assignment, after: &Assignment) -> usize {
    let owner_after = |it: &TopicPartition| after.iter().find(|(_, set)| set.contains(it));
    let owned = before.iter().flat_map(|(id, set)| set.iter().map(move |it| (id, it)));
    owned.filter(|(id, it)| owner_after(it).is_some_and(|(now, _)| now != *id)).count()
}

#[test]
fn range_deals_consecutive_runs_topic_by_topic() {
    let members = members([&["a", "b"], &["a", "b"], &["a"]]);
    let topics = topics([("a", 7), ("b", 3), ("unread", 5)]);
    let answer = Assignor::Range.assign(&members, &topics, &Assignment::new());
    assert_eq!(show(&answer), "a-0 a-1 a-2 b-0 b-1 | a-3 a-4 b-2 | a-5 a-6");
}

#[test]
fn round_robin_takes_one_turn_through_all_topics() {
    let all: &[&str] = &["a", "b"];
    let topics = topics([("a", 3), ("b", 3)]);
    let answer = Assignor::RoundRobin.assign(&members([all, all]), &topics, &Assignment::new());
    assert_eq!(show(&answer), "a-0 a-2 b-1 | a-1 b-0 b-2");
}

#[test]
fn round_robin_passes_over_members_that_do_not_read_the_topic() {
    // The example in the documentation of Kafka's RoundRobinAssignor.
    let members = members([&["t0"], &["t0", "t1"], &["t0", "t1", "t2"]]);
    let topics = topics([("t0", 1), ("t1", 2), ("t2", 3)]);
    let answer = Assignor::RoundRobin.assign(&members, &topics, &Assignment::new());
    assert_eq!(show(&answer), "t0-0 | t1-0 | t1-1 t2-0 t2-1 t2-2");
}

#[test]
fn sticky_moves_only_what_evenness_needs() {
    let all: &[&str] = &["a"];
    let before = owned(&[
        (0, &[("a", 0), ("a", 1), ("a", 2), ("a", 3)]),
        (1, &[("a", 4), ("a", 5), ("a", 6)]),
    ]);
    let members = members([all, all, all]);
    let answer = Assignor::CooperativeSticky.assign(&members, &topics([("a", 7)]), &before);
    assert_eq!(show(&answer), "a-0 a-1 a-2 | a-4 a-5 | a-3 a-6");
}

#[test]
fn sticky_levels_different_subscriptions_as_far_as_they_allow() {
    // Kafka's documented example for the sticky assignor: better than round robin's 1, 1, 4.
    let members = members([&["t0"], &["t0", "t1"], &["t0", "t1", "t2"]]);
    let topics = topics([("t0", 1), ("t1", 2), ("t2", 3)]);
    let answer = Assignor::CooperativeSticky.assign(&members, &topics, &Assignment::new());
    assert_eq!(show(&answer), "t0-0 | t1-0 t1-1 | t2-0 t2-1 t2-2");
}

#[test]
fn sticky_deals_scarce_partitions_first() {
    // In the order of names: a to 0, b to 1, c to 0. That is 2, 1, 0, and no single move helps.
    let members = members([&["a", "c"], &["a", "b"], &["b"]]);
    let topics = topics([("a", 1), ("b", 1), ("c", 1)]);
    let answer = Assignor::CooperativeSticky.assign(&members, &topics, &Assignment::new());
    assert_eq!(show(&answer), "c-0 | a-0 | b-0");
}

#[test]
fn sticky_passes_over_ownership_that_cannot_last() {
    let members = members([&["a"], &["b"], &["a", "b"]]);
    // b-0 is owned by one that reads only a, a-9 and c-0 do not exist, a-0 is owned twice.
    let before = owned(&[
        (0, &[("b", 0), ("a", 9), ("c", 0), ("a", 0)]),
        (2, &[("a", 0)]),
        (7, &[("b", 1)]),
    ]);
    let topics = topics([("a", 2), ("b", 2)]);
    let answer = Assignor::CooperativeSticky.assign(&members, &topics, &before);
    assert_eq!(show(&answer), "a-0 | b-0 b-1 | a-1");
}

#[test]
fn more_members_than_partitions_leave_some_idle() {
    let all: &[&str] = &["a"];
    for assignor in [Assignor::Range, Assignor::RoundRobin, Assignor::CooperativeSticky] {
        let members = members([all, all, all, all]);
        let answer = assignor.assign(&members, &topics([("a", 2)]), &Assignment::new());
        assert_eq!(show(&answer), "a-0 | a-1 |  | ", "{assignor:?}");
    }
}

#[test]
fn nobody_and_nothing_are_answers_too() {
    for assignor in [Assignor::Range, Assignor::RoundRobin, Assignor::CooperativeSticky] {
        let nobody = BTreeMap::new();
        assert!(assignor.assign(&nobody, &topics([("a", 2)]), &Assignment::new()).is_empty());
        let nothing = assignor.assign(&members([&["a"]]), &topics([("a", 0)]), &Assignment::new());
        assert_eq!(show(&nothing), "");
        assert_eq!(nothing.len(), 1);
    }
}

fn random_question(
    random: &mut Random,
) -> (BTreeMap<MemberId, Subscription>, BTreeMap<Arc<str>, u32>) {
    let topics: BTreeMap<Arc<str>, u32> = (0..=random.below(6))
        .map(|i| (format!("t{i}").into(), u32::try_from(random.below(9)).unwrap()))
        .collect();
    let shared: Subscription = topics.keys().cloned().collect();
    let members = (0..=random.below(7)).map(|id| {
        let own = topics.keys().filter(|_| random.below(3) > 0).cloned().collect();
        // Some share their set, some are equal without sharing it, some differ.
        let subscription = match random.below(3) {
            0 => shared.clone(),
            1 => topics.keys().cloned().collect(),
            _ => own,
        };
        (MemberId(id), subscription)
    });
    (members.collect(), topics)
}

#[test]
fn every_answer_is_complete_and_allowed_and_sticky_ones_are_level() {
    for seed in 0..3_000 {
        let random = &mut Random::new(seed);
        let mut before = Assignment::new();
        for _ in 0..4 {
            let (members, topics) = random_question(random);
            for assignor in [Assignor::Range, Assignor::RoundRobin, Assignor::CooperativeSticky] {
                let answer = assignor.assign(&members, &topics, &before);
                check_complete(&members, &topics, &answer, seed);
                if assignor == Assignor::CooperativeSticky {
                    check_level(&members, &answer, seed);
                    let again = assignor.assign(&members, &topics, &answer);
                    assert_eq!(again, answer, "seed {seed}: a level answer stays");
                    before = answer;
                }
            }
        }
    }
}

fn check_complete(
    members: &BTreeMap<MemberId, Subscription>,
    topics: &BTreeMap<Arc<str>, u32>,
    answer: &Assignment,
    seed: u64,
) {
    assert!(answer.keys().eq(members.keys()), "seed {seed}: {answer:?}");
    let mut given: Vec<&TopicPartition> = answer.values().flatten().collect();
    given.sort();
    let read = topics.iter().filter(|(name, _)| members.values().any(|it| it.0.contains(*name)));
    let expected: Vec<TopicPartition> =
        read.flat_map(|(name, &count)| (0..count).map(|it| (&**name, it).into())).collect();
    assert!(given.into_iter().eq(&expected), "seed {seed}: {answer:?}");
    for (id, set) in answer {
        let allowed = |it: &TopicPartition| members[id].0.contains(&it.topic);
        assert!(set.iter().all(allowed), "seed {seed}: {id:?} {set:?}");
    }
}

fn check_level(members: &BTreeMap<MemberId, Subscription>, answer: &Assignment, seed: u64) {
    for (from, held) in answer {
        for (to, subscription) in members {
            let could_take = held.iter().any(|it| subscription.0.contains(&it.topic));
            let gap = held.len().saturating_sub(answer[to].len());
            assert!(!could_take || gap < 2, "seed {seed}: {from:?} to {to:?} in {answer:?}");
        }
    }
}

#[test]
fn sticky_moves_the_fewest_partitions_among_equal_members() {
    for seed in 0..3_000 {
        let random = &mut Random::new(seed);
        let topics: BTreeMap<Arc<str>, u32> = (0..=random.below(3))
            .map(|i| (format!("t{i}").into(), u32::try_from(random.below(12)).unwrap()))
            .collect();
        let everything: Subscription = topics.keys().cloned().collect();
        let count = 1 + usize::try_from(random.below(8)).unwrap();
        let ids = (0..count as u64).map(MemberId);
        let members: BTreeMap<_, _> = ids.map(|id| (id, everything.clone())).collect();
        // Any ownership at all, however uneven, with gaps and with owners that have left.
        let mut before = Assignment::new();
        for (name, &partitions) in &topics {
            for partition in 0..partitions {
                let owner = MemberId(random.below(count as u64 + 2));
                let owner = if random.below(2) == 0 { MemberId(0) } else { owner };
                before.entry(owner).or_default().insert((&**name, partition).into());
            }
        }
        let answer = Assignor::CooperativeSticky.assign(&members, &topics, &before);
        before.retain(|id, _| members.contains_key(id));
        let total: usize = answer.values().map(BTreeSet::len).sum();
        assert_eq!(moved(&before, &answer), fewest_moves(&before, count, total), "seed {seed}");
    }
}

/// The best that any even answer can do: the members with most keep the larger share.
fn fewest_moves(before: &Assignment, members: usize, total: usize) -> usize {
    let mut loads: Vec<usize> = before.values().map(BTreeSet::len).collect();
    loads.sort_unstable_by(|a, b| b.cmp(a));
    let quota = |rank| total / members + usize::from(rank < total % members);
    let surplus = loads.iter().enumerate().map(|(rank, load)| load.saturating_sub(quota(rank)));
    surplus.sum()
}

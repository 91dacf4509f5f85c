//! The plan, by tables and against a reference that looks at everything at once.
//!
//! `LOGPOND_SEED=n` replays the random plans of that seed, which a failure prints.

use super::*;
use crate::random::Random;

/// A dated sealed segment of 100 bytes and ten offsets, of which the `number`-th ends at
/// `10 * number + 10`.
fn dated(number: u64, aged_from: u64) -> SegmentFacts {
    let times = TimeRange { first: aged_from, max: aged_from, aged_from, since: aged_from };
    SegmentFacts { next_offset: 10 * number + 10, bytes: 100, times: Some(times) }
}

fn undated(number: u64) -> SegmentFacts {
    SegmentFacts { times: None, ..dated(number, 0) }
}

fn tail(facts: SegmentFacts) -> Tail {
    let began = facts.times.map(|times| times.aged_from);
    Tail { base_offset: facts.next_offset.saturating_sub(10), facts, began }
}

fn plan(policy: RetentionPolicy, now: u64, log_start: u64, all: &[SegmentFacts]) -> Plan {
    let (last, sealed) = all.split_last().unwrap();
    let bytes = all.iter().map(|facts| facts.bytes).sum();
    let mut planner = Planner::new(policy, now, log_start, bytes);
    for facts in sealed {
        if !planner.sealed(facts) {
            break;
        }
    }
    planner.finish(&tail(*last))
}

const HOUR_OLD: RetentionPolicy =
    RetentionPolicy { age: Some(60), bytes: None, segment_age: None, compacts: false };

fn bytes(limit: u64) -> RetentionPolicy {
    RetentionPolicy { age: None, bytes: Some(limit), segment_age: None, compacts: false }
}

fn goes(log_start: u64) -> Plan {
    Plan { log_start, roll: false }
}

#[test]
fn what_is_older_than_allowed_goes_and_not_what_is_as_old() {
    let all = [dated(0, 0), dated(1, 10), dated(2, 20), dated(3, 30)];
    assert_eq!(plan(HOUR_OLD, 60, 0, &all), goes(0));
    assert_eq!(plan(HOUR_OLD, 61, 0, &all), goes(10));
    assert_eq!(plan(HOUR_OLD, 81, 0, &all), goes(30));
}

#[test]
fn the_last_segment_goes_when_all_of_it_has_expired_and_is_replaced_first() {
    let all = [dated(0, 0), dated(1, 30)];
    assert_eq!(plan(HOUR_OLD, 90, 0, &all), goes(10));
    assert_eq!(plan(HOUR_OLD, 91, 0, &all), Plan { log_start: 20, roll: true });
}

#[test]
fn an_empty_last_segment_is_never_replaced() {
    let eager =
        RetentionPolicy { age: Some(0), bytes: Some(0), segment_age: Some(0), compacts: false };
    assert_eq!(plan(eager, u64::MAX, 0, &[undated(0)]), goes(0));
    assert_eq!(plan(eager, u64::MAX, 0, &[dated(0, 5), undated(1)]), goes(10));
}

#[test]
fn a_young_segment_keeps_what_comes_after_it() {
    let all = [dated(0, 500), dated(1, 0), dated(2, 0)];
    assert_eq!(plan(HOUR_OLD, 100, 0, &all), goes(0));
}

#[test]
fn a_limit_of_bytes_is_what_is_kept_at_least() {
    let all = [dated(0, 0), dated(1, 0), dated(2, 0), dated(3, 0)];
    for (limit, start) in [(0, 30), (99, 30), (100, 30), (101, 20), (299, 10), (300, 10), (301, 0)]
    {
        assert_eq!(plan(bytes(limit), 9, 0, &all), goes(start), "{limit}");
    }
}

#[test]
fn without_limits_nothing_goes() {
    let none = RetentionPolicy::default();
    assert_eq!(plan(none, u64::MAX, 3, &[dated(0, 0), dated(1, 0)]), goes(3));
}

#[test]
fn a_segment_without_records_ages_by_its_successor() {
    let all = [dated(0, 0), undated(1), undated(2), dated(3, 50), undated(4)];
    assert_eq!(plan(HOUR_OLD, 110, 0, &all), goes(10));
    assert_eq!(plan(HOUR_OLD, 111, 0, &all), goes(40));
    // Nothing follows that has an age: it stays.
    assert_eq!(plan(HOUR_OLD, u64::MAX, 0, &[undated(0), undated(1)]), goes(0));
    // By bytes it goes like any other.
    assert_eq!(plan(bytes(250), 9, 0, &[undated(0), dated(1, 0), dated(2, 0)]), goes(0));
    assert_eq!(plan(bytes(200), 9, 0, &[undated(0), dated(1, 0), dated(2, 0)]), goes(10));
}

#[test]
fn the_log_start_never_goes_back() {
    // Deleted to within the third segment, before anything expired.
    let all = [dated(2, 0), dated(3, 50), dated(4, 50)];
    assert_eq!(plan(HOUR_OLD, 10, 25, &all), goes(25));
    assert_eq!(plan(HOUR_OLD, 70, 25, &all), goes(30));
    assert_eq!(plan(HOUR_OLD, 70, 33, &all), goes(33));
}

#[test]
fn a_segment_is_rolled_at_its_age_and_stays() {
    let policy =
        RetentionPolicy { age: Some(1_000), bytes: None, segment_age: Some(60), compacts: false };
    let all = [dated(0, 0), dated(1, 10)];
    assert_eq!(plan(policy, 70, 0, &all), goes(0));
    assert_eq!(plan(policy, 71, 0, &all), Plan { log_start: 0, roll: true });
    // One that takes no appends cannot grow, and is rolled only for compaction, which it waits for.
    let inactive = |policy, now, facts| {
        let mut planner = Planner::new(policy, now, 0, 0);
        planner.sealed(&dated(0, 4_900));
        planner.finish(&Tail { began: None, ..tail(facts) })
    };
    assert_eq!(inactive(policy, 5_000, dated(1, 4_900)), goes(0));
    let compacted = RetentionPolicy { compacts: true, ..policy };
    assert_eq!(inactive(compacted, 4_960, dated(1, 4_900)), goes(0));
    assert_eq!(inactive(compacted, 4_961, dated(1, 4_900)), Plan { log_start: 0, roll: true });
    assert_eq!(inactive(compacted, 4_961, undated(1)), goes(0));
}

#[test]
fn a_record_ages_from_its_timestamp_or_its_append_whichever_is_earlier() {
    assert_eq!(aged_from(105, 110, 0), 105);
    assert_eq!(aged_from(500, 110, 0), 110);
    assert_eq!(aged_from(u64::MAX, 110, 7), 110);
    // The wall clock stands at 10, and stamps by it.
    assert_eq!(aged_from(10, 110, 100), 110);
    assert_eq!(aged_from(4, 110, 100), 104);
}

#[test]
fn a_policy_is_what_the_settings_say() {
    let config = TopicConfig::new(1);
    let week = 7 * 24 * 60 * 60 * 1000;
    let default =
        RetentionPolicy { age: Some(week), bytes: None, segment_age: Some(week), compacts: false };
    assert_eq!(RetentionPolicy::of(&config), default);
    let forever = config.clone().retention(Duration::MAX).segment_age(Duration::MAX);
    assert_eq!(RetentionPolicy::of(&forever), RetentionPolicy::default());
    let compacted = config.cleanup(Cleanup::Compact).retention_bytes(5);
    let rolls = RetentionPolicy { age: None, compacts: true, ..default };
    assert_eq!(RetentionPolicy::of(&compacted), rolls);
    let both = compacted.cleanup(Cleanup::CompactAndDelete);
    let expected = RetentionPolicy { bytes: Some(5), compacts: true, ..default };
    assert_eq!(RetentionPolicy::of(&both), expected);
}

/// How many segments of `all` go, by the definition: the longest prefix of which each expired or
/// can be spared.
fn reference(policy: RetentionPolicy, now: u64, all: &[SegmentFacts]) -> usize {
    let dated_at = |index: usize| {
        let own = all[index].times.map(|times| times.aged_from);
        let next = || all[index + 1..].iter().find_map(|facts| facts.times);
        own.or_else(|| next().map(|times| times.first.min(times.aged_from)))
    };
    let expired = |index: usize| {
        let since = dated_at(index);
        policy.age.is_some_and(|age| since.is_some_and(|since| now.saturating_sub(since) > age))
    };
    let spare = |index: usize| {
        let left: u64 = all[index + 1..].iter().map(|facts| facts.bytes).sum();
        policy.bytes.is_some_and(|limit| left >= limit)
    };
    let last = all.len() - 1;
    let goes = |index: &usize| match *index {
        index if index == last => all[index].times.is_some() && expired(index),
        index => expired(index) || spare(index),
    };
    (0..all.len()).take_while(goes).count()
}

#[test]
fn random_plans_are_what_the_definition_says() {
    let seed = std::env::var("LOGPOND_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut random = Random::new(seed);
    let (mut removed, mut rolled) = (0, 0);
    for round in 0..20_000 {
        let count = 1 + random.below(8);
        let all: Vec<SegmentFacts> = (0..count)
            .map(|number| {
                let (first, span, aged_from) =
                    (random.below(60), random.below(60), random.below(100));
                let times = TimeRange { first, max: first + span, aged_from, since: aged_from };
                let times = (random.below(4) > 0).then_some(times);
                SegmentFacts { times, bytes: 1 + random.below(100), ..dated(number, 0) }
            })
            .collect();
        let policy = RetentionPolicy {
            age: (random.below(3) > 0).then(|| random.below(60)),
            bytes: (random.below(3) > 0).then(|| random.below(400)),
            segment_age: None,
            compacts: false,
        };
        let (now, log_start) = (random.below(200), random.below(5));
        let expected = reference(policy, now, &all);
        let plan = plan(policy, now, log_start, &all);
        let start = (expected as u64 * 10).max(log_start);
        let roll = expected == all.len();
        let context = format!("LOGPOND_SEED={seed}, round {round}: {policy:?} at {now}, {all:?}");
        assert_eq!(plan, Plan { log_start: start, roll }, "{context}");
        removed += usize::from(expected > 0);
        rolled += usize::from(roll);
    }
    assert!(removed > 1_000 && rolled > 100, "{removed} plans remove, {rolled} roll");
}

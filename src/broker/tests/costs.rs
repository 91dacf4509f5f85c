//! What a call costs when there is much that it does not concern: counted in steps, not in time.

use super::model::clock;
use crate::broker::Broker;
use crate::config::TopicConfig;
use crate::steps;

fn in_memory() -> Broker {
    Broker::builder().in_memory().clock(clock()).background(false).open().unwrap()
}

fn small(partitions: u32) -> TopicConfig {
    TopicConfig::new(partitions).segment_bytes(16 << 10)
}

/// Symptom: 8,000 consumers that joined groups of their own took 600 ms, more than twice as long as
/// half of them. Cause: with each, all groups were asked when a member of theirs is overdue. Rule:
/// the groups are kept in the order in which that is.
// RED: src/group/agenda.rs
//   - let due = groups.range(..=Counted((now, u64::MAX)));
//   + let due = groups.iter().filter(|(at, _)| **at <= Counted((now, u64::MAX)));
#[test]
fn row_g09_who_looks_for_overdue_members_does_not_look_at_all_groups() {
    let broker = in_memory();
    broker.ensure_topic("t", small(1)).unwrap();
    let look = || {
        broker.life().coordinator.evict_overdue();
    };
    let mut consumers = Vec::new();
    let mut steps_of_join = |groups: usize| {
        let mut steps = 0;
        while consumers.len() < groups {
            let group = format!("g{}", consumers.len());
            steps = steps::of(|| {
                consumers.push(broker.consumer(&group).subscribe(["t"]).open().unwrap());
                look();
            });
        }
        steps
    };
    let (few, many) = (steps_of_join(64), steps_of_join(1_024));
    assert!(many < few + 100, "{few} with 64 groups, {many} with 1,024");
}

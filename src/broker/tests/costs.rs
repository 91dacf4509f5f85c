//! What a call costs when there is much that it does not concern: counted in steps, not in time.

use std::time::Duration;

use super::model::clock;
use crate::broker::Broker;
use crate::config::{CommitMode, TopicConfig};
use crate::record::Record;
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

/// Symptom: in auto mode `recv` cost as much as there were partitions. Cause: with each message all
/// of them were looked through for what was handed out before. Rule: between two messages of one
/// poll that is the last message.
// RED: src/consumer/commit.rs
//   - let slots = if std::mem::take(&mut self.passes_all) {
//   + let slots = if !self.slots.is_empty() {
#[test]
fn row_g09_a_message_in_auto_mode_costs_the_same_beside_many_partitions() {
    let broker = in_memory();
    broker.ensure_topic("t", small(1_000)).unwrap();
    let records = (0..100_u32).map(|number| Record::to("t").partition(number / 50).value("v"));
    broker.producer().send_batch(records).unwrap();
    let auto = CommitMode::Auto { every: Duration::from_secs(3_600) };
    let mut consumer = broker.consumer("g").subscribe(["t"]).commit(auto).open().unwrap();
    consumer.recv().unwrap();
    consumer.recv().unwrap();
    let steps = steps::of(|| {
        for _ in 2..100 {
            consumer.recv().unwrap();
        }
    });
    assert!(steps < 1_000, "{steps}");
    // Nothing is lost of what was passed: the last message alone was not.
    consumer.close().unwrap();
    let info = broker.admin().describe_group("g").unwrap();
    let committed: Vec<_> = info.offsets.iter().filter_map(|it| it.committed).collect();
    assert_eq!(committed.iter().sum::<u64>(), 99, "{committed:?}");
}

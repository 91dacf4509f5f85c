//! Settings that are refused, and what a commit for a partition that is not assigned is refused
//! with.

use logpond::{Assignor, ConsumerBuilder};

use super::*;

/// Symptom: a consumer by `assign` took a rebalance callback that nobody would ever call, and an
/// assignor and a poll interval that mean nothing to it; a commit interval of zero kept a waiting
/// call awake. Cause: only some settings were checked against what else was chosen. Rule: a setting
/// that can have no effect is refused when the consumer is opened, by its name.
// RED: src/consumer/builder.rs
//   - ("on_rebalance", self.callback.is_some()),
// RED: src/consumer/builder.rs
//   - if every.is_zero() {
//   + if every.is_zero() && self.group.is_none() {
#[test]
fn row_j19_a_setting_that_would_have_no_effect_is_refused() {
    type Set = fn(ConsumerBuilder) -> ConsumerBuilder;

    let broker = in_memory();
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    let settings: [(&str, Set); 4] = [
        ("instance_id", |builder| builder.instance_id("a")),
        ("assignor", |builder| builder.assignor(Assignor::Range)),
        ("max_poll_interval", |builder| builder.max_poll_interval(Duration::from_secs(1))),
        ("on_rebalance", |builder| builder.on_rebalance(|_, _| ())),
    ];
    for (setting, set) in settings {
        for no_member in [
            broker.reader().subscribe(["t"]),
            broker.reader().subscribe_pattern("t*"),
            broker.reader().assign([("t", 0)]),
            broker.consumer("g").assign([("t", 0)]),
        ] {
            assert_eq!(refused_setting(set(no_member).open()), setting);
        }
        let member = set(broker.consumer(setting).subscribe_pattern("t*")).open().unwrap();
        assert_eq!(member.assignment(), [tp("t", 0)]);
    }
    let waited_for = || broker.consumer("g").subscribe(["t"]).rejoin_timeout(Duration::ZERO);
    assert_eq!(refused_setting(waited_for().open()), "rejoin_timeout");
    waited_for().instance_id("a").open().unwrap();

    let auto = |every| broker.consumer("g").subscribe(["t"]).commit(CommitMode::Auto { every });
    assert_eq!(refused_setting(auto(Duration::ZERO).open()), "commit");
    auto(Duration::from_nanos(1)).open().unwrap();
}

/// Symptom: the documents of `commit_offsets` and `commit_message` promised `UnknownPartition` for
/// a partition that is not assigned; members get `Rebalanced`. Rule: to a member it is all the same
/// whether a partition was taken away or never given to it; who assigns by hand made a mistake.
#[test]
fn a_commit_for_a_partition_that_is_not_assigned_is_refused_by_role() {
    let broker = in_memory();
    broker.ensure_topic("t", TopicConfig::new(2)).unwrap();
    send_numbers(&broker, "t", 0, 0..1);
    let elsewhere = broker.reader().subscribe(["t"]).open().unwrap().recv().unwrap();
    let offsets = |partition| Offsets::from([(tp("t", partition), 0)]);

    let mut by_hand = broker.consumer("g").assign([("t", 1)]).open().unwrap();
    for refused in [by_hand.commit_offsets(&offsets(0)), by_hand.commit_message(&elsewhere)] {
        assert!(matches!(&refused, Err(Error::UnknownPartition(at)) if *at == tp("t", 0)));
    }
    drop(by_hand);
    let [mut a, mut b] = [(); 2].map(|()| broker.consumer("g").subscribe(["t"]).open().unwrap());
    for _ in 0..2 {
        a.poll(Duration::ZERO).unwrap();
        b.poll(Duration::ZERO).unwrap();
    }
    let mut member = if a.assignment() == [tp("t", 1)] { a } else { b };
    assert_eq!(member.assignment(), [tp("t", 1)]);
    for refused in [
        member.commit_offsets(&offsets(0)),
        member.commit_message(&elsewhere),
        member.commit_offsets(&offsets(7)),
    ] {
        assert!(matches!(refused, Err(Error::Rebalanced { .. })), "{refused:?}");
    }
}

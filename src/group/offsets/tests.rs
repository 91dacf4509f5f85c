//! What is refused of what `__offsets` may hold.

use super::*;
use crate::config::PARTITIONS_MAX;

fn commit(group: &str, partition: u32, offset: u64) -> OffsetChange {
    let committed = Committed { offset, leader_epoch: u32::MAX, incarnation: u64::MAX };
    let (group, topic) = (group.into(), TopicId([1; 16]));
    OffsetChange::Commit { group, topic, partition, committed }
}

fn member(instance: &str, topic: &str, owned: TopicPartition) -> OffsetChange {
    let member = StaticMember {
        interest: [topic].into_iter().collect(),
        owned: vec![owned],
        rejoin_timeout_ms: u64::MAX,
    };
    OffsetChange::StaticMember { group: "g".into(), instance: instance.into(), member }
}

fn subscribed(group: &str, wanted: Wanted) -> OffsetChange {
    OffsetChange::Subscribed { group: group.into(), wanted }
}

/// E16 and E19: whatever a group is called it is bytes of a bounded length and never a path;
/// numbers are such as a topic can have.
// RED: src/group/offsets.rs
//   - if committed.offset <= OFFSET_MAX {
//   + if true {
#[test]
fn row_e16_e19_commits_and_members_that_cannot_be_are_refused() {
    let state = OffsetsState::default();
    let longest = "\u{e4}/".repeat(85);
    let sound = [
        commit("../../etc/passwd", 0, OFFSET_MAX),
        commit(&longest, PARTITIONS_MAX - 1, 0),
        member("CON\0", "t", ("t", 0).into()),
        OffsetChange::GroupGone("__offsets".into()),
        subscribed("g", Wanted::Name("t".into())),
        subscribed(&longest, Wanted::Pattern("../*".into())),
    ];
    for change in &sound {
        assert_eq!(state.check(change), Ok(()), "{change:?}");
    }
    let too_long = "x".repeat(256);
    let gone = |group: &str, instance: &str| OffsetChange::StaticMemberGone {
        group: group.into(),
        instance: instance.into(),
    };
    let hostile = [
        commit("", 0, 1),
        commit(&too_long, 0, 1),
        commit("g", PARTITIONS_MAX, 1),
        commit("g", u32::MAX, 1),
        commit("g", 0, OFFSET_MAX + 1),
        commit("g", 0, u64::MAX),
        member("", "t", ("t", 0).into()),
        member("i", "../t", ("t", 0).into()),
        member("i", "t", ("..", 0).into()),
        member("i", "t", ("t", PARTITIONS_MAX).into()),
        gone("g", &too_long),
        gone("", "i"),
        OffsetChange::GroupGone("".into()),
        subscribed("", Wanted::Name("t".into())),
        subscribed(&too_long, Wanted::Pattern("*".into())),
        subscribed("g", Wanted::Name("../t".into())),
    ];
    for change in &hostile {
        let refused = state.check(change);
        assert!(matches!(refused, Err(CorruptionKind::Malformed(_))), "{change:?}: {refused:?}");
    }
}

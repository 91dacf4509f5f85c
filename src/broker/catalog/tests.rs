//! What the catalog takes, and what it refuses.

use std::time::Duration;

use super::*;
use crate::codec::{Bincode, Codec};
use crate::config::{Cleanup, Durability, TimestampType};

fn entry(id: u8, name: &str, partitions: u32) -> TopicEntry {
    let config = TopicConfig { partitions, ..TopicConfig::new(1) };
    TopicEntry { name: name.into(), id: TopicId([id; 16]), config }
}

fn refused(state: &CatalogState, change: &CatalogChange) -> &'static str {
    match state.check(change) {
        Err(CorruptionKind::Malformed(what)) => what,
        other => panic!("{change:?}: {other:?}"),
    }
}

fn with(changes: impl IntoIterator<Item = CatalogChange>) -> CatalogState {
    let mut state = CatalogState::default();
    for change in changes {
        assert_eq!(state.check(&change), Ok(()), "{change:?}");
        state.apply(change, RecordedAt::default());
    }
    state
}

#[test]
fn a_snapshot_rebuilds_the_state() {
    let state = with([
        CatalogChange::Topic(entry(7, "orders", 3), Stage::Live),
        CatalogChange::Topic(entry(8, "Bills", 1), Stage::Growing(2)),
        CatalogChange::Producer("p".into(), ProducerEntry { id: 4, epoch: 2 }),
        CatalogChange::ByKey(TopicId([7; 16]), 4),
    ]);
    let rebuilt = with(state.snapshot());
    assert!(rebuilt.topics.iter().eq(state.topics.iter()));
    assert!(rebuilt.producers.iter().eq(state.producers.iter()));
    assert!(rebuilt.all_by_key().eq(state.all_by_key()));
    assert_eq!((rebuilt.live, rebuilt.producer_ids), (state.live, state.producer_ids));
}

#[test]
fn ids_of_producers_are_given_out_once() {
    let producer =
        |name: &str, id| CatalogChange::Producer(name.into(), ProducerEntry { id, epoch: 0 });
    let state = with([producer("a", 4), producer("b", 2)]);
    assert_eq!(state.next_producer_id(), Some(5));
    assert_eq!(CatalogState::default().next_producer_id(), Some(1));
    assert_eq!(with([producer("a", u64::MAX)]).next_producer_id(), None);
}

#[test]
fn names_collide_whatever_their_case() {
    let state = with([CatalogChange::Topic(entry(1, "Orders", 1), Stage::Deleting)]);
    assert!(state.named("oRDERS").is_some());
}

/// E16: no entry gets in whose name or numbers something would be done with.
// RED: src/broker/catalog.rs
//   - validate_topic(&self.name).map_err(|_| CorruptionKind::Malformed("a topic's name"))?;
#[test]
fn row_e16_a_topic_that_cannot_be_is_refused() {
    let state = CatalogState::default();
    for stage in [Stage::Creating, Stage::Live, Stage::Deleting, Stage::Growing(7)] {
        let topic = |entry: TopicEntry| CatalogChange::Topic(entry, stage);
        let longest = "x".repeat(249);
        assert_eq!(state.check(&topic(entry(1, &longest, 7))), Ok(()));
        let too_long = "x".repeat(250);
        for name in ["../x", "..", ".", "", "a/b", "/etc", "a\0b", "__meta", "__", "a b", &too_long]
        {
            assert_eq!(refused(&state, &topic(entry(1, name, 1))), "a topic's name", "{name}");
        }
        for partitions in [0, PARTITIONS_MAX + 1, u32::MAX] {
            let refusal = refused(&state, &topic(entry(1, "a", partitions)));
            assert_eq!(refusal, "a topic's settings", "{partitions}");
        }
        let settings = [
            TopicConfig::new(1).segment_bytes(1),
            TopicConfig::new(1).segment_bytes(u64::MAX),
            TopicConfig::new(1).max_record_bytes(u32::MAX),
            TopicConfig::new(1).min_dirty_ratio(f64::NAN),
            TopicConfig::new(1).segment_age(std::time::Duration::ZERO),
            TopicConfig::new(1)
                .durability(Durability::Interval { every: std::time::Duration::ZERO, bytes: 1 }),
        ];
        for config in settings {
            let change = topic(TopicEntry { config, ..entry(1, "a", 1) });
            assert_eq!(refused(&state, &change), "a topic's settings");
        }
    }
    for total in [0, 2, PARTITIONS_MAX + 1, u32::MAX] {
        let change = CatalogChange::Topic(entry(1, "a", 3), Stage::Growing(total));
        assert_eq!(refused(&state, &change), "a topic's growth", "{total}");
    }
}

#[test]
fn row_e16_no_two_live_topics_have_one_name_and_none_has_two() {
    let live = |id, name: &str| CatalogChange::Topic(entry(id, name, 1), Stage::Live);
    let state = with([live(1, "Orders")]);
    assert_eq!(refused(&state, &live(2, "orders")), "a topic: another one has its name");
    assert_eq!(refused(&state, &live(1, "bills")), "a topic: its name has changed");
    // A deleted topic, or one that is being deleted, does not block others.
    let going = CatalogChange::Topic(entry(1, "Orders", 1), Stage::Deleting);
    with([live(1, "Orders"), going, live(2, "orders"), CatalogChange::TopicGone(TopicId([1; 16]))]);
    with([live(1, "a"), CatalogChange::TopicGone(TopicId([1; 16])), live(2, "A")]);
}

#[test]
fn row_e16_a_producer_that_cannot_be_is_refused() {
    let producer = |name: &str, id| {
        CatalogChange::Producer(name.into(), ProducerEntry { id, epoch: u32::MAX })
    };
    let state = with([producer("p", 1), producer("p", 1)]);
    let too_long = "x".repeat(256);
    for name in ["", &too_long] {
        assert_eq!(refused(&state, &producer(name, 2)), "a producer's name");
    }
    for (name, id) in [("q", 1), ("p", 2)] {
        assert_eq!(refused(&state, &producer(name, id)), "a producer's id", "{name} {id}");
    }
}

/// A topic entry with each setting away from its default, and its bytes as version 0.1.0 first
/// wrote them.
fn entry_of_the_first_form() -> CatalogChange {
    let config = TopicConfig::new(3)
        .durability(Durability::Interval { every: Duration::from_millis(1_500), bytes: 4096 })
        .retention(Duration::from_secs(3600))
        .retention_bytes(1 << 40)
        .segment_bytes(1 << 20)
        .segment_age(Duration::from_secs(7200))
        .cleanup(Cleanup::CompactAndDelete)
        .tombstone_retention(Duration::MAX)
        .min_dirty_ratio(0.25)
        .max_record_bytes(1000)
        .timestamps(TimestampType::AppendTime);
    let entry = TopicEntry { name: "orders".into(), id: TopicId([7; 16]), config };
    CatalogChange::Topic(entry, Stage::Growing(5))
}

const FIRST_FORM: &[u8] = &[
    0, 6, 111, 114, 100, 101, 114, 115, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 3, 1, 1, 1,
    252, 0, 101, 205, 29, 251, 0, 16, 251, 16, 14, 0, 253, 0, 0, 0, 0, 0, 1, 0, 0, 252, 0, 0, 16,
    0, 251, 32, 28, 0, 2, 253, 255, 255, 255, 255, 255, 255, 255, 255, 252, 255, 201, 154, 59, 0,
    0, 0, 0, 0, 0, 208, 63, 1, 251, 232, 3, 1, 1, 3, 5,
];

/// What a topic is stored as followed the fields of the public settings, by position: to remove or
/// add one there changed what directories hold, and nothing showed it. The stored form is a type of
/// its own, and these bytes never change.
#[test]
fn a_topic_is_stored_as_it_always_was() {
    let mut bytes = Vec::new();
    Bincode.encode(&entry_of_the_first_form(), &mut bytes).unwrap();
    assert_eq!(bytes, FIRST_FORM);
    let read: CatalogChange = Bincode.decode(FIRST_FORM).unwrap();
    assert_eq!(read, entry_of_the_first_form());
    // A removed setting stands before the stage; its value does not matter.
    let mut with_other = FIRST_FORM.to_vec();
    with_other[FIRST_FORM.len() - 3] = 2;
    let read: CatalogChange = Bincode.decode(&with_other).unwrap();
    assert_eq!(read, entry_of_the_first_form());
}

/// Each invariant of the indexes, and a state that breaks it.
#[test]
fn an_index_that_does_not_agree_with_the_entries_is_found() {
    let mut state = CatalogState::default();
    state.live.insert("t".to_owned(), TopicId([1; 16]));
    assert!(state.check_name("T").is_err(), "a live name without a topic");
    assert_eq!(state.check_name("u"), Ok(()));
    let mut state = CatalogState::default();
    state.producers.insert("p".into(), ProducerEntry { id: 1, epoch: 0 }, RecordedAt::default());
    assert!(state.check_name("p").is_err(), "an id without its holder");
}

fn members(directories: &[(u64, u128)]) -> CatalogChange {
    CatalogChange::Members(MembersEntry { group: 3, directories: directories.to_vec() })
}

fn created(epoch: u32, partitions: u32) -> CreatedIn {
    CreatedIn { epoch, partitions }
}

/// The bytes are fixed: directories hold them.
#[test]
fn the_bytes_of_what_a_replicated_group_records_are_fixed() {
    let encoded = |change: CatalogChange| {
        let mut bytes = Vec::new();
        Bincode.encode(&change, &mut bytes).unwrap();
        bytes
    };
    let many = u128::from_le_bytes([9; 16]);
    let expected = [&[7, 3, 2, 1, 250, 2, 254][..], &[9; 16]].concat();
    assert_eq!(encoded(members(&[(1, 250), (2, many)])), expected);
    let topic = |stage| CatalogChange::Topic(entry(7, "orders", 3), stage);
    let plain = encoded(topic(Stage::Live));
    let epochs = vec![created(0, 2), created(5, 1)];
    let ours = encoded(CatalogChange::GroupTopic(entry(7, "orders", 3), Stage::Live, epochs));
    // As without a group, and then the ranges of partitions with their epochs.
    assert_eq!(ours, [&[8], &plain[1..], &[2, 0, 2, 5, 1]].concat());
}

#[test]
fn members_and_epochs_that_cannot_be_are_refused() {
    let state = CatalogState::default();
    assert_eq!(state.check(&members(&[(1, 4), (2, 4), (9, 5)])), Ok(()));
    let eight: Vec<_> = (0..8).map(|node| (node, 1)).collect();
    for impossible in [&[][..], &[(1, 4), (1, 5)], &eight] {
        assert_eq!(refused(&state, &members(impossible)), "the members of a group");
    }
    let topic = |epochs: &[CreatedIn]| {
        CatalogChange::GroupTopic(entry(1, "a", 3), Stage::Live, epochs.to_vec())
    };
    assert_eq!(state.check(&topic(&[created(0, 1), created(4, 2)])), Ok(()));
    let impossible = [
        &[][..],
        &[created(1, 2)],
        &[created(1, 4)],
        &[created(2, 1), created(1, 2)],
        &[created(1, 1), created(1, 2)],
        &[created(1, 3), created(2, 0)],
        &[created(1, u32::MAX), created(2, 4)],
    ];
    for epochs in impossible {
        let what = "when a topic's partitions were created";
        assert_eq!(refused(&state, &topic(epochs)), what, "{epochs:?}");
    }
}

/// Every copy of a partition has adopted the epoch in which it was created, so a later record of its topic
/// must not name another one.
#[test]
fn a_partition_keeps_the_epoch_in_which_it_was_created() {
    let mut state = with([CatalogChange::Topic(entry(1, "old", 2), Stage::Live)]);
    let mut record = |id, partitions, stage, epoch| {
        let change = state.topic_change(entry(id, "old", partitions), stage, epoch);
        assert_eq!(state.check(&change), Ok(()));
        state.apply(change.clone(), RecordedAt::default());
        match change {
            CatalogChange::GroupTopic(.., epochs) => epochs,
            _ => Vec::new(),
        }
    };
    // It is older than the group.
    assert_eq!(record(1, 2, Stage::Live, 4), []);
    assert_eq!(record(1, 2, Stage::Growing(3), 4), []);
    assert_eq!(record(1, 3, Stage::Live, 4), [created(0, 2), created(4, 1)]);
    assert_eq!(record(1, 3, Stage::Live, 6), [created(0, 2), created(4, 1)]);
    assert_eq!(record(1, 5, Stage::Live, 6), [created(0, 2), created(4, 1), created(6, 2)]);
    // A growth is undone, and made again.
    assert_eq!(record(1, 3, Stage::Growing(5), 7), [created(0, 2), created(4, 1)]);
    assert_eq!(record(1, 4, Stage::Live, 7), [created(0, 2), created(4, 1), created(7, 1)]);
    assert_eq!(record(1, 4, Stage::Deleting, 8), [created(0, 2), created(4, 1), created(7, 1)]);
    assert_eq!(record(2, 1, Stage::Creating, 8), [created(8, 1)]);
    assert_eq!(record(2, 1, Stage::Live, 9), [created(8, 1)]);
}

#[test]
fn what_a_group_has_recorded_is_kept_by_a_copy_and_a_snapshot() {
    let epochs = vec![created(0, 2), created(5, 1)];
    let topic = CatalogChange::GroupTopic(entry(7, "orders", 3), Stage::Live, epochs);
    let mut state = with([topic.clone(), members(&[(1, 4)])]);
    let rebuilt = with(state.snapshot());
    assert_eq!(rebuilt.snapshot(), state.snapshot());
    assert_eq!(rebuilt.members(), state.members());
    for change in [topic, members(&[(1, 4)])] {
        assert!(state.is_live(&change, 0) && !state.grows(&change));
        let at = RecordedAt { offset: 9, is_copy: true, ..RecordedAt::default() };
        state.apply(change.clone(), at);
        assert!(state.is_live(&change, 9) && !state.is_live(&change, 0));
    }
    state.apply(CatalogChange::TopicGone(TopicId([7; 16])), RecordedAt::default());
    assert_eq!(state.snapshot(), [members(&[(1, 4)])]);
}

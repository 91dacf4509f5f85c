//! Goal: the members of a group share the work without overlap and without gaps while members
//! come and go, and the group's commits remain when all members have left.
//!
//! Method: all members in one thread, polled in turn, so that each hand-over happens at a known
//! step. Ownership is checked after every step: no partition has two owners.
//!
//! Not covered: members on threads of their own (`concurrency.rs`); eviction, callbacks, static
//! members and patterns (`membership.rs`); the assignors in depth, which are pure.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod beginning;
mod membership;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::*;
use logpond::{
    Assignor, Broker, CommitMode, Consumer, Error, GroupStatus, Message, Offsets, StartAt,
    TopicPartition,
};

const PARTITIONS: u32 = 6;
const EACH: u64 = 20;

/// A topic `t` of six partitions with twenty numbered records each.
fn filled() -> Broker {
    let broker = in_memory();
    fill(&broker);
    broker
}

fn fill(broker: &Broker) {
    broker.ensure_topic("t", small_topic(PARTITIONS)).unwrap();
    for partition in 0..PARTITIONS {
        send_numbers(broker, "t", partition, 0..EACH);
    }
}

fn member(broker: &Broker, group: &str) -> Consumer {
    broker.consumer(group).subscribe(["t"]).max_poll_records(3).open().unwrap()
}

/// Polls all members in turn until none has anything more, checking at every step that no
/// partition has two owners. Returns what each was handed.
fn settle(members: &mut [&mut Consumer]) -> Vec<Vec<Message>> {
    let mut handed: Vec<Vec<Message>> = members.iter().map(|_| Vec::new()).collect();
    loop {
        let mut quiet = true;
        let before = assignments(members);
        for index in 0..members.len() {
            let batch = members[index].poll(Duration::ZERO).unwrap();
            quiet &= batch.is_empty();
            handed[index].extend(batch);
            assert_no_overlap(members);
        }
        if quiet && assignments(members) == before {
            return handed;
        }
    }
}

fn assignments(members: &[&mut Consumer]) -> Vec<Vec<TopicPartition>> {
    members.iter().map(|member| member.assignment()).collect()
}

fn assert_no_overlap(members: &[&mut Consumer]) {
    let all: Vec<_> = assignments(members).concat();
    let distinct: BTreeSet<_> = all.iter().collect();
    assert_eq!(all.len(), distinct.len(), "two owners: {all:?}");
}

fn assert_all_owned(members: &[&mut Consumer]) {
    let owned: BTreeSet<_> = assignments(members).concat().into_iter().collect();
    let all: BTreeSet<_> = (0..PARTITIONS).map(|partition| tp("t", partition)).collect();
    assert_eq!(owned, all, "a partition without an owner");
}

/// Partition and offset of each message.
fn records<'a>(messages: impl IntoIterator<Item = &'a Message>) -> Vec<(u32, u64)> {
    let mut records: Vec<_> =
        messages.into_iter().map(|it| (it.partition(), it.offset())).collect();
    records.sort_unstable();
    records
}

fn all_records(from: u64, to: u64) -> Vec<(u32, u64)> {
    (0..PARTITIONS).flat_map(|it| (from..to).map(move |offset| (it, offset))).collect()
}

#[test]
fn statement_15_two_members_share_every_record_without_overlap_or_gap() {
    for assignor in [Assignor::Range, Assignor::RoundRobin, Assignor::CooperativeSticky] {
        let broker = filled();
        let open = || broker.consumer("g").subscribe(["t"]).assignor(assignor).open().unwrap();
        let (mut a, mut b) = (open(), open());
        // The first was given everything before the second came: it reads nothing yet.
        let handed = settle(&mut [&mut a, &mut b]);
        assert_eq!((a.assignment().len(), b.assignment().len()), (3, 3), "{assignor:?}");
        assert_all_owned(&[&mut a, &mut b]);
        assert_eq!(records(handed.iter().flatten()), all_records(0, EACH), "{assignor:?}");
    }
}

#[test]
fn what_is_paused_stays_so_only_with_its_owner() {
    let broker = filled();
    let mut a = member(&broker, "g");
    let _ = a.poll(Duration::ZERO).unwrap();
    let all = a.assignment();
    a.pause(all.iter().cloned()).unwrap();
    let mut b = member(&broker, "g");
    settle(&mut [&mut a, &mut b]);
    assert_eq!((a.paused(), a.assignment().len()), (a.assignment(), 3), "those it has kept");
    assert!(b.paused().is_empty());
    let kept = a.paused();
    drop(b);
    settle(&mut [&mut a]);
    assert_eq!((a.assignment(), a.paused()), (all, kept), "those it got back are read");
}

#[test]
fn statement_15_a_third_member_takes_a_third_and_continues_where_the_others_committed() {
    let broker = filled();
    let (mut a, mut b) = (member(&broker, "g"), member(&broker, "g"));
    let mut seen = settle(&mut [&mut a, &mut b]).concat();
    a.commit().unwrap();
    b.commit().unwrap();
    let before = [a.assignment(), b.assignment()];
    let mut c = member(&broker, "g");
    assert_eq!(c.assignment(), [], "nobody has given anything up yet");
    for partition in 0..PARTITIONS {
        send_numbers(&broker, "t", partition, EACH..2 * EACH);
    }
    seen.extend(settle(&mut [&mut a, &mut b, &mut c]).concat());
    assert_all_owned(&[&mut a, &mut b, &mut c]);
    let sizes = [&a, &b, &c].map(|member| member.assignment().len());
    assert_eq!(sizes, [2, 2, 2]);
    for (before, after) in before.iter().zip([a.assignment(), b.assignment()]) {
        assert!(after.iter().all(|kept| before.contains(kept)), "more moved than had to");
    }
    // Partitions that moved were read again from the commit: 0 was committed at EACH, so nothing
    // is skipped and nothing of the first round repeats.
    assert_eq!(records(&seen), all_records(0, 2 * EACH));
}

#[test]
fn statement_16_the_partitions_of_a_member_that_left_continue_at_the_committed_offset() {
    for closes in [true, false] {
        let broker = filled();
        let (mut a, mut b) = (member(&broker, "g"), member(&broker, "g"));
        settle(&mut [&mut a, &mut b]);
        let left = a.assignment();
        let commits: Offsets = left.iter().map(|partition| (partition.clone(), 15)).collect();
        a.commit_offsets(&commits).unwrap();
        if closes {
            a.close().unwrap();
        } else {
            drop(a);
        }
        let handed = settle(&mut [&mut b]).concat();
        let expected: Vec<(u32, u64)> = left
            .iter()
            .flat_map(|partition| (15..EACH).map(move |offset| (partition.partition, offset)))
            .collect();
        assert_eq!(records(&handed), expected);
        assert_all_owned(&[&mut b]);
    }
}

#[test]
fn statement_16_a_member_that_dies_in_a_panic_leaves_its_partitions() {
    let broker = filled();
    let mut b = member(&broker, "g");
    let dying = broker.clone();
    let died = std::thread::spawn(move || {
        let mut a = member(&dying, "g");
        a.poll(Duration::ZERO).unwrap();
        std::panic::resume_unwind(Box::new("the worker"));
    });
    assert!(died.join().is_err());
    let handed = settle(&mut [&mut b]).concat();
    assert_all_owned(&[&mut b]);
    assert_eq!(records(&handed), all_records(0, EACH));
}

#[test]
fn a_parked_member_is_woken_for_what_another_leaves() {
    let broker = filled();
    let mut a = member(&broker, "g");
    drain(&mut a);
    a.commit().unwrap();
    let mut b = member(&broker, "g");
    settle(&mut [&mut a, &mut b]);
    let owned = a.assignment();
    let (parked, is_parked) = std::sync::mpsc::channel();
    let waiting = std::thread::spawn(move || {
        parked.send(ThreadState::here()).unwrap();
        let message = b.recv_timeout(PATIENCE).unwrap().expect("woken");
        (message.topic_partition(), message.offset())
    });
    is_parked.recv().unwrap().wait_until_it_sleeps();
    // Only in a partition that the parked member does not own yet.
    send_numbers(&broker, "t", owned[0].partition, EACH..EACH + 1);
    drop(a);
    assert_eq!(waiting.join().unwrap(), (owned[0].clone(), EACH));
}

#[test]
fn statement_15_more_members_than_partitions_leave_some_idle_without_error() {
    let broker = filled();
    let mut members: Vec<Consumer> = (0..9).map(|_| member(&broker, "g")).collect();
    let handed = settle(&mut members.iter_mut().collect::<Vec<_>>());
    let sizes: Vec<usize> = members.iter().map(|member| member.assignment().len()).collect();
    assert_eq!(sizes.iter().filter(|size| **size == 0).count(), 3, "{sizes:?}");
    assert_eq!(sizes.iter().max(), Some(&1), "{sizes:?}");
    let idle = members.iter_mut().find(|member| member.assignment().is_empty()).unwrap();
    assert!(idle.poll(Duration::from_millis(1)).unwrap().is_empty());
    assert!(idle.lag().unwrap().is_empty());
    idle.commit().unwrap();
    // Before all members were there some of the records went to an earlier owner, uncommitted,
    // and were read again: at least once, and nothing is missing.
    let distinct: BTreeSet<_> = records(handed.iter().flatten()).into_iter().collect();
    assert_eq!(distinct.into_iter().collect::<Vec<_>>(), all_records(0, EACH));
}

#[test]
fn statement_17_a_commit_of_a_partition_that_moved_is_refused_and_moves_nothing() {
    let broker = filled();
    let mut a = member(&broker, "g");
    let handed = drain(&mut a);
    let mut b = member(&broker, "g");
    // Still owned: the plan alone takes nothing away.
    let moving: BTreeSet<TopicPartition> = {
        a.commit().unwrap();
        assert!(a.poll(Duration::ZERO).unwrap().is_empty());
        b.poll(Duration::ZERO).unwrap();
        b.assignment().into_iter().collect()
    };
    assert_eq!(moving.len(), 3);
    let lost = handed.iter().find(|it| moving.contains(&it.topic_partition())).unwrap();
    let kept = handed.iter().find(|it| !moving.contains(&it.topic_partition())).unwrap();
    let at = |partition: &TopicPartition| b.committed(partition).unwrap();
    let names_lost = |refused: &Result<(), Error>| {
        let named = lost.topic_partition();
        matches!(refused, Err(Error::Rebalanced { partition }) if *partition == named)
    };
    let refused = a.commit_message(lost);
    assert!(names_lost(&refused), "{refused:?}");
    let both = Offsets::from([
        (lost.topic_partition(), lost.next_offset()),
        (kept.topic_partition(), kept.next_offset()),
    ]);
    let refused = a.commit_offsets(&both);
    assert!(names_lost(&refused), "{refused:?}");
    assert_eq!(at(&lost.topic_partition()), Some(EACH), "moved");
    assert_eq!(at(&kept.topic_partition()), Some(EACH), "half of a refused commit was stored");
    let back = Offsets::from([(kept.topic_partition(), kept.next_offset())]);
    a.commit_offsets(&back).unwrap();
    assert_eq!(at(&kept.topic_partition()), Some(kept.next_offset()));
    // `commit` is about what is owned now.
    a.commit().unwrap();
}

#[test]
fn a_partition_that_came_back_is_not_committed_from_its_first_ownership() {
    let broker = filled();
    let mut a = member(&broker, "g");
    drain(&mut a);
    let mut b = member(&broker, "g");
    a.poll(Duration::ZERO).unwrap();
    let moved = {
        b.poll(Duration::ZERO).unwrap();
        let moved = b.assignment();
        b.commit_offsets(&moved.iter().map(|it| (it.clone(), 5)).collect()).unwrap();
        moved
    };
    drop(b);
    let handed = drain(&mut a);
    assert!(moved.iter().all(|it| a.assignment().contains(it)));
    // It continues at what the other committed, not where it stood itself.
    let first = handed.iter().filter(|it| it.topic_partition() == moved[0]).map(Message::offset);
    assert_eq!(first.min(), Some(5));
}

#[test]
fn statement_19_groups_are_independent() {
    let broker = filled();
    let (mut a, mut b) = (member(&broker, "a"), member(&broker, "b"));
    assert_eq!(drain(&mut a).len(), drain(&mut b).len());
    a.commit().unwrap();
    assert_eq!(b.committed(&tp("t", 0)).unwrap(), None);
    b.commit_offsets(&Offsets::from([(tp("t", 0), 3)])).unwrap();
    assert_eq!(a.committed(&tp("t", 0)).unwrap(), Some(EACH));
    assert_eq!(b.committed(&tp("t", 0)).unwrap(), Some(3));
}

#[test]
fn all_members_must_use_the_same_assignor() {
    let broker = filled();
    let first = member(&broker, "g");
    let other = || broker.consumer("g").subscribe(["t"]).assignor(Assignor::Range);
    assert_eq!(refused_setting(other().open()), "assignor");
    drop(first);
    other().open().unwrap();
}

#[test]
fn in_auto_mode_a_hand_over_commits_what_was_passed_and_nothing_is_lost() {
    let broker = filled();
    let open = || {
        let auto = CommitMode::Auto { every: Duration::from_secs(3600) };
        broker.consumer("g").subscribe(["t"]).commit(auto).max_poll_records(30).open().unwrap()
    };
    let mut a = open();
    let mut seen: Vec<Message> = a.poll(Duration::ZERO).unwrap().into_iter().collect();
    seen.extend(a.poll(Duration::ZERO).unwrap());
    let mut b = open();
    let handed = settle(&mut [&mut a, &mut b]).concat();
    seen.extend(handed);
    let distinct: BTreeSet<_> = records(&seen).into_iter().collect();
    assert_eq!(distinct.into_iter().collect::<Vec<_>>(), all_records(0, EACH));
    // Giving up happens in a poll, which passes all that was handed out before it.
    assert_eq!(seen.len(), distinct_len(&seen), "read twice although it was passed");
}

fn distinct_len(messages: &[Message]) -> usize {
    records(messages).into_iter().collect::<BTreeSet<_>>().len()
}

#[test]
fn statement_18_commits_survive_a_restart_clean_or_not_and_are_per_group_topic_and_partition() {
    for closes in [true, false] {
        let dir = temp_dir();
        let broker = open_quiet(dir.path());
        fill(&broker);
        broker.ensure_topic("u", small_topic(1)).unwrap();
        send_numbers(&broker, "u", 0, 0..9);
        for (group, topic, partition, offset) in
            [("g", "t", 0, 3), ("g", "t", 5, 7), ("h", "t", 0, 11), ("g", "u", 0, 9)]
        {
            let mut consumer = broker.consumer(group).assign([(topic, partition)]).open().unwrap();
            consumer.commit_offsets(&Offsets::from([(tp(topic, partition), offset)])).unwrap();
        }
        if closes {
            broker.close().unwrap();
        } else {
            drop(broker);
        }
        let broker = open_quiet(dir.path());
        let g = broker.consumer("g").subscribe(["t", "u"]).open().unwrap();
        let h = broker.consumer("h").subscribe(["t", "u"]).open().unwrap();
        let of = |consumer: &Consumer, topic, partition| {
            consumer.committed(&tp(topic, partition)).unwrap()
        };
        assert_eq!([of(&g, "t", 0), of(&g, "t", 1), of(&g, "t", 5)], [Some(3), None, Some(7)]);
        assert_eq!([of(&h, "t", 0), of(&h, "t", 5)], [Some(11), None]);
        assert_eq!([of(&g, "u", 0), of(&h, "u", 0)], [Some(9), None]);
        assert_eq!(g.position(&tp("t", 5)), Some(7));
        assert_eq!(h.position(&tp("t", 5)), Some(0));
    }
}

/// Without the spare ones, of which there is always the same number.
fn segments_of_offsets(dir: &Path) -> Vec<PathBuf> {
    let mut files = files_below(&dir.join("__offsets"));
    files.retain(|path| path.extension().is_some_and(|it| it == "log"));
    files
}

#[test]
fn thousands_of_commits_do_not_grow_the_offsets_log_and_the_last_one_counts() {
    let dir = temp_dir();
    let broker = open_quiet(dir.path());
    fill(&broker);
    let mut consumer = member(&broker, "g");
    for step in 0..20_000_u64 {
        let partition = tp("t", u32::try_from(step % u64::from(PARTITIONS)).unwrap());
        consumer.commit_offsets(&Offsets::from([(partition, step % EACH)])).unwrap();
    }
    let last: Vec<_> =
        (0..PARTITIONS).map(|partition| consumer.committed(&tp("t", partition)).unwrap()).collect();
    let segments = segments_of_offsets(dir.path());
    assert!(segments.len() <= 3, "{segments:?}");
    drop(consumer);
    drop(broker);
    let broker = open_quiet(dir.path());
    let consumer = member(&broker, "g");
    let after: Vec<_> =
        (0..PARTITIONS).map(|partition| consumer.committed(&tp("t", partition)).unwrap()).collect();
    assert_eq!(after, last);
}

/// Nobody commits: the joining, taking over, giving up and leaving is enough.
#[test]
fn static_members_that_come_and_go_do_not_grow_the_offsets_log() {
    let dir = temp_dir();
    let broker = open_quiet(dir.path());
    let topic = "t".repeat(249);
    broker.ensure_topic(&topic, small_topic(40)).unwrap();
    let open = |instance: &str| {
        let builder = broker.consumer("g").subscribe([topic.as_str()]);
        builder.instance_id(instance).open().unwrap()
    };
    let mut first = open("first");
    for _ in 0..1_000 {
        let mut second = open("second");
        for _ in 0..2 {
            drain(&mut first);
            drain(&mut second);
        }
        assert_eq!(first.assignment().len() + second.assignment().len(), 40);
    }
    let segments = segments_of_offsets(dir.path());
    assert!(segments.len() <= 3, "{segments:?}");
}

#[test]
fn a_topic_made_again_under_the_same_name_begins_without_commits() {
    let dir = temp_dir();
    let broker = open_quiet(dir.path());
    fill(&broker);
    let mut consumer = member(&broker, "g");
    drain(&mut consumer);
    consumer.commit().unwrap();
    broker.admin().delete_topic("t").unwrap();
    fill(&broker);
    assert_eq!(consumer.committed(&tp("t", 0)).unwrap(), None);
    // The member that was there all along is given the new topic, from its start.
    let handed = settle(&mut [&mut consumer]).concat();
    assert_eq!(records(&handed), all_records(0, EACH));
    drop(consumer);
    broker.close().unwrap();
    let broker = open_quiet(dir.path());
    let mut consumer = member(&broker, "g");
    assert_eq!(consumer.committed(&tp("t", 0)).unwrap(), None);
    assert_eq!(drain(&mut consumer).len() as u64, EACH * u64::from(PARTITIONS));
}

#[test]
fn a_deleted_topic_goes_out_of_every_members_hands() {
    let broker = filled();
    broker.ensure_topic("u", small_topic(2)).unwrap();
    let open = || broker.consumer("g").subscribe(["t", "u"]).open().unwrap();
    let (mut a, mut b) = (open(), open());
    settle(&mut [&mut a, &mut b]);
    broker.admin().delete_topic("t").unwrap();
    settle(&mut [&mut a, &mut b]);
    let left = [a.assignment(), b.assignment()].concat();
    assert_eq!(left.into_iter().collect::<BTreeSet<_>>().len(), 2);
    a.commit().unwrap();
    b.commit().unwrap();
}

// ---- where a group begins, and what is passed -----------------------------------------------

#[test]
fn statement_11_a_new_group_begins_where_it_says() {
    let broker = filled();
    let open = |group: &str, start| broker.consumer(group).subscribe(["t"]).start(start).open();
    let (mut earliest, mut latest) =
        (open("e", StartAt::Earliest).unwrap(), open("l", StartAt::Latest).unwrap());
    let refused = open("n", StartAt::Error);
    assert!(matches!(&refused, Err(Error::NoOffset(at)) if *at.topic == *"t"), "{refused:?}");
    for partition in 0..PARTITIONS {
        send_numbers(&broker, "t", partition, EACH..EACH + 1);
    }
    assert_eq!(records(&drain(&mut earliest)), all_records(0, EACH + 1));
    assert_eq!(records(&drain(&mut latest)), all_records(EACH, EACH + 1));
    earliest.commit().unwrap();
    drop(earliest);
    let mut again = open("e", StartAt::Error).unwrap();
    assert_eq!(drain(&mut again).len(), 0, "what is committed wins over the policy");
}

#[test]
fn statement_18_a_commit_passes_no_record_that_was_not_handed_out_before() {
    let broker = filled();
    let auto = CommitMode::Auto { every: Duration::from_nanos(1) };
    let open = || broker.consumer("g").subscribe(["t"]).commit(auto).max_poll_records(2).open();
    let mut a = open().unwrap();
    let total = |a: &Consumer| -> u64 {
        (0..PARTITIONS).filter_map(|it| a.committed(("t", it)).unwrap()).sum()
    };
    let mut handed = 0;
    for _ in 0..10 {
        let batch = a.poll(Duration::ZERO).unwrap().len() as u64;
        assert!(total(&a) <= handed, "a record of this very poll was committed");
        handed += batch;
    }
    let before = total(&a);
    drop(a);
    // What was handed out last is not done, as far as anybody knows.
    let mut b = open().unwrap();
    let again = settle(&mut [&mut b]).concat();
    assert_eq!(again.len() as u64, u64::from(PARTITIONS) * EACH - before);
    assert!(before < handed);
}

#[test]
fn statement_18_a_message_out_of_turn_takes_nothing_back_and_a_seek_does() {
    let broker = filled();
    let mut a = broker.consumer("g").subscribe(["t"]).max_poll_records(5).open().unwrap();
    let batch: Vec<_> = a.poll(Duration::ZERO).unwrap().into_iter().collect();
    let partition = batch[0].topic_partition();
    a.commit_message(&batch[4]).unwrap();
    a.commit_message(&batch[1]).unwrap();
    assert_eq!(a.committed(&partition).unwrap(), Some(5));
    a.seek(&partition, StartAt::Offset(1)).unwrap();
    a.commit_message(&batch[1]).unwrap();
    assert_eq!(a.committed(&partition).unwrap(), Some(2));
    a.commit().unwrap();
    assert_eq!(a.committed(&partition).unwrap(), Some(1));
}

// ---- administration -------------------------------------------------------------------------

#[test]
fn statement_19_resetting_or_deleting_a_group_concerns_no_other() {
    let dir = temp_dir();
    let broker = open_quiet(dir.path());
    fill(&broker);
    let admin = broker.admin();
    for group in ["a", "b", "c"] {
        let mut consumer = member(&broker, group);
        drain(&mut consumer);
        consumer.commit().unwrap();
    }
    let at = |broker: &Broker, group: &str| -> Option<Vec<Option<u64>>> {
        let info = broker.admin().describe_group(group).ok()?;
        Some(info.offsets.iter().map(|it| it.committed).collect())
    };
    let all = |offset| Some(vec![Some(offset); PARTITIONS as usize]);
    let reset = admin.reset_offsets("a", "t", StartAt::Offset(7)).unwrap();
    let expected: Offsets = (0..PARTITIONS).map(|it| (tp("t", it), 7)).collect();
    assert_eq!(reset, expected);
    admin.delete_group("b").unwrap();
    let check = |broker: &Broker| {
        assert_eq!((at(broker, "a"), at(broker, "b"), at(broker, "c")), (all(7), None, all(EACH)));
    };
    check(&broker);
    let topic = admin.describe_topic("t").unwrap();
    let starts: Vec<u64> = topic.partitions.iter().map(|it| it.log_start_offset).collect();
    assert_eq!(starts, [0; PARTITIONS as usize], "a group's end changes nothing in its topics");
    drop((admin, broker));
    let broker = open_quiet(dir.path());
    check(&broker);
    assert_eq!(records(&drain(&mut member(&broker, "a"))), all_records(7, EACH));
    assert_eq!(records(&drain(&mut member(&broker, "b"))), all_records(0, EACH));
}

#[test]
fn a_group_with_live_members_is_neither_reset_nor_deleted() {
    let broker = filled();
    let admin = broker.admin();
    let mut consumer = member(&broker, "g");
    drain(&mut consumer);
    consumer.commit().unwrap();
    for refused in
        [admin.reset_offsets("g", "t", StartAt::Earliest).map(drop), admin.delete_group("g")]
    {
        let Err(Error::GroupNotEmpty { group, members: 1 }) = &refused else {
            panic!("{refused:?}")
        };
        assert_eq!(group, "g");
    }
    assert_eq!(consumer.committed(("t", 0)).unwrap(), Some(EACH));
    consumer.close().unwrap();
    let ends = admin.reset_offsets("g", "t", StartAt::Latest).unwrap();
    assert!(ends.values().all(|end| *end == EACH));
    assert_eq!(refused_setting(admin.reset_offsets("g", "t", StartAt::Error)), "to");
    let elsewhere = admin.reset_offsets("g", "x", StartAt::Latest);
    assert!(matches!(elsewhere, Err(Error::UnknownTopic(_))));
    admin.delete_group("g").unwrap();
    for unknown in [admin.delete_group("g"), admin.describe_group("g").map(drop)] {
        assert!(matches!(&unknown, Err(Error::UnknownGroup(name)) if name == "g"), "{unknown:?}");
    }
    assert!(admin.groups().unwrap().is_empty());
}

/// A deployment says where its group begins before the first worker starts. Rule: a reset is a commit, and a
/// group begins with its first commit; the members find it, whatever their own start is.
#[test]
fn a_group_is_reset_before_it_exists_and_in_single_partitions() {
    let broker = filled();
    let admin = broker.admin();
    admin.reset_offsets("new", "t", StartAt::Offset(2)).unwrap();
    assert_eq!(admin.reset_partition("new", ("t", 1), StartAt::Latest).unwrap(), EACH);
    let start = broker.consumer("new").subscribe(["t"]).start(StartAt::Latest).open().unwrap();
    let position = |partition| start.position(("t", partition));
    assert_eq!((position(0), position(1), position(5)), (Some(2), Some(EACH), Some(2)));
    let refused = admin.reset_partition("new", ("t", 0), StartAt::Latest);
    assert!(matches!(refused, Err(Error::GroupNotEmpty { .. })), "{refused:?}");
    let elsewhere = admin.reset_partition("new", ("t", 99), StartAt::Latest);
    assert!(matches!(elsewhere, Err(Error::UnknownPartition(_))), "{elsewhere:?}");
    let unnamed = admin.reset_offsets("", "t", StartAt::Latest);
    assert!(matches!(unnamed, Err(Error::InvalidName { .. })), "{unnamed:?}");
    // A partition that was not reset begins where the first member says.
    admin.reset_partition("other", ("t", 3), StartAt::Offset(1)).unwrap();
    let other = broker.consumer("other").subscribe(["t"]).start(StartAt::Latest).open().unwrap();
    assert_eq!(other.position(("t", 3)), Some(1));
    assert_eq!(other.position(("t", 0)), Some(EACH));
}

#[test]
fn a_description_says_who_has_what_and_how_far_behind() {
    let broker = filled();
    let admin = broker.admin();
    let mut a = member(&broker, "g");
    let mut standalone = broker.consumer("h").assign([("t", 0)]).open().unwrap();
    standalone.commit_offsets(&Offsets::from([(tp("t", 0), 4)])).unwrap();
    drain(&mut a);
    a.commit_offsets(&Offsets::from([(tp("t", 5), 15)])).unwrap();
    let mut b = member(&broker, "g");
    let info = admin.describe_group("g").unwrap();
    assert_eq!((info.state, info.members.len()), (GroupStatus::Rebalancing, 2));
    let generation = info.generation;
    settle(&mut [&mut a, &mut b]);
    let infos = admin.groups().unwrap();
    let names: Vec<&str> = infos.iter().map(|info| &*info.name).collect();
    assert_eq!(names, ["g", "h"]);
    let info = &infos[0];
    assert_eq!((info.state, info.assignor), (GroupStatus::Stable, Some(Assignor::default())));
    assert!(info.generation >= generation);
    let owned: Vec<_> = info.members.iter().map(|member| member.assignment.clone()).collect();
    assert_eq!(owned, [a.assignment(), b.assignment()]);
    assert!(info.members[0].id < info.members[1].id);
    let far: Vec<_> = info.offsets.iter().map(|it| (it.committed, it.lag)).collect();
    let none = (None, EACH);
    assert_eq!(far, [none, none, none, none, none, (Some(15), 5)]);
    let other = &infos[1];
    assert_eq!((other.state, other.assignor, other.members.len()), (GroupStatus::Empty, None, 0));
    assert_eq!(other.offsets.len(), 1);
    assert_eq!((other.offsets[0].committed, other.offsets[0].lag), (Some(4), EACH - 4));
    #[cfg(feature = "json")]
    {
        let text = serde_json::to_string(&infos).unwrap();
        assert!(text.contains("\"state\":\"Stable\""), "{text}");
    }
}

/// A thousand members in one group and a thousand groups of one, in a second or two.
#[test]
fn thousands_of_members_and_groups_work() {
    let broker = filled();
    let mut crowd: Vec<Consumer> = (0..1_000).map(|_| member(&broker, "crowd")).collect();
    let mut loners: Vec<Consumer> =
        (0..1_000).map(|number| member(&broker, &format!("loner-{number}"))).collect();
    broker.ensure_topic("u", small_topic(1)).unwrap();
    for _ in 0..2 {
        for member in &mut crowd {
            drop(member.poll(Duration::ZERO).unwrap());
        }
    }
    let owners = crowd.iter().filter(|member| !member.assignment().is_empty());
    assert_eq!(owners.count(), PARTITIONS as usize);
    for loner in &mut loners {
        assert_eq!(drain(loner).len() as u64, u64::from(PARTITIONS) * EACH);
        loner.commit().unwrap();
    }
    assert_eq!(broker.admin().groups().unwrap().len(), 1_001);
    drop(crowd);
    let left = broker.admin().describe_group("crowd").unwrap();
    assert_eq!((left.state, left.members.len()), (GroupStatus::Empty, 0));
    broker.admin().delete_group("crowd").unwrap();
    assert_eq!(broker.admin().groups().unwrap().len(), 1_000);
}

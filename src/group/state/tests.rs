//! Goal: the hand-over rules of the module, on cases that show them one by one, and as a random
//! walk against a model that believes only what was reported to members. Not covered: time, threads
//! and callbacks, which are the coordinator's.

use super::super::owners::OwnershipEpoch;
use super::*;

const A: MemberId = MemberId(1);
const B: MemberId = MemberId(2);
const C: MemberId = MemberId(3);

fn subscription(topics: &[&str]) -> Interest {
    topics.iter().copied().collect()
}

fn counts(topics: &[(&str, u32)]) -> BTreeMap<Arc<str>, u32> {
    topics.iter().map(|&(name, count)| (name.into(), count)).collect()
}

fn group(partitions: u32) -> GroupState {
    let mut group = GroupState::new(Assignor::CooperativeSticky);
    assert!(!group.set_partitions(counts(&[("t", partitions)])), "nobody reads it yet");
    group
}

fn tp(partition: u32) -> TopicPartition {
    ("t", partition).into()
}

/// Polls as a consumer does, confirming at once, until there is nothing to revoke.
fn settle(group: &mut GroupState, id: MemberId) -> PollChange {
    loop {
        let change = group.poll(id).unwrap();
        if change.revoke.is_empty() {
            return change;
        }
        group.revoked(id, &change.revoke).unwrap();
    }
}

impl GroupState {
    /// Passes on what has changed of the topics there are, and makes the plan that is due; whether
    /// there was one.
    fn set_partitions(&mut self, known: Topics) -> bool {
        let before = self.generation;
        let counts = known.iter().map(|(name, &count)| (Arc::clone(name), count));
        let gone = self.known.keys().filter(|name| !known.contains_key(*name));
        let changes: Vec<_> = counts.chain(gone.map(|name| (Arc::clone(name), 0))).collect();
        for (name, count) in changes {
            let had = self.known.get(&name).copied().unwrap_or(0);
            if had != count && self.is_concerned(&name) {
                self.topic_changed(&name, count);
            }
        }
        self.refresh(Arc::new(known));
        self.generation > before
    }

    /// Whether the member still has the ownership under which it read what it wants to commit.
    fn may_commit(&self, id: MemberId, partition: &TopicPartition, epoch: OwnershipEpoch) -> bool {
        self.owners.epoch_of(id, partition) == Some(epoch)
    }

    /// Evicts one member; what it owned, or nothing if it was evicted before.
    fn evict(&mut self, id: MemberId) -> Result<Vec<TopicPartition>, NotAMember> {
        let owned = self.owners.owned_by(id);
        self.members.get(&id).ok_or(NotAMember)?;
        Ok(if self.sweep(&[id], &[]) == 1 { owned } else { Vec::new() })
    }
}

#[test]
fn the_first_member_gets_everything_at_its_first_poll() {
    let mut group = group(2);
    assert_eq!(group.join(A, subscription(&["t"])), JoinOutcome::Joined);
    assert_eq!(group.owners().epoch_of(A, &tp(0)), None);
    assert_eq!(group.take_wakeups(), [A]);
    let change = group.poll(A).unwrap();
    assert_eq!(change.assign, [tp(0), tp(1)]);
    assert!(!group.needs_attention(A) && group.take_wakeups().is_empty());
    assert_eq!(group.owners().owned_by(A), [tp(0), tp(1)]);
}

#[test]
fn a_partition_changes_hands_only_through_nobody() {
    let mut group = group(2);
    group.join(A, subscription(&["t"]));
    settle(&mut group, A);
    let kept = group.owners().epoch_of(A, &tp(0)).unwrap();
    let given = group.owners().epoch_of(A, &tp(1)).unwrap();
    group.join(B, subscription(&["t"]));
    assert_eq!(group.take_wakeups(), [A], "B has nothing to do yet");
    assert!(group.poll(B).unwrap().assign.is_empty());

    let change = group.poll(A).unwrap();
    assert_eq!(change.revoke, [tp(1)]);
    assert!(group.may_commit(A, &tp(1), given), "still owned while revoking");
    assert_eq!(group.poll(A).unwrap(), change, "asked again until confirmed");
    group.revoked(A, &change.revoke).unwrap();
    assert!(!group.may_commit(A, &tp(1), given));
    assert_eq!(group.owners().epoch_of(B, &tp(1)), None, "nobody's until B polls");
    assert!(group.needs_attention(B));
    assert_eq!(group.take_wakeups(), [B]);

    assert_eq!(group.poll(B).unwrap().assign, [tp(1)]);
    assert!(group.owners().epoch_of(B, &tp(1)).unwrap() > given);
    assert!(group.may_commit(A, &tp(0), kept), "what stays keeps its epoch");
}

#[test]
fn a_hand_over_that_is_not_needed_any_more_never_happens() {
    let mut group = group(2);
    group.join(A, subscription(&["t"]));
    settle(&mut group, A);
    let epoch = group.owners().epoch_of(A, &tp(1)).unwrap();
    group.join(B, subscription(&["t"]));
    group.leave(B).unwrap();
    assert!(!group.needs_attention(A));
    assert!(group.poll(A).unwrap().revoke.is_empty());
    assert!(group.may_commit(A, &tp(1), epoch));
}

#[test]
fn a_partition_planned_back_while_revoking_returns_under_a_new_epoch() {
    let mut group = group(2);
    group.join(A, subscription(&["t"]));
    settle(&mut group, A);
    let epoch = group.owners().epoch_of(A, &tp(1)).unwrap();
    group.join(B, subscription(&["t"]));
    let change = group.poll(A).unwrap();
    group.leave(B).unwrap(); // while A's callback runs
    group.revoked(A, &change.revoke).unwrap();
    assert_eq!(group.poll(A).unwrap().assign, [tp(1)]);
    assert!(group.owners().epoch_of(A, &tp(1)).unwrap() > epoch);
}

#[test]
fn what_a_leaving_member_had_is_free_at_once() {
    let mut group = group(4);
    for id in [A, B, A, B] {
        group.join(id, subscription(&["t"]));
        settle(&mut group, id);
    }
    group.take_wakeups();
    let freed = group.leave(A).unwrap();
    assert_eq!(freed.len(), 2);
    assert_eq!(group.take_wakeups(), [B]);
    assert_eq!(group.poll(B).unwrap().assign, freed);
    assert_eq!(group.leave(A), Err(NotAMember));
    group.leave(B).unwrap();
    assert!(group.is_empty());
}

#[test]
fn an_evicted_member_hears_of_its_loss_once_and_may_come_back() {
    let mut group = group(2);
    group.join(A, subscription(&["t"]));
    group.join(B, subscription(&["t"]));
    settle(&mut group, A);
    settle(&mut group, B);
    let lost = group.owners().owned_by(A);
    let epoch = group.owners().epoch_of(A, &lost[0]).unwrap();
    group.take_wakeups();
    assert_eq!(group.evict(A).unwrap(), lost);
    assert_eq!(group.evict(A).unwrap(), [], "once");
    assert!(!group.may_commit(A, &lost[0], epoch));
    assert_eq!(group.take_wakeups(), [A, B]);
    assert_eq!(group.poll(B).unwrap().assign, lost, "B does not wait for A to hear of it");

    assert!(group.needs_attention(A));
    let change = group.poll(A).unwrap();
    assert!(change.is_evicted && change.assign.is_empty());
    assert_eq!(change.lost, lost);
    let change = group.poll(A).unwrap();
    assert!(change.is_evicted && change.lost.is_empty());
    assert!(group.needs_attention(A), "until it is back");
    assert_eq!(group.rejoin(A), Ok(JoinOutcome::Rejoined));
    assert_eq!(group.rejoin(A), Ok(JoinOutcome::Unchanged));
    settle(&mut group, B);
    let change = settle(&mut group, A);
    assert!(!change.is_evicted);
    assert_eq!(change.assign.len(), 1);
}

/// A machine that was asleep finds everybody overdue: planning once for each of a hundred members
/// took a hundred times as long.
#[test]
fn those_who_are_overdue_together_make_one_rebalance() {
    let mut group = group(4);
    for id in [A, B, C] {
        group.join(id, subscription(&["t"]));
    }
    let before = group.generation();
    assert_eq!(group.sweep(&[A, B], &[C]), 2);
    assert_eq!(group.generation(), before + 1);
    assert_eq!(group.sweep(&[A, B], &[C]), 0);
    assert_eq!(group.generation(), before + 1, "nothing has changed");
}

#[test]
fn an_eviction_during_revocation_is_not_reported_twice() {
    let mut group = group(2);
    group.join(A, subscription(&["t"]));
    settle(&mut group, A);
    group.join(B, subscription(&["t"]));
    let change = group.poll(A).unwrap();
    assert_eq!(change.revoke, [tp(1)]);
    group.evict(A).unwrap(); // while A's callback runs
    assert_eq!(group.poll(B).unwrap().assign, [tp(0), tp(1)]);
    group.revoked(A, &change.revoke).unwrap();
    assert_eq!(
        group.owners().owned_by(B),
        [tp(0), tp(1)],
        "a late confirmation takes nothing from B"
    );
    assert_eq!(group.poll(A).unwrap().lost, [tp(0)]);
}

#[test]
fn new_partitions_come_and_deleted_ones_are_lost() {
    let mut group = group(1);
    group.join(A, subscription(&["t", "u"]));
    settle(&mut group, A);
    let before = group.owners().epoch_of(A, &tp(0)).unwrap();
    group.take_wakeups();
    assert!(!group.set_partitions(counts(&[("t", 1)])), "no news");
    assert!(!group.needs_attention(A));
    assert!(group.set_partitions(counts(&[("t", 2), ("u", 1)])));
    assert_eq!(group.take_wakeups(), [A]);
    assert_eq!(group.poll(A).unwrap().assign, [tp(1), ("u", 0).into()]);
    assert!(group.may_commit(A, &tp(0), before));

    group.set_partitions(counts(&[("u", 1)]));
    group.set_partitions(counts(&[("t", 1), ("u", 1)]));
    assert!(!group.may_commit(A, &tp(0), before), "another topic of the same name");
    let change = group.poll(A).unwrap();
    assert_eq!(change.lost, [tp(0), tp(1)]);
    assert_eq!(change.assign, [tp(0)]);
    assert!(group.owners().epoch_of(A, &tp(0)).unwrap() > before);
}

/// The plan waits for nobody in particular: a member that is busy keeps no topic from the others.
#[test]
fn topics_that_change_together_make_one_plan_at_the_next_poll_of_anybody() {
    let mut group = group(2);
    for id in [A, B, A, B] {
        group.join(id, subscription(&["t", "u", "v"]));
        settle(&mut group, id);
    }
    group.take_wakeups();
    let (before, epoch) = (group.generation(), group.owners().epoch_of(A, &tp(0)).unwrap());
    group.topic_changed("u", 2);
    assert_eq!(group.take_wakeups(), [A, B]);
    group.topic_changed("v", 4);
    group.topic_changed("t", 0);
    assert_eq!(group.generation(), before);
    assert!(!group.may_commit(A, &tp(0), epoch), "a deleted partition is lost at once");
    assert_eq!(group.take_wakeups(), [A, B], "both have lost something");
    group.catch_up(|| Arc::new(counts(&[("u", 2), ("v", 4)])));
    assert_eq!(group.generation(), before + 1);
    let change = group.poll(B).unwrap();
    assert_eq!((change.lost, change.assign.len()), (vec![tp(1)], 3));
    assert_eq!(group.take_wakeups(), [A]);
    group.catch_up(|| unreachable!("no topic has changed"));
    let change = group.poll(A).unwrap();
    assert_eq!((change.lost, change.assign.len()), (vec![tp(0)], 3));
}

#[test]
fn a_narrower_subscription_is_revoked_and_a_wider_one_assigned() {
    let mut group = group(1);
    group.set_partitions(counts(&[("t", 1), ("u", 1)]));
    group.join(A, subscription(&["t"]));
    settle(&mut group, A);
    let generation = group.poll(A).unwrap().generation;
    assert_eq!(group.join(A, subscription(&["t"])), JoinOutcome::Unchanged);
    assert_eq!(group.poll(A).unwrap().generation, generation);
    assert_eq!(group.join(A, subscription(&["u"])), JoinOutcome::Resubscribed);
    let change = group.poll(A).unwrap();
    assert!(change.generation > generation);
    assert_eq!((change.revoke, change.assign), (vec![tp(0)], vec![]));
    group.revoked(A, &[tp(0)]).unwrap();
    assert_eq!(group.poll(A).unwrap().assign, [("u", 0).into()]);
    assert!(!group.needs_attention(A));
    assert!(group.take_wakeups().is_empty(), "it polled first");
}

#[test]
fn what_an_absent_member_owned_waits_for_it_under_a_new_epoch() {
    let mut group = group(4);
    for id in [A, B, A, B] {
        group.join(id, subscription(&["t"]));
        settle(&mut group, id);
    }
    let had = group.owners().owned_by(A);
    let epoch = group.owners().epoch_of(A, &had[0]).unwrap();
    group.take_wakeups();
    group.stay_away(A).unwrap();
    assert!(!group.may_commit(A, &had[0], epoch));
    assert_eq!(group.owners().targeted_at(A), had);
    assert!(!group.needs_attention(B) && group.is_at_rest());
    // Other plans come and go; what waits is moved no more than what is owned.
    group.join(C, subscription(&["t"]));
    settle(&mut group, B);
    settle(&mut group, C);
    let waits = group.owners().targeted_at(A);
    assert!(!waits.is_empty() && waits.iter().all(|it| had.contains(it)));
    assert_eq!(group.join(A, subscription(&["t"])), JoinOutcome::Rejoined);
    assert_eq!(settle(&mut group, A).assign, waits);
    assert!(group.owners().epoch_of(A, &waits[0]).unwrap() > epoch);
}

#[test]
fn an_absent_member_takes_up_nothing_new_until_it_is_back_and_its_share_is_free_when_it_leaves() {
    let mut group = group(2);
    group.restore([(A, subscription(&["t"]), vec![tp(1), tp(7), ("x", 0).into()])]);
    assert_eq!(group.owners().targeted_at(A), [tp(0), tp(1)], "alone, it is to have all");
    group.join(B, subscription(&["t"]));
    settle(&mut group, B);
    assert_eq!(group.owners().owned_by(B).len(), 1);
    assert!(group.owners().owned_by(A).is_empty());
    group.leave(A).unwrap();
    settle(&mut group, B);
    assert_eq!(group.owners().owned_by(B), [tp(0), tp(1)]);
}

#[test]
fn an_evicted_member_that_goes_away_is_forgotten() {
    let mut group = group(2);
    group.join(A, subscription(&["t"]));
    settle(&mut group, A);
    group.evict(A).unwrap();
    group.stay_away(A).unwrap();
    assert!(group.is_empty());
    assert_eq!(group.stay_away(A), Err(NotAMember));
}

#[test]
fn unknown_members_and_partitions_are_answered() {
    let mut group = group(1);
    assert_eq!(group.poll(C), Err(NotAMember));
    assert_eq!(group.leave(C), Err(NotAMember));
    assert_eq!(group.evict(C), Err(NotAMember));
    assert_eq!(group.rejoin(C), Err(NotAMember));
    assert_eq!(group.revoked(C, &[tp(0)]), Err(NotAMember));
    assert_eq!(group.owners().epoch_of(C, &tp(0)), None);
    assert!(group.needs_attention(C), "its poll tells it");
    group.join(A, subscription(&["t"]));
    settle(&mut group, A);
    group.revoked(A, &[tp(7), ("x", 0).into()]).unwrap();
    assert_eq!(group.owners().owned_by(A), [tp(0)]);
    assert!(group.owners().owned_by(C).is_empty());
}

mod model;

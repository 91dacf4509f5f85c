//! Goal: the calls that a member refuses, and what needs no other member.
//!
//! The protocol between members is explored in `replication/explore.rs`.

use super::super::effect::{Declined, Effect, Event};
use super::super::history::EpochRange;
use super::super::log_key::LogKey;
use super::super::logs::Logs;
use super::super::logs::MetaChange;
use super::super::membership::{DirectoryId, GroupId, MemberRun, Membership};
use super::super::message::{Ask, Body, Envelope, Fetch, Fetched, Found, Led, Promised, Summary};
use super::super::notes::{Note, Notes};
use super::super::role::Role;
use super::super::strict::Strict;
use super::{EPOCH_STEP_MAX, LeadRefused, Member, want_synced};
use crate::record::{LeaderEpoch, NodeId};

fn run(node: u64) -> MemberRun {
    MemberRun { node: NodeId(node), directory: DirectoryId(node.into()), session: 1 }
}

/// Member 0 of a group of that many, whose `__meta` has the membership alone.
fn member(members: u64, notes: Notes) -> Member {
    let membership =
        Membership::new(GroupId(1), (0..members).map(|node| (NodeId(node), run(node).directory)));
    let mut logs = Logs::default();
    let first = EpochRange { epoch: LeaderEpoch(0), records: 1 };
    assert!(logs.append(LogKey::Meta, &[first], &[(0, MetaChange::Members(membership))]));
    Member::new(notes, logs, (0..members).map(NodeId).collect())
}

fn sent(effects: &[Effect]) -> Vec<&Envelope> {
    let mut sent = Vec::new();
    for effect in effects {
        if let Effect::Send(envelope) = effect {
            sent.push(&**envelope);
        }
    }
    sent
}

#[test]
fn a_group_of_one_leads_at_once_and_all_that_it_appends_is_visible() {
    let mut alone = member(1, Notes::new(run(0)));
    let effects = alone.lead(LeaderEpoch(1)).unwrap();
    assert!(effects.contains(&Effect::Event(Event::Leading(LeaderEpoch(1)))));
    assert!(effects.contains(&Effect::Watermark { log: LogKey::Meta, offset: 1 }));
    let effects = alone.appended(LogKey::Offsets, 5, &[]).unwrap();
    assert!(effects.contains(&Effect::Watermark { log: LogKey::Offsets, offset: 5 }));
}

/// Retention moves a log start, and another member is called to lead before that was noted here: a
/// candidate that was sent here for what it lacks asked for records that were removed, in every epoch.
// RED: src/replication/member.rs
//   - if start <= log.watermark {
//   + if matches!(self.role, Role::Leader(_)) && start <= log.watermark {
#[test]
fn a_log_start_that_moved_right_before_a_leadership_ended_is_noted() {
    let mut alone = member(1, Notes::new(run(0)));
    alone.lead(LeaderEpoch(1)).unwrap();
    let log = LogKey::Partition { topic: 7, partition: 0 };
    let created = MetaChange::Created { log, counts_synced: false, epoch: LeaderEpoch(1) };
    alone.appended(LogKey::Meta, 1, &[(1, created)]).unwrap();
    alone.appended(log, 5, &[]).unwrap();
    alone.resign();
    assert_eq!(alone.start_moved(log, 6), []);
    assert_eq!(alone.start_moved(log, 5), [Effect::RaiseStart { log, start: 5 }]);
}

/// The others learned of a log start with what was appended next, if anything was. And what a majority has
/// noted of it is what their questions say.
// RED: src/replication/member.rs
//   - say_start(self, key, &mut out);
// RED: src/replication/leader.rs
//   - asked.start < start;
//   + false;
#[test]
fn a_log_start_is_said_at_once_and_noted_by_those_who_say_so() {
    let mut leader = member(3, Notes::new(run(0)));
    leader.lead(LeaderEpoch(1)).unwrap();
    let from = |body| {
        let (group, epoch) = (Some(GroupId(1)), LeaderEpoch(1));
        Envelope { group, from: run(1), to: NodeId(0), epoch, body }
    };
    let promised = Promised { to: run(0), logs: [].into(), has_membership: true };
    leader.receive(&from(Body::Promised(promised)));
    let log = LogKey::Partition { topic: 7, partition: 0 };
    let created = MetaChange::Created { log, counts_synced: false, epoch: LeaderEpoch(1) };
    leader.appended(LogKey::Meta, 1, &[(1, created)]).unwrap();
    leader.appended(log, 5, &[]).unwrap();
    let asks = |log, end, start| {
        let before = Some(LeaderEpoch(1));
        from(Body::Fetch(Fetch {
            log,
            from: end,
            before,
            adopted: true,
            synced: end,
            held: end,
            start,
        }))
    };
    leader.receive(&asks(LogKey::Meta, 2, 0));
    leader.receive(&asks(log, 5, 0));
    let effects = leader.start_moved(log, 3);
    assert_eq!(effects.first(), Some(&Effect::RaiseStart { log, start: 3 }));
    let starts = sent(&effects).into_iter().filter_map(|envelope| match &envelope.body {
        Body::Fetched(fetched) => Some((envelope.to, fetched.start)),
        _ => None,
    });
    assert_eq!(starts.collect::<Vec<_>>(), [(NodeId(1), 3)]);
    let noted = |leader: &Member| super::super::view::noted_start(leader, log);
    assert_eq!(noted(&leader), Some(0));
    leader.receive(&asks(log, 5, 3));
    assert_eq!(noted(&leader), Some(3));
    // One that is late.
    leader.receive(&asks(log, 5, 0));
    assert_eq!(noted(&leader), Some(3));
    // Its own alone is no majority.
    leader.start_moved(log, 4);
    assert_eq!(noted(&leader), Some(3));
    leader.resign();
    assert_eq!(noted(&leader), None);
}

/// A producer at `Sync` waits for a log of a topic that is not. It is answered up to the high watermark,
/// and not before the records are synced.
#[test]
fn a_leader_counts_what_a_majority_has_synced_if_a_producer_waits_for_that() {
    let (mut alone, log) = (member(1, Notes::new(run(0))), LogKey::Offsets);
    alone.lead(LeaderEpoch(1)).unwrap();
    alone.appended(log, 5, &[]).unwrap();
    assert_eq!(alone.synced(log, 2), [], "nobody waits");
    assert_eq!(want_synced(&mut alone, log, 4), [Effect::Synced { log, offset: 2 }]);
    assert_eq!(want_synced(&mut alone, log, 3), [], "it is wanted already");
    assert_eq!(alone.synced(log, 5), [Effect::Synced { log, offset: 5 }]);
    assert_eq!(want_synced(&mut alone, log, 7), [], "the records are noticed later");
    assert!(alone.appended(log, 2, &[]).is_some());
    assert_eq!(alone.synced(log, 7), [Effect::Synced { log, offset: 7 }]);
    alone.lead(LeaderEpoch(2)).unwrap();
    assert_eq!(alone.state().logs().get(log).map(|log| log.strict), Some(Strict::default()));
}

/// A follower syncs what its leader asks for, and says when it has, also if only the log's creation was
/// missing in what it had synced.
// RED: src/replication/syncs.rs
//   - let others = (key == LogKey::Meta).then_some(others);
//   + let others = false.then_some(others);
#[test]
fn a_follower_syncs_what_a_producer_waits_for_and_says_so() {
    let mut one = member(3, Notes::new(run(0)));
    let from = |body| Envelope {
        group: Some(GroupId(1)),
        from: run(1),
        to: NodeId(0),
        epoch: LeaderEpoch(3),
        body,
    };
    one.receive(&from(Body::Beat));
    let log = LogKey::Offsets;
    let mut answered = |records: u64, strict| {
        let asked = one.state().question(LeaderEpoch(3), log).unwrap();
        let ranges = vec![EpochRange { epoch: LeaderEpoch(3), records }];
        let ranges = if records == 0 { Vec::new() } else { ranges };
        let found = Found::Records { ranges, changes: Vec::new() };
        let led = Some(Led { began: 0, watermark: 0, end: records, strict });
        let answer = Fetched { to: run(0), asked, start: 0, led, found };
        one.receive(&from(Body::Fetched(answer)))
    };
    // It adopts the epoch, for which it syncs what it has.
    answered(0, Strict::default());
    let effects = answered(2, Strict { wanted: 2, synced: 0 });
    assert!(effects.contains(&Effect::SyncSoon(log)), "{effects:?}");
    let reported = |effects: &[Effect]| {
        let of = |message: &&Envelope| match &message.body {
            Body::Fetch(fetch) => Some((fetch.log, fetch.synced)),
            _ => None,
        };
        sent(effects).iter().filter_map(of).collect::<Vec<_>>()
    };
    assert_eq!(reported(&one.synced(log, 2)), [(log, 2)]);
    assert_eq!(reported(&one.synced(LogKey::Meta, 1)), [(log, 2)]);
    assert_eq!(one.synced(LogKey::Meta, 1), one.synced(LogKey::Meta, 1));
}

/// Nobody could give back what it lost, so it does not wait for anybody.
#[test]
fn a_group_of_one_is_never_recovering() {
    let notes = Notes::new(run(0)).next_session(true);
    assert!(member(1, notes.clone()).lead(LeaderEpoch(1)).is_ok());
    assert_eq!(member(3, notes).lead(LeaderEpoch(1)), Err(LeadRefused::Recovering));
}

#[test]
fn an_epoch_that_was_promised_or_lies_too_far_is_refused_and_changes_nothing() {
    let mut one = member(3, Notes::new(run(0)));
    one.lead(LeaderEpoch(7)).unwrap();
    let before = one.clone();
    for old in [0, 3, 7] {
        let refused = Err(LeadRefused::Fenced { promised: LeaderEpoch(7) });
        assert_eq!(one.lead(LeaderEpoch(old)), refused);
    }
    let far = LeaderEpoch(7 + EPOCH_STEP_MAX + 1);
    assert_eq!(one.lead(far), Err(LeadRefused::TooFar { promised: LeaderEpoch(7) }));
    assert_eq!(one, before);
    assert!(one.lead(LeaderEpoch(7 + EPOCH_STEP_MAX)).is_ok());
}

// RED: src/replication/member.rs
//   - if !is_member {
//   + if false {
#[test]
fn a_directory_that_the_membership_does_not_name_is_a_learner() {
    let other = MemberRun { directory: DirectoryId(99), ..run(0) };
    assert_eq!(member(3, Notes::new(other)).lead(LeaderEpoch(1)), Err(LeadRefused::Learner));
}

#[test]
fn a_damaged_member_does_not_lead_any_more() {
    let mut one = member(1, Notes::new(run(0)));
    one.lead(LeaderEpoch(1)).unwrap();
    let effects = one.damaged(LogKey::Offsets);
    assert_eq!(effects, [Effect::Event(Event::LeadershipLost(LeaderEpoch(1), Declined::Damaged))]);
    assert_eq!(one.role().leads(), None);
    assert_eq!(one.lead(LeaderEpoch(2)), Err(LeadRefused::Damaged));

    let mut candidate = member(3, Notes::new(run(0)));
    candidate.lead(LeaderEpoch(1)).unwrap();
    let effects = candidate.damaged(LogKey::Meta);
    let declined = Event::Declined(LeaderEpoch(1), Declined::Damaged);
    assert_eq!(effects, [Effect::Event(declined)]);
}

/// What is sent again is what was sent before: a lost message costs time, nothing else.
#[test]
fn a_candidate_asks_again_and_a_refusal_ends_its_round() {
    let mut one = member(3, Notes::new(run(0)));
    let effects = one.lead(LeaderEpoch(1)).unwrap();
    assert_eq!(sent(&effects), sent(&one.resend()));
    let refused = Body::Refused { promised: LeaderEpoch(4) };
    let message =
        Envelope { group: None, from: run(1), to: NodeId(0), epoch: LeaderEpoch(1), body: refused };
    let effects = one.receive(&message);
    let declined = Declined::Promised(LeaderEpoch(4));
    assert_eq!(effects, [Effect::Event(Event::Declined(LeaderEpoch(1), declined))]);
    assert!(one.resend().is_empty());
}

// RED: src/replication/senders.rs
//   - message.to == me && message.from.node != me && is_of_group(state.logs().group(), message)
//   + message.from.node != me && is_of_group(state.logs().group(), message)
// RED: src/replication/senders.rs
//   - (Some(own), Some(theirs)) => theirs == own,
//   + (Some(_), Some(_)) => true,
#[test]
fn a_message_that_is_for_somebody_else_or_of_another_group_changes_nothing() {
    let mut one = member(3, Notes::new(run(0)));
    let before = one.clone();
    for (from, to) in [(1, 2), (0, 0)] {
        let message = Envelope {
            group: Some(GroupId(1)),
            from: run(from),
            to: NodeId(to),
            epoch: LeaderEpoch(9),
            body: Body::Beat,
        };
        assert!(one.receive(&message).is_empty());
    }
    assert_eq!(one, before);
    // The member's group is 1.
    for (group, has_changed) in [(2, false), (1, true)] {
        let (group, epoch) = (Some(GroupId(group)), LeaderEpoch(9));
        let message = Envelope { group, from: run(1), to: NodeId(0), epoch, body: Body::Beat };
        assert_eq!(!one.receive(&message).is_empty(), has_changed, "{group:?}");
        assert_eq!(one != before, has_changed, "{group:?}");
    }
}

/// It was "recovering", although it had confirmed nothing: a group could not be founded any more.
#[test]
fn an_empty_directory_that_lost_power_has_nothing_to_recover() {
    let notes = Notes::new(run(0)).next_session(true);
    let mut blank = Member::new(notes, Logs::default(), (0..3).map(NodeId).collect());
    let effects = blank.lead(LeaderEpoch(1)).unwrap();
    assert_eq!(sent(&effects).len(), 2);
}

/// The note stayed: when the group had grown to two, a restart made its first member recovering.
#[test]
fn a_group_of_one_that_leads_after_a_loss_of_power_is_whole() {
    let mut alone = member(1, Notes::new(run(0)).next_session(true));
    let effects = alone.lead(LeaderEpoch(1)).unwrap();
    assert!(effects.contains(&Effect::Note(Note::Whole)));
    assert!(!alone.state().notes().is_recovering());
}

/// Records without an epoch are equal by chance only: they are those of another group, or of none.
#[test]
fn a_directory_with_records_that_belongs_to_no_group_follows_nobody() {
    let mut logs = Logs::default();
    let records = EpochRange { epoch: LeaderEpoch(0), records: 4 };
    assert!(logs.append(LogKey::Offsets, &[records], &[]));
    let mut foreign = Member::new(Notes::new(run(0)), logs, (0..3).map(NodeId).collect());
    let before = foreign.clone();
    let beat = Envelope {
        group: None,
        from: run(1),
        to: NodeId(0),
        epoch: LeaderEpoch(3),
        body: Body::Beat,
    };
    assert!(foreign.receive(&beat).is_empty());
    let members =
        Membership::new(GroupId(1), (0..3).map(|node| (NodeId(node), run(node).directory)));
    let ask = Envelope { body: Body::Ask(Ask::Lead(members)), ..beat };
    let effects = foreign.receive(&ask);
    assert!(matches!(sent(&effects).as_slice(), [Envelope { body: Body::Refused { .. }, .. }]));
    assert_eq!(foreign, before);
    // It may found a group, of which its records are the first.
    assert!(foreign.lead(LeaderEpoch(1)).is_ok());
}

/// The directory of a member that is not named cannot depose a leader by what it has promised.
#[test]
fn a_refusal_of_somebody_who_does_not_count_is_ignored() {
    let mut one = member(3, Notes::new(run(0)));
    one.lead(LeaderEpoch(1)).unwrap();
    let body = Body::Refused { promised: LeaderEpoch(1000) };
    let from = MemberRun { directory: DirectoryId(99), ..run(1) };
    let refused = Envelope { group: None, from, to: NodeId(0), epoch: LeaderEpoch(1), body };
    assert!(one.receive(&refused).is_empty());
    assert_eq!(one.role().stands_for(), Some(LeaderEpoch(1)));
}

#[test]
fn only_logs_of_partitions_are_created_and_deleted() {
    let mut one = member(1, Notes::new(run(0)));
    one.lead(LeaderEpoch(1)).unwrap();
    let before = one.clone();
    let created = |log, epoch| MetaChange::Created { log, counts_synced: true, epoch };
    let partition = LogKey::Partition { topic: 1, partition: 0 };
    let impossible = [
        MetaChange::Deleted(LogKey::Meta),
        created(LogKey::Offsets, LeaderEpoch(1)),
        // Every copy of a log has adopted the epoch of its creation.
        created(partition, LeaderEpoch(2)),
        MetaChange::Trimmed(2),
    ];
    for change in impossible {
        assert_eq!(one.appended(LogKey::Meta, 1, &[(1, change)]), None);
        assert_eq!(one, before);
    }
}

/// Its answer was refused, because it named no group, and nobody could lead any more. It had lost the
/// membership, or had not copied it yet.
#[test]
fn a_candidate_takes_records_of_a_member_that_knows_of_no_group() {
    let mut one = member(3, Notes::new(run(0)));
    one.lead(LeaderEpoch(1)).unwrap();
    let from =
        |body| Envelope { group: None, from: run(1), to: NodeId(0), epoch: LeaderEpoch(1), body };
    let two = Summary { adopted: LeaderEpoch(0), end: 2, start: 0 };
    let logs = [(LogKey::Offsets, two)].into();
    let promised = Promised { to: run(0), logs, has_membership: false };
    let effects = one.receive(&from(Body::Promised(promised)));
    let asked = sent(&effects).into_iter().find_map(|message| match &message.body {
        Body::Fetch(fetch) => Some(*fetch),
        _ => None,
    });
    let ranges = vec![EpochRange { epoch: LeaderEpoch(0), records: 2 }];
    let found = Found::Records { ranges, changes: Vec::new() };
    let asked = asked.unwrap();
    let fetched = Fetched { to: run(0), asked, start: 0, led: None, found };
    let effects = one.receive(&from(Body::Fetched(fetched)));
    assert!(effects.contains(&Effect::Append { log: LogKey::Offsets, records: 2 }));
}

/// It was truncated at the start, which may lie within one of its batches: the engine refused that, and the
/// member's run ended.
// RED: src/replication/state.rs
//   - drop_from(&mut self.logs, &mut self.notes, (key, start), out);
#[test]
fn a_log_that_differs_from_where_its_leaders_begins_begins_anew_at_once() {
    let mut one = member(3, Notes::new(run(0)));
    let from = |body| Envelope {
        group: Some(GroupId(1)),
        from: run(1),
        to: NodeId(0),
        epoch: LeaderEpoch(5),
        body,
    };
    let begin = |one: &mut Member, key| {
        let two = [EpochRange { epoch: LeaderEpoch(3), records: 9 }];
        let topic = LogKey::Partition { topic: 1, partition: 0 };
        let created =
            MetaChange::Created { log: topic, counts_synced: false, epoch: LeaderEpoch(3) };
        let changes = if key == LogKey::Meta { vec![(6, created)] } else { Vec::new() };
        assert!(one.state.logs_mut().append(key, &two, &changes));
    };
    begin(&mut one, LogKey::Meta);
    begin(&mut one, LogKey::Offsets);
    let effects = one.receive(&from(Body::Beat));
    for key in [LogKey::Offsets, LogKey::Meta] {
        let asked = sent(&effects).into_iter().find_map(|message| match &message.body {
            Body::Fetch(fetch) if fetch.log == key => Some(*fetch),
            _ => None,
        });
        let found = Found::Removed { start: 4, below: LeaderEpoch(4) };
        let led = Some(Led { began: 20, watermark: 12, end: 20, strict: Strict::default() });
        let asked = asked.unwrap();
        let answer = Fetched { to: run(0), asked, start: 4, led, found };
        let effects = one.receive(&from(Body::Fetched(answer)));
        assert!(effects.contains(&Effect::BeginAnew { log: key, start: 4 }), "{effects:?}");
        assert!(!effects.iter().any(|it| matches!(it, Effect::Truncate { .. })), "{effects:?}");
        let log = one.state().logs().get(key).unwrap();
        assert_eq!((log.history.start(), log.end()), (4, 4));
    }
    // Nothing says any more that the topic exists, and some topics may not be known.
    let topic = LogKey::Partition { topic: 1, partition: 0 };
    assert!(one.state().logs().get(topic).is_none() && !one.state().logs().is_whole());
    assert_eq!(one.lead(LeaderEpoch(9)), Err(LeadRefused::Recovering));
    assert!(
        one.state().logs().membership().is_some(),
        "it goes by the old one until it has another"
    );
}

/// A member that had copied some of `__offsets`, and not yet the membership, was taken for a stranger's
/// directory when its leader changed, and followed nobody any more.
// RED: src/replication/member.rs
//   - self.state.note(Note::Adopted { epoch, logs }, out);
#[test]
fn a_member_that_has_begun_to_copy_follows_the_next_leader() {
    let mut one = Member::new(Notes::new(run(0)), Logs::default(), vec![NodeId(0), NodeId(1)]);
    let beat = |epoch| Envelope {
        group: Some(GroupId(1)),
        from: run(1),
        to: NodeId(0),
        epoch: LeaderEpoch(epoch),
        body: Body::Beat,
    };
    let effects = one.receive(&beat(1));
    let (epoch, logs) = (LeaderEpoch(0), vec![LogKey::Meta]);
    assert!(effects.contains(&Effect::Note(Note::Adopted { epoch, logs })), "{effects:?}");
    let some = [EpochRange { epoch: LeaderEpoch(1), records: 9 }];
    assert!(one.state.logs_mut().append(LogKey::Offsets, &some, &[]));
    assert!(one.receive(&beat(2)).contains(&Effect::Event(Event::Following(LeaderEpoch(2)))));
    // It has confirmed nothing, so it has nothing to recover.
    let notes = one.state().notes().clone().next_session(true);
    assert!(!Member::new(notes, Logs::default(), Vec::new()).state().must_recover());
}

/// A directory was put back from a copy: it had confirmed more than it has, and promised.
// RED: src/replication/senders.rs
//   - if session::is_stale(session, noted) && Rule::NewestSession.holds() {
//   + if false {
#[test]
fn a_run_that_is_earlier_than_one_that_was_noted_counts_for_nothing_and_is_informed() {
    let mut one = member(3, Notes::new(run(0)));
    let of = |session| MemberRun { session, ..run(1) };
    let promised = |session| {
        let (logs, has_membership) = ([].into(), true);
        let body = Body::Promised(Promised { to: run(0), logs, has_membership });
        let (to, epoch) = (NodeId(0), LeaderEpoch(1));
        Envelope { group: Some(GroupId(1)), from: of(session), to, epoch, body }
    };
    let beat = Envelope { body: Body::Beat, epoch: LeaderEpoch(0), ..promised(4) };
    let noted = Note::Seen { directory: run(1).directory, session: 4 };
    assert_eq!(one.receive(&beat).first(), Some(&Effect::Note(noted)));
    assert!(!one.receive(&beat).iter().any(|it| matches!(it, Effect::Note(Note::Seen { .. }))));
    one.lead(LeaderEpoch(1)).unwrap();
    let effects = one.receive(&promised(3));
    let answer = Body::Superseded { directory: run(1).directory, session: 4 };
    assert!(matches!(sent(&effects).as_slice(), [message] if message.body == answer));
    assert_eq!(one.role().leads(), None);
    one.receive(&promised(4));
    assert_eq!(one.role().leads(), Some(LeaderEpoch(1)));
}

/// A message of an earlier run may be late: the run that is informed is not that one.
#[test]
fn a_directory_is_given_up_when_a_later_run_of_it_is_known() {
    let notes = Notes::new(MemberRun { session: 3, ..run(0) });
    let informed = |directory, session| {
        let body = Body::Superseded { directory: DirectoryId(directory), session };
        let (to, epoch) = (NodeId(0), LeaderEpoch(1));
        Envelope { group: Some(GroupId(1)), from: run(1), to, epoch, body }
    };
    let mut one = member(3, notes);
    one.lead(LeaderEpoch(1)).unwrap();
    assert!(one.receive(&informed(0, 3)).is_empty());
    assert!(one.receive(&informed(9, 4)).is_empty());
    assert_eq!(one.role().stands_for(), Some(LeaderEpoch(1)));
    let declined = Event::Declined(LeaderEpoch(1), Declined::PutBack);
    assert_eq!(one.receive(&informed(0, 4)), [Effect::Event(declined), Effect::Disown]);
}

/// What a leader says when a majority has all that was there, in each log.
#[test]
fn a_leader_is_current_when_each_log_has_caught_up() {
    let mut one = member(3, Notes::new(run(0)));
    let some = [EpochRange { epoch: LeaderEpoch(0), records: 9 }];
    assert!(one.state.logs_mut().append(LogKey::Offsets, &some, &[]));
    one.lead(LeaderEpoch(1)).unwrap();
    let from = |body| Envelope {
        group: Some(GroupId(1)),
        from: run(1),
        to: NodeId(0),
        epoch: LeaderEpoch(1),
        body,
    };
    let promised = Promised { to: run(0), logs: [].into(), has_membership: true };
    one.receive(&from(Body::Promised(promised)));
    let current = Effect::Event(Event::Current(LeaderEpoch(1)));
    let mut is_current_after = |log, end| {
        let before = Some(LeaderEpoch(0));
        let asked =
            Fetch { log, from: end, before, adopted: true, synced: end, held: end, start: 0 };
        one.receive(&from(Body::Fetch(asked))).contains(&current)
    };
    assert!(!is_current_after(LogKey::Meta, 1));
    assert!(!is_current_after(LogKey::Offsets, 8));
    assert!(is_current_after(LogKey::Offsets, 9));
    assert!(!is_current_after(LogKey::Offsets, 9), "it is said once");
}

/// A new directory, listed but named by no membership, asked for ever to found a group that others belong
/// to.
// RED: src/replication/member.rs
//   - && message.group.is_some()
//   + && false
#[test]
fn a_directory_that_is_not_named_does_not_stay_a_candidate() {
    let stranger = MemberRun { directory: DirectoryId(99), ..run(2) };
    let mut new = Member::new(Notes::new(stranger), Logs::default(), (0..3).map(NodeId).collect());
    let asked = new.lead(LeaderEpoch(2)).unwrap();
    let asked = sent(&asked).into_iter().find(|it| it.to == NodeId(0)).unwrap();
    let mut one = member(3, Notes::new(run(0)));
    let refused = one.receive(asked);
    assert_eq!(one.state().notes().promised(), LeaderEpoch(0));
    let effects = new.receive(sent(&refused)[0]);
    let declined = Event::Declined(LeaderEpoch(2), Declined::Founded);
    assert_eq!(effects, [Effect::Event(declined)]);
    assert_eq!(new.role().stands_for(), None);
}

/// A directory with records of its own that answers a member which joins its group is none of the members:
/// what it has is not chosen.
// RED: src/replication/member.rs
//   - if message.epoch == candidate.epoch() && is_mine && is_asked && may_count {
//   + if message.epoch == candidate.epoch() && is_mine && is_asked {
#[test]
fn who_joins_a_founded_group_counts_only_its_members() {
    let mut new = Member::new(Notes::new(run(1)), Logs::default(), (0..3).map(NodeId).collect());
    new.lead(LeaderEpoch(2)).unwrap();
    let promise = |from: MemberRun, end: u64, has_membership: bool| {
        let summary = Summary { adopted: LeaderEpoch(u32::from(has_membership)), end, start: 0 };
        let logs = [(LogKey::Meta, summary), (LogKey::Offsets, summary)].into();
        let body = Body::Promised(Promised { to: run(1), logs, has_membership });
        let group = has_membership.then_some(GroupId(1));
        Envelope { group, from, to: NodeId(1), epoch: LeaderEpoch(2), body }
    };
    let effects = new.receive(&promise(run(0), 3, true));
    let fetches = |effects: &[Effect]| -> Vec<(NodeId, LogKey)> {
        let sent = sent(effects).into_iter();
        let of = sent.filter_map(|it| match &it.body {
            Body::Fetch(fetch) => Some((it.to, fetch.log)),
            _ => None,
        });
        of.collect()
    };
    assert_eq!(fetches(&effects), [(NodeId(0), LogKey::Meta)]);
    let foreign = MemberRun { directory: DirectoryId(99), ..run(2) };
    let effects = new.receive(&promise(foreign, 1_000, false));
    assert_eq!(effects, []);
    let Role::Candidate(candidate) = new.role() else { panic!("{:?}", new.role()) };
    assert!(!candidate.has_answer_of(NodeId(2)));
}

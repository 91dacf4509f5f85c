//! Scripts of members that lack much: what they are given at a time, and that it is all in the end.

use super::super::log_key::LogKey;
use super::super::shell::Catalog;
use super::group::Group;
use super::truth::Violation;
use crate::config::Durability;
use crate::record::LeaderEpoch;

/// Many topics with more than a frame of records each.
pub(super) fn fill(group: &mut Group) -> Result<Vec<LogKey>, Violation> {
    let keys: Result<Vec<_>, _> = (0..12).map(|i| group.create(&format!("t{i}"))).collect();
    let keys = keys?;
    for _ in 0..4 {
        for key in keys.clone() {
            group.with(0, |run| {
                run.append(key, &["v".repeat(9_000)]).unwrap();
                run.shell.notice(key);
            })?;
            group.flush()?;
        }
    }
    Ok(keys)
}

fn ends(group: &Group, index: usize, keys: &[LogKey]) -> Vec<u64> {
    let run = group.machines[index].run.as_ref().unwrap();
    let logs = run.shell.member().state().logs();
    keys.iter().map(|key| logs.get(*key).unwrap().end()).collect()
}

/// What a late frame of an earlier run of the follower said was taken for what it says now: all that it
/// had asked for was forgotten.
// RED: src/replication/shell.rs
//   - if senders::is_of_member(self.member.state(), &envelope) {
//   + if true {
#[test]
fn a_late_question_of_an_earlier_run_does_not_clear_what_is_on_the_way() {
    let mut group = Group::new(3, Durability::Os, 1);
    let run = |group: &mut Group| {
        group.begin()?;
        group.crash(2, None);
        group.start(2)?;
        group.resend(0)?;
        group.flush()?;
        group.resend(2)?;
        let late = group.flight.clone();
        assert!(!late.is_empty());
        group.flush()?;
        group.crash(2, None);
        group.start(2)?;
        group.resend(0)?;
        group.flush()?;
        group.sever(2);
        let keys = fill(group)?;
        group.heal();
        group.beat_twice(0)?;
        group.resend(2)?;
        while !group.flight.is_empty() {
            group.deliver_once()?;
            let kept = std::mem::take(&mut group.flight);
            for frame in &late {
                group.arrive(frame)?;
            }
            // What is said to the earlier run.
            group.flight = kept;
        }
        assert_eq!(ends(group, 2, &keys), [5; 12]);
        Ok(())
    };
    run(&mut group).unwrap_or_else(|violation: Violation| panic!("{}", violation.0));
}

/// A candidate does not ask once more for a log that it has: it leaves a window full, and waited for ever
/// for the logs beyond.
// RED: src/replication/shell.rs
//   - let feeds = self.member.role().leads().is_some();
//   + let feeds = true;
#[test]
fn a_candidate_is_given_all_that_it_lacks() {
    let mut group = Group::new(3, Durability::Os, 1);
    let run = |group: &mut Group| {
        group.begin()?;
        group.sever(2);
        let keys = fill(group)?;
        group.crash(0, None);
        group.heal();
        group.lead(2, LeaderEpoch(2))?;
        group.flush()?;
        let run = group.machines[2].run.as_ref().unwrap();
        assert_eq!(run.leads(), Some(LeaderEpoch(2)));
        assert_eq!(ends(group, 2, &keys), [5; 12]);
        Ok(())
    };
    run(&mut group).unwrap_or_else(|violation: Violation| panic!("{}", violation.0));
}

/// A clean-up in the background removed records of `__meta` after the leader had looked where it begins: a
/// new directory was sent an answer without records, and stayed without topics.
// RED: src/replication/shell.rs
//   - if from < start {
//   + if false {
#[test]
fn a_new_directory_gets_the_topics_although_the_leader_cleans_up_meanwhile() {
    let mut group = Group::new(3, Durability::Os, 1);
    let run = |group: &mut Group| {
        let log = group.begin()?;
        group.sever(2);
        let start = |group: &Group| {
            let run = group.machines[0].run.as_ref().unwrap();
            let known = run.shell.member().state().logs().get(LogKey::Meta).unwrap();
            (known.history.start(), run.core(LogKey::Meta).unwrap().log_start())
        };
        let mut random = crate::random::Random::new(1);
        group.machines[2].wipe(&mut random);
        // The engine knows before the member that a majority has what was appended.
        for _ in 0..100 {
            group.flood(0)?;
            group.with(0, |run| {
                for _ in 0..8 {
                    let end = run.core(LogKey::Meta).unwrap().log_end();
                    run.catalog.advance(LogKey::Meta, end);
                }
            })?;
            if start(group).0 < start(group).1 {
                break;
            }
            group.flush()?;
        }
        let (known, is) = start(group);
        assert!(known < is, "{known}, {is}");
        group.heal();
        group.start(2)?;
        // Nothing else has the leader look where the log begins, as an acknowledgement would.
        group.crash(1, None);
        for _ in 0..6 {
            group.resend(0)?;
            group.resend(2)?;
            group.exchange(12)?;
        }
        let run = group.machines[2].run.as_ref().unwrap();
        assert!(run.shell.member().state().logs().get(log).is_some());
        Ok(())
    };
    run(&mut group).unwrap_or_else(|violation: Violation| panic!("{}", violation.0));
}

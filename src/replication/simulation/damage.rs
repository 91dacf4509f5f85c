//! Scripts of disks that rot, and of syncs that fail: what a member says, and what it copies again.

use std::io::ErrorKind;

use super::super::effect::{Declined, Event};
use super::super::log_key::LogKey;
use super::super::member::LeadRefused;
use super::group::Group;
use super::machine::FIRST_BATCH;
use super::truth::Violation;
use crate::broker::member_notes::MemberNotes;
use crate::config::Durability;
use crate::error::{CorruptionKind, Error};
use crate::log::replica::refusal::Failure;
use crate::random::Random;
use crate::record::LeaderEpoch;
use crate::storage::disk::{Fault, Operation};

fn end_of(group: &Group, index: usize, log: LogKey) -> Option<(u64, u64)> {
    let run = group.machines[index].run.as_ref()?;
    let known = run.shell.member().state().logs().get(log)?;
    Some((known.end(), run.core(log)?.log_end()))
}

/// A leader that was cut off has records that the next one has not, and a damaged batch below. Its run
/// ended when it was to be cut, and so did each later one.
// RED: src/replication/shell.rs
//   - Err(Failure::Failed(error @ Error::Corrupt(_))) => self.damaged(log, error),
//   - done => done?,
//   + done => done?,
#[test]
fn a_log_that_cannot_be_cut_because_of_damage_is_copied_again() {
    let mut group = Group::new(3, Durability::Os, 1);
    let run = |group: &mut Group| {
        let log = group.begin()?;
        group.write(0, 3)?;
        group.flush()?;
        let core = group.machines[0].run.as_ref().unwrap().core(log).unwrap();
        let written = core.log().segments().first().unwrap().end() as u64 - FIRST_BATCH;
        group.sever(0);
        group.write(0, 3)?;
        (group.has_rotten, group.has_lost) = (true, true);
        group.machines[0].rot_at("plain", 0, FIRST_BATCH + written / 2);
        group.lead(1, LeaderEpoch(2))?;
        group.flush()?;
        group.write(1, 1)?;
        group.flush()?;
        group.heal();
        for _ in 0..4 {
            group.resend(1)?;
            group.resend(0)?;
            group.flush()?;
        }
        assert_eq!(end_of(group, 0, log), Some((4, 4)));
        let settled = group.settle()?;
        assert!(settled);
        Ok(())
    };
    run(&mut group).unwrap_or_else(|violation: Violation| panic!("{}", violation.0));
}

/// A member that found damage in `__meta` led no more, but did not say that it has to be replaced.
// RED: src/replication/shell.rs
//   - self.fail(damage.into());
#[test]
fn row_h15_a_member_that_finds_damage_in_meta_fails_and_says_so() {
    let mut group = Group::new(3, Durability::Os, 1);
    let begun = group.begin().map_err(|violation| violation.0);
    assert!(begun.is_ok(), "{begun:?}");
    let run = group.machines[0].run.as_mut().unwrap();
    assert_eq!(run.leads(), Some(LeaderEpoch(1)));
    let meta = run.core(LogKey::Meta).unwrap();
    let first = meta.log().segments().first().unwrap();
    run.shell.damaged(LogKey::Meta, first.corruption(0, None, CorruptionKind::Magic).into());
    assert!(matches!(run.shell.failure(), Some(Failure::Failed(Error::Corrupt(_)))));
    assert!(run.leads().is_none() && run.broker.run().leading().follows());
    let events = run.shell.take_events();
    assert!(events.contains(&Event::LeadershipLost(LeaderEpoch(1), Declined::Damaged)));
}

/// A member that has confirmed records at `Os` finds that they cannot be made durable. The kernel may drop
/// them then. It was killed, took itself for whole, and promised without them.
// RED: src/replication/shell/files.rs
//   - let _ = self.note(Note::Incomplete);
// RED: src/partition/flusher.rs
//   - Err(_) => self.log.lead().changed(),
//   + Err(_) => {}
#[test]
fn row_h14_a_member_whose_sync_has_failed_recovers_although_the_machine_keeps_its_power() {
    let mut group = Group::new(3, Durability::Os, 1);
    let run = |group: &mut Group| {
        let log = copy_unsynced(group)?;
        let machine = &mut group.machines[1];
        let run = machine.run.as_mut().unwrap();
        let leadership = run.broker.run().context().leadership.clone().unwrap();
        leadership.take_changed();
        machine.disk.inject(Fault::once(Operation::Sync, ErrorKind::Other));
        let core = run.core(log).unwrap();
        assert!(matches!(core.flush(), Err(Error::SyncFailed { .. })));
        // That wakes the member.
        assert_eq!(leadership.take_changed().len(), 1);
        run.shell.notice(log);
        assert!(matches!(run.shell.failure(), Some(Failure::Failed(_))));
        group.has_lost = true;
        group.crash(1, None);
        group.start(1)?;
        let run = group.machines[1].run.as_mut().unwrap();
        assert!(!run.shell.member().state().could_promise());
        assert_eq!(run.shell.lead(LeaderEpoch(5)), Err(LeadRefused::Recovering));
        group.heal();
        let settled = group.settle()?;
        assert!(settled);
        let run = group.machines[1].run.as_ref().unwrap();
        assert!(run.shell.member().state().could_promise());
        Ok(())
    };
    run(&mut group).unwrap_or_else(|violation: Violation| panic!("{}", violation.0));
}

/// The same if the sync fails while the broker is closed: its member has ended before. It was whole
/// when it was opened again. At `Sync` nothing was confirmed that was not synced.
// RED: src/broker/engine.rs
//   - note_loss(self.logs().local(), &self.all_partitions());
// RED: src/partition.rs
//   - core.log.ends().is_poisoned() && core.durability != Durability::Sync
//   + core.log.ends().is_poisoned()
#[test]
fn a_member_whose_sync_fails_while_it_is_closed_recovers() {
    for (durability, recovers) in [(Durability::Os, true), (Durability::Sync, false)] {
        let mut group = Group::new(3, durability, 1);
        let run = |group: &mut Group| {
            let log = copy_unsynced(group)?;
            group.machines[1].disk.inject(unsyncable());
            assert!(!group.machines[1].end(None, &mut Random::new(1)), "the sync has not failed");
            group.has_lost = true;
            group.start(1)?;
            assert_eq!(end_of(group, 1, log), Some((4, 4)));
            let run = group.machines[1].run.as_ref().unwrap();
            assert_eq!(run.shell.member().state().could_promise(), !recovers);
            group.heal();
            group.settle()
        };
        let settled = run(&mut group).map_err(|violation| violation.0);
        assert_eq!(settled, Ok(true), "{durability:?}");
    }
}

/// The run of a member has ended for another reason, and its broker lives. Then a sync fails.
// RED: src/replication/shell.rs
//   - return self.files().note_loss(logs.find(key).map(|log| (key, log)));
//   + return;
// RED: src/replication/shell/files.rs
//   - if may_lose && !self.notes().is_incomplete() {
//   + if may_lose {
#[test]
fn a_member_whose_sync_fails_after_the_end_of_its_run_recovers() {
    let mut group = Group::new(3, Durability::Os, 1);
    let run = |group: &mut Group| {
        let log = copy_unsynced(group)?;
        let machine = &mut group.machines[1];
        let run = machine.run.as_mut().unwrap();
        run.shell.panicked();
        let notes = MemberNotes::of(run.broker.run().logs());
        assert!(run.shell.failure().is_some() && !notes.is_incomplete());
        machine.disk.inject(unsyncable());
        assert!(run.core(log).unwrap().flush().is_err());
        run.shell.notice(log);
        assert!(notes.is_incomplete());
        // It is noted once.
        let end = || run.broker.run().logs().local().partition().log_end();
        let before = end();
        run.shell.notice(log);
        assert_eq!(end(), before);
        group.has_lost = true;
        group.crash(1, None);
        group.start(1)?;
        let run = group.machines[1].run.as_ref().unwrap();
        assert!(!run.shell.member().state().could_promise());
        group.heal();
        group.settle()
    };
    let settled = run(&mut group).map_err(|violation| violation.0);
    assert_eq!(settled, Ok(true));
}

/// The second machine has four records of a log, which is returned, and has not synced them.
fn copy_unsynced(group: &mut Group) -> Result<LogKey, Violation> {
    let log = group.begin()?;
    group.sever(2);
    group.write(0, 4)?;
    for _ in 0..12 {
        group.deliver_once()?;
    }
    assert_eq!(end_of(group, 1, log), Some((4, 4)));
    Ok(log)
}

fn unsyncable() -> Fault {
    Fault::once(Operation::Sync, ErrorKind::Other).on("plain")
}

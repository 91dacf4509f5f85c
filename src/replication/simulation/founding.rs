//! Scripts of groups that are being founded: who may lead while not all members know who they are.

use super::super::member::LeadRefused;
use super::super::membership::GroupId;
use super::group::Group;
use crate::config::Durability;
use crate::record::LeaderEpoch;
use crate::storage::disk::PowerCut;

/// The founder loses power before another member has copied who the members are. It recovered, and nobody
/// else could found a group.
// RED: src/replication/state.rs
//   - let has_confirmed = has_confirmed && !self.notes.is_founding();
#[test]
fn a_founder_that_loses_power_at_once_leads_again() {
    for (point, cut) in [(0, None), (1, Some(PowerCut::WORST)), (2, Some(PowerCut::WORST))] {
        let mut group = Group::new(3, Durability::Os, 1);
        let run = |group: &mut Group| {
            for index in 0..3 {
                group.start(index)?;
            }
            group.lead(0, LeaderEpoch(1))?;
            // The questions, and the promises; then what it says to the others is lost.
            group.deliver_once()?;
            group.exchange(1)?;
            assert_eq!(group.machines[0].run.as_ref().unwrap().leads(), Some(LeaderEpoch(1)));
            if point == 2 {
                // It tries once more, with as little success.
                group.crash(0, cut);
                group.start(0)?;
                group.lead(0, LeaderEpoch(2))?;
                group.exchange(2)?;
            }
            group.crash(0, cut);
            group.settle()
        };
        let settled = run(&mut group).map_err(|violation| violation.0);
        assert_eq!(settled, Ok(true), "{point}, {cut:?}");
    }
}

/// What it has counts once another member has confirmed it: from then on the founder recovers as any
/// other member does.
#[test]
fn a_founder_whose_records_count_recovers_after_a_loss_of_power() {
    let mut group = Group::new(3, Durability::Os, 1);
    let run = |group: &mut Group| {
        group.begin()?;
        group.write(0, 6)?;
        group.flush()?;
        group.crash(0, Some(PowerCut::WORST));
        group.start(0)
    };
    let done = run(&mut group).map_err(|violation| violation.0);
    assert_eq!(done, Ok(()));
    let run = group.machines[0].run.as_ref().unwrap();
    assert!(!run.shell.member().state().could_promise());
}

/// A member that was named when the group was founded, and cut off before it could copy that. Called to
/// lead, it asked to found a group for ever.
// RED: src/replication/state.rs
//   - Ask::Found => own.is_none_or(|own| own.names(self.me()) && own.names(from)),
//   + Ask::Found => own.is_none(),
#[test]
fn a_founded_member_that_does_not_know_it_leads_when_it_is_called() {
    let mut group = Group::new(3, Durability::Os, 1);
    let run = |group: &mut Group| {
        for index in 0..3 {
            group.start(index)?;
        }
        group.lead(0, LeaderEpoch(1))?;
        group.deliver_once()?;
        group.deliver_once()?;
        group.sever(2);
        group.resend(0)?;
        group.create("plain")?;
        let state = |group: &Group, index: usize| {
            let run = group.machines[index].run.as_ref().unwrap();
            let logs = run.shell.member().state().logs();
            (run.leads(), logs.membership().is_some())
        };
        assert_eq!(state(group, 1), (None, true));
        assert_eq!(state(group, 2), (None, false));
        // With the founder, or without it.
        group.crash(0, None);
        group.heal();
        group.lead(2, LeaderEpoch(2))?;
        for _ in 0..3 {
            group.flush()?;
            group.resend(2)?;
        }
        group.flush()?;
        assert_eq!(state(group, 2), (Some(LeaderEpoch(2)), true));
        group.settle()
    };
    let settled = run(&mut group).map_err(|violation| violation.0);
    assert_eq!(settled, Ok(true));
}

/// Before another member has copied who the members are, a log of the founder is damaged: nobody can give it
/// back, and nothing of the group was acknowledged. With a new directory for it a group is founded.
#[test]
fn a_founder_whose_log_is_damaged_at_once_has_to_be_replaced() {
    let mut group = Group::new(3, Durability::Os, 1);
    let run = |group: &mut Group| {
        for index in 0..3 {
            group.start(index)?;
        }
        group.lead(0, LeaderEpoch(1))?;
        group.deliver_once()?;
        group.exchange(1)?;
        group.sever(0);
        let log = group.create("plain")?;
        group.heal();
        group.rot_and_die(0, log)?;
        let run = group.machines[0].run.as_mut().unwrap();
        let refused =
            (run.shell.lead(LeaderEpoch(2)), run.shell.force_lead(LeaderEpoch(3), GroupId(9)));
        assert_eq!(refused, (Err(LeadRefused::Damaged), Err(LeadRefused::Damaged)));
        assert!(!group.settle()?);
        group.crash(0, None);
        let mut random = crate::random::Random::new(1);
        group.machines[0].wipe(&mut random);
        group.settle()
    };
    let settled = run(&mut group).map_err(|violation| violation.0);
    assert_eq!(settled, Ok(true));
}

//! Who is looked at when one of many readers parks, leaves or is fired.

use super::*;
use crate::steps;

fn list_of(readers: usize) -> (WaitList, Vec<u64>) {
    let (mut list, notifier) = (WaitList::default(), Notifier::new());
    let ids = (0..readers).map(|token| list.register(&notifier, token)).collect();
    (list, ids)
}

fn tokens(fired: Fired) -> Vec<usize> {
    let mut tokens: Vec<usize> =
        fired.0.into_iter().flat_map(|readers| readers.0).map(|(_, token)| token).collect();
    tokens.sort_unstable();
    tokens
}

/// Symptom: with 4,000 readers parked at one partition a message cost 7 ms. Cause: each reader
/// that parked again was looked for among all. Rule: a call pays for those that it concerns.
// RED: src/partition/waiters.rs
//   - let Some(waiter) = self.waiters.get_mut(&Counted(id)) else { return };
//   + let Some((_, waiter)) = self.waiters.iter_mut().find(|it| *it.0 == Counted(id)) else { return };
#[test]
fn row_g09_a_call_does_not_look_at_all_who_are_registered() {
    const READERS: usize = 4_096;
    let (mut list, ids) = list_of(READERS);
    let one = ids[READERS / 2];
    for awaits in [Awaits::Published, Awaits::Durable] {
        let steps = steps::of(|| {
            list.arm(one, awaits);
            assert!(list.any_armed());
            assert_eq!(list.any_awaits_durable(), awaits == Awaits::Durable);
            assert_eq!(tokens(list.fire(awaits)), [READERS / 2]);
            assert!(!list.any_armed());
        });
        assert!(steps < 200, "{steps}");
    }
    let steps = steps::of(|| ids.iter().for_each(|id| list.deregister(*id)));
    assert!(steps < 100 * READERS as u64, "{steps}");
}

#[test]
fn who_is_armed_is_fired_once_for_what_it_awaits() {
    let (mut list, ids) = list_of(4);
    list.arm(ids[0], Awaits::Published);
    list.arm(ids[0], Awaits::Published);
    list.arm(ids[1], Awaits::Durable);
    // Another end than before, and back: the last one counts.
    list.arm(ids[2], Awaits::Durable);
    list.arm(ids[2], Awaits::Published);
    list.arm(ids[3], Awaits::Published);
    list.deregister(ids[3]);
    list.arm(ids[3], Awaits::Published);
    assert_eq!(tokens(list.fire(Awaits::Published)), [0, 2]);
    assert_eq!(tokens(list.fire(Awaits::Published)), [0; 0]);
    assert!(list.any_awaits_durable());
    list.arm(ids[0], Awaits::Published);
    assert_eq!(tokens(list.fire_all()), [0, 1]);
    assert!(!list.any_armed() && !list.any_awaits_durable());
}

#[test]
fn readers_that_come_and_go_while_nothing_is_appended_leave_nothing_behind() {
    let (mut list, _) = list_of(0);
    for token in 0..1_000 {
        let id = list.register(&Notifier::new(), token);
        list.arm(id, Awaits::Published);
        list.deregister(id);
    }
    assert!(list.published.ids.len() < 20, "{}", list.published.ids.len());
}

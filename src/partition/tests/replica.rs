//! A partition that leads and one that follows, without the protocol between them.

use std::sync::mpsc;
use std::thread;

use super::*;
use crate::format::{BatchEncoder, Placement, SegmentKey};
use crate::log::replica::history::EpochEnd;
use crate::log::replica::received::Received;
use crate::log::replica::refusal::{Failure, Refusal};
use crate::log::replica::under::Under;
use crate::partition::lead::LedEpoch;
use crate::partition::replica::{Fed, Replica};

fn replica(setup: &Setup) -> Replica<'_> {
    Replica::of(&setup.core)
}

/// One fetch of a follower; the number of batches' portions that it stored.
fn follow(leader: &Setup, follower: &Setup) -> usize {
    let Fed::Batches(portions) = replica(leader).read(follower.core.log_end(), 200).unwrap() else {
        panic!("out of range");
    };
    for portion in &portions {
        let received = Received::check(portion.bytes(), portion.under).unwrap();
        let end = replica(follower).append(&received, 0).unwrap();
        assert_eq!((end, follower.core.log_end()), (portion.offsets.end, portion.offsets.end));
    }
    portions.len()
}

#[test]
fn a_follower_has_what_its_leader_has_and_makes_it_durable() {
    let (leader, follower) = (Setup::new(Durability::Sync), Setup::new(Durability::Sync));
    for epoch in [1, 1, 4, 6] {
        replica(&leader).set_epoch(epoch).unwrap();
        leader.append(&format!("in {epoch}")).unwrap();
    }
    while follow(&leader, &follower) > 0 {}
    assert_eq!(follower.values(), leader.values());
    for setup in [&leader, &follower] {
        let end = |epoch, end_offset| Some(EpochEnd { epoch, end_offset });
        assert_eq!(replica(setup).last().unwrap(), end(6, 4));
        assert_eq!(replica(setup).end_of(0).unwrap(), None);
        assert_eq!(replica(setup).end_of(3).unwrap(), end(1, 2));
        assert_eq!(replica(setup).end_of(5).unwrap(), end(4, 3));
        assert_eq!(replica(setup).epoch_before(0).unwrap(), None);
        assert_eq!(replica(setup).epoch_before(3).unwrap(), Some(4));
    }
    assert_eq!(follower.core.durable_end(), 0);
    follower.core.flush().unwrap();
    assert_eq!(follower.core.durable_end(), 4);
    let recovered = Setup::recovered(follower.disk.kill9(), false);
    assert_eq!(recovered.values(), leader.values());
    assert_eq!(replica(&recovered).last().unwrap(), replica(&leader).last().unwrap());
}

#[test]
fn a_reader_that_waits_is_woken_by_what_a_follower_stores() {
    let (leader, follower) = (Setup::new(Durability::Os), Setup::new(Durability::Os));
    let notifier = crate::partition::waiters::Notifier::new();
    let id = follower.core.log().register(&notifier, 3);
    assert!(follower.core.reader().arm(id, 0, Visibility::Published));
    leader.append("a").unwrap();
    follow(&leader, &follower);
    assert_eq!(follower.core.visible_end(Visibility::Published), 1);
    assert!(!follower.core.reader().arm(id, 0, Visibility::Published));
}

#[test]
fn numbers_of_named_producers_are_replicated() {
    let (leader, follower) = (Setup::new(Durability::Os), Setup::new(Durability::Os));
    let current = AtomicU32::new(2);
    let send = |setup: &Setup, sequence| {
        let request = ProducerRequest { id: 7, epoch: 2, sequence: Sequence::At(sequence) };
        let producer = Some(Fence { request, name: "p", current: &current });
        let stamp = setup.core.log().stamp(Durability::Os, true).unwrap();
        let options = AppendOptions { producer, stamp, ..AppendOptions::default() };
        let mut encoder = Encoder::take();
        let mut batch = encoder.encode([&Record::new().value("v")], RULES, 0).unwrap();
        setup.core.append(&mut batch, &options).unwrap()
    };
    send(&leader, 10);
    send(&leader, 11);
    while follow(&leader, &follower) > 0 {}
    assert_eq!(follower.core.log().last_sequence(7), Some(11));
    // A retry on the new leader is recognised.
    replica(&follower).set_epoch(5).unwrap();
    let led = LedEpoch::default();
    let duplicate = Accepted::Duplicate { last_sequence: 11, last_offset: 1, led };
    assert_eq!(send(&follower, 11), duplicate);
    let appended = Accepted::Appended { base_offset: 2, next_offset: 3, led };
    assert_eq!(send(&follower, 12), appended);
}

#[test]
fn what_is_out_of_range_and_what_contradicts_the_log_is_said() {
    let (leader, follower) = (Setup::new(Durability::Os), Setup::new(Durability::Os));
    for number in 0..4 {
        leader.append(&format!("{number}")).unwrap();
    }
    leader.core.flush().unwrap();
    leader.core.retention().retire(2).unwrap();
    for (offset, is_out) in [(0, true), (1, true), (2, false), (4, false), (5, true)] {
        let fed = replica(&leader).read(offset, 99).unwrap();
        match fed {
            Fed::OutOfRange { log_start: 2, log_end: 4 } => assert!(is_out, "{offset}"),
            Fed::Batches(portions) => {
                assert!(!is_out && portions.is_empty() == (offset == 4), "{offset}");
            }
            other @ Fed::OutOfRange { .. } => panic!("{other:?}"),
        }
    }
    follower.append("own").unwrap();
    replica(&follower).set_epoch(3).unwrap();
    let refused = replica(&follower).set_epoch(2);
    let epoch = Refusal::Epoch { before: 3, found: 2 };
    assert!(matches!(&refused, Err(Failure::Refused(it)) if *it == epoch), "{refused:?}");
    let Fed::Batches(portions) = replica(&leader).read(2, 99).unwrap() else { panic!() };
    let received = Received::check(portions[0].bytes(), portions[0].under).unwrap();
    let refused = replica(&follower).append(&received, 1);
    let offset = Refusal::Offset { expected: 1, found: 2 };
    assert!(matches!(&refused, Err(Failure::Refused(it)) if *it == offset), "{refused:?}");
    assert_eq!(follower.core.log_end(), 1);
}

/// After a failed sync a leader gives only what is known to be on its disk, and a follower takes
/// nothing.
#[test]
fn a_failed_sync_ends_what_is_given_and_what_is_taken() {
    let (leader, follower) = (Setup::new(Durability::Sync), Setup::new(Durability::Sync));
    leader.append("durable").unwrap();
    leader.core.flush().unwrap();
    leader.append("not").unwrap();
    leader.fail_next_sync();
    assert!(leader.core.flush().is_err());
    assert_eq!(follow(&leader, &follower), 1);
    assert_eq!(follower.core.log_end(), 1);
    let Fed::Batches(portions) = replica(&leader).read(0, 99).unwrap() else { panic!() };
    follower.fail_next_sync();
    assert!(follower.core.flush().is_err());
    let received = Received::check(portions[0].bytes(), portions[0].under).unwrap();
    let refused = replica(&follower).append(&received, 0);
    assert!(matches!(refused, Err(Failure::Failed(Error::Poisoned { .. }))), "{refused:?}");
    follower.core.close();
    assert!(matches!(replica(&follower).read(0, 9), Err(Error::Closed)));
    assert!(matches!(replica(&follower).end_of(0), Err(Error::Closed)));
}

#[test]
fn a_partition_is_truncated_and_continues() {
    let setup = Setup::new(Durability::Sync);
    for number in 0..6 {
        replica(&setup).set_epoch(number / 2).unwrap();
        setup.append(&format!("{number}")).unwrap();
    }
    assert_eq!(setup.core.durable_end(), 0);
    let refused = replica(&setup).truncate(2, 3);
    let bound = Refusal::Bound { offset: 2, bound: 3 };
    assert!(matches!(&refused, Err(Failure::Refused(it)) if *it == bound), "{refused:?}");
    assert_eq!(replica(&setup).truncate(3, 3).unwrap(), 3);
    let ends = || (setup.core.log_start(), setup.core.durable_end(), setup.core.log_end());
    assert_eq!(ends(), (0, 3, 3), "what is kept is durable");
    assert_eq!(replica(&setup).last().unwrap(), Some(EpochEnd { epoch: 1, end_offset: 3 }));
    // An append after it waits for a sync of its own.
    setup.append("new").unwrap();
    assert_eq!(ends(), (0, 3, 4));
    setup.fail_next_sync();
    assert!(setup.core.wait_durable(4).is_err());
    let recovered = Setup::recovered(setup.disk.kill9(), true);
    assert_eq!(recovered.values()[..3], ["0", "1", "2"]);
    recovered.append("again").unwrap();
    recovered.core.flush().unwrap();
    assert_eq!(replica(&recovered).truncate(0, 0).unwrap(), 0);
    assert_eq!((recovered.core.log_end(), recovered.values()), (0, Vec::new()));
    recovered.append("first").unwrap();
    recovered.core.flush().unwrap();
    assert_eq!(Setup::recovered(recovered.disk.kill9(), false).values(), ["first"]);
}

#[test]
fn a_partition_begins_anew_and_continues() {
    let setup = Setup::new(Durability::Sync);
    for number in 0..4 {
        setup.append(&format!("{number}")).unwrap();
    }
    assert_eq!(replica(&setup).begin_anew(30, None).unwrap(), 30);
    let ends = (setup.core.log_start(), setup.core.durable_end(), setup.core.log_end());
    assert_eq!((ends, replica(&setup).last().unwrap()), ((30, 30, 30), None));
    setup.append("a").unwrap();
    setup.core.flush().unwrap();
    assert_eq!((setup.core.durable_end(), setup.values()), (31, vec!["a".to_owned()]));
    assert_eq!(setup.disk.paths().iter().filter(|it| it.extension().is_some()).count(), 1);
}

const UNDER: Under = Under { salt: 0x1EAD, features: 0 };

/// A batch with the offsets 2 to 4, and records of this size.
fn batch_to_4(bytes: usize, has_gaps: bool) -> Vec<u8> {
    let mut encoder = BatchEncoder::new();
    for _ in 0..if has_gaps { 2 } else { 3 } {
        let headers = std::iter::empty::<(&str, &[u8])>();
        encoder.push(1_000, None, Some(&vec![b'v'; bytes]), headers).unwrap();
    }
    encoder.set_last_offset_delta(2);
    let key = &SegmentKey::new(UNDER.salt, UNDER.features);
    let (base_offset, leader_epoch, durable_end, producer) = (2, 1, 0, None);
    let placement = Placement { base_offset, leader_epoch, durable_end, key, producer };
    encoder.finish().seal(&placement).to_vec()
}

/// Symptom: a batch within which a log begins, and that its segment had no room for or that has gaps,
/// was stored in another segment, which began above it; after a crash it was missing. Rule: the
/// segment is made for the batch, and no other batch begins the log.
// RED: src/log/replica/cut.rs
//   - let needed = SegmentHeader::SIZE.saturating_add(room).saturating_add(first_bytes);
//   + let needed = SegmentHeader::SIZE.saturating_add(room);
// RED: src/log/replica/cut.rs
//   - if self.first.is_some_and(|first| first.has_gaps) {
//   + if false {
// RED: src/log/replica/append.rs
//   - && fits
#[test]
fn the_batch_within_which_a_log_begins_is_in_the_segment_that_was_made_for_it() {
    let small = batch_to_4(9, false);
    let small = Received::check(&small, UNDER).unwrap();
    for (bytes, has_gaps) in [(256 << 10, false), (9, true)] {
        let setup = Setup::new(Durability::Sync);
        let batch = batch_to_4(bytes, has_gaps);
        let received = Received::check(&batch, UNDER).unwrap();
        replica(&setup).begin_anew(4, Some(&small)).unwrap();
        let refused = replica(&setup).append(&received, 5);
        assert!(matches!(refused, Err(Failure::Refused(_))), "{has_gaps}: {refused:?}");
        replica(&setup).begin_anew(4, Some(&received)).unwrap();
        assert_eq!(replica(&setup).append(&received, 5).unwrap(), 5);
        let recovered = Setup::recovered(setup.disk.kill9(), true);
        let found = (recovered.core.log_end(), recovered.values().len());
        assert_eq!(found, (5, if has_gaps { 2 } else { 3 }));
    }
}

/// Who waited for the disk while the log is truncated is answered: all that was appended before is
/// durable first, and what is asked for above the new end is not known.
#[test]
fn waits_for_the_disk_end_with_a_truncation() {
    let setup = Setup::new(Durability::Sync);
    for number in 0..4 {
        setup.append(&format!("{number}")).unwrap();
    }
    let (woken, waker) = waker();
    let mut ticket = None;
    assert!(setup.core.flusher().poll(4, &waker, &mut ticket).is_none());
    replica(&setup).truncate(1, 1).unwrap();
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    assert!(matches!(setup.core.wait_durable(3), Err(Error::LeadershipLost)));
    let polled = setup.core.flusher().poll(3, &waker, &mut None);
    assert!(matches!(polled, Some(Err(Error::LeadershipLost))), "{polled:?}");
    setup.core.wait_durable(1).unwrap();
}

/// Symptom: a task that waited for a record heard nothing definite when the log was truncated, although
/// the record had become durable before; or waited for the sync of the record that has its offset
/// now. Rule: its ticket says how often the log had been truncated when it began to wait.
// RED: src/partition/group_commit.rs
//   - if let Some(answer) = ticket.and_then(|ticket| state.answer_of_cut(ticket.cuts)) {
//   + if let Some(answer) = None {
#[test]
fn a_task_that_waited_while_the_log_was_truncated_hears_that_its_record_was_durable() {
    for appends in [0, 9] {
        let setup = Setup::new(Durability::Sync);
        for number in 0..4 {
            setup.append(&number.to_string()).unwrap();
        }
        let (woken, waker) = waker();
        let mut ticket = None;
        assert!(setup.core.flusher().poll(4, &waker, &mut ticket).is_none());
        replica(&setup).truncate(1, 1).unwrap();
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        for number in 0..appends {
            setup.append(&number.to_string()).unwrap();
        }
        let polled = setup.core.flusher().poll(4, &waker, &mut ticket);
        assert!(matches!(polled, Some(Ok(()))), "{appends}: {polled:?}");
        setup.core.flusher().forget(4, ticket.unwrap());
        // Who comes only now waits for what has the offset now.
        let polled = setup.core.flusher().poll(4, &waker, &mut None);
        match polled {
            None => assert_eq!(appends, 9),
            Some(Err(Error::LeadershipLost)) => assert_eq!(appends, 0),
            other => panic!("{appends}: {other:?}"),
        }
    }
}

/// Symptom: a task that waited for a record when the log began anew below it was not called any more,
/// and a thread heard that its record was durable, although it was dropped without a sync. Rule: of
/// such a record nothing is known.
// RED: src/partition/group_commit.rs
//   - Some(if self.unsynced_cut > cuts { Err(Error::LeadershipLost) } else { Ok(()) })
//   + Some(Ok(()))
// RED: src/partition/group_commit.rs
//   - let answered = std::mem::take(&mut state.wakers);
//   + let answered = std::collections::BTreeMap::<(u64, u64), Waker>::new();
#[test]
fn who_waited_when_a_log_began_anew_hears_that_nothing_is_known() {
    let setup = Setup::new(Durability::Sync);
    for number in 0..4 {
        setup.append(&number.to_string()).unwrap();
    }
    let ((woken, waker), mut ticket) = (waker(), None);
    assert!(setup.core.flusher().poll(4, &waker, &mut ticket).is_none());
    replica(&setup).begin_anew(1, None).unwrap();
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    let polled = setup.core.flusher().poll(4, &waker, &mut ticket);
    assert!(matches!(polled, Some(Err(Error::LeadershipLost))), "{polled:?}");
}

/// Symptom: who had read the log end before a truncation and waited after it made one sync after the
/// other, and none reached that end. Rule: the end is compared once more, after the count of
/// truncations was read.
// RED: src/partition/group_commit.rs
//   - check_target(target, log_end)?;
#[test]
fn who_waits_for_an_end_that_was_cut_off_is_answered() {
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || {
        let setup = Setup::new(Durability::Sync);
        for number in 0..4 {
            setup.append(&number.to_string()).unwrap();
        }
        replica(&setup).truncate(1, 1).unwrap();
        let flusher = setup.core.flusher();
        // What was sealed has no more to wait for; of a record it is not known.
        sender.send((flusher.flush_sealed(4).is_ok(), flusher.wait(4).is_err())).unwrap();
    });
    assert_eq!(ended.recv_timeout(Duration::from_secs(20)), Ok((true, true)), "it waits for ever");
}

/// After the new segment has its name it is not known whether the log is cut. Nothing is appended
/// to it as it was; the next opening finds one or the other.
// RED: src/partition/replica.rs
//   - state.poison(error.clone());
#[test]
fn a_truncation_whose_outcome_is_unknown_poisons_the_partition() {
    for (operation, is_poisoned) in
        [(Operation::Create, false), (Operation::Rename, false), (Operation::SyncDir, true)]
    {
        let setup = Setup::new(Durability::Sync);
        for number in 0..3 {
            setup.append(&format!("{number}")).unwrap();
        }
        setup.disk.inject(Fault::once(operation, ErrorKind::Other));
        let failed = replica(&setup).truncate(1, 1);
        assert!(matches!(failed, Err(Failure::Failed(_))), "{operation:?}: {failed:?}");
        assert_eq!(setup.append("more").is_err(), is_poisoned, "{operation:?}");
        if !is_poisoned {
            assert_eq!(replica(&setup).truncate(1, 1).unwrap(), 1);
        }
        setup.core.close();
        let recovered = Setup::recovered(setup.disk.kill9(), true);
        let end = recovered.core.log_end();
        assert!([1, 3].contains(&end) && is_poisoned || end == 1, "{operation:?}: {end}");
    }
}

//! Commits of messages whose work is finished out of order.

use logpond::InFlight;

use super::*;

/// Rule: a message is taken when all before it in its partition are done; of each partition one.
// RED: src/consumer/in_flight.rs
//   - while let Some(first) = messages.first_entry().filter(|first| first.get().1) {
//   + while let Some(first) = messages.last_entry().filter(|first| first.get().1) {
#[test]
fn a_commit_waits_for_the_first_message_that_is_not_done() {
    let broker = filled(&[4, 3]);
    let mut inbox = broker.consumer("g").subscribe(["t"]).open().unwrap();
    let messages = drain(&mut inbox);
    let mut in_flight = InFlight::new();
    for message in &messages {
        in_flight.begin(message);
    }
    let of = |partition, offset| {
        let is_it = |it: &&Message| (it.partition(), it.offset()) == (partition, offset);
        messages.iter().find(is_it).unwrap()
    };
    for (partition, offset) in [(0, 1), (0, 2), (1, 2)] {
        in_flight.finish(of(partition, offset));
        assert!(in_flight.take_done().is_empty());
    }
    assert_eq!(in_flight.len(), 7);
    in_flight.finish(of(0, 0));
    in_flight.finish(of(1, 0));
    let done = in_flight.take_done();
    let taken: Vec<_> = done.iter().map(|it| (it.partition(), it.offset())).collect();
    assert_eq!(taken, [(0, 2), (1, 0)]);
    assert!(in_flight.take_done().is_empty() && in_flight.len() == 3);
    in_flight.retain(&[tp("t", 1)]);
    in_flight.finish(of(0, 3));
    assert_eq!(in_flight.len(), 2);
    in_flight.finish(of(1, 1));
    assert_eq!(in_flight.take_done().len(), 1);
    assert!(in_flight.is_empty());
}

/// A worker that was slow returns what was read before its member lost the partition and got it back.
// RED: src/consumer/in_flight.rs
//   - && Arc::ptr_eq(begun.origin(), message.origin())
#[test]
fn work_that_began_before_a_rebalance_does_not_finish_what_was_read_after_it() {
    let broker = filled(&[3]);
    let mut first = broker.consumer("g").subscribe(["t"]).open().unwrap();
    let before = drain(&mut first);
    drop(first);
    let mut again = broker.consumer("g").subscribe(["t"]).open().unwrap();
    let after = again.recv().unwrap();
    let mut in_flight = InFlight::new();
    for message in &before {
        in_flight.begin(message);
    }
    in_flight.begin(&after);
    assert_eq!(in_flight.len(), 1, "nobody finishes what was read before");
    in_flight.finish(&before[0]);
    assert!(in_flight.take_done().is_empty());
    in_flight.finish(&after);
    assert_eq!(in_flight.take_done().len(), 1);
    assert!(in_flight.is_empty());
}

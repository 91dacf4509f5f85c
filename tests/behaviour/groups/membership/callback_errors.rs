//! What follows when a rebalance callback returns an error.

use std::io;
use std::time::Instant;

use super::*;

/// A callback that fails while `fails` names its event, and notes what it was called with.
fn failing(heard: &Heard, builder: ConsumerBuilder) -> (ConsumerBuilder, Arc<Mutex<&'static str>>) {
    let fails = Arc::new(Mutex::new(""));
    let (heard, now) = (heard.clone(), Arc::clone(&fails));
    let builder = builder.on_rebalance(move |event, _| -> io::Result<()> {
        let name = match event {
            Rebalance::Assigned(_) => "assigned",
            Rebalance::Revoked(_) => "revoked",
            Rebalance::Lost(_) => "lost",
        };
        heard.note("a", event);
        if *now.lock().unwrap() == name {
            return Err(io::ErrorKind::NotConnected.into());
        }
        Ok(())
    });
    (builder, fails)
}

fn assert_failed<T: std::fmt::Debug>(result: &Result<T, Error>) {
    let Err(error) = result else { panic!("{result:?}") };
    assert!(error.is_retriable() && !error.is_fatal() && !error.is_definite());
    assert!(std::error::Error::source(error).is_some());
    let Error::Callback { source } = error else { panic!("{result:?}") };
    let source = source.downcast_ref::<io::Error>().unwrap();
    assert_eq!(source.kind(), io::ErrorKind::NotConnected);
}

/// Symptom: a callback that could not read the offsets of its partitions could only panic. Rule:
/// it returns an error, which the call returns in which it ran; before it has succeeded, no call
/// returns a message, of any partition, and the next one calls it again.
// RED: src/consumer/assignment.rs
//   - self.listener.put_back(assigned);
#[test]
fn row_j26_nothing_is_read_of_partitions_before_their_callback_has_succeeded() {
    let (broker, _) = timed(2);
    let heard = Heard::default();
    let (builder, fails) = failing(&heard, member(&broker));
    *fails.lock().unwrap() = "assigned";
    let mut a = builder.open().unwrap();
    assert_failed(&a.poll(NOW));
    assert_failed(&a.recv());
    assert_failed(&a.try_recv());
    assert_failed(&a.iter().next().unwrap());
    assert_eq!(heard.take(), ["a assigned 0 1"; 4]);
    assert_eq!(sizes(&[&a]), [2], "the member keeps them");
    assert_eq!(a.position(("t", 0)), Some(0));
    *fails.lock().unwrap() = "";
    assert_eq!(drain(&mut a).len(), 20);
    assert_eq!(heard.take(), ["a assigned 0 1"]);

    // With partitions that were reported before: they wait, too.
    broker.admin().add_partitions("t", 3).unwrap();
    send_numbers(&broker, "t", 0, 10..11);
    *fails.lock().unwrap() = "assigned";
    assert_failed(&a.poll(NOW));
    assert_failed(&a.poll(NOW));
    *fails.lock().unwrap() = "";
    assert_eq!(poll(&mut a).len(), 1);
    assert_eq!(heard.take(), ["a assigned 2"; 3]);
}

/// Rule: what its callback was not called for with success, it is not called for again.
#[test]
fn partitions_whose_assignment_failed_are_neither_revoked_nor_lost_for_the_callback() {
    for end in ["close", "revoke", "evict"] {
        let (broker, clock) = timed(2);
        let heard = Heard::default();
        let auto = CommitMode::Auto { every: Duration::from_secs(1) };
        let (builder, fails) = failing(&heard, member(&broker).commit(auto));
        *fails.lock().unwrap() = "assigned";
        let mut a = builder.open().unwrap();
        assert_failed(&a.poll(NOW));
        assert_eq!(heard.take(), ["a assigned 0 1"]);
        let mut b = member(&broker).open().unwrap();
        match end {
            "close" => a.close().unwrap(),
            "revoke" => {
                assert_failed(&a.poll(NOW));
                assert_eq!(heard.take(), ["a assigned 0"]);
                assert_eq!(sizes(&[&a]), [1]);
            }
            _ => {
                clock.advance(INTERVAL / 2);
                poll(&mut b);
                clock.advance(INTERVAL / 2);
                broker.tick().unwrap();
                assert_failed(&a.poll(NOW).and_then(|_| a.poll(NOW)));
                assert_eq!(heard.take().len(), 1);
            }
        }
        assert!(heard.take().is_empty(), "{end}");
        let read = drain(&mut b);
        assert!(read.iter().all(|message| message.offset() < 10) && read.len() >= 10, "{end}");
    }
}

/// Rule: other members wait for revoked partitions, so an error does not keep them; and the call
/// that ran the callback returns it, also `close`.
// RED: src/consumer/assignment.rs
//   - heard.map_err(Failed::raise)?;
//   -         revoked?;
#[test]
fn partitions_are_given_up_although_their_callback_failed() {
    let (broker, _) = timed(2);
    let heard = Heard::default();
    let auto = CommitMode::Auto { every: Duration::from_secs(3600) };
    let (builder, fails) = failing(&heard, member(&broker).commit(auto));
    let mut a = builder.open().unwrap();
    drain(&mut a);
    let mut b = member(&broker).open().unwrap();
    *fails.lock().unwrap() = "revoked";
    assert_failed(&a.poll(NOW));
    assert_eq!(sizes(&[&a]), [1]);
    poll(&mut a);
    assert!(poll(&mut b).is_empty(), "the position was committed");
    assert_eq!(sizes(&[&a, &b]), [1, 1]);
    send_numbers(&broker, "t", 0, 10..11);
    send_numbers(&broker, "t", 1, 10..11);
    assert_eq!(drain(&mut a).len(), 1);
    assert_failed(&a.close());
    assert_eq!(drain(&mut b).len(), 1);
    assert_eq!(sizes(&[&b]), [2]);
    assert_eq!(heard.take(), ["a assigned 0 1", "a revoked 1", "a revoked 0"]);
}

#[test]
fn an_evicted_member_whose_callback_failed_joins_again_in_the_next_poll() {
    let (broker, clock) = timed(1);
    let heard = Heard::default();
    let (builder, fails) = failing(&heard, member(&broker));
    let mut a = builder.open().unwrap();
    poll(&mut a);
    clock.advance(INTERVAL);
    broker.tick().unwrap();
    *fails.lock().unwrap() = "lost";
    assert_failed(&a.poll(NOW));
    assert!(a.assignment().is_empty());
    assert_eq!(drain(&mut a).len(), 10);
    assert_eq!(heard.take(), ["a assigned 0", "a lost 0", "a assigned 0"]);

    let (builder, fails) = failing(&heard, member(&broker).instance_id("one"));
    drop(a);
    let mut old = builder.open().unwrap();
    poll(&mut old);
    let _new = member(&broker).instance_id("one").open().unwrap();
    *fails.lock().unwrap() = "lost";
    assert_failed(&old.poll(NOW));
    assert!(matches!(old.poll(NOW), Err(Error::Fenced { .. })));
    assert_eq!(heard.take(), ["a assigned 0", "a lost 0"]);
}

/// Symptom: a partition that was assigned by the same poll in which the callback of a loss panicked
/// was owned by the member and never read. Cause: the group hands out an assignment once, and the
/// panic left before it was taken. Rule: first the change is taken whole, then the failure is passed
/// on.
// RED: src/consumer/assignment.rs
//   - let heard = self.lose(&change.lost);
//   + let heard = Ok(()); self.lose(&change.lost).map_err(Failed::raise)?;
#[test]
fn what_is_assigned_beside_a_loss_is_read_whatever_the_callback_of_the_loss_does() {
    for panics in [false, true] {
        let (broker, _) = timed(1);
        fill(&broker, "u", 1);
        let mut a = broker
            .consumer("g")
            .subscribe_pattern("*")
            .on_rebalance(move |event, _| match event {
                Rebalance::Lost(_) if panics => std::panic::resume_unwind(Box::new("lost")),
                Rebalance::Lost(_) => Err("lost"),
                _ => Ok(()),
            })
            .open()
            .unwrap();
        assert_eq!(drain(&mut a).len(), 20);
        broker.admin().delete_topic("u").unwrap();
        fill(&broker, "v", 1);
        let failed = catch_unwind(AssertUnwindSafe(|| a.poll(NOW)));
        match failed {
            Err(_) => assert!(panics),
            Ok(result) => assert!(matches!(result, Err(Error::Callback { .. })) && !panics),
        }
        assert_eq!(drain(&mut a).len(), 10, "panics: {panics}");
        assert_eq!(a.assignment(), [tp("t", 0), tp("v", 0)]);
    }
}

/// Symptom: a loop that polls again after an error that may pass asked a database that is down at full
/// speed. Rule: the second time the error is returned when the time-out of the call is over.
// RED: src/consumer/poller.rs
//   - std::mem::replace(&mut self.returned.callback, true)
//   + false
#[test]
fn row_j26_a_callback_that_fails_again_ends_the_time_of_the_call() {
    const TIMEOUT: Duration = Duration::from_millis(30);
    let (broker, _) = timed(2);
    let heard = Heard::default();
    let (builder, fails) = failing(&heard, member(&broker));
    *fails.lock().unwrap() = "assigned";
    let mut a = builder.open().unwrap();
    #[expect(clippy::disallowed_methods, reason = "the time-out is real time")]
    let began = Instant::now();
    for count in 0..4 {
        assert_failed(&a.poll(TIMEOUT));
        assert!(began.elapsed() >= TIMEOUT * count);
    }
    // A wake-up from before the first wait may be one more.
    assert!((4..=5).contains(&heard.take().len()));
    // A call without an end has nothing else to wait for.
    assert_failed(&a.recv());
    assert_failed(&a.try_recv());
    *fails.lock().unwrap() = "";
    assert_eq!(drain(&mut a).len(), 20);
    heard.take();

    // The failure of another event is none of these, and is not lost.
    *fails.lock().unwrap() = "revoked";
    let mut b = member(&broker).open().unwrap();
    assert_failed(&a.poll(TIMEOUT));
    poll(&mut a);
    poll(&mut b);
    assert_eq!(sizes(&[&a, &b]), [1, 1]);
}

//! Faults at the seams, for each kind of call and each scope; and faults that were never met.

use std::time::Duration;

use logpond::testing::{ErrorKind, Fault, TestBroker};
use logpond::{
    Broker, Clock, CommitMode, Consumer, Durability, Error, Record, SendOutcome, SystemClock,
    TopicConfig,
};

const MINUTE: Duration = Duration::from_secs(60);

fn broker(partitions: u32) -> TestBroker {
    let broker = TestBroker::new();
    broker.ensure_topic("t", TopicConfig::new(partitions)).unwrap();
    broker
}

fn send(broker: &Broker, partition: u32) -> logpond::Result<u64> {
    Ok(broker.producer().send(Record::to("t").partition(partition).value("v"))?.offset)
}

fn member(broker: &Broker) -> Consumer {
    broker.consumer("g").subscribe(["t"]).open().unwrap()
}

fn poll(consumer: &mut Consumer) -> logpond::Result<usize> {
    Ok(consumer.poll(Duration::ZERO)?.len())
}

/// The program of the interface's own page.
#[test]
fn a_service_is_tested_as_documented() -> logpond::Result<()> {
    fn charge_card(broker: &Broker, user: &str) -> logpond::Result<()> {
        broker.producer().send(Record::to("charges").key(user).value("4.99"))?;
        Ok(())
    }
    let broker = TestBroker::new();
    broker.ensure_topic("charges", TopicConfig::new(1).retention(Duration::from_secs(60)))?;
    broker.faults().fail_next_append(("charges", 0), ErrorKind::StorageFull);
    assert!(charge_card(&broker, "user-7").is_err());
    charge_card(&broker, "user-7")?;
    broker.clock().advance(Duration::from_secs(61));
    broker.tick()?; // retention, eviction and auto-commit run on the manual clock
    assert!(broker.produced("charges").is_empty());
    Ok(())
}

#[test]
fn an_append_fails_once_and_nothing_is_appended() {
    let broker = broker(2);
    broker.faults().fail_next_append(("t", 1), ErrorKind::StorageFull);
    assert_eq!(send(&broker, 0).unwrap(), 0);
    let error = send(&broker, 1).unwrap_err();
    assert!(matches!(error, Error::StorageFull { .. }) && error.is_definite(), "{error:?}");
    assert_eq!(send(&broker, 1).unwrap(), 0);
    assert_eq!(broker.produced("t").len(), 2);
}

/// Every way of records into a partition passes the seam.
#[test]
fn each_call_that_appends_meets_a_fault() {
    let broker = broker(1);
    let always = broker.faults().set(Fault::append().on(("t", 0)).until_lifted());
    let producer = broker.producer_builder().id("p").build().unwrap();
    let record = || Record::to("t").key("k").value("v");
    let partition = broker.topic("t").unwrap().partition(0).unwrap();
    assert!(matches!(producer.send(record()), Err(Error::Io { .. })));
    assert!(matches!(producer.enqueue(record()), Err(Error::Io { .. })));
    assert!(matches!(producer.send_batch([record()]), Err(Error::Io { .. })));
    assert!(matches!(producer.send_sequenced(1, record()), Err(Error::Io { .. })));
    assert!(matches!(partition.append(&Record::new().value("v")), Err(Error::Io { .. })));
    assert!(matches!(partition.append_if(0, &[Record::new()]), Err(Error::Io { .. })));
    assert_eq!((broker.faults().met(always), partition.log_end_offset()), (6, 0));
    broker.faults().lift(always);
    producer.send(record()).unwrap();
}

#[test]
fn a_fault_is_met_n_times_after_m_calls_of_its_producer() {
    let broker = broker(1);
    let (named, plain) = (broker.producer_builder().id("p").build().unwrap(), broker.producer());
    let fault = Fault::append().of_producer("p").after(1).times(2).error(ErrorKind::TimedOut);
    let fault = broker.faults().set(fault);
    let works = |producer: &logpond::Producer| producer.send(Record::to("t").value("v")).is_ok();
    let outcomes: Vec<_> = (0..4).map(|_| (works(&named), works(&plain))).collect();
    assert_eq!(outcomes, [(true, true), (false, true), (false, true), (true, true)]);
    assert_eq!(broker.faults().met(fault), 2);
}

/// The caller cannot tell the two apart, and only a number of the source makes the retry safe.
#[test]
fn an_append_of_unknown_outcome_is_stored_or_not_as_the_test_says() {
    for is_stored in [true, false] {
        let broker = broker(1);
        let fault = Fault::append().on(("t", 0));
        broker.faults().set(if is_stored {
            fault.stored_but_unknown()
        } else {
            fault.not_stored_and_unknown()
        });
        let producer = broker.producer_builder().id("p").build().unwrap();
        let send = || producer.send_sequenced(1, Record::to("t").partition(0).value("v"));
        let error = send().unwrap_err();
        assert!(!error.is_definite() && !error.is_fatal(), "{error:?}");
        assert_eq!(broker.produced("t").len(), usize::from(is_stored));
        assert_eq!(matches!(send().unwrap(), SendOutcome::Duplicate { last: 1 }), is_stored);
        assert_eq!(broker.produced("t").len(), 1);
    }
}

#[test]
fn a_commit_of_unknown_outcome_is_stored_or_not_as_the_test_says() {
    for is_stored in [true, false] {
        let broker = broker(1);
        send(&broker, 0).unwrap();
        let fault = Fault::commit().of_group("g");
        broker.faults().set(if is_stored {
            fault.stored_but_unknown()
        } else {
            fault.not_stored_and_unknown()
        });
        let mut consumer = member(&broker);
        assert_eq!(poll(&mut consumer).unwrap(), 1);
        let error = consumer.commit().unwrap_err();
        assert!(!error.is_definite(), "{error:?}");
        drop(consumer);
        assert_eq!(poll(&mut member(&broker)).unwrap(), usize::from(!is_stored));
    }
}

#[test]
fn a_sync_fails_as_it_does_on_a_disk() {
    let broker = broker(2);
    broker.faults().fail_next_sync(("t", 0));
    send(&broker, 1).unwrap();
    let error = send(&broker, 0).unwrap_err();
    assert!(matches!(error, Error::SyncFailed { .. }) && !error.is_definite(), "{error:?}");
    assert!(matches!(send(&broker, 0), Err(Error::Poisoned { .. })));
    let broker = broker.crash().kill9().unwrap();
    send(&broker, 0).unwrap();
    assert_eq!(broker.produced("t").len(), 3, "the process has died, the machine has not");
}

#[test]
fn a_poll_and_a_commit_fail_for_their_group_only() {
    let broker = broker(1);
    send(&broker, 0).unwrap();
    broker.faults().set(Fault::poll().of_group("g").times(2));
    broker.faults().set(Fault::commit().of_group("g").error(ErrorKind::StorageFull));
    let (mut consumer, mut other) =
        (member(&broker), broker.consumer("h").subscribe(["t"]).open().unwrap());
    assert_eq!(poll(&mut other).unwrap(), 1);
    other.commit().unwrap();
    assert!(matches!(poll(&mut consumer), Err(Error::Io { .. })));
    assert!(matches!(consumer.try_recv(), Err(Error::Io { .. })));
    assert_eq!(poll(&mut consumer).unwrap(), 1, "no position has changed");
    assert!(matches!(consumer.commit(), Err(Error::StorageFull { .. })));
    assert_eq!(consumer.committed(("t", 0)).unwrap(), None);
    consumer.commit().unwrap();
}

/// Auto mode commits at the same seam.
#[test]
fn a_commit_of_auto_mode_fails_too() {
    let broker = broker(1);
    send(&broker, 0).unwrap();
    let auto = CommitMode::Auto { every: MINUTE };
    let mut consumer = broker.consumer("g").subscribe(["t"]).commit(auto).open().unwrap();
    assert_eq!(poll(&mut consumer).unwrap(), 1);
    broker.faults().set(Fault::commit().on(("t", 0)));
    broker.advance(2 * MINUTE).unwrap();
    assert!(matches!(poll(&mut consumer), Err(Error::Io { .. })));
}

#[test]
fn an_opening_fails_and_the_machine_can_be_tried_again() {
    let broker = broker(1);
    broker.faults().set(Fault::open().error(ErrorKind::PermissionDenied));
    let failed = broker.crash().kill9();
    assert!(matches!(failed, Err(Error::Io { .. })), "{failed:?}");
}

#[test]
fn an_error_of_the_tests_own_is_returned_as_it_is() {
    let broker = broker(1);
    broker.faults().set(Fault::poll().with(Error::NoOffset(("t", 0).into())));
    assert!(matches!(poll(&mut member(&broker)), Err(Error::NoOffset(_))));
}

#[test]
fn a_full_disk_takes_no_record_and_everything_else() {
    let broker = broker(2);
    send(&broker, 0).unwrap();
    broker.faults().storage_full(true);
    broker.faults().storage_full(true);
    assert!(matches!(send(&broker, 0), Err(Error::StorageFull { .. })));
    assert!(matches!(send(&broker, 1), Err(Error::StorageFull { .. })));
    let mut consumer = member(&broker);
    assert_eq!(poll(&mut consumer).unwrap(), 1);
    consumer.commit().unwrap();
    broker.admin().delete_records(("t", 0), 1).unwrap();
    broker.faults().storage_full(false);
    send(&broker, 0).unwrap();
}

/// The clock moves by the delay, and no thread waits.
#[test]
fn a_slow_disk_takes_time_on_the_clock_of_the_test() {
    let broker = broker(1);
    let before = broker.clock().monotonic();
    let slow = broker.faults().set(Fault::sync().takes(10 * MINUTE).until_lifted());
    send(&broker, 0).unwrap();
    send(&broker, 0).unwrap();
    broker.faults().lift(slow);
    send(&broker, 0).unwrap();
    assert_eq!(broker.clock().monotonic(), before + 20 * MINUTE);
}

#[test]
fn a_delay_in_real_time_is_one() {
    const DELAY: Duration = Duration::from_millis(20);
    let broker = broker(1);
    let before = broker.clock().monotonic();
    broker.faults().delay_append(("t", 0), DELAY);
    let begun = SystemClock.monotonic();
    send(&broker, 0).unwrap();
    assert!(SystemClock.monotonic() >= begun + DELAY);
    assert_eq!(broker.clock().monotonic(), before);
}

#[test]
fn a_fenced_producer_cannot_send() {
    let broker = broker(1);
    let producer = broker.producer_builder().id("p").build().unwrap();
    producer.send(Record::to("t").value("v")).unwrap();
    broker.faults().fence_producer("p");
    let refused = producer.send(Record::to("t").value("v"));
    assert!(matches!(refused, Err(Error::Fenced { .. })), "{refused:?}");
}

/// Its commit fails, it hears of the loss at its next poll, and reads the records again.
#[test]
fn an_evicted_member_loses_its_partitions_and_joins_again() {
    let broker = broker(1);
    send(&broker, 0).unwrap();
    let mut consumer = member(&broker);
    assert_eq!(poll(&mut consumer).unwrap(), 1);
    broker.faults().evict("g");
    assert!(matches!(consumer.commit(), Err(Error::Rebalanced { .. })));
    assert_eq!(poll(&mut consumer).unwrap(), 1);
    consumer.commit().unwrap();
}

/// Each member gives up everything, can commit in its callback, and gets its share again.
#[test]
fn a_forced_rebalance_revokes_all_partitions_and_divides_them_again() {
    use std::sync::mpsc;
    let broker = broker(4);
    for partition in 0..4 {
        send(&broker, partition).unwrap();
    }
    let (heard, answers) = mpsc::channel();
    let open = |name: &'static str| {
        let heard = heard.clone();
        let on_rebalance = move |change: logpond::Rebalance<'_>,
                                 commits: &mut logpond::Commits<'_>| {
            if let logpond::Rebalance::Revoked(partitions) = change {
                let offsets =
                    partitions.iter().map(|it| (it.clone(), commits.position(it).unwrap()));
                commits.commit(&offsets.collect()).unwrap();
                heard.send((name, partitions.len())).unwrap();
            }
        };
        broker.consumer("g").subscribe(["t"]).on_rebalance(on_rebalance).open().unwrap()
    };
    let mut members = [open("a"), open("b")];
    let round =
        |members: &mut [Consumer]| members.iter_mut().map(|it| poll(it).unwrap()).sum::<usize>();
    let read: usize = (0..4).map(|_| round(&mut members)).sum();
    assert!(read >= 4, "both have their share now");
    while answers.try_recv().is_ok() {}
    broker.faults().rebalance("g");
    let read: usize = (0..4).map(|_| round(&mut members)).sum();
    assert_eq!(read, 0, "each has committed what it had read");
    let mut revoked: Vec<_> = answers.try_iter().collect();
    revoked.sort_unstable();
    assert_eq!(revoked, [("a", 2), ("b", 2)]);
    let shares = members.each_ref().map(|member| member.assignment().len());
    assert_eq!(shares, [2, 2]);
}

// ---- faults that were never met ------------------------------------------------------------------

#[test]
#[should_panic(
    expected = "faults that were set and never met: [append on t-0 fails with StorageFull, once]"
)]
fn a_fault_that_was_never_met_fails_the_test() {
    let broker = broker(1);
    broker.faults().fail_next_append(("t", 0), ErrorKind::StorageFull);
}

/// A second panic would abort the process.
#[test]
#[should_panic(expected = "the first")]
fn a_test_that_fails_already_is_not_hidden() {
    let broker = broker(1);
    broker.faults().fail_next_append(("t", 0), ErrorKind::StorageFull);
    panic!("the first");
}

#[test]
fn finish_returns_the_faults_that_were_never_met() {
    let broker = broker(2);
    broker.faults().fail_next_append(("t", 0), ErrorKind::StorageFull);
    broker.faults().set(Fault::commit().of_group("g").after(2).until_lifted());
    broker.faults().set(Fault::append().on(("t", 1)).of_producer("p").takes(MINUTE).times(3));
    assert!(send(&broker, 0).is_err());
    let unmet = broker.finish().unwrap_err();
    let shown: Vec<_> = unmet.faults.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "commit of group \"g\" fails with Other, after 2 calls until lifted",
            "append on t-1 of producer \"p\" takes 60s, 3 times",
        ]
    );
    TestBroker::new().finish().unwrap();
}

#[test]
#[should_panic(expected = "never met: [sync on t-0 fails with Other, once]")]
fn a_fault_outlives_a_crash_and_a_lift() {
    let broker = broker(1);
    let fault = broker.faults().set(Fault::sync().on(("t", 0)));
    let broker = broker.crash().kill9().unwrap();
    broker.faults().lift(fault);
    send(&broker, 0).unwrap();
}

#[test]
fn a_fault_of_the_run_before_is_met_in_the_next() {
    let broker = TestBroker::with(|settings| settings.durability(Durability::Os));
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    broker.faults().fail_next_append(("t", 0), ErrorKind::Other);
    let broker = broker.crash().kill9().unwrap();
    assert!(send(&broker, 0).is_err());
}

/// A fault of all syncs is one of the topics': the internal logs are the engine's own.
#[test]
fn a_fault_of_no_partition_leaves_the_internal_logs_alone() {
    let broker = broker(1);
    let fault = broker.faults().set(Fault::sync());
    broker.ensure_topic("u", TopicConfig::new(1)).unwrap();
    let producer = broker.producer_builder().id("p").build().unwrap();
    assert_eq!(broker.faults().met(fault), 0);
    let failed = producer.send(Record::to("u").value("v"));
    assert!(matches!(failed, Err(Error::SyncFailed { .. })), "{failed:?}");
}

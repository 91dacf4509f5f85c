//! Five services, each with a test that shows what it promises, and with a twin that lacks what the
//! promise needs. The test passes for the service and fails for its twin: so it is a test.
//!
//! ```sh
//! cargo run --features testing --example test_double
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use std::cell::Cell;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use logpond::testing::{ErrorKind, Fault, TestBroker, at_every_crash};
use logpond::{Broker, Commits, Durability, Rebalance, Record, Result, TopicConfig};

fn main() -> Result<()> {
    let services: [(&str, Check); 5] = [
        ("an order is taken once, also if its answer is lost", takes_orders_once),
        ("no acknowledged order is lost, whenever the power fails", keeps_orders),
        ("no order is packed twice when a worker hands over", packs_once),
        ("records that retention removed unread are reported", reports_what_it_missed),
        ("a mail is not done before it is sent", sends_every_mail),
    ];
    for (promise, test) in services {
        assert!(test(Service::Whole)?, "{promise}");
        assert!(!test(Service::Twin)?, "the test does not notice what the twin lacks: {promise}");
        println!("{promise}: shown, and missed where the service lacks what it needs");
    }
    Ok(())
}

/// Says whether a service keeps its promise.
type Check = fn(Service) -> Result<bool>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Service {
    Whole,
    /// Without what its promise needs.
    Twin,
}

fn broker_with(topic: &str, config: TopicConfig) -> TestBroker {
    let broker = TestBroker::new();
    match broker.ensure_topic(topic, config) {
        Ok(_) => broker,
        Err(error) => panic!("{topic}: {error}"),
    }
}

// ---- a service that retries --------------------------------------------------------------------

/// Takes an order. After an error it tries again, under the number of the order: so an order that
/// was stored although the answer was an error is not stored twice. The twin numbers nothing.
fn take_order(service: Service, broker: &Broker, number: u64, order: &str) -> Result<()> {
    let producer = broker.producer_builder().id("shop").build()?;
    let record = || Record::to("orders").partition(0).value(order);
    let send = || match service {
        Service::Whole => producer.send_sequenced(number, record()).map(drop),
        Service::Twin => producer.send(record()).map(drop),
    };
    let mut answer = send();
    for _ in 0..3 {
        if answer.is_ok() {
            break;
        }
        answer = send();
    }
    answer
}

fn takes_orders_once(service: Service) -> Result<bool> {
    let broker = broker_with("orders", TopicConfig::new(1));
    broker.faults().set(Fault::append().on(("orders", 0)).error(ErrorKind::TimedOut));
    broker.faults().set(Fault::append().on(("orders", 0)).stored_but_unknown());
    take_order(service, &broker, 1, "2 apples")?;
    Ok(broker.produced("orders").len() == 1)
}

// ---- one that must not lose on a crash at any point ---------------------------------------------

/// Takes orders until one fails, and says how many the customers were promised. The twin promises
/// before the disk has them.
fn take_orders(service: Service, broker: &Broker) -> usize {
    let level = match service {
        Service::Whole => Durability::Sync,
        Service::Twin => Durability::Os,
    };
    let producer = broker.producer_builder().durability(level).build();
    let Ok(producer) = producer else { return 0 };
    let take = || producer.send(Record::to("orders").key("user-7").value("1 pear"));
    (0..4).take_while(|_| take().is_ok()).count()
}

#[expect(clippy::unnecessary_wraps, reason = "all five tests have one signature")]
fn keeps_orders(service: Service) -> Result<bool> {
    let has_lost = Cell::new(false);
    at_every_crash(
        || broker_with("orders", TopicConfig::new(1)),
        |broker| take_orders(service, broker),
        |promised, broker| {
            if broker.produced("orders").len() < promised {
                has_lost.set(true);
            }
        },
    );
    Ok(!has_lost.get())
}

// ---- one that rebalances -------------------------------------------------------------------------

/// A worker packs what it gets, and commits what it has packed when it has to hand partitions over.
/// The twin commits only at the end of the day.
fn open_worker(
    service: Service,
    broker: &Broker,
    packed: &Arc<Mutex<Vec<u64>>>,
) -> Result<impl FnMut() -> Result<()>> {
    let on_rebalance = move |change: Rebalance<'_>, commits: &mut Commits<'_>| {
        let Rebalance::Revoked(partitions) = change else { return };
        if service == Service::Twin {
            return;
        }
        let position = |it: &logpond::TopicPartition| Some((it.clone(), commits.position(it)?));
        let offsets = partitions.iter().filter_map(position).collect();
        if let Err(error) = commits.commit(&offsets) {
            println!("what is packed will be packed again: {error}");
        }
    };
    let worker = broker.consumer("packers").subscribe(["orders"]).on_rebalance(on_rebalance);
    let (mut worker, packed) = (worker.open()?, Arc::clone(packed));
    Ok(move || {
        for order in worker.poll(Duration::ZERO)?.iter() {
            let mut packed = packed.lock().unwrap_or_else(PoisonError::into_inner);
            packed.push(u64::from(order.partition()) << 32 | order.offset());
        }
        Ok(())
    })
}

fn packs_once(service: Service) -> Result<bool> {
    let broker = broker_with("orders", TopicConfig::new(4));
    for number in 0..40 {
        broker.producer().send(Record::to("orders").partition(number % 4).value("2 apples"))?;
    }
    let packed = Arc::default();
    let mut workers =
        [open_worker(service, &broker, &packed)?, open_worker(service, &broker, &packed)?];
    for round in 0..6 {
        if round == 3 {
            broker.faults().rebalance("packers");
        }
        for worker in &mut workers {
            worker()?;
        }
    }
    let mut packed = packed.lock().unwrap_or_else(PoisonError::into_inner);
    packed.sort_unstable();
    let count = packed.len();
    packed.dedup();
    Ok(count == 40 && packed.len() == 40)
}

// ---- one whose retention passes -------------------------------------------------------------------

/// Reads the clicks of the last days, and says how many it has missed. The twin does not ask.
fn count_missed(service: Service, broker: &Broker) -> Result<u64> {
    let mut reader = broker.consumer("statistics").subscribe(["clicks"]).open()?;
    reader.poll(Duration::ZERO)?;
    let gaps = match service {
        Service::Whole => reader.take_gaps(),
        Service::Twin => Vec::new(),
    };
    reader.commit()?;
    Ok(gaps.iter().map(|gap| gap.missed.end - gap.missed.start).sum())
}

fn reports_what_it_missed(service: Service) -> Result<bool> {
    let day = Duration::from_secs(24 * 60 * 60);
    let broker = broker_with("clicks", TopicConfig::new(1).retention(7 * day));
    let click = || broker.producer().send(Record::to("clicks").value("up"));
    click()?;
    let before = count_missed(service, &broker)?;
    click()?;
    click()?;
    broker.advance(8 * day)?; // a week of holidays, in no time
    click()?;
    Ok((before, count_missed(service, &broker)?) == (0, 2))
}

// ---- one that must not commit before its side effect -----------------------------------------------

/// Sends the mails that wait. The twin commits first.
fn send_mails(
    service: Service,
    broker: &Broker,
    mut send: impl FnMut(&[u8]) -> std::result::Result<(), &'static str>,
) -> Result<()> {
    let mut inbox = broker.consumer("mailer").subscribe(["emails"]).open()?;
    let mails = inbox.poll(Duration::ZERO)?;
    if service == Service::Twin {
        inbox.commit()?;
    }
    for mail in &mails {
        if send(mail.value().unwrap_or_default()).is_err() {
            return Ok(()); // the next run sends it
        }
    }
    inbox.commit()
}

fn sends_every_mail(service: Service) -> Result<bool> {
    let broker = broker_with("emails", TopicConfig::new(1));
    broker.producer().send(Record::to("emails").key("user-7").value("welcome!"))?;
    // The mail server refuses, and the process dies.
    send_mails(service, &broker, |_| Err("try later"))?;
    let broker = broker.crash().kill9()?;
    let mut sent = Vec::new();
    send_mails(service, &broker, |mail| {
        sent.push(mail.to_vec());
        Ok(())
    })?;
    Ok(sent == [b"welcome!".to_vec()])
}

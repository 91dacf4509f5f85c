//! A piece of work, crashed at every moment at which it changes the disk.
//!
//! Owns: which crashes are tried. Must not know: what the work does, and what has to hold after it.

use super::broker::{CrashedBroker, TestBroker};
use crate::broker::Broker;
use crate::error::Result;

/// LIMIT: how many power cuts are tried at each moment, beside the worst one. Each has another seed
/// at each moment.
const CUTS: u64 = 2;

/// How a run ends.
#[derive(Debug, Clone, Copy)]
enum Crash {
    Kill9,
    LosesUnsynced,
    PowerCut(u64),
}

impl Crash {
    fn open(self, broker: CrashedBroker) -> Result<TestBroker> {
        match self {
            Self::Kill9 => broker.kill9(),
            Self::LosesUnsynced => broker.lose_unsynced(),
            Self::PowerCut(seed) => broker.power_cut(seed),
        }
    }
}

/// Runs a piece of work on new brokers again and again, and lets each crash at another moment: once
/// at every change of the disk that the work makes, and once after it. At each moment it tries the
/// death of the process, the loss of everything that was not synced, and other power cuts. Returns
/// how many crashes it tried.
///
/// `setup` makes a broker; its changes are not counted. `work` is the code under test: from the
/// crash on its calls fail, and it returns what it believes to have done. `check` gets that, and the
/// broker after the crash; when it panics, the number of the change and the kind of the crash are
/// printed, so that the case can be found again with
/// [`TestBroker::stop_disk_after`](super::TestBroker::stop_disk_after).
///
/// ```
/// use logpond::testing::{TestBroker, at_every_crash};
/// use logpond::{Broker, Record, TopicConfig};
///
/// let setup = || {
///     let broker = TestBroker::new();
///     broker.ensure_topic("orders", TopicConfig::new(1)).unwrap();
///     broker
/// };
/// // The code under test: how many orders it has acknowledged.
/// let take_orders = |broker: &Broker| {
///     let take = || broker.producer().send(Record::to("orders").value("2 apples"));
///     (0..3).take_while(|_| take().is_ok()).count()
/// };
/// let crashes = at_every_crash(setup, take_orders, |acknowledged, broker| {
///     assert!(broker.produced("orders").len() >= acknowledged);
/// });
/// assert!(crashes > 10);
/// ```
///
/// # Panics
///
/// If `check` does, or if the broker does not open after a crash.
#[track_caller]
pub fn at_every_crash<T>(
    setup: impl Fn() -> TestBroker,
    work: impl Fn(&Broker) -> T,
    check: impl Fn(T, TestBroker),
) -> u64 {
    let mut tried = 0;
    for point in 0.. {
        let cuts = (0..CUTS).map(|cut| Crash::PowerCut(point * CUTS + cut));
        let mut is_complete = false;
        for crash in [Crash::Kill9, Crash::LosesUnsynced].into_iter().chain(cuts) {
            let broker = setup();
            broker.stop_disk_after(point);
            let done = work(&broker);
            is_complete = !broker.has_stopped();
            let case = Case { point, crash };
            match crash.open(broker.crash()) {
                Ok(broker) => check(done, broker),
                Err(error) => panic!("the broker does not open after the crash: {error}"),
            }
            drop(case);
            tried += 1;
        }
        if is_complete {
            break;
        }
    }
    tried
}

/// Says which case it was when a check panics.
struct Case {
    point: u64,
    crash: Crash,
}

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("crash after change {} of the disk: {:?}", self.point, self.crash);
        }
    }
}

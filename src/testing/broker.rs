//! The broker of a test, and what a crash leaves of it.
//!
//! Owns: the handle of the present run. Must not know: how a disk loses what was not synced.

use std::ops::Deref;
use std::time::Duration;

use super::faults::{Faults, UnmetFaults};
use super::machine::Machine;
use crate::broker::{Broker, BrokerBuilder};
use crate::clock::{Clock, ManualClock};
use crate::error::Result;
use crate::message::Message;
use crate::seams::Call;

/// LIMIT: how many steps [`TestBroker::run_until`] takes at most: so small that deadlines are met
/// one by one, and few enough for a test.
const STEPS: u32 = 200;

/// A broker for tests: the engine on a simulated disk, at a time that the test sets, without
/// background threads.
///
/// It dereferences to a [`Broker`], so that `&broker` goes wherever the code under test takes a
/// `&Broker`, and `broker.clone()` wherever it takes a `Broker`. When it and all handles are
/// dropped, nothing remains.
///
/// The clock begins at 2024-01-01T00:00:00Z and stands still until the test moves it; everything
/// that the broker does at a time of its own (retention, eviction, auto-commit, intervals) is done
/// by [`tick`](Broker::tick). [`advance`](Self::advance) does both. Timeouts of blocking calls are
/// real time. With one thread everything is the same in every run: offsets, timestamps, partitions,
/// assignments, ids and errors.
///
/// ```
/// use logpond::testing::TestBroker;
/// use logpond::{Record, TopicConfig};
///
/// let broker = TestBroker::new();
/// broker.ensure_topic("emails", TopicConfig::new(1))?;
/// broker.producer().send(Record::to("emails").key("user-7").value("welcome!"))?;
/// assert_eq!(broker.produced("emails")[0].value(), Some(&b"welcome!"[..]));
/// # Ok::<(), logpond::Error>(())
/// ```
#[derive(Debug)]
pub struct TestBroker {
    broker: Broker,
    faults: Faults,
    machine: Machine,
}

impl TestBroker {
    /// Opens an empty broker with the default settings, on a simulated disk in memory.
    ///
    /// # Panics
    ///
    /// If it cannot be opened, which is a bug of this crate.
    #[must_use]
    #[track_caller]
    pub fn new() -> Self {
        Self::with(|settings| settings)
    }

    /// The same as [`new`](Self::new), which uses no files either.
    ///
    /// # Panics
    ///
    /// If it cannot be opened, which is a bug of this crate.
    #[must_use]
    #[track_caller]
    pub fn in_memory() -> Self {
        Self::new()
    }

    /// Opens an empty broker with other settings, which are used again after each
    /// [`crash`](Self::crash). The data directory, the clock and the background threads are always
    /// those of a test broker.
    ///
    /// ```
    /// use logpond::testing::TestBroker;
    /// use logpond::{Durability, Record, TopicConfig};
    ///
    /// let broker = TestBroker::with(|settings| settings.durability(Durability::Os));
    /// broker.ensure_topic("clicks", TopicConfig::new(1))?;
    /// broker.producer().send(Record::to("clicks").value("up"))?; // not synced
    /// let broker = broker.crash().kill9()?;
    /// assert_eq!(broker.produced("clicks").len(), 1); // survives the death of the process
    /// # Ok::<(), logpond::Error>(())
    /// ```
    ///
    /// # Panics
    ///
    /// If the settings are refused.
    #[must_use]
    #[track_caller]
    pub fn with(settings: impl Fn(BrokerBuilder) -> BrokerBuilder + Send + Sync + 'static) -> Self {
        match Self::on(Machine::new(settings)) {
            Ok(broker) => broker,
            Err(error) => panic!("a test broker could not be opened: {error}"),
        }
    }

    fn on(machine: Machine) -> Result<Self> {
        let broker = machine.open()?;
        Ok(Self { faults: Faults::new(&broker, machine.script()), broker, machine })
    }

    /// Returns what makes calls fail.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Returns the clock, which only the test moves.
    #[must_use]
    pub fn clock(&self) -> &ManualClock {
        &self.machine.clock
    }

    /// Moves the clock, and does the work that is due then: [`ManualClock::advance`], then
    /// [`Broker::tick`].
    ///
    /// # Errors
    ///
    /// Those of [`Broker::tick`].
    pub fn advance(&self, by: Duration) -> Result<()> {
        self.clock().advance(by);
        self.tick()
    }

    /// Moves the clock in small steps, each followed by a [`tick`](Broker::tick), until a condition
    /// is true, but at most by `bound`. Returns whether it became true. An error of a tick, for
    /// example of a fault that the test has set, does not end it.
    ///
    /// ```
    /// use logpond::testing::TestBroker;
    /// use logpond::{Record, TopicConfig};
    /// use std::time::Duration;
    ///
    /// let broker = TestBroker::new();
    /// let hour = Duration::from_secs(3600);
    /// broker.ensure_topic("clicks", TopicConfig::new(1).retention(hour))?;
    /// broker.producer().send(Record::to("clicks").value("up"))?;
    /// assert!(broker.run_until(|broker| broker.produced("clicks").is_empty(), 2 * hour));
    /// # Ok::<(), logpond::Error>(())
    /// ```
    #[must_use = "the condition may never have been true"]
    pub fn run_until(&self, mut condition: impl FnMut(&Self) -> bool, bound: Duration) -> bool {
        let end = self.clock().monotonic().saturating_add(bound);
        let step = (bound / STEPS).max(Duration::from_millis(1));
        loop {
            if condition(self) {
                return true;
            }
            let left = end.saturating_sub(self.clock().monotonic());
            if left.is_zero() {
                return false;
            }
            let _ = self.advance(step.min(left));
        }
    }

    /// Returns the records of a topic, by partition and then by offset: all that retention and
    /// compaction have not removed.
    ///
    /// # Panics
    ///
    /// If there is no such topic, or if a record cannot be read.
    #[must_use]
    #[track_caller]
    pub fn produced(&self, topic: &str) -> Vec<Message> {
        match read_all(self, topic) {
            Ok(messages) => messages,
            Err(error) => panic!("the records of topic {topic:?} cannot be read: {error}"),
        }
    }

    /// Returns the calls that were made since the broker was first opened, in their order: sends with
    /// their answers, polls, commits and rebalances. It outlives a [`crash`](Self::crash).
    ///
    /// ```
    /// use logpond::testing::TestBroker;
    /// use logpond::{Record, TopicConfig};
    /// use std::time::Duration;
    ///
    /// let broker = TestBroker::new();
    /// broker.ensure_topic("emails", TopicConfig::new(1))?;
    /// broker.producer().send(Record::to("emails").value("welcome!"))?;
    /// let mut inbox = broker.consumer("mailer").subscribe(["emails"]).open()?;
    /// inbox.poll(Duration::ZERO)?;
    /// inbox.commit()?;
    ///
    /// let calls: Vec<String> = broker.calls().iter().map(ToString::to_string).collect();
    /// assert_eq!(calls, [
    ///     "send to emails-0: offset 0",
    ///     "rebalance of mailer: Assigned emails-0",
    ///     "poll of mailer: emails-0 offset 0",
    ///     "commit of mailer: emails-0 next 1",
    /// ]);
    /// # Ok::<(), logpond::Error>(())
    /// ```
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.machine.script().calls()
    }

    /// Forgets the calls that were made so far.
    pub fn forget_calls(&self) {
        self.machine.script().forget_calls();
    }

    /// Ends the run as a crash does: nothing more reaches the disk. Calls of the handles that other
    /// code still has return [`Error::Closed`](crate::Error::Closed).
    pub fn crash(self) -> CrashedBroker {
        let Self { broker, machine, .. } = self;
        machine.stop();
        broker.run().abandon();
        CrashedBroker { machine }
    }

    /// Ends the test broker, and returns the faults that were set and that no call has met. Without
    /// this call the drop panics where there are any.
    ///
    /// ```
    /// use logpond::testing::TestBroker;
    /// use logpond::TopicConfig;
    ///
    /// let broker = TestBroker::new();
    /// broker.ensure_topic("orders", TopicConfig::new(1))?;
    /// broker.faults().fail_next_sync(("orders", 0));
    /// assert_eq!(broker.finish().unwrap_err().faults.len(), 1); // nothing was sent
    /// # Ok::<(), logpond::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`UnmetFaults`] lists them.
    pub fn finish(self) -> std::result::Result<(), UnmetFaults> {
        self.machine.check()
    }
}

impl Default for TestBroker {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for TestBroker {
    type Target = Broker;

    fn deref(&self) -> &Broker {
        &self.broker
    }
}

/// The records of a topic from the log start of each partition to what a consumer sees.
fn read_all(broker: &Broker, topic: &str) -> Result<Vec<Message>> {
    let mut messages = Vec::new();
    for partition in broker.topic(topic)?.iter() {
        let mut next = partition.log_start_offset();
        loop {
            let batch = partition.read(next, usize::MAX)?;
            let Some(last) = batch.iter().last() else { break };
            next = last.next_offset();
            messages.extend(batch);
        }
    }
    Ok(messages)
}

/// A broker after a crash, to be opened again.
///
/// ```
/// use logpond::testing::TestBroker;
/// use logpond::{Error, Record, TopicConfig};
///
/// let broker = TestBroker::new();
/// broker.ensure_topic("orders", TopicConfig::new(1))?;
/// let producer = broker.producer();
/// producer.send(Record::to("orders").value("2 apples"))?;
/// drop(producer.enqueue(Record::to("orders").value("1 pear"))?); // nobody waits for its sync
///
/// let broker = broker.crash().power_cut(7)?;
/// assert!(matches!(producer.flush(), Err(Error::Closed)));
/// let orders = broker.produced("orders");
/// assert_eq!(orders[0].value(), Some(&b"2 apples"[..])); // was acknowledged
/// assert!(orders.len() <= 2); // the other record may be there or not
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug)]
#[must_use = "open it again with `kill9` or `power_cut`"]
pub struct CrashedBroker {
    machine: Machine,
}

impl CrashedBroker {
    /// Opens the broker again as after the death of its process: everything that was published is
    /// there.
    ///
    /// # Errors
    ///
    /// Those of [`BrokerBuilder::open`]: with
    /// [`RecoveryPolicy::Strict`](crate::RecoveryPolicy::Strict) a torn tail is one.
    pub fn kill9(self) -> Result<TestBroker> {
        TestBroker::on(self.machine.after_kill9())
    }

    /// Opens the broker again as after a power cut. Everything that was synced is there. The seed
    /// decides which of the other pages, names and lengths of files survived, in which version, and
    /// whether pages are torn at 512 bytes; one seed has one outcome. Try a few hundred.
    ///
    /// # Errors
    ///
    /// Those of [`BrokerBuilder::open`]: with
    /// [`RecoveryPolicy::Strict`](crate::RecoveryPolicy::Strict) a torn tail is one.
    pub fn power_cut(self, seed: u64) -> Result<TestBroker> {
        TestBroker::on(self.machine.after_power_cut(seed))
    }

    /// Opens the broker again as after a power cut that has taken everything that was not synced.
    ///
    /// # Errors
    ///
    /// Those of [`BrokerBuilder::open`].
    pub fn lose_unsynced(self) -> Result<TestBroker> {
        TestBroker::on(self.machine.after_worst_cut())
    }
}

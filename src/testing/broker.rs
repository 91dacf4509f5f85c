//! The broker of a test, and what a crash leaves of it.
//!
//! Owns: the handle of the present run. Must not know: how a disk loses what was not synced.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::time::Duration;

use super::faults::{Faults, UnmetFaults};
use super::machine::Machine;
use super::show;
use crate::admin::GroupOffset;
use crate::broker::{Broker, BrokerBuilder};
use crate::clock::{Clock, ManualClock};
use crate::error::Result;
use crate::message::Message;
use crate::record::{Offsets, TopicPartition};
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

    pub(super) fn on(machine: Machine) -> Result<Self> {
        let broker = machine.open()?;
        let faults = Faults::new(&broker, machine.script(), machine.disk());
        Ok(Self { broker, faults, machine })
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
        self.machine.script().pass(by);
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

    /// Waits in real time until a condition is true: for other threads of the test, which no clock
    /// moves.
    ///
    /// ```
    /// use logpond::testing::TestBroker;
    /// use logpond::{Record, TopicConfig};
    /// use std::time::Duration;
    ///
    /// let broker = TestBroker::new();
    /// broker.ensure_topic("orders", TopicConfig::new(1))?;
    /// let shop = broker.producer();
    /// let thread = std::thread::spawn(move || shop.send(Record::to("orders").value("2 apples")));
    /// let has_order = |broker: &TestBroker| broker.produced("orders").len() == 1;
    /// broker.wait_for("an order", Duration::from_secs(10), has_order);
    /// thread.join().unwrap()?;
    /// # Ok::<(), logpond::Error>(())
    /// ```
    ///
    /// # Panics
    ///
    /// If it is not true within `bound`. The message has `what` and the calls that were made.
    #[track_caller]
    pub fn wait_for(&self, what: &str, bound: Duration, mut condition: impl FnMut(&Self) -> bool) {
        if !self.machine.script().wait_for(bound, || condition(self)) {
            let calls: Vec<_> = self.calls().iter().map(ToString::to_string).collect();
            panic!("waited {bound:?} for {what}; the calls were:\n  {}", calls.join("\n  "));
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

    /// Returns the records of a topic with this key, by partition and then by offset.
    ///
    /// # Panics
    ///
    /// If there is no such topic, or if a record cannot be read.
    #[must_use]
    #[track_caller]
    pub fn produced_with_key(&self, topic: &str, key: impl AsRef<[u8]>) -> Vec<Message> {
        let mut messages = self.produced(topic);
        messages.retain(|message| message.key() == Some(key.as_ref()));
        messages
    }

    /// Returns the committed offsets of a group: of each partition the next one to read. Empty for
    /// a group that there is not.
    #[must_use]
    pub fn committed(&self, group: &str) -> Offsets {
        let offsets = self.offsets_of(group).into_iter();
        offsets.filter_map(|it| Some((it.partition, it.committed?))).collect()
    }

    /// Returns how many records a group has yet to read of each partition, counted from its commits,
    /// or from the log start where it has none. Empty for a group that there is not.
    #[must_use]
    pub fn lag(&self, group: &str) -> BTreeMap<TopicPartition, u64> {
        self.offsets_of(group).into_iter().map(|it| (it.partition, it.lag)).collect()
    }

    fn offsets_of(&self, group: &str) -> Vec<GroupOffset> {
        self.admin().describe_group(group).map(|it| it.offsets).unwrap_or_default()
    }

    /// Returns the log of a topic as text, one record per line: offset, key, value and headers, as
    /// text where they are text, and in hexadecimal elsewhere.
    ///
    /// ```
    /// use logpond::testing::TestBroker;
    /// use logpond::{Record, TopicConfig};
    ///
    /// let broker = TestBroker::new();
    /// broker.ensure_topic("orders", TopicConfig::new(1))?;
    /// let trace = [7, 255];
    /// let order = Record::to("orders").key("user-7").value("2 apples").header("trace", &trace);
    /// broker.producer().send(order)?;
    /// assert_eq!(
    ///     broker.show("orders"),
    ///     "orders-0: offsets from 0, next 1\n  \
    ///        0  key \"user-7\"  value \"2 apples\"  trace: 0x07ff\n"
    /// );
    /// # Ok::<(), logpond::Error>(())
    /// ```
    ///
    /// # Panics
    ///
    /// If there is no such topic, or if a record cannot be read.
    #[must_use]
    #[track_caller]
    pub fn show(&self, topic: &str) -> String {
        let messages = self.produced(topic);
        match self.topic(topic) {
            Ok(topic) => show::Log { topic: &topic, messages: &messages }.to_string(),
            Err(error) => panic!("topic {topic:?} cannot be shown: {error}"),
        }
    }

    /// Asserts that the records of a topic have these values, by partition and then by offset.
    ///
    /// # Panics
    ///
    /// If they do not; the message shows the log.
    #[track_caller]
    pub fn assert_produced<V: AsRef<[u8]>>(
        &self,
        topic: &str,
        values: impl IntoIterator<Item = V>,
    ) {
        let produced = self.produced(topic);
        let expected: Vec<V> = values.into_iter().collect();
        let expected: Vec<Option<&[u8]>> = expected.iter().map(|it| Some(it.as_ref())).collect();
        if !produced.iter().map(Message::value).eq(expected.iter().copied()) {
            let expected: Vec<_> =
                expected.into_iter().flatten().map(|it| show::Data(it).to_string()).collect();
            panic!("expected the values {}; the log is\n{}", expected.join(", "), self.show(topic));
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

    /// Lets this many more changes reach the disk; from then on every call that needs it fails, as if
    /// the power failed at that moment. [`crash`](Self::crash) it then.
    /// [`at_every_crash`](super::at_every_crash) tries all moments.
    pub fn stop_disk_after(&self, changes: u64) {
        self.machine.stop_after(changes);
    }

    /// Returns whether the disk has stopped, because of [`stop_disk_after`](Self::stop_disk_after).
    #[must_use]
    pub fn has_stopped(&self) -> bool {
        self.machine.has_stopped()
    }

    /// Ends the run as a crash does: nothing more reaches the disk. Calls of the handles that other
    /// code still has return [`Error::Closed`](crate::Error::Closed).
    pub fn crash(self) -> CrashedBroker {
        CrashedBroker { machine: self.end() }
    }

    /// Ends the run as a crash does, and returns what that does not take.
    pub(super) fn end(&self) -> Machine {
        self.machine.stop();
        self.broker.run().abandon();
        self.machine.clone()
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

    /// Opens the broker again as after a power cut that has taken what was not synced of one
    /// partition, and nothing else. If a group had committed those records, its next poll returns
    /// [`Error::Truncated`](crate::Error::Truncated). At [`Durability::Sync`](crate::Durability::Sync) all
    /// acknowledged records were synced, and are not taken.
    ///
    /// ```
    /// use logpond::testing::TestBroker;
    /// use logpond::{Durability, Error, Record, TopicConfig};
    /// use std::time::Duration;
    ///
    /// let broker = TestBroker::with(|settings| settings.durability(Durability::Os));
    /// broker.ensure_topic("clicks", TopicConfig::new(1))?;
    /// broker.producer().send(Record::to("clicks").value("up"))?;
    /// let open = |broker: &TestBroker| broker.consumer("g").subscribe(["clicks"]).open();
    /// let mut counter = open(&broker)?;
    /// counter.poll(Duration::ZERO)?;
    /// counter.commit()?;
    ///
    /// let broker = broker.crash().lose_tail(("clicks", 0))?;
    /// let lost = open(&broker)?.poll(Duration::ZERO);
    /// assert!(matches!(lost, Err(Error::Truncated { committed: 1, end: 0, .. })));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`BrokerBuilder::open`].
    pub fn lose_tail(self, partition: impl Into<TopicPartition>) -> Result<TestBroker> {
        TestBroker::on(self.machine.after_lost_tail(&partition.into()))
    }
}

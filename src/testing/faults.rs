//! What a test does to its broker: faults at the next calls, and events that happen at once.
//!
//! Owns: the public handle. Must not know: how a call meets a fault; the seams do.

use std::fmt;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use super::damage;
use crate::broker::Broker;
use crate::record::TopicPartition;
use crate::seams::{Fault, FaultId, Script};
use crate::storage::disk::SimulatedDisk;
use crate::sync::{LockLevel, Mutex};

/// The faults of a [`TestBroker`](super::TestBroker); returned by
/// [`TestBroker::faults`](super::TestBroker::faults).
///
/// A fault that was set and that no call has met is an error of the test: when the test broker is
/// dropped it panics and names such faults, unless the thread is panicking already.
/// [`TestBroker::finish`](super::TestBroker::finish) returns them instead. Faults outlive a
/// [`crash`](super::TestBroker::crash).
///
/// ```
/// use logpond::testing::{ErrorKind, TestBroker};
/// use logpond::{Error, Record, TopicConfig};
///
/// let broker = TestBroker::new();
/// broker.ensure_topic("charges", TopicConfig::new(1))?;
/// broker.faults().fail_next_append(("charges", 0), ErrorKind::StorageFull);
/// let charge = || broker.producer().send(Record::to("charges").value("4.99"));
/// assert!(matches!(charge(), Err(Error::StorageFull { .. })));
/// charge()?;
/// # Ok::<(), Error>(())
/// ```
pub struct Faults {
    broker: Broker,
    script: Arc<Script>,
    disk: SimulatedDisk,
    /// The fault that stands for a full disk.
    full: Mutex<Option<FaultId>>,
}

impl Faults {
    pub(super) fn new(broker: &Broker, script: &Arc<Script>, disk: &SimulatedDisk) -> Self {
        let full = Mutex::at_level(LockLevel::FullDisk, None);
        Self { broker: broker.clone(), script: Arc::clone(script), disk: disk.clone(), full }
    }

    // ---- at the next calls -------------------------------------------------------------------

    /// Sets a fault. Its id is for [`lift`](Self::lift) and [`met`](Self::met).
    pub fn set(&self, fault: Fault) -> FaultId {
        self.script.set(fault)
    }

    /// Ends a fault. If no call has met it, that is still an error of the test.
    pub fn lift(&self, fault: FaultId) {
        self.script.lift(fault);
    }

    /// Returns how many calls have met a fault.
    #[must_use]
    pub fn met(&self, fault: FaultId) -> usize {
        self.script.met(fault)
    }

    /// The next append to a partition fails with this kind of error, and appends nothing.
    pub fn fail_next_append(&self, partition: impl Into<TopicPartition>, kind: ErrorKind) {
        self.set(Fault::append().on(partition).error(kind));
    }

    /// The next sync of a partition fails. The caller gets
    /// [`Error::SyncFailed`](crate::Error::SyncFailed), the record may or may not be stored, and the
    /// partition takes no more appends until the broker is opened again.
    pub fn fail_next_sync(&self, partition: impl Into<TopicPartition>) {
        self.set(Fault::sync().on(partition));
    }

    /// The next append to a partition takes this long, in real time.
    pub fn delay_append(&self, partition: impl Into<TopicPartition>, time: Duration) {
        self.set(Fault::append().on(partition).takes_real_time(time));
    }

    /// Fills the disk, or frees it. On a full disk every append to a topic returns
    /// [`Error::StorageFull`](crate::Error::StorageFull); reads, commits and deletions work, as they
    /// do on a real one.
    pub fn storage_full(&self, is_full: bool) {
        let mut full = self.full.lock();
        match (is_full, full.take()) {
            (true, None) => {
                let fault = Fault::append().error(ErrorKind::StorageFull).until_lifted();
                *full = Some(self.set(fault));
            }
            (true, known) => *full = known,
            (false, Some(fault)) => self.lift(fault),
            (false, None) => {}
        }
    }

    // ---- at once -----------------------------------------------------------------------------

    /// Flips a bit of a record on the disk, as a medium does that loses a charge. The running broker
    /// has the record in memory and does not notice, except in
    /// [`Admin::verify`](crate::Admin::verify); after a crash it reads it from the disk. If records
    /// that were synced later follow it, it is reported as damage, and reading it returns
    /// [`Error::Corrupt`](crate::Error::Corrupt); otherwise it is cut off as a torn tail.
    ///
    /// ```
    /// use logpond::testing::TestBroker;
    /// use logpond::{Error, Record, TopicConfig};
    /// use std::time::Duration;
    ///
    /// let broker = TestBroker::new();
    /// broker.ensure_topic("orders", TopicConfig::new(1))?;
    /// for order in ["2 apples", "1 pear", "3 plums"] {
    ///     broker.producer().send(Record::to("orders").value(order))?;
    /// }
    /// broker.faults().corrupt_record(("orders", 0), 1);
    /// let broker = broker.crash().kill9()?;
    ///
    /// let mut reader = broker.reader().subscribe(["orders"]).open()?;
    /// assert_eq!(reader.poll(Duration::ZERO)?.len(), 1);
    /// assert!(matches!(reader.poll(Duration::ZERO), Err(Error::Corrupt(_))));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Panics
    ///
    /// If there is no such record.
    #[track_caller]
    pub fn corrupt_record(&self, partition: impl Into<TopicPartition>, offset: u64) {
        let partition = partition.into();
        if let Err(error) = damage::corrupt(&self.broker, &self.disk, &partition, offset) {
            panic!("record {offset} of {partition} cannot be corrupted: {error}");
        }
    }

    /// Makes a group hand over all of its partitions: each member gives up its own at its next
    /// poll, where its callback can commit, and gets its share when all have done so.
    ///
    /// # Panics
    ///
    /// If the group has no member.
    #[track_caller]
    pub fn rebalance(&self, group: &str) {
        if let Err(error) = self.broker.run().coordinator().hand_over_all(group) {
            panic!("group {group:?} cannot be rebalanced: {error}");
        }
    }

    /// Evicts all members of a group, as if they had not polled for their `max_poll_interval`. Each
    /// hears of the loss at its next poll, and joins again; until then its commits return
    /// [`Error::Rebalanced`](crate::Error::Rebalanced).
    ///
    /// # Panics
    ///
    /// If the group has no member.
    #[track_caller]
    pub fn evict(&self, group: &str) {
        if let Err(error) = self.broker.run().coordinator().evict_all(group) {
            panic!("the members of group {group:?} cannot be evicted: {error}");
        }
    }

    /// Has the broker give up the leadership of its replicated group, as one does that is being closed:
    /// its calls return [`Error::NotLeader`](crate::Error::NotLeader), deliveries that no majority has
    /// yet [`Error::LeadershipLost`](crate::Error::LeadershipLost), and another member leads soon. For
    /// a member of a [`TestCluster`](super::TestCluster); with one test broker, [`Fault::with`] lets a
    /// call return such an error.
    ///
    /// # Panics
    ///
    /// If the broker does not lead.
    #[cfg(feature = "replication")]
    #[track_caller]
    pub fn lose_leadership(&self) {
        let lost = self.broker.replication().map(|member| member.resign(None));
        assert!(matches!(lost, Some(Ok(()))), "the broker does not lead: {lost:?}");
    }

    /// Fences the producers with this id, as if another process had built one: their sends return
    /// [`Error::Fenced`](crate::Error::Fenced).
    ///
    /// # Panics
    ///
    /// If the id is not valid, or the broker is closed.
    #[track_caller]
    pub fn fence_producer(&self, id: &str) {
        if let Err(error) = self.broker.producer_builder().id(id).build() {
            panic!("producer {id:?} cannot be fenced: {error}");
        }
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").field("unmet", &self.script.unmet()).finish_non_exhaustive()
    }
}

/// Faults that a test has set and no call has met; see
/// [`TestBroker::finish`](super::TestBroker::finish).
#[derive(Debug, Clone, thiserror::Error)]
#[error("faults that were set and never met: {}", self.list())]
pub struct UnmetFaults {
    /// The faults, in the order in which they were set.
    pub faults: Vec<Fault>,
}

impl UnmetFaults {
    fn list(&self) -> String {
        self.faults.iter().map(|fault| format!("[{fault}]")).collect::<Vec<_>>().join(", ")
    }
}

/// Looks for faults that were never met when the test is over.
#[derive(Debug)]
pub(super) struct Watch(pub(super) Arc<Script>);

impl Watch {
    /// Says which they are. They are forgotten then.
    pub(super) fn check(&self) -> Result<(), UnmetFaults> {
        let faults = self.0.unmet();
        self.0.forget();
        if faults.is_empty() { Ok(()) } else { Err(UnmetFaults { faults }) }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // A second panic would abort the process, and hide the first. Who looks for the reason
            // of the first wants the seeds.
            let crashes = self.0.crashes();
            if !crashes.is_empty() {
                eprintln!("the test broker has crashed before: {}", crashes.join(", "));
            }
        } else if let Err(unmet) = self.check() {
            panic!("{unmet}");
        }
    }
}

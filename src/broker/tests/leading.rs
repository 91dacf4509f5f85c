//! The calls of users on a broker of a replicated group, while it leads, follows and loses the
//! leadership.
//!
//! Goal: what a call returns is true. On a member that does not lead, each public call is refused or
//! works as documented, and nothing is appended. A call that waits for a majority is answered when the
//! watermark rises, when the leadership is lost, when its time is over and when the broker is closed.
//! Method: the test decides who leads and what a majority has. Not covered: how members agree, which
//! the simulation in `replication` covers.

mod follower;
mod groups;
mod waits;

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use crate::broker::replicated_logs::ReplicatedLog;
use crate::broker::{Broker, BrokerBuilder};
use crate::clock::{Clock, ManualClock};
use crate::config::Durability;
use crate::partition::PartitionCore;
use crate::partition::leadership::{Leadership, LeadershipTerms};
use crate::partition::quorum::Quorum;
use crate::partition::replica::Replica;
use crate::storage::disk::SimulatedDisk;
use crate::sync::Mutex;

const ACK_TIMEOUT: Duration = Duration::from_secs(30);

/// A broker that is a member of a group, of which there is nothing else.
struct Member {
    broker: Broker,
    leadership: Arc<Leadership>,
    clock: ManualClock,
    /// Who hears of news.
    heard_by: Arc<Mutex<Option<Sender<bool>>>>,
    majority: Option<Majority>,
}

/// A thread that has a majority follow at once.
struct Majority {
    news: Sender<bool>,
    thread: JoinHandle<()>,
}

/// Two levels: the tests that do not depend on them take the first.
fn settings(disk: &SimulatedDisk, clock: &ManualClock) -> BrokerBuilder {
    Broker::builder()
        .disk(Arc::new(disk.clone()), Path::new("/srv/data"))
        .clock(clock.clone())
        .background(false)
        .seed(1)
}

impl Member {
    fn new(durability: Durability) -> Self {
        Self::with(durability, u64::MAX, |builder| builder)
    }

    fn with(
        durability: Durability,
        max_uncommitted_bytes: u64,
        set: impl FnOnce(BrokerBuilder) -> BrokerBuilder,
    ) -> Self {
        let terms = LeadershipTerms { ack_timeout: ACK_TIMEOUT, max_uncommitted_bytes };
        let leadership = Arc::new(Leadership::new(terms));
        let clock = ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
        let builder = settings(&SimulatedDisk::with_seed(1), &clock).durability(durability);
        let broker = set(builder).leadership(Arc::clone(&leadership)).open().unwrap();
        let heard_by = Arc::new(Mutex::new(None::<Sender<bool>>));
        let hears = Arc::clone(&heard_by);
        leadership.set_waker(Box::new(move || {
            if let Some(news) = &*hears.lock() {
                let _ = news.send(true);
            }
        }));
        Self { broker, leadership, clock, heard_by, majority: None }
    }

    /// All partitions that are replicated.
    fn replicated(&self) -> Vec<Arc<PartitionCore>> {
        let local = self.broker.run().logs().local().partition();
        let mut all = self.broker.run().all_partitions();
        all.retain(|core| !Arc::ptr_eq(core, local));
        all
    }

    fn core(&self, topic: &str, partition: usize) -> Arc<PartitionCore> {
        Arc::clone(&self.broker.run().topic(topic).unwrap().partitions[partition])
    }

    fn lead(&self, epoch: u32) {
        self.give_epoch(epoch, |_| true);
        self.broker.run().leading().begin(epoch);
    }

    /// Some logs append in an epoch from now on.
    fn give_epoch(&self, epoch: u32, is_given: impl Fn(&str) -> bool) {
        for core in self.replicated().iter().filter(|core| is_given(&core.origin.to_string())) {
            Replica::of(core).set_epoch(epoch).unwrap();
        }
        self.internal().into_iter().for_each(|log| log.state().lead(epoch).unwrap());
    }

    fn internal(&self) -> [ReplicatedLog<'_>; 2] {
        let logs = self.broker.run().logs();
        [ReplicatedLog::meta(logs), ReplicatedLog::offsets(logs)]
    }

    fn lose(&self, epoch: u32) {
        self.broker.run().leading().end(epoch);
        self.internal().into_iter().for_each(|log| log.state().follow());
    }

    /// A majority has everything there is now.
    fn agree(&self) {
        for core in self.replicated() {
            Quorum::of(&core).advance(core.log_end());
        }
    }

    /// From now on a majority has everything at once.
    fn agree_always(&mut self) {
        let (news, heard) = channel();
        let (broker, leadership) = (self.broker.clone(), Arc::clone(&self.leadership));
        *self.heard_by.lock() = Some(news.clone());
        let _ = leadership.take_changed();
        self.agree();
        let thread = thread::spawn(move || {
            while heard.recv() == Ok(true) {
                for (topic, number) in leadership.take_changed() {
                    for core in broker.run().all_partitions() {
                        let id = core.with_log(|log| log.factory().identity().topic_id);
                        if (id, core.origin.partition) == (topic, number) {
                            Quorum::of(&core).advance(core.log_end());
                        }
                    }
                }
            }
        });
        self.majority = Some(Majority { news, thread });
    }

    /// From now on nobody agrees.
    fn agree_no_more(&mut self) {
        if let Some(Majority { news, thread }) = self.majority.take() {
            *self.heard_by.lock() = None;
            news.send(false).unwrap();
            thread.join().unwrap();
        }
    }

    /// The time passes until the call has ended.
    fn expire<R>(&self, call: &thread::ScopedJoinHandle<'_, R>) {
        while !call.is_finished() {
            self.clock.advance(ACK_TIMEOUT);
            self.leadership.expire_waits(self.clock.monotonic());
            thread::yield_now();
        }
    }

    /// The ends of all logs that are replicated.
    fn ends(&self) -> Vec<(String, u64, u64)> {
        let all = self.replicated();
        let mut ends: Vec<_> =
            all.iter().map(|it| (it.origin.to_string(), it.log_start(), it.log_end())).collect();
        ends.sort();
        ends
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.agree_no_more();
    }
}

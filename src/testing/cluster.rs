//! A replicated group of test brokers, which one thread drives.
//!
//! Owns: which member runs, and the time. Must not know: the protocol, and what a crash does to a disk.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::broker::TestBroker;
use super::machine::{Machine, new_clock};
use super::network::SimNetwork;
use crate::broker::{Broker, BrokerBuilder};
use crate::clock::{Clock, ManualClock};
use crate::error::{Error, Result};
use crate::message::Message;
use crate::random::Random;
use crate::record::{LeaderEpoch, NodeId};
use crate::replication::{Election, Replication, ReplicationHandle, ReplicationStatus};
use crate::seams::Drive;
use crate::sync::{AtomicU64, LockLevel, Mutex, Ordering};

/// LIMIT: time passes at least by this when nothing is to be done, so that it passes at all.
const STEP_MIN: Duration = Duration::from_millis(1);

/// LIMIT: how long a new cluster may take until somebody leads, in its time: many elections.
const ELECTED_WITHIN: Duration = Duration::from_secs(60);

/// The seed of a cluster that is given none.
const SEED: u64 = 1;

type OfBroker = Arc<dyn Fn(NodeId, BrokerBuilder) -> BrokerBuilder + Send + Sync>;
type OfMember = Arc<dyn Fn(NodeId, Replication) -> Replication + Send + Sync>;

/// The settings of a [`TestCluster`]; see [`TestCluster::builder`].
#[must_use = "`start` starts the cluster"]
pub struct ClusterBuilder {
    members: usize,
    seed: u64,
    election: Option<Election>,
    of_broker: OfBroker,
    of_member: OfMember,
}

impl ClusterBuilder {
    /// Sets the seed: of everything that is left to chance in the network, the elections and the
    /// brokers. Default 1.
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Sets how members elect, or with `None` that they do not: then the test says who leads, by
    /// [`TestCluster::lead`].
    pub fn elect(self, election: impl Into<Option<Election>>) -> Self {
        Self { election: election.into(), ..self }
    }

    /// Changes the settings of each member's broker. Its data directory, clock, seed, replication and
    /// background threads are always the cluster's.
    pub fn brokers(
        self,
        settings: impl Fn(NodeId, BrokerBuilder) -> BrokerBuilder + Send + Sync + 'static,
    ) -> Self {
        Self { of_broker: Arc::new(settings), ..self }
    }

    /// Changes the settings of each member's replication, for example its time-outs, or what it calls with
    /// events.
    pub fn replication(
        self,
        settings: impl Fn(NodeId, Replication) -> Replication + Send + Sync + 'static,
    ) -> Self {
        Self { of_member: Arc::new(settings), ..self }
    }

    /// Opens the brokers, and, if they elect, lets them until one leads.
    ///
    /// # Panics
    ///
    /// If the settings are refused.
    #[must_use]
    #[track_caller]
    pub fn start(self) -> TestCluster {
        let cluster = TestCluster::open(&self);
        if self.election.is_some() {
            let is_led = cluster.run_until(|it| it.leader_id().is_some(), ELECTED_WITHIN);
            assert!(is_led, "no member leads after {ELECTED_WITHIN:?}:\n{}", cluster.describe());
        }
        cluster
    }
}

impl fmt::Debug for ClusterBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterBuilder")
            .field("members", &self.members)
            .field("seed", &self.seed)
            .field("election", &self.election)
            .finish_non_exhaustive()
    }
}

/// One run of a member, and the later ones: none is removed before the cluster, so that a reference
/// to a broker stays valid after a crash. Its calls return [`Error::Closed`] then.
struct Run {
    broker: TestBroker,
    next: OnceLock<Box<Run>>,
}

impl Run {
    fn new(broker: TestBroker) -> Self {
        Self { broker, next: OnceLock::new() }
    }

    fn last(&self) -> &Self {
        let mut run = self;
        while let Some(next) = run.next.get() {
            run = next;
        }
        run
    }
}

struct Member {
    node: NodeId,
    first: Run,
    /// What the crash has left, while the member does not run.
    down: Mutex<Option<Machine>>,
}

/// What lets the members work. One step at a time, also if several calls wait.
struct Motor {
    clock: ManualClock,
    network: SimNetwork,
    stepping: Mutex<()>,
}

impl Drive for Motor {
    fn step(&self, until: Duration) {
        let _stepping = self.stepping.lock();
        if let Some(node) = self.network.deliver() {
            // At once, so that frames are taken in the order in which they arrive.
            if let Some(member) = self.network.member(node) {
                tick(&member);
            }
            return;
        }
        let due = self.network.members().iter().map(tick).min().unwrap_or(Duration::MAX);
        let next = self.network.next_arrival().unwrap_or(Duration::MAX);
        if next.is_zero() {
            return;
        }
        let left = until.saturating_sub(self.clock.monotonic());
        self.clock.advance(due.min(next).max(STEP_MIN).min(left));
    }

    fn now(&self) -> Duration {
        self.clock.monotonic()
    }
}

/// Lets a member work. Returns for how long nothing will be due.
fn tick(member: &ReplicationHandle) -> Duration {
    // One whose broker is closed has nothing to do.
    member.tick().unwrap_or(Duration::MAX)
}

/// A replicated group of [test brokers](TestBroker), over a [`SimNetwork`], on one clock: an
/// application tests in milliseconds how it fails over.
///
/// There are no threads (but one while `delete_topic` waits), and time passes only in calls. A call that waits for other members, on the
/// broker of any member, lets them work until it has its answer, and time pass if they have nothing to
/// do: `send` at [`Acks::Quorum`](crate::Acks::Quorum), a commit, a topic's creation, also
/// [`poll`](crate::Consumer::poll) with a timeout, and
/// [`wait_leading`](ReplicationHandle::wait_leading). So the code under test cannot tell the cluster from
/// one of three machines, and with one thread everything is the same on every run: offsets, leaders,
/// epochs, the order of messages, errors. [`docs::testing_your_service`] has more.
///
/// Members have the nodes 1, 2, 3 and so on.
///
/// ```
/// use logpond::testing::TestCluster;
/// use logpond::{Record, TopicConfig};
/// use std::time::Duration;
///
/// let cluster = TestCluster::new(3);
/// cluster.leader().ensure_topic("orders", TopicConfig::new(1))?;
/// cluster.leader().producer().send(Record::to("orders").value("2 apples"))?;
///
/// let first = cluster.leader_id().unwrap();
/// cluster.crash(first);
/// assert!(cluster.run_until(|it| it.leader_id().is_some(), Duration::from_secs(10)));
/// assert_eq!(cluster.produced("orders").len(), 1); // at the new leader
/// # Ok::<(), logpond::Error>(())
/// ```
///
/// [`docs::testing_your_service`]: crate::docs::testing_your_service
pub struct TestCluster {
    seed: u64,
    members: Vec<Member>,
    motor: Arc<Motor>,
}

impl TestCluster {
    /// Opens this many brokers, from 1 to 7, and lets them elect a leader.
    ///
    /// # Panics
    ///
    /// If there are fewer or more.
    #[must_use]
    #[track_caller]
    pub fn new(members: usize) -> Self {
        Self::builder(members).start()
    }

    /// Returns settings for a cluster of this many members.
    ///
    /// ```
    /// use logpond::testing::{Link, TestCluster};
    /// use logpond::{NodeId, Record, TopicConfig};
    /// use std::time::Duration;
    ///
    /// // The test says who leads, over a bad network.
    /// let cluster = TestCluster::builder(3).seed(7).elect(None).start();
    /// let ms = Duration::from_millis;
    /// cluster.network().links(Link::default().loss(0.05).delay(ms(1)..ms(9)));
    /// cluster.lead(NodeId(2))?;
    /// cluster.leader().ensure_topic("orders", TopicConfig::new(1))?;
    /// cluster.leader().producer().send(Record::to("orders").value("2 apples"))?;
    /// # Ok::<(), logpond::Error>(())
    /// ```
    pub fn builder(members: usize) -> ClusterBuilder {
        ClusterBuilder {
            members,
            seed: SEED,
            election: Some(Election::default()),
            of_broker: Arc::new(|_, settings| settings),
            of_member: Arc::new(|_, settings| settings),
        }
    }

    #[track_caller]
    fn open(settings: &ClusterBuilder) -> Self {
        let clock = new_clock();
        let network = SimNetwork::on_clock(settings.seed, &clock);
        let stepping = Mutex::at_level(LockLevel::ClusterStep, ());
        let motor = Arc::new(Motor { clock, network, stepping });
        let nodes: Vec<NodeId> = (1_u64..).map(NodeId).take(settings.members).collect();
        let member = |node: &NodeId| {
            let machine = machine_of(*node, &nodes, settings, &motor);
            let first = Run::new(open(*node, machine));
            Member { node: *node, first, down: Mutex::new(None) }
        };
        let members: Vec<Member> = nodes.iter().map(member).collect();
        assert!(!members.is_empty(), "a cluster has a member");
        Self { seed: settings.seed, members, motor }
    }

    // ---- members -----------------------------------------------------------------------------

    /// Returns the nodes of all members, running or not.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeId> {
        self.members.iter().map(|member| member.node).collect()
    }

    /// Returns the broker of the member that leads and takes appends.
    ///
    /// # Panics
    ///
    /// If there is none: see [`run_until`](Self::run_until).
    #[must_use]
    #[track_caller]
    pub fn leader(&self) -> &Broker {
        match self.leader_id() {
            Some(node) => self.broker(node),
            None => panic!("no member leads:\n{}", self.describe()),
        }
    }

    /// Returns which member leads and takes appends, if one does. While an earlier leader has not
    /// noticed that it was deposed, the later one.
    #[must_use]
    pub fn leader_id(&self) -> Option<NodeId> {
        let statuses = self.members.iter().filter_map(Member::status);
        let led = statuses.filter(|status| status.may_write);
        led.max_by_key(|status| status.epoch).map(|status| status.me)
    }

    /// Returns the broker of a member, for the code under test. After a crash it is the broker that has
    /// crashed, whose calls return [`Error::Closed`], until the member was started again.
    ///
    /// # Panics
    ///
    /// If there is no such member.
    #[must_use]
    #[track_caller]
    pub fn broker(&self, node: NodeId) -> &Broker {
        self.member(node)
    }

    /// Returns the same as a test broker, with its [faults](TestBroker::faults), its
    /// [calls](TestBroker::calls) and its [records](TestBroker::produced).
    ///
    /// # Panics
    ///
    /// If there is no such member.
    #[must_use]
    #[track_caller]
    pub fn member(&self, node: NodeId) -> &TestBroker {
        &self.find(node).first.last().broker
    }

    #[track_caller]
    fn find(&self, node: NodeId) -> &Member {
        match self.members.iter().find(|member| member.node == node) {
            Some(member) => member,
            None => panic!("member {node} is none of {:?}", self.nodes()),
        }
    }

    /// Returns whether a member runs: it was not crashed, or started again since.
    ///
    /// # Panics
    ///
    /// If there is no such member.
    #[must_use]
    #[track_caller]
    pub fn is_running(&self, node: NodeId) -> bool {
        self.find(node).is_running()
    }

    /// Returns the status of a member's replication; `None` if it does not run.
    ///
    /// # Panics
    ///
    /// If there is no such member.
    #[must_use]
    #[track_caller]
    pub fn status(&self, node: NodeId) -> Option<ReplicationStatus> {
        self.find(node).status()
    }

    /// Calls a member to lead, with an epoch above all others, and lets it until it does. For a cluster
    /// that does not elect, or to choose the leader.
    ///
    /// # Errors
    ///
    /// Those of [`ReplicationHandle::lead`] and [`ReplicationHandle::wait_leading`], of which the timeout
    /// is ten seconds of the cluster's time.
    ///
    /// # Panics
    ///
    /// If there is no such member.
    #[track_caller]
    pub fn lead(&self, node: NodeId) -> Result<LeaderEpoch> {
        let member = self.broker(node).replication().ok_or(Error::Closed)?;
        let statuses = self.members.iter().filter_map(Member::status);
        let highest = statuses.map(|status| status.epoch.0).max().unwrap_or(0);
        let epoch = LeaderEpoch(highest.saturating_add(1));
        member.lead(epoch)?;
        member.wait_leading(Duration::from_secs(10))?;
        Ok(epoch)
    }

    // ---- failures ----------------------------------------------------------------------------

    /// Kills the process of a member (`kill -9`). Everything that it has written is there when it is
    /// [started again](Self::restart). Calls of the handles that other code still has return
    /// [`Error::Closed`].
    ///
    /// # Panics
    ///
    /// If it does not run.
    #[track_caller]
    pub fn crash(&self, node: NodeId) {
        self.end(node, Machine::after_kill9);
    }

    /// Cuts the power of a member. When it is [started again](Self::restart), everything that was synced
    /// is there, and of the rest what the seed says.
    ///
    /// # Panics
    ///
    /// If it does not run.
    #[track_caller]
    pub fn power_cut(&self, node: NodeId, seed: u64) {
        self.end(node, |machine| machine.after_power_cut(seed));
    }

    /// Cuts the power of a member, which loses everything that was not synced.
    ///
    /// # Panics
    ///
    /// If it does not run.
    #[track_caller]
    pub fn lose_unsynced(&self, node: NodeId) {
        self.end(node, Machine::after_worst_cut);
    }

    /// Destroys the machine of a member: when it is [started again](Self::restart), its disk is empty.
    /// It counts again once [`replace_member`](ReplicationHandle::replace_member) has admitted it.
    ///
    /// # Panics
    ///
    /// If it does not run.
    #[track_caller]
    pub fn wipe(&self, node: NodeId) {
        self.end(node, |machine| machine.after_kill9().with_new_disk());
    }

    #[track_caller]
    fn end(&self, node: NodeId, then: impl FnOnce(Machine) -> Machine) {
        let member = self.find(node);
        let mut down = member.down.lock();
        assert!(down.is_none(), "member {node} does not run");
        let machine = member.first.last().broker.end();
        self.motor.network.detach(node);
        *down = Some(then(machine));
    }

    /// Starts a member again that was crashed. One that runs, or whose broker was closed, is killed
    /// first.
    ///
    /// # Panics
    ///
    /// If its broker does not open.
    #[track_caller]
    pub fn restart(&self, node: NodeId) {
        if self.is_running(node) {
            self.crash(node);
        }
        let member = self.find(node);
        let Some(machine) = member.down.lock().take() else { return };
        let run = Box::new(Run::new(open(node, machine)));
        let _ = member.first.last().next.set(run);
    }

    /// No frame passes between these members and those: see [`SimNetwork::partition`].
    pub fn partition(&self, one: &[NodeId], other: &[NodeId]) {
        self.motor.network.partition(one, other);
    }

    /// No frame passes between this member and all others.
    pub fn isolate(&self, node: NodeId) {
        let others: Vec<NodeId> = self.nodes().into_iter().filter(|it| *it != node).collect();
        self.partition(&[node], &others);
    }

    /// Ends all partitions.
    pub fn heal(&self) {
        self.motor.network.heal();
    }

    // ---- time --------------------------------------------------------------------------------

    /// Lets the members work, and time pass, until a condition is true, but at most for `bound`. Returns
    /// whether it became true. It is looked at after every step: a frame that arrives, or a moment at which
    /// something is due. Each time that time has passed, the members also do the work that
    /// [`Broker::tick`] does.
    #[must_use = "the condition may never have been true"]
    pub fn run_until(&self, mut condition: impl FnMut(&Self) -> bool, bound: Duration) -> bool {
        let end = self.motor.now().saturating_add(bound);
        loop {
            if condition(self) {
                return true;
            }
            let now = self.motor.now();
            if now >= end {
                return false;
            }
            self.motor.step(end);
            if self.motor.now() > now {
                self.do_housework();
            }
        }
    }

    /// Lets the members work for this long.
    pub fn advance(&self, by: Duration) {
        let _ = self.run_until(|_| false, by);
    }

    fn do_housework(&self) {
        for member in self.members.iter().filter(|member| member.is_running()) {
            // An error is one of a fault that the test has set, or of a broker that it has closed.
            let _ = member.first.last().broker.tick();
        }
    }

    /// Returns the clock of all members. It is moved by calls that wait, and by
    /// [`advance`](Self::advance). If the test moves it itself, that is for the members as if all of them
    /// had slept meanwhile.
    #[must_use]
    pub fn clock(&self) -> &ManualClock {
        &self.motor.clock
    }

    /// Returns the network.
    #[must_use]
    pub fn network(&self) -> &SimNetwork {
        &self.motor.network
    }

    /// Returns the seed.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    // ---- seeing ------------------------------------------------------------------------------

    /// Returns the records of a topic that readers of the leader see, by partition and then by offset.
    ///
    /// # Panics
    ///
    /// If no member leads, if there is no such topic, or if a record cannot be read.
    #[must_use]
    #[track_caller]
    pub fn produced(&self, topic: &str) -> Vec<Message> {
        match self.leader_id() {
            Some(node) => self.member(node).produced(topic),
            None => panic!("no member leads:\n{}", self.describe()),
        }
    }

    /// What each member is, one per line.
    fn describe(&self) -> String {
        let line = |member: &Member| {
            let what = match member.status() {
                None => "does not run".to_owned(),
                Some(it) => {
                    let leader = it.leader.map_or("nobody".to_owned(), |leader| leader.to_string());
                    let failure =
                        it.failure.map_or_else(String::new, |it| format!(", failed: {it}"));
                    format!("{:?} of epoch {}, follows {leader}{failure}", it.role, it.epoch.0)
                }
            };
            format!("  {}: {what}", member.node)
        };
        let lines: Vec<String> = self.members.iter().map(line).collect();
        format!("{}\n  {:?}", lines.join("\n"), self.motor.network)
    }
}

impl Member {
    fn is_running(&self) -> bool {
        self.down.lock().is_none()
    }

    fn status(&self) -> Option<ReplicationStatus> {
        let member = self.is_running().then(|| self.first.last().broker.replication());
        member.flatten().map(|member| member.status())
    }
}

/// The machine of a member.
fn machine_of(
    node: NodeId,
    nodes: &[NodeId],
    settings: &ClusterBuilder,
    motor: &Arc<Motor>,
) -> Machine {
    let (nodes, seed, election) = (nodes.to_vec(), settings.seed, settings.election);
    let (of_broker, of_member) = (Arc::clone(&settings.of_broker), Arc::clone(&settings.of_member));
    // ORDERING: Relaxed: a number for each opening, which publishes nothing.
    let (network, openings) = (motor.network.clone(), AtomicU64::new(0));
    let machine = Machine::on(&motor.clock, move |builder| {
        // A new directory of the same member must not draw the same numbers.
        let opening = openings.fetch_add(1, Ordering::Relaxed);
        let seed = Random::new(seed ^ (node.0 << 48) ^ (opening << 24)).next();
        let replication = Replication::new(node, nodes.clone(), network.transport(node));
        let replication = match election {
            Some(election) => replication.elect(election),
            None => replication,
        };
        let replication = of_member(node, replication);
        network.attach(node, replication.handle());
        of_broker(node, builder).seed(seed).replication(replication)
    });
    machine.script().drive_by(Arc::clone(motor) as Arc<dyn Drive>);
    machine
}

#[track_caller]
fn open(node: NodeId, machine: Machine) -> TestBroker {
    match TestBroker::on(machine) {
        Ok(broker) => {
            // It shows what it is from now on.
            let _ = broker.replication().map(|member| tick(&member));
            broker
        }
        Err(error) => panic!("the broker of member {node} could not be opened: {error}"),
    }
}

impl Drop for TestCluster {
    /// Calls of handles that other code still has return [`Error::Closed`]: nobody would let the members
    /// work any more.
    fn drop(&mut self) {
        for member in self.members.iter().filter(|member| member.is_running()) {
            member.first.last().broker.run().abandon();
        }
        if std::thread::panicking() {
            eprintln!("the seed of the test cluster is {}", self.seed);
        }
    }
}

impl fmt::Debug for TestCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let statuses: Vec<_> = self.members.iter().map(|it| (it.node, it.status())).collect();
        f.debug_struct("TestCluster")
            .field("seed", &self.seed)
            .field("members", &statuses)
            .field("network", &self.motor.network)
            .finish_non_exhaustive()
    }
}

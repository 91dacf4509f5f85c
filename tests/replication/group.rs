//! A group of brokers in this process, and the network between them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use logpond::{
    Broker, BrokerBuilder, Election, Frame, FrameClass, LeaderEpoch, NodeId, Replication,
    ReplicationHandle, Role, Transport, TransportError,
};

/// Bounds every wait of a test that fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Links {
    members: BTreeMap<NodeId, ReplicationHandle>,
    cut: BTreeSet<NodeId>,
    /// After how many frames with records, or questions for them, how many of each member are lost.
    lost: BTreeMap<NodeId, (usize, usize)>,
    /// Whether the thread that sends does what the frame asks for.
    at_once: bool,
}

/// Hands frames over at once. Members can be cut off.
#[derive(Clone, Default)]
pub(crate) struct Network(Arc<Mutex<Links>>);

impl Network {
    /// One whose frames are taken and worked on by the thread that sends them.
    pub(crate) fn at_once() -> Self {
        Self(Arc::new(Mutex::new(Links { at_once: true, ..Links::default() })))
    }

    pub(crate) fn attach(&self, node: NodeId, member: ReplicationHandle) {
        self.0.lock().unwrap().members.insert(node, member);
    }

    pub(crate) fn cut(&self, node: NodeId) {
        self.0.lock().unwrap().cut.insert(node);
    }

    /// Loses the next frames of data that a member sends.
    pub(crate) fn lose(&self, from: NodeId, frames: usize) {
        self.lose_after(0, from, frames);
    }

    /// The same, after some of them have arrived.
    pub(crate) fn lose_after(&self, arrive: usize, from: NodeId, frames: usize) {
        self.0.lock().unwrap().lost.insert(from, (arrive, frames));
    }

    pub(crate) fn heal(&self) {
        self.0.lock().unwrap().cut.clear();
    }

    pub(crate) fn of(&self, from: NodeId) -> Arc<dyn Transport> {
        Arc::new(Link { from, network: self.clone() })
    }
}

struct Link {
    from: NodeId,
    network: Network,
}

impl Transport for Link {
    fn send(&self, to: NodeId, frame: Frame) -> Result<(), TransportError> {
        let (member, at_once) = {
            let mut links = self.network.0.lock().unwrap();
            if frame.class() == FrameClass::Data
                && let Some((arrive, lost)) = links.lost.get_mut(&self.from)
            {
                if *arrive == 0 && *lost > 0 {
                    *lost -= 1;
                    return Ok(());
                }
                *arrive = arrive.saturating_sub(1);
            }
            if links.cut.contains(&self.from) || links.cut.contains(&to) {
                return Err(TransportError::Unreachable);
            }
            let member = links.members.get(&to).cloned().ok_or(TransportError::Unreachable)?;
            (member, links.at_once)
        };
        // What is lost there is asked for again.
        let _ = if at_once {
            member.receive_and_tick(self.from, frame)
        } else {
            member.receive(self.from, frame)
        };
        Ok(())
    }
}

pub(crate) const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

/// Three members, each with a directory.
pub(crate) struct Group {
    pub(crate) network: Network,
    dir: tempfile::TempDir,
    election: Option<Election>,
    brokers: BTreeMap<NodeId, Broker>,
}

impl Group {
    /// All three run. Nobody leads yet.
    pub(crate) fn new(election: Option<Election>) -> Self {
        let mut group = Self::without_members(election);
        for node in NODES {
            group.start(node);
        }
        group
    }

    pub(crate) fn without_members(election: Option<Election>) -> Self {
        Self { election, ..Self::on(Network::default()) }
    }

    /// Nobody runs yet, and nobody is elected.
    pub(crate) fn on(network: Network) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { network, dir, election: None, brokers: BTreeMap::new() }
    }

    /// Three members, of which the first leads epoch 1.
    pub(crate) fn led() -> Self {
        let group = Self::new(None);
        group.lead(NODES[0], 1);
        group.wait_for_copies(NODES[0]);
        group
    }

    /// Waits until the others have what the leader has. A member without a copy of the membership cannot
    /// lead.
    pub(crate) fn wait_for_copies(&self, leader: NodeId) {
        let lags = || {
            let member = self.member(leader);
            // What is shown is up to a moment old, but not older than a call.
            let _ = member.confirm();
            member.status().members.iter().any(|it| it.lag_records > 0)
        };
        assert!(until(|| (!lags()).then_some(())).is_some(), "{:?}", self.statuses());
    }

    pub(crate) fn path(&self, node: NodeId) -> PathBuf {
        self.dir.path().join(node.to_string())
    }

    pub(crate) fn settings(&self, node: NodeId) -> Replication {
        let replication = Replication::new(node, NODES, self.network.of(node));
        let replication = replication.heartbeat(Duration::from_millis(20));
        match self.election {
            Some(election) => replication.elect(election),
            None => replication,
        }
    }

    pub(crate) fn open(dir: &Path, replication: Replication) -> logpond::Result<Broker> {
        Broker::builder().data_dir(dir).replication(replication).open()
    }

    pub(crate) fn start(&mut self, node: NodeId) {
        let replication = self.settings(node);
        self.network.attach(node, replication.handle());
        let broker = Self::open(&self.path(node), replication).unwrap();
        self.brokers.insert(node, broker);
    }

    /// Starts a member with other settings.
    pub(crate) fn start_with(
        &mut self,
        node: NodeId,
        replication: Replication,
        build: impl FnOnce(BrokerBuilder) -> BrokerBuilder,
    ) {
        self.network.attach(node, replication.handle());
        let builder = Broker::builder().data_dir(self.path(node)).replication(replication);
        self.brokers.insert(node, build(builder).open().unwrap());
    }

    pub(crate) fn put(&mut self, node: NodeId, broker: Broker) {
        self.brokers.insert(node, broker);
    }

    /// Drops the broker of a member, as the death of its process does.
    pub(crate) fn stop(&mut self, node: NodeId) {
        self.brokers.remove(&node);
    }

    pub(crate) fn broker(&self, node: NodeId) -> &Broker {
        &self.brokers[&node]
    }

    pub(crate) fn member(&self, node: NodeId) -> ReplicationHandle {
        self.broker(node).replication().unwrap()
    }

    /// Calls a member to lead, until it does.
    pub(crate) fn lead(&self, node: NodeId, epoch: u32) {
        let member = self.member(node);
        member.lead(LeaderEpoch(epoch)).unwrap();
        let led = member.wait_leading(PATIENCE);
        assert!(led.is_ok(), "{led:?}: {:?}", member.status());
    }

    /// Waits until somebody leads, and returns who.
    pub(crate) fn leader(&self) -> NodeId {
        let found = until(|| {
            let leads = |node: &NodeId| self.member(*node).status().may_write;
            self.brokers.keys().copied().find(leads)
        });
        found.unwrap_or_else(|| panic!("nobody leads: {:?}", self.statuses()))
    }

    fn statuses(&self) -> Vec<logpond::ReplicationStatus> {
        self.brokers.keys().map(|node| self.member(*node).status()).collect()
    }

    pub(crate) fn role(&self, node: NodeId) -> Role {
        self.member(node).status().role
    }
}

/// Runs something in a thread of its own. `None` if it does not return before the patience is over.
pub(crate) fn within<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(run()));
    receiver.recv_timeout(PATIENCE).ok()
}

const STEP: Duration = Duration::from_millis(5);

/// Looks again and again, until there is something or the patience is over.
pub(crate) fn until<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let mut waited = Duration::ZERO;
    while waited < PATIENCE {
        if let Some(found) = look() {
            return Some(found);
        }
        let _ = receiver.recv_timeout(STEP);
        waited += STEP;
    }
    drop(sender);
    None
}

/// All values that a reader on this broker sees, by partition and offset.
pub(crate) fn read_all(broker: &Broker, topic: &str) -> Vec<String> {
    let Ok(topic) = broker.topic(topic) else { return Vec::new() };
    let mut all = Vec::new();
    for partition in topic.iter() {
        let mut from = partition.log_start_offset();
        loop {
            let batch = partition.read(from, 1 << 20).unwrap();
            let Some(last) = batch.iter().last().map(|message| message.next_offset()) else {
                break;
            };
            let value = |message: logpond::MessageRef<'_>| {
                String::from_utf8(message.value().unwrap_or_default().to_vec()).unwrap()
            };
            all.extend(batch.iter().map(value));
            from = last;
        }
    }
    all
}

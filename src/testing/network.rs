//! A network between the members of a cluster, in which a seed decides what happens to each frame.
//!
//! Owns: the frames on their way. It has no thread: a frame arrives when it is [let](SimNetwork::step),
//! at a time of the clock that the test moves. Must not know: what is in a frame.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::clock::{Clock, ManualClock};
use crate::error::TransportError;
use crate::random::Random;
use crate::record::NodeId;
use crate::replication::{Frame, ReplicationHandle, Transport};
use crate::sync::{LockLevel, Mutex};

/// What happens to frames on their way from one member to another. The default loses and repeats
/// nothing, keeps the order, and takes no time.
///
/// ```
/// use logpond::testing::Link;
/// use std::time::Duration;
///
/// let ms = Duration::from_millis;
/// let _bad = Link::default().loss(0.1).repeat(0.02).delay(ms(1)..ms(20)); // delays reorder, too
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Link {
    /// Which share of the frames is lost: from 0.0 to 1.0.
    pub loss: f64,
    /// Which share arrives twice.
    pub repeat: f64,
    /// Which share is overtaken by frames that were sent later, beside those that a delay lets be
    /// overtaken.
    pub reorder: f64,
    /// How long a frame is on its way: drawn from this range for each. A frame that takes longer than
    /// the next one is overtaken by it.
    pub delay: Range<Duration>,
}

impl Default for Link {
    fn default() -> Self {
        Self { loss: 0.0, repeat: 0.0, reorder: 0.0, delay: Duration::ZERO..Duration::ZERO }
    }
}

impl Link {
    /// Sets which share of the frames is lost.
    #[must_use]
    pub fn loss(self, share: f64) -> Self {
        Self { loss: share, ..self }
    }

    /// Sets which share of the frames arrives twice.
    #[must_use]
    pub fn repeat(self, share: f64) -> Self {
        Self { repeat: share, ..self }
    }

    /// Sets which share of the frames is overtaken.
    #[must_use]
    pub fn reorder(self, share: f64) -> Self {
        Self { reorder: share, ..self }
    }

    /// Sets how long a frame is on its way.
    #[must_use]
    pub fn delay(self, range: Range<Duration>) -> Self {
        Self { delay: range, ..self }
    }
}

/// What has become of the frames so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct NetworkStats {
    /// How many were sent.
    pub sent: u64,
    /// How many have arrived, the repeated ones too.
    pub arrived: u64,
    /// How many were lost: by chance, at a cut, or because nobody was there.
    pub lost: u64,
    /// How many were repeated.
    pub repeated: u64,
}

/// LIMIT: how many later frames overtake one at most, by chance alone.
const OVERTAKEN_BY: u64 = 8;

/// When a frame arrives: its time, and its rank among those of the same time.
type Arrival = (Duration, u64, u64);

struct Travelling {
    from: NodeId,
    to: NodeId,
    frame: Frame,
}

struct State {
    random: Random,
    members: BTreeMap<NodeId, ReplicationHandle>,
    travelling: BTreeMap<Arrival, Travelling>,
    link: Link,
    /// Of single directions.
    links: BTreeMap<(NodeId, NodeId), Link>,
    cut: BTreeSet<(NodeId, NodeId)>,
    heals_at: Option<Duration>,
    stats: NetworkStats,
    trace: u64,
}

impl State {
    /// Whether something happens to a frame that happens to this share of them.
    #[expect(clippy::cast_precision_loss, reason = "53 bits of chance are enough")]
    fn happens(&mut self, share: f64) -> bool {
        const BITS: u32 = 53;
        share > 0.0 && ((self.random.next() >> (64 - BITS)) as f64) < share * (1_u64 << BITS) as f64
    }

    fn drawn(&mut self, range: &Range<Duration>) -> Duration {
        let width = range.end.saturating_sub(range.start);
        let nanos = u64::try_from(width.as_nanos()).unwrap_or(u64::MAX);
        let share = if nanos == 0 { 0 } else { self.random.next() % nanos };
        range.start.saturating_add(Duration::from_nanos(share))
    }

    fn send(&mut self, from: NodeId, to: NodeId, frame: &Frame, now: Duration) {
        self.stats.sent += 1;
        let link = self.links.get(&(from, to)).unwrap_or(&self.link).clone();
        if self.happens(link.loss) {
            self.stats.lost += 1;
            return;
        }
        let is_repeated = self.happens(link.repeat);
        self.stats.repeated += u64::from(is_repeated);
        for copy in 0..=u64::from(is_repeated) {
            let at = now.saturating_add(self.drawn(&link.delay));
            let is_overtaken = self.happens(link.reorder);
            let by = if is_overtaken { self.random.next() % (OVERTAKEN_BY + 1) } else { 0 };
            let rank = self.stats.sent.saturating_add(by);
            let order = self.stats.sent.saturating_mul(2).saturating_add(copy);
            let travelling = Travelling { from, to, frame: frame.clone() };
            self.travelling.insert((at, rank, order), travelling);
        }
    }

    /// The next frame that is due, and the member that it is for. The member is `None` if the frame is
    /// lost.
    fn take(&mut self, now: Duration) -> Option<(Travelling, Option<ReplicationHandle>)> {
        if self.heals_at.is_some_and(|at| now >= at) {
            self.heal();
        }
        let next = self.travelling.first_entry().filter(|next| next.key().0 <= now)?;
        let travelling = next.remove();
        let is_cut = self.cut.contains(&(travelling.from, travelling.to));
        let member = self.members.get(&travelling.to).filter(|_| !is_cut).cloned();
        if member.is_some() {
            self.stats.arrived += 1;
            self.note(&travelling, now);
        } else {
            self.stats.lost += 1;
        }
        Some((travelling, member))
    }

    fn heal(&mut self) {
        self.cut.clear();
        self.heals_at = None;
    }

    /// Makes the trace another one (FNV-1a).
    fn note(&mut self, travelling: &Travelling, now: Duration) {
        let nanos = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let head = [nanos, travelling.from.0, travelling.to.0].map(u64::to_le_bytes);
        let bytes = head.iter().flatten().chain(travelling.frame.as_bytes());
        self.trace = bytes.fold(self.trace, |trace, byte| {
            (trace ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    }
}

/// A network between members of a replicated group, without threads: a seed decides which frames are
/// lost, repeated, late or overtaken, and the test says when the next one arrives. Cheap to clone.
///
/// [`TestCluster`](super::TestCluster) has one, and lets it work. By itself it is a
/// [`Transport`] for brokers that the test opens, drives and crashes on its own:
///
/// ```
/// use logpond::testing::SimNetwork;
/// use logpond::{Broker, LeaderEpoch, NodeId, Replication};
///
/// let (network, nodes) = (SimNetwork::new(7), [1, 2, 3].map(NodeId));
/// let open = |node: NodeId| {
///     let replication = Replication::new(node, nodes, network.transport(node));
///     network.attach(node, replication.handle());
///     let settings = Broker::builder().in_memory().clock(network.clock()).background(false);
///     settings.seed(node.0).replication(replication).open()
/// };
/// let brokers = [open(nodes[0])?, open(nodes[1])?, open(nodes[2])?];
/// let leader = brokers[0].replication().unwrap();
/// leader.lead(LeaderEpoch(1))?;
/// while !leader.status().may_write {
///     while network.step() {}
///     for broker in &brokers {
///         broker.replication().unwrap().tick()?;
///     }
///     network.clock().advance(std::time::Duration::from_millis(10));
/// }
/// # Ok::<(), logpond::Error>(())
/// ```
#[derive(Clone)]
pub struct SimNetwork {
    clock: ManualClock,
    seed: u64,
    state: Arc<Mutex<State>>,
}

impl SimNetwork {
    /// A network without members, with a clock of its own, which stands still until the test moves it.
    /// One seed has one outcome.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::on_clock(seed, &ManualClock::new(SystemTime::UNIX_EPOCH))
    }

    /// The same on a clock that there is.
    #[must_use]
    pub fn on_clock(seed: u64, clock: &ManualClock) -> Self {
        let state = State {
            random: Random::new(seed),
            members: BTreeMap::new(),
            travelling: BTreeMap::new(),
            link: Link::default(),
            links: BTreeMap::new(),
            cut: BTreeSet::new(),
            heals_at: None,
            stats: NetworkStats::default(),
            trace: 0xcbf2_9ce4_8422_2325,
        };
        let state = Arc::new(Mutex::at_level(LockLevel::SimNetwork, state));
        Self { clock: clock.clone(), seed, state }
    }

    /// Returns the clock by which frames are late.
    #[must_use]
    pub fn clock(&self) -> ManualClock {
        self.clock.clone()
    }

    /// Returns the seed.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    // ---- members -----------------------------------------------------------------------------

    /// Returns what a member sends with.
    #[must_use]
    pub fn transport(&self, node: NodeId) -> Arc<dyn Transport> {
        Arc::new(Sender { network: self.clone(), from: node })
    }

    /// Frames for this node arrive at this member from now on.
    pub fn attach(&self, node: NodeId, member: ReplicationHandle) {
        self.state.lock().members.insert(node, member);
    }

    /// Frames for this node are lost from now on, because nobody is there.
    pub fn detach(&self, node: NodeId) {
        let before = self.state.lock().members.remove(&node);
        drop(before);
    }

    // ---- what happens to frames -----------------------------------------------------------------

    /// Sets what happens to frames everywhere, but where [`link`](Self::link) has said otherwise. It
    /// concerns frames that are sent from now on.
    pub fn links(&self, link: Link) {
        self.state.lock().link = link;
    }

    /// Sets what happens to frames from one member to another, in this direction alone.
    pub fn link(&self, from: NodeId, to: NodeId, link: Link) {
        self.state.lock().links.insert((from, to), link);
    }

    /// No frame arrives any more from a member of one side at one of the other side, in both
    /// directions, also of those that are on their way. Earlier cuts stay.
    pub fn partition(&self, one: &[NodeId], other: &[NodeId]) {
        self.cut(one, other);
        self.cut(other, one);
    }

    /// No frame arrives any more from these members at those. The other direction works.
    pub fn cut(&self, from: &[NodeId], to: &[NodeId]) {
        let mut state = self.state.lock();
        let each = from.iter().flat_map(|from| to.iter().map(|to| (*from, *to)));
        state.cut.extend(each.filter(|(from, to)| from != to));
    }

    /// Ends all cuts.
    pub fn heal(&self) {
        self.state.lock().heal();
    }

    /// Ends all cuts when this time has passed: also while a call waits.
    pub fn heal_after(&self, time: Duration) {
        let at = self.clock.monotonic().saturating_add(time);
        self.state.lock().heals_at = Some(at);
    }

    // ---- time --------------------------------------------------------------------------------

    /// Lets the next frame arrive that is due. Returns false if none is: then time has to pass, or a
    /// member has to say something.
    #[expect(clippy::must_use_candidate, reason = "a test may let one frame arrive or none")]
    pub fn step(&self) -> bool {
        self.deliver().is_some()
    }

    /// The same; says at which member.
    pub(super) fn deliver(&self) -> Option<NodeId> {
        let now = self.clock.monotonic();
        let (Travelling { from, to, frame }, member) = self.state.lock().take(now)?;
        if let Some(member) = member {
            // If it has no room, the frame is lost.
            let _ = member.receive(from, frame);
        }
        Some(to)
    }

    /// Returns after how long the next frame arrives; `None` if none is on its way.
    #[must_use]
    pub fn next_arrival(&self) -> Option<Duration> {
        let now = self.clock.monotonic();
        let state = self.state.lock();
        let first = state.travelling.first_key_value().map(|((at, ..), _)| *at);
        let next = first.into_iter().chain(state.heals_at).min();
        next.map(|at| at.saturating_sub(now))
    }

    /// The members that are attached, in the order of their nodes.
    pub(super) fn members(&self) -> Vec<ReplicationHandle> {
        self.state.lock().members.values().cloned().collect()
    }

    pub(super) fn member(&self, node: NodeId) -> Option<ReplicationHandle> {
        self.state.lock().members.get(&node).cloned()
    }

    // ---- seeing ------------------------------------------------------------------------------

    /// Returns what has become of the frames so far.
    #[must_use]
    pub fn stats(&self) -> NetworkStats {
        self.state.lock().stats
    }

    /// Returns a number that stands for all frames that have arrived, with their times and their order: two
    /// runs in which it is the same were the same.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.state.lock().trace
    }
}

impl fmt::Debug for SimNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("SimNetwork")
            .field("seed", &self.seed)
            .field("cut", &state.cut)
            .field("stats", &state.stats)
            .finish_non_exhaustive()
    }
}

/// What one member sends with.
struct Sender {
    network: SimNetwork,
    from: NodeId,
}

impl Transport for Sender {
    fn send(&self, to: NodeId, frame: Frame) -> Result<(), TransportError> {
        let now = self.network.clock.monotonic();
        self.network.state.lock().send(self.from, to, &frame, now);
        Ok(())
    }
}

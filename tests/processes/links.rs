//! The links between members: all frames go through the controller, which can cut each direction of
//! each link, make it slow, repeat frames, also old ones, and swap them.

use std::collections::VecDeque;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::arena::Arena;
use crate::common::Rng;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    Open,
    /// Frames are lost, and the connection stays: as after a cable was pulled.
    Lost,
    /// Connections are closed, and new ones too: as by a firewall.
    Closed,
}

/// What happens to frames from one member to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) flow: Flow,
    /// Each frame waits so long, and all after it.
    pub(crate) delay: Duration,
    /// One frame in so many is repeated, swapped with the next, or followed by an old one; 0: none.
    pub(crate) noise: u64,
}

impl Link {
    pub(crate) const GOOD: Self = Self { flow: Flow::Open, delay: Duration::ZERO, noise: 0 };
}

struct Direction {
    to: usize,
    arena: Arc<Arena>,
    link: Mutex<Link>,
    changed: Condvar,
    is_over: AtomicBool,
    seed: u64,
}

struct Side {
    direction: Arc<Direction>,
    address: SocketAddr,
    listens: Option<JoinHandle<()>>,
}

/// By sender and receiver.
pub(crate) struct Links {
    sides: Vec<Vec<Side>>,
}

impl Links {
    pub(crate) fn new(arena: &Arc<Arena>, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut side = |to| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let direction = Arc::new(Direction {
                to,
                arena: Arc::clone(arena),
                link: Mutex::new(Link::GOOD),
                changed: Condvar::new(),
                is_over: AtomicBool::new(false),
                seed: rng.next(),
            });
            let address = listener.local_addr().unwrap();
            let listens = Arc::clone(&direction);
            let listens = Some(thread::spawn(move || listen(&listener, &listens)));
            Side { direction, address, listens }
        };
        let count = arena.members();
        let sides = (0..count).map(|_| (0..count).map(&mut side).collect()).collect();
        Self { sides }
    }

    /// The addresses at which a member reaches the others.
    pub(crate) fn addresses(&self, from: usize) -> Vec<SocketAddr> {
        self.sides[from].iter().map(|side| side.address).collect()
    }

    pub(crate) fn set(&self, from: usize, to: usize, change: impl FnOnce(&mut Link)) {
        let direction = &self.sides[from][to].direction;
        change(&mut direction.link.lock().unwrap());
        direction.changed.notify_all();
    }

    pub(crate) fn heal(&self) {
        for (from, sides) in self.sides.iter().enumerate() {
            (0..sides.len()).for_each(|to| self.set(from, to, |link| *link = Link::GOOD));
        }
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        for side in self.sides.iter_mut().flatten() {
            side.direction.is_over.store(true, Ordering::SeqCst);
            let _ = TcpStream::connect(side.address);
            let _ = side.listens.take().map(JoinHandle::join);
        }
    }
}

fn listen(listener: &TcpListener, direction: &Arc<Direction>) {
    let mut rng = Rng::new(direction.seed);
    for stream in listener.incoming().flatten() {
        if direction.is_over.load(Ordering::SeqCst) {
            return;
        }
        let (direction, rng) = (Arc::clone(direction), Rng::new(rng.next()));
        thread::spawn(move || {
            let _ = Passage::new(&direction, rng).carry(stream);
        });
    }
}

/// One connection through the controller.
struct Passage<'a> {
    direction: &'a Direction,
    rng: Rng,
    sender: [u8; 8],
    target: Option<BufWriter<TcpStream>>,
    /// A frame that is sent after the next one.
    held: Option<Vec<u8>>,
    old: VecDeque<Vec<u8>>,
}

const OLD: usize = 64;
const BLOCKED: Duration = Duration::from_secs(10);

impl<'a> Passage<'a> {
    fn new(direction: &'a Direction, rng: Rng) -> Self {
        Self { direction, rng, sender: [0; 8], target: None, held: None, old: VecDeque::new() }
    }

    /// Until either side closes its connection.
    fn carry(mut self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut stream = BufReader::with_capacity(1 << 16, stream);
        stream.read_exact(&mut self.sender)?;
        loop {
            let mut length = [0; 4];
            stream.read_exact(&mut length)?;
            let mut frame = vec![0; u32::from_le_bytes(length) as usize];
            stream.read_exact(&mut frame)?;
            let link = self.wait();
            match link.flow {
                Flow::Closed => return Ok(()),
                Flow::Lost => (self.held, self.target) = (None, None),
                Flow::Open if link.noise == 0 => self.pass(&frame)?,
                Flow::Open => self.pass_with_noise(frame, link.noise)?,
            }
        }
    }

    /// Waits as long as the link is slow, and returns what it is then.
    fn wait(&self) -> Link {
        let link = self.direction.link.lock().unwrap();
        let delay = link.delay;
        let waits = |link: &mut Link| !delay.is_zero() && link.delay == delay;
        *self.direction.changed.wait_timeout_while(link, delay, waits).unwrap().0
    }

    fn pass_with_noise(&mut self, frame: Vec<u8>, noise: u64) -> io::Result<()> {
        if self.old.len() == OLD {
            self.old.pop_front();
        }
        self.old.push_back(frame.clone());
        if self.held.is_none() && self.rng.one_in(noise) {
            self.held = Some(frame);
            return Ok(());
        }
        self.pass(&frame)?;
        if let Some(held) = self.held.take() {
            self.pass(&held)?;
        }
        if self.rng.one_in(noise) {
            self.pass(&frame)?;
        }
        if self.rng.one_in(noise) {
            let index = self.rng.index(self.old.len());
            let old = self.old[index].clone();
            self.pass(&old)?;
        }
        Ok(())
    }

    fn pass(&mut self, frame: &[u8]) -> io::Result<()> {
        let target = if let Some(target) = &mut self.target {
            target
        } else {
            let to = self.direction.arena.address(self.direction.to);
            let to = to.ok_or(io::ErrorKind::ConnectionRefused)?;
            let stream = TcpStream::connect_timeout(&to.frames, BLOCKED)?;
            stream.set_nodelay(true)?;
            stream.set_write_timeout(Some(BLOCKED))?;
            let target = self.target.insert(BufWriter::with_capacity(1 << 16, stream));
            target.write_all(&self.sender)?;
            target
        };
        let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
        target.write_all(&length.to_le_bytes())?;
        target.write_all(frame)?;
        target.flush()
    }
}

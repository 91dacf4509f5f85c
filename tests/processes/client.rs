//! A connection of the controller to a member: one line is asked, one is answered.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use crate::arena::Arena;
use crate::history::{Answer, PARTITIONS, Run, Value};

/// Longer than a call waits for a majority: who does not answer is stopped, or dead.
const PATIENCE: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_millis(500);

struct Connection {
    run: Run,
    session: u64,
    stream: BufReader<TcpStream>,
}

/// What was answered, and when it was asked and answered.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) run: Run,
    pub(crate) session: u64,
    /// `None` if there was no answer: what was asked for may happen at any time.
    pub(crate) text: Option<String>,
}

impl Answered {
    /// The rest of an answer that begins with `ok`.
    pub(crate) fn ok(&self) -> Option<&str> {
        self.text.as_deref()?.strip_prefix("ok").map(str::trim_start)
    }

    /// The end of the interval in which it happened.
    pub(crate) fn end(&self, answer: Answer) -> u64 {
        if answer == Answer::Unknown { u64::MAX } else { self.to }
    }

    /// The member that leads, if the answer says so.
    pub(crate) fn leader(&self) -> Option<usize> {
        let mut words = self.text.as_deref()?.split(' ');
        let leader: usize = words.nth(1).filter(|_| !self.is_ok())?.parse().ok()?;
        leader.checked_sub(1)
    }

    fn is_ok(&self) -> bool {
        self.text.as_deref().is_some_and(|text| text.starts_with("ok") || text.starts_with("at"))
    }
}

/// A client that talks to one member at a time.
pub(crate) struct Client {
    arena: Arc<Arena>,
    /// The member to which it connects next.
    pub(crate) member: usize,
    patience: Duration,
    connection: Option<Connection>,
}

impl Client {
    pub(crate) fn new(arena: &Arc<Arena>, member: usize) -> Self {
        Self { arena: Arc::clone(arena), member, patience: PATIENCE, connection: None }
    }

    pub(crate) fn impatient(arena: &Arc<Arena>, member: usize, patience: Duration) -> Self {
        Self { patience, ..Self::new(arena, member) }
    }

    /// Asks the member; `None` if it cannot be reached: then nothing was asked.
    pub(crate) fn ask(&mut self, line: &str) -> Option<Answered> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect()?,
        };
        let from = self.arena.count();
        let sent = writeln!(connection.stream.get_mut(), "{line}");
        let mut text = String::new();
        let is_whole = sent.is_ok()
            && connection.stream.read_line(&mut text).is_ok()
            && text.strip_suffix('\n').is_some();
        let (run, session, to) = (connection.run, connection.session, self.arena.count());
        if is_whole {
            text.pop();
            self.connection = Some(connection);
        }
        Some(Answered { from, to, run, session, text: is_whole.then_some(text) })
    }

    fn connect(&self) -> Option<Connection> {
        let address = self.arena.address(self.member)?;
        let stream = TcpStream::connect_timeout(&address.clients, CONNECT).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(self.patience)).ok()?;
        stream.set_write_timeout(Some(self.patience)).ok()?;
        let (run, session) = (address.run, self.arena.count());
        Some(Connection { run, session, stream: BufReader::new(stream) })
    }

    /// Ends the connection: what it had open is closed there.
    pub(crate) fn leave(&mut self) {
        self.connection = None;
    }

    /// Asks a member that is said to lead, or the next one.
    pub(crate) fn turn(&mut self, leader: Option<usize>) {
        let next = leader.unwrap_or(self.member + 1) % self.arena.members();
        if next != self.member {
            self.leave();
            self.member = next;
        }
    }
}

/// The outcome of a send.
pub(crate) fn answer(text: Option<&str>) -> Answer {
    let Some(text) = text else { return Answer::Unknown };
    let mut words = text.split(' ');
    match (words.next(), words.next().and_then(|word| word.parse().ok())) {
        (Some("at"), Some(offset)) => Answer::At(offset),
        (Some("duplicate"), _) => Answer::Duplicate,
        (Some("refused"), _) => Answer::Refused,
        (Some("unknown"), _) => Answer::Unknown,
        _ => panic!("{text:?} is no answer"),
    }
}

/// `topic/partition`, and what follows.
fn at(text: &str) -> (usize, Option<&str>) {
    let mut parts = text.split('/');
    let (topic, partition) = (parts.next().unwrap(), parts.next().unwrap().parse().unwrap());
    let number = PARTITIONS.iter().position(|it| *it == (topic, partition));
    (number.expect("a partition"), parts.next())
}

/// `topic/partition/offset=value`.
pub(crate) fn record(text: &str) -> (usize, u64, Value) {
    let (position, value) = text.split_once('=').expect("a record");
    let (partition, offset) = at(position);
    (partition, offset.expect("an offset").parse().unwrap(), Value::new(value))
}

/// `topic/partition=position`.
pub(crate) fn position(text: &str) -> (usize, u64) {
    let (partition, position) = text.split_once('=').expect("a position");
    (at(partition).0, position.parse().unwrap())
}

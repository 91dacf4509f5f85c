//! A member: this test binary again, as a process with a directory, a transport over TCP, and a
//! second port at which clients ask it for what an application would call. One line is asked, one is
//! answered.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use logpond::{
    Acks, Batch, Broker, Consumer, Durability, Election, Error, LeaderEpoch, NodeId, Producer,
    Record, Replication, Result, SendOutcome, TopicConfig, TopicPartition,
};

use crate::common::{child_dir, from_env};
use crate::history::value_of;
use crate::tcp::Tcp;

pub(crate) const NAME: &str = "member::child_is_a_member";
/// The child's settings: its number, the addresses of all, and the time-out of the election.
pub(crate) const NODE: &str = "LOGPOND_CHILD_NODE";
pub(crate) const LINKS: &str = "LOGPOND_CHILD_LINKS";
pub(crate) const TIMEOUT: &str = "LOGPOND_CHILD_TIMEOUT";
/// A member that breaks its word, to show that this is noticed.
pub(crate) const FAULT: &str = "LOGPOND_CHILD_FAULT";
/// It acknowledges what it alone has.
pub(crate) const EARLY: &str = "early";
/// Nobody is elected: the controller says who leads.
pub(crate) const CALLED: &str = "LOGPOND_CHILD_CALLED";

/// How long a call waits for a majority. Clients wait longer.
const ACK_TIMEOUT: Duration = Duration::from_secs(3);
/// How long an empty poll waits.
const POLL: Duration = Duration::from_millis(40);
const SEGMENT: u64 = 64 << 10;
/// No file can grow to this length if the disk is full; no segment is that small.
pub(crate) const FULL: u64 = 32 << 10;

#[test]
fn child_is_a_member() {
    let Some(dir) = child_dir() else { return };
    // Whatever happens to the controller.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    let me = NodeId(from_env(NODE, 0));
    let links = std::env::var(LINKS).unwrap();
    let addresses = links.split(',').map(|address| address.parse::<SocketAddr>().unwrap());
    let members: Vec<_> = (1..).map(NodeId).zip(addresses).collect();
    let timeout = Duration::from_millis(from_env(TIMEOUT, 300));
    let nodes = members.iter().map(|(node, _)| *node);
    let replication = Replication::new(me, nodes, Arc::new(Tcp::new(me, &members)))
        .heartbeat(timeout / 6)
        .ack_timeout(ACK_TIMEOUT);
    let replication = match std::env::var_os(CALLED) {
        Some(_) => replication,
        None => replication.elect(Election { timeout }),
    };
    let any = ("127.0.0.1", 0);
    let (frames, clients) = (TcpListener::bind(any).unwrap(), TcpListener::bind(any).unwrap());
    let ports = [&frames, &clients].map(|it| it.local_addr().unwrap().port());
    Tcp::listen(frames, replication.handle());
    let broker = Broker::builder().data_dir(dir).replication(replication).open().unwrap();
    let recovery = broker.recovery();
    let damage = recovery.partitions.iter().find(|it| !it.corrupt.is_empty());
    assert!(damage.is_none(), "a kill is no damage: {damage:?}");
    println!("\n@ports {} {}", ports[0], ports[1]);
    thread::spawn(move || {
        for stream in clients.incoming().flatten() {
            let broker = broker.clone();
            thread::spawn(move || serve(stream, broker));
        }
    });
    // Until the controller ends.
    let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
    std::process::exit(0);
}

fn serve(stream: TcpStream, broker: Broker) {
    let _ = stream.set_nodelay(true);
    let Ok(mut answers) = stream.try_clone() else { return };
    let is_early = std::env::var(FAULT).is_ok_and(|fault| fault == EARLY);
    let mut client = Client { broker, is_early, named: BTreeMap::new(), consumer: None };
    for line in BufReader::new(stream).lines().map_while(std::io::Result::ok) {
        let answer = client.answer(&line).replace('\n', " ");
        if writeln!(answers, "{answer}").is_err() {
            return;
        }
    }
}

/// What one connection has open.
struct Client {
    broker: Broker,
    is_early: bool,
    named: BTreeMap<String, Producer>,
    consumer: Option<Consumer>,
}

/// An answer without a result: `ok`, `refused` with the member that leads or 0, or `unknown`.
fn outcome<T>(result: Result<T>, show: impl FnOnce(T) -> String) -> String {
    match result {
        Ok(value) => show(value),
        Err(error) => {
            let kind = if error.is_definite() { "refused" } else { "unknown" };
            let leader = match &error {
                Error::NotLeader { leader: Some(leader) } => leader.0,
                _ => 0,
            };
            format!("{kind} {leader} {error:?}")
        }
    }
}

fn ok<T>(result: Result<T>) -> String {
    outcome(result, |_| "ok".to_owned())
}

fn at(offset: u64) -> String {
    format!("at {offset}")
}

/// `topic/partition/offset=value` for each record.
fn records(batch: &Batch) -> String {
    let mut text = String::new();
    for message in batch {
        let value = String::from_utf8_lossy(message.value().unwrap_or_default());
        let (topic, partition) = (message.topic(), message.partition());
        let _ = write!(text, " {topic}/{partition}/{}={value}", message.offset());
    }
    text
}

impl Client {
    fn answer(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |text: &str| text.parse::<u64>().unwrap();
        match words.as_slice() {
            ["status"] => self.status(),
            ["send", topic, partition, acks, record] => {
                let is_leader_enough = self.is_early || *acks == "leader";
                self.send(is_leader_enough, (*topic, number(partition)), number(record))
            }
            ["queue", topic, partition, records @ ..] => {
                let records: Vec<u64> = records.iter().map(|record| number(record)).collect();
                self.queue((*topic, number(partition)), &records)
            }
            ["sequenced", id, sequence, topic, partition, record] => {
                let to = (*topic, number(partition));
                let result = self.send_sequenced(id, number(sequence), to, number(record));
                if result.is_err() {
                    // It may be fenced, or not known to the next leader.
                    self.named.remove(*id);
                }
                outcome(result, |outcome| match outcome {
                    SendOutcome::Appended(sent) => at(sent.offset),
                    SendOutcome::Duplicate { .. } => "duplicate".to_owned(),
                })
            }
            ["read", topic, partition, from, confirm] => {
                let to = (*topic, number(partition));
                outcome(self.read(to, number(from), *confirm == "1"), |answer| answer)
            }
            ["follow"] => {
                let opened = self.broker.reader().subscribe(["os", "sync"]).open();
                ok(opened.map(|opened| self.consumer = Some(opened)))
            }
            ["join", group] => {
                let opened = self.broker.consumer(group).subscribe(["os", "sync"]).open();
                ok(opened.map(|opened| self.consumer = Some(opened)))
            }
            ["poll", confirm] => outcome(self.poll(*confirm == "1"), |answer| answer),
            ["commit"] => outcome(self.commit(), |answer| answer),
            ["committed", group] => outcome(self.committed(group), |answer| answer),
            ["set-up"] => ok(self.set_up()),
            ["create", topic] => ok(self.broker.ensure_topic(topic, TopicConfig::new(1))),
            ["knows", topic] => ok(self.broker.topic(topic)),
            ["lead", epoch] => {
                let epoch = LeaderEpoch(u32::try_from(number(epoch)).unwrap());
                ok(self.broker.replication().unwrap().lead(epoch))
            }
            ["resign", to] => {
                let to = Some(NodeId(number(to))).filter(|to| to.0 > 0);
                ok(self.broker.replication().unwrap().resign(to))
            }
            ["replace", node] => {
                let node = NodeId(number(node));
                ok(self.broker.replication().unwrap().replace_member(node))
            }
            _ => format!("unknown 0 {line:?} is no request"),
        }
    }

    fn set_up(&self) -> Result<()> {
        let config = |partitions| TopicConfig::new(partitions).segment_bytes(SEGMENT);
        self.broker.ensure_topic("os", config(3).durability(Durability::Os))?;
        self.broker.ensure_topic("sync", config(2).durability(Durability::Sync))?;
        Ok(())
    }

    /// Role, epoch, leader, whether it may write, members with their states, and why it failed.
    fn status(&self) -> String {
        let status = self.broker.replication().unwrap().status();
        let members = status.members.iter().map(|it| format!("{}:{:?}", it.id, it.state));
        format!(
            "ok {:?} {} {} {} {} {}",
            status.role,
            status.epoch.0,
            status.leader.unwrap_or_default(),
            u8::from(status.may_write),
            members.collect::<Vec<_>>().join(","),
            status.failure.unwrap_or_default()
        )
    }

    fn send(&self, is_leader_enough: bool, to: (&str, u64), number: u64) -> String {
        let acks = if is_leader_enough { Acks::Leader } else { Acks::Quorum };
        let send = || {
            let producer = self.broker.producer_builder().acks(acks).build()?;
            producer.send(record(to, &value_of(number)))
        };
        outcome(send(), |sent| at(sent.offset))
    }

    /// Sends all without waiting in between. Answers are separated by `|`.
    fn queue(&self, to: (&str, u64), numbers: &[u64]) -> String {
        let producer = self.broker.producer();
        let queued: Vec<_> =
            numbers.iter().map(|number| producer.enqueue(record(to, &value_of(*number)))).collect();
        let answers = queued.into_iter().map(|delivery| {
            let result = delivery.and_then(logpond::Delivery::wait);
            outcome(result, |sent| at(sent.offset)).replace('|', " ")
        });
        answers.collect::<Vec<_>>().join("|")
    }

    fn send_sequenced(
        &mut self,
        id: &str,
        sequence: u64,
        to: (&str, u64),
        number: u64,
    ) -> Result<SendOutcome> {
        if !self.named.contains_key(id) {
            let producer = self.broker.producer_builder().id(id).build()?;
            self.named.insert(id.to_owned(), producer);
        }
        self.named[id].send_sequenced(sequence, record(to, &value_of(number)))
    }

    /// Whether this member leads, then the records, then the high watermark.
    fn read(&self, (topic, partition): (&str, u64), from: u64, confirms: bool) -> Result<String> {
        let partition = u32::try_from(partition).unwrap();
        let partition = self.broker.topic(topic)?.partition(partition)?;
        let is_confirmed = self.confirm(confirms);
        let batch = partition.read(from, 16 << 10)?;
        let mark = partition.high_watermark();
        Ok(format!("ok {mark} {is_confirmed}{}", records(&batch)))
    }

    fn confirm(&self, is_wanted: bool) -> u8 {
        u8::from(is_wanted && self.broker.replication().unwrap().confirm().is_ok())
    }

    fn poll(&mut self, confirms: bool) -> Result<String> {
        let is_confirmed = self.confirm(confirms);
        let batch = self.consumer.as_mut().ok_or(Error::Closed)?.poll(POLL)?;
        Ok(format!("ok {is_confirmed}{}", records(&batch)))
    }

    /// Commits all positions, and says which.
    fn commit(&mut self) -> Result<String> {
        let consumer = self.consumer.as_mut().ok_or(Error::Closed)?;
        let position = |it: &TopicPartition| Some((it.clone(), consumer.position(it)?));
        let positions: Vec<_> = consumer.assignment().iter().filter_map(position).collect();
        consumer.commit()?;
        Ok(shown(&positions))
    }

    fn committed(&self, group: &str) -> Result<String> {
        let group = self.broker.admin().describe_group(group)?;
        let committed = group.offsets.iter();
        let committed: Vec<_> =
            committed.filter_map(|it| Some((it.partition.clone(), it.committed?))).collect();
        Ok(shown(&committed))
    }
}

/// `topic/partition=position` for each.
fn shown(positions: &[(TopicPartition, u64)]) -> String {
    let mut text = "ok".to_owned();
    for (at, position) in positions {
        let _ = write!(text, " {}/{}={position}", at.topic, at.partition);
    }
    text
}

fn record<'a>((topic, partition): (&'a str, u64), value: &'a str) -> Record<'a> {
    Record::to(topic).partition(u32::try_from(partition).unwrap()).value(value)
}

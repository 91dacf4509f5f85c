//! Three copies of a queue, in three processes, whose leader is killed again and again.
//!
//! ```text
//! cargo run --release --features replication --example replicated
//! ```
//!
//! Each process is a member of a group: it has a data directory of its own, and a TCP transport to
//! the others (`tcp.rs`). They elect a leader. In its process a producer sends records, which are
//! acknowledged when two of the three have them, and a group of consumers works on them; in the
//! others a reader follows. For ten seconds the leader is killed with SIGKILL every second, and
//! started again. At the end: how many records were acknowledged, that each of them is where it was
//! acknowledged, in all three copies, and how long each failover took.

#![expect(clippy::print_stdout, reason = "an example shows what happens")]
#![expect(clippy::disallowed_methods, reason = "it measures how long failovers take")]

mod tcp;

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, unbounded};
use logpond::{Broker, Durability, Election, NodeId, Record, Replication, StartAt, TopicConfig};
use tcp::Tcp;

const TOPIC: &str = "orders";
const ELECTION: Election = Election { timeout: Duration::from_millis(300) };
const HEARTBEAT: Duration = Duration::from_millis(50);
const LASTS: Duration = Duration::from_secs(10);

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => control(),
        [node, dir, ports @ ..] => {
            let addresses: Result<Vec<_>, _> = ports.iter().map(|port| port.parse()).collect();
            member(NodeId(node.parse()?), Path::new(dir), &addresses?)
        }
        _ => Err("usage: replicated".into()),
    }
}

// ---- a member ------------------------------------------------------------------------------------

/// The ten lines that make a broker one of three.
fn open(me: NodeId, dir: &Path, members: &[(NodeId, SocketAddr)]) -> Outcome<Broker> {
    let nodes = members.iter().map(|(node, _)| *node);
    let replication = Replication::new(me, nodes, Arc::new(Tcp::new(me, members)))
        .elect(ELECTION)
        .heartbeat(HEARTBEAT);
    let (_, address) = members.iter().find(|(node, _)| *node == me).ok_or("not a member")?;
    Tcp::listen(TcpListener::bind(address)?, replication.handle());
    Ok(Broker::builder()
        .data_dir(dir)
        .durability(Durability::Os)
        .replication(replication)
        .open()?)
}

/// Runs until it is killed, or its standard input ends.
fn member(me: NodeId, dir: &Path, addresses: &[SocketAddr]) -> Outcome {
    let members: Vec<_> = (1..).map(NodeId).zip(addresses.iter().copied()).collect();
    let broker = open(me, dir, &members)?;
    thread::spawn({
        let broker = broker.clone();
        move || loop {
            // Both return when the leadership is lost, or there is none yet.
            let _ = produce(&broker, me);
        }
    });
    thread::spawn({
        let broker = broker.clone();
        move || loop {
            let _ = work(&broker);
        }
    });
    for line in std::io::stdin().lock().lines() {
        if line? == "dump" {
            dump(&broker)?;
        }
    }
    Ok(broker.close()?)
}

/// While this process leads: sends records, and says which were acknowledged.
fn produce(broker: &Broker, me: NodeId) -> Outcome {
    let member = broker.replication().ok_or("no replication")?;
    member.wait_leading(Duration::from_secs(1))?;
    broker.ensure_topic(TOPIC, TopicConfig::new(1))?;
    let epoch = member.status().epoch;
    say(&format!("leads {}", epoch.0));
    let producer = broker.producer();
    for number in 0_u64.. {
        let value = format!("{me}-{}-{number}", epoch.0);
        let sent = producer.send(Record::to(TOPIC).key("k").value(&value))?;
        say(&format!("acknowledged {} {value}", sent.offset));
    }
    Ok(())
}

/// While this process leads, a group works on the records; otherwise a reader follows them.
fn work(broker: &Broker) -> Outcome {
    let member = broker.replication().ok_or("no replication")?;
    if member.wait_leading(Duration::from_millis(200)).is_ok() {
        let mut group = broker.consumer("workers").subscribe([TOPIC]).open()?;
        loop {
            if !group.poll(Duration::from_millis(100))?.is_empty() {
                group.commit()?;
            }
        }
    }
    let mut reader = broker.reader().subscribe([TOPIC]).start(StartAt::Latest).open()?;
    while !member.status().may_write {
        let _ = reader.poll(Duration::from_millis(100))?;
    }
    Ok(())
}

/// Says what is in this copy.
fn dump(broker: &Broker) -> Outcome {
    let partition = broker.topic(TOPIC)?.partition(0)?;
    let mut next = partition.log_start_offset();
    loop {
        let batch = partition.read(next, 1 << 20)?;
        if batch.is_empty() {
            break;
        }
        for message in &batch {
            let value = String::from_utf8_lossy(message.value().unwrap_or_default()).into_owned();
            say(&format!("has {} {value}", message.offset()));
            next = message.offset() + 1;
        }
    }
    say("end");
    Ok(())
}

/// A line for the process that looks on. It may be gone.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

// ---- the process that looks on -------------------------------------------------------------------

/// What a member says.
enum Said {
    Leads(u64),
    Acknowledged(u64, String),
    Has(u64, String),
    End,
}

struct Member {
    node: u64,
    dir: PathBuf,
    process: Child,
}

fn start(node: u64, dir: PathBuf, ports: &[String], said: &Sender<(u64, Said)>) -> Outcome<Member> {
    let mut process = Command::new(std::env::current_exe()?)
        .arg(node.to_string())
        .arg(&dir)
        .args(ports)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let (lines, said) = (process.stdout.take().ok_or("no output")?, said.clone());
    thread::spawn(move || {
        for line in BufReader::new(lines).lines().map_while(Result::ok) {
            // The last line of a process that is killed may be half of one.
            if let Some(line) = understand(&line) {
                let _ = said.send((node, line));
            }
        }
    });
    Ok(Member { node, dir, process })
}

fn understand(line: &str) -> Option<Said> {
    let mut words = line.split(' ');
    match (words.next()?, words.next(), words.next()) {
        ("leads", Some(epoch), None) => Some(Said::Leads(epoch.parse().ok()?)),
        ("acknowledged", Some(offset), Some(value)) => {
            Some(Said::Acknowledged(offset.parse().ok()?, value.to_owned()))
        }
        ("has", Some(offset), Some(value)) => {
            Some(Said::Has(offset.parse().ok()?, value.to_owned()))
        }
        ("end", None, None) => Some(Said::End),
        _ => None,
    }
}

fn control() -> Outcome {
    let home = std::env::temp_dir().join(format!("logpond-replicated-{}", std::process::id()));
    let ports = free_ports()?;
    let (sender, said) = unbounded();
    let mut members = Vec::new();
    for node in 1..=3 {
        members.push(start(node, home.join(node.to_string()), &ports, &sender)?);
    }
    println!("three members in {}; killing the leader for {LASTS:?}", home.display());
    let outcome = watch(&mut members, &ports, &sender, &said);
    for member in &mut members {
        let _ = member.process.kill();
        let _ = member.process.wait();
    }
    let _ = std::fs::remove_dir_all(&home);
    outcome
}

fn watch(
    members: &mut [Member],
    ports: &[String],
    sender: &Sender<(u64, Said)>,
    said: &Receiver<(u64, Said)>,
) -> Outcome {
    let mut acknowledged = BTreeMap::new();
    let mut failovers = Vec::new();
    let begun = Instant::now();
    let (mut killed_at, mut first_since) = (None::<Instant>, None::<Instant>);
    while begun.elapsed() < LASTS || killed_at.is_some() {
        let (node, line) = said.recv_timeout(Duration::from_secs(20))?;
        let Said::Acknowledged(offset, value) = line else {
            if let Said::Leads(epoch) = line {
                println!("member {node} leads epoch {epoch}");
            }
            continue;
        };
        acknowledged.insert(offset, value);
        let since = *first_since.get_or_insert_with(Instant::now);
        if let Some(killed_at) = killed_at.take() {
            failovers.push(killed_at.elapsed());
        }
        if since.elapsed() >= Duration::from_secs(1) && begun.elapsed() < LASTS {
            let leader = members.iter_mut().find(|it| it.node == node).ok_or("no such member")?;
            leader.process.kill()?;
            leader.process.wait()?;
            (killed_at, first_since) = (Some(Instant::now()), None);
            // What it said before it died.
            while let Ok((_, line)) = said.try_recv() {
                if let Said::Acknowledged(offset, value) = line {
                    acknowledged.insert(offset, value);
                }
            }
            *leader = start(node, leader.dir.clone(), ports, sender)?;
        }
    }
    check(members, said, &acknowledged)?;
    failovers.sort();
    let middle = failovers.get(failovers.len() / 2).ok_or("nobody was killed")?;
    let longest = failovers.last().ok_or("nobody was killed")?;
    println!("{} records were acknowledged; all three copies have them", acknowledged.len());
    println!(
        "{} times the leader was killed; the next record was acknowledged after {middle:.0?} \
         (median), {longest:.0?} at most",
        failovers.len()
    );
    Ok(())
}

/// Each record that was acknowledged is in each copy, at its offset. A copy that is behind is asked
/// again.
fn check(
    members: &mut [Member],
    said: &Receiver<(u64, Said)>,
    acknowledged: &BTreeMap<u64, String>,
) -> Outcome {
    for member in members {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let mut has = BTreeMap::new();
            let input = member.process.stdin.as_mut().ok_or("no input")?;
            writeln!(input, "dump")?;
            loop {
                match said.recv_timeout(Duration::from_secs(20))? {
                    (node, Said::Has(offset, value)) if node == member.node => {
                        has.insert(offset, value);
                    }
                    (node, Said::End) if node == member.node => break,
                    _ => {}
                }
            }
            let wrong =
                acknowledged.iter().find(|(offset, value)| has.get(*offset) != Some(*value));
            match wrong {
                None => break,
                Some((offset, _)) if has.contains_key(offset) || Instant::now() > deadline => {
                    let node = member.node;
                    return Err(format!("member {node} lacks the record at offset {offset}").into());
                }
                Some(_) => {}
            }
        }
    }
    Ok(())
}

/// Addresses that nobody uses at the moment.
fn free_ports() -> Outcome<Vec<String>> {
    let listeners: Result<Vec<_>, _> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0")).collect();
    let addresses = listeners?.into_iter().map(|it| Ok(it.local_addr()?.to_string()));
    addresses.collect()
}

//! What a child said, and whether a directory keeps to it.
//!
//! One line per statement, `@<microseconds> <verb> <words>`, written before a call and after it.
//! What was said before a kill arrives whole; a line that was cut says nothing.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::Write;
use std::ops::AddAssign;
use std::path::Path;
use std::time::SystemTime;

use crate::common::*;
use logpond::{Broker, Clock, Durability, Error, Message, Record, SystemClock};

/// One line in one write.
pub(crate) fn say(line: &str) {
    let line = format!("\n@{} {line}\n", micros(SystemClock::new().now()));
    let mut out = std::io::stdout().lock();
    // The reader may have ended first.
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}

/// A moment, as other processes of this machine know it too.
fn micros(now: SystemTime) -> u128 {
    now.duration_since(SystemTime::UNIX_EPOCH).expect("a clock").as_micros()
}

/// A topic and the number of a partition.
type PartitionName = (String, u32);

/// What is known of one partition.
#[derive(Debug, Default, Clone)]
struct Said {
    sent: HashSet<String>,
    /// By offset.
    acked: BTreeMap<u64, String>,
    /// Said to be acknowledged when the power was already off.
    late: BTreeSet<String>,
    /// Refused by a definite error: never there.
    refused: HashSet<String>,
    committing: BTreeSet<u64>,
    committed: Option<u64>,
    /// How far records were to be deleted, and for sure were.
    deleting: u64,
    deleted: u64,
}

/// Whether a topic is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Present,
    Absent,
    Unknown,
}

#[derive(Debug, Default, Clone)]
pub(crate) struct Ledger {
    partitions: BTreeMap<PartitionName, Said>,
    topics: BTreeMap<String, Presence>,
    /// Whether the child came to its first call, and to its end.
    pub(crate) began: bool,
    pub(crate) ended: bool,
    /// Calls that failed, and how.
    pub(crate) failures: Vec<String>,
    /// Whether its last run ended cleanly, as `close` said.
    pub(crate) closed: bool,
    pub(crate) acks: u64,
    /// How many closes have shortened a file, and how many have not.
    pub(crate) closes: (u64, u64),
    /// When the power was cut. What was acknowledged after that is no acknowledgement: a machine
    /// without power gives none, while a file system that is shut down under a running kernel
    /// answers some syncs with success and forgets them.
    pub(crate) cut_at: Option<u128>,
}

impl Ledger {
    pub(crate) fn hear(&mut self, line: &str) {
        // Anything else is the test harness talking.
        let Some(line) = line.strip_prefix('@') else { return };
        let (stamp, line) = line.split_once(' ').expect("a time");
        let is_late = self.cut_at.is_some_and(|cut| stamp.parse::<u128>().unwrap() >= cut);
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb {
            "acked" | "committed" if is_late => self.hear_of_partition("late", rest),
            "began" => self.began = true,
            "ended" => self.ended = true,
            "opened" => self.closed = false,
            "closed" => self.closed = true,
            "shortened" => self.closes.0 += 1,
            "kept" => self.closes.1 += 1,
            "failed" => self.failures.push(rest.to_owned()),
            "topic" => {
                let (name, state) = rest.split_once(' ').expect("a state");
                let presence = match state {
                    "present" => Presence::Present,
                    "absent" => Presence::Absent,
                    _ => Presence::Unknown,
                };
                self.topics.insert(name.to_owned(), presence);
            }
            _ => self.hear_of_partition(verb, rest),
        }
    }

    fn hear_of_partition(&mut self, verb: &str, rest: &str) {
        let mut words = rest.splitn(3, ' ');
        let mut word = || words.next().expect("a word").to_owned();
        let partition = (word(), word().parse().unwrap());
        let said = self.partitions.entry(partition.clone()).or_default();
        let rest = words.next().expect("more words");
        match verb {
            "sending" => {
                assert!(said.sent.insert(rest.to_owned()), "{rest} was sent twice");
            }
            "acked" => {
                let (offset, id) = rest.split_once(' ').unwrap();
                let before = said.acked.insert(offset.parse().unwrap(), id.to_owned());
                assert_eq!(before, None, "two records were acknowledged at {partition:?} {offset}");
                self.acks += 1;
            }
            "late" => {
                said.late.insert(rest.to_owned());
            }
            "refused" => {
                said.refused.insert(rest.to_owned());
            }
            "committing" => {
                said.committing.insert(rest.parse().unwrap());
            }
            "committed" => {
                said.committed = rest.parse().ok().max(said.committed);
                self.acks += 1;
            }
            "deleting" => said.deleting = said.deleting.max(rest.parse().unwrap()),
            "deleted" => said.deleted = said.deleted.max(rest.parse().unwrap()),
            _ => panic!("{verb} {rest:?}"),
        }
    }

    /// All lines of a child.
    pub(crate) fn hear_all(&mut self, output: &[u8]) {
        let text = String::from_utf8_lossy(output);
        // What follows the last line end was cut.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().for_each(|line| self.hear(line));
    }

    /// As [`check`](Self::check), once per cut: the next one has its own late ones.
    pub(crate) fn check_and_forget_late(&mut self, dir: &Path, context: &str) -> Late {
        let late = self.check(dir, context);
        self.partitions.values_mut().for_each(|said| said.late.clear());
        late
    }

    /// Opens the directory, as nothing stands in the way any more, and holds it against what was
    /// said. Then sees whether it is whole: everything can continue, end cleanly, and be there
    /// again. Returns how many acknowledgements came too late to count, and how many of those are
    /// lost.
    pub(crate) fn check(&self, dir: &Path, context: &str) -> Late {
        let open = || {
            let builder = Broker::builder().data_dir(dir).durability(Durability::Sync);
            builder.background(false).open().unwrap_or_else(|error| panic!("{context}: {error:?}"))
        };
        let broker = open();
        let report = broker.recovery();
        for partition in &report.partitions {
            assert_eq!(partition.corrupt, [], "{context}: no damage was done: {partition:?}");
        }
        assert_eq!(report.unknown, Vec::<std::path::PathBuf>::new(), "{context}: left behind");
        for (name, presence) in &self.topics {
            match (presence, broker.topic(name)) {
                (Presence::Present, Err(error)) => panic!("{context}: {name}: {error:?}"),
                (Presence::Absent, Ok(_)) => panic!("{context}: {name} is back"),
                _ => {}
            }
        }
        let (mut after, mut late) = (BTreeMap::new(), Late::default());
        for ((name, number), said) in &self.partitions {
            let context = &format!("{context}: {name}-{number}");
            let Ok(topic) = broker.topic(name) else { continue };
            let partition = topic.partition(*number).unwrap();
            let messages = read_all(&partition);
            late += said.check(&messages, partition.log_start_offset(), context);
            check_commit(&broker, name, *number, said, context);
            let next = partition.append(&Record::new().key("last").value("last 1")).unwrap();
            after.insert((name.clone(), *number), next);
        }
        broker.close().unwrap();
        let broker = open();
        assert!(broker.recovery().clean_shutdown, "{context}: a clean end is one");
        for ((name, number), last) in after {
            let partition = broker.topic(&name).unwrap().partition(number).unwrap();
            let end = read_all(&partition).last().map(Message::offset);
            assert_eq!(end, Some(last), "{context}: {name}-{number} continues");
        }
        late
    }
}

fn check_commit(broker: &Broker, name: &str, number: u32, said: &Said, context: &str) {
    let consumer = broker.consumer("g").assign([tp(name, number)]).open().unwrap();
    let found = match consumer.committed(tp(name, number)) {
        Ok(found) => found,
        Err(Error::Truncated { .. }) => None,
        Err(error) => panic!("{context}: {error:?}"),
    };
    assert!(found >= said.committed, "{context}: {found:?} is behind {:?}", said.committed);
    if let Some(found) = found {
        assert!(said.committing.contains(&found), "{context}: nobody committed {found}");
    }
}

/// Acknowledgements that came after the cut, and those of them that were lost.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Late {
    pub(crate) said: usize,
    pub(crate) lost: usize,
}

impl AddAssign for Late {
    fn add_assign(&mut self, other: Self) {
        self.said += other.said;
        self.lost += other.lost;
    }
}

/// The part of a value that names it.
pub(crate) fn id_of(value: &str) -> String {
    let mut words = value.splitn(3, ' ');
    format!("{} {}", words.next().unwrap(), words.next().expect("a number"))
}

impl Said {
    fn check(&self, messages: &[Message], start: u64, context: &str) -> Late {
        assert!(start <= self.deleting && start >= self.deleted, "{context}: starts at {start}");
        let mut last = BTreeMap::<String, u64>::new();
        let mut found = BTreeMap::new();
        let mut latest = BTreeMap::<Vec<u8>, u64>::new();
        for message in messages {
            let id = id_of(&text(message));
            let (producer, count) = id.split_once(' ').unwrap();
            if producer == "last" {
                continue; // of an earlier check
            }
            let at = message.offset();
            assert!(self.sent.contains(&id), "{context}: {at}: {id} was never sent");
            assert!(!self.refused.contains(&id), "{context}: {at}: {id} was refused for sure");
            let count: u64 = count.parse().unwrap();
            let before = last.insert(producer.to_owned(), count);
            assert!(before.is_none_or(|before| before < count), "{context}: {id} after {before:?}");
            if let Some(key) = message.key() {
                latest.insert(key.to_vec(), at);
            }
            found.insert(at, id);
        }
        let is_keyed = !latest.is_empty();
        if !is_keyed {
            assert_dense(messages, start);
        }
        let end = messages.last().map_or(start, Message::next_offset);
        for (offset, id) in self.acked.range(start..) {
            assert!(*offset < end, "{context}: lost {id} at {offset}, the end is {end}");
            match found.get(offset) {
                Some(there) => assert_eq!(there, id, "{context}: at {offset}"),
                // A later record of its key replaced it.
                None => assert!(is_keyed, "{context}: {id} at {offset} is lost"),
            }
        }
        if is_keyed {
            // The key is the number's remainder: see the workload.
            let missing = self.acked.iter().filter(|(offset, id)| {
                let key = crate::workload::key_of(id);
                latest.get(key.as_bytes()).is_none_or(|latest| latest < offset)
            });
            assert_eq!(missing.collect::<Vec<_>>(), [], "{context}: keys lost");
        }
        let is_lost = |late: &&String| {
            let (offset, id) = late.split_once(' ').unwrap_or((late, ""));
            !id.is_empty() && found.get(&offset.parse().unwrap()).is_none_or(|it| it != id)
        };
        Late { said: self.late.len(), lost: self.late.iter().filter(is_lost).count() }
    }
}

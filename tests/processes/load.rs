//! The clients: producers, groups and readers. Each is a thread of the controller that asks one
//! member at a time and notes what it asked and was answered.

use std::sync::Arc;
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

use crate::arena::Arena;
use crate::client::{Answered, Client, answer, position, record};
use crate::common::Rng;
use crate::history::{Answer, By, Event, PARTITIONS, Run, Value, What};

/// How long a client waits before it asks another member.
const BACK_OFF: Duration = Duration::from_millis(5);
/// How long a producer with sequence numbers repeats its last record after the round.
const LAST_TRIES: u32 = 1_000;

/// How many clients of each kind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mix {
    pub(crate) senders: u64,
    pub(crate) queues: u64,
    pub(crate) sequences: u64,
    pub(crate) consumers: u64,
    /// At each member.
    pub(crate) readers: u64,
}

pub(crate) const GROUPS: u32 = 2;

/// A client with what it has noted.
pub(crate) struct Load {
    pub(crate) arena: Arc<Arena>,
    client: Client,
    rng: Rng,
    events: Vec<Event>,
}

impl Load {
    pub(crate) fn new(arena: &Arc<Arena>, member: usize, seed: u64) -> Self {
        let (client, rng) = (Client::new(arena, member), Rng::new(seed));
        Self { arena: Arc::clone(arena), client, rng, events: Vec::new() }
    }

    pub(crate) fn into_events(self) -> Vec<Event> {
        self.events
    }

    /// The member that it asks.
    pub(crate) fn member(&self) -> usize {
        self.client.member
    }

    fn note(&mut self, (from, to): (u64, u64), what: What) {
        self.events.push(Event { from, to, what });
    }

    fn partition(&mut self) -> usize {
        self.rng.index(PARTITIONS.len())
    }

    /// Asks; if the member cannot be reached, the next one is asked later.
    fn ask(&mut self, line: &str) -> Option<Answered> {
        let answered = self.client.ask(line);
        if answered.is_none() {
            self.turn(None);
        }
        answered
    }

    fn turn(&mut self, leader: Option<usize>) {
        self.client.turn(leader);
        self.arena.pause(BACK_OFF);
    }

    fn note_sent(&mut self, partition: usize, number: u64, by: By, answered: &Answered) -> Answer {
        let answer = answer(answered.text.as_deref());
        let what = What::Sent { partition, number, by, answer };
        self.note((answered.from, answered.end(answer)), what);
        if matches!(answer, Answer::At(_)) {
            self.arena.note_acknowledged();
        }
        answer
    }

    /// Sends one record, once, and returns whether it was acknowledged.
    pub(crate) fn send(&mut self, partition: usize, by: By) -> Option<u64> {
        let number = self.arena.count();
        let acks = if by == By::Leader { "leader" } else { "quorum" };
        let (topic, rank) = PARTITIONS[partition];
        let answered = self.ask(&format!("send {topic} {rank} {acks} {number}"))?;
        match self.note_sent(partition, number, by, &answered) {
            Answer::At(offset) => return Some(offset),
            Answer::Duplicate => unreachable!("a record without a number"),
            Answer::Refused | Answer::Unknown => self.turn(answered.leader()),
        }
        None
    }

    fn send_until_over(mut self, by: By) -> Vec<Event> {
        while !self.arena.is_over() {
            let partition = self.partition();
            self.send(partition, by);
            if by == By::Leader {
                self.arena.pause(BACK_OFF);
            }
        }
        self.events
    }

    /// Several records that do not wait for each other.
    fn queue_until_over(mut self) -> Vec<Event> {
        while !self.arena.is_over() {
            let (partition, batch) = (self.partition(), self.arena.count());
            let count = 1 + self.rng.below(20);
            let numbers: Vec<u64> = (0..count).map(|_| self.arena.count()).collect();
            let (topic, rank) = PARTITIONS[partition];
            let shown: Vec<_> = numbers.iter().map(u64::to_string).collect();
            let line = format!("queue {topic} {rank} {}", shown.join(" "));
            let Some(answered) = self.ask(&line) else { continue };
            let mut texts = answered.text.as_deref().map(|text| text.split('|'));
            let mut leader = Some(None);
            for (index, number) in numbers.into_iter().enumerate() {
                let text = texts.as_mut().map(|it| it.next().expect("an answer").to_owned());
                let one = Answered { text, ..answered };
                let by = By::Queue { batch, index };
                if let Answer::At(_) = self.note_sent(partition, number, by, &one) {
                    leader = None;
                } else if let Some(leader) = &mut leader {
                    *leader = leader.or(one.leader());
                }
            }
            // Nothing was acknowledged.
            if let Some(leader) = leader {
                self.turn(leader);
            }
        }
        self.events
    }

    /// Numbers its records, and repeats each until it is acknowledged.
    fn send_sequenced_until_over(mut self, producer: u64) -> Vec<Event> {
        let mut sequence = 0;
        while !self.arena.is_over() {
            sequence += 1;
            let (partition, number) = (self.partition(), self.arena.count());
            let (topic, rank) = PARTITIONS[partition];
            let line = format!("sequenced source-{producer} {sequence} {topic} {rank} {number}");
            let (mut from, mut tries) = (None, 0);
            let (to, answer) = loop {
                tries += u32::from(self.arena.is_over());
                if tries > LAST_TRIES {
                    break (u64::MAX, Answer::Unknown);
                }
                let Some(answered) = self.ask(&line) else { continue };
                from.get_or_insert(answered.from);
                match answer(answered.text.as_deref()) {
                    Answer::Refused | Answer::Unknown => self.turn(answered.leader()),
                    // Some records again: they must be stored once.
                    Answer::At(_) if self.rng.one_in(8) => {}
                    acknowledged => break (answered.to, acknowledged),
                }
            };
            let Some(from) = from else { continue };
            let by = By::Sequence { producer, sequence };
            self.note((from, to), What::Sent { partition, number, by, answer });
            if answer != Answer::Unknown {
                self.arena.note_acknowledged();
            }
        }
        self.events
    }

    /// A member of a group, which leaves now and then.
    fn consume_until_over(mut self, group: u32) -> Vec<Event> {
        while !self.arena.is_over() {
            if self.join(group) {
                while !self.arena.is_over() && self.poll(group).is_some() {
                    if self.rng.one_in(100) {
                        break;
                    }
                }
            }
            self.client.leave();
        }
        self.events
    }

    fn join(&mut self, group: u32) -> bool {
        let Some(answered) = self.ask(&format!("join group-{group}")) else { return false };
        let has_joined = answered.ok().is_some();
        if !has_joined {
            self.turn(answered.leader());
        }
        has_joined
    }

    /// Polls, and mostly commits. `None` if it has to join again.
    fn poll(&mut self, group: u32) -> Option<usize> {
        let confirm = u8::from(!self.rng.one_in(3));
        let answered = self.ask(&format!("poll {confirm}"))?;
        let Some(text) = answered.ok() else {
            self.turn(answered.leader());
            return None;
        };
        let mut words = text.split(' ');
        let is_confirmed = words.next() == Some("1");
        let records: Vec<_> = words.map(record).collect();
        let count = records.len();
        let what = What::Polled { group, records, is_confirmed };
        self.note((answered.from, answered.to), what);
        if count > 0 && !self.rng.one_in(4) {
            self.commit(group)?;
        }
        Some(count)
    }

    fn commit(&mut self, group: u32) -> Option<()> {
        let answered = self.ask("commit")?;
        let Some(text) = answered.ok() else {
            self.turn(answered.leader());
            return None;
        };
        let positions = text.split(' ').filter(|it| !it.is_empty()).map(position).collect();
        self.note((answered.from, answered.to), What::Committed { group, positions });
        Some(())
    }

    /// At the end: reads what there is, and commits it. Returns when two polls were empty.
    pub(crate) fn drain(&mut self, group: u32) -> Option<()> {
        if !self.join(group) {
            return None;
        }
        let mut empty = 0;
        while empty < 3 {
            empty = if self.poll(group)? == 0 { empty + 1 } else { 0 };
        }
        self.commit(group)?;
        self.client.leave();
        Some(())
    }

    /// Reads at one member, whether it leads or not.
    fn read_until_over(mut self) -> Vec<Event> {
        let member = self.client.member;
        while !self.arena.is_over() {
            if self.rng.one_in(2) {
                self.follow();
            } else {
                self.look();
            }
            self.client.leave();
            self.client.member = member;
            self.arena.pause(BACK_OFF);
        }
        self.events
    }

    /// By a reader that is woken.
    fn follow(&mut self) {
        if self.client.ask("follow").is_none_or(|answered| answered.ok().is_none()) {
            return;
        }
        while !self.arena.is_over() && !self.rng.one_in(100) {
            let Some(answered) = self.client.ask("poll 0") else { return };
            let Some(text) = answered.ok() else { return self.note_failed(&answered) };
            let mut partitions = vec![Vec::new(); PARTITIONS.len()];
            for (partition, offset, value) in text.split(' ').skip(1).map(record) {
                partitions[partition].push((offset, value));
            }
            for (partition, records) in partitions.into_iter().enumerate() {
                if !records.is_empty() {
                    let (at, session) = (answered.run, answered.session);
                    let (mark, is_confirmed) = (None, false);
                    let what = What::Read { at, session, partition, records, mark, is_confirmed };
                    self.note((answered.from, answered.to), what);
                }
            }
        }
    }

    /// By offset, beside the watermark.
    fn look(&mut self) {
        let mut next = [0; PARTITIONS.len()];
        let mut first = None;
        while !self.arena.is_over() && !self.rng.one_in(200) {
            let partition = self.partition();
            let Some((run, records)) = self.read(partition, next[partition]) else { return };
            if *first.get_or_insert(run) != run {
                return;
            }
            next[partition] = records.last().map_or(next[partition], |(offset, _)| offset + 1);
        }
    }

    /// Reads from an offset on.
    fn read(&mut self, partition: usize, from: u64) -> Option<(Run, Vec<(u64, Value)>)> {
        let (topic, rank) = PARTITIONS[partition];
        let confirm = u8::from(self.rng.one_in(4));
        let answered = self.client.ask(&format!("read {topic} {rank} {from} {confirm}"))?;
        let Some(text) = answered.ok() else {
            self.note_failed(&answered);
            return None;
        };
        let mut words = text.split(' ');
        let mark = words.next().and_then(|word| word.parse().ok());
        let is_confirmed = words.next() == Some("1");
        let records: Vec<_> = words.map(record).map(|(_, offset, value)| (offset, value)).collect();
        let (at, session) = (answered.run, answered.session);
        let read = records.clone();
        let what = What::Read { at, session, partition, records, mark, is_confirmed };
        self.note((answered.from, answered.to), what);
        Some((at, read))
    }

    /// A reader of a member that copies gets no error but that there is no topic yet.
    fn note_failed(&mut self, answered: &Answered) {
        let Some(text) = answered.text.as_deref() else { return };
        if !text.contains("UnknownTopic") && !text.contains("UnknownPartition") {
            let what = format!("a reader at {:?} got: {text}", answered.run);
            self.note((answered.from, answered.to), What::Strange(what));
        }
    }

    /// The first `count` records of a partition, if the member has them.
    pub(crate) fn read_all(&mut self, partition: usize, count: u64) -> Option<Vec<(u64, Value)>> {
        let mut all = Vec::<(u64, Value)>::new();
        // Each time in a session of its own.
        self.client.leave();
        while (all.len() as u64) < count {
            let next = all.last().map_or(0, |(offset, _)| offset + 1);
            let (_, records) = self.read(partition, next)?;
            if records.is_empty() {
                return None;
            }
            all.extend(records);
        }
        all.truncate(usize::try_from(count).ok()?);
        Some(all)
    }
}

/// The clients of a round, until the arena says that it is over.
pub(crate) fn start<'scope>(
    scope: &'scope Scope<'scope, '_>,
    arena: &Arc<Arena>,
    mix: Mix,
    rng: &mut Rng,
) -> Vec<ScopedJoinHandle<'scope, Vec<Event>>> {
    let mut started = Vec::new();
    let members = arena.members();
    let mut load = |member| Load::new(arena, member, rng.next());
    for number in 0..mix.senders {
        let by = if number == 0 { By::Leader } else { By::Quorum };
        let load = load(0);
        started.push(scope.spawn(move || load.send_until_over(by)));
    }
    for _ in 0..mix.queues {
        let load = load(0);
        started.push(scope.spawn(move || load.queue_until_over()));
    }
    for producer in 0..mix.sequences {
        let load = load(0);
        started.push(scope.spawn(move || load.send_sequenced_until_over(producer)));
    }
    for number in 0..mix.consumers {
        let (load, group) = (load(0), u32::try_from(number).unwrap() % GROUPS);
        started.push(scope.spawn(move || load.consume_until_over(group)));
    }
    for member in 0..members {
        for _ in 0..mix.readers {
            let load = load(member);
            started.push(scope.spawn(move || load.read_until_over()));
        }
    }
    started
}

//! Readers: partitions without a group, paused and resumed, moved by hand, and deleted under them.

use super::*;

const READERS_MAX: usize = 3;

pub(super) struct Reader {
    consumer: Consumer,
    /// The era of the topic, and the offset it is to be handed next.
    positions: BTreeMap<TopicPartition, (u64, u64)>,
    paused: BTreeSet<TopicPartition>,
    /// For how many polls in a row each of its partitions had something and was not served.
    starved: BTreeMap<TopicPartition, usize>,
}

impl Walk {
    pub(super) fn open_or_drop_reader(&mut self) {
        if self.readers.len() == READERS_MAX || self.logs.is_empty() {
            if !self.readers.is_empty() {
                self.readers.swap_remove(self.rng.index(self.readers.len()));
            }
            return;
        }
        let mut parts: Vec<_> = self.logs.keys().cloned().collect();
        let one = self.rng.index(parts.len());
        let mut number = 0;
        parts.retain(|_| {
            number += 1;
            number == one + 1 || self.rng.one_in(2)
        });
        let start = self.some_start();
        let bytes = [1, 700, 4_000, 20_000, 1 << 20][self.rng.index(5)];
        let builder = self.broker().reader().assign(&parts).start(start);
        let consumer = builder.max_poll_bytes(bytes).max_poll_records(1 + self.rng.index(40));
        let consumer = consumer.open().unwrap();
        let position = |at: &TopicPartition| {
            let next = self.logs[at].resolve(start).expect("no start is an error");
            assert_eq!(consumer.position(at), Some(next), "{at}: begins at {start:?}");
            (self.topics[&*at.topic].era, next)
        };
        let positions = parts.iter().map(|at| (at.clone(), position(at))).collect();
        let (paused, starved) = (BTreeSet::new(), BTreeMap::new());
        self.readers.push(Reader { consumer, positions, paused, starved });
    }

    fn some_start(&mut self) -> StartAt {
        match self.rng.below(5) {
            0 => StartAt::Earliest,
            1 => StartAt::Latest,
            2 => StartAt::Offset(self.rng.below(150)),
            3 => StartAt::Time(
                self.clocks.truth() - MINUTE * u32::try_from(self.rng.below(90)).unwrap(),
            ),
            _ => StartAt::Time(self.clocks.wall()),
        }
    }

    pub(super) fn use_reader(&mut self) {
        if self.readers.is_empty() {
            return;
        }
        let index = self.rng.index(self.readers.len());
        let start = self.some_start();
        let reader = &mut self.readers[index];
        let some = self.rng.index(reader.positions.len().max(1));
        let some = reader.positions.keys().nth(some).cloned();
        match (self.rng.below(8), some) {
            (0, Some(at)) => {
                let pauses = reader.paused.insert(at.clone());
                if pauses {
                    reader.consumer.pause([&at]).unwrap();
                } else {
                    reader.paused.remove(&at);
                    reader.consumer.resume([&at]).unwrap();
                }
            }
            (1, Some(at)) if self.logs.contains_key(&at) => {
                let (era, next) = reader.positions.get_mut(&at).unwrap();
                if *era == self.topics[&*at.topic].era {
                    reader.consumer.seek(&at, start).unwrap();
                    *next = self.logs[&at].resolve(start).unwrap();
                    assert_eq!(reader.consumer.position(&at), Some(*next), "{at}: {start:?}");
                }
            }
            _ => drop(self.read(index)),
        }
    }

    /// Polls once. How many records there were; `None` where a topic is not there any more.
    fn read(&mut self, index: usize) -> Option<usize> {
        let reader = &mut self.readers[index];
        let eras: BTreeMap<&str, u64> =
            self.topics.iter().map(|(name, it)| (*name, it.era)).collect();
        let is_current = |at: &TopicPartition, era: u64| eras.get(&*at.topic) == Some(&era);
        let may_serve = |(at, (era, next)): &(&TopicPartition, &(u64, u64))| {
            let is_there = is_current(at, *era) && !reader.paused.contains(*at);
            is_there && self.logs[*at].has_after(*next)
        };
        let hungry: BTreeSet<TopicPartition> =
            reader.positions.iter().filter(may_serve).map(|(at, _)| at.clone()).collect();
        let some_time = Duration::from_micros(if self.rng.one_in(4) { 200 } else { 0 });
        let polled = reader.consumer.poll(some_time);
        let mut served = BTreeSet::new();
        // Where records were missed there may be none to read, and a later turn of the same poll
        // meets an error.
        for gap in &reader.consumer.take_gaps() {
            let (era, next) = reader.positions.get_mut(&gap.partition).unwrap();
            assert!(is_current(&gap.partition, *era), "{gap:?}");
            self.logs[&gap.partition].hear_gap(gap, next);
            served.insert(gap.partition.clone());
        }
        let batch = match polled {
            Ok(batch) => batch,
            Err(Error::UnknownTopic(name)) => {
                let of_it = |(at, (era, _)): (&TopicPartition, &(u64, u64))| {
                    *at.topic == *name && !is_current(at, *era)
                };
                assert!(reader.positions.iter().any(of_it), "{name} is there");
                return None;
            }
            Err(error) => panic!("{error:?}"),
        };
        for message in &batch.iter().map(|it| it.to_owned()).collect::<Vec<_>>() {
            let at = message.topic_partition();
            let (era, next) = reader.positions.get_mut(&at).unwrap();
            assert!(is_current(&at, *era), "{at}: of a topic that was deleted");
            assert!(!reader.paused.contains(&at), "{at} is paused");
            self.logs[&at].hear(message, next);
            served.insert(at);
        }
        let count = reader.positions.len();
        reader.starved.retain(|at, _| hungry.contains(at));
        for at in hungry {
            let polls = reader.starved.entry(at.clone()).or_default();
            *polls = if served.contains(&at) { 0 } else { *polls + 1 };
            assert!(*polls <= count, "{at} starves: {polls} polls of {count} partitions");
        }
        self.count("read", batch.len() as u64);
        Some(batch.len())
    }

    /// All that readers wait for comes.
    pub(super) fn end_readers(&mut self) {
        for index in 0..self.readers.len() {
            // Each partition whose topic is not there any more may say so before the others' turn.
            let (mut idle, most) = (0, 4 + self.readers[index].positions.len());
            while idle < most {
                let found = self.read(index).unwrap_or(0);
                idle = if found == 0 { idle + 1 } else { 0 };
            }
            let reader = &self.readers[index];
            for (at, (era, next)) in &reader.positions {
                let is_current = self.topics.get(&*at.topic).is_some_and(|it| it.era == *era);
                let is_due = is_current && !reader.paused.contains(at);
                assert!(
                    !is_due || !self.logs[at].has_after(*next),
                    "{at}: not read from {next} on"
                );
            }
        }
    }
}

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
    /// Where it continues if the records at its position were removed.
    out_of_range: StartAt,
}

impl Reader {
    /// Whether a partition may be read no further before the reader is moved by hand.
    fn is_stuck(&self, log: &Log, next: u64) -> bool {
        self.out_of_range == StartAt::Error && next < log.start
    }
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
        let out_of_range = if self.rng.one_in(5) { StartAt::Error } else { self.some_start() };
        let bytes = [1, 700, 4_000, 20_000, 1 << 20][self.rng.index(5)];
        let builder = self.broker().reader().assign(&parts).start(start).out_of_range(out_of_range);
        let consumer = builder.max_poll_bytes(bytes).max_poll_records(1 + self.rng.index(40));
        let consumer = consumer.open().unwrap();
        let position = |at: &TopicPartition| {
            let next = self.logs[at].resolve(start).expect("no start is an error");
            assert_eq!(consumer.position(at), Some(next), "{at}: begins at {start:?}");
            (self.topics[&*at.topic].era, next)
        };
        let positions = parts.iter().map(|at| (at.clone(), position(at))).collect();
        let (paused, starved) = (BTreeSet::new(), BTreeMap::new());
        self.readers.push(Reader { consumer, positions, paused, starved, out_of_range });
    }

    pub(super) fn some_start(&mut self) -> StartAt {
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
            let log = self.logs.get(*at).filter(|_| is_there);
            log.is_some_and(|log| log.has_after(*next) && !reader.is_stuck(log, *next))
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
            let log = &self.logs[&gap.partition];
            let to = log.proceed(reader.out_of_range).expect("an error, and no gap");
            log.hear_gap(gap, next, to);
            assert_eq!(*next, to, "{gap:?} with {:?}", reader.out_of_range);
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
            Err(Error::OffsetOutOfRange { partition, requested, start, end }) => {
                self.hear_out_of_range(index, &partition, requested, (start, end));
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

    /// One of a reader's partitions is read no further before it is moved. Which one the error does
    /// not say.
    fn hear_out_of_range(
        &mut self,
        index: usize,
        of: &TopicPartition,
        requested: u64,
        ends: (u64, u64),
    ) {
        let moves_to = self.rng.one_in(2).then(|| self.some_start());
        let reader = &mut self.readers[index];
        assert_eq!(reader.out_of_range, StartAt::Error);
        // A poll that had records has met it before its topic was deleted; that is what the next
        // polls say.
        let era = |topic: &str| self.topics.get(topic).map(|it| it.era);
        let is_deleted =
            |&(of_era, next): &(u64, u64)| next <= requested && era(&of.topic) != Some(of_era);
        if reader.positions.get(of).is_some_and(is_deleted) {
            reader.starved.remove(of);
            return;
        }
        let is_it = |(at, (era, next)): &(&TopicPartition, &mut (u64, u64))| {
            let is_current = self.topics.get(&*at.topic).is_some_and(|it| it.era == *era);
            let log = self.logs.get(*at).filter(|_| is_current);
            log.is_some_and(|log| {
                // A poll that had records has met it before, and the log has moved since.
                let is_removed = requested < ends.0 && ends.0 <= log.start && ends.1 <= log.end();
                is_removed && *at == of && log.has_passed(*next, requested)
            })
        };
        let stuck = reader.positions.iter_mut().find(is_it);
        let (at, (_, next)) =
            stuck.unwrap_or_else(|| panic!("{requested} of {of} is there: {ends:?}"));
        // It had its turn.
        reader.starved.remove(at);
        if let Some(to) = moves_to {
            reader.consumer.seek(at, to).unwrap();
            *next = self.logs[at].resolve(to).expect("no start is an error");
        }
        self.count("out of range", 1);
    }

    /// All that readers wait for comes.
    pub(super) fn end_readers(&mut self) {
        for index in 0..self.readers.len() {
            // Each partition whose topic is not there any more may say so before the others' turn.
            let (mut idle, most) = (0, 4 + self.readers[index].positions.len());
            while idle < most {
                let before = self.readers[index].positions.clone();
                let found = self.read(index).unwrap_or(0);
                // It may have been moved, to where there is more.
                let is_idle = found == 0 && self.readers[index].positions == before;
                idle = if is_idle { idle + 1 } else { 0 };
            }
            let reader = &self.readers[index];
            for (at, (era, next)) in &reader.positions {
                let is_current = self.topics.get(&*at.topic).is_some_and(|it| it.era == *era);
                let is_due = is_current && !reader.paused.contains(at);
                let Some(log) = self.logs.get(at).filter(|_| is_due) else { continue };
                let is_done = !log.has_after(*next) || reader.is_stuck(log, *next);
                assert!(is_done, "{at}: not read from {next} on");
            }
        }
    }
}

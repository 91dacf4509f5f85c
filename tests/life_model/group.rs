//! The group: its members, what their callbacks hear, and what they are handed.

use super::*;

/// What the callbacks of members and the walk both know.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) committed: Offsets,
    pub(super) starts: Offsets,
    pub(super) eras: BTreeMap<String, u64>,
    /// Of each member's partitions: the era of the topic, and the next offset it is to be handed.
    pub(super) told: BTreeMap<u64, BTreeMap<TopicPartition, (u64, u64)>>,
}

impl Shared {
    pub(super) fn hear(&mut self, who: u64, event: &Rebalance<'_>, commits: &Commits<'_>) {
        let told = self.told.entry(who).or_default();
        match event {
            Rebalance::Assigned(partitions) => {
                for at in *partitions {
                    let Some(era) = self.eras.get(&*at.topic) else { continue };
                    // Where the log began when the member joined may be gone since: a gap follows.
                    let position = commits.position(at).expect("a position");
                    let from = self.committed.get(at).copied().unwrap_or(position);
                    let is_new = !self.committed.contains_key(at);
                    assert!(!is_new || position <= self.starts[at], "{at}: begins at {position}");
                    let before = told.insert(at.clone(), (*era, from));
                    assert_eq!(before, None, "{at} assigned to its owner");
                }
            }
            Rebalance::Revoked(partitions) | Rebalance::Lost(partitions) => {
                for at in *partitions {
                    assert!(told.remove(at).is_some(), "{at} was not its own");
                }
            }
        }
    }
}

pub(super) struct Member {
    pub(super) consumer: Consumer,
    pub(super) last_poll: Duration,
    pub(super) has_polled: bool,
}

impl Walk {
    pub(super) fn join(&mut self) {
        let id = self.next_member;
        self.next_member += 1;
        let shared = Arc::clone(&self.shared);
        let builder = self.broker().consumer(GROUP).subscribe_pattern("m-*");
        let consumer = builder
            .max_poll_records(20)
            .max_poll_interval(INTERVAL)
            .on_rebalance(move |event, commits| shared.lock().unwrap().hear(id, &event, commits))
            .open()
            .unwrap();
        self.members
            .insert(id, Member { consumer, last_poll: self.clocks.monotonic(), has_polled: false });
    }

    pub(super) fn leave(&mut self, id: u64) {
        let member = self.members.remove(&id).unwrap();
        if self.rng.one_in(2) {
            member.consumer.close().unwrap();
        } else {
            drop(member);
        }
        self.shared.lock().unwrap().told.remove(&id);
    }

    pub(super) fn poll(&mut self, id: u64) -> usize {
        let member = self.members.get_mut(&id).unwrap();
        let batch = member.consumer.poll(Duration::ZERO).unwrap();
        let gaps = member.consumer.take_gaps();
        (member.last_poll, member.has_polled) = (self.clocks.monotonic(), true);
        let mut shared = self.shared.lock().unwrap();
        let told = shared.told.entry(id).or_default();
        self.tally.entry("gaps").and_modify(|it| *it += gaps.len() as u64).or_default();
        for gap in gaps {
            let (_, next) = told.get_mut(&gap.partition).expect("missed what it does not own");
            let Some(log) = self.logs.get(&gap.partition) else { continue };
            // A position has passed offsets whose records compaction removed.
            let passed = (*next..gap.missed.start).all(|it| log.removed.contains(&it));
            // One that was met when the partition was taken over may be told after retention has gone
            // further: the rest is another gap, without which the next record would be a skip.
            let is_next = gap.missed.start >= *next && passed && gap.missed.end <= log.start;
            assert!(is_next, "{}: {:?} after {next}", gap.partition, gap.missed);
            *next = gap.missed.end;
        }
        let count = batch.len();
        for message in batch {
            let at = message.topic_partition();
            let (_, next) = told.get_mut(&at).expect("handed out what it was not told to own");
            let (log, offset) = (&self.logs[&at], message.offset());
            assert!(offset >= *next, "{at} {offset}: handed out twice to one owner");
            let skipped = (*next..offset).find(|it| !log.removed.contains(it));
            assert_eq!(skipped, None, "{at}: skipped before {offset}");
            assert_eq!(Stored::of(&message), *log.at(offset), "{at} {offset}");
            *next = offset + 1;
        }
        *self.tally.entry("handed out").or_default() += count as u64;
        count
    }

    pub(super) fn commit(&mut self, id: u64) {
        let is_overdue = self.is_overdue(id);
        let member = self.members.get_mut(&id).unwrap();
        if !member.has_polled {
            return; // it has partitions of which its callback has not heard
        }
        let is_async = self.rng.one_in(2);
        let result =
            if is_async { member.consumer.commit_async() } else { member.consumer.commit() };
        let mut shared = self.shared.lock().unwrap();
        let Shared { told, committed, eras, .. } = &mut *shared;
        let told = told.entry(id).or_default();
        let is_stale = told.iter().any(|(at, (era, _))| eras.get(&*at.topic) != Some(era));
        match result {
            Err(Error::Rebalanced) => assert!(is_overdue || is_stale, "evicted for nothing"),
            Err(Error::UnknownTopic(_) | Error::UnknownPartition(_)) => assert!(is_stale),
            result => {
                result.unwrap();
                let own = told.iter().filter(|(at, (era, _))| eras.get(&*at.topic) == Some(era));
                committed.extend(own.map(|(at, (_, next))| (at.clone(), *next)));
            }
        }
    }

    pub(super) fn is_overdue(&self, id: u64) -> bool {
        self.clocks.monotonic().saturating_sub(self.members[&id].last_poll) >= INTERVAL
    }
}

//! Which messages are being worked on, for consumers whose work is finished out of order.
//!
//! Owns: these messages. Must not know: who works on them, and how a commit is stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::message::Message;
use crate::record::TopicPartition;

/// The messages that several workers have in hand, and which of them can be committed: a commit
/// covers all earlier messages of its partition, so it has to wait for the first one that is not
/// done.
///
/// One thread polls and gives the messages to the workers; it notes each in
/// [`begin`](Self::begin) and [`finish`](Self::finish), and commits what
/// [`take_done`](Self::take_done) returns. The recipe `worker_pool` in
/// [`docs::recipes`](crate::docs::recipes) is a program with threads, a limit and a shutdown.
///
/// ```
/// # use logpond::{Broker, InFlight, Record, TopicConfig};
/// # use std::time::Duration;
/// # let broker = Broker::in_memory()?;
/// # broker.ensure_topic("jobs", TopicConfig::new(1))?;
/// # for job in ["slow", "fast", "new"] { broker.producer().send(Record::to("jobs").value(job))?; }
/// let mut inbox = broker.consumer("workers").subscribe(["jobs"]).open()?;
/// let mut in_flight = InFlight::new();
/// let messages: Vec<_> = inbox.poll(Duration::from_secs(1))?.into_iter().collect();
/// messages.iter().for_each(|message| in_flight.begin(message));
///
/// in_flight.finish(&messages[1]);
/// assert!(in_flight.take_done().is_empty()); // the first one is not done yet
/// in_flight.finish(&messages[0]);
/// for message in in_flight.take_done() {
///     inbox.commit_message(&message)?;
/// }
/// assert_eq!(inbox.committed(("jobs", 0))?, Some(2));
/// assert_eq!(in_flight.len(), 1);
/// # Ok::<(), logpond::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct InFlight {
    /// By offset, the messages that no commit covers, and whether they are done.
    partitions: BTreeMap<TopicPartition, BTreeMap<u64, (Message, bool)>>,
}

impl InFlight {
    /// Returns an empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that the work on a message begins. If the partition was lost and is owned again since
    /// earlier messages of it were noted, those are forgotten.
    pub fn begin(&mut self, message: &Message) {
        let of_partition = self.partitions.entry(message.topic_partition()).or_default();
        // Those of an earlier ownership would hold up all that follow: nobody finishes them.
        let first = of_partition.values().next();
        if first.is_some_and(|(begun, _)| !Arc::ptr_eq(begun.origin(), message.origin())) {
            of_partition.clear();
        }
        of_partition.insert(message.offset(), (message.clone(), false));
    }

    /// Notes that the work on a message is done. Without effect if its partition was given up or
    /// lost since the message was read: then its owner, which may be this consumer, gets it again.
    pub fn finish(&mut self, message: &Message) {
        let of_partition = self.partitions.get_mut(&message.topic_partition());
        if let Some((begun, is_done)) = of_partition.and_then(|it| it.get_mut(&message.offset()))
            && Arc::ptr_eq(begun.origin(), message.origin())
        {
            *is_done = true;
        }
    }

    /// Removes the messages that are done, as well as all before them in their partition, and
    /// returns the last one of each partition, to be committed by
    /// [`commit_message`](crate::Consumer::commit_message) or its future. An
    /// [`Error::Rebalanced`](crate::Error::Rebalanced) of that is no failure: the next owner does
    /// the work again.
    #[must_use = "the messages are to be committed"]
    pub fn take_done(&mut self) -> Vec<Message> {
        let mut done = Vec::new();
        for messages in self.partitions.values_mut() {
            let mut last = None;
            while let Some(first) = messages.first_entry().filter(|first| first.get().1) {
                last = Some(first.remove().0);
            }
            done.extend(last);
        }
        self.partitions.retain(|_, messages| !messages.is_empty());
        done
    }

    /// Forgets the messages of all partitions but these, after a rebalance:
    /// [`Consumer::assignment`](crate::Consumer::assignment).
    pub fn retain(&mut self, assignment: &[TopicPartition]) {
        self.partitions.retain(|partition, _| assignment.contains(partition));
    }

    /// Returns how many messages no commit can cover yet, done or not. A pool that has too many
    /// calls [`pause_all`](crate::Consumer::pause_all).
    #[must_use]
    pub fn len(&self) -> usize {
        self.partitions.values().map(BTreeMap::len).sum()
    }

    /// Returns whether there is no such message.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }
}

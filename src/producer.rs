//! Producers: append records to the partition that their key chooses.
//!
//! Owns: the choice of the partition, the wait for the durability level, the handles of named
//! producers. Must not know: segments, files, how a sync is shared.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use self::answer::Answer;
pub use self::builder::ProducerBuilder;
use self::choice::Choice;
pub use self::delivery::Delivery;
#[cfg(feature = "async")]
pub use self::in_async::AsyncProducer;
use self::numbered::NumberedAnswer;
pub use self::numbered::{LastSequenced, SequencedDelivery};
pub use self::sent::SendOutcome;
use self::sent::{Sent, check_target};
use self::unflushed::Unflushed;
use crate::broker::producers::{NamedProducer, UnderWay};
use crate::broker::{Broker, Run};
use crate::config::Durability;
use crate::error::{Error, Result};
use crate::log::ProducerRequest;
use crate::log::producers::Sequence;
use crate::partition::append::Fence;
use crate::partition::together;
use crate::record::{Record, RecordMetadata, TopicPartition};
#[cfg(feature = "testing")]
use crate::seams::Call;
use crate::steps::Counted;
use crate::sync::Ordering;
use crate::topic::TopicShared;
use crate::topic::append::{self, Appended, Terms};

mod answer;
mod builder;
mod choice;
mod delivery;
#[cfg(feature = "async")]
mod in_async;
mod numbered;
mod sent;
mod unflushed;

/// Sends records. Cheap to clone and safe to share between threads; keeps the broker open.
///
/// ```
/// # use logpond::{Broker, Record, TopicConfig};
/// # let broker = Broker::in_memory()?;
/// broker.ensure_topic("orders", TopicConfig::new(3))?;
/// let producer = broker.producer();
/// let sent = producer.send(Record::to("orders").key("user-7").value("2 apples"))?;
/// assert_eq!(sent.offset, 0);
///
/// // Returns without waiting for the disk; the delivery resolves when the record is durable.
/// let delivery = producer.enqueue(Record::to("orders").key("user-7").value("1 pear"))?;
/// delivery.wait()?;
/// # Ok::<(), logpond::Error>(())
/// ```
#[doc(alias = "KafkaProducer")]
#[derive(Clone)]
pub struct Producer {
    inner: Arc<Inner>,
}

struct Inner {
    run: Arc<Run>,
    durability: Option<Durability>,
    choice: Choice,
    named: Option<Named>,
    /// The acknowledgement waits for no other member of a replicated group.
    #[cfg_attr(not(feature = "replication"), expect(dead_code, reason = "there are none"))]
    is_leader_enough: bool,
    /// The partitions that this producer appended to without waiting; for `flush`.
    unflushed: Unflushed,
}

struct Named {
    shared: Arc<NamedProducer>,
    epoch: u32,
}

impl Producer {
    fn new(
        broker: &Broker,
        durability: Option<Durability>,
        choice: Choice,
        named: Option<(Arc<NamedProducer>, u32)>,
        is_leader_enough: bool,
    ) -> Self {
        let inner = Inner {
            run: Arc::clone(broker.run()),
            durability,
            choice,
            named: named.map(|(shared, epoch)| Named { shared, epoch }),
            is_leader_enough,
            unflushed: Unflushed::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Sends one record and waits for its acknowledgement. Returns its partition, offset and
    /// timestamp. It blocks its thread; in a task, call `in_async().send(..)` (feature `async`).
    ///
    /// # Errors
    ///
    /// Nothing was appended after [`Error::UnknownTopic`], [`Error::UnknownPartition`],
    /// [`Error::RecordTooLarge`], [`Error::Config`] (the record names no topic, has a time before
    /// 1970, or has no key and the topic is compacted), [`Error::StorageFull`],
    /// [`Error::OffsetExhausted`], [`Error::Fenced`], [`Error::ReadOnly`], [`Error::Corrupt`]
    /// (files of the partition are missing or unreadable), [`Error::Poisoned`] and
    /// [`Error::Forked`]. The record may or may not be stored after [`Error::SyncFailed`],
    /// [`Error::Io`] and [`Error::Closed`]. If the topic is deleted while the call waits, the
    /// result is [`Error::UnknownTopic`].
    ///
    /// On a replicated broker nothing was appended after [`Error::NotLeader`] (the leader that it
    /// names is a hint: pause, and try others too) and [`Error::NotEnoughReplicas`]; the record may
    /// or may not be kept after [`Error::LeadershipLost`] and [`Error::Timeout`].
    ///
    /// # Durability
    ///
    /// On return the record survives what the [`Durability`] in force covers: the producer's, or
    /// the topic's if the producer has none, or the broker's. At [`Acks::Quorum`](crate::Acks::Quorum) a majority of the
    /// members has it.
    ///
    /// # Blocking
    ///
    /// At [`Durability::Sync`], for a sync of the disk, which concurrent senders share. At the other
    /// levels, while 1 GiB of the partition's full segments is not durable. At [`Acks::Quorum`](crate::Acks::Quorum), for
    /// a majority of the members, at most the acknowledgement timeout of the group. With
    /// [`WhenFull::Wait`](crate::WhenFull::Wait), also until there is space.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a record is given away, as in `Record::to(..)`"
    )]
    pub fn send(&self, record: Record<'_>) -> Result<RecordMetadata> {
        let topic = self.topic_of(&record)?;
        let Sent { appended, metadata } =
            self.append(&topic, &record, &self.terms(Sequence::Absent).at_once())?;
        self.settle(&appended)?;
        Ok(metadata)
    }

    /// Appends a record without waiting for the disk. The record is readable on return; on a
    /// replicated broker, once a majority of the members has it. The returned [`Delivery`] resolves
    /// when the record is acknowledged; drop it if you do not need to know.
    ///
    /// # Errors
    ///
    /// Nothing was appended after any of these: [`Error::UnknownTopic`],
    /// [`Error::UnknownPartition`], [`Error::RecordTooLarge`], [`Error::Config`] (the record names
    /// no topic, has a time before 1970, or has no key and the topic is compacted),
    /// [`Error::StorageFull`], [`Error::OffsetExhausted`], [`Error::Fenced`], [`Error::ReadOnly`],
    /// [`Error::Corrupt`] (files of the partition are missing or unreadable), [`Error::Poisoned`],
    /// [`Error::Forked`], [`Error::Closed`]; on a replicated broker [`Error::NotLeader`] and
    /// [`Error::NotEnoughReplicas`].
    ///
    /// # Durability
    ///
    /// On return the record survives the death of the process, but not a loss of power.
    ///
    /// # Blocking
    ///
    /// Only if the append needs space in the segment or a new segment, and a background thread has
    /// not prepared it yet; and while 1 GiB of the partition's full segments is not durable. With
    /// [`WhenFull::Wait`](crate::WhenFull::Wait), also until there is space.
    #[doc(alias = "send")]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a record is given away, as in `Record::to(..)`"
    )]
    pub fn enqueue(&self, record: Record<'_>) -> Result<Delivery> {
        self.append_unsettled(&record, &self.terms(Sequence::Absent))
    }

    /// Appends a record that its delivery waits for.
    fn append_unsettled(&self, record: &Record<'_>, terms: &Terms<'_>) -> Result<Delivery> {
        let topic = self.topic_of(record)?;
        Ok(self.delivery_of(&self.append(&topic, record, terms)?))
    }

    fn delivery_of(&self, sent: &Sent<'_>) -> Delivery {
        let Sent { appended, metadata } = sent;
        #[cfg(feature = "testing")]
        if appended.duplicate_of.is_none() {
            appended.core.log().seams.note(|| Call::Enqueue {
                partition: TopicPartition::clone(&appended.core.origin),
                offset: metadata.offset,
            });
        }
        self.inner.unflushed.note(appended.core, appended.led);
        Delivery::new(appended, *metadata, Arc::clone(&self.inner.run))
    }

    /// Returns a view of this producer whose `send` is a future, for any executor. Needs the feature
    /// `async`; [`enqueue`](Self::enqueue) and its [`Delivery`], a future too, need none.
    #[cfg(feature = "async")]
    #[must_use]
    pub fn in_async(&self) -> AsyncProducer<'_> {
        AsyncProducer::new(self)
    }

    /// Sends a record with a number from its source, for example the line number in a file. A
    /// partition stores each number of a producer [`id`](ProducerBuilder::id) at most once: if the
    /// number is not higher than the last one, nothing is appended, and the result is
    /// [`SendOutcome::Duplicate`]. So the whole source can be sent again after a crash.
    ///
    /// ```
    /// # use logpond::{Broker, Record, SendOutcome, TopicConfig};
    /// # let broker = Broker::in_memory()?;
    /// # broker.ensure_topic("lines", TopicConfig::new(1))?;
    /// let importer = broker.producer_builder().id("importer").build()?;
    /// let line = || Record::to("lines").partition(0).value("first line");
    /// assert!(matches!(importer.send_sequenced(1, line())?, SendOutcome::Appended(_)));
    /// // The retry, in this run or a later one.
    /// assert_eq!(importer.send_sequenced(1, line())?, SendOutcome::Duplicate { last: 1 });
    /// # Ok::<(), logpond::Error>(())
    /// ```
    ///
    /// The numbers of one producer id in one partition must rise. After 9, the number 7 is a
    /// duplicate even if it was never sent. If your numbers can become visible out of order
    /// (database transactions that commit in another order than they began), compare your number
    /// with `last`, and send such a record without a number, or read the source in order. The other
    /// send methods use no numbers.
    ///
    /// A topic remembers the numbers for 30 days after their last use. While it has numbers of
    /// records whose key chose the partition,
    /// [`add_partitions`](crate::Admin::add_partitions) is refused, because the keys would then
    /// choose other partitions.
    ///
    /// # Errors
    ///
    /// Nothing was appended after [`Error::Config`] (the producer has no id, or the record names no
    /// topic, has neither a key nor a partition, has a time before 1970, or has no key and the
    /// topic is compacted), [`Error::UnknownTopic`], [`Error::UnknownPartition`],
    /// [`Error::RecordTooLarge`], [`Error::StorageFull`], [`Error::OffsetExhausted`],
    /// [`Error::Fenced`], [`Error::ReadOnly`], [`Error::Corrupt`] (files of the partition are
    /// missing or unreadable), [`Error::Poisoned`], [`Error::Forked`], and on a replicated broker
    /// [`Error::NotLeader`] and [`Error::NotEnoughReplicas`]. After [`Error::SyncFailed`],
    /// [`Error::Io`], [`Error::Closed`], [`Error::LeadershipLost`] and [`Error::Timeout`] the record
    /// may or may not be stored; the call can be repeated safely, also at the next leader, by a
    /// producer with the same id there.
    ///
    /// # Durability
    ///
    /// On return the record survives what the [`Durability`] in force covers: the producer's, or
    /// the topic's if the producer has none, or the broker's. At [`Acks::Quorum`](crate::Acks::Quorum) a majority of the
    /// members has it. If the result is `Duplicate`, this is true of the record that was stored
    /// before.
    ///
    /// # Blocking
    ///
    /// At [`Durability::Sync`], for a sync of the disk. The first record of a producer in a topic
    /// whose key chooses the partition also waits for a sync of the list of topics, and for running
    /// changes of topics. At [`Acks::Quorum`](crate::Acks::Quorum), for a majority of the members. With
    /// [`WhenFull::Wait`](crate::WhenFull::Wait), also until there is space.
    #[doc(alias = "enable.idempotence")]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a record is given away, as in `Record::to(..)`"
    )]
    pub fn send_sequenced(&self, seq: u64, record: Record<'_>) -> Result<SendOutcome> {
        self.numbered(seq, &record, |sent| {
            self.settle(&sent.appended)?;
            Ok(sent.outcome())
        })
    }

    /// Appends a record with a number from its source, as [`send_sequenced`](Self::send_sequenced)
    /// does, without waiting for the disk. The returned [`SequencedDelivery`] resolves when the
    /// record is durable, or the one that was stored before.
    ///
    /// # Errors
    ///
    /// Nothing was appended after [`Error::Config`] (the producer has no id, or the record names no
    /// topic, has neither a key nor a partition, has a time before 1970, or has no key and the
    /// topic is compacted), [`Error::UnknownTopic`], [`Error::UnknownPartition`],
    /// [`Error::RecordTooLarge`], [`Error::StorageFull`], [`Error::OffsetExhausted`],
    /// [`Error::Fenced`], [`Error::ReadOnly`], [`Error::Corrupt`], [`Error::Poisoned`],
    /// [`Error::Forked`], [`Error::Closed`], and on a replicated broker [`Error::NotLeader`] and
    /// [`Error::NotEnoughReplicas`].
    ///
    /// # Durability
    ///
    /// On return the record survives the death of the process, but not a loss of power.
    ///
    /// # Blocking
    ///
    /// As [`enqueue`](Self::enqueue). The first record of a producer in a topic whose key chooses
    /// the partition also waits for a sync of the list of topics.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a record is given away, as in `Record::to(..)`"
    )]
    pub fn enqueue_sequenced(&self, seq: u64, record: Record<'_>) -> Result<SequencedDelivery> {
        self.numbered(seq, &record, |sent| {
            let outcome = sent.outcome();
            Ok(SequencedDelivery::new(self.delivery_of(&sent), outcome))
        })
    }

    /// Sends records with numbers of their source, as one batch for each partition. In each
    /// partition, the records with numbers up to the last one are duplicates, and the others are
    /// stored as a whole or not at all. The results are in the order of the input.
    ///
    /// ```
    /// # use logpond::{Broker, Record, SendOutcome, TopicConfig};
    /// # let broker = Broker::in_memory()?;
    /// # broker.ensure_topic("lines", TopicConfig::new(1))?;
    /// let importer = broker.producer_builder().id("importer").build()?;
    /// let line = |number| (number, Record::to("lines").partition(0).value("a line"));
    /// importer.send_batch_sequenced([line(1), line(2)])?;
    /// // After a crash the source is read from an earlier line on.
    /// let sent = importer.send_batch_sequenced([line(2), line(3), line(7)])?;
    /// assert_eq!(sent[0], SendOutcome::Duplicate { last: 2 });
    /// assert!(matches!(sent[2], SendOutcome::Appended(it) if it.offset == 3));
    /// # Ok::<(), logpond::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`send_batch`](Self::send_batch), and [`Error::Config`] if the producer has no id or
    /// a record has neither a key nor a partition. After any error the call can be repeated safely:
    /// what was stored is then a duplicate. In [`Error::PartialBatch`], duplicates are `None`.
    ///
    /// # Durability
    ///
    /// On return all records survive what the [`Durability`] in force covers; of duplicates, this is
    /// true of the records that were stored before.
    ///
    /// # Blocking
    ///
    /// As [`send_batch`](Self::send_batch), and as [`send_sequenced`](Self::send_sequenced) for the
    /// first record of a producer in a topic.
    pub fn send_batch_sequenced<'a>(
        &self,
        records: impl IntoIterator<Item = (u64, Record<'a>)>,
    ) -> Result<Vec<SendOutcome>> {
        let (numbers, records): (Vec<u64>, Vec<Record<'a>>) = records.into_iter().unzip();
        let named = self.named()?;
        let mut under_way = BTreeMap::new();
        for record in &records {
            check_target(record)?;
            let topic = self.topic_of(record)?;
            if record.partition.is_none() && !under_way.contains_key(&topic.id) {
                let (topic, begun) = self.topic_of_number(named, record)?;
                under_way.insert(topic.id, begun);
            }
        }
        let groups = self.group_by_partition(&records)?;
        let mut answer = NumberedAnswer::to(numbers);
        let mut appended = Vec::with_capacity(groups.len());
        for group in &groups {
            match self.append_numbered(&records, group, &mut answer) {
                Ok(batch) => appended.extend(batch.map(|batch| (group, batch))),
                Err(error) if appended.is_empty() => return Err(error),
                Err(error) => {
                    answer.answer.fail(&[], error);
                    break;
                }
            }
        }
        drop(under_way);
        self.settle_all(&appended, &mut answer.answer);
        answer.finish()
    }

    /// Returns the last sequence number that a partition has stored for this producer's id. `None`
    /// if it has none, if the producer has no id, or if there is no such partition.
    #[must_use]
    pub fn last_sequence(&self, partition: impl Into<TopicPartition>) -> Option<u64> {
        self.last_sequenced(partition).map(|last| last.sequence)
    }

    /// Returns the last sequence number that a partition has stored for this producer's id, and the
    /// offset of its record. `None` as for [`last_sequence`](Self::last_sequence).
    #[must_use]
    pub fn last_sequenced(&self, partition: impl Into<TopicPartition>) -> Option<LastSequenced> {
        let partition = partition.into();
        let named = self.inner.named.as_ref()?;
        let topic = self.inner.run.topic(&partition.topic).ok()?;
        let state = topic.partition(partition.partition).ok()?.log().producer(named.shared.id)?;
        Some(LastSequenced { sequence: state.last_sequence, offset: state.last_offset })
    }

    /// Sends records as one batch for each partition. Each batch is stored as a whole or not at
    /// all. The results are in the order of the input.
    ///
    /// **All records of one call that have neither a key nor a partition are sent to one
    /// partition**, the next in turn: one batch costs one sync, and a hundred batches of one record
    /// a hundred. Kafka's sticky partitioner (KIP-480, KIP-794) fills one batch after the other for
    /// the same reason. To spread such records, make several calls, or name the partitions.
    ///
    /// # Errors
    ///
    /// If some batches were acknowledged and others failed, [`Error::PartialBatch`] says which
    /// records are stored. If no batch was appended, the error of the first: one of
    /// [`Error::UnknownTopic`], [`Error::UnknownPartition`], [`Error::RecordTooLarge`] (a record,
    /// or the batch, is too large), [`Error::Config`] (a record names no topic, has a time before
    /// 1970, or has no key and the topic is compacted), [`Error::StorageFull`],
    /// [`Error::OffsetExhausted`], [`Error::Fenced`], [`Error::ReadOnly`], [`Error::Corrupt`]
    /// (files of the partition are missing or unreadable), [`Error::Poisoned`], [`Error::Io`],
    /// [`Error::Forked`], [`Error::Closed`], and on a replicated broker [`Error::NotLeader`] and
    /// [`Error::NotEnoughReplicas`]. A batch for which no majority was known to have it is not
    /// acknowledged: the source of `PartialBatch` is then [`Error::LeadershipLost`] or
    /// [`Error::Timeout`].
    ///
    /// # Durability
    ///
    /// On return all records survive what the [`Durability`] in force covers: the producer's, or
    /// the topic's if the producer has none, or the broker's. At [`Acks::Quorum`](crate::Acks::Quorum) a majority of the
    /// members has them.
    ///
    /// # Blocking
    ///
    /// At [`Durability::Sync`], for a sync of each partition, up to eight of them at the same time.
    /// At the other levels, while 1 GiB of a partition's full segments is not durable. At
    /// [`Acks::Quorum`](crate::Acks::Quorum), for a majority of the members. With
    /// [`WhenFull::Wait`](crate::WhenFull::Wait), also until there is space.
    pub fn send_batch<'a>(
        &self,
        records: impl IntoIterator<Item = Record<'a>>,
    ) -> Result<Vec<RecordMetadata>> {
        let records: Vec<Record<'a>> = records.into_iter().collect();
        let groups = self.group_by_partition(&records)?;
        let mut answer = Answer::to(records.len());
        let mut appended = Vec::with_capacity(groups.len());
        for group in &groups {
            match self.append_group(&records, group, &mut answer) {
                Ok(batch) => appended.push((group, batch)),
                Err(error) if appended.is_empty() => return Err(error),
                Err(error) => {
                    answer.fail(&[], error);
                    break;
                }
            }
        }
        self.settle_all(&appended, &mut answer);
        answer.finish()
    }

    /// Makes all records durable that this producer and its clones have appended, whatever their
    /// level of [`Durability`]. At [`Acks::Quorum`](crate::Acks::Quorum) it also waits until a majority of the members has
    /// them; on stable storage, if the producer itself is at [`Durability::Sync`].
    ///
    /// # Errors
    ///
    /// All partitions are tried, and the error of the first one that failed is returned:
    /// [`Error::SyncFailed`] or [`Error::Poisoned`]. [`Error::Closed`]. At [`Acks::Quorum`](crate::Acks::Quorum) also
    /// [`Error::Timeout`], and once [`Error::LeadershipLost`] if the leadership was lost since the
    /// last flush while records had no majority: these may or may not be kept.
    ///
    /// # Durability
    ///
    /// On `Ok` all these records are on stable storage, and a majority has them as said above.
    ///
    /// # Blocking
    ///
    /// For a sync of each partition that has such records, up to eight of them at the same time. At
    /// [`Acks::Quorum`](crate::Acks::Quorum), for a majority of the members.
    pub fn flush(&self) -> Result<()> {
        let flushed = self.inner.unflushed.flush(self.inner.durability == Some(Durability::Sync));
        // Checked last: a broker that was closed meanwhile has closed partitions too.
        let flushed = flushed.and_then(|()| self.inner.run.gate().check_open());
        flushed.inspect_err(|_| self.inner.run.context().env.trace.deliver())
    }

    /// Waits for the level in force. Appends that are not waited for are remembered for `flush`.
    #[inline]
    fn settle(&self, appended: &Appended<'_>) -> Result<()> {
        if !appended.is_synced() {
            self.inner.unflushed.note(appended.core, appended.led);
        }
        appended.settle()
    }

    /// Waits for the level in force of several batches, whose syncs run at the same time. Appends
    /// that are not waited for are remembered for `flush`.
    fn settle_all(&self, appended: &[(&Group, Appended<'_>)], answer: &mut Answer) {
        let (mut waiting, mut waits) = (Vec::new(), Vec::new());
        for (group, batch) in appended {
            if batch.is_synced() {
                waiting.push((group, batch));
                waits.push((&**batch.core, batch.offsets.end));
            } else {
                self.inner.unflushed.note(batch.core, batch.led);
                #[cfg(feature = "testing")]
                batch.note_answer(&Ok(()));
            }
        }
        // The time that the call waits for other members begins for all at once.
        let copies: Vec<_> = appended.iter().map(|(_, batch)| batch.copies()).collect();
        appended.iter().zip(&copies).for_each(|((_, of), it)| it.begin(of.core, false));
        for ((group, batch), waited) in waiting.iter().zip(together::wait_durable(&waits)) {
            #[cfg(feature = "testing")]
            batch.note_answer(&waited);
            if let Err(error) = waited {
                batch.core.log().trace().deliver();
                // Appended, and not acknowledged: the answer must not say that it is safe.
                answer.fail(&group.members, error);
            }
        }
        for ((group, batch), copies) in appended.iter().zip(copies) {
            if let Err(error) = copies.wait(batch.core) {
                answer.fail(&group.members, error);
            }
        }
    }

    // ---- choosing and appending --------------------------------------------------------------

    #[inline]
    fn append<'t>(
        &self,
        topic: &'t TopicShared,
        record: &Record<'_>,
        terms: &Terms<'_>,
    ) -> Result<Sent<'t>> {
        let partition = match record.partition {
            Some(number) => number,
            None => self.inner.choice.partition(record.key, topic),
        };
        let core = topic.partition(partition)?;
        let appended = append::append(topic, core, [record], terms)?;
        let (offset, timestamp) = (appended.offsets.start, appended.timestamp(record)?);
        Ok(Sent { appended, metadata: RecordMetadata { partition, offset, timestamp } })
    }

    fn append_group<'g>(
        &self,
        records: &[Record<'_>],
        group: &'g Group,
        answer: &mut Answer,
    ) -> Result<Appended<'g>> {
        let (topic, partition) = (&group.topic, group.partition);
        let core = topic.partition(partition)?;
        let members = || group.members.iter().filter_map(|index| records.get(*index));
        let appended = append::append(topic, core, members(), &self.terms(Sequence::Absent))?;
        let placed = group.members.iter().zip(members()).zip(appended.offsets.clone());
        for ((index, record), offset) in placed {
            let timestamp = appended.timestamp(record)?;
            answer.note(*index, RecordMetadata { partition, offset, timestamp });
        }
        Ok(appended)
    }

    /// Appends a record with a number, and does the rest with it.
    fn numbered<R>(
        &self,
        seq: u64,
        record: &Record<'_>,
        then: impl FnOnce(Sent<'_>) -> Result<R>,
    ) -> Result<R> {
        let named = self.named()?;
        check_target(record)?;
        let (topic, under_way) = self.topic_of_number(named, record)?;
        let sent = self.append(&topic, record, &self.terms(Sequence::At(seq)));
        drop(under_way);
        then(sent?)
    }

    /// Appends those records of a group that are not stored yet; `None` if there are none, and
    /// nothing to wait for either.
    fn append_numbered<'g>(
        &self,
        records: &[Record<'_>],
        group: &'g Group,
        answer: &mut NumberedAnswer,
    ) -> Result<Option<Appended<'g>>> {
        let core = group.topic.partition(group.partition)?;
        let mut rest = answer.rising(&group.members);
        loop {
            let Some(sequence) = answer.sequence_of(&rest) else { return Ok(None) };
            let members = || rest.iter().filter_map(|index| records.get(*index));
            let appended = append::append(&group.topic, core, members(), &self.terms(sequence))?;
            let Some(last) = appended.duplicate_of else {
                for ((index, record), offset) in
                    rest.iter().zip(members()).zip(appended.offsets.clone())
                {
                    let (partition, timestamp) = (group.partition, appended.timestamp(record)?);
                    answer.answer.note(*index, RecordMetadata { partition, offset, timestamp });
                }
                return Ok(Some(appended));
            };
            answer.note_duplicates(&mut rest, last);
            if rest.is_empty() {
                // Waited for: its end is that of the original.
                return Ok(Some(appended));
            }
        }
    }

    fn named(&self) -> Result<&Named> {
        self.inner.named.as_ref().ok_or_else(|| {
            Error::config("id", "a producer without an id has no sequence; build it with `id`")
        })
    }

    /// Sorts the records of one call into batches, one per partition, in order of first mention.
    fn group_by_partition(&self, records: &[Record<'_>]) -> Result<Vec<Group>> {
        let mut groups: Vec<Group> = Vec::new();
        // By topic and partition, and the partition of keyless records by topic. A topic is its
        // address: a group keeps it from being another's.
        let mut group_of: BTreeMap<Counted<(usize, u32)>, usize> = BTreeMap::new();
        let mut keyless: BTreeMap<Counted<usize>, u32> = BTreeMap::new();
        for (index, record) in records.iter().enumerate() {
            let topic = match groups.last() {
                Some(last) if record.topic == Some(&*last.topic.name) => Arc::clone(&last.topic),
                _ => self.topic_of(record)?,
            };
            let partition = match (record.partition, record.key) {
                (Some(number), _) => number,
                (None, Some(key)) => self.inner.choice.partition(Some(key), &topic),
                (None, None) => *keyless
                    .entry(Counted(Arc::as_ptr(&topic).addr()))
                    .or_insert_with(|| self.inner.choice.partition(None, &topic)),
            };
            // An unknown partition fails the call before anything is appended.
            topic.partition(partition)?;
            let target = Counted((Arc::as_ptr(&topic).addr(), partition));
            let group = *group_of.entry(target).or_insert(groups.len());
            match groups.get_mut(group) {
                Some(group) => group.members.push(index),
                None => groups.push(Group { topic, partition, members: vec![index] }),
            }
        }
        Ok(groups)
    }

    fn topic_of(&self, record: &Record<'_>) -> Result<Arc<TopicShared>> {
        let name = record.topic.ok_or_else(|| {
            Error::config("record", "it names no topic; make it with `Record::to`")
        })?;
        self.inner.run.topic(name)
    }

    /// The topic of a record with a number. The record goes to the partition of its key, so the
    /// topic must not grow until it is appended, nor while its number is remembered.
    fn topic_of_number(
        &self,
        named: &Named,
        record: &Record<'_>,
    ) -> Result<(Arc<TopicShared>, Option<UnderWay>)> {
        loop {
            let topic = self.topic_of(record)?;
            if record.partition.is_some() {
                return Ok((topic, None));
            }
            match named.shared.begin_by_key(topic.id) {
                Some(under_way) if !topic.is_replaced() => return Ok((topic, Some(under_way))),
                // The topic was looked up before it grew.
                Some(_) => {}
                None => self.inner.run.producers().note_by_key(&named.shared, &topic.name)?,
            }
        }
    }

    fn terms(&self, sequence: Sequence) -> Terms<'_> {
        let producer = self.fence(sequence);
        Terms {
            producer,
            level: self.inner.durability,
            #[cfg(feature = "replication")]
            is_leader_enough: self.inner.is_leader_enough,
            ..Terms::default()
        }
    }

    fn fence(&self, sequence: Sequence) -> Option<Fence<'_>> {
        let named = self.inner.named.as_ref()?;
        let request = ProducerRequest { id: named.shared.id, epoch: named.epoch, sequence };
        Some(Fence { request, name: &named.shared.name, current: &named.shared.epoch })
    }
}

/// The records of one call that belong to one partition, by their index in the input.
struct Group {
    topic: Arc<TopicShared>,
    partition: u32,
    members: Vec<usize>,
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = self.inner.named.as_ref();
        f.debug_struct("Producer")
            .field("id", &named.map(|named| &named.shared.name))
            .field("epoch", &named.map(|named| named.epoch))
            .field("is_fenced", &named.map(Named::is_fenced))
            .finish_non_exhaustive()
    }
}

impl Named {
    fn is_fenced(&self) -> bool {
        self.shared.epoch.load(Ordering::Acquire) != self.epoch
    }
}

//! Producers: append records to the partition that their key chooses.
//!
//! Owns: the choice of the partition, the wait for the durability level, the handles of named
//! producers. Must not know: segments, files, how a sync is shared.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use self::answer::Answer;
use self::choice::Choice;
pub use self::delivery::Delivery;
#[cfg(feature = "async")]
pub use self::in_async::AsyncProducer;
use self::unflushed::Unflushed;
use crate::broker::producers::{NamedProducer, UnderWay};
use crate::broker::{Broker, Run};
use crate::config::{Acks, Durability};
use crate::error::{Error, Result};
use crate::log::ProducerRequest;
use crate::log::producers::Sequence;
use crate::partition::append::Fence;
use crate::partition::together;
use crate::partitioner::Partitioner;
use crate::record::{Record, RecordMetadata, TopicPartition};
#[cfg(feature = "testing")]
use crate::seams::Call;
use crate::steps::Counted;
use crate::sync::Ordering;
use crate::topic::TopicShared;
use crate::topic::append::{self, Appended, Terms};

mod answer;
mod choice;
mod delivery;
#[cfg(feature = "async")]
mod in_async;
mod unflushed;

impl Broker {
    /// Returns a producer with the default settings: without an id, with the durability of each
    /// topic, and with [`DefaultPartitioner`](crate::DefaultPartitioner).
    #[must_use]
    pub fn producer(&self) -> Producer {
        Producer::new(self, None, Choice::by_default(), None)
    }

    /// Returns the settings of a producer, to give it a durability, an id or a partitioner. Finish
    /// with [`build`](ProducerBuilder::build).
    pub fn producer_builder(&self) -> ProducerBuilder {
        ProducerBuilder {
            broker: self.clone(),
            durability: None,
            id: None,
            choice: Choice::by_default(),
            acks: Acks::default(),
        }
    }
}

/// Settings of a producer; made by [`Broker::producer_builder`].
///
/// ```
/// # use logpond::{Broker, Durability, Record, TopicConfig};
/// # let broker = Broker::in_memory()?;
/// # broker.ensure_topic("orders", TopicConfig::new(1))?;
/// let importer = broker.producer_builder().id("importer").durability(Durability::Os).build()?;
/// importer.send_sequenced(1, Record::to("orders").key("o-1").value("2 apples"))?;
/// assert_eq!(importer.last_sequence(("orders", 0)), Some(1));
/// # Ok::<(), logpond::Error>(())
/// ```
#[must_use]
pub struct ProducerBuilder {
    broker: Broker,
    durability: Option<Durability>,
    id: Option<String>,
    choice: Choice,
    acks: Acks,
}

impl ProducerBuilder {
    /// Sets which failures a record survives once a send of this producer has returned. Default:
    /// the topic's [`durability`](crate::TopicConfig::durability), or the broker's if it has none.
    #[doc(alias = "acks")]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// Gives the producer an id, a name of 1 to 255 bytes. It has two effects, which last across
    /// restarts: [`send_sequenced`](Producer::send_sequenced) stores each number at most once, and
    /// older producers with the same id get [`Error::Fenced`] from [`build`](Self::build) on. An id
    /// that no producer has held for 30 days is forgotten.
    #[doc(alias = "enable.idempotence")]
    #[doc(alias = "transactional.id")]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Sets what chooses the partition of a record that names none. Default
    /// [`DefaultPartitioner`](crate::DefaultPartitioner): by the key, or round robin for records
    /// without a key, where it skips partitions that take no appends until the broker is opened
    /// again. If another partitioner chooses such a partition, the send fails.
    #[doc(alias = "partitioner.class")]
    pub fn partitioner(mut self, partitioner: impl Partitioner) -> Self {
        self.choice = Choice::by(partitioner);
        self
    }

    /// Sets which replicas must have a record before it is acknowledged. Default [`Acks::Leader`],
    /// the only level without replication.
    pub fn acks(mut self, acks: Acks) -> Self {
        self.acks = acks;
        self
    }

    /// Makes the producer.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for [`Acks::Quorum`] without replication and for an interval of zero;
    /// [`Error::InvalidName`] for the id. With an id, which is stored, also
    /// [`Error::StorageFull`], [`Error::SyncFailed`], [`Error::Io`], [`Error::ReadOnly`] and
    /// [`Error::Closed`].
    ///
    /// # Durability
    ///
    /// With an id: on return older producers with this id are refused, also after a restart.
    ///
    /// # Blocking
    ///
    /// With an id: for a sync of the disk. Otherwise never.
    pub fn build(self) -> Result<Producer> {
        if self.acks == Acks::Quorum {
            return Err(Error::config("acks", "the broker has no replication; leave it out"));
        }
        if let Some(durability) = self.durability {
            durability.validate()?;
        }
        let named = self.id.map(|id| self.broker.run().producers().acquire(&id)).transpose()?;
        Ok(Producer::new(&self.broker, self.durability, self.choice, named))
    }
}

impl fmt::Debug for ProducerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProducerBuilder")
            .field("durability", &self.durability)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

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
    /// The partitions that this producer appended to without waiting; for `flush`.
    unflushed: Unflushed,
}

struct Named {
    shared: Arc<NamedProducer>,
    epoch: u32,
}

/// The answer of [`Producer::send_sequenced`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendOutcome {
    /// The record is new, and appended.
    Appended(RecordMetadata),
    /// The partition has stored a record with this number or a higher one already.
    Duplicate {
        /// The last number that the partition has stored for this producer id. If it is higher than
        /// the number that was sent, a record with that number may never have been stored.
        last: u64,
    },
}

/// A record in its partition, and not yet waited for.
struct Sent<'t> {
    appended: Appended<'t>,
    metadata: RecordMetadata,
}

impl Producer {
    fn new(
        broker: &Broker,
        durability: Option<Durability>,
        choice: Choice,
        named: Option<(Arc<NamedProducer>, u32)>,
    ) -> Self {
        let inner = Inner {
            run: Arc::clone(broker.run()),
            durability,
            choice,
            named: named.map(|(shared, epoch)| Named { shared, epoch }),
            unflushed: Unflushed::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Sends one record and waits for its acknowledgement. Returns its partition, offset and
    /// timestamp.
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
    /// # Durability
    ///
    /// On return the record survives what the [`Durability`] in force covers: the producer's, or
    /// the topic's if the producer has none, or the broker's.
    ///
    /// # Blocking
    ///
    /// At [`Durability::Sync`], for a sync of the disk, which concurrent senders share. At the other
    /// levels, while 1 GiB of the partition's full segments is not durable. With
    /// [`WhenFull::Wait`](crate::WhenFull::Wait), also until there is space.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a record is given away, as in `Record::to(..)`"
    )]
    pub fn send(&self, record: Record<'_>) -> Result<RecordMetadata> {
        let topic = self.topic_of(&record)?;
        let Sent { appended, metadata } =
            self.append(&topic, &record, &self.terms(Sequence::Absent))?;
        self.settle(&appended)?;
        Ok(metadata)
    }

    /// Appends a record without waiting for the disk. The record is readable on return. The
    /// returned [`Delivery`] resolves when the record is durable; drop it if you do not need to
    /// know.
    ///
    /// # Errors
    ///
    /// Nothing was appended after any of these: [`Error::UnknownTopic`],
    /// [`Error::UnknownPartition`], [`Error::RecordTooLarge`], [`Error::Config`] (the record names
    /// no topic, has a time before 1970, or has no key and the topic is compacted),
    /// [`Error::StorageFull`], [`Error::OffsetExhausted`], [`Error::Fenced`], [`Error::ReadOnly`],
    /// [`Error::Corrupt`] (files of the partition are missing or unreadable), [`Error::Poisoned`],
    /// [`Error::Forked`], [`Error::Closed`].
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
        let Sent { appended, metadata } = self.append(&topic, record, terms)?;
        let core = Arc::clone(appended.core);
        #[cfg(feature = "testing")]
        core.log().seams.note(|| Call::Enqueue {
            partition: TopicPartition::clone(&core.origin),
            offset: metadata.offset,
        });
        self.inner.unflushed.note(&core);
        let (end, waits) = (appended.offsets.end, appended.is_waited_for());
        Ok(Delivery::new(core, end, waits, metadata, Arc::clone(&self.inner.run)))
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
    /// missing or unreadable), [`Error::Poisoned`] and [`Error::Forked`]. After
    /// [`Error::SyncFailed`], [`Error::Io`] and [`Error::Closed`] the record may or may not be
    /// stored; the call can be repeated safely.
    ///
    /// # Durability
    ///
    /// On return the record survives what the [`Durability`] in force covers: the producer's, or
    /// the topic's if the producer has none, or the broker's. If the result is `Duplicate`, this
    /// is true of the record that was stored before.
    ///
    /// # Blocking
    ///
    /// At [`Durability::Sync`], for a sync of the disk. The first record of a producer in a topic
    /// whose key chooses the partition also waits for a sync of the list of topics, and for running
    /// changes of topics. With [`WhenFull::Wait`](crate::WhenFull::Wait), also until there is
    /// space.
    #[doc(alias = "enable.idempotence")]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a record is given away, as in `Record::to(..)`"
    )]
    pub fn send_sequenced(&self, seq: u64, record: Record<'_>) -> Result<SendOutcome> {
        let Some(named) = &self.inner.named else {
            return Err(Error::config(
                "id",
                "a producer without an id has no sequence; build it with `id`",
            ));
        };
        if record.key.is_none() && record.partition.is_none() {
            let reason =
                "it needs a key or a partition, so that a retry goes to the same partition";
            return Err(Error::config("record", reason));
        }
        let (topic, under_way) = self.topic_of_number(named, &record)?;
        let sent = self.append(&topic, &record, &self.terms(Sequence::At(seq)));
        drop(under_way);
        let Sent { appended, metadata } = sent?;
        self.settle(&appended)?;
        Ok(match appended.duplicate_of {
            Some(last) => SendOutcome::Duplicate { last },
            None => SendOutcome::Appended(metadata),
        })
    }

    /// Returns the last sequence number that a partition has stored for this producer's id. `None`
    /// if it has none, if the producer has no id, or if there is no such partition.
    #[must_use]
    pub fn last_sequence(&self, partition: impl Into<TopicPartition>) -> Option<u64> {
        let partition = partition.into();
        let named = self.inner.named.as_ref()?;
        let topic = self.inner.run.topic(&partition.topic).ok()?;
        topic.partition(partition.partition).ok()?.log().last_sequence(named.shared.id)
    }

    /// Sends records as one batch for each partition. Each batch is stored as a whole or not at
    /// all. The results are in the order of the input. All records of one call without a key and a
    /// partition are sent to the same partition.
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
    /// [`Error::Forked`] and [`Error::Closed`].
    ///
    /// # Durability
    ///
    /// On return all records survive what the [`Durability`] in force covers: the producer's, or
    /// the topic's if the producer has none, or the broker's.
    ///
    /// # Blocking
    ///
    /// At [`Durability::Sync`], for a sync of each partition, up to eight of them at the same time.
    /// At the other levels, while 1 GiB of a partition's full segments is not durable. With
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
    /// level of [`Durability`].
    ///
    /// # Errors
    ///
    /// All partitions are tried, and the error of the first one that failed is returned:
    /// [`Error::SyncFailed`] or [`Error::Poisoned`]. [`Error::Closed`].
    ///
    /// # Durability
    ///
    /// On `Ok` all these records are on stable storage.
    ///
    /// # Blocking
    ///
    /// For a sync of each partition that has such records, up to eight of them at the same time.
    pub fn flush(&self) -> Result<()> {
        let flushed = self.inner.unflushed.flush();
        // Checked last: a broker that was closed meanwhile has closed partitions too.
        flushed.and_then(|()| self.inner.run.gate().check_open())
    }

    /// Waits for the level in force. Appends that are not waited for are remembered for `flush`.
    #[inline]
    fn settle(&self, appended: &Appended<'_>) -> Result<()> {
        if !appended.is_waited_for() {
            self.inner.unflushed.note(appended.core);
        }
        appended.settle()
    }

    /// Waits for the level in force of several batches, whose syncs run at the same time. Appends
    /// that are not waited for are remembered for `flush`.
    fn settle_all(&self, appended: &[(&Group, Appended<'_>)], answer: &mut Answer) {
        let (mut waiting, mut waits) = (Vec::new(), Vec::new());
        for (group, batch) in appended {
            if batch.is_waited_for() {
                waiting.push((group, batch));
                waits.push((&**batch.core, batch.offsets.end));
            } else {
                self.inner.unflushed.note(batch.core);
                #[cfg(feature = "testing")]
                batch.note_answer(&Ok(()));
            }
        }
        for ((group, batch), waited) in waiting.iter().zip(together::wait_durable(&waits)) {
            #[cfg(feature = "testing")]
            batch.note_answer(&waited);
            if let Err(error) = waited {
                batch.core.log().trace().deliver();
                // Appended, and not acknowledged: the answer must not say that it is safe.
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
        Terms { expected: None, producer, level: self.inner.durability, is_task: false }
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

//! Goal: programs written against the documented interface compile. Nothing here runs: each
//! function names signatures as an application would use them, and the compiler is the test.
//!
//! Not covered: what the calls do; replication, which this version does not have.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use logpond::{
    Acks, Admin, Assignor, Batch, Bincode, Broker, BrokerBuilder, Cleanup, Clock, Codec,
    CodecError, CommitMode, Commits, Consumer, ConsumerBuilder, ConsumerHandle, Corruption,
    Delivery, Durability, Error, Gap, Headers, InFlight, LastSequenced, LeaderEpoch, ManualClock,
    Message, MessageRef, NodeId, Offsets, Partition, PartitionRecovery, Partitioner, Producer,
    ProducerBuilder, ReadMode, Rebalance, Record, RecordMetadata, RecoveryPolicy, RecoveryReport,
    Refreshed, Result, SendOutcome, SequencedDelivery, StartAt, SystemClock, TimestampType, Topic,
    TopicConfig, TopicInfo, TopicPartition, TypedConsumer, TypedMessage, TypedProducer,
    VerifyReport, Versioned, Visibility,
};

/// Only has to compile.
fn never(calls: impl FnOnce() -> Result<()>) {
    let _ = calls;
}

fn is_shared<T: Clone + Send + Sync + 'static>() {}
fn is_sent<T: Send + 'static>() {}

#[test]
fn handles_go_where_they_are_promised_to_go() {
    is_shared::<Broker>();
    is_shared::<Producer>();
    is_shared::<Topic>();
    is_shared::<Partition>();
    is_shared::<Message>();
    is_shared::<ConsumerHandle>();
    is_shared::<Admin>();
    is_shared::<Error>();
    is_shared::<TypedProducer<u32, Bincode>>();
    is_sent::<Consumer>();
    is_sent::<Delivery>();
    is_sent::<SequencedDelivery>();
    is_sent::<TypedConsumer<u32, Bincode>>();
    is_sent::<TypedMessage<u32>>();
}

#[test]
fn a_broker_is_opened_and_closed() {
    never(|| {
        let _: Broker = Broker::open("./data")?;
        let _: Broker = Broker::open(PathBuf::from("./data"))?;
        let _: Broker = Broker::in_memory()?;
        let builder: BrokerBuilder = Broker::builder();
        let broker: Broker = builder
            .data_dir(Path::new("./data"))
            .durability(Durability::Interval { every: Duration::from_secs(1), bytes: 1 << 20 })
            .clock(SystemClock)
            .background(false)
            .topic_defaults(TopicConfig::new(1))
            .recovery(RecoveryPolicy::CutTornTail)
            .read_mode(ReadMode::Mapped)
            .read_only(false)
            .seed(7)
            .open()?;
        let _ = Broker::builder().in_memory().open()?;
        let _ = [RecoveryPolicy::Strict, RecoveryPolicy::ReadAroundDamage];
        let _: Topic = broker.ensure_topic("t", TopicConfig::new(4))?;
        let _: Topic = broker.topic("t")?;
        let _: (Producer, ProducerBuilder) = (broker.producer(), broker.producer_builder());
        let _: (ConsumerBuilder, ConsumerBuilder) = (broker.consumer("g"), broker.reader());
        let _: Admin = broker.admin();
        let _: Refreshed = broker.refresh()?;
        let report: &RecoveryReport = broker.recovery();
        let _: (bool, bool) = (report.clean_shutdown, report.is_clean());
        let partitions: &Vec<PartitionRecovery> = &report.partitions;
        let first = &partitions[0];
        let _: (&Arc<str>, u32, u64, u64, &Vec<Corruption>) =
            (&first.topic, first.partition, first.end_offset, first.cut_bytes, &first.corrupt);
        broker.flush()?;
        broker.tick()?;
        broker.close()
    });
}

#[test]
fn clocks_are_set_and_moved() {
    struct Mine;
    impl Clock for Mine {
        fn now(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH
        }
        fn monotonic(&self) -> Duration {
            Duration::ZERO
        }
    }
    never(|| {
        let clock: ManualClock = ManualClock::new(SystemTime::UNIX_EPOCH);
        clock.clone().advance(Duration::from_secs(1));
        clock.set(SystemTime::UNIX_EPOCH);
        let callback: Arc<dyn Fn() + Send + Sync> = Arc::new(|| ());
        clock.on_move(Arc::downgrade(&callback));
        let _ = Broker::builder().in_memory().clock(Mine).open()?;
        let _ = Broker::builder().in_memory().clock(clock).open()?;
        Ok(())
    });
}

#[test]
fn topics_are_configured_and_read() {
    never(|| {
        let config = TopicConfig::new(3)
            .durability(Durability::Sync)
            .retention(Duration::MAX)
            .retention_bytes(u64::MAX)
            .segment_bytes(16 << 10)
            .segment_age(Duration::from_secs(1))
            .cleanup(Cleanup::CompactAndDelete)
            .tombstone_retention(Duration::ZERO)
            .min_dirty_ratio(0.5)
            .max_record_bytes(1 << 20)
            .timestamps(TimestampType::AppendTime);
        let _: (Option<Durability>, Option<u32>) = (config.durability, config.max_record_bytes);
        let _ = [Cleanup::Delete, Cleanup::Compact];
        let broker = Broker::in_memory()?;
        let _: Topic = broker.ensure_topic_as_is("t", config.clone())?;
        let topic = broker.ensure_topic("t", config)?;
        let _: (&str, u32, TopicConfig) = (topic.name(), topic.partitions(), topic.config());
        let partition: Partition = topic.partition(0)?;
        let _: u32 = topic.iter().map(|partition: Partition| partition.number()).sum();
        let _: u64 = partition.append(&Record::new().value("v"))?;
        let _: Range<u64> = partition.append_batch(&[Record::new().value("v")])?;
        let _: Range<u64> = partition.append_if(7, &[])?;
        let _: Batch = partition.read(0, 1 << 20)?;
        let _: [u64; 4] = [
            partition.log_start_offset(),
            partition.log_end_offset(),
            partition.durable_end_offset(),
            partition.high_watermark(),
        ];
        let _: Option<u64> = partition.offset_at(SystemTime::UNIX_EPOCH)?;
        partition.flush()?;
        let at: TopicPartition = ("t", 0).into();
        let _: [TopicPartition; 2] = [TopicPartition::new("t", 0), (at.topic.clone(), 1).into()];
        let _: TopicPartition = (String::from("t"), 0).into();
        let _ = format!("{at}");
        Ok(())
    });
}

#[test]
fn records_are_produced() {
    struct First;
    impl Partitioner for First {
        fn partition(&self, _key: Option<&[u8]>, _partitions: u32) -> u32 {
            0
        }
    }
    never(|| {
        let broker = Broker::in_memory()?;
        let producer: Producer = broker
            .producer_builder()
            .durability(Durability::Os)
            .id("importer")
            .partitioner(First)
            .acks(Acks::Leader)
            .build()?;
        let record = Record::to("t")
            .key("k")
            .value(&[1u8, 2])
            .header("name", "value")
            .timestamp(SystemTime::UNIX_EPOCH)
            .partition(0);
        let RecordMetadata { partition: _, offset: _, timestamp: _ } = producer.send(record)?;
        let _: Vec<RecordMetadata> = producer.send_batch([Record::to("t").key("k").tombstone()])?;
        let delivery: Delivery = producer.enqueue(Record::to("t"))?;
        let _: Option<Result<RecordMetadata>> = delivery.wait_timeout(Duration::ZERO);
        let _: RecordMetadata = delivery.metadata();
        let _: RecordMetadata = delivery.wait()?;
        let future = producer.enqueue(Record::to("t"))?;
        let _: &dyn Future<Output = Result<RecordMetadata>> = &future;
        producer.flush()?;
        match producer.send_sequenced(1, Record::to("t").key("k"))? {
            SendOutcome::Appended(RecordMetadata { .. }) | SendOutcome::Duplicate { last: _ } => {}
        }
        let _: Vec<SendOutcome> = producer.send_batch_sequenced([(1, Record::to("t").key("k"))])?;
        let delivery: SequencedDelivery =
            producer.enqueue_sequenced(1, Record::to("t").key("k"))?;
        let _: Option<Result<SendOutcome>> = delivery.wait_timeout(Duration::ZERO);
        let _: (SendOutcome, u32, u64) =
            (delivery.outcome(), delivery.partition(), delivery.offset());
        let _: &dyn Future<Output = Result<SendOutcome>> = &delivery;
        let _: SendOutcome = delivery.wait()?;
        let _: Option<u64> = producer.last_sequence(("t", 0));
        let last: LastSequenced = producer.last_sequenced(("t", 0)).unwrap();
        let _: (u64, u64) = (last.sequence, last.offset);
        let _ = Acks::Quorum;
        Ok(())
    });
}

#[test]
fn records_are_consumed() {
    never(|| {
        let broker = Broker::in_memory()?;
        let at: TopicPartition = ("t", 0).into();
        let mut consumer: Consumer = broker
            .consumer("g")
            .subscribe(["t"])
            .start(StartAt::Time(SystemTime::UNIX_EPOCH))
            .out_of_range(StartAt::Latest)
            .commit(CommitMode::Auto { every: Duration::from_secs(1) })
            .visibility(Visibility::Durable)
            .max_poll_records(10)
            .max_poll_bytes(1 << 20)
            .assignor(Assignor::CooperativeSticky)
            .open()?;
        let _ = broker.reader().assign([("t", 0)]).open()?;
        let _ = broker.reader().assign([&at]).open()?;
        let _ = [Assignor::Range, Assignor::RoundRobin];
        let _ = [StartAt::Earliest, StartAt::Latest, StartAt::Offset(1), StartAt::Error];
        let _: Message = consumer.recv()?;
        let _: Option<Message> = consumer.recv_timeout(Duration::ZERO)?;
        let _: Option<Message> = consumer.try_recv()?;
        let message: Message = consumer.iter().next().unwrap()?;
        consumer.commit()?;
        consumer.commit_message(&message)?;
        consumer.commit_offsets(&Offsets::from([(at.clone(), 1)]))?;
        consumer.commit_soon()?;
        consumer.seek(&at, StartAt::Earliest)?;
        consumer.pause(std::slice::from_ref(&at))?;
        consumer.resume(std::slice::from_ref(&at))?;
        let _: Option<u64> = consumer.position(&at);
        let _: Option<u64> = consumer.committed(&at)?;
        let _: BTreeMap<TopicPartition, u64> = consumer.lag()?;
        let _: Vec<TopicPartition> = consumer.assignment();
        let gaps: Vec<Gap> = consumer.take_gaps();
        let _: (&TopicPartition, &Range<u64>) = (&gaps[0].partition, &gaps[0].missed);
        let handle: ConsumerHandle = consumer.handle();
        handle.wake();
        let _: bool = consumer.was_woken();
        consumer.pause_all();
        consumer.resume_all();
        let _: Vec<TopicPartition> = consumer.paused();
        consumer.assign([("t", 0)])?;
        consumer.assign([&at])?;
        let _: Offsets = consumer.beginning_offsets([&at])?;
        let _: Offsets = consumer.end_offsets([("t", 0)])?;
        handle.shutdown();
        let mut in_flight: InFlight = InFlight::new();
        in_flight.begin(&message);
        in_flight.finish(&message);
        let _: Vec<Message> = in_flight.take_done();
        in_flight.retain(&consumer.assignment());
        let _: (usize, bool) = (in_flight.len(), in_flight.is_empty());
        consumer.close()
    });
}

#[test]
fn rebalances_are_reported() {
    fn of_a_function(_: Rebalance<'_>, commits: &mut Commits<'_>) -> std::io::Result<()> {
        commits.commit(&Offsets::new()).map_err(std::io::Error::other)
    }
    never(|| {
        let broker = Broker::in_memory()?;
        let member = || broker.consumer("g").subscribe(["t"]);
        let _ = member().on_rebalance(|_, _| ()).open()?;
        let _ = member().on_rebalance(of_a_function).open()?;
        let _ = member().on_rebalance(|_, _| Err::<(), _>("a reason")).open()?;
        let _ = member().on_rebalance(|_, _| panic!("always")).open()?;
        let builder: ConsumerBuilder = member().on_rebalance(|event, commits| -> Result<()> {
            if let Rebalance::Assigned(partitions) = event {
                commits.seek(&partitions[0], StartAt::Earliest)?;
                commits.pause(partitions)?;
            }
            if let Rebalance::Revoked([one, ..]) | Rebalance::Lost([one, ..]) = event {
                let next: Option<u64> = commits.position(one);
                commits.commit(&Offsets::from([(one.clone(), next.unwrap())]))?;
            }
            Ok(())
        });
        if let Err(Error::Callback { source }) = builder.open()?.recv() {
            let _: Option<&std::io::Error> = source.downcast_ref();
        }
        Ok(())
    });
}

#[test]
fn messages_are_read() {
    never(|| {
        let broker = Broker::in_memory()?;
        let mut consumer = broker.reader().subscribe(["t"]).open()?;
        let batch: Batch = consumer.poll(Duration::from_secs(1))?;
        let _: (usize, bool) = (batch.len(), batch.is_empty());
        for (partition, messages) in batch.by_partition() {
            let _: TopicPartition = partition;
            for message in messages {
                let _: MessageRef<'_> = message;
            }
        }
        let _: Offsets = batch.next_offsets();
        for message in &batch {
            let _: MessageRef<'_> = message;
            let _: Record<'_> = Record::from(&message).topic("t");
        }
        for message in batch.iter() {
            let _: (&str, u32, TopicPartition) =
                (message.topic(), message.partition(), message.topic_partition());
            let _: (u64, u64, u32) =
                (message.offset(), message.next_offset(), message.leader_epoch());
            let _: (Option<&[u8]>, Option<&[u8]>) = (message.key(), message.value());
            let _: [Option<Cow<'_, str>>; 2] = [message.key_text(), message.value_text()];
            let _: (SystemTime, Headers<'_>) = (message.timestamp(), message.headers());
            let _: Message = message.to_owned();
        }
        for message in batch {
            let message: Message = message;
            let headers = message.headers();
            let _: Option<&[u8]> = headers.get("name");
            for (name, value) in headers {
                let _: (&str, &[u8]) = (name, value);
            }
            let _: (&str, u32, u64, u64) =
                (message.topic(), message.partition(), message.offset(), message.next_offset());
            let _: [Option<bytes::Bytes>; 2] = [message.key_bytes(), message.value_bytes()];
            let _: [Option<Cow<'_, str>>; 2] = [message.key_text(), message.value_text()];
            let _: Message = message.detach();
            let _: Record<'_> = (&message).into();
        }
        Ok(())
    });
}

/// Another codec than those of the crate.
struct Text;

impl Codec<String> for Text {
    fn name(&self) -> &'static str {
        "text"
    }

    fn encode(&self, value: &String, buffer: &mut Vec<u8>) -> Result<(), CodecError> {
        buffer.extend_from_slice(value.as_bytes());
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<String, CodecError> {
        String::from_utf8(bytes.to_vec()).map_err(|error| CodecError::new("text", error))
    }
}

#[test]
fn values_are_produced_and_consumed() {
    never(|| {
        let broker = Broker::in_memory()?;
        let producer: TypedProducer<u32, Bincode> = broker.producer().typed::<u32>("t");
        let _: RecordMetadata = producer.send(&7)?;
        let _: RecordMetadata = producer.send_keyed("k", &7)?;
        let _: RecordMetadata = producer.send_keyed(&[1u8], &7)?;
        let _: [Delivery; 2] = [producer.enqueue(&7)?, producer.enqueue_keyed("k", &7)?];
        let _: RecordMetadata = producer.tombstone("k")?;
        let _: Vec<u8> = producer.encode(&7)?;
        let _: TypedProducer<String, Text> = broker.producer().typed_with("t", Text);

        let builder = || broker.consumer("g").subscribe(["t"]);
        let mut consumer: TypedConsumer<u32, Bincode> = builder().open_typed::<u32>()?;
        let messages: Vec<TypedMessage<u32>> = consumer.poll(Duration::ZERO)?;
        for TypedMessage { value, raw } in messages {
            let _: (Result<Option<u32>, CodecError>, Message) = (value, raw);
        }
        let typed: TypedMessage<u32> = consumer.recv()?;
        let _: (&str, u32, u64) = (typed.topic(), typed.partition(), typed.offset());
        let _: (Option<&[u8]>, Option<Cow<'_, str>>) = (typed.key(), typed.key_text());
        let _: (Headers<'_>, SystemTime) = (typed.headers(), typed.timestamp());
        let _: TypedMessage<u32> = consumer.iter().next().unwrap()?;
        consumer.commit()?;
        let _: &mut Consumer = consumer.inner();
        let _: SendOutcome = producer.send_sequenced(1, &1, Record::new().key("k"))?;
        drop::<SequencedDelivery>(producer.enqueue_sequenced(1, &1, Record::new().key("k"))?);
        let _: RecordMetadata = producer.send_with(&1, Record::new().header("name", "value"))?;
        drop::<Delivery>(producer.enqueue_with(&1, Record::new().key("k"))?);
        consumer.seek(("t", 0), StartAt::Earliest)?;
        consumer.commit_offsets(&Offsets::new())?;
        let _: BTreeMap<TopicPartition, u64> = consumer.lag()?;
        let _: Vec<Gap> = consumer.take_gaps();
        let _: ConsumerHandle = consumer.handle();
        let _: Versioned = Versioned::<Bincode>::default();
        let _: Versioned = Versioned::new(Bincode);
        let _: TypedConsumer<String, Text> = builder().open_typed_with::<String, Text>(Text)?;
        Ok(())
    });
}

#[cfg(feature = "testing")]
#[test]
fn a_test_broker_is_made_crashed_and_disturbed() {
    use logpond::testing::{
        Call, CrashedBroker, ErrorKind, Fault, FaultId, Faults, TestBroker, UnmetFaults,
        at_every_crash,
    };
    never(|| {
        let _: TestBroker = TestBroker::in_memory();
        let _: TestBroker = TestBroker::with(|settings| settings.durability(Durability::Os));
        let broker: TestBroker = TestBroker::new();
        let _: (&Broker, Broker, &ManualClock) = (&broker, broker.clone(), broker.clock());
        let _: Vec<Message> = broker.produced("t");
        broker.advance(Duration::from_secs(1))?;
        let _: bool = broker.run_until(|broker| broker.produced("t").is_empty(), Duration::ZERO);
        let faults: &Faults = broker.faults();
        faults.fail_next_append(("t", 0), ErrorKind::StorageFull);
        faults.fail_next_sync(&TopicPartition::from(("t", 0)));
        faults.delay_append(("t", 0), Duration::from_millis(1));
        faults.storage_full(true);
        faults.rebalance("g");
        faults.evict("g");
        faults.fence_producer("p");
        let id: FaultId = faults.set(Fault::poll().of_group("g").times(2));
        let _: usize = faults.met(id);
        faults.lift(id);
        faults.corrupt_record(("t", 0), 7);
        let _: Vec<Call> = broker.calls();
        let _: Option<Error> = broker.calls().first().and_then(Call::error).cloned();
        broker.forget_calls();
        let _: Vec<Message> = broker.produced_with_key("t", "key");
        let _: (Offsets, BTreeMap<TopicPartition, u64>) = (broker.committed("g"), broker.lag("g"));
        let _: String = broker.show("t");
        broker.assert_produced("t", ["value"]);
        broker.wait_for("it", Duration::ZERO, |broker| broker.calls().is_empty());
        broker.stop_disk_after(1);
        let _: bool = broker.has_stopped();
        let _: u64 = at_every_crash(
            TestBroker::new,
            |broker: &Broker| broker.metrics(),
            |_metrics, broker: TestBroker| drop(broker),
        );
        let crashed: CrashedBroker = broker.crash();
        let broker: TestBroker = crashed.kill9()?;
        let broker: TestBroker = broker.crash().power_cut(7)?;
        let broker: TestBroker = broker.crash().lose_unsynced()?;
        let broker: TestBroker = broker.crash().lose_tail(("t", 0))?;
        let _: std::result::Result<(), UnmetFaults> = broker.finish();
        Ok(())
    });
}

#[cfg(all(feature = "testing", feature = "replication"))]
#[test]
fn a_cluster_is_made_cut_and_healed() {
    use logpond::testing::{
        ClusterBuilder, Link, NetworkStats, SimNetwork, TestBroker, TestCluster,
    };
    use logpond::{
        Election, Frame, LeaderEpoch, NodeId, Replication, ReplicationHandle, ReplicationStatus,
        Transport, TransportError,
    };
    never(|| {
        let network: SimNetwork = SimNetwork::new(7);
        let transport: std::sync::Arc<dyn Transport> = network.transport(NodeId(1));
        let _: fn(&dyn Transport, NodeId, Frame) -> std::result::Result<(), TransportError> =
            |transport, to, frame| transport.send(to, frame);
        let replication = Replication::new(NodeId(1), [NodeId(1)], transport);
        let handle: ReplicationHandle = replication.handle();
        let _: fn(&ReplicationHandle, NodeId, Frame) -> logpond::Result<()> =
            ReplicationHandle::receive_and_tick;
        network.attach(NodeId(1), handle);
        network.detach(NodeId(1));
        let _: (bool, Option<Duration>) = (network.step(), network.next_arrival());
        network.partition(&[NodeId(1)], &[NodeId(2), NodeId(3)]);
        network.cut(&[NodeId(1)], &[NodeId(2)]);
        network.heal();
        network.heal_after(Duration::from_secs(1));
        let link: Link = Link::default().loss(0.1).repeat(0.1).reorder(0.1);
        network.links(link.delay(Duration::ZERO..Duration::from_millis(1)));
        network.link(NodeId(1), NodeId(2), Link::default());
        let _: (NetworkStats, u64, u64) = (network.stats(), network.trace(), network.seed());
        let clock: ManualClock = network.clock();
        let _: SimNetwork = SimNetwork::on_clock(7, &clock);

        let builder: ClusterBuilder = TestCluster::builder(3).seed(7).elect(None);
        let builder = builder.elect(Election::default());
        let builder = builder.brokers(|_: NodeId, settings| settings.durability(Durability::Os));
        let _: TestCluster =
            builder.replication(|_: NodeId, it| it.max_uncommitted_bytes(1)).start();
        let cluster: TestCluster = TestCluster::new(3);
        let _: (&Broker, &Broker) = (cluster.leader(), cluster.broker(NodeId(1)));
        let member: &TestBroker = cluster.member(NodeId(1));
        member.faults().lose_leadership();
        let _: (Vec<NodeId>, Option<NodeId>) = (cluster.nodes(), cluster.leader_id());
        let _: (bool, Option<ReplicationStatus>) =
            (cluster.is_running(NodeId(1)), cluster.status(NodeId(1)));
        let _: LeaderEpoch = cluster.lead(NodeId(1))?;
        cluster.crash(NodeId(1));
        cluster.power_cut(NodeId(1), 7);
        cluster.lose_unsynced(NodeId(1));
        cluster.wipe(NodeId(1));
        cluster.restart(NodeId(1));
        cluster.partition(&[NodeId(1)], &[NodeId(2), NodeId(3)]);
        cluster.isolate(NodeId(1));
        cluster.heal();
        let _: bool =
            cluster.run_until(|it: &TestCluster| it.leader_id().is_some(), Duration::ZERO);
        cluster.advance(Duration::from_secs(1));
        let _: (&ManualClock, &SimNetwork, u64) =
            (cluster.clock(), cluster.network(), cluster.seed());
        let _: Vec<Message> = cluster.produced("t");
        Ok(())
    });
}

#[cfg(feature = "async")]
#[test]
fn consumers_are_streams() {
    fn is_stream<I>(_: impl futures_core::Stream<Item = I> + Unpin) {}
    never(|| {
        let broker = Broker::in_memory()?;
        let mut consumer = broker.reader().subscribe(["t"]).open()?;
        let stream: logpond::MessageStream<'_> = consumer.stream();
        is_stream::<Result<Message>>(stream);
        let mut consumer = broker.reader().subscribe(["t"]).open_typed::<u32>()?;
        is_stream::<Result<TypedMessage<u32>>>(consumer.stream());
        Ok(())
    });
}

#[test]
fn topics_are_administered() {
    never(|| {
        let admin: Admin = Broker::in_memory()?.admin();
        let _: Topic = admin.create_topic("t", TopicConfig::new(1))?;
        let _: Topic = admin.create_topic_at("t", TopicConfig::new(1), [(0, 7)])?;
        admin.delete_topic("t")?;
        let _: Vec<TopicInfo> = admin.topics()?;
        let _: TopicInfo = admin.describe_topic("t")?;
        admin.alter_topic("t", |config| config.retention(Duration::ZERO))?;
        admin.add_partitions("t", 4)?;
        let report: VerifyReport = admin.verify("t")?;
        let _: VerifyReport = admin.verify_partition(("t", 0))?;
        let _: (u64, u64, &Vec<Corruption>, bool) =
            (report.batches, report.records, &report.damage, report.is_ok());
        Ok(())
    });
}

#[test]
fn errors_are_matched_on() {
    let number_of = |error: Error| match error {
        Error::Corrupt(Corruption { partition: _, file: _, position: _, offsets: _, kind: _ }) => 1,
        Error::UnknownTopic(name) => name.len(),
        Error::UnknownPartition(TopicPartition { topic: _, partition: _ }) => 2,
        Error::RecordTooLarge { size: _, limit: _ } => 3,
        Error::OffsetOutOfRange { partition: _, requested: _, start: _, end: _ } => 4,
        Error::WrongOffset { partition: _, expected: _, actual: _ } => 5,
        Error::NoOffset(_) => 6,
        Error::Truncated { partition: _, committed: _, end: _ } => 7,
        Error::Io { .. } | Error::Locked { .. } | Error::UnsupportedVersion { .. } => 8,
        Error::TopicExists(_) | Error::InvalidName { .. } | Error::Rebalanced { .. } => 9,
        Error::Fenced { .. }
        | Error::NotLeader { .. }
        | Error::NotEnoughReplicas { .. }
        | Error::LeadershipLost => 10,
        Error::StorageFull { .. } | Error::ReadOnly { .. } | Error::OffsetExhausted { .. } => 11,
        Error::SyncFailed { .. } | Error::Poisoned { .. } | Error::PartialBatch { .. } => 12,
        Error::Timeout | Error::Codec(_) | Error::Transport(_) | Error::Config(..) => 13,
        Error::Closed => 14,
        _ => 15,
    };
    assert_eq!(number_of(Error::Closed), 14);
    let error = Error::Timeout;
    let _: (bool, bool, bool) = (error.is_retriable(), error.is_fatal(), error.is_definite());
    let _: (NodeId, LeaderEpoch) = (NodeId(1), LeaderEpoch(0));
}

#[cfg(feature = "async")]
#[test]
fn tasks_wait_in_futures() {
    use logpond::{AsyncConsumer, AsyncProducer, AsyncTypedConsumer, MessageStream, TypedStream};

    fn resolves<T>(_: impl Future<Output = T> + Send) {}

    is_sent::<MessageStream<'static>>();
    is_sent::<TypedStream<'static, u32>>();
    never(|| {
        let broker = Broker::in_memory()?;
        let mut consumer = broker.consumer("g").subscribe(["t"]).open()?;
        let message = consumer.recv()?;
        let mut inbox: AsyncConsumer<'_> = consumer.in_async();
        resolves::<Result<Message>>(inbox.recv());
        resolves::<Result<Batch>>(inbox.poll());
        resolves::<Result<()>>(inbox.commit());
        resolves::<Result<()>>(inbox.commit_message(&message));
        resolves::<Result<()>>(inbox.commit_offsets(&Offsets::new()));
        let _: ConsumerHandle = inbox.handle();
        let _: &mut Consumer = inbox.inner();
        let mut stream: MessageStream<'_> = consumer.stream();
        resolves::<Result<()>>(stream.commit());
        resolves::<Result<()>>(stream.commit_message(&message));
        resolves::<Result<()>>(stream.commit_offsets(&Offsets::new()));
        let _: ConsumerHandle = stream.handle();
        let _: &mut Consumer = stream.inner();
        drop(stream);
        let _: MessageStream<'static> = consumer.into_stream();
        let producer = broker.producer();
        let view: AsyncProducer<'_> = producer.in_async();
        resolves::<Result<RecordMetadata>>(view.send(Record::to("t")));

        let mut typed = broker.reader().subscribe(["t"]).open_typed::<u32>()?;
        let mut inbox: AsyncTypedConsumer<'_, u32> = typed.in_async();
        resolves::<Result<TypedMessage<u32>>>(inbox.recv());
        resolves::<Result<Vec<TypedMessage<u32>>>>(inbox.poll());
        resolves::<Result<()>>(inbox.commit());
        resolves::<Result<()>>(inbox.commit_message(&message));
        let _: TypedStream<'static, u32> = typed.into_stream();
        Ok(())
    });
}

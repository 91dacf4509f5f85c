//! logpond itself, with its default settings except for the durability: one broker, one topic, a
//! partition per log.

use std::path::Path;
use std::time::Duration;

use logpond::{
    Broker, Consumer, Durability, Partition, Record, StartAt, Topic, TopicConfig, TopicPartition,
};

use super::{Contender, POWER, PROCESS};
use crate::log::{Log, Outcome, Plan, Read, Values, Write};
use crate::workloads::run;

pub(super) const LOGPOND: Contender = Contender {
    name: "logpond",
    title: "logpond",
    package: Some("logpond"),
    survives: |work| if work.durable { POWER } else { PROCESS },
    checks: "each record (CRC-32)",
    takes: |_| true,
    run: run::<Logpond>,
};

const TOPIC: &str = "peers";

/// So much that the calls do not count, and so little that what was checked is still in the core's
/// own cache when it is looked at.
const POLL_BYTES: usize = 512 << 10;

struct Logpond {
    broker: Broker,
    topic: Topic,
    logs: usize,
}

impl Logpond {
    fn number(log: usize) -> Outcome<u32> {
        Ok(u32::try_from(log)?)
    }
}

impl Log for Logpond {
    type Writer<'log> = Writer;
    type Reader<'log> = Reader;

    fn open(dir: &Path, plan: &Plan) -> Outcome<Self> {
        let durability = if plan.durable { Durability::Sync } else { Durability::Os };
        let broker = Broker::open(dir)?;
        let config = TopicConfig::new(Self::number(plan.logs)?).durability(durability);
        let topic = broker.ensure_topic(TOPIC, config)?;
        Ok(Self { broker, topic, logs: plan.logs })
    }

    fn writer(&self, worker: usize) -> Outcome<Writer> {
        Ok(Writer(self.topic.partition(Self::number(worker % self.logs)?)?))
    }

    fn reader(&self, log: usize, records_max: usize) -> Outcome<Reader> {
        let reader = self
            .broker
            .reader()
            .assign([TopicPartition::from((TOPIC, Self::number(log)?))])
            .start(StartAt::Earliest)
            .max_poll_records(records_max)
            .max_poll_bytes(POLL_BYTES)
            .open()?;
        Ok(Reader(reader))
    }

    fn close(self) -> Outcome<()> {
        drop(self.topic);
        Ok(self.broker.close()?)
    }
}

struct Writer(Partition);

impl Write for Writer {
    #[inline]
    fn append(&mut self, value: &[u8]) -> Outcome<()> {
        self.0.append(&Record::new().value(value))?;
        Ok(())
    }

    fn append_batch(&mut self, values: Values<'_>) -> Outcome<()> {
        let records: Vec<Record<'_>> =
            values.iter().map(|value| Record::new().value(value)).collect();
        self.0.append_batch(&records)?;
        Ok(())
    }
}

struct Reader(Consumer);

impl Read for Reader {
    #[inline]
    fn read(&mut self, see: &mut impl FnMut(&[u8])) -> Outcome<u64> {
        let batch = self.0.poll(Duration::ZERO)?;
        let mut count = 0;
        for message in batch.iter() {
            see(message.value().unwrap_or_default());
            count += 1;
        }
        Ok(count)
    }
}

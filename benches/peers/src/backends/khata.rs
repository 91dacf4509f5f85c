//! `khata-rs`: a queue in one memory map, for one producer and any number of readers.
//!
//! Its best settings: a map that is as long as what will be written (it cannot grow), and no
//! checksums, since its reader never looks at them. A directory per log.
//!
//! The cycle of today is opened at once, by a writer: in a new process a reader finds no file
//! before, because the names of daily files do not parse as a point in time.

use std::path::Path;

use khata_rs::Queue;

use super::{Contender, POWER, PROCESS};
use crate::log::{Log, Outcome, Plan, Read, Values, Write};
use crate::workloads::run;

pub(super) const KHATA: Contender = Contender {
    name: "khata-rs",
    title: "khata-rs",
    package: Some("khata-rs"),
    survives: |work| if work.durable { POWER } else { PROCESS },
    checks: "no",
    // Two writers of one queue overwrite each other.
    takes: |work| work.workers <= work.logs || matches!(work.kind, crate::workloads::Kind::Stream),
    run: run::<Khata>,
};

/// What it writes before each value.
const HEADER_BYTES: usize = 8;

struct Khata {
    queues: Vec<Queue>,
    durable: bool,
}

impl Log for Khata {
    type Writer<'log> = Writer<'log>;
    type Reader<'log> = Reader<'log>;

    fn open(dir: &Path, plan: &Plan) -> Outcome<Self> {
        let bytes = plan.log_bytes(HEADER_BYTES)?;
        let queues = (0..plan.logs).map(|log| {
            let queue = Queue::new(dir.join(format!("log-{log}"))).block_size(bytes).build()?;
            // Without the sync that its drop would be.
            std::mem::forget(queue.writer()?);
            Ok(queue)
        });
        Ok(Self { queues: queues.collect::<Outcome<_>>()?, durable: plan.durable })
    }

    fn writer(&self, worker: usize) -> Outcome<Writer<'_>> {
        let queue = self.queues.get(worker % self.queues.len()).ok_or("no such queue")?;
        Ok(Writer { writer: queue.writer()?, durable: self.durable })
    }

    fn reader(&self, log: usize, records_max: usize) -> Outcome<Reader<'_>> {
        let mut reader = self.queues.get(log).ok_or("no such queue")?.reader()?;
        reader.rewind()?;
        Ok(Reader { reader, records_max })
    }
}

struct Writer<'log> {
    writer: khata_rs::Writer<'log>,
    durable: bool,
}

impl Write for Writer<'_> {
    #[inline]
    fn append(&mut self, value: &[u8]) -> Outcome<()> {
        self.writer.write(value)?;
        if self.durable {
            self.writer.flush()?;
        }
        Ok(())
    }

    /// One by one: its writer has no batches.
    fn append_batch(&mut self, values: Values<'_>) -> Outcome<()> {
        values.iter().try_for_each(|value| self.append(value))
    }
}

struct Reader<'log> {
    reader: khata_rs::Reader<'log>,
    records_max: usize,
}

impl Read for Reader<'_> {
    #[inline]
    fn read(&mut self, see: &mut impl FnMut(&[u8])) -> Outcome<u64> {
        let mut count = 0;
        while count < self.records_max {
            let Some(value) = self.reader.read()? else { break };
            see(value);
            count += 1;
        }
        Ok(u64::try_from(count)?)
    }
}

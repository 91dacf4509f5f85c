//! `commitlog`: segments written by system calls, an index of every record in a memory map.
//!
//! Its index has room from the start: growing it unmaps and maps it again. One read takes so much
//! that the calls do not count, and so little that its buffer is reused by the allocator.

use std::path::Path;

use commitlog::message::{MessageBuf, MessageSet};
use commitlog::{CommitLog, LogOptions, ReadLimit};
use parking_lot::Mutex;

use super::{Contender, PROCESS};
use crate::log::{Hold, Log, Outcome, Plan, Read, Values, Write};
use crate::workloads::run;

pub(super) const COMMITLOG: Contender = Contender {
    name: "commitlog",
    title: "commitlog",
    package: Some("commitlog"),
    survives: |_| PROCESS,
    checks: "each record (CRC-32C)",
    // Its `flush` syncs the index, and never the records.
    takes: |work| !work.durable,
    run: run::<Commitlog>,
};

const READ_BYTES: usize = 64 << 10;

/// What it writes before each value.
const HEADER_BYTES: usize = 20;

struct Commitlog {
    logs: Vec<Mutex<CommitLog>>,
    plan: Plan,
}

impl Log for Commitlog {
    type Writer<'log> = Writer<'log>;
    type Reader<'log> = Reader<'log>;

    fn open(dir: &Path, plan: &Plan) -> Outcome<Self> {
        let logs = (0..plan.logs).map(|log| {
            let mut options = LogOptions::new(dir.join(format!("log-{log}")));
            options.index_max_items(usize::try_from(plan.records)?);
            Ok(Mutex::new(CommitLog::new(options)?))
        });
        Ok(Self { logs: logs.collect::<Outcome<_>>()?, plan: plan.clone() })
    }

    fn writer(&self, worker: usize) -> Outcome<Writer<'_>> {
        let log = self.logs.get(self.plan.log_of(worker)).ok_or("no such log")?;
        Ok(Writer { log: Hold::of(log, &self.plan), buffer: MessageBuf::default() })
    }

    fn reader(&self, log: usize, records_max: usize) -> Outcome<Reader<'_>> {
        let log = self.logs.get(log).ok_or("no such log")?;
        let bytes = if records_max == 1 {
            // Less than two: a limit of just one is an error if it is the last one.
            2 * (HEADER_BYTES + self.plan.value_bytes) - 1
        } else {
            READ_BYTES
        };
        let limit = ReadLimit::max_bytes(bytes);
        Ok(Reader { log, next: 0, limit })
    }
}

struct Writer<'log> {
    log: Hold<'log, CommitLog>,
    buffer: MessageBuf,
}

impl Write for Writer<'_> {
    fn append(&mut self, value: &[u8]) -> Outcome<()> {
        self.append_batch(Values { bytes: value, size: value.len() })
    }

    fn append_batch(&mut self, values: Values<'_>) -> Outcome<()> {
        let buffer = &mut self.buffer;
        buffer.clear();
        for value in values.iter() {
            buffer.push(value).map_err(|error| format!("{error:?}"))?;
        }
        self.log.with(|log| log.append(buffer)).map_err(|error| format!("{error:?}"))?;
        Ok(())
    }
}

struct Reader<'log> {
    log: &'log Mutex<CommitLog>,
    next: u64,
    limit: ReadLimit,
}

impl Read for Reader<'_> {
    fn read(&mut self, see: &mut impl FnMut(&[u8])) -> Outcome<u64> {
        let read = self.log.lock().read(self.next, self.limit)?;
        let mut count = 0;
        for message in read.iter() {
            see(message.payload());
            count += 1;
        }
        self.next += count;
        Ok(count)
    }
}

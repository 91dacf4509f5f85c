//! `raft-engine`: the log store of `TiKV`, whose writers share each write and each sync.
//!
//! Its best settings for this: no compression (the values are noise), and for durable appends files
//! that were filled before. An engine per log. Each worker has a Raft group of its own in it, since
//! the entries of a group are numbered by who appends; so there is no order between workers.

use std::path::Path;

use protobuf::well_known_types::BytesValue;
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};

use super::{Contender, POWER, PROCESS};
use crate::log::{Log, Outcome, Plan, Read, Values, Write};
use crate::workloads::run;

pub(super) const RAFT_ENGINE: Contender = Contender {
    name: "raft-engine",
    title: "raft-engine",
    package: Some("raft-engine"),
    survives: |work| if work.durable { POWER } else { PROCESS },
    checks: "each batch (CRC-32)",
    takes: |_| true,
    run: run::<RaftEngine>,
};

/// How many entries a reader asks for at once.
const READ_RECORDS: u64 = 256;

/// An entry begins with its index; the value follows.
struct Entry;

const INDEX_BYTES: usize = 8;

impl MessageExt for Entry {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        let index = entry.value.first_chunk::<INDEX_BYTES>();
        index.map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }
}

struct RaftEngine {
    engines: Vec<Engine>,
    durable: bool,
}

impl Log for RaftEngine {
    type Writer<'log> = Writer<'log>;
    type Reader<'log> = Reader<'log>;

    fn open(dir: &Path, plan: &Plan) -> Outcome<Self> {
        let engines = (0..plan.logs).map(|log| {
            let dir = dir.join(format!("log-{log}"));
            let config = Config {
                dir: dir.to_str().ok_or("the directory has no plain name")?.into(),
                batch_compression_threshold: ReadableSize(0),
                prefill_for_recycle: plan.durable,
                prefill_limit: plan.durable.then(|| ReadableSize::mb(256)),
                ..Config::default()
            };
            Ok(Engine::open(config)?)
        });
        Ok(Self { engines: engines.collect::<Outcome<_>>()?, durable: plan.durable })
    }

    fn writer(&self, worker: usize) -> Outcome<Writer<'_>> {
        let logs = self.engines.len();
        let engine = self.engines.get(worker % logs).ok_or("no such engine")?;
        let group = u64::try_from(worker / logs)? + 1;
        let next = engine.last_index(group).map_or(1, |last| last + 1);
        Ok(Writer { engine, group, next, durable: self.durable, batch: LogBatch::default() })
    }

    fn reader(&self, log: usize, records_max: usize) -> Outcome<Reader<'_>> {
        let engine = self.engines.get(log).ok_or("no such engine")?;
        let records_max = u64::try_from(records_max)?.min(READ_RECORDS);
        Ok(Reader { engine, next: 1, records_max, entries: Vec::new() })
    }
}

struct Writer<'log> {
    engine: &'log Engine,
    group: u64,
    /// The index of the next entry.
    next: u64,
    durable: bool,
    batch: LogBatch,
}

impl Write for Writer<'_> {
    fn append(&mut self, value: &[u8]) -> Outcome<()> {
        self.append_batch(Values { bytes: value, size: value.len() })
    }

    fn append_batch(&mut self, values: Values<'_>) -> Outcome<()> {
        let entries: Vec<BytesValue> = (self.next..)
            .zip(values.iter())
            .map(|(index, value)| {
                let mut bytes = Vec::with_capacity(INDEX_BYTES + value.len());
                bytes.extend_from_slice(&index.to_le_bytes());
                bytes.extend_from_slice(value);
                let mut entry = BytesValue::new();
                entry.set_value(bytes);
                entry
            })
            .collect();
        self.next += u64::try_from(entries.len())?;
        self.batch.add_entries::<Entry>(self.group, &entries)?;
        self.engine.write(&mut self.batch, self.durable)?;
        Ok(())
    }
}

struct Reader<'log> {
    engine: &'log Engine,
    next: u64,
    records_max: u64,
    entries: Vec<BytesValue>,
}

impl Read for Reader<'_> {
    fn read(&mut self, see: &mut impl FnMut(&[u8])) -> Outcome<u64> {
        let end = self.engine.last_index(1).map_or(0, |last| last + 1);
        let end = end.min(self.next + self.records_max);
        if end <= self.next {
            return Ok(0);
        }
        self.entries.clear();
        self.engine.fetch_entries_to::<Entry>(1, self.next, end, None, &mut self.entries)?;
        for entry in &self.entries {
            see(entry.value.get(INDEX_BYTES..).unwrap_or_default());
        }
        let count = end - self.next;
        self.next = end;
        Ok(count)
    }
}

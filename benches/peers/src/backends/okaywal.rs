//! `okaywal`: a write-ahead log whose commits share each sync. It knows durable appends only, and
//! reads only while it recovers.
//!
//! Its best settings: one file that takes everything, filled with zeros before, so that no
//! checkpoint and no growth comes between.

use std::path::Path;

use okaywal::{Configuration, LogVoid, WriteAheadLog};

use super::{Contender, POWER};
use crate::log::{Log, NoReader, Outcome, Plan, Write};
use crate::workloads::{Kind, run};

pub(super) const OKAYWAL: Contender = Contender {
    name: "okaywal",
    title: "okaywal",
    package: Some("okaywal"),
    survives: |_| POWER,
    checks: "each chunk, if asked (CRC-32C)",
    takes: |work| work.durable && work.kind == Kind::Append,
    run: run::<Okaywal>,
};

/// What it writes beside each value.
const ENTRY_BYTES: usize = 19;

struct Okaywal(WriteAheadLog);

impl Log for Okaywal {
    type Writer<'log> = Writer<'log>;
    type Reader<'log> = NoReader;

    fn open(dir: &Path, plan: &Plan) -> Outcome<Self> {
        let bytes = u32::try_from(plan.log_bytes(ENTRY_BYTES)?)?;
        let wal = Configuration::default_for(dir)
            .preallocate_bytes(bytes)
            .checkpoint_after_bytes(bytes.into())
            .open(LogVoid)?;
        Ok(Self(wal))
    }

    fn writer(&self, _: usize) -> Outcome<Writer<'_>> {
        Ok(Writer(&self.0))
    }

    fn reader(&self, _: usize, _: usize) -> Outcome<NoReader> {
        Err("it reads only while it recovers".into())
    }
}

struct Writer<'log>(&'log WriteAheadLog);

impl Write for Writer<'_> {
    fn append(&mut self, value: &[u8]) -> Outcome<()> {
        let mut entry = self.0.begin_entry()?;
        entry.write_chunk(value)?;
        entry.commit()?;
        Ok(())
    }
}

//! Limit, written by hand: one `pwrite` for each record, and an `fdatasync` that all who wait share.
//!
//! The file was filled with zeros and synced before, 4 KiB at a time: so the syncs write what was
//! appended, and nothing of the file system's.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use parking_lot::{Condvar, Mutex};

use super::{Contender, POWER};
use crate::log::{Log, NoReader, Outcome, Plan, Write};
use crate::workloads::{Kind, run};

pub(super) const SYNC: Contender = Contender {
    name: "limit-sync",
    title: "limit: pwrite, fdatasync",
    package: None,
    survives: |_| POWER,
    checks: "nothing is read",
    takes: |work| work.durable && work.kind == Kind::Append,
    run: run::<Synced>,
};

const HEADER_BYTES: usize = 8;
const PAGE: usize = 4096;

struct Synced {
    file: File,
    state: Mutex<State>,
    /// A sync has ended.
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    written: u64,
    synced: u64,
    syncing: bool,
}

impl Log for Synced {
    type Writer<'log> = Writer<'log>;
    type Reader<'log> = NoReader;

    fn open(dir: &Path, plan: &Plan) -> Outcome<Self> {
        let path = dir.join("log");
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        let zeros = vec![0; PAGE];
        let bytes = u64::try_from(plan.log_bytes(HEADER_BYTES)?)?;
        for at in (0..bytes).step_by(PAGE) {
            file.write_all_at(&zeros, at)?;
        }
        file.sync_all()?;
        File::open(dir)?.sync_all()?;
        Ok(Self { file, state: Mutex::default(), ended: Condvar::new() })
    }

    fn writer(&self, _: usize) -> Outcome<Writer<'_>> {
        Ok(Writer { log: self, record: Vec::new() })
    }

    fn reader(&self, _: usize, _: usize) -> Outcome<NoReader> {
        Err("it only writes".into())
    }
}

struct Writer<'log> {
    log: &'log Synced,
    record: Vec<u8>,
}

impl Write for Writer<'_> {
    fn append(&mut self, value: &[u8]) -> Outcome<()> {
        self.record.clear();
        self.record.extend(u32::try_from(value.len())?.to_le_bytes());
        self.record.extend(crc32fast::hash(value).to_le_bytes());
        self.record.extend_from_slice(value);
        let Synced { file, state, ended } = self.log;
        let mut state = state.lock();
        file.write_all_at(&self.record, state.written)?;
        state.written += u64::try_from(self.record.len())?;
        let wanted = state.written;
        while state.synced < wanted {
            if state.syncing {
                ended.wait(&mut state);
                continue;
            }
            state.syncing = true;
            let covered = state.written;
            let done = parking_lot::MutexGuard::unlocked(&mut state, || file.sync_data());
            state.syncing = false;
            ended.notify_all();
            done?;
            state.synced = covered;
        }
        Ok(())
    }
}

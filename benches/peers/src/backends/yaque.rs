//! `yaque`: a queue of files for one sender and one receiver, written and read by system calls.
//!
//! Each send is one `write`. Its iterator reads what is stored; its receiver follows a sender and
//! deletes what was received. Segments are 64 MiB instead of 4, as those of logpond: fewer files.

use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use yaque::{QueueIter, Receiver, ReceiverBuilder, Sender, SenderBuilder, TryRecvError};

use super::{Contender, PROCESS};
use crate::log::{Hold, Log, Outcome, Plan, Read, Values, Write};
use crate::workloads::run;

pub(super) const YAQUE: Contender = Contender {
    name: "yaque",
    title: "yaque",
    package: Some("yaque"),
    survives: |_| PROCESS,
    checks: "lengths only (parity)",
    // It never syncs.
    takes: |work| !work.durable,
    run: run::<Yaque>,
};

const SEGMENT_BYTES: u64 = 64 << 20;

struct Yaque {
    dirs: Vec<PathBuf>,
    senders: Vec<Mutex<Sender>>,
    plan: Plan,
}

impl Log for Yaque {
    type Writer<'log> = Writer<'log>;
    type Reader<'log> = Reader;

    fn open(dir: &Path, plan: &Plan) -> Outcome<Self> {
        let dirs: Vec<_> = (0..plan.logs).map(|log| dir.join(format!("log-{log}"))).collect();
        let mut senders = Vec::new();
        for dir in &dirs {
            // What a killed process leaves: as its documentation says.
            if dir.join("send.lock").exists() {
                yaque::recovery::recover(dir)?;
            }
            senders.push(Mutex::new(SenderBuilder::new().segment_size(SEGMENT_BYTES).open(dir)?));
        }
        Ok(Self { dirs, senders, plan: plan.clone() })
    }

    fn writer(&self, worker: usize) -> Outcome<Writer<'_>> {
        let sender = self.senders.get(self.plan.log_of(worker)).ok_or("no such queue")?;
        // The receiver needs no lock of the sender.
        let plan = Plan { followed: false, ..self.plan.clone() };
        Ok(Writer(Hold::of(sender, &plan)))
    }

    fn reader(&self, log: usize, records_max: usize) -> Outcome<Reader> {
        let dir = self.dirs.get(log).ok_or("no such queue")?;
        if self.plan.followed {
            let receiver = ReceiverBuilder::new().save_every_nth(Some(100_000)).open(dir)?;
            // It returns a batch when it is full or the queue empty.
            return Ok(Reader::Following(Box::new(receiver), records_max.min(256)));
        }
        Ok(Reader::Iterating(QueueIter::open(dir)?, records_max.min(4096)))
    }
}

struct Writer<'log>(Hold<'log, Sender>);

impl Write for Writer<'_> {
    #[inline]
    fn append(&mut self, value: &[u8]) -> Outcome<()> {
        self.0.with(|sender| sender.try_send(value)).map_err(|error| format!("{error}").into())
    }

    fn append_batch(&mut self, values: Values<'_>) -> Outcome<()> {
        let sent = self.0.with(|sender| sender.try_send_batch(values.iter()));
        sent.map_err(|_| "the batch was not sent".into())
    }
}

enum Reader {
    Following(Box<Receiver>, usize),
    Iterating(QueueIter, usize),
}

impl Read for Reader {
    fn read(&mut self, see: &mut impl FnMut(&[u8])) -> Outcome<u64> {
        let mut count = 0;
        match self {
            Self::Following(receiver, records_max) => {
                let batch = match receiver.try_recv_batch_up_to(*records_max) {
                    Ok(batch) => batch,
                    Err(TryRecvError::QueueEmpty) => return Ok(0),
                    Err(TryRecvError::Io(error)) => return Err(error.into()),
                };
                for value in batch.iter() {
                    see(value);
                    count += 1;
                }
                batch.commit()?;
            }
            Self::Iterating(iter, records_max) => {
                for value in iter.take(*records_max) {
                    see(&value?);
                    count += 1;
                }
            }
        }
        Ok(count)
    }
}

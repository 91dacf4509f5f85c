//! What a contender offers: a log that workers append to and read from.
//!
//! Everything is generic, so that a call of a contender costs what it costs its users: no virtual
//! call comes between.

use std::error::Error;
use std::path::Path;

use parking_lot::{Mutex, MutexGuard};

pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// What a contender knows before it opens, so that it can choose its best settings.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Independent logs. Worker `w` appends to log `w % logs`.
    pub(crate) logs: usize,
    pub(crate) workers: usize,
    /// Somebody reads while others append.
    pub(crate) followed: bool,
    /// Each append returns only when it survives a power cut.
    pub(crate) durable: bool,
    pub(crate) value_bytes: usize,
    /// The most records that will be appended, to all logs together.
    pub(crate) records: u64,
}

impl Plan {
    pub(crate) fn log_of(&self, worker: usize) -> usize {
        worker % self.logs
    }

    /// A log is used by more than one thread.
    pub(crate) fn is_shared(&self) -> bool {
        self.followed || self.workers > self.logs
    }

    /// Room in one log for its records, if each needs `overhead` bytes beside its value.
    pub(crate) fn log_bytes(&self, overhead: usize) -> Outcome<usize> {
        let records = usize::try_from(self.records)?.div_ceil(self.logs);
        // A log that starts with a header, and grows by whole pages, has room for these, too.
        Ok(records * (self.value_bytes + overhead) + (4 << 20))
    }
}

pub(crate) trait Log: Sync + Sized {
    type Writer<'log>: Write
    where
        Self: 'log;
    type Reader<'log>: Read
    where
        Self: 'log;

    /// Opens the logs in this directory, which exists, and creates those that do not.
    fn open(dir: &Path, plan: &Plan) -> Outcome<Self>;

    /// What this worker appends with.
    fn writer(&self, worker: usize) -> Outcome<Self::Writer<'_>>;

    /// Reads a log from its first record, at most so many records in one call.
    fn reader(&self, log: usize, records_max: usize) -> Outcome<Self::Reader<'_>>;

    /// An orderly shutdown.
    fn close(self) -> Outcome<()> {
        Ok(())
    }
}

pub(crate) trait Write {
    fn append(&mut self, value: &[u8]) -> Outcome<()>;

    fn append_batch(&mut self, values: Values<'_>) -> Outcome<()> {
        values.iter().try_for_each(|value| self.append(value))
    }
}

pub(crate) trait Read {
    /// Shows the next records, and returns how many these were: none if there are no more now.
    fn read(&mut self, see: &mut impl FnMut(&[u8])) -> Outcome<u64>;
}

/// The values of a batch, all of one size, one after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Values<'batch> {
    pub(crate) bytes: &'batch [u8],
    pub(crate) size: usize,
}

impl<'batch> Values<'batch> {
    pub(crate) fn iter(self) -> impl ExactSizeIterator<Item = &'batch [u8]> {
        self.bytes.chunks_exact(self.size)
    }
}

/// What a contender wants exclusive access to: held for good if one thread uses it, and otherwise
/// locked for each call.
pub(crate) enum Hold<'log, T> {
    Sole(MutexGuard<'log, T>),
    Shared(&'log Mutex<T>),
}

impl<'log, T> Hold<'log, T> {
    pub(crate) fn of(mutex: &'log Mutex<T>, plan: &Plan) -> Self {
        if plan.is_shared() { Self::Shared(mutex) } else { Self::Sole(mutex.lock()) }
    }

    #[inline]
    pub(crate) fn with<R>(&mut self, act: impl FnOnce(&mut T) -> R) -> R {
        match self {
            Self::Sole(guard) => act(guard),
            Self::Shared(mutex) => act(&mut mutex.lock()),
        }
    }
}

/// The reader of a contender that takes part in no workload that reads.
pub(crate) enum NoReader {}

impl Read for NoReader {
    fn read(&mut self, _: &mut impl FnMut(&[u8])) -> Outcome<u64> {
        match *self {}
    }
}

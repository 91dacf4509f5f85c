//! The queues of the workers, and the state that both sides share.
//!
//! Owns: the job, the receiving ends of both queues, and the shared state. Must not know: how a job
//! is done.

use std::sync::Arc;

use crossbeam::channel::Receiver;
use crossbeam::utils::CachePadded;

use super::syncs::Syncs;
use crate::partition::{PartitionCore, Work};
use crate::sync::{AtomicBool, AtomicU64, Ordering};
use crate::trace::{Outbox, note};

pub(super) enum Job {
    Do(Arc<PartitionCore>, Work),
    /// There is a new deadline in a group, which may come before all others, or the clock was
    /// moved.
    Watch,
    /// An append was refused for want of space.
    Relieve,
    Stop,
}

/// What both sides of the queues see.
#[derive(Debug)]
pub(super) struct Shared {
    /// ORDERING: cleared with Release when the workers are stopped; read with Acquire by all.
    ///
    /// On a cache line of its own: waits for durability read it beside the locking of `syncs`.
    is_running: CachePadded<AtomicBool>,
    /// How many rounds have ended in a panic.
    ///
    /// ORDERING: Relaxed: added by the worker, loaded for the metrics; a count that guards no
    /// memory.
    panics: AtomicU64,
    pub(super) syncs: Syncs,
    pub(super) moves: Moves,
}

/// Whether a worker has yet to look at a clock that was moved. One note is enough for any number of
/// moves, which may come faster than a worker has rounds.
#[derive(Debug, Default)]
pub(super) struct Moves {
    /// ORDERING: `AcqRel` at both ends: a worker that takes the note back sees the time of the move
    /// that left it, and a move that finds it there is seen by the worker that takes it.
    pub(super) space: AtomicBool,
    pub(super) bulk: AtomicBool,
}

impl Shared {
    pub(super) fn new(is_running: bool) -> Self {
        Self {
            is_running: CachePadded::new(AtomicBool::new(is_running)),
            panics: AtomicU64::new(0),
            syncs: Syncs::new(),
            moves: Moves::default(),
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.is_running.load(Ordering::Acquire)
    }

    /// What is queued when the workers are stopped is not begun any more.
    pub(super) fn stop(&self) {
        self.is_running.store(false, Ordering::Release);
        self.syncs.stop();
    }

    pub(super) fn note_panic(&self, thread: &'static str, trace: &Outbox) {
        self.panics.fetch_add(1, Ordering::Relaxed);
        note!(trace, Panicked { thread });
        trace.deliver();
    }

    pub(super) fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }
}

/// The receiving ends, for the threads.
pub(crate) struct WorkerQueues {
    pub(super) space: Receiver<Job>,
    pub(super) bulk: Receiver<Job>,
    pub(super) shared: Arc<Shared>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Do(partition, work) => write!(f, "{work:?} for {}", partition.origin),
            Self::Watch => f.write_str("Watch"),
            Self::Relieve => f.write_str("Relieve"),
            Self::Stop => f.write_str("Stop"),
        }
    }
}

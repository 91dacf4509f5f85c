//! Requests to the background threads that these have not begun.
//!
//! Owns: one bit for each kind of work, so that each kind is requested once until it is begun. Must
//! not know: how work is done, and which thread does it.

use std::sync::{Arc, Weak};

use super::PartitionCore;
use super::background::{Background, Want, Work, WorkSet};
use crate::error::{Error, Result};
use crate::log::read_ahead::Ahead;
use crate::sync::{AtomicU32, Ordering};

#[derive(Debug)]
pub(crate) struct Requests {
    /// ORDERING: `AcqRel` on both sides: the thread that finds a bit set relies on the other one to
    /// clear it later, and then to see what was published before.
    pending: AtomicU32,
    background: Arc<dyn Background>,
    /// The partition that the work is for, of which this is a part.
    partition: Weak<PartitionCore>,
}

impl Requests {
    pub(super) fn new(background: Arc<dyn Background>, partition: Weak<PartitionCore>) -> Self {
        Self { pending: AtomicU32::new(0), background, partition }
    }

    /// Requests background work, once until it is begun.
    #[inline]
    pub(crate) fn request(&self, work: Work) {
        let bit = work.bit();
        // Space and segments are requested again by the next append, so a stale look costs nothing,
        // and the append path gets a load instead of a locked operation.
        let recurs = matches!(work, Work::Space | Work::Next);
        if recurs && self.pending.load(Ordering::Relaxed) & bit != 0 {
            return;
        }
        if self.pending.fetch_or(bit, Ordering::AcqRel) & bit == 0 {
            self.pass_on(work);
        }
    }

    #[inline]
    pub(super) fn request_all(&self, wanted: WorkSet) {
        if !wanted.is_empty() {
            wanted.iter().for_each(|work| self.request(work));
        }
    }

    #[cold]
    fn pass_on(&self, work: Work) {
        if let Some(partition) = self.partition.upgrade() {
            self.background.request(&partition, work);
        }
    }

    /// The thread that begins requested work says so first, so that it can be requested again.
    pub(crate) fn begin(&self, work: Work) {
        self.pending.fetch_and(!work.bit(), Ordering::AcqRel);
    }

    pub(super) fn is_pending(&self, work: Work) -> bool {
        self.pending.load(Ordering::Relaxed) & work.bit() != 0
    }

    /// Whether background threads serve requests; without them the next `tick` does.
    pub(crate) fn are_served(&self) -> bool {
        self.background.is_running()
    }

    /// See [`Background::make_room`].
    pub(super) fn make_room(&self, want: &mut Want) -> Result<bool> {
        let partition = self.partition.upgrade().ok_or(Error::Closed)?;
        self.background.make_room(&partition, want)
    }

    /// See [`Background::read_ahead`].
    #[cold]
    pub(super) fn read_ahead(&self, ahead: Vec<Ahead>) {
        for ahead in ahead {
            self.background.read_ahead(ahead);
        }
    }

    /// See [`Background::read_again`].
    pub(super) fn read_again(&self) -> bool {
        self.partition.upgrade().is_some_and(|partition| self.background.read_again(&partition))
    }
}

//! A task's wait until a partition is durable up to an offset, and a majority of the members of a
//! replicated group has it.
//!
//! Owns: the entries of the task at the gates, which are removed when it is dropped. Must not
//! know: what was appended, and who waits for it.

use std::fmt;
use std::sync::Arc;
use std::task::Waker;

use super::PartitionCore;
use super::copies::Copies;
use super::group_commit::Ticket;
use crate::error::Result;

pub(crate) struct DurableWait {
    core: Arc<PartitionCore>,
    end: u64,
    /// Whether it waits for the disk.
    is_synced: bool,
    /// What it waits for of other members.
    copies: Copies,
    /// What the task waits for the disk with, once it was polled.
    ticket: Option<Ticket>,
}

impl DurableWait {
    /// For everything below `end`. Nothing is requested before the first poll.
    pub(crate) fn new(core: Arc<PartitionCore>, end: u64) -> Self {
        Self { core, end, is_synced: true, copies: Copies::default(), ticket: None }
    }

    /// For a majority alone, which has everything below `end`.
    pub(crate) fn of_copies(core: Arc<PartitionCore>, end: u64, copies: Copies) -> Self {
        Self { core, end, is_synced: false, copies, ticket: None }
    }

    /// For a majority too, once the log is durable.
    pub(crate) fn and(mut self, copies: Copies) -> Self {
        self.copies = copies;
        self
    }

    /// Whether it waits for the disk.
    pub(crate) fn is_synced(&self) -> bool {
        self.is_synced
    }

    /// What it waits for of other members.
    pub(crate) fn copies(&self) -> &Copies {
        &self.copies
    }

    pub(crate) fn core(&self) -> &Arc<PartitionCore> {
        &self.core
    }

    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// The result if it is known; otherwise `waker` is woken when it is, and a sync is requested of
    /// the background. Never waits.
    pub(crate) fn poll(&mut self, waker: &Waker) -> Option<Result<()>> {
        self.copies.begin(&self.core, false);
        if self.is_synced
            && let Err(error) = self.core.flusher().poll(self.end, waker, &mut self.ticket)?
        {
            return Some(Err(error));
        }
        self.copies.poll(&self.core, waker)
    }
}

impl Drop for DurableWait {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.core.flusher().forget(self.end, ticket);
        }
        self.copies.forget(&self.core);
    }
}

impl fmt::Debug for DurableWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wait = (&self.core.origin, self.end);
        f.debug_tuple("DurableWait").field(&wait).finish()
    }
}

//! A task's wait until a partition is durable up to an offset.
//!
//! Owns: the entry of the task at the gate, which is removed when it is dropped. Must not
//! know: what was appended, and who waits for it.

use std::fmt;
use std::sync::Arc;
use std::task::Waker;

use super::PartitionCore;
use super::group_commit::Ticket;
use crate::error::Result;

pub(crate) struct DurableWait {
    core: Arc<PartitionCore>,
    end: u64,
    /// What the task waits with, once it was polled.
    ticket: Option<Ticket>,
}

impl DurableWait {
    /// For everything below `end`. Nothing is requested before the first poll.
    pub(crate) fn new(core: Arc<PartitionCore>, end: u64) -> Self {
        Self { core, end, ticket: None }
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
        self.core.flusher().poll(self.end, waker, &mut self.ticket)
    }
}

impl Drop for DurableWait {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.core.flusher().forget(self.end, ticket);
        }
    }
}

impl fmt::Debug for DurableWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wait = (&self.core.origin, self.end);
        f.debug_tuple("DurableWait").field(&wait).finish()
    }
}

//! A consumer that waits at one partition.
//!
//! Owns: the consumer's registration with the partition, which is dropped with it, and whether it
//! is armed. Must not know: what is read there.

use std::sync::Arc;

use crate::config::Visibility;
use crate::partition::PartitionCore;
use crate::partition::waiters::Notifier;

pub(super) struct Arming {
    core: Arc<PartitionCore>,
    waiter: u64,
    /// What the notifier calls this partition.
    token: usize,
    /// Armed: nothing can be read until the partition fires.
    is_armed: bool,
}

impl Arming {
    pub(super) fn new(core: &Arc<PartitionCore>, notifier: &Arc<Notifier>, token: usize) -> Self {
        let waiter = core.log().register(notifier, token);
        Self { core: Arc::clone(core), waiter, token, is_armed: false }
    }

    #[inline]
    pub(super) fn is_armed(&self) -> bool {
        self.is_armed
    }

    /// Arms, unless there is something to read from `next` on already; false then.
    pub(super) fn arm(&mut self, next: u64, visibility: Visibility) -> bool {
        self.is_armed = self.core.reader().arm(self.waiter, next, visibility);
        self.is_armed
    }

    /// The consumer is to look here again.
    pub(super) fn disarm(&mut self) {
        self.is_armed = false;
    }

    /// These have fired. `tokens` are sorted.
    pub(super) fn disarm_if_among(&mut self, tokens: &[usize]) {
        self.is_armed &= tokens.binary_search(&self.token).is_err();
    }
}

impl Drop for Arming {
    fn drop(&mut self) {
        self.core.log().deregister(self.waiter);
    }
}

//! The partitions that a producer has appended to without waiting, which its `flush` must sync.
//!
//! A partition is remembered once, and for as long as it is open. A small table of hints answers
//! for partitions that were met before, so that an append costs a load and not a lock.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::Result;
use crate::partition::copies::Copies;
use crate::partition::lead::LedEpoch;
use crate::partition::{PartitionCore, together};
use crate::sync::{AtomicUsize, LockLevel, Mutex, Ordering};

/// LIMIT: as many partitions as one producer often has; more of them share slots, and pay for the
/// lock when they take turns.
const HINTS: usize = 64;

/// LIMIT: two partitions are at least 256 bytes apart in memory, so these bits of an address say
/// nothing about which one it is.
const SPACING_BITS: u32 = 8;

pub(super) struct Unflushed {
    /// Addresses of remembered partitions; 0 for none.
    ///
    /// ORDERING: written under the lock of `partitions` and only for what is in there, so a thread
    /// that sees an address finds the partition when it takes the lock. What is in there is alive,
    /// so no other partition can have its address.
    hints: [AtomicUsize; HINTS],
    partitions: Mutex<HashMap<usize, Noted>>,
}

/// A partition, and the leadership of the first append to it since the last flush.
type Noted = (Arc<PartitionCore>, LedEpoch);

impl Unflushed {
    pub(super) fn new() -> Self {
        let hints = std::array::from_fn(|_| AtomicUsize::new(0));
        Self { hints, partitions: Mutex::at_level(LockLevel::Unflushed, HashMap::new()) }
    }

    /// Remembers a partition that was appended to.
    #[inline]
    pub(super) fn note(&self, core: &Arc<PartitionCore>, led: LedEpoch) {
        let address = Arc::as_ptr(core).addr();
        let is_known = self.hint(address).is_some_and(|it| it.load(Ordering::Acquire) == address);
        if !is_known {
            self.remember(address, core, led);
        }
    }

    #[cold]
    fn remember(&self, address: usize, core: &Arc<PartitionCore>, led: LedEpoch) {
        let mut partitions = self.partitions.lock();
        // A producer that never flushes must not keep deleted partitions: unlinked files take space
        // as long as they are open.
        let deleted = partitions.extract_if(|_, (known, _)| known.is_closed());
        let deleted: Vec<_> = deleted.collect();
        for (address, _) in &deleted {
            self.forget_hint(*address);
        }
        partitions.entry(address).or_insert_with(|| (Arc::clone(core), led));
        if let Some(hint) = self.hint(address) {
            hint.store(address, Ordering::Release);
        }
    }

    fn hint(&self, address: usize) -> Option<&AtomicUsize> {
        self.hints.get((address >> SPACING_BITS) % HINTS)
    }

    /// Makes everything durable that is published in the partitions, and waits until a majority has
    /// it. Tries all of them, and returns the first failure. What was deleted needs no sync, and is
    /// forgotten. `is_strict`: the majority must have synced it.
    pub(super) fn flush(&self, is_strict: bool) -> Result<()> {
        let partitions: Vec<_> = self.partitions.lock().values().cloned().collect();
        let waits: Vec<_> = partitions.iter().map(|(core, _)| (&**core, core.log_end())).collect();
        let copies: Vec<_> =
            partitions.iter().map(|(core, led)| self.copies(core, *led, is_strict)).collect();
        let mut result = Ok(());
        for (((core, _), flushed), copies) in
            partitions.iter().zip(together::wait_durable(&waits)).zip(copies)
        {
            if core.is_closed() {
                self.forget(core);
            } else {
                result = result.and(flushed).and(copies.and_then(|copies| copies.wait(core)));
            }
        }
        result
    }

    /// The wait for other members in one partition. The next flush waits for what is appended from now
    /// on.
    fn copies(
        &self,
        core: &Arc<PartitionCore>,
        since: LedEpoch,
        is_strict: bool,
    ) -> Result<Copies> {
        let (copies, led) = Copies::since(core, since, is_strict);
        if let Ok(copies) = &copies {
            copies.begin(core, false);
        }
        if led != since
            && let Some((_, noted)) = self.partitions.lock().get_mut(&Arc::as_ptr(core).addr())
        {
            *noted = led;
        }
        copies
    }

    fn forget(&self, core: &Arc<PartitionCore>) {
        let address = Arc::as_ptr(core).addr();
        let mut partitions = self.partitions.lock();
        self.forget_hint(address);
        partitions.remove(&address);
    }

    /// The lock of `partitions` is held, and the partition still in there.
    fn forget_hint(&self, address: usize) {
        if let Some(hint) = self.hint(address)
            && hint.load(Ordering::Acquire) == address
        {
            hint.store(0, Ordering::Release);
        }
    }
}

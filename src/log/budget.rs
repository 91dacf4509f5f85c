//! The byte budget of a broker: how much space the files of its topics may take together.
//!
//! Every segment file has a [`Claim`] on the one [`SpaceBudget`]. The claim grows before the file
//! does, and is released when the file is unlinked; memory that a message still maps then is not
//! counted. The internal logs have no budget, because commits and deletions must work when it is
//! used up.
//!
//! Invariant: `used` is the sum of all claims.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Instant;

use crate::sync::{AtomicU64, Condvar, LockLevel, Mutex, Ordering};

/// The budget of a broker is used up: unlike a full disk, it helps to remove old records.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the broker's byte budget of {limit} is used up")]
struct BudgetIsSpent {
    limit: u64,
}

/// Whether an error says that it was the budget, and not the disk, that had no room.
pub(crate) fn is_budget(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<BudgetIsSpent>());
    inner.is_some()
}

#[derive(Debug)]
pub(crate) struct SpaceBudget {
    limit: u64,
    /// ORDERING: Relaxed; a count that guards no memory. May exceed the limit by what must
    /// continue: files that were found, and the segment that housekeeping rolls to.
    used: AtomicU64,
    /// How often something was given back.
    returns: Mutex<u64>,
    returned: Condvar,
}

impl SpaceBudget {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        let (used, returns) = (AtomicU64::new(0), Mutex::at_level(LockLevel::ByteBudget, 0));
        Arc::new(Self { limit, used, returns, returned: Condvar::new() })
    }

    pub(crate) fn unlimited() -> Arc<Self> {
        Self::new(u64::MAX)
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// What may still be taken.
    pub(crate) fn free(&self) -> u64 {
        self.limit.saturating_sub(self.used.load(Ordering::Relaxed))
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: u64) -> io::Result<()> {
        let fits = |used: u64| used.checked_add(bytes).filter(|used| *used <= self.limit);
        let limit = self.limit;
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        let spent = |_| io::Error::new(ErrorKind::StorageFull, BudgetIsSpent { limit });
        taken.map(drop).map_err(spent)
    }

    fn take_anyway(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A number that changes whenever something is given back.
    pub(crate) fn returns(&self) -> u64 {
        *self.returns.lock()
    }

    /// Waits until something is given back after `seen` was read, also what the budget never
    /// lacked: a file that is removed is space on the disk too; at most until `until`.
    pub(crate) fn wait_for_return(&self, seen: u64, until: Option<Instant>) {
        let mut returns = self.returns.lock();
        let mut is_over = false;
        while *returns == seen && !is_over {
            (returns, is_over) = match until {
                Some(until) => self.returned.wait_until(returns, until),
                None => (self.returned.wait(returns), false),
            };
        }
    }

    /// Has all who wait look again, as if something had been given back.
    pub(crate) fn wake(&self) {
        let mut returns = self.returns.lock();
        *returns = returns.wrapping_add(1);
        drop(returns);
        self.returned.notify_all();
    }

    fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        if bytes > 0 {
            self.wake();
        }
    }
}

/// What one file has taken. Given back with the file, or with the last that knows of it.
#[derive(Debug)]
pub(crate) struct Claim {
    budget: Arc<SpaceBudget>,
    /// Raised by one thread at a time (under the lock of the segment's `Space`), lowered by any.
    ///
    /// ORDERING: Relaxed; a count that guards no memory. Each change takes what it lowers by one
    /// operation, so no byte is given back twice.
    bytes: AtomicU64,
}

impl Claim {
    /// The claim of a file that is there, whether it fits or not; of one to be made, with 0.
    pub(crate) fn of_file(budget: &Arc<SpaceBudget>, bytes: u64) -> Arc<Self> {
        budget.take_anyway(bytes);
        Arc::new(Self { budget: Arc::clone(budget), bytes: AtomicU64::new(bytes) })
    }

    /// The claim of a file that replaces others, which are removed a moment later: their claims
    /// become its own. With both counted until then, an append in between would find the budget
    /// used up and, where the oldest make room, drop live records for nothing.
    pub(crate) fn of_successor<'a>(
        budget: &Arc<SpaceBudget>,
        bytes: u64,
        predecessors: impl IntoIterator<Item = &'a Self>,
    ) -> Arc<Self> {
        let mut missing = bytes;
        for predecessor in predecessors {
            missing = missing.saturating_sub(predecessor.hand_over(missing));
        }
        budget.take_anyway(missing);
        Arc::new(Self { budget: Arc::clone(budget), bytes: AtomicU64::new(bytes) })
    }

    /// Stops counting at most `bytes` without giving them back; returns how many.
    fn hand_over(&self, bytes: u64) -> u64 {
        let rest = |has: u64| Some(has.saturating_sub(bytes));
        let before = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest);
        before.unwrap_or_default().min(bytes)
    }

    /// Before the file grows to `end` bytes.
    ///
    /// # Errors
    ///
    /// `StorageFull`, of which [`is_budget`] is true; nothing is taken.
    pub(crate) fn grow_to(&self, end: u64) -> io::Result<()> {
        let more = end.saturating_sub(self.bytes.load(Ordering::Relaxed));
        self.budget.take(more)?;
        self.bytes.fetch_add(more, Ordering::Relaxed);
        Ok(())
    }

    /// Before the file grows to `end` bytes, whatever the budget: for work that frees more than it
    /// takes.
    pub(crate) fn grow_anyway(&self, end: u64) {
        let more = end.saturating_sub(self.bytes.load(Ordering::Relaxed));
        self.budget.take_anyway(more);
        self.bytes.fetch_add(more, Ordering::Relaxed);
    }

    /// The file was not made for want of space on the disk. No waiting append is woken: there is no
    /// more space than before, and the append would wake itself for ever.
    pub(crate) fn withdraw(&self) {
        let bytes = self.bytes.swap(0, Ordering::Relaxed);
        self.budget.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Notes that the file was shortened to `bytes`.
    pub(crate) fn shrink_to(&self, bytes: u64) {
        let before = self.bytes.fetch_min(bytes, Ordering::Relaxed);
        self.budget.give_back(before.saturating_sub(bytes));
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let budget = SpaceBudget::new(100);
        let (one, two) = (Claim::of_file(&budget, 0), Claim::of_file(&budget, 0));
        one.grow_to(60).unwrap();
        one.grow_to(50).unwrap();
        two.grow_to(40).unwrap();
        let refused = two.grow_to(41).unwrap_err();
        assert!(is_budget(&refused) && refused.kind() == ErrorKind::StorageFull, "{refused:?}");
        assert!(!is_budget(&ErrorKind::StorageFull.into()));
        one.shrink_to(59);
        two.grow_to(41).unwrap();
        assert_eq!(budget.free(), 0);
        one.shrink_to(0);
        one.shrink_to(7);
        assert_eq!(budget.free(), 59);
        drop((one, two));
        assert_eq!(budget.free(), 100);
    }

    #[test]
    fn a_successor_takes_over_what_its_predecessors_have() {
        let budget = SpaceBudget::new(100);
        let (one, two) = (Claim::of_file(&budget, 30), Claim::of_file(&budget, 60));
        let successor = Claim::of_successor(&budget, 50, [&*one, &*two]);
        assert_eq!(budget.free(), 10, "nothing is counted twice");
        one.shrink_to(0);
        two.shrink_to(0);
        assert_eq!(budget.free(), 50);
        // Where they have less than it needs, the rest is its own.
        let larger = Claim::of_successor(&budget, 70, [&*successor]);
        assert_eq!(budget.free(), 30);
        drop((one, two, successor));
        assert_eq!(budget.free(), 30);
        drop(larger);
        assert_eq!(budget.free(), 100);
    }

    #[test]
    fn what_is_there_counts_also_beyond_the_limit() {
        let budget = SpaceBudget::new(100);
        let found = Claim::of_file(&budget, 150);
        assert!(Claim::of_file(&budget, 0).grow_to(1).is_err());
        found.grow_anyway(160);
        found.shrink_to(20);
        assert_eq!(budget.free(), 80);
    }
}

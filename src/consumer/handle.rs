//! A handle for other threads: wakes a consumer, or shuts it down.
//!
//! Owns: the two requests, and the notifier that ends a wait. Must not know: what is read.

use std::sync::Arc;

use crate::partition::waiters::Notifier;
use crate::sync::{AtomicBool, Ordering};

/// What other threads ask of the consumer.
#[derive(Debug, Default)]
struct Requests {
    /// Whether `ConsumerHandle::wake` was called since the last poll that ended by it.
    ///
    /// ORDERING: stored with Release by any thread that has a handle; taken with `AcqRel` by the
    /// consumer's own, which then sees what was done before the call. With Relaxed it could return
    /// from a poll and miss that. The call of the notifier that follows the store ends a wait that
    /// began before it.
    is_woken: AtomicBool,
    /// Whether `ConsumerHandle::shutdown` was called.
    ///
    /// ORDERING: as `is_woken`; stored once, and loaded with Acquire by each pass.
    is_shut_down: AtomicBool,
}

/// Wakes or stops a [`Consumer`](super::Consumer) from another thread; returned by
/// [`Consumer::handle`](super::Consumer::handle). Cheap to clone; does not keep the broker open.
///
/// ```
/// # use logpond::{Broker, Error, TopicConfig};
/// # let broker = Broker::in_memory()?;
/// # broker.ensure_topic("jobs", TopicConfig::new(1))?;
/// let mut worker = broker.consumer("workers").subscribe(["jobs"]).open()?;
/// let handle = worker.handle();
/// let parked = std::thread::spawn(move || worker.recv().map(drop));
/// handle.shutdown();
/// assert!(matches!(parked.join().unwrap(), Err(Error::Closed)));
/// # Ok::<(), logpond::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ConsumerHandle {
    notifier: Arc<Notifier>,
    requests: Arc<Requests>,
}

impl ConsumerHandle {
    pub(super) fn new(notifier: Arc<Notifier>) -> Self {
        Self { notifier, requests: Arc::default() }
    }

    /// Ends the wait of a `poll` or `recv` that is waiting now, or else of the next one: `poll`
    /// returns an empty batch, and `recv` returns [`Error::Timeout`](crate::Error::Timeout);
    /// [`was_woken`](super::Consumer::was_woken) then says that it was this. Never blocks.
    #[doc(alias = "wakeup")]
    pub fn wake(&self) {
        self.requests.is_woken.store(true, Ordering::Release);
        self.notifier.call();
    }

    /// Makes every later `poll` and `recv` return [`Error::Closed`](crate::Error::Closed), and ends
    /// iterations. The consumer stays in its group until it is dropped or closed. Never blocks.
    pub fn shutdown(&self) {
        self.requests.is_shut_down.store(true, Ordering::Release);
        self.notifier.call();
    }

    pub(super) fn notifier(&self) -> &Arc<Notifier> {
        &self.notifier
    }

    #[inline]
    pub(super) fn is_shut_down(&self) -> bool {
        self.requests.is_shut_down.load(Ordering::Acquire)
    }

    /// Whether [`wake`](Self::wake) was called since this was asked last.
    #[inline]
    pub(super) fn take_woken(&self) -> bool {
        // Read first: it is nearly always false, and a load costs a twentieth of a swap.
        let is_woken = &self.requests.is_woken;
        is_woken.load(Ordering::Relaxed) && is_woken.swap(false, Ordering::AcqRel)
    }
}

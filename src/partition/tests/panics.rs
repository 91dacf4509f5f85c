//! Code of the application that panics where the engine calls it on somebody else's behalf.

use super::*;
use crate::clock::{Clock, RunClock};
use crate::partition::waiters::Notifier;

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("in a waker");
    }
}

fn panicking_waker() -> Waker {
    Waker::from(Arc::new(Panics))
}

/// Two tasks waited for one sync, and the waker of the first panicked: the second was never woken,
/// and the thread that had synced, perhaps of a third producer, unwound. The rule: a panic ends
/// with the call that caused it.
// RED: src/partition/group_commit.rs
//   - foreign::wake(waker);
//   + waker.wake();
#[test]
fn row_j14_a_waker_that_panics_keeps_no_other_from_waking_after_a_sync() {
    let setup = Setup::new(Durability::Sync);
    let (first, second) = (setup.append("1").unwrap(), setup.append("2").unwrap());
    let (woken, waker) = waker();
    assert!(setup.core.flusher().poll(first, &panicking_waker(), &mut None).is_none());
    assert!(setup.core.flusher().poll(second, &waker, &mut None).is_none());
    setup.core.flush().unwrap();
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
}

/// As above for readers that wait for records: the append that ended their wait had been published,
/// and its producer unwound without an answer.
// RED: src/partition/waiters.rs
//   - foreign::wake(waker);
//   + waker.wake();
#[test]
fn row_j14_a_waker_that_panics_keeps_no_other_from_waking_after_an_append() {
    let setup = Setup::new(Durability::Sync);
    let (woken, waker) = waker();
    for (token, waker) in [(1, panicking_waker()), (2, waker)] {
        let notifier = Notifier::new();
        assert!(notifier.poll(&waker).is_none());
        let id = setup.core.log().register(&notifier, token);
        assert!(setup.core.reader().arm(id, 0, Visibility::Published));
    }
    assert_eq!(setup.append("1").unwrap(), 1);
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
}

/// A clock that panics while `panics` is set.
struct Clockwork {
    clock: ManualClock,
    panics: AtomicBool,
}

impl Clock for Clockwork {
    fn now(&self) -> SystemTime {
        self.clock.now()
    }

    fn monotonic(&self) -> Duration {
        assert!(!self.panics.load(Ordering::Relaxed), "in a clock");
        self.clock.monotonic()
    }
}

/// The clock is asked how long a sync took. When it panicked there, every later append and wait of
/// the partition got `Closed`, with the broker open. The rule: what is for a figure only costs that
/// figure.
// RED: src/partition/flusher.rs
//   - let begun = foreign::call(|| clock.monotonic());
//   + let begun = Some(clock.monotonic());
#[test]
fn row_j14_a_clock_that_panics_in_a_sync_costs_a_figure() {
    let clock = ManualClock::new(SystemTime::UNIX_EPOCH);
    let clock = Arc::new(Clockwork { clock, panics: AtomicBool::new(false) });
    let disk = SimulatedDisk::new();
    disk.create_dir(Path::new(DIR)).unwrap();
    let log = Log::create(&env(&disk), identity(), OPTIONS, 0).unwrap();
    let core = PartitionCore::new(
        log,
        Lineage::default(),
        Durability::Sync,
        &Lead::none(),
        RunClock::begin(Arc::clone(&clock) as Arc<dyn Clock>),
        Arc::<Noted>::default(),
        None,
    );
    let end = append(&core, "1", &AppendOptions::default()).unwrap();
    clock.panics.store(true, Ordering::Relaxed);
    core.flush().unwrap();
    assert_eq!(core.durable_end(), end);
    clock.panics.store(false, Ordering::Relaxed);
    append(&core, "2", &AppendOptions::default()).unwrap();
    core.flush().unwrap();
}

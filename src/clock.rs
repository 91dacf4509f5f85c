//! Where time comes from.
//!
//! Two clocks are never mixed. Deadlines that the engine decides (interval syncs, auto-commit,
//! `max_poll_interval`, record timestamps, retention) run on the broker's [`Clock`]; the timeout
//! of a blocking call is real time, which only [`real_now`] reads.

use std::cell::Cell;
use std::fmt;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::sync::{LockLevel, Mutex};

/// The clock of a broker: for timestamps, ages of records, intervals and deadlines of groups. Set
/// by [`BrokerBuilder::clock`](crate::BrokerBuilder::clock).
///
/// Implementations must be fast: a broker calls [`now`](Clock::now) once per append. They must not
/// call the broker, which calls them under locks.
pub trait Clock: Send + Sync + 'static {
    /// Returns the wall-clock time, for timestamps of records. It may jump in either direction.
    fn now(&self) -> SystemTime;

    /// Returns the time since an arbitrary fixed moment, for intervals and deadlines. It never goes
    /// back.
    fn monotonic(&self) -> Duration;

    /// Registers a callback. A clock that can be moved by hand must call it after each move,
    /// because a broker's background threads sleep in real time until their next work is due, and
    /// would notice the move only after that. The default does nothing, which is right for a clock
    /// that runs at the rate of real time.
    ///
    /// A broker with background threads registers once, when it is opened. Drop callbacks that
    /// cannot be upgraded any more: their broker was dropped. The callback takes no lock and never
    /// blocks. Call it after the move, and without a lock that this clock takes in another method.
    fn on_move(&self, callback: Weak<dyn Fn() + Send + Sync>) {
        let _ = callback;
    }
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> SystemTime {
        (**self).now()
    }

    fn monotonic(&self) -> Duration {
        (**self).monotonic()
    }

    fn on_move(&self, callback: Weak<dyn Fn() + Send + Sync>) {
        (**self).on_move(callback);
    }
}

/// The clocks of the system; the default of a broker.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

/// When this process first asked for the time: an `Instant` says nothing by itself.
static ORIGIN: OnceLock<Instant> = OnceLock::new();

impl SystemClock {
    /// Returns the system's clocks. All values of this type show the same time.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "nothing else reads the wall clock")]
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn monotonic(&self) -> Duration {
        ORIGIN.get_or_init(real_now).elapsed()
    }
}

/// A clock that stands still until it is moved. Clones show the same time. For tests, with
/// [`BrokerBuilder::background(false)`](crate::BrokerBuilder::background) and
/// [`Broker::tick`](crate::Broker::tick).
///
/// Moving the clock wakes the background threads of the brokers that use it. They do the work that
/// is due by the new time: evict members that have not polled, sync at the end of an interval, and,
/// after a minute, apply retention, write recovery points and compact. A consumer that waits is not
/// woken: its timeout is real time.
///
/// ```
/// use logpond::{Clock, ManualClock};
/// use std::time::{Duration, SystemTime};
///
/// let clock = ManualClock::new(SystemTime::UNIX_EPOCH);
/// let before = clock.monotonic();
/// clock.advance(Duration::from_secs(60));
/// assert_eq!(clock.monotonic() - before, Duration::from_secs(60));
/// assert_eq!(clock.now(), SystemTime::UNIX_EPOCH + Duration::from_secs(60));
/// ```
#[derive(Clone)]
pub struct ManualClock {
    shared: Arc<Shared>,
}

struct Shared {
    time: Mutex<ManualTime>,
    /// What to call after a move.
    callbacks: Mutex<Vec<Weak<dyn Fn() + Send + Sync>>>,
}

#[derive(Debug, Clone, Copy)]
struct ManualTime {
    now: SystemTime,
    monotonic: Duration,
}

impl ManualClock {
    /// Returns a clock that shows `now` until it is moved.
    #[must_use]
    pub fn new(now: SystemTime) -> Self {
        let monotonic = Duration::ZERO;
        let time = Mutex::at_level(LockLevel::ManualTime, ManualTime { now, monotonic });
        Self {
            shared: Arc::new(Shared {
                time,
                callbacks: Mutex::at_level(LockLevel::ClockCallbacks, Vec::new()),
            }),
        }
    }

    /// Moves both clocks forward, and wakes the background threads of the brokers that use it.
    pub fn advance(&self, by: Duration) {
        self.change(|time| {
            time.now = time.now.checked_add(by).unwrap_or(time.now);
            time.monotonic = time.monotonic.saturating_add(by);
        });
    }

    /// Sets the wall clock only, in either direction, as an administrator or a time service does.
    /// The monotonic clock does not change.
    pub fn set(&self, now: SystemTime) {
        self.change(|time| time.now = now);
    }

    fn change(&self, change: impl FnOnce(&mut ManualTime)) {
        change(&mut self.shared.time.lock());
        // Not under the lock: a callback may have the last handle of what it wakes.
        let callbacks: Vec<_> =
            self.shared.callbacks.lock().iter().filter_map(Weak::upgrade).collect();
        for callback in callbacks {
            callback();
        }
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ManualTime { now, monotonic } = *self.shared.time.lock();
        f.debug_struct("ManualClock").field("now", &now).field("monotonic", &monotonic).finish()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> SystemTime {
        self.shared.time.lock().now
    }

    fn monotonic(&self) -> Duration {
        self.shared.time.lock().monotonic
    }

    fn on_move(&self, callback: Weak<dyn Fn() + Send + Sync>) {
        let mut callbacks = self.shared.callbacks.lock();
        callbacks.retain(|known| known.strong_count() > 0);
        callbacks.push(callback);
    }
}

/// The clock of one run of a broker. All its partitions count from the same opening, also those
/// that are made later, when the wall clock may have been set.
#[derive(Clone)]
pub(crate) struct RunClock {
    clock: Arc<dyn Clock>,
    /// Wall-clock milliseconds and monotonic time at the opening.
    began: (u64, Duration),
}

impl RunClock {
    /// For a run that begins now.
    pub(crate) fn begin(clock: Arc<dyn Clock>) -> Self {
        let began = (to_millis(clock.now()).unwrap_or(0), clock.monotonic());
        Self { clock, began }
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    pub(crate) fn shared(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    /// See [`Clock::now`].
    pub(crate) fn now(&self) -> SystemTime {
        self.clock.now()
    }

    /// See [`Clock::monotonic`].
    pub(crate) fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }

    /// When this run began, in its time.
    pub(crate) fn began_at(&self) -> u64 {
        self.began.0
    }

    /// The time of this run, in milliseconds: the wall clock as it was at the opening, moved on by
    /// time that never jumps. Not to be stored: it is wrong for as long as the run, where the wall
    /// clock was wrong at the opening.
    pub(crate) fn millis(&self) -> u64 {
        self.run_at(self.clock.monotonic())
    }

    /// The time of this run, in milliseconds, at which the monotonic clock showed `monotonic`.
    pub(crate) fn run_at(&self, monotonic: Duration) -> u64 {
        let elapsed = monotonic.saturating_sub(self.began.1);
        self.began.0.saturating_add(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
    }

    /// Now, for what is stored and for what is compared.
    pub(crate) fn moment(&self) -> Moment {
        Moment { wall: to_millis(self.clock.now()).unwrap_or(0), run: self.millis() }
    }
}

impl fmt::Debug for RunClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunClock").field("began", &self.began).finish_non_exhaustive()
    }
}

/// A moment, in the two times that a log uses.
///
/// Only `wall` is ever stored. `run` is [`RunClock::millis`] and is valid in one run of a broker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Moment {
    /// As the wall clock showed it. Milliseconds since 1970, as `run`.
    pub(crate) wall: u64,
    /// In the time of this run, in which ages are compared.
    pub(crate) run: u64,
}

impl Moment {
    /// The moment that `wall` stands for in a file, for a run whose time is `now`. It is never
    /// later than `now`, although the clock may have been ahead when it was stored, or be slow now.
    /// The stored time itself is not changed.
    pub(crate) fn from_stored(wall: u64, now: u64) -> Self {
        Self { wall, run: wall.min(now) }
    }

    /// A moment of this run, with the wall time that the clock shows for it at `now`. What the
    /// clock showed at that moment does not matter: it may have been set since.
    pub(crate) fn from_run(run: u64, now: Self) -> Self {
        Self { wall: Self { wall: 0, run }.latest_wall(now), run }
    }

    /// What the wall clock shows at `now` for a moment at which it showed `wall`. Never less than
    /// `wall`: the clock may have been slow then and be right now.
    pub(crate) fn latest_wall(self, now: Self) -> u64 {
        self.wall.max(now.wall.saturating_sub(now.run.saturating_sub(self.run)))
    }
}

/// Real time, for the timeouts of blocking calls and nothing else.
#[expect(clippy::disallowed_methods, reason = "nothing else reads the machine's timer")]
pub(crate) fn real_now() -> Instant {
    Instant::now()
}

/// Milliseconds since 1970, the resolution at which timestamps are stored. `None` before 1970 and
/// beyond what 64 bits hold.
pub(crate) fn to_millis(time: SystemTime) -> Option<u64> {
    u64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
}

/// A millisecond, whose number is known.
#[derive(Debug, Clone, Copy)]
struct Millisecond {
    begin: SystemTime,
    end: SystemTime,
    number: u64,
}

thread_local! {
    static LAST: Cell<Millisecond> =
        const { Cell::new(Millisecond { begin: UNIX_EPOCH, end: UNIX_EPOCH, number: 0 }) };
}

/// [`to_millis`] of the time that it is. A fast producer asks thousands of times in a millisecond,
/// and two comparisons cost it less than the way through a `Duration`.
#[inline]
pub(crate) fn to_millis_now(now: SystemTime) -> Option<u64> {
    let last = LAST.get();
    let is_same = last.begin <= now && now < last.end;
    if is_same { Some(last.number) } else { to_next_millis(now) }
}

#[cold]
fn to_next_millis(now: SystemTime) -> Option<u64> {
    let number = to_millis(now)?;
    let begin = from_millis(number);
    if let Some(end) = begin.checked_add(Duration::from_millis(1)) {
        LAST.set(Millisecond { begin, end, number });
    }
    Some(number)
}

/// The moment that [`to_millis`] stored. A stored value that the platform's clock cannot express
/// (hostile bytes, never our own) becomes the nearest moment that it can.
pub(crate) fn from_millis(millis: u64) -> SystemTime {
    const FAR: Duration = Duration::from_secs(1 << 40);
    UNIX_EPOCH
        .checked_add(Duration::from_millis(millis))
        .unwrap_or_else(|| UNIX_EPOCH.checked_add(FAR).unwrap_or(UNIX_EPOCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_moves_only_the_wall_clock() {
        let clock = ManualClock::new(UNIX_EPOCH);
        clock.set(UNIX_EPOCH + Duration::from_secs(5));
        assert_eq!(clock.monotonic(), Duration::ZERO);
        assert_eq!(clock.now(), UNIX_EPOCH + Duration::from_secs(5));
    }

    #[test]
    fn every_move_calls_those_that_are_still_there() {
        let clock = ManualClock::new(UNIX_EPOCH);
        let calls = Arc::new(Mutex::new(0));
        let register = || -> Arc<dyn Fn() + Send + Sync> {
            let (calls, used) = (Arc::clone(&calls), clock.clone());
            // The time has moved already, and the callback may use the clock.
            let callback: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
                assert!(used.now() > UNIX_EPOCH);
                *calls.lock() += 1;
            });
            clock.on_move(Arc::downgrade(&callback));
            callback
        };
        drop(register());
        let _kept = register();
        assert_eq!(clock.shared.callbacks.lock().len(), 1, "a dropped callback is removed");
        clock.advance(Duration::from_secs(1));
        clock.set(UNIX_EPOCH + Duration::from_secs(5));
        assert_eq!(*calls.lock(), 2);
    }

    #[test]
    fn times_before_1970_have_no_millis() {
        assert_eq!(to_millis(UNIX_EPOCH - Duration::from_secs(1)), None);
        assert_eq!(to_millis(UNIX_EPOCH + Duration::from_micros(1999)), Some(1));
    }

    #[test]
    fn a_time_is_the_same_number_of_milliseconds_whatever_was_asked_before() {
        let micros = [1_999, 1_000, 2_000, 999, 2_999, 0, 5_000_000, 1, 1_500];
        for time in micros.map(|micros| UNIX_EPOCH + Duration::from_micros(micros)) {
            for _ in 0..2 {
                assert_eq!(to_millis_now(time), to_millis(time), "{time:?}");
            }
            assert_eq!(to_millis_now(UNIX_EPOCH - Duration::from_nanos(1)), None);
        }
    }

    #[test]
    fn a_stored_moment_is_never_younger_than_the_run() {
        for (wall, now, run) in [(5, 10, 5), (15, 10, 10), (u64::MAX, 0, 0)] {
            assert_eq!(Moment::from_stored(wall, now), Moment { wall, run });
        }
    }

    #[test]
    fn a_slow_wall_clock_makes_nothing_old() {
        let at = |wall, run| Moment { wall, run };
        // Slow by 90 until it was set; slow still; set back since; right all the time.
        for (then, now, wall) in [
            (at(10, 10), at(105, 15), 100),
            (at(10, 10), at(15, 15), 10),
            (at(100, 100), at(20, 110), 100),
            (at(100, 100), at(110, 110), 100),
        ] {
            assert_eq!(then.latest_wall(now), wall, "{then:?} {now:?}");
        }
    }

    #[test]
    fn every_stored_timestamp_has_a_moment() {
        let _ = from_millis(u64::MAX);
        assert_eq!(to_millis(from_millis(1_700_000_000_123)), Some(1_700_000_000_123));
    }
}

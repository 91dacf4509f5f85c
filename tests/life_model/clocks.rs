//! What time it is, and what the broker's clocks make of it.
//!
//! The wall clock is set, to what is right or not, whenever the walk likes. At an opening it may be
//! behind, as before a time service has set it, and is never ahead: an opening believes what it
//! shows. The clock that never jumps begins anew with every opening, and stands still while the
//! machine sleeps.

use super::*;

pub(super) struct Clocks {
    /// How much time has passed since [`some_time`].
    truth: Duration,
    pub(super) manual: ManualClock,
    /// Since when the wall clock goes as it goes, and what it showed then; the latest last.
    shown: Vec<(Duration, SystemTime)>,
}

impl Clocks {
    pub(super) fn new() -> Self {
        let manual = manual_clock();
        let shown = vec![(Duration::ZERO, manual.now())];
        Self { truth: Duration::ZERO, manual, shown }
    }

    /// What a right clock shows.
    pub(super) fn truth(&self) -> SystemTime {
        some_time() + self.truth
    }

    pub(super) fn wall(&self) -> SystemTime {
        self.manual.now()
    }

    pub(super) fn monotonic(&self) -> Duration {
        self.manual.monotonic()
    }

    pub(super) fn pass(&mut self, by: Duration) {
        self.truth += by;
        self.manual.advance(by);
    }

    /// The machine sleeps: its wall clock goes on.
    pub(super) fn sleep(&mut self, by: Duration) {
        self.truth += by;
        self.manual.set(self.wall() + by);
    }

    /// Sets the wall clock; mostly right.
    pub(super) fn set(&mut self, rng: &mut Rng) {
        let error = some_error(rng);
        let now = match rng.below(5) {
            0 => self.truth() - error,
            1 => self.truth() + error,
            _ => self.truth(),
        };
        self.manual.set(now);
        self.note();
    }

    /// Clocks for another opening.
    pub(super) fn restart(&mut self, rng: &mut Rng) {
        let behind = if rng.one_in(2) { some_error(rng) } else { Duration::ZERO };
        self.manual = ManualClock::new(self.truth() - behind);
        self.note();
    }

    fn note(&mut self) {
        self.shown.push((self.truth, self.wall()));
    }

    /// The earliest that the wall clock has shown since `moment`.
    pub(super) fn earliest_since(&self, moment: Duration) -> SystemTime {
        let at_moment =
            |(since, wall): &(Duration, SystemTime)| *wall + moment.saturating_sub(*since);
        let after = self.shown.partition_point(|(since, _)| *since <= moment);
        let showing = self.shown[after.saturating_sub(1)..].iter().map(at_moment);
        showing.min().expect("it always shows something")
    }

    /// How much time has passed since the walk began.
    pub(super) fn passed(&self) -> Duration {
        self.truth
    }
}

/// Some minutes, or some days: less than records are kept, or more.
fn some_error(rng: &mut Rng) -> Duration {
    if rng.one_in(2) { MINUTE * within(rng, 60) } else { DAY * within(rng, 60) }
}

fn within(rng: &mut Rng, most: u64) -> u32 {
    u32::try_from(1 + rng.below(most)).expect("small")
}

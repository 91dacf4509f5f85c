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
    /// What the wall clock showed at the opening.
    opened: SystemTime,
    /// Since when the clocks go as they go, and the later of what the wall clock showed then and
    /// what it would have shown if it had gone like the other since the opening; the latest last.
    shown: Vec<(Duration, SystemTime)>,
}

impl Clocks {
    pub(super) fn new() -> Self {
        let manual = manual_clock();
        let opened = manual.now();
        Self { truth: Duration::ZERO, manual, opened, shown: vec![(Duration::ZERO, opened)] }
    }

    /// What a right clock shows.
    pub(super) fn truth(&self) -> SystemTime {
        some_time() + self.truth
    }

    pub(super) fn wall(&self) -> SystemTime {
        self.manual.now()
    }

    /// What the wall clock shows, or what a right one would if that is earlier: from then on counts
    /// what is stored now.
    pub(super) fn shown(&self) -> SystemTime {
        self.wall().min(self.truth())
    }

    pub(super) fn monotonic(&self) -> Duration {
        self.manual.monotonic()
    }

    pub(super) fn pass(&mut self, by: Duration) {
        self.truth += by;
        self.manual.advance(by);
    }

    /// The machine sleeps: its wall clock advances.
    pub(super) fn sleep(&mut self, by: Duration) {
        self.truth += by;
        self.manual.set(self.wall() + by);
        self.note();
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
        self.opened = self.truth() - behind;
        self.manual = ManualClock::new(self.opened);
        self.note();
    }

    fn note(&mut self) {
        let latest = self.wall().max(self.opened + self.monotonic());
        self.shown.push((self.truth, latest));
    }

    /// Now, for [`earliest_since`](Self::earliest_since).
    pub(super) fn mark(&self) -> Mark {
        Mark { showing: self.shown.len() - 1, passed: self.truth }
    }

    /// From when on a deadline can count that was set at `mark` or later: it counts by the later of
    /// the clocks.
    pub(super) fn earliest_since(&self, mark: Mark) -> SystemTime {
        let at_mark =
            |(since, latest): &(Duration, SystemTime)| *latest + mark.passed.saturating_sub(*since);
        let showing = self.shown[mark.showing..].iter().map(at_mark);
        showing.min().expect("they always show something")
    }
}

/// A moment of the walk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    /// How the clocks went.
    showing: usize,
    /// How much time had passed since the walk began.
    passed: Duration,
}

/// Some minutes, or some days: less than records are kept, or more.
fn some_error(rng: &mut Rng) -> Duration {
    if rng.one_in(2) { MINUTE * within(rng, 60) } else { DAY * within(rng, 60) }
}

fn within(rng: &mut Rng, most: u64) -> u32 {
    u32::try_from(1 + rng.below(most)).expect("small")
}

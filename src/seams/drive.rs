//! What lets the members of a test's cluster work, and its time pass, while a call waits for them.
//!
//! Owns: how such a wait is made. A test has one thread, which waits: so the wait itself does what
//! other machines and the network would do meanwhile, one step after the other, until the call has
//! its answer. Must not know: members, frames.

use std::time::Duration;

/// LIMIT: how long a call may wait that has no end of its own, on the clock of the test: ten times as
/// long as a majority is waited for. In production it would hang; a test that hangs says nothing.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

/// A cluster of test brokers, as a call sees it that waits for other members.
pub(crate) trait Drive: Send + Sync {
    /// Does one step: a member takes a frame, or all do what is due; or, if there is nothing to do,
    /// time passes up to the next thing that is due, and not beyond `until`. The caller holds no lock
    /// of a broker.
    fn step(&self, until: Duration);

    /// What the clock of the test shows: its monotonic time.
    fn now(&self) -> Duration;
}

/// Lets the cluster work until `look` finds something; `None` if it does not before `until`.
///
/// # Panics
///
/// If it has no end, and that takes five minutes: nothing will come any more.
pub(crate) fn drive_until<T>(
    drive: &dyn Drive,
    until: Option<Duration>,
    mut look: impl FnMut() -> Option<T>,
) -> Option<T> {
    let patience = drive.now().saturating_add(PATIENCE);
    loop {
        let found = look();
        let now = drive.now();
        if found.is_some() || until.is_some_and(|until| now >= until) {
            return found;
        }
        let is_patient = now < patience || until.is_some();
        assert!(is_patient, "a call has waited for {PATIENCE:?} of the cluster's time");
        drive.step(until.unwrap_or(patience));
    }
}

/// Lets the cluster work for some time.
pub(crate) fn drive_for(drive: &dyn Drive, time: Duration) {
    let until = drive.now().saturating_add(time);
    let _ = drive_until(drive, Some(until), || None::<()>);
}

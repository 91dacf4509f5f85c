//! The sessions of the runs of a directory.
//!
//! A session has the number of the run, which counts up, in its upper half, and a random number in its
//! lower half. So of two sessions with the same number one is of a copy of the directory: both were
//! opened as often. The sessions of earlier builds are numbers alone. Must not know: notes, messages.

/// How many bits the random number has.
const RANDOM: u32 = u32::BITS;

/// The number of the run.
pub(super) fn number(session: u64) -> u64 {
    let upper = session >> RANDOM;
    if upper == 0 { session } else { upper }
}

/// The session of the run after that of `session`; `random` is drawn for it.
pub(super) fn after(session: u64, random: u32) -> u64 {
    let number = number(session).saturating_add(1).min(u64::from(u32::MAX));
    (number << RANDOM) | u64::from(random)
}

/// Whether what the run says counts for nothing, because that of `noted` is a later one of its
/// directory, or the directory was copied.
pub(super) fn is_stale(session: u64, noted: u64) -> bool {
    let (this, other) = (number(session), number(noted));
    this < other || (this == other && session != noted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_count_up_and_those_of_copies_differ() {
        let first = after(0, 7);
        let (ours, copy) = (after(first, 9), after(first, 8));
        assert_eq!([first, ours, copy].map(number), [1, 2, 2]);
        assert!(is_stale(first, ours) && !is_stale(ours, first));
        assert!(is_stale(copy, ours) && is_stale(ours, copy) && !is_stale(ours, ours));
        assert!(!is_stale(first, 0), "none was noted");
    }

    #[test]
    fn sessions_of_earlier_builds_are_continued() {
        let next = after(5, 1);
        assert_eq!(number(next), 6);
        assert!(is_stale(5, 6) && is_stale(5, next) && !is_stale(next, 5) && !is_stale(5, 5));
        assert_eq!(number(after(u64::MAX, 1)), u64::from(u32::MAX));
    }
}

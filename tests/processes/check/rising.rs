//! What was the greatest value before a time?

/// Values that were known from a time on.
pub(super) struct Rising(Vec<(u64, u64)>);

impl Rising {
    pub(super) fn new(mut points: Vec<(u64, u64)>) -> Self {
        points.sort_unstable();
        let mut greatest = 0;
        for (_, value) in &mut points {
            greatest = greatest.max(*value);
            *value = greatest;
        }
        Self(points)
    }

    /// The greatest value that was known before `time`; 0 if there was none.
    pub(super) fn before(&self, time: u64) -> u64 {
        let count = self.0.partition_point(|(known, _)| *known < time);
        count.checked_sub(1).map_or(0, |last| self.0[last].1)
    }
}

#[test]
fn only_earlier_values_count() {
    let rising = Rising::new(vec![(5, 3), (2, 7), (9, 8)]);
    let at = [0, 2, 3, 6, 9, 10].map(|time| rising.before(time));
    assert_eq!(at, [0, 0, 7, 7, 7, 8]);
}

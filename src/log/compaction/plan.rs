//! Which segments to compact, and in which groups: pure decisions over sizes and offsets.

use std::ops::Range;

/// A sealed segment, as far as a plan is concerned. Lists of them are in the order of offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Input {
    pub(crate) base_offset: u64,
    pub(crate) next_offset: u64,
    pub(crate) bytes: u64,
    /// Compaction wrote it, and left no key twice up to its end.
    pub(crate) is_clean: bool,
}

/// How much of a log is compacted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Dirt {
    pub(crate) clean_bytes: u64,
    pub(crate) dirty_bytes: u64,
    /// Below this offset no key occurs twice.
    pub(crate) clean_end: u64,
}

impl Dirt {
    /// The share of the dirty bytes; 0 where there are none.
    #[expect(clippy::cast_precision_loss, reason = "a share of bytes needs no more digits")]
    pub(crate) fn ratio(&self) -> f64 {
        let all = self.clean_bytes.saturating_add(self.dirty_bytes);
        if all == 0 { 0.0 } else { self.dirty_bytes as f64 / all as f64 }
    }

    /// Whether the share of dirty bytes is reached.
    pub(crate) fn is_due(&self, min_ratio: f64) -> bool {
        self.dirty_bytes > 0 && self.ratio() >= min_ratio
    }
}

/// Surveys a log that begins at `log_start`. Clean is the longest run of clean segments from the
/// start on: a clean segment after a dirty one may share keys with it.
pub(crate) fn survey(inputs: impl IntoIterator<Item = Input>, log_start: u64) -> Dirt {
    let mut dirt = Dirt { clean_end: log_start, ..Dirt::default() };
    let mut is_clean = true;
    for input in inputs {
        is_clean &= input.is_clean;
        if is_clean {
            dirt.clean_bytes = dirt.clean_bytes.saturating_add(input.bytes);
            dirt.clean_end = dirt.clean_end.max(input.next_offset);
        } else {
            dirt.dirty_bytes = dirt.dirty_bytes.saturating_add(input.bytes);
        }
    }
    dirt
}

/// The first offsets that are missing between two inputs: a rewrite would hide that they are.
pub(super) fn first_gap(inputs: &[Input]) -> Option<Range<u64>> {
    inputs.windows(2).find_map(|pair| match pair {
        [before, after] if before.next_offset != after.base_offset => {
            Some(before.next_offset..after.base_offset.max(before.next_offset))
        }
        _ => None,
    })
}

/// What a pass covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pass {
    /// How many inputs are rewritten, from the first on.
    pub(super) inputs: usize,
    /// Below this offset no key will occur twice.
    pub(super) end: u64,
}

/// What a pass covers whose keys were gathered from `from` on, up to `full_at`, where the memory
/// was full, or to the end. An input of which only a part was gathered is left to the next pass,
/// unless it is the only one.
pub(super) fn pass(inputs: &[Input], from: u64, full_at: Option<u64>) -> Pass {
    let end = inputs.last().map_or(from, |last| last.next_offset);
    let Some(full_at) = full_at else {
        return Pass { inputs: inputs.len(), end };
    };
    let whole = inputs.partition_point(|input| input.next_offset <= full_at);
    let whole_end = whole.checked_sub(1).and_then(|last| inputs.get(last));
    match whole_end.map(|last| last.next_offset).filter(|end| *end > from) {
        Some(end) => Pass { inputs: whole, end },
        None => Pass { inputs: whole.saturating_add(1).min(inputs.len()), end: full_at },
    }
}

/// Which neighbours become one segment: as many as certainly fit into `segment_bytes`, and at least
/// one. `bytes_max` says for each input how much can remain of it. The lengths of the groups.
pub(super) fn groups(inputs: &[Input], bytes_max: &[u64], segment_bytes: u64) -> Vec<usize> {
    let mut groups: Vec<usize> = Vec::new();
    let (mut bytes, mut base) = (0_u64, 0_u64);
    for (index, input) in inputs.iter().enumerate() {
        let own = bytes_max.get(index).copied().unwrap_or(input.bytes);
        let together = bytes.saturating_add(own);
        // Offsets within a segment are 32 bits from its base.
        let spans = u32::try_from(input.next_offset.saturating_sub(base)).is_ok();
        match groups.last_mut() {
            Some(length) if together <= segment_bytes && spans => {
                *length = length.saturating_add(1);
                bytes = together;
            }
            _ => {
                groups.push(1);
                (bytes, base) = (own, input.base_offset);
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(lengths: &[(u64, bool)]) -> Vec<Input> {
        let mut base_offset = 0;
        let input = |(bytes, is_clean): &(u64, bool)| {
            let next_offset = base_offset + 10;
            let input = Input { base_offset, next_offset, bytes: *bytes, is_clean: *is_clean };
            base_offset = next_offset;
            input
        };
        lengths.iter().map(input).collect()
    }

    #[test]
    fn clean_is_only_what_is_clean_from_the_start_on() {
        let dirt = survey(inputs(&[(5, true), (7, true), (11, false), (13, true)]), 0);
        assert_eq!(dirt, Dirt { clean_bytes: 12, dirty_bytes: 24, clean_end: 20 });
        let dirt = survey(inputs(&[(5, false), (7, true)]), 3);
        assert_eq!(dirt, Dirt { clean_bytes: 0, dirty_bytes: 12, clean_end: 3 });
        assert_eq!(survey([], 9), Dirt { clean_end: 9, ..Dirt::default() });
    }

    #[test]
    fn compaction_is_due_from_the_ratio_on_and_never_without_dirt() {
        let dirt = |clean_bytes, dirty_bytes| Dirt { clean_bytes, dirty_bytes, clean_end: 0 };
        assert!(dirt(50, 50).is_due(0.5) && !dirt(51, 49).is_due(0.5));
        assert!(dirt(0, 1).is_due(1.0) && !dirt(1, 1_000).is_due(1.0));
        assert!(dirt(1_000, 1).is_due(0.0));
        assert!(!dirt(0, 0).is_due(0.0) && !dirt(5, 0).is_due(0.0));
    }

    #[test]
    fn a_gap_between_inputs_is_found() {
        let mut three = inputs(&[(1, false); 3]);
        assert_eq!(first_gap(&three), None);
        three[2].base_offset = 25;
        assert_eq!(first_gap(&three), Some(20..25));
        three[2].base_offset = 15;
        assert_eq!(first_gap(&three), Some(20..20));
    }

    #[test]
    fn a_pass_ends_between_inputs_where_it_can() {
        let four = inputs(&[(1, true), (1, false), (1, false), (1, false)]);
        assert_eq!(pass(&four, 10, None), Pass { inputs: 4, end: 40 });
        // Full in the third: the second is covered.
        assert_eq!(pass(&four, 10, Some(25)), Pass { inputs: 2, end: 20 });
        assert_eq!(pass(&four, 10, Some(30)), Pass { inputs: 3, end: 30 });
        // Full in the very first dirty one: it takes part of it.
        assert_eq!(pass(&four, 10, Some(15)), Pass { inputs: 2, end: 15 });
        assert_eq!(pass(&four, 15, Some(19)), Pass { inputs: 2, end: 19 });
        assert_eq!(pass(&four, 15, Some(20)), Pass { inputs: 2, end: 20 });
        assert_eq!(pass(&[], 7, None), Pass { inputs: 0, end: 7 });
    }

    #[test]
    fn neighbours_that_fit_together_become_one() {
        let five = inputs(&[(40, true), (40, true), (90, false), (10, false), (200, false)]);
        let bytes: Vec<u64> = five.iter().map(|input| input.bytes).collect();
        assert_eq!(groups(&five, &bytes, 100), [2, 2, 1]);
        assert_eq!(groups(&five, &bytes, 1), [1; 5]);
        assert_eq!(groups(&five, &[1; 5], 100), [5]);
        assert!(groups(&[], &[], 100).is_empty());
    }

    #[test]
    fn offsets_that_span_more_than_32_bits_stay_apart() {
        let far = 1_u64 << 32;
        let mut two = inputs(&[(1, false); 2]);
        two[0].next_offset = far;
        (two[1].base_offset, two[1].next_offset) = (far, far + 1);
        assert_eq!(groups(&two, &[1, 1], 100), [1, 1]);
    }
}

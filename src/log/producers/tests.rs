//! Who may append what, and who is forgotten.

use super::*;

fn state(epoch: u32, last_sequence: u64) -> ProducerState {
    ProducerState { id: 7, epoch, last_sequence, last_offset: 40, last_timestamp: 1_000 }
}

fn table(epoch: u32, last_sequence: u64) -> ProducerTable {
    ProducerTable::from_states([state(epoch, last_sequence)])
}

#[test]
fn a_batch_without_a_number_takes_none_and_keeps_a_row_from_expiring() {
    for mut table in [ProducerTable::default(), table(0, 3), table(0, u64::MAX)] {
        let known = table.get(7).map(|state| state.last_sequence);
        let admission = table.admit(7, 0, Sequence::Absent, 3);
        assert_eq!(admission, Admission::Append { base_sequence: None });
        table.note_use(7, Moment { wall: 5_000, run: 6_000 });
        table.expire(6_000);
        assert_eq!(table.get(7).map(|state| state.last_sequence), known);
    }
}

#[test]
fn a_number_not_above_the_last_is_a_duplicate() {
    for number in [0, 9, 10] {
        let admission = table(0, 10).admit(7, 0, Sequence::At(number), 1);
        let duplicate = Admission::Duplicate { last_sequence: 10, last_offset: 40 };
        assert_eq!(admission, duplicate, "{number}");
    }
    let admission = table(0, 10).admit(7, 0, Sequence::At(11), 1);
    assert_eq!(admission, Admission::Append { base_sequence: Some(11) });
}

#[test]
fn an_older_epoch_is_fenced_and_a_newer_one_is_not() {
    for sequence in [Sequence::Absent, Sequence::At(2)] {
        let admission = table(5, 1).admit(7, 4, sequence, 1);
        assert_eq!(admission, Admission::Fenced { current: 5 });
        let admission = table(5, 1).admit(7, 6, sequence, 1);
        assert!(matches!(admission, Admission::Append { .. }), "{admission:?}");
    }
}

// RED: src/log/producers.rs
//   - None => Admission::Exhausted,
//   + None => Admission::Append { base_sequence: None },
#[test]
fn row_g08_numbers_never_wrap() {
    let at = Sequence::At(u64::MAX - 1);
    assert_eq!(table(0, 1).admit(7, 0, at, 3), Admission::Exhausted);
    assert!(matches!(table(0, 1).admit(7, 0, at, 2), Admission::Append { .. }));
}

#[test]
fn producers_that_a_scan_found_count_as_used_now() {
    let mut table = table(0, 1);
    table.touch(Moment { wall: 5_000, run: 5_000 });
    table.expire(5_000);
    assert!(table.get(7).is_some());
}

#[test]
fn idle_producers_expire() {
    let mut table = table(0, 1);
    table.expire(1_000);
    assert!(table.get(7).is_some());
    table.expire(1_001);
    assert!(table.get(7).is_none());
}

/// The batch stores the number from which its last one follows.
#[test]
fn rising_numbers_are_new_together_or_one_is_a_duplicate() {
    let rising = |first, last| table(0, 10).admit(7, 0, Sequence::Rising { first, last }, 3);
    assert_eq!(rising(11, 13), Admission::Append { base_sequence: Some(11) });
    assert_eq!(rising(11, 400), Admission::Append { base_sequence: Some(398) });
    assert_eq!(rising(11, u64::MAX), Admission::Append { base_sequence: Some(u64::MAX - 2) });
    let duplicate = Admission::Duplicate { last_sequence: 10, last_offset: 40 };
    for (first, last) in [(8, 10), (10, 12), (1, u64::MAX)] {
        assert_eq!(rising(first, last), duplicate, "{first} {last}");
    }
    let first = ProducerTable::default().admit(7, 0, Sequence::Rising { first: 0, last: 2 }, 3);
    assert_eq!(first, Admission::Append { base_sequence: Some(0) });
}

//! Who may append what, and who is forgotten.

use super::*;

fn state(epoch: u32, last_sequence: u64) -> ProducerState {
    ProducerState { id: 7, epoch, last_sequence, last_offset: 40, last_timestamp: 1_000 }
}

fn table(epoch: u32, last_sequence: u64) -> ProducerTable {
    ProducerTable::from_states([state(epoch, last_sequence)])
}

#[test]
fn the_first_plain_number_is_one() {
    let admission = ProducerTable::default().admit(7, 0, Sequence::Next, 3);
    assert_eq!(admission, Admission::Append { base_sequence: 1 });
    let admission = table(0, 3).admit(7, 0, Sequence::Next, 1);
    assert_eq!(admission, Admission::Append { base_sequence: 4 });
}

#[test]
fn a_number_not_above_the_last_is_a_duplicate() {
    for number in [0, 9, 10] {
        let admission = table(0, 10).admit(7, 0, Sequence::At(number), 1);
        let duplicate = Admission::Duplicate { last_sequence: 10, last_offset: 40 };
        assert_eq!(admission, duplicate, "{number}");
    }
    let admission = table(0, 10).admit(7, 0, Sequence::At(11), 1);
    assert_eq!(admission, Admission::Append { base_sequence: 11 });
}

#[test]
fn an_older_epoch_is_fenced_and_a_newer_one_is_not() {
    assert_eq!(table(5, 1).admit(7, 4, Sequence::Next, 1), Admission::Fenced { current: 5 });
    let admission = table(5, 1).admit(7, 6, Sequence::Next, 1);
    assert_eq!(admission, Admission::Append { base_sequence: 2 });
}

// RED: src/log/producers.rs
//   - None => Admission::Exhausted,
//   + None => Admission::Append { base_sequence },
#[test]
fn row_g08_numbers_never_wrap() {
    assert_eq!(table(0, u64::MAX).admit(7, 0, Sequence::Next, 1), Admission::Exhausted);
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

//! The active segment: what its check finds.

use crate::log::appender::tests::log;

#[test]
fn the_check_finds_ends_that_are_out_of_order() {
    let mut active = log().appender.take_active().unwrap();
    assert_eq!(active.check(), Ok(()));
    active.synced_end = active.position + 1;
    assert!(active.check().is_err(), "synced beyond what was written");
    active.position = active.capacity() + 1;
    active.synced_end = active.position;
    assert!(active.check().is_err(), "written beyond the capacity");
}

#[test]
fn the_check_finds_a_position_that_is_not_what_readers_see() {
    let mut active = log().appender.take_active().unwrap();
    for position in [active.position + 1, active.position - 1] {
        active.position = position;
        active.synced_end = 0;
        assert!(active.check().is_err(), "{position}");
    }
}

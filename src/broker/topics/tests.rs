//! Changes of settings.

use super::*;
use crate::config::Durability;
use std::time::Duration;

#[test]
fn two_changes_of_different_settings_are_both_made() {
    let before = TopicConfig::new(1);
    let mine = before.clone().segment_bytes(1 << 20);
    let meanwhile = TopicConfig::new(3).retention(Duration::MAX).segment_bytes(2 << 20);
    let both = before.with_changes(&mine, &meanwhile);
    assert_eq!(both, TopicConfig::new(3).retention(Duration::MAX).segment_bytes(1 << 20));
}

#[test]
fn no_change_leaves_what_others_changed() {
    let before = TopicConfig::new(1);
    let meanwhile = TopicConfig::new(1).max_record_bytes(7).min_dirty_ratio(0.1);
    assert_eq!(before.with_changes(&before.clone(), &meanwhile), meanwhile);
}

#[test]
fn partitions_and_durability_are_refused() {
    let before = TopicConfig::new(1);
    for wanted in [TopicConfig::new(2), TopicConfig::new(1).durability(Durability::Os)] {
        let refused = check_alterable(&before, &wanted);
        assert!(matches!(refused, Err(Error::Config(_))), "{refused:?}");
    }
}

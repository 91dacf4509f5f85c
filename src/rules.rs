//! The rules that durability rests on, each of which the tests can take away.
//!
//! Owns: their names, in one list. Where the engine keeps one of them, it says so:
//! `Rule::HeaderSync.keep(|| file.sync())`. The tests of this library run the engine without it
//! (a *mutant*) and expect a crash test to fail; one that survives means that a test is missing, or
//! that the rule is not needed. Must not know: what the steps do.
//!
//! In every build but that of the library's own unit tests [`Rule::holds`] is a constant, and the
//! rules are gone from the code. There, `LOGPOND_MUTANT=HeaderSync` takes away one, for the whole
//! process:
//!
//! ```text
//! cargo test --lib every_mutant -- --nocapture                      # all, each by one quick test
//! LOGPOND_MUTANTS=all cargo test --lib every_mutant -- --nocapture  # all, each by all tests
//! LOGPOND_MUTANT=Salt cargo test --lib                         # what notices this one?
//! ```

// Three syncs of a directory bear no rule, since nothing depends on them but space: those after the
// removal of segments that lie below the log start, behind a cut, or replaced by a compaction. Such
// a segment may come back; what made it void is durable before it goes, and the next opening removes
// it again. A fourth has none at all: on a full disk segments behind a cut are removed before anything
// says that they are void (`log/leftovers`). Whichever of them come back, they lie behind the gap that
// ends the log; what closes the gap is `SegmentName`'s or `TailNames`' to wait for.

/// Declares the rules, each with the unit test that is quickest to notice that it is gone.
macro_rules! rules {
    ($($(#[$doc:meta])* $rule:ident => $test:literal,)*) => {
        /// A rule that keeps what was acknowledged.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Rule {
            $($(#[$doc])* $rule,)*
        }

        #[cfg(test)]
        impl Rule {
            /// All rules there are, and their tests.
            const ALL: &[(Self, &str)] = &[$((Self::$rule, $test),)*];
        }
    };
}

rules! {
    // ---- what is synced --------------------------------------------------------------------
    /// An acknowledgement at `Sync` follows a sync of the active segment.
    ActiveSync => "log::tests::crash::row_b01_a_power_cut_at_every_store_point_leaves_a_prefix_with_all_that_was_synced",
    /// It follows a sync of every segment that was sealed since the last one, too.
    SealedSync => "log::tests::sync::row_b14_a_sync_does_not_cover_what_was_appended_before_the_segment_was_sealed",
    /// The header of a new segment is synced before the file gets its name.
    HeaderSync => "log::tests::crash::row_a22_an_interrupted_creation_is_an_empty_log_or_none",
    /// A footer is written only over data that was synced, since it proves that it was.
    FooterAfterSync => "log::tests::crash::row_b01_a_power_cut_at_every_store_point_leaves_a_prefix_with_all_that_was_synced",
    /// A sync vouches for what was published when it began: a later caller joins the next.
    NextSync => "partition::tests::syncs::row_b14_who_publishes_during_a_sync_waits_for_the_next_one",
    /// A tail of an earlier run is written over itself before it is called durable.
    TailRewrite => "log::tests::crash::row_d03_a_tail_that_a_failed_sync_marked_clean_is_written_again",
    /// And synced.
    TailSync => "log::tests::crash::row_d03_a_tail_that_a_failed_sync_marked_clean_is_written_again",
    /// The engine's own records are synced before the step that relies on them.
    StateSync => "broker::tests::crash::row_a22_b17_a_topic_is_created_whole_or_not_at_all",
    /// What an opening finds of the engine's own records is synced before it is acted upon.
    FoundState => "broker::tests::state::row_a14_b16_a_power_cut_at_every_store_point_of_a_clean_up_loses_nothing",
    /// The live entries of an internal segment are copied, and the copies synced, before it goes.
    CleanUpSync => "broker::tests::state::row_a14_b16_a_power_cut_at_every_store_point_of_a_clean_up_loses_nothing",
    /// A commit, and a reset of a group, returns when its record is synced.
    CommitSync => "broker::tests::crash::row_a13_b16_the_last_acknowledged_commit_is_there",
    /// A commit, and a reset, is published after the records that it refers to are durable.
    RecordsBeforeCommit => "broker::tests::crash::row_a13_b16_the_last_acknowledged_commit_is_there",
    /// A compacted segment is synced before it gets its name.
    CompactedSync => "log::tests::compaction::run::row_a15_a16_a17_a18_a_crash_at_every_point_of_a_compaction_loses_and_revives_nothing",
    /// What retention removes, and what goes on behind it, is durable before the new log start.
    SettledRemoval => "broker::tests::retention::row_a19_a_log_start_never_goes_back_and_nothing_above_it_is_lost",

    // ---- which names are synced ------------------------------------------------------------
    /// The name of a new segment is durable before anything in it is acknowledged.
    SegmentName => "log::tests::crash::row_b01_a_power_cut_at_every_store_point_leaves_a_prefix_with_all_that_was_synced",
    /// A segment that could not be begun is gone for good before the log goes on without it.
    WithdrawnName => "log::tests::crash::an_opening_that_failed_and_came_back_changes_nothing",
    /// The name of a compacted segment is durable before the segments that it replaces go.
    CompactedName => "log::tests::compaction::run::row_a15_a16_a17_a18_a_crash_at_every_point_of_a_compaction_loses_and_revives_nothing",
    /// The data directory is durable in its parent.
    DataDirName => "broker::tests::crash::row_a25_a_new_directory_survives_two_interrupted_openings",
    /// So are the directories of the internal logs.
    InternalDirName => "broker::tests::crash::row_a25_a_new_directory_survives_two_interrupted_openings",
    /// So are the names that an interrupted opening left there.
    FoundNames => "broker::tests::crash::row_a25_a_new_directory_survives_two_interrupted_openings",
    /// So is that of a topic, before its creation is acknowledged.
    TopicDirName => "broker::tests::crash::row_a22_b17_a_topic_is_created_whole_or_not_at_all",
    /// So are those of its partitions.
    PartitionDirName => "broker::tests::crash::row_a22_b17_a_topic_is_created_whole_or_not_at_all",
    /// The segments of a deleted topic are gone for good before the directories that hold them.
    DeletedSegmentNames => "broker::tests::crash::row_a23_a_deleted_topic_stays_deleted_and_its_name_is_free",
    /// The directories of its partitions are gone for good before its own goes.
    DeletedPartitionNames => "broker::tests::crash::row_a23_a_deleted_topic_stays_deleted_and_its_name_is_free",
    /// Its own directory is gone for good before its name is free.
    DeletedTopicName => "broker::tests::crash::row_a23_a_deleted_topic_stays_deleted_and_its_name_is_free",
    /// Partitions of an undone growth are gone for good before they can be made again.
    UndoneGrowthNames => "broker::tests::crash::what_interrupts_a_growth_or_follows_it_does_not_mix_with_it",
    /// Of several internal segments that are removed, one is gone for good before the next goes.
    CleanUpRemoval => "broker::tests::state::row_b08_removals_that_come_back_are_no_damage",
    /// What an earlier run removed behind the last segment is gone for good before that takes appends.
    TailNames => "log::tests::cut::row_c07_what_is_cut_off_on_a_full_disk_never_contradicts_what_follows",

    // ---- what is believed after a crash ----------------------------------------------------
    /// Checksums are keyed by a random number of each segment.
    Salt => "log::tests::hostile::row_e09_a_payload_that_imitates_a_batch_is_never_taken_for_one",
    /// After a crash the log goes on in a new segment, unless nothing but zeros lies behind its end.
    #[cfg_attr(not(test), expect(dead_code, reason = "its mutant is made in code of the tests"))]
    NewSegment => "log::tests::crash::row_b03_hole_then_reappend",
    /// Where whole segments are cut off, their successor says so.
    CutSaysSo => "log::tests::crash::row_b03_whole_segments_behind_a_hole_are_cut_for_good",
    /// Before a tail is cut, what lies behind is searched for proof that it was durable.
    Evidence => "log::tests::torn::row_e02_damage_below_the_proof_is_reported_and_read_around",
    /// A segment that another of higher generation replaces is a leftover.
    ReplacedIsLeftover => "log::tests::compaction::run::row_a15_a16_a17_a18_a_crash_at_every_point_of_a_compaction_loses_and_revives_nothing",
    /// A segment behind a cut of higher generation is one, too.
    CutIsLeftover => "log::recovery::tests::a_truncating_segment_removes_what_an_interrupted_cut_left",
}

impl Rule {
    /// Does a step that keeps this rule.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a constant condition is to leave nothing behind")]
    pub(crate) fn keep<E>(self, step: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        if self.holds() { step() } else { Ok(()) }
    }

    /// Whether the engine keeps this rule: always, but in a mutant.
    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "all of them are kept here")]
    pub(crate) const fn holds(self) -> bool {
        true
    }

    /// Whether the engine keeps this rule, in this process.
    #[cfg(test)]
    pub(crate) fn holds(self) -> bool {
        tests::removed() != Some(self)
    }
}

/// A release without one of its rules does not build.
#[cfg(not(test))]
const _: () = assert!(Rule::ActiveSync.holds());

#[cfg(test)]
mod tests;

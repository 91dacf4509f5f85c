//! The rules on which durability depends, each of which a test build can disable.
//!
//! Owns: the list of these rules. The engine names a rule at the step that implements it:
//! `Rule::HeaderSync.keep(|| file.sync())`. The unit tests run the engine with one rule disabled (a
//! *mutant*) and expect a crash test to fail. If all tests pass, a test is missing or the rule is
//! not needed. Must not know: what the steps do.
//!
//! Only in the unit tests of this library can a rule be disabled: in every other build
//! [`Rule::holds`] is the constant `true`, and compiles to nothing. In a test process,
//! `LOGPOND_MUTANT=HeaderSync` disables one rule:
//!
//! ```text
//! cargo test --lib every_mutant -- --nocapture                      # all, each by one quick test
//! LOGPOND_MUTANTS=all cargo test --lib every_mutant -- --nocapture  # all, each by all tests
//! LOGPOND_MUTANT=Salt cargo test --lib                         # what notices this one?
//! ```

// Three syncs of a directory have no rule, because only space depends on them: those after the
// removal of segments that are below the log start, above a cut, or replaced by a compaction. After
// a power cut such a segment may exist again. The reason for which it does not count was durable
// before it was removed, so the next opening removes it again.
//
// A fourth removal has no sync at all: on a full disk, segments above a cut are removed before the
// cut is recorded (`log/leftovers`). Those that exist again after a power cut follow a gap in the
// offsets, which ends the log. Whatever closes the gap first waits for `SegmentName` or
// `TailNames`.

/// Declares the rules. Each has the unit test that fails soonest without it.
macro_rules! rules {
    ($($(#[$doc:meta])* $rule:ident => $test:literal,)*) => {
        /// A rule without which acknowledged records or commits can be lost.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Rule {
            $($(#[$doc])* $rule,)*
        }

        #[cfg(test)]
        impl Rule {
            /// All rules, each with its test.
            const ALL: &[(Self, &str)] = &[$((Self::$rule, $test),)*];
        }
    };
}

rules! {
    // ---- what is synced --------------------------------------------------------------------
    /// An acknowledgement at `Sync` follows a sync of the active segment.
    ActiveSync => "log::tests::crash::row_b01_a_power_cut_at_every_store_point_leaves_a_prefix_with_all_that_was_synced",
    /// It also follows a sync of every segment that was sealed since the last sync.
    SealedSync => "log::tests::sync::row_b14_a_sync_does_not_cover_what_was_appended_before_the_segment_was_sealed",
    /// The header of a new segment is synced before the file gets its name.
    HeaderSync => "log::tests::crash::row_a22_an_interrupted_creation_is_an_empty_log_or_none",
    /// A footer is written only after its data was synced, because readers take it as proof of
    /// that.
    FooterAfterSync => "log::tests::crash::row_b01_a_power_cut_at_every_store_point_leaves_a_prefix_with_all_that_was_synced",
    /// A sync covers what was published when it began; a later caller waits for the next sync.
    NextSync => "partition::tests::syncs::row_b14_who_publishes_during_a_sync_waits_for_the_next_one",
    /// The tail that an earlier run left is written again before it counts as durable: after a
    /// failed sync the kernel may have marked its pages clean.
    TailRewrite => "log::tests::crash::row_d03_a_tail_that_a_failed_sync_marked_clean_is_written_again",
    /// The rewritten tail is synced before it counts as durable.
    TailSync => "log::tests::crash::row_d03_a_tail_that_a_failed_sync_marked_clean_is_written_again",
    /// A record of an internal log is synced before the step that relies on it.
    StateSync => "broker::tests::crash::row_a22_b17_a_topic_is_created_whole_or_not_at_all",
    /// The records that an opening finds in an internal log are synced before it acts on them.
    FoundState => "broker::tests::state::row_a14_b16_a_power_cut_at_every_store_point_of_a_clean_up_loses_nothing",
    /// The live entries of an internal segment are copied, and the copies synced, before the
    /// segment is removed.
    CleanUpSync => "broker::tests::state::row_a14_b16_a_power_cut_at_every_store_point_of_a_clean_up_loses_nothing",
    /// A commit, and a reset of a group, returns when its record is synced.
    CommitSync => "broker::tests::crash::row_a13_b16_the_last_acknowledged_commit_is_there",
    /// A commit, and a reset, is published after the records that it refers to are durable.
    RecordsBeforeCommit => "broker::tests::crash::row_a13_b16_the_last_acknowledged_commit_is_there",
    /// A compacted segment is synced before it gets its name.
    CompactedSync => "log::tests::compaction::run::row_a15_a16_a17_a18_a_crash_at_every_point_of_a_compaction_loses_and_revives_nothing",
    /// Before the new log start is stored, what retention refers to is durable: the removed records
    /// and those that follow them.
    SettledRemoval => "broker::tests::retention::row_a19_a_log_start_never_goes_back_and_nothing_above_it_is_lost",

    // ---- which names are synced ------------------------------------------------------------
    /// The name of a new segment is durable before anything in it is acknowledged.
    SegmentName => "log::tests::crash::row_b01_a_power_cut_at_every_store_point_leaves_a_prefix_with_all_that_was_synced",
    /// A segment that could not be begun is durably removed before the log continues without it.
    WithdrawnName => "log::tests::crash::an_opening_that_failed_and_came_back_changes_nothing",
    /// The name of a compacted segment is durable before the segments that it replaces are removed.
    CompactedName => "log::tests::compaction::run::row_a15_a16_a17_a18_a_crash_at_every_point_of_a_compaction_loses_and_revives_nothing",
    /// The name of the data directory is durable in its parent before the broker is open.
    DataDirName => "broker::tests::crash::row_a25_a_new_directory_survives_two_interrupted_openings",
    /// The names of the directories of the internal logs are durable before the broker is open.
    InternalDirName => "broker::tests::crash::row_a25_a_new_directory_survives_two_interrupted_openings",
    /// The names that an interrupted opening created are durable before the broker is open.
    FoundNames => "broker::tests::crash::row_a25_a_new_directory_survives_two_interrupted_openings",
    /// The name of a topic's directory is durable before its creation is acknowledged.
    TopicDirName => "broker::tests::crash::row_a22_b17_a_topic_is_created_whole_or_not_at_all",
    /// The names of its partitions' directories are durable before its creation is acknowledged.
    PartitionDirName => "broker::tests::crash::row_a22_b17_a_topic_is_created_whole_or_not_at_all",
    /// The segments of a deleted topic are durably removed before the directories that hold them
    /// are.
    DeletedSegmentNames => "broker::tests::crash::row_a23_a_deleted_topic_stays_deleted_and_its_name_is_free",
    /// The directories of its partitions are durably removed before its own directory is.
    DeletedPartitionNames => "broker::tests::crash::row_a23_a_deleted_topic_stays_deleted_and_its_name_is_free",
    /// Its own directory is durably removed before its name can be used again.
    DeletedTopicName => "broker::tests::crash::row_a23_a_deleted_topic_stays_deleted_and_its_name_is_free",
    /// The partitions of an interrupted growth of a topic are durably removed before they can be
    /// created again.
    UndoneGrowthNames => "broker::tests::crash::what_interrupts_a_growth_or_follows_it_does_not_mix_with_it",
    /// Internal segments are removed one by one: the removal of each is durable before the next
    /// one.
    CleanUpRemoval => "broker::tests::state::row_b08_removals_that_come_back_are_no_damage",
    /// The removal of segments after the last one, by an earlier run, is durable before the last
    /// one takes appends.
    TailNames => "log::tests::cut::row_c07_what_is_cut_off_on_a_full_disk_never_contradicts_what_follows",

    // ---- how recovery decides ------------------------------------------------------------------
    /// The checksums of a segment are keyed by its random number, so that a payload cannot imitate
    /// a batch.
    Salt => "log::tests::hostile::row_e09_a_payload_that_imitates_a_batch_is_never_taken_for_one",
    /// After a crash the log continues in a new segment, unless only zeros follow its end.
    #[cfg_attr(not(test), expect(dead_code, reason = "its mutant is made in code of the tests"))]
    NewSegment => "log::tests::crash::row_b03_hole_then_reappend",
    /// If whole segments are cut off, the header of their successor records it.
    CutRecorded => "log::tests::crash::row_b03_whole_segments_behind_a_hole_are_cut_for_good",
    /// Before a tail is cut, the bytes after the cut are searched for proof that it was durable.
    Evidence => "log::tests::torn::row_e02_damage_below_the_proof_is_reported_and_read_around",
    /// A segment that is replaced by one of a higher generation is a leftover.
    ReplacedIsLeftover => "log::tests::compaction::run::row_a15_a16_a17_a18_a_crash_at_every_point_of_a_compaction_loses_and_revives_nothing",
    /// A segment above a cut of a higher generation is a leftover.
    CutIsLeftover => "log::recovery::tests::a_truncating_segment_removes_what_an_interrupted_cut_left",
}

impl Rule {
    /// Runs the step that implements this rule.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a constant condition is to leave nothing behind")]
    pub(crate) fn keep<E>(self, step: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        if self.holds() { step() } else { Ok(()) }
    }

    /// Whether this rule is in force: always, except in a mutant.
    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "every rule is in force in this build")]
    pub(crate) const fn holds(self) -> bool {
        true
    }

    /// Whether this rule is in force in this process.
    #[cfg(test)]
    pub(crate) fn holds(self) -> bool {
        tests::removed() != Some(self)
    }
}

/// A build in which a rule is disabled by mistake does not compile.
#[cfg(not(test))]
const _: () = assert!(Rule::ActiveSync.holds());

#[cfg(test)]
mod tests;

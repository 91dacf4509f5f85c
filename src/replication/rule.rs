//! The rules of replication that the exploration or the simulation removes, one at a time. P1 to P10
//! are rules 1 to 10 of `docs/replication.md`, and P15 is its rule 11.
//!
//! Owns: the list of these rules. The state machine names a rule where it keeps it:
//! `Rule::TakeNothing.holds()`. A test build removes one and expects the exploration to find a
//! violation; otherwise a scenario is missing, or the rule is not needed. In other builds
//! [`Rule::holds`] is the constant `true`. Must not know: what the rules protect.

macro_rules! rules {
    ($($(#[$doc:meta])* $rule:ident,)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Rule {
            $($(#[$doc])* $rule,)*
        }

        #[cfg(test)]
        impl Rule {
            pub(crate) const ALL: &[Self] = &[$(Self::$rule,)*];
        }
    };
}

rules! {
    /// P1: a promise is durable before it is sent.
    PromiseNoted,
    /// P1: nothing is taken from an epoch below the promised one.
    TakeNothing,
    /// P2: an epoch is promised to one run of one member.
    PromiseOnce,
    /// P2: nobody leads an epoch that it has promised before, for instance before a restart.
    LeadOnce,
    /// P2, P3: a leadership begins with the promises of a majority.
    ConfirmingRound,
    /// P3: of the logs of those who promised, the one that adopted the greatest epoch is chosen, and
    /// then the longest.
    ChooseAdopted,
    /// P3: a candidate fetches what it lacks before it leads.
    FetchFirst,
    /// P3, P6: a fetch names the epoch of the last record that its sender has, and logs that differ there
    /// are cut to where they agree.
    NameEpoch,
    /// P3: if the chosen `__meta` brings another membership, the promises are a majority of it too.
    #[cfg_attr(not(test), expect(dead_code, reason = "only test builds can remove it"))]
    ChosenMembership,
    /// P4: only copies that adopted the epoch count.
    CountAdopted,
    /// P4: the adoption of an epoch is durable before it counts.
    AdoptionNoted,
    /// P4: the records that an adoption stands for are synced before it is noted.
    AdoptionSynced,
    /// P4: each log adopts an epoch for itself.
    AdoptEachLog,
    /// P5: the high watermark is what a majority holds.
    CountMajority,
    /// P5: a leader says that nothing is missing from what is read at it only when that is so in
    /// each log that was there when its epoch began.
    CurrentInEachLog,
    /// P6: only the answer to the question of the moment is obeyed, and a log that has adopted the
    /// epoch is never cut. Either suffices; without both, a late answer cuts what counted.
    AnswerAsked,
    /// P5: of a log at `Sync`, only synced copies count.
    CountSynced,
    /// P7: of a log at `Sync`, a copy counts only when its creation is synced too.
    CreationSynced,
    /// P7: the records of a topic are below their high watermark only when its creation is.
    CreationFirst,
    /// P8: while a membership is not below the high watermark, a majority of the one before it is
    /// needed too.
    BothMajorities,
    /// P8: a member goes by the newest membership in its log, also by one that is not below the high
    /// watermark.
    NewestMembership,
    /// P8: a promise counts for the directory that made it, not for the member.
    CountDirectory,
    /// P8: a group is founded only when all listed members have answered.
    FoundByAll,
    /// P8: once a later run of a directory was noted, what an earlier one says counts for nothing:
    /// the directory was put back from a copy.
    NewestSession,
    /// P9: a member that may have lost confirmed records promises nothing.
    RecoveringPromisesNothing,
    /// P9: before anything counts that the founder of a group has of it, it is noted that it does: what the
    /// founder loses from then on is missing.
    FoundedNoted,
    /// P9, P11: an answer counts for the run that asked.
    AnswerToThisRun,
    /// P10: a member with damage in a log promises nothing.
    DamagedPromisesNothing,
    /// P10: before a damaged log is removed to be copied again, it is noted that confirmed records are
    /// missing.
    RepairNoted,
    /// P15: where a log continues is durable before what it had is removed.
    StartNoted,
    /// P15: a log start is acknowledged when a majority has noted it.
    StartCounted,
}

#[cfg(test)]
impl Rule {
    /// Those that depend on damage, on retention, or on copies of directories, which the
    /// exploration does not have. The simulation over the engine removes them.
    pub(crate) const SIMULATED: &[Self] = &[
        Self::DamagedPromisesNothing,
        Self::RepairNoted,
        Self::StartNoted,
        Self::StartCounted,
        Self::NewestSession,
    ];
}

#[cfg(test)]
std::thread_local! {
    static REMOVED: std::cell::Cell<Option<Rule>> = const { std::cell::Cell::new(None) };
}

impl Rule {
    #[cfg(not(test))]
    #[allow(clippy::unused_self, reason = "in tests it depends on the rule")]
    pub(crate) const fn holds(self) -> bool {
        true
    }

    #[cfg(test)]
    pub(crate) fn holds(self) -> bool {
        REMOVED.get() != Some(self)
    }

    /// Removes a rule, for this thread.
    #[cfg(test)]
    pub(crate) fn remove(rule: Option<Self>) {
        REMOVED.set(rule);
    }
}

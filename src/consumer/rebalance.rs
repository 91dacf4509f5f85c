//! Runs the application's rebalance callback.
//!
//! Owns: the callback, and which partitions are not reported to it yet. Must not know: how
//! partitions change owners.
//!
//! A callback runs in the member's own `poll` or `close`, under no lock. It may open consumers of
//! the same group, administer, produce. The consumer stays consistent whatever it does: a panic, or
//! an error that the callback returns, is passed on after the hand-over is finished.
//!
//! Invariant: partitions whose `Assigned` returned an error count as unreported, so that the next
//! poll reports them again before it reads anything.

use std::any::Any;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::commit::Commits;
use crate::error::Error;
use crate::record::TopicPartition;

/// Which partitions a member of a group gains or loses; the first argument of the callback of
/// [`on_rebalance`](crate::ConsumerBuilder::on_rebalance). The list has at least one partition, and
/// is sorted.
#[doc(alias = "ConsumerRebalanceListener")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rebalance<'a> {
    /// The member owns the partitions from now on, and has not returned any message of them yet.
    /// Their positions are known, unless [`StartAt::Error`](crate::StartAt::Error) finds none. The
    /// callback may [move](Commits::seek) or [pause](Commits::pause) them. After an error the next
    /// poll calls it again.
    #[doc(alias = "onPartitionsAssigned")]
    Assigned(&'a [TopicPartition]),
    /// The member is about to give up the partitions. It still owns them: no other member gets them
    /// before the callback has returned. Commit here. In auto mode the positions are committed
    /// already.
    #[doc(alias = "onPartitionsRevoked")]
    Revoked(&'a [TopicPartition]),
    /// The member has lost the partitions: it was evicted, a newer consumer uses its instance id,
    /// or the topic was deleted. It is too late to commit; another member may own them already.
    #[doc(alias = "onPartitionsLost")]
    Lost(&'a [TopicPartition]),
}

/// What the callback of [`on_rebalance`](crate::ConsumerBuilder::on_rebalance) may return: nothing,
/// or a `Result` whose error is any that `?` makes a `Box<dyn Error + Send + Sync>` of. It is
/// implemented for these types only.
///
/// A closure that uses `?` has to name its type, for example `|event, commits|
/// -> logpond::Result<()> { ... }`.
pub trait CallbackResult: sealed::Outcome {}

impl<R: sealed::Outcome> CallbackResult for R {}

type Reason = Box<dyn std::error::Error + Send + Sync>;

mod sealed {
    use super::Reason;

    pub trait Outcome {
        fn into_result(self) -> Result<(), Reason>;
    }

    impl Outcome for () {
        fn into_result(self) -> Result<(), Reason> {
            Ok(())
        }
    }

    impl<E: Into<Reason>> Outcome for Result<(), E> {
        fn into_result(self) -> Result<(), Reason> {
            self.map_err(Into::into)
        }
    }

    /// The type of a callback that always panics: `!`, which stable Rust does not let be named.
    impl Outcome for <fn() -> ! as Returns>::Output {
        fn into_result(self) -> Result<(), Reason> {
            self
        }
    }

    pub trait Returns {
        type Output;
    }

    impl<T> Returns for fn() -> T {
        type Output = T;
    }
}

pub(super) type Callback =
    Box<dyn FnMut(Rebalance<'_>, &mut Commits<'_>) -> Result<(), Reason> + Send>;

pub(super) fn boxed<R: CallbackResult>(
    mut callback: impl FnMut(Rebalance<'_>, &mut Commits<'_>) -> R + Send + 'static,
) -> Callback {
    Box::new(move |event, commits| callback(event, commits).into_result())
}

/// How a callback failed, to be passed on once the consumer is consistent.
#[must_use]
pub(super) enum Failed {
    Panic(Box<dyn Any + Send>),
    Error(Error),
}

impl Failed {
    /// Resumes the panic, or returns the error for the poll to return.
    pub(super) fn raise(self) -> Error {
        match self {
            Self::Panic(panic) => resume_unwind(panic),
            Self::Error(error) => error,
        }
    }
}

#[derive(Default)]
pub(super) struct Listener {
    callback: Option<Callback>,
    /// Partitions that the group has assigned and that were not reported to the callback yet.
    unreported: BTreeSet<TopicPartition>,
    /// The callback runs only after `open` has returned.
    is_open: bool,
    /// Whether the last call of the callback was that for an assignment, and returned an error.
    has_put_back: bool,
}

impl Listener {
    pub(super) fn new(callback: Option<Callback>) -> Self {
        Self { callback, ..Self::default() }
    }

    /// `open` is about to return.
    pub(super) fn open(&mut self) {
        self.is_open = true;
    }

    /// These partitions are this consumer's now.
    pub(super) fn add(&mut self, assigned: Vec<TopicPartition>) {
        if self.callback.is_some() {
            self.unreported.extend(assigned);
        }
    }

    /// These partitions are another's now.
    pub(super) fn forget(&mut self, gone: &BTreeSet<&TopicPartition>) {
        self.unreported.retain(|partition| !gone.contains(partition));
    }

    /// Their callback returned an error: they are reported again.
    pub(super) fn put_back(&mut self, assigned: Vec<TopicPartition>) {
        self.unreported.extend(assigned);
        self.has_put_back = true;
    }

    pub(super) fn has_put_back(&self) -> bool {
        self.has_put_back
    }

    /// The partitions to report as assigned, in order.
    pub(super) fn take_unreported(&mut self) -> Vec<TopicPartition> {
        if !self.is_open || self.unreported.is_empty() {
            return Vec::new();
        }
        std::mem::take(&mut self.unreported).into_iter().collect()
    }

    /// Those of the partitions that were reported to the callback. The others are reported neither
    /// as assigned nor as revoked.
    pub(super) fn reported(&self, partitions: &[TopicPartition]) -> Vec<TopicPartition> {
        let is_reported = |partition: &&TopicPartition| !self.unreported.contains(partition);
        partitions.iter().filter(is_reported).cloned().collect()
    }

    /// Runs the callback, if there is one and something to report.
    pub(super) fn notify<'p>(
        &mut self,
        event: impl FnOnce(&'p [TopicPartition]) -> Rebalance<'p>,
        partitions: &'p [TopicPartition],
        commits: &mut Commits<'_>,
    ) -> Result<(), Failed> {
        match &mut self.callback {
            Some(callback) if !partitions.is_empty() => {
                self.has_put_back = false;
                let run = || callback(event(partitions), commits);
                match catch_unwind(AssertUnwindSafe(run)) {
                    Ok(result) => result
                        .map_err(|reason| Failed::Error(Error::Callback { source: reason.into() })),
                    Err(panic) => Err(Failed::Panic(panic)),
                }
            }
            _ => Ok(()),
        }
    }
}

//! The errors of one partition that polls return.
//!
//! Owns: an error that no poll has returned yet, and whether a lasting one was returned. Must not
//! know: what failed, and which partition.

use crate::error::Error;

#[derive(Debug, Default)]
pub(super) struct Failure {
    /// An error that the next poll returns once.
    pending: Option<Error>,
    /// Whether a lasting error was returned, and no record of any partition since.
    lasts: bool,
}

impl Failure {
    /// Keeps an error for the next poll: records that were read before it are returned first.
    pub(super) fn keep(&mut self, error: Error) {
        self.pending = Some(error);
    }

    #[inline]
    pub(super) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    pub(super) fn take_pending(&mut self) -> Option<Error> {
        self.pending.take()
    }

    /// The cut below the committed offset, if no poll has reported it. A commit would hide it from
    /// the next owner, so none is made before.
    pub(super) fn unreported_cut(&self) -> Option<Error> {
        let is_cut = |error: &&Error| matches!(error, Error::Truncated { .. });
        self.pending.as_ref().filter(is_cut).cloned()
    }

    #[inline]
    pub(super) fn lasts(&self) -> bool {
        self.lasts
    }

    /// An error was returned that lasts, or one that does not.
    pub(super) fn note_returned(&mut self, lasts: bool) {
        self.lasts = lasts;
    }

    /// What has failed is to be tried again.
    pub(super) fn retry(&mut self) {
        self.lasts = false;
    }
}

/// Whether an error is met again until the caller does something about it. An iteration ends with
/// it, since its caller can do nothing in between.
pub(super) fn lasts(error: &Error) -> bool {
    matches!(
        error,
        Error::Fenced { .. }
            | Error::Forked
            | Error::UnknownTopic(_)
            | Error::Corrupt(_)
            | Error::OffsetOutOfRange { .. }
            | Error::NoOffset(_)
    )
}

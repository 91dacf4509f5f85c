//! What a consumer knows of the commits of one partition.
//!
//! Owns: the consumer's last commit, and the offset below which a commit is ignored. Must not know:
//! positions, and how a commit is stored.

#[derive(Debug, Default)]
pub(super) struct CommitMark {
    /// What this consumer committed last.
    last: Option<u64>,
    /// The committed offset. A commit below it is ignored, unless it is meant to go back.
    floor: u64,
}

impl CommitMark {
    /// Reading resumes at this commit.
    pub(super) fn resume(&mut self, offset: u64) {
        (self.last, self.floor) = (Some(offset), offset);
    }

    /// This is committed, and reading waits until the partition is available.
    pub(super) fn stand_by(&mut self, committed: Option<u64>) {
        (self.last, self.floor) = (committed, committed.unwrap_or(0));
    }

    /// This offset was committed.
    pub(super) fn note(&mut self, offset: u64, may_rewind: bool) {
        if may_rewind || self.takes(offset) {
            self.resume(offset);
        }
    }

    /// Whether a commit of this offset counts that is not meant to go back.
    pub(super) fn takes(&self, offset: u64) -> bool {
        offset >= self.floor
    }

    /// Whether this offset is what was committed last.
    pub(super) fn is_last(&self, offset: u64) -> bool {
        self.last == Some(offset)
    }

    /// Commits count from this offset on, whatever is committed.
    pub(super) fn take_from(&mut self, offset: u64) {
        self.floor = offset;
    }

    /// Commits count from this offset on at the latest.
    pub(super) fn take_from_at_most(&mut self, offset: u64) {
        self.floor = self.floor.min(offset);
    }
}

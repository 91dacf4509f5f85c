//! The settings of an open consumer, as plain values.

use crate::config::{CommitMode, StartAt, Visibility};

#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) start: StartAt,
    pub(super) out_of_range: StartAt,
    pub(super) commit: CommitMode,
    pub(super) visibility: Visibility,
    pub(super) poll_records: usize,
    pub(super) poll_bytes: usize,
    /// Damage is skipped, and noted as a gap, instead of returned.
    pub(super) reads_around_damage: bool,
}

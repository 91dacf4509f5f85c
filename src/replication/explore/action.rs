//! What may happen in a world, and how much of it did.
//!
//! Owns: the kinds of steps that are no message, and their counts. Must not know: worlds, searches.

use super::super::log_key::LogKey;
use crate::record::{LeaderEpoch, NodeId};

/// What may happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Action {
    Deliver(u32),
    Lead(LeaderEpoch),
    Append(LogKey),
    /// The same, or a creation, counted by its number in the world's list.
    Write(u8, Write),
    Kill,
    PowerCut,
    Wipe,
    Replace(NodeId),
    Resend,
    Sync(LogKey),
}

impl Action {
    /// How often it may happen is bounded.
    pub(super) fn is_counted(self) -> bool {
        !matches!(self, Self::Replace(_) | Self::Deliver(_) | Self::Resend | Self::Sync(_))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Write {
    Record(LogKey),
    /// Of that log, in `__meta`.
    Creation(LogKey),
    Deletion(LogKey),
}

/// What is counted against the bounds of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Spent {
    /// One bit for each epoch that somebody was called to lead.
    pub(super) epochs: u32,
    pub(super) appends: u8,
    pub(super) kills: u8,
    pub(super) power_cuts: u8,
    pub(super) wipes: u8,
    /// One bit for each of the world's writes.
    pub(super) writes: u8,
}

impl Spent {
    pub(super) fn add(&mut self, action: Action) {
        match action {
            Action::Lead(epoch) => self.epochs += 1 << (epoch.0 * 2),
            Action::Append(_) => self.appends += 1,
            Action::Write(i, _) => self.writes |= 1 << i,
            Action::Kill => self.kills += 1,
            Action::PowerCut => self.power_cuts += 1,
            Action::Wipe => self.wipes += 1,
            Action::Replace(_) | Action::Deliver(_) | Action::Resend | Action::Sync(_) => {}
        }
    }
}
